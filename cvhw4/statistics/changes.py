"""Two stores held against each other: what moved from A to B, and whether by more than seeds do.

Figures are compared by the paired t test over common seeds, or Student's two-sample test where fewer than two are
common, all together at 5 % after Holm's correction; the differences that claims are about likewise, in a family of
their own. Without a change either family has a fall in 2.5 % of comparisons at most, and both together in 5 %. Figures
are known to a step only (`_STEP`, and 1 / images for classification), so their spread is never taken as less than
`rounding_sd` of it.

Few seeds show little. Where one row moved and the others are the same to the bit, a fall of 3 standard deviations of
the differences is found in 3 of 4 comparisons with 3 seeds, and in all with 5. Where all 40 figures moved by chance and
one row by so much, Holm's correction leaves 3 seeds 1 in 20, 5 seeds 2 in 3, 10 seeds all (`tests/test_changes.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import grouped, latest_runs
from cvhw4.statistics.bounds import bounds_of
from cvhw4.statistics.comparison import DECIMALS, LEVEL, holm, moments, rounding_sd
from cvhw4.statistics.intervals import Estimate, t_quantile, two_sided_p
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study
from cvhw4.tasks import TASKS

Kind = Literal["worse", "better", "noise", "same", "single"]
ClaimKind = Literal["lost", "undecided", "correction", "changed", "same", "only A", "only B"]
Held = Literal["held", "lacking", "not finite"]
Place = tuple[str, str]  # row, name of the data set
BySeed = Mapping[int, RunRecord]
_STEP = 1e-4  # what pages show of a figure: less is no difference


@dataclass(frozen=True)
class Change:
    """One figure of one row on one data set, in A and in B.

    Attributes:
        row: its name.
        data: name of the data set.
        figure: its full name, "best accuracy".
        a: mean over A's runs that are compared; `b` likewise.
        runs: how many runs of each side are compared.
        paired: whether the runs are paired by seed.
        difference: B minus A with its 95 % interval, which is infinite where there is nothing to test: one run on each
            side, and runs that are the same to the bit; n is the number of pairs, or of runs of both sides.
        p_value: two-sided t test of difference == 0; NaN where there is nothing to test.
        adjusted_p: corrected for all figures compared (Holm).
        kind: "same" where the runs of common seeds are, to the bit and in all they measured; "noise"; "better" or
            "worse"; "single" for one run each.
    """

    row: str
    data: str
    figure: str
    a: float
    b: float
    runs: tuple[int, int]
    paired: bool
    difference: Estimate
    p_value: float
    adjusted_p: float
    kind: Kind
    lower_is_better: bool = False


@dataclass(frozen=True)
class ClaimChange:
    """A claim's outcome in A and in B, None where it was not judged.

    `kind` is "lost" where it was supported and is contradicted, or undecided or equivalent with a difference that fell
    by more than seeds do: a regression; "undecided" where it was supported and is so no longer, with no such fall;
    "correction" where its own differences are the same, and only what p is corrected for is not; "changed" for any
    other change of verdict.
    """

    claim: str
    data: str
    a: Outcome | None
    b: Outcome | None
    kind: ClaimKind


@dataclass(frozen=True)
class Gap:
    """A figure of one row on one data set that A and B do not both have, so that it is not compared.

    Attributes:
        figure: a metric ("miou") where it is lacking, else the full name ("last miou").
        a: whether all of A's runs have it, or any lacks it, or has one that is not finite; `b` likewise.
    """

    row: str
    data: str
    figure: str
    a: Held
    b: Held


@dataclass(frozen=True)
class TimeChange:
    """Training seconds of a row on one data set with equal settings, device and threads.

    Attributes:
        a: median over A's runs, in seconds; `b` likewise.
        ratio: b / a.
        low: lower end of its interval, which holds for all rows together in 95 %; 0 for one run on each side.
        high: upper end; infinity likewise.
    """

    row: str
    data: str
    a: float
    b: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Origin:
    """What differs between the runs of A and B apart from their figures ("torch", "recipe.lr"), and in which rows."""

    what: str
    a: str
    b: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """All that moved from A to B.

    Attributes:
        figures: rows in the study's order, then others by name.
        failed: runs of the most recent configurations that failed in B, and not in A.
        only_a: rows with runs in A alone; `only_b` likewise.
        gaps: figures that cannot be compared.
        time_limit: ratio of times above which a row is too slow; None where times do not count.
        complete: whether a row or figure that A has and B lacks is a regression.
    """

    figures: Sequence[Change]
    claims: Sequence[ClaimChange]
    times: Sequence[TimeChange]
    failed: Sequence[Failure]
    only_a: Sequence[Place]
    only_b: Sequence[Place]
    origins: Sequence[Origin]
    gaps: Sequence[Gap]
    time_limit: float | None = None
    complete: bool = False

    def of(self, kind: Kind) -> list[Change]:
        """The figures of one kind."""
        return [change for change in self.figures if change.kind == kind]

    def claims_of(self, kind: ClaimKind) -> list[ClaimChange]:
        """The claims of one kind."""
        return [claim for claim in self.claims if claim.kind == kind]

    @property
    def slower(self) -> list[TimeChange]:
        """Rows whose whole interval is above the limit."""
        return [] if self.time_limit is None else [t for t in self.times if t.low > self.time_limit]

    @property
    def regression(self) -> bool:
        """Whether anything is worse."""
        missing = self.complete and (self.only_a or any(gap.a == "held" for gap in self.gaps))
        return bool(self.of("worse") or self.claims_of("lost") or self.failed or self.slower or missing)


def compare_runs(
    study: Study,
    a: Iterable[RunRecord],
    b: Iterable[RunRecord],
    failures_a: Iterable[Failure] = (),
    failures_b: Iterable[Failure] = (),
    time_limit: float | None = None,
    complete: bool = False,
) -> Changes:
    """Holds the most recent runs of every row in B against those in A, on data of the same name.

    Negative controls are passed over.

    Args:
        study: whose claims are judged, and whose rows come first.
        failures_a: runs of A's most recent configurations that failed; `failures_b` likewise.
        time_limit: as `Changes` has it; `complete` likewise.
    """
    controls = {row.name for row in study.corrupted}
    a, b = ([r for r in latest_runs(records, study) if r.row not in controls] for records in (a, b))
    runs_a, runs_b = _by_place(a), _by_place(b)
    order = {row: i for i, row in enumerate(study.rows)}
    places = sorted(runs_a.keys() | runs_b.keys(), key=lambda p: (order.get(p[0], len(order)), p))
    pairs = {p: (runs_a[p], runs_b[p]) for p in places if p in runs_a and p in runs_b}
    untouched = {p for p, sides in pairs.items() if _untouched(*sides)}
    before = {(f.row, f.data, f.seed) for f in failures_a}
    return Changes(
        figures=judge_figures([c for p, sides in pairs.items() for c in _figures(p, *sides, p in untouched)]),
        claims=_claims(study, a, b, untouched),
        times=_times(pairs),
        failed=[f for f in failures_b if f.row not in controls and (f.row, f.data, f.seed) not in before],
        only_a=[p for p in places if p not in runs_b],
        only_b=[p for p in places if p not in runs_a],
        origins=_origins(pairs),
        gaps=[gap for p, sides in pairs.items() for gap in _gaps(p, *sides)],
        time_limit=time_limit,
        complete=complete,
    )


def _by_place(records: Iterable[RunRecord]) -> dict[Place, dict[int, RunRecord]]:
    """Runs by row and data set, and by seed."""
    return {p: {r.seed: r for r in of} for p, of in grouped(records, lambda r: (r.row, r.data.name)).items()}


# Figures


def _figures(place: Place, a: BySeed, b: BySeed, untouched: bool) -> list[Change]:
    """What runs of one row have in common to compare, not yet corrected for other figures."""
    runs = [*a.values(), *b.values()]
    changes = []
    for figure in _names(runs):
        if _held(a, figure) == _held(b, figure) == "held":
            of_a, of_b = ({s: r.figure(figure) for s, r in side.items()} for side in (a, b))
            lower = any(figure.split(" ", 1)[1] in r.lower_is_better for r in runs)
            step = known_to(runs, [*of_a.values(), *of_b.values()])
            change = figure_change(of_a, of_b, step, place, figure, untouched)
            changes.append(replace(change, lower_is_better=lower))
    return changes


def known_to(runs: Iterable[RunRecord], values: Iterable[float]) -> float:
    """The step that a figure of a row's runs is known to: of shares of images one image, of others what pages show, and
    of those that are too small for that a thousandth."""
    images = [1 / r.data.val for r in runs if TASKS[r.task].in_images]
    return max(_STEP, *images) if images else small_step(values)


def small_step(values: Iterable[float]) -> float:
    """What pages show of figures; of smaller ones a thousandth of the largest."""
    return min(_STEP, 1e-3 * max(map(abs, values), default=0.0) or _STEP)


def _gaps(place: Place, a: BySeed, b: BySeed) -> list[Gap]:
    """The figures of a row that not all runs have, or that are not finite."""
    gaps: dict[Gap, None] = {}
    for figure in _names([*a.values(), *b.values()]):
        held = _held(a, figure), _held(b, figure)
        if held != ("held", "held"):
            gaps[Gap(*place, figure.split(" ", 1)[1] if "lacking" in held else figure, *held)] = None
    return list(gaps)


def _names(runs: Sequence[RunRecord]) -> list[str]:
    """Best and last of every metric that a run has, in order."""
    metrics = dict.fromkeys(m for r in runs for m in r.metrics)
    return [f"{which} {m}" for m in metrics for which in ("best", "last")]


def _held(side: BySeed, figure: str) -> Held:
    if not all(figure.split(" ", 1)[1] in r.epochs[0].figures for r in side.values()):
        return "lacking"
    return "held" if all(math.isfinite(r.figure(figure)) for r in side.values()) else "not finite"


def _untouched(a: BySeed, b: BySeed) -> bool:
    """Whether there are common seeds, with runs that are the same to the bit in all they measured, but for times."""

    def measured(record: RunRecord) -> str:
        """As text, in which NaN equals NaN."""
        return repr([(epoch.loss, sorted(epoch.figures.items())) for epoch in record.epochs])

    seeds = a.keys() & b.keys()
    return bool(seeds) and all(measured(a[s]) == measured(b[s]) for s in seeds)


def figure_change(
    a: Mapping[int, float],
    b: Mapping[int, float],
    step: float = _STEP,
    place: Place = ("", ""),
    figure: str = "",
    untouched: bool = False,
) -> Change:
    """Compares one figure, by seed, not yet corrected for other figures: `judge_figures` is for that.

    Args:
        step: what the figure is known to.
        untouched: the runs of common seeds are the same to the bit, which equal figures alone do not say.
    """
    seeds = sorted(a.keys() & b.keys())
    paired = len(seeds) > 1 or untouched or a.keys() == b.keys()
    xs, ys = ([side[s] for s in (seeds if paired else sorted(side))] for side in (a, b))
    mean_a, mean_b = (math.fsum(values) / len(values) for values in (xs, ys))
    mean = round(mean_b - mean_a, DECIMALS)
    if paired:
        n, freedom = len(seeds), len(seeds) - 1
        sd = float(moments([y - x for x, y in zip(xs, ys, strict=True)], rounding_sd(step))[1])
        error = sd / math.sqrt(n)
    else:
        n, freedom = len(xs) + len(ys), len(xs) + len(ys) - 2
        sd = _pooled_sd(xs, ys, rounding_sd(step, figures=1))
        error = sd * math.sqrt(1 / len(xs) + 1 / len(ys))
    low, high, p = -math.inf, math.inf, math.nan
    if freedom and not untouched:
        half = t_quantile(0.975, freedom) * error
        low, high, p = mean - half, mean + half, two_sided_p(mean / error, freedom)
    difference = Estimate(n, mean, sd if freedom else math.nan, low, high)
    kind: Kind = "same" if untouched else "noise" if freedom else "single"
    return Change(*place, figure, mean_a, mean_b, (len(xs), len(ys)), paired, difference, p, math.nan, kind)


def _pooled_sd(xs: Sequence[float], ys: Sequence[float], floor: float) -> float:
    """Standard deviation within two samples, together; NaN for one value each."""
    freedom = len(xs) + len(ys) - 2
    if freedom == 0:
        return math.nan
    squares = sum((len(v) - 1) * float(moments(v)[1]) ** 2 for v in (xs, ys) if len(v) > 1)
    return max(math.sqrt(squares / freedom), floor)


def judge_figures(changes: Sequence[Change]) -> list[Change]:
    """The figures with their p-values corrected for each other (Holm), and their kinds."""

    def kind(change: Change, adjusted_p: float) -> Kind:
        if change.kind != "noise" or not adjusted_p < LEVEL:
            return change.kind
        return "better" if (change.difference.mean > 0) != change.lower_is_better else "worse"

    adjusted = holm([c.p_value for c in changes]).tolist()
    return [replace(c, adjusted_p=p, kind=kind(c, p)) for c, p in zip(changes, adjusted, strict=True)]


# Claims


def _claims(
    study: Study, a: Sequence[RunRecord], b: Sequence[RunRecord], untouched: Container[Place]
) -> list[ClaimChange]:
    """Every claim that either side can say something of.

    Args:
        untouched: rows whose runs are the same to the bit.
    """
    bounds = bounds_of(study)
    of_a, of_b = ({(o.claim.id, o.data): o for o in judge_all(study, runs, bounds=bounds)} for runs in (a, b))
    moves = []
    for place in (p for p in of_a if p in of_b):
        before, after = of_a[place], of_b[place]
        known = max(before.resolution, after.resolution) or small_step([*before.differences, *after.differences])
        step = known * math.sqrt(len(before.claim.rows))  # of so many figures
        same = all((row, place[1]) in untouched for row in before.claim.rows)
        x, y = (dict(zip(o.seeds, o.differences, strict=True)) for o in (before, after))
        moves.append(figure_change(x, y, step, place, untouched=same))
    fell = {(c.row, c.data) for c in judge_figures(moves) if c.kind == "worse"}
    changes = []
    for place in dict.fromkeys([*of_a, *of_b]):
        old, new = of_a.get(place), of_b.get(place)
        kind: ClaimKind = "changed"
        if old is None or new is None:
            kind = "only B" if old is None else "only A"
        elif old.verdict == new.verdict:
            kind = "same"
        elif old.differences == new.differences:
            kind = "correction"
        elif old.verdict == "supported":
            lost = new.verdict == "contradicted" or place in fell
            kind = "lost" if lost else "undecided" if new.verdict == "undecided" else "changed"
        changes.append(ClaimChange(place[0], place[1], old, new, kind))
    return changes


# Times


def _times(pairs: Mapping[Place, tuple[BySeed, BySeed]]) -> list[TimeChange]:
    """Ratios of the rows whose times can be compared."""
    alike = {}
    for place, sides in pairs.items():
        runs = [r for side in sides for r in side.values()]
        machines = {(r.environment["device_name"], str(r.environment["threads"]), as_text(r.settings)) for r in runs}
        if len(machines) == 1 and all(r.times.train_seconds > 0 for r in runs):
            alike[place] = [[r.times.train_seconds for r in side.values()] for side in sides]
    return [time_change(a, b, len(alike), place) for place, (a, b) in alike.items()]


def time_change(a: Sequence[float], b: Sequence[float], rows: int = 1, place: Place = ("", "")) -> TimeChange:
    """Ratio of medians with an interval: Student's t on logarithms, spread pooled, and the error of a median taken as
    sqrt(pi / 2) times that of a mean, as for many runs (for few it is less).

    Args:
        a: seconds, above 0.
        rows: how many ratios the interval has to hold for together (Bonferroni).
    """
    before, after = median(a), median(b)
    freedom, half = len(a) + len(b) - 2, math.inf
    if freedom:
        sd = _pooled_sd([math.log(s) for s in a], [math.log(s) for s in b], 0.0)
        error = sd * math.sqrt(math.pi / 2 * (1 / len(a) + 1 / len(b)))
        half = t_quantile(1 - LEVEL / (2 * rows), freedom) * error
    ratio = after / before
    low, high = (math.exp(min(math.log(ratio) + sign * half, 700.0)) for sign in (-1, 1))
    return TimeChange(*place, before, after, ratio, low, high if freedom else math.inf)


# Origins


def _origins(pairs: Mapping[Place, tuple[BySeed, BySeed]]) -> list[Origin]:
    """What differs, rows with the same difference together."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for (row, _), (a, b) in pairs.items():
        sides = [list(side.values()) for side in (a, b)]
        same = sides[0][0].configuration == sides[1][0].configuration
        views = [[_origin(r) for r in side] for side in sides]
        explained = False
        for what in dict.fromkeys(name for side in views for view in side for name in view):
            before, after = (", ".join(sorted({view.get(what, "-") for view in side})) for side in views)
            if before != after:
                found.setdefault((what, before, after), {})[row] = None
                explained = True
        if same:  # but for threads
            continue
        before, after = (", ".join(sorted({str(r.environment["commit"] or "unknown") for r in side})) for side in sides)
        if before != after or not explained:
            found.setdefault(("code", before, after), {})[row] = None
    return [Origin(*key, rows=tuple(rows)) for key, rows in found.items()]


def _origin(record: RunRecord) -> dict[str, str]:
    """What decided a run's figures, but for the code."""
    data = {"data": record.data.fingerprint[:8]}
    weights = {"weights": f"{record.weights.origin} {(record.weights.sha256 or '')[:8]}".strip()}
    rest = flat(record.settings) | {k: v for k, v in record.environment.items() if k not in ("commit", "code")}
    return data | weights | {name: as_text(value) for name, value in rest.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def as_text(value: Any) -> str:
    """A plain JSON value as text; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
