"""`cvhw4`: data, stored runs, tables and bounds from the command line. Training is pytest's: `pytest benchmarks`."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cvhw4.errors import InputError, printable
from cvhw4.experiments import PROFILES, Profile

if TYPE_CHECKING:
    from cvhw4.report.grid import Grid

WIDTH = 80  # of tables where there is no terminal

app = typer.Typer(
    help="Ablation studies in computer vision that a build can check. Train with: pytest benchmarks",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: typer's other one imports Markdown and highlighting, 0.2 s
)
fetch = typer.Typer(help="Get the real data sets.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")


def _profiles(incomplete: str) -> list[str]:
    """Names of profiles, for a shell's completion."""
    return [name for name in PROFILES if name.startswith(incomplete)]


def _row_names(incomplete: str) -> list[str]:
    """Ids of rows."""
    ids = dict.fromkeys(row.id for profile in PROFILES.values() for row in profile.rows)
    return [id for id in ids if id.startswith(incomplete)]


def _run_names(incomplete: str) -> list[str]:
    """Ids of rows, and runs stored below `results`."""
    stems = (p.parent.name + "-" + p.stem.split("-")[0] for p in RESULTS.glob("*/runs/*/seed*.json"))
    return [*_row_names(incomplete), *sorted({name for name in stems if name.startswith(incomplete)})]


PROFILE_HELP = f"One of: {', '.join(PROFILES)}."
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of records and tables.")]
ProfileOption = Annotated[str, typer.Option("--profile", help=PROFILE_HELP, autocompletion=_profiles)]
AblationOption = Annotated[
    Path | None, typer.Option("--ablation", help="File that makes your own ablation; --profile names one of several.")
]
BoundsOption = Annotated[Path, typer.Option("--bounds", help="File of calibrated bounds.")]

_USAGE_ERRORS: Any = typer.BadParameter.__bases__  # click's, wherever this version of typer keeps it
RESULTS, BOUNDS = Path("results"), Path("benchmarks/bounds.toml")


