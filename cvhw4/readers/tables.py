"""Runs in files: CSV, Parquet, pytest-benchmark's JSON, and records of cvhw4's own studies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError
from cvhw4.readers import LoggedRun, Wanted

if TYPE_CHECKING:
    from pandas import DataFrame


def read_csv(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """A line of CSV or TSV (.tsv) is a run, or an epoch of one; the first line names the columns."""
    import pandas as pd

    path = Path(where).expanduser()
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
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
        raise InputError(path, "needs a package that is missing", "pip install pyarrow") from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read as Parquet ({error})", "name a file that pandas wrote") from error
    yield from _of_table(table, path, wanted)


def _of_table(table: DataFrame, path: Path, wanted: Wanted) -> Iterator[LoggedRun]:
    columns = [*wanted.row, wanted.seed, *wanted.figures.values(), *([wanted.epoch] if wanted.epoch else [])]
    if missing := [column for column in columns if column not in table.columns]:
        hint = f"name columns that are there: {', '.join(map(str, table.columns))}"
        raise InputError(path, f"has no column {missing[0]}", hint)
    for column in wanted.figures.values() if len(table) else ():
        if table[column].dtype.kind not in "fiub":
            odd = next((i for i, value in enumerate(table[column]) if not _is_number(value)), 0)
            problem = f"has {table[column].iloc[odd]!r} for {column} in line {odd + 2}"
            raise InputError(path, problem, "give numbers, and nothing else, in that column")
    settings = [column for column in table.columns if column not in {*wanted.figures.values(), wanted.epoch}]
    groups: list[tuple[str, Any]]
    if wanted.epoch is None:
        groups = [(f"line {i + 2}", table.iloc[[i]]) for i in range(len(table))]
    else:
        keys = [*wanted.row, wanted.seed]
        groups = [
            (f"lines of {', '.join(f'{k}={v}' for k, v in zip(keys, key, strict=True))}", lines)
            for key, lines in table.groupby(keys, sort=False, dropna=False)
        ]
    for name, lines in groups:
        if wanted.epoch is not None:
            if lines[wanted.epoch].duplicated().any():
                twice = lines[wanted.epoch][lines[wanted.epoch].duplicated()].iloc[0]
                raise InputError(path, f"has {wanted.epoch} {twice} twice ({name})", "give every run another seed")
            lines = lines.sort_values(wanted.epoch)
        first = lines.iloc[0]
        values = {str(k): None if first[k] != first[k] else _plain(first[k]) for k in settings}
        history = [{tag: float(line[tag]) for tag in wanted.figures.values()} for _, line in lines.iterrows()]
        yield LoggedRun(where=f"{path.name}, {name},", values=values, history=history)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    """A cell as a plain value."""
    value = value.item() if hasattr(value, "item") else value
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
                where=f"{path.name}, {benchmark['name']},",
                values=values | {"machine": machine.get("node", "")},
                history=[times | numbers],
                started=str(content.get("datetime", "")),
                seconds=float(times.get("total", 0.0)),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "name a file of pytest --benchmark-json"
        raise InputError(path, f"is not pytest-benchmark's ({type(error).__name__}: {error})", hint) from error


def read_records(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """Records of cvhw4's own, in a results folder or one of its studies; the latest of each row and seed."""
    from cvhw4.records.store import Store, latest_runs

    folder = Path(where).expanduser()
    studies = [folder] if (folder / "runs").is_dir() else sorted(path.parent for path in folder.glob("*/runs"))
    for study in studies:
        for record in latest_runs(Store(study.parent, study.name).load()):
            yield LoggedRun(
                where=f"{study.name}, {record.row}, seed {record.seed},",
                values={**record.settings, "study": record.study, "row": record.row, "seed": record.seed},
                history=[epoch.figures for epoch in record.epochs],
                started=record.started,
                seconds=record.times.total_seconds,
            )
