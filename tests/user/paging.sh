#!/bin/bash
# tests/user/paging.sh - what a page costs that is touched for the first time in direct execution, in counts: guest/paging.c reads 2,000
# pages and then writes to them, so that each is mapped twice and spoken of by INVLPG once. That must not have the whole world compared
# with the guest's tables.
#
# usage: paging.sh PROGRAM
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
. "$(dirname "$0")/counted_lib.sh"
pages=2000
counted "$1" paging $pages
maps=$(counter uw_maps) alone=$(counter uw_page_syncs) syncs=$(counter uw_syncs)
echo "paging: $maps pages mapped, $alone compared alone, $syncs worlds compared"
[ "$maps" -ge $((2 * pages)) ] || { echo "paging: it did not run directly"; exit 1; }
[ "$alone" -ge $pages ] && [ "$syncs" -lt $pages ]
