"""Comparisons over seeds, published single runs, and power: against scipy, hand-worked cases, properties."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cvhw4.statistics.comparison import (
    compare,
    equivalence_p_values,
    holm,
    rounding_sd,
    spread,
    step_of,
    t_p_values,
    verdict_of,
)
from cvhw4.statistics.images import Combined, combine
from cvhw4.statistics.intervals import Estimate, estimate, hall_inverse, hall_transform, skewness
from cvhw4.statistics.power import power, smallest_effect
from cvhw4.statistics.published import binomial_comparison

pytestmark = pytest.mark.filterwarnings("error")
BETTER, WORSE = [0.80, 0.90, 0.70, 0.85], [0.75, 0.86, 0.69, 0.84]
FIGURES = st.integers(0, 400).map(lambda right: right / 400)
FEW = st.lists(st.tuples(FIGURES, FIGURES), min_size=2, max_size=14)
PAIRED = (FEW | st.lists(st.tuples(FIGURES, FIGURES), min_size=15, max_size=20)).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)
SKEWED = np.round(np.random.default_rng(3).exponential(0.02, 20), 4)  # many small differences and a few large ones
OTHERS = (0.01, 0.05, 0.02, 0.04, 0.09, 0.01)


@settings(deadline=None)
@given(PAIRED, st.sampled_from([0.0, 0.01, -0.25]))
def test_a_comparison_of_few_seeds_is_scipys(pair, margin):
    better, worse = map(np.array, pair)
    c = compare(better, worse, margin)
    assert c.difference == estimate(np.round(better - worse, 12).tolist()) and c.margin == margin
    assert c.skewness == 0 or len(better) > 14
    if c.difference.sd > 1e-9:
        p = stats.ttest_rel(better, worse + margin).pvalue
        assert c.p_value == pytest.approx(p, rel=1e-6) if len(better) < 15 else c.p_value >= p * (1 - 1e-6)


@pytest.mark.parametrize("way", [1, -1])
def test_the_skewness_of_many_differences_counts_by_hand(way):
    values, n = way * SKEWED, len(SKEWED)
    c, g = compare(values, None, smallest=0.05), stats.skew(values, bias=False)
    assert c.skewness == pytest.approx(g) and way * g > 1

    def least(mean, g, sd):
        x = mean / sd
        hall = math.sqrt(n) * (x + g * x**2 / 3 + g**2 * x**3 / 27 + g / (6 * n))  # Hall (1992), formula 2.2
        return min(abs(hall), math.sqrt(n) * abs(x))

    sd = values.std(ddof=1)
    assert c.p_value == pytest.approx(2 * stats.t.sf(least(values.mean(), g, sd), n - 1))
    far = max(stats.t.sf(least(values.mean() + end, g, sd), n - 1) for end in (0.05, -0.05))
    assert c.equivalence_p == pytest.approx(far)
    coarse, floor = compare(values, None, resolution=0.2), 0.2 / math.sqrt(12)  # more than the spread seen
    third = g * (sd / floor) ** 3
    assert coarse.skewness == pytest.approx(third)
    assert coarse.p_value == pytest.approx(2 * stats.t.sf(least(values.mean(), third, floor), n - 1))
    # A tail to one side: the mean may well be farther on that side than Student's interval reaches, not on the other.
    ends = np.sort(way * np.array([c.difference.low, c.difference.high]))
    student = np.sort(way * np.array(stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))))
    assert ends[0] == pytest.approx(student[0]) and ends[1] > student[1] + 0.001
    assert t_p_values(values, way * ends[1]) == pytest.approx(0.05)
    pooled = compare(values, None, others=values[:10])  # the spread is of other seeds as well
    assert pooled.skewness == 0
    assert pooled.p_value == pytest.approx(2 * stats.t.sf(abs(values.mean()) / pooled.sd * math.sqrt(n), 28))


def test_hall_turned_around():
    t, g = np.meshgrid(np.linspace(-6, 6, 13), [-3.0, -0.5, 0.0, 1e-9, 2.0])
    assert hall_inverse(hall_transform(t, g, 20), g, 20) == pytest.approx(t, abs=1e-6)
    assert (np.diff(hall_transform(t, g, 20)) >= 0).all()
    assert skewness([[0.3] * 20], [0.0]).tolist() == [0.0]


def test_skewed_differences_are_decided_wrongly_in_5_percent():
    draws = np.random.default_rng(4).lognormal(0.0, 0.6, (4000, 20)) - math.exp(0.18)
    student = stats.ttest_1samp(draws, 0.0, axis=-1).pvalue
    assert (student < 0.05).mean() > 0.07 and (t_p_values(draws) < 0.05).mean() < 0.055


def test_the_spread_of_other_seeds_is_pooled():
    c = compare(BETTER, WORSE, others=OTHERS)
    own, theirs = np.subtract(BETTER, WORSE).var(ddof=1), np.var(OTHERS, ddof=1)
    pooled = math.sqrt((3 * own + 5 * theirs) / 8)
    assert c.freedom == 8 and c.sd == pytest.approx(pooled)
    assert c.p_value == pytest.approx(2 * stats.t.sf(c.difference.mean / pooled * 2, 8))
    assert c.difference.high - c.difference.mean == pytest.approx(stats.t.ppf(0.975, 8) * pooled / 2)
    assert c.difference.sd == pytest.approx(math.sqrt(own))  # the one seen
    assert compare(BETTER, WORSE, others=[x + 5 for x in OTHERS]).p_value == pytest.approx(c.p_value)
    assert compare(BETTER, WORSE, others=OTHERS[:4]).freedom == 3  # too few
    assert math.isnan(compare([0.9], [0.8], others=OTHERS).p_value)


def test_a_spread_that_others_do_not_explain_counts_alone():
    own = [0.0, 0.5, -0.5]  # F = 0.25 / 0.00092, and 1 % of normal ones have more than 13.3
    assert compare(own, None, smallest=1.0, others=OTHERS) == compare(own, None, smallest=1.0)
    mean, sd, freedom = spread([own, [0.0, 0.01, 0.02]], others=[OTHERS, OTHERS])
    assert mean == pytest.approx([0.0, 0.01]) and freedom.tolist() == [2, 7] and sd[0] == 0.5 > sd[1]
    most = math.sqrt(stats.f.ppf(0.9, 2, 5) * np.var(OTHERS, ddof=1))  # which one in ten exceeds
    assert [int(spread([-x, 0.0, x], others=OTHERS)[2]) for x in (0.999 * most, 1.001 * most)] == [7, 2]


@settings(deadline=None)
@given(PAIRED, st.sampled_from([0.0, 0.01]), st.sampled_from([0.0, 1 / 400]), st.sampled_from([(), OTHERS]))
def test_test_and_interval_agree(pair, margin, resolution, others):
    c = compare(*pair, margin, resolution=resolution, others=others)
    if abs(c.p_value - 0.05) > 1e-6 and (c.difference.sd > 1e-9 or resolution):
        decided = c.difference.low > margin or c.difference.high < margin
        assert (verdict_of(c, c.p_value) != "undecided") == decided


@settings(deadline=None)
@given(PAIRED)
def test_turned_around_everything_turns(pair):
    there, back = compare(*pair, 0.01, smallest=0.02), compare(*pair[::-1], -0.01, smallest=0.02)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.equivalence_p == pytest.approx(back.equivalence_p)


def test_many_tests_at_once_are_the_single_ones():
    values = np.random.default_rng(0).normal(0.1, 1, (50, 4, 6))
    margins = np.array([0.0, 0.1, -0.5, 2.0])
    single = stats.ttest_1samp(values - margins[:, None], 0.0, axis=-1).pvalue
    assert t_p_values(values, margins) == pytest.approx(single)
    assert t_p_values(values[0, 0]) == pytest.approx(compare(values[0, 0], None).p_value)


def test_one_seed_decides_nothing():
    c = compare([0.9], [0.5], smallest=1.0)
    assert (c.difference.n, c.difference.low) == (1, -math.inf)
    assert all(math.isnan(x) for x in (c.p_value, c.equivalence_p, c.sd))
    assert verdict_of(c, c.p_value, c.equivalence_p) == "undecided"
    for values, problem in (([], "at least"), ([0.9, math.nan], "finite")):
        with pytest.raises(ValueError, match=problem):
            compare(values, None)


@pytest.mark.parametrize("better", [[0.8, 0.9, 0.7], [0.4, 0.5, 0.6]])
def test_equal_differences(better):
    worse = [b - 0.1 for b in better]
    above, at = compare(better, worse), compare(better, worse, 0.1)
    assert (above.p_value, at.p_value) == (0.0, 1.0)
    assert verdict_of(above, 0.0) == "supported" and verdict_of(at, 0.0) == "undecided"


def test_a_known_resolution_leaves_equal_differences_a_spread():
    c = compare([0.8, 0.9, 0.7], [0.75, 0.85, 0.65], resolution=1 / 80)
    floor = math.sqrt(2 / 12) / 80
    assert rounding_sd(1 / 80) == pytest.approx(floor)
    assert c.p_value == pytest.approx(2 * stats.t.sf(0.05 / floor * math.sqrt(3), 2))
    assert (c.difference.low, c.difference.high) == pytest.approx(stats.t.interval(0.95, 2, 0.05, floor / math.sqrt(3)))
    assert c.difference.sd == pytest.approx(0, abs=1e-12)
    assert c.sd == pytest.approx(floor)
    # a spread above the floor is left alone
    same = compare(BETTER, WORSE, resolution=1 / 400, smallest=0.01)
    assert same == compare(BETTER, WORSE, smallest=0.01)
    assert rounding_sd(1 / 80, figures=1) == pytest.approx(1 / 80 / math.sqrt(12))


@pytest.mark.parametrize(
    ("figures", "step"),
    [
        ([0.82, 0.8], 0.01),
        (np.float32([0.82, 0.8]), 0.01),
        ([81.5, 80.0], 0.1),
        ([12.0, 10.0, -3.0], 1.0),
        ([0.8125, 0.5], 1 / 16),
        ([0.8231, 0.8049], 1e-4),
        ([137 / 153, 140 / 153, 133 / 153], 1 / 153),
        (np.float32([100 * 137 / 153, 100 * 140 / 153]), 100 / 153),
        ([-3 / 400, 0.0, 0.0125], 1 / 400),
        ([math.pi / 4, math.e / 3, math.sqrt(0.5)], 0.0),
        ([0.123456, 0.654321, 0.271828], 1e-6),
        ([0.1234567, 0.7654321, 0.2718283], 0.0),
    ],
)
def test_the_step_that_figures_come_in(figures, step):
    assert step_of(figures) == pytest.approx(step, rel=1e-12, abs=0)


# Power


def test_power_is_what_simulation_gives():
    assert power(0.0, 5) == pytest.approx(0.025)
    # a two-sided test is decided for either side by the noncentral F distribution
    assert power(1.0, 10) == pytest.approx(stats.ncf.sf(stats.f.isf(0.05, 1, 9), 1, 9, 10), abs=1e-5)
    for n, effect in ((10, 1.0), (20, 0.7)):
        draws = np.random.default_rng(2).normal(effect, 1.0, (20_000, n))
        assert power(effect, n) == pytest.approx((t_p_values(draws) < 0.05).mean(), abs=0.01)


# Cohen (1988), one sample, two-sided 5 %, power 0.9: d = 0.5 needs 44 seeds; G*Power gives 13 for d = 1. From 15 seeds
# on the test counts their skewness, which takes one seed more.
@pytest.mark.parametrize(("effect", "seeds", "more"), [(0.5, 44, 1), (1.0, 13, 0)])
def test_the_smallest_effect_from_the_tables(effect, seeds, more):
    assert smallest_effect(seeds + more) <= effect < smallest_effect(seeds + more - 1)
    assert smallest_effect(seeds, freedom=1000) < effect  # of a spread that is known
    assert power(smallest_effect(20, 0.01), 20, 0.01) == pytest.approx(0.9, abs=1e-4)
    assert smallest_effect(101) == pytest.approx(smallest_effect(100), rel=0.01)


# Claims judged together


def test_holm_by_hand():
    # two families: 0.01 * 2 and 0.03; 0.5 * 2, and 0.6 raised to the one before
    assert holm([[0.03, 0.01], [0.5, 0.6]]) == pytest.approx(np.array([[0.03, 0.02], [1, 1]]))
    # NaN is no claim: two are left
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[::2] == pytest.approx([0.04, 0.04]) and math.isnan(adjusted[1])
    assert holm([]).tolist() == [] and math.isnan(holm([math.nan])[0])


def test_holm_as_published():
    """SAS/STAT User's Guide, The MULTTEST Procedure, "Inputting Raw p-Values": Stepdown Bonferroni."""
    raw = [
        *(0.28282, 0.30688, 0.71022, 0.77175, 0.78180, 0.88581, 0.54685, 0.84978, 0.24228, 0.58977, 0.03498, 0.41607),
        *(0.31631, 0.05254, 0.45061, 0.75758, 0.12496, 0.49485, 0.21572, 0.50505, 0.94372, 0.81260, 0.77596, 0.36889),
    ]
    assert [round(p, 4) for p in holm(raw)] == [1.0] * 10 + [0.8395] + [1.0] * 13
    # Abdi (2010), Holm's sequential Bonferroni procedure, in Salkind's Encyclopedia of Research Design, Sage
    assert holm([0.000040, 0.016100, 0.612300]) == pytest.approx([0.000120, 0.032200, 0.612300])


