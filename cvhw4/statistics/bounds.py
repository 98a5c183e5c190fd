"""The bounds that a build checks: where they come from, and whether a run meets them.

A bound is the prediction interval of one further run, from n runs of the same row with different seeds (Student's t): a
tolerance interval in expectation. What share of nights may raise a false alarm is stated for a whole nightly session,
all its bounds together, and divided among them (Sidak): exact for bounds that are independent of each other, an upper
limit where they are not. Bounds are written by `cvhw4 calibrate`, never by hand. They hold for runs on the data that
they were calibrated on, which they know by its fingerprint, and for no others.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.comparison import moments
from cvhw4.statistics.intervals import prediction_half_width
from cvhw4.statistics.verdicts import Outcome, judge
from cvhw4.study import Claim, Generated, Row, Study
from cvhw4.tasks import TASKS

_FALSE_ALARMS = 0.01  # share of nightly sessions in which any bound at all may be missed by chance
NIGHTLY_SEEDS = 3
_FEWEST_RUNS = 5
_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that TOML takes without quotes


@dataclass(frozen=True)
class Bound:
    """Limits of one figure, and the runs they come from.

    Attributes:
        low: lower limit for one run.
        high: upper limit for one run.
        mean: mean of the runs it was calibrated on.
        sd: their standard deviation.
        n: their number.

    Limits, mean and spread may be arrays of one shape, for many calibrations at once.
    """

    low: float
    high: float
    mean: float
    sd: float
    n: int

    def holds(self, value: float) -> bool:
        """Whether the value lies within; NaN never does. Elementwise for arrays."""
        return (self.low <= value) & (value <= self.high)

    def for_mean_of(self, k: int) -> Bound:
        """The same bound for the mean of k runs: narrower, for the part of the spread that averaging takes away."""
        factor = math.sqrt((1 / k + 1 / self.n) / (1 + 1 / self.n))
        return replace(
            self, low=self.mean - (self.mean - self.low) * factor, high=self.mean + (self.high - self.mean) * factor
        )


@dataclass(frozen=True)
class Check:
    """A figure held against its bound.

    Attributes:
        name: "best accuracy", or a claim's "difference".
        value: the figure.
        bound: what it was held against.
        source: where the bound comes from.
    """

    name: str
    value: float
    bound: Bound
    source: str

    @property
    def met(self) -> bool:
        """Whether the value lies within the bound; NaN never does."""
        return self.bound.holds(self.value)

    def __str__(self) -> str:
        b = self.bound
        where = (
            "within" if self.met else "below" if self.value < b.low else "above" if self.value > b.high else "outside"
        )
        return (
            f"{self.name} {self.value:.4f} is {where} its bound [{b.low:.4f}, {b.high:.4f}], from {b.n} runs with mean "
            f"{b.mean:.4f} and standard deviation {b.sd:.4f} ({self.source})"
        )


@dataclass(frozen=True)
class Bounds:
    """The bounds of one study.

    Attributes:
        rows: bounds by row and figure.
        claims: bounds of a claim's difference, by claim id.
        source: when, where and on which code they were calibrated.
        data: on which data: fingerprints by name. For runs on data of another name there are no bounds; other data of
            the same name are missed bounds.
        false_alarms: share of nightly sessions in which any of them may be missed by chance.
        seeds: seeds of such a session.
    """

    rows: Mapping[str, Mapping[str, Bound]]
    claims: Mapping[str, Bound]
    source: str
    data: Mapping[str, str] = field(default_factory=dict)
    false_alarms: float = _FALSE_ALARMS
    seeds: int = NIGHTLY_SEEDS

    def apply_to(self, fingerprint: str) -> bool:
        """Whether they were calibrated on the data with that fingerprint."""
        return fingerprint in self.data.values()

    def check(self, record: RunRecord, row: str | None = None) -> list[Check]:
        """Every bounded figure of a run; empty where the bounds do not apply (other data, or a row without bounds).

        Args:
            row: the row whose bounds the run is held against, where that is not its own (a negative control).
        """
        if not self.apply_to(record.data.fingerprint):
            return []
        bounds = self.rows.get(row or record.row, {})
        return [Check(name, record.figure(name), bound, self.source) for name, bound in bounds.items()]

    def missed(self, record: RunRecord) -> list[str]:
        """What a run misses, in words; empty where it meets all its bounds, or none apply to it."""
        return [*self.changed(record), *failed(self.check(record))]

    def changed(self, record: RunRecord) -> list[str]:
        """That a run's data have the name of those that its row was calibrated on and are not the same; else empty."""
        known = self.data.get(record.data.name, record.data.fingerprint)
        if known == record.data.fingerprint or record.row not in self.rows:
            return []
        name = record.data.name
        return [f"{name} are not the data of that name that the bounds were calibrated on: run cvhw4 calibrate again"]

    def promises(self, outcome: Outcome) -> bool:
        """Whether the claim must hold in the mean over as many seeds as the outcome has, going by the calibration:
        whether every mean within its bound lies above the margin."""
        return self.apply_to(outcome.fingerprint) and self._above(outcome.claim, outcome.difference.n)

    def guards(self, claim: Claim) -> bool:
        """Whether a nightly session, of `seeds` seeds, must uphold the claim: whether `promises` holds then."""
        return self._above(claim, self.seeds)

    def _above(self, claim: Claim, seeds: int) -> bool:
        bound = self.claims.get(claim.id)
        return bound is not None and bound.for_mean_of(seeds).low > claim.margin

    def check_claim(self, outcome: Outcome) -> Check | None:
        """A claim's difference; None where the bounds do not apply."""
        bound = self.claims.get(outcome.claim.id)
        if bound is None or not self.apply_to(outcome.fingerprint):
            return None
        name = f"mean difference in {outcome.claim.metric} over {outcome.difference.n} seeds"
        return Check(name, outcome.difference.mean, bound.for_mean_of(outcome.difference.n), self.source)


