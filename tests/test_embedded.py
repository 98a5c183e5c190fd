"""The generated data sets: the same bytes everywhere, a label that only the make-up tells, CamVid's mix of classes."""

from dataclasses import replace

import numpy as np
import pytest

from cvhw4 import homework
from cvhw4.camvid import CLASSES
from cvhw4.data import embedded
from cvhw4.data import load as load_module
from cvhw4.data.embedded import embedded_portraits, embedded_scenes
from cvhw4.data.embedded.portraits import FAINT, HEAVY, REDS, SIZE, person_at, portraits
from cvhw4.data.embedded.scenes import SIZE as SCENE
from cvhw4.data.embedded.scenes import scenes
from cvhw4.data.load import load
from cvhw4.runner import Runner
from cvhw4.study import Generated
from tests.helpers.tiny import shrink

SPLITS = ("train", "val")
FINGERPRINTS = {
    "classification": "c856bf2a8d53c86bc552aeb7814a2341cbbbeb9b78c02feca1ccde1d263116ef",
    "segmentation": "2b235668f672e2d972ec372c5636e5ddef8629aad1c1769202b502cc38c47e14",
}
# Of each class the share of CamVid's training pixels, and in how many of 40 validation scenes it has to occur.
# fmt: off
MIX = {
    "Sky": (0.168, 40), "Building": (0.233, 40), "Pole": (0.010, 36), "Road": (0.317, 40), "Pavement": (0.045, 36),
    "Tree": (0.097, 30), "SignSymbol": (0.012, 34), "Fence": (0.011, 12), "Car": (0.059, 34),
    "Pedestrian": (0.006, 28), "Bicyclist": (0.003, 12), "void": (0.040, 36),
}
# fmt: on


def in_order(split):
    """Pictures and targets of a generated split by their numbers."""
    order = np.argsort(split.names)
    return np.array(split.images[order]), np.array(split.targets[order])


@pytest.fixture(scope="module")
def faces():
    """By split."""
    return {split: in_order(getattr(embedded_portraits(), split)) for split in SPLITS}


@pytest.fixture(scope="module")
def streets():
    """By split."""
    return {split: in_order(getattr(embedded_scenes(), split)) for split in SPLITS}


@pytest.fixture(scope="module")
def people():
    """200 persons of each class, not drawn."""
    return {label: [person_at("train", 2 * i + label)[0] for i in range(200)] for label in (0, 1)}


@pytest.mark.parametrize("load", [embedded_portraits, embedded_scenes])
def test_the_whole_data_set_is_pinned(load):
    data = load()
    assert data.embedded and data.fingerprint == FINGERPRINTS[data.task]
    assert len({image.tobytes() for split in (data.train, data.val) for image in split.images}) == len(
        {*data.train.names, *data.val.names}
    )


