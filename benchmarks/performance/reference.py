"""The reference loop: how a notebook for such a homework trains, as the opponent of a speed comparison.

Pictures are files. Worker processes decode and augment them one by one with PIL, a `DataLoader` collates them, the
loop asks for its loss at every step. All the usual care is taken (persistent workers, pinned memory and non-blocking
copies on CUDA, no gradients in validation), and nothing is slowed down on purpose.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils import data
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as F

from cvhw4 import CAMVID, Row
from cvhw4.data.augment import JITTER, RESIZE_RATIO
from cvhw4.data.dataset import Dataset
from cvhw4.labels import Merged, merge_classes
from cvhw4.models.build import Colour, Network, set_training_mode

Criterion = Callable[[Tensor, Tensor], Tensor]
Transform = Callable[[Image.Image], Tensor]


class Epoch(NamedTuple):
    """What an epoch was like: the mean loss over the training images, NaN where nothing was trained, and the figures of
    the validation split, as `validate` names them."""

    loss: float
    figures: dict[str, float]


# Files


def write_folders(dataset: Dataset, folder: Path, *, picture: Literal["jpg", "png"] = "jpg") -> Path:
    """Writes a decoded data set as the files that the loaders below read, each picture at its own size.

    Classification: `{train,val}/<class>/NNNNNN.<picture>`. Segmentation: `train/ trainannot/ val/ valannot/`, with the
    labels as 8-bit PNG of class numbers. NNNNNN is the picture's index in its split.

    Args:
        dataset: its classes in alphabetical order, by which `ImageFolder` numbers them.
        folder: made where it does not exist; files of the same names are overwritten, others stay. It is returned.
        picture: "jpg" (quality 95) or "png" (lossless).
    """
    classifies = dataset.task == "classification"
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        for part in [f"{name}/{c}" for c in dataset.classes] if classifies else [name, f"{name}annot"]:
            (folder / part).mkdir(parents=True, exist_ok=True)
        for i, (height, width) in enumerate(split.sizes.tolist()):
            target = folder / name / (dataset.classes[int(split.targets[i])] if classifies else "")
            image = Image.fromarray(np.asarray(split.images[i, :height, :width]))
            image.save(target / f"{i:06}.{picture}", quality=95)  # PNG has no quality and ignores it
            if not classifies:
                label = Image.fromarray(np.asarray(split.targets[i, :height, :width]))
                label.save(folder / f"{name}annot" / f"{i:06}.png")
    return folder


class Scenes(data.Dataset[tuple[Tensor, ...]]):
    """Street scenes of one split with their labels, read and augmented one at a time.

    A training item is (input, target), a validation item (input, labels): float32 [3, size, size], normalised; float32
    [classes, size, size], one-hot, all zeros where a pixel is of no class; uint8 [size, size], class numbers.

    Args:
        folder: as `write_folders` makes it.
        split: "train" (random crop and flip) or "val" (centre crop).
        size: side of the crop, in pixels, at most the pictures' sides.
        classes: CamVid's, as they are merged.
    """

    def __init__(self, folder: Path, split: str, size: int, classes: Merged, mean: Colour, std: Colour) -> None:
        self.pictures = sorted(path for path in (folder / split).iterdir() if not path.name.startswith("."))
        self.labels = [folder / f"{split}annot" / f"{path.stem}.png" for path in self.pictures]
        self.training = split == "train"
        self.size, self.classes = size, len(classes.names)
        self.class_map = torch.tensor(classes.targets, dtype=torch.uint8)
        self.to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        with Image.open(self.pictures[index]) as file:
            image = file.convert("RGB")
        with Image.open(self.labels[index]) as file:
            label = file.copy()
        if self.training:
            window = transforms.RandomCrop.get_params(image, (self.size, self.size))
        else:
            window = (image.height - self.size) // 2, (image.width - self.size) // 2, self.size, self.size
        image, label = F.crop(image, *window), F.crop(label, *window)
        if self.training and torch.rand(1) < 0.5:
            image, label = F.hflip(image), F.hflip(label)
        numbers = self.class_map[torch.from_numpy(np.array(label)).long()]
        if not self.training:
            return self.to_input(image), numbers
        return self.to_input(image), (numbers == torch.arange(self.classes)[:, None, None]).float()


def _portrait_transforms(row: Row, mean: Colour, std: Colour) -> tuple[Transform, Transform]:
    """Of the training and of the validation split."""
    size = row.recipe.size
    to_input = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    middle: list[Any] = [transforms.Resize(round(size * RESIZE_RATIO)), transforms.CenterCrop(size)]
    steps = list(middle) if row.augmentation == "whole face" else [transforms.RandomResizedCrop(size)]
    steps.append(transforms.RandomHorizontalFlip())
    if row.augmentation == "crop + jitter + AutoAugment":
        steps.append(transforms.ColorJitter(JITTER, JITTER, JITTER))
        steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10))
    return transforms.Compose(steps + to_input), transforms.Compose(middle + to_input)


def make_loaders(
    row: Row, folder: Path, *, mean: Colour, std: Colour, seed: int, workers: int | None = None, pin: bool = False
) -> tuple[data.DataLoader[Any], data.DataLoader[Any]]:
    """The loaders of the training and of the validation split. Raises FileNotFoundError: a split's folder is missing
    or, for classification, has no classes or an empty one.

    Args:
        folder: as `write_folders` makes it.
        mean: what inputs are normalised with, per channel, on the scale 0..1; `std` likewise.
        seed: decides the order of training images and, where there are workers, their augmentation.
        workers: processes of each loader; None: one for each processor, at most 16; 0 loads in this process, and
            draws augmentation from torch's global generator.
        pin: whether batches are put in page-locked memory, for CUDA.

    Returns:
        training: shuffled batches of the recipe's size, (inputs, targets): float32 [B, 3, size, size], and int64 [B]
        class numbers (classes in alphabetical order) or, for segmentation, float32 [B, classes, size, size] one-hot.
        validation: (inputs, targets) in batches of the same size, or, for segmentation, (inputs, labels) one by one
        with uint8 [1, size, size] class numbers, 11 where a pixel is of none.
    """
    recipe = row.recipe
    splits: tuple[data.Dataset[Any], ...]
    if row.task.name == "classification":
        parts = zip(("train", "val"), _portrait_transforms(row, mean, std), strict=True)
        splits, val_batch = tuple(ImageFolder(str(folder / split), steps) for split, steps in parts), recipe.batch
    else:
        classes = merge_classes(CAMVID["classes"], row.merge or {})
        splits = tuple(Scenes(folder, split, recipe.size, classes, mean, std) for split in ("train", "val"))
        val_batch = 1
    workers = min(16, os.cpu_count() or 1) if workers is None else workers
    settings: dict[str, Any] = dict(num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)
    order = torch.Generator().manual_seed(seed)
    training = data.DataLoader(splits[0], recipe.batch, shuffle=True, generator=order, **settings)
    return training, data.DataLoader(splits[1], val_batch, **settings)


# Training and validation


def make_optimizer(row: Row, module: nn.Module) -> optim.Optimizer:
    """The recipe's optimizer over the parameters that require a gradient, in torch's default implementation."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if row.recipe.optimizer == "sgd":
        return optim.SGD(parameters, lr=row.recipe.lr, momentum=row.recipe.momentum or 0.0)
    return optim.Adam(parameters, lr=row.recipe.lr)


