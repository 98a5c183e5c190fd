"""Augmentation in batches against torchvision's: in pixels, and in distribution.

Seeds are fixed. Two samples, of torchvision's draws and of this package's, are told apart at p < 0.001, means where
they are more than four to five standard errors apart.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as F

from cvhw4.data import augment
from cvhw4.data.augment import Boxes, centre, stream

N = 4000
P = 1e-3


@pytest.fixture(autouse=True)
def _same_draws():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def noise(height, width, seed=0):
    """Every pixel for itself, every grey level: uint8 [height, width, 3]. What is one pixel off shows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def scene(side=32):
    """A dark, colourful picture with contrasts of its own: uint8 [3, side, side]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    image = torch.stack([20 + 120 * x, 15 + 50 * y, 130 - 100 * x * y], -1)
    image[side // 4 : side // 2, side // 3 : side // 2] = torch.tensor([230.0, 60.0, 20.0])
    return image.to(torch.uint8).permute(2, 0, 1)


def sizes(n, height, width):
    return torch.tensor([[height, width]] * n)


def alike(ours, theirs):
    return stats.ks_2samp(np.asarray(ours), np.asarray(theirs)).pvalue > P


def is_half(true, n):
    return stats.binomtest(int(true), n).pvalue > P


def test_streams_are_apart_and_repeat():
    draws = [torch.rand(3, generator=stream(*key)) for key in ((0, "order", 1), (0, "order", 2), (1, "order", 1))]
    assert len({tuple(d.tolist()) for d in draws}) == 3
    assert torch.equal(draws[0], torch.rand(3, generator=stream(0, "order", 1)))


# Crops: the pixels

BOXES = [
    (0, 0, 150, 110),  # everything
    (13, 21, 64, 64),
    (3, 5, 147, 29),  # far from square
    (90, 40, 30, 70),
    (149, 109, 1, 1),  # one pixel, in the corner
    (0, 100, 9, 10),
]


@pytest.mark.parametrize("size", [16, 31, 64, 224])
def test_crops_are_torchvisions(size, monkeypatch):
    image, box = noise(150, 110), torch.tensor(BOXES, dtype=torch.float64)
    images, flip = image.expand(len(box), -1, -1, -1), torch.arange(len(box)) % 2 == 0
    result = augment.resample(images, Boxes(box, box, flip), size)
    for ours, where, flipped in zip(result, BOXES, flip, strict=True):
        expected = F.resized_crop(image.permute(2, 0, 1).float(), *where, [size, size], antialias=True)
        assert (ours - (expected.flip(-1) if flipped else expected)).abs().max() < 0.02
    monkeypatch.setattr(augment, "PLANES_BYTES", 2 * 4 * image.numel())  # large frames are scaled in parts
    assert torch.allclose(augment.resample(images, Boxes(box, box, flip), size), result, atol=1e-3)


@pytest.mark.parametrize("shape", [(218, 178), (101, 67), (255, 257), (333, 500), (225, 224), (60, 301)])
def test_the_whole_view_is_pils_resize_and_centre_crop_up_to_rounding(shape):
    """PIL computes in two passes and rounds after each, by up to 0.5; a box a tenth of a pixel off misses by levels."""
    image = noise(*shape)
    result = augment.resample(image[None], augment.whole_views(sizes(1, *shape), 224), 224)[0]
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(Image.fromarray(image.numpy()))
    difference = (result - F.pil_to_tensor(expected).float()).abs()
    assert difference.max() <= 1.05 and difference.mean() <= 0.35


@pytest.mark.parametrize("size", [32, 96, 224])
def test_every_picture_is_scaled_to_the_size_that_resize_gives_it(size):
    random = np.random.RandomState(0)
    shapes = np.concatenate([random.randint(16, 600, (150, 2)), np.arange(40, 90)[:, None] * [1, 2]])
    boxes = augment.whole_views(torch.tensor(shapes), size).box.tolist()
    resize = transforms.Resize(round(size * 256 / 224), InterpolationMode.NEAREST)
    for (height, width), box in zip(shapes.tolist(), boxes, strict=True):
        new_width, new_height = resize(Image.new("L", (width, height))).size
        top, left = round((new_height - size) / 2), round((new_width - size) / 2)  # as CenterCrop rounds
        y, x = height / new_height, width / new_width
        assert box == pytest.approx([top * y, left * x, size * y, size * x])


@given(st.integers(32, 70), st.integers(32, 70))
def test_the_centre_is_torchvisions(height, width):
    images = torch.arange(height * width).reshape(1, height, width)
    assert torch.equal(centre(images, 32), F.center_crop(images, [32, 32]))


def test_windows_take_image_and_label_together_and_validation_the_centre():
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")  # every pixel tells its place
    target = (rows * 40 + columns).expand(50, 30, 40)
    image = torch.stack([rows, columns, rows + columns], -1).to(torch.uint8).expand(50, 30, 40, 3)
    for draws in (stream(0, "test"), None):
        window, label = augment.crop_windows(image, target, 16, draws)
        assert torch.equal(window[:, 0].long() * 40 + window[:, 1].long(), label)
    assert (window[:, 0, 0, 0] == 7).all() and (window[:, 1, 0, 0] == 12).all()


# Crops: what is drawn


@settings(max_examples=30)
@given(st.integers(20, 400), st.integers(20, 400), st.integers(0, 10**6))
def test_crops_lie_inside_their_picture(height, width, seed):
    boxes = augment.random_resized_crops(sizes(20, height, width), stream(seed, "test"))
    top, left, h, w = boxes.box.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()


@pytest.fixture(scope="module", params=[(160, 120), (90, 150), (40, 420), (300, 41)], ids="{0[0]}x{0[1]}".format)
def crops(request):
    """Boxes for one size, and torchvision's: (height, width), Boxes, float64 [N, 4]."""
    height, width = request.param
    ours = augment.random_resized_crops(sizes(N, height, width), stream(7, "distribution"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        crop, image = transforms.RandomResizedCrop(224), Image.new("L", (width, height))
        theirs = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(N)]
    return (height, width), ours, torch.tensor(theirs, dtype=torch.float64)


def test_areas_ratios_and_places_are_torchvisions(crops):
    size, ours, theirs = crops
    assert alike(*(box[:, 2] * box[:, 3] for box in (ours.box, theirs)))
    assert alike(*((box[:, 3] / box[:, 2]).log() for box in (ours.box, theirs)))
    long = int(size[1] > size[0])  # a strip leaves hardly any room across
    for axis in (0, 1):
        assert alike(ours.box[:, axis], theirs[:, axis])
        # ... and among the crops that have room to move, as a share of that room
        shares = []
        for box in (ours.box, theirs):
            room = size[axis] - box[:, 2 + axis]
            shares.append((box[:, axis] / room)[room > 8])
        if axis == long or size[1 - long] > 41:
            assert min(len(share) for share in shares) > N / 4
            assert alike(*shares)


def test_panoramas_fall_back_as_often_as_torchvisions_and_to_the_same_box(crops):
    (height, width), ours, theirs = crops
    boxes, counts = torch.cat([ours.box, theirs]).unique(dim=0, return_counts=True)
    box = boxes[counts.argmax()]
    hits = [int((sample == box).all(1).sum()) for sample in (ours.box, theirs)]
    if max(height, width) < 5 * min(height, width):
        assert max(hits) < N / 20  # no one box for all
        return
    assert min(hits) > N / 5  # ten tries at an area of 8 to 100 % rarely fit such a strip
    assert abs(hits[0] - hits[1]) < 4 * math.sqrt(sum(h * (N - h) / N for h in hits))
    assert float(box[3] / box[2]) == pytest.approx(4 / 3 if width > height else 3 / 4, abs=0.02)


def test_flips_are_even_and_regardless_of_the_box(crops):
    (height, width), ours, _ = crops
    for flips in (ours.flip, augment.whole_views(sizes(N, height, width), 32, stream(8, "distribution")).flip):
        assert is_half(flips.sum(), N)
        assert is_half((flips[1:] ^ flips[:-1]).sum(), N - 1)  # one does not follow from the other
    for column in ours.box.unbind(1):
        halves = column[ours.flip], column[~ours.flip]
        assert len(column.unique()) == 1 or stats.mannwhitneyu(*halves).pvalue > P


def test_windows_are_placed_as_random_crop_places_them():
    height, width, size = 20, 23, 16
    image = torch.arange(width).expand(N, height, width)
    image = torch.stack([image, torch.arange(height)[:, None].expand(N, height, width), image], -1).to(torch.uint8)
    window, _ = augment.crop_windows(image, image[..., 0], size, stream(9, "distribution"))
    left, top = (window[:, c].flatten(1).amin(1).long() for c in (0, 1))
    picture = Image.new("L", (width, height))
    theirs = torch.tensor([transforms.RandomCrop.get_params(picture, (size, size))[:2] for _ in range(N)])
    counts = [torch.bincount(a * 8 + b, minlength=40) for a, b in ((top, left), theirs.unbind(1))]
    assert stats.chisquare(counts[0]).pvalue > P  # all 5 x 8 places alike
    assert stats.chi2_contingency(torch.stack(counts).numpy()).pvalue > P
    flips = window[:, 0, 0, 0] > window[:, 0, 0, 1]
    assert is_half(flips.sum(), N)
    assert is_half((flips & (left > 3)).sum(), int((left > 3).sum()))


# Colours


def test_colour_jitter_has_torchvisions_operations_with_factors_and_order_of_each_images_own():
    images = torch.stack([noise(20, 16, seed) for seed in range(12)]).permute(0, 3, 1, 2).float()
    generator = stream(3, "test")
    factors = 1 + 0.2 * (2 * torch.rand(12, 3, generator=generator) - 1)
    orders = torch.rand(12, 3, generator=generator).argsort(1).tolist()
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    result = augment.colour_jitter(images, stream(3, "test"))
    for image, jittered, factor, order in zip(images, result, factors.tolist(), orders, strict=True):
        expected = image / 255
        for kind in order:
            expected = steps[kind](expected, factor[kind])
        assert (jittered / 255 - expected).abs().max() < 1e-4
    assert len(factors[:, 0].unique()) == 12 and len({tuple(order) for order in orders}) > 3


# AutoAugment

POLICY = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)
USED = sorted({(operation, strength or 0) for pair in POLICY.policies for operation, _, strength in pair})


