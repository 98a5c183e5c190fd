"""From a split's arrays on the host to tensors: a few rows at a time, or all of them at once where they fit."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvhw4.data.dataset import Packed, blocks, forget, mapping

_SMALL = 64 << 20  # bytes of a memory-mapped array that may stay resident whole
_CHUNK = 256 << 20  # bytes that go to another device at once


def gather(array: NDArray[Any] | Packed, index: NDArray[np.integer[Any]]) -> Tensor:
    """A copy of some rows, on the host; packed pictures in a frame that holds the largest of them.

    Rows of a large memory-mapped array are read in the order of the file, and the memory that its pages take in the
    process is given up again.

    Args:
        array: [N, ...], in memory or memory-mapped.
        index: integers [B], -N to N - 1, in any order and repeated at will.

    Returns:
        [B, ...] in the order of the index, of the array's dtype.

    Raises:
        IndexError: an index is out of range.
    """
    if isinstance(array, Packed):
        frames = framed(_view(array.values), array[index])
        if array.values.nbytes > _SMALL:
            for number in index:
                forget(array[number])
        return frames
    if array.nbytes <= _SMALL or mapping(array) is None:
        return torch.from_numpy(np.asarray(array).take(index, axis=0))
    rows = np.empty((len(index), *array.shape[1:]), array.dtype)
    for place in np.argsort(index, kind="stable"):
        row = array[index[place]]
        rows[place] = row
        forget(row)
    return torch.from_numpy(rows)


def framed(values: Tensor, pictures: Packed) -> Tensor:
    """uint8 [N, H, W, 3] on the device that packed pictures' pixels are on; H and W are the largest among them."""
    frames = values.new_zeros(pictures.shape)
    for frame, (height, width), start in zip(frames, pictures.sizes.tolist(), pictures.starts.tolist(), strict=True):
        frame[:height, :width] = values[start : start + 3 * height * width].view(height, width, 3)
    return frames


def alike(images: NDArray[Any] | Packed, index: NDArray[np.integer[Any]]) -> list[NDArray[np.intp]]:
    """Places in the index, in groups: frames of one take at most twice what its packed pictures do."""
    if not isinstance(images, Packed):
        return [np.arange(len(index))]
    groups: list[list[int]] = []
    sizes = images.sizes[index].astype(np.int64)
    height = width = area = 0
    for place in np.lexsort(sizes.T).tolist():  # by width, and by height among equal ones
        h, w = sizes[place].tolist()
        height, width, area = max(height, h), max(width, w), area + h * w
        if not groups or (len(groups[-1]) + 1) * height * width > 2 * area:
            groups.append([])
            height, width, area = h, w, h * w
        groups[-1].append(place)
    return [np.array(group) for group in groups]


def place(array: NDArray[Any], device: torch.device, *, limit_bytes: int) -> Tensor | None:
    """The whole array on a device, or None if it has more than `limit_bytes`.

    On the CPU it is a view and costs nothing, but pages of a memory-mapped array stay resident once they are used;
    nothing may write to the view of a read-only array. To other devices it is copied in chunks of 256 MiB.
    """
    if array.nbytes > limit_bytes:
        return None
    return _view(array) if device.type == "cpu" else _copy(array, device)


def memory_limit(device: torch.device) -> int:
    """How many bytes of pictures may live on the device: half of what is free there, on the host three quarters."""
    free = free_memory(device)
    return free * 3 // 4 if device.type == "cpu" else free // 2


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated without swapping; 4 GiB where that cannot be read. Of CUDA's memory, what torch
    has of it and does not use counts too; of other accelerators, the host's memory is taken for theirs."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) << 10)
    with suppress(OSError, ValueError):  # a container's own limit; "max" where it has none
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min(free, default=4 << 30), 1 << 20)


def _view(array: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _copy(array: NDArray[Any], device: torch.device) -> Tensor:
    copy = torch.empty(array.shape, dtype=_view(array[:0]).dtype, device=device)
    start = 0
    for block in blocks(array, _CHUNK):
        copy[start : start + len(block)].copy_(_view(block))
        start += len(block)
    return copy
