"""Arrays in files beside the records: NumPy's own format, no pickles, and no trust in what a file promises."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cvhw4.errors import InputError

_MOST_PACKED = 1040  # zlib's largest ratio of compression


def pack(arrays: Mapping[str, Any]) -> bytes:
    """As they are stored, but for those that are None: the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


@contextmanager
def unpacked(
    content: bytes, kinds: Mapping[str, str], where: Path, problem: str, hint: str
) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """The arrays in a file, by name, and the size of every axis; within, whatever is raised becomes an InputError.

    Args:
        kinds: by name the type and axes of each array there may be ("u1 VHW"; types as regular expressions), others
            are passed over. An axis with the same letter has the same size in every array.
        where: the file, `problem` and `hint`: of that error.

    Raises:
        InputError: it is damaged or something else, or promises more than it can hold (before memory is taken for it).
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                _check_size(archive, entry, _MOST_PACKED * len(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in kinds if name in file.files}
        sizes: dict[str, int] = {}
        for name, array in arrays.items():
            kind, axes = kinds[name].split()
            fits = re.fullmatch(f"[<|]{kind}", array.dtype.str) and array.ndim == len(axes)
            require(fits, f"{name} is not {kind} with {len(axes)} axes")
            for axis, size in zip(axes, array.shape, strict=True):
                require(sizes.setdefault(axis, size) == size, f"{name} does not fit to the other arrays")
        yield arrays, sizes
    except Exception as error:  # what zipfile, zlib and NumPy raise has no common type
        raise InputError(where, f"{problem} ({str(error) or type(error).__name__})", hint) from error


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> None:
    """Refuses an array that promises more than so many bytes, or is packed in another way than by `pack`."""
    require(entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), f"{entry.filename} is packed otherwise")
    with archive.open(entry) as file:
        require(np.lib.format.read_magic(file) == (1, 0), f"{entry.filename} is in another format")
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    fits = min(shape, default=0) > 0 and math.prod(shape) * kind.itemsize <= most
    require(fits, f"{entry.filename} promises an array {shape}")


def require(condition: object, problem: str) -> None:
    """Raises ValueError with a problem where a condition does not hold."""
    if not condition:
        raise ValueError(problem)
