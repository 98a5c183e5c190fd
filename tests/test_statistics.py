"""Intervals and verdicts: against scipy, hand-worked cases and simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvhw4 import Claim, Published, Row, Study
from cvhw4.homework import study
from cvhw4.report.numbers import verdict as flagged
from cvhw4.statistics.comparison import holm
from cvhw4.statistics.intervals import estimate, ratio_of_means
from cvhw4.statistics.published import stated
from cvhw4.statistics.scales import SCALES
from cvhw4.statistics.verdicts import families, judge, judge_all
from cvhw4.tasks import TASKS
from tests.helpers.records import runs
from tests.helpers.tiny import QUICK, record

FULL = study("full")
CLAIMS = {claim.id: claim for claim in FULL.claims}
CLAIM = CLAIMS["q1_4-finetune_above_features"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_interval_is_scipys(values):
    e = estimate(values)
    assert e.mean == pytest.approx(np.mean(values))
    assert e.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if e.sd > 1e-6:
        n, error = len(values), stats.sem(values)
        low, high = stats.t.interval(0.95, n - 1, np.mean(values), error)
        if n < 15:
            assert (e.low, e.high) == pytest.approx((low, high))
            return
        assert e.low <= low + 1e-9 and e.high >= high - 1e-9
        g = stats.skew(values, bias=False)
        for end in (e.low, e.high):  # is rejected at 5 % by Student's t or by Hall's (1992, formula 2.2), just so
            x = (e.mean - end) / e.sd
            hall = math.sqrt(n) * (x + g * x**2 / 3 + g**2 * x**3 / 27 + g / (6 * n))
            t = stats.t.ppf(0.975, n - 1)
            assert min(abs(hall), math.sqrt(n) * abs(x)) == pytest.approx(t, rel=1e-4)


def test_one_run_has_no_interval_and_no_runs_no_estimate():
    e = estimate([0.5])
    assert (e.n, e.mean, e.low, e.high) == (1, 0.5, -math.inf, math.inf) and math.isnan(e.sd)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_a_ratio_of_means_by_hand_and_as_fieller_has_it():
    # ratio 0.5; residuals 0.1, -0.05, -0.05 over 4: sd 0.02165, half width 4.3027 * 0.02165 / sqrt(3)
    found = ratio_of_means([2.1, 1.95, 1.95], [4.0, 4.0, 4.0])
    assert (found.mean, found.high - found.mean) == pytest.approx((0.5, 4.3027 * 0.021651 / math.sqrt(3)), rel=1e-4)
    assert math.isnan(ratio_of_means([1.0, 2.0], [1.0, -1.0]).mean)
    random = np.random.RandomState(3)
    wholes = random.normal(0.34, 0.04, 14)
    parts = 0.3 * wholes + random.normal(0, 0.02, 14)
    found = ratio_of_means(parts.tolist(), wholes.tolist())

    def p_of(ratio):
        return stats.ttest_1samp(parts - ratio * wholes, 0).pvalue

    # Fieller (1954): the ratios that a t test of part == ratio * whole does not reject
    assert p_of(found.low) == pytest.approx(0.05, abs=0.01) and p_of(found.high) == pytest.approx(0.05, abs=0.01)


# Scales


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("value", [0.0, 1e-6, 0.3, 0.999, 1.0])
def test_a_scale_gives_figures_back(name, value):
    scale = SCALES[name]
    assert scale.of(scale.to(value)) == pytest.approx(value, abs=2e-9)


def test_a_figure_has_the_scale_of_its_task():
    of = {row.task.name: row.task for row in QUICK.rows.values()}
    assert {of["classification"].scale(f) for f in ("best accuracy", "last accuracy")} == {"share"}
    assert {of["segmentation"].scale(f) for f in of["segmentation"].bounded} == {"share", "log"}
    assert of["segmentation"].scale("training loss") == "log"
    assert of["segmentation"].scale("training loss", "a loss of the user's, which may be negative") == "plain"
    own = {"train": lambda run: iter(()), "rows": {"a": {}}, "primary": "dice"}
    assert Study("x", **own).rows["a"].task.scale("best dice") == "plain"
    assert Study("x", **own, shares={"dice"}).rows["a"].task.scale("last dice") == "share"


# Verdicts


def test_claims_are_judged_pairwise_by_seed():
    better, worse = runs([0.80, 0.90, 0.70], "q1_2"), runs([0.75, 0.86, 0.66], "q1_1")
    outcome = judge(CLAIM, better + worse, QUICK)
    assert outcome.difference.mean == pytest.approx((0.05 + 0.04 + 0.04) / 3)
    assert outcome.difference.sd == pytest.approx(np.std([0.05, 0.04, 0.04], ddof=1))
    assert outcome.verdict == "supported" and outcome.fingerprint == "d" * 64
    assert judge(CLAIM, better[:1] + worse, QUICK).difference.n == 1
    turned = runs([0.1, 0.2, 0.3], "q1_2") + runs([0.5, 0.61, 0.69], "q1_1")
    assert judge(CLAIM, turned, QUICK).verdict == "contradicted"


def own_study(epoch="last", **of_claim):
    claim = Claim(better="a", worse="b", metric="accuracy", **of_claim)
    rows = {"a": Row("resnet18"), "b": Row("resnet18")}
    return Study("own", data="folder", rows=rows, claims=[claim], epoch=epoch)


def as_row(name, records):
    return [replace(r, row=name) for r in records]


def test_the_last_epoch_decides_unless_the_study_says_otherwise_and_the_other_stands_beside_it():
    # last epochs agree in every seed but for their level, best ones scatter
    better = [record("q1_2", s, ((0.9 - 0.1 * s,), (0.5 + 0.01 * s,))) for s in range(3)]
    worse = [record("q1_1", s, ((0.7,), (0.3,))) for s in range(3)]
    (last,) = judge_all(QUICK, [*better, *worse])
    assert last.epoch == "last" and last.verdict == "supported"
    assert last.differences == pytest.approx((0.2, 0.21, 0.22))
    assert last.other_epoch.epoch == "best" and last.other_epoch.verdict == "undecided"
    assert last.other_epoch.differences == pytest.approx((0.2, 0.1, 0.0))
    (best,) = judge_all(own_study(epoch="best"), [*as_row("a", better), *as_row("b", worse)])
    assert best.differences == last.other_epoch.differences and best.other_epoch.differences == last.differences
    assert flagged(last) == "**supported** (best epoch: undecided)"
    assert flagged(best) == "**undecided** (last epoch: supported)"


def test_a_training_that_finds_one_class_alone_is_counted_and_the_rest_is_compared_without_it():
    flat = {"recall": [1.0, 0.0]}
    better = [*runs([0.8, 0.82, 0.84, 0.82], "q1_2"), record("q1_2", 4, ((0.5,),), by_class=flat)]
    worse = runs([0.70, 0.71, 0.72, 0.73, 0.74], "q1_1")
    (outcome,) = judge_all(QUICK, better + worse)
    assert outcome.collapsed == {"q1_2-finetune": 1} and outcome.difference.n == 5
    assert outcome.trained.seeds == (0, 1, 2, 3)
    assert outcome.trained.differences == pytest.approx((0.10, 0.11, 0.12, 0.09))
    assert (outcome.verdict, outcome.trained.verdict) == ("undecided", "supported")
    assert flagged(outcome) == "**undecided** (without trainings that failed or learned far less: supported)"
    (none_left,) = judge_all(QUICK, [replace(r, by_class=flat) for r in better] + worse)
    assert none_left.collapsed == {"q1_2-finetune": 5} and none_left.trained is None
    assert flagged(none_left).endswith(" (every training of q1_2-finetune failed)")


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        (((), ()), "**equivalent**"),
        (((0, 1), (2,)), "**equivalent**"),
        ((range(3), ()), "**undecided** (every training of q1_2-finetune failed)"),
        ((range(3), range(3)), "**undecided** (every training of q1_2-finetune failed, every training of q1_1-fea"),
    ],
)
def test_rows_that_never_trained_are_not_equivalent(failed, verdict):
    rows = [record(row, s, ((0.5 + (s + x) % 3 / 1000,),), by_class={"recall": [1.0, 0.0 if s in of else 0.5]})
            for row, of, x in zip(("q1_2", "q1_1"), failed, (0, 1), strict=True) for s in range(3)]  # fmt: skip
    claim = replace(CLAIM, smallest=0.1)
    (outcome,) = judge_all(QUICK, rows, claims=[claim])
    assert flagged(outcome).startswith(verdict) and outcome.equivalent_p < 0.05


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
    of_q1 = [r for i, row in enumerate(rows) for r in runs([0.50 + 0.02 * i, 0.55 + 0.03 * i, 0.52], row)]
    data = replace(of_q1[0].data, fingerprint="a" * 64, name="scenes")
    of_q2 = runs([0.2, 0.21, 0.24], "q2_1a", data=data) + runs([0.1, 0.12, 0.13], "q2_1b", data=data)
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
    same = [r for row, a in (("a", 0.0001), ("b", 0.0)) for r in as_row(row, runs([0.7 + a, 0.75 - a, 0.8], "q1_2"))]
    assert judge_all(own_study(smallest=0.02), same)[0].verdict == "equivalent"
    assert judge_all(own_study(), same)[0].verdict == "undecided"


def test_a_claim_without_runs_or_with_a_figure_that_is_not_finite_is_not_judged():
    worse = runs([0.75, 0.86, 0.66], "q1_1")
    assert judge(CLAIM, worse, QUICK) is None
    assert judge(CLAIM, runs([0.80, math.nan, 0.70], "q1_2") + worse, QUICK) is None
    assert judge(CLAIM, runs([0.80, 0.90, math.inf], "q1_2") + worse, QUICK) is None


def test_a_claim_about_a_figure_is_for_real_data():
    claim = CLAIMS["q1_9-passes_0.895"]
    real = [replace(r, data=replace(r.data, embedded=False)) for r in runs([0.91, 0.92, 0.915], "q1_8")]
    outcome = judge(claim, real, QUICK)
    assert outcome.difference.mean == pytest.approx(0.915) and outcome.verdict == "supported"
    assert judge(claim, runs([0.91, 0.92, 0.915], "q1_8"), QUICK) is None


def test_runs_on_different_data_are_not_compared():
    other = replace(record("q1_1"), data=replace(record().data, fingerprint="f" * 64, name="hymenoptera"))
    with pytest.raises(ValueError, match="hymenoptera"):
        judge(CLAIM, [record("q1_2"), other], QUICK)
    assert judge_all(QUICK, [record("q1_2"), other]) == []
    assert [o.claim.id for o in judge_all(QUICK, [record("q1_2"), record("q1_1"), other])] == [CLAIM.id]


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
    # Wilson, of 400 images: 0.875 reaches 0.0360 down and 0.83 reaches 0.0336 up; error hypot(...) / 1.96 = 0.0251
    assert found[CLAIM.id].images.p_value == pytest.approx(0.0735, abs=5e-4)
    assert found["q1_4-features_above_scratch"].images.p_value < 0.001
    assert found["q1_9-passes_0.895"].images.p_value > 0.05  # 363 of 400 against 0.895
    of_miou = found["q2_2-skip_miou"]
    assert of_miou.images is None and of_miou.difference == pytest.approx(0.4295 - 0.4055)
    for nothing in ("q1_7-whole_face_features", "q2_c2-norm_interaction", "q1_c9-pretraining"):
        assert np.isnan(found[nothing].difference) and found[nothing].images is None


def test_a_published_difference_is_above_zero_where_the_better_row_is_lower():
    figures = {"a": Published({"loss": 0.3, "error": 3.0}), "b": Published({"loss": 0.5, "error": 4.0})}
    claims = [Claim(better="a", worse="b", metric=metric) for metric in ("loss", "error")]
    own = Study("own", train=lambda run: [], rows={"a": {}, "b": {}}, primary="accuracy", published=figures,
                lower_is_better={"error"}, claims=claims)  # fmt: skip
    assert [stated(claim, own).difference for claim in claims] == pytest.approx([0.2, 1.0])


def test_a_claim_of_one_seed_is_none_of_those_that_are_corrected_together():
    claims = ("q2_2-skip_miou", "q2_2-skip_pixel_accuracy")
    runs = [
        record(row, s, figures=((0.5 + s / 100 + (row == "q2_1a") / 10,),))
        for row in ("q2_1a", "q2_1b")
        for s in range(3)
    ]
    alone = {o.claim.id: o.together for o in judge_all(QUICK, runs)}
    assert alone == dict.fromkeys(claims, 2)
    found = {o.claim.id: o.together for o in judge_all(QUICK, [*runs, record("q2_3")])}
    assert found.keys() > {*claims} and {found[id] for id in claims} == {2}
