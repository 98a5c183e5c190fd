"""Reading scenes: layouts and codings of one content, and what each kind of bad input is answered with."""

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cvhw4 import CAMVID, Scenes
from cvhw4.camvid import CLASSES
from cvhw4.data.scenes import parse_list, read_scenes
from cvhw4.errors import InputError
from tests.helpers.reading import DAMAGED_EXIF, TURNED, check_refused, deep_png, raw_png, steps, told_twice

pytestmark = pytest.mark.usefixtures("cache_folder")
HEIGHT, WIDTH = 18, 24
COUNTS = {"train": 3, "val": 2}


def read_camvid(folder, size=None):
    return read_scenes(Scenes(folder, **CAMVID, resize=size))


def _image(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def _label(seed):
    return np.random.default_rng(100 + seed).integers(0, 12, (HEIGHT, WIDTH), np.uint8)


@pytest.fixture
def plain(tmp_path):
    """`train/ trainannot/ val/ valannot/` without lists; every picture its own noise."""
    folder = tmp_path / "streets"
    for seed, (split, number) in enumerate((s, n) for s, count in COUNTS.items() for n in range(count)):
        for kind, pixels in ((split, _image(seed)), (f"{split}annot", _label(seed))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{number:04}.png")
    return folder


def _save(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)


def _pairs(split):
    return [(f"{split}/{number:04}.png", f"{split}annot/{number:04}.png") for number in range(COUNTS[split])]


def _write_csv(folder, header="", end="\n", mark=""):
    for split in COUNTS:
        text = header + "".join(f"{image},{label}{end}" for image, label in _pairs(split))
        (folder / f"{split}.csv").write_bytes((mark + text).encode())


def _write_txt(folder, root="/SegNet/CamVid/"):
    for split in COUNTS:
        lines = [f"{root}{image} {root}{label}" for image, label in _pairs(split)]
        (folder / f"{split}.txt").write_text("\n".join(lines))


LAYOUTS = {
    "folders": lambda folder: None,
    "csv": _write_csv,
    "csv with header": lambda folder: _write_csv(folder, header="Image,Label\n"),
    "csv from Windows": lambda folder: _write_csv(folder, header="image,label\r\n\r\n", end=" \r\n", mark="\ufeff"),
    "csv with blank lines": lambda folder: _write_csv(folder, header="\n  \n", end="\n\n"),
    "txt": _write_txt,
    "txt with relative paths": lambda folder: _write_txt(folder, root=""),
    "csv before txt": steps(_write_csv, lambda folder: (folder / "train.txt").write_text("nonsense")),
    "csv and txt": steps(_write_csv, _write_txt, lambda folder: (folder / "val.csv").unlink()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(plain, layout):
    LAYOUTS[layout](plain)
    data = read_camvid(plain)
    assert (data.name, data.task, data.embedded) == ("streets", "segmentation", False)
    assert data.classes == CLASSES and "void" not in data.classes
    for name, split, seeds in (("train", data.train, (0, 1, 2)), ("val", data.val, (3, 4))):
        assert split.names == tuple(image for image, _ in _pairs(name))
        assert split.sizes.tolist() == [[HEIGHT, WIDTH]] * len(seeds) and split.sizes.dtype == np.int32
        np.testing.assert_array_equal(split.images, np.stack([_image(seed) for seed in seeds]), strict=True)
        np.testing.assert_array_equal(split.targets, np.stack([_label(seed) for seed in seeds]), strict=True)


def test_names_in_a_list_may_be_quoted_and_have_backslashes(plain):
    (plain / "train" / "0000.png").rename(plain / "train" / 'rue, "é" 写.PNG')
    _write_csv(plain)
    listed = (plain / "train.csv").read_text()
    (plain / "train.csv").write_text(listed.replace("train/0000.png", '"train\\rue, ""é"" 写.PNG"'))
    assert read_camvid(plain).train.names[0] == 'train/rue, "é" 写.PNG'


def test_the_order_and_the_splits_are_the_lists(plain):
    _write_csv(plain)
    first = read_camvid(plain)
    lines = [(plain / f"{split}.csv").read_text().splitlines() for split in COUNTS]
    (plain / "train.csv").write_text("\n".join([*reversed(lines[0]), lines[1][0]]))
    (plain / "val.csv").write_text("\n".join(lines[1][1:]))
    moved = read_camvid(plain)
    np.testing.assert_array_equal(moved.train.images, [*first.train.images[::-1], first.val.images[0]])
    assert moved.train.names == (*first.train.names[::-1], first.val.names[0])
    np.testing.assert_array_equal(moved.val.targets, first.val.targets[1:])
    (plain / "train.csv").write_text("\n".join(reversed(lines[0])))
    (plain / "val.csv").write_text("\n".join(lines[1]))
    back = read_camvid(plain)  # the same pictures one after the other, in other splits
    assert (back.train.names, back.val.names) == (first.train.names[::-1], first.val.names)


def test_pictures_of_all_sizes_are_scaled_where_that_is_asked_for(plain):
    """Pictures are averaged, of labels the nearest is picked; what fits is left as it is."""
    image, label = np.repeat(_image(7), 2, 0), np.repeat(_label(7), 2, 0)
    _save(image, plain / "val" / "0003.png")
    _save(label, plain / "valannot" / "0003.png")
    with pytest.raises(InputError, match=r"0003\.png: measures 24x36, the first picture 24x18.*resize=\(height, width"):
        read_camvid(plain)
    data = read_camvid(plain, size=(HEIGHT, WIDTH))
    np.testing.assert_array_equal(data.val.images[:2], [_image(3), _image(4)])
    np.testing.assert_array_equal(data.val.targets, [_label(3), _label(4), _label(7)])
    scaled = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.val.images[2], np.asarray(scaled))
    assert read_camvid(plain, size=(16, 40)).val.targets.shape == (3, 16, 40)


def test_a_picture_in_both_splits_is_a_leak_and_equal_labels_are_not(plain):
    shutil.copy(plain / "train" / "0002.png", plain / "val" / "0001.png")
    shutil.copy(plain / "trainannot" / "0000.png", plain / "valannot" / "0000.png")
    data, (told,) = told_twice(lambda: read_camvid(plain))
    assert data.leaks == ("train/0002.png = val/0001.png",)
    assert re.search("^1 validation picture.* train/0002.png = val/0001.png$", told)


# Codings of masks: everything says one picture of three classes and pixels of none, or is refused.

TRUTH = np.repeat(np.arange(HEIGHT * WIDTH // 2, dtype=np.uint8) % 4, 2).reshape(HEIGHT, WIDTH)  # 3: no class
TWO = TRUTH // 2  # two classes
SHOWN = {"sky": (9, 9, 200), "road": (128, 64, 128), "car": (64, 0, 128), "void": (0, 0, 0)}
BY_VALUE = dict(classes=["sky", "road", "car"], ignore=3)
BINARY = dict(values={"background": 0, "cell": 255})


def _palette(*colours, values=TRUTH):
    mask = Image.fromarray(values, mode="L").convert("L")
    mask.putpalette([part for colour in colours for part in colour])
    return mask


def _few_bits(values, bits):
    """A grey PNG of 1, 2 or 4 bits a pixel."""
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1), axis=1)
    return raw_png([line.tobytes() for line in packed], WIDTH, bits)


def _with_alpha(values, alpha):
    return np.dstack([values, np.full((HEIGHT, WIDTH), alpha, np.uint8)])


RGB = np.array([*SHOWN.values()], np.uint8)[TRUTH]
GREY = [(tone, tone, tone) for tone in (0, 255)]
# The mask, what `Scenes` is told, and the labels that it has to give, or a part of the message.
CODINGS = {
    "numbers": (TRUTH, BY_VALUE, TRUTH),
    "how many": (TRUTH, dict(classes=4), TRUTH),
    "too few": (TRUTH, dict(classes=3), "has the value 3, in no class and not ignored (the values of the cl"),
    "another void": (np.where(TRUTH == 3, 255, TRUTH).astype(np.uint8), dict(classes=3, ignore=255), TRUTH),
    "several of none": (TRUTH, dict(values={"a": 0, "b": 2}, ignore=[1, 3]), [0, 2, 1, 2]),
    "several of one": (TRUTH, dict(values={"a": [0, 3], "b": [1, 2]}), [0, 1, 1, 0]),
    "another order": (TRUTH, dict(classes=["x", "y"], values={"y": [0, 1], "x": [2, 3]}), [1, 1, 0, 0]),
    "0 and 255": (TWO * 255, BINARY, TWO),
    "0 and 255 as numbers": (TWO * 255, dict(classes=2), "has the value 255, in no class"),
    "0 and 1 as 0 and 255": (TWO, BINARY, "has the value 1, in no class and not ignored (the values of"),
    "1 bit": (TWO.astype(bool), dict(classes=2), TWO),
    "1 bit as 0 and 255": (TWO.astype(bool), BINARY, TWO),
    "1 bit that is either": (TWO.astype(bool), dict(classes=2, ignore=255), "mode 1) says other classes by"),
    "2 bits": (_few_bits(TRUTH, 2), BY_VALUE, TRUTH),
    "4 bits that are either": (_few_bits(TRUTH, 4), dict(classes=60), "mode L) says other classes by"),
    "4 bits by their tones": (_few_bits(TWO * 15, 4), BINARY, TWO),
    "16 bits": (TRUTH.astype(np.uint16) * 9000, dict(values={c: 9000 * i for i, c in enumerate("abcd")}), TRUTH),
    "16 bits beyond": (TRUTH.astype(np.uint16) * 9000, BY_VALUE, "has the values 9000, 18000, 27000, in no class"),
    "16 bits in three channels": (deep_png(np.dstack([TRUTH] * 3)), dict(classes=4), "has colours of 16 bits"),
    "16 bits and alpha": (deep_png(_with_alpha(TRUTH, 255)), dict(classes=4), "has colours of 16 bits"),
    "TIFF of 12 bits in 16": (
        (TRUTH.astype(np.uint16) * 1365, "TIFF"), dict(values={c: 1365 * i for i, c in enumerate("abcd")}), TRUTH,
    ),
    "alpha of no use": (_with_alpha(TRUTH, 255), BY_VALUE, TRUTH),
    "alpha that hides": (_with_alpha(TRUTH, 254), BY_VALUE, "has transparent pixels"),
    "colours and alpha": (np.dstack([RGB, np.full_like(TRUTH, 255)]), dict(colours=SHOWN), TRUTH),
    "colours": (RGB, dict(colours=SHOWN), TRUTH),
    "colours in another order": (RGB, dict(classes=["car", "sky", "road"], colours=SHOWN), [1, 2, 0, 3]),
    "a colour of no class": (RGB + np.uint8(1), dict(colours=SHOWN), "has the colour (1, 1, 1), (10, 10, 201)"),
    "colours that nobody explains": (RGB, BY_VALUE, "is coded by colour (RGB)"),
    "numbers in three channels": (np.dstack([TRUTH] * 3), BY_VALUE, TRUTH),
    "0 and 255 in three channels": (np.dstack([TWO * 255] * 3), BINARY, TWO),
    "a palette": (_palette(*SHOWN.values()), BY_VALUE, TRUTH),
    "a palette with its colours": (_palette(*SHOWN.values()), BY_VALUE | dict(colours=SHOWN), TRUTH),
    "a palette with other colours": (
        _palette((1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 0)), BY_VALUE | dict(colours=SHOWN), TRUTH,
    ),
    "a palette of colours in another order": (
        _palette(*[*SHOWN.values()][::-1]), BY_VALUE | dict(colours=SHOWN), "(mode P) says other classes by",
    ),
    "a palette of 0 and 255": (_palette(*GREY, values=TWO), BINARY, TWO),
    "a palette of 255 and 0": (_palette(*GREY[::-1], values=TWO), BINARY, 1 - TWO),  # no index says a class
    "a palette of other tones": (
        _palette(*GREY[:1], *GREY[:1], *GREY), dict(values={"a": [0, 2], "b": [1, 3, 255]}), "(mode P) says other",
    ),
    "a palette of 255 and 0 in numbers": (_palette(*GREY[::-1], values=TWO), dict(classes=2), TWO),
    "TIFF": ((TRUTH, "TIFF"), BY_VALUE, TRUTH),
    "TIFF of floats": ((TRUTH.astype(np.float32), "TIFF"), BY_VALUE, "has pixels of mode F"),
    "TIFF as JPEG": ((TRUTH, "TIFF", dict(compression="jpeg")), BY_VALUE, "is TIFF, which may not keep values"),
    "TIFF upside down": ((TRUTH, "TIFF", dict(tiffinfo={262: 0})), BY_VALUE, "stored inverted"),
    "TIFF of pages": (
        (TRUTH, "TIFF", dict(save_all=True, append_images=[Image.fromarray(TRUTH)])), BY_VALUE, "holds 2 pictures",
    ),
    "a transparent value": ((TWO, "PNG", dict(transparency=0)), dict(classes=2), "has transparent pixels"),
    "a transparent value of no pixel": ((TWO, "PNG", dict(transparency=7)), dict(classes=2), TWO),
    "GIF": ((TWO * 255, "GIF"), BINARY, TWO),
    "JPEG": ((TRUTH, "JPEG"), BY_VALUE, "is JPEG, which may not keep values exactly"),
}  # fmt: skip


def _one_each(folder, layout, save_mask):
    """Writes one picture and its mask for each split."""
    for number, split in enumerate(COUNTS):
        image, mask = (folder / layout.format(split=split, kind=kind) / "a.png" for kind in ("images", "masks"))
        for path in (image, mask):
            path.parent.mkdir(parents=True)
        _save(_image(number), image)
        save_mask(mask)
    return folder


@pytest.mark.parametrize("coding", CODINGS)
def test_a_mask_is_read_right_or_refused(tmp_path, coding):
    mask, told, expected = CODINGS[coding]

    def save(path):  # whatever it is: files are known by their content
        if isinstance(mask, bytes):
            path.write_bytes(mask)
        else:
            pixels, kind, options = (*mask, {})[:3] if isinstance(mask, tuple) else (mask, "PNG", {})
            image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            image.save(path, format=kind, **options)

    source = Scenes(_one_each(tmp_path / "x", "{kind}/{split}", save), **told)
    if isinstance(expected, str):
        with pytest.raises(InputError) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            read_scenes(source)
        assert caught.value.where.endswith("masks/train/a.png") and expected in caught.value.problem, caught.value
    else:
        data = read_scenes(source)
        wanted = np.array(expected, np.uint8)[TRUTH] if isinstance(expected, list) else expected
        np.testing.assert_array_equal(data.val.targets[0], wanted, strict=True)
        assert data.classes == source.names


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("mask", ["stored", "upright"])
def test_pictures_and_masks_are_turned_as_their_exif_says(plain, suffix, mask):
    """Also where the one is stored turned and the other is not, as tools that draw on the upright picture save it."""
    image, label = np.rot90(_image(9)), np.rot90(_label(9))  # so that it is as large as the others once it is turned
    for folder in ("train", "trainannot"):
        (plain / folder / "0000.png").unlink()
    _save(image, plain / "train" / f"0000.{suffix}", exif=TURNED)
    pixels, options = (label, {"exif": TURNED}) if mask == "stored" else (_label(9), {})
    _save(pixels, plain / "trainannot" / f"0000.{suffix}", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read_camvid(plain)
    np.testing.assert_array_equal(data.train.images[0], _image(9))
    np.testing.assert_array_equal(data.train.targets[0], _label(9))


def test_what_scenes_lose_is_told_by_name(plain):
    over = Image.Exif()
    over[0x0112] = 3  # upside down: its mask fits either way
    _save(_image(0), plain / "train" / "0000.png", exif=over)
    _save(_image(0), plain / "train" / "0001.png", exif=DAMAGED_EXIF)
    _save(np.dstack([_image(1), _label(1) * 20]), plain / "train" / "0002.png")
    frames = [Image.fromarray(_image(seed)) for seed in (7, 8)]
    (plain / "val" / "0000.png").unlink()
    frames[0].save(plain / "val" / "0000.tif", save_all=True, append_images=frames[1:])
    grey = np.linspace(0, 4095, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    _save(grey, plain / "val" / "0001.png")
    _save(_label(4), plain / "valannot" / "0001.png", exif=DAMAGED_EXIF)
    data, told = told_twice(lambda: read_camvid(plain))
    expected = [
        (r"a fault that is read over \(Corrupt EXIF data\. .*\)", "train/0001.png"),
        ("an EXIF orientation, and masks without, which are taken as drawn on the upright picture", "train/0000.png"),
        ("transparent parts, which are shown on white", "train/0002.png"),
        ("16-bit grey of which all values are below 4096, read as 12-bit", "val/0001.png"),
        (r"a fault that is read over \(Corrupt EXIF data\. .*\)", "valannot/0001.png"),
        ("several frames, of which the first is taken", "val/0000.tif"),
    ]
    for line, (fault, name) in zip(told, expected, strict=True):
        assert re.fullmatch(rf"1 picture\(s\) with {fault}: {name}", line)
    np.testing.assert_array_equal(data.train.images[0], _image(0)[::-1, ::-1])
    np.testing.assert_array_equal(data.val.images[1, ..., 0], grey >> 4)


def test_other_values_or_colours_are_read_anew(tmp_path):
    _one_each(tmp_path / "x", "{split}/{kind}", lambda path: _save(TWO, path))
    first = read_scenes(Scenes(tmp_path / "x", classes=["a", "b"]))
    turned = read_scenes(Scenes(tmp_path / "x", values={"a": 1, "b": 0}))
    np.testing.assert_array_equal(first.train.targets, 1 - turned.train.targets)
    _one_each(tmp_path / "y", "{split}/{kind}", lambda path: _save(RGB, path))
    orders = ["sky", "road", "car"], ["car", "sky", "road"]  # of the same colours
    first, turned = (read_scenes(Scenes(tmp_path / "y", classes=names, colours=SHOWN)) for names in orders)
    np.testing.assert_array_equal(turned.train.targets, np.array([1, 2, 0, 3])[first.train.targets])


VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


@pytest.fixture
def voc(tmp_path):
    """PASCAL VOC's layout: pictures of two sizes, palettes, one that is in no list."""
    folder = tmp_path / "VOC2012"
    for part in VOC:
        (folder / part).mkdir(parents=True)
    for number, stem in enumerate(("2007_01", "2007_02", "2007_03", "test_1")):
        higher = 1 + number % 2
        _save(np.repeat(_image(number), higher, 0), folder / VOC[0] / f"{stem}.jpg")
        mask = _palette(*SHOWN.values(), values=np.repeat(TRUTH, higher, 0))
        mask.save(folder / VOC[1] / f"{stem}.png")
    (folder / VOC[2] / "train.txt").write_text("2007_02\n2007_01\n\n")
    (folder / VOC[2] / "val.txt").write_text("2007_03\n")
    return folder


def test_vocs_layout_with_its_lists_palettes_and_sizes(voc):
    data = read_scenes(Scenes(voc, classes=3, ignore=3, resize=(HEIGHT, WIDTH)))
    assert data.train.names == ("JPEGImages/2007_02.jpg", "JPEGImages/2007_01.jpg")
    assert (data.name, data.val.names) == ("VOC2012", ("JPEGImages/2007_03.jpg",))
    for targets in (*data.train.targets, *data.val.targets):
        np.testing.assert_array_equal(targets, TRUTH)
    with pytest.raises(InputError, match=r"2007_01.jpg: measures 24x18, the first picture 24x36"):
        read_scenes(Scenes(voc, classes=3, ignore=3))


@pytest.mark.parametrize(
    ("listed", "named", "problem", "hint"),
    [
        ("2007_09\n", "JPEGImages/2007_09.jpg", "line 1 of ImageSets/", "add the file"),
        ("test_2\n", "SegmentationClass/test_2.png", "line 1 of ImageSets/", "add the file"),
        (None, "ImageSets/Segmentation/val.txt", "does not exist", "add the file"),
        ("../x\n", "ImageSets/Segmentation/val.txt", "is not a name", "write the name of a picture"),
        ("a\na\n", "ImageSets/Segmentation/val.txt", "repeats a of", "write the name of a picture"),
        ("\n", "ImageSets/Segmentation/val.txt", "lists no pictures", "write a name on each line"),
    ],
)
def test_vocs_lists_are_checked(voc, listed, named, problem, hint):
    shutil.copy(voc / VOC[0] / "test_1.jpg", voc / VOC[0] / "test_2.jpg")  # without a mask
    path = voc / VOC[2] / "val.txt"
    path.unlink() if listed is None else path.write_text(listed)
    check_refused(lambda: read_scenes(Scenes(voc, classes=3, ignore=3)), voc.parent, named, problem, hint)


ONE = "train/0000.png,trainannot/0000.png\n"
IMAGE, LABEL = "train/0001.png", "trainannot/0001.png"

# what is done to the folder, the path that the message must name, a part of the problem and of the fix
BAD = {
    "no folder": (shutil.rmtree, "streets", "does not exist", "correct the path"),
    "no train": (lambda f: shutil.rmtree(f / "train"), "streets/train", "does not exist", "create the folder"),
    "no labels": (lambda f: shutil.rmtree(f / "valannot"), "valannot", "does not exist", "create the folder"),
    "folders of classes": (
        lambda f: [shutil.rmtree(f / f"{split}annot") for split in COUNTS],
        *("streets", "nor a folder trainannot/, masks/train/ or train/masks/", "rows that classify for folders of"),
    ),
    "two layouts": (
        lambda f: (f / "masks" / "train").mkdir(parents=True),
        *("streets", "has masks in two layouts, trainannot/ and masks/train/", "keep one of them"),
    ),
    "no val list": (lambda f: (f / "train.csv").write_text(ONE), "streets", "no val.csv or val.txt", "add the"),
    "no pictures": (
        lambda f: [path.unlink() for path in f.glob("val*/*")],
        *("streets/val", "holds no pictures", "add the pictures"),
    ),
    "image without label": (lambda f: (f / LABEL).unlink(), IMAGE, "no counterpart in trainannot/", f"add {LABEL}"),
    "label without image": (lambda f: (f / IMAGE).unlink(), LABEL, "no counterpart in train/", f"add {IMAGE}"),
    "two of one stem": (
        lambda f: shutil.copy(f / IMAGE, f / "train" / "0001.jpg"),
        *("train/0001.png", "stem of 0001.jpg", "keep one"),
    ),
    "listed image missing": (
        steps(_write_csv, lambda f: (f / IMAGE).unlink()),
        *(IMAGE, "line 2 of train.csv names it", "add the file"),
    ),
    "listed label missing": (
        steps(_write_txt, lambda f: (f / "valannot" / "0001.png").unlink()),
        *("valannot/0001.png", "line 2 of val.txt names it", "add the file"),
    ),
    "label of other size": (lambda f: _save(_label(0)[1:], f / LABEL), LABEL, "24x17, its picture", "label of this"),
    "image of other size": (
        steps(lambda f: _save(_image(0)[:, 1:], f / IMAGE), lambda f: _save(_label(0)[:, 1:], f / LABEL)),
        *(IMAGE, "measures 23x18, the first picture 24x18", "one size"),
    ),
    "text for an image": (lambda f: (f / IMAGE).write_text("hello"), IMAGE, "is not a picture", "convert, replace"),
    "no UTF-8": (lambda f: (f / "train.csv").write_bytes(b"\xff\xfe,\n"), "train.csv", "is not UTF-8", "save the"),
}
# the text of train.csv, and the same
CSV = {
    "empty": ("", "train.csv", "is empty (0 bytes)", "replace or"),
    "three fields": (f"{ONE}\n{IMAGE},{LABEL},3\n", "train.csv", "line 3 has 3 fields, not 2", "one picture and its"),
    "repeated line": (ONE + ONE, "train.csv", "line 2 repeats train/0000.png of line 1", "delete one"),
    "repeated picture": (f"{ONE}train/./0000.png,{LABEL}\n", "train.csv", "line 2 repeats", "delete one"),
    "header only": ("image,label\n", "train.csv", "lists no pictures", "write a line"),
    "a folder": (f"{ONE}train,{LABEL}\n", "streets/train", "line 2 of train.csv names it", "add the file"),
    "a very long name": (f"{'x' * 5000}.png,{LABEL}\n", "x.png", "line 1 of train.csv names it", "add the file"),
}
OUTSIDE = ("../s.png", "train/../../x.png", "..\\x.png", "C:\\x.png", "/etc/passwd", "/SegNet/CamVid//etc/x", "", ".")
CSV |= {f"outside, {p}": (f"{ONE}{p},{LABEL}\n", "train.csv", f"line 2 names {p!r}", "relative") for p in OUTSIDE}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", [*BAD, *CSV])
def test_bad_folders_are_refused(plain, case):
    if case in CSV:
        text, *told = CSV[case]
        _write_csv(plain)
        (plain / "train.csv").write_text(text)
    else:
        corrupt, *told = BAD[case]
        corrupt(plain)
    check_refused(lambda: read_camvid(plain), plain.parent, *told)


_FIELDS = st.text(st.sampled_from("ab./\\ ,\n\r\"'\0:é"), max_size=12) | st.text(max_size=20)


def test_a_first_line_without_extensions_is_a_header_unless_it_names_a_file(tmp_path):
    for text, names in (("image label\na1 b1\n", ["a1"]), ("a1 b1\na2 b2\n", ["a1", "a2"])):
        (tmp_path / "a1").touch()
        assert [pair[0] for pair in parse_list(text, tmp_path / "train.txt")] == names


@given(st.lists(_FIELDS, max_size=12).map(",".join), st.sampled_from(["train.csv", "train.txt"]))
@example("a.png,b.png\n" * 2, "train.csv")
@example('"', "train.csv")
@example("x" * 140_000 + ",y", "train.csv")
@example("a.png,b.png\0", "train.csv")
def test_any_text_parses_or_is_refused(text, name):
    try:
        pairs = parse_list(text, Path("folder", name))
    except InputError as problem:
        assert name in str(problem) and "Fix: " in str(problem)
    else:
        assert pairs
        for path in (part for pair in pairs for part in pair[:2]):
            assert path and not path.startswith(("/", "../")) and path != ".." and "\0" not in path
