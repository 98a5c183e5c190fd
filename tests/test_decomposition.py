"""The rise of the mIoU from 11 classes to 3, in parts: by hand, against scikit-learn, and as properties."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from cvhw4.camvid import CLASSES
from cvhw4.metrics import merged, segmentation_figures
from cvhw4.statistics import decomposition
from cvhw4.statistics.decomposition import OTHER_ORDER, PARTS, mean_iou_of, near_and_far
from cvhw4.statistics.intervals import estimate
from tests.helpers.tiny import MERGED

pytestmark = pytest.mark.filterwarnings("error")
SKY, BUILDING, POLE, ROAD, SIGN, CAR, VOID = 0, 1, 2, 3, 6, 8, 11
THREE = np.array(MERGED[3].targets)
decompose = partial(decomposition.decompose, merge=MERGED[3])
decompositions = partial(decomposition.decompositions, merge=MERGED[3])


def counted(predictions, labels, classes):
    """[V, 12, C] from lists of pixels by image."""
    counts = np.zeros((len(labels), 12, classes), np.uint32)
    for v, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        np.add.at(counts[v], (np.array(label, int), np.array(prediction, int)), 1)
    return counts


def drawn(seed, images=4, pixels=30):
    """Random labels with void, and predictions of two networks that are often right."""
    random = np.random.default_rng(seed)
    labels = random.choice(12, (images, pixels), p=[0.2, 0.2, 0.02, 0.2, 0.1, 0.1, 0.02, 0.02, 0.04, 0.02, 0.03, 0.05])
    met = random.random((2, images, pixels)) < 0.7
    eleven = np.where(met[0] & (labels != VOID), labels, random.integers(0, 11, labels.shape))
    of_three = np.where(met[1], THREE[labels], random.integers(0, 3, labels.shape))
    return labels, eleven, of_three


def test_parts_by_hand():
    labels = [[SKY, SKY, CAR, VOID], [SKY, ROAD, ROAD, BUILDING]]
    eleven = counted([[SKY, CAR, CAR, SKY], [SKY, ROAD, BUILDING, BUILDING]], labels, 11)
    three = counted([[0, 0, 2, 0], [0, 1, 1, 1]], labels, 3)
    # By image, void counted: sky 1/3 and 1; car 1/2; road 1/2; building 1/2.
    p0 = ((1 / 3 + 1) / 2 + 1 / 2 + 1 / 2 + 1 / 2) / 4
    # Void ignored: the void pixel predicted as sky no longer counts against sky.
    p1 = ((1 / 2 + 1) / 2 + 1 / 2 + 1 / 2 + 1 / 2) / 4
    # One matrix: sky 2 of 3.
    p2 = (2 / 3 + 1 / 2 + 1 / 2 + 1 / 2) / 4
    # Merged: road predicted as building is no error.
    p3 = (2 / 3 + 1 + 1 / 2) / 3
    # The network with 3 classes is right on all but the void pixel, which it predicts as sky.
    p4 = p5 = 1.0
    # Void as class 1: sky 2/3 and 1; class 1 0 and 1; class 2 1.
    p6 = ((2 / 3 + 1) / 2 + (0 + 1) / 2 + 1) / 3
    # The merged predictions, so measured: sky 1/3 and 1; class 1 0 and 1; class 2 1/2.
    merged_first = ((1 / 3 + 1) / 2 + (0 + 1) / 2 + 1 / 2) / 3
    assert decompose(eleven, three) == pytest.approx(
        {
            "void": p1 - p0 + p6 - p5,
            "averaging": p2 - p1 + p5 - p4,
            "merging": p3 - p2,
            "training": p4 - p3,
            "merging_first": merged_first - p0,
            "training_last": p6 - merged_first,
            "whole": p6 - p0,
        }
    )


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_the_parts_add_up_and_vanish_where_they_must(seed):
    labels, eleven, three = drawn(seed)
    of_eleven, of_three = counted(eleven, labels, 11), counted(three, labels, 3)
    found = decompose(of_eleven, of_three)
    for parts in (PARTS, OTHER_ORDER):
        assert math.fsum(found[part] for part in parts) == pytest.approx(found["whole"], abs=1e-12)
    # a network with 3 classes that says the same learnt nothing more
    same = decompose(of_eleven, merged(of_eleven, MERGED[3]))
    assert same["training"] == same["training_last"] == 0
    known = np.where(labels == VOID, ROAD, labels)
    assert decompose(counted(eleven, known, 11), counted(three, known, 3))["void"] == pytest.approx(0, abs=1e-12)
    assert decompose(of_eleven[:1], of_three[:1])["averaging"] == pytest.approx(0, abs=1e-12)


def test_parts_are_differences_of_scikit_learns_figures():
    labels, eleven, three = drawn(1, images=6, pixels=400)
    found = decompose(counted(eleven, labels, 11), counted(three, labels, 3))
    template = {
        c: float(segmentation_figures(counted(p, labels, c), targets=MERGED[c].targets)["miou"])
        for p, c in ((eleven, 11), (three, 3))
    }
    assert found["whole"] == pytest.approx(template[3] - template[11])
    known = labels != VOID
    target = THREE[labels[known]]
    p2 = jaccard_score(labels[known], eleven[known], average="macro")
    p3 = jaccard_score(target, THREE[eleven[known]], average="macro")
    p4 = jaccard_score(target, three[known], average="macro")
    assert (found["merging"], found["training"]) == pytest.approx((p3 - p2, p4 - p3))


def test_an_image_of_void_alone_counts_only_where_void_does():
    labels = [[SKY, ROAD], [VOID, VOID]]
    eleven, three = counted([[SKY, ROAD], [SKY, SKY]], labels, 11), counted([[0, 1], [1, 1]], labels, 3)
    found = decompose(eleven, three)
    assert found["void"] == found["whole"] == pytest.approx(1 - (0.5 + 1) / 2)
    assert found["averaging"] == found["merging"] == found["training"] == 0


def test_over_seeds():
    drawings = map(drawn, range(4))
    pairs = [(counted(eleven, labels, 11), counted(three, labels, 3)) for labels, eleven, three in drawings]
    found = decompositions(pairs)
    assert set(found) == {*PARTS, *OTHER_ORDER, "whole", "measuring"}
    assert found["measuring"].mean == pytest.approx(1 - found["training"].mean / found["whole"].mean)
    assert found["merging"] == estimate([decompose(*pair)["merging"] for pair in pairs])
    with pytest.raises(ValueError, match="at least one value"):
        decompositions([])


def test_other_counts_are_refused():
    labels, eleven, three = drawn(0)
    a, b = counted(eleven, labels, 11), counted(three, labels, 3)
    shapes, images = r"\[V, 12, 11\]", "different images"
    wrong = [(b, a, shapes), (a, a, shapes), (a[:, None], b, shapes), (a, b[:-1], images), (a, b[::-1], images)]
    for of_eleven, of_three, told in wrong:
        with pytest.raises(ValueError, match=told):
            decompose(of_eleven, of_three)


def test_iou_of_thin_classes():
    labels = [[POLE, POLE, SKY, SKY], [SIGN, SIGN, SIGN, VOID]]
    counts = counted([[POLE, SKY, POLE, SKY], [SIGN, SIGN, SKY, SIGN]], labels, 11)
    # Pole 1 of 3 pixels; sign 2 of 3, the void pixel ignored; sky 1 of 4.
    assert mean_iou_of(counts, ["Pole", "SignSymbol"], CLASSES) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert mean_iou_of(counts, ["Sky"], CLASSES) == pytest.approx(1 / 4)
    assert mean_iou_of(counts, CLASSES, CLASSES) == pytest.approx(float(segmentation_figures(counts)["set_miou"]))
    assert math.isnan(mean_iou_of(counts, ["Car"], CLASSES))
    for names in ([], ["void"], ["Pole", "Tram"]):
        with pytest.raises(ValueError, match="names of classes"):
            mean_iou_of(counts, names, CLASSES)
    with pytest.raises(ValueError, match=r"\[V, 12, 11\]"):
        mean_iou_of(merged(counts, MERGED[3]), ["Sky"], CLASSES)


@given(st.integers(0, 10**6), st.sampled_from([3, 11]))
@settings(deadline=None, max_examples=30)
def test_near_and_away_are_the_sets_own_figures(seed, classes):
    labels, eleven, three = drawn(seed, images=3, pixels=60)
    prediction = eleven if classes == 11 else three
    near = np.random.default_rng(seed).random(labels.shape) < 0.3
    counts = np.zeros((3, 2, 12, classes), np.uint16)
    np.add.at(counts, (np.arange(3)[:, None], near.astype(int), labels, prediction), 1)
    target = labels if classes == 11 else THREE[labels]
    found = [near_and_far(counts, metric, MERGED[classes].targets) for metric in ("set_miou", "set_pixel_accuracy")]
    for band, miou, accuracy in zip((near, ~near), *found, strict=True):
        there = band & (labels != VOID)
        assert miou == pytest.approx(jaccard_score(target[there], prediction[there], average="macro"))
        assert accuracy == pytest.approx(accuracy_score(target[there], prediction[there]))


def test_no_pixels_give_nan_and_other_counts_are_refused():
    counts = np.zeros((2, 2, 12, 3), np.uint16)
    counts[:, 0, 0, 0] = 5
    near, away = near_and_far(counts, targets=MERGED[3].targets)
    assert math.isnan(near) and away == 1.0
    assert math.isnan(near_and_far(counts, "set_pixel_accuracy", MERGED[3].targets)[0])
    with pytest.raises(ValueError, match="none of"):
        near_and_far(counts, "miou")
    with pytest.raises(ValueError, match=r"\[V, 2, L, C\]"):
        near_and_far(counts.sum(1))
