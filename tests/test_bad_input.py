"""Whatever a user can hand in, from the command line to the answer.

Unusable input ends a session before anything is trained, and a command before anything is written: exit code 4, one
line that names the file or option, what is wrong with it and the fix. Strange but usable input is read as it is meant.
"""

import hashlib
import os
import pickle
import re
import shutil
import socket
import stat
import struct
import sys
import tempfile
import urllib.error
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import numpy as np
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import tabulate  # noqa: F401
import timm
import torch
import torchvision.transforms.v2  # noqa: F401
from PIL import Image
from safetensors.torch import save_file

import cvhw4.data.load
import cvhw4.data.pictures

# Sessions inside this process throw away the modules they import; what cannot be imported twice is imported here.
# Likewise what a user without rights to the checkout imports late.
import cvhw4.data.scenes
import cvhw4.preflight
import cvhw4.training.fit  # noqa: F401
from cvhw4 import cli, homework
from cvhw4.data import fetch
from cvhw4.models.build import build_network
from cvhw4.models.weights import read_state
from cvhw4.records.store import Store
from cvhw4.runner import Runner
from cvhw4.statistics.calibration import calibrate, to_toml
from tests.test_bounds import stored
from tests.test_fetch import ATTRIBUTES, ROOT, SMALL, _edit, _link_member, _official, _tutorial, _zip
from tests.test_portraits_folder import GREY, MODES, _noise
from tests.tiny import QUICK, record, row, shrink

pytest_plugins = ["pytester"]
CHECKOUT = Path(__file__).resolve().parent.parent
LITE0 = "tf_efficientnet_lite0"
HEIGHT, WIDTH = 132, 176  # pictures of the quick study's size, which are not changed
NOBODY = 65534


class Case(NamedTuple):
    """An input and the answer to it.

    Attributes:
        make: puts the input into the folder that is "{}" in `args`.
        args: of a session of the benchmarks; of the command where the first is "cvhw4".
        named: what the message begins with: a path, in which "{}" is that folder, an option or a row.
        problem: a part of what it says is wrong.
        hint: a part of what it says is to be done.
        rights: whether the user may do anything; without, as a user may who owns nothing.
    """

    make: Callable[[Path], object]
    args: tuple[str, ...]
    named: str
    problem: str
    hint: str
    rights: bool = True


BAD: dict[str, Case] = {}


# Two classes of portraits


def _photos(place: Path) -> Path:
    """Two splits of two classes with two pictures each; the path of the first."""
    for number in range(8):
        path = place / "photos" / ("train", "val")[number // 4] / ("bright", "dark")[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _noise(24, 20, number).save(path)
    return place / "photos" / "train" / "bright" / "0.png"


def _photo(name: str, corrupt: Callable[[Path], object], named: str, problem: str, hint: str, **options: bool) -> None:
    """A case in which something is done to the first picture."""
    BAD[name] = Case(
        lambda p: corrupt(_photos(p)), ("--portraits", "{}/photos"), f"{{}}/photos/{named}", problem, hint, **options
    )


def _instead(make: Callable[[Path], object], name: str = "0.png") -> Callable[[Path], None]:
    """Something else in the place of the picture."""

    def corrupt(path: Path) -> None:
        path.unlink()
        make(path.with_name(name))

    return corrupt


def _cut(path: Path, left: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])


