"""Measures of one kind: taken in processes of their own, kept as one JSON file, a list of objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvhw4 import InputError
from cvhw4.files import write_atomically
from cvhw4.records.schema import first_problem
from cvhw4.records.typed import TypeAdapter, ValidationError


def read_measures(path: Path, kind: Any) -> list[Any]:
    """The dataclass instances of a kind in a file, as `write_measures` writes it; none where there is no file. Raises
    InputError: it holds anything else."""
    if not path.exists():
        return []
    try:
        found: list[Any] = TypeAdapter(list[kind]).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = f"is not a list of measures of {path.stem} ({first_problem(error)})"
        raise InputError(path, problem, "delete it and measure again") from error
    return found


def write_measures(path: Path, measures: Iterable[Any]) -> None:
    """Writes them in place of the file, without the fields that are None. Raises InputError: the folder cannot be
    written to."""
    points = [{name: value for name, value in asdict(m).items() if value is not None} for m in measures]
    write_atomically(path, json.dumps(points, indent=1, allow_nan=False) + "\n")


def run_python(arguments: Sequence[str], folder: Path, **variables: str) -> tuple[float, str]:
    """Runs Python in a folder, with further environment variables. Raises RuntimeError: it failed; with what it
    printed.

    Returns:
        seconds from start to exit, and all that it printed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout}")
    return seconds, done.stdout
