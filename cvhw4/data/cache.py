"""From picture files to memory-mapped arrays: what the readers of real data share.

Reading and decoding one file with every failure named (`read_file`, `decode`, `decode_rgb`), digests of what was read
(`file_digests`, `digest`), folders that appear whole or not at all (`new_folder`), and the cache in which decoded
arrays lie under such a digest (`cached`, `cached_dataset`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cvhw4.data.dataset import Dataset, Split, Task
from cvhw4.errors import InputError

MIN_SIDE = 16  # pixels; anything smaller is an icon or an accident
MAX_BYTES = 8 << 30  # decoded pictures of one split, held in memory while they are read
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)

_CACHE_FORMAT = 1  # raise it when decoding or storing changes: entries of another number are not found
_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_CHECKSUMS, _TEXTS = "checksums.json", "texts.json"


# Files and folders


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted by name, without hidden files and what file managers leave behind.

    Raises:
        InputError: there is no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(folder, problem, "create the folder or correct the path")
    try:
        entries = list(folder.iterdir())
    except OSError as problem:
        raise InputError(folder, f"cannot be listed ({problem})", "make the folder readable") from problem
    kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]
    return sorted(kept, key=lambda entry: entry.name)


def read_file(path: Path) -> bytes:
    """The bytes of one file.

    Raises:
        InputError: it is missing, not a regular file, unreadable or empty.
    """
    if not os.path.isfile(path):  # unlike Path.is_file this never raises, whatever the name
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


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """An empty folder beside `destination` that takes its name when the block ends well and vanishes otherwise.

    Parents are created, and removed again on failure.

    Raises:
        OSError: a folder cannot be made, or `destination` is there already.
    """
    created = [parent for parent in destination.parents if not parent.exists()]
    temporary = destination.parent / f".{destination.name}.{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in created:
            with suppress(OSError):
                parent.rmdir()
        raise


# Pictures


def decode(path: Path) -> Image.Image:
    """The first frame of a picture, decoded to its last byte, in the mode it is stored in.

    Raises:
        InputError: it cannot be read, is no picture, is damaged or truncated, is larger than Pillow's
            `MAX_IMAGE_PIXELS`, or has a side below `MIN_SIDE` pixels.
    """
    content = read_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=FORMATS)
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise InputError(path, f"is too large a picture ({problem})", "scale the picture down") from problem
    except UnidentifiedImageError as problem:
        raise InputError(
            path, f"is not a picture in {', '.join(FORMATS)}", "convert, replace or delete it"
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


def check_memory(where: Path, count: int, height: int, width: int) -> None:
    """Refuses pictures that would not fit in memory.

    Raises:
        InputError: `count` RGB pictures of this frame take more than `MAX_BYTES`.
    """
    if (needed := count * height * width * 3) > MAX_BYTES:
        raise InputError(
            where,
            f"its {count} pictures in a frame of {width}x{height} take {needed / 2**30:.0f} GiB decoded,"
            f" more than {MAX_BYTES / 2**30:.0f}",
            "have the pictures scaled down while they are read (a shorter side of 288 pixels is plenty for 224)",
        )


# Digests


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 in hex of each file's bytes, by its name below `folder`.

    Raises:
        InputError: as `read_file`.
    """
    return {name: hashlib.sha256(read_file(folder / name)).hexdigest() for name in names}


def digest(files: Mapping[str, str], **parameters: Any) -> str:
    """sha256 in hex over file names, their digests and, where given, parameters (anything that JSON can hold).

    Without parameters it is what `sha256sum` over all files, sorted by name, piped into `sha256sum` prints.
    """
    lines = "".join(f"{sha}  {name}\n" for name, sha in sorted(files.items()))
    if parameters:
        lines += json.dumps(parameters, sort_keys=True)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def warn_shared(train: Iterable[str], val: Iterable[str], digests: Mapping[str, str]) -> None:
    """Warns of pictures that are in both splits, byte for byte."""
    trained = {digests[name]: name for name in train}
    shared = [f"{trained[digests[name]]} = {name}" for name in val if digests[name] in trained]
    if shared:
        more = ", ..." if len(shared) > 3 else ""
        warnings.warn(
            f"{len(shared)} validation picture(s) are training pictures too, so validation figures are too good: "
            + ", ".join(shared[:3])
            + more,
            stacklevel=3,
        )


def fingerprint(*splits: Split) -> str:
    """sha256 in hex over the dtypes, shapes and values of all pictures, sizes and targets."""
    sha = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.sizes, split.targets):
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


# The cache


@dataclass(frozen=True, eq=False)
class Arrays:
    """What one cache entry holds: arrays and tuples of strings, each by name."""

    arrays: Mapping[str, NDArray[Any]]
    texts: Mapping[str, tuple[str, ...]]


