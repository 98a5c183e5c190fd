"""`cvhw4`: data, stored runs, tables and bounds from the command line. Training is pytest's: `pytest benchmarks`."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cvhw4.errors import InputError, printable

if TYPE_CHECKING:
    from cvhw4.records.store import Store
    from cvhw4.report.tables import Table
    from cvhw4.study import Study

WIDTH = 80  # of tables where there is no terminal

app = typer.Typer(
    help="Ablation studies in computer vision that a build can check. Train with: pytest benchmarks",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: typer's other one imports Markdown and highlighting, 0.2 s
)
fetch = typer.Typer(help="Get the real data sets.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")


def _studies(incomplete: str) -> list[str]:
    """Names of studies, for a shell's completion."""
    return [study.name for study in _known() if study.name.startswith(incomplete)]


def _row_names(incomplete: str) -> list[str]:
    """Names of rows."""
    return [name for name in dict.fromkeys(row for s in _known() for row in s.rows) if name.startswith(incomplete)]


def _run_names(incomplete: str) -> list[str]:
    """Names of rows, and runs stored below `results`."""
    stems = (p.parent.name + "-" + p.stem.split("-")[0] for p in RESULTS.glob("*/runs/*/seed*.json"))
    return [*_row_names(incomplete), *sorted({name for name in stems if name.startswith(incomplete)})]


def _known() -> list[Study]:
    from cvhw4.discovery import default_studies

    return default_studies(Path.cwd())


def _folder(text: str) -> Path:
    return Path(text).expanduser()


STUDY_HELP = "A file that makes a study (FILE::NAME of several), or the name of one that pyproject.toml names."
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of records and tables.", parser=_folder)]
StudyOption = Annotated[str | None, typer.Option("--study", help=STUDY_HELP, autocompletion=_studies)]
BoundsOption = Annotated[
    Path | None, typer.Option("--bounds", help="File of calibrated bounds (default: the study's).", parser=_folder)
]

_USAGE_ERRORS: Any = typer.BadParameter.__bases__  # click's, wherever this version of typer keeps it
RESULTS = Path("results")


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
        _end(f"{printable(problem.rstrip('.'))}. Fix: see {error.ctx.command_path if error.ctx else 'cvhw4'} --help.")
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
    destination: Annotated[Path, typer.Argument(help="Folder to make.", parser=_folder)] = Path("local/CamVid"),
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="A zip or folder of the SegNet tutorial you have already.", parser=os.path.expanduser
        ),
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
    celeba: Annotated[
        Path, typer.Option("--celeba", help="Your copy of CelebA (aligned pictures, attribute list).", parser=_folder)
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to make.", parser=_folder)] = Path("local/portraits"),
) -> None:
    """Builds the report's 2000 training and 400 validation portraits by make-up from a copy of CelebA.

    Example: cvhw4 fetch portraits --celeba ~/CelebA, then pytest benchmarks --portraits local/portraits
    """
    from cvhw4.data.fetch import fetch_portraits as fetch

    typer.echo(f"ready: {fetch(celeba, destination)}")


@app.command()
def report(
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    bounds: BoundsOption = None,
) -> None:
    """Writes the pages anew from the stored runs: report.md, verdicts.md (which claims hold, and how sure), and
    report.html, both of them with their pictures as one page to read.

    Example: cvhw4 report --study full --results results
    """
    from cvhw4.records.revisions import hint_of
    from cvhw4.records.store import Store
    from cvhw4.report.page import write_pages
    from cvhw4.statistics.bounds import NO_BOUNDS, load_bounds

    chosen = _study(study, results)
    path = bounds or _bounds_of(chosen)
    judged_by = NO_BOUNDS if path is None else load_bounds(path, chosen, named=bounds is not None)
    store = Store(results, chosen.name)
    if not os.path.isdir(store.folder):
        raise InputError(store.folder, "is not a folder of runs", hint_of(store, "name one with --results"))
    for page, _ in write_pages(chosen, store, judged_by, {}):
        typer.echo(page)


