"""`--smoke`: in place of a run's test its first epoch, held against the calibrated run of the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from cvhw4.plugin.board import Run
from cvhw4.plugin.collection import Studies, load, run_of
from cvhw4.report.text import wrapped
from cvhw4.study import Row

if TYPE_CHECKING:
    from cvhw4.records.schema import RunRecord


class Smoke:
    """What a session does instead of training to the end."""

    def __init__(self, config: pytest.Config, studies: Studies) -> None:
        self.config, self.studies = config, studies
        self.unpaired: list[Run] = []  # runs that there was nothing to hold against

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out the tests of studies that do not train a network of cvhw4's."""
        others = [item for item in items if item.get_closest_marker("study") is not None and not _trains(item)]
        if others:
            self.config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in others]

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """The loss of a run's first epoch has to be the calibrated run's, that of a negative control another one."""
        from cvhw4.statistics.bounds import AGAIN

        run, study = run_of(pyfuncitem), self.studies.of(pyfuncitem)
        if run is None or study is None:
            return None
        row, seed = run
        record = cast("Callable[[Row, int], RunRecord]", pyfuncitem.funcargs["train"])(row, seed)
        corrupted = {c.of(study, strength).name: c.row for c in study.controls for strength in c.strengths}
        found = load(self.config, study).first_epoch(record, corrupted.get(row.name, row.name))
        if found is None:
            self.unpaired.append((row.study, row.name, seed))
            return True
        times, calibrated = found
        what = f"first training loss {record.epochs[0].loss:.6f} of {row.name}, seed {seed}"
        if row.group == "control" and times <= 1:
            pytest.fail(f"{what}, is the calibrated run's: nothing is noticed after one epoch", pytrace=False)
        if row.group != "control" and not times <= 1:
            pytest.fail(
                f"{what}, is not {calibrated:.6f}, as calibrated, but {times:.1f} times as far off as machines may be: "
                f"the training changed, or its random streams; if that is meant, {AGAIN}",
                pytrace=False,
            )
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says of which rows nothing but that they train is known."""
        if rows := ", ".join(dict.fromkeys(row for _, row, _ in self.unpaired)):
            words = "trained for an epoch and held against nothing, as the bounds have no first epoch of their seed"
            terminalreporter.write_line(wrapped(f"{words}: {rows}"))


def _trains(item: pytest.Item) -> bool:
    """Whether a test trains a network of cvhw4's."""
    run = run_of(item)
    return run is not None and run[0].epochs is not None and "train" in getattr(item, "fixturenames", ())
