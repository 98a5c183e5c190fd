"""Two stores held against each other: numbers by hand, rates by simulation, and the command."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cvhw4 import cli
from cvhw4.records.schema import Failure
from cvhw4.records.store import Store, latest_studies
from cvhw4.report.changes import comment, headline, short_lines
from cvhw4.report.text import escape
from cvhw4.statistics.changes import compare_runs, figure_change, judge_figures, time_change
from tests.committed import committed_results
from tests.tiny import QUICK, record

SD = 0.01


def runs(values, row="q1_2", **changes):
    """Runs of one epoch with seeds from 0, and losses of their own."""
    return [record(row, seed=s, figures=((v,),), loss=0.5 + v / 100, **changes) for s, v in enumerate(values)]


def kinds(changes):
    return {(c.id, c.figure): c.kind for c in changes.figures}


def judged(a, b, step=1e-4, untouched=False):
    (change,) = judge_figures([figure_change(dict(enumerate(a)), dict(enumerate(b)), step, untouched=untouched)])
    return change


# One figure


def test_common_seeds_are_paired():
    a, b = {0: 0.50, 1: 0.60, 2: 0.55, 7: 0.9}, {2: 0.52, 1: 0.58, 0: 0.47, 9: 0.1}
    change = figure_change(a, b)
    expected = stats.ttest_rel([0.47, 0.58, 0.52], [0.50, 0.60, 0.55])
    assert change.paired and change.runs == (3, 3) and change.a == pytest.approx(0.55)
    assert change.difference.mean == pytest.approx(-0.08 / 3)
    assert change.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (change.difference.low, change.difference.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    "b",
    [{5: 0.52, 6: 0.50, 7: 0.57}, {0: 0.47}, {0: 0.47, 9: 0.49}, {0: 0.50, 8: 0.1, 9: 0.2}],  # a tie hides nothing
)
def test_fewer_than_two_common_seeds_are_two_samples(b):
    a = {0: 0.50, 1: 0.60, 2: 0.55}
    change = figure_change(a, b)
    squares = sum(np.var(v) * len(v) for v in map(list, (a.values(), b.values())))
    error = math.sqrt(squares / (len(b) + 1) * (1 / 3 + 1 / len(b)))
    mean = np.mean(list(b.values())) - 0.55
    assert not change.paired and change.runs == (3, len(b)) and change.difference.n == 3 + len(b)
    assert change.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / error, len(b) + 1))
    assert change.difference.high == pytest.approx(mean + stats.t.ppf(0.975, len(b) + 1) * error)
    if len(b) > 1:
        assert change.p_value == pytest.approx(stats.ttest_ind(list(a.values()), list(b.values())).pvalue)


def test_one_run_each_has_no_error():
    change = judged([0.5], [0.1])
    assert change.kind == "single" and math.isnan(change.p_value) and change.difference.low == -math.inf
    assert change.paired and judged([0.5], [0.5]).kind == "single"


def test_runs_of_equal_bits_are_the_same_and_no_others():
    assert judged([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], untouched=True).kind == "same"
    part = figure_change({0: 0.5, 1: 0.6, 2: 0.7}, {1: 0.6}, untouched=True)  # as far as both go
    assert (part.kind, part.runs, part.difference.mean) == ("same", (1, 1), 0)
    change = judged([0.5, 0.6, 0.7], [0.5, 0.6, math.nextafter(0.7, 1)])
    assert change.kind == "noise" and change.p_value == 1


def test_a_tie_of_one_common_seed_hides_no_other_run():
    """Seed 0 gave the same accuracy by chance, with another loss; all other seeds are far lower."""
    a, b = [0.90, 0.91, 0.92, 0.90, 0.91], [0.90, 0.50, 0.51, 0.52, 0.49]
    there = [record(seed=s, figures=((v,),)) for s, v in zip((0, 15, 16, 17, 18), b, strict=True)]
    changes = compare_runs(QUICK, runs(a), there)
    assert {(c.runs, c.paired, c.kind) for c in changes.figures} == {((5, 5), False, "worse")}
    assert changes.figures[0].p_value == pytest.approx(stats.ttest_ind(a, b).pvalue)
    same = compare_runs(QUICK, runs([0.90, 0.91]), runs([0.90]))
    assert {(c.kind, c.runs) for c in same.figures} == {("same", (1, 1))} and not same.regression


@pytest.mark.parametrize("n", [2, 3, 20])
def test_one_seed_that_differs_is_noise(n):
    change = judged([0.5] * n, [0.5] * (n - 1) + [0.1])
    assert change.kind == "noise" and change.p_value == pytest.approx(2 * stats.t.sf(1, n - 1))
    assert change.difference.low < 0 < change.difference.high


def test_equal_differences_are_held_against_the_step():
    # three accuracies of 40 images that all fell by one image: known to 1/40, sd at least 1/40 * sqrt(2 / 12)
    one = judged([0.5, 0.6, 0.7], [0.475, 0.575, 0.675], step=1 / 40)
    floor = 1 / 40 * math.sqrt(2 / 12)
    assert one.kind == "noise" and one.p_value == pytest.approx(2 * stats.t.sf(0.025 / floor * math.sqrt(3), 2))
    assert judged([0.5, 0.6, 0.7], [0.2, 0.3, 0.4], step=1 / 40).kind == "worse"
    # sums in another order
    assert judged([0.5, 0.6, 0.7], [0.5 - 1e-7, 0.6 - 1e-7, 0.7 - 1e-7]).kind == "noise"
    assert judged([0.5, 0.6], [0.6, 0.7]).kind == "better"


# Rates


def draw(rng, seeds, figures, drop=0.0):
    changes = []
    for i in range(figures):
        a = rng.normal(0.5, SD, seeds)
        b = a + rng.normal(-drop * SD if i < 2 else 0, SD, seeds)
        changes.append(figure_change(dict(enumerate(a)), dict(enumerate(b))))
    return judge_figures(changes)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_false_alarm_comes_in_five_percent_of_comparisons(seeds):
    rng = np.random.default_rng(seeds)
    alarms = [any(c.kind == "worse" for c in draw(rng, seeds, 20)) for _ in range(300)]
    changed = 0.025 + 3 * math.sqrt(0.025 * 0.975 / 300)  # one side of 5 %
    assert np.mean(alarms) <= changed


def test_without_correction_there_would_be_many_false_alarms():
    rng = np.random.default_rng(0)
    assert np.mean([min(c.p_value for c in draw(rng, 3, 20)) < 0.05 for _ in range(100)]) > 0.4


RISING = "q1_3 q1_c8 q1_1 q1_2 q1_5 q1_6 q1_8 q2_1b q2_1a q2_n1b q2_3 q2_c3 q2_n1a"


def study(rng, seeds):
    """Runs of every row, 3 SD above the row before, so that many claims are supported here and there by chance."""
    return [
        record(row, s, (rng.normal(0.2 + 3 * SD * i, SD, 1 if row.startswith("q1") else 4),), rng.random())
        for i, row in enumerate(RISING.split())
        for s in seeds
    ]


@pytest.mark.parametrize(("seeds", "others"), [(3, 0), (3, 50), (5, 0)])
def test_whole_comparisons_raise_a_false_alarm_in_five_percent(seeds, others):
    rng = np.random.default_rng(seeds + others)
    a = [compare_runs(QUICK, study(rng, range(seeds)), study(rng, range(others, others + seeds))) for _ in range(100)]
    assert sum(len(c.claims_of("undecided")) for c in a) > 10  # there was something to lose
    assert np.mean([c.regression for c in a]) <= 0.05


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Runs of the committed study, of the rows that have 20 seeds."""
    here = latest_studies(Store(committed_results(tmp_path_factory.mktemp("committed")), "quick").load())
    return [r for r in here if sum(o.id == r.id and o.data.name == r.data.name for o in here) >= 20]


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_of_one_committed_study_are_no_regression_of_each_other(committed, seeds):
    rng = np.random.default_rng(seeds)
    alarms = []
    for _ in range(100):
        drawn = rng.permutation(20)
        a, b = ([r for r in committed if r.seed in side] for side in (drawn[:seeds], drawn[seeds : 2 * seeds]))
        alarms.append(compare_runs(QUICK, a, b).regression)
    assert np.mean(alarms) <= 0.05


