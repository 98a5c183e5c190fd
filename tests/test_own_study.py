"""A user's own study: metrics by hand-worked numbers, pages, and sessions that train it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.metrics
import tabulate  # noqa: F401
import timm  # noqa: F401
import torch
import torchmetrics
import torchvision.transforms.v2  # noqa: F401
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

# Sessions inside this process throw away the modules they import; what cannot be imported twice is imported here.
import cvhw4.training.fit  # noqa: F401
from cvhw4 import Claim, InputError, Metric, Recipe, Row
from cvhw4.errors import TrainingFailed
from cvhw4.records.images import ImageResults, confusion
from cvhw4.records.store import Store
from cvhw4.report.plots import curves, forest
from cvhw4.report.results import report_page
from cvhw4.report.verdicts import verdicts_page
from cvhw4.runner import Runner
from cvhw4.statistics.bounds import NO_BOUNDS
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.verdicts import judge_all
from tests.studies import ROOT, always_nan, insects, pictures, right, streets
from tests.tiny import MERGED, QUICK, record

pytest_plugins = ["pytester"]


# Metrics, by hand


PREDICTED = np.array([[0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]], np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 2], np.uint8)


def test_an_own_metric_is_given_labels_and_predictions_of_every_epoch():
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    # recalls 3/3, 1/2, 1/1; then 2/3, 1/2, 0
    assert images.figure("balanced", 1, own=Metric(balanced_accuracy_score)) == pytest.approx(5 / 6)
    assert images.figure("balanced", 2, own=Metric(balanced_accuracy_score)) == pytest.approx(7 / 18)
    assert images.figure("accuracy", 2) == pytest.approx(1 / 2) == images.figure("mine", 2, own=Metric(right))


def test_an_own_metric_of_draws_counts_each_image_as_often_as_it_is_drawn():
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    draws = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 3, 0, 2, 1]])
    found = images.figure("balanced", 2, draws, Metric(balanced_accuracy_score))
    assert found == pytest.approx([7 / 18, 0])
    assert images.figure("mine", 2, draws, Metric(right)) == pytest.approx(images.figure("accuracy", 2, draws))
    by_own = image_noise([(1, [(images, 1)])], "mine", np.random.default_rng(0), 50, Metric(right))
    assert by_own == image_noise([(1, [(images, 1)])], "accuracy", np.random.default_rng(0), 50)


def test_the_confusion_matrix_leaves_void_out_and_merges_labels_to_three_classes():
    counts = np.zeros((12, 3), np.int64)
    counts[0, 0], counts[3, 1], counts[5, 0], counts[8, 2], counts[10, 1], counts[11, 1] = 5, 7, 2, 3, 4, 100
    assert confusion(counts, MERGED[3].targets).tolist() == [[5, 0, 0], [2, 7, 0], [0, 4, 3]]
    eleven = np.arange(12 * 11).reshape(12, 11)
    assert np.array_equal(confusion(eleven), eleven[:11]) and confusion(eleven).dtype == np.int64


def test_an_own_metric_of_scenes_is_given_the_whole_sets_confusion_matrix():
    counts = np.random.RandomState(0).randint(0, 9, (2, 3, 2, 12, 11)).astype(np.uint32)
    images = ImageResults(counts=counts)
    share = Metric(lambda m: np.trace(m) / m.sum())
    assert images.figure("share", 2, own=share) == pytest.approx(float(images.figure("set_pixel_accuracy", 2)))
    draws = np.array([[2, 0, 1], [1, 1, 1]])
    assert images.figure("share", 1, draws, share) == pytest.approx(images.figure("set_pixel_accuracy", 1, draws))


# Metrics of scores. Of two classes: the second's probability is ranked 3rd, 1st, 2nd, 4th and the last two are alike.
SECOND = np.array([0.5, 0.9, 0.6, 0.4, 0.2, 0.2], np.float32)
TWO_LABELS = np.array([1, 1, 0, 0, 1, 0], np.uint8)
TWO = ImageResults(
    predicted=np.array([[0, 1, 1, 0, 0, 0]] * 2, np.uint8),
    labels=TWO_LABELS,
    scores=SECOND[None, :, None],
    scored=np.array([2], np.uint16),
)
THREE = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [0.35, 0.4, 0.25]], np.float32)
OF_SCORES = {
    # pairs of a positive and a negative in order: 0.5 and 0.9 beat 1 + 1 and 3, 0.2 beats none but ties with one
    "roc_auc_score": (sklearn.metrics.roc_auc_score, (2 + 3 + 0.5) / 9),
    "binary_auroc": (torchmetrics.functional.classification.binary_auroc, (2 + 3 + 0.5) / 9),
    "BinaryAUROC": (torchmetrics.classification.BinaryAUROC(), (2 + 3 + 0.5) / 9),
    # precision at each positive's rank: 1/1, 2/3 and, at the tie, 3/6
    "average_precision_score": (sklearn.metrics.average_precision_score, (1 + 2 / 3 + 3 / 6) / 3),
    "average precision of torchmetrics": (torchmetrics.classification.BinaryAveragePrecision(), (1 + 2 / 3 + 0.5) / 3),
    # one bin, of confidence in the second class and its share: the minus is torchmetrics' own
    "calibration": (-torchmetrics.classification.BinaryCalibrationError(n_bins=1), -abs(float(SECOND.mean()) - 0.5)),
    "brier": (
        lambda labels, second: -float(((second - labels) ** 2).mean()),
        -float(((SECOND - TWO_LABELS) ** 2).mean()),
    ),
}


@pytest.mark.parametrize("name", OF_SCORES)
def test_a_metric_of_scores_is_given_the_second_classs_probability(name):
    function, expected = OF_SCORES[name]
    metric = Metric(function, of="scores")
    for _ in range(2):  # an object of torchmetrics starts anew each time
        assert TWO.figure(name, 2, own=metric) == pytest.approx(expected, abs=1e-6)
    twice = TWO.figure(name, 2, np.array([[1] * 6, [2] * 6]), metric)
    assert twice == pytest.approx([expected, expected], abs=1e-6)
    with pytest.raises(KeyError, match="scores of epoch 1"):
        TWO.figure(name, 1, own=metric)


def test_scores_of_several_classes_are_a_row_per_image():
    images = ImageResults.stack([THREE.argmax(1).astype(np.uint8)], np.array([0, 1, 1, 2], np.uint8), [THREE])
    seen = []
    images.figure("seen", 1, own=Metric(lambda *evidence: seen.append(evidence) or 0.5, of="scores"))
    assert np.array_equal(seen[0][1], THREE) and seen[0][1].dtype == np.float32 and seen[0][0].dtype == np.int64
    top = partial(sklearn.metrics.top_k_accuracy_score, k=2, labels=[0, 1, 2])  # wrong: the last
    assert images.figure("top", 1, own=Metric(top, of="scores")) == pytest.approx(3 / 4)
    theirs = torchmetrics.classification.MulticlassAccuracy(3, top_k=2, average="micro")
    assert images.figure("top", 1, own=Metric(theirs, of="scores")) == pytest.approx(3 / 4)
    ovr = partial(sklearn.metrics.roc_auc_score, multi_class="ovr")
    auroc = partial(torchmetrics.functional.classification.multiclass_auroc, num_classes=3)
    one, other = (float(images.figure("auc", 1, own=Metric(f, of="scores"))) for f in (ovr, auroc))
    assert one == pytest.approx(other)
    # Of labels likewise: tensors, and the predictions first, which precision, unlike accuracy, can tell.
    theirs = partial(torchmetrics.functional.classification.multiclass_precision, num_classes=3)
    precision = partial(sklearn.metrics.precision_score, average="macro", zero_division=0)
    images = replace(images, labels=np.array([0, 1, 1, 1], np.uint8))
    one, other = (float(images.figure("precision", 1, own=Metric(f))) for f in (precision, theirs))
    assert one == pytest.approx(other) != float(images.figure("swapped", 1, own=Metric(lambda a, b: precision(b, a))))


def test_results_with_scores_are_stored_and_read_and_damaged_ones_refused():
    whole = ImageResults.stack(
        [(SECOND > 0.5).astype(np.uint8)] * 3, TWO_LABELS, [np.stack([1 - SECOND, SECOND], 1)] * 3
    )
    assert whole.scores.shape == (3, 6, 1) and whole.scored.tolist() == [1, 2, 3]
    kept = whole.with_scores_of({3, 1})
    back = ImageResults.from_bytes(kept.to_bytes(), Path("x.npz"))
    assert back.scored.tolist() == [1, 3] and np.array_equal(back.scores[1], SECOND[:, None])
    assert back.figure("accuracy", 2) == whole.figure("accuracy", 2)
    for changes in (dict(scored=None), dict(scores=whole.scores + 1), dict(scored=np.array([1, 2, 9], np.uint16))):
        with pytest.raises(InputError, match="is not a file of image results"):
            ImageResults.from_bytes(replace(whole, **changes).to_bytes(), Path("x.npz"))


def own_auc(labels, predicted):
    return sklearn.metrics.roc_auc_score(labels, predicted) + roc_auc_score(labels, predicted)


TOLD_OF = {
    "scikit-learn's": (sklearn.metrics.roc_auc_score, "given labels, and roc_auc_score is a metric of scores. Fix: wr"),
    "in a partial": (partial(sklearn.metrics.average_precision_score, pos_label=1), "average_precision_score is a met"),
    "torchmetrics'": (torchmetrics.functional.classification.binary_auroc, "binary_auroc is a metric of scores"),
    "an object's": (torchmetrics.classification.BinaryCalibrationError(), "BinaryCalibrationError is a metric of"),
    "in a function": (own_auc, "metric mine: is given labels, and roc_auc_score is a metric of scores"),
    "another": (Metric(right, of="pixels"), "metric mine: has of='pixels'. Fix: choose one of labels, scores"),
}


@pytest.mark.parametrize("name", TOLD_OF)
def test_a_metric_of_scores_that_is_given_labels_is_told_of_when_the_study_is_made(name):
    metric, told = TOLD_OF[name]
    with pytest.raises(InputError, match=told):
        insects(metrics={"mine": metric})
    with pytest.raises(InputError, match="metric mine: wants scores, of which scenes keep none"):
        insects(rows={"a": Row("fcn8s/resnet18")}, classes=2, metrics={"mine": Metric(right, of="scores")})
    insects(metrics={"mine": Metric(own_auc, of="scores"), "f1": sklearn.metrics.f1_score})


def test_metrics_are_tried_on_scores_and_labels_before_training(tmp_path):
    of_scores = Metric(partial(sklearn.metrics.roc_auc_score, multi_class="ovr"), of="scores")
    theirs = Metric(torchmetrics.classification.MulticlassAUROC(3), of="scores")
    folder = pictures(tmp_path / "photos")
    Runner(study=insects(data=folder, metrics={"a": of_scores, "b": theirs}), results=tmp_path / "results").check()
    wrong = insects(data=folder, metrics={"mine": Metric(balanced_accuracy_score, of="scores")})
    with pytest.raises(InputError, match="metric mine: raises ValueError"):
        Runner(study=wrong, results=tmp_path / "results").check()


def test_a_run_keeps_the_scores_that_its_figures_are_of(tmp_path):
    metrics = {"auc": Metric(sklearn.metrics.roc_auc_score, of="scores"), "mine": right}
    rows = {"a": Row("resnet10t", start="random"), "b": Row("resnet10t", start="random", trained="last layer")}
    claims = [Claim(better="a", worse="b", metric="auc")]
    recipe = Recipe(size=32, batch=4, epochs=3)
    folder = pictures(tmp_path / "photos", ("ant", "bee"))
    study = insects(data=folder, metrics=metrics, rows=rows, claims=claims, recipe=recipe)
    runner = Runner(study=study, device="cpu", results=tmp_path / "results", threads=1)
    runs = [runner.run(row, 0) for row in study.rows.values()]
    for run in runs:
        images = runner.store.images(run)
        best = run.best_epoch("auc")
        assert set(images.scored.tolist()) == {best, 3}
        assert float(images.figure("auc", best, own=study.metrics["auc"])) == run.best("auc")
        assert np.array_equal((images.scores[-1, :, 0] > 0.5).astype(np.uint8), images.predicted[-1])
    (outcome,) = judge_all(study, runs, runner.store.images)
    assert outcome.noise is not None and outcome.noise.images == 6
    fewer = lambda run: replace(runner.store.images(run), scores=None, scored=None)  # noqa: E731
    (without,) = judge_all(study, runs, fewer)  # as of runs from before the metric was of scores
    assert without.noise is None
    as_labels = insects(data=folder, metrics={"auc": Metric(right), "mine": right}, rows=rows, recipe=recipe)
    other = Runner(study=as_labels, device="cpu", results=tmp_path / "results", threads=1)
    assert other.find(as_labels.rows["a"], 0) is None and runner.find(study.rows["a"], 0) == runs[0]


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (always_nan, "metric mine: returns nan. Fix: let it return a finite number"),
        (lambda labels, predicted: 1 / 0, "metric mine: raises ZeroDivisionError: division by zero"),
        (lambda labels: 1.0, "metric mine: raises TypeError"),
        (lambda labels, predicted: labels, "metric mine: raises TypeError"),
    ],
)
def test_a_metric_without_a_figure_is_one_error_before_anything_is_trained(metric, told, tmp_path):
    folder = pictures(tmp_path / "photos")
    study = insects(data=folder, metrics={"mine": metric})
    with pytest.raises(InputError, match=told):
        Runner(study=study, results=tmp_path / "results").check()
    with pytest.raises(InputError, match=told):
        ImageResults(predicted=PREDICTED, labels=LABELS).figure("mine", 1, own=Metric(metric))
    assert not (tmp_path / "results").exists()


def precision_of_wasps(labels, predicted):
    return float(np.float64((labels[predicted == 2] == 2).sum()) / (predicted == 2).sum())


def test_a_metric_without_a_figure_of_networks_that_say_one_class_alone_is_told_before_training(tmp_path):
    study = insects(data=pictures(tmp_path / "photos"), metrics={"wasps": precision_of_wasps})
    told = "metric wasps: returns nan where every image is predicted as class 0. Fix: let it return a finite"
    with pytest.raises(InputError, match=told), warnings.catch_warnings():
        warnings.simplefilter("error")  # those of made-up predictions are nobody's
        Runner(study=study, results=tmp_path / "results").check()
    rows = {"plain": Row("fcn8s/resnet10t", start="random")}
    scenes = insects(
        name="scenes", rows=rows, recipe=Recipe(size=32), metrics={"cars": lambda m: 1 / m[:, 8].sum()}, classes=11
    )
    with pytest.raises(InputError, match="cars: returns inf where every pixel is predicted as class 0"):
        Runner(study=scenes, results=tmp_path / "results").check()
    assert not (tmp_path / "results").exists()


def own_record(row, seed, figures, **changes):
    """A record of the study "insects"."""
    made = replace(record("q1_2", seed, figures=tuple((a,) for a, _ in figures)), row=row, study="insects")
    epochs = [replace(e, figures=e.figures | {"mine": m}) for e, (_, m) in zip(made.epochs, figures, strict=True)]
    data = replace(made.data, name="photos", embedded=False, val=6)
    fingerprint, configuration = (text.encode().hex().ljust(64, "0") for text in (f"{row}{seed}", row))
    whole = dict(epochs=epochs, data=data, fingerprint=fingerprint, configuration=configuration)
    return replace(made, **(whole | changes))


def test_own_figures_are_in_every_epoch_of_the_record():
    study = insects(metrics={"mine": balanced_accuracy_score})
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    made = Runner(study=study)._with_own_metrics(record("q1_2", figures=((0.5,), (0.4,))), images)
    assert [e.figures for e in made.epochs] == [
        {"accuracy": 0.5, "mine": pytest.approx(5 / 6)},
        {"accuracy": 0.4, "mine": pytest.approx(7 / 18)},
    ]
    assert made.best("mine") == pytest.approx(5 / 6) and made.figure("last mine") == pytest.approx(7 / 18)


def test_a_run_whose_metric_has_no_figure_in_an_epoch_is_noted_and_told_of_as_failed(tmp_path, monkeypatch):
    def mine(labels, predicted):
        return 1.0 if predicted[-1] == 2 else float("nan")

    rows = {"scratch": Row("resnet10t", start="random")}
    study = insects(data=pictures(tmp_path / "photos"), metrics={"mine": mine}, rows=rows)
    images = ImageResults(predicted=PREDICTED, labels=LABELS)
    trained = record("q1_2", 4, figures=((0.5,), (0.4,)), row="scratch")
    monkeypatch.setattr(Runner, "_train", lambda *_: (trained, images, None))
    runner = Runner(study=study, device="cpu", results=tmp_path / "results")
    with pytest.raises(TrainingFailed) as failed:
        runner.run(study.rows["scratch"], 4)
    told = "scratch, seed 4, epoch 2: metric mine: returns nan. Fix: let it return a finite number"
    (note,) = runner.store.failures()
    assert str(failed.value).startswith(told) and note.reason == str(failed.value)
    assert (note.row, note.seed, note.epoch, note.lr) == ("scratch", 4, 2, 0.1)
    page = report_page(study, [], NO_BOUNDS, {}, failures=[note])
    assert "1 of 1 seeds failed" in page and "metric mine: returns nan" in page


@pytest.mark.parametrize("names", [("scratch", "finetune"), ("q1_1-features", "q1_2-finetune"), ("q1_1", "q1_2")])
def test_pages_have_a_table_of_the_metric_and_the_verdict_and_nothing_of_the_report(names):
    """Whatever the rows are called; and no share of a variance that there is not."""
    worse, better = names
    claim = Claim(better=better, worse=worse, metric="mine", sentence="a start <helps>")
    rows = {name: Row("tf_efficientnet_lite0") for name in names}
    study = insects(metrics={"mine": right}, claims=[claim], title="Insects", rows=rows)
    runs = [own_record(worse, s, ((0.3, 0.2), (0.4, 0.3))) for s in range(3)]
    runs += [own_record(better, s, ((0.8, 0.7 + s / 50), (0.7, 0.6))) for s in range(3)]
    text = report_page(study, runs, NO_BOUNDS, {})
    assert "# Insects\n" in text and "## Insects (photos)" in text and "### mine" in text
    assert re.search(rf"\| {better} +\| 0\.720 ± 0\.020 ", text.split("### mine")[1])
    assert re.search(r"a start &lt;helps&gt; +\| mine +\| \+0\.300 .*\| \*\*supported\*\*", text)

    assert "bound" not in text

    images = ImageResults(predicted=np.stack([LABELS, LABELS]), labels=LABELS)
    page, pictures = verdicts_page(study, runs, lambda run: images, NO_BOUNDS)
    assert page.startswith("# Insects: what holds, and how sure") and not pictures
    assert re.search(r"a start &lt;helps&gt; \| mine +\| \+0\.300 .*\*\*supported\*\* +\| 3", page)
    (outcome,) = judge_all(study, runs, lambda run: images)
    assert outcome.noise.mean_variance == 0 and outcome.resolution == 1 / 6  # the images say what the records do not
    assert re.search(rf"^\| {worse} +\| accuracy +\| ± 0\.000 .*\| - +\| - +\| - +\| 3 +\|$", page, re.MULTILINE)
    groups = {name: [r for r in runs if r.row == name] for name in names}
    drawn = [forest([outcome], study), curves("x", "photos", groups, [*study.rows.values()], "mine", study)]
    for shown in (text, page, *(f"{picture.svg} {picture.alt} {picture.caption}" for picture in drawn)):
        assert not re.search(r"(?<!`cvhw4 )[Rr]eport|make-up|published|Published|nan\b|0\.8300|0\.8750", shown)


def test_runs_from_before_a_metric_are_passed_over_where_it_is_asked_for():
    claim = Claim(better="finetune", worse="scratch", metric="mine")
    study = insects(metrics={"mine": right}, claims=[claim])
    old = own_record("scratch", 0, ((0.3, 0.2),))
    old = replace(old, epochs=[replace(e, figures={"accuracy": 0.3}) for e in old.epochs])
    runs = [old, own_record("finetune", 0, ((0.8, 0.7),))]
    assert judge_all(study, runs) == []
    accuracy, mine = report_page(study, runs, None, {}).split("### mine")
    assert "scratch" in accuracy and "scratch" not in mine.split("### Settings")[0]


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

    def run(*args, subprocess=False):
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner("-p", "no:cacheprovider", "--device", "cpu", "--threads", "1", *args)

    return run


def test_the_example_of_binary_masks_trains_and_its_pages_have_its_classes(own, pytester):
    """As it stands, but for the seeds; from an installation to the verdict it is 20 lines of the user's own at most."""
    for name in ("test_cells.py", "make_cells.py", "unet.py"):
        shutil.copy(ROOT / "examples" / "binary-masks" / name, pytester.path)
    assert sum(line.strip() != "" for line in (pytester.path / "test_cells.py").read_text().splitlines()) < 20
    subprocess.run([sys.executable, "make_cells.py"], cwd=pytester.path, check=True)
    threads = torch.get_num_threads()
    result = own("test_cells.py", "--seeds", "1")
    torch.set_num_threads(threads)
    result.assert_outcomes(passed=3)
    assert re.search(r"attention_above_plain-set_miou .* undecided", result.stdout.str())  # one seed
    store = Store(pytester.path / "results", "cells")
    runs = {r.row: r for r in store.load()}
    assert {(name, r.settings["network"]) for name, r in runs.items()} == {
        ("attention", "UNet(attention=True)"), ("plain", "UNet"),
    }  # fmt: skip
    assert runs["attention"].parameters > runs["plain"].parameters
    for r in runs.values():
        assert [r.data.name, *r.data.classes] == ["scenes", "background", "cell"]
        assert store.images(r).counts.shape == (8, 8, 2, 3, 2)
    report = (pytester.path / "results" / "cells" / "report.md").read_text()
    assert "IoU by class, 2 classes" in report and re.search(r"^\| cell +\|", report, re.MULTILINE)
    assert "segmented by attention and plain. Pixels right only in attention, right only in plain" in report
    assert re.search(r"\| attention \| as built .*\| 0\.059 M \(0\.0587 M\) ", report)
    assert not re.search("Sky|Building|11 classes|skips", report)


