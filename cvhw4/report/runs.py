"""Runs in order for tables, and what has to be said beside their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from operator import attrgetter
from typing import TypeVar

from cvhw4.errors import printable
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import grouped as grouped  # which other pages take from here
from cvhw4.report.numbers import ends, limits
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import Bounds, Twin
from cvhw4.statistics.changes import as_text, flat
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.sensitivity import Detection
from cvhw4.study import Row, Study
from cvhw4.tasks import CLASSIFICATION, CUSTOM, LABELS, SEGMENTATION, TASKS, Task

Groups = Mapping[str, Sequence[RunRecord]]  # runs by row, seeds in order
SHORT = LABELS | {metric: short for task in TASKS.values() for metric, short in task.short.items()}  # for a terminal


K = TypeVar("K")
R = TypeVar("R", RunRecord, Failure)


def of_study(study: Study, records: Iterable[R]) -> list[R]:
    """The runs of a study's rows, without those from when a row was of another kind of task."""
    return [r for r in records if r.row in study.rows and r.task == study.rows[r.row].task.name]


def page_title(study: Study, records: Sequence[RunRecord]) -> str:
    """A study's title, and which runs of it a page is about, Markdown: "Insects, on photos (6 runs)"."""
    data = sorted({r.data.name for r in records if r.task != CUSTOM.name})
    which = f" ({len(records)} run{'s' * (len(records) > 1)})" * bool(records)
    return escape(f"{study.title}" + f", on {' and '.join(data)}" * bool(data) + which)


