"""The embedded portraits: the same bytes everywhere, and a label that only the make-up tells."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from cvhw4.data.embedded.portraits import FAINT, HEAVY, REDS, SIZE, person_at, portraits

DIGESTS = {
    "train": "6855b862dbf33d78f07c63aa045efb86b6da1264720ab346bdc566510e3fa43d",
    "val": "af051221443eb878ecdf7e6a844c4f7e040ca25d0305ebda6b28a755e3575d5c",
}
SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def sample():
    return portraits("train", 120)


@pytest.fixture(scope="module")
def people():
    """200 persons of each class, not drawn."""
    return {label: [person_at("train", 2 * i + label)[0] for i in range(200)] for label in (0, 1)}


@pytest.mark.parametrize("split", SPLITS)
def test_the_bytes_are_pinned(split):
    images, _ = portraits(split, 8)
    assert hashlib.sha256(images.tobytes()).hexdigest() == DIGESTS[split]


def test_shape_type_and_balance(sample):
    images, labels = sample
    assert images.shape == (120, *SIZE, 3) and images.dtype == labels.dtype == np.uint8
    assert labels.tolist() == [0, 1] * 60
    assert images.std() > 30


def test_a_portrait_does_not_depend_on_how_many_are_drawn(sample):
    fewer, _ = portraits("train", 5)
    assert (fewer == sample[0][:5]).all()


def test_no_portrait_occurs_twice_in_or_across_splits(sample):
    val, _ = portraits("val", 20)
    pictures = {image.tobytes() for image in (*sample[0], *val)}
    assert len(pictures) == 140


@pytest.mark.parametrize("split", SPLITS)
def test_the_label_is_decided_by_the_strength_of_the_make_up(split):
    for i in range(100):
        strength = person_at(split, i)[0].makeup.strength
        assert strength >= HEAVY if i % 2 == 0 else strength <= FAINT


def test_confounders_occur_in_both_classes(people):
    for of_class in people.values():
        share = {
            "glasses": np.mean([p.glasses is not None for p in of_class]),
            "hat": np.mean([p.hat is not None for p in of_class]),
            "red clothes": np.mean([p.clothes in REDS for p in of_class]),
            "red lips by nature": np.mean([p.lip_red > 0.35 for p in of_class]),
            "flushed": np.mean([p.flush > 0.3 for p in of_class]),
            "masculine": np.mean([p.masculine for p in of_class]),
        }
        assert all(s > 0.05 for s in share.values()), share
    bare = [p for p in people[1] if p.makeup.strength == 0]
    assert 0.2 < len(bare) / 200 < 0.8  # the others wear some, and are not heavily made up
    assert sum(p.makeup.blush > 0.5 for p in people[1]) > 10
    assert sum(p.makeup.lips == 0 for p in people[0]) > 5


def test_one_feature_of_the_make_up_does_not_tell_the_label(people):
    for part in ("lips", "shadow", "liner", "lashes", "blush", "brows"):
        heavy, light = (np.array([getattr(p.makeup, part) for p in people[label]]) for label in (0, 1))
        best = max((heavy >= t).mean() / 2 + (light < t).mean() / 2 for t in np.linspace(0.01, 1, 100))
        assert best < 0.95, (part, best)


def test_mean_colour_does_not_give_the_label_away(sample):
    images, labels = sample
    means = images.reshape(len(images), -1, 3).mean(1)
    for channel in (*means.T, means[:, 0] - means[:, 1]):
        accuracies = [((channel > t) == labels).mean() for t in channel]
        assert max(*accuracies, *(1 - a for a in accuracies)) < 0.70


def test_the_face_is_in_the_middle(people):
    for p in (*people[0], *people[1]):
        assert abs(p.x - SIZE[1] / 2) < 20 and abs(p.y - SIZE[0] / 2) < 20
        assert 0.4 < 2 * p.unit / SIZE[1] < 0.6
