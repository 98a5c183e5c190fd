"""Every row of the report, trained: each run must meet the bounds calibrated for its row."""

import pytest


@pytest.mark.question("q1")
def test_portraits(train, bounds, experiment, seed):
    record = train(experiment, seed)
    assert len(record.epochs) == experiment.recipe.epochs
    assert not bounds.missed(record)


@pytest.mark.question("q2")
def test_scenes(train, bounds, experiment, seed):
    record = train(experiment, seed)
    assert len(record.epochs) == experiment.recipe.epochs
    assert not bounds.missed(record)
