"""Writes `report.md` from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cvhw4.experiments import Profile
from cvhw4.records.store import Store, latest_studies, write_atomically
from cvhw4.report.failures import latest_failures
from cvhw4.report.tables import report_page
from cvhw4.statistics.bounds import Bounds


def write_report(profile: Profile, store: Store, bounds: Bounds | None, missing: Mapping[str, str]) -> Path:
    """Renders all stored runs of a profile, failed ones too (of each row the most recent study), to
    `<results>/<profile>/report.md`.

    Args:
        missing: rows that could not run, by id, and why.

    Raises:
        InputError: the folder cannot be written to.
    """
    known = {row.id for row in profile.rows}
    records = [r for r in store.load() if r.id in known]
    failures = latest_failures(records, (f for f in store.failures() if f.id in known))
    path = store.folder / "report.md"
    write_atomically(path, report_page(profile, latest_studies(records), bounds, missing, failures))
    return path
