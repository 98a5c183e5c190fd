"""The example repository as a user has it: cvhw4 from its wheel, pictures on disk, `pytest`."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cvhw4.records.store import Store

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "own-ablation"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A copy of the example with its pictures drawn, and the environment in which the wheel is what is imported."""
    place, installed = tmp_path_factory.mktemp("user"), tmp_path_factory.mktemp("installed")
    shutil.copytree(
        EXAMPLE, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("photos", "results", "__pycache__")
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CVHW4_", "PYTEST_", "CI"))}
    env = inherited | {"PYTHONPATH": str(installed), "CVHW4_CACHE": str(place / "cache")}
    subprocess.run([sys.executable, "make_photos.py"], cwd=place, env=env, check=True)
    return place, installed, env


def test_the_wheel_has_the_package_its_types_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"cvhw4/py.typed", "cvhw4/ablation.py", "cvhw4/pytest_plugin.py"} <= set(names)
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {"cvhw4"}


def test_the_example_passes_and_its_pages_have_its_metric_and_claim(elsewhere):
    place, installed, env = elsewhere
    with open(place / "conftest.py", "a") as file:
        file.write("import cvhw4\n\nprint('cvhw4 of', cvhw4.__file__)\n")
    command = [sys.executable, "-m", "pytest", "--seeds", "2", "-s", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    screen = result.stdout
    assert result.returncode == 0, screen + result.stderr
    assert re.search(r"=+ 5 passed", screen) and f"cvhw4 of {installed}" in screen
    assert "ablation study, insects" in screen
    assert re.search(r"insects-finetune +balanced +\d\.\d+±\d\.\d+ ", screen)
    assert re.search(r"finetune_above_scratch-balanced +\+0\.\d+ .* supported", screen)

    results = place / "results"
    report = (results / "insects" / "report.md").read_text()
    claim = re.search(r"a pretrained start helps +\| balanced +\| \+0\.\d+ .*supported", report)
    assert "### balanced" in report and claim
    assert "a pretrained start helps" in (results / "insects" / "verdicts.md").read_text()
    runs = Store(results, "insects").load()
    assert sorted((r.row, r.seed) for r in runs) == [(row, s) for row in ("finetune", "scratch") for s in (0, 1)]
    for run in runs:
        assert run.data.classes == ["ant", "beetle", "butterfly"] and 0 <= run.best("balanced") <= 1
        assert Store(results, "insects").images(run).predicted.shape == (len(run.epochs), 60)


def test_the_examples_types_are_those_of_the_package(elsewhere):
    place, _, env = elsewhere
    settings = ("--strict", "--ignore-missing-imports", "--cache-dir", str(place / "mypy"))
    command = [sys.executable, "-m", "mypy", *settings, "test_insects.py"]
    told = subprocess.run(command, cwd=place, env=env | {"MYPYPATH": ""}, capture_output=True, text=True)
    assert told.returncode == 0 and "Success: no issues found" in told.stdout, told.stdout + told.stderr
    (place / "wrong.py").write_text("from cvhw4 import Row\n\nreveal_type(Row('resnet18', start='nothing'))\n")
    told = subprocess.run([*command[:-1], "wrong.py"], cwd=place, env=env, capture_output=True, text=True)
    assert 'Revealed type is "cvhw4.ablation.Row"' in told.stdout and "[arg-type]" in told.stdout
