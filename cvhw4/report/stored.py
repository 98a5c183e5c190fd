"""What is stored of a study, read and judged once for all its pages."""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from pathlib import Path

from cvhw4.discovery import find_study, stored_study
from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.failures import latest_failures
from cvhw4.report.runs import of_study
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study


class Stored:
    """The runs in a store, of each row on each data set those of its most recent study.

    Attributes:
        records: finished runs, those of rows that the study does not have among them (negative controls).
        failures: runs that failed, likewise.
        older: how many runs of each of the study's rows are left out, as later ones have another configuration.
    """

    def __init__(self, study: Study, store: Store, bounds: Bounds = NO_BOUNDS) -> None:
        loaded = store.load()
        self.study, self.store, self.bounds = study, store, bounds
        self.records: list[RunRecord] = latest_runs(loaded, study)
        kept = {id(r) for r in self.records}
        self.older = Counter(r.row for r in loaded if id(r) not in kept and r.row in study.rows)
        self.failures: list[Failure] = latest_failures(loaded, store.failures())
        self._images: dict[str, ImageResults | None] = {}

    @cached_property
    def rows(self) -> list[RunRecord]:
        """The finished runs of the study's rows."""
        return of_study(self.study, self.records)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What they say of the claims, with other images where these are stored."""
        return judge_all(self.study, self.rows, self.images, bounds=self.bounds)

    def images(self, record: RunRecord) -> ImageResults | None:
        """What a run made of every validation image, kept once read; None where that is not stored."""
        if record.fingerprint not in self._images:
            self._images[record.fingerprint] = self.store.images(record)
        return self._images[record.fingerprint]


def stored(
    study: Study | str | os.PathLike[str], results: str | os.PathLike[str] = "results"
) -> tuple[Study, list[RunRecord]]:
    """A study and its stored runs, as `results_table`, `claims_figure` and `curves_figure` take them.

    Args:
        study: the study; or, as `--study` has it, its name or the file that makes it, the name given to `cvhw4 judge`
            among them.
        results: the folder of records.

    Returns:
        The study, and of each row on each data set the runs of its most recent study, one for each seed.

    Raises:
        InputError: there is no such study, or it has no runs.
    """
    if isinstance(study, str | os.PathLike):
        study = stored_study(Path(results) / study) or find_study(os.fspath(study))
    found = Stored(study, Store(Path(results), study.name)).rows
    if not found:
        raise InputError(Path(results) / study.name, "has no runs", "train the study first, or name another folder")
    return study, found