@pytest.mark.parametrize("operation", POLICY._augmentation_space(10, (90, 70)))
def test_operations_are_torchvisions(operation):
    """On smooth pictures up to the rounding of a blend; moves on noise to the bit, at every strength."""
    rough = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images = (torch.nn.functional.interpolate(rough, (90, 70), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    if moves := operation in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        images = noise(96, 96).permute(2, 0, 1)[None].contiguous()
    magnitudes, signed = POLICY._augmentation_space(10, images.shape[2:])[operation]
    assert signed == (operation in augment.SIGNED)
    for strength in range(10) if moves else (0, 4, 9):
        for negative in {False, signed}:
            size = float(magnitudes[strength]) if magnitudes.ndim else 0.0
            ours = augment.apply_operation(images, operation, strength, negative).int()
            theirs = _apply_op(images, operation, -size if negative else size, InterpolationMode.NEAREST, None).int()
            difference = (ours - theirs).abs()
            assert difference.max() <= (not moves) and (difference != 0).float().mean() < 0.1


def test_translations_are_as_many_pixels_as_torchvisions_at_every_side():
    for side in (*range(16, 200), 224, 331, 662, 993):
        magnitudes, _ = POLICY._augmentation_space(10, (1, side))["TranslateX"]
        line = (torch.arange(side) + 1).expand(1, 3, 1, side).to(torch.float32)
        for strength in range(1, 10):
            moved = augment.apply_operation(line, "TranslateX", strength, True)
            assert int(moved[0, 0, 0, 0]) == 1 + int(magnitudes[strength])


def test_auto_augment_is_drawn_as_torchvisions_and_repeats():
    n, image = 2000, scene()
    ours, again = (augment.auto_augment(image.expand(n, -1, -1, -1), stream(4, "distribution")) for _ in range(2))
    assert torch.equal(ours, again)
    ours, theirs = ours.double(), torch.stack([POLICY(image) for _ in range(n)]).double()
    bias, widths = 0.5, 0.06  # grey levels by which rounding may move a mean; between standard deviations
    error = ((ours.var(0) + theirs.var(0)) / n).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + bias).all()
    assert float(ours.var(0).mean().sqrt()) == pytest.approx(float(theirs.var(0).mean().sqrt()), rel=widths)
    for feature in (
        lambda x: x.mean((1, 2, 3)),  # brightness
        lambda x: x.std((1, 2, 3)),  # contrast
        lambda x: (x.amax(1) - x.amin(1)).mean((1, 2)),  # saturation
    ):
        a, b = feature(ours), feature(theirs)
        assert abs(a.mean() - b.mean()) <= 4 * math.sqrt((a.var() + b.var()) / n) + bias
        assert float(a.std()) == pytest.approx(float(b.std()), rel=widths, abs=bias / 10)
        assert alike((a / 2).round(), (b / 2).round())  # to two levels, so that rounding does not part them


def test_operations_are_applied_as_often_as_the_policy_says_and_in_both_directions(monkeypatch):
    n, counts = 20_000, Counter()

    def count(images, operation, strength, negative):
        counts[operation, strength, negative] += len(images)
        return images

    monkeypatch.setattr(augment, "apply_operation", count)
    monkeypatch.setattr(augment, "_matrix", lambda operation, strength, negative, *_: (operation, strength, negative))
    monkeypatch.setattr(augment, "_moved", lambda images, moves: counts.update(moves) or images)
    augment.auto_augment(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), stream(3, "distribution"))
    assert {(operation, strength) for operation, strength, _ in counts} == set(USED)
    for used in USED:
        # how often a picture meets it in its first or in its second step; the pair is one in 25
        share = sum(chance for pair in POLICY.policies for name, chance, s in pair if (name, s or 0) == used) / 25
        forth, back = counts[*used, False], counts[*used, True]
        assert abs(forth + back - n * share) < 4 * math.sqrt(n * share)
        assert is_half(back, forth + back) if used[0] in augment.SIGNED else not back
