"""Two rows held against each other over seeds: how large the difference is, and how sure.

The verdict is the paired t test's, corrected for the number of claims judged together (Holm). The other figures say
what a verdict alone does not: how large the difference is beside its spread, how often a single run would show it,
what pairing by seed gained, and how many seeds would settle it.

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
_PERMUTATIONS = 9999  # all 2**n are taken up to n = 13
_POWER = 0.9
_POWER_LEVEL = 0.05
_MOST_SEEDS = 10_000
_LARGEST_SHIFT = 1e6  # of a noncentral t distribution; scipy gives NaN for one of 1e12


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
        seeds_needed: fewest seeds with which the t test at 5 % decides in 90 of 100 studies, were the mean and spread
            seen the true ones. They are not, so with few seeds the number is rough. None above 10,000, for one seed,
            and where there is no spread.
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
    seeds_needed: int | None


def compare(
    better: Sequence[float] | NDArray[np.float64],
    worse: Sequence[float] | NDArray[np.float64] | None,
    margin: float = 0.0,
    confidence: float = 0.95,
    resolution: float = 0.0,
    permutations: bool = True,
) -> Comparison:
    """Compares two rows seed by seed, or one row with a margin.

    Args:
        better: [n] figures by seed.
        worse: [n] figures with the same seeds in the same order; None compares `better` itself with the margin.
        margin: what the difference must exceed.
        confidence: of the intervals.
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
    difference = estimate(np.round(b - w, DECIMALS).tolist(), confidence)
    if difference.sd < floor:
        half = t_quantile(1 - (1 - confidence) / 2, n - 1) * floor / math.sqrt(n)
        difference = replace(difference, low=difference.mean - half, high=difference.mean + half)
    excess, spread = (float(x) for x in moments(b - w - margin, floor))
    pairs = b - margin if worse is None else np.subtract.outer(b, w) - margin
    superiority = float((np.sign(np.round(pairs, DECIMALS)) + 1).mean() / 2)
    low, high = superiority_interval(superiority, n, confidence)
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
        seeds_needed=_seeds_needed(excess, spread),
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
    """Sign-flip test that the values lie about 0; drawn with a fixed seed where there are too many flips."""
    from scipy.stats import permutation_test

    if len(excess) == 1:
        return 1.0  # scipy wants two
    values = np.round(excess, DECIMALS)
    rng = np.random.default_rng(0)
    found = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=_PERMUTATIONS, rng=rng)
    return float(found.pvalue)


def hedges_factor(freedom: int) -> float:
    """What a mean over its standard deviation is multiplied by to be unbiased (Hedges 1981); NaN below two."""
    if freedom < 2:
        return math.nan
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def _effect(excess: float, spread: float, n: int) -> float:
    if spread == 0 and n > 2:
        return math.copysign(math.inf, excess) if excess else 0.0
    return hedges_factor(n - 1) * excess / spread if n > 2 else math.nan


