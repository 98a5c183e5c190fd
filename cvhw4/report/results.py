"""`report.md`: the figures of all runs, in tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cvhw4.discovery import logged_elsewhere
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.failures import BIASED, failures_table, share
from cvhw4.report.figures import Picture
from cvhw4.report.numbers import (
    difference,
    ends,
    interval,
    number,
    p_value,
    seconds,
    seeds_note,
    seeds_of,
    spread,
    tally,
    verdict,
)
from cvhw4.report.runs import (
    Groups,
    all_shown,
    by_classes,
    by_data,
    class_names,
    collapsed,
    days,
    device,
    judged,
    lower_note,
    metric_name,
    notes,
    of_class,
    published,
    set_aside,
    with_metric,
)
from cvhw4.report.tables import Table
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Row, Study
from cvhw4.study.rows import design
from cvhw4.tasks import CUSTOM, LABELS, SEGMENTATION, Task

_CONVENTIONS = {
    "miou": "mIoU, by image",
    "set_miou": "mIoU, whole set",
    "pixel_accuracy": "pixel accuracy, by image",
    "set_pixel_accuracy": "pixel accuracy, whole set",
}
_MOST_LISTED = 3  # seeds whose best epochs are listed one by one
_NONE_OLDER: Mapping[str, int] = {}
_NO_PICTURES: Mapping[tuple[str, str], Sequence[tuple[str, Picture]]] = {}


def report_page(
    study: Study,
    records: Sequence[RunRecord],
    bounds: Bounds | None,
    missing: Mapping[str, str],
    failures: Sequence[Failure] = (),
    pictures: Mapping[tuple[str, str], Sequence[tuple[str, Picture]]] = _NO_PICTURES,
    tables: Sequence[str] = (),
    older: Mapping[str, int] = _NONE_OLDER,
) -> str:
    """The whole page.

    Args:
        records: the runs of the study's rows, those of each row alike but for the seed.
        bounds: what rows on the data of their calibration are judged by.
        missing: rows without runs, and why.
        failures: the runs that failed, those of each row likewise.
        pictures: by task and data set, each with its heading; those of the claims under two empty names.
        tables: paths of the study's own tables for papers, from where the page is.
        older: how many runs of a row are left out.
    """
    parts = [f"# {escape(study.title)}", _preamble(study, records), *([escape(study.about)] if study.about else [])]
    if tables:
        parts.append(f"Tables for papers: {', '.join(f'[{path}]({path})' for path in tables)}.")
    if older:
        counts = ", ".join(f"{n} of {escape(row)}" for row, n in older.items())
        parts.append(
            f"Left out are runs with other settings, code, packages or devices than the latest of their row: {counts} "
            "(`cvhw4 list` has them)."
        )
    outcomes = judge_all(study, records, known=(bounds or NO_BOUNDS).known)
    if outcomes:
        rules = (
            f"By the {study.epoch} epoch: paired t test over seeds at 5 %, Holm's correction for the claims about the "
            "same data, controls each by itself."
        )
        drawn = (picture.markdown for _, picture in pictures.get(("", ""), ()))
        note = " " + seeds_note(outcomes)
        parts += ["## The claims", f"{tally(outcomes)}. {rules}{note.rstrip()}", *drawn]
    for task in study.tasks:
        failed = [f for f in failures if f.task == task.name]
        for data, groups in by_data([r for r in records if r.task == task.name], failed).items():
            section = _Section(
                study=study,
                task=task,
                data=data,
                groups=groups,
                outcomes=[o for o in outcomes if o.data == data and study.rows[o.claim.rows[0]].task == task],
                bounds=bounds,
                failures=[f for f in failed if f.data == data],
                pictures=pictures.get((task.name, data), ()),
            )
            parts += section.parts()
    seen = {r.row for r in records} | {f.row for f in failures}
    absent = [
        {"row": row, "why": escape(missing.get(row, "no run is stored"))} for row in study.rows if row not in seen
    ]
    if absent:
        parts += ["## Rows without a run", Table.of(absent).markdown()]
    return "\n\n".join(parts) + "\n"


def _preamble(study: Study, records: Sequence[RunRecord]) -> str:
    if not records:
        return "No runs yet."
    machines = sorted({", ".join(dict.fromkeys((r.environment["device_name"], device(r)))) for r in records})
    versions = sorted({text for r in records for text in r.software})
    commits = sorted({commit for r in records if (commit := r.environment["commit"])})
    code = f"; code {', '.join(commits)}" if commits else ""
    where = "; ".join([days(records), *machines, *([", ".join(versions)] if versions else [])]) + code
    of_publication = (
        " *Published* is the publication's figure, on its own data and networks: on others, or at another size, the "
        "difference shows how far apart the two studies are, not an error of either."
    )
    return (
        f"{len(records)} run{'s' * (len(records) > 1)}, {escape(where)}.\n\n"
        "Mean ± standard deviation over seeds; the interval is the mean's, 95 %, Student's t over seeds. *Best* is the "
        "best of all epochs on the validation set, and so an optimistic figure; *last* is the last epoch's."
        + (of_publication if study.published else "")
    )


@dataclass(kw_only=True)
class _Section:
    """What the page says of one task on one data set."""

    study: Study
    task: Task
    data: str
    groups: Groups
    outcomes: Sequence[Outcome]
    bounds: Bounds | None
    failures: Sequence[Failure]
    pictures: Sequence[tuple[str, Picture]]

    def __post_init__(self) -> None:
        self.rows, self.own_loop = self.study.of(self.task), self.task.name == CUSTOM.name
        self.ran = [row for row in self.rows if row.name in self.groups]
        self.runs = [r for of_row in self.groups.values() for r in of_row]
        self.notes = notes(self.runs, self.study)

    def parts(self) -> list[str]:
        """Its parts in Markdown."""
        source = self.study.sources.get(self.task.name)
        title = (source.title if source is not None else "") or self.study.title
        parts = [f"## {escape(title)} ({escape(self.data)})", self._about()]
        parts += [*collapsed(self.groups), *set_aside(self.groups, self.bounds)]
        for metric in all_shown(self.study, self.task, self.runs):
            lines = list(self._figures(metric))
            if lines:
                parts += [f"### {_heading(metric)}", self._table(lines), *self.notes]
        parts += self._settings()
        for heading, shown in groupby(self.pictures, lambda picture: picture[0]):
            parts += [f"### {heading}", *(p.markdown for _, p in shown)]
        drawn = any(p.stem.startswith(("attention", "panels")) for _, p in self.pictures)
        if not self.own_loop and self.pictures and not drawn:
            alone = "no two rows tell the same classes apart at one seed"
            if self.task is not SEGMENTATION:
                alone = "no network ends in a map of features to look into"
            parts += [f"No validation pictures are shown: none are stored with these runs, or {alone}."]
        if self.failures:
            parts += ["### Failed runs", failures_table(self.failures, self.rows), BIASED]
        if not self.runs:
            return parts
        if self.outcomes:
            parts += ["### Claims", self._claims(), *self.notes]
        if self.task is SEGMENTATION:
            parts += self._conventions()
        if any(r.times.total_seconds for r in self.runs):
            heading = "### Time and memory" if self.own_loop else "### Weights, time and memory"
            parts += [heading, self._costs(), *self._continued()]
        return parts

    def _about(self) -> str:
        if not self.runs:
            return "No run has finished on these data."
        first = self.runs[0]
        about = f"{first.data.train} training and {first.data.val} validation images"
        about += ", drawn by cvhw4" * first.data.embedded
        about += ", of each seed its own." if first.data.redrawn else "."
        if self.own_loop:
            loop = f"A training loop of its own (`{escape(first.weights.network)}`), which alone knows its data."
            logged = "Runs that were trained and logged elsewhere; their data and settings are not checked."
            about = (logged if self.study.train is logged_elsewhere else loop) + lower_note(self.runs)
        also_after = self.study.also_after.get(self.task.name, math.inf)
        if any(len(r.epochs) > also_after for r in self.runs):
            about += f" A row's second line: the same runs after their first {also_after} epochs."
        if self.bounds and self.bounds.rows and not any(self.bounds.apply_to(r.data.fingerprint) for r in self.runs):
            about += " The bounds are calibrated on other data and do not apply."
        return about

    def _figures(self, metric: str) -> Iterator[dict[str, str]]:
        """The rows for one metric: best and last epoch, the published figure, the difference. Where the study asks for
        it, each row is shown as after fewer epochs too, in a line of its own."""
        also_after = self.study.also_after.get(self.task.name)
        name = metric_name(metric)
        for row in self.rows:
            runs = with_metric(self.groups.get(row.name, []), metric)
            failed = [f for f in self.failures if f.row == row.name]
            lengths = sorted({len(r.epochs) for r in runs}) or ([] if row.epochs is None else [row.epochs])
            remark = f" ({share(runs, failed)})" if failed else ""
            for within in (None, *([also_after] if runs and also_after and also_after < lengths[-1] else [])):
                if not runs and not failed:
                    continue
                shown = str(within or (ends(lengths) if lengths else "-"))
                best = estimate([r.best(metric, within) for r in runs]) if runs else None
                last = estimate([r.epochs[:within][-1].figures[metric] for r in runs]) if runs else None
                stated = published(self.study, row.name, metric)
                yield {
                    "row": row.name,
                    f"best {name}": "**failed**" if best is None else spread(best),
                    "95 % interval": "-" if best is None else interval(best),
                    f"last {name}": "-" if last is None else spread(last),
                    "published": self._stated(row, metric),
                    "less published": "-" if best is None or stated is None else number(best.mean - stated, sign="+"),
                    "bounds": judged(runs, self.bounds) if runs and within is None else "-",  # of whole runs
                    "n": f"{len(runs)}{remark}",
                    "epochs": shown,
                    "best at": _listed([r.best_epoch(metric, within) for r in runs]),
                }

    def _settings(self) -> list[str]:
        """What the rows that ran train; nothing where that is their names alone."""
        rows = [row for row in self.rows if row in self.ran or any(f.row == row.name for f in self.failures)]
        lines = [
            {escape(k): v if v == "-" else escape(v) for k, v in line.items()}
            for of_task in design(rows)
            for line in of_task
        ]
        if self.task is SEGMENTATION and all(row.skips is None for row in rows):
            lines = [{k: v for k, v in line.items() if k != "skips"} for line in lines]  # which FCN8s alone has
        return ["### Settings", Table.of(lines).markdown()] if lines and len(lines[0]) > 1 else []

    def _table(self, lines: Sequence[Mapping[str, str]]) -> str:
        whole = not self.own_loop and len({line["row"] for line in lines}) == len(lines)
        without = ["epochs"] if whole else []  # of whole runs alone: as the settings say
        return Table.of(lines, without, optional=("published", "less published", "bounds")).markdown()

    def _stated(self, row: Row, metric: str) -> str:
        figure = published(self.study, row.name, metric)
        if figure is None:
            return "-"
        epoch = self.study.published[row.name].epochs.get(metric)
        return f"{figure:.4f}" + (f" at epoch {epoch}" if epoch else "")

    def _claims(self) -> str:
        lines = []
        for outcome in self.outcomes:
            check = self.bounds.check_claim(outcome) if self.bounds else None
            lines.append(
                {
                    "claim": outcome.claim.id,
                    "in words": escape(outcome.claim.sentence) + (" (control)" if outcome.claim.control else ""),
                    "figure": metric_name(outcome.claim.metric),
                    "difference": difference(outcome),
                    "95 % interval": interval(outcome.difference),
                    "n": seeds_of(outcome),
                    "p (Holm)": p_value(outcome.adjusted_p),
                    "verdict": verdict(outcome),
                    "bound": "none" if check is None else "met" if check.met else "MISSED",
                }
            )
        return Table.of(lines, optional=("bound",)).markdown()

    def _conventions(self) -> list[str]:
        """Both conventions of segmentation metrics after the last epoch, overall and by class."""
        lines = [
            {"row": row.name}
            | {name: spread(estimate([r.last(m) for r in self.groups[row.name]])) for m, name in _CONVENTIONS.items()}
            for row in self.ran
        ]
        parts = [
            "### The same predictions, two conventions (last epoch)",
            "*By image*: each image by itself, void counted as wrong, or as the class that it is merged into. *Whole "
            "set*: one confusion matrix, void left out.",
            Table.of(lines).markdown(),
            *self.notes,
        ]
        for title, rows in by_classes({row.name: self.groups[row.name] for row in self.ran}):
            names = class_names(next(iter(rows.values()))[0])
            columns: dict[str, list[str]] = {"class": [escape(n) for n in names]}
            for name in rows:
                for key, label in (("iou", "by image"), ("set_iou", "whole set")):
                    found = of_class(self.groups[name], key)
                    columns[f"{name}, {label}"] = ["-" if e is None else f"{e.mean:.3f}" for e in found]
            table = Table(tuple(columns), list(zip(*columns.values(), strict=True)))
            parts += [f"### IoU by class, {title} (last epoch)", table.markdown(), *self.notes]
        return parts

    def _costs(self) -> str:
        """What the runs started from and cost."""
        lines = []
        for row in self.ran:
            runs = self.groups[row.name]
            memory = [r.times.peak_memory_bytes for r in runs if r.times.peak_memory_bytes is not None]
            of_publication = self.study.published.get(row.name)
            trained, whole = f"{runs[0].trained_parameters / 1e6:.3g} M", runs[0].parameters / 1e6
            lines.append(
                {
                    "row": row.name,
                    "weights": escape(", ".join(sorted({r.weights.origin for r in runs}))),
                    "parameters (trained)": f"{whole:{'.2f' if whole >= 0.1 else '.2g'}} M ({trained})",
                    "time per run": seconds([r.times.total_seconds for r in runs]),
                    "training": seconds([r.times.train_seconds for r in runs]),
                    "images/s": f"{estimate([r.times.images_per_second for r in runs]).mean:.0f}",
                    "peak memory": f"{max(memory) / 2**30:.2f} GiB" if memory else "-",
                    "published time": of_publication.time if of_publication else "-",
                    "device": escape(", ".join(sorted({device(r) for r in runs}))),
                }
            )
        unknown = ("weights", "parameters (trained)", "training", "images/s") if self.own_loop else ()
        return Table.of(lines, unknown, optional=("published time",)).markdown()

    def _continued(self) -> list[str]:
        """A line that says how many runs of each row were broken off and continued; none where none was."""
        again = {row: sum(r.times.interruptions > 0 for r in runs) for row, runs in self.groups.items()}
        rows = ", ".join(f"{n} of {len(self.groups[row])} runs of {row}" for row, n in again.items() if n)
        continued = f"Continued after an interruption: {rows}. Their times cover only the steps that were kept."
        return [continued] if rows else []


def _heading(metric: str) -> str:
    """A metric's name as a heading: "Pixel accuracy", "mIoU"; a study's own as it is."""
    name = metric_name(metric)
    return name if metric not in LABELS or name == "mIoU" else name[0].upper() + name[1:]


def _listed(epochs: Sequence[int]) -> str:
    """Every seed's, or of many their range."""
    if len(epochs) <= _MOST_LISTED:
        return ", ".join(map(str, epochs)) or "-"
    return f"{min(epochs)} to {max(epochs)}, median {sorted(epochs)[len(epochs) // 2]}"
