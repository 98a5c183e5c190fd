"""Reads CamVid: street scenes with a class number for each pixel, from lists of pairs or from plain folders."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterable
from os.path import isdir, isfile, lexists
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvhw4.data.cache import Undecoded, cache_key, cached_dataset, file_digests
from cvhw4.data.dataset import CAMVID_CLASSES, VOID, Dataset
from cvhw4.data.decode import EXTENSIONS, MIN_SIDE, decode, decode_rgb, read_text
from cvhw4.errors import InputError
from cvhw4.files import visible

SPLITS = ("train", "val")
_TUTORIAL_ROOT = "/SegNet/CamVid/"  # how the SegNet tutorial's lists begin every path


class Pair(NamedTuple):
    """A picture and its label picture: paths below the data set's folder, with / between their parts."""

    image: str
    label: str
    origin: str  # where the pair is named: "line 3 of train.csv"


def read_camvid(folder: Path, *, size: tuple[int, int] | None = None) -> Dataset:
    """CamVid below `folder`, checked and decoded; from the cache where the same files were read before.

    The pairs of each split come, in this order of preference, from `<split>.csv` (image,label on each line), from
    `<split>.txt` (two paths below `/SegNet/CamVid/` on each line) or, where there is no list at all, from the files
    with equal stems in `<split>/` and `<split>annot/`.

    Args:
        folder: holds the lists and folders.
        size: height and width that every picture is scaled to, labels by their nearest pixel.

    Returns:
        a segmentation data set. `images` uint8 [N, H, W, 3], `sizes` int32 [N, 2], `targets` uint8 [N, H, W] with
        class numbers 0 to 10 and `VOID`.

    Raises:
        InputError: a list or folder is missing, empty or unreadable; a line has not two fields, leaves the folder or
            repeats a picture; a picture or label has no counterpart, is damaged, below 16 pixels a side or
            not as large as the first; a label is no 8-bit PNG of class numbers up to 11, or not as large
            as its picture; or the decoded pictures fit neither in the cache nor in memory.

    Warns:
        UserWarning: a picture is in both splits, pixel for pixel; or the cache cannot be written.
    """
    if size is not None and min(size) < MIN_SIDE:
        raise InputError("size", f"is {size[0]}x{size[1]}", f"give at least {MIN_SIDE} pixels for height and width")
    pairs = find_pairs(folder)
    digests = file_digests(folder, [name for split in SPLITS for pair in pairs[split] for name in pair[:2]])

    def build() -> tuple[Undecoded, Undecoded]:
        measured = _frame(folder, pairs["train"][0])
        train, val = (_pictures(folder, pairs[split], measured, size or measured) for split in SPLITS)
        return train, val

    order = [pair[:2] for split in SPLITS for pair in pairs[split]]
    return cached_dataset(
        cache_key("camvid", digests, size=size, order=order, train=len(pairs["train"])),
        build,
        name="CamVid",
        task="segmentation",
        classes=CAMVID_CLASSES[:VOID],
    )


# Which pictures and labels belong together


def find_pairs(folder: Path) -> dict[str, list[Pair]]:
    """The pairs of each split, "train" and "val", from lists or folders as `read_camvid` describes; all files exist.

    Raises:
        InputError: as `read_camvid`, as far as it concerns lists and names.
    """
    visible(folder)  # a wrong path is better named than the lists that it lacks
    lists = {split: _find_list(folder, split) for split in SPLITS}
    if not any(lists.values()) and not any(isdir(folder / f"{split}annot") for split in SPLITS):
        raise InputError(
            folder,
            "has neither a list, train.csv or train.txt, nor a folder trainannot/",
            "lay the folder out as CamVid, or use rows that classify for folders of classes",
        )
    pairs: dict[str, list[Pair]] = {}
    for split, path in lists.items():
        if path is not None:
            pairs[split] = parse_list(read_text(path), path)
        elif any(lists.values()):
            raise InputError(folder, f"has no {split}.csv or {split}.txt", "add the list, or delete the other one")
        else:
            pairs[split] = _match_stems(folder, split)
    for pair in (pair for split in SPLITS for pair in pairs[split]):
        for name in pair[:2]:
            if not isfile(folder / name):
                raise InputError(
                    folder / name, f"does not exist, but {pair.origin} names it", "add the file or delete the line"
                )
    return pairs


def _find_list(folder: Path, split: str) -> Path | None:
    candidates = (folder / f"{split}.csv", folder / f"{split}.txt")
    return next((path for path in candidates if lexists(path)), None)


