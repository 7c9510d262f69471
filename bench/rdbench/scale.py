"""Curves: how a cost grows with the size of something. Their workloads are named CURVE@POINT; points double.

A cost that more than doubles from one point to the next wants an explanation: EXPLAINED has those that are known, the report
marks the others.
"""
import html
import math

from . import summary

# curve: (title, what a point is, unit of the cost)
CURVES = {
    "ring": ("Processes that pass a token round through pipes", "processes", "us a hop"),
    "set": ("User code reads at random", "KiB", "us a read"),
    "kset": ("The kernel reads 64 bytes of a file on tmpfs at random", "KiB", "us a call"),
    "code": ("Code that is run from one end to the other, blocks of five instructions", "KiB", "us a block"),
    "maps": ("Scattered single pages of a process, read at random", "pages", "us a read"),
    "ram-boot": ("Boot to /init", "MiB of guest RAM", "ms of CPU time"),
    "ram-fork": ("fork and wait", "MiB of guest RAM", "us"),
}
STEP = 2.0
# (curve, engine, or None for all, lower point, or None for all): text
EXPLAINED = {
    ("set", None, 32): "the first-level data cache ends at 32 or 48 KiB",
    ("set", None, 1024): "the second-level cache ends at 1 or 2 MiB; translated code has the soft TLB's misses as well",
    ("set", None, 2048): "the second-level cache ends at 1 or 2 MiB; translated code has the soft TLB's misses as well",
}


def collect(data):
    """{curve: {engine: {point: Figure}}}"""
    out = {}
    for workload, figures in data.get("scale", {}).items():
        curve, _, point = workload.partition("@")
        for engine, f in summary.measured(figures).items():
            out.setdefault(curve, {}).setdefault(engine, {})[int(point)] = f
    return out


def explanation(curve, engine, point):
    for key in ((curve, engine, point), (curve, engine, None), (curve, None, point), (curve, None, None)):
        if key in EXPLAINED:
            return EXPLAINED[key]
    return None


def steps(curves):
    """(curve, engine, from point, to point, factor, explanation or None) where a cost more than doubles."""
    found = []
    for curve, engines in curves.items():
        for engine, points in engines.items():
            xs = sorted(points)
            for a, b in zip(xs, xs[1:]):
                low, high = points[a].median, points[b].median
                if low > 0 and high / low > STEP:
                    found.append((curve, engine, a, b, high / low, explanation(curve, engine, a)))
    return found


def table(curve, engines, order):
    names = [e for e in order if e in engines]
    points = sorted({p for e in names for p in engines[e]})
    number = lambda f: "-" if f is None else "%.3g" % f.median
    return ["%s, %s" % CURVES[curve][1:]] + names, [[str(p)] + [number(engines[e].get(p)) for e in names] for p in points]


def step_table(curves):
    header = ["curve", "engine", "from", "to", "factor", "why"]
    return header, [[c, e, str(a), str(b), "%.1f" % f, why or "NOT EXPLAINED"] for c, e, a, b, f, why in steps(curves)]


def tables(curves, order):
    for curve, engines in curves.items():
        yield ("Scaling: " + CURVES[curve][0], *table(curve, engines, order))
    header, rows = step_table(curves)
    if rows:
        yield "Scaling: where a cost more than doubles between neighbours", header, rows


def chart(curve, engines, order, colours):
    """Cost over point, both logarithmic, a line for each engine."""
    names = [e for e in order if e in engines]
    xs = sorted({p for e in names for p in engines[e]})
    ys = [f.median for e in names for f in engines[e].values() if f.median > 0]
    if len(xs) < 2 or not ys:
        return ""
    left, top, width, height = 60, 24, 600, 220
    low, high = math.floor(math.log10(min(ys)) - 0.01), math.ceil(math.log10(max(ys)) + 0.01)
    x = lambda p: left + (math.log2(p) - math.log2(xs[0])) / (math.log2(xs[-1]) - math.log2(xs[0])) * width
    y = lambda v: top + height - (math.log10(v) - low) / (high - low) * height
    parts = []
    for k in range(low, high + 1):
        parts.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>'
                     % (left, y(10.0 ** k), left + width, y(10.0 ** k), left - 5, y(10.0 ** k) + 4, 10.0 ** k))
    for i, p in enumerate(xs):
        if len(xs) <= 9 or i % 2 == 0:
            parts.append('<text x="%.1f" y="%d" text-anchor="middle">%d</text>' % (x(p), top + height + 14, p))
    parts.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left + width, top + height + 28, html.escape(CURVES[curve][1])))
    for i, e in enumerate(names):
        colour = colours.get(e, "#888")
        points = sorted((p, f.median) for p, f in engines[e].items() if f.median > 0)
        parts.append('<rect x="%d" y="4" width="10" height="10" fill="%s"/><text x="%d" y="13">%s</text>'
                     % (left + i * 80, colour, left + i * 80 + 14, html.escape(e)))
        parts.append('<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>'
                     % (colour, " ".join("%.1f,%.1f" % (x(p), y(v)) for p, v in points)))
        parts += ['<circle cx="%.1f" cy="%.1f" r="2.2" fill="%s"><title>%s, %d: %.3g</title></circle>'
                  % (x(p), y(v), colour, html.escape(e), p, v) for p, v in points]
    return ('<svg viewBox="0 0 %d %d" width="100%%" role="img" aria-label="%s">%s</svg>'
            % (left + width + 20, top + height + 34, html.escape(CURVES[curve][0]), "".join(parts)))


def as_html(curves, order, colours, describe, html_table):
    if not curves:
        return ""
    out = ["<h2>Scaling</h2><p>Cost against size, both logarithmic. ", html.escape(describe), "</p>"]
    for curve, engines in curves.items():
        out += ["<h3>%s (%s)</h3>" % (html.escape(CURVES[curve][0]), html.escape(CURVES[curve][2])), chart(curve, engines, order, colours),
                html_table(*table(curve, engines, order))]
    header, rows = step_table(curves)
    out.append("<h3>Where a cost more than doubles between neighbouring points</h3>")
    out.append(html_table(header, rows) if rows else "<p>Nowhere.</p>")
    return "".join(out)
