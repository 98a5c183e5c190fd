"""What a run's network made of every validation image after every epoch: the evidence behind its figures.

Stored beside the record (`seed0-….npz`, NumPy's own format, no pickles), because a record is read far more often. From
it come the share of a figure's noise that other validation images would bring, the figures of one half of the
validation set, and every other way to measure the same predictions.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import InputError
from cvhw4.training.metrics import Counts, segmentation_figures

MOST_PACKED = 1040  # times that zlib's bytes can become more


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results by epoch (E) and validation image (V), in the data set's order.

    Attributes:
        right: bool [E, V], whether the image was classified rightly (Q1); None for segmentation.
        labels: uint8 [V], its class (Q1).
        counts: uint32 [E, V, 2, 12, C]: pixels away from (0) and near (1) a contour, by CamVid's label and predicted
            class (Q2); None for classification.
    """

    right: NDArray[np.bool_] | None = None
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

    def figure(self, metric: str, epoch: int, weights: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
        """A figure after an epoch, by its name in the record.

        Args:
            epoch: number, from 1.
            weights: [B, V], how often each image counts; every image once when left out.

        Returns:
            float64 [B], or [] without weights.

        Raises:
            KeyError: a figure that does not come from the images one by one, such as the loss.
        """
        if self.right is not None:
            if metric != "accuracy":
                raise KeyError(metric)
            right = self.right[epoch - 1].astype(np.float64)
            return np.asarray(right.mean() if weights is None else weights @ right / weights.sum(-1))
        assert self.counts is not None
        return segmentation_figures(self.counts[epoch - 1].sum(1), weights)[metric]

    @property
    def _array(self) -> NDArray:
        array = self.right if self.right is not None else self.counts
        assert array is not None
        return array

    @classmethod
    def stack(cls, epochs: Sequence[NDArray], labels: NDArray[np.uint8] | None) -> ImageResults:
        """From the results of each epoch: bool [V], or counts [V, 2, 12, C]."""
        array = np.stack(epochs)
        return cls(right=array, labels=labels) if array.dtype == np.bool_ else cls(counts=array.astype(np.uint32))

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
        """Reads what `to_bytes` gave.

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
                results = cls(**{name: arrays[name] for name in cls.__dataclass_fields__ if name in arrays.files})
            _check_fit(results)
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


def _check_fit(results: ImageResults) -> None:
    """Refuses arrays that `to_bytes` does not write together.

    Raises:
        ValueError: they are of other types, or their shapes do not fit.
    """
    match vars(results):
        case {"right": np.ndarray() as right, "labels": np.ndarray() as labels, "counts": None}:
            whole = (right.dtype, labels.dtype, right.ndim) == (np.bool_, np.uint8, 2)
            whole = whole and right.shape[1:] == labels.shape
        case {"right": None, "labels": None, "counts": np.ndarray() as counts}:
            whole = any(counts.dtype == kind for kind in (np.uint16, np.uint32))
            whole = whole and counts.ndim == 5 and counts.shape[2:] in ((2, 12, 3), (2, 12, 11))
        case _:
            whole = False
    if not whole:
        raise ValueError("its arrays do not fit together")