@app.command()
def agreement(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS]...", help="Results folders (default: results).", parser=_folder),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", help=f"{STUDY_HELP} Can be repeated: the one that answers best last. (default: all)"),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="File to write (default: agreement.md in the first).", parser=_folder)
    ] = None,
) -> None:
    """Writes whether settings answer alike: each claim on generated and on real pictures, at every size, and as
    published; with differences, intervals, verdicts, signs and the order of rows.

    Example: cvhw4 agreement results
    """
    from cvhw4.files import write_atomically
    from cvhw4.report.agreement import agreement_page, settings_of

    given = folders or [RESULTS]
    studies = [_study(name) for name in study] if study else _known() or [_study(None)]
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
        Path | None,
        typer.Option(
            help="Results folder of the same rows and seeds from another machine, or with other threads: rows "
            "that give the same figures there are held against the run of the same seed.",
            parser=_folder,
        ),
    ] = None,
) -> None:
    """Writes the bounds file anew. From the stored runs, five seeds of every row or more.

    Example: pytest benchmarks --seeds 20 --results calibration, then cvhw4 calibrate --results calibration
    """
    from cvhw4.files import write_atomically
    from cvhw4.records.store import Store, latest_runs
    from cvhw4.statistics.calibration import calibrate as make_bounds
    from cvhw4.statistics.calibration import to_toml

    chosen = _study(study, results)
    path = bounds or chosen.bounds
    if path is None:
        raise InputError(f"study {chosen.name}", "has no bounds file", "name one with --bounds, or Study(bounds=...)")
    records = latest_runs(Store(results, chosen.name).load())
    elsewhere = None if twins is None else latest_runs(Store(twins, chosen.name).load())
    made = make_bounds(chosen, records, false_alarms, seeds, elsewhere)
    write_atomically(Path(path), to_toml(chosen, made))
    typer.echo(f"wrote {path} from {len(records)} runs")
    if made.held_out is None:
        typer.echo(f"how often unchanged code misses them is not known: {seeds} of these seeds leave too few", err=True)
    elif made.held_out > false_alarms:
        typer.echo(
            f"unchanged code misses them in {made.held_out:.1%} of nights, as all runs of a row collapse", err=True
        )


@app.command()
def rows(study: StudyOption = None) -> None:
    """Lists the rows of a study. What each trains; as Markdown where the output is no terminal.

    Example: cvhw4 rows --study full
    """
    from cvhw4.report.tables import Table

    chosen = _study(study)
    for task in chosen.tasks:
        lines = [
            {
                "row": row.name,
                **task.columns(row),
            }
            | (
                {"size": row.recipe.size, "batch": row.recipe.batch, "epochs": row.epochs}
                if row.epochs is not None
                else {}
            )
            for row in chosen.of(task)
        ]
        table = Table(tuple(lines[0]), [tuple(map(str, line.values())) for line in lines])
        if sys.stdout.isatty():
            _print([table])
        else:
            typer.echo(table.markdown() + "\n")


