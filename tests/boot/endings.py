#!/usr/bin/env python3
"""Every way out of a session, over and over: what is typed at the guest's prompt must end the machine, or start it again.

usage: endings.py RINGDOWN [--arch A,B] [--engine SETTING]... [--way NAME]... [--times N] [--load N] [--seconds LIMIT]
                  [--append WORDS] [--keep DIR] [--seed N]
  --engine   what follows "-accel bt" ("" is the engine as it comes); several, and several --arch and --way, are combined
  --load     busy loops meanwhile (at nice 10)
  --seconds  until this much time has passed, in random order, instead of --times
  --keep     where to write what is known of a machine that hangs (registers by its monitor, its threads' host stacks, the
             console); default: a new folder under $TMPDIR
Exit status: 0 all ended as they should, 1 not, 77 the guest cannot be had here (no network).
"""
import argparse
import os
import pty
import random
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = b"root@ringdown:"
AGAIN = b"BusyBox on Linux"
BOOT_SECONDS = 120
END_SECONDS = 60

# name: what is typed, extra options, what is awaited: an exit status, or a text and then Ctrl-A X
WAYS = {
    "reboot": ("reboot -f\r", ["-no-reboot"], 0),
    "reboot-typed-ahead": ("reboot -f\rsecond line\rthird line\r", ["-no-reboot"], 0),
    "reboot-again": ("reboot -f\r", [], AGAIN),
    "poweroff": ("poweroff -f\r", ["-no-reboot"], 0),
    "exit": ("exit\r", ["-no-reboot"], 0),
    "sysrq-b": ("echo b >/proc/sysrq-trigger\r", ["-no-reboot"], 1),
    "sysrq-b-again": ("echo b >/proc/sysrq-trigger\r", [], AGAIN),
    "panic": ("echo c >/proc/sysrq-trigger\r", ["-no-reboot"], 1),
    "panic-again": ("echo c >/proc/sysrq-trigger\r", [], AGAIN),
    "init-dies": ("kill -9 1; kill -SEGV 1; exec 0<&-; exec >/dev/null; exit\r", ["-no-reboot"], 0),
    "halt": ("halt -f\r", ["-no-reboot"], b"System halted"),
}


class Hang(Exception):
    pass


class Session:
    def __init__(self, line):
        self.master, slave = pty.openpty()
        self.slave, self.before = slave, termios.tcgetattr(slave)
        self.console = b""
        self.p = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)

    def pump(self, seconds):
        """Reads for so long, or until something came."""
        ready, _, _ = select.select([self.master], [], [], max(0, seconds))
        if ready:
            self.console += os.read(self.master, 65536)

    def wait_text(self, text, seconds, since):
        end = time.monotonic() + seconds
        while text not in self.console[since:]:
            if time.monotonic() > end:
                raise Hang("no %r in %d s" % (text, seconds))
            if self.p.poll() is not None:
                raise Hang("ended with status %d before %r" % (self.p.returncode, text))
            self.pump(0.2)

    def wait_end(self, seconds):
        end = time.monotonic() + seconds
        while self.p.poll() is None:
            if time.monotonic() > end:
                raise Hang("did not end in %d s" % seconds)
            self.pump(0.1)
        while select.select([self.master], [], [], 0)[0]:
            self.console += os.read(self.master, 65536)
        return self.p.returncode

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        os.close(self.master)
        os.close(self.slave)


def output_of(*line):
    try:
        p = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
        return p.stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e) + "\n"


def host_view(pid):
    """The threads of the process: state, system call, time used, host stacks if gdb is there."""
    text = ""
    for tid in sorted(os.listdir("/proc/%d/task" % pid)):
        for name in ("comm", "wchan", "syscall", "stat"):
            try:
                with open("/proc/%d/task/%s/%s" % (pid, tid, name), encoding="utf-8", errors="replace") as f:
                    text += "%s %s: %s\n" % (tid, name, f.read().strip())
            except OSError as e:
                text += "%s %s: %s\n" % (tid, name, e)
    return text + output_of("gdb", "-batch", "-p", str(pid), "-ex", "thread apply all bt 30", "-ex", "info registers")


