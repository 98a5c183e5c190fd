"""As a pytest plugin (`-p tests.pretended`): runs that train nothing, and no tables, so that a session takes a second.

An epoch takes CVHW4_PAUSE seconds, and the clock ticks many times in it. What the terminal shows is real, and so are
records, workers, capture and the debugger. With CVHW4_TABLES set there are tables at the end, but no pages.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cvhw4.pytest_plugin as plugin
from cvhw4 import cluster, live
from cvhw4.cluster import Event
from cvhw4.study import Study
from tests.tiny import dataset, record


class Pretended(Study):
    """Figures that rise from 0.5 to 0.9."""

    def check(self):
        pass

    def prepare(self, experiment, seed):
        pass

    def data(self, question):
        return dataset(question)

    def run(self, experiment, seed, on_epoch=None, on_wait=None):
        count = experiment.recipe.epochs
        done = record(experiment.row, seed, figures=tuple((0.5 + 0.4 * i / count,) for i in range(1, count + 1)))
        found = self.store.find(done.id, seed, done.fingerprint) if self.reuse else None
        if found is not None:
            return found
        pause = float(os.environ.get("CVHW4_PAUSE", "0.05"))
        for epoch in done.epochs:
            time.sleep(pause)
            on_epoch(replace(epoch, train_seconds=pause * 0.75, evaluate_seconds=pause * 0.25))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.store.save(replace(done, started=now, times=replace(done.times, total_seconds=pause * count)))


class PretendedCluster:
    """Trains all runs when the first is asked for, and tells of them in turn."""

    def __init__(self, study, address, threads, root):
        self.study, self.records = study, {}

    def submit(self, runs):
        self.runs = list(runs)

    def result(self, experiment, seed, on_event):
        for row, number in self.runs if not self.records else ():
            on_event(Event(row.id, number, "node", None))
            self.records[row.id, number] = self.study.run(
                row, number, lambda epoch, row=row, number=number: on_event(Event(row.id, number, "node", epoch))
            )
        return self.records[experiment.id, seed]

    def close(self):
        pass


@pytest.hookimpl(tryfirst=True)  # before the study is made
def pytest_configure(config):
    live.TICK = 0.01  # many times an epoch
    plugin.Study, cluster.Cluster = Pretended, PretendedCluster
    if not os.environ.get("CVHW4_TABLES"):
        plugin.StudyPlugin.summarise = lambda self, reporter, status: None
        return
    from cvhw4.report import page, verdicts

    for module, name in ((page, "write_report"), (page, "write_html"), (verdicts, "write_verdicts")):
        setattr(module, name, lambda *_, name=name: Path("/", name))
