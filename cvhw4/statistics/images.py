"""The second source of noise: other validation images would give other figures.

An interval over seeds holds for the validation images at hand. How much the choice of these images matters is found by
drawing from them again (bootstrap, Efron and Tibshirani 1993). Every run has seen the same images, so they are drawn
for all runs at once: seeds and images are crossed, as readers and cases are in studies of diagnosis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    mean: float
    mean_variance: float
    interaction: float
    low: float
    high: float
    draws: int
    images: int


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
    better: Runs, worse: Runs | None, metric: str, rng: np.random.Generator, draws: int = 1000
) -> ImageNoise:
    """Draws the validation images anew, the same for all runs of both rows, and takes the mean over seeds each time.

    Let d[s, i] be what image i adds to the difference of seed s: d[s, i] = mu + a_s + b_i + e_si, with independent seed
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
        better: of each seed its results and the number, from 1, of the epoch whose figure is taken.
        worse: the same seeds in the same order; None for the noise of the better row's own figure.
        metric: the figure's name in the record.
        rng: draws the images.
        draws: number of resamples.

    Raises:
        ValueError: no runs, rows of different lengths, runs on different images, an epoch there is not, or fewer than
            two draws.
        KeyError: a figure that does not come from the images one by one, such as the loss.
    """
    runs = [*better, *(worse or ())]
    if not better or (worse is not None and len(worse) != len(better)) or draws < 2:
        raise ValueError("needs two draws or more, and two rows with the same seeds")
    strata = runs[0][0].strata
    if not all(np.array_equal(images.strata, strata) for images, _ in runs):
        raise ValueError("the runs were validated on different images")
    for images, epoch in runs:
        if not 1 <= epoch <= images.epochs:
            raise ValueError(f"a run of {images.epochs} epochs has no epoch {epoch}")
    n = len(better)
    weights = bootstrap_weights(strata, draws, rng)
    drawn = _by_seed(better, metric, weights)
    whole = _by_seed(better, metric, None)
    if worse is not None:
        drawn, whole = drawn - _by_seed(worse, metric, weights), whole - _by_seed(worse, metric, None)
    means = drawn.mean(0)
    mean_variance, one_run = float(means.var(ddof=1)), float(drawn.var(1, ddof=1).mean())
    interaction = max(one_run - mean_variance, 0.0) * n / (n - 1) if n > 1 else 0.0
    low, high = np.quantile(means, [0.025, 0.975])
    return ImageNoise(float(whole.mean()), mean_variance, interaction, float(low), float(high), draws, len(strata))


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
    seeds = seed_sd**2 / n
    return max(seeds, noise.mean_variance, seeds + noise.mean_variance - noise.interaction / n)


def _by_seed(runs: Runs, metric: str, weights: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """[n, B] figures, or [n] without weights."""
    return np.stack([images.figure(metric, epoch, weights) for images, epoch in runs])
