#!/bin/bash
# tests/user/fpu_lazy.sh - the FPU state stays in the user world over system calls that have no use for it: 40,000 getppid with all
# registers in use, and at most a tenth as many states copied either way in the whole run.
#
# usage: fpu_lazy.sh PROGRAM
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#!/bin/sh\nuser-test64 u-fpu-calls\n' >"$work/script"
"$here/run_user.sh" amd64 --engine "$1" --program user-test64 --script "$work/script" -- -accel bt,user=direct -stats "$work/stats"
status=$?
[ $status = 0 ] || exit $status
counter() { grep -o "\"$1\": [0-9]*" "$work/stats" | grep -o '[0-9]*$'; }
calls=$(counter uw_syscalls) in=$(counter uw_fpu_in) out=$(counter uw_fpu_out)
echo "fpu_lazy: $calls system calls, FPU states copied into worlds: $in, out: $out"
[ "$calls" -ge 40000 ] || { echo "fpu_lazy: they did not run directly"; exit 1; }
[ $((10 * (in + out))) -le "$calls" ]
