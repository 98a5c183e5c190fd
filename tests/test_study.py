"""What a study is made of, what is refused, where studies are found, and how a metric is known."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import cvhw4
from cvhw4 import (
    Claim,
    Control,
    Corruption,
    FromOptions,
    Generated,
    InputError,
    Metric,
    NotGiven,
    Pictures,
    Published,
    Recipe,
    Row,
    Scenes,
)
from cvhw4.discovery import default_studies, find_study
from tests.helpers import ROOT
from tests.helpers.studies import ROWS, always_nan, insects, pictures, right


@pytest.mark.parametrize("name", cvhw4.__all__)
def test_what_is_exported_is_there_and_documented(name):
    found = getattr(cvhw4, name)
    assert not isinstance(found, type) or (found.__doc__ and not found.__doc__.startswith(f"{name}("))


# What a study is made of


def test_a_table_becomes_rows_claims_and_folders():
    short = Recipe(size=64, epochs=3)
    study = insects(
        rows=ROWS | {"big": Row("resnet50", recipe=replace(short, size=96), trained="last layer")},
        recipe=short,
        claims=[Claim(better="finetune", worse="scratch", metric="accuracy")],
        title="Insects of the garden",
    )
    assert [(r.name, r.study) for r in study.rows.values()] == [(n, "insects") for n in ("scratch", "finetune", "big")]
    assert [row.recipe.size for row in study.rows.values()] == [64, 64, 96]
    assert {row.task.name for row in study.rows.values()} == {"classification"}
    assert study.rows["scratch"].augmentation == "random-resized crop"
    (claim,) = study.claims
    assert (claim.id, claim.sentence) == ("finetune_above_scratch-accuracy", "finetune beats scratch in accuracy")
    (source,) = study.sources.values()  # the folder beside the file that makes the study
    assert source == Pictures(Path(__file__).parent / "nowhere", resize=128, classes=2)
    assert study.title == "Insects of the garden" and insects().title == "insects"
    assert insects(data="~/photos").sources["classification"].folder == Path.home() / "photos"


def test_scenes_take_a_backbone_skips_and_classes():
    rows = {"plain": Row("fcn8s/resnet18", skips=False), "fused": Row("fcn8s/resnet18", merge={"other": ["b", "void"]})}
    study = insects(rows=rows, recipe=Recipe(size=96), resize=(120, 160), classes=["a", "b", "c"])
    assert [(r.skips, r.classes) for r in study.of("segmentation")] == [(False, 3), (True, 3)]
    assert study.rows["fused"].merge == {"other": ("b", "void")}
    assert "merge" not in study.rows["plain"].settings()
    assert study.rows["fused"].settings()["merge"] == {"other": ["b", "void"]}
    source = study.sources["segmentation"]
    assert (source.resize, source.names, source.numbers) == ((120, 160), ("a", "b", "c"), {0: 0, 1: 1, 2: 2})
    assert study.rows["plain"].augmentation == "random crop"


def test_rows_merge_as_their_data_unless_they_say_otherwise():
    data = Scenes("a", classes=4, merge={"x": ["class 1", "class 2"]})
    rows = {"as the data": None, "none": {}, "own": {"y": ["class 0", "class 1", "class 2"]}}
    study = insects(data=data, rows={k.replace(" ", "_"): Row("fcn8s/resnet18", merge=m) for k, m in rows.items()})
    assert [row.classes for row in study.rows.values()] == [3, 4, 2]
    generated = insects(data=Generated("scenes"), rows={"a": Row("fcn8s/resnet18", merge={"x": ["Sky", "Tree"]})})
    assert generated.rows["a"].classes == 10


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({}, "does not say which classes there are. Fix: name them: classes="),
        ({"classes": 1}, "has 1 classes. Fix: give 2 to 255; for one thing and all else name both"),
        ({"classes": 256}, "has too many classes. Fix: give 2 to 255"),
        ({"classes": "road"}, "has classes='road'"),
        ({"classes": ["a", "a"]}, "has the class 'a' twice"),
        ({"classes": ["a", "void"]}, "has the class 'void'. Fix: void is how pixels of no class are called"),
        ({"classes": ["a", "b"], "ignore": 1}, "has the value 1 for ignore and for b"),
        ({"classes": 2, "ignore": -1}, "has ignore=-1. Fix: give whole numbers from 0 to 65535"),
        ({"values": {"a": 0, "b": 0}}, "has the value 0 for a and for b"),
        ({"values": {"a": 0, "b": 255}, "ignore": 255}, "has the value 255 for ignore and for b"),
        ({"values": {"a": 0, "b": 1.0}}, "has values=1.0"),
        ({"values": {"a": 0, "b": []}}, "has values with a class of none"),
        ({"values": [0, 255]}, r"has values=\[0, 255\]. Fix: write it as values={class"),
        ({"classes": ["a", "b"], "values": {"a": 0, "c": 1}}, "has values for 'c'. Fix: choose among a, b"),
        ({"classes": ["a", "b"], "values": {"a": 0}}, "has no values for b"),
        ({"classes": 2, "colours": {"a": (0, 0, 0)}}, "has colours for 'a'"),
        ({"colours": {"a": (0, 0, 0), "b": (0, 0, 0)}}, r"has the colour \(0, 0, 0\) for a and for b"),
        ({"colours": {"a": (0, 0, 0), "b": (0, 0, 256)}}, r"has the colour \(0, 0, 256\) for b"),
        ({"colours": {"a": (0, 0, 0), "b": "#fff"}}, "has the colour '#fff' for b"),
        ({"classes": 2, "merge": {"x": ["a"]}}, "merges 'a', which is not one of the classes. Fix: write it as merge="),
        ({"classes": 3, "merge": {"x": "class 0"}}, "has merge="),
    ],
)
def test_scenes_that_say_two_things_or_nothing_are_refused(told, problem):
    with pytest.raises(InputError, match=rf"^Scenes\(photos\): {problem}"):
        Scenes("photos", **told)
    with pytest.raises(InputError, match="does not name a folder"):
        Scenes(3, classes=2)


def test_the_classes_are_those_of_the_folder_unless_said(tmp_path):
    folder = pictures(tmp_path / "photos")
    (folder / "train" / ".cache").mkdir()
    assert {r.classes for r in insects(data=folder).rows.values()} == {3}
    assert {r.classes for r in insects(data=folder, classes=5).rows.values()} == {5}


def test_a_study_of_both_tasks_names_the_data_of_each():
    both = insects(
        rows=ROWS | {"street": Row("fcn8s/resnet18")}, data=[Pictures("a"), Scenes("b", classes=2, resize=(300, 400))]
    )
    assert {task: source.folder.name for task, source in both.sources.items()} == {
        "classification": "a",
        "segmentation": "b",
    }
    assert [task.name for task in both.tasks] == ["classification", "segmentation"]
    with pytest.raises(InputError, match="has no data for its rows of segmentation"):
        insects(rows=ROWS | {"street": Row("fcn8s/resnet18")}, data=[Pictures("a")])


def power(labels, predicted, by=1):
    return right(labels, predicted) ** by


class Built:
    """As a torch.nn.Module is: it can be called, and has a state."""

    def __call__(self, x):
        return x

    def state_dict(self):
        return {}


STREET = {"rows": {"a": Row("fcn8s/resnet18")}, "classes": 2}  # a study of scenes
REFUSED = {
    "a name that is no folder's": ({"name": "a/b"}, "a/b: is not a valid study name"),
    "no rows": ({"rows": {}}, "has no rows"),
    "a row that is none": ({"rows": {"a": {"network": "x"}}}, "row a: is {'network': 'x'}"),
    "a row's name": ({"rows": {"a b": ROWS["scratch"]}}, "a b: is not a valid row name"),
    "a start": ({"rows": {"a": Row("resnet18", start="imagenett")}}, "row a: has start='imagenett'. Fix: choose"),
    "an augmentation": ({"rows": {"a": Row("resnet18", augmentation="random crop")}}, "has augmentation="),
    "skips of a classifier": ({"rows": {"a": Row("resnet18", skips=True)}}, "has skips, classes or merge"),
    "both tasks": (
        {"rows": ROWS | {"a": Row("fcn8s/resnet18")}},
        r"networks segment \(a\) and others \(",
    ),
    "other classes of scenes": (
        STREET | {"rows": {"a": Row("fcn8s/resnet18", classes=5)}},
        "has classes=5, and its data 2",
    ),
    "scenes nobody named": ({"rows": STREET["rows"]}, r"nowhere.: does not say which classes there are"),
    "a merge of no classes": (
        STREET | {"rows": {"a": Row("fcn8s/resnet18", merge={"x": ["car"]})}},
        "row a: merges 'car', which is not one",
    ),
    "a merge of all": (
        STREET | {"rows": {"a": Row("fcn8s/resnet18", merge={"x": ["class 0", "class 1"]})}},
        "leaves no two classes",
    ),
    "classes beside data that have them": (STREET | {"data": Scenes("a", classes=2)}, "has classes=2 beside its data"),
    "scenes nobody gave and nobody knows": (
        {"rows": STREET["rows"], "data": NotGiven("segmentation", "give them")},
        "does not say which classes its",
    ),
    "a swap of no classes": (
        STREET | {"rows": {"a": Row("fcn8s/resnet18", corruption=Corruption("classes swapped", 1, ("Road", "Tree")))}},
        "corrupts Road, Tree, which are not all classes",
    ),
    "a size for FCN8s": (STREET | {"recipe": Recipe(size=100)}, "trains at 100 px"),
    "one class": ({"classes": 1}, "has classes=1. Fix: give 2 to 32767"),
    "classes in words": ({"classes": "3"}, "has classes='3'"),
    "a name that is none": ({"name": 3}, "3: is not a valid study name"),
    "a list of rows": ({"rows": [ROWS["scratch"]]}, r"study insects: has rows=\[Row"),
    "no network": ({"rows": {"a": Row(None)}}, "study insects, row a: has network=None"),
    "a network that is built": (
        {"rows": {"a": Row(Built())}},
        r"row a: has a network that is built \(Built\). Fix: give",
    ),
    "a callable's start": ({"rows": {"a": Row(power, start="random")}}, "start='random', which its callable decides"),
    "a version of a name": ({"rows": {"a": Row("resnet18", version="2")}}, "version='2', which callables have"),
    "skips of another": (
        {"rows": {"a": Row(power, skips=True, for_task="segmentation")}, "data": Scenes("a", classes=2)},
        "has skips, which are FCN8s's",
    ),
    "a task": ({"rows": {"a": Row(power, for_task="detection")}}, "has for_task='detection'"),
    "a callable for one of two tasks": (
        {"rows": {"a": Row(power)}, "data": [Pictures("a"), Scenes("b", classes=2)]},
        "row a: has a callable in a study with data of both tasks. Fix: say for_task=",
    ),
    "skips in words": (
        STREET | {"rows": {"a": Row("fcn8s/resnet18", skips="no")}},
        "has skips='no'. Fix: choose one",
    ),
    "no classes of scenes": (STREET | {"rows": {"a": Row("fcn8s/resnet18", classes=0)}}, "has classes=0"),
    "a row's recipe as a dict": ({"rows": {"a": Row("resnet18", recipe={})}}, "row a: has the recipe {}"),
    "no recipe": ({"recipe": None}, "study insects, row scratch: has the recipe None"),
    "no data": ({"data": None}, "study insects: has data=None. Fix: name a folder"),
    "a title that is none": ({"title": 3}, "has title=3"),
    "an epoch that is neither": ({"epoch": "first"}, "study insects: has epoch='first'. Fix: choose one of last, best"),
    "a list of metrics": ({"metrics": [right]}, r"has metrics=\[<function right"),
    "a resize of three sides": (STREET | {"resize": (99, 99, 99)}, r"resize=\(99, 99, 99"),
    "a resize of scenes": ({"resize": (100, 200)}, r"has resize=\(100, 200\). Fix: give the shorter side"),
    "a resize of pictures": (STREET | {"resize": 100}, "give .height, width."),
    "a metric's name": ({"metrics": {"a b": right}}, "a b: is not a valid metric name"),
    "a metric there is": ({"metrics": {"accuracy": right}}, "metric accuracy: shadows a built-in metric"),
    "a metric that is none": ({"metrics": {"mine": 3}}, "metric mine: is not a function"),
    "a claim's row": (
        {"claims": [Claim(better="fine", metric="accuracy")]},
        "has row='fine'. Fix: choose one",
    ),
    "a claim's metric": (
        {"claims": [Claim(better="scratch", metric="miou")]},
        "has metric='miou'. Fix: choose",
    ),
    "a claim that is none": ({"claims": ["a > b"]}, "has the claim 'a > b'"),
    **{
        f"a control: {name}": (
            {"controls": [Control(**({"name": "c", "row": "scratch", "words": ""} | settings))]},
            told,
        )
        for name, (settings, told) in {
            "a setting": ({"changes": {"starts": "random"}}, "control c: has changes='starts'. Fix: choose one of"),
            "classes": ({"changes": {"merge": {"a": ["b"]}}}, "has changes='merge'"),
            "another task": (
                {"changes": {"network": "fcn8s/resnet18"}},
                "has network='fcn8s/resnet18'. Fix: name one for",
            ),
            "a start": ({"changes": {"start": "imagenet1k"}}, r"row c \(a control\): has start='imagenet1k'. Fix: cho"),
            "a batch norm": ({"changes": {"batch_norm": "froze"}}, "has batch_norm='froze'"),
            "a recipe": ({"changes": {"recipe": {"lr": 1}}}, "control c: has the recipe {'lr': 1}"),
            "a kind": ({"corrupts": "label-noise"}, "has corrupts='label-noise'. Fix: choose one of label noise,"),
            "a task": ({"corrupts": "mask shift"}, "has mask shift, which is for segmentation. Fix: choose a row"),
            "a share": (
                {"corrupts": "label noise", "strengths": (0.1, 20)},
                "noise with a strength of 20. Fix: give the s",
            ),
            "nothing left": (
                {"corrupts": "smaller training set"},
                "a strength of 1.0. Fix: give the share that is left",
            ),
            "a word": ({"corrupts": "label noise", "strengths": ("a",)}, "with a strength of 'a'"),
            "two classes": ({"corrupts": "label noise", "classes": ("a", "b")}, r"has classes=\('a', 'b'\)"),
            "nothing": ({}, "control c: trains scratch as it is. Fix: give it corrupts="),
            "the start it has": ({"changes": {"start": "random"}}, "control c: trains scratch as it is"),
            "a row's name": (
                {"name": "finetune", "lr": True, "strengths": (3,)},
                "makes the row finetune, which there",
            ),
            "one strength twice": ({"lr": True, "strengths": (3, 3)}, "makes the row c_3, which there is already"),
            "a name that is none": ({"name": "c d"}, "c d: is not a valid control name"),
            "a place for another": ({"words": "{rate} times"}, "has words='{rate} times', which do not take 1.0"),
            "a number for strengths": ({"lr": True, "strengths": 3}, "has strengths=3. Fix: write them as"),
            "no strength": ({"lr": True, "strengths": ()}, r"has strengths=\(\)"),
            "a list of changes": ({"changes": ["start"]}, r"has changes=\['start'\]"),
            "a rate": ({"lr": True, "strengths": (0,)}, "multiplies the learning rate by 0. Fix: give a number above"),
        }.items()
    },
    "about in numbers": ({"about": 3}, "study insects: has about=3"),
    "bounds in numbers": ({"bounds": 3}, "has bounds=3. Fix: name a file"),
    "one control": ({"controls": Control(name="c", row="scratch", words="")}, "has controls=Control"),
    "controls by name": ({"controls": ["c"]}, "has the control 'c'. Fix: write it as Control"),
    "a section alone": ({"sections": right}, "has sections=<function right"),
    "tables in a list": ({"tables": ["main"]}, r"has tables=\['main'\]"),
    "labels in numbers": ({"labels": {"scratch": 3}}, "has labels={'scratch': 3}"),
    "a label of two rows": ({"labels": {"scratch": "finetune"}}, "two rows that tables call 'finetune'"),
    "epochs of no task": ({"also_after": {"classify": 2}}, "has also_after={'classify': 2}"),
    "no epochs": ({"also_after": {"classification": 0}}, "has also_after="),
    "images in words": ({"published_images": "400"}, "has published_images='400'"),
    "what is published, in a list": ({"published": ["scratch"]}, "has published="),
    "figures that are not Published": ({"published": {"scratch": {"accuracy": 0.5}}}, "published scratch: is {'acc"),
    "a published figure there is not": ({"published": {"scratch": Published({"top1": 0.5})}}, "has figure='top1'"),
    "percent that are published": (
        {"published": {"scratch": Published({"accuracy": 83.0})}},
        "published scratch: has accuracy=83, which lies between 0 and 1. Fix: write 0.83 for 83 %",
    ),
    "percent to be passed": (
        {"claims": [Claim(better="scratch", metric="accuracy", margin=89.5)]},
        "has margin=89.5 of accuracy, which lies between 0 and 1. Fix: write 0.83 for 83 %",
    ),
    "a figure below 0": ({"claims": [Claim(better="scratch", metric="accuracy", margin=-0.1)]}, "has margin=-0.1"),
    "a difference in percent": (
        {"claims": [Claim(better="scratch", worse="finetune", metric="accuracy", smallest=2)]},
        "has smallest=2 of accuracy",
    ),
    "a group in numbers": ({"rows": {"a": Row("resnet18", group=3)}}, "row a: has group=3. Fix: give a text"),
    "a metric's version in numbers": ({"metrics": {"mine": Metric(right, version=2)}}, "metric mine: has version=2"),
    "a corruption in words": ({"rows": {"a": Row("resnet18", corruption="noise")}}, "row a: has corruption='noise'"),
    "too much corruption": (
        {"rows": {"a": Row("resnet18", corruption=Corruption("label noise", 20))}},
        "row a: has label noise with a strength of 20. Fix: give the share of the images",
    ),
    "two folders of pictures": ({"data": [Pictures("a"), Pictures("b")]}, "has two sets of data for classification"),
    "a claim twice": ({"claims": [Claim(better="scratch", metric="accuracy")] * 2}, "-accuracy twice"),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_error(changes, told):
    with pytest.raises(InputError, match=told) as error:
        insects(**changes)
    assert "\n" not in str(error.value)


NO_CLAIMS = {
    "a margin that is NaN": ({"margin": float("nan")}, "claim with better='a': has margin=nan. Fix: give a number"),
    "a margin in words": ({"id": "mine", "margin": "0.1"}, "claim mine: has margin='0.1'. Fix: give a number"),
    "no better row": ({"better": None}, "has better=None. Fix: name a row"),
    "a list of rows": ({"better": ["a", "b"]}, r"has better=\['a', 'b'\]"),
    "three rows": ({"worse": ("a", "b", "c")}, r"has worse=\('a', 'b', 'c'\)"),
    "a row in place of its name": ({"worse": ROWS["scratch"]}, r"has worse=Row\("),
    "no metric": ({"metric": None}, "has metric=None. Fix: name a figure"),
    "a number for an id": ({"id": 3}, "claim 3: has id=3"),
    "a path for an id": ({"id": "a/b"}, "a/b: is not a valid claim name"),
    "a control in words": ({"control": "yes"}, "has control='yes'"),
    "a smallest difference below 0": ({"smallest": -0.01}, "has smallest=-0.01. Fix: give a number above 0, or leave"),
    "a smallest difference in words": ({"smallest": "1 %"}, "has smallest='1 %'"),
    "the row itself": ({"worse": "a"}, "claim with better='a': compares a row with itself"),
    "a row less itself": ({"better": ("a", "a"), "worse": "b"}, "compares a row with itself. Fix: name another row"),
    "a note that is no function": ({"note": "mind the gap"}, "has note='mind the gap'. Fix: give a function"),
}


OTHERS = {
    "pictures in no folder": (lambda: Pictures(3), "Pictures: has folder=3"),
    "a title in numbers": (lambda: Pictures("a", title=3), "Pictures: has title=3"),
    "a title of scenes": (lambda: Scenes("a", classes=2, title=3), r"Scenes\(a\): has title=3"),
    "pictures nobody draws": (lambda: Generated("faces"), "Generated: has kind='faces'. Fix: choose one of portraits"),
    "redrawn in words": (lambda: Generated("scenes", redraw="no"), "Generated: has redraw='no'"),
    "data for no task": (lambda: NotGiven("faces", "give --faces"), "NotGiven: has task='faces'"),
    "no hint": (lambda: NotGiven("segmentation", ""), "NotGiven: has hint=''. Fix: say how to name them"),
    "figures in words": (lambda: Published({"accuracy": "83 %"}), "Published: has figures="),
    "an epoch of no figure": (lambda: Published({"accuracy": 0.83}, {"miou": 3}), "Published: has epochs={'miou': 3}"),
    "a time in seconds": (lambda: Published(time=255), "Published: has time=255. Fix: write it as"),
    "a study nobody makes": (lambda: FromOptions("homework"), "FromOptions: has make='homework'"),
}


@pytest.mark.parametrize(("make", "told"), OTHERS.values(), ids=OTHERS)
def test_what_a_study_is_made_of_is_checked_when_it_is_made(make, told):
    with pytest.raises(InputError, match=f"^{told}"):
        make()


@pytest.mark.parametrize(("changes", "told"), NO_CLAIMS.values(), ids=NO_CLAIMS)
def test_what_is_no_claim_is_one_error(changes, told):
    with pytest.raises(InputError, match=told) as error:
        Claim(**({"better": "a", "metric": "accuracy"} | changes))
    assert "\n" not in str(error.value)


def test_numbers_may_be_whole_or_numpys_and_a_margin_below_0():
    recipe = Recipe(lr=1, momentum=0, lr_gamma=np.float64(0.5))
    assert insects(recipe=recipe).rows["scratch"].recipe is recipe
    assert Claim(better="a", worse="b", metric="accuracy", margin=-0.02).id == "a_above_b-accuracy"
    scenes = insects(name="scenes", rows={"a": Row("fcn8s/resnet18", skips=False)}, resize=[96, 128], classes=3)
    assert scenes.sources["segmentation"].resize == (96, 128) and scenes.rows["a"].skips is False


def test_importing_the_public_names_loads_nothing_heavy():
    code = "import sys, cvhw4; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "pandas", "numpy", "scipy"} & set(loaded.stdout.split())
    assert all(getattr(cvhw4, name) for name in cvhw4.__all__) and re.match(r"\d+\.\d+", cvhw4.__version__)
    with pytest.raises(AttributeError, match="has no attribute 'Ablation'"):
        _ = cvhw4.Ablation


# Where studies are found


def test_a_file_s_study_is_found_and_one_of_several_is_named(tmp_path):
    one = "from cvhw4 import Study, Row\na = Study('{0}', data='p', rows={{'r': Row('resnet18')}})\n"
    file = tmp_path / "mine.py"
    file.write_text(one.format("first"))
    assert find_study(str(file)).name == "first"
    assert find_study(str(file)).sources["classification"].folder == tmp_path / "p"
    file.write_text(one.format("second") + "b = a\n" + one.format("third").replace("a =", "c ="))
    assert find_study(f"{file}::third").name == "third"
    with pytest.raises(InputError, match=r"makes 2 studies\. Fix: choose one of second, third, as in FILE::second"):
        find_study(str(file))
    for text, told in (("1 / 0", r"cannot be imported \(ZeroDivisionError"), ("", "makes no study")):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            find_study(str(file))
    with pytest.raises(InputError, match="is not a file"):
        find_study(str(tmp_path / "gone.py"))


def test_a_file_with_dataclasses_and_late_annotations_is_found(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from cvhw4 import Study, Row\n\n"
        "@dataclass\nclass Beta:\n    value: float\n    least: ClassVar[float] = 0\n\n"
        "a = Study('late', data='p', rows={'r': Row('resnet18')})\n"
    )
    assert find_study(str(file)).name == "late" and "mine" not in sys.modules


DEFAULTS = {
    "a function": ('"cvhw4.homework:studies"', ["quick", "full"]),
    "a file": ('"mine.py"', ["mine"]),
    "nothing": (None, []),
    "no such module": ('"cvhw5:studies"', "cannot be used"),
    "no function": ('"cvhw4.homework"', "cannot be used"),
    "a number": ("3", "cannot be used"),
}


@pytest.mark.parametrize(("named", "found"), DEFAULTS.values(), ids=DEFAULTS)
def test_pyproject_names_the_studies_of_the_command_line(named, found, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cvhw4 import Study, Row\na = Study('mine', data='p', rows={'r': Row('x')})\n"
    )
    (tmp_path / "pyproject.toml").write_text("" if named is None else f"[tool.cvhw4]\nstudies = {named}\n")
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            default_studies(tmp_path)
        return
    assert [study.name for study in default_studies(tmp_path)] == found
    if not found:
        with pytest.raises(InputError, match="--study: is needed here"):
            find_study(None, tmp_path)
        return
    assert find_study(None, tmp_path).name == found[0] and find_study(found[-1], tmp_path).name == found[-1]
    with pytest.raises(InputError, match=f"choose one of {', '.join(found)}"):
        find_study("other", tmp_path)


# Callables that build networks


def test_a_study_imports_what_pytest_lets_it(tmp_path):
    for name in ("conftest.py", "mynet.py", "src/package_of_mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["src"]\n')
    (tmp_path / "tests").mkdir()
    file = tmp_path / "tests" / "test_x.py"
    file.write_text("import mynet, package_of_mine\nfrom cvhw4 import Study, Row\n"
                    "a = Study('mine', data='p', rows={'r': Row('x')})\n")  # fmt: skip
    assert find_study(str(file)).name == "mine"


def test_a_callable_is_for_what_the_data_are_for(tmp_path):
    (tmp_path / "train.csv").touch()
    assert insects(rows={"a": Row(power)}).rows["a"].task.name == "classification"
    assert insects(rows={"a": Row(power)}, classes=["x", "y"]).rows["a"].task.name == "segmentation"
    (tmp_path / "scenes" / "train" / "masks").mkdir(parents=True)  # and no class called masks
    assert insects(rows={"a": Row(power)}, data=tmp_path / "scenes", classes=2).rows["a"].task.name == "segmentation"
    assert insects(rows={"a": Row(power)}, data=Scenes("b", classes=2)).rows["a"].task.name == "segmentation"
    assert insects(rows={"a": Row(power)}, data=tmp_path, classes=2).rows["a"].task.name == "segmentation"
    streets = insects(rows={"a": Row(power), "b": Row("fcn8s/resnet18")}, classes=2).rows["a"]
    assert (streets.task.name, streets.skips, streets.augmentation) == ("segmentation", None, "random crop")
    assert insects(rows={"a": Row("smp/Unet/resnet34")}, classes=2).rows["a"].task.name == "segmentation"
    assert insects(rows={"a": Row("torchvision/resnet18")}).rows["a"].task.name == "classification"


def test_a_callable_is_known_by_its_text_its_arguments_and_a_version():
    different = [Row(power), Row(right), Row(power, version="2"), Row(partial(power, by=2)), Row(partial(power, by=3))]
    rows = {f"r{n}": row for n, row in enumerate(different)}
    found, again = (insects(rows=rows).rows for _ in range(2))
    assert len({row.settings()["network_source"] for row in found.values()}) == 5
    assert [r.settings() for r in found.values()] == [r.settings() for r in again.values()]
    assert [row.network_name for row in found.values()] == ["power", "right", "power", "power(by=2)", "power(by=3)"]
    assert found["r0"].start == "as built" and Row("resnet18").start == "imagenet"
    assert "network_source" not in insects().rows["scratch"].settings()


# What tells a metric from another


class Weighted:
    """A metric that holds something and says so."""

    def __init__(self, weights):
        self.weights = weights

    def __repr__(self):
        return f"Weighted({self.weights})"

    def __call__(self, labels, predicted):
        return right(labels, predicted)


class Power:
    """Says nothing of what it holds."""

    def __init__(self, by):
        self.by = by

    def of(self, labels, predicted):
        return right(labels, predicted) ** self.by


def raised(by):
    def to_a_power(labels, predicted):
        return right(labels, predicted) ** by

    return to_a_power


SOURCES = {
    "functions": (right, always_nan),
    "versions": (Metric(right, version="1"), Metric(right, version="2")),
    "arguments of a partial": (partial(power, by=1), partial(power, by=2)),
    "objects": (Weighted([1]), Weighted([2])),
    "methods": (Power(1).of, Power(2).of),
    "objects that do not say what they hold": (raised(Power(1)), raised(Power(2))),
    "such objects in a partial": (partial(power, by=Power(1)), partial(power, by=Power([2]))),
    "variables of a function around them": (raised(1), raised(2)),
    "sets of those": (raised({"a", "b"}), raised({"a", "c"})),
    "defaults": tuple(lambda labels, predicted, by=n: by for n in (1, 2)),
    "built-in functions": (max, min),
}


@pytest.mark.parametrize(("one", "other"), SOURCES.values(), ids=SOURCES)
def test_a_metric_is_known_by_its_text_and_version(one, other):
    made = insects(metrics={"a": one, "b": other}).metrics
    again = insects(metrics={"a": one}).metrics
    assert made["a"].source == again["a"].source != made["b"].source and "0x" not in made["a"].source


def test_the_text_of_a_metric_is_the_same_in_every_process():
    code = "from cvhw4 import Metric; from sklearn.metrics import f1_score; print(Metric(f1_score, version='2').source)"
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(told) == 1 and "def f1_score" in told.pop()
