"""Writes a study's pages from what is stored: `report.md`, `verdicts.md`, and `report.html` made of both."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError
from cvhw4.files import write_atomically
from cvhw4.records.schema import RunRecord
from cvhw4.records.store import Store
from cvhw4.report.figures import FOLDER, Picture, write_pictures
from cvhw4.report.html import html_page
from cvhw4.report.papers import rendered, results_table, style_of
from cvhw4.report.pictures import pictures_of
from cvhw4.report.plots import claims_figure, curves, curves_figure, forest
from cvhw4.report.results import report_page
from cvhw4.report.runs import all_shown, by_data, grouped, of_study, with_metric
from cvhw4.report.stored import Stored, stored
from cvhw4.report.text import file_stem
from cvhw4.report.verdicts import section_pictures, write_verdicts
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.study import Study

TABLES = "tables"  # folder of those for papers, beside the pages
KINDS = ("curves", "forest", "confusion", "attention", "panels", "iou")  # what pictures of report.md begin with


def write_pages(
    study: Study, store: Store, bounds: Bounds | None, missing: Mapping[str, str]
) -> list[tuple[Path, str]]:
    """Writes all pages of a study from its stored runs, of each row on each data set the most recent alike, and says
    what each is. `missing` are rows that could not run, and why. What goes wrong with verdicts.md or report.html is a
    warning: report.md has the figures; where that cannot be written, InputError is raised."""
    stored = Stored(study, store, bounds or NO_BOUNDS)
    seeds = [o.difference.n for o in stored.outcomes]
    by_set = grouped(stored.rows, lambda r: (r.row, r.data.name))
    seeds += map(len, by_set.values()) if study.sections else []
    verdicts = any(n > 1 for n in seeds) or (store.folder / "verdicts.md").exists()
    pages = [(write_report(stored, bounds, missing, verdicts), "tables of all stored runs")]
    judged = True
    if verdicts:
        try:
            pages.append((write_verdicts(stored, bounds or NO_BOUNDS), "what they say of the claims, and how sure"))
        except Exception as error:
            judged = False  # what is there is of other runs
            warnings.warn(f"verdicts.md is not written: {error!r}. `cvhw4 report` tries again.", stacklevel=2)
    try:
        pages.append((write_html(store.folder, judged), "all of it as a page to read, with pictures"))
    except Exception as error:
        warnings.warn(f"report.html is not written: {error!r}. `cvhw4 report` tries again.", stacklevel=2)
    return pages


def write_report(stored: Stored, bounds: Bounds | None, missing: Mapping[str, str], verdicts: bool = False) -> Path:
    """Renders the stored runs, failed ones too, to `<results>/<study>/report.md`, with its pictures in `figures/`
    beside it; `verdicts` says whether there is, or will be, a verdicts.md too."""
    study, folder = stored.study, stored.store.folder
    try:
        pictures = pictures_of_report(stored)
    except Exception as error:  # tables matter more
        warnings.warn(f"no pictures are drawn: {error!r}", stacklevel=2)
        pictures = {}
    write_pictures(folder, (p for of_both in pictures.values() for _, p in of_both), KINDS)
    failures, tables = of_study(study, stored.failures), tables_in(study, folder)
    rest = failures, pictures, tables, stored.older, verdicts, agreement_of(folder)
    page = report_page(study, stored.rows, bounds, missing, *rest)
    write_atomically(folder / "report.md", page)
    return folder / "report.md"


def tables_in(study: Study, folder: Path) -> list[str]:
    """Where in a study's folder its own tables are, those that `write_tables` wrote."""
    paths = [f"{TABLES}/{name}{kind}" for name in study.tables for kind in (".tex", ".pdf")]
    return [path for path in paths if (folder / path).is_file()]


def agreement_of(folder: Path) -> str:
    """Where `cvhw4 agreement` wrote a page that has the pages of a study's folder, from there; "" where it did not."""
    for up in ("..", "../.."):
        page, ours = folder / up / "agreement.md", folder.resolve().relative_to((folder / up).resolve()).as_posix()
        if page.is_file() and f"]({ours}/report.md)" in page.read_text("utf-8", "replace"):
            return f"{up}/{page.name}"
    return ""


def pictures_of_report(stored: Stored) -> dict[tuple[str, str], list[tuple[str, Picture]]]:
    """The pictures by task and data set, each with its heading; those of the claims under two empty names."""
    study, store = stored.study, stored.store
    found: dict[tuple[str, str], list[tuple[str, Picture]]] = {}
    if stored.outcomes:
        found["", ""] = [("", forest(stored.outcomes, study))]
    for task in study.tasks:
        sets = by_data([r for r in stored.rows if r.task == task.name])
        stems = [file_stem(data) for data in sets]
        for number, (data, groups) in enumerate(sets.items(), 1):
            name = data if stems.count(file_stem(data)) == 1 else f"{data} {number}"
            drawn = found[task.name, data] = []
            for metric in all_shown(study, task, [r for runs in groups.values() for r in runs]):
                measured = {row: kept for row, runs in groups.items() if (kept := with_metric(runs, metric))}
                rows = [row for row in study.rows.values() if row.name in measured]
                drawable = study.train is None or any(len(r.epochs) > 1 for runs in measured.values() for r in runs)
                if rows and drawable:
                    stem = f"curves-{task.name}-{file_stem(metric)}-{file_stem(name)}"
                    taken = sum(picture.stem.startswith(stem) for _, picture in drawn)  # "recall+" and "recall-"
                    stem += f"-{taken + 1}" * bool(taken)
                    drawn.append(("Learning curves", curves(stem, name, measured, rows, metric, study)))
            drawn += pictures_of(study, task, groups, stored.images, store.samples, store.pictures, name)
    return found


