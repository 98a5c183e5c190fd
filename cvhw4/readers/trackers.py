"""Runs that trackers hold: MLflow, TensorBoard, Weights & Biases, each by its own library."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError
from cvhw4.readers import LoggedRun, Wanted
from cvhw4.statistics.changes import flat

_BLOCK = 32768  # bytes of a block in W&B's files


def read_mlflow(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """A tracking URI or folder; settings are a run's parameters, and its tags where no parameter has that name."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else versions from 3.8 on refuse folders
    from mlflow import MlflowClient, MlflowException

    folder = Path(where.removeprefix("file://").removeprefix("file:")).expanduser()
    remote = (":" in where and not where.startswith("file:")) or where in ("databricks", "databricks-uc", "uc")
    if not remote and not folder.is_dir():  # which MLflow would make
        raise InputError(where, "does not exist or is not a folder", "name a folder of MLflow, or a tracking URI")
    database = re.match(r"sqlite(?:\+\w+)?:///(?!file:)([^?]+)", where)
    if database is not None and not Path(database[1]).is_file():  # likewise
        raise InputError(where, "names no database that exists", "name its file; of an absolute path with four slashes")
    try:
        client = MlflowClient(folder.absolute().as_uri() if folder.is_dir() else where)
        experiments = {e.name: e.experiment_id for e in client.search_experiments()}
        if wanted.experiment is not None and wanted.experiment not in experiments:
            hint = f"choose one of {', '.join(experiments)}"
            raise InputError(where, f"has no experiment {wanted.experiment}", hint)
        ids = [*experiments.values()] if wanted.experiment is None else [experiments[wanted.experiment]]
        for run in _pages(lambda token: client.search_runs(ids, page_token=token)):
            values = {**run.data.tags, **run.data.params, "run_name": run.info.run_name}
            figures = {tag: client.get_metric_history(run.info.run_id, tag) for tag in wanted.figures.values()}
            state, begun, ended = run.info.status, run.info.start_time, run.info.end_time
            points = ((metric.step, tag, metric.value) for tag, of_tag in figures.items() for metric in of_tag)
            yield LoggedRun(
                where=f"run {run.info.run_name} ({run.info.run_id[:8]})",
                values=values,
                history=_by_step(points) or [dict(run.data.metrics)],
                started=datetime.fromtimestamp(begun / 1000, UTC).isoformat() if begun else "",
                seconds=(ended - begun) / 1000 if begun and ended else 0.0,
                unfinished="" if state == "FINISHED" else state,
            )
    except MlflowException as error:
        raise InputError(where, f"cannot be read by MLflow ({error})", "name a tracking URI or a folder") from error


def _pages(search: Any) -> Iterator[Any]:
    """All runs of a search that gives them by pages."""
    token = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


def _by_step(points: Iterable[tuple[int, str, float]]) -> list[dict[str, float]]:
    """Figures step by step; what was logged last at a step counts."""
    steps: dict[int, dict[str, float]] = {}
    for step, tag, value in points:
        steps.setdefault(step, {})[tag] = value
    return [steps[step] for step in sorted(steps)]


