"""Stored runs one by one: which there are, which of them a name means, and all there is to know of one."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError
from cvhw4.records.revisions import hint_of
from cvhw4.records.schema import Failure, RunRecord, stem
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.runs import class_names, grouped
from cvhw4.report.tables import Table
from cvhw4.report.text import clip, clock, sparkline
from cvhw4.statistics.changes import as_text, flat
from cvhw4.tasks import CUSTOM

_PREFIX = re.compile(r"[0-9a-f]{4,64}")
Run = RunRecord | Failure


@dataclass(frozen=True)
class Runs:
    """What a store holds, newest first: finished runs (those of a row's most recent configuration before older ones,
    then by seed), failed ones, and the fingerprints of the finished runs of most recent configurations."""

    finished: Sequence[RunRecord]
    failed: Sequence[Failure]
    latest: frozenset[str]


def runs_of(store: Store) -> Runs:
    """Reads a store; raises InputError where there is none."""
    if not store.folder.is_dir():
        raise InputError(store.folder, "is not a folder of runs", hint_of(store, "name one with --results and --study"))
    records = store.load()
    latest = frozenset(r.fingerprint for r in latest_runs(records))
    newest: dict[str, str] = {}  # when the newest run of a row began, and of a configuration
    for r in records:  # oldest first
        newest[r.row] = newest[r.configuration] = r.started

    def age(r: RunRecord) -> tuple[str, str, bool, str]:
        return newest[r.row], r.row, r.fingerprint in latest, newest[r.configuration]

    finished = sorted(sorted(records, key=lambda r: r.seed), key=age, reverse=True)
    return Runs(finished, store.failures()[::-1], latest)


def _name_of(run: Run) -> str:
    """ "q1_2-finetune-seed0"."""
    return f"{run.row}-seed{run.seed}"


def _clock(seconds: float) -> str:
    return clock(seconds).replace(" min", "") if seconds else "-"  # of runs from elsewhere it may not be known


def runs_table(runs: Iterable[RunRecord], latest: Collection[str]) -> Table:
    """A line per run."""
    rows = [
        (
            *(_name_of(r), r.fingerprint[:8], f"{r.best(r.primary):.3f}", f"{r.last(r.primary):.3f}"),
            *(_clock(r.times.total_seconds), r.started[:10], _device(r), "yes" if r.fingerprint in latest else "no"),
        )
        for r in runs
    ]
    return Table(("run", "print", "best", "last", "time", "date", "device", "latest"), rows)


def rows_table(runs: Iterable[RunRecord], latest: Collection[str]) -> Table:
    """A line per row and data set: how many runs, and the mean of those of the most recent configuration."""
    lines = []
    for (row, data), of_row in grouped(runs, lambda r: (r.row, r.data.name)).items():
        new = [r for r in of_row if r.fingerprint in latest]
        figures = ((r.best(r.primary), r.last(r.primary), r.times.total_seconds) for r in new)
        best, last, seconds = (math.fsum(values) / len(new) for values in zip(*figures, strict=True))
        older = f"{len(of_row) - len(new)}" if len(of_row) > len(new) else "-"
        cells = (f"{best:.3f}", f"{last:.3f}", _clock(seconds), max(r.started for r in new)[:10])
        lines.append((row, clip(data, 40), str(len(new)), older, *cells))
    return Table(("row", "data", "runs", "older", "best", "last", "time", "date"), lines)


def failures_table(failures: Iterable[Failure]) -> Table:
    """A line per run that could not be finished."""
    rows = [
        (_name_of(f), f.fingerprint[:8], str(f.epoch or "-"), str(f.step or "-"), f.started[:10], clip(f.reason))
        for f in failures
    ]
    return Table(("failed run", "print", "epoch", "step", "date", "why"), rows)


def is_row(name: str, run: Run) -> bool:
    """Whether a run is of the row with that name, or of one whose name begins with it and a hyphen."""
    return run.row == name or run.row.startswith(f"{name}-")


def find(name: str, runs: Runs, store: Store) -> list[Run]:
    """The runs that a name means.

    Args:
        name: a run ("q1_2-finetune-seed0": its most recent one), a row or the beginning of its name ("q1_2": its most
            recent runs, those that failed among them), the beginning of a fingerprint (four digits or more), or the
            path of a record.

    Raises:
        InputError: nothing has that name, or several runs do.
    """
    if name.endswith(".json") and Path(name).is_file():
        return [_read(Path(name))]
    everything: list[Run] = [*runs.finished, *runs.failed]
    if found := [run for run in everything if _name_of(run) == name]:
        return [max(found, key=lambda run: run.started)]
    exact = [run for run in everything if run.row == name]
    if of_row := exact or [run for run in everything if is_row(name, run)]:
        current = runs.latest | {f.fingerprint for f in runs.failed}
        return [run for run in of_row if run.fingerprint in current]
    named = [run for run in everything if _PREFIX.fullmatch(name) and run.fingerprint.startswith(name)]
    if len(named) == 1:
        return named
    if named:
        likely = ", ".join(f"{run.fingerprint[:12]} ({_name_of(run)})" for run in named[:5])
        raise InputError(name, f"begins {len(named)} fingerprints", f"name one of {likely}")
    names = dict.fromkeys(text for run in everything for text in (_name_of(run), run.row))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}" if near else "see cvhw4 list"
    raise InputError(name, f"is not a run stored in {store.folder}", hint)


def _read(path: Path) -> Run:
    """The record, or the note of a failure, in a file; raises InputError where it is neither."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "name the record of a run") from error
    kind: type[RunRecord] | type[Failure] = Failure if '"reason"' in text and '"epochs"' not in text else RunRecord
    return kind.from_json(text, path)


