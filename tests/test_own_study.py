"""A user's own study: sessions that train it, and its way to other processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial

import cloudpickle
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from cvhw4 import InputError, Row
from cvhw4.executors.base import Executor, check_travels, own_modules
from cvhw4.records.store import Store
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.studies import insects, pictures, streets
from tests.helpers.tiny import QUICK

pytest_plugins = ["tests.helpers.sessions"]


FILE = """
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from cvhw4 import Study, Claim, Recipe, Row

class Small(nn.Module):
    def __init__(self, classes, width=8):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, width, 3, stride=2), nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x).relu().mean((2, 3)))

short = Recipe(size=32, batch=6, epochs=2)
insects = Study(
    "insects", data="photos", recipe=short,
    rows={"scratch": Row("resnet18", start="random"), "other": Row(partial(Small, width=4))},
    metrics={"balanced": balanced_accuracy_score},
    claims=[Claim(better="other", worse="scratch", metric="balanced")],
)
pytestmark = pytest.mark.study(insects)

def test_row(train, row, seed):
    assert train(row, seed).best("balanced") >= 0

def test_claim(judged, claim):
    assert judged(claim).claim is claim
"""
SCENES = """
import numpy as np
import pytest
from torch import nn
from cvhw4 import CAMVID, Scenes, Study, Recipe, Row

class Maps(nn.Conv2d):
    def forward(self, x):
        return {"out": super().forward(x)}

def build(classes):
    return Maps(3, classes, 1)

def mean_recall(confusion):
    there = confusion.sum(1) > 0
    return (confusion.diagonal()[there] / confusion.sum(1)[there]).mean()

scenes = Study(
    "scenes", data=Scenes("streets", **CAMVID), recipe=Recipe(size=32, batch=2, epochs=1),
    rows={"plain": Row("fcn8s/resnet10t", start="random", skips=False), "own": Row(build)},
    metrics={"recall": mean_recall},
)

@pytest.mark.study(scenes)
def test_scenes(train, row, seed):
    record = train(row, seed)
    assert record.task == "segmentation" and 0 <= record.last("recall") <= 1
"""
HOMEWORK = """
import pytest
from cvhw4.homework.options import homework

@pytest.mark.study(homework, rows=["q1_2-finetune"])
def test_portraits(train, row, seed):
    train(row, seed)
"""


@pytest.fixture
def own(pytester, monkeypatch):
    """A repository of the user's own: `own(*args)` runs pytest there."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CVHW4_CACHE", str(pytester.path / "cache"))
    pytester.makeconftest('pytest_plugins = ["cvhw4.plugin", "cvhw4.homework.options"]')
    pytester.makepyfile(test_insects=FILE)
    pictures(pytester.path / "photos")
    threads = torch.get_num_threads()

    def run(*args, subprocess=False):
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        result = runner("-p", "no:cacheprovider", "--device", "cpu", "--threads", "1", *args)
        torch.set_num_threads(threads)
        return result

    return run


@pytest.mark.integration
def test_the_example_of_binary_masks_trains_and_its_pages_have_its_classes(own, pytester):
    """As it stands, but for the seeds; from an installation to the verdict it is 20 lines of the user's own at most."""
    for name in ("test_cells.py", "make_cells.py", "unet.py"):
        shutil.copy(ROOT / "examples" / "binary-masks" / name, pytester.path)
    assert sum(line.strip() != "" for line in (pytester.path / "test_cells.py").read_text().splitlines()) < 20
    subprocess.run([sys.executable, "make_cells.py"], cwd=pytester.path, check=True)
    result = own("test_cells.py", "--seeds", "1")
    result.assert_outcomes(passed=3)
    assert re.search(r"attention_above_plain-set_miou .* undecided", result.stdout.str())  # one seed
    store = Store(pytester.path / "results", "cells")
    runs = {r.row: r for r in store.load()}
    networks = {name: r.settings["network"] for name, r in runs.items()}
    assert networks == {"attention": "UNet(attention=True)", "plain": "UNet"}
    assert runs["attention"].parameters > runs["plain"].parameters
    for r in runs.values():
        assert [r.data.name, *r.data.classes] == ["scenes", "background", "cell"]
        assert store.images(r).counts.shape == (8, 8, 2, 3, 2)
    report = (pytester.path / "results" / "cells" / "report.md").read_text()
    assert "IoU by class, 2 classes" in report and re.search(r"^\| cell +\|", report, re.MULTILINE)
    assert "segmented by attention and plain. Pixels right only in attention, right only in plain" in report
    assert re.search(r"\| attention .*\| 58,692 +\| 58,692 +\|", report)
    assert not re.search("Sky|Building|11 classes|skips", report)


