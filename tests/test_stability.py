"""How often verdicts are wrong where no claim holds, by simulation, and what fewer seeds would have said.

`docs/verdicts.md` has the rates of 10,000 studies; here 2,000 are drawn.
"""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from cvhw4.statistics.comparison import compare, holm, moments, rounding_sd, t_p_values, verdict_of
from cvhw4.statistics.intervals import t_quantile
from cvhw4.statistics.stability import stability, wrong_verdicts

STUDIES, CLAIMS, IMAGES = 2000, 5, 80


def normal(seeds, rng):
    """Differences [studies, claims, seeds] of rows that are equally good."""
    return rng.standard_normal((STUDIES, CLAIMS, seeds))


def accuracies(seeds, rng):
    """The same of shares of so many images, which are equal by chance now and then."""
    right = rng.binomial(IMAGES, 0.9, (2, STUDIES, CLAIMS, seeds))
    return (right[0] - right[1]) / IMAGES


def rates(differences, floor=0.0):
    """Shares of claims decided, each alone, of studies with any decided, together, and of intervals that cover 0; by
    the functions that judge a study's claims."""
    n = differences.shape[-1]
    p = t_p_values(differences, floor=floor)
    mean, sd = moments(differences, floor)
    half = t_quantile(0.975, n - 1) * sd / math.sqrt(n)
    return (p < 0.05).mean(), (holm(p) < 0.05).any(-1).mean(), (np.abs(mean) <= half).mean()


def error(share, of=STUDIES):
    return 3 * math.sqrt(share * (1 - share) / of)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_verdicts_are_wrong_as_seldom_as_they_say(seeds):
    rng = np.random.default_rng(seeds)
    wrong, family, coverage = rates(normal(seeds, rng))
    # independent claims: Holm errs where the least p-value is below 0.05 / 5
    assert wrong == pytest.approx(0.05, abs=error(0.05, STUDIES * CLAIMS))
    assert family == pytest.approx(1 - (1 - 0.05 / CLAIMS) ** CLAIMS, abs=error(0.05))
    assert coverage == pytest.approx(0.95, abs=error(0.05, STUDIES * CLAIMS))
    wrong, family, coverage = rates(accuracies(seeds, rng), rounding_sd(1 / IMAGES))
    assert wrong <= 0.05 + error(0.05, STUDIES * CLAIMS) and family <= 0.05 + error(0.05)
    assert coverage == pytest.approx(0.95, abs=0.012)


def test_wrong_verdicts_of_a_normal_shape_are_5_percent_and_more_where_a_study_looks_again():
    values = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) + 7.0  # whatever their mean
    found = wrong_verdicts([values], np.random.default_rng(1), (3, 20), (3, 10, 20), draws=STUDIES * 4)
    few, many = found.decided[0]
    assert few == pytest.approx(0.05, abs=error(0.05, STUDIES * 4))
    assert many == pytest.approx(0.045, abs=error(0.045, STUDIES * 4))  # whose skewness counts, though they have none
    # Armitage, McPherson and Rowe (1969): with three looks 10.7 % at equal steps of a normal mean of known spread; here
    # the first look is at 3 of 20 and the spread is estimated
    assert 0.10 < found.again[0] < 0.14
    assert np.isnan(found.equivalent[0])


def test_wrong_verdicts_of_two_groups_are_many():
    two = [0.03] * 9 + [0.02] * 9 + [-0.22, -0.23]
    found = wrong_verdicts([two], np.random.default_rng(2), (10,), (10,))
    # without one of the two in ten draws (0.9 ** 10 = 0.35) the rest agree, and are decided wrongly
    assert found.decided[0, 0] == found.again[0] == found.family[0] and 0.3 < found.again[0] < 0.4
    assert wrong_verdicts([two], np.random.default_rng(2), (10,), (10,), floors=0.2).again[0] < 0.05


def test_three_seeds_of_two_groups_are_judged_rightly_where_the_spread_of_others_is_known():
    two = np.repeat([0.22, 0.26], [8, 12]) + np.linspace(-0.002, 0.002, 20)
    alone, known = (wrong_verdicts([two], np.random.default_rng(3), (3,), (3,), calibrated=c) for c in (False, True))
    assert alone.decided[0, 0] == pytest.approx(0.4**3 + 0.6**3, abs=error(0.28))  # three of one group
    assert known.decided[0, 0] == pytest.approx(0.4**3, abs=error(0.064))  # three of the smaller one alone


