"""The record of one speed comparison: this project's loop and a reference loop, timed in turn. Version 1.

A record is one JSON object with the fields of `SpeedRecord`, in UTF-8. A reader refuses a version it does not know;
fields may be added within a version, never change their meaning.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any

from cvhw4.errors import InputError
from cvhw4.records.store import write_atomically
from cvhw4.training.cost import Cost, Machine, floor_seconds, limit

VERSION = 1
FOLDER = "speed"
_TEXTS = ("family", "row", "profile", "network", "work", "command", "started")
_COUNTS = ("size", "batch", "images", "flops", "bytes")


@dataclass(frozen=True, kw_only=True)
class SpeedRecord:
    """One comparison on one machine.

    Attributes:
        family: what is compared, the name under which it is kept ("frozen, random crops").
        row: id of the row that was timed ("q1_1-features"); `profile`, `network`, `size` (px) and `batch` are its own.
        work: what was timed: "training with validation", "validation alone".
        images: trained on and evaluated by each side in one trial.
        ours_seconds: wall time of this project's loop, trial by trial.
        reference_seconds: the reference's, taken in turn with ours: equally many.
        workerless_seconds: the reference's where it loads pictures itself, without worker processes; as many, or empty
            where that was not timed. On few cores it is the stronger opponent.
        target: the ratio of times aimed at, None where there is no such aim.
        flops: the least arithmetic of a trial (see `cvhw4.training.cost`).
        bytes: the least parameter traffic of a trial.
        machine: what the device was measured to reach.
        peak_memory_ours: bytes, None where not measured; likewise `peak_memory_reference`.
        environment: versions, device, threads, commit, as `cvhw4.records.environment.environment` gives them.
        command: what was run to measure.
        started: when, ISO 8601 in UTC.
    """

    family: str
    row: str
    profile: str
    network: str
    size: int
    batch: int
    work: str
    images: int
    ours_seconds: list[float]
    reference_seconds: list[float]
    target: float | None
    flops: int
    bytes: int
    machine: Machine
    workerless_seconds: list[float] = field(default_factory=list)
    peak_memory_ours: int | None = None
    peak_memory_reference: int | None = None
    environment: Mapping[str, Any]
    command: str
    started: str
    version: int = VERSION

    def __post_init__(self) -> None:
        """Refuses what is no measurement.

        Raises:
            ValueError: a text that is none, a count below zero, times that are not positive or not in pairs.
        """
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is no text")
        if not _slug(self.family):
            raise ValueError("family has neither a letter nor a digit")
        for name in _COUNTS:
            _require_count(name, getattr(self, name))
        for name in ("peak_memory_ours", "peak_memory_reference"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name))
        for name in ("ours_seconds", "reference_seconds"):
            if not isinstance(getattr(self, name), list) or not getattr(self, name):
                raise ValueError(f"{name} lists no trials")
            for seconds in getattr(self, name):
                _require_positive(name, seconds)
        if len(self.ours_seconds) != len(self.reference_seconds):
            trials = f"{len(self.ours_seconds)} and {len(self.reference_seconds)}"
            raise ValueError(f"the trials are not in pairs: {trials}")
        if self.target is not None:
            _require_positive("target", self.target)
        if not isinstance(self.machine.device, str) or not isinstance(self.machine.precision, str):
            raise ValueError("the machine's device or precision is no text")
        _require_positive("matrix_flops", self.machine.matrix_flops)
        _require_positive("bandwidth", self.machine.bandwidth)
        if not isinstance(self.environment, Mapping) or not isinstance(self.environment.get("device"), str):
            raise ValueError("environment names no device")

    @property
    def device(self) -> str:
        """The kind of device: "cpu" or "cuda"."""
        return str(self.environment["device"])

    @property
    def ratio(self) -> float:
        """How many times as long the reference takes: median over median."""
        return median(self.reference_seconds) / median(self.ours_seconds)

    @property
    def ratio_range(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a pair of trials."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours_seconds, self.reference_seconds, strict=True)]
        return min(ratios), max(ratios)

    @property
    def workerless_ratio(self) -> float | None:
        """As `ratio`, for the reference without worker processes; None where that was not timed."""
        return median(self.workerless_seconds) / median(self.ours_seconds) if self.workerless_seconds else None

    @property
    def images_per_second(self) -> float:
        """This project's loop, at the median."""
        return self.images / median(self.ours_seconds)

    @property
    def reference_images_per_second(self) -> float:
        """The reference's, at the median."""
        return self.images / median(self.reference_seconds)

    @property
    def cost(self) -> Cost:
        """The least work of a trial."""
        return Cost(self.flops, self.bytes, self.images)

    @property
    def achieved_flops(self) -> float:
        """FLOP/s of the least arithmetic in the median time; what was computed beyond it does not count."""
        return self.flops / median(self.ours_seconds)

    @property
    def peak_share(self) -> float:
        """Achieved FLOP/s as a share of the measured matrix peak."""
        return self.achieved_flops / self.machine.matrix_flops

    @property
    def over_floor(self) -> float:
        """The median time as a multiple of the floor; infinite where the least work is none."""
        floor = floor_seconds(self.cost, self.machine)
        return median(self.ours_seconds) / floor if floor else math.inf

    @property
    def limit(self) -> str:
        """What the floor comes from: "arithmetic" or "memory"."""
        return limit(self.cost, self.machine)

    def path(self, folder: Path) -> Path:
        """Where the record lies below a folder: one file per family and kind of device."""
        return folder / FOLDER / f"{_slug(self.family)}-{_slug(self.device)}.json"

    def save(self, folder: Path) -> Path:
        """Writes the record in place of an older one of the same family and kind of device.

        Raises:
            InputError: the folder cannot be written to, or another family's record has the file's name.
        """
        path = self.path(folder)
        before = None
        with suppress(OSError, UnicodeDecodeError, InputError):  # there is none, or a damaged one: it may go
            before = SpeedRecord.from_json(path.read_text("utf-8"), path)
        if before is not None and before.family != self.family:
            raise InputError(path, f"holds the family {before.family!r}", f"name {self.family!r} less like it")
        write_atomically(path, self.to_json())
        return path

    def to_json(self) -> str:
        """The record as it is stored, ending in a newline."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> SpeedRecord:
        """Reads a stored record.

        Args:
            where: the file it is from, for the message of an error.

        Raises:
            InputError: not JSON, not a record, or a version this code does not know.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(where, f"is not JSON ({error})", "delete it and measure again") from error
        if not isinstance(raw, dict) or "version" not in raw:
            raise InputError(where, "is no speed record", "move it out of the results folder")
        if raw["version"] != VERSION:
            mend = "update cvhw4, or use another --results folder"
            raise InputError(where, f"is a speed record of version {raw['version']}, not {VERSION}", mend)
        try:
            machine = raw["machine"]
            raw["machine"] = Machine(**{f.name: machine[f.name] for f in fields(Machine)})
            return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(where, f"is a damaged speed record ({error})", "delete it and measure again") from error


def load_all(folder: Path) -> list[SpeedRecord]:
    """The speed records below a folder, by family and kind of device; files that are none are passed over, with a
    warning, and of two of the same family and kind the newer counts.
    """
    newest: dict[tuple[str, str], SpeedRecord] = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            record = SpeedRecord.from_json(path.read_text("utf-8"), path)
        except (InputError, UnicodeDecodeError) as error:
            warnings.warn(f"{error} It is not counted.", stacklevel=2)
            continue
        key = record.family, record.device
        if key not in newest or newest[key].started <= record.started:
            newest[key] = record
    return [newest[key] for key in sorted(newest)]


def _slug(text: str) -> str:
    """ "frozen, random crops" to "frozen-random-crops"."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")


def _require_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {value!r}, not a count")


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name} holds {value!r}, not a number above 0")
