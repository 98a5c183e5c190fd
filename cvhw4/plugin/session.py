"""A session's runs: trains them here or elsewhere, remembers what they came to, judges claims and controls."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import pytest

from cvhw4.errors import InputError, ProcessDied, TrainingDiverged, TrainingFailed, Unavailable, printable
from cvhw4.plugin.board import Run, SessionBoard
from cvhw4.plugin.collection import Collection, Studies, key_of, load, seed_in
from cvhw4.plugin.options import jobs_at_once, threads_per_run
from cvhw4.plugin.progress import Progress
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.study import Claim, Control, Row, Study
from cvhw4.tasks import CUSTOM

if TYPE_CHECKING:
    from cvhw4.executors.base import Event, Executor
    from cvhw4.runner import Runner
    from cvhw4.statistics.verdicts import Outcome

_NOTE: pytest.StashKey[dict[str, Any]] = pytest.StashKey()  # what a test's run came to, for the session's summary


class Session:
    """What a session knows of its runs.

    Args:
        make_cluster: connects to the cluster that trains, where one is asked for.
    """

    def __init__(
        self,
        config: pytest.Config,
        studies: Studies,
        collection: Collection,
        progress: Progress,
        make_cluster: Callable[[], Executor] | None,
    ) -> None:
        self.config, self.studies, self.collection, self.progress = config, studies, collection, progress
        self.make_cluster, self._planned = make_cluster, collection.planned
        self.executor: Executor | None = None  # trains runs in other processes
        self._submitted = False  # whether it has them
        self._stored_before: set[Run] = set()  # planned runs that need no training
        self._trained: set[Run] = set()  # runs that told of an epoch: they are not taken from disk
        self.runs: dict[Run, Path] = {}  # records of this session, as the reports bring them
        self.missing: dict[tuple[str, str], str] = {}  # rows, by study and name, that were skipped, and why
        self.failed: set[Run] = set()  # runs that began and could not be finished
        self.trained: dict[str, Path] = {}  # studies of which a row was to be trained, and a file with its tests
        self.began, self.in_runs = time.monotonic(), 0.0  # seconds: when the session began, and what its runs took
        self.reuse: bool = config.getoption("cvhw4_reuse")
        self.smoke: bool = config.getoption("cvhw4_smoke")
        self._smoked: dict[Run, RunRecord] = {}
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        # xdist hands its workers this name, and takes it from the option where that is set.
        name = worker["testrunuid"] if worker is not None else config.getoption("testrunuid", None) or uuid4().hex
        config.option.testrunuid = name
        self.board = SessionBoard(Path(tempfile.gettempdir()) / f"cvhw4-session-{name}")
        if not self.is_worker:  # of a session of that name that was killed
            self.board.remove()

    # Running

    def forget(self, item: pytest.Item) -> None:
        """Forgets what a test's run came to."""
        item.stash.setdefault(_NOTE, {}).clear()

    def run(self, request: pytest.FixtureRequest, benchmark: Any, row: Row, seed: int) -> RunRecord:
        """Trains one row through pytest-benchmark; skips, with the reason in the tables, where it cannot run at all."""
        if not isinstance(row, Row):
            problem = f"calls train({row!r:.40}, ...), which is not a row"
            error = InputError(request.node.name, problem, "take row and seed as arguments of the test")
            raise pytest.fail.Exception(str(error), pytrace=False)
        note = request.node.stash.setdefault(_NOTE, {})
        note |= {"study": row.study, "file": str(request.node.path)}
        key = row.study, row.name, seed
        if key in self._smoked:  # by a fixture
            return self._smoked[key]
        if note.keys() & {"run", "failed", "missing"}:
            hint = "give each run a test of its own (train, row, seed)"
            raise pytest.fail.Exception(str(InputError(request.node.name, "calls train twice", hint)), pytrace=False)
        benchmark.disabled |= self.smoke  # first epochs are no times of the row
        benchmark.group = f"{row.study} {row.task.name}"
        benchmark.params = {"row": row.name, "seed": seed}  # plain values, for pytest-benchmark's own files
        hook = self.config.hook
        self.progress.prepare(row, seed)
        self.board.begin(key)
        began = time.monotonic()

        def failed(reason: str) -> None:
            hook.pytest_cvhw4_run_failed(config=self.config, row=row, seed=seed, reason=reason)

        warned: list[warnings.WarningMessage] = []
        try:
            with postponed(warned):
                record = self._train(benchmark, row, seed)
        except Unavailable as reason:
            self.progress.skip(row, seed, str(reason))
            note["missing"] = [row.name, str(reason)]
            pytest.skip(printable(str(reason)))
        except InputError as error:
            failed(str(error))
            raise pytest.fail.Exception(str(error), pytrace=False) from None  # else pytest shows it twice
        except TrainingFailed as error:
            failed(str(error))
            if isinstance(error, ProcessDied) and self.make_cluster is None and not self.smoke:
                self.studies.runner(row).note(error, row, seed)
            if row.group == "control" and isinstance(error, TrainingDiverged):
                self.board.finish(key, diverged=str(error))
                pytest.skip(f"{error}: detected: training diverged")
            note["failed"] = [row.name, seed]
            request.node.user_properties += [("row", row.name), ("seed", seed), ("failed", str(error))]
            told = f"{error}\n\n{error.traceback}" if error.traceback else str(error)
            raise pytest.fail.Exception(told, pytrace=False) from None
        except BaseException as error:
            failed("interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
            raise
        if self.smoke:  # nothing is stored, and nobody but the terminal is told
            self.progress.pytest_cvhw4_run_end(row, seed, record, reused=False)
            if warning := issue(warned):
                pytest.fail(f"{warning} Warnings are errors here (-W error).", pytrace=False)
            self._smoked[key] = record
            return record
        path = self.studies.runner(row).store.path(record.row, record.seed, record.fingerprint)
        note["run"] = [record.row, record.seed, str(path)]
        request.node.user_properties += [(k, v) for k, v in extra_info(record).items() if v is not None]
        self.board.finish(key, path)
        reused = key not in self._trained
        self._trained.discard(key)
        if not reused:
            self.in_runs += time.monotonic() - began
        hook.pytest_cvhw4_run_end(config=self.config, row=row, seed=seed, record=record, reused=reused)
        benchmark.extra_info.update(extra_info(record), reused=reused)
        if warning := issue(warned):
            pytest.fail(
                f"{warning} Warnings are errors here (-W error); the run is finished and stored.", pytrace=False
            )
        return record

    def _train(self, benchmark: Any, row: Row, seed: int) -> RunRecord:
        """Trains one row in this process, or waits for another to do so."""
        if not self._submitted:
            self._submitted = True
            self._submit()
        key, executor = (row.study, row.name, seed), self.executor
        if executor is None or key in self._stored_before:
            runner = self.studies.runner(row)
            runner.prepare(row, seed)  # so that imports and decoding are not timed as training
            self._begin(row, seed)
            arguments = (row, seed, lambda epoch: self._epoch(row, seed, epoch), self.progress.wait)
            return benchmark.pedantic(runner.run, args=arguments, rounds=1, iterations=1)
        if key not in executor:  # asked for once more
            executor.submit([(self.studies.by_name[row.study], row, seed)])
        self._begin(row, seed)
        for epoch in [*self.progress.epochs[key]]:  # that were over before
            self._epoch(row, seed, epoch)
        clock = [0.0]

        def result() -> RunRecord:
            record, seconds = executor.result(row, seed, lambda event: self._event(event, row, seed))
            clock.append(seconds)
            return record

        benchmark._timer = lambda: clock[-1]  # a run's own seconds, not those that it was waited for
        return benchmark.pedantic(result, rounds=1, iterations=1)

    def _submit(self) -> None:
        """Gives the planned runs to the cluster, or those that need training to processes of this machine."""
        runs = {run: (self.studies.by_name[run[0]], row, run[2]) for run, row in self._planned.items()}
        if self.executor is None and (jobs := min(jobs_at_once(self.config), len(runs))) > 1:
            threads = threads_per_run(self.config, jobs)  # however many are stored: a run that goes on has as many
            self._stored_before = {run for run, (_, row, seed) in runs.items() if self.reuse and self._found(row, seed)}
            runs = {run: submitted for run, submitted in runs.items() if run not in self._stored_before}
            if runs:
                self.executor = self._pool(min(jobs, len(runs)), threads)
        if self.executor is not None:
            try:
                self.executor.submit(runs.values())
            except InputError as error:
                if self.make_cluster is not None:
                    raise
                self.collection.warned.append(f"runs are trained one at a time: {error}")
                self.collection.warn(self.collection.warned[-1:])
                self.executor.close()
                self.executor = None

    def _pool(self, jobs: int, threads: int | None) -> Executor:
        from cvhw4.executors.local import LocalPool

        def make(study: Study) -> Runner:
            return replace(self.studies.make_runner(study), threads=threads)

        return LocalPool(jobs, self.config.rootpath, make)

    def _found(self, row: Row, seed: int) -> bool:
        """Whether a run is stored; what hinders the search is told where its test looks for it."""
        with suppress(InputError, Unavailable), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.studies.runner(row).find(row, seed) is not None
        return False

    def _begin(self, row: Row, seed: int) -> None:
        images = self._images(row)
        self.config.hook.pytest_cvhw4_run_begin(config=self.config, row=row, seed=seed, images=images)

    def _images(self, row: Row) -> int | None:
        """How many images a row trains on; None where other processes have the data and this one has not, and of a
        training loop of the study's own."""
        if row.task.name == CUSTOM.name:
            return None
        try:
            count = len(self.studies.runner(row).data(row.task.name).train)
        except (InputError, Unavailable):
            if self.executor is None:
                raise
            return None
        corruption = row.corruption
        left_out = corruption.strength if corruption is not None and corruption.kind == "smaller training set" else 0.0
        return count - round(left_out * count)

    def _epoch(self, row: Row, seed: int, epoch: Epoch) -> None:
        self._trained.add((row.study, row.name, seed))
        self.config.hook.pytest_cvhw4_run_epoch(config=self.config, row=row, seed=seed, epoch=epoch)

    def _event(self, event: Event, row: Row, seed: int) -> None:
        """Something happened elsewhere, to the run that is waited for (of `row`) or to another."""
        if event.epoch is not None and (event.study, event.row, event.seed) == (row.study, row.name, seed):
            self._epoch(row, seed, event.epoch)
        else:
            self.progress.event(event)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begins with the imports of the processes that will train, beside what follows here."""
        several = len({key for item in items if (key := key_of(item)) is not None}) > 1
        if several and not (self.reuse or self.config.option.collectonly) and jobs_at_once(self.config) > 1:
            from cvhw4.executors.local import start_server

            try:
                start_server(networks=any(study.train is None for study in self.studies.by_name.values()))
            except InputError as error:
                raise pytest.UsageError(str(error)) from error

    def pytest_collection_finish(self) -> None:
        """Connects to the cluster where there is something for it to do, and tells what is planned."""
        if self.make_cluster is not None and self._planned and not self.config.option.collectonly:
            try:
                self.executor = self.make_cluster()
            except InputError as error:
                raise pytest.UsageError(str(error)) from error
        self.progress.plan(self._planned, lambda row: self.studies.runner(row).store)

    # Judging

    def outcome(self, claim: Claim, study: Study) -> Outcome:
        """What this session's runs, once they are finished, say of a claim of a study; all claims of the study are
        judged together, as on its page. Runs of it that the session did not select are taken from the store."""
        from cvhw4.statistics.intervals import OTHER_PICTURES
        from cvhw4.statistics.verdicts import judge_all

        claims = dict.fromkeys((*study.claims, claim))
        compared = {row for each in claims for row in each.rows}
        records = self.finished(
            [row for row in study.rows.values() if row.name in compared],
            [study.rows[name] for name in claim.rows if name in study.rows],
        )
        bounds = load(self.config, study)
        outcomes = judge_all(study, records, claims=tuple(claims), bounds=bounds)
        outcome = next((o for o in outcomes if o.claim == claim), None)
        having = {r.row for r in records}
        lacking = [r for r in records if r.row in claim.rows and claim.metric not in r.epochs[-1].figures]
        if outcome is None and lacking and having >= {*claim.rows}:
            there = ", ".join(lacking[0].metrics)
            told = f"not judged: runs of {lacking[0].row} have no {claim.metric}, but {there}. Fix: correct the claim"
            pytest.fail(f"{told}, or train them again.", pytrace=False)
        if outcome is None and claim.worse is None and any(r.row in claim.rows and r.data.embedded for r in records):
            pytest.skip("not judged: a claim about a figure on real data, which generated data cannot bear out")
        if outcome is None:
            self._not_judged(f"no seed has a run of {' and '.join(claim.rows)}", claim.rows, study)
        if outcome.verdict == OTHER_PICTURES:
            names = ", ".join(outcome.runs[claim.rows[0]][0].data.classes)
            told = f"the claim is about pictures of {', '.join(claim.classes)}, and {outcome.data} has {names}"
            pytest.skip(printable(f"not judged: {told}"))
        return outcome

    def _not_judged(self, why: str, rows: Sequence[str], study: Study) -> NoReturn:
        """Ends a test that has nothing to judge: skipped where its runs were tried in this session, and say why; else
        failed, as what nobody looked at is no pass."""
        tried = {name for (of, name, _) in self._planned if of == study.name}
        if absent := [name for name in dict.fromkeys(rows) if name not in tried]:
            pytest.fail(
                f"not judged: {why}. This session selects no run of {' and '.join(absent)}, and none is stored in "
                f"{self.studies.make_runner(study).store.folder} that was trained as it would be today. Fix: "
                f"{self._selecting(absent)}",
                pytrace=False,
            )
        pytest.skip(f"not judged: {why}")

    def _selecting(self, rows: Sequence[str]) -> str:
        """What selects these rows too: this session's command with a wider `-k`, if nothing else left them out."""
        option, here = self.config.option, self.config.invocation_params.dir
        seeds = [f"{row}-seed" for row in rows]
        others = ("markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise")
        folders = all((here / path).is_dir() for path in self.config.args)
        if not option.keyword or not folders or any(self.config.getoption(other, None) for other in others):
            return printable(f"select the rows too, or train them first: -k {shlex.quote(' or '.join(seeds))}")
        worker = getattr(self.config, "workerinput", None)
        given = iter(self.config.invocation_params.args if worker is None else worker["mainargv"][1:])
        command = ["pytest"]
        for argument in map(str, given):
            if argument == "-k":
                next(given, None)
            elif not argument.startswith("-k"):
                command.append(argument)
        return printable(shlex.join([*command, "-k", " or ".join([option.keyword, *seeds])]))

    def detected(self, control: Control, study: Study) -> list[str]:
        """What gives a control away in this session's runs, at the strength that has to be caught: bounds missed, or a
        training that diverged, in words; empty where nothing does."""
        from cvhw4.statistics.sensitivity import detect

        strength = control.strengths[0]
        row = control.of(study, strength)
        records = self.finished([row], [row])
        if diverged := self.board.diverged(row.study, row.name):
            return diverged
        found = detect(control, strength, study, records, load(self.config, study))
        if found is None:
            why = f"no bounds of {control.row} for its data" if records else f"no run of {row.name}"
            self._not_judged(why, [row.name] if not records else [], study)
        return list(found.missed)

    def beside(self, record: RunRecord) -> list[RunRecord]:
        """This session's other runs of a record's row, and stored ones that it did not select; none before all of the
        session's are over."""
        study = self.studies.by_name.get(record.study)
        row = study.rows.get(record.row) if study is not None else None
        planned = [run for run in self._planned if run[:2] == (record.study, record.row)]
        if row is None or not self.board.over(planned):
            return []
        return [r for r in self.finished([row], [row]) if r.seed != record.seed]

    def finished(self, rows: Sequence[Row], needed: Sequence[Row]) -> list[RunRecord]:
        """This session's runs of some rows, once they are over. With `--reuse`, and where the session did not select
        all runs of those rows that are needed (`--lf`, `-k`), stored ones that it would train alike are added."""
        warned: list[warnings.WarningMessage] = []
        with postponed(warned):
            paths = self._finished(rows, needed)
        if error := issue(warned):
            pytest.fail(f"{error} Warnings are errors here (-W error).", pytrace=False)
        return [RunRecord.from_json(path.read_text("utf-8"), path) for path in paths]

    def _finished(self, rows: Sequence[Row], needed: Sequence[Row]) -> list[Path]:
        """Where the records that `finished` returns lie."""
        names = {(row.study, row.name) for row in rows}
        wanted = [run for run in sorted(self._planned) if run[:2] in names]
        if self.is_worker and not self.board.wait(wanted):
            why = "no worker is left for its runs (one died, or --dist hands out whole files)"
            pytest.fail(f"not judged: {why}. Fix: repeat it with --reuse, or use --dist load.", pytrace=False)
        paths = self.board.records(wanted)
        partly = any((row.study, row.name, s) not in self._planned for row in needed for s in self.collection.seeds)
        if self.reuse or partly:
            paths += [path for row in rows for path in self._stored(row) if path not in paths]
        return paths

    def _stored(self, row: Row) -> list[Path]:
        """Finished runs of a row that this session did not select."""
        runner = self.studies.runner(row)
        seeds = [s for s in self.collection.seeds if (row.study, row.name, s) not in self._planned]
        with suppress(Unavailable):
            found = [r for seed in seeds if (r := runner.find(row, seed)) is not None]
            return [runner.store.path(r.row, r.seed, r.fingerprint) for r in found]
        return []

    # Reports, which xdist brings from its workers

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Puts what a run came to into the test's report, which xdist brings to its controller."""
        report = yield
        note = item.stash.get(_NOTE, {})
        key = key_of(item)
        report.cvhw4 = note | ({"key": list(key)} if key is not None else {})  # type: ignore[attr-defined]
        return report

    @pytest.hookimpl(tryfirst=True)  # a worker's run is reported before its dot
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collects what the tests bring, from all workers."""
        note: dict[str, Any] = getattr(report, "cvhw4", {})  # a test lost with its worker has none
        study = note.get("study", "")
        if study:
            self.trained.setdefault(study, Path(note["file"]))
        if "run" in note:
            row, seed, path = note["run"][0], note["run"][1], Path(note["run"][2])
            self.runs[study, row, seed] = path
            if hasattr(report, "node") and report.when == "call":
                with suppress(InputError, OSError):  # no more than a line hangs on it
                    record = RunRecord.from_json(path.read_text("utf-8"), path)
                    self.progress.report_run(record, report.duration)
        elif not report.passed and not self.is_worker and (key := self._key(report)) is not None:
            # Skipped, failed, or lost with its worker: nobody shall wait for it.
            self.progress.mark_lost(key)
            self.board.finish(key, overwrite=False)
        if "missing" in note:
            row, reason = note["missing"]
            self.missing[study, row] = reason
        if "failed" in note:
            row, seed = note["failed"]
            self.failed.add((study, row, seed))

    def _key(self, report: pytest.TestReport) -> Run | None:
        """The run of a test; of one that was lost with its worker by the end of its name."""
        if key := getattr(report, "cvhw4", {}).get("key"):
            return key[0], key[1], key[2]
        studies = {study.name for study in self.studies_of(self.config.rootpath / report.nodeid.partition("::")[0])}
        found = [run for run in self._planned if run[0] in studies and seed_in(report.nodeid, run[1]) == run[2]]
        return max(found, key=lambda run: len(run[1]), default=None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """A run that a progress line told of needs no dot."""
        note = getattr(report, "cvhw4", {})  # a collection error has none
        reported = tuple(note.get("key", ())) in self.progress.reported
        if reported and report.when == "call" and report.passed and self.config.option.verbose <= 0:
            return "passed", "", "PASSED"  # with a word pytest counts it in the percentage that it shows
        return None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """A worker of xdist has collected the tests: this process, which collects none, learns what is planned."""
        if self._planned:
            return
        for id in ids:
            if "-seed" not in id:
                continue
            for study in self.studies_of(self.config.rootpath / id.partition("::")[0]):
                if study.name not in self.studies.by_name:  # no test is marked with it
                    continue
                rows = (*study.rows.values(), *study.in_group("control"))
                named = [row for row in rows if seed_in(id, row.name) is not None]
                if named:  # "b" is in the name of a test of "a-b" too
                    row = max(named, key=lambda row: len(row.name))
                    self._planned[study.name, row.name, seed_in(id, row.name) or 0] = row
        self.pytest_collection_finish()

    def studies_of(self, file: Path) -> list[Study]:
        """The studies that a file of tests makes, imported here where it is not yet; none where that fails."""
        if file not in self._files:
            self._files[file] = []
            with suppress(Exception):  # the workers tell what is wrong with it
                from cvhw4.discovery import studies_in

                assert self._session is not None
                module = pytest.Module.from_parent(self._session, path=file).obj
                self._files[file] = studies_in(module, self.studies.named)
        return self._files[file]

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remembers the session, below which files are imported."""
        self._session: pytest.Session | None = session
        self._files: dict[Path, list[Study]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Ends what other processes still train, and removes the notes that workers left each other."""
        if self.executor is not None:
            self.executor.close()
        if not self.is_worker:
            self.board.remove()


@contextmanager
def postponed(warned: list[warnings.WarningMessage]) -> Iterator[None]:
    """Keeps warnings for `issue`: where `-W error` makes errors of them, none ends a training or loses its record."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once for each place: a training could give the same one at every step
        try:
            yield
        finally:
            warned += caught


def issue(warned: Iterable[warnings.WarningMessage]) -> Warning | None:
    """Gives warnings that were kept to the filters of the session; the first that is an error there."""
    error = None
    for w in warned:
        names = (name for name, module in [*sys.modules.items()] if getattr(module, "__file__", None) == w.filename)
        try:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno, module=next(names, None))
        except Warning as raised:
            error = error or raised
    return error


def extra_info(record: RunRecord) -> dict[str, Any]:
    """What pytest-benchmark stores beside its timing, as plain JSON values."""
    figures = [f"{which} {metric}" for metric in record.metrics for which in ("best", "last")]
    return {
        "row": record.row,
        "seed": record.seed,
        "study": record.study,
        "fingerprint": record.fingerprint,
        "data": record.data.name,
        "weights": record.weights.origin,
        "device": record.environment["device_name"],
        "train_seconds": record.times.train_seconds,
        "evaluate_seconds": record.times.evaluate_seconds,
        "images_per_second": record.times.images_per_second or None,
        "peak_memory_bytes": record.times.peak_memory_bytes,
        **{name: record.figure(name) for name in figures},
    }
