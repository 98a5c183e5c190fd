"""The tables of a session, as lines for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cvhw4.errors import printable
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.failures import latest_failures
from cvhw4.report.numbers import data_of, difference, interval_of, number, seeds_note, seeds_of, verdict
from cvhw4.report.runs import (
    SHORT,
    Groups,
    bound_words,
    by_data,
    figure_name,
    judged,
    of_study,
    origins,
    published,
    set_aside,
    with_metric,
)
from cvhw4.report.tables import Table
from cvhw4.report.text import cut, wrapped
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.sensitivity import Detection, detections
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study

_ASIDE = (
    "* another verdict by the best epoch (or the last), or without runs that failed to learn, or all of a row's runs "
    "failed to: see verdicts.md"
)


def session_summary(
    study: Study,
    records: Sequence[RunRecord],
    failures: Iterable[Failure],
    bounds: Bounds | None,
    missing: Mapping[str, str],
) -> list[str]:
    """What the finished runs of a session, negative controls among them, and those that failed came to: figures by data
    set, negative controls, claims, and what was left out (`missing`: rows that could not run, and why)."""
    lines: list[str] = []
    rows = of_study(study, records)
    failed = latest_failures(records, of_study(study, failures))
    for data, groups in by_data(rows, failed).items():
        of_data = [f for f in failed if f.data == data]
        lines += [cut(printable(data), 80), *summary(groups, study, bounds, of_data)]
        for text in (*origins(groups), *set_aside(groups, bounds)):
            lines += wrapped(text).splitlines()
        runs = [r for of_row in groups.values() for r in of_row]
        if bounds and bounds.rows and (changed := [text for r in runs for text in bounds.changed(r)]):
            lines += wrapped(changed[0]).splitlines()
        elif runs and bounds and bounds.rows and not any(bounds.apply_to(r.data.fingerprint) for r in runs):
            lines.append("bounds are calibrated on other data: these rows are not judged by them")
        lines.append("")
    found = detections(study, records, bounds or NO_BOUNDS)
    if bounds and found:
        lines.append(f"negative controls, in sessions of {bounds.seeds} seeds")
        lines += [*short_detections(found), ""]
    outcomes = judge_all(study, rows, bounds=bounds)
    if outcomes:
        lines += [f"claims by the {study.epoch} epoch (Holm; controls each by itself)", *short_claims(outcomes)]
        lines += wrapped(seeds_note(outcomes)).splitlines()
        checks = [(o.claim.id, bounds.check_claim(o)) for o in outcomes] if bounds else []
        missed = [f"{id}: {check}" for id, check in checks if check is not None and not check.met]
        lines += [line for text in missed for line in wrapped(text).splitlines()]
    if records and study.bounds is not None and not Path(study.bounds).exists():
        lines += wrapped(f"no bounds yet: there is no {printable(str(study.bounds))}").splitlines()
    for row, reason in missing.items():
        if row in study.rows:
            lines += wrapped(f"{row} skipped: {printable(reason)}").splitlines()
    return lines


def summary(groups: Groups, study: Study, bounds: Bounds | None, failures: Sequence[Failure] = ()) -> list[str]:
    """A line per row and metric, of runs on one data set. What is published, and bounds, are left out where none of the
    rows has any. A row of which a run failed is FAILED, whatever bounds its other runs meet."""
    lines: list[dict[str, str]] = []
    broken = {f.row for f in failures}
    for row in study.rows.values():
        for metric in study.shown(row.task):
            runs = with_metric(groups.get(row.name, []), metric)
            line = {"row": row.name, "metric": row.task.short.get(metric, metric)}
            if not runs and row.name in broken:
                line |= dict.fromkeys(("best±sd", "last", "publ.", "-publ."), "-")
                lines.append(line | {"n": "0", "time": "-", "bounds": "FAILED"})
            if not runs:
                continue
            best = estimate([r.best(metric) for r in runs])
            stated = published(study, row.name, metric)
            lines.append(
                line
                | {
                    "best±sd": number(best.mean) + ("" if best.n == 1 else f"±{number(best.sd)}"),
                    "last": number(estimate([r.last(metric) for r in runs]).mean),
                    "publ.": "-" if stated is None else number(stated),
                    "-publ.": "-" if stated is None else number(best.mean - stated, sign="+"),
                    "n": str(best.n),
                    "time": f"{took:.0f} s" if (took := estimate([r.times.total_seconds for r in runs]).mean) else "-",
                    "bounds": "FAILED" if row.name in broken else judged(runs, bounds, metric),
                }
            )
    return Table.of(lines, optional=("publ.", "-publ.", "bounds", "time")).plain("row", "metric")


def short_claims(outcomes: Sequence[Outcome]) -> list[str]:
    """The claims; an asterisk where the best epoch or the trainings that failed make another verdict, or a row never
    trained."""
    lines = [
        {
            "claim": o.claim.id,
            **data_of(o, outcomes, printable),
            "diff": difference(o),
            "interval": interval_of(o),
            "n": seeds_of(o),
            "verdict": o.verdict + "*" * ("(" in verdict(o)),
        }
        for o in outcomes
    ]
    return [*Table.of(lines).plain("claim", "data"), *(wrapped(_ASIDE).splitlines() if "*" in str(lines) else [])]


def short_detections(found: Sequence[Detection]) -> list[str]:
    """The negative controls."""
    lines = [
        {
            "control": d.control.name,
            "strength": f"{d.strength:g}",
            "detected by": figure_name(d.figure, SHORT),
            "mean": number(d.mean),
            "bound": bound_words(d),
            "n": str(d.n),
            "detected": "yes" if d.missed else "NO" if d.strength == d.control.strengths[0] else "no",
            "chance": f"{d.probability:.2f}",
        }
        for d in found
    ]
    return Table.of(lines).plain("control", "detected by")
