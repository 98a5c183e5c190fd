"""Bounds from stored runs, and how often nights of these runs would miss them though nothing has changed.

What share of nights may raise a false alarm is stated for a whole nightly session, all its bounds together. Divided
among them as if they were independent and every figure normal on its scale (Sidak 1967), it gives each bound its width;
then the runs themselves are made nights of: a night's seeds are left out, the bounds are made of the others, and where
more nights miss any of them than stated, the one that most miss is widened, and so on until no more do.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.bounds import (
    FALSE_ALARMS,
    FEWEST_RUNS,
    FORMAT,
    NIGHTLY_SEEDS,
    Bound,
    Bounds,
    Outliers,
    Twin,
    arithmetic,
    bounded,
    digest,
    failed,
    scale_of,
    with_figure,
)
from cvhw4.statistics.intervals import t_quantile
from cvhw4.statistics.scales import SCALES
from cvhw4.statistics.verdicts import judge
from cvhw4.study import Claim, EpochRule, Generated, Row, Study
from cvhw4.tasks import TASKS, TRAINING_LOSSES, ScaleName

_NIGHTS = 2000  # at most, of the ways to choose a night's seeds
_FEWEST_TWINS = 3
# What twins' figures may differ by for their rounding alone, where they do not come in steps; a loss by this share.
_SAME = 1e-4
_SMALLEST = 1e-3  # spread of a share that does not come in steps, and relative one of a loss, that is taken for none
_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that TOML takes without quotes
Runs = Mapping[str, Sequence[RunRecord]]


@dataclass(frozen=True)
class Series:
    """What a bound is made of: a figure by seed, on its scale.

    Attributes:
        values: [n].
        seeds: [n].
        counted: [n], whether the run is among those that the bound is made of (see `Bounds.outliers`).
        floor: a spread below it is taken as that: one step of the figure.
        scale: of the figure.
        of_row: whether it is a row's, so that a night holds each run, too, against its bound; or a claim's.
        allowed: of a row, how many runs of a night may be outliers.
    """

    values: NDArray[np.float64]
    seeds: NDArray[np.int64]
    counted: NDArray[np.bool_]
    floor: float
    scale: ScaleName = "plain"
    of_row: bool = True
    allowed: int = 0

    def bound(self, error: float, runs: int) -> Bound:
        """The prediction interval of the mean of so many further runs, which the share `error` of them misses."""
        kept, scale = self.values[self.counted], SCALES[self.scale]
        n, mean, sd = len(kept), float(kept.mean()), float(kept.std(ddof=1))
        half = -t_quantile(error / 2, n - 1) * max(sd, self.floor) * math.sqrt(1 / runs + 1 / n)
        low, high, middle = (_rounded(float(scale.of(mean + end))) for end in (-half, half, 0.0))
        return Bound(low, high, middle, _rounded(sd), n, runs, self.scale)


def _rounded(value: float, digits: int = 5) -> float:
    """As the file has it; what single runs are held against with more digits than any tolerance."""
    return float(f"{value:.{digits}g}")


def calibrate(
    study: Study,
    records: Iterable[RunRecord],
    false_alarms: float = FALSE_ALARMS,
    seeds: int = NIGHTLY_SEEDS,
    twins: Iterable[RunRecord] | None = None,
) -> Bounds:
    """Bounds from stored runs on the study's own data: of every row that a nightly session trains, of its other rows
    where they have enough runs, and of every claim all of whose rows are bounded; all that say something.

    Args:
        false_alarms: share of nightly sessions in which any bound at all may be missed by chance.
        seeds: seeds of a nightly session.
        twins: runs of the same rows, seeds and data on another machine or with other threads. Bounds are made of one
            run a seed: two machines' runs of a seed are alike in what the seed decides.

    Raises:
        InputError: a row has fewer than five runs, rows of one task were run on different data, a claim's rows share
            fewer than five seeds, the share is not one, or no run is a twin of another.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"--false-alarms {false_alarms}", "is not a share of sessions", "give one above 0 and below 1")
    runs, data = _usable(study, records)
    rows = [study.rows[name] for name in runs]
    claims = [claim for claim in study.claims if claim.worse is not None and runs.keys() >= set(claim.rows)]
    nightly = {row.name for row in rows if row.group == ""}
    error = error_of_one(rows, claims, false_alarms, seeds, own=len(study.metrics))
    source, found, on = _source([r for of_row in runs.values() for r in of_row]), {}, ""
    if twins is not None:
        pairs = _pairs(runs, twins)
        found, on = _twins(study, runs, pairs, seeds, error), arithmetic(pairs[0][0])
        source += f"; twins: {len(pairs)} runs on {', '.join(sorted({_machine(twin) for _, twin in pairs}))}"

    outliers = {row.name: o for row in rows if (o := _outliers(study, row, runs[row.name], error))}
    aside = {row: {r.seed for r in runs[row] if o.has(r)} for row, o in outliers.items()}
    allowed = {row: o.passed_over(seeds, seeds, false_alarms) for row, o in outliers.items()}
    of_rows = {
        (row.name, figure): replace(
            _series(study, row, figure, runs[row.name], aside.get(row.name, set())), allowed=allowed.get(row.name, 0)
        )
        for row in rows
        for figure in bounded(study, row)
        if with_figure(runs[row.name], figure) == runs[row.name]
    }
    of_claims = {claim.id: _of_claim(claim, study, runs, aside) for claim in claims}
    checked: dict[Any, Series] = {key: series for key, series in of_rows.items() if key[0] in nightly}
    checked |= {claim.id: of_claims[claim.id] for claim in claims if nightly >= set(claim.rows)}
    drawn = _nights([{r.seed for r in runs[row]} for row in nightly], seeds)
    errors: dict[Any, float] = {}
    rate = None
    if len(drawn):
        errors, found_rate = widened(checked, drawn, error, false_alarms)
        rate = _rounded(found_rate)
    made = {key: series.bound(errors.get(key, error), seeds) for key, series in of_rows.items()}
    return Bounds(
        rows={row: {figure: b for (of, figure), b in made.items() if of == row and not b.vacuous} for row in runs},
        claims={id: series.bound(errors.get(id, error), seeds) for id, series in of_claims.items()},
        source=source,
        data=data,
        false_alarms=false_alarms,
        seeds=seeds,
        held_out=rate,
        nights=len(drawn),
        outliers=outliers,
        settings={row: digest(of_row[0]) for row, of_row in runs.items() if len({digest(r) for r in of_row}) == 1},
        differences={claim.id: _differences(claim, study, runs) for claim in claims},
        untrained={claim.id: failing for claim in claims if (failing := _untrained(claim, runs, aside))},
        twins=found,
        twins_on=on,
    )


