"""The page of verdicts: which claims hold, how sure that is, and what the runs cannot show; made from records."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.files import write_atomically
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.evidence import Evidence, evidence, notes_by_data
from cvhw4.report.failures import BIASED, share
from cvhw4.report.figures import Picture, write_pictures
from cvhw4.report.numbers import data_of, difference, ends, interval_of, seeds_note, seeds_of, signed, tally, verdict
from cvhw4.report.reliability import (
    bounds_section,
    collapsed_section,
    details_section,
    noise_section,
    selection_section,
    sensitivity_section,
    shape_section,
    stability_section,
)
from cvhw4.report.runs import days, grouped, lower_note, metric_name, of_study, page_title, scope
from cvhw4.report.stored import Stored
from cvhw4.report.tables import Table
from cvhw4.report.text import escape, file_stem
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.intervals import FEWEST_FOR_SKEWNESS, OTHER_PICTURES, t_quantile
from cvhw4.statistics.published import stated
from cvhw4.statistics.sensitivity import detections
from cvhw4.statistics.verdicts import Outcome, ReadImages, judge_all
from cvhw4.study import Claim, Study

_KIND = "section"  # what the stems of its pictures begin with


def write_verdicts(stored: Stored, bounds: Bounds) -> Path:
    """Renders `<results>/<study>/verdicts.md` and its pictures from all stored runs; raises InputError where there is
    none, or the folder cannot be written to."""
    folder = stored.store.folder
    if not stored.records:
        raise InputError(stored.store.runs, "has no runs", "train the study first")
    of = stored
    page, pictures = verdicts_page(of.study, of.records, of.images, bounds, of.failures, of.outcomes)
    write_pictures(folder, pictures, [_KIND])
    write_atomically(folder / "verdicts.md", page)
    return folder / "verdicts.md"


def verdicts_page(
    study: Study,
    records: Sequence[RunRecord],
    read: ReadImages,
    bounds: Bounds,
    failures: Sequence[Failure] = (),
    judged: Sequence[Outcome] | None = None,
) -> tuple[str, list[Picture]]:
    """The page in Markdown, and its pictures.

    Args:
        records: runs, those of each row on each data set alike but for the seed; negative controls among them, as among
            `failures`.
        judged: what these runs say of the claims, where that is known already.
    """
    rows = of_study(study, records)
    if not any(bounds.apply_to(r.data.fingerprint) for r in rows):
        bounds = NO_BOUNDS  # those of other data have nothing to say here
    outcomes = judge_all(study, rows, read, bounds=bounds) if judged is None else judged
    sets = evidence(study, rows, read)
    own, pictures = _sections(study, sets)
    claims_failed = _failed(study, rows, of_study(study, failures))
    parts = [
        f"# {page_title(study, rows)}: what holds, and how sure",
        *_claims(study, outcomes, claims_failed, sets),
        _preamble(study, rows),
        *_controls(outcomes, claims_failed),
        *_other_figures(study, outcomes, bounds),
        *collapsed_section(sets, outcomes, bounds),
        *own,
        *selection_section(sets),
        *noise_section(sets),
        *details_section(outcomes, bounds),
        *stability_section(outcomes, bounds),
        *shape_section(outcomes, bounds),
        *_shown(sensitivity_section(detections(study, records, bounds), bounds), pictures),
        *bounds_section(study, bounds),
    ]
    return "\n\n".join(parts) + "\n", pictures


def section_pictures(study: Study, stored: Stored) -> list[Picture]:
    """The pictures of a study's own sections, each once."""
    sets = evidence(study, stored.rows, stored.images)
    return [part for e in sets for section in study.sections for part in section(e) if isinstance(part, Picture)]


def _sections(study: Study, sets: Sequence[Evidence]) -> tuple[list[str], list[Picture]]:
    """The study's own sections on every data set, each once where it says the same of several; and their pictures."""
    parts: list[str] = []
    pictures: list[Picture] = []
    seen: list[list[str | Picture]] = []
    for found, e in ((section(e), e) for section in study.sections for e in sets):
        if found not in seen:
            seen.append(found)
            parts += _shown(found, pictures, f" {e.data}")
    return parts, pictures


