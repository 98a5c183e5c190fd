"""What a session shows of its runs while they train.

On a terminal each run has one line, written over by carriage return and erasure as it trains, and closed when it ends.
Not by rich: its live display writes through sys.stdout, which pytest redirects while a test runs, hides the cursor, and
keeps its own account of where the cursor is beside that of pytest's terminal writer. Elsewhere, and with `-s`, where
tests write to the terminal themselves, there are plain lines.

Between epochs the line's clock goes on, by a thread. It writes to a duplicate of the terminal's file descriptor, made
while capture was off, so that it neither touches pytest's capture nor is caught by it, and only while a run trains
under `--capture=fd` without live logs: then nobody else can write to the terminal but the main thread, which takes the
line away from it first, under the lock that it writes under (at a run's end or error, for the debugger, at the
session's end, which joins it).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord

if TYPE_CHECKING:
    import pytest
    from _pytest._io import TerminalWriter

    from cvhw4.cluster import Event
    from cvhw4.experiments import Experiment
    from cvhw4.records.schema import Epoch
    from cvhw4.records.store import Store

Run = tuple[str, int]  # a row's id and a seed

_SECONDS_BETWEEN_LINES = 10.0  # between progress lines where there is no terminal to rewrite
TICK = 1.0  # seconds between movements of the clock
_ERASE = "\r\x1b[K"
BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*#@"
_PLAIN = 80  # columns of a line where there is no terminal
_SPARKLINE = 8  # columns that it gets before anything else is shown in full
_CURVE = "\0"  # where in a line the sparkline goes


class Pace:
    """How long runs take, from those that are over and those of earlier sessions."""

    def __init__(self) -> None:
        self._seen: dict[object, list[float]] = {}  # by family: seconds, epochs
        self._earlier: dict[str, float] = {}  # by row, seconds of a run
        self._both = [0.0, 0.0]  # seconds of the runs that are over whose rows have earlier ones, and of these

    def expect(self, experiment: Experiment, seconds: float) -> None:
        """A run of the row took so long in an earlier session, perhaps on a faster or slower machine."""
        self._earlier[experiment.id] = seconds

    def add(self, experiment: Experiment, seconds: float) -> None:
        """A run of the row is over."""
        for family in families(experiment):
            seen = self._seen.setdefault(family, [0.0, 0.0])
            seen[0] += seconds
            seen[1] += experiment.recipe.epochs
        if earlier := self._earlier.get(experiment.id):
            self._both[0] += seconds
            self._both[1] += earlier

    def seconds(self, experiment: Experiment) -> float | None:
        """What a run of the row should take: by its epochs as the row's others; else as in an earlier session, as much
        faster or slower as the rows seen since; else by its epochs as rows of its network and size, or as all. None
        where nothing is known."""
        own, *others = families(experiment)
        if own not in self._seen and experiment.id in self._earlier:
            seconds, earlier = self._both
            return self._earlier[experiment.id] * (seconds / earlier if earlier else 1.0)
        for family in (own, *others):
            if family in self._seen:
                seconds, epochs = self._seen[family]
                return seconds / epochs * experiment.recipe.epochs
        return None


def families(experiment: Experiment) -> tuple[object, ...]:
    """What a row's cost per epoch has in common with other rows', the closest first."""
    kind = experiment.network, experiment.recipe.size
    return experiment.id, (*kind, experiment.trained), kind, None


class Clock(threading.Thread):
    """Writes the line that it is shown anew each second, until that is taken away.

    An interrupt may come at any point of the main thread's calls: what they do can be done again, and none waits for
    more than one writing.

    Args:
        terminal: file descriptor, closed at the end.
    """

    def __init__(self, terminal: int) -> None:
        super().__init__(name="cvhw4-clock", daemon=True)
        self.terminal = terminal
        self._line: Callable[[float], str] | None = None
        self._lock, self._over = threading.Lock(), threading.Event()

    def run(self) -> None:
        """Ticks."""
        while not self._over.wait(TICK):
            with self._lock:
                if self._line is None:
                    continue
                try:
                    os.write(self.terminal, self._line(time.monotonic()).encode())
                except OSError:  # the terminal is gone
                    return

    def show(self, line: Callable[[float], str] | None) -> None:
        """What to write at a time (`time.monotonic`) from here on; nothing with None."""
        with self._lock:
            self._line = line

    def stop(self) -> None:
        """After this it writes nothing."""
        self.show(None)
        self._over.set()
        self.join()
        os.close(self.terminal)


class Progress:
    """Tells of a run while it trains: one line that is rewritten on a terminal, a plain line now and then elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.planned: dict[Run, Experiment] = {}
        self.over: set[Run] = set()  # finished, or never to be
        self.told_of: set[Run] = set()
        self.told: dict[Run, list[Epoch]] = {}  # epochs of runs that began, in this process or on a cluster
        self.run: Run = ("", 0)
        self.images: int | None = None  # that the run trains on in an epoch, where it is known
        self.pace = Pace()
        self.run_started = self.last_line = time.monotonic()
        self.since = datetime.now(UTC).replace(microsecond=0)
        self._clock: Clock | None = None
        self._open = False  # whether the terminal's last line is one to be written over

    def plan(self, runs: Mapping[Run, Experiment], store_of: Callable[[Experiment], Store]) -> None:
        """Runs that the session will have; what they took in earlier sessions is looked up."""
        self.planned = dict(runs)
        if not self.shown:
            return
        for experiment in {e.id: e for e in runs.values()}.values():
            with suppress(InputError, OSError, ValueError):  # no more than an estimate hangs on it; none: ValueError
                newest = max((store_of(experiment).runs / experiment.id).glob("seed*.json"), key=os.path.getmtime)
                record = RunRecord.from_json(newest.read_text("utf-8"), newest)
                if len(record.epochs) == experiment.recipe.epochs:
                    self.pace.expect(experiment, record.times.total_seconds)

    @property
    def shown(self) -> bool:
        """Whether anything is told: not by a worker, not with -q."""
        return self._reporter is not None and self.config.option.verbose >= 0

    @property
    def epochs(self) -> int:
        """The last epoch that the run told of; 0 before it did, and of a run that is taken from disk."""
        told = self.told.get(self.run)
        return told[-1].epoch if told else 0

    @property
    def _reporter(self) -> pytest.TerminalReporter | None:
        reporter: pytest.TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        return reporter if not hasattr(self.config, "workerinput") else None

    # What happens

    def begin(self, experiment: Experiment, seed: int) -> None:
        """A run begins, perhaps for the second time: then what was told of the first is over."""
        self.experiment, self.run = experiment, (experiment.id, seed)
        if self.run in self.over:
            self.over.remove(self.run)
            self.told.pop(self.run, None)
        self.images = None
        self.run_started = self.last_line = time.monotonic()
        self._live()

    def wait(self) -> None:
        """Another session is at this run."""
        self._final("is being trained by another session: waiting for it")

    def event(self, event: Event) -> None:
        """Something happened in the cluster, to this run or another."""
        told = self.told.setdefault((event.id, event.seed), [])
        if (event.id, event.seed) == self.run:
            if event.epoch is not None:
                self.epoch(event.epoch)
            return
        if event.epoch is not None:
            told.append(event.epoch)
        what = "begins" if event.epoch is None else f"finished epoch {event.epoch.epoch}"
        self._live(f"waiting; {event.id} seed {event.seed} {what} on {printable(event.node)}")

    def epoch(self, epoch: Epoch) -> None:
        """An epoch of the run is over."""
        self.told.setdefault(self.run, []).append(epoch)
        if self._rewrites:
            self._live()
        elif epoch.epoch < self.experiment.recipe.epochs and self._due():
            run_left, _ = self._left()
            at, value = f"{epoch.epoch}/{self.experiment.recipe.epochs}", f"{epoch.figures[self._metric]:.3f}"
            left = "" if run_left is None else f"  {stamp(run_left)} left"
            self._plain(
                f"{self._name()}  epoch {at}  loss {epoch.loss:.3f}  {self._metric} {value}{left}",
                f"{self._name()}  {at}  loss {epoch.loss:.3g}  {value}{left}",
                f"{self._short_name()}  {at}  loss {epoch.loss:.3g}  {value}{left}",
            )

    def end(self, record: RunRecord) -> None:
        """The run is finished."""
        took = record.times.total_seconds if self.epochs else time.monotonic() - self.run_started
        self._finish(record, took, "reused" if not self.epochs else "")

    def report(self, record: RunRecord, seconds: float) -> None:
        """A worker of pytest-xdist has a run finished, or found it, in so many seconds."""
        experiment = self.planned.get((record.id, record.seed))
        if experiment is None or (record.id, record.seed) in self.over:
            return
        self.experiment, self.run = experiment, (record.id, record.seed)
        self._finish(record, seconds, "reused" if datetime.fromisoformat(record.started) < self.since else "")

    def lose(self, run: Run) -> None:
        """A run that workers had is over without a record."""
        self.over.add(run)

    def drop(self, why: str, *, whole: bool = False) -> None:
        """The run ended without a record.

        Args:
            whole: whether to cut nothing off where there is no terminal: a path that is cut cannot be copied.
        """
        self.over.add(self.run)
        self._final(printable(why), whole)

    def hold(self) -> None:
        """Nothing is written from here on, until the run tells something new."""
        if self._clock is not None:
            self._clock.show(None)

    def close(self) -> None:
        """Nothing is written from here on."""
        if self._clock is not None:
            stopped, self._clock = self._clock, None
            stopped.stop()

    # What is shown of it

    def _finish(self, record: RunRecord, seconds: float, reused: str) -> None:
        self.over.add(self.run)
        self.pace.add(self.experiment, seconds)
        if not self.shown:
            return
        self.told_of.add(self.run)
        figure, epoch = record.best(record.primary), record.best_epoch(record.primary)
        continued = " (continued)" if not reused and record.times.interruptions else ""
        took = reused or f"{record.times.total_seconds:.0f} s{continued}"
        left = self._left()[1] or 0.0
        many = f"{len(self.over)}/{len(self.planned)}"
        best = f"best {record.primary} {figure:.3f} at epoch {epoch}  {took}  [{many}, {clock(left)} left]"
        name, short = self._name(), self._short_name()
        if not self._is_terminal:
            self._plain(
                f"{name}  {best}",
                f"{name}  best {record.primary} {figure:.3f} at {epoch}  {took}  [{many}, {stamp(left)} left]",
                f"{name}  best {figure:.3f} at {epoch}  {took}  [{many}, {stamp(left)} left]",
                f"{short}  best {figure:.3f} at {epoch}  {took}  [{many}, {stamp(left)} left]",
                f"{short} {figure:.3f} {took} [{many}]",
            )
            return
        layouts = [
            f"{name}  {_CURVE}  {best}",
            f"{name} {_CURVE} best {figure:.3f} at {epoch} {took} [{many}, {clock(left)} left]",
            f"{short} {_CURVE} {figure:.3f} at {epoch} {took} [{many}, {stamp(left)} left]",
            f"{short} {figure:.3f} {took} [{many}]",
        ]
        with self._terminal() as terminal:
            self._close(terminal, self._fitted(terminal, layouts, [e.figures[record.primary] for e in record.epochs]))

    def _live(self, text: str = "") -> None:
        """The run's line as it is now, or with a text instead of figures."""
        if not self._rewrites:
            return
        with self._terminal() as terminal:
            if not self._open:
                terminal.write(self._line_break())
                self._open = True
            line = self._line(terminal, text)
            terminal.write_raw(line(time.monotonic()), flush=True)
            if self.config.option.capture == "fd" and not self._logs_live:
                if self._clock is None:
                    ticking = Clock(os.dup(terminal._file.fileno()))
                    ticking.start()
                    self._clock = ticking
                self._clock.show(line)

    def _line(self, terminal: TerminalWriter, text: str) -> Callable[[float], str]:
        """The line at a time; it holds all that it shows, so that another thread may ask for it."""
        name, short = self._name(), self._short_name()
        if text:
            shown = self._fitted(terminal, [f"{name}  {text}"], [])
            return lambda now: _ERASE + shown
        told, total = self.told.get(self.run, []), self.experiment.recipe.epochs
        curve = [e.figures[self._metric] for e in told]
        value = f" {curve[-1]:.3f}" if told else ""
        metric = f"  {self._metric}{value}" if told else ""
        speed = f"{self.images / told[-1].train_seconds:.0f}" if told and self.images else ""
        many, at = f"{len(self.over)}/{len(self.planned)}", f"{self.epochs}/{total}"
        since, started, (run_left, all_left) = time.monotonic(), self.run_started, self._left()

        def line(now: float) -> str:
            elapsed, gone = stamp(now - started), now - since
            times = elapsed if run_left is None else f"{elapsed}<{stamp(run_left - gone)}"
            left = "" if all_left is None else f", {clock(max(0.0, all_left - gone))} left"
            brief = "" if all_left is None else f", {stamp(all_left - gone)} left"
            layouts = [
                f"{name}  epoch {at}  {_CURVE}{metric}{speed and f'  {speed} images/s'}  {times}  [{many}{left}]",
                f"{name} {at} {_CURVE}{value}{speed and f' {speed} img/s'} {times} [{many}{left}]",
                f"{name} {at} {_CURVE}{value}{speed and f' {speed} img/s'} {times} [{many}{brief}]",
                f"{short} {at} {_CURVE}{value} {times} [{many}{brief}]",
                f"{short} {at}{value} {times}",
            ]
            return _ERASE + self._fitted(terminal, layouts, curve, width)

        width = terminal.fullwidth
        return line

    def _fitted(
        self, terminal: TerminalWriter, layouts: Sequence[str], curve: Sequence[float], width: int | None = None
    ) -> str:
        """The first of these lines that the terminal is wide enough for, with as much of a sparkline as there is room
        for, or the last, cut off."""
        room = (width or terminal.fullwidth) - 1  # a full line's cursor is on either line, as the terminal likes it
        unicode = "utf" in (getattr(terminal._file, "encoding", None) or "").lower()
        least = min(len(curve), _SPARKLINE)
        fit = [line for line in layouts if len(line) - line.count(_CURVE) + least * line.count(_CURVE) <= room]
        line = fit[0] if fit else layouts[-1]
        before, mark, after = line.partition(_CURVE)
        if not mark:
            return cut(line, room, unicode)
        columns = room - len(before) - len(after)
        drawn = sparkline(curve, min(columns, 4 * _SPARKLINE), BLOCKS if unicode else _ASCII_BLOCKS)
        return before + terminal.markup(drawn, cyan=True) + after if drawn else before.rstrip() + after

    def _final(self, text: str, whole: bool = False) -> None:
        """A line that stays; `whole` as `drop` takes it."""
        self._plain(f"{self._name()}  {text}", whole=whole and not self._is_terminal)

    def _plain(self, *layouts: str, whole: bool = False) -> None:
        """The first of these lines that fits, or the last, cut off unless it is to be whole; without a sparkline."""
        if not self.shown:
            return
        with self._terminal() as terminal:
            width = None if self._is_terminal else _PLAIN + 1
            self._close(terminal, layouts[-1] if whole else self._fitted(terminal, layouts, [], width))

    def _close(self, terminal: TerminalWriter, line: str) -> None:
        if self._open:
            terminal.write_raw(_ERASE)
            self._open = False
        terminal.write(f"{self._line_break()}{line}\n", flush=True)

    def _due(self) -> bool:
        """Whether it is time for a plain line."""
        due = time.monotonic() - self.last_line >= _SECONDS_BETWEEN_LINES
        if due:
            self.last_line = time.monotonic()
        return due

    def _left(self) -> tuple[float | None, float | None]:
        """Seconds that the run, and that all runs need from now on; None where nothing tells."""
        expected = {run: self._expected(run) for run in self.planned.keys() - self.over}
        known = [seconds for seconds in expected.values() if seconds is not None]
        workers = len(self.config.getoption("tx", None) or ())
        on_cluster = sum(run in expected and self._expected(run) != 0.0 for run in self.told)
        at_once = max(1, min(workers, len(expected)), on_cluster)
        study = sum(known) / len(known) * len(expected) / at_once if known else None if expected else 0.0
        return expected.get(self.run), study

    def _expected(self, run: Run) -> float | None:
        """Seconds that a run still needs; None where nothing tells."""
        experiment, told = self.planned[run], self.told.get(run)
        if told:
            per_epoch = sum(e.train_seconds + e.evaluate_seconds for e in told) / len(told)
            return per_epoch * (experiment.recipe.epochs - told[-1].epoch)
        whole = self.pace.seconds(experiment)
        if whole is None or run != self.run:
            return whole
        return max(0.0, whole - (time.monotonic() - self.run_started))

    @property
    def _metric(self) -> str:
        return "accuracy" if self.experiment.question == "q1" else "miou"

    def _name(self) -> str:
        longest = max((len(id) for id, _ in self.planned), default=0) if self._is_terminal else 20
        return f"{self.run[0]:<{longest}} seed {self.run[1]}"

    def _short_name(self) -> str:
        return f"{cut(self.run[0], 25)} s{self.run[1]}"

    # Where

    @property
    def _is_terminal(self) -> bool:
        reporter = self._reporter
        return reporter is not None and bool(reporter.isatty) and not os.environ.get("CI")

    @property
    def _rewrites(self) -> bool:
        captured = getattr(self.config.option, "capture", "no") in ("fd", "sys")
        return self.shown and self._is_terminal and captured and os.environ.get("TERM") != "dumb"

    @property
    def _logs_live(self) -> bool:
        return bool(self.config.getini("log_cli")) or self.config.getoption("log_cli_level", None) is not None

    def _line_break(self) -> str:
        return "\n" if self.config.get_terminal_writer().width_of_current_line else ""

    @contextmanager
    def _terminal(self) -> Iterator[TerminalWriter]:
        """pytest's terminal, with capture off and the clock still."""
        self.hold()
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            yield self.config.get_terminal_writer()


