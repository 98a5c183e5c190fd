"""Bounds: where they come from, what they notice, and how often unchanged code misses them."""

import math
import re
import tomllib
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from cvhw4 import Claim, Row, Study
from cvhw4.errors import InputError
from cvhw4.homework import study
from cvhw4.homework.rows import rows_at
from cvhw4.report.plan import plan_table
from cvhw4.report.results import report_page
from cvhw4.report.runs import judged, set_aside
from cvhw4.statistics.bounds import NIGHTLY_SEEDS, NO_BOUNDS, Bound, Bounds, Check, Outliers, Twin, failed, load_bounds
from cvhw4.statistics.calibration import (
    Series,
    calibrate,
    error_of_one,
    of_other_studies,
    to_toml,
    widened,
    with_new_seeds,
)
from cvhw4.statistics.power import largest_sd, smallest_effect
from cvhw4.statistics.verdicts import judge, judge_all
from cvhw4.tasks import TRAINING_LOSSES
from tests.helpers.records import calibrated, elsewhere, runs, stored
from tests.helpers.tiny import QUICK, record

FULL = study("full")
CLAIMS = {claim.id: claim for claim in FULL.claims}
CLAIM = CLAIMS["q1_4-finetune_above_features"]
BETWEEN_ROWS = [claim for claim in QUICK.claims if claim.worse is not None]
COLLAPSED = {"recall": [1.0, 0.0]}  # by class
FOUND = Outliers("best accuracy", 0.5, lower_is_better=False, n=2, of=20, failed=True)


def bounds_of(rows=None, claims=None, **more):
    """Bounds of the data that records are of."""
    return Bounds(rows or {}, claims or {}, "made up", {"embedded": "d" * 64}, **more)


@pytest.mark.parametrize(
    ("figures", "low", "high"),
    [
        ([1.0] * 8, 0.9, 1.0),  # of 400 images all right: some wrong are none the worse
        ([0.0] * 8, 0.0, 0.1),
        ([0.99, 1.0, 0.98, 1.0, 0.99, 1.0, 0.97, 1.0] * 2, 0.85, 1.0),
        ([0.02, 0.05, 0.01, 0.0, 0.02, 0.04, 0.03, 0.01] * 2, 0.0, 0.3),
    ],
)
def test_no_bound_of_a_share_ends_outside_of_it(figures, low, high):
    made = calibrate(QUICK, [r for row in QUICK.rows for r in runs(figures, row)])
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    assert low <= bound.low <= np.mean(figures) <= bound.high <= high and bound.high - bound.low < 0.3
    assert not failed(made.check(*runs(figures, "q1_2")))


def test_a_loss_is_bounded_by_its_ratio():
    random = np.random.default_rng(0)
    losses = np.exp(random.normal(-2, 0.1, 12))
    made = calibrate(QUICK, [record(row, seed=s, loss=float(x)) for row in QUICK.rows for s, x in enumerate(losses)])
    bound = made.rows["q1_2-finetune"]["training loss"]
    assert bound.mean == pytest.approx(stats.gmean(losses), rel=1e-4)
    assert bound.high / bound.mean == pytest.approx(bound.mean / bound.low, rel=1e-3) and bound.low > 0


def test_what_says_nothing_is_not_bounded(tmp_path):
    wide = [0.1, 0.9, 0.5, 0.2, 0.8, 0.5, 0.3, 0.7]
    made = calibrate(QUICK, [r for row in QUICK.rows for r in runs(wide if row == "q1_3-scratch" else [0.5] * 8, row)])
    assert {*made.rows["q1_3-scratch"]} == {"training loss", "mean training loss"} and "best accuracy" in made.rows[
        "q1_2-finetune"
    ]
    assert "# best accuracy: no bound" in to_toml(QUICK, made)
    of_mean = Bound(0.4, 0.8, 0.61, 0.07, 20, runs=3, scale="share")
    assert not of_mean.vacuous and of_mean.for_mean_of(1).vacuous  # one run may lie anywhere
    bounds = bounds_of({"q1_3-scratch": {"best accuracy": of_mean}})
    assert not bounds.missed(*runs([0.1], "q1_3")) and bounds.missed(*runs([0.3, 0.3, 0.35], "q1_3"))


# From runs to bounds


def test_calibrated_bounds_pass_their_own_runs_and_survive_the_file(tmp_path):
    made = calibrated()
    path = tmp_path / "bounds.toml"
    path.write_text(to_toml(QUICK, made))
    read = load_bounds(path, QUICK, named=True)
    assert read == made and read.data == {"embedded": "d" * 64}
    assert set(read.rows) == set(QUICK.rows) and set(read.claims) == {c.id for c in BETWEEN_ROWS}
    for row in QUICK.rows:
        assert read.missed(*(r for r in stored() if r.row == row)) == []
    assert load_bounds(path, FULL) == NO_BOUNDS
    with pytest.raises(InputError, match=r"has no bounds of study full, but of quick. Fix: run cvhw4 calibrate"):
        load_bounds(path, FULL, named=True)
    assert "2026-11-23" in read.source and "torch 2.15.0" in read.source
    for outcome in judge_all(QUICK, stored()):
        assert read.check_claim(outcome).met


