#!/bin/bash
# tests/boot/second_core.sh - a compute job in the guest takes one CPU of the host, not two.
#
# usage: second_core.sh ARCH --engine PROGRAM [--seconds N] [-- ENGINE-OPTION...]
# While the guest computes for N seconds (default 6), the CPU time of the monitor (all its threads) and of the user worlds is taken from
# /proc. Together they may use 105 % of the time by the clock, the monitor 5 % of it, and half of what the worlds use (which counts where the host is busy).
# Exit status: 0, 1, or 77 if the guest cannot be had here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arch=$1 engine='' seconds=6
shift
while [ $# -gt 0 ]; do
    case $1 in
    --engine) engine=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --) shift; break ;;
    *) echo "second_core: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
user=amd64
[ "${arch%%-*}" = i386 ] && user=i386
work=$(mktemp -d)
pid=
finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
# The guest computes until it is told that the time is over; the first seconds are for promotion and moving in.
cat >"$work/script" <<END
#!/bin/sh
bench -t 100000 qsort20000 >/dev/null &
sleep 3
echo BEGIN
read -r line </dev/ttyS1
kill -9 \$!
echo END
END
mkfifo "$work/in"
kernel=$("$here/fetch" "$arch" | cut -d' ' -f2-)/vmlinuz || exit 77
"$here/mkinitramfs" -o "$work/initrd.gz" -a $user -b -e "$work/script" || exit 77
"$engine" -m 256M -display none -monitor none -serial "file:$work/console" -serial stdio -no-reboot -kernel "$kernel" \
    -initrd "$work/initrd.gz" -append "console=ttyS0 panic=-1 quiet" "$@" <"$work/in" >"$work/out" 2>"$work/err" &
pid=$!
exec 3>"$work/in"

# ticks PID...: their CPU time in clock ticks.
ticks() {
    local p sum=0 line
    for p in "$@"; do
        line=$(cat "/proc/$p/stat" 2>/dev/null) || continue
        # shellcheck disable=SC2086
        set -- ${line##*) }
        sum=$((sum + ${12} + ${13}))
    done
    echo $sum
}
worlds() { pgrep -P "$pid"; }
wait_for() {
    for _ in $(seq 2400); do
        grep -aq "^$1" "$work/out" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    echo "second_core: no $1 from the guest: $(tail -n 3 "$work/err")"
    exit 1
}
wait_for BEGIN
# shellcheck disable=SC2046
monitor0=$(ticks "$pid") worlds0=$(ticks $(worlds))
sleep "$seconds"
# shellcheck disable=SC2046
monitor=$(($(ticks "$pid") - monitor0)) used=$(($(ticks $(worlds)) - worlds0))
echo over >&3
wait_for END
wait "$pid"
pid=
echo "second_core: $arch: worlds used $used ticks, the monitor $monitor"
[ "$used" -ge 30 ] || { echo "second_core: the worlds hardly ran"; exit 1; }
[ $(((monitor + used) * 100)) -le $((seconds * 105 * $(getconf CLK_TCK))) ] || { echo "second_core: more than 1.05 CPUs"; exit 1; }
[ $((monitor * 2000)) -le $((seconds * 100 * $(getconf CLK_TCK))) ] || { echo "second_core: the monitor took more than 5 % of a CPU"; exit 1; }
[ $((monitor * 2)) -le "$used" ] || { echo "second_core: the monitor took more than half of that"; exit 1; }
