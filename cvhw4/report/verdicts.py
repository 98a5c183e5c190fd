"""The page "What the report got right, and what its runs could not show", made from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cvhw4.claims import CLAIMS, claims_of
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES, Experiment, Profile
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import Store, write_atomically
from cvhw4.report.ablations import (
    decomposition_section,
    evidence,
    factorial_section,
    noise_section,
    notes_by_data,
    selection_section,
    skips_section,
)
from cvhw4.report.failures import BIASED, share
from cvhw4.report.figures import Picture, write_pictures
from cvhw4.report.stored import Stored
from cvhw4.report.tables import by_id, interval, markdown, metric_name, p_value
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import Bounds, Check, held_out
from cvhw4.statistics.comparison import binomial_comparison, pooled_pairing, rounding_sd, seeds_to_decide
from cvhw4.statistics.sensitivity import DETECTED, Detection, detections, least
from cvhw4.statistics.simulation import null_table, stability
from cvhw4.statistics.verdicts import REPORTED_IMAGES, Outcome, judge_all, stated

FEW = 5  # seeds of the draws that are held against all seeds
_DRAWS = 1000


def write_verdicts(profile: Profile, store: Store, bounds: Bounds, stored: Stored | None = None) -> Path:
    """Renders `<results>/<profile>/verdicts.md` and its pictures from all stored runs.

    Args:
        stored: what is in the store, where it has been read already.

    Raises:
        InputError: the folder cannot be written to, or no run is stored.
    """
    s = stored or Stored(profile, store)
    if not s.records:
        raise InputError(store.runs, "has no runs", "run pytest benchmarks first")
    page, pictures = verdicts_page(profile, s.records, s.images, bounds, s.failures, s.outcomes)
    write_pictures(store.folder, pictures, ["decomposition"])
    path = store.folder / "verdicts.md"
    write_atomically(path, page)
    return path


def verdicts_page(
    profile: Profile,
    records: Sequence[RunRecord],
    read: Callable[[RunRecord], ImageResults | None],
    bounds: Bounds,
    failures: Sequence[Failure] = (),
    judged: Sequence[Outcome] | None = None,
) -> tuple[str, list[Picture]]:
    """The page in markdown, and its pictures.

    Args:
        records: runs, those of each row on each data set all of one study; negative controls among them.
        read: gives what a run made of every validation image, None where that is not stored.
        bounds: what controls are held against, and what guards a claim in a build.
        failures: the runs that failed, those of each row on each data set all of one study.
        judged: what these runs say of the claims, where that is known already.
    """
    known = {row.id for row in profile.rows}
    rows = [r for r in records if r.id in known]
    title = "What the report got right, and what its runs could not show"
    outcomes = judge_all(profile, rows, read) if judged is None else judged
    sets = evidence(rows, read)
    reported = PROFILES["full"].rows
    pictures: list[Picture] = []
    parts = [
        f"# {f'{escape(profile.title)}: what holds, and how sure' if profile.own else title}",
        _preamble(profile, rows),
        *_claims(profile, outcomes, reported, bounds, _failed(profile, rows, failures), notes_by_data(sets)),
        *([] if profile.own else _single_runs(reported)),
        *(part for e in sets for part in skips_section(e)),
        *(part for e in sets for part in decomposition_section(e, pictures)),
        *(part for e in sets for part in factorial_section(e, profile)),
        *selection_section(sets, profile),
        *noise_section(sets, profile),
        *_details(outcomes),
        *_stability(outcomes),
        *_null(outcomes),
        *_sensitivity(detections(profile, records, bounds), bounds),
        *_unseen(held_out(profile, rows, bounds), bounds),
    ]
    return "\n\n".join(parts) + "\n", pictures


def _preamble(profile: Profile, records: Sequence[RunRecord]) -> str:
    days = sorted({escape(r.started[:10]) for r in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    seeds = sorted({len({r.seed for r in of_row}) for of_row in by_id(records).values()})
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    data = ", ".join(dict.fromkeys(escape(r.data.name) for r in records))
    return (
        f"From {len(records)} runs, {when}, profile `{profile.name}` on {data}, {span} seeds a row; written by "
        f"`cvhw4 report {'--ablation FILE' if profile.own else f'--profile {profile.name}'}`, nothing by hand.\n\n"
        f"{_standing_in(profile, records)} *Supported*: the difference lies above its margin, the paired t test over "
        "seeds being below 5 % after Holm's correction for all claims together; *contradicted*: below it, likewise; "
        "*undecided*: neither. Intervals are 95 %, Student's t over seeds: with 3 to 20 seeds the normal interval "
        "would be too narrow, and a bootstrap has too few runs to draw from."
    )


def _standing_in(profile: Profile, records: Sequence[RunRecord]) -> str:
    """What a verdict is about: which networks stand for the report's, on which data."""
    reports = {row.row: row.network for row in PROFILES["full"].rows}
    ran = {r.row for r in records}
    swaps = {
        f"{row.network} for {reports[row.row]}": None
        for row in profile.rows
        if row.row in ran and reports.get(row.row, row.network) != row.network
    }
    data = dict.fromkeys(f"{escape(r.data.name)}{' (generated pictures)' if r.data.embedded else ''}" for r in records)
    networks = f", with {', '.join(swaps)}" if swaps else ""
    if profile.own:
        return f"A verdict is about these networks at this size on these data: {', '.join(data)}."
    return (
        f"A verdict is about these networks at this size on these data: {', '.join(data)}{networks}. Whether it "
        "carries over to the report's own pictures, networks and sizes, only the full profile on those can tell."
    )


