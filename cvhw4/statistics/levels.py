"""Figures over nights: when their level changed, and whether they have declined.

Change points are found by binary segmentation: of all places to cut a series of nights, the one with the largest
difference of means is kept where its t test, with the spread of seeds within nights and corrected for the number of
places (Bonferroni), is below 1 %, and both parts are searched in turn (Scott and Knott, 1974). Nights that took the
same runs again are one measurement.

A figure has declined where, by its change points since the pinned night, its present level is below its best one, at
the same 1 %: what is too little for any one night shows in many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from cvhw4.records.history import Measurement, Night, Reference
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.changes import Place
from cvhw4.statistics.comparison import rounding_sd
from cvhw4.statistics.intervals import two_sided_p

LEVEL = 0.01
CANARY = "canary"  # the name under which its figures and times stand beside those of data sets


@dataclass(frozen=True)
class Point:
    """One measurement of a figure: nights that took the same runs are one.

    Attributes:
        first: the night it was first measured in; `last` the last one with the same runs.
        values: of the runs; `seeds` theirs.
        step: what they are known to.
    """

    first: Night
    last: Night
    values: tuple[float, ...]
    low: float | None
    high: float | None
    step: float
    seeds: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True)
class Shift:
    """A change of a figure's level.

    Attributes:
        index: of the first measurement after it.
        before: mean of the measurements before it, back to the shift before; `after` likewise.
        p_value: corrected for all places at which the series could be cut, and for `tests`.
        commits: the last commit before it and the first after it: what changed lies between them. None where unknown.
    """

    index: int
    before: float
    after: float
    p_value: float
    commits: tuple[str | None, str | None]


def series_of(nights: Iterable[Night]) -> dict[tuple[str, str, str], list[Point]]:
    """Measurements by row, data set and figure, oldest first. The canary's training time is one of them, with a value a
    night, as runs of one night do not say how nights differ."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for night in nights:
        measured = night.figures
        if (of := night.canary) is not None:
            seconds = {"0": median(of.seconds)}
            time = Measurement(row=of.row, data=CANARY, figure="training seconds", values=seconds, step=1e-3)
            measured = [*measured, time]
        for m in measured:
            points = found.setdefault((m.row, m.data, m.figure), [])
            values = tuple(m.values.values())
            if points and points[-1].values == values:
                points[-1] = replace(points[-1], last=night, low=m.low, high=m.high, step=m.step)
            else:
                points.append(Point(night, night, values, m.low, m.high, m.step, tuple(m.values)))
    return found


def shifts(points: Sequence[Point], tests: int = 1, level: float = LEVEL) -> list[Shift]:
    """Where a figure's level changed, oldest first.

    Args:
        points: oldest first.
        tests: how many series are searched together (Bonferroni).
    """
    spread = _spread(points)
    if spread is None:
        return []
    cuts = sorted(_cuts(points, 0, len(points), *spread, tests, level).items())
    edges = [0, *(at for at, _ in cuts), len(points)]
    means = [_mean(points[a:b]) for a, b in pairwise(edges)]
    return [
        Shift(at, means[i], means[i + 1], p, (points[at - 1].last.commit, points[at].first.commit))
        for i, (at, p) in enumerate(cuts)
    ]


def _mean(points: Sequence[Point]) -> float:
    values = [v for p in points for v in p.values]
    return math.fsum(values) / len(values)


def _spread(points: Sequence[Point]) -> tuple[float, float] | None:
    """Standard deviation of runs within nights, and its degrees of freedom; between neighbouring nights where each has
    one run (von Neumann, 1941); None for fewer than two nights."""
    if len(points) < 2:
        return None
    freedom: float = sum(len(p.values) - 1 for p in points)
    if freedom:
        variance = math.fsum((v - p.mean) ** 2 for p in points for v in p.values) / freedom
    else:
        n = len(points)
        variance = math.fsum((b.mean - a.mean) ** 2 for a, b in pairwise(points)) / (2 * (n - 1))
        freedom = 2 * (n - 1) ** 2 / (3 * n - 4)  # as neighbouring differences share nights
    return max(math.sqrt(variance), rounding_sd(max(p.step for p in points), figures=1)), freedom


