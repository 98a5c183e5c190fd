"""A user's own ablation: what is refused, own metrics by hand-worked numbers, and sessions that train it."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.metrics  # noqa: F401
import tabulate  # noqa: F401
import timm  # noqa: F401
import torch
import torchvision.transforms.v2  # noqa: F401
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

# Sessions inside this process throw away the modules they import; what cannot be imported twice is imported here.
import cvhw4.training.fit
from cvhw4 import Ablation, Claim, InputError, Recipe, Row, study
from cvhw4.ablation import _source, load_profile
from cvhw4.claims import claims_of
from cvhw4.errors import TrainingFailed
from cvhw4.experiments import PROFILES
from cvhw4.pytest_plugin import StudyPlugin
from cvhw4.records.images import ImageResults, confusion
from cvhw4.records.store import Store
from cvhw4.report.tables import report_page
from cvhw4.report.verdicts import verdicts_page
from cvhw4.statistics.bounds import NO_BOUNDS
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.verdicts import judge, judge_all
from cvhw4.study import Study
from tests.tiny import TINY, dataset, record

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parent.parent
ROWS = {"scratch": Row("resnet18", start="random"), "finetune": Row("resnet18")}


@pytest.fixture(autouse=True)
def registry():
    """What a test registers is gone after it."""
    with mock.patch.dict(PROFILES):
        yield


def insects(**changes):
    return Ablation(changes.pop("name", "insects"), **({"data": "nowhere", "rows": ROWS} | changes))


def right(labels, predicted):
    return float(np.mean(labels == predicted))


def always_nan(labels, predicted):
    return float("nan")


def pictures(folder, classes=("ant", "bee", "wasp"), train=4, val=3):
    """Noise of a brightness by class."""
    random = np.random.RandomState(0)
    for split, number in (("train", train), ("val", val)):
        for c, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                noise = random.randint(0, 60, (40, 44, 3)) + c * 190 // len(classes)
                Image.fromarray(noise.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def streets(folder, train=4, val=2):
    """Scenes of sky above road above car, a strip of void, laid out as CamVid."""
    labels = np.zeros((40, 48), np.uint8)
    labels[14:], labels[28:], labels[:, 44:] = 3, 8, 11
    for split, number in (("train", train), ("val", val)):
        for part in (split, f"{split}annot"):
            (folder / part).mkdir(parents=True)
        for i in range(number):
            noise = np.random.RandomState(i).randint(0, 60, (40, 48, 3)) + labels[..., None] * 16
            Image.fromarray(noise.astype(np.uint8)).save(folder / split / f"{i}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{i}.png")
        lines = [f"{split}/{i}.png,{split}annot/{i}.png\n" for i in range(number)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


# What an ablation is made of


def test_a_table_becomes_rows_claims_and_folders():
    short = Recipe(size=64, epochs=3)
    profile = insects(
        rows=ROWS | {"big": Row("resnet50", recipe=replace(short, size=96), trained="last layer")},
        recipe=short,
        claims=[Claim(better="finetune", worse="scratch", metric="accuracy")],
        title="Insects of the garden",
    ).profile
    assert PROFILES["insects"] is profile and profile.own and not PROFILES["quick"].own
    assert [row.id for row in profile.rows] == ["insects-scratch", "insects-finetune", "insects-big"]
    assert [row.recipe.size for row in profile.rows] == [64, 64, 96] and profile.portrait_side == 128
    assert {row.question for row in profile.rows} == {"q1"} and profile.rows[0].augmentation == "random-resized crop"
    (claim,) = claims_of(profile)
    assert (claim.id, claim.sentence) == ("finetune_above_scratch-accuracy", "finetune beats scratch in accuracy")
    assert profile.folders == {"q1": Path(__file__).parent / "nowhere"}  # beside the file that makes it


def test_scenes_take_a_backbone_skips_and_classes():
    rows = {"plain": Row("fcn8s/resnet18", skips=False), "fused": Row("fcn8s/resnet18", classes=3)}
    profile = insects(rows=rows, recipe=Recipe(size=96), resize=(120, 160)).profile
    assert [(r.question, r.skips, r.classes) for r in profile.rows] == [("q2", False, 11), ("q2", True, 3)]
    assert profile.scene_size == (120, 160) and profile.rows[0].augmentation == "random crop"


def test_the_classes_are_those_of_the_folder_unless_said(tmp_path):
    folder = pictures(tmp_path / "photos")
    (folder / "train" / ".cache").mkdir()
    assert {r.classes for r in insects(data=folder).profile.rows} == {3}
    assert {r.classes for r in insects(name="other", data=folder, classes=5).profile.rows} == {5}


REFUSED = {
    "a name that is no folder's": ({"name": "a/b"}, "a/b: is no name of a ablation"),
    "the report's name": ({"name": "quick"}, "quick: is the name of two ablations"),
    "no rows": ({"rows": {}}, "has no rows"),
    "a row that is none": ({"rows": {"a": {"network": "x"}}}, "row a: is {'network': 'x'}"),
    "a row's name": ({"rows": {"a b": ROWS["scratch"]}}, "a b: is no name of a row"),
    "a start": ({"rows": {"a": Row("resnet18", start="imagenett")}}, "row a: has start='imagenett'. To mend: choose"),
    "layers": ({"rows": {"a": Row("resnet18", trained="some")}}, "has trained='some'"),
    "an augmentation": ({"rows": {"a": Row("resnet18", augmentation="random crop")}}, "has augmentation="),
    "batch norm": ({"rows": {"a": Row("resnet18", batch_norm="off")}}, "has batch_norm='off'"),
    "skips of a classifier": ({"rows": {"a": Row("resnet18", skips=True)}}, "has skips or classes"),
    "both tasks": ({"rows": ROWS | {"a": Row("fcn8s/resnet18")}}, "has classifiers and FCN8s"),
    "classes of scenes": ({"rows": {"a": Row("fcn8s/resnet18", classes=5)}}, "has classes=5"),
    "a size for FCN8s": ({"rows": {"a": Row("fcn8s/resnet18")}, "recipe": Recipe(size=100)}, "trains at 100 px"),
    "one class": ({"classes": 1}, "has classes=1. To mend: give 2 to 255"),
    "256 classes": ({"classes": 256}, "has classes=256"),
    "classes in words": ({"classes": "3"}, "has classes='3'"),
    "classes true or false": ({"classes": True}, "has classes=True"),
    "a name that is none": ({"name": 3}, "3: is no name of a ablation"),
    "a list of rows": ({"rows": [ROWS["scratch"]]}, r"ablation insects: has rows=\[Row"),
    "a row without a name": ({"rows": {None: ROWS["scratch"]}}, "None: is no name of a row"),
    "no network": ({"rows": {"a": Row(None)}}, "ablation insects, row a: has network=None"),
    "networks": ({"rows": {"a": Row(["resnet18"])}}, r"row a: has network=\['resnet18'\]"),
    "starts": ({"rows": {"a": Row("resnet18", start=["random"])}}, r"has start=\['random'\]"),
    "no augmentation": ({"rows": {"a": Row("resnet18", augmentation="")}}, "has augmentation=''"),
    "skips in words": ({"rows": {"a": Row("fcn8s/resnet18", skips="no")}}, "has skips='no'. To mend: choose one of T"),
    "no classes of scenes": ({"rows": {"a": Row("fcn8s/resnet18", classes=0)}}, "has classes=0"),
    "classes of scenes with a point": ({"rows": {"a": Row("fcn8s/resnet18", classes=3.0)}}, "has classes=3.0"),
    "a row's recipe as a dict": ({"rows": {"a": Row("resnet18", recipe={})}}, "row a: has the recipe {}"),
    "no recipe": ({"recipe": None}, "ablation insects, row scratch: has the recipe None"),
    "no data": ({"data": None}, "ablation insects: has data=None. To mend: name a folder"),
    "a title that is none": ({"title": 3}, "has title=3"),
    "a single claim": ({"claims": Claim(better="scratch", metric="accuracy")}, r"has claims=Claim\("),
    "a list of metrics": ({"metrics": [right]}, r"has metrics=\[<function right"),
    "a metric without a name": ({"metrics": {3: right}}, "3: is no name of a metric"),
    "a size in words": ({"recipe": Recipe(size="96")}, "has size='96'. To mend: give a whole number, 32 or more"),
    "no step": ({"recipe": Recipe(lr_step=None)}, "has lr_step=None"),
    "a batch below 0": ({"recipe": Recipe(batch=-4)}, "has batch=-4"),
    "optimizers": ({"recipe": Recipe(optimizer=["sgd"])}, r"has optimizer=\['sgd'\]"),
    "a rate in words": ({"recipe": Recipe(lr="1e-3")}, "insects, row scratch: has lr='1e-3'. To mend: give a learning"),
    "no rate": ({"recipe": Recipe(lr=None)}, "has lr=None"),
    "a rate true or false": ({"recipe": Recipe(lr=True)}, "has lr=True"),
    "a rate below 0": ({"recipe": Recipe(lr=-1e-3)}, "has lr=-0.001"),
    "a rate beyond floats": ({"recipe": Recipe(lr=10**400)}, "has lr=1000"),
    "a momentum in words": ({"recipe": Recipe(momentum="0.9")}, "has momentum='0.9'"),
    "a momentum that is NaN": ({"recipe": Recipe(momentum=float("nan"))}, "has momentum=nan"),
    "a factor of 0": ({"recipe": Recipe(lr_gamma=0)}, "has lr_gamma=0. To mend: give a number above 0"),
    "a list of factors": ({"recipe": Recipe(lr_gamma=[0.1])}, r"has lr_gamma=\[0.1\]"),
    "a resize in words": ({"resize": "100"}, "has resize='100'"),
    "a resize true or false": ({"resize": True}, "has resize=True"),
    "a resize of three sides": ({"rows": {"a": Row("fcn8s/resnet18")}, "resize": (99, 99, 99)}, r"resize=\(99, 99, 99"),
    "a resize of scenes in words": ({"rows": {"a": Row("fcn8s/resnet18")}, "resize": ("99", "99")}, "has resize="),
    "an optimizer": ({"recipe": Recipe(optimizer="lion")}, "has optimizer='lion'"),
    "no epoch": ({"recipe": Recipe(epochs=0)}, "has epochs=0"),
    "half a batch": ({"recipe": Recipe(batch=2.5)}, "has batch=2.5"),
    "a rate": ({"recipe": Recipe(lr=float("nan"))}, "has lr=nan"),
    "a momentum": ({"recipe": Recipe(momentum=1.0)}, "has momentum=1.0"),
    "a resize of scenes": ({"resize": (100, 200)}, r"has resize=\(100, 200\). To mend: give the shorter side"),
    "a resize of pictures": ({"rows": {"a": Row("fcn8s/resnet18")}, "resize": 100}, "give .height, width."),
    "a metric's name": ({"metrics": {"a b": right}}, "a b: is no name of a metric"),
    "a metric there is": ({"metrics": {"accuracy": right}}, "metric accuracy: is a figure that there is already"),
    "a metric that is none": ({"metrics": {"mine": 3}}, "metric mine: is no function"),
    "a claim's row": (
        {"claims": [Claim(better="fine", metric="accuracy")]},
        "has row='fine'. To mend: choose one",
    ),
    "a claim's metric": (
        {"claims": [Claim(better="scratch", metric="miou")]},
        "has metric='miou'. To mend",
    ),
    "a claim that is none": ({"claims": ["a > b"]}, "has the claim 'a > b'"),
    "a claim twice": ({"claims": [Claim(better="scratch", metric="accuracy")] * 2}, "-accuracy twice"),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_error(changes, told):
    before = dict(PROFILES)
    with pytest.raises(InputError, match=told) as error:
        insects(**changes)
    assert "\n" not in str(error.value) and before == PROFILES


NO_CLAIMS = {
    "a margin that is NaN": ({"margin": float("nan")}, "claim with better='a': has margin=nan. To mend: give a number"),
    "an infinite margin": ({"margin": float("-inf")}, "has margin=-inf"),
    "a margin in words": ({"id": "mine", "margin": "0.1"}, "claim mine: has margin='0.1'. To mend: give a number"),
    "no margin": ({"margin": None}, "has margin=None"),
    "a margin true or false": ({"margin": True}, "has margin=True"),
    "no better row": ({"better": None}, "has better=None. To mend: name a row"),
    "a list of rows": ({"better": ["a", "b"]}, r"has better=\['a', 'b'\]"),
    "three rows": ({"worse": ("a", "b", "c")}, r"has worse=\('a', 'b', 'c'\)"),
    "a row in place of its name": ({"worse": ROWS["scratch"]}, r"has worse=Row\("),
    "an empty row": ({"worse": ""}, "has worse=''"),
    "no metric": ({"metric": None}, "has metric=None. To mend: name a figure"),
    "metrics": ({"metric": ["accuracy"]}, r"has metric=\['accuracy'\]"),
    "a number for an id": ({"id": 3}, "claim 3: has id=3"),
    "a path for an id": ({"id": "a/b"}, "a/b: is no name of a claim"),
    "no sentence": ({"sentence": None}, "has sentence=None"),
    "a control in words": ({"control": "yes"}, "has control='yes'"),
}


@pytest.mark.parametrize(("changes", "told"), NO_CLAIMS.values(), ids=NO_CLAIMS)
def test_what_is_no_claim_is_one_error(changes, told):
    with pytest.raises(InputError, match=told) as error:
        Claim(**({"better": "a", "metric": "accuracy"} | changes))
    assert "\n" not in str(error.value)


def test_numbers_may_be_whole_or_numpys_and_a_margin_below_0():
    recipe = Recipe(lr=1, momentum=0, lr_gamma=np.float64(0.5))
    assert insects(recipe=recipe).profile.rows[0].recipe is recipe
    assert Claim(better="a", worse="b", metric="accuracy", margin=-0.02).id == "a_above_b-accuracy"
    scenes = insects(name="scenes", rows={"a": Row("fcn8s/resnet18", skips=False)}, resize=[96, 128])
    assert scenes.profile.scene_size == (96, 128) and scenes.profile.rows[0].skips is False


def test_the_same_ablation_may_come_twice_and_another_of_its_name_not():
    first, again = insects(metrics={"mine": right}), insects(metrics={"mine": right})
    assert first.profile == again.profile and PROFILES["insects"] is again.profile
    for changes in ({"metrics": {"mine": always_nan}}, {"recipe": Recipe(epochs=3)}, {"data": "elsewhere"}):
        with pytest.raises(InputError, match="is the name of two ablations that differ"):
            insects(**changes)
    insects(name="a-b", rows={"c": ROWS["scratch"]})
    with pytest.raises(InputError, match="a-b-c: is a row of a-b already"):
        insects(name="a", rows={"b-c": ROWS["scratch"]})


def test_importing_the_public_names_loads_nothing_heavy():
    code = "import sys, cvhw4; [getattr(cvhw4, n) for n in cvhw4.__all__ if n != 'Outcome']; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "pandas", "numpy", "scipy"} & set(loaded.stdout.split())
    assert cvhw4.Outcome.__name__ == "Outcome" and re.fullmatch(r"\d+\.\d+\.\d+", cvhw4.__version__)
    with pytest.raises(AttributeError, match="has no attribute 'Study'"):
        _ = cvhw4.Study


def test_a_file_s_ablation_is_found_and_one_of_several_is_named(tmp_path):
    one = "from cvhw4 import Ablation, Row\na = Ablation('{0}', data='p', rows={{'r': Row('resnet18')}})\n"
    file = tmp_path / "mine.py"
    file.write_text(one.format("first"))
    assert load_profile(file).name == "first"
    assert load_profile(file).folders == {"q1": tmp_path / "p"}
    file.write_text(one.format("second") + "b = a\n" + one.format("third").replace("a =", "c ="))
    assert load_profile(file, "third").name == "third"
    with pytest.raises(InputError, match=r"makes 2 ablations\. To mend: choose one of second, third with --profile"):
        load_profile(file)
    for text, told in (("1 / 0", r"cannot be imported \(ZeroDivisionError"), ("", "makes 0 ablations")):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            load_profile(file)
    with pytest.raises(InputError, match="is no file"):
        load_profile(tmp_path / "gone.py")


def test_a_file_with_dataclasses_and_late_annotations_is_found(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from cvhw4 import Ablation, Row\n\n"
        "@dataclass\nclass Beta:\n    value: float\n    least: ClassVar[float] = 0\n\n"
        "a = Ablation('late', data='p', rows={'r': Row('resnet18')})\n"
    )
    assert load_profile(file).name == "late" and "mine" not in sys.modules


# What tells a metric from another


def f_beta(beta):
    def metric(labels, predicted):
        return beta * right(labels, predicted)

    return metric


class Weighted:
    """A metric that holds something."""

    def __init__(self, weights, function=right):
        self.weights, self.function = weights, function

    def __call__(self, labels, predicted):
        return self.function(labels, predicted)

    def method(self, labels, predicted):
        return self.function(labels, predicted)


def power(labels, predicted, by=1):
    return right(labels, predicted) ** by


def powered(exponent):
    def metric(labels, predicted, by=exponent):
        return right(labels, predicted) ** by

    return metric


METRICS = {
    "a closure": (f_beta, 1.0, 2.0),
    "a closure over a function": (f_beta, right, always_nan),
    "an object": (Weighted, [1, 2], [1, 3]),
    "an object with a large array": (Weighted, np.zeros(5000), np.eye(1, 5000, 2500)[0]),
    "an object with a function": (lambda function: Weighted([1], function), right, always_nan),
    "a method": (lambda weights: Weighted(weights).method, {"ant": 1}, {"ant": 2}),
    "a default": (powered, 1, 2),
    "a partial": (lambda by: partial(power, by=by), 1, 2),
    "a partial with a function": (lambda f: partial(lambda g, labels, predicted: g(labels), f), right, always_nan),
}


@pytest.mark.parametrize(("make", "one", "other"), METRICS.values(), ids=METRICS)
def test_a_metric_is_known_by_its_text_and_all_that_it_holds(make, one, other):
    first, again, another = _source(make(one)), _source(make(one)), _source(make(other))
    assert first == again != another and "0x" not in first + another


def test_what_tells_a_metric_is_the_same_in_every_process(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from functools import partial\nfrom cvhw4.ablation import _source\n"
        "def scaled(labels, predicted, kinds, by):\n    return by(labels)\n"
        "print(_source(partial(scaled, kinds={'ant', 'bee', 'wasp', 'fly'}, by=abs)))\n"
    )
    told = set()
    for hashes in ("0", "1", "2"):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hashes}
        run = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
        told.add(run.stdout)
    assert len(told) == 1 and "{'ant', 'bee', 'fly', 'wasp'}" in told.pop(), run.stderr


def test_a_function_that_holds_itself_is_known_too():
    def metric(labels, predicted):
        return metric(labels, predicted)

    assert "def metric" in _source(metric) and _source(balanced_accuracy_score) == _source(balanced_accuracy_score)


# Metrics, by hand


PREDICTED = np.array([[0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]], np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 2], np.uint8)


def test_an_own_metric_is_given_labels_and_predictions_of_every_epoch():
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    # recalls 3/3, 1/2, 1/1; then 2/3, 1/2, 0
    assert images.figure("balanced", 1, own=balanced_accuracy_score) == pytest.approx(5 / 6)
    assert images.figure("balanced", 2, own=balanced_accuracy_score) == pytest.approx(7 / 18)
    assert images.figure("accuracy", 2) == pytest.approx(1 / 2) == images.figure("mine", 2, own=right)


def test_an_own_metric_of_draws_counts_each_image_as_often_as_it_is_drawn():
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    draws = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 3, 0, 2, 1]])
    found = images.figure("balanced", 2, draws, balanced_accuracy_score)
    assert found == pytest.approx([7 / 18, 0])
    assert images.figure("mine", 2, draws, right) == pytest.approx(images.figure("accuracy", 2, draws))
    by_own = image_noise([(1, [(images, 1)])], "mine", np.random.default_rng(0), 50, right)
    assert by_own == image_noise([(1, [(images, 1)])], "accuracy", np.random.default_rng(0), 50)


def test_the_confusion_matrix_leaves_void_out_and_merges_labels_to_three_classes():
    counts = np.zeros((12, 3), np.int64)
    counts[0, 0], counts[3, 1], counts[5, 0], counts[8, 2], counts[10, 1], counts[11, 1] = 5, 7, 2, 3, 4, 100
    assert confusion(counts).tolist() == [[5, 0, 0], [2, 7, 0], [0, 4, 3]]
    eleven = np.arange(12 * 11).reshape(12, 11)
    assert np.array_equal(confusion(eleven), eleven[:11]) and confusion(eleven).dtype == np.int64


def test_an_own_metric_of_scenes_is_given_the_whole_sets_confusion_matrix():
    counts = np.random.RandomState(0).randint(0, 9, (2, 3, 2, 12, 11)).astype(np.uint32)
    images = ImageResults(counts=counts)
    share = lambda m: np.trace(m) / m.sum()  # noqa: E731
    assert images.figure("share", 2, own=share) == pytest.approx(float(images.figure("set_pixel_accuracy", 2)))
    draws = np.array([[2, 0, 1], [1, 1, 1]])
    assert images.figure("share", 1, draws, share) == pytest.approx(images.figure("set_pixel_accuracy", 1, draws))


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (always_nan, "metric mine: returns nan. To mend: let it return a finite number"),
        (lambda labels, predicted: 1 / 0, "metric mine: raises ZeroDivisionError: division by zero"),
        (lambda labels: 1.0, "metric mine: raises TypeError"),
        (lambda labels, predicted: labels, "metric mine: raises TypeError"),
    ],
)
def test_a_metric_without_a_figure_is_one_error_before_anything_is_trained(metric, told, tmp_path):
    folder = pictures(tmp_path / "photos")
    profile = insects(data=folder, metrics={"mine": metric}).profile
    with pytest.raises(InputError, match=told):
        Study(profile=profile.name, results=tmp_path / "results").check()
    with pytest.raises(InputError, match=told):
        ImageResults(predicted=PREDICTED, labels=LABELS).figure("mine", 1, own=metric)
    assert not (tmp_path / "results").exists()


def precision_of_wasps(labels, predicted):
    return float(np.float64((labels[predicted == 2] == 2).sum()) / (predicted == 2).sum())


def test_a_metric_without_a_figure_of_networks_that_say_one_class_alone_is_told_before_training(tmp_path):
    profile = insects(data=pictures(tmp_path / "photos"), metrics={"wasps": precision_of_wasps}).profile
    told = "metric wasps: returns nan where every image is taken for class 0. To mend: let it return a finite"
    with pytest.raises(InputError, match=told), warnings.catch_warnings():
        warnings.simplefilter("error")  # those of made-up predictions are nobody's
        Study(profile=profile.name, results=tmp_path / "results").check()
    rows = {"plain": Row("fcn8s/resnet10t", start="random")}
    scenes = insects(name="scenes", rows=rows, recipe=Recipe(size=32), metrics={"cars": lambda m: 1 / m[:, 8].sum()})
    with pytest.raises(InputError, match="cars: returns inf where every pixel is taken for class 0"):
        Study(profile=scenes.name, results=tmp_path / "results").check()
    assert not (tmp_path / "results").exists()


def own_record(row, seed, figures, **changes):
    """A record of the ablation "insects"."""
    made = replace(record("q1_2", seed, figures=tuple((a,) for a, _ in figures)), row=row, id=f"insects-{row}")
    epochs = [replace(e, figures=e.figures | {"mine": m}) for e, (_, m) in zip(made.epochs, figures, strict=True)]
    data = replace(made.data, name="photos", embedded=False, val=6)
    fingerprint = f"{row}{seed}".encode().hex().ljust(64, "0")
    whole = {"profile": "insects", "epochs": epochs, "data": data, "fingerprint": fingerprint}
    return replace(made, **(whole | {"study": row.encode().hex().ljust(64, "0")} | changes))


def test_own_figures_are_in_every_epoch_of_the_record():
    insects(metrics={"mine": balanced_accuracy_score})
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    made = Study(profile="insects")._with_own_metrics(record("q1_2", figures=((0.5,), (0.4,))), images)
    assert [e.figures for e in made.epochs] == [
        {"accuracy": 0.5, "mine": pytest.approx(5 / 6)},
        {"accuracy": 0.4, "mine": pytest.approx(7 / 18)},
    ]
    assert made.best("mine") == pytest.approx(5 / 6) and made.figure("last mine") == pytest.approx(7 / 18)


def test_a_run_whose_metric_has_no_figure_in_an_epoch_is_noted_and_told_of_as_failed(tmp_path, monkeypatch):
    def mine(labels, predicted):
        return 1.0 if predicted[-1] == 2 else float("nan")

    rows = {"scratch": Row("resnet10t", start="random")}
    profile = insects(data=pictures(tmp_path / "photos"), metrics={"mine": mine}, rows=rows).profile
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    trained = record("q1_2", 4, figures=((0.5,), (0.4,)), id="insects-scratch")
    monkeypatch.setattr(Study, "_train", lambda *_: (trained, images, None))
    study = Study(profile="insects", device="cpu", results=tmp_path / "results")
    with pytest.raises(TrainingFailed) as failed:
        study.run(profile.rows[0], 4)
    told = "insects-scratch, seed 4, epoch 2: metric mine: returns nan. To mend: let it return a finite number"
    (note,) = study.store.failures()
    assert str(failed.value).startswith(told) and note.reason == str(failed.value)
    assert (note.id, note.seed, note.epoch, note.lr) == ("insects-scratch", 4, 2, 0.1)
    page = report_page(profile, [], NO_BOUNDS, {}, failures=[note])
    assert "1 of 1 seeds failed" in page and "metric mine: returns nan" in page


def test_pages_have_a_table_of_the_metric_and_the_verdict_and_nothing_of_the_report():
    claim = Claim(better="finetune", worse="scratch", metric="mine", sentence="a start <helps>")
    profile = insects(metrics={"mine": right}, claims=[claim], title="Insects").profile
    runs = [own_record("scratch", s, ((0.3, 0.2), (0.4, 0.3))) for s in range(3)]
    runs += [own_record("finetune", s, ((0.8, 0.7 + s / 50), (0.7, 0.6))) for s in range(3)]
    text = report_page(profile, runs, NO_BOUNDS, {})
    assert "# Insects\n" in text and "## Insects (photos)" in text and "### mine" in text
    assert re.search(r"\| insects-finetune \|.*\| 0\.7200 ± 0\.0200 ", text.split("### mine")[1])
    assert re.search(r"a start &lt;helps&gt; +\| mine +\| \+0\.4200 .*\| supported", text)
    assert not re.search(r"[Rr]eport|make-up|bound", text)

    images = ImageResults(predicted=np.stack([LABELS, LABELS]), labels=LABELS)
    page, pictures = verdicts_page(profile, runs, lambda run: images, NO_BOUNDS)
    assert page.startswith("# Insects: what holds, and how sure") and "the report" not in page and not pictures
    assert re.search(r"a start &lt;helps&gt; \| mine +\| \+0\.4200 .* 3 .*\*\*supported\*\*", page)
    (outcome,) = judge_all(profile, runs, lambda run: images)
    assert outcome.noise.mean == 0 and outcome.resolution == 1 / 6  # the images say what the records do not


def test_runs_from_before_a_metric_are_passed_over_where_it_is_asked_for():
    claim = Claim(better="finetune", worse="scratch", metric="mine")
    profile = insects(metrics={"mine": right}, claims=[claim]).profile
    old = own_record("scratch", 0, ((0.3, 0.2),))
    old = replace(old, epochs=[replace(e, figures={"accuracy": 0.3}) for e in old.epochs])
    runs = [old, own_record("finetune", 0, ((0.8, 0.7),))]
    assert judge_all(profile, runs) == []
    accuracy, mine = report_page(profile, runs, None, {}).split("### mine")
    assert "insects-scratch" in accuracy and "insects-scratch" not in mine.split("### Weights")[0]


def judged(claim, profile, runs):
    """What the fixture `judged` says of a claim in a session that had these runs."""
    session = SimpleNamespace(finished=lambda rows: [r for r in runs if r.row in {row.row for row in rows}])
    return StudyPlugin.outcome(session, claim, profile)


def test_what_a_test_is_told_of_a_claim_is_what_the_page_says():
    """Differences of a third of an image, equal for all seeds; and of about three, for one claim of two."""
    small = Claim(better="small", worse="scratch", metric="mine")
    large = Claim(better="finetune", worse="scratch", metric="mine")
    rows = ROWS | {"small": ROWS["scratch"]}
    profile = insects(metrics={"mine": right}, claims=[small, large], rows=rows).profile
    runs = [own_record("scratch", s, ((0.3, 0.30),)) for s in range(3)]
    runs += [own_record("small", s, ((0.3, 0.36),)) for s in range(3)]
    runs += [own_record("finetune", s, ((0.8, 0.72 + s / 10),)) for s in range(3)]
    told = [judged(claim, profile, runs) for claim in profile.claims]
    assert told == judge_all(profile, runs) and [o.claim for o in told] == [small, large]
    assert told[0].verdict == "undecided" and told[0].comparison.p_value > 0.05 and told[0].resolution == 1 / 6
    assert told[1].adjusted_p == pytest.approx(2 * told[1].comparison.p_value)
    other = Claim(better="finetune", worse="small", metric="accuracy")
    (*_, third) = judge_all(replace(profile, claims=(small, large, other)), runs)
    assert judged(other, profile, runs) == third
    assert len(profile.claims) == 2


def test_a_claim_of_the_reports_is_judged_by_itself_in_a_test():
    claim = next(c for c in claims_of(PROFILES["quick"]) if c.rows == ("q1_2", "q1_1"))
    figures = {"q1_2": 0.8, "q1_1": 0.7, "q1_3": 0.5}
    runs = [record(row, s, ((figure + s / 50,),)) for row, figure in figures.items() for s in range(3)]
    assert judged(claim, PROFILES["quick"], runs) == judge(claim, runs)


# Files from before


def test_files_that_say_which_images_were_right_are_still_read():
    right_ones = np.array([[True, False, True, False], [True, True, True, True]])
    labels = np.array([0, 0, 1, 1], np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, right=right_ones, labels=labels)
    images = ImageResults.from_bytes(buffer.getvalue(), Path("old.npz"))
    assert images.predicted.tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]] and images.predicted.dtype == np.uint8
    assert np.array_equal(images.right, right_ones) and np.array_equal(images.strata, labels)
    again = ImageResults.from_bytes(images.to_bytes(), Path("new.npz"))
    assert np.array_equal(again.predicted, images.predicted)


# Sessions


FILE = """
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from cvhw4 import Ablation, Claim, Recipe, Row

