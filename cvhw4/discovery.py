"""Finds the studies that a file, a folder of tests or a module makes, for the command line and for pytest-xdist's
controller, which imports no tests itself."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from cvhw4.errors import InputError
from cvhw4.study import Claim, Run, Study

_HINT = "name the file that makes it with --study FILE"


def find_study(wanted: str | None, root: Path | None = None) -> Study:
    """The study that `--study` names.

    Args:
        wanted: a file that makes a study ("test_insects.py", or "test_insects.py::insects" where it makes several); the
            name of one of the studies that pyproject.toml names; None for the first of these.
        root: folder of pyproject.toml; the current one where it is left out.

    Raises:
        InputError: there is no such study.
    """
    if wanted is not None:
        place, _, name = wanted.partition("::")
        path = Path(place).expanduser()
        if path.suffix == ".py" or os.path.isfile(path):
            return _choose(_studies_of_file(path), name, path)
    known = {study.name: study for study in default_studies(root or Path.cwd())}
    if wanted is None:
        if not known:
            raise InputError("--study", "is needed here", _HINT)
        return next(iter(known.values()))
    if wanted not in known:
        hint = f"choose one of {', '.join(known)}, or {_HINT}" if known else _HINT
        raise InputError(f"study {wanted}", "is neither a file nor one that pyproject.toml names", hint)
    return known[wanted]


def default_studies(root: Path) -> list[Study]:
    """The studies that `[tool.cvhw4] studies` names in the nearest pyproject.toml, in a folder or above it: a file, or
    a function that gives them ("package.module:function"); none where it names none.

    Raises:
        InputError: it names something else.
    """
    files = (folder / "pyproject.toml" for folder in (root, *root.parents))
    file = next((path for path in files if os.path.isfile(path)), None)
    if file is None:
        return []
    try:
        named = tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("cvhw4", {}).get("studies")
    except (OSError, ValueError, AttributeError) as error:  # the last where a table is something else
        raise InputError(file, f"cannot be read ({error})", "correct it") from error
    if named is None:
        return []
    if isinstance(named, str) and named.endswith(".py"):
        return _studies_of_file(file.parent / named)
    sys.path[:0] = [str(file.parent)] * (str(file.parent) not in sys.path)  # which a console script's path lacks
    try:
        module, _, function = named.partition(":")
        found = list(getattr(import_module(module), function)())
        if odd := [each for each in found if not isinstance(each, Study)]:
            raise TypeError(f"{odd[0]!r:.40} is no study")
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a module of the user's raises
        hint = 'write it as "file.py" or "package.module:function"'
        raise InputError(f"{file}, [tool.cvhw4] studies", f"cannot be used ({error})", hint) from error
    return found


def _studies_of_file(file: Path) -> list[Study]:
    """The studies that a Python file makes, in its order.

    Args:
        file: is imported, with its folder first on the path, then those above it that have a conftest.py, and what the
            nearest pyproject.toml names as pytest's `pythonpath`, as pytest does.

    Raises:
        InputError: the file cannot be imported, or makes no study.
    """
    if not file.is_file():
        raise InputError(file, "is not a file", "name the file that makes the study")
    sys.path[:0] = _paths_of(file.resolve())
    # A name of its own, that no import of the study's can mean; dataclasses look their module up by it.
    spec = importlib.util.spec_from_file_location(f"_cvhw4_study_{file.stem}", file.resolve())
    if spec is None or spec.loader is None:
        raise InputError(file, "is not a Python file", "name the file that makes the study")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # pytest's own, of a file that skips itself, are no Exceptions
        raise InputError(file, f"cannot be imported ({type(error).__name__}: {error})", "correct it") from error
    found = studies_in(module)
    if not found:
        hint = "make one with cvhw4.Study, or give the name of one that pyproject.toml names"
        raise InputError(file, "makes no study", hint)
    return found


def _paths_of(file: Path) -> list[str]:
    """What is on the path where pytest imports a file."""

    def outside(folder: Path) -> Path:
        """The folder that a package is in, or this one."""
        return next(f for f in (folder, *folder.parents) if not (f / "__init__.py").is_file())

    above = [outside(folder) for folder in file.parents if (folder / "conftest.py").is_file()]
    root = next((folder for folder in file.parents if (folder / "pyproject.toml").is_file()), file.parent)
    named: list[str] = []
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        options = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]
        paths = options.get("ini_options", options).get("pythonpath", [])
        named = [path for path in (paths.split() if isinstance(paths, str) else paths) if isinstance(path, str)]
    return [*dict.fromkeys(map(str, (outside(file.parent), *above, *(root / path for path in named))))]


def studies_in(module: ModuleType, resolve: Callable[[Any], Study | None] | None = None) -> list[Study]:
    """The studies that a module holds, or marks its tests with.

    Args:
        resolve: turns what a mark names into a study; left out, marks are not looked at.
    """
    found = [value for value in vars(module).values() if isinstance(value, Study)]
    if resolve is not None:
        for owner in _owners(module):
            found += [s for mark in _marks(owner) if mark.name == "study" and (s := resolve(mark)) is not None]
    return list({study.name: study for study in found}.values())


def _owners(module: ModuleType) -> list[object]:
    """What may have marks: a module, what it holds, and the methods and classes of its classes."""
    owners: dict[int, object] = {}
    waiting: list[object] = [module, *vars(module).values()]
    for owner in waiting:  # which grows
        if isinstance(owner, type) and id(owner) not in owners:
            held = (*owner.__mro__, *vars(owner).values())
            waiting += [each for each in held if isinstance(each, type) or inspect.isroutine(each)]
        owners[id(owner)] = owner
    return [*owners.values()]


def _marks(owner: object) -> Iterable[Any]:
    marks = getattr(owner, "pytestmark", ())
    return marks if isinstance(marks, list | tuple) else (marks,)


def _choose(found: Iterable[Study], name: str, where: object) -> Study:
    by_name = {study.name: study for study in found}
    if not name and len(by_name) == 1:
        return next(iter(by_name.values()))
    if name not in by_name:
        problem = f"makes no study {name}" if name else f"makes {len(by_name)} studies"
        raise InputError(str(where), problem, f"choose one of {', '.join(by_name)}, as in FILE::{next(iter(by_name))}")
    return by_name[name]


# Studies of runs that were logged elsewhere (`cvhw4 judge`): beside the records, so that other commands know them


def logged_elsewhere(run: Run) -> Iterator[Mapping[str, float]]:
    """What trains the rows of such a study: nothing does."""
    raise InputError(f"the run with seed {run.seed}", "was trained elsewhere", "read it again with cvhw4 judge")


def study_as_json(study: Study) -> str:
    """What `stored_study` reads."""
    whole = {
        "title": study.title,
        "primary": study.primary,
        "lower_is_better": sorted(study.lower_is_better),
        "epoch": study.epoch,
        "rows": {name: row.settings() for name, row in study.rows.items()},
        "labels": study.labels,
        "claims": [vars(claim) for claim in study.claims],
    }
    return json.dumps(whole, indent=1) + "\n"


def stored_study(folder: Path) -> Study | None:
    """The study that `cvhw4 judge` wrote to `<results>/<name>/judged.json`; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "judged.json"
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text("utf-8"))
        claims = [Claim(**claim) for claim in raw.pop("claims")]
        return Study(folder.resolve().name, train=logged_elsewhere, claims=claims, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(path, f"is not what cvhw4 judge writes ({error})", "judge the runs again") from error
