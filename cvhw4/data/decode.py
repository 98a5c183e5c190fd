"""Reads picture files of every kind, with every failure named."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cvhw4.errors import InputError

MIN_SIDE = 16  # pixels; anything smaller is an icon or an accident
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
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


def decode(path: Path) -> Image.Image:
    """The first frame of a picture, decoded to its last byte, in the mode it is stored in.

    Raises:
        InputError: it cannot be read, is no picture, is damaged or truncated, is larger than Pillow's
            `MAX_IMAGE_PIXELS`, or has a side below `MIN_SIDE` pixels.
    """
    content = read_file(path)
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=_FORMATS)
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
    return image


def decode_rgb(path: Path) -> Image.Image:
    """A picture as `decode` reads it, turned upright by its EXIF orientation, in 8-bit RGB.

    Transparent parts show white, 16-bit grey keeps its upper eight bits.

    Raises:
        InputError: as `decode`, or the pixels have no meaning as colours (32-bit integers, floats).
    """
    image = decode(path)
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as problem:  # whatever a damaged EXIF block makes Pillow raise
        raise InputError(path, f"has a damaged EXIF block ({problem})", "save the picture without EXIF") from problem
    if image.mode.startswith(("I", "F")):
        image = _upper_byte(image, path)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upper_byte(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise InputError(path, f"has 32-bit pixels (mode {image.mode})", "convert the picture to 8 bits a channel")
    return Image.fromarray((values >> 8).astype(np.uint8))


# Arrays larger than memory