def test_wrong_verdicts_of_a_family_and_of_equivalence_are_5_percent():
    values = stats.norm.ppf((np.arange(500) + 0.5) / 500)
    claims = np.stack([np.random.default_rng(seed).permutation(values) for seed in range(4)])
    found = wrong_verdicts(claims, np.random.default_rng(4), (10,), (10,), smallest=[0.0, 3.0, 3.0, 0.0])
    assert found.family[0] == pytest.approx(1 - (1 - 0.05 / 4) ** 4, abs=error(0.05))
    assert found.equivalent[1:3] == pytest.approx([0.05, 0.05], abs=error(0.05))  # so far that one side alone errs
    alike = wrong_verdicts(claims[[0] * 4], np.random.default_rng(4), (10,), (10,)).family[0]
    assert alike == pytest.approx(0.05 / 4, abs=error(0.05 / 4))  # one claim four times


def verdicts(claims, margins, smallest, others):
    settings = zip(claims, margins, smallest, others, strict=True)
    found = [compare(c, None, m, smallest=s, others=o) for c, m, s, o in settings]
    adjusted = [holm(p) for p in ([c.p_value for c in found], [c.equivalence_p for c in found])]
    return [verdict_of(c, *p) for c, *p in zip(found, *adjusted, strict=True)]


@pytest.mark.parametrize("calibrated", [False, True])
def test_stability_counts_the_verdicts_of_every_subset(calibrated):
    rng = np.random.default_rng(5)
    claims = rng.normal([[0.9], [0.3], [-0.8], [0.0]], 1.0, (4, 10)) * 0.01
    margins, smallest = [0.0, 0.001, 0.0, 0.0], [0.0, 0.0, 0.005, 0.012]
    whole = verdicts(claims, margins, smallest, [()] * 4)
    subsets = [list(seeds) for seeds in combinations(range(10), 5)]
    others = [np.delete(claims, seeds, axis=1) if calibrated else [()] * 4 for seeds in subsets]
    parts = [verdicts(claims[:, of], margins, smallest, rest) for of, rest in zip(subsets, others, strict=True)]
    turned = {"supported": "contradicted", "contradicted": "supported", "undecided": None, "equivalent": None}
    for i, found in enumerate(stability(claims, margins, rng, smallest=smallest, calibrated=calibrated)):
        said = [part[i] for part in parts]
        expected = (said.count(whole[i]), said.count(turned[whole[i]]))
        assert found[:2] == pytest.approx([x / len(parts) for x in expected]) and found.verdict == whole[i]
    assert len({*whole}) > 1 and any("equivalent" in part for part in parts)


def test_draws_come_near_the_count_of_all_subsets():
    rng = np.random.default_rng(6)
    claims = rng.normal(0.5, 1.0, (2, 12))
    exact = stability(claims, 0.0, rng, resamples=792)  # 12 choose 5
    drawn = stability(claims, 0.0, rng, resamples=791)
    assert drawn != exact
    for a, b in zip(exact, drawn, strict=True):
        assert a[:2] == pytest.approx(b[:2], abs=0.08) and a.verdict == b.verdict


@pytest.mark.parametrize(
    ("claims", "options", "expected"),
    [
        ([[0.1, 0.12, 0.11], [-0.1, -0.12, -0.11], [0.1, -0.1, 0.0]], {"draw": 3}, [(1, 0), (1, 0), (1, 0)]),
        ([[0.01] * 6], {}, [(1, 0)]),
        ([[0.01] * 6], {"margins": 0.01}, [(1, 0)]),
        ([[0.01] * 6], {"floors": 0.009}, [(0, 0)]),  # t = 2.48 < 2.78 with 5, 2.72 > 2.57 with 6
    ],
)
def test_stability_by_hand(claims, options, expected):
    found = stability(claims, rng=np.random.default_rng(0), **{"margins": 0.0} | options)
    assert [s[:2] for s in found] == expected
