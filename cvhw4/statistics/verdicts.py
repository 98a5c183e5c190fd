"""Claims held against runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.comparison import Comparison, compare, holm, verdict_of
from cvhw4.statistics.images import Combined, ImageNoise, combine, image_noise, squared_error
from cvhw4.statistics.intervals import Estimate, Verdict
from cvhw4.study import Claim, Metric, Operand, Study

_CALLS = 2000  # at most, of a study's own metric, which may take milliseconds, to resample images
ReadImages = Callable[[RunRecord], ImageResults | None]


@dataclass(frozen=True)
class Outcome:
    """What the runs say of a claim.

    Attributes:
        claim: the claim.
        comparison: best figure of the better row minus the worse row's, paired by seed, over the seeds; the best figure
            itself where the claim compares with no row.
        seeds: the seeds compared.
        differences: of each seed.
        adjusted_p: p-value of the comparison, corrected for all claims that were judged together (Holm).
        data: name of the data set.
        fingerprint: of that data, by which bounds know it.
        noise: what other validation images would change; None where images were not looked at, or are not stored.
        resolution: the steps that the figure comes in: an image's for classification, 0 for what has none.
    """

    claim: Claim
    comparison: Comparison
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    adjusted_p: float
    data: str
    fingerprint: str
    noise: ImageNoise | None = None
    resolution: float = 0.0

    @property
    def difference(self) -> Estimate:
        """The difference over seeds."""
        return self.comparison.difference

    @property
    def verdict(self) -> Verdict:
        """Whether it holds with other seeds, on these validation images."""
        return verdict_of(self.comparison, self.adjusted_p)

    @property
    def with_other_images(self) -> Combined | None:
        """The difference with both sources of noise: other seeds, and other validation images of the same kind."""
        if self.noise is None:
            return None
        mean, sd, n = self.difference.mean, self.comparison.sd, self.difference.n
        images = squared_error(sd, n, self.noise) - sd**2 / n if n > 1 else self.noise.mean_variance
        return combine(mean, sd, n, images, self.noise.images - 1)


def judge(
    claim: Claim,
    records: Iterable[RunRecord],
    study: Study,
    read_images: ReadImages | None = None,
    permutations: bool = True,
) -> Outcome | None:
    """Compares the claim's rows, seed by seed, or its row with its margin; by itself, corrected for no other claim.

    Args:
        records: runs, at most one per row and seed of the claim's rows; others are passed over, and so are those from
            before the study had the metric.
        study: whose claim it is.
        read_images: gives what a run made of every validation image, for `noise`.
        permutations: as `compare` takes it.

    Returns:
        None where no seed has all rows, where a figure is not finite (a mean without it would be another claim), or
        where the claim is about a figure itself and the data are generated, which say nothing of that.

    Raises:
        ValueError: the rows were run on different data.
    """
    runs: dict[str, dict[int, RunRecord]] = {row: {} for row in claim.rows}
    for record in records:
        if record.row in runs and claim.metric in record.epochs[-1].figures:
            runs[record.row][record.seed] = record
    seeds = sorted(set.intersection(*(set(of_row) for of_row in runs.values())))
    if not seeds:
        return None
    used = {of_row[s].data.fingerprint: of_row[s].data for s in seeds for of_row in runs.values()}
    if len(used) > 1:
        names = ", ".join(d.name for d in used.values())
        raise ValueError(f"{claim.id} compares runs on different data ({names})")
    (data,) = used.values()
    if claim.worse is None and data.embedded:
        return None
    better = figures(claim.better, runs, seeds, claim.metric)
    worse = None if claim.worse is None else figures(claim.worse, runs, seeds, claim.metric)
    if worse is not None and claim.metric in runs[claim.rows[0]][seeds[0]].lower_is_better:
        better, worse = worse, better
    if not np.isfinite([*better, *(worse or ())]).all():
        return None
    # Of a metric of the study's own this is about what one image makes.
    resolution = 1 / data.val if study.rows[claim.rows[0]].task.in_images else 0.0
    comparison = compare(better, worse, claim.margin, resolution=resolution, permutations=permutations)
    noise = None
    if read_images is not None:
        noise = _noise(claim, runs, seeds, read_images, study.metrics.get(claim.metric))
    differences = tuple(b - w for b, w in zip(better, worse or [0.0] * len(better), strict=True))
    return Outcome(
        claim=claim,
        comparison=comparison,
        seeds=tuple(seeds),
        differences=differences,
        adjusted_p=comparison.p_value,
        data=data.name,
        fingerprint=data.fingerprint,
        noise=noise,
        resolution=resolution,
    )


def figures(
    operand: Operand, runs: Mapping[str, Mapping[int, RunRecord]], seeds: Sequence[int], metric: str
) -> list[float]:
    """The best figure of a row, or the difference of two rows', by seed."""
    if isinstance(operand, str):
        return [runs[operand][s].best(metric) for s in seeds]
    first, second = (figures(row, runs, seeds, metric) for row in operand)
    return [a - b for a, b in zip(first, second, strict=True)]


def _noise(
    claim: Claim,
    runs: Mapping[str, Mapping[int, RunRecord]],
    seeds: Sequence[int],
    read: ReadImages,
    metric: Metric | None,
) -> ImageNoise | None:
    """What other images would change; None where a run's results by image, or the scores that the study's own metric
    is of, are not stored, or it has no figure on some of the images drawn."""
    arms: list[tuple[int, list[tuple[ImageResults, int]]]] = []
    for sign, operand in ((1, claim.better), (-1, claim.worse)):
        rows = () if operand is None else (operand,) if isinstance(operand, str) else operand
        for row, inner in zip(rows, (1, -1), strict=False):
            pairs = [(read(runs[row][s]), runs[row][s].best_epoch(claim.metric)) for s in seeds]
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
    permutations: bool = True,
    claims: Sequence[Claim] | None = None,
) -> list[Outcome]:
    """The outcome of every claim that the runs can say something about, by data set, all judged together (Holm).

    Args:
        claims: those to be judged, where they are not the study's.
    """
    outcomes = []
    by_data: dict[str, list[RunRecord]] = {}
    for record in records:
        by_data.setdefault(record.data.fingerprint, []).append(record)
    for claim in study.claims if claims is None else claims:
        for of_data in by_data.values():
            outcome = judge(claim, of_data, study, read_images, permutations)
            if outcome is not None:
                outcomes.append(outcome)
    adjusted = holm([outcome.comparison.p_value for outcome in outcomes])
    return [replace(outcome, adjusted_p=p) for outcome, p in zip(outcomes, adjusted, strict=True)]