def _usable(study: Study, records: Iterable[RunRecord]) -> tuple[dict[str, list[RunRecord]], dict[str, str]]:
    """The runs of rows that are bounded, and the data they are on: fingerprints by name; raises InputError."""
    more = f"train study {study.name} with --seeds {FEWEST_RUNS} or more"
    by_row: dict[str, list[RunRecord]] = {row: [] for row in study.rows}
    for record in (records := [*records]):
        source = study.sources.get(record.task)
        kind = (True, source.redraw) if isinstance(source, Generated) else (False, False)
        if record.row in by_row and (record.data.embedded, record.data.redrawn) == kind:
            by_row[record.row].append(record)
    enough = [row for row in study.rows.values() if row.group == "" or len(by_row[row.name]) >= FEWEST_RUNS]
    for row in enough:
        runs = len(by_row[row.name])
        if runs < FEWEST_RUNS:
            others = sum(r.row == row.name for r in records) - runs
            found = f"{runs} runs on the study's data{f' and {others} on others' * bool(others)}"
            raise InputError(row.name, f"has {found}, too few to calibrate a bound", more)
        figures = row.task.bounded if row.group else bounded(study, row)  # others' runs may be from before a metric
        needed = {figure.split(" ", 1)[1] for figure in figures if figure not in TRAINING_LOSSES}
        needed |= {claim.metric for claim in study.claims if claim.worse is not None and row.name in claim.rows}
        for record in by_row[row.name]:
            if lacking := sorted(name for name in needed if name not in record.epochs[-1].figures):
                raise InputError(row.name, f"has runs without {lacking[0]}", more)
            for name in sorted({*needed, *study.metrics}.intersection(study.shares, record.epochs[-1].figures)):
                if not 0 <= (value := record.figure(f"{study.epoch} {name}")) <= 1:
                    problem = f"has runs with {name}={value:g}, which is one of the study's shares"
                    raise InputError(row.name, problem, f"leave {name} out of the study's shares")
    data: dict[str, str] = {}
    for task in study.tasks:
        of_task = [r for row in enough if row.task.name == task.name for r in by_row[row.name]]
        newest = max(of_task, key=lambda r: r.started, default=None)
        if newest is None:
            continue
        if data.setdefault(newest.data.name, newest.data.fingerprint) != newest.data.fingerprint:
            hint = "rename the folder of one, and train anew"
            raise InputError(newest.data.name, "is the name of two data sets", hint)
        odd = next((r for r in of_task if r.data.fingerprint != newest.data.fingerprint), None)
        if odd:
            problem = f"was run on other {odd.data.name} than {newest.row}, so that their runs cannot be compared"
            raise InputError(odd.row, problem, f"{more} and -k {odd.row}")
    return {row.name: by_row[row.name] for row in enough}, data


