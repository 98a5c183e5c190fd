"""Q2-3 and Q2-4: 3 classes instead of 11 (q2_1b), without skip connections as in the report, and with them."""

import pytest

from cvhw4.homework.options import homework

COMPARED = {
    "q2_3-3class": {"classes": 3, "skips": False},
    "q2_c3-3class_fused": {"classes": 3, "skips": True},
}


@pytest.mark.study(homework, rows=COMPARED)
def test_classes(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)
