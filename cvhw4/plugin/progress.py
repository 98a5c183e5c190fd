"""What a session shows of its runs while they train.

On a terminal each run has one line, rewritten in place with whatever happens, which stays when the run ends. Elsewhere,
and with `-s`, where tests write to the terminal themselves, there are plain lines. pytest-xdist's controller shows the
runs that its workers have finished; the workers show nothing.

rich's live display is not used: it writes through sys.stdout, which pytest redirects while a test runs, hides the
cursor, and does not know what pytest's terminal writer has written.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError, printable
from cvhw4.plugin.board import Run
from cvhw4.plugin.options import is_ci
from cvhw4.records.schema import RunRecord
from cvhw4.report.text import BLOCKS, clock, cut, sparkline

if TYPE_CHECKING:
    import pytest
    from _pytest._io import TerminalWriter

    from cvhw4.executors.base import Event
    from cvhw4.records.schema import Epoch
    from cvhw4.records.store import Store
    from cvhw4.study import Row

_SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal line to rewrite
_ERASE = "\r\x1b[K"
_ASCII_BLOCKS = "_.-=+*#@"
_PLAIN_COLUMNS = 80  # of a line where there is no terminal
_SHORT_CURVE = 8  # columns that the sparkline gets before anything else is shown in full
_CURVE = "\0"  # where in a line the sparkline goes


class Pace:
    """How long runs take, from those that are over and those of earlier sessions."""

    def __init__(self) -> None:
        self._seen: dict[object, list[float]] = {}  # by family: seconds and epochs of the runs that are over
        self._earlier: dict[object, float] = {}  # by row: seconds of a run of an earlier session
        self._again = [0.0, 0.0]  # seconds of the runs that are over whose rows have an earlier one, and of these

    def expect(self, row: Row, seconds: float) -> None:
        """A run of the row took so long in an earlier session, perhaps on a faster or slower machine."""
        self._earlier[_families(row)[0]] = seconds

    def add(self, row: Row, seconds: float) -> None:
        """A run of the row is over."""
        families = _families(row)
        for family in families:
            seen = self._seen.setdefault(family, [0.0, 0.0])
            seen[0] += seconds
            seen[1] += row.epochs or 1
        if earlier := self._earlier.get(families[0]):
            self._again[0] += seconds
            self._again[1] += earlier

    def seconds(self, row: Row) -> float | None:
        """What a run of the row should take; None where nothing is known.

        By its epochs, as the row's other runs; else as in an earlier session, as much faster or slower as the rows seen
        since; else by its epochs, as rows like it, or as all rows.
        """
        own, *others = _families(row)
        if own not in self._seen and own in self._earlier:
            seconds, earlier = self._again
            return self._earlier[own] * (seconds / earlier if earlier else 1.0)
        for family in (own, *others):
            if family in self._seen:
                seconds, epochs = self._seen[family]
                return seconds / epochs * (row.epochs or 1)
        return None


def _families(row: Row) -> tuple[object, ...]:
    """What a row's cost per epoch has in common with other rows', the closest first."""
    if row.epochs is None:  # a training loop of the study's own
        return (row.study, row.name), row.study
    kind = row.network_name, row.recipe.size
    return (row.study, row.name), (*kind, row.trained), kind, None


class Progress:
    """Shows the runs of a session, as a plugin that implements the hooks of runs.

    Attributes:
        run: the current one.
        epochs: of the runs that began, in this process or another, as they were told; none of one from disk.
        reported: runs whose end was shown: they need no dot of pytest's.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reported: set[Run] = set()
        self._planned: dict[Run, Row] = {}
        self._over: set[Run] = set()  # finished, or never to be
        self.epochs: dict[Run, list[Epoch]] = defaultdict(list)
        self._row: Row
        self.run: Run = ("", "", 0)
        self._images: int | None = None
        self._several_studies, self._longest = False, 0  # characters of the longest name
        self._pace = Pace()
        self._run_began = self._last_line = time.monotonic()
        self._session_began = datetime.now(UTC).replace(microsecond=0)
        self._shown = self._is_terminal = self._rewrites = False

    # What the session tells

    def plan(self, runs: Mapping[Run, Row], store_of: Callable[[Row], Store]) -> None:
        """The runs that the session will have; how long they took in earlier sessions is looked up."""
        self._planned, option = dict(runs), self.config.option
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        self._shown = reporter is not None and not hasattr(self.config, "workerinput") and option.verbose >= 0
        self._is_terminal = self._shown and bool(reporter.isatty) and not is_ci()
        captured = getattr(option, "capture", "no") in ("fd", "sys")
        self._rewrites = self._is_terminal and captured and os.environ.get("TERM") != "dumb"
        self._several_studies = len({study for study, *_ in runs}) > 1
        self._longest = max((len(self._label(run)) for run in runs), default=0)
        rows = {(row.study, row.name): row for row in runs.values()} if self._shown else {}
        for row in rows.values():
            with suppress(InputError, OSError, ValueError):  # ValueError: there is none; only an estimate depends on it
                newest = max((store_of(row).runs / row.name).glob("seed*.json"), key=os.path.getmtime)
                record = RunRecord.from_json(newest.read_text("utf-8"), newest)
                if row.epochs in (None, len(record.epochs)):
                    self._pace.expect(row, record.times.total_seconds)

    def prepare(self, row: Row, seed: int) -> None:
        """The run is next: its data and weights are looked for, which may take a while."""
        self._turn_to(row, seed)
        if self.run in self._over:  # it is trained once more
            self._over.remove(self.run)
            self.epochs.pop(self.run, None)
        self._images = None
        self._run_began = self._last_line = time.monotonic()
        self._live()

    def pytest_cvhw4_run_begin(self, row: Row, seed: int, images: int | None) -> None:
        """A run begins."""
        self.prepare(row, seed)
        self._images = images

    def pytest_cvhw4_run_epoch(self, row: Row, seed: int, epoch: Epoch) -> None:
        """An epoch of the run is over."""
        self._turn_to(row, seed)
        self._note(self.run, epoch)
        self._live()
        if self._rewrites or epoch.epoch == row.epochs:
            return
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            (name, short), (run_left, _), metric = self._names(), self._left(), row.task.primary
            at, value = _of(epoch.epoch, row), f"{epoch.figures[metric]:.3f}"
            left = "" if run_left is None else f"  {stamp(run_left)} left"
            loss, brief = ("", "") if row.epochs is None else (f"  loss {epoch.loss:.3f}", f"  loss {epoch.loss:.3g}")
            self._write(f"{name}  epoch {at}{loss}  {metric} {value}{left}", f"{short}  {at}{brief}  {value}{left}")

    def pytest_cvhw4_run_end(self, row: Row, seed: int, record: RunRecord, reused: bool) -> None:
        """The run is finished."""
        self._turn_to(row, seed)
        self._finish(record, time.monotonic() - self._run_began if reused else record.times.total_seconds, reused)

    def pytest_cvhw4_run_failed(self, row: Row, seed: int, reason: str) -> None:
        """The run ended without a record. Where there is no terminal the reason is whole: paths in it can be copied."""
        self._drop(row, seed, reason if reason == "interrupted" else f"failed: {reason}", whole=not self._is_terminal)

    def skip(self, row: Row, seed: int, reason: str) -> None:
        """The run cannot begin: its data or weights cannot be had."""
        self._drop(row, seed, f"skipped: {reason}")

    def wait(self) -> None:
        """Another session is at this run."""
        text = "is being trained by another session: waiting for it"
        self._write(f"{self._names()[0]}  {text}", stays=not self._rewrites)

    def event(self, event: Event) -> None:
        """Something happened in another process; what the current run tells comes by hooks."""
        run, what = (event.study, event.row, event.seed), "begins"
        self.epochs.setdefault(run, [])
        if run == self.run:
            return
        if event.epoch is not None:
            self._note(run, event.epoch)
            what = f"finished epoch {event.epoch.epoch}"
        if self._rewrites:
            where = f" on {printable(event.node)}" if event.node else ""
            told = f"{self._label(run)} seed {event.seed} {what}{where}"
            self._write(f"{self._names()[0]}  waiting; {told}", stays=False)

    def report_run(self, record: RunRecord, seconds: float) -> None:
        """A worker of pytest-xdist finished a run, or found it stored, in so many seconds."""
        run = record.study, record.row, record.seed
        if run in self._planned and run not in self._over:
            self._turn_to(self._planned[run], record.seed)
            self._finish(record, seconds, datetime.fromisoformat(record.started) < self._session_began)

    def mark_lost(self, run: Run) -> None:
        """A run that workers had is over without a record."""
        self._over.add(run)

    # What it makes of that

    def _turn_to(self, row: Row, seed: int) -> None:
        self._row, self.run = row, (row.study, row.name, seed)

    def _note(self, run: Run, epoch: Epoch) -> None:
        earlier = [e for e in self.epochs[run] if e.epoch < epoch.epoch]  # a run may have been begun again
        self.epochs[run] = [*earlier, epoch]

    def _drop(self, row: Row, seed: int, text: str, whole: bool = False) -> None:
        self._turn_to(row, seed)
        self._over.add(self.run)
        self._write(f"{self._names()[0]}  {printable(text)}", whole=whole)

    def _finish(self, record: RunRecord, seconds: float, reused: bool) -> None:
        self._over.add(self.run)
        self._pace.add(self._row, seconds)
        if not self._shown:
            return
        self.reported.add(self.run)
        (name, short), metric = self._names(), record.primary
        value, at = f"{record.best(metric):.3f}", record.best_epoch(metric)
        continued = " (continued)" if record.times.interruptions else ""
        took = "reused" if reused else f"{record.times.total_seconds:.0f} s{continued}"
        many, left = f"{len(self._over)}/{len(self._planned)}", self._left()[1] or 0.0
        self._write(
            f"{name}  {_CURVE}  best {metric} {value} at epoch {at}  {took}  [{many}, {clock(left)} left]",
            f"{name} {_CURVE} best {metric} {value} at {at}, {took} [{many}, {clock(left)} left]",
            f"{name} {_CURVE} best {value} at {at}, {took} [{many}, {clock(left)} left]",
            f"{short} {_CURVE} {value} at {at}, {took} [{many}, {stamp(left)} left]",
            f"{short} {value} {took} [{many}]",
            curve=[e.figures[metric] for e in record.epochs] if self._is_terminal else (),
        )

    def _live(self) -> None:
        """Rewrites the line of a run that trains."""
        if not self._rewrites:
            return
        (name, short), metric, epochs = self._names(), self._row.task.primary, self.epochs[self.run]
        value = f" {epochs[-1].figures[metric]:.3f}" if epochs else ""
        words = f"  {metric}{value}" if epochs else ""
        speed = f" {self._images / epochs[-1].train_seconds:.0f}" if epochs and self._images else ""
        at = _of(epochs[-1].epoch if epochs else 0, self._row)
        run_left, all_left = self._left()
        times = stamp(time.monotonic() - self._run_began) + ("" if run_left is None else f"<{stamp(run_left)}")
        many = f"{len(self._over)}/{len(self._planned)}"
        left = many if all_left is None else f"{many}, {clock(all_left)} left"
        brief = many if all_left is None else f"{many}, {stamp(all_left)} left"
        self._write(
            f"{name}  epoch {at}  {_CURVE}{words}{speed and f' {speed} images/s'}  {times}  [{left}]",
            f"{name} {at} {_CURVE}{value}{speed and f'{speed} img/s'} {times} [{left}]",
            f"{name} {at} {_CURVE}{value}{speed and f'{speed} img/s'} {times} [{brief}]",
            f"{short} {at} {_CURVE}{value} {times} [{brief}]",
            f"{short} {at}{value} {times}",
            curve=[epoch.figures[metric] for epoch in epochs],
            stays=False,
        )

    def _write(self, *layouts: str, curve: Sequence[float] = (), stays: bool = True, whole: bool = False) -> None:
        """Writes the first of these lines that fits, or the last, cut off unless it has to be whole; over the one that
        is there and does not stay, with pytest's capture off."""
        if not self._shown:
            return
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            terminal = self.config.get_terminal_writer()
            line = layouts[0] if whole else self._fitted(terminal, layouts, curve)
            terminal.write("\n" if terminal.width_of_current_line else "")
            terminal.write_raw((_ERASE if self._rewrites else "") + line + ("\n" if stays else ""), flush=True)

    def _fitted(self, terminal: TerminalWriter, layouts: Sequence[str], curve: Sequence[float]) -> str:
        """The first of these lines that there is room for, with as much of a sparkline as fits; or the last, cut."""
        from rich.cells import cell_len

        # A full line leaves the cursor on this line or on the next, as the terminal likes it.
        room = terminal.fullwidth - 1 if self._is_terminal else _PLAIN_COLUMNS
        unicode = "utf" in (getattr(terminal._file, "encoding", None) or "").lower()
        least = min(len(curve), _SHORT_CURVE)
        fit = (line for line in layouts if cell_len(line.replace(_CURVE, "x" * least)) <= room)
        before, mark, after = next(fit, layouts[-1]).partition(_CURVE)
        if not mark:
            return cut(before, room, unicode)
        if not curve:
            return f"{before.rstrip()}  {after.lstrip()}"
        columns = min(room - len(before) - len(after), 4 * _SHORT_CURVE)
        drawn = sparkline(curve, columns, BLOCKS if unicode else _ASCII_BLOCKS)
        return before + terminal.markup(drawn, cyan=True) + after

    def _left(self) -> tuple[float | None, float | None]:
        """Seconds that the current run, and that all runs need from now on; None where nothing is known."""
        expected = {run: self._expected(run) for run in self._planned.keys() - self._over}
        known = [seconds for seconds in expected.values() if seconds is not None]
        workers = len(self.config.getoption("tx", None) or ())  # pytest-xdist's
        begun = sum(expected.get(run, 0.0) != 0.0 for run in self.epochs)  # in other processes
        at_once = max(1, min(workers, len(expected)), begun)
        study = sum(known) / len(known) * len(expected) / at_once if known else None if expected else 0.0
        return expected.get(self.run), study

    def _expected(self, run: Run) -> float | None:
        """Seconds that a run still needs; None where nothing is known."""
        row, told = self._planned[run], self.epochs.get(run)
        if told and row.epochs is not None:
            per_epoch = sum(e.train_seconds + e.evaluate_seconds for e in told) / len(told)
            return per_epoch * (row.epochs - told[-1].epoch)
        whole = self._pace.seconds(row)
        if whole is None or run != self.run:
            return whole
        return max(0.0, whole - (time.monotonic() - self._run_began))

    def _label(self, run: Run) -> str:
        """A row's name, behind its study's where the session has several."""
        return "/".join(run[:2]) if self._several_studies else run[1]

    def _names(self) -> tuple[str, str]:
        """What the line begins with, and the same in short."""
        label, seed = self._label(self.run), self.run[2]
        return f"{label:<{self._longest if self._is_terminal else 20}} seed {seed}", f"{cut(label, 25)} s{seed}"


def _of(epoch: int, row: Row) -> str:
    """ "3/10", or "3" where nobody knows of how many."""
    return str(epoch) if row.epochs is None else f"{epoch}/{row.epochs}"


def stamp(seconds: float) -> str:
    """ "0:45", "3:05" or "1:05:00"; nothing is below 0."""
    whole = max(0, round(seconds))
    hours = f"{whole // 3600}:{whole % 3600 // 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"
