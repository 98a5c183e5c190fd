"""How often verdicts are wrong, by simulation, and how often fewer seeds would give the same ones.

The formulas are those of `comparison`, on many studies at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.statistics.comparison import holm_adjust, moments, rounding_sd, t_p_values
from cvhw4.statistics.intervals import t_quantile

LEVEL = 0.05
IMAGES = 80
ACCURACY = 0.9


def null_rates(
    n_seeds: int,
    rng: np.random.Generator,
    simulations: int = 10_000,
    claims: int = 13,
    images: int | None = None,
    accuracy: float = ACCURACY,
    resolution: float = 0.0,
) -> dict[str, float]:
    """How often verdicts at 5 % are wrong where no claim holds: every difference lies about its margin.

    The claims of a study are independent here. Those of a real one share rows, so their errors come together, and
    any error at all is rarer.

    Args:
        n_seeds: seeds of each study, at least 2.
        rng: draws the studies.
        simulations: number of studies.
        claims: claims of each.
        images: None draws differences from a normal distribution; a number draws the accuracies of two equally good
            networks on so many images, binomial, so that differences are multiples of 1 / images.
        accuracy: true accuracy of both.
        resolution: as for `comparison.compare`.

    Returns:
        `wrong`, share of claims that are decided, each judged alone; `family`, share of studies with any claim decided
        after Holm's correction; `coverage`, share of 95 % t intervals that hold the margin; and the Monte Carlo
        standard error of each, `wrong_se`, `family_se` and `coverage_se`.
    """
    shape = (simulations, claims, n_seeds)
    if images is None:
        differences = rng.standard_normal(shape)
    else:
        differences = (rng.binomial(images, accuracy, shape) - rng.binomial(images, accuracy, shape)) / images
    floor = rounding_sd(resolution)
    p = t_p_values(differences, floor=floor)
    mean, sd = moments(differences, floor)
    half = t_quantile(0.975, n_seeds - 1) * sd / math.sqrt(n_seeds)
    rates = {
        "wrong": p < LEVEL,
        "family": (holm_adjust(p) < LEVEL).any(-1),
        "coverage": (mean - half <= 0) & (mean + half >= 0),
    }
    shares = {name: float(found.mean()) for name, found in rates.items()}
    errors = {f"{name}_se": math.sqrt(s * (1 - s) / rates[name].size) for name, s in shares.items()}
    return shares | errors


def null_table(
    rng: np.random.Generator, seeds: Sequence[int] = (3, 5, 10), simulations: int = 10_000, claims: int = 13
) -> list[dict[str, float | str]]:
    """`null_rates` by number of seeds and kind of spread.

    Returns:
        One row for each of `seeds` and each `spread`: "normal", "accuracies" (multiples of 1/80, taken as they are)
        and "accuracies, resolution known" (the same, with the least spread that a step of 1/80 implies).
    """
    spreads: dict[str, tuple[int | None, float]] = {
        "normal": (None, 0.0),
        "accuracies": (IMAGES, 0.0),
        "accuracies, resolution known": (IMAGES, 1 / IMAGES),
    }
    return [
        {"spread": spread, "seeds": n, **null_rates(n, rng, simulations, claims, images, resolution=resolution)}
        for spread, (images, resolution) in spreads.items()
        for n in seeds
    ]


class Stability(NamedTuple):
    """How often fewer seeds say of a claim what all of them do.

    Attributes:
        same: share of draws with the verdict of all seeds.
        undecided: share of draws that leave the claim undecided. Where all seeds do so too, this is `same`.
        opposite: share of draws that contradict what all seeds support, or the other way round.
    """

    same: float
    undecided: float
    opposite: float


def stability(
    differences: Sequence[ArrayLike],
    margins: ArrayLike,
    rng: np.random.Generator,
    draw: int = 5,
    resamples: int = 1000,
    level: float = LEVEL,
    floors: ArrayLike = 0.0,
) -> list[Stability]:
    """Draws some of the seeds without replacement, the same for all claims, and judges the claims anew, by Holm.

    Draws share seeds with each other and with the whole, so the shares describe these runs; they are no probability
    that a new study would agree.

    Args:
        differences: [claims, N] by seed, each claim's seeds in the same order; one claim alone is judged uncorrected.
        margins: [claims] or one for all.
        rng: draws the seeds, unless there are no more than `resamples` ways to draw, which are then all taken, once.
        draw: seeds drawn, at least 2.
        resamples: number of draws.
        level: of the family, here and for all seeds.
        floors: [claims] or one for all, least standard deviations, see `comparison.rounding_sd`.

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
    against, least = np.broadcast_to(margins, count), np.broadcast_to(floors, count)
    whole = _signs(values[:, None], against, least, level)[0]
    parts = _signs(values[:, drawn], against, least, level)
    same, undecided, opposite = (parts == whole).mean(0), (parts == 0).mean(0), (parts * whole == -1).mean(0)
    return [Stability(float(s), float(u), float(o)) for s, u, o in zip(same, undecided, opposite, strict=True)]


def _signs(
    values: NDArray[np.float64], margins: NDArray[np.float64], floors: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    """[claims, draws, n] to verdicts [draws, claims]: 1 supported, -1 contradicted, 0 undecided."""
    claims = list(zip(values, margins, floors, strict=True))
    p = np.stack([t_p_values(v, margin, floor) for v, margin, floor in claims], axis=-1)
    signs = np.stack([np.sign(moments(v - margin)[0]) for v, margin, _ in claims], axis=-1)
    return np.where(holm_adjust(p) < level, signs, 0.0)
