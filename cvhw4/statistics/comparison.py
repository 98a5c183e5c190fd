"""Two rows held against each other over seeds: how large the difference is, and how sure.

The verdict is the paired t test's, corrected for the number of claims judged together (Holm). The other figures say
what a verdict alone does not: how large the difference is beside its spread, how often a single run would show it,
and what pairing by seed gained.

Figures are taken at twelve decimals, so that differences that are equal but for rounding (0.9 - 0.8 and 0.4 - 0.3)
are equal here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.statistics.intervals import Estimate, Verdict, estimate, t_quantile

DECIMALS = 12
LEVEL = 0.05  # of verdicts
_PERMUTATIONS = 9999
_MOST_EXACT = 13  # seeds of which all 2**n flips are taken


@dataclass(frozen=True)
class Comparison:
    """What the runs of two rows, paired by seed, say of their difference; or those of one row, of a margin.

    Attributes:
        difference: better minus worse, with its t interval; the figure itself where there is no worse row.
        margin: what the difference is held against.
        p_value: two-sided paired t test of difference == margin; NaN for one seed. For differences that are all equal
            0, or 1 where they equal the margin, unless the figures' resolution was given.
        sd: standard deviation of the differences, never below what the figures' resolution implies (`rounding_sd`), as
            the test and the intervals take it; `difference.sd` is the one seen. NaN for one seed.
        permutation_p: the same by flipping the signs of difference - margin, all 2**n ways up to 13 seeds. It assumes
            no normal spread but never falls below 2 / 2**n, 0.0625 at 5 seeds and 0.002 at 10: with so few seeds it
            cannot decide, least of all after Holm's correction, so the t test does.
        effect: (mean - margin) / standard deviation of the differences, Cohen's d_z times Hedges' factor. NaN for one
            or two seeds, where the factor does not exist; infinite, or 0, where all differences are equal.
        superiority: probability that a run of the better row, with any seed, beats a run of the worse, with any
            seed, by more than the margin: the share of all n**2 pairs, ties half (Mann-Whitney; rliable's "probability
            of improvement"). Without a worse row the share of runs above the margin.
        superiority_low: lower end of its interval, see `superiority_interval`.
        superiority_high: upper end.
        pairing: variance of the difference were the runs not paired, var(better) + var(worse), over its variance as
            they are: 2.0 means that pairing halves the runs needed, less than 1 that it costs. NaN without a worse
            row, for one seed, or where all differences are equal.
        correlation: Pearson's, over seeds, between the two rows' figures. NaN without a worse row, for one or two
            seeds, or where a row's figures are all equal.
    """

    difference: Estimate
    margin: float
    p_value: float
    sd: float
    permutation_p: float
    effect: float
    superiority: float
    superiority_low: float
    superiority_high: float
    pairing: float
    correlation: float


def compare(
    better: Sequence[float] | NDArray[np.float64],
    worse: Sequence[float] | NDArray[np.float64] | None,
    margin: float = 0.0,
    resolution: float = 0.0,
    permutations: bool = True,
) -> Comparison:
    """Compares two rows seed by seed, or one row with a margin.

    Args:
        better: [n] figures by seed.
        worse: [n] figures with the same seeds in the same order; None compares `better` itself with the margin.
        margin: what the difference must exceed.
        resolution: least step of a figure, 1 / images for an accuracy; 0 for one that has none. The differences'
            spread is then never taken as less than `rounding_sd`: three equal differences of accuracies are chance
            more often than p = 0 says.
        permutations: whether `permutation_p`, which takes longer than all the rest, is worked out; else it is NaN.

    Raises:
        ValueError: no figures, not as many of one row as of the other, or one that is not finite.
    """
    b = np.asarray(better, dtype=float)
    w = np.zeros_like(b) if worse is None else np.asarray(worse, dtype=float)
    if b.ndim != 1 or b.shape != w.shape:
        raise ValueError(f"a comparison needs two rows of figures with the same seeds, not {b.shape} and {w.shape}")
    if not (np.isfinite(b).all() and np.isfinite(w).all()):
        raise ValueError("a comparison needs finite figures")
    n = len(b)
    floor = rounding_sd(resolution, figures=1 if worse is None else 2)
    difference = estimate(np.round(b - w, DECIMALS).tolist())
    if difference.sd < floor:
        half = t_quantile(0.975, n - 1) * floor / math.sqrt(n)
        difference = replace(difference, low=difference.mean - half, high=difference.mean + half)
    excess, spread = (float(x) for x in moments(b - w - margin, floor))
    pairs = (b if worse is None else np.subtract.outer(b, w)) - margin
    superiority = float((np.sign(np.round(pairs, DECIMALS)) + 1).mean() / 2)
    low, high = superiority_interval(superiority, n)
    return Comparison(
        difference=difference,
        margin=margin,
        p_value=float(t_p_values(b - w, margin, floor)),
        sd=spread,
        permutation_p=_permutation_p(b - w - margin) if permutations else math.nan,
        effect=_effect(excess, spread, n),
        superiority=superiority,
        superiority_low=low,
        superiority_high=high,
        pairing=math.nan if worse is None else _pairing(b, w),
        correlation=math.nan if worse is None else _correlation(b, w),
    )


def rounding_sd(resolution: float, figures: int = 2) -> float:
    """Standard deviation that figures have at least, for being known to one step only.

    A value rounded to steps of h is off by an error of variance h**2 / 12 (Sheppard), and a difference has two of them.
    """
    return resolution * math.sqrt(figures / 12)


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


def t_p_values(differences: ArrayLike, margin: ArrayLike = 0.0, floor: float = 0.0) -> NDArray[np.float64]:
    """Two-sided t tests of mean == margin, as scipy's `ttest_1samp`, which knows no spread of 0 and no least spread.

    Args:
        differences: [..., n].
        margin: [...] or one for all.
        floor: least standard deviation, see `rounding_sd`.

    Returns:
        [...] p-values; without spread 0, or 1 where the differences equal the margin; NaN for n = 1.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=float)
    n = values.shape[-1]
    excess, sd = moments(values - np.asarray(margin, dtype=float)[..., None], floor)
    if n == 1:
        return sd
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * t.sf(np.abs(excess) / sd * math.sqrt(n), n - 1)
    return np.where((sd == 0) & (excess == 0), 1.0, p)


