"""FCN8s as the report's template builds it (Long et al. 2015 name the idea; PROTOCOL of the report fixes the order)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

# After these layers of torchvision's VGG16 come x3, x4 and x5: its third, fourth and fifth max-pool.
_VGG16_POOLS = (16, 23, 30)


class VGG16Features(nn.Module):
    """VGG16's convolutions; gives what its last three max-pools put out (1/8, 1/16 and 1/32 of the input's size)."""

    channels = (256, 512, 512)

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.vgg16(init_weights=False).features

    def initialise(self) -> None:
        """Draws its weights as torchvision draws VGG16's."""
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """float [B, 3, H, W] to x3, x4, x5."""
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _VGG16_POOLS:
                taps.append(x)
        return taps


class FCN8s(nn.Module):
    """Backbone, five transposed convolutions, a 1x1 convolution to the classes.

    The first two stages put out as many channels as the maps that the skip connections add there, the others 128, 64
    and 32: over VGG16 that is the report's 512, 256, 128, 64, 32. Without skips the two additions are left out and
    nothing else changes: same parameters, same names.

    Args:
        backbone: module that maps float [B, 3, H, W] to its maps x3, x4, x5 at 1/8, 1/16 and 1/32.
        channels: channels of x3, x4, x5.
        classes: channels of the output.
        skips: whether x4 and x3 are added.
    """

    def __init__(self, backbone: nn.Module, channels: Sequence[int], classes: int, *, skips: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.skips = skips
        c3, c4, c5 = channels
        widths = (c5, c4, c3, 128, 64, 32)
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, kernel_size=3, stride=2, padding=1, output_padding=1) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.classifier = nn.Conv2d(widths[-1], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, 3, H, W], H and W multiples of 32, to logits float [B, classes, H, W]."""
        x3, x4, x = self.backbone(x)
        for deconv, norm, skip in zip(self.deconvs, self.norms, (x4, x3, None, None, None), strict=True):
            x = F.relu(deconv(x), inplace=True)
            if self.skips and skip is not None:
                x = x + skip
            x = norm(x)
        return self.classifier(x)
