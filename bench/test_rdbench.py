#!/usr/bin/env python3
"""The runner's own logic: modes, accounts, ratios, steps, resuming."""
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from rdbench import account, bochs, engines, leftout, report, scale, session, store, suites, summary  # noqa: E402


def engine(name):
    return {e.name: e for e in engines.all_engines("ringdown", None)}[name]


def record(suite, eng, name, values, check=None, rnd=0, counters=None):
    return {"round": rnd, "suite": suite, "engine": eng, "counters": counters,
            "samples": {name: {"unit": "us", "values": values, "check": check, "note": None}}}


def times(classes, wall, total=None):
    return {"time": {"wall_ns": wall, "cpu_ns": wall, "sum_ns": sum(classes.values()) if total is None else total, "classes": classes,
                     "callouts_by_kind": {"OUT": wall // 10}}}


class Modes(unittest.TestCase):
    def wrong(self, name, window, direct, user=True):
        return engines.wrong_mode(engine(name), {"window_maps": window, "uw_runs": direct, "tc_entries": 1}, user)

    def test_modes_are_told_from_the_counters(self):
        self.assertIsNone(self.wrong("soft", 0, 0))
        self.assertIn("soft path", self.wrong("soft", 5, 0))
        self.assertIn("never used", self.wrong("window", 0, 0))
        self.assertIn("directly", self.wrong("window", 5, 1))
        self.assertIn("no user code", self.wrong("direct", 5, 0))
        self.assertIsNone(self.wrong("direct", 5, 0, user=False))
        self.assertIsNone(self.wrong("direct", 5, 9))
        self.assertIn("from the start", self.wrong("auto", 5, 9))
        self.assertIsNone(engines.wrong_mode(engine("tcg"), None, True))

    def test_trap_and_emulate_traps_and_nobody_else(self):
        def wrong(name, traps, callouts=1000):
            return engines.wrong_mode(engine(name), {"window_maps": 5, "uw_runs": 0, "tc_entries": 1, "traps": traps, "trap_pt_traced": 1,
                                                     "callouts_by_kind": {"CLI": callouts}}, True)
        self.assertIsNone(wrong("trap", 500))
        self.assertIn("hardly", wrong("trap", 5))
        self.assertIn("more traps", wrong("trap", 1001))
        self.assertIn("trapped", wrong("window", 1))


class Accounts(unittest.TestCase):
    def wrong(self, *counters):
        return list(account.problems(record("linux", "window", "x", [1], rnd=i, counters=c) for i, c in enumerate(counters)))

    def test_sum_far_from_the_wall_time_is_a_problem(self):
        self.assertEqual(self.wrong(times({"tc_user": 10**10}, 10**10)), [])
        self.assertEqual(self.wrong(times({}, 10**10, int(0.96e10))), [])
        self.assertIn("94.0 %", self.wrong(times({}, 10**10, int(0.94e10)))[0][2])
        self.assertIn("106.0 %", self.wrong(times({}, 10**10, int(1.06e10)))[0][2])

    def test_one_round_of_three_may_be_off(self):
        good, bad = times({}, 10**10, 10**10), times({}, 10**10, int(1.1e10))
        self.assertEqual(self.wrong(good, bad, good), [])
        self.assertEqual(self.wrong(bad, bad, good)[0][:2], ("linux", "window"))

    def test_short_runs_are_not_judged(self):
        self.assertEqual(self.wrong(times({}, 10**9, 1), None), [])

    def test_shares_are_medians_over_the_rounds(self):
        runs = [record("linux", "window", "x", [1], rnd=i, counters=times({"tc_user": u, "idle": 10**10 - u}, 10**10))
                for i, u in enumerate((10**9, 3 * 10**9, 9 * 10**9))]
        a = account.collect(runs)["linux"]["window"]
        self.assertAlmostEqual(a["classes"]["tc_user"], 0.3)
        self.assertAlmostEqual(a["sum"], 1.0)
        self.assertIn("30", account.chart({"linux": {"window": a}}))
        self.assertIn("OUT 10.0", account.callout_table({"linux": {"window": a}})[1][0][2])

    def test_every_class_of_the_program_is_known(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../base/acct.def"), encoding="ascii") as f:
            names = [line.split("(")[1].split(",")[0] for line in f if line.startswith("ACCT(")]
        self.assertEqual(sorted(names), sorted(account.CLASSES))


class Results(unittest.TestCase):
    def test_different_results_are_found(self):
        same = [record("linux", e, "sha", [1], "ab") for e in ("native", "window")]
        self.assertEqual(summary.disagreements(summary.collect(same)), [])
        self.assertEqual(len(summary.disagreements(summary.collect(same + [record("linux", "tcg", "sha", [1], "cd")]))), 1)

    def test_unknown_names_of_workloads_are_told(self):
        data = summary.collect([record("scale", "native", "maps@64", [1]), record("macro", "native", "xz-small", [1])])
        self.assertEqual(summary.not_found(data, ["maps", "xz", "zx", ""]), ["zx"])

    def test_ratio_is_the_median_of_the_rounds_ratios(self):
        data = summary.collect([record("linux", "native", "x", [b], rnd=i) for i, b in enumerate((1, 2, 4))]
                               + [record("linux", "window", "x", [a], rnd=i) for i, a in enumerate((2, 6, 100))])
        self.assertEqual(summary.ratio(data["linux"]["x"], "window", "native"), 3)


class Goals(unittest.TestCase):
    def rows(self, ratio_of, names=40):
        data = summary.collect([record("linux", e, "w%d" % i, [v]) for i in range(names) for e, v in (("tcg", 100), ("auto", 100 * ratio_of(i)))])
        return {r[2]: r for r in report.target_table(data)[1]}

    def test_whole_suites_have_goals(self):
        rows = self.rows(lambda i: 0.2)
        self.assertEqual(rows["geometric mean"][-2:], ["5.00", "yes"])
        rows = self.rows(lambda i: 1.1 if i == 7 else 0.5)
        self.assertEqual(rows["each workload (worst: w7)"][-2:], ["1.10", "NO"])
        self.assertEqual(rows["geometric mean"][-1], "NO")

    def test_the_account_may_cost_two_per_cent(self):
        def goal(on):
            runs = [record("account", "auto", n, [v], rnd=r) for r in range(3) for n, v in (("fork@off", 100), ("fork@on", on[r]))]
            data = summary.collect(runs)
            return report.target_table(data)[1][0][-2:], report.overhead_table(data, ["auto"])[1][0]
        self.assertEqual(goal((101, 150, 90)), (["1.01", "yes"], ["auto", "fork", "us", "100", "101", "1.0"]))
        self.assertEqual(goal((103, 150, 90))[0], ["1.03", "NO"])

    def test_a_few_workloads_are_not_a_suite(self):
        self.assertEqual(self.rows(lambda i: 0.2, 39), {})


class LeftOut(unittest.TestCase):
    EVERY = {e.name: e for e in engines.all_engines("", "")}

    def found(self, records, names, skipped=(), broken=()):
        asked = [self.EVERY[n] for n in names]
        data = summary.collect(records)
        todo = [s for s in suites.all_suites() if s.name in data]
        return leftout.table(leftout.rows(data, todo, asked, dict(skipped), broken), {s: list(w) for s, w in data.items()})[1]

    def test_no_suite_is_missing_for_an_engine_without_a_reason(self):
        for s in suites.all_suites():
            for e in self.EVERY.values():
                self.assertTrue(s.runs_on(e) or s.why_not(e, None), (s.name, e.name))

    def test_what_only_others_have_is_listed(self):
        runs = [record("linux", e, w, [1]) for e in ("window", "tcg") for w in ("boot", "getppid", "avx")] + [record("linux", "native", "getppid", [1])]
        self.assertEqual(self.found(runs, ("native", "window", "tcg")), [
            ["linux", "native", "boot", "there is no machine to boot"], ["linux", "native", "avx", "NOT EXPLAINED"]])

    def test_missing_engines_and_failed_runs_are_listed(self):
        runs = [record("nano", "window", "in", [1])]
        self.assertEqual(self.found(runs, ("window", "tcg", "trap", "uml"), {"tcg": "qemu is not there"}, {("nano", "trap")}), [
            ["all", "tcg", "all", "qemu is not there"], ["nano", "trap", "all", "no run of it finished"],
            ["nano", "uml", "all", "User-mode Linux is a Linux kernel: it runs no other guest"]])

    def test_long_lists_are_turned_round(self):
        runs = [record("linux", "tcg", w, [1]) for w in "abcdefgh"] + [record("linux", "bochs", "a", [1])]
        self.assertEqual(self.found(runs, ("tcg", "bochs"))[0][2], "all but a")

    def test_curves_are_named_once(self):
        self.assertEqual(leftout.folded(["kmaps@1", "kmaps@2", "maps@4", "boot"], ["maps@2"]), ["kmaps", "maps@4", "boot"])

    def test_last_point_of_maps_fits_the_host(self):
        self.assertLessEqual(suites.largest_maps(), suites.max_map_count())
        self.assertGreater(2 * suites.largest_maps(), suites.max_map_count())


class Bochs(unittest.TestCase):
    LOADER = bytes(0x190) + bytes(0x6e) + b"\x55\xaa"

    def lines(self, *texts_and_cpu):
        return [session.Line(text, 0, int(cpu * 1e9)) for text, cpu in texts_and_cpu]

    def test_samples_are_timed_from_outside(self):
        out = suites.parse_bench(self.lines(("BEGIN fib", 1), ("END fib", 1.5), ("BEGIN fib", 2), ("END fib", 2.25), ("BENCH fib 7 64 1 1", 3)),
                                 2e9, "us", 1e6)
        self.assertEqual((out["fib"].values, out["fib"].check), ([5000.0, 2500.0], "7"))
        out = suites.parse_bench(self.lines(("BEGIN in", 1), ("END in", 1.5), ("BENCH in 0 64 1", 3)), 2e9, "ticks", 1)
        self.assertEqual((out["in"].values, out["in"].unit), ([1e7], "cycles"))

    def test_disk_holds_each_piece_where_its_table_says(self):
        disk = bochs.disk(self.LOADER, 0x100000, (1, 2, 3), [(0x9000, b"x" * 513), (0x200000, b"y")])
        entry, eax, ebx, esi, *pieces = struct.unpack_from("<10I", disk, bochs.TABLE)
        self.assertEqual((entry, eax, ebx, esi), (0x100000, 1, 2, 3))
        self.assertEqual(pieces, [1, 2, 0x9000, 3, 1, 0x200000])
        self.assertEqual((disk[512:1026], disk[3 * 512:3 * 512 + 2]), (b"x" * 513 + b"\0", b"y\0"))
        self.assertEqual(len(disk) % (bochs.HEADS * bochs.SPT * bochs.SECTOR), 0)
        self.assertRaises(ValueError, bochs.disk, self.LOADER, 0, (0, 0, 0), [(0, b"")] * 8)
        self.assertRaises(ValueError, bochs.disk, b"\xff" * 512, 0, (0, 0, 0), [])

    def test_only_32_bit_elf_is_taken(self):
        self.assertRaises(ValueError, bochs.elf_pieces, b"\x7fELF\x02" + bytes(100))

    def test_missing_program_is_named(self):
        self.assertIn("no-such-bochs", bochs.missing("no-such-bochs"))


class Steps(unittest.TestCase):
    def curves(self, costs, curve="code"):
        return scale.collect(summary.collect([record("scale", "window", "%s@%d" % (curve, 16 << i), [c]) for i, c in enumerate(costs)]))

    def test_step_of_more_than_two_is_found_and_unexplained(self):
        self.assertEqual(scale.steps(self.curves([1, 1.9, 3.7])), [])
        (step,) = scale.steps(self.curves([1, 1.9, 3.9]))
        self.assertEqual(step[:4], ("code", "window", 32, 64))
        self.assertEqual(scale.step_table(self.curves([1, 1.9, 3.9]))[1][0][-1], "NOT EXPLAINED")

    def test_step_that_is_not_in_every_round_is_not_called_explained_or_steady(self):
        runs = [record("scale", "window", "ring@%d" % p, [c], rnd=r) for r, c2 in enumerate((3, 3, 1)) for p, c in ((8, 1), (16, c2))]
        (row,) = scale.step_table(scale.collect(summary.collect(runs)))[1]
        self.assertEqual(row[-2:], ["3.0", "not steady: in 2 of 3 rounds only"])

    def test_known_steps_say_why(self):
        self.assertIn("level 1", scale.explanation("set", "native", 32, 64, 3, 3, {"level 1": 48}))
        self.assertIn("jump cache", scale.explanation("code", "window", 1024, 2048, 16, 3, {}))
        self.assertIn("max_map_count", scale.explanation("maps", "direct", 32768, 65536, 9, 1.1, {}))

    def test_a_step_that_the_cpu_takes_too_is_the_cpus(self):
        self.assertIn("natively x 3.0", scale.explanation("kset", "window", 1024, 2048, 3.5, 3.0, {}))
        self.assertIsNone(scale.explanation("kset", "window", 1024, 2048, 6, 3.0, {}))
        self.assertIsNone(scale.explanation("kset", "window", 1024, 2048, 6, 3.0, {"level 2": 2048}))
        self.assertIsNone(scale.explanation("ram-fork", "window", 256, 512, 3, 0, {"level 2": 300}))

    def test_no_engine_of_ours_is_excused_without_a_reason(self):
        for engine in ("native", "window", "soft", "direct", "auto", "trap"):
            self.assertIsNone(scale.explanation("ring", engine, 8, 16, 5, 1, {}))
        self.assertIn("NOT EXPLAINED", scale.explanation("ring", "tcg", 8, 16, 5, 1, {}))

    def test_page_has_a_chart_of_each_curve(self):
        header = {"date": "", "cpu": "<cpu>", "cpus": 1, "tsc_hz": 1e9, "kernel": "", "commit": "", "modified": False, "rounds": 1, "load": 0}
        data = summary.collect([record("scale", "window", "code@%d" % p, [p]) for p in (16, 32, 64)])
        page = report.as_html(header, data, {}, ["window"], {}, (["suite"], [["nothing"]]))
        self.assertIn("<polyline", page)
        self.assertIn("&lt;cpu&gt;", page)
        self.assertNotIn("http", page)  # self-contained


class Resuming(unittest.TestCase):
    def test_half_written_line_is_dropped_and_done_work_is_known(self):
        with tempfile.TemporaryDirectory() as tmp:
            st = store.Store(tmp)
            st.start({"rounds": 2})
            st.add(record("linux", "window", "x", [1]))
            with open(st.path, "a", encoding="utf-8") as f:
                f.write('{"round": 0, "sui')
            again = store.Store(tmp).load()
            again.rewrite()
            self.assertTrue(again.done(0, "linux", "window"))
            self.assertFalse(again.done(1, "linux", "window"))
            again.add(record("linux", "tcg", "x", [1]))
            self.assertEqual(len(store.Store(tmp).load().records), 2)


if __name__ == "__main__":
    unittest.main()
