"""Nights held against earlier ones: which rows are worse, what later nights are held against, and when a figure moved.

A night is compared with two others (`cvhw4.statistics.changes`): row by row with the last runs that were fine, and with
the pinned ones, which stay where they are. What looks worse is trained again with fresh seeds, and only what is worse
with them too (1 % on its side, by themselves) is called so: runs that raised the alarm do not decide on it. Nor does
the luck of the few runs it was held against: fresh seeds are held against the best level since the pinned night.
A claim that is lost with a row that fell is that row's. A row that is not fine keeps what it is held against, and one
is failed where the records of that are gone or unreadable.

What is too little for any one night shows in many: a figure has declined where, by its change points since the pinned
night, its present level is below its best one (1 % for all figures together). That needs no fresh seeds where more runs
than tonight's say so.

What was found worse stays so until the contrary is found with as strong evidence: a night's runs and fresh seeds
together have to be better than the runs that it was found with (1 %), and in no way worse than before; of a claim,
it has to be supported; or the very runs are back that it was held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cvhw4.records.history import (
    Canary,
    Finding,
    JudgedRow,
    Measurement,
    Night,
    Reference,
    State,
    Status,
    newest_judged,
    stems,
)
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import grouped
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.changes import Changes, Place, compare_runs, figure_change, known_to, time_change
from cvhw4.statistics.levels import CANARY, LEVEL, Levels, levels_of
from cvhw4.study import Study
from cvhw4.tasks import TASKS

ALL = "all"  # accepts every row
_EARLIER, _FIRST = 30, 10  # nights of the canary that the last one is held against
_FEWEST = 3
_STEP = 1e-4
_WRONG: tuple[Status, ...] = ("worse", "slower", "failed", "missing")

Retrain = Callable[[Sequence[str]], Sequence[RunRecord]]


class Unconfirmed(Exception):
    """Fresh seeds could not be trained. The message says why."""


@dataclass(frozen=True)
class Suspicion:
    """What looks worse about a row: a figure, tonight or over many nights; a claim that needs it; what is missing."""

    kind: Literal["figure", "decline", "claim", "missing"]
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
    nights: Sequence[Night],
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
        night: what is known of it beside its runs: `accepted`, `checks`, `figures` of other things than runs, and in
            `rows` how its canary was judged.
        records: this night's finished runs.
        nights: earlier ones, oldest first.
        runs_of: the records that references name.
        retrain: trains rows with fresh seeds, and gives these runs. Where it raises `Unconfirmed`, what looks worse is
            called so this night, and does not stay so.
        failures: this night's runs that failed.
        failed_tests: why, by row.
        bounds: are noted beside the figures.
        pin: make this night's rows, as far as they are fine, the pinned ones.
        held: an earlier night was worse and nobody knows than what: without a judged night only accepted rows become
            what later nights are held against.
        complete: whether rows that were not run are missing.
    """
    earlier = newest_judged(nights)
    tonight = _by_place(records)
    figures = [m for p, runs in tonight.items() for m in _measurements(p, runs, bounds)]
    good = {} if earlier is None else {r.place: r for r in earlier.good}
    pinned = {} if earlier is None else {r.place: r for r in earlier.pinned}
    failed: dict[Place, list[str]] = {}
    for failure in failures:
        failed.setdefault((failure.row, failure.data), []).append(f"seed {failure.seed}: {failure.reason}")
    for row, why in (failed_tests or {}).items():
        places = [p for p in {**tonight, **good, **failed} if p[0] == row] or [(row, "")]
        for place in [p for p in places if p not in failed] or places:
            if not any(why in text for text in failed.get(place, ())):
                failed.setdefault(place, []).append(why)
    accepted = dict(night.accepted)

    sides = [list(runs_of(list(side.values()))) for side in (good, pinned)]
    for references, side in zip((good, pinned), map(_by_place, sides), strict=True):
        for place, reference in references.items():
            if lacking := {*reference.runs} - {*_stems(side, place), *_stems(tonight, place)}:
                why = f"{len(lacking)} of the {len(reference.runs)} runs that it is held against are gone or unreadable"
                why += ": restore their records in the history, or accept the row"
                if why not in failed.setdefault(place, []):
                    failed[place].append(why)
    against = [compare_runs(study, side, records, complete=complete) if side else None for side in sides]
    found: dict[Place, list[Suspicion]] = {}
    for changes in against:
        if changes is not None:
            for place, suspicions in _suspicions(changes, complete).items():
                found.setdefault(place, []).extend(s for s in suspicions if s not in found.get(place, ()))
    levels = levels_of([*nights, replace(night, figures=figures)], tonight, pinned)
    for (row, data, figure), level in levels.items():
        if level.declined:
            kind: Literal["decline", "figure"] = "decline" if level.lasting else "figure"  # tonight's luck perhaps
            suspected = found.setdefault((row, data), [])
            if (kind, figure) not in ((s.kind, s.name) for s in suspected):
                suspected.append(Suspicion(kind, figure, level.declined))
    _leave_claims_to_rows_that_fell(found)

    untaken = {p for p in [*tonight, *good, *found] if not {p[0], ALL} & accepted.keys()}
    known = [] if earlier is None else [f for f in earlier.worse if f.place in untaken]
    doubtful = {p for p, what in found.items() if any(s.kind != "missing" for s in what)} | {f.place for f in known}
    lost = {s.name for p in doubtful & untaken for s in found.get(p, ()) if s.kind == "claim"}
    rows_of_lost = {row for claim in study.claims if claim.id in lost for row in claim.rows}  # to judge it by
    train = sorted({p[0] for p in doubtful & untaken} | rows_of_lost)
    fresh: dict[Place, list[RunRecord]] = {}
    notes, lasting = [night.why] if night.why else [], {"figure", "decline", "claim"}
    try:
        fresh = _by_place(retrain(train) if train else ())
    except Unconfirmed as error:
        notes.append(f"Not confirmed with fresh seeds: {error}")
        lasting = {"decline"}  # which needs none
    confirmed = _confirm(study, found, sides, levels, fresh)
    both = {p: [*runs, *fresh.get(p, ())] for p, runs in tonight.items()}
    back = {p for p in tonight if p in good and p not in found and _stems(tonight, p) == good[p].runs}
    judged_claims = against[0].claims if against[0] else ()
    supported = {(c.claim, c.data) for c in judged_claims if c.b is not None and c.b.verdict == "supported"}
    worse = [f for f in known if f.place not in back and not _repaired(f, found, levels, both, supported)]
    names = {(*f.place, f.name) for f in worse}
    for place in untaken & confirmed.keys():
        for name in sorted({s.name for s in confirmed[place] if s.kind in lasting}):
            if (*place, name) not in names:
                values = _values(name, both.get(place, ()))
                worse.append(Finding(row=place[0], data=place[1], name=name, since=night.started, values=values))
    worse.sort(key=lambda f: (f.since, *f.place, f.name))

    rows = []
    for place in dict.fromkeys([*tonight, *found, *failed]):
        what = confirmed.get(place, [])
        texts = [s.text for s in what or found.get(place, [])]
        status: Status = "fine" if place in good or place not in tonight else "new"
        if place in found:
            status = "worse" if what else "unconfirmed"
        still = [f for f in worse if f.place == place and f.since != night.started]
        if still:
            status = "worse"
            texts += [f"{f.name} is worse since {f.since[:10]}, and not repaired for certain" for f in still]
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
    fine = {r.place for r in rows if r.status in ("fine", "new", "accepted")}
    moved = {r.place for r in rows if r.status in ("new", "accepted")}
    gone = moved - tonight.keys()
    new_good = {
        p: Reference(row=p[0], data=p[1], runs=_stems(tonight, p), since=night.started) for p in tonight if p in fine
    }
    new_pinned = {p: r for p, r in new_good.items() if pin or p in moved or p not in pinned}
    wrong = {r.status for r in rows}
    state: State = "fine" if earlier is not None else "first"
    if "failed" in {*night.checks.values()} | wrong:
        state = "failed"
    if wrong & {"worse", "slower", "missing"}:
        state = "regression"
    why = " ".join(notes)
    if held and earlier is None and not {place for place in fine if place[1] != CANARY}:
        state, why = "broken", "The history is lost while something was worse: restore its branch, or accept rows."
    judged = replace(
        night,
        state=state,
        why=why,
        rows=rows,
        figures=[*night.figures, *figures],
        good=[r for p, r in (good | new_good).items() if p not in gone],
        pinned=[r for p, r in (pinned | new_pinned).items() if p not in gone],
        worse=worse,
    )
    return Judgement(judged, *against)


