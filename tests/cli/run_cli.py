#!/usr/bin/env python3
"""The real binary from the outside: bad input, exit codes, consoles, monitor, signals, ringdown translate.

usage: run_cli.py BINARY [TestClass...]. Guests are made here: a multiboot header and a few bytes of code.
"""
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import unittest.mock

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = None
LOAD = 0x100000

# 32-bit code of guests
OUT_E9 = b"".join(b"\xb0" + bytes([c]) + b"\xe6\xe9" for c in b"ok\n")  # mov al, c; out 0xe9, al
DEBUG_EXIT = b"\xb8\x15\x00\x00\x00\x66\xba\xf4\x00\xef"  # mov eax, 21; mov dx, 0xf4; out dx, eax
HALT = b"\xfa\xf4\xeb\xfd"  # cli; 1: hlt; jmp 1b
SPIN = b"\xeb\xfe"
TRIPLE_FAULT = b"\x0f\x0b"  # ud2 without an IDT
RESET_92 = b"\xb0\x03\xe6\x92" + SPIN
COM1_ECHO = (b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7"  # 1: mov dx, 0x3fd; in al, dx; test al, 1; jz 1b
             b"\x66\xba\xf8\x03\xec\xee\xeb\xef")  # mov dx, 0x3f8; in al, dx; out dx, al; jmp 1b


def power_off():
    """PM1 control: SLP_EN, type S5."""
    return b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef" + SPIN


def multiboot(code):
    """A multiboot 1 image by the address fields of its header (no ELF needed)."""
    size = 32
    body = bytes(code)
    end = LOAD + size + len(body)
    flags, magic = 0x10000, 0x1BADB002
    return struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, LOAD, LOAD, end, end, LOAD + size) + body


def bzimage(payload_sectors=64, setup_sects=4):
    image = bytearray(512 * (1 + setup_sects + payload_sectors))
    image[0x1F1] = setup_sects
    struct.pack_into("<I", image, 0x1F4, payload_sectors * 32)
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    image[0x200:0x202] = b"\xeb\x66"
    image[0x211] = 1
    struct.pack_into("<I", image, 0x214, LOAD)
    struct.pack_into("<I", image, 0x230, LOAD)
    struct.pack_into("<QI", image, 0x258, LOAD, 0x100000)
    return bytes(image)