def test_studies_of_both_tasks_and_the_homework_train_in_one_session(own, pytester):
    pytester.makepyfile(test_scenes=SCENES, test_homework=HOMEWORK)
    streets(pytester.path / "streets")
    threads = torch.get_num_threads()
    result = own("--seeds", "1", "-p", "tests.tiny", "--junit-xml", "runs.xml")
    torch.set_num_threads(threads)
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
    torch.set_num_threads(threads)
    again.assert_outcomes(passed=3)
    assert again.stdout.str().count("reused") == 2

    pytester.makepyfile(test_insects=FILE.replace("relu()", "sigmoid()"))
    changed = own("--seeds", "1", "--reuse", "test_insects.py")
    torch.set_num_threads(threads)
    assert changed.ret == 0 and changed.stdout.str().count("reused") == 1  # the callable's text is another
    found = {run.fingerprint: run for run in Store(results, "insects").load() if run.row == "other"}
    assert len({run.settings["network_source"] for run in found.values()}) == 2
    assert {run.settings["network"] for run in found.values()} == {"Small(width=4)"}
    assert (
        {run.settings["start"] for run in found.values()} == {"as built"} == {r.weights.origin for r in found.values()}
    )
    assert "Small(width=4)" in (results / "insects" / "report.md").read_text()


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
    assert told == f"-k typo selects nothing. Rows of study quick: {', '.join(QUICK.rows)}."
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
        lambda p: (p / "test_insects.py").write_text(FILE.replace("resnet18", "resnet11t")),
        "resnet11t: is not a known network",
    ),
    "the table": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace('start="random"', 'start="nothing"', 1)),
        "study insects, row scratch: has start='nothing'",
    ),
    "a row of the mark": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace("study(insects)", "study(insects, rows=['nobody'])")),
        "names the row nobody. Fix: choose from scratch, other",
    ),
    "a setting of the mark": (
        lambda p: (p / "test_insects.py").write_text(
            FILE.replace("study(insects)", "study(insects, rows={'other': {'start': 'imagenet'}})")
        ),
        "says start='imagenet' of other, which has 'as built'",
    ),
    "a word of the mark": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace("study(insects)", "study(insects, row='other')")),
        "is marked with row=. Fix: give rows= or group=",
    ),
    "two studies of one name": (
        lambda p: (p / "test_more.py").write_text(FILE),
        "study insects: is the name of two studies",
    ),
    "the mark": (
        lambda p: (p / "test_insects.py").write_text(FILE.replace("mark.study(insects)", 'mark.study("insects")')),
        "expects a cvhw4.Study",
    ),
}


