"""The bounds that a build checks: whether the runs of a session meet them.

A bound is the prediction interval of the mean of further runs, from n runs of the same row with other seeds (Student's
t), on the scale on which the figure spreads evenly (`cvhw4.statistics.scales`): of a share it ends at 0 and 1. A run is
held against the interval of one, a session's runs of a row also against that of their mean, which shows smaller shifts.
One that would span a third of its scale, or a factor of ten, says nothing and is not checked. Rows of which other
machines give the same figures are held against the run of the same seed as well (`Twin`).

Bounds are written by `cvhw4 calibrate` (`cvhw4.statistics.calibration`), never by hand. They hold for runs on the data
that they were calibrated on, which they know by its fingerprint, and for no others.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError
from cvhw4.records.schema import RunRecord
from cvhw4.statistics.scales import SCALES
from cvhw4.statistics.verdicts import Outcome
from cvhw4.study import Claim, EpochRule, Row, Study
from cvhw4.study.functions import digest_of
from cvhw4.tasks import FIRST_LOSS, TRAINING_LOSSES, ScaleName

FALSE_ALARMS = 0.01  # share of nightly sessions in which any bound at all may be missed by chance
NIGHTLY_SEEDS = 3
FEWEST_RUNS = 5
FORMAT = 4  # of the file
AGAIN = "run cvhw4 calibrate again"


@dataclass(frozen=True)
class Bound:
    """Limits of the mean of further runs, and the runs they come from. Means are taken on the figure's scale.

    Attributes:
        low: lower limit.
        high: upper limit.
        mean: mean of the runs it was calibrated on.
        sd: their standard deviation on the scale.
        n: their number.
        runs: the number of further runs.
        scale: of the figure.
    """

    low: float
    high: float
    mean: float
    sd: float
    n: int
    runs: int = 1
    scale: ScaleName = "plain"

    @property
    def half_width(self) -> float:
        """From the mean to a limit, on the scale."""
        to = SCALES[self.scale].to
        return float(max(to(self.high) - to(self.mean), to(self.mean) - to(self.low)))  # one may be the scale's end

    @property
    def vacuous(self) -> bool:
        """Whether it is so wide that it says nothing."""
        return 2 * self.half_width > SCALES[self.scale].most

    def holds(self, value: float) -> bool:
        """Whether the value lies within; NaN never does."""
        return self.low <= value <= self.high

    def for_mean_of(self, runs: int) -> Bound:
        """The same bound for the mean of other numbers of runs: averaging takes a part of the spread away."""
        scale = SCALES[self.scale]
        half = self.half_width * math.sqrt((1 / runs + 1 / self.n) / (1 / self.runs + 1 / self.n))
        low, high = (float(scale.of(scale.to(self.mean) + end)) for end in (-half, half))
        return self if runs == self.runs else replace(self, low=low, high=high, runs=runs)

    def mean_of(self, values: Iterable[float]) -> float:
        """The mean of figures as it is held against the bound."""
        scale = SCALES[self.scale]
        found = [float(scale.to(value)) for value in values]
        return float(scale.of(math.fsum(found) / len(found))) if len(found) > 1 else next(iter(values))


def arithmetic(record: RunRecord) -> str:
    """Device and precision of a run: "cpu float32". In another, figures of the same seed are others."""
    return f"{record.environment.get('device', '')} {record.environment.get('precision', '')}".strip()


def digest(record: RunRecord) -> str:
    """Of a run's settings, which the runs of a row have alike."""
    return digest_of(json.dumps(record.settings, sort_keys=True))


@dataclass(frozen=True)
class Twin:
    """The calibrated runs of a row whose figures other machines give too, each for its own seed.

    Attributes:
        tolerance: by how much a figure may differ from the calibrated run's of the same seed.
        values: the calibrated runs' figures, by seed.
    """

    tolerance: float
    values: Mapping[int, float]

    def holds(self, seed: int, value: float) -> bool:
        """Whether the figure is that of the calibrated run, which the file has to nine digits; NaN never is."""
        return abs(value - self.values[seed]) <= self.room(seed)

    def room(self, seed: int) -> float:
        """How far a figure may be from the calibrated run's."""
        return self.tolerance + 5e-9 * abs(self.values[seed])