def _claims(
    profile: Profile,
    outcomes: Sequence[Outcome],
    reported: Sequence[Experiment],
    bounds: Bounds,
    failed: Mapping[str, str],
    of_data: Sequence[str],
) -> list[str]:
    sentences = {c.id: escape(c.sentence) for c in claims_of(profile)}
    notes = ["\n".join(f"- {sentences[id]}: {seeds}." for id, seeds in failed.items()), BIASED] if failed else []
    if not outcomes:
        return ["## The claims", "No claim has runs of all its rows yet.", *notes, *of_data]
    judged = {o.claim.id for o in outcomes}
    missing = [c for c in claims_of(profile) if c.id not in judged]
    why = {True: "a figure on the report's data, which embedded data cannot bear out", False: "a row has no runs"}
    left_out = "; ".join(f"{escape(c.sentence)} ({why[c.worse is None and not profile.own]})" for c in missing)
    table = claims_overview(outcomes, reported, _guards(profile, bounds), failed)
    guarded = (
        " *Guarded*: whether `make bench` fails when the claim no longer holds in the mean of "
        f"{bounds.seeds} seeds; where the spread over seeds is too large to promise that, it checks the difference "
        "against its bound alone."
    )
    return [
        "## The claims",
        markdown(table.drop(columns=["report", "its one run shows", "guarded"]) if profile.own else table),
        *notes,
        *of_data,
        "*Here*: mean over seeds of the difference of best epochs. *With other images*: the interval if the validation "
        "images were drawn anew as well, from a bootstrap over images (by class, and the same images in both arms); "
        '"as wide" where they add nothing that the seeds\' spread does not cover.' + ("" if profile.own else guarded),
        *([f"Not judged: {left_out}."] if left_out else []),
        *_in_words(outcomes, reported),
    ]


def _failed(profile: Profile, records: Sequence[RunRecord], failures: Sequence[Failure]) -> dict[str, str]:
    """The claims, by id, that have rows of which seeds failed, and how many of each did."""
    broken: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        broken.setdefault((failure.row, failure.data), []).append(failure)
    told = {
        (row, data): f"{share([r for r in records if (r.row, r.data.name) == (row, data)], of_row)} in {row} on "
        f"{escape(data)}"
        for (row, data), of_row in broken.items()
    }
    shares = {c.id: [text for (row, _), text in told.items() if row in c.rows] for c in claims_of(profile)}
    return {id: ", ".join(texts) for id, texts in shares.items() if texts}


def _guards(profile: Profile, bounds: Bounds) -> set[str]:
    """The claims, by id, whose failing fails a nightly session."""
    nightly = {row.row for row in profile.rows if row.group == "report"}
    return {c.id for c in claims_of(profile) if nightly.issuperset(c.rows) and bounds.guards(c)}


