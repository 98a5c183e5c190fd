"""The history of nightly sessions: a folder that outlives every machine, as a branch of its own in git.

`nights/<instant>.json` is one night: what every row measured, how it was judged, and the runs that later nights are
held against. `records/<study>/runs/...` are the records of the runs that the newest judged night names, as a store has
them, without images. Version 1; fields may be added within a version, never change their meaning.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from cvhw4.errors import InputError
from cvhw4.files import read, write_atomically
from cvhw4.records.schema import Count, Instant, Json, Name, Number, RunRecord, Text, adapter, first_problem, stem
from cvhw4.records.store import Store
from cvhw4.records.typed import ValidationError, from_json

VERSION = 1
State = Literal["first", "fine", "failed", "regression", "broken"]
Status = Literal["fine", "new", "accepted", "unconfirmed", "worse", "slower", "failed", "missing"]
GOOD: tuple[State, ...] = ("first", "fine")
_HINT = "restore it from the history's branch, or delete it"


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """What is of one row on one data set."""

    row: Name
    data: Text

    @property
    def place(self) -> tuple[str, str]:
        """Row and data set."""
        return self.row, self.data


@dataclass(frozen=True, kw_only=True)
class Reference(_Placed):
    """The runs of one row on one data set that nights are held against.

    Attributes:
        runs: what their files' names begin with ("seed0-" and 12 digits of the fingerprint).
        since: when the night began that they are from.
    """

    runs: list[Name]
    since: Instant


@dataclass(frozen=True, kw_only=True)
class JudgedRow(_Placed):
    """How a night's runs of one row on one data set were judged.

    Attributes:
        status: "fine"; "new" without anything to hold it against; "accepted" with the reason in `why`; "unconfirmed"
            where it looked worse and fresh seeds were not; "worse", also where a claim that needs it is no longer
            supported, until that is repaired; "slower"; "failed" where a run or a test of it failed, or the records of
            the runs that it is held against are gone or unreadable; "missing" where it was not run.
        why: what was found, in words.
        runs: as `Reference.runs`, empty where there are none.
    """

    status: Status
    why: Text = ""
    runs: list[Name] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Finding(_Placed):
    """A figure or a claim that was found worse, and is neither repaired nor accepted yet.

    Attributes:
        name: the figure's full name, or the claim's.
        since: when the night began that found it.
        values: the figure's then, fresh seeds among them; empty for a claim.
    """

    name: Text
    since: Instant
    values: list[Number] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measurement(_Placed):
    """One figure of a row in a night.

    Attributes:
        figure: full name, "best accuracy".
        values: by seed.
        low: the lower bound of so many runs' mean that held then; None where there was none. `high` likewise.
        step: what the values are known to: of an accuracy 1 / images.
    """

    figure: Text
    values: Mapping[str, Number]
    low: Number | None = None
    high: Number | None = None
    step: Number = 1e-4


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One row that is trained anew every night, alone on the machine.

    Attributes:
        configuration: of its runs, see `RunRecord`: what does not change should give the same figures.
        setup: device, threads and settings: what does not change should take the same time.
        seconds: training time of each run.
        values: figures of each run, by their full name.
    """

    row: Name
    configuration: Text
    setup: Text
    seconds: list[Number]
    values: Mapping[str, list[Number]]


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night.

    Attributes:
        started: when, ISO 8601 in UTC; nights are told apart by it.
        state: "first" with nothing to hold it against; "fine"; "regression" where anything is worse, slower or missing;
            "failed" where a row or one of `checks` failed and nothing is worse; "broken" where nothing can be judged.
        why: of a broken night, in words.
        study: the study's name.
        commit: of the code.
        environment: versions, device, driver, of a run of that night.
        checks: outcomes of what else was run, by name: "passed", "failed".
        good: what a next night is held against: of every row the last runs that were fine; `pinned` those of the night
            that was last pinned, which does not move with a slow decline.
        worse: what is worse, until it is repaired or accepted.
        accepted: reasons by row, or "all".
        url: page of the night's log.
    """

    started: Instant
    state: State
    why: Text = ""
    study: Text = ""
    commit: Text | None = None
    environment: Mapping[str, Json] = field(default_factory=dict)
    checks: Mapping[str, Text] = field(default_factory=dict)
    rows: list[JudgedRow] = field(default_factory=list)
    figures: list[Measurement] = field(default_factory=list)
    canary: Canary | None = None
    good: list[Reference] = field(default_factory=list)
    pinned: list[Reference] = field(default_factory=list)
    worse: list[Finding] = field(default_factory=list)
    accepted: Mapping[str, Text] = field(default_factory=dict)
    url: Text = ""
    version: Count = VERSION

    def to_json(self) -> str:
        """As it is stored, ending in a newline."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: Path) -> Night:
        """Reads a stored night.

        Args:
            where: the file it is from, for the message of an error.

        Raises:
            InputError: not JSON, not a night, a damaged one, or a version that this code does not know.
        """
        try:
            raw = from_json(text, allow_inf_nan=False)
            version = raw["version"] if isinstance(raw, dict) else None
            if version != VERSION:
                raise InputError(where, f"is a night of version {version!r:.40}, not {VERSION}", "update cvhw4")
            return adapter(cls).validate_python(raw)
        except ValidationError as error:
            raise InputError(where, f"is a damaged night ({first_problem(error)})", _HINT) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(where, f"is not a night ({error})", _HINT) from error


