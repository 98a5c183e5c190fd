"""Reads scenes with a mask each: pictures of several layouts, masks of several codings, classes as `Scenes` names them.

What a mask's pixel says is looked up in the tables of `Scenes`; a pixel that is in none of them is an error that names
the file and the value. Where a file could be read in two ways that differ, it is refused.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterable, Iterator
from os.path import isdir, isfile, lexists
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvhw4.data.cache import Undecoded, cache_key, cached_dataset, file_digests
from cvhw4.data.dataset import Dataset
from cvhw4.data.decode import (
    EXTENSIONS,
    Losses,
    as_rgb,
    decode,
    decode_rgb,
    grey_bits,
    is_turned,
    read_text,
    upright,
)
from cvhw4.errors import InputError
from cvhw4.files import visible
from cvhw4.labels import VOID
from cvhw4.study import Scenes

SPLITS = ("train", "val")
# Folders of pictures and of masks with equal stems, by split.
FOLDERS = (("{}", "{}annot"), ("images/{}", "masks/{}"), ("{}/images", "{}/masks"))
_VOC = "ImageSets/Segmentation"  # lists of stems, beside JPEGImages/ and SegmentationClass/
_TUTORIAL_ROOT = "/SegNet/CamVid/"  # how the SegNet tutorial's lists begin every path
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_READING = 2  # raise it when scenes are read in another way: sets that are cached by another one are decoded anew
_MOST_SHOWN = 5  # values or colours that an error names


class Pair(NamedTuple):
    """A picture and its mask: paths below the data set's folder, with / between their parts."""

    image: str
    label: str
    origin: str  # where the pair is named: "line 3 of train.csv"


def read_scenes(source: Scenes) -> Dataset:
    """The scenes of a source, checked and decoded; from the cache where the same files were read before.

    The pairs of each split come, in this order of preference, from `<split>.csv` (picture,mask on each line), from
    `<split>.txt` (the two paths on each line, also as the SegNet tutorial writes them), from
    `ImageSets/Segmentation/<split>.txt` (stems in `JPEGImages/` and `SegmentationClass/`, as PASCAL VOC has them), or,
    where there is no list at all, from the files with equal stems in two folders (`FOLDERS`).

    Returns:
        a segmentation data set named as the folder. `images` uint8 [N, H, W, 3], `sizes` int32 [N, 2], `targets` uint8
        [N, H, W] with the numbers of the classes, and behind the last of them that of pixels that are of none.

    Raises:
        InputError: a list or folder is missing, empty or unreadable; a line has not two fields, leaves the folder or
            repeats a picture; a picture or mask has no counterpart, is damaged, below 16 pixels a side or, where
            they are not scaled, not as large as the first; a mask's file may not keep values exactly, is not as
            large as its picture, has a value or colour that is in no class, or can be read in two ways; or the decoded
            pictures fit neither in the cache nor in memory.

    Warns:
        UserWarning: a picture is in both splits, pixel for pixel; pictures lose something when they are read (frames,
            transparency, bits), or are turned by an EXIF orientation that their masks do not have; or the cache cannot
            be written.
    """
    folder, size = Path(source.folder), source.resize
    pairs = find_pairs(folder)
    digests = file_digests(folder, [name for split in SPLITS for pair in pairs[split] for name in pair[:2]])

    def build() -> tuple[Undecoded, Undecoded]:
        frame = size or _frame(folder, pairs["train"][0])
        bits = grey_bits(folder / pair.image for split in SPLITS for pair in pairs[split])
        train, val = (_pictures(source, pairs[split], frame, bits) for split in SPLITS)
        return train, val

    order = [pair[:2] for split in SPLITS for pair in pairs[split]]
    coding = [source.numbers, sorted(source.colours.items()), source.names]
    return cached_dataset(
        cache_key(
            "scenes", digests, size=size, order=order, train=len(pairs["train"]), coding=coding, reading=_READING
        ),
        build,
        name=os.path.basename(os.path.abspath(folder)),
        task="segmentation",
        classes=source.names,
    )


# Which pictures and labels belong together


