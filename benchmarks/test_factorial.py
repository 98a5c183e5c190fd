"""Network, optimizer and augmentation one by one: the rows between the two that the report compares in Q1-9."""

import pytest


@pytest.mark.factorial
@pytest.mark.question("q1", group="factorial")
def test_portraits(train, bounds, experiment, seed):
    record = train(experiment, seed)
    assert len(record.epochs) == experiment.recipe.epochs
    assert not bounds.missed(record)
