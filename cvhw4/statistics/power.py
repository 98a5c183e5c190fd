"""How small a difference so many seeds decide."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cvhw4.statistics.comparison import LEVEL, moments
from cvhw4.statistics.intervals import FEWEST_FOR_SKEWNESS, hall_inverse, skewness, t_quantile

_POWER = 0.9
_DRAWS = 20_000  # studies: the power of 90 % is then known to 0.2 points
_SKEWED = range(FEWEST_FOR_SKEWNESS, 101)  # seeds; of more, skewness takes less than half a point of the power
_LARGEST_SHIFT = 1e6  # of a noncentral t distribution; scipy gives NaN for one of 1e12


def power(effect: float, n: int, level: float = LEVEL, freedom: int | None = None) -> float:
    """Probability that the two-sided t test of normal differences decides, and for the right side, by the noncentral t
    distribution; by simulation where the test takes their skewness into account.

    The wrong side is left out: it is at most half the level, next to nothing where power is worth asking for, and
    scipy 1.17's lower tail of that distribution is NaN here and there.

    Args:
        effect: true mean over true standard deviation.
        n: seeds, at least 2.
        level: of the test.
        freedom: degrees of freedom of the standard deviation, n - 1 by default.
    """
    from scipy.stats import nct

    if n in _SKEWED and freedom in (None, n - 1):
        return float(np.searchsorted(_decided_from(n, level), abs(effect), side="right")) / _DRAWS
    shift, of_sd = min(abs(effect), _LARGEST_SHIFT) * math.sqrt(n), freedom or n - 1
    return float(nct.sf(t_quantile(1 - level / 2, of_sd), of_sd, shift))


def smallest_effect(n: int, level: float = LEVEL, freedom: int | None = None) -> float:
    """The smallest true mean over true standard deviation that the t test with n seeds decides in 90 of 100 studies.

    Args:
        n: seeds; infinite for fewer than 2. `level` and `freedom` as of `power`.
    """
    if n < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(high, n, level, freedom) < _POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, n, level, freedom) >= _POWER else (middle, high)
    return high


@cache
def _decided_from(n: int, level: float) -> NDArray[np.float64]:
    """[studies] sorted effects from which on a study of n normal differences is decided, with and without skewness."""
    noise = np.random.default_rng(0).standard_normal((_DRAWS, n))
    (mean, sd), t = moments(noise), t_quantile(1 - level / 2, n - 1)
    return np.sort(sd / math.sqrt(n) * np.maximum(t, hall_inverse(t, skewness(noise, sd), n)) - mean)


def largest_sd(sd: float, n: int) -> float:
    """Upper end of the 95 % interval of a standard deviation that n values showed (chi-squared); infinite for one."""
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, 0.975))) if n > 1 else math.inf