short = Recipe(size=32, batch=6, epochs=2)
insects = Ablation(
    "insects", data="photos", recipe=short,
    rows={"scratch": Row("resnet18", start="random"), "other": Row("resnet10t", start="random")},
    metrics={"balanced": balanced_accuracy_score},
    claims=[Claim(better="other", worse="scratch", metric="balanced")],
)
pytestmark = pytest.mark.ablation(insects)

def test_row(train, experiment, seed):
    assert train(experiment, seed).best("balanced") >= 0

def test_claim(judged, claim):
    assert judged(claim).claim is claim
"""
SCENES = """
import numpy as np
import pytest
from cvhw4 import Ablation, Recipe, Row

def mean_recall(confusion):
    there = confusion.sum(1) > 0
    return (confusion.diagonal()[there] / confusion.sum(1)[there]).mean()

scenes = Ablation(
    "scenes", data="streets", recipe=Recipe(size=32, batch=2, epochs=1),
    rows={"plain": Row("fcn8s/resnet10t", start="random", skips=False)}, metrics={"recall": mean_recall},
)

@pytest.mark.ablation(scenes)
def test_scenes(train, experiment, seed):
    record = train(experiment, seed)
    assert record.question == "q2" and 0 <= record.last("recall") <= 1
"""
BUILT_IN = """
import pytest

