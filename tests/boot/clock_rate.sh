#!/bin/bash
# tests/boot/clock_rate.sh - does time in the guest run at the rate of time outside, also while the host is busy?
#
# usage: clock_rate.sh ARCH SECONDS [--load] [--qemu | --engine PROGRAM] [--append WORDS] [-- ENGINE-OPTION...]
# The guest prints its uptime four times a second; each line gets the host's time when it arrives. Lines may come late but never
# early, so the smallest (host - guest) of the first and of the last quarter give the drift: within 0.1 % passes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arch=$1 seconds=$2 load=0 engine=("$here/../../build/release/ringdown") append=
shift 2
while [ $# -gt 0 ]; do
    case $1 in
    --load) load=1 ;;
    --qemu) engine=(qemu-system-x86_64 -accel tcg -cpu max) ;;
    --engine) engine=("$2"); shift ;;
    --append) append=$2; shift ;;
    --) shift; break ;;
    *) echo "clock_rate: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
work=$(mktemp -d)
busy=()
finish() {
    [ ${#busy[@]} = 0 ] || kill "${busy[@]}" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
cat >"$work/script" <<END
#!/bin/sh
i=0
while [ \$i -lt $((seconds * 4)) ]; do
    read -r up idle </proc/uptime
    echo "\$up"
    i=\$((i + 1))
    sleep 0.25
done
END
kernel=$("$here/fetch" "$arch" | cut -d' ' -f2-)/vmlinuz || exit 77
user=amd64
[ "${arch%%-*}" = i386 ] && user=i386
"$here/mkinitramfs" -o "$work/initrd.gz" -a $user -e "$work/script" || exit 77
if [ $load = 1 ]; then
    for _ in $(seq "$(nproc)"); do
        (while :; do :; done) &
        busy+=($!)
    done
fi
timeout --foreground -k 5 $((seconds * 3 + 120)) "${engine[@]}" -m 256M -display none -monitor none -serial "file:$work/console" -serial stdio \
    -no-reboot -kernel "$kernel" -initrd "$work/initrd.gz" -append "console=ttyS0 panic=-1 quiet $append" "$@" </dev/null |
    while read -r up; do echo "$EPOCHREALTIME $up"; done >"$work/lines"
awk -v want="$seconds" '
    { host[NR] = $1; guest[NR] = $2 }
    END {
        if (NR < 20) { print "clock_rate: only " NR " lines came"; exit 1 }
        q = int(NR / 4)
        for (i = 1; i <= q; i++) {
            d = host[i] - guest[i]
            if (i == 1 || d < first) { first = d; t0 = host[i] }
            d = host[NR - q + i] - guest[NR - q + i]
            if (i == 1 || d < last) { last = d; t1 = host[NR - q + i] }
        }
        drift = (last - first) / (t1 - t0)
        # Uptime has hundredths of a second: over a short run that alone may look like drift.
        limit = 0.001 + 0.01 / (t1 - t0)
        printf "clock_rate: %d lines, %.1f s apart: the guest lags %.4f %% (limit %.4f %%)\n", NR, t1 - t0, drift * 100, limit * 100
        exit !(drift < limit && drift > -limit)
    }' "$work/lines"