def claims_overview(
    outcomes: Sequence[Outcome],
    reported: Sequence[Experiment],
    guarded: Container[str],
    failed: Container[str] = (),
) -> pd.DataFrame:
    """The table that README shows first: what was claimed, what one run could show, and what the seeds say.

    Args:
        outcomes: what the runs say.
        reported: experiments that carry the report's figures.
        guarded: claims, by id, whose failing fails a build on embedded data.
        failed: claims, by id, that have rows of which seeds failed.
    """
    lines = []
    for o in outcomes:
        one = stated(o.claim, reported)
        both = o.with_other_images
        lines.append(
            {
                "claim": escape(o.claim.sentence) + (" *(control)*" if o.claim.control else ""),
                "figure": metric_name(o.claim.metric),
                "report": "-" if math.isnan(one.difference) else f"{one.difference:{_sign(o)}.4f}",
                "its one run shows": f"{one.verdict} (p {p_value(one.p_value)})" if one.verdict else _nothing(o, one),
                "here": f"{o.difference.mean:{_sign(o)}.4f}",
                "95 % interval": interval(o.difference),
                "seeds": str(o.difference.n) + (", others failed" if o.claim.id in failed else ""),
                "verdict": f"**{o.verdict}**",
                "with other images": "-"
                if both is None or both.estimate.n == 1
                else _wider(o, interval(both.estimate)),
                "guarded": "yes" if o.embedded and o.claim.id in guarded else "no",
            }
        )
    return pd.DataFrame(lines)


def _nothing(o: Outcome, one: object) -> str:
    if o.claim.control:
        return "-"
    return "no figure" if math.isnan(getattr(one, "difference", math.nan)) else "nothing: no error"


def _wider(o: Outcome, text: str) -> str:
    return "as wide" if text == interval(o.difference) else text


def _sign(o: Outcome) -> str:
    return "" if o.claim.worse is None else "+"


def _in_words(outcomes: Sequence[Outcome], reported: Sequence[Experiment]) -> list[str]:
    lines = []
    open_ = [o for o in outcomes if o.verdict == "undecided"]
    for verdict in ("supported", "contradicted", "undecided"):
        found = [o for o in outcomes if o.verdict == verdict]
        if found:
            names = "; ".join(escape(o.claim.sentence) + _to_decide(o, len(open_)) for o in found)
            lines.append(f"- **{verdict.capitalize()}** ({len(found)} of {len(outcomes)}): {names}.")
    sized = [
        (o, o.difference.low <= one.difference <= o.difference.high)
        for o in outcomes
        for one in [stated(o.claim, reported)]
        if not math.isnan(one.difference) and o.claim.worse is not None and o.difference.n > 1
    ]
    if sized:
        inside = [o.claim.sentence for o, fits in sized if fits]
        lines.append(
            f"- **How large**: of {len(sized)} differences that the report states, {len(inside)} lie inside the "
            f"interval here{' (' + '; '.join(inside) + ')' if inside else ''}. Other data and networks give other "
            "sizes."
        )
    return ["\n".join(lines)]


def _to_decide(o: Outcome, together: int) -> str:
    if o.verdict != "undecided":
        return ""
    if o.difference.n < 2:
        return " (one seed tells no spread)"
    seen, best, _ = seeds_to_decide(o.comparison, 0.05 / together)
    if seen is None:
        return f" (no number of seeds in sight, {best} at best)" if best else " (no number of seeds in sight)"
    return f" (about {seen} seeds would decide it if the mean and spread seen were the true ones, {best} at best)"


