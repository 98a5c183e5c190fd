"""The bounds that a build checks: where they come from, and whether a run meets them.

A bound is the prediction interval of one further run, from n runs of the same row with different seeds (Student's t).
Its share of false alarms is what is allowed for a whole session, divided by the number of bounds in it (Bonferroni).
Bounds are written by `cvhw4 calibrate`, never by hand, and hold for the embedded data alone.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.experiments import Profile
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.intervals import estimate, prediction_half_width, t_quantile
from cvhw4.statistics.verdicts import Outcome, claims_of, judge

FALSE_ALARMS = 0.01  # per session of 3 seeds, all bounds together
SESSION_SEEDS = 3
FEWEST_RUNS = 5
FIGURES = {
    "q1": ("best accuracy", "last accuracy"),
    "q2": ("best miou", "last miou", "best pixel_accuracy", "last set_miou"),
}


@dataclass(frozen=True)
class Bound:
    """Limits of one figure, and the runs they come from.

    Attributes:
        low: lower limit for one run.
        high: upper limit for one run.
        mean: mean of the runs it was calibrated on.
        sd: their standard deviation.
        n: their number.
    """

    low: float
    high: float
    mean: float
    sd: float
    n: int

    def promises(self, margin: float, k: int) -> bool:
        """Whether the mean of k further runs must exceed a margin: going by these, it misses it once in 100 times."""
        reach = t_quantile(0.99, self.n - 1) * self.sd * math.sqrt(1 / k + 1 / self.n)
        return self.mean - reach > margin

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
        return self.bound.low <= self.value <= self.bound.high

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
    """The bounds of one profile.

    Attributes:
        rows: bounds by row id and figure.
        claims: bounds of a claim's difference, by claim id.
        source: when and on what they were calibrated.
    """

    rows: Mapping[str, Mapping[str, Bound]]
    claims: Mapping[str, Bound]
    source: str

    def check(self, record: RunRecord) -> list[Check]:
        """Every bounded figure of a run; empty where the bounds do not apply (other data, or a row without bounds)."""
        if not record.data.embedded:
            return []
        bounds = self.rows.get(record.id, {})
        return [Check(name, record.figure(name), bound, self.source) for name, bound in bounds.items()]

    def promises(self, outcome: Outcome) -> bool:
        """Whether the claim must hold in the mean over as many seeds, going by the calibration."""
        bound = self.claims.get(outcome.claim.id)
        if bound is None or not outcome.embedded:
            return False
        return bound.promises(outcome.claim.margin, outcome.difference.n)

    def check_claim(self, outcome: Outcome) -> Check | None:
        """A claim's difference; None where the bounds do not apply."""
        bound = self.claims.get(outcome.claim.id)
        if bound is None or not outcome.embedded:
            return None
        name = f"mean difference in {outcome.claim.metric} over {outcome.difference.n} seeds"
        return Check(name, outcome.difference.mean, bound.for_mean_of(outcome.difference.n), self.source)


NO_BOUNDS = Bounds({}, {}, "")


def load_bounds(path: Path, profile: str) -> Bounds:
    """Reads a bounds file; a profile that it does not have gets no bounds.

    Raises:
        InputError: the file is missing, is not TOML or is not what `cvhw4 calibrate` writes.
    """
    try:
        with path.open("rb") as file:
            whole = tomllib.load(file)
        part = whole.get(profile, {"source": "", "rows": {}, "claims": {}})
        rows = {row: {name: Bound(**b) for name, b in figures.items()} for row, figures in part["rows"].items()}
        return Bounds(rows, {claim: Bound(**b) for claim, b in part["claims"].items()}, part["source"])
    except FileNotFoundError as error:
        raise InputError(path, "does not exist", "name a bounds file with --bounds, or run cvhw4 calibrate") from error
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(path, f"is no bounds file ({error})", "run cvhw4 calibrate to write it anew") from error


