"""The reference loop of the speed comparison: files, loaders, steps and figures, worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.performance import reference
from cvhw4 import CAMVID, Scenes
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import read_scenes
from cvhw4.models.build import build_network
from tests.helpers import tiny

MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
CROP, FACE, AUTO, SCENES, THREE = (tiny.row(name) for name in ("q1_1", "q1_5", "q1_8", "q2_1a", "q2_3"))


@pytest.fixture(autouse=True)
def _same_draws_and_no_traces(monkeypatch, tmp_path):
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def portraits(**counts):
    """tests.helpers.tiny's; each fourth is smaller than its frame."""
    data = tiny.dataset("classification", **counts)
    splits = []
    for split in (data.train, data.val):
        sizes, images = split.sizes.copy(), split.images.copy()
        sizes[::4] = (33, 39)
        images[::4, 33:], images[::4, :, 39:] = 0, 0
        splits.append(replace(split, sizes=sizes, images=images))
    return replace(data, train=splits[0], val=splits[1])


def write(data, folder):
    return reference.write_folders(data, folder, picture="png")


def loaders(row, folder):
    return reference.make_loaders(row, folder, mean=MEAN, std=STD, seed=0, workers=0)


def pixels(inputs):
    """The grey levels that normalised inputs came from."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (inputs * std + mean) * 255


# Files


def test_pictures_come_back_from_files_as_they_were(tmp_path):
    data, folder = portraits(), tmp_path / "portraits"
    assert write(data, folder) == folder
    assert (folder / "train/heavy_makeup/000000.png").exists() and (folder / "val/no_heavy_makeup/000007.png").exists()
    back = read_pictures(folder)
    assert back.classes == data.classes
    for split, read in ((data.train, back.train), (data.val, back.val)):
        order = np.argsort(split.targets, kind="stable")
        for name in ("images", "sizes", "targets"):
            assert np.array_equal(getattr(read, name), getattr(split, name)[order])
    data, folder = tiny.dataset("segmentation"), tmp_path / "scenes"
    back = read_scenes(Scenes(write(data, folder), **CAMVID))
    for split, read in ((data.train, back.train), (data.val, back.val)):
        assert np.array_equal(read.images, split.images) and np.array_equal(read.targets, split.targets)
    with Image.open(folder / "valannot/000003.png") as label:
        assert label.mode == "L"


# Loaders


STEPS = {
    CROP: "RandomResizedCrop RandomHorizontalFlip ToTensor Normalize",
    FACE: "Resize CenterCrop RandomHorizontalFlip ToTensor Normalize",
    AUTO: "RandomResizedCrop RandomHorizontalFlip ColorJitter AutoAugment ToTensor Normalize",
}


@pytest.mark.parametrize("row", STEPS, ids=lambda row: row.augmentation)
def test_portrait_batches(row, tmp_path):
    size = row.recipe.size
    train, val = loaders(row, write(portraits(), tmp_path))
    assert train.dataset.classes == ["heavy_makeup", "no_heavy_makeup"]
    for loader, n in ((train, 12), (val, 8)):
        batches = list(loader)
        assert sum(int(targets.sum()) for _, targets in batches) == n // 2 and len(batches) == n // 4
        for inputs, targets in batches:
            assert inputs.shape == (4, 3, size, size) and inputs.dtype == torch.float32 and inputs.is_contiguous()
            assert targets.shape == (4,) and targets.dtype == torch.int64
            levels = pixels(inputs)
            assert levels.min() > -0.01 and levels.max() < 255.01
            assert (levels - levels.round()).abs().max() < 0.01  # no scale but 0..255 gives whole numbers
            if loader is train and row is not AUTO:  # brightness tells the class
                assert torch.equal(levels.mean((1, 2, 3)) > 125, targets == 1)
    steps, plain = (loader.dataset.transform.transforms for loader in (train, val))
    assert " ".join(type(step).__name__ for step in steps) == STEPS[row]
    assert " ".join(type(step).__name__ for step in plain) == "Resize CenterCrop ToTensor Normalize"
    assert (plain[0].size, plain[1].size) == (round(size * 256 / 224), (size, size))
    if row is AUTO:
        jitter, auto = steps[2:4]
        assert jitter.brightness == jitter.contrast == jitter.saturation == (0.8, 1.2) and jitter.hue is None
        assert auto.policy.name == "CIFAR10"


@pytest.mark.parametrize("row", [SCENES, THREE], ids=["11 classes", "3 classes"])
def test_scene_batches(row, tmp_path):
    """Pictures that show their own labels, 20 grey levels a class, so that crop and flip can be undone; void has no
    target among eleven classes, and is of class one among three."""
    data, classes = tiny.dataset("segmentation"), row.classes
    every = (np.add.outer(np.arange(40), np.arange(48)) % 12)[None].astype(np.uint8)
    shown = np.repeat(every[..., None] * 20, 3, 3).astype(np.uint8)
    splits = [
        replace(s, images=shown.repeat(len(s), 0), targets=every.repeat(len(s), 0)) for s in (data.train, data.val)
    ]
    train, val = loaders(row, write(replace(data, train=splits[0], val=splits[1]), tmp_path))
    merged = torch.tensor([*range(12)] if classes == 11 else [0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1])
    table = torch.eye(12)[merged][:, :classes]
    batches, items = list(train), list(val)
    assert len(batches) == 3 and len(items) == 8
    for inputs, targets in batches:
        assert inputs.shape == (4, 3, 32, 32) and inputs.dtype == torch.float32 and inputs.is_contiguous()
        assert targets.dtype == torch.float32
        levels = pixels(inputs)
        assert (levels - levels[:, :1]).abs().max() < 0.01
        assert torch.equal(targets, table[(levels[:, 0] / 20).round().long()].permute(0, 3, 1, 2))
    for inputs, labels in items:
        centre = torch.tensor(every[:, 4:36, 8:40]).long()
        assert (pixels(inputs) - 20 * centre[:, None]).abs().max() < 0.01
        assert torch.equal(labels, merged[centre].to(torch.uint8))


# Whole runs


def trained(row, folder, **changes):
    """Epochs, and what changed of the network."""
    network = build_network(row, seed=0)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    epochs = reference.run(row, network, folder, seed=0, device=torch.device("cpu"), workers=0, **changes)
    assert len(epochs) == row.recipe.epochs
    return epochs, {k for k, v in network.module.state_dict().items() if not torch.equal(before[k], v)}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # nothing is trained here
def test_learning_rate_is_stepped_by_epoch(tmp_path, monkeypatch):
    rates = []
    monkeypatch.setattr(reference, "train_epoch", lambda *given: rates.append(given[3].param_groups[0]["lr"]) or 0.0)
    monkeypatch.setattr(reference, "validate", lambda *given: {})
    folder = write(portraits(train=2, val=2), tmp_path)
    trained(tiny.row("q1_5", lr=1.0, lr_step=2, lr_gamma=0.1, epochs=5), folder)
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_validation_alone_changes_nothing(tmp_path):
    folder = write(portraits(train=2, val=4), tmp_path)
    epochs, changed = trained(tiny.row("q1_5"), folder, validate_only=True)
    assert not changed and all(math.isnan(e.loss) for e in epochs)
    assert epochs[0].figures == epochs[1].figures
