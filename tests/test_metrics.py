"""Metrics against cases worked by hand, torchmetrics and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.functional.segmentation import mean_iou

from cvhw4.data.dataset import VOID
from cvhw4.training.counts import BAND, class_map, contours, count_pixels
from cvhw4.training.metrics import THREE_CLASSES, merged, segmentation_figures, segmentation_lists


def metrics(prediction, label, classes=11):
    prediction, label = torch.as_tensor(prediction), torch.as_tensor(label)
    counts = count_pixels(prediction, label, contours(label), classes).numpy().sum(1)
    return {k: float(v) for k, v in segmentation_figures(counts).items()}, segmentation_lists(counts)


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
    near = contours(label)
    parts = [count_pixels(prediction[part], label[part], near[part], 11) for part in (slice(cut), slice(cut, n))]
    assert torch.equal(torch.cat(parts), count_pixels(prediction, label, near, 11))


@given(pictures, st.integers(1, 3), st.integers(2, 12))
def test_contours_are_scipys(random, n, side):
    label = random.randint(0, 3, (n, side, side)) * (random.rand(n, side, side) < 0.1)
    window = (1, 2 * BAND + 1, 2 * BAND + 1)
    expected = maximum_filter(label, window, mode="nearest") != minimum_filter(label, window, mode="nearest")
    assert np.array_equal(contours(torch.as_tensor(label)).numpy(), expected)


def test_near_a_contour_is_within_three_pixels_of_another_label():
    label = torch.zeros(1, 1, 12, dtype=torch.long)
    label[..., 6:] = 3
    assert contours(label)[0, 0].tolist() == [False] * 3 + [True] * 6 + [False] * 3
    prediction = torch.full_like(label, 3)
    counts = count_pixels(prediction, label, contours(label), 11)[0]
    assert counts[1, 0, 3] == 3 and counts[0, 0, 3] == 3 and counts[1, 3, 3] == 3 and counts[0, 3, 3] == 3
    assert counts.sum() == 12


@given(pictures, st.integers(1, 3), st.integers(2, 8))
def test_merging_counts_is_merging_predictions(random, n, side):
    label = torch.as_tensor(random.randint(0, 12, (n, side, side)))
    prediction = torch.as_tensor(random.randint(0, 11, (n, side, side)))
    near = contours(label)
    three = class_map(3)[prediction].long()
    expected = count_pixels(three, label, near, 3).numpy()
    assert np.array_equal(merged(count_pixels(prediction, label, near, 11).numpy()), expected)


@given(pictures, st.integers(1, 5), st.sampled_from([3, 11]), st.integers(1, 6))
def test_an_image_that_counts_twice_is_there_twice(random, n, classes, side):
    label = torch.as_tensor(random.randint(0, 12, (n, side, side)))
    prediction = torch.as_tensor(random.randint(0, classes, (n, side, side)))
    counts = count_pixels(prediction, label, contours(label), classes).numpy().sum(1)
    draws = random.randint(0, n, (4, n))
    weights = np.stack([np.bincount(draw, minlength=n) for draw in draws])
    weighted = segmentation_figures(counts, weights)
    for i, draw in enumerate(draws):
        expected = segmentation_figures(counts[draw])
        for name, values in weighted.items():
            assert values.shape == (4,)
            assert values[i] == pytest.approx(expected[name], nan_ok=True)
