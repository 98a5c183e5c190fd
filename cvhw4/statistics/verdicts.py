"""Claims held against runs.

One rule, fixed before anything is trained, says which epoch of a run counts (`Study.epoch`), the last one unless the
study says otherwise; what the other rule would say stands beside it. The claims about one data set are a family, whose
verdicts together are wrong in 5 % of studies at most (Holm); a control is judged by itself. "Equivalent" is a family of
its own: verdicts of difference and of equivalence are wrong in 5 % each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.records.store import grouped
from cvhw4.statistics.comparison import Comparison, compare, holm, step_of, verdict_of
from cvhw4.statistics.images import Combined, ImageNoise, combine, image_noise, squared_error
from cvhw4.statistics.intervals import OTHER_PICTURES, Estimate, Verdict
from cvhw4.study import Claim, EpochRule, Metric, Study

if TYPE_CHECKING:
    from cvhw4.statistics.bounds import Bounds

_CALLS = 2000  # at most, of a study's own metric, which may take milliseconds, to resample images
ReadImages = Callable[[RunRecord], ImageResults | None]


@dataclass(frozen=True)
class Outcome:
    """What the runs say of a claim.

    Attributes:
        claim: the claim.
        comparison: figure of the better row minus the worse row's, paired by seed, over the seeds; the figure itself
            where the claim compares with no row.
        seeds: the seeds compared.
        differences: of each seed.
        epoch: whose figures these are.
        adjusted_p: p-value of the difference, corrected for all claims that were judged together (Holm).
        equivalent_p: p-value of equivalence, likewise.
        together: how many claims were judged together; 1 for a control.
        data: name of the data set.
        fingerprint: of that data, by which bounds know it.
        collapsed: how many of the seeds' runs failed to train (`RunRecord.collapsed`), by row; rows without are left
            out.
        other_epoch: what the other rule says, where both were looked at.
        trained: what is said by the seeds left when those are taken out of which a run collapsed or the bounds set one
            aside; None where there were no such seeds, or none is left.
        noise: what other validation images would change; None where images were not looked at, or are not stored, and
            where each seed drew its own, so that the spread over seeds has it.
        redrawn: whether each seed drew its own pictures.
        resolution: the steps that the figure comes in: an image's for classification, of a training loop of the
            study's own the decimals that it was rounded to; 0 for what has none.
        calibrated: how many calibrated differences of other seeds count in the spread, see `comparison.spread`.
        runs: the runs compared, by row.
        share: whether the figure lies between 0 and 1.
    """

    claim: Claim
    comparison: Comparison
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    epoch: EpochRule
    adjusted_p: float
    equivalent_p: float
    data: str
    fingerprint: str
    together: int = 1
    collapsed: Mapping[str, int] = field(default_factory=dict)
    other_epoch: Outcome | None = None
    trained: Outcome | None = None
    noise: ImageNoise | None = None
    redrawn: bool = False
    resolution: float = 0.0
    calibrated: int = 0
    runs: Mapping[str, Sequence[RunRecord]] = field(default_factory=dict, compare=False)
    share: bool = False

    def __repr__(self) -> str:
        """What a failed assertion shows: the difference, its interval, p and the number of seeds."""
        d = self.difference
        mean = f"{d.mean:{'+' if self.claim.worse else ''}.3f}"
        width = f" [{d.low:.3f}, {d.high:.3f}], p {self.adjusted_p:.2g}" if d.n > 1 else ""
        return f"<{self.claim.id}: {self.verdict}, {mean}{width}, {d.n} seed{'s' * (d.n > 1)}>"

    @property
    def difference(self) -> Estimate:
        """The difference over seeds."""
        return self.comparison.difference

    @property
    def verdict(self) -> Verdict:
        """Whether it holds with other seeds, on these pictures, or on others where each seed drew its own; never
        "equivalent" where a row never trained, as what failed says nothing of what it would have learned."""
        classes = {frozenset(r.data.classes) for of_row in self.runs.values() for r in of_row}
        if self.claim.classes and classes - {frozenset(), frozenset(self.claim.classes)}:
            return OTHER_PICTURES  # of pictures whose classes it is not about this says nothing
        found = verdict_of(self.comparison, self.adjusted_p, self.equivalent_p)
        return "undecided" if found == "equivalent" and self.never_trained else found

    @property
    def never_trained(self) -> tuple[str, ...]:
        """The rows of which every run failed to train."""
        return tuple(row for row, failed in self.collapsed.items() if failed == len(self.seeds))

    @property
    def with_other_images(self) -> Combined | None:
        """The difference with both sources of noise: other seeds, and other validation images of the same kind."""
        if self.noise is None or self.noise.images < 2:
            return None
        mean, sd, n = self.difference.mean, self.comparison.sd, self.difference.n
        images = squared_error(sd, n, self.noise) - sd**2 / n if n > 1 else self.noise.mean_variance
        c = self.comparison
        return combine(mean, sd, n, images, self.noise.images / self.noise.block - 1, c.freedom, c.skewness)


def judge(
    claim: Claim,
    records: Iterable[RunRecord],
    study: Study,
    read_images: ReadImages | None = None,
    epoch: EpochRule | None = None,
    trained: bool = False,
    bounds: Bounds | None = None,
) -> Outcome | None:
    """Compares the claim's rows, seed by seed, or its row with its margin; by itself, corrected for no other claim.

    Args:
        records: runs, at most one per row and seed of the claim's rows; others are passed over, and so are those from
            before the study had the metric, or its row this kind of task.
        study: whose claim it is.
        read_images: gives what a run made of every validation image, for `noise`.
        epoch: whose figures are compared; the study's rule where it is left out.
        trained: whether seeds are left out of which a run collapsed, or the bounds set one aside.
        bounds: what a calibration knows of the spread over seeds, and of runs that learned far less than others.

    Returns:
        None where no seed has all rows, where a figure is not finite (a mean without it would be another claim), or
        where the claim is about a figure itself and the data are generated, which say nothing of that.

    Raises:
        ValueError: the rows were run on different data.
    """
    runs: dict[str, dict[int, RunRecord]] = {row: {} for row in claim.rows}
    for record in records:
        known = record.row in runs and record.task == study.rows[record.row].task.name
        if known and claim.metric in record.epochs[-1].figures:
            runs[record.row][record.seed] = record
    seeds = sorted(set.intersection(*(set(of_row) for of_row in runs.values())))
    collapsed = {row: {s for s in seeds if of_row[s].collapsed} for row, of_row in runs.items()}
    if trained:
        aside = (bounds.aside(*of_row.values(), row=row) for row, of_row in runs.items()) if bounds else ()
        seeds = sorted(set(seeds).difference(*collapsed.values(), *({r.seed for r in of_row} for of_row in aside)))
    if not seeds:
        return None
    epoch = epoch or study.epoch
    used = {of_row[s].data.fingerprint: of_row[s].data for s in seeds for of_row in runs.values()}
    if len(used) > 1:
        names = ", ".join(d.name for d in used.values())
        raise ValueError(f"{claim.id} compares runs on different data ({names})")
    (data,) = used.values()
    if claim.worse is None and data.embedded:
        return None
    metric = f"{epoch} {claim.metric}"
    better, worse = (_figures(side, runs, seeds, metric) for side in claim.sides)
    if worse and claim.metric in runs[claim.rows[0]][seeds[0]].lower_is_better:
        better, worse = worse, better
    if not np.isfinite([*better, *worse]).all():
        return None
    if study.train is not None:  # only the figures tell
        resolution = step_of(runs[row][s].figure(metric) for row in claim.rows for s in seeds)
    else:  # of a metric of the study's own this is about what one image makes
        resolution = 1 / data.val if study.rows[claim.rows[0]].task.in_images else 0.0
    figures = len(claim.rows)
    compared = {row: [of_row[s] for s in seeds] for row, of_row in runs.items()}
    all_runs = [r for of_row in compared.values() for r in of_row]
    others = bounds.known(claim, all_runs, epoch, trained) if bounds else ()
    comparison = compare(better, worse or None, claim.margin, resolution, claim.smallest, figures, others)
    noise = None
    if read_images is not None and not data.redrawn:
        noise = _noise(claim, runs, seeds, read_images, epoch, study.metrics.get(claim.metric))
    differences = tuple(b - w for b, w in zip(better, worse or [0.0] * len(better), strict=True))
    return Outcome(
        claim=claim,
        comparison=comparison,
        seeds=tuple(seeds),
        differences=differences,
        epoch=epoch,
        adjusted_p=comparison.p_value,
        equivalent_p=comparison.equivalence_p,
        data=data.name,
        fingerprint=data.fingerprint,
        collapsed={row: len(of_row) for row, of_row in collapsed.items() if of_row and not trained},
        noise=noise,
        redrawn=data.redrawn,
        resolution=resolution,
        calibrated=len(others) * (comparison.freedom >= len(seeds)),
        runs=compared,
        share=study.is_share(claim.metric, claim.rows[0]),
    )


def _figures(
    side: Sequence[str], runs: Mapping[str, Mapping[int, RunRecord]], seeds: Sequence[int], figure: str
) -> list[float]:
    """A figure of a row ("last miou"), or the difference of two rows', by seed; of no row nothing."""
    of_rows = [[runs[row][s].figure(figure) for s in seeds] for row in side]
    if len(of_rows) == 2:
        return [a - b for a, b in zip(*of_rows, strict=True)]
    return of_rows[0] if of_rows else []