def shown(run: Run, runs: Runs, store: Store) -> list[Table]:
    """All there is to know of one run."""
    return _failed(run, store) if isinstance(run, Failure) else _finished(run, runs, store)


def _failed(f: Failure, store: Store) -> list[Table]:
    folder = store.unfinished / f.row
    step = "" if f.task == CUSTOM.name else f", step {f.step or '-'}, learning rate {f.lr:g}"
    what = {
        "run": _name_of(f),
        "state": "failed",
        "why": f.reason,
        "where": f"epoch {f.epoch or '-'}{step}",
        "data": f.data,
        "fingerprint": f.fingerprint,
        "began": f.started,
        "note": str(folder / f"{stem(f.seed, f.fingerprint)}.json"),
        "checkpoint": "none" if f.checkpoint is None else str(folder / f.checkpoint),
    }
    lines = [(line,) for line in f.traceback.splitlines()]
    return [_pairs("", what), Table(("",), lines, "traceback"), _pairs("environment", f.environment)]


def _finished(r: RunRecord, runs: Runs, store: Store) -> list[Table]:
    path, known = store.path(r.row, r.seed, r.fingerprint), r.task != CUSTOM.name  # known: what cvhw4 trained itself
    alike = [o.fingerprint for o in runs.finished if _name_of(o) == _name_of(r)]
    older = "of an older configuration than the row's most recent" if r.fingerprint in alike else "in no store"
    state = "of the row's most recent configuration" if r.fingerprint in runs.latest else older
    others = sum(fingerprint != r.fingerprint for fingerprint in alike)
    what = {
        "run": _name_of(r),
        "state": f"finished, {state}" + (f"; {others} other of this name" if others else ""),
        "began": r.started,
        "fingerprint": r.fingerprint,
        "configuration": r.configuration[:12],
        **(_trained(r) if known else {"trained by": r.weights.network}),
        **({} if known else {"lower is better": ", ".join(r.lower_is_better) or "-"}),
        "record": str(path) if path.exists() else "as named",
        **({"by image": _images(r, path)} if known else {}),
        **({"log": str(log)} if (log := path.with_suffix(".log")).exists() else {}),
    }
    memory = r.times.peak_memory_bytes
    parts = {
        "building": f"{r.times.build_seconds:.1f} s",
        "training": f"{r.times.train_seconds:.1f} s, {r.times.images_per_second:.1f} images/s",
        "evaluation": f"{r.times.evaluate_seconds:.1f} s",
    }
    times = (parts if known else {}) | {
        "in all": f"{r.times.total_seconds:.1f} s, {r.times.interruptions} interruptions",
        "peak memory": "unknown" if memory is None else f"{memory / 2**30:.2f} GiB",
    }
    curves = {m: sparkline([e.figures[m] for e in r.epochs]) for m in r.metrics}
    figures = [(m, f"{r.best(m):.4f}", str(r.best_epoch(m)), f"{r.last(m):.4f}", curve) for m, curve in curves.items()]
    epochs = [
        {"epoch": str(e.epoch)}
        | ({"rate": f"{e.lr:g}", "loss": f"{e.loss:.4f}"} if known else {})
        | {m: f"{e.figures[m]:.4f}" for m in r.metrics}
        | {"training": f"{e.train_seconds:.1f} s"}
        for e in r.epochs
    ]
    return [
        _pairs("", what),
        _pairs("settings", r.settings),
        Table(("metric", "best", "at epoch", "last", "by epoch"), figures, "metrics"),
        Table.of(epochs, title="epochs"),
        *_by_class(r),
        _pairs("times", times),
        _pairs("environment", r.environment),
    ]


def _trained(r: RunRecord) -> dict[str, str]:
    """What was trained, on what."""
    data, leaks = r.data, len(r.data.leaks)
    return {
        "data": f"{data.name}: {data.train} training, {data.val} validation images, {data.fingerprint[:12]}",
        **({"leaks": f"{leaks} validation pictures are training pictures too"} if leaks else {}),
        "weights": f"{r.weights.origin} ({r.weights.network}) {(r.weights.sha256 or '')[:12]}".rstrip(),
        "parameters": f"{r.parameters:,}, of which {r.trained_parameters:,} were trained",
    }


def _images(r: RunRecord, path: Path) -> str:
    """Where what was made of every validation image lies."""
    if r.images is None:
        return "not stored"
    beside = path.with_name(r.images.file)
    return str(beside) if beside.exists() else f"{r.images.file}, which is missing"


def _by_class(r: RunRecord) -> list[Table]:
    """Figures by class, those of the best epoch beside those of the last."""
    lengths = {len(values) for values in r.by_class.values()}
    if len(lengths) != 1:
        return []
    columns = [["-" if math.isnan(v) else f"{v:.3f}" for v in values] for values in r.by_class.values()]
    return [Table(("class", *r.by_class), list(zip(class_names(r), *columns, strict=True)), "by class")]


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    return Table(("", ""), [(name, as_text(value)) for name, value in flat(values).items()], title)


def _device(r: RunRecord) -> str:
    e = r.environment
    return f"cpu ({e['threads']})" if e["device"] == "cpu" else str(e["device_name"])
