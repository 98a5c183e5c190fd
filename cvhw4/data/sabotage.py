"""Training data made wrong on purpose, for negative controls: what a build's bounds have to notice.

The validation split is never touched, so that its figures tell of the training alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cvhw4.data.dataset import CAMVID_CLASSES, VOID, Dataset, Split
from cvhw4.experiments import Sabotage

_SWAPPED = tuple(CAMVID_CLASSES.index(name) for name in ("Road", "Pavement"))


def spoilt(dataset: Dataset, sabotage: Sabotage | None, seed: int) -> Dataset:
    """The data set with its training split spoilt; itself where nothing is to be spoilt.

    Args:
        sabotage: what, and how much of it:
            "label noise" gives this share of the training images another class (Q1);
            "smaller training set" leaves out this share of the training images;
            "mask shift" moves label pictures to the right by so many pixels, void entering from the left (Q2);
            "classes swapped" exchanges Road and Pavement in the labels of this share of the training images (Q2).
        seed: decides which images, together with the kind.

    Raises:
        ValueError: a strength or a task that the kind does not know.
    """
    if sabotage is None:
        return dataset
    task, spoil = _KINDS[sabotage.kind]
    if task not in (None, dataset.task):
        raise ValueError(f"{sabotage.kind} is for {task}, not for {dataset.task}")
    # Draws of its own: with a strength of 0.1 the images spoilt are among those spoilt with 0.2.
    order = np.random.RandomState([seed, *sabotage.kind.encode()]).permutation(len(dataset.train))
    train = spoil(dataset.train, sabotage.strength, order, len(dataset.classes))
    return replace(dataset, train=train)


def _label_noise(split: Split, share: float, order: NDArray[np.intp], classes: int) -> Split:
    """Classes move on by one: with two classes, to the other one."""
    chosen = _part(order, share)
    targets = split.targets.copy()
    targets[chosen] = (targets[chosen] + 1) % classes
    return replace(split, targets=targets)


def _smaller(split: Split, share: float, order: NDArray[np.intp], classes: int) -> Split:
    kept = np.sort(order[len(_part(order, share)) :])
    if not len(kept):
        raise ValueError("a training set of no images cannot be trained on")
    names = tuple(split.names[i] for i in kept)
    return Split(split.images[kept], split.sizes[kept], split.targets[kept], names)


def _shifted(split: Split, pixels: float, order: NDArray[np.intp], classes: int) -> Split:
    by = round(pixels)
    if not 0 < by < split.targets.shape[2]:
        raise ValueError(f"a shift of {by} pixels leaves nothing of labels {split.targets.shape[2]} pixels wide")
    targets = np.full_like(split.targets, VOID)
    targets[:, :, by:] = split.targets[:, :, :-by]
    return replace(split, targets=targets)


def _swapped(split: Split, share: float, order: NDArray[np.intp], classes: int) -> Split:
    table = np.arange(VOID + 1, dtype=np.uint8)
    table[list(_SWAPPED)] = _SWAPPED[::-1]
    chosen = _part(order, share)
    targets = split.targets.copy()
    targets[chosen] = table[targets[chosen]]
    return replace(split, targets=targets)


def _part(order: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """The first of the images in that order, so many that they are this share of all."""
    if not 0 < share <= 1:
        raise ValueError(f"a share lies above 0 and up to 1, not at {share}")
    return order[: round(share * len(order))]


_Spoil = Callable[[Split, float, NDArray[np.intp], int], Split]
_KINDS: dict[str, tuple[str | None, _Spoil]] = {
    "label noise": ("classification", _label_noise),
    "smaller training set": (None, _smaller),
    "mask shift": ("segmentation", _shifted),
    "classes swapped": ("segmentation", _swapped),
}
