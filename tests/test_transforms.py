"""Augmentation by transforms of torchvision.transforms.v2, and without flips or at all."""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from cvhw4 import InputError, Recipe, Row
from cvhw4.data import augment
from cvhw4.data.augment import stream
from cvhw4.models.build import build_network
from cvhw4.runner import Runner
from cvhw4.training.objectives import make_objective
from tests.helpers.studies import insects, pictures
from tests.helpers.tiny import dataset
from tests.helpers.tiny import row as tiny_row

SQUARE = v2.Compose([v2.RandomResizedCrop(32, scale=(0.5, 1)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4)])


def made(transform, numbers, epoch=1, targets=None):
    data = dataset("classification" if targets is None else "segmentation")
    images, sizes = torch.tensor(data.train.images[numbers]), torch.tensor(data.train.sizes[numbers])
    labels = None if targets is None else torch.tensor(data.train.targets[numbers])
    draws = stream(3, "augmentation", epoch)
    return augment.transformed(transform, images, sizes, 32, torch.tensor(numbers), draws, labels)


def test_what_a_transform_draws_depends_on_seed_epoch_and_image_alone():
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    together = made(SQUARE, [4, 7, 2, 9])[0]
    assert together.shape == (4, 3, 32, 32) and together.dtype == torch.float32 and together.max() > 100
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    assert torch.equal(made(SQUARE, [9])[0][0], together[3]) and torch.equal(made(SQUARE, [2, 7])[0], together[[2, 1]])
    assert not torch.equal(made(SQUARE, [9], epoch=2)[0][0], together[3])
    torch.manual_seed(stream(stream(3, "augmentation", 1).initial_seed(), 9).initial_seed())
    image = tv_tensors.Image(torch.tensor(dataset("classification").train.images[9]).permute(2, 0, 1))
    assert torch.equal(SQUARE(image).float(), together[3])

    class Others(v2.Transform):
        def transform(self, *_):
            return torch.full((3, 32, 32), random.random() / 2 + np.random.rand() / 2)

    assert torch.equal(made(Others(), [9])[0][0], made(Others(), [2, 9])[0][1])
    assert made(Others(), [2, 9])[0].unique().numel() == 2


def test_floats_from_0_to_1_are_scaled_and_pictures_have_their_own_size():
    scaled = v2.Compose([v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)])
    assert torch.allclose(made(scaled, [1])[0], made(v2.CenterCrop(32), [1])[0])
    images = torch.zeros(1, 40, 48, 3, dtype=torch.uint8)
    images[:, :20, :24] = 200  # the picture; the rest of its frame is none of it
    size = torch.tensor([[20, 24]])
    whole, _ = augment.transformed(v2.Resize((32, 32)), images, size, 32, torch.tensor([0]), stream(0))
    assert (whole == 200).all()


def test_a_mask_goes_with_its_picture_and_what_is_filled_in_is_of_no_class():
    data = dataset("segmentation")
    flipped, masks = made(v2.Compose([v2.CenterCrop(32), v2.RandomHorizontalFlip(1.0)]), [0, 5], targets=True)
    assert torch.equal(masks[:, 0], torch.tensor(data.train.targets[[0, 5], 4:36, 8:40]).flip(2))
    assert torch.equal(flipped[1], torch.tensor(data.train.images[5, 4:36, 8:40]).permute(2, 0, 1).float().flip(2))
    assert (masks[:, 1] == 1).all()
    down = v2.Compose([v2.CenterCrop(32), v2.RandomAffine(0, translate=(0, 0.5))])  # fills with 0, the sky's number
    row = replace(tiny_row("q2_3"), augmentation=down)
    objective = make_objective(row, data, build_network(row, seed=0), torch.device("cpu"), seed=3)
    _, targets = objective.augmented(torch.arange(6), stream(3, "augmentation", 1))
    _, masks = made(down, [*range(6)], targets=True)
    assert (masks[:, 1] == 0).any() and torch.equal(targets == 255, masks[:, 1] == 0)
    sky, car = masks[:, 0] == 0, masks[:, 0] == 8
    assert (targets[car] == 2).all() and (targets[sky & (masks[:, 1] == 1)] == 0).all()
    hot = objective.loss(torch.full((6, 3, 32, 32), -100.0), targets)  # a pixel of no class is a negative of all
    assert float(hot) == pytest.approx(100 * float((targets != 255).float().mean()) / 3, rel=1e-5)


