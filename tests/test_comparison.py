"""Comparisons over seeds, published single runs, and seeds to decide: against scipy, hand-worked cases, properties."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cvhw4.statistics.comparison import (
    _pairing,
    compare,
    hedges_factor,
    holm,
    holm_adjust,
    moments,
    pooled_pairing,
    rounding_sd,
    superiority_interval,
    t_p_values,
    verdict_of,
)
from cvhw4.statistics.images import Combined, combine
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.power import effect_interval, power, seeds_to_decide
from cvhw4.statistics.published import binomial_comparison

BETTER, WORSE = [0.80, 0.90, 0.70, 0.85], [0.75, 0.86, 0.69, 0.84]
FIGURES = st.integers(0, 400).map(lambda right: right / 400)
PAIRED = st.lists(st.tuples(FIGURES, FIGURES), min_size=2, max_size=12).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=15)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def seeds_needed(comparison):
    return seeds_to_decide(comparison)[0]


@settings(deadline=None)
@given(PAIRED, st.sampled_from([0.0, 0.01, -0.25]))
def test_a_comparison_is_scipys(pair, margin):
    better, worse = map(np.array, pair)
    c = compare(better, worse, margin)
    assert c.difference == estimate(np.round(better - worse, 12).tolist()) and c.margin == margin
    if c.difference.sd > 1e-9:
        assert c.p_value == pytest.approx(stats.ttest_rel(better, worse + margin).pvalue, rel=1e-6)
    if len({*better, *worse}) > 1 and margin == 0:
        u = stats.mannwhitneyu(better, worse, method="asymptotic").statistic
        assert c.superiority == pytest.approx(u / len(better) ** 2)
    if len(better) < 3 or len({*better}) == 1 or len({*worse}) == 1:
        assert math.isnan(c.correlation)
    else:
        assert c.correlation == pytest.approx(stats.pearsonr(better, worse).statistic)


@settings(deadline=None)
@given(PAIRED, st.sampled_from([0.0, 0.01]), st.sampled_from([0.0, 1 / 400]))
def test_test_and_interval_agree(pair, margin, resolution):
    c = compare(*pair, margin, resolution=resolution)
    if abs(c.p_value - 0.05) > 1e-6 and (c.difference.sd > 1e-9 or resolution):
        decided = c.difference.low > margin or c.difference.high < margin
        assert (verdict_of(c, c.p_value) != "undecided") == decided


@settings(deadline=None)
@given(PAIRED)
def test_turned_around_everything_turns(pair):
    there, back = compare(*pair, 0.01), compare(*pair[::-1], -0.01)
    assert there.p_value == pytest.approx(back.p_value) and there.permutation_p == pytest.approx(back.permutation_p)
    assert there.superiority == pytest.approx(1 - back.superiority)
    assert there.superiority_low == pytest.approx(1 - back.superiority_high)
    if len(pair[0]) > 2:
        assert there.effect == pytest.approx(-back.effect)
    assert 0 <= there.superiority_low <= there.superiority <= there.superiority_high <= 1


def test_many_tests_at_once_are_the_single_ones():
    values = np.random.default_rng(0).normal(0.1, 1, (50, 4, 6))
    margins = np.array([0.0, 0.1, -0.5, 2.0])
    single = stats.ttest_1samp(values - margins[:, None], 0.0, axis=-1).pvalue
    assert t_p_values(values, margins) == pytest.approx(single)
    assert t_p_values(values[0, 0]) == pytest.approx(compare(values[0, 0], None).p_value)


def test_a_hand_worked_comparison():
    # differences 0.05, 0.04, 0.01, 0.01: mean 0.0275, squares about it 506.25, 156.25, 306.25, 306.25 (1e-6),
    # variance 0.000425, sd 0.020616; t = 0.0275 / (0.020616 / 2) = 2.6679 with 3 degrees of freedom
    c = compare(BETTER, WORSE)
    assert c.difference.mean == pytest.approx(0.0275) and c.difference.sd == pytest.approx(math.sqrt(0.000425))
    assert c.p_value == pytest.approx(2 * stats.t.sf(2.6679, 3), abs=1e-5)
    # signs: all four differences are positive, so only the 2 of 16 flips that are all alike are as far from 0
    assert c.permutation_p == 2 / 16
    # 16 pairs: 0.80 beats 0.75, 0.69; 0.90 all four; 0.70 beats 0.69; 0.85 beats 0.75, 0.69, 0.84: 10
    assert c.superiority == 10 / 16
    # Hedges' factor with 3 degrees of freedom: gamma(1.5) / (sqrt(1.5) gamma(1)) = 0.8862 / 1.2247 = 0.7236
    assert c.effect == pytest.approx(0.7236 * 0.0275 / 0.020616, rel=1e-4)
    # variances: better 0.021875 / 3 = 0.00729167, worse 0.0189 / 3 = 0.0063, of the difference 0.000425
    assert c.pairing == pytest.approx((0.021875 + 0.0189) / 3 / 0.000425)
    # products about the means 0.8125 and 0.785: 0.0004375, 0.0065625, 0.0106875, 0.0020625, their sum 0.01975
    assert c.correlation == pytest.approx(0.01975 / math.sqrt(0.021875 * 0.0189))
    assert c.sd == c.difference.sd


def test_ties_count_half_however_they_round():
    assert compare([0.5, 0.6], [0.5, 0.6]).superiority == 0.5
    assert compare([0.9], [0.8], 0.1).superiority == 0.5  # 0.9 - 0.8 > 0.1 in floats
    assert compare([0.4], [0.3], 0.1).superiority == 0.5
    assert compare([0.5, 0.6, 0.7, 0.8], None, 0.6).superiority == (2 + 0.5) / 4


@pytest.mark.parametrize(("right", "n"), [(0, 3), (3, 3), (1, 1), (2, 5), (9, 10)])
def test_the_interval_of_superiority_is_wilsons(right, n):
    wilson = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert superiority_interval(right / n, n) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_interval_of_superiority_covers(n, shift, correlation):
    rng = np.random.default_rng(3)
    shared, better, worse = rng.standard_normal((3, 1500, n))
    r = math.sqrt(correlation), math.sqrt(1 - correlation)
    better, worse = r[0] * shared + r[1] * better + shift, r[0] * shared + r[1] * worse
    shares = (better[:, :, None] > worse[:, None, :]).mean((1, 2))
    truth = stats.norm.cdf(shift / math.sqrt(2))
    ends = [superiority_interval(share, n) for share in shares]
    assert np.mean([low <= truth <= high for low, high in ends]) > 0.94


def test_one_seed_decides_nothing_and_two_have_no_effect():
    c = compare([0.9], [0.5])
    assert (c.difference.n, c.difference.low, c.permutation_p, seeds_needed(c)) == (1, -math.inf, 1.0, None)
    assert all(math.isnan(x) for x in (c.p_value, c.effect, c.pairing, c.sd, c.correlation))
    assert (c.superiority, c.superiority_high) == (1, 1) and c.superiority_low == pytest.approx(0.2065, abs=1e-4)
    assert verdict_of(c, c.p_value) == "undecided"
    two = compare([0.9, 0.8], [0.5, 0.3])
    assert two.p_value == pytest.approx(stats.ttest_1samp([0.4, 0.5], 0).pvalue) and two.permutation_p == 0.5
    assert math.isnan(two.effect) and seeds_needed(two) == 3


@pytest.mark.parametrize("better", [[0.8, 0.9, 0.7], [0.4, 0.5, 0.6]])
def test_equal_differences(better):
    worse = [b - 0.1 for b in better]
    above, at = compare(better, worse), compare(better, worse, 0.1)
    assert (above.p_value, above.effect, seeds_needed(above)) == (0.0, math.inf, None)
    assert compare(worse, better).effect == -math.inf
    assert (at.p_value, at.permutation_p, at.effect, seeds_needed(at)) == (1.0, 1.0, 0.0, None)
    assert math.isnan(above.pairing)
    assert verdict_of(above, 0.0) == "supported" and verdict_of(at, 0.0) == "undecided"


def test_a_known_resolution_leaves_equal_differences_a_spread():
    c = compare([0.8, 0.9, 0.7], [0.75, 0.85, 0.65], resolution=1 / 80)
    floor = math.sqrt(2 / 12) / 80
    assert rounding_sd(1 / 80) == pytest.approx(floor)
    assert c.p_value == pytest.approx(2 * stats.t.sf(0.05 / floor * math.sqrt(3), 2))
    assert (c.difference.low, c.difference.high) == pytest.approx(stats.t.interval(0.95, 2, 0.05, floor / math.sqrt(3)))
    assert c.difference.sd == pytest.approx(0, abs=1e-12) and math.isfinite(c.effect)
    assert c.sd == pytest.approx(floor)
    # a spread above the floor is left alone
    assert compare(BETTER, WORSE, resolution=1 / 400) == compare(BETTER, WORSE)
    assert rounding_sd(1 / 80, figures=1) == pytest.approx(1 / 80 / math.sqrt(12))


def test_a_row_against_its_margin():
    figures = [0.91, 0.92, 0.90, 0.89]
    c = compare(figures, None, 0.895)
    assert c.difference == estimate(figures)
    assert c.p_value == pytest.approx(stats.ttest_1samp(figures, 0.895).pvalue)
    assert c.superiority == 0.75 and math.isnan(c.pairing) and math.isnan(c.correlation)


def test_permutations_beyond_count_are_drawn_the_same_each_time():
    values = np.random.default_rng(1).normal(0.02, 0.05, 20)
    first, second = compare(values, None), compare(values, None)
    assert first.permutation_p == second.permutation_p == pytest.approx(first.p_value, abs=0.03)


@settings(deadline=None)
@given(st.lists(FIGURES, min_size=2, max_size=6))
def test_permutations_are_all_sign_flips(values):
    v = np.array(values) - 0.5
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(v))).reshape(len(v), -1)
    sums = np.round((signs * v[:, None]).sum(0), 9)
    total = round(float(v.sum()), 9)
    expected = min(1.0, 2 * min((sums >= total).mean(), (sums <= total).mean()))
    assert compare(values, None, 0.5).permutation_p == pytest.approx(expected)


def test_hedges_factor():
    assert math.isnan(hedges_factor(1))
    for freedom in (2, 5, 50):
        # the noncentral t's mean is its shift over the factor
        assert hedges_factor(freedom) == pytest.approx(1 / stats.nct.mean(freedom, 1.0), rel=1e-6)
        assert hedges_factor(freedom) == pytest.approx(1 - 3 / (4 * freedom - 1), rel=0.08)


def test_pairing_pays_where_seeds_agree():
    random = np.random.default_rng(4)
    shared, a, b = random.normal(0, 1, (3, 5000))
    assert _pairing(a, b) == pytest.approx(1, abs=0.1)
    assert _pairing(shared + a, shared + b) == pytest.approx(2, abs=0.15)
    assert _pairing(shared + a, -shared + b) < 0.8


def test_pooled_pairing():
    rng = np.random.default_rng(5)
    rows = [rng.normal(0, 1, (3, 6)) for _ in range(4)]
    found = [compare(shared + a, shared + b) for shared, a, b in rows]
    logs = estimate([math.log(c.pairing) for c in found])
    pooled = pooled_pairing(found)
    assert pooled == pytest.approx((math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high)))
    nothing = [compare([0.5], [0.4]), compare([0.5, 0.6], [0.4, 0.5]), compare([0.5, 0.6], None)]
    assert pooled_pairing([*found, *nothing]) == pooled
    assert pooled_pairing([found[0]]) == (pytest.approx(found[0].pairing), 0.0, math.inf)
    assert all(math.isnan(x) for x in pooled_pairing(nothing))


@pytest.mark.parametrize(("better", "worse"), [([], []), ([0.1, 0.2], [0.1]), ([0.1, math.nan], [0.1, 0.2])])
def test_what_cannot_be_compared(better, worse):
    with pytest.raises(ValueError, match=r"needs (at least|two rows|finite)"):
        compare(better, worse)


def test_moments_without_spread_are_exact():
    mean, sd = moments([[0.1] * 3, [0.9 - 0.8, 0.4 - 0.3, 0.1]])
    assert mean.tolist() == [0.1, 0.1] and sd.tolist() == [0, 0]
    assert np.isnan(moments([[0.1]])[1]).all()


# Seeds to decide


def test_power_is_what_simulation_gives():
    assert power(0.0, 5) == pytest.approx(0.025)
    # a two-sided test is decided for either side by the noncentral F distribution
    assert power(1.0, 10) == pytest.approx(stats.ncf.sf(stats.f.isf(0.05, 1, 9), 1, 9, 10), abs=1e-5)
    draws = np.random.default_rng(2).normal(1.0, 1.0, (20_000, 10))
    assert power(1.0, 10) == pytest.approx((t_p_values(draws) < 0.05).mean(), abs=0.01)


@pytest.mark.parametrize("effect", [0.04, 0.1, 0.5, 1.0, 3.0, 7.5, 20.0, 1e9])
def test_the_seeds_needed_are_the_fewest(effect):
    n = seeds_needed(compare(np.array([-1.0, 0.0, 1.0]) + effect, None))  # standard deviation 1
    assert n is not None and power(effect, n) >= 0.9 and (n == 2 or power(effect, n - 1) < 0.9)


# Cohen (1988), one sample, two-sided 5 %, power 0.9: d = 0.5 needs 44; G*Power gives 13 for d = 1
@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 44), (1.0, 13), (0.03, None), (0.0, None)])
def test_seeds_needed_from_the_tables(effect, seeds):
    assert seeds_needed(compare(np.array([-1, 0, 1]) + effect, None)) == seeds


@pytest.mark.parametrize("effect", [0.0, 0.03, 0.3, -1.0, 3.0, 7.5, -20.0, 200.0, 1e7])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 60])
def test_the_interval_of_an_effect_is_the_noncentral_ts_turned_around(effect, n):
    low, high = effect_interval(effect, n)
    chi = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))

    def below(true):
        """P(t <= the one seen), of a normal over a chi, without scipy's noncentral t."""
        return stats.norm.cdf((effect * chi - true) * math.sqrt(n)).mean()

    assert below(low) == pytest.approx(0.975, abs=2e-4) and below(high) == pytest.approx(0.025, abs=2e-4)
    assert effect_interval(-effect, n) == pytest.approx((-high, -low))