def test_two_samples_raise_as_few_false_alarms():
    rng = np.random.default_rng(1)
    p = [
        figure_change(dict(enumerate(rng.normal(0.5, SD, 20))), dict(enumerate(rng.normal(0.5, SD, 3), 50))).p_value
        for _ in range(2000)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 2000))


@pytest.mark.parametrize(
    ("seeds", "figures", "least", "most"), [(3, 2, 0.65, 0.85), (5, 2, 0.99, 1), (10, 40, 0.99, 1)]
)
def test_a_drop_of_three_sd_is_found_in_most(seeds, figures, least, most):
    rng = np.random.default_rng(2)
    found = [
        any(c.kind == "worse" for c in draw(rng, seeds, figures, drop=3)[:2]) for _ in range(300 if figures < 9 else 60)
    ]
    assert least <= np.mean(found) <= most


def test_rows_that_did_not_change_cost_nothing():
    """A row that repeats to the bit is not among the figures that p is corrected for."""
    a = [0.80, 0.81, 0.79, 0.80, 0.82]
    b = [0.77, 0.79, 0.755, 0.775, 0.785]
    others = [r for row in ("q1_1", "q1_3", "q1_5", "q1_6", "q1_8") for r in runs(a, row)]
    changes = compare_runs(QUICK, [*others, *runs(a)], [*others, *runs(b)])
    moved = [c for c in changes.figures if c.id == "q1_2-finetune"]
    assert [c.adjusted_p for c in moved] == [pytest.approx(2 * c.p_value) for c in moved]
    assert {c.kind for c in moved} == {"worse"} and len(changes.of("same")) == 10
    assert all(math.isnan(c.adjusted_p) for c in changes.of("same"))
    # equal by chance, in runs that are others: counted
    chance = compare_runs(QUICK, runs(a), [replace(r, epochs=[replace(r.epochs[0], loss=0.1)]) for r in runs(a)])
    assert {(c.kind, c.adjusted_p) for c in chance.figures} == {("noise", 1.0)}


