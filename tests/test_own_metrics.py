"""A user's own metrics: by hand-worked numbers, in records, and on pages."""

import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torchmetrics
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cvhw4 import Claim, Factorial, InputError, Metric, Recipe, Row, effects_section
from cvhw4.errors import TrainingFailed
from cvhw4.records.images import ImageResults
from cvhw4.report.evidence import evidence
from cvhw4.report.plots import curves, forest
from cvhw4.report.results import report_page
from cvhw4.report.verdicts import verdicts_page
from cvhw4.runner import Runner
from cvhw4.statistics.bounds import NO_BOUNDS
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.verdicts import judge_all
from tests.helpers.studies import always_nan, insects, pictures, right
from tests.helpers.tiny import record

PREDICTED = np.array([[0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]], np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 2], np.uint8)


IMAGES = ImageResults(predicted=PREDICTED, labels=LABELS)


def check_of(study, folder):
    """What a session does with a study before it trains."""
    Runner(study=study, results=folder / "results").check()


def test_an_own_metric_is_given_labels_and_predictions_of_every_epoch():
    balanced = Metric(balanced_accuracy_score)
    # recalls 3/3, 1/2, 1/1; then 2/3, 1/2, 0
    assert IMAGES.figure("balanced", 1, own=balanced) == pytest.approx(5 / 6)
    assert IMAGES.figure("balanced", 2, own=balanced) == pytest.approx(7 / 18)
    assert IMAGES.figure("accuracy", 2) == pytest.approx(1 / 2) == IMAGES.figure("mine", 2, own=Metric(right))
    draws = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 3, 0, 2, 1]])  # each image counts as often as it is drawn
    assert IMAGES.figure("balanced", 2, draws, balanced) == pytest.approx([7 / 18, 0])
    assert IMAGES.figure("mine", 2, draws, Metric(right)) == pytest.approx(IMAGES.figure("accuracy", 2, draws))
    with pytest.raises(KeyError, match="loss"):  # which does not come from the images one by one
        IMAGES.figure("loss", 1)
    by_own, built_in = (
        image_noise([(1, [(IMAGES, 1)])], name, np.random.default_rng(0), 50, own)
        for name, own in (("mine", Metric(right)), ("accuracy", None))
    )
    assert by_own == built_in
    made = Runner(study=insects(metrics={"mine": balanced_accuracy_score}))._with_own_metrics(
        record("q1_2", figures=((0.5,), (0.4,))), IMAGES
    )
    assert [e.figures for e in made.epochs] == [
        {"accuracy": 0.5, "mine": pytest.approx(5 / 6)},
        {"accuracy": 0.4, "mine": pytest.approx(7 / 18)},
    ]
    assert made.best("mine") == pytest.approx(5 / 6) and made.figure("last mine") == pytest.approx(7 / 18)


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
        -(0.25 + 0.01 + 0.36 + 0.16 + 0.64 + 0.04) / 6,
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

    def figure(function, of="scores", images=images):
        return float(images.figure("mine", 1, own=Metric(function, of=of)))

    seen = []
    figure(lambda *evidence: seen.append(evidence) or 0.5)
    assert np.array_equal(seen[0][1], THREE) and seen[0][1].dtype == np.float32 and seen[0][0].dtype == np.int64
    top = partial(sklearn.metrics.top_k_accuracy_score, k=2, labels=[0, 1, 2])  # wrong: the last
    theirs = torchmetrics.classification.MulticlassAccuracy(3, top_k=2, average="micro")
    assert figure(top) == figure(theirs) == pytest.approx(3 / 4)
    ovr = partial(sklearn.metrics.roc_auc_score, multi_class="ovr")
    auroc = partial(torchmetrics.functional.classification.multiclass_auroc, num_classes=3)
    assert figure(ovr) == pytest.approx(figure(auroc))
    # Of labels likewise: tensors, and the predictions first, which precision, unlike accuracy, can tell.
    theirs = partial(torchmetrics.functional.classification.multiclass_precision, num_classes=3)
    precision = partial(sklearn.metrics.precision_score, average="macro", zero_division=0)
    images = replace(images, labels=np.array([0, 1, 1, 1], np.uint8))
    one, other, swapped = (figure(f, "labels", images) for f in (precision, theirs, lambda a, b: precision(b, a)))
    assert one == pytest.approx(other) != swapped


