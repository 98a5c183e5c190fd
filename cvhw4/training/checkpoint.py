"""Checkpoints: all that an unfinished training needs to go on to the very figures it would have had.

One safetensors file holds tensors and, in its header, JSON: weights, the optimizer's state, the schedule, the states of
all random generators, the place in the data, and what is known of the epochs so far. Nothing in it is a pickle. It is
written in one step, and a damaged one is not used.
"""

from __future__ import annotations

import json
import math
import random
import time
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from cvhw4.errors import InputError, printable
from cvhw4.files import write_atomically

VERSION = 3
_FIRST_COST = 0.2  # seconds that the first one is taken to cost: at a share of 0.01, short runs write none
Generators = dict[str, Tensor]


@dataclass
class EpochPosition:
    """Where in an epoch a training stands.

    Attributes:
        losses: float32 [steps], on the device: of the epoch's steps so far; the rest is not filled in.
        taken: how many of them were taken.
        block: the block of images it is in, from 0.
        steps: how many steps were taken in that block.
        augmentation: uint8, state of the augmentation's generator when that block began; None before the first.
        generators: states of the process's generators when it began.
    """

    losses: Tensor
    taken: int = 0
    block: int = 0
    steps: int = 0
    augmentation: Tensor | None = None
    generators: Generators = field(default_factory=dict)


def generator_states(device: torch.device) -> Generators:
    """uint8 states of the process's random generators: the CPU's, and the device's if it is another."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_generator_states(states: Generators, device: torch.device) -> None:
    """Puts the generators into states that `generator_states` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)


@dataclass
class Checkpoint:
    """What a checkpoint holds: tensors and plain JSON values, both by name."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below a name, by the rest of theirs."""
        return {k.removeprefix(f"{name}."): v for k, v in self.tensors.items() if k.startswith(f"{name}.")}

    @property
    def sound(self) -> bool:
        """Whether every number in it is finite: weights that are not are no place to go on from. A buffer may have
        infinities, as masks do, but no NaN."""
        floats = {name: t for name, t in self.tensors.items() if t.is_floating_point()}
        return not any(
            bool((t.isnan() if name.startswith("buffers.") else ~t.isfinite()).any()) for name, t in floats.items()
        )


class Checkpoints:
    """Where a run's checkpoint lies, and when it is written.

    At the end of every epoch, and within one every so many seconds; but so seldom that no larger `share` of the time
    goes into it. Where the folder has no room, a warning says so once and the run goes on.

    Args:
        path: the file; each checkpoint takes the place of the one before.
        fingerprint: of the run: a checkpoint of another run is not used.
        every: seconds between checkpoints within an epoch; 0 after every step.
        resume: go on from the checkpoint there is.
        share: of the time that may go into checkpoints.

    Attributes:
        written: epoch and steps taken in it of the last one, read or written.
    """

    def __init__(
        self, path: Path, fingerprint: str, *, every: float = 60.0, resume: bool = False, share: float = math.inf
    ) -> None:
        self.path, self.fingerprint, self.every, self.resume, self.share = path, fingerprint, every, resume, share
        self.written: tuple[int, int] | None = None
        self._last, self._cost, self._failed = time.monotonic(), _FIRST_COST, False
        self._began = 0.0

    def due(self, *, epoch_ends: bool = False) -> bool:
        """Whether it is time for one."""
        self._began = time.monotonic()
        waited = self._began - self._last
        return not self._failed and waited >= (0 if epoch_ends else self.every) and waited * self.share >= self._cost

    def write(self, checkpoint: Checkpoint) -> None:
        """Stores a checkpoint, unless it holds a number that is not finite; what came since it was due is its cost."""
        if not checkpoint.sound:
            self._last = time.monotonic()
            return
        values = checkpoint.values | {"version": VERSION, "fingerprint": self.fingerprint}
        text = json.dumps(values)
        header = {"cvhw4": text, "checksum": str(_checksum(text, checkpoint.tensors))}
        try:
            write_atomically(self.path, save(checkpoint.tensors, header))
        except InputError as error:
            warnings.warn(f"{error} The run goes on, and would begin anew if it were broken off.", stacklevel=2)
            self._failed = True
            return
        self.written = values["epoch"], values["taken"]
        self._last = time.monotonic()
        self._cost = self._last - self._began

    def read(self) -> Checkpoint | None:
        """The checkpoint to go on from, if one is wanted and there; a damaged one is none, with a warning."""
        if not self.resume or not self.path.is_file():
            return None
        try:
            found = self._read()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"{self.path} is not a checkpoint of this run ({error}): it begins anew and will write another."
            warnings.warn(printable(problem), stacklevel=2)
            return None
        self.written = found.values["epoch"], found.values["taken"]
        return found

    def _read(self) -> Checkpoint:
        content = self.path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        tensors = load(content)  # checks the header against the file's size
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        if header["checksum"] != str(_checksum(header["cvhw4"], tensors)):
            raise ValueError("it is damaged")
        values = json.loads(header["cvhw4"])
        if values["version"] != VERSION or values["fingerprint"] != self.fingerprint:
            raise ValueError("it is another run's, or another version's")
        return Checkpoint(tensors, values)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over a text, and names and bytes of tensors."""
    checksum = zlib.crc32(text.encode())
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        checksum = zlib.crc32(content, zlib.crc32(name.encode(), checksum))
    return checksum


# What changes while a network is trained


def state_of(module: nn.Module, optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """What training changes: copies, on the CPU, of trainable parameters, buffers and the optimizer's tensors; and all
    else of the optimizer's state as plain JSON values."""
    tensors = _changing(module)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    states = [dict(optimizer.state.get(parameter, {})) for parameter in _parameters(optimizer)]
    generators = {k: v for k, v in vars(_base(optimizer)).items() if isinstance(v, torch.Generator | random.Random)}
    values = _pack({"groups": groups, "states": states, "generators": generators}, "optimizer", tensors)
    plain = torch.contiguous_format
    return {name: t.detach().to("cpu", copy=True, memory_format=plain) for name, t in tensors.items()}, values