def test_a_picture_depends_on_its_split_and_number_alone(faces, streets):
    for generate, whole in ((portraits, faces), (scenes, streets)):
        for split in SPLITS:
            for start, stop in ((0, 3), (2, 5), (1, 1)):
                for drawn, kept in zip(generate(split, start, stop), whole[split], strict=True):
                    np.testing.assert_array_equal(drawn, kept[start:stop], strict=True)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Data sets of 6 and 4 pictures, in a cache of their own."""
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    for counts in ("PORTRAITS", "SCENES"):
        monkeypatch.setattr(embedded, counts, {"train": 6, "val": 4})
    load_module._load.cache_clear()
    yield
    load_module._load.cache_clear()


@pytest.mark.parametrize("kind", ["portraits", "scenes"])
def test_each_seed_draws_pictures_of_its_own_from_one_source(kind, few):
    fixed, drawn = Generated(kind, redraw=False), Generated(kind)
    sets = [load(fixed), load(drawn, 0), load(drawn, 1)]
    splits = [split for data in sets for split in (data.train, data.val)]
    assert len({image.tobytes() for split in splits for image in split.images}) == 30
    assert [sorted(data.train.names)[0] for data in sets] == ["train/0000", "train/0006", "train/0012"]
    assert len({name for split in splits for name in split.names}) == 30
    assert load(drawn, 1) is sets[2] and load(fixed, 1) is sets[0] is load(fixed, 2)
    assert len({data.fingerprint for data in sets}) == 3
    assert sets[1].origin == sets[2].origin == load(drawn).origin != sets[0].origin == sets[0].fingerprint
    assert load(drawn).fingerprint == sets[1].fingerprint  # no other set is drawn for what they have in common
    assert [data.name for data in sets] == [f"generated {kind} (one set)", f"generated {kind}", f"generated {kind}"]
    assert all(data.embedded for data in sets)


def test_runs_of_seeds_with_pictures_of_their_own_belong_together(few, tmp_path):
    study = homework.study()
    runner = Runner(study=study, device="cpu", results=tmp_path, reuse=True)
    row = shrink(study.row("q2_n1a"), epochs=1, batch=2)
    first, second, again = (runner.run(row, seed) for seed in (0, 1, 1))
    assert (
        first.data == second.data and first.data.redrawn and first.data.fingerprint == runner.data(row.task.name).origin
    )
    assert first.configuration == second.configuration and first.fingerprint != second.fingerprint == again.fingerprint
    shown = [runner.store.pictures(runner.store.samples(r).pictures).names for r in (first, second)]
    assert not {*shown[0]} & {*shown[1]}
    fixed = replace(runner, study=homework.study(redraw=False)).run(row, 0)
    assert not fixed.data.redrawn and fixed.configuration != first.configuration


# Portraits


@pytest.mark.parametrize("split", SPLITS)
def test_the_label_is_decided_by_the_strength_of_the_make_up(split, faces):
    images, labels = faces[split]
    assert images.shape == ({"train": 256, "val": 200}[split], *SIZE, 3) and images.dtype == np.uint8
    assert labels.sum() * 2 == len(labels)
    order = getattr(embedded_portraits(), split).targets
    assert 0.4 < (order[1:] == order[:-1]).mean() < 0.6  # the position says nothing of the class
    for i in range(100):
        strength = person_at(split, i)[0].makeup.strength
        assert labels[i] == i % 2 and (strength >= HEAVY if i % 2 == 0 else strength <= FAINT)


def test_confounders_occur_in_both_classes(people):
    for of_class in people.values():
        assert all(abs(p.x - SIZE[1] / 2) < 20 and abs(p.y - SIZE[0] / 2) < 20 for p in of_class)
        assert all(0.4 < 2 * p.unit / SIZE[1] < 0.6 for p in of_class)  # the face is in the middle
        confounders = [
            (p.glasses is not None, p.hat is not None, p.clothes in REDS, p.lip_red > 0.35, p.flush > 0.3, p.masculine)
            for p in of_class
        ]
        assert (np.mean(confounders, 0) > 0.05).all()
    bare = [p for p in people[1] if p.makeup.strength == 0]
    assert 0.2 < len(bare) / 200 < 0.8  # the others wear some, and are not heavily made up
    assert sum(p.makeup.blush > 0.5 for p in people[1]) > 10
    assert sum(p.makeup.lips == 0 for p in people[0]) > 5


def test_one_feature_of_the_make_up_does_not_tell_the_label(people):
    for part in ("lips", "shadow", "liner", "lashes", "blush", "brows"):
        heavy, light = (np.array([getattr(p.makeup, part) for p in people[label]]) for label in (0, 1))
        best = max((heavy >= t).mean() / 2 + (light < t).mean() / 2 for t in np.linspace(0.01, 1, 100))
        assert best < 0.95, (part, best)


def test_mean_colour_does_not_give_the_label_away(faces):
    images, labels = (array[:120] for array in faces["train"])
    means = images.reshape(len(images), -1, 3).mean(1)
    for channel in (*means.T, means[:, 0] - means[:, 1]):
        accuracies = [((channel > t) == labels).mean() for t in channel]
        assert max(*accuracies, *(1 - a for a in accuracies)) < 0.70


# Scenes


def shares(labels):
    return np.bincount(labels.ravel(), minlength=len(CLASSES) + 1) / labels.size


@pytest.mark.parametrize(("split", "factor"), [("train", 2.0), ("val", 2.5)])
def test_class_shares_are_like_camvids_and_every_class_occurs_often_enough(split, factor, streets):
    images, labels = streets[split]
    assert images.shape == (*labels.shape, 3) and labels.shape[1:] == SCENE == (132, 176)
    assert labels.max() == len(CLASSES)
    for number, (name, share) in enumerate(zip((*CLASSES, "void"), shares(labels), strict=True)):
        expected, least = MIX[name]
        assert 1 / factor < share / expected < factor, f"{name}: {share:.4f}"
        assert split == "train" or (labels == number).any(axis=(1, 2)).sum() >= least, name


def test_the_ground_is_below_the_sky_above_and_poles_are_thin(streets):
    labels, (height, _) = streets["val"][1], SCENE
    rows = np.broadcast_to(np.arange(height)[None, :, None], labels.shape)
    assert (rows[labels == CLASSES.index("Sky")] < 0.65 * height).all()
    assert (rows[labels == CLASSES.index("Road")] > 0.35 * height).all()
    assert shares(labels[:, -30:])[CLASSES.index("Road")] > 0.6
    poles = np.pad(labels == CLASSES.index("Pole"), [(0, 0), (0, 0), (1, 1)])
    left, right = (
        np.flatnonzero(edge) for edge in (poles[..., 1:] > poles[..., :-1], poles[..., 1:] < poles[..., :-1])
    )
    assert np.median(right - left) <= 4 and np.percentile(right - left, 90) <= 8


def test_colour_alone_does_not_tell_the_class(streets):
    """The class that is commonest for a colour is often wrong: the mean accuracy of the classes stays below 0.4."""

    def bins(images):
        red, green, blue = np.moveaxis(images.astype(np.int64) >> 4, -1, 0)
        return (red << 8) + (green << 4) + blue

    train, val, classes = streets["train"], streets["val"], len(CLASSES) + 1
    counts = np.bincount((bins(train[0]) * classes + train[1]).ravel(), minlength=4096 * classes)
    guess = counts.reshape(4096, classes).argmax(axis=1)[bins(val[0])]
    hits = [np.mean(guess[val[1] == number] == number) for number in range(classes - 1)]
    assert np.mean(hits) < 0.4
