"""What the bounds notice of controls, against hand-worked cases and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from cvhw4 import Control
from cvhw4.report.runs import bound_words
from cvhw4.statistics.bounds import Bound, Bounds, Outliers, Twin, arithmetic
from cvhw4.statistics.sensitivity import Detection, chance, chance_of_pairs, detect, detections, found_shift, least
from tests.helpers.tiny import QUICK, record

NOISE = next(c for c in QUICK.controls if c.corrupts == "label noise")
BOUND = Bound(low=0.8, high=1.0, mean=0.9, sd=0.02, n=20, runs=3)
DATA = {"embedded": record().data.fingerprint}
BOUNDS = Bounds({"q1_6-finetune": {"best accuracy": BOUND, "last accuracy": BOUND}}, {}, "made up", DATA)


def corrupted(strength, figures):
    row = NOISE.of(QUICK, strength)
    one = [record("q1_6", seed=s, figures=((value,),)) for s, value in enumerate(figures)]
    return [replace(r, row=row.name, settings=row.settings()) for r in one]


def test_a_control_is_held_against_the_bounds_of_the_row_it_corrupts():
    found = detect(NOISE, 0.2, QUICK, corrupted(0.2, [0.85, 0.75, 0.70]), BOUNDS)
    assert found.missed and found.n == 3
    # Two figures each: the mean, and the one run outside of 0.9 +- 0.1655.
    assert [text.split(" is ")[0][-6:] for text in found.missed] == ["0.7000", "0.7667"] * 2
    assert found.mean == pytest.approx(2.3 / 3)
    weaker = detect(NOISE, 0.1, QUICK, corrupted(0.1, [0.89, 0.9]), BOUNDS)
    assert not weaker.missed and weaker.low < weaker.probability < 0.01
    with_newer = replace(BOUNDS, rows={"q1_6-finetune": BOUNDS.rows["q1_6-finetune"] | {"last newer": BOUND}})
    assert detect(NOISE, 0.1, QUICK, corrupted(0.1, [0.89, 0.9]), with_newer) == weaker  # runs from before that metric
    on_scale = replace(BOUNDS, rows={"q1_6-finetune": {"best accuracy": replace(BOUND, scale="share")}})
    mean = np.sin(np.arcsin(np.sqrt([0.85, 0.75, 0.70])).mean()) ** 2  # as it is held against such a bound
    assert detect(NOISE, 0.2, QUICK, corrupted(0.2, [0.85, 0.75, 0.70]), on_scale).mean == pytest.approx(mean)
    outliers = {"q1_6-finetune": Outliers("best accuracy", 0.5, lower_is_better=False, n=1, of=20, failed=True)}
    found = detect(NOISE, 0.2, QUICK, corrupted(0.2, [0.85, 0.84, 0.3]), replace(BOUNDS, outliers=outliers))
    assert (found.probability, found.low) == chance([0.85, 0.84], BOUND, 0.05 / 2)  # of those that learned


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("values", [[0.72, 0.8], [0.9], [1.02, 1.03, 1.01, 1.05]])
def test_the_chance_is_students_prediction(values, k):
    n, own = len(values), np.var(values, ddof=1) if len(values) > 1 else 0.0
    freedom = 19 + n - 1
    scale = np.sqrt((19 * 0.02**2 + (n - 1) * own) / freedom * (1 / k + 1 / n))
    low, high = ((end - np.mean(values)) / scale for end in (0.8, 1.0))
    found = chance(values, replace(BOUND, runs=k))[0]
    assert found == pytest.approx(t.cdf(low, freedom) + t.sf(high, freedom), abs=1e-3)
    still = replace(BOUND, sd=0.0)  # figures without any spread are certain
    assert chance([0.7, 0.7], still) == (1.0, 1.0) and chance([0.9], still) == (0.0, 0.0)


def test_a_control_is_held_against_the_calibrated_run_of_its_own_seed():
    """Within the spread over seeds, and all three a point below the calibrated runs of their seeds."""
    twin, runs = Twin(0.003, {0: 0.89, 1: 0.92, 2: 0.90}), corrupted(0.1, [0.88, 0.911, 0.889])
    own = replace(BOUNDS, twins={"q1_6-finetune": {"best accuracy": twin}}, twins_on=arithmetic(record("q1_6")))
    found = detect(NOISE, 0.1, QUICK, runs, own)
    assert found.bound == twin and found.mean == pytest.approx(0.8933, abs=1e-4)
    assert found.probability > found.low > 0.9 and found.missed and bound_words(found) == "own seed ± 3.0e-03"
    apart, room = [r.best("accuracy") - twin.values[r.seed] for r in runs], max(map(twin.room, twin.values))
    assert (found.probability, found.low) == chance_of_pairs(apart, room, 3, 0.05 / 3)  # of three that are chosen from
    for other in (replace(own, twins_on="cuda bf16"), BOUNDS):  # another arithmetic, or no twins
        assert not detect(NOISE, 0.1, QUICK, runs, other).missed
    # A run that is outside tells little of what others are: no spread is known of one.
    assert isinstance(detect(NOISE, 0.1, QUICK, runs[:1], own).bound, Bound)


@pytest.mark.parametrize("runs", [1, 3])
def test_the_chance_of_pairs_is_students_prediction(runs):
    apart, tolerance = [0.004, 0.009, 0.005, 0.007], 0.003
    found, low = chance_of_pairs(apart, tolerance, runs)
    if runs == 1:
        scale = np.std(apart, ddof=1) * np.sqrt(1 + 1 / 4)
        ends = [(end - np.mean(apart)) / scale for end in (-tolerance, tolerance)]
        assert found == pytest.approx(t.cdf(ends[0], 3) + t.sf(ends[1], 3), abs=1e-3)
    random = np.random.default_rng(0)  # what true means and spreads these runs leave possible, by simulation
    spreads = np.sqrt(3 * np.var(apart, ddof=1) / random.chisquare(3, 20_000))
    means = np.mean(apart) + random.normal(0, 1, 20_000) * spreads / 2
    nights = random.normal(means, spreads, (runs, 20_000))
    assert found == pytest.approx((np.abs(nights) > tolerance).any(0).mean(), abs=0.01) and low < found
    assert [chance_of_pairs([x] * 3, 0.003, runs) for x in (0.004, 0.002)] == [(1.0, 1.0), (0.0, 0.0)]


def test_the_chance_is_taken_on_the_figures_scale():
    plain = replace(BOUND, low=-0.1, high=0.1, mean=0.0)
    on_log = replace(BOUND, low=np.exp(-0.1), high=np.exp(0.1), mean=1.0, scale="log")
    values = [0.09, 0.12, 0.07]
    assert chance(np.exp(values), on_log) == pytest.approx(chance(values, plain))


def test_the_shift_that_is_found_is_found_as_often_as_said():
    random, shift = np.random.default_rng(3), found_shift(BOUND)
    nights = random.normal(0.9 + shift * BOUND.sd, BOUND.sd, (20_000, 3)).mean(1)
    assert np.mean(nights > BOUND.high) == pytest.approx(0.9, abs=0.01)
    assert found_shift(replace(BOUND, sd=0.0)) == np.inf


def test_the_lower_end_is_below_the_true_chance_nearly_always():
    random, kept = np.random.default_rng(2), []
    for _ in range(600):
        bound = replace(BOUND, sd=float(random.normal(0, 0.02, 20).std(ddof=1)))
        kept.append(chance(random.normal(0.79, 0.02, 3).tolist(), bound, 0.2)[1])
    true = t.cdf(0.5 * np.sqrt(3), np.inf)  # the bound is half a spread above the true mean
    assert np.mean(np.array(kept) <= true) == pytest.approx(0.9, abs=0.04)


def test_the_figure_chosen_pays_for_the_choice():
    alone = replace(BOUNDS, rows={"q1_6-finetune": {"best accuracy": BOUND}})
    runs = corrupted(0.2, [0.80, 0.79, 0.78])
    one, of_two = detect(NOISE, 0.2, QUICK, runs, alone), detect(NOISE, 0.2, QUICK, runs, BOUNDS)
    assert one.probability == of_two.probability and of_two.low < one.low < one.probability
    assert one.low == chance([0.80, 0.79, 0.78], BOUND)[1]


def test_nothing_is_said_without_runs_bounds_or_on_other_data():
    runs = corrupted(0.2, [0.7])
    assert detect(NOISE, 0.1, QUICK, runs, BOUNDS) is None
    assert detect(NOISE, 0.2, QUICK, runs, Bounds({}, {}, "", DATA)) is None
    real = [replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in runs]
    assert detect(NOISE, 0.2, QUICK, real, BOUNDS) is None
    assert [d.strength for d in detections(QUICK, [*runs, *corrupted(0.05, [0.9])], BOUNDS)] == [0.2, 0.05]


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ({0.2: 1.0, 0.1: 0.95, 0.05: 0.3}, 0.1),
        ({0.2: 1.0, 0.1: 0.3, 0.05: 0.95}, 0.2),  # what a weaker one shows by chance does not count
        ({0.2: 0.5, 0.1: 0.3, 0.05: 0.1}, None),
    ],
)
def test_the_least_strength_is_that_from_which_on_all_are_noticed(chances, expected):
    found = [Detection(NOISE, s, 3, (), "best accuracy", 0.8, BOUND, p, 0.0) for s, p in chances.items()]
    assert least(found, NOISE) == expected


def test_of_factors_the_one_nearest_to_1_is_the_least():
    slower = Control(name="slower", row="q1_6-finetune", words="", lr=True, strengths=(0.1, 0.5, 0.9))
    chances = {0.1: 1.0, 0.5: 0.95, 0.9: 0.3}
    found = [Detection(slower, s, 3, (), "best accuracy", 0.8, BOUND, p, 0.0) for s, p in chances.items()]
    assert least(found, slower) == 0.5