# Stores


def test_figures_are_of_the_latest_studies_on_data_of_one_name():
    old = runs([0.1, 0.2, 0.3], study="a" * 64, started="2020-01-01T00:00:00+00:00")
    elsewhere = [replace(r, data=replace(r.data, name="hymenoptera")) for r in runs([0.1, 0.1])]
    changes = compare_runs(QUICK, [*old, *runs([0.8, 0.9, 0.7])], [*runs([0.8, 0.9, 0.7]), *elsewhere])
    assert kinds(changes) == {("q1_2-finetune", "best accuracy"): "same", ("q1_2-finetune", "last accuracy"): "same"}
    assert changes.only_b == [("q1_2-finetune", "hymenoptera")] and changes.only_a == []
    assert not changes.regression and changes.origins == []


def test_best_and_last_epochs_of_every_metric_are_compared():
    a = [record("q2_1a", seed=s, figures=((0.5, 0.8, 0.4, 0.9), (0.4, 0.7, 0.3, 0.8))) for s in (0, 1)]
    names = [c.figure for c in compare_runs(QUICK, a, a).figures]
    metrics = ("miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy")
    assert names == [f"{which} {m}" for m in metrics for which in ("best", "last")]
    assert [c.a for c in compare_runs(QUICK, a, a).figures[:2]] == [0.5, 0.4]


def own(values, name="balanced"):
    """Runs with an own metric beside the accuracy."""
    return [
        replace(r, epochs=[replace(r.epochs[0], figures=r.epochs[0].figures | {name: v})])
        for r, v in zip(runs([0.8, 0.9, 0.7]), values, strict=True)
    ]


def test_an_own_metric_of_classification_is_known_to_one_image():
    """As claims take it: three equal falls by one of 400 images may be chance."""
    a, b = own([0.5, 0.6, 0.7]), own([0.4975, 0.5975, 0.6975])
    assert {r.data.val for r in a} == {400}
    moved = [c for c in compare_runs(QUICK, a, b).figures if c.figure.endswith("balanced")]
    p = 2 * stats.t.sf(math.sqrt(3) / math.sqrt(2 / 12), 2)
    assert [(c.p_value, c.kind) for c in moved] == [(pytest.approx(p), "noise")] * 2


