"""Writes `report.md` and its pictures from what is stored, and `report.html` from the pages in Markdown."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from cvhw4.experiments import Profile
from cvhw4.records.store import Store, write_atomically
from cvhw4.report.figures import FOLDER, Picture, style, write_pictures
from cvhw4.report.html import html_page
from cvhw4.report.pictures import pictures_of
from cvhw4.report.plots import curves, forest
from cvhw4.report.stored import Stored
from cvhw4.report.tables import FIGURES, by_data, metric_name, report_page, with_metric
from cvhw4.report.text import file_stem
from cvhw4.statistics.bounds import Bounds

KINDS = ("curves", "forest", "confusion", "attention", "panels", "iou")  # what the report's pictures begin with


def write_report(
    profile: Profile, store: Store, bounds: Bounds | None, missing: Mapping[str, str], stored: Stored | None = None
) -> Path:
    """Renders all stored runs of a profile, failed ones too (of each row the most recent study), to
    `<results>/<profile>/report.md`, with its pictures in `figures/` beside it.

    Args:
        missing: rows that could not run, by id, and why.
        stored: what is in the store, where it has been read already.

    Raises:
        InputError: the folder cannot be written to.
    """
    s = stored or Stored(profile, store)
    known = {row.id for row in profile.rows}
    failures = [f for f in s.failures if f.id in known]
    try:
        pictures = pictures_of_report(s)
    except Exception as error:  # tables matter more
        warnings.warn(f"no pictures are drawn: {error!r}", stacklevel=2)
        pictures = {}
    path = store.folder / "report.md"
    write_pictures(store.folder, (p for of_both in pictures.values() for _, p in of_both), KINDS)
    write_atomically(path, report_page(profile, s.rows, bounds, missing, failures, pictures))
    return path


def pictures_of_report(stored: Stored) -> dict[tuple[str, str], list[tuple[str, Picture]]]:
    """The pictures by question and data set, each with its heading; those of the claims under two empty names."""
    profile, store = stored.profile, stored.store
    found: dict[tuple[str, str], list[tuple[str, Picture]]] = {}
    with style():
        if stored.outcomes:
            found["", ""] = [("", forest(stored.outcomes))]
        for question, metrics in FIGURES.items():
            sets = by_data([r for r in stored.rows if r.question == question])
            stems = [file_stem(data) for data in sets]
            for number, (data, groups) in enumerate(sets.items(), 1):
                name = data if stems.count(file_stem(data)) == 1 else f"{data} {number}"
                drawn = found[question, data] = []
                for metric in (*metrics, *profile.metrics):
                    measured = {id: kept for id, runs in groups.items() if (kept := with_metric(runs, metric))}
                    rows = [row for row in profile.rows if row.id in measured]
                    if rows:
                        stem = f"curves-{question}-{file_stem(f'{metric} {name}')}"
                        picture = curves(stem, name, measured, rows, metric, metric_name(metric))
                        drawn.append(("Learning curves", picture))
                drawn += pictures_of(profile, question, groups, stored.images, store.exhibits, store.pictures, name)
    return found


def write_html(folder: Path) -> Path:
    """Renders `<folder>/report.html` from report.md and, where it is there, verdicts.md.

    Raises:
        InputError: the folder cannot be written to, or markdown-it-py is not installed.
        OSError: a page or picture cannot be read.
    """
    report, verdicts = folder / "report.md", folder / "verdicts.md"
    told = verdicts.read_text("utf-8") if verdicts.exists() else ""
    pictures = {f"{FOLDER}/{path.name}": path.read_text("utf-8") for path in (folder / FOLDER).glob("*.svg")}
    path = folder / "report.html"
    write_atomically(path, html_page(report.read_text("utf-8"), told, pictures))
    return path
