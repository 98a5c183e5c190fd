"""The record of one run, and of one that could not be finished: what is written to disk, and read back. Version 4.

A record is one JSON object with the fields of `RunRecord`, in UTF-8. Numbers that JSON cannot hold (NaN for a class
that never occurs) are null. A reader refuses another version; fields may be added within one, never change their
meaning. What it gives has every field in its type, and all that pages rely on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from cvhw4.errors import InputError
from cvhw4.labels import Merged, merge_classes
from cvhw4.records.typed import AfterValidator, Field, TypeAdapter, ValidationError, WrapValidator, from_json
from cvhw4.study.checks import MOST
from cvhw4.tasks import CUSTOM, SEGMENTATION, TASKS, TRAINING_LOSSES, TaskName

VERSION = 4
_FAILURE_VERSION = 2
_HINT = "delete it and repeat the run"
adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)  # of a type, whose checks take a while to be made
# In an environment, beside versions of packages.
_PLACE = ("python", "platform", "device", "device_name", "cuda", "cudnn", "driver", "threads", "commit", "code")


def _check_json(value: Any) -> Any:
    """A plain JSON value as it is; raises ValueError for a number beyond 1e100 anywhere in it."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_json(inner)
    elif isinstance(value, int | float) and abs(value) > MOST:
        raise ValueError(f"holds a number beyond {MOST:g}")
    return value


