"""Metrics of segmentation, from counts of pixels by image, label and predicted class; and the user's own metrics.

Two conventions of segmentation stand side by side. The *template's*, of the report's Q2: each image by itself, void
pixels counted as wrong, a class that is in neither prediction nor label left out of that image, the mean over images
and then over classes. The field's *standard* (`set_`): one confusion matrix over the whole set, void pixels ignored.

Counts are arrays [..., L, C]: pixels of each of the L labels of a data set (its classes, and void last, see
`cvhw4.labels`) that are predicted as each of the C classes the network knows. Where classes are merged, `targets` says
which class each label is trained as; without, every label is its own. Nothing here needs torch: the same functions
serve training, records and statistics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import InputError
from cvhw4.labels import Merged
from cvhw4.study import Metric, unwrapped
from cvhw4.study.checks import MOST
from cvhw4.tasks import SEGMENTATION

Counts = NDArray[np.integer]
Figures = NDArray[np.float64]
Targets = Sequence[int] | None


def _checked(counts: Counts, targets: Targets) -> NDArray[np.int64]:
    """int64 [L]: the class of each label, C for none; raises ValueError where the counts are not of these."""
    labels, classes = counts.shape[-2:]
    if targets is None and labels != classes + 1:
        raise ValueError(f"counts of {labels} labels and {classes} classes need targets")
    found = np.arange(labels) if targets is None else np.asarray(targets, np.int64)
    if found.shape != (labels,) or found.min() < 0 or found.max() > classes:
        raise ValueError(f"counts of {labels} labels and {classes} classes do not fit the targets {found.tolist()}")
    return found


def merged(counts: Counts, merge: Merged) -> Counts:
    """Counts [..., K + 1, C] of the predictions [..., K + 1, K] of a network that knows all classes, merged."""
    of_classes = np.array(merge.targets[:-1])
    return np.stack([counts[..., of_classes == k].sum(-1) for k in range(len(merge.names))], -1)


def _intersection_and_union(counts: Counts, targets: Targets, *, void: bool) -> tuple[Counts, Counts]:
    """Pixels [..., C] predicted correctly, and pixels of a class in prediction or label.

    Args:
        void: whether void pixels count (the template's convention).
    """
    target = _checked(counts, targets)
    if not void:
        counts, target = counts[..., :-1, :], target[:-1]
    of_class = (target[:, None] == np.arange(counts.shape[-1])).astype(np.int64)  # [labels, C]
    hits = (counts * of_class).sum(-2)
    labelled = (counts.sum(-1)[..., None] * of_class).sum(-2)
    return hits, counts.sum(-2) + labelled - hits


def iou_by_image(counts: Counts, targets: Targets = None, *, void: bool = True) -> Figures:
    """IoU [..., V, C] of each image by itself; NaN where a class is in neither prediction nor label."""
    hits, union = _intersection_and_union(counts, targets, void=void)
    return _ratio(hits, union)


def set_iou(counts: Counts, targets: Targets = None) -> Figures:
    """IoU [..., C] from one confusion matrix over all images [..., V, L, C], void ignored; NaN for absent classes."""
    hits, union = _intersection_and_union(counts.sum(-3), targets, void=False)
    return _ratio(hits, union)


def segmentation_figures(
    counts: Counts,
    weights: NDArray[np.integer] | None = None,
    names: Collection[str] = SEGMENTATION.metrics,
    targets: Targets = None,
) -> dict[str, Figures]:
    """Both conventions: `miou` and `pixel_accuracy` as the report's template computes them (rows q2_1a to q2_3),
    `set_miou` and `set_pixel_accuracy` as the field does ("mean IU" and "pixel accuracy" of Long et al. 2015, from one
    confusion matrix).

    Args:
        counts: pixels of each of V images, whole numbers [V, L, C]: by label, void last, and class predicted.
        weights: whole numbers [B, V], how often each image counts (a bootstrap draws them); every image once when left
            out.
        names: which of them are asked for.
        targets: of each of the L labels the class that it is trained as, C for none; left out, its own, and L is C + 1.

    Returns:
        float64 [B] by name, or [] without weights: 0 to 1, NaN where no class, or no pixel, is there.

    Raises:
        ValueError: counts that the targets do not fit.
        KeyError: a name of none of them.
    """
    shape: tuple[int, ...] = (1,) if weights is None else (len(weights),)
    w = np.ones((1, len(counts))) if weights is None else weights.astype(np.float64)
    values: dict[str, Figures] = {}
    if not {"miou", "pixel_accuracy"}.isdisjoint(names):
        hits, union = _intersection_and_union(counts, targets, void=True)
        iou = _ratio(hits, union)
        there = ~np.isnan(iou)
        values["miou"] = mean_of_present(
            _ratio(w @ np.where(there, iou, 0.0), w @ there)
        )  # over images, then over classes
        values["pixel_accuracy"] = (w @ (hits.sum(-1) / counts.sum((-2, -1)))) / w.sum(-1)
    if not {"set_miou", "set_pixel_accuracy"}.isdisjoint(names):
        set_hits, set_union = (w @ x for x in _intersection_and_union(counts, targets, void=False))
        values["set_miou"] = mean_of_present(_ratio(set_hits, set_union))
        values["set_pixel_accuracy"] = _ratio(set_hits.sum(-1), w @ counts[:, :-1].sum((-2, -1)))
    return {name: values[name].reshape(shape if weights is not None else ()) for name in names}


def segmentation_lists(counts: Counts, targets: Targets = None) -> dict[str, list[float]]:
    """`iou` and `set_iou`, a figure per class from counts [V, L, C], NaN for a class that never occurs."""
    by_image = mean_of_present(iou_by_image(counts, targets), axis=-2)
    return {"iou": by_image.tolist(), "set_iou": set_iou(counts, targets).tolist()}


def confusion(counts: Counts, targets: Targets = None) -> NDArray[np.int64]:
    """int64 [C, C], pixels by the class of their label and the class predicted, void left out, from counts [L, C]."""
    of_label = _checked(counts, targets)[:-1]
    return np.stack([counts[:-1][of_label == c].sum(0) for c in range(counts.shape[-1])]).astype(np.int64)


def own_figure(name: str, metric: Metric, *evidence: NDArray) -> float:
    """The value of a user's own metric for labels and predictions or scores, or for a confusion matrix.

    Raises:
        InputError: it raises, or what it returns is no finite number.
    """
    try:
        figure = float(_called(metric.function, evidence))
    except Exception as error:
        problem = f"raises {type(error).__name__}: {error}"
        raise InputError(f"metric {name}", problem, "see what it is called with in cvhw4.Metric") from error
    if not abs(figure) <= MOST:
        hint = f"let it return a finite number, {MOST:g} at most, higher being better"
        raise InputError(f"metric {name}", f"returns {figure}", hint)
    return figure


def _called(function: Callable[..., Any], evidence: tuple[NDArray, ...]) -> Any:
    """What a metric gives; torchmetrics' take tensors, the labels last, and may keep what they were given before."""
    whole = unwrapped(function)
    modules = [str(getattr(kind, "__module__", "")) for kind in (whole, *type(whole).__mro__)]
    if not any(module.partition(".")[0] == "torchmetrics" for module in modules):
        return function(*evidence)
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in reversed(evidence)]
    if not hasattr(function, "update"):
        return function(*tensors)
    metric: Any = function
    metric.reset()
    metric.update(*tensors)
    figure = metric.compute()
    metric.reset()
    return figure


def _ratio(part: NDArray, whole: NDArray) -> Figures:
    """part / whole, NaN where the whole is nothing."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)


def mean_of_present(values: Figures, axis: int = -1) -> Figures:
    """The mean of what is not NaN; NaN where all is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice": its NaN is what is wanted
        return np.asarray(np.nanmean(values, axis=axis))
