"""pytest on top of a study: options, parametrisation, fixtures, progress, and tables at the end.

Loaded by `pytest_plugins = ["cvhw4.pytest_plugin"]` in a root conftest.py. A test that takes `experiment` and `seed`
and is marked `question("q1")` is run for every row of that question and every seed (`group="extra"`: of that group
of rows), one marked `controls` for every negative control, one marked `ablation(a)` for every row of a user's own
`cvhw4.Ablation`. One that takes `claim` is run for every claim (of the ablation it is marked with, or of the report),
one that takes `control` for every control that has to be caught, both after all runs. Nothing heavy is imported before
the first test runs, or an own ablation's pictures are checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from cvhw4.ablation import Ablation
from cvhw4.errors import (
    DataUnavailable,
    InputError,
    TrainingDiverged,
    TrainingFailed,
    WeightsUnavailable,
    printable,
)
from cvhw4.experiments import PROFILES, Experiment, Profile
from cvhw4.live import Progress
from cvhw4.study import Study
from cvhw4.trackers import TRACKERS, Trackers, check_trackers

if TYPE_CHECKING:
    from cvhw4.claims import Claim
    from cvhw4.cluster import Cluster, Event
    from cvhw4.controls import Control
    from cvhw4.records.schema import Epoch, RunRecord
    from cvhw4.records.store import Store
    from cvhw4.statistics.bounds import Bounds
    from cvhw4.statistics.verdicts import Outcome

_RUN_ID = re.compile(r"\[([\w.+-]+-seed\d+)\]$")  # how a run's test ends
PATIENCE = 0.2  # seconds between looks at what other workers have finished
_RUN: pytest.StashKey[dict[str, Any]] = pytest.StashKey()  # what a test's run came to, for the session's summary
GIVE_UP = 20.0  # seconds without any worker at a run, after which what is waited for will not come


def pytest_addoption(parser: pytest.Parser) -> None:
    """The study's options."""
    group = parser.getgroup("cvhw4", "ablation study")
    sizes = sorted(name for name, profile in PROFILES.items() if not profile.own)
    group.addoption("--profile", choices=sizes, default="quick", help="size of the report's rows (default: quick)")
    group.addoption("--seeds", type=int, default=3, metavar="N", help="runs of each row, seeds 0 to N-1 (default: 3)")
    group.addoption("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to train (default: auto)")
    group.addoption(
        "--precision",
        choices=["auto", "float32", "bf16"],
        default="auto",
        help="what networks compute in (default: auto, bf16 on CUDA where it helps)",
    )
    group.addoption("--cuda-graphs", action="store_true", help="on CUDA, replay optimizer steps as CUDA graphs")
    group.addoption(
        "--portraits", type=Path, metavar="DIR", help="Q1 on DIR/{train,val}/<class>/ instead of embedded data"
    )
    group.addoption("--camvid", type=Path, metavar="DIR", help="Q2 on a CamVid folder instead of embedded data")
    group.addoption("--weights", type=Path, metavar="DIR", help="look here first for pretrained weights")
    group.addoption(
        "--results", type=Path, metavar="DIR", help="records and tables go to DIR/<profile> (default: results)"
    )
    group.addoption(
        "--reuse", action="store_true", help="take finished runs from --results, and go on with unfinished ones"
    )
    group.addoption("--deterministic", action="store_true", help="on CUDA, the same bits each time")
    group.addoption(
        "--checkpoint-seconds",
        type=float,
        metavar="S",
        help="keep unfinished runs after every epoch and every S seconds; 0: never (default: 60, and so seldom that it "
        "takes at most 1%% of the time)",
    )
    group.addoption(
        "--threads", type=int, metavar="N", help="threads of each run on a CPU (default: all, shared among -n)"
    )
    group.addoption(
        "--executor", choices=["local", "ray"], default="local", help="where runs are trained (default: local)"
    )
    group.addoption(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="train every Nth run alone, from the Ith on, and judge no claim: N sessions at once share a GPU, and one "
        "with --reuse after them judges",
    )
    group.addoption("--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: one of this machine alone)")
    group.addoption("--tensorboard", metavar="DIR", help="log runs there, for tensorboard --logdir DIR")
    group.addoption("--mlflow", metavar="URI", help="log runs to an MLflow server, or a folder (file:DIR)")
    group.addoption("--wandb", metavar="PROJECT", help="log runs to Weights & Biases (WANDB_MODE=offline: to ./wandb)")
    group.addoption("--bounds", type=Path, metavar="FILE", help="calibrated bounds (default: benchmarks/bounds.toml)")


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options; a session that runs no experiment pays for nothing else."""
    config.addinivalue_line(
        "markers", "question(name, group): trains the rows of a question, q1 or q2, with every seed"
    )
    config.addinivalue_line("markers", "ablation(a): trains the rows of a cvhw4.Ablation with every seed")
    config.addinivalue_line("markers", "controls: trains every negative control with every seed")
    try:
        _check_options(config)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error
    number, workers = _place_among_workers(config)
    study = Study(
        profile=config.getoption("profile"),
        device=config.getoption("device"),
        precision=config.getoption("precision"),
        cuda_graphs=config.getoption("cuda_graphs"),
        portraits=config.getoption("portraits"),
        camvid=config.getoption("camvid"),
        weights=config.getoption("weights"),
        results=config.getoption("results") or config.rootpath / "results",
        reuse=config.getoption("reuse"),
        deterministic=config.getoption("deterministic"),
        checkpoint_seconds=config.getoption("checkpoint_seconds"),
        threads=divided_threads(workers) if config.getoption("threads") is None else config.getoption("threads"),
        worker=number,
    )
    config.pluginmanager.register(StudyPlugin(config, study), "cvhw4-study")


def _check_options(config: pytest.Config) -> None:
    """Finds what is wrong with the options by themselves.

    Raises:
        InputError: a value that makes no sense, or two options that exclude each other.
    """
    seeds, workers = config.getoption("seeds"), config.getoption("numprocesses", None)
    if seeds < 1:
        raise InputError(f"--seeds {seeds}", "leaves no run of a row", "give --seeds 1 or more")
    part, parts = config.getoption("part")
    if not 1 <= part <= parts:
        raise InputError(f"--part {part}/{parts}", "is no part", "give --part 1/N to N/N")
    if parts > 1 and (workers or config.getoption("executor") == "ray"):
        raise InputError(f"--part {part}/{parts}", "cannot go with -n or --executor ray", "leave one of them out")
    if config.getoption("executor") == "ray" and workers:
        raise InputError("--executor ray", f"cannot go with -n {workers}", "leave -n out: Ray starts its own processes")
    if config.getoption("ray_address") and config.getoption("executor") != "ray":
        raise InputError("--ray-address", "is given without --executor ray", "add --executor ray")
    if config.getoption("dist", "no") == "worksteal":
        # A worker that waits with a claim could be handed a run behind it that the claim waits for.
        raise InputError("--dist worksteal", "breaks the order of runs and claims", "use --dist load")
    check_trackers({name: config.getoption(name) for name in TRACKERS})


def _place_among_workers(config: pytest.Config) -> tuple[int, int]:
    """Which of pytest-xdist's workers, or of the sessions of `--part`, this process is, from 0, and how many there are;
    0 and 0 where it is alone."""
    worker, (part, parts) = getattr(config, "workerinput", None), config.getoption("part")
    if worker is not None:
        return int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    return (part - 1, parts) if parts > 1 else (0, 0)


def _part(text: str) -> tuple[int, int]:
    """Reads "2/5"; raises ValueError for what is not like that."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def divided_threads(workers: int) -> int | None:
    """How many of the cores that this process may use each of so many workers gets; None where torch may decide."""
    if not workers or "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


