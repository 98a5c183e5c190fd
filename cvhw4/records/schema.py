"""The record of one run: what is written to disk, and read back. Version 1.

A record is one JSON object with the fields of `RunRecord`, in UTF-8. Numbers that JSON cannot hold (NaN for a class
that never occurs) are null. A reader refuses a version it does not know; fields may be added within a version, never
change their meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a run.

    Attributes:
        epoch: number, from 1.
        lr: learning rate it was trained with.
        loss: mean training loss over its images.
        figures: metrics on the validation split after it, by name (see `cvhw4.training.metrics`), 0..1 but for `loss`.
        train_seconds: wall time of the training part.
        evaluate_seconds: wall time of the evaluation.
    """

    epoch: int
    lr: float
    loss: float
    figures: Mapping[str, float]
    train_seconds: float
    evaluate_seconds: float


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """Which data a run saw.

    Attributes:
        name: how tables call the data set.
        embedded: whether this package generated it.
        fingerprint: sha256 of its decoded pictures and targets.
        train: number of training images.
        val: number of validation images.
        classes: names of the classes.
    """

    name: str
    embedded: bool
    fingerprint: str
    train: int
    val: int
    classes: list[str]


@dataclass(frozen=True, kw_only=True)
class WeightsUsed:
    """What a run's network started from: `origin` in words ("random" for none), and the sha256 of the file."""

    network: str
    origin: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Times:
    """Wall times of a run in seconds, training images per second, and peak memory in bytes.

    `peak_memory_bytes` is the device's for CUDA, the process's resident set for a CPU; None where neither can be read.
    """

    build_seconds: float
    train_seconds: float
    evaluate_seconds: float
    total_seconds: float
    images_per_second: float
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All there is to know of one run.

    Attributes:
        row: the experiment's row ("q1_2"); `id` its id, `profile` its profile.
        seed: what was drawn from.
        fingerprint: digest of settings, seed, data, weights, device, threads, versions and code: equal fingerprints
            mean that the run need not be repeated.
        study: the same without the seed: runs that may be averaged.
        settings: the experiment's settings, as `Experiment.settings` gives them.
        parameters: how many numbers the network has.
        trained_parameters: how many of them were trained.
        primary: the figure that tables put first.
        epochs: what happened, epoch by epoch.
        by_class: lists by class: of the last epoch and, under `best_`, of the epoch with the best primary figure.
        environment: versions, device, threads, commit.
        started: when, ISO 8601 in UTC.
        images: sha256 of the file beside it with what was made of every validation image; None where there is none.
    """

    row: str
    id: str
    profile: str
    seed: int
    fingerprint: str
    study: str
    settings: Mapping[str, Any]
    data: DataUsed
    weights: WeightsUsed
    parameters: int
    trained_parameters: int
    primary: str
    epochs: list[Epoch]
    by_class: Mapping[str, list[float]] = field(default_factory=dict)
    times: Times
    environment: Mapping[str, Any]
    started: str
    images: str | None = None
    version: int = VERSION

    @property
    def question(self) -> str:
        """ "q1" or "q2"."""
        return self.row.split("_")[0]

    def best(self, metric: str, within: int | None = None) -> float:
        """The highest value of a figure over the (first `within`) epochs: what the report states."""
        return max(e.figures[metric] for e in self.epochs[:within])

    def best_epoch(self, metric: str, within: int | None = None) -> int:
        """The first epoch that reaches the best value of a figure (among the first `within`)."""
        return max(self.epochs[:within], key=lambda e: e.figures[metric]).epoch

    def last(self, metric: str) -> float:
        """A figure after the last epoch."""
        return self.epochs[-1].figures[metric]

    def figure(self, name: str) -> float:
        """A figure by its full name: "best accuracy", "last miou", or "training loss", of the last epoch."""
        if name == "training loss":
            return self.epochs[-1].loss
        which, metric = name.split(" ", 1)
        return self.best(metric) if which == "best" else self.last(metric)

    def to_json(self) -> str:
        """The record as it is stored, ending in a newline."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> RunRecord:
        """Reads a stored record.

        Args:
            where: the file it is from, for the message of an error.

        Raises:
            InputError: not JSON, not a record, or a version this code does not know.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InputError(where, f"is not JSON ({error})", "delete it and repeat the run") from error
        if not isinstance(raw, dict) or "version" not in raw:
            raise InputError(where, "is no run record", "move it out of the results folder")
        if raw["version"] != VERSION:
            mend = "update cvhw4, or use another --results folder"
            raise InputError(where, f"is a record of version {raw['version']}, not {VERSION}", mend)
        try:
            raw["data"] = _only_known(DataUsed, raw["data"])
            raw["weights"] = _only_known(WeightsUsed, raw["weights"])
            raw["times"] = _only_known(Times, raw["times"])
            raw["epochs"] = [_only_known(Epoch, e) for e in raw["epochs"]]
            raw["by_class"] = {k: [math.nan if x is None else x for x in v] for k, v in raw["by_class"].items()}
            record: RunRecord = _only_known(cls, raw)
            if not record.epochs or not isinstance(record.best(record.primary), float):
                raise ValueError("it has no epochs")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(where, f"is a damaged record ({error})", "delete it and repeat the run") from error
        return record


def _only_known(kind: type, raw: Mapping[str, Any]) -> Any:
    """An object of a dataclass from a mapping; fields added by a later version are passed over."""
    return kind(**{f.name: raw[f.name] for f in fields(kind) if f.name in raw})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
