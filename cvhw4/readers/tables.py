"""Runs in files: CSV, Parquet, pytest-benchmark's JSON, and records of cvhw4's own studies."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvhw4.discovery import default_studies
from cvhw4.errors import InputError
from cvhw4.readers import LoggedRun, Wanted
from cvhw4.readers.trackers import found_in

if TYPE_CHECKING:
    from pandas import DataFrame

_UNFINISHED = {"crashed", "failed", "killed", "pending", "preempted", "preempting", "running", "scheduled"}


def read_csv(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """A line of CSV or TSV (.tsv) is a run, or an epoch of one; the first line names the columns. Where it
    names them with semicolons between them, lines have these too, and numbers may have decimal commas."""
    import pandas as pd

    path = Path(where).expanduser()
    how: dict[str, Any] = {"sep": "\t" if path.suffix == ".tsv" else ",", "skipinitialspace": True}
    try:
        head = pd.read_csv(path, **how, nrows=0).columns
        if len(head) == 1 and ";" in head[0]:
            how |= {"sep": ";", "decimal": ","}
        table = pd.read_csv(path, **how)
        texts = pd.read_csv(path, **how, keep_default_na=False, na_values=[""])
        for column in table.columns:  # of which "None", "NA" and the like may be rows
            if (
                str(column).strip() in {*wanted.row, *wanted.only}
                and (table[column].isna() & texts[column].notna()).any()
            ):
                table[column] = pd.read_csv(path, **how, keep_default_na=False, na_values=[""], dtype=str)[column]
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise InputError(path, f"cannot be read as CSV ({error})", "name a file of lines with a head") from error
    yield from _of_table(table, path, wanted)


def read_parquet(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """The same of Parquet; pandas needs pyarrow for it."""
    import pandas as pd

    path = Path(where).expanduser()
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(path, "needs a package that is missing", "pip install pyarrow, or cvhw4[parquet]") from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read as Parquet ({error})", "name a file that pandas wrote") from error
    yield from _of_table(table, path, wanted)


def _of_table(table: DataFrame, path: Path, wanted: Wanted) -> Iterator[LoggedRun]:
    import pandas as pd

    table, wanted = _as_long(table.rename(columns=lambda name: str(name).strip()), path, wanted)
    tags = list(dict.fromkeys(wanted.figures.values()))
    numbered = [wanted.epoch] if wanted.epoch else []
    if missing := [column for column in (*wanted.row, wanted.seed, *tags, *numbered) if column not in table.columns]:
        hint = f"name columns that are there: {', '.join(table.columns)}"
        if missing[0] == wanted.seed:
            hint = f"say which column has the seeds, whole numbers, with --seed; there are {', '.join(table.columns)}"
        raise InputError(path, f"has no column {missing[0]}", hint)
    for column in (*tags, *numbered):
        numbers = pd.to_numeric(table[column], errors="coerce")
        odd = numbers.isna() & (table[column].notna() | (column == wanted.epoch))
        if odd.any():
            first = int(odd.to_numpy().argmax())
            cell = table[column].iloc[first]
            problem = f"has {repr(cell) if isinstance(cell, str) else cell} for {column} in line {first + 2}"
            raise InputError(path, problem, "give plain numbers in that column: 80.1, not '80.1 %' or '80,1'")
        table = table.assign(**{column: numbers})
    settings = [c for c in table.columns if c not in {*tags, *numbered} and not c.startswith("Unnamed:")]
    groups: Iterable[tuple[str, DataFrame]]
    if wanted.epoch is None:
        groups = ((f"line {i + 2}", table.iloc[[i]]) for i in range(len(table)))
    else:
        keys = [*wanted.row, wanted.seed]
        groups = (
            (", ".join(f"{k}={v}" for k, v in zip(keys, key, strict=True)), lines)
            for key, lines in table.groupby(keys, sort=False, dropna=False)
        )
    for name, lines in groups:
        steps = lines[tags]
        if wanted.epoch is not None:  # some loggers give training and validation a line each
            by_epoch = lines.groupby(wanted.epoch)[tags]
            counts = by_epoch.count()
            if (twice := counts.index[(counts > 1).any(axis=1)]).size:
                raise InputError(path, f"has {wanted.epoch} {twice[0]:g} twice ({name})", "give every run another seed")
            steps = by_epoch.first()
        first_cells = {k: lines[k].iloc[0] for k in settings if lines[k].nunique(dropna=False) == 1}
        values = {k: None if cell != cell else _plain(cell) for k, cell in first_cells.items()}
        history = [{str(tag): value for tag, value in step.items()} for step in steps.to_dict("records")]
        where = f"{name} of {path.name}"
        yield LoggedRun(where=where, values=values, history=history, unfinished=_unfinished(values))


def _as_long(table: DataFrame, path: Path, wanted: Wanted) -> tuple[DataFrame, Wanted]:
    """The export of a chart of W&B's, a column "RUN - FIGURE" for each run, as lines of runs with their settings, which
    are found in a run's name, as "{row}-{seed}" where no pattern is given; other tables as they are."""
    import pandas as pd

    runs: dict[str, dict[str, str]] = {}
    for column in table.columns:
        name, dash, tag = column.rpartition(" - ")
        if dash and tag in wanted.figures.values():
            runs.setdefault(name, {})[column] = tag
    if not runs or {*wanted.figures.values()} & {*table.columns}:
        return table, wanted
    step = wanted.epoch or str(table.columns[0])
    pattern = wanted.pattern or f"{'-'.join(f'{{{name}}}' for name in wanted.row)}-{{{wanted.seed}}}"
    long = []
    for name, columns in runs.items():
        if not (found := found_in(pattern, name, wanted.seed)):
            hint = f'say what its parts are, as --pattern "{pattern}"'
            raise InputError(path, f"has a run {name}, whose name does not fit {pattern}", hint)
        lines = table[[step, *columns]].rename(columns=columns).dropna(subset=[*columns.values()], how="all")
        long.append(lines.assign(**{"run_name": name, **found}))
    return pd.concat(long, ignore_index=True), replace(wanted, epoch=step)


