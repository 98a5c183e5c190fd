"""Reading CamVid: three layouts, one content, and what each kind of bad input is answered with."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cvhw4.data import cache
from cvhw4.data.camvid import parse_list, read_camvid
from cvhw4.data.dataset import CAMVID_CLASSES
from cvhw4.errors import InputError

HEIGHT, WIDTH = 18, 24
COUNTS = {"train": 3, "val": 2}


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Points the cache into the test's own folder."""
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda _: None)  # no test here is about a power failure
    return tmp_path / "cache"


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def _label(seed: int) -> np.ndarray:
    return np.random.default_rng(100 + seed).integers(0, 12, (HEIGHT, WIDTH), np.uint8)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """`train/ trainannot/ val/ valannot/` without lists; every picture its own noise."""
    folder = tmp_path / "streets"
    for seed, (split, number) in enumerate((s, n) for s, count in COUNTS.items() for n in range(count)):
        for kind, pixels in ((split, _image(seed)), (f"{split}annot", _label(seed))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{number:04}.png")
    return folder


def _pairs(split: str) -> list[tuple[str, str]]:
    return [(f"{split}/{number:04}.png", f"{split}annot/{number:04}.png") for number in range(COUNTS[split])]


def _write_csv(folder: Path, header: str = "", end: str = "\n", mark: str = "") -> None:
    for split in COUNTS:
        text = header + "".join(f"{image},{label}{end}" for image, label in _pairs(split))
        (folder / f"{split}.csv").write_bytes((mark + text).encode())


def _write_txt(folder: Path, root: str = "/SegNet/CamVid/") -> None:
    for split in COUNTS:
        lines = [f"{root}{image} {root}{label}" for image, label in _pairs(split)]
        (folder / f"{split}.txt").write_text("\n".join(lines))


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def _steps(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        for step in steps:
            step(path)

    return run


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "folders": lambda folder: None,
    "csv": _write_csv,
    "csv with header": lambda folder: _write_csv(folder, header="Image,Label\n"),
    "csv from Windows": lambda folder: _write_csv(folder, header="image,label\r\n\r\n", end=" \r\n", mark="\ufeff"),
    "csv with blank lines": lambda folder: _write_csv(folder, header="\n  \n", end="\n\n"),
    "txt": _write_txt,
    "txt with relative paths": lambda folder: _write_txt(folder, root=""),
    "csv before txt": _steps(_write_csv, lambda folder: (folder / "train.txt").write_text("nonsense")),
    "csv and txt": _steps(_write_csv, _write_txt, lambda folder: (folder / "val.csv").unlink()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(plain: Path, layout: str) -> None:
    LAYOUTS[layout](plain)
    data = read_camvid(plain)
    assert (data.name, data.task, data.embedded) == ("CamVid", "segmentation", False)
    assert data.classes == CAMVID_CLASSES[:11] and "void" not in data.classes
    for split, images, first in (("train", data.train, 0), ("val", data.val, 3)):
        count = COUNTS[split]
        assert images.names == tuple(image for image, _ in _pairs(split))
        assert (images.images.dtype, images.sizes.dtype, images.targets.dtype) == (np.uint8, np.int32, np.uint8)
        assert images.sizes.tolist() == [[HEIGHT, WIDTH]] * count
        np.testing.assert_array_equal(images.images, [_image(first + number) for number in range(count)])
        np.testing.assert_array_equal(images.targets, [_label(first + number) for number in range(count)])


def test_the_order_of_the_list_is_kept(plain: Path) -> None:
    _write_csv(plain)
    first = read_camvid(plain)
    lines = (plain / "train.csv").read_text().splitlines()
    (plain / "train.csv").write_text("\n".join(reversed(lines)))
    turned = read_camvid(plain)
    np.testing.assert_array_equal(turned.train.images, first.train.images[::-1])
    assert turned.train.names == first.train.names[::-1]


def test_a_picture_moved_between_the_lists_moves(plain: Path) -> None:
    _write_csv(plain)
    first = read_camvid(plain)
    lines = [(plain / f"{split}.csv").read_text().splitlines() for split in COUNTS]
    (plain / "train.csv").write_text("\n".join(lines[0] + lines[1][:1]))
    (plain / "val.csv").write_text("\n".join(lines[1][1:]))
    moved = read_camvid(plain)
    assert (len(moved.train), len(moved.val)) == (4, 1)
    np.testing.assert_array_equal(moved.train.targets[3], first.val.targets[0])


def test_the_second_reading_decodes_nothing(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_camvid(plain)
    monkeypatch.setattr(Image, "open", None)
    second = read_camvid(plain)
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(second.train.targets, first.train.targets)


def test_scaling_averages_pictures_and_picks_labels(plain: Path) -> None:
    stripes = np.zeros((180, 240, 3), np.uint8)
    stripes[:, ::2] = 200
    blocks = np.repeat(np.repeat(_label(0), 10, 0), 10, 1)
    for split in ("train", "val"):
        for picture in (plain / split).iterdir():
            Image.fromarray(stripes).save(picture)
        for label in (plain / f"{split}annot").iterdir():
            Image.fromarray(blocks).save(label)
    data = read_camvid(plain, size=(18, 24))
    assert np.abs(data.train.images[0].astype(int) - 100).max() < 30  # nearest neighbour would keep 0 and 200
    np.testing.assert_array_equal(data.train.targets[0], _label(0))
    assert read_camvid(plain, size=(16, 40)).val.targets.shape == (2, 16, 40)


@pytest.mark.parametrize("size", [None, (18, 24)])
def test_pictures_of_other_sizes_are_refused_scaled_or_not(plain: Path, size: tuple[int, int] | None) -> None:
    Image.fromarray(np.zeros((36, 24, 3), np.uint8)).save(plain / "val" / "0003.png")
    Image.fromarray(np.zeros((36, 24), np.uint8)).save(plain / "valannot" / "0003.png")
    with pytest.raises(InputError, match=r"0003\.png: measures 24x36, the first picture 24x18"):
        read_camvid(plain, size=size)


def test_a_size_below_the_least_is_refused(plain: Path) -> None:
    with pytest.raises(InputError, match=r"size.*at least 16"):
        read_camvid(plain, size=(100, 15))


def test_palette_indices_are_class_numbers(plain: Path) -> None:
    label = Image.fromarray(_label(0)).convert("P")
    label.putdata(_label(0).ravel().tolist())
    label.putpalette([value for number in range(12) for value in (number * 20, 5, 255 - number)])
    label.save(plain / "trainannot" / "0000.png")
    np.testing.assert_array_equal(read_camvid(plain).train.targets[0], _label(0))


@pytest.mark.parametrize("size", [None, (17, 30)])
@pytest.mark.parametrize("writable", [True, False])
def test_the_same_bytes_as_made_in_memory(
    plain: Path, cache_folder: Path, writable: bool, size: tuple[int, int] | None
) -> None:
    if writable:
        data = read_camvid(plain, size=size)
        assert isinstance(data.val.targets, np.memmap)
    else:
        cache_folder.write_text("a file where the folder should be")
        with pytest.warns(UserWarning, match="CVHW4_CACHE"):
            data = read_camvid(plain, size=size)
    height, width = size or (HEIGHT, WIDTH)
    sha = hashlib.sha256()
    for split, seeds in ((data.train, range(3)), (data.val, range(3, 5))):
        images = [Image.fromarray(_image(seed)).resize((width, height), Image.Resampling.BILINEAR) for seed in seeds]
        labels = [Image.fromarray(_label(seed)).resize((width, height), Image.Resampling.NEAREST) for seed in seeds]
        sizes = np.array([(height, width)] * len(seeds), np.int32)
        arrays = np.stack([np.asarray(i) for i in images]), sizes, np.stack([np.asarray(i) for i in labels])
        for array, wanted in zip((split.images, split.sizes, split.targets), arrays, strict=True):
            np.testing.assert_array_equal(array, wanted, strict=True)
            sha.update(f"{wanted.dtype.str}{wanted.shape}".encode() + wanted.tobytes())
    assert data.fingerprint == sha.hexdigest()


def test_more_than_fits_anywhere_is_refused(plain: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_folder.write_text("a file where the folder should be")
    monkeypatch.setattr(cache, "MAX_BYTES", 3 * HEIGHT * WIDTH * 3 - 1)
    with pytest.raises(InputError, match=r"streets: its 3 pictures in a frame of 24x18 .* scaled down"):
        read_camvid(plain)


def test_a_picture_in_both_splits_is_a_leak_and_equal_labels_are_not(plain: Path) -> None:
    shutil.copy(plain / "train" / "0002.png", plain / "val" / "0001.png")
    shutil.copy(plain / "trainannot" / "0000.png", plain / "valannot" / "0000.png")
    for _ in range(2):  # from the cache, too
        with pytest.warns(UserWarning, match=r"^1 validation picture.* train/0002.png = val/0001.png$"):
            assert read_camvid(plain).leaks == ("train/0002.png = val/0001.png",)


def _save(pixels: np.ndarray, path: Path, **options: Any) -> None:
    Image.fromarray(pixels).save(path, **options)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _csv(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _write_csv(folder)
        (folder / "train.csv").write_text(text)

    return write


ONE = "train/0000.png,trainannot/0000.png\n"
IMAGE, LABEL = "train/0001.png", "trainannot/0001.png"

# what is done to the folder, the path that the message must name, a part of the problem and of the fix
BAD: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "no folder": (shutil.rmtree, "streets", "does not exist", "correct the path"),
    "no train": (lambda f: shutil.rmtree(f / "train"), "streets/train", "does not exist", "create the folder"),
    "no labels": (lambda f: shutil.rmtree(f / "valannot"), "valannot", "does not exist", "create the folder"),
    "folders of classes": (
        lambda f: [shutil.rmtree(f / f"{split}annot") for split in COUNTS],
        "streets",
        "neither a list, train.csv or train.txt, nor a folder trainannot/",
        "rows that classify for folders of classes",
    ),
    "no val list": (
        _steps(_write_csv, lambda f: (f / "val.csv").unlink()),
        "streets",
        "no val.csv or val.txt",
        "add the",
    ),
    "no pictures": (
        _steps(lambda f: _clear(f / "val"), lambda f: _clear(f / "valannot")),
        "streets/val",
        "holds no pictures",
        "add the pictures",
    ),
    "image without label": (lambda f: (f / LABEL).unlink(), IMAGE, "no counterpart in trainannot/", f"add {LABEL}"),
    "label without image": (lambda f: (f / IMAGE).unlink(), LABEL, "no counterpart in train/", f"add {IMAGE}"),
    "two of one stem": (
        lambda f: shutil.copy(f / IMAGE, f / "train" / "0001.jpg"),
        "train/0001.png",
        "stem of 0001.jpg",
        "keep one",
    ),
    "listed image missing": (
        _steps(_write_csv, lambda f: (f / IMAGE).unlink()),
        IMAGE,
        "line 2 of train.csv names it",
        "add the file",
    ),
    "listed label missing": (
        _steps(_write_txt, lambda f: (f / "valannot" / "0001.png").unlink()),
        "valannot/0001.png",
        "line 2 of val.txt names it",
        "add the file",
    ),
    "label of other size": (lambda f: _save(_label(0)[1:], f / LABEL), LABEL, "24x17, its picture", "label of this"),
    "image of other size": (
        _steps(lambda f: _save(_image(0)[:, 1:], f / IMAGE), lambda f: _save(_label(0)[:, 1:], f / LABEL)),
        IMAGE,
        "measures 23x18, the first picture 24x18",
        "one size",
    ),
    "value above void": (lambda f: _save(_label(0) * 0 + 12, f / LABEL), LABEL, "value 12, above 11", "renumber"),
    "void as 255": (lambda f: _save(_label(0) * 0 + 255, f / LABEL), LABEL, "value 255, above 11", "void 11"),
    "colour-coded": (lambda f: _save(_image(0), f / LABEL), LABEL, "coded by colour", "class numbers"),
    "16-bit label": (lambda f: _save(_label(0).astype(np.uint16), f / LABEL), LABEL, "not 8-bit", "8-bit PNG"),
    "jpeg label": (lambda f: _save(_label(0) * 0, f / LABEL, format="JPEG"), LABEL, "is JPEG", "8-bit PNG"),
    "empty image": (lambda f: (f / IMAGE).write_bytes(b""), IMAGE, "is empty (0 bytes)", "replace or delete"),
    "empty label": (lambda f: (f / LABEL).write_bytes(b""), LABEL, "is empty (0 bytes)", "replace or delete"),
    "truncated image": (lambda f: _truncate(f / IMAGE), IMAGE, "damaged", "replace or delete"),
    "truncated label": (lambda f: _truncate(f / LABEL), LABEL, "damaged", "replace or delete"),
    "text for an image": (lambda f: (f / IMAGE).write_text("hello"), IMAGE, "is not a picture", "convert, replace"),
    "1x1": (lambda f: _save(_image(0)[:1, :1], f / IMAGE), IMAGE, "1x1", "replace or delete"),
    "three fields": (_csv(f"{ONE}\n{IMAGE},{LABEL},3\n"), "train.csv", "line 3 has 3 fields, not 2", "one picture and"),
    "one field": (_csv(f"{IMAGE}\n"), "train.csv", "line 1 has 1 fields, not 2", "one picture and its label"),
    "repeated line": (_csv(ONE + ONE), "train.csv", "line 2 repeats train/0000.png of line 1", "delete one"),
    "repeated picture": (_csv(f"{ONE}train/./0000.png,{LABEL}\n"), "train.csv", "line 2 repeats", "delete one"),
    "header only": (_csv("image,label\n"), "train.csv", "lists no pictures", "write a line"),
    "zero bytes": (_csv(""), "train.csv", "is empty (0 bytes)", "replace"),
    "not UTF-8": (lambda f: (f / "train.csv").write_bytes(b"\xff\xfe,\n"), "train.csv", "is not UTF-8", "save the"),
    "outside": (_csv(f"{ONE}../secret.png,{LABEL}\n"), "train.csv", "line 2 names '../secret.png'", "relative"),
    "outside by a detour": (_csv(f"train/../../x.png,{LABEL}\n"), "train.csv", "line 1 names", "relative"),
    "outside from Windows": (_csv(f"..\\x.png,{LABEL}\n"), "train.csv", "line 1 names", "relative"),
    "another drive": (_csv(f"C:\\x.png,{LABEL}\n"), "train.csv", "line 1 names", "relative"),
    "absolute": (_csv(f"/etc/passwd,{LABEL}\n"), "train.csv", "line 1 names '/etc/passwd'", "relative"),
    "absolute below the root": (_csv(f"/SegNet/CamVid//etc/x,{LABEL}\n"), "train.csv", "line 1 names", "relative"),
    "no path": (_csv(f"{ONE},{LABEL}\n"), "train.csv", "line 2 names ''", "relative"),
    "the folder itself": (_csv(f"{ONE}.,{LABEL}\n"), "train.csv", "line 2 names '.'", "relative"),
    "a folder": (_csv(f"{ONE}train,{LABEL}\n"), "streets/train", "line 2 of train.csv names it", "add the file"),
    "a very long name": (_csv(f"{'x' * 5000}.png,{LABEL}\n"), "x.png", "line 1 of train.csv names it", "add the file"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused(plain: Path, tmp_path: Path, case: str) -> None:
    corrupt, named, problem, hint = BAD[case]
    corrupt(plain)
    before = _snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        read_camvid(plain)
    assert Path(caught.value.where).as_posix().endswith(named)
    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert _snapshot(tmp_path) == before


_FIELDS = st.text(st.sampled_from("ab./\\ ,\n\r\"'\0:é"), max_size=12) | st.text(max_size=20)


@given(st.lists(_FIELDS, max_size=12).map(",".join), st.sampled_from(["train.csv", "train.txt"]))
@example("a.png,b.png\n" * 2, "train.csv")
@example('"', "train.csv")
@example("x" * 140_000 + ",y", "train.csv")
@example("a.png,b.png\0", "train.csv")
def test_any_text_parses_or_is_refused(text: str, name: str) -> None:
    try:
        pairs = parse_list(text, Path("folder", name))
    except InputError as problem:
        assert name in str(problem) and "Fix: " in str(problem)
    else:
        assert pairs
        for path in (part for pair in pairs for part in pair[:2]):
            assert path and not path.startswith(("/", "../")) and path != ".." and "\0" not in path


@given(st.binary(max_size=60))
@example(b"\xef\xbb\xbfimage,label")
@example(b"a.png,b\0.png")
def test_any_bytes_for_a_list_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("list")
    for name in ("train.csv", "val.csv"):
        (folder / name).write_bytes(content)
    with pytest.raises(InputError):
        read_camvid(folder)