def _save_cut(kind: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        _noise(64, 64, 1).save(path, kind)
        _cut(path)

    return save


def _bomb(path: Path) -> None:
    """A PNG of 60000x60000 pixels, or so its first bytes say."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = path.read_bytes()
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _move(path: Path, name: str) -> None:
    path.rename(path.parent / name)


def _classes(path: Path) -> Path:
    return path.parents[1]


BRIGHT = "train/bright"
PNG = f"{BRIGHT}/0.png"
REPLACE = "replace or delete the file"
GONE = "does not exist or is not a file"
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + struct.pack(">HHI4sHHIi", 0x112, 3, 1, b"\0\6\0\0", 0x8769, 9, 1, -1) + bytes(4)

_photo("truncated jpeg", _instead(_save_cut("JPEG"), "0.jpg"), f"{BRIGHT}/0.jpg", "is a damaged picture", REPLACE)
_photo("truncated png", _save_cut("PNG"), PNG, "is a damaged picture", REPLACE)
_photo("zero bytes", lambda p: p.write_bytes(b""), PNG, "is empty (0 bytes)", REPLACE)
_photo(
    "text named jpg",
    _instead(lambda p: p.write_text("hello"), "0.jpg"),
    f"{BRIGHT}/0.jpg",
    "is not a picture",
    "replace",
)
_photo("wrong extension", lambda p: _move(p, "0.doc"), f"{BRIGHT}/0.doc", "has no extension of", "convert it to JPEG")
_photo("1x1", lambda p: _noise(1, 1, 0).save(p), PNG, "measures 1x1, a side below 16 pixels", REPLACE)
_photo("15 pixels", lambda p: _noise(15, 40, 0).save(p), PNG, "measures 40x15, a side below 16 pixels", REPLACE)
_photo("decompression bomb", _bomb, PNG, "is too large a picture", "scale the picture down")
_photo("damaged EXIF", lambda p: _noise(24, 20, 0).save(p, exif=EXIF), PNG, "has a damaged EXIF block", "without EXIF")
_photo("link to itself", _instead(lambda p: p.symlink_to(p)), PNG, GONE, "add the file or correct the path")
_photo("dangling link", _instead(lambda p: p.symlink_to("nowhere")), PNG, GONE, "add the file or correct the path")
_photo("unreadable picture", lambda p: p.chmod(0), PNG, "cannot be read", "make the file readable", rights=False)
_photo(
    "folder named jpg", _instead(Path.mkdir, "0.jpg"), f"{BRIGHT}/0.jpg", "is a folder among", "move its pictures up"
)
_photo("pipe named jpg", _instead(os.mkfifo, "0.jpg"), f"{BRIGHT}/0.jpg", GONE, "add the file or correct the path")
_photo("socket named jpg", _instead(_socket, "0.jpg"), f"{BRIGHT}/0.jpg", GONE, "add the file or correct the path")
_photo(
    "float TIFF",
    _instead(lambda p: Image.fromarray(np.ones((20, 20), np.float32)).save(p), "0.tif"),
    f"{BRIGHT}/0.tif",
    "has 32-bit pixels",
    "convert the picture to 8 bits a channel",
)
_photo(
    "name that a terminal acts on",
    _instead(lambda p: p.write_text("hello"), "a\n\x1b[31mb.png"),
    f"{BRIGHT}/a\\n\\x1b[31mb.png",
    "is not a picture",
    "replace",
)
_photo(
    "name that is no UTF-8",
    _instead(lambda p: p.write_text("hello"), "a\udcffé写.png"),
    f"{BRIGHT}/a\\udcffé写.png",
    "is not a picture",
    "replace",
)
_photo("no train", lambda p: shutil.rmtree(_classes(p)), "train", "does not exist", "create the folder")
_photo("no val", lambda p: shutil.rmtree(p.parents[2] / "val"), "val", "does not exist", "create the folder")
_photo("one class", lambda p: shutil.rmtree(p.parent), "train", "holds 1 class folders (dark)", "two classes")
_photo(
    "three classes",
    lambda p: (_classes(p) / "grey").mkdir(),
    "train",
    "holds 3 class folders (bright, dark, grey)",
    "two classes",
)
_photo("other classes", lambda p: _move(p.parent, "pale"), "val", "train/ has dark and pale", "the same two")
_photo("empty class", lambda p: [q.unlink() for q in p.parent.iterdir()], BRIGHT, "holds no pictures", "add pictures")
_photo(
    "nested folder",
    lambda p: shutil.copytree(p.parent, p.with_name("more")),
    f"{BRIGHT}/more",
    "is a folder among pictures",
    "move its pictures up",
)
_photo("class not listable", lambda p: p.parent.chmod(0), BRIGHT, "cannot be listed", "make the folder", rights=False)
_photo(
    "split not searchable", lambda p: _classes(p).chmod(0o444), "train", "cannot be listed", "make the", rights=False
)
BAD |= {
    "no such folder": Case(
        lambda p: None, ("--portraits", "{}/photos"), "{}/photos", "does not exist", "correct the path"
    ),
    "file for a folder": Case(
        lambda p: (p / "photos").write_text("x"),
        ("--portraits", "{}/photos"),
        "{}/photos",
        "is not a folder",
        "correct",
    ),
    "pipe for a folder": Case(
        lambda p: os.mkfifo(p / "photos"), ("--portraits", "{}/photos"), "{}/photos", "is not a folder", "correct"
    ),
    "CamVid as portraits": Case(
        lambda p: _streets(p), ("--portraits", "{}/streets"), "{}/streets/train", "holds 0 class folders (none)", "two"
    ),
}


# Street scenes


def _streets(place: Path) -> Path:
    """Two splits of two pictures of the quick study's size with their labels, and lists; the folder."""
    folder = place / "streets"
    for split in ("train", "val"):
        lines = []
        for number in range(2):
            image, label = f"{split}/{number}.png", f"{split}annot/{number}.png"
            for name in (image, label):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _noise(HEIGHT, WIDTH, number + len(split)).save(folder / image, compress_level=1)
            Image.fromarray(_label(number)).save(folder / label, compress_level=1)
            lines.append(f"{image},{label}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


def _label(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 12, (HEIGHT, WIDTH), np.uint8)


def _street(name: str, corrupt: Callable[[Path], object], named: str, problem: str, hint: str) -> None:
    """A case in which something is done to the folder."""
    BAD[name] = Case(
        lambda p: corrupt(_streets(p)), ("--camvid", "{}/streets"), f"{{}}/streets/{named}".rstrip("/"), problem, hint
    )


def _relabel(change: Callable[[np.ndarray], np.ndarray], kind: str = "PNG") -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(change(_label(0))).save(folder / LABEL, kind)


def _list(content: str | bytes) -> Callable[[Path], object]:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "train.csv").write_bytes(encoded)


def _unlist(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / f"{split}.csv").unlink()


def _unlabel(folder: Path) -> None:
    _unlist(folder)
    (folder / LABEL).unlink()


def _label_too_many(folder: Path) -> None:
    _unlist(folder)
    shutil.copy(folder / LABEL, folder / "trainannot" / "7.png")


LABEL = "trainannot/0.png"
LINE = f"train/0.png,{LABEL}\n"
RELATIVE = "write paths relative to the folder of the list"

_street("no label", _unlabel, "train/0.png", "has no counterpart in trainannot/", "add trainannot/0.png")
_street("listed label missing", lambda f: (f / LABEL).unlink(), LABEL, "line 1 of train.csv names it", "add the file")
_street("surplus label", _label_too_many, "trainannot/7.png", "has no counterpart in train/", "or delete the file")
_street("colours for classes", _relabel(lambda x: np.stack([x] * 3, 2)), LABEL, "has the colour (1, 1, 1)", "add it")
_street("alpha in a label", _relabel(lambda x: np.stack([x] * 2, 2)), LABEL, "has transparent pixels", "without alpha")
_street("16-bit label", _relabel(lambda x: x * np.uint16(300)), LABEL, "has the values 300, 600, 900", "values=")
_street("jpeg label", _relabel(lambda x: x, "JPEG"), LABEL, "is JPEG, which may not keep values", "as PNG")
_street("label of another size", _relabel(lambda x: x[1:]), LABEL, "measures 176x131, its picture", "label of this")
_street(
    "value above void", _relabel(lambda x: x + 1), LABEL, "has the value 12, in no class and not ignored", "values="
)
_street("no comma", _list("train/0.png\n"), "train.csv", "line 1 has 1 fields, not 2", "one picture and its label")
_street("three columns", _list(LINE + "a.png,b.png,c\n"), "train.csv", "line 2 has 3 fields, not 2", "name one picture")
_street("empty list", _list(""), "train.csv", "is empty (0 bytes)", "replace or delete")
_street("header only", _list("image,label\n"), "train.csv", "lists no pictures", "write a line with picture and label")
_street("absolute path", _list(f"/etc/hosts,{LABEL}"), "train.csv", "line 1 names '/etc/hosts'", RELATIVE)
_street("path that leaves", _list(f"{LINE}../a.png,{LABEL}"), "train.csv", "line 2 names '../a.png'", RELATIVE)
_street("Windows drive", _list(f"C:\\a.png,{LABEL}"), "train.csv", "names 'C:", RELATIVE)
_street("duplicate line", _list(LINE * 2), "train.csv", "line 2 repeats train/0.png of line 1", "delete one of the")
_street("NUL byte", _list(f"train/\0.png,{LABEL}"), "train.csv", "line 1", RELATIVE)
_street("invalid UTF-8", _list(b"train/\xff.png,a.png"), "train.csv", "is not UTF-8 text", "save the file as UTF-8")
_street("UTF-16", _list(LINE.encode("utf-16")), "train.csv", "is not UTF-8 text", "save the file as UTF-8")
_street("listed picture missing", _list(LINE.replace("0", "9")), "train/9.png", "line 1 of train.csv names", "add the")
_street("one list of two", lambda f: (f / "val.csv").unlink(), "", "has no val.csv or val.txt", "add the list")
_street("pipe for a list", lambda f: [_unlist(f), os.mkfifo(f / "train.csv")], "train.csv", GONE, "add the file")
BAD |= {
    "scenes smaller than the crop": Case(
        _streets,
        ("--camvid", "{}/streets", "--profile", "full"),
        "{}/streets",
        "has scenes of 176x132, and 256 pixels a side are cut out",
        "give pictures of at least 256 pixels a side",
    ),
    "portraits as CamVid": Case(
        _photos, ("--camvid", "{}/photos"), "{}/photos", "has neither a list", "lay it out as images/train/"
    ),
}


# Weights


@cache
def _lite0() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state: dict[str, torch.Tensor] = timm.create_model(LITE0).state_dict()
    return state


def _weight(name: str, make: Callable[[Path], object], problem: str, hint: str, suffix: str = "safetensors") -> None:
    """A case with a file of weights for Lite0, or something in its place."""

    def place(folder: Path) -> None:
        (folder / "weights").mkdir()
        make(folder / "weights" / f"{LITE0}.{suffix}")

    BAD[name] = Case(place, ("--weights", "{}/weights"), f"{{}}/weights/{LITE0}.{suffix}", problem, hint)


def _tensors(*names: str, **changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Saves Lite0's tensors without some, or with the first convolution's changed."""

    def save(path: Path) -> None:
        state = {k: v for k, v in _lite0().items() if k not in names}
        for change in changes.values():
            state["conv_stem.weight"] = change(state["conv_stem.weight"])
        save_file(state, path)

    return save


def _save_truncated(path: Path) -> None:
    (save_file if path.suffix == ".safetensors" else torch.save)(_lite0(), path)
    _cut(path)


class _Code:
    """What a malicious pickle holds: once it is run, there is a file `made`."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.made}'",)


def _twice(path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, path.with_name(f"{LITE0}-{name}.safetensors"))


FITS = f"give a file of {LITE0}'s weights"
ORIGINAL = "replace it with the original file"
TENSORS = "save the network's state_dict() to it"

_weight("another network's", lambda p: save_file(timm.create_model("resnet18").state_dict(), p), "does not fit", FITS)
_weight("a tensor missing", _tensors("bn1.bias"), f"does not fit {LITE0}: lacks bn1.bias", FITS)
_weight("wrong shape", _tensors(change=lambda x: x[1:].clone()), "has another shape of conv_stem.weight", FITS)
_weight("NaN", _tensors(change=lambda x: x.where(x > 0, torch.nan)), "has NaN or infinite values in conv_stem", FITS)
_weight("infinite", _tensors(change=lambda x: x / 0), "has NaN or infinite values in conv_stem.weight", FITS)
_weight("integers", _tensors(change=lambda x: x.to(torch.int32)), "has no floating-point numbers in conv_stem", FITS)
_weight("truncated safetensors", _save_truncated, "cannot be read as weights", ORIGINAL)
_weight("truncated pth", _save_truncated, "cannot be read as weights", ORIGINAL, "pth")
_weight("empty pth", Path.touch, "cannot be read as weights (torch.save did not write it)", ORIGINAL, "pth")
_weight("empty safetensors", Path.touch, "cannot be read as weights", ORIGINAL)
_weight("text named safetensors", lambda p: p.write_text("hello"), "cannot be read as weights", ORIGINAL)
_weight("text named pth", lambda p: p.write_text("<html>"), "torch.save did not write it", ORIGINAL, "pth")
_weight(
    "code in torch's format",
    lambda p: torch.save({"conv_stem.weight": _Code(p.with_name("made"))}, p),
    "holds code that would have to be run (posix.system)",
    TENSORS,
    "pth",
)
_weight(
    "code in a plain pickle",
    lambda p: p.write_bytes(pickle.dumps(_Code(p.with_name("made")), 2)),
    "holds code that would have to be run (posix.system)",
    TENSORS,
    "pth",
)
_weight(
    "a whole module",
    lambda p: torch.save(torch.nn.Linear(2, 2), p),
    "holds code that would have to be run (torch.nn.modules.linear.Linear)",
    TENSORS,
    "pth",
)
_weight("no tensors", lambda p: torch.save({"epoch": 3}, p), "holds no state dict of tensors", TENSORS, "pth")
_weight("two files", _twice, f"has several files for {LITE0}", f"name it {LITE0}.pth")
BAD["two files"] = BAD["two files"]._replace(named="{}/weights")
_weight("pipe for weights", os.mkfifo, "is not a file", "move it away")
BAD |= {
    "file for the folder of weights": Case(
        lambda p: (p / "weights").write_text("x"), ("--weights", "{}/weights"), "{}/weights", "is not a folder", "give"
    ),
    "unreadable weights": Case(
        lambda p: [(p / "w").mkdir(), (p / "w" / f"{LITE0}.pth").touch(mode=0)],
        ("--weights", "{}/w"),
        f"{{}}/w/{LITE0}.pth",
        "cannot be read",
        "make the file readable",
        rights=False,
    ),
}


# Other options


def _bounds(text: str | bytes) -> Callable[[Path], object]:
    encoded = text.encode() if isinstance(text, str) else text
    return lambda place: (place / "b.toml").write_bytes(encoded)


def _session(name: str, make: Callable[[Path], object], args: str, named: str, problem: str, hint: str) -> None:
    BAD[name] = Case(make, tuple(args.split()), named, problem, hint)


def _nothing(place: Path) -> None:
    pass


BOUNDED = to_toml(QUICK, calibrate(QUICK, stored()))
ANEW = "run cvhw4 calibrate to write it again"

_session(
    "link to itself for portraits",
    lambda p: (p / "l").symlink_to(p / "l"),
    "--portraits {}/l",
    "{}/l",
    "does not exist",
    "correct the path",
)
_session(
    "link to itself for results",
    lambda p: (p / "l").symlink_to(p / "l"),
    "--results {}/l",
    "{}/l",
    "is not a folder",
    "give --results a folder",
)
_session(
    "results below a file", _bounds(""), "--results {}/b.toml/x", "{}/b.toml/x", "cannot be used", "choose another"
)
_session("results too long", _nothing, "--results " + "r" * 300, "r" * 300, "cannot be used", "choose another")
_session("no seeds", _nothing, "--seeds 0", "--seeds 0", "", "--seeds 1 or more")
_session("seeds below none", _nothing, "--seeds -1", "--seeds -1", "", "--seeds 1 or more")
_session("no CUDA", _nothing, "--device cuda", "--device cuda", "finds no CUDA device", "use --device cpu")
_session("no bounds", _nothing, "--bounds {}/b.toml", "{}/b.toml", "does not exist", "name a bounds file with --bounds")
_session(
    "bounds cut off",
    _bounds(BOUNDED[:-999]),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "is not a bounds file",
    ANEW,
)
_session("bounds that are text", _bounds("hello\n"), "--bounds {}/b.toml", "{}/b.toml", "is not a bounds file", ANEW)
_session("bounds of bytes", _bounds(b"\xff\xfe\0"), "--bounds {}/b.toml", "{}/b.toml", "is not a bounds file", ANEW)
_session(
    "bounds of no figure",
    _bounds(BOUNDED.replace("best accuracy", "best acuracy", 1)),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "there is no best acuracy of q1_1-features",
    ANEW,
)
_session(
    "bounds of no row",
    _bounds(BOUNDED.replace("q1_1-features", "q1_1-featuers")),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "there is no q1_1-featuers",
    ANEW,
)
_session(
    "bounds of no claim",
    _bounds(BOUNDED.replace("q2_2-skip_miou", "q2_2-skip_iou")),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "there is no q2_2-skip_iou",
    ANEW,
)
_session(
    "bounds without end",
    _bounds(re.sub("high = [-0-9.e]+", "high = inf", BOUNDED, count=1)),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "is not a bound",
    ANEW,
)
_session(
    "bounds edited",
    _bounds(BOUNDED.replace("low = ", "low = 9", 1)),
    "--bounds {}/b.toml",
    "{}/b.toml",
    "is not a bounds file",
    ANEW,
)
_session(
    "bounds of nothing", _bounds("[tool]\nx = 1"), "--bounds {}/b.toml", "{}/b.toml", "no bounds of study", "run cv"
)
_session("folder for bounds", _nothing, "--bounds {}", "{}", "is not a file", "name a bounds file with --bounds")
_session(
    "pipe for bounds", lambda p: os.mkfifo(p / "b"), "--bounds {}/b", "{}/b", "is not a file", "name a bounds file"
)
_session(
    "file for results", _bounds(""), "--results {}/b.toml", "{}/b.toml", "is not a folder", "give --results a folder"
)
BAD["results in an unwritable place"] = Case(
    lambda p: (p / "shut").mkdir(mode=0o555),
    ("--results", "{}/shut/results"),
    "{}/shut",
    "cannot be written to",
    "choose another folder with --results",
    rights=False,
)


# Commands


def _camvid(name: str, make: Callable[[Path], object], problem: str, hint: str = "", *more: str) -> None:
    """A case of `cvhw4 fetch camvid` from an archive that `make` puts at the path it is given."""
    args = "cvhw4", "fetch", "camvid", "{}/CamVid", "--from", "{}/t.zip", *more
    BAD[name] = Case(lambda p: make(p / "t.zip"), args, "{}/t.zip", problem, hint or "github.com/alexgkendall/SegNet")


def _with(**members: bytes) -> Callable[[Path], object]:
    return lambda path: _zip(_tutorial() | members, path)


def _link(path: Path) -> None:
    with zipfile.ZipFile(_zip(_tutorial(), path), "a") as archive:
        _link_member(archive)


def _encrypted(path: Path) -> None:
    """Sets the bit that says so, in each member's two headers."""
    content = bytearray(_zip(_tutorial(), path).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)


OUT = "which leads out of its folder"
INCOMPLETE = {name: content for name, content in _tutorial().items() if not name.endswith("train/00001.png")}

_camvid("archive that leaves", _with(**{f"{ROOT}/../../evil.png": b"x"}), OUT)
_camvid("archive with an absolute member", _with(**{"/CamVid/train/evil.png": b"x"}), OUT)
_camvid("archive with a drive", _with(**{"C:/CamVid/train/evil.png": b"x"}), OUT)
_camvid("archive with a link", _link, "link.png', which is a link")
_camvid("archive cut off", lambda p: _cut(_zip(_tutorial(), p)), "is not a sound zip archive")
_camvid("text for an archive", lambda p: p.write_text("hello"), "is not a sound zip archive")
_camvid("encrypted archive", _encrypted, "is encrypted")
_camvid("archive of something else", lambda p: _zip({"README.md": b"x"}, p), "holds no CamVid/ folder")
_camvid("incomplete archive", lambda p: _zip(INCOMPLETE, p), "is not a complete CamVid: train holds 2 files, not 3")
_camvid("zip bomb", _with(**{f"{ROOT}/train/x.png": bytes(10**6)}), "unpacks to more than CamVid can hold")
_camvid("another digest", _with(), f", not {'0' * 64}", "", "--sha256", "0" * 64)
_camvid("archive that is a pipe", os.mkfifo, GONE, "correct the path of the source")
BAD |= {
    "digest of ten digits": Case(
        _nothing,
        ("cvhw4", "fetch", "camvid", "{}/CamVid", "--sha256", "0123456789"),
        "--sha256 0123456789",
        "is not a sha256",
        "give the 64 hex digits",
    ),
    "no net": Case(
        _nothing, ("cvhw4", "fetch", "camvid", "{}/CamVid"), fetch.CAMVID_URL, "could not be downloaded", "in a browser"
    ),
    "list of CelebA cut off": Case(
        lambda p: _edit(ATTRIBUTES, "40\n", "202599\n")(_official(p / "celeba")),
        ("cvhw4", "fetch", "portraits", "{}/faces", "--celeba", "{}/celeba"),
        f"{{}}/celeba/{ATTRIBUTES}",
        "announces 202599 pictures, lists 40",
        "download the list again",
    ),
    "unreadable list of CelebA": Case(
        lambda p: (_official(p / "celeba") / ATTRIBUTES).chmod(0),
        ("cvhw4", "fetch", "portraits", "{}/faces", "--celeba", "{}/celeba"),
        f"{{}}/celeba/{ATTRIBUTES}",
        "cannot be read",
        "make the file readable",
        rights=False,
    ),
    "no study": Case(
        _nothing, ("cvhw4", "rows", "--study", "nope"), "--study nope", "is neither", "one of quick, full"
    ),
    "no runs": Case(
        _nothing, ("cvhw4", "report", "--results", "{}/r"), "{}/r/quick", "is not a folder of runs", "--results"
    ),
    "no option": Case(_nothing, ("cvhw4", "rows", "--nope"), "No such option", "--nope", "see cvhw4 rows --help"),
}


def _records(*extra: object, seeds: int = 5) -> Callable[[Path], None]:
    def save(place: Path) -> None:
        store = Store(place / "results", "quick")
        for run in (*stored(seeds), *extra):
            store.save(run)

    return save


def _elsewhere(run):
    other = type(run.data)(**{**vars(run.data), "fingerprint": "f" * 64})
    return type(run)(**{**vars(run), "data": other, "fingerprint": "c" * 64, "started": "2026-11-22T10:00:00+00:00"})


CALIBRATE = ("cvhw4", "calibrate", "--results", "{}/results", "--bounds", "{}/b.toml")
BAD |= {
    "too few seeds": Case(_records(seeds=4), CALIBRATE, "q1_1-features", "has 4 runs", "--seeds 5"),
    "runs of two data sets": Case(
        _records(_elsewhere(record("q1_2", seed=9))),
        CALIBRATE,
        "q1_2-finetune",
        "was run on other embedded than",
        "-k q1_2-finetune",
    ),
    "share of nothing": Case(
        _records(), (*CALIBRATE, "--false-alarms", "0"), "--false-alarms 0.0", "is not a share", "above 0 and below 1"
    ),
    "report with another study's bounds": Case(
        _bounds(BOUNDED),
        ("cvhw4", "report", "--study", "full", "--results", "{}/r", "--bounds", "{}/b.toml"),
        "{}/b.toml",
        "has no bounds of study full, but of quick",
        "run cvhw4 calibrate",
    ),
    "file for a report's results": Case(
        _bounds(""),
        ("cvhw4", "report", "--results", "{}/b.toml"),
        "{}/b.toml/quick",
        "is not a folder of runs",
        "--results",
    ),
}


# The table, case by case


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Takes root's rights away; others own nothing of what the cases withhold either way."""
    if os.getuid():
        pytest.skip("files are withheld from others than their owner: needs root")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def _tree(folder: Path) -> dict[str, tuple]:
    """Everything in a folder: kind and rights, where a link leads, size, content and time of change of a file."""
    found = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in (*folders, *files))):
            status, content = path.lstat(), None
            if stat.S_ISREG(status.st_mode):
                content = status.st_size, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = status.st_mode, content, os.readlink(path) if path.is_symlink() else None
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in which anybody may write, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def answer(pytester, monkeypatch, capsys, place):
    """`answer(*args)`: exit code and output of a session or a command, with nothing that it needs from elsewhere."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    cache_folder = pytester.path / "cache"
    cache_folder.mkdir()
    for name, value in {"CVHW4_CACHE": str(cache_folder), "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("os.fsync", lambda _: None)  # no test here is about a power failure
    monkeypatch.setattr(fetch, "CAMVID_COUNTS", SMALL)
    monkeypatch.setattr(fetch, "_MAX_UNPACKED", 10**6)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # `cli.main` sets it
    tiny = {name: shrink(row) for name, row in homework.rows_at("quick").items()}
    monkeypatch.setattr(
        homework, "rows_at", lambda size, whole=homework.rows_at: tiny if size == "quick" else whole(size)
    )
    shutil.copytree(CHECKOUT / "benchmarks", "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "conftest.py", ".")
    pytester.makeini("[pytest]")
    Path("pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')

    def run(*args: str) -> tuple[int, str]:
        if args[0] == "cvhw4":
            monkeypatch.setattr(sys, "argv", list(args))
            with pytest.raises(SystemExit) as stop:
                cli.main()
            return stop.value.code, "".join(capsys.readouterr())
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "benchmarks", "--seeds", "1", *args)
        return result.ret, "\n".join([*result.outlines, *result.errlines])

    return run


@pytest.mark.parametrize("name", BAD)
def test_unusable_input_is_one_error_and_changes_nothing(answer, monkeypatch, pytester, place, name):
    case = BAD[name]
    if name == "no CUDA" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    if not case.rights:
        for owner, function in ((Runner, "check"), (cli, "app")):
            monkeypatch.setattr(owner, function, _as_nobody()(getattr(owner, function)))
    case.make(place)
    before = _tree(place)
    args = [arg.replace("{}", str(place)) for arg in case.args]
    if args[0] != "cvhw4":
        args += ["-k", "q1_2 and seed0", *(() if "--results" in args else ("--results", str(place / "results")))]
    code, output = answer(*args)
    assert code == 4, output
    (line,) = (line for line in output.splitlines() if line.lower().startswith("error:"))
    _, told = line.split(": ", 1)
    problem, _, hint = told.partition(". Fix: ")
    assert told.startswith(case.named.replace("{}", str(place)) + ": ")
    assert case.problem in problem and case.hint in hint and hint
    assert line.isprintable() and "Traceback" not in output
    assert _tree(place) == before
    kept = list((pytester.path / "cache").iterdir())
    assert bool(kept) == (name == "scenes smaller than the crop")  # those are sound
    assert not (pytester.path / "results").exists()


def test_there_are_cases_enough():
    assert len(BAD) >= 65


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--seeds", "abc", "int"),
        ("--profile", "huge", "full"),
        ("--device", "tpu", "cuda"),
        ("--precision", "int8", "bf16"),
    ],
)
def test_an_option_that_pytest_refuses_is_named_with_its_choices(answer, place, option, value, choices):
    code, output = answer("--results", str(place / "results"), option, value)
    (line,) = (line for line in output.splitlines() if "error: argument" in line)
    assert code == 4 and f"argument {option}:" in line and value in line and choices in line
    assert "Traceback" not in output and not list(place.iterdir())


# Strange but right


def _strange_photos(place: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Pictures of every kind; the pixels that are meant, and a tolerance, by name."""
    first = _photos(place)
    expected = {}
    for kind, (save, pixels, tolerance) in MODES.items():
        path = save(first.with_name(f"{kind} 写 é\n"))
        expected[path.name] = pixels, tolerance
    frames = [Image.fromarray(pixels) for pixels in (GREY, 255 - GREY)]
    frames[0].save(first.with_name("frames.GIF"), save_all=True, append_images=frames[1:])
    expected["frames.GIF"] = np.stack([GREY] * 3, 2), 0
    return expected