@dataclass(frozen=True)
class Outliers:
    """The calibrated runs of a row that learned far less than its others, and what others like them are known by.

    Attributes:
        figure: the figure that shows it.
        limit: of such runs it is worse than that.
        lower_is_better: whether worse is higher.
        n: how many of the calibrated runs are such.
        of: how many there are.
        failed: whether any of them failed altogether (`RunRecord.collapsed`); if none did, runs that do are not such.
    """

    figure: str
    limit: float
    lower_is_better: bool
    n: int
    of: int
    failed: bool

    def has(self, record: RunRecord) -> bool:
        """Whether a run is like them."""
        value = record.figure(self.figure)
        worse = value > self.limit if self.lower_is_better else value < self.limit
        return worse and (self.failed or not record.collapsed)

    def passed_over(self, runs: int, seeds: int, false_alarms: float) -> int:
        """How many of so many runs may be such: so many that chance brings more in no more than the share
        `false_alarms` of sessions, as far as n of so many tell (beta-binomial, with Jeffreys' prior); of `seeds` runs
        and more never all."""
        from scipy.stats import betabinom

        most = int(betabinom.ppf(1 - false_alarms, runs, self.n + 0.5, self.of - self.n + 0.5))
        return most if runs < max(seeds, 2) else min(most, runs - 1)


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
            f"{b.mean:.4f} ({self.source})"
        )


