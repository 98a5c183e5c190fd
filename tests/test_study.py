"""What a study is made of, what is refused, where studies are found, and how a metric is known."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

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
    Study,
    homework,
)
from cvhw4.discovery import default_studies, find_study
from cvhw4.preflight import warn_of_equal_rows
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.studies import ROWS, always_nan, insects, pictures, right

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
    ("given", "problem"),
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
        (
            {"colours": {"a": (0, 0, 0), "b": (0, 0, 0)}},
            r"has the colour \(0, 0, 0\) for a and for b. Fix: give every class, and void, a colour",
        ),
        ({"colours": {"a": (0, 0, 0), "b": (0, 0, 256)}}, r"has the colour \(0, 0, 256\) for b"),
        ({"colours": {"a": (0, 0, 0), "b": "#fff"}}, "has the colour '#fff' for b"),
        ({"classes": 2, "merge": {"x": ["a"]}}, "merges 'a', which is not one of the classes. Fix: write it as merge="),
        ({"classes": 3, "merge": {"x": "class 0"}}, "has merge="),
        ({"classes": 2, "title": 3}, "has title=3"),
    ],
)
def test_scenes_that_say_two_things_or_nothing_are_refused(given, problem):
    with pytest.raises(InputError, match=rf"^Scenes\(photos\): {problem}"):
        Scenes("photos", **given)
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


# Changes of a study whose row, scenes, claim or control does not fit


def row(*given, **settings):
    return {"rows": {"a": Row(*given, **settings)}}


def scenes(settings=None, **changes):
    return row(**{"network": "fcn8s/resnet18"} | (settings or {})) | {"classes": 2} | changes


def claim(settings):
    return {"claims": [Claim(**({"better": "scratch", "metric": "accuracy"} | settings))]}


def control(settings):
    return {"controls": [Control(**({"name": "c", "row": "scratch", "words": ""} | settings))]}


def check_refused(told, **changes):
    with pytest.raises(InputError, match=told) as error:
        insects(**changes)
    assert "\n" not in str(error.value)


OF_STUDIES = {  # what a study's field cannot be, and how to put it right
    "data": ([None], "name a folder"),
    "rows": ([[ROWS["scratch"]]], "write them as"),
    "title": ([3], "give a text"),
    "about": ([3], "give a text"),
    "bounds": ([3], "name a file"),
    "epoch": (["first"], "choose one of last, best"),
    "classes": ([1, "3"], "give 2 to 32767"),
    "resize": ([(100, 200)], "give the shorter side"),
    "metrics": ([[right]], "write them as"),
    "controls": ([Control(name="c", row="scratch", words="")], "write them as"),
    "sections": ([right], "write them as"),
    "tables": ([["main"]], "write them as"),
    "labels": ([{"scratch": 3}], "write them as"),
    "also_after": ([{"classify": 2}, {"classification": 0}], "write it as"),
    "published": ([["scratch"]], "write it as"),
    "published_images": (["400"], "give their number"),
}


@pytest.mark.parametrize("name", OF_STUDIES)
def test_fields_of_another_kind_are_refused(name):
    values, fix = OF_STUDIES[name]
    for value in values:
        shown = re.escape(f"study insects: has {name}={value!r}"[:60])
        check_refused(f"^{shown}.*Fix: {fix}", **{name: value})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "a/b"}, "a/b: is not a valid study name"),
        ({"name": 3}, "3: is not a valid study name"),
        ({"rows": {}}, "has no rows"),
        ({"rows": {"a": {"network": "x"}}}, "row a: is {'network': 'x'}"),
        ({"rows": {"a b": ROWS["scratch"]}}, "a b: is not a valid row name"),
        ({"rows": ROWS | {"a": Row("fcn8s/resnet18")}}, r"networks segment \(a\) and others \("),
        ({"recipe": None}, "study insects, row scratch: has the recipe None"),
        ({"recipe": Recipe(loss="dice")}, "row scratch: has loss='dice'. Fix: choose one of cross_entropy, bce, focal"),
        (
            {"recipe": Recipe(schedule="cosine"), "also_after": {"classification": 5}},
            "row scratch: has schedule='cosine', which depends on the number of epochs",
        ),
        ({"data": [Pictures("a"), Pictures("b")]}, "has two sets of data for classification"),
        ({"metrics": {"a b": right}}, "a b: is not a valid metric name"),
        ({"metrics": {"accuracy": right}}, "metric accuracy: shadows a built-in metric"),
        ({"metrics": {"mine": 3}}, "metric mine: is not a function"),
        ({"metrics": {"mine": Metric(right, version=2)}}, "metric mine: has version=2"),
        ({"claims": ["a > b"]}, "has the claim 'a > b'"),
        ({"claims": [Claim(better="scratch", metric="accuracy")] * 2}, "-accuracy twice"),
        ({"controls": ["c"]}, "has the control 'c'. Fix: write it as Control"),
        ({"labels": {"scratch": "finetune"}}, "two rows that tables call 'finetune'"),
        ({"published": {"scratch": {"accuracy": 0.5}}}, "published scratch: is {'acc"),
        ({"published": {"scratch": Published({"top1": 0.5})}}, "has figure='top1'"),
        (
            {"published": {"scratch": Published({"accuracy": 83.0})}},
            "published scratch: has accuracy=83, which lies between 0 and 1. Fix: write 0.83 for 83 %",
        ),
        (
            {"metrics": {"f": right}, "shares": {"f"}, "claims": [Claim(better="scratch", metric="f", margin=50)]},
            "has margin=50 of f, which lies between 0 and 1",
        ),
        (
            {"metrics": {"f": right}, "shares": {"f"}, "published": {"scratch": Published({"f": 83.0})}},
            "published scratch: has f=83, which lies between 0 and 1",
        ),
        (row(None), "study insects, row a: has network=None"),
        (row(Built()), r"row a: has a network that is built \(Built\). Fix: give"),
        (row("resnet18", start="imagenett"), "row a: has start='imagenett'. Fix: choose"),
        (row("resnet18", augmentation="random crop"), "has augmentation="),
        (row("resnet18", skips=True), "has skips, classes or merge"),
        (row("resnet18", version="2"), "version='2', which callables have"),
        (row("resnet18", recipe={}), "row a: has the recipe {}"),
        (row("resnet18", group=3), "row a: has group=3. Fix: give a text"),
        (row("resnet18", corruption="noise"), "row a: has corruption='noise'"),
        (
            row("resnet18", corruption=Corruption("label noise", 20)),
            "row a: has label noise with a strength of 20. Fix: give the share of the images",
        ),
        (row(power, start="random"), "start='random', which its callable decides"),
        (row(power, for_task="detection"), "has for_task='detection'"),
        (scenes({"classes": 5}), "has classes=5, and its data 2"),
        (scenes({"classes": 0}), "has classes=0"),
        (scenes({"skips": "no"}), "has skips='no'. Fix: choose one"),
        (scenes({"merge": {"x": ["car"]}}), "row a: merges 'car', which is not one"),
        (scenes({"merge": {"x": ["class 0", "class 1"]}}), "leaves no two classes"),
        (scenes({"corruption": Corruption("classes swapped", 1, ("Road", "Tree"))}), "corrupts Road, Tree, which"),
        (scenes({"network": power, "skips": True, "for_task": "segmentation"}), "has skips, which are FCN8s's"),
        (scenes(classes=None), "nowhere.: does not say which classes there are"),
        (scenes(classes=None, data=NotGiven("segmentation", "give them")), "does not say which classes its"),
        (scenes(data=Scenes("a", classes=2)), "has classes=2 beside its data"),
        (scenes(classes=None, resize=(99, 99), data=Scenes("a", classes=2)), r"has resize=\(99, 99\) beside its data"),
        (scenes(recipe=Recipe(size=100)), "trains at 100 px"),
        (scenes(resize=(99, 99, 99)), r"resize=\(99, 99, 99"),
        (scenes(resize=100), "give .height, width."),
        (
            scenes({"network": power}, classes=None, data=[Pictures("a"), Scenes("b", classes=2)]),
            "row a: has a callable in a study with data of both tasks. Fix: say for_task=",
        ),
        (claim({"better": "fine"}), "has row='fine'. Fix: choose one"),
        (claim({"metric": "miou"}), "has metric='miou'. Fix: choose"),
        (claim({"margin": 89.5}), "has margin=89.5 of accuracy, which lies between 0 and 1. Fix: write 0.83 for 83 %"),
        (claim({"margin": -0.1}), "has margin=-0.1"),
        (claim({"worse": "finetune", "smallest": 2}), "has smallest=2 of accuracy"),
        (control({"changes": {"merge": {"a": ["b"]}}}), "control c: has changes='merge'. Fix: choose one of"),
        (control({"changes": {"network": "fcn8s/resnet18"}}), "has network='fcn8s/resnet18'. Fix: name one for"),
        (control({"changes": {"start": "imagenet1k"}}), r"row c \(a control\): has start='imagenet1k'. Fix: cho"),
        (control({"changes": {"batch_norm": "froze"}}), "has batch_norm='froze'"),
        (control({"changes": {"recipe": {"lr": 1}}}), "control c: has the recipe {'lr': 1}"),
        (control({"corrupts": "label-noise"}), "has corrupts='label-noise'. Fix: choose one of label noise,"),
        (control({"corrupts": "mask shift"}), "has mask shift, which is for segmentation. Fix: choose a row"),
        (control({"corrupts": "label noise", "strengths": (0.1, 20)}), "noise with a strength of 20. Fix: give the s"),
        (control({"corrupts": "smaller training set"}), "a strength of 1.0. Fix: give the share that is left"),
        (control({"corrupts": "label noise", "strengths": ("a",)}), "with a strength of 'a'"),
        (control({"corrupts": "label noise", "classes": ("a", "b")}), r"has classes=\('a', 'b'\)"),
        (control({}), "control c: trains scratch as it is. Fix: give it corrupts="),
        (control({"changes": {"start": "random"}}), "control c: trains scratch as it is"),
        (control({"name": "finetune", "lr": True, "strengths": (3,)}), "makes the row finetune, which there"),
        (control({"lr": True, "strengths": (3, 3)}), "makes the row c_3, which there is already"),
        (control({"name": "c d"}), "c d: is not a valid control name"),
        (control({"words": "{rate} times"}), "has words='{rate} times', which do not take 1.0"),
        (control({"lr": True, "strengths": 3}), "has strengths=3. Fix: write them as"),
        (control({"lr": True, "strengths": ()}), r"has strengths=\(\)"),
        (control({"changes": ["start"]}), r"has changes=\['start'\]"),
        (control({"lr": True, "strengths": (0,)}), "multiplies the learning rate by 0. Fix: give a number above"),
    ],
)
def test_what_does_not_fit_is_one_error(changes, told):
    check_refused(told, **changes)


OF_CLAIMS = {
    "margin": ([float("nan"), "0.1"], "give a number"),
    "better": ([None, ["a", "b"]], "name a row"),
    "worse": ([("a", "b", "c"), ROWS["scratch"]], "name a row"),
    "metric": ([None], "name a figure"),
    "id": ([3], "give a text"),
    "control": (["yes"], "give True or False"),
    "smallest": ([-0.01, "1 %"], "give a number above 0, or leave"),
    "note": (["mind the gap"], "give a function"),
    "classes": (["cat", (3,)], "name classes"),
}


@pytest.mark.parametrize("name", OF_CLAIMS)
def test_fields_of_a_claim_that_are_of_another_kind_are_refused(name):
    values, fix = OF_CLAIMS[name]
    for value in values:
        with pytest.raises(InputError, match=f"^claim .*has {name}={re.escape(repr(value)[:40])}.*Fix: {fix}"):
            Claim(**({"better": "a", "metric": "accuracy"} | {name: value}))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: claim({"id": "a/b"}), "a/b: is not a valid claim name"),
        (lambda: claim({"worse": "scratch"}), "claim with better='scratch': compares a row with itself"),
        (
            lambda: claim({"better": ("a", "a"), "worse": "b"}),
            r"claim with .*: compares a row with itself. Fix: name another",
        ),
        (lambda: Pictures(3), "Pictures: has folder=3"),
        (lambda: Pictures("a", title=3), "Pictures: has title=3. Fix: give a text"),
        (lambda: Generated("faces"), "Generated: has kind='faces'. Fix: choose one of portraits"),
        (lambda: Generated("scenes", redraw="no"), "Generated: has redraw='no'"),
        (lambda: NotGiven("faces", "give --faces"), "NotGiven: has task='faces'"),
        (lambda: NotGiven("segmentation", ""), "NotGiven: has hint=''. Fix: say how to name them"),
        (lambda: Published({"accuracy": "83 %"}), "Published: has figures="),
        (lambda: Published({"accuracy": 0.83}, {"miou": 3}), "Published: has epochs={'miou': 3}"),
        (lambda: Published(time=255), "Published: has time=255. Fix: write it as"),
        (lambda: FromOptions("homework"), "FromOptions: has make='homework'"),
    ],
)
def test_what_a_study_is_made_of_is_checked_when_it_is_made(make, told):
    with pytest.raises(InputError, match=f"^{told}"):
        make()


def test_numbers_may_be_whole_or_numpys_and_a_margin_below_0():
    recipe = Recipe(lr=1, momentum=0, lr_gamma=np.float64(0.5))
    assert insects(recipe=recipe).rows["scratch"].recipe is recipe
    assert Claim(better="a", worse="b", metric="accuracy", margin=-0.02).id == "a_above_b-accuracy"
    scenes = insects(name="scenes", rows={"a": Row("fcn8s/resnet18", skips=False)}, resize=[96, 128], classes=3)
    assert scenes.sources["segmentation"].resize == (96, 128) and scenes.rows["a"].skips is False


# Where studies are found


MADE = "from cvhw4 import Row, Study\n{0} = Study('{0}', data='p', rows={{'r': Row('resnet18')}})\n"
TYPED = """from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass
class Beta:
    value: float
    least: ClassVar[float] = 0