def _by_place(records: Iterable[RunRecord]) -> dict[Place, list[RunRecord]]:
    return grouped(records, lambda r: (r.row, r.data.name))


def _stems(places: Mapping[Place, Sequence[RunRecord]], place: Place) -> list[str]:
    return stems(places.get(place, ()))


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
    fell = {p for p, what in found.items() if any(s.kind in ("figure", "decline") for s in what)}
    explained = {s.name for p in fell for s in found[p] if s.kind == "claim"}
    for place in found.keys() - fell:
        found[place] = [s for s in found[place] if s.kind != "claim" or s.name not in explained]
        if not found[place]:
            del found[place]


def _values(name: str, runs: Sequence[RunRecord]) -> list[float]:
    """A figure of runs, as nights have it; nothing of what is no figure of theirs, or not finite."""
    which, _, metric = name.partition(" ")
    if which not in ("best", "last") or not all(metric in r.epochs[0].figures for r in runs):
        return []
    values = [round(v, 6 if abs(v) >= 0.1 else 9) for v in (r.figure(name) for r in runs)]
    return values if all(map(math.isfinite, values)) else []


def _confirm(
    study: Study,
    found: Mapping[Place, list[Suspicion]],
    sides: Sequence[Sequence[RunRecord]],
    levels: Levels,
    fresh: Mapping[Place, Sequence[RunRecord]],
) -> dict[Place, list[Suspicion]]:
    """The suspicions that hold with fresh seeds too, or that no seed can refute."""
    refuted: set[tuple[Place, str]] = set()
    for place, runs in fresh.items():
        for name in dict.fromkeys(s.name for s in found.get(place, ()) if s.kind == "figure"):
            level, values = levels.get((*place, name)), _values(name, runs)
            if level is not None and values and not level.fell(level.before, values):
                refuted.add((place, name))
    lost: set[tuple[Place, str]] = set()
    for side in sides:
        runs = [r for place in fresh for r in fresh[place]]
        for claim in compare_runs(study, [r for r in side if (r.row, r.data.name) in fresh], runs).claims:
            if claim.a is not None and claim.b is not None:
                places = {((row, claim.data), claim.claim) for row in claim.b.claim.rows}
                refuted |= places
                lost |= places if claim.kind == "lost" else set()
    refuted -= lost
    confirmed = {}
    for place, what in found.items():
        held = [s for s in what if s.kind in ("missing", "decline") or (place, s.name) not in refuted]
        if held:
            confirmed[place] = held
    return confirmed


