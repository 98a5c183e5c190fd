"""What `--reuse` knows of functions of the user's: the text of what they call, wherever that is in files of theirs."""

import math
import statistics
import sys
from importlib import import_module

import numpy as np
import pytest
import torchvision

from cvhw4 import homework
from cvhw4.study.called import called_by
from cvhw4.study.functions import text_of

FILES = {
    "loops.py": """
import json
from functools import partial
import os.path as paths

import numpy as np

import nets.blocks
from nets import Wide as Widest
from nets.more import *

RATE = 0.1
UNUSED, SIZES = 3, {"a": [32]}
if paths.sep:
    MODE = "slow"


def unused():
    return RATE + 1


def step(x):
    return step(x - RATE) if x else nets.blocks.depth(x)


def fit(run):
    from nets import late as later

    yield {"accuracy": step(np.float64(run.seed)) + len(SIZES) + later.level(MODE)}


class Base:
    def start(self):
        return Widest()


class Loop(Base):
    def __call__(self, run):
        yield {"accuracy": everything(run)}


def outer(scale):
    return lambda run: [{"accuracy": scale * step(run)}]


HELD, BOUND = outer(2), partial(fit, more=unused)
""",
    "nets/__init__.py": "from .wide import Wide\nVERSION = 1\n",
    "nets/wide.py": "from . import blocks as b\nclass Wide:\n    def go(self):\n        return b.depth(1)\n",
    "nets/blocks.py": "from nets import late\ndef depth(x):\n    return 3\ndef width(x):\n    return 4\n",
    "nets/late.py": "import nets\nimport loops\ndef level(mode):\n    return loops.RATE\n",
    "nets/more.py": "def everything(run):\n    return run.settings\n",
}


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """The texts of what a file defines, after a change of one of them; as a new process has them, in a new folder."""
    folders = iter(range(100))

    def of(file="loops.py", old="", new=""):
        folder = tmp_path / str(next(folders))
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert name != file or text.count(old) == 1 or not old
            path.write_text(text.replace(old, new) if name == file and old else text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            for name in [name for name in sys.modules if name == "loops" or name.partition(".")[0] == "nets"]:
                patch.delitem(sys.modules, name)
            loops = import_module("loops")
            found = {name: text_of(getattr(loops, name)) for name in ("fit", "HELD", "BOUND", "unused", "Base")}
            found |= {"Loop": text_of(loops.Loop())}
            for name in [name for name in sys.modules if name == "loops" or name.partition(".")[0] == "nets"]:
                sys.modules.pop(name)
        return found

    return of


CHANGES = {
    "a function that is called": ("loops.py", "step(x - RATE)", "step(x + RATE)", "fit HELD BOUND"),
    "a number at the top level": ("loops.py", "RATE = 0.1", "RATE = 0.2", "fit HELD BOUND unused"),
    "a dict at the top level": ("loops.py", "[32]", "[64]", "fit BOUND"),
    "a variable that is set under a condition": ("loops.py", '"slow"', '"fast"', "fit BOUND"),
    "what a partial is given": ("loops.py", "RATE + 1", "RATE + 2", "BOUND unused"),
    "a function of a module's module": ("nets/blocks.py", "return 3", "return 5", "fit HELD BOUND Base Loop"),
    "a module that is imported in the function": ("nets/late.py", "loops.RATE", "0.1", "fit BOUND"),
    "a class that is imported by another name": ("nets/wide.py", "b.depth(1)", "b.depth(2)", "Base Loop"),
    "a base class": ("loops.py", "return Widest()", "return Widest", "Base Loop"),
    "what is imported by a star": ("nets/more.py", "run.settings", "run.seed", "Loop"),
    "a function that nothing calls": ("nets/blocks.py", "return 4", "return 5", ""),
    "a variable that nothing names": ("nets/__init__.py", "VERSION = 1", "VERSION = 2", ""),
    "a comment, and an empty line": ("nets/blocks.py", "    return 3", "    # three\n\n    return 3", ""),
    "nothing": ("loops.py", "", "", ""),
}


@pytest.mark.parametrize(("file", "old", "new", "changed"), CHANGES.values(), ids=CHANGES)
def test_a_function_is_known_by_what_it_calls(texts, file, old, new, changed):
    before, after = texts(), texts(file, old, new)
    assert {name for name in before if before[name] != after[name]} == {*changed.split()}


def test_what_is_installed_or_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    for function in (statistics.mean, torchvision.models.ResNet, homework.studies, math.sqrt, np.add):
        assert called_by(function) == ""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "whole.py").write_text("def f():\n    import broken, absent, absent.more\n    return broken.f\n")
    assert text_of(import_module("whole").f).count("def f()") == 2  # its own text, and as it names an `f`
