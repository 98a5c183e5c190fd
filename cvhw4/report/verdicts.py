"""The page of verdicts: which claims hold, how sure that is, and what the runs cannot show; made from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.files import write_atomically
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.report.evidence import Evidence, evidence, notes_by_data
from cvhw4.report.failures import BIASED, share
from cvhw4.report.figures import Picture, write_pictures
from cvhw4.report.numbers import difference, ends, interval, p_value
from cvhw4.report.reliability import (
    details_section,
    held_out_section,
    noise_section,
    selection_section,
    sensitivity_section,
    stability_section,
)
from cvhw4.report.runs import by_row, days, lower_note, metric_name
from cvhw4.report.stored import Stored
from cvhw4.report.tables import Table
from cvhw4.report.text import escape, file_stem
from cvhw4.statistics.bounds import Bounds, held_out
from cvhw4.statistics.power import seeds_to_decide
from cvhw4.statistics.published import Stated, stated
from cvhw4.statistics.sensitivity import detections
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study

_KIND = "section"  # what the stems of its pictures begin with


def write_verdicts(stored: Stored, bounds: Bounds) -> Path:
    """Renders `<results>/<study>/verdicts.md` and its pictures from all stored runs.

    Raises:
        InputError: the folder cannot be written to, or no run is stored.
    """
    folder = stored.store.folder
    if not stored.records:
        raise InputError(stored.store.runs, "has no runs", "train the study first")
    page, pictures = verdicts_page(
        stored.study, stored.records, stored.images, bounds, stored.failures, stored.outcomes
    )
    write_pictures(folder, pictures, [_KIND])
    write_atomically(folder / "verdicts.md", page)
    return folder / "verdicts.md"


def verdicts_page(
    study: Study,
    records: Sequence[RunRecord],
    read: Callable[[RunRecord], ImageResults | None],
    bounds: Bounds,
    failures: Sequence[Failure] = (),
    judged: Sequence[Outcome] | None = None,
) -> tuple[str, list[Picture]]:
    """The page in Markdown, and its pictures.

    Args:
        records: runs, those of each row on each data set alike but for the seed; negative controls among them.
        read: gives what a run made of every validation image, None where that is not stored.
        bounds: what controls are held against, and what guards a claim in a build.
        failures: the runs that failed, likewise.
        judged: what these runs say of the claims, where that is known already.
    """
    rows = [r for r in records if r.row in study.rows]
    outcomes = judge_all(study, rows, read) if judged is None else judged
    sets = evidence(study, rows, read)
    of_study, pictures = _sections(study, sets)
    parts = [
        f"# {escape(study.title)}: what holds, and how sure",
        _preamble(study, rows),
        *_claims(study, outcomes, bounds, _failed(study, rows, failures), notes_by_data(sets)),
        *of_study,
        *selection_section(sets),
        *noise_section(sets),
        *details_section(outcomes),
        *stability_section(outcomes),
        *sensitivity_section(detections(study, records, bounds), bounds),
        *held_out_section(held_out(study, rows, bounds), bounds),
    ]
    return "\n\n".join(parts) + "\n", pictures


def section_pictures(study: Study, stored: Stored) -> list[Picture]:
    """The pictures of a study's own sections, each once."""
    found = [
        part for e in evidence(study, stored.rows, stored.images) for section in study.sections for part in section(e)
    ]
    return [part for part in found if isinstance(part, Picture)]


def _sections(study: Study, sets: Sequence[Evidence]) -> tuple[list[str], list[Picture]]:
    """The study's own sections on every data set, each once where it says the same of several; and their pictures."""
    parts: list[str] = []
    pictures: list[Picture] = []
    seen: list[list[str | Picture]] = []
    for section in study.sections:
        for e in sets:
            found = section(e)
            if found in seen:
                continue
            seen.append(found)
            for part in found:
                if isinstance(part, Picture):
                    part = replace(part, stem=f"{_KIND}-{file_stem(f'{part.stem} {e.data}')}")
                    pictures.append(part)
                parts.append(part.markdown if isinstance(part, Picture) else part)
    return parts, pictures


def _preamble(study: Study, records: Sequence[RunRecord]) -> str:
    seeds = ends(sorted({len(of_row) for of_row in by_row(records).values()}))
    generated = {escape(r.data.name): " (generated pictures)" if r.data.embedded else "" for r in records}
    data = ", ".join(name + what for name, what in generated.items())
    about = f" {escape(study.about)}" if study.about else ""
    what = "networks at this size" if study.train is None else "rows"
    return (
        f"From {len(records)} runs of study `{study.name}`, {days(records)}, on {data}, {seeds} seeds a row; written "
        "by `cvhw4 report`, nothing by hand.\n\n"
        f"A verdict is about these {what} on these data.{about} *Supported*: the difference lies above "
        "its margin, the paired t test over seeds being below 5 % after Holm's correction for all claims together; "
        "*contradicted*: below it, likewise; *undecided*: neither. Intervals are 95 %, Student's t over seeds: with 3 "
        "to 20 seeds the normal interval would be too narrow, and a bootstrap has too few runs to draw from."
    )