@dataclass(frozen=True)
class Bounds:
    """The bounds of one study.

    Attributes:
        rows: bounds by row and figure, for the mean of `seeds` runs.
        claims: bounds of a claim's difference, by claim id, likewise.
        source: when, where and on which code they were calibrated.
        data: on which data: fingerprints by name. For runs on data of another name there are no bounds; other data of
            the same name are missed bounds.
        false_alarms: share of nightly sessions in which any of them may be missed by chance.
        seeds: seeds of such a session.
        held_out: share of sessions made of the calibrated runs themselves that miss any bound made of the others; None
            where there were too few runs.
        nights: the number of those sessions.
        new_seeds: share of sessions that miss anything, bounds being calibrated anew without their seeds
            (`calibration.with_new_seeds`); None where none was tried.
        usual: the same share of those none of whose runs is an outlier; None where all have one.
        new_nights: the number of those sessions.
        outliers: of rows of which some runs learned far less than the others (failed trainings, or slow ones). Their
            bounds are those of the others, and such runs are passed over as long as there are no more than chance
            brings, beside the share of false alarms.
        settings: by row, what is known of those of the calibrated runs (`digest`).
        differences: of the calibrated runs, by claim, by the rule for the epoch ("last", "best") and by seed.
        untrained: by claim, the seeds among these of which a training failed (`RunRecord.collapsed`) or is an outlier.
        twins: what the figures of single seeds are, by row and figure, where other machines give them too.
        twins_on: the arithmetic of these runs (see `arithmetic`); runs in another are not held against them.
        beside: gives a session's other runs of a record's row, as soon as all of them are over.
    """

    rows: Mapping[str, Mapping[str, Bound]]
    claims: Mapping[str, Bound]
    source: str
    data: Mapping[str, str] = field(default_factory=dict)
    false_alarms: float = FALSE_ALARMS
    seeds: int = NIGHTLY_SEEDS
    held_out: float | None = None
    nights: int = 0
    new_seeds: float | None = None
    usual: float | None = None
    new_nights: int = 0
    outliers: Mapping[str, Outliers] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)
    untrained: Mapping[str, Sequence[int]] = field(default_factory=dict)
    twins: Mapping[str, Mapping[str, Twin]] = field(default_factory=dict)
    twins_on: str = ""
    beside: Callable[[RunRecord], Sequence[RunRecord]] = field(default=lambda _: (), compare=False, repr=False)

    def apply_to(self, fingerprint: str) -> bool:
        """Whether they were calibrated on the data with that fingerprint."""
        return fingerprint in self.data.values()

    def check(self, *records: RunRecord, row: str | None = None) -> list[Check]:
        """Every bounded figure of runs of one row, of each by itself and in the mean of all; empty where the bounds do
        not apply (other data, a row without bounds, outliers where some are, runs from before the study's metric).

        Args:
            row: the row whose bounds the runs are held against, where that is not their own (a negative control).
        """
        row = row or next((r.row for r in records), "")
        aside = self.aside(*records, row=row)
        runs = [r for r in records if self.apply_to(r.data.fingerprint) and r not in aside]
        checks = []
        for figure, bound in self.rows.get(row, {}).items():
            having, of_one = with_figure(runs, figure), bound.for_mean_of(1)
            values = [r.figure(figure) for r in having]
            if not of_one.vacuous:
                names = [figure if len(runs) == 1 else f"{figure} with seed {r.seed}" for r in having]
                checks += [Check(name, x, of_one, self.source) for name, x in zip(names, values, strict=True)]
            if len(values) > 1:
                words, of_mean = f"{figure} in the mean of {len(values)} seeds", bound.for_mean_of(len(values))
                checks.append(Check(words, bound.mean_of(values), of_mean, self.source))
        return checks

    def aside(self, *records: RunRecord, row: str | None = None) -> list[RunRecord]:
        """The runs of one row that are like its outliers; `row` as of `check`."""
        outliers = self.outliers.get(row or next((r.row for r in records), ""))
        return [r for r in records if outliers is not None and self.apply_to(r.data.fingerprint) and outliers.has(r)]

    def missed(self, *records: RunRecord, row: str | None = None) -> list[str]:
        """What runs of one row miss, each by itself and all in the mean, which notices smaller shifts; in words, empty
        where they meet all their bounds, or none apply to them.

        One run is joined in the mean by the session's others of its row, where these are over (see `beside`); `row` as
        of `check`.
        """
        row = row or next((r.row for r in records), "")
        together = (*records, *self.beside(records[0])) if len(records) == 1 else records
        runs = [r for r in together if self.apply_to(r.data.fingerprint)]
        found = list(dict.fromkeys(text for r in records for text in self.changed(r)))
        aside = self.aside(*together, row=row)
        if aside and len(aside) > self.outliers[row].passed_over(len(runs), self.seeds, self.false_alarms):
            found.append(
                f"{len(aside)} of {len(runs)} runs of {row} learned far less than others do, which of those calibrated "
                f"{self.outliers[row].n} of {self.outliers[row].of} did ({self.source})"
            )
        checks = self.check(*records, row=row)
        if together != records:
            checks += [check for check in self.check(*together, row=row) if check.bound.runs > 1]
        missed = failed(checks)
        own = [r for r in records if self.apply_to(r.data.fingerprint)]
        return [*found, *missed, *self._apart(own, row, alone=not missed)]

    def paired(self, runs: Iterable[RunRecord], row: str) -> list[tuple[RunRecord, str, Twin]]:
        """The figures of runs that have a calibrated run of the same seed, row and arithmetic beside them."""
        return [
            (r, figure, twin)
            for r in runs
            for figure, twin in self.twins.get(row, {}).items()
            if r.seed in twin.values and arithmetic(r) == self.twins_on and self.apply_to(r.data.fingerprint)
        ]

    def first_epoch(self, record: RunRecord, row: str) -> tuple[float, float] | str:
        """The loss of the first epoch of the calibrated run of the same seed, and how far a run's may be from it; or
        why there is none to be held against, in words.

        Args:
            row: of the calibrated run.
        """
        twin = self.twins.get(row, {}).get(FIRST_LOSS)
        if not self.apply_to(record.data.fingerprint):
            return f"the bounds are not of {record.data.name}" if self.rows else "there are no bounds"
        if twin is None:
            return f"no other machine gives the first epoch of {row} (cvhw4 calibrate --twins)"
        if arithmetic(record) != self.twins_on:
            return f"calibrated runs computed on {self.twins_on}, this one on {arithmetic(record)}"
        if record.seed not in twin.values:
            return f"no run of {row} with seed {record.seed} is calibrated"
        return twin.values[record.seed], twin.room(record.seed)

    def _apart(self, runs: Iterable[RunRecord], row: str, alone: bool) -> list[str]:
        """Figures that are not those of the calibrated runs of the same seeds; one text where most are not, and yet all
        lie within the spread over seeds (`alone`): other random streams, as a rule."""
        of_seed = self.paired(runs, row)
        apart = [(r, f, t) for r, f, t in of_seed if not t.holds(r.seed, r.figure(f))]
        if alone and 2 * len(apart) > len(of_seed):
            seeds = ", ".join(str(seed) for seed in dict.fromkeys(r.seed for r, _, _ in apart))
            return [
                f"{len(apart)} of {len(of_seed)} figures of {row} with seed {seeds} are not the calibrated "
                "runs' any more, though all lie within the spread over seeds: the training changed, or its random "
                f"streams; if that is meant, {AGAIN}"
            ]
        return [
            f"{f} {r.figure(f):.4f} with seed {r.seed} is not {t.values[r.seed]:.4f}, as calibrated, within "
            f"{t.tolerance:.4g} ({self.source})"
            for r, f, t in apart
        ]

    def changed(self, record: RunRecord) -> list[str]:
        """That a run's data have the name of those that its row was calibrated on and are not the same; else empty."""
        known = self.data.get(record.data.name, record.data.fingerprint)
        if known == record.data.fingerprint or record.row not in self.rows:
            return []
        return [f"{record.data.name} are not the data of that name that the bounds were calibrated on: {AGAIN}"]

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

    def known(self, claim: Claim, runs: Sequence[RunRecord], epoch: EpochRule, trained: bool) -> list[float]:
        """Calibrated differences of a claim with other seeds than these runs', of which the spread is the same
        (`comparison.spread`); none for other data, or for rows that have changed since.

        Args:
            runs: those compared.
            epoch: whose figures are compared.
            trained: whether those of seeds that failed to train, or learned far less, are left out.
        """
        if any(self.settings.get(r.row) != digest(r) or not self.apply_to(r.data.fingerprint) for r in runs):
            return []
        passed_over = {*(r.seed for r in runs), *(self.untrained.get(claim.id, ()) if trained else ())}
        found = self.differences.get(claim.id, {}).get(epoch, {}).items()
        return [difference for seed, difference in found if seed not in passed_over]

    def knows(self, outcome: Outcome) -> bool:
        """Whether the spread of a claim's differences is known, for a session of a few such runs."""
        return bool(self.known(outcome.claim, [of_row[0] for of_row in outcome.runs.values()], outcome.epoch, False))

    def without_outliers(self, outcome: Outcome) -> list[float]:
        """A claim's differences, of the seeds of which no run is set aside."""
        aside = {r.seed for row, runs in outcome.runs.items() for r in self.aside(*runs, row=row)}
        return [d for seed, d in zip(outcome.seeds, outcome.differences, strict=True) if seed not in aside]

    def check_claim(self, outcome: Outcome) -> Check | None:
        """A claim's difference, over the seeds of which no run is passed over as an outlier; None where the bounds do
        not apply, or no seed is left."""
        bound, kept = self.claims.get(outcome.claim.id), self.without_outliers(outcome)
        if bound is None or not kept or not self.apply_to(outcome.fingerprint):
            return None
        name = f"mean difference in {outcome.claim.metric} over {len(kept)} seeds"
        return Check(name, math.fsum(kept) / len(kept), bound.for_mean_of(len(kept)), self.source)


