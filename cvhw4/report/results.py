"""`report.md`: the figures of all runs, in tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cvhw4.discovery import logged_elsewhere
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.failures import BIASED, failures_table, share
from cvhw4.report.figures import Picture
from cvhw4.report.html import SUMMARY
from cvhw4.report.numbers import (
    data_of,
    difference,
    duration,
    ends,
    interval,
    interval_of,
    number,
    p_value,
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
    grouped,
    judged,
    lower_note,
    metric_heading,
    metric_name,
    notes,
    of_class,
    page_title,
    printed_digits,
    published,
    seeds,
    set_aside,
    with_metric,
)
from cvhw4.report.tables import Table
from cvhw4.report.text import anchor, code, escape
from cvhw4.statistics.bounds import Bounds
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study
from cvhw4.study.rows import design
from cvhw4.tasks import CUSTOM, SEGMENTATION, Task

_CONVENTIONS = {
    "miou": "mIoU, by image",
    "set_miou": "mIoU, whole set",
    "pixel_accuracy": "pixel accuracy, by image",
    "set_pixel_accuracy": "pixel accuracy, whole set",
}
_MOST_LISTED = 3  # seeds whose best epochs are listed one by one
_MOST_CLAIMS = 12  # whose verdicts the summary has
_LONG = 600  # seconds, from which times are in minutes
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
    verdicts: bool = False,
    agreement: str = "",
) -> str:
    """The whole page.

    Args:
        records: the runs of the study's rows, those of each row alike but for the seed; `failures` likewise.
        missing: rows without runs, and why.
        pictures: by task and data set, each with its heading; those of the claims under two empty names.
        tables: paths of the study's own tables for papers, from where the page is.
        older: how many runs of a row are left out.
        verdicts: whether there is a verdicts.md beside it.
        agreement: path of the page that holds these runs against others, likewise; "" where there is none.
    """
    outcomes = judge_all(study, records, bounds=bounds)
    sections = []
    for task in study.tasks:
        failed = [f for f in failures if f.task == task.name]
        for data, groups in by_data([r for r in records if r.task == task.name], failed).items():
            own = [o for o in outcomes if o.data == data and study.rows[o.claim.rows[0]].task == task]
            broken, drawn = [f for f in failed if f.data == data], pictures.get((task.name, data), ())
            sections.append(_Section(study, task, data, groups, own, bounds, broken, drawn))
    parts = [f"# {page_title(study, records)}", f"## {SUMMARY}"]
    parts += (
        [_summary(study, records, sections, outcomes, tables, verdicts, agreement)] if sections else ["No runs yet."]
    )
    if study.about:
        parts.append(f"*What verdicts are about*: {escape(study.about)}")
    parts += [_terms(study, records, bounds)] if records else []
    if older:
        counts = ", ".join(f"{n} of {escape(row)}" for row, n in older.items())
        parts.append(
            "Left out are runs with other settings, pictures, weights, code, packages or devices than the latest of "
            f"their row: {counts} (`cvhw4 list` has them)."
        )
    if outcomes:
        rules = (
            f"By the {study.epoch} epoch: paired t test over seeds at 5 %, Holm's correction for the claims about the "
            "same data, controls each by itself."
        )
        rules += " One seed decides nothing." * any(o.difference.n == 1 for o in outcomes)
        forest = (picture.markdown for _, picture in pictures.get(("", ""), ()))
        parts += ["## The claims", f"{rules} {seeds_note(outcomes)}".rstrip(), *forest]
    parts += [part for section in sections for part in section.parts()]
    seen = {r.row for r in records} | {f.row for f in failures}
    absent = grouped((row for row in study.rows if row not in seen), lambda row: missing.get(row, "no run is stored"))
    if absent:
        lines = [{"why": escape(why), "rows": ", ".join(map(escape, rows))} for why, rows in absent.items()]
        parts += ["## Rows without a run", Table.of(lines).markdown()]
    return "\n\n".join(parts) + "\n"


def _summary(
    study: Study,
    records: Sequence[RunRecord],
    sections: Sequence[_Section],
    outcomes: Sequence[Outcome],
    tables: Sequence[str],
    verdicts: bool,
    agreement: str,
) -> str:
    """The page in some ten lines: what ran, on what, whether bounds held, every verdict, failures, where to read on."""
    lines = []
    if records:
        rows, epochs = {r.row for r in records}, sorted({len(r.epochs) for r in records})
        by_set = grouped(records, lambda r: (r.row, r.data.name))
        machines = sorted({", ".join(dict.fromkeys((r.environment["device_name"], device(r)))) for r in records})
        versions = ", ".join(sorted({text for r in records for text in r.software}))
        commits = ", ".join(sorted({str(commit) for r in records if (commit := r.environment["commit"])}))
        made = [*machines, *filter(None, [versions]), *([f"code {commits}"] if commits else [])]
        ran = f"all {len(rows)}" if len(rows) == len(study.rows) else f"{len(rows)} of the {len(study.rows)}"
        lines += [
            f"**Runs**: {len(records)}; {ran} rows, {seeds(by_set)}, "
            f"{ends(epochs)} epoch{'s' * (epochs[-1] > 1)} each, {days(records)}.",
            f"**Data**: {'; '.join(section.images for section in sections if section.runs)}.",
            f"**Machine**: {escape('; '.join(made))}.",
        ]
    lines += _bounds_held(sections, outcomes)
    lines.append(f"**Failures**: {_said(sections, lambda s: s.broken) or 'none.'}")
    if outcomes:
        lines.append(f"**Claims**: {tally(outcomes)}.")
        own = [o for o in outcomes if not o.claim.control] or outcomes
        for o in own[:_MOST_CLAIMS]:
            data = "".join(f" on {name}" for name in data_of(o, own).values())
            size = " ".join([difference(o), *([interval_of(o)] if o.difference.n > 1 else [])])
            lines.append(f"  {verdict(o)}: {escape(o.claim.sentence)}{data}, {size}")
        lines += [f"  and {len(own) - _MOST_CLAIMS} more"] * (len(own) > _MOST_CLAIMS)
    further = [f"[{escape(section.title)}](#{anchor(section.title)})" for section in sections]
    further += ["[how sure the verdicts are](verdicts.md)"] * verdicts
    further += [f"[what other pictures and sizes say]({agreement})"] * bool(agreement)
    links = ", ".join(f"[{path.rpartition('/')[2]}]({path})" for path in tables)
    further += [f"tables for papers: {links}"] * bool(tables)
    lines.append(f"**Read on**: {'; '.join(further)}.")
    return "\n".join(re.sub("^( *)", r"\1- ", line) for line in lines)


def _bounds_held(sections: Sequence[_Section], outcomes: Sequence[Outcome]) -> list[str]:
    """A line that says which rows and claims meet their bounds; none where there are no bounds."""
    bounds = sections[0].bounds
    if bounds is None or not (bounds.rows or bounds.claims):
        return []
    of_rows = [(row, judged(runs, bounds)) for section in sections for row, runs in section.groups.items()]
    checks = [(o.claim.id, bounds.check_claim(o)) for o in outcomes]
    told = []
    for what, held in (
        ("rows", [(row, text != "MISSED") for row, text in of_rows if text != "none"]),
        ("claims", [(id, check.met) for id, check in checks if check is not None]),
    ):
        missed, n = ", ".join(escape(name) for name, met in held if not met), sum(met for _, met in held)
        if held:
            told.append(f"{n} of {len(held)} {what}" + f" (**missed** by {missed})" * bool(missed))
    known = any(bounds.apply_to(r.data.fingerprint) for s in sections for r in s.runs)
    none = "none are of these rows" if known else "none apply, as they are calibrated on other data"
    met = f"met by {' and '.join(told)}" if told else none
    return [f"**Bounds**: {met}. {_said(sections, lambda s: set_aside(s.groups, bounds))}".rstrip()]


def _said(sections: Sequence[_Section], texts: Callable[[_Section], Sequence[str]]) -> str:
    """What there is to say of each section's runs; behind the name of its data where its task has several sections."""
    named = [f"{escape(s.data)}: " * (sum(o.task == s.task for o in sections) > 1) for s in sections]
    return " ".join(name + text for name, s in zip(named, sections, strict=True) for text in texts(s))


