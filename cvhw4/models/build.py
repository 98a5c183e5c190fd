"""From a row to its network: names, heads, pretrained weights, frozen layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from cvhw4.errors import InputError
from cvhw4.models.fcn8s import FCN8s, VGG16Features, timm_features
from cvhw4.models.weights import Source, find_weights, load_weights, pretrained_name
from cvhw4.study import Row

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Network:
    """A network ready to be trained.

    Attributes:
        module: maps normalised float [B, 3, size, size] to logits [B, classes] or [B, classes, size, size].
        mean: of the inputs it expects, per channel, on the scale 0..1.
        std: likewise.
        weights: what it started from; None where it starts at random.
    """

    module: nn.Module
    mean: Colour
    std: Colour
    weights: Source | None

    @property
    def parameters(self) -> int:
        """How many numbers the network has, trained or not."""
        return sum(p.numel() for p in self.module.parameters())


def build_network(row: Row, *, seed: int, weights: Path | None = None) -> Network:
    """The row's network with its starting weights.

    Args:
        seed: decides all random weights; the same for both arms of a comparison gives them the same start.
        weights: folder to look for pretrained weights in first.

    Raises:
        InputError: unknown network, or a weights file that does not fit.
        WeightsUnavailable: the row starts from ImageNet and no source has the weights.
    """
    name = pretrained_name(row.network)
    source = find_weights(name, weights) if row.start == "imagenet" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if row.network.startswith("fcn8s/"):
            module: nn.Module = _fcn8s(row, name, source)
        else:
            module = _classifier(row, name, source)
    mean, std = _normalisation(name)
    return Network(module, mean, std, source)


def _classifier(row: Row, name: str, source: Source | None) -> nn.Module:
    whole: nn.Module = torchvision.models.alexnet() if name == "alexnet" else timm.create_model(name)
    if source is not None:
        load_weights(whole, source)
    head: nn.Linear
    if row.network.endswith("+linear"):
        head = nn.Linear(1000, row.classes)
        module: nn.Module = nn.Sequential(whole, head)
    elif isinstance(whole, torchvision.models.AlexNet):
        last = whole.classifier[6]
        assert isinstance(last, nn.Linear)
        head = whole.classifier[6] = nn.Linear(last.in_features, row.classes)
        module = whole
    else:
        reset: Callable[[int], None] = whole.reset_classifier  # type: ignore[assignment]
        reset(row.classes)
        head = whole.get_classifier()  # type: ignore[operator]
        module = whole
    if row.trained == "last layer":
        module.requires_grad_(False)
        head.requires_grad_(True)
    return module


def _fcn8s(row: Row, name: str, source: Source | None) -> nn.Module:
    if row.recipe.size % 32:
        raise InputError(row.name, f"trains at {row.recipe.size} px", "use a multiple of 32 for FCN8s")
    backbone: nn.Module
    if name == "vgg16":
        backbone = VGG16Features()
        channels: tuple[int, ...] = VGG16Features.channels
    else:
        backbone, channels = timm_features(name)
    if source is not None:
        load_weights(backbone, source, without=("",))
    assert row.skips is not None
    module = FCN8s(backbone, channels, row.classes, skips=row.skips)
    if row.trained == "last layer":
        module.requires_grad_(False)
        module.classifier.requires_grad_(True)
    return module


def _normalisation(name: str) -> tuple[Colour, Colour]:
    if name in ("alexnet", "vgg16"):
        return IMAGENET_MEAN, IMAGENET_STD
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(config.mean), tuple(config.std)  # type: ignore[return-value]


def set_training_mode(module: nn.Module, row: Row) -> None:
    """Puts a network into the mode its row trains in.

    Dropout is active in a frozen network too, as in the report. Frozen batch norms keep their statistics. With
    `batch_norm="frozen"` nothing is in training mode: the template's trap.
    """
    module.train(row.batch_norm == "train")
    if row.batch_norm == "train":
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and not any(
                p.requires_grad for p in part.parameters()
            ):
                part.eval()


def trainable(module: nn.Module) -> list[Tensor]:
    """The parameters that the optimizer changes."""
    return [p for p in module.parameters() if p.requires_grad]
