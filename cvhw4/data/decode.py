"""Reads picture files of every kind, with every failure named."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cvhw4.errors import InputError, printable

MIN_SIDE = 16  # pixels; anything smaller is an icon or an accident
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_DEEP = (".png", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")  # formats that can have 16 bits
_OPENING = Lock()  # filters of warnings belong to the process, not to a thread


def read_file(path: Path) -> bytes:
    """The bytes of one file.

    Raises:
        InputError: it is missing, not a regular file, unreadable or empty.
    """
    if not os.path.isfile(path):  # never raises, whatever the name; a pipe would be waited for
        raise InputError(path, "does not exist or is not a file", "add the file or correct the path")
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InputError(path, f"cannot be read ({problem})", "make the file readable or delete it") from problem
    if not content:
        raise InputError(path, "is empty (0 bytes)", "replace or delete the file")
    return content


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; line ends as they are.

    Raises:
        InputError: as `read_file`, or the file is not UTF-8.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(path, f"is not UTF-8 text ({problem})", "save the file as UTF-8") from problem


class Losses:
    """What pictures lose when they are decoded, by kind; several threads may add to it."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Notes a picture.

        Args:
            kind: what happens to it ("several frames, of which the first is taken").
        """
        self._names.setdefault(kind, []).append(name)

    def sentences(self) -> list[str]:
        """One for each kind, with the number of pictures and the names of three."""
        kinds = sorted(self._names.items())
        return [f"{len(set(names))} picture(s) with {kind}: {few(names)}" for kind, names in kinds]


def few(names: Iterable[str]) -> str:
    """The first three of some names, in order."""
    found = sorted(set(names))
    return printable(", ".join(found[:3])) + (", ..." if len(found) > 3 else "")


@contextmanager
def _heard(losses: Losses | None, name: str) -> Iterator[None]:
    """Notes what Pillow warns of meanwhile: its own warnings name no file."""
    with _OPENING, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
    for warning in said:
        if losses is not None:
            losses.add(f"a fault that is read over ({' '.join(str(warning.message).split())})", name)


def decode(path: Path, losses: Losses | None = None, name: str = "", *, exact: bool = False) -> Image.Image:
    """The first frame of a picture, decoded to its last byte, in the mode it is stored in.

    Args:
        losses: where further frames are noted, faults that Pillow reads over, and 16-bit colours that it reads as
            black, under `name`.
        exact: whether 16-bit colours, whose lower bytes Pillow drops, are an error.

    Raises:
        InputError: it cannot be read, is no picture, is damaged or truncated, is larger than Pillow's
            `MAX_IMAGE_PIXELS`, or has a side below `MIN_SIDE` pixels.
    """
    content = read_file(path)
    try:
        with _heard(losses, name):
            image = Image.open(BytesIO(content), formats=_FORMATS)
        # A camera's JPEG has its own thumbnail as a second frame (MPO).
        frames = getattr(image, "is_animated", False) and image.format != "MPO"
        stored = str(image.tile[:1])
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise InputError(path, f"is too large a picture ({problem})", "scale the picture down") from problem
    except UnidentifiedImageError as problem:
        raise InputError(
            path, f"is not a picture in {', '.join(_FORMATS)}", "convert, replace or delete it"
        ) from problem
    except Exception as problem:  # for damaged files Pillow raises many kinds: OSError, SyntaxError, struct.error, ...
        raise InputError(path, f"is a damaged picture ({problem})", "replace or delete the file") from problem
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError(
            path, f"measures {width}x{height}, a side below {MIN_SIDE} pixels", "replace or delete the file"
        )
    deep = ";16" in stored and not image.mode.startswith("I")
    if exact and deep:
        raise InputError(path, "has colours of 16 bits", "save the values with 8 bits, or in one channel")
    if losses is not None and frames:
        losses.add("several frames, of which the first is taken", name)
    if losses is not None and deep and (highest := np.asarray(image.convert("RGB")).max()) < 64:  # 12 bits, or 14
        ends = "4095, and look black" if highest < 16 else "16383, and look a quarter as bright"
        losses.add(f"16-bit colours that end at {ends} with 8 bits; save them with 8 bits", name)
    return image


def upright(image: Image.Image, path: Path, losses: Losses | None = None, name: str = "") -> Image.Image:
    """A decoded picture, turned as its EXIF orientation says.

    Raises:
        InputError: its EXIF block cannot be read.
    """
    try:
        with _heard(losses, name):
            image.getexif()
        return ImageOps.exif_transpose(image)
    except Exception as problem:  # whatever a damaged EXIF block makes Pillow raise
        raise InputError(path, f"has a damaged EXIF block ({problem})", "save the picture without EXIF") from problem


def is_turned(image: Image.Image) -> bool:
    """Whether a decoded picture, read before by `upright`, has an EXIF orientation other than upright."""
    return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def grey_bits(paths: Iterable[Path]) -> int:
    """How many bits grey pictures of 16 bits really have, 8 to 16: cameras and scanners store 12 in 16.

    Decided over all of them, so that pictures stay comparable.

    Raises:
        InputError: as `decode`.
    """
    highest = 0
    for path in paths:
        if path.suffix.lower() not in _DEEP:
            continue
        try:
            with _heard(None, ""), Image.open(path, formats=_FORMATS) as image:
                deep = image.mode.startswith("I")
        except Exception:  # whoever decodes it says what is wrong with it
            continue
        if deep:
            highest = max(highest, int(np.asarray(decode(path)).max()))
    return next((bits for bits in range(8, 16, 2) if highest < 1 << bits), 16) if highest else 16


def decode_rgb(path: Path, losses: Losses | None = None, name: str = "", bits: int = 16) -> Image.Image:
    """A picture as `decode` reads it and `as_rgb` shows it."""
    return as_rgb(decode(path, losses, name), path, losses, name, bits)


def as_rgb(image: Image.Image, path: Path, losses: Losses | None = None, name: str = "", bits: int = 16) -> Image.Image:
    """A decoded picture, turned upright by its EXIF orientation, in 8-bit RGB.

    Transparent parts show white, 16-bit grey keeps the upper eight of its bits.

    Args:
        losses: where what is lost is noted, under `name`.
        bits: how many bits 16-bit grey has, see `grey_bits`.

    Raises:
        InputError: as `upright`, or the pixels have no meaning as colours (32-bit integers, floats).
    """
    image = upright(image, path, losses, name)
    if image.mode.startswith(("I", "F")):
        if losses is not None and bits < 16:
            losses.add(f"16-bit grey of which all values are below {1 << bits}, read as {bits}-bit", name)
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise InputError(path, f"has 32-bit pixels (mode {image.mode})", "convert the picture to 8 bits a channel")
        if losses is not None and bits == 16 and values.max() < 1 << 12:
            losses.add("16-bit grey that ends at 4095, in a set where others do not, and looks black", name)
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if losses is not None and np.asarray(image.getchannel("A")).min() < 255:
            losses.add("transparent parts, which are shown on white", name)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
