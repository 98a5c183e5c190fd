"""What moved between two stores: for a terminal, and as a comment on a pull request."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cvhw4.report.numbers import limits, p_value
from cvhw4.report.runs import SHORT, figure_name
from cvhw4.report.tables import Table
from cvhw4.report.text import clip, code, escape
from cvhw4.statistics.changes import Change, Changes, ClaimChange, ClaimKind, Gap, Kind, Place, TimeChange, verdict
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
_COLUMNS = ("row", "data", "figure", "A", "B", "difference", "95 % interval", "n", "p (Holm)", "is")
_CLAIM_COLUMNS = ("claim", "A", "B", "is")
_TIME_COLUMNS = ("A", "B", "ratio", "interval")


def headline(changes: Changes) -> str:
    """ "2 figures worse, 1 better, 23 within noise, 4 the same to the bit", and what else is worse."""
    kinds: dict[Kind, str] = {"worse": "worse", "better": "better", **KINDS}
    counts = [(len(changes.of(kind)), words) for kind, words in kinds.items()]
    figures = [f"{n} {words}" for n, words in counts if n] or ["no figure to compare"]
    if changes.figures:
        number, words = figures[0].split(" ", 1)
        figures[0] = f"{_count(int(number), 'figure')} {words}"
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
    moved = [*changes.of("worse"), *changes.of("better")]
    tables = []
    for data in dict.fromkeys(c.data for c in moved):
        rows = [
            (
                c.row,
                figure_name(c.figure, SHORT),
                f"{c.a:.3f}",
                f"{c.b:.3f}",
                f"{c.difference.mean:+.3f}",
                _interval(c, 3),
                c.kind,
            )
            for c in moved
            if c.data == data
        ]
        tables.append(Table(("row", "figure", "A", "B", "diff", "interval", "is"), rows, data))
    claims = [c for c in changes.claims if c.kind in _MOVED]
    failed = [(f"{f.row} seed {f.seed}", clip(f.reason, 160)) for f in changes.failed]
    tables += [
        Table(_CLAIM_COLUMNS, [_claim(c, with_n=False) for c in claims], "claims"),
        Table(("failed in B", "why"), failed),
        Table(("slower row", *_TIME_COLUMNS), [_time(t) for t in changes.slower], "times"),
    ]
    return [table for table in tables if table.rows]


def short_lines(changes: Changes) -> list[str]:
    """The rest, a line each."""
    lines = []
    for name, places in (("A", changes.only_a), ("B", changes.only_b)):
        if places:
            lines.append(f"only in {name}: {', '.join(map(_place, places))}")
    lines += [f"not compared: {_gap(gap)}" for gap in changes.gaps]
    for origin in changes.origins:
        rows = origin.rows[0] if len(origin.rows) == 1 else f"{len(origin.rows)} rows"
        lines.append(f"{origin.what}: {clip(origin.a, 60)} in A, {clip(origin.b, 60)} in B ({rows})")
    if changes.times:
        lines.append(_pace(changes.times))
    return lines


def comment(changes: Changes, a: str, b: str) -> str:
    """The whole comparison in Markdown, under 60,000 characters: rows that find no room are counted.

    Args:
        a: what A is called; `b` likewise.
    """
    most = max(len(changes.figures), len(changes.claims), len(changes.times), len(changes.failed), len(changes.gaps), 1)
    while len(page := _comment(changes, clip(a), clip(b), most)) >= _LONGEST:
        most //= 2
    return page


def _comment(changes: Changes, a: str, b: str, most: int) -> str:
    def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        """Empty without rows."""
        escaped = [[escape(clip(text)) for text in row] for row in rows]
        return Table(columns, escaped).markdown(most) if escaped else ""

    claims = [c for c in changes.claims if c.kind in _MOVED]
    still = [c for c in changes.claims if c.kind not in _MOVED]
    parts = [
        f"**{headline(changes)}**",
        f"A: {code(a)}, B: {code(b)}.",
        table(_COLUMNS, map(_whole, [*changes.of("worse"), *changes.of("better")])),
        table(_CLAIM_COLUMNS, map(_claim, claims)),
        table(
            ("failed in B", "seed", "epoch", "why"),
            [(f.row, str(f.seed), str(f.epoch or "-"), f.reason) for f in changes.failed],
        ),
        table(("slower row", *_TIME_COLUMNS), map(_time, changes.slower)),
    ]
    for name, places in (("A", changes.only_a), ("B", changes.only_b)):
        if places:
            names = ", ".join(escape(_place(p)) for p in places[:most])
            parts.append(f"Only in {name}: {names}{', ...' if len(places) > most else ''}.")
    if changes.gaps:
        names = "; ".join(escape(_gap(gap)) for gap in changes.gaps[:most])
        parts.append(f"Not compared: {names}{'; ...' if len(changes.gaps) > most else ''}.")
    of_kind = {kind: changes.of(kind) for kind in KINDS}
    folded = {
        "what differs between the runs of A and B": table(
            ("what", "A", "B", "rows"), [(o.what, o.a, o.b, ", ".join(o.rows)) for o in changes.origins]
        ),
        **{f"{_count(len(c), 'figure')} {KINDS[kind]}": table(_COLUMNS, map(_whole, c)) for kind, c in of_kind.items()},
        f"{_count(len(still), 'claim')} with the verdict they had": table(_CLAIM_COLUMNS, map(_claim, still)),
        "training times": table(("row", *_TIME_COLUMNS), map(_time, changes.times)),
    }
    for summary, text in folded.items():
        if text:
            parts.append(f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>")
    parts.append(
        "Differences are B minus A with 95 % intervals: paired t over common seeds, else Student's two-sample t; "
        "p is corrected for all figures compared (Holm). A claim is no longer supported where it is contradicted, or "
        "undecided with a difference that fell by the same tests. Intervals of times hold for all rows together."
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _whole(c: Change) -> tuple[str, ...]:
    n = f"{c.runs[0]} pairs" if c.paired and c.runs[0] > 1 else f"{c.runs[0]} and {c.runs[1]}"
    figures = (f"{c.a:.4f}", f"{c.b:.4f}", f"{c.difference.mean:+.4f}", _interval(c, 4))
    return (c.row, c.data, figure_name(c.figure, SHORT), *figures, n, p_value(c.adjusted_p), KINDS.get(c.kind, c.kind))


def _interval(c: Change, digits: int) -> str:
    e = c.difference
    return limits(e.low, e.high, digits) if math.isfinite(e.low) and c.kind != "same" else "-"


def _claim(c: ClaimChange, with_n: bool = True) -> tuple[str, ...]:
    def side(outcome: Outcome | None) -> str:
        n = f", n {outcome.difference.n}" if outcome and with_n else ""
        return verdict(outcome) + (f" ({outcome.difference.mean:+.3f}{n})" if outcome else "")

    return (c.claim, side(c.a), side(c.b), _CLAIMS.get(c.kind, c.kind))


def _time(t: TimeChange) -> tuple[str, ...]:
    interval = limits(t.low, t.high, 2) if math.isfinite(t.high) else "-"
    return (t.row, f"{t.a:.1f} s", f"{t.b:.1f} s", f"{t.ratio:.2f}", interval)


def _pace(times: Sequence[TimeChange]) -> str:
    ratios = sorted(times, key=lambda t: t.ratio)
    ends = " to ".join(f"{t.ratio:.2f} ({t.row})" for t in dict.fromkeys((ratios[0], ratios[-1])))
    return f"training time, B over A: {ends}"


def _place(place: Place) -> str:
    return f"{place[0]} ({place[1]})"


def _gap(gap: Gap) -> str:
    sides = [f"{held} in {name}" for name, held in (("A", gap.a), ("B", gap.b)) if held != "held"]
    return f"{gap.figure} of {_place((gap.row, gap.data))}, {' and '.join(sides)}"
