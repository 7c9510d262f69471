"""What is run. A suite runs once per round and engine and yields samples: {workload: Sample}."""
import copy
import json
import os
import subprocess
import tempfile

from . import bochs
from . import engines as eng
from . import session


class Sample:
    """values: costs in "unit" of single samples (smaller is better); check: the result, the same under every engine."""

    def __init__(self, unit, values, check=None, note=None):
        self.unit, self.values, self.check, self.note = unit, values, check, note

    def as_dict(self):
        return {"unit": self.unit, "values": self.values, "check": self.check, "note": self.note}


class Failed(Exception):
    pass


def largest_maps():
    """Points of the curve "maps" double; of these the last one whose pages the host maps singly (vm.max_map_count)."""
    return 1 << (max_map_count() - 1).bit_length() - 1


def max_map_count():
    try:
        with open("/proc/sys/vm/max_map_count", encoding="ascii") as f:
            return int(f.read())
    except (OSError, ValueError):
        return 65530  # the kernel's default


class Context:
    """What the suites need to know: where things are, how fast the TSC runs, how much to do."""

    def __init__(self, root, build, tmp, tsc_hz):
        self.root, self.build, self.tmp, self.tsc_hz = root, build, tmp, tsc_hz
        self.samples, self.warm, self.only, self.quick = 9, 0, None, False

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def words(self):
        return " ".join(["samples=%d" % self.samples, "warm=%d" % self.warm] + (["only=" + ",".join(self.only)] if self.only else []))

    def outside_words(self, few=None):
        """For a machine without a clock: few samples, and long ones; of these workloads, unless others are asked for."""
        only = self.only or few
        return " ".join(["samples=3", "outside=1"] + (["only=" + ",".join(only)] if only else []))


def parse_bench(lines, tsc_hz, unit, scale):
    """BENCH lines of drive.c, nano.c and work.c. unit and scale: of the cost of one operation in seconds, or in ticks.

    Samples that stand between BEGIN and END lines are timed by those: by the CPU time that the machine used meanwhile.
    """
    started, begun, outside, out = {}, {}, {}, {}
    for line in lines:
        words = line.text.split()
        if len(words) >= 2 and words[0] == "START":
            started[words[1]] = line
        if len(words) == 2 and words[0] == "BEGIN":
            begun[words[1]] = line.cpu_ns
        if len(words) == 2 and words[0] == "END":
            outside.setdefault(words[1], []).append((line.cpu_ns - begun.pop(words[1])) / 1e9)
        if len(words) < 5 or words[0] != "BENCH":
            continue
        name, check, ops = words[1], words[2], int(words[3], 16)
        ticks = [int(w, 16) for w in words[4:]]
        if name in started and line.cpu_ns is not None and started[name].cpu_ns is not None:
            # One long sample: its CPU time, which other processes on the host do not add to.
            out[name] = Sample("ms", [(line.cpu_ns - started[name].cpu_ns) / 1e6], check, "CPU time")
            continue
        if name in outside:
            out[name] = Sample("cycles" if unit == "ticks" else unit, [s / ops * (tsc_hz if unit == "ticks" else scale) for s in outside[name]],
                               check, "CPU time")
            continue
        if unit == "ticks":
            values = [t / ops for t in ticks]
        else:
            values = [t / ops / tsc_hz * scale for t in ticks]
        out[name] = Sample("cycles" if unit == "ticks" else unit, values, check)
    return out


def stats_option(engine, ctx):
    """Has ringdown write its counters."""
    return ["-stats", os.path.join(ctx.tmp, "stats.json")] if engine.counts else []


