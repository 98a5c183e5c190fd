"""Q2-1 and Q2-2: FCN8s with and without its skip connections."""

import pytest

from cvhw4.homework.options import homework

COMPARED = {
    "q2_1a-skip": {"skips": True, "classes": 11, "batch_norm": "frozen"},
    "q2_1b-noskip": {"skips": False, "classes": 11, "batch_norm": "frozen"},
}


@pytest.mark.study(homework, rows=COMPARED)
def test_skips(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)
