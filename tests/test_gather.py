"""Rows of arrays as tensors: the right ones, in order, without copies or warnings that need not be."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvhw4.data import gather as module
from cvhw4.data.gather import gather, memory_limit, place

CPU = torch.device("cpu")
SHAPES = [(9,), (5, 2), (7, 4, 6, 3)]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)
        yield
        torch.set_warn_always(False)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
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
def test_gather_is_indexing(arrays: list[np.ndarray], data: st.DataObject) -> None:
    array = data.draw(st.sampled_from(arrays))
    numbers = st.lists(st.integers(-len(array), len(array) - 1), max_size=20)
    index = np.array(data.draw(numbers), data.draw(st.sampled_from([np.int64, np.int32])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", data.draw(st.sampled_from([-1, 1 << 20])))
        rows = gather(array, index)
    assert rows.dtype == torch.uint8
    np.testing.assert_array_equal(rows.numpy(), array[index], strict=True)
    rows += 1  # a copy: neither the file nor the array changes


@pytest.mark.parametrize("small", [-1, 1 << 20])
def test_gather_refuses_what_is_out_of_range(
    arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    for array in arrays:
        with pytest.raises(IndexError):
            gather(array, np.array([0, len(array)]))


def test_place_on_the_cpu_copies_nothing(arrays: list[np.ndarray]) -> None:
    for array in arrays:
        placed = place(array, CPU, limit_bytes=array.nbytes)
        assert placed is not None and placed.data_ptr() == array.ctypes.data
        np.testing.assert_array_equal(placed.numpy(), array)
        assert place(array, CPU, limit_bytes=array.nbytes - 1) is None


def test_placed_arrays_outlive_their_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(1000))
    placed = place(np.load(tmp_path / "x.npy", mmap_mode="r"), CPU, limit_bytes=8000)
    (tmp_path / "x.npy").unlink()
    assert placed is not None and placed.sum() == 499500


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_other_devices_get_copies_in_chunks(
    arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    for array in [*arrays, np.eye(3, dtype=np.int32)]:
        copy = module._copy(array, CPU)
        np.testing.assert_array_equal(copy.numpy(), array, strict=True)
        copy += 1
    placed = place(arrays[0], torch.device("meta"), limit_bytes=1 << 20)
    assert placed is not None and placed.device.type == "meta"


def test_the_limit_is_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 << 20 < memory_limit(CPU) < 1 << 50

    def unknown(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", unknown)
    assert 1 << 20 < memory_limit(CPU) < 1 << 50
