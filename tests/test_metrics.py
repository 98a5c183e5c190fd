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

from cvhw4.labels import merge_classes
from cvhw4.metrics import confusion, merged, segmentation_figures, segmentation_lists
from cvhw4.training.counts import BAND, contours, count_pixels
from tests.helpers.tiny import MERGED, VOID


def counted(prediction, label, classes=11):
    """Counts by image, [V, 12, C]."""
    prediction, label = torch.as_tensor(prediction), torch.as_tensor(label)
    return count_pixels(prediction, label, contours(label), (VOID + 1, classes)).numpy().sum(1)


def metrics(prediction, label, classes=11):
    counts, targets = counted(prediction, label, classes), MERGED[classes].targets
    figures = segmentation_figures(counts, targets=targets)
    return {k: float(v) for k, v in figures.items()}, segmentation_lists(counts, targets)


@pytest.mark.parametrize(
    ("prediction", "label", "classes", "expected"),
    [
        # prediction, label; miou, pixel accuracy, set miou, set pixel accuracy
        ([[[0, 1], [3, 3]], [[0, 0], [5, 5]]], [[[0, 1], [3, 3]], [[0, 0], [5, 5]]], 11, (1, 1, 1, 1)),
        ([[[1, 1], [1, 1]]], [[[0, 0], [0, 0]]], 11, (0, 0, 0, 0)),
        ([[[0, 0]]], [[[0, 0]]], 11, (1, 1, 1, 1)),  # classes absent everywhere count for nothing
        # sky sky / road void, predicted as sky road / road road. Template: 2 of 4 pixels, the void one among the
        # missed; sky 1/2, road 1/(1 label + 3 predicted - 1) = 1/3. Standard: 2 of 3, sky 1/2, road 1/2.
        ([[[0, 3], [3, 3]]], [[[0, 0], [3, VOID]]], 11, (5 / 12, 1 / 2, 1 / 2, 2 / 3)),
        # three classes: void is met as class 1 by the template (1 of 1 sky, 2 of 3 others, 0 cars), left out otherwise
        ([[[1, 1], [0, 1]]], [[[VOID, VOID], [0, 8]]], 3, (5 / 9, 3 / 4, 1 / 3, 1 / 2)),
    ],
)
def test_figures_worked_by_hand(prediction, label, classes, expected):
    figures, by_class = metrics(prediction, label, classes)
    assert list(figures.values()) == pytest.approx(expected)
    assert np.nanmean(by_class["iou"]) == pytest.approx(expected[0])
    absent = set(range(classes)) - set(np.asarray(prediction).flat) - set(np.array(MERGED[classes].targets)[label].flat)
    assert {c for c in range(classes) if math.isnan(by_class["iou"][c])} == absent


def test_one_wrong_pixel_of_an_absent_class_is_a_zero_for_that_image_only_by_image():
    label = torch.zeros(2, 10, 10, dtype=torch.long)
    label[1, :5] = 9
    prediction = label.clone()
    prediction[0, 0, 0] = 9  # one pixel of pedestrian in an image without
    _, by_class = metrics(prediction, label)
    assert (by_class["iou"][9], by_class["set_iou"][9]) == pytest.approx(((0 + 1) / 2, 50 / 51))
    assert by_class["iou"][0] == pytest.approx((99 / 100 + 1) / 2)


def test_the_reports_three_classes_are_sky_others_and_what_moves():
    names, targets, first = MERGED[3]
    assert names == ("Sky", "everything else", "Car, Pedestrian, Bicyclist")
    assert (targets, first) == ((0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1), (0, 1, 8))


ABC = "a", "b", "c", "d"


@pytest.mark.parametrize(
    ("merge", "names", "targets"),
    [
        ({}, "abcd", (0, 1, 2, 3, 4)),
        ({"x": ["d", "b"]}, "axc", (0, 1, 2, 1, 3)),  # in the order of their first labels; void is of none
        ({"x": ["c", "d"], "y": ["a", "void"]}, "ybx", (0, 1, 2, 2, 0)),
        ({"a": ["a", "b"]}, "acd", (0, 0, 1, 2, 3)),  # called as one of its own
        ({"x": ["void"]}, "abcdx", (0, 1, 2, 3, 4)),  # pixels of no class become one
        ({"a": ["b"], "b": ["a"]}, "bacd", (0, 1, 2, 3, 4)),
    ],
)
def test_merged_classes_by_hand(merge, names, targets):
    found = merge_classes(ABC, merge)
    assert ("".join(found.names), found.targets) == (names, targets)
    assert [found.targets[first] for first in found.first] == list(range(len(names)))


