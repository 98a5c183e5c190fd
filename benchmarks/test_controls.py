"""Rows spoilt on purpose: the bounds of the row have to notice."""

import pytest


@pytest.mark.control
@pytest.mark.controls
def test_spoilt(train, experiment, seed):
    record = train(experiment, seed)
    assert len(record.epochs) == experiment.recipe.epochs


@pytest.mark.control
def test_the_bounds_notice(noticed, control):
    words = control.words.format(control.strengths[0])
    assert noticed(control), f"{words}, and no bound of {control.row} is missed"
