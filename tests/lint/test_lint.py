#!/usr/bin/env python3
"""The lint rules themselves: each finds what it is for, and lets the lawful neighbour of it pass."""
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import lint


class Edges(unittest.TestCase):
    def test_upwards_include_is_refused(self):
        self.assertTrue(lint.edge_problems("base/log.c", "monitor/vcpu.h"))

    def test_sibling_include_is_refused(self):
        self.assertTrue(lint.edge_problems("translator/a.c", "codecache/codecache.h"))

    def test_downwards_include_passes(self):
        self.assertFalse(lint.edge_problems("monitor/run.c", "codecache/codecache.h"))

    def test_devices_see_the_engine_api_only(self):
        self.assertFalse(lint.edge_problems("devices/bus.c", "monitor/engine.h"))
        self.assertTrue(lint.edge_problems("devices/bus.c", "monitor/vcpu.h"))

    def test_private_header_is_visible_at_home_and_to_its_unit_tests_only(self):
        self.assertFalse(lint.edge_problems("codecache/cc_link.c", "codecache/cc_int.h"))
        self.assertFalse(lint.edge_problems("tests/unit/codecache/test_link.c", "codecache/cc_int.h"))
        self.assertTrue(lint.edge_problems("monitor/run.c", "codecache/cc_int.h"))
        self.assertTrue(lint.edge_problems("tests/diff/main.c", "codecache/cc_int.h"))

    def test_unit_test_must_not_reach_above_its_module(self):
        self.assertTrue(lint.edge_problems("tests/unit/base/test_rng.c", "monitor/vcpu.h"))

    def test_cycle_is_found_and_a_diamond_is_not(self):
        self.assertTrue(lint.cycles({"a.h": {"b.h"}, "b.h": {"c.h"}, "c.h": {"a.h"}}))
        self.assertFalse(lint.cycles({"a.h": {"b.h", "c.h"}, "b.h": {"d.h"}, "c.h": {"d.h"}}))


class Tidy(unittest.TestCase):
    def test_machine_paths_are_found(self):
        for path in ("/wo" + "rk/main", "cd /ro" + "ot/x", '"/ho' + 'me/ann/x"', "/tm" + "p/build-x"):
            self.assertTrue(lint.tidy_problems(path), path)

    def test_relative_paths_and_urls_with_the_same_words_pass(self):
        for path in ("net" + "work/x.c", "./work" + "/x", "$HOME/root" + "/x", "/tmp/x", '"$dir"/root' + "/x"):
            self.assertFalse(lint.tidy_problems(path), path)

    def test_unknown_host_is_found(self):
        self.assertTrue(lint.tidy_problems("see http" + "://mirror.example.net/debian"))
        self.assertFalse(lint.tidy_problems("see https://docs.kernel.org/x86"))

    def test_mark_without_an_issue_is_found(self):
        self.assertTrue(lint.tidy_problems("/* TO" + "DO later */"))
        self.assertFalse(lint.tidy_problems("/* TO" + "DO(#12) later */"))


class Nofpu(unittest.TestCase):
    def problems(self, source, *flags):
        with tempfile.TemporaryDirectory() as folder:
            obj = os.path.join(folder, "x.o")
            subprocess.run(["gcc", "-O2", *flags, "-x", "c", "-c", "-o", obj, "-"], input=source, text=True, check=True)
            return lint.nofpu_problems(obj, {"ours"})

    def test_vector_register_is_found(self):
        self.assertTrue(self.problems("double f(double a) { return a * 2; }"))

    def test_x87_is_found(self):
        self.assertTrue(self.problems("long double f(long double a) { return a * 2; }"))

    def test_library_call_is_found(self):
        source = "void *memcpy(void *, const void *, unsigned long); void f(void *a, void *b, long n) { memcpy(a, b, n); }"
        self.assertTrue(self.problems(source))

    def test_integer_code_calling_our_own_passes(self):
        self.assertFalse(self.problems("int ours(int); int f(int a) { return ours(a + 1) * 3; }", "-mgeneral-regs-only"))


if __name__ == "__main__":
    unittest.main()
