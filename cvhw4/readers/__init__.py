"""Runs that were logged elsewhere, as a study and its records: for `cvhw4 judge`.

A reader is a function that is given where the runs are and what is asked of them, and yields `LoggedRun`s. A package
may bring one of its own, as an entry point of the group `cvhw4.readers`: `cvhw4 judge NAME:WHERE` calls it with WHERE.
What it raises as an `InputError` is what the command answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from cvhw4.discovery import logged_elsewhere
from cvhw4.errors import InputError
from cvhw4.records.schema import DataUsed, Epoch, RunRecord, Times, WeightsUsed
from cvhw4.report.runs import by_row
from cvhw4.study import Claim, Study, is_name
from cvhw4.study.checks import MOST, is_number

_WORD = re.compile(r"[^A-Za-z0-9_.+-]+")
_SEED = re.compile(r"(?:[A-Za-z]+[ _=-]?)?(\d+)(?:\.0*)?", re.ASCII)
_NAMED = 3  # bad runs that an error names


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A run as a reader gives it.

    Attributes:
        where: the run in words, for messages: "line 3 of runs.csv".
        values: its settings by name, those of `Wanted.row` and `Wanted.seed` among them.
        history: figures at each step, in order, by the names that they were logged by; one step for a run of which only
            the end is known.
        started: ISO 8601, or empty.
        seconds: wall time; 0 where it is not known.
        unfinished: why it is not a finished run ("FAILED"); empty for one that is.
    """

    where: str
    values: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    started: str = ""
    seconds: float = 0.0
    unfinished: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of logged runs.

    Attributes:
        row: the settings that tell rows apart; a row is called by their values, with hyphens between.
        seed: the setting that holds the seed, a whole number.
        figures: by the name they get, the names they were logged by; the first is the study's primary one.
        lower_is_better: those of which the lowest is best, by the names they get.
        epoch: of a table, the column that numbers the lines of a run; None where a run is one line.
        only: settings by the value that they must have; other runs are passed over.
        pattern: where settings stand in the paths of TensorBoard's folders (those that it does not fit are left out;
            none is given: "{row}/seed{seed}", where it fits) or in the names in charts of W&B's (one that it does not
            fit is an error; none is given: "{row}-{seed}").
        experiment: of MLflow, its name; None takes all.
        best: whether claims are judged by the best epoch instead of the last.
    """

    row: Sequence[str] = ("row",)
    seed: str = "seed"
    figures: Mapping[str, str] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()
    epoch: str | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    pattern: str = ""
    experiment: str | None = None
    best: bool = False


Reader = Callable[[str, Wanted], Iterable[LoggedRun]]
"""What an entry point of the group `cvhw4.readers` names: a function of where the runs are and of what is asked."""
_READERS = {
    "csv": "cvhw4.readers.tables:read_csv",
    "parquet": "cvhw4.readers.tables:read_parquet",
    "benchmark": "cvhw4.readers.tables:read_benchmark",
    "records": "cvhw4.readers.tables:read_records",
    "mlflow": "cvhw4.readers.trackers:read_mlflow",
    "tensorboard": "cvhw4.readers.trackers:read_tensorboard",
    "wandb": "cvhw4.readers.trackers:read_wandb",
}
_TABLES = {"csv", "parquet"}
_TAKEN_BY = {
    "epoch": _TABLES,
    "pattern": _TABLES | {"tensorboard"},
    "experiment": {"mlflow"},
}  # readers of one's own: all


def read_runs(sources: Iterable[str], wanted: Wanted) -> tuple[list[LoggedRun], list[LoggedRun]]:
    """The finished runs of sources, and the unfinished ones. Sources are files and folders, whose kind is seen from
    their names and what they hold, or KIND:WHERE.

    Raises:
        InputError: a source is not there, of no known kind, or cannot be read, or none of them takes what is asked; no
            run is left.
    """
    found: list[LoggedRun] = []
    kinds = {source: _kind_of(source) for source in sources}
    for asked, takers in _TAKEN_BY.items():
        if getattr(wanted, asked) and {kind for kind, _ in kinds.values()} <= _READERS.keys() - takers:
            problem = f"is not for {', '.join(kinds)}, but for {', '.join(sorted(takers))}"
            raise InputError(f"--{asked} {getattr(wanted, asked)}", problem, "leave it out")
    for source, (kind, where) in kinds.items():
        try:
            for run in _loaded(kind)(where, wanted):
                if not isinstance(run, LoggedRun):
                    hint = "let it yield cvhw4.readers.LoggedRun"
                    raise InputError(source, f"has a reader that yields {run!r:.60}", hint)
                found += [run] * all(_says(text, run.values.get(name)) for name, text in wanted.only.items())
        except ImportError as error:
            hint = f"pip install {error.name or kind}"
            raise InputError(source, f"needs a package that is missing ({error})", hint) from error
    if not found:
        only = "".join(f", {name}={value}" for name, value in wanted.only.items())
        raise InputError(", ".join(kinds), f"has no runs{only and f' with {only[2:]}'}", "name what was logged")
    finished, unfinished = [run for run in found if not run.unfinished], [run for run in found if run.unfinished]
    if not finished:
        problem = f"has no finished run ({unfinished[0].where}: {unfinished[0].unfinished})"
        raise InputError(", ".join(kinds), problem, "name runs that ended")
    return finished, unfinished


def _kind_of(source: str) -> tuple[str, str]:
    """The kind of a source, and where it is."""
    kind, _, where = source.partition(":")
    if where and (kind in _READERS or kind in _others()):
        return kind, where
    path = Path(source).expanduser()
    if path.is_file():
        endings = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".json": "benchmark", ".wandb": "wandb"}
        if path.suffix in endings:
            return endings[path.suffix], str(path)
    elif path.is_dir():
        holds = {"runs/*/*.json": "records", "*/runs/*/*.json": "records", "**/*.wandb": "wandb"}
        for pattern, kind in (holds | {"**/*tfevents*": "tensorboard", "*/meta.yaml": "mlflow"}).items():
            if next(path.glob(pattern), None) is not None:
                return kind, str(path)
    else:
        raise InputError(source, "is neither a file nor a folder", f"name one, or KIND:WHERE ({', '.join(_READERS)})")
    raise InputError(source, "holds no runs of a known kind", f"say which: {', '.join(_READERS)}, as in csv:{source}")


def _others() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group="cvhw4.readers")}


def _loaded(kind: str) -> Reader:
    try:
        loaded: Reader = resolve_name(_READERS[kind]) if kind in _READERS else _others()[kind].load()
    except AttributeError as error:
        hint = "correct the entry point of its package"
        raise InputError(kind, f"has a reader that cannot be loaded ({error})", hint) from error
    return loaded


def _says(text: str, value: object) -> bool:
    """Whether a text is a value, however it is written: "1e-3" and "0.0010" are 0.001, "true" is True."""
    if str(value) == text or (isinstance(value, bool) and str(value).lower() == text.lower()):
        return True
    try:
        return Decimal(str(value)) == Decimal(text)
    except InvalidOperation:
        return False


def figures_of(names: Iterable[str], lower: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """What the options --metric and --lower name: "accuracy", "val/acc" (called acc) or "accuracy=val/acc";
    and of which of them the lowest is best: those of --lower, and "loss"; raises InputError where two get one name."""
    figures: dict[str, str] = {}
    lowest = set()
    for given, is_lower in [*((n, False) for n in names), *((n, True) for n in lower)]:
        name, equals, logged = given.partition("=")
        name, logged = (name, logged) if equals else (as_name(given.rpartition("/")[2]), given)
        if name in figures and figures[name] != logged:
            raise InputError(f"figure {name}", f"is {figures[name]} and {logged}", "name them apart, as a=train/loss")
        figures[name] = logged
        lowest |= {name} if is_lower or name == "loss" else set()
    return figures, frozenset(lowest)


def claims_of(
    better: Sequence[str], worse: str | None, figures: Iterable[str], margin: float, smallest: float = 0.0
) -> list[Claim]:
    """A claim for each row that should win and each figure: that it beats the other row, or the margin itself, with a
    smallest difference of interest or none; raises InputError where there is a row and nothing that it is held
    against, or the other way round."""
    if worse is not None and not better:
        raise InputError(f"--worse {worse}", "has nothing that should beat it", "name a row with --better")
    if margin and not better:
        raise InputError(f"--margin {margin:g}", "has nothing that should exceed it", "name a row with --better")
    if smallest < 0 or (smallest and not better):
        problem = "is below 0" if smallest < 0 else "has no claim that it belongs to"
        raise InputError(f"--smallest {smallest:g}", problem, "give a difference above 0, and name a row with --better")
    if better and worse is None and not margin:
        hint = "name a row with --worse, or the figure to be passed with --margin"
        raise InputError(f"--better {better[0]}", "has nothing to beat", hint)
    loser = None if worse is None else as_name(worse)
    rows = [as_name(row) for row in better]
    how: dict[str, Any] = {"worse": loser, "margin": margin, "smallest": smallest}
    return [Claim(better=row, metric=figure, **how) for row in rows for figure in figures]


def judged_study(
    name: str, runs: Sequence[LoggedRun], wanted: Wanted, claims: Sequence[Claim], source: str
) -> tuple[Study, list[RunRecord]]:
    """A study with a name of finished runs, and their records.

    Args:
        claims: about rows by the values in `wanted.row` or by their names.
        source: where the runs are from, in a word or two.

    Raises:
        InputError: a run lacks a setting or figure or has one that is not a number, two have one row and seed, two
            rows one name, or a claim is about a row that there is not. Every message names the runs.
    """
    rows: dict[str, dict[int, LoggedRun]] = {}
    labels: dict[str, str] = {}
    problems: list[str] = []
    for run in runs:
        lacking = [key for key in (*wanted.row, wanted.seed) if run.values.get(key) is None]
        seed = _whole(run.values.get(wanted.seed))
        if lacking or seed is None:
            there = ", ".join(map(str, run.values)) or "nothing"
            if lacking:
                empty = lacking[0] in run.values
                what = f"has no value for {lacking[0]}" if empty else f"has no {lacking[0]}, but {there}"
            else:
                what = f"has {wanted.seed}={run.values[wanted.seed]!r}"
            problems.append(f"{run.where} {what}")
            continue
        label = "-".join(str(run.values[key]) for key in wanted.row)
        row = as_name(label)
        if labels.setdefault(row, label) != label:
            problems.append(f"{run.where} is of the row {label!r}, which has the name of {labels[row]!r}")
        elif (other := rows.setdefault(row, {}).get(seed)) is not None:
            problems.append(f"{run.where} is of row {row}, seed {seed}, and so is {other.where}")
        else:
            rows[row][seed] = run
    hint = "give every run one row and one seed (--row, --seed; --epoch where a run has several lines)"
    _refuse(problems, source, f"{hint}; --only NAME=VALUE leaves others out")
    epochs = {(row, seed): _epochs(run, wanted, problems) for row, of in rows.items() for seed, run in of.items()}
    _refuse(
        problems, source, "log all figures at the same steps of all runs, or leave those out that lack one (--only)"
    )
    settings = _settings(rows, wanted)
    study = Study(
        name,
        train=logged_elsewhere,
        rows=settings,
        primary=next(iter(wanted.figures)),
        lower_is_better=wanted.lower_is_better,
        epoch="best" if wanted.best else "last",
        claims=claims,
        labels={row: label for row, label in labels.items() if label != row},
        title=f"Runs of {source}",
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    records = [
        RunRecord(
            row=row,
            study=name,
            task="custom",
            seed=seed,
            fingerprint=_digest([name, row, seed, settings[row], [dict(e.figures) for e in of_run]]),
            configuration=_digest([name, row, settings[row]]),
            settings=settings[row],
            data=DataUsed(name=name, embedded=False, fingerprint=_digest(name), train=0, val=0, classes=[]),
            weights=WeightsUsed(network=source, origin="logged elsewhere"),
            parameters=0,
            trained_parameters=0,
            primary=study.primary,
            epochs=of_run,
            times=Times(
                build_seconds=0.0,
                train_seconds=rows[row][seed].seconds,
                evaluate_seconds=0.0,
                total_seconds=rows[row][seed].seconds,
                images_per_second=0.0,
            ),
            environment={"device": "elsewhere", "device_name": "trained elsewhere", "threads": None, "commit": None},
            started=_instant(rows[row][seed].started) or now,
            lower_is_better=sorted(wanted.lower_is_better),
        )
        for (row, seed), of_run in epochs.items()
    ]
    return study, records


def unpaired(study: Study, records: Iterable[RunRecord]) -> list[str]:
    """Lines that say which claims' rows have no seed in common, and which seeds one of them alone has; raises
    InputError where no claim is left that could be judged, though there are some."""
    seeds = {row: {r.seed for r in of_row} for row, of_row in by_row(records).items()}
    lines, apart = [], []
    pairs = dict.fromkeys(claim.rows for claim in study.claims)
    for pair in pairs:
        every, common = (combine(*(seeds[row] for row in pair)) for combine in (set.union, set.intersection))
        alone = "; ".join(f"{row}: {_spans(seeds[row] - common)}" for row in pair if seeds[row] - common)
        names = " and ".join(pair)
        if not common:
            apart.append(f"{names} have no seed in common ({alone})")
            lines.append(f"not judged: {apart[-1]}")
        elif alone:
            lines.append(f"not paired: {names}: {len(every - common)} of {len(every)} seeds ({alone})")
    if apart and len(apart) == len(pairs):
        hint = "give the rows of a claim the same seeds, or leave --better out and read their figures alone"
        raise InputError(str(study.title), f"judge no claim: {'; '.join(apart)}", hint)
    return lines


def _spans(numbers: Iterable[int]) -> str:
    """ "0-4, 7"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _refuse(problems: Sequence[str], source: str, hint: str) -> None:
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise InputError(source, f"has runs that cannot be used: {'; '.join(problems[:_NAMED])}{more}", hint)


