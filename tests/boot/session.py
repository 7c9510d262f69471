#!/usr/bin/env python3
"""A stock kernel seen from outside: the shell on a terminal, every form of -serial, ways of ending, bad files, idle cost.

usage: session.py RINGDOWN [--arch ARCH] [Class[.test]...]. Exit status 77: the guest cannot be had here (no network).
"""
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = ARCH = KERNEL = SHELL_INITRD = WORK = None
PROMPT = b"root@ringdown:"
BOOT_SECONDS = 60


def user_arch(arch):
    return "i386" if arch.startswith("i386") else "amd64"


def initramfs(name, *options, arch=None):
    out = os.path.join(WORK, name)
    if not os.path.exists(out):
        subprocess.run([os.path.join(HERE, "mkinitramfs"), "-o", out, "-a", user_arch(arch or ARCH), *options], check=True)
    return out


def kernel_of(arch):
    fetched = subprocess.run([os.path.join(HERE, "fetch"), arch], stdout=subprocess.PIPE, check=False)
    if fetched.returncode:
        print("session: skipped: cannot fetch the %s kernel" % arch)
        sys.exit(77)
    return os.path.join(fetched.stdout.decode().split(" ", 1)[1].strip(), "vmlinuz")


def script_initrd(text):
    """An initramfs that runs this script in place of a shell."""
    name = os.path.join(WORK, "script")
    with open(name, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n" + text + "\n")
    out = initramfs("script.gz", "-e", name)
    os.rename(out, out + "." + str(time.monotonic_ns()))
    return max((os.path.join(WORK, n) for n in os.listdir(WORK) if n.startswith("script.gz.")), key=os.path.getmtime)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Case(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.tmp = tmp.name
        self.unread = {}

    def path(self, name):
        return os.path.join(self.tmp, name)

    def line(self, initrd, *args, append="", memory="256M", kernel=None):
        return [BINARY, "-m", memory, "-accel", "bt", "-no-reboot", "-kernel", kernel or KERNEL, "-initrd", initrd, "-append",
                "console=ttyS0 panic=-1 quiet " + append, *args]

    def start(self, line, **kw):
        p = subprocess.Popen(line, cwd=self.tmp, **kw)
        self.addCleanup(lambda: (p.kill(), p.communicate()))
        return p

    def run_it(self, line, timeout=BOOT_SECONDS):
        p = subprocess.run(line, cwd=self.tmp, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        return p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")

    def read_until(self, fd, what, seconds=BOOT_SECONDS):
        """Takes everything up to what off the stream; what came behind it is there for the next call."""
        got, end = self.unread.pop(fd, b""), time.monotonic() + seconds
        while what not in got:
            ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
            self.assertTrue(ready, "no %r in %d s after %r" % (what, seconds, got[-400:]))
            data = fd.recv(4096) if isinstance(fd, socket.socket) else os.read(fd, 4096)
            self.assertTrue(data, "the end before %r, after %r" % (what, got[-400:]))
            got += data
        upto = got.index(what) + len(what)
        self.unread[fd] = got[upto:]
        return got[:upto]

    def talk(self, p, read_fd, write):
        """Prompt, one command, power-off: whatever carries the serial port."""
        self.read_until(read_fd, PROMPT)
        write(b"echo mark-$((6*7))\r")
        self.read_until(read_fd, b"mark-42")
        self.read_until(read_fd, PROMPT)
        write(b"exit\r")
        self.assertEqual(p.wait(BOOT_SECONDS), 0)


class Serial(Case):
    """Each form of -serial carries a session."""

    QUIET = ["-display", "none", "-monitor", "none"]

    def test_stdio(self):
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "stdio"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.talk(p, p.stdout.fileno(), lambda b: os.write(p.stdin.fileno(), b))

    def test_file(self):
        line = self.line(script_initrd("echo hello"), *self.QUIET, "-serial", "file:con", "-serial", "file:out")
        self.assertEqual(self.run_it(line), (0, "", ""))
        with open(self.path("out"), "rb") as f:
            self.assertEqual(f.read(), b"hello\n")
        with open(self.path("con"), "rb") as f:
            self.assertRegex(f.read(), rb"reboot: Power down\s*\Z")

    def test_null(self):
        self.assertEqual(self.run_it(self.line(script_initrd("true"), *self.QUIET, "-serial", "null")), (0, "", ""))

    def test_unix_socket_that_the_client_joins(self):
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "unix:sock,server=on,wait=on"))
        s = self.connect(lambda: (socket.AF_UNIX, self.path("sock")))
        self.talk(p, s, s.sendall)
        self.assertFalse(os.path.exists(self.path("sock")))

    def test_unix_socket_that_it_joins(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path("sock"))
        listener.listen(1)
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "unix:" + self.path("sock")))
        s, _ = listener.accept()
        self.addCleanup(s.close)
        self.talk(p, s, s.sendall)

    def test_tcp_server(self):
        port = free_port()
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "tcp:127.0.0.1:%d,server,nowait" % port))
        s = self.connect(lambda: (socket.AF_INET, ("127.0.0.1", port)))
        self.talk(p, s, s.sendall)

    def test_tcp_client(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "tcp:127.0.0.1:%d" % listener.getsockname()[1]))
        s, _ = listener.accept()
        self.addCleanup(s.close)
        self.talk(p, s, s.sendall)

    def test_pty(self):
        p = self.start(self.line(SHELL_INITRD, *self.QUIET, "-serial", "pty"), stdout=subprocess.PIPE)
        said = self.read_until(p.stdout.fileno(), b"\n").decode()
        name = re.fullmatch(r"char device redirected to (/dev/pts/\d+) \(label serial0\)\n", said)
        self.assertTrue(name, said)
        fd = os.open(name.group(1), os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, fd)
        self.talk(p, fd, lambda b: os.write(fd, b))

    def connect(self, where):
        family, address = where()
        s = socket.socket(family)
        self.addCleanup(s.close)
        end = time.monotonic() + 10
        while True:
            try:
                s.connect(address)
                return s
            except OSError:
                self.assertLess(time.monotonic(), end, "nobody listens at %r" % (address,))
                time.sleep(0.05)


