"""`--smoke`: in place of a run's test its first epoch, held against the calibrated run of the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from cvhw4.errors import InputError, printable
from cvhw4.plugin.collection import Studies, load, run_of
from cvhw4.study import Row
from cvhw4.study.recipe import BY_EPOCHS_SO_FAR

if TYPE_CHECKING:
    from cvhw4.records.schema import RunRecord
    from cvhw4.statistics.bounds import Bounds

_TIMED = ("json", "save", "autosave", "compare")  # what pytest-benchmark would keep of first epochs
_LATER = {"epochs", "lr_step", "lr_gamma"}  # no first epoch depends on these, with a schedule of `BY_EPOCHS_SO_FAR`


class Smoke:
    """What a session does instead of training to the end. Tests that no study marks are run as ever."""

    def __init__(self, config: pytest.Config, studies: Studies) -> None:
        self.config, self.studies = config, studies

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out the tests of studies that train no run: claims and controls are judged by whole ones."""
        others = [item for item in items if item.get_closest_marker("study") is not None and run_of(item) is None]
        if others:
            self.config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in others]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """What failed in whole runs stays failed for pytest's `--lf`, though its first epoch passes here."""
        if (last := self.config.pluginmanager.get_plugin("lfplugin")) is not None and self.config.cache is not None:
            last.lastfailed = self.config.cache.get("cache/lastfailed", {}) | last.lastfailed

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """The loss of a run's first epoch has to be the calibrated run's, that of a negative control at its first
        strength another one; where there is none to hold it against, or a weaker corruption is not noticed, the test is
        skipped with the reason."""
        run, study = run_of(pyfuncitem), self.studies.of(pyfuncitem)
        if run is None or study is None:
            return None
        row, seed = run
        if row.epochs is None:
            pytest.skip("a training loop of the study's own is not ended after an epoch")
        if "train" not in pyfuncitem.funcargs:
            pytest.skip("not held against anything: the test does not take the fixture train")
        corrupted = {c.of(study, strength).name: (c, strength) for c in study.controls for strength in c.strengths}
        control, strength = corrupted.get(row.name, (None, 0.0))
        corrupts = None if control is None else control.row
        if corrupts is not None and _acts_later(row, study.rows[corrupts]):
            pytest.skip(f"acts after the first epoch, which is that of {corrupts}: whole runs have to notice it")
        record = cast("Callable[[Row, int], RunRecord]", pyfuncitem.funcargs["train"])(row, seed)
        weaker = control is not None and strength != control.strengths[0]
        _compare(record, corrupts, load(self.config, study), weaker=weaker)
        return True


def _acts_later(control: Row, row: Row) -> bool:
    """Whether a control differs from its row in nothing that the first epoch depends on."""
    changed = {name for name, value in vars(control.recipe).items() if value != getattr(row.recipe, name)}
    same = replace(row, name=control.name, group=control.group, recipe=control.recipe) == control
    return same and bool(changed) and changed <= _LATER and row.recipe.schedule in BY_EPOCHS_SO_FAR


def _compare(record: RunRecord, corrupts: str | None, bounds: Bounds, *, weaker: bool) -> None:
    """Fails, or skips, the test of a run.

    Args:
        corrupts: the row that a negative control corrupts; None of any other row.
        weaker: whether it does so at another than its first strength, the one that has to be caught.
    """
    from cvhw4.statistics.bounds import AGAIN

    if changed := bounds.changed(record):
        pytest.fail(changed[0], pytrace=False)
    found = bounds.first_epoch(record, corrupts or record.row)
    if isinstance(found, str):
        pytest.skip(printable(f"trained for an epoch, and held against nothing: {found}"))
    calibrated, room = found
    loss = record.epochs[0].loss
    apart = (
        f"the loss of the first epoch is {loss:.6g}, that of the calibrated run of {corrupts or record.row} with seed "
        f"{record.seed} {calibrated:.5g}: {abs(loss - calibrated):.2g} apart"
    )
    if corrupts and abs(loss - calibrated) <= room:
        told = f"{apart}, within {room:.2g}, so that the corruption is not noticed"
        if weaker:
            pytest.skip(printable(f"{told}: it is weaker than the one that has to be noticed"))
        pytest.fail(told, pytrace=False)
    if not corrupts and not abs(loss - calibrated) <= room:
        hint = f"the training changed, or its random streams; if that is meant, {AGAIN}"
        pytest.fail(f"{apart}, machines {room:.2g} at most: {hint}", pytrace=False)


def check_smoke(config: pytest.Config, needing: tuple[str, ...]) -> None:
    """Finds what cannot go with `--smoke`.

    Args:
        needing: names of options of cvhw4's that need whole runs.

    Raises:
        InputError: such an option is given, or one by which pytest-benchmark would keep times.
    """
    given = [f"--{name}" for name in needing if config.getoption(f"cvhw4_{name}")]
    given += [f"--benchmark-{name}" for name in _TIMED if config.getoption(f"benchmark_{name}", None)]
    if config.getoption("cvhw4_executor") == "ray":
        given.append("--executor ray")
    if given:
        raise InputError("--smoke", f"neither takes nor keeps whole runs, as {given[0]} does", "leave one of them out")
