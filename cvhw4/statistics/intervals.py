"""Means over seeds with their intervals, and what they say about a claim.

Intervals are Student's t: with the three to ten seeds of a study the normal interval would be too narrow, and a
bootstrap has too few runs to draw from. From 15 runs on they reach as far as with the skewness of the runs taken out
(Hall 1992), where that is farther: where one run in twenty learns far less than others, most samples lack such a run,
and Student's interval of them is too narrow. They cover the spread between seeds, not the one that other validation
images would bring, unless each seed drew its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

OTHER_PICTURES: Final = "about other pictures"
Verdict = Literal["supported", "contradicted", "equivalent", "undecided", "about other pictures"]
FEWEST_FOR_SKEWNESS = 15  # values: fewer say little of their skewness, and counting it would cost much power


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
    """Mean, standard deviation and 95 % interval: Student's t, from 15 values on also with their skewness (`reach`).

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
    below, above = reach(n, n - 1, float(skewness(values, sd)) if n >= FEWEST_FOR_SKEWNESS else 0.0)
    error = sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - below * error, mean + above * error)


def reach(n: int, freedom: float, skew: float) -> tuple[float, float]:
    """How far the 95 % interval of a mean reaches below it and above, in standard errors.

    As far as Student's t, or as Hall's interval where that reaches farther, so that no mean lies within it that either
    of the two tests rejects.

    Args:
        n: values.
        freedom: degrees of freedom of their standard deviation.
        skew: their `skewness`, 0 where it is not to count.
    """
    t = t_quantile(0.975, freedom)
    return max(t, float(hall_inverse(t, skew, n))), max(t, -float(hall_inverse(-t, skew, n)))


def hall_transform(t: ArrayLike, skew: ArrayLike, n: int) -> NDArray[np.float64]:
    """The t value of a mean of skewed values, so transformed that it has nearly Student's distribution.

    Monotone in t, and t itself where the skewness is 0. Hall (1992), On the removal of skewness by transformation,
    Journal of the Royal Statistical Society B 54, 221-228.

    Args:
        t: [...] mean over standard error.
        skew: [...] `skewness` of the values.
        n: values.
    """
    x, g = np.asarray(t, dtype=float) / math.sqrt(n), np.asarray(skew, dtype=float)
    with np.errstate(invalid="ignore"):
        moved = math.sqrt(n) * (x + g * x**2 / 3 + g**2 * x**3 / 27 + g / (6 * n))
    return np.where(g == 0, t, moved)


def hall_inverse(value: ArrayLike, skew: ArrayLike, n: int) -> NDArray[np.float64]:
    """The t of which `hall_transform` gives this value."""
    g = np.asarray(skew, dtype=float) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = 3 / g * (np.cbrt(1 + g * (np.asarray(value, dtype=float) - g / 6)) - 1)
    return np.where(np.abs(g) < 1e-6, value, moved)  # where it is the value but for that, and rounding would show


def skewness(values: ArrayLike, sd: ArrayLike) -> NDArray[np.float64]:
    """[...] skewness of [..., n] values by these standard deviations, the bias of samples removed; 0 without spread.
    With the values' own standard deviation that is scipy's `skew(bias=False)`."""
    v, by = np.asarray(values, dtype=float), np.asarray(sd, dtype=float)
    n = v.shape[-1]
    third = ((v - v.mean(-1, keepdims=True)) ** 3).sum(-1) * n / ((n - 1) * (n - 2))
    return np.divide(third, by**3, out=np.zeros(v.shape[:-1]), where=by > 0)


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
def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def two_sided_p(statistic: float, freedom: float) -> float:
    """P-value of a statistic of Student's t distribution; infinitely many degrees of freedom make it the normal one."""
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), freedom))