def _strange_streets(place: Path) -> None:
    """Lists from Windows, with a mark at their beginning, and names that have to be quoted."""
    folder = _streets(place)
    for split in ("train", "val"):
        (folder / split / "0.png").rename(folder / split / 'rue, "é" 写.PNG')
        text = (
            f'Image,Label\r\n"{split}\\rue, ""é"" 写.PNG",{split}annot/0.png\r\n{split}/1.png, {split}annot/1.png\r\n'
        )
        (folder / f"{split}.csv").write_bytes(("\ufeff" + text).encode())


def test_strange_input_is_read_as_it_is_meant(answer, place):
    expected = _strange_photos(place)
    _strange_streets(place)
    half = {k: v.half() if v.is_floating_point() else v for k, v in _lite0().items()}
    (place / "weights").mkdir()
    save_file(half, place / "weights" / f"{LITE0}.SAFETENSORS")
    (place / "weights" / "resnet18.pth").write_text("for no row")
    before = _tree(place)
    given = {
        name: place / folder
        for name, folder in (("portraits", "photos"), ("camvid", "streets"), ("weights", "weights"))
    }
    options = [part for name, folder in given.items() for part in (f"--{name}", str(folder))]
    code, output = answer(*options, "-k", "(q1_2 or q2_1a) and seed0", "--results", "results")
    assert code == 0 and "2 passed" in output, output
    assert _tree(place) == before
    runs = Store(Path("results"), "quick").load()
    assert {(r.row, r.data.name) for r in runs} == {("q1_2-finetune", "photos"), ("q2_1a-skip", "streets")}
    assert {r.weights.origin for r in runs} == {f"file {LITE0}.SAFETENSORS"}

    study = homework.study(portraits=given["portraits"], camvid=given["camvid"])
    runner = Runner(study=study, weights=given["weights"])
    train = runner.data("classification").train
    read = {
        Path(name).name: (image, size) for name, image, size in zip(train.names, train.images, train.sizes, strict=True)
    }
    for name, (pixels, tolerance) in expected.items():
        image, size = read[name]
        assert size.tolist() == list(pixels.shape[:2]), name
        assert np.abs(image[: size[0], : size[1]].astype(int) - pixels).max() <= tolerance, name
    scenes = runner.data("segmentation")
    for split, part in (("train", scenes.train), ("val", scenes.val)):
        assert part.names == (f'{split}/rue, "é" 写.PNG', f"{split}/1.png")
        for number in range(2):
            np.testing.assert_array_equal(part.images[number], _noise(HEIGHT, WIDTH, number + len(split)))
            np.testing.assert_array_equal(part.targets[number], _label(number))
    network = build_network(row("q1_2"), seed=0, weights=given["weights"]).module.state_dict()
    state = read_state(given["weights"] / f"{LITE0}.SAFETENSORS")
    for name in ("conv_stem.weight", "bn1.running_var"):
        assert network[name].dtype == torch.float32
        assert torch.equal(network[name], half[name].float()) and torch.equal(state[name], network[name])
