"""Intervals, verdicts and bounds: against scipy, hand-worked cases and simulation."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvhw4 import Claim, Row, Study
from cvhw4.errors import InputError
from cvhw4.homework import study
from cvhw4.homework.rows import rows_at
from cvhw4.report.numbers import verdict as flagged
from cvhw4.statistics.bounds import (
    NIGHTLY_SEEDS,
    NO_BOUNDS,
    Bound,
    Bounds,
    Check,
    calibrate,
    error_of_one,
    failed,
    held_out,
    limits,
    load_bounds,
    to_toml,
)
from cvhw4.statistics.comparison import holm
from cvhw4.statistics.intervals import Estimate, estimate, prediction_half_width, ratio_of_means
from cvhw4.statistics.published import stated
from cvhw4.statistics.verdicts import families, judge, judge_all
from cvhw4.tasks import TASKS
from tests.tiny import QUICK, record

FULL = study("full")
CLAIMS = {claim.id: claim for claim in FULL.claims}
CLAIM = CLAIMS["q1_4-finetune_above_features"]
BETWEEN_ROWS = [claim for claim in QUICK.claims if claim.worse is not None]


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


def test_a_ratio_of_means_by_hand_and_as_fieller_has_it():
    # ratio 0.5; residuals 0.1, -0.05, -0.05 over 4: sd 0.02165, half width 4.3027 * 0.02165 / sqrt(3)
    found = ratio_of_means([2.1, 1.95, 1.95], [4.0, 4.0, 4.0])
    assert (found.mean, found.high - found.mean) == pytest.approx((0.5, 4.3027 * 0.021651 / math.sqrt(3)), rel=1e-4)
    assert math.isnan(ratio_of_means([1.0, 2.0], [1.0, -1.0]).mean)
    random = np.random.RandomState(3)
    wholes = random.normal(0.34, 0.08, 20)
    parts = 0.3 * wholes + random.normal(0, 0.02, 20)
    found = ratio_of_means(parts.tolist(), wholes.tolist())

    def p_of(ratio):
        return stats.ttest_1samp(parts - ratio * wholes, 0).pvalue

    # Fieller (1954): the ratios that a t test of part == ratio * whole does not reject
    assert p_of(found.low) == pytest.approx(0.05, abs=0.01) and p_of(found.high) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("k", [1, 3])
def test_prediction_intervals_miss_as_often_as_they_say(k):
    random = np.random.RandomState(1)
    missed = 0
    for _ in range(4000):
        e = estimate(random.normal(0.8, 0.01, 8).tolist())
        half = prediction_half_width(e.sd, e.n, 0.1, k)
        missed += abs(random.normal(0.8, 0.01, k).mean() - e.mean) > half
    assert missed / 4000 == pytest.approx(0.1, abs=0.015)


# Verdicts


def runs(row, figures, **changes):
    return [record(row, seed=s, figures=((value,),), **changes) for s, value in enumerate(figures)]


def test_claims_are_judged_pairwise_by_seed():
    better, worse = runs("q1_2", [0.80, 0.90, 0.70]), runs("q1_1", [0.75, 0.86, 0.66])
    outcome = judge(CLAIM, better + worse, QUICK)
    assert outcome.difference.mean == pytest.approx((0.05 + 0.04 + 0.04) / 3)
    assert outcome.difference.sd == pytest.approx(np.std([0.05, 0.04, 0.04], ddof=1))
    assert outcome.verdict == "supported" and outcome.fingerprint == "d" * 64
    assert judge(CLAIM, better[:1] + worse, QUICK).difference.n == 1
    turned = runs("q1_2", [0.1, 0.2, 0.3]) + runs("q1_1", [0.5, 0.61, 0.69])
    assert judge(CLAIM, turned, QUICK).verdict == "contradicted"


def test_the_last_epoch_decides_unless_the_study_says_otherwise_and_the_other_stands_beside_it():
    # last epochs agree in every seed but for their level, best ones scatter
    better = [record("q1_2", s, ((0.9 - 0.1 * s,), (0.5 + 0.01 * s,))) for s in range(3)]
    worse = [record("q1_1", s, ((0.7,), (0.3,))) for s in range(3)]
    (last,) = judge_all(QUICK, [*better, *worse])
    assert last.epoch == "last" and last.verdict == "supported"
    assert last.differences == pytest.approx((0.2, 0.21, 0.22))
    assert last.other_epoch.epoch == "best" and last.other_epoch.verdict == "undecided"
    assert last.other_epoch.differences == pytest.approx((0.2, 0.1, 0.0))
    by_best = study("quick")
    object.__setattr__(by_best, "epoch", "best")
    (best,) = judge_all(by_best, [*better, *worse])
    assert best.comparison == last.other_epoch.comparison and best.other_epoch.comparison == last.comparison
    assert flagged(last) == "**supported** (best epoch: undecided)"
    assert flagged(best) == "**undecided** (last epoch: supported)"


def test_a_training_that_finds_one_class_alone_is_counted_and_the_rest_is_compared_without_it():
    flat = {"recall": [1.0, 0.0]}
    better = [*runs("q1_2", [0.8, 0.82, 0.84, 0.82]), record("q1_2", 4, ((0.5,),), by_class=flat)]
    worse = runs("q1_1", [0.70, 0.71, 0.72, 0.73, 0.74])
    (outcome,) = judge_all(QUICK, better + worse)
    assert outcome.collapsed == {"q1_2-finetune": 1} and outcome.difference.n == 5
    assert outcome.trained.seeds == (0, 1, 2, 3)
    assert outcome.trained.differences == pytest.approx((0.10, 0.11, 0.12, 0.09))
    assert (outcome.verdict, outcome.trained.verdict) == ("undecided", "supported")
    assert flagged(outcome) == "**undecided** (without failed trainings: supported)"
    (none_left,) = judge_all(QUICK, [replace(r, by_class=flat) for r in better] + worse)
    assert none_left.collapsed == {"q1_2-finetune": 5} and none_left.trained is None


@pytest.mark.parametrize(
    ("task", "lists", "failed"),
    [
        ("classification", {"recall": [1.0, 0.0]}, True),
        ("classification", {"recall": [0.99, 0.0]}, True),  # no better than always the first class
        ("classification", {"recall": [0.99, 0.01]}, False),
        ("segmentation", {"iou": [0.0, 0.4, math.nan]}, True),
        ("segmentation", {"iou": [0.1, 0.4, math.nan]}, False),
        ("custom", {}, False),
    ],
)
def test_what_a_failed_training_is(task, lists, failed):
    assert TASKS[task].collapsed(lists) == failed


def test_claims_on_one_data_set_are_a_family_and_controls_are_none():
    rows = ("q1_1", "q1_2", "q1_3", "q1_8", "q1_c8")
    of_q1 = [r for i, row in enumerate(rows) for r in runs(row, [0.50 + 0.02 * i, 0.55 + 0.03 * i, 0.52])]
    data = replace(of_q1[0].data, fingerprint="a" * 64, name="scenes")
    of_q2 = runs("q2_1a", [0.2, 0.21, 0.24], data=data) + runs("q2_1b", [0.1, 0.12, 0.13], data=data)
    found = {o.claim.id: o for o in judge_all(QUICK, of_q1 + of_q2)}
    three = [id for id in found if id.startswith("q1_4")]
    assert len(three) == 3 and all(found[id].together == 3 for id in three)
    adjusted = holm([found[id].comparison.p_value for id in three])
    assert [found[id].adjusted_p for id in three] == pytest.approx(adjusted)
    control = found["q1_c9-pretraining"]
    assert control.together == 1 and control.adjusted_p == control.comparison.p_value
    assert found["q2_2-skip_miou"].together == 2  # with pixel accuracy, on the same scenes
    assert {frozenset(o.claim.id for o in family) for family in families(found.values())} == {
        frozenset(three),
        frozenset([control.claim.id]),
        frozenset(["q2_2-skip_miou", "q2_2-skip_pixel_accuracy"]),
    }


def test_a_claim_with_a_smallest_difference_can_be_equivalent():
    same = [r for row, a in (("q1_2", 0.0001), ("q1_1", 0.0)) for r in runs(row, [0.7 + a, 0.75 - a, 0.8, 0.72 + a])]
    (outcome,) = judge_all(QUICK, same)
    assert CLAIM.smallest == 0.01 and outcome.verdict == "equivalent"
    without = study("quick")
    object.__setattr__(without, "claims", [replace(CLAIM, smallest=0.0)])
    assert judge_all(without, same)[0].verdict == "undecided"


def test_a_claim_without_runs_or_with_a_figure_that_is_not_finite_is_not_judged():
    worse = runs("q1_1", [0.75, 0.86, 0.66])
    assert judge(CLAIM, worse, QUICK) is None
    assert judge(CLAIM, runs("q1_2", [0.80, math.nan, 0.70]) + worse, QUICK) is None
    assert judge(CLAIM, runs("q1_2", [0.80, 0.90, math.inf]) + worse, QUICK) is None


def test_a_claim_about_a_figure_is_for_real_data():
    claim = CLAIMS["q1_9-passes_0.895"]
    real = [replace(r, data=replace(r.data, embedded=False)) for r in runs("q1_8", [0.91, 0.92, 0.915])]
    outcome = judge(claim, real, QUICK)
    assert outcome.difference.mean == pytest.approx(0.915) and outcome.verdict == "supported"
    assert judge(claim, runs("q1_8", [0.91, 0.92, 0.915]), QUICK) is None


def test_runs_on_different_data_are_not_compared():
    other = replace(record("q1_1"), data=replace(record().data, fingerprint="f" * 64, name="hymenoptera"))
    with pytest.raises(ValueError, match="hymenoptera"):
        judge(CLAIM, [record("q1_2"), other], QUICK)
    assert judge_all(QUICK, [record("q1_2"), other]) == []
    assert [o.claim.id for o in judge_all(QUICK, [record("q1_2"), record("q1_1"), other])] == [CLAIM.id]


def test_claims_are_judged_together():
    records = [r for row in ("q1_1", "q1_2", "q1_3") for r in runs(row, [0.80, 0.83 + 0.01 * len(row), 0.86])]
    together = {o.claim.id: o for o in judge_all(QUICK, records)}
    assert len(together) == 3
    for id, outcome in together.items():
        alone = judge(CLAIMS[id], records, QUICK)
        assert outcome.adjusted_p >= alone.adjusted_p == alone.comparison.p_value


def test_a_studys_own_metric_of_classification_moves_by_images():
    own = Study("own", data="folder", rows={"a": Row("resnet18"), "b": Row("resnet18")}, metrics={"f1": max},
                claims=[Claim(better="a", worse="b", metric="f1")])  # fmt: skip
    made = [
        replace(record(seed=s), row=row, epochs=[replace(record().epochs[0], figures={"accuracy": 0.5, "f1": value})])
        for row, value in (("a", 0.6), ("b", 0.5))
        for s in range(3)
    ]
    (outcome,) = judge_all(own, made)
    assert outcome.resolution == 1 / 400 and 0 < outcome.comparison.p_value < 0.05


def test_what_published_single_runs_could_show():
    found = {claim.id: stated(claim, FULL) for claim in FULL.claims}
    # standard errors of 0.875, 0.83 and 0.7175 over 400 images: 0.0165, 0.0188, 0.0225
    assert found[CLAIM.id].images.p_value == pytest.approx(0.0717, abs=5e-4)
    assert found["q1_4-features_above_scratch"].images.p_value < 0.001
    assert found["q1_9-passes_0.895"].images.p_value > 0.05  # 363 of 400 against 0.895
    of_miou = found["q2_2-skip_miou"]
    assert of_miou.images is None and of_miou.difference == pytest.approx(0.4295 - 0.4055)
    for nothing in ("q1_7-whole_face_features", "q2_c2-norm_interaction", "q1_c9-pretraining"):
        assert np.isnan(found[nothing].difference) and found[nothing].images is None


# Bounds


def stored(n=8, spread=0.01):
    """n runs of every quick row, with a spread of its own over seeds."""
    random = np.random.RandomState(5)
    return [
        record(row, seed=s, figures=((float(0.5 + 0.02 * i + random.normal(0, spread)),),))
        for i, row in enumerate(QUICK.rows)
        for s in range(n)
    ]


def bounds_of(rows=None, claims=None, **more):
    """Bounds of the data that records are of."""
    return Bounds(rows or {}, claims or {}, "made up", {"embedded": "d" * 64}, **more)


def test_calibrated_bounds_pass_their_own_runs_and_survive_the_file(tmp_path):
    made = calibrate(QUICK, stored())
    path = tmp_path / "bounds.toml"
    path.write_text(to_toml(QUICK, made))
    read = load_bounds(path, QUICK, named=True)
    assert read == made and read.data == {"embedded": "d" * 64}
    assert set(read.rows) == set(QUICK.rows) and set(read.claims) == {c.id for c in BETWEEN_ROWS}
    assert not failed(check for r in stored() for check in read.check(r))
    assert load_bounds(path, FULL) == NO_BOUNDS
    with pytest.raises(InputError, match=r"has no bounds of study full, but of quick. Fix: run cvhw4 calibrate"):
        load_bounds(path, FULL, named=True)
    assert "2026-11-23" in read.source and "torch 2.15.0" in read.source
    for outcome in judge_all(QUICK, stored()):
        assert read.check_claim(outcome).met


def test_a_users_study_is_calibrated_in_the_same_way(tmp_path):
    """On its own folder, whose name and whose rows' names need quotes in the file; runs on other data do not count."""
    own = Study(
        "insects.v2",
        data="hymenoptera",
        rows={"resnet-18": Row("resnet18"), "frozen+linear": Row("resnet18", trained="last layer")},
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
    assert len(read.check(records[0])) == 3 and read.check(elsewhere[0]) == []
    (outcome,) = judge_all(own, records)
    assert read.promises(outcome) and read.check_claim(outcome).met
    assert [check.met for _, check in held_out(own, [*records, *elsewhere], read)] == [True] * 2 * 6 * 3


def test_a_bound_says_value_bound_and_source():
    made = calibrate(QUICK, stored())
    message = failed(made.check(record("q1_2", figures=((0.1,),))))[0]
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    assert message.startswith("best accuracy 0.1000 is below its bound [")
    assert f"[{bound.low:.4f}, {bound.high:.4f}]" in message
    assert f"from 8 runs with mean {bound.mean:.4f}" in message and "runs of 2026-11-23" in message
    assert "above" in failed(made.check(record("q1_2", figures=((0.99,),))))[0]
    nan = Check("best accuracy", math.nan, Bound(0.0, 1.0, 0.5, 0.1, 5), "somewhere")
    assert not nan.met and "outside" in str(nan)


def test_bounds_do_not_apply_to_other_data():
    made = calibrate(QUICK, stored())
    photos = replace(record().data, name="photos", fingerprint="f" * 64)
    foreign = replace(record("q1_2", figures=((0.1,),)), data=photos)
    assert made.check(foreign) == [] and made.missed(foreign) == []
    outcome = judge(CLAIM, [foreign, replace(record("q1_1"), data=foreign.data)], QUICK)
    assert made.check_claim(outcome) is None and not made.promises(outcome)
    assert held_out(QUICK, [replace(r, data=foreign.data) for r in stored()], made) == []


def test_other_data_of_the_name_that_the_bounds_know_are_missed_bounds():
    """A generator that changed must not end in a green session of runs that nobody judged."""
    bounds = calibrate(QUICK, stored())
    run = stored()[0]
    changed = replace(run, data=replace(run.data, fingerprint="f" * 64))
    (told,) = bounds.missed(changed)
    assert told.startswith(f"{run.data.name} are not the data of that name") and bounds.check(changed) == []
    assert bounds.missed(replace(changed, data=replace(changed.data, name="photos"))) == []
    assert bounds.missed(replace(changed, row="of nobody")) == []


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
    error = error_of_one(QUICK.rows.values(), BETWEEN_ROWS, rate, NIGHTLY_SEEDS)
    data = SimpleNamespace(fingerprint="d" * 64)

    def drawn(n):
        return random.normal(0.8, 0.02, (nights, n))

    def bound():
        return Bound(*limits(drawn(runs), 0.0, error), runs)

    of_rows, of_claims = [], []
    for row in QUICK.in_group(""):
        calibrated = bounds_of({row.name: {name: bound() for name in row.task.bounded}})
        for _ in range(calibrated.seeds):
            figures = {name: drawn(1)[:, 0] for name in calibrated.rows[row.name]}
            run = SimpleNamespace(row=row.name, data=data, figure=figures.__getitem__)
            of_rows += [~check.met for check in calibrated.check(run)]
    for claim in QUICK.nightly_claims:
        if claim.worse is None:
            continue
        calibrated = bounds_of(claims={claim.id: bound()})
        night = Estimate(calibrated.seeds, drawn(calibrated.seeds).mean(1), *[math.nan] * 3)
        outcome = SimpleNamespace(claim=claim, fingerprint=data.fingerprint, difference=night)
        of_claims.append(~calibrated.check_claim(outcome).met)
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
    error = error_of_one(QUICK.rows.values(), BETWEEN_ROWS, 0.01, 3)
    figures = [r.best("accuracy") for r in runs if r.row == "q1_2-finetune"]
    bound = made.rows["q1_2-finetune"]["best accuracy"]
    expected = limits(figures, 1 / 400, error)
    assert (bound.low, bound.high, bound.mean, bound.sd) == pytest.approx([float(x) for x in expected], abs=6e-5)
    assert bound.n == 20
    half = prediction_half_width(np.std(figures, ddof=1), 20, error)
    assert bound.high - bound.mean == pytest.approx(half, abs=2e-4)
    differences = [judge(CLAIM, [r for r in runs if r.seed == s], QUICK).difference.mean for s in range(20)]
    bound = made.claims[CLAIM.id]
    assert (bound.low, bound.high) == pytest.approx([float(x) for x in limits(differences, 0.0, error)[:2]], abs=6e-5)
    wider = calibrate(QUICK, stored(20), false_alarms=0.001)
    assert wider.rows["q1_2-finetune"]["best accuracy"].high > bound.high
    assert wider.claims[CLAIM.id].high > calibrate(QUICK, stored(20), 0.001, seeds=1).claims[CLAIM.id].high > bound.high


OF_FACTORIAL = replace(CLAIM, id="made_up", better="q1_f1-net")  # a row that a night does not train


def test_the_rate_of_one_check_by_hand():
    some = [QUICK.row(name) for name in ("q1_1", "q1_2", "q1_f1", "q2_1b")]
    # a night of 3 seeds: two rows of 3 figures and one of 5 make 33 checks, the claim one more
    assert error_of_one(some, [CLAIM], 0.01, 3) == pytest.approx(1 - 0.99 ** (1 / 34))
    assert error_of_one(some, [CLAIM, OF_FACTORIAL], 0.01, 3) == error_of_one(some, [CLAIM], 0.01, 3)


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
            [*stored(), *(replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in runs("q1_1", [0.5]))],
            0.01,
            "q1_1-features: was run on other embedded than",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_named(records, rate, message):
    with pytest.raises(InputError, match=message):
        calibrate(QUICK, records, false_alarms=rate)


def test_a_claim_is_guarded_where_a_nights_mean_is_promised():
    made = bounds_of(claims={CLAIM.id: Bound(-0.01, 0.19, 0.09, 0.02, 8)}, seeds=3)
    assert made.guards(CLAIM) and not replace(made, seeds=1).guards(CLAIM)
    # three runs: 0.09 - 0.1 sqrt((1/3 + 1/8) / (1 + 1/8)) = 0.0262
    assert made.guards(replace(CLAIM, margin=0.026)) and not made.guards(replace(CLAIM, margin=0.027))
    assert not made.guards(CLAIMS["q1_c9-pretraining"]) and not NO_BOUNDS.guards(CLAIM)
    # what is promised goes by the outcome's own seeds
    one, three = (judge(CLAIM, runs("q1_2", [0.9] * n) + runs("q1_1", [0.8] * n), QUICK) for n in (1, 3))
    assert made.promises(three) and not made.promises(one) and not NO_BOUNDS.promises(three)
    assert not replace(made, data={"embedded": "f" * 64}).promises(three)


def test_a_run_is_held_against_the_other_seeds_of_its_row():
    kept = [r for r in stored(10) if not r.row.startswith("q1_f")]
    corrupted = record("q1_2", seed=4, figures=((0.99,),))
    changed = [corrupted if (r.row, r.seed) == ("q1_2-finetune", 4) else r for r in kept]
    made = calibrate(QUICK, changed)
    assert made.check(corrupted)[0].met  # a bound made of it too is wide enough for it
    checks = held_out(QUICK, changed, made)
    assert [(r.seed, c.name) for r, c in checks if not c.met] == [(4, "best accuracy"), (4, "last accuracy")]
    assert len(checks) == sum(len(row.task.bounded) for row in QUICK.in_group("")) * 10
    (bound,) = {c.bound for r, c in checks if r is corrupted and c.name == "best accuracy"}
    others = [r.best("accuracy") for r in changed if r is not corrupted and r.row == "q1_2-finetune"]
    assert bound.n == 9 and bound.mean == pytest.approx(np.mean(others), abs=1e-4)


def test_equal_figures_are_bounded_by_one_image():
    made = calibrate(QUICK, [record(row, seed=s, figures=((0.5,),)) for row in QUICK.rows for s in range(6)])
    bound = made.rows["q1_2-finetune"]["last accuracy"]
    assert bound.sd == 0 and bound.low < 0.5 - 1 / 400


def whole_file(old, new):
    return to_toml(QUICK, calibrate(QUICK, stored())).replace(old, new, 1)


@pytest.mark.parametrize(
    "text",
    [
        "[quick",
        "[quick]\nsource = 1",
        "quick = 3",
        "[quick.rows.a]\nx = { low = 1 }",
        whole_file('"best accuracy"', '"best recall"'),
        whole_file("[quick.rows.q1_1-features]", "[quick.rows.q9]"),
        whole_file('"embedded" = "', '"embedded" = 1 # "'),
        whole_file("[quick.data]", "[quick.datum]"),
        whole_file("n = 8", "n = 4"),
        whole_file("false_alarms = 0.01", "false_alarms = 2"),
    ],
)
def test_a_foreign_bounds_file_is_named(text, tmp_path):
    path = tmp_path / "b.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"b\.toml: is not a bounds file.*cvhw4 calibrate"):
        load_bounds(path, QUICK)


def test_a_bounds_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_bounds(tmp_path / "none.toml", QUICK)
    with pytest.raises(InputError, match="is not a file"):
        load_bounds(tmp_path, QUICK)
    (tmp_path / "empty.toml").touch()
    assert load_bounds(tmp_path / "empty.toml", QUICK, named=True) == NO_BOUNDS
