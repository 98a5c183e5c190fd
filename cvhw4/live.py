"""What a session shows of its runs while they train."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from cvhw4.cluster import Event
    from cvhw4.experiments import Experiment
    from cvhw4.records.schema import Epoch, RunRecord

SECONDS_BETWEEN_LINES = 10.0  # between progress lines where there is no terminal to rewrite


class Progress:
    """Tells of a run while it trains: one line that is rewritten on a terminal, a plain line now and then elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.total = self.finished = 0
        self.told_of: set[tuple[str, int]] = set()
        self.seen: dict[tuple[str, int], int] = {}  # the last epoch that a cluster told of, by run
        self.started = self.told = time.monotonic()

    @property
    def shown(self) -> bool:
        """Whether anything is told: not by a worker, not with -q."""
        return self._reporter is not None and self.config.option.verbose >= 0

    @property
    def _reporter(self) -> pytest.TerminalReporter | None:
        reporter: pytest.TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        return reporter if not hasattr(self.config, "workerinput") else None

    def begin(self, experiment: Experiment, seed: int) -> None:
        """A run begins."""
        if self.finished == 0:
            self.started = time.monotonic()
        self.experiment, self.seed = experiment, seed
        self.run_started = self.told = time.monotonic()
        self.epochs = self.seen.get((experiment.id, seed), 0)  # it may have been trained beside another
        if self._is_terminal():
            self._write(self._line_break())
        self._live("loading")

    def wait(self) -> None:
        """Another session is at this run."""
        self._final("is being trained by another session: waiting for it")

    def event(self, event: Event) -> None:
        """Something happened in the cluster, to this run or another."""
        if event.epoch is not None:
            self.seen[event.id, event.seed] = event.epoch.epoch
        if event.epoch is not None and (event.id, event.seed) == (self.experiment.id, self.seed):
            self.epoch(event.epoch)
        elif event.epoch is None:
            self._live(f"waiting; {event.id} seed {event.seed} begins on {event.node}")
        else:
            self._live(f"waiting; {event.id} seed {event.seed} finished epoch {event.epoch.epoch} on {event.node}")

    def epoch(self, epoch: Epoch) -> None:
        """An epoch of the run is over."""
        self.epochs = epoch.epoch
        total = self.experiment.recipe.epochs
        left = (time.monotonic() - self.run_started) / epoch.epoch * (total - epoch.epoch)
        metric = "accuracy" if "accuracy" in epoch.figures else "miou"
        figures = f"loss {epoch.loss:.3f}  {metric} {epoch.figures[metric]:.3f}"
        self._live(f"epoch {epoch.epoch}/{total}  {figures}  {clock(left)} left")

    def end(self, record: RunRecord) -> None:
        """The run is finished."""
        self.finished += 1
        best = f"best {record.primary} {record.best(record.primary):.3f} at epoch {record.best_epoch(record.primary)}"
        took = f"{record.times.total_seconds:.0f} s" if self.epochs else "reused"
        took += " (continued)" if self.epochs and record.times.interruptions else ""
        elapsed = time.monotonic() - self.started
        left = clock(elapsed / self.finished * (self.total - self.finished))
        self._final(f"{best}  {took}  [{self.finished}/{self.total}, {left} left]")
        if self.shown:
            self.told_of.add((record.id, record.seed))

    def drop(self, why: str) -> None:
        """The run ended without a record."""
        self.finished += 1
        self._final(why)

    def _live(self, text: str) -> None:
        if self._is_terminal():
            self._write(f"\r\x1b[K{self._name()}  {text}", flush=True)
        elif 0 < self.epochs < self.experiment.recipe.epochs and time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            self._final(text)

    def _final(self, text: str) -> None:
        """A line that stays. It is left open: pytest ends it, or the next one does."""
        self._write(("\r\x1b[K" if self._is_terminal() else self._line_break()) + f"{self._name()}  {text}")

    def _line_break(self) -> str:
        return "\n" if self.config.get_terminal_writer().width_of_current_line else ""

    def _name(self) -> str:
        return f"{self.experiment.id:<20} seed {self.seed}"

    def _is_terminal(self) -> bool:
        reporter = self._reporter
        return reporter is not None and bool(reporter.isatty) and not os.environ.get("CI")

    def _write(self, text: str, flush: bool = False) -> None:
        reporter = self._reporter
        if reporter is None or not self.shown:
            return
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            reporter.write(text, flush=flush)


def clock(seconds: float) -> str:
    """ "45 s" or "3:05 min"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"