@pytest.mark.parametrize(
    ("b", "gaps"),
    [
        (own([0.5, 0.6, 0.7]), []),
        (runs([0.8, 0.9, 0.7]), [("balanced", "held", "lacking")]),
        (own([0.5, 0.6, 0.7], "f1"), [("balanced", "held", "lacking"), ("f1", "lacking", "held")]),
        (own([0.5, math.nan, 0.7]), [(f"{which} balanced", "held", "not finite") for which in ("best", "last")]),
    ],
)
def test_figures_that_cannot_be_compared_are_told(b, gaps):
    changes = compare_runs(QUICK, own([0.5, 0.6, 0.7]), b)
    assert [(g.figure, g.a, g.b) for g in changes.gaps] == gaps and not changes.regression
    assert compare_runs(QUICK, own([0.5, 0.6, 0.7]), b, complete=True).regression == bool(gaps)
    lines = [line for line in short_lines(changes) if line.startswith("not compared: ")]
    assert len(lines) == len(gaps) and ("not compared" in headline(changes)) == bool(gaps)
    if gaps:
        assert lines[0] == f"not compared: {gaps[0][0]} of q1_2-finetune (embedded), {gaps[0][2]} in B"
        assert escape(lines[0].split(": ")[1]) in comment(changes, "a", "b")


def test_claims_on_figures_that_are_not_finite_are_not_judged():
    a, other = runs(SURE[0]), runs(SURE[1], "q1_1")
    b = [replace(r, epochs=[replace(r.epochs[0], figures={"accuracy": math.nan})]) for r in a]
    changes = compare_runs(QUICK, [*a, *other], [*b, *other])
    assert claim(changes).kind == "only A" and len(changes.gaps) == 2


def test_rows_that_b_lacks_are_a_regression_of_what_must_be_complete():
    a = [*runs([0.8, 0.9]), *runs([0.8, 0.9], "q1_1")]
    assert not compare_runs(QUICK, a, a[:2]).regression and not compare_runs(QUICK, a[:2], a, complete=True).regression
    assert compare_runs(QUICK, a, a[:2], complete=True).regression


def test_rows_spoilt_on_purpose_are_passed_over():
    spoilt = [replace(r, row="q1_6x", id="q1_6x-no_pretraining") for r in runs([0.5, 0.6])]
    assert compare_runs(QUICK, spoilt, spoilt).figures == []


def test_what_differs_between_the_sides_is_told():
    a = runs([0.8, 0.9])
    environment = a[0].environment | {"torch": "2.16.0", "commit": "def", "threads": 4, "code": "c" * 64}
    settings = a[0].settings | {"recipe": a[0].settings["recipe"] | {"lr": 0.5}}
    b = runs([0.8, 0.9], study="b" * 64, environment=environment, settings=settings)
    b = [replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in b]
    told = {o.what: (o.a, o.b, o.ids) for o in compare_runs(QUICK, a, b).origins}
    ids = ("q1_2-finetune",)
    assert told == {
        "data": ("d" * 8, "f" * 8, ids),
        "recipe.lr": ("0.01", "0.5", ids),
        "torch": ("2.15.0", "2.16.0", ids),
        "threads": ("2", "4", ids),
        "code": ("abc", "def", ids),
    }
    assert compare_runs(QUICK, a, b).times == []  # nothing to learn from other settings and threads
    (only,) = compare_runs(QUICK, a, runs([0.8, 0.9], study="b" * 64)).origins
    assert (only.what, only.a, only.b) == ("code", "abc", "abc")  # what else could it be


SURE = [0.90, 0.91, 0.92, 0.90, 0.91], [0.80, 0.80, 0.81, 0.81, 0.80]


def claim(changes, name="q1_4-finetune_above_features"):
    return next(c for c in changes.claims if c.claim == name)