def _single_runs(reported: Sequence[Experiment]) -> list[str]:
    """What the report's own figures could show."""
    figures = {(row.row, metric): value for row in reported for metric, value in row.reported.figures.items()}
    lines = []
    for claim in CLAIMS:
        one = stated(claim, reported)
        if one.verdict is None:
            continue
        values = [figures[row, claim.metric] for row in claim.rows]
        worse = values[1] if claim.worse is not None else None
        by_images = binomial_comparison(values[0], worse, REPORTED_IMAGES, claim.margin)
        held = claim.margin if worse is None else worse
        lines.append(
            {
                "claim": claim.sentence,
                "report": f"{values[0]:.4f} against {held:.4f}",
                "difference": f"{values[0] - held:+.4f}",
                "95 % interval": f"[{by_images.low:.4f}, {by_images.high:.4f}]"
                + (" of the figure" if worse is None else ""),
                "p": p_value(one.p_value),
                "so its images show": one.verdict,
            }
        )
    return [
        "## What the report's own runs could show",
        f"Each of its Q1 figures is the share of {REPORTED_IMAGES} validation images, from one run. From the binomial "
        "error of those images alone (the spread between seeds, which one run does not show, comes on top; that the "
        "images are the same in both would narrow it by an amount the report does not state):",
        markdown(pd.DataFrame(lines)),
        "Its Q2 figures have no such error: pixels of one image are not independent, and its figures by image are not "
        "stated. About mIoU and pixel accuracy one run shows nothing but itself.",
    ]


def _details(outcomes: Sequence[Outcome]) -> list[str]:
    """The rest of what the comparisons say."""
    lines = []
    for o in outcomes:
        c, both = o.comparison, o.with_other_images
        if o.difference.n < 2:
            continue
        seen, best, worst = seeds_to_decide(c)
        lines.append(
            {
                "claim": o.claim.id,
                "p": p_value(c.p_value),
                "p (Holm)": p_value(o.adjusted_p),
                "p (sign flips)": p_value(c.permutation_p),
                "p with other images": "-" if both is None else p_value(both.p_value(o.claim.margin)),
                "effect size": "-" if math.isnan(c.effect) else f"{c.effect:.2f}",
                "P(A > B)": f"{c.superiority:.2f} [{c.superiority_low:.2f}, {c.superiority_high:.2f}]",
                "correlation": "-" if math.isnan(c.correlation) else f"{c.correlation:+.2f}",
                "pairing": "-" if math.isnan(c.pairing) else f"{c.pairing:.2f}",
                "seeds to decide": f"{seen or '-'} ({best or '-'} to {worst or 'none'})",
                "n": str(o.difference.n),
            }
        )
    if not lines:
        return []
    paired = [o.comparison for o in outcomes if not math.isnan(o.comparison.pairing)]
    pooled = ""
    if len(paired) > 1:
        mean, low, high = pooled_pairing(paired)
        pooled = f" Over all claims (geometric mean; they share rows): {mean:.2f} [{low:.2f}, {high:.2f}]."
    return [
        "## The comparisons in full",
        "*Effect size*: Cohen's d of the paired differences, with Hedges' correction. *P(A > B)*: probability that one "
        "run of the better row beats one of the worse, with a Wilson interval. *Pairing*: the rows of a comparison "
        "share seeds and order, and augmentation where it is not what they compare; variance of the difference were "
        "they not paired, over that as it is: 2.00 halves the runs needed, 1.00 gains nothing, less than 1 costs. By "
        f"itself each ratio is rough.{pooled} *Seeds to decide*: for the t test at 5 % to decide 90 times in 100, at "
        "the mean and spread seen, and at the ends of the effect's interval (before Holm's correction). *p with other "
        "images*: both sources of noise, not corrected.",
        markdown(pd.DataFrame(lines)),
    ]


def _stability(outcomes: Sequence[Outcome]) -> list[str]:
    """How often few seeds give the verdict of all."""
    parts: list[str] = []
    for data, seeds in dict.fromkeys((o.data, o.seeds) for o in outcomes):
        family = [o for o in outcomes if (o.data, o.seeds) == (data, seeds)]
        if len(seeds) <= FEW:
            continue
        floors = [rounding_sd(o.resolution) for o in family]
        margins = [o.claim.margin for o in family]
        rng = np.random.default_rng(0)
        found = stability([o.differences for o in family], margins, rng, FEW, _DRAWS, floors=floors)
        ways = math.comb(len(seeds), FEW)
        drawn = f"all {ways}" if ways <= _DRAWS else f"{_DRAWS:,}"
        lines = [
            {
                "claim": o.claim.id,
                "verdict of all": o.verdict,
                "the same": f"{100 * s.same:.1f} %",
                "undecided": f"{100 * s.undecided:.1f} %",
                "the opposite": f"{100 * s.opposite:.1f} %",
            }
            for o, s in zip(family, found, strict=True)
        ]
        parts += [f"{escape(data)}, {drawn} draws of {FEW} of {len(seeds)} seeds:", markdown(pd.DataFrame(lines))]
    if not parts:
        return []
    return [
        f"## Would {FEW} seeds have been enough?",
        "The same seeds are drawn for all claims of a table, which are judged anew, together: how often they say what "
        "all seeds, judged in the same way, say.",
        *parts,
    ]


