"""How little sabotage the bounds notice: the harness's own sensitivity, from runs of the negative controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvhw4.controls import CONTROLS, Control
from cvhw4.experiments import Experiment, Profile
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.bounds import Bound, Bounds, Check
from cvhw4.statistics.intervals import estimate

DETECTED = 0.9  # probability from which on a sabotage counts as one that the bounds notice


@dataclass(frozen=True)
class Detection:
    """One control at one strength, held against the bounds of the row it spoils.

    Attributes:
        control: the control.
        strength: how strong.
        n: runs.
        missed: the bounds that its runs missed, worst first.
        figure: the bounded figure that gives it away most surely.
        mean: that figure's mean over the runs.
        bound: its bound.
        probability: that a nightly session (of as many seeds as the bounds are made for) misses that figure's bound,
            from the mean of the runs and the larger of their spread and the calibration's (normal distribution).
    """

    control: Control
    strength: float
    n: int
    missed: tuple[Check, ...]
    figure: str
    mean: float
    bound: Bound
    probability: float

    @property
    def caught(self) -> bool:
        """Whether these runs turned a build red."""
        return bool(self.missed)


def base_of(control: Control, profile: Profile) -> Experiment:
    """The row that a control spoils."""
    return next(row for row in profile.rows if row.row == control.row)


def detect(
    control: Control, strength: float, profile: Profile, records: Sequence[RunRecord], bounds: Bounds
) -> Detection | None:
    """What the bounds make of a control's runs.

    Args:
        records: runs; those of other rows, other strengths and other data than the embedded are passed over.

    Returns:
        None where there are no runs, or no bounds of the row that is spoilt.
    """
    id, base = control.experiment(profile, strength).id, base_of(control, profile).id
    runs = [r for r in records if r.id == id and r.data.embedded]
    figures = bounds.rows.get(base, {})
    if not runs or not figures:
        return None
    missed = [check for run in runs for check in bounds.check(run, base) if not check.met]
    missed.sort(key=lambda check: -abs(check.value - check.bound.mean) / (check.bound.high - check.bound.low))
    chances = {name: _chance([r.figure(name) for r in runs], bound, bounds.seeds) for name, bound in figures.items()}
    surest = max(chances, key=lambda name: chances[name])
    mean = estimate([r.figure(surest) for r in runs]).mean
    return Detection(control, strength, len(runs), tuple(missed), surest, mean, figures[surest], chances[surest])


def detections(profile: Profile, records: Sequence[RunRecord], bounds: Bounds) -> list[Detection]:
    """Every control at every strength that has runs."""
    found = [detect(c, strength, profile, records, bounds) for c in CONTROLS for strength in c.strengths]
    return [d for d in found if d is not None]


def least(found: Sequence[Detection], control: Control) -> float | None:
    """The smallest strength tried from which on, upwards, a nightly session notices with a probability of 0.9."""
    smallest = None
    for d in sorted((d for d in found if d.control.name == control.name), key=lambda d: -d.strength):
        if d.probability < DETECTED:
            break
        smallest = d.strength
    return smallest


def _chance(values: Sequence[float], bound: Bound, seeds: int) -> float:
    """Probability that any of so many runs like these leaves the bound."""
    from scipy.stats import norm

    e = estimate(values)
    sd = max(bound.sd, e.sd) if e.n > 1 else bound.sd
    if sd == 0:
        return float(not bound.low <= e.mean <= bound.high)
    within = norm.cdf((bound.high - e.mean) / sd) - norm.cdf((bound.low - e.mean) / sd)
    return float(1 - within**seeds)
