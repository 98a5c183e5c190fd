"""The reference loop: how a notebook for such a homework trains, as the opponent of a speed comparison.

Pictures are files. Worker processes decode and augment them one by one with PIL, a `DataLoader` collates them, the
loop asks for its loss at every step. All the usual care is taken (persistent workers, pinned memory and non-blocking
copies on CUDA, no gradients in validation), and nothing is slowed down on purpose.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils import data
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as F

from cvhw4.data.augment import JITTER, RESIZE_RATIO
from cvhw4.data.dataset import Dataset
from cvhw4.experiments import Experiment
from cvhw4.models.build import Colour, Network, set_training_mode
from cvhw4.training.counts import class_map

Criterion = Callable[[Tensor, Tensor], Tensor]
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Epoch:
    """What an epoch was like.

    Attributes:
        loss: mean over the training images; NaN where nothing was trained.
        figures: of the validation split, as `validate` names them.
        train_seconds: wall time of the training pass; in the first epoch it includes the start of the workers.
        validate_seconds: likewise of the validation.
    """

    loss: float
    figures: dict[str, float]
    train_seconds: float
    validate_seconds: float


# Files


def write_folders(dataset: Dataset, folder: Path, *, picture: str = "jpg") -> Path:
    """Writes a decoded data set as the files that the loaders below read, each picture at its own size.

    Classification: `{train,val}/<class>/NNNNNN.<picture>`. Segmentation: `train/ trainannot/ val/ valannot/`, with the
    labels as 8-bit PNG of class numbers. NNNNNN is the picture's index in its split.

    Args:
        folder: made where it does not exist; files of the same names are overwritten, others stay.
        picture: "jpg" (quality 95) or "png" (lossless).

    Returns:
        `folder`.

    Raises:
        ValueError: another format; or class names out of alphabetical order, by which `ImageFolder` numbers them.
    """
    if picture not in ("jpg", "png"):
        raise ValueError(f"pictures are written as jpg or png, not {picture}")
    if dataset.task == "classification" and list(dataset.classes) != sorted(dataset.classes):
        raise ValueError(f"classes are not in alphabetical order: {', '.join(dataset.classes)}")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        parts = [name, f"{name}annot"] if dataset.task == "segmentation" else [f"{name}/{c}" for c in dataset.classes]
        for part in parts:
            (folder / part).mkdir(parents=True, exist_ok=True)
        for i in range(len(split)):
            height, width = (int(n) for n in split.sizes[i])
            if dataset.task == "segmentation":
                target = folder / name
                Image.fromarray(np.asarray(split.targets[i, :height, :width])).save(
                    folder / f"{name}annot" / f"{i:06}.png"
                )
            else:
                target = folder / name / dataset.classes[int(split.targets[i])]
            image = Image.fromarray(np.asarray(split.images[i, :height, :width]))
            image.save(target / f"{i:06}.{picture}", quality=95)  # PNG has no quality and ignores it
    return folder


class Scenes(data.Dataset[tuple[Tensor, ...]]):
    """Street scenes of one split with their labels, read and augmented one at a time.

    A training item is (input, target), a validation item (input, labels): float32 [3, size, size], normalised; float32
    [classes, size, size], one-hot, all zeros where a pixel is of no class; uint8 [size, size], class numbers.

    Args:
        folder: as `write_folders` makes it.
        split: "train" (random crop and flip) or "val" (centre crop).
        size: side of the crop, in pixels, at most the pictures' sides.
        classes: 11 or 3.
    """

    def __init__(self, folder: Path, split: str, size: int, classes: int, mean: Colour, std: Colour) -> None:
        self.pictures = sorted(path for path in (folder / split).iterdir() if not path.name.startswith("."))
        self.labels = [folder / f"{split}annot" / f"{path.stem}.png" for path in self.pictures]
        self.training = split == "train"
        self.size, self.classes = size, classes
        self.class_map = class_map(classes)
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


def _portrait_transforms(experiment: Experiment, mean: Colour, std: Colour) -> tuple[Transform, Transform]:
    """Of the training and of the validation split."""
    size = experiment.recipe.size
    to_input = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    middle = [transforms.Resize(round(size * RESIZE_RATIO)), transforms.CenterCrop(size)]
    steps: list[Any] = [transforms.RandomResizedCrop(size)]
    if experiment.augmentation == "whole face":
        steps = list(middle)
    steps.append(transforms.RandomHorizontalFlip())
    if experiment.augmentation == "crop + jitter + AutoAugment":
        steps.append(transforms.ColorJitter(JITTER, JITTER, JITTER))
        steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10))
    return transforms.Compose(steps + to_input), transforms.Compose(middle + to_input)


def make_loaders(
    experiment: Experiment,
    folder: Path,
    *,
    mean: Colour,
    std: Colour,
    seed: int,
    workers: int | None = None,
    pin: bool = False,
) -> tuple[data.DataLoader[Any], data.DataLoader[Any]]:
    """The loaders of the training and of the validation split.

    Args:
        folder: as `write_folders` makes it.
        mean: what inputs are normalised with, per channel, on the scale 0..1; `std` likewise.
        seed: decides the order of training images and, where there are workers, their augmentation.
        workers: processes of each loader; None: one for each processor, at most 16; 0 loads in this process, and
            draws augmentation from torch's global generator.
        pin: whether batches are put in page-locked memory, for CUDA.

    Returns:
        training: shuffled batches of the recipe's size, (inputs, targets): float32 [B, 3, size, size], and int64 [B]
        class numbers (Q1, classes in alphabetical order) or float32 [B, classes, size, size] one-hot (Q2).
        validation: (inputs, targets) in batches of the same size (Q1), or (inputs, labels) one by one with uint8
        [1, size, size] class numbers, 11 where a pixel is of none (Q2).

    Raises:
        FileNotFoundError: a split's folder is missing or, for Q1, has no classes or an empty one.
    """
    recipe = experiment.recipe
    train: data.Dataset[Any]
    val: data.Dataset[Any]
    if experiment.question == "q1":
        for_training, for_validation = _portrait_transforms(experiment, mean, std)
        train, val = ImageFolder(str(folder / "train"), for_training), ImageFolder(str(folder / "val"), for_validation)
        val_batch = recipe.batch
    else:
        train, val = (Scenes(folder, split, recipe.size, experiment.classes, mean, std) for split in ("train", "val"))
        val_batch = 1
    if workers is None:
        workers = min(16, os.cpu_count() or 1)
    settings: dict[str, Any] = dict(num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)
    generator = torch.Generator().manual_seed(seed)
    return (
        data.DataLoader(train, recipe.batch, shuffle=True, generator=generator, **settings),
        data.DataLoader(val, val_batch, **settings),
    )


# Training and validation


def make_optimizer(experiment: Experiment, module: nn.Module) -> optim.Optimizer:
    """The recipe's optimizer over the parameters that require a gradient, in the implementation torch takes by default.

    Raises:
        ValueError: an optimizer the recipe does not know.
    """
    recipe = experiment.recipe
    parameters = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "adam":
        return optim.Adam(parameters, lr=recipe.lr)
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}: use sgd or adam")


def criterion(experiment: Experiment) -> nn.Module:
    """Cross-entropy (Q1), or binary cross-entropy of logits against one-hot targets (Q2)."""
    return nn.CrossEntropyLoss() if experiment.question == "q1" else nn.BCEWithLogitsLoss()


def train_epoch(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Criterion,
    optimizer: optim.Optimizer,
    device: torch.device,
) -> float:
    """One pass over the batches; the module's mode is the caller's business.

    Args:
        batches: inputs float32 [B, 3, size, size], and targets: int64 [B] class numbers (Q1) or float32
            [B, classes, size, size] one-hot (Q2).

    Returns:
        the mean loss over the images.

    Raises:
        ValueError: no batches.
    """
    total, seen = 0.0, 0
    for inputs, targets in batches:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        optimizer.zero_grad()
        loss = criterion(module(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(inputs)
        seen += len(inputs)
    if not seen:
        raise ValueError("there is nothing to train on")
    return total / seen


def validate(
    experiment: Experiment,
    module: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    criterion: Criterion,
    device: torch.device,
) -> dict[str, float]:
    """The figures on a validation split. Leaves the module in evaluation mode.

    Args:
        batches: Q1: (inputs, targets), float32 [B, 3, size, size] and int64 [B]. Q2: (inputs, labels), the labels as
            integer class numbers [B, size, size], `classes` or above where a pixel is of none.

    Returns:
        Q1: "accuracy" and "loss". Q2: "miou" and "pixel_accuracy", image by image as the template computes them: every
        pixel counts, a class in neither prediction nor label is left out of an image. All but the loss 0..1.

    Raises:
        ValueError: no batches.
    """
    module.eval()
    with torch.no_grad():
        if experiment.question == "q1":
            return _validate_portraits(module, batches, criterion, device)
        return _validate_scenes(module, batches, experiment.classes, device)


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
    if not seen:
        raise ValueError("there is nothing to validate on")
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
    if not ious:
        raise ValueError("there is nothing to validate on")
    table = np.array(ious)
    by_class = [column[~np.isnan(column)].mean() for column in table.T if not np.isnan(column).all()]
    return {"miou": float(np.mean(by_class)), "pixel_accuracy": float(np.mean(pixel_accuracies))}


def image_iou(prediction: NDArray[Any], label: NDArray[Any], classes: int) -> list[float]:
    """The IoU of each class in one image, NaN where the class is in neither.

    Args:
        prediction: integer class numbers, of any shape.
        label: integer class numbers, of the same shape; `classes` or above is of no class.
        classes: how many there are.
    """
    ious = []
    for c in range(classes):
        predicted, labelled = prediction == c, label == c
        union = int((predicted | labelled).sum())
        ious.append(int((predicted & labelled).sum()) / union if union else math.nan)
    return ious


def run(
    experiment: Experiment,
    network: Network,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    epochs: int | None = None,
    workers: int | None = None,
    validate_only: bool = False,
) -> list[Epoch]:
    """Trains a network, which changes in place, and validates it after every epoch.

    With `batch_norm="initial"` the module is in evaluation mode from the start, and stays there: what the template's
    validation before the first epoch leaves behind.

    Args:
        folder: as `write_folders` makes it.
        seed: decides order, augmentation and dropout; torch's global generator is seeded with it.
        epochs: instead of the recipe's.
        workers: as in `make_loaders`.
        validate_only: whether the epochs are validations alone.

    Raises:
        FileNotFoundError: as in `make_loaders`.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    module = network.module.to(device).to(memory_format=torch.contiguous_format)
    train, val = make_loaders(
        experiment,
        folder,
        mean=network.mean,
        std=network.std,
        seed=seed,
        workers=workers,
        pin=device.type == "cuda",
    )
    loss_function = criterion(experiment)
    optimizer = make_optimizer(experiment, module)
    schedule = optim.lr_scheduler.StepLR(optimizer, experiment.recipe.lr_step, experiment.recipe.lr_gamma)
    history = []
    for _ in range(experiment.recipe.epochs if epochs is None else epochs):
        loss = math.nan
        started = trained = time.perf_counter()
        if not validate_only:
            set_training_mode(module, experiment)
            loss = train_epoch(module, train, loss_function, optimizer, device)
            schedule.step()
            trained = time.perf_counter()
        figures = validate(experiment, module, val, loss_function, device)
        history.append(Epoch(loss, figures, trained - started, time.perf_counter() - trained))
    return history
