"""What the runs on one data set are evidence of, as the sections of a study's page of verdicts are given it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cvhw4.labels import Merged
from cvhw4.metrics import Counts
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import Picture
from cvhw4.report.runs import by_row, grouped, notes
from cvhw4.report.text import escape, file_stem
from cvhw4.statistics.verdicts import ReadImages
from cvhw4.study import Study


@dataclass(frozen=True)
class Evidence:
    """The runs of a study on one data set, and what they made of its images.

    Attributes:
        study: the study.
        data: the data set's name; of two with one name, or with names that make one file name, with the start of its
            fingerprint.
        runs: by row, seeds in order; rows without runs are not in it.
        read: gives a run's results by image; None where they are not stored.
    """

    study: Study
    data: str
    runs: Mapping[str, Sequence[RunRecord]]
    read: ReadImages

    @property
    def title(self) -> str:
        """The data set's name as Markdown."""
        return escape(self.data)

    @property
    def redrawn(self) -> bool:
        """Whether each seed drew its own pictures."""
        return any(r.data.redrawn for of_row in self.runs.values() for r in of_row)

    @property
    def notes(self) -> list[str]:
        """Lines that say whether the runs are by different code, and which validation pictures are training pictures
        too; none if neither is so."""
        return notes([r for of_row in self.runs.values() for r in of_row], self.study)

    def seeds(self, *rows: str) -> list[int]:
        """The seeds that all of some rows have."""
        found = [{r.seed for r in self.runs.get(row, ())} for row in rows]
        return sorted(set.intersection(*found)) if found else []

    def figures(self, row: str, metric: str, seeds: Sequence[int]) -> list[float]:
        """The figure of a row's runs with those seeds, in their order, of the epoch that the study's claims go by."""
        by_seed = {r.seed: r.figure(f"{self.study.epoch} {metric}") for r in self.runs[row] if r.seed in seeds}
        return [by_seed[seed] for seed in seeds]

    def merged(self, row: str) -> Merged:
        """The classes that a row of segmentation tells apart: their `names`, and `targets` for `segmentation_figures`
        of its counts."""
        return self.runs[row][0].merged

    def with_images(self, row: str) -> list[tuple[RunRecord, ImageResults]]:
        """A row's runs whose results by image are stored."""
        pairs = ((r, self.read(r)) for r in self.runs.get(row, ()))
        return [(r, images) for r, images in pairs if images is not None]

    def counts(self, *rows: str) -> tuple[list[int], dict[str, list[Counts]]]:
        """The seeds of which all of some rows of segmentation have their results by image, and by row the pixel counts
        of each at the epoch that the study's claims go by.

        Returns:
            Seeds, and by row a list with an array uint32 [V, 2, 12, C] for each of them: pixels away from (0) and near
            (1) a contour, by the data set's label, void last, and predicted class.
        """
        figure = f"{self.study.epoch} miou"
        found = {
            row: {r.seed: i.counts[r.epoch_of(figure) - 1] for r, i in self.with_images(row) if i.counts is not None}
            for row in rows
        }
        seeds = sorted(set.intersection(*(set(of_row) for of_row in found.values())))
        return seeds, {row: [of_row[s] for s in seeds] for row, of_row in found.items()}


Section = Callable[[Evidence], list[str | Picture]]  # paragraphs in Markdown and pictures, none where it has no runs


def evidence(study: Study, records: Iterable[RunRecord], read: ReadImages) -> list[Evidence]:
    """The runs by data set."""
    sets = grouped(sorted(records, key=lambda r: r.seed), lambda r: r.data.fingerprint)
    stems = [file_stem(runs[0].data.name) for runs in sets.values()]
    names = {  # unique as names of files too
        fingerprint: runs[0].data.name + f" {fingerprint[:6]}" * (stems.count(stem) > 1)
        for (fingerprint, runs), stem in zip(sets.items(), stems, strict=True)
    }
    return [Evidence(study, names[fingerprint], by_row(runs), read) for fingerprint, runs in sets.items()]


def notes_by_data(sets: Iterable[Evidence]) -> list[str]:
    """The notes below a table of several data sets."""
    return [f"{e.title}: {line}" for e in sets for line in e.notes]
