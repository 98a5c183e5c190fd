"""Runs in order for tables, and what has to be said beside their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

from cvhw4.errors import printable
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.numbers import ends
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import Bounds
from cvhw4.study import Study
from cvhw4.tasks import CUSTOM, LABELS, SEGMENTATION, TASKS, Task

Groups = Mapping[str, Sequence[RunRecord]]  # runs by row, seeds in order
SHORT = LABELS | {metric: short for task in TASKS.values() for metric, short in task.short.items()}  # for a terminal


def by_row(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by row, seeds in order."""
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        groups.setdefault(record.row, []).append(record)
    return groups


def by_data(records: Sequence[RunRecord], failures: Iterable[Failure] = ()) -> dict[str, dict[str, list[RunRecord]]]:
    """Runs by data set and row, seeds in order; the data sets on which runs only failed come last, without any."""
    names = dict.fromkeys([*(r.data.name for r in sorted(records, key=lambda r: r.seed)), *(f.data for f in failures)])
    return {name: by_row(r for r in records if r.data.name == name) for name in names}


def with_metric(runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
    """The runs that have a metric: those from before the study had it have none."""
    return [run for run in runs if metric in run.epochs[-1].figures]


def all_shown(study: Study, task: Task, runs: Sequence[RunRecord]) -> list[str]:
    """The metrics that pages show for the rows of a task; of a training loop of the study's own all that it yielded."""
    yielded = [metric for r in runs for metric in r.metrics] if task.name == CUSTOM.name else []
    return list(dict.fromkeys([*study.shown(task), *yielded]))


def lower_note(study: Study) -> str:
    """A sentence, with a space before it, on the figures of which lower is better; nothing where there are none."""
    names = ", ".join(map(metric_name, sorted(study.lower_is_better)))
    return f" Of {names} the lowest is best: there a claim's difference is its worse row's less its better." * bool(
        names
    )


def metric_name(metric: str) -> str:
    """How pages call a metric; a study's own goes by its name."""
    return LABELS.get(metric, escape(metric))


def figure_name(figure: str, labels: Mapping[str, str] = LABELS) -> str:
    """How a figure, as `RunRecord.figure` takes it, is called: "best pixel accuracy"."""
    which, metric = figure.split(" ", 1)
    return f"{which} {labels.get(metric, metric)}"


def class_names(record: RunRecord) -> list[str]:
    """The names of the classes that a run's network tells apart."""
    return [*record.merged.names] if record.task == SEGMENTATION.name else list(record.data.classes)


def by_classes(groups: Groups) -> list[tuple[str, dict[str, Sequence[RunRecord]]]]:
    """Runs of segmentation by row, apart for rows that tell other classes apart, those with most classes first; each
    group under "11 classes", or "3 classes (2)" where it is the second of so many."""
    found: dict[tuple[str, ...], dict[str, Sequence[RunRecord]]] = {}
    for row, runs in groups.items():
        found.setdefault(tuple(class_names(runs[0])), {})[row] = runs
    counts: dict[int, int] = {}
    named = []
    for names, of_names in sorted(found.items(), key=lambda item: -len(item[0])):
        again = counts[len(names)] = counts.get(len(names), 0) + 1
        named.append((f"{len(names)} classes{f' ({again})' if again > 1 else ''}", of_names))
    return named


def published(study: Study, row: str, metric: str) -> float | None:
    """A row's published figure, if there is one."""
    return study.published[row].figures.get(metric) if row in study.published else None


def device(record: RunRecord) -> str:
    """ "cpu (2 threads)" or the GPU's name, with the precision where it is bf16 or was chosen by timing: "cpu (2
    threads, bf16 by timing)"."""
    e = record.environment
    how = str(e.get("precision", "float32")) + (" by timing" if "step_seconds" in e else "")
    if e["device"] != "cpu":
        return str(e["device_name"]) + ("" if how == "float32" else f" ({how})")
    threads = f"{e['threads']} thread" + "s" * (e["threads"] != 1)
    return f"cpu ({threads})" if how == "float32" else f"cpu ({threads}, {how})"


def days(records: Iterable[RunRecord]) -> str:
    """ "2026-11-23", or "2026-11-23 to 2026-11-25"."""
    return ends(sorted({r.started[:10] for r in records}))


def seeds(by_row: Mapping[str, Sized]) -> str:
    """ "5 seeds a row", "1 to 5 seeds a row", of what each row has for every seed."""
    n = sorted({len(of_row) for of_row in by_row.values()})
    return f"{ends(n)} seed{'s' * (n[-1] > 1)} a row"


def judged(runs: Sequence[RunRecord], bounds: Bounds | None) -> str:
    """Whether runs meet their bounds: "met", "MISSED", or "none" where no bounds apply."""
    missed = [] if bounds is None else bounds.missed(*runs)
    if bounds is None or not (missed or bounds.check(*runs)):
        return "none"
    return "MISSED" if missed else "met"


# What has to be said


def origins(groups: Groups) -> list[str]:
    """Lines for a terminal that say which weights the rows started from, which device they ran on, and what `notes`
    says; none without runs."""
    by_weights: dict[str, list[str]] = {}
    for row, runs in groups.items():
        if runs[0].task == CUSTOM.name:
            continue
        by_weights.setdefault(", ".join(sorted({r.weights.origin for r in runs})), []).append(row)
    runs = [r for of_row in groups.values() for r in of_row]
    devices = ", ".join(sorted({device(r) for r in runs}))
    weights = [f"weights: {printable(origin)} ({', '.join(rows)})" for origin, rows in by_weights.items()]
    return [*weights, *([f"device: {printable(devices)}"] if runs else []), *collapsed(groups), *notes(runs, printable)]


def collapsed(groups: Groups) -> list[str]:
    """A line that says how many trainings of each row failed (`RunRecord.collapsed`); none where none did."""
    counts = {row: sum(r.collapsed for r in runs) for row, runs in groups.items()}
    rows = ", ".join(f"{n} of {len(groups[row])} of {row}" for row, n in counts.items() if n)
    return [f"Trainings that failed, one class alone being right after the last epoch: {rows}."] if rows else []


def notes(runs: Sequence[RunRecord], show: Callable[[str], str] = escape) -> list[str]:
    """Lines that say whether runs on data of one name saw different pictures, were by different code or in different
    precisions, or were validated on training pictures; none if none of it is so.

    Args:
        show: makes names harmless: for a page, or for the terminal (`printable`).
    """
    return [
        *_different_pictures(runs),
        *_different_code(runs, show),
        *_different_precisions(runs),
        *_leaks(runs, show),
        *_without_chance(runs, show),
    ]


def _different_pictures(runs: Iterable[RunRecord]) -> list[str]:
    rows: dict[str, dict[str, None]] = {}
    for run in runs:
        rows.setdefault(run.data.fingerprint, {})[run.row] = None
    if len(rows) < 2:
        return []
    groups = "; ".join(", ".join(names) for names in rows.values())
    return [f"Rows were trained on different pictures under this name ({groups}): train them again to compare them."]


def _different_code(runs: Iterable[RunRecord], show: Callable[[str], str]) -> list[str]:
    by_code: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.started):
        by_code.setdefault(str(run.environment.get("code", "not recorded"))[:12], []).append(run)
    if len(by_code) < 2:
        return []
    versions = "; ".join(
        show(f"{code} ({', '.join(sorted({r.row for r in of_code}))}; {days(of_code)})")
        for code, of_code in by_code.items()
    )
    different = f"Rows were run by different versions of the code: {versions}."
    return [f"{different} A difference between them may be the code's."]


