"""Augmentation in batches against torchvision's, picture by picture with PIL: in distribution and in pixels.

Seeds are fixed. Two samples of torchvision's and of this package's draws are told apart at p < 0.001, means where they
are more than four to five standard errors apart.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from cvhw4.data import augment
from cvhw4.data.augment import Boxes, stream

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
    """A dark, colourful picture with contrasts of its own: uint8 [side, side, 3]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    image = torch.stack([20 + 120 * x, 15 + 50 * y, 130 - 100 * x * y], -1)
    image[side // 4 : side // 2, side // 3 : side // 2] = torch.tensor([230.0, 60.0, 20.0])
    return image.to(torch.uint8)


def planes(image):
    """float32 [3, H, W], 0..255, of a PIL picture."""
    return F.pil_to_tensor(image).float()


def alike(ours, theirs):
    return stats.ks_2samp(np.asarray(ours), np.asarray(theirs)).pvalue > P


def is_half(true, n):
    return stats.binomtest(int(true), n).pvalue > P


# Crops: what is drawn


@pytest.fixture(scope="module", params=[(160, 120), (90, 150), (40, 420), (300, 41)], ids="{0[0]}x{0[1]}".format)
def crops(request):
    """Boxes for one size, and torchvision's: (height, width), Boxes, float64 [N, 4]."""
    height, width = request.param
    ours = augment.random_resized_crops(torch.tensor([[height, width]] * N), stream(7, "distribution"))
    image = Image.new("L", (width, height))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        crop = transforms.RandomResizedCrop(224)
        theirs = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(N)]
    return (height, width), ours, torch.tensor(theirs, dtype=torch.float64)


def test_areas_are_torchvisions(crops):
    (height, width), ours, theirs = crops
    fractions = [box[:, 2] * box[:, 3] / (height * width) for box in (ours.box, theirs)]
    assert alike(*fractions)


def test_ratios_are_torchvisions(crops):
    _, ours, theirs = crops
    assert alike(*((box[:, 3] / box[:, 2]).log() for box in (ours.box, theirs)))


def test_places_are_torchvisions(crops):
    size, ours, theirs = crops
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
    # ten tries at an area of 8 to 100 % rarely fit such a strip
    assert min(hits) > N / 5
    error = math.sqrt(sum(h * (N - h) / N for h in hits))
    assert abs(hits[0] - hits[1]) < 4 * error
    ratio = float(box[3] / box[2])
    assert ratio == pytest.approx(4 / 3 if width > height else 3 / 4, abs=0.02)


def test_flips_are_even_and_regardless_of_the_box(crops):
    _, ours, _ = crops
    flips = ours.flip
    assert is_half(flips.sum(), N)
    for column in ours.box.unbind(1):
        assert len(column.unique()) == 1 or stats.mannwhitneyu(column[flips], column[~flips]).pvalue > P


def test_flips_of_whole_views_are_even():
    flips = augment.whole_views(torch.tensor([[50, 40]] * N), 32, stream(8, "distribution")).flip
    assert is_half(flips.sum(), N)
    assert is_half((flips[1:] ^ flips[:-1]).sum(), N - 1)  # one does not follow from the other


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


# Crops: the pixels

# PIL computes in two passes and rounds after each, ours rounds nothing: up to 0.5 from the first pass and 0.5 from the
# second, and a little from the fixed-point weights; the mean of the two is 0.31 on this noise. A box that is a tenth of
# a pixel off misses it by many grey levels.
WORST, MEAN = 1.05, 0.35

BOXES = [
    (0, 0, 150, 110),  # everything
    (13, 21, 64, 64),
    (3, 5, 147, 29),  # far from square
    (90, 40, 30, 70),
    (149, 109, 1, 1),  # one pixel, in the corner
    (0, 100, 9, 10),
]


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "flipped"])
@pytest.mark.parametrize("size", [16, 31, 64, 224])
def test_crops_are_pils_up_to_rounding(size, flip):
    image = noise(150, 110)
    box = torch.tensor(BOXES, dtype=torch.float64)
    boxes = Boxes(box, box, torch.full((len(box),), flip))
    result = augment.resample(image.expand(len(box), -1, -1, -1), boxes, size)
    for ours, (top, left, height, width) in zip(result, BOXES, strict=True):
        crop = F.resized_crop(
            Image.fromarray(image.numpy()), top, left, height, width, [size, size], InterpolationMode.BILINEAR
        )
        difference = (ours - planes(F.hflip(crop) if flip else crop)).abs()
        assert difference.max() <= WORST
        assert difference.mean() <= MEAN


