"""Whatever a user can hand in, from the command line to the answer.

Unusable input ends a session before anything is trained, and a command before anything is written: exit code 4, one
line that names the file or option, what is wrong with it and the fix.
"""

import os
import shutil
import sys
import tempfile
import urllib.error
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import cvhw4.data.load
import cvhw4.data.pictures

# What a user without rights to the checkout imports late.
import cvhw4.data.scenes
import cvhw4.preflight
import cvhw4.report.papers
import cvhw4.training.fit  # noqa: F401
from cvhw4 import cli, homework
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.bad_input import BAD, NOBODY
from tests.helpers.reading import snapshot
from tests.helpers.tiny import shrink

pytest_plugins = ["tests.helpers.sessions"]


# The table, case by case


@contextmanager
def _as_nobody():
    """Takes root's rights away; others own nothing of what the cases withhold either way."""
    if os.getuid():
        pytest.skip("files are withheld from others than their owner: needs root")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def place():
    """A folder in which anybody may write, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def answer(pytester, monkeypatch, capsys, place):
    """`answer(*args)`: exit code and output of a session or a command, with nothing that it needs from elsewhere."""

    def refuse(*_, **__):
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

    def run(*args):
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
    before = snapshot(place)
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
    assert snapshot(place) == before
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
