"""Nights held against earlier ones: which rows are worse, what later nights are held against, and when a figure moved.

A night is compared with two others (`cvhw4.statistics.changes`): row by row with the last runs that were fine, and with
the pinned ones, which stay where they are: a decline that is too slow for any one night shows against these. What looks
worse is trained again with fresh seeds, and only what is worse with them too (5 %, by themselves) is called so: runs
that raised the alarm do not decide on it. A claim that is lost with a row that fell is that row's. A row that is not
fine keeps what it is held against.

Change points are found by binary segmentation: of all places to cut a series of nights, the one with the largest
difference of means is kept where its t test, with the spread of seeds within nights and corrected for the number of
places (Bonferroni), is below 1 %, and both parts are searched in turn (Scott and Knott, 1974). Nights that took the
same runs again are one measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from cvhw4.errors import InputError
from cvhw4.records.history import Canary, JudgedRow, Measurement, Night, Reference, State, Status, stems
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.changes import Changes, Place, compare_runs, figure_change, time_change
from cvhw4.statistics.comparison import rounding_sd
from cvhw4.study import Study
from cvhw4.tasks import TASKS

CANARY = "canary"  # the name under which its figures and times stand beside those of data sets
ALL = "all"  # accepts every row
SHIFT_LEVEL = 0.01
_CONFIRMED = 0.05  # of a two-sided test, of which one side counts
_EARLIER = 30  # nights of the canary that the last one is held against
_FEWEST = 3
_STEP = 1e-4
_WRONG: tuple[Status, ...] = ("worse", "slower", "failed", "missing")

Retrain = Callable[[Sequence[str]], Sequence[RunRecord]]


@dataclass(frozen=True)
class Suspicion:
    """What looks worse about a row: a figure, a claim that needs it, or something missing."""

    kind: Literal["figure", "claim", "missing"]
    name: str
    text: str


@dataclass(frozen=True)
class Judgement:
    """A night, judged.

    Attributes:
        night: to be added to the history.
        good: its runs against the last that were fine; None where there are none.
        pinned: likewise against the pinned ones.
    """

    night: Night
    good: Changes | None
    pinned: Changes | None


def judge_night(
    study: Study,
    night: Night,
    records: Sequence[RunRecord],
    earlier: Night | None,
    runs_of: Callable[[Sequence[Reference]], Sequence[RunRecord]],
    retrain: Retrain,
    failures: Iterable[Failure] = (),
    failed_tests: Mapping[str, str] | None = None,
    bounds: Bounds = NO_BOUNDS,
    pin: bool = False,
    held: bool = False,
    complete: bool = True,
) -> Judgement:
    """Judges every row of a night.

    Args:
        night: what is known of it beside its runs: `accepted`, `checks`, and in `rows` how its canary was judged.
        records: this night's finished runs.
        earlier: the newest judged night, None where there is none.
        runs_of: the records that references name.
        retrain: trains rows with fresh seeds, and gives these runs.
        failures: this night's runs that failed.
        failed_tests: why, by row.
        bounds: are noted beside the figures.
        pin: make this night's rows, as far as they are fine, the pinned ones.
        held: an earlier night was worse and nobody knows than what: without an earlier night only accepted rows become
            what later nights are held against.
        complete: whether rows that were not run are missing.

    Raises:
        InputError: a row is accepted that neither this night nor the earlier one has.
    """
    tonight = _by_place(records)
    good = {} if earlier is None else {r.place: r for r in earlier.good}
    pinned = {} if earlier is None else {r.place: r for r in earlier.pinned}
    failed: dict[Place, list[str]] = {}
    for failure in failures:
        failed.setdefault((failure.row, failure.data), []).append(f"seed {failure.seed}: {failure.reason}")
    for row, why in (failed_tests or {}).items():
        for place in [p for p in {**tonight, **good} if p[0] == row and p not in failed] or [(row, "")]:
            failed.setdefault(place, []).append(why)
    accepted = dict(night.accepted)
    _check_accepted(accepted, [*tonight, *good, *failed, *((r.row, r.data) for r in night.rows)])

    sides = [list(runs_of(list(side.values()))) for side in (good, pinned)]
    against = [compare_runs(study, side, records, complete=complete) if side else None for side in sides]
    found: dict[Place, list[Suspicion]] = {}
    for changes in against:
        if changes is not None:
            for place, suspicions in _suspicions(changes, complete).items():
                found.setdefault(place, []).extend(s for s in suspicions if s not in found.get(place, ()))
    _leave_claims_to_rows_that_fell(found)
    confirmed = _confirm(study, found, sides, retrain, {*accepted})

    rows = []
    for place in dict.fromkeys([*tonight, *found, *failed]):
        what = confirmed.get(place, [])
        texts = [s.text for s in what or found.get(place, [])]
        status: Status = "fine" if place in good or place not in tonight else "new"
        if place in found:
            status = "worse" if what else "unconfirmed"
        if any(s.kind == "missing" for s in what):
            status = "missing"
        if place in failed:
            status, texts = "failed", [*failed[place], *texts]
        rows.append(
            JudgedRow(row=place[0], data=place[1], status=status, why="; ".join(texts), runs=_stems(tonight, place))
        )
    rows = [_accept(row, accepted) for row in [*rows, *night.rows]]
    if held and earlier is None:
        waiting = [r for r in rows if r.status != "accepted" and r.data != CANARY]
        rows = [replace(r, status="unconfirmed", why="waits to be accepted") if r in waiting else r for r in rows]
    fine = {(r.row, r.data) for r in rows if r.status in ("fine", "new", "accepted")}
    moved = {(r.row, r.data) for r in rows if r.status in ("new", "accepted")}
    present = {p: Reference(row=p[0], data=p[1], runs=_stems(tonight, p), since=night.started) for p in tonight}
    gone = moved - present.keys()
    new_good = {**good, **{p: r for p, r in present.items() if p in fine}}
    new_pinned = {
        **pinned,
        **{p: r for p, r in present.items() if p in moved or p not in pinned or (pin and p in fine)},
    }
    new_pinned = {p: r for p, r in new_pinned.items() if p in pinned or p in fine}
    wrong = {r.status for r in rows}
    state: State = "fine" if earlier is not None else "first"
    if "failed" in {*night.checks.values()} | wrong:
        state = "failed"
    if wrong & {"worse", "slower", "missing"}:
        state = "regression"
    why = night.why
    if held and earlier is None and not fine:
        state, why = "broken", "The history is lost while something was worse: restore its branch, or accept rows."
    judged = replace(
        night,
        state=state,
        why=why,
        rows=rows,
        figures=[m for p, runs in tonight.items() for m in _measurements(p, runs, bounds)],
        good=[r for p, r in new_good.items() if p not in gone],
        pinned=[r for p, r in new_pinned.items() if p not in gone],
    )
    return Judgement(judged, *against)


def _by_place(records: Iterable[RunRecord]) -> dict[Place, list[RunRecord]]:
    places: dict[Place, list[RunRecord]] = {}
    for record in records:
        places.setdefault((record.row, record.data.name), []).append(record)
    return places


def _stems(places: Mapping[Place, Sequence[RunRecord]], place: Place) -> list[str]:
    return stems(places.get(place, ()))


def _check_accepted(accepted: Mapping[str, str], places: Iterable[Place]) -> None:
    rows = {name for place in places for name in (place[0], *(place[1:] if place[1] == CANARY else ()))}
    for row in accepted.keys() - rows - {ALL}:
        hint = f"name rows of this night: {', '.join(sorted(rows)) or 'there are none'}"
        raise InputError(f"accepted row {row}", "is not a row of this night or of an earlier one", hint)


def _accept(row: JudgedRow, accepted: Mapping[str, str]) -> JudgedRow:
    """The row as accepted, where it is not fine and somebody accepted it."""
    reason = accepted.get(row.row) or accepted.get(ALL) or (accepted.get(CANARY) if row.data == CANARY else None)
    if reason is None or row.status == "fine":
        return row
    return replace(row, status="accepted", why=f"{reason} ({row.why})" if row.why else reason)


def _suspicions(changes: Changes, complete: bool) -> dict[Place, list[Suspicion]]:
    """What looks worse, by row and data set."""
    found: dict[Place, list[Suspicion]] = {}

    def add(place: Place, *what: str) -> None:
        found.setdefault(place, []).append(Suspicion(*what))  # type: ignore[arg-type]

    for c in changes.of("worse"):
        add((c.row, c.data), "figure", c.figure, f"{c.figure} {c.a:.4f} to {c.b:.4f}")
    for claim in changes.claims_of("lost"):
        for row in claim.b.claim.rows if claim.b else ():
            add((row, claim.data), "claim", claim.claim, f"claim {claim.claim} is no longer supported")
    if complete:
        for place in changes.only_a:
            add(place, "missing", "", "was not run")
        for gap in changes.gaps:
            if gap.a == "held":
                add((gap.row, gap.data), "missing", gap.figure, f"{gap.figure} is {gap.b}")
    return found


def _leave_claims_to_rows_that_fell(found: dict[Place, list[Suspicion]]) -> None:
    """Takes a claim's loss from rows whose own figures did not fall where another row of the claim's did."""
    fell = {p for p, what in found.items() if any(s.kind == "figure" for s in what)}
    explained = {s.name for p in fell for s in found[p] if s.kind == "claim"}
    for place in found.keys() - fell:
        found[place] = [s for s in found[place] if s.kind != "claim" or s.name not in explained]
        if not found[place]:
            del found[place]


def _confirm(
    study: Study,
    found: Mapping[Place, list[Suspicion]],
    sides: Sequence[Sequence[RunRecord]],
    retrain: Retrain,
    accepted: set[str],
) -> dict[Place, list[Suspicion]]:
    """The suspicions that hold with fresh seeds too, or that no seed can refute; accepted rows are not trained."""
    in_doubt = {p: [s for s in what if s.kind != "missing"] for p, what in found.items()}
    rows = sorted({p[0] for p, what in in_doubt.items() if what and not {p[0], ALL} & accepted})
    fresh = list(retrain(rows)) if rows else []
    worse: set[tuple[Place, str]] = set()
    looked: set[tuple[Place, str]] = set()
    for side in sides:
        changes = compare_runs(study, [r for r in side if r.row in rows], fresh)
        for c in changes.figures:
            if c.kind != "single":
                looked.add(((c.row, c.data), c.figure))
                if c.p_value < _CONFIRMED and c.difference.mean < 0:
                    worse.add(((c.row, c.data), c.figure))
        for claim in changes.claims:
            if claim.a is not None and claim.b is not None:
                for row in claim.b.claim.rows:
                    looked.add(((row, claim.data), claim.claim))
                    if claim.kind == "lost":
                        worse.add(((row, claim.data), claim.claim))
    confirmed = {}
    for place, what in found.items():
        held = [s for s in what if s.kind == "missing" or (place, s.name) in worse or (place, s.name) not in looked]
        if held:
            confirmed[place] = held
    return confirmed


def _measurements(place: Place, runs: Sequence[RunRecord], bounds: Bounds) -> list[Measurement]:
    """Best and last of every metric that all runs have, finite, but for losses."""
    limits = bounds.rows.get(place[0], {}) if bounds.apply_to(runs[0].data.fingerprint) else {}
    found = []
    for metric in runs[0].epochs[0].figures:
        for figure in (f"best {metric}", f"last {metric}"):
            if metric == "loss" or not all(metric in r.epochs[0].figures for r in runs):
                continue
            values = {str(r.seed): round(r.figure(figure), 6) for r in runs}
            if all(map(math.isfinite, values.values())):
                bound = limits.get(figure)
                of_mean = bound.for_mean_of(len(runs)) if bound else None
                low, high = (of_mean.low, of_mean.high) if of_mean else (None, None)
                found.append(Measurement(row=place[0], data=place[1], figure=figure, values=values, low=low, high=high))
    return found


# The canary


def canary_of(records: Sequence[RunRecord]) -> Canary:
    """The canary's runs of one night; one or more, of one configuration."""
    first = records[0]
    setup = (
        f"{first.environment['device_name']}, {first.environment['threads']} threads, {sorted(first.settings.items())}"
    )
    names = [f"best {m}" for m in first.epochs[0].figures if m in TASKS[first.task].shown]
    return Canary(
        row=first.row,
        configuration=first.configuration,
        setup=setup,
        seconds=[r.times.train_seconds for r in records],
        values={name: [round(r.figure(name), 6) for r in records] for name in names},
    )


