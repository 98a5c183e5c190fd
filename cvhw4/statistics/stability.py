"""How often fewer seeds would give the same verdicts, and how often a verdict is wrong under the shape of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.statistics.comparison import LEVEL, equivalence_p_values, holm, moments, t_p_values
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
    differences: Sequence[ArrayLike],
    margins: ArrayLike,
    rng: np.random.Generator,
    draw: int = 5,
    resamples: int = 1000,
    floors: ArrayLike = 0.0,
    smallest: ArrayLike = 0.0,
) -> list[Stability]:
    """Draws some of the seeds without replacement, the same for all claims, and judges the claims again, by Holm.

    Draws share seeds with each other and with the whole, so the shares describe these runs; they are no probability
    that a new study would agree.

    Args:
        differences: [claims, N] by seed, each claim's seeds in the same order; one claim alone is judged uncorrected.
        margins: [claims] or one for all.
        rng: draws the seeds, unless there are no more than `resamples` ways to draw, which are then all taken, once.
        draw: seeds drawn, at least 2.
        resamples: number of draws.
        floors: [claims] or one for all, least standard deviations, see `comparison.rounding_sd`.
        smallest: [claims] or one for all, differences of interest, as `comparison.compare` takes them.

    Raises:
        ValueError: the claims differ in their number of seeds, or these are fewer than drawn.
    """
    rows = [np.asarray(d, dtype=float) for d in differences]
    if len({r.shape for r in rows}) != 1 or rows[0].ndim != 1 or not 2 <= draw <= len(rows[0]):
        raise ValueError(f"needs claims over the same seeds, at least {max(draw, 2)}, not {[r.shape for r in rows]}")
    values = np.stack(rows)
    count, seeds = values.shape
    if math.comb(seeds, draw) <= resamples:
        drawn = np.array(list(combinations(range(seeds), draw)))
    else:
        drawn = np.argsort(rng.random((resamples, seeds)), axis=1)[:, :draw]
    settings = [np.broadcast_to(of_claim, count) for of_claim in (margins, smallest, floors)]
    whole = _signs(values[:, None], *settings)[0]
    parts = _signs(values[:, drawn], *settings)
    same, opposite = (parts == whole).mean(0), (parts * whole == -1).mean(0)
    said = [_VERDICTS[sign] for sign in whole.tolist()]
    return [Stability(float(s), float(o), v) for v, s, o in zip(said, same, opposite, strict=True)]


def wrong_verdicts(
    differences: ArrayLike,
    rng: np.random.Generator,
    numbers: Sequence[int],
    looks: Sequence[int],
    floor: float = 0.0,
    draws: int = 4000,
) -> tuple[list[float], float]:
    """How often the t test decides at 5 % where the mean is the margin, the differences having the shape of those seen.

    They are drawn with replacement from the ones seen less their mean. Ties among few draws from few values make the
    spread of three seeds look smaller than it is, and the first rates too high rather than too low.

    Args:
        differences: [N] by seed.
        numbers: of seeds, for each of which a rate is asked for.
        looks: numbers of seeds after which a study looks again, until it is decided.
        floor: least standard deviation, see `comparison.rounding_sd`.

    Returns:
        The share of draws that are decided, by number; and of those that are at any look.
    """
    values = np.asarray(differences, dtype=float)
    drawn = rng.choice(values - values.mean(), (draws, max(*numbers, *looks)))
    decided = {n: t_p_values(drawn[:, :n], floor=floor) < LEVEL for n in {*numbers, *looks}}
    return [float(decided[n].mean()) for n in numbers], float(np.any([decided[n] for n in looks], axis=0).mean())


def _signs(
    values: NDArray[np.float64],
    margins: NDArray[np.float64],
    smallest: NDArray[np.float64],
    floors: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[claims, draws, n] to verdicts [draws, claims], see `_VERDICTS`."""
    claims = list(zip(values, margins, smallest, floors, strict=True))
    differ = holm(np.stack([t_p_values(v, margin, floor) for v, margin, _, floor in claims], axis=-1))
    equal = holm(np.stack([equivalence_p_values(*of_claim) for of_claim in claims], axis=-1))
    signs = np.stack([np.sign(moments(v - margin)[0]) for v, margin, _, _ in claims], axis=-1)
    return np.where(equal < LEVEL, 2.0, np.where(differ < LEVEL, signs, 0.0))