def test_a_claim_that_was_supported_and_whose_difference_fell_is_a_regression():
    """Either row moved a little the wrong way, which is noise; what is between them is gone."""
    a = [*runs(SURE[0]), *runs(SURE[1], "q1_1")]
    low, high = [0.955, 0.765, 0.95, 0.765, 0.875], [0.925, 0.765, 0.915, 0.785, 0.855]
    changes = compare_runs(QUICK, a, [*runs(low), *runs(high, "q1_1")])
    fall = np.subtract(low, high) - np.subtract(*SURE)
    assert stats.ttest_1samp(fall, 0).pvalue < 0.05
    assert claim(changes).a.verdict == "supported" and claim(changes).b.verdict == "undecided"
    assert claim(changes).kind == "lost" and changes.regression and not changes.of("worse")


def test_a_claim_that_is_merely_undecided_now_is_told_and_no_regression():
    a = [*runs(SURE[0]), *runs(SURE[1], "q1_1")]
    b = [*runs([0.90, 0.78, 0.92, 0.75, 0.91]), *runs(SURE[1], "q1_1")]
    changes = compare_runs(QUICK, a, b)
    assert claim(changes).a.verdict == "supported" and claim(changes).b.verdict == "undecided"
    assert claim(changes).kind == "undecided" and not changes.regression
    assert headline(changes).endswith("; 1 claim no longer decided")
    assert "no longer decided" in comment(changes, "a", "b").split("<details>")[0]
    assert claim(compare_runs(QUICK, b, a)).kind == "changed" and not compare_runs(QUICK, b, a).regression
    assert claim(compare_runs(QUICK, a, a)).kind == "same"
    assert claim(compare_runs(QUICK, a, b[:5])).kind == "only A" and not compare_runs(QUICK, a, b[:5]).regression


def test_a_claim_whose_runs_are_the_same_is_not_lost_to_the_correction():
    """Other claims, judged beside it, raise its p over 5 %; it is not what became worse."""
    near = [*runs([0.84, 0.805, 0.83, 0.85, 0.81]), *runs([0.80] * 5, "q1_1")]
    beside = [*runs([0.5, 0.6, 0.4, 0.5, 0.6], "q2_1a"), *runs([0.5, 0.4, 0.6, 0.6, 0.4], "q2_1b")]
    changes = compare_runs(QUICK, near, [*near, *beside])
    assert (claim(changes).a.verdict, claim(changes).b.verdict) == ("supported", "undecided")
    assert claim(changes).kind == "correction" and not changes.regression


def test_fewer_seeds_lose_no_claim():
    a = [*runs([0.90, 0.86, 0.92, 0.87, 0.91]), *runs([0.80, 0.82, 0.81, 0.81, 0.80], "q1_1")]
    b = [r for r in a if r.seed < 2]
    changes = compare_runs(QUICK, a, b)
    assert claim(changes).kind == "undecided" and not changes.regression
    turned = [*runs([0.80, 0.81]), *runs([0.90, 0.91], "q1_1")]  # what few seeds contradict is no want of seeds
    assert claim(compare_runs(QUICK, a, turned)).b.verdict == "contradicted"
    assert claim(compare_runs(QUICK, a, turned)).kind == "lost"


def failure(seed=0, row="q1_3"):
    r = record(row, seed)
    shared = {name: getattr(r, name) for name in ("row", "id", "profile", "seed", "fingerprint", "study", "started")}
    where = dict(data=r.data.name, epoch=2, step=3, lr=0.1, reason="the loss is NaN", environment=r.environment)
    return Failure(**shared, **where)


def test_seeds_that_failed_in_b_alone_are_a_regression():
    a = runs([0.8, 0.9])
    assert compare_runs(QUICK, a, a, [failure(0)], [failure(0), failure(1)]).failed == [failure(1)]
    assert compare_runs(QUICK, a, a, [], [failure(1)]).regression
    assert not compare_runs(QUICK, a, a, [failure(1)], [failure(1)]).regression
    assert not compare_runs(QUICK, a, a, [failure(1)], []).regression


# Times


def test_ratios_of_times_by_hand():
    change = time_change([10, 11, 12], [20, 22, 27])
    logs = [np.log([10, 11, 12]), np.log([20, 22, 27])]
    sd = math.sqrt((np.var(logs[0], ddof=1) + np.var(logs[1], ddof=1)) / 2)
    half = stats.t.ppf(0.975, 4) * sd * math.sqrt(math.pi / 2 * 2 / 3)
    assert (change.a, change.b, change.ratio) == (11, 22, 2)
    assert (change.low, change.high) == (pytest.approx(2 * math.exp(-half)), pytest.approx(2 * math.exp(half)))
    assert time_change([10], [30]).low == 0 and time_change([10], [30]).high == math.inf
    wider = time_change([10, 11, 12], [20, 22, 27], rows=13)
    assert wider.low < change.low and wider.high > change.high


