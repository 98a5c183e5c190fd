"""A user's study for tests: insects in three classes, and street scenes, as small pictures of noise."""

from pathlib import Path

import numpy as np
from PIL import Image

from cvhw4 import Row, Study

ROOT = Path(__file__).resolve().parent.parent
ROWS = {"scratch": Row("resnet18", start="random"), "finetune": Row("resnet18")}


def insects(**changes):
    return Study(
        changes.pop("name", "insects"), **({"data": Path(__file__).parent / "nowhere", "rows": ROWS} | changes)
    )


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