def read_tensorboard(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """A folder of event files; a folder that has one with the figures is a run. Settings are those of the plug-in
    "hparams", and what `wanted.pattern` finds at the end of the folder's path."""
    root, tags = Path(where).expanduser(), {*wanted.figures.values()}
    logged = {folder: _events(folder) for folder in sorted({path.parent for path in root.rglob("*tfevents*")})}
    for folder, (points, hparams, started) in logged.items():
        below = [h for other, (_, h, _) in logged.items() if other.parent == folder and h]  # PyTorch's add_hparams
        found = found_in(wanted.pattern or "{row}/seed{seed}", folder.absolute().as_posix(), wanted.seed)
        unfinished = "" if any(tag in tags for _, tag, _ in points) else f"it logged no {' and no '.join(sorted(tags))}"
        yield LoggedRun(
            where=f"folder {folder.relative_to(root)}",
            values=(below[0] if len(below) == 1 else {}) | hparams | found,
            history=_by_step(point for point in points if point[1] in tags),
            started=started,
            unfinished="its path does not fit --pattern" if wanted.pattern and not found else unfinished,
        )


def _events(folder: Path) -> tuple[list[tuple[int, str, float]], dict[str, Any], str]:
    """The scalars of a folder, as step, name and value; its hparams; and when the first was logged."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder), {SCALARS: 0, TENSORS: 0})
    events.Reload()
    points = [(e.step, tag, e.value) for tag in events.Tags()[SCALARS] for e in events.Scalars(tag)]
    for tag in events.Tags()[TENSORS]:  # TensorFlow's and Keras's scalars
        for event in events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            points += [(event.step, tag, float(value))] if value.size == 1 and value.dtype.kind in "fi" else []
    hparams: dict[str, Any] = {}
    try:
        for content in events.PluginTagToContent("hparams").values():
            given = HParamsPluginData.FromString(content).session_start_info.hparams
            hparams |= {name: _of_protobuf(value) for name, value in given.items()}
    except KeyError:
        pass  # it has none
    return points, hparams, datetime.fromtimestamp(events.FirstEventTimestamp(), UTC).isoformat() if points else ""


def _of_protobuf(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    plain = getattr(value, kind) if kind else None
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def found_in(pattern: str, path: str, seed: str) -> dict[str, str]:
    """What stands in a path for the names in braces of a pattern, which is about its end; a seed is digits alone."""
    parts = re.split(r"\{([^{}]+)\}", pattern)
    names = parts[1::2]
    kinds = [  # a name that is there again has the same text
        rf"(\{names.index(name) + 1})" if name in names[:i] else "([0-9]+)" if name == seed else "([^/]+?)"
        for i, name in enumerate(names)
    ]
    text = "".join(re.escape(part) + kind for part, kind in zip(parts[::2], [*kinds, ""], strict=True))
    found = re.search(f"(?:^|/){text}$", path)
    return dict(zip(names, found.groups(), strict=True)) if found else {}


def read_wandb(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    """A folder of offline runs (`./wandb`), one of their files, or ENTITY/PROJECT of the service, which needs a login.
    Settings are the run's config, nested ones by dotted names ("model.depth"); figures that its history lacks are taken
    from its summary."""
    path = Path(where).expanduser()
    if not path.exists():
        yield from _of_service(where, wanted)
        return
    for file in sorted(path.rglob("*.wandb")) if path.is_dir() else [path]:
        try:
            run = _of_file(file, wanted)
        except InputError:
            raise
        except Exception as error:  # protobuf's among them, which wandb brings
            raise InputError(file, f"is damaged ({error})", "copy it again, or leave it out") from error
        yield run


def _of_service(where: str, wanted: Wanted) -> Iterator[LoggedRun]:
    import wandb

    try:
        for run in wandb.Api().runs(where):
            # One by one, as rows that lack one of several keys are left out.
            scans = {tag: run.scan_history(keys=["_step", tag]) for tag in wanted.figures.values()}
            steps = _by_step((step["_step"], tag, step[tag]) for tag, scan in scans.items() for step in scan)
            summary = dict(run.summary)
            yield LoggedRun(
                where=f"run {run.name} ({run.id})",
                values={**_settings(run.config), "run_name": run.name},
                history=_with_ends(steps, summary, wanted) or [_numbers(summary)],
                started=str(run.created_at),
                seconds=float(summary.get("_runtime", 0.0)),
                unfinished="" if run.state == "finished" else run.state,
            )
    except (wandb.Error, ValueError) as error:
        hint = "name a folder of offline runs, or ENTITY/PROJECT after wandb login"
        raise InputError(f"wandb:{where}", f"cannot be read ({error})", hint) from error


def _of_file(file: Path, wanted: Wanted) -> LoggedRun:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    steps: list[dict[str, float]] = []
    name, started, code = file.stem, "", None
    for content in records_in(file):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            name, started = record.run.display_name or name, record.run.start_time.ToDatetime(UTC).isoformat()
            config |= _updates(record.run.config.update)
        elif kind == "config":
            config |= _updates(record.config.update)
        elif kind == "history":
            steps.append(_numbers(_updates(record.history.item)))
        elif kind == "summary":
            summary |= _updates(record.summary.update)
        elif kind == "exit":
            code = record.exit.exit_code
    return LoggedRun(
        where=f"run {name} ({file.name})",
        values={**_settings(config), "run_name": name},
        history=_with_ends(steps, summary, wanted),
        started=started,
        seconds=float(summary.get("_runtime", 0.0)),
        unfinished={None: "not ended", 0: ""}.get(code, f"exit code {code}"),
    )


def _with_ends(steps: list[dict[str, float]], summary: dict[str, Any], wanted: Wanted) -> list[dict[str, float]]:
    """A history, at whose end are the figures that the summary alone has."""
    there = {tag for step in steps for tag in step}
    ends = {tag: value for tag, value in _numbers(summary).items() if tag in {*wanted.figures.values()} - there}
    return [*steps[:-1], (steps[-1] if steps else {}) | ends] if ends else steps


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config by dotted names, without what W&B itself keeps there."""
    return {name: value for name, value in flat(config).items() if not name.startswith("_")}


def _updates(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    special = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    plain = {k: special.get(v, v) if isinstance(v, str) else v for k, v in values.items()}
    return {k: float(v) for k, v in plain.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def records_in(file: Path) -> Iterator[bytes]:
    """The records of a file of W&B's, which its package writes and does not read: LevelDB's log behind 7 bytes, in
    blocks of 32 KiB. A last one that is cut short is left out."""
    data, at, parts = file.read_bytes(), 7, b""
    if data[:4] != b":W&B":
        raise InputError(file, "is not a file of wandb's", "name a run-*.wandb that wandb wrote")
    while at + 7 <= len(data):
        if (room := _BLOCK - at % _BLOCK) < 7:
            at += room
            continue
        length, kind = struct.unpack("<xxxxHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            return
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
