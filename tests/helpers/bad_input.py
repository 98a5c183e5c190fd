"""Inputs that are unusable, and the answer to each: the table of tests/test_bad_input.py."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from cvhw4.data import fetch
from cvhw4.records.store import Store
from tests.helpers.reading import noise
from tests.helpers.records import stored
from tests.helpers.studies import pictures, streets

LITE0 = "tf_efficientnet_lite0"
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


BAD = {}


# Two classes of portraits


def _photos(place):
    """Two splits of two classes with two pictures each; the path of the first."""
    return pictures(place / "photos", ("bright", "dark"), 2, 2) / "train" / "bright" / "0.png"


def _photo(name, corrupt, named, problem, hint, **options):
    """A case in which something is done to the first picture."""
    place = f"{{}}/photos/{named}".rstrip("/")
    BAD[name] = Case(lambda p: corrupt(_photos(p)), ("--portraits", "{}/photos"), place, problem, hint, **options)


# fmt: off
BRIGHT = "train/bright"
PNG = f"{BRIGHT}/0.png"
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + struct.pack(">HHI4sHHIi", 0x112, 3, 1, b"\0\6\0\0", 0x8769, 9, 1, -1) + bytes(4)

_photo("damaged EXIF", lambda p: noise(24, 20, 0).save(p, exif=EXIF), PNG, "has a damaged EXIF block", "without EXIF")
_photo("unreadable picture", lambda p: p.chmod(0), PNG, "cannot be read", "make the file readable", rights=False)
_photo("pipe named jpg", lambda p: (p.unlink(), os.mkfifo(p.with_name("0.jpg"))), f"{BRIGHT}/0.jpg",
    "does not exist or is not a file", "add the file or correct the path")
_photo("name that a terminal acts on", lambda p: p.rename(p.with_name("a\n\x1b[31mb.png")).write_text("hello"),
    f"{BRIGHT}/a\\n\\x1b[31mb.png", "is not a picture", "replace")
_photo("name that is no UTF-8", lambda p: p.rename(p.with_name("a\udcffé写.png")).write_text("hello"),
    f"{BRIGHT}/a\\udcffé写.png", "is not a picture", "replace")
_photo("split not searchable", lambda p: p.parents[1].chmod(0o444), "train", "cannot be listed", "make the",
    rights=False)
# fmt: on


# Street scenes


def _streets(place):
    return streets(place / "streets")


# fmt: off
BAD |= {
    "CamVid as portraits": Case(_streets, ("--portraits", "{}/streets"), "{}/streets/train",
        "holds 0 class folders (none)", "add a folder for each class"),
    "scenes smaller than the crop": Case(_streets, ("--camvid", "{}/streets", "--profile", "full"), "{}/streets",
        "has scenes of 48x40, and 256 pixels a side are cut out", "give pictures of at least 256 pixels a side"),
    "portraits as CamVid": Case(_photos, ("--camvid", "{}/photos"), "{}/photos", "has neither a list",
        "lay it out as images/train/"),
}
# fmt: on


# Weights


def _weight(name, make, problem, hint, suffix="safetensors"):
    """A case with a file of weights for Lite0, or something in its place."""

    def place(folder):
        (folder / "weights").mkdir()
        make(folder / "weights" / f"{LITE0}.{suffix}")

    BAD[name] = Case(place, ("--weights", "{}/weights"), f"{{}}/weights/{LITE0}.{suffix}", problem, hint)


class _Code:
    """What a malicious pickle holds: once it is run, there is a file `made`."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.system, (f"touch '{self.made}'",)


# fmt: off
TENSORS = "save the network's state_dict() to it"

_weight("code in torch's format", lambda p: torch.save({"conv_stem.weight": _Code(p.with_name("made"))}, p),
    "holds code that would have to be run (posix.system)", TENSORS, "pth")
_weight("code in a plain pickle", lambda p: p.write_bytes(pickle.dumps(_Code(p.with_name("made")), 2)),
    "holds code that would have to be run (posix.system)", TENSORS, "pth")
