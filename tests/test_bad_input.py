"""Whatever a user can hand in, from the command line to the answer.

Unusable input ends a session before anything is trained, and a command before anything is written: exit code 4, one
line that names the file or option, what is wrong with it and the fix. Strange but usable input is read as it is meant.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import urllib.error
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import cvhw4.data.load
import cvhw4.data.pictures

# What a user without rights to the checkout imports late.
import cvhw4.data.scenes
import cvhw4.preflight
import cvhw4.report.papers
import cvhw4.training.fit  # noqa: F401
from cvhw4 import cli, homework
from cvhw4.models.build import build_network
from cvhw4.models.weights import read_state
from cvhw4.records.store import Store
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.bad_input import BAD, HEIGHT, LITE0, NOBODY, WIDTH, _label, _lite0, _photos, _streets
from tests.helpers.reading import GREY, MODES, noise
from tests.helpers.tiny import row, shrink

pytest_plugins = ["tests.helpers.sessions"]


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
    for name, value in {"CVHW4_CACHE": str(cache_folder), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("os.fsync", lambda _: None)  # no test here is about a power failure
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # `cli.main` sets it
    whole, tiny = homework.rows_at, {name: shrink(row) for name, row in homework.rows_at("quick").items()}
    monkeypatch.setattr(homework, "rows_at", lambda size: tiny if size == "quick" else whole(size))
    shutil.copytree(ROOT / "benchmarks", "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", ".")
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


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [("--seeds", "abc", "int"), ("--profile", "huge", "full"), ("--part", "half", "I/N")],
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
        first, second = f'"{split}\\rue, ""é"" 写.PNG",{split}annot/0.png', f"{split}/1.png, {split}annot/1.png"
        (folder / f"{split}.csv").write_bytes(f"\ufeffImage,Label\r\n{first}\r\n{second}\r\n".encode())


def test_strange_input_is_read_as_it_is_meant(answer, place):
    expected = _strange_photos(place)
    _strange_streets(place)
    half = {k: v.half() if v.is_floating_point() else v for k, v in _lite0().items()}
    (place / "weights").mkdir()
    save_file(half, place / "weights" / f"{LITE0}.SAFETENSORS")
    (place / "weights" / "resnet18.pth").write_text("for no row")
    before = _tree(place)
    given = {"portraits": place / "photos", "camvid": place / "streets", "weights": place / "weights"}
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
    numbers = {Path(name).name: number for number, name in enumerate(train.names)}
    for name, (pixels, tolerance) in expected.items():
        image, size = train.images[numbers[name]], train.sizes[numbers[name]]
        assert size.tolist() == list(pixels.shape[:2]), name
        assert np.abs(image[: size[0], : size[1]].astype(int) - pixels).max() <= tolerance, name
    scenes = runner.data("segmentation")
    for split, part in (("train", scenes.train), ("val", scenes.val)):
        assert part.names == (f'{split}/rue, "é" 写.PNG', f"{split}/1.png")
        for number in range(2):
            np.testing.assert_array_equal(part.images[number], noise(HEIGHT, WIDTH, number + len(split)))
            np.testing.assert_array_equal(part.targets[number], _label(number))
    network = build_network(row("q1_2"), seed=0, weights=given["weights"]).module.state_dict()
    state = read_state(given["weights"] / f"{LITE0}.SAFETENSORS")
    for name in ("conv_stem.weight", "bn1.running_var"):
        assert network[name].dtype == torch.float32
        assert torch.equal(network[name], half[name].float()) and torch.equal(state[name], network[name])