class History:
    """A folder of nights.

    Args:
        folder: it may be missing, which is an empty history.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nights: list[Night] = []
        for path in sorted((folder / "nights").glob("*.json")):
            try:
                self.nights.append(Night.from_json(read(path) or b"", path))
            except InputError as error:
                warnings.warn(f"{error} It is not counted.", stacklevel=2)
        self.nights.sort(key=lambda night: night.started)

    @property
    def judged(self) -> Night | None:
        """The newest night that was not broken."""
        return newest_judged(self.nights)

    def runs(self, references: Iterable[Reference | JudgedRow], study: str) -> list[RunRecord]:
        """The records that references name; those that the folder lacks are left out, and those that this version of
        cvhw4 cannot read, with a warning."""
        store = Store(self.folder / "records", study)
        names = [(r.row, name) for r in references for name in r.runs]
        found = []
        for row, name in dict.fromkeys(names):
            path = store.runs / row / f"{name}.json"
            content = read(path)
            if content is not None:
                try:
                    found.append(RunRecord.from_json(content, path))
                except InputError as error:
                    warnings.warn(f"{error} It is not counted.", stacklevel=2)
        return sorted(found, key=lambda r: r.started)

    def add(self, night: Night, records: Sequence[RunRecord] = ()) -> None:
        """Appends a night, and keeps only the records that the newest judged night names.

        Args:
            records: those that may be needed, of which the named ones are written.

        Raises:
            InputError: the folder cannot be written to.
        """
        named = _named(night)
        if night.state != "broken":
            store = Store(self.folder / "records", night.study)
            for record in records:
                path = store.path(record.row, record.seed, record.fingerprint)
                if (record.row, path.stem) in named and not _is_readable(path):
                    write_atomically(path, record.to_json())
        write_atomically(self.folder / "nights" / f"{file_name(night.started)}.json", night.to_json())
        self.nights.append(night)
        if night.state != "broken":
            for path in (self.folder / "records").glob("*/runs/*/*.json"):
                if (path.parent.name, path.stem) not in named:
                    path.unlink()

    def merge(self, other: Path) -> None:
        """Takes over what another copy of the history has and this one lacks, or cannot read: nights, and records.

        Raises:
            InputError: the folder cannot be written to.
        """
        for pattern in ("nights/*.json", "records/*/runs/*/*.json"):
            for path in sorted(other.glob(pattern)):
                mine = self.folder / path.relative_to(other)
                if not _is_readable(mine) and _is_readable(path) and (content := read(path)) is not None:
                    write_atomically(mine, content)
        self.__init__(self.folder)  # type: ignore[misc]

    def copy_to(self, folder: Path, other: Path) -> None:
        """Writes what publishing adds to another copy of the history: the nights that it lacks, and all records."""
        names = {f"{file_name(night.started)}.json" for night in self.nights}
        (folder / "nights").mkdir(parents=True, exist_ok=True)
        for path in (self.folder / "nights").iterdir():
            if path.name in names and not (other / "nights" / path.name).exists():
                shutil.copy(path, folder / "nights")
        if (self.folder / "records").is_dir():
            shutil.copytree(self.folder / "records", folder / "records", dirs_exist_ok=True)


def _is_readable(path: Path) -> bool:
    """Whether the file of a night or a record is there, whole, and of a version that this code knows."""
    content, kind = read(path), Night if path.parent.name == "nights" else RunRecord
    try:
        return content is not None and bool(kind.from_json(content, path))
    except InputError:
        return False


def newest_judged(nights: Sequence[Night]) -> Night | None:
    """The newest that was not broken, of nights in order."""
    return next((night for night in reversed(nights) if night.state != "broken"), None)


def _named(night: Night) -> set[tuple[str, str]]:
    return {(r.row, name) for rows in (night.rows, night.good, night.pinned) for r in rows for name in r.runs}


def file_name(started: str) -> str:
    """An instant as a file's name, which sorts by time: no colons, which some file systems refuse."""
    return started.replace(":", "-").replace("+00-00", "Z")


def stems(records: Iterable[RunRecord]) -> list[str]:
    """What the files' names of runs begin with, by seed."""
    return [stem(r.seed, r.fingerprint) for r in sorted(records, key=lambda r: r.seed)]