def _noise(
    claim: Claim,
    runs: Mapping[str, Mapping[int, RunRecord]],
    seeds: Sequence[int],
    read: ReadImages,
    epoch: EpochRule,
    metric: Metric | None,
) -> ImageNoise | None:
    """What other images would change; None where a run's results by image, or the scores that the study's own metric
    is of, are not stored, or it has no figure on some of the images drawn."""
    arms: list[tuple[int, list[tuple[ImageResults, int]]]] = []
    for sign, side in zip((1, -1), claim.sides, strict=True):
        for row, inner in zip(side, (1, -1), strict=False):
            pairs = [(read(runs[row][s]), runs[row][s].epoch_of(f"{epoch} {claim.metric}")) for s in seeds]
            whole = [(results, epoch) for results, epoch in pairs if results is not None]
            if len(whole) < len(pairs):
                return None
            arms.append((sign * inner, whole))
    rng = np.random.default_rng(0)
    if metric is None:
        return image_noise(arms, claim.metric, rng)
    draws = max(_CALLS // sum(len(of_arm) for _, of_arm in arms), 100)
    with suppress(InputError, KeyError):
        return image_noise(arms, claim.metric, rng, min(draws, 1000), metric)
    return None


def judge_all(
    study: Study,
    records: Sequence[RunRecord],
    read_images: ReadImages | None = None,
    claims: Sequence[Claim] | None = None,
    bounds: Bounds | None = None,
) -> list[Outcome]:
    """The outcome of every claim that the runs can say something about, by data set, those on one data set judged
    together (Holm) and each control by itself; beside each what the other epoch, and the seeds that trained, say.

    Args:
        claims: those to be judged, where they are not the study's.
        bounds: what a calibration knows of the spread over seeds, and of runs that learned far less than others.
    """
    by_data = grouped(records, lambda r: r.data.fingerprint)
    judged = study.claims if claims is None else claims

    def outcomes(read: ReadImages | None = None, **how: Any) -> dict[tuple[Claim, str], Outcome]:
        runs = by_data.values()
        found = (judge(claim, of_data, study, read, bounds=bounds, **how) for claim in judged for of_data in runs)
        return {(o.claim, o.fingerprint): o for o in _together([o for o in found if o is not None])}

    other_rule: EpochRule = "best" if study.epoch == "last" else "last"
    other_epoch, trained = outcomes(epoch=other_rule), outcomes(trained=True)
    found = []
    for place, o in outcomes(read_images).items():
        without = trained.get(place)
        fewer = without if without is not None and len(without.seeds) < len(o.seeds) else None
        found.append(replace(o, other_epoch=other_epoch.get(place), trained=fewer))
    return found


def families(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """The outcomes that are judged together: of all claims on one data set, and of each control by itself."""
    return list(grouped(outcomes, lambda o: (o.fingerprint, o.claim.id if o.claim.control else "")).values())


def _together(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The same, with p-values corrected for each other, in the same order."""
    corrected = {}
    for family in families(outcomes):
        raw = [[o.comparison.p_value for o in family], [o.comparison.equivalence_p for o in family]]
        together = max(1, sum(not math.isnan(p) for p in raw[0]))  # a claim with one seed has no p
        for o, p, q in zip(family, *holm(raw).tolist(), strict=True):
            corrected[id(o)] = replace(o, adjusted_p=p, equivalent_p=q, together=together)
    return [corrected[id(o)] for o in outcomes]
