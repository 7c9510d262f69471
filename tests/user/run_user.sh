#!/bin/bash
# tests/user/run_user.sh - boots a stock kernel and runs programs for user mode in it.
#
# usage: run_user.sh ARCH [--qemu | --engine PROGRAM] [--timeout SECONDS] [--memory M] [--script FILE] [--program NAME]...
#                    [--file GUESTPATH=FILE]... [--expect FILE] [--append WORDS] [--watch] [-- ENGINE-OPTION...]
#        run_user.sh host                the programs of the user tests on this host: the tests' own test
#   ARCH: amd64 i386 i386-pae. The script is guest/user-script unless told otherwise; what it prints comes out here.
#   --program adds what guest/build builds, as /usr/bin/NAME; without it: the user tests of the architecture
#   --file adds any file; --expect FILE: the lines "ok|FAIL|skip NAME" must be these, but for their order
#   --append WORDS: for the kernel's command line
#   --watch checks the engine's processes while and after it runs (watch.py)
# Exit status: 0 the script ended with 0, lines as expected, and a clean power-off; 1 not; 77 the guest cannot be had here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
boot=$here/../boot
built=$root/build/user
me=run_user
. "$boot/boot_lib.sh"
[ $# -ge 1 ] || { sed -n '4,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
arch=$1 engine=("$root/build/release/ringdown") limit=300 memory=512M script=$here/guest/user-script programs=() files=() expect='' watch=() reference=0 append=''
shift
skip() { echo "run_user: skipped: $*"; exit 77; }
if [ "$arch" = host ]; then
    "$here/guest/build" "$built" user-test64 user-test32 || skip "cannot build 32-bit or C++ programs (package g++-multilib)"
    status=0
    for m in 64 32; do
        "$built/user-test$m" -p "$m:" || status=1
    done
    exit $status
fi
while [ $# -gt 0 ]; do
    case $1 in
    --qemu) engine=(qemu-system-x86_64 -accel tcg -cpu max) reference=1 ;;
    --engine) engine=("$2"); shift ;;
    --timeout) limit=$2; shift ;;
    --memory) memory=$2; shift ;;
    --script) script=$2; shift ;;
    --program) programs+=("$2"); shift ;;
    --file) files+=(-p "$2"); shift ;;
    --expect) expect=$2; shift ;;
    --append) append=$2; shift ;;
    --watch) watch=(python3 "$here/watch.py") ;;
    --) shift; break ;;
    *) echo "run_user: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
case $arch in
amd64) user=amd64 ;;
i386 | i386-pae) user=i386 ;;
*) echo "run_user: unknown architecture '$arch'" >&2; exit 2 ;;
esac
if [ ${#programs[@]} = 0 ]; then
    programs=(user-test32)
    [ "$user" = i386 ] || programs+=(user-test64)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
found=$("$boot/fetch" "$arch") || skip "cannot fetch the $arch kernel"
"$here/guest/build" "$built" "${programs[@]}" 2>"$work/log" || { tail -n 5 "$work/log"; skip "cannot build 32-bit or C++ programs (package g++-multilib)"; }
for program in "${programs[@]}"; do
    files+=(-p "usr/bin/$program=$built/$program")
done
"$boot/mkinitramfs" -o "$work/initrd.gz" -a "$user" ${files[@]+"${files[@]}"} -e "$script" || skip "cannot build the initramfs"

kernel=${found#* }/vmlinuz
boot_guest "$@"
check_end "[0$reference]"
if [ -n "$expect" ]; then
    # TCG is no reference for expected/qemu-differs: it has other bugs there (INT1, exceptions of SSE, segment limits, null
    # selectors, system calls of 32-bit code in 64-bit processes: the host passes all of these).
    differs=/dev/null
    [ $reference = 0 ] || differs=$here/expected/qemu-differs
    names() { grep -a '^\(ok\|FAIL\|skip\) ' "$1" | cut -d' ' -f1,2 | grep -v -w -F -f "$differs" | sort; }
    names "$work/out" >"$work/got"
    if [ "${RD_BOOT_REBASE:-0}" = 1 ]; then
        cp "$work/got" "$expect"
    fi
    names "$expect" >"$work/want"
    check_lines "$work/want" "$work/got" "$(basename "$expect")"
fi
verdict
