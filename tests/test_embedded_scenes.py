"""The embedded street scenes: the same bytes everywhere, and CamVid's mix of classes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from cvhw4.camvid import CLASSES
from cvhw4.data.embedded.scenes import SIZE, scenes

Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]

# Shares of CamVid's training pixels.
CAMVID_SHARES = {
    "Sky": 0.168,
    "Building": 0.233,
    "Pole": 0.010,
    "Road": 0.317,
    "Pavement": 0.045,
    "Tree": 0.097,
    "SignSymbol": 0.012,
    "Fence": 0.011,
    "Car": 0.059,
    "Pedestrian": 0.006,
    "Bicyclist": 0.003,
    "void": 0.040,
}
# In how many of the first 40 validation scenes a class must occur at least.
OCCURS = {
    "Sky": 40,
    "Building": 40,
    "Pole": 36,
    "Road": 40,
    "Pavement": 36,
    "Tree": 30,
    "SignSymbol": 34,
    "Fence": 12,
    "Car": 34,
    "Pedestrian": 28,
    "Bicyclist": 12,
    "void": 36,
}
DIGESTS = {
    "train": "90f1f8c19b2d8a49c77cd4af144244e588356e220b76a1f6154a478cf85f18ae",
    "val": "e7bb2d7e0716526c8a37a04dab6da3fa778db3406916880169487499282fdcb8",
}


@pytest.fixture(scope="module")
def train() -> Pictures:
    return scenes("train", 80)


@pytest.fixture(scope="module")
def val() -> Pictures:
    return scenes("val", 40)


def shares(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.bincount(labels.ravel(), minlength=len(CLASSES) + 1) / labels.size


def runs(row: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the stretches of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_bytes_are_pinned(split: str, train: Pictures, val: Pictures) -> None:
    images, labels = {"train": train, "val": val}[split]
    assert hashlib.sha256(images[:8].tobytes() + labels[:8].tobytes()).hexdigest() == DIGESTS[split]


def test_a_scene_depends_only_on_split_and_number(train: Pictures, val: Pictures) -> None:
    for split, (images, labels) in (("train", train), ("val", val)):
        again_images, again_labels = scenes(split, 3)
        np.testing.assert_array_equal(again_images, images[:3])
        np.testing.assert_array_equal(again_labels, labels[:3])


def test_shapes_and_types(val: Pictures) -> None:
    images, labels = val
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (40, *SIZE, 3) and labels.shape == (40, *SIZE) and SIZE == (132, 176)
    assert labels.max() == len(CLASSES)
    empty_images, empty_labels = scenes("val", 0)
    assert empty_images.shape == (0, *SIZE, 3) and empty_labels.shape == (0, *SIZE)


def test_no_scene_occurs_twice(train: Pictures, val: Pictures) -> None:
    assert len({image.tobytes() for images, _ in (train, val) for image in images}) == 120
    assert len({label.tobytes() for _, labels in (train, val) for label in labels}) == 120


@pytest.mark.parametrize(("split", "factor"), [("train", 2.0), ("val", 2.5)])
def test_class_shares_are_like_camvids(split: str, factor: float, train: Pictures, val: Pictures) -> None:
    measured = shares({"train": train, "val": val}[split][1])
    for name, share in zip((*CLASSES, "void"), measured, strict=True):
        assert 1 / factor < share / CAMVID_SHARES[name] < factor, f"{name}: {share:.4f}"


def test_every_class_occurs_often_enough(val: Pictures) -> None:
    for number, name in enumerate(CLASSES):
        scenes_with = int((val[1] == number).any(axis=(1, 2)).sum())
        assert scenes_with >= OCCURS[name], f"{name}: {scenes_with}"


def test_poles_are_thin(val: Pictures) -> None:
    poles = val[1] == CLASSES.index("Pole")
    lengths = np.concatenate([runs(row) for row in poles.reshape(-1, SIZE[1])])
    assert np.median(lengths) <= 4
    assert np.percentile(lengths, 90) <= 8


def test_the_ground_is_below_and_the_sky_above(val: Pictures) -> None:
    """Road lies in the lower part, sky in the upper; at the bottom there is mostly road."""
    labels, (height, _) = val[1], SIZE
    rows = np.arange(height)[None, :, None]
    assert (np.broadcast_to(rows, labels.shape)[labels == CLASSES.index("Sky")] < 0.65 * height).all()
    assert (np.broadcast_to(rows, labels.shape)[labels == CLASSES.index("Road")] > 0.35 * height).all()
    near = shares(labels[:, -30:])
    assert near[CLASSES.index("Road")] > 0.6


def test_colour_alone_does_not_tell_the_class(train: Pictures, val: Pictures) -> None:
    """The class that is commonest for a colour is often wrong: the mean accuracy of the classes stays below 0.4."""

    def bins(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        red, green, blue = np.moveaxis(images.astype(np.int64) >> 4, -1, 0)
        return (red << 8) + (green << 4) + blue

    classes = len(CLASSES) + 1
    counts = np.bincount((bins(train[0]) * classes + train[1]).ravel(), minlength=4096 * classes)
    guess = counts.reshape(4096, classes).argmax(axis=1)[bins(val[0])]
    hits = [np.mean(guess[val[1] == number] == number) for number in range(classes - 1)]
    assert np.mean(hits) < 0.4
