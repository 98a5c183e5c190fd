"""Rows trained wrongly on purpose: the bounds of the row have to notice."""

import pytest

from cvhw4.homework.options import homework

pytestmark = [pytest.mark.control, pytest.mark.study(homework, group="control")]


def test_corrupted(train, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs


def test_the_bounds_notice(detected, control):
    words = control.words.format(control.strengths[0])
    assert detected(control), f"{words}, and no bound of {control.row} is missed"
