"""Optimism of best-epoch figures: on curves whose true figures are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvhw4.records.images import ImageResults
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.selection import half_weights, selection, selection_over_seeds
from tests.helpers.tiny import two_classes


def rng(seed=0):
    return np.random.default_rng(seed)


def classified(right):
    right = np.asarray(right, bool)
    return two_classes(right=right, labels=(np.arange(right.shape[1]) % 2).astype(np.uint8))


def highest_of(epochs, images, p):
    """Expected highest share of right answers of so many independent epochs."""
    shares = np.arange(images + 1)
    return float(np.diff(stats.binom.cdf(shares, images, p) ** epochs, prepend=0) @ shares / images)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.integers(1, 10), st.integers(0, 99), st.integers(1, 40))
def test_halves_share_every_class_evenly(strata, splits, seed, block):
    strata = np.array(strata, np.uint8)
    one, other = half_weights(strata, splits, rng(seed), block)
    assert one.shape == (splits, len(strata)) and (one + other == 1).all()
    assert (abs(one.sum(1) - other.sum(1)) <= 1).all()
    for k in np.unique(strata):
        assert (abs(one[:, strata == k].sum(1) - other[:, strata == k].sum(1)) <= 1).all()


@pytest.mark.parametrize("block", [1, 2])
def test_every_image_is_in_either_half_as_often(block):
    halves, _ = half_weights(np.array([0, 0, 0, 1, 1, 2], np.uint8), 20_000, rng(), block)
    assert halves.mean(0) == pytest.approx(np.full(6, 0.5), abs=0.02)


def test_neighbours_stay_together_in_halves():
    halves, _ = half_weights(np.zeros(100, np.uint8), 200, rng(), 10)
    assert np.abs(np.diff(halves, axis=1)).sum(1).max() <= 12  # blocks' ends, and one block that halves cut


def test_two_epochs_by_hand():
    # The first epoch is right on images 0 and 1, the second on 2 and 3; the classes are {0, 2} and {1, 3}. Halves take
    # one of each: both of one epoch's (chosen 1, honest 0), or one of each epoch's (1/2 and 1/2, the first is chosen).
    images = classified([[1, 1, 0, 0], [0, 0, 1, 1]])
    found = selection(images, "accuracy", rng(), splits=4000)
    assert found["last"] == 0.5
    assert found["chosen_there"] == pytest.approx(3 / 4, abs=0.03) and found["honest"] == pytest.approx(1 / 4, abs=0.03)
    assert found["optimism"] == pytest.approx(found["chosen_there"] - found["honest"])
    assert found["gain"] == pytest.approx(found["honest"] - found["last"])
    # What one half shows too much, the other shows too little.
    assert found["chosen_there"] + found["honest"] == pytest.approx(1.0)


def test_flat_curves_are_honest_at_their_level_and_flatter_where_chosen():
    """25 equally good epochs, right on each image with probability 0.8: all that a choice finds is noise."""
    random = rng(1)
    runs = [classified(random.random((25, 200)) < 0.8) for _ in range(300)]
    found = selection_over_seeds(runs, "accuracy", random, splits=10)
    expected = highest_of(25, 100, 0.8)
    assert 0.87 < expected < 0.88
    assert found["chosen_there"].mean == pytest.approx(expected, abs=0.003)
    assert found["honest"].mean == pytest.approx(0.8, abs=0.004)
    assert found["last"].mean == pytest.approx(0.8, abs=0.004)
    assert found["optimism"].low > 0.06 and found["gain"].low < 0 < found["gain"].high


@pytest.mark.parametrize(("levels", "best"), [([0.3, 0.4, 0.5, 0.7, 0.9], 5), ([0.9, 0.7, 0.6, 0.5, 0.5], 1)])
def test_where_every_half_has_the_same_best_epoch_there_is_no_optimism(levels, best):
    images = classified(rng(3).random((5, 400)) < np.array(levels)[:, None])
    found = selection(images, "accuracy", rng())
    assert found["optimism"] == pytest.approx(0, abs=1e-12)
    assert found["gain"] == pytest.approx(float(images.figure("accuracy", best) - images.figure("accuracy", 5)))


def segmented(seed, epochs=8, images=40, good=0.7):
    """Sky and road in all images, a pole in a fifth of them; every pixel right with the same probability."""
    random = rng(seed)
    pixels = np.zeros((images, 12), int)
    pixels[:, (0, 3)], pixels[::5, 2], pixels[:, 11] = 300, 20, 15
    counts = np.zeros((epochs, images, 2, 12, 11), np.uint32)
    right = random.beta(good * 20, (1 - good) * 20, (epochs, images, 12))
    for label, mistaken in ((0, 3), (2, 0), (3, 0), (11, 0)):
        hit = random.binomial(pixels[:, label], right[..., label])
        counts[..., 1, label, label % 11] = hit
        counts[..., 1, label, mistaken] += (pixels[:, label] - hit).astype(np.uint32)
    return ImageResults(counts=counts)


@pytest.mark.parametrize("metric", ["miou", "set_miou"])
def test_flat_curves_of_an_miou(metric):
    runs = [segmented(s) for s in range(60)]
    found = selection_over_seeds(runs, metric, rng(), splits=10)
    assert found["optimism"].low > 0.01
    assert found["chosen_there"].low > found["last"].high
    assert found["honest"].mean == pytest.approx(found["last"].mean, abs=0.006)


def test_over_seeds_are_the_single_runs():
    runs = [segmented(s) for s in range(3)]
    found, random = selection_over_seeds(runs, "miou", rng(5), 20), rng(5)
    singles = [selection(images, "miou", random, 20) for images in runs]
    assert found["gain"] == estimate([s["gain"] for s in singles])
    assert found["optimism"].mean == pytest.approx(found["chosen_there"].mean - found["honest"].mean)