def cache_root() -> Path:
    """`$CVHW4_CACHE`, else `$XDG_CACHE_HOME/cvhw4`, else `~/.cache/cvhw4`."""
    if own := os.environ.get("CVHW4_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "cvhw4"
    return Path.home() / ".cache" / "cvhw4"


def cached(key: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays stored under `key`, built and stored first where they are not.

    An entry is a folder of `.npy` files with their checksums. It appears whole or not at all, and one that does not
    match its checksums is built anew. Processes that build the same key at once each do the work; the first to
    finish stores it. Where nothing can be stored, a warning says so and the arrays stay in memory.

    Args:
        key: names the entry and the content: other content needs another key. A plain file name.
        build: makes the arrays; whatever it raises passes through and nothing is stored.

    Returns:
        read-only arrays, memory-mapped from the cache.
    """
    entry = cache_root() / key
    if key in ("", "..") or Path(key).name != key:
        raise ValueError(f"a cache key is a plain file name, not {key!r}")
    if (found := _load(entry)) is not None:
        return found
    built = build()
    try:
        _store(entry, built)
    except OSError as problem:
        warnings.warn(
            f"decoded pictures cannot be kept in {entry.parent} ({problem}), so they stay in memory and every start"
            " decodes them again; point CVHW4_CACHE to a folder that can be written",
            stacklevel=2,
        )
    return _load(entry) or _read_only(built)


def cached_dataset(
    key: str, build: Callable[[], tuple[Split, Split]], *, name: str, task: Task, classes: tuple[str, ...]
) -> Dataset:
    """A data set of real pictures whose splits come from `cached`.

    Args:
        key: as for `cached`.
        build: decodes the training and the validation split.
        name: `Dataset.name`; not part of what is stored.
        task: `Dataset.task`.
        classes: `Dataset.classes`.
    """
    found = cached(key, lambda: _pack(*build()))
    train, val = (_unpack(found, split) for split in ("train", "val"))
    return Dataset(name, task, classes, train, val, found.texts["fingerprint"][0], embedded=False)


def cache_key(kind: str, files: Mapping[str, str], **parameters: Any) -> str:
    """The key of decoded files: changes with their names and bytes, the parameters, Pillow and this module's format."""
    return f"{kind}-{digest(files, **parameters, pillow=PIL.__version__, format=_CACHE_FORMAT)[:40]}"


def _pack(train: Split, val: Split) -> Arrays:
    arrays = {
        f"{name}-{part}": getattr(split, part)
        for name, split in (("train", train), ("val", val))
        for part in ("images", "sizes", "targets")
    }
    return Arrays(arrays, {"train": train.names, "val": val.names, "fingerprint": (fingerprint(train, val),)})


def _unpack(found: Arrays, split: str) -> Split:
    images, sizes, targets = (found.arrays[f"{split}-{part}"] for part in ("images", "sizes", "targets"))
    return Split(images, sizes, targets, found.texts[split])


def _read_only(built: Arrays) -> Arrays:
    for array in built.arrays.values():
        array.flags.writeable = False
    return built


def _store(entry: Path, built: Arrays) -> None:
    """Writes an entry in place of a damaged one; leaves a sound one, another process's, alone.

    Raises:
        OSError: it cannot be written.
    """
    if entry.exists():
        if _load(entry) is not None:
            return
        damaged = entry.with_name(f".{entry.name}.{secrets.token_hex(8)}.tmp")
        with suppress(FileNotFoundError):  # another process moved it first
            entry.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        with new_folder(entry) as folder:
            _write(folder, built)
    except OSError:
        if not entry.exists():  # otherwise another process was quicker
            raise


def _write(folder: Path, built: Arrays) -> None:
    (folder / _TEXTS).write_text(json.dumps(built.texts))
    for name, array in built.arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / _CHECKSUMS).write_text(json.dumps({path.name: _checksum(path) for path in folder.iterdir()}))
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _load(entry: Path) -> Arrays | None:
    """The entry, or None where it is missing or damaged in any way."""
    try:
        checksums: dict[str, int] = json.loads((entry / _CHECKSUMS).read_text())
        if any(_checksum(entry / name) != checksum for name, checksum in checksums.items()):
            return None
        texts = json.loads((entry / _TEXTS).read_text())
        arrays = {name[:-4]: np.load(entry / name, mmap_mode="r") for name in checksums if name.endswith(".npy")}
        return Arrays(arrays, {name: tuple(values) for name, values in texts.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _checksum(path: Path) -> int:
    """CRC-32: finds damage as well as a cryptographic sum does, in a tenth of the time."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
