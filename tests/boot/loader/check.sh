#!/bin/bash
# tests/boot/loader/check.sh - one real kernel through one of the loaders, booted by QEMU without firmware up to a script in
# the guest that reports what the loader told the kernel.
#
# usage: check.sh IMAGE-PROGRAM ARCH 32|64|pvh|vmlinux-64|vmlinux-32. 0 passed, 1 failed, 77 skipped.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1 arch=$2 how=$3
skip() { echo "loader check: skipped: $*"; exit 77; }
command -v nasm >/dev/null && command -v qemu-system-x86_64 >/dev/null || skip "needs nasm and qemu-system-x86_64"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
found=$("$here/../fetch" "$arch") || skip "cannot fetch the $arch kernel"
kernel=${found#* }/vmlinuz entry=$how
case $how in
pvh | vmlinux-*)
    "$here/../extract-vmlinux" "$kernel" >"$work/vmlinux" || skip "cannot unpack the kernel"
    kernel=$work/vmlinux entry=auto
    [ "$how" = vmlinux-64 ] && entry=64
    ;;
esac
user=amd64
[ "${arch%%-*}" = i386 ] && user=i386
cat >"$work/script" <<'END'
#!/bin/sh
uname -rm
cat /proc/cmdline
dmesg | sed -n 's/.*BIOS-e820: //p'
dmesg | grep -q 'random: crng init done' && echo seeded
ls /usr/bin/awk
END
"$here/../mkinitramfs" -o "$work/initrd.gz" -a "$user" -e "$work/script" || skip "cannot build the initramfs"
# ACPI off: without firmware there are no tables. The guest then resets to end, and QEMU leaves.
"$here/run.sh" "$image" 256 "$entry" "$kernel" "$work/initrd.gz" "console=ttyS0 panic=-1 acpi=off loglevel=4 marker=$how" \
    -serial "file:$work/out" >"$work/console" 2>"$work/image"
status=$?
cat "$work/image" "$work/out" 2>/dev/null
{
    echo "$(cat "${found#* }/version") $([ $user = i386 ] && echo i686 || echo x86_64)"
    echo "console=ttyS0 panic=-1 acpi=off loglevel=4 marker=$how"
    echo "[mem 0x0000000000000000-0x000000000009fbff] usable"
    echo "[mem 0x000000000009fc00-0x00000000000fffff] reserved"
    echo "[mem 0x0000000000100000-0x000000000fffffff] usable"
    [ "$how" = pvh ] || echo seeded
    echo /usr/bin/awk
} >"$work/want"
# What PVH cannot carry (a seed) the CPU may give all the same: that line does not count there.
[ "$how" != pvh ] || sed -i '/^seeded$/d' "$work/out"
if [ $status = 0 ] && diff "$work/want" "$work/out" >"$work/diff"; then
    echo "loader check: $arch $how: as expected"
    exit 0
fi
echo "loader check: $arch $how: failed (status $status)"
cat "$work/diff" 2>/dev/null
tail -n 12 "$work/console"
exit 1
