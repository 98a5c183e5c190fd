"""Inputs that are unusable, and the answer to each: the table of tests/test_bad_input.py."""

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from cvhw4.data import fetch
from cvhw4.records.store import Store
from cvhw4.statistics.calibration import to_toml
from tests.helpers.reading import ARCHIVED, noise, tutorial, zipped
from tests.helpers.records import calibrated, stored
from tests.helpers.tiny import QUICK, record

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
        noise(24, 20, number).save(path)
    return place / "photos" / "train" / "bright" / "0.png"


def _photo(name: str, corrupt: Callable[[Path], object], named: str, problem: str, hint: str, **options: bool) -> None:
    """A case in which something is done to the first picture."""
    place = f"{{}}/photos/{named}".rstrip("/")
    BAD[name] = Case(lambda p: corrupt(_photos(p)), ("--portraits", "{}/photos"), place, problem, hint, **options)


def _instead(make: Callable[[Path], object], name: str = "0.png") -> Callable[[Path], None]:
    """Something else in the place of the picture."""

    def corrupt(path: Path) -> None:
        path.unlink()
        make(path.with_name(name))

    return corrupt


def _bomb(path: Path) -> None:
    """A PNG of 60000x60000 pixels, or so its first bytes say."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = path.read_bytes()
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def _classes(path: Path) -> Path:
    return path.parents[1]


# fmt: off
BRIGHT = "train/bright"
PNG = f"{BRIGHT}/0.png"
GONE = "does not exist or is not a file"
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + struct.pack(">HHI4sHHIi", 0x112, 3, 1, b"\0\6\0\0", 0x8769, 9, 1, -1) + bytes(4)

_photo("decompression bomb", _bomb, PNG, "is too large a picture", "scale the picture down")
_photo("damaged EXIF", lambda p: noise(24, 20, 0).save(p, exif=EXIF), PNG, "has a damaged EXIF block", "without EXIF")
_photo("link to itself", _instead(lambda p: p.symlink_to(p)), PNG, GONE, "add the file or correct the path")
_photo("unreadable picture", lambda p: p.chmod(0), PNG, "cannot be read", "make the file readable", rights=False)
_photo("pipe named jpg", _instead(os.mkfifo, "0.jpg"), f"{BRIGHT}/0.jpg", GONE, "add the file or correct the path")
_photo("name that a terminal acts on", _instead(lambda p: p.write_text("hello"), "a\n\x1b[31mb.png"),
    f"{BRIGHT}/a\\n\\x1b[31mb.png", "is not a picture", "replace")
_photo("name that is no UTF-8", _instead(lambda p: p.write_text("hello"), "a\udcffé写.png"),
    f"{BRIGHT}/a\\udcffé写.png", "is not a picture", "replace")
_photo("split not searchable", lambda p: _classes(p).chmod(0o444), "train", "cannot be listed", "make the",
    rights=False)
BAD |= {
    "no such folder": Case(lambda p: None, ("--portraits", "{}/photos"), "{}/photos", "does not exist",
        "correct the path"),
    "CamVid as portraits": Case(lambda p: _streets(p), ("--portraits", "{}/streets"), "{}/streets/train",
        "holds 0 class folders (none)", "add a folder for each class"),
}
# fmt: on


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
            noise(HEIGHT, WIDTH, number + len(split)).save(folder / image, compress_level=1)
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


def _unlist(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / f"{split}.csv").unlink()


def _unlabel(folder: Path) -> None:
    _unlist(folder)
    (folder / LABEL).unlink()


# fmt: off
LABEL = "trainannot/0.png"

_street("no label", _unlabel, "train/0.png", "has no counterpart in trainannot/", "add trainannot/0.png")
_street("empty list", lambda f: (f / "train.csv").write_text(""), "train.csv", "is empty (0 bytes)", "replace or")
BAD |= {
    "scenes smaller than the crop": Case(_streets, ("--camvid", "{}/streets", "--profile", "full"), "{}/streets",
        "has scenes of 176x132, and 256 pixels a side are cut out", "give pictures of at least 256 pixels a side"),
    "portraits as CamVid": Case(_photos, ("--camvid", "{}/photos"), "{}/photos", "has neither a list",
        "lay it out as images/train/"),
}
# fmt: on


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


def _save_without(name: str) -> Callable[[Path], None]:
    """Saves Lite0's tensors without one."""
    return lambda path: save_file({k: v for k, v in _lite0().items() if k != name}, path)


