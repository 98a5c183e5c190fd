"""What a run's network predicted for every validation image after every epoch: the evidence behind its figures.

Stored beside the record (`seed0-….npz`), because a record is read far more often. From it come the share of a figure's
noise that other validation images would bring, the figures of one half of the validation set, and every other way to
measure the same predictions, a user's own metric among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvhw4.metrics import Counts, Targets, confusion, own_figure, segmentation_figures
from cvhw4.records.arrays import pack, require, unpacked
from cvhw4.study import Metric

_KINDS = {"predicted": "(?:u1|i2) EV", "labels": "(?:u1|i2) V", "counts": "u[24] EVsLC"}
_KINDS |= {"scores": "f4 KVS", "scored": "u2 K"}


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results by epoch (E) and validation image (V), in the data set's order.

    Attributes:
        predicted: uint8 [E, V], the predicted class of an image; None for segmentation.
        labels: uint8 [V], its class; None for segmentation. Of more than 256 classes both are int16.
        counts: uint32 or uint16 [E, V, 2, L, C]: pixels away from (0) and near (1) a contour, by the data set's label,
            void last, and predicted class; None for classification.
        scores: float32 [K, V, C], probabilities after some epochs, of two classes [K, V, 1] those of the second; None
            where no metric of the study is of scores.
        scored: uint16 [K], the numbers of these epochs, rising, from 1.
        targets: of each label the class that it was trained as, see `cvhw4.labels.Merged`; None where every label is
            its own. Part of the record (`RunRecord.targets`), not of the file.
    """

    predicted: NDArray[np.uint8] | None = None
    labels: NDArray[np.uint8] | None = None
    counts: Counts | None = None
    scores: NDArray[np.float32] | None = None
    scored: NDArray[np.uint16] | None = None
    targets: Targets = None

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
        self, metric: str, epoch: int, weights: NDArray[np.integer] | None = None, own: Metric | None = None
    ) -> NDArray[np.float64]:
        """A figure after an epoch, by its name in the record.

        Args:
            epoch: number, from 1.
            weights: [B, V], how often each image counts; every image once when left out.
            own: the metric, where it is of the user's own, which is given each image as often as it counts.

        Returns:
            float64 [B], or [] without weights.

        Raises:
            KeyError: a figure that does not come from the images one by one, such as the loss, or from scores that are
                not kept.
            InputError: the own metric raises, or what it returns is no finite number.
        """
        if own is not None:
            draws = np.ones((1, len(self)), np.int64) if weights is None else weights
            values = np.array([own_figure(metric, own, *self._evidence(epoch, draw, own.of)) for draw in draws])
            return values if weights is not None else values.reshape(())
        if self.predicted is not None:
            if metric != "accuracy":
                raise KeyError(metric)
            right = (self.predicted[epoch - 1] == self.labels).astype(np.float64)
            return np.asarray(right.mean() if weights is None else weights @ right / weights.sum(-1))
        assert self.counts is not None
        return segmentation_figures(self.counts[epoch - 1].sum(1), weights, [metric], self.targets)[metric]

    def _evidence(self, epoch: int, weights: NDArray[np.integer], of: str) -> tuple[NDArray, ...]:
        """What an own metric is given, each image as often as [V] weights say."""
        if self.counts is not None:
            return (confusion(np.tensordot(weights, self.counts[epoch - 1].sum(1), 1), self.targets),)
        assert self.labels is not None and self.predicted is not None
        labels = np.repeat(self.labels, weights).astype(np.int64)
        if of == "labels":
            return labels, np.repeat(self.predicted[epoch - 1], weights).astype(np.int64)
        if self.scores is None or self.scored is None or epoch not in self.scored:
            raise KeyError(f"scores of epoch {epoch}")
        scores = np.repeat(self.scores[np.searchsorted(self.scored, epoch)], weights, axis=0)
        return labels, scores[:, 0] if scores.shape[1] == 1 else scores

    def with_scores_of(self, epochs: Collection[int]) -> ImageResults:
        """The same with the scores of these epochs alone."""
        if self.scores is None or self.scored is None:
            return self
        kept = np.isin(self.scored, list(epochs))
        return replace(self, scores=self.scores[kept], scored=self.scored[kept])

    @property
    def _array(self) -> NDArray:
        array = self.predicted if self.predicted is not None else self.counts
        assert array is not None
        return array

    @classmethod
    def stack(
        cls,
        epochs: Sequence[NDArray],
        labels: NDArray[np.uint8] | None,
        scores: Sequence[NDArray[np.float32]] = (),
        targets: Targets = None,
    ) -> ImageResults:
        """From the results of each epoch: uint8 [V] classes with their labels, and scores [V, C] where they are
        wanted; or counts [V, 2, L, C] with targets."""
        array = np.stack(epochs)
        if labels is None:
            return cls(counts=array.astype(np.uint32), targets=targets)
        if not scores:
            return cls(predicted=array, labels=labels)
        whole, scored = np.stack(scores), np.arange(1, len(scores) + 1, dtype=np.uint16)
        return cls(array, labels, None, whole[..., 1:] if whole.shape[-1] == 2 else whole, scored)

    def to_bytes(self) -> bytes:
        """As it is stored: the same results always give the same bytes."""
        counts = self.counts
        if counts is not None and counts.max(initial=0) < 2**16:
            counts = counts.astype(np.uint16)
        return pack({k: v for k, v in vars(self).items() if k != "targets"} | {"counts": counts})

    @classmethod
    def from_bytes(
        cls, content: bytes, where: Path, sha256: str | None = None, targets: Targets = None
    ) -> ImageResults:
        """Reads what `to_bytes` gave.

        Args:
            where: the file it is from, for the message of an error.
            sha256: of the content, where the file's record tells it.
            targets: the record's.

        Raises:
            InputError: it is damaged, or something else.
        """
        with unpacked(content, _KINDS, where, "is not a file of image results", "repeat the run") as (arrays, sizes):
            own = sha256 in (None, hashlib.sha256(content).hexdigest())
            require(own, "it is not the file its record was stored with")
            groups = ({"predicted", "labels"}, {"counts"})
            with_scores = "scores" in arrays
            require(with_scores == ("scored" in arrays), "it has scores of epochs without numbers")
            if with_scores:
                require("predicted" in arrays, "it has scores without classes")
                _check_scores(arrays["scores"], arrays["scored"], sizes["E"])
            fit = arrays.keys() - {"scores", "scored"} in groups and sizes.get("s", 2) == 2
            require(fit, "its arrays do not fit together")
            if "counts" in arrays:
                of_labels = sizes["C"] + 1 if targets is None else len(targets)
                fit = sizes["L"] == of_labels and max(targets or (0,)) <= sizes["C"]
                require(fit, "its counts are of other classes")
                return cls(**arrays, targets=targets)
            return cls(**arrays)


def _check_scores(scores: NDArray, scored: NDArray, epochs: int) -> None:
    """Refuses what are no probabilities after epochs of a run; raises ValueError."""
    require(bool(np.isfinite(scores).all()) and scores.min() >= 0 and scores.max() <= 1, "its scores are not 0 to 1")
    rising = bool((np.diff(scored.astype(np.int64)) > 0).all())
    require(rising and scored[0] >= 1 and scored[-1] <= epochs, "its scores are of other epochs")
