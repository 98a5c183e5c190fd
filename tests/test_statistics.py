"""Intervals, verdicts and bounds: against scipy, hand-worked cases and simulation."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvhw4.claims import CLAIMS
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES
from cvhw4.statistics import bounds as bounds_module
from cvhw4.statistics.bounds import (
    FIGURES,
    NIGHTLY_SEEDS,
    Bound,
    Bounds,
    calibrate,
    error_of_one,
    failed,
    limits,
    load_bounds,
    to_toml,
)
from cvhw4.statistics.intervals import Estimate, estimate, prediction_half_width
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


def test_a_claim_with_a_figure_that_is_no_number_is_not_judged():
    worse = runs("q1_1", [0.75, 0.86, 0.66])
    assert judge(CLAIM, runs("q1_2", [0.80, math.nan, 0.70]) + worse) is None
    assert judge(CLAIM, runs("q1_2", [0.80, 0.90, math.inf]) + worse) is None


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


def alarms(rate, nights, random, runs=20):
    """Checks missed on simulated nights: [nights, checks of rows] and [nights, checks of claims].

    In each night `runs` runs of every row are drawn and bounds made of them, then the night's own runs are drawn and
    held against these, all by the product: the rate of one check, limits, narrowing, and checks, for arrays of
    nights. The rate does not depend on the rows' means and spreads, so one will do for all; the figures' resolution,
    which only makes alarms rarer, is left out. Figures are independent of each other: the worst case.
    """
    claims = [claim for claim in CLAIMS if claim.worse is not None]
    error = error_of_one(QUICK.rows, claims, rate, NIGHTLY_SEEDS)

    def drawn(n):
        return random.normal(0.8, 0.02, (nights, n))

    def bound():
        return Bound(*limits(drawn(runs), 0.0, error), runs)

    of_rows, of_claims = [], []
    for row in (e for e in QUICK.rows if e.group == "report"):
        calibrated = Bounds({row.id: {name: bound() for name in FIGURES[row.question]}}, {}, "", rate)
        for _ in range(calibrated.seeds):
            figures = {name: drawn(1)[:, 0] for name in calibrated.rows[row.id]}
            run = SimpleNamespace(id=row.id, data=SimpleNamespace(embedded=True), figure=figures.__getitem__)
            of_rows += [~check.met for check in calibrated.check(run)]
    for claim in claims:
        if not all(e.group == "report" for e in QUICK.rows if e.row in claim.rows):
            continue
        calibrated = Bounds({}, {claim.id: bound()}, "", rate)
        night = Estimate(calibrated.seeds, drawn(calibrated.seeds).mean(1), *[math.nan] * 3)
        of_claims.append(~calibrated.check_claim(SimpleNamespace(claim=claim, embedded=True, difference=night)).met)
    return np.stack(of_rows, 1), np.stack(of_claims, 1)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_false_alarms_of_ten_thousand_nights_are_as_rare_as_stated(rate):
    nights = 10_000
    of_rows, of_claims = alarms(rate, nights, np.random.default_rng(7))
    # Each check's share of the rate, exact for what is checked here; seeds of one night share their calibration, so
    # that their misses come together now and then: a little more than a binomial's error for rows.
    checks = of_rows.shape[1] + of_claims.shape[1]
    error = 1 - (1 - rate) ** (1 / checks)
    for missed, wider in ((of_rows, 1.3), (of_claims, 1.0)):
        assert missed.mean() == pytest.approx(error, abs=4 * wider * math.sqrt(error / missed.size))
    found = (of_rows.any(1) | of_claims.any(1)).mean()
    assert rate * 0.9 - 3 * math.sqrt(rate / nights) < found < rate + 3 * math.sqrt(rate * (1 - rate) / nights)


def test_calibrate_bounds_as_the_simulation_does():
    made, runs = calibrate(QUICK, stored(20)), stored(20)
    claims = [claim for claim in CLAIMS if claim.worse is not None]
    error = error_of_one(QUICK.rows, claims, 0.01, 3)
    figures = [r.best("accuracy") for r in runs if r.row == "q1_2"]
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    expected = limits(figures, 1 / 400, error)
    assert (bound.low, bound.high, bound.mean, bound.sd) == pytest.approx([float(x) for x in expected], abs=6e-5)
    assert bound.n == 20
    half = prediction_half_width(np.std(figures, ddof=1), 20, error)
    assert bound.high - bound.mean == pytest.approx(half, abs=2e-4)
    differences = [judge(CLAIM, [r for r in runs if r.seed == s]).difference.mean for s in range(20)]
    bound = made.claims[CLAIM.id]
    assert (bound.low, bound.high) == pytest.approx([float(x) for x in limits(differences, 0.0, error)[:2]], abs=6e-5)
    wider = calibrate(QUICK, stored(20), false_alarms=0.001)
    assert wider.rows["q1_2-finetune"]["best accuracy"].high > bound.high
    assert wider.claims[CLAIM.id].high > calibrate(QUICK, stored(20), 0.001, seeds=1).claims[CLAIM.id].high > bound.high


def test_the_rate_of_one_check_by_hand():
    rows = [e for e in QUICK.rows if e.row in ("q1_1", "q1_2", "q1_f1", "q2_1b")]
    # a night of 3 seeds: two rows of 3 figures and one of 5 make 33 checks, the claim one more
    assert error_of_one(rows, [CLAIM], 0.01, 3) == pytest.approx(1 - 0.99 ** (1 / 34))
    of_factorial = replace(CLAIM, better="q1_f1")  # a row that a night does not train
    assert error_of_one(rows, [CLAIM, of_factorial], 0.01, 3) == error_of_one(rows, [CLAIM], 0.01, 3)


def test_claims_are_bounded_where_all_their_rows_are(monkeypatch):
    of_factorial = replace(CLAIM, id="made_up", better="q1_f1")
    monkeypatch.setattr(bounds_module, "claims_of", lambda profile: (CLAIM, of_factorial))
    assert set(calibrate(QUICK, stored()).claims) == {CLAIM.id, "made_up"}
    without = [r for r in stored() if r.row != "q1_f1"]
    few = [r for r in stored() if r.row != "q1_f1" or r.seed < 4]
    assert set(calibrate(QUICK, without).claims) == set(calibrate(QUICK, few).claims) == {CLAIM.id}
    # nights are no stricter for a claim that they do not judge
    assert calibrate(QUICK, without).claims == {CLAIM.id: calibrate(QUICK, stored()).claims[CLAIM.id]}


def test_a_claim_whose_rows_share_too_few_seeds_is_named():
    apart = [replace(r, seed=r.seed + 4) if r.row == "q1_2" else r for r in stored()]
    with pytest.raises(InputError, match=rf"{CLAIM.id}: its rows share 4 seeds.*To mend: run pytest.*--seeds 5"):
        calibrate(QUICK, apart)
    nothing = [replace(r, seed=r.seed + 40) if r.row == "q1_2" else r for r in stored()]
    with pytest.raises(InputError, match="share 0 seeds"):
        calibrate(QUICK, nothing)


def test_a_claim_is_guarded_where_a_nights_mean_is_promised():
    made = bounds_module.Bounds({}, {CLAIM.id: Bound(-0.01, 0.19, 0.09, 0.02, 8)}, "", seeds=3)
    assert made.guards(CLAIM) and not replace(made, seeds=1).guards(CLAIM)
    # three runs: 0.09 - 0.1 sqrt((1/3 + 1/8) / (1 + 1/8)) = 0.0262
    assert made.guards(replace(CLAIM, margin=0.026)) and not made.guards(replace(CLAIM, margin=0.027))
    assert not made.guards(CLAIMS[1]) and not bounds_module.NO_BOUNDS.guards(CLAIM)
    # what is promised goes by the outcome's own seeds
    one = judge(CLAIM, runs("q1_2", [0.9]) + runs("q1_1", [0.8]))
    assert not made.promises(one)


def test_a_run_is_held_against_the_other_seeds_of_its_row():
    runs = [r for r in stored(10) if not r.row.startswith("q1_f")]
    odd = next(r for r in runs if (r.row, r.seed) == ("q1_2", 4))
    spoilt = record("q1_2", seed=4, figures=((0.99,),))
    changed = [spoilt if r is odd else r for r in runs]
    made = calibrate(QUICK, changed)
    assert made.check(spoilt)[0].met  # a bound made of it too is wide enough for it
    checks = bounds_module.held_out(QUICK, changed, made)
    assert [(r.seed, c.name) for r, c in checks if not c.met] == [(4, "best accuracy"), (4, "last accuracy")]
    assert len(checks) == sum(len(bounds_module.FIGURES[e.question]) for e in QUICK.rows if e.group == "report") * 10
    (bound,) = {c.bound for r, c in checks if r is spoilt and c.name == "best accuracy"}
    without = [r for r in changed if r is not spoilt]
    others = [r.best("accuracy") for r in without if r.row == "q1_2"]
    assert bound.n == 9 and bound.mean == pytest.approx(np.mean(others), abs=1e-4)


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
