"""What more seeds would show, how figures moved over nights, and since which commit a row is worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvhw4.cli.common import (
    RESULTS,
    ResultsOption,
    StudyOption,
    app,
    chosen_store,
    chosen_study,
    folder_of,
    print_tables,
    row_names,
    say,
)
from cvhw4.errors import InputError


@app.command()
def plan(
    seeds: Annotated[
        list[int] | None, typer.Argument(help="Numbers of seeds to plan for (default: 3 5 10 20).")
    ] = None,
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
) -> None:
    """Says what more seeds could show. From a pilot: the smallest difference that n seeds decide, and their hours.

    Example: pytest benchmarks --seeds 3, then cvhw4 plan 5 10 20
    """
    from cvhw4.records.store import latest_runs
    from cvhw4.report.plan import hours_table, plan_table
    from cvhw4.report.runs import of_study
    from cvhw4.statistics.bounds import bounds_of

    chosen = chosen_study(study, results)
    numbers = sorted(set(seeds or (3, 5, 10, 20)))
    if numbers[0] < 2:
        raise InputError(f"{numbers[0]} seed", "has no spread and decides nothing", "plan for 2 or more")
    store = chosen_store(results, study)
    records = of_study(chosen, latest_runs(store.load(), chosen))
    print_tables([plan_table(chosen, records, numbers, bounds_of(chosen)), hours_table(records, numbers)])


@app.command()
def history(
    folder: Annotated[Path, typer.Argument(help="A history's folder, as a checkout of its branch.", parser=folder_of)],
    row: Annotated[str | None, typer.Option("--row", help="Only this row.", autocompletion=row_names)] = None,
    page: Annotated[bool, typer.Option("--page", help="Write index.html and badge.svg there.")] = False,
) -> None:
    """Says how figures moved over nights. Changes of level and the commits they lie between, and the latest figures.

    Example: cvhw4 history ~/cvhw4-nightly/history --row q1_2-finetune
    """
    from cvhw4.records.history import History
    from cvhw4.report.history import found_shifts, latest_table, shifts_table, write_history

    nights = History(folder).nights
    if not nights:
        hint = "name a checkout of the history's branch, or STORE/history"
        if any(next(folder.glob(pattern), None) for pattern in ("runs", "*/runs")):
            hint = "name the one of cvhw4 judge --history; two results folders are for cvhw4 compare OLD NEW"
        raise InputError(folder, "has no nights", hint)
    found = found_shifts(nights)
    if row is not None:
        found = {key: of_row for key, of_row in found.items() if key[0] == row}
        if not found:
            raise InputError(f"--row {row}", "is not a row of any night", "leave it out to see them all")
    print_tables([shifts_table(found), latest_table(found)])
    typer.echo(f"{len(nights)} nights, the last of {nights[-1].started[:10]}: {nights[-1].state}")
    if page:
        typer.echo(write_history(folder, nights))


@app.command("bisect")
def find_commit(
    row: Annotated[str, typer.Argument(help="The row that is worse.", autocompletion=row_names)],
    good: Annotated[str, typer.Argument(help="A commit at which it was not.")],
    bad: Annotated[str, typer.Argument(help="A later one at which it is.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Of pytest, behind --: what it collects.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the row at each commit.")] = 3,
    results: Annotated[Path, typer.Option(help="Folder for the runs.", parser=folder_of)] = Path("local/bisect"),
) -> None:
    """Finds the commit that made a row worse. By git's bisection, training that row alone at each commit.

    Example: cvhw4 bisect q1_2-finetune v1.0 main -- benchmarks --profile full --device cuda
    """
    from cvhw4.bisection import bisect

    typer.echo(f"first worse: {bisect(row, good, bad, arguments or [], results, say, seeds)}")