def test_verdicts():
    above, below = compare(BETTER, WORSE), compare(WORSE, BETTER)
    assert [verdict_of(above, p) for p in (0.049, 0.05, math.nan)] == ["supported", "undecided", "undecided"]
    assert verdict_of(below, 0.01) == "contradicted" and math.isnan(below.equivalence_p)
    assert verdict_of(compare(BETTER, WORSE, 0.2), 0.01) == "contradicted"
    assert [verdict_of(above, 0.01, q) for q in (0.049, 0.05, math.nan)] == ["equivalent", "supported", "supported"]


# Equivalence


@settings(deadline=None)
@given(st.lists(FIGURES, min_size=2, max_size=8), st.floats(0.01, 0.5), st.sampled_from([0.0, 0.3]))
def test_equivalence_is_scipys_two_one_sided_tests(values, smallest, margin):
    c = compare(values, None, margin, smallest=smallest)
    if c.difference.sd > 1e-9:
        low = stats.ttest_1samp(values, margin - smallest, alternative="greater").pvalue
        high = stats.ttest_1samp(values, margin + smallest, alternative="less").pvalue
        assert c.equivalence_p == pytest.approx(max(low, high), rel=1e-6)


def test_equivalence_without_spread_and_with_a_known_resolution():
    assert compare([0.01] * 3, None, smallest=0.02).equivalence_p == 0
    assert compare([0.02] * 3, None, smallest=0.02).equivalence_p == 1
    assert compare([0.03] * 3, None, smallest=0.02).equivalence_p == 1
    known = compare([0.01] * 3, None, smallest=0.02, resolution=0.005)
    assert known.equivalence_p == pytest.approx(stats.t.sf(0.01 / rounding_sd(0.005, 1) * math.sqrt(3), 2))


