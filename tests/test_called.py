"""What `--reuse` knows of functions of the user's: the text of what they call, wherever that is in files of theirs."""

import linecache
import math
import pickle
import statistics
import sys
from functools import partial
from importlib import import_module

import cloudpickle
import numpy as np
import pytest
import torchvision

from cvhw4 import Recipe, Row, Study, homework
from cvhw4.study import called
from cvhw4.study.called import called_by
from cvhw4.study.functions import text_of

FILES = {
    "loops.py": """
import json
from functools import partial, singledispatch
import os.path as paths

import numpy as np

import apart.inner.deepest
import nets.blocks
from nets import Wide as Widest
from nets.more import *
try:
    from absent import power
except ImportError:
    from nets.late import power

RATE = 0.1
UNUSED, SIZES = 3, {"a": [32]}
SIZES["b"] = [64]
if paths.sep:
    MODE = "slow"


def unused():
    return RATE + 1


def step(x):
    return step(x - RATE) if x else nets.blocks.depth(x)


@singledispatch
def kind(x):
    return 0


@kind.register(int)
def of_int(x):
    return 11


def fit(run):
    from nets import late as later

    yield {"accuracy": step(np.float64(run.seed)) + len(SIZES) + later.level(MODE) + kind(power(2))}


class Base:
    def start(self):
        return Widest()


class Loop(Base):
    def __call__(self, run):
        yield {"accuracy": everything(run)}

    def again(self, run):
        return self.start()


class Held:
    def __repr__(self):
        return "held"

    def value(self):
        return apart.inner.deepest.bottom(1)


def outer(scale):
    return lambda run: [{"accuracy": scale * step(run)}]


CLOSED, BOUND, METHOD = outer(2), partial(fit, more=unused), Loop().again
OBJECT = partial(unused, held=Held())
""",
    "nets/__init__.py": "from .wide import Wide\nVERSION = 1\n",
    "nets/wide.py": "from . import blocks as b\nclass Wide:\n    def go(self):\n        return b.depth(1)\n",
    "nets/blocks.py": "from nets import late\ndef depth(x):\n    return 3\ndef width(x):\n    return 4\n",
    "nets/late.py": "import nets, loops\ndef level(mode):\n    return loops.RATE\ndef power(x):\n    return x**2\n",
    "nets/more.py": "def everything(run):\n    return run.settings\n",
    "apart/inner/deepest.py": "def bottom(x):\n    return 7\n",  # packages without a file
}
NAMES = ("fit", "CLOSED", "BOUND", "METHOD", "OBJECT", "unused", "Base")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A file's module after a change of one of them, as a new process has it, in a new folder."""
    folders = iter(range(100))

    def of(file="loops.py", old="", new=""):
        folder = tmp_path / str(next(folders))
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert name != file or not old or text.count(old) == 1
            path.write_text(text.replace(old, new) if name == file and old else text)
        monkeypatch.syspath_prepend(folder)
        forget()
        return import_module("loops")

    yield of
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] in ("loops", "nets", "apart")]:
        del sys.modules[name]


def texts(module):
    return {name: text_of(getattr(module, name)) for name in NAMES} | {"Loop": text_of(module.Loop())}


CHANGES = {
    "a function that is called": ("loops.py", "step(x - RATE)", "step(x + RATE)", "fit CLOSED BOUND"),
    "a number at the top level": ("loops.py", "RATE = 0.1", "RATE = 0.2", "fit CLOSED BOUND OBJECT unused"),
    "a dict at the top level": ("loops.py", "[32]", "[33]", "fit BOUND"),
    "an item that is set": ("loops.py", "[64]", "[65]", "fit BOUND"),
    "what a decorator registers": ("loops.py", "return 11", "return 12", "fit BOUND"),
    "a variable that is set under a condition": ("loops.py", '"slow"', '"fast"', "fit BOUND"),
    "what a partial is given": ("loops.py", "RATE + 1", "RATE + 2", "BOUND OBJECT unused"),
    "a function of a module's module": ("nets/blocks.py", "return 3", "return 5", "fit CLOSED BOUND METHOD Base Loop"),
    "a module that is imported in the function": ("nets/late.py", "loops.RATE", "0.1", "fit BOUND"),
    "one that is imported if another is not": ("nets/late.py", "x**2", "x**3", "fit BOUND"),
    "a class that is imported by another name": ("nets/wide.py", "b.depth(1)", "b.depth(2)", "METHOD Base Loop"),
    "a base class": ("loops.py", "return Widest()", "return Widest", "METHOD Base Loop"),
    "what is imported by a star": ("nets/more.py", "run.settings", "run.seed", "METHOD Loop"),
    "a module far down, of what is held": ("apart/inner/deepest.py", "return 7", "return 8", "OBJECT"),
    "a function that nothing calls": ("nets/blocks.py", "return 4", "return 5", ""),
    "a variable that nothing names": ("nets/__init__.py", "VERSION = 1", "VERSION = 2", ""),
    "a comment, and an empty line": ("nets/blocks.py", "    return 3", "    # three\n\n    return 3", ""),
    "nothing": ("loops.py", "", "", ""),
}