def _null(outcomes: Sequence[Outcome]) -> list[str]:
    if not outcomes:
        return []
    images = next((o.images for o in outcomes if o.claim.metric == "accuracy"), 80)
    lines = [
        {
            "spread": row["spread"],
            "seeds": str(row["seeds"]),
            "a verdict is wrong": _share(row["wrong"], row["wrong_se"]),
            f"any of {len(outcomes)}, after Holm": _share(row["family"], row["family_se"]),
            "the interval covers": _share(row["coverage"], row["coverage_se"]),
        }
        for row in null_table(np.random.default_rng(0), claims=len(outcomes), images=images)
    ]
    return [
        "## How often verdicts are wrong",
        f"Up to 10,000 simulated studies of {len(outcomes)} claims, none of which holds; stated rate 5 %, stated "
        f"coverage 95 %; ± the Monte Carlo standard error. *Accuracies*: shares of {images} images, equal by chance "
        "now and then; the verdicts above know their resolution. *Seeds and images*: both drawn anew, as the intervals "
        "with other images have it.",
        markdown(pd.DataFrame(lines)),
    ]


def _share(value: float | str, error: float | str) -> str:
    return "-" if math.isnan(float(value)) else f"{100 * float(value):.2f} ± {100 * float(error):.2f} %"


def _sensitivity(found: Sequence[Detection], bounds: Bounds) -> list[str]:
    """What the negative controls say of the bounds."""
    if not found:
        return []
    enough: Mapping[str, float | None] = {d.control.name: least(found, d.control) for d in found}
    lines = [
        {
            "sabotage": d.control.words.format(d.strength)
            + (" **(least)**" if d.strength == enough[d.control.name] else ""),
            "row": d.control.row,
            "noticed by": escape(d.figure),
            "mean": f"{d.mean:.4f}",
            "bound": f"[{d.bound.low:.4f}, {d.bound.high:.4f}]",
            "n": str(d.n),
            "a bound missed": "yes" if d.caught else "no",
            "chance per night": f"{d.probability:.2f} (at least {d.low:.2f})",
        }
        for d in found
    ]
    return [
        "## Negative controls: how little sabotage the bounds notice",
        f"Rows spoilt on purpose, held against the bounds of the row they spoil. *Chance per night*: that a session of "
        f"{bounds.seeds} seeds misses that bound, going by these few runs, and the lower end of its 95 % interval. "
        f"*Least*: the weakest sabotage tried that is noticed with a chance of {DETECTED} or more. All bounds together "
        f"raise a false alarm in {100 * bounds.false_alarms:g} % of nights.",
        markdown(pd.DataFrame(lines)),
    ]


def _unseen(checks: Sequence[tuple[RunRecord, Check]], bounds: Bounds) -> list[str]:
    """What the stated rate of false alarms is worth on the runs themselves."""
    if not checks:
        return []
    missed = [(run, check) for run, check in checks if not check.met]
    nights = {(run.data.fingerprint, run.seed) for run, _ in missed}
    seeds = len({run.seed for run, _ in checks})
    about = (
        f"Every run held against bounds made of its row's other seeds: {len(missed)} of {len(checks)} figures fall "
        f"outside, in runs of {len(nights)} of {seeds} seeds. The bounds are made for normal spreads, at a rate of "
        f"{100 * bounds.false_alarms:g} % of nights; a row whose seeds fall into groups has more alarms, and wider "
        "bounds once such a seed is among those it is calibrated on."
    )
    lines = [
        {
            "row": run.id,
            "seed": str(run.seed),
            "figure": escape(check.name),
            "value": f"{check.value:.4f}",
            "bound without it": f"[{check.bound.low:.4f}, {check.bound.high:.4f}]",
        }
        for run, check in missed
    ]
    table = [markdown(pd.DataFrame(lines))] if lines else []
    return ["## The bounds on runs they were not made of", about, *table]
