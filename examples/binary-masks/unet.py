"""The network of the example: a U-Net of two levels, its skip connections gated by attention or not."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Maps [B, 3, H, W] to [B, classes, H, W], H and W multiples of 4.

    Args:
        classes: how many; cvhw4 gives it.
        attention: whether what a skip connection passes on is weighted, pixel by pixel, by what lies below it.
    """

    def __init__(self, classes: int, attention: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(3, 16), block(16, 32), block(32, 64)])
        self.gates = nn.ModuleList([nn.Conv2d(48, 1, 1), nn.Conv2d(96, 1, 1)] if attention else [])
        self.up = nn.ModuleList([block(48, 16), block(96, 32)])
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.max_pool2d(second, 2))
        for level, skip in ((1, second), (0, first)):
            x = F.interpolate(x, scale_factor=2.0)
            if len(self.gates):
                skip = skip * self.gates[level](torch.cat([skip, x], 1)).sigmoid()
            x = self.up[level](torch.cat([skip, x], 1))
        return self.head(x)