def _shown(found: Iterable[str | Picture], pictures: list[Picture], data: str = "") -> list[str]:
    """A section's parts as Markdown; its pictures are added to these."""
    parts = []
    for part in found:
        if isinstance(part, Picture):
            stem = f"{_KIND}-{file_stem(part.stem)}" + f"-{file_stem(data.strip())}" * bool(data)
            pictures.append(replace(part, stem=stem))
            part = pictures[-1].markdown
        parts.append(part)
    return parts


def _preamble(study: Study, records: Sequence[RunRecord]) -> str:
    numbers = sorted({len(of_row) for of_row in grouped(records, lambda r: (r.row, r.data.name)).values()})
    skewed = f", from {FEWEST_FOR_SKEWNESS} on that or with their skewness taken out (Hall), whichever is less sure"
    generated = {escape(r.data.name): " (generated pictures)" if r.data.embedded else "" for r in records}
    data = "; ".join(name + what for name, what in generated.items())
    about = "".join(f" {text}" for text in (escape(study.about), scope(records)) if text)
    what = "networks at this size" if study.train is None else "rows"
    equivalent = (
        "; *equivalent*: it is surely smaller than the smallest one of interest, by two one-sided tests, likewise"
        if any(claim.smallest for claim in study.claims)
        else ""
    )
    return (
        f"From {len(records)} runs of study `{study.name}`, {days(records)}, on {data}, {ends(numbers)} seeds a row; "
        "written by `cvhw4 report`, nothing by hand.\n\n"
        f"*Difference*: the mean over seeds, after the {study.epoch} epoch, the rule for all claims; of a claim about "
        "a figure, that figure."
        f"{lower_note(records)} A verdict is about these {what} on these data.{about} *Supported*: the difference lies "
        "above its margin, the paired t test over seeds being below 5 % after Holm's correction for the claims about "
        f"the same data; *contradicted*: below it, likewise{equivalent}; *undecided*: nothing of that. Tests and "
        f"intervals (95 %) are Student's t over seeds{skewed * (numbers[-1] >= FEWEST_FOR_SKEWNESS)}. An interval is "
        "for its claim alone, so that it may leave the margin out where the corrected verdict is still undecided."
    )


def _why_not(claim: Claim, sets: Sequence[Evidence]) -> str:
    """Why no data set has a verdict on a claim."""
    having, ran = [e for e in sets if e.runs.keys() >= set(claim.rows)], {row for e in sets for row in e.runs}
    if not having:
        return "its rows have no runs on the same data" if ran >= set(claim.rows) else "a row has no runs"
    if not any(e.seeds(*claim.rows) for e in having):
        return "its rows have no seed in common"
    if claim.worse is None and all(r.data.embedded for e in having for row in claim.rows for r in e.runs[row]):
        return "about a figure on real data, of which generated pictures say nothing"
    return "a figure is missing or not a number"


def _claims(study: Study, outcomes: Sequence[Outcome], lost: Mapping[str, str], sets: Sequence[Evidence]) -> list[str]:
    """The verdicts on one screen, and what has to be said beside them."""
    sentences = {c.id: escape(c.sentence) for c in study.claims}
    lines = [f"- {sentences[id]}: {seeds}." for id, seeds in lost.items()]
    told = {c.id: [(e, text) for e in sets if (text := c.note(e))] for c in study.claims if c.note}
    of_runs = [f"- {sentences[id]}{f' ({e.title})' * (len(of) > 1)}: {t}." for id, of in told.items() for e, t in of]
    notes = ["\n".join(lines), BIASED] if lost else []
    of_data = notes_by_data(sets)
    if not outcomes:
        nothing = ["## The claims", "No claim has runs of all its rows yet."] if study.claims else []
        return [*nothing, *notes, *of_data]
    known = {o.claim.id for o in outcomes}
    missing = [f"{escape(c.sentence)} ({_why_not(c, sets)})" for c in study.claims if c.id not in known]
    own = [o for o in outcomes if not o.claim.control]
    rows = [row for o in own if o.verdict != OTHER_PICTURES for row in o.claim.rows]
    alike = f" They share {len(set(rows))} rows, so that they are not as many independent findings."
    parts = ["## The claims"]
    if own:
        parts += [claims_table(own, lost).markdown(), tally(own) + "." + alike * (len(rows) > len(set(rows)))]
        parts += [seeds_note(own)] * bool(seeds_note(own))
    parts += ["\n".join(of_runs)] * bool(of_runs) + [*notes, *of_data]
    return [*parts, f"Not judged: {'; '.join(missing)}."] if missing else parts


