"""How little corruption the bounds detect: the sensitivity of the harness, from runs of the negative controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvhw4.records.schema import RunRecord
from cvhw4.statistics.bounds import Bound, Bounds, Twin, with_figure
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.scales import SCALES
from cvhw4.study import Control, Study

DETECTED = 0.9  # probability from which on a corruption counts as one that the bounds detect
_MEANS, _SPREADS = 400, 100  # slices that an integral is taken over


@dataclass(frozen=True)
class Detection:
    """One control at one strength, held against the bounds of the row it corrupts.

    The chance that the mean of a nightly session misses a bound follows from the figure's true mean and spread in
    corrupted runs, on its scale, which n runs show only roughly. The spread is pooled from these runs and the
    calibration's, as if corruption left it as it is, s**2 = ((n - 1) s_runs**2 + (m - 1) s_calibration**2) / f with
    f = n + m - 2 degrees of freedom (m - 1 for one run); then f s**2 / sigma**2 is chi-squared and the true mean normal
    about the one seen with sigma / sqrt(n). That is the distribution behind Student's t prediction interval (Geisser
    1993), and the posterior of Jeffreys' prior. `probability` is the mean of the chance over it. Where the row has
    twins, the same is done with each run's distance from the calibrated run of its seed, whose spread nothing is pooled
    with: a session notices if any of its runs is farther off than twins may be.

    Attributes:
        control: the control.
        strength: how strong.
        n: runs.
        missed: what its runs missed, in words.
        figure: the figure that gives it away most surely, by `probability`.
        mean: that figure's mean over the runs.
        bound: its bound, for the mean of a nightly session's runs; or the row's twins, where that tells more surely.
        probability: that a session misses it. Choosing the figure flatters the chance; that other figures, or single
            runs of a bound, may miss theirs as well, it leaves out.
        low: lower end of the 95 % interval of the same chance, at the level 5 % / figures chosen from (Bonferroni), so
            that it holds for the figure chosen.
    """

    control: Control
    strength: float
    n: int
    missed: tuple[str, ...]
    figure: str
    mean: float
    bound: Bound | Twin
    probability: float
    low: float


def detect(
    control: Control, strength: float, study: Study, records: Sequence[RunRecord], bounds: Bounds
) -> Detection | None:
    """What the bounds make of a control's runs.

    Args:
        records: runs; those of other rows, other strengths and data that the bounds are not for are passed over.

    Returns:
        None where there are no runs, or no bounds of the row that is corrupted.
    """
    name = control.of(study, strength).name
    runs = [r for r in records if r.row == name and bounds.apply_to(r.data.fingerprint)]
    figures = {f: b for f, b in bounds.rows.get(control.row, {}).items() if with_figure(runs, f) == runs}
    if not runs or not figures:
        return None
    aside = bounds.aside(*runs, row=control.row)
    learned = [r for r in runs if r not in aside] or runs
    apart: dict[str, list[float]] = {}
    twins = dict[str, Twin]()
    for r, figure, twin in bounds.paired(runs, control.row):
        apart.setdefault(figure, []).append(r.figure(figure) - twin.values[r.seed])
        twins[figure] = twin
    level = 0.05 / (len(figures) + len(twins))
    found: list[tuple[tuple[float, float], str, Bound | Twin]] = [
        (chance([r.figure(figure) for r in learned], bound, level), figure, bound) for figure, bound in figures.items()
    ]
    found += [
        (chance_of_pairs(apart[figure], max(map(twin.room, twin.values)), bounds.seeds, level), figure, twin)
        for figure, twin in twins.items()
        if len(apart[figure]) > 1
    ]
    chances, figure, surest = max(found, key=lambda each: each[0])
    values = [r.figure(figure) for r in runs]
    mean = surest.mean_of(values) if isinstance(surest, Bound) else estimate(values).mean
    missed = tuple(bounds.missed(*runs, row=control.row))
    return Detection(control, strength, len(runs), missed, figure, mean, surest, *chances)


def detections(study: Study, records: Sequence[RunRecord], bounds: Bounds) -> list[Detection]:
    """Every control at every strength that has runs."""
    found = [detect(c, strength, study, records, bounds) for c in study.controls for strength in c.strengths]
    return [d for d in found if d is not None]


def least(found: Sequence[Detection], control: Control) -> float | None:
    """The smallest strength tried from which on, upwards, a nightly session detects it with a probability of 0.9."""

    def size(d: Detection) -> float:
        return abs(math.log(d.strength)) if control.lr else d.strength

    smallest = None
    for d in sorted((d for d in found if d.control.name == control.name), key=size, reverse=True):
        if d.probability < DETECTED:
            break
        smallest = d.strength
    return smallest


def chance(values: Sequence[float], bound: Bound, level: float = 0.05) -> tuple[float, float]:
    """How surely the mean of further runs like these leaves its bound.

    Args:
        values: [n] figures of corrupted runs.
        bound: of the mean of `bound.runs` runs; its own spread and number of runs are pooled with theirs (see
            `Detection`).
        level: two-sided, of the interval of the chance.

    Returns:
        The chance expected (predictive), and the lower end of its interval: its level / 2 quantile over the true means
        and spreads that the runs leave possible.
    """
    to = SCALES[bound.scale].to
    e = estimate([float(to(value)) for value in values])
    squares = (bound.n - 1) * bound.sd**2 + (e.n - 1) * (e.sd**2 if e.n > 1 else 0.0)
    apart, freedom = e.mean - float(to(bound.mean)), bound.n - 1 + e.n - 1
    return _chance(apart, e.n, squares, freedom, bound.half_width, level, of=bound.runs)


def chance_of_pairs(apart: Sequence[float], tolerance: float, runs: int, level: float = 0.05) -> tuple[float, float]:
    """How surely any of so many further runs is farther from the calibrated run of its seed than the tolerance.

    Args:
        apart: [n], two or more: how far these runs are from theirs; `level`, and what is returned, as of `chance`.
    """
    e = estimate(apart)
    return _chance(e.mean, e.n, (e.n - 1) * e.sd**2, e.n - 1, tolerance, level, times=runs)


def _chance(
    mean: float, n: int, squares: float, freedom: int, half: float, level: float, of: int = 1, times: int = 1
) -> tuple[float, float]:
    """How surely any of so many means, each `of` runs, is farther than `half` from 0, where n runs have that mean.

    Over [_MEANS, _SPREADS] true means and spreads that these runs leave possible, the middles of equally likely slices.
    """
    from scipy.special import chdtri, ndtr, ndtri

    if squares == 0:
        certain = float(abs(mean) > half)
        return certain, certain
    spreads = np.sqrt(squares / chdtri(freedom, (np.arange(_SPREADS) + 0.5) / _SPREADS))
    means = mean + ndtri((np.arange(_MEANS) + 0.5) / _MEANS)[:, None] * spreads / math.sqrt(n)
    of_means = spreads / math.sqrt(of)
    missed = 1 - (ndtr((half - means) / of_means) - ndtr((-half - means) / of_means)) ** times
    return float(missed.mean()), float(np.quantile(missed, level / 2))


def found_shift(bound: Bound, probability: float = DETECTED) -> float:
    """The smallest shift of a figure's mean that the mean of a session's runs shows with that probability, in standard
    deviations of runs on the figure's scale; the spread seen taken as the true one."""
    from scipy.special import ndtri

    return bound.half_width / bound.sd + float(ndtri(probability)) / math.sqrt(bound.runs) if bound.sd else math.inf