@pytest.mark.parametrize("shape", [(218, 178), (101, 67), (255, 257), (333, 500), (225, 224), (60, 301)])
def test_the_whole_view_is_pils_resize_and_centre_crop_up_to_rounding(shape):
    image = noise(*shape)
    result = augment.resample(image[None], augment.whole_views(torch.tensor([shape]), 224), 224)[0]
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(Image.fromarray(image.numpy()))
    difference = (result - planes(expected)).abs()
    assert difference.max() <= WORST
    assert difference.mean() <= MEAN


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


# Colours

FEATURES = {
    "brightness": lambda x: x.mean((1, 2, 3)),
    "contrast": lambda x: x.std((1, 2, 3)),
    "saturation": lambda x: (x.amax(1) - x.amin(1)).mean((1, 2)),
}


def assert_same_spread(ours, theirs, bias=0.0, widths=0.06):
    """Whether two samples of changed versions of one picture, float [n, 3, H, W], are drawn alike.

    Args:
        bias: grey levels by which rounding may move a pixel's mean.
        widths: relative difference allowed between standard deviations over the draws.
    """
    ours, theirs = ours.double(), theirs.double()
    error = ((ours.var(0) + theirs.var(0)) / len(ours)).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + bias).all()
    assert float(ours.var(0).mean().sqrt()) == pytest.approx(float(theirs.var(0).mean().sqrt()), rel=widths)
    for name, feature in FEATURES.items():
        a, b = feature(ours), feature(theirs)
        assert abs(a.mean() - b.mean()) <= 4 * math.sqrt((a.var() + b.var()) / len(a)) + bias, name
        assert float(a.std()) == pytest.approx(float(b.std()), rel=widths, abs=bias / 10), name