def test_metrics_of_ones_own_are_bounded_shares_between_0_and_1(tmp_path):
    random = np.random.default_rng(0)
    metrics = {"balanced": balanced_accuracy_score, "profit": f1_score}
    own = Study("own", data="photos", rows={"a": Row("resnet18")}, metrics=metrics, shares={"balanced"})
    base = record("q1_2", figures=((0.9,),))
    spread = [dict(accuracy=0.9, loss=0.5, balanced=1 - x, profit=30 * x) for x in random.uniform(0, 0.02, 12)]

    def run(seed, figures):
        mine = replace(base.data, embedded=False)
        return replace(base, row="a", seed=seed, data=mine, epochs=[replace(base.epochs[0], figures=figures)])

    path, made = tmp_path / "bounds.toml", calibrate(own, [run(s, f) for s, f in enumerate(spread)])
    path.write_text(to_toml(own, made))
    read = load_bounds(path, own)
    assert read == made and read.check(run(0, spread[0])) and not read.missed(run(0, spread[0]))
    balanced, profit = (read.rows["a"][f"last {name}"] for name in metrics)
    assert balanced.scale == "share" and balanced.high <= 1 and profit.scale == "plain" and profit.low < 0
    assert profit.mean == pytest.approx(np.mean([f["profit"] for f in spread]), rel=1e-4)
    (told,) = read.missed(run(0, spread[0] | {"balanced": 0.7}))
    assert told.startswith("last balanced 0.7000 is below its bound [")
    wrong = [run(s, f | {"balanced": 90.0}) for s, f in enumerate(spread)]
    with pytest.raises(InputError, match=r"a: has runs with balanced=90, .* Fix: leave balanced out of the study's sh"):
        calibrate(own, wrong)
    with pytest.raises(InputError, match=r"has shares='accurate'"):
        Study("own", data="photos", rows={"a": Row("resnet18")}, metrics=metrics, shares={"accurate"})


def own_run(row, seed, **figures):
    """A run of a study of one's own on 40 validation images."""
    base = record("q1_2", seed, figures=((0.9,),))
    mine = replace(base.data, embedded=False, val=40)
    return replace(base, row=row, data=mine, epochs=[replace(base.epochs[0], figures=figures)])


def test_one_image_misses_no_bound_of_a_metric_of_ones_own():
    metrics = {"balanced": balanced_accuracy_score, "plain": f1_score}
    own = Study("own", data="photos", rows={"a": Row("resnet18")}, metrics=metrics, shares={"balanced"})
    made = calibrate(own, [own_run("a", s, accuracy=1.0, balanced=1.0, plain=1.0) for s in range(20)])
    assert "last plain" in made.rows["a"] and not {"best accuracy", "last balanced"} & {*made.rows["a"]}  # say nothing
    one_wrong = [own_run("a", s, accuracy=x, balanced=x, plain=x) for s, x in enumerate((0.975, 1.0, 1.0))]
    assert made.missed(one_wrong[0]) == made.missed(*one_wrong) == []


def test_runs_from_before_a_metric_are_held_against_the_other_bounds_and_calibrated_beside_nightly_rows():
    rows = {"a": Row("resnet18"), "b": Row("resnet34", group="extra")}
    own = Study("own", data="photos", rows=rows, metrics={"f1": f1_score}, shares={"f1"})
    figures = [dict(accuracy=0.8 + s / 100, f1=0.7 + s / 100) for s in range(8)]
    runs_ = [own_run("a", s, **of) for s, of in enumerate(figures)]
    old = [own_run("b", s, accuracy=of["accuracy"]) for s, of in enumerate(figures)]
    some = [own_run("b", 8, **figures[0]), *old]
    for others in (old, some):
        made = calibrate(own, [*runs_, *others])
        assert "last f1" in made.rows["a"] and "last f1" not in made.rows["b"] and "best accuracy" in made.rows["b"]
        assert '"last f1"' in to_toml(own, made) and "say nothing, or some runs lack it" in to_toml(own, made)
    before = [replace(r, row="a") for r in old[:2]]
    assert made.missed(before[0]) == made.missed(*before) == [] != made.check(*before)
    names = [check.name for check in made.check(before[0], runs_[1], runs_[2])]
    assert "last f1 in the mean of 2 seeds" in names and "last f1 with seed 0" not in names
    assert "## own" in report_page(own, [*before, *old], made, {})
    claims = [Claim(better="a", worse="b", metric="f1")]
    with pytest.raises(InputError, match=r"b: has runs with f1=90"):
        calibrate(own, [*runs_, *(own_run("b", s, accuracy=0.9, f1=90.0) for s in range(8))])
    claimed = Study("own", data="photos", rows=rows, metrics={"f1": f1_score}, claims=claims)
    with pytest.raises(InputError, match="b: has runs without f1"):
        calibrate(claimed, [*runs_, *old])
    with pytest.raises(InputError, match="a: has runs without f1"):
        calibrate(own, [*runs_[1:], before[0]])


def test_a_users_study_is_calibrated_in_the_same_way(tmp_path):
    """On its own folder, whose name and whose rows' names need quotes in the file; runs on other data do not count."""
    rows = {"resnet-18": Row("resnet18"), "frozen+linear": Row("resnet18", trained="last layer")}
    own = Study(
        "insects.v2",
        data="hymenoptera",
        rows=rows,
        claims=[Claim(better="resnet-18", worse="frozen+linear", metric="accuracy")],
    )
    mine = replace(record().data, embedded=False, name='my "bees"\\\n', fingerprint="b" * 64)
    records = [
        replace(record(seed=s, figures=((0.8 + 0.1 * better + 0.001 * s,),)), row=row, study=own.name, data=mine)
        for better, row in enumerate(("frozen+linear", "resnet-18"))
        for s in range(6)
    ]
    elsewhere = [replace(r, data=record().data) for r in records]  # generated pictures
    made = calibrate(own, [*records, *elsewhere])
    path = tmp_path / "bounds.toml"
    path.write_text(to_toml(own, made))
    read = load_bounds(path, own)
    assert read.rows == made.rows and read.claims == made.claims and list(read.data.values()) == ["b" * 64]
    assert made.rows["resnet-18"]["best accuracy"].n == 6
    assert len(read.check(records[0])) == 4 and read.check(elsewhere[0]) == []
    (outcome,) = judge_all(own, records)
    assert read.promises(outcome) and read.check_claim(outcome).met
    newer = Claim(better="resnet-18", worse="frozen+linear", metric="f1")
    own = Study(own.name, data="hymenoptera", rows=rows, metrics={"f1": f1}, claims=[newer])
    with pytest.raises(InputError, match=r"has runs without f1\. Fix: train study insects"):
        calibrate(own, records)