BAD |= {
    "file for the folder of weights": Case(lambda p: (p / "weights").write_text("x"), ("--weights", "{}/weights"),
        "{}/weights", "is not a folder", "give"),
    "unreadable weights": Case(lambda p: [(p / "w").mkdir(), (p / "w" / f"{LITE0}.pth").touch(mode=0)],
        ("--weights", "{}/w"), f"{{}}/w/{LITE0}.pth", "cannot be read", "make the file readable", rights=False),
}
# fmt: on


# Other options


def _session(name, make, args, *answer, **options):
    BAD[name] = Case(make, tuple(args.split()), *answer, **options)


def _nothing(place):
    pass


# fmt: off
_session("link to itself for portraits", lambda p: (p / "l").symlink_to(p / "l"), "--portraits {}/l", "{}/l",
    "does not exist", "correct the path")
_session("results below a file", lambda p: (p / "f").touch(), "--results {}/f/x", "{}/f/x", "cannot be used",
    "choose another")
_session("no seeds", _nothing, "--seeds 0", "--seeds 0", "", "--seeds 1 or more")
_session("no generated pictures", _nothing, "--same-pictures --profile full", "--same-pictures",
    "is about generated pictures, and none are used", "leave it out")
_session("no CUDA", _nothing, "--device cuda", "--device cuda", "finds no CUDA device", "use --device cpu")
_session("no bounds", _nothing, "--bounds {}/b.toml", "{}/b.toml", "does not exist", "name a bounds file with --bounds")
_session("results in an unwritable place", lambda p: (p / "shut").mkdir(mode=0o555), "--results {}/shut/results",
    "{}/shut", "cannot be written to", "choose another folder with --results", rights=False)
for args, named, problem, hint in [
    ("--dist worksteal -n 2", "--dist worksteal", "breaks the order of runs and claims", "use --dist load"),
    ("--dist each -n 2", "--dist each", "trains every run on every worker", "use --dist load"),
    ("--executor ray -n 2", "--executor ray", "cannot go with -n 2", "leave -n out"),
    ("--smoke --reuse", "--smoke", "neither takes nor keeps whole runs, as --reuse does", "leave one"),
    ("--smoke --executor ray", "--smoke", "nor keeps whole runs, as --executor ray does", "leave one"),
    ("--smoke --benchmark-json x", "--smoke", "nor keeps whole runs, as --benchmark-json", "leave one"),
    ("--ray-address auto", "--ray-address", "is given without --executor ray", "add --executor ray"),
    ("--jobs 0", "--jobs 0", "leaves nobody to train", "give --jobs 1 or more"),
    ("--jobs 2 -n 3", "--jobs 2", "cannot go with -n 3", "leave one"),
    ("--jobs 2 --executor ray", "--jobs 2", "cannot go with --executor ray", "leave one"),
    ("--cuda-graphs --device cpu", "--cuda-graphs", "cannot go with --device cpu", "leave one"),
    ("--threads 0", "--threads 0", "is not a number of threads", "give 1 to"),
    ("--threads 200000", "--threads 200000", "is not a number of threads", "give 1 to"),
    ("--checkpoint-seconds -1", "--checkpoint-seconds -1", "is not a number of seconds", "give 0"),
    ("--checkpoint-seconds nan", "--checkpoint-seconds nan", "is not a number of seconds", "give 0"),
    ("--part 3/2", "--part 3/2", "is not a part", "give --part 1/N to N/N"),
    ("--part 0/2", "--part 0/2", "is not a part", "give --part 1/N to N/N"),
    ("--part 1/2 -n 2", "--part 1/2", "cannot go with -n or --executor ray", "leave one"),
    ("--part 1/2 --executor ray", "--part 1/2", "cannot go with -n or --executor ray", "leave one"),
]:
    _session(args, _nothing, args, named, problem, hint)
# fmt: on


# Commands


def _four_runs(place):
    store = Store(place / "results", "quick")
    for run in stored(4, redrawn=True):
        store.save(run)


# fmt: off
BAD |= {
    "no net": Case(_nothing, ("cvhw4", "fetch", "camvid", "{}/CamVid"), fetch.CAMVID_URL, "could not be downloaded",
        "in a browser"),
    "too few seeds": Case(_four_runs, ("cvhw4", "calibrate", "--results", "{}/results", "--bounds", "{}/b.toml"),
        "q1_1-features", "has 4 runs", "--seeds 5"),
}
# fmt: on