def fits(module: nn.Module, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds what changes in a network, by names and shapes."""
    kept = {name: t.shape for name, t in checkpoint.tensors.items() if name.startswith(("weights.", "buffers."))}
    return kept == {name: t.shape for name, t in _changing(module).items()}


def restore(module: nn.Module, optimizer: optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Puts back what `state_of` copied; its JSON values are `values["optimizer"]`. Each tensor keeps the memory layout
    of what it belongs to: fused optimizers go through weights and state side by side."""
    with torch.no_grad():
        for name, tensor in _changing(module).items():
            tensor.copy_(checkpoint.tensors[name])
    packed, parameters = checkpoint.values["optimizer"]["dict"], _parameters(optimizer)
    for group, values in zip(optimizer.param_groups, packed["groups"], strict=True):
        group.update(_unpack(values, checkpoint.tensors, group["params"][0]))
    for parameter, values in zip(parameters, packed["states"], strict=True):
        if state := _unpack(values, checkpoint.tensors, parameter):
            optimizer.state[parameter] = state
    for name, generator in _unpack(packed["generators"], checkpoint.tensors, parameters[0]).items():
        setattr(_base(optimizer), name, generator)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as plain JSON, its tensors put among the others; {"other": ...} for what is no value, as a function."""
    match value:
        case Tensor():
            tensors[name] = value
            return {"tensor": name, "host": value.device.type == "cpu"}
        case torch.Generator():
            return {"generator": _pack(value.get_state(), name, tensors), "host": value.device.type == "cpu"}
        case random.Random():
            return {"random": _pack(value.getstate(), name, tensors)}
        case dict():
            return {"dict": {k: _pack(v, f"{name}.{k}", tensors) for k, v in value.items()}}
        case list() | tuple():
            items = [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    return {"other": type(value).__name__}


def _unpack(value: Any, tensors: Mapping[str, Tensor], like: Tensor) -> Any:
    """The value that was packed; tensors on the device of the parameter that they belong to, or on the host."""
    match value:
        case {"tensor": name, "host": host}:
            tensor = tensors[name]
            if tensor.shape == like.shape:
                return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
            return tensor.clone() if host else tensor.to(like.device)
        case {"generator": state, "host": host}:
            on_device = torch.Generator("cpu" if host else like.device)
            return on_device.set_state(_unpack(state, tensors, like))
        case {"random": state}:
            generator = random.Random()
            generator.setstate(_unpack(state, tensors, like))
            return generator
        case {"dict": items}:
            values = {k: v for k, v in items.items() if not isinstance(v, dict) or "other" not in v}
            return {k: _unpack(v, tensors, like) for k, v in values.items()}
        case {"tuple": items}:
            return tuple(_unpack(v, tensors, like) for v in items)
        case list():
            return [_unpack(v, tensors, like) for v in value]
    return value


def _base(optimizer: optim.Optimizer) -> optim.Optimizer:
    """An optimizer, or the one that Lookahead is around."""
    return getattr(optimizer, "_base_optimizer", optimizer)


def _changing(module: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters, as "weights.NAME", and buffers, as "buffers.NAME"."""
    weights = {f"weights.{n}": p for n, p in module.named_parameters() if p.requires_grad}
    return weights | {f"buffers.{n}": b for n, b in module.named_buffers()}


def _parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