def read_stats(engine, ctx):
    if not engine.counts:
        return None
    try:
        with open(os.path.join(ctx.tmp, "stats.json"), encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def need(result, what, status):
    if result.timed_out:
        raise Failed("%s: timed out" % what)
    if result.status != status or not any(l.text.startswith("DONE") for l in result.lines):
        tail = (result.stderr.strip().splitlines() or [""])[-1]
        said = " / ".join(l.text for l in result.lines[-3:])
        raise Failed("%s: exit status %s: %s %s" % (what, result.status, said, tail))


class Bare:
    """A bare 64-bit guest that times itself; natively, a program with the same object code."""

    has_user_code = False

    def __init__(self, name, title, guest, native, unit="ns", scale=1e9, timeout=300):
        self.name, self.title, self.guest, self.native = name, title, guest, native
        self.unit, self.scale, self.timeout = unit, scale, timeout

    def prepare(self, ctx):
        pass

    def runs_on(self, engine):
        return engine.kind in ("vmm", "bochs") or (engine.kind == "native" and self.native)

    def why_not(self, engine, workload):
        """Why this engine has no figure for the workload; None instead of it: for the whole suite."""
        if engine.kind == "uml":
            return "User-mode Linux is a Linux kernel: it runs no other guest"
        if engine.kind == "native":
            return "nothing is translated" if workload == "translate" else "privileged: a process of the host may not"
        if engine.kind == "bochs" and workload in ("sort-4k", "translate", "timer-irq"):
            return "too short to be timed from outside, and Bochs has no other clock"
        return None

    def run(self, engine, ctx):
        if engine.kind == "native":
            r = session.run([ctx.program(self.native)] + ctx.words().split(), self.timeout)
            need(r, self.name + " natively", 0)
            out = parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale)
            if "translate" in out:
                out["translate"].values = []  # nothing is translated; its result counts all the same
            return out, None
        if engine.kind == "bochs":
            return self.run_bochs(engine, ctx), None
        args = eng.bare_guest_options(ctx.program(self.guest), ctx.words())
        r = session.run(engine.command(*args, *stats_option(engine, ctx)), self.timeout)
        need(r, "%s under %s" % (self.name, engine.name), 1)
        return parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale), read_stats(engine, ctx)

    def run_bochs(self, engine, ctx):
        with open(ctx.program("bochs-loader.bin"), "rb") as loader, open(ctx.program(self.guest), "rb") as guest:
            disk = bochs.multiboot_disk(loader.read(), guest.read(), ctx.outside_words(), 128)
        r = session.run(bochs.command(engine.program, ctx.tmp, disk, 128), 4 * self.timeout)
        need(r, "%s under %s" % (self.name, engine.name), 1)
        return parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale)


class Linux:
    """A stock Debian kernel with a minimal init; the time to init is a workload of its own."""

    boot, unit, scale, memory, has_user_code = True, "us", 1e6, "512M", True
    others = ("native", "uml", "bochs")
    # Bochs takes a hundred times as long as the CPU: a few of each sort of workload.
    FEW = ("qsort-4000", "float-1000", "sha256-block", "getppid", "read-1", "stat", "sig-catch", "prot-fault", "page-fault", "create-unlink", "fork-wait",
           "fork-exec", "pipe-pingpong")

    def __init__(self, name, title, arch, timeout=400, work=True):
        self.name, self.title, self.arch, self.timeout, self.work = name, title, arch, timeout, work
        self.kernel = self.initrd = None

    def runs_on(self, engine):
        return engine.kind == "vmm" or (engine.kind in self.others and self.work and not self.arch.startswith("i386"))

    def why_not(self, engine, workload):
        if engine.kind == "native":
            return "there is no machine to boot" if workload in (None, "boot", "boot-cpu") else None
        if engine.kind == "uml":
            return "User-mode Linux is a kernel of its own: it boots no other" if workload is None else None
        if engine.kind == "bochs":
            return "Bochs takes a hundred times as long as the CPU: a few of each sort of workload only" if self.work else \
                "Bochs takes a minute of CPU time to boot; it does so once, in linux"
        return None

    def native_command(self, ctx, tmpfs):
        return [self.program, "dir=" + tmpfs, "busybox=" + self.busybox] + ctx.words().split()

    def words(self, ctx):
        return ctx.words() if self.work else "only=none"

    def prepare(self, ctx):
        if self.initrd:
            return
        fetch = os.path.join(ctx.root, "tests/boot/fetch")
        user = "i386" if self.arch.startswith("i386") else "amd64"
        found = fetch_dirs(fetch, self.arch, "busybox-" + user)
        self.kernel = os.path.join(found[self.arch], "vmlinuz")
        self.busybox = os.path.join(found["busybox-" + user], "busybox")
        self.program = ctx.program("work-" + user)
        self.initrd = os.path.join(ctx.build, "bench", "initrd-%s.gz" % user)
        initramfs(ctx, self.initrd, user, "init=" + ctx.program("init-" + user), "bin/work=" + self.program)

    def run(self, engine, ctx):
        if engine.kind == "native":
            with tempfile.TemporaryDirectory(prefix="rd-bench-", dir="/dev/shm") as tmpfs:
                r = session.run(self.native_command(ctx, tmpfs), self.timeout, pin=True)
            need(r, self.name + " natively", 0)
            return parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale), None
        if engine.kind == "bochs":
            return self.run_bochs(engine, ctx)
        r = self.start(engine, ctx, self.memory, self.initrd, self.words(ctx), stats_option(engine, ctx))
        need(r, "%s under %s" % (self.name, engine.name), 0)
        return self.results(r, ctx), read_stats(engine, ctx)

    def start(self, engine, ctx, memory, initrd, words, more=()):
        """A machine with that init's command line, to its end."""
        if engine.kind == "uml":
            # A kernel that is a program; its console is its standard output. It ends with status 0 however the guest does.
            command = engine.command("mem=" + memory, "initrd=" + initrd, "con=null", "con0=null", "ssl=null", "ssl1=null,fd:1", "quiet", "panic=-1",
                                     "umid=rd-bench-%d" % os.getpid(), "uml_dir=" + ctx.tmp, "--", *words.split())
        else:
            command = engine.command("-m", memory, "-display", "none", "-monitor", "none", "-serial", "null", "-serial", "stdio", "-no-reboot",
                                     "-kernel", self.kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet -- " + words, *more)
        return session.run(command, self.timeout, pin=engine.kind == "uml")

    def run_bochs(self, engine, ctx):
        words = "console=ttyS0 panic=-1 quiet -- " + ctx.outside_words(self.FEW)
        with open(ctx.program("bochs-loader.bin"), "rb") as loader, open(self.kernel, "rb") as kernel, open(self.initrd, "rb") as initrd:
            disk = bochs.linux_disk(loader.read(), kernel.read(), initrd.read(), words, 256)
        r = session.run(bochs.command(engine.program, ctx.tmp, disk, 256, port=2), 3 * self.timeout)
        need(r, "%s under %s" % (self.name, engine.name), 1)
        return self.results(r, ctx), None

    def results(self, r, ctx):
        out = parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale)
        for line in r.lines:
            if self.boot and line.text == "INIT" and (not ctx.only or "boot" in ctx.only):
                out["boot"] = Sample("ms", [line.wall_ns / 1e6], None, "start of the process to /init, wall clock")
                if line.cpu_ns is not None:
                    out["boot-cpu"] = Sample("ms", [line.cpu_ns / 1e6], None, "the same in CPU time")
        return out


