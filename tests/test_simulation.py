"""Verdicts on studies drawn with no effect, and on fewer seeds than were run."""

import math

import numpy as np
import pytest
from scipy import stats

from cvhw4.statistics import simulation
from cvhw4.statistics.comparison import combine, compare, holm, verdict_of
from cvhw4.statistics.images import ImageNoise, mean_noise, squared_error
from cvhw4.statistics.simulation import both_sources, null_rates, null_table, stability

SIMULATIONS = 10_000


@pytest.fixture(scope="module")
def table():
    rows = null_table(np.random.default_rng(0), simulations=SIMULATIONS)
    return {(row["spread"], row["seeds"]): row for row in rows}


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", ["normal", "accuracies, resolution known"])
def test_verdicts_are_wrong_as_seldom_as_they_say(table, spread, seeds):
    row = table[spread, seeds]
    assert row["wrong"] <= 0.05 + 3 * row["wrong_se"]
    assert row["family"] <= 0.05 + 3 * row["family_se"]
    assert row["coverage"] == pytest.approx(0.95, abs=0.01)


def test_normal_rates_are_the_exact_ones(table):
    # independent claims under the null: Holm errs where the least p-value is below 0.05 / 13
    family = 1 - (1 - 0.05 / 13) ** 13
    for seeds in (3, 5, 10):
        row = table["normal", seeds]
        assert row["wrong"] == pytest.approx(0.05, abs=4 * row["wrong_se"])
        assert row["family"] == pytest.approx(family, abs=4 * row["family_se"])


def test_three_accuracies_need_their_resolution(table):
    """Three equal differences have no spread; their p = 0 passes any correction."""
    assert table["accuracies", 3]["wrong"] <= 0.05
    assert table["accuracies", 3]["family"] > 0.06
    assert table["accuracies, resolution known", 3]["family"] < 0.05
    for seeds in (5, 10):
        row = table["accuracies", seeds]
        assert row["family"] <= 0.05 + 3 * row["family_se"]


def test_the_standard_errors_are_the_binomials(table):
    row = table["normal", 5]
    assert row["family_se"] == pytest.approx(math.sqrt(row["family"] * (1 - row["family"]) / SIMULATIONS))
    assert row["wrong_se"] == pytest.approx(math.sqrt(row["wrong"] * (1 - row["wrong"]) / SIMULATIONS / 13))


def test_the_normal_interval_would_fail(monkeypatch):
    monkeypatch.setattr(simulation, "t_quantile", lambda probability, freedom: float(stats.norm.ppf(probability)))
    coverage = null_rates(3, np.random.default_rng(0), simulations=SIMULATIONS)["coverage"]
    # P(|t| < 1.96) with 2 degrees of freedom
    assert coverage == pytest.approx(1 - 2 * stats.t.sf(1.959964, 2), abs=0.01) and coverage < 0.83


def test_verdicts_without_correction_would_fail(monkeypatch):
    monkeypatch.setattr(simulation, "holm_adjust", lambda p: p)
    family = null_rates(3, np.random.default_rng(0), simulations=SIMULATIONS)["family"]
    assert family == pytest.approx(1 - 0.95**13, abs=0.03)


def test_one_claim_is_not_corrected():
    rates = null_rates(5, np.random.default_rng(1), simulations=2000, claims=1)
    assert rates["wrong"] == rates["family"] and rates["wrong_se"] == rates["family_se"]


def test_the_same_generator_gives_the_same_table():
    first, second = (null_table(np.random.default_rng(7), seeds=(3,), simulations=100) for _ in range(2))
    assert repr(first) == repr(second)  # NaN is not NaN
    assert [row["seeds"] for row in first] == [3] * 4 and [row["simulations"] for row in first] == [100] * 4


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_both_sources_covers_at_least_as_often_as_it_says(table, seeds):
    row = table["seeds and images", seeds]
    assert 0.95 - 3 * row["coverage_se"] < row["coverage"] < 0.99 and row["simulations"] == 1500
    assert math.isnan(row["wrong"]) and math.isnan(row["family_se"])


