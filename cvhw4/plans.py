"""What a run starts from: which run it is, its fingerprint, and where and how it computes."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvhw4.study import Row, Run, unwrapped

if TYPE_CHECKING:
    import torch

    from cvhw4.data.dataset import Dataset
    from cvhw4.models.weights import Source
    from cvhw4.training.precision import Choice


@dataclass
class Plan(ABC):
    """What a run starts from; `configuration` is its fingerprint without the seed."""

    row: Row
    seed: int
    configuration: str
    fingerprint: str

    @property
    def identity(self) -> dict[str, Any]:
        """Which run it is, as its record has it, and the note of its failure."""
        of_row = {"row": self.row.name, "study": self.row.study, "task": self.row.task.name}
        return of_row | {"seed": self.seed, "fingerprint": self.fingerprint, "configuration": self.configuration}

    @property
    @abstractmethod
    def data(self) -> str:
        """How its data are called."""

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Where and how it computes, for the record."""


@dataclass(kw_only=True)
class NetworkPlan(Plan):
    """Of a row with a network of cvhw4's.

    Attributes:
        packages: those that build the network beside torch, torchvision and timm.
    """

    dataset: Dataset
    source: Source | None
    device: torch.device
    choice: Choice
    graphs: bool
    deterministic: bool
    network: str
    packages: Sequence[str]

    @property
    def data(self) -> str:
        """As of every plan."""
        return self.dataset.name

    def environment(self) -> dict[str, Any]:
        """As of every plan."""
        from cvhw4.records import environment as env

        ways = {"precision": self.choice.precision, "graphs": self.graphs, "deterministic": self.deterministic}
        measured = {"step_seconds": dict(self.choice.step_seconds)} if self.choice.step_seconds else {}
        return env.environment(self.device) | env.versions(self.packages) | ways | measured


@dataclass(kw_only=True)
class CustomPlan(Plan):
    """Of a row with a training loop of its own.

    Attributes:
        file: that the loop is in.
        run: what it is given, once it is.
    """

    threads: int
    packages: Sequence[str]
    code: str
    file: Path | None
    run: Run | None = None
    data = "own data"

    @property
    def device(self) -> str:
        """Where it computed, as far as it says: what `Run.device` told it, else CUDA where torch has begun with it."""
        if self.run is not None and "device" in vars(self.run):
            return self.run.device
        torch = sys.modules.get("torch")
        return "cuda" if torch is not None and torch.cuda.is_initialized() else "cpu"

    def environment(self) -> dict[str, Any]:
        """As of every plan."""
        from cvhw4.records.environment import commit, place, versions

        code = {"commit": commit(self.file) if self.file else None, "code": self.code}
        return place(self.device, self.threads) | versions(self.packages) | code


def source_of(function: Callable[..., Any]) -> Path | None:
    """The file that a function, or an object's class, is in; None where there is none."""
    function = unwrapped(function)
    try:
        file = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
    except TypeError:
        return None
    return Path(file).absolute() if file else None


def fingerprints(identity: dict[str, Any], seed: int) -> tuple[str, str]:
    """Digests of all that decides a run's figures: without the seed, and with it."""
    return digest(identity), digest(identity | {"seed": seed})


def digest(value: object) -> str:
    """SHA-256 of a plain JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
