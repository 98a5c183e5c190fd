"""Training data made wrong on purpose, for negative controls: what a build's bounds have to notice.

The validation split is never touched, so that its figures tell of the training alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cvhw4.data.dataset import Dataset, Split
from cvhw4.errors import InputError
from cvhw4.study import Corruption


def corrupted(dataset: Dataset, corruption: Corruption | None, seed: int) -> Dataset:
    """The data set with its training split corrupted; itself where nothing is to be corrupted.

    Args:
        corruption: what, and how much of it:
            "label noise" gives this share of the training images another class (classification);
            "smaller training set" leaves out this share of the training images;
            "mask shift" moves label pictures to the right by so many pixels, void entering from the left;
            "classes swapped" exchanges its two `classes` in the labels of this share of the training images.
        seed: decides which images, together with the kind.

    Raises:
        InputError: as `check_corruption`; or so small a share is of no image.
    """
    if corruption is None:
        return dataset
    check_corruption(dataset, corruption)
    strength, images = corruption.strength, len(dataset.train)
    if corruption.kind != "mask shift" and round(strength * images) == 0:
        problem = f"has {images} training images, and a strength of {strength:g} ({corruption.kind}) is none of them"
        raise InputError(dataset.name, problem, "give a larger share, or more images")
    # Draws of its own: with a strength of 0.1 the images corrupted are among those corrupted with 0.2.
    order = np.random.RandomState([seed, *corruption.kind.encode()]).permutation(len(dataset.train))
    train = _KINDS[corruption.kind](dataset.train, corruption, order, dataset.classes)
    return replace(dataset, train=train)


def check_corruption(dataset: Dataset, corruption: Corruption) -> None:
    """Refuses a corruption that leaves nothing of this data set to be trained on.

    Raises:
        InputError: no training image is left out of so large a share, or no pixel of its masks after such a shift.
    """
    kind, strength, images = corruption.kind, corruption.strength, len(dataset.train)
    if kind == "smaller training set" and round(strength * images) >= images:
        problem = f"leaves out {strength:g} of {images} training images, which is all"
        raise InputError(dataset.name, problem, "give a smaller share")
    if kind == "mask shift" and round(strength) >= (width := dataset.train.targets.shape[-1]):
        raise InputError(dataset.name, f"shifts masks of {width} pixels by {strength:g}", "give fewer pixels")


def _label_noise(split: Split, how: Corruption, order: NDArray[np.intp], classes: tuple[str, ...]) -> Split:
    """Classes move on by one: with two classes, to the other one."""
    chosen = _part(order, how.strength)
    targets = split.targets.copy()
    targets[chosen] = (targets[chosen].astype(np.int64) + 1) % len(classes)
    return replace(split, targets=targets)


def _smaller(split: Split, how: Corruption, order: NDArray[np.intp], classes: tuple[str, ...]) -> Split:
    kept = np.sort(order[len(_part(order, how.strength)) :])
    names = tuple(split.names[i] for i in kept)
    return Split(split.images[kept], split.sizes[kept], split.targets[kept], names)


def _shifted(split: Split, how: Corruption, order: NDArray[np.intp], classes: tuple[str, ...]) -> Split:
    by = round(how.strength)
    targets = np.full_like(split.targets, len(classes))
    targets[:, :, by:] = split.targets[:, :, :-by]
    return replace(split, targets=targets)


def _swapped(split: Split, how: Corruption, order: NDArray[np.intp], classes: tuple[str, ...]) -> Split:
    one, other = map(classes.index, how.classes)
    table = np.arange(len(classes) + 1, dtype=np.uint8)
    table[[one, other]] = other, one
    chosen = _part(order, how.strength)
    targets = split.targets.copy()
    targets[chosen] = table[targets[chosen]]
    return replace(split, targets=targets)


def _part(order: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """The first of the images in that order, so many that they are this share of all."""
    return order[: round(share * len(order))]


_Corrupt = Callable[[Split, Corruption, NDArray[np.intp], tuple[str, ...]], Split]
_KINDS: dict[str, _Corrupt] = {
    "label noise": _label_noise,
    "smaller training set": _smaller,
    "mask shift": _shifted,
    "classes swapped": _swapped,
}
