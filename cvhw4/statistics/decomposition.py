"""Where the rise of the mIoU from 11 classes to 3 comes from, in parts that add up; and figures of parts of the scene.

The two mIoUs differ by more than what the networks learnt: void counts as wrong among 11 classes and as class 1 among
3; a mean over 3 common classes stands against one over 11, some rare; and a mean over images punishes one stray pixel
of a rare class with a zero for that image. One thing is changed at a time, from the one figure to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvhw4.data.dataset import CAMVID_CLASSES, VOID
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.training.metrics import Counts, hits_and_union, iou_by_image, merged, segmentation_figures, set_iou

_THIN = ("Pole", "SignSymbol")


@dataclass(frozen=True)
class Decomposition:
    """The way from the mIoU of 11 classes to that of 3, both 0..1 and by the template, and what each step brings.

    The four parts add up to `whole`; so do `merging_first` and `training_last`, the same rise in another order.

    Attributes:
        eleven: P0, the network with 11 classes, by image, void counted as wrong (template).
        eleven_without_void: P1, the same, void ignored.
        eleven_set: P2, the same from one matrix over all images, void ignored (standard).
        merged_set: P3, the same predictions merged to 3 classes, one matrix, void ignored.
        three_set: P4, the network with 3 classes, one matrix, void ignored (standard).
        three_without_void: P5, the same by image, void ignored.
        three: P6, the same, void as class 1 (template).
        merged: the 11-class network's predictions merged, measured like `three`.
    """

    eleven: float
    eleven_without_void: float
    eleven_set: float
    merged_set: float
    three_set: float
    three_without_void: float
    three: float
    merged: float

    @property
    def figures(self) -> tuple[float, ...]:
        """P0 to P6."""
        return (
            self.eleven,
            self.eleven_without_void,
            self.eleven_set,
            self.merged_set,
            self.three_set,
            self.three_without_void,
            self.three,
        )

    @property
    def whole(self) -> float:
        """P6 - P0, the rise."""
        return self.three - self.eleven

    @property
    def void(self) -> float:
        """(P1 - P0) + (P6 - P5): void as wrong among 11 classes, and as class 1 among 3."""
        return (self.eleven_without_void - self.eleven) + (self.three - self.three_without_void)

    @property
    def averaging(self) -> float:
        """(P2 - P1) + (P5 - P4): the mean over images costs 11 classes more than 3."""
        return (self.eleven_set - self.eleven_without_void) + (self.three_without_void - self.three_set)

    @property
    def merging(self) -> float:
        """P3 - P2: the same predictions, with errors inside a merged class forgiven and 3 classes to average."""
        return self.merged_set - self.eleven_set

    @property
    def training(self) -> float:
        """P4 - P3: a network trained with 3 classes instead of 11, both measured with 3, void ignored."""
        return self.three_set - self.merged_set

    @property
    def merging_first(self) -> float:
        """Merging in the other order: merged - P0; void and averaging change with the classes and count here."""
        return self.merged - self.eleven

    @property
    def training_last(self) -> float:
        """Training in the other order: P6 - merged, both by the template."""
        return self.three - self.merged


PARTS = ("void", "averaging", "merging", "training")
OTHER_ORDER = ("merging_first", "training_last")


def decompose(eleven: Counts, three: Counts) -> Decomposition:
    """Splits the rise of the mIoU between two networks of the same seed, each at the epoch the caller takes.

    Args:
        eleven: [V, 12, 11] of the network with 11 classes.
        three: [V, 12, 3] of the one with 3, on the same images.

    Raises:
        ValueError: other shapes, or the labels differ.
    """
    if eleven.shape[1:] != (VOID + 1, VOID) or three.shape[1:] != (VOID + 1, 3):
        raise ValueError(f"needs counts [V, 12, 11] and [V, 12, 3], not {eleven.shape} and {three.shape}")
    if not np.array_equal(eleven.sum(-1), three.sum(-1)):
        raise ValueError("the two networks were validated on different images")
    of_eleven, of_merged, of_three = (segmentation_figures(c) for c in (eleven, merged(eleven), three))
    return Decomposition(
        eleven=float(of_eleven["miou"]),
        eleven_without_void=_miou_without_void(eleven),
        eleven_set=float(of_eleven["set_miou"]),
        merged_set=float(of_merged["set_miou"]),
        three_set=float(of_three["set_miou"]),
        three_without_void=_miou_without_void(three),
        three=float(of_three["miou"]),
        merged=float(of_merged["miou"]),
    )


def decompositions(pairs: Sequence[tuple[Counts, Counts]]) -> dict[str, Estimate]:
    """`decompose` of each seed, as means over seeds with t intervals; the means add up as the parts do.

    Args:
        pairs: of each seed, the counts that `decompose` takes.

    Returns:
        Estimates by the names of `PARTS`, `OTHER_ORDER` and "whole".

    Raises:
        ValueError: no pairs, or as `decompose`.
    """
    found = [decompose(eleven, three) for eleven, three in pairs]
    return {name: estimate([getattr(d, name) for d in found]) for name in (*PARTS, *OTHER_ORDER, "whole")}


def mean_iou_of(counts: Counts, names: Sequence[str] = _THIN) -> float:
    """Mean IoU of some of the 11 classes, from one matrix over all images, void ignored; the thin ones by default.

    Args:
        counts: [V, 12, 11].
        names: of CamVid's classes.

    Returns:
        0..1; a class in neither prediction nor label is left out, NaN where all are.

    Raises:
        ValueError: counts of another shape, no names, or one that is no class.
    """
    if counts.ndim != 3 or counts.shape[1:] != (VOID + 1, VOID):
        raise ValueError(f"needs counts [V, 12, 11], not {counts.shape}")
    known = CAMVID_CLASSES[:VOID]
    if not names or not set(names) <= set(known):
        raise ValueError(f"needs names of classes ({', '.join(known)}), not {list(names)}")
    return _mean(set_iou(counts)[[known.index(name) for name in names]])


def near_and_far(counts: Counts, metric: str = "set_miou") -> tuple[float, float]:
    """A figure near contours and one away from them, from one matrix over all images, void ignored.

    Contours are those of CamVid's labels, whatever the network was trained with; see `cvhw4.training.counts.contours`.
    Away from contours thin classes have hardly a pixel: a class without any there is left out of the mIoU unless it is
    predicted there, when it is a zero. So the two mIoUs are means over different scenes, to be compared between
    networks rather than with each other.

    Args:
        counts: [V, 2, 12, C], away (0) and near (1).
        metric: "set_miou" or "set_pixel_accuracy".

    Returns:
        Near and away, 0..1; NaN where there are no pixels.

    Raises:
        ValueError: counts of another shape, or another metric.
    """
    if counts.ndim != 4 or counts.shape[1:3] != (2, VOID + 1):
        raise ValueError(f"needs counts [V, 2, 12, C], not {counts.shape}")
    if metric == "set_miou":
        away, near = (_mean(set_iou(counts[:, band])) for band in (0, 1))
    elif metric == "set_pixel_accuracy":
        away, near = (_pixel_accuracy(counts[:, band]) for band in (0, 1))
    else:
        raise ValueError(f"{metric} is none of set_miou and set_pixel_accuracy")
    return near, away


def _miou_without_void(counts: Counts) -> float:
    """The template's mIoU of counts [V, 12, C], but with void pixels left out."""
    return _mean(np.array([_mean(of_class) for of_class in iou_by_image(counts, void=False).T]))


def _pixel_accuracy(counts: Counts) -> float:
    hits, _ = hits_and_union(counts, void=False)
    known = counts[:, :VOID].sum()
    return float(hits.sum() / known) if known else math.nan


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where all is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan
