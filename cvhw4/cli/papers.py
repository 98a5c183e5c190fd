"""Tables and figures for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvhw4.cli.common import RESULTS, ResultsOption, StudyOption, app, chosen_store, chosen_study, folder_of, row_names
from cvhw4.errors import InputError

if TYPE_CHECKING:
    from cvhw4.study import Study


@app.command("table")
def write_table(
    rows: Annotated[
        list[str] | None, typer.Argument(help="Rows, in this order (default: all).", autocompletion=row_names)
    ] = None,
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="A column, as accuracy; several times.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Row that the others are marked against.")] = None,
    marks: Annotated[str | None, typer.Option(help="tests against the baseline (default), or claims.")] = None,
    differences: Annotated[bool | None, typer.Option("--differences", help="From the baseline, as columns.")] = None,
    epoch: Annotated[str | None, typer.Option(help="best or last (default: as claims are judged).")] = None,
    spread: Annotated[str | None, typer.Option(help="sd (default), interval (its reach, 95 %) or none.")] = None,
    percent: Annotated[bool | None, typer.Option("--percent", help="Figures times 100.")] = None,
    digits: Annotated[int | None, typer.Option(help="Behind the point (default: as the spread deserves).")] = None,
    siunitx: Annotated[bool | None, typer.Option("--siunitx", help="LaTeX: numbers by that package.")] = None,
    caption: Annotated[str | None, typer.Option(help="Above the table; LaTeX and Typst: a float.")] = None,
    label: Annotated[str | None, typer.Option(help="To refer to it by.")] = None,
    style: Annotated[
        Path | None, typer.Option(help="TOML file of all this, and of names: rows.q1_1 = 'Features'.", parser=folder_of)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File: .tex, .typ, .md, .csv or .html (default: Markdown, printed).", parser=folder_of),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="The study's own tables, into RESULTS/STUDY/tables; PDFs too, with pdflatex.")
    ] = False,
) -> None:
    """Makes a table for a paper. Means over seeds; bold and marks only where the runs support them.

    Example: cvhw4 table q1_1 q1_2 q1_3 --metric accuracy --baseline q1_3 --output table.tex
    """
    from dataclasses import asdict

    from cvhw4.files import write_atomically
    from cvhw4.records.store import latest_runs
    from cvhw4.report.page import TABLES, write_tables
    from cvhw4.report.papers import Style, check_table, read_style, rendered, results_table, style_of

    if output is not None:
        check_table(output)
    chosen, store = chosen_study(study, results), chosen_store(results, study)
    given: dict[str, Any] = {
        "baseline": baseline, "marks": marks, "differences": differences, "epoch": epoch, "spread": spread,
        "percent": percent, "digits": digits, "siunitx": siunitx, "caption": caption, "label": label,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if every:
        others = given | {"output": output, "style": style, "metric": metric, "rows": rows}
        if unused := [name for name, value in others.items() if value not in (None, [])]:
            raise InputError("--all", f"takes no {unused[0]}", "leave it out, or give it to Study(tables=...)")
        for path in write_tables(chosen, latest_runs(store.load(), chosen), store.folder / TABLES):
            typer.echo(path)
        return
    base = asdict(Style() if style is None else read_style(style))
    if rows:
        given["rows"] = _called(chosen, base["rows"], rows)
    if metric:
        given["columns"] = {text: base["columns"].get(text, "") for text in metric}
    whole = style_of(base | given, "the options")
    tables = results_table(chosen, latest_runs(store.load(), chosen), whole)
    if not tables:
        raise InputError(store.folder, "has no runs of these rows", "train them first, or name others")
    text = rendered(tables, ".md" if output is None else output.suffix)
    if output is not None:
        write_atomically(output, text)
    typer.echo(text if output is None else output, nl=output is not None)


def _called(study: Study, style: Mapping[str, str], rows: Sequence[str]) -> dict[str, str]:
    """What a style calls rows that are asked for, by whichever of its names each is given in either place."""
    names = {study.row(row).name: name for row, name in style.items()}
    return {row: names.get(study.row(row).name, "") for row in rows}


@app.command("figure")
def write_figure(
    kind: Annotated[str, typer.Argument(help="claims, curves, or a picture of the study's own, as decomposition.")],
    output: Annotated[Path, typer.Argument(help="File: .pdf, .svg or .png.", parser=folder_of)],
    names: Annotated[
        list[str] | None, typer.Argument(help="Rows of curves, claims by id (default: all).", autocompletion=row_names)
    ] = None,
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Of curves (default: the first).")] = None,
    width: Annotated[float | None, typer.Option(help="In inches; a column of a paper has some 3.3.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Curves in one panel, with a legend.")] = False,
    style: Annotated[
        Path | None,
        typer.Option(help="TOML file of names: rows.q1_1 = 'Features', claims.ID = 'Skips help'.", parser=folder_of),
    ] = None,
) -> None:
    """Draws a figure for a paper. A forest plot of the claims, learning curves with their bands, or a section's own.

    Example: cvhw4 figure claims claims.pdf --width 3.3
    """
    from cvhw4.report.page import paper_picture
    from cvhw4.report.papers import Style, read_style
    from cvhw4.report.stored import Stored

    if width is not None and not 2 <= width <= 20:
        raise InputError(f"--width {width:g}", "is no width of a figure", "give 2 to 20 inches")
    chosen = chosen_study(study, results)
    of_paper = Style() if style is None else read_style(style)
    if kind == "claims":
        called = {name: of_paper.claims.get(name, "") for name in names} if names else of_paper.claims
    elif kind == "curves":
        called = _called(chosen, of_paper.rows, names) if names else of_paper.rows
    else:  # whether there is such a picture, and that it takes no names, `paper_picture` says
        called = dict.fromkeys(names or (), "")
    picture = paper_picture(Stored(chosen, chosen_store(results, study)), kind, called, metric, width, together)
    picture.save(output)
    typer.echo(f"{output}\n{picture.alt}")
