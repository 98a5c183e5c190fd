"""Training the last layer of a frozen network, whose features are computed in large batches and kept where they can be.

The function trained is the network's own: the same crops in the same order. Dropout is drawn for every image in every
epoch as well, for a whole block of images at a time instead of batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cvhw4.data.augment import Boxes, move, whole_views
from cvhw4.data.gather import memory_limit
from cvhw4.models.frozen import Frozen
from cvhw4.training.memory import MayRunOut, in_parts
from cvhw4.training.objectives import BLOCK, WHOLE, ClassificationObjective, Evaluation, Forward, Objective, upload

Call = Callable[[Forward, Tensor], Tensor]
_TRUNK_BATCH = 64, 256  # images that go through the frozen part at once, on a CPU and on other devices

KEPT_BYTES = 1 << 30  # features of all variants of all training images are kept up to this size


class FrozenClassification:
    """A classification task seen from behind the frozen part: its inputs are features; all else is the objective's.

    Where the augmentation leaves two variants of each image (the whole face: mirrored or not) the features of both are
    computed once, before the first epoch; those of the validation split always are.

    Args:
        objective: the objective, with pictures.
        parts: the network's parts, on the objective's device.
        call: calls a part as the network is called (with its precision).
    """

    def __init__(self, objective: ClassificationObjective, parts: Frozen, call: Call) -> None:
        self.objective, self.parts, self.call = objective, parts, call
        kept = 2 * len(objective.train) * parts.width * 4
        room = min(KEPT_BYTES, memory_limit(self.device))
        self.few = objective.row.augmentation in WHOLE and kept <= room
        self._variants: Tensor | None = None  # [2, N, F]: features of each training image, as it is and mirrored
        self._validation: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def block(self, index: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one block: features float [B, F], as the head sees them, and targets; dropout drawn for all of
        it at once."""
        with torch.no_grad():
            features, targets = self._features(index, generator)
            features = self.call(self.parts.tail, features)
        batch = self.objective.row.recipe.batch
        yield from zip(features.split(batch), targets.split(batch), strict=True)

    def evaluate(self, forward: Forward) -> Evaluation:
        """See `Objective.evaluate`; `forward` maps features to logits."""
        if self._validation is None:  # no dropout here, so that what the tail gives can be kept
            inputs = (inputs for inputs, _ in self.objective.validation(keep=False))
            features = [self.call(self.parts.tail, self._trunk(batch)) for batch in inputs]
            self._validation = torch.cat(features)
        return self.objective.score(forward(self._validation))

    def _features(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the trunk makes of some training images, augmented, and their targets."""
        if self.few and self._variants is None:
            self._variants = self._both_variants()
        if self._variants is None:
            inputs, targets = self.objective.prepared(index, generator)
            return self._in_batches(inputs), upload(targets, self.device)
        flip = move(self.objective.boxes(index, generator).flip.long(), self.device)
        return self._variants[flip, move(index, self.device)], self.objective.train.targets(index).long()

    def _both_variants(self) -> Tensor | None:
        """Features float [2, N, F] of all training images; None, from then on, where memory does not hold them."""
        with MayRunOut():
            return torch.stack([self._whole(mirrored) for mirrored in (False, True)[: 1 + self.objective.row.flips]])
        self.few = False
        return None

    def _whole(self, mirrored: bool) -> Tensor:
        """Features float [N, F] of all training images in whole view."""
        features = []
        for index in torch.arange(len(self.objective.train)).split(BLOCK):
            boxes = whole_views(self.objective.train.sizes[index], self.objective.size)
            boxes = replace(boxes, flip=torch.full((len(index),), mirrored))

            def make(objective: Objective, index: Tensor = index, boxes: Boxes = boxes) -> Tensor:
                return objective.normalised(objective.train.resampled(index, boxes, objective.size))

            features.append(self._in_batches(self.objective.fitting(make)))
        return torch.cat(features)

    def _in_batches(self, inputs: Tensor) -> Tensor:
        return torch.cat([self._trunk(part) for part in inputs.split(_TRUNK_BATCH[self.device.type != "cpu"])])

    def _trunk(self, inputs: Tensor) -> Tensor:
        return in_parts(lambda x: self.call(self.parts.trunk, upload(x, self.device)), inputs, self.release)
