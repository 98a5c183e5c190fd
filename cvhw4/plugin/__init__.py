"""pytest on top of studies: `pytest_plugins = ["cvhw4.plugin"]` in a root conftest.py.

A test that takes `row` and `seed` and is marked `study(s)` is run for every row of the `cvhw4.Study` s and every seed
(`group="extra"`: of that group of rows; `rows=[...]`: of these). One that takes `claim` is run for every claim, one
that takes `control` for every negative control, both after all runs. Nothing heavy is imported before the first run is
planned.

    options.py     the options of a session           board.py      notes between the workers of pytest-xdist
    collection.py  from marks to parametrised tests   progress.py   what is shown while runs train
    session.py     running and judging                summary.py    tables and pages at the end
    smoke.py       the first epoch alone              hookspec.py   hooks for trackers and for conftest.py files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cvhw4.errors import InputError
from cvhw4.plugin import hookspec
from cvhw4.plugin.collection import Collection, Studies, load
from cvhw4.plugin.options import add_options, check_options, runner_options, seeds_of, trackers
from cvhw4.plugin.progress import Progress
from cvhw4.plugin.session import Session
from cvhw4.plugin.smoke import Smoke
from cvhw4.plugin.summary import Summary
from cvhw4.runner import Runner
from cvhw4.study import Claim, Control, Row, Study
from cvhw4.trackers import Trackers

if TYPE_CHECKING:
    from cvhw4.executors.ray import Cluster
    from cvhw4.records.schema import RunRecord
    from cvhw4.statistics.bounds import Bounds
    from cvhw4.statistics.verdicts import Outcome


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Makes the hooks of `cvhw4.plugin.hookspec` known."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Adds the options."""
    pluginmanager.register(add_options(parser), "cvhw4-names")


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options; a session that runs no study pays for nothing else."""
    if not any(map(config.pluginmanager.hasplugin, ("benchmark", "pytest_benchmark.plugin"))):
        config.pluginmanager.register(NoBenchmark(), "cvhw4-no-benchmark")
    config.addinivalue_line(
        "markers",
        "study(s, rows, group): trains the rows of a cvhw4.Study, or those of a group, with every seed; judges its "
        "claims and controls",
    )
    try:
        check_options(config)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error
    on_cluster = config.getoption("cvhw4_executor") == "ray"
    options = runner_options(config)
    studies = Studies(config, lambda study: _make_runner(config, study, options))
    collection = Collection(studies, range(seeds_of(config)), config.getoption("cvhw4_part"), on_cluster=on_cluster)
    progress = Progress(config)
    session = Session(config, studies, collection, progress, partial(_connect, config) if on_cluster else None)
    told = Trackers(trackers(config))
    parts = {"collection": collection, "progress": progress, "trackers": told, "session": session}
    parts |= {"smoke": Smoke(config, studies)} if session.smoke else {}
    parts |= {} if session.is_worker else {"summary": Summary(session, collection)}  # its controller has all runs
    for name, part in parts.items():
        config.pluginmanager.register(part, f"cvhw4-{name}")


class NoBenchmark:
    """For `-p no:benchmark`, with which runs are trained all the same."""

    @pytest.fixture
    def benchmark(self) -> SimpleNamespace:
        """Times nothing."""

        def call(target: Callable[..., Any], args: tuple[Any, ...] = (), **_: Any) -> Any:
            return target(*args)

        return SimpleNamespace(disabled=True, group="", params={}, extra_info={}, pedantic=call)


def _make_runner(config: pytest.Config, study: Study, options: Mapping[str, Any]) -> Runner:
    """The runner of a study with these options, or the one that the hook `pytest_cvhw4_make_runner` gives."""
    made: Runner | None = config.hook.pytest_cvhw4_make_runner(config=config, study=study, options=options)
    made = Runner(study=study, **options) if made is None else made
    if not isinstance(made, Runner):
        raise InputError("pytest_cvhw4_make_runner", f"returns {made!r:.60}", "return a cvhw4.runner.Runner, or None")
    return replace(made, smoke=True) if options["smoke"] and not made.smoke else made


def _connect(config: pytest.Config) -> Cluster:
    """The cluster that trains.

    Raises:
        InputError: it cannot be reached, or has not what is asked for.
    """
    from cvhw4.executors.ray import Cluster

    options, address = runner_options(config), config.getoption("cvhw4_ray_address")
    if address is not None:  # this machine's share of cores is not the nodes'
        options["threads"] = config.getoption("cvhw4_threads")
    return Cluster(options, address, config.rootpath, partial(_make_runner, config))


def _session(request: pytest.FixtureRequest) -> Session:
    return request.config.pluginmanager.get_plugin("cvhw4-session")  # type: ignore[return-value]


@pytest.fixture
def study(request: pytest.FixtureRequest) -> Study:
    """The study that the test is marked with; of `cvhw4.FromOptions` the one that it made. Without a mark the test
    fails."""
    found = _session(request).studies.of(request.node)
    if found is None:
        pytest.fail("the test has no mark: pytest.mark.study(s)", pytrace=False)
    return found


@pytest.fixture
def train(request: pytest.FixtureRequest, benchmark: Any, study: Study) -> Callable[[Row, int], RunRecord]:
    """`train(row, seed)`: trains a run, or takes it from disk (`--reuse`), and returns its `cvhw4.RunRecord`.

    Once in a test. Where the row's data or pretrained weights cannot be had it skips the test, where the run cannot be
    finished it fails it, with the reason.
    """
    session = _session(request)
    session.forget(request.node)  # a test that is tried again
    return partial(session.run, request, benchmark)


@pytest.fixture
def judged(request: pytest.FixtureRequest, study: Study) -> Callable[[Claim], Outcome]:
    """`judged(claim)`: what this session's runs say of a claim, judged together with the study's others, as a
    `cvhw4.Outcome`; its `verdict` is "supported", "contradicted", "equivalent" or "undecided".

    It skips the test where all of the claim's rows were tried and there is nothing to judge, as of a figure itself on
    generated pictures, or of a claim about pictures of other classes (`Claim.classes`). It fails it where the session
    selects no run of a row and none is stored, or a run has no such figure.
    """

    def judged(claim: Claim) -> Outcome:  # whose name pytest shows where an assertion fails
        return _session(request).outcome(claim, study)

    return judged


@pytest.fixture
def detected(request: pytest.FixtureRequest, study: Study) -> Callable[[Control], list[str]]:
    """`detected(control)`: what gives a negative control away in this session's runs, at the first of its strengths: a
    list of the bounds that are missed, or of how the training diverged, in words; empty if nothing does.

    Without bounds of its row for these data it skips the test; without its runs it skips or fails it as `judged` does.
    """
    return partial(_session(request).detected, study=study)


@pytest.fixture
def bounds(request: pytest.FixtureRequest, study: Study) -> Bounds:
    """The calibrated `cvhw4.Bounds` of the test's study: of the file that `--bounds` names, else `Study.bounds`; none
    where the study's is not written yet.

    `bounds.missed(record)` is a list of the bounds that a run misses, in words; the last run of a row to be held
    against them is joined by the session's others.
    """
    return replace(load(request.config, study), beside=_session(request).beside)
