"""Runs that failed, beside those that finished: which of them tables tell of, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cvhw4.experiments import Experiment
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.text import escape

if TYPE_CHECKING:
    import pandas as pd

BIASED = (
    "What makes a seed fail may be what makes its figure poor: a mean over the seeds that finished is biased, most "
    "likely upwards."
)


def latest_failures(records: Iterable[RunRecord], failures: Iterable[Failure]) -> list[Failure]:
    """Of each row on each data set the failed runs of its most recent study, finished runs counted among it."""
    failures = list(failures)
    runs = [(r.started, r.id, r.data.name, r.study) for r in records]
    runs += [(f.started, f.id, f.data, f.study) for f in failures]
    newest = {(id, data): study for _, id, data, study in sorted(runs)}
    return [f for f in failures if f.study == newest[f.id, f.data]]


def share(runs: Sequence[RunRecord], failures: Sequence[Failure]) -> str:
    """ "1 of 3 seeds failed", of a row's finished and failed runs; "since" behind it where those finished are older
    than the study that failed."""
    failed = {f.seed for f in failures}
    finished = {r.seed for r in runs if r.study == failures[0].study}
    since = " since" if runs and not finished else ""
    return f"{len(failed)} of {len(failed | finished)} seeds failed{since}"


def failures_table(failures: Sequence[Failure], rows: Sequence[Experiment]) -> pd.DataFrame:
    """Where and why each run failed, and what is left of it, rows in their order."""
    import pandas as pd

    order = {row.id: i for i, row in enumerate(rows)}
    lines = [
        {
            "row": escape(f.id),
            "seed": str(f.seed),
            "epoch": str(f.epoch or "-"),
            "step": str(f.step or "-"),
            "learning rate": f"{f.lr:g}" if f.lr else "-",
            "reason": escape(f.reason),
            "last good checkpoint": "none" if f.checkpoint is None else escape(f.checkpoint),
        }
        for f in sorted(failures, key=lambda f: (order[f.id], f.seed))
    ]
    return pd.DataFrame(lines)
