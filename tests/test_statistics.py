"""Intervals, verdicts and bounds: against scipy, hand-worked cases and simulation."""

import math
from dataclasses import replace
from pathlib import Path

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
from cvhw4.statistics.intervals import estimate, prediction_half_width
from cvhw4.statistics.verdicts import judge, judge_all
from tests.tiny import record

ROOT = Path(__file__).resolve().parent.parent
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
    message = failed(made.check(record("q1_2", figures=((0.1,),))))[0]
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    assert message.startswith("best accuracy 0.1000 is below its bound [")
    assert f"[{bound.low:.4f}, {bound.high:.4f}]" in message
    assert f"from 8 runs with mean {bound.mean:.4f}" in message and "runs of 2026-11-23" in message
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


def alarms(bounds, nights, random, runs=20):
    """Share of nightly sessions with any alarm: in each, `runs` runs of every row are drawn from the fitted spread and
    bounds made of them as `calibrate` does, then the night's own runs are drawn and held against those."""
    error = 1 - (1 - bounds.false_alarms) ** (1 / (bounds.seeds * rows_bounded(bounds) + len(bounds.claims)))
    alarmed = np.zeros(nights, bool)
    figures = [(b, False) for of_row in nightly(bounds) for b in of_row.values()]
    for bound, of_claim in [*figures, *((b, True) for b in bounds.claims.values())]:
        calibration = random.normal(bound.mean, bound.sd, (nights, runs))
        night = random.normal(bound.mean, bound.sd, (nights, bounds.seeds))
        if of_claim:
            night = night.mean(1, keepdims=True)
        k = bounds.seeds if of_claim else 1
        half = prediction_half_width(1.0, runs, error, k) * calibration.std(1, ddof=1)
        alarmed |= (np.abs(night - calibration.mean(1)[:, None]) > half[:, None]).any(1)
    return alarmed.mean()


def nightly(bounds):
    ids = {e.id for e in QUICK.rows if e.group == "report"}
    return [figures for id, figures in bounds.rows.items() if id in ids]


def rows_bounded(bounds):
    return sum(map(len, nightly(bounds)))


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_alarms_of_ten_thousand_nights_are_as_rare_as_stated(rate):
    """From the fitted spread of the project's own bounds, all figures independent of each other: the worst case."""
    fitted = replace(load_bounds(ROOT / "benchmarks" / "bounds.toml", "quick"), false_alarms=rate)
    nights = 10_000
    found = alarms(fitted, nights, np.random.RandomState(7))
    error = math.sqrt(rate * (1 - rate) / nights)
    # Seeds of one night share their calibration, so that their alarms come together now and then: a little fewer.
    assert rate * 0.9 - 3 * error < found < rate + 3 * error


def test_calibrate_divides_the_rate_as_the_simulation_does():
    made = calibrate(QUICK, stored(20))
    error = 1 - 0.99 ** (1 / (3 * rows_bounded(made) + len(made.claims)))
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    figures = [r.best("accuracy") for r in stored(20) if r.row == "q1_2"]
    half = prediction_half_width(np.std(figures, ddof=1), 20, error)
    assert bound.high - bound.mean == pytest.approx(half, abs=2e-4)
    wider = calibrate(QUICK, stored(20), false_alarms=0.001)
    assert wider.rows["q1_2-finetune"]["best accuracy"].high > bound.high


@pytest.mark.parametrize("rate", [0.0, 1.0, -1])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match="not a share"):
        calibrate(QUICK, stored(), false_alarms=rate)


def test_rows_of_a_factorial_are_bounded_where_they_have_runs():
    without = [r for r in stored() if not r.row.startswith("q1_f")]
    assert not {id for id in calibrate(QUICK, without).rows if id.startswith("q1_f")}
    assert len({id for id in calibrate(QUICK, stored()).rows if id.startswith("q1_f")}) == 6


def test_a_claim_is_promised_where_every_mean_within_its_bound_holds_it():
    claim = CLAIM.id
    outcome = judge(CLAIM, runs("q1_2", [0.9, 0.9, 0.9]) + runs("q1_1", [0.8, 0.8, 0.8]))
    near = bounds_module.Bounds({}, {claim: Bound(-0.01, 0.19, 0.09, 0.02, 8)}, "")
    far = bounds_module.Bounds({}, {claim: Bound(0.01, 0.19, 0.10, 0.02, 8)}, "")
    assert far.promises(outcome)
    assert near.promises(outcome) == (near.claims[claim].for_mean_of(3).low > 0)
    assert not bounds_module.Bounds({}, {claim: Bound(-0.5, 0.7, 0.1, 0.02, 8)}, "").promises(outcome)
    assert not bounds_module.NO_BOUNDS.promises(outcome)


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
