"""Curves: how a cost grows with the size of something. Their workloads are named CURVE@POINT; points double.

A cost that more than doubles from one point to the next wants an explanation: EXPLAINED has those that are known, the report
marks the others.
"""
import html
import math
import statistics

from . import leftout, summary

# curve: (title, what a point is, unit of the cost)
CURVES = {
    "ring": ("Processes that pass a token round through pipes", "processes", "us a hop"),
    "set": ("User code reads at random", "KiB", "us a read"),
    "kset": ("The kernel reads 64 bytes of a file on tmpfs at random", "KiB", "us a call"),
    "code": ("Code that is run from one end to the other, blocks of five instructions", "KiB", "us a block"),
    "maps": ("Scattered single pages of a process, read at random", "pages", "us a read"),
    "kmaps": ("Scattered single pages of a bare kernel, each read once in a pass", "pages", "us a read"),
    "ram-boot": ("Boot to /init", "MiB of guest RAM", "ms of CPU time"),
    "ram-fork": ("fork and wait", "MiB of guest RAM", "us"),
}
STEP = 2.0
PEERS = ("tcg", "uml", "bochs")
TRANSLATED = ("window", "soft", "trap", "auto")  # of user code
CPU = ("native", "direct", "auto", "uml")
# (curve, engines, lowest and highest point at which the step may begin, text). What the caches of the machine and native
# runs explain comes before these; see explanation().
EXPLAINED = [
    ("ring", ("native",), 2, 2, "the host's scheduler: one switch a hop between two processes, 1.4 among four or more (perf stat), as who is woken preempts a "
     "writer that has yet to get to its own read"),
    ("set", CPU, 2048, 32768, "the TLB: 1,536 or 2,048 pages of 4 KiB are 6 to 8 MiB, a miss walks tables, in a cloud VM those of two levels"),
    ("set", TRANSLATED, 1024, 131072, "the soft TLB's own entries, 24 bytes for each page, no longer fit the first-level cache, then the second-level one"),
    ("set", ("tcg",), 64, 131072, "QEMU: its soft TLB starts with 256 entries and grows by use"),
    ("code", ("native", "direct"), 128, 1024, "the CPU's predictor of jump targets: 8,192 to 12,288 jumps"),
    ("code", TRANSLATED, 64, 128, "probably the CPU's predictor and first-level cache: a block's look-up in the jump cache touches two more lines and jumps"),
    ("code", TRANSLATED, 256, 512, "the CPU's predictor of jump targets, as natively, but with twice as many jumps, as each block's look-up has its own: our "
     "exits are as many as before"),
    ("code", TRANSLATED, 1024, 4096, "the jump cache: blocks 1 MiB apart share one of its 262,144 slots (address bits 2 to 19), and one that is not in "
     "it is looked up by the run loop, 0.15 us; auto: until the process runs directly"),
    ("code", TRANSLATED, 2048, 16384, "blocks and their administration, some 300 bytes for 64 of guest code, outgrow the caches, then the 128 MiB of the "
     "translation cache"),
    ("code", ("tcg",), 8, 1024, "QEMU: its jump cache has 4,096 entries, and jumps to another page are not chained"),
    ("kmaps", ("window", "direct", "auto", "trap"), 16384, 65536, "the window: beyond 40,000 mappings the sites that want more become soft ones, whose TLB holds "
     "16,384 pages"),
    ("kmaps", ("soft",), 8192, 65536, "the soft TLB: 16,384 pages, then it is emptied"),
    ("kmaps", ("window", "soft", "direct", "auto", "trap"), 1024, 8192, "the CPU's TLB and second-level cache, which the guest's and the host's pages share"),
    ("maps", ("direct", "auto"), 32768, 65536, "the host's limit of mappings (vm.max_map_count, 65,530): a process with more is translated from the third time that its "
     "world was emptied"),
    ("maps", ("native", "direct", "uml"), 1024, 32768, "the TLB: 1,536 or 2,048 pages, then the caches of upper levels; each page costs a cache line for its data and one for its entry"),
    ("maps", ("auto",), 8192, 65536, "tiering: its pages enter the process's world one by one, some 6 us each, and a promotion may invest 2 to 8 ms in that: it is "
     "promoted and demoted in turn, dozens of times in a run of this curve"),
    ("maps", ("tcg",), 1024, 131072, "QEMU: its soft TLB starts with 256 entries and grows by use"),
    ("maps", TRANSLATED, 1024, 4096, "the soft TLB's entries, a cache line of the host's for each page, outgrow its caches together with the pages"),
    ("maps", TRANSLATED, 8192, 131072, "the soft TLB: 65,536 slots by address bits 12 to 27, 256 MiB; every other page is used"),
    ("maps", ("trap",), 1024, 131072, "shadow pages: what is not in the window's mappings is put there by a host system call"),
]


