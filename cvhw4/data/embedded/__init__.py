"""The data sets that come with the package: generated, the same bytes on every machine, kept in the cache.

Each generator's pictures are a long series, of which draw 0 takes the first ones, draw 1 the next ones and so on: no
picture is in two of the first 8,000 draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cvhw4.camvid import CLASSES as CAMVID_CLASSES
from cvhw4.data.cache import cached_dataset
from cvhw4.data.dataset import PORTRAIT_CLASSES, Dataset, Split
from cvhw4.data.embedded.portraits import SIZE, face_mask, portraits
from cvhw4.data.embedded.scenes import scenes
from cvhw4.tasks import TaskName

_Name = Literal["train", "val"]
_Generator = Callable[[_Name, int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]

PORTRAITS: dict[_Name, int] = {"train": 256, "val": 200}
SCENES: dict[_Name, int] = {"train": 120, "val": 40}


def embedded_portraits(draw: int = 0) -> Dataset:
    """256 training and 200 validation portraits with or without heavy make-up, uint8 RGB of 156 x 128 pixels."""
    return _dataset("generated portraits", "classification", PORTRAIT_CLASSES, portraits, PORTRAITS, draw)


def face_masks(dataset: Dataset) -> NDArray[np.bool_] | None:
    """Where the faces are in the validation pictures of `embedded_portraits`, bool [V, 156, 128]; None for other
    data."""
    if not dataset.embedded or dataset.task != "classification" or dataset.val.images.shape[1:3] != SIZE:
        return None
    return np.stack([face_mask("val", int(name.rpartition("/")[2])) for name in dataset.val.names])


def embedded_scenes(draw: int = 0) -> Dataset:
    """120 training and 40 validation street scenes with CamVid's classes, uint8 RGB of 132 x 176 pixels."""
    return _dataset("generated scenes", "segmentation", CAMVID_CLASSES, scenes, SCENES, draw)


def _dataset(
    name: str, task: TaskName, classes: tuple[str, ...], generate: _Generator, counts: dict[_Name, int], draw: int
) -> Dataset:
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    key = f"{name.replace(' ', '-')}-{hashlib.sha256(sources).hexdigest()[:40]}{f'-{draw}' if draw else ''}"

    def build() -> tuple[Split, Split]:
        return _split(generate, "train", counts["train"], draw), _split(generate, "val", counts["val"], draw)

    return replace(cached_dataset(key, build, name=name, task=task, classes=classes), embedded=True)


def _split(generate: _Generator, name: _Name, count: int, draw: int) -> Split:
    """The generator's pictures in a fixed random order, so that position says nothing about class."""
    start = draw * count
    images, targets = generate(name, start, start + count)
    order = np.random.RandomState(count).permutation(count)
    sizes = np.tile(np.array(images.shape[1:3], dtype=np.int32), (count, 1))
    return Split(images[order], sizes, targets[order], tuple(f"{name}/{start + i:04d}" for i in order))
