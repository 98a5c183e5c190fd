"""Augmentation in batches on the training device, with parameters drawn for each image.

A crop that is scaled to the input size is a product of two small matrices per image, one for its rows and one for its
columns (bilinear with antialiasing: the triangle filter of Pillow's and torchvision's `resize`), so a whole batch of
different crops, flips included, is two batched matrix products. Parameters are drawn on the CPU from a generator of
their own: the same on every device, and for every network trained with the same seed.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, grid_sample
from torchvision import tv_tensors
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as F

from cvhw4.errors import InputError

# The protocol's ratio of Resize(256) to CenterCrop(224), for any input size.
RESIZE_RATIO = 256 / 224
# ColorJitter's brightness, contrast and saturation: the report names the transform, not its strength; hue is left
# alone, because the colour of a face is what telling make-up is about. This project's choice.
JITTER = 0.2


PLANES_BYTES = 16 << 20  # of float planes that are scaled at once on a CPU, whose cache they should stay near


def stream(seed: int, *purpose: str | int) -> Generator:
    """A generator of its own for each purpose: a draw added for one never shifts the draws of another."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for what the device is doing."""
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Boxes:
    """Where the output squares come from, in source pixels; each tensor is float64 or bool [B] or [B, 4].

    Attributes:
        box: top, left, height, width of the part that fills the output.
        reach: the same for the pixels that the filter may read: the box itself for crop-then-resize, the whole picture
            for resize-then-crop.
        flip: whether the output is mirrored left to right.
    """

    box: Tensor
    reach: Tensor
    flip: Tensor

    def __getitem__(self, index: Tensor | slice) -> Boxes:
        return Boxes(self.box[index], self.reach[index], self.flip[index])


def random_resized_crops(sizes: Tensor, generator: Generator) -> Boxes:
    """Crops as torchvision's `RandomResizedCrop` draws them (area 0.08 to 1, ratio 3/4 to 4/3, ten tries), then flips.

    Args:
        sizes: int [N, 2], height and width of the pictures.
    """
    n, tries = len(sizes), 10
    height, width = sizes.double().unbind(1)
    area = (height * width)[:, None] * (0.08 + 0.92 * torch.rand(n, tries, generator=generator, dtype=torch.float64))
    log_ratio = math.log(4 / 3) * (2 * torch.rand(n, tries, generator=generator, dtype=torch.float64) - 1)
    ratio = log_ratio.exp()
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.double().argmax(1, keepdim=True)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    # No try fitted: the largest central crop with an allowed ratio.
    picture_ratio = width / height
    fallback_h = torch.where(picture_ratio < 3 / 4, (width / (3 / 4)).round(), height)
    fallback_w = torch.where(picture_ratio > 4 / 3, (height * (4 / 3)).round(), width)
    found = fits.any(1)
    h, w = torch.where(found, h, fallback_h), torch.where(found, w, fallback_w)
    place = torch.rand(2, n, generator=generator, dtype=torch.float64)
    top = torch.where(found, (place[0] * (height - h + 1)).floor(), ((height - h) / 2).floor())
    left = torch.where(found, (place[1] * (width - w + 1)).floor(), ((width - w) / 2).floor())
    box = torch.stack([top, left, h, w], 1)
    return Boxes(box, box, _flips(n, generator))


def whole_views(sizes: Tensor, size: int, generator: Generator | None = None) -> Boxes:
    """The middle of each picture as Resize(256) and CenterCrop(224) show it, scaled to any size.

    Args:
        sizes: int [N, 2], height and width of the pictures.
        size: side of the output, in pixels.
        generator: draws flips; None flips nothing (validation).
    """
    height, width = sizes.double().unbind(1)
    short = round(size * RESIZE_RATIO)
    # torchvision scales the shorter side to `short`, the longer to the whole number below, and crops at whole pixels.
    factor = short / torch.minimum(height, width)
    new_h = torch.where(height <= width, torch.full_like(height, short), (height * factor + 1e-9).floor())
    new_w = torch.where(width <= height, torch.full_like(width, short), (width * factor + 1e-9).floor())
    top, left = ((new_h - size) / 2).round(), ((new_w - size) / 2).round()
    step_y, step_x = height / new_h, width / new_w
    box = torch.stack([top * step_y, left * step_x, size * step_y, size * step_x], 1)
    zero = torch.zeros_like(height)
    flip = torch.zeros(len(sizes), dtype=torch.bool) if generator is None else _flips(len(sizes), generator)
    return Boxes(box, torch.stack([zero, zero, height, width], 1), flip)