@pytest.mark.integration
def test_studies_of_both_tasks_and_the_homework_train_in_one_session(own, pytester):
    pytester.makepyfile(test_scenes=SCENES, test_homework=HOMEWORK)
    streets(pytester.path / "streets")
    result = own("--seeds", "1", "-p", "tests.helpers.tiny", "--junit-xml", "runs.xml")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=6)
    screen = result.stdout.str()
    for title in ("ablation study insects", "ablation study scenes", "ablation study quick"):
        assert title in screen
    assert re.search(r"other +balanced +\d\.\d+ +\d\.\d+ +1 +\d+ s\n", screen)
    assert "other_above_scratch-balanced" in screen

    results = pytester.path / "results"
    runs = {name: Store(results, name).load() for name in ("insects", "scenes", "quick")}
    assert {name: len(found) for name, found in runs.items()} == {"insects": 2, "scenes": 2, "quick": 1}
    for run in runs["insects"]:
        images = Store(results, "insects").images(run)
        assert run.data.classes == ["ant", "bee", "wasp"] and run.settings["classes"] == 3
        assert [e.figures["balanced"] for e in run.epochs] == [
            balanced_accuracy_score(images.labels, predicted) for predicted in images.predicted
        ]
        assert [e.figures["accuracy"] for e in run.epochs] == images.right.mean(1).tolist()
    report = (results / "insects" / "report.md").read_text()
    assert "### balanced" in report and "other beats scratch in balanced" in report
    assert "### recall" in (results / "scenes" / "report.md").read_text()
    assert "The 2019 report's experiments" in (results / "quick" / "report.md").read_text()

    cases = ET.parse(pytester.path / "runs.xml").getroot().iter("testcase")
    found = {c.get("name"): {p.get("name"): p.get("value") for p in c.iter("property")} for c in cases}
    told = found["test_row[other-seed0]"]
    (run,) = (r for r in runs["insects"] if r.row == "other")
    assert float(told["best balanced"]) == run.best("balanced") and float(told["last accuracy"]) == run.last("accuracy")
    assert {"train_seconds", "images_per_second", "device", "seed"} <= told.keys()
    assert not any(str(pytester.path) in value for of_case in found.values() for value in of_case.values())

    again = own("--seeds", "1", "--reuse", "test_insects.py")
    again.assert_outcomes(passed=3)
    assert again.stdout.str().count("reused") == 2

    pytester.makepyfile(test_insects=FILE.replace("relu()", "sigmoid()"))
    changed = own("--seeds", "1", "--reuse", "test_insects.py")
    assert changed.ret == 0 and changed.stdout.str().count("reused") == 1  # the callable's text is another
    found = {run.fingerprint: run for run in Store(results, "insects").load() if run.row == "other"}
    assert len({run.settings["network_source"] for run in found.values()}) == 2
    told = {(run.settings["network"], run.settings["start"], run.weights.origin) for run in found.values()}
    assert told == {("Small(width=4)", "as built", "as built")}
    assert "Small(width=4)" in (results / "insects" / "report.md").read_text()


@pytest.mark.integration
def test_a_keyword_that_selects_nothing_is_answered_with_the_rows_that_tests_asked_for(own, pytester):
    pytester.makepyfile(test_others="def test_other():\n    pass\n")
    told = "-k typo selects nothing. Rows of study insects: scratch, other."
    assert told in own("-k", "typo").stdout.str()
    assert told in own("-k", "typo", "-n", "1", subprocess=True).stdout.str()
    others = own("-k", "typo", "test_others.py")
    assert others.ret == pytest.ExitCode.NO_TESTS_COLLECTED and "selects nothing" not in others.stdout.str()
    pytester.makepyfile(test_homework=HOMEWORK)
    lines = own("-k", "typo", "test_homework.py").stdout.lines
    place = next(i for i, line in enumerate(lines) if line.startswith("-k typo selects nothing. "))
    end = next(i for i, line in enumerate(lines) if line.endswith("."))
    told = " ".join(line.strip() for line in lines[place : end + 1])
    others = ", ".join(name for name in QUICK.rows if name != "q1_2-finetune")
    assert told.startswith(
        f"-k typo selects nothing. Rows of study quick: q1_2-finetune. No test collected here trains {others}: "
    )
    assert all(len(line) <= 80 for line in lines[place : end + 1])


