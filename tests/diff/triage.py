#!/usr/bin/env python3
"""Groups what diff_test prints: diff_test --mismatches 3000 ... | tests/diff/triage.py
One line for each (last instruction, vectors, differing fields): count, key, first case, its last instruction, some fields."""
import collections
import re
import sys


def fields_of(block):
    values = re.findall(r"^  (\S+) +([0-9a-f]+)  +([0-9a-f]+)$", block, re.M)
    wide = re.findall(r"^  ((?:xmm|ymm-high|zmm-high|zmm|st|k|mxcsr)\d+)$", block, re.M)
    return values, sorted({re.sub(r"\d+$", "", w) for w in wide})


def key_of(block):
    insns = re.findall(r"^ +[0-9a-f]{1,8} [0-9a-f]+ +([a-z].*)$", block, re.M)
    last = insns[-1] if insns else "?"
    values, wide = fields_of(block)
    vector = [v for v in values if v[0] == "vector"]
    if vector:
        return last, ("vector %d/%d" % (int(vector[0][1], 16), int(vector[0][2], 16)),), values
    names = [v[0] for v in values if not v[0].startswith("[")] + wide
    if any(v[0].startswith("[") for v in values):
        names.append("memory")
    return last, tuple(names), values


def main():
    count, example = collections.Counter(), {}
    for text in sys.stdin.read().split("MISMATCH:")[1:]:
        case = re.search(r"--mode (\d+) --seed \d+ --case (\d+)", text)
        last, what, values = key_of(text.split(" shortened to:")[-1])
        key = (last.split()[0], what)
        count[key] += 1
        example.setdefault(key, (case.group(1) + ":" + case.group(2), last, values[:4]))
    for key, n in count.most_common():
        print(n, key[0], " ".join(key[1]), "|", *example[key])


main()
