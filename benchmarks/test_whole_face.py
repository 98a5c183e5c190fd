"""Q1-5 to Q1-7: the same as Q1-1 and Q1-2, with the whole face in view instead of random-resized crops."""

import pytest

from cvhw4.homework.options import homework

COMPARED = {
    "q1_5-features": {"augmentation": "whole face", "trained": "last layer"},  # against q1_1: random-resized crop
    "q1_6-finetune": {"augmentation": "whole face", "trained": "all layers"},  # against q1_2
}


@pytest.mark.study(homework, rows=COMPARED)
def test_whole_face(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)