class Account(Linux):
    """What the account of time costs: the same machine with it and without it, in turn."""

    PAIRS, WORK = 4, "samples=9 warm=100 only=getppid,page-fault,fork-wait"

    def __init__(self, name, title):
        super().__init__(name, title, "amd64")

    def runs_on(self, engine):
        return engine.counts

    def why_not(self, engine, workload):
        return "not ringdown: it keeps no account"

    def run(self, engine, ctx):
        out, counters = {}, None
        without = copy.copy(engine)
        without.args = [a + ",account=off" if before == "-accel" else a for before, a in zip([None] + engine.args, engine.args)]
        for i in range(self.PAIRS):
            for which, e in (("on", engine), ("off", without))[::-1 if i % 2 else 1]:
                r = self.start(e, ctx, self.memory, self.initrd, self.WORK, stats_option(e, ctx))
                need(r, "%s %s under %s" % (self.name, which, e.name), 0)
                if which == "on":
                    counters = read_stats(e, ctx)
                for name, sample in self.results(r, ctx).items():
                    if name != "boot":
                        out.setdefault("%s@%s" % (name, which), Sample(sample.unit, [])).values += sample.values
        return out, counters


class Macro(Linux):
    """Jobs of whole programs from Debian packages, in the same guest; one sample of each in a round."""

    boot, unit, scale, others = False, "ms", 1e3, ("native", "uml")

    def __init__(self, name, title, timeout=1800):  # trap and emulate takes four minutes, two and a half of them for 40,000 forks
        super().__init__(name, title, "amd64", timeout)

    def why_not(self, engine, workload):
        return "Bochs takes a hundred times as long as the CPU: it would be hours" if engine.kind == "bochs" else None

    def words(self, ctx):
        return " ".join((["quick=1"] if ctx.quick else []) + (["only=" + ",".join(ctx.only)] if ctx.only else []))

    def native_command(self, ctx, tmpfs):
        return [os.path.join(self.world, "macro"), "world=" + self.world, "dir=" + tmpfs] + self.words(ctx).split()

    def prepare(self, ctx):
        if self.initrd:
            return
        fetch = os.path.join(ctx.root, "tests/boot/fetch")
        self.kernel = os.path.join(fetch_dirs(fetch, "amd64")["amd64"], "vmlinuz")
        self.world = os.path.join(ctx.build, "bench", "macro-world")
        tool(os.path.join(ctx.root, "bench/linux/macro-world"), self.world, ctx.program("macro-amd64"))
        initrd = os.path.join(ctx.build, "bench", "initrd-macro.cpio")
        files = ["init=" + ctx.program("init-amd64"), "bin/work=" + ctx.program("macro-amd64")]
        for folder, _, names in os.walk(self.world):
            at = os.path.normpath(os.path.join("w", os.path.relpath(folder, self.world)))
            files += ["%s/%s=%s" % (at, n, os.path.join(folder, n)) for n in names if n != "macro"]
        initramfs(ctx, initrd, "amd64", *files, options=("-u", "-d", "w", "-d", "w/lib"))
        self.initrd = initrd