class OnTerminal(Case):
    def session(self, *args, program=None):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 111, 0, 0))
        self.master, self.slave, self.before = master, slave, termios.tcgetattr(slave)
        line = program or self.line(SHELL_INITRD, "-nographic", *args)
        self.p = self.start(line, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.read_until(master, PROMPT, 300 if program else BOOT_SECONDS)

    def type(self, data):
        os.write(self.master, data)

    def ends(self, status):
        self.assertEqual(self.p.wait(BOOT_SECONDS), status)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)


class Terminal(OnTerminal):
    """-nographic on a terminal, as ./demo uses it."""

    def test_shell_with_job_control(self):
        self.session()
        self.type(b"sleep 1000\r")
        time.sleep(2)
        self.type(b"\x03")  # Ctrl-C is the guest's
        self.read_until(self.master, PROMPT)
        self.type(b"echo status $?\r")
        self.read_until(self.master, b"status 130")
        self.type(b"sleep 1000\r")
        time.sleep(2)
        self.type(b"\x1a")  # Ctrl-Z
        self.read_until(self.master, b"Stopped")
        self.type(b"bg; jobs\r")
        self.read_until(self.master, b"Running")
        self.type(b"kill %1; wait; echo gone $((2+3))\r")
        self.read_until(self.master, b"gone 5")
        self.type(b"cat >/tmp/f\r")
        time.sleep(2)  # the shell's line editor drops what is typed ahead when it hands the terminal over
        self.type(b"typed text\r\x04")  # Ctrl-D ends the input
        self.read_until(self.master, PROMPT)
        self.type(b"md5sum </tmp/f\r")
        self.read_until(self.master, b"d4715df6f802ae173be4b5c4bdb00fe3")
        self.type(b"exit\r")
        self.ends(0)

    def test_help_monitor_and_quit_keys(self):
        self.session()
        self.type(b"\x01h")
        self.read_until(self.master, b"C-a x")
        self.type(b"\x01c")
        self.read_until(self.master, b"(qemu) ")
        self.type(b"info status\r")
        self.read_until(self.master, b"VM status: running")
        self.type(b"\x01c\r")
        self.read_until(self.master, PROMPT)
        self.type(b"\x01x")
        self.ends(0)

    def test_demo(self):
        self.session(program=[os.path.join(HERE, "..", "..", "demo"), "--arch", ARCH])
        self.type(b"stty size; uname -r\r")
        self.read_until(self.master, b"33 111")
        self.read_until(self.master, PROMPT)
        self.type(b"\x01h")
        self.read_until(self.master, b"C-a x")
        self.type(b"\x01x")
        self.ends(0)

    def test_demo_ends_on_a_signal(self):
        self.session(program=[os.path.join(HERE, "..", "..", "demo"), "--arch", ARCH])
        self.p.terminate()
        self.ends(0)

    def test_demo_that_runs_a_command_ends_on_a_signal_and_leaves_no_process(self):
        p = self.start([os.path.join(HERE, "..", "..", "demo"), "--arch", ARCH, "--exec", "echo up; sleep 1000"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.read_until(p.stdout.fileno(), b"up\n", 300)
        p.terminate()
        self.assertEqual(p.wait(10), 128 + signal.SIGTERM)
        with self.assertRaises(ProcessLookupError):
            os.killpg(p.pid, 0)

    def test_break_key_is_sysrq(self):
        self.session("-append", "console=ttyS0 sysrq_always_enabled")
        self.type(b"\x01b")
        time.sleep(0.3)
        self.type(b"h")
        self.read_until(self.master, b"HELP : ")
        self.type(b"\x01x")
        self.ends(0)


class Kvm(OnTerminal):
    """What KVM's CPUID leaves promise, as Linux uses it."""

    def stolen(self):
        self.type(b"set -- $(grep '^cpu ' /proc/stat); echo st''olen=$9.\r")
        self.read_until(self.master, b"stolen=")
        return int(self.read_until(self.master, b".")[:-1])

    def test_linux_ends_interrupts_through_memory_and_counts_stolen_time(self):
        self.session()
        before = self.stolen()
        busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * os.cpu_count())]
        try:
            self.type(b"i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 0.02; echo $i | md5sum >/dev/null; done; echo done $((3*4))\r")
            self.read_until(self.master, b"done 12", 120)
        finally:
            for p in busy:
                p.kill()
                p.wait()
        self.assertGreater(self.stolen(), before)
        self.type(b"\x01cinfo lapic\r")
        said = self.read_until(self.master, b"by PV EOI (on)")
        self.assertGreater(int(re.search(rb"(\d+) of them by PV EOI", said)[1]), 20)
        self.type(b"\x01cexit\r")
        self.ends(0)


