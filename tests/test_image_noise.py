"""The noise of a finite validation set: against closed forms, a loop over resampled images, and simulation."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvhw4.records.images import ImageResults
from cvhw4.statistics.images import ImageNoise, block_length, bootstrap_weights, combine, image_noise, squared_error
from cvhw4.statistics.intervals import estimate
from tests.helpers.tiny import two_classes


def rng(seed=0):
    return np.random.default_rng(seed)


def classified(right, labels=None):
    """Results of one epoch from bool [V]."""
    right = np.asarray(right, bool)
    labels = np.arange(len(right)) % 2 if labels is None else labels
    return two_classes(right=right[None], labels=np.asarray(labels, np.uint8)), 1


def segmented(seed, images=9, classes=11):
    """Two epochs of random counts; rare classes are absent from most images."""
    random = np.random.default_rng(seed)
    share = np.where(random.random((images, 12, 1)) < 0.6, 5.0, 0.0)
    return ImageResults(counts=random.poisson(share[None, :, None] / 2, (2, images, 2, 12, classes)).astype(np.uint32))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 20))
def test_resamples_keep_the_size_of_every_class(strata, draws):
    strata = np.array(strata, np.uint8)
    weights = bootstrap_weights(strata, draws, rng())
    assert weights.shape == (draws, len(strata)) and weights.dtype == np.int64 and weights.min() >= 0
    for k in np.unique(strata):
        assert (weights[:, strata == k].sum(1) == (strata == k).sum()).all()


def test_the_variance_of_an_accuracy_is_the_closed_one():
    labels = np.repeat([0, 1], [60, 40])
    right = np.r_[rng(1).permutation(60) < 54, rng(1).permutation(40) < 20]
    noise = image_noise([(1, [classified(right, labels)])], "accuracy", rng(), draws=20_000)
    # (60/100)^2 0.9 0.1 / 60 + (40/100)^2 0.5 0.5 / 40 = 0.00054 + 0.001; unstratified 0.74 0.26 / 100 = 0.001924
    assert noise.mean_variance == pytest.approx(0.00154, rel=0.04)
    assert (noise.interaction, noise.images, noise.seeds) == (0.0, 100, 1)


def test_pictures_like_their_neighbours_are_drawn_together():
    """Forty scenes of ten frames that are alike tell as much as forty images; by class they tell nothing of order."""
    right = np.repeat(rng(5).permutation(40) < 28, 10)
    shuffled = rng(6).permutation(right)
    film, single = (image_noise([(1, [classified(r, 0 * r)])], "accuracy", rng()) for r in (right, shuffled))
    assert single.block == 1 and single.mean_variance == pytest.approx(0.7 * 0.3 / 400, rel=0.1)
    assert 10 <= film.block <= 60 and film.mean_variance == pytest.approx(0.7 * 0.3 / 40, rel=0.35)
    sorted_by_class = np.repeat([0, 1], 200)
    of_class = np.where(sorted_by_class, rng(9).random(400) < 0.9, rng(10).random(400) < 0.5)
    assert image_noise([(1, [classified(of_class, sorted_by_class)])], "accuracy", rng()).block == 1


@pytest.mark.parametrize(("r", "n", "block"), [(0.0, 400, 1), (0.9, 400, 35), (0.5, 1000, 14)])
def test_blocks_are_as_long_as_neighbours_are_alike(r, n, block):
    """Of AR(1) series: (6^1/2 r / (1 - r^2))^2/3 n^1/3, as its correlation is found."""
    noise, series = rng(2).normal(size=n), np.zeros(n)
    for i in range(1, n):
        series[i] = r * series[i - 1] + noise[i]
    assert block_length(series, np.zeros(n, np.uint8)) == pytest.approx(block, rel=0.35)
    assert block_length(np.zeros(n), np.zeros(n, np.uint8)) == 1
    assert block_length(np.arange(100), np.zeros(100, np.uint8)) == 33


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(2, 40))
def test_blocks_keep_the_size_of_every_class(strata, block):
    strata = np.array(strata, np.uint8)
    weights = bootstrap_weights(strata, 9, rng(), block)
    assert all((weights[:, strata == k].sum(1) == (strata == k).sum()).all() for k in strata)


@pytest.mark.parametrize("metric", ["miou", "set_miou", "pixel_accuracy", "set_pixel_accuracy"])
def test_a_loop_over_resampled_images_finds_the_same(metric):
    better, worse = [(segmented(s), 2) for s in (1, 2, 3)], [(segmented(s), 1) for s in (4, 5, 6)]
    noise = image_noise([(1, better), (-1, worse)], metric, rng(7), draws=40)

    def figures(runs, chosen):
        parts = [ImageResults(counts=r.counts[:, chosen]).figure(metric, e) for r, e in runs]
        return np.array(parts)

    differences = []
    for weights in bootstrap_weights(np.zeros(9, np.uint8), 40, rng(7)):
        chosen = np.repeat(np.arange(9), weights)
        differences.append(figures(better, chosen) - figures(worse, chosen))
    d = np.array(differences)  # [draws, seeds]
    v1, vm = d.var(0, ddof=1).mean(), d.mean(1).var(ddof=1)
    assert noise.mean_variance == pytest.approx(vm) and noise.interaction == pytest.approx((v1 - vm) * 3 / 2)


def test_rows_alike_on_each_image_differ_with_less_noise():
    random = rng(3)
    hard = random.random(200) < 0.3
    better = classified(~hard)
    worse = classified(~hard & (random.random(200) < 0.97))  # wrong on the same images and a few more
    alone = [image_noise([(1, [run])], "accuracy", rng(), 4000).mean_variance for run in (better, worse)]
    assert image_noise([(1, [better]), (-1, [worse])], "accuracy", rng(), 4000).mean_variance < sum(alone) / 10
    assert image_noise([(1, [better]), (-1, [better])], "accuracy", rng()) == ImageNoise(0, 0, 200, 1)


def test_seeds_that_agree_have_no_interaction_and_independent_ones_nothing_else():
    same = classified(rng().random(200) < 0.8)
    noise = image_noise([(1, [same] * 5)], "accuracy", rng())
    assert noise.interaction == pytest.approx(0, abs=1e-12)
    assert squared_error(0.01, 5, noise) == pytest.approx(0.01**2 / 5 + noise.mean_variance)

    apart = [classified(rng(s).random(200) < 0.8) for s in range(20)]
    noise = image_noise([(1, apart)], "accuracy", rng(), 4000)
    assert noise.interaction == pytest.approx(0.16 / 200, rel=0.05)  # E/V = p (1 - p) / V
    assert noise.mean_variance == pytest.approx(0.16 / 200 / 20, rel=0.4)


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_squared_error_lies_between_the_larger_source_and_their_sum(seed, n):
    random = rng(seed)
    runs = [classified(random.random(20) < 0.7) for _ in range(n)]
    noise = image_noise([(1, runs)], "accuracy", random, 50)
    sd = estimate([float(r.right.mean()) for r, _ in runs]).sd
    if n == 1:
        assert noise.interaction == 0 and math.isnan(squared_error(sd, 1, noise))
    else:
        sources = sd**2 / n, noise.mean_variance
        assert max(sources) <= squared_error(sd, n, noise) <= sum(sources) + 1e-15


def test_the_squared_error_by_hand():
    noise = ImageNoise(4e-4, 5e-4, 10, 5)
    assert squared_error(0.05, 5, noise) == pytest.approx(5e-4 + 4e-4 - 1e-4)
    assert squared_error(0.0, 5, replace(noise, interaction=9e-3)) == pytest.approx(4e-4)


def test_a_difference_of_differences_has_four_arms():
    random = rng(4)
    rows = [[classified(random.random(60) < level) for _ in range(3)] for level in (0.9, 0.8, 0.7, 0.5)]
    signs = (1, -1, -1, 1)
    noise = image_noise(list(zip(signs, rows, strict=True)), "accuracy", rng(1), 300)
    weights = bootstrap_weights(rows[0][0][0].strata, 300, rng(1))
    by_seed = [
        sum(sign * row[s][0].figure("accuracy", 1, weights) for sign, row in zip(signs, rows, strict=True))
        for s in range(3)
    ]
    assert noise.mean_variance == pytest.approx(np.mean(by_seed, 0).var(ddof=1))
    assert noise.one_run == pytest.approx(np.var(by_seed, axis=1, ddof=1).mean())
    assert noise.seeds == 3


def test_the_parts_of_one_runs_variance():
    # B/V = 3, E/V = 2: one run's 5, of the mean over 4 seeds 3.5
    noise = ImageNoise(3.5, 2.0, 10, 4)
    assert (noise.one_run, noise.images_alone) == (5.0, 3.0)
    assert replace(noise, interaction=20.0).images_alone == 0.0
    alone = ImageNoise(3.5, 0.0, 10, 1)
    assert (alone.one_run, alone.images_alone) == (3.5, 3.5)


def test_runs_on_different_images_are_refused():
    run = classified([1, 0, 1, 1])
    for worse in (classified([1, 0, 1, 1], [0, 0, 0, 1]), classified([1, 0, 1])):
        with pytest.raises(ValueError, match="different images"):
            image_noise([(1, [run]), (-1, [worse])], "accuracy", rng())


SEED, SHARED, OWN = 0.1, 1.0, 0.4  # latent standard deviations: of a seed, of an image, of an image in one row


def test_the_interval_of_both_sources_covers_as_often_as_it_says():
    """New seeds and new images each time; an image is met where its latent score is above 0 (probit), noise sd 1."""
    n, v, level = 10, 80, (1.4, 1.1)
    spread = math.sqrt(SEED**2 + SHARED**2 + OWN**2 + 1)
    truth = NormalDist().cdf(level[0] / spread) - NormalDist().cdf(level[1] / spread)
    random, labels = rng(11), np.arange(v) % 2
    covered, seeds_alone, doubled = [], [], []
    for _ in range(400):
        shared, rows = random.normal(0, SHARED, v), []
        for k in (0, 1):
            of_image = level[k] + shared + random.normal(0, OWN, v)
            scores = of_image + random.normal(0, SEED, (n, 1)) + random.normal(0, 1, (n, v))
            rows.append([classified(s > 0, labels) for s in scores])
        seeds = estimate([float(b.right.mean() - w.right.mean()) for (b, _), (w, _) in zip(*rows, strict=True)])
        noise = image_noise([(1, rows[0]), (-1, rows[1])], "accuracy", random, draws=200)
        for kept, squared in (
            (covered, squared_error(seeds.sd, n, noise)),
            (doubled, seeds.sd**2 / n + noise.mean_variance),
        ):
            interval = combine(seeds.mean, seeds.sd, n, squared - seeds.sd**2 / n, v - 1).estimate
            kept.append(interval.low < truth < interval.high)
        seeds_alone.append(seeds.low < truth < seeds.high)
    assert 0.93 < np.mean(covered) < 0.98
    assert np.mean(doubled) > np.mean(covered) > np.mean(seeds_alone) and np.mean(seeds_alone) < 0.9
