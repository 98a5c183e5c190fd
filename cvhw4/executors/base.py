"""What runs in other processes have in common, of this machine or of a cluster: all are given away at once, tell of
their epochs while they train, and are waited for one by one."""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.study import Row, Study, unwrapped

POLL_SECONDS = 0.2  # seconds between looks at what the runs tell


class Event(NamedTuple):
    """What a run tells of itself: that it began (again), or an epoch of it; on a cluster with the node it is on."""

    study: str
    row: str
    seed: int
    node: str
    epoch: Epoch | None


@dataclass
class Submitted:
    """A run that was given away.

    Attributes:
        begun: how often.
        outcome: its record, or what it raised; None while it is not over.
        seconds: that it took where it was trained, imports and decoding left out.
        warned: its warnings, as `warnings.warn_explicit` takes them.
        written: what it printed.
    """

    study: Study
    row: Row
    seed: int
    begun: int = 0
    outcome: RunRecord | BaseException | None = None
    seconds: float = 0.0
    warned: Sequence[tuple[str, type[Warning], str, int]] = ()
    written: str = ""


class Executor(ABC):
    """Trains runs in other processes, several at once.

    Args:
        root: folder of the user's code: what own metrics and training loops use of it is sent with them.
        pickle: the module cloudpickle that sends them.
    """

    def __init__(self, root: Path | None, pickle: Any) -> None:
        self._root, self._pickle = root, pickle
        self._runs: dict[tuple[str, str, int], Submitted] = {}

    def submit(self, runs: Iterable[tuple[Study, Row, int]]) -> None:
        """Takes runs, which are begun in this order; none, with an InputError, where a study cannot be sent to another
        process."""
        runs = list(runs)
        for study in {id(study): study for study, _, _ in runs}.values():
            for module in own_modules(study, self._root):
                self._pickle.register_pickle_by_value(module)
            check_travels(study, self._pickle.dumps)
        for study, row, seed in runs:
            self._runs[row.study, row.name, seed] = run = Submitted(study, row, seed)
            self._begin(run)

    def __contains__(self, run: tuple[str, str, int]) -> bool:
        """Whether a run, by the names of study and row and its seed, was submitted and not yet asked for."""
        return run in self._runs

    def result(self, row: Row, seed: int, on_event: Callable[[Event], None]) -> tuple[RunRecord, float]:
        """The record of a submitted run, once it is finished, and the seconds that it took; the others go on
        meanwhile. It can be asked for once. What it warned of and printed, this process does.

        Args:
            on_event: called with every event that comes in meanwhile, of any run; all events of a run come before its
                record.

        Raises:
            ProcessDied: its process did, on a cluster several times.
            Exception: what the run raised, as its own class (see `Runner.run`).
        """
        run = self._runs[row.study, row.name, seed]
        try:
            while True:
                finished = run.outcome is not None  # looked at before the events: all of them are then here
                for event in self._told():
                    on_event(event)
                if finished:
                    break
                self._wait()
        finally:
            del self._runs[row.study, row.name, seed]
        print(run.written, end="")
        for warning in run.warned:
            warnings.warn_explicit(*warning)
        if isinstance(run.outcome, BaseException):
            raise run.outcome
        assert run.outcome is not None
        return run.outcome, run.seconds

    @abstractmethod
    def close(self) -> None:
        """Ends what still runs."""

    @abstractmethod
    def _begin(self, run: Submitted) -> None:
        """Begins a run as soon as there is room for it."""

    @abstractmethod
    def _told(self) -> list[Event]:
        """What runs told since the last call."""

    @abstractmethod
    def _wait(self) -> None:
        """Waits for something to happen, `POLL_SECONDS` at most, and notes outcomes."""


def own_modules(study: Study, root: Path | None) -> list[Any]:
    """The loaded modules that a study's own functions may need and that no other process could import by name: those
    that lie in or below the folders of their files, or below `root`, and are not installed."""
    installed = tuple(f"{path}{os.sep}" for path in sysconfig.get_paths().values())
    ours = __name__.partition(".")[0]
    files = {
        name: os.path.realpath(file)
        for name, module in list(sys.modules.items())
        if (file := str(getattr(module, "__file__", None) or "")) and not file.startswith(installed)
        if os.path.isabs(file) and name.partition(".")[0] != ours  # torch.ops says that it is in "_ops.py"
    }
    names = (getattr(unwrapped(function), "__module__", None) for function in study.functions)
    places = {os.path.dirname(files[name]) for name in names if name is not None and name in files}
    if root is not None and study.functions:
        places.add(os.path.realpath(root))
    inside = tuple(os.path.join(place, "") for place in places)
    return [sys.modules[name] for name, file in files.items() if file.startswith(inside)]


def check_travels(study: Study, dumps: Callable[[Any], bytes]) -> None:
    """Refuses what cannot be sent to another process, such as a callable that holds an open file; raises InputError."""
    rows = [(f", row {row.name}", "a network or a loss", row) for row in study.rows.values()]
    for where, what, part in [*rows, ("", "a function", study)]:
        try:
            dumps(part)
        except Exception as error:  # whatever an object's own way to be pickled raises
            problem = f"has {what} that cannot be sent to another process ({on_one_line(error)})"
            hint = "write it as a function of a module, or a functools.partial of one with plain arguments"
            raise InputError(f"study {study.name}{where}", problem, hint) from error


def on_one_line(error: BaseException) -> str:
    """An error's message."""
    return printable(" ".join(str(error).split()))
