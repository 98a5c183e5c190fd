"""Files that survive kills and full disks: written in one step, read without surprises, locked by living processes."""

from __future__ import annotations

import errno
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from cvhw4.errors import InputError, printable

_ROOM = "free space, or name a place that may be written to"
_UNREADABLE = "delete it, or make it a file that can be read"
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # a file system without locks
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES}  # one that cannot sync a folder
_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "__pycache__"})
_Content = TypeVar("_Content")


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted by name, without hidden files and what file managers leave behind.

    Raises:
        InputError: there is no such folder, or it cannot be listed.
    """
    if not os.path.isdir(folder):  # unlike Path.is_dir this never raises, whatever the name and the rights
        problem = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise InputError(folder, problem, "create the folder or correct the path")
    try:
        entries = list(folder.iterdir())
        os.stat(os.path.join(folder, "."))  # whether what is listed can be reached
    except OSError as problem:
        raise InputError(folder, f"cannot be listed ({problem})", "make the folder readable") from problem
    kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]
    return sorted(kept, key=lambda entry: entry.name)


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
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for folder in (path.parent, *(f.parent for f in made)):
            _sync(folder)
    except BaseException as error:
        if temporary is not None:
            remove([temporary])
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


def read(path: Path) -> bytes | None:
    """A file's content; None where there is no such file.

    Raises:
        InputError: it cannot be read, is a broken link, or something else than a file (a pipe would block).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(path, "is not a file", _UNREADABLE)
        return path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(path, "is a broken link", _UNREADABLE) from error
        return None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", _UNREADABLE) from error


def read_or_warn(path: Path, parse: Callable[[bytes, Path], _Content], needed: bool = False) -> _Content | None:
    """What `parse` makes of a file's content and path; None where there is none, or, with a warning, where reading or
    parsing raises InputError. A file that is `needed` and missing is warned of as well."""
    try:
        content = read(path)
        if content is None and needed:
            raise InputError(path, "is missing", "repeat the run")
        return None if content is None else parse(content, path)
    except InputError as error:
        warnings.warn(f"{error} It is not used.", stacklevel=3)
        return None


def remove(paths: Iterable[Path], older: float = float("-inf")) -> None:
    """Removes files that were written more than so many seconds ago; what cannot be removed stays."""
    for path in paths:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > older:
                path.unlink()


def set_aside(path: Path) -> Path:
    """Renames what lies at a path to `<name>.damaged`, or `.damaged2` and so on where there is that already.

    Raises:
        InputError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}.damaged{n if n > 1 else ''}") for n in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        return path.rename(aside)
    except OSError as error:
        raise InputError(path, f"cannot be renamed ({error.strerror})", "rename or delete it") from error


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock that a file stands for, after waiting for another process that does; the kernel takes it from a
    process that ends, however it ends. On a file system without locks: a warning, and no lock.

    The empty file stays: removing it would split those who wait for it. `on_wait` is called once before waiting.

    Raises:
        InputError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

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
        warnings.warn(f"{where}: this file system has no locks. Start no run twice at once.", stacklevel=5)
    try:
        yield
    finally:
        lock.release()