def _permutation_p(excess: NDArray[np.float64]) -> float:
    """Two-sided sign-flip test that the values lie about 0; flips are drawn with a fixed seed where there are many."""
    values, n = np.round(excess, DECIMALS), len(excess)
    if exact := n <= _MOST_EXACT:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        flips = np.random.default_rng(0).integers(0, 2, (_PERMUTATIONS, n), np.int8)
    sums = np.round(values.sum() - 2 * (flips @ values), DECIMALS)
    seen = np.round(values.sum(), DECIMALS)
    drawn = 0 if exact else 1  # the flip that was seen counts among those drawn
    tail = min(int((sums >= seen).sum()), int((sums <= seen).sum())) + drawn
    return min(1.0, 2 * tail / (len(sums) + drawn))


def hedges_factor(freedom: int) -> float:
    """What a mean over its standard deviation is multiplied by to be unbiased (Hedges 1981); NaN below two."""
    if freedom < 2:
        return math.nan
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def _effect(excess: float, spread: float, n: int) -> float:
    if spread == 0 and n > 2:
        return math.copysign(math.inf, excess) if excess else 0.0
    return hedges_factor(n - 1) * excess / spread if n > 2 else math.nan


def superiority_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share that n seeds gave, be it over n runs or all n**2 pairs of them.

    A share over pairs P has at most the variance P (1 - P) / n, that of a share of n independent trials (Birnbaum and
    Klose 1957), if the rows' runs are independent; Wilson's interval with n trials is the score test with that
    largest variance turned around, the idea of Schüürhuis, Konietschke and Brunner (2025). Where a shared seed makes
    runs alike the variance is smaller still, so the interval is wide rather than narrow. (Rows correlated below about
    -0.5 could exceed it.) Where all pairs agree it is not [1, 1], as a bootstrap's, but [0.44, 1] at 3 seeds.

    Args:
        share: within 0..1; need not be a multiple of 1 / n.
        n: seeds.
    """
    from scipy.stats import norm

    z2 = float(norm.ppf(0.975)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _pairing(better: NDArray[np.float64], worse: NDArray[np.float64]) -> float:
    sds = [float(moments(v)[1]) for v in (better, worse, better - worse)]
    return (sds[0] ** 2 + sds[1] ** 2) / sds[2] ** 2 if sds[2] > 0 else math.nan


def _correlation(better: NDArray[np.float64], worse: NDArray[np.float64]) -> float:
    (b, b_sd), (w, w_sd) = moments(better), moments(worse)
    if len(better) < 3 or not (b_sd > 0 and w_sd > 0):
        return math.nan
    products = float(((better - b) * (worse - w)).sum()) / (len(better) - 1)
    return max(-1.0, min(1.0, products / float(b_sd * w_sd)))


def pooled_pairing(comparisons: Sequence[Comparison]) -> tuple[float, float, float]:
    """What pairing gained over several comparisons: the geometric mean of `pairing`, with a 95 % interval.

    The interval is Student's t on the logarithms, as if the comparisons were independent. They share rows and seeds, so
    it says how the comparisons at hand differ rather than what others would show.

    Args:
        comparisons: those whose `pairing` is NaN do not count.

    Returns:
        The mean and the ends of its interval: 0 and infinity for one comparison, all NaN for none.
    """
    logs = [math.log(c.pairing) for c in comparisons if c.pairing > 0]
    if not logs:
        return math.nan, math.nan, math.nan
    e = estimate(logs)
    return math.exp(e.mean), math.exp(e.low), math.exp(e.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of claims judged together, so adjusted that 5 % is the risk of any false verdict (Holm 1979).

    NaN stays NaN and does not count as a claim.
    """
    return [float(p) for p in holm_adjust(p_values)]


def holm_adjust(p_values: ArrayLike) -> NDArray[np.float64]:
    """`holm` for many families: [..., claims] p-values to as many adjusted ones, each family along the last axis."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, axis=-1)  # NaN last
    counted = (~np.isnan(p)).sum(-1, keepdims=True)
    factors = counted - np.arange(p.shape[-1])
    steps = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, steps, -1)
    return adjusted


def verdict_of(comparison: Comparison, adjusted_p: float, level: float = LEVEL) -> Verdict:
    """The verdict on a comparison among others, by its adjusted p-value; "undecided" where that is NaN."""
    excess = round(comparison.difference.mean - comparison.margin, DECIMALS)
    if not adjusted_p < level or excess == 0:
        return "undecided"
    return "supported" if excess > 0 else "contradicted"
