"""A user's study for tests: insects in three classes, and street scenes, as small pictures of noise."""

import hashlib
from datetime import UTC, datetime
from typing import ClassVar

import numpy as np
from PIL import Image

from cvhw4 import Row, Study
from cvhw4.errors import TrainingDiverged
from cvhw4.preflight import check_options
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.tiny import dataset, record

ROWS = {"scratch": Row("resnet18", start="random"), "finetune": Row("resnet18")}


def insects(**changes):
    return Study(changes.pop("name", "insects"), **({"data": ROOT / "tests" / "nowhere", "rows": ROWS} | changes))


def right(labels, predicted):
    return float(np.mean(labels == predicted))


def always_nan(labels, predicted):
    return float("nan")


def pictures(folder, classes=("ant", "bee", "wasp"), train=4, val=3):
    """Noise of a brightness by class."""
    random = np.random.RandomState(0)
    for split, number in (("train", train), ("val", val)):
        for c, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                noise = random.randint(0, 60, (40, 44, 3)) + c * 190 // len(classes)
                Image.fromarray(noise.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def streets(folder, train=4, val=2):
    """Scenes of sky above road above car, a strip of void, laid out as CamVid."""
    labels = np.zeros((40, 48), np.uint8)
    labels[14:], labels[28:], labels[:, 44:] = 3, 8, 11
    for split, number in (("train", train), ("val", val)):
        for part in (split, f"{split}annot"):
            (folder / part).mkdir(parents=True)
        for i in range(number):
            noise = np.random.RandomState(i).randint(0, 60, (40, 48, 3)) + labels[..., None] * 16
            Image.fromarray(noise.astype(np.uint8)).save(folder / split / f"{i}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{i}.png")
        lines = [f"{split}/{i}.png,{split}annot/{i}.png\n" for i in range(number)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


class Instant(Runner):
    """Runs that are over at once: no pictures are decoded, no network is trained, and records are stored as real ones
    are. `FIGURES` has each row's accuracy; a row that is not in it diverges."""

    FIGURES: ClassVar[dict[str, float]] = {"a": 0.9, "b": 0.5, "c": 0.7}

    def check(self):
        check_options(self)

    def data(self, task, seed=None):
        return dataset(task)

    def prepare(self, row, seed):
        pass

    def find(self, row, seed):
        return self.store.find(row.name, seed, self._made(row, seed).fingerprint)

    def run(self, row, seed, on_epoch=None, on_wait=None):
        if self.reuse and (found := self.find(row, seed)) is not None:
            return found
        if row.name not in self.FIGURES:
            raise TrainingDiverged(f"{row.name}, seed {seed}: loss nan", 1, 1, 0.1)
        made = self._made(row, seed)
        for epoch in made.epochs:
            on_epoch(epoch)
        return self.store.save(made)

    def _made(self, row, seed):
        figure = self.FIGURES.get(row.name, 0.0) + seed / 1000
        prints = (hashlib.sha256(f"{row.name}{s}".encode()).hexdigest() for s in (seed, ""))
        fingerprint, configuration = prints
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return record(
            seed=seed,
            figures=((figure,),),
            row=row.name,
            study=row.study,
            settings=row.settings(),
            fingerprint=fingerprint,
            configuration=configuration,
            started=started,
        )
