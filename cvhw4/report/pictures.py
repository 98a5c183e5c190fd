"""What networks saw and made of it: a task's pictures on a data set, from what is stored beside the records."""

from __future__ import annotations

import re

from cvhw4.report.confusions import confusions
from cvhw4.report.figures import Picture
from cvhw4.report.runs import Groups, by_classes
from cvhw4.report.saliency import ReadPictures, ReadSamples, heat_in_face, looked_at, saliency
from cvhw4.report.scenes import find_arms, iou_bars, scenes
from cvhw4.report.text import file_stem
from cvhw4.statistics.verdicts import ReadImages
from cvhw4.study import Pictures, Study
from cvhw4.tasks import Task


def pictures_of(
    study: Study,
    task: Task,
    groups: Groups,
    read: ReadImages,
    samples: ReadSamples,
    pictures: ReadPictures,
    data: str | None = None,
) -> list[tuple[str, Picture]]:
    """All pictures that the runs of a task on one data set allow, each with its heading, in the page's order; stems
    begin with "confusion-", "attention-", "panels-" or "iou-".

    Args:
        read, samples, pictures: of a `Store`.
        data: how the data set is called, if not as its records call it: no two on a page may share a `file_stem`.
    """
    rows = sorted(study.of(task), key=lambda row: row.group != "")  # those that a session trains by default first
    of = {row.name: groups[row.name] for row in rows if groups.get(row.name)}
    if not of:
        return []
    name = data or next(iter(of.values()))[0].data.name
    end = f"{task.name}-{file_stem(name)}"
    found: list[tuple[str, Picture | None]] = []
    if task.name == "classification":
        shares = heat_in_face(of, samples, pictures)
        where = f"How much of the heat lies in {shares[0].where}" if shares else ""
        found = [
            ("Which class is predicted as which", confusions(f"confusion-{end}", name, of, read)),
            ("Where the networks look", saliency(f"attention-maps-{end}", name, of, samples, pictures)),
            (where, looked_at(f"attention-share-{end}", name, shares)),
        ]
    elif task.name == "segmentation":
        source = study.sources[task.name]
        colours = {} if isinstance(source, Pictures) else source.colours
        arms = find_arms(of, samples, pictures)
        heading = "With and without skip connections" if arms and arms.skips else "What networks make of scenes"
        found = [(heading, scenes(f"panels-{end}", name, arms, colours) if arms else None)]
        for title, alike in by_classes(of):
            number = "-".join(re.findall(r"\d+", title))
            found.append((f"IoU by class, {title}", iou_bars(f"iou-{number}-{end}", name, alike)))
    return [(heading, picture) for heading, picture in found if picture is not None]
