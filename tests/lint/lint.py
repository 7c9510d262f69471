#!/usr/bin/env python3
"""House rules that a program can check. usage: lint.py RULE SOURCE_ROOT [BUILD_ROOT NOFPU_LIST]

format    every tracked .c and .h is as clang-format writes it
includes  #include goes one way (EDGES), *_int.h stays at home, no header reaches itself
headers   each header compiles alone
nofpu     objects built for code that runs with the guest's FPU state live touch no FPU register and call no C library
tidy      no paths or hosts of a particular machine, no leftover marks
"""
import os
import re
import subprocess
import sys

# Which folders a folder may include from, besides itself. Siblings on one level never meet; the monitor wires them up.
EDGES = {
    "base": set(),
    "arch": {"base"},
    "translator": {"base", "arch"},
    "codecache": {"base", "arch"},
    "shadowmmu": {"base", "arch"},
    "devices": {"base", "arch"},
    "monitor": {"base", "arch", "translator", "codecache", "shadowmmu", "devices"},
}
# Single headers that are visible beyond what EDGES says: an embedding API, and tables whose layout generated code knows.
OPEN = {("devices", "monitor/engine.h"), ("translator", "codecache/jumpcache.h"), ("translator", "codecache/ccf.h")}

# What nofpu code may take from outside our own libraries.
NOFPU_LIBC = {"abort", "_GLOBAL_OFFSET_TABLE_"}
# Needs no check: x87, MMX, SSE, AVX registers and the mnemonics that use them without naming one.
FPU_CODE = re.compile(r"%(?:[xyz]mm\d|mm\d|st\b|k[0-7]\b)|\t(?:f[a-z0-9]+|emms|ldmxcsr|stmxcsr|v[a-z]+|x(?:save|rstor)\w*)\b")
# Not meant, or only looking: the guest's status words and mask registers may be read while they are live.
FPU_CODE_NOT = re.compile(r"\tver[rw]\b|\tvm\w+|\tfn?st[sc]w\b|\tkmov[wqdb] +%k\d,%[re]\w+")

MACHINE_PATH = re.compile(r"(?<![\w.$}])(?<![\w}][\"'])/(?:work|root|home/\w+|tmp/(?:build|plan)\b)[/-]")
URL_HOST = re.compile(r"\bhttps?://([^/\s:'\"<>)\]]+)")
# Hosts that stand in licences and references; a package mirror is the affair of the machine's own apt configuration.
PUBLIC_HOSTS = {"www.gnu.org", "www.kernel.org", "docs.kernel.org", "www.intel.com", "www.amd.com", "wiki.osdev.org",
                "www.qemu.org", "www.w3.org", "github.com", "opensource.org"}
MARKS = re.compile(r"\b(?:NO" + r"CHECKIN|FIX" + r"ME|XX" + r"X)\b|\bTO" + r"DO\b(?!\(#\d+\))")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def tracked(root):
    """Files under version control (or, in an unpacked archive, all that look like sources)."""
    git = subprocess.run(["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z"], capture_output=True, text=True)
    if git.returncode == 0 and git.stdout:
        names = git.stdout.split("\0")
    else:
        names = []
        for folder, dirs, files in os.walk(root):
            dirs[:] = [d for d in dirs if d not in (".git", "build")]
            names += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    return sorted(n for n in names if n and os.path.isfile(os.path.join(root, n)))


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def c_files(root, ends=(".c", ".h")):
    return [n for n in tracked(root) if n.endswith(ends)]


def check_format(root):
    names = c_files(root)
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=root, capture_output=True, text=True)
    bad = sorted({line.split(":")[0] for line in run.stderr.splitlines() if " error: " in line})
    if run.returncode and not bad:
        return ["clang-format: " + run.stderr.strip()]
    return [f"{name}: not as clang-format writes it (clang-format -i {name})" for name in bad]


def home(name):
    """The module whose private headers a file may see: its folder, or for a unit test the folder it tests."""
    parts = name.split("/")
    return parts[2] if parts[:2] == ["tests", "unit"] and len(parts) > 3 else parts[0]


def is_house(name):
    """Part of the program or its unit tests, as opposed to guests and tools, which are programs of their own."""
    return name.split("/")[0] in EDGES or name.startswith("tests/unit/")