class Ends(Case):
    """Exit statuses, and the line that says why."""

    def end(self, script, *args, append=""):
        line = self.line(script_initrd(script), "-display", "none", "-monitor", "none", "-serial", "file:con", "-serial", "null",
                         *args, append=append)
        status, out, err = self.run_it(line)
        self.assertEqual(out, "")
        with open(self.path("con"), "rb") as f:
            return status, err, f.read().decode(errors="replace")

    def test_power_off(self):
        status, err, con = self.end("true")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("reboot: Power down", con)

    def test_reboot(self):
        status, err, con = self.end("reboot -f")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("reboot: Restarting system", con)

    def test_reboot_by_every_method(self):
        for way in ("acpi", "kbd", "pci"):
            with self.subTest(way=way):
                self.assertEqual(self.end("reboot -f", append="reboot=" + way)[:2], (0, ""))

    def test_reboot_by_triple_fault(self):
        status, err, _ = self.end("reboot -f", append="reboot=triple")
        self.assertEqual(status, 1)
        self.assertRegex(err, r"\A[^\n]*triple fault[^\n]*\n\Z")

    def test_panic(self):
        status, err, con = self.end("echo c >/proc/sysrq-trigger; sleep 100")
        self.assertEqual(status, 1)
        self.assertRegex(err, r"\A[^\n]*panic[^\n]*\n\Z")
        self.assertIn("Kernel panic - not syncing", con)

    def test_halt_stays(self):
        line = self.line(script_initrd("halt -f"), "-display", "none", "-monitor", "none", "-serial", "stdio")
        p = self.start(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.read_until(p.stdout.fileno(), b"System halted")
        time.sleep(0.5)
        self.assertIsNone(p.poll())
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(10), 0)

    def test_reboot_without_no_reboot_boots_again(self):
        line = self.line(script_initrd("reboot -f; sleep 100"), "-display", "none", "-monitor", "none", "-serial", "stdio", "-serial", "null")
        line.remove("-no-reboot")
        p = self.start(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        for _ in range(2):
            self.read_until(p.stdout.fileno(), b"reboot: Restarting system")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(10), 0)