"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.py"


@pytest.mark.parametrize("before", ["", TYPED], ids=["alone", "behind a dataclass with late annotations"])
def test_the_study_of_a_file_is_found_with_its_folder(file, before):
    file.write_text(before + MADE.format("first"))
    found = find_study(str(file))
    assert (found.name, found.sources["classification"].folder) == ("first", file.parent / "p")
    assert "mine" not in sys.modules


def test_one_of_several_studies_is_named_and_a_file_without_any_refused(file):
    with pytest.raises(InputError, match="is not a file"):
        find_study(str(file))
    file.write_text(MADE.format("second") + "again = second\n" + MADE.format("third"))
    assert find_study(f"{file}::third").name == "third"
    for text, told in (
        (file.read_text(), r"makes 2 studies\. Fix: choose one of second, third, as in FILE::second"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError"),
        ("raise SystemExit(3)", r"cannot be imported \(SystemExit"),
        ("import pytest\npytest.importorskip('cvhw5')", r"cannot be imported \(Skipped: could not import 'cvhw5'"),
        ("", "makes no study"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            find_study(str(file))


DEFAULTS = {
    "a function": ('"cvhw4.homework:studies"', ["quick", "full-lite0", "full"]),
    "a file": ('"mine.py"', ["mine"]),
    "a function of a file beside it": ('"beside_pyproject:all_of_them"', ["beside"]),
    "nothing": (None, []),
    "no such module": ('"cvhw5:studies"', "cannot be used"),
    "no function": ('"cvhw4.homework"', "cannot be used"),
    "a number": ("3", "cannot be used"),
}


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\ncvhw4 = [1]", "tool"])
def test_a_pyproject_that_is_none_is_one_error(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InputError, match=r"pyproject\.toml: cannot be read .* Fix: correct it"):
        default_studies(tmp_path)


@pytest.mark.parametrize(("named", "found"), DEFAULTS.values(), ids=DEFAULTS)
def test_pyproject_names_the_studies_of_the_command_line(named, found, file, tmp_path):
    file.write_text(MADE.format("mine"))
    beside = MADE.format("beside") + "def all_of_them():\n    return [beside]\n"
    (tmp_path / "beside_pyproject.py").write_text(beside)
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


@pytest.mark.parametrize(("table", "module"), [("pytest.ini_options", "in_old_table"), ("pytest", "in_new_table")])
def test_a_study_imports_what_pytest_lets_it(tmp_path, table, module):
    for name in ("conftest.py", "mynet.py", f"src/{module}.py", "tests/test_x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pyproject.toml").write_text(f'[tool.{table}]\npythonpath = ["src"]\n')
    file = tmp_path / "tests" / "test_x.py"
    file.write_text(f"import mynet, {module}\n" + MADE.format("mine"))
    assert find_study(str(file)).name == "mine"


# Callables that build networks


def test_a_callable_is_for_what_the_data_are_for(tmp_path):
    (tmp_path / "train.csv").touch()
    (tmp_path / "scenes" / "train" / "masks").mkdir(parents=True)  # and no class called masks
    assert insects(rows={"a": Row(power)}).rows["a"].task.name == "classification"
    assert insects(rows={"a": Row(power), "b": Row("resnet18")}, classes=2).rows["a"].task.name == "classification"
    for changes in (
        {"classes": ["x", "y"]},
        {"data": tmp_path / "scenes", "classes": 2},
        {"data": tmp_path, "classes": 2},
        {"data": Scenes("b", classes=2)},
        {"rows": {"a": Row(power), "b": Row("fcn8s/resnet18")}, "classes": 2},
    ):
        row = insects(**({"rows": {"a": Row(power)}} | changes)).rows["a"]
        assert (row.task.name, row.skips, row.augmentation) == ("segmentation", None, "random crop"), changes
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


APART = [Row(power), Row(power, version="2"), Row(right), Row(partial(power, by=2)), Row(partial(power, by=3))]
APART += [Row("resnet18"), Row("resnet18", recipe=Recipe(loss=right)), Row("resnet18", recipe=Recipe(loss=power))]


def made(start):
    """A network whose text does not say what it is."""

    class Net:
        def __init__(self, classes):
            self.start = start

    return Net


BESIDE, ANOTHER = lambda *_: 1, lambda *_: 2  # one text, that of the line
APART += [Row(f) for f in (BESIDE, ANOTHER, made(1), made(2))]
APART += [Row("resnet18", recipe=Recipe(loss=BESIDE)), Row("resnet18", recipe=Recipe(loss=ANOTHER))]


def test_rows_that_differ_in_more_than_their_names_are_no_cause_for_a_warning(recwarn):
    examples = ("binary-masks/test_cells.py", "own-study/test_insects.py")
    warn_of_equal_rows(insects(rows={f"r{n}": row for n, row in enumerate(APART)}))
    settings = [BESIDE, ANOTHER, [BESIDE], [ANOTHER], {"f": made(1)}, {"f": made(2)}]
    rows = {f"r{n}": {"f": value} for n, value in enumerate(settings)}
    warn_of_equal_rows(Study("own", train=lambda run: iter(()), primary="accuracy", rows=rows))
    for study in [find_study(f"{ROOT}/examples/{file}") for file in examples] + [*map(homework.study, homework.SIZES)]:
        warn_of_equal_rows(study)
    assert not recwarn


def test_rows_with_equal_settings_are_warned_of_before_anything_trains(tmp_path):
    rows = {"a": {"depth": 2}, "b": {"depth": 3}, "c": {"depth": 2}}
    own = Study("own", train=lambda run: iter(()), primary="accuracy", rows=rows)
    told = "^study own: rows a and c have equal settings and train alike; give one the setting that should set it apart"
    with pytest.warns(UserWarning, match=told):
        Runner(study=own, results=tmp_path / "results").check()
    alike = insects(rows={"a": Row(power), "b": Row(power, group="extra")})
    with pytest.warns(UserWarning, match="rows a and b have equal settings"):
        warn_of_equal_rows(alike)


# What tells a metric from another


class Power:
    """Says nothing of what it holds."""

    def __init__(self, by):
        self.by = by

    def of(self, labels, predicted):
        return right(labels, predicted) ** self.by


class Telling(Power):
    """Says what it holds."""

    __call__ = Power.of

    def __repr__(self):
        return f"Telling({self.by})"


def raised(by):
    return lambda labels, predicted: right(labels, predicted) ** by


SOURCES = {
    "functions": (right, always_nan),
    "versions": (Metric(right, version="1"), Metric(right, version="2")),
    "arguments of a partial": (partial(power, by=1), partial(power, by=2)),
    "objects": (Telling([1]), Telling([2])),
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


@pytest.mark.integration
def test_the_text_of_a_metric_is_the_same_in_every_process():
    code = "from cvhw4 import Metric; from sklearn.metrics import f1_score; print(Metric(f1_score, version='2').source)"
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(told) == 1 and "def f1_score" in told.pop()