def test_results_with_scores_are_stored_and_read_and_damaged_ones_refused():
    scores = np.stack([1 - SECOND, SECOND], 1)
    whole = ImageResults.stack([(SECOND > 0.5).astype(np.uint8)] * 3, TWO_LABELS, [scores] * 3)
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


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (sklearn.metrics.roc_auc_score, "given labels, and roc_auc_score is a metric of scores. Fix: wr"),
        (partial(sklearn.metrics.average_precision_score, pos_label=1), "average_precision_score is a met"),
        (torchmetrics.functional.classification.binary_auroc, "binary_auroc is a metric of scores"),
        (torchmetrics.classification.BinaryCalibrationError(), "BinaryCalibrationError is a metric of"),
        (own_auc, "metric mine: is given labels, and roc_auc_score is a metric of scores"),
        (Metric(right, of="pixels"), "metric mine: has of='pixels'. Fix: choose one of labels, scores"),
    ],
)
def test_a_metric_of_scores_that_is_given_labels_is_told_of_when_the_study_is_made(metric, told):
    with pytest.raises(InputError, match=told):
        insects(metrics={"mine": metric})


def test_metrics_of_scores_are_of_pictures_alone():
    with pytest.raises(InputError, match="metric mine: wants scores, of which scenes keep none"):
        insects(rows={"a": Row("fcn8s/resnet18")}, classes=2, metrics={"mine": Metric(right, of="scores")})
    insects(metrics={"mine": Metric(own_auc, of="scores"), "f1": sklearn.metrics.f1_score})


def test_metrics_of_scores_are_tried_on_scores_before_training(tmp_path):
    of_scores = Metric(partial(sklearn.metrics.roc_auc_score, multi_class="ovr"), of="scores")
    theirs = Metric(torchmetrics.classification.MulticlassAUROC(3), of="scores")
    folder = pictures(tmp_path / "photos")
    check_of(insects(data=folder, metrics={"a": of_scores, "b": theirs}), tmp_path)
    wrong = insects(data=folder, metrics={"mine": Metric(balanced_accuracy_score, of="scores")})
    with pytest.raises(InputError, match="metric mine: raises ValueError"):
        check_of(wrong, tmp_path)


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
        seconds = sum(e.train_seconds for e in run.epochs)
        assert (run.times.train_seconds, run.times.images_per_second) == (seconds, 3 * run.data.train / seconds)
    assert runs[0].trained_parameters == runs[0].parameters > runs[1].trained_parameters == 2 * 512 + 2
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
        (lambda labels, predicted: 1e120, r"returns 1e\+120. Fix: let it return a finite number, 1e\+100 at most"),
        (lambda labels, predicted: 1 / 0, "metric mine: raises ZeroDivisionError: division by zero"),
        (lambda labels: 1.0, "metric mine: raises TypeError"),
        (lambda labels, predicted: labels, "metric mine: raises TypeError"),
    ],
)
def test_a_metric_without_a_figure_is_one_error_before_anything_is_trained(metric, told, tmp_path):
    with pytest.raises(InputError, match=told):
        check_of(insects(data=pictures(tmp_path / "photos"), metrics={"mine": metric}), tmp_path)
    with pytest.raises(InputError, match=told):
        IMAGES.figure("mine", 1, own=Metric(metric))
    assert not (tmp_path / "results").exists()


def precision_of_wasps(labels, predicted):
    return float(np.float64((labels[predicted == 2] == 2).sum()) / (predicted == 2).sum())


def test_a_metric_without_a_figure_of_networks_that_say_one_class_alone_is_told_before_training(tmp_path):
    study = insects(data=pictures(tmp_path / "photos"), metrics={"wasps": precision_of_wasps})
    told = "metric wasps: returns nan where every image is predicted as class 0. Fix: let it return a finite"
    with pytest.raises(InputError, match=told), warnings.catch_warnings():
        warnings.simplefilter("error")  # those of made-up predictions are nobody's
        check_of(study, tmp_path)
    rows, metrics = {"plain": Row("fcn8s/resnet10t", start="random")}, {"cars": lambda m: 1 / m[:, 8].sum()}
    scenes = insects(name="scenes", rows=rows, recipe=Recipe(size=32), metrics=metrics, classes=11)
    with pytest.raises(InputError, match="cars: returns inf where every pixel is predicted as class 0"):
        check_of(scenes, tmp_path)
    assert not (tmp_path / "results").exists()


def own_record(row, seed, figures, **changes):
    """A record of the study "insects"."""
    made = replace(record("q1_2", seed, figures=tuple((a,) for a, _ in figures)), row=row, study="insects")
    epochs = [replace(e, figures=e.figures | {"mine": m}) for e, (_, m) in zip(made.epochs, figures, strict=True)]
    data = replace(made.data, name="photos", embedded=False, val=6)
    fingerprint, configuration = (text.encode().hex().ljust(64, "0") for text in (f"{row}{seed}", row))
    whole = dict(epochs=epochs, data=data, fingerprint=fingerprint, configuration=configuration)
    return replace(made, **(whole | changes))