def calibrate(profile: Profile, records: Sequence[RunRecord]) -> Bounds:
    """Bounds from stored runs on embedded data, of every row of the profile and every claim between them.

    Raises:
        InputError: a row has fewer than five runs.
    """
    by_row: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.data.embedded:
            by_row.setdefault(record.id, []).append(record)
    for experiment in profile.rows:
        runs = len(by_row.get(experiment.id, []))
        if runs < FEWEST_RUNS:
            mend = f"run pytest benchmarks --profile {profile.name} --seeds {FEWEST_RUNS} or more"
            raise InputError(experiment.id, f"has {runs} runs on embedded data, too few to calibrate a bound", mend)
    claims = [claim for claim in claims_of(profile) if claim.worse is not None]
    figures = {experiment.id: FIGURES[experiment.question] for experiment in profile.rows}
    error = FALSE_ALARMS / (SESSION_SEEDS * sum(map(len, figures.values())) + len(claims))
    rows = {
        id: {
            name: _bound([r.figure(name) for r in by_row[id]], _resolution(name, by_row[id][0]), error)
            for name in names
        }
        for id, names in figures.items()
    }
    differences = {}
    for claim in claims:
        compared = [r for of_row in by_row.values() for r in of_row if r.row in claim.rows]
        seeds = sorted({r.seed for r in compared})
        outcomes = [judge(claim, [r for r in compared if r.seed == seed]) for seed in seeds]
        values = [outcome.difference.mean for outcome in outcomes if outcome is not None]
        differences[claim.id] = _bound(values, _resolution(claim.metric, compared[0]), error)
    return Bounds(rows, differences, _source(by_row))


def _resolution(figure: str, record: RunRecord) -> float:
    """The least by which a figure can differ for reasons that are not the row's: one image, or a thousandth of IoU."""
    return 1 / record.data.val if figure.endswith(" accuracy") or figure == "accuracy" else 0.001


def _bound(values: Sequence[float], resolution: float, error: float) -> Bound:
    """The prediction interval; a spread below the figure's own resolution is taken as that."""
    e = estimate(values)
    half = prediction_half_width(max(e.sd, resolution), e.n, error)
    low, high, mean, sd = (round(x, 4) for x in (e.mean - half, e.mean + half, e.mean, e.sd))
    return Bound(low, high, mean, sd, e.n)


def _source(by_row: Mapping[str, Sequence[RunRecord]]) -> str:
    records = [r for runs in by_row.values() for r in runs]
    days = sorted({r.started[:10] for r in records})
    devices = sorted({r.environment["device"] for r in records})
    torch = sorted({str(r.environment["torch"]) for r in records})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"calibrated {span} on {', '.join(devices)}, torch {', '.join(torch)}"


def to_toml(profile: str, bounds: Bounds) -> str:
    """The bounds as the file that `load_bounds` reads."""
    error = f"{FALSE_ALARMS:.0%} of sessions with {SESSION_SEEDS} seeds"
    lines = [
        "# Written by `cvhw4 calibrate`; not to be edited by hand.",
        "# low and high: the prediction interval of one further run (Student's t, two sides) from n runs with other",
        f"# seeds, so wide that all bounds together raise a false alarm in {error}.",
        "# For the embedded data alone.",
        "",
        f"[{profile}]",
        f'source = "{bounds.source}"',
    ]
    for id, figures in bounds.rows.items():
        lines += ["", f"[{profile}.rows.{id}]", *(f'"{name}" = {_inline(b)}' for name, b in figures.items())]
    lines += [
        "",
        "# Differences of best figures, paired by seed, for one seed; of k seeds the mean is judged, more narrowly.",
    ]
    lines += [f"[{profile}.claims]", *(f"{id} = {_inline(b)}" for id, b in bounds.claims.items())]
    return "\n".join(lines) + "\n"


def _inline(b: Bound) -> str:
    return f"{{ low = {b.low:.4f}, high = {b.high:.4f}, mean = {b.mean:.4f}, sd = {b.sd:.4f}, n = {b.n} }}"


def failed(checks: Iterable[Check]) -> list[str]:
    """The messages of the checks that are not met."""
    return [str(check) for check in checks if not check.met]