def with_asan():
    with open(BINARY, "rb") as f:
        return b"__asan_init" in f.read()


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)

    def path(self, name):
        return os.path.join(self.tmp.name, name)

    def file(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def guest(self, code):
        return self.file("guest", multiboot(code))

    def run_it(self, *args, timeout=30, stdin=b""):
        p = subprocess.run([BINARY, *args], input=stdin, capture_output=True, timeout=timeout, check=False, cwd=self.tmp.name)
        err = p.stderr.decode(errors="replace")
        if with_asan():  # it has no window, and says so
            err = re.sub("^.*: engine: .*soft path: AddressSanitizer.*-accel .*\n", "", err)
        return p.returncode, p.stdout.decode(errors="replace"), err

    def start(self, *args, **kw):
        p = subprocess.Popen([BINARY, *args], cwd=self.tmp.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             stdin=kw.pop("stdin", subprocess.DEVNULL), **kw)
        self.addCleanup(lambda: (p.kill(), p.communicate()))
        return p

    def refused(self, status, words, *args):
        """The status, one line on stderr that holds every word, nothing on stdout."""
        got, out, err = self.run_it(*args)
        self.assertEqual(got, status, err)
        self.assertEqual(out, "")
        self.assertEqual(len(err.splitlines()), 1, err)
        for word in words.split():
            self.assertIn(word, err)

    QUIET = ["-display", "none", "-monitor", "none", "-serial", "null", "-accel", "bt"]
    EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


class Usage(Case):
    """Wrong command lines: status 2."""

    def test_nothing_to_boot(self):
        self.refused(2, "-kernel")

    def test_unknown_option(self):
        self.refused(2, "-frobnicate", "-kernel", "k", "-frobnicate")

    def test_memory_that_is_no_size(self):
        self.refused(2, "-m abc", "-kernel", "k", "-m", "abc")

    def test_memory_too_small(self):
        self.refused(2, "-m 1M", "-kernel", "k", "-m", "4k")

    def test_memory_too_large(self):
        self.refused(2, "-m 512G", "-kernel", "k", "-m", "100T")

    def test_two_cpus_are_refused_by_name(self):
        self.refused(2, "-smp 2", "-kernel", "k", "-smp", "2")

    def test_append_without_kernel(self):
        self.refused(2, "-append -kernel", "-append", "quiet")

    def test_initrd_without_kernel(self):
        self.refused(2, "-initrd -kernel", "-initrd", "i")

    def test_terminal_wanted_twice(self):
        self.refused(2, "terminal", "-kernel", "k", "-serial", "stdio", "-monitor", "stdio")

    def test_unknown_engine(self):
        self.refused(2, "'warp'", "-kernel", "k", "-accel", "warp")

    def test_unknown_device(self):
        self.refused(2, "'fluxcapacitor'", "-kernel", "k", "-device", "fluxcapacitor")

    def test_things_not_there_are_refused_by_name(self):
        for option, value in (("-drive", "file=x"), ("-netdev", "user,id=n"), ("-bios", "b"), ("-cdrom", "c"),
                              ("-device", "virtio-blk-pci,drive=d"), ("-trace", "t"), ("-qmp", "unix:q,server")):
            self.refused(2, option + " supported", "-kernel", "k", option, value)

    def test_strict_refuses_what_would_have_no_effect(self):
        self.refused(2, "-uuid", "-strict", "-kernel", "k", "-uuid", "1")

    def test_help_and_version(self):
        for option in ("-help", "-version", "--help", "--version"):
            status, out, err = self.run_it(option)
            self.assertEqual((status, err), (0, ""))
            self.assertRegex(out.splitlines()[0], r"QEMU emulator version \d+\.\d+\.\d+")

    def test_probes_of_tools_succeed(self):
        for args in (["-machine", "help"], ["-cpu", "help"], ["-accel", "help"], ["-device", "help"], ["-d", "help"],
                     ["-device", "isa-debug-exit,help"]):
            status, out, _ = self.run_it(*args)
            self.assertEqual(status, 0)
            self.assertTrue(out)


class Files(Case):
    """Wrong files and places: status 1, and nothing is left behind."""

    def bad(self, words, *args):
        before = sorted(os.listdir(self.tmp.name))
        self.refused(1, words, *self.QUIET, *args)
        self.assertEqual(sorted(os.listdir(self.tmp.name)), before)

    def test_missing_kernel(self):
        self.bad("kernel 'nix' No such file", "-kernel", "nix", "-stats", "stats", "-pidfile", "pid")

    def test_output_files_of_a_machine_that_cannot_start(self):
        new, old = self.path("new"), self.file("old", b"kept")
        self.bad("kernel 'nix'", "-kernel", "nix", "-serial", f"file:{new}", "-debugcon", f"file:{old}",
                 "-chardev", f"null,id=c,logfile={new}2", "-serial", "chardev:c")
        with open(old, "rb") as f:
            self.assertEqual(f.read(), b"kept")

    def test_kernel_is_a_folder(self):
        self.bad("regular file", "-kernel", self.tmp.name)

    def test_empty_kernel(self):
        self.bad("empty", "-kernel", self.file("k", b""))

    def test_kernel_of_no_known_format(self):
        self.bad("format", "-kernel", self.file("k", b"#!/bin/sh\n" * 100))

    def test_truncated_bzimage(self):
        whole = bzimage()
        for size in (0x210, 600, 512 * 5, len(whole) - 4096):
            self.bad("'" + self.path("k") + "'", "-kernel", self.file("k", whole[:size]))

    def test_kernel_larger_than_memory(self):
        name = self.file("k", bzimage())
        os.truncate(name, 40 << 20)
        self.bad("larger memory", "-m", "32", "-kernel", name)

    def test_missing_initrd(self):
        self.bad("initrd 'nix'", "-kernel", self.file("k", bzimage()), "-initrd", "nix")

    def test_initrd_that_does_not_fit(self):
        name = self.file("i", b"x")
        os.truncate(name, 30 << 20)
        self.bad("initrd fit", "-m", "24", "-kernel", self.file("k", bzimage()), "-initrd", name)

    def test_bad_elf(self):
        for data in (b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(9), b"\x7fELF\x02\x01\x01" + bytes(500)):
            self.bad("ELF", "-kernel", self.file("k", data))

    def test_memory_that_the_host_does_not_have(self):
        with open("/proc/meminfo", encoding="ascii") as f:
            kib = sum(int(line.split()[1]) for line in f if line.startswith(("MemTotal:", "SwapTotal:")))
        if kib > 400 << 20:
            self.skipTest("this host has the largest guest's memory")
        self.bad("-m host", "-m", "511G", "-kernel", self.guest(HALT))

    def test_memory_that_limits_forbid(self):
        guest = self.guest(HALT)
        for limit in [resource.RLIMIT_FSIZE] + [resource.RLIMIT_AS] * (not with_asan()):  # its shadow is larger
            p = subprocess.run([BINARY, *self.QUIET, "-m", "2G", "-kernel", guest], capture_output=True, timeout=30, check=False,
                               preexec_fn=lambda which=limit: resource.setrlimit(which, (1 << 30, 1 << 30)))
            self.assertEqual((p.returncode, len(p.stderr.splitlines())), (1, 1), p)

    def test_places_that_cannot_be_written(self):
        guest = self.guest(HALT)
        for option in ("-D", "-stats", "-pidfile"):
            self.bad(option + " /nowhere/x", "-kernel", guest, option, "/nowhere/x")
        self.refused(1, "/nowhere/s serial0", "-display", "none", "-serial", "file:/nowhere/s", "-kernel", guest)
        self.refused(1, "/nowhere/s", "-display", "none", "-serial", "unix:/nowhere/s,server,nowait", "-kernel", guest)

    def test_device_on_a_port_that_is_taken(self):
        self.bad("isa-debug-exit ps2", "-kernel", self.guest(HALT), "-device", "isa-debug-exit,iobase=0x60")
        self.bad("iosize", "-kernel", self.guest(HALT), "-device", "isa-debug-exit,iobase=0xffff,iosize=8")

    def test_fifth_serial_port(self):
        self.refused(1, "serial 4", "-display", "none", "-kernel", self.guest(HALT), *["-serial", "null"] * 5)

    def test_backend_that_two_want(self):
        self.refused(1, "'c' mux", "-display", "none", "-kernel", self.guest(HALT), "-chardev", "null,id=c", "-serial",
                     "chardev:c", "-serial", "chardev:c")

    def test_bad_fw_cfg(self):
        self.bad("-fw_cfg /nowhere", "-kernel", self.guest(HALT), "-fw_cfg", "name=opt/x,file=/nowhere")


class Run(Case):
    """Ways of ending, and what is written on the way."""

    def go(self, code, *args, **kw):
        # Of two engines the first counts.
        quiet = self.QUIET[:-2] if "-accel" in args else self.QUIET
        return self.run_it(*quiet, *self.EXIT, "-kernel", self.guest(code), *args, **kw)

    def test_debug_exit_status(self):
        self.assertEqual(self.go(DEBUG_EXIT), (43, "", ""))

    def test_power_off_is_success(self):
        self.assertEqual(self.go(power_off()), (0, "", ""))

    def test_triple_fault_is_an_error_with_a_reason(self):
        status, _, err = self.go(TRIPLE_FAULT, "-no-reboot")
        self.assertEqual(status, 1)
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertIn("triple fault", err)

    def test_triple_fault_resets_without_no_reboot(self):
        # CMOS byte 0x50 survives: the second time round the guest ends it.
        code = (b"\xb0\x50\xe6\x70\xe4\x71\x3c\x77\x74\x06\xb0\x77\xe6\x71" + TRIPLE_FAULT + DEBUG_EXIT + SPIN)
        status, _, err = self.go(code)
        self.assertEqual(status, 43, err)
        self.assertIn("triple fault", err)

    def test_guest_reset_with_no_reboot_ends_quietly(self):
        self.assertEqual(self.go(RESET_92, "-no-reboot"), (0, "", ""))
        self.assertEqual(self.go(RESET_92, "-action", "reboot=shutdown"), (0, "", ""))

    def test_guest_reset_boots_again(self):
        code = b"\xb0\x50\xe6\x70\xe4\x71\x3c\x77\x74\x06\xb0\x77\xe6\x71\xeb\x0c" + DEBUG_EXIT + SPIN + RESET_92
        self.assertEqual(self.go(code), (43, "", ""))

    def test_debug_console_and_serial_file(self):
        status, out, _ = self.go(OUT_E9 + DEBUG_EXIT + SPIN, "-debugcon", "stdio")
        self.assertEqual((status, out), (43, "ok\n"))

    def test_debug_console_as_device(self):
        code = OUT_E9.replace(b"\xe6\xe9", b"\xe6\x77") + DEBUG_EXIT + SPIN
        status, _, _ = self.go(code, "-chardev", "file,id=c,path=" + self.path("out"), "-device",
                               "isa-debugcon,iobase=0x77,chardev=c")
        self.assertEqual(status, 43)
        with open(self.path("out"), "rb") as f:
            self.assertEqual(f.read(), b"ok\n")

    def test_multiboot_modules_reach_the_guest(self):
        out = b"\xe6\xe9"  # out 0xe9, al
        three = (b"\xac" + out) * 3  # lodsb; out
        code = (b"\x8b\x53\x18\x8b\x43\x14\x04\x30" + out +  # mov edx, [ebx + mods_addr]; mov eax, [ebx + mods_count]; add al, '0'
                b"\x8b\x32" + three + b"\x8b\x72\x10" + three + b"\x8b\x72\x08" + three)  # both mod_start, the first one's string
        self.file("m1", b"abc")
        self.file("m2", b"xyz")
        status, out, err = self.go(code + DEBUG_EXIT + SPIN, "-initrd", "m1 words,m2", "-debugcon", "stdio")
        self.assertEqual((status, out, err), (43, "2abcxyzm1 ", ""))

    def test_stats_are_json_and_add_up(self):
        status, _, err = self.go(OUT_E9 + DEBUG_EXIT + SPIN, "-stats", self.path("stats"))
        self.assertEqual(status, 43, err)
        with open(self.path("stats"), encoding="ascii") as f:
            stats = json.load(f)
        self.assertGreater(stats["tu_translated"], 0)
        self.assertGreaterEqual(stats["callouts"], 4)
        self.assertGreaterEqual(stats["callouts_by_kind"]["OUT"], 4)
        self.assertIn("ident_share", stats)

    def stats_of_a_second(self, accel):
        p = self.start(*self.QUIET[:4], "-accel", accel, "-serial", "null", "-kernel", self.guest(SPIN), "-stats", self.path("stats"))
        time.sleep(1.5)
        p.terminate()
        p.communicate(timeout=10)
        with open(self.path("stats"), encoding="ascii") as f:
            return json.load(f)

    def test_account_of_time_adds_up(self):
        t = self.stats_of_a_second("bt")["time"]
        self.assertGreater(t["wall_ns"], 1e9)
        self.assertAlmostEqual(t["sum_ns"] / t["wall_ns"], 1, delta=0.05)
        self.assertEqual(sum(t["classes"].values()), t["sum_ns"])
        code = t["classes"]["tc_window"] + t["classes"]["tc_soft"]
        self.assertGreater(code / (t["wall_ns"] - t["classes"]["setup"]), 0.5, t)  # it does nothing but run one instruction

    # mov esp, 0x110000; mov esi, 1000; mov ebx, f; 1: call ebx; dec esi; jnz 1b; jmp 2f; f: ret; 2:
    CALLS = (b"\xbc\x00\x00\x11\x00\xbe\xe8\x03\x00\x00\xbb" + struct.pack("<I", LOAD + 32 + 22)
             + b"\xff\xd3\x4e\x75\xfb\xeb\x01\xc3")

    def counts(self, accel):
        code = self.CALLS
        status, _, err = self.go(code + DEBUG_EXIT + SPIN, "-accel", accel, "-stats", self.path("stats"))
        self.assertEqual(status, 43, err)
        with open(self.path("stats"), encoding="ascii") as f:
            return json.load(f)

    def test_translated_code_counts_what_runs(self):
        s = self.counts("bt,count=on")
        # A round of the loop: call (indirect), ret (indirect), the rest of the loop, which ends by a chained jump.
        self.assertTrue(1990 <= s["indirect_hits"] <= 2000, s)
        self.assertTrue(990 <= s["chain_hits"] <= 1010, s)
        self.assertTrue(3000 <= s["blocks_executed"] <= 3020, s)
        self.assertTrue(4000 <= s["insns_executed"] <= 4040, s)
        self.assertEqual(s["blocks_executed"], s["tc_entries"] + s["jumps"] + s["chain_hits"] + s["indirect_hits"])

    def test_unchained_jumps_are_no_chain_hits(self):
        self.assertEqual(self.counts("bt,count=on,chain=off")["chain_hits"], 0)

    def test_what_is_not_counted_is_null(self):
        s = self.counts("bt")
        for name in ("chain_hits", "indirect_hits", "blocks_executed", "insns_executed"):
            self.assertIsNone(s[name])

    def test_jump_to_itself_is_chained_to_itself(self):
        self.assertLess(self.stats_of_a_second("bt")["tc_entries"], 100)

    def test_account_of_time_can_be_left_out(self):
        self.assertNotIn("time", self.stats_of_a_second("bt,account=off"))

    def test_log_of_translations_goes_to_the_file(self):
        status, out, err = self.go(DEBUG_EXIT + SPIN, "-d", "in_asm,boot", "-D", self.path("log"))
        self.assertEqual((status, out, err), (43, "", ""))
        with open(self.path("log"), encoding="ascii") as f:
            text = f.read()
        self.assertIn("multiboot", text)
        self.assertRegex(text, r"IDENT +mov eax, 0x15")

    def test_log_of_entries_and_resets_has_registers(self):
        status, _, _ = self.go(b"\xbb\x34\x12\0\0" + OUT_E9 + TRIPLE_FAULT, "-no-reboot", "-d", "exec,cpu", "-D", self.path("log"))
        self.assertEqual(status, 1)
        with open(self.path("log"), encoding="ascii") as f:
            self.assertRegex(f.read(), r"exec: block 0000000000100020 key [^\n]*\nrax 0{8}2badb002 ")
        self.go(b"\xbb\x34\x12\0\0" + TRIPLE_FAULT, "-no-reboot", "-d", "cpu_reset", "-D", self.path("log"))
        with open(self.path("log"), encoding="ascii") as f:
            self.assertRegex(f.read(), r"\Acpu_reset: triple fault\nrax [^\n]* rbx 0{12}1234\n(.*\n)+rip 0{10}100025 ")
        self.go(RESET_92, "-no-reboot", "-d", "cpu_reset", "-D", self.path("log"))
        with open(self.path("log"), encoding="ascii") as f:
            self.assertRegex(f.read(), r"\Acpu_reset: reset by the guest\nrax ")

    def test_unknown_ports_are_logged_and_read_all_ones(self):
        # in eax, 0x1234; cmp eax, -1; jne spin
        code = b"\x66\xba\x34\x12\xed\x83\xf8\xff\x75\xfe" + DEBUG_EXIT + SPIN
        status, _, _ = self.go(code, "-d", "unimp,guest_errors", "-D", self.path("log"))
        self.assertEqual(status, 43)
        with open(self.path("log"), encoding="ascii") as f:
            log = f.read().splitlines()
        self.assertTrue(log)
        self.assertEqual([line for line in log if not re.search(r"port 0x123[4-7]\b", line)], [])

    def test_unknown_msrs_are_logged_and_fault(self):
        for code in (b"\xb9\x34\x12\0\0\x0f\x32", b"\xb9\x34\x12\0\0\x0f\x30"):  # mov ecx, 0x1234; rdmsr, wrmsr
            status, _, err = self.go(code + DEBUG_EXIT + SPIN, "-no-reboot", "-d", "unimp,guest_errors", "-D", self.path("log"))
            self.assertEqual(status, 1)
            self.assertIn("triple fault", err)
            with open(self.path("log"), encoding="ascii") as f:
                self.assertRegex(f.read(), r"\A[^\n]*msr 0x1234[^\n]*\n\Z")

    def test_engine_is_named_unless_it_was_asked_for(self):
        guest = self.guest(DEBUG_EXIT + SPIN)
        args = ["-display", "none", "-serial", "null", *self.EXIT, "-kernel", guest]
        self.assertRegex(self.run_it(*args)[2], r"\A[^\n]*engine: binary translation[^\n]*\n\Z")
        self.assertRegex(self.run_it(*args, "-accel", "kvm")[2], r"in place of kvm")
        self.assertEqual(self.run_it(*args, "-accel", "tcg")[2], "")

    def test_engine_settings_give_the_same_result(self):
        for accel in ("bt,chain=off", "bt,max-insns=1", "bt,window=off", "bt,evict-random=3,seed=7", "bt,force-exit=2",
                      "bt,tc=4M", "bt,count=on"):
            status, out, err = self.go(OUT_E9 + DEBUG_EXIT + SPIN, "-accel", accel, "-debugcon", "stdio")
            self.assertEqual((status, out), (43, "ok\n"), accel + err)

    def test_pidfile_is_there_while_it_runs(self):
        p = self.start(*self.QUIET, "-kernel", self.guest(HALT), "-pidfile", self.path("pid"))
        self.wait_for(lambda: os.path.exists(self.path("pid")) and os.path.getsize(self.path("pid")))
        with open(self.path("pid"), encoding="ascii") as f:
            self.assertEqual(int(f.read()), p.pid)
        p.terminate()
        self.assertEqual(p.wait(10), 0)
        self.assertFalse(os.path.exists(self.path("pid")))

    def wait_for(self, what):
        end = time.monotonic() + 10
        while not what():
            self.assertLess(time.monotonic(), end, "did not happen in 10 s")
            time.sleep(0.02)

    def test_signals_end_it_in_order(self):
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for code in (HALT, SPIN):
                p = self.start(*self.QUIET, "-kernel", self.guest(code), "-stats", self.path("stats"), "-serial",
                               "unix:sock,server,nowait")
                self.wait_for(lambda: os.path.exists(self.path("stats")))
                time.sleep(0.1)
                p.send_signal(sig)
                _, err = p.communicate(timeout=10)
                self.assertEqual(p.returncode, 0, err)
                self.assertIn(b"signal %d" % sig, err)
                self.assertTrue(os.path.getsize(self.path("stats")))
                self.assertFalse(os.path.exists(self.path("sock")))
                os.unlink(self.path("stats"))

    def test_signal_in_the_middle_of_an_allocation_ends_it_in_order(self):
        """Each start of a guest allocates; a handler that did so too would wait for itself for ever."""
        if with_asan():
            self.skipTest("AddressSanitizer has its own malloc")
        preload = self.path("preload.so")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", os.path.join(HERE, "signal_in_malloc.c"), "-o", preload], check=True)
        p = self.start(*self.QUIET, "-kernel", self.guest(RESET_92), env={**os.environ, "LD_PRELOAD": preload})
        _, err = p.communicate(timeout=30)
        self.assertEqual(p.returncode, 0, err)
        self.assertIn(b"signal 15", err)

    def test_signal_ends_it_while_it_waits_for_a_connection(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            p = self.start("-display", "none", "-monitor", "none", "-accel", "bt", "-serial", "unix:sock,server=on,wait=on", "-kernel",
                           self.guest(HALT))
            self.wait_for(lambda: os.path.exists(self.path("sock")))
            time.sleep(0.2)
            p.send_signal(sig)
            _, err = p.communicate(timeout=10)
            self.assertEqual(p.returncode, 0, err)
            self.assertIn(b"signal %d" % sig, err)
            self.assertFalse(os.path.exists(self.path("sock")))

    def test_halted_guest_costs_nothing(self):
        p = self.start(*self.QUIET, "-kernel", self.guest(HALT))
        time.sleep(0.5)
        with open("/proc/%d/stat" % p.pid, encoding="ascii") as f:
            before = sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
        time.sleep(2)
        with open("/proc/%d/stat" % p.pid, encoding="ascii") as f:
            after = sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
        self.assertLess((after - before) / os.sysconf("SC_CLK_TCK"), 0.06)

    def test_serial_over_a_unix_socket_echoes(self):
        p = self.start(*self.QUIET[:4], "-accel", "bt", "-serial", "unix:sock,server=on,wait=off", "-kernel",
                       self.guest(COM1_ECHO))
        self.wait_for(lambda: os.path.exists(self.path("sock")))
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.path("sock"))
            s.sendall(b"x" * 100 + b"!")
            got = b""
            while b"!" not in got:
                got += s.recv(4096)
            self.assertEqual(got, b"x" * 100 + b"!")
        p.terminate()
        self.assertEqual(p.wait(10), 0)

    def test_serial_on_stdio_under_a_pipe(self):
        p = self.start("-display", "none", "-monitor", "none", "-accel", "bt", "-serial", "stdio", "-kernel",
                       self.guest(COM1_ECHO), stdin=subprocess.PIPE)
        p.stdin.write(b"hello\n")
        p.stdin.flush()
        got = b""
        while len(got) < 6:
            ready, _, _ = select.select([p.stdout], [], [], 10)
            self.assertTrue(ready, got)
            got += os.read(p.stdout.fileno(), 100)
        self.assertEqual(got, b"hello\n")
        p.terminate()
        self.assertEqual(p.wait(10), 0)


class Check(Case):
    """-check: the audit says nothing when all is well, and finds a flush that was left out."""
    # mov eax, [0x200000]; invlpg [0x200000]
    CODE = b"\xa1\x00\x00\x20\x00\x0f\x01\x3d\x00\x00\x20\x00" + DEBUG_EXIT + HALT

    def test_silent_when_all_is_well(self):
        status, _, err = self.run_it("-kernel", self.guest(self.CODE), *self.QUIET, *self.EXIT, "-check", "shadow=1,tc=1")
        self.assertEqual((status, err), (43, ""))

    def test_left_out_invlpg_ends_the_run_with_a_report(self):
        for window, where in (("on", "32-bit window"), ("off", "soft TLB, supervisor"))[with_asan():]:
            status, _, err = self.run_it("-kernel", self.guest(self.CODE), *self.QUIET[:-2], "-accel", "bt,window=" + window,
                                         *self.EXIT, "-check", "shadow=1,sabotage=1")
            self.assertEqual(status, 1, err)
            self.assertIn("shadow audit: " + where + ", 0x200000", err)
            self.assertIn("still there after a flush that covers it", err)
            self.assertIn("last flush: INVLPG of 0x200000", err)
            self.assertIn("seed of this run:", err)

    def test_unknown_check_is_refused(self):
        self.refused(2, "-check frob", "-kernel", "k", "-check", "frob")
        self.refused(2, "-check noshadow", "-kernel", "k", "-check", "noshadow")
        self.refused(2, "-check shadow", "-kernel", "k", "-check", "shadow=many")
        self.refused(2, "-check sabotage", "-kernel", "k", "-check", "sabotage=2")


class Adapt(Case):
    """Memory sites change their strategy by what they meet; -accel bt,adapt=off keeps them."""
    # mov esp, 0x180000; mov ebx, 0xfee00080; mov ecx, 8; call 1f; mov ebx, 0x200000; mov ecx, 2000; call 1f; EXIT; 1: mov eax, [ebx]; loop 1b; ret
    CODE = (b"\xbc\x00\x00\x18\x00\xbb\x80\x00\xe0\xfe\xb9\x08\x00\x00\x00\xe8\x19\x00\x00\x00"
            b"\xbb\x00\x00\x20\x00\xb9\xd0\x07\x00\x00\xe8\x0a\x00\x00\x00" + DEBUG_EXIT + b"\x8b\x03\xe2\xfc\xc3")

    def counters(self, accel):
        if with_asan():
            self.skipTest("an AddressSanitizer build has no window")
        status, _, err = self.run_it("-kernel", self.guest(self.CODE), *self.QUIET[:-2], "-accel", accel, *self.EXIT, "-stats", "s")
        self.assertEqual((status, err), (43, ""))
        with open(self.path("s"), encoding="ascii") as f:
            return json.load(f)

    def test_site_becomes_a_callout_and_goes_back(self):
        s = self.counters("bt")
        self.assertEqual((s["sites_changed"], s["sites_returned"], s["sites_callout"]), (2, 1, 0))
        self.assertLess(s["host_faults"], 8)
        self.assertGreaterEqual(s["site_callouts"] - s["site_callouts_plain"], 7)

    def test_without_adaptation_every_access_faults(self):
        s = self.counters("bt,adapt=off")
        self.assertEqual((s["sites_changed"], s["window_softened"], s["site_callouts"]), (0, 0, 0))
        self.assertGreaterEqual(s["host_faults"], 8)
        self.assertGreaterEqual(s["exit_careful"] + s["site_mmio"], 8)


class Sandbox(Case):
    """-sandbox on: every thread is confined, and the machine still does all it has to."""

    def setUp(self):
        super().setUp()
        if with_asan():  # whose look for leaks starts a tracer
            self.enterContext(unittest.mock.patch.dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))

    def test_every_thread_is_confined(self):
        p = self.start("-kernel", self.guest(SPIN), *self.QUIET, "-sandbox", "on")
        for _ in range(100):
            time.sleep(0.1)
            states = []
            for task in os.listdir("/proc/%d/task" % p.pid):
                with open("/proc/%d/task/%s/status" % (p.pid, task), encoding="ascii") as f:
                    states += re.findall(r"^(?:NoNewPrivs|Seccomp):\s*(\d)", f.read(), re.M)
            if set(states) == {"1", "2"} and states.count("1") == states.count("2"):
                return
        self.fail("threads are in the states %s" % states)

    def test_not_confined_without_it(self):
        p = self.start("-kernel", self.guest(SPIN), *self.QUIET, "-sandbox", "off")
        time.sleep(0.5)
        with open("/proc/%d/status" % p.pid, encoding="ascii") as f:
            self.assertIn("Seccomp:\t0", f.read())

    def test_guest_is_loaded_again_at_a_reset(self):
        guest = self.guest(OUT_E9 + RESET_92)
        p = self.start("-kernel", guest, *self.QUIET, "-sandbox", "on", "-debugcon", "stdio")
        for _ in range(5):
            self.assertEqual(p.stdout.readline(), b"ok\n")

    def test_ends_as_without(self):
        for code, status in ((DEBUG_EXIT, 43), (power_off(), 0), (TRIPLE_FAULT, 1)):
            got, _, err = self.run_it("-kernel", self.guest(code), *self.QUIET, *self.EXIT, "-no-reboot", "-sandbox", "on", "-stats", "s")
            self.assertEqual(got, status, err)

    def test_wrong_values_are_refused(self):
        self.refused(2, "-sandbox maybe", "-kernel", "k", "-sandbox", "maybe")
        self.refused(2, "-sandbox frob", "-kernel", "k", "-sandbox", "on,frob=deny")


