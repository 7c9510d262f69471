# tests/user/counted_lib.sh - what paging.sh and warm.sh have in common: a program run directly, judged by the engine's counters.
# Sourced. counted ENGINE PROGRAM ARGUMENT [ENGINE-OPTION...]: exits with its status if that is not 0; counter NAME: of that run.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
counted() {
    local engine=$1 program=$2 argument=$3 status
    shift 3
    printf '#!/bin/sh\n%s %s\n' "$program" "$argument" >"$work/script"
    "$here/run_user.sh" amd64 --engine "$engine" --program "$program" --script "$work/script" -- -accel bt,user=direct "$@" -stats "$work/stats"
    status=$?
    [ $status = 0 ] || exit $status
}
counter() { grep -o "\"$1\": [0-9]*" "$work/stats" | grep -o '[0-9]*$'; }
