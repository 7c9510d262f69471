"""The table on the terminal, Markdown for docs/, JSON and one HTML page."""
import html
import math

from . import account, leftout, scale, summary


def number(x):
    if x is None:
        return "-"
    if x == 0:
        return "0"
    digits = max(0, 2 - int(math.floor(math.log10(abs(x)))))
    return "%.*f" % (digits, x)


def rows_of(data, suite, engines):
    """[name, unit, per engine: (median, spread, ratio to native, ratio to tcg)]"""
    for name, figures in data.get(suite, {}).items():
        unit = next(iter(figures.values())).unit
        cells = []
        for e in engines:
            f = summary.measured(figures).get(e)
            cells.append((f.median, f.spread, summary.ratio(figures, e, "native"), summary.ratio(figures, e, "tcg"))
                         if f else None)
        yield name, unit, cells


def engines_in(data, suite, order):
    seen = {e for figures in data.get(suite, {}).values() for e in figures}
    return [e for e in order if e in seen]


def suite_table(data, suite, order):
    """Header and rows of texts: cost per engine, then the ratios."""
    engines = engines_in(data, suite, order)
    header = ["workload", "unit"] + engines
    for e in engines:
        if e not in ("native", "tcg"):
            if "native" in engines:
                header.append(e + "/native")
            if "tcg" in engines:
                header.append(e + "/tcg")
    rows = []
    for name, unit, cells in rows_of(data, suite, engines):
        row = [name, unit] + [number(c[0]) if c else "-" for c in cells]
        for e, c in zip(engines, cells):
            if e not in ("native", "tcg"):
                if "native" in engines:
                    row.append(number(c[2]) if c else "-")
                if "tcg" in engines:
                    row.append(number(c[3]) if c else "-")
        rows.append(row)
    return header, rows


def target_table(data):
    header = ["issue", "suite", "workload", "engine", "goal", "measured", "met"]
    rows = []
    for t in summary.targets():
        m = t.measured(data)
        if m is not None:
            rows.append([str(t.issue), t.suite, t.workload, t.engine, t.text(), number(m[0]), "yes" if m[1] else "NO"])
    return header, rows


def overhead_table(data, order):
    header, found = ["engine", "workload", "unit", "without", "with", "more, %"], summary.overheads(data)
    return header, [[e, w, on.unit, number(off.median), number(on.median), "%.1f" % (100 * (r - 1))]
                    for e in order for w, (off, on, r) in found.get(e, {}).items()]


def table_of(data, suite, order):
    if suite == "nano":
        return paper_table(data, order)
    return overhead_table(data, order) if suite == "account" else suite_table(data, suite, order)


def paper_table(data, order):
    engines = engines_in(data, "nano", order)
    header = ["operation"] + engines + ["2006 native", "2006 software VMM", "2006 hardware VMM"]
    rows = []
    for name, _, cells in rows_of(data, "nano", engines):
        paper = summary.PAPER.get(name, ("-",) * 3)
        rows.append([name] + [number(c[0]) if c else "-" for c in cells] + list(paper))
    return header, rows


def as_text(header, rows):
    """Columns of words stand left, of numbers right."""
    widths = [max(len(r[i]) for r in [header] + rows) for i in range(len(header))]
    words = [i == 0 or any(" " in r[i] or "," in r[i] for r in rows) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(r, widths, words)).rstrip() for r in [header] + rows)


def as_markdown(header, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(header), "|" + "---|" * len(header)] + [line(r) for r in rows])


def tables(data, titles, order, accounts, missing, caches=None):
    """(title, header, rows) of everything that was measured, and of what was not."""
    for suite in data:
        if suite == "scale":
            yield from scale.tables(scale.collect(data), order, caches)
            continue
        yield titles.get(suite, suite), *table_of(data, suite, order)
    if accounts:
        for suite, table in account.tables(accounts):
            yield "Where the time went, %s, in %% of the run" % suite, *table
        header, rows = account.callout_table(accounts)
        if rows:
            yield "Callouts", header, rows
    if missing[1]:
        yield "Not measured", *missing
    header, rows = target_table(data)
    if rows:
        yield "Goals", header, rows


