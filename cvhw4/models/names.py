"""From the name of a network to the library that has it: timm, torchvision or segmentation_models_pytorch."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import nn
from torchvision import models

from cvhw4.errors import InputError


class Named(NamedTuple):
    """A network's name, taken apart.

    Attributes:
        library: that builds it.
        name: as that library calls it today; of segmentation_models_pytorch's the encoder.
        use: "fcn8s" for a backbone below FCN8s, "linear" for a classifier with a layer more, the architecture of
            segmentation_models_pytorch's, or "".
        tag: which of torchvision's weights ("IMAGENET1K_V1"); "" for those that it takes by default.
        written: `name` as the row has it: another where the model was renamed.
    """

    library: Literal["timm", "torchvision", "smp"]
    name: str
    use: str
    tag: str = ""
    written: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What files of its weights may be named after."""
        plain = (self.name, self.name.removeprefix("tu-")) if self.library == "smp" else (self.name,)
        return tuple(dict.fromkeys((*plain, self.written or self.name)))


@cache
def take_apart(network: str) -> Named:
    """What a row's network names.

    Raises:
        InputError: no library has it, or the tag of its weights; segmentation_models_pytorch is not installed.
    """
    use, rest = "", network
    if network.startswith("fcn8s/"):
        use, rest = "fcn8s", network.removeprefix("fcn8s/")
    elif network.endswith("+linear"):
        use, rest = "linear", network.removesuffix("+linear")
    if rest.startswith("smp/") and not use:
        return _smps(network, rest.removeprefix("smp/"))
    if rest.startswith("torchvision/") and use != "fcn8s":
        return _torchvisions(network, rest.removeprefix("torchvision/"), use)
    if rest == "alexnet" or (rest == "vgg16" and use == "fcn8s"):
        return Named("torchvision", rest, use)
    return _timms(network, rest, use)


def _timms(network: str, written: str, use: str) -> Named:
    renamed = timm.models.get_deprecated_models()
    name = renamed.get(written) or written
    if not timm.is_model(name) or (written in renamed and not renamed[written]):
        otherwise = "alexnet, or a name from timm.list_models()"
        otherwise += ", with fcn8s/, torchvision/ or smp/ before a name where that is meant" * ("/" in written)
        raise _unknown(network, written.rpartition("/")[2], timm.list_models(), otherwise)
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        arch, _, tag = name.partition(".")
        tags = timm.models.get_arch_pretrained_cfgs(arch)
        names = ", ".join(f"{arch}.{t}" if not t.startswith(arch) else t for t in list(tags)[:4])
        raise InputError(network, f"names weights that timm has not ({tag})", f"use {names or arch}") from error
    return Named("timm", name, use, written=written)


def _torchvisions(network: str, rest: str, use: str) -> Named:
    name, _, tag = rest.partition(".")
    known = models.list_models(module=models)
    if not use:
        known += models.list_models(module=models.segmentation)
    if name not in known:
        raise _unknown(network, name, known, "a name from torchvision.models.list_models()", "torchvision/")
    if tag and tag not in (tags := _imagenet_weights(name).__members__):
        raise InputError(network, f"names weights that torchvision has not ({tag})", f"use {', '.join(tags)}")
    return Named("torchvision", name, use, tag)


def _smps(network: str, rest: str) -> Named:
    library = smp(network)
    arch, _, encoder = rest.partition("/")
    archs = {cls.__name__.lower(): cls.__name__ for cls in library.MODEL_ARCHITECTURES_MAPPING.values()}
    if arch.lower() not in archs or not encoder:
        hint = f"write smp/Unet/resnet34, with one of {', '.join(archs.values())}"
        raise InputError(network, "is not a known network", hint)
    if encoder.startswith("tu-"):
        timms = _timms(network, encoder.removeprefix("tu-"), "")
        return Named("smp", f"tu-{timms.name}", archs[arch.lower()])
    known = [name for name in library.encoders.encoders if not name.startswith("timm-")]
    if encoder not in known:
        raise _unknown(network, encoder, known, "tu- before any timm backbone", f"smp/{arch}/")
    return Named("smp", encoder, archs[arch.lower()])


def _unknown(network: str, name: str, known: Iterable[str], otherwise: str, before: str = "") -> InputError:
    close = [before + match for match in difflib.get_close_matches(name, known, 2)]
    return InputError(network, "is not a known network", f"use {', '.join(close)}{', or ' * bool(close)}{otherwise}")