class _Code:
    """What a malicious pickle holds: once it is run, there is a file `made`."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.made}'",)


# fmt: off
FITS = f"give a file of {LITE0}'s weights"
TENSORS = "save the network's state_dict() to it"

_weight("a tensor missing", _save_without("bn1.bias"), f"does not fit {LITE0}: lacks bn1.bias", FITS)
_weight("code in torch's format", lambda p: torch.save({"conv_stem.weight": _Code(p.with_name("made"))}, p),
    "holds code that would have to be run (posix.system)", TENSORS, "pth")
_weight("code in a plain pickle", lambda p: p.write_bytes(pickle.dumps(_Code(p.with_name("made")), 2)),
    "holds code that would have to be run (posix.system)", TENSORS, "pth")
_weight("a whole module", lambda p: torch.save(torch.nn.Linear(2, 2), p),
    "holds code that would have to be run (torch.nn.modules.linear.Linear)", TENSORS, "pth")
BAD |= {
    "file for the folder of weights": Case(lambda p: (p / "weights").write_text("x"), ("--weights", "{}/weights"),
        "{}/weights", "is not a folder", "give"),
    "unreadable weights": Case(lambda p: [(p / "w").mkdir(), (p / "w" / f"{LITE0}.pth").touch(mode=0)],
        ("--weights", "{}/w"), f"{{}}/w/{LITE0}.pth", "cannot be read", "make the file readable", rights=False),
}
# fmt: on


# Other options


def _bounds(text: str) -> Callable[[Path], object]:
    return lambda place: (place / "b.toml").write_text(text)


def _session(name: str, make: Callable[[Path], object], args: str, named: str, problem: str, hint: str) -> None:
    BAD[name] = Case(make, tuple(args.split()), named, problem, hint)


def _nothing(place: Path) -> None:
    pass


# fmt: off
BOUNDED = to_toml(QUICK, calibrated())
ANEW = "run cvhw4 calibrate to write it again"

_session("link to itself for portraits", lambda p: (p / "l").symlink_to(p / "l"), "--portraits {}/l", "{}/l",
    "does not exist", "correct the path")
_session("results below a file", _bounds(""), "--results {}/b.toml/x", "{}/b.toml/x", "cannot be used",
    "choose another")
_session("no seeds", _nothing, "--seeds 0", "--seeds 0", "", "--seeds 1 or more")
_session("nothing to redraw", _nothing, "--redraw --profile full", "--redraw",
    "draws generated pictures anew, and none are", "leave it out")
_session("no CUDA", _nothing, "--device cuda", "--device cuda", "finds no CUDA device", "use --device cpu")
_session("no bounds", _nothing, "--bounds {}/b.toml", "{}/b.toml", "does not exist", "name a bounds file with --bounds")
_session("bounds cut off", _bounds(BOUNDED[:-999]), "--bounds {}/b.toml", "{}/b.toml", "is not a bounds file", ANEW)
_session("file for results", _bounds(""), "--results {}/b.toml", "{}/b.toml", "is not a folder",
    "give --results a folder")
BAD["results in an unwritable place"] = Case(
    lambda p: (p / "shut").mkdir(mode=0o555),
    ("--results", "{}/shut/results"),
    "{}/shut",
    "cannot be written to",
    "choose another folder with --results",
    rights=False,
)
# fmt: on


# Commands


def _camvid(name: str, make: Callable[[Path], object], problem: str, hint: str = "", *more: str) -> None:
    """A case of `cvhw4 fetch camvid` from an archive that `make` puts at the path it is given."""
    args = "cvhw4", "fetch", "camvid", "{}/CamVid", "--from", "{}/t.zip", *more
    BAD[name] = Case(lambda p: make(p / "t.zip"), args, "{}/t.zip", problem, hint or "github.com/alexgkendall/SegNet")


def _with(**members: bytes) -> Callable[[Path], object]:
    return lambda path: zipped(tutorial() | members, path)


# fmt: off
_camvid("zip bomb", _with(**{f"{ARCHIVED}/train/x.png": bytes(10**6)}), "unpacks to more than CamVid can hold")
BAD |= {
    "no net": Case(_nothing, ("cvhw4", "fetch", "camvid", "{}/CamVid"), fetch.CAMVID_URL, "could not be downloaded",
        "in a browser"),
    "no study": Case(_nothing, ("cvhw4", "rows", "--study", "nope"), "--study nope", "is neither",
        "one of quick, full"),
    "no runs": Case(_nothing, ("cvhw4", "report", "--results", "{}/r"), "{}/r/quick", "is not a folder of runs",
        "--results"),
    "no option": Case(_nothing, ("cvhw4", "rows", "--nope"), "No such option", "--nope", "see cvhw4 rows --help"),
}
# fmt: on


def _records(*extra: object, seeds: int = 5) -> Callable[[Path], None]:
    def save(place: Path) -> None:
        store = Store(place / "results", "quick")
        for run in (*stored(seeds), *extra):
            store.save(run)

    return save


def _elsewhere(run):
    other = type(run.data)(**{**vars(run.data), "fingerprint": "f" * 64})
    return type(run)(**{**vars(run), "data": other, "fingerprint": "c" * 64, "started": "2026-11-22T10:00:00+00:00"})


# fmt: off
CALIBRATE = ("cvhw4", "calibrate", "--results", "{}/results", "--bounds", "{}/b.toml")
BAD |= {
    "too few seeds": Case(_records(seeds=4), CALIBRATE, "q1_1-features", "has 4 runs", "--seeds 5"),
    "runs of two data sets": Case(_records(_elsewhere(record("q1_2", seed=9))), CALIBRATE, "q1_2-finetune",
        "was run on other embedded than", "-k q1_2-finetune"),
    "report with another study's bounds": Case(_bounds(BOUNDED),
        ("cvhw4", "report", "--study", "full", "--results", "{}/r", "--bounds", "{}/b.toml"), "{}/b.toml",
        "has no bounds of study full, but of quick", "run cvhw4 calibrate"),
}
# fmt: on
