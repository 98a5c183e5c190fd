"""Records on disk: `<results>/<profile>/runs/<id>/seed<N>-<fingerprint>.json`, beside each the `.npz` of its images and
`.exhibits.npz`; the pictures that these are of lie in `<results>/<profile>/pictures`.

What a run that is not finished leaves lies in `<results>/<profile>/unfinished/<id>` under the same name: its checkpoint
(`.safetensors`), why it failed (`.json`), and the lock of the process that writes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import MEND, Failure, RunRecord, StoredImages, stem

if TYPE_CHECKING:
    from cvhw4.records.exhibits import Exhibits, ValidationPictures
    from cvhw4.records.images import ImageResults

_EXHIBITS = ".exhibits.npz"  # in place of a record's ".json"
_ABANDONED = 3600.0  # seconds after which what is half written has no writer any more
_ROOM = "free space or choose another --results"
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # a file system that knows none
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES}  # one that cannot sync a folder
_Record = TypeVar("_Record", RunRecord, Failure)
_Read = TypeVar("_Read")


class Store:
    """The runs of one profile in a results folder.

    Args:
        results: the folder given as `--results`.
        profile: the profile's name; its records lie in `<results>/<profile>/runs`.
    """

    def __init__(self, results: Path, profile: str) -> None:
        self.folder = results / profile
        self.runs = self.folder / "runs"
        self.unfinished = self.folder / "unfinished"
        self._pictures = self.folder / "pictures"

    def path(self, id: str, seed: int, fingerprint: str) -> Path:
        """Where a run's record lies, or would."""
        return self.runs / id / f"{stem(seed, fingerprint)}.json"

    def checkpoint(self, id: str, seed: int, fingerprint: str) -> Path:
        """Where an unfinished run's last good state lies, or would."""
        return self._unfinished(id, seed, fingerprint, "safetensors")

    def _unfinished(self, id: str, seed: int, fingerprint: str, kind: str) -> Path:
        return self.unfinished / id / f"{stem(seed, fingerprint)}.{kind}"

    def save(
        self, record: RunRecord, images: ImageResults | None = None, exhibits: Exhibits | None = None
    ) -> RunRecord:
        """Writes a record, and removes what the run left while it was unfinished; by the run's `writer`.

        A reader, or a kill at any moment, sees the old record with its images or the new one with its. A file in the
        record's place that is not that run's record is set aside (`.damaged`), with a warning.

        Args:
            images: what was made of every validation image, written first, in a file beside the record.
            exhibits: what the network made of the pictures in the end, likewise. A record that comes with neither keeps
                those it has.

        Returns:
            The record as it is stored: with the name and digest of that file.

        Raises:
            InputError: the folder cannot be written to, or the record could not be read again.
        """
        path = self.path(record.id, record.seed, record.fingerprint)
        _set_aside(path, record.fingerprint)
        if images is not None:
            content = images.to_bytes()
            digest = hashlib.sha256(content).hexdigest()
            stored = StoredImages(file=f"{path.stem}.{digest[:8]}.npz", sha256=digest)
            write_atomically(path.with_name(stored.file), content)
            record = replace(record, images=stored)
        if exhibits is not None:
            write_atomically(path.with_suffix(_EXHIBITS), exhibits.to_bytes())
        text = record.to_json()
        RunRecord.from_json(text, path)
        write_atomically(path, text)
        kept = {record.images and record.images.file}
        kept |= {path.with_suffix(_EXHIBITS).name} if exhibits is not None or images is None else set()
        _remove(p for p in path.parent.glob(f"{path.stem}.*") if p.suffix in (".npz", ".part") and p.name not in kept)
        self.tidy(record.id, record.seed, record.fingerprint)
        return record

    def images(self, record: RunRecord) -> ImageResults | None:
        """What a run's network made of every validation image; None, with a warning, where the file is gone or is not
        the one that the record was stored with, and without one where the record never had any."""
        from cvhw4.records.images import ImageResults

        if record.images is None:
            return None
        path = self.path(record.id, record.seed, record.fingerprint).with_name(record.images.file)
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != record.images.sha256:
                raise InputError(path, "is not the file its record was stored with", "repeat the run")
            return ImageResults.from_bytes(content, path)
        except (OSError, InputError) as error:
            warnings.warn(f"{error} It is not used.", stacklevel=2)
            return None

    def exhibits(self, record: RunRecord) -> Exhibits | None:
        """What a run's network made of the validation pictures in the end; None where none are stored, with a warning
        where the file is damaged or another run's."""
        from cvhw4.records.exhibits import Exhibits

        path = self.path(record.id, record.seed, record.fingerprint).with_suffix(_EXHIBITS)
        return _read_or_warn(path, lambda content: Exhibits.from_bytes(content, path, record))

    def pictures(self, digest: str) -> ValidationPictures | None:
        """The validation pictures with a digest (`Exhibits.pictures`); None where none are stored, with a warning where
        the file is damaged."""
        from cvhw4.records.exhibits import ValidationPictures

        path = self._pictures / f"{digest}.npz"
        return _read_or_warn(path, lambda content: ValidationPictures.from_bytes(content, path))

    def keep_pictures(self, digest: str, make: Callable[[], ValidationPictures]) -> None:
        """Writes the validation pictures with a digest, where they are not yet.

        Raises:
            InputError: the folder cannot be written to.
        """
        path = self._pictures / f"{digest}.npz"
        if not path.exists():
            write_atomically(path, make().to_bytes())
        _remove(p for p in path.parent.glob("*.part") if _age(p) > _ABANDONED)

    def find(self, id: str, seed: int, fingerprint: str) -> RunRecord | None:
        """The finished run with that fingerprint, if there is one; a damaged record counts as none, with a warning."""
        try:
            record = _read(RunRecord, self.path(id, seed, fingerprint))
        except InputError as error:
            warnings.warn(f"{error} It is not used.", stacklevel=2)
            return None
        return record if record is not None and record.fingerprint == fingerprint else None

    def load(self) -> list[RunRecord]:
        """All records, oldest first; files that are none are passed over with a warning."""
        return _read_all(RunRecord, self.runs)

    def fail(self, failure: Failure) -> None:
        """Notes why a run could not be finished, in place of an older note of the same run.

        Raises:
            InputError: the folder cannot be written to, or the note could not be read again.
        """
        path, text = self._unfinished(failure.id, failure.seed, failure.fingerprint, "json"), failure.to_json()
        Failure.from_json(text, path)
        write_atomically(path, text)

    def failures(self) -> list[Failure]:
        """The notes of runs that are still not finished, oldest first; damaged ones are passed over with a warning."""
        notes = _read_all(Failure, self.unfinished)
        return [note for note in notes if self.find(note.id, note.seed, note.fingerprint) is None]

    def tidy(self, id: str, seed: int, fingerprint: str) -> None:
        """Removes what a run left while it was unfinished: checkpoint, note of failure, half-written files, and the
        folder if that was all. What cannot be removed stays; so does the lock, for which others may be waiting."""
        folder = self.unfinished / id
        _remove(p for p in folder.glob(f"{stem(seed, fingerprint)}.*") if p.suffix != ".lock")
        with suppress(OSError):
            folder.rmdir()

    @contextmanager
    def writer(self, id: str, seed: int, fingerprint: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Makes this process the only one that writes a run, waiting for another that does; the kernel takes the lock
        from a process that ends, however it ends. Where the file system knows no locks: a warning, and no lock.

        The empty lock file stays: removing it would split those who wait for it. What a killed writer left half
        written is removed.

        Args:
            on_wait: called once if another process is the writer.

        Raises:
            InputError: the folder cannot be written to.
        """
        from filelock import FileLock, Timeout

        path = self._unfinished(id, seed, fingerprint, "lock")
        lock = FileLock(path)
        if hasattr(lock, "fallback_to_soft"):  # newer versions would make a lock that outlives a kill
            lock = FileLock(path, fallback_to_soft=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if on_wait is not None:
                    on_wait()
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise InputError(path, f"cannot be written ({error.strerror})", _ROOM) from error
            where = printable(str(path))
            warnings.warn(f"{where}: this file system knows no locks: start no run twice at once.", stacklevel=3)
        _remove(p for folder in (path.parent, self.runs / id) for p in folder.glob(f"{path.stem}.*.part"))
        try:
            yield
        finally:
            lock.release()


def latest_studies(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Of each row on each data set the runs that may be averaged: those like its most recent run but for the seed."""
    ordered = sorted(records, key=lambda r: r.started)
    newest = {(r.id, r.data.name): r.study for r in ordered}
    return [r for r in ordered if r.study == newest[r.id, r.data.name]]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file, text in UTF-8, in one step: after a crash or a full disk there is the old one or the new, whole.

    When it returns, file and name are on the disk. A kill may leave a file `<name>.….part` beside it.

    Raises:
        InputError: the folder cannot be written to.
    """
    temporary = None
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for folder in (path.parent, *(f.parent for f in made)):
            _sync(folder)
    except BaseException as error:
        if temporary is not None:
            _remove([temporary])
        if isinstance(error, OSError):
            raise InputError(path, f"cannot be written ({error.strerror})", _ROOM) from error
        raise


def _sync(folder: Path) -> None:
    """Puts the names in a folder on the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _age(path: Path) -> float:
    """Seconds since a file was written; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _read_or_warn(path: Path, read: Callable[[bytes], _Read]) -> _Read | None:
    """What a file beside the records holds; None where there is none, with a warning where it cannot be used."""
    try:
        return read(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, InputError) as error:
        where = "" if isinstance(error, InputError) else f"{printable(str(path))}: "
        warnings.warn(f"{where}{error} It is not used.", stacklevel=3)
        return None


def _read(kind: type[_Record], path: Path) -> _Record | None:
    """A record; None where there is no such file.

    Raises:
        InputError: it cannot be read, or is no such record.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(path, "is no file", MEND)
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(path, "leads nowhere", MEND) from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", MEND) from error
    return kind.from_json(text, path)


def _read_all(kind: type[_Record], folder: Path) -> list[_Record]:
    """The records in a folder's folders, oldest first; files that are none are passed over with a warning."""
    records = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            record = _read(kind, path)
            if record is not None and path.parts[-2:] != (record.id, f"{stem(record.seed, record.fingerprint)}.json"):
                where = f"{record.id}/{stem(record.seed, record.fingerprint)}.json"
                raise InputError(path, f"is a copy of what belongs at {where}", "delete it, or move it there")
        except InputError as error:
            warnings.warn(f"{error} It is not counted.", stacklevel=3)
        else:
            records += [] if record is None else [record]
    return sorted(records, key=lambda r: (r.started, r.id, r.seed))


def _set_aside(path: Path, fingerprint: str) -> None:
    """Renames what lies in the place of a run's record and is not that, to a name that nothing has.

    Raises:
        InputError: it cannot be renamed.
    """
    if not os.path.lexists(path):
        return
    try:
        record = _read(RunRecord, path)
        if record is None or record.fingerprint == fingerprint:
            return
        problem = f"{printable(str(path))}: is the record of another run."
    except InputError as error:
        problem = str(error)
    names = (path.with_name(f"{path.name}.damaged{n if n > 1 else ''}") for n in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        path.rename(aside)
    except OSError as error:
        raise InputError(path, f"cannot be renamed ({error.strerror})", "rename or delete it") from error
    warnings.warn(f"{problem} It is now {aside.name}.", stacklevel=3)
