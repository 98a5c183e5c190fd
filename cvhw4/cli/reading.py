"""`cvhw4 judge`: reads runs that were trained elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvhw4.cli.common import RESULTS, ResultsOption, app, folder_of, say
from cvhw4.errors import InputError, printable

if TYPE_CHECKING:
    from cvhw4.records.history import History
    from cvhw4.records.schema import RunRecord
    from cvhw4.study import Study


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
        list[str] | None, typer.Option("--metric", "-m", help="A figure, or NAME=LOGGED_AS; several times.")
    ] = None,
    lower: Annotated[list[str] | None, typer.Option("--lower", help="A figure of which the lowest is best.")] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="What tells rows apart (default: row).")] = None,
    seed: Annotated[str, typer.Option("--seed", help="Setting that holds the seed.")] = "seed",
    better: Annotated[list[str] | None, typer.Option("--better", help="Row that should win; several times.")] = None,
    worse: Annotated[str | None, typer.Option("--worse", help="Row that it is held against.")] = None,
    margin: Annotated[float, typer.Option(help="The difference has to exceed this.")] = 0.0,
    smallest: Annotated[float, typer.Option(help='Difference of interest, for the verdict "equivalent".')] = 0.0,
    epoch: Annotated[str | None, typer.Option(help="Tables: column that numbers a run's lines.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="NAME=VALUE that runs must have.")] = None,
    pattern: Annotated[
        str, typer.Option(help="Settings in TensorBoard's paths or the names of W&B's charts: {row}-{seed}.")
    ] = "",
    experiment: Annotated[str | None, typer.Option(help="MLflow: only this experiment.")] = None,
    best: Annotated[bool, typer.Option("--best", help="By each run's best epoch instead of its last.")] = False,
    name: Annotated[str, typer.Option("--name", help="Of the study that is made of them.")] = "judged",
    history: Annotated[
        Path | None, typer.Option(help="Folder that keeps every state, for cvhw4 history.", parser=folder_of)
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(help='With --history: "ROW: REASON" takes a row as it is, "all: REASON" all; several times.'),
    ] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Judges runs that were trained elsewhere. Intervals, verdicts and pages, as for runs trained here. The exit code
    is 1 if a row is worse than in --history, or missing.

    Example: cvhw4 judge runs.csv --row arm --metric accuracy --better skip --worse noskip
    """
    from cvhw4.discovery import study_as_json
    from cvhw4.files import remove, write_atomically
    from cvhw4.readers import Wanted, as_name, claims_of, figures_of, judged_study, read_runs, unpaired
    from cvhw4.records.history import History
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
    reasons = {row.strip(): reason.strip() for row, _, reason in (text.partition(":") for text in accept or [])}
    if odd := [row for row, reason in reasons.items() if not row or not reason or history is None]:
        hint = "write it as --accept 'ROW: REASON', and name a --history"
        raise InputError(f"--accept {odd[0]}", "has no reason, or no history that keeps it", hint)
    wanted = Wanted(
        row=row or ["row"], seed=seed, figures=figures, lower_is_better=lowest, epoch=epoch, only=pairs,
        pattern=pattern, experiment=experiment, best=best,
    )  # fmt: skip
    finished, unfinished = read_runs(sources, wanted)
    for run in unfinished:
        say(f"left out: {printable(run.where)}: {printable(run.unfinished)}")
    source = ", ".join(os.path.basename(text.rstrip("/")) for text in sources)
    claims = claims_of(better or [], worse, [*figures], margin, smallest)
    study, records = judged_study(name, finished, wanted, claims, source)
    for text in unpaired(study, records):
        say(printable(text))
    store = Store(results, name)
    if store.runs.is_dir() and not (store.folder / "judged.json").is_file():
        raise InputError(store.folder, "holds runs that were trained here", "choose another --name")
    known = None if history is None else History(history)
    if known is not None and (others := {night.study for night in known.nights} - {name}):
        hint = f"name another, or judge with --name {min(others)}"
        raise InputError(known.folder, f"is the history of {min(others)}", hint)
    before = known.judged if known is not None else None
    accepted = {as_name(row): reason for row, reason in reasons.items()}
    there = {*study.rows, *(r.row for r in ([*before.rows, *before.good] if before else []))}
    if odd := sorted(accepted.keys() - there - {"all"}):
        raise InputError(f"--accept {odd[0]}", "is not a row", f"choose one of {', '.join(sorted(there))}, or all")
    gone = {r.fingerprint for r in store.load()} - {r.fingerprint for r in records}
    for record in records:
        store.save(record)
    write_atomically(store.folder / "judged.json", study_as_json(study))
    kept = {store.path(r.row, r.seed, r.fingerprint) for r in records}
    remove(path for path in store.runs.glob("*/*") if path not in kept)  # only now, as a write may fail
    for folder in store.runs.iterdir():
        with suppress(OSError):
            folder.rmdir()
    if gone:
        say(f"replaced: {len(gone)} runs judged before as {name}; another --name keeps both, --history every state")
    for line in session_summary(study, records, [], None, {}):
        typer.echo(line)
    by_side = {"highest": [name for name in figures if name not in lowest], "lowest": [*lowest]}
    best_is = [f"the {which} {', '.join(names)}" for which, names in by_side.items() if names]
    typer.echo(f"best is {', and '.join(best_is)} (see --metric, --lower)\n")
    for path, what in write_pages(study, store, None, {}):
        typer.echo(f"{what}: {path}")
    if known is not None:
        raise typer.Exit(int(not _keep(known, study, records, accepted)))


def _keep(known: History, study: Study, records: Sequence[RunRecord], accepted: Mapping[str, str]) -> bool:
    """Adds judged runs to a history, as a night that is held against those before; whether nothing is worse."""
    from cvhw4.records.history import GOOD, Night
    from cvhw4.report.history import STATES
    from cvhw4.statistics.nights import Unconfirmed, judge_night

    def retrain(rows: Sequence[str]) -> Sequence[RunRecord]:
        raise Unconfirmed("these runs were trained elsewhere.")

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    night = Night(started=now, state="fine", study=study.name, accepted=accepted)
    judged = judge_night(study, night, records, known.nights, lambda named: known.runs(named, study.name), retrain)
    known.add(judged.night, records)
    for row in judged.night.rows:
        if row.status not in ("fine", "new"):
            typer.echo(printable(f"{row.row} is {row.status}: {row.why}"))
    typer.echo(f"{STATES[judged.night.state]}: {known.folder}")
    return judged.night.state in GOOD