def smp(network: str) -> Any:
    """segmentation_models_pytorch.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("segmentation_models_pytorch")
    except ImportError as error:
        problem = f"needs segmentation_models_pytorch, which cannot be imported ({error})"
        raise InputError(network, problem, "pip install cvhw4[smp]") from error


def _imagenet_weights(name: str) -> Any:
    """torchvision's enumeration of ImageNet weights of a network, of a segmenter those of its backbone."""
    return models.get_model_weights(_backbone_of(name))


def _backbone_of(name: str) -> str:
    """The classifier whose ImageNet weights a torchvision network starts from: itself, or a segmenter's backbone."""
    return re.sub("^(deeplabv3|fcn|lraspp)_", "", name)


def torchvision_weights(named: Named) -> Any:
    """What torchvision knows of the ImageNet weights of one of its networks: url, transforms.

    A segmenter's backbone has the first version of its weights, as in torchvision itself.
    """
    known = _imagenet_weights(named.name)
    default = known.DEFAULT if _backbone_of(named.name) == named.name else known.IMAGENET1K_V1
    return known[named.tag] if named.tag else default


def build_whole(named: Named, size: int | None = None, *, pretrained: bool = False) -> nn.Module:
    """A classifier of timm's or torchvision's as its ImageNet weights have it, 1000-way mostly, with random weights.

    Args:
        size: side of its inputs in pixels; None for what it is made for.
        pretrained: whether ImageNet weights will be put into it, some of which want inputs in a scale of their own.

    Raises:
        InputError: it takes inputs of one size alone.
    """
    if named.library == "timm":
        return _sized(named.name, size)
    options: dict[str, Any] = {}
    if named.name in ("googlenet", "inception_v3"):
        options = {"init_weights": True, "transform_input": pretrained}
    elif named.name.startswith("vit_") and size is not None:
        options = {"image_size": size}
    module: nn.Module = models.get_model(named.name, weights=None, **options)
    return module


def _sized(name: str, size: int | None, **options: Any) -> nn.Module:
    """A timm model for inputs of a size, which is passed on to those that are built for one."""
    config = timm.get_pretrained_cfg(name)
    side = config.input_size[-1] if size is not None and config is not None and config.fixed_input_size else size
    if side != size:
        options["img_size"] = size
    try:
        module: nn.Module = timm.create_model(name, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise InputError(name, f"takes pictures of {side} pixels alone, not {size}", f"use size={side}") from error
    return module


def timm_features(name: str, size: int | None = None) -> tuple[nn.Module, tuple[int, ...]]:
    """A timm backbone that gives its maps [B, C, H, W] at 1/8, 1/16 and 1/32 of the input's size, and their channels.

    Args:
        size: side of its inputs in pixels, for a backbone that is built for one size.

    Raises:
        InputError: the network has no maps at these three sizes.
    """
    hint = "use a backbone that has them, as convolutional networks and swin do"
    try:
        info: Any = _sized(name, size, features_only=True).feature_info
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise InputError(f"fcn8s/{name}", f"gives no feature maps ({first_line(error)})", hint) from error
    reductions = list(info.reduction())
    if not {8, 16, 32} <= set(reductions):
        problem = f"has feature maps at 1/{reductions}, and FCN8s needs 1/8, 1/16 and 1/32"
        raise InputError(f"fcn8s/{name}", problem, hint)
    indices = tuple(reductions.index(r) for r in (8, 16, 32))
    module = _sized(name, size, features_only=True, out_indices=indices)
    if str(getattr(module, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC"):  # swin's channels come last
        module.register_forward_hook(lambda _, __, maps: [x.permute(0, 3, 1, 2) for x in maps])
    return module, tuple(info.channels(list(indices)))


def build_segmenter(named: Named, classes: int) -> nn.Module:
    """A segmentation network of torchvision's or segmentation_models_pytorch's, with random weights."""
    if named.library == "torchvision":
        module: nn.Module = models.get_model(named.name, weights=None, weights_backbone=None, num_classes=classes)
        return module
    made: nn.Module = smp(named.name).create_model(
        named.use, encoder_name=named.name, encoder_weights=None, classes=classes
    )
    return made


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without numbers, on torch's meta device: shapes alone, at next to no cost. What cannot be made there is
    made, and then moved."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # weights that a builder loads
            return make()
    except Exception:  # a network may look at numbers while it is made; what is wrong with it is raised again
        with torch.random.fork_rng(devices=[]):
            return make().to("meta")


def last_layer(module: nn.Module, outputs: int) -> tuple[str, nn.Module] | None:
    """Name and module of the last linear or convolutional layer with so many outputs; None where there is none."""
    found = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
        and getattr(part, "out_features", getattr(part, "out_channels", None)) == outputs
    ]
    return found[-1] if found else None


def first_line(error: BaseException) -> str:
    """Of what an error says the first line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
