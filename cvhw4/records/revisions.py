"""Stores as they are named on the command line: a folder, or a git revision of one."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES
from cvhw4.records.store import Store

MEND = "name a results folder, or a git revision that has one (main, v1.0:results; main:./results from here)"
_VERIFY = ("rev-parse", "--verify", "--quiet", "--end-of-options")


@contextmanager
def opened(name: str, profile: str | None) -> Iterator[tuple[Store, str]]:
    """The store that a name means, and its profile; an existing folder comes before a revision.

    Args:
        name: a results folder; the folder of one of its profiles; or a git revision of the repository here, with a
            results folder's path behind a colon (default: `results`): from the repository's top, or from the current
            folder where it begins with `./`. A revision's records are read from a temporary folder, without what is
            stored of unfinished runs and images; nothing is checked out.
        profile: None takes the profile whose folder is named, else `quick`.

    Raises:
        InputError: no such folder or revision, or it has no runs of the profile.
    """
    folder = Path(name)
    if folder.is_dir():
        if (folder / "runs").is_dir() and profile in (None, folder.resolve().name):
            profile = folder.resolve().name
            folder = folder.resolve().parent
        store = Store(folder, profile or "quick")
        if not store.runs.is_dir():
            raise InputError(name, f"has no runs of profile {profile or 'quick'}", mend_of(store, MEND))
        yield store, profile or "quick"
        return
    revision, _, below = name.partition(":")
    profile = profile or "quick"
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as temporary:
        _extract(name, revision, f"{below.rstrip('/') or 'results'}/{profile}/runs", Path(temporary) / profile / "runs")
        yield Store(Path(temporary), profile), profile


def mend_of(store: Store, otherwise: str) -> str:
    """What names the profiles that have runs in a results folder where the store's has none; else `otherwise`."""
    runs = store.folder.parent.glob("*/runs")
    return _mend(store.folder.name, [p.parent.name for p in runs if p.is_dir()], otherwise)


def _mend(asked: str, there: list[str], otherwise: str) -> str:
    sizes = [name for name, profile in PROFILES.items() if not profile.own]
    own = sorted(set(there).difference(sizes))
    options = [f"add --profile {name}" for name in sizes if name in there and asked in sizes][:1]
    if own:
        options.append(f"name the file that makes {' or '.join(own)} with --ablation FILE")
    return ", or ".join(options) or otherwise


def _extract(name: str, revision: str, path: str, into: Path) -> None:
    """Unpacks the records of a revision's folder.

    Only the object's digits reach `git archive`: no name is taken for an option there, or for a pattern.

    Raises:
        InputError: no git, no repository, no such revision, or nothing there.
    """
    if not revision:
        raise InputError(name, "is no folder and no git revision", MEND)
    try:
        if _git("rev-parse", "--git-dir") is None:
            raise InputError(name, "is no folder, and there is no git repository here", MEND)
        if _git(*_VERIFY, f"{revision}^{{commit}}") is None:
            raise InputError(name, "is no folder and no git revision", MEND)
        if (tree := _git(*_VERIFY, f"{revision}:{path}")) is None:
            mend = _mend(Path(path).parent.name, _profiles_at(revision, path), MEND)
            raise InputError(name, f"has no {path} at that revision", mend)
        into.mkdir(parents=True)
        top = _git("rev-parse", "--show-toplevel") or None  # elsewhere git archive looks for the folder it is in
        process = subprocess.Popen(["git", "archive", "--format=tar", tree], stdout=subprocess.PIPE, cwd=top)
        assert process.stdout is not None
        with process, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.isdir() or (member.isfile() and member.name.endswith(".json")):
                    archive.extract(member, into, filter="data")
        if process.returncode:
            raise InputError(name, "cannot be read by git archive", "see what git fsck says")
    except (OSError, tarfile.TarError) as error:
        raise InputError(name, f"cannot be read from git ({error})", MEND) from error


def _profiles_at(revision: str, path: str) -> list[str]:
    """The profiles beside the one that a path is of whose runs a revision has.

    Raises:
        OSError: there is no git.
    """
    results = f"{revision}:{path.rsplit('/', 2)[0]}"
    folders = _git("ls-tree", "-d", "-z", "--name-only", "--full-tree", _git(*_VERIFY, results) or "")
    return [name for name in (folders or "").split("\0") if name and _git(*_VERIFY, f"{results}/{name}/runs")]


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails.

    Raises:
        OSError: there is no git.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, errors="replace")
    return None if done.returncode else done.stdout.strip()