def f1(scores, labels):
    return float((scores.argmax(1) == labels).mean())


def test_bounds_are_students_prediction_intervals():
    records = stored(20)
    made = calibrate(QUICK, records)
    figures = np.arcsin(np.sqrt([r.best("accuracy") for r in records if r.row == "q1_2-finetune"]))
    bound, claim = made.rows["q1_2-finetune"]["best accuracy"], made.claims[CLAIM.id]
    assert (bound.n, bound.runs) == (20, 3) and bound.sd == pytest.approx(figures.std(ddof=1), rel=1e-4)
    assert bound.mean == pytest.approx(np.sin(figures.mean()) ** 2, rel=1e-4)
    outcome = judge(CLAIM, records, QUICK)
    sd, half = outcome.difference.sd, (claim.high - claim.low) / 2
    assert (claim.mean, claim.sd) == pytest.approx((outcome.difference.mean, sd), rel=1e-4)
    # One error for all: each half width is the same quantile times its own spread.
    quantile = half / sd / math.sqrt(1 / 3 + 1 / 20)
    assert bound.half_width / bound.sd / math.sqrt(1 / 3 + 1 / 20) == pytest.approx(quantile, rel=1e-3)
    at_most = error_of_one(QUICK.rows.values(), BETWEEN_ROWS, 0.01, 3)
    assert 2 * stats.t.sf(quantile, 19) <= at_most * 1.001
    wider = calibrate(QUICK, records, false_alarms=0.001).claims[CLAIM.id]
    assert wider.high > claim.high


