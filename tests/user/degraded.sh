#!/bin/bash
# tests/user/degraded.sh - hosts that have less than direct execution wants: the guest runs all the same, and one line says how and why.
#
# usage: degraded.sh ENGINE [LACK...]      the LACKs are those of degrade.c
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
boot=$here/../boot
built=$here/../../build/user
engine=$1
shift
# LACK|what the line says (a regular expression)|options|counter that must not be 0
cases='none|kernel window, user code direct \(
user-dispatch|user code direct: by seccomp alone, the host has no Syscall User Dispatch \(the default
user-dispatch|user code direct: by seccomp alone, the host has no Syscall User Dispatch \(-accel bt|-accel bt,user=direct
cpuid-faults|user code direct: CPUID as the host.s, it cannot be made to fault \(
modify-ldt|user code direct: 32-bit code with thread-local storage translated, the host has no modify_ldt \(
mappings|user code direct \(
few-processes|user code direct \(|-stats stats|uw_evicted
seccomp-eperm|user code translated: seccomp filters were refused \(
seccomp-enosys|user code translated: seccomp filters were refused \(
no-new-privs|user code translated: no_new_privs was refused \(
fork|user code translated: the host would not start a helper process \(
fork-eperm|user code translated: the host would not start a helper process \(
group|user code translated: its own process group was refused \(
capset|user code translated: limits or capabilities could not be lowered \(
fsgsbase|soft path: the host has no FSGSBASE, user code translated: the host has no FSGSBASE \(the default
fsgsbase|soft path: the host has no FSGSBASE, user code translated: the host has no FSGSBASE \(-accel bt|-accel bt,user=direct
processes|user code translated: .*\(
personality|user code [dt]'
work=$(mktemp -d)
chmod 777 "$work"
trap 'rm -rf "$work"' EXIT
found=$("$boot/fetch" amd64) || { echo "degraded: skipped: cannot fetch the kernel"; exit 77; }
"$here/guest/build" "$built" churn user-test32 user-test64 || exit 1
${CC:-gcc} -O1 -Wall -Wextra -o "$work/degrade" "$here/degrade.c" || exit 1
# Where an unprivileged user can read them.
cp "${found#* }/vmlinuz" "$engine" "$work/" || exit 1
cat >"$work/script" <<'END'
#!/bin/sh
churn 20 1 && churn 4 150 && user-test32 u-tls-compiler u-fpu-switches u-odd-call-registers >/tmp/log &&
    user-test64 u-odd-call-registers >>/tmp/log && ! grep -v ^ok /tmp/log && echo fine
END
chmod 755 "$work/script" "$work/vmlinuz" "$work/ringdown"
"$boot/mkinitramfs" -o "$work/initrd.gz" -a amd64 -p "usr/bin/churn=$built/churn" -p "usr/bin/user-test32=$built/user-test32" \
    -p "usr/bin/user-test64=$built/user-test64" -e "$work/script" || exit 1
chmod 644 "$work/initrd.gz"
bad=0 n=0
while IFS='|' read -r lack line options counter; do
    [ $# = 0 ] || [[ " $* " = *" $lack "* ]] || continue
    n=$((n + 1))
    # shellcheck disable=SC2086
    timeout -k 5 120 "$work/degrade" "$lack" "$work/ringdown" ${options/stats stats/stats $work/stats} -m 256M -display none -monitor none -serial null \
        -serial stdio -no-reboot -kernel "$work/vmlinuz" -initrd "$work/initrd.gz" -append "panic=-1 quiet" \
        </dev/null >"$work/out" 2>"$work/err"
    status=$?
    if [ $status = 77 ]; then
        echo "skip $lack: $(head -n 1 "$work/err")"
        continue
    fi
    why=''
    [ $status = 0 ] || why="exit status $status"
    [ "$(tr -d '\r' <"$work/out")" = fine ] || why="$why; the guest said '$(tail -n 2 "$work/out")'"
    [ "$(grep -c . "$work/err")" = 1 ] || why="$why; not one line on stderr"
    grep -Eq "engine: binary translation, .*$line" "$work/err" || why="$why; the line is another"
    [ -z "$counter" ] || grep -q "\"$counter\": [1-9]" "$work/stats" || why="$why; $counter is 0"
    if [ -z "$why" ]; then
        echo "ok $lack: $(cut -c1-200 "$work/err")"
    else
        echo "FAIL $lack $why: $(head -n 3 "$work/err" | tr '\n' ' ')"
        bad=1
    fi
done <<<"$cases"
[ $n != 0 ] && exit $bad