def test_a_test_that_trains_twice_is_told_to_be_two(own, pytester):
    twice = FILE.replace("    assert train(", "    train(row, seed)\n    assert train(")
    pytester.makepyfile(test_insects=twice)
    result = own("-k", "other and seed0")
    result.assert_outcomes(failed=1)
    told = " ".join(result.stdout.str().split())
    assert "test_row[other-seed0]: calls train twice. Fix: give each run a test of its own" in told


MARK = "study(insects)"
NOTHING_LEFT = 'Control(name="few", row="scratch", words="", corrupts="smaller training set", strengths=(0.99,))'
LARGE = "augmentation=__import__('torchvision.transforms.v2', fromlist=['v2']).RandomCrop(40, pad_if_needed=True)"
UNUSABLE = [  # what stands in the file, what stands there instead, and the error
    (
        "    claims=[",
        f"    controls=[__import__('cvhw4').{NOTHING_LEFT}],\n    claims=[",
        "row few, photos: leaves out 0.99 of 12 training images, which is all. Fix: give a smaller share",
    ),
    (
        "    claims=[",
        f"    controls=[__import__('cvhw4').Control(name='cut', row='scratch', words='', changes=dict({LARGE}))],\n"
        "    claims=[",
        "study insects, row cut, augmentation: gives [3, 40, 40]",
    ),
    ('start="random"', 'start="nothing"', "study insects, row scratch: has start='nothing'"),
    (MARK, "study(insects, rows=['nobody'])", "names the row nobody. Fix: choose from scratch, other"),
    (
        MARK,
        "study(insects, rows={'other': {'start': 'imagenet'}})",
        "says start='imagenet' of other, which has 'as built'",
    ),
    (MARK, "study(insects, rows={'other': {'lr': 0.1}})", "says lr=0.1 of other, which has 0.0005. Fix: correct"),
    (MARK, "study(insects, row='other')", "is marked with row=. Fix: give rows= or group="),
    (
        MARK,
        "study(insects, group='extra')",
        "trains group='extra', in which the study has no rows. Fix: choose one of '', 'control'",
    ),
    (MARK, "study(insects, rows='other')", "has rows='other'. Fix: name them, as rows="),
    (MARK, "study('insects')", "expects a cvhw4.Study"),
]


def check_unusable(result, told):
    errors = [line for line in (result.outlines + result.errlines) if line.startswith("ERROR: ")]
    assert result.ret == 4 and len(errors) == 1 and told in errors[0], result.stdout.str()
    assert not os.path.exists("results") and "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(("here", "instead", "told"), UNUSABLE)
def test_what_cannot_be_used_is_one_line_before_anything_is_trained(own, pytester, here, instead, told):
    pytester.makepyfile(test_insects=FILE.replace(here, instead))
    check_unusable(own("--seeds", "1"), told)


def test_two_studies_of_one_name_and_a_hook_that_makes_no_runner_are_one_line_each(own, pytester):
    more = pytester.makepyfile(test_more=FILE)
    check_unusable(own("--seeds", "1"), "study insects: is the name of two studies, of which test_more.py tests one")
    more.unlink()
    with (pytester.path / "conftest.py").open("a") as conftest:
        conftest.write("\ndef pytest_cvhw4_make_runner():\n    return 3\n")
    told = "pytest_cvhw4_make_runner: returns 3. Fix: return a cvhw4.runner.Runner, or None"
    check_unusable(own("--seeds", "1"), told)


ORDINARY = """
import pytest
from cvhw4 import Row, Study

mine = Study("mine", data="photos", rows={"a": Row("resnet18")})

@pytest.fixture
def claim():
    return "a claim of the user's"

@pytest.mark.parametrize("row", ["a", "b"])
def test_of_names(row):
    assert row in "ab"

@pytest.mark.parametrize(("row", "seed"), [("a", 0)])
def test_of_pairs(row, seed):
    assert (row, seed) == ("a", 0)

def test_of_a_fixture(claim):
    assert claim == "a claim of the user's"

@pytest.mark.parametrize("control", [3])
def test_of_a_number(control):
    assert control == 3

@pytest.mark.study(mine)
@pytest.mark.parametrize("claim", [1, 2])
def test_with_a_fixture_of_ours(judged, claim):
    assert claim in (1, 2)

@pytest.mark.study(mine)
@pytest.mark.parametrize("seed", [7])
@pytest.mark.parametrize("row", ["mine"])
def test_marked(row, seed):
    assert (row, seed) == ("mine", 7)
"""


