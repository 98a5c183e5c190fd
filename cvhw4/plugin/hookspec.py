"""Hooks of the plugin: what a conftest.py or a plugin of your own can be told of runs and tables, and can change.

An implementation names the arguments that it needs and leaves the others out. This one, in a conftest.py, is a tracker:

.. code-block:: python

    def pytest_cvhw4_run_epoch(row, seed, epoch):
        with open("epochs.txt", "a") as file:
            print(row.study, row.name, seed, epoch.epoch, epoch.loss, epoch.figures[row.task.primary], file=file)

The hooks of a run are called by the process that runs its test: with pytest-xdist by the worker, with `--jobs` and
`--executor ray` by the session and not where it is trained. A process has one run at a time: after
`pytest_cvhw4_run_begin` come its epochs, then its end or its failure, or, where it is skipped because its data or
pretrained weights cannot be had, nothing, before the next run begins.

Training waits for an implementation, and an exception that it raises fails the run's test: one that talks to a server
should do so in a thread of its own, as `cvhw4.trackers` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cvhw4.records.schema import Epoch, RunRecord
    from cvhw4.runner import Runner
    from cvhw4.study import Row, Study


def pytest_cvhw4_run_begin(config: pytest.Config, row: Row, seed: int, images: int | None) -> None:
    """A run begins. With `--reuse` it may turn out to be finished already.

    Its data and weights are there where this process trains it; with `--jobs` and `--executor ray` they are still to be
    looked for, and a run that is skipped for want of them has no end.

    Args:
        config: the session's.
        row: what is trained; `row.study` is the name of its study, `row.task.primary` its first metric.
        seed: what is drawn from, 0 or more.
        images: how many it trains on in an epoch; None where that is not known, as of a study's own training loop.
    """


def pytest_cvhw4_run_epoch(config: pytest.Config, row: Row, seed: int, epoch: Epoch) -> None:
    """An epoch of the run is over, evaluation included.

    They come in order. Those of an earlier session that this one continues do not come: `record.epochs` has them all
    when the run ends.

    Args:
        config: as in `pytest_cvhw4_run_begin`.
        row: as in `pytest_cvhw4_run_begin`.
        seed: as in `pytest_cvhw4_run_begin`.
        epoch: its number from 1 (`epoch.epoch`), training loss (`epoch.loss`), learning rate (`epoch.lr`), figures on
            the validation data by metric (`epoch.figures`), and seconds (`epoch.train_seconds`,
            `epoch.evaluate_seconds`).
    """


def pytest_cvhw4_run_end(config: pytest.Config, row: Row, seed: int, record: RunRecord, reused: bool) -> None:
    """The run is finished, and its record stored.

    Args:
        config: as in `pytest_cvhw4_run_begin`.
        row: as in `pytest_cvhw4_run_begin`.
        seed: as in `pytest_cvhw4_run_begin`.
        record: all there is to know of it: settings, epochs, times, environment.
        reused: whether nothing was trained: it was taken from disk.
    """


def pytest_cvhw4_run_failed(config: pytest.Config, row: Row, seed: int, reason: str) -> None:
    """The run ended without a record. It may have had no beginning: where its input is unusable.

    Args:
        config: as in `pytest_cvhw4_run_begin`.
        row: as in `pytest_cvhw4_run_begin`.
        seed: as in `pytest_cvhw4_run_begin`.
        reason: the error's message; "interrupted" after Ctrl-C; of an error that is not one of cvhw4's, its class.
    """


def pytest_cvhw4_tables(config: pytest.Config, study: Study, records: list[RunRecord], tables: list[str]) -> None:
    """The tables of a study are about to be written, at the session's end: once for each study that was trained, with
    pytest-xdist in the controller alone.

    Args:
        config: the session's.
        study: whose tables they are.
        records: this session's finished runs of the study, workers' included.
        tables: what the terminal will show, in this order, a text of one or more lines each. What is added, changed or
            removed here is shown so.
    """


@pytest.hookspec(firstresult=True)
def pytest_cvhw4_make_runner(config: pytest.Config, study: Study, options: Mapping[str, Any]) -> Runner | None:
    """Makes what trains the rows of a study, in every process that needs it: for tests that train nothing. The first
    runner that an implementation returns is taken; anything else ends the session with an error.

    Args:
        config: the session's.
        study: whose rows are trained.
        options: what `cvhw4.runner.Runner` takes beside the study, as the session's options give it.

    Returns:
        A runner, or None for the plugin's own: `Runner(study=study, **options)`.
    """