# Types of fields, as pydantic checks them: strictly, so that True is not a number, nor "1".
Text = Annotated[str, Field(strict=True)]
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]  # can be part of a path
Digest = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]
Instant = Annotated[
    str,
    Field(strict=True, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"),
    AfterValidator(lambda text: datetime.fromisoformat(text) and text),
]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[float, Field(strict=True, ge=-MOST, le=MOST)]
Measured = Annotated[Number, WrapValidator(lambda value, number: math.nan if value is None else number(value))]
Json = Annotated[Any, AfterValidator(_check_json)]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a run.

    Attributes:
        epoch: number, from 1.
        lr: learning rate at its beginning; 0 where a study's own training loop alone knows it.
        loss: mean training loss over its images; NaN of such a loop.
        figures: metrics on the validation split after it, by name. Built-in ones (see `cvhw4.metrics`) are 0 to 1;
            `loss` is the validation loss of a classifier. Of such a loop what it yielded.
        train_seconds: wall time of the training part; of such a loop, of all of it.
        evaluate_seconds: wall time of the evaluation; 0 of such a loop.
    """

    epoch: Count
    lr: Number
    loss: Measured
    figures: Mapping[str, Measured]
    train_seconds: Number
    evaluate_seconds: Number

    def __eq__(self, other: object) -> bool:
        """As dataclasses do before Python 3.13, for which an epoch whose loss is `math.nan` differs from its copy."""
        return isinstance(other, Epoch) and vars(self) == vars(other)


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """Which data a run saw.

    Attributes:
        name: how tables call the data set.
        embedded: whether this package generated it.
        fingerprint: sha256, in hex, of its decoded pictures and targets; where each seed drew its own, of what they
            were drawn from.
        train: number of training images; 0 where a study's own training loop alone knows it, and no others.
        val: number of validation images, likewise.
        classes: names of the classes in the order of their numbers, for segmentation without void and not merged.
        leaks: training pictures that are validation pictures too, as "train/a.jpg = val/b.jpg".
        redrawn: whether each seed drew its own pictures.
    """

    name: Text
    embedded: Flag
    fingerprint: Text
    train: Count
    val: Count
    classes: list[Text]
    leaks: list[Text] = field(default_factory=list)
    redrawn: Flag = False


@dataclass(frozen=True, kw_only=True)
class WeightsUsed:
    """What a run's network started from.

    Attributes:
        network: the name of the network; of a training loop of the study's own, of what trains.
        origin: where the weights are from, in words ("random" for none, "as built" where a callable decides).
        sha256: of their file, in hex; None where there is none.
    """

    network: Text
    origin: Text
    sha256: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a run took, in seconds of wall time, and how much memory. Unknown times are 0.

    Attributes:
        build_seconds: of building the network.
        train_seconds: of training, all epochs together.
        evaluate_seconds: of evaluating, likewise.
        total_seconds: of all of the run; of one that was resumed with what came before.
        images_per_second: training images per second of training.
        peak_memory_bytes: the device's for CUDA, the process's resident set for a CPU; None where neither can be read.
        interruptions: how often the run was resumed.
    """

    build_seconds: Number
    train_seconds: Number
    evaluate_seconds: Number
    total_seconds: Number
    images_per_second: Number
    peak_memory_bytes: Count | None = None
    interruptions: Count = 0


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Where the results by image lie (see `cvhw4.records.images`).

    Attributes:
        file: its name, beside the record.
        sha256: of its content, in hex.
    """

    file: Name
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What both kinds of records have; see `RunRecord`."""

    row: Name
    study: Name
    task: TaskName
    seed: Count
    fingerprint: Digest
    configuration: Digest
    environment: Mapping[str, Json]
    started: Instant

    def to_json(self) -> str:
        """The record as it is stored, ending in a newline."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: Path) -> Self:
        """Reads a stored record.

        Args:
            text: in UTF-8 where it is bytes.
            where: the file it is from, for the message of an error.

        Raises:
            InputError: not JSON, not a record, a damaged one, or a version this code does not know.
        """
        try:
            raw = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise InputError(where, f"is not JSON ({error})", _HINT) from error
        what, known = ("run record", VERSION) if cls is RunRecord else ("note of a failure", _FAILURE_VERSION)
        if not isinstance(raw, dict) or "version" not in raw:
            raise InputError(where, f"is not a {what}", "move it out of the results folder")
        if type(found := raw["version"]) is not int or found != known:
            hint = "read it with the cvhw4 that wrote it, or use another --results folder"
            raise InputError(where, f"is a record of version {found!r:.40}, not {known}", hint)
        try:
            record = adapter(cls).validate_python(raw)
            if isinstance(record, RunRecord):
                _check_run(record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # without pydantic nothing is checked before
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(where, f"is a damaged record ({problem})", _HINT) from error
        return record


@dataclass(frozen=True, kw_only=True)
class RunRecord(_Stored):
    """All there is to know of one run.

    Attributes:
        row: the name of the row in its study.
        study: the name of the study.
        task: "classification", "segmentation", or "custom" for a study's own training loop.
        seed: what was drawn from, 0 or more.
        fingerprint: sha256, in hex, of settings, seed, data, weights, device, driver, versions and code: equal ones
            mean that the run need not be repeated. Threads are no part of it, though figures' last bits depend on them.
        configuration: the same without the seed: runs that may be averaged.
        settings: the row's settings, as `cvhw4.Row.settings` gives them.
        data: which data it saw.
        weights: what its network started from.
        parameters: how many numbers the network has; 0 where a study's own training loop alone knows it.
        trained_parameters: how many of them were trained.
        primary: the metric that tables put first.
        epochs: what happened, epoch by epoch, from 1.
        by_class: lists with a figure per class, NaN for one that never occurs: "recall", or "iou" and "set_iou", of the
            last epoch and, under `best_`, of the epoch with the best primary figure. Empty with a training loop of the
            study's own.
        environment: versions, device, threads, commit, and the digest of the code, which older records lack.
        started: when, ISO 8601 in UTC.
        times: how long it took, and how much memory.
        images: the file beside it with what was predicted for every validation image; None where there is none.
        lower_is_better: the names of figures of which the lowest is best.
        version: of the format.
    """

    settings: Mapping[str, Json]
    data: DataUsed
    weights: WeightsUsed
    parameters: Count
    trained_parameters: Count
    primary: Text
    epochs: Annotated[list[Epoch], Field(min_length=1)]
    by_class: Mapping[str, list[Measured]] = field(default_factory=dict)
    times: Times
    images: StoredImages | None = None
    lower_is_better: list[Text] = field(default_factory=list)
    version: Count = VERSION

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its figures; without the validation loss that built-in training loops have beside them."""
        return tuple(name for name in self.epochs[0].figures if name != "loss" or self.task == CUSTOM.name)

    @property
    def software(self) -> list[str]:
        """What it computed with, as "torch 2.15.0": torch, or the packages that a study's own training loop uses."""
        if self.task != CUSTOM.name:
            return [f"torch {self.environment['torch']}"]
        packages = {name: version for name, version in self.environment.items() if name not in _PLACE}
        python = self.environment.get("python")
        return [f"{name} {version}" for name, version in packages.items()] or [f"Python {python}"] * bool(python)

    @property
    def merged(self) -> Merged:
        """The classes that a network of segmentation told apart, and which of the data's labels are trained as each."""
        return merge_classes(self.data.classes, self.settings.get("merge") or {})

    @property
    def targets(self) -> tuple[int, ...] | None:
        """Of each of the data's labels the class it is trained as; None for classification."""
        return self.merged.targets if self.task == SEGMENTATION.name else None

    def best(self, metric: str, within: int | None = None) -> float:
        """The best value of a metric: the highest, or the lowest of "loss" and of what `lower_is_better` names.

        Args:
            metric: one of `metrics`, or "loss" of a classifier.
            within: how many epochs are looked at, from the first, 1 or more; None for all.

        Raises:
            InputError: the run has no such figure; the message lists those it has.
        """
        __tracebackhide__ = True  # pytest shows the test's line alone
        best = min if self._is_lowest(metric) else max
        self._after(self.epochs[0], metric)
        return best(self._after(e, metric) for e in self.epochs[:within])

    def best_epoch(self, metric: str, within: int | None = None) -> int:
        """The number, from 1, of the first epoch that reaches the best value; arguments and errors are those of
        `best`."""
        sign = -1 if self._is_lowest(metric) else 1
        return max(self.epochs[:within], key=lambda e: sign * self._after(e, metric)).epoch

    def last(self, metric: str) -> float:
        """A metric after the last epoch; errors are those of `best`."""
        __tracebackhide__ = True
        return self._after(self.epochs[-1], metric)

    def _is_lowest(self, metric: str) -> bool:
        return metric == "loss" or metric in self.lower_is_better

    def _after(self, epoch: Epoch, metric: str) -> float:
        __tracebackhide__ = True
        if metric not in epoch.figures:
            hint = f"choose one of {', '.join(epoch.figures)}"
            raise InputError(f"{self.row}, seed {self.seed}", f"has no figure {metric!r:.60}", hint)
        return epoch.figures[metric]

    @property
    def collapsed(self) -> bool:
        """Whether the training failed, as its task has it (`Task.collapsed`)."""
        return TASKS[self.task].collapsed(self.by_class)

    def epoch_of(self, name: str) -> int:
        """The number of the epoch of a figure by its full name: "best accuracy" or "last accuracy"."""
        which, metric = name.split(" ", 1)
        return self.best_epoch(metric) if which == "best" else self.epochs[-1].epoch

    def figure(self, name: str) -> float:
        """A figure by its full name: "best accuracy", "last miou", or a training loss: "training loss" of the last
        epoch, "first training loss" of the first, "mean training loss" over all.

        Raises:
            InputError: it is none of these, or the run has no such metric.
        """
        if name in TRAINING_LOSSES:
            losses = [e.loss for e in self.epochs]
            return {"first": losses[0], "mean": math.fsum(losses) / len(losses)}.get(name.split()[0], losses[-1])
        which, _, metric = name.partition(" ")
        if which not in ("best", "last"):
            hint = 'write it as "best accuracy" or "last accuracy"'
            raise InputError(f"figure {name!r:.60}", "is neither the best nor the last of a metric", hint)
        return self.best(metric) if which == "best" else self.last(metric)


@dataclass(frozen=True, kw_only=True)
class Failure(_Stored):
    """A run that began and could not be finished; what is not explained here is as in `RunRecord`.

    Attributes:
        data: how tables call the data set.
        epoch: in which it failed, from 1; 0 where that is not known.
        step: in which of its steps, from 1, likewise.
        lr: learning rate it was trained with there.
        reason: why, in words.
        traceback: where in the user's own code, as Python shows it; empty where that says nothing.
        checkpoint: name of the file beside it to resume from; None where there is none.
    """

    data: Text
    epoch: Count
    step: Count
    lr: Number
    reason: Text
    traceback: Text = ""
    checkpoint: Name | None = None
    version: Count = _FAILURE_VERSION


def stem(seed: int, fingerprint: str) -> str:
    """What the names of a run's files begin with: "seed0-" and 12 digits of its fingerprint."""
    return f"seed{seed}-{fingerprint[:12]}"


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found: its place, as "epochs.0.lr", what is expected there, and what is found."""
    first = error.errors(include_url=False)[0]
    found = "" if first["type"] == "missing" else f", not {first['input']!r:.40}"
    expected = re.sub(r"\d{20,}", lambda number: f"{float(number[0]):g}", first["msg"].removeprefix("Value error, "))
    return f"{'.'.join(map(str, first['loc']))}: {expected}{found}"


def _check_run(record: RunRecord) -> None:
    """Refuses a record whose fields do not fit together as pages rely on; raises ValueError."""
    names, task = record.epochs[0].figures.keys(), TASKS[record.task]
    known = task is not CUSTOM  # what cvhw4 trained itself
    _require([e.epoch for e in record.epochs] == [*range(1, len(record.epochs) + 1)], "epochs", "are not 1 to n")
    _require(all(e.figures.keys() == names for e in record.epochs), "figures", "differ between epochs")
    # Of the others, records from before they were there have none.
    for name in (record.primary, *task.shown, *record.lower_is_better, *(() if known else names)):
        _require(name in names, "figures", f"have no {name}")
        _require(not any(math.isnan(e.figures[name]) for e in record.epochs), f"figures.{name}", "is null")
    for name in task.by_class:
        classes = len(record.by_class.get(name, ()))
        _require(record.settings.get("classes") == classes, f"by_class.{name}", "is not as long as settings.classes")
        found = len(record.merged.names) if task is SEGMENTATION else len(record.data.classes)
        _require(classes == found, f"by_class.{name}", "does not fit data.classes")
    for name, images in (("train", record.data.train), ("val", record.data.val)):
        _require(not known or images > 0, f"data.{name}:", "Input should be greater than 0")
    texts = [record.environment.get(name) for name in ("device", "device_name", *(["torch"] if known else []))]
    _require(all(isinstance(t, str) for t in texts), "environment", "does not name device, device_name and torch")
    _require({"threads", "commit"} <= record.environment.keys(), "environment", "lacks threads or commit")


def _require(condition: object, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{name} {problem}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # a folder's name may hold bytes that are no text
        return value.encode("utf-8", "backslashreplace").decode()
    return value