def test_the_interval_of_both_sources_is_the_one_of_verdicts(monkeypatch):
    """Each study's, from the single functions instead of those for many at once."""
    seen = {}

    def noted(values, strata):
        seen["values"], seen["strata"] = values, strata
        return mean_noise(values, strata)

    monkeypatch.setattr(simulation, "mean_noise", noted)
    found = both_sources(4, np.random.default_rng(3), simulations=300, images=40)
    covered = []
    for study in seen["values"].astype(float):
        c = compare(study.mean(1), None, resolution=math.sqrt(2) / 40)  # two accuracies' rounding errors
        noise = ImageNoise(0, *map(float, mean_noise(study, seen["strata"])), 0, 0, 2, 40, 4)
        images = squared_error(c.sd, 4, noise) - c.sd**2 / 4
        interval = combine(c.difference.mean, c.sd, 4, images, 39).estimate
        covered.append(interval.low <= 0 <= interval.high)
    assert found["coverage"] == pytest.approx(np.mean(covered)) and 0 < np.mean(covered) < 1


def test_more_than_the_seeds_is_needed_where_images_are_new(monkeypatch):
    monkeypatch.setattr(simulation, "squared_errors", lambda seeds, *_: seeds)
    assert both_sources(10, np.random.default_rng(0))["coverage"] < 0.9


def test_the_number_of_images_reaches_the_accuracies():
    few, many = (
        {row["spread"]: row for row in null_table(np.random.default_rng(0), (3,), 4000, images=images)}
        for images in (20, 400)
    )
    assert few["accuracies"]["family"] > 3 * many["accuracies"]["family"]  # more differences are equal by chance
    assert few["normal"] == many["normal"]


def verdicts(claims, margins):
    found = [compare(c, None, m) for c, m in zip(claims, margins, strict=True)]
    adjusted = holm([c.p_value for c in found])
    return [verdict_of(c, p) for c, p in zip(found, adjusted, strict=True)]


def test_stability_counts_the_verdicts_of_every_subset():
    from itertools import combinations

    rng = np.random.default_rng(5)
    claims, margins = rng.normal([[0.9], [0.3], [-0.8]], 1.0, (3, 8)) * 0.01, [0.0, 0.001, 0.0]
    whole = verdicts(claims, margins)
    parts = [verdicts(claims[:, list(seeds)], margins) for seeds in combinations(range(8), 5)]
    turned = {"supported": "contradicted", "contradicted": "supported", "undecided": None}
    for i, found in enumerate(stability(claims, margins, rng)):
        said = [part[i] for part in parts]
        expected = (said.count(whole[i]), said.count("undecided"), said.count(turned[whole[i]]))
        assert found == pytest.approx([x / len(parts) for x in expected])
    assert len({*whole}) > 1


def test_draws_come_near_the_count_of_all_subsets():
    rng = np.random.default_rng(6)
    claims = rng.normal(0.5, 1.0, (2, 12))
    exact = stability(claims, 0.0, rng, resamples=792)  # 12 choose 5
    drawn = stability(claims, 0.0, rng, resamples=791)
    assert drawn != exact
    for a, b in zip(exact, drawn, strict=True):
        assert a == pytest.approx(b, abs=0.08)


def test_all_seeds_agree_with_themselves():
    claims = [[0.1, 0.12, 0.11], [-0.1, -0.12, -0.11], [0.1, -0.1, 0.0]]
    found = stability(claims, 0.0, np.random.default_rng(0), draw=3)
    assert found == [(1, 0, 0), (1, 0, 0), (1, 1, 0)]


def test_equal_differences_without_and_with_their_resolution():
    rng = np.random.default_rng(0)
    assert stability([[0.01] * 6], 0.0, rng) == [(1, 0, 0)]
    assert stability([[0.01] * 6], 0.01, rng) == [(1, 1, 0)]
    assert stability([[0.01] * 6], 0.0, rng, floors=0.009) == [(0, 1, 0)]  # t = 2.48 < 2.78 with 5, 2.72 > 2.57 with 6


def test_opposite_verdicts_are_seen():
    # three seeds agree on -1, seven lie far above: all support, those three contradict
    values = [-1.0, -1.01, -0.99, 9.0, 9.1, 8.9, 9.2, 9.0, 9.1, 8.8]
    (found,) = stability([values], 0.0, np.random.default_rng(0), draw=3)
    assert found.opposite == pytest.approx(1 / 120) and 0 < found.undecided < 1
    assert found.same + found.undecided + found.opposite == pytest.approx(1)


@pytest.mark.parametrize(
    ("claims", "draw"), [([[0.1] * 4], 5), ([[0.1] * 6, [0.1] * 5], 5), ([], 5), ([0.1], 2), ([[0.1] * 6], 1)]
)
def test_claims_need_the_same_seeds(claims, draw):
    with pytest.raises(ValueError, match="over the same seeds"):
        stability(claims, 0.0, np.random.default_rng(0), draw=draw)