def parse_list(text: str, path: Path) -> list[Pair]:
    """The pairs that the text of a list names.

    Args:
        text: lines of `image,label` (.csv) or `image label` (any other extension); blank lines and a header, a first
            line whose fields have no extension, are passed over.
        path: where the text comes from, for messages and for its extension.

    Raises:
        InputError: no pairs, not two fields on a line, a path that leaves the folder, a picture listed twice.
    """
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _txt_rows(text)
    filled = [(line, fields) for line, fields in rows if any(fields)]
    if filled and not any(posixpath.splitext(field)[1] for field in filled[0][1]):
        del filled[0]
    if not filled:
        raise InputError(path, "lists no pictures", "write a line with picture and label for each picture")
    first_line: dict[str, int] = {}
    pairs = []
    for line, fields in filled:
        if len(fields) != 2:
            raise InputError(
                path, f"line {line} has {len(fields)} fields, not 2", "name one picture and its label on each line"
            )
        image, label = (_inside(field, path, line) for field in fields)
        if image in first_line:
            raise InputError(
                path, f"line {line} repeats {image} of line {first_line[image]}", "delete one of the lines"
            )
        first_line[image] = line
        pairs.append(Pair(image, label, f"line {line} of {path.name}"))
    return pairs


def _csv_rows(text: str, path: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        return [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except csv.Error as problem:
        raise InputError(
            path, f"line {reader.line_num} is not comma-separated text ({problem})", "write image,label on each line"
        ) from problem


def _txt_rows(text: str) -> Iterable[tuple[int, list[str]]]:
    return ((line, row.split()) for line, row in enumerate(text.splitlines(), 1))


def _inside(field: str, path: Path, line: int) -> str:
    """The listed path in its shortest form, if it stays below the folder."""
    name = posixpath.normpath(field.removeprefix(_TUTORIAL_ROOT).replace("\\", "/"))
    leaves = name.startswith("/") or name.split("/")[0] in (".", "..") or PureWindowsPath(name).drive
    if leaves or "\0" in name:
        raise InputError(
            path,
            f"line {line} names {field!r}, which is not a file below the folder",
            "write paths relative to the folder of the list",
        )
    return name


def _match_stems(folder: Path, split: str) -> list[Pair]:
    images, labels = (_by_stem(folder / name) for name in (split, f"{split}annot"))
    for stem in sorted(images.keys() ^ labels.keys()):
        entry, other = (images[stem], f"{split}annot") if stem in images else (labels[stem], split)
        raise InputError(entry, f"has no counterpart in {other}/", f"add {other}/{stem}.png or delete the file")
    if not images:
        raise InputError(folder / split, "holds no pictures", "add the pictures, or a list of them")
    relative = {stem: (f"{split}/{images[stem].name}", f"{split}annot/{labels[stem].name}") for stem in images}
    return [Pair(image, label, f"{split}/") for image, label in relative.values()]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in visible(folder):
        if entry.suffix.lower() not in EXTENSIONS:
            continue
        if entry.stem in found:
            raise InputError(entry, f"has the stem of {found[entry.stem].name}", "keep one of the two")
        found[entry.stem] = entry
    return found


# Decoding


def _frame(folder: Path, pair: Pair) -> tuple[int, int]:
    width, height = decode_rgb(folder / pair.image).size
    return height, width


def _pictures(folder: Path, pairs: list[Pair], measured: tuple[int, int], frame: tuple[int, int]) -> Undecoded:
    """The pairs, all of them `measured` high and wide, scaled to the frame."""

    def read(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pair = pairs[number]
        image, label = decode_rgb(folder / pair.image), _decode_label(folder / pair.label)
        if label.size != image.size:
            raise InputError(
                folder / pair.label,
                f"measures {_measure(label)}, its picture {pair.image} {_measure(image)}",
                "replace it by the label of this picture",
            )
        if image.size != measured[::-1]:
            raise InputError(
                folder / pair.image,
                f"measures {_measure(image)}, the first picture {measured[1]}x{measured[0]}",
                "give all pictures one size",
            )
        if measured != frame:
            image = image.resize(frame[::-1], Image.Resampling.BILINEAR)
            label = label.resize(frame[::-1], Image.Resampling.NEAREST)
        return np.asarray(image), np.asarray(label)

    return Undecoded(folder, tuple(pair.image for pair in pairs), read)


def _measure(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _decode_label(path: Path) -> Image.Image:
    """A picture of class numbers, mode L or P (whose indices are the numbers)."""
    label = decode(path)
    hint = "save the label as 8-bit PNG whose grey values are the class numbers 0 to 11"
    if label.format != "PNG":
        raise InputError(path, f"is {label.format}, which may not keep class numbers exactly", hint)
    if label.mode in ("RGB", "RGBA"):
        raise InputError(path, "is coded by colour (RGB)", hint)
    if label.mode not in ("L", "P"):
        raise InputError(path, f"is not 8-bit with one channel (mode {label.mode})", hint)
    if (highest := int(np.asarray(label).max())) > VOID:
        raise InputError(
            path, f"has the value {highest}, above {VOID}", f"renumber it: classes 0 to {VOID - 1}, void {VOID}"
        )
    return label
