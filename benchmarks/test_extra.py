"""Rows beside the report's, for its tables of claims: the factorial of Q1-9, and q1_2's network from scratch."""

import pytest


@pytest.mark.extra
@pytest.mark.question("q1", group="extra")
def test_portraits(train, bounds, experiment, seed):
    record = train(experiment, seed)
    assert len(record.epochs) == experiment.recipe.epochs
    assert not bounds.missed(record)
