"""The engines that are compared. An engine is a name and how to start a machine with it."""
import os
import shutil
import subprocess

from . import bochs


class Engine:
    """kind: "native" (no machine), "vmm" (QEMU's command line), "uml" (a Linux kernel that is a program), "bochs"."""

    def __init__(self, name, what, kind="vmm", program=None, args=()):
        self.name, self.what, self.kind, self.program, self.args = name, what, kind, program, list(args)
        self.counts = what.startswith("ringdown")  # has -stats
        self.missing = None                        # why it cannot be used here

    def command(self, *more):
        return [self.program] + self.args + list(more)


def all_engines(ringdown, qemu):
    """In the order of the report's columns; "native" and "tcg" are what the others are compared with."""
    qemu = qemu or "qemu-system-x86_64"
    return [
        Engine("native", "the host's CPU", "native"),
        Engine("window", "ringdown, kernel window, user code translated", program=ringdown, args=["-accel", "bt,window=on,user=translated"]),
        Engine("soft", "ringdown, soft path only", program=ringdown, args=["-accel", "bt,window=off,user=translated"]),
        Engine("direct", "ringdown, user code runs directly", program=ringdown,
               args=["-accel", "bt,window=on,user=direct"]),
        Engine("auto", "ringdown, picks how user code runs", program=ringdown, args=["-accel", "bt,window=on,user=auto"]),
        Engine("trap", "ringdown, trap and emulate", program=ringdown, args=["-accel", "trap,user=translated"]),
        Engine("tcg", "QEMU TCG", program=qemu, args=["-accel", "tcg", "-cpu", "max"]),
        Engine("uml", "User-mode Linux", "uml", program="linux.uml"),
        Engine("bochs", "Bochs", "bochs", program="bochs"),
    ]


DEFAULT = ("native", "window", "soft", "direct", "auto", "trap", "tcg", "uml", "bochs")
QUICK = ("native", "window", "auto", "tcg")


def wrong_mode(engine, counters, user_code):
    """What ringdown's counters say against what the engine claims to be; None if they agree. user_code: the guest had some."""
    if not counters:
        return None
    window, direct, traps = counters["window_maps"], counters["uw_runs"], counters.get("traps", 0)
    if engine.name == "soft" and window:
        return "the soft path made window mappings"
    if engine.name in ("window", "direct", "auto", "trap") and not window:
        return "the window was never used"
    if engine.name == "trap" and (traps < 100 or not counters.get("trap_pt_traced", 0)):
        return "hardly anything trapped"
    if engine.name == "trap" and traps > sum(counters.get("callouts_by_kind", {}).values()):
        return "more traps than instructions that were carried out"
    if engine.name != "trap" and traps:
        return "instructions trapped"
    if engine.name in ("window", "soft") and direct:
        return "user code ran directly"
    if engine.name == "direct" and user_code and not direct:
        return "no user code ran directly"
    if engine.name == "direct" and counters.get("uw_promoted"):
        return "user code began translated"
    if engine.name == "auto" and direct and not counters.get("uw_promoted"):
        return "user code ran directly from the start"
    if engine.name != "native" and not counters.get("tc_entries"):
        return "nothing was translated"
    return None


def fetched_uml(root):
    """User-mode Linux from its Debian package, unpacked into the cache; None if it cannot be had."""
    p = subprocess.run([os.path.join(root, "tests/boot/fetch"), "uml"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return os.path.join(p.stdout.split(" ", 1)[1].strip(), "root/usr/bin/linux.uml") if p.returncode == 0 else None


def probe(engine, guest, root):
    """Sets engine.missing if it cannot run here; guest is a bare guest that ends at once."""
    if engine.kind == "native":
        return
    if engine.kind == "uml" and not shutil.which(engine.program):
        engine.program = fetched_uml(root) or engine.program
    if engine.kind == "bochs":
        engine.missing = bochs.missing(engine.program)
        return
    if not engine.program or not shutil.which(engine.program):
        engine.missing = "%s is not there%s" % (engine.program or engine.name, ", nor could its Debian package be fetched" if engine.kind == "uml" else "")
        return
    if engine.kind != "vmm":
        return
    try:
        p = subprocess.run(engine.command(*bare_guest_options(guest, "only=none")), stdin=subprocess.DEVNULL,
                           capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        engine.missing = "does not end a guest that ends at once"
        return
    if p.returncode != 1 or b"DONE" not in p.stdout:
        last = p.stderr.decode(errors="replace").strip().splitlines()
        engine.missing = last[-1] if last else "exit status %d" % p.returncode


def bare_guest_options(guest, words):
    return ["-m", "128", "-kernel", guest, "-append", words, "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
            "-serial", "stdio", "-display", "none", "-monitor", "none", "-no-reboot"]


def version(engine):
    """One line that says what ran."""
    if engine.kind == "native" or engine.missing:
        return ""
    if engine.kind == "bochs":
        return bochs.version(engine.program)
    p = subprocess.run([engine.program, "-version" if engine.kind == "vmm" else "--version"], capture_output=True, text=True,
                       check=False)
    return (p.stdout.splitlines() or [""])[0]