SAID = """
import pytest
from cvhw4 import Recipe, Row, Scenes, Study

def loss(logits, targets):
    return logits.sum()

THINGS = {"thing": ["class 1", "class 2"]}
recipe = Recipe(schedule="multistep", lr_step=(3, 5), lr=1e-4, loss=loss)
few = Row("fcn8s/resnet18", merge=THINGS, recipe=recipe)
scenes = Study("scenes", data=Scenes("photos", classes=3), rows={"few": few})
said = {"merge": THINGS, "flip": True, "lr": 1e-4, "lr_step": [3, 5], "loss": loss}

@pytest.mark.study(scenes, rows={"few": said})
def test_said(train, row, seed):
    pass
"""


def test_tests_of_the_users_own_keep_order_and_outcome_and_may_say_what_rows_have(own, pytester):
    pytester.makepyfile(test_ordinary=ORDINARY, test_before="def test_last(): pass")
    result = own("-v", "test_ordinary.py", "test_before.py")
    result.assert_outcomes(passed=9)
    assert result.ret == 0 and "test_last" in [line for line in result.outlines if "PASSED" in line][-1]  # not sorted
    lone = own("--collect-only", "-q", pytester.makepyfile(test_lone="def test_it(claim, control): pass"))
    assert "test_lone.py::test_it" in lone.outlines
    said = own("--collect-only", "-q", pytester.makepyfile(test_said=SAID))
    assert "test_said.py::test_said[few-seed0]" in said.outlines, said.stdout.str()


@pytest.mark.integration
def test_workers_tell_of_data_that_are_odd_or_cannot_be_used(own, pytester):
    (pytester.path / "photos").rename(pytester.path / "pictures")
    result = own("-n", "1", "--seeds", "1", subprocess=True)
    assert result.ret == 4 and "photos: does not exist" in result.stdout.str()
    assert not (pytester.path / "results").exists()
    photos = (pytester.path / "pictures").rename(pytester.path / "photos")
    shutil.copy(photos / "train" / "ant" / "0.png", photos / "val" / "ant" / "0.png")
    result = own("-n", "1", "--seeds", "1", "-k", "other-seed0", subprocess=True)
    assert result.ret == 0 and "are training pictures too" in result.stdout.str()


class Kept(Executor):
    """Begins nothing, and keeps what another process would be sent."""

    close = _told = _wait = None

    def _begin(self, run):
        self.sent = self._pickle.dumps(Runner(study=run.study))


def test_a_study_reaches_a_process_that_cannot_import_its_files(tmp_path, monkeypatch):
    (tmp_path / "shares").mkdir()
    (tmp_path / "shares" / "mine.py").write_text(
        "from functools import partial\nimport counted\nfrom cvhw4 import Row, Study\n"
        "from shared.parts import part\n"
        "def share(of, labels, predicted):\n    return part(counted.right(labels, predicted), of)\n"
        "def build(classes):\n    return part(classes, 2)\n"
        "rows = {'r': Row('resnet18'), 'own': Row(partial(build))}\n"
        "study = Study('mine', data='p', rows=rows, metrics={'half': partial(share, 2)})\n"
    )
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "parts.py").write_text("def part(whole, of):\n    return whole / of\n")
    (tmp_path / "counted.py").write_text("def right(labels, predicted):\n    return (labels == predicted).mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "shares")
    from mine import study

    assert own_modules(insects(metrics={"b": balanced_accuracy_score}), None) == []
    monkeypatch.chdir(ROOT)
    assert not {"cvhw4", "torch"} & {module.__name__.partition(".")[0] for module in own_modules(study, ROOT)}
    kept = Kept(tmp_path, cloudpickle)
    kept.submit([(study, study.rows["r"], 0)])
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "runner").write_bytes(kept.sent)
    code = (
        "import json, pickle, numpy as np\nstudy = pickle.load(open('runner', 'rb')).study\n"
        "half = study.metrics['half'].function(np.array([0, 1]), np.array([0, 0]))\n"
        "print(json.dumps([half, str(study.sources['classification'].folder), study.rows['r'].name]))\n"
        "own = study.rows['own']\nassert own.network(6) == 3.0 and 'def build' in own.source\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", env=env, capture_output=True, text=True)
    assert json.loads(told.stdout) == [0.25, str(tmp_path / "shares" / "p"), "r"], told.stderr


def test_a_network_that_cannot_be_sent_to_another_process_is_one_error(tmp_path):
    with (tmp_path / "file").open("w") as file:
        study = insects(rows={"a": Row(partial(print, file=file)), "b": Row("resnet18")})
        told = "study insects, row a: has a network or a loss that cannot be sent .*Fix: write"
        with pytest.raises(InputError, match=told):
            check_travels(study, cloudpickle.dumps)
    check_travels(insects(), cloudpickle.dumps)