class Scale(Linux):
    """Curves; see scale.py. Guest RAM is a curve of its own, of one boot for each point."""

    boot, others, limits, memory = False, ("native", "uml"), [], "1G"
    RAM = (128, 256, 512, 1024, 2048)

    def __init__(self, name, title, timeout=1800):
        super().__init__(name, title, "amd64", timeout)

    def why_not(self, engine, workload):
        if engine.kind == "bochs":
            return "Bochs takes a hundred times as long as the CPU: it would be hours"
        if workload.startswith("kmaps@"):
            return "a bare kernel's pages: there is no machine to run it"
        if engine.kind == "native" and workload.startswith("ram-"):
            return "there is no guest whose RAM it could be"
        if engine.kind == "uml" and workload.startswith("maps@"):
            return ("each page of its processes is a mapping of the host, of which a process may have %d (vm.max_map_count): beyond that "
                    "its mmap fails, and it kills the process" % max_map_count())
        return None

    def words(self, ctx):
        return " ".join(self.limits + (["quick=1"] if ctx.quick else []) + (["only=" + ",".join(ctx.only)] if ctx.only else []))

    def native_command(self, ctx, tmpfs):
        return [ctx.program("scale-amd64"), "dir=" + tmpfs] + self.words(ctx).split()

    def prepare(self, ctx):
        if self.initrd:
            return
        super().prepare(ctx)
        self.small_initrd = self.initrd
        self.initrd = os.path.join(ctx.build, "bench", "initrd-scale.gz")
        initramfs(ctx, self.initrd, "amd64", "init=" + ctx.program("init-amd64"), "bin/work=" + ctx.program("scale-amd64"))

    def run(self, engine, ctx):
        # A process of User-mode Linux is killed where the host's mappings end: see why_not().
        self.limits = ["maps=%d" % largest_maps()] if engine.kind == "uml" else []
        curves = set(ctx.only or ["ram-boot", "ram-fork", "kmaps", "other"])
        out, counters = super().run(engine, ctx) if curves - {"ram-boot", "ram-fork", "kmaps"} else ({}, None)
        if engine.kind == "vmm" and "kmaps" in curves:
            out.update(self.scattered(engine, ctx))
        if engine.kind in ("vmm", "uml") and curves & {"ram-boot", "ram-fork"}:
            for mib in self.RAM[:3] if ctx.quick else self.RAM:
                out.update(self.boot_with(engine, ctx, mib))
        return out, counters

    def scattered(self, engine, ctx):
        r = session.run(engine.command(*eng.bare_guest_options(ctx.program("scatter.elf"), "quick" if ctx.quick else "")), self.timeout)
        need(r, "kmaps under %s" % engine.name, 1)
        return parse_bench(r.lines, ctx.tsc_hz, self.unit, self.scale)

    def boot_with(self, engine, ctx, mib):
        r = self.start(engine, ctx, "%dM" % mib, self.small_initrd, "samples=5 warm=150 only=fork-wait")
        need(r, "%s with %d MiB under %s" % (self.name, mib, engine.name), 0)
        init = [line.cpu_ns for line in r.lines if line.text == "INIT" and line.cpu_ns is not None]
        out = {"ram-boot@%d" % mib: Sample("ms", [init[0] / 1e6])} if init else {}
        forks = parse_bench(r.lines, ctx.tsc_hz, "us", 1e6).get("fork-wait")
        return {**out, "ram-fork@%d" % mib: forks} if forks else out


def tool(*command):
    """Runs one of our scripts; what it has to say goes to stderr. Returns its output."""
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if p.returncode:
        raise Failed("%s failed" % " ".join([os.path.relpath(command[0])] + [w for w in command[1:4] if not w.startswith(("-", "/"))]))
    return p.stdout


def initramfs(ctx, to, arch, *files, options=()):
    """files: PATH_IN_THE_GUEST=SOURCE"""
    tool(os.path.join(ctx.root, "tests/boot/mkinitramfs"), "-o", to, "-a", arch, *options, *(x for f in files for x in ("-p", f)))


def fetch_dirs(fetch, *names):
    return dict(line.split(" ", 1) for line in tool(fetch, *names).splitlines())


def all_suites():
    return [
        Bare("compute", "Engine: the same bytes natively and in a bare 64-bit guest", "compute.elf", "compute-native"),
        Bare("nano", "Nanobenchmarks: privileged operations in a bare guest", "nano.elf", "nano-native", unit="ticks"),
        Linux("linux", "Stock Debian amd64 kernel", "amd64"),
        Macro("macro", "Whole programs on a stock Debian amd64 kernel"),
        Scale("scale", "Scaling"),
        Account("account", "What the account of time costs"),
        Linux("boot-i386", "Boot of the stock i386 kernel", "i386", work=False),
        Linux("boot-i386-pae", "Boot of the stock i386 PAE kernel", "i386-pae", work=False),
    ]


DEFAULT = ("compute", "nano", "linux", "macro", "scale", "account", "boot-i386", "boot-i386-pae")
QUICK = ("compute", "nano", "linux", "macro")