def main() -> None:
    """Runs a command; unusable input ends it with one line and exit code 4, a warning is one line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # where the locale has no bars and dashes
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    gc.set_threshold(100_000, 20, 20)  # 700 by default: looking through ever more records costs a tenth of a report
    try:
        code = app(prog_name="cvhw4", standalone_mode=False)
    except InputError as error:
        _end(str(error))
    except _USAGE_ERRORS as error:
        if not (problem := error.format_message()):
            raise SystemExit(2) from None  # no command was named, and the help is told
        _end(
            f"{printable(problem.rstrip('.'))}. To mend: see {error.ctx.command_path if error.ctx else 'cvhw4'} --help."
        )
    except typer.Abort:
        raise SystemExit(1) from None
    raise SystemExit(code)


def _end(problem: str) -> NoReturn:
    typer.echo(f"error: {problem}", err=True)
    raise SystemExit(4) from None


def _version(asked: bool) -> None:
    if not asked:
        return
    from cvhw4 import __version__

    typer.echo(f"cvhw4 {__version__}")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@fetch.command("camvid")
def fetch_camvid(
    destination: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("local/CamVid"),
    source: Annotated[
        str | None, typer.Option("--from", help="A zip or folder of the SegNet tutorial you have already.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What an earlier fetch reported; anything else is refused.")
    ] = None,
) -> None:
    """Downloads CamVid (the SegNet tutorial's copy, 480x360, 11 classes and void) and checks it.

    Example: cvhw4 fetch camvid, then pytest benchmarks --camvid local/CamVid
    """
    from cvhw4.data.fetch import fetch_camvid as fetch

    typer.echo(f"ready: {fetch(destination, source=source, sha256=sha256, progress=_say)}")


@fetch.command("portraits")
def fetch_portraits(
    celeba: Annotated[Path, typer.Option("--celeba", help="Your copy of CelebA (aligned pictures, attribute list).")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("local/portraits"),
) -> None:
    """Builds the report's 2000 training and 400 validation portraits by make-up from a copy of CelebA.

    Example: cvhw4 fetch portraits --celeba ~/CelebA, then pytest benchmarks --portraits local/portraits
    """
    from cvhw4.data.fetch import fetch_portraits as fetch

    typer.echo(f"ready: {fetch(celeba, destination)}")


@app.command()
def report(
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    bounds: BoundsOption = BOUNDS,
    ablation: AblationOption = None,
) -> None:
    """Writes the pages anew from the stored runs: report.md, verdicts.md (which claims hold, and how sure), and
    report.html, both of them with their pictures as one page to read.

    Example: cvhw4 report --profile full --results results
    """
    from cvhw4.records.revisions import mend_of
    from cvhw4.records.store import Store
    from cvhw4.report.page import write_html, write_report
    from cvhw4.report.stored import Stored
    from cvhw4.report.verdicts import write_verdicts
    from cvhw4.statistics.bounds import NO_BOUNDS, load_bounds

    chosen = profile_of(profile, ablation)
    named = bounds != BOUNDS
    bounded = not chosen.own and (named or bounds.exists())
    judged_by = load_bounds(bounds, chosen.name, named=named) if bounded else NO_BOUNDS
    store = Store(results, chosen.name)
    if not os.path.isdir(store.folder):
        raise InputError(store.folder, "is no folder of runs", mend_of(store, "name one with --results"))
    stored = Stored(chosen, store)
    typer.echo(write_report(chosen, store, judged_by, {}, stored))
    typer.echo(write_verdicts(chosen, store, judged_by, stored))
    typer.echo(write_html(store.folder))


@app.command()
def calibrate(
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    bounds: BoundsOption = BOUNDS,
    false_alarms: Annotated[
        float, typer.Option(help="Share of nightly sessions in which any bound at all may be missed by chance.")
    ] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a nightly session.")] = 3,
) -> None:
    """Writes the bounds file anew. From the stored runs on embedded data, five seeds of every row or more.

    Example: pytest benchmarks --seeds 20 --results calibration, then cvhw4 calibrate --results calibration
    """
    from cvhw4.records.store import Store, latest_studies, write_atomically
    from cvhw4.statistics.bounds import calibrate as make_bounds
    from cvhw4.statistics.bounds import to_toml

    chosen = profile_of(profile, own=False)
    records = latest_studies(Store(results, profile).load())
    write_atomically(bounds, to_toml(profile, make_bounds(chosen, records, false_alarms, seeds)))
    typer.echo(f"wrote {bounds} from {len(records)} runs")


@app.command()
def floors(results: ResultsOption = RESULTS, profile: ProfileOption = "quick", device: str = "cpu") -> None:
    """Measures this machine. Writes floors.md: what every row costs at least, and how far above it its runs were.

    Example: cvhw4 floors --profile full --device cuda
    """
    import torch

    from cvhw4.records.environment import device_name
    from cvhw4.records.store import Store, latest_studies, write_atomically
    from cvhw4.report.floors import floors_page
    from cvhw4.report.tables import by_id
    from cvhw4.study import pick_device
    from cvhw4.training.cost import measure_machine

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}", "is not a device", "choose one of auto, cpu, cuda")
    chosen, where, store = profile_of(profile, own=False), pick_device(device), Store(results, profile)
    records = latest_studies(store.load())
    here = [r for r in records if r.environment["device_name"] == device_name(where)]
    machine = measure_machine(torch.device(where), "float32" if where.type == "cpu" else "bfloat16")
    path = store.folder / "floors.md"
    write_atomically(path, floors_page(profile, chosen.rows, by_id(here), machine))
    typer.echo(path)


@app.command()
def rows(profile: ProfileOption = "quick", ablation: AblationOption = None) -> None:
    """Lists the rows of a profile. What each trains; as Markdown where the output is no terminal.

    Example: cvhw4 rows --profile full
    """
    from cvhw4.report.grid import Grid
    from cvhw4.report.tables import setting

    chosen = profile_of(profile, ablation)
    for question in ("q1", "q2"):
        lines = [
            {"row": e.id, **setting(e), "size": e.recipe.size, "batch": e.recipe.batch, "epochs": e.recipe.epochs}
            for e in chosen.of(question)
        ]
        if not lines:
            continue
        grid = Grid(tuple(lines[0]), [tuple(map(str, line.values())) for line in lines])
        if sys.stdout.isatty():
            _print([grid])
        else:
            typer.echo(grid.markdown() + "\n")


@app.command("list")
def list_runs(
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    row: Annotated[
        str | None, typer.Option("--row", help="Only this row (q1_2, q1_2-finetune).", autocompletion=_row_names)
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that could not be finished.")] = False,
    by_row: Annotated[bool, typer.Option("--rows", help="One line per row, with the mean of its latest runs.")] = False,
    ablation: AblationOption = None,
) -> None:
    """Lists the stored runs. Newest first: best and last figure, time, device, whether of the row's latest study.

    Example: cvhw4 list --row q1_2
    """
    from cvhw4.records.store import Store
    from cvhw4.report.show import failures_grid, find, rows_grid, runs_grid, runs_of

    store = Store(results, profile_of(profile, ablation).name)
    runs = runs_of(store)
    if row is not None and not any(row in (run.id, run.row) for run in find(row, runs, store)):
        raise InputError(f"--row {row}", "is no row", "name one as cvhw4 list --rows does")
    finished = [run for run in runs.finished if row in (None, run.id, run.row)]
    broken = [run for run in runs.failed if row in (None, run.id, run.row)]
    grids = [] if failed else [(rows_grid if by_row else runs_grid)(finished, runs.latest)]
    _print(grid for grid in [*grids, failures_grid(broken)] if grid.rows)
    if (not finished and not broken) or (failed and not broken):
        typer.echo(f"no {'failed ' if failed else ''}runs in {printable(str(store.folder))}", err=True)


@app.command()
def show(
    run: Annotated[
        str,
        typer.Argument(
            help="A run (q1_2-finetune-seed0), a row (q1_2), the beginning of a fingerprint, or a record's path.",
            autocompletion=_run_names,
        ),
    ],
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    ablation: AblationOption = None,
) -> None:
    """Shows a stored run. Settings, data, weights, epochs, figures, times and files; of a row, its latest runs.

    Example: cvhw4 show q1_2-finetune-seed0
    """
    from cvhw4.records.schema import Failure
    from cvhw4.records.store import Store
    from cvhw4.report.show import failures_grid, find, runs_grid, runs_of, shown

    profile = profile_of(profile, ablation).name
    if run.endswith(".json") and os.path.isfile(run):  # of its own store, where it lies in one
        folder = (Path(run).resolve().parent / ".." / "..").resolve()
        results, profile = folder.parent, folder.name
    store = Store(results, profile)
    runs = runs_of(store)
    found = find(run, runs, store)
    if len(found) > 1:
        finished = [r for r in found if not isinstance(r, Failure)]
        _print([runs_grid(finished, runs.latest), failures_grid(f for f in found if isinstance(f, Failure))])
        typer.echo("")
    _print(shown(found[0], runs, store))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Results folder, or git revision of one (main, v1.0:results).")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is held against it.")],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", help=f"{PROFILE_HELP} Default: quick, or what A or B names.", autocompletion=_profiles
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A page for a pull request's comment.")] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="Training that takes so many times as long in B is a regression."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="A row or figure that A has and B lacks is a regression.")
    ] = False,
    ablation: AblationOption = None,
) -> None:
    """Says what moved from A to B. Figures, claims, failed runs and times; exit code 1 where something is worse.

    Example: cvhw4 compare main results --time-limit 1.2
    """
    from cvhw4.records.revisions import opened
    from cvhw4.report.changes import comment, headline, short_grids, short_lines
    from cvhw4.report.failures import latest_failures
    from cvhw4.statistics.changes import compare_runs

    if profile is not None or ablation is not None:
        profile = profile_of(profile or "quick", ablation).name
    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}", "is no ratio of times", "give one above 0, as 1.2")
    if profile is None:
        named = {Path(side).resolve().name for side in (a, b) if (Path(side) / "runs").is_dir()}
        profile = named.pop() if len(named) == 1 else None
    with opened(a, profile) as (store_a, name), opened(b, profile) as (store_b, name_b):
        if name != name_b:
            raise InputError(b, f"is of profile {name_b}, and A of {name}", "name runs of one profile")
        records = [store.load() for store in (store_a, store_b)]
        failures = [store.failures() for store in (store_a, store_b)]
    for side, found in zip((a, b), records, strict=True):
        if not found:
            raise InputError(side, f"has no runs of profile {name}", "name a folder or revision that has some")
    broken = [latest_failures(r, f) for r, f in zip(records, failures, strict=True)]
    changes = compare_runs(profile_of(name), records[0], records[1], broken[0], broken[1], time_limit, complete)
    if markdown:
        typer.echo(comment(changes, a, b), nl=False)
    else:
        grids = short_grids(changes)
        _print(grids)
        if grids:
            typer.echo("")
        for line in [*short_lines(changes), headline(changes)]:
            typer.echo(printable(line))
    raise typer.Exit(int(changes.regression))


def profile_of(name: str, ablation_file: Path | None = None, own: bool = True) -> Profile:
    """The profile of that name, or the own ablation that a file makes: of several that of the name.

    Args:
        own: whether the command takes own ablations.

    Raises:
        InputError: there is none.
    """
    if ablation_file is not None:
        from cvhw4.ablation import load_profile

        return load_profile(ablation_file, None if name in ("full", "quick") else name)
    if name not in PROFILES:
        mend = f"choose one of {', '.join(PROFILES)}"
        if own:
            mend += ", or name the file that makes your own ablation with --ablation FILE"
        raise InputError(f"--profile {name}", "is not a profile", mend)
    return PROFILES[name]


def _say(*parts: Any) -> None:
    typer.echo(" ".join(str(p) for p in parts), err=True)


def _print(grids: Iterable[Grid]) -> None:
    """Tables as wide as the terminal, or plain and 80 columns wide where there is none; a blank line between them."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal else WIDTH
    console = Console(force_terminal=terminal, width=width, markup=False, emoji=False, highlight=False)
    for i, grid in enumerate(grid for grid in grids if grid.rows):
        with console.capture() as captured:
            console.print(grid.rich())
        lines = captured.get().splitlines()
        typer.echo("\n" * bool(i) + "\n".join(line.rstrip() for line in lines))
