"""AlexNet's adaptive pooling for runs that must give the same bits each time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


class MatrixPool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products: CUDA has no deterministic gradient of the original.

    Args:
        size: height and width of the output, in pixels; None for the input's.
    """

    def __init__(self, size: tuple[int | None, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        """float [B, C, H, W] to [B, C, *size]."""
        sizes = [(n, n if out is None else out) for n, out in zip(inputs.shape[-2:], self.size, strict=True)]
        if all(n == out for n, out in sizes):
            return inputs
        rows, columns = (bins(n, out, inputs.dtype, inputs.device) for n, out in sizes)
        return rows @ inputs @ columns.T


@lru_cache
def bins(n: int, out: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[out, n]: the share of each of n pixels in each of the output's; kept, as a CUDA graph copies nothing."""
    with torch.inference_mode(False):  # it may be asked for in an evaluation first, and used in training then
        weights = torch.zeros(out, n)
        for i in range(out):
            first, last = i * n // out, -(-(i + 1) * n // out)
            weights[i, first:last] = 1 / (last - first)
        return weights.to(device, dtype)


def make_deterministic(module: nn.Module) -> None:
    """Replaces adaptive pooling to several pixels, in place."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                given: Any = child.output_size
                size = tuple(given) if isinstance(given, tuple | list) else (given, given)
                if size != (1, 1):  # that one is a mean, and deterministic
                    setattr(part, name, MatrixPool(size))
