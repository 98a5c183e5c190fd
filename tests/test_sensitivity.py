"""What the bounds notice of controls, against hand-worked cases and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from cvhw4.controls import CONTROLS
from cvhw4.experiments import PROFILES
from cvhw4.statistics.bounds import Bound, Bounds
from cvhw4.statistics.sensitivity import Detection, detect, detections, least
from tests.tiny import record

QUICK = PROFILES["quick"]
NOISE = next(c for c in CONTROLS if c.name == "label_noise")
BOUND = Bound(low=0.8, high=1.0, mean=0.9, sd=0.02, n=20)
BOUNDS = Bounds({"q1_6-finetune": {"best accuracy": BOUND, "last accuracy": BOUND}}, {}, "made up")


def spoilt(strength, figures):
    e = NOISE.experiment(QUICK, strength)
    one = [record("q1_6", seed=s, figures=((value,),)) for s, value in enumerate(figures)]
    return [replace(r, row=e.row, id=e.id, settings=e.settings()) for r in one]


def test_a_control_is_held_against_the_bounds_of_the_row_it_spoils():
    found = detect(NOISE, 0.2, QUICK, spoilt(0.2, [0.85, 0.75, 0.70]), BOUNDS)
    assert found.caught and found.n == 3
    assert [c.value for c in found.missed] == [0.70, 0.70, 0.75, 0.75]  # worst first, two figures each
    weaker = detect(NOISE, 0.1, QUICK, spoilt(0.1, [0.89, 0.9]), BOUNDS)
    assert not weaker.caught and weaker.probability < 0.01


def test_the_chance_is_that_of_any_of_the_nights_runs():
    found = detect(NOISE, 0.2, QUICK, spoilt(0.2, [0.82, 0.82]), BOUNDS)
    one = norm.cdf((0.8 - 0.82) / 0.02) + norm.sf((1.0 - 0.82) / 0.02)  # the calibration's spread, as theirs is none
    assert found.probability == pytest.approx(1 - (1 - one) ** 3)
    random = np.random.RandomState(0)
    nights = random.normal(0.82, 0.02, (20_000, 3))
    assert found.probability == pytest.approx(((nights < 0.8) | (nights > 1)).any(1).mean(), abs=0.01)
    wide = detect(NOISE, 0.2, QUICK, spoilt(0.2, [0.77, 0.87]), BOUNDS)
    assert wide.probability > found.probability  # their own spread, where it is larger


def test_nothing_is_said_without_runs_bounds_or_on_other_data():
    runs = spoilt(0.2, [0.7])
    assert detect(NOISE, 0.1, QUICK, runs, BOUNDS) is None
    assert detect(NOISE, 0.2, QUICK, runs, Bounds({}, {}, "")) is None
    real = [replace(r, data=replace(r.data, embedded=False)) for r in runs]
    assert detect(NOISE, 0.2, QUICK, real, BOUNDS) is None
    assert [d.strength for d in detections(QUICK, [*runs, *spoilt(0.05, [0.9])], BOUNDS)] == [0.2, 0.05]


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ({0.2: 1.0, 0.1: 0.95, 0.05: 0.3}, 0.1),
        ({0.2: 1.0, 0.1: 0.3, 0.05: 0.95}, 0.2),  # what a weaker one shows by chance does not count
        ({0.2: 0.5, 0.1: 0.3, 0.05: 0.1}, None),
    ],
)
def test_the_least_strength_is_that_from_which_on_all_are_noticed(chances, expected):
    found = [Detection(NOISE, s, 3, (), "best accuracy", 0.8, BOUND, p) for s, p in chances.items()]
    assert least(found, NOISE) == expected