@pytest.mark.parametrize("seeds", [3, 20])
def test_a_difference_as_large_as_the_smallest_is_called_equivalent_in_5_percent(seeds):
    values = np.random.default_rng(seeds).normal(1.0, 0.2, (4000, seeds))
    share = (equivalence_p_values(values, 0.0, 1.0) < 0.05).mean()
    assert share == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 4000))


# Seeds and images together


def test_seeds_alone_give_the_interval_of_the_seeds():
    values = [0.05, 0.04, 0.01, 0.01]
    e = estimate(values)
    c = combine(e.mean, e.sd, e.n, 0.0, 79)
    assert (c.estimate.low, c.estimate.high, c.freedom) == pytest.approx((e.low, e.high, 3))
    assert c.p_value(0.02) == pytest.approx(stats.ttest_1samp(values, 0.02).pvalue)
    assert combine(e.mean, e.sd, e.n, -0.1, 79) == c  # an estimate of a variance below 0


def test_two_sources_are_welchs():
    # Welch's two-sample test is a difference whose squared errors add up with these degrees of freedom
    a, b = np.array([0.9, 0.85, 0.8, 0.95]), np.array([0.7, 0.6, 0.9, 0.5, 0.65, 0.8])
    c = combine(a.mean() - b.mean(), a.std(ddof=1), 4, b.var(ddof=1) / 6, 5)
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert c.seed_error == pytest.approx(a.std(ddof=1) / 2)
    interval = welch.confidence_interval(0.95)
    assert c.freedom == pytest.approx(welch.df) and c.p_value() == pytest.approx(welch.pvalue)
    assert (c.estimate.low, c.estimate.high) == pytest.approx((interval.low, interval.high))
    assert c.estimate.n == 4 and c.estimate.sd == pytest.approx(a.std(ddof=1))


