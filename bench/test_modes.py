#!/usr/bin/env python3
"""That the runner's checks can fail: real runs of every setting of ringdown, reported as if they had been another's, with a result or an
account that was falsified. Before that, that the account of each of these runs adds up to its wall time. usage: test_modes.py BUILD RINGDOWN FOLDER"""
import copy
import itertools
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
from rdbench import account, engines, store  # noqa: E402

MODES = ("window", "soft", "direct", "auto", "trap")
# What cannot be told apart: (claimed, real). Under user=auto a guest may do nothing that is worth promoting.
ALIKE = {("auto", "window")}


def bench(*args):
    p = subprocess.run([os.path.join(HERE, "run"), *args], capture_output=True, text=True, check=False)
    return p.returncode, p.stdout + p.stderr


def confusions(runs):
    """Claims that were believed although they are false, or doubted although they are true."""
    known = {e.name: e for e in engines.all_engines("", "")}
    for claimed, real in itertools.product(MODES, MODES):
        wrong = engines.wrong_mode(known[claimed], runs[real]["counters"], True)
        if claimed == real and wrong:
            yield "%s: %s" % (real, wrong)
        if claimed != real and not wrong and (claimed, real) not in ALIKE:
            yield "a run of %s passes for %s" % (real, claimed)


def falsified(folder, records, header, change, want):
    """The report of these records after change(); it must fail, and say want."""
    st = store.Store(folder)
    st.start(header)
    records = copy.deepcopy(records)
    change(records)
    for r in records:
        st.add(r)
    status, text = bench("--report", folder)
    if want is None:
        return [] if status == 0 else ["the true report fails: " + text[-500:]]
    return [] if status == 1 and want in text else ["not noticed: %s (status %d)" % (want, status)]


def other_result(records):
    records[-1]["samples"]["sha256-block"]["check"] = "bad"


def short_account(records):
    t = next(r for r in records if r["engine"] == "window")["counters"]["time"]
    t["wall_ns"], t["sum_ns"] = 10 * 10**9, int(9.4e9)


def swapped(records):
    for r in records:
        r["engine"] = {"soft": "window", "window": "soft"}.get(r["engine"], r["engine"])


def failed_run(records):
    records.append({"failure": "linux under trap: timed out"})


def main(build, ringdown, folder):
    runs = os.path.join(folder, "runs")
    status, text = bench("--no-build", "--build", build, "--ringdown", ringdown, "--overwrite", "--out", runs, "--suites", "linux", "--rounds", "1", "--engines",
                         "native," + ",".join(MODES), "--samples", "3", "--warm", "1200", "--only", "qsort-4000,sha256-block,fork-wait")
    if status:
        return ["the run itself: " + text[-2000:]]
    st = store.Store(runs).load()
    bad = ["%s: too short for its account to be judged" % r["engine"] for r in st.records if r["engine"] in MODES and not account.judged(r["counters"])]
    bad += list(confusions({r["engine"]: r for r in st.records if r["engine"] in MODES}))
    for change, want in ((lambda r: None, None), (other_result, "results differ: linux/sha256-block"), (short_account, "adds up to 94.0 %"),
                         (swapped, "the soft path made window mappings"), (failed_run, "timed out")):
        bad += falsified(os.path.join(folder, "false"), st.records, st.header, change, want)
    with open(os.path.join(folder, "false", "summary.json"), encoding="utf-8") as f:
        if json.load(f)["failures"] != ["linux under trap: timed out"]:
            bad.append("summary.json does not hold the failure")
    return bad


if __name__ == "__main__":
    PROBLEMS = main(*sys.argv[1:4])
    print("\n".join(PROBLEMS) or "every false report was noticed")
    sys.exit(1 if PROBLEMS else 0)