@app.command("list")
def list_runs(
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    row: Annotated[str | None, typer.Option("--row", help="Only this row.", autocompletion=_row_names)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that could not be finished.")] = False,
    by_row: Annotated[bool, typer.Option("--rows", help="One line per row, with the mean of its latest runs.")] = False,
) -> None:
    """Lists the stored runs. Newest first: best and last figure, time, device, whether of the row's latest study.

    Example: cvhw4 list --row q1_2-finetune
    """
    from cvhw4.report.show import failures_table, is_row, rows_table, runs_of, runs_table

    store = _store(results, study)
    runs = runs_of(store)
    finished = [run for run in runs.finished if row is None or is_row(row, run)]
    broken = [run for run in runs.failed if row is None or is_row(row, run)]
    if row is not None and not finished and not broken:
        raise InputError(f"--row {row}", "is not the name of a stored row", "name one as cvhw4 list --rows does")
    tables = [] if failed else [(rows_table if by_row else runs_table)(finished, runs.latest)]
    _print(table for table in [*tables, failures_table(broken)] if table.rows)
    if (not finished and not broken) or (failed and not broken):
        typer.echo(f"no {'failed ' if failed else ''}runs in {printable(str(store.folder))}", err=True)


@app.command()
def show(
    run: Annotated[
        str,
        typer.Argument(
            help="A run (q1_2-finetune-seed0), a row, the beginning of a fingerprint, or a record's path.",
            autocompletion=_run_names,
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
        store = _store(results, study)
    runs = runs_of(store)
    found = find(run, runs, store)
    if len(found) > 1:
        finished = [r for r in found if not isinstance(r, Failure)]
        _print([runs_table(finished, runs.latest), failures_table(f for f in found if isinstance(f, Failure))])
        typer.echo("")
    _print(shown(found[0], runs, store))


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
    from cvhw4.records.revisions import opened
    from cvhw4.report.changes import comment, headline, short_lines, short_tables
    from cvhw4.report.failures import latest_failures
    from cvhw4.statistics.changes import compare_runs

    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}", "is not a ratio of times", "give one above 0, as 1.2")
    chosen = None if study is None else _study(study)
    named = {Path(side).resolve().name for side in (a, b) if (Path(side) / "runs").is_dir()}
    name = chosen.name if chosen is not None else named.pop() if len(named) == 1 else None
    if name is None and (known := _known()):
        name = known[0].name
    with opened(a, name) as (store_a, name_a), opened(b, name) as (store_b, name_b):
        if name_a != name_b:
            raise InputError(b, f"is of study {name_b}, and A of {name_a}", "name runs of one study")
        judged = chosen or stored_study(store_b.folder) or _study(name_a)
        records = [store.load() for store in (store_a, store_b)]
        failures = [store.failures() for store in (store_a, store_b)]
    for side, found in zip((a, b), records, strict=True):
        if not found:
            raise InputError(side, f"has no runs of study {name_a}", "name a folder or revision that has some")
    broken = [latest_failures(r, f) for r, f in zip(records, failures, strict=True)]
    changes = compare_runs(judged, records[0], records[1], broken[0], broken[1], time_limit, complete)
    if markdown:
        typer.echo(comment(changes, a, b), nl=False)
    else:
        tables = short_tables(changes)
        _print(tables)
        if tables:
            typer.echo("")
        for line in [*short_lines(changes), headline(changes)]:
            typer.echo(printable(line))
    raise typer.Exit(int(changes.regression))


@app.command("table")
def write_table(
    rows: Annotated[
        list[str] | None, typer.Argument(help="Rows, in this order (default: all).", autocompletion=_row_names)
    ] = None,
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    figure: Annotated[list[str] | None, typer.Option("--figure", help="A column, as accuracy; several times.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Row that the others are marked against.")] = None,
    epoch: Annotated[str | None, typer.Option(help="best or last (default: as claims are judged).")] = None,
    spread: Annotated[str | None, typer.Option(help="sd (default), interval (half of 95 %) or none.")] = None,
    percent: Annotated[bool | None, typer.Option("--percent", help="Figures times 100.")] = None,
    digits: Annotated[int | None, typer.Option(help="Behind the point (default: as the spread deserves).")] = None,
    siunitx: Annotated[bool | None, typer.Option("--siunitx", help="LaTeX: numbers by that package.")] = None,
    caption: Annotated[str | None, typer.Option(help="LaTeX and Typst: makes a float.")] = None,
    label: Annotated[str | None, typer.Option(help="To refer to it by.")] = None,
    style: Annotated[
        Path | None, typer.Option(help="TOML file of all this, and of names: rows.q1_1 = 'Features'.", parser=_folder)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File: .tex, .typ, .md, .csv or .html (default: Markdown, printed).")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="The study's own tables, into RESULTS/STUDY/tables; PDFs too, with pdflatex.")
    ] = False,
) -> None:
    """Makes a table for a paper. Means over seeds; bold and marks only where the runs support them.

    Example: cvhw4 table q1_1 q1_2 q1_3 --figure accuracy --baseline q1_3 --output table.tex
    """
    from dataclasses import asdict

    from cvhw4.files import write_atomically
    from cvhw4.records.store import latest_runs
    from cvhw4.report.papers import Style, check_table, read_style, rendered, results_table, style_of, write_tables

    if output is not None:
        check_table(output)
    chosen, store = _study(study, results), _store(results, study)
    if every:
        for path in write_tables(chosen, latest_runs(store.load()), store.folder / "tables"):
            typer.echo(path)
        return
    given: dict[str, Any] = {
        "baseline": baseline, "epoch": epoch, "spread": spread, "percent": percent, "digits": digits,
        "siunitx": siunitx, "caption": caption, "label": label,
    }  # fmt: skip
    base = asdict(Style() if style is None else read_style(style))
    for name, asked in (("rows", rows), ("columns", figure)):
        if asked:
            given[name] = {text: base[name].get(text, "") for text in asked}
    whole = style_of(base | {name: value for name, value in given.items() if value is not None}, "the options")
    tables = results_table(chosen, latest_runs(store.load()), whole)
    if not tables:
        raise InputError(store.folder, "has no runs of these rows", "train them first, or name others")
    text = rendered(tables, ".md" if output is None else output.suffix)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text)
        typer.echo(output)


@app.command("figure")
def write_figure(
    kind: Annotated[str, typer.Argument(help="claims, curves, or a picture of the study's own, as decomposition.")],
    output: Annotated[Path, typer.Argument(help="File: .pdf, .svg or .png.", parser=_folder)],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Rows of curves, claims by id (default: all).", autocompletion=_row_names),
    ] = None,
    results: ResultsOption = RESULTS,
    study: StudyOption = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Of curves (default: the first).")] = None,
    width: Annotated[float | None, typer.Option(help="In inches; a column of a paper has some 3.3.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Curves in one panel, with a legend.")] = False,
    style: Annotated[
        Path | None,
        typer.Option(help="TOML file of names: rows.q1_1 = 'Features', claims.ID = 'Skips help'.", parser=_folder),
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
    chosen = _study(study, results)
    of_paper = Style() if style is None else read_style(style)
    known = of_paper.claims if kind == "claims" else of_paper.rows
    called = {name: known.get(name, "") for name in names} if names else known
    picture = paper_picture(Stored(chosen, _store(results, study)), kind, called, metric, width, together)
    picture.save(output)
    typer.echo(f"{output}\n{picture.alt}")


@app.command()
def judge(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="CSV, Parquet or pytest-benchmark's JSON; MLflow's, TensorBoard's or W&B's folder; or KIND:WHERE.",
        ),
    ],
    figure: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="A figure, or NAME=LOGGED_AS; several times."),
    ] = None,
    lower: Annotated[list[str] | None, typer.Option("--lower", help="A figure of which the lowest is best.")] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="Setting that tells rows apart (row).")] = None,
    seed: Annotated[str, typer.Option("--seed", help="Setting that holds the seed.")] = "seed",
    better: Annotated[list[str] | None, typer.Option("--better", help="Row that should win; several times.")] = None,
    worse: Annotated[str | None, typer.Option("--worse", help="Row that it is held against.")] = None,
    margin: Annotated[float, typer.Option(help="By more than this.")] = 0.0,
    epoch: Annotated[str | None, typer.Option(help="Tables: column that numbers a run's lines.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="NAME=VALUE that runs must have.")] = None,
    pattern: Annotated[
        str, typer.Option(help="TensorBoard: settings in a folder's path; left out, {row}/seed{seed} where it fits.")
    ] = "",
    experiment: Annotated[str | None, typer.Option(help="MLflow: only this experiment.")] = None,
    best: Annotated[bool, typer.Option("--best", help="By each run's best epoch instead of its last.")] = False,
    name: Annotated[str, typer.Option("--name", help="Of the study that is made of them.")] = "judged",
    results: ResultsOption = RESULTS,
) -> None:
    """Judges runs that were trained elsewhere. Intervals, verdicts and pages, as for runs trained here.

    Example: cvhw4 judge runs.csv --row arm --metric accuracy --better skip --worse noskip
    """
    from cvhw4.discovery import study_as_json
    from cvhw4.files import write_atomically
    from cvhw4.readers import Wanted, claims_of, figures_of, judged_study, read_runs, unpaired
    from cvhw4.records.store import Store
    from cvhw4.report.page import write_pages
    from cvhw4.report.summary import session_summary

    figures, lowest = figures_of(figure or [], lower or [])
    if not figures:
        raise InputError("--metric", "is missing", "name what the runs logged, as --metric accuracy")
    for text in only or []:
        if "=" not in text:
            raise InputError(f"--only {text}", "has no =", f"write it as --only {text}=VALUE")
    pairs = dict(text.partition("=")[::2] for text in only or [])
    wanted = Wanted(
        row=row or ["row"], seed=seed, figures=figures, lower_is_better=lowest, epoch=epoch, only=pairs,
        pattern=pattern, experiment=experiment, best=best,
    )  # fmt: skip
    finished, unfinished = read_runs(sources, wanted)
    for run in unfinished:
        _say(f"left out: {printable(run.where)}: {printable(run.unfinished)}")
    source = ", ".join(os.path.basename(text.rstrip("/")) for text in sources)
    claims = claims_of(better or [], worse, [*figures], margin)
    study, records = judged_study(name, finished, wanted, claims, source)
    for text in unpaired(study, records):
        _say(printable(text))
    store = Store(results, name)
    if store.runs.is_dir() and not (store.folder / "judged.json").is_file():
        raise InputError(store.folder, "holds runs that were trained here", "choose another --name")
    shutil.rmtree(store.runs, ignore_errors=True)
    write_atomically(store.folder / "judged.json", study_as_json(study))
    for record in records:
        store.save(record)
    for line in session_summary(study, records, [], None, {}):
        typer.echo(line)
    highest = [name for name in figures if name not in lowest]
    best_is = [
        f"the {which} {', '.join(names)}" for which, names in (("highest", highest), ("lowest", lowest)) if names
    ]
    typer.echo(f"best is {', and '.join(best_is)} (see --metric, --lower)\n")
    for path, what in write_pages(study, store, None, {}):
        typer.echo(f"{what}: {path}")


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

    chosen = _study(study, results)
    numbers = sorted(set(seeds or (3, 5, 10, 20)))
    if numbers[0] < 2:
        raise InputError(f"{numbers[0]} seed", "has no spread and decides nothing", "plan for 2 or more")
    store = _store(results, study)
    records = [r for r in latest_runs(store.load()) if r.row in chosen.rows]
    _print([plan_table(chosen, records, numbers), hours_table(records, numbers)])


@app.command()
def history(
    folder: Annotated[Path, typer.Argument(help="A history's folder, as a checkout of its branch.", parser=_folder)],
    row: Annotated[str | None, typer.Option("--row", help="Only this row.", autocompletion=_row_names)] = None,
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
            hint = "history is of nightly jobs; cvhw4 compare OLD NEW holds two results folders against each other"
        raise InputError(folder, "has no nights", hint)
    found = found_shifts(nights)
    if row is not None:
        found = {key: of_row for key, of_row in found.items() if key[0] == row}
        if not found:
            raise InputError(f"--row {row}", "is not a row of any night", "leave it out to see them all")
    _print(table for table in (shifts_table(found), latest_table(found)) if table.rows)
    typer.echo(f"{len(nights)} nights, the last of {nights[-1].started[:10]}: {nights[-1].state}")
    if page:
        typer.echo(write_history(folder, nights))


@app.command("bisect")
def find_commit(
    row: Annotated[str, typer.Argument(help="The row that is worse.", autocompletion=_row_names)],
    good: Annotated[str, typer.Argument(help="A commit at which it was not.")],
    bad: Annotated[str, typer.Argument(help="A later one at which it is.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Of pytest, behind --: what it collects.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the row at each commit.")] = 3,
    results: Annotated[Path, typer.Option(help="Folder for the runs.", parser=_folder)] = Path("local/bisect"),
) -> None:
    """Finds the commit that made a row worse. By git's bisection, training that row alone at each commit.

    Example: cvhw4 bisect q1_2-finetune v1.0 main -- benchmarks --profile full --device cuda
    """
    from cvhw4.bisection import bisect

    typer.echo(f"first worse: {bisect(row, good, bad, arguments or [], results, _say, seeds)}")


def _study(named: str | None, results: Path = RESULTS) -> Study:
    """The study that is named; the first that pyproject.toml names where none is. `cvhw4 judge` leaves some in
    `results`, of which the only one there need not be named."""
    from cvhw4.discovery import find_study, stored_study
    from cvhw4.records.revisions import studies_in

    there = studies_in(results) if named is None and not _known() else []
    name = named or (there[0] if len(there) == 1 else None)
    return (name and stored_study(results / name)) or find_study(named)


def _store(results: Path, study: str | None) -> Store:
    """The stored runs of a study; where none is named and pyproject.toml names none, of the only one that has runs."""
    from cvhw4.records.revisions import studies_in
    from cvhw4.records.store import Store

    there = studies_in(results) if study is None and not _known() else []
    return Store(results, there[0] if len(there) == 1 else _study(study, results).name)


def _bounds_of(study: Study) -> Path | None:
    """The bounds file of a study, where it is there."""
    return Path(study.bounds) if study.bounds is not None and os.path.lexists(study.bounds) else None


def _say(*parts: Any) -> None:
    typer.echo(" ".join(str(p) for p in parts), err=True)


def _print(tables: Iterable[Table]) -> None:
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
