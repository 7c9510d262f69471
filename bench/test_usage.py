#!/usr/bin/env python3
"""bench/run from the outside: wrong words, what is missing, what cannot be written, interrupts. usage: test_usage.py BUILD RINGDOWN"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")
BUILD, RINGDOWN = sys.argv[1:3]
GIVEN = ["--no-build", "--build", BUILD, "--ringdown", RINGDOWN]
SHORT = ["--suites", "compute", "--only", "fib", "--samples", "1"]


def start(*args, **more):
    return subprocess.Popen([RUN, *GIVEN, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, **more)


def bench(*args, **more):
    p = start(*args, **more)
    out, err = p.communicate(timeout=300)
    return p.returncode, out, err


class Usage(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.out = os.path.join(scratch.name, "out")
        self.tmp = os.path.join(scratch.name, "tmp")
        os.mkdir(self.tmp)
        self.env = dict(os.environ, TMPDIR=self.tmp)

    def refused(self, want, *args, status=1, **more):
        code, _, err = bench(*args, env=self.env, **more)
        self.assertEqual(code, status, err)
        self.assertIn(want, err.splitlines()[-1])
        self.assertNotIn("Traceback", err)
        self.assertEqual(os.listdir(self.tmp), [])

    def test_wrong_words_are_named(self):
        self.refused("unknown engine 'kvm'", "--engines", "kvm")
        self.refused("unknown suite 'nope'", "--suites", "nope")
        for word in ("0", "-1", "x", "65"):
            self.refused("'%s' is not a number from 1 to 64" % word, "--samples=" + word, status=2)
        self.refused("'0' is not a number from 1 on", "--rounds", "0", status=2)
        self.refused("unrecognized arguments: --bogus", "--bogus", status=2)

    def test_workload_that_no_suite_has_is_named(self):
        self.refused("no workload 'fibb'", "--suites", "compute", "--only", "fib,fibb", "--samples", "1", "--rounds", "1", "--engines", "native",
                     "--out", self.out)

    def test_folders_that_hold_no_run(self):
        self.refused("No such file", "--report", self.out)
        self.refused("No such file", "--resume", self.out)
        os.mkdir(self.out)
        with open(os.path.join(self.out, "results.jsonl"), "w", encoding="utf-8") as f:
            f.write("[1]\n")
        self.refused("holds no results", "--report", self.out)
        self.refused("has results already", *SHORT, "--out", self.out)

    def test_output_that_cannot_be_written(self):
        self.refused("/proc/out", *SHORT, "--out", "/proc/out")
        os.mkdir(self.out)
        os.symlink("/dev/full", os.path.join(self.out, "results.jsonl"))
        self.refused("No space left", *SHORT, "--engines", "native", "--overwrite", "--out", self.out)

    def test_missing_peers_are_skipped_by_name(self):
        code, out, err = bench(*SHORT, "--rounds", "1", "--engines", "native,tcg,bochs", "--qemu", "no-such-qemu", "--out", self.out,
                               env=dict(self.env, PATH=self.tmp + ":" + os.path.dirname(sys.executable)))
        self.assertEqual(code, 0, err)
        self.assertIn("skipping tcg: no-such-qemu is not there", err)
        self.assertRegex(out, r"all +tcg +all +no-such-qemu is not there")
        with open(os.path.join(self.out, "summary.json"), encoding="utf-8") as f:
            left_out = {(row["suite"], row["engine"]) for row in json.load(f)["left_out"]}
        self.assertIn(("all", "tcg"), left_out)
        with open(os.path.join(self.out, "report.html"), encoding="utf-8") as f:
            self.assertIn("no-such-qemu is not there", f.read())
        self.refused("nothing of that can be measured here", *SHORT, "--engines", "tcg", "--qemu", "no-such-qemu", "--out", self.out + "2")

    def test_interrupted_run_leaves_nothing_behind_and_can_be_resumed(self):
        for number, engines in ((signal.SIGINT, "native,window"), (signal.SIGTERM, "native,direct"), (signal.SIGHUP, "native,trap")):
            out = self.out + str(int(number))
            p = start("--suites", "linux", "--only", "getppid", "--samples", "3", "--warm", "10", "--rounds", "1", "--engines", engines, "--out", out,
                      env=self.env)
            for line in p.stderr:
                if engines.split(",")[1] in line:
                    break
            time.sleep(1)
            machines = children(p.pid)
            self.assertTrue(machines)
            p.send_signal(number)
            err = p.communicate(timeout=60)[1]
            self.assertEqual(p.returncode, 130)
            self.assertRegex(err, "interrupted; --resume .* goes on from here")
            self.assertEqual(left_of(machines), [])
            self.assertEqual(os.listdir(self.tmp), [])
        code, _, err = bench("--resume", out, env=self.env)
        self.assertEqual(code, 0, err)
        self.assertEqual(re.findall("linux under (.*?)[,\n]", err + "\n"), ["trap"])


def left_of(pids, seconds=10):
    """Those that have not ended by then: what the kernel kills together with its parent does so a little later."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(os.path.exists("/proc/%d" % p) for p in pids):
        time.sleep(0.05)
    return [p for p in pids if os.path.exists("/proc/%d" % p)]


def children(pid):
    """All descendants."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % name, encoding="ascii", errors="replace") as f:
                if name.isdecimal() and int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found += [int(name)] + children(int(name))
        except OSError:
            pass
    return found


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
