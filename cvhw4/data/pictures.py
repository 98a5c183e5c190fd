"""Reads a folder of real pictures by class, laid out as `train/<class>/*` and `val/<class>/*`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvhw4.data.cache import Undecoded, cache_key, cached_dataset, file_digests
from cvhw4.data.dataset import Dataset
from cvhw4.data.decode import EXTENSIONS, Losses, decode_rgb, grey_bits
from cvhw4.errors import InputError
from cvhw4.files import visible

_SPLITS = ("train", "val")

_SHOWN = 12  # class folders that an error names
_READING = 3  # raise it when pictures are read in another way: sets that are cached by another one are decoded anew


def read_pictures(folder: Path, *, short_side: int | None = None, classes: int = 2) -> Dataset:
    """The pictures below `folder`, checked and decoded; from the cache where the same files were read before.

    Classes are numbered in the sorted order of their folders' names, pictures come in the sorted order of their
    paths. EXIF orientation is applied. Hidden files and what file managers leave behind are passed over.

    Args:
        folder: holds `train/` and `val/`, each with the same folders of pictures, one for each class.
        short_side: pictures whose shorter side has more pixels are scaled down to it, their aspect kept.
        classes: how many there have to be, 2 or more.

    Returns:
        a classification data set named as the folder. `images` uint8 [N, H, W, 3] with H and W the largest height
        and width of the split, or packed, `sizes` int32 [N, 2], `targets` uint8 [N] (int16 for more than 256 classes).

    Raises:
        InputError: a split or class is missing, empty or one too many; a picture is in no class; a file is no sound
            picture of at least 16 pixels a side; or the decoded pictures fit neither in the cache nor in memory.

    Warns:
        UserWarning: a picture is in both splits, or in two classes, pixel for pixel; pictures lose something when they
            are read (frames, transparency, bits); or the cache cannot be written.
    """
    inside = [entry.name for entry in visible(folder)]
    if lacking := [split for split in _SPLITS if split not in inside]:
        found = ", ".join(inside[:_SHOWN]) + (", ..." if len(inside) > _SHOWN else "")
        hint = "name the folder in which pictures lie as train/<class>/ and val/<class>/"
        raise InputError(folder, f"has no {lacking[0]}/ (in it: {found or 'nothing'})", hint)
    listed = {"train": _list_split(folder / "train", classes)}
    names_of_classes = tuple(listed["train"])
    in_val = {entry.name for entry in visible(folder / "val") if os.path.isdir(entry)}
    if odd := sorted({*names_of_classes} ^ in_val):
        lacks, has = ("train", "val") if odd[0] in in_val else ("val", "train")
        more = f"; {len(odd)} folders are in one of them alone" if odd[1:] else ""
        hint = "give both splits the same folders"
        raise InputError(folder / lacks, f"has no {odd[0]}/, which {has}/ has{more}", hint)
    listed["val"] = _list_split(folder / "val", classes)
    names = {s: [f"{s}/{label}/{file}" for label, files in listed[s].items() for file in files] for s in _SPLITS}
    targets = {s: [number for number, files in enumerate(listed[s].values()) for _ in files] for s in _SPLITS}
    digests = file_digests(folder, names["train"] + names["val"])

    def build() -> tuple[Undecoded, Undecoded]:
        bits = grey_bits(folder / name for split in _SPLITS for name in names[split])
        train, val = (_pictures(folder, names[s], targets[s], classes, short_side, bits) for s in _SPLITS)
        return train, val

    return cached_dataset(
        cache_key("pictures", digests, short_side=short_side, reading=_READING),
        build,
        name=os.path.basename(os.path.abspath(folder)),
        task="classification",
        classes=names_of_classes,
    )


def _list_split(folder: Path, needed: int) -> dict[str, list[str]]:
    """Names of the picture files in a split's folder, by class, both sorted."""
    entries = visible(folder)
    classes = [entry for entry in entries if os.path.isdir(entry)]
    if [entry.name for entry in classes] == ["images", "masks"]:
        hint = "give Scenes(folder, classes=[...]) and networks that segment, or rename the folders"
        raise InputError(folder, "holds images/ and masks/, which are scenes and no two classes", hint)
    if len(classes) != needed:
        found = ", ".join(entry.name for entry in classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
        number = "two" if needed == 2 else needed
        raise InputError(
            folder,
            f"holds {len(classes)} class folders ({found or 'none'}), not {number}",
            f"keep one folder for each of {number} classes" if len(classes) > needed else "add a folder for each class",
        )
    for entry in entries:
        if entry.suffix.lower() in EXTENSIONS and entry not in classes:
            raise InputError(entry, "is of no class", "move it into the folder of its class, or away")
    return {entry.name: _list_class(entry) for entry in classes}


def _list_class(folder: Path) -> list[str]:
    entries = visible(folder)
    if not entries:
        raise InputError(folder, "holds no pictures", "add pictures of this class")
    for entry in entries:
        if os.path.isdir(entry):
            raise InputError(entry, "is a folder among pictures", "move its pictures up or the folder away")
        if entry.suffix.lower() not in EXTENSIONS:
            raise InputError(
                entry, "has no extension of a known picture format", "convert it to JPEG or PNG, or move it away"
            )
    return [entry.name for entry in entries]


def _pictures(
    folder: Path, names: list[str], targets: list[int], classes: int, short_side: int | None, bits: int
) -> Undecoded:
    kind, losses = np.uint8 if classes <= 256 else np.int16, Losses()

    def read(number: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        picture = _shrink(decode_rgb(folder / names[number], losses, names[number], bits), short_side)
        return np.asarray(picture), np.array(targets[number], kind)

    return Undecoded(folder, tuple(names), read, losses.sentences)


def _shrink(image: Image.Image, short_side: int | None) -> Image.Image:
    if short_side is None or min(image.size) <= short_side:
        return image
    scale = short_side / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
