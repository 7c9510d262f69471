#!/usr/bin/env python3
"""Runs bare guests under a VMM with QEMU's command line and compares what they print with expect/NAME.txt.

Expected files: the guest's output, then a line "[exit N]" with the VMM's exit status. A line
    #qemu: TEXT
says that QEMU prints TEXT where the manual wants the line that follows; it counts only when the VMM is QEMU. Lines
that start with "# " are comments; "#qemu-skip: WHY" says that QEMU has too little of the architecture for the whole
guest. A guest whose first line starts with "[skip]" found that it cannot run. --update writes the output of the run as
the expected file (then review the difference).
"""
import argparse
import difflib
import os
import secrets
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run(vmm, elf, accel, extra, timeout):
    """Returns the lines of the run: serial output, then the exit status."""
    with tempfile.TemporaryDirectory() as tmp:
        serial, debug = os.path.join(tmp, "serial"), os.path.join(tmp, "debugcon")
        cmd = [vmm, "-kernel", elf, "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "file:" + serial,
               "-debugcon", "file:" + debug, "-display", "none", "-no-reboot", "-monitor", "none", "-cpu", "max"]
        if accel:
            cmd += ["-accel", accel]
        cmd += extra
        try:
            p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               timeout=timeout, check=False)
            status, err = str(p.returncode), p.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired as e:
            status, err = "timeout", (e.stderr or b"").decode(errors="replace")
        text = read(serial)
        lines = text.splitlines() + ["[exit %s]" % status]
        if text != read(debug):
            lines.append("[port 0xe9 and COM1 differ]")
        return lines, err


def read(path):
    try:
        with open(path, encoding="ascii", errors="backslashreplace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def expected(path, is_qemu):
    """The lines of an expected file as this VMM should print them."""
    lines, instead = [], None
    for line in read(path).splitlines():
        if line.startswith("#qemu: "):
            instead = line[len("#qemu: "):]
        elif not line.startswith(("# ", "#qemu-skip:")):
            lines.append(instead if instead is not None and is_qemu else line)
            instead = None
    return lines


def check(args, elf, accel):
    """One guest: prints how it went, returns whether it failed."""
    is_qemu = "qemu" in os.path.basename(args.vmm)
    name = os.path.splitext(os.path.basename(elf))[0]
    path = os.path.join(HERE, "expect", name + ".txt")
    if is_qemu and not args.update and "#qemu-skip:" in read(path):
        print("skip " + name)
        return False
    got, err = run(args.vmm, elf, accel, args.extra, args.timeout)
    if args.update:
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join(got) + "\n")
        return False
    if got[0].startswith("[skip]"):
        print("skip %s: %s" % (name, got[0][6:].strip()))
        return False
    want = expected(path, is_qemu)
    if got == want:
        print("ok   " + name)
        return False
    print("FAIL " + name + (" -accel " + accel if accel else ""))
    print("\n".join(difflib.unified_diff(want, got, "expected", "got", lineterm="", n=2)))
    if err:
        print(err.strip())
    return True


def seeds():
    """RD_SEED=N: that one. check --long: ten new ones. Otherwise always the same."""
    if os.environ.get("RD_SEED"):
        return [int(os.environ["RD_SEED"], 0)]
    return [secrets.randbits(32) for _ in range(10)] if os.environ.get("RD_LONG") else [1]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--vmm", required=True)
    ap.add_argument("--accel", default="")
    ap.add_argument("--random", action="store_true", help="the setting needs a seed: RD_SEED, or a new one with RD_LONG")
    ap.add_argument("--timeout", type=float, default=40)
    ap.add_argument("--update", action="store_true")
    ap.add_argument("--extra", action="append", default=[], help="one more argument for the VMM")
    ap.add_argument("elf", nargs="+")
    args = ap.parse_args()
    failed = 0
    for accel in ["%s,seed=%u" % (args.accel, n) for n in seeds()] if args.random else [args.accel]:
        if args.random:
            print("-accel " + accel)
        failed += sum(check(args, elf, accel) for elf in args.elf)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
