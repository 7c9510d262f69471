"""One process under measurement: its lines, each with the wall-clock time and the CPU time used so far."""
import os
import selectors
import signal
import subprocess
import time


class Line:
    def __init__(self, text, wall_ns, cpu_ns):
        self.text, self.wall_ns, self.cpu_ns = text, wall_ns, cpu_ns


def cpu_ns(pid):
    """CPU time of all threads of a process, in nanoseconds (the scheduler's own count), None if it has gone."""
    total = 0
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, thread), encoding="ascii") as f:
                total += int(f.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total


class Result:
    def __init__(self, lines, status, wall_ns, usage, stderr, timed_out):
        self.lines, self.status, self.wall_ns, self.stderr, self.timed_out = lines, status, wall_ns, stderr, timed_out
        self.user_s, self.sys_s = usage.ru_utime, usage.ru_stime


def run(command, timeout, pin=False):
    """Runs command to its end; stdout is read line by line. pin: on one CPU, as a machine with one virtual CPU is."""
    start = time.monotonic_ns()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         start_new_session=True)
    if pin:
        os.sched_setaffinity(p.pid, {max(os.sched_getaffinity(0))})
    lines, part, err, timed_out = [], b"", b"", False
    sel = selectors.DefaultSelector()
    sel.register(p.stdout, selectors.EVENT_READ)
    sel.register(p.stderr, selectors.EVENT_READ)
    deadline = start + int(timeout * 1e9)
    open_pipes = 2
    try:
        while open_pipes:
            left = (deadline - time.monotonic_ns()) / 1e9
            events = sel.select(max(left, 0))
            if not events and left <= 0:
                timed_out = True
                break
            for key, _ in events:
                data = os.read(key.fd, 65536)
                now, used = time.monotonic_ns() - start, cpu_ns(p.pid)
                if not data:
                    sel.unregister(key.fileobj)
                    open_pipes -= 1
                elif key.fileobj is p.stderr:
                    err = (err + data)[-4000:]
                else:
                    *whole, part = (part + data).split(b"\n")
                    for text in whole:
                        lines.append(Line(text.decode(errors="replace").rstrip("\r"), now, used))
    except BaseException:  # interrupted: nothing may be left running
        end_group(p)
        p.wait()
        raise
    if timed_out:
        end_group(p)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    p.stdout.close()
    p.stderr.close()
    return Result(lines, p.returncode, time.monotonic_ns() - start, usage, err.decode(errors="replace"), timed_out)


def end_group(p):
    """The process was started as the leader of its own group: nobody else is in it."""
    try:
        os.killpg(p.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