@pytest.mark.parametrize(("corrupt", "told"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_one_line_before_anything_is_trained(own, pytester, corrupt, told):
    corrupt(pytester.path)
    result = own("--seeds", "1")
    errors = [line for line in (result.outlines + result.errlines) if line.startswith("ERROR: ")]
    assert result.ret == 4 and len(errors) == 1 and told in errors[0], result.stdout.str()
    assert not (pytester.path / "results").exists() and "Traceback" not in result.stdout.str()


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


def test_tests_of_the_users_own_keep_their_names(own, pytester):
    pytester.makepyfile(test_ordinary=ORDINARY, test_before="def test_last(): pass")
    result = own("-v", "test_ordinary.py", "test_before.py")
    result.assert_outcomes(passed=9)
    assert result.ret == 0 and "test_last" in [line for line in result.outlines if "PASSED" in line][-1]  # not sorted
    lone = own("--collect-only", "-q", pytester.makepyfile(test_lone="def test_it(claim, control): pass"))
    assert "test_lone.py::test_it" in lone.outlines


@pytest.mark.integration
def test_two_workers_share_the_runs_and_judge_the_claim(own, pytester):
    result = own("-n", "2", "--seeds", "1", subprocess=True)
    result.assert_outcomes(passed=3)
    for row in ("scratch", "other"):
        result.stdout.re_match_lines_random([rf"{row} +seed 0  best accuracy .*\[[12]/2, "])
    assert "ablation study insects" in result.stdout.str()
    assert len(Store(pytester.path / "results", "insects").load()) == 2


def test_workers_tell_of_data_that_cannot_be_used(own, pytester):
    (pytester.path / "photos").rename(pytester.path / "pictures")
    result = own("-n", "1", "--seeds", "1", subprocess=True)
    assert result.ret == 4 and "photos: does not exist" in result.stdout.str()
    assert not (pytester.path / "results").exists()


def test_a_study_reaches_a_process_that_cannot_import_its_files(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from cvhw4.executors.ray import _own_modules

    (tmp_path / "shares").mkdir()
    (tmp_path / "shares" / "mine.py").write_text(
        "from functools import partial\nimport counted\nfrom cvhw4 import Row, Study\n"
        "from shared.parts import part\n"
        "def share(of, labels, predicted):\n    return part(counted.right(labels, predicted), of)\n"
        "def build(classes):\n    return part(classes, 2)\n"
        "rows = {'r': Row('resnet18'), 'own': Row(partial(build))}\n"
        "a = Study('mine', data='p', rows=rows, metrics={'half': partial(share, 2)})\n"
        "b = Study('nets', data='p', rows={'own': Row(build)})\n"
    )
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "parts.py").write_text("def part(whole, of):\n    return whole / of\n")
    (tmp_path / "counted.py").write_text("def right(labels, predicted):\n    return (labels == predicted).mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "shares")
    import counted
    import mine
    from shared import parts

    study = mine.a
    assert _own_modules(study, None) == [mine] == _own_modules(mine.b, None)
    own = _own_modules(study, tmp_path)
    assert {module.__name__ for module in own} == {"mine", "counted", "shared.parts"}
    assert _own_modules(insects(metrics={"b": balanced_accuracy_score}), None) == []
    assert _own_modules(QUICK, tmp_path) == []
    monkeypatch.chdir(ROOT)
    assert not {"cvhw4", "torch"} & {module.__name__.partition(".")[0] for module in _own_modules(study, ROOT)}
    for module in own:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        pickled = ray.cloudpickle.dumps(Runner(study=study))
    finally:
        for module in (mine, counted, parts):
            ray.cloudpickle.unregister_pickle_by_value(module)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "runner").write_bytes(pickled)
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
    pytest.importorskip("ray")
    from cvhw4.executors.ray import _check_travels

    with (tmp_path / "file").open("w") as file:
        study = insects(rows={"a": Row(partial(print, file=file)), "b": Row("resnet18")})
        with pytest.raises(
            InputError, match=r"study insects, row a: has a network or a loss that cannot be sent .*Fix: write"
        ):
            _check_travels(study)
    _check_travels(insects())
