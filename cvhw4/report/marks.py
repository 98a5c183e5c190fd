"""What tables for papers mark: the rows that are surely best, and those that surely differ from a baseline."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from cvhw4.statistics.comparison import LEVEL, Comparison, compare, holm, step_of
from cvhw4.statistics.intervals import OTHER_PICTURES, estimate
from cvhw4.statistics.verdicts import Outcome

ABOVE, BELOW, SAME = "*", "†", "‡"
Place = tuple[str, str]  # row and metric
Values = Mapping[Place, Mapping[int, float]]  # by seed


def _compared(first: Mapping[int, float], second: Mapping[int, float], step: float | None) -> Comparison | None:
    """Two rows over the seeds that both have; None for fewer than two of them, or where one is not finite. `step` is
    what the figures come in; None where they alone tell."""
    seeds = [s for s in first if s in second and math.isfinite(first[s]) and math.isfinite(second[s])]
    if len(seeds) < 2:
        return None
    pairs = ([first[s] for s in seeds], [second[s] for s in seeds])
    return compare(*pairs, resolution=step_of([*pairs[0], *pairs[1]]) if step is None else step)


def winner(rows: Sequence[str], metric: str, values: Values, lower: bool, step: float | None) -> str | None:
    """The row that beats every other one of a column, if one does."""
    there = [row for row in rows if values[row, metric]]
    if len(there) < 2:
        return None
    sign = -1 if lower else 1
    best = max(there, key=lambda row: sign * estimate(list(values[row, metric].values())).mean)
    found = [_compared(values[best, metric], values[row, metric], step) for row in there if row != best]
    if any(c is None or sign * c.difference.mean <= 0 for c in found):
        return None
    return best if max(holm([c.p_value for c in found if c is not None])) < LEVEL else None


def against(
    baseline: str, rows: Sequence[str], metrics: Sequence[str], values: Values, step: float | None
) -> dict[Place, Comparison]:
    """The other rows less the baseline, where both have two seeds in common; none where the baseline is no row."""
    others = [row for row in rows if row != baseline and baseline in rows]
    tests = {(row, m): _compared(values[row, m], values[baseline, m], step) for row in others for m in metrics}
    return {place: c for place, c in tests.items() if c is not None}


def marks_of_tests(tests: Mapping[Place, Comparison]) -> dict[Place, str]:
    """The mark of each, "" where the difference is not sure, over all of them (Holm)."""
    adjusted = holm([c.p_value for c in tests.values()])
    return {
        place: (ABOVE if c.difference.mean > 0 else BELOW) if p < LEVEL else ""
        for (place, c), p in zip(tests.items(), adjusted, strict=True)
    }


def marks_of_claims(outcomes: Iterable[Outcome], baseline: str, lowest: Collection[str]) -> dict[Place, str]:
    """By the verdicts on the claims that one of a row and the baseline is better, "" where one is undecided; of the
    metrics in `lowest` the lowest is best."""
    marks = {}
    for o in outcomes:
        claim = o.claim
        if claim.worse is None or claim.margin or len(claim.rows) != 2 or baseline not in claim.rows:
            continue
        (row,) = {*claim.rows} - {baseline}
        wins = (o.verdict == "supported") == (row == claim.better)
        above = ABOVE if wins != (claim.metric in lowest) else BELOW
        marks[row, claim.metric] = {"undecided": "", OTHER_PICTURES: "", "equivalent": SAME}.get(o.verdict, above)
    return marks


def marks_note(marks: Mapping[Place, str], baseline: str, of_claims: bool) -> list[str]:
    """What they mean."""
    n = len(marks)
    if of_claims:
        same = f", {SAME} equivalent to" * (SAME in marks.values())
        by = f"{n} claim{'s' * (n != 1)} of the study, judged with its others"
        nothing = f"no claim of the study is about one of these rows and {baseline}"
    else:
        same, by = "", f"{n} paired t test{'s' * (n != 1)} over seeds"
        nothing = f"no row has two seeds in common with {baseline}"
    return [f"{ABOVE} above, {BELOW} below{same} {baseline} ({by}, Holm, 5 %)." if n else f"Without marks: {nothing}."]
