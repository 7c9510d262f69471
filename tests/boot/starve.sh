#!/bin/bash
# tests/boot/starve.sh - boots a kernel many times in a row while busy loops starve the host: timers must neither hang the
# guest nor be found broken.
#
# usage: starve.sh ARCH COUNT [--append WORDS]... [--nice N] [RUN_BOOT-OPTION...]
# Several --append take turns, boot by boot ("" is none); --nice is the busy loops'; other options go to run_boot.sh.
# Every boot must reach a small script, find a clean kernel log, and power off within two minutes. Two busy loops run per host core.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arch=$1 count=$2
shift 2
appends=() rest=() nice=0
while [ $# -gt 0 ]; do
    case $1 in
    --append) appends+=("$2"); shift ;;
    --nice) nice=$2; shift ;;
    --) rest+=("$@"); break ;;
    *) rest+=("$1") ;;
    esac
    shift
done
[ ${#appends[@]} -gt 0 ] || appends=("")
work=$(mktemp -d)
busy=()
finish() {
    [ ${#busy[@]} = 0 ] || kill "${busy[@]}" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
cat >"$work/script" <<'END'
#!/bin/sh
bad=$(dmesg | grep -E 'BUG|Oops|WARNING: CPU|Call Trace|soft lockup|rcu.*stall|IO-APIC \+ timer|clocksource: .*unstable')
[ -z "$bad" ] || { echo "$bad"; exit 1; }
echo "up $(cut -d' ' -f1 /proc/uptime) s, clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
END
for _ in $(seq $(($(nproc) * 2))); do
    nice -n "$nice" bash -c 'while :; do :; done' &
    busy+=($!)
done
failed=0
for i in $(seq "$count"); do
    append=${appends[$((i % ${#appends[@]}))]}
    "$here/run_boot.sh" "$arch" --timeout 120 --script "$work/script" --append "$append" "${rest[@]}" >"$work/log" 2>&1
    case $? in
    0) echo "boot $i ($append): $(head -n 1 "$work/log")" ;;
    77) cat "$work/log"; exit 77 ;;
    *)
        failed=$((failed + 1))
        echo "boot $i ($append) failed:"
        cat "$work/log"
        ;;
    esac
done
echo "starve: $arch: $((count - failed)) of $count boots ok"
[ $failed = 0 ]