def find_pairs(folder: Path) -> dict[str, list[Pair]]:
    """The pairs of each split, "train" and "val", from lists or folders as `read_scenes` describes; all files exist.

    Raises:
        InputError: as `read_scenes`, as far as it concerns lists and names.
    """
    visible(folder)  # a wrong path is better named than the lists that it lacks
    lists = {split: _find_list(folder, split) for split in SPLITS}
    pairs: dict[str, list[Pair]] = {}
    if any(lists.values()):
        for split, path in lists.items():
            if path is None:
                raise InputError(folder, f"has no {split}.csv or {split}.txt", "add the list, or delete the other one")
            pairs[split] = parse_list(read_text(path), path)
    elif isdir(folder / _VOC):
        pairs = {split: _stems_of(read_text(folder / _VOC / f"{split}.txt"), folder, split) for split in SPLITS}
    else:
        images, labels = _find_folders(folder)
        pairs = {split: _match_stems(folder, images.format(split), labels.format(split)) for split in SPLITS}
    for pair in (pair for split in SPLITS for pair in pairs[split]):
        for name in pair[:2]:
            if not isfile(folder / name):
                raise InputError(
                    folder / name, f"does not exist, but {pair.origin} names it", "add the file or delete the line"
                )
    return pairs


def _find_folders(folder: Path) -> tuple[str, str]:
    """The one of `FOLDERS` that is there, by its masks."""
    there = [pair for pair in FOLDERS if any(isdir(folder / pair[1].format(split)) for split in SPLITS)]
    if not there:
        raise InputError(
            folder,
            "has neither a list, train.csv or train.txt, nor a folder trainannot/, masks/train/ or train/masks/",
            f"lay it out as images/train/ and masks/train/, with {_VOC}/train.txt, or as CamVid; or use rows that "
            "classify for folders of classes",
        )
    if len(there) > 1:
        found = " and ".join(labels.format("train") + "/" for _, labels in there)
        raise InputError(folder, f"has masks in two layouts, {found}", "keep one of them, or write train.csv, val.csv")
    return there[0]


def _stems_of(text: str, folder: Path, split: str) -> list[Pair]:
    """The pairs that a list of stems names, the picture with whichever extension it has."""
    path = folder / _VOC / f"{split}.txt"
    lines: dict[str, int] = {}
    for line, row in enumerate(text.splitlines(), 1):
        if not (stem := row.strip()):
            continue
        if "/" in stem or "\\" in stem or "\0" in stem or stem in lines:
            again = f"repeats {stem} of line {lines[stem]}" if stem in lines else f"is not a name: {stem!r:.60}"
            raise InputError(path, f"line {line} {again}", "write the name of a picture, without extension, on each")
        lines[stem] = line
    if not lines:
        raise InputError(path, "lists no pictures", "write a name on each line")
    images = _by_stem(folder / "JPEGImages")
    masks = _by_stem(folder / "SegmentationClass")

    def named(found: dict[str, Path], stem: str, parent: str, suffix: str) -> str:
        return f"{parent}/{found[stem].name if stem in found else stem + suffix}"

    return [
        Pair(
            named(images, stem, "JPEGImages", ".jpg"),
            named(masks, stem, "SegmentationClass", ".png"),
            f"line {line} of {_VOC}/{split}.txt",
        )
        for stem, line in lines.items()
    ]


def _find_list(folder: Path, split: str) -> Path | None:
    candidates = (folder / f"{split}.csv", folder / f"{split}.txt")
    return next((path for path in candidates if lexists(path)), None)


def parse_list(text: str, path: Path) -> list[Pair]:
    """The pairs that the text of a list names.

    Args:
        text: lines of `image,label` (.csv) or `image label` (any other extension); blank lines and a header, a first
            line whose fields have no extension and name no file, are passed over.
        path: where the text comes from, for messages and for its extension.

    Raises:
        InputError: no pairs, not two fields on a line, a path that leaves the folder, a picture listed twice.
    """
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _txt_rows(text)
    filled = [(line, fields) for line, fields in rows if any(fields)]
    bare = filled and not any(posixpath.splitext(field)[1] for field in filled[0][1])
    if bare and not isfile(path.parent / filled[0][1][0]):  # or it is a picture whose name has no extension
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


def _match_stems(folder: Path, of_images: str, of_labels: str) -> list[Pair]:
    images, labels = (_by_stem(folder / name) for name in (of_images, of_labels))
    for stem in sorted(images.keys() ^ labels.keys()):
        entry, other = (images[stem], of_labels) if stem in images else (labels[stem], of_images)
        raise InputError(entry, f"has no counterpart in {other}/", f"add {other}/{stem}.png or delete the file")
    if not images:
        raise InputError(folder / of_images, "holds no pictures", "add the pictures, or a list of them")
    relative = {stem: (f"{of_images}/{images[stem].name}", f"{of_labels}/{labels[stem].name}") for stem in images}
    return [Pair(image, label, f"{of_images}/") for image, label in relative.values()]


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


