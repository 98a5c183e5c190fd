"""Two rows held against each other over seeds: how large the difference is, and how sure.

The difference is tested by the paired t test, and where the smallest difference of interest is named, equivalence by
two one-sided t tests (Schuirmann 1987). Both are corrected for the claims judged together (Holm). Where calibrated
differences of other seeds are known, their spread counts too: three differences alone tell little of it, and what they
tell may be far too small. From 15 seeds on, where no others are known, their skewness counts: a test has to decide by
Student's t and with the skewness taken out (Hall 1992), as the first is wrong too often where differences are skewed.

Figures are taken at twelve decimals, so that differences that are equal but for rounding (0.9 - 0.8 and 0.4 - 0.3)
are equal here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.statistics.intervals import FEWEST_FOR_SKEWNESS, Estimate, Verdict, estimate, hall_transform, reach, skewness

DECIMALS = 12
LEVEL = 0.05  # of verdicts
FEWEST_KNOWN = 5  # calibrated differences: the spread of fewer says little
_FLOAT32 = 1e-7  # relative error, at most


@dataclass(frozen=True)
class Comparison:
    """What the runs of two rows, paired by seed, say of their difference; or those of one row, of a margin.

    Attributes:
        difference: better minus worse, with the interval of the margins that the test does not reject at 5 %; the
            figure itself where there is no worse row.
        margin: what the difference is held against.
        p_value: two-sided paired t test of difference == margin; from 15 seeds on, where no calibrated ones count, that
            or with their skewness taken out, whichever is larger (`hall_transform`); NaN for one seed. For differences
            that are all equal 0, or 1 where they equal the margin, unless the figures' resolution was given.
        equivalence_p: of two one-sided t tests that the difference is as far from the margin as the smallest difference
            of interest, the larger p-value; NaN for one seed, or where none is named.
        sd: standard deviation of the differences, never below what the figures' resolution implies (`rounding_sd`), as
            the tests and the intervals take it; `difference.sd` is the one seen. NaN for one seed.
        freedom: its degrees of freedom; more than n - 1 where calibrated differences count in it.
        skewness: of the differences, by that standard deviation; 0 where it is not counted.
    """

    difference: Estimate
    margin: float
    p_value: float
    equivalence_p: float
    sd: float
    freedom: int
    skewness: float = 0.0


def compare(
    better: Sequence[float] | NDArray[np.float64],
    worse: Sequence[float] | NDArray[np.float64] | None,
    margin: float = 0.0,
    resolution: float = 0.0,
    smallest: float = 0.0,
    figures: int | None = None,
    others: Sequence[float] = (),
) -> Comparison:
    """Compares two rows seed by seed, or one row with a margin.

    Args:
        better: [n] figures by seed.
        worse: [n] figures with the same seeds in the same order; None compares `better` itself with the margin.
        margin: what the difference must exceed.
        resolution: least step of a figure, 1 / images for an accuracy; 0 for one that has none. The differences'
            spread is then never taken as less than `rounding_sd`: three equal differences of accuracies are chance
            more often than p = 0 says.
        smallest: difference of interest, above 0; 0 for none.
        figures: how many figures a difference is made of, 4 for one of two differences; by default, 1 for a row
            with the margin and 2 for two rows.
        others: [m] differences of other seeds, of which the spread alone is used, see `spread`.

    Raises:
        ValueError: no figures, or one that is not finite.
    """
    b = np.asarray(better, dtype=float)
    w = np.zeros_like(b) if worse is None else np.asarray(worse, dtype=float)
    if not (np.isfinite(b).all() and np.isfinite(w).all()):
        raise ValueError("a comparison needs finite figures")
    n = len(b)
    floor = rounding_sd(resolution, figures or (1 if worse is None else 2))
    difference = estimate(np.round(b - w, DECIMALS).tolist())
    _, sd, freedom = spread(b - w, floor, others)
    skew = float(_skew(b - w, sd, freedom))
    if n > 1 and (difference.sd < floor or freedom >= n):
        (below, above), error = reach(n, int(freedom), skew), float(sd) / math.sqrt(n)
        difference = replace(difference, low=difference.mean - below * error, high=difference.mean + above * error)
    return Comparison(
        difference=difference,
        margin=margin,
        p_value=float(t_p_values(b - w, margin, floor, others)),
        equivalence_p=float(equivalence_p_values(b - w, margin, smallest, floor, others)),
        sd=float(sd),
        freedom=int(freedom),
        skewness=skew,
    )


def rounding_sd(resolution: float, figures: int = 2) -> float:
    """Standard deviation that figures have at least, for being known to one step only.

    A value rounded to steps of h is off by an error of variance h**2 / 12 (Sheppard), and a difference has two of them.
    """
    return resolution * math.sqrt(figures / 12)


def step_of(figures: Iterable[float]) -> float:
    """The step that figures come in, as far as they tell: the largest power of ten from 1 to 1e-6 that they were
    rounded to; of more than two decimals (one, of percentages) also the share, or percentage, that one of up to 10,000
    pictures makes, of which all are multiples but for what float32 makes of them; the larger; 0 where there is none."""
    x = np.unique(np.abs(np.asarray(list(figures), dtype=float)))

    def first(steps: NDArray[np.floating]) -> float:
        apart = np.abs(x[:, None] / steps - np.round(x[:, None] / steps))
        fits = (apart <= _FLOAT32 * x[:, None] / steps).all(0)
        return float(steps[fits][0]) if fits.any() else 0.0

    decimal = first(10.0 ** -np.arange(7))
    whole, fine = (100.0, 0.1) if len(x) and x[-1] > 1 else (1.0, 0.01)
    return decimal if decimal >= fine else max(decimal, first(whole / np.arange(1, 10_001)))


def moments(values: ArrayLike, floor: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over the last axis.

    Args:
        values: [..., n].
        floor: least standard deviation.

    Returns:
        [...] means, and [...] standard deviations: exactly 0 (or the floor) for equal values, NaN for n = 1.
    """
    v = np.round(np.asarray(values, dtype=float), DECIMALS)
    if v.shape[-1] == 1:
        return v[..., 0], np.full(v.shape[:-1], np.nan)
    equal = (v == v[..., :1]).all(-1)
    sd = np.where(equal, 0.0, v.std(-1, ddof=1))
    return np.where(equal, v[..., 0], v.mean(-1)), np.maximum(sd, floor)


