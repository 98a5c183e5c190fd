"""Comparison tables from records: for the terminal, and as a markdown page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import pandas as pd

from cvhw4.errors import printable
from cvhw4.experiments import Experiment, Profile, Question
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.failures import BIASED, failures_table, share
from cvhw4.report.figures import Picture
from cvhw4.report.text import cut, escape
from cvhw4.statistics.bounds import Bounds, failed
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.sensitivity import Detection
from cvhw4.statistics.verdicts import Outcome, judge_all

NAMES = {
    "accuracy": "accuracy",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "set_miou": "set mIoU",
    "set_pixel_accuracy": "set pixel accuracy",
}
THREE_NAMES = ["Sky", "everything else", "Car, Pedestrian, Bicyclist"]
SHORT = {"accuracy": "acc.", "miou": "mIoU", "pixel_accuracy": "pixels"}
FIGURES: dict[Question, tuple[str, ...]] = {"q1": ("accuracy",), "q2": ("miou", "pixel_accuracy")}
_MOST_LISTED = 20  # seeds whose epochs are told one by one
_NO_PICTURES: Mapping[tuple[str, str], Sequence[tuple[str, Picture]]] = {}
_TITLES: dict[Question, str] = {"q1": "Q1: portraits with or without heavy make-up", "q2": "Q2: street scenes"}


def metric_name(metric: str) -> str:
    """How pages call a figure; a user's own metric goes by its name."""
    return NAMES.get(metric, escape(metric))


