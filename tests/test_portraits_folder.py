"""Reading a two-class folder of pictures: what arrives, and what each kind of bad input is answered with."""

import hashlib
import io
import os
import re
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cvhw4.data import cache
from cvhw4.data.dataset import Packed
from cvhw4.data.pictures import read_pictures
from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from tests.helpers.reading import (
    DAMAGED_EXIF,
    HALF_CLEAR,
    MODES,
    TURNED,
    check_refused,
    deep_png,
    noise,
    steps,
    told_twice,
)

pytestmark = pytest.mark.usefixtures("cache_folder")
CLASSES = ("heavy_makeup", "no_heavy_makeup")


@pytest.fixture
def faces(tmp_path):
    """Two splits of two classes with two PNGs each, all different, 24 high and 20 wide."""
    folder = tmp_path / "faces"
    for number in range(8):
        split, label = ("train", "val")[number // 4], CLASSES[number // 2 % 2]
        place = folder / split / label / f"{number % 2}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        noise(24, 20, number).save(place)
    return folder


def test_what_is_unchanged_is_decoded_once(faces, monkeypatch):
    first = read_pictures(faces)
    renamed = faces.rename(faces.with_name("other"))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        second = read_pictures(renamed)
    assert (second.name, second.fingerprint, second.train.names) == ("other", first.fingerprint, first.train.names)
    np.testing.assert_array_equal(second.train.images, first.train.images)
    noise(24, 20, 99).save(renamed / "val" / CLASSES[0] / "0.png")
    third = read_pictures(renamed)
    assert third.fingerprint != first.fingerprint
    np.testing.assert_array_equal(third.val.images[0], np.asarray(noise(24, 20, 99)))


def test_short_side_shrinks_with_antialias_and_never_enlarges(faces):
    stripes = np.zeros((100, 150, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(faces / "train" / CLASSES[0] / "0.png")
    noise(20, 30, 1).save(faces / "train" / CLASSES[0] / "1.png", exif=TURNED)
    train = read_pictures(faces, short_side=25).train
    assert train.sizes.tolist() == [[25, 38], [30, 20], [24, 20], [24, 20]]  # EXIF turns the size, too
    np.testing.assert_array_equal(train.images[1, :30, :20], np.rot90(np.asarray(noise(20, 30, 1)), -1))
    inner = train.images[0, :25, 2:36].astype(int)
    assert inner.min() > 85 and inner.max() < 115  # nearest neighbour would keep 0 and 200
    assert read_pictures(faces, short_side=30).train.sizes[0].tolist() == [30, 45]


def _told(faces):
    return told_twice(lambda: read_pictures(faces))


@pytest.mark.parametrize("kind", MODES)
def test_every_kind_of_picture_becomes_rgb(faces, kind):
    save, expected, tolerance = MODES[kind]
    (faces / "train" / CLASSES[0] / "0.png").unlink()
    save(faces / "train" / CLASSES[0] / "0 写 é\n")
    data, told = _told(faces)
    assert ["with transparent parts" in line for line in told] == [True] * (kind in ("alpha", "colour key"))
    assert data.train.sizes[0].tolist() == [32, 32]
    assert np.abs(data.train.images[0].astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(("bits", "suffix"), [(12, ".png"), (10, ".tif"), (14, ".png"), (8, ".png"), (16, ".tif")])
def test_grey_of_fewer_bits_than_its_file_has_room_for_keeps_its_range(faces, bits, suffix):
    """As a camera stores 12 bits in 16; decided over the whole set, so that a dark picture stays dark."""
    ramp = np.linspace(0, 2**bits - 1, 32).astype(np.uint16)
    names = f"train/{CLASSES[0]}/0{suffix}", f"val/{CLASSES[1]}/1{suffix}"
    for name, values in zip(names, (ramp, ramp // 4), strict=True):
        (faces / name).with_suffix(".png").unlink()
        Image.fromarray(np.tile(values, (32, 1))).save(faces / name)
    data, told = _told(faces)
    for images, values in ((data.train.images[0], ramp), (data.val.images[3], ramp // 4)):
        np.testing.assert_array_equal(images[:32, :32, 0], np.tile(values >> (bits - 8), (32, 1)))
    sentence = f"1 picture(s) with 16-bit grey of which all values are below {2**bits}, read as {bits}-bit: "
    assert told == ([] if bits == 16 else [sentence + name for name in names])


def test_what_a_picture_loses_is_told(faces):
    frames = [Image.fromarray(np.full((32, 32), value, np.uint8)) for value in (10, 200)]
    frames[0].save(faces / "train" / CLASSES[0] / "0.gif", save_all=True, append_images=frames[1:])
    frames[0].save(faces / "train" / CLASSES[0] / "0.tif", save_all=True, append_images=frames[1:])
    HALF_CLEAR.save(faces / "train" / CLASSES[0] / "1.webp", lossless=True)
    data, told = _told(faces)
    place = f"train/{CLASSES[0]}"
    assert told == [
        f"2 picture(s) with several frames, of which the first is taken: {place}/0.gif, {place}/0.tif",
        f"1 picture(s) with transparent parts, which are shown on white: {place}/1.webp",
    ]
    assert data.train.images[0].max() == 10


def test_colours_of_12_and_14_bits_that_pillow_reads_as_darker_are_told(faces):
    values = np.random.RandomState(0).randint(0, 4096, (32, 32, 3))
    opaque = np.full((32, 32), 0xFFFF)
    for factor, sentence in {1: "end at 4095, and look black", 4: "end at 16383, and look a quarter", 16: ""}.items():
        (faces / "train" / CLASSES[0] / "0.png").write_bytes(deep_png(values * factor))
        (faces / "train" / CLASSES[0] / "1.png").write_bytes(deep_png(np.dstack([values[..., 0] * factor, opaque])))
        data, told = _told(faces)
        assert len(told) == bool(sentence)
        assert all(said.startswith(f"2 picture(s) with 16-bit colours that {sentence}") for said in told)
    np.testing.assert_array_equal(data.train.images[0, :32, :32], values >> 4)


def test_grey_of_12_bits_beside_a_picture_of_16_is_told(faces):
    values = np.random.RandomState(0).randint(0, 4096, (32, 32)).astype(np.uint16)
    bright = values.copy()
    bright[0, 0] = 65535  # a dead pixel
    for number, pixels in enumerate((bright, values)):
        Image.fromarray(pixels).save(faces / "train" / CLASSES[0] / f"{number}.png")
    (said,) = (x for x in _told(faces)[1] if "4095" in x)
    assert said.startswith("1 picture(s) with 16-bit grey that ends at 4095, in a set where others do not")


def test_the_same_picture_in_two_classes_is_told(faces):
    for split in ("train", "val"):
        shutil.copy(faces / split / CLASSES[0] / "0.png", faces / split / CLASSES[1] / "copy.png")
        shutil.copy(faces / split / CLASSES[0] / "1.png", faces / split / CLASSES[0] / "copy.png")  # one class: fine
    _, told = _told(faces)
    assert told == [
        f"1 picture(s) in two classes, of which one is wrong: {split}/{CLASSES[0]}/0.png = "
        f"{split}/{CLASSES[1]}/copy.png"
        for split in ("train", "val")
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writable", [True, False])
def test_a_panorama_costs_what_it_takes_itself_and_loses_nothing(faces, cache_folder, monkeypatch, writable):
    """Where frames of its size would take several times what the pictures do, these lie one behind the other."""
    noise(16, 4000, 5).save(faces / "train" / CLASSES[0] / "0.png")
    noise(240, 16, 6).save(faces / "train" / CLASSES[1] / "1.png")
    monkeypatch.setattr(cache, "_MUCH", 1 << 10)
    pictures = noise(16, 4000, 5), noise(24, 20, 1), noise(24, 20, 2), noise(240, 16, 6)
    monkeypatch.setattr(cache, "MAX_BYTES", sum(3 * p.width * p.height for p in pictures))
    if not writable:
        cache_folder.write_text("a file where the folder should be")
    for _ in range(2):  # from the cache, too
        with nullcontext() if writable else pytest.warns(UserWarning, match="CVHW4_CACHE"):
            data = read_pictures(faces)
    assert isinstance(data.train.images, Packed) and data.train.images.shape == (4, 240, 4000, 3)
    assert isinstance(data.val.images, np.ndarray)
    for found, picture in zip(data.train.images, pictures, strict=True):
        np.testing.assert_array_equal(found, np.asarray(picture), strict=True)
    for found, picture in zip(data.train.images[np.array([3, 0])], (pictures[3], pictures[0]), strict=True):
        np.testing.assert_array_equal(found, np.asarray(picture))
    if writable:
        (stored,) = cache_folder.rglob("train-images.npy")
        assert stored.stat().st_size == 128 + sum(3 * p.width * p.height for p in pictures)
    else:
        monkeypatch.setattr(cache, "MAX_BYTES", 100)
        with pytest.raises(InputError, match="its 4 pictures take"):
            read_pictures(faces)


@pytest.mark.parametrize("classes", [256, 257])
def test_as_many_classes_as_there_are(tmp_path, cache_folder, classes):
    """Caltech-256 has 257; their numbers take two bytes from there on."""
    picture = noise(16, 16, 0)
    for split in ("train", "val"):
        for c in range(classes):
            (tmp_path / "many" / split / f"{c:04d}").mkdir(parents=True)
            picture.putpixel((0, 0), (c % 256, c // 256, split == "val"))
            picture.save(tmp_path / "many" / split / f"{c:04d}" / "0.bmp")
    data = read_pictures(tmp_path / "many", classes=classes)
    assert data.train.targets.tolist() == data.val.targets.tolist() == list(range(classes))
    assert data.train.targets.dtype == (np.uint8 if classes <= 256 else np.int16)
    results = ImageResults(predicted=data.val.targets[None], labels=data.val.targets)
    again = ImageResults.from_bytes(results.to_bytes(), Path("x.npz"))
    assert np.array_equal(again.predicted, results.predicted) and again.figure("accuracy", 1) == 1.0


def test_clutter_is_passed_over(faces):
    clean = read_pictures(faces)
    for place in ("", "train", f"train/{CLASSES[0]}", "val"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (faces / place / name).write_bytes(b"clutter")
    for name in (".ipynb_checkpoints", "__pycache__"):
        (faces / "train" / name).mkdir()
    (faces / "train" / "readme.txt").write_text("about the classes")
    (faces / "test").mkdir()
    assert read_pictures(faces).fingerprint == clean.fingerprint


def _truncated(path, kind="PNG"):
    noise(64, 64, 5).save(path, kind)
    path.write_bytes(path.read_bytes()[:-1500])


def _empty_class(path):
    for file in path.parent.iterdir():
        file.unlink()
    (path.parent / ".DS_Store").touch()


def _a_file_for_all(path):
    shutil.rmtree(path.parents[2])
    path.parents[2].write_text("x")


def _named_as_scenes(path):
    for name, other in zip(CLASSES, ("images", "masks"), strict=True):
        (path.parents[1] / name).rename(path.parents[1] / other)


POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n"
FLOATS = Image.fromarray(np.ones((20, 20), np.float32))
# what is done to train/heavy_makeup/0.png, the path that the message must name, a part of the problem and of the fix
BAD = {
    "no folder": (lambda p: shutil.rmtree(p.parents[2]), "faces", "does not exist", "correct the path"),
    "a file for a folder": (_a_file_for_all, "faces", "is not a folder", "correct the path"),
    "no train": (lambda p: shutil.rmtree(p.parents[1]), "faces", "has no train/ (in it: val)", "name the folder"),
    "no val": (lambda p: shutil.rmtree(p.parents[2] / "val"), "faces", "has no val/ (in it: train)", "train/<class>/"),
    "one class": (lambda p: shutil.rmtree(p.parent), "faces/train", "1 class folders (no_heavy_makeup)", "add a"),
    "three classes": (
        lambda p: shutil.copytree(p.parent, p.parents[1] / "third"),
        *("faces/train", "(heavy_makeup, no_heavy_makeup, third)", "keep one folder"),
    ),
    "other classes": (
        lambda p: (p.parents[2] / "val" / CLASSES[1]).rename(p.parents[2] / "val" / "beards"),
        *("faces/train", "has no beards/, which val/ has; 2 folders are in one", "same folders"),
    ),
    "a class fewer": (
        lambda p: shutil.rmtree(p.parents[2] / "val" / CLASSES[0]),
        *("faces/val", "has no heavy_makeup/, which train/ has", "same folders"),
    ),
    "of no class": (lambda p: p.rename(p.parents[1] / "a.JPG"), "faces/train/a.JPG", "is of no class", "folder of its"),
    "empty class": (_empty_class, "train/heavy_makeup", "holds no pictures", "add pictures"),
    "zero bytes": (lambda p: p.write_bytes(b""), "heavy_makeup/0.png", "is empty (0 bytes)", "replace or delete"),
    "not a picture": (lambda p: p.write_text("hello"), "heavy_makeup/0.png", "is not a picture", "convert, replace"),
    "postscript": (lambda p: p.write_text(POSTSCRIPT), "heavy_makeup/0.png", "is not a picture", "convert, replace"),
    "truncated": (lambda p: _truncated(p, "JPEG"), "heavy_makeup/0.png", "damaged", "replace or delete"),
    "15 pixels": (lambda p: noise(15, 99, 0).save(p), "heavy_makeup/0.png", "99x15", "replace or delete"),
    "float": (lambda p: FLOATS.save(p, "TIFF"), "heavy_makeup/0.png", "32-bit pixels", "8 bits"),
    "other file": (lambda p: p.rename(p.with_name("a.txt")), "heavy_makeup/a.txt", "no extension", "convert it"),
    "scenes": (_named_as_scenes, "train", "which are scenes and no two classes", "give Scenes("),
    "folder inside": (steps(Path.unlink, Path.mkdir), "heavy_makeup/0.png", "folder among pictures", "move"),
    "broken link": (
        steps(Path.unlink, lambda p: p.symlink_to("nowhere.png")),
        *("0.png", "does not exist", "add the file"),
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused(faces, case):
    corrupt, *told = BAD[case]
    corrupt(faces / "train" / CLASSES[0] / "0.png")
    check_refused(lambda: read_pictures(faces), faces.parent, *told)


@pytest.mark.parametrize("limit", [400, 100])  # Pillow warns, or raises an error of its own
def test_a_decompression_bomb_is_refused(faces, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"heavy_makeup/0.png: is too large .* Fix: scale"):
        read_pictures(faces)


@pytest.mark.parametrize("exif", [b"Exif\0\0", DAMAGED_EXIF])
def test_what_pillow_makes_nothing_of_in_exif_turns_nothing(faces, exif):
    (faces / "train" / CLASSES[0] / "0.png").unlink()
    noise(24, 20, 3).save(faces / "train" / CLASSES[0] / "0.jpg", exif=exif)
    data, told = _told(faces)
    assert data.train.sizes[0].tolist() == [24, 20]
    assert all(re.search(rf"read over \(Corrupt EXIF.*\): train/{CLASSES[0]}/0.jpg$", line) for line in told)
    assert len(told) == (exif == DAMAGED_EXIF)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_the_same_bytes_as_made_in_memory(faces, cache_folder, writable, mixed):
    pictures = [noise(24, 20, seed) for seed in range(8)]
    if mixed:  # four sizes, the largest height and width in different ones
        pictures[1:4] = noise(40, 17, 1), noise(16, 50, 2), noise(16, 16, 3)
        for number, picture in enumerate(pictures[:4]):
            picture.save(faces / "train" / CLASSES[number // 2] / f"{number % 2}.png")
    if not writable:
        cache_folder.write_text("a file where the folder should be")
    with nullcontext() if writable else pytest.warns(UserWarning, match="CVHW4_CACHE"):
        data = read_pictures(faces)
    assert (data.name, data.task, data.classes, data.embedded) == ("faces", "classification", CLASSES, False)
    assert data.val.names == tuple(f"val/{label}/{number}.png" for label in CLASSES for number in range(2))
    sha = hashlib.sha256()
    for name, split, first in (("train", data.train, 0), ("val", data.val, 4)):
        expected = [np.asarray(picture) for picture in pictures[first : first + 4]]
        frame = np.max([picture.shape for picture in expected], 0)
        images = np.stack([np.pad(p, [(0, side) for side in frame - p.shape]) for p in expected])
        sizes = np.array([picture.shape[:2] for picture in expected], np.int32)
        targets = np.array([0, 0, 1, 1], np.uint8)
        for array, wanted in zip((split.images, split.sizes, split.targets), (images, sizes, targets), strict=True):
            np.testing.assert_array_equal(array, wanted, strict=True)
            assert not array.flags.writeable
            sha.update(f"{wanted.dtype.str}{wanted.shape}".encode() + wanted.tobytes())
        for part, wanted in (("images", images), ("targets", targets)) if writable else ():
            np.save(as_numpy := io.BytesIO(), wanted)
            (stored,) = cache_folder.rglob(f"{name}-{part}.npy")
            assert stored.read_bytes() == as_numpy.getvalue()
    assert data.fingerprint == sha.hexdigest()
    assert isinstance(data.train.images, np.memmap) == writable


def test_the_first_bad_picture_is_named(faces):
    for number in range(20):
        noise(64, 64, number).save(faces / "train" / CLASSES[0] / f"{number:02}.png")
    for number in (7, 8, 15):
        (faces / "train" / CLASSES[0] / f"{number:02}.png").write_text("hello")
    _truncated(faces / "train" / CLASSES[0] / "06.png")  # is found out later than those that are no pictures
    with pytest.raises(InputError, match=r"06\.png: is a damaged"):
        read_pictures(faces)


NEEDED = 4 * (25 * 20 * 3 + 1), 4 * (24 * 20 * 3 + 1)  # bytes of the images and targets of train and val


def _free(monkeypatch, *free):
    """Makes the disk have so many free bytes at each split, the last for good."""
    left = list(free)

    def disk_usage(path):
        assert path.is_dir()
        return SimpleNamespace(free=left.pop(0) if left[1:] else left[0])

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)


@pytest.mark.filterwarnings("error")
def test_more_than_fits_in_memory_goes_to_the_disk(faces, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 1)
    noise(25, 20, 3).save(faces / "train" / CLASSES[0] / "1.png")
    _free(monkeypatch, NEEDED[0] * 2, NEEDED[1])
    assert isinstance(read_pictures(faces).train.images, np.memmap)


@pytest.mark.parametrize("free", [[NEEDED[0] * 2 - 1], [NEEDED[0] * 2, NEEDED[1] - 1], [0]])
def test_a_disk_too_small_leaves_memory(faces, cache_folder, monkeypatch, free):
    noise(25, 20, 3).save(faces / "train" / CLASSES[0] / "1.png")
    expected = read_pictures(faces).fingerprint
    shutil.rmtree(cache_folder)
    _free(monkeypatch, *free)
    told = r"cannot be kept in .*cache \(.* GiB needed, .* free\), so they stay in memory"
    with pytest.warns(UserWarning, match=told):
        assert read_pictures(faces).fingerprint == expected
    monkeypatch.setattr(cache, "MAX_BYTES", 4 * 25 * 20 * 3 - 1)
    _free(monkeypatch, *free)
    told = r"faces: its 4 pictures take .* kept in .*cache\. .* CVHW4_CACHE .* that much free space, .* scaled down"
    with pytest.raises(InputError, match=told):
        read_pictures(faces)
    assert not cache_folder.exists()


def test_a_disk_that_fills_up_meanwhile_leaves_memory(faces, cache_folder, monkeypatch):
    expected = read_pictures(faces).fingerprint
    shutil.rmtree(cache_folder)
    append = cache._Rows.append

    def fail(rows, row):
        append(rows, row)
        if rows.path and len(rows.shapes) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._Rows, "append", fail)
    with pytest.warns(UserWarning, match="No space left"):
        assert read_pictures(faces).fingerprint == expected
    assert not cache_folder.exists()


def test_a_picture_in_both_splits_is_a_leak_and_pixels_in_another_shape_are_none(faces):
    for split, shape in (("train", (24, 20, 3)), ("val", (20, 24, 3))):
        Image.fromarray(np.full(shape, 7, np.uint8)).save(faces / split / CLASSES[0] / "0.png")
    assert read_pictures(faces).leaks == ()
    shutil.copy(faces / "train" / CLASSES[0] / "1.png", faces / "val" / CLASSES[1] / "copy.png")
    leak = "train/heavy_makeup/1.png = val/no_heavy_makeup/copy.png"
    data, (told,) = _told(faces)
    assert data.leaks == (leak,) and leak in told
    shutil.rmtree(faces / "val")
    shutil.copytree(faces / "train", faces / "val")
    _, (told,) = _told(faces)
    assert re.search(r"^4 validation picture.*, \.\.\.$", told) and told.count(" = ") == 3


@pytest.mark.parametrize("writable", [True, False])
def test_a_picture_saved_anew_is_a_leak_and_a_turned_one_none(faces, cache_folder, writable):
    if not writable:
        cache_folder.touch()  # where the folder should be
    picture = Image.open(faces / "train" / CLASSES[0] / "0.png")
    picture.save(faces / "val" / CLASSES[0] / "0.bmp")
    picture.transpose(Image.Transpose.ROTATE_180).save(faces / "val" / CLASSES[0] / "1.png")
    with pytest.warns(UserWarning, match="1 validation picture"):
        assert read_pictures(faces).leaks == ("train/heavy_makeup/0.png = val/heavy_makeup/0.bmp",)


def test_entries_never_finished_are_removed_after_a_day(faces, cache_folder):
    day = 24 * 3600
    ages = {"old": day + 60, "new": day - 60, "growing": day + 60, "plain": day + 60}
    for name, age in ages.items():
        folder = cache_folder / (f".pictures-{name}.0123456789abcdef.tmp" if name != "plain" else ".plain.tmp")
        folder.mkdir(parents=True)
        (folder / "train-images.npy").write_bytes(b"half")
        for path in (folder / "train-images.npy", folder):
            os.utime(path, (time.time() - age,) * 2)
        if name == "growing":
            os.utime(folder / "train-images.npy")
    (cache_folder / ".file.0123456789abcdef.tmp").touch()
    read_pictures(faces)
    left = sorted(path.name.split(".")[1] for path in cache_folder.iterdir() if path.name.startswith("."))
    assert left == ["file", "pictures-growing", "pictures-new", "plain"]
