"""Records on disk: `<results>/<study>/runs/<row>/seed<N>-<fingerprint>.json`, beside each the `.npz` of its images and
`.samples.npz`; the pictures that these are of lie in `<results>/<study>/pictures`.

What an unfinished run leaves lies in `<results>/<study>/unfinished/<row>` under the same name: its checkpoint
(`.safetensors`), why it failed (`.json`), and the lock of the process that writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cvhw4.errors import InputError, printable
from cvhw4.files import locked, read, read_or_warn, remove, set_aside, write_atomically
from cvhw4.records.schema import Failure, RunRecord, StoredImages, stem

if TYPE_CHECKING:
    from cvhw4.records.images import ImageResults
    from cvhw4.records.samples import PredictionSamples, ValidationPictures
    from cvhw4.study import Study

_SAMPLES = ".samples.npz"  # in place of a record's ".json"
_ABANDONED = 3600.0  # seconds after which what is half written has no writer any more
_Record = TypeVar("_Record", RunRecord, Failure)
_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


class Store:
    """The runs of one study in a results folder.

    Args:
        results: the folder given as `--results`.
        study: the study's name; its records lie in `<results>/<study>/runs`.
    """

    def __init__(self, results: Path, study: str) -> None:
        self.folder = results / study
        self.runs = self.folder / "runs"
        self.unfinished = self.folder / "unfinished"
        self._pictures = self.folder / "pictures"

    def path(self, row: str, seed: int, fingerprint: str) -> Path:
        """Where a run's record is written."""
        return self.runs / row / f"{stem(seed, fingerprint)}.json"

    def checkpoint(self, row: str, seed: int, fingerprint: str) -> Path:
        """Where an unfinished run's last good state is written; beside it lie its note of failure and its lock."""
        return self.unfinished / row / f"{stem(seed, fingerprint)}.safetensors"

    def run_folder(self, row: str, seed: int, fingerprint: str) -> Path:
        """Where a study's own training loop keeps what it likes until its run is finished. Its log lies beside it, with
        `.log` in place of `.run`."""
        return self.checkpoint(row, seed, fingerprint).with_suffix(".run")

    def save(
        self, record: RunRecord, images: ImageResults | None = None, samples: PredictionSamples | None = None
    ) -> RunRecord:
        """Writes a record, and removes what the run left while it was unfinished; by the run's `writer`.

        A reader, or a kill at any moment, sees the old record with its images or the new one with its. A file in the
        record's place that is not that run's record is set aside (`.damaged`), with a warning.

        Args:
            images: what was predicted for every validation image, written first, in a file beside the record.
            samples: what the trained network predicted, likewise. A record with neither keeps those it has.

        Returns:
            The record as it is stored: with the name and digest of that file.

        Raises:
            InputError: the folder cannot be written to, or the record could not be read again.
        """
        path = self.path(record.row, record.seed, record.fingerprint)
        _make_way(path, record.fingerprint)
        kept = set() if images is not None else {path.stem + _SAMPLES}
        if images is not None:
            content = images.to_bytes()
            digest = hashlib.sha256(content).hexdigest()
            record = replace(record, images=StoredImages(file=f"{path.stem}.{digest[:8]}.npz", sha256=digest))
            write_atomically(path.with_name(f"{path.stem}.{digest[:8]}.npz"), content)
        if samples is not None:
            kept = {path.stem + _SAMPLES}
            write_atomically(path.with_suffix(_SAMPLES), samples.to_bytes())
        text = record.to_json()
        RunRecord.from_json(text, path)
        write_atomically(path, text)
        kept |= {record.images.file} if record.images is not None else set()
        remove(p for p in path.parent.glob(f"{path.stem}.*") if p.suffix in (".npz", ".part") and p.name not in kept)
        self.tidy(record.row, record.seed, record.fingerprint)
        return record

    def images(self, record: RunRecord) -> ImageResults | None:
        """What a run's network predicted for every validation image; None, with a warning, where the file is missing
        or not the one that the record was stored with, and without one where the record never had any."""
        from cvhw4.records.images import ImageResults

        if (stored := record.images) is None:
            return None
        path = self.runs / record.row / stored.file
        return read_or_warn(
            path, partial(ImageResults.from_bytes, sha256=stored.sha256, targets=record.targets), needed=True
        )

    def samples(self, record: RunRecord) -> PredictionSamples | None:
        """What a run's trained network predicted for the validation pictures; None where none are stored, with a
        warning where the file is damaged or another run's."""
        from cvhw4.records.samples import PredictionSamples

        path = self.path(record.row, record.seed, record.fingerprint).with_suffix(_SAMPLES)
        return read_or_warn(path, partial(PredictionSamples.from_bytes, record=record))

    def pictures(self, digest: str) -> ValidationPictures | None:
        """The validation pictures with a digest (`PredictionSamples.pictures`); None where none are stored, with a
        warning where the file is damaged."""
        from cvhw4.records.samples import ValidationPictures

        return read_or_warn(self._pictures / f"{digest}.npz", ValidationPictures.from_bytes)

    def keep_pictures(self, digest: str, make: Callable[[], ValidationPictures]) -> None:
        """Writes the validation pictures with a digest, where they are not there yet.

        Raises:
            InputError: the folder cannot be written to.
        """
        path = self._pictures / f"{digest}.npz"
        if not path.exists():
            write_atomically(path, make().to_bytes())
        remove(path.parent.glob("*.part"), older=_ABANDONED)

    def find(self, row: str, seed: int, fingerprint: str) -> RunRecord | None:
        """The finished run with that fingerprint, if there is one; a damaged record counts as none, with a warning."""
        record = read_or_warn(self.path(row, seed, fingerprint), RunRecord.from_json)
        return record if record is not None and (record.row, record.fingerprint) == (row, fingerprint) else None

    def load(self) -> list[RunRecord]:
        """All records, oldest first; files that are not records are passed over with a warning."""
        return _read_all(RunRecord, self.runs)

    def fail(self, failure: Failure) -> None:
        """Notes why a run could not be finished, in place of an older note of the same run.

        Raises:
            InputError: the folder cannot be written to, or the note could not be read again.
        """
        path = self.checkpoint(failure.row, failure.seed, failure.fingerprint).with_suffix(".json")
        text = failure.to_json()
        Failure.from_json(text, path)
        write_atomically(path, text)

    def failures(self) -> list[Failure]:
        """The notes of runs that are still not finished, oldest first; damaged ones are passed over with a warning."""
        notes = _read_all(Failure, self.unfinished)
        return [note for note in notes if self.find(note.row, note.seed, note.fingerprint) is None]

    def tidy(self, row: str, seed: int, fingerprint: str) -> None:
        """Removes what a run left while it was unfinished: checkpoint, note of failure, half-written files, its own
        folder, and the folder of the row if that was all; its log is put beside its record. What cannot be removed
        stays; so does the lock, for which others may be waiting."""
        folder = self.unfinished / row
        own = self.run_folder(row, seed, fingerprint)
        if (log := own.with_suffix(".log")).exists():
            with suppress(OSError):
                os.replace(log, self.path(row, seed, fingerprint).with_suffix(".log"))
        if not own.is_symlink():
            shutil.rmtree(own, ignore_errors=True)
        remove(p for p in folder.glob(f"{stem(seed, fingerprint)}.*") if p.suffix != ".lock")
        with suppress(OSError):
            folder.rmdir()

    @contextmanager
    def writer(
        self, row: str, seed: int, fingerprint: str, on_wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Makes this process the only one that writes a run, as `cvhw4.files.locked` does. What a killed writer left
        half written is removed."""
        path = self.checkpoint(row, seed, fingerprint).with_suffix(".lock")
        with locked(path, on_wait):
            remove(p for folder in (path.parent, self.runs / row) for p in folder.glob(f"{path.stem}.*.part"))
            yield


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Items by what `key` says of each, in the order that they come in."""
    found: dict[_Key, list[_Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def latest_runs(records: Iterable[RunRecord], study: Study | None = None) -> list[RunRecord]:
    """Of each row on each data set the runs that may be averaged: those like its most recent run but for the seed; of a
    study those like the most recent one with the row's settings as they are now, where there is one, as after a change
    that was undone."""
    ordered = sorted(records, key=lambda r: r.started)
    now = {} if study is None else {name: row.settings() for name, row in study.rows.items()}
    if study is not None and study.train is not None:
        text = json.dumps({"train": study.train_text, "version": study.version}, sort_keys=True)
        code = hashlib.sha256(text.encode()).hexdigest()  # as runs of a loop of its own record it
        ordered.sort(key=lambda r: r.environment.get("code") == code)
    ordered.sort(key=lambda r: r.row in now and r.settings == now[r.row])
    newest = {(r.row, r.data.name): r.configuration for r in ordered}
    return sorted((r for r in ordered if r.configuration == newest[r.row, r.data.name]), key=lambda r: r.started)


def _read_all(kind: type[_Record], folder: Path) -> list[_Record]:
    """The records in a folder's folders, oldest first; files that are not records are passed over with a warning."""
    records = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            content = read(path)
            if content is not None:
                record = kind.from_json(content, path)
                proper = f"{record.row}/{stem(record.seed, record.fingerprint)}.json"
                if path != folder / proper:  # else it would be counted twice
                    raise InputError(path, f"is a copy of what belongs at {proper}", "delete it, or move it there")
                records.append(record)
        except InputError as error:
            warnings.warn(f"{error} It is not counted.", stacklevel=3)
    return sorted(records, key=lambda r: (r.started, r.row, r.seed))


def _make_way(path: Path, fingerprint: str) -> None:
    """Sets aside, with a warning, what lies in the place of a run's record and is not that.

    Raises:
        InputError: it cannot be renamed.
    """
    if not os.path.lexists(path):
        return
    try:
        content = read(path)
        if content is None or RunRecord.from_json(content, path).fingerprint == fingerprint:
            return
        problem = f"{printable(str(path))}: is the record of another run."
    except InputError as error:
        problem = str(error)
    warnings.warn(f"{problem} It is now {set_aside(path).name}.", stacklevel=3)
