"""What a question is made of while it is trained: its batches, its loss, its evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvhw4.data import augment
from cvhw4.data.augment import stream
from cvhw4.data.dataset import VOID, Dataset, Split
from cvhw4.experiments import Experiment
from cvhw4.models.build import Network
from cvhw4.training.metrics import SegmentationCounts, class_map, count_segmentation, segmentation_metrics

EVALUATION_BATCH = {"accuracy": 64, "miou": 12}  # images at once, by task; a map of scores per image is large
Figures = tuple[dict[str, float], dict[str, list[float]]]


class Task(ABC):
    """Data on the device, and what is done with it.

    The order of images and every augmentation are drawn from the seed and the epoch alone, so that all rows trained
    with one seed see the same pictures in the same order where their augmentation is the same.
    """

    primary: str  # the figure that tables put first

    def __init__(
        self, experiment: Experiment, dataset: Dataset, network: Network, device: torch.device, seed: int
    ) -> None:
        self.experiment, self.device, self.seed = experiment, device, seed
        self.size = experiment.recipe.size
        self.train, self.val = (_to_device(split, device) for split in (dataset.train, dataset.val))
        self.mean = torch.tensor(network.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(network.std, device=device).view(1, 3, 1, 1) * 255

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's inputs (normalised float [B, 3, size, size]) and targets, augmented."""
        order = torch.randperm(len(self.train.images), generator=stream(self.seed, "order", epoch))
        generator = stream(self.seed, "augmentation", epoch)
        for index in order.split(self.experiment.recipe.batch):
            images, targets = self.augmented(index, generator)
            yield self.normalised(images), targets

    def normalised(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W], 0..255, to the network's mean and standard deviation."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @abstractmethod
    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images (float 0..255) and targets for some indices."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""

    @abstractmethod
    def evaluate(self, module: nn.Module) -> Figures:
        """Figures on the validation split: one number each, and lists by class. The module is in evaluation mode."""


class _DeviceSplit:
    def __init__(self, images: Tensor, sizes: Tensor, targets: Tensor) -> None:
        self.images, self.sizes, self.targets = images, sizes, targets


def _to_device(split: Split, device: torch.device) -> _DeviceSplit:
    # Copies of memory-mapped arrays: torch wants memory it may write to.
    images, targets = torch.tensor(split.images, device=device), torch.tensor(split.targets, device=device)
    return _DeviceSplit(images, torch.tensor(split.sizes), targets)


class Classification(Task):
    """Q1: cross-entropy, accuracy."""

    primary = "accuracy"

    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Task.augmented`."""
        sizes, kind = self.train.sizes[index], self.experiment.augmentation
        if kind == "whole face":
            boxes = augment.whole_views(sizes, self.size, generator)
        else:
            boxes = augment.random_resized_crops(sizes, generator)
        chosen = index.to(self.device)
        images = augment.resample(self.train.images[chosen], boxes, self.size)
        if kind == "crop + jitter + AutoAugment":
            images = augment.colour_jitter(images, generator)
            images = augment.auto_augment(images.round().to(torch.uint8), generator).float()
        return images, self.train.targets[chosen].long()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Task.loss`."""
        return F.cross_entropy(logits, targets)

    def evaluate(self, module: nn.Module) -> Figures:
        """See `Task.evaluate`."""
        boxes = augment.whole_views(self.val.sizes, self.size)
        logits = []
        for index in torch.arange(len(self.val.images)).split(EVALUATION_BATCH[self.primary]):
            images = augment.resample(self.val.images[index.to(self.device)], boxes[index], self.size)
            logits.append(module(self.normalised(images)))
        scores, targets = torch.cat(logits).float(), self.val.targets.long()
        right = (scores.argmax(1) == targets).double()
        figures = {"accuracy": float(right.mean()), "loss": float(self.loss(scores, targets))}
        recall = [float(right[targets == c].mean()) for c in range(self.experiment.classes)]
        return figures, {"recall": recall}


class Segmentation(Task):
    """Q2: binary cross-entropy against one-hot targets, IoU and pixel accuracy."""

    primary = "miou"

    def __init__(
        self, experiment: Experiment, dataset: Dataset, network: Network, device: torch.device, seed: int
    ) -> None:
        super().__init__(experiment, dataset, network, device, seed)
        self.classes = class_map(experiment.classes).to(device)

    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Task.augmented`."""
        chosen = index.to(self.device)
        images, labels = augment.crop_windows(
            self.train.images[chosen], self.train.targets[chosen], self.size, generator
        )
        return images, self.classes[labels.long()]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Task.loss`. A pixel of no class (void among 11) has a target of all zeros."""
        numbers = torch.arange(self.experiment.classes, device=targets.device, dtype=targets.dtype).view(1, -1, 1, 1)
        return F.binary_cross_entropy_with_logits(logits, (targets[:, None] == numbers).to(logits.dtype))

    def evaluate(self, module: nn.Module) -> Figures:
        """See `Task.evaluate`."""
        counts = []
        for index in torch.arange(len(self.val.images), device=self.device).split(EVALUATION_BATCH[self.primary]):
            images, labels = augment.crop_windows(self.val.images[index], self.val.targets[index], self.size)
            prediction = module(self.normalised(images)).argmax(1)
            target = self.classes[labels.long()]
            counts.append(count_segmentation(prediction, target, labels == VOID, self.experiment.classes))
        return segmentation_metrics(SegmentationCounts.concatenate(counts))


def make_task(experiment: Experiment, dataset: Dataset, network: Network, device: torch.device, seed: int) -> Task:
    """The task that a data set is for."""
    kind = Classification if dataset.task == "classification" else Segmentation
    return kind(experiment, dataset, network, device, seed)