def collect(data):
    """{curve: {engine: {point: Figure}}}"""
    out = {}
    for workload, figures in data.get("scale", {}).items():
        curve, _, point = workload.partition("@")
        for engine, f in summary.measured(figures).items():
            out.setdefault(curve, {}).setdefault(engine, {})[int(point)] = f
    return out


def cache_between(curve, a, b, caches):
    """The cache that is outgrown from a to b KiB. caches: {name: KiB}."""
    if curve not in ("set", "kset", "code"):
        return None
    found = [(n, kib) for n, kib in (caches or {}).items() if a <= kib <= b]
    return "the CPU's cache: %s ends at %d KiB" % found[0] if found else None


def explanation(curve, engine, a, b, factor=0, native=0, caches=None):
    """native: the factor of the same step natively. If the engine's is not much more, it is the CPU's."""
    if engine != "native" and native > STEP / 1.5 and factor / native <= 1.5:
        return "so does the CPU: natively x %.1f" % native
    cache = cache_between(curve, a, b, caches)
    if cache and (engine in ("native", "direct") or factor <= 1.5 * native):
        return cache
    for c, names, low, high, text in EXPLAINED:
        if c == curve and engine in names and low <= a <= high:
            return text
    return leftout.UNKNOWN + ": not one of ours" if engine in PEERS else None


def factors_of(points, a, b):
    """From point a to point b, in each round that has both."""
    if a not in points or b not in points:
        return []
    low, high = points[a].rounds, points[b].rounds
    return [high[r] / low[r] for r in low if r in high and low[r] > 0]


def steps(curves, caches=None):
    """(curve, engine, from point, to point, factor, explanation or None) where a cost more than doubles."""
    found = []
    for curve, engines in curves.items():
        for engine, points in engines.items():
            xs = sorted(points)
            for a, b in zip(xs, xs[1:]):
                factors = factors_of(points, a, b)
                if not factors or statistics.median(factors) <= STEP:
                    continue
                factor, native = statistics.median(factors), statistics.median(factors_of(engines.get("native", {}), a, b) or [0])
                why = explanation(curve, engine, a, b, factor, native, caches)
                there = sum(f > STEP for f in factors)
                if not why and there < len(factors):
                    why = "not steady: in %d of %d rounds only" % (there, len(factors))
                found.append((curve, engine, a, b, factor, why))
    return found


def three_digits(x):
    return "%.*f" % (max(0, 2 - int(math.floor(math.log10(x)))), x) if x > 0 else "0"


def table(curve, engines, order):
    names = [e for e in order if e in engines]
    points = sorted({p for e in names for p in engines[e]})
    number = lambda f: "-" if f is None else three_digits(f.median)
    return ["%s, %s" % CURVES[curve][1:]] + names, [[str(p)] + [number(engines[e].get(p)) for e in names] for p in points]


def step_table(curves, caches=None):
    header = ["curve", "engine", "from", "to", "factor", "why"]
    return header, [[c, e, str(a), str(b), "%.1f" % f, why or leftout.UNKNOWN] for c, e, a, b, f, why in steps(curves, caches)]


def tables(curves, order, caches=None):
    for curve, engines in curves.items():
        yield ("Scaling: " + CURVES[curve][0], *table(curve, engines, order))
    header, rows = step_table(curves, caches)
    if rows:
        yield "Scaling: where a cost more than doubles between neighbours", header, rows


