#!/bin/bash
# tests/boot/run_boot.sh - boots a stock kernel, runs the boot tests in it, compares their lines with the expected ones.
#
# usage: run_boot.sh ARCH [--qemu | --engine PROGRAM] [--append WORDS] [--timeout SECONDS] [--memory M] [--kernel FILE]
#                    [--vmlinux] [--script FILE] [--module NAME]... [-- ENGINE-OPTION...]
#   ARCH: amd64 cloud-amd64 i386 i386-pae. The engine is build/release/ringdown unless told otherwise.
#   --vmlinux boots the ELF file inside the bzImage
#   --module puts that module of the kernel's package into /lib/modules
#   --script runs that script in the guest instead and prints its output: 0 if it exits with 0 (no comparison)
# Exit status: 0 every line as expected and a clean power-off; 1 not; 77 the guest cannot be had here (no network, no 32-bit
# compiler): a skipped test for ctest.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
me=run_boot
. "$here/boot_lib.sh"
[ $# -ge 1 ] || { sed -n '4,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
arch=$1 engine=("$root/build/release/ringdown") append='' limit=300 memory=512M kernel='' script='' vmlinux=0 modules=()
shift
while [ $# -gt 0 ]; do
    case $1 in
    --qemu) engine=(qemu-system-x86_64 -accel tcg -cpu max) ;;
    --engine) engine=("$2"); shift ;;
    --append) append=$2; shift ;;
    --timeout) limit=$2; shift ;;
    --memory) memory=$2; shift ;;
    --kernel) kernel=$2; shift ;;
    --script) script=$2; shift ;;
    --vmlinux) vmlinux=1 ;;
    --module) modules+=("$2"); shift ;;
    --) shift; break ;;
    *) echo "run_boot: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
case $arch in
amd64 | cloud-amd64) user=amd64 ;;
i386 | i386-pae) user=i386 ;;
*) echo "run_boot: unknown architecture '$arch'" >&2; exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skip() { echo "run_boot: skipped: $*"; exit 77; }
if [ -z "$kernel" ]; then
    found=$("$here/fetch" "$arch") || skip "cannot fetch the $arch kernel"
    kernel=${found#* }/vmlinuz
fi
extra=(-d lib -d lib/modules)
for name in ${modules[@]+"${modules[@]}"}; do
    found=$("$here/fetch" --modules "$arch") || skip "cannot fetch the $arch kernel's modules"
    file=$(find "${found#* }/root/lib/modules" -name "$name.ko" | head -n 1)
    [ -n "$file" ] || { echo "run_boot: no module '$name'" >&2; exit 2; }
    extra+=(-p "lib/modules/$name.ko=$file")
done
if [ $vmlinux = 1 ]; then
    "$here/extract-vmlinux" "$kernel" >"$work/vmlinux" || skip "cannot unpack the kernel"
    kernel=$work/vmlinux
fi
echo 'int main(void) { return 0; }' >"$work/try.c"
gcc -m32 -static -o "$work/try" "$work/try.c" 2>"$work/try.log" || skip "gcc cannot build static 32-bit programs (package gcc-multilib)"
"$here/mkinitramfs" -o "$work/initrd.gz" -a "$user" -b -e "${script:-$here/guest/boot-script}" ${extra[@]+"${extra[@]}"} || skip "cannot build the initramfs"

boot_guest "$@"
check_end 0
if [ -z "$script" ]; then
    sed '/^BOOT-TESTS DONE/d' "$work/out" | sort >"$work/got"
    expected=$here/expected/${arch#cloud-}
    if [ "${RD_BOOT_REBASE:-0}" = 1 ]; then
        cp "$work/got" "$expected"
    fi
    sort "$expected" >"$work/want"
    check_lines "$work/want" "$work/got" "tests/boot/expected/${arch#cloud-}"
fi
verdict