def _flips(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5


def resample(images: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Scales a part of each image to a square.

    Args:
        images: uint8 [B, H, W, 3].
        boxes: the parts, for the same B images, on any device.
        size: side of the output.

    Returns:
        float32 [B, 3, size, size], 0..255.
    """
    if (most := _at_once(images)) < len(images):
        parts = torch.arange(len(images)).split(most)
        return torch.cat([resample(images[p[0] : p[-1] + 1], boxes[p], size) for p in parts])
    device = images.device
    box, reach = move(boxes.box.float(), device), move(boxes.reach.float(), device)
    rows = _weights(box[:, 0], box[:, 2], reach[:, 0], reach[:, 2], images.shape[1], size)
    columns = _weights(box[:, 1], box[:, 3], reach[:, 1], reach[:, 3], images.shape[2], size)
    columns = torch.where(move(boxes.flip, device)[:, None, None], columns.flip(1), columns)
    planes = images.permute(0, 3, 1, 2).float()
    return rows[:, None] @ planes @ columns[:, None].transpose(2, 3)


def _at_once(images: Tensor) -> int:
    """How many of these images are scaled or moved at once."""
    room = PLANES_BYTES if images.device.type == "cpu" else 64 * PLANES_BYTES
    return max(1, room // (4 * images[0].numel()))  # bytes of an image's float planes


def _weights(start: Tensor, length: Tensor, low: Tensor, span: Tensor, pixels: int, size: int) -> Tensor:
    """float32 [B, size, pixels]: how much each source pixel of a row counts in each output pixel."""
    scale = (length / size)[:, None, None]
    out = torch.arange(size, device=start.device)[None, :, None]
    source = torch.arange(pixels, device=start.device)[None, None, :]
    centre = start[:, None, None] + (out + 0.5) * scale
    weight = (1 - (source + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    low, high = low[:, None, None], (low + span)[:, None, None]
    weight = weight * ((source + 0.5 > low) & (source + 0.5 < high))
    return weight / weight.sum(2, keepdim=True)


def crop_windows(
    images: Tensor, targets: Tensor, size: int, generator: Generator | None = None, *, flips: bool = True
) -> tuple[Tensor, Tensor]:
    """Square windows of street scenes and their labels, unscaled.

    Args:
        images: uint8 [B, H, W, 3].
        targets: uint8 [B, H, W].
        size: side of the window, at most H and W.
        generator: draws the place and the flip of each; None takes the centre, unflipped.
        flips: whether any is flipped; the places are the same.

    Returns:
        float32 [B, 3, size, size], 0..255, and uint8 [B, size, size].
    """
    if generator is None:
        return centre(images, size).permute(0, 3, 1, 2).float(), centre(targets, size)
    n, height, width, _ = images.shape
    place = torch.rand(2, n, generator=generator, dtype=torch.float64)
    top, left = (place[0] * (height - size + 1)).long(), (place[1] * (width - size + 1)).long()
    flip = _flips(n, generator) & flips
    top, left, flip, image = (move(t, images.device)[:, None] for t in (top, left, flip, torch.arange(n)))
    across = torch.arange(size, device=images.device)
    columns = left + torch.where(flip, across.flip(0), across)
    index = image[:, :, None], (top + across)[:, :, None], columns[:, None, :]
    return images[index].permute(0, 3, 1, 2).float(), targets[index]


def mirrored(images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] and targets [B, H, W], half of them mirrored left to right."""
    flip = move(_flips(len(images), generator), images.device)[:, None, None]
    return torch.where(flip[..., None], images.flip(3), images), torch.where(flip, targets.flip(2), targets)


def transformed(
    transform: Callable[..., Any],
    images: Sequence[Tensor] | Tensor,
    sizes: Tensor,
    size: int,
    numbers: Tensor,
    generator: Generator,
    targets: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Pictures as a transform of `torchvision.transforms.v2` makes them, one by one, on the host.

    Args:
        images: uint8 [H, W, 3] each, on the host.
        sizes: int [B, 2], height and width of each picture in its frame.
        size: side of the output.
        numbers: int64 [B], which images of the split they are.
        generator: of the epoch; its seed and the number decide what is drawn for a picture, and nothing else does.
        targets: uint8 [B, H, W] class numbers per pixel, of scenes.

    Returns:
        float32 [B, 3, size, size], 0..255; and uint8 [B, 2, size, size], class numbers and 1 where the picture has that
        pixel, or None.

    Raises:
        InputError: the transform raises, or what it gives is no such picture.
    """
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    pictures, masks = [], []
    try:
        for i, number in enumerate(numbers.tolist()):
            seed = stream(generator.initial_seed(), number).initial_seed()
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            height, width = sizes[i].tolist()
            given: list[Tensor] = [tv_tensors.Image(images[i][:height, :width].permute(2, 0, 1).contiguous())]
            if targets is not None:
                there = targets[i, :height, :width]
                given.append(tv_tensors.Mask(torch.stack([there, torch.ones_like(there)])))
            pictures.append(_picture(made := _call_transform(transform, given), size))
            if targets is not None:
                masks.append(_mask(made, size))
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
    return torch.stack(pictures), torch.stack(masks) if masks else None


_TRANSFORM = "augmentation"


def _call_transform(transform: Callable[..., Any], given: list[Tensor]) -> tuple[Any, ...]:
    try:
        made = transform(*given)
    except Exception as error:  # of the user's own
        problem = f"raises {type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(_TRANSFORM, problem, "see what it is called with in cvhw4.Row") from error
    return tuple(made) if isinstance(made, list | tuple) else (made,)


def _picture(made: tuple[Any, ...], size: int) -> Tensor:
    """float32 [3, size, size], 0..255, of what a transform gave; raises InputError."""
    picture = made[0] if made else None
    if not isinstance(picture, Tensor) or tuple(picture.shape) != (3, size, size):
        shape = list(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
        hint = f"end it with v2.RandomResizedCrop({size}), v2.RandomCrop({size}) or v2.Resize(({size}, {size}))"
        raise InputError(_TRANSFORM, f"gives {shape} and not [3, {size}, {size}]", hint)
    picture = picture.as_subclass(Tensor)
    if picture.dtype == torch.uint8:
        return picture.float()
    if not picture.is_floating_point() or not bool(((picture >= 0) & (picture <= 1)).all()):
        hint = "leave Normalize out, pictures are normalised as the network expects"
        raise InputError(_TRANSFORM, f"gives {picture.dtype} that is not uint8, nor float from 0 to 1", hint)
    return picture.float() * 255


def _mask(made: tuple[Any, ...], size: int) -> Tensor:
    """uint8 [2, size, size] of what a transform gave; raises InputError."""
    mask = made[1] if len(made) > 1 else None
    if not isinstance(mask, Tensor) or tuple(mask.shape) != (2, size, size) or mask.is_floating_point():
        shape = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        hint = "let it give picture and mask as it is given them, tv_tensors.Mask [2, H, W]"
        raise InputError(_TRANSFORM, f"gives the mask {shape} and not whole numbers [2, {size}, {size}]", hint)
    return mask.as_subclass(Tensor).to(torch.uint8)


def centre(images: Tensor, size: int) -> Tensor:
    """The central square of each picture or label map [B, H, W, ...]: [B, size, size, ...]."""
    top, left = (round((side - size) / 2) for side in images.shape[1:3])  # as torchvision's
    return images[:, top : top + size, left : left + size]


def colour_jitter(images: Tensor, generator: Generator, strength: float = JITTER) -> Tensor:
    """Brightness, contrast and saturation, each with a factor of its own, in an order of its own for each image.

    Args:
        images: float [B, 3, H, W], 0..255.
        strength: factors lie between 1 - strength and 1 + strength.
    """
    n, device = len(images), images.device
    factors = move(1 + strength * (2 * torch.rand(n, 3, generator=generator) - 1), device)
    order = move(torch.rand(n, 3, generator=generator).argsort(1), device)
    # 0 is brightness, towards black; 1 contrast, towards the mean; 2 saturation, towards grey.
    for kind in order.unbind(1):
        grey = F.rgb_to_grayscale(images)
        factor = factors.gather(1, kind[:, None])[:, :, None, None]
        chosen = kind[:, None, None, None]
        base = torch.where(chosen == 2, grey, torch.where(chosen == 1, grey.mean((1, 2, 3), keepdim=True), 0.0))
        images = (images * factor + base * (1 - factor)).clamp(0, 255)
    return images


# AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019): 25 pairs of (operation, probability, strength 0..9 or None).
CIFAR10_POLICY = tuple(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def auto_augment(images: Tensor, generator: Generator) -> Tensor:
    """AutoAugment with the CIFAR-10 policy: per image one of 25 pairs of operations, each applied with its probability.

    Images that drew the same operation, strength and direction are changed together, and all that are moved.

    Args:
        images: uint8 [B, 3, H, W].
    """
    n, device = len(images), images.device
    policy = torch.randint(len(CIFAR10_POLICY), (n,), generator=generator).tolist()
    chance = torch.rand(2, n, generator=generator).tolist()
    negative = (torch.rand(2, n, generator=generator) < 0.5).tolist()
    images = images.clone()
    for step in range(2):
        groups: dict[tuple[str, int, bool], list[int]] = {}
        for i in range(n):
            operation, probability, strength = CIFAR10_POLICY[policy[i]][step]
            if chance[step][i] <= probability:
                key = operation, strength or 0, operation in SIGNED and negative[step][i]
                groups.setdefault(key, []).append(i)
        moves: dict[int, list[float]] = {}
        for (operation, strength, minus), members in groups.items():
            if operation in _MOVES:
                moves |= dict.fromkeys(members, _matrix(operation, strength, minus, *images.shape[-2:]))
                continue
            index = move(torch.tensor(members), device)
            images[index] = apply_operation(images[index], operation, strength, minus)
        for part in torch.tensor(list(moves), dtype=torch.int64).split(_at_once(images)):
            index = move(part, device)
            images[index] = _moved(images[index], [moves[i] for i in part.tolist()])
    return images


def apply_operation(images: Tensor, operation: str, strength: int, negative: bool) -> Tensor:
    """One operation of AutoAugment at strength 0..9 on uint8 [B, 3, H, W], as torchvision scales it."""
    part = strength / 9 * (-1 if negative else 1)
    match operation:
        case "ShearX" | "ShearY" | "TranslateX" | "TranslateY" | "Rotate":
            return _moved(images, [_matrix(operation, strength, negative, *images.shape[-2:])] * len(images))
        case "Brightness":
            return F.adjust_brightness(images, 1 + 0.9 * part)
        case "Color":
            return F.adjust_saturation(images, 1 + 0.9 * part)
        case "Contrast":
            return F.adjust_contrast(images, 1 + 0.9 * part)
        case "Sharpness":
            return _sharpened(images, 1 + 0.9 * part)
        case "Posterize":
            return F.posterize(images, 8 - round(strength / (9 / 4)))
        case "Solarize":
            return F.solarize(images, 255 * (1 - strength / 9))
        case "AutoContrast":
            return F.autocontrast(images)
        case "Equalize":
            return F.equalize(images)
        case "Invert":
            return F.invert(images)
    raise ValueError(f"unknown operation {operation}")


def _matrix(operation: str, strength: int, negative: bool, height: int, width: int) -> list[float]:
    """Where a pixel of the moved picture comes from: the affine map's 2 x 3 numbers, about the picture's middle."""
    part = strength / 9 * (-1 if negative else 1)
    match operation:
        case "ShearX":  # about the upper left corner, as all of torchvision's shears here
            return [1, 0.3 * part, 0.15 * part * height, 0, 1, 0]
        case "ShearY":
            return [1, 0, 0, 0.3 * part, 1, 0.15 * part * width]
        case "TranslateX":
            return [1, 0, -int(150 / 331 * width * part), 0, 1, 0]
        case "TranslateY":
            return [1, 0, 0, 0, 1, -int(150 / 331 * height * part)]
    angle = math.radians(30 * part)
    return [math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0]


def _moved(images: Tensor, matrices: list[list[float]]) -> Tensor:
    """Images [B, 3, H, W], each moved by a matrix of its own: the nearest pixel, black outside; as torchvision's
    `affine` and `rotate`, which send one matrix for all images to the device and wait for it to arrive."""
    n, (height, width) = len(images), images.shape[-2:]
    device = images.device
    half = torch.tensor([[0.5 * width], [0.5 * height]])
    theta = move(torch.tensor(matrices, dtype=torch.float32).view(n, 2, 3) / half, device)
    x = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, width, device=device).expand(height, width)
    y = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, height, device=device)[:, None].expand(height, width)
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, height * width, 3).expand(n, -1, -1)
    grid = points.bmm(theta.transpose(1, 2)).view(n, height, width, 2)
    moved = grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(images.dtype)


def _sharpened(images: Tensor, factor: float) -> Tensor:
    """As torchvision's `adjust_sharpness` of uint8 images, whose kernel comes from the host."""
    if min(images.shape[-2:]) <= 2:
        return images
    kernel = torch.full((3, 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    planes = images.float()
    inner = planes[..., 1:-1, 1:-1]
    inner += (1 - factor) * (conv2d(planes, kernel, groups=3).round() - inner)
    return planes.clamp(0, 255).to(images.dtype)
