"""What moved between two stores: for a terminal, and as a comment on a pull request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cvhw4.report.grid import Grid, clip
from cvhw4.report.text import code, escape
from cvhw4.statistics.changes import Change, Changes, ClaimChange, ClaimKind, Gap, Kind, Place, TimeChange, verdict
from cvhw4.statistics.verdicts import Outcome

LONGEST = 60_000  # characters of a page; GitHub takes 65,536 in a comment
SHORT = {
    "accuracy": "acc.",
    "miou": "mIoU",
    "pixel_accuracy": "pixels",
    "set_miou": "set mIoU",
    "set_pixel_accuracy": "set pixels",
}
KINDS: dict[Kind, str] = {
    "noise": "within noise",
    "same": "the same to the bit",
    "single": "of one run each: no error known",
}

_MOVED: tuple[ClaimKind, ...] = ("lost", "undecided", "correction", "changed")


def headline(changes: Changes) -> str:
    """ "2 figures worse, 1 better, 23 within noise, 4 the same to the bit", and what else is worse."""
    kinds: dict[Kind, str] = {"worse": "worse", "better": "better", **KINDS}
    counts = [(len(changes.of(kind)), words) for kind, words in kinds.items()]
    told = [f"{n} {words}" for n, words in counts if n] or ["no figure to compare"]
    if changes.figures:
        number, words = told[0].split(" ", 1)
        told[0] = f"{_count(int(number), 'figure')} {words}"
    more = [
        (len(changes.claims_of("lost")), "claim", "no longer supported"),
        (len(changes.claims_of("undecided")), "claim", "no longer decided"),
        (len(changes.failed), "run", "failed"),
        (len(changes.slower), "row", "slower"),
        (len(changes.only_a), "row", "only in A"),
        (len(changes.only_b), "row", "only in B"),
        (len(changes.gaps), "figure", "not compared"),
    ]
    return "; ".join([", ".join(told), *(f"{_count(n, noun)} {words}" for n, noun, words in more if n)])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def short_grids(changes: Changes) -> list[Grid]:
    """What moved, for a terminal of 80 columns."""
    moved = [*changes.of("worse"), *changes.of("better")]
    grids = []
    for data in dict.fromkeys(c.data for c in moved):
        rows = [
            (c.id, _figure(c), f"{c.a:.3f}", f"{c.b:.3f}", f"{c.difference.mean:+.3f}", _interval(c, 3), c.kind)
            for c in moved
            if c.data == data
        ]
        grids.append(Grid(("row", "figure", "A", "B", "diff", "interval", "is"), rows, data))
    claims = [c for c in changes.claims if c.kind in _MOVED]
    if claims:
        sides = [(c.claim, _side(c.a, ""), _side(c.b, ""), _CLAIMS.get(c.kind, c.kind)) for c in claims]
        grids.append(Grid(("claim", "A", "B", "is"), sides, "claims"))
    if changes.failed:
        failed = [(f"{f.id} seed {f.seed}", clip(f.reason, 160)) for f in changes.failed]
        grids.append(Grid(("failed in B", "why"), failed))
    if changes.slower:
        grids.append(Grid(("slower row", "A", "B", "ratio", "interval"), [_time(t) for t in changes.slower], "times"))
    return grids


def short_lines(changes: Changes) -> list[str]:
    """The rest, a line each."""
    lines = []
    for name, places in (("A", changes.only_a), ("B", changes.only_b)):
        if places:
            lines.append(f"only in {name}: {', '.join(_place(p) for p in places)}")
    lines += [f"not compared: {_gap(gap)}" for gap in changes.gaps]
    for origin in changes.origins:
        rows = origin.ids[0] if len(origin.ids) == 1 else f"{len(origin.ids)} rows"
        lines.append(f"{origin.what}: {clip(origin.a, 60)} in A, {clip(origin.b, 60)} in B ({rows})")
    if changes.times:
        lines.append(_pace(changes.times))
    return lines


def comment(changes: Changes, a: str, b: str) -> str:
    """The whole comparison as Markdown, under 60,000 characters: rows that find no room are counted.

    Args:
        a: what A is called; `b` likewise.
    """
    most = max(len(changes.figures), len(changes.claims), len(changes.times), len(changes.failed), len(changes.gaps), 1)
    while len(page := _comment(changes, clip(a), clip(b), most)) >= LONGEST:
        most //= 2
    return page


def _comment(changes: Changes, a: str, b: str, most: int) -> str:
    parts = [f"**{headline(changes)}**", f"A: {code(a)}, B: {code(b)}."]
    moved = Grid(_COLUMNS, [_whole(c) for c in (*changes.of("worse"), *changes.of("better"))])
    claims = [c for c in changes.claims if c.kind in _MOVED]
    failed = [(f.id, str(f.seed), str(f.epoch or "-"), f.reason) for f in changes.failed]
    shown = [
        moved,
        Grid(("claim", "A", "B", "is"), [_claim(c) for c in claims]),
        Grid(("failed in B", "seed", "epoch", "why"), failed),
        Grid(("slower row", "A", "B", "ratio", "interval"), [_time(t) for t in changes.slower]),
    ]
    parts += [grid.markdown(most) for grid in shown if grid.rows]
    for name, places in (("A", changes.only_a), ("B", changes.only_b)):
        if places:
            names = ", ".join(escape(_place(p)) for p in places[:most])
            parts.append(f"Only in {name}: {names}{', ...' if len(places) > most else ''}.")
    if changes.gaps:
        names = "; ".join(escape(_gap(gap)) for gap in changes.gaps[:most])
        parts.append(f"Not compared: {names}{'; ...' if len(changes.gaps) > most else ''}.")
    origins = [(o.what, o.a, o.b, clip(", ".join(o.ids))) for o in changes.origins]
    still = [c for c in changes.claims if c.kind not in _MOVED]
    hidden = {
        "what differs between the runs of A and B": Grid(("what", "A", "B", "rows"), origins),
        **{
            f"{_count(len(found), 'figure')} {words}": Grid(_COLUMNS, [_whole(c) for c in found])
            for kind, words in KINDS.items()
            if (found := changes.of(kind))
        },
        f"{_count(len(still), 'claim')} with the verdict they had": Grid(
            ("claim", "A", "B", "is"), [_claim(c) for c in still]
        ),
        "training times": Grid(("row", "A", "B", "ratio", "interval"), [_time(t) for t in changes.times]),
    }
    for summary, grid in hidden.items():
        if grid.rows:
            parts.append(f"<details><summary>{summary}</summary>\n\n{grid.markdown(most)}\n\n</details>")
    parts.append(
        "Differences are B minus A with 95 % intervals: paired t over common seeds, else Student's two-sample t; "
        "p is corrected for all figures compared (Holm). A claim is no longer supported where it is contradicted, or "
        "undecided with a difference that fell by the same tests. Intervals of times hold for all rows together."
    )
    return "\n\n".join(parts) + "\n"


_COLUMNS = ("row", "data", "figure", "A", "B", "difference", "95 % interval", "n", "p (Holm)", "is")


def _whole(c: Change) -> tuple[str, ...]:
    n = f"{c.runs[0]} pairs" if c.paired and c.runs[0] > 1 else f"{c.runs[0]} and {c.runs[1]}"
    p = "-" if math.isnan(c.adjusted_p) else "< 0.001" if c.adjusted_p < 0.001 else f"{c.adjusted_p:.3f}"
    figures = (f"{c.a:.4f}", f"{c.b:.4f}", f"{c.difference.mean:+.4f}", _interval(c, 4))
    return (c.id, c.data, _figure(c), *figures, n, p, KINDS.get(c.kind, c.kind))


def _figure(c: Change) -> str:
    which, metric = c.figure.split(" ", 1)
    return f"{which} {SHORT.get(metric, metric)}"


def _interval(c: Change, digits: int) -> str:
    e = c.difference
    known = math.isfinite(e.low) and c.kind != "same"
    return f"[{e.low:.{digits}f}, {e.high:.{digits}f}]" if known else "-"


_CLAIMS: dict[ClaimKind, str] = {
    "lost": "no longer supported",
    "undecided": "no longer decided",
    "correction": "by the correction alone",
}


def _claim(c: ClaimChange) -> tuple[str, ...]:
    n = [f", n {o.difference.n}" if o else "" for o in (c.a, c.b)]
    return (c.claim, _side(c.a, n[0]), _side(c.b, n[1]), _CLAIMS.get(c.kind, c.kind))


def _side(outcome: Outcome | None, more: str) -> str:
    return verdict(outcome) + (f" ({outcome.difference.mean:+.3f}{more})" if outcome else "")


def _time(t: TimeChange) -> tuple[str, ...]:
    interval = f"[{t.low:.2f}, {t.high:.2f}]" if math.isfinite(t.high) else "-"
    return (t.id, f"{t.a:.1f} s", f"{t.b:.1f} s", f"{t.ratio:.2f}", interval)


def _pace(times: Sequence[TimeChange]) -> str:
    ratios = sorted(times, key=lambda t: t.ratio)
    ends = " to ".join(f"{t.ratio:.2f} ({t.id})" for t in dict.fromkeys((ratios[0], ratios[-1])))
    return f"training time, B over A: {ends}"


def _place(place: Place) -> str:
    return f"{place[0]} ({place[1]})"


def _gap(gap: Gap) -> str:
    sides = [f"{held} in {name}" for name, held in (("A", gap.a), ("B", gap.b)) if held != "held"]
    return f"{gap.figure} of {_place((gap.id, gap.data))}, {' and '.join(sides)}"
