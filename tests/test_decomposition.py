"""The rise of the mIoU from 11 classes to 3, in parts: by hand, against scikit-learn, and as properties."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from cvhw4.data.dataset import CAMVID_CLASSES
from cvhw4.statistics.decomposition import (
    OTHER_ORDER,
    PARTS,
    decompose,
    decompositions,
    mean_iou_of,
    near_and_far,
)
from cvhw4.statistics.intervals import estimate
from cvhw4.training.metrics import THREE_CLASSES, merged, segmentation_figures

SKY, BUILDING, POLE, ROAD, SIGN, CAR, VOID = 0, 1, 2, 3, 6, 8, 11


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def counted(predictions, labels, classes):
    """[V, 12, C] from lists of pixels by image."""
    counts = np.zeros((len(labels), 12, classes), np.uint32)
    for v, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        np.add.at(counts[v], (np.array(label, int), np.array(prediction, int)), 1)
    return counts


def drawn(seed, images=4, pixels=30):
    """Random labels with void, and predictions of two networks that often meet them."""
    random = np.random.default_rng(seed)
    three = np.array(THREE_CLASSES)
    labels = random.choice(12, (images, pixels), p=[0.2, 0.2, 0.02, 0.2, 0.1, 0.1, 0.02, 0.02, 0.04, 0.02, 0.03, 0.05])
    met = random.random((2, images, pixels)) < 0.7
    eleven = np.where(met[0] & (labels != VOID), labels, random.integers(0, 11, labels.shape))
    of_three = np.where(met[1], three[labels], random.integers(0, 3, labels.shape))
    return labels, eleven, of_three


def test_seven_figures_by_hand():
    labels = [[SKY, SKY, CAR, VOID], [SKY, ROAD, ROAD, BUILDING]]
    eleven = counted([[SKY, CAR, CAR, SKY], [SKY, ROAD, BUILDING, BUILDING]], labels, 11)
    three = counted([[0, 0, 2, 0], [0, 1, 1, 1]], labels, 3)
    found = decompose(eleven, three)
    # By image, void counted: sky 1/3 and 1; car 1/2; road 1/2; building 1/2.
    assert found.eleven == pytest.approx(((1 / 3 + 1) / 2 + 1 / 2 + 1 / 2 + 1 / 2) / 4)
    # Void ignored: the void pixel predicted as sky no longer counts against sky.
    assert found.eleven_without_void == pytest.approx(((1 / 2 + 1) / 2 + 1 / 2 + 1 / 2 + 1 / 2) / 4)
    # One matrix: sky 2 of 3.
    assert found.eleven_set == pytest.approx((2 / 3 + 1 / 2 + 1 / 2 + 1 / 2) / 4)
    # Merged: road taken for building is no error.
    assert found.merged_set == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    # The network with 3 classes meets all but the void pixel, which it takes for sky.
    assert found.three_set == found.three_without_void == 1.0
    # Void as class 1: sky 2/3 and 1; class 1 0 and 1; class 2 1.
    assert found.three == pytest.approx(((2 / 3 + 1) / 2 + (0 + 1) / 2 + 1) / 3)
    # The merged predictions, so measured: sky 1/3 and 1; class 1 0 and 1; class 2 1/2.
    assert found.merged == pytest.approx(((1 / 3 + 1) / 2 + (0 + 1) / 2 + 1 / 2) / 3)

    p = found.figures
    assert found.void == pytest.approx(p[1] - p[0] + p[6] - p[5])
    assert found.averaging == pytest.approx(p[2] - p[1] + p[5] - p[4])
    assert (found.merging, found.training) == pytest.approx((p[3] - p[2], p[4] - p[3]))
    assert found.whole == pytest.approx(p[6] - p[0])


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_the_parts_add_up_in_either_order(seed):
    labels, eleven, three = drawn(seed)
    found = decompose(counted(eleven, labels, 11), counted(three, labels, 3))
    assert math.fsum(getattr(found, part) for part in PARTS) == pytest.approx(found.whole, abs=1e-12)
    assert math.fsum(getattr(found, part) for part in OTHER_ORDER) == pytest.approx(found.whole, abs=1e-12)
    assert all(0 <= figure <= 1 for figure in (*found.figures, found.merged))


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_a_network_with_3_classes_that_says_the_same_learnt_nothing_more(seed):
    labels, eleven, _ = drawn(seed)
    counts = counted(eleven, labels, 11)
    found = decompose(counts, merged(counts))
    assert found.training == found.training_last == 0
    assert found.three == found.merged


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_without_void_it_makes_no_part(seed):
    labels, eleven, three = drawn(seed)
    labels = np.where(labels == VOID, ROAD, labels)
    found = decompose(counted(eleven, labels, 11), counted(three, labels, 3))
    assert found.void == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_one_image_leaves_nothing_to_average(seed):
    labels, eleven, three = drawn(seed, images=1)
    found = decompose(counted(eleven, labels, 11), counted(three, labels, 3))
    assert found.averaging == pytest.approx(0, abs=1e-12)


def test_figures_are_those_of_records_and_of_scikit_learn():
    labels, eleven, three = drawn(1, images=6, pixels=400)
    found = decompose(counted(eleven, labels, 11), counted(three, labels, 3))
    assert found.eleven == segmentation_figures(counted(eleven, labels, 11))["miou"]
    assert found.three == segmentation_figures(counted(three, labels, 3))["miou"]
    known = labels != VOID
    target = np.array(THREE_CLASSES)[labels[known]]
    assert found.eleven_set == pytest.approx(jaccard_score(labels[known], eleven[known], average="macro"))
    assert found.three_set == pytest.approx(jaccard_score(target, three[known], average="macro"))
    of_merged = np.array(THREE_CLASSES)[eleven[known]]
    assert found.merged_set == pytest.approx(jaccard_score(target, of_merged, average="macro"))


def test_an_image_of_void_alone_counts_only_where_void_does():
    labels = [[SKY, ROAD], [VOID, VOID]]
    eleven, three = counted([[SKY, ROAD], [SKY, SKY]], labels, 11), counted([[0, 1], [1, 1]], labels, 3)
    found = decompose(eleven, three)
    assert found.figures == (pytest.approx((0.5 + 1) / 2), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def test_over_seeds():
    pairs = []
    for seed in range(4):
        labels, eleven, three = drawn(seed)
        pairs.append((counted(eleven, labels, 11), counted(three, labels, 3)))
    found = decompositions(pairs)
    assert set(found) == {*PARTS, *OTHER_ORDER, "whole"}
    assert found["merging"] == estimate([decompose(*pair).merging for pair in pairs])
    assert sum(found[part].mean for part in PARTS) == pytest.approx(found["whole"].mean, abs=1e-12)
    with pytest.raises(ValueError, match="at least one value"):
        decompositions([])


def test_other_counts_are_refused():
    labels, eleven, three = drawn(0)
    a, b = counted(eleven, labels, 11), counted(three, labels, 3)
    for pair in ((b, a), (a, a), (a[:, None], b)):
        with pytest.raises(ValueError, match=r"\[V, 12, 11\]"):
            decompose(*pair)
    for other in (b[:-1], b[::-1]):
        with pytest.raises(ValueError, match="different images"):
            decompose(a, other)


def test_iou_of_thin_classes():
    labels = [[POLE, POLE, SKY, SKY], [SIGN, SIGN, SIGN, VOID]]
    counts = counted([[POLE, SKY, POLE, SKY], [SIGN, SIGN, SKY, SIGN]], labels, 11)
    # Pole 1 of 3 pixels; sign 2 of 3, the void pixel ignored; sky 1 of 4.
    assert mean_iou_of(counts) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert mean_iou_of(counts, ["Sky"]) == pytest.approx(1 / 4)
    assert mean_iou_of(counts, CAMVID_CLASSES[:11]) == pytest.approx(float(segmentation_figures(counts)["set_miou"]))
    assert math.isnan(mean_iou_of(counts, ["Car"]))
    for names in ([], ["void"], ["Pole", "Tram"]):
        with pytest.raises(ValueError, match="names of classes"):
            mean_iou_of(counts, names)
    with pytest.raises(ValueError, match=r"\[V, 12, 11\]"):
        mean_iou_of(merged(counts))


def test_near_and_away_by_hand():
    away = counted([[SKY, SKY, ROAD]], [[SKY, SKY, SKY]], 11)
    near = counted([[SKY, ROAD, ROAD, SKY]], [[SKY, SKY, ROAD, VOID]], 11)
    counts = np.stack([away, near], axis=1)
    # Near: sky 1/2, road 1/2. Away: sky 2/3, road predicted where there is none.
    assert near_and_far(counts) == pytest.approx((1 / 2, (2 / 3 + 0) / 2))
    assert near_and_far(counts, "set_pixel_accuracy") == pytest.approx((2 / 3, 2 / 3))


@given(st.integers(0, 10**6), st.sampled_from([3, 11]))
@settings(deadline=None, max_examples=30)
def test_near_and_away_are_the_sets_own_figures(seed, classes):
    labels, eleven, three = drawn(seed, images=3, pixels=60)
    prediction = eleven if classes == 11 else three
    near = np.random.default_rng(seed).random(labels.shape) < 0.3
    counts = np.zeros((3, 2, 12, classes), np.uint16)
    np.add.at(counts, (np.arange(3)[:, None], near.astype(int), labels, prediction), 1)
    target = labels if classes == 11 else np.array(THREE_CLASSES)[labels]
    for band, miou, accuracy in zip(
        (near, ~near), near_and_far(counts), near_and_far(counts, "set_pixel_accuracy"), strict=True
    ):
        there = band & (labels != VOID)
        assert miou == pytest.approx(jaccard_score(target[there], prediction[there], average="macro"))
        assert accuracy == pytest.approx(accuracy_score(target[there], prediction[there]))


def test_no_pixels_give_nan_and_other_counts_are_refused():
    counts = np.zeros((2, 2, 12, 3), np.uint16)
    counts[:, 0, 0, 0] = 5
    assert math.isnan(near_and_far(counts)[0]) and near_and_far(counts)[1] == 1.0
    assert math.isnan(near_and_far(counts, "set_pixel_accuracy")[0])
    with pytest.raises(ValueError, match="none of"):
        near_and_far(counts, "miou")
    with pytest.raises(ValueError, match=r"\[V, 2, 12, C\]"):
        near_and_far(counts.sum(1))