def judge_canary(canary: Canary, nights: Sequence[Night], limit: float) -> JudgedRow:
    """Whether the canary is slower, or worse though nothing has changed that should, than in earlier nights in which it
    was neither, since it was last accepted.

    Args:
        nights: earlier ones, oldest first.
        limit: ratio of training times above which it is slower.
    """
    before: list[Canary] = []
    for night in reversed(nights):
        was = next((r.status for r in night.rows if (r.row, r.data) == (canary.row, CANARY)), None)
        if night.canary is not None and was in ("fine", "new", "accepted", "unconfirmed"):
            before.append(night.canary)
        if was == "accepted" or len(before) == _EARLIER:
            break
    timed = [c for c in before if c.setup == canary.setup]
    same = [c for c in before if c.configuration == canary.configuration]
    status: Status = "fine" if timed else "new"
    texts = []
    if len(timed) >= _FEWEST:
        change = time_change([s for c in timed for s in c.seconds], canary.seconds)
        if change.low > limit:
            status = "slower"
            texts.append(f"trains in {change.b:.1f} s, {change.ratio:.2f} times as long")
    if len(same) >= _FEWEST:
        for name, values in canary.values.items():
            old = [v for c in same for v in c.values.get(name, ())]
            if old:
                apart = dict(enumerate(values, start=len(old)))  # no common seeds: runs of many nights are not paired
                change_of = figure_change(dict(enumerate(old)), apart)
                if change_of.p_value < SHIFT_LEVEL / len(canary.values) and change_of.difference.mean < -_STEP:
                    status = "worse"
                    texts.append(f"{name} {change_of.a:.4f} to {change_of.b:.4f} with the same code and settings")
    return JudgedRow(row=canary.row, data=CANARY, status=status, why="; ".join(texts))


