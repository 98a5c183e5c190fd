"""From marks to tests: which studies a session has, and the rows, seeds, claims and controls that are parameters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cvhw4.errors import InputError, printable
from cvhw4.plugin.board import Run
from cvhw4.runner import Runner
from cvhw4.study import Claim, Control, FromOptions, Loss, Row, Study

if TYPE_CHECKING:
    from cvhw4.statistics.bounds import Bounds

_MARK = "mark the test with pytest.mark.study(s), s being a cvhw4.Study or cvhw4.FromOptions"


class Studies:
    """The studies of a session, as its tests' marks name them.

    Args:
        make_runner: makes what runs the rows of a study; tests give their own.
    """

    def __init__(self, config: pytest.Config, make_runner: Callable[[Study], Runner]) -> None:
        self.config, self.make_runner = config, make_runner
        self.by_name: dict[str, Study] = {}
        self._made: dict[FromOptions, Study] = {}

    def of(self, item: pytest.Item | pytest.Collector) -> Study | None:
        """The study that a test is marked with; None without a mark.

        Raises:
            InputError: the mark names something else.
        """
        mark = item.get_closest_marker("study")
        return None if mark is None else self.named(mark, item.nodeid)

    def named(self, mark: pytest.Mark, where: str = "pytest.mark.study") -> Study:
        """The study that a mark names; one that a function makes is made once.

        Raises:
            InputError: it names something else, or two studies have one name.
        """
        given = mark.args[0] if len(mark.args) == 1 else None
        if isinstance(given, FromOptions):
            if given not in self._made:
                self._made[given] = given.make(self.config)
            given = self._made[given]
        if not isinstance(given, Study):
            raise InputError(where, "expects a cvhw4.Study", _MARK)
        if self.by_name.setdefault(given.name, given) is not given:
            problem = f"is the name of two studies, of which {where.partition('::')[0]} tests one"
            raise InputError(f"study {given.name}", problem, "give one of them another name")
        return given

    def runner(self, row: Row) -> Runner:
        """What runs a row."""
        return self.make_runner(self.by_name[row.study])


class Collection:
    """Parametrises tests, orders them, and checks what the selected ones need.

    Args:
        seeds: of every row.
        part: which part of the runs this session trains, from 1, and how many parts there are.
        on_cluster: whether a cluster's nodes compute, so that this machine's device does not matter.
    """

    def __init__(self, studies: Studies, seeds: range, part: tuple[int, int], *, on_cluster: bool) -> None:
        self.studies, self.seeds, self.part, self.on_cluster = studies, seeds, part, on_cluster
        self.config = studies.config
        self.is_worker = hasattr(self.config, "workerinput")
        self.asked: dict[str, dict[str, bool]] = {}  # by study and row, before `-k`: whether a test trains it
        self.warned: list[str] = []  # what is odd about the user's data and study
        self.unusable = ""  # what is wrong with a study, as a worker of xdist found
        self.planned: dict[Run, Row] = {}  # what will be run, after `-k` and the like

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Rows and seeds, claims or controls of the study that a test is marked with, as parameters."""
        item = metafunc.definition
        mark = item.get_closest_marker("study")
        if mark is None:
            return
        study = self.studies.named(mark, item.nodeid)
        free = set(metafunc.fixturenames) - _parametrised(item) - {*metafunc._arg2fixturedefs}
        rows = _selected_rows(study, mark, item.nodeid) if {"row", "seed"} <= free else None
        if rows is not None:
            cases = [pytest.param(row, seed, id=f"{row.name}-seed{seed}") for row in rows for seed in self.seeds]
            metafunc.parametrize(("row", "seed"), cases)
        if "claim" in free:
            metafunc.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in study.nightly_claims])
        if "control" in free:
            metafunc.parametrize("control", [pytest.param(control, id=control.name) for control in study.controls])
        if rows is not None or free & {"claim", "control"}:
            of_study = self.asked.setdefault(study.name, dict.fromkeys(study.rows, False))
            of_study |= {row.name: True for row in rows or () if row.name in of_study}
            if self.is_worker:
                self.config.workeroutput["cvhw4_asked"] = self.asked  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """A study that does not fit together is one error, without a traceback."""
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
        another. Studies with runs that are left after `-k` and the like are checked."""
        yield
        items.sort(key=lambda item: any(isinstance(p, Claim | Control) for p in parameters(item).values()))
        self._leave_to_others(items)
        if self.config.option.collectonly:
            return
        selected = [study for item in items if run_of(item) and (study := self.studies.of(item)) is not None]
        try:
            for study in dict.fromkeys(selected):
                self._check(study)
        except InputError as error:
            if not self.is_worker:
                raise pytest.UsageError(str(error)) from error
            items.clear()  # its controller tells of it, see `pytest_testnodedown`
            self.config.workeroutput["cvhw4_unusable"] = str(error)  # type: ignore[attr-defined]
        if self.is_worker:
            self.config.workeroutput["cvhw4_warned"] = self.warned  # type: ignore[attr-defined]

    def _leave_to_others(self, items: list[pytest.Item]) -> None:
        """Deselects what is not this session's with `--part`. Parts go by the run, not by its place among the tests."""
        part, parts = self.part
        if parts > 1:
            keys = sorted({key for item in items for key in [key_of(item)] if key is not None})
            mine = set(keys[part - 1 :: parts])
            ours = [item for item in items if key_of(item) in mine]
            self.config.hook.pytest_deselected(items=[item for item in items if item not in ours])
            items[:] = ours

    def _check(self, study: Study) -> None:
        """Checks a study and what the user gave for it, and shows what that warns of; raises InputError."""
        runner = self.studies.make_runner(study)
        if self.on_cluster:
            runner = replace(runner, device="auto", precision=None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            runner.check()
            load(self.config, study)
        found = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        self.warned += found
        self.warn(found)

    def warn(self, warned: Iterable[str]) -> None:
        """Shows what is odd about the user's data, in a line each."""
        reporter: pytest.TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            for message in warned:
                reporter.write_line(f"warning: {printable(message)}", yellow=True)

    @pytest.hookimpl(tryfirst=True)  # others ask for it
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remembers what will be run, after `-k` and the like."""
        for item in session.items:
            if (key := key_of(item)) is not None:
                self.planned[key] = parameters(item)["row"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist is done."""
        output = getattr(node, "workeroutput", {})
        self.unusable = output.get("cvhw4_unusable", self.unusable)
        self.asked |= output.get("cvhw4_asked", {})
        self.warned += [text for text in output.get("cvhw4_warned", ()) if text not in self.warned]


def _selected_rows(study: Study, mark: pytest.Mark, where: str) -> list[Row]:
    """The rows that a mark trains: of its `group`, and of these the ones that `rows` names.

    Args:
        mark: `rows` is a list of names, or a mapping from names to the settings that set the rows apart
            ({"a": {"skips": True}}), which the rows have to have: then a test says in its own lines what it compares.
            Of a study that options choose, rows that it has not are left out.

    Raises:
        InputError: a row that there is not, or one with other settings.
    """
    odd = mark.kwargs.keys() - {"rows", "group"}
    if odd:
        raise InputError(where, f"is marked with {min(odd)}=", "give rows= or group=")
    group, wanted = mark.kwargs.get("group", ""), mark.kwargs.get("rows")
    rows, chosen = study.in_group(group), isinstance(mark.args[0], FromOptions)
    if not rows and not chosen:
        groups = ", ".join(sorted({f"{row.group!r}" for row in study.rows.values()} | {"'control'"}))
        problem = f"trains group={group!r:.40}, in which the study has no rows"
        raise InputError(where, problem, f"choose one of {groups}")
    if wanted is None:
        return list(rows)
    if not isinstance(wanted, Mapping | list | tuple):
        raise InputError(where, f"has rows={wanted!r:.60}", 'name them, as rows=["a", "b"]')
    by_name = {row.name: row for row in rows}
    if chosen:  # it may be a study without some of the rows
        wanted = {name: wanted[name] if isinstance(wanted, Mapping) else {} for name in wanted if name in by_name}
    for name in wanted:
        if name not in by_name:
            raise InputError(where, f"names the row {name}", f"choose from {', '.join(by_name)}")
        settings = wanted[name] if isinstance(wanted, Mapping) else {}
        for setting, value in settings.items():
            if _written(found := by_name[name].setting(setting)) != _written(value):
                raise InputError(where, f"says {setting}={value!r} of {name}, which has {found!r}", "correct either")
    return [by_name[name] for name in wanted]


def _written(value: Any) -> Any:
    """A setting in one of the ways that it may be written in: lists as well as tuples, a loss or its function."""
    if isinstance(value, Mapping):
        return {name: _written(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner) for inner in value]
    return Loss(value) if callable(value) else value


def load(config: pytest.Config, study: Study) -> Bounds:
    """The calibrated bounds of a study: of the file that `--bounds` names, or of its own.

    Raises:
        InputError: the file cannot be read.
    """
    from cvhw4.statistics.bounds import bounds_of

    named = config.getoption("cvhw4_bounds")
    return bounds_of(study, named and config.invocation_params.dir / named)  # a test may be in another folder


def parameters(item: pytest.Item) -> dict[str, Any]:
    """The parameters of a test by name."""
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def run_of(item: pytest.Item) -> tuple[Row, int] | None:
    """The row and seed that a test trains; None for any other test, whatever its parameters are called."""
    given = parameters(item)
    row, seed = given.get("row"), given.get("seed")
    return (row, seed) if isinstance(row, Row) and isinstance(seed, int) else None


def key_of(item: pytest.Item) -> Run | None:
    """The run that a test trains: study, row and seed."""
    run = run_of(item)
    return None if run is None else (run[0].study, run[0].name, run[1])


def _parametrised(item: pytest.Item | pytest.Collector) -> set[str]:
    """The names that a test's own marks give values to."""
    marks = item.iter_markers("parametrize")
    given = (mark.args[0] if mark.args else mark.kwargs.get("argnames", ()) for mark in marks)
    return {name.strip() for names in given for name in (names.split(",") if isinstance(names, str) else names)}


def seed_in(id: str, row: str) -> int | None:
    """The seed in the id of a test that trains a row ("test_rows.py::test_row[a-seed0]"), other parameters beside it or
    not; None for a test of another row."""
    parameters = id.partition("[")[2].partition("]@")[0].removesuffix("]")  # xdist adds "@group"
    found = re.search(rf"(?:^|-){re.escape(row)}-seed(\d+)(?:-|$)", parameters)
    return None if found is None else int(found[1])
