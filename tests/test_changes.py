"""Two stores held against each other: numbers by hand, rates by simulation, and the pages."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy import stats

from cvhw4.report.changes import comment, headline, short_lines
from cvhw4.report.text import escape
from cvhw4.statistics.changes import compare_runs, figure_change, judge_figures, time_change
from tests.helpers import tiny
from tests.helpers.records import runs
from tests.helpers.tiny import QUICK, record

SD = 0.01
later = partial(pytest.param, marks=pytest.mark.integration)


def with_figures(records, change):
    """Runs whose one epoch has the figures that `change` makes of its own."""
    return [replace(r, epochs=[replace(r.epochs[0], figures=change(r.epochs[0].figures))]) for r in records]


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
    coarse = figure_change(a, b, step=1.0)  # one figure's rounding, not that of a difference
    error = math.sqrt((1 / 3 + 1 / len(b)) / 12)
    assert coarse.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / error, len(b) + 1))


# three accuracies of 40 images that all fell by one image: known to 1/40, sd at least 1/40 * sqrt(2 / 12)
ONE_IMAGE = 2 * stats.t.sf(math.sqrt(3) / math.sqrt(2 / 12), 2)
THREE = [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("a", "b", "options", "kind", "p"),
    [
        ([0.5], [0.1], {}, "single", math.nan),
        ([0.5], [0.5], {}, "single", math.nan),
        (THREE, THREE, {"untouched": True}, "same", math.nan),
        (THREE, [0.5, 0.6, math.nextafter(0.7, 1)], {}, "noise", 1),
        (THREE, [0.475, 0.575, 0.675], {"step": 1 / 40}, "noise", ONE_IMAGE),
        (THREE, [0.2, 0.3, 0.4], {"step": 1 / 40}, "worse", None),
        (THREE, [v - 1e-7 for v in THREE], {}, "noise", None),  # sums in another order
        ([0.5, 0.6], [0.6, 0.7], {}, "better", None),
        # one seed that differs
        *[([0.5] * n, [0.5] * (n - 1) + [0.1], {}, "noise", 2 * stats.t.sf(1, n - 1)) for n in (2, 3, 20)],
    ],
)
def test_what_a_change_is(a, b, options, kind, p):
    change = judged(a, b, **options)
    assert change.kind == kind and change.paired
    assert p is None or change.p_value == pytest.approx(p, nan_ok=True)
    assert (change.difference.low == -math.inf) == (kind in ("single", "same"))


def test_a_tie_of_one_common_seed_hides_no_other_run():
    """Seed 0 gave the same accuracy by chance, with another loss; all other seeds are far lower."""
    a, b = [0.90, 0.91, 0.92, 0.90, 0.91], [0.90, 0.50, 0.51, 0.52, 0.49]
    there = [record(seed=s, figures=((v,),)) for s, v in zip((0, 15, 16, 17, 18), b, strict=True)]
    changes = compare_runs(QUICK, runs(a), there)
    assert {(c.runs, c.paired, c.kind) for c in changes.figures} == {((5, 5), False, "worse")}
    assert changes.figures[0].p_value == pytest.approx(stats.ttest_ind(a, b).pvalue)
    same = compare_runs(QUICK, runs([0.90, 0.91]), runs([0.90]))  # as far as both go
    assert {(c.kind, c.runs) for c in same.figures} == {("same", (1, 1))} and not same.regression


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
    drawn = [draw(rng, seeds, 20) for _ in range(300)]
    alarms = [any(c.kind == "worse" for c in changes) for changes in drawn]
    assert np.mean(alarms) <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 300)  # one side of 5 %
    assert np.mean([min(c.p_value for c in changes) < 0.05 for changes in drawn]) > 0.4  # without the correction


RISING = "q1_3 q1_c8 q1_1 q1_2 q1_5 q1_6 q1_8 q2_1b q2_1a q2_n1b q2_3 q2_c3 q2_n1a"


def study(rng, seeds):
    """Runs of every row, 3 SD above the row before, so that many claims are supported here and there by chance."""
    return [
        record(row, s, (rng.normal(0.2 + 3 * SD * i, SD, 1 if row.startswith("q1") else 4),), rng.random())
        for i, row in enumerate(RISING.split())
        for s in seeds
    ]


@pytest.mark.parametrize(("seeds", "others"), [(3, 0), later(3, 50), later(5, 0)])
def test_whole_comparisons_raise_a_false_alarm_in_five_percent(seeds, others):
    rng = np.random.default_rng(seeds + others)
    a = [compare_runs(QUICK, study(rng, range(seeds)), study(rng, range(others, others + seeds))) for _ in range(100)]
    assert sum(len(c.claims_of("undecided")) for c in a) > 10  # there was something to lose
    assert np.mean([c.regression for c in a]) <= 0.05


@pytest.mark.parametrize(
    ("seeds", "figures", "least", "most"),
    [(3, 2, 0.65, 0.85), (5, 2, 0.99, 1), (3, 40, 0, 0.15), (5, 40, 0.5, 0.85), (10, 40, 0.99, 1)],
)
def test_a_drop_of_three_sd_is_found_in_most(seeds, figures, least, most):
    rng = np.random.default_rng(2)
    drawn = [draw(rng, seeds, figures, drop=3)[:2] for _ in range(300 if figures < 9 else 60)]
    assert least <= np.mean([any(c.kind == "worse" for c in changes) for changes in drawn]) <= most


def test_rows_that_did_not_change_cost_nothing():
    """A row that repeats to the bit is not among the figures that p is corrected for."""
    a = [0.80, 0.81, 0.79, 0.80, 0.82]
    b = [0.77, 0.79, 0.755, 0.775, 0.785]
    others = [r for row in ("q1_1", "q1_3", "q1_5", "q1_6", "q1_8") for r in runs(a, row)]
    changes = compare_runs(QUICK, [*others, *runs(a)], [*others, *runs(b)])
    moved = [c for c in changes.figures if c.row == "q1_2-finetune"]
    assert [c.adjusted_p for c in moved] == [pytest.approx(2 * c.p_value) for c in moved]
    assert {c.kind for c in moved} == {"worse"} and len(changes.of("same")) == 10
    assert all(math.isnan(c.adjusted_p) for c in changes.of("same"))
    # equal by chance, in runs that are others: counted
    chance = compare_runs(QUICK, runs(a), [replace(r, epochs=[replace(r.epochs[0], loss=0.1)]) for r in runs(a)])
    assert {(c.kind, c.adjusted_p) for c in chance.figures} == {("noise", 1.0)}


# Stores


def test_figures_are_of_the_latest_runs_on_data_of_one_name():
    old = runs([0.1, 0.2, 0.3], configuration="a" * 64, started="2020-01-01T00:00:00+00:00")
    elsewhere = [replace(r, data=replace(r.data, name="hymenoptera")) for r in runs([0.1, 0.1])]
    corrupted = [replace(r, row="q1_6x-no_pretraining") for r in runs([0.5, 0.6])]  # on purpose: passed over
    new = runs([0.8, 0.9, 0.7])
    changes = compare_runs(QUICK, [*old, *new, *corrupted], [*new, *elsewhere, *corrupted])
    assert [(c.row, c.figure, c.kind) for c in changes.figures] == [
        ("q1_2-finetune", "best accuracy", "same"),
        ("q1_2-finetune", "last accuracy", "same"),
    ]
    assert changes.only_b == [("q1_2-finetune", "hymenoptera")] and changes.only_a == []
    assert not changes.regression and changes.origins == []


def test_best_and_last_epochs_of_every_metric_are_compared():
    a = [record("q2_1a", seed=s, figures=((0.5, 0.8, 0.4, 0.9), (0.4, 0.7, 0.3, 0.8))) for s in (0, 1)]
    figures = compare_runs(QUICK, a, a).figures
    metrics = ("miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy")
    assert [c.figure for c in figures] == [f"{which} {m}" for m in metrics for which in ("best", "last")]
    assert [c.a for c in figures[:2]] == [0.5, 0.4]


def own(values, name="balanced"):
    """Runs with an own metric beside the accuracy."""
    made = zip(runs([0.8, 0.9, 0.7]), values, strict=True)
    return [changed for r, v in made for changed in with_figures([r], lambda figures, v=v: figures | {name: v})]


def test_an_own_metric_of_classification_is_known_to_one_image():
    """As claims take it: three equal falls by one of 400 images may be chance."""
    a, b = own([0.5, 0.6, 0.7]), own([0.4975, 0.5975, 0.6975])
    assert {r.data.val for r in a} == {400}
    moved = [c for c in compare_runs(QUICK, a, b).figures if c.figure.endswith("balanced")]
    assert [(c.p_value, c.kind) for c in moved] == [(pytest.approx(ONE_IMAGE), "noise")] * 2


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
    b = with_figures(a, lambda _: {"accuracy": math.nan})
    changes = compare_runs(QUICK, [*a, *other], [*b, *other])
    assert claim(changes).kind == "only A" and len(changes.gaps) == 2


def test_rows_that_b_lacks_are_a_regression_of_what_must_be_complete():
    a = [*runs([0.8, 0.9]), *runs([0.8, 0.9], "q1_1")]
    assert not compare_runs(QUICK, a, a[:2]).regression and not compare_runs(QUICK, a[:2], a, complete=True).regression
    assert compare_runs(QUICK, a, a[:2], complete=True).regression


def test_what_differs_between_the_sides_is_told():
    a = runs([0.8, 0.9])
    environment = a[0].environment | {"torch": "2.16.0", "commit": "def", "threads": 4, "code": "c" * 64}
    settings = a[0].settings | {"recipe": a[0].settings["recipe"] | {"lr": 0.5}}
    b = runs([0.8, 0.9], configuration="b" * 64, environment=environment, settings=settings)
    b = [replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in b]
    changes = compare_runs(QUICK, a, b)
    assert {o.what: (o.a, o.b) for o in changes.origins} == {
        "data": ("d" * 8, "f" * 8),
        "recipe.lr": ("0.01", "0.5"),
        "torch": ("2.15.0", "2.16.0"),
        "threads": ("2", "4"),
        "code": ("abc", "def"),
    }
    assert {o.rows for o in changes.origins} == {("q1_2-finetune",)}
    assert changes.times == []  # nothing to learn from other settings and threads
    (only,) = compare_runs(QUICK, a, runs([0.8, 0.9], configuration="b" * 64)).origins
    assert (only.what, only.a, only.b) == ("code", "abc", "abc")  # what else could it be


SURE = [0.90, 0.91, 0.92, 0.90, 0.91], [0.80, 0.80, 0.81, 0.81, 0.80]


def claim(changes):
    return next(c for c in changes.claims if c.claim == "q1_4-finetune_above_features")


def pair(better, worse):
    return [*runs(better), *runs(worse, "q1_1")]


A = pair(*SURE)
WIDE = pair([0.90, 0.86, 0.92, 0.87, 0.91], [0.80, 0.82, 0.81, 0.81, 0.80])
NEAR = pair([0.84, 0.805, 0.83, 0.85, 0.81], [0.80] * 5)
# Either row moved a little the wrong way, which is noise; what is between them is gone.
FELL = pair([0.955, 0.765, 0.95, 0.765, 0.875], [0.925, 0.765, 0.915, 0.785, 0.855])
OPEN = pair([0.90, 0.78, 0.92, 0.75, 0.91], SURE[1])
BESIDE = [*runs([0.5, 0.6, 0.4, 0.5, 0.6], "q2_1a"), *runs([0.5, 0.4, 0.6, 0.6, 0.4], "q2_1b")]
TURNED = pair([0.80, 0.81], [0.90, 0.91])
ROUNDED = [pair([v - fall for v in (0.80, 0.82, 0.84, 0.86, 0.88)], [0.80] * 5) for fall in (0.0, 0.0014)]


@pytest.mark.parametrize(
    ("a", "b", "verdicts", "kind", "regression"),
    [
        (A, FELL, ("supported", "undecided"), "lost", True),
        (A, OPEN, ("supported", "undecided"), "undecided", False),
        (OPEN, A, ("undecided", "supported"), "changed", False),
        (A, A, ("supported", "supported"), "same", False),
        (A, OPEN[:5], ("supported", "not judged"), "only A", False),
        # another claim, judged beside it, raises its p over 5 %; it is not what became worse
        (NEAR, [*NEAR, *BESIDE], ("supported", "undecided"), "correction", False),
        # fewer seeds lose no claim, unless they contradict it
        (WIDE, [r for r in WIDE if r.seed < 2], ("supported", "undecided"), "undecided", False),
        (WIDE, TURNED, ("supported", "contradicted"), "lost", True),
        # a fall of half an image is no more than the rounding of the four figures that it is made of
        (ROUNDED[0], ROUNDED[1], ("supported", "undecided"), "undecided", False),
    ],
)
def test_what_became_of_a_claim(a, b, verdicts, kind, regression):
    changes = compare_runs(QUICK, a, b)
    assert tuple(o.verdict if o else "not judged" for o in (claim(changes).a, claim(changes).b)) == verdicts
    assert claim(changes).kind == kind and changes.regression == regression


def test_a_claim_that_is_merely_undecided_now_is_on_the_pages():
    changes = compare_runs(QUICK, A, OPEN)
    assert headline(changes).endswith("; 1 claim no longer decided")
    assert "no longer decided" in comment(changes, "a", "b").split("<details>")[0]
    fell = claim(compare_runs(QUICK, A, FELL))
    assert not compare_runs(QUICK, A, FELL).of("worse")
    assert stats.ttest_rel(fell.b.differences, fell.a.differences).pvalue < 0.05


def failure(seed=0):
    return tiny.failure(record("q1_3", seed))


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
    made = zip(runs([0.8, 0.9, 0.7], **changes), seconds, strict=True)
    return [replace(r, times=replace(r.times, train_seconds=s)) for r, s in made]


@pytest.mark.parametrize(
    ("a", "b", "limit", "regression"),
    [
        (10, (20, 20.1, 19.9), None, False),
        (10, (20, 20.1, 19.9), 1.5, True),
        (10, (20, 20.1, 19.9), 2, False),
        (10, (20, 40, 12), 1.2, False),
        (20, (10, 10.1, 9.9), 1.2, False),
    ],
)
def test_slower_counts_with_a_limit_that_the_whole_interval_exceeds(a, b, limit, regression):
    changes = compare_runs(QUICK, timed([a, a + 0.1, a - 0.1]), timed(b), time_limit=limit)
    assert changes.regression == regression


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
    assert "contradicted, or undecided or equivalent with a difference that fell" in page
    real = [replace(r, data=replace(r.data, embedded=False)) for r in runs([0.91, 0.92, 0.93], "q1_8")]
    assert "(0.920, n 3)" in comment(compare_runs(QUICK, real, real), "a", "b")  # a figure itself, no difference
    assert "q1_5-features" in folded and folded.count("<details>") + 1 == folded.count("</details>")
    assert headline(compare_runs(QUICK, [], [])) == "no figure to compare"
    assert headline(compare_runs(QUICK, a[:3], [])) == "no figure to compare; 1 row only in A"


def test_names_are_escaped():
    evil = "<img src=x>|`*[a](http://b)\x1b[31m\n# big"

    def of(values):
        return [replace(r, data=replace(r.data, name=evil)) for r in runs(values)]

    changes = compare_runs(QUICK, of([0.9, 0.91, 0.92]), of([0.3, 0.31, 0.32]), [], [replace(failure(), reason=evil)])
    page = comment(changes, "`<b>x", evil)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert not any(x in html for x in ("<img", "<b>", "<a ", "<h1")) and "\x1b" not in page
    assert html.count("<tr>") == page.count("\n| ") - page.count("\n| ---")


def test_a_page_has_room_in_a_comment_whatever_the_size():
    many = [replace(r, row=f"q1_m{i}-{'x' * 150}") for i in range(300) for r in runs([0.5, 0.6, 0.7, 0.65])]
    other = with_figures(many, lambda figures: {"accuracy": figures["accuracy"] - 0.3})
    lost = [replace(failure(s), reason="y" * 5000) for s in range(400)]
    page = comment(compare_runs(QUICK, [*many, *runs([0.1, 0.2])], other, [], lost), "a" * 9000, "b")
    assert len(page) < 60_000 and page.startswith("**600 figures worse; 400 runs failed; 1 row only in A**\n")
    assert "more, not shown." in page
    assert "not shown" not in comment(compare_runs(QUICK, runs([0.5, 0.6]), runs([0.5, 0.6])), "a", "b")
