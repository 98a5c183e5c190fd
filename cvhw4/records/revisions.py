"""Stores as they are named on the command line: a folder, or a git revision of one."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.records.store import Store

_HINT = "name a results folder, or a git revision that has one (main, v1.0:results; main:./results from here)"
_VERIFY = ("rev-parse", "--verify", "--quiet", "--end-of-options")


@contextmanager
def opened(name: str, study: str | None) -> Iterator[tuple[Store, str]]:
    """The store that a name means, and its study; an existing folder comes before a revision.

    Args:
        name: a results folder; the folder of one of its studies; or a git revision of the repository here, with a
            results folder's path behind a colon (default: `results`): from the repository's top, or from the current
            folder where it begins with `./`. A revision's records are read from a temporary folder, without what is
            stored of unfinished runs and images; nothing is checked out.
        study: its name; None takes the study whose folder is named, else the only one that has runs there.

    Raises:
        InputError: no such folder or revision, or it has no runs of the study.
    """
    folder = Path(name)
    if folder.is_dir():
        if (folder / "runs").is_dir() and study in (None, folder.resolve().name):
            folder, study = folder.resolve().parent, folder.resolve().name
        yield _open(name, folder, study)
        return
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as temporary:
        _extract(name, Path(temporary))
        yield _open(name, Path(temporary), study)


def _open(name: str, results: Path, study: str | None) -> tuple[Store, str]:
    there = studies_in(results)
    if study is None and len(there) == 1:
        study = there[0]
    if study not in there:
        problem = (
            f"has no runs of study {study}" if study else "has runs of several studies" if there else "has no runs"
        )
        raise InputError(name, problem, _hint(there, _HINT))
    return Store(results, study), study


def hint_of(store: Store, otherwise: str) -> str:
    """What to do where a results folder has no runs of the store's study: name another that has; else `otherwise`."""
    return _hint(studies_in(store.folder.parent), otherwise)


def _hint(there: list[str], otherwise: str) -> str:
    return f"name a study that has runs there with --study: {', '.join(there)}" if there else otherwise


def studies_in(results: Path) -> list[str]:
    """The names of the studies that have runs in a results folder."""
    return sorted(runs.parent.name for runs in results.glob("*/runs") if runs.is_dir())


def _extract(name: str, into: Path) -> None:
    """Unpacks the records in a revision's results folder, of all studies.

    Only the object's digits reach `git archive`: no name is taken for an option there, or for a pattern.

    Raises:
        InputError: no git, no repository, no such revision, or nothing there.
    """
    revision, _, below = name.partition(":")
    below = below.rstrip("/") or "results"
    try:
        if _git("rev-parse", "--git-dir") is None:
            raise InputError(name, "is not a folder, and there is no git repository here", _HINT)
        if not revision or _git(*_VERIFY, f"{revision}^{{commit}}") is None:
            remote = f"; where only the remote has it: git fetch origin {revision}, and origin/{revision}"
            raise InputError(name, "is not a folder or a git revision", _HINT + remote)
        if (tree := _git(*_VERIFY, f"{revision}:{below}")) is None:
            raise InputError(name, f"has no {below} at that revision", _HINT)
        top = _git("rev-parse", "--show-toplevel") or None  # elsewhere git archive looks for the folder it is in
        command = ["git", "archive", "--format=tar", tree, ":(glob)*/runs/*/*.json"]
        packed = subprocess.run(command, capture_output=True, cwd=top)
        if packed.returncode:  # nothing of that pattern, most likely
            raise InputError(name, "has no runs that git archive can read", _HINT)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            files = [member for member in archive if member.isfile()]  # no links
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python before 3.11.4 lacks
            archive.extractall(into, files)
    except (OSError, tarfile.TarError) as error:
        raise InputError(name, f"cannot be read from git ({error})", _HINT) from error


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails; raises OSError where there is no git."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, errors="replace")
    return None if done.returncode else done.stdout.strip()