class StudyPlugin:
    """What a session knows of its runs."""

    def __init__(self, config: pytest.Config, study: Study) -> None:
        self.config, self.study = config, study
        self.profile = PROFILES[study.profile]
        self.seeds = range(config.getoption("seeds"))
        self.runs: dict[tuple[str, int], Path] = {}  # records of this session, as the reports bring them
        self.missing: dict[str, str] = {}  # rows that were skipped, and why
        self.planned: dict[tuple[str, int], Experiment] = {}
        self.asked: dict[str, str] = {}  # profiles that collected tests are for, before `-k`, and the ids of their rows
        self.trained: dict[str, Path] = {}  # profiles of which a row was to be trained, and a file with its tests
        self.failed: set[tuple[str, int]] = set()  # runs that began and could not be finished
        self.warned: list[str] = []  # what is odd about the user's data
        self.unusable = ""  # what is wrong with an own ablation's data, as a worker of xdist found
        self.cluster: Cluster | None = None
        self.session: pytest.Session | None = None
        self.submitted = False  # whether the cluster has the runs
        self.began, self.in_runs = time.monotonic(), 0.0  # seconds: when the session began, and what its runs took
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        # xdist hands its workers this name, and takes it from the option where that is set.
        session = worker["testrunuid"] if worker is not None else config.getoption("testrunuid", None) or uuid4().hex
        config.option.testrunuid = session
        self.notes = Notes(Path(tempfile.gettempdir()) / f"cvhw4-session-{session}")
        self.progress = Progress(config)
        self.trackers = Trackers({name: config.getoption(name) for name in TRACKERS})

    def study_of(self, experiment: Experiment) -> Study:
        """How a row is run: with the session's options, as one of its profile."""
        return replace(self.study, profile=experiment.profile)

    def store_of(self, experiment: Experiment) -> Store:
        """Where a row's runs are stored."""
        return self.study_of(experiment).store

    def profile_of(self, item: pytest.Item | pytest.Collector) -> Profile:
        """The profile of a test's rows and claims: of the ablation it is marked with, or the session's."""
        marker = item.get_closest_marker("ablation")
        if marker is None:
            return self.profile
        if len(marker.args) != 1 or not isinstance(marker.args[0], Ablation) or marker.kwargs:
            mend = "mark it with pytest.mark.ablation(a), a being a cvhw4.Ablation"
            raise InputError(item.nodeid, "is marked with an ablation that is none", mend)
        return marker.args[0].profile

    def bounds(self, profile: Profile | None = None) -> Bounds:
        """A profile's bounds, the session's where none is given; none for an own ablation, nor where the project has no
        bounds file (yet) and none was named."""
        from cvhw4.statistics.bounds import NO_BOUNDS, load_bounds

        if profile is not None and profile.own:
            return NO_BOUNDS
        named = self.config.getoption("bounds")
        path = named or self.config.rootpath / "benchmarks" / "bounds.toml"
        if not named and not path.exists():
            return NO_BOUNDS
        return load_bounds(path, self.study.profile, named=bool(named))

    # Collection

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Rows and seeds, or claims, as parameters."""
        rows = self._trained_by(metafunc.definition)
        if rows and {"experiment", "seed"} <= set(metafunc.fixturenames) - _parametrised(metafunc.definition):
            cases = [pytest.param(row, seed, id=f"{row.id}-seed{seed}") for row in rows for seed in self.seeds]
            metafunc.parametrize(("experiment", "seed"), cases)
            self._note_rows(metafunc.definition)
        if _asks_for("claim", metafunc):
            from cvhw4.claims import claims_of

            profile = self.profile_of(metafunc.definition)
            nightly = {row.row for row in profile.rows if row.group == "report"}
            claims = [claim for claim in claims_of(profile) if nightly.issuperset(claim.rows)]
            metafunc.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in claims])
            self._note_rows(metafunc.definition)
        if _asks_for("control", metafunc):
            from cvhw4.controls import CONTROLS

            metafunc.parametrize("control", [pytest.param(control, id=control.name) for control in CONTROLS])
            self._note_rows(metafunc.definition)

    def _note_rows(self, item: pytest.Item | pytest.Collector) -> None:
        """Remembers what could have been selected."""
        profile = self.profile_of(item)
        name = f"{'ablation' if profile.own else 'profile'} {profile.name}"
        self.asked[name] = ", ".join(row.id for row in profile.rows)
        if self.is_worker:
            self.config.workeroutput["cvhw4_asked"] = self.asked  # type: ignore[attr-defined]

    def _trained_by(self, item: pytest.Item | pytest.Collector) -> Sequence[Experiment]:
        """The rows, or negative controls, that a test is marked to train."""
        question, controls = item.get_closest_marker("question"), item.get_closest_marker("controls")
        if controls is not None:
            from cvhw4.controls import CONTROLS

            return [c.experiment(self.profile, strength) for c in CONTROLS for strength in c.strengths]
        if question is not None and question.args[:1] in (("q1",), ("q2",)):  # else it is a mark of the user's own
            return self.profile.of(question.args[0], question.kwargs.get("group", "report"))
        profile = self.profile_of(item)
        return profile.rows if profile.own else ()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """An ablation that does not fit together is one error, without a traceback."""
        report = yield
        call: pytest.CallInfo[Any] | None = getattr(report, "call", None)
        if call is not None and call.excinfo is not None and isinstance(call.excinfo.value, InputError):
            if not self.is_worker:
                raise pytest.UsageError(str(call.excinfo.value))
            report.longrepr = str(call.excinfo.value)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Claims and controls are judged last, whatever else sorts the tests: they need the runs, on this worker or
        another. Own ablations that are left after `-k` and the like are checked."""
        from cvhw4.claims import Claim
        from cvhw4.controls import Control

        yield
        items.sort(key=lambda item: any(isinstance(p, Claim | Control) for p in _parameters(item).values()))
        self._leave_to_others(items)
        runs = (run for item in items if (run := _run_of(item)) is not None)
        own = dict.fromkeys(experiment.profile for experiment, _ in runs if PROFILES[experiment.profile].own)
        if self.config.option.collectonly:
            return
        try:
            for profile in own:
                self.noting_warnings(replace(self.checked_study, profile=profile).check)
        except InputError as error:
            if not self.is_worker:
                raise pytest.UsageError(str(error)) from error
            items.clear()  # its controller tells of it, see `pytest_testnodedown`
            self.config.workeroutput["cvhw4_unusable"] = str(error)  # type: ignore[attr-defined]

    def _leave_to_others(self, items: list[pytest.Item]) -> None:
        """Deselects what is not this session's with `--part`."""
        part, parts = self.config.getoption("part")
        if parts > 1:
            ours = [item for item in items if _run_of(item) is not None][part - 1 :: parts]
            self.config.hook.pytest_deselected(items=[item for item in items if item not in ours])
            items[:] = ours

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist is done."""
        output = getattr(node, "workeroutput", {})
        self.unusable = output.get("cvhw4_unusable", self.unusable)
        self.asked |= output.get("cvhw4_asked", {})

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remembers what will be run, after `-k` and the like."""
        for item in session.items:
            if (run := _run_of(item)) is not None:
                experiment, seed = run
                self.planned[experiment.id, seed] = experiment
        self.progress.plan(self.planned, self.store_of)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Checks the user's input before anything is trained."""
        self.session = session
        if self.is_worker or self.config.option.collectonly:
            return
        try:
            self.noting_warnings(self.check)
            self.bounds()
        except InputError as error:
            raise pytest.UsageError(str(error)) from error

    def noting_warnings(self, check: Callable[[], None]) -> None:
        """Calls a check, and shows what it warns of.

        Raises:
            InputError: as the check.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            check()
        found = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        self.warned += found
        self.warn(found)

    @property
    def checked_study(self) -> Study:
        """What can be checked here: a cluster's nodes compute, so that this machine's device does not matter then."""
        ray = self.config.getoption("executor") == "ray"
        return replace(self.study, device="auto", precision="auto") if ray else self.study

    def check(self) -> None:
        """Checks what the user gave, and connects to the cluster if there is one.

        Raises:
            InputError: something unusable.
        """
        self.checked_study.check()
        if self.config.getoption("executor") != "ray":
            return
        from cvhw4.cluster import Cluster

        address = self.config.getoption("ray_address")
        self.cluster = Cluster(self.study, address, self.study.threads, self.config.rootpath)

    def warn(self, warned: Sequence[str]) -> None:
        """Shows what is odd about the user's data, in a line each."""
        reporter: pytest.TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            for message in warned:
                reporter.write_line(f"warning: {printable(message)}", yellow=True)

    # Running

    def run(self, request: pytest.FixtureRequest, benchmark: Any, experiment: Experiment, seed: int) -> RunRecord:
        """Trains one row through pytest-benchmark; skips, with the reason in the tables, where it cannot run at all."""
        note = request.node.stash.setdefault(_RUN, {"profile": experiment.profile, "file": str(request.node.path)})
        benchmark.group = experiment.profile + " " + experiment.question
        name = f"{experiment.id}-seed{seed}"
        self.progress.begin(experiment, seed)
        self.notes.begin(name)
        began = time.monotonic()
        try:
            record = self.train(benchmark, experiment, seed)
        except (WeightsUnavailable, DataUnavailable) as reason:
            self.progress.drop(f"skipped: {reason}")
            note["missing"] = [experiment.id, str(reason)]
            pytest.skip(printable(str(reason)))
        except InputError as error:
            self.progress.drop("failed: unusable input")
            self.trackers.failed(str(error))
            pytest.fail(str(error), pytrace=False)
        except TrainingFailed as failed:
            self.progress.drop(f"failed: {failed}", whole=True)
            self.trackers.failed(str(failed))
            if experiment.group == "control" and isinstance(failed, TrainingDiverged):
                self.notes.write(name, None, diverged=str(failed))
                pytest.skip(f"{failed}: noticed without any bound")
            note["failed"] = [experiment.id, seed]
            request.node.user_properties += [("row", experiment.id), ("seed", seed), ("failed", str(failed))]
            pytest.fail(str(failed), pytrace=False)
        except BaseException as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}"
            self.progress.drop(why)
            self.trackers.failed(why)
            raise
        path = self.study_of(experiment).store.path(record.id, record.seed, record.fingerprint)
        note["run"] = [record.id, record.seed, str(path)]
        request.node.user_properties += [(k, v) for k, v in extra_info(record).items() if v is not None]
        self.notes.write(name, path)
        if self.progress.epochs:
            self.in_runs += time.monotonic() - began
            self.trackers.end(record)
        self.progress.end(record)
        benchmark.extra_info.update(extra_info(record), reused=self.progress.epochs == 0)
        return record

    def train(self, benchmark: Any, experiment: Experiment, seed: int) -> RunRecord:
        """Trains one row in this process, or waits for the cluster to do so (which benchmark does not time: a cluster
        trains several at once)."""
        if self.cluster is not None:
            if not self.submitted:
                self.submitted = True
                self.cluster.submit([(row, seed) for (_, seed), row in self.planned.items()])
            benchmark.disabled = True
            self.trackers.begin(experiment, seed, partial(self.images, experiment))
            watch = partial(self.cluster.result, experiment, seed, self._event)
            return benchmark.pedantic(watch, rounds=1, iterations=1)
        study = self.study_of(experiment)
        study.prepare(experiment, seed)  # so that imports and decoding are not timed as training
        self.progress.images = self.images(experiment)
        self.trackers.begin(experiment, seed, partial(self.images, experiment))
        arguments = (experiment, seed, self._epoch, self.progress.wait)
        return benchmark.pedantic(study.run, args=arguments, rounds=1, iterations=1)

    def images(self, experiment: Experiment) -> int:
        """How many images a row trains on."""
        count = len(self.study_of(experiment).data(experiment.question).train)
        spoilt = experiment.sabotage
        left_out = spoilt.strength if spoilt is not None and spoilt.kind == "smaller training set" else 0.0
        return count - round(left_out * count)

    def _epoch(self, epoch: Epoch) -> None:
        self.progress.epoch(epoch)
        self.trackers.epoch(epoch)

    def _event(self, event: Event) -> None:
        self.progress.event(event)
        if event.epoch is not None and (event.id, event.seed) == self.progress.run:
            self.trackers.epoch(event.epoch)

    def outcome(self, claim: Claim, profile: Profile) -> Outcome:
        """Judges a claim of a profile on this session's runs, once they are finished: one of the report's by itself,
        one of an own ablation together with all of its claims."""
        from cvhw4.statistics.verdicts import judge, judge_all

        rows = [row for row in profile.rows if row.row in claim.rows]
        if profile.own:  # its claims are judged together, as on its page
            claims = dict.fromkeys((*(profile.claims or ()), claim))
            compared = {row for each in claims for row in each.rows}
            records = self.finished([row for row in profile.rows if row.row in compared])
            outcomes = judge_all(replace(profile, claims=tuple(claims)), records)
            outcome = next((o for o in outcomes if o.claim == claim), None)
        else:
            records = self.finished(rows)
            outcome = judge(claim, records)
        if outcome is None and claim.worse is None and records:
            pytest.skip("not judged: a claim about a figure on the report's data, which embedded data cannot bear out")
        if outcome is None:
            names = " and ".join(row.id for row in rows)
            pytest.skip(f"not judged: no seed of this session has a run of {names}; select them too, or --reuse")
        return outcome

    def noticed(self, control: Control) -> list[str]:
        """What gives a control away in this session's runs, at the strength that has to be caught: bounds missed, or a
        training that diverged, in words; empty where nothing does."""
        from cvhw4.statistics.sensitivity import detect

        strength = control.strengths[0]
        experiment = control.experiment(self.profile, strength)
        records = self.finished([experiment])
        if diverged := self.notes.diverged(experiment.id):
            return diverged
        found = detect(control, strength, self.profile, records, self.bounds())
        if found is None:
            pytest.skip(f"not judged: no run of {experiment.id} on embedded data in this session, or no bounds for it")
        return [str(check) for check in found.missed]

    def finished(self, rows: Sequence[Experiment]) -> list[RunRecord]:
        """This session's runs of some rows, once they are over; with `--reuse` stored ones of other seeds as well."""
        from cvhw4.records.schema import RunRecord

        ids = {row.id for row in rows}
        wanted = [f"{id}-seed{seed}" for id, seed in sorted(self.planned) if id in ids]
        if self.is_worker and not self.notes.wait(wanted):
            pytest.skip(
                "not judged: no worker is left for its runs (one died, or --dist hands out whole files): --reuse"
            )
        paths = self.notes.read(wanted)
        if self.study.reuse:
            paths += [path for row in rows for path in self._stored(row) if path not in paths]
        return [RunRecord.from_json(path.read_text("utf-8"), path) for path in paths]

    def _stored(self, row: Experiment) -> list[Path]:
        """Finished runs of a row that this session did not select, for `--reuse`."""
        study = self.study_of(row)
        found = (study.find(row, seed) for seed in self.seeds if (row.id, seed) not in self.planned)
        return [study.store.path(r.id, r.seed, r.fingerprint) for r in found if r is not None]

    # Telling

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Puts what a run came to into the test's report, which xdist brings to its controller."""
        report = yield
        report.cvhw4 = item.stash.get(_RUN, {})  # type: ignore[attr-defined]
        return report

    @pytest.hookimpl(tryfirst=True)  # a worker's run is told of before its dot
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collects what the tests bring, from all workers."""
        note: dict[str, Any] = getattr(report, "cvhw4", {})  # a test lost with its worker has none
        if note:
            self.trained.setdefault(note["profile"], Path(note["file"]))
        if "run" in note:
            row, seed, path = note["run"]
            self.runs[row, seed] = Path(path)
            if hasattr(report, "node") and report.when == "call":
                self.tell(Path(path), report.duration)
        elif not report.passed and not self.is_worker and (run := _RUN_ID.search(report.nodeid)):
            # Skipped, failed, or lost with its worker: nobody shall wait for it.
            id, _, seed = run[1].rpartition("-seed")
            self.progress.lose((id, int(seed)))
            self.notes.write(run[1], None, again=False)
        if "missing" in note:
            row, reason = note["missing"]
            self.missing[row] = reason
        if "failed" in note:
            self.failed.add(tuple(note["failed"]))

    def tell(self, path: Path, seconds: float) -> None:
        """Tells of a run that a worker finished in so many seconds."""
        from cvhw4.records.schema import RunRecord

        with suppress(OSError, InputError):  # the tables will say so
            self.progress.report(RunRecord.from_json(path.read_text("utf-8"), path), seconds)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """With xdist the workers know which runs there will be, and alone have imported own ablations."""
        from cvhw4.controls import CONTROLS

        rows = [*self.profile.rows, *(c.experiment(self.profile, s) for c in CONTROLS for s in c.strengths)]
        by_id = {row.id: row for row in rows} | self.own_rows
        runs = [(id.partition("::")[0], *run[1].rpartition("-seed")) for id in ids if (run := _RUN_ID.search(id))]
        for file in dict.fromkeys(file for file, row, _, _ in runs if row not in by_id):
            with suppress(Exception):  # no more than a line per run hangs on it
                self.import_tests(self.config.rootpath / file)
        by_id |= self.own_rows
        self.progress.plan({(row, int(seed)): by_id[row] for _, row, _, seed in runs if row in by_id}, self.store_of)

    @property
    def own_rows(self) -> dict[str, Experiment]:
        """The rows of own ablations that this process knows, by id."""
        return {row.id: row for profile in PROFILES.values() if profile.own for row in profile.rows}

    def import_tests(self, file: Path) -> None:
        """Imports a file of tests, and so makes its ablations known here."""
        if self.session is not None:
            _ = pytest.Module.from_parent(self.session, path=file).obj

    def pytest_enter_pdb(self) -> None:
        """The terminal is the debugger's."""
        self.progress.hold()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """A run that was told of by a progress line needs no dot."""
        run = getattr(report, "cvhw4", {}).get("run", ())  # a collection error has none
        told = tuple(run[:2]) in self.progress.told_of
        if told and report.when == "call" and report.passed and self.config.option.verbose <= 0:
            return "passed", "", ""
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """The comparison tables of this session, and where the page with all runs is; what cannot be written or read
        any more is one line, and an exit code that is not 0."""
        error: InputError | str = self.unusable
        try:
            self.summarise(terminalreporter, exitstatus)
        except InputError as found:
            error = found
        if error:
            terminalreporter.write_line(f"ERROR: {error}", red=True)
            fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
            if exitstatus in fine and self.session is not None:
                self.session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def summarise(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Writes the tables, on the terminal and into the results folder.

        Raises:
            InputError: a page cannot be written, or a record or the bounds cannot be read.
        """
        from cvhw4.report.text import wrapped

        keyword = self.config.option.keyword
        if keyword and self.asked and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            rows = " ".join(f"Rows of {name}: {ids}." for name, ids in self.asked.items())
            terminalreporter.write_line(wrapped(f"-k {printable(keyword)} selects nothing. {rows}"))
        if not self.runs and not self.missing and not self.failed:
            return
        self.warn(self.warned)
        if self.config.getoption("part")[1] > 1:
            terminalreporter.write_line("a part of a study: its tables are written by a session with --reuse alone")
            return
        from cvhw4.records.schema import RunRecord

        records = [RunRecord.from_json(path.read_text("utf-8"), path) for path in self.runs.values()]
        pages = []
        for name, file in self.trained.items():
            if name not in PROFILES:  # xdist's workers alone have imported it
                self.import_tests(file)
            profile = PROFILES[name]
            pages += self.summarise_profile(terminalreporter, profile, [r for r in records if r.profile == name])
        if self.in_runs and self.cluster is None:  # not with xdist, whose workers train
            wall = time.monotonic() - self.began
            outside = wall - self.in_runs
            terminalreporter.write_line(
                f"\noutside of the runs (start, data, records, tables): {outside:.1f} s of {wall:.0f} s,"
                f" {100 * outside / wall:.1f} %"
            )
        terminalreporter.write_line("")
        for page, what in pages:
            terminalreporter.write_line(f"{what}: {page}")

    def summarise_profile(
        self, terminalreporter: pytest.TerminalReporter, profile: Profile, records: list[RunRecord]
    ) -> list[tuple[Path, str]]:
        """Writes the tables of one profile; the pages, and what they are.

        Raises:
            InputError: as `summarise`.
        """
        from cvhw4.report.failures import latest_failures
        from cvhw4.report.page import write_html, write_report
        from cvhw4.report.stored import Stored
        from cvhw4.report.tables import by_data, origins, plain, short_claims, short_detections, summary
        from cvhw4.report.text import cut, wrapped
        from cvhw4.statistics.sensitivity import detections
        from cvhw4.statistics.verdicts import judge_all

        bounds, store = self.bounds(profile), replace(self.study, profile=profile.name).store
        terminalreporter.section(f"ablation study, {'' if profile.own else 'profile '}{profile.name}")
        rows = {row.id for row in profile.rows}
        failed = (f for f in store.failures() if f.id in rows and (f.id, f.seed) in self.failed)
        failures = latest_failures(records, failed)
        for data, groups in by_data([r for r in records if r.id in rows], failures).items():
            terminalreporter.write_line(cut(printable(data), 80))
            of_data = [f for f in failures if f.data == data]
            terminalreporter.write_line(plain(summary(groups, profile.rows, bounds, of_data, tuple(profile.metrics))))
            for line in origins(groups):
                terminalreporter.write_line(wrapped(line))
            if groups and not profile.own and not any(r.data.embedded for runs in groups.values() for r in runs):
                terminalreporter.write_line("bounds are calibrated on embedded data: these rows are not judged")
            terminalreporter.write_line("")
        noticed = detections(profile, records, bounds)
        if noticed:
            terminalreporter.write_line(f"negative controls, in sessions of {bounds.seeds} seeds")
            terminalreporter.write_line(plain(short_detections(noticed)))
            terminalreporter.write_line("")
        outcomes = judge_all(profile, records)
        if outcomes:
            terminalreporter.write_line(f"claims, {len(outcomes)} judged together (Holm)")
            terminalreporter.write_line(plain(short_claims(outcomes)))
        for id, reason in self.missing.items():
            if id in rows:
                terminalreporter.write_line(wrapped(f"{id} skipped: {printable(reason)}"))
        stored = Stored(profile, store)
        pages = [(write_report(profile, store, bounds, self.missing, stored), "tables of all stored runs")]
        if any(outcome.difference.n > 1 for outcome in outcomes) or (store.folder / "verdicts.md").exists():
            from cvhw4.report.verdicts import write_verdicts

            try:
                whose = "the" if profile.own else "the report's"
                what = f"what they say of {whose} claims, and how sure"
                pages.append((write_verdicts(profile, store, bounds, stored), what))
            except Exception as error:  # the runs are stored and told of; a page shall not turn their session red
                warnings.warn(f"verdicts.md is not written: {error!r}. `cvhw4 report` tries again.", stacklevel=1)
        try:
            page = write_html(store.folder)
            pages.append((page, "all of it as a page to read, with pictures"))
        except Exception as error:  # likewise
            warnings.warn(f"report.html is not written: {error!r}. `cvhw4 report` tries again.", stacklevel=1)
        return pages

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Leaves the cluster, and removes the notes that workers left each other."""
        self.progress.close()
        self.trackers.close()
        if self.cluster is not None:
            self.cluster.close()
        if not self.is_worker:
            self.notes.remove()


class Notes:
    """What has become of the runs of a session, for tests on this worker and on others.

    Args:
        folder: where the workers of a session leave each other notes; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: str) -> None:
        """Notes that a worker is at a run ("q1_2-finetune-seed0")."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{run}.begun").touch()

    def write(self, run: str, record: Path | None, diverged: str = "", *, again: bool = True) -> None:
        """Notes that a run is over.

        Args:
            record: where its record lies, if it has one.
            diverged: how its training diverged, if it did.
            again: whether to write over a note that is there.
        """
        from cvhw4.records.store import write_atomically

        note = self.folder / f"{run}.json"
        if again or not note.exists():
            content = {"record": str(record.resolve()) if record else None, "diverged": diverged}
            write_atomically(note, json.dumps(content))

    def wait(self, runs: list[str]) -> bool:
        """Whether these runs are over; waits for those that are not, as long as any worker is at a run at all.

        Claims come last in every worker's list, so a run that is waited for is as a rule in another worker's hands, and
        ahead of any claim there. But a crashed worker's runs go to the end of another's list, and some ways of --dist
        hand claims out first: then nobody is at a run, and waiting would not end.
        """
        idle_since = None
        while not all((self.folder / f"{run}.json").exists() for run in runs):
            if any(not begun.with_suffix(".json").exists() for begun in self.folder.glob("*.begun")):
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > GIVE_UP:
                return False
            time.sleep(PATIENCE)
        return True

    def read(self, runs: list[str]) -> list[Path]:
        """The records of those of these runs that have one by now."""
        noted = self._read(self.folder / f"{run}.json" for run in runs)
        return [Path(note["record"]) for note in noted if note["record"] is not None]

    def diverged(self, id: str) -> list[str]:
        """How a row's runs diverged, those that did."""
        return [note["diverged"] for note in self._read(self.folder.glob(f"{id}-seed*.json")) if note["diverged"]]

    @staticmethod
    def _read(paths: Iterable[Path]) -> list[dict[str, Any]]:
        return [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]

    def remove(self) -> None:
        """Throws the notes away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def extra_info(record: RunRecord) -> dict[str, Any]:
    """What pytest-benchmark stores beside its timing, as plain JSON values."""
    figures = {
        f"{which} {metric}": record.figure(f"{which} {metric}")
        for metric in record.epochs[-1].figures
        if metric != "loss"
        for which in ("best", "last")
    }
    return {
        "row": record.id,
        "seed": record.seed,
        "profile": record.profile,
        "fingerprint": record.fingerprint,
        "data": record.data.name,
        "weights": record.weights.origin,
        "device": record.environment["device_name"],
        "train_seconds": record.times.train_seconds,
        "evaluate_seconds": record.times.evaluate_seconds,
        "images_per_second": record.times.images_per_second,
        "peak_memory_bytes": record.times.peak_memory_bytes,
        **figures,
    }


def _parameters(item: pytest.Item) -> dict[str, Any]:
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def _run_of(item: pytest.Item) -> tuple[Experiment, int] | None:
    """The row and seed that a test trains; None for any other test, whatever its parameters are called."""
    parameters = _parameters(item)
    experiment, seed = parameters.get("experiment"), parameters.get("seed")
    return (experiment, seed) if isinstance(experiment, Experiment) and isinstance(seed, int) else None


def _parametrised(item: pytest.Item | pytest.Collector) -> set[str]:
    """The names that a test's own marks give values to."""
    given = (
        mark.args[0] if mark.args else mark.kwargs.get("argnames", ()) for mark in item.iter_markers("parametrize")
    )
    return {name.strip() for names in given for name in (names.split(",") if isinstance(names, str) else names)}