def test_a_run_whose_metric_has_no_figure_in_an_epoch_is_noted_and_told_of_as_failed(tmp_path, monkeypatch):
    def mine(labels, predicted):
        return 1.0 if predicted[-1] == 2 else float("nan")

    rows = {"scratch": Row("resnet10t", start="random")}
    study = insects(data=pictures(tmp_path / "photos"), metrics={"mine": mine}, rows=rows)
    trained = record("q1_2", 4, figures=((0.5,), (0.4,)), row="scratch")
    monkeypatch.setattr(Runner, "_train", lambda *_: (trained, IMAGES, None))
    runner = Runner(study=study, device="cpu", results=tmp_path / "results")
    with pytest.raises(TrainingFailed) as failed:
        runner.run(study.rows["scratch"], 4)
    told = "scratch, seed 4, epoch 2: metric mine: returns nan. Fix: let it return a finite number"
    (note,) = runner.store.failures()
    assert str(failed.value).startswith(told) and note.reason == str(failed.value)
    assert (note.row, note.seed, note.epoch, note.lr) == ("scratch", 4, 2, 0.1)
    page = report_page(study, [], NO_BOUNDS, {}, failures=[note])
    assert "1 of 1 seed failed" in page and "metric mine: returns nan" in page


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
    assert "# Insects, on photos (6 runs)\n" in text and "## Insects (photos)" in text and "### mine" in text
    assert re.search(rf"\| {better} +\| 0\.720 ± 0\.020 ", text.split("### mine")[1])
    assert re.search(r"a start &lt;helps&gt; \(`\S+`\) +\| \+0\.300 .*\| \*\*supported\*\* +\|.*\| mine +\|", text)
    assert "bound" not in text
    images = ImageResults(predicted=np.stack([LABELS, LABELS]), labels=LABELS)
    page, pictures = verdicts_page(study, runs, lambda run: images, NO_BOUNDS)
    assert page.startswith("# Insects, on photos (6 runs): what holds, and how sure") and not pictures
    heads = ["The claims", "By the best epoch", "Best epoch against last epoch", "Two sources of noise"]
    assert re.findall(r"^## ([\w ]+)", page, re.MULTILINE) == [*heads, "The comparisons in full"]
    assert re.search(r"a start &lt;helps&gt; \| mine +\| \+0\.300 .*\*\*supported\*\* +\| 3", page)
    (outcome,) = judge_all(study, runs, lambda run: images)
    assert outcome.noise.mean_variance == 0 and outcome.resolution == 1 / 6  # the images say what the records do not
    assert re.search(rf"^\| {worse} +\| accuracy +\| ± 0\.000 .*\| - +\| - +\| - +\| 3 +\|$", page, re.MULTILINE)
    groups = {name: [r for r in runs if r.row == name] for name in names}
    drawn = [forest([outcome], study), curves("x", "photos", groups, [*study.rows.values()], "mine", study)]
    for shown in (text, page, *(f"{picture.svg} {picture.alt} {picture.caption}" for picture in drawn)):
        assert not re.search(r"(?<!`cvhw4 )[Rr]eport|make-up|published|Published|nan\b|0\.8300|0\.8750|2019", shown)
        assert not re.search(r"guarded|bound|Diamond|#d55e00", shown)


def test_intervals_of_a_metric_that_is_a_share_end_at_0_and_1():
    claims = [Claim(better="a", metric="mine", margin=0.5), Claim(better="a", worse="b", metric="mine")]
    design = Factorial(("depth",), {(False,): "a", (True,): "b"}, {})
    rows = dict.fromkeys("ab", Row("resnet18"))
    for shares, limit in (({"mine"}, "1.000]"), (set(), "1.299]")):
        study = insects(metrics={"mine": right}, shares=shares, claims=claims, rows=rows)
        runs = [own_record(row, s, ((0.5, x),)) for row in "ab" for s, x in enumerate((0.70, 0.98, 0.99))]
        page = report_page(study, runs, NO_BOUNDS, {})
        assert page.split("### mine")[1].split("###")[0].count(limit) == 2
        assert judge_all(study, runs)[0].share == bool(shares)
        assert limit in re.search(rf"^\| .*\(`{claims[0].id}`\).*$", page, re.M)[0]
        parts = effects_section(design, "mine")(evidence(study, runs, lambda run: None)[0])
        assert sum(str(part).count(limit) for part in parts) == 2


def test_runs_from_before_a_metric_are_passed_over_where_it_is_asked_for():
    claim = Claim(better="finetune", worse="scratch", metric="mine")
    study = insects(metrics={"mine": right}, claims=[claim])
    old = own_record("scratch", 0, ((0.3, 0.2),))
    old = replace(old, epochs=[replace(e, figures={"accuracy": 0.3}) for e in old.epochs])
    runs = [replace(r, settings=study.row(r.row).settings()) for r in (old, own_record("finetune", 0, ((0.8, 0.7),)))]
    assert judge_all(study, runs) == []
    accuracy, mine = report_page(study, runs, None, {}).split("### mine")
    assert "scratch" in accuracy and "scratch" not in mine.split("### Settings")[0]