def _whole(value: object) -> int | None:
    """A seed as a whole number, as trackers and people hold it: 3, 3.0, "3", "s3" or "seed_3"."""
    found = _SEED.fullmatch(str(value).strip())
    return int(found[1]) if found else None


def _epochs(run: LoggedRun, wanted: Wanted, problems: list[str]) -> list[Epoch]:
    """The steps at which all figures were logged; the last of each figure has to be among them."""
    logged = {name for step in run.history for name in step}
    if missing := [tag for tag in wanted.figures.values() if tag not in logged]:
        problems.append(f"{run.where} has no {missing[0]}, but {', '.join(sorted(logged)) or 'no figures'}")
        return []
    tags = {*wanted.figures.values()}
    steps = [step for step in run.history if step.keys() >= tags]
    if not steps:
        problems.append(f"{run.where} never has {' and '.join(sorted(tags))} at one step")
    elif (last := next(step for step in reversed(run.history) if step.keys() & tags)) is not steps[-1]:
        lacking = " and ".join(sorted(tags - last.keys()))
        problems.append(f"{run.where} ends with {' and '.join(sorted(tags & last.keys()))}, without {lacking}")
    epochs = []
    for number, step in enumerate(steps, 1):
        figures = {name: float(step[tag]) for name, tag in wanted.figures.items()}
        if bad := [f"{wanted.figures[name]}={value}" for name, value in figures.items() if not abs(value) <= MOST]:
            problems.append(f"{run.where} has {bad[0]} at step {number} of {len(steps)}")
            break
        whole: dict[str, Any] = {"epoch": number, "lr": 0.0, "loss": math.nan, "figures": figures}
        epochs.append(Epoch(**whole, train_seconds=run.seconds / len(steps), evaluate_seconds=0.0))
    return epochs


