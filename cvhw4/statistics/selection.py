"""How much of a best-epoch figure is owed to choosing the epoch on the images it is reported for.

The highest of 25 noisy figures lies above what its network would do on other images (Cawley and Talbot 2010). So the
epoch is chosen on one half of the validation images, and its figure taken on the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cvhw4.records.images import ImageResults
from cvhw4.statistics.images import neighbours
from cvhw4.statistics.intervals import Estimate, estimate


def half_weights(strata: NDArray[np.uint8], splits: int, rng: np.random.Generator, block: int = 1) -> NDArray[np.int64]:
    """Splits of the images into halves, each class by itself; the odd image of a class goes to either half.

    Args:
        strata: uint8 [V], see `ImageResults.strata`, of two images or more.
        splits: number of splits, S.
        block: neighbouring images that go to one half together, as far as halves allow; the first begins anywhere.

    Returns:
        int64 [2, S, V] of 0 and 1: the one half and the other.
    """
    weights = np.zeros((splits, len(strata)), np.int64)
    odd = rng.integers(0, 2, splits)  # which half the first odd image joins; the next class's joins the other
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        rank = rng.permuted(np.tile(np.arange(len(members)), (splits, 1)), axis=1)
        if block > 1:
            place = (np.arange(len(members)) + rng.integers(0, len(members), (splits, 1))) % len(members)
            of_block = np.take_along_axis(rank, place // block, 1)  # blocks in random order, and images within them
            rank = (of_block * len(members) + place).argsort(1).argsort(1)
        weights[:, members] = rank < (len(members) + odd[:, None]) // 2
        odd = (odd + len(members)) % 2
    return np.stack([weights, 1 - weights])


def selection(images: ImageResults, metric: str, rng: np.random.Generator, splits: int = 200) -> dict[str, float]:
    """Splits the validation images in halves, chooses the epoch on one and reports it on the other, and vice versa.

    Over validation sets the halves are independent, so the honest figure is without bias that of an epoch chosen on
    half the images. On one validation set, halves mirror each other: for an accuracy, what one half shows too much the
    other shows too little, so more splits take away the noise of splitting, not that of the set. A figure of half the
    images may lie on another level than one of all (an mIoU does: a class can be absent from a half), so only figures
    of halves are subtracted from each other. Images whose neighbours are alike (frames of a film) are split in blocks
    of these, see `cvhw4.statistics.images.block_length`: halves that share a street are no halves.

    Args:
        metric: the figure's name in the record; higher is better. Of equal epochs the first is chosen, as
            `RunRecord.best_epoch` does.
        rng: draws the splits.
        splits: their number, at least 1.

    Returns:
        Means over splits and both halves: "chosen_there", the highest figure over the epochs, on the half that the
        epoch is chosen on; "honest", that epoch's on the other half; "last", the last epoch's. And "optimism",
        chosen_there - honest, by how much choosing on half of the images flatters; "gain", honest - last, what choosing
        brings over the last epoch on other images.

    Raises:
        KeyError: a figure that does not come from the images one by one, such as the loss.
    """
    block = neighbours([(1, [(images, images.epochs)])], metric)
    weights = half_weights(images.strata, splits, rng, block).reshape(2 * splits, -1)
    of_epochs = [images.figure(metric, e, weights) for e in range(1, images.epochs + 1)]
    figures = np.reshape(of_epochs, (-1, 2, splits))  # [E, half, S]
    chosen = figures.argmax(0)[None]
    there = float(np.take_along_axis(figures, chosen, 0).mean())
    honest = float(np.take_along_axis(figures[:, ::-1], chosen, 0).mean())
    last = float(figures[-1].mean())
    means = {"chosen_there": there, "honest": honest, "last": last}
    return means | {"optimism": there - honest, "gain": honest - last}


def selection_over_seeds(
    runs: Sequence[ImageResults], metric: str, rng: np.random.Generator, splits: int = 200
) -> dict[str, Estimate]:
    """`selection` of each run, with splits of its own, as means over seeds with t intervals.

    The intervals cover the spread between seeds and the noise of splitting, not the choice of validation images.

    Args:
        runs: of one row, one for each seed, at least one.

    Raises:
        KeyError: as `selection`.
    """
    found = [selection(images, metric, rng, splits) for images in runs]
    return {name: estimate([of_run[name] for of_run in found]) for name in found[0]}