def by_row(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by row, seeds in order."""
    return grouped(sorted(records, key=attrgetter("seed")), attrgetter("row"))


def by_data(records: Iterable[RunRecord], failures: Iterable[Failure] = ()) -> dict[str, dict[str, list[RunRecord]]]:
    """Runs by data set and row, seeds in order; the data sets on which runs only failed come last, without any."""
    sets = grouped(sorted(records, key=attrgetter("seed")), attrgetter("data.name"))
    return {name: by_row(sets.get(name, ())) for name in dict.fromkeys([*sets, *(f.data for f in failures)])}


def with_metric(runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
    """The runs that have a metric: those from before the study had it have none."""
    return [run for run in runs if metric in run.epochs[-1].figures]


def all_shown(study: Study, task: Task, runs: Sequence[RunRecord]) -> list[str]:
    """The metrics that pages show for the rows of a task; of a training loop of the study's own all that it yielded."""
    yielded = [metric for r in runs for metric in r.metrics] if task.name == CUSTOM.name else []
    return list(dict.fromkeys([*study.shown(task), *yielded]))


def lower_note(runs: Iterable[RunRecord]) -> str:
    """A sentence, with a space before it, on the figures of which lower is better; nothing where there are none."""
    of = ", ".join(map(metric_name, sorted({name for r in runs for name in r.lower_is_better})))
    return f" Of {of} the lowest is best: there a claim's difference is its worse row's less its better." * bool(of)


def metric_name(metric: str) -> str:
    """How pages call a metric; a study's own goes by its name."""
    return LABELS.get(metric, escape(metric))


def metric_heading(metric: str) -> str:
    """The same at the beginning of a heading or sentence: "Pixel accuracy", "mIoU"; a study's own as it is."""
    name = metric_name(metric)
    return name if metric not in LABELS or name == "mIoU" else name[0].upper() + name[1:]


def figure_name(figure: str, labels: Mapping[str, str] = LABELS) -> str:
    """How a figure, as `RunRecord.figure` takes it, is called: "best pixel accuracy"."""
    which, metric = figure.split(" ", 1)
    return f"{which} {labels.get(metric, metric)}"


def class_names(record: RunRecord) -> tuple[str, ...]:
    """The names of the classes that a run's network tells apart."""
    return tuple(record.merged.names if record.task == SEGMENTATION.name else record.data.classes)


def by_classes(groups: Groups) -> list[tuple[str, dict[str, Sequence[RunRecord]]]]:
    """Runs of segmentation by row, apart for rows that tell other classes apart, those with most classes first; each
    group under "11 classes", or "3 classes (2)" where it is the second of so many."""
    found = sorted(grouped(groups, lambda row: class_names(groups[row][0])).items(), key=lambda item: -len(item[0]))
    named = []
    for number, (names, rows) in enumerate(found):
        again = 1 + sum(len(before) == len(names) for before, _ in found[:number])
        title = f"{len(names)} classes" + (f" ({again})" if again > 1 else "")
        named.append((title, {row: groups[row] for row in rows}))
    return named


def of_class(runs: Sequence[RunRecord], figures: str) -> list[Estimate | None]:
    """A figure of each class, by its name in `RunRecord.by_class`, over seeds; None for one of which no run has it."""
    by_class = zip(*(r.by_class[figures] for r in runs), strict=True)
    real = ([v for v in of_class if not math.isnan(v)] for of_class in by_class)
    return [estimate(values) if values else None for values in real]


def published(study: Study, row: str, metric: str) -> float | None:
    """A row's published figure, if there is one."""
    return study.published[row].figures.get(metric) if row in study.published else None


def printed_digits(study: Study, metric: str) -> int:
    """How many decimals the published figures of a metric have, as they were printed: the most that any has."""
    figures = (p.figures[metric] for p in study.published.values() if metric in p.figures)
    return max((len(f"{figure:f}".rstrip("0").partition(".")[2]) for figure in figures), default=0)


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


def seeds(by_row: Mapping[K, Sized]) -> str:
    """ "5 seeds a row", "1 to 5 seeds a row", of what each row has for every seed."""
    n = sorted({len(of_row) for of_row in by_row.values()})
    return f"{ends(n)} seed{'s' * (n[-1] > 1)} a row"


def judged(runs: Sequence[RunRecord], bounds: Bounds | None, metric: str | None = None) -> str:
    """Whether runs meet their bounds: "met", "met, 1 aside" where one is passed over as an outlier, "MISSED", or "none"
    where no bounds apply.

    Args:
        metric: beside which of their figures it stands: the primary one answers for the row, others say "none" where
            they have no bound.
    """
    if bounds is not None and metric not in (None, runs[0].primary):
        of_row = (*bounds.rows.get(runs[0].row, ()), *bounds.twins.get(runs[0].row, ()))
        bounds = bounds if any(figure.partition(" ")[2] == metric for figure in of_row) else None
    missed = [] if bounds is None else bounds.missed(*runs)
    aside = [] if bounds is None else bounds.aside(*runs)
    if bounds is None or not (missed or aside or bounds.check(*runs)):
        return "none"
    return "MISSED" if missed else f"met, {len(aside)} aside" if aside else "met"


def bound_words(d: Detection) -> str:
    """The bound that gives a corruption away: "[0.861, 0.883]", or "own seed ± 1.0e-04"."""
    return f"own seed ± {d.bound.tolerance:.1e}" if isinstance(d.bound, Twin) else limits(d.bound.low, d.bound.high)


def set_aside(groups: Groups, bounds: Bounds | None) -> list[str]:
    """A line that says which runs were passed over as outliers; none where none was."""
    found = [(row, bounds.aside(*runs, row=row), runs) for row, runs in groups.items() if bounds and runs]
    rows = ", ".join(f"{len(those)} of {len(runs)} of {row}" for row, those, runs in found if those)
    what = "Set aside as outliers (runs that learned far less than others of their row, as a few calibrated ones did)"
    return [f"{what}: {rows}."] if rows else []


# What has to be said


def origins(groups: Groups) -> list[str]:
    """Lines for a terminal that say which weights the rows started from, which device they ran on, and what `notes`
    says; none without runs."""
    runs = [r for of_row in groups.values() for r in of_row]
    pretrained = [row for row, of_row in groups.items() if of_row[0].task != CUSTOM.name]
    weights = grouped(pretrained, lambda row: ", ".join(sorted({r.weights.origin for r in groups[row]})))
    lines = [f"weights: {printable(origin)} ({', '.join(rows)})" for origin, rows in weights.items()]
    lines += [f"device: {printable(', '.join(sorted({device(r) for r in runs})))}"] if runs else []
    return [*lines, *collapsed(groups), *notes(runs, show=printable)]


def collapsed(groups: Groups) -> list[str]:
    """A line that says how many trainings of each row failed (`RunRecord.collapsed`); none where none did."""
    counts = {row: sum(r.collapsed for r in runs) for row, runs in groups.items()}
    rows = ", ".join(f"{n} of {len(groups[row])} of {row}" for row, n in counts.items() if n)
    return [f"Trainings that failed (after the last epoch no more than one class is right): {rows}."] if rows else []


def scope(runs: Sequence[RunRecord]) -> str:
    """What pictures a conclusion over seeds is about; "" where a study's own training loop alone knows its data."""
    if all(r.task == CUSTOM.name for r in runs):
        return ""
    if all(r.data.redrawn for r in runs):
        return (
            "Each seed drew its own pictures, so that what is concluded over seeds is about others of their kind too."
        )
    if any(r.data.redrawn for r in runs):
        return "Of generated pictures each seed drew its own, but not where it says *one set*; others all seeds saw."
    return "All seeds saw the same pictures, so that what is concluded over seeds is about these."


def notes(runs: Sequence[RunRecord], study: Study | None = None, show: Callable[[str], str] = escape) -> list[str]:
    """Lines that say whether runs on data of one name saw different pictures, had other settings than their rows have,
    were by different code or in different precisions, were validated on training pictures, or give the same figures
    whatever the seed; none if none is so. `study` has its rows as they are now; None where the runs are known to be of
    these. `show` makes names harmless: for a page, or for the terminal (`printable`)."""

    def rows(of: Iterable[RunRecord]) -> str:
        return ", ".join(dict.fromkeys(r.row for r in of))

    said = []
    pictures = grouped(runs, attrgetter("data.fingerprint"))
    if len(pictures) > 1:
        sets = "; ".join(map(rows, pictures.values()))
        said += [f"Rows were trained on different pictures under this name ({sets}): train them again to compare them."]
    now = study.rows if study is not None else {}
    changed = {row: _changed(of_row[0], now[row]) for row, of_row in by_row(runs).items() if row in now}
    if told := [show(f"{row} ({what})") for row, what in changed.items() if what]:
        said.append(
            f"Rows were trained with other settings than the study has now: {', '.join(told)}. "
            "Train them again to compare them."
        )
    in_time = sorted(runs, key=attrgetter("started"))
    codes = grouped(in_time, lambda r: str(r.environment.get("code", "not recorded"))[:12])
    if len(codes) > 1:
        by_name = {code: sorted(of, key=attrgetter("row")) for code, of in codes.items()}
        groups = "; ".join(show(f"{code} ({rows(of)}; {days(of)})") for code, of in by_name.items())
        said.append(
            f"Rows were run by different versions of the code: {groups}. A difference between them may be the code's."
        )
    precisions = grouped(runs, lambda r: str(r.environment.get("precision", "float32")))
    if len(precisions) > 1:
        sets = "; ".join(f"{precision} ({rows(of)})" for precision, of in precisions.items())
        said += [f"Rows were computed in different precisions: {sets}. --precision float32 or bf16 gives all the same."]
    if leaks := max((r.data.leaks for r in runs), key=len, default=[]):
        many = f"{len(leaks)} validation pictures are training pictures too"
        what = many if len(leaks) > 1 else "1 validation picture is a training picture too"
        names = ", ".join(map(show, leaks[:3])) + (", ..." if len(leaks) > 3 else "")
        said.append(f"{what}, so validation figures are optimistic: {names}.")
    own = by_row(r for r in runs if r.task == CUSTOM.name)
    figures = {row: [[e.figures for e in r.epochs] for r in of_row] for row, of_row in own.items()}
    if same := [show(row) for row, of in figures.items() if len(of) > 1 and all(one == of[0] for one in of)]:
        said.append(
            f"All seeds have the same figures in {', '.join(same)}: what is trained there does not depend on the seed, "
            "so that no spread is seen, and a verdict is about this one training alone."
        )
    return said


def _changed(record: RunRecord, row: Row) -> str:
    """ "recipe.lr 0.001, now 0.01": the settings that a run had and its row has no more; "" where none is so."""
    then, now = flat(record.settings), flat(row.settings())
    counted = ("classes",) if row.task is CLASSIFICATION else ()  # in the folder, which may not be here
    names = [name for name in sorted({*then, *now} - {*counted}) if then.get(name) != now.get(name)]
    texts = {n: [as_text(of[n]) if n in of else "left out" for of in (then, now)] for n in names}
    return "; ".join(f"{n} {a}, now {b}" if len(a + b) < 60 else f"{n} changed" for n, (a, b) in texts.items())
