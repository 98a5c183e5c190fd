"""What the training of each task is made of: its batches, its loss, its evaluation (`cvhw4.tasks` has the rest)."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvhw4.data import augment
from cvhw4.data.augment import stream
from cvhw4.data.dataset import Dataset, Packed, Split
from cvhw4.data.gather import alike, framed, gather, memory_limit, place
from cvhw4.labels import merge_classes
from cvhw4.metrics import segmentation_figures, segmentation_lists
from cvhw4.models.build import Network, trained_images
from cvhw4.study import Row
from cvhw4.tasks import CLASSIFICATION, SEGMENTATION, TASKS
from cvhw4.training.counts import contours, count_pixels
from cvhw4.training.memory import MayRunOut, Release, empty_cache
from cvhw4.training.recipe import make_loss

WHOLE = ("whole face", "none")  # augmentations that show the whole picture
NO_CLASS = 255  # target of a pixel that a transform filled in
BLOCK = 256  # images that are augmented at once, about; the same everywhere, since the draws depend on it
# Images at once, by task; a map of scores per image is large.
_EVALUATION_BATCH = {CLASSIFICATION.primary: 64, SEGMENTATION.primary: 12}
KEPT_BYTES = 512 << 20  # validation inputs up to this size are kept from epoch to epoch
Forward = Callable[[Tensor], Tensor]
_Made = TypeVar("_Made")


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        figures: metrics on the validation split by name.
        by_class: lists with one figure per class.
        images: what was made of each image: uint8 [V], the class predicted, or counts int32 [V, 2, L, C]
            (see `cvhw4.training.counts.count_pixels`).
        scores: float32 [V, classes], the probabilities of each image's classes; None for segmentation.
    """

    figures: dict[str, float]
    by_class: dict[str, list[float]]
    images: NDArray
    scores: NDArray[np.float32] | None = None


