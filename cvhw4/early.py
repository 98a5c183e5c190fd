"""What pytest loads with itself where cvhw4 is installed (entry point `pytest11`): keeps paths of options from being
taken for tests.

pytest chooses its root folder, configuration file and first conftest.py before it has read any conftest.py, so before
it knows the options of a plugin that a conftest.py loads. What stands behind an unknown option it takes for a folder of
tests, if there is such a folder: `pytest --results ../out` works as long as `../out` does not exist. Here those options
are written as `--results=../out`, which no pytest misunderstands.

It is part of sessions that have nothing to do with cvhw4 as well: it does nothing where no conftest.py names that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

# Those of `cvhw4.plugin` and of `cvhw4.homework.options` that take a path.
_NAMES = ("results", "weights", "bounds", "tensorboard", "table", "portraits", "camvid")
_OPTIONS = {f"--{prefix}{name}" for name in _NAMES for prefix in ("", "cvhw4-")}
_ARGUMENTS: pytest.StashKey[list[str]] = pytest.StashKey()  # of the session that is to be run in this one's place


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Joins options and paths; where pytest has a root folder from such a path by now, it begins anew."""
    given = [str(arg) for arg in early_config.invocation_params.args]
    paths, here = _mistaken(args), early_config.invocation_params.dir
    if not paths or not _is_of_a_study(here):
        return
    known = early_config.known_args_namespace
    known.file_or_dir = [arg for arg in known.file_or_dir if arg not in paths]
    args[:] = _joined(args)
    if not all((here / path).resolve().is_relative_to(here.resolve()) for path in _mistaken(given)):
        early_config.stash[_ARGUMENTS] = _joined(given)
        known.noconftest, args[:] = True, []


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Runs the session anew."""
    arguments = config.stash.get(_ARGUMENTS, None)
    return None if arguments is None else pytest.main(arguments, plugins=config.invocation_params.plugins)


def _mistaken(args: Sequence[str]) -> list[str]:
    """The paths that stand as arguments of their own behind an option of ours, and exist."""
    pairs = [(option, path) for option, path in pairwise(args) if option in _OPTIONS and not path.startswith("-")]
    return [path for _, path in pairs if os.path.exists(path)]  # which no name and no folder's rights make raise


def _joined(args: Sequence[str]) -> list[str]:
    """The same arguments, with those options and paths in one."""
    joined: list[str] = []
    for arg in args:
        if joined and joined[-1] in _OPTIONS and not arg.startswith("-"):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def _is_of_a_study(folder: Path) -> bool:
    """Whether a conftest.py in a folder or above it names cvhw4: others may have options of these names."""
    for above in (folder, *folder.parents):
        try:
            if b"cvhw4" in (above / "conftest.py").read_bytes():
                return True
        except OSError:
            continue
    return False