# Series


@dataclass(frozen=True)
class Point:
    """One measurement of a figure: nights that took the same runs are one.

    Attributes:
        first: the night it was first measured in; `last` the last one with the same runs.
        values: by seed.
    """

    first: Night
    last: Night
    values: tuple[float, ...]
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True)
class Shift:
    """A change of a figure's level.

    Attributes:
        index: of the first measurement after it.
        before: mean of the measurements before it, back to the shift before; `after` likewise.
        p_value: corrected for all places at which the series could be cut, and for `tests`.
        commits: the last commit before it and the first after it: what changed lies between them. None where unknown.
    """

    index: int
    before: float
    after: float
    p_value: float
    commits: tuple[str | None, str | None]


def series_of(nights: Iterable[Night]) -> dict[tuple[str, str, str], list[Point]]:
    """Measurements by row, data set and figure, oldest first."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for night in nights:
        for m in night.figures:
            points = found.setdefault((m.row, m.data, m.figure), [])
            values = tuple(m.values.values())
            if points and points[-1].values == values:
                points[-1] = replace(points[-1], last=night, low=m.low, high=m.high)
            else:
                points.append(Point(night, night, values, m.low, m.high))
    return found


def shifts(points: Sequence[Point], tests: int = 1, level: float = SHIFT_LEVEL) -> list[Shift]:
    """Where a figure's level changed, oldest first.

    Args:
        points: oldest first.
        tests: how many series are searched together (Bonferroni).
    """
    spread = _spread(points)
    if spread is None:
        return []
    cuts = sorted(_cuts(points, 0, len(points), *spread, tests, level).items())
    edges = [0, *(at for at, _ in cuts), len(points)]
    means = [_mean(points[a:b]) for a, b in pairwise(edges)]
    return [
        Shift(at, means[i], means[i + 1], p, (points[at - 1].last.commit, points[at].first.commit))
        for i, (at, p) in enumerate(cuts)
    ]


def _mean(points: Sequence[Point]) -> float:
    values = [v for p in points for v in p.values]
    return math.fsum(values) / len(values)


def _spread(points: Sequence[Point]) -> tuple[float, int] | None:
    """Standard deviation of runs within nights, and its degrees of freedom; between neighbouring nights where each has
    one run (von Neumann, 1941); None for fewer than two nights."""
    if len(points) < 2:
        return None
    freedom = sum(len(p.values) - 1 for p in points)
    if freedom:
        squares = math.fsum((v - p.mean) ** 2 for p in points for v in p.values)
    else:
        freedom = len(points) - 1
        squares = math.fsum((b.mean - a.mean) ** 2 for a, b in pairwise(points)) / 2
    return max(math.sqrt(squares / freedom), rounding_sd(_STEP, figures=1)), freedom


def _cuts(
    points: Sequence[Point], start: int, end: int, sd: float, freedom: int, tests: int, level: float
) -> dict[int, float]:
    """Significant cuts of points[start:end], and their p-values."""
    from scipy.stats import t

    sums, counts = [0.0], [0]
    for p in points[start:end]:
        sums.append(sums[-1] + math.fsum(p.values))
        counts.append(counts[-1] + len(p.values))
    best, at = 0.0, None
    for k in range(1, end - start):
        n, m = counts[k], counts[-1] - counts[k]
        statistic = abs(sums[k] / n - (sums[-1] - sums[k]) / m) / (sd * math.sqrt(1 / n + 1 / m))
        if statistic > best:
            best, at = statistic, k
    if at is None:
        return {}
    p_value = min(1.0, 2 * float(t.sf(best, freedom)) * (end - start - 1) * tests)
    if not p_value < level:
        return {}
    middle = start + at
    rest = (sd, freedom, tests, level)
    return {middle: p_value} | _cuts(points, start, middle, *rest) | _cuts(points, middle, end, *rest)