def autopsy(s, keep, name, why):
    """Everything that tells why it hangs; the monitor last, since asking it may wake what sleeps."""
    with open(os.path.join(keep, name + ".txt"), "w", encoding="utf-8", errors="replace") as f:
        f.write("%s\n\n" % why)
        if s.p.poll() is None:
            f.write(host_view(s.p.pid))
            begun = len(s.console)
            for ask in ("\x01c", "info status\r", "info registers\r", "info registers\r", "\x01c"):
                s.type(ask)
                for _ in range(10):
                    s.pump(0.1)
            f.write("\n---- monitor\n" + s.console[begun:].decode(errors="replace"))
            try:
                s.wait_end(5)
                f.write("\n---- being asked ended it: status %d\n" % s.p.returncode)
            except Hang:
                f.write("\n---- later\n" + host_view(s.p.pid))
        f.write("\n---- console\n" + s.console.decode(errors="replace"))
    print("  see " + f.name, flush=True)


def one(line, way):
    """Boots, types, waits. Raises Hang; the session is its second argument."""
    typed, options, awaited = WAYS[way]
    s = Session(line + options)
    try:
        s.wait_text(PROMPT, BOOT_SECONDS, 0)
        begun, mark = time.monotonic(), len(s.console)
        s.type(typed)
        if isinstance(awaited, bytes):
            s.wait_text(awaited, END_SECONDS + (BOOT_SECONDS if awaited == AGAIN else 0), mark)
            s.type("\x01x")
            awaited = 0
        status = s.wait_end(END_SECONDS)
        if status != awaited:
            raise Hang("status %d, not %d" % (status, awaited))
        if termios.tcgetattr(s.slave) != s.before:
            raise Hang("the terminal is not as before")
        return time.monotonic() - begun
    except Hang as e:
        raise Hang(str(e), s) from None
    finally:
        if sys.exc_info()[0] is not Hang:
            s.close()


def guests(arch, folder):
    fetched = subprocess.run([os.path.join(HERE, "fetch"), arch], stdout=subprocess.PIPE, check=False)
    if fetched.returncode:
        print("endings: skipped: cannot fetch the %s kernel" % arch)
        sys.exit(77)
    user = "i386" if arch.startswith("i386") else "amd64"
    initrd = os.path.join(folder, user + ".gz")
    if not os.path.exists(initrd):
        subprocess.run([os.path.join(HERE, "mkinitramfs"), "-o", initrd, "-a", user], check=True)
    return os.path.join(fetched.stdout.decode().split(" ", 1)[1].strip(), "vmlinuz"), initrd


def busy_loops(n):
    return [subprocess.Popen(["nice", "-n", "10", "sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(n)]


def arguments():
    a = argparse.ArgumentParser(usage=__doc__, add_help=False)
    a.add_argument("program")
    a.add_argument("--arch", default="amd64")
    a.add_argument("--engine", action="append")
    a.add_argument("--way", action="append")
    a.add_argument("--times", type=int, default=1)
    a.add_argument("--seconds", type=int)
    a.add_argument("--load", type=int, default=0)
    a.add_argument("--append", default="")
    a.add_argument("--keep")
    a.add_argument("--seed", type=int, default=int(time.time()))
    return a.parse_args()


def plan(args):
    """The cases, one after the other; with --seconds in random order until the time is over."""
    cases = [(a, e, w) for a in args.arch.split(",") for e in args.engine or [""] for w in args.way or WAYS]
    if args.seconds is None:
        for _ in range(args.times):
            yield from cases
        return
    print("endings: --seed %d" % args.seed)
    rng, end = random.Random(args.seed), time.monotonic() + args.seconds
    while time.monotonic() < end:
        yield rng.choice(cases)


def main():
    args = arguments()
    keep = args.keep or tempfile.mkdtemp(prefix="endings.")
    os.makedirs(keep, exist_ok=True)
    done = bad = 0
    load = busy_loops(args.load)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for arch, engine, way in plan(args):
                kernel, initrd = guests(arch, folder)
                line = [args.program, "-m", "256M", "-nographic", "-accel", "bt" + ("," + engine if engine else ""), "-kernel", kernel,
                        "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet " + args.append]
                done += 1
                name = "%s %s %s" % (arch, engine or "default", way)
                try:
                    print("%d: %s: %.1f s" % (done, name, one(line, way)), flush=True)
                except Hang as e:
                    bad += 1
                    print("%d: %s: FAILED: %s" % (done, name, e.args[0]), flush=True)
                    autopsy(e.args[1], keep, "%d %s" % (done, name), e.args[0])
                    e.args[1].close()
    finally:
        for p in load:
            p.send_signal(signal.SIGKILL)
            p.wait()
        if not bad and not args.keep:
            os.rmdir(keep)
    print("endings: %d of %d as they should be" % (done - bad, done))
    sys.exit(1 if bad or not done else 0)


if __name__ == "__main__":
    main()
