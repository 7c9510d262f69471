#!/bin/bash
# tests/boot/check_demo.sh - ./demo --exec: exactly the command's output, its exit status, one line for bad usage.
# usage: check_demo.sh [DEMO-OPTION...], for example --qemu --arch i386. 0 passed, 1 failed, 77 skipped.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
problem() { echo "check_demo: $*"; bad=1; }
"$root/tests/boot/fetch" busybox-amd64 >/dev/null || { echo "check_demo: skipped: no guests to be had"; exit 77; }

"$root/demo" "$@" --exec 'printf "a\r\n\tb\377\n\n"; echo last >&2; printf "no newline"; exit 7' >"$work/out" 2>"$work/err"
status=$?
printf 'a\r\n\tb\377\n\nlast\nno newline' >"$work/want"
[ $status = 7 ] || problem "exit status $status, not 7: $(tail -n 5 "$work/err")"
cmp "$work/want" "$work/out" || problem "the output differs: $(od -c "$work/out" | head -n 5)"
grep -q '^demo: booting' "$work/err" || problem "no progress lines"

"$root/demo" "$@" --exec 'echo c >/proc/sysrq-trigger' >"$work/out" 2>"$work/err"
status=$?
[ $status = 125 ] && grep -q 'Kernel panic\|Kernel Offset\|the guest ended before' "$work/err" || problem "a guest panic gave status $status"

"$root/demo" --arch pdp11 >"$work/out" 2>"$work/err"
status=$?
[ $status = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] || problem "an unknown --arch gave status $status and $(wc -l <"$work/err") lines"
"$root/demo" --nonsense >"$work/out" 2>"$work/err" && problem "an unknown option was accepted"
[ $bad = 0 ] && echo "check_demo: ok"
exit $bad
