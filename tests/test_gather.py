"""Rows of arrays as tensors: the right ones, in order, without copies or warnings that need not be."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from cvhw4.data import gather as module
from cvhw4.data.dataset import Dataset, Packed, Split
from cvhw4.data.gather import alike, gather, memory_limit, place
from cvhw4.models.build import Network
from cvhw4.training.objectives import make_objective
from tests.helpers.tiny import row

CPU = torch.device("cpu")
SHAPES = [(9,), (5, 2), (7, 4, 6, 3)]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)
        yield
        torch.set_warn_always(False)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Each shape in memory, read-only, memory-mapped and as part of a memory-mapped array."""
    found = []
    for number, shape in enumerate(SHAPES):
        array = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        path = tmp_path_factory.mktemp("arrays") / "x.npy"
        np.save(path, array)
        mapped = np.load(path, mmap_mode="r")
        fixed = array.copy()
        fixed.flags.writeable = False
        found += [array, fixed, mapped, mapped[2:]]
    return found


@given(st.data())
def test_gather_is_indexing(arrays, data):
    array = data.draw(st.sampled_from(arrays))
    numbers = st.lists(st.integers(-len(array), len(array) - 1), max_size=20)
    index = np.array(data.draw(numbers), data.draw(st.sampled_from([np.int64, np.int32])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", data.draw(st.sampled_from([-1, 1 << 20])))
        rows = gather(array, index)
        with pytest.raises(IndexError):
            gather(array, np.append(index, len(array)))
    assert rows.dtype == torch.uint8
    np.testing.assert_array_equal(rows.numpy(), array[index], strict=True)
    rows += 1  # a copy: neither the file nor the array changes


SIDES = st.integers(1, 40)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=30), st.randoms())
def test_packed_pictures_come_in_frames_of_twice_their_size_at_most(sides, random):
    sizes = np.array(sides, np.int32)
    packed = Packed(np.random.default_rng(0).integers(1, 256, int(3 * sizes.prod(1).sum()), np.uint8), sizes)
    index = np.array(random.choices(range(len(sides)), k=10))
    groups = alike(packed, index)
    assert sorted(np.concatenate(groups).tolist()) == [*range(10)]
    for group in groups:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_SMALL", -1)
            frames = gather(packed, index[group])
        assert frames.shape == packed[index[group]].shape
        assert frames[..., 0].numel() <= 2 * sizes[index[group]].prod(1).sum()
        for frame, number in zip(frames.numpy(), index[group], strict=True):
            height, width = sizes[number]
            np.testing.assert_array_equal(frame[:height, :width], packed[number])
            assert np.count_nonzero(frame) == 3 * height * width


@pytest.mark.parametrize("augmentation", ["random-resized crop", "whole face", v2.Resize((32, 32))], ids=str)
def test_what_is_trained_on_is_the_same_packed_and_in_frames(augmentation):
    sizes = np.random.default_rng(0).integers(20, 60, (12, 2)).astype(np.int32)
    sizes[3] = 16, 400
    frames = np.zeros((12, 60, 400, 3), np.uint8)
    for frame, (height, width) in zip(frames, sizes, strict=True):
        frame[:height, :width] = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    values = [frame[:height, :width].ravel() for frame, (height, width) in zip(frames, sizes, strict=True)]
    made = []
    chosen = replace(row("q1_2"), augmentation=augmentation, recipe=replace(row("q1_2").recipe, size=32, batch=4))
    for images in (frames, Packed(np.concatenate(values), sizes)):
        split = Split(images, sizes, np.arange(12, dtype=np.uint8) % 2, ("",) * 12)
        given = Dataset("x", "classification", ("a", "b"), split, split, "", embedded=False)
        network = Network(nn.Linear(1, 1), (0.5,) * 3, (0.2,) * 3, None)
        objective = make_objective(chosen, given, network, CPU, 0)
        made.append([*objective.batches(0), *objective.validation()])
        objective.train.give_up()
        again = [*objective.batches(0)]
        for (inputs, _), (others, _) in zip(again, made[-1], strict=False):
            assert torch.equal(inputs, others)  # the pictures on the device or brought there
    for (inputs, targets), (others, same) in zip(*made, strict=True):
        assert torch.equal(targets, same)
        torch.testing.assert_close(inputs, others, atol=1e-4, rtol=0)


def test_place_on_the_cpu_copies_nothing(arrays):
    for array in arrays:
        placed = place(array, CPU, limit_bytes=array.nbytes)
        assert placed is not None and placed.data_ptr() == array.ctypes.data
        np.testing.assert_array_equal(placed.numpy(), array)
        assert place(array, CPU, limit_bytes=array.nbytes - 1) is None


def test_the_limit_is_three_quarters_of_what_the_machine_or_the_container_has_left(monkeypatch):
    texts = {"meminfo": "MemAvailable: 8192 kB", "memory.max": str(6 << 20), "memory.current": str(2 << 20)}

    def read(path):
        if path.name not in texts:
            raise FileNotFoundError
        return texts[path.name]

    monkeypatch.setattr(Path, "read_text", read)
    assert memory_limit(CPU) == 3 << 20  # of the container's 4 MiB
    texts["memory.max"] = "max"
    assert memory_limit(CPU) == 6 << 20  # of the machine's 8
    texts.clear()
    assert memory_limit(CPU) == 3 << 30  # of the 4 GiB that are taken where nothing is known
