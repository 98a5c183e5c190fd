"""What a run's network made of every validation image after every epoch: the evidence behind its figures.

Stored beside the record (`seed0-….npz`, NumPy's own format, no pickles), because a record is read far more often. From
it come the share of a figure's noise that other validation images would bring, the figures of one half of the
validation set, and every other way to measure the same predictions, a user's own metric among them.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvhw4.data.dataset import VOID
from cvhw4.errors import InputError
from cvhw4.training.metrics import Counts, classes_of, segmentation_figures

MOST_PACKED = 1040  # times that zlib's bytes can become more


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results by epoch (E) and validation image (V), in the data set's order.

    Attributes:
        predicted: uint8 [E, V], the class that the image was taken for (Q1); None for segmentation.
        labels: uint8 [V], its class (Q1).
        counts: uint32 [E, V, 2, 12, C]: pixels away from (0) and near (1) a contour, by CamVid's label and predicted
            class (Q2); None for classification.
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
        """bool [E, V], whether the image was classified rightly; None for segmentation."""
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
        """From bool [E, V], whether each image was classified rightly as one of two classes."""
        return cls(predicted=np.where(right, labels, 1 - labels), labels=labels)

    def to_bytes(self) -> bytes:
        """As it is stored: the same results always give the same bytes."""
        arrays = {k: v for k, v in vars(self).items() if v is not None}
        if self.counts is not None and self.counts.max(initial=0) < 2**16:
            arrays["counts"] = self.counts.astype(np.uint16)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, where: Path) -> ImageResults:
        """Reads what `to_bytes` gave, and older files that say of images of two classes which were `right`.

        Args:
            where: the file it is from, for the message of an error.

        Raises:
            InputError: it is damaged, or something else.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    check_size(archive, entry, MOST_PACKED * len(content))
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("right", *cls.__dataclass_fields__) if name in arrays.files}
            _check_fit(found)
            results = cls.of_two_classes(**found) if "right" in found else cls(**found)
        except Exception as error:  # what zipfile, zlib and NumPy raise for what is not theirs has no common name
            problem = f"is no file of image results ({str(error) or type(error).__name__})"
            raise InputError(where, problem, "repeat the run") from error
        return results


def check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> None:
    """Refuses an array that promises more bytes than there can be, before memory is taken for it.

    Raises:
        ValueError: it does, or `to_bytes` writes no such array.
    """
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed in another way")
    with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{entry.filename} is in another format")
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    if min(shape, default=0) < 1 or math.prod(shape) * kind.itemsize > most:
        raise ValueError(f"{entry.filename} promises an array {shape}")


def _check_fit(arrays: dict[str, NDArray]) -> None:
    """Refuses arrays that `to_bytes` does not write together.

    Raises:
        ValueError: they are of other types, or their shapes do not fit.
    """
    match arrays:
        case {"right": taken, "labels": labels, **others} | {"predicted": taken, "labels": labels, **others}:
            kind = np.bool_ if "right" in arrays else np.uint8
            whole = (taken.dtype, labels.dtype, taken.ndim) == (kind, np.uint8, 2)
            whole = whole and not others and taken.shape[1:] == labels.shape
        case {"counts": counts, **others}:
            whole = any(counts.dtype == kind for kind in (np.uint16, np.uint32)) and not others
            whole = whole and counts.ndim == 5 and counts.shape[2:] in ((2, 12, 3), (2, 12, 11))
        case _:
            whole = False
    if not whole:
        raise ValueError("its arrays do not fit together")


def confusion(counts: Counts) -> NDArray[np.int64]:
    """int64 [C, C], pixels by the class of their label and the class predicted, void left out, from counts [12, C]."""
    classes = counts.shape[-1]
    of_label = np.array(classes_of(classes)[:VOID])
    return np.stack([counts[:VOID][of_label == c].sum(0) for c in range(classes)]).astype(np.int64)


def own_figure(name: str, metric: Callable[..., float], *evidence: NDArray[np.int64]) -> float:
    """What a metric of the user's own makes of labels and predictions, or of a confusion matrix.

    Raises:
        InputError: it raises, or what it returns is no finite number.
    """
    try:
        figure = float(metric(*evidence))
    except Exception as error:
        problem = f"raises {type(error).__name__}: {error}"
        raise InputError(f"metric {name}", problem, "see what it is called with in cvhw4.Ablation") from error
    if not math.isfinite(figure):
        raise InputError(f"metric {name}", f"returns {figure}", "let it return a finite number, higher being better")
    return figure
