"""A trap of the report's template: Q2's batch norm is frozen. Here it is in training mode, all else as there."""

import pytest

from cvhw4.homework.options import homework

COMPARED = {
    "q2_n1a-fused_norm": {"skips": True, "batch_norm": "train"},  # against q2_1a
    "q2_n1b-plain_norm": {"skips": False, "batch_norm": "train"},  # against q2_1b
    "q2_n3-3class_norm": {"classes": 3, "batch_norm": "train"},  # against q2_3; at full size alone
}


@pytest.mark.study(homework, rows=COMPARED)
def test_batch_norm(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)
