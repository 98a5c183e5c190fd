"""The reference loop of the speed comparison: files, loaders, steps and figures, worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.transforms import functional as F

from benchmarks import reference
from cvhw4.data.camvid import read_camvid
from cvhw4.data.dataset import VOID, Dataset
from cvhw4.data.portraits import read_portraits
from cvhw4.models.build import IMAGENET_MEAN, IMAGENET_STD, build_network
from cvhw4.training.counts import class_map, contours, count_pixels
from cvhw4.training.metrics import segmentation_figures
from tests.tiny import dataset, row

CPU = torch.device("cpu")
CROP, FACE, AUTO, SCENES, THREE = (row(name) for name in ("q1_1", "q1_5", "q1_8", "q2_1a", "q2_3"))


@pytest.fixture(autouse=True)
def _same_draws_and_no_traces(monkeypatch, tmp_path):
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def framed(question, **counts) -> Dataset:
    """tests.tiny's pictures; in Q1 each second one is smaller than its frame."""
    data = dataset(question, **counts)
    if question == "q2":
        return data
    splits = []
    for split in (data.train, data.val):
        sizes, images = split.sizes.copy(), split.images.copy()
        sizes[::4] = (33, 39)
        images[::4, 33:], images[::4, :, 39:] = 0, 0
        splits.append(replace(split, sizes=sizes, images=images))
    return replace(data, train=splits[0], val=splits[1])


