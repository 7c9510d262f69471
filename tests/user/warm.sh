#!/bin/bash
# tests/user/warm.sh - worlds that go from one process to the next with what they have mapped: guest/warm.c looks at what its children see, this
# at the counters: that such worlds were used, and pages of them. With -check shadow their pages are compared with the guest's tables.
#
# usage: warm.sh PROGRAM
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
. "$(dirname "$0")/counted_lib.sh"
children=400
counted "$1" warm $children -check shadow=20
adopted=$(counter uw_adopted) kept=$(counter uw_kept)
echo "warm: $adopted worlds passed on, $kept pages kept"
[ "$adopted" -ge $((children / 2)) ] && [ "$kept" -ge $((children * 4)) ]