def test_intervals_of_times_hold():
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        pairs = [time_change(*np.exp(rng.normal(0, 0.1, (2, n)))) for _ in range(500)]
        assert np.mean([t.low <= 1 <= t.high for t in pairs]) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 500)


def timed(seconds, **changes):
    return [
        replace(r, times=replace(r.times, train_seconds=s))
        for r, s in zip(runs([0.8, 0.9, 0.7], **changes), seconds, strict=True)
    ]


def test_slower_counts_with_a_limit_that_the_whole_interval_exceeds():
    a, slow = timed([10, 10.1, 9.9]), timed([20, 20.1, 19.9])
    assert not compare_runs(QUICK, a, slow).regression
    assert compare_runs(QUICK, a, slow, time_limit=1.5).regression
    assert not compare_runs(QUICK, a, slow, time_limit=2).regression
    assert not compare_runs(QUICK, a, timed([20, 40, 12]), time_limit=1.2).regression
    assert not compare_runs(QUICK, slow, a, time_limit=1.2).regression


@pytest.mark.parametrize("other", [{"threads": 4}, {"device_name": "Another"}])
def test_times_of_other_machines_are_not_compared(other):
    a = timed([10, 10, 10])
    b = timed([90, 90, 90], environment=a[0].environment | other)
    assert compare_runs(QUICK, a, b, time_limit=1.1).times == []


# Pages


def test_the_first_line_says_it_all():
    a = [*runs(SURE[0]), *runs(SURE[1], "q1_1"), *runs([0.5], "q1_3"), *runs([0.6, 0.7], "q1_5")]
    b = [*runs([v - 0.1 for v in SURE[0]]), *runs(SURE[1], "q1_1"), *runs([0.4], "q1_3"), *runs([0.61, 0.69], "q1_5")]
    changes = compare_runs(QUICK, a, b, [], [failure()])
    counts = "2 figures worse, 2 within noise, 2 the same to the bit, 2 of one run each: no error known"
    assert headline(changes) == f"{counts}; 1 claim no longer supported; 1 run failed"
    page = comment(changes, "main", "results")
    first, _, rest = page.partition("\n")
    assert first == f"**{headline(changes)}**"
    shown, folded = rest.split("<details>", 1)
    assert "| q1_2-finetune | embedded | best acc. | 0.9080 | 0.8080 | -0.1000 |" in shown and "5 pairs" in shown
    assert "no longer supported" in shown and "the loss is NaN" in shown and "q1_5" not in shown
    assert "q1_5-features" in folded and folded.count("<details>") + 1 == folded.count("</details>")
    assert headline(compare_runs(QUICK, [], [])) == "no figure to compare"
    assert headline(compare_runs(QUICK, a[:3], [])) == "no figure to compare; 1 row only in A"


def test_names_are_escaped():
    evil = "<img src=x>|`*[a](http://b)\x1b[31m\n# big"
    a = [replace(r, data=replace(r.data, name=evil)) for r in runs([0.9, 0.91, 0.92])]
    b = [replace(r, data=replace(r.data, name=evil)) for r in runs([0.3, 0.31, 0.32])]
    changes = compare_runs(QUICK, a, b, [], [replace(failure(), reason=evil)])
    page = comment(changes, "`<b>x", evil)
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert "<img" not in html and "<b>" not in html and "\x1b" not in page and "<a " not in html and "<h1" not in html
    assert html.count("<tr>") == page.count("\n| ") - page.count("\n| ---")