@given(st.floats(0, 1), st.integers(2, 10), st.floats(0, 1), st.integers(1, 400))
def test_two_sources_are_never_surer_than_the_seeds_of_their_error(sd, n, variance, freedom):
    c = combine(0.1, sd, n, variance, freedom)
    assert c.standard_error**2 == pytest.approx(sd**2 / n + variance)
    assert min(n - 1, freedom) <= c.freedom <= (n - 1 + freedom) * (1 + 1e-9)
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)
    assert c.estimate.low <= 0.1 - half * (1 - 1e-9) and c.estimate.high >= 0.1 + half * (1 - 1e-9)
    assert c.p_value() >= 2 * stats.t.sf(0.1 / (sd / math.sqrt(n)), n - 1) - 1e-12 if sd > 1e-9 else True


@pytest.mark.parametrize("way", [1, -1])
def test_two_sources_of_skewed_seeds(way):
    c = compare(way * SKEWED, None)
    seeds = combine(c.difference.mean, c.sd, 20, 0.0, 79, c.freedom, c.skewness)
    assert (seeds.estimate.low, seeds.estimate.high) == pytest.approx((c.difference.low, c.difference.high))
    assert seeds.p_value(way * 0.01) == pytest.approx(float(t_p_values(way * SKEWED, way * 0.01)))
    both = combine(c.difference.mean, c.sd, 20, c.sd**2 / 5, 79, c.freedom, c.skewness)  # of the images four fifths
    student = combine(c.difference.mean, c.sd, 20, c.sd**2 / 5, 79)
    # the mean has a fifth of its variance, so 0.2 ** 1.5 of its skewness, from the seeds
    far = hall_inverse(-way * stats.t.ppf(0.975, both.freedom), 0.2**1.5 * c.skewness, 20) * both.standard_error
    ends, before, seeds = ([way * e.low, way * e.high][::way] for e in (both.estimate, student.estimate, c.difference))
    assert ends[0] == pytest.approx(before[0]) and ends[0] < seeds[0] and ends[1] > max(before[1], seeds[1])
    assert ends[1] == pytest.approx(way * c.difference.mean + abs(far))
    for end in (both.estimate.low, both.estimate.high):
        assert both.p_value(end) == pytest.approx(0.05)