@pytest.mark.parametrize(("file", "old", "new", "changed"), CHANGES.values(), ids=CHANGES)
def test_a_function_is_known_by_what_it_calls(made, file, old, new, changed):
    before, after = texts(made()), texts(made(file, old, new))
    assert {name for name in before if before[name] != after[name]} == {*changed.split()}


def test_what_is_imported_already_does_not_matter(made):
    module = made()
    before = texts(module)
    for _ in module.fit(type("Run", (), {"seed": 0})):
        pass
    import_module("apart.inner.deepest"), import_module("nets.late")
    assert texts(module) == before


def test_a_process_that_lacks_the_files_knows_what_the_study_knew(tmp_path, monkeypatch):
    """As a worker of `--jobs` or of a cluster does: what travels is the functions, not their files."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "alone.py"
    path.write_text("""
from torchvision.transforms import v2

SCALE = 2

def scaled(*numbers):
    return SCALE * numbers[0].mean()

class Darker(v2.Transform):
    def transform(self, image, parameters):
        return image / SCALE
""")
    alone = import_module("alone")
    rows = {"a": Row("resnet18", augmentation=alone.Darker()), "b": Row(partial(alone.scaled, 3))}
    study = Study("own", data="x", rows=rows, recipe=Recipe(loss=alone.scaled), metrics={"own": alone.scaled})

    def known(study):
        return [*(row.settings() for row in study.rows.values()), study.metrics["own"].source]

    before = known(study)
    assert all("SCALE = 2" in text for text in (study.rows["b"].source, study.metrics["own"].source))
    cloudpickle.register_pickle_by_value(alone)
    packed = cloudpickle.dumps(study)
    cloudpickle.unregister_pickle_by_value(alone)
    del sys.modules["alone"]
    path.unlink()
    linecache.clearcache()
    assert known(pickle.loads(packed)) == before


def test_two_files_of_one_name_are_two(tmp_path, monkeypatch):
    found = []
    for number in (1, 2):
        path = tmp_path / str(number) / "twice.py"
        path.parent.mkdir()
        path.write_text(f"def helper():\n    return {number}\ndef fit():\n    return helper()\n")
        monkeypatch.syspath_prepend(path.parent)
        sys.modules.pop("twice", None)
        found.append(import_module("twice").fit)
    assert ["return 1" in text_of(f) for f in found] == [True, False]
    del sys.modules["twice"]


def test_what_is_installed_or_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    for function in (statistics.mean, torchvision.models.ResNet, homework.studies, math.sqrt, np.add):
        assert called_by(function) == ""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "whole.py").write_text("def f():\n    import broken, absent, absent.more\n    return broken.f\n")
    assert text_of(import_module("whole").f).count("def f()") == 2  # its own text, and as it names an `f`
    monkeypatch.setitem(sys.modules, "by_hand", type(sys)("by_hand"))
    exec("def g(): return by_hand.x", made := {"__name__": "by_hand", "__file__": 3, "__package__": 4})
    assert called_by(made["g"]) == ""


def test_long_chains_and_deep_sums_are_read_and_modules_are_looked_for_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    chain = "".join(f"def f{i}():\n    return f{i + 1}()\n" for i in range(2000))
    (tmp_path / "deep.py").write_text(f"import torch, scipy, numpy\n{chain}f2000 = {' + '.join(['1'] * 900)}\n")
    deep = import_module("deep")
    assert "f2000 = 1 + 1" in text_of(deep.f1)
    before = called._find.cache_info().misses
    Study("own", data="x", rows={f"r{i}": Row(partial(deep.f1990, i)) for i in range(200)})
    assert called._find.cache_info().misses - before <= 3  # the modules that the file imports, once for all rows