def test_a_page_has_room_in_a_comment_whatever_the_size():
    many = [
        replace(r, row=f"q1_m{i}", id=f"q1_m{i}-{'x' * 150}") for i in range(300) for r in runs([0.5, 0.6, 0.7, 0.65])
    ]
    other = [
        replace(r, epochs=[replace(r.epochs[0], figures={"accuracy": r.epochs[0].figures["accuracy"] - 0.3})])
        for r in many
    ]
    lost = [replace(failure(s), reason="y" * 5000) for s in range(400)]
    changes = compare_runs(QUICK, [*many, *runs([0.1, 0.2])], other, [], lost)
    page = comment(changes, "a" * 9000, "b")
    assert len(page) < 60_000 and page.startswith("**600 figures worse; 400 runs failed; 1 row only in A**\n")
    assert "more, left out for want of room." in page
    assert "left out" not in comment(compare_runs(QUICK, runs([0.5, 0.6]), runs([0.5, 0.6])), "a", "b")


# The command


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cvhw4", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output = capsys.readouterr()
        return stop.value.code or 0, output.out, output.err

    return call


def save(folder, records, profile="quick"):
    store = Store(folder, profile)
    for r in records:
        store.save(replace(r, profile=profile))
    return folder


def git(*arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


GOOD, BAD = [0.90, 0.91, 0.92], [0.50, 0.52, 0.51]


def test_exit_codes_tell_regressions(run, tmp_path):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "b", runs(BAD))
    assert run("compare", "a", "a")[0] == 0
    assert run("compare", "b", "a")[0] == 0
    code, out, err = run("compare", "a", "b")
    assert (code, err) == (1, "") and out.splitlines()[-1] == "2 figures worse"
    assert "q1_2-finetune best acc. 0.910 0.510 -0.400" in " ".join(out.split())
    code, out, _ = run("compare", "a", "b", "--markdown")
    assert code == 1 and out.startswith("**2 figures worse**\n")