def superiority_interval(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share that n seeds gave, be it over n runs or all n**2 pairs of them.

    A share over pairs P has at most the variance P (1 - P) / n, that of a share of n independent trials (Birnbaum and
    Klose 1957), if the rows' runs are independent; Wilson's interval with n trials is the score test with that
    largest variance turned around, the idea of Schüürhuis, Konietschke and Brunner (2025). Runs that share a seed
    depend on each other; where that makes them alike, as it is meant to, the variance is smaller still, so the interval
    is wide rather than narrow. (Rows that do well with opposite seeds, correlated below about -0.5, could exceed it.) A
    bootstrap, DeLong's or Brunner and Munzel's interval would be [1, 1] where all pairs agree; this one is [0.44, 1] at
    3 seeds. It lies within 0..1.

    Args:
        share: within 0..1; need not be a multiple of 1 / n.
        n: seeds.
    """
    from scipy.stats import norm

    z2 = float(norm.ppf(1 - (1 - confidence) / 2)) ** 2
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

    The interval is Student's t on the logarithms, as if the comparisons were independent. They are not: they share rows
    and seeds, so it is narrower than it should be, and says how the comparisons at hand differ rather than what others
    would show.

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


def power(effect: float, n: int, level: float = _POWER_LEVEL) -> float:
    """Probability that the two-sided t test decides, and for the right side, by the noncentral t distribution.

    The wrong side is left out: it is at most half the level, next to nothing where power is worth asking for, and
    scipy 1.17's lower tail of that distribution is NaN here and there.

    Args:
        effect: true mean over true standard deviation.
        n: seeds, at least 2.
    """
    from scipy.stats import nct

    shift = min(abs(effect), _LARGEST_SHIFT) * math.sqrt(n)
    return float(nct.sf(t_quantile(1 - level / 2, n - 1), n - 1, shift))


def _seeds_needed(excess: float, spread: float, level: float = _POWER_LEVEL) -> int | None:
    return _seeds_for(excess / spread, level) if spread > 0 else None


def _seeds_for(effect: float, level: float) -> int | None:
    """Fewest seeds with a power of 0.9 for a true mean over true standard deviation."""
    if effect == 0 or math.isnan(effect):
        return None
    low, high = 1, 2  # too few, and to be tried
    while not power(effect, high, level) >= _POWER:
        low, high = high, 2 * high
        if low >= _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, level) >= _POWER else (middle, high)
    return high if high <= _MOST_SEEDS else None


def effect_interval(effect: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the true mean over the true standard deviation, of which a sample gave `effect`.

    The noncentral t distribution turned around (Steiger and Fouladi 1997; Cumming and Finch 2001): the ends are the
    effects with which a t as small, or as large, as the one seen comes up with half the rest of the confidence.

    Args:
        effect: mean over standard deviation of the sample, not corrected for its bias.
        n: seeds.

    Returns:
        The ends; minus infinity and infinity for one seed, and NaN for an effect that is NaN or infinite.
    """
    if n < 2:
        return -math.inf, math.inf
    if not math.isfinite(effect):
        return math.nan, math.nan
    seen = abs(effect) * math.sqrt(n)
    tail = (1 - confidence) / 2
    low, high = (_shift_of(seen, n - 1, p) / math.sqrt(n) for p in (1 - tail, tail))
    return (low, high) if effect >= 0 else (-high, -low)


def _shift_of(seen: float, freedom: int, probability: float) -> float:
    """The noncentrality with which a t of at most `seen`, which is not below 0, has that probability; by bisection."""
    from scipy.special import chdtri
    from scipy.stats import nct

    if seen > 1000:  # the numerator's error is nothing beside the spread's, and scipy's tails fail
        return seen * math.sqrt(float(chdtri(freedom, probability)) / freedom)
    # At 0 the shift is a normal quantile. Further out than ten it is the chi distribution's spread that matters: with
    # one degree of freedom, the worst case, its ends at 0.975 are 0.03 and 2.24 times what was seen.
    low, high = -10.0, 10.0 + 10 * seen
    while high - low > 1e-9 * max(1.0, abs(low)):
        middle = (low + high) / 2
        found = float(nct.cdf(seen, freedom, middle))
        if math.isnan(found):  # scipy's tails, here and there; never near the quantiles asked for
            found = float(middle < seen)
        low, high = (middle, high) if found > probability else (low, middle)
    return (low + high) / 2


def seeds_to_decide(comparison: Comparison, level: float = _POWER_LEVEL) -> tuple[int | None, int | None, int | None]:
    """Fewest seeds with which the t test decides in 90 of 100 studies, and how little that number is known.

    Args:
        comparison: its margin is what is to be decided.
        level: of the test; 0.05 / claims plans for the first step of Holm's correction.

    Returns:
        The seeds if the true effect, (mean - margin) / standard deviation, is the one seen; if it is the end of its
        95 % interval (`effect_interval`) farthest from 0; and if it is the end nearest to 0. Each None above 10,000
        and where there is no effect to go by: no spread, or one seed. The last is None as well where the interval
        includes 0, as no number of seeds is then sure to suffice.
    """
    if not comparison.sd > 0:
        return None, None, None
    effect = round(comparison.difference.mean - comparison.margin, DECIMALS) / comparison.sd
    ends = effect_interval(effect, comparison.difference.n)
    nearest, farthest = sorted(ends, key=abs)
    includes = ends[0] <= 0 <= ends[1]
    return _seeds_for(effect, level), _seeds_for(farthest, level), None if includes else _seeds_for(nearest, level)


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


def verdict_of(comparison: Comparison, adjusted_p: float, level: float = 0.05) -> Verdict:
    """The verdict on a comparison among others, by its adjusted p-value; "undecided" where that is NaN."""
    excess = round(comparison.difference.mean - comparison.margin, DECIMALS)
    if not adjusted_p < level or excess == 0:
        return "undecided"
    return "supported" if excess > 0 else "contradicted"


@dataclass(frozen=True)
class Combined:
    """A mean whose error comes from seeds and from validation images.

    Attributes:
        estimate: its n and sd are those of the seeds, its interval covers both errors.
        standard_error: of the mean, both errors together; NaN for one seed.
        freedom: degrees of freedom of that error; NaN for one seed.
        seed_error: of the mean, the seeds' error alone, of n - 1 degrees of freedom.
    """

    estimate: Estimate
    standard_error: float
    freedom: float
    seed_error: float = 0.0

    def p_value(self, margin: float = 0.0) -> float:
        """Two-sided t test of mean == margin, never below the seeds' alone; NaN for one seed, 0 or 1 where there is no
        error."""
        from scipy.stats import t

        excess = abs(round(self.estimate.mean - margin, DECIMALS))
        if self.standard_error == 0:
            return 0.0 if excess else 1.0
        both = float(2 * t.sf(excess / self.standard_error, self.freedom))
        if not self.seed_error > 0:
            return both
        return max(both, float(2 * t.sf(excess / self.seed_error, self.estimate.n - 1)))


def combine(
    mean: float, seed_sd: float, n: int, image_variance: float, image_freedom: float, confidence: float = 0.95
) -> Combined:
    """Interval of a mean over seeds that holds for other validation images as well.

    The squared errors add up: seed_sd**2 / n + image_variance. What seeds and images do only together (one seed being
    good on certain images) is in both of them, unless the caller took it out of one, so the interval is then too wide
    rather than too narrow. Degrees of freedom are Welch and Satterthwaite's: the sources', weighted by their errors.

    Where that interval is narrower than the one of the seeds alone, because it counts on more degrees of freedom, it is
    the seeds' instead: a second source of noise never makes a mean more certain.

    Args:
        mean: over the seeds.
        seed_sd: standard deviation of the n seeds' figures, all on the same images.
        n: seeds.
        image_variance: squared standard error of the mean for the choice of images, for these seeds; an estimate below
            0 is taken as 0.
        image_freedom: its degrees of freedom, images - 1; may be infinite.

    Raises:
        ValueError: no seeds, or no degree of freedom for the images.
    """
    if n < 1 or not image_freedom >= 1:
        raise ValueError(f"needs seeds and a degree of freedom for the images, not {n} and {image_freedom}")
    if n == 1:
        return Combined(Estimate(1, mean, math.nan, -math.inf, math.inf), math.nan, math.nan)
    seeds = seed_sd**2 / n
    error, freedom, half = (float(x) for x in half_widths(seeds, image_variance, n, image_freedom, confidence))
    return Combined(Estimate(n, mean, seed_sd, mean - half, mean + half), error, freedom, math.sqrt(seeds))


def half_widths(
    seeds: ArrayLike, images: ArrayLike, n: int, image_freedom: float, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """`combine` for many means at once.

    Args:
        seeds: [...] squared standard errors for the choice of seeds.
        images: [...] the same for the choice of images; below 0 counts as 0.
        n: seeds, at least 2.
        image_freedom: degrees of freedom of `images`.

    Returns:
        [...] standard errors, their degrees of freedom, and half the widths of the intervals.
    """
    from scipy.stats import t

    s, i = np.asarray(seeds, dtype=float), np.maximum(np.asarray(images, dtype=float), 0.0)
    total = s + i
    with np.errstate(divide="ignore", invalid="ignore"):  # of shares, as squares of small variances vanish
        weighted = 1 / ((s / total) ** 2 / (n - 1) + (i / total) ** 2 / image_freedom)
    least = min(n - 1, image_freedom)  # never less but by rounding
    freedom = np.where(total > 0, np.maximum(weighted, least), float(n - 1))
    upper, error = 1 - (1 - confidence) / 2, np.sqrt(total)
    return error, freedom, np.maximum(t.ppf(upper, freedom) * error, t.ppf(upper, n - 1) * np.sqrt(s))


@dataclass(frozen=True)
class SingleRuns:
    """Accuracies of single runs, as a report publishes them, held against each other or against a margin.

    Attributes:
        difference: better minus worse; the accuracy itself where there is no worse one.
        low: lower end of its interval, for the choice of images alone.
        high: upper end.
        margin: what the difference is held against.
        p_value: two-sided, of difference == margin; NaN where the figures leave no error to estimate.
    """

    difference: float
    low: float
    high: float
    margin: float
    p_value: float


def binomial_comparison(
    better: float, worse: float | None, images: int, margin: float = 0.0, confidence: float = 0.95
) -> SingleRuns:
    """What single runs' accuracies on the same images say, from their binomial error alone.

    It knows nothing of the spread between seeds, which one run does not show, so it is the least that the error can
    be. On the other hand the images are the same: answers that are alike make the difference steadier than two
    independent accuracies (variance p (1 - p) / images each, normal approximation), but how much steadier only the
    answers by image would tell (McNemar), and they are not published. For accuracies of whole images, not of pixels.

    Args:
        better: within 0..1.
        worse: within 0..1; None holds `better` against the margin, exactly: scipy's `binomtest` and its
            Clopper-Pearson interval, with round(better * images) successes.
        images: number of validation images.
        margin: for the difference; within 0..1 where there is no worse figure.

    Raises:
        ValueError: a figure outside 0..1, or no images.
    """
    from scipy.stats import binomtest, norm

    if images < 1 or not all(0 <= p <= 1 for p in (better, better if worse is None else worse)):
        raise ValueError(f"needs accuracies within 0..1 and images, not {better}, {worse} and {images}")
    if worse is None:
        test = binomtest(round(better * images), images, margin)
        low, high = test.proportion_ci(confidence, method="exact")
        return SingleRuns(better, float(low), float(high), margin, float(test.pvalue))
    difference = better - worse
    error = math.sqrt((better * (1 - better) + worse * (1 - worse)) / images)
    if error == 0:  # none wrong or none right, in both
        return SingleRuns(difference, -1.0, 1.0, margin, math.nan)
    half = float(norm.ppf(1 - (1 - confidence) / 2)) * error
    p_value = float(2 * norm.sf(abs(difference - margin) / error))
    return SingleRuns(difference, max(-1.0, difference - half), min(1.0, difference + half), margin, p_value)