def _settings(rows: Mapping[str, Mapping[int, LoggedRun]], wanted: Wanted) -> dict[str, dict[str, Any]]:
    """What tells rows apart: the settings that all runs of a row have alike, and not all rows."""
    of_row: dict[str, dict[str, Any]] = {}
    for row, runs in rows.items():
        values = [run.values for run in runs.values()]
        same = {k: v for k, v in values[0].items() if all(other.get(k) == v for other in values[1:])}
        of_row[row] = {as_name(k): v for k, v in same.items() if k != wanted.seed and _is_plain(v)}
    shared = set.intersection(*({*settings.items()} for settings in of_row.values())) if len(of_row) > 1 else set()
    columns = [name for name in next(iter(of_row.values())) if all(name in s for s in of_row.values())]
    figures = {as_name(tag) for tag in wanted.figures.values()}
    kept = [c for c in columns if c not in figures and not any(name == c for name, _ in shared)]
    return {row: {c: settings[c] for c in kept} for row, settings in of_row.items()}


def _is_plain(value: object) -> bool:
    return isinstance(value, str | bool) or is_number(value)


def as_name(text: str) -> str:
    """A text as the name of a row or figure."""
    name = _WORD.sub("_", text).lstrip("_.+-") or "unnamed"
    return name if is_name(name) else f"x{name}"


def _instant(text: str) -> str:
    try:
        return datetime.fromisoformat(text).isoformat(timespec="seconds")
    except ValueError:
        return ""


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