def sparkline(values: Sequence[float], columns: int, blocks: str = BLOCKS) -> str:
    """A curve from its least to its highest value in so many columns at most; a value that is no number is lowest."""
    if len(values) > columns:
        last = len(values) - 1
        values = [values[round(i * last / max(1, columns - 1))] for i in range(columns)]
    real = [v for v in values if math.isfinite(v)]
    low, high = min(real, default=0.0), max(real, default=0.0)
    unit = 1.0 if math.isfinite(high - low) else 0.5  # keeps differences of the largest numbers finite
    span = high * unit - low * unit or 1.0
    heights = [(v * unit - low * unit) / span if math.isfinite(v) else 0.0 for v in values]
    return "".join(blocks[round(height * (len(blocks) - 1))] for height in heights)


def cut(text: str, width: int, unicode: bool = True) -> str:
    """At most so many characters of a text, with an ellipsis where some are missing."""
    ellipsis = "…" if unicode else "..."
    return text if len(text) <= width else text[: max(0, width - len(ellipsis))] + ellipsis


def clock(seconds: float) -> str:
    """ "45 s", "3:05 min" or "1:05 h"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def stamp(seconds: float) -> str:
    """ "0:45", "3:05" or "1:05:00"; nothing is below 0."""
    whole = max(0, round(seconds))
    hours = f"{whole // 3600}:{whole % 3600 // 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"
