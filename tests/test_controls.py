"""Negative controls: what each spoils, and that it spoils nothing else."""

import numpy as np
import pytest

from cvhw4.controls import CONTROLS
from cvhw4.data.dataset import VOID
from cvhw4.data.sabotage import spoilt
from cvhw4.experiments import PROFILES, Sabotage
from tests.tiny import dataset

QUICK = PROFILES["quick"]
ALL = [(control, strength) for control in CONTROLS for strength in control.strengths]


def changed(control, strength):
    spoiled = control.experiment(QUICK, strength).settings()
    (base,) = (e.settings() for e in QUICK.rows if e.row == control.row)
    return {k: (base[k], spoiled[k]) for k in base if base[k] != spoiled[k]}


def test_every_control_changes_one_thing():
    assert all(len(changed(control, strength)) == 1 for control, strength in ALL)
    by_name = {c.name: c for c in CONTROLS}
    before, after = changed(by_name["learning_rate"], 10)["recipe"]
    assert after == before | {"lr": 10 * before["lr"]}
    assert changed(by_name["no_pretraining"], 1) == {"start": ("imagenet", "random")}
    assert changed(by_name["batch_norm"], 1) == {"batch_norm": ("train", "initial")}


def test_the_issue_of_bounds_is_every_kind_of_mistake():
    given = {c.name: c.strengths[0] for c in CONTROLS}
    assert given == {
        "label_noise": 0.2,
        "fewer_images": 0.5,
        "learning_rate": 10,
        "no_pretraining": 1,
        "batch_norm": 1,
        "mask_shift": 8,
        "classes_swapped": 1,
    }


def test_controls_have_ids_of_their_own_and_are_no_rows():
    ids = [control.experiment(QUICK, strength).id for control, strength in ALL]
    assert len(set(ids)) == len(ids)
    names = {e.row for e in QUICK.rows}
    assert not names & {control.experiment(QUICK, strength).row for control, strength in ALL}
    with pytest.raises(ValueError, match="no row"):
        CONTROLS[0].experiment(PROFILES["quick"].__class__(**(vars(QUICK) | {"rows": ()})), 0.2)


def test_label_noise_is_the_share_it_says_and_grows_from_the_same_images():
    data = dataset("q1", train=40)
    wrong = {}
    for share in (0.1, 0.2, 1.0):
        result = spoilt(data, Sabotage("label noise", share), seed=3)
        wrong[share] = set(np.flatnonzero(result.train.targets != data.train.targets))
        assert len(wrong[share]) == round(40 * share)
        assert result.val is data.val and result.train.images is data.train.images
    assert wrong[0.1] < wrong[0.2] < wrong[1.0]
    other = spoilt(data, Sabotage("label noise", 0.2), seed=4)
    assert set(np.flatnonzero(other.train.targets != data.train.targets)) != wrong[0.2]


def test_a_smaller_training_set_keeps_pictures_and_targets_together():
    data = dataset("q2", train=12)
    result = spoilt(data, Sabotage("smaller training set", 0.25), seed=0).train
    assert len(result) == len(result.names) == len(result.targets) == len(result.sizes) == 9
    for name, image, target in zip(result.names, result.images, result.targets, strict=True):
        i = data.train.names.index(name)
        assert np.array_equal(image, data.train.images[i]) and np.array_equal(target, data.train.targets[i])


def test_a_shifted_mask_is_the_mask_further_right():
    data = dataset("q2", train=3)
    result = spoilt(data, Sabotage("mask shift", 8), seed=0).train
    assert (result.targets[:, :, :8] == VOID).all()
    assert np.array_equal(result.targets[:, :, 8:], data.train.targets[:, :, :-8])


def test_swapped_classes_are_swapped_and_no_others():
    data = dataset("q2", train=4)
    data.train.targets[:, 20:24, :20] = 4
    result = spoilt(data, Sabotage("classes swapped", 0.5), seed=0).train
    whole = [i for i in range(4) if not np.array_equal(result.targets[i], data.train.targets[i])]
    assert len(whole) == 2
    for i in whole:
        before, after = data.train.targets[i], result.targets[i]
        assert ((before == 3) == (after == 4)).all() and ((before == 4) == (after == 3)).all()
        rest = (before != 3) & (before != 4)
        assert np.array_equal(before[rest], after[rest])


@pytest.mark.parametrize(
    ("question", "kind", "strength", "message"),
    [
        ("q1", "label noise", 0.0, "share"),
        ("q1", "label noise", 1.1, "share"),
        ("q1", "smaller training set", 1.0, "no images"),
        ("q2", "label noise", 0.5, "for classification"),
        ("q1", "mask shift", 8, "for segmentation"),
        ("q2", "mask shift", 48, "48 pixels wide"),
    ],
)
def test_what_a_kind_does_not_know_is_an_error(question, kind, strength, message):
    with pytest.raises(ValueError, match=message):
        spoilt(dataset(question), Sabotage(kind, strength), seed=0)


def test_nothing_to_spoil_is_the_data_itself():
    data = dataset("q1")
    assert spoilt(data, None, seed=0) is data
