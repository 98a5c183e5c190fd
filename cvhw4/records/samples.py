"""What a run's trained network predicted for validation pictures, to be looked at.

Stored beside the record (`seed0-….samples.npz`), found by the record's name and held against its fingerprint; a record
is complete without. The pictures themselves lie in `<results>/<study>/pictures`, once for all runs that saw them.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvhw4.records.arrays import pack, require, unpacked
from cvhw4.records.schema import RunRecord

MOST_IMAGES = 2000  # of a validation split without predictions by pixel
MOST_BYTES = 16 << 20  # of predictions by pixel, before they are compressed


@dataclass(frozen=True, eq=False)
class PredictionSamples:
    """What the network predicted after the last epoch for K validation images (all, or an even choice of many).

    Attributes:
        run: fingerprint of its run, 64 hexadecimal digits.
        pictures: digest of the pictures it saw, likewise (`pictures_digest`).
        index: int64 [K], their places in the validation split, ascending.
        probabilities: float16 [K, C], of each class; None for segmentation.
        heat: uint8 [K, h, w], Grad-CAM of the predicted class at the resolution of the features, each image's largest
            value 255, all zero where nothing speaks for the class; None for segmentation, and where there is no map.
        why: why there is no map; empty where there is one.
        predicted: uint8 [K, H, W], the class of every pixel; None for classification.
    """

    run: str
    pictures: str
    index: NDArray[np.int64]
    probabilities: NDArray[np.float16] | None = None
    heat: NDArray[np.uint8] | None = None
    why: str = ""
    predicted: NDArray[np.uint8] | None = None

    def to_bytes(self) -> bytes:
        """As they are stored: the same samples always give the same bytes."""
        digests = {name: np.frombuffer(bytes.fromhex(getattr(self, name)), np.uint8) for name in ("run", "pictures")}
        return pack(vars(self) | digests | {"why": np.frombuffer(self.why.encode(), np.uint8) if self.why else None})

    @classmethod
    def from_bytes(cls, content: bytes, where: Path, record: RunRecord) -> PredictionSamples:
        """Reads what `to_bytes` gave.

        Args:
            where: the file it is from, for the message of an error.
            record: the run that it has to be of.

        Raises:
            InputError: it is damaged, something else, or another run's.
        """
        kinds = {"run": "u1 D", "pictures": "u1 D", "index": "i8 K", "why": "u1 T"}
        kinds |= {"probabilities": "f2 KC", "heat": "u1 Kvu", "predicted": "u1 KHW"}
        problem = "does not hold samples of its run"
        with unpacked(content, kinds, where, problem, "repeat the run") as (arrays, sizes):
            arrays |= {name: arrays[name].tobytes().hex() for name in ("run", "pictures")}
            arrays |= {name: arrays[name].tobytes().decode() for name in ("why",) if name in arrays}
            samples, classes = cls(**arrays), int(record.settings["classes"])
            require(samples.run == record.fingerprint, "they are another run's")
            _check_index(samples.index, record.data.val)
            require(sizes.get("C", classes) == classes, "probabilities are of other classes")
            p, predicted = samples.probabilities, samples.predicted
            require((p is None) != (predicted is None), "their arrays do not fit together")
            require(p is None or bool(((p >= 0) & (p <= 1)).all()), "probabilities are not between 0 and 1")
            if predicted is not None:
                require(samples.heat is None and int(predicted.max()) < classes, "predicted are other classes")
            return samples


@dataclass(frozen=True, eq=False)
class ValidationPictures:
    """K validation pictures as the networks saw them (scaled and cropped, before normalisation), S pixels a side.

    Attributes:
        index: int64 [K], their places in the validation split, ascending.
        packed: uint8, their JPEG files one behind the other; `ends`: int64 [K], where each ends.
        names: where each came from, below its data set's folder.
        labels: uint8 [K], classes (int16 where there are more than 256); None for segmentation.
        masks: uint8 [K, S, S], the data set's labels, void's the last; None for classification.
        faces: bool [K, S, S], where the face is; None where the data set does not know.
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
        return pack(vars(self) | {"names": np.array(self.names, dtype=np.str_)})

    @classmethod
    def from_bytes(cls, content: bytes, where: Path) -> ValidationPictures:
        """Reads what `to_bytes` gave.

        Raises:
            InputError: it is damaged, or something else.
        """
        kinds = {"index": "i8 K", "packed": "u1 P", "ends": "i8 K", "names": r"U\d+ K"}
        kinds |= {"labels": "(?:u1|i2) K", "masks": "u1 KSS", "faces": "b1 KSS"}
        problem, hint = "does not hold validation pictures", "delete it, and repeat a run"
        with unpacked(content, kinds, where, problem, hint) as (arrays, sizes):
            pictures = cls(**arrays | {"names": tuple(arrays["names"].tolist())})
            _check_index(pictures.index)
            rising = bool((np.diff(pictures.ends, prepend=0) > 0).all()) and pictures.ends[-1] == sizes["P"]
            require(rising, "its arrays do not fit together")
            require((pictures.labels is None) != (pictures.masks is None), "it holds neither labels nor masks, or both")
            side = pictures.picture(0).shape[0]
            require(sizes.get("S", side) == side, "masks or faces are of other pictures")
            return pictures


def pictures_digest(data: str, size: int) -> str:
    """By what a data set's validation pictures are found: its fingerprint, and the side at which networks see them."""
    return hashlib.sha256(f"{data} {size} 1".encode()).hexdigest()


def even_choice(images: int, most: int) -> NDArray[np.int64]:
    """All of 0 to images - 1, or `most` of them in even steps, ascending."""
    return np.arange(images) if images <= most else np.arange(most) * images // most


def _check_index(index: NDArray[np.int64], images: float = float("inf")) -> None:
    require(index[0] >= 0 and bool((np.diff(index) > 0).all()), "index does not ascend")
    require(index[-1] < images, "they are of more images than there were")