def test_two_sources_at_their_ends():
    one = combine(0.1, math.nan, 1, 0.001, 79)
    assert (one.estimate.low, one.estimate.high) == (-math.inf, math.inf) and math.isnan(one.p_value())
    none = combine(0.1, 0.0, 3, 0.0, 79)
    assert (none.p_value(), none.p_value(0.1), none.freedom) == (0.0, 1.0, 2)
    known = combine(0.1, 0.0, 3, 0.01, math.inf)
    assert known.freedom == math.inf and known.p_value() == pytest.approx(2 * stats.norm.sf(1))
    assert Combined(Estimate(3, 0.1, 0.0, 0.1, 0.1), 0.0, 2).p_value(0.2) == 0.0
    for n, freedom in ((0, 79), (3, 0), (3, math.nan)):
        with pytest.raises(ValueError, match="degree of freedom"):
            combine(0.1, 0.1, n, 0.1, freedom)


# Published single runs


def test_single_runs_by_hand():
    # Wilson: 0.9 of 100 is [0.82563, 0.94477], 0.8 [0.71117, 0.86663]
    below, above = math.hypot(0.9 - 0.82563, 0.86663 - 0.8), math.hypot(0.94477 - 0.9, 0.8 - 0.71117)
    c = binomial_comparison(0.9, 0.8, 100)
    assert (c.difference, c.low, c.high) == pytest.approx((0.1, 0.1 - below, 0.1 + above), abs=1e-5)
    assert c.p_value == pytest.approx(2 * stats.norm.sf(0.1 / below * 1.959964), rel=1e-3)
    assert binomial_comparison(0.9, 0.8, 100, 0.1).p_value == pytest.approx(1)
    assert binomial_comparison(0.8, 0.9, 100).p_value == pytest.approx(c.p_value)