@pytest.mark.question("q1")
def test_portraits(train, experiment, seed):
    train(experiment, seed)
"""


@pytest.fixture
def own(pytester, monkeypatch):
    """A repository of the user's own: `own(*args)` runs pytest there."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CVHW4_CACHE", str(pytester.path / "cache"))
    pytester.makeconftest('pytest_plugins = ["cvhw4.pytest_plugin"]')
    pytester.makepyfile(test_insects=FILE)
    pictures(pytester.path / "photos")

    def run(*args, subprocess=False):
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner("-p", "no:cacheprovider", "--device", "cpu", "--threads", "1", *args)

    return run


def test_ablations_of_both_tasks_and_the_reports_rows_train_in_one_session(own, pytester, monkeypatch):
    load = study._load
    monkeypatch.setattr(study, "_load", lambda q, folder, *more: load(q, folder, *more) if folder else dataset(q))
    monkeypatch.setitem(PROFILES, "quick", TINY)
    pytester.makepyfile(test_scenes=SCENES, test_built_in=BUILT_IN)
    streets(pytester.path / "streets")
    threads = torch.get_num_threads()
    result = own("--seeds", "1", "-k", "not q1 or q1_2", "--junit-xml", "runs.xml")
    torch.set_num_threads(threads)
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=5)
    screen = result.stdout.str()
    for title in ("ablation study, insects", "ablation study, scenes", "ablation study, profile quick"):
        assert title in screen
    assert re.search(r"insects-other +balanced +\d\.\d+ +\d\.\d+ +1 +\d+ s\n", screen)
    assert "other_above_scratch-balanced" in screen

    results = pytester.path / "results"
    runs = {name: Store(results, name).load() for name in ("insects", "scenes", "quick")}
    assert {name: len(found) for name, found in runs.items()} == {"insects": 2, "scenes": 1, "quick": 1}
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
    assert "make-up" in (results / "quick" / "report.md").read_text()

    cases = ET.parse(pytester.path / "runs.xml").getroot().iter("testcase")
    found = {c.get("name"): {p.get("name"): p.get("value") for p in c.iter("property")} for c in cases}
    told = found["test_row[insects-other-seed0]"]
    (run,) = (r for r in runs["insects"] if r.row == "other")
    assert float(told["best balanced"]) == run.best("balanced") and float(told["last accuracy"]) == run.last("accuracy")
    assert {"train_seconds", "images_per_second", "device", "seed"} <= told.keys()
    assert not any(str(pytester.path) in value for of_case in found.values() for value in of_case.values())

    again = own("--seeds", "1", "--reuse", "test_insects.py")
    torch.set_num_threads(threads)
    again.assert_outcomes(passed=3)
    assert again.stdout.str().count("reused") == 2


