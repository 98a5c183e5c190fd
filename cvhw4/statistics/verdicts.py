"""Claims held against runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cvhw4.claims import CLAIMS, Claim
from cvhw4.experiments import Profile
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.intervals import Estimate, Verdict, estimate, verdict


@dataclass(frozen=True)
class Outcome:
    """What the runs say of a claim.

    Attributes:
        claim: the claim.
        difference: best figure of the better row minus the worse row's, paired by seed, over the seeds; the best figure
            itself where the claim compares with no row.
        verdict: from the difference's 95 % interval.
        data: name of the data set.
        embedded: whether the bounds apply to that data.
    """

    claim: Claim
    difference: Estimate
    verdict: Verdict
    data: str
    embedded: bool


def judge(claim: Claim, records: Iterable[RunRecord]) -> Outcome | None:
    """Compares the claim's two rows, seed by seed, or its row with its margin.

    Args:
        records: runs of one profile, at most one per row and seed of the two rows; others are passed over.

    Returns:
        None where no seed has all rows, or where embedded data can say nothing of a claim about the report's.

    Raises:
        ValueError: the two rows were run on different data.
    """
    figures: dict[str, dict[int, RunRecord]] = {row: {} for row in claim.rows}
    for record in records:
        if record.row in figures:
            figures[record.row][record.seed] = record
    seeds = sorted(set.intersection(*(set(of_row) for of_row in figures.values())))
    if not seeds:
        return None
    used = {of_row[s].data.fingerprint: of_row[s].data for s in seeds for of_row in figures.values()}
    if len(used) > 1:
        names = ", ".join(d.name for d in used.values())
        raise ValueError(f"{claim.id} compares runs on different data ({names})")
    (data,) = used.values()
    if claim.worse is None and data.embedded:
        return None
    better = [figures[claim.better][s].best(claim.metric) for s in seeds]
    worse = [0.0 if claim.worse is None else figures[claim.worse][s].best(claim.metric) for s in seeds]
    difference = estimate([b - w for b, w in zip(better, worse, strict=True)])
    return Outcome(claim, difference, verdict(difference, claim.margin), data.name, data.embedded)


def claims_of(profile: Profile) -> tuple[Claim, ...]:
    """The claims whose rows a profile has."""
    rows = {experiment.row for experiment in profile.rows}
    return tuple(claim for claim in CLAIMS if rows.issuperset(claim.rows))


def judge_all(profile: Profile, records: Sequence[RunRecord]) -> list[Outcome]:
    """The outcome of every claim that the runs can say something about, by data set."""
    outcomes = []
    fingerprints = list(dict.fromkeys(r.data.fingerprint for r in records))
    for claim in claims_of(profile):
        for fingerprint in fingerprints:
            outcome = judge(claim, [r for r in records if r.data.fingerprint == fingerprint])
            if outcome is not None:
                outcomes.append(outcome)
    return outcomes