def _different_precisions(runs: Iterable[RunRecord]) -> list[str]:
    rows: dict[str, dict[str, None]] = {}
    for run in runs:
        rows.setdefault(str(run.environment.get("precision", "float32")), {})[run.row] = None
    if len(rows) < 2:
        return []
    groups = "; ".join(f"{precision} ({', '.join(names)})" for precision, names in rows.items())
    return [f"Rows were computed in different precisions: {groups}. --precision float32 or bf16 gives all the same."]


def _without_chance(runs: Iterable[RunRecord], show: Callable[[str], str]) -> list[str]:
    """Of training loops of the study's own: rows whose seeds all have the same figures."""
    same = []
    for row, of_row in by_row(r for r in runs if r.task == CUSTOM.name).items():
        figures = [[e.figures for e in r.epochs] for r in of_row]
        if len(figures) > 1 and all(of_run == figures[0] for of_run in figures):
            same.append(show(row))
    if not same:
        return []
    return [
        f"All seeds have the same figures in {', '.join(same)}: what is trained there does not depend on the seed, so "
        "that no spread is seen, and a verdict is about this one training alone."
    ]


def _leaks(runs: Iterable[RunRecord], show: Callable[[str], str]) -> list[str]:
    leaks = max((r.data.leaks for r in runs), key=len, default=[])
    if not leaks:
        return []
    many = f"{len(leaks)} validation pictures are training pictures too"
    what = many if len(leaks) > 1 else "1 validation picture is a training picture too"
    names = ", ".join(map(show, leaks[:3])) + (", ..." if len(leaks) > 3 else "")
    return [f"{what}, so validation figures are optimistic: {names}."]
