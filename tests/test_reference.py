"""The reference loop of the speed comparison: files, loaders, steps and figures, worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from benchmarks.performance import reference
from cvhw4 import CAMVID, Scenes
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import read_scenes
from cvhw4.models.build import IMAGENET_MEAN, IMAGENET_STD, build_network
from tests.helpers import tiny
from tests.helpers.tiny import MERGED, VOID

CPU = torch.device("cpu")
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


def scenes(**counts):
    return tiny.dataset("segmentation", **counts)


def write(data, folder):
    return reference.write_folders(data, folder, picture="png")


def loaders(row, folder, seed=0, workers=0, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return reference.make_loaders(row, folder, mean=mean, std=std, seed=seed, workers=workers)


def pixels(inputs, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """The grey levels that normalised inputs came from."""
    mean, std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
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
    data, folder = scenes(), tmp_path / "scenes"
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
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    train, val = loaders(row, write(portraits(), tmp_path), mean=mean, std=std)
    assert train.dataset.classes == ["heavy_makeup", "no_heavy_makeup"]
    for loader, n in ((train, 12), (val, 8)):
        batches = list(loader)
        assert [len(inputs) for inputs, _ in batches] == [4] * (n // 4)
        for inputs, targets in batches:
            assert inputs.shape == (4, 3, size, size) and inputs.dtype == torch.float32 and inputs.is_contiguous()
            assert targets.shape == (4,) and targets.dtype == torch.int64
            levels = pixels(inputs, mean, std)
            assert levels.min() > -0.01 and levels.max() < 255.01
            assert (levels - levels.round()).abs().max() < 0.01  # no scale but 0..255 gives whole numbers
            if loader is train and row is not AUTO:  # brightness tells the class
                assert torch.equal(levels.mean((1, 2, 3)) > 125, targets == 1)
        assert sum(int(targets.sum()) for _, targets in batches) == n // 2
    steps, plain = (loader.dataset.transform.transforms for loader in (train, val))
    assert " ".join(type(step).__name__ for step in steps) == STEPS[row]
    assert " ".join(type(step).__name__ for step in plain) == "Resize CenterCrop ToTensor Normalize"
    if row is AUTO:
        jitter, auto = steps[2:4]
        assert jitter.brightness == jitter.contrast == jitter.saturation == (0.8, 1.2) and jitter.hue is None
        assert auto.policy.name == "CIFAR10"


def test_validation_shows_the_middle_of_each_portrait(tmp_path):
    data = portraits()
    _, val = loaders(CROP, write(data, tmp_path))
    inputs = torch.cat([inputs for inputs, _ in val])
    for i, j in enumerate(np.argsort(data.val.targets, kind="stable")):
        height, width = data.val.sizes[j]
        image = Image.fromarray(data.val.images[j, :height, :width])
        expected = F.pil_to_tensor(F.center_crop(F.resize(image, [37]), [32, 32]))  # 32 * 256 / 224 = 36.6
        assert (pixels(inputs[i]) - expected).abs().max() < 0.01


@pytest.mark.parametrize("row", [SCENES, THREE], ids=["11 classes", "3 classes"])
def test_scene_batches(row, tmp_path):
    data, classes = scenes(), row.classes
    train, val = loaders(row, write(data, tmp_path))
    batches, items = list(train), list(val)
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 4] and len(items) == 8
    for inputs, targets in batches:
        assert inputs.shape == (4, 3, 32, 32) and inputs.dtype == torch.float32 and inputs.is_contiguous()
        assert targets.shape == (4, classes, 32, 32) and targets.dtype == torch.float32
    for i, (inputs, labels) in enumerate(items):
        assert inputs.shape == (1, 3, 32, 32)
        assert labels.shape == (1, 32, 32) and labels.dtype == torch.uint8
        centre = slice(4, 36), slice(8, 40)
        assert (pixels(inputs[0]) - torch.tensor(data.val.images[i][centre]).permute(2, 0, 1)).abs().max() < 0.01
        targets = torch.tensor(MERGED[classes].targets, dtype=torch.uint8)
        assert torch.equal(labels[0], targets[torch.tensor(data.val.targets[i][centre]).long()])


def test_void_has_no_target_among_eleven_classes_and_class_one_among_three(tmp_path):
    """Pictures that show their own labels, 20 grey levels a class, so that crop and flip can be undone."""
    data = scenes(train=1, val=1)
    every = (np.add.outer(np.arange(40), np.arange(48)) % 12)[None].astype(np.uint8)
    shown = np.repeat(every[..., None] * 20, 3, 3).astype(np.uint8)
    train, val = (replace(split, images=shown, targets=every) for split in (data.train, data.val))
    folder = write(replace(data, train=train, val=val), tmp_path)
    for classes, merged in ((11, range(12)), (3, (0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1))):
        (image, target), *_ = reference.Scenes(folder, "train", 32, MERGED[classes], IMAGENET_MEAN, IMAGENET_STD)
        labels = (pixels(image)[0] / 20).round().long()
        table = torch.eye(12)[list(merged)][:, :classes]
        assert torch.equal(target, table[labels].permute(2, 0, 1))
        void = target[:, labels == VOID]
        assert torch.equal(void.sum(1), torch.tensor([0, void.shape[1], 0]) if classes == 3 else torch.zeros(11))
        (_, numbers), *_ = reference.Scenes(folder, "val", 32, MERGED[classes], IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(numbers.long(), torch.tensor(merged)[torch.tensor(every[0, 4:36, 8:40]).long()])


# Whole runs


def trained(row, folder, workers=0, **changes):
    """Epochs, what changed of the network, and the network."""
    network = build_network(row, seed=0)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    epochs = reference.run(row, network, folder, seed=0, device=CPU, workers=workers, **changes)
    after = network.module.state_dict()
    assert len(epochs) == row.recipe.epochs
    return epochs, {k for k in before if not torch.equal(before[k], after[k])}, network.module


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
    epochs, changed, _ = trained(tiny.row("q1_5"), folder, validate_only=True)
    assert not changed and all(math.isnan(e.loss) for e in epochs)
    assert epochs[0].figures == epochs[1].figures
