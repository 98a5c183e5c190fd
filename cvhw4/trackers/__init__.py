"""Trackers that runs can be logged to while they train: TensorBoard, MLflow, Weights & Biases, each by its own library.

They are users of the hooks in `cvhw4.plugin.hookspec`, as your own may be. A run is logged by the session, with
pytest-xdist by the worker that trains it; of runs that other processes train (`--jobs`, `--executor ray`) an epoch is
logged when its test is at it. One that is taken from disk (`--reuse`) was logged when it was
trained, and is not logged again; one that is continued is logged whole.

Nothing here may end a run or keep it waiting: what trackers are told goes to a thread of their own, and one that raises
is switched off, with a warning.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.study import Row

CLOSE_SECONDS = 30.0  # that a session waits at its end for what trackers still have to do


@dataclass(frozen=True)
class Run:
    """A run as trackers see it, and on how many images it trains in an epoch; None where that is not known."""

    row: Row
    seed: int
    images: int | None

    @property
    def name(self) -> str:
        """ "q1_2-finetune-seed0"."""
        return f"{self.row.name}-seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The row's settings and the seed, nested ones one by one ("recipe.lr"); None is left out."""
        from cvhw4.statistics.changes import flat

        every = {"study": self.row.study, "row": self.row.name, "seed": self.seed} | flat(self.row.settings())
        return {k: str(v) if isinstance(v, list | tuple) else v for k, v in every.items() if v is not None}

    def figures(self, epoch: Epoch) -> dict[str, float]:
        """An epoch's numbers by the names that they have in every tracker: "validation/<metric>", and where they are
        known "training/loss", "training/lr" and "training/images_per_second"."""
        speed = {} if self.images is None else {"training/images_per_second": self.images / epoch.train_seconds}
        validation = {f"validation/{metric}": value for metric, value in epoch.figures.items()}
        if self.row.epochs is None:  # of a training loop of the study's own nothing else is known
            return validation
        return {**validation, "training/loss": epoch.loss, "training/lr": epoch.lr, **speed}


def final_figures(record: RunRecord) -> dict[str, float]:
    """A finished run's best and last figures ("best/accuracy", "last/accuracy"), and its wall time, "total_seconds"."""
    figures = {f"{which}/{m}": record.figure(f"{which} {m}") for m in record.metrics for which in ("best", "last")}
    return figures | {"total_seconds": record.times.total_seconds}


def tags(record: RunRecord) -> dict[str, str]:
    """What tells a run from others of its row and seed."""
    environment = record.environment
    tagged = {"commit": environment["commit"], "device": environment["device_name"], "data": record.data.name}
    return {"fingerprint": record.fingerprint} | {name: str(tag) for name, tag in tagged.items() if tag is not None}


class Tracker(Protocol):
    """Logs one run after the other. It is made with what its option was given, when there is a run to be logged."""

    def begin(self, run: Run) -> None:
        """A run began."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch of it is over; they come in order."""

    def end(self, record: RunRecord) -> None:
        """The run is finished; all its epochs were told."""

    def failed(self, reason: str) -> None:
        """The run ended without a record."""


class _Kind(NamedTuple):
    """Where a tracker is, and what it needs."""

    tracker: str  # module and class
    module: str
    install: str


# By option.
TRACKERS = {
    "tensorboard": _Kind("cvhw4.trackers.tensorboard:TensorBoard", "tensorboard", "tensorboard"),
    "mlflow": _Kind("cvhw4.trackers.mlflow:MLflow", "mlflow", "cvhw4[mlflow]"),
    "wandb": _Kind("cvhw4.trackers.wandb:WandB", "wandb", "cvhw4[wandb]"),
}


def check_trackers(wanted: Mapping[str, str | None]) -> None:
    """Finds what trackers lack before anything is trained, by what their options were given; raises InputError where a
    library is missing, or MLflow cannot use what it was given."""
    for name, where in wanted.items():
        if where is None:
            continue
        if not where:
            raise InputError(f"--{name}", "is empty", f"see --help for what --{name} takes")
        if find_spec(TRACKERS[name].module) is None:
            raise InputError(f"--{name}", "needs a package that is missing", f"pip install {TRACKERS[name].install}")
        database = name == "mlflow" and where.startswith(("sqlite:", "postgresql", "mysql", "mssql"))
        if database and find_spec("sqlalchemy") is None:
            problem = "is a database, which mlflow-skinny cannot use"
            raise InputError(f"--mlflow {where}", problem, "pip install mlflow, or give a server or file:DIR")


class Trackers:
    """Tells all trackers of one run after the other, as a plugin that implements the hooks of runs; `wanted` is what
    their options were given, None where one was not."""

    def __init__(self, wanted: Mapping[str, str | None]) -> None:
        self._made: dict[str, Tracker | None] = {name: None for name, where in wanted.items() if where}
        self._wanted = wanted
        self._jobs: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._off: queue.SimpleQueue[str] = queue.SimpleQueue()  # what went wrong, to be warned of
        self._thread: threading.Thread | None = None
        self._run: Run | None = None
        self._begun = False  # whether trackers know of the run
        self._told = 0  # epochs of it

    def pytest_cvhw4_run_begin(self, row: Row, seed: int, images: int | None) -> None:
        """A run begins. Trackers are told once it has an epoch, or failed: then it was not taken from disk."""
        self._run, self._begun, self._told = Run(row, seed, images), False, 0

    def pytest_cvhw4_run_epoch(self, epoch: Epoch) -> None:
        """An epoch of the run is over. If it is not the next one, those between come with the record, and it too."""
        if self._start() and epoch.epoch == self._told + 1:
            self._tell(lambda tracker: tracker.epoch(epoch))
            self._told += 1

    def pytest_cvhw4_run_end(self, record: RunRecord, reused: bool) -> None:
        """The run is finished."""
        if not reused and self._start():
            for epoch in record.epochs[self._told :]:
                self.pytest_cvhw4_run_epoch(epoch)
            self._tell(lambda tracker: tracker.end(record))
        self._run = None

    def pytest_cvhw4_run_failed(self, reason: str) -> None:
        """The run, if one had begun, ended without a record."""
        if self._start():
            self._tell(lambda tracker: tracker.failed(reason))
        self._run = None

    def pytest_sessionfinish(self) -> None:
        """Waits until trackers are done, `CLOSE_SECONDS` at most."""
        if self._thread is None:
            return
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            names = ", ".join(f"--{name}" for name in self._made)
            self._off.put(f"{names}: not done {CLOSE_SECONDS:.0f} s after the end")
        self._warn()

    def _start(self) -> bool:
        """Tells of the run if that is not done; whether there are trackers and a run."""
        if not self._made or self._run is None:
            return False
        if not self._begun:
            run, self._begun = self._run, True
            self._tell(lambda tracker: tracker.begin(run))
        return True

    def _tell(self, job: Callable[[Tracker], None]) -> None:
        self._warn()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="cvhw4-trackers", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _warn(self) -> None:
        while not self._off.empty():
            with suppress(UserWarning):  # raised where warnings are errors
                warnings.warn(self._off.get(), stacklevel=1)

    def _work(self) -> None:
        """The thread: tells every tracker in turn, and drops one that raises."""
        while (job := self._jobs.get()) is not None:
            for name in list(self._made):
                try:
                    tracker = self._made[name]
                    if tracker is None:
                        tracker = self._made[name] = resolve_name(TRACKERS[name].tracker)(self._wanted[name])
                    job(tracker)
                except Exception as error:
                    del self._made[name]
                    self._off.put(f"--{name} is off from here on: {printable(repr(error))}")
