"""How often fewer seeds would give the same verdicts, and how often a verdict is wrong under the shape of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.statistics.comparison import FEWEST_KNOWN, LEVEL, equivalence_p_values, holm, moments, t_p_values
from cvhw4.statistics.intervals import Verdict

# By what `_signs` gives.
_VERDICTS: dict[float, Verdict] = {1: "supported", -1: "contradicted", 2: "equivalent", 0: "undecided"}


class Stability(NamedTuple):
    """How often fewer seeds say of a claim what all of them do.

    Attributes:
        same: share of draws with the verdict of all seeds.
        opposite: share of draws that contradict what all seeds support, or the other way round.
        verdict: what all of them say.
    """

    same: float
    opposite: float
    verdict: Verdict


def stability(
    differences: ArrayLike,
    margins: ArrayLike,
    rng: np.random.Generator,
    draw: int = 5,
    resamples: int = 1000,
    floors: ArrayLike = 0.0,
    smallest: ArrayLike = 0.0,
    calibrated: bool = False,
) -> list[Stability]:
    """Draws some of the seeds without replacement, the same for all claims, and judges the claims again, by Holm.

    Draws share seeds with each other and with the whole, so the shares describe these runs; they are no probability
    that a new study would agree.

    Args:
        differences: [claims, N] by seed, each claim's seeds in the same order; one claim alone is judged uncorrected.
        margins: [claims] or one for all.
        rng: draws the seeds, unless there are no more than `resamples` ways to draw, which are then all taken, once.
        draw: seeds drawn, at least 2, at most N.
        resamples: number of draws.
        floors: [claims] or one for all, least standard deviations, see `comparison.rounding_sd`.
        smallest: [claims] or one for all, differences of interest, as `comparison.compare` takes them.
        calibrated: whether the spread of the seeds that are not drawn is known (`comparison.spread`).
    """
    values = np.asarray(differences, dtype=float)
    count, seeds = values.shape
    if math.comb(seeds, draw) <= resamples:
        drawn = np.array(list(combinations(range(seeds), draw)))
    else:
        drawn = np.argsort(rng.random((resamples, seeds)), axis=1)[:, :draw]
    left = np.array([np.setdiff1d(np.arange(seeds), of_draw) for of_draw in drawn])
    known = left if calibrated and seeds - draw >= FEWEST_KNOWN else left[:, :0]
    settings = [np.broadcast_to(of_claim, count) for of_claim in (margins, smallest, floors)]
    whole = _signs(values[:, None], values[:, None, :0], *settings)[0]
    parts = _signs(values[:, drawn], values[:, known.astype(int)], *settings)
    same, opposite = (parts == whole).mean(0), (parts * whole == -1).mean(0)
    said = [_VERDICTS[sign] for sign in whole.tolist()]
    return [Stability(float(s), float(o), v) for v, s, o in zip(said, same, opposite, strict=True)]


class Wrong(NamedTuple):
    """How often claims judged together are decided though none holds, in shares of the draws.

    Attributes:
        decided: [claims, numbers] each claim by itself, before Holm's correction, with so many seeds.
        again: [claims] likewise, at any of several looks.
        equivalent: [claims] called equivalent with the largest number, though the mean is as far from the margin as the
            smallest difference of interest, on the side where that happens more often; NaN where none is named.
        family: [numbers] any of the claims, after Holm's correction.
    """

    decided: NDArray[np.float64]
    again: NDArray[np.float64]
    equivalent: NDArray[np.float64]
    family: NDArray[np.float64]


def wrong_verdicts(
    differences: ArrayLike,
    rng: np.random.Generator,
    numbers: Sequence[int],
    looks: Sequence[int],
    floors: ArrayLike = 0.0,
    smallest: ArrayLike = 0.0,
    calibrated: bool = False,
    draws: int = 2000,
) -> Wrong:
    """How often the t test decides at 5 % where the mean is the margin, the differences having the shape of those seen.

    Seeds are drawn with replacement, the same for all claims, and each claim's differences taken less their mean. Ties
    among few draws from few values make the spread of three seeds look smaller than it is, and the first rates too high
    rather than too low.

    Args:
        differences: [claims, N] by seed, each claim's seeds in the same order.
        numbers: of seeds, for each of which a rate is asked for.
        looks: numbers of seeds after which a study looks again, until it is decided.
        floors: [claims] or one for all, least standard deviations, see `comparison.rounding_sd`.
        smallest: [claims] or one for all, differences of interest, as `comparison.compare` takes them.
        calibrated: whether the spread of further seeds is known, so many that there are N in all (`comparison.spread`).
    """
    values = np.asarray(differences, dtype=float)
    count, seeds = values.shape
    drawn = rng.integers(seeds, size=(draws, max(*numbers, *looks, seeds)))
    centred = (values - values.mean(1, keepdims=True))[:, drawn]  # [claims, draws, seeds]
    least, of_interest = (np.broadcast_to(of_claim, count) for of_claim in (floors, smallest))

    def known(of_claim: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """The calibrated differences beside the first n."""
        return of_claim[:, n:seeds] if calibrated and seeds - n >= FEWEST_KNOWN else of_claim[:, :0]

    p = {
        n: np.stack([t_p_values(v[:, :n], 0.0, f, known(v, n)) for v, f in zip(centred, least, strict=True)])
        for n in {*numbers, *looks}
    }
    most = max(numbers)
    equal = [
        max(
            float((equivalence_p_values(v[:, :most] + side * s, 0.0, s, f, known(v, most)) < LEVEL).mean())
            for side in (1, -1)
        )
        for v, s, f in zip(centred, of_interest, least, strict=True)
    ]
    return Wrong(
        decided=np.stack([(p[n] < LEVEL).mean(1) for n in numbers], axis=1),
        again=np.any([p[n] < LEVEL for n in looks], axis=0).mean(1),
        equivalent=np.where(of_interest > 0, equal, np.nan),
        family=np.array([(holm(p[n].T) < LEVEL).any(1).mean() for n in numbers]),
    )


def _signs(
    values: NDArray[np.float64],
    others: NDArray[np.float64],
    margins: NDArray[np.float64],
    smallest: NDArray[np.float64],
    floors: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[claims, draws, n], and others [claims, draws, m] of which the spread is known, to verdicts [draws, claims], see
    `_VERDICTS`."""
    claims = list(zip(values, margins, smallest, floors, others, strict=True))
    differ = holm(np.stack([t_p_values(v, margin, floor, known) for v, margin, _, floor, known in claims], axis=-1))
    equal = holm(np.stack([equivalence_p_values(*of_claim) for of_claim in claims], axis=-1))
    signs = np.stack([np.sign(moments(v - margin)[0]) for v, margin, *_ in claims], axis=-1)
    return np.where(equal < LEVEL, 2.0, np.where(differ < LEVEL, signs, 0.0))
