#!/usr/bin/env python3
"""tests/user/leak.py - processes come and go in the guest; the host must not notice in the end.

usage: leak.py ENGINE [--count N] [--user direct|auto|translated] [-- ENGINE-OPTION...]

After a warm-up the engine's process is measured: helper processes, lines of /proc/PID/maps, descriptors, anonymous memory. Then N
processes are created and ended in the guest, and it is measured again. Bounds: BOUND. Exit status 77: no guest to be had here.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import watch  # noqa: E402

# What may be more afterwards. Worlds are kept for reuse (two spare, and the guest's own few processes), translations fill their
# cache, the window holds what the kernel has touched last; none of these grows with the number of processes.
BOUND = {"processes": 6, "threads": 0, "descriptors": 0, "maps": 400, "anonymous KiB": 12 * 1024}
SCRIPT = """#!/bin/sh
churn 60 {ms} || exit 1
sleep 1; echo MARK before; sleep 2
churn {count} {ms} || exit 1
sleep 1; echo MARK after; sleep 2
"""


def measure(pid):
    status = watch.fields(watch.read(f"/proc/{pid}/status") or "")
    return {"processes": len(watch.children(pid)),
            "threads": len(watch.listing(f"/proc/{pid}/task")),
            "descriptors": len(watch.listing(f"/proc/{pid}/fd")),
            "maps": (watch.read(f"/proc/{pid}/maps") or "").count("\n"),
            "anonymous KiB": int(status["RssAnon"].split()[0])}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("engine")
    args.add_argument("--count", type=int, default=200)
    args.add_argument("--user", default="direct")
    args.add_argument("--timeout", type=int, default=200)
    args.add_argument("rest", nargs="*")
    args = args.parse_args()
    boot = os.path.join(HERE, "..", "boot")
    built = os.path.join(HERE, "..", "..", "build", "user")
    found = subprocess.run([os.path.join(boot, "fetch"), "amd64"], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        print("leak: skipped: cannot fetch the kernel")
        return 77
    subprocess.run([os.path.join(HERE, "guest", "build"), built, "churn"], check=True)
    with tempfile.TemporaryDirectory() as work:
        script, initrd, stats = (os.path.join(work, name) for name in ("script", "initrd", "stats"))
        with open(script, "w") as f:
            # Long enough for user=auto to promote them.
            f.write(SCRIPT.format(count=args.count, ms=30 if args.user == "auto" else 2))
        os.chmod(script, 0o755)
        subprocess.run([os.path.join(boot, "mkinitramfs"), "-o", initrd, "-a", "amd64", "-p", f"usr/bin/churn={built}/churn",
                        "-e", script], check=True)
        engine = subprocess.Popen(
            [args.engine, "-m", "256M", "-display", "none", "-monitor", "none", "-no-reboot", "-kernel",
             found.stdout.split(None, 1)[1].strip() + "/vmlinuz", "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet",
             "-serial", "file:" + os.path.join(work, "console"), "-serial", "stdio", "-stats", stats,
             "-accel", f"bt,user={args.user}", *args.rest],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(args.timeout, engine.kill)
        timer.start()
        marks = {}
        pids = set()
        for line in engine.stdout:
            print(line, end="")
            if line.startswith("MARK "):
                time.sleep(1)
                marks[line.split()[1]] = measure(engine.pid)
                pids.update(watch.children(engine.pid))
        status = engine.wait()
        timer.cancel()
        console = watch.read(os.path.join(work, "console")) or ""
        with open(stats) as f:
            text = f.read()
        counter = {name: int(n) for name, n in re.findall(r'"(uw_\w+)": (\d+)', text)}
        bad = []
        if status or "rd-exec: exit status 0" not in console:
            bad.append(f"exit status {status}: " + console[-300:])
        if len(marks) != 2:
            bad.append("the guest did not come to its end")
        else:
            for what, bound in BOUND.items():
                before, after = marks["before"][what], marks["after"][what]
                print(f"leak: {what}: {before} before, {after} after {args.count} processes (at most {bound} more)")
                if after > before + bound:
                    bad.append(f"{what}: {after - before} more, {bound} allowed")
        time.sleep(0.2)
        left = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if left:
            bad.append(f"processes left over: {left}")
        print("leak: " + " ".join(f"{name} {n}" for name, n in counter.items()))
        # They ran directly, each in a world that the ones before had used, and came in by more than a page at a time.
        if args.user == "auto" and counter["uw_promoted"] < args.count * 3 // 4:
            bad.append(f"only {counter['uw_promoted']} of {args.count} were promoted")
        if args.user != "translated" and counter["uw_maps"] < 8 * counter["uw_hidden"]:
            bad.append(f"{counter['uw_hidden']} hidden faults for {counter['uw_maps']} pages")
    for line in bad:
        print("leak: " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
