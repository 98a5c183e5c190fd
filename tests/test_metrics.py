"""Metrics against cases worked by hand, torchmetrics and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.functional.segmentation import mean_iou

from cvhw4.data.dataset import VOID
from cvhw4.training.metrics import (
    THREE_CLASSES,
    SegmentationCounts,
    class_map,
    count_segmentation,
    segmentation_metrics,
)


def metrics(prediction, label, classes=11):
    prediction, label = torch.as_tensor(prediction), torch.as_tensor(label)
    target = class_map(classes)[label.long()]
    return segmentation_metrics(count_segmentation(prediction, target, label == VOID, classes))


def test_perfect_prediction_scores_one():
    label = torch.tensor([[[0, 1], [3, 3]], [[0, 0], [5, 5]]])
    figures, by_class = metrics(label, label)
    assert figures == {"miou": 1.0, "pixel_accuracy": 1.0, "set_miou": 1.0, "set_pixel_accuracy": 1.0}
    assert [c for c, iou in enumerate(by_class["iou"]) if iou == 1.0] == [0, 1, 3, 5]
    assert all(math.isnan(by_class["set_iou"][c]) for c in (2, 4, 6, 7, 8, 9, 10))


def test_all_wrong_scores_zero():
    figures, _ = metrics([[[1, 1], [1, 1]]], [[[0, 0], [0, 0]]])
    assert set(figures.values()) == {0.0}


def test_hand_worked_image_with_void():
    # label: sky sky / road void; prediction: sky road / road road
    figures, by_class = metrics([[[0, 3], [3, 3]]], [[[0, 0], [3, VOID]]])
    # Template: 2 of 4 pixels met, the void pixel among the missed. Sky 1/2; road 1/(1 label + 3 predicted - 1) = 1/3.
    assert figures["pixel_accuracy"] == pytest.approx(0.5)
    assert by_class["iou"][0] == pytest.approx(1 / 2)
    assert by_class["iou"][3] == pytest.approx(1 / 3)
    assert figures["miou"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    # Standard: the void pixel is left out: 2 of 3; sky 1/2; road 1/2.
    assert figures["set_pixel_accuracy"] == pytest.approx(2 / 3)
    assert figures["set_miou"] == pytest.approx(1 / 2)


def test_one_wrong_pixel_of_an_absent_class_is_a_zero_for_that_image_only_by_image():
    label = torch.zeros(2, 10, 10, dtype=torch.long)
    label[1, :5] = 9
    prediction = label.clone()
    prediction[0, 0, 0] = 9  # one pixel of pedestrian in an image without
    _, by_class = metrics(prediction, label)
    assert by_class["iou"][9] == pytest.approx((0 + 1) / 2)
    assert by_class["set_iou"][9] == pytest.approx(50 / 51)
    assert by_class["iou"][0] == pytest.approx((99 / 100 + 1) / 2)


def test_class_absent_everywhere_counts_for_nothing():
    figures, by_class = metrics([[[0, 0]]], [[[0, 0]]])
    assert figures["miou"] == 1.0
    assert sum(not math.isnan(x) for x in by_class["iou"]) == 1


def test_three_classes_as_the_report_merges_them():
    # 0 sky; 2 car, pedestrian, bicyclist; 1 everything else and void: label > 0 and < 8, or > 10.
    assert [THREE_CLASSES[c] for c in (0, 8, 9, 10)] == [0, 2, 2, 2]
    assert all(THREE_CLASSES[c] == 1 for c in range(12) if (0 < c < 8) or c > 10)
    # Void is met as class 1 by the template, and left out by the standard.
    figures, _ = metrics([[[1, 1], [0, 1]]], [[[VOID, VOID], [0, 8]]], classes=3)
    assert figures["pixel_accuracy"] == pytest.approx(3 / 4)
    assert figures["set_pixel_accuracy"] == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="11 or 3"):
        class_map(5)


pictures = st.integers(0, 2**32 - 1).map(np.random.RandomState)


@given(pictures, st.integers(1, 4), st.sampled_from([3, 11]), st.integers(2, 12))
def test_standard_convention_is_scikit_learns(random, n, classes, side):
    label = random.randint(0, 12, (n, side, side))
    prediction = random.randint(0, classes, (n, side, side))
    figures, by_class = metrics(prediction, label, classes)
    keep = label != VOID
    target = np.asarray(class_map(classes))[label][keep]
    if not keep.any():
        return
    matrix = confusion_matrix(target, prediction[keep], labels=range(classes))
    assert figures["set_pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    present = [c for c in range(classes) if (target == c).any() or (prediction[keep] == c).any()]
    expected = jaccard_score(target, prediction[keep], labels=present, average=None)
    assert [by_class["set_iou"][c] for c in present] == pytest.approx(list(expected))
    assert figures["set_miou"] == pytest.approx(expected.mean())


@given(pictures, st.integers(1, 4), st.integers(2, 12))
def test_template_convention_is_torchmetrics_image_by_image(random, n, side):
    label = torch.as_tensor(random.randint(0, 12, (n, side, side)))
    prediction = torch.as_tensor(random.randint(0, 11, (n, side, side)))
    _, by_class = metrics(prediction, label)
    # torchmetrics gives each image's IoU by class; void is a twelfth class there that nothing predicts.
    per_image = mean_iou(prediction, label, num_classes=12, per_class=True, input_format="index")[:, :11]
    there = torch.stack([((prediction == c) | (label == c)).flatten(1).any(1) for c in range(11)], 1)
    expected = torch.where(there, per_image, torch.nan).nanmean(0)
    assert by_class["iou"] == pytest.approx(expected.tolist(), nan_ok=True, abs=1e-6)


@given(pictures, st.integers(2, 6))
def test_batches_make_no_difference(random, n):
    label = torch.as_tensor(random.randint(0, 12, (n, 6, 7)))
    prediction = torch.as_tensor(random.randint(0, 11, (n, 6, 7)))
    cut = random.randint(1, n)
    parts = [
        count_segmentation(p, t, t == VOID, 11)
        for p, t in ((prediction[:cut], label[:cut]), (prediction[cut:], label[cut:]))
    ]
    whole = metrics(prediction, label)
    joined = segmentation_metrics(SegmentationCounts.concatenate(parts))
    assert joined[0] == pytest.approx(whole[0])