def with_metric(runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
    """The runs that have a figure: those from before there was an own metric have none."""
    return [run for run in runs if metric in run.epochs[-1].figures]


def markdown(frame: pd.DataFrame) -> str:
    """A data frame of texts as a GitHub table."""
    from tabulate import tabulate

    escaped = frame.map(lambda cell: str(cell).replace("|", "\\|"))
    return tabulate(escaped.to_dict("list"), headers="keys", tablefmt="github", disable_numparse=True)


def plain(frame: pd.DataFrame) -> str:
    """A data frame of texts as columns for the terminal."""
    from tabulate import tabulate

    return tabulate([list(frame.columns), *frame.values.tolist()], tablefmt="plain", disable_numparse=True)


def fitted(frame: pd.DataFrame, *names: str, width: int = 80) -> pd.DataFrame:
    """A data frame of texts with these columns cut, the widest first, until `plain` is at most so wide; the other
    columns, with the numbers, stay whole."""
    widths = {str(c): max(len(str(c)), *frame[c].str.len()) for c in frame}
    for _ in range(sum(widths.values()) + 2 * (len(widths) - 1) - width):
        widest = max(names, key=lambda name: widths[name] - len(name))
        widths[widest] -= 1
    return frame.assign(**{name: [cut(text, widths[name]) for text in frame[name]] for name in names if name in frame})


def spread(e: Estimate) -> str:
    """ "0.872 ± 0.011": mean and standard deviation over seeds; a single run has none."""
    return f"{e.mean:.4f}" if e.n == 1 else f"{e.mean:.4f} ± {e.sd:.4f}"


def interval(e: Estimate) -> str:
    """ "[0.861, 0.883]": the mean's 95 % interval."""
    return "-" if e.n == 1 else f"[{e.low:.4f}, {e.high:.4f}]"


def summary(
    groups: Mapping[str, Sequence[RunRecord]],
    rows: Sequence[Experiment],
    bounds: Bounds | None,
    failures: Sequence[Failure] = (),
    own: Sequence[str] = (),
) -> pd.DataFrame:
    """The short table of the terminal: a line per row and figure, at most 80 columns wide. What the report states, and
    bounds, are left out where none of the rows has any.

    Args:
        groups: runs by row id.
        rows: the experiments in the order of the table.
        bounds: what the runs are judged by, if anything.
        failures: runs on the same data that failed. A row with one is FAILED, whatever bounds its other runs meet.
        own: metrics of the user's own, by name.
    """
    lines: list[dict[str, str]] = []
    broken = {f.id for f in failures}
    for experiment in rows:
        for metric in (*FIGURES[experiment.question], *own):
            runs = with_metric(groups.get(experiment.id, []), metric)
            if not runs:
                if experiment.id in broken:
                    none = dict.fromkeys(("best±sd", "last", "report", "diff"), "-")
                    line = {"row": experiment.id, "figure": SHORT.get(metric, metric), **none, "n": "0", "time": "-"}
                    lines.append(line | {"bounds": "FAILED"})
                continue
            best = estimate([r.best(metric) for r in runs])
            reported = experiment.reported.figures.get(metric)
            lines.append(
                {
                    "row": experiment.id,
                    "figure": SHORT.get(metric, metric),
                    "best±sd": f"{best.mean:.3f}" + ("" if best.n == 1 else f"±{best.sd:.3f}"),
                    "last": f"{estimate([r.last(metric) for r in runs]).mean:.3f}",
                    "report": "-" if reported is None else f"{reported:.3f}",
                    "diff": "-" if reported is None else f"{best.mean - reported:+.3f}",
                    "n": str(best.n),
                    "time": f"{estimate([r.times.total_seconds for r in runs]).mean:.0f} s",
                    "bounds": "FAILED" if experiment.id in broken else judged(runs, bounds),
                }
            )
    if not lines:
        return pd.DataFrame()
    frame = pd.DataFrame(lines)
    if not any(row.reported.figures for row in rows):
        idle = [] if broken else ["bounds"]
        frame = frame.drop(columns=["report", "diff", *idle], errors="ignore")
    return fitted(frame, "row")


def origins(groups: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """Lines that say which weights the rows started from, which device they ran on, whether it was on different
    pictures or by different code, and what their data leak; none without runs."""
    by_weights: dict[str, list[str]] = {}
    for runs in groups.values():
        by_weights.setdefault(", ".join(sorted({r.weights.origin for r in runs})), []).append(runs[0].row)
    devices = sorted({device(r) for runs in groups.values() for r in runs})
    weights = [f"weights: {printable(origin)} ({', '.join(rows)})" for origin, rows in by_weights.items()]
    runs = [r for of_row in groups.values() for r in of_row]
    on = [f"device: {printable(', '.join(devices))}"] if devices else []
    return [*weights, *on, *changed(runs), *recoded(runs, printable), *leaked(runs, printable)]


def changed(runs: Iterable[RunRecord]) -> list[str]:
    """A line that says that rows were trained on different pictures under one name; none where they were not."""
    rows: dict[str, dict[str, None]] = {}
    for run in runs:
        rows.setdefault(run.data.fingerprint, {})[run.id] = None
    if len(rows) < 2:
        return []
    groups = "; ".join(", ".join(ids) for ids in rows.values())
    return [f"The pictures of this name are not the same for all rows ({groups}): train them again to compare them."]


def recoded(runs: Iterable[RunRecord], show: Callable[[str], str] = escape) -> list[str]:
    """A line that says which rows were run by which code; none where it was the same, or is known of none.

    Args:
        show: as `leaked` takes it.
    """
    by_code: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.started):
        by_code.setdefault(str(run.environment.get("code", "not recorded"))[:12], []).append(run)
    if len(by_code) < 2:
        return []
    of_code = {code: (", ".join(sorted({r.row for r in of})), _days(of)) for code, of in by_code.items()}
    versions = "; ".join(show(f"{code} ({rows}; {days})") for code, (rows, days) in of_code.items())
    told = f"Rows were run by different versions of the code: {versions}."
    return [f"{told} A difference between them may be the code's."]


def _days(records: Iterable[RunRecord]) -> str:
    """ "2026-11-23", or "2026-11-23 to 2026-11-25"."""
    days = sorted({r.started[:10] for r in records})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def leaked(runs: Iterable[RunRecord], show: Callable[[str], str] = escape) -> list[str]:
    """A line that says which validation pictures of these runs' data set are training pictures too; none if none is.

    Args:
        show: makes names harmless: for a page, or for the terminal (`printable`).
    """
    leaks = max((r.data.leaks for r in runs), key=len, default=[])
    if not leaks:
        return []
    many = f"{len(leaks)} validation pictures are training pictures too"
    what = many if len(leaks) > 1 else "1 validation picture is a training picture too"
    names = ", ".join(map(show, leaks[:3])) + (", ..." if len(leaks) > 3 else "")
    return [f"{what}, so validation figures are too good: {names}."]


def judged(runs: Sequence[RunRecord], bounds: Bounds | None) -> str:
    """Whether runs meet their bounds: "met", "MISSED", or "none" where no bounds apply."""
    checks = [check for run in runs for check in (bounds.check(run) if bounds else [])]
    if not checks:
        return "none"
    return "MISSED" if failed(checks) else "met"


def _results_table(
    groups: Mapping[str, Sequence[RunRecord]],
    rows: Sequence[Experiment],
    metric: str,
    cut: int | None = None,
    failures: Sequence[Failure] = (),
) -> pd.DataFrame:
    """A question's rows for one figure: best and last epoch, the report's figure, the difference.

    Args:
        cut: a number of epochs after which each row is shown as well, in a line of its own.
        failures: runs on the same data that failed.
    """
    lines: list[dict[str, str]] = []
    for experiment in rows:
        runs = with_metric(groups.get(experiment.id, []), metric)
        broken = [f for f in failures if f.id == experiment.id]
        if not runs and not broken:
            continue
        epochs = experiment.recipe.epochs
        reported = experiment.reported.figures.get(metric)
        stated = "-" if reported is None else _reported(experiment, metric)
        remark = f" ({share(runs, broken)})" if broken else ""
        if not runs:
            lines.append(
                {
                    "row": experiment.id,
                    **setting(experiment),
                    "epochs": str(epochs),
                    f"best {metric_name(metric)}": "**failed**",
                    "95 % interval": "-",
                    "at epoch": "-",
                    f"last {metric_name(metric)}": "-",
                    "report": stated,
                    "difference": "-",
                    "n": f"0{remark}",
                }
            )
            continue
        for within in (None, *([cut] if cut and cut < epochs else [])):
            best = estimate([r.best(metric, within) for r in runs])
            lines.append(
                {
                    "row": experiment.id,
                    **setting(experiment),
                    "epochs": str(within or epochs),
                    f"best {metric_name(metric)}": spread(best),
                    "95 % interval": interval(best),
                    "at epoch": _listed([r.best_epoch(metric, within) for r in runs]),
                    f"last {metric_name(metric)}": spread(
                        estimate([r.epochs[:within][-1].figures[metric] for r in runs])
                    ),
                    "report": stated,
                    "difference": "-" if reported is None else f"{best.mean - reported:+.4f}",
                    "n": f"{best.n}{remark}",
                }
            )
    frame = pd.DataFrame(lines)
    known = any(row.reported.figures for row in rows)
    return frame if known else frame.drop(columns=["report", "difference"], errors="ignore")


def _listed(epochs: Sequence[int]) -> str:
    """Every seed's, or of many their range."""
    if len(epochs) <= _MOST_LISTED:
        return ", ".join(map(str, epochs))
    return f"{min(epochs)} to {max(epochs)}, median {sorted(epochs)[len(epochs) // 2]}"


def _reported(experiment: Experiment, metric: str) -> str:
    epoch = experiment.reported.epochs.get(metric)
    return f"{experiment.reported.figures[metric]:.4f}" + (f" at epoch {epoch}" if epoch else "")


def setting(experiment: Experiment) -> dict[str, str]:
    """What sets a row apart, as columns."""
    if experiment.question == "q2":
        return {
            "network": experiment.network,
            "classes": str(experiment.classes),
            "skips": "yes" if experiment.skips else "no",
            "batch norm": experiment.batch_norm,
        }
    return {
        "network": experiment.network,
        "start": experiment.start,
        "trained": experiment.trained,
        "augmentation": experiment.augmentation,
    }


def _conventions_table(groups: Mapping[str, Sequence[RunRecord]], rows: Sequence[Experiment]) -> pd.DataFrame:
    """Q2's last epoch in both conventions: image by image with void, and one confusion matrix without."""
    lines = []
    for experiment in rows:
        runs = groups.get(experiment.id, [])
        if runs:
            last = {metric: estimate([r.last(metric) for r in runs]) for metric in list(NAMES)[1:]}
            lines.append(
                {
                    "row": experiment.id,
                    "mIoU, by image": spread(last["miou"]),
                    "mIoU, whole set": spread(last["set_miou"]),
                    "pixel accuracy, by image": spread(last["pixel_accuracy"]),
                    "pixel accuracy, whole set": spread(last["set_pixel_accuracy"]),
                }
            )
    return pd.DataFrame(lines)


def _classes_table(groups: Mapping[str, Sequence[RunRecord]], rows: Sequence[Experiment], classes: int) -> pd.DataFrame:
    """IoU by class of the rows with so many classes after the last epoch, both conventions, means over seeds."""
    columns: dict[str, list[str]] = {}
    for experiment in rows:
        runs = groups.get(experiment.id, [])
        if not runs or experiment.classes != classes:
            continue
        columns["class"] = THREE_NAMES if classes == 3 else list(map(escape, runs[0].data.classes))
        for key, label in (("iou", "by image"), ("set_iou", "whole set")):
            by_class = zip(*(r.by_class[key] for r in runs), strict=True)
            columns[f"{experiment.id}, {label}"] = [_mean_of_real(values) for values in by_class]
    return pd.DataFrame(columns)


def _mean_of_real(values: Sequence[float]) -> str:
    real = [v for v in values if not math.isnan(v)]
    return f"{estimate(real).mean:.3f}" if real else "-"


def _cost_table(groups: Mapping[str, Sequence[RunRecord]], rows: Sequence[Experiment]) -> pd.DataFrame:
    """What the runs started from and cost."""
    lines = []
    for experiment in rows:
        runs = groups.get(experiment.id, [])
        if not runs:
            continue
        memory = [r.times.peak_memory_bytes for r in runs if r.times.peak_memory_bytes is not None]
        lines.append(
            {
                "row": experiment.id,
                "weights": escape(", ".join(sorted({r.weights.origin for r in runs}))),
                "parameters (trained)": f"{runs[0].parameters / 1e6:.2f} M ({runs[0].trained_parameters / 1e6:.3g} M)",
                "time per run": _seconds([r.times.total_seconds for r in runs]),
                "training": _seconds([r.times.train_seconds for r in runs]),
                "images/s": f"{estimate([r.times.images_per_second for r in runs]).mean:.0f}",
                "peak memory": f"{max(memory) / 2**30:.2f} GiB" if memory else "-",
                "report: time": experiment.reported.time,
                "device": escape(", ".join(sorted({device(r) for r in runs}))),
            }
        )
    frame = pd.DataFrame(lines)
    return frame if any(row.reported.figures for row in rows) else frame.drop(columns="report: time", errors="ignore")


def continued(groups: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """A line that says how many runs of each row were broken off and continued; none where none was."""
    again = {id: sum(r.times.interruptions > 0 for r in runs) for id, runs in groups.items()}
    rows = ", ".join(f"{count} of {len(groups[id])} runs of {id}" for id, count in again.items() if count)
    return [f"Continued after an interruption: {rows}. Their times are of the steps that count."] if rows else []


def _seconds(values: Sequence[float]) -> str:
    e = estimate(values)
    return f"{e.mean:.1f} s" if e.n == 1 else f"{e.mean:.1f} ± {e.sd:.1f} s"


def device(record: RunRecord) -> str:
    """ "cpu (2 threads)" or the GPU's name."""
    e = record.environment
    return f"cpu ({e['threads']} threads)" if e["device"] == "cpu" else str(e["device_name"])


def _claims_table(outcomes: Sequence[Outcome], bounds: Bounds | None) -> pd.DataFrame:
    """What the runs say of every claim."""
    lines = []
    for outcome in outcomes:
        check = bounds.check_claim(outcome) if bounds else None
        lines.append(
            {
                "claim": outcome.claim.id,
                "in words": escape(outcome.claim.sentence) + (" (control)" if outcome.claim.control else ""),
                "figure": metric_name(outcome.claim.metric),
                "difference": _difference(outcome, 4),
                "95 % interval": interval(outcome.difference),
                "n": str(outcome.difference.n),
                "p (Holm)": p_value(outcome.adjusted_p),
                "verdict": outcome.verdict,
                "bound": "none" if check is None else "met" if check.met else "MISSED",
            }
        )
    return pd.DataFrame(lines)


def p_value(p: float) -> str:
    """ "0.031", "< 0.001", or "-" where there is none."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def short_claims(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The claims for the terminal, at most 80 columns wide."""
    lines = [
        {
            "claim": o.claim.id,
            "diff": _difference(o, 3),
            "interval": "-" if o.difference.n == 1 else f"[{o.difference.low:.3f}, {o.difference.high:.3f}]",
            "n": str(o.difference.n),
            "verdict": o.verdict,
        }
        for o in outcomes
    ]
    return fitted(pd.DataFrame(lines), "claim")


def short_detections(found: Sequence[Detection]) -> pd.DataFrame:
    """The negative controls for the terminal, at most 80 columns wide."""
    lines = [
        {
            "control": d.control.name,
            "strength": f"{d.strength:g}",
            "given away by": d.figure,
            "mean": f"{d.mean:.3f}",
            "bound": f"[{d.bound.low:.3f}, {d.bound.high:.3f}]",
            "n": str(d.n),
            "noticed": "yes" if d.caught else "NO" if d.strength == d.control.strengths[0] else "no",
            "chance": f"{d.probability:.2f}",
        }
        for d in found
    ]
    return fitted(pd.DataFrame(lines), "control", "given away by")


def _difference(outcome: Outcome, digits: int) -> str:
    sign = "" if outcome.claim.worse is None else "+"
    return f"{outcome.difference.mean:{sign}.{digits}f}"


def by_id(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by row id, seeds in order."""
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        groups.setdefault(record.id, []).append(record)
    return groups


def by_data(records: Sequence[RunRecord], failures: Iterable[Failure] = ()) -> dict[str, dict[str, list[RunRecord]]]:
    """Runs by data set and row id, seeds in order; the data sets on which runs only failed come last, without any."""
    names = dict.fromkeys([*(r.data.name for r in sorted(records, key=lambda r: r.seed)), *(f.data for f in failures)])
    return {name: by_id([r for r in records if r.data.name == name]) for name in names}


def report_page(
    profile: Profile,
    records: Sequence[RunRecord],
    bounds: Bounds | None,
    missing: Mapping[str, str],
    failures: Sequence[Failure] = (),
    pictures: Mapping[tuple[str, str], Sequence[tuple[str, Picture]]] = _NO_PICTURES,
) -> str:
    """The whole `report.md`.

    Args:
        records: the runs to tell of, those of each row all of one study.
        bounds: what rows on embedded data are judged by.
        missing: rows without runs, by id, and why.
        failures: the runs that failed, those of each row all of one study.
        pictures: by question and data set, each with its heading; those of the claims under two empty names.
    """
    title = f"# {escape(profile.title)}" if profile.own else f"# Ablation study, profile `{profile.name}`"
    parts = [title, _preamble(profile, records)]
    outcomes = judge_all(profile, records)
    if outcomes:
        parts += ["## The claims", _tally(outcomes), *(p.markdown for _, p in pictures.get(("", ""), ()))]
    for question, title in _TITLES.items():
        title = escape(profile.title) if profile.own else title
        rows = [row for row in profile.rows if row.question == question]
        ids = {row.id for row in rows}
        broken = [f for f in failures if f.id in ids]
        cut = profile.cuts.get(question)
        for data, groups in by_data([r for r in records if r.question == question], broken).items():
            of_data = [o for o in outcomes if o.data == data]
            of_broken, shown = [f for f in broken if f.data == data], pictures.get((question, data), ())
            parts += _section(profile, title, data, groups, rows, of_data, bounds, cut, of_broken, shown)
    seen = {r.id for r in records} | {f.id for f in failures}
    absent = [row.id for row in profile.rows if row.id not in seen]
    if absent:
        frame = pd.DataFrame({"row": absent, "why": [escape(missing.get(id, "no run is stored")) for id in absent]})
        parts += ["## Rows without a run", markdown(frame)]
    return "\n\n".join(parts) + "\n"


def _tally(outcomes: Sequence[Outcome]) -> str:
    """ "**11 supported, 0 contradicted, 3 undecided** of 14 claims, ...": the answer in a line."""
    counts = {v: sum(o.verdict == v for o in outcomes) for v in ("supported", "contradicted", "undecided")}
    found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return (
        f"**{found}** of {len(outcomes)} claim{'s' * (len(outcomes) > 1)}, judged together (paired t test over seeds "
        "at 5 %, Holm's correction)."
    )


def _preamble(profile: Profile, records: Sequence[RunRecord]) -> str:
    if not records:
        return "No runs yet."
    machines = sorted({f"{r.environment['device_name']}, {device(r)}" for r in records})
    versions = sorted({f"torch {r.environment['torch']}" for r in records})
    commits = sorted({str(r.environment["commit"]) for r in records})
    where = f"{_days(records)}; {'; '.join(machines)}; {', '.join(versions)}; code {', '.join(commits)}"
    if profile.own:
        return (
            f"{len(records)} runs, {escape(where)}.\n\n"
            "Mean ± standard deviation over seeds; the interval is the mean's, 95 %, Student's t over seeds. *Best* is "
            "the best of all epochs on the validation set, and so an optimistic figure; *last* is the last epoch's."
        )
    return (
        f"{len(records)} runs, {escape(where)}.\n\n"
        "Mean ± standard deviation over seeds; the interval is the mean's, 95 %, Student's t over seeds. *Best* is the "
        "best of all epochs on the validation set, as the report states it, and so an optimistic figure; *last* is the "
        "last epoch's. *Report* is the figure of the 2019 report, on its own data and networks: at the quick profile's "
        "size, and on other data, the difference shows how far apart the two studies are, not an error of either."
    )


def _section(
    profile: Profile,
    title: str,
    data: str,
    groups: Mapping[str, Sequence[RunRecord]],
    rows: Sequence[Experiment],
    outcomes: Sequence[Outcome],
    bounds: Bounds | None,
    cut: int | None,
    failures: Sequence[Failure],
    pictures: Sequence[tuple[str, Picture]],
) -> list[str]:
    question = rows[0].question
    first = next((runs[0] for runs in groups.values()), None)
    about = "No run has finished on these data."
    if first is not None:
        about = f"{first.data.train} training and {first.data.val} validation images."
        if not first.data.embedded and not profile.own:
            about += (
                " The bounds are calibrated on embedded data and do not apply: these rows are reported, not judged."
            )
    trained = [r for runs in groups.values() for r in runs]
    notes = [*changed(trained), *recoded(trained), *leaked(trained)]
    verdicts = {row.id: judged(groups[row.id], bounds) if row.id in groups else "-" for row in rows}
    parts = [f"## {title} ({escape(data)})", about]
    for metric in (*FIGURES[question], *profile.metrics):
        frame = _results_table(groups, rows, metric, cut, failures)
        if frame.empty:
            continue
        if first is not None and first.data.embedded:
            whole = ~frame["row"].duplicated()  # bounds are for whole runs
            frame["bounds"] = frame["row"].map(verdicts).where(whole, "-")
        heading = metric_name(metric) if metric == "miou" or metric not in NAMES else NAMES[metric].capitalize()
        parts += [f"### {heading}", markdown(frame), *notes]
    for heading, shown in groupby(pictures, lambda picture: picture[0]):
        parts += [f"### {heading}", *(p.markdown for _, p in shown)]
    if pictures and not any(p.stem.startswith(("attention", "panels")) for _, p in pictures):
        parts += ["What its networks saw is not stored with any of these runs, so it is not shown."]
    if failures:
        parts += ["### Failed runs", markdown(failures_table(failures, rows)), BIASED]
    if first is None:
        return parts
    if outcomes:
        table = _claims_table(outcomes, bounds)
        parts += ["### Claims", markdown(table.drop(columns="bound") if profile.own else table), *notes]
    if question == "q2":
        parts += [
            "### The same predictions, two conventions (last epoch)",
            "*By image*: as the report's template, void counted as wrong among 11 classes and as class 1 among 3. "
            "*Whole set*: one confusion matrix, void left out.",
            markdown(_conventions_table(groups, rows)),
            *notes,
        ]
        for classes in sorted({row.classes for row in rows}, reverse=True):
            table = _classes_table(groups, rows, classes)
            if not table.empty:
                parts += [f"### IoU by class, {classes} classes (last epoch)", markdown(table), *notes]
    return [*parts, "### Weights, time and memory", markdown(_cost_table(groups, rows)), *continued(groups)]