NO_BOUNDS = Bounds({}, {}, "")


def bounded(study: Study, row: Row) -> tuple[str, ...]:
    """The figures of a row that are bounded: its task's, and the study's own metrics after the epoch of its claims."""
    return (*row.task.bounded, *(f"{study.epoch} {name}" for name in study.metrics))


def with_figure(runs: Iterable[RunRecord], figure: str) -> list[RunRecord]:
    """The runs that have a bounded figure: those from before the study had a metric have none of it."""
    return [r for r in runs if figure in TRAINING_LOSSES or figure.partition(" ")[2] in r.epochs[-1].figures]


def scale_of(study: Study, row: Row, figure: str) -> ScaleName:
    """The scale of a row's bounded figure."""
    if figure.partition(" ")[2] in study.shares:
        return "share"
    return row.task.scale(figure, row.recipe.loss if row.recipe is not None else None)


def bounds_of(study: Study, named: Path | None = None) -> Bounds:
    """The calibrated bounds of a study: of the file that the user named, or of its own, where there is one.

    Raises:
        InputError: the file cannot be read.
    """
    path = named or study.bounds
    if path is None or (named is None and not os.path.lexists(path)):  # a study that is not calibrated yet
        return NO_BOUNDS
    return load_bounds(Path(path), study, named=named is not None)


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
            problem = f"has no bounds of study {study.name}{', but of ' * bool(others)}{', '.join(others)}"
            raise InputError(path, problem, "run cvhw4 calibrate, or name another file with --bounds")
        if study.name not in whole:
            return NO_BOUNDS
        part, odd = _known(whole[study.name], study)
        bounds = _read(part, study)
        if odd:
            what = f"{path}: bounds of {', '.join(odd)} are not used, as the study has none such any more"
            warnings.warn(f"{what}; cvhw4 calibrate makes them anew.", stacklevel=2)
        return bounds
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "run cvhw4 calibrate to write it again"
        raise InputError(path, f"is not a bounds file ({error})", hint) from error