def _controls(outcomes: Sequence[Outcome], failed: Container[str]) -> list[str]:
    controls = [o for o in outcomes if o.claim.control]
    about = "They check the study itself: each is judged by itself, and none counts among the claims above."
    return ["### Controls", claims_table(controls, failed).markdown(), about] if controls else []


def claims_table(outcomes: Sequence[Outcome], failed: Container[str] = ()) -> Table:
    """Claim, size, interval and verdict; the data where a claim is judged on several. `failed` are those, by id, that
    have rows of which seeds failed."""
    return Table.of(
        {
            "claim": escape(o.claim.sentence),
            **data_of(o, outcomes),
            "figure": metric_name(o.claim.metric),
            "difference": difference(o),
            "95 % interval": interval_of(o),
            "verdict": verdict(o),
            "n": seeds_of(o) + (", others failed" if o.claim.id in failed else ""),
        }
        for o in outcomes
    )


def _other_figures(study: Study, outcomes: Sequence[Outcome], bounds: Bounds) -> list[str]:
    """The claims by the other epoch and as published, and which of them a build guards."""
    nightly = {claim.id for claim in study.nightly_claims}
    lines, inside, sized = [], [], 0
    rule = "best" if study.epoch == "last" else "last"
    for o in outcomes:
        one, claim, other = stated(o.claim, study), o.claim, o.other_epoch
        best = o if o.epoch == "best" else other
        guarded = claim.id in nightly and bounds.apply_to(o.fingerprint) and bounds.guards(claim)
        lines.append(
            {
                "claim": claim.id,
                **data_of(o, outcomes),
                f"{rule} epoch": "-" if other is None else difference(other),
                "95 % interval": "-" if other is None else interval_of(other),
                "verdict by it": "-" if other is None else other.verdict,
                "published": "-" if math.isnan(one.difference) else signed(one.difference, claim),
                "guarded": "yes" if guarded else "no",
            }
        )
        if best is not None and not math.isnan(one.difference) and claim.worse is not None and best.difference.n > 1:
            sized += 1
            n, errors = best.difference.n, [0.0]
            if not o.redrawn:  # or the spread over seeds has the images' part in it
                errors += [one.images.error] if one.images is not None else []
                errors += [math.sqrt(o.noise.mean_variance)] if o.noise is not None else []
            sd, freedom = best.comparison.sd, best.comparison.freedom
            half = t_quantile(0.975, freedom) * math.hypot(sd * math.sqrt(1 + 1 / n), *errors)
            inside += [escape(claim.sentence)] * (abs(one.difference - best.difference.mean) <= half)
    if not lines:
        return []
    parts = [
        f"## By the {rule} epoch{', and as published' * any(line['published'] != '-' for line in lines)}",
        Table.of(lines, ["guarded"] * (not bounds.claims), optional=["published"]).markdown(),
    ]
    if bounds.claims:
        parts.append(
            "*Guarded*: whether a build fails when the claim no longer holds in the mean of "
            f"{bounds.seeds} seeds; where the spread over seeds is too large to promise that, it checks the difference "
            "against its bound alone."
        )
    if sized:
        parts.append(
            f"Published differences are taken as of one run each, and of best epochs. Of {sized}, {len(inside)} "
            f"lie{'s' * (len(inside) == 1)} within the 95 % prediction interval of one more run here, with another "
            f"seed and{', for accuracies,' * (not any(o.redrawn for o in outcomes))} other images"
            f"{': ' * bool(inside) + '; '.join(inside)}. Single runs spread more than the means that verdicts are "
            "about, so that one may lie there although its claim is contradicted. Other data and networks give other "
            "sizes."
        )
    return parts


def _failed(study: Study, records: Sequence[RunRecord], failures: Sequence[Failure]) -> dict[str, str]:
    """The claims, by id, that have rows of which seeds failed, and how many of each did."""
    shares = {
        (row, data): f"{share([r for r in records if (r.row, r.data.name) == (row, data)], of_row)} in {row} on "
        f"{escape(data)}"
        for (row, data), of_row in grouped(failures, lambda f: (f.row, f.data)).items()
    }
    of_claim = {c.id: [text for (row, _), text in shares.items() if row in c.rows] for c in study.claims}
    return {id: ", ".join(texts) for id, texts in of_claim.items() if texts}