def as_json(header, data, order, accounts, missing):
    out = {"run": header, "suites": {}, "goals": [], "accounts": accounts}
    for suite, workloads in data.items():
        for name, figures in workloads.items():
            out["suites"].setdefault(suite, {})[name] = {
                e: {"unit": f.unit, "median": f.median, "low": f.spread[0], "high": f.spread[1], "rounds": len(f.rounds),
                    "ratio_native": summary.ratio(figures, e, "native"), "ratio_tcg": summary.ratio(figures, e, "tcg"),
                    "note": f.note, "result": sorted(f.checks)}
                for e, f in summary.measured(figures).items()}
    out["steps"] = [dict(zip(("curve", "engine", "from", "to", "factor", "why"), s)) for s in scale.steps(scale.collect(data), header.get("caches"))]
    out["left_out"] = [dict(zip(("suite", "engine", "workloads", "why"), row)) for row in missing[1]]
    for t in summary.targets():
        m = t.measured(data)
        if m is not None:
            out["goals"].append({"issue": t.issue, "suite": t.suite, "workload": t.workload, "engine": t.engine,
                                 "goal": t.text(), "measured": m[0], "met": m[1]})
    return out


# ---- the page ----

STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px;margin:.5em 0 1.5em}td,th{border-bottom:1px solid #ccc;padding:2px 8px;text-align:right}
td:first-child,th:first-child{text-align:left;white-space:nowrap}.text td,.text th{text-align:left}.no{color:#b00;font-weight:bold}
svg{width:100%;max-width:860px;display:block}svg text{font:11px system-ui,sans-serif}h2,h3{break-after:avoid}
@media print{@page{margin:14mm}body{margin:0;max-width:none;padding:0;font-size:12px}table{font-size:9.5px}td,th{padding:1px 5px}
svg,tr{break-inside:avoid}thead{display:table-header-group}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}"""
COLOURS = {"native": "#444", "window": "#1f77b4", "soft": "#7fb2d9", "direct": "#2ca02c", "auto": "#17becf", "trap": "#d62728",
           "tcg": "#ff9d2e", "uml": "#9467bd", "bochs": "#8c564b"}


CHART_HEIGHT = 700  # of one picture: a page when printed


def ratio_rows(data, suite, base, engines):
    """(workload, [(engine, ratio)]) of those that have any."""
    for name, figures in data[suite].items():
        values = [(e, summary.ratio(figures, e, base)) for e in engines]
        values = [(e, v) for e, v in values if v]
        if values:
            yield name, values


def charts(data, suite, base, order):
    """Horizontal bars on a logarithmic scale: cost in relation to base (1 = the same). Empty if there is nothing to show."""
    engines = [e for e in engines_in(data, suite, order) if e != base]
    rows = list(ratio_rows(data, suite, base, engines))
    if not rows:
        return ""
    every = [v for _, values in rows for _, v in values] + [1.0]
    low, high = math.floor(math.log10(min(every)) - 0.01), math.ceil(math.log10(max(every)) + 0.01)
    pieces, used = [[]], 0
    for row in rows:
        height = BAR * len(row[1]) + 5
        if used + height > CHART_HEIGHT:
            pieces.append([])
            used = 0
        pieces[-1].append(row)
        used += height
    return "".join(chart(piece, base, engines, low, high) for piece in pieces)


BAR = 11


def chart(rows, base, engines, low, high):
    left, width = 130, 620
    x = lambda v: left + (math.log10(v) - low) / (high - low) * width
    bars, y = [], 24 + 15 * ((len(engines) - 1) // 7)
    for i, e in enumerate(engines):
        at, line = left + i % 7 * 90, 4 + i // 7 * 15
        bars.append('<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>'
                    % (at, line, COLOURS.get(e, "#888"), at + 14, line + 9, html.escape(e)))
    top = y
    for name, values in rows:
        bars.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 6, y + BAR * len(values) / 2 + 4, html.escape(name)))
        for e, v in values:
            a, b = sorted((x(1.0), x(v)))
            bars.append('<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s %s: %s</title></rect>'
                        '<text x="%.1f" y="%d">%s</text>'
                        % (a, y, max(b - a, 1), BAR - 2, COLOURS.get(e, "#888"), html.escape(name), e, number(v),
                           max(b, x(1.0)) + 3, y + BAR - 2, number(v)))
            y += BAR
        y += 5
    grid = ['<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#bbb"%s/><text x="%.1f" y="%d" text-anchor="middle">%s</text>'
            % (x(10.0 ** k), top - 4, x(10.0 ** k), y, "" if k == 0 else ' stroke-dasharray="2 3"', x(10.0 ** k), y + 13, "%g" % 10.0 ** k)
            for k in range(low, high + 1)]
    return ('<svg viewBox="0 0 %d %d" role="img" aria-label="cost in relation to %s">%s</svg>'
            % (left + width + 60, y + 20, base, "".join(grid + bars)))


def html_table(header, rows, text=False):
    """text: columns of words."""
    cell = lambda c: '<td class="no">%s</td>' % c if c == "NO" or c.startswith(leftout.UNKNOWN) else "<td>%s</td>" % html.escape(c)
    return ("<table%s><thead><tr>" % (' class="text"' if text else "") + "".join("<th>%s</th>" % html.escape(h) for h in header) + "</tr></thead>"
            + "".join("<tr>" + "".join(cell(c) for c in r) + "</tr>" for r in rows) + "</table>")


WIDEST = 12  # columns that fit on a page


def html_tables(header, rows):
    """Costs and ratios side by side, or below one another."""
    first = next((i for i, h in enumerate(header) if "/" in h), len(header))
    if len(header) <= WIDEST or first == len(header):
        return html_table(header, rows)
    bases = sorted({h.split("/")[1] for h in header[first:]})
    parts = [(list(range(first)))] + [[0] + [i for i in range(first, len(header)) if header[i].endswith("/" + b)] for b in bases]
    return "".join(html_table([header[i] for i in p], [[r[i] for i in p] for r in rows]) for p in parts)


def as_html(header, data, titles, order, accounts, missing):
    out = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>Ringdown benchmarks</title><style>", STYLE, "</style>",
           "<h1>Ringdown benchmarks</h1><p>", html.escape(describe(header)), "</p><p>", html.escape(" ".join(summary.__doc__.split())),
           "</p>"]
    for suite in data:
        if suite == "scale":
            out.append(scale.as_html(scale.collect(data), order, COLOURS, describe(header) + ".", html_table, header.get("caches")))
            continue
        out.append("<h2>%s</h2>" % html.escape(titles.get(suite, suite)))
        for base in ("native", "tcg"):
            svg = charts(data, suite, base, order)
            if svg:
                out.append("<h3>Cost in relation to %s (logarithmic; left of 1 is faster)</h3>%s" % (base, svg))
        out.append(html_tables(*table_of(data, suite, order)))
        if suite == "nano":
            out.append("<p>%s</p>" % html.escape(summary.PAPER_NOTE))
    if accounts:
        out.append("<h2>Where the time went</h2><p>Of the whole run of a suite under an engine, the guest's boot and the warming up "
                   "included: medians over the rounds, in per cent of the wall time.</p>")
        out += [account.chart(accounts)] + [html_table(*table) for _, table in account.tables(accounts)]
        out.append(html_table(*account.callout_table(accounts), text=True))
    if missing[1]:
        out.append("<h2>Not measured</h2>" + html_table(*missing, text=True))
    goals = target_table(data)
    if goals[1]:
        out.append("<h2>Goals</h2>" + html_table(*goals))
    return "".join(out) + "</html>\n"


def describe(h):
    return ("%s; %s, %d CPUs, TSC %.2f GHz; host Linux %s; commit %s%s; %s rounds; load at start %s"
            % (h["date"], h["cpu"], h["cpus"], h["tsc_hz"] / 1e9, h["kernel"], h["commit"], " (modified)" if h["modified"] else "",
               h["rounds"], h["load"]))