def _pictures(source: Scenes, pairs: list[Pair], frame: tuple[int, int], bits: int) -> Undecoded:
    """The pairs, scaled to the frame; all of them of its size where the source does not ask for one."""
    folder, tables, losses = Path(source.folder), _Tables(source), Losses()

    def read(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pair = pairs[number]
        stored, mask = (decode(folder / name, losses, name, exact=name == pair.label) for name in pair[:2])
        image = as_rgb(stored, folder / pair.image, losses, pair.image, bits)
        label = tables.read(mask, folder / pair.label, losses, pair.label)
        if is_turned(stored) and not is_turned(mask) and stored.size == label.size == image.size:
            kind = "an EXIF orientation, and masks without, which are taken as drawn on the upright picture"
            losses.add(kind, pair.image)
        if label.size != image.size:
            raise InputError(
                folder / pair.label,
                f"measures {_measure(label)}, its picture {pair.image} {_measure(image)}",
                "replace it by the label of this picture",
            )
        if image.size != frame[::-1]:
            if source.resize is None:
                raise InputError(
                    folder / pair.image,
                    f"measures {_measure(image)}, the first picture {frame[1]}x{frame[0]}",
                    "give all pictures one size, or let them be scaled: resize=(height, width)",
                )
            image = image.resize(frame[::-1], Image.Resampling.BILINEAR)
            label = label.resize(frame[::-1], Image.Resampling.NEAREST)
        return np.asarray(image), np.asarray(label)

    return Undecoded(folder, tuple(pair.image for pair in pairs), read, losses.sentences)


def _measure(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


class _Tables:
    """What the pixels of a source's masks say: labels by value and by colour."""

    def __init__(self, source: Scenes) -> None:
        self.void = len(source.names)
        known = np.array([*source.numbers.items()], np.int64).reshape(-1, 2)
        self.by_value = np.full(int(known[:, 0].max()) + 1, -1, np.int16)
        self.by_value[known[:, 0]] = known[:, 1]
        labels = [*source.names, VOID]
        self.colours = {_packed(colour): labels.index(name) for name, colour in source.colours.items()}
        self.values = f"the values of the classes are {_listed(known[known[:, 1] < self.void, 0])}"

    def read(self, mask: Image.Image, path: Path, losses: Losses, name: str) -> Image.Image:
        """A decoded mask, turned upright by its EXIF orientation, as labels, mode L.

        Raises:
            InputError: as `read_scenes`.
        """
        self._check_format(mask, path)
        mask = upright(mask, path, losses, name)
        if mask.mode in ("LA", "RGBA", "PA"):
            if int(np.asarray(mask.getchannel("A")).min()) < 255:
                raise InputError(path, "has transparent pixels, which may mean anything", "save it without alpha")
            mask = mask.convert("P" if mask.mode == "PA" else mask.mode[:-1])
        # A transparent value or colour; of indices it says nothing.
        see_through = mask.mode != "P" and "transparency" in mask.info
        if see_through and int(np.asarray(mask.convert("RGBA").getchannel("A")).min()) < 255:
            raise InputError(path, "has transparent pixels, which may mean anything", "save it without transparency")
        if mask.mode == "RGB":
            return Image.fromarray(self._of_colours(np.asarray(mask), path))
        if mask.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise InputError(path, f"has pixels of mode {mask.mode}", "save the values as 8-bit PNG with one channel")
        return Image.fromarray(self._of_channel(mask, path))

    def _check_format(self, mask: Image.Image, path: Path) -> None:
        hint = "save the mask as PNG"
        if mask.format not in _LOSSLESS or str(mask.info.get("compression")) in ("jpeg", "tiff_jpeg", "webp"):
            raise InputError(path, f"is {mask.format}, which may not keep values exactly", hint)
        tags = getattr(mask, "tag_v2", {})  # TIFF's: bits per sample; what is black
        if tags.get(_TIFF_BITS, (8,))[0] in (2, 4) or tags.get(_TIFF_PHOTOMETRIC) == 0:
            raise InputError(path, "is TIFF whose values are stored inverted or in fewer than eight bits", hint)
        if getattr(mask, "n_frames", 1) > 1:
            raise InputError(path, f"holds {getattr(mask, 'n_frames', 1)} pictures", hint)

    def _of_colours(self, pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Labels of RGB [H, W, 3]: by colour where the source has colours, else by value where the three are equal."""
        if not self.colours:
            if (pixels != pixels[..., :1]).any():
                raise InputError(
                    path, "is coded by colour (RGB)", "say which colour is which class: colours={name: (r, g, b), ...}"
                )
            return self._look_up(pixels[..., 0].astype(np.int64), path)
        packed = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        values, places = np.unique(packed, return_inverse=True)
        found = np.array([self.colours.get(int(value), -1) for value in values], np.int16)
        if (found < 0).any():
            odd = ", ".join(str((v >> 16, v >> 8 & 255, v & 255)) for v in values[found < 0][:_MOST_SHOWN].tolist())
            raise InputError(
                path, f"has the colour {odd}, which is no class's", f"add it to colours, as {VOID!r} for pixels of none"
            )
        return found[places].reshape(packed.shape).astype(np.uint8)

    def _of_channel(self, mask: Image.Image, path: Path) -> NDArray[np.uint8]:
        """Labels of one channel. What is stored may be other than what is shown, in a palette or with fewer than eight
        bits: of those readings that have no value or colour of no class, all have to agree."""
        stored = np.asarray(mask).astype(np.int64)
        if mask.mode == "L" and (step := _step_of(path)) > 1:
            stored //= step
        readings: list[NDArray[np.uint8]] = []
        first: InputError | None = None
        for values in (stored, *self._shown(mask, stored)):
            try:
                readings.append(self._look_up(values, path))
            except InputError as error:
                first = first or error
        palette = _palette(mask)
        if palette is not None and self.colours:
            found = np.array([self.colours.get(_packed(colour), -1) for colour in palette], np.int16)[stored]
            if (found >= 0).all():
                readings.append(found.astype(np.uint8))
        if not readings:
            assert first is not None
            raise first
        if any((other != readings[0]).any() for other in readings[1:]):
            raise InputError(
                path,
                f"(mode {mask.mode}) says other classes by the numbers that it stores than by the tones that it shows",
                "save the values as 8-bit PNG with one channel and no palette",
            )
        return readings[0]

    def _shown(self, mask: Image.Image, stored: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The grey tones that a viewer shows, where they are others than what is stored."""
        if mask.mode == "1":
            yield stored * 255
        elif mask.mode == "L":
            shown = np.asarray(mask).astype(np.int64)
            if (shown != stored).any():
                yield shown
        elif (palette := _palette(mask)) is not None:
            tones = np.array(palette, np.int64)[stored]
            if (tones == tones[..., :1]).all() and (tones[..., 0] != stored).any():
                yield tones[..., 0]

    def _look_up(self, values: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
        """The labels of values [H, W]; an InputError names those that have none."""
        inside = (values >= 0) & (values < len(self.by_value))
        labels = np.where(inside, self.by_value[np.where(inside, values, 0)], -1)
        if (labels < 0).any():
            odd = np.unique(values[labels < 0])
            raise InputError(
                path,
                f"has the value{'s' * (len(odd) > 1)} {_listed(odd)}, in no class and not ignored ({self.values})",
                "give values={name: value, ...} for the classes, or ignore=value for pixels of none",
            )
        return labels.astype(np.uint8)


def _listed(values: NDArray[np.int64]) -> str:
    """ "0 to 10", or "0, 255", of ascending values."""
    shown = values.tolist()
    if len(shown) > 2 and shown == [*range(shown[0], shown[-1] + 1)]:
        return f"{shown[0]} to {shown[-1]}"
    return ", ".join(map(str, shown[:_MOST_SHOWN])) + (", ..." if len(shown) > _MOST_SHOWN else "")


def _packed(colour: Iterable[int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _palette(mask: Image.Image) -> list[tuple[int, int, int]] | None:
    """A palette's 256 colours, black where it has none; None without one."""
    if mask.mode != "P":
        return None
    flat = (mask.getpalette("RGB") or [])[: 3 * 256]
    flat += [0] * (3 * 256 - len(flat))
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]


def _step_of(path: Path) -> int:
    """By what Pillow multiplies the values of a grey PNG with fewer than eight bits."""
    with path.open("rb") as file:
        header = file.read(26)
    grey = header.startswith(b"\x89PNG") and header[25] == 0
    return {2: 85, 4: 17}.get(header[24], 1) if grey else 1
