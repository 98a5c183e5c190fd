"""What moved between two stores: for a terminal, and as a comment on a pull request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cvhw4.report.numbers import difference, limits, p_value
from cvhw4.report.runs import SHORT, figure_name, grouped
from cvhw4.report.tables import Table
from cvhw4.report.text import clip, code, escape
from cvhw4.statistics.changes import Change, Changes, ClaimChange, ClaimKind, Gap, Kind, Place, TimeChange
from cvhw4.statistics.verdicts import Outcome

_LONGEST = 60_000  # characters of a page; GitHub takes 65,536 in a comment
KINDS: dict[Kind, str] = {
    "noise": "within noise",
    "same": "the same to the bit",
    "single": "of one run each: no error known",
}
_MOVED: tuple[ClaimKind, ...] = ("lost", "undecided", "correction", "changed")
_CLAIMS: dict[ClaimKind, str] = {
    "lost": "no longer supported",
    "undecided": "no longer decided",
    "correction": "by the correction alone",
}


def headline(changes: Changes) -> str:
    """ "2 figures worse, 1 better, 23 within noise, 4 the same to the bit", and what else is worse."""
    kinds: dict[Kind, str] = {"worse": "worse", "better": "better", **KINDS}
    counts = [(n, words) for kind, words in kinds.items() if (n := len(changes.of(kind)))]
    figures = [f"{n if i else _count(n, 'figure')} {words}" for i, (n, words) in enumerate(counts)]
    figures = figures or ["no figure to compare"]
    more = [
        (len(changes.claims_of("lost")), "claim", "no longer supported"),
        (len(changes.claims_of("undecided")), "claim", "no longer decided"),
        (len(changes.failed), "run", "failed"),
        (len(changes.slower), "row", "slower"),
        (len(changes.only_a), "row", "only in A"),
        (len(changes.only_b), "row", "only in B"),
        (len(changes.gaps), "figure", "not compared"),
    ]
    return "; ".join([", ".join(figures), *(f"{_count(n, noun)} {words}" for n, noun, words in more if n)])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def short_tables(changes: Changes) -> list[Table]:
    """What moved, for a terminal of 80 columns."""
    figures = grouped([*changes.of("worse"), *changes.of("better")], lambda c: c.data)
    failed = [{"failed in B": f"{f.row} seed {f.seed}", "why": clip(f.reason, 160)} for f in changes.failed]
    tables = [
        *(Table.of([_figure(c, 3) for c in of], ("data", "n", "p (Holm)"), title=data) for data, of in figures.items()),
        Table.of([_claim(c, with_n=False) for c in changes.claims if c.kind in _MOVED], title="claims"),
        Table.of(failed),
        Table.of([_time(t, "slower row") for t in changes.slower], title="times"),
    ]
    return [table for table in tables if table.rows]


def short_lines(changes: Changes) -> list[str]:
    """The rest, a line each."""
    only = (("A", changes.only_a), ("B", changes.only_b))
    lines = [f"only in {name}: {', '.join(map(_place, places))}" for name, places in only if places]
    lines += [f"not compared: {_gap(gap)}" for gap in changes.gaps]
    for origin in changes.origins:
        rows = origin.rows[0] if len(origin.rows) == 1 else f"{len(origin.rows)} rows"
        lines.append(f"{origin.what}: {clip(origin.a, 60)} in A, {clip(origin.b, 60)} in B ({rows})")
    if changes.times:
        lines.append(_pace(changes.times))
    return lines


def comment(changes: Changes, a: str, b: str) -> str:
    """The whole comparison in Markdown, under 60,000 characters: rows that find no room are counted. A and B are called
    `a` and `b`."""
    most = max(len(changes.figures), len(changes.claims), len(changes.times), len(changes.failed), len(changes.gaps), 1)
    while len(page := _comment(changes, clip(a), clip(b), most)) >= _LONGEST:
        most //= 2
    return page


def _comment(changes: Changes, a: str, b: str, most: int) -> str:
    def table(lines: Sequence[dict[str, str]]) -> str:
        return Table.of(lines).escaped().markdown(most)

    moved = [*changes.of("worse"), *changes.of("better")]
    claims, still = ([c for c in changes.claims if (c.kind in _MOVED) == moves] for moves in (True, False))
    failed = [
        {"failed in B": f.row, "seed": str(f.seed), "epoch": str(f.epoch or "-"), "why": f.reason}
        for f in changes.failed
    ]
    parts = [
        f"**{headline(changes)}**",
        f"A: {code(a)}, B: {code(b)}.",
        table([_figure(c, 4) for c in moved]),
        table([_claim(c) for c in claims]),
        table(failed),
        table([_time(t, "slower row") for t in changes.slower]),
    ]
    for name, places in (("A", changes.only_a), ("B", changes.only_b)):
        if places:
            names = ", ".join(escape(_place(p)) for p in places[:most])
            parts.append(f"Only in {name}: {names}{', ...' if len(places) > most else ''}.")
    if changes.gaps:
        names = "; ".join(escape(_gap(gap)) for gap in changes.gaps[:most])
        parts.append(f"Not compared: {names}{'; ...' if len(changes.gaps) > most else ''}.")
    origins = [{"what": o.what, "A": o.a, "B": o.b, "rows": ", ".join(o.rows)} for o in changes.origins]
    folded = {
        "what differs between the runs of A and B": origins,
        **{
            f"{_count(len(of), 'figure')} {words}": [_figure(c, 4) for c in of]
            for kind, words in KINDS.items()
            for of in [changes.of(kind)]
        },
        f"{_count(len(still), 'claim')} with the verdict they had": [_claim(c) for c in still],
        "training times": [_time(t, "row") for t in changes.times],
    }
    parts += [
        f"<details><summary>{summary}</summary>\n\n{table(lines)}\n\n</details>"
        for summary, lines in folded.items()
        if lines
    ]
    parts.append(
        "Differences are B minus A with 95 % intervals: paired t over common seeds, else Student's two-sample t; "
        "p is corrected for all figures compared (Holm). A claim is no longer supported where it is contradicted, or "
        "undecided or equivalent with a difference that fell by the same tests. Intervals of times hold for all rows "
        "together."
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _figure(c: Change, digits: int) -> dict[str, str]:
    e = c.difference
    return {
        "row": c.row,
        "data": c.data,
        "figure": figure_name(c.figure, SHORT),
        "A": f"{c.a:.{digits}f}",
        "B": f"{c.b:.{digits}f}",
        "diff": f"{e.mean:+.{digits}f}",
        "interval": limits(e.low, e.high, digits) if math.isfinite(e.low) and c.kind != "same" else "-",
        "n": f"{c.runs[0]} pairs" if c.paired and c.runs[0] > 1 else f"{c.runs[0]} and {c.runs[1]}",
        "p (Holm)": p_value(c.adjusted_p),
        "is": KINDS.get(c.kind, c.kind),
    }


def _claim(c: ClaimChange, with_n: bool = True) -> dict[str, str]:
    def side(outcome: Outcome | None) -> str:
        if outcome is None:
            return "not judged"
        n = f", n {outcome.difference.n}" if with_n else ""
        return f"{outcome.verdict} ({difference(outcome)}{n})"

    return {"claim": c.claim, "A": side(c.a), "B": side(c.b), "is": _CLAIMS.get(c.kind, c.kind)}


def _time(t: TimeChange, row: str) -> dict[str, str]:
    interval = limits(t.low, t.high, 2) if math.isfinite(t.high) else "-"
    return {row: t.row, "A": f"{t.a:.1f} s", "B": f"{t.b:.1f} s", "ratio": f"{t.ratio:.2f}", "interval": interval}


def _pace(times: Sequence[TimeChange]) -> str:
    ratios = sorted(times, key=lambda t: t.ratio)
    ends = " to ".join(f"{t.ratio:.2f} ({t.row})" for t in dict.fromkeys((ratios[0], ratios[-1])))
    return f"training time, B over A: {ends}"


def _place(place: Place) -> str:
    return f"{place[0]} ({place[1]})"


def _gap(gap: Gap) -> str:
    sides = [f"{held} in {name}" for name, held in (("A", gap.a), ("B", gap.b)) if held != "held"]
    return f"{gap.figure} of {_place((gap.row, gap.data))}, {' and '.join(sides)}"