OTHERS = """
import pytest

@pytest.mark.question("why")
@pytest.mark.parametrize(("claim", "seed"), [("a", 1)])
def test_other(claim, seed):
    pass
"""


def test_a_keyword_that_selects_nothing_is_answered_with_the_rows_that_tests_asked_for(own, pytester):
    pytester.makepyfile(test_others=OTHERS)
    both = own("-k", "typo").stdout.str()
    assert "-k typo selects nothing. Rows of ablation insects: insects-scratch,\n  insects-other.\n" in both
    assert "profile quick" not in both
    assert "insects-scratch" in own("-k", "typo", "-n", "1", subprocess=True).stdout.str()
    others = own("-k", "typo", "test_others.py")
    assert others.ret == pytest.ExitCode.NO_TESTS_COLLECTED and "selects nothing" not in others.stdout.str()
    pytester.makepyfile(test_built_in=BUILT_IN)
    lines = own("-k", "typo", "test_built_in.py").stdout.lines
    place = next(i for i, line in enumerate(lines) if line.startswith("-k typo selects nothing. "))
    end = next(i for i, line in enumerate(lines) if line.endswith("."))
    rows = ", ".join(row.id for row in PROFILES["quick"].rows)
    told = " ".join(line.strip() for line in lines[place : end + 1])
    assert told == f"-k typo selects nothing. Rows of profile quick: {rows}."
    assert all(len(line) <= 80 for line in lines[place : end + 1])