@pytest.mark.parametrize(
    ("merge", "problem"),
    [
        ({"x": ["a", "e"]}, "merges 'e', which is not one"),
        ({"x": ["a"], "y": ["a", "b"]}, "merges 'a' twice"),
        ({"x": ["a", "a"]}, "merges 'a' twice"),
        ({"x": []}, "merges nothing into 'x'"),
        ({"c": ["a", "b"]}, "merges into 'c', which is a class already"),
        ({"void": ["a"]}, "merges into 'void'"),
        ({"x": ABC}, "leaves no two classes"),
    ],
)
def test_a_merge_that_says_two_things_is_refused(merge, problem):
    with pytest.raises(ValueError, match=problem):
        merge_classes(ABC, merge)


def test_counts_that_the_targets_do_not_fit_are_refused():
    three = np.ones((2, 12, 3), np.int64)
    for targets in (None, range(12), (0, 1, 2)):
        with pytest.raises(ValueError, match="12 labels and 3 classes"):
            segmentation_figures(three, targets=targets)


pictures = st.integers(0, 2**32 - 1).map(np.random.RandomState)


def drawn(random, n, side, classes=11):
    """Predictions and labels [n, side, side]."""
    return random.randint(0, classes, (n, side, side)), random.randint(0, 12, (n, side, side))


@given(pictures, st.integers(1, 4), st.sampled_from([3, 11]), st.integers(2, 12))
def test_standard_convention_is_scikit_learns(random, n, classes, side):
    prediction, label = drawn(random, n, side, classes)
    figures, by_class = metrics(prediction, label, classes)
    keep = label != VOID
    target = np.array(MERGED[classes].targets)[label][keep]
    if not keep.any():
        return
    matrix = confusion_matrix(target, prediction[keep], labels=range(classes))
    assert np.array_equal(confusion(counted(prediction, label, classes).sum(0), MERGED[classes].targets), matrix)
    assert figures["set_pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    present = [c for c in range(classes) if (target == c).any() or (prediction[keep] == c).any()]
    expected = jaccard_score(target, prediction[keep], labels=present, average=None)
    assert [by_class["set_iou"][c] for c in present] == pytest.approx(list(expected))
    assert figures["set_miou"] == pytest.approx(expected.mean())


@given(pictures, st.integers(1, 4), st.integers(2, 12))
def test_template_convention_is_torchmetrics_image_by_image(random, n, side):
    prediction, label = map(torch.as_tensor, drawn(random, n, side))
    _, by_class = metrics(prediction, label)
    # torchmetrics gives each image's IoU by class; void is a twelfth class there that nothing predicts.
    per_image = mean_iou(prediction, label, num_classes=12, per_class=True, input_format="index")[:, :11]
    there = torch.stack([((prediction == c) | (label == c)).flatten(1).any(1) for c in range(11)], 1)
    expected = torch.where(there, per_image, torch.nan).nanmean(0)
    assert by_class["iou"] == pytest.approx(expected.tolist(), nan_ok=True, abs=1e-6)


@given(pictures, st.integers(1, 3), st.integers(2, 12))
def test_contours_are_scipys_and_batches_and_merging_make_no_difference(random, n, side):
    label = random.randint(0, 3, (n, side, side)) * (random.rand(n, side, side) < 0.1)
    window = (1, 2 * BAND + 1, 2 * BAND + 1)
    expected = maximum_filter(label, window, mode="nearest") != minimum_filter(label, window, mode="nearest")
    assert np.array_equal(contours(torch.as_tensor(label)).numpy(), expected)
    prediction, label = map(torch.as_tensor, drawn(random, n, side))
    near, cut = contours(label), random.randint(1, n + 1)
    whole = count_pixels(prediction, label, near, (12, 11))
    parts = [
        count_pixels(prediction[p], label[p], near[p], (12, 11)) for p in (slice(cut), slice(cut, n)) if len(label[p])
    ]
    assert torch.equal(torch.cat(parts), whole)
    three = count_pixels(torch.tensor(MERGED[3].targets)[prediction], label, near, (12, 3))
    assert np.array_equal(merged(whole.numpy(), MERGED[3]), three.numpy())


def test_near_a_contour_is_within_three_pixels_of_another_label():
    label = torch.zeros(1, 1, 12, dtype=torch.long)
    label[..., 6:] = 3
    assert contours(label)[0, 0].tolist() == [False] * 3 + [True] * 6 + [False] * 3
    counts = count_pixels(torch.full_like(label, 3), label, contours(label), (12, 11))[0]
    assert counts.sum() == 12 and counts[:, (0, 3), 3].tolist() == [[3, 3], [3, 3]]


@given(pictures, st.integers(1, 5), st.sampled_from([3, 11]), st.integers(1, 6))
def test_an_image_that_counts_twice_is_there_twice(random, n, classes, side):
    counts, targets = counted(*drawn(random, n, side, classes), classes), MERGED[classes].targets
    draws = random.randint(0, n, (4, n))
    weighted = segmentation_figures(
        counts, np.stack([np.bincount(draw, minlength=n) for draw in draws]), targets=targets
    )
    for i, draw in enumerate(draws):
        for name, expected in segmentation_figures(counts[draw], targets=targets).items():
            assert weighted[name].shape == (4,) and weighted[name][i] == pytest.approx(expected, nan_ok=True)