class RealMode(Case):
    """The services behind a kernel's 16-bit entry, called from setup code."""

    CF, ZF, IF, FIXED = 1, 0x40, 0x200, 2
    SMAP = 0x534D4150

    def calls(self, *records, args=()):
        """records: (interrupt, eax, ebx, ecx, edx, flags); a dict of what each left."""
        obj, code = self.path("probe.o"), self.path("probe.bin")
        subprocess.run(["gcc", "-c", os.path.join(HERE, "bios16_probe.S"), "-o", obj], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", obj, code], check=True)
        image = bytearray(bzimage())
        with open(code, "rb") as f:
            text = f.read()
        table = b"".join(struct.pack("<BxIIIIH", *r) for r in records) + b"\0"
        self.assertLess(0x268 + len(text), 0x400)
        self.assertLess(0x400 + len(table), 0xA00)
        image[0x268:0x268 + len(text)] = text
        image[0x400:0x400 + len(table)] = table
        status, _, err = self.run_it(*(args or self.QUIET), *self.EXIT, "-m", "64", "-debugcon", "file:" + self.path("out"),
                                     "-machine", "kernel-entry=16", "-kernel", self.file("k", image))
        self.assertEqual((status, err), (43, ""))
        with open(self.path("out"), "rb") as f:
            out = f.read()
        self.assertEqual(len(out), 58 * len(records))
        names = ("es", "ds", "edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax", "flags")
        results = []
        for i in range(len(records)):
            r = dict(zip(names, struct.unpack_from("<HH8IH", out, 58 * i)))
            r["buffer"] = out[58 * i + 38:58 * i + 58]
            # What no service may change: segments, the stack, index registers, and of the flags all but CF and ZF.
            self.assertEqual((r["es"], r["ds"], r["edi"], r["esi"]), (0x1000, 0x1000, 0xA000, 0x12345678), r)
            self.assertEqual((r["ebp"], r["esp"]), (0x400 + 20 * i, 0xE000 - 2), r)
            self.assertEqual((r["flags"] ^ records[i][5]) & ~(self.CF | self.ZF), 0, r)
            results.append(r)
        return results

    def test_memory_map(self):
        e820 = [(0x15, 0xE820, n, 24, self.SMAP, self.FIXED | self.CF | self.IF) for n in range(3)]
        got = self.calls(*e820, (0x15, 0xE820, 3, 24, self.SMAP, self.FIXED), (0x15, 0xE820, 0xFFFFFFFF, 24, self.SMAP, self.FIXED),
                         (0x15, 0xE820, 0, 19, self.SMAP, self.FIXED), (0x15, 0xE820, 0, 20, 0, self.FIXED))
        self.assertEqual([struct.unpack("<QQI", r["buffer"]) for r in got[:3]],
                         [(0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (0x100000, 63 << 20, 1)])
        for r, following in zip(got, (1, 2, 0)):
            self.assertEqual((r["eax"], r["ebx"], r["ecx"], r["flags"] & self.CF), (self.SMAP, following, 20, 0))
        for r in got[3:]:
            self.assertEqual((r["flags"] & self.CF, r["eax"] >> 8 & 0xFF, r["buffer"]), (1, 0x86, b"\xee" * 20))

    def test_memory_sizes(self):
        e801, old, base, equipment = self.calls(
            (0x15, 0xE801, 9, 9, 9, 3), (0x15, 0x8800, 0, 0, 0, 3), (0x12, 0, 0, 0, 0, 2), (0x11, 0, 0, 0, 0, 2))
        self.assertEqual([e801[x] for x in ("eax", "ebx", "ecx", "edx")], [15 << 10, 48 << 4, 15 << 10, 48 << 4])
        self.assertEqual((old["eax"], old["flags"] & 1, e801["flags"] & 1), (63 << 10, 0, 0))
        self.assertEqual(base["eax"], 639)
        self.assertEqual(equipment["eax"] & 2, 2)

    def test_what_there_is_not(self):
        calls = [(0x13, 0x4100, 0x55AA, 0, 0x80, 2), (0x13, 0x0201, 0, 1, 0x80, 2), (0x15, 0x2401, 0, 0, 0, 2), (0x15, 0xE980, 0, 0, 0, 2),
                 (0x15, 0xEC00, 2, 0, 0, 2), (0x15, 0x5300, 0, 0, 0, 2), (0x1A, 0xB101, 0, 0, 0, 2)]
        for call, r in zip(calls, self.calls(*calls)):
            self.assertEqual((r["flags"] & 1, r["eax"] >> 8), (1, 1 if call[0] == 0x13 else 0x86), call)
            self.assertEqual(r["ebx"], call[2])

    def test_screen_and_keyboard(self):
        mode, ega, vga, vesa, _, cursor, peek, repeat, shift, read = self.calls(
            (0x10, 0x0F00, 0, 0, 0, 2), (0x10, 0x1200, 0x10, 0, 0, 2), (0x10, 0x1A00, 0, 0, 0, 2), (0x10, 0x4F00, 0, 0, 0, 2),
            (0x10, 0x0200, 0, 0, 0x0305, 2), (0x10, 0x0300, 0, 0, 0, 2), (0x16, 0x0100, 0, 0, 0, 2), (0x16, 0x0305, 0, 0, 0, 2),
            (0x16, 0x02FF, 0, 0, 0, 2), (0x16, 0x0000, 0, 0, 0, 2))
        # The machine has no screen: mode 3 with no columns, and no EGA or VGA.
        self.assertEqual((mode["eax"], ega["ebx"], vga["eax"], vesa["eax"]), (3, 0x10, 0x1A00, 0x4F00))
        self.assertEqual((cursor["edx"], cursor["ecx"]), (0x0305, 0x0D0E))
        self.assertEqual((peek["flags"] & self.ZF, repeat["eax"], shift["eax"], read["eax"]), (self.ZF, 0x0305, 0x0200, 0))

    def test_teletype_is_the_first_serial_port(self):
        self.calls(*((0x10, 0x0E00 | c, 7, 0, 0, 2) for c in b"hello"),
                   args=["-display", "none", "-monitor", "none", "-accel", "bt", "-serial",
                         "file:" + self.path("com1")])
        with open(self.path("com1"), "rb") as f:
            self.assertEqual(f.read(), b"hello")

    def test_clock(self):
        before = time.time()
        now, date, ticks = self.calls((0x1A, 0x0200, 0, 0, 0, 3), (0x1A, 0x0400, 0, 0, 0, 3), (0x1A, 0, 0, 0, 0, 3))
        seen = [f"{x:02x}" for x in (date["ecx"] >> 8, date["ecx"] & 255, date["edx"] >> 8, date["edx"] & 255,
                                     now["ecx"] >> 8, now["ecx"] & 255, now["edx"] >> 8)]
        stamps = [time.gmtime(before + n) for n in range(-1, int(time.time() - before) + 2)]
        self.assertIn("".join(seen), [time.strftime("%Y%m%d%H%M%S", t) for t in stamps])
        counts = [(t.tm_hour * 3600 + t.tm_min * 60 + t.tm_sec) * 1193182 >> 16 for t in stamps]
        self.assertIn(ticks["ecx"] << 16 | ticks["edx"], counts)
        self.assertEqual([r["flags"] & 1 for r in (now, date, ticks)], [0, 0, 0])

    def test_entries_that_a_kernel_has_not(self):
        self.refused(2, "kernel-entry 17", "-kernel", "k", "-machine", "kernel-entry=17")
        guest = self.guest(HALT)
        for bits, name in (("16", guest), ("64", guest), ("64", self.file("k", bzimage()))):
            self.refused(1, f"'{name}' no {bits}-bit entry", *self.QUIET, "-kernel", name, "-machine", "pc,kernel-entry=" + bits)


class Monitor(Case):
    def talk(self, script, code, *args):
        return self.run_it("-display", "none", "-accel", "bt", "-serial", "null", "-monitor", "stdio", *self.EXIT,
                           "-kernel", self.guest(code), *args, stdin=script.encode())

    def test_stopped_guest_starts_at_cont(self):
        status, out, _ = self.talk("info status\ncont\n", DEBUG_EXIT + SPIN, "-S")
        self.assertEqual(status, 43)
        self.assertIn("VM status: paused (prelaunch)", out)

    def test_registers_status_and_unknown_commands(self):
        status, out, _ = self.talk("info registers\ninfo status\nbogus x\nhelp\nquit\n", HALT)
        self.assertEqual(status, 0)
        self.assertRegex(out, r"RIP=000000000010002[0-9a-f]")
        self.assertIn("VM status: running", out)
        self.assertIn("unknown command: 'bogus x'", out)
        self.assertIn("system_powerdown", out)

    def test_stop_holds_the_guest(self):
        status, out, _ = self.talk("stop\ninfo status\nquit\n", SPIN)
        self.assertEqual(status, 0)
        self.assertIn("VM status: paused", out)

    def test_reset_button(self):
        # Counts its starts in CMOS byte 0x50; the second ends the program.
        code = b"\xb0\x50\xe6\x70\xe4\x71\x3c\x77\x74\x06\xb0\x77\xe6\x71\xeb\xfe" + DEBUG_EXIT + SPIN
        p = self.start("-display", "none", "-accel", "bt", "-serial", "null", "-monitor", "stdio", *self.EXIT, "-kernel",
                       self.guest(code), stdin=subprocess.PIPE)
        time.sleep(0.7)
        p.stdin.write(b"system_reset\n")
        p.stdin.flush()
        self.assertEqual(p.wait(10), 43)

    def test_no_shutdown_stays(self):
        p = self.start("-display", "none", "-accel", "bt", "-serial", "null", "-monitor", "stdio", "-no-shutdown",
                       "-kernel", self.guest(power_off()), stdin=subprocess.PIPE)
        time.sleep(0.7)
        p.stdin.write(b"info status\nquit\n")
        p.stdin.flush()
        out, _ = p.communicate(timeout=10)
        self.assertIn(b"VM status: paused (shutdown)", out)
        self.assertEqual(p.returncode, 0)


class Terminal(Case):
    """-nographic on a terminal: escape keys work, and the terminal is as before on every way out."""

    def session(self, code, *args):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        before = termios.tcgetattr(slave)

        def grab():
            os.setsid()
            import fcntl
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        p = subprocess.Popen([BINARY, "-nographic", "-accel", "bt", *self.EXIT, "-kernel", self.guest(code), *args],
                             stdin=slave, stdout=slave, stderr=slave, preexec_fn=grab, cwd=self.tmp.name)
        self.addCleanup(lambda: (p.kill(), p.wait()))
        return p, master, slave, before

    def read_until(self, fd, what, seconds=10):
        got, end = b"", time.monotonic() + seconds
        while what not in got:
            ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
            self.assertTrue(ready, "no %r in %r" % (what, got))
            got += os.read(fd, 4096)
        return got

    def wait_raw(self, slave):
        end = time.monotonic() + 10
        while termios.tcgetattr(slave)[3] & termios.ICANON:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def ends(self, p, slave, before, status):
        self.assertEqual(p.wait(10), status)
        self.assertEqual(termios.tcgetattr(slave), before)

    def test_ctrl_a_x(self):
        p, master, slave, before = self.session(HALT)
        self.wait_raw(slave)
        os.write(master, b"\x01x")
        self.read_until(master, b"terminated")
        self.ends(p, slave, before, 0)

    def test_ctrl_a_h_and_c(self):
        p, master, slave, before = self.session(COM1_ECHO)
        self.wait_raw(slave)
        os.write(master, b"abc")
        self.read_until(master, b"abc")
        os.write(master, b"\x01h")
        self.read_until(master, b"C-a x")
        os.write(master, b"\x01c")
        self.read_until(master, b"(qemu) ")
        os.write(master, b"info status\r")
        self.read_until(master, b"VM status: running")
        os.write(master, b"quit\r")
        self.ends(p, slave, before, 0)

    def test_guest_ends_it(self):
        p, _, slave, before = self.session(DEBUG_EXIT + SPIN)
        self.ends(p, slave, before, 43)

    def test_triple_fault(self):
        p, _, slave, before = self.session(TRIPLE_FAULT, "-no-reboot")
        self.ends(p, slave, before, 1)

    def test_signals(self):
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            p, _, slave, before = self.session(SPIN)
            self.wait_raw(slave)
            p.send_signal(sig)
            self.ends(p, slave, before, 0)

    def test_fatal_signals(self):
        for sig in (signal.SIGABRT, signal.SIGQUIT):
            p, _, slave, before = self.session(SPIN)
            self.wait_raw(slave)
            p.send_signal(sig)
            self.ends(p, slave, before, -sig)

    def test_ctrl_c_is_the_guests(self):
        p, master, slave, _ = self.session(COM1_ECHO)
        self.wait_raw(slave)
        os.write(master, b"\x03!")
        self.read_until(master, b"\x03!")
        self.assertIsNone(p.poll())


class Bench(Case):
    def test_runner_is_found_from_any_folder(self):
        copy = self.path("elsewhere")
        shutil.copy(BINARY, copy)
        for program in (BINARY, copy):
            p = subprocess.run([program, "bench", "--help"], cwd="/", capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((p.returncode, p.stderr), (0, ""))
            self.assertIn("--quick", p.stdout)

    def test_measures_the_program_that_was_called(self):
        out = self.path("out")
        build = os.path.dirname(BINARY)
        status, text, err = self.run_it("bench", "--no-build", "--build", build, "--suites", "compute", "--only", "fib", "--samples", "1", "--rounds", "1",
                                        "--engines", "native,window", "--out", out)
        self.assertEqual(status, 0, err)
        self.assertIn("window/native", text)

    def test_errors_are_the_runners(self):
        status, _, err = self.run_it("bench", "--engines", "kvm")
        self.assertEqual((status, err.count("\n")), (1, 1))
        self.assertIn("unknown engine 'kvm'", err)


class Translate(Case):
    def compile(self, *flags):
        obj = self.path("isprime.o")
        subprocess.run(["gcc", *flags, "-c", os.path.join(HERE, "isprime.S"), "-o", obj], check=True)
        return obj

    def blocks(self, out):
        return re.findall(r"^(\w+(?:\+0x[0-9a-f]+)?):\nTU ", out, re.M)

    def test_classical_example(self):
        status, out, err = self.run_it("translate", self.compile(), "--entry", "isPrime", "--args", "49")
        self.assertEqual((status, err), (0, ""))
        blocks = self.blocks(out)
        self.assertIn("isPrime", blocks)
        self.assertIn("notPrime", blocks)
        self.assertTrue(any(b.startswith("nexti") for b in blocks), blocks)
        self.assertFalse([b for b in blocks if b.startswith("prime")], "the block at prime: must never be translated")
        self.assertTrue(out.endswith("returned 0 (rax = 0x0)\n"), out[-200:])

    def test_every_instruction_but_jumps_and_return_is_ident(self):
        _, out, _ = self.run_it("translate", self.compile(), "--args", "49")
        classes = re.findall(r"^  [0-9a-f]{16}  (\w+) +(\w+)", out, re.M)
        self.assertGreaterEqual(len(classes), 13)
        for cls, mnemonic in classes:
            want = "RET" if mnemonic == "ret" else "JCC" if mnemonic.startswith("j") else "IDENT"
            self.assertEqual(cls, want, mnemonic)

    def test_prime_is_reached_for_a_prime(self):
        _, out, _ = self.run_it("translate", self.compile(), "--args", "7")
        self.assertIn("prime", self.blocks(out))
        self.assertIn("returned 1 ", out)

    def test_the_loop_is_chained(self):
        _, out, _ = self.run_it("translate", self.compile(), "--args", "49")
        self.assertGreaterEqual(int(re.search(r"direct jumps chained: (\d+)", out).group(1)), 2)

    def test_raw_code_in_each_mode(self):
        for mode, code in (("16", b"\xb8\x07\x00\xc3"), ("32", b"\xb8\x07\0\0\0\xc3"), ("64", b"\xb8\x07\0\0\0\xc3")):
            status, out, err = self.run_it("translate", self.file("raw", code), "--mode", mode)
            self.assertEqual(status, 0, err)
            self.assertIn("returned 7 ", out)

    def test_faults_are_reported(self):
        for code, words in ((b"\x31\xc9\xf7\xf1\xc3", "exception 0"), (b"\x0f\x0b", "exception 6"), (b"\xe6\x80", "port 0x80"),
                            (b"\xf4", "halted"), (b"\xa1" + bytes(7) + b"\x7f", "exception 1")):
            status, _, err = self.run_it("translate", self.file("raw", code))
            self.assertEqual(status, 1)
            self.assertIn(words, err)
            self.assertEqual(len(err.splitlines()), 1, err)

    def test_endless_function_is_stopped(self):
        status, _, err = self.run_it("translate", self.file("raw", SPIN), "--limit", "1")
        self.assertEqual(status, 1)
        self.assertIn("did not return", err)

    def test_bad_files(self):
        obj = self.compile()
        with open(obj, "rb") as f:
            data = f.read()
        for name, words in (("nix", "No such file"), (self.file("empty", b""), "empty"), (self.tmp.name, "regular"),
                            (self.file("cut", data[:200]), "truncated")):
            status, _, err = self.run_it("translate", name)
            self.assertEqual(status, 1, err)
            self.assertIn(words, err)
            self.assertIn(name, err)
        status, _, err = self.run_it("translate", obj, "--entry", "nothere")
        self.assertEqual(status, 1)
        self.assertIn("'nothere'", err)

    def test_usage(self):
        for args in ([], ["a", "b"], ["--frob", "a"], ["a", "--mode", "17"], ["a", "--args", "x"], ["a", "--entry"]):
            status, _, err = self.run_it("translate", *args)
            self.assertEqual(status, 2, err)
            self.assertEqual(len(err.splitlines()), 1, err)
        status, out, _ = self.run_it("translate", "--help")
        self.assertEqual(status, 0)
        self.assertIn("--entry", out)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    BINARY = os.path.abspath(sys.argv[1])
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
