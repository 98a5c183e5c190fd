"""Q1-8 and Q1-9: EfficientNet-B2 with Adam and AutoAugment, pretrained and from scratch; what of it brings the gain."""

import pytest

from cvhw4.homework.options import homework

AUTO, CROP = "crop + jitter + AutoAugment", "random-resized crop"
COMPARED = {
    "q1_8-recipe": {"start": "imagenet", "augmentation": AUTO, "optimizer": "adam"},
    "q1_c8-scratch": {"start": "random", "augmentation": AUTO, "optimizer": "adam"},
}
# Between q1_2 (AlexNet, SGD, crop) and q1_8: network, optimizer and augmentation changed one by one and two by two.
FACTORIAL = {
    "q1_f1-net": {"augmentation": CROP, "optimizer": "sgd"},
    "q1_f2-adam": {"augmentation": CROP, "optimizer": "adam"},
    "q1_f3-auto": {"augmentation": AUTO, "optimizer": "sgd"},
    "q1_f4-net_adam": {"augmentation": CROP, "optimizer": "adam"},
    "q1_f5-net_auto": {"augmentation": AUTO, "optimizer": "sgd"},
    "q1_f6-adam_auto": {"augmentation": AUTO, "optimizer": "adam"},
}


@pytest.mark.study(homework, rows=COMPARED)
def test_recipe(train, bounds, row, seed):
    record = train(row, seed)
    assert len(record.epochs) == row.recipe.epochs
    assert not bounds.missed(record)


@pytest.mark.extra
@pytest.mark.study(homework, group="extra", rows=FACTORIAL)
def test_factorial(train, bounds, row, seed):
    assert not bounds.missed(train(row, seed))
