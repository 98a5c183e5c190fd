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

from cvhw4.statistics.comparison import half_widths, holm_adjust, moments, rounding_sd, t_p_values
from cvhw4.statistics.images import mean_noise, squared_errors
from cvhw4.statistics.intervals import t_quantile

LEVEL = 0.05
IMAGES = 80
_ACCURACY = 0.9
# Standard deviations of the scores behind `both_sources`, beside which that of one run on one image is 1.
_SEED_SD, _IMAGE_SD, _ROW_SD = 0.1, 1.0, 0.4
_BOTH_SOURCES = 1500  # studies at most, as each takes seeds x images draws


def null_rates(
    n_seeds: int,
    rng: np.random.Generator,
    simulations: int = 10_000,
    claims: int = 13,
    images: int | None = None,
    accuracy: float = _ACCURACY,
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
        standard error of each, `wrong_se`, `family_se` and `coverage_se`; and `simulations`.
    """
    return _rates(_null_differences((simulations, claims, n_seeds), rng, images, accuracy), rounding_sd(resolution))


def _null_differences(
    shape: tuple[int, int, int], rng: np.random.Generator, images: int | None, accuracy: float = _ACCURACY
) -> NDArray[np.float64]:
    if images is None:
        return rng.standard_normal(shape)
    from scipy.stats import binom

    of_one = binom.pmf(np.arange(images + 1), images, accuracy)
    below = np.cumsum(np.convolve(of_one, of_one[::-1]))[:-1]  # of -images, ..., images: how likely is at most that
    return (np.searchsorted(below, rng.random(shape), side="right") - images) / images


def _rates(differences: NDArray[np.float64], floor: float) -> dict[str, float]:
    """The rates of [simulations, claims, n] differences."""
    n_seeds = differences.shape[-1]
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
    return shares | errors | {"simulations": len(differences)}


def both_sources(
    n_seeds: int,
    rng: np.random.Generator,
    simulations: int = _BOTH_SOURCES,
    images: int = IMAGES,
    accuracy: float = _ACCURACY,
) -> dict[str, float]:
    """How often the interval with both sources of noise covers, where seeds and validation images are drawn anew.

    Two equally good rows, n seeds each, on the same images of two classes. A run is right where a score is above 0, the
    sum of a level, a part that the image has in both rows (standard deviation `_IMAGE_SD`), one that it has in this row
    (`_ROW_SD`), one of the seed (`_SEED_SD`), one of this run on this image (1), all normal: seeds and images crossed,
    as in `image_noise`. The interval is that of `combine` with `squared_error`; the bootstrap's variances are taken
    from its closed form, `mean_noise`, and the seeds' spread is never below what the resolution of 1 / images implies.

    With few seeds it covers more often than it says: what a seed makes of an image is in both sources, and too little
    is known of it to take it out of one for certain.

    Args:
        n_seeds: seeds of each study, at least 2.
        rng: draws the studies.
        simulations: number of studies.
        images: validation images.
        accuracy: true accuracy of both rows.

    Returns:
        As `null_rates`; `wrong`, `family` and their errors are NaN.
    """
    from scipy.special import ndtri

    level = float(ndtri(accuracy)) * math.sqrt(_SEED_SD**2 + _IMAGE_SD**2 + _ROW_SD**2 + 1)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal((simulations, *shape), np.float32)

    shared, right = _IMAGE_SD * normal(1, images), []
    for _ in range(2):
        score = level + shared + _ROW_SD * normal(1, images) + _SEED_SD * normal(n_seeds, 1)
        right.append(score + normal(n_seeds, images) > 0)
    differences = right[0].astype(np.float32) - right[1]
    mean, sd = moments(differences.mean(-1, dtype=np.float64), rounding_sd(1 / images))
    seeds = sd**2 / n_seeds
    squared = squared_errors(seeds, n_seeds, *mean_noise(differences, np.arange(images, dtype=np.uint8) % 2))
    _, _, half = half_widths(seeds, squared - seeds, n_seeds, images - 1)
    coverage = float((np.abs(mean) <= half).mean())
    unknown = dict.fromkeys(("wrong", "family", "wrong_se", "family_se"), math.nan)
    error = math.sqrt(coverage * (1 - coverage) / simulations)
    return unknown | {"coverage": coverage, "coverage_se": error, "simulations": simulations}


def null_table(
    rng: np.random.Generator,
    seeds: Sequence[int] = (3, 5, 10),
    simulations: int = 10_000,
    claims: int = 13,
    images: int = IMAGES,
) -> list[dict[str, float | str]]:
    """`null_rates` by number of seeds and kind of spread, and `both_sources`.

    Args:
        images: that accuracies are shares of.

    Returns:
        One row for each of `seeds` and each `spread`: "normal"; "accuracies" (multiples of 1 / images, taken as they
        are); "accuracies, resolution known" (the same figures, with the least spread that a step of 1 / images
        implies); and "seeds and images" (`both_sources`, of 1,500 studies at most, with `wrong` and `family` NaN).
    """
    kinds = ("normal", "accuracies", "accuracies, resolution known", "seeds and images")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for n in seeds:
        shape = (simulations, claims, n)
        found[kinds[0], n] = _rates(_null_differences(shape, rng, None), 0.0)
        drawn = _null_differences(shape, rng, images)
        found[kinds[1], n], found[kinds[2], n] = (_rates(drawn, floor) for floor in (0.0, rounding_sd(1 / images)))
        found[kinds[3], n] = both_sources(n, rng, min(simulations, _BOTH_SOURCES), images)
    return [{"spread": kind, "seeds": n, **found[kind, n]} for kind in kinds for n in seeds]


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