UNUSABLE = {
    "no folder": (lambda p: (p / "photos").rename(p / "pictures"), "photos: does not exist"),
    "a class too many": (
        lambda p: (p / "photos" / "val" / "fly").mkdir(),
        "4 class folders (ant, bee, fly, wasp), not 3",
    ),
    "no picture": (lambda p: (p / "photos/train/ant/0.png").write_bytes(b"x"), "0.png: is not a picture in JPEG"),
    "a metric": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace("balanced_accuracy_score}", "len}")),
        "metric balanced: raises TypeError: len() takes exactly one argument (2 given)",
    ),
    "a network": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace("resnet10t", "resnet11t")),
        "resnet11t: is not a known network",
    ),
    "the table": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace('start="random"', 'start="nothing"', 1)),
        "ablation insects, row scratch: has start='nothing'",
    ),
    "the mark": (
        lambda p: (p / "test_insects.py").write_text(
            FILE.replace("mark.ablation(insects)", 'mark.ablation("insects")')
        ),
        "is marked with an ablation that is none",
    ),
}


@pytest.mark.parametrize(("spoil", "told"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_one_line_before_anything_is_trained(own, pytester, spoil, told):
    spoil(pytester.path)
    result = own("--seeds", "1")
    errors = [line for line in (result.outlines + result.errlines) if line.startswith("ERROR: ")]
    assert result.ret == 4 and len(errors) == 1 and told in errors[0], result.stdout.str()
    assert not (pytester.path / "results").exists() and "Traceback" not in result.stdout.str()


ORDINARY = """
import pytest

@pytest.fixture
def claim():
    return "a claim of the user's"

@pytest.mark.parametrize("experiment", ["a", "b"])
def test_of_names(experiment):
    assert experiment in "ab"

@pytest.mark.parametrize(("experiment", "seed"), [("a", 0)])
def test_of_pairs(experiment, seed):
    assert (experiment, seed) == ("a", 0)

def test_of_a_fixture(claim):
    assert claim == "a claim of the user's"

@pytest.mark.parametrize("control", [3])
def test_of_a_number(control):
    assert control == 3

@pytest.mark.parametrize("claim", [1, 2])
def test_with_a_fixture_of_ours(judged, claim):
    assert claim in (1, 2)

@pytest.mark.question("q1")
@pytest.mark.parametrize("seed", [7])
@pytest.mark.parametrize("experiment", ["mine"])
def test_marked(experiment, seed):
    assert (experiment, seed) == ("mine", 7)

@pytest.mark.question
def test_that_a_mark_of_the_users_asks_for_nothing(): pass

@pytest.mark.question("why?")
def test_of_another_question(tmp_path): pass
"""


def test_tests_of_the_users_own_keep_their_names(own, pytester):
    pytester.makepyfile(test_ordinary=ORDINARY, test_before="def test_last(): pass")
    result = own("-v", "test_ordinary.py", "test_before.py")
    result.assert_outcomes(passed=11)
    assert result.ret == 0 and "test_last" in [line for line in result.outlines if "PASSED" in line][-1]  # not sorted
    lone = own("--collect-only", "-q", pytester.makepyfile(test_lone="def test_it(claim, control): pass"))
    assert "test_lone.py::test_it" in lone.outlines


def test_two_workers_share_the_runs_and_judge_the_claim(own, pytester):
    result = own("-n", "2", "--seeds", "1", subprocess=True)
    result.assert_outcomes(passed=3)
    for row in ("scratch", "other"):
        result.stdout.re_match_lines_random([rf"insects-{row} +seed 0  best accuracy .*\[[12]/2, "])
    assert "ablation study, insects" in result.stdout.str()
    assert len(Store(pytester.path / "results", "insects").load()) == 2


def test_workers_tell_of_data_that_cannot_be_used(own, pytester):
    (pytester.path / "photos").rename(pytester.path / "pictures")
    result = own("-n", "1", "--seeds", "1", subprocess=True)
    assert result.ret == 4 and "photos: does not exist" in result.stdout.str()
    assert not (pytester.path / "results").exists()


def test_an_ablation_reaches_a_process_that_cannot_import_its_files(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from cvhw4.cluster import _own_modules

    (tmp_path / "shares").mkdir()
    (tmp_path / "shares" / "mine.py").write_text(
        "from functools import partial\nimport counted\nfrom cvhw4 import Ablation, Row\n"
        "from shared.parts import part\n"
        "def share(of, labels, predicted):\n    return part(counted.right(labels, predicted), of)\n"
        "a = Ablation('mine', data='p', rows={'r': Row('resnet18')}, metrics={'half': partial(share, 2)})\n"
    )
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "parts.py").write_text("def part(whole, of):\n    return whole / of\n")
    (tmp_path / "counted.py").write_text("def right(labels, predicted):\n    return (labels == predicted).mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "shares")
    import counted
    import mine
    from shared import parts

    profile = mine.a.profile
    assert _own_modules(profile, None) == [mine]
    own = _own_modules(profile, tmp_path)
    assert {module.__name__ for module in own} == {"mine", "counted", "shared.parts"}
    assert _own_modules(insects(metrics={"b": balanced_accuracy_score}).profile, None) == []
    assert _own_modules(PROFILES["quick"], tmp_path) == []
    monkeypatch.chdir(ROOT)
    assert not {"cvhw4", "torch"} & {module.__name__.partition(".")[0] for module in _own_modules(profile, ROOT)}
    for module in own:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        pickled = ray.cloudpickle.dumps((profile, Study(profile="mine")))
    finally:
        for module in (mine, counted, parts):
            ray.cloudpickle.unregister_pickle_by_value(module)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "profile").write_bytes(pickled)
    code = (
        "import json, pickle, numpy as np\nfrom cvhw4.experiments import PROFILES\n"
        "profile, study = pickle.load(open('profile', 'rb'))\nPROFILES[profile.name] = profile\n"
        "half = profile.metrics['half'].function(np.array([0, 1]), np.array([0, 0]))\n"
        "print(json.dumps([half, str(study.folder('q1')), profile.rows[0].id]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", env=env, capture_output=True, text=True)
    assert json.loads(told.stdout) == [0.25, str(tmp_path / "shares" / "p"), "mine-r"], told.stderr