def test_output_to_a_pipe_is_plain_and_80_wide(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    rows = [*runs(GOOD), *runs(BAD, "q2_c3"), *runs(GOOD, "q2_n1b")]
    save(tmp_path / "a", rows), save(tmp_path / "b", [*runs(BAD), *runs(GOOD, "q2_c3"), *runs(BAD, "q2_n1b")])
    _, out, _ = run("compare", "a", "b")
    table = out.split("training time")[0]
    assert "\x1b" not in out and max(map(len, table.splitlines())) <= 80
    assert out.count("better") == 9 and out.count("worse") == 11  # with the last line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("compare", "a", "nowhere"), "nowhere: is no folder and no git revision"),
        (("compare", "a", "--", "--output=x"), "--output=x: is no folder and no git revision"),
        (("compare", "a", "empty"), "empty: has no runs of profile quick"),
        (("compare", "a", "main:none"), "main:none: has no none/quick/runs at that revision"),
        (("compare", "a", "full"), "full: has no runs of profile quick. To mend: add --profile full"),
        (("compare", "a", "insects"), "quick. To mend: name the file that makes insects with --ablation FILE."),
        (("compare", "a", "both"), "quick. To mend: add --profile full, or name the file that makes insects with"),
        (
            ("compare", "main:insects", "a"),
            "insects/quick/runs at that revision. To mend: name the file that makes ins",
        ),
        (("compare", "a", "main:./full"), "./full/quick/runs at that revision. To mend: add --profile full."),
        (("compare", "a", "a", "--profile", "huge"), "--profile huge: is not a profile"),
        (("compare", "insects/insects", "insects/insects"), "--ablation FILE"),
        (("compare", "a", "a", "--profile", "insects"), "--ablation FILE"),
        (("compare", "a", "a", "--time-limit", "nan"), "--time-limit nan: is no ratio"),
        (("compare", "a", "a", "--time-limit", "-1"), "--time-limit -1.0: is no ratio"),
        (("compare", "a", "full/full"), "is of profile full"),
        (("compare", "a", ":"), "is no folder and no git revision"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_4(run, tmp_path, args, message):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "full", runs(GOOD), "full")
    save(tmp_path / "insects", runs(GOOD), "insects")
    save(tmp_path / "both", runs(GOOD), "full"), save(tmp_path / "both", runs(GOOD), "insects")
    (tmp_path / "empty" / "quick" / "runs").mkdir(parents=True)
    git("init"), git("add", "full", "insects"), git("commit", "-m", "x")
    before = sorted(tmp_path.rglob("*"))
    args = [{"a": "a/quick"}.get(x, x) for x in args] if args[-1] == "full/full" else args
    code, out, err = run(*args)
    assert (code, out) == (4, "") and message in err and err.count("\n") == 1 and "To mend" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_revisions_are_read_without_a_checkout(run, tmp_path):
    save(tmp_path / "results", runs(GOOD))
    git("init"), git("add", "."), git("commit", "-m", "good"), git("tag", "v1.0"), git("tag", "odd", "HEAD")
    save(tmp_path / "results", runs(BAD))
    git("add", "."), git("mv", "results", "elsewhere"), git("commit", "-m", "bad")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert run("compare", "v1.0", "elsewhere")[0] == 1
    assert run("compare", "HEAD~1", "main:elsewhere")[0] == 1
    assert run("compare", "main:elsewhere/", "main:elsewhere")[0] == 0
    assert run("compare", "v1.0", "HEAD")[0] == 4  # no results there
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    (tmp_path / "v1.0").mkdir()
    assert "v1.0: has no runs" in run("compare", "v1.0", "elsewhere")[2]  # a folder comes first


def test_revisions_are_read_from_a_folder_below_the_repositorys_top(run, tmp_path, monkeypatch):
    study = tmp_path / "own study"
    save(tmp_path / "results", runs(GOOD)), save(study / "results", runs(BAD))
    git("init"), git("add", "."), git("commit", "-m", "x")
    save(study / "new", runs(GOOD))
    monkeypatch.chdir(study)
    assert run("compare", "main", "results")[0] == 1  # the top's results, which are good
    assert run("compare", "main:./results", "results") == (0, *run("compare", "results", "results")[1:])
    assert "2 figures better" in run("compare", "main:./results", "new")[1]
    assert "2 figures worse" in run("compare", "main:../results/", "main:own study/results")[1]
    code, _, err = run("compare", "main:./new", "new")
    assert code == 4 and "has no ./new/quick/runs at that revision" in err and "main:./results" in err


def test_links_in_a_revision_lead_nowhere(run, tmp_path):
    save(tmp_path / "results", runs(GOOD))
    outside = tmp_path / "secret.json"
    outside.write_text(record("q1_1").to_json())
    row = tmp_path / "results" / "quick" / "runs" / "q1_1-features"
    row.mkdir()
    (row / os.path.basename(Store(tmp_path, "quick").path("q1_1-features", 0, record("q1_1").fingerprint))).symlink_to(
        outside
    )
    git("init"), git("add", "."), git("commit", "-m", "x")
    _, out, _ = run("compare", "main", "main")
    assert "2 the same" in out or "2 figures the same" in out


def test_a_profiles_own_folder_is_a_store(run, tmp_path):
    save(tmp_path / "a", runs(GOOD), "full"), save(tmp_path / "b", runs(BAD), "full")
    assert run("compare", "a/full", "b/full")[0] == 1
    assert run("compare", "a/full", "b")[0] == 1
    assert run("compare", "a", "b", "--profile", "full")[0] == 1


def test_failed_runs_of_b_end_with_exit_code_1(run, tmp_path):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "b", runs(GOOD))
    Store(tmp_path / "b", "quick").fail(failure())
    code, out, _ = run("compare", "a", "b")
    assert code == 1 and "q1_3-scratch seed 0 the loss is NaN" in " ".join(out.split())
    assert run("compare", "b", "a")[0] == 0


def test_two_thousand_records_a_side_in_two_seconds(tmp_path, run):
    for side in ("a", "b"):
        for row in QUICK.rows:
            of_row = json.loads(record(row.row).to_json())
            folder = tmp_path / side / "quick" / "runs" / row.id
            folder.mkdir(parents=True)
            for seed in range(100):
                print_ = f"{seed:05d}{row.row.encode().hex()}".ljust(64, "0")
                of_row |= {"seed": seed, "fingerprint": print_}
                of_row["epochs"][-1]["loss"] = seed / 1000 + (side == "b")
                (folder / f"seed{seed}-{print_[:12]}.json").write_text(json.dumps(of_row))
    began = time.process_time()
    code, out, _ = run("compare", "a", "b")
    assert time.process_time() - began < 2  # ten thousand a side: 4 s
    assert code == 0 and "76 figures within noise" in out