def _asks_for(name: str, metafunc: pytest.Metafunc) -> bool:
    """Whether a test asks for our claims or controls by a name: its marks or other fixtures are ours, and the name is
    neither parametrised nor a fixture of the user's."""
    item, names = metafunc.definition, metafunc.fixturenames
    marked = any(item.get_closest_marker(mark) for mark in ("ablation", "question", "controls"))
    ours = marked or not {"judged", "noticed"}.isdisjoint(names)
    return ours and name in names and name not in {*_parametrised(item), *metafunc._arg2fixturedefs}


# Fixtures


@pytest.fixture
def train(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[Callable[[Experiment, int], RunRecord]]:
    """`train(experiment, seed)`: the finished run's record."""
    plugin: StudyPlugin = request.config.pluginmanager.get_plugin("cvhw4-study")  # type: ignore[assignment]
    yield lambda experiment, seed: plugin.run(request, benchmark, experiment, seed)


@pytest.fixture
def judged(request: pytest.FixtureRequest) -> Callable[[Claim], Outcome]:
    """`judged(claim)`: what this session's runs say of a claim."""
    plugin: StudyPlugin = request.config.pluginmanager.get_plugin("cvhw4-study")  # type: ignore[assignment]
    return partial(plugin.outcome, profile=plugin.profile_of(request.node))


@pytest.fixture
def noticed(request: pytest.FixtureRequest) -> Callable[[Control], list[str]]:
    """`noticed(control)`: what gives a negative control away in this session's runs, in words; empty if nothing."""
    plugin: StudyPlugin = request.config.pluginmanager.get_plugin("cvhw4-study")  # type: ignore[assignment]
    return plugin.noticed


@pytest.fixture(scope="session")
def bounds(request: pytest.FixtureRequest) -> Bounds:
    """The calibrated bounds of the session's profile."""
    plugin: StudyPlugin = request.config.pluginmanager.get_plugin("cvhw4-study")  # type: ignore[assignment]
    return plugin.bounds()
