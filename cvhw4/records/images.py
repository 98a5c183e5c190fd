"""What a run's network predicted for every validation image after every epoch: the evidence behind its figures.

Stored beside the record (`seed0-….npz`), because a record is read far more often. From it come the share of a figure's
noise that other validation images would bring, the figures of one half of the validation set, and every other way to
measure the same predictions, a user's own metric among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvhw4.metrics import Counts, confusion, own_figure, segmentation_figures
from cvhw4.records.arrays import pack, require, unpacked

_KINDS = {"predicted": "u1 EV", "labels": "u1 V", "right": "b1 EV", "counts": "u[24] EVsLC"}


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results by epoch (E) and validation image (V), in the data set's order.

    Attributes:
        predicted: uint8 [E, V], the predicted class of an image; None for segmentation.
        labels: uint8 [V], its class; None for segmentation.
        counts: uint32 or uint16 [E, V, 2, 12, C]: pixels away from (0) and near (1) a contour, by CamVid's label and
            predicted class; None for classification.
    """

    predicted: NDArray[np.uint8] | None = None
    labels: NDArray[np.uint8] | None = None
    counts: Counts | None = None

    def __len__(self) -> int:
        """The number of validation images."""
        return self._array.shape[1]

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self._array.shape[0]

    @property
    def strata(self) -> NDArray[np.uint8]:
        """uint8 [V]: what a bootstrap keeps the share of: the class of an image, or nothing (all zeros)."""
        return np.zeros(len(self), np.uint8) if self.labels is None else self.labels

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """bool [E, V], whether the image was classified correctly; None for segmentation."""
        return None if self.predicted is None else self.predicted == self.labels

    def figure(
        self,
        metric: str,
        epoch: int,
        weights: NDArray[np.integer] | None = None,
        own: Callable[..., float] | None = None,
    ) -> NDArray[np.float64]:
        """A figure after an epoch, by its name in the record.

        Args:
            epoch: number, from 1.
            weights: [B, V], how often each image counts; every image once when left out.
            own: computes it, where it is a metric of the user's own: from labels and predicted classes, int64 [V], each
                image as often as it counts; for segmentation from the confusion matrix of the whole set, int64
                [classes of labels, classes predicted], void left out.

        Returns:
            float64 [B], or [] without weights.

        Raises:
            KeyError: a figure that does not come from the images one by one, such as the loss.
            InputError: the own metric raises, or what it returns is no finite number.
        """
        if own is not None:
            draws = np.ones((1, len(self)), np.int64) if weights is None else weights
            values = np.array([own_figure(metric, own, *self._evidence(epoch, draw)) for draw in draws])
            return values if weights is not None else values.reshape(())
        if self.predicted is not None:
            if metric != "accuracy":
                raise KeyError(metric)
            right = (self.predicted[epoch - 1] == self.labels).astype(np.float64)
            return np.asarray(right.mean() if weights is None else weights @ right / weights.sum(-1))
        assert self.counts is not None
        return segmentation_figures(self.counts[epoch - 1].sum(1), weights, [metric])[metric]

    def _evidence(self, epoch: int, weights: NDArray[np.integer]) -> tuple[NDArray[np.int64], ...]:
        """What an own metric is given, each image as often as [V] weights say."""
        if self.counts is not None:
            return (confusion(np.tensordot(weights, self.counts[epoch - 1].sum(1), 1)),)
        assert self.labels is not None and self.predicted is not None
        return tuple(np.repeat(x, weights).astype(np.int64) for x in (self.labels, self.predicted[epoch - 1]))

    @property
    def _array(self) -> NDArray:
        array = self.predicted if self.predicted is not None else self.counts
        assert array is not None
        return array

    @classmethod
    def stack(cls, epochs: Sequence[NDArray], labels: NDArray[np.uint8] | None) -> ImageResults:
        """From the results of each epoch: uint8 [V] classes with their labels, or counts [V, 2, 12, C]."""
        array = np.stack(epochs)
        return cls(counts=array.astype(np.uint32)) if labels is None else cls(predicted=array, labels=labels)

    @classmethod
    def of_two_classes(cls, right: NDArray[np.bool_], labels: NDArray[np.uint8]) -> ImageResults:
        """From bool [E, V], whether each image was classified correctly as one of two classes."""
        return cls(predicted=np.where(right, labels, 1 - labels), labels=labels)

    def to_bytes(self) -> bytes:
        """As it is stored: the same results always give the same bytes."""
        counts = self.counts
        if counts is not None and counts.max(initial=0) < 2**16:
            counts = counts.astype(np.uint16)
        return pack(vars(self) | {"counts": counts})

    @classmethod
    def from_bytes(cls, content: bytes, where: Path, sha256: str | None = None) -> ImageResults:
        """Reads what `to_bytes` gave, and older files that say of images of two classes which were `right`.

        Args:
            where: the file it is from, for the message of an error.
            sha256: of the content, where the file's record tells it.

        Raises:
            InputError: it is damaged, or something else.
        """
        with unpacked(content, _KINDS, where, "is not a file of image results", "repeat the run") as (arrays, sizes):
            own = sha256 in (None, hashlib.sha256(content).hexdigest())
            require(own, "it is not the file its record was stored with")
            groups = ({"predicted", "labels"}, {"right", "labels"}, {"counts"})
            fit = arrays.keys() in groups and sizes.get("s", 2) == 2 and sizes.get("L", 12) == 12
            require(fit and sizes.get("C", 3) in (3, 11), "its arrays do not fit together")
            return cls.of_two_classes(**arrays) if "right" in arrays else cls(**arrays)
