"""Which figures of a table for papers are bold, and which have marks: what their seeds tell apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cvhw4.statistics.comparison import LEVEL, Comparison, compare, decimal_step, holm
from cvhw4.statistics.intervals import estimate

ABOVE, BELOW = "*", "†"
Values = Mapping[tuple[str, str], Mapping[int, float]]  # by row and metric, by seed


def _compared(first: Mapping[int, float], second: Mapping[int, float], step: float | None) -> Comparison | None:
    """Two rows over the seeds that both have; None for fewer than two of them, or where one is not finite.

    Args:
        step: that the figures come in; None where they alone tell.
    """
    seeds = [s for s in first if s in second and math.isfinite(first[s]) and math.isfinite(second[s])]
    if len(seeds) < 2:
        return None
    pairs = ([first[s] for s in seeds], [second[s] for s in seeds])
    return compare(*pairs, resolution=decimal_step([*pairs[0], *pairs[1]]) if step is None else step)


def winner(rows: Sequence[str], metric: str, values: Values, lower: bool, step: float | None) -> str | None:
    """The row that beats every other one of a column, if one does: by paired t tests over seeds, Holm, 5 %.

    Args:
        values: of every row and metric, none where a row has no such figure.
        lower: whether the lowest is best.
        step: that the figures come in; None where they alone tell.
    """
    there = [row for row in rows if values[row, metric]]
    if len(there) < 2:
        return None
    sign = -1 if lower else 1
    best = max(there, key=lambda row: sign * estimate(list(values[row, metric].values())).mean)
    found = [_compared(values[best, metric], values[row, metric], step) for row in there if row != best]
    if any(c is None or sign * c.difference.mean <= 0 for c in found):
        return None
    return best if max(holm([c.p_value for c in found if c is not None])) < LEVEL else None


def marks_of(
    rows: Sequence[str], metrics: Sequence[str], values: Values, baseline: str, step: float | None
) -> dict[tuple[str, str], str]:
    """By row and metric the mark against the baseline, "" where the difference is not sure; see `winner`."""
    if baseline not in rows:
        return {}
    tests = {(row, m): _compared(values[row, m], values[baseline, m], step) for row in rows for m in metrics}
    found = {place: c for place, c in tests.items() if place[0] != baseline and c is not None}
    adjusted = holm([c.p_value for c in found.values()])
    return {
        place: (ABOVE if c.difference.mean > 0 else BELOW) if p < LEVEL else ""
        for (place, c), p in zip(found.items(), adjusted, strict=True)
    }
