#!/usr/bin/env python3
"""Runs the page-table hammers (paging_hammer*.c) with one seed under several settings of the engine: none may find an access that
differs from its own walk of the tables, and all must print the same.

hammer.py --vmm PROGRAM [--steps N] [--scatter N] ELF...; RD_SEED=N repeats, RD_LONG=1: longer, ten new seeds.
"""
import argparse
import os
import secrets
import sys

import run_guest

SETTINGS = ["bt", "bt,window=off", "bt,evict-random=50,seed=1", "bt,force-exit=20,seed=1", "bt,max-insns=1,window=off"]


def seeds(long):
    if os.environ.get("RD_SEED"):
        return [int(os.environ["RD_SEED"], 0)]
    return [secrets.randbits(31) for _ in range(10)] if long else [1]


def compare(args, elf, seed, settings):
    """True if all went well."""
    first, good = None, True
    line = "seed=%u steps=%u scatter=%u" % (seed, args.steps, args.scatter)
    for accel in settings:
        lines, err = run_guest.run(args.vmm, elf, accel, ["-append", line], args.timeout)
        right = len(lines) > 2 and lines[-2].endswith(" 0 wrong") and lines[-1] == "[exit 1]"
        if not right:
            print("FAIL %s -accel %s -append '%s'" % (elf, accel, line))
            print("\n".join(lines[-14:] + [err.strip()]))
        elif first is None:
            first = lines
        elif lines != first:
            print("FAIL %s -append '%s': -accel %s and %s differ" % (elf, line, settings[0], accel))
            right = False
        good = good and right
    return good


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--vmm", required=True)
    ap.add_argument("--steps", type=int, default=15000)
    ap.add_argument("--scatter", type=int, default=50000)
    ap.add_argument("--timeout", type=float, default=300)
    ap.add_argument("elf", nargs="+")
    args = ap.parse_args()
    long = bool(os.environ.get("RD_LONG"))
    if long:
        args.steps *= 20
    good = True
    for seed in seeds(long):
        print("seed %u" % seed)
        for elf in args.elf:
            good = compare(args, elf, seed, SETTINGS if long else SETTINGS[:2]) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
