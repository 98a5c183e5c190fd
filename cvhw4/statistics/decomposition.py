"""Where the rise of the mIoU with merged classes comes from, in parts that add up; and figures of parts of the scene.

The two mIoUs differ by more than what the networks learnt: void counts as wrong among all classes and, where it is
merged into one, as that one; a mean over a few common classes stands against one over many, some rare; and a mean over
images punishes one stray pixel of a rare class with a zero for that image. One thing is changed at a time, from the one
figure to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cvhw4.labels import Merged
from cvhw4.metrics import Counts, Targets, iou_by_image, mean_of_present, merged, segmentation_figures, set_iou
from cvhw4.statistics.intervals import Estimate, estimate, ratio_of_means

PARTS = ("void", "averaging", "merging", "training")
OTHER_ORDER = ("merging_first", "training_last")


def decompose(many: Counts, few: Counts, merge: Merged) -> dict[str, float]:
    """Splits the rise of the mIoU between two networks of the same seed, each at the epoch the caller takes.

    The way goes through seven mIoUs:

        P0  the network with all K classes, by image, void counted as wrong (template)
        P1  the same, void ignored
        P2  the same from one matrix over all images, void ignored (standard)
        P3  the same predictions merged to C classes, one matrix, void ignored
        P4  the network with C classes, one matrix, void ignored (standard)
        P5  the same by image, void ignored
        P6  the same, void as the class that it is merged into (template)

    Args:
        many: [V, K + 1, K] of the network with all classes.
        few: [V, K + 1, C] of the one with merged classes, on the same images.
        merge: what is merged.

    Returns:
        "whole", P6 - P0; the `PARTS` that add up to it, "void", (P1 - P0) + (P6 - P5), "averaging", (P2 - P1) +
        (P5 - P4), "merging", P3 - P2, with errors inside a merged class forgiven and fewer classes to average, and
        "training", P4 - P3; and two that add up to it in another order (`OTHER_ORDER`), "merging_first", from P0 to the
        merged predictions measured like P6, and "training_last", from there to P6.

    Raises:
        ValueError: other shapes, or the labels differ.
    """
    labels, classes = len(merge.targets), len(merge.names)
    if many.shape[1:] != (labels, labels - 1) or few.shape[1:] != (labels, classes):
        needed = f"[V, {labels}, {labels - 1}] and [V, {labels}, {classes}]"
        raise ValueError(f"needs counts {needed}, not {many.shape} and {few.shape}")
    if not np.array_equal(many.sum(-1), few.sum(-1)):
        raise ValueError("the two networks were validated on different images")
    of_merged, targets = merged(many, merge), merge.targets
    p0 = float(segmentation_figures(many)["miou"])
    p6, merged_first = (float(segmentation_figures(c, targets=targets)["miou"]) for c in (few, of_merged))
    p2 = float(segmentation_figures(many)["set_miou"])
    p3, p4 = (float(segmentation_figures(c, targets=targets)["set_miou"]) for c in (of_merged, few))
    p1, p5 = _miou_without_void(many), _miou_without_void(few, targets)
    return {
        "void": (p1 - p0) + (p6 - p5),
        "averaging": (p2 - p1) + (p5 - p4),
        "merging": p3 - p2,
        "training": p4 - p3,
        "merging_first": merged_first - p0,
        "training_last": p6 - merged_first,
        "whole": p6 - p0,
    }


def decompositions(pairs: Sequence[tuple[Counts, Counts]], merge: Merged) -> dict[str, Estimate]:
    """`decompose` of each seed, as means over seeds with t intervals; the means add up as the parts do.

    Args:
        pairs: of each seed, the counts that `decompose` takes.
        merge: what the second of them merge, as `Evidence.merged` gives it.

    Returns:
        By part; and "measuring", the share of the whole that is not training: 1 - training / whole, of the means.

    Raises:
        ValueError: no pairs, or as `decompose`.
    """
    found = [decompose(many, few, merge) for many, few in pairs]
    means = {name: estimate([parts[name] for parts in found]) for name in (*PARTS, *OTHER_ORDER, "whole")}
    e = ratio_of_means([parts["training"] for parts in found], [parts["whole"] for parts in found])
    return means | {"measuring": replace(e, mean=1 - e.mean, low=1 - e.high, high=1 - e.low)}


def mean_iou_of(counts: Counts, names: Sequence[str], classes: Sequence[str]) -> float:
    """Mean IoU of some of the classes, from one matrix over all images, void ignored.

    Args:
        counts: [V, K + 1, K].
        names: of some classes.
        classes: the names of all K.

    Returns:
        0..1; a class in neither prediction nor label is left out, NaN where all are.

    Raises:
        ValueError: counts of another shape, no names, or one that is no class.
    """
    known = list(classes)
    if counts.ndim != 3 or counts.shape[1:] != (len(known) + 1, len(known)):
        raise ValueError(f"needs counts [V, {len(known) + 1}, {len(known)}], not {counts.shape}")
    if not names or not set(names) <= set(known):
        raise ValueError(f"needs names of classes ({', '.join(known)}), not {list(names)}")
    return float(mean_of_present(set_iou(counts)[[known.index(name) for name in names]]))


def near_and_far(counts: Counts, metric: str = "set_miou", targets: Targets = None) -> tuple[float, float]:
    """A metric near contours and away from them, from one matrix over all images, void ignored.

    Contours are those of the data's labels, whatever is merged; see `cvhw4.training.counts.contours`.
    Away from contours thin classes have hardly a pixel: a class without any there is left out of the mIoU unless it is
    predicted there, when it is a zero. So the two mIoUs are means over different scenes, to be compared between
    networks rather than with each other.

    Args:
        counts: [V, 2, L, C], away (0) and near (1).
        metric: "set_miou" or "set_pixel_accuracy".
        targets: as `segmentation_figures` has them.

    Returns:
        Near and away, 0..1; NaN where there are no pixels.

    Raises:
        ValueError: counts of another shape, or another metric.
    """
    if counts.ndim != 4 or counts.shape[1] != 2:
        raise ValueError(f"needs counts [V, 2, L, C], not {counts.shape}")
    if metric not in ("set_miou", "set_pixel_accuracy"):
        raise ValueError(f"{metric} is none of set_miou and set_pixel_accuracy")
    bands = (segmentation_figures(counts[:, band], names=[metric], targets=targets) for band in (0, 1))
    away, near = (float(of_band[metric]) for of_band in bands)
    return near, away


def _miou_without_void(counts: Counts, targets: Targets = None) -> float:
    """The template's mIoU of counts [V, L, C], but with void pixels left out."""
    return float(mean_of_present(mean_of_present(iou_by_image(counts, targets, void=False), axis=-2)))
