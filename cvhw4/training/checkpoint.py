"""Checkpoints: all that an unfinished training needs to go on to the very figures it would have had.

One safetensors file holds tensors and, in its header, JSON: weights, the optimizer's state, the schedule, the states of
all random generators, the place in the data, and what is known of the epochs so far. Nothing in it is a pickle. It is
written in one step, and a damaged one is not used.
"""

from __future__ import annotations

import json
import math
import time
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from cvhw4.errors import InputError, printable
from cvhw4.files import write_atomically

VERSION = 1
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
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: Generators, device: torch.device) -> None:
    """Puts the generators into states that `generator_states` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


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
        """Whether every number in it is finite: weights that are not are no place to go on from."""
        return all(bool(torch.isfinite(t).all()) for t in self.tensors.values() if t.is_floating_point())


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
        content = tensors[name].reshape(-1).numpy().view(np.uint8).data
        checksum = zlib.crc32(content, zlib.crc32(name.encode(), checksum))
    return checksum


# What changes while a network is trained


def state_of(module: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Copies, on the CPU, of what training changes: trainable parameters, buffers, and the optimizer's state."""
    tensors = {f"weights.{name}": tensor for name, tensor in _changing(module).items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value
    plain = torch.contiguous_format
    return {name: t.detach().to("cpu", copy=True, memory_format=plain) for name, t in tensors.items()}


def restore(module: nn.Module, optimizer: optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Puts back what `state_of` copied. Each tensor keeps the memory layout of what it belongs to: fused optimizers
    go through weights and state side by side."""
    saved = checkpoint.part("weights")
    with torch.no_grad():
        for name, tensor in _changing(module).items():
            tensor.copy_(saved[name])
        for number, parameter in enumerate(_parameters(optimizer)):
            for key, value in checkpoint.part(f"optimizer.{number}").items():
                if value.shape == parameter.shape:
                    optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value)
                else:  # Adam's count of steps
                    optimizer.state[parameter][key] = value.to(parameter.device)


def _changing(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if p.requires_grad} | dict(module.named_buffers())


def _parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
