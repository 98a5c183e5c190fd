"""The record of one run, and of one that could not be finished: what is written to disk, and read back. Version 2.

A record is one JSON object with the fields of `RunRecord`, in UTF-8. Numbers that JSON cannot hold (NaN for a class
that never occurs) are null. A reader takes older versions and refuses one it does not know; fields may be added within
a version, never change their meaning. What it gives has every field in its type, and all that pages rely on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

from cvhw4.errors import InputError
from cvhw4.experiments import question_of

VERSION = 2
_FAILURE_VERSION = 1
MEND = "delete it and repeat the run"
_MOST = 1e100  # a number beyond is no measure, and its square none that a float holds
_DEEPEST = 20  # levels of settings and environment
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*")

# By question, what tables show of every run of it.
_FIGURES = {"q1": ("accuracy",), "q2": ("miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy")}
_BY_CLASS = {"q2": ("iou", "set_iou")}

Measured = Annotated[float, "NaN, where JSON has null"]
Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


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
    loss: Measured
    figures: Mapping[str, Measured]
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
        leaks: training pictures that are validation pictures too, as "train/a.jpg = val/b.jpg".
    """

    name: str
    embedded: bool
    fingerprint: str
    train: int
    val: int
    classes: list[str]
    leaks: list[str] = field(default_factory=list)


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
    `interruptions` is how often the run was continued after it was broken off.
    """

    build_seconds: float
    train_seconds: float
    evaluate_seconds: float
    total_seconds: float
    images_per_second: float
    peak_memory_bytes: int | None = None
    interruptions: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Where the results by image lie (see `cvhw4.records.images`): the file's name beside the record, its sha256."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All there is to know of one run.

    Attributes:
        row: the experiment's row ("q1_2"); `id` its id, `profile` its profile or the name of an own ablation.
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
        environment: versions, device, threads, commit, and the digest of the code, which older records lack.
        started: when, ISO 8601 in UTC.
        images: the file beside it with what was made of every validation image; None where there is none.
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
    by_class: Mapping[str, list[Measured]] = field(default_factory=dict)
    times: Times
    environment: Mapping[str, Any]
    started: str
    images: StoredImages | None = None
    version: int = VERSION

    @property
    def question(self) -> str:
        """The kind of task: "q1" classifies pictures, "q2" segments scenes."""
        return question_of(str(self.settings.get("network")))

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
            InputError: not JSON, not a record, a damaged one, or a version this code does not know.
        """
        record: RunRecord = _parse(cls, text, where, VERSION, MIGRATIONS, _check_identity, _check_run)
        return record


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that began and could not be finished; `row` to `study` as in `RunRecord`.

    Attributes:
        data: how tables call the data set.
        epoch: in which it failed, from 1; `step` in which of its steps, from 1; 0 where unknown.
        lr: learning rate it was trained with there.
        reason: why, in words.
        checkpoint: name of the file beside it to go on from; None where there is none.
        environment: versions, device, threads, commit.
        started: when, ISO 8601 in UTC.
    """

    row: str
    id: str
    profile: str
    seed: int
    fingerprint: str
    study: str
    data: str
    epoch: int
    step: int
    lr: float
    reason: str
    checkpoint: str | None = None
    environment: Mapping[str, Any]
    started: str
    version: int = _FAILURE_VERSION

    def to_json(self) -> str:
        """The note as it is stored, ending in a newline."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> Failure:
        """Reads a stored note; arguments and errors as `RunRecord.from_json`."""
        failure: Failure = _parse(cls, text, where, _FAILURE_VERSION, {}, _check_identity, _check_failure)
        return failure


def stem(seed: int, fingerprint: str) -> str:
    """What the names of a run's files begin with: "seed0-" and 12 digits of its fingerprint."""
    return f"seed{seed}-{fingerprint[:12]}"


def _name_images(raw: dict[str, Any]) -> dict[str, Any]:
    """From version 1, where `images` was the digest alone and the file had the record's name."""
    if raw.get("images") is None:
        return raw
    return raw | {"images": {"file": f"{stem(raw['seed'], raw['fingerprint'])}.npz", "sha256": raw["images"]}}


# What makes the next version of a record's JSON object of the one that is the key.
MIGRATIONS: Migrations = {1: _name_images}


