#!/bin/bash
# tests/user/diff_in_guest.sh - the differential test inside a guest process: the host's CPU records its results, in the guest the
# same cases run again, natively or translated, and must give the same.
#
# usage: diff_in_guest.sh DIFF_TEST CASES RUN_USER-OPTION... [-- ENGINE-OPTION...]
# The seed is RD_SEED, or 1. Exit status as run_user.sh; 77 also where the host cannot run the cases.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
diff_test=$1 cases=$2 seed=${RD_SEED:-1}
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=()
for mode in 64 32; do
    "$diff_test" --mode $mode --cases "$cases" --seed "$seed" --record "$work/$mode" || exit
    files+=(--file "usr/share/$mode=$work/$mode")
done
# With its libraries; they are unpacked in the guest.
mapfile -t libraries < <(ldd "$diff_test" | grep -o '/[^ ]*')
tar -chf "$work/tree.tar" "${libraries[@]}" 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/script" <<END
#!/bin/sh
cd / && tar -xf /usr/share/tree.tar || exit 1
status=0
for mode in 64 32; do
    diff_test --mode \$mode --cases $cases --seed $seed --against /usr/share/\$mode || status=1
done
exit \$status
END
chmod +x "$work/script"
"$here/run_user.sh" amd64 --program churn "${files[@]}" --file "usr/bin/diff_test=$diff_test" --file "usr/share/tree.tar=$work/tree.tar" \
    --script "$work/script" "$@"
