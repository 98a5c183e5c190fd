"""The second source of noise: other validation images would give other figures.

An interval over seeds holds for the validation images at hand. How much the choice of these images matters is found by
drawing from them again (bootstrap, Efron and Tibshirani 1993). Every run has seen the same images, so they are drawn
for all runs at once: seeds and images are crossed, as readers and cases are in studies of diagnosis. Where neighbours
are alike, as frames of a film are, they are drawn together, in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvhw4.records.images import ImageResults
from cvhw4.statistics.comparison import DECIMALS
from cvhw4.statistics.intervals import Estimate, hall_transform, reach, two_sided_p
from cvhw4.study import Metric

Runs = Sequence[tuple[ImageResults, int]]  # of each seed: its results, and the epoch whose figure is taken
_GROUPS = 200  # of neighbouring images, at most, whose influence on a figure is looked at


@dataclass(frozen=True)
class ImageNoise:
    """What the choice of validation images does to a mean over seeds. Variances are in the figure's unit squared.

    Attributes:
        mean_variance: of the mean from one choice of images to another, the seeds being as they are.
        interaction: the part of one run's variance that is its own, not shared with the other seeds; 0 for one seed.
        images: number of validation images.
        seeds: number of seeds, n.
        block: how many neighbouring images were drawn together, see `block_length`.
    """

    mean_variance: float
    interaction: float
    images: int
    seeds: int
    block: int = 1

    @property
    def one_run(self) -> float:
        """Variance over images of one run's figure, or of one seed's difference: images alone and the run's own."""
        return self.mean_variance + self.interaction * (self.seeds - 1) / self.seeds

    @property
    def images_alone(self) -> float:
        """The part of it that all seeds share, which no number of seeds takes away: B/V in `image_noise`; for one
        seed, which does not show the rest, all of it."""
        return max(self.mean_variance - self.interaction / self.seeds, 0.0)