def _cuts(
    points: Sequence[Point], start: int, end: int, sd: float, freedom: float, tests: int, level: float
) -> dict[int, float]:
    """Significant cuts of points[start:end], and their p-values."""
    sums = np.cumsum([math.fsum(p.values) for p in points[start:end]])
    counts = np.cumsum([len(p.values) for p in points[start:end]])
    n, m = counts[:-1], counts[-1] - counts[:-1]
    if not len(n):
        return {}
    statistics = np.abs(_statistic(sums[:-1] / n, (sums[-1] - sums[:-1]) / m, n, m, sd))
    p_value = _p_value(statistics.max(), freedom, len(n) * tests)
    if not p_value < level:
        return {}
    middle, rest = start + 1 + int(statistics.argmax()), (sd, freedom, tests, level)
    return {middle: p_value} | _cuts(points, start, middle, *rest) | _cuts(points, middle, end, *rest)


def _statistic(a: Any, b: Any, n: Any, m: Any, sd: float) -> Any:
    """Student's t of a - b, means of n and m runs; elementwise for arrays."""
    return (a - b) / (sd * np.sqrt(1 / n + 1 / m))


def _p_value(statistic: float, freedom: float, tests: int) -> float:
    """Of a two-sided test, corrected (Bonferroni)."""
    return min(1.0, two_sided_p(statistic, freedom) * tests)


@dataclass(frozen=True)
class Level:
    """Where a figure has been since the pinned night.

    Attributes:
        before: the mean of each seed over the nights at its best level before tonight, as seeds may repeat themselves.
        sd: of runs within nights; `freedom` its degrees of freedom.
        sign: -1 where the lowest is best.
        declined: in words, where its present level is below the best one; else "".
        lasting: whether that level is of more runs than tonight's.
    """

    before: Sequence[float]
    sd: float
    freedom: float
    sign: int
    declined: str
    lasting: bool

    def fell(self, a: Sequence[float], b: Sequence[float]) -> bool:
        """Whether the mean of b is worse than that of a by more than chance."""
        from scipy.stats import t

        x, y = (self.sign * math.fsum(side) / len(side) for side in (a, b))
        return bool(t.sf(_statistic(x, y, len(a), len(b), self.sd), self.freedom) < LEVEL)


Levels = Mapping[tuple[str, str, str], Level]  # by row, data set, figure


def levels_of(
    nights: Sequence[Night], tonight: Mapping[Place, Sequence[RunRecord]], pinned: Mapping[Place, Reference]
) -> Levels:
    """The level of every figure of the last night's runs, of which there are two measurements or a spread."""
    newest = {k: points for k, points in series_of(nights).items() if points[-1].last is nights[-1]}
    series = {k: points for k, points in newest.items() if k[:2] in tonight}
    found = {}
    for (row, data, figure), points in series.items():
        of = row, data
        since = pinned[of].since if of in pinned else ""
        points = [p for p in points if p.last.started >= since]
        spread = _spread(points)
        if spread is None:
            continue
        sign = -1 if figure.split(" ", 1)[1] in tonight[of][0].lower_is_better else 1
        cuts = [shift.index for shift in shifts(points, len(series))]
        parts = [points[a:b] for a, b in pairwise([0, *cuts, len(points)])]

        def height(part: Sequence[Point], sign: int = sign) -> float:
            return sign * _mean(part)

        declined = ""
        if cuts:
            best, now = max(parts[:-1], key=height), parts[-1]
            n, m = (sum(len(p.values) for p in part) for part in (best, now))
            statistic = _statistic(height(best), height(now), n, m, spread[0])
            if statistic > 0 and _p_value(statistic, spread[1], (len(points) - 1) * len(series)) < LEVEL:
                day = now[0].first.started[:10]
                declined = f"{figure} {_mean(best):.4f} to {_mean(now):.4f} in the nights since {day}"
        lasting = len(parts[-1]) > 1
        parts[-1] = parts[-1][:-1]
        before = max(filter(None, parts), key=height)
        by_seed: dict[str, list[float]] = {}
        for point in before:
            for seed, value in zip(point.seeds, point.values, strict=True):
                by_seed.setdefault(seed, []).append(value)
        means = [math.fsum(values) / len(values) for values in by_seed.values()]
        found[*of, figure] = Level(means, *spread, sign, declined, lasting)
    return found
