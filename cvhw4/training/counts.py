"""What a segmentation network made of each validation image, counted on the device.

One table of counts per image: how many pixels of each of the data set's labels (void among them) were predicted as each
class, apart for pixels near a contour and for the others. Every metric is made of it (`cvhw4.metrics`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BAND = 3  # pixels: how far from another label a pixel counts as near a contour


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


def count_pixels(prediction: Tensor, labels: Tensor, near: Tensor, shape: tuple[int, int]) -> Tensor:
    """int64 [B, 2, L, C]: pixels by image, away from (0) or near (1) a contour, label and predicted class.

    Args:
        prediction: integer [B, H, W], class numbers below C.
        labels: integer [B, H, W], numbers below L.
        near: bool [B, H, W], as `contours` gives it.
        shape: L and C, the number of labels and of classes.
    """
    n = len(prediction)
    image = torch.arange(n, device=prediction.device, dtype=torch.int32).view(n, 1, 1)
    cell = ((image * 2 + near) * shape[0] + labels) * shape[1] + prediction
    whole = n, 2, *shape
    if cell.device.type == "cpu":
        return torch.bincount(cell.flatten(), minlength=math.prod(whole)).view(whole)
    # As bincount, which waits for the device to tell it the highest number.
    counts = torch.zeros(math.prod(whole), dtype=torch.int64, device=cell.device)
    return counts.index_add_(0, cell.flatten(), torch.ones_like(counts[:1]).expand(cell.numel())).view(whole)
