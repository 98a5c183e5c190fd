"""From a row to its network: what its name or its callable builds, heads, pretrained weights, frozen layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from cvhw4.errors import InputError
from cvhw4.models.fcn8s import FCN8s, VGG16Features
from cvhw4.models.names import (
    Named,
    build_segmenter,
    build_whole,
    last_layer,
    take_apart,
    timm_features,
    torchvision_weights,
)
from cvhw4.models.weights import Source, find_weights, load_weights, pretrained_part
from cvhw4.study import Row

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Colour = tuple[float, float, float]
# segmentation_models_pytorch's encoders whose weights want other inputs; the library itself has to download this.
_OF_ENCODERS: dict[str, tuple[Colour, Colour]] = {
    name: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) for name in ("inceptionresnetv2", "inceptionv4", "xception")
}
_given: WeakSet[nn.Module] = WeakSet()  # the parts, with parameters to be trained, of networks that callables gave


@dataclass(frozen=True)
class Network:
    """A network ready to be trained.

    Attributes:
        module: maps normalised float [B, 3, size, size] to logits [B, classes] or [B, classes, size, size].
        mean: of the inputs it expects, per channel, on the scale 0..1.
        std: likewise.
        weights: what it started from; None where it starts at random, or its callable decides.
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
        InputError: unknown network, one that cannot be made for the row's size or has no layer to be trained, or a
            weights file that does not fit.
        Unavailable: the row starts from ImageNet and no source has the weights.
    """
    source = find_weights(row.network, weights) if isinstance(row.network, str) and row.start == "imagenet" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_module(row, source)
    mean, std = _normalisation(row, module)
    return Network(module, mean, std, source)


def build_module(row: Row, source: Source | None = None) -> nn.Module:
    """The row's module, from random weights or from a file; what it draws is the caller's business.

    Raises:
        InputError: as `build_network`.
    """
    if not isinstance(row.network, str):
        module = row.network(row.classes)
        if not isinstance(module, nn.Module):
            problem = f"gives {module!r:.40}, which is not a network"
            raise InputError(f"{row.name}, {row.network_name}", problem, "let it return a torch.nn.Module")
        if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
            hint = "give each its number of inputs, or call the network once before it is returned"
            raise InputError(f"{row.name}, {row.network_name}", "has lazy layers, whose sizes are not known", hint)
    else:
        named = take_apart(row.network)
        if named.use == "fcn8s":
            module = _fcn8s(row, named, source)
            if row.trained == "last layer":
                _train_last_layer(row, module)
            return module
        if row.task.name == "segmentation":
            module = build_segmenter(named, row.classes)
            if source is not None:
                part, without = pretrained_part(named, module)
                load_weights(part, source, without=without)
        else:
            return _classifier(row, named, source)
    module.register_forward_hook(logits_of)
    if row.trained == "last layer":
        _train_last_layer(row, module)
    if not any(p.requires_grad for p in module.parameters()):
        raise InputError(
            f"{row.name}, {row.network_name}", "has no parameters to be trained", "leave some requires_grad"
        )
    if not isinstance(row.network, str):
        _check_new(row, module)
    return module


def _check_new(row: Row, module: nn.Module) -> None:
    """Refuses what a callable gave before, in which a seed would go on from the weights of another; raises
    InputError."""
    parts = [m for m in module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    if any(part in _given for part in parts):
        hint = "let it build a new one at each call, so that each seed has its own"
        raise InputError(f"{row.name}, {row.network_name}", "gives the same network again", hint)
    _given.update(parts)


def _classifier(row: Row, named: Named, source: Source | None) -> nn.Module:
    size = row.recipe.size
    whole = build_whole(named, size, pretrained=source is not None)
    if source is not None:
        load_weights(whole, source, size=size)
    head: nn.Module
    if named.use == "linear":
        head = nn.Linear(getattr(whole, "num_classes", 1000), row.classes)
        module: nn.Module = nn.Sequential(whole, head)
    elif named.library == "torchvision":
        found = last_layer(whole, 1000)
        assert found is not None
        path, last = found
        head = _with_outputs(last, row.classes)
        whole.set_submodule(path, head)
        module = whole
        if named.name in ("googlenet", "inception_v3"):
            module.register_forward_hook(logits_of)
    else:
        reset: Callable[[int], None] = whole.reset_classifier  # type: ignore[assignment]
        reset(row.classes)
        head = whole.get_classifier()  # type: ignore[operator]
        module = whole
    if row.trained == "last layer":
        module.requires_grad_(False)
        for part in head if isinstance(head, tuple) else (head,):  # two of a distilled network
            part.requires_grad_(True)
    return module


def _with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    """A layer like another, linear or of 1x1 convolutions, with so many outputs and random weights."""
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(layer.in_channels, outputs, kernel_size=layer.kernel_size)  # type: ignore[arg-type]
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, outputs)


def _fcn8s(row: Row, named: Named, source: Source | None) -> nn.Module:
    size = row.recipe.size
    if size % 32:
        raise InputError(row.name, f"trains at {size} px", "use a multiple of 32 for FCN8s")
    backbone: nn.Module
    if named.library == "torchvision":
        backbone = VGG16Features()
        channels: tuple[int, ...] = VGG16Features.channels
        if source is None:
            backbone.initialise()
    else:
        backbone, channels = timm_features(named.name, size)
    if source is not None:
        load_weights(backbone, source, without=("",), size=size)
    assert row.skips is not None
    return FCN8s(backbone, channels, row.classes, skips=row.skips)


def _train_last_layer(row: Row, module: nn.Module) -> None:
    """Freezes all but the layer that gives the logits; raises InputError where none has as many outputs as classes."""
    found = last_layer(module, row.classes)
    if found is None:
        problem = f"has no layer with {row.classes} outputs, so that its last layer is not known"
        hint = "freeze layers in the callable (requires_grad_(False)), and leave trained out"
        raise InputError(f"{row.name}, {row.network_name}", problem, hint)
    module.requires_grad_(False)
    found[1].requires_grad_(True)


def logits_of(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """A forward hook: the logits among what a network gives.

    Of a dict, or of an object with such attributes, these are `out` (torchvision's segmenters) or `logits` (Hugging
    Face's, torchvision's with auxiliary classifiers); a map of logits smaller than the picture is scaled up bilinearly,
    as their own code does before it compares with labels. Auxiliary outputs are not trained.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("out", "logits"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            if found.ndim == 4 and found.shape[2:] != inputs[0].shape[2:]:
                return F.interpolate(found, inputs[0].shape[2:], mode="bilinear", align_corners=False)
            return found
    return output


def _normalisation(row: Row, module: nn.Module) -> tuple[Colour, Colour]:
    """Mean and standard deviation that inputs are normalised with: those of the pretrained weights where the network's
    library, or the `pretrained_cfg` of the first of timm's modules in it, says so; else ImageNet's."""
    known: Any = None
    if not isinstance(row.network, str):
        known = next((c for part in module.modules() if (c := getattr(part, "pretrained_cfg", None))), None)
    else:
        named = take_apart(row.network)
        if named.library == "torchvision":
            transform = torchvision_weights(named).transforms()
            return tuple(transform.mean), tuple(transform.std)
        if named.library == "smp" and not named.name.startswith("tu-"):
            return _OF_ENCODERS.get(named.name, (IMAGENET_MEAN, IMAGENET_STD))
        else:
            known = timm.get_pretrained_cfg(named.name.removeprefix("tu-"))
    get = known.get if isinstance(known, Mapping) else lambda name: getattr(known, name, None)
    mean, std = get("mean"), get("std")
    if not mean or not std or len(mean) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(mean), tuple(std)


def channels_last(module: nn.Module) -> nn.Module:
    """The same module, its parameters and buffers of four dimensions in that layout. PyTorch's own way refuses networks
    that have some of five."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def set_training_mode(module: nn.Module, row: Row) -> None:
    """Puts a network into the mode its row trains in.

    Dropout is active in a frozen network too, as in the report. Frozen batch norms keep their statistics. With
    `batch_norm="frozen"` nothing is in training mode: the template's trap.
    """
    module.train(row.batch_norm == "train")
    if row.batch_norm == "train":
        for name, part in module.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                around = list(part.parameters())  # none without affine=True: then those of the modules it is in tell
                own, owner = bool(around), name
                while not around and owner:
                    owner = owner.rpartition(".")[0]
                    around = list(module.get_submodule(owner).parameters())
                frozen = bool(around) and not any(p.requires_grad for p in around)
                if frozen or (not own and row.trained == "last layer"):
                    part.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it a network is in evaluation mode; afterwards each of its parts is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def trainable(module: nn.Module) -> list[Tensor]:
    """The parameters that the optimizer changes."""
    return [p for p in module.parameters() if p.requires_grad]


def trained_images(module: nn.Module, row: Row, images: int) -> int:
    """How many of the training images an epoch trains on: all, but for a last batch of one picture that the network
    cannot be trained on, since a batch norm would see one value per channel (behind global pooling, or where maps are
    one pixel large).

    Incomplete last batches are left out by the loaders of timm (`create_loader`, in training), of torchvision's
    segmentation reference and of fastai, and kept by those of PyTorch's ImageNet example and torchvision's
    classification reference. Here they are kept wherever they can be trained on, so that no picture is lost without
    need; which picture is left out changes from epoch to epoch.

    Args:
        module: of the row; its modes are left as they were.
        images: in the training split.
    """
    batch = row.recipe.batch
    if images % batch != 1 or images == 1 or batch == 1:
        return images
    return images - 1 if single_values(module, row) else images


def single_values(module: nn.Module, row: Row) -> bool:
    """Whether a batch norm in training mode sees one value per channel where the batch is one picture."""
    found: list[bool] = []
    with evaluating(module):
        set_training_mode(module, row)
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        module.eval()
        hooks = [m.register_forward_pre_hook(lambda _, x: found.append(x[0].numel() == x[0].shape[1])) for m in norms]
        first = next(module.parameters())
        try:
            if norms:
                with torch.no_grad():  # not in inference mode, see `find_pairs`
                    module(torch.zeros(1, 3, row.recipe.size, row.recipe.size, device=first.device))
        finally:
            for hook in hooks:
                hook.remove()
    return any(found)
