"""The report's rows, claims and controls as the protocol has them, at every size."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from cvhw4 import Corruption, InputError, homework
from cvhw4.data.corruption import corrupted
from cvhw4.homework.sections import CELLS
from tests.helpers.tiny import FULL, QUICK, VOID, dataset

CORRUPTED = [(control, strength) for control in QUICK.controls for strength in control.strengths]
Q1_FACTS = {
    # row: network, start, trained, augmentation, optimizer, published accuracy
    "q1_1": ("alexnet", "imagenet", "last layer", "random-resized crop", "sgd", 0.8300),
    "q1_2": ("alexnet", "imagenet", "all layers", "random-resized crop", "sgd", 0.8750),
    "q1_3": ("alexnet", "random", "all layers", "random-resized crop", "sgd", 0.7175),
    "q1_5": ("alexnet", "imagenet", "last layer", "whole face", "sgd", None),
    "q1_6": ("alexnet", "imagenet", "all layers", "whole face", "sgd", None),
    "q1_8": ("efficientnet_b2+linear", "imagenet", "all layers", "crop + jitter + AutoAugment", "adam", 0.9075),
}
Q2_FACTS = {
    # row: classes, skips, published mIoU, pixel accuracy, their epochs
    "q2_1a": (11, True, 0.4295, 0.8523, 41, 41),
    "q2_1b": (11, False, 0.4055, 0.8384, 20, 17),
    "q2_3": (3, False, 0.8261, 0.9629, 20, 20),
}


@pytest.mark.parametrize("name", Q1_FACTS)
def test_full_q1_rows_are_the_reports(name):
    row = FULL.row(name)
    published = FULL.published[row.name].figures.get("accuracy") if row.name in FULL.published else None
    facts = row.network, row.start, row.trained, row.augmentation, row.recipe.optimizer, published
    assert facts == Q1_FACTS[name]
    r = row.recipe
    assert (r.size, r.batch, r.epochs, r.lr, r.lr_step, r.lr_gamma) == (224, 4, 25, 1e-3, 5, 0.1)
    assert r.settings()["momentum"] == (0.9 if r.optimizer == "sgd" else 0.0)
    assert row.classes == 2


@pytest.mark.parametrize("name", Q2_FACTS)
def test_full_q2_rows_are_the_reports(name):
    row, published = FULL.row(name), FULL.published[FULL.row(name).name]
    facts = [of[metric] for of in (published.figures, published.epochs) for metric in ("miou", "pixel_accuracy")]
    assert (row.classes, row.skips, *facts) == Q2_FACTS[name]
    r = row.recipe
    assert (r.size, r.batch, r.epochs, r.optimizer, r.lr, r.lr_step, r.lr_gamma) == (256, 6, 50, "adam", 1e-4, 100, 0.5)
    assert (row.network, row.start, row.batch_norm) == ("fcn8s/vgg16", "imagenet", "frozen")


def test_quick_rows_are_the_same_rows_and_differ_in_network_and_recipe_alone():
    for full in FULL.rows.values():
        if full.name == "q2_n3-3class_norm":  # left out for time
            continue
        quick = QUICK.rows[full.name]
        assert replace(quick, study="full", network=full.network, recipe=full.recipe) == full
        assert quick.recipe.optimizer == full.recipe.optimizer
    assert QUICK.rows.keys() == (FULL.rows.keys() - {"q2_n3-3class_norm"}) | {"q1_c3-no_start"}  # in full q1_3 is that


def test_the_full_rows_with_lite0_differ_in_pretrained_networks_alone():
    lite0 = homework.study("full-lite0")
    assert lite0.rows.keys() == QUICK.rows.keys() and list(lite0.claims) == list(QUICK.claims)
    assert "tf_efficientnet_lite0 stands in for pretrained alexnet" in lite0.about and "made easier" not in lite0.about
    for row in lite0.rows.values():
        assert row.network == QUICK.rows[row.name].network
        if row.name in FULL.rows:
            full = FULL.rows[row.name]
            assert replace(row, study="full", network=full.network) == full
            assert (row.network == full.network) == (row.name == "q1_3-scratch")
    assert lite0.row("q1_c3").recipe == FULL.row("q1_2").recipe


def test_names_select_what_they_say():
    for study in (QUICK, FULL):
        assert [name for name in study.rows if "skip" in name] == ["q2_1a-skip", "q2_1b-noskip"]
        assert [name for name in study.rows if "3class" in name][:2] == ["q2_3-3class", "q2_c3-3class_fused"]
    assert QUICK.row("q1_2-finetune") is QUICK.row("q1_2")
    with pytest.raises(InputError, match="q2_1a-skip"):
        QUICK.row("q9")
    with pytest.raises(InputError, match="Fix: choose one of quick, full"):
        homework.study("huge")


def test_controls_differ_from_their_row_in_one_setting():
    def differences(a, b, study=QUICK):
        one, other = (study.row(row).settings() for row in (a, b))
        return {key for key in one if one[key] != other[key]}

    assert differences("q1_8", "q1_c8") == differences("q1_2", "q1_c3") == {"start"}
    assert differences("q2_3", "q2_c3") == {"skips"}
    assert differences("q2_1a", "q2_1b") == {"skips"}
    assert differences("q2_1b", "q2_3") == {"classes"}
    assert differences("q2_1a", "q2_n1a") == differences("q2_1b", "q2_n1b") == {"batch_norm"}
    assert differences("q2_3", "q2_n3", FULL) == {"batch_norm"}
    assert differences("q1_1", "q1_5") == {"augmentation"}
    assert differences("q1_1", "q1_2") == {"trained"}


def test_folders_are_relative_to_the_current_one_and_claims_are_those_whose_rows_there_are():
    assert homework.study(portraits=Path("photos")).sources["classification"].folder == Path.cwd() / "photos"
    assert len(QUICK.claims) == 15
    assert list(FULL.claims) == [claim for claim in QUICK.claims if "q1_c3-no_start" not in claim.rows]


@pytest.mark.parametrize("study", [QUICK, FULL], ids=lambda study: study.name)
def test_the_factorial_crosses_what_the_report_changed_at_once(study):
    rows = {cell: study.rows[name] for cell, name in CELLS.items()}
    assert sorted(CELLS) == sorted(product((False, True), repeat=3))
    first, last = rows[False, False, False], rows[True, True, True]
    for (network, optimizer, augmentation), row in rows.items():
        assert row.network == (last if network else first).network
        assert row.recipe == (last if optimizer else first).recipe
        assert row.augmentation == (last if augmentation else first).augmentation
        assert (row.start, row.trained) == ("imagenet", "all layers")
    assert len({first.network, last.network}) == 2 and first.recipe != last.recipe


# Negative controls: what each corrupts, and that it corrupts nothing else


def test_every_control_changes_one_thing():
    def changed(control, strength):
        base, other = QUICK.rows[control.row].settings(), control.of(QUICK, strength).settings()
        return {k: (base[k], other[k]) for k in base if base[k] != other[k]}

    assert all(len(changed(control, strength)) == 1 for control, strength in CORRUPTED)
    by_name = {c.name.partition("-")[2]: c for c in QUICK.controls}
    before, after = changed(by_name["learning_rate"], 10)["recipe"]
    assert after == before | {"lr": 10 * before["lr"]}
    assert changed(by_name["no_pretraining"], 1) == {"start": ("imagenet", "random")}
    assert changed(by_name["batch_norm"], 1) == {"batch_norm": ("train", "frozen")}
    names = {row.name for row in QUICK.in_group("control")}
    assert len(names) == len(CORRUPTED) and not QUICK.rows.keys() & names


def test_label_noise_is_the_share_it_says_and_grows_from_the_same_images():
    data = dataset("classification", train=40)
    wrong = {}
    for share in (0.1, 0.2, 1.0):
        result = corrupted(data, Corruption("label noise", share), seed=3)
        wrong[share] = set(np.flatnonzero(result.train.targets != data.train.targets))
        assert len(wrong[share]) == round(40 * share)
        assert result.val is data.val and result.train.images is data.train.images
    assert wrong[0.1] < wrong[0.2] < wrong[1.0]
    assert corrupted(data, None, seed=3) is data
    other = corrupted(data, Corruption("label noise", 0.2), seed=4)
    assert set(np.flatnonzero(other.train.targets != data.train.targets)) != wrong[0.2]
    data.train.targets[:] = 255
    many = replace(data, classes=tuple(map(str, range(256))))  # whose numbers have 8 bits
    assert not corrupted(many, Corruption("label noise", 1.0), seed=3).train.targets.any()


def test_a_smaller_training_set_keeps_pictures_and_targets_together():
    data = dataset("segmentation", train=12)
    result = corrupted(data, Corruption("smaller training set", 0.25), seed=0).train
    assert len(result) == len(result.names) == len(result.targets) == len(result.sizes) == 9
    for name, image, target in zip(result.names, result.images, result.targets, strict=True):
        i = data.train.names.index(name)
        assert np.array_equal(image, data.train.images[i]) and np.array_equal(target, data.train.targets[i])


def test_a_shifted_mask_is_the_mask_further_right():
    data = dataset("segmentation", train=3)
    result = corrupted(data, Corruption("mask shift", 8), seed=0).train
    assert (result.targets[:, :, :8] == VOID).all()
    assert np.array_equal(result.targets[:, :, 8:], data.train.targets[:, :, :-8])


def test_swapped_classes_are_swapped_and_no_others():
    data = dataset("segmentation", train=4)
    data.train.targets[:, 20:24, :20] = 4
    result = corrupted(data, Corruption("classes swapped", 0.5, ("Road", "Pavement")), seed=0).train
    whole = [i for i in range(4) if not np.array_equal(result.targets[i], data.train.targets[i])]
    assert len(whole) == 2
    for i in whole:
        before, after = data.train.targets[i], result.targets[i]
        assert ((before == 3) == (after == 4)).all() and ((before == 4) == (after == 3)).all()
        rest = (before != 3) & (before != 4)
        assert np.array_equal(before[rest], after[rest])


@pytest.mark.parametrize(
    ("task", "kind", "strength", "message"),
    [
        ("classification", "label noise", 0.04, "12 training images, and a strength of 0.04 .* is none of them"),
        ("segmentation", "smaller training set", 0.04, "none of them. Fix: give a larger share"),
        ("classification", "smaller training set", 0.99, "leaves out 0.99 of 12 training images, which is all"),
        ("segmentation", "mask shift", 48, "shifts masks of 48 pixels by 48. Fix: give fewer pixels"),
    ],
)
def test_what_leaves_or_changes_nothing_is_an_error(task, kind, strength, message):
    with pytest.raises(InputError, match=message):
        corrupted(dataset(task), Corruption(kind, strength), seed=0)
