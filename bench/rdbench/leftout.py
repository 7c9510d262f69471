"""What was not measured, and why: engines that are missing here, suites that an engine cannot run, single workloads that it lacks.

Whatever one engine of a run has and another one has not is listed; what no suite has a reason for stands as NOT EXPLAINED.
"""
from . import summary

UNKNOWN = "NOT EXPLAINED"


def rows(data, suites, engines, skipped, broken=()):
    """suites, engines: objects, those that the run was asked for. skipped: {engine or suite: why}. broken: (suite, engine) whose run failed.

    Yields (suite or "all", engine, [workload] or [] for all of them, why).
    """
    for e in engines:
        if e.name in skipped:
            yield "all", e.name, [], skipped[e.name]
    for s in suites:
        if s.name in skipped:
            yield s.name, "all", [], skipped[s.name]
        for e in engines if s.name not in skipped else ():
            if e.name in skipped:
                continue
            if not s.runs_on(e):
                yield s.name, e.name, [], s.why_not(e, None) or UNKNOWN
            elif (s.name, e.name) in broken:
                yield s.name, e.name, [], "no run of it finished"
            else:
                yield from lacking(s, e, data.get(s.name, {}))


def lacking(suite, engine, workloads):
    why = {}
    for name, figures in workloads.items():
        if engine.name not in summary.measured(figures):
            why.setdefault(suite.why_not(engine, name) or UNKNOWN, []).append(name)
    for reason, names in why.items():
        yield suite.name, engine.name, names, reason


def folded(names, there):
    """Curves of which no point is there are named once."""
    some = {w.partition("@")[0] for w in there}
    return list(dict.fromkeys(n if n.partition("@")[0] in some else n.partition("@")[0] for n in names))


def table(found, workloads_of):
    """workloads_of: {suite: [every workload]}."""
    out = []
    for suite, engine, names, why in found:
        every = workloads_of.get(suite, [])
        there = [w for w in every if w not in names]
        names = folded(names, there)
        turned = len(names) > 6 and len(there) < len(names)
        text = "all" if not names else "all but " + ", ".join(there) if turned else ", ".join(names)
        out.append([suite, engine, text, why])
    return ["suite", "engine", "not measured", "why"], out
