#!/bin/bash
# tests/user/warm.sh - worlds that go from one process to the next with what they have mapped: guest/warm.c looks at what its children see, this
# at the counters: that such worlds were used, and pages of them. With -check shadow their pages are compared with the guest's tables.
#
# usage: warm.sh PROGRAM
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
children=400
printf '#!/bin/sh\nwarm %s\n' $children >"$work/script"
"$here/run_user.sh" amd64 --engine "$1" --program warm --script "$work/script" -- -accel bt,user=direct -check shadow=20 -stats "$work/stats"
status=$?
[ $status = 0 ] || exit $status
counter() { grep -o "\"$1\": [0-9]*" "$work/stats" | grep -o '[0-9]*$'; }
adopted=$(counter uw_adopted) kept=$(counter uw_kept)
echo "warm: $adopted worlds passed on, $kept pages kept"
[ "$adopted" -ge $((children / 2)) ] && [ "$kept" -ge $((children * 4)) ]
