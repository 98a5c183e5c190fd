"""How many seeds would decide a claim, and how little that number is known."""

from __future__ import annotations

import math

from cvhw4.statistics.comparison import DECIMALS, LEVEL, Comparison
from cvhw4.statistics.intervals import t_quantile

_POWER = 0.9
_MOST_SEEDS = 10_000
_LARGEST_SHIFT = 1e6  # of a noncentral t distribution; scipy gives NaN for one of 1e12


def power(effect: float, n: int, level: float = LEVEL) -> float:
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


def smallest_effect(n: int, level: float = LEVEL) -> float:
    """The smallest true mean over true standard deviation that the t test with n seeds decides in 90 of 100 studies.

    Args:
        n: seeds; infinite for fewer than 2.
        level: of the test.
    """
    if n < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(high, n, level) < _POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, n, level) >= _POWER else (middle, high)
    return high


def largest_sd(sd: float, n: int) -> float:
    """Upper end of the 95 % interval of a standard deviation that n values showed (chi-squared); infinite for one."""
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, 0.975))) if n > 1 else math.inf


def _seeds_for(effect: float, level: float) -> int | None:
    """Fewest seeds with a power of 0.9 for a true mean over true standard deviation."""
    if effect == 0 or math.isnan(effect):
        return None
    low, high = 1, 2  # too few, and to be tried
    while not power(effect, high, level) >= _POWER:
        if high >= _MOST_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, level) >= _POWER else (middle, high)
    return high if high <= _MOST_SEEDS else None


def effect_interval(effect: float, n: int) -> tuple[float, float]:
    """95 % interval of the true mean over the true standard deviation, of which a sample gave `effect`.

    The noncentral t distribution turned around (Steiger and Fouladi 1997; Cumming and Finch 2001): the ends are the
    effects with which a t as small, or as large, as the one seen comes up in 2.5 % of samples.

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
    low, high = (_shift_of(seen, n - 1, p) / math.sqrt(n) for p in (0.975, 0.025))
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


def seeds_to_decide(comparison: Comparison, level: float = LEVEL) -> tuple[int | None, int | None, int | None]:
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
