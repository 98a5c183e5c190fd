"""What a run's network made of the validation pictures at the end of its training, to be looked at.

Stored beside the record (`seed0-….exhibits.npz`), found by the record's name and held against its fingerprint; a record
without is whole. The pictures themselves lie in `<results>/<profile>/pictures`, once for all runs that saw them. Both
are NumPy's own format, no pickles, and read as strictly as `cvhw4.records.images`.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvhw4.data.dataset import VOID
from cvhw4.errors import InputError
from cvhw4.records.images import MOST_PACKED, check_size
from cvhw4.records.schema import RunRecord

MOST_IMAGES = 2000  # of a validation split without predictions by pixel
MOST_BYTES = 16 << 20  # of predictions by pixel, before they are compressed


@dataclass(frozen=True, eq=False)
class Exhibits:
    """What the network after the last epoch made of K validation images (all, or an even choice of many).

    Attributes:
        run: fingerprint of its run, 64 hexadecimal digits.
        pictures: digest of the pictures it saw, likewise (`pictures_digest`).
        index: int64 [K], their places in the validation split, ascending.
        probabilities: float16 [K, C], of each class (Q1); None for segmentation.
        heat: uint8 [K, h, w], Grad-CAM of the predicted class at the resolution of the features, each image's largest
            value 255, all zero where nothing speaks for the class; None for segmentation, and where there is no map.
        why: why there is no map; empty where there is one.
        predicted: uint8 [K, H, W], the class of every pixel (Q2); None for classification.
    """

    run: str
    pictures: str
    index: NDArray[np.int64]
    probabilities: NDArray[np.float16] | None = None
    heat: NDArray[np.uint8] | None = None
    why: str = ""
    predicted: NDArray[np.uint8] | None = None

    def to_bytes(self) -> bytes:
        """As they are stored: the same exhibits always give the same bytes."""
        arrays: dict[str, NDArray] = {"run": _digits(self.run), "pictures": _digits(self.pictures), "index": self.index}
        arrays |= {k: v for k in ("probabilities", "heat", "predicted") if (v := getattr(self, k)) is not None}
        return _pack(arrays | ({"why": np.frombuffer(self.why.encode(), np.uint8)} if self.why else {}))

    @classmethod
    def from_bytes(cls, content: bytes, where: Path, record: RunRecord) -> Exhibits:
        """Reads what `to_bytes` gave.

        Args:
            where: the file it is from, for the message of an error.
            record: the run that it has to be of.

        Raises:
            InputError: it is damaged, something else, or another run's.
        """
        try:
            arrays: dict[str, Any] = _unpack(content)
            arrays |= {name: _hexadecimal(arrays[name]) for name in ("run", "pictures")}
            if "why" in arrays:
                arrays["why"] = _typed(arrays["why"], np.uint8, 1).tobytes().decode()
            exhibits = cls(**arrays)
            exhibits._check(record)
        except Exception as error:  # as ImageResults.from_bytes
            problem = f"holds no exhibits of its run ({str(error) or type(error).__name__})"
            raise InputError(where, problem, "repeat the run") from error
        return exhibits

    def _check(self, record: RunRecord) -> None:
        """Refuses arrays that do not fit together, or not to the record; raises ValueError."""
        _require(self.run == record.fingerprint, "they are another run's")
        _check_index(self.index)
        _require(self.index[-1] < record.data.val, "they are of more images than there were")
        n, classes = len(self.index), int(record.settings["classes"])
        _require((self.probabilities is None) != (self.predicted is None), "their arrays do not fit together")
        if self.predicted is not None:
            _require(len(_typed(self.predicted, np.uint8, 3)) == n, "predicted are of other images")
            _require(self.heat is None and int(self.predicted.max()) < classes, "predicted are other classes")
        if self.probabilities is not None:
            p = _typed(self.probabilities, np.float16, 2)
            _require(p.shape == (n, classes), "probabilities are of other images or classes")
            _require(bool(((p >= 0) & (p <= 1)).all()), "probabilities are none")
        if self.heat is not None:
            _require(len(_typed(self.heat, np.uint8, 3)) == n, "heat is of other images")


@dataclass(frozen=True, eq=False)
class ValidationPictures:
    """K validation pictures as the networks saw them (scaled and cropped, before normalisation), S pixels a side.

    Attributes:
        index: int64 [K], their places in the validation split, ascending.
        packed: uint8, their JPEG files one behind the other; `ends`: int64 [K], where each ends.
        names: where each came from, below its data set's folder.
        labels: uint8 [K], classes (Q1).
        masks: uint8 [K, S, S], CamVid's numbers, 11 for void (Q2).
        faces: bool [K, S, S], where the face is (Q1, where the data set knows).
    """

    index: NDArray[np.int64]
    packed: NDArray[np.uint8]
    ends: NDArray[np.int64]
    names: tuple[str, ...]
    labels: NDArray[np.uint8] | None = None
    masks: NDArray[np.uint8] | None = None
    faces: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def picture(self, k: int, side: int | None = None) -> NDArray[np.uint8]:
        """Picture k, uint8 [S, S, 3], RGB; scaled down to at most `side` pixels.

        Raises:
            ValueError: its JPEG is none, or not square.
        """
        from PIL import Image

        start = int(self.ends[k - 1]) if k else 0
        image = Image.open(io.BytesIO(self.packed[start : self.ends[k]].tobytes()), formats=["JPEG"])
        if image.width != image.height or image.width > 4096 or image.mode != "RGB":
            raise ValueError(f"picture {k} is {image.mode} of {image.width}x{image.height}")
        if side is not None and image.width > side:
            return np.asarray(image.resize((side, side), Image.Resampling.BOX))
        return np.asarray(image)

    def to_bytes(self) -> bytes:
        """As they are stored."""
        arrays: dict[str, Any] = {k: v for k, v in vars(self).items() if v is not None}
        return _pack(arrays | {"names": np.array(self.names, dtype=np.str_)})

    @classmethod
    def from_bytes(cls, content: bytes, where: Path) -> ValidationPictures:
        """Reads what `to_bytes` gave.

        Raises:
            InputError: it is damaged, or something else.
        """
        try:
            arrays = _unpack(content)
            names = arrays.pop("names")
            _require(names.dtype.kind == "U" and names.ndim == 1, "names are none")
            pictures = cls(names=tuple(names.tolist()), **arrays)
            pictures._check()
        except Exception as error:
            problem = f"holds no validation pictures ({str(error) or type(error).__name__})"
            raise InputError(where, problem, "delete it, and repeat a run") from error
        return pictures

    def _check(self) -> None:
        _check_index(self.index)
        n = len(self.index)
        _typed(self.packed, np.uint8, 1)
        ends = _typed(self.ends, np.int64, 1)
        rising = bool((np.diff(ends, prepend=0) > 0).all()) and ends[-1] == len(self.packed)
        _require(len(self.names) == len(ends) == n and rising, "its arrays do not fit together")
        _require((self.labels is None) != (self.masks is None), "it holds neither labels nor masks, or both")
        if self.labels is not None:
            _require(_typed(self.labels, np.uint8, 1).shape == (n,), "labels are of other pictures")
        side = self.picture(0).shape[0]
        for array, kind in ((self.masks, np.uint8), (self.faces, np.bool_)):
            if array is not None:
                _require(_typed(array, kind, 3).shape == (n, side, side), "masks or faces are of other pictures")
        _require(self.masks is None or int(self.masks.max()) <= VOID, "masks are of other classes")


def pictures_digest(data: str, size: int) -> str:
    """By what a data set's validation pictures are found: its fingerprint, and the side at which networks see them."""
    return hashlib.sha256(f"{data} {size} 1".encode()).hexdigest()


def even_choice(images: int, most: int) -> NDArray[np.int64]:
    """All of 0 to images - 1, or `most` of them in even steps, ascending."""
    return np.arange(images) if images <= most else np.arange(most) * images // most


def _pack(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, NDArray]:
    """The arrays of a file, none larger than its bytes can hold."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            check_size(archive, entry, MOST_PACKED * len(content))
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _digits(digest: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(digest), np.uint8)


def _hexadecimal(array: NDArray) -> str:
    _require(_typed(array, np.uint8, 1).shape == (32,), "a digest is none")
    return array.tobytes().hex()


def _check_index(index: NDArray) -> None:
    _typed(index, np.int64, 1)
    _require(index[0] >= 0 and bool((np.diff(index) > 0).all()), "index does not ascend")


def _typed(array: Any, kind: type, dimensions: int) -> NDArray:
    """An array, if it is one of that type and number of dimensions; raises ValueError."""
    fits = isinstance(array, np.ndarray) and array.dtype == kind and array.ndim == dimensions
    _require(fits, f"an array is no {np.dtype(kind)} of {dimensions} dimensions")
    return array


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
