"""What networks saw and made of it: a question's pictures on a data set, from what is stored beside the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvhw4.experiments import Profile, Question
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import Picture
from cvhw4.report.portraits import Groups, Read, Show, Stored, confusions, heat_in_face, looked_at, saliency
from cvhw4.report.scenes import find_arms, iou_bars, scenes
from cvhw4.report.text import file_stem


def pictures_of(
    profile: Profile,
    question: Question,
    groups: Mapping[str, Sequence[RunRecord]],
    read: Read,
    exhibits: Show,
    pictures: Stored,
    data: str | None = None,
) -> list[tuple[str, Picture]]:
    """All pictures that the runs of a question on one data set allow, each with its heading.

    Args:
        groups: runs by row id, all on one data set, seeds in order; rows the profile does not know are passed over.
        read: `Store.images`: a run's results by image.
        exhibits: `Store.exhibits`: what a run made of the validation pictures.
        pictures: `Store.pictures`: the validation pictures, by their digest.
        data: how the data set is called, if not as its records call it: no two on a page may share a `file_stem`.

    Returns:
        Headings in words, in the order of the page; stems begin with "confusion-", "attention-", "panels-" or "iou-".
    """
    of = ordered(profile, question, groups)
    if not of:
        return []
    name = data or next(iter(of.values()))[0].data.name
    end = f"{question}-{file_stem(name)}"
    found: list[tuple[str, Picture | None]] = []
    if question == "q1":
        shares = heat_in_face(of, exhibits, pictures)
        where = f"How much of it is {shares[0].where}" if shares else ""
        found = [
            ("Which class is taken for which", confusions(f"confusion-{end}", name, of, read)),
            ("Where the networks look", saliency(f"attention-maps-{end}", name, of, exhibits, pictures)),
            (where, looked_at(f"attention-share-{end}", name, shares)),
        ]
    else:
        arms = find_arms(of, exhibits, pictures)
        found = [("With and without skip connections", scenes(f"panels-{end}", name, arms) if arms else None)]
        for classes in sorted({int(runs[0].settings["classes"]) for runs in of.values()}, reverse=True):
            bars = iou_bars(f"iou-{classes}-{end}", name, of, classes)
            found.append((f"IoU by class, {classes} classes", bars))
    return [(heading, picture) for heading, picture in found if picture is not None]


def ordered(profile: Profile, question: Question, groups: Groups) -> dict[str, Sequence[RunRecord]]:
    """The rows of a question that have runs: the report's first, then extra ones, then controls."""
    rank = {"report": 0, "extra": 1, "control": 2}
    rows = sorted(profile.of(question), key=lambda row: (row.row.startswith(f"{question}_c"), rank[row.group]))
    return {row.id: groups[row.id] for row in rows if groups.get(row.id)}
