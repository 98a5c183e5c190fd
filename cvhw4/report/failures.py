"""Runs that failed, beside those that finished: which of them tables list, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.tables import Table
from cvhw4.report.text import escape
from cvhw4.study import Row

BIASED = (
    "What makes a seed fail may be what makes its figure poor: a mean over the seeds that finished is biased, most "
    "likely upwards."
)


def latest_failures(records: Iterable[RunRecord], failures: Iterable[Failure]) -> list[Failure]:
    """Of each row on each data set the failed runs of its most recent configuration, be it a finished run's."""
    failures = list(failures)
    runs = [(r.started, r.row, r.data.name, r.configuration) for r in records]
    runs += [(f.started, f.row, f.data, f.configuration) for f in failures]
    newest = {(row, data): configuration for _, row, data, configuration in sorted(runs)}
    return [f for f in failures if f.configuration == newest[f.row, f.data]]


def share(runs: Sequence[RunRecord], failures: Sequence[Failure]) -> str:
    """ "1 of 3 seeds failed", of a row's finished and failed runs; "1 of 1 seed of a later configuration failed" where
    those finished are older than it."""
    failed = {f.seed for f in failures}
    finished = {r.seed for r in runs if r.configuration == failures[0].configuration}
    later, n = " of a later configuration" * (bool(runs) and not finished), len(failed | finished)
    return f"{len(failed)} of {n} seed{'s' * (n > 1)}{later} failed"


def failures_table(failures: Sequence[Failure], rows: Sequence[Row]) -> str:
    """Where and why each run failed, and what is left of it, rows in their order."""
    order = {row.name: i for i, row in enumerate(rows)}
    lines = [
        {
            "row": escape(f.row),
            "seed": str(f.seed),
            "reason": escape(f.reason),
            "epoch": str(f.epoch or "-"),
            "step": str(f.step or "-"),
            "learning rate": f"{f.lr:g}" if f.lr else "-",
            "last good checkpoint": "none" if f.checkpoint is None else escape(f.checkpoint),
        }
        for f in sorted(failures, key=lambda f: (order[f.row], f.seed))
    ]
    return Table.of(lines).markdown()
