"""What a segmentation network made of each validation image, counted on the device.

One table of counts per image: how many pixels of each of CamVid's labels (void among them) were predicted as each
class, apart for pixels near a contour and for the others. Every metric is made of it (`cvhw4.metrics`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cvhw4.data.dataset import VOID
from cvhw4.metrics import classes_of

BAND = 3  # pixels: how far from another label a pixel counts as near a contour
LABELS = VOID + 1


def class_map(classes: int) -> Tensor:
    """uint8 [12]: the class each of CamVid's numbers 0..11 is trained as; with 11 classes void keeps its number.

    Raises:
        ValueError: neither 11 nor 3 classes.
    """
    return torch.tensor(classes_of(classes), dtype=torch.uint8)


def contours(labels: Tensor) -> Tensor:
    """bool [B, H, W]: the pixels within `BAND` (Chebyshev) of a pixel with another label, void included.

    The band in which segmentation is hard (Kohli, Ladicky and Torr, 2009, and DeepLab after them, call it a trimap).

    Args:
        labels: integer [B, H, W].
    """
    values, window = labels[:, None].float(), 2 * BAND + 1
    highest = F.max_pool2d(values, window, stride=1, padding=BAND)
    lowest = -F.max_pool2d(-values, window, stride=1, padding=BAND)
    return (highest != lowest)[:, 0]


def count_pixels(prediction: Tensor, labels: Tensor, near: Tensor, classes: int) -> Tensor:
    """int64 [B, 2, 12, C]: pixels by image, away from (0) or near (1) a contour, label and predicted class.

    Args:
        prediction: integer [B, H, W], class numbers below `classes`.
        labels: integer [B, H, W], CamVid's numbers 0..11.
        near: bool [B, H, W], as `contours` gives it.
        classes: C.
    """
    n = len(prediction)
    image = torch.arange(n, device=prediction.device, dtype=torch.int32).view(n, 1, 1)
    cell = ((image * 2 + near) * LABELS + labels) * classes + prediction
    shape = n, 2, LABELS, classes
    if cell.device.type == "cpu":
        return torch.bincount(cell.flatten(), minlength=math.prod(shape)).view(shape)
    # As bincount, which waits for the device to tell it the highest number.
    counts = torch.zeros(math.prod(shape), dtype=torch.int64, device=cell.device)
    return counts.index_add_(0, cell.flatten(), torch.ones_like(counts[:1]).expand(cell.numel())).view(shape)