def spread(
    values: ArrayLike, floor: float = 0.0, others: ArrayLike = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean, standard deviation and its degrees of freedom over the last axis, with what is known of the spread.

    The variances of both are pooled, each about its own mean, unless that of the values is larger than those of the
    others explain (F test at 10 %): then something has changed, and the values count alone.

    Args:
        values: [..., n].
        floor: least standard deviation.
        others: [..., m] differences of other runs; fewer than 5 are passed over.

    Returns:
        [...] means, standard deviations (see `moments`) and degrees of freedom.
    """
    from scipy.stats import f

    known = np.asarray(others, dtype=float)
    (mean, own), n, m = moments(values), np.asarray(values).shape[-1], known.shape[-1]
    if n < 2 or m < FEWEST_KNOWN:
        return mean, np.maximum(own, floor), np.full(mean.shape, n - 1)
    theirs = moments(known)[1]
    pooled = np.sqrt(((n - 1) * own**2 + (m - 1) * theirs**2) / (n + m - 2))
    alone = own**2 > theirs**2 * f.ppf(0.9, n - 1, m - 1)
    return mean, np.maximum(np.where(alone, own, pooled), floor), np.where(alone, n - 1, n + m - 2)


def _skew(values: NDArray[np.float64], sd: NDArray[np.float64], freedom: NDArray[np.int64]) -> NDArray[np.float64]:
    """[...] skewness of [..., n] values where it counts, else 0: fewer than 15 values, and where the spread of other
    seeds counts in these standard deviations."""
    if (n := values.shape[-1]) < FEWEST_FOR_SKEWNESS:
        return np.zeros(values.shape[:-1])
    return np.where(freedom < n, skewness(np.round(values, DECIMALS), sd), 0.0)


def _tails(
    differences: ArrayLike, margin: ArrayLike, room: ArrayLike, floor: float, others: ArrayLike
) -> list[NDArray[np.float64]]:
    """[...] one-sided p-values that means lie above the margin less the room, and that they lie below it and the room:
    each by Student's t, and with the skewness taken out, whichever is larger; 1 where they lie just there and have no
    spread; NaN for n = 1."""
    from scipy.stats import t

    values = np.asarray(differences, dtype=float) - np.asarray(margin, dtype=float)[..., None]
    n = values.shape[-1]
    excess, sd, freedom = spread(values, floor, others)
    skew = _skew(values, sd, freedom)
    tails = []
    for way in (1, -1):
        inside = np.round(np.asarray(room, dtype=float) + way * excess, DECIMALS)
        with np.errstate(divide="ignore", invalid="ignore"):
            student = inside / sd * math.sqrt(n)
        p = t.sf(np.minimum(student, hall_transform(student, way * skew, n)), freedom)
        tails.append(np.where((sd == 0) & (inside == 0), 1.0, p))
    return tails


def t_p_values(
    differences: ArrayLike, margin: ArrayLike = 0.0, floor: float = 0.0, others: ArrayLike = ()
) -> NDArray[np.float64]:
    """Two-sided t tests of mean == margin, as scipy's `ttest_1samp`, which knows no spread of 0 and no least spread;
    from 15 differences on, where no others count, that or with their skewness taken out (Hall), whichever is larger.

    Args:
        differences: [..., n].
        margin: [...] or one for all.
        floor: least standard deviation, see `rounding_sd`.
        others: [..., m] other differences of which the spread counts as well, see `spread`; their skewness does not.

    Returns:
        [...] p-values; without spread 0, or 1 where the differences equal the margin; NaN for n = 1.
    """
    above, below = _tails(differences, margin, 0.0, floor, others)
    return np.minimum(2 * np.minimum(above, below), 1.0)


def equivalence_p_values(
    differences: ArrayLike,
    margin: ArrayLike = 0.0,
    smallest: ArrayLike = 0.0,
    floor: float = 0.0,
    others: ArrayLike = (),
) -> NDArray[np.float64]:
    """Two one-sided t tests that a mean is no nearer to the margin than the smallest difference of interest; from 15
    differences on, where no others count, each of them or with their skewness taken out (Hall), whichever is larger.
    Arguments are those of `t_p_values`, and `smallest`: [...] or one for all.

    Returns:
        [...] the largest of the p-values; without spread 0, or 1 at that distance and beyond; NaN for n = 1, and where
        `smallest` is 0.
    """
    return np.where(np.asarray(smallest) > 0, np.maximum(*_tails(differences, margin, smallest, floor, others)), np.nan)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values of claims judged together, so adjusted that 5 % is the risk of any false verdict (Holm 1979).

    NaN stays NaN and does not count as a claim.

    Args:
        p_values: [..., claims], each family along the last axis.

    Returns:
        As many adjusted ones.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, axis=-1)  # NaN last
    counted = (~np.isnan(p)).sum(-1, keepdims=True)
    factors = counted - np.arange(p.shape[-1])
    steps = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, steps, -1)
    return adjusted


def verdict_of(comparison: Comparison, adjusted_p: float, equivalent_p: float = math.nan) -> Verdict:
    """The verdict on a comparison among others, by its adjusted p-values; "undecided" where they are NaN.

    A difference that is surely smaller than any of interest is "equivalent", be it surely above the margin or not.
    """
    if equivalent_p < LEVEL:
        return "equivalent"
    excess = round(comparison.difference.mean - comparison.margin, DECIMALS)
    if not adjusted_p < LEVEL or excess == 0:
        return "undecided"
    return "supported" if excess > 0 else "contradicted"
