"""The second source of noise: other validation images would give other figures.

An interval over seeds holds for the validation images at hand. How much the choice of these images matters is found by
drawing from them again (bootstrap, Efron and Tibshirani 1993). Every run has seen the same images, so they are drawn
for all runs at once: seeds and images are crossed, as readers and cases are in studies of diagnosis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.records.images import ImageResults

Runs = Sequence[tuple[ImageResults, int]]  # of each seed: its results, and the epoch whose figure is taken


@dataclass(frozen=True)
class ImageNoise:
    """What the choice of validation images does to a mean over seeds. Variances are in the figure's unit squared.

    Attributes:
        mean: over seeds, of the paired difference or of the figure, on the images as they are.
        mean_variance: of that mean from one choice of images to another, the seeds being as they are.
        interaction: the part of one run's variance that is its own, not shared with the other seeds; 0 for one seed.
        low: lower end of the mean's 95 % interval over images (percentiles of the resamples), for these seeds.
        high: upper end.
        draws: number of resamples.
        images: number of validation images.
        seeds: number of seeds, n.
    """

    mean: float
    mean_variance: float
    interaction: float
    low: float
    high: float
    draws: int
    images: int
    seeds: int

    @property
    def one_run(self) -> float:
        """Variance over images of one run's figure, or of one seed's difference: images alone and the run's own."""
        return self.mean_variance + self.interaction * (self.seeds - 1) / self.seeds

    @property
    def images_alone(self) -> float:
        """The part of it that all seeds share, which no number of seeds takes away: B/V in `image_noise`; for one
        seed, which does not show the rest, all of it."""
        return max(self.mean_variance - self.interaction / self.seeds, 0.0)


def bootstrap_weights(strata: NDArray[np.uint8], draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each image counts in each resample.

    Drawn with replacement within each stratum, so every resample has as many images of each class as the set.

    Args:
        strata: uint8 [V], see `ImageResults.strata`.
        draws: number of resamples, B.

    Returns:
        int64 [B, V]; each row sums to V.
    """
    weights = np.zeros((draws, len(strata)), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), draws)
    return weights


def image_noise(
    arms: Sequence[tuple[int, Runs]],
    metric: str,
    rng: np.random.Generator,
    draws: int = 1000,
    own: Callable[..., float] | None = None,
) -> ImageNoise:
    """Draws the validation images anew, the same for all runs of all rows, and takes the mean over seeds each time.

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
        draws: number of resamples.
        own: computes the figure, where it is a metric of the user's own.

    Raises:
        ValueError: no runs, rows of different lengths, another sign, runs on different images, an epoch there is not,
            or fewer than two draws.
        InputError: the own metric has no figure on some images drawn.
        KeyError: a figure that does not come from the images one by one, such as the loss.
    """
    runs = [run for _, of_arm in arms for run in of_arm]
    if not runs or len({len(of_arm) for _, of_arm in arms}) > 1 or draws < 2:
        raise ValueError("needs two draws or more, and rows with the same seeds")
    if not all(sign in (1, -1) for sign, _ in arms):
        raise ValueError(f"an arm's sign is 1 or -1, not one of {[sign for sign, _ in arms]}")
    strata = runs[0][0].strata
    if not all(np.array_equal(images.strata, strata) for images, _ in runs):
        raise ValueError("the runs were validated on different images")
    for images, epoch in runs:
        if not 1 <= epoch <= images.epochs:
            raise ValueError(f"a run of {images.epochs} epochs has no epoch {epoch}")
    n = len(arms[0][1])
    weights = bootstrap_weights(strata, draws, rng)
    drawn, whole = _by_seed(arms, metric, weights, own), _by_seed(arms, metric, None, own)
    means = drawn.mean(0)
    mean_variance, one_run = float(means.var(ddof=1)), float(drawn.var(1, ddof=1).mean())
    interaction = max(one_run - mean_variance, 0.0) * n / (n - 1) if n > 1 else 0.0
    low, high = np.quantile(means, [0.025, 0.975])
    return ImageNoise(float(whole.mean()), mean_variance, interaction, float(low), float(high), draws, len(strata), n)


def squared_error(seed_sd: float, n: int, noise: ImageNoise) -> float:
    """Squared standard error of a mean over seeds that holds for other seeds and other validation images.

    seed_sd**2 / n + mean_variance - interaction / n: what a seed makes of an image is in both sources and counts once
    (see `image_noise`). Each part is estimated with an error of its own; the result is never below the larger source.

    Args:
        seed_sd: standard deviation of the n seeds' figures or differences, all on the same images; NaN gives NaN.
        n: seeds.
    """
    if math.isnan(seed_sd):
        return math.nan
    return float(squared_errors(seed_sd**2 / n, n, noise.mean_variance, noise.interaction))


def squared_errors(seeds: ArrayLike, n: int, mean_variance: ArrayLike, interaction: ArrayLike) -> NDArray[np.float64]:
    """`squared_error` of many means at once, from [...] variances: `seeds` is seed_sd**2 / n."""
    s, m = np.asarray(seeds, dtype=float), np.asarray(mean_variance, dtype=float)
    return np.maximum(np.maximum(s, m), s + m - np.asarray(interaction, dtype=float) / n)


def mean_noise(values: NDArray, strata: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `image_noise` estimates, without drawing: for figures that are means over images, such as accuracies.

    A resample's mean over a stratum of m images has the variance of these images' values over m, so that the variance
    of the whole is the sum of (m/V)**2 times that.

    Args:
        values: [..., n, V], what each seed makes of each image: 1 or 0, or their difference.
        strata: uint8 [V], see `ImageResults.strata`.

    Returns:
        [...] `mean_variance` and [...] `interaction`, to which those of `image_noise` come near with more draws.
    """
    n, of_mean, one_run = values.shape[-2], 0.0, 0.0
    for stratum in np.unique(strata):
        members = values[..., strata == stratum]
        weight = members.shape[-1] / len(strata) ** 2
        of_mean = of_mean + weight * members.mean(-2).var(-1)
        one_run = one_run + weight * members.var(-1).mean(-1)
    interaction = np.maximum(one_run - of_mean, 0.0) * n / (n - 1) if n > 1 else np.zeros_like(of_mean)
    return np.asarray(of_mean), np.asarray(interaction)


def _by_seed(
    arms: Sequence[tuple[int, Runs]],
    metric: str,
    weights: NDArray[np.int64] | None,
    own: Callable[..., float] | None,
) -> NDArray[np.float64]:
    """[n, B] signed sums of the arms' figures, or [n] without weights."""
    figures = [[sign * images.figure(metric, epoch, weights, own) for images, epoch in runs] for sign, runs in arms]
    return np.sum(figures, axis=0)