def _unfinished(values: Mapping[str, Any]) -> str:
    """What tables that trackers export say of a run that did not finish: W&B's column State, MLflow's status."""
    states = [str(value).lower() for name, value in values.items() if name.lower() in ("state", "status")]
    return next((state for state in states if state in _UNFINISHED), "")


def _plain(value: Any) -> Any:
    """A cell as a plain value."""
    value = value.item() if hasattr(value, "item") else value.strip() if isinstance(value, str) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_benchmark(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """`pytest --benchmark-json`: a benchmark is a run, `extra_info` and `params` its settings and figures; `mean`,
    `min`, `median` and so on are figures too, in seconds."""
    path = Path(where).expanduser()
    try:
        content = json.loads(path.read_text("utf-8"))
        machine, benchmarks = content.get("machine_info") or {}, content["benchmarks"]
        for benchmark in benchmarks:
            values = {**(benchmark.get("params") or {}), **benchmark.get("extra_info", {}), "name": benchmark["name"]}
            numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            times = {k: v for k, v in benchmark["stats"].items() if isinstance(v, int | float)}
            values = {k: v for k, v in values.items() if k not in wanted.figures.values()}
            yield LoggedRun(
                where=f"{benchmark['name']} of {path.name}",
                values=values | {"machine": machine.get("node", "")},
                history=[times | numbers],
                started=str(content.get("datetime", "")),
                seconds=float(times.get("total", 0.0)),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "name a file of pytest --benchmark-json"
        raise InputError(path, f"is not pytest-benchmark's ({type(error).__name__}: {error})", hint) from error


def read_records(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """Records of cvhw4's own, in a results folder or one of its studies; the latest of each row, data set and seed,
    but for negative controls: those that pyproject.toml's studies have, and what has corrupted training data."""
    from cvhw4.records.store import Store, latest_runs

    folder = Path(where).expanduser()
    own = [folder] if (folder / "runs").is_dir() else sorted(path.parent for path in folder.glob("*/runs"))
    studies = [s for s in own if len(own) == 1 or not (s / "judged.json").exists()]  # which judge itself wrote
    controls = set()
    try:
        controls = {(known.name, row.name) for known in default_studies(Path.cwd()) for row in known.corrupted}
    except InputError as error:  # which says nothing of these records
        warnings.warn(f"negative controls may be among the rows: {error}", stacklevel=2)
    for study in studies:
        for record in latest_runs(Store(study.parent, study.name).load()):
            if (record.study, record.row) in controls or record.settings.get("corruption") is not None:
                continue
            lowest = {*record.lower_is_better, *({"loss"} if record.task != "custom" else ())}
            given = {name: tag for name, tag in wanted.figures.items() if tag in lowest}
            if wrong := [name for name in given if name not in wanted.lower_is_better]:
                problem = f"has the lowest {given[wrong[0]]} as its best"
                raise InputError(study, problem, f"name it with --lower {given[wrong[0]]}")
            yield LoggedRun(
                where=f"{record.row}, seed {record.seed}, on {record.data.name}, of {study.name}",
                values={"data": record.data.name, **record.settings, "study": record.study}
                | {"row": record.row, "seed": record.seed},
                history=[epoch.figures for epoch in record.epochs],
                started=record.started,
                seconds=record.times.total_seconds,
            )