def check_includes(root):
    problems, graph = [], {}
    names = c_files(root, (".c", ".h", ".S", ".def"))
    known = set(tracked(root))
    for name in names:
        for target in INCLUDE.findall(read(root, name)):
            if target not in known:
                if is_house(name) and not os.path.exists(os.path.join(root, target)):
                    problems.append(f'{name}: "{target}" is not a path from the root')
                continue
            graph.setdefault(name, set()).add(target)
            problems += edge_problems(name, target)
    problems += [f"{' -> '.join(c)}: a header includes itself" for c in cycles(graph)]
    return problems


def edge_problems(name, target):
    own, other = home(name), target.split("/")[0]
    problems = []
    if target.endswith("_int.h") and own != other:
        problems.append(f"{name}: {target} is private to {other}/")
    if own in EDGES and other in EDGES and own != other and other not in EDGES[own] and (own, target) not in OPEN:
        problems.append(f"{name}: {own}/ must not include {target}")
    if name.split("/")[0] in EDGES and other in ("tests", "bench"):
        problems.append(f"{name}: product code includes {target}")
    return problems


def cycles(graph):
    """One witness for each place where a walk comes back to a file it is inside of. Lists (.def) may be read again."""
    found, state = [], {}

    def walk(node, path):
        state[node] = "open"
        for nxt in sorted(graph.get(node, ())):
            if nxt.endswith(".def"):
                continue
            if state.get(nxt) == "open":
                found.append(path[path.index(nxt):] + [nxt] if nxt in path else [node, nxt])
            elif nxt not in state:
                walk(nxt, path + [nxt])
        state[node] = "done"

    for start in sorted(graph):
        if start not in state:
            walk(start, [start])
    return found


def check_headers(root):
    problems = []
    for name in filter(is_house, c_files(root, (".h",))):
        gcc = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wundef", "-Wno-unused-parameter",
               "-Wno-unused-function", "-I", ".", "-fsyntax-only", "-x", "c", "-"]
        run = subprocess.run(gcc, cwd=root, input=f'#include "{name}"\n', capture_output=True, text=True)
        if run.returncode:
            first = next((l for l in run.stderr.splitlines() if "error" in l), run.stderr.strip())
            problems.append(f"{name}: does not compile alone: {first}")
    return problems


def symbols(args):
    out = subprocess.run(["nm", *args], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line and not line.endswith(":")}


def check_nofpu(root, build, list_file):
    objects = [o for o in read("/", list_file).split("\n") if o]
    missing = [o for o in objects if not os.path.exists(o)]
    if missing:
        return [f"{o}: not built" for o in missing]
    ours = set()
    for folder, _, files in os.walk(build):
        for f in files:
            if re.fullmatch(r"librd_\w+\.a", f):
                ours |= symbols(["--defined-only", os.path.join(folder, f)])
    problems = []
    for o in objects:
        problems += nofpu_problems(o, ours)
    return problems


def nofpu_problems(obj, ours):
    short = os.path.basename(obj)
    problems = [f"{short}: needs {s}() of the C library while the guest's FPU state is live"
                for s in sorted(symbols(["-u", obj]) - ours - NOFPU_LIBC)]
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", obj], capture_output=True, text=True, check=True).stdout
    where = "?"
    for line in code.splitlines():
        if line.endswith(">:"):
            where = line.split("<")[1][:-2]
        elif FPU_CODE.search(line) and not FPU_CODE_NOT.search(line):
            problems.append(f"{short}: {where}: {' '.join(line.split())}")
    return problems


def check_tidy(root):
    problems = []
    for name in tracked(root):
        if name == "LICENSE":
            continue
        for number, line in enumerate(read(root, name).split("\n"), 1):
            problems += [f"{name}:{number}: {what}" for what in tidy_problems(line)]
    return problems


def tidy_problems(line):
    problems = []
    if MACHINE_PATH.search(line):
        problems.append("a path of one particular machine: " + MACHINE_PATH.search(line).group())
    for host in URL_HOST.findall(line):
        if host not in PUBLIC_HOSTS and not host.startswith(("127.", "localhost", "10.0.2.")):
            problems.append(f"a host that is not on the list of public references: {host}")
    if MARKS.search(line):
        problems.append("a mark that must not stay (a gap names its issue: (#12) after the word)")
    return problems


RULES = {"format": check_format, "includes": check_includes, "headers": check_headers, "nofpu": check_nofpu,
         "tidy": check_tidy}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in RULES:
        sys.exit(__doc__)
    found = RULES[sys.argv[1]](*sys.argv[2:])
    for problem in found:
        print(problem)
    sys.exit(1 if found else 0)
