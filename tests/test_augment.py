"""Augmentation against torchvision, transform by transform."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode, RandomResizedCrop
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as F

from cvhw4.data import augment
from cvhw4.data.augment import stream


def pictures(n=4, height=90, width=70, seed=0):
    """Smooth random pictures, uint8 [n, height, width, 3]."""
    noise = torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sizes(n, height, width):
    return torch.tensor([[height, width]] * n)


def test_streams_are_apart_and_repeat():
    draws = [torch.rand(3, generator=stream(*key)) for key in ((0, "order", 1), (0, "order", 2), (1, "order", 1))]
    assert len({tuple(d.tolist()) for d in draws}) == 3
    assert torch.equal(draws[0], torch.rand(3, generator=stream(0, "order", 1)))


@pytest.mark.parametrize("size", [48, 96, 224])
def test_resampled_crops_are_torchvisions(size):
    images = pictures()
    boxes = augment.random_resized_crops(sizes(4, 90, 70), stream(0, "test"))
    result = augment.resample(images, boxes, size)
    for i in range(4):
        top, left, height, width = (int(v) for v in boxes.box[i])
        planes = images[i].permute(2, 0, 1).float()
        expected = F.resized_crop(planes, top, left, height, width, [size, size], antialias=True)
        expected = expected.flip(-1) if boxes.flip[i] else expected
        assert (result[i] - expected).abs().max() < 0.01


@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("shape", [(218, 178), (100, 140), (121, 121), (90, 200)])
def test_whole_views_are_resize_and_centre_crop(size, shape):
    images = pictures(3, *shape)
    result = augment.resample(images, augment.whole_views(sizes(3, *shape), size), size)
    planes = images.permute(0, 3, 1, 2).float()
    expected = F.center_crop(F.resize(planes, [round(size * 256 / 224)], antialias=True), [size, size])
    assert (result - expected).abs().max() < 0.01


def test_the_protocols_validation_view_is_256_to_224():
    box = augment.whole_views(sizes(1, 256, 256), 224).box[0]
    assert box.tolist() == [16, 16, 224, 224]


def test_pictures_of_different_sizes_share_a_frame():
    frame = torch.zeros(2, 90, 120, 3, dtype=torch.uint8)
    small, large = pictures(1, 60, 80)[0], pictures(1, 90, 120, seed=1)[0]
    frame[0, :60, :80], frame[1] = small, large
    both = augment.resample(frame, augment.whole_views(torch.tensor([[60, 80], [90, 120]]), 48), 48)
    alone = augment.resample(small[None], augment.whole_views(sizes(1, 60, 80), 48), 48)
    assert torch.allclose(both[0], alone[0], atol=1e-3)


@settings(max_examples=30)
@given(st.integers(20, 400), st.integers(20, 400), st.integers(0, 10**6))
def test_crops_lie_inside_their_picture(height, width, seed):
    boxes = augment.random_resized_crops(sizes(20, height, width), stream(seed, "test"))
    top, left, h, w = boxes.box.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_crop_areas_ratios_and_flips_are_distributed_as_torchvisions():
    n, height, width = 4000, 218, 178
    boxes = augment.random_resized_crops(sizes(n, height, width), stream(1, "test"))
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)]
    theirs = torch.tensor(theirs, dtype=torch.float64)
    for ours, other in ((boxes.box[:, i], theirs[:, i]) for i in range(4)):
        error = math.hypot(float(ours.std()), float(other.std())) / math.sqrt(n)
        assert abs(float(ours.mean() - other.mean())) < 4 * error
        assert float(ours.std() / other.std()) == pytest.approx(1, abs=0.08)
    assert float(boxes.flip.double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))


def test_windows_take_image_and_label_together():
    # Every pixel tells where it is from, so the window can be read back.
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    target = (rows * 40 + columns).expand(50, 30, 40)
    image = torch.stack([rows, columns, rows + columns], -1).to(torch.uint8).expand(50, 30, 40, 3)
    window, label = augment.crop_windows(image, target, 16, stream(0, "test"))
    assert torch.equal(window[:, 0].long() * 40 + window[:, 1].long(), label)
    flipped = window[:, 1, 0, 0] > window[:, 1, 0, 1]
    assert 10 < int(flipped.sum()) < 40
    tops = window[:, 0, 0, 0]
    assert tops.min() >= 0 and tops.max() <= 14 and len(tops.unique()) > 5


def test_validation_window_is_the_centre():
    image = torch.zeros(1, 360, 480, 3, dtype=torch.uint8)
    image[0, 52:308, 112:368] = 9
    window, _ = augment.crop_windows(image, torch.zeros(1, 360, 480), 256)
    assert window.min() == 9


def test_colour_jitter_has_torchvisions_operations_with_factors_and_order_of_each_images_own():
    images = pictures(12).permute(0, 3, 1, 2).float()
    generator = stream(3, "test")
    factors = 1 + 0.4 * (2 * torch.rand(12, 3, generator=generator) - 1)
    orders = torch.rand(12, 3, generator=generator).argsort(1).tolist()
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    result = augment.colour_jitter(images, stream(3, "test"), strength=0.4)
    for image, jittered, factor, order in zip(images, result, factors.tolist(), orders, strict=True):
        expected = image / 255
        for kind in order:
            expected = steps[kind](expected, factor[kind])
        assert (jittered / 255 - expected).abs().max() < 1e-4
    assert len(factors[:, 0].unique()) == 12 and len({tuple(order) for order in orders}) > 3


POLICY = AutoAugment(AutoAugmentPolicy.CIFAR10)


@pytest.mark.parametrize("operation", POLICY._augmentation_space(10, (90, 70)))
@pytest.mark.parametrize("strength", [0, 4, 9])
def test_auto_augment_operations_are_torchvisions(operation, strength):
    images = pictures().permute(0, 3, 1, 2).contiguous()
    magnitudes, signed = POLICY._augmentation_space(10, (90, 70))[operation]
    assert signed == (operation in augment.SIGNED)
    for negative in {False, signed}:
        size = float(magnitudes[strength]) if magnitudes.ndim else 0.0
        expected = _apply_op(
            images, operation, -size if negative else size, interpolation=InterpolationMode.NEAREST, fill=None
        )
        difference = augment.apply_operation(images, operation, strength, negative).int() - expected.int()
        assert difference.abs().max() <= 1  # rounding of a blend
        assert (difference != 0).float().mean() < 0.1


def test_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="Swirl"):
        augment.apply_operation(pictures(), "Swirl", 1, False)


def test_auto_augment_treats_images_apart_and_as_often_as_the_policy_says():
    image = pictures(1, 48, 48).permute(0, 3, 1, 2)
    batch = image.expand(600, -1, -1, -1)
    result = augment.auto_augment(batch, stream(0, "test"))
    torch.manual_seed(0)
    theirs = torch.stack([POLICY(image[0]) for _ in range(600)])
    ours, other = (float((x == batch).flatten(1).all(1).double().mean()) for x in (result, theirs))
    assert abs(ours - other) < 4 * math.sqrt(2 * other * (1 - other) / 600)
    ours, other = (float(x.double().std((1, 2, 3)).mean()) for x in (result, theirs))
    assert ours == pytest.approx(other, rel=0.1)
    assert len(augment.CIFAR10_POLICY) == 25
    assert len(torch.unique(result.flatten(1), dim=0)) > 60
    assert torch.equal(result, augment.auto_augment(batch, stream(0, "test")))


def test_large_frames_are_scaled_in_parts(monkeypatch):
    images = pictures(7)
    boxes = augment.random_resized_crops(torch.tensor([images.shape[1:3]] * 7), stream(4, "test"))
    whole = augment.resample(images, boxes, 32)
    monkeypatch.setattr(augment, "PLANES_BYTES", 2 * 4 * 3 * images.shape[1] * images.shape[2])
    assert torch.allclose(augment.resample(images, boxes, 32), whole, atol=1e-3)