@pytest.mark.parametrize(
    ("better", "worse", "images", "interval"),
    [
        (9, 3, 10, (0.1705, 0.8090)),
        (6, 2, 7, (0.0582, 0.8062)),
        (0, 0, 10, (-0.2775, 0.2775)),
        (10, 0, 10, (0.6075, 1)),
    ],
)
def test_single_runs_as_published(better, worse, images, interval):
    """Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in Medicine
    17, 873-890, table II: method 10. The test is the interval turned around."""
    figures = better / images, worse / images, images
    c = binomial_comparison(*figures)
    assert (round(c.low, 4), round(c.high, 4)) == interval
    for end in {c.low, c.high} - {1.0}:
        assert binomial_comparison(*figures, end).p_value == pytest.approx(0.05)


def test_a_single_run_against_a_threshold_is_exact():
    c = binomial_comparison(0.914, None, 400, 0.895)
    exact = stats.binomtest(366, 400, 0.895)  # 365.6
    assert c.difference == 0.914 and c.p_value == exact.pvalue and (c.low, c.high) == tuple(exact.proportion_ci())
    assert c.low < 0.895 < c.high


def test_single_runs_that_are_all_right_may_be_wrong_about_other_images():
    # Wilson: 80 of 80 is [80 / (80 + 1.96^2), 1]
    reach = 1.959964**2 / (80 + 1.959964**2)
    c, one = binomial_comparison(1.0, 1.0, 80), binomial_comparison(1.0, None, 80, 0.99)
    assert (c.low, c.high, c.p_value) == pytest.approx((-reach, reach, 1)) and one.high == 1 > one.low > 0.95
    assert c.error == one.error == pytest.approx(reach / 1.959964) and c.p_with_seeds(0.0, 3) == pytest.approx(1)
    assert one.p_with_seeds(0.0, 3) == pytest.approx(2 * stats.norm.sf(0.01 / one.error))
    assert binomial_comparison(1.0, 0.0, 80, 1.0).p_value == binomial_comparison(1.0, None, 80, 1.0).p_value == 1


def test_single_runs_with_the_spread_over_seeds_by_hand():
    # error 0.05 from the images, 0.12 from the seed: 0.13 together, with 19 (0.13 / 0.12)^4 = 26.17 degrees of freedom
    c = replace(binomial_comparison(0.9, 0.8, 100), error=0.05)
    assert c.p_with_seeds(0.12, 20) == pytest.approx(2 * stats.t.sf(0.1 / 0.13, 19 * (13 / 12) ** 4))
    assert c.p_with_seeds(0.12, 20, redrawn=True) == pytest.approx(2 * stats.t.sf(0.1 / 0.12, 19))
    for how in (False, True):
        assert c.p_with_seeds(0.0, 20, redrawn=how) == pytest.approx(2 * stats.norm.sf(2))
    assert math.isnan(c.p_with_seeds(math.nan, 1))