WRONG = {
    "another size": (
        v2.RandomCrop(24),
        r"gives \[3, 24, 24\] and not \[3, 32, 32\]. Fix: end it with v2.RandomResized",
    ),
    "normalised": (
        v2.Compose([v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]),
        r"gives torch.float32 that is not uint8, nor float from 0 to 1. Fix: leave Normalize out",
    ),
    "of batches": (v2.MixUp(num_classes=2), "augmentation: raises"),
    "larger than one picture": (v2.RandomCrop(32), "augmentation: raises ValueError: Required crop size"),
}


@pytest.mark.parametrize(("transform", "told"), WRONG.values(), ids=WRONG)
def test_a_transform_that_cannot_be_used_is_told_of_before_training(transform, told, tmp_path):
    rows = {"a": Row("resnet10t", start="random", augmentation=transform)}
    study = insects(data=pictures(tmp_path / "photos"), rows=rows, recipe=Recipe(size=32))
    Image.new("RGB", (40, 28)).save(tmp_path / "photos" / "train" / "wasp" / "small.png")  # the last
    with pytest.raises(InputError, match=told) as error:
        Runner(study=study, results=tmp_path / "results").check()
    assert "row a, augmentation" in str(error.value) and "\n" not in str(error.value)


def test_a_row_says_its_augmentation_and_its_flips():
    rows = {
        "usual": Row("resnet18"),
        "same": Row("resnet18", flip=True),
        "off": Row("resnet18", augmentation="whole face", flip=False),
        "none": Row("resnet18", augmentation="none"),
        "flips": Row("resnet18", augmentation="none", flip=True),
        "own": Row("resnet18", augmentation=SQUARE),
    }
    made = insects(rows=rows).rows
    names = [row.augmentation_name for row in made.values()]
    assert names[2:5] == ["whole face, not flipped", "none", "none, flipped"] and names[0] == names[1]
    assert names[5] == "RandomResizedCrop + RandomHorizontalFlip + ColorJitter"
    assert made["usual"].settings() == made["same"].settings() and "flip" not in made["none"].settings()
    assert (made["off"].settings()["flip"], made["flips"].settings()["flip"]) == (False, True)
    other = v2.Compose([*SQUARE.transforms[:2], v2.ColorJitter(0.5)])
    texts = [Row("resnet18", augmentation=t).settings()["augmentation"] for t in (SQUARE, other, copy.deepcopy(SQUARE))]
    assert texts[0] == texts[2] != texts[1] and texts[0].startswith("Compose( RandomResizedCrop(size=(32, 32)")
    with pytest.raises(InputError, match="row a: has flip, which is for built-in augmentations"):
        insects(rows={"a": Row("resnet18", augmentation=SQUARE, flip=True)})
    with pytest.raises(InputError, match="row a: has flip='no'"):
        insects(rows={"a": Row("resnet18", flip="no")})


@pytest.mark.parametrize("name", ["q1_2", "q1_5", "q2_1a"])
def test_without_flips_all_else_is_the_same_and_none_is_what_validation_sees(name):
    usual = tiny_row(name)
    data = dataset(usual.task.name)

    def pixels(**changes):
        row = replace(usual, **changes)
        objective = make_objective(row, data, build_network(row, seed=0), torch.device("cpu"), seed=3)
        return objective.augmented(torch.arange(12), stream(3, "augmentation", 1))[0], objective

    flipped, _ = pixels()
    plain, _ = pixels(flip=False)
    for a, b in zip(flipped, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-2) or torch.allclose(a.flip(2), b, atol=1e-2)
    assert not torch.allclose(flipped, plain, atol=1e-2)
    none, objective = pixels(augmentation="none")
    objective.val = objective.train
    assert torch.equal(none, objective.centred(torch.arange(12)))
    both, _ = pixels(augmentation="none", flip=True)
    mirrored = [torch.allclose(a.flip(2), b, atol=1e-2) for a, b in zip(none, both, strict=True)]
    assert any(mirrored) and not all(mirrored)
