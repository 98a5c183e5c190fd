"""Intervals, verdicts and bounds: against scipy, hand-worked cases and simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvhw4.claims import CLAIMS
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES
from cvhw4.statistics import bounds as bounds_module
from cvhw4.statistics.bounds import Bound, calibrate, failed, load_bounds, to_toml
from cvhw4.statistics.intervals import Estimate, estimate, prediction_half_width, verdict
from cvhw4.statistics.verdicts import judge, judge_all
from tests.tiny import record

QUICK = PROFILES["quick"]
CLAIM = next(c for c in CLAIMS if c.id == "q1_4-finetune_above_features")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_interval_is_scipys(values):
    e = estimate(values)
    assert e.mean == pytest.approx(np.mean(values))
    assert e.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if e.sd > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (e.low, e.high) == pytest.approx((low, high))


def test_one_run_has_no_interval_and_no_runs_no_estimate():
    e = estimate([0.5])
    assert (e.n, e.mean, e.low, e.high) == (1, 0.5, -math.inf, math.inf) and math.isnan(e.sd)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_intervals_cover_as_often_as_they_say():
    random = np.random.RandomState(0)
    for n in (3, 5, 10):
        covered = [e.low < 0.5 < e.high for e in (estimate(random.normal(0.5, 0.02, n).tolist()) for _ in range(3000))]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("k", [1, 3])
def test_prediction_intervals_miss_as_often_as_they_say(k):
    random = np.random.RandomState(1)
    missed = 0
    for _ in range(4000):
        e = estimate(random.normal(0.8, 0.01, 8).tolist())
        half = prediction_half_width(e.sd, e.n, 0.1, k)
        missed += abs(random.normal(0.8, 0.01, k).mean() - e.mean) > half
    assert missed / 4000 == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (0.01, 0.03, 0.0, "supported"),
        (-0.03, -0.01, 0.0, "contradicted"),
        (-0.01, 0.03, 0.0, "undecided"),
        (0.01, 0.03, 0.02, "undecided"),
        (-math.inf, math.inf, 0.0, "undecided"),
    ],
)
def test_verdicts(low, high, margin, expected):
    assert verdict(Estimate(3, (low + high) / 2, 0.01, low, high), margin) == expected


def runs(row, figures):
    return [record(row, seed=s, figures=((value,),)) for s, value in enumerate(figures)]


def test_claims_are_judged_pairwise_by_seed():
    better, worse = runs("q1_2", [0.80, 0.90, 0.70]), runs("q1_1", [0.75, 0.86, 0.66])
    outcome = judge(CLAIM, better + worse)
    assert outcome.difference.mean == pytest.approx((0.05 + 0.04 + 0.04) / 3)
    assert outcome.difference.sd == pytest.approx(np.std([0.05, 0.04, 0.04], ddof=1))
    assert outcome.verdict == "supported"
    assert judge(CLAIM, better[:1] + worse).difference.n == 1
    assert judge(CLAIM, better) is None
    assert judge(CLAIM, runs("q1_2", [0.1, 0.2, 0.3]) + runs("q1_1", [0.5, 0.61, 0.69])).verdict == "contradicted"


def test_claims_use_the_best_epoch_as_the_report_does():
    outcome = judge(CLAIM, [record("q1_2", figures=((0.9,), (0.5,))), record("q1_1", figures=((0.7,), (0.8,)))])
    assert outcome.difference.mean == pytest.approx(0.1)


def test_a_claim_about_a_figure_is_for_real_data():
    claim = next(c for c in CLAIMS if c.worse is None)
    real = [replace(r, data=replace(r.data, embedded=False)) for r in runs("q1_8", [0.91, 0.92, 0.915])]
    outcome = judge(claim, real)
    assert outcome.difference.mean == pytest.approx(0.915) and outcome.verdict == "supported"
    assert judge(claim, runs("q1_8", [0.91, 0.92, 0.915])) is None


def test_runs_on_different_data_are_not_compared():
    other = replace(record("q1_1"), data=replace(record().data, fingerprint="f" * 64, name="hymenoptera"))
    with pytest.raises(ValueError, match="hymenoptera"):
        judge(CLAIM, [record("q1_2"), other])
    assert judge_all(QUICK, [record("q1_2"), other]) == []
    assert [o.claim.id for o in judge_all(QUICK, [record("q1_2"), record("q1_1"), other])] == [CLAIM.id]


def stored(n=8, spread=0.01):
    """n runs of every quick row, with a spread of its own over seeds."""
    random = np.random.RandomState(5)
    return [
        record(e.row, seed=s, figures=((float(0.5 + 0.02 * i + random.normal(0, spread)),),))
        for i, e in enumerate(QUICK.rows)
        for s in range(n)
    ]


def test_calibrated_bounds_pass_their_own_runs_and_survive_the_file(tmp_path):
    made = calibrate(QUICK, stored())
    path = tmp_path / "bounds.toml"
    path.write_text(to_toml("quick", made))
    read = load_bounds(path, "quick")
    assert read == made
    assert set(read.rows) == {e.id for e in QUICK.rows} and set(read.claims) == {c.id for c in CLAIMS if c.worse}
    assert not failed(check for r in stored() for check in read.check(r))
    assert load_bounds(path, "full").rows == {}
    assert "2026-11-23" in read.source and "torch 2.15.0" in read.source
    for outcome in judge_all(QUICK, stored()):
        assert read.check_claim(outcome).met


def test_a_bound_says_value_bound_and_source():
    made = calibrate(QUICK, stored())
    (message, _) = failed(made.check(record("q1_2", figures=((0.1,),))))
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    assert message.startswith("best accuracy 0.1000 is below its bound [")
    assert f"[{bound.low:.4f}, {bound.high:.4f}]" in message
    assert f"from 8 runs with mean {bound.mean:.4f}" in message and "calibrated 2026-11-23" in message
    assert "above" in failed(made.check(record("q1_2", figures=((0.99,),))))[0]


def test_nan_meets_no_bound():
    check = bounds_module.Check("best accuracy", math.nan, Bound(0.0, 1.0, 0.5, 0.1, 5), "somewhere")
    assert not check.met and "outside" in str(check)


def test_bounds_do_not_apply_to_other_data():
    made = calibrate(QUICK, stored())
    foreign = replace(record("q1_2", figures=((0.1,),)), data=replace(record().data, embedded=False))
    assert made.check(foreign) == []
    outcome = judge(CLAIM, [foreign, replace(record("q1_1"), data=foreign.data)])
    assert made.check_claim(outcome) is None


def test_the_mean_of_more_runs_is_bounded_more_narrowly():
    sd, n, error = 0.01, 8, 0.001
    half = prediction_half_width(sd, n, error)
    narrowed = Bound(0.5 - half, 0.5 + half, 0.5, sd, n).for_mean_of(3)
    assert narrowed.high - 0.5 == pytest.approx(prediction_half_width(sd, n, error, k=3))


def test_false_alarms_over_a_whole_session_are_as_rare_as_stated():
    """Nightly sessions drawn from the same spread as the calibration: 1 % of them may fail, all bounds together."""
    random = np.random.RandomState(2)
    count, seeds, error = 30, 3, 0.01
    alarms = 0
    for _ in range(2000):
        calibration = random.normal(0, 1, (count, 8))
        half = prediction_half_width(1.0, 8, error / (count * seeds)) * calibration.std(1, ddof=1)
        night = random.normal(0, 1, (count, seeds))
        alarms += (np.abs(night - calibration.mean(1)[:, None]) > half[:, None]).any()
    # Bonferroni is an upper limit: runs held against one bound share its calibration.
    assert 0.002 < alarms / 2000 < 0.017


def test_too_few_runs_calibrate_nothing():
    with pytest.raises(InputError, match=r"q1_1-features: has 4 runs.*--seeds 5"):
        calibrate(QUICK, stored(4))


def test_equal_figures_are_bounded_by_one_image():
    made = calibrate(QUICK, [record(e.row, seed=s, figures=((0.5,),)) for e in QUICK.rows for s in range(6)])
    bound = made.rows["q1_2-finetune"]["last accuracy"]
    assert bound.sd == 0 and bound.low < 0.5 - 1 / 400


@pytest.mark.parametrize("text", ["[quick", "[quick]\nsource = 1", "quick = 3", "[quick.rows.a]\nx = { low = 1 }"])
def test_a_foreign_bounds_file_is_named(text, tmp_path):
    path = tmp_path / "b.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"b\.toml: is no bounds file.*cvhw4 calibrate"):
        load_bounds(path, "quick")
    with pytest.raises(InputError, match="does not exist"):
        load_bounds(tmp_path / "none.toml", "quick")
