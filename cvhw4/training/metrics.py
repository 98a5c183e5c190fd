"""Segmentation and classification metrics, from counts that are kept on the device.

Two conventions stand side by side. The *template's*: each image by itself, void pixels counted as wrong for pixel
accuracy, a class that is in neither prediction nor label left out of that image, the mean over images and then over
classes. The field's *standard* (`set_`): one confusion matrix over the whole set, void pixels ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cvhw4.data.dataset import VOID


@dataclass(frozen=True)
class SegmentationCounts:
    """What the metrics of a set of images are made of; every tensor is int64.

    Attributes:
        hits: [N, C] pixels of class c that are predicted as c.
        predicted: [N, C] pixels predicted as c, void pixels included.
        labelled: [N, C] pixels labelled c.
        pixels: [N] pixels of each image, void included.
        confusion: [C, C] pixels by true and predicted class over all images, void left out.
    """

    hits: Tensor
    predicted: Tensor
    labelled: Tensor
    pixels: Tensor
    confusion: Tensor

    @staticmethod
    def concatenate(parts: list[SegmentationCounts]) -> SegmentationCounts:
        """The counts of all images of several batches."""
        return SegmentationCounts(
            hits=torch.cat([p.hits for p in parts]),
            predicted=torch.cat([p.predicted for p in parts]),
            labelled=torch.cat([p.labelled for p in parts]),
            pixels=torch.cat([p.pixels for p in parts]),
            confusion=torch.stack([p.confusion for p in parts]).sum(0),
        )


def count_segmentation(prediction: Tensor, target: Tensor, void: Tensor, classes: int) -> SegmentationCounts:
    """Counts one batch.

    Args:
        prediction: integer [B, H, W], class numbers below `classes`.
        target: integer [B, H, W]; a number of `classes` or above is of no class, and can never be met.
        void: bool [B, H, W], pixels that the standard metric ignores.
        classes: C.
    """
    n = len(prediction)
    image = torch.arange(n, device=prediction.device, dtype=torch.int32).view(n, 1, 1)
    cell = image * (classes + 1) + target.clamp(max=classes)
    cell = (cell * 2 + void) * classes + prediction
    joint = torch.bincount(cell.flatten(), minlength=n * (classes + 1) * 2 * classes)
    joint = joint.view(n, classes + 1, 2, classes)  # image, target, void or not, prediction
    pixels = torch.full((n,), prediction[0].numel(), device=prediction.device)
    return SegmentationCounts(
        hits=joint.sum(2).diagonal(dim1=1, dim2=2),
        predicted=joint.sum((1, 2)),
        labelled=joint[:, :classes].sum((2, 3)),
        pixels=pixels,
        confusion=joint[:, :classes, 0].sum(0),
    )


def segmentation_metrics(counts: SegmentationCounts) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Both conventions.

    Returns:
        figures: `miou` and `pixel_accuracy` as the template computes them, `set_miou` and `set_pixel_accuracy` as the
            field does; 0..1.
        by class: `iou` and `set_iou`, a figure per class, NaN for a class that never occurs.
    """
    hits, union = counts.hits.double(), (counts.predicted + counts.labelled - counts.hits).double()
    iou = torch.nanmean(hits / union, dim=0)  # 0/0 is NaN: the class is in neither
    pixel_accuracy = (hits.sum(1) / counts.pixels).mean()
    matrix = counts.confusion.double()
    diagonal = matrix.diagonal()
    set_iou = diagonal / (matrix.sum(0) + matrix.sum(1) - diagonal)
    figures = {
        "miou": torch.nanmean(iou),
        "pixel_accuracy": pixel_accuracy,
        "set_miou": torch.nanmean(set_iou),
        "set_pixel_accuracy": diagonal.sum() / matrix.sum(),
    }
    return {k: float(v) for k, v in figures.items()}, {"iou": iou.tolist(), "set_iou": set_iou.tolist()}


# CamVid's classes by the report's three: 0 sky; 2 car, pedestrian, bicyclist; 1 everything else, void included.
THREE_CLASSES = tuple(0 if c == 0 else 2 if c in (8, 9, 10) else 1 for c in range(VOID + 1))


def class_map(classes: int) -> Tensor:
    """uint8 [12]: the class each of CamVid's numbers 0..11 is trained as; with 11 classes void keeps its number.

    Raises:
        ValueError: neither 11 nor 3 classes.
    """
    if classes == 11:
        return torch.arange(VOID + 1, dtype=torch.uint8)
    if classes == 3:
        return torch.tensor(THREE_CLASSES, dtype=torch.uint8)
    raise ValueError(f"street scenes are trained with 11 or 3 classes, not {classes}")
