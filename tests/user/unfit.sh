#!/bin/bash
# tests/user/unfit.sh - user code that cannot run directly (guest/unfit.c) falls back, and the statistics say so.
#
# usage: unfit.sh PROGRAM USER         USER: direct, auto
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#!/bin/sh\nunfit && user-test64 u-cpu-vsyscall\n' >"$work/script"
"$here/run_user.sh" amd64 --engine "$1" --program unfit --program user-test64 --append iomem=relaxed --script "$work/script" -- -accel "bt,user=$2" -stats "$work/stats"
status=$?
[ $status = 0 ] || exit $status
bad=0
# Counter and what it is at least.
while read -r name least; do
    [ -n "$name" ] || continue
    n=$(grep -o "\"$name\": [0-9]*" "$work/stats" | grep -o '[0-9]*$')
    echo "unfit: $name: $n (at least $least)"
    [ "${n:-0}" -ge "$least" ] || bad=1
done <<END
$([ "$2" = direct ] || printf 'uw_promoted 2\nuw_demoted 1')
uw_runs 50
uw_mmio 20
uw_steps 200
uw_unfit_segments 500
END
exit $bad