def error_of_one(rows: Iterable[Row], claims: Iterable[Claim], false_alarms: float, seeds: int, own: int = 0) -> float:
    """The rate of false alarms of one check, such that those of a nightly session together have the rate stated.

    Sidak (1967): exact for checks that are independent of each other. A session checks every figure of every row
    without a group once for each seed and once in their mean, and every claim between such rows once.

    Args:
        rows: rows with bounds.
        claims: claims with a bound.
        false_alarms: share of sessions in which any check at all may be missed by chance.
        seeds: seeds of a session.
        own: metrics of the study's own, which every row has beside its task's figures.
    """
    nightly = {row.name: row for row in rows if row.group == ""}
    checks = (seeds + (seeds > 1)) * sum(len(row.task.bounded) + own for row in nightly.values())
    checks += sum(nightly.keys() >= set(claim.rows) for claim in claims)
    return 1 - (1 - false_alarms) ** (1 / max(checks, 1))


def _outliers(study: Study, row: Row, runs: Sequence[RunRecord], error: float) -> Outliers | None:
    """The runs that learned far less than the others: whose first bounded figure is worse than the bound made of the
    others allows for one run, while all of these meet it. As few as that takes, and fewer than half."""
    figure = row.task.bounded[0]
    lower_is_better = figure.partition(" ")[2] in runs[0].lower_is_better
    worst = sorted(runs, key=lambda r: r.figure(figure), reverse=lower_is_better)
    for k in range(1, min((len(runs) - 1) // 2, len(runs) - FEWEST_RUNS) + 1):
        aside = {r.seed for r in worst[:k]}
        others = _series(study, row, figure, runs, aside).bound(error, 1)
        if others.vacuous:
            continue
        if all(others.holds(r.figure(figure)) == (r.seed not in aside) for r in runs):
            limit, failed = others.high if lower_is_better else others.low, any(r.collapsed for r in worst[:k])
            return Outliers(figure, limit, lower_is_better, k, len(runs), failed)
    return None


def _series(study: Study, row: Row, figure: str, runs: Sequence[RunRecord], aside: Set[int]) -> Series:
    """A figure of a row; without its outliers, the seeds `aside`."""
    name = scale_of(study, row, figure)
    values, scale = np.array([r.figure(figure) for r in runs]), SCALES[name]
    counted = np.array([r.seed not in aside for r in runs])
    middle = float(scale.of(scale.to(values[counted]).mean()))
    step = _step(figure, runs[0])  # the least spread; a metric of the study's own need not come in such steps
    return Series(
        scale.to(values),
        np.array([r.seed for r in runs]),
        counted,
        scale.step(middle, step or _SMALLEST * {"log": middle, "plain": min(abs(middle), 1) or 1}.get(name, 1)),
        name,
    )


def _step(figure: str, record: RunRecord) -> float:
    """What one image makes of a figure; 0 where it does not come in such steps."""
    return 1 / record.data.val if TASKS[record.task].in_images and figure not in TRAINING_LOSSES else 0.0


def _of_claim(claim: Claim, study: Study, runs: Runs, aside: Mapping[str, Set[int]]) -> Series:
    """A claim's differences; without the seeds `aside` of its rows.

    Raises:
        InputError: its rows share fewer than five seeds.
    """
    compared, left_out = _compared(claim, runs), _left_out(claim, aside)
    outcome = judge(claim, compared, study)
    n = 0 if outcome is None else len({*outcome.seeds} - left_out)
    if outcome is None or n < FEWEST_RUNS:
        problem = f"has {n} seeds common to its rows, too few to calibrate a bound"
        hint = f"train study {study.name} with --seeds {FEWEST_RUNS} or more, all rows of it"
        raise InputError(claim.id, problem, hint)
    step = _step(f"{outcome.epoch} {claim.metric}", compared[0]) or _SMALLEST
    seeds = np.array(outcome.seeds)
    return Series(np.array(outcome.differences), seeds, ~np.isin(seeds, [*left_out]), step, of_row=False)


def _differences(claim: Claim, study: Study, runs: Runs) -> dict[str, dict[int, float]]:
    """A claim's differences by the rule for the epoch and by seed."""
    outcomes = {rule: judge(claim, _compared(claim, runs), study, epoch=rule) for rule in get_args(EpochRule)}
    return {
        rule: {seed: _rounded(d) for seed, d in zip(o.seeds, o.differences, strict=True)}
        for rule, o in outcomes.items()
        if o is not None
    }


def _untrained(claim: Claim, runs: Runs, aside: Mapping[str, Set[int]]) -> list[int]:
    """The seeds of which a training of the claim's rows failed, or is an outlier."""
    return sorted({r.seed for r in _compared(claim, runs) if r.collapsed} | _left_out(claim, aside))


def _compared(claim: Claim, runs: Runs) -> list[RunRecord]:
    return [r for row in dict.fromkeys(claim.rows) for r in runs[row]]


def _left_out(claim: Claim, aside: Mapping[str, Set[int]]) -> set[int]:
    return set().union(*(aside.get(row, set()) for row in claim.rows))


# Nights of the runs themselves


def _nights(seeds: Sequence[set[int]], k: int) -> NDArray[np.int64]:
    """[nights, k] the seeds of every night that can be made of those that all rows have, or of a sample of them; none
    where too few would be left to make bounds of."""
    common = sorted(set.intersection(*seeds)) if seeds else []
    if len(common) < k + FEWEST_RUNS:
        return np.empty((0, k), dtype=np.int64)
    if math.comb(len(common), k) <= _NIGHTS:
        return np.array(list(combinations(common, k)))
    rng = np.random.default_rng(0)
    return np.array([rng.choice(common, k, replace=False) for _ in range(_NIGHTS)])


def widened(
    checked: Mapping[Any, Series], drawn: NDArray[np.int64], error: float, false_alarms: float
) -> tuple[dict[Any, float], float]:
    """The rates of checks at which no more nights of the runs than stated miss any bound made of the other runs.

    Of all bounds the one missed in most nights is widened, to where half as many miss it, and so on: one unsteady row
    does not blunt the others' bounds. What becomes so wide that it says nothing is no bound any more. The widths are
    chosen on these nights: how often new seeds miss them, `with_new_seeds` tells.

    Args:
        checked: what a night checks, by whatever names it.
        drawn: [nights, k] their seeds.
        error: rate to begin with.
        false_alarms: share of nights.

    Returns:
        Those rates, the last ones where more nights than stated have more outliers than are passed over; and the share
        of nights that miss a bound.
    """
    k, errors = drawn.shape[1], dict.fromkeys(checked, error)
    of_nights = {name: _p_values(series, drawn) for name, series in checked.items()}

    def least(name: Any) -> NDArray[np.float64]:
        """[nights] how rarely a check is missed as a night misses it; 1 where its bound says nothing."""
        series, (mean, single), bound = checked[name], of_nights[name], checked[name].bound(errors[name], k)
        if bound.vacuous:
            return np.ones(len(drawn))
        return np.minimum(mean, single) if series.of_row and not bound.for_mean_of(1).vacuous else mean

    found = {name: least(name) for name in checked}

    def missed() -> NDArray[np.bool_]:
        return np.array([found[name] < errors[name] for name in checked])

    while missed().any(0).mean() > false_alarms:  # ends: each time one has fewer misses, and no other more
        rarer = {name: p[(p < errors[name]) & (p > 0)] for name, p in found.items()}  # 0: too many outliers
        most = max(rarer, key=lambda name: len(rarer[name]))
        if not len(rarer[most]):
            break
        errors[most] = 0.99 * float(np.sort(rarer[most])[len(rarer[most]) // 2])  # clear of rounding
        found[most] = least(most)
    return errors, float(missed().any(0).mean())


def _p_values(series: Series, drawn: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[nights] how rarely a bound made of the other runs misses the night's mean, and its run that is farthest off."""
    from scipy.special import stdtr

    tonight = (series.seeds[:, None] == drawn[:, None, :]).any(2)  # [nights, n]
    values = series.values - series.values.mean()
    own, others = tonight & series.counted, ~tonight & series.counted
    k, n = own.sum(1), others.sum(1)
    mean = others @ values / np.maximum(n, 1)
    squares = np.where(others, (values - mean[:, None]) ** 2, 0.0).sum(1)
    sd = np.maximum(np.sqrt(squares / np.maximum(n - 1, 1)), series.floor)
    apart = np.abs(own @ values / np.maximum(k, 1) - mean) / (sd * np.sqrt(1 / np.maximum(k, 1) + 1 / n))
    farthest = np.where(own, np.abs(values - mean[:, None]), 0.0).max(1) / (sd * np.sqrt(1 + 1 / n))
    found = [np.where(n > 1, 2 * stdtr(n - 1.0, -t), 1.0) for t in (apart, farthest)]
    too_many = series.of_row & ((tonight & ~series.counted).sum(1) > series.allowed)
    return np.where(too_many, 0.0, np.where(k > 0, found[0], 1.0)), np.where(k > 0, found[1], 1.0)


def with_new_seeds(
    study: Study,
    records: Sequence[RunRecord],
    bounds: Bounds,
    twins: Sequence[RunRecord] | None = None,
    most: int = 200,
) -> Bounds:
    """The same bounds, and how often sessions of seeds that no calibration has seen miss anything.

    Bounds are calibrated anew without a session's seeds, with all that is chosen on the runs, and the session is held
    against all of them.

    Args:
        records: the runs that `bounds` are made of.
        twins: as of `calibrate`.
        most: sessions tried, drawn from those that can be made.
    """
    nightly = [row.name for row in study.rows.values() if row.group == "" and row.name in bounds.rows]
    runs = [r for r in records if r.row in nightly and bounds.apply_to(r.data.fingerprint)]
    drawn = _nights([{r.seed for r in runs if r.row == row} for row in nightly], bounds.seeds)
    drawn = np.random.default_rng(0).permutation(drawn)[:most]
    missed, unusual = [], []
    for night in (set(seeds.tolist()) for seeds in drawn):
        others = None if twins is None else [r for r in twins if r.seed not in night]
        rest = [r for r in records if r.seed not in night]
        try:
            made = calibrate(study, rest, bounds.false_alarms, bounds.seeds, others or None)
        except InputError:  # too few runs are left of a row or a claim, or no twins
            continue
        tonight = [[r for r in runs if r.row == row and r.seed in night] for row in nightly]
        all_runs = [r for of_row in tonight for r in of_row]
        claims = [judge(claim, all_runs, study) for claim in study.claims if {*nightly} >= {*claim.rows}]
        judged = [o for o in claims if o is not None]
        checks = [check for o in judged if (check := made.check_claim(o)) is not None]
        broken = [o for o in judged if made.promises(o) and o.difference.mean <= o.claim.margin]
        missed.append(bool(broken or failed(checks) or any(made.missed(*of_row) for of_row in tonight)))
        unusual.append(any(bounds.aside(*of_row) for of_row in tonight))
    if not missed:
        return bounds
    usual = [m for m, u in zip(missed, unusual, strict=True) if not u]
    share, of_usual = (_rounded(sum(found) / len(found)) if found else None for found in (missed, usual))
    return replace(bounds, new_seeds=share, usual=of_usual, new_nights=len(missed))


# Twins


def _pairs(runs: Runs, twins: Iterable[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """Runs and their twins: of the same row, settings, seed and data, on another machine or with other threads.

    Processors of several kinds have one name. Runs that differ in no loss were computed alike and tell nothing, and
    twins of a run that do are one."""
    by_key = {(r.row, r.seed): r for of_row in runs.values() for r in of_row}
    pairs = [(r, twin) for twin in twins if (r := by_key.get((twin.row, twin.seed))) is not None]
    pairs = [(r, twin) for r, twin in pairs if arithmetic(r) == arithmetic(twin) == arithmetic(pairs[0][0])]
    pairs = [
        (r, twin)
        for r, twin in pairs
        if (_machine(r) != _machine(twin) or [e.loss for e in r.epochs] != [e.loss for e in twin.epochs])
        and (r.settings, r.data.fingerprint) == (twin.settings, twin.data.fingerprint)
    ]
    if not pairs:
        problem = "has no run of the same row, settings, seed and data on another machine or with other threads"
        raise InputError("--twins", problem, "train the rows there, with the same seeds")
    return [*{(twin.row, twin.seed, *(e.loss for e in twin.epochs)): (r, twin) for r, twin in pairs}.values()]


def _machine(record: RunRecord) -> str:
    threads = record.environment["threads"]
    return f"{record.environment['device_name']} ({threads} thread{'s' * (threads != 1)})"


def _twins(
    study: Study, runs: Runs, pairs: Sequence[tuple[RunRecord, RunRecord]], seeds: int, error: float
) -> dict[str, dict[str, Twin]]:
    """The figures that twins give too, or nearly: twice as closely as the mean of a night's runs has to be known. By
    how much a further twin may differ follows from the spread of these differences about zero (Student's t)."""
    found: dict[str, dict[str, Twin]] = {}
    for row, of_row in runs.items():
        of_twins = [(r, twin) for r, twin in pairs if r.row == row]
        for figure in study.rows[row].task.paired if len(of_twins) >= _FEWEST_TWINS else ():
            apart = math.fsum((r.figure(figure) - twin.figure(figure)) ** 2 for r, twin in of_twins)
            spread = t_quantile(1 - error / 2, len(of_twins)) * math.sqrt(apart / len(of_twins))
            bound = _series(study, study.rows[row], figure, of_row, set()).bound(error, seeds)
            same = _SAME * (bound.mean if bound.scale == "log" else 1)
            tolerance = max(_step(figure, of_row[0]) or same, spread)
            if 4 * tolerance < bound.high - bound.low:
                values = {r.seed: _rounded(r.figure(figure), 9) for r in sorted(of_row, key=lambda r: r.seed)}
                found.setdefault(row, {})[figure] = Twin(_rounded(tolerance), values)
    return found


# The file


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
        "# Written by `cvhw4 calibrate`; not to be edited by hand. For runs on the data with these fingerprints alone.",
        "# low and high: limits of the mean of a session's `seeds` runs, from n runs with other seeds (Student's t).",
        "# sd is on the scale that they are made on: the logarithm of losses, the arcsine of the root of shares.",
        "# held_out: the share of `nights`, sessions made of calibrated runs, that miss a bound made of the others.",
        "",
        f"[{name}]",
        f"format = {FORMAT}",
        f"source = {_quoted(bounds.source)}",
        f"false_alarms = {bounds.false_alarms:g}",
        f"seeds = {bounds.seeds}",
    ]
    if bounds.held_out is None:
        lines.append("# held_out is not known: too few runs to leave a night's out")
    else:
        lines += [f"nights = {bounds.nights}", f"held_out = {bounds.held_out:.5g}"]
        if bounds.held_out > bounds.false_alarms:
            lines.append("# more than stated: too many nights have more outliers than are passed over")
    if bounds.new_seeds is not None:
        lines.append(
            "# new_seeds: the share of new_nights that miss anything, bounds being calibrated without their seeds;"
        )
        lines.append("# usual: of those none of whose runs is an outlier")
        lines += [f"new_nights = {bounds.new_nights}", f"new_seeds = {bounds.new_seeds:.5g}"]
        lines += [] if bounds.usual is None else [f"usual = {bounds.usual:.5g}"]
    if bounds.twins:
        lines.append(f"twins_on = {_quoted(bounds.twins_on)}")
    lines += ["", f"[{name}.data]"]
    lines += [f"{_quoted(data)} = {_quoted(fingerprint)}" for data, fingerprint in bounds.data.items()]
    if bounds.outliers:
        lines += ["", "# So many runs of a row learned far less than the others, and bounds are not made of them."]
        lines += [f"[{name}.outliers]", *(f"{_key(row)} = {_inline_outliers(o)}" for row, o in bounds.outliers.items())]
    for row, figures in bounds.rows.items():
        lines += ["", f"[{name}.rows.{_key(row)}]"]
        lines += [f"{_quoted(figure)} = {_inline(b)}" for figure, b in figures.items()]
        lines += [
            f"# {figure}: no bound, as one that its seeds and held-out nights allow would say nothing"
            + ", or some runs lack it" * (study.rows[row].group != "" and figure.partition(" ")[2] in study.metrics)
            for figure in bounded(study, study.rows[row])
            if figure not in figures
        ]
    lines += ["", f"# Differences of {study.epoch} epochs, by seed.", f"[{name}.claims]"]
    lines += [f"{_key(id)} = {_inline(b)}" for id, b in bounds.claims.items()]
    if bounds.untrained:
        lines += ["", "# Seeds of which a training failed, or learned far less.", f"[{name}.untrained]"]
        lines += [f"{_key(id)} = {[*seeds]}" for id, seeds in bounds.untrained.items()]
    lines += ["", f"[{name}.settings]", *(f"{_key(row)} = {_quoted(of)}" for row, of in bounds.settings.items())]
    for id, rules in bounds.differences.items():
        lines += ["", f"[{name}.differences.{_key(id)}]"]
        lines += [f"{rule} = {{ {_by_seed(of_rule)} }}" for rule, of_rule in rules.items()]
    if not bounds.twins:
        lines += ["", "# No twins were given, so that no run is held against the calibrated one of the same seed."]
    for row, of_seeds in bounds.twins.items():
        lines += ["", f"[{name}.twins.{_key(row)}]"]
        for figure, twin in of_seeds.items():
            values = _by_seed(twin.values, 9)
            lines.append(f"{_quoted(figure)} = {{ tolerance = {twin.tolerance:.5g}, seeds = {{ {values} }} }}")
    return "\n".join(lines) + "\n"


def of_other_studies(text: str, study: Study) -> str:
    """The parts of a bounds file that are of other studies, as they are."""
    try:
        tomllib.loads(text)
    except ValueError:  # damaged, and written anew
        return ""
    parts = re.split(r'^(?=\[(?:[\w-]+|"[^"]*")\]$)', text, flags=re.MULTILINE)[1:]
    others = [part.rstrip("\n") for part in parts if not part.startswith(f"[{_key(study.name)}]")]
    return "".join(f"\n{part}\n" for part in others)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """A text as TOML and JSON both have it."""
    return json.dumps(printable(text), ensure_ascii=False)


def _by_seed(values: Mapping[int, float], digits: int = 5) -> str:
    return ", ".join(f"{seed} = {value:.{digits}g}" for seed, value in values.items())


def _inline_outliers(o: Outliers) -> str:
    return (
        f"{{ figure = {_quoted(o.figure)}, limit = {o.limit:.5g}, lower_is_better = {json.dumps(o.lower_is_better)}, "
        f"n = {o.n}, of = {o.of}, failed = {json.dumps(o.failed)} }}"
    )


def _inline(b: Bound) -> str:
    return f"{{ low = {b.low:.5g}, high = {b.high:.5g}, mean = {b.mean:.5g}, sd = {b.sd:.5g}, n = {b.n} }}"