@pytest.mark.parametrize("kind", ["tensor", "PIL"])
def test_colour_jitter_is_drawn_as_torchvisions(kind):
    n, image = 2000, scene(24).permute(2, 0, 1)
    generator = stream(5, "distribution")
    batch = image.float().expand(10, -1, -1, -1)
    ours = torch.cat([augment.colour_jitter(batch, generator) for _ in range(n // 10)])
    jitter = transforms.ColorJitter(0.2, 0.2, 0.2, 0)
    if kind == "tensor":
        theirs = torch.stack([jitter(image / 255) for _ in range(n)]) * 255
        assert_same_spread(ours, theirs)
        for feature in FEATURES.values():
            assert alike(feature(ours), feature(theirs))
    else:  # PIL blends to whole grey levels three times over, mostly downwards
        picture = F.to_pil_image(image)
        assert_same_spread(ours, torch.stack([planes(jitter(picture)) for _ in range(n)]), bias=1.5)


def test_jitter_of_one_picture_tells_nothing_of_the_next():
    generator = stream(6, "distribution")
    batch = scene(8).permute(2, 0, 1).float().expand(2, -1, -1, -1)
    pairs = torch.stack([augment.colour_jitter(batch, generator) for _ in range(1000)])
    for feature in FEATURES.values():
        assert stats.pearsonr(feature(pairs[:, 0]), feature(pairs[:, 1])).pvalue > P


# AutoAugment

POLICY = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)
USED = sorted({(operation, strength or 0) for pair in POLICY.policies for operation, _, strength in pair})
# PIL samples at the middle of a pixel, torchvision's tensors relative to the middle of the picture: where the nearest
# pixel is a matter of half a pixel, PIL takes its neighbour. (dy, dx) that may be taken, and how often.
ALONG_X, ALONG_Y = [(0, dx) for dx in (-1, 0, 1)], [(dy, 0) for dy in (-1, 0, 1)]
AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
NEIGHBOURS = {"ShearX": (ALONG_X, 0.12), "ShearY": (ALONG_Y, 0.12), "Rotate": (AROUND, 0.03)}


def test_the_policy_is_the_one_of_torchvision():
    assert list(augment.CIFAR10_POLICY) == POLICY.policies and len(USED) > 30


@pytest.mark.parametrize("shape", [(96, 96), (57, 43)], ids=str)
@pytest.mark.parametrize(("operation", "strength"), USED)
def test_operations_of_the_policy_are_pils(operation, strength, shape):
    image = noise(*shape).permute(2, 0, 1).contiguous()
    magnitudes, signed = POLICY._augmentation_space(10, shape)[operation]
    for negative in {False, signed}:
        size = float(magnitudes[strength]) if magnitudes.ndim else 0.0
        size = -size if negative else size
        ours = augment.apply_operation(image[None], operation, strength, negative)[0].int()
        theirs = _apply_op(F.to_pil_image(image), operation, size, InterpolationMode.NEAREST, None)
        theirs = F.pil_to_tensor(theirs).int()
        if operation in NEIGHBOURS:
            shifts, often = NEIGHBOURS[operation]
            padded = torch.nn.functional.pad(theirs, (1, 1, 1, 1))  # outside the picture all is black
            height, width = shape
            shifted = [padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in shifts]
            same = torch.stack([(ours == other).all(0) for other in shifted])
            assert same.any(0).all()
            assert (ours != theirs).any(0).float().mean() <= often
        else:
            assert (ours - theirs).abs().max() <= 1  # PIL cuts off what torch rounds


@pytest.mark.parametrize("operation", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_moves_are_those_of_torchvisions_tensors_at_every_strength(operation):
    image = noise(96, 96).permute(2, 0, 1).contiguous()
    magnitudes, _ = POLICY._augmentation_space(10, (96, 96))[operation]
    for strength, size in enumerate(magnitudes.tolist()):
        for negative in (False, True):
            ours = augment.apply_operation(image[None], operation, strength, negative)[0]
            theirs = _apply_op(image, operation, -size if negative else size, InterpolationMode.NEAREST, None)
            assert torch.equal(ours, theirs)


def test_translations_are_as_many_pixels_as_torchvisions_at_every_side():
    for side in (*range(16, 200), 224, 331, 662, 993):
        magnitudes, _ = POLICY._augmentation_space(10, (1, side))["TranslateX"]
        line = (torch.arange(side) + 1).expand(1, 3, 1, side).to(torch.float32)
        for strength in range(1, 10):
            moved = augment.apply_operation(line, "TranslateX", strength, True)
            assert int(moved[0, 0, 0, 0]) == 1 + int(magnitudes[strength])


@pytest.mark.parametrize("kind", ["tensor", "PIL"])
def test_auto_augment_is_drawn_as_torchvisions(kind):
    n, image = 2000, scene(32).permute(2, 0, 1)
    ours = augment.auto_augment(image.expand(n, -1, -1, -1), stream(4, "distribution")).float()
    if kind == "tensor":
        theirs = torch.stack([POLICY(image) for _ in range(n)]).float()
    else:
        picture = F.to_pil_image(image)
        theirs = torch.stack([planes(POLICY(picture)) for _ in range(n)])
    assert_same_spread(ours, theirs, bias=0.5)
    for feature in FEATURES.values():
        # to two grey levels, so that rounding does not part what is the same operation
        assert alike((feature(ours) / 2).round(), (feature(theirs) / 2).round())


def test_operations_are_applied_as_often_as_the_policy_says_and_in_both_directions(monkeypatch):
    n, counts = 20_000, Counter()

    def count(images, operation, strength, negative):
        counts[operation, strength, negative] += len(images)
        return images

    def count_moves(images, moves):
        counts.update(moves)
        return images

    monkeypatch.setattr(augment, "apply_operation", count)
    monkeypatch.setattr(
        augment, "_matrix", lambda operation, strength, negative, *size: (operation, strength, negative)
    )
    monkeypatch.setattr(augment, "_moved", count_moves)
    augment.auto_augment(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), stream(3, "distribution"))
    signed = {name for name, (_, both) in POLICY._augmentation_space(10, (1, 1)).items() if both}
    assert {(operation, strength) for operation, strength, _ in counts} == set(USED)
    for operation, strength in USED:
        # how often a picture meets it in its first and in its second step; the pair is one in 25
        shares = [
            sum(
                pair[step][1]
                for pair in POLICY.policies
                if (pair[step][0], pair[step][2] or 0) == (operation, strength)
            )
            for step in (0, 1)
        ]
        expected = n * sum(shares) / 25
        forth, back = counts[operation, strength, False], counts[operation, strength, True]
        assert abs(forth + back - expected) < 4 * math.sqrt(expected)
        assert is_half(back, forth + back) if operation in signed else not back