def _terms(study: Study, records: Sequence[RunRecord], bounds: Bounds | None) -> str:
    """What the columns of the tables are."""
    several = any(len(of) > 1 for of in grouped(records, lambda r: (r.row, r.data.name)).values())
    terms = [
        "*Best* is the best of all epochs on the validation set, and so an optimistic figure; *last* is the last "
        f"epoch's.{' Both are means over seeds, ± the standard deviation.' * several}",
        *["The *95 % interval* of a row is that of the mean of the best, over seeds."] * several,
        f"*n*: runs, one for each seed. *Best at epoch*: of more than {_MOST_LISTED} runs the median (and the range).",
    ]
    if bounds is not None and bounds.rows:
        terms.append(
            "*Bounds*: whether every run, and the mean of a row's, lies where calibration expects it; *aside*: runs "
            "that were passed over as outliers."
        )
    if study.published:
        terms.append(
            "*Published* is the publication's figure, on its own data and networks: on others, or at another size, the "
            "difference shows how far apart the two studies are, not an error of either."
        )
    return " ".join(terms)


@dataclass
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
        source = self.study.sources.get(self.task.name)
        self.title = f"{(source.title if source is not None else '') or self.study.title} ({self.data})"

    @property
    def images(self) -> str:
        """Its data in a few words."""
        data = self.runs[0].data
        known = {
            "generated": data.embedded,
            f"{data.train} training and {data.val} validation images": not self.own_loop,
            "each seed its own": data.redrawn,
        }
        details = ", ".join(text for text, holds in known.items() if holds)
        return escape(self.data) + (f" ({details})" if details else "")

    @property
    def broken(self) -> list[str]:
        """Sentences that say how many runs of each row failed, or learned nothing."""
        failed = [
            f"{share(self.groups.get(row, []), those)} in {escape(row)}."
            for row, those in grouped(self.failures, lambda f: f.row).items()
        ]
        return failed + collapsed(self.groups)

    def parts(self) -> list[str]:
        """Its parts in Markdown."""
        parts = [f"## {escape(self.title)}", self._about()]
        parts += [*collapsed(self.groups), *set_aside(self.groups, self.bounds)]
        for metric in all_shown(self.study, self.task, self.runs):
            lines = list(self._figures(metric))
            if lines:
                parts += [f"### {metric_heading(metric)}", self._table(lines), *self.notes]
        if self.outcomes:
            parts += ["### Claims", self._claims(), *self.notes]
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
        if self.task is SEGMENTATION:
            parts += self._conventions()
        if any(r.times.total_seconds for r in self.runs):
            heading = "### Time and memory" if self.own_loop else "### Time, memory and weights"
            parts += [heading, *self._costs(), *self._continued()]
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
            about += f" *First {also_after} epochs*: the same runs, as if they had ended then."
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
            within_1 = self.study.is_share(metric, row.name)
            for within in (None, *([also_after] if runs and also_after and also_after < lengths[-1] else [])):
                if not runs and not failed:
                    continue
                best = estimate([r.best(metric, within) for r in runs]) if runs else None
                last = estimate([r.epochs[:within][-1].figures[metric] for r in runs]) if runs else None
                stated = published(self.study, row.name, metric)
                epoch = self.study.published[row.name].epochs.get(metric) if stated is not None else None
                less = "-" if best is None or stated is None else number(best.mean - stated, sign="+")
                yield {
                    "row": row.name + (f", first {within} epochs" if within else ""),
                    f"best {name}": "**failed**" if best is None else spread(best),
                    "95 % interval": "-" if best is None else interval(best, share=within_1),
                    "published": "-" if stated is None else number(stated, printed_digits(self.study, metric)),
                    "best less published": less,
                    "bounds": judged(runs, self.bounds, metric) if runs and within is None else "-",  # of whole runs
                    f"last {name}": "-" if last is None else spread(last),
                    "n": f"{len(runs)}{remark}",
                    "best at epoch": _listed([r.best_epoch(metric, within) for r in runs]),
                    "published at epoch": str(epoch or "-"),
                    "epochs": ends(lengths) if lengths else "-",
                }

    def _table(self, lines: Sequence[Mapping[str, str]]) -> str:
        without = [] if self.own_loop else ["epochs"]  # which the settings have
        optional = ("95 % interval", "published", "best less published", "bounds", "published at epoch")
        return Table.of(lines, without, optional).markdown()

    def _settings(self) -> list[str]:
        """What the rows that ran train; nothing where that is their names alone."""
        rows = [row for row in self.rows if row in self.ran or any(f.row == row.name for f in self.failures)]
        lines = [
            {escape(k): v if v == "-" else escape(v) for k, v in line.items()}
            for of_task in design(rows)
            for line in of_task
        ]
        if not lines or len(lines[0]) == 1:
            return []
        before = [r.name for r in rows if any(run.settings != r.settings() for run in self.groups.get(r.name, ()))]
        now = f"As the study has them now; runs of {', '.join(before)} had others." if before else ""
        return ["### Settings", *([now] if now else []), *_differing(lines)]

    def _claims(self) -> str:
        lines = []
        for outcome in self.outcomes:
            claim, check = outcome.claim, self.bounds.check_claim(outcome) if self.bounds else None
            lines.append(
                {
                    "claim": f"{escape(claim.sentence)} ({'control, ' * claim.control}{code(claim.id)})",
                    "difference": difference(outcome),
                    "95 % interval": interval_of(outcome),
                    "verdict": verdict(outcome),
                    "p (Holm)": p_value(outcome.adjusted_p),
                    "bound": "none" if check is None else "met" if check.met else "MISSED",
                    "n": seeds_of(outcome),
                    "figure": metric_name(claim.metric),
                }
            )
        return Table.of(lines, optional=("95 % interval", "p (Holm)", "bound")).markdown()

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

    def _costs(self) -> list[str]:
        """What the runs started from and cost."""
        lines = []
        whole = {row.name: [r.times.total_seconds for r in self.groups[row.name]] for row in self.ran}
        long = max(map(max, whole.values())) >= _LONG
        for row in self.ran:
            runs = self.groups[row.name]
            memory = [r.times.peak_memory_bytes for r in runs if r.times.peak_memory_bytes is not None]
            of_publication = self.study.published.get(row.name)
            line = {
                "row": row.name,
                "time per run": duration(whole[row.name], in_minutes=long),
                "published time": of_publication.time if of_publication else "-",
                "peak memory": f"{max(memory) / 2**30:.2f} GiB" if memory else "-",
            }
            if not self.own_loop:
                line |= {
                    "images/s in training": f"{estimate([r.times.images_per_second for r in runs]).mean:.0f}",
                    "parameters": f"{runs[0].parameters:,}",
                    "trained": f"{runs[0].trained_parameters:,}",
                    "weights": escape(", ".join(sorted({r.weights.origin for r in runs}))),
                }
            lines.append(line | {"device": escape(", ".join(sorted({device(r) for r in runs})))})
        return _differing(lines, ("weights", "device"), optional=("published time", "peak memory"))

    def _continued(self) -> list[str]:
        """A line that says how many runs of each row were broken off and continued; none where none was."""
        again = {row: sum(r.times.interruptions > 0 for r in runs) for row, runs in self.groups.items()}
        rows = ", ".join(f"{n} of {len(self.groups[row])} runs of {row}" for row, n in again.items() if n)
        continued = f"Continued after an interruption: {rows}. Their times cover only the steps that were kept."
        return [continued] if rows else []


def _listed(epochs: Sequence[int]) -> str:
    """Every seed's, or of many their median and range; one where all are alike."""
    if len({*epochs}) > 1 and len(epochs) > _MOST_LISTED:
        return f"{sorted(epochs)[len(epochs) // 2]} ({min(epochs)} to {max(epochs)})"
    return ", ".join(map(str, epochs if len({*epochs}) > 1 else epochs[:1])) or "-"


def _differing(
    lines: Sequence[Mapping[str, str]], among: Collection[str] = (), optional: Collection[str] = ()
) -> list[str]:
    """A table of rows without the columns (of `among`; none for all) in which all say the same, and a sentence above it
    that says those."""
    first, *others = lines
    names = [name for name in first if name != "row" and (not among or name in among)]
    alike = {n: first[n] for n in names if others and all(line.get(n) == first[n] for line in others)}
    said = "; ".join(f"{name} {text}" for name, text in alike.items() if text != "-")
    table = Table.of(lines, alike, optional)
    return [*([f"Of all rows: {said}."] if said else []), *([table.markdown()] if len(table.columns) > 1 else [])]
