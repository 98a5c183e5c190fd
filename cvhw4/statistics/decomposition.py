"""Where the rise of the mIoU from 11 classes to 3 comes from, in parts that add up; and figures of parts of the scene.

The two mIoUs differ by more than what the networks learnt: void counts as wrong among 11 classes and as class 1 among
3; a mean over 3 common classes stands against one over 11, some rare; and a mean over images punishes one stray pixel
of a rare class with a zero for that image. One thing is changed at a time, from the one figure to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cvhw4.data.dataset import CAMVID_CLASSES, VOID
from cvhw4.metrics import Counts, iou_by_image, merged, segmentation_figures, set_iou
from cvhw4.statistics.intervals import Estimate, estimate

PARTS = ("void", "averaging", "merging", "training")
OTHER_ORDER = ("merging_first", "training_last")


def decompose(eleven: Counts, three: Counts) -> dict[str, float]:
    """Splits the rise of the mIoU between two networks of the same seed, each at the epoch the caller takes.

    The way goes through seven mIoUs:

        P0  the network with 11 classes, by image, void counted as wrong (template)
        P1  the same, void ignored
        P2  the same from one matrix over all images, void ignored (standard)
        P3  the same predictions merged to 3 classes, one matrix, void ignored
        P4  the network with 3 classes, one matrix, void ignored (standard)
        P5  the same by image, void ignored
        P6  the same, void as class 1 (template)

    Args:
        eleven: [V, 12, 11] of the network with 11 classes.
        three: [V, 12, 3] of the one with 3, on the same images.

    Returns:
        "whole", P6 - P0; the `PARTS` that add up to it, "void", (P1 - P0) + (P6 - P5), "averaging", (P2 - P1) +
        (P5 - P4), "merging", P3 - P2, with errors inside a merged class forgiven and 3 classes to average, and
        "training", P4 - P3; and two that add up to it in another order (`OTHER_ORDER`), "merging_first", from P0 to the
        merged predictions measured like P6, and "training_last", from there to P6.

    Raises:
        ValueError: other shapes, or the labels differ.
    """
    if eleven.shape[1:] != (VOID + 1, VOID) or three.shape[1:] != (VOID + 1, 3):
        raise ValueError(f"needs counts [V, 12, 11] and [V, 12, 3], not {eleven.shape} and {three.shape}")
    if not np.array_equal(eleven.sum(-1), three.sum(-1)):
        raise ValueError("the two networks were validated on different images")
    of_merged = merged(eleven)
    p0, p6, merged_first = (float(segmentation_figures(c)["miou"]) for c in (eleven, three, of_merged))
    p2, p3, p4 = (float(segmentation_figures(c)["set_miou"]) for c in (eleven, of_merged, three))
    p1, p5 = (_miou_without_void(c) for c in (eleven, three))
    return {
        "void": (p1 - p0) + (p6 - p5),
        "averaging": (p2 - p1) + (p5 - p4),
        "merging": p3 - p2,
        "training": p4 - p3,
        "merging_first": merged_first - p0,
        "training_last": p6 - merged_first,
        "whole": p6 - p0,
    }


def decompositions(pairs: Sequence[tuple[Counts, Counts]]) -> dict[str, Estimate]:
    """`decompose` of each seed, as means over seeds with t intervals; the means add up as the parts do.

    Args:
        pairs: of each seed, the counts that `decompose` takes.

    Raises:
        ValueError: no pairs, or as `decompose`.
    """
    found = [decompose(eleven, three) for eleven, three in pairs]
    return {name: estimate([parts[name] for parts in found]) for name in (*PARTS, *OTHER_ORDER, "whole")}


def mean_iou_of(counts: Counts, names: Sequence[str]) -> float:
    """Mean IoU of some of the 11 classes, from one matrix over all images, void ignored.

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
    """A metric near contours and away from them, from one matrix over all images, void ignored.

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
    if metric not in ("set_miou", "set_pixel_accuracy"):
        raise ValueError(f"{metric} is none of set_miou and set_pixel_accuracy")
    away, near = (float(segmentation_figures(counts[:, band], names=[metric])[metric]) for band in (0, 1))
    return near, away


def _miou_without_void(counts: Counts) -> float:
    """The template's mIoU of counts [V, 12, C], but with void pixels left out."""
    return _mean(np.array([_mean(of_class) for of_class in iou_by_image(counts, void=False).T]))


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where all is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan
