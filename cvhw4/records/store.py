"""Records on disk: `<results>/<profile>/runs/<id>/seed<N>-<fingerprint>.json`, beside each the `.npz` of its images."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cvhw4.errors import InputError
from cvhw4.records.schema import RunRecord

if TYPE_CHECKING:
    from cvhw4.records.images import ImageResults


class Store:
    """The runs of one profile in a results folder.

    Args:
        results: the folder given as `--results`.
        profile: the profile's name; its records lie in `<results>/<profile>/runs`.
    """

    def __init__(self, results: Path, profile: str) -> None:
        self.folder = results / profile
        self.runs = self.folder / "runs"

    def path(self, id: str, seed: int, fingerprint: str) -> Path:
        """Where a run's record lies, or would."""
        return self.runs / id / f"seed{seed}-{fingerprint[:12]}.json"

    def save(self, record: RunRecord, images: ImageResults | None = None) -> RunRecord:
        """Writes a record; a reader never sees half of it.

        Args:
            images: what was made of every validation image, written first, in a file beside the record.

        Returns:
            The record as it is stored: with the digest of that file.

        Raises:
            InputError: the folder cannot be written to.
        """
        path = self.path(record.id, record.seed, record.fingerprint)
        if images is not None:
            content = images.to_bytes()
            write_atomically(path.with_suffix(".npz"), content)
            record = replace(record, images=hashlib.sha256(content).hexdigest())
        write_atomically(path, record.to_json())
        return record

    def images(self, record: RunRecord) -> ImageResults | None:
        """What a run's network made of every validation image; None, with a warning, where the file is gone or is not
        the one that the record was stored with, and without one where the record never had any."""
        from cvhw4.records.images import ImageResults

        if record.images is None:
            return None
        path = self.path(record.id, record.seed, record.fingerprint).with_suffix(".npz")
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != record.images:
                raise InputError(path, "is not the file its record was stored with", "repeat the run")
            return ImageResults.from_bytes(content, path)
        except (OSError, InputError) as error:
            warnings.warn(f"{error} It is not used.", stacklevel=2)
            return None

    def find(self, id: str, seed: int, fingerprint: str) -> RunRecord | None:
        """The finished run with that fingerprint, if there is one; a damaged record counts as none, with a warning."""
        path = self.path(id, seed, fingerprint)
        if not path.is_file():
            return None
        try:
            record = RunRecord.from_json(path.read_text("utf-8"), path)
        except (InputError, UnicodeDecodeError) as error:
            warnings.warn(f"{error} It is not used.", stacklevel=2)
            return None
        return record if record.fingerprint == fingerprint else None

    def load(self) -> list[RunRecord]:
        """All records, oldest first; files that are none are passed over with a warning."""
        records = []
        for path in sorted(self.runs.glob("*/*.json")):
            try:
                records.append(RunRecord.from_json(path.read_text("utf-8"), path))
            except (InputError, UnicodeDecodeError) as error:
                warnings.warn(f"{error} It is not counted.", stacklevel=2)
        return sorted(records, key=lambda r: (r.started, r.id, r.seed))


def latest_studies(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Of each row on each data set the runs that may be averaged: those like its most recent run but for the seed."""
    ordered = sorted(records, key=lambda r: r.started)
    newest = {(r.id, r.data.name): r.study for r in ordered}
    return [r for r in ordered if r.study == newest[r.id, r.data.name]]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file, text in UTF-8, in one step: after a crash or a full disk there is the old one or the new, whole.

    Raises:
        InputError: the folder cannot be written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise InputError(
            path, f"cannot be written ({error.strerror})", "free space or choose another --results"
        ) from error