def block_length(influence: NDArray[np.float64], strata: NDArray[np.uint8]) -> int:
    """How many neighbouring images are drawn together: 1 where those of a stratum differ as images by chance do, else
    as many as give the least error of a mean's variance for a series whose values follow the one before them (AR(1))
    with the correlation that is found (Politis and White 2004); a third of the images at most.

    Args:
        influence: [V], what each image adds to a figure, in the order of the images.
        strata: uint8 [V], see `ImageResults.strata`.
    """
    products = squares = 0.0
    for stratum in np.unique(strata):
        apart = influence[strata == stratum] - influence[strata == stratum].mean()
        products, squares = products + float(apart[1:] @ apart[:-1]), squares + float(apart @ apart)
    r, n = min(products / squares, 0.99) if squares > 0 else 0.0, len(influence)
    if not r * math.sqrt(n) > 3:  # so large by chance in one set of a thousand
        return 1
    return max(1, min(round((math.sqrt(6) * r / (1 - r**2)) ** (2 / 3) * n ** (1 / 3)), n // 3))


def neighbours(arms: Sequence[tuple[int, Runs]], metric: str, own: Metric | None = None) -> int:
    """The `block_length` of a figure's mean over seeds, from what it is with each group of neighbours counted twice.

    Args:
        arms: as of `image_noise`; likewise `metric`, `own` and what is raised.
    """
    strata = arms[0][1][0][0].strata
    size = -(-len(strata) // _GROUPS)
    groups = np.concatenate([_in_groups(np.flatnonzero(strata == k), size) for k in np.unique(strata)])
    weights = np.ones((len(groups), len(strata)), np.int64)
    np.put_along_axis(weights, groups, 2, 1)
    influence = sum(sign * images.figure(metric, epoch, weights, own) for sign, runs in arms for images, epoch in runs)
    found = block_length(np.asarray(influence), strata[groups[:, 0]])
    return found if found == 1 else size * found


def _in_groups(members: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """[groups, size] of what follows each other; what is left over at the end is in none."""
    return members[: len(members) // size * size].reshape(-1, size)


def bootstrap_weights(
    strata: NDArray[np.uint8], draws: int, rng: np.random.Generator, block: int = 1
) -> NDArray[np.int64]:
    """How often each image counts in each resample.

    Drawn with replacement within each stratum, so every resample has as many images of each class as the set; in blocks
    of neighbours, the first image following the last (circular block bootstrap, Politis and Romano 1992).

    Args:
        strata: uint8 [V], see `ImageResults.strata`.
        draws: number of resamples, B.
        block: images drawn together.

    Returns:
        int64 [B, V]; each row sums to V.
    """
    weights = np.zeros((draws, len(strata)), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        if block == 1:
            weights[:, members] = rng.multinomial(n, np.full(n, 1 / n), draws)
            continue
        starts = rng.integers(0, n, (draws, -(-n // block), 1))
        drawn = ((starts + np.arange(block)) % n).reshape(draws, -1)[:, :n]
        rows = np.arange(draws)[:, None] * n
        weights[:, members] = np.bincount((rows + drawn).ravel(), minlength=draws * n).reshape(draws, n)
    return weights


def image_noise(
    arms: Sequence[tuple[int, Runs]],
    metric: str,
    rng: np.random.Generator,
    draws: int = 1000,
    own: Metric | None = None,
) -> ImageNoise:
    """Resamples the validation images, the same for all runs of all rows, and takes the mean over seeds each time.

    The figure is the sum of the arms', each with its sign: [(1, a)] is row a itself, [(1, a), (-1, b)] the difference
    of two, and [(1, a), (-1, b), (-1, c), (1, d)] the difference of the differences a - b and c - d.

    Let d[s, i] be what image i adds to the figure of seed s: d[s, i] = mu + a_s + b_i + e_si, with independent seed
    effects (variance A), image effects (B) and effects of a seed on an image (E), over n seeds and V images. Then

        variance of the mean over seeds and images      A/n + B/V + E/(nV)
        variance between seeds on the same images, S    A   + E/V
        one seed's variance over images, v1             B/V + E/V
        that of the mean over n seeds, vm               B/V + E/(nV)

    The bootstrap estimates vm (`mean_variance`) and v1, averaged over seeds. v1 - vm = E/V * (n - 1)/n, so the
    interaction E/V is (v1 - vm) * n/(n - 1). The sum S/n + vm has E/(nV) once too often: see `squared_error`. A
    figure that is no mean over images, such as an mIoU, follows this as far as it is linear in the images' weights.

    The epoch is given, as a rule that of the run's best figure on all images, and is not chosen again in a resample.
    What choosing it adds to the figure is `cvhw4.statistics.selection`'s matter. Resamples take the images at hand for
    all there are, which leaves variances short by one part in as many as a class has images.

    Args:
        arms: a sign, 1 or -1, and of each seed the run's results and the number, from 1, of the epoch whose figure is
            taken; the same seeds in the same order in all arms.
        metric: the figure's name in the record.
        rng: draws the images.
        draws: number of resamples, 2 or more.
        own: the metric, where it is of the study's own.

    Raises:
        ValueError: runs on different images.
        InputError: the study's metric has no figure on some of the images drawn.
        KeyError: a figure that does not come from the images one by one, such as the loss, or from scores that are not
            kept.
    """
    runs = [run for _, of_arm in arms for run in of_arm]
    strata = runs[0][0].strata
    if not all(np.array_equal(images.strata, strata) for images, _ in runs):
        raise ValueError("the runs were validated on different images")
    n, block = len(arms[0][1]), neighbours(arms, metric, own)
    weights = bootstrap_weights(strata, draws, rng, block)
    figures = [[sign * images.figure(metric, epoch, weights, own) for images, epoch in runs] for sign, runs in arms]
    drawn = np.sum(figures, axis=0)  # [n, B]
    mean_variance, one_run = float(drawn.mean(0).var(ddof=1)), float(drawn.var(1, ddof=1).mean())
    interaction = max(one_run - mean_variance, 0.0) * n / (n - 1) if n > 1 else 0.0
    return ImageNoise(mean_variance, interaction, len(strata), n, block)


def squared_error(seed_sd: float, n: int, noise: ImageNoise) -> float:
    """Squared standard error of a mean over seeds that holds for other seeds and other validation images.

    seed_sd**2 / n + mean_variance - interaction / n: what a seed makes of an image is in both sources and counts once
    (see `image_noise`). Each part is estimated with an error of its own; the result is never below the larger source.

    Args:
        seed_sd: standard deviation of the n seeds' figures or differences, all on the same images; NaN gives NaN.
        n: seeds.
    """
    seeds = seed_sd**2 / n
    return max(seeds + noise.mean_variance - noise.interaction / n, seeds, noise.mean_variance)


@dataclass(frozen=True)
class Combined:
    """A mean whose error comes from seeds and from validation images.

    Attributes:
        estimate: its n and sd are those of the seeds, its interval covers both errors.
        standard_error: of the mean, both errors together; NaN for one seed.
        freedom: degrees of freedom of that error; NaN for one seed.
        seed_error: of the mean, the seeds' error alone.
        seed_freedom: its degrees of freedom.
        skewness: of the seeds' figures, 0 where it is not counted.
    """

    estimate: Estimate
    standard_error: float
    freedom: float
    seed_error: float = 0.0
    seed_freedom: int = 0
    skewness: float = 0.0

    def p_value(self, margin: float = 0.0) -> float:
        """Two-sided t test of mean == margin, never below the seeds' alone; NaN for one seed, 0 or 1 where there is no
        error."""
        excess = round(self.estimate.mean - margin, DECIMALS)
        if self.standard_error == 0:
            return 0.0 if excess else 1.0
        both = self._p(excess / self.standard_error, self.freedom, _of_both(self))
        seeds = self._p(excess / self.seed_error, self.seed_freedom, self.skewness) if self.seed_error > 0 else both
        return max(both, seeds)

    def _p(self, t: float, freedom: float, skewness: float) -> float:
        hall = float(hall_transform(t, skewness, self.estimate.n))
        return two_sided_p(min(abs(t), abs(hall)) if t * hall > 0 else 0.0, freedom)


def combine(
    mean: float,
    seed_sd: float,
    n: int,
    image_variance: float,
    image_freedom: float,
    seed_freedom: int | None = None,
    skewness: float = 0.0,
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
        image_freedom: its degrees of freedom, images (or blocks of them) - 1; may be infinite.
        seed_freedom: those of the seeds' standard deviation, n - 1 by default.
        skewness: of the seeds' figures, where it counts (`comparison.Comparison`); the images' part has none.

    Raises:
        ValueError: no seeds, or no degree of freedom for the images.
    """
    if n < 1 or not image_freedom >= 1:
        raise ValueError(f"needs seeds and a degree of freedom for the images, not {n} and {image_freedom}")
    if n == 1:
        return Combined(Estimate(1, mean, math.nan, -math.inf, math.inf), math.nan, math.nan)
    seeds, images = seed_sd**2 / n, max(image_variance, 0.0)
    total = seeds + images
    error, seed_error, of_seeds = math.sqrt(total), math.sqrt(seeds), seed_freedom or n - 1
    freedom = float(of_seeds)
    if total > 0:
        parts = (seeds / total) ** 2 / of_seeds + (images / total) ** 2 / image_freedom
        freedom = max(1 / parts if parts else math.inf, min(of_seeds, image_freedom))  # never less but by rounding
    made = Combined(Estimate(n, mean, seed_sd, mean, mean), error, freedom, seed_error, of_seeds, skewness)
    sources = ((error, reach(n, freedom, _of_both(made))), (seed_error, reach(n, of_seeds, skewness)))
    below, above = (max(by * ends[side] for by, ends in sources) for side in (0, 1))
    return replace(made, estimate=Estimate(n, mean, seed_sd, mean - below, mean + above))


def _of_both(combined: Combined) -> float:
    """Skewness of figures whose mean has both errors: third moments add up, and the images' is 0."""
    share = combined.seed_error / combined.standard_error if combined.standard_error > 0 else 0.0
    return combined.skewness * share**3