def _repaired(
    finding: Finding,
    found: Mapping[Place, Sequence[Suspicion]],
    levels: Levels,
    runs: Mapping[Place, Sequence[RunRecord]],
    supported: Container[tuple[str, str]],
) -> bool:
    """Whether what was worse is not so any more, by as strong evidence.

    Args:
        found: what looks worse tonight.
        runs: tonight's, with fresh seeds.
        supported: claims, and on which data.
    """
    place = finding.place
    if place not in runs or any(s.name == finding.name or s.kind == "missing" for s in found.get(place, ())):
        return False
    level, values = levels.get((*place, finding.name)), _values(finding.name, runs[place])
    if not finding.values:
        return (finding.name, finding.data) in supported
    if level is None or not values:
        return False
    return level.fell(values, finding.values) and not level.fell(level.before, values)


def _measurements(place: Place, runs: Sequence[RunRecord], bounds: Bounds) -> list[Measurement]:
    """Best and last of every metric that all runs have, finite, but for losses."""
    row, data = place
    limits = bounds.rows.get(row, {}) if bounds.apply_to(runs[0].data.fingerprint) else {}
    found = []
    for metric in runs[0].metrics:
        for figure in (f"best {metric}", f"last {metric}"):
            values = dict(zip((str(r.seed) for r in runs), _values(figure, runs), strict=False))
            if values:
                bound = limits.get(figure)
                of_mean = bound.for_mean_of(len(runs)) if bound else None
                ends = {"low": of_mean.low, "high": of_mean.high} if of_mean else {}
                step = known_to(runs, values.values())
                found.append(Measurement(row=row, data=data, figure=figure, values=values, step=step, **ends))
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
    was neither, since it was last accepted: the last 30, and for times the first 10 too, which do not move with a slow
    slow-down.

    Args:
        nights: earlier ones, oldest first.
        limit: ratio of training times above which it is slower.
    """
    before: list[Canary] = []
    for night in reversed(nights):
        was = next((r.status for r in night.rows if r.place == (canary.row, CANARY)), None)
        if night.canary is not None and was in ("fine", "new", "accepted", "unconfirmed"):
            before.append(night.canary)
        if was == "accepted":
            break
    timed = [c for c in before if c.setup == canary.setup]
    same = [c for c in before[:_EARLIER] if c.configuration == canary.configuration]
    status: Status = "fine" if timed else "new"
    texts = []
    for which, side in (("last", timed[:_EARLIER]), ("first", timed[-_FIRST:])):
        if len(side) >= _FEWEST and status != "slower":
            change = time_change([s for c in side for s in c.seconds], canary.seconds, rows=2)
            if change.low > limit:
                status = "slower"
                texts.append(f"trains in {change.b:.1f} s, {change.ratio:.2f} times as long as in the {which} nights")
    if len(same) >= _FEWEST:
        for name, values in canary.values.items():
            old = [v for c in same for v in c.values.get(name, ())]
            if old:
                apart = dict(enumerate(values, start=len(old)))  # no common seeds: runs of many nights are not paired
                change_of = figure_change(dict(enumerate(old)), apart)
                if change_of.p_value < LEVEL / len(canary.values) and change_of.difference.mean < -_STEP:
                    status = "worse"
                    texts.append(f"{name} {change_of.a:.4f} to {change_of.b:.4f} with the same code and settings")
    return JudgedRow(row=canary.row, data=CANARY, status=status, why="; ".join(texts))