def criterion(row: Row) -> nn.Module:
    """Cross-entropy or, for segmentation, binary cross-entropy of logits against one-hot targets."""
    return nn.CrossEntropyLoss() if row.task.name == "classification" else nn.BCEWithLogitsLoss()


def train_epoch(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Criterion,
    optimizer: optim.Optimizer,
    device: torch.device,
) -> float:
    """One pass over the batches, as `make_loaders` gives them; the mean loss over the images. The module's mode is the
    caller's business."""
    total, seen = 0.0, 0
    for inputs, targets in batches:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        optimizer.zero_grad()
        loss = criterion(module(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(inputs)
        seen += len(inputs)
    return total / seen


def validate(
    row: Row, module: nn.Module, batches: Iterable[tuple[Tensor, ...]], criterion: Criterion, device: torch.device
) -> dict[str, float]:
    """The figures on a validation split. Leaves the module in evaluation mode.

    Args:
        batches: as `make_loaders` gives them, but labels [B, size, size] in batches of any size.

    Returns:
        "accuracy" and "loss"; for segmentation "miou" and "pixel_accuracy", image by image as the template computes
        them: every pixel counts, a class in neither prediction nor label is left out of an image. All but the loss
        0..1.
    """
    module.eval()
    with torch.no_grad():
        if row.task.name == "classification":
            return _validate_portraits(module, batches, criterion, device)
        return _validate_scenes(module, batches, row.classes, device)


def _validate_portraits(
    module: nn.Module, batches: Iterable[tuple[Tensor, ...]], criterion: Criterion, device: torch.device
) -> dict[str, float]:
    running_loss, seen = 0.0, 0
    running_corrects = torch.zeros((), dtype=torch.int64, device=device)
    for inputs, targets in batches:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        logits = module(inputs)
        running_loss += criterion(logits, targets).item() * len(inputs)
        running_corrects += torch.sum(logits.argmax(1) == targets)
        seen += len(inputs)
    return {"accuracy": running_corrects.item() / seen, "loss": running_loss / seen}


def _validate_scenes(
    module: nn.Module, batches: Iterable[tuple[Tensor, ...]], classes: int, device: torch.device
) -> dict[str, float]:
    ious, pixel_accuracies = [], []
    for inputs, labels in batches:
        predictions = module(inputs.to(device, non_blocking=True)).argmax(1).cpu().numpy()
        for prediction, label in zip(predictions, labels.numpy(), strict=True):
            ious.append(image_iou(prediction, label, classes))
            pixel_accuracies.append(float((prediction == label).mean()))
    table = np.array(ious)
    by_class = [column[~np.isnan(column)].mean() for column in table.T if not np.isnan(column).all()]
    return {"miou": float(np.mean(by_class)), "pixel_accuracy": float(np.mean(pixel_accuracies))}


def image_iou(prediction: NDArray[Any], label: NDArray[Any], classes: int) -> list[float]:
    """The IoU of each class in one image, NaN where the class is in neither of two arrays of integer class numbers of
    one shape; a label of `classes` or above is of no class."""
    ious = []
    for c in range(classes):
        predicted, labelled = prediction == c, label == c
        union = int((predicted | labelled).sum())
        ious.append(int((predicted & labelled).sum()) / union if union else math.nan)
    return ious


def run(
    row: Row,
    network: Network,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    workers: int | None = None,
    validate_only: bool = False,
) -> list[Epoch]:
    """Trains a network, which changes in place, and validates it after every epoch.

    With `batch_norm="frozen"` the module is in evaluation mode from the start, and stays there: what the template's
    validation before the first epoch leaves behind. Raises FileNotFoundError: as in `make_loaders`.

    Args:
        folder: as `write_folders` makes it.
        seed: decides order, augmentation and dropout; torch's global generator is seeded with it.
        workers: as in `make_loaders`.
        validate_only: whether the epochs are validations alone.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    module = network.module.to(device).to(memory_format=torch.contiguous_format)
    settings: dict[str, Any] = dict(seed=seed, workers=workers, pin=device.type == "cuda")
    train, val = make_loaders(row, folder, mean=network.mean, std=network.std, **settings)
    loss_function, optimizer = criterion(row), make_optimizer(row, module)
    assert isinstance(row.recipe.lr_step, int)
    schedule = optim.lr_scheduler.StepLR(optimizer, row.recipe.lr_step, row.recipe.lr_gamma)
    history = []
    for _ in range(row.recipe.epochs):
        loss = math.nan
        if not validate_only:
            set_training_mode(module, row)
            loss = train_epoch(module, train, loss_function, optimizer, device)
            schedule.step()
        history.append(Epoch(loss, validate(row, module, val, loss_function, device)))
    return history
