#!/usr/bin/env python3
"""tests/user/watch.py - runs an engine and looks at its processes from outside, while and after it runs.

usage: watch.py PROGRAM ARGUMENT...          exit status: the program's, or 3 with one line for each thing that is wrong

A user world (docs/USERWORLDS.md) may have two threads, the two descriptors that it is given, mappings of guest memory and of its
stub and nothing else, no capabilities, and a seccomp filter on each thread. When the program has ended, so have they all. Nothing
that a guest tries to create may appear on this host (CANARY). Without the right to look into /proc/PID that part is left out.
"""
import os
import subprocess
import sys
import time

CANARY = "/tmp/rd-hostile-canary"
WORLDS = 256  # uworld_pool.c: DEFAULT_WORLDS; the zygote comes on top
HELPERS = 8   # ringdown's own helper processes, generously
INTERVAL_S = 0.05


def read(path):
    try:
        with open(path, encoding="latin-1") as f:
            return f.read()
    except OSError:
        return None


def children(pid):
    """All processes below pid."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        for task in listing(f"/proc/{parent}/task"):
            for child in (read(f"/proc/{parent}/task/{task}/children") or "").split():
                found.append(int(child))
                todo.append(int(child))
    return found


def listing(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def fields(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def start_time(pid):
    stat = read(f"/proc/{pid}/stat")
    return stat.rsplit(")", 1)[1].split()[19] if stat else None


class Watch:
    def __init__(self, pid):
        self.pid = pid
        self.wrong = {}
        self.seen = {}   # pid -> start time
        self.worlds = 0  # looked at
        self.most = 0

    def note(self, what, detail):
        self.wrong.setdefault(what, detail)

    def look(self):
        below = children(self.pid)
        self.most = max(self.most, len(below))
        if len(below) > WORLDS + HELPERS:
            self.note("too many processes", str(len(below)))
        for pid in below:
            if pid not in self.seen:
                self.seen[pid] = start_time(pid)
            self.look_at(pid)

    def look_at(self, pid):
        maps = read(f"/proc/{pid}/maps")
        if not maps or not any("memfd:user-worlds" in line for line in maps.splitlines()):
            return  # starting, ended, not ours to see, or another helper
        lines = [line.split(None, 5) for line in maps.splitlines()]
        if any(len(f) > 5 and f[5].startswith(("/", "[heap", "[stack", "[vdso")) and not f[5].startswith("/memfd:")
               for f in lines):
            return  # not stripped yet: the zygote at its start
        tasks = listing(f"/proc/{pid}/task")
        states = [fields(read(f"/proc/{pid}/task/{task}/status") or "") for task in tasks]
        if len(states) != 2 or not all("Seccomp" in s for s in states):
            if len(states) > 2:
                self.note("threads", f"world {pid} has {len(states)}")
            return  # the zygote, or a world that starts or ends
        if any(s["Seccomp"].strip() != "2" for s in states):
            return  # still starting: the filters come last, before guest code
        self.worlds += 1
        for s in states:
            if int(s.get("CapEff", "0"), 16) or int(s.get("CapPrm", "0"), 16):
                self.note("capabilities", f"world {pid} has {s['CapEff']}")
            if s.get("NoNewPrivs", "1").strip() != "1":
                self.note("privileges", f"world {pid} can gain some")
        fds = listing(f"/proc/{pid}/fd")
        if len(fds) > 2:
            self.note("descriptors", f"world {pid} has {sorted(fds)}")
        for fd in fds:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if not target.startswith("/memfd:"):
                self.note("descriptors", f"world {pid} has {target}")
        anonymous = 0
        for f in lines:
            name = f[5].strip() if len(f) > 5 else ""
            if name == "":
                low, high = (int(x, 16) for x in f[0].split("-"))
                anonymous += high - low
                if "w" in f[1]:
                    self.note("mappings", f"world {pid} has {' '.join(f)}")
            elif not name.startswith("/memfd:") and name not in ("[vsyscall]", "[uprobes]"):
                self.note("mappings", f"world {pid} has {' '.join(f)}")
        if anonymous > 0x2000:
            self.note("mappings", f"world {pid} has {anonymous} anonymous bytes")

    def finish(self):
        end = time.monotonic() + 5
        left = list(self.seen)
        while left and time.monotonic() < end:
            left = [p for p in left if start_time(p) == self.seen[p] and self.seen[p] is not None
                    and (read(f"/proc/{p}/stat") or ") Z").rsplit(")", 1)[1].split()[0] != "Z"]
            time.sleep(0.05)
        if left:
            self.note("processes left over", str(left))
        if os.path.lexists(CANARY):
            self.note("the guest reached the host's files", CANARY)


def main():
    if os.path.lexists(CANARY):
        print(f"watch: {CANARY} was there before", file=sys.stderr)
        return 3
    program = subprocess.Popen(sys.argv[1:])
    watch = Watch(program.pid)
    try:
        while program.poll() is None:
            watch.look()
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        program.kill()
        program.wait()
    finally:
        if program.poll() is None:
            program.terminate()
            program.wait()
    watch.finish()
    for what, detail in watch.wrong.items():
        print(f"watch: {what}: {detail}", file=sys.stderr)
    print(f"watch: {watch.worlds} looks at user worlds, at most {watch.most} processes at once", file=sys.stderr)
    if os.environ.get("RD_WATCH_WORLDS") and not watch.worlds and os.geteuid() == 0:
        print("watch: there were no worlds to look at", file=sys.stderr)
        return 3
    return 3 if watch.wrong else program.returncode


if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    sys.exit(main())