def write_tables(study: Study, records: Iterable[RunRecord], folder: Path) -> list[Path]:
    """Writes the study's own tables (`Study.tables`) as LaTeX, and where there is a pdflatex as PDF; without one the
    PDF of a table that changed is removed.

    Raises:
        InputError: the study has none, one of them fits no run, the folder cannot be written to, or LaTeX fails.
    """
    runs, written, latex = list(records), [], shutil.which("pdflatex")
    if not study.tables:
        raise InputError(f"study {study.name}", "has no tables of its own", "name rows, or give it Study(tables=...)")
    for name, raw in study.tables.items():
        tables = results_table(study, runs, style_of(raw, f"study {study.name}, table {name}"))
        if not tables:
            continue  # none of its rows was trained
        text, path = rendered(tables, ".tex"), folder / f"{name}.tex"
        page = path.with_suffix(".pdf")
        if not path.is_file() or path.read_text("utf-8", "replace") != text:
            page.unlink(missing_ok=True)  # of another table
        write_atomically(path, text)
        written.append(path)
        if latex:
            write_atomically(page, _compiled(text, path))
            written.append(page)
    if not latex:
        warnings.warn("no PDFs are made of the tables: pdflatex is not installed", stacklevel=2)
    return written


def _compiled(text: str, path: Path) -> bytes:
    """A table as a page of PDF, the same bytes each time."""
    siunitx = r"\usepackage{siunitx}" if r"\num" in text else ""
    page = rf"\documentclass{{article}}\usepackage{{booktabs}}{siunitx}\pagestyle{{empty}}\begin{{document}}"
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as folder:
        (Path(folder) / "table.tex").write_text(f"{page}\n{text}\\end{{document}}\n", "utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
        fixed = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
        done = subprocess.run(command, cwd=folder, env=fixed, capture_output=True, text=True, errors="replace")
        if done.returncode:
            told = next((line for line in done.stdout.splitlines() if line.startswith("!")), "see its log")
            raise InputError(path, f"cannot be compiled ({told})", "install booktabs and siunitx, or look at the names")
        return (Path(folder) / "table.pdf").read_bytes()


def write_html(folder: Path, judged: bool = True) -> Path:
    """Renders `<folder>/report.html` from report.md and, where it is there and `judged` (of these runs), verdicts.md;
    raises InputError as `write_atomically` and `html_page`, OSError where a page or picture cannot be read."""
    report, verdicts = folder / "report.md", folder / "verdicts.md"
    verdicts_text = verdicts.read_text("utf-8") if judged and verdicts.exists() else ""
    pictures = {f"{FOLDER}/{path.name}": path.read_text("utf-8") for path in (folder / FOLDER).glob("*.svg")}
    path = folder / "report.html"
    write_atomically(path, html_page(report.read_text("utf-8"), verdicts_text, pictures))
    return path


def paper_picture(
    stored: Stored,
    kind: str,
    names: Sequence[str] | Mapping[str, str] = (),
    metric: str | None = None,
    width: float | None = None,
    together: bool = False,
) -> Picture:
    """A picture for a paper, as `stored_figure` has it; raises InputError where there is no such picture of these runs,
    or it takes no names, metric or panel of all rows."""
    study, takes = stored.study, {"claims": ["names"], "curves": ["names", "metric", "together"]}
    drawn = [] if kind in takes else section_pictures(study, stored)
    found = {picture.stem: picture for picture in drawn}
    if kind not in (*takes, *found):
        raise InputError(kind, "is not a picture that these runs make", f"choose one of {', '.join((*takes, *found))}")
    if len({(picture.svg, picture.alt) for picture in drawn if picture.stem == kind}) > 1:
        hint = "keep the runs of each in a results folder of its own"
        raise InputError(f"figure {kind}", "would be of several data sets", hint)
    given = {"names": names, "metric": metric, "together": together}
    if unused := [name for name, value in given.items() if value and name not in takes.get(kind, ())]:
        raise InputError(f"figure {kind}", f"takes no {unused[0]}", "leave it out, or draw curves")
    if kind == "claims":
        return claims_figure(study, stored.rows, 8.6 if width is None else width, names)
    if kind == "curves":
        return curves_figure(study, stored.rows, names, metric, width, together)
    return found[kind] if width is None else found[kind].at(width)


def stored_figure(
    study: Study | str | os.PathLike[str], kind: str, results: str | os.PathLike[str] = "results", **how: Any
) -> Picture:
    """A figure for a paper from a study's stored runs; `Picture.save` writes it.

    Args:
        study: as `stored` has it.
        kind: "claims", "curves", or the name of a picture in one of the study's sections: "decomposition" of the 2019
            report's, "effects-accuracy" of an `effects_section` about accuracy.
        results: the folder of records.
        how: `width` in inches; of claims and curves `names`, of curves `metric` and `together` too, as `claims_figure`
            and `curves_figure` have them.

    Raises:
        InputError: there is no such study, or no such picture of its runs.
    """
    found, _ = stored(study, results)
    return paper_picture(Stored(found, Store(Path(results), found.name)), kind, **how)