def loaders(experiment, folder, seed=0, workers=0, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return reference.make_loaders(experiment, folder, mean=mean, std=std, seed=seed, workers=workers)


def pixels(inputs, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """The grey levels that normalised inputs came from."""
    mean, std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    return (inputs * std + mean) * 255


# Files


def test_portraits_come_back_from_files_as_they_were(tmp_path):
    data = framed("q1")
    folder = reference.write_folders(data, tmp_path / "pictures", picture="png")
    assert folder == tmp_path / "pictures"
    assert (folder / "train/heavy_makeup/000000.png").exists() and (folder / "val/no_heavy_makeup/000007.png").exists()
    back = read_portraits(folder)
    assert back.classes == data.classes
    for split, read in ((data.train, back.train), (data.val, back.val)):
        order = np.argsort(split.targets, kind="stable")
        assert np.array_equal(read.images, split.images[order])
        assert np.array_equal(read.sizes, split.sizes[order])
        assert np.array_equal(read.targets, split.targets[order])


def test_scenes_come_back_from_files_as_they_were(tmp_path):
    data = dataset("q2")
    folder = reference.write_folders(data, tmp_path / "pictures", picture="png")
    back = read_camvid(folder)
    for split, read in ((data.train, back.train), (data.val, back.val)):
        assert np.array_equal(read.images, split.images) and np.array_equal(read.targets, split.targets)
    with Image.open(folder / "valannot/000003.png") as label:
        assert label.mode == "L"


def test_jpeg_is_the_default_and_nearly_lossless(tmp_path):
    data = dataset("q2", train=1, val=1)
    smooth = np.linspace(0, 255, 40 * 48 * 3).reshape(1, 40, 48, 3).astype(np.uint8)
    reference.write_folders(replace(data, train=replace(data.train, images=smooth)), tmp_path)
    with Image.open(tmp_path / "train/000000.jpg") as image:
        assert image.format == "JPEG"
        assert image.quantization[0][0] == 2  # the table of quality 95
        assert np.abs(np.asarray(image).astype(int) - smooth[0]).mean() < 2


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bmp"):
        reference.write_folders(dataset("q1"), tmp_path, picture="bmp")
    with pytest.raises(ValueError, match="alphabetical"):
        reference.write_folders(replace(dataset("q1"), classes=("b", "a")), tmp_path)


# Loaders


@pytest.mark.parametrize("experiment", [CROP, FACE, AUTO], ids=lambda e: e.augmentation)
def test_portrait_batches(experiment, tmp_path):
    size = experiment.recipe.size
    folder = reference.write_folders(framed("q1"), tmp_path, picture="png")
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    train, val = loaders(experiment, folder, mean=mean, std=std)
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
        assert sum(int(targets.sum()) for _, targets in batches) == n // 2
    if experiment is not AUTO:  # brightness tells the class
        for inputs, targets in train:
            assert torch.equal(pixels(inputs, mean, std).mean((1, 2, 3)) > 125, targets == 1)


@pytest.mark.parametrize(
    ("experiment", "names"),
    [
        (CROP, "RandomResizedCrop RandomHorizontalFlip ToTensor Normalize"),
        (FACE, "Resize CenterCrop RandomHorizontalFlip ToTensor Normalize"),
        (AUTO, "RandomResizedCrop RandomHorizontalFlip ColorJitter AutoAugment ToTensor Normalize"),
    ],
    ids=lambda value: getattr(value, "augmentation", ""),
)
def test_portraits_go_through_the_steps_of_their_row(experiment, names, tmp_path):
    folder = reference.write_folders(dataset("q1", train=2, val=2), tmp_path, picture="png")
    train, val = (loader.dataset.transform.transforms for loader in loaders(experiment, folder))
    assert [type(step).__name__ for step in train] == names.split()
    assert [type(step).__name__ for step in val] == ["Resize", "CenterCrop", "ToTensor", "Normalize"]
    if experiment is AUTO:
        jitter, auto = train[2:4]
        assert jitter.brightness == jitter.contrast == jitter.saturation == (0.8, 1.2) and jitter.hue is None
        assert auto.policy.name == "CIFAR10"


def test_validation_shows_the_middle_of_each_portrait(tmp_path):
    data = framed("q1")
    _, val = loaders(CROP, reference.write_folders(data, tmp_path, picture="png"))
    inputs = torch.cat([inputs for inputs, _ in val])
    order = np.argsort(data.val.targets, kind="stable")
    for i, j in enumerate(order):
        height, width = data.val.sizes[j]
        image = Image.fromarray(data.val.images[j, :height, :width])
        expected = F.pil_to_tensor(F.center_crop(F.resize(image, [37]), [32, 32]))  # 32 * 256 / 224 = 36.6
        assert (pixels(inputs[i]) - expected).abs().max() < 0.01


def test_whole_face_keeps_the_whole_face_and_flips(tmp_path):
    folder = reference.write_folders(dataset("q1", train=40, val=2), tmp_path, picture="png")
    train, _ = loaders(FACE, folder)
    views = [F.pil_to_tensor(F.center_crop(F.resize(image, [37]), [32, 32])) for image, _ in plain(train.dataset)]
    views = torch.stack(views).float()
    shown = pixels(torch.cat([inputs for inputs, _ in train]))
    straight, mirrored = (near(shown, views), near(shown, views.flip(-1)))
    assert torch.equal(straight ^ mirrored, torch.ones(40, dtype=torch.bool))
    assert 8 < int(mirrored.sum()) < 32


def plain(folder):
    return [(folder.loader(path), target) for path, target in folder.samples]


def near(shown, views):
    return ((shown[:, None] - views[None]).abs().flatten(2).amax(2) < 0.01).any(1)


def test_random_crops_differ_between_epochs_and_repeat_with_their_seed(tmp_path):
    folder = reference.write_folders(dataset("q1"), tmp_path, picture="png")
    (train, _), (again, _), (other, _) = (loaders(CROP, folder, seed=seed, workers=1) for seed in (3, 3, 4))
    first, second = (torch.cat([inputs for inputs, _ in train]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat([inputs for inputs, _ in again]))
    assert not torch.equal(first, torch.cat([inputs for inputs, _ in other]))
    assert train.persistent_workers and train.num_workers == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_are_as_many_as_processors_up_to_16(tmp_path, monkeypatch):
    folder = reference.write_folders(dataset("q1"), tmp_path, picture="png")
    for processors, workers in ((2, 2), (64, 16), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda n=processors: n)
        assert [loader.num_workers for loader in loaders(CROP, folder, workers=None)] == [workers, workers]


@pytest.mark.parametrize("experiment", [SCENES, THREE], ids=["11 classes", "3 classes"])
def test_scene_batches(experiment, tmp_path):
    data, classes = dataset("q2"), experiment.classes
    folder = reference.write_folders(data, tmp_path, picture="png")
    train, val = loaders(experiment, folder)
    batches = list(train)
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 4]
    for inputs, targets in batches:
        assert inputs.shape == (4, 3, 32, 32) and inputs.dtype == torch.float32 and inputs.is_contiguous()
        assert targets.shape == (4, classes, 32, 32) and targets.dtype == torch.float32
    items = list(val)
    assert len(items) == 8
    for i, (inputs, labels) in enumerate(items):
        assert inputs.shape == (1, 3, 32, 32)
        assert labels.shape == (1, 32, 32) and labels.dtype == torch.uint8
        centre = slice(4, 36), slice(8, 40)
        assert (pixels(inputs[0]) - torch.tensor(data.val.images[i][centre]).permute(2, 0, 1)).abs().max() < 0.01
        assert torch.equal(labels[0], class_map(classes)[torch.tensor(data.val.targets[i][centre]).long()])


def test_void_has_no_target_among_eleven_classes_and_class_one_among_three(tmp_path):
    """Pictures that show their own labels, 20 grey levels a class, so that crop and flip can be undone."""
    data = dataset("q2", train=1, val=1)
    every = (np.add.outer(np.arange(40), np.arange(48)) % 12)[None].astype(np.uint8)
    shown = np.repeat(every[..., None] * 20, 3, 3).astype(np.uint8)
    train, val = (replace(split, images=shown, targets=every) for split in (data.train, data.val))
    folder = reference.write_folders(replace(data, train=train, val=val), tmp_path, picture="png")
    for classes, merged in ((11, range(12)), (3, (0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1))):
        (image, target), *_ = reference.Scenes(folder, "train", 32, classes, IMAGENET_MEAN, IMAGENET_STD)
        labels = (pixels(image)[0] / 20).round().long()
        table = torch.eye(12)[list(merged)][:, :classes]
        assert torch.equal(target, table[labels].permute(2, 0, 1))
        void = target[:, labels == VOID]
        assert torch.equal(void.sum(1), torch.tensor([0, void.shape[1], 0]) if classes == 3 else torch.zeros(11))
        (_, numbers), *_ = reference.Scenes(folder, "val", 32, classes, IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(numbers.long(), torch.tensor(merged)[torch.tensor(every[0, 4:36, 8:40]).long()])


class Replay(nn.Module):
    """Gives back scores prepared for each batch."""

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def forward(self, inputs):
        return next(self.scores)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([SCENES, THREE]), st.integers(1, 12))
def test_scene_figures_are_the_templates(seed, n, experiment, side):
    random, classes = np.random.RandomState(seed), experiment.classes
    some = random.choice(VOID + 1, size=random.randint(1, VOID + 2), replace=False)  # the others are absent
    original = torch.as_tensor(random.choice(some, size=(n, side, side)))
    labels = class_map(classes)[original]
    scores = torch.as_tensor(random.rand(n, classes, side, side)) + 3 * torch.as_tensor(random.rand(1, classes, 1, 1))
    batches = [(torch.zeros(1, 3, side, side), labels[i : i + 1]) for i in range(n)]
    figures = reference.validate(experiment, Replay(scores.split(1)), batches, None, CPU)
    counts = count_pixels(scores.argmax(1), original, contours(original), classes)
    expected = segmentation_figures(counts.numpy().sum(1))
    assert figures == pytest.approx({k: float(expected[k]) for k in ("miou", "pixel_accuracy")})


def test_a_class_in_neither_is_left_out_and_a_class_in_one_is_a_zero():
    label, prediction = np.array([[0, 0], [3, VOID]]), np.array([[0, 3], [3, 3]])
    ious = reference.image_iou(prediction, label, 11)
    assert ious[0] == 1 / 2 and ious[3] == 1 / 3
    assert all(math.isnan(ious[c]) for c in range(11) if c not in (0, 3))
    assert reference.image_iou(np.array([4]), np.array([0]), 5)[::4] == [0, 0]


def test_scene_with_nothing_but_void_and_no_batches():
    # One class is predicted everywhere and labelled nowhere.
    scores = torch.zeros(1, 11, 2, 2).index_fill(1, torch.tensor([6]), 1.0)
    void = torch.full((1, 2, 2), VOID, dtype=torch.uint8)
    figures = reference.validate(SCENES, Replay([scores]), [(torch.zeros(1), void)], None, CPU)
    assert figures == {"miou": 0.0, "pixel_accuracy": 0.0}
    for experiment in (CROP, SCENES):
        with pytest.raises(ValueError, match="nothing to validate"):
            reference.validate(experiment, Replay([]), [], None, CPU)


def test_portrait_figures_weigh_each_image_alike():
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(10, 2, generator=generator), torch.randint(2, (10,), generator=generator)
    batches = [(torch.zeros(len(t), 1), t) for t in targets.split(4)]  # the last is smaller
    module = Replay(scores.split(4)).train()
    figures = reference.validate(CROP, module, batches, reference.criterion(CROP), CPU)
    assert figures["accuracy"] == pytest.approx(float((scores.argmax(1) == targets).double().mean()))
    assert figures["loss"] == pytest.approx(float(nn.functional.cross_entropy(scores, targets)), rel=1e-6)
    assert not module.training


# Steps


@pytest.mark.parametrize("experiment", [CROP, SCENES], ids=["SGD", "Adam"])
def test_an_epoch_is_the_same_steps_written_by_hand(experiment):
    experiment = replace(experiment, recipe=replace(experiment.recipe, lr=0.05))
    generator = torch.Generator().manual_seed(0)
    portraits = experiment.question == "q1"
    module, twin = (nn.Conv2d(3, 2, 8) if portraits else nn.Conv2d(3, 3, 1) for _ in range(2))
    twin.load_state_dict(module.state_dict())
    inputs = [torch.randn(n, 3, 8, 8, generator=generator) for n in (4, 4, 2)]
    if portraits:
        targets = [torch.randint(2, (len(x),), generator=generator) for x in inputs]
        module, twin = nn.Sequential(module, nn.Flatten()), nn.Sequential(twin, nn.Flatten())
    else:
        targets = [(torch.rand(len(x), 3, 8, 8, generator=generator) < 0.3).float() for x in inputs]
    batches = list(zip(inputs, targets, strict=True))
    optimizer = reference.make_optimizer(experiment, module)
    mean = reference.train_epoch(module, batches, reference.criterion(experiment), optimizer, CPU)

    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in twin.parameters()]
    total = 0.0
    for step, (x, y) in enumerate(batches, 1):
        scores = twin(x)
        if portraits:
            loss = -scores.log_softmax(1).gather(1, y[:, None]).mean()
        else:
            loss = -(y * scores.sigmoid().log() + (1 - y) * (-scores).sigmoid().log()).mean()
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        total += float(loss.detach()) * len(x)
        with torch.no_grad():
            for p, g, (m, v) in zip(twin.parameters(), gradients, state, strict=True):
                if portraits:  # momentum 0.9
                    m.mul_(0.9).add_(g)
                    p -= 0.05 * m
                else:
                    m.lerp_(g, 0.1)
                    v.lerp_(g * g, 0.001)
                    p -= 0.05 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    assert mean == pytest.approx(total / 10, rel=1e-5)
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_epoch_leaves_the_mode_alone_and_wants_batches():
    module = nn.Linear(2, 2).eval()
    optimizer = reference.make_optimizer(CROP, module)
    reference.train_epoch(module, [(torch.zeros(1, 2), torch.zeros(1).long())], nn.CrossEntropyLoss(), optimizer, CPU)
    assert not module.training
    with pytest.raises(ValueError, match="nothing to train"):
        reference.train_epoch(module, [], nn.CrossEntropyLoss(), optimizer, CPU)


def test_optimizers_are_the_recipes_over_what_is_trained():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    sgd, adam = (reference.make_optimizer(experiment, module) for experiment in (CROP, AUTO))
    for optimizer, experiment in ((sgd, CROP), (adam, AUTO)):
        (group,) = optimizer.param_groups
        assert group["params"] == list(module[1].parameters()) and group["lr"] == experiment.recipe.lr
        assert not group["fused"] and group["weight_decay"] == 0
    assert isinstance(sgd, torch.optim.SGD) and sgd.param_groups[0]["momentum"] == 0.9
    assert isinstance(adam, torch.optim.Adam) and adam.param_groups[0]["betas"] == (0.9, 0.999)
    with pytest.raises(ValueError, match="lion"):
        reference.make_optimizer(replace(CROP, recipe=replace(CROP.recipe, optimizer="lion")), module)


# Whole runs


def trained(experiment, folder, **changes):
    network = build_network(experiment, seed=0)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    epochs = reference.run(experiment, network, folder, seed=0, device=CPU, workers=0, **changes)
    after = network.module.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    return epochs, changed, network.module


def test_a_frozen_classifier_learns_its_last_layer(tmp_path):
    folder = reference.write_folders(dataset("q1"), tmp_path)
    epochs, changed, module = trained(row("q1_5", lr=0.05, lr_step=99), folder, epochs=5)
    assert len(epochs) == 5
    assert all(math.isfinite(e.loss) and e.train_seconds > 0 and e.validate_seconds > 0 for e in epochs)
    assert epochs[-1].loss < 0.7 * epochs[0].loss
    assert set(epochs[0].figures) == {"accuracy", "loss"} and epochs[-1].figures["accuracy"] == 1
    assert changed == {"classifier.weight", "classifier.bias"}
    assert not any(p.is_contiguous(memory_format=torch.channels_last) for p in module.parameters() if min(p.shape) > 1)


def test_scenes_are_learnt_and_batch_norm_keeps_its_first_statistics(tmp_path):
    folder = reference.write_folders(dataset("q2"), tmp_path)
    epochs, changed, _ = trained(row("q2_1a", lr_step=99), folder, epochs=4)
    assert all(math.isfinite(e.loss) for e in epochs)
    assert epochs[-1].loss < 0.7 * epochs[0].loss
    assert set(epochs[0].figures) == {"miou", "pixel_accuracy"}
    assert all(0 <= figure <= 1 for e in epochs for figure in e.figures.values())
    assert not any("running_" in k for k in changed)
    assert {"norms.0.weight", "deconvs.0.weight", "backbone.conv_stem.weight"} <= changed


def test_batch_norm_in_training_mode_gathers_statistics(tmp_path):
    folder = reference.write_folders(dataset("q2", train=4, val=2), tmp_path)
    _, changed, _ = trained(replace(row("q2_1a"), batch_norm="train"), folder, epochs=1)
    assert "norms.2.running_mean" in changed


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # nothing is trained here
def test_learning_rate_is_stepped_by_epoch(tmp_path, monkeypatch):
    rates = []
    monkeypatch.setattr(
        reference, "train_epoch", lambda *arguments: rates.append(arguments[3].param_groups[0]["lr"]) or 0.0
    )
    monkeypatch.setattr(reference, "validate", lambda *arguments: {})
    folder = reference.write_folders(dataset("q1", train=2, val=2), tmp_path)
    trained(row("q1_5", lr=1.0, lr_step=2, lr_gamma=0.1, epochs=5), folder)
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_validation_alone_changes_nothing(tmp_path):
    folder = reference.write_folders(dataset("q1", train=2, val=4), tmp_path)
    epochs, changed, _ = trained(row("q1_5"), folder, epochs=2, validate_only=True)
    assert not changed and len(epochs) == 2
    assert all(math.isnan(e.loss) and e.train_seconds == 0 and e.validate_seconds > 0 for e in epochs)
    assert epochs[0].figures == epochs[1].figures


def test_a_run_with_workers(tmp_path):
    folder = reference.write_folders(dataset("q2", train=4, val=2), tmp_path)
    network = build_network(SCENES, seed=0)
    (epoch,) = reference.run(SCENES, network, folder, seed=0, device=CPU, epochs=1, workers=2)
    assert math.isfinite(epoch.loss)