def ticks(low, high):
    """(value, whether it has a number) for an axis of decades: also 2 and 5 where there are few."""
    minor = (1, 2, 5) if high - low <= 2 else (1,)
    return [m * 10.0 ** k for k in range(low, high + 1) for m in minor if k < high or m == 1]


def short(n):
    return "%dM" % (n >> 20) if n >= 1 << 20 else "%dK" % (n >> 10) if n >= 1 << 13 else str(n)


DASHES = ("", "7 2", "2 2", "9 2 2 2", "", "4 3", "1 3", "6 2 1 2", "3 1")  # in print, colours alone do not tell


def dash(engine, order):
    return DASHES[order.index(engine) % len(DASHES)]


def legend(names, order, colours, left, per_line, pitch):
    """Pieces of line with names; returns the parts and the height they take."""
    parts = []
    for i, e in enumerate(names):
        x, y = left + i % per_line * pitch, 4 + i // per_line * 15
        parts.append('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3" stroke-dasharray="%s"/><text x="%d" y="%d">%s</text>'
                     % (x, y + 5, x + 22, y + 5, colours.get(e, "#888"), dash(e, order), x + 27, y + 9, html.escape(e)))
    return parts, 15 * -(-len(names) // per_line)


def chart(curve, engines, order, colours):
    """Cost over point, both logarithmic, a line for each engine."""
    names = [e for e in order if e in engines]
    xs = sorted({p for e in names for p in engines[e]})
    ys = [f.median for e in names for f in engines[e].values() if f.median > 0]
    if len(xs) < 2 or not ys:
        return ""
    left, width, height = 60, 600, 220
    parts, below = legend(names, order, colours, left, 7, 85)
    top = below + 14
    low, high = math.floor(math.log10(min(ys)) + 0.001), math.ceil(math.log10(max(ys)) - 0.001)
    high = max(high, low + 1)
    x = lambda p: left + (math.log2(p) - math.log2(xs[0])) / (math.log2(xs[-1]) - math.log2(xs[0])) * width
    y = lambda v: top + height - (math.log10(v) - low) / (high - low) * height
    for v in ticks(low, high):
        parts.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>'
                     % (left, y(v), left + width, y(v), left - 5, y(v) + 4, v))
    for p in xs:
        parts.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#888"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>'
                     % (x(p), top + height, x(p), top + height + 4, x(p), top + height + 16, short(p)))
    parts.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left + width, top + height + 31, html.escape(CURVES[curve][1])))
    for e in names:
        colour = colours.get(e, "#888")
        points = sorted((p, f.median) for p, f in engines[e].items() if f.median > 0)
        parts.append('<polyline fill="none" stroke="%s" stroke-width="1.5" stroke-dasharray="%s" points="%s"/>'
                     % (colour, dash(e, order), " ".join("%.1f,%.1f" % (x(p), y(v)) for p, v in points)))
        parts += ['<circle cx="%.1f" cy="%.1f" r="2.2" fill="%s"><title>%s, %d: %.3g</title></circle>'
                  % (x(p), y(v), colour, html.escape(e), p, v) for p, v in points]
    return ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg>'
            % (left + width + 20, top + height + 38, html.escape(CURVES[curve][0]), "".join(parts)))


def as_html(curves, order, colours, describe, html_table, caches=None):
    if not curves:
        return ""
    out = ["<h2>Scaling</h2><p>Cost against size, both logarithmic. ", html.escape(describe), "</p>"]
    for curve, engines in curves.items():
        out += ["<h3>%s (%s)</h3>" % (html.escape(CURVES[curve][0]), html.escape(CURVES[curve][2])), chart(curve, engines, order, colours),
                html_table(*table(curve, engines, order))]
    header, rows = step_table(curves, caches)
    out.append("<h3>Where a cost more than doubles between neighbouring points</h3>")
    out.append(html_table(header, rows, text=True) if rows else "<p>Nowhere.</p>")
    return "".join(out)