def _read(part: Mapping[str, Any], study: Study) -> Bounds:
    """The bounds of one study; ValueError, KeyError, TypeError or AttributeError for what is not written so."""
    if part["format"] != FORMAT:
        raise ValueError("it is of another version of cvhw4")
    needed = ("source", "data", "false_alarms", "seeds")
    read: dict[str, Any] = {
        f.name: part[f.name] for f in fields(Bounds) if f.compare and (f.name in part or f.name in needed)
    }
    read["outliers"] = {row: Outliers(**values) for row, values in part["outliers"].items()}
    read["rows"] = {
        row: {
            name: _read_bound(b, part["seeds"], scale_of(study, study.rows[row], name)) for name, b in figures.items()
        }
        for row, figures in part["rows"].items()
    }
    read["claims"] = {claim: _read_bound(b, part["seeds"], "plain") for claim, b in part["claims"].items()}
    read["twins"] = {
        row: {name: Twin(t["tolerance"], {int(s): v for s, v in t["seeds"].items()}) for name, t in figures.items()}
        for row, figures in part["twins"].items()
    }
    read["differences"] = {
        claim: {rule: {int(seed): float(d) for seed, d in by_seed.items()} for rule, by_seed in rules.items()}
        for claim, rules in part["differences"].items()
    }
    made = Bounds(**read)
    texts = (made.source, made.twins_on, *made.data.values(), *made.settings.values())
    numbers = [made.false_alarms, *(x for x in (made.held_out, made.new_seeds, made.usual) if x is not None)]
    numbers += [o.limit for o in made.outliers.values()]
    numbers += [d for rules in made.differences.values() for by_seed in rules.values() for d in by_seed.values()]
    numbers += [x for of in made.twins.values() for t in of.values() for x in (t.tolerance, *t.values.values())]
    counted = [made.seeds, *(seed + 1 for failed in made.untrained.values() for seed in failed)]
    counted += [n for o in made.outliers.values() for n in (o.n, o.of - o.n)]
    counts = all(isinstance(n, int) and n > 0 for n in counted) and isinstance(made.nights + made.new_nights, int)
    whole = all(isinstance(text, str) for text in texts) and counts
    if not (whole and 0 < made.false_alarms < 1 and all(math.isfinite(x) for x in numbers)):
        raise ValueError("data, false_alarms, seeds, held_out, outliers, twins or source")
    return made


def _known(part: Mapping[str, Any], study: Study) -> tuple[dict[str, Any], list[str]]:
    """The part of a study without the rows, figures and claims that it has not, and these: they may have other names by
    now. ValueError, KeyError, TypeError or AttributeError for what is not written so."""
    kept, odd = dict(part), list[str]()
    for table, kind in (("rows", "bounded"), ("twins", "paired"), ("outliers", "bounded")):
        kept[table] = {}
        for row, figures in part.get(table, {} if table != "rows" else part["rows"]).items():
            of_study = study.rows.get(row)
            known = () if of_study is None else (*getattr(of_study.task, kind), *bounded(study, of_study))
            named = [figures["figure"]] if table == "outliers" else [*figures]
            missing = [name for name in named if name not in known]
            odd += [row] if row not in study.rows else [f"{name} of {row}" for name in missing]
            if table == "outliers" and not missing:
                kept[table][row] = figures
            elif table != "outliers" and row in study.rows:
                kept[table][row] = {name: figures[name] for name in named if name in known}
    ids = {claim.id for claim in study.claims}
    kept["claims"] = part["claims"]
    kept["settings"] = {row: of for row, of in part.get("settings", {}).items() if row in study.rows}
    for table in ("claims", "differences", "untrained"):
        odd += [id for id in kept.get(table, ()) if id not in ids]
        kept[table] = {id: of_claim for id, of_claim in kept.get(table, {}).items() if id in ids}
    return kept, [*dict.fromkeys(odd)]


def _read_bound(written: dict[str, Any], runs: int, scale: ScaleName) -> Bound:
    """A bound of a bounds file; ValueError or TypeError for anything that `cvhw4 calibrate` does not write."""
    bound = Bound(**written, runs=runs, scale=scale)
    finite = math.isfinite(bound.low) and math.isfinite(bound.high)
    if not (finite and bound.low <= bound.mean <= bound.high and bound.sd >= 0 and bound.n >= FEWEST_RUNS):
        raise ValueError(f"{written} is not a bound")
    return bound


def failed(checks: Iterable[Check]) -> list[str]:
    """The messages of the checks that are not met."""
    return [str(check) for check in checks if not check.met]