class Objective(ABC):
    """Data on the device, and what is done with it.

    The order of images and every augmentation are drawn from the seed and the epoch alone, so that all rows trained
    with one seed see the same pictures in the same order where their augmentation is the same.
    """

    primary: str  # the figure that tables put first
    targets: tuple[int, ...] | None = None  # of segmentation, see `cvhw4.labels.Merged`

    def __init__(self, row: Row, dataset: Dataset, network: Network, device: torch.device, seed: int) -> None:
        self.row, self.device, self.seed = row, device, seed
        self._given = dataset, network
        # What lies on the device for speed alone, in the order in which it is dropped; each says if there was anything.
        self.give_up: list[Release] = [self._give_up]
        self._host: Objective | None = None  # the same on the CPU, once the device's memory did not hold a block
        self.size = row.recipe.size
        self._loss = make_loss(row.recipe, TASKS[dataset.task], device)
        self.train, self.val = (DeviceSplit(split, device) for split in (dataset.train, dataset.val))
        self.images = trained_images(network.module, row, len(self.train))  # that an epoch trains on
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        self._keeps = True
        self.mean = torch.tensor(network.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(network.std, device=device).view(1, 3, 1, 1) * 255

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's inputs (normalised float [B, 3, size, size]) and targets, augmented."""
        generator = self.generator(epoch)
        for index in self.blocks(epoch):
            yield from self.block(index, generator)

    def blocks(self, epoch: int) -> tuple[Tensor, ...]:
        """An epoch's images in the order they are trained in, some whole batches at once: indices int64 [M], on the
        CPU."""
        order = torch.randperm(len(self.train), generator=stream(self.seed, "order", epoch))[: self.images]
        batch = self.row.recipe.batch
        return order.split(max(1, BLOCK // batch) * batch)

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return -(-self.images // self.row.recipe.batch)

    def generator(self, epoch: int) -> torch.Generator:
        """What an epoch's augmentation is drawn from, block by block."""
        return stream(self.seed, "augmentation", epoch)

    def block(self, index: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one block; all that is drawn for it is drawn before the first of them."""
        inputs, targets = self.prepared(index, generator)
        batch = self.row.recipe.batch
        for x, y in zip(inputs.split(batch), targets.split(batch), strict=True):
            yield upload(x, self.device), upload(y, self.device)

    def prepared(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images, augmented and normalised, and targets; see `fitting` for where they are."""
        state = generator.get_state()

        def make(objective: Objective) -> tuple[Tensor, Tensor]:
            generator.set_state(state)  # it may have been drawn from in vain
            images, targets = objective.augmented(index, generator)
            return objective.normalised(images), targets

        return self.fitting(make)

    def fitting(self, make: Callable[[Objective], _Made]) -> _Made:
        """What a function makes of the objective on the device or, once the device's memory did not hold that, on the
        host: the same but for rounding."""
        while self._host is None:
            with MayRunOut() if self.device.type != "cpu" else nullcontext():
                return make(self)
            if not self.release():
                problem = "memory does not hold a block of pictures: they are prepared on the host, slower."
                warnings.warn(f"The device's {problem}", stacklevel=2)
                dataset, network = self._given
                self._host = type(self)(self.row, dataset, network, torch.device("cpu"), self.seed)
        return make(self._host)

    def release(self) -> bool:
        """Drops one thing that is on the device for speed alone; False where nothing is left to drop."""
        released = any(drop() for drop in self.give_up)
        empty_cache(self.device)
        return released

    def _give_up(self) -> bool:
        """Frees what is on the device to be there again: validation inputs, and the pictures themselves."""
        if self.device.type == "cpu":
            return False
        held, self._kept, self._keeps = self._kept is not None, None, False
        return any([held, self.train.give_up(), self.val.give_up()])

    def validation(self, *, keep: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised inputs of the validation split, in order, and which images they are (int64 [B], on the CPU).

        Args:
            keep: for the next call, if they are not too many.
        """
        if self._kept is None:
            kept = []
            size = len(self.val) * 3 * self.size**2 * 4
            for index in torch.arange(len(self.val)).split(_EVALUATION_BATCH[self.primary]):
                inputs = self.fitting(lambda objective, i=index: objective.normalised(objective.centred(i)))  # type: ignore[misc]
                if keep and self._keeps and size <= KEPT_BYTES:
                    kept.append((inputs, index))
                yield inputs, index
            self._kept = kept if kept and self._keeps else None
        else:
            yield from self._kept

    def normalised(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W], 0..255, to the network's mean and standard deviation; changed in place."""
        return images.sub_(self.mean).div_(self.std).contiguous(memory_format=torch.channels_last)

    def transformed(self, index: Tensor, generator: torch.Generator, masks: bool) -> tuple[Tensor, Tensor | None]:
        """Training images (float 0..255) as the row's own transform makes them, and masks uint8 [B, 2, size, size]."""
        split, rows = self.train.split, index.numpy()
        targets = gather(split.targets, rows) if masks else None
        transform, sizes = self.row.augmentation, self.train.sizes[index]
        assert callable(transform)
        images = [gather(split.images, row)[0] for row in rows[:, None]]  # one by one, whatever their sizes
        made = augment.transformed(transform, images, sizes, self.size, index, generator, targets)
        return made[0].to(self.device), None if made[1] is None else made[1].to(self.device)

    @abstractmethod
    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images (float 0..255) and targets for some indices."""

    @abstractmethod
    def centred(self, index: Tensor) -> Tensor:
        """Validation images as they are evaluated, not augmented: float [B, 3, size, size], 0..255."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch in training, a scalar."""
        return self._loss(logits, targets)

    @abstractmethod
    def evaluate(self, forward: Forward) -> Evaluation:
        """Figures on the validation split, and what they come from.

        Args:
            forward: maps inputs, as `validation` gives them, to logits; in evaluation mode.
        """


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, without waiting for it; memory of the host is pinned for that."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return augment.move(tensor, device)


class DeviceSplit:
    """A split whose pictures lie on the device where they fit, and are brought there block by block where not."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split, self.device = split, device
        self.sizes = torch.tensor(split.sizes)
        # The limit is a share of what is free, so that what was placed before counts.
        self._images = place(split.pixels, device, limit_bytes=memory_limit(device))
        self._targets = place(split.targets, device, limit_bytes=memory_limit(device))

    def __len__(self) -> int:
        return len(self.split)

    def images(self, index: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] on the device, for indices int64 [B] on the CPU."""
        if isinstance(self.split.images, Packed) and self._images is not None:
            return framed(self._images, self.split.images[index.numpy()])
        return self._pick(self._images, self.split.images, index)

    def resampled(self, index: Tensor, boxes: augment.Boxes, size: int) -> Tensor:
        """Parts of pictures, see `augment.resample`, for indices int64 [B] on the CPU."""
        groups = [torch.from_numpy(group) for group in alike(self.split.images, index.numpy())]
        found = torch.cat([augment.resample(self.images(index[group]), boxes[group], size) for group in groups])
        return found if len(groups) == 1 else found[augment.move(torch.cat(groups).argsort(), self.device)]

    def targets(self, index: Tensor) -> Tensor:
        """uint8 (int16 for more than 256 classes) [B], or uint8 [B, H, W], on the device, likewise."""
        return self._pick(self._targets, self.split.targets, index)

    def give_up(self) -> bool:
        """Brings pictures and targets block by block from now on; whether they lay on the device."""
        held = self._images is not None or self._targets is not None
        self._images = self._targets = None
        return held

    def _pick(self, placed: Tensor | None, array: NDArray[np.uint8] | Packed, index: Tensor) -> Tensor:
        if placed is None:
            return upload(gather(array, index.numpy()), self.device)
        return placed[augment.move(index, self.device)]


class ClassificationObjective(Objective):
    """Whole pictures, accuracy."""

    primary = CLASSIFICATION.primary

    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Objective.augmented`."""
        if callable(self.row.augmentation):
            return self.transformed(index, generator, masks=False)[0], self.train.targets(index).long()
        images = self.train.resampled(index, self.boxes(index, generator), self.size)
        if self.row.augmentation == "crop + jitter + AutoAugment":
            images = augment.colour_jitter(images, generator)
            images = augment.auto_augment(images.round().to(torch.uint8), generator).float()
        return images, self.train.targets(index).long()

    def boxes(self, index: Tensor, generator: torch.Generator) -> augment.Boxes:
        """The parts of some training images that the network is to see, as the row's augmentation draws them."""
        sizes = self.train.sizes[index]
        if self.row.augmentation in WHOLE:
            return augment.whole_views(sizes, self.size, generator if self.row.flips else None)
        boxes = augment.random_resized_crops(sizes, generator)
        return boxes if self.row.flips else replace(boxes, flip=torch.zeros_like(boxes.flip))

    def centred(self, index: Tensor) -> Tensor:
        """See `Objective.centred`."""
        boxes = augment.whole_views(self.val.sizes[index], self.size)
        return self.val.resampled(index, boxes, self.size)

    def evaluate(self, forward: Forward) -> Evaluation:
        """See `Objective.evaluate`."""
        return self.score(torch.cat([forward(inputs) for inputs, _ in self.validation()]))

    def score(self, logits: Tensor) -> Evaluation:
        """The figures of logits [V, classes] on the validation split."""
        targets = self.val.targets(torch.arange(len(self.val))).long()
        loss = float(self._loss(logits, targets, smoothing=0.0))
        kind = torch.uint8 if self.row.classes <= 256 else torch.int16
        predicted, classes = (x.to(kind).cpu().numpy() for x in (logits.argmax(1), targets))
        right = predicted == classes
        recall = [float(right[classes == c].mean()) for c in range(self.row.classes)]
        scores = logits.float().softmax(1).cpu().numpy()
        return Evaluation({"accuracy": float(right.mean()), "loss": loss}, {"recall": recall}, predicted, scores)


class SegmentationObjective(Objective):
    """Classes of pixels, IoU and pixel accuracy."""

    primary = SEGMENTATION.primary

    def __init__(self, row: Row, dataset: Dataset, network: Network, device: torch.device, seed: int) -> None:
        super().__init__(row, dataset, network, device, seed)
        merged = merge_classes(dataset.classes, row.merge or {})
        self.targets = merged.targets
        self.shape = len(merged.targets), len(merged.names)  # labels, classes
        self.classes = torch.tensor(merged.targets, dtype=torch.uint8, device=device)
        self._labels: list[tuple[Tensor, Tensor]] | None = None

    def augmented(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Objective.augmented`."""
        if callable(self.row.augmentation):
            images, masks = self.transformed(index, generator, masks=True)
            assert masks is not None
            classes = self.classes[masks[:, 0].long().clamp(max=len(self.classes) - 1)]
            return images, classes.masked_fill(masks[:, 1] != 1, NO_CLASS)
        images, labels = self.train.images(index), self.train.targets(index)
        draws = None if self.row.augmentation == "none" else generator
        images, labels = augment.crop_windows(images, labels, self.size, draws, flips=self.row.flips)
        if draws is None and self.row.flips:
            images, labels = augment.mirrored(images, labels, generator)
        return images, self.classes[labels.long()]

    def centred(self, index: Tensor) -> Tensor:
        """See `Objective.centred`."""
        return augment.crop_windows(self.val.images(index), self.val.targets(index), self.size)[0]

    def evaluate(self, forward: Forward) -> Evaluation:
        """See `Objective.evaluate`."""
        counts = []
        for (inputs, _), (labels, near) in zip(self.validation(), self.truth(), strict=True):
            prediction = forward(inputs).max(1).indices  # quicker than argmax
            counts.append(count_pixels(prediction, labels, near, self.shape))
        images = torch.cat(counts).cpu().numpy()
        together = images.sum(1)
        figures = {k: float(v) for k, v in segmentation_figures(together, targets=self.targets).items()}
        return Evaluation(figures, segmentation_lists(together, self.targets), images.astype(np.int32))

    def truth(self) -> list[tuple[Tensor, Tensor]]:
        """Batch by batch the validation split's labels (int32 [B, size, size]), and which of their
        pixels are near a contour; kept from epoch to epoch."""
        if self._labels is None:
            batches = torch.arange(len(self.val)).split(_EVALUATION_BATCH[self.primary])
            labels = [augment.centre(self.val.targets(index), self.size).int() for index in batches]
            self._labels = [(batch, contours(batch)) for batch in labels]
        return self._labels


def make_objective(row: Row, dataset: Dataset, network: Network, device: torch.device, seed: int) -> Objective:
    """What the training on a data set is made of."""
    kind = ClassificationObjective if dataset.task == "classification" else SegmentationObjective
    return kind(row, dataset, network, device, seed)