def _claims(
    study: Study,
    outcomes: Sequence[Outcome],
    bounds: Bounds,
    failed: Mapping[str, str],
    of_data: Sequence[str],
) -> list[str]:
    sentences = {c.id: escape(c.sentence) for c in study.claims}
    notes = ["\n".join(f"- {sentences[id]}: {seeds}." for id, seeds in failed.items()), BIASED] if failed else []
    if not outcomes:
        return ["## The claims", "No claim has runs of all its rows yet.", *notes, *of_data]
    known = {o.claim.id for o in outcomes}
    why = {True: "about a figure on real data, of which generated pictures say nothing", False: "a row has no runs"}
    missing = [f"{escape(c.sentence)} ({why[c.worse is None]})" for c in study.claims if c.id not in known]
    images = (
        " *With other images*: the interval for other validation images as well, from a bootstrap over images (by "
        'class, and the same images in both rows); "as wide" where they add nothing that the seeds\' spread '
        "does not cover."
    )
    guarded = (
        " *Guarded*: whether a build fails when the claim no longer holds in the mean of "
        f"{bounds.seeds} seeds; where the spread over seeds is too large to promise that, it checks the difference "
        "against its bound alone."
    )
    return [
        "## The claims",
        claims_overview(study, outcomes, bounds, failed).markdown(),
        *notes,
        *of_data,
        "*Here*: mean over seeds of the difference of best epochs."
        + (images if study.train is None else "")
        + lower_note(study)
        + (guarded if bounds.claims else ""),
        *([f"Not judged: {'; '.join(missing)}."] if missing else []),
        *_in_words(study, outcomes),
    ]


def _failed(study: Study, records: Sequence[RunRecord], failures: Sequence[Failure]) -> dict[str, str]:
    """The claims, by id, that have rows of which seeds failed, and how many of each did."""
    broken: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        broken.setdefault((failure.row, failure.data), []).append(failure)
    shares = {
        (row, data): f"{share([r for r in records if (r.row, r.data.name) == (row, data)], of_row)} in {row} on "
        f"{escape(data)}"
        for (row, data), of_row in broken.items()
    }
    of_claim = {c.id: [text for (row, _), text in shares.items() if row in c.rows] for c in study.claims}
    return {id: ", ".join(texts) for id, texts in of_claim.items() if texts}


def claims_overview(study: Study, outcomes: Sequence[Outcome], bounds: Bounds, failed: Container[str] = ()) -> Table:
    """What was claimed, what a publication's one run could show, and what the seeds say.

    Args:
        outcomes: what the runs say.
        bounds: say which claims a build guards, on their data.
        failed: claims, by id, that have rows of which seeds failed.
    """
    nightly = {claim.id for claim in study.nightly_claims}
    lines = []
    for o in outcomes:
        one, both, claim = stated(o.claim, study), o.with_other_images, o.claim
        guarded = claim.id in nightly and bounds.apply_to(o.fingerprint) and bounds.guards(claim)
        sign = "" if claim.worse is None else "+"
        lines.append(
            {
                "claim": escape(claim.sentence) + (" *(control)*" if claim.control else ""),
                "figure": metric_name(claim.metric),
                "published": "-" if math.isnan(one.difference) else f"{one.difference:{sign}.4f}",
                "its one run shows": f"{one.verdict} (p {p_value(one.p_value)})" if one.verdict else _nothing(o, one),
                "here": difference(o),
                "95 % interval": interval(o.difference),
                "seeds": str(o.difference.n) + (", others failed" if claim.id in failed else ""),
                "verdict": f"**{o.verdict}**",
                "with other images": "-" if both is None else _wider(o, interval(both.estimate)),
                "guarded": "yes" if guarded else "no",
            }
        )
    without = [] if study.published else ["published", "its one run shows"]
    if study.train is not None:
        without.append("with other images")
    return Table.of(lines, without if bounds.claims else [*without, "guarded"])


def _nothing(o: Outcome, one: Stated) -> str:
    if o.claim.control:
        return "-"
    return "no figure" if math.isnan(one.difference) else "nothing (no error known)"


def _wider(o: Outcome, text: str) -> str:
    return "as wide" if text == interval(o.difference) != "-" else text


def _in_words(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
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
        for one in [stated(o.claim, study)]
        if not math.isnan(one.difference) and o.claim.worse is not None and o.difference.n > 1
    ]
    if sized:
        inside = [o.claim.sentence for o, fits in sized if fits]
        lines.append(
            f"- **How large**: of {len(sized)} published differences, {len(inside)} lie inside the "
            f"interval here{' (' + '; '.join(inside) + ')' if inside else ''}. Other data and networks give other "
            "sizes."
        )
    return ["\n".join(lines)]


def _to_decide(o: Outcome, together: int) -> str:
    if o.verdict != "undecided":
        return ""
    if o.difference.n < 2:
        return " (one seed has no spread)"
    seen, best, _ = seeds_to_decide(o.comparison, 0.05 / together)
    if seen is None:
        return " (no feasible number of seeds would decide it" + (f", {best} at best)" if best else ")")
    return f" (about {seen} seeds would decide it if the mean and spread seen were the true ones, {best} at best)"
