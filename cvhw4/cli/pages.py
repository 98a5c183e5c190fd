"""Pages and bounds of stored runs, lists of them, one of them, and two stores compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cvhw4.cli.common import (
    RESULTS,
    STUDY_HELP,
    BoundsOption,
    ResultsOption,
    StudyOption,
    app,
    chosen_store,
    chosen_study,
    folder_of,
    known_studies,
    print_tables,
    row_names,
    run_names,
)
from cvhw4.errors import InputError, printable


@app.command()
def report(results: ResultsOption = RESULTS, study: StudyOption = None, bounds: BoundsOption = None) -> None:
    """Writes the pages anew from the stored runs: report.md, verdicts.md (which claims hold, and how sure), and
    report.html, both of them with their pictures as one page to read.

    Example: cvhw4 report --study full --results results
    """
    from cvhw4.records.revisions import hint_of
    from cvhw4.records.store import Store
    from cvhw4.report.page import write_pages
    from cvhw4.statistics.bounds import bounds_of

    chosen = chosen_study(study, results)
    judged_by = bounds_of(chosen, bounds)
    store = Store(results, chosen.name)
    if not os.path.isdir(store.folder):
        raise InputError(store.folder, "is not a folder of runs", hint_of(store, "name one with --results"))
    for page, _ in write_pages(chosen, store, judged_by, {}):
        typer.echo(page)


@app.command()
def agreement(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS]...", help="Results folders (default: results).", parser=folder_of),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", help=f"{STUDY_HELP} Can be repeated: the one that answers best last. (default: all)"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="File to write (default: agreement.md in the first).", parser=folder_of),
    ] = None,
) -> None:
    """Writes whether settings answer alike: each claim on generated and on real pictures, at every size, and as
    published; with differences, intervals, verdicts, signs and the order of rows.

    Example: cvhw4 agreement results
    """
    from cvhw4.files import write_atomically
    from cvhw4.report.agreement import agreement_page, settings_of

    given = folders or [RESULTS]
    studies = [chosen_study(name) for name in study] if study else known_studies() or [chosen_study(None)]
    path = page or given[0] / "agreement.md"
    write_atomically(path, agreement_page(settings_of(studies, given), path.parent))
    typer.echo(path)


@app.command()
def calibrate(
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    bounds: BoundsOption = None,
    false_alarms: Annotated[
        float, typer.Option(help="Share of nightly sessions in which any bound at all may be missed by chance.")
    ] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a nightly session.")] = 3,
    twins: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="<Path>",
            help="Results folder of the same rows and seeds from another machine, or with other threads: rows "
            "that give the same figures there are held against the run of the same seed. Can be repeated.",
            parser=folder_of,
        ),
    ] = None,
    nights: Annotated[
        int,
        typer.Option(
            min=0,
            help="Sessions of which it is tried how often they miss bounds calibrated anew without their seeds; half a "
            "second each.",
        ),
    ] = 200,
) -> None:
    """Writes the bounds file anew. From the stored runs, five seeds of every row or more.

    Example: pytest benchmarks --seeds 20 --results calibration, then cvhw4 calibrate --results calibration
    """
    from cvhw4.files import write_atomically
    from cvhw4.records.store import Store, latest_runs
    from cvhw4.statistics.calibration import calibrate as make_bounds
    from cvhw4.statistics.calibration import of_other_studies, to_toml, with_new_seeds

    chosen = chosen_study(study, results)
    path = bounds or chosen.bounds
    if path is None:
        raise InputError(f"study {chosen.name}", "has no bounds file", "name one with --bounds, or Study(bounds=...)")
    records = latest_runs(Store(results, chosen.name).load(), chosen)
    elsewhere = []
    for folder in dict.fromkeys(map(Path.resolve, twins or ())):
        found = latest_runs(Store(folder, chosen.name).load(), chosen)
        if not found:
            raise InputError(f"--twins {folder}", f"has no runs of study {chosen.name}", "name a results folder of it")
        elsewhere += found
    made = make_bounds(chosen, records, false_alarms, seeds, elsewhere or None)
    made = with_new_seeds(chosen, records, made, elsewhere or None, nights)
    before = Path(path).read_text("utf-8", "replace") if Path(path).is_file() else ""
    write_atomically(Path(path), to_toml(chosen, made) + of_other_studies(before, chosen))
    typer.echo(f"wrote {path}, {made.source}")
    if made.held_out is None:
        typer.echo(f"how often unchanged code misses them is not known: {seeds} of these seeds leave too few", err=True)
    elif made.held_out > false_alarms:
        typer.echo(
            f"unchanged code misses them in {made.held_out:.1%} of nights: too many have more runs that learned far "
            "less than others than are passed over",
            err=True,
        )


@app.command()
def rows(study: StudyOption = None) -> None:
    """Lists the rows of a study. What each trains; as Markdown where the output is no terminal.

    Example: cvhw4 rows --study full
    """
    from cvhw4.report.tables import Table
    from cvhw4.study.rows import design

    for lines in design(chosen_study(study).rows.values()):
        table = Table.of(lines)
        if sys.stdout.isatty():
            print_tables([table])
        else:
            typer.echo(table.markdown() + "\n")


@app.command("list")
def list_runs(
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    row: Annotated[str | None, typer.Option("--row", help="Only this row.", autocompletion=row_names)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that could not be finished.")] = False,
    by_row: Annotated[bool, typer.Option("--rows", help="One line per row, with the mean of its latest runs.")] = False,
) -> None:
    """Lists the stored runs. Newest first: best and last figure, time, device, whether of the row's latest study.

    Example: cvhw4 list --row q1_2-finetune
    """
    from cvhw4.report.show import failures_table, is_row, rows_table, runs_of, runs_table

    store = chosen_store(results, study)
    runs = runs_of(store)
    finished = [run for run in runs.finished if row is None or is_row(row, run)]
    broken = [run for run in runs.failed if row is None or is_row(row, run)]
    if row is not None and not finished and not broken:
        raise InputError(f"--row {row}", "is not the name of a stored row", "name one as cvhw4 list --rows does")
    tables = [] if failed else [(rows_table if by_row else runs_table)(finished, runs.latest)]
    print_tables([*tables, failures_table(broken)])
    if (not finished and not broken) or (failed and not broken):
        typer.echo(f"no {'failed ' if failed else ''}runs in {printable(str(store.folder))}", err=True)


@app.command()
def show(
    run: Annotated[
        str,
        typer.Argument(
            help="A run (q1_2-finetune-seed0), a row, the beginning of a fingerprint, or a record's path.",
            autocompletion=run_names,
        ),
    ],
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
) -> None:
    """Shows a stored run. Settings, data, weights, epochs, figures, times and files; of a row, its latest runs.

    Example: cvhw4 show q1_2-finetune-seed0
    """
    from cvhw4.records.schema import Failure
    from cvhw4.records.store import Store
    from cvhw4.report.show import failures_table, find, runs_of, runs_table, shown

    if run.endswith(".json") and os.path.isfile(run):  # of its own store, where it lies in one
        folder = (Path(run).resolve().parent / ".." / "..").resolve()
        store = Store(folder.parent, folder.name)
    else:
        store = chosen_store(results, study)
    runs = runs_of(store)
    found = find(run, runs, store)
    if len(found) > 1:
        finished = [r for r in found if not isinstance(r, Failure)]
        print_tables([runs_table(finished, runs.latest), failures_table(f for f in found if isinstance(f, Failure))])
        typer.echo("")
    print_tables(shown(found[0], runs, store))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Results folder, or git revision of one (main, v1.0:results).")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is held against it.")],
    study: StudyOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A page for a pull request's comment.")] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="Training that takes so many times as long in B is a regression."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="A row or figure that A has and B lacks is a regression.")
    ] = False,
) -> None:
    """Says what moved from A to B. Figures, claims, failed runs and times; exit code 1 where something is worse.

    Example: cvhw4 compare main results --time-limit 1.2
    """
    from cvhw4.discovery import stored_study
    from cvhw4.records.revisions import opened, studies_in
    from cvhw4.report.changes import comment, headline, short_lines, short_tables
    from cvhw4.report.failures import latest_failures
    from cvhw4.statistics.changes import compare_runs

    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}", "is not a ratio of times", "give one above 0, as 1.2")
    sides = [Path(side) for side in (a, b) if Path(side).is_dir()]
    left = [kept for side in sides if study and (kept := stored_study(side / study))]  # by cvhw4 judge
    chosen = None if study is None else (left or [chosen_study(study)])[-1]
    named = {Path(side).resolve().name for side in (a, b) if (Path(side) / "runs").is_dir()}
    name = chosen.name if chosen is not None else named.pop() if len(named) == 1 else None
    there = {of_side for side in sides for of_side in studies_in(side)}
    if name is None and (known := known_studies()) and (known[0].name in there or not there):
        name = known[0].name
    with opened(a, name) as (store_a, name_a), opened(b, name) as (store_b, name_b):
        if name_a != name_b:
            raise InputError(b, f"is of study {name_b}, and A of {name_a}", "name runs of one study")
        judged = chosen or stored_study(store_b.folder) or chosen_study(name_a)
        records = [store.load() for store in (store_a, store_b)]
        failures = [store.failures() for store in (store_a, store_b)]
    for side, found in zip((a, b), records, strict=True):
        if not found:
            raise InputError(side, f"has no runs of study {name_a}", "name a folder or revision that has some")
    broken = [latest_failures(r, f) for r, f in zip(records, failures, strict=True)]
    changes = compare_runs(judged, records[0], records[1], broken[0], broken[1], time_limit, complete)
    if not (changes.figures or changes.gaps or changes.failed):
        data = ["; ".join(sorted({r.data.name for r in found})) for found in records]
        problem = f"has no row on the data that it is on in A (A: {data[0]}. B: {data[1]})"
        raise InputError(b, problem, "compare runs of the same rows on the same data")
    if markdown:
        typer.echo(comment(changes, a, b), nl=False)
    else:
        tables = short_tables(changes)
        print_tables(tables)
        if tables:
            typer.echo("")
        for line in [*short_lines(changes), headline(changes)]:
            typer.echo(printable(line))
    raise typer.Exit(int(changes.regression))
