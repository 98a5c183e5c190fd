"""What commands share: options, the study and the store that they name, and tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cvhw4.records.store import Store
    from cvhw4.report.tables import Table
    from cvhw4.study import Study

WIDTH = 80  # of tables where there is no terminal
RESULTS = Path("results")

app = typer.Typer(
    help="Ablation studies in computer vision that a build can check. Train with: pytest benchmarks",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: typer's other one imports Markdown and highlighting, 0.2 s
)
fetch = typer.Typer(help="Get the real data sets.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")


def study_names(incomplete: str) -> list[str]:
    """Names of studies, for a shell's completion."""
    return [study.name for study in known_studies() if study.name.startswith(incomplete)]


def row_names(incomplete: str) -> list[str]:
    """Names of rows."""
    names = dict.fromkeys(row for study in known_studies() for row in study.rows)
    return [name for name in names if name.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """Names of rows, and runs stored below `results`."""
    stems = (p.parent.name + "-" + p.stem.split("-")[0] for p in RESULTS.glob("*/runs/*/seed*.json"))
    return [*row_names(incomplete), *sorted({name for name in stems if name.startswith(incomplete)})]


def known_studies() -> list[Study]:
    """The studies that pyproject.toml names."""
    from cvhw4.discovery import default_studies

    return default_studies(Path.cwd())


def folder_of(text: str) -> Path:
    """A path, without the `~` that a shell leaves in `--results=~/results`."""
    return Path(text).expanduser()


STUDY_HELP = "A file that makes a study (FILE::NAME of several), or the name of one that pyproject.toml names."
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of records and tables.", parser=folder_of)]
StudyOption = Annotated[str | None, typer.Option("--study", help=STUDY_HELP, autocompletion=study_names)]
BoundsOption = Annotated[
    Path | None, typer.Option("--bounds", help="File of calibrated bounds (default: the study's).", parser=folder_of)
]


def chosen_study(named: str | None, results: Path = RESULTS) -> Study:
    """The study that is named; the first that pyproject.toml names where none is. `cvhw4 judge` leaves some in
    `results`, of which the only one there need not be named."""
    from cvhw4.discovery import find_study, stored_study

    name = named or _only_one(results)
    return (name and stored_study(results / name)) or find_study(named)


def chosen_store(results: Path, study: str | None) -> Store:
    """The stored runs of a study; where none is named and pyproject.toml names none, of the only one that has runs."""
    from cvhw4.records.store import Store

    only = _only_one(results) if study is None else None
    return Store(results, only or chosen_study(study, results).name)


def _only_one(results: Path) -> str | None:
    """The only study that has runs, where pyproject.toml names none."""
    from cvhw4.records.revisions import studies_in

    there = studies_in(results) if not known_studies() else []
    return there[0] if len(there) == 1 else None


def say(*parts: Any) -> None:
    """Prints a line beside the output."""
    typer.echo(" ".join(str(p) for p in parts), err=True)


def print_tables(tables: Iterable[Table]) -> None:
    """Tables as wide as the terminal, or plain and 80 columns wide where there is none; a blank line between them."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal else WIDTH
    console = Console(force_terminal=terminal, width=width, markup=False, emoji=False, highlight=False)
    for i, table in enumerate(table for table in tables if table.rows):
        with console.capture() as captured:
            console.print(table.rich(console.width))
        lines = captured.get().splitlines()
        typer.echo("\n" * bool(i) + "\n".join(line.rstrip() for line in lines))