@pytest.mark.parametrize("runs_", [1, 3, 7])
def test_the_mean_of_more_runs_is_bounded_more_narrowly(runs_):
    (series,) = figures_of(np.random.default_rng(0).standard_normal, 8, 1)
    of_one, of_mean = (series.bound(0.001, k) for k in (1, runs_))
    narrowed, back = of_one.for_mean_of(runs_), of_mean.for_mean_of(1)
    assert (narrowed.low, narrowed.high) == pytest.approx((of_mean.low, of_mean.high), rel=1e-3)
    assert (back.low, back.high) == pytest.approx((of_one.low, of_one.high), rel=1e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_prediction_intervals_miss_as_often_as_they_say(k):
    random = np.random.default_rng(1)
    drawn = [figures_of(random.standard_normal, 8, 1)[0].bound(0.1, k) for _ in range(4000)]
    assert np.mean([not b.holds(random.normal(0, 1, k).mean()) for b in drawn]) == pytest.approx(0.1, abs=0.015)


OF_FACTORIAL = replace(CLAIM, id="made_up", better="q1_f1-net")  # a row that a night does not train


def test_the_rate_of_one_check_by_hand():
    some = [QUICK.row(name) for name in ("q1_1", "q1_2", "q1_f1", "q2_1b")]
    # two rows of 4 figures and one of 6, each of 3 seeds and in their mean, make 56 checks, the claim one more
    assert error_of_one(some, [CLAIM], 0.01, 3) == pytest.approx(1 - 0.99 ** (1 / 57))
    assert error_of_one(some, [CLAIM, OF_FACTORIAL], 0.01, 3) == error_of_one(some, [CLAIM], 0.01, 3)
    assert error_of_one(some, [CLAIM], 0.01, 1) == pytest.approx(1 - 0.99 ** (1 / 15))  # a run is its own mean


def test_rows_beside_the_nightly_ones_are_bounded_where_they_have_runs_and_so_are_claims_about_them():
    sources = [*QUICK.sources.values()]
    with_made_up = Study("quick", data=sources, rows=rows_at("quick"), claims=[CLAIM, OF_FACTORIAL])
    whole = calibrate(with_made_up, stored())
    assert set(whole.claims) == {CLAIM.id, "made_up"}
    for fewest in (0, 4):
        few = [r for r in stored() if not r.row.startswith("q1_f") or r.seed < fewest]
        made = calibrate(with_made_up, few)
        assert not any(row.startswith("q1_f") for row in made.rows)
        # nights are no stricter for a claim that they do not judge
        assert made.claims == {CLAIM.id: whole.claims[CLAIM.id]}
    assert sum(row.startswith("q1_f") for row in whole.rows) == 6


def shifted(seeds):
    return [replace(r, seed=r.seed + seeds) if r.row == "q1_2-finetune" else r for r in stored()]


@pytest.mark.parametrize(
    ("records", "rate", "message"),
    [
        (stored(4), 0.01, r"q1_1-features: has 4 runs on the study's data, too few.*--seeds 5"),
        (shifted(4), 0.01, rf"{CLAIM.id}: has 4 seeds common to its rows, too few.*--seeds 5"),
        (shifted(40), 0.01, "has 0 seeds common"),
        (stored(), 0.0, "not a share"),
        (stored(), 1.0, "not a share"),
        (
            [*stored(), *(replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in runs([0.5], "q1_1"))],
            0.01,
            "q1_1-features: was run on other embedded than",
        ),
        (
            [replace(r, data=replace(r.data, fingerprint=f"{len(r.task):064x}")) for r in stored()],
            0.01,
            "embedded: is the name of two data sets. Fix: rename the folder of one",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_named(records, rate, message):
    with pytest.raises(InputError, match=message):
        calibrate(QUICK, records, false_alarms=rate)


def drawn_nights(n, k):
    return np.array(list(combinations(range(n), k)))


def figures_of(draw, n, of, counted=None, allowed=0):
    counted = np.ones(n, bool) if counted is None else counted
    return [Series(draw(n) - 50 * ~counted, np.arange(n), counted, 0.001, allowed=allowed) for _ in range(of)]


def test_bounds_are_widened_until_held_out_nights_miss_them_as_rarely_as_stated():
    """By hand: the bounds that the function's rate gives are made of a night's other seeds, and held against it."""
    random = np.random.default_rng(3)
    heavy = figures_of(lambda n: random.standard_cauchy(n), 14, 6)  # tails that no normal interval knows
    nights, start = drawn_nights(14, 3), 1 - 0.99 ** (1 / 24)
    errors, rate = widened(dict(enumerate(heavy)), nights, start, 0.01)
    errors = [*errors.values()]
    assert min(errors) < max(errors) <= start and rate <= 0.01

    def missed(errors):
        found = 0
        for night in nights:
            others = np.setdiff1d(np.arange(14), night)
            of_others = [Series(s.values[others], others, np.ones(11, bool), 0.001) for s in heavy]
            made = [s.bound(e, 3) for s, e in zip(of_others, errors, strict=True)]
            values = [(b, h.values[night]) for b, h in zip(made, heavy, strict=True)]
            singles = [b.for_mean_of(1).holds(x) for b, of in values for x in of]
            found += not all([*singles, *(b.holds(of.mean()) for b, of in values)])
        return found / len(nights)

    assert missed(errors) == rate and missed([start] * 6) > 0.01


def test_normal_figures_need_no_more_width_than_stated():
    random = np.random.default_rng(4)
    for _ in range(3):
        normal = figures_of(lambda n: random.normal(0, 1, n), 20, 10)
        assert {*widened(dict(enumerate(normal)), drawn_nights(20, 3), 1e-5, 0.01)[0].values()} == {1e-5}


def test_one_unsteady_figure_widens_no_other_bound():
    random = np.random.default_rng(6)
    found = figures_of(lambda n: random.normal(0, 1, n), 20, 4)
    found[2].values[9] = -1e4
    errors, rate = widened(dict(enumerate(found)), drawn_nights(20, 3), 1e-5, 0.01)
    assert errors[0] == errors[1] == errors[3] == 1e-5 and rate <= 0.01
    assert errors[2] < 1e-9 and math.isfinite(found[2].bound(errors[2], 3).high)


def test_a_bound_is_widened_beside_nights_of_too_many_outliers():
    random, counted = np.random.default_rng(7), np.arange(20) >= 3
    (found,) = figures_of(lambda n: random.normal(0, 1, n), 20, 1, counted, allowed=2)
    found.values[12] = 40.0
    errors, rate = widened({"figure": found}, drawn_nights(20, 3), 1e-6, 0.01)
    assert errors["figure"] < 1e-6 and 1 / 1140 <= rate <= 0.01


def test_outliers_are_left_out_and_a_night_of_more_than_are_passed_over_is_missed():
    random, nights = np.random.default_rng(5), drawn_nights(20, 3)
    for nothing, lone in ((2, 0), (3, 1), (4, 4), (6, 20)):  # with 20 nights no width is enough, and the rate says so
        counted = np.arange(20) >= nothing
        found = figures_of(lambda n: random.normal(0, 1, n), 20, 4, counted, allowed=2)
        errors, rate = widened(dict(enumerate(found)), nights, 1e-6, 0.01)
        assert {*errors.values()} == {1e-6} and rate == lone / 1140


def test_the_rate_stands_in_the_file_and_too_few_runs_are_said(tmp_path):
    made = calibrated(10)
    assert made.nights == math.comb(10, NIGHTLY_SEEDS) and made.held_out <= 0.01
    assert f"held_out = {made.held_out:.5g}\n" in to_toml(QUICK, made)
    few = calibrated(7)
    assert few.held_out is None and few.nights == 0 and "held_out is not known: too few" in to_toml(QUICK, few)


def test_how_often_new_seeds_miss_bounds_is_tried_with_bounds_made_without_them(tmp_path):
    """Of a row one run learned far less: a calibration that has not seen it does not know such runs."""
    records = [
        replace(r, epochs=record(figures=((0.3,),), loss=0.5).epochs) if (r.row, r.seed) == ("q1_6-finetune", 4) else r
        for r in stored(12, spread=0.005)
    ]
    made = calibrate(QUICK, records)
    assert made.outliers["q1_6-finetune"].n == 1 and made.held_out <= 0.01
    tried = with_new_seeds(QUICK, records, made, most=60)
    assert tried.new_nights == 60 and tried.new_seeds > 0.1 > tried.usual  # 55 of 220 sessions have that run
    (tmp_path / "b.toml").write_text(to_toml(QUICK, tried))
    assert load_bounds(tmp_path / "b.toml", QUICK) == tried
    assert with_new_seeds(QUICK, stored(7), calibrated(7)) == calibrated(7)


def some_collapsed(figure=0.5, of=(1, 11)):
    """Twenty runs of every row, of which two of q1_6 collapse."""
    records = stored(20, spread=0.005)
    nothing = [
        replace(r, by_class=COLLAPSED, epochs=[replace(e, figures={"accuracy": figure}) for e in r.epochs])
        if (r.row, r.seed) in {("q1_6-finetune", s) for s in of}
        else r
        for r in records
    ]
    return nothing, [r for r in nothing if r.row == "q1_6-finetune"]


def test_a_row_of_which_some_runs_fail_is_bounded_by_the_others(tmp_path):
    records, of_row = some_collapsed(figure=0.2)
    made = calibrate(QUICK, records)
    assert made.outliers["q1_6-finetune"].n == 2 and made.rows["q1_6-finetune"]["best accuracy"].n == 18
    assert made.held_out <= 0.01
    assert made.missed(of_row[1]) == made.missed(*of_row[:3]) == []
    (told,) = made.missed(*(replace(of_row[1], seed=s) for s in range(3)))
    assert told.startswith("3 of 3 runs of q1_6-finetune learned far less than others do, which of those calibrated 2")
    other = replace(of_row[1], row="q1_2-finetune")
    assert made.missed(other)  # of that row all runs train
    claims = [claim for claim in BETWEEN_ROWS if "q1_6-finetune" in claim.rows]
    assert claims and {made.claims[claim.id].n for claim in claims} == {18}
    outcomes = judge_all(QUICK, [r for r in records if r.seed < 3])
    outcome = next(o for o in outcomes if o.claim == claims[0])
    check = made.check_claim(outcome)
    assert check.met and "over 2 seeds" in check.name
    assert not made.check_claim(replace(outcome, runs={})).met
    path = tmp_path / "b.toml"
    path.write_text(to_toml(QUICK, made))
    assert load_bounds(path, QUICK) == made


@pytest.mark.parametrize(
    ("n", "of", "runs", "most"),
    [
        (1, 20, 3, 2),  # two of three are 2.2 % of sessions, as one of 20 says that roughly how often they come
        (1, 100, 3, 1),  # 0.1 %
        (9, 20, 3, 2),  # three are 10 %, but nobody would notice a fault in a session that has no other
        (1, 20, 1, 1),
        (1, 200, 1, 0),
    ],
)
def test_so_many_outliers_are_passed_over_as_chance_brings(n, of, runs, most):
    outliers = Outliers("best accuracy", 0.5, False, n, of, failed=True)
    assert outliers.passed_over(runs, 3, 0.01) == most
    random = np.random.default_rng(0)  # Jeffreys' posterior of their share, and a session
    came = random.binomial(runs, random.beta(n + 0.5, of - n + 0.5, 200_000))
    assert np.mean(came > most) <= 0.0105 or most == runs - 1
    assert np.mean(came > most - 1) > 0.0095


def test_a_run_that_learned_far_less_is_no_part_of_its_rows_bounds_or_of_a_claims():
    records, of_row = some_collapsed(figure=0.45, of=(11,))  # the others are about 0.58
    slow = [replace(r, by_class={"recall": [0.5, 0.4]}) if r.seed == 11 else r for r in of_row]
    all_runs = [r for r in records if r.row != slow[0].row] + slow
    made = calibrate(QUICK, all_runs)
    found = made.outliers["q1_6-finetune"]
    others = min(r.best("accuracy") for r in of_row if r.seed != 11)
    assert (found.n, found.of, found.failed) == (1, 20, False) and 0.45 < found.limit < others
    assert {*made.outliers} == {"q1_6-finetune"} and made.rows["q1_6-finetune"]["best accuracy"].n == 19
    tonight = [replace(slow[11], seed=20), *slow[:2]]
    assert made.missed(*tonight) == [] and judged(tonight, made) == "met, 1 aside"
    assert set_aside({"q1_6-finetune": tonight}, made) == [
        "Set aside as outliers (runs that learned far less than others of their row, as a few calibrated ones did): "
        "1 of 3 of q1_6-finetune."
    ]
    (told,) = made.missed(*(replace(slow[11], seed=s) for s in (20, 21, 22)))
    assert told.startswith("3 of 3 runs of q1_6-finetune learned far less than others do, which of those calibrated 1")
    better = [replace(r, epochs=[replace(e, figures={"accuracy": 0.7}) for e in r.epochs]) for r in tonight[:1]]
    assert any("is above its bound" in text for text in made.missed(*better, *slow[:2]))
    assert made.missed(replace(tonight[0], by_class=COLLAPSED))  # a training that failed is of no kind that was seen
    claims = [claim for claim in BETWEEN_ROWS if "q1_6-finetune" in claim.rows]
    assert claims and {made.claims[claim.id].n for claim in claims} == {19}
    check = made.check_claim(judge(claims[0], [r for r in all_runs if r.seed in (0, 1, 11)], QUICK))
    assert check.met and "over 2 seeds" in check.name and check.bound == made.claims[claims[0].id].for_mean_of(2)
    assert made.check_claim(judge(claims[0], [r for r in all_runs if r.seed == 11], QUICK)) is None


def test_failed_runs_that_lie_among_the_others_are_runs_like_them():
    among = float(np.median([r.best("accuracy") for r in some_collapsed()[1]]))
    made = calibrate(QUICK, some_collapsed(among)[0])
    assert made.outliers == {} and made.rows["q1_6-finetune"]["best accuracy"].n == 20


# What a run misses


def test_a_bound_says_value_bound_and_source():
    made = calibrated()
    message = made.missed(record("q1_2", figures=((0.1,),)))[0]
    bound = made.rows["q1_2-finetune"]["best accuracy"].for_mean_of(1)
    assert message.startswith("best accuracy 0.1000 is below its bound [")
    assert f"[{bound.low:.4f}, {bound.high:.4f}]" in message
    assert f"from 8 runs with mean {bound.mean:.4f}" in message and "runs of 2026-11-23" in message
    assert "above" in failed(made.check(record("q1_2", figures=((0.99,),))))[0]
    nan = Check("best accuracy", math.nan, Bound(0.0, 1.0, 0.5, 0.1, 5), "somewhere")
    assert not nan.met and "outside" in str(nan)


def test_a_shift_that_no_run_shows_by_itself_shows_in_their_mean():
    bound = Bound(0.48, 0.52, 0.5, 0.006, 20, runs=3)
    bounds = bounds_of({"q1_2-finetune": {"best accuracy": bound}})
    tonight = runs([0.470, 0.474, 0.472], "q1_2")
    assert [bounds.missed(run) for run in tonight] == [[]] * 3
    (told,) = bounds.missed(*tonight)
    assert told.startswith("best accuracy in the mean of 3 seeds 0.4720 is below its bound [0.4800, 0.5200]")
    session = replace(bounds, beside=lambda run: [r for r in tonight if r.seed != run.seed])
    assert session == bounds and session.missed(tonight[2]) == [told]  # told once, by the last of them
    (of_one, of_mean) = bounds.missed(*runs([0.1, 0.5, 0.5], "q1_2"))
    assert of_one.startswith("best accuracy with seed 0 0.1000") and "mean of 3 seeds" in of_mean


def test_bounds_do_not_apply_to_other_data():
    made = calibrated()
    photos = replace(record().data, name="photos", fingerprint="f" * 64)
    foreign = replace(record("q1_2", figures=((0.1,),)), data=photos)
    assert made.check(foreign) == [] and made.missed(foreign) == made.missed() == []
    outcome = judge(CLAIM, [foreign, replace(record("q1_1"), data=foreign.data)], QUICK)
    assert made.check_claim(outcome) is None and not made.promises(outcome)


def test_other_data_of_the_name_that_the_bounds_know_are_missed_bounds():
    """A generator that changed must not end in a green session of runs that nobody judged."""
    bounds = calibrated()
    run = stored()[0]
    changed = replace(run, data=replace(run.data, fingerprint="f" * 64))
    (told,) = bounds.missed(changed, replace(changed, seed=1))
    assert told.startswith(f"{run.data.name} are not the data of that name") and bounds.check(changed) == []
    assert bounds.missed(replace(changed, data=replace(changed.data, name="photos"))) == []
    assert bounds.missed(replace(changed, row="of nobody")) == []


def test_a_claim_is_guarded_where_a_nights_mean_is_promised():
    made = bounds_of(claims={CLAIM.id: Bound(-0.01, 0.19, 0.09, 0.02, 8)}, seeds=3)
    assert made.guards(CLAIM) and not replace(made, seeds=1).guards(CLAIM)
    # three runs: 0.09 - 0.1 sqrt((1/3 + 1/8) / (1 + 1/8)) = 0.0262
    assert made.guards(replace(CLAIM, margin=0.026)) and not made.guards(replace(CLAIM, margin=0.027))
    assert not made.guards(CLAIMS["q1_c9-pretraining"]) and not NO_BOUNDS.guards(CLAIM)
    # what is promised goes by the outcome's own seeds
    one, three = (judge(CLAIM, runs([0.9] * n, "q1_2") + runs([0.8] * n, "q1_1"), QUICK) for n in (1, 3))
    assert made.promises(three) and not made.promises(one) and not NO_BOUNDS.promises(three)
    assert not replace(made, data={"embedded": "f" * 64}).promises(three)


# Twins


def test_the_spread_of_calibrated_seeds_counts_where_there_are_few(tmp_path):
    records = [replace(r, by_class=COLLAPSED) if (r.row, r.seed) == ("q1_1-features", 7) else r for r in stored(20)]
    path = tmp_path / "b.toml"
    path.write_text(to_toml(QUICK, calibrate(QUICK, records)))
    bounds = load_bounds(path, QUICK)
    known = bounds.known
    tonight = [r for r in records if r.seed < 3]
    outcome = judge(CLAIM, tonight, QUICK, bounds=bounds)
    of_all = judge(CLAIM, records, QUICK)
    others = np.array(of_all.differences[3:])
    assert outcome.difference.mean == judge(CLAIM, tonight, QUICK).difference.mean and outcome.calibrated == 17
    pooled = (2 * outcome.difference.sd**2 + 16 * others.var(ddof=1)) / 18
    assert outcome.comparison.sd == pytest.approx(math.sqrt(pooled), rel=1e-4) and outcome.comparison.freedom == 18
    two = [r for r in records if r.seed < 2 and r.row in CLAIM.rows]
    assert len(known(CLAIM, two, "best", False)) == 18
    assert len(known(CLAIM, two, "last", True)) == 17  # without the seed whose training failed
    plan = plan_table(QUICK, tonight, [3, 15, 16], bounds)
    (line,) = (row for row in plan.rows if row[0] == CLAIM.id)
    assert line[1].endswith("n 3 + 17")
    for text, n, freedom in zip(line[2:], (3, 15, 16), (18, 18, 15), strict=True):  # of 20, four are too few to know
        effect, sd = smallest_effect(n, 0.05 / 6, freedom), outcome.comparison.sd
        assert text == f"{effect * sd:.3f} ({effect * largest_sd(sd, 19):.3f})"
    new = [replace(r, seed=r.seed + 50) for r in tonight]
    (line,) = (row for row in plan_table(QUICK, new, [3], bounds).rows if row[0] == CLAIM.id)
    sd = judge(CLAIM, new, QUICK, bounds=bounds).comparison.sd
    assert line[1].endswith("n 3 + 20") and line[2].split()[0] == f"{smallest_effect(3, 0.05 / 6, 18) * sd:.3f}"
    other_data = [replace(r, data=replace(r.data, fingerprint="e" * 64)) for r in two]
    assert known(CLAIM, other_data, "last", False) == []
    assert known(CLAIM, [*two[1:], replace(two[0], settings={"lr": 1.0})], "last", False) == []  # another recipe
    all_of_them = judge(CLAIM, records, QUICK, bounds=bounds)
    assert all_of_them == of_all and all_of_them.calibrated == 0  # nothing is counted twice
    unlike = [
        record(r.row, seed=r.seed, figures=((0.1 + 0.3 * r.seed,),)) if r.row == CLAIM.better else r for r in tonight
    ]
    changed = judge(CLAIM, unlike, QUICK, bounds=bounds)
    assert changed.calibrated == 0  # a spread that has changed
    with_bounds, without = (plan_table(QUICK, unlike, [3], *given).rows for given in ([bounds], []))
    assert [r for r in with_bounds if r[0] == CLAIM.id] == [r for r in without if r[0] == CLAIM.id] != []


def test_rows_that_twins_reproduce_are_held_against_the_run_of_the_same_seed(tmp_path):
    records = stored(20)
    same = [r for r in records if r.row == "q1_2-finetune"]
    other = [r for r in records if r.row == "q1_1-features"]
    few = [r for r in records if r.row == "q1_3-scratch"][:2]
    made = calibrate(QUICK, records, twins=[*elsewhere(same[:3]), *elsewhere(other[:3], by=0.05), *elsewhere(few)])
    assert {*made.twins} == {"q1_2-finetune", "q1_1-features"} and {*made.twins["q1_1-features"]} == {*TRAINING_LOSSES}
    twin = made.twins["q1_2-finetune"]["best accuracy"]
    assert twin.tolerance == 1 / 400 and {*twin.values} == {*range(20)}  # one image
    middle = made.rows["q1_2-finetune"]["training loss"].mean
    assert made.twins["q1_2-finetune"]["first training loss"].tolerance == pytest.approx(1e-4 * middle, rel=1e-4)
    assert "twins: 8 runs on another make (8 threads)" in made.source
    path = tmp_path / "b.toml"
    path.write_text(to_toml(QUICK, made))
    assert load_bounds(path, QUICK) == made
    assert made.missed(*same) == [] and made.missed(*elsewhere(same, by=1 / 400)) == []
    best = same[4].best("accuracy")
    told, last = made.missed(*elsewhere(same[4:5], by=0.01))
    assert told.startswith(f"best accuracy {best + 0.01:.4f} with seed 4 is not {best:.4f}") and "last" in last
    (told,) = made.missed(replace(same[4], epochs=[replace(e, loss=e.loss + 0.001) for e in same[4].epochs]))
    assert told.startswith("3 of 5 figures of q1_2-finetune with seed 4 are not the calibrated runs' any more")
    on_gpu = replace(same[4], environment=same[4].environment | {"device": "cuda"})
    assert made.missed(replace(on_gpu, epochs=[replace(e, loss=e.loss + 0.001) for e in on_gpu.epochs])) == []


def test_bounds_are_made_of_one_run_a_seed_whatever_twins_there_are():
    """What the seed decides is the same on every machine: counted as further seeds, twins would make bounds narrower
    than other seeds are, and a session's own seeds would stand on both sides where it is held out."""
    records = stored(20)
    other = [r for r in records if r.row == "q1_1-features"][:4]
    alone, made = (calibrate(QUICK, records, twins=twins) for twins in (None, elsewhere(other, by=0.05)))
    assert {*made.twins["q1_1-features"]} == {*TRAINING_LOSSES}
    assert (made.rows, made.claims, made.outliers, made.held_out) == (
        alone.rows,
        alone.claims,
        alone.outliers,
        alone.held_out,
    )


def test_machines_that_compute_alike_are_one_twin():
    records = stored(20)
    twins = elsewhere([r for r in records if r.row == "q1_2-finetune"][:3], by=0.5 / 400)
    elsewhere_too = [replace(r, environment=r.environment | {"device_name": "a third make"}) for r in twins]
    once, twice = (calibrate(QUICK, records, twins=given) for given in (twins, [*twins, *elsewhere_too]))
    assert once.twins == twice.twins


def test_a_processor_of_the_same_name_is_another_where_it_computes_otherwise():
    records = stored(8)
    named = [replace(r, environment=records[0].environment) for r in elsewhere(records, by=0.0)]
    with pytest.raises(InputError, match="on another machine"):
        calibrate(QUICK, records, twins=named)
    apart = [replace(r, epochs=[replace(e, loss=e.loss * (1 + 1e-6)) for e in r.epochs]) for r in named]
    assert calibrate(QUICK, records, twins=apart).twins


def test_other_random_streams_are_told_of_once():
    """Every figure is another, and each lies within the spread over seeds."""
    records = stored(20)
    of_row = [r for r in records if r.row == "q1_2-finetune"]
    made = calibrate(QUICK, records, twins=elsewhere(of_row))
    mixed = [replace(r, seed=(r.seed + 1) % 20) for r in of_row]
    (told,) = made.missed(*mixed[:3])
    assert re.match(
        r"(9|1[0-5]) of 15 figures of q1_2-finetune with seed 1, 2, 3 are not the calibrated runs' any more", told
    )
    assert told.endswith("run cvhw4 calibrate again")
    worse = [replace(r, epochs=[replace(e, figures={"accuracy": 0.1}) for e in r.epochs]) for r in mixed[:3]]
    assert len(made.missed(*worse)) > 5 and not any("calibrate again" in text for text in made.missed(*worse))


@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e-3))
def test_a_calibrated_run_is_its_own_whatever_the_file_rounds_away(value, tolerance):
    twin = Twin(tolerance, {0: float(f"{value:.9g}")})
    assert twin.holds(0, value) and not twin.holds(0, (1 + 2e-8) * value + tolerance)


def test_a_twins_tolerance_grows_with_what_twins_differ_by():
    records = stored(20)
    of_row = [r for r in records if r.row == "q1_2-finetune"]
    found = [calibrate(QUICK, records, twins=elsewhere(of_row[:n], by=0.5 / 400)) for n in (8, 20)]
    few, many = (made.twins["q1_2-finetune"]["best accuracy"].tolerance for made in found)
    assert 1 / 400 < many < few
    error = error_of_one(QUICK.rows.values(), BETWEEN_ROWS, 0.01, NIGHTLY_SEEDS)  # about zero: n degrees of freedom
    assert [few, many] == pytest.approx([stats.t.ppf(1 - error / 2, n) * 0.5 / 400 for n in (8, 20)], rel=1e-4)


def test_what_are_no_twins_is_one_error():
    records = stored()
    changed = [replace(r, settings=r.settings | {"epochs": 99}) for r in elsewhere(records)]
    other_data = [replace(r, data=replace(r.data, fingerprint="e" * 64)) for r in elsewhere(records)]
    for twins in ([], records, changed, other_data, elsewhere([replace(r, seed=r.seed + 50) for r in records])):
        with pytest.raises(InputError, match="--twins: has no run of the same row, settings, seed and data on another"):
            calibrate(QUICK, records, twins=twins)


@cache
def whole_file():
    records = stored()
    made = calibrate(QUICK, records, twins=elsewhere(records))
    return to_toml(QUICK, replace(made, outliers={"q1_1-features": FOUND}, held_out=0.005, nights=56))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\[quick]", "[quick"),
        ("^", "quick = 3\n"),
        ('"embedded" = "', '"embedded" = 1 # "'),
        (r"\[quick.data]", "[quick.datum]"),
        ("n = 8", "n = 4"),
        ("low = ", "low = 9"),
        ("sd = ", "sd = -"),
        ("mean = 0", "mean = '0'#"),
        ("high = [-0-9.e]+", "high = inf"),
        ("false_alarms = 0.01", "false_alarms = 2"),
        ("format = 4", "format = 1"),  # limits of one run, as an earlier version wrote them
        ("held_out = 0.005", "held_out = nan"),
        ("n = 2, of", "n = -2, of"),
        ("of = 20", "of = 2"),
        ("limit = 0.5", "limit = nan"),
        ("tolerance = ", "tolerance = nan #"),
        (r"last = \{ 0 = ", "last = { 0 = nan #"),
        (r"last = \{ 0 = ", "last = { zero = "),
    ],
)
def test_a_foreign_bounds_file_is_named(old, new, tmp_path):
    path = tmp_path / "b.toml"
    text, changes = re.subn(old, new, whole_file(), count=1)
    assert changes
    path.write_text(text)
    with pytest.raises(InputError, match=r"b\.toml: is not a bounds file.*cvhw4 calibrate"):
        load_bounds(path, QUICK)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"best accuracy"', '"best recall"', "best recall of "),
        (r"\[quick.rows.q1_1-features]", "[quick.rows.q9]", "q9"),
        ("q2_2-skip_miou", "q2_2-skip_iou", "q2_2-skip_iou"),
        (r"outliers]\nq1_1-features", "outliers]\nq9", "q9"),
        (r"\[quick.twins.q1_1-features]", "[quick.twins.q9]", "q9"),
        (r"differences.q2_2-skip_miou]", "differences.q2_2-skip_iou]", "q2_2-skip_iou"),
    ],
)
def test_bounds_of_what_a_study_has_no_more_are_passed_over(old, new, named, tmp_path):
    """Or no session could train what a calibration anew needs."""
    path = tmp_path / "b.toml"
    path.write_text(whole_file())
    whole = load_bounds(path, QUICK)
    path.write_text(re.sub(old, new, whole_file(), count=1))
    with pytest.warns(UserWarning, match=rf"b\.toml: bounds of {named}.* are not used"):
        found = load_bounds(path, QUICK)
    assert found != whole and (found.seeds, found.data) == (whole.seeds, whole.data)


def test_bounds_of_another_study_stay_in_the_file():
    ours, theirs = whole_file(), whole_file().replace("[quick", '["v1.2"')
    kept = of_other_studies(ours + theirs[theirs.index('["v1.2"]') :], QUICK)
    assert tomllib.loads(ours + kept) == tomllib.loads(ours) | tomllib.loads(theirs)
    assert of_other_studies(ours, QUICK) == "" == of_other_studies("", QUICK)
    assert of_other_studies("[quick\n[b]\n", QUICK) == ""


def test_runs_without_a_figure_are_named_where_it_is_to_be_bounded():
    one, *others = stored()
    bare = replace(one, epochs=[replace(e, figures={"other": 1.0}) for e in one.epochs])
    with pytest.raises(InputError, match=r"q1_1-features: has runs without accuracy\. Fix: train study quick"):
        calibrate(QUICK, [bare, *others])


def test_a_bounds_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_bounds(tmp_path / "none.toml", QUICK)
    with pytest.raises(InputError, match="is not a file"):
        load_bounds(tmp_path, QUICK)
    (tmp_path / "empty.toml").touch()
    assert load_bounds(tmp_path / "empty.toml", QUICK, named=True) == NO_BOUNDS