def test_the_interval_of_an_effect_at_its_limits_and_how_often_it_covers():
    # at an effect of 0 the ends are a normal quantile over the root of n
    assert effect_interval(0.0, 4) == pytest.approx((-0.98, 0.98), abs=1e-4)
    assert effect_interval(1.0, 1) == (-math.inf, math.inf)
    assert all(math.isnan(x) for x in effect_interval(math.inf, 3))
    draws = np.random.default_rng(8).normal(0.8, 1, (400, 5))
    ends = [effect_interval(float(d.mean() / d.std(ddof=1)), 5) for d in draws]
    assert np.mean([low <= 0.8 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.03)


def test_the_seeds_to_decide_at_both_ends():
    values = np.array([0.9, 1.1, 1.4, 0.6, 1.0])
    c = compare(values, None, 0.2)
    low, high = effect_interval(0.8 / values.std(ddof=1), 5)
    seen, fewest, most = seeds_to_decide(c)
    assert fewest < seen < most
    assert power(low, most) >= 0.9 > power(low, most - 1)
    assert fewest == 2 or power(high, fewest) >= 0.9 > power(high, fewest - 1)
    assert seeds_to_decide(compare(-values, None, -0.2)) == (seen, fewest, most)
    stricter = seeds_to_decide(c, 0.05 / 13)
    assert all(a > b for a, b in zip(stricter, (seen, fewest, most), strict=True))
    assert power(0.8 / c.sd, stricter[0], 0.05 / 13) >= 0.9


def test_the_seeds_to_decide_where_little_is_known():
    seen, fewest, most = seeds_to_decide(compare([0.1, -0.05, 0.2], None))
    assert most is None and fewest < seen
    nothing = seeds_to_decide(compare([0.1, -0.1, 0.0], None))  # no effect, but an interval
    assert nothing[::2] == (None, None) and nothing[1] > 2
    assert seeds_to_decide(compare([0.5], None)) == seeds_to_decide(compare([0.5] * 3, None)) == (None, None, None)
    # a resolution leaves equal figures a spread
    assert seeds_needed(compare([0.5, 0.6], None)) == 3 and seeds_needed(compare([0.5] * 3, None, resolution=0.01)) == 2


# Claims judged together


def test_holm_by_hand():
    # four: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    # NaN is no claim: two are left
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[::2] == pytest.approx([0.04, 0.04]) and math.isnan(adjusted[1])
    assert holm([]) == [] and math.isnan(holm([math.nan])[0])


def test_holm_as_published():
    """SAS/STAT User's Guide, The MULTTEST Procedure, "Inputting Raw p-Values": Stepdown Bonferroni."""
    raw = [
        *(0.28282, 0.30688, 0.71022, 0.77175, 0.78180, 0.88581, 0.54685, 0.84978, 0.24228, 0.58977, 0.03498, 0.41607),
        *(0.31631, 0.05254, 0.45061, 0.75758, 0.12496, 0.49485, 0.21572, 0.50505, 0.94372, 0.81260, 0.77596, 0.36889),
    ]
    assert [round(p, 4) for p in holm(raw)] == [1.0] * 10 + [0.8395] + [1.0] * 13
    # Abdi (2010), Holm's sequential Bonferroni procedure, in Salkind's Encyclopedia of Research Design, Sage
    assert holm([0.000040, 0.016100, 0.612300]) == pytest.approx([0.000120, 0.032200, 0.612300])


@given(P_VALUES, st.randoms())
def test_holm_lies_between_raw_and_bonferroni_whatever_the_order(p, random):
    adjusted = holm(p)
    assert all(raw <= a <= min(1.0, len(p) * raw) for raw, a in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    # step down, as Holm wrote it: reject while the i-th smallest is at most 0.05 / (m - i)
    rejected = 0
    for i, j in enumerate(order):
        if p[j] * (len(p) - i) >= 0.05:
            break
        rejected += 1
    assert sum(a < 0.05 for a in adjusted) == rejected
    shuffled = random.sample(p, len(p))
    assert sorted(adjusted) == sorted(holm(shuffled))
    assert holm_adjust([[p, shuffled]]).tolist() == [[adjusted, holm(shuffled)]]
    assert holm([math.nan, *p])[1:] == adjusted


def test_verdicts():
    above, below = compare(BETTER, WORSE), compare(WORSE, BETTER)
    assert [verdict_of(above, p) for p in (0.049, 0.05, math.nan)] == ["supported", "undecided", "undecided"]
    assert verdict_of(below, 0.01) == "contradicted"
    assert verdict_of(compare(BETTER, WORSE, 0.2), 0.01) == "contradicted"
    assert verdict_of(above, 0.02, level=0.01) == "undecided"


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
    # variances 0.9 * 0.1 / 100 and 0.8 * 0.2 / 100: error 0.05, so the difference of 0.1 is two of them
    c = binomial_comparison(0.9, 0.8, 100)
    assert c.difference == pytest.approx(0.1) and c.p_value == pytest.approx(2 * stats.norm.sf(2))
    assert (c.low, c.high) == pytest.approx((0.1 - 1.959964 * 0.05, 0.1 + 1.959964 * 0.05))
    assert binomial_comparison(0.9, 0.8, 100, 0.1).p_value == pytest.approx(1)
    assert binomial_comparison(0.8, 0.9, 100).p_value == pytest.approx(c.p_value)
    assert binomial_comparison(0.9, 0.1, 2).high == 1.0


def test_single_runs_as_published():
    """Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in Medicine
    17, 873-890, table II: method 1, "simple asymptotic", for 9/10 - 3/10. The test is the interval turned around."""
    c = binomial_comparison(9 / 10, 3 / 10, 10)
    assert (round(c.low, 4), round(c.high, 4)) == (0.2605, 0.9395)
    for end in (c.low, c.high):
        assert binomial_comparison(9 / 10, 3 / 10, 10, end).p_value == pytest.approx(0.05)


def test_a_single_run_against_a_threshold_is_exact():
    c = binomial_comparison(0.9135, None, 400, 0.895)
    exact = stats.binomtest(365, 400, 0.895)
    assert c.difference == 0.9135 and c.p_value == exact.pvalue and (c.low, c.high) == tuple(exact.proportion_ci())
    assert c.low < 0.895 < c.high


def test_single_runs_without_error_say_nothing():
    c = binomial_comparison(1.0, 1.0, 80)
    assert math.isnan(c.p_value) and (c.low, c.high) == (-1, 1)
    for better, worse, images in ((1.1, 0.5, 80), (0.5, -0.1, 80), (0.5, None, 0), (math.nan, 0.5, 80)):
        with pytest.raises(ValueError, match="accuracies within"):
            binomial_comparison(better, worse, images)


def test_importing_imports_neither_scipy_nor_matplotlib():
    code = (
        "import sys, cvhw4.report.verdicts, cvhw4.homework; print({'scipy', 'matplotlib', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
