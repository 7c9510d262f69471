# tests/boot/boot_lib.sh - what run_boot.sh and tests/user/run_user.sh have in common: one boot of a stock kernel, and its verdict.
# Sourced. The caller has set: me (its name, for messages), work (a folder of its own), limit (seconds), memory, kernel, append, the array
# engine, and perhaps the array watch, a command that runs it.

# One boot, of so many seconds at most.
boot_once() {
    local seconds=$1
    shift
    timeout --foreground -k 5 "$seconds" ${watch[@]+"${watch[@]}"} "${engine[@]}" -m "$memory" -display none -monitor none \
        -serial "file:$work/console" -serial stdio -no-reboot -kernel "$kernel" -initrd "$work/initrd.gz" \
        -append "console=ttyS0 panic=-1 quiet $append" "$@" </dev/null >"$work/out" 2>"$work/err"
    status=$?
}

# Boots $work/initrd.gz with these further options; its output is in $work/out, and comes out here. Sets status, took and bad.
boot_guest() {
    local begun tries=0
    begun=$(date +%s)
    # On a busy host TCG stops for good in one boot in six, before the kernel's first message: that says nothing of our tests. Reference runs
    # that printed nothing are begun again.
    while [ "${reference:-0}" = 1 ] && [ $((tries += 1)) -le 3 ]; do
        boot_once 120 "$@"
        [ $status = 124 ] && [ ! -s "$work/out" ] || break
        echo "$me: nothing from $(basename "${engine[0]}") in 120 s: once more"
    done
    [ "${reference:-0}" = 1 ] || boot_once "$limit" "$@"
    took=$(($(date +%s) - begun))
    bad=0
    cat "$work/out"
}

problem() { echo "$me: $*"; bad=1; }

# Did it end by itself, in order, and the script in it with one of these statuses (a pattern)?
check_end() {
    [ $status = 124 ] || [ $status = 137 ] && problem "timed out after $limit s"
    [ $status = 0 ] || problem "the engine's exit status is $status: $(tail -n 5 "$work/err" | tr '\n' ' ')"
    grep -aq 'reboot: \(Power down\|Restarting system\)' "$work/console" 2>/dev/null || problem "no clean power-off"
    grep -aq "rd-exec: exit status $1" "$work/console" 2>/dev/null || problem "the script in the guest failed or did not end"
}

# Compares two files of lines; $1, the expected ones, goes by the name $3 in the message.
check_lines() {
    diff "$1" "$2" >"$work/diff" || problem "lines differ from $3: $(grep '^[<>]' "$work/diff" | head -n 20)"
}

verdict() {
    if [ $bad = 1 ]; then
        echo "$me: the guest's last words:"
        tail -n 15 "$work/console" 2>/dev/null | cut -c1-160
        exit 1
    fi
    echo "$me: $arch under $(basename "${engine[0]}"): as expected, $took s"
}