NO_BOUNDS = Bounds({}, {}, "")


def load_bounds(path: Path, study: Study, *, named: bool = False) -> Bounds:
    """Reads a bounds file; a study that it does not have gets no bounds.

    Args:
        named: whether the user gave just this file: it has to have the study.

    Raises:
        InputError: the file is missing, is not TOML or is not what `cvhw4 calibrate` writes.
    """
    if not os.path.lexists(path):
        raise InputError(path, "does not exist", "name a bounds file with --bounds, or run cvhw4 calibrate")
    if not os.path.isfile(path):
        raise InputError(path, "is not a file", "name a bounds file with --bounds")
    try:
        whole = tomllib.loads(path.read_text("utf-8"))
        others = [name for name, part in whole.items() if {"rows", "claims"} <= set(part)]
        if whole and study.name not in whole and (named or not others):  # an empty file stands for no bounds
            problem = f"has no bounds of study {study.name}, but of {', '.join(others) or 'none'}"
            raise InputError(path, problem, "run cvhw4 calibrate, or name another file with --bounds")
        if study.name not in whole:
            return NO_BOUNDS
        part = whole[study.name]
        rows = {row: {name: _read_bound(b) for name, b in figures.items()} for row, figures in part["rows"].items()}
        claims = {claim: _read_bound(b) for claim, b in part["claims"].items()}
        _check_names(rows, claims, study)
        data, share, seeds = part["data"], part.get("false_alarms", _FALSE_ALARMS), part.get("seeds", NIGHTLY_SEEDS)
        texts = all(isinstance(text, str) for text in (part["source"], *data.values()))
        if not (texts and 0 < share < 1 and isinstance(seeds, int) and seeds > 0):
            raise ValueError("data, false_alarms, seeds or source")
        return Bounds(rows, claims, part["source"], data, share, seeds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "run cvhw4 calibrate to write it again"
        raise InputError(path, f"is not a bounds file ({error})", hint) from error


def _check_names(rows: Mapping[str, Iterable[str]], claims: Iterable[str], study: Study) -> None:
    """ValueError for a bound of what the study does not have: it would never be checked."""
    odd = [*(row for row in rows if row not in study.rows), *({*claims} - {claim.id for claim in study.claims})]
    odd += [
        f"{name} of {row}"
        for row, figures in rows.items()
        for name in figures
        if row in study.rows and name not in study.rows[row].task.bounded
    ]
    if odd:
        raise ValueError(f"there is no {odd[0]}")


def _read_bound(fields: dict[str, Any]) -> Bound:
    """A bound of a bounds file; ValueError or TypeError for anything that `_inline` does not write."""
    bound = Bound(**fields)
    finite = math.isfinite(bound.low) and math.isfinite(bound.high)
    if not (finite and bound.low <= bound.mean <= bound.high and bound.sd >= 0 and bound.n >= _FEWEST_RUNS):
        raise ValueError(f"{fields} is not a bound")
    return bound


def calibrate(
    study: Study,
    records: Iterable[RunRecord],
    false_alarms: float = _FALSE_ALARMS,
    seeds: int = NIGHTLY_SEEDS,
) -> Bounds:
    """Bounds from stored runs on the study's own data: of every row that a nightly session trains, of its other rows
    where they have enough runs, and of every claim all of whose rows are bounded.

    Args:
        false_alarms: share of nightly sessions in which any bound at all may be missed by chance.
        seeds: seeds of a nightly session.

    Raises:
        InputError: a row has fewer than five runs, rows of one task were run on different data, a claim's rows share
            fewer than five seeds, or the share is not one.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"--false-alarms {false_alarms}", "is not a share of sessions", "give one above 0 and below 1")
    more = f"train study {study.name} with --seeds {_FEWEST_RUNS} or more"
    by_row: dict[str, list[RunRecord]] = {row: [] for row in study.rows}
    for record in records:
        if record.row in by_row and record.data.embedded == isinstance(study.sources.get(record.task), Generated):
            by_row[record.row].append(record)
    bounded = [row for row in study.rows.values() if row.group == "" or len(by_row[row.name]) >= _FEWEST_RUNS]
    for row in bounded:
        runs = len(by_row[row.name])
        if runs < _FEWEST_RUNS:
            raise InputError(row.name, f"has {runs} runs on the study's data, too few to calibrate a bound", more)
    data: dict[str, str] = {}
    for task in study.tasks:
        of_task = [r for row in bounded if row.task.name == task.name for r in by_row[row.name]]
        newest = max(of_task, key=lambda r: r.started, default=None)
        if newest is None:
            continue
        data[newest.data.name] = newest.data.fingerprint
        odd = next((r for r in of_task if r.data.fingerprint != newest.data.fingerprint), None)
        if odd:
            problem = f"was run on other {odd.data.name} than {newest.row}, so that their runs cannot be compared"
            raise InputError(odd.row, problem, f"{more} and -k {odd.row}")
    names = {row.name for row in bounded}
    claims = [claim for claim in study.claims if claim.worse is not None and names.issuperset(claim.rows)]
    error = error_of_one(bounded, claims, false_alarms, seeds)
    rows = {
        row.name: {
            name: _bound([r.figure(name) for r in by_row[row.name]], _resolution(name, by_row[row.name][0]), error)
            for name in row.task.bounded
        }
        for row in bounded
    }
    differences = {}
    for claim in claims:
        compared = [r for row in dict.fromkeys(claim.rows) for r in by_row[row]]
        by_seed = {seed: [r for r in compared if r.seed == seed] for seed in sorted({r.seed for r in compared})}
        outcomes = [o for runs in by_seed.values() if (o := judge(claim, runs, study)) is not None]
        if len(outcomes) < _FEWEST_RUNS:
            problem = f"has {len(outcomes)} seeds common to its rows, too few to calibrate a bound"
            raise InputError(claim.id, problem, f"{more}, all rows of it")
        values = [outcome.difference.mean for outcome in outcomes]
        differences[claim.id] = _bound(values, _resolution(claim.metric, compared[0]), error)
    return Bounds(
        rows, differences, _source([r for row in bounded for r in by_row[row.name]]), data, false_alarms, seeds
    )


def held_out(study: Study, records: Sequence[RunRecord], bounds: Bounds) -> list[tuple[RunRecord, Check]]:
    """Every run held against bounds made of its row's other seeds: what the stated rate is worth on figures as they
    come, which are no draws of a normal distribution.

    Args:
        records: runs; those of data that the bounds are not for, and of rows that a nightly session does not train,
            are passed over.
        bounds: gives the data, the rate of false alarms and the seeds of a session.
    """
    on_data = [r for r in records if bounds.apply_to(r.data.fingerprint)]
    nightly = {row.name: [r for r in on_data if r.row == row.name] for row in study.in_group("")}
    rows = {study.rows[name]: runs for name, runs in nightly.items() if len(runs) > _FEWEST_RUNS}
    if not rows:
        return []
    claims = [claim for claim in study.claims if claim.worse is not None]
    error = error_of_one(rows, claims, bounds.false_alarms, bounds.seeds)
    found = []
    for row, runs in rows.items():
        for name in row.task.bounded:
            values = [r.figure(name) for r in runs]
            for i, run in enumerate(runs):
                bound = _bound(np.delete(values, i), _resolution(name, run), error)
                found.append((run, Check(name, values[i], bound, "the row's other seeds")))
    return found


def error_of_one(bounded: Iterable[Row], claims: Iterable[Claim], false_alarms: float, seeds: int) -> float:
    """The rate of false alarms of one check, such that those of a nightly session together have the rate stated.

    Sidak (1967): exact for checks that are independent of each other. A session checks every figure of every row
    without a group once for each seed, and every claim between such rows once, in the mean over the seeds.

    Args:
        bounded: rows with bounds.
        claims: claims with a bound.
        false_alarms: share of sessions in which any check at all may be missed by chance.
        seeds: seeds of a session.
    """
    nightly = {row.name: row for row in bounded if row.group == ""}
    checks = seeds * sum(len(row.task.bounded) for row in nightly.values())
    checks += sum(nightly.keys() >= set(claim.rows) for claim in claims)
    return 1 - (1 - false_alarms) ** (1 / checks)


def _resolution(figure: str, record: RunRecord) -> float:
    """The least by which a figure can differ for reasons that are not the row's: one image, or a thousandth of IoU."""
    return 1 / record.data.val if TASKS[record.task].in_images and figure != "training loss" else 0.001


def _bound(values: ArrayLike, resolution: float, error: float) -> Bound:
    low, high, mean, sd = (round(float(x), 4) for x in limits(values, resolution, error))
    return Bound(low, high, mean, sd, np.size(values))


def limits(
    values: ArrayLike, resolution: float, error: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The prediction interval of one further run.

    Args:
        values: [..., n] figures of n runs.
        resolution: of the figure; a spread below it is taken as that.
        error: share of further runs that miss it.

    Returns:
        [...] lower and upper limits, and the runs' [...] means and standard deviations: the first fields of `Bound`.
    """
    mean, sd = moments(values)
    half = prediction_half_width(1.0, np.shape(values)[-1], error) * np.maximum(sd, resolution)
    return mean - half, mean + half, mean, sd


def _source(records: Sequence[RunRecord]) -> str:
    days = sorted({r.started[:10] for r in records})
    devices = sorted({r.environment["device"] for r in records})
    software = sorted({text for r in records for text in r.software})
    commits = sorted({str(r.environment["commit"] or r.environment.get("code", "unknown"))[:18] for r in records})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"calibrated on {len(records)} runs of {span} on {', '.join(devices)}, {', '.join(software)}, "
        f"code {', '.join(commits)}"
    )


def to_toml(study: Study, bounds: Bounds) -> str:
    """The bounds as the file that `load_bounds` reads."""
    name = _key(study.name)
    lines = [
        "# Written by `cvhw4 calibrate`; not to be edited by hand.",
        "# low and high: the prediction interval of one further run (Student's t, two sides) from n runs with other",
        "# seeds, so wide that all bounds of a nightly session together raise a false alarm in the share",
        "# `false_alarms` of nights. For runs on the data with these fingerprints alone.",
        "",
        f"[{name}]",
        f"source = {_quoted(bounds.source)}",
        f"false_alarms = {bounds.false_alarms:g}",
        f"seeds = {bounds.seeds}",
        "",
        f"[{name}.data]",
        *(f"{_quoted(data)} = {_quoted(fingerprint)}" for data, fingerprint in bounds.data.items()),
    ]
    for row, figures in bounds.rows.items():
        lines += [
            "",
            f"[{name}.rows.{_key(row)}]",
            *(f"{_quoted(figure)} = {_inline(b)}" for figure, b in figures.items()),
        ]
    lines += [
        "",
        f"# Differences of {study.epoch} epochs, by seed, for one seed; of k seeds the mean is judged, more narrowly.",
    ]
    lines += [f"[{name}.claims]", *(f"{_key(id)} = {_inline(b)}" for id, b in bounds.claims.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """A text as TOML and JSON both have it."""
    return json.dumps(printable(text), ensure_ascii=False)


def _inline(b: Bound) -> str:
    return f"{{ low = {b.low:.4f}, high = {b.high:.4f}, mean = {b.mean:.4f}, sd = {b.sd:.4f}, n = {b.n} }}"


def failed(checks: Iterable[Check]) -> list[str]:
    """The messages of the checks that are not met."""
    return [str(check) for check in checks if not check.met]
