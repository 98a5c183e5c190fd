"""Q1-1 to Q1-4: AlexNet as a feature extractor, fine-tuned, and from scratch."""

import pytest

from cvhw4.homework.options import homework

COMPARED = {
    "q1_1-features": {"start": "imagenet", "trained": "last layer"},  # feature extractor
    "q1_2-finetune": {"start": "imagenet", "trained": "all layers"},  # fine-tuned
    "q1_3-scratch": {"start": "random", "trained": "all layers"},  # from scratch
}


@pytest.mark.study(homework, rows=COMPARED)
def test_transfer(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)


@pytest.mark.extra
@pytest.mark.study(homework, group="extra", rows={"q1_c3-no_start": {"start": "random"}})  # at full size it is q1_3
def test_the_fine_tuned_network_from_scratch(train, bounds, row, seed):
    assert not bounds.missed(train(row, seed))
