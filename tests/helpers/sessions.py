"""Sessions of the benchmarks in a folder of their own, on the tiny profile. PYTEST_DONT_REWRITE

As a pytest plugin it has the fixture `study`, and pytester's. Sessions inside a process throw away the modules they
import; what cannot be imported twice is imported here.
"""

import json
import shutil
from dataclasses import replace
from functools import cache

import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import tabulate  # noqa: F401
import timm  # noqa: F401
import torchvision.transforms.v2  # noqa: F401

import cvhw4.training.fit  # noqa: F401
from cvhw4 import homework
from cvhw4.records.store import Store
from cvhw4.statistics.calibration import calibrate, to_toml
from tests.helpers import ROOT
from tests.helpers.tiny import generated, record

pytest_plugins = ["pytester"]
DRAWN = homework.study("quick")  # as sessions have it: each seed draws its own pictures


@cache
def data_of(task):
    """The tiny data set of a task, as records name it."""
    made = generated(DRAWN.sources[task])
    return replace(record().data, name=made.name, fingerprint=made.origin, redrawn=True)


def on_tiny_data(row, seed, value, loss=0.5):
    return replace(record(row.name, seed, figures=((value,),), loss=loss), data=data_of(row.task.name))


def wide_bounds(source="wide"):
    """A calibration of the tiny data on figures all over 0..1, whose bounds of rows say nothing and are left out."""
    figures = (0.0, 1.0, 0.5, 0.2, 0.8, 0.0, 1.0)
    runs = [
        on_tiny_data(row, s, figures[s * i % 7], loss=figures[s * i % 7])
        for i, row in enumerate(DRAWN.in_group(""), 1)
        for s in range(7)
    ]
    return to_toml(DRAWN, calibrate(DRAWN, runs)).replace('source = "', f'source = "{source}, ')


@pytest.fixture
def study(pytester, monkeypatch):
    """A checkout with the benchmarks and wide bounds; `study(*args)` runs pytest there on the tiny profile."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark would take it for its own session's
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "benchmarks", pytester.path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", pytester.path)
    pytester.makeini("[pytest]")
    (pytester.path / "benchmarks" / "bounds.toml").write_text(wide_bounds())

    def run(*args, tiny=True, subprocess=False, cache=False):
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner(
            *([] if cache else ["-p", "no:cacheprovider"]),
            *(("-p", "tests.helpers.tiny") if tiny else ()),
            "benchmarks",
            *args,
        )

    return run


def figures(folder):
    """What every stored run says, but for times and for where its files are."""
    found = {}
    for run in Store(folder, "quick").load():
        raw = json.loads(run.to_json())
        epochs = [{k: v for k, v in e.items() if "seconds" not in k} for e in raw.pop("epochs")]
        del raw["times"], raw["started"]
        found[run.row, run.seed] = raw, epochs
    return found


def add_to_conftest(text):
    """Code at the end of the current folder's `conftest.py`."""
    with open("conftest.py", "a") as file:
        file.write(f"\n{text}")
