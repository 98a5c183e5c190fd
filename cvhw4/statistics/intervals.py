"""Means over seeds with their intervals, and what they say about a claim.

Intervals are Student's t: with the three to ten seeds of a study the normal interval would be too narrow, and a
bootstrap has too few runs to draw from. They cover the spread between seeds, not the one that other validation images
would bring, unless each seed drew its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Verdict = Literal["supported", "contradicted", "equivalent", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs.

    Attributes:
        n: number of runs.
        mean: of the figure.
        sd: sample standard deviation; NaN for one run.
        low: lower end of the interval; minus infinity for one run.
        high: upper end of the interval; infinity for one run.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t interval.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an estimate needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, math.nan, -math.inf, math.inf)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile(0.975, n - 1) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def ratio_of_means(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """A mean over another, of pairs of figures; the interval is linearised (Cochran 1977, section 6.4).

    Returns:
        `sd` is that of the linearised pairs; all NaN where the second mean is 0.

    Raises:
        ValueError: no pairs, or not as many of the one as of the other.
    """
    mean = estimate(wholes).mean or math.nan
    ratio = estimate(parts).mean / mean
    e = estimate([(part - ratio * whole) / mean for part, whole in zip(parts, wholes, strict=True)])  # about 0
    return Estimate(e.n, ratio, e.sd, ratio + e.low, ratio + e.high)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def two_sided_p(statistic: float, freedom: float) -> float:
    """P-value of a statistic of Student's t distribution; infinitely many degrees of freedom make it the normal one."""
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), freedom))