class Bad(Case):
    """Real files, damaged, and machines they do not fit: one line, status 1, nothing left."""

    def refused(self, words, *args, **kw):
        line = self.line(SHELL_INITRD, "-display", "none", "-monitor", "none", "-serial", "null", *args, **kw)
        before = sorted(os.listdir(self.tmp))
        status, out, err = self.run_it(line, 20)
        self.assertEqual((status, out), (1, ""), err)
        self.assertEqual(len(err.splitlines()), 1, err)
        for word in words.split():
            self.assertIn(word, err)
        self.assertEqual(sorted(os.listdir(self.tmp)), before)

    def test_truncated_kernel(self):
        with open(KERNEL, "rb") as f:
            whole = f.read()
        for size in (0, 1, 0x1f1, 0x202, 0x230, 512, 4096, 20000, len(whole) // 2, len(whole) - 9000):
            with self.subTest(size=size):
                with open(self.path("k"), "wb") as f:
                    f.write(whole[:size])
                self.refused(self.path("k"), kernel=self.path("k"))

    def test_memory_too_small_for_the_kernel(self):
        for memory in ("1M", "4M", "16M", "24M"):
            with self.subTest(memory=memory):
                self.refused("memory", memory=memory)

    def test_missing_initrd(self):
        self.refused("initrd No such file", "-initrd", "/nowhere/i")


class Layout(Case):
    def test_own_stack_is_not_where_the_guest_kernel_is(self):
        """The kernel window puts guest addresses from 0xffffffff80000000 on at 0x7fff7ffff000; the host places stacks at random."""
        for _ in range(40):
            p = self.start([BINARY, "-S", "-display", "none", "-monitor", "none", "-serial", "file:con", "-accel", "bt", "-kernel",
                            KERNEL])
            end = time.monotonic() + 10
            while not os.path.exists(self.path("con")):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.01)
            with open("/proc/%d/maps" % p.pid, encoding="ascii") as f:
                stack = re.search(r"^(\w+)-(\w+) .*\[stack\]$", f.read(), re.M)
            first, last = int(stack.group(1), 16), int(stack.group(2), 16)
            self.assertFalse(first < 0x7FFFEFFFF000 and last > 0x7FFF7FFFF000, stack.group(0))
            p.kill()
            p.wait()
            os.unlink(self.path("con"))


class Idle(Case):
    def ticks(self, p):
        with open("/proc/%d/stat" % p.pid, encoding="ascii") as f:
            return sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])

    def test_guests_at_their_prompts_cost_little(self):
        """Under 3 % of a core each, over 20 s: of every kernel, at the same time."""
        guests = []
        for arch in ("amd64", "i386", "i386-pae"):
            initrd = initramfs("shell-%s.gz" % user_arch(arch), arch=arch)
            p = self.start(self.line(initrd, "-display", "none", "-monitor", "none", "-serial", "stdio", kernel=kernel_of(arch)),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.read_until(p.stdout.fileno(), PROMPT)
            guests.append((arch, p))
        time.sleep(3)
        before, begun = [self.ticks(p) for _, p in guests], time.monotonic()
        time.sleep(20)
        spent = time.monotonic() - begun
        for (arch, p), ticks in zip(guests, before):
            share = (self.ticks(p) - ticks) / os.sysconf("SC_CLK_TCK") / spent
            print("idle %s: %.2f %% of a core" % (arch, share * 100))
            self.assertLess(share, 0.03, arch)


def main():
    global BINARY, ARCH, KERNEL, SHELL_INITRD, WORK
    args = sys.argv[1:]
    if not args:
        sys.exit(__doc__)
    BINARY, ARCH = os.path.abspath(args.pop(0)), "amd64"
    if args[:1] == ["--arch"]:
        ARCH, args = args[1], args[2:]
    KERNEL = kernel_of(ARCH)
    with tempfile.TemporaryDirectory() as WORK:
        SHELL_INITRD = initramfs("shell.gz")
        unittest.main(argv=[sys.argv[0], *args], verbosity=2)


if __name__ == "__main__":
    main()
