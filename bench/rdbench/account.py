"""Where the time of ringdown's runs went (base/acct.h), from the statistics of each run."""
import html
import statistics

# Class of base/acct.def: (what the report calls it, colour). In the order of the bar.
CLASSES = {
    "tc_window": ("kernel code in the TC, window", "#1f77b4"),
    "tc_soft": ("kernel code in the TC, soft path", "#7fb2d9"),
    "tc_user": ("user code in the TC", "#2ca02c"),
    "direct_user": ("user code on the CPU", "#98df8a"),
    "tc_careful": ("single and careful instructions", "#c5b0d5"),
    "site": ("memory sites in C", "#9467bd"),
    "callout": ("callouts", "#ff7f0e"),
    "deliver": ("delivery of exceptions and interrupts", "#ffbb78"),
    "translate": ("translation", "#d62728"),
    "loop": ("run loop", "#8c564b"),
    "fault_hidden": ("hidden faults", "#e377c2"),
    "fault_true": ("true faults", "#f7b6d2"),
    "fault_trace": ("writes to traced pages", "#bcbd22"),
    "fault_adapt": ("faults that adapt a site", "#dbdb8d"),
    "fault_insn": ("signals of trapping instructions", "#e7969c"),
    "fault_other": ("other guest exceptions", "#aec7e8"),
    "world_switch": ("world switches", "#17becf"),
    "host_call": ("host system calls", "#9edae5"),
    "device": ("devices, timers", "#7f7f7f"),
    "setup": ("setup", "#c7c7c7"),
    "idle": ("idle", "#eeeeee"),
}
# Shorter ones have too few samples to be checked.
CHECKED_SECONDS = 4.0
TOLERANCE = 0.05


def judged(counters):
    t = (counters or {}).get("time")
    return bool(t) and t["wall_ns"] >= CHECKED_SECONDS * 1e9


def problems(records):
    """(suite, engine, what is wrong): where the accounts of a suite's runs do not add up in the median of the rounds."""
    sums = {}
    for r in records:
        if judged(r.get("counters")):
            t = r["counters"]["time"]
            sums.setdefault((r["suite"], r["engine"]), []).append(t["sum_ns"] / t["wall_ns"])
    for (suite, engine), ratios in sums.items():
        if abs(statistics.median(ratios) - 1) > TOLERANCE:
            yield suite, engine, "the account of time adds up to %.1f %% of the wall time" % (100 * statistics.median(ratios))


def collect(records):
    """{suite: {engine: {"wall_s", "sum", "classes": {class: share}, "callouts": {kind: share}}}}: medians over the rounds."""
    runs = {}
    for r in records:
        t = (r.get("counters") or {}).get("time")
        if t and t["wall_ns"]:
            runs.setdefault(r["suite"], {}).setdefault(r["engine"], []).append(t)
    return {suite: {e: middle(ts) for e, ts in engines.items()} for suite, engines in runs.items()}


def middle(ts):
    share = lambda member, name: statistics.median(t[member].get(name, 0) / t["wall_ns"] for t in ts)
    kinds = {k for t in ts for k in t["callouts_by_kind"]}
    return {"wall_s": statistics.median(t["wall_ns"] for t in ts) / 1e9, "cpu_s": statistics.median(t["cpu_ns"] for t in ts) / 1e9,
            "sum": statistics.median(t["sum_ns"] / t["wall_ns"] for t in ts),
            "classes": {c: share("classes", c) for c in CLASSES}, "callouts": {k: share("callouts_by_kind", k) for k in kinds}}


def table(accounts):
    """Header and rows: one row per run, its largest shares in per cent."""
    used = [c for c in CLASSES if any(a["classes"][c] >= 0.0005 for engines in accounts.values() for a in engines.values())]
    header = ["suite", "engine", "wall s", "CPU s", "adds up to %"] + [CLASSES[c][0] for c in used]
    rows = []
    for suite, engines in accounts.items():
        for e, a in engines.items():
            rows.append([suite, e, "%.1f" % a["wall_s"], "%.1f" % a["cpu_s"], "%.1f" % (100 * a["sum"])]
                        + ["%.1f" % (100 * a["classes"][c]) for c in used])
    return header, rows


def callout_table(accounts, most=8):
    header = ["suite", "engine", "callouts that took most, in % of the run"]
    rows = []
    for suite, engines in accounts.items():
        for e, a in engines.items():
            top = sorted(a["callouts"].items(), key=lambda kv: -kv[1])[:most]
            text = ", ".join("%s %.1f" % (k, 100 * v) for k, v in top if v >= 0.0005)
            if text:
                rows.append([suite, e, text])
    return header, rows


def tables(accounts):
    """(suite, table) for each: runs side by side, as there are more classes than fit into a line."""
    for suite in accounts:
        header, rows = table({suite: accounts[suite]})
        yield suite, ([suite] + [r[1] for r in rows], [[h] + [r[i] for r in rows] for i, h in enumerate(header) if i > 1])


def chart(accounts):
    """One stacked bar per run, all of the same length: the wall time."""
    rows = [(suite + ", " + e, a) for suite, engines in accounts.items() for e, a in engines.items()]
    if not rows:
        return ""
    used = [c for c in CLASSES if any(a["classes"][c] >= 0.002 for _, a in rows)]
    left, width, bar, parts = 150, 640, 16, []
    per_line = 3
    for i, c in enumerate(used):
        x, y = 10 + i % per_line * 270, 4 + i // per_line * 15
        parts.append('<rect x="%d" y="%d" width="10" height="10" fill="%s" stroke="#888" stroke-width=".3"/><text x="%d" y="%d">%s</text>'
                     % (x, y, CLASSES[c][1], x + 14, y + 9, html.escape(CLASSES[c][0])))
    y = 14 + (len(used) + per_line - 1) // per_line * 15
    for name, a in rows:
        parts.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 6, y + 12, html.escape(name)))
        x = float(left)
        for c in used:
            w = a["classes"][c] * width
            if w < 0.2:
                continue
            parts.append('<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#888" stroke-width=".3"><title>%s: %.1f %%'
                         "</title></rect>" % (x, y, w, bar, CLASSES[c][1], html.escape(CLASSES[c][0]), 100 * a["classes"][c]))
            if w > 26:
                parts.append('<text x="%.1f" y="%d" text-anchor="middle">%.0f</text>' % (x + w / 2, y + 12, 100 * a["classes"][c]))
            x += w
        parts.append('<text x="%d" y="%d">%.1f s</text>' % (left + width + 6, y + 12, a["wall_s"]))
        y += bar + 5
    return ('<svg viewBox="0 0 %d %d" role="img" aria-label="where the time went">%s</svg>'
            % (left + width + 60, y + 4, "".join(parts)))