def _parse(
    kind: Any, text: str, where: Path, version: int, migrations: Migrations, *checks: Callable[[Any], None]
) -> Any:
    """A record of a kind from JSON, every field in its type, where no check raises ValueError.

    Raises:
        InputError: as `RunRecord.from_json`.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"is not JSON ({error})", MEND) from error
    if not isinstance(raw, dict) or "version" not in raw:
        what = "run record" if kind is RunRecord else "note of a failure"
        raise InputError(where, f"is no {what}", "move it out of the results folder")
    try:
        found = _at("version", _whole, raw["version"])
        if found != version and found not in migrations:
            mend = "update cvhw4, or use another --results folder"
            raise InputError(where, f"is a record of version {found}, not {version}", mend)
        for older in range(found, version):
            raw = migrations[older](raw)
        record = _reader(kind)(raw | {"version": version})
        for check in checks:
            check(record)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(where, f"is a damaged record ({str(error).removeprefix('.')})", MEND) from error
    return record


def _check_identity(record: RunRecord | Failure) -> None:
    """What paths and pages rely on in both kinds of records.

    Raises:
        ValueError: it does not hold.
    """
    for name in ("row", "id", "profile"):
        _require(_NAME.fullmatch(getattr(record, name)), name, "is no plain name")
    named = record.id.startswith(f"{record.row}-") or record.id == f"{record.profile}-{record.row}"
    _require(named, "id", f"does not begin with the row {record.row}")
    _require(record.seed >= 0, "seed", "is below 0")
    for name in ("fingerprint", "study"):
        _require(_DIGEST.fullmatch(getattr(record, name)), name, "is not 64 hexadecimal digits")
    _require(_INSTANT.fullmatch(record.started), "started", "is no date and time in ISO 8601")
    datetime.fromisoformat(record.started)


def _check_run(record: RunRecord) -> None:
    """What pages rely on in a finished run; raises ValueError."""
    _require(record.epochs, "epochs", "are none")
    names = record.epochs[0].figures.keys()
    _require([e.epoch for e in record.epochs] == list(range(1, len(record.epochs) + 1)), "epochs", "are not 1 to n")
    _require(all(e.figures.keys() == names for e in record.epochs), "figures", "differ between epochs")
    for name in (record.primary, *_FIGURES.get(record.question, ())):
        _require(name in names, "figures", f"have no {name}")
        _require(not any(math.isnan(e.figures[name]) for e in record.epochs), f"figures.{name}", "is null")
    _require(record.data.train > 0 and record.data.val > 0, "data", "has no images")
    for name in _BY_CLASS.get(record.question, ()):
        classes = len(record.by_class.get(name, ()))
        _require(record.settings.get("classes") == classes, f"by_class.{name}", "is not as long as settings.classes")
        _require(classes in (3, len(record.data.classes)), f"by_class.{name}", "does not fit data.classes")
    texts = [record.environment.get(name) for name in ("device", "device_name", "torch")]
    _require(all(isinstance(t, str) for t in texts), "environment", "does not name device, device_name and torch")
    _require({"threads", "commit"} <= record.environment.keys(), "environment", "lacks threads or commit")
    if record.images is not None:
        _require(_NAME.fullmatch(record.images.file), "images.file", "is no plain name")
        _require(_DIGEST.fullmatch(record.images.sha256), "images.sha256", "is not 64 hexadecimal digits")


def _check_failure(failure: Failure) -> None:
    _require(failure.epoch >= 0 and failure.step >= 0, "epoch or step", "is below 0")
    _require(failure.checkpoint is None or _NAME.fullmatch(failure.checkpoint), "checkpoint", "is no plain name")


def _require(condition: object, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{name} {problem}")


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """What turns a plain JSON value into one of a type, a dataclass or part of one.

    It raises ValueError where the value does not fit: the place, as ".epochs.0.lr", and what is wrong there.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _object_reader(hint)
    if origin is Annotated:
        number = _reader(arguments[0])
        return lambda value: math.nan if value is None else number(value)
    if origin is UnionType:
        other = _reader(arguments[0])
        return lambda value: None if value is None else other(value)
    if origin is list:
        item = _reader(arguments[0])
        return lambda value: [_at(i, item, v) for i, v in enumerate(_is(value, list, "list"))]
    if origin is Mapping:
        entry = _reader(arguments[1])
        return lambda value: {_text(k): _at(k, entry, v) for k, v in _is(value, dict, "object").items()}
    return _PLAIN[hint]


def _object_reader(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind, include_extras=True)
    readers = {f.name: _reader(hints[f.name]) for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def read(value: Any) -> Any:
        if missing := needed - _is(value, dict, "object").keys():
            raise ValueError(f".{min(missing)} is missing")
        return kind(**{name: _at(name, read, value[name]) for name, read in readers.items() if name in value})

    return read


def _at(place: str | int, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f".{place}{error}") from None


def _is(value: Any, kind: type, called: str) -> Any:
    """The value, if it is of exactly that type: True is no number."""
    if type(value) is not kind:
        raise ValueError(f" is no {called}, but {value!r:.40}")
    return value


def _text(value: Any) -> str:
    text: str = _is(value, str, "text")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(" holds half a character")
    return text


def _whole(value: Any) -> int:
    number: int = _is(value, int, "whole number")
    if abs(number) >= 2**63:
        raise ValueError(" is beyond 64 bits")
    return number


def _number(value: Any) -> float:
    if type(value) is int:
        value = float(_whole(value))
    if not abs(_is(value, float, "number")) <= _MOST:
        raise ValueError(f" is beyond {_MOST}")
    return float(value)


def _json(value: Any, level: int = 0) -> Any:
    """A value of settings or environment as it is, where it can be written again."""
    if level > _DEEPEST:
        raise ValueError(" is nested too deeply")
    if isinstance(value, dict):
        for key, entry in value.items():
            _text(key), _json(entry, level + 1)
    elif isinstance(value, list):
        for entry in value:
            _json(entry, level + 1)
    elif value is not None and type(value) is not bool:
        _PLAIN[type(value)](value)
    return value


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    bool: lambda value: _is(value, bool, "truth value"),
    int: _whole,
    float: _number,
    str: _text,
    Any: _json,
}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


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
