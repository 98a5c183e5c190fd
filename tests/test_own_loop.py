"""Studies with a training loop of their own: what it is given, what it yields, and that all else works for it.

One file, longer than others: one study, at its beginning, serves all of it.
"""

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cvhw4 import Bounds, Claim, Control, InputError, Metric, Published, Recipe, Row, Study
from cvhw4.errors import TrainingDiverged, TrainingFailed
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import Store
from cvhw4.report.page import write_pages
from cvhw4.runner import Runner
from cvhw4.statistics.bounds import NO_BOUNDS, load_bounds
from cvhw4.statistics.calibration import calibrate, to_toml
from cvhw4.statistics.changes import compare_runs
from cvhw4.statistics.verdicts import judge_all
from cvhw4.trackers import Run as TrackedRun
from cvhw4.training import custom
from tests.helpers import ROOT

# Loops


def draws(run):
    """Figures of what generators draw, after a level by depth."""
    for epoch in range(3):
        run.log("epoch", epoch)
        level = 0.5 + 0.04 * run.settings["depth"]
        yield {"accuracy": level + random.random() / 50, "loss": 1 - level + float(np.random.rand()) / 50}


def of(*epochs):
    """A loop that yields these."""
    return partial(told, epochs=epochs)


def told(run, epochs):
    yield from epochs


ROWS = {"shallow": {"depth": 2}, "deep": {"depth": 8}}
CLAIMS = [Claim(better="deep", worse="shallow", metric=metric) for metric in ("accuracy", "loss")]


def study_of(train=draws, **changes):
    claims = CLAIMS if {*changes.get("rows", ROWS)} == {*ROWS} else []
    whole = {"rows": ROWS, "primary": "accuracy", "lower_is_better": {"loss"}, "claims": claims} | changes
    return Study("depth", train=train, **whole)


def runner_of(folder, train=draws, reuse=False, **changes):
    return Runner(study=study_of(train, **changes), device="cpu", threads=1, results=folder, reuse=reuse)


def train_all(folder, seeds=3, **changes):
    runner = runner_of(folder, **changes)
    return [runner.run(row, seed) for row in runner.study.rows.values() for seed in range(seeds)]


# What a study is made of


def test_rows_are_settings_and_figures_are_the_studys():
    study = study_of(rows={"a": {"depth": np.int64(2)}, "b": {"depth": 3, "width": np.float32(1.5)}})
    assert [row.name for row in study.rows.values()] == ["a", "b"] and not study.sources
    assert [row.settings() for row in study.rows.values()] == [{"depth": 2}, {"depth": 3, "width": 1.5}]
    (task,) = study.tasks
    assert (task.name, task.primary, study.shown(task)) == ("custom", "accuracy", ("accuracy", "loss"))
    assert task.bounded == ("best accuracy", "last accuracy")
    assert task.columns(study.rows["a"]) == {"depth": "2", "width": "-"}
    assert study.rows["b"].setting("width") == 1.5 and study.rows["a"].setting("width") is None
    assert hash(study.rows["a"]) != hash(study.rows["b"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": 3}, "has train=3. Fix: give a function of one argument, the run"),
        ({"train": lambda run, more, other: []}, "Fix: give a function of one argument"),
        ({"primary": ""}, "has train and no primary"),
        ({"primary": "top 1"}, "top 1: is not a valid figure name"),
        ({"lower_is_better": "loss"}, 'lower_is_better=.loss.. Fix: write it as {"loss"}'),
        ({"lower_is_better": {"a b"}}, "a b: is not a valid figure name"),
        ({"version": 2}, "has version=2. Fix: give a text"),
        ({"data": "photos"}, "has data, which cannot go with train"),
        ({"recipe": Recipe(epochs=2)}, "has recipe, which cannot go with train"),
        ({"metrics": {"f1": max}}, "has metrics, which cannot go with train. Fix: leave it out: yield the figure"),
        ({"rows": {"a": Row("resnet18")}}, 'write it as its settings, {"depth": 2}'),
        ({"rows": {"a": 3}}, "row a: is 3"),
        ({"rows": {"a b": {}}}, "a b: is not a valid row name"),
        ({"rows": {"a": {"x": float("nan")}}}, "has x=nan, which is not finite"),
        ({"rows": {"a": {"x": sys.float_info.max}}}, r"has x=1.79.*, which is not finite, or beyond 1e\+100"),
        ({"rows": {"a": {"x": [1, object()]}}}, "which does not say what it holds"),
        ({"rows": {"a": {"x": {3, 4}}}}, "which does not say what it holds"),
        ({"rows": {"a": {"x": {1: 2}}}}, "which has keys that are no texts"),
        ({"claims": [Claim(better="deep", metric="loss", margin=1.0)]}, "of which lower is better, against a number"),
        ({"claims": [Claim(better="wide", worse="deep", metric="f1")]}, "has row='wide'"),
        ({"controls": [Control(name="c", row="deep", words="", corrupts="label noise")]}, "give it changes="),
        ({"controls": [Control(name="c", row="deep", words="", changes={"dept": 0})]}, "control c: has changes='dept'"),
        ({"controls": [Control(name="c", row="deep", words="", changes={"depth": object()})]}, "does not say what it"),
        ({"controls": [Control(name="c", row="deep", words="")]}, "control c: trains deep as it is. Fix: give it"),
        ({"published": {"deep": Published({"top1": 83.0})}, "shares": {"top1"}}, "has top1=83, which lies between"),
        ({"train": None, "claims": []}, "row shallow: is {.depth.: 2}. Fix: .* or give the study train="),
        ({"train": None, "data": "x", "rows": {"a": Row("resnet18")}, "claims": []}, "has primary, which goes with"),
    ],
)
def test_what_does_not_fit_is_one_error(changes, told):
    train = changes.pop("train", draws)
    with pytest.raises(InputError, match=told):
        study_of(train, **({"data": "nowhere"} if train is None else {}) | changes)


def test_a_control_changes_settings(tmp_path):
    control = Control(name="flat", row="deep", words="depth is taken away", changes={"depth": 0})
    study = study_of(controls=[control])
    (row,) = study.in_group("control")
    assert (row.name, row.settings(), row.group) == ("flat", {"depth": 0}, "control")
    record = Runner(study=study, device="cpu", results=tmp_path).run(row, 0)
    assert 0.5 <= record.best("accuracy") < 0.53


# What is recorded


def test_what_is_yielded_is_recorded_and_the_lowest_loss_is_the_best(tmp_path, capsys):
    def fit(run):
        run.log("begun")
        yield {"accuracy": np.float32(0.5), "loss": 3}
        yield {"accuracy": torch.tensor(0.25), "loss": 1.0}

    heard = []
    runner = runner_of(tmp_path, fit, rows={"deep": {}}, claims=[])
    record = runner.run(runner.study.rows["deep"], 7, heard.append)
    assert [e.figures for e in record.epochs] == [{"accuracy": 0.5, "loss": 3.0}, {"accuracy": 0.25, "loss": 1.0}]
    assert [e.epoch for e in heard] == [1, 2]
    assert (record.best("accuracy"), record.best_epoch("accuracy"), record.last("accuracy")) == (0.5, 1, 0.25)
    assert (record.best("loss"), record.best_epoch("loss"), record.figure("best loss")) == (1.0, 2, 1.0)
    found = record.study, record.row, record.task, record.seed, record.primary
    assert found == ("depth", "deep", "custom", 7, "accuracy")
    assert runner.store.load() == [record] and RunRecord.from_json(record.to_json(), Path("x")) == record
    assert not list((tmp_path / "depth" / "unfinished").rglob("*.run"))
    log = runner.store.path(record.row, record.seed, record.fingerprint).with_suffix(".log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8} begun\n", log.read_text()) and "begun\n" in capsys.readouterr().out


def test_every_record_has_its_own_seed_and_the_same_seed_the_same_figures(tmp_path):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    first, second = train_all(tmp_path / "a"), train_all(tmp_path / "b")
    assert [r.epochs[0].figures for r in first] == [r.epochs[0].figures for r in second]
    assert len({r.best("accuracy") for r in first}) == len(first)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # nobody else's draws are changed
    random.seed(1), np.random.seed(1)
    drawn = {"accuracy": 0.58 + random.random() / 50, "loss": 0.42 + float(np.random.rand()) / 50}
    assert first[1].epochs[0].figures == pytest.approx(drawn, abs=1e-12)
    runner = runner_of(tmp_path / "a", reuse=True)
    deep, heard = runner.study.rows["deep"], []
    assert runner.run(deep, 0, heard.append) == first[3] and not heard  # taken from disk
    assert runner.find(deep, 2) == first[5] and runner.find(deep, 9) is None


def test_of_a_loss_the_lowest_is_best_though_nobody_says_so(tmp_path):
    def fit(run):
        yield {"accuracy": 0.5, "loss": 2.0 - run.settings["depth"] / 8}
        yield {"accuracy": 0.6, "loss": 3.0}

    shallow, deep = train_all(tmp_path, 1, train=fit, lower_is_better=())
    assert deep.lower_is_better == ["loss"] and (deep.best("loss"), deep.best_epoch("loss")) == (1.0, 1)
    (_, of_loss) = judge_all(study_of(fit, lower_is_better=(), epoch="best"), [shallow, deep])
    assert of_loss.difference.mean == pytest.approx(0.75)


def test_who_leaves_open_that_the_lowest_is_best_is_asked(tmp_path):
    claims = [Claim(better="deep", worse="shallow", metric="test_rmse")]
    words = r"the highest (val_loss|test_rmse) counts as the best; if .*lower_is_better="
    with pytest.warns(UserWarning, match=words) as told:
        study_of(primary="val_loss", claims=claims, lower_is_better=())
    assert len(told) == 2
    with pytest.warns(UserWarning, match="study .*: the highest train_loss counts as the best; if the lowest is"):
        runner = runner_of(tmp_path, of(GOOD | {"train_loss": 1.0}))
        runner.run(runner.study.rows["deep"], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study_of(primary="val_loss", claims=claims, lower_is_better={"val_loss", "test_rmse"})
        study_of(primary="neg_rmse", claims=[Claim(better="deep", worse="shallow", metric="lossless")])


class Boosted:
    """As XGBoost's estimators: what it says of itself ends in dots."""

    def __init__(self, **parameters):
        self.parameters = parameters

    def __repr__(self):
        return "Boosted(depth=3, ...)"

    def get_params(self, deep):
        return self.parameters


def test_estimators_are_known_by_their_parameters_where_their_words_are_cut():
    three, again, four = ({"a": {"model": Boosted(depth=depth, inner=Boosted(x=1))}} for depth in (3, 3, 4))
    texts = [study_of(rows=rows, claims=[]).rows["a"].settings()["model"] for rows in (three, again, four)]
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("Boosted ")


# What is no epoch's figures


def raises(run):
    yield {"accuracy": 0.5, "loss": 1.0}
    helper(run)


def exits(run):
    yield {"accuracy": 0.5, "loss": 1.0}
    raise SystemExit(2)  # as argparse does


def helper(run):
    raise KeyError("no such\nlayer")


GOOD = {"accuracy": 0.5, "loss": 1.0}


@pytest.mark.parametrize(
    ("train", "told", "epoch"),
    [
        (exits, "epoch 2: train raises SystemExit: 2 (test_own_loop.py:", 2),
        (raises, "epoch 2: train raises KeyError: 'no such\\nlayer' (test_own_loop.py:", 2),
        (
            lambda run: {"accuracy": 1.0, "loss": 0.0},
            "train returns {'accuracy': 1.0, 'loss': 0.0} and does not yield. Fix: let train yield a dict",
            0,
        ),
        (of(), "deep, seed 0: train yields nothing. Fix: let train yield a dict", 0),
        (of(None), "epoch 1: train yields None. Fix: let train yield a dict", 1),
        (of({}), "epoch 1: train yields {}.", 1),
        (of({"accuracy": 0.5}), "epoch 1: train yields accuracy, without loss. Fix: yield it after every epoch", 1),
        (of(GOOD, {"accuracy": 0.5}), "epoch 2: train yields accuracy, and after its first epoch accuracy, loss", 2),
        (of(GOOD | {"a b": 1}), "yields the figure 'a b'. Fix: name figures with letters", 1),
        (of(GOOD | {"accuracy": "0.5"}), "yields accuracy='0.5', which is not a number", 1),
        (of(GOOD | {"accuracy": True}), "yields accuracy=True, which is not a number", 1),
        (of(GOOD | {"accuracy": torch.zeros(2)}), "yields accuracy=tensor([0., 0.]), which is not a number", 1),
        (of(GOOD, GOOD | {"loss": float("nan")}), "epoch 2: train yields loss=nan", 2),
        (of(GOOD | {"loss": float("-inf")}), "epoch 1: train yields loss=-inf", 1),
        (of(GOOD | {"loss": 1e200}), "epoch 1: train yields loss=1e+200", 1),
        (of(GOOD, GOOD | {"accuracy": 83}), "epoch 2: train yields accuracy=83, which is one of the study's shares", 2),
    ],
)
def test_what_is_no_figures_fails_with_its_epoch_and_is_noted(tmp_path, train, told, epoch):
    runner = runner_of(tmp_path, train, shares={"accuracy"})
    with pytest.raises(TrainingFailed) as failed:
        runner.run(runner.study.rows["deep"], 0)
    assert told in str(failed.value) and str(failed.value).startswith("deep, seed 0")
    assert isinstance(failed.value, TrainingDiverged) == bool(re.search("=(nan|-inf|1e)", told))
    (note,) = runner.store.failures()
    assert (note.reason, note.epoch, note.row, note.task) == (str(failed.value), epoch, "deep", "custom")
    assert not runner.store.load() and Failure.from_json(note.to_json(), Path("x")) == note
    if train is raises:
        assert "in helper" in note.traceback and note.traceback.rstrip().endswith("'no such\\nlayer'")
        assert "training/custom.py" not in note.traceback and failed.value.__cause__.args == ("no such\nlayer",)


def test_a_loop_that_is_ended_is_closed(tmp_path):
    closed = []

    def fit(run):
        try:
            yield {"accuracy": float("nan"), "loss": 0.0}
        finally:
            closed.append(run.seed)

    runner = runner_of(tmp_path, fit)
    with pytest.raises(TrainingDiverged):
        runner.run(runner.study.rows["deep"], 4)
    assert closed == [4]


# Reuse


def keeps(run):
    """Goes on from what it kept, and is broken off after its second epoch."""
    kept = run.folder / "epochs.json"
    epochs = json.loads(kept.read_text()) if kept.exists() else []
    yield from epochs
    while len(epochs) < 3:
        epochs.append({"accuracy": 0.1 * len(epochs), "loss": 1.0, "asked": len(epochs)})
        kept.write_text(json.dumps(epochs))
        if len(epochs) == 2:
            raise RuntimeError("no more")
        yield epochs[-1]


def test_a_run_goes_on_from_its_folder(tmp_path):
    runner = runner_of(tmp_path, keeps)
    row = runner.study.rows["deep"]
    for _ in range(2):  # without --reuse the folder is empty each time
        with pytest.raises(TrainingFailed):
            runner.run(row, 0)
    (note,) = runner.store.failures()
    assert (runner.store.unfinished / "deep" / note.checkpoint / "epochs.json").exists()
    record = replace(runner, reuse=True).run(row, 0)
    assert [e.figures["asked"] for e in record.epochs] == [0, 1, 2] and record.times.interruptions == 1
    assert runner.store.failures() == [] and not list(runner.store.unfinished.rglob("*.run"))


class Splits(torch.nn.Module):
    """Uses a library in a method."""

    def forward(self, x):
        import sklearn

        return sklearn.clone(x)


@pytest.mark.parametrize("given", [Splits, Splits(), partial(draws, kind=Splits), Splits().forward])
def test_packages_are_those_of_classes_methods_and_arguments_too(given):
    assert "scikit-learn" in custom.packages_of(given) and "scikit-learn" not in custom.packages_of(draws)


def test_a_run_is_known_by_the_accelerators_that_it_may_use(tmp_path, monkeypatch):
    def known(device, gpus=(), visible=None):
        monkeypatch.setattr(custom, "gpus", lambda: [*gpus])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        runner = replace(runner_of(tmp_path), device=device)
        return runner._plan(runner.study.rows["deep"], 0).fingerprint

    assert known("cpu") == known("auto") == known("cpu", ["H100"]) == known("auto", ["H100"], "")
    assert known("auto", ["H100"]) == known("auto", ["H100"], "1")
    assert len({known("cpu"), known("auto", ["H100"]), known("xpu"), known("mps")}) == 4


def test_a_run_is_known_by_text_settings_and_version(tmp_path, monkeypatch):
    def prints(**changes):
        runner = runner_of(tmp_path, changes.pop("train", draws), **changes)
        return tuple(runner._plan(row, 0).fingerprint for row in runner.study.rows.values())

    shallow, deep = prints()
    assert prints() == (shallow, deep) and shallow != deep
    assert not {shallow, deep} & {*prints(version="2"), *prints(train=of(GOOD)), *prints(lower_is_better={"accuracy"})}
    assert prints(rows=ROWS | {"deep": {"depth": 9}})[0] == shallow != prints(rows=ROWS | {"deep": {"depth": 9}})[1]
    for given, threads in {"3": 3, "5,2": 5, "": len(os.sched_getaffinity(0))}.items():  # as torch and others take it
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        runner = replace(runner_of(tmp_path), threads=None)
        assert runner._plan(runner.study.rows["deep"], 0).threads == threads
    models = Metric, Recipe, Recipe(epochs=3), Recipe(epochs=4), partial(max, 1)
    assert len({prints(rows={"deep": {"model": model}}) for model in models}) == len(models)


# What is made of it


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Six seeds of both rows."""
    return train_all(tmp_path_factory.mktemp("records"), 6)


def test_a_claim_of_a_loss_holds_where_it_is_lower(records):
    study = study_of(claims=[*CLAIMS, Claim(id="wrong", better="shallow", worse="deep", metric="loss")])
    of_accuracy, of_loss, wrong = judge_all(study, records)
    by_row = {row: [min(e.figures["loss"] for e in r.epochs) for r in records if r.row == row] for row in ROWS}
    lower = np.subtract(by_row["shallow"], by_row["deep"])
    assert of_loss.difference.mean == pytest.approx(lower.mean()) and lower.mean() > 0.2
    assert of_loss.differences == pytest.approx(tuple(lower))
    assert wrong.difference.mean == pytest.approx(-lower.mean())
    assert [o.verdict for o in (of_accuracy, of_loss, wrong)] == ["supported", "supported", "contradicted"]


@pytest.mark.parametrize(("by", "kind"), [(0.2, "worse"), (-0.2, "better")])
def test_a_loss_that_rises_is_a_regression_and_one_that_falls_none(records, by, kind):
    def moved(record):
        losses = [e.figures["loss"] + by + i / 500 for i, e in enumerate(record.epochs)]
        epochs = [replace(e, figures={**e.figures, "loss": x}) for e, x in zip(record.epochs, losses, strict=True)]
        return replace(record, epochs=epochs) if record.row == "deep" else record

    changes = compare_runs(study_of(), records, [moved(r) for r in records])
    kinds = {(c.row, c.figure): c.kind for c in changes.figures}
    assert kinds["deep", "best loss"] == kinds["deep", "last loss"] == kind
    assert kinds["shallow", "best loss"] == "same" and kinds["deep", "best accuracy"] in ("same", "noise")
    assert changes.regression == (kind == "worse")


def test_bounds_are_made_and_checked_for_it_as_for_others(records, tmp_path):
    study = study_of()
    made = calibrate(study, records)
    (tmp_path / "bounds.toml").write_text(to_toml(study, made))
    bounds = load_bounds(tmp_path / "bounds.toml", study, named=True)
    assert isinstance(bounds, Bounds) and {*bounds.rows["deep"]} == {"best accuracy", "last accuracy"}
    mean = sum(r.best("accuracy") for r in records if r.row == "deep") / 6
    best = bounds.rows["deep"]["best accuracy"]
    assert (best.mean, best.n) == (pytest.approx(mean, abs=1e-4), 6)
    assert {*bounds.claims} == {claim.id for claim in CLAIMS} and bounds.claims[CLAIMS[1].id].mean > 0.2
    record = records[-1]
    assert not bounds.missed(record)
    epochs = [replace(e, figures={**e.figures, "accuracy": 0.5}) for e in record.epochs]
    assert "best accuracy 0.5000 is below its bound" in bounds.missed(replace(record, epochs=epochs))[0]


def test_pages_have_every_figure_and_nothing_of_images(tmp_path):
    def fit(run):
        for figures in draws(run):
            yield figures | {"seconds": 3.0, "accuracy": 100 * figures["accuracy"]}  # a scale of its own

    study = study_of(fit)
    train_all(tmp_path, 2, train=fit)
    pages = write_pages(study, Store(tmp_path, "depth"), NO_BOUNDS, {})
    assert [page.name for page, _ in pages] == ["report.md", "verdicts.md", "report.html"]
    report, verdicts, _ = (page.read_text() for page, _ in pages)
    for heading in ("### Accuracy", "### loss", "### seconds", "### Time and memory", "### Learning curves"):
        assert heading in report
    assert re.search(r"\| deep +\| 8\d\.\d+ ± ", report) and re.search(r"\| deep +\| 8 +\|$", report, re.MULTILINE)
    assert "Of loss the lowest is best" in report and "Of loss the lowest is best" in verdicts
    assert not re.search(r"images|Weights|parameters|[Pp]ixels|None|nan\b", report + verdicts)


def test_a_loop_that_leaves_its_seed_alone_is_told_of(tmp_path):
    train_all(tmp_path, 2, train=of(GOOD))
    write_pages(study_of(of(GOOD)), Store(tmp_path, "depth"), NO_BOUNDS, {})
    report = (tmp_path / "depth" / "report.md").read_text()
    assert re.search("All seeds have the same figures in (deep, shallow|shallow, deep)", report)


def test_trackers_are_told_of_its_figures_alone(records):
    run, epoch = TrackedRun(study_of().rows["shallow"], 0, None), records[0].epochs[0]
    assert run.settings == {"study": "depth", "row": "shallow", "seed": 0, "depth": 2}
    assert run.figures(epoch) == {f"validation/{name}": value for name, value in epoch.figures.items()}


# Sessions

SESSION = """
import random
import pytest
from cvhw4 import Study, Claim

def fit(run):
    for epoch in range(3):
        if run.settings["depth"] == 1 and epoch:
            raise OSError("the disk is gone")
        yield {"accuracy": 0.5 + run.settings["depth"] / 25 + random.random() / 50, "loss": random.random()}

shared = dict(train=fit, primary="accuracy", lower_is_better={"loss"})
study = Study(
    "x", rows={"shallow": {"depth": 2}, "deep": {"depth": 8}}, bounds="bounds.toml",
    claims=[Claim(better="deep", worse="shallow", metric="accuracy")], **shared,
)
broken = Study("y", rows={"broken": {"depth": 1}}, **shared)
pytestmark = pytest.mark.study(study)

@pytest.mark.study(study, rows={"shallow": {"depth": 2}, "deep": {"depth": 8}})
def test_row(train, row, seed, bounds):
    record = train(row, seed)
    assert not bounds.missed(record) and len(record.epochs) == 3

@pytest.mark.study(broken)
def test_broken(train, row, seed):
    train(row, seed)

def test_claim(judged, claim):
    assert judged(claim).verdict == "supported"
"""
# Runs sessions and commands one after the other, and says that none of them needed torch.
ALONE = """
import importlib, sys
import pytest

def command(*words):
    from cvhw4 import cli
    sys.argv = ["cvhw4", *words, "--study", "test_depth.py::x"]
    try:
        cli.main()
    except SystemExit as ended:
        print("ended", ended.code)

import cvhw4, cvhw4.plugin
print(pytest.main(["-p", "no:cacheprovider", "--seeds", "5", "--junit-xml", "runs.xml", "-k", "not broken"]))
for words in ("calibrate", "report", "show deep-seed1", "list", "rows", "compare results results"):
    command(*words.split())
assert "torch" not in sys.modules and "torchvision" not in sys.modules
"""


@pytest.fixture
def place(tmp_path):
    """A repository of somebody's own: `place(*command)` runs Python there."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["cvhw4.plugin"]\n')
    (tmp_path / "test_depth.py").write_text(SESSION)

    def python(*words):
        left_out = ("CI", "PYTEST_")
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        env = {k: v for k, v in os.environ.items() if not k.startswith(left_out)} | {"PYTHONPATH": paths}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True)

    python.folder = tmp_path
    return python


@pytest.mark.integration
def test_a_study_without_torch_never_imports_it(place):
    (place.folder / "alone.py").write_text(ALONE)
    done = place("alone.py")
    assert done.returncode == 0, done.stdout + done.stderr
    screen = done.stdout
    assert "11 passed" in screen and "ablation study x" in screen and screen.count("ended None") == 5
    assert re.search(r"deep +seed 4 +best accuracy 0\.8\d+ at", screen)
    assert re.search(r"deep_above_shallow-accuracy +\+0\.2\d+ .* supported", screen)
    assert re.search(r"deep +accuracy +0\.8\d\d±0\.0\d\d ", screen) and "8 figures the same to the bit" in screen
    assert 'value="0.5' in (place.folder / "runs.xml").read_text()
    assert '"best accuracy" = { low' in (place.folder / "bounds.toml").read_text()


@pytest.mark.integration
def test_workers_of_xdist_share_its_runs_and_a_failure_shows_its_traceback(place):
    done = place("-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--seeds", "2")
    assert "2 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert "broken, seed 1, epoch 2: train raises OSError: the disk is gone (test_depth.py:9)" in done.stdout
    assert 'raise OSError("the disk is gone")' in done.stdout and "supported" in done.stdout
    assert re.search(r"broken +accuracy +- .* FAILED", done.stdout)
    runs, failures = Store(place.folder / "results", "x").load(), Store(place.folder / "results", "y").failures()
    assert sorted((r.row, r.seed) for r in runs) == [(row, s) for row in ("deep", "shallow") for s in (0, 1)]
    assert {(f.row, f.seed) for f in failures} == {("broken", 0), ("broken", 1)} and "OSError" in failures[0].traceback


LATE = """
import sys
from pathlib import Path
from cvhw4 import Study
from cvhw4.runner import Runner

def fit(run):
    import torch
    assert run.device == "cpu"
    yield {"accuracy": torch.rand(1, device=run.device).item()}

study = Study("late", train=fit, rows={"a": {}}, primary="accuracy")
assert "torch" not in sys.modules
for seed in (3, 4):
    runner = Runner(study=study, results=Path("results"), device="cpu", threads=1)
    record = runner.run(study.rows["a"], seed)
    print(record.best("accuracy"))
    assert record.lower_is_better == []  # no loss was yielded
    assert "torch" in sys.modules and sys.modules["torch"].get_num_threads() == 1
"""


def test_torch_is_seeded_when_it_is_imported_later_and_where_it_is_there_already(place):
    (place.folder / "late.py").write_text(LATE)
    done = place("late.py")
    expected = [torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() for seed in (3, 4)]
    assert [float(line) for line in done.stdout.split()] == expected, done.stderr


KILLED = """
import os, signal, sys
from pathlib import Path
from cvhw4 import Study
from cvhw4.runner import Runner

def fit(run):
    kept = run.folder / "weights"
    began = int(kept.read_text()) if kept.exists() else 0
    for epoch in range(3):
        kept.write_text(str(epoch))
        if epoch == 1 and not began:
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"accuracy": epoch / 10, "began": began}

study = Study("killed", train=fit, rows={"a": {}}, primary="accuracy")
record = Runner(study=study, results=Path(sys.argv[1]), reuse=True).run(study.rows["a"], 0)
print(record.last("began"), record.times.interruptions)
"""


def test_a_killed_run_finds_its_folder_again(place):
    (place.folder / "killed.py").write_text(KILLED)
    first, second = place("killed.py", "results"), place("killed.py", "results")
    assert first.returncode == -signal.SIGKILL
    assert (second.returncode, second.stdout) == (0, "1.0 1\n"), second.stderr


# The documentation's examples

PAGE = ROOT / "docs" / "loops.md"
MODULES = """
import lightning, torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

class Net(lightning.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def training_step(self, batch, _):
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        scores = self.layers(batch[0])
        self.log("accuracy", (scores.argmax(1) == batch[1]).float().mean())
        self.log("loss", nn.functional.cross_entropy(scores, batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

def loaders():
    x, y = (torch.tensor(a) for a in load_digits(return_X_y=True))
    halves = random_split(TensorDataset(x.float() / 16, y), [0.5, 0.5], torch.Generator().manual_seed(0))
    return [DataLoader(half, batch_size=64, shuffle=half is halves[0]) for half in halves]
"""


def example(heading):
    """The code below a heading of the page; no longer than its readers were promised."""
    _, _, below = PAGE.read_text().partition(f"## {heading}\n")
    code = re.search(r"^```python\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)[1]
    assert sum(line.strip() != "" for line in code.splitlines()) <= 25
    return code


@pytest.mark.integration
def test_the_example_with_scikit_learn_is_judged(place):
    (place.folder / "test_depth.py").write_text(example("scikit-learn"))
    done = place("-m", "pytest", "-p", "no:cacheprovider", "--seeds", "2")
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr
    assert "forest_above_tree-accuracy" in done.stdout
    (record, *_) = Store(place.folder / "results", "digits").load()
    assert "scikit-learn" in record.environment and re.fullmatch(r"\w+ \([0-9a-f]{8}\)", record.settings["model"])


@pytest.mark.integration
@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="Lightning is not installed: cvhw4[examples]")
def test_the_example_with_lightning_is_judged(place):
    (place.folder / "test_depth.py").write_text(example("Lightning"))
    (place.folder / "modules.py").write_text(MODULES)
    done = place("-m", "pytest", "-p", "no:cacheprovider", "--seeds", "2")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
    records = Store(place.folder / "results", "width").load()
    assert len(records) == 4 and all(len(r.epochs) == 3 and r.best("loss") < 3 for r in records)
    assert {r.row for r in records if r.best("accuracy") > 0.7} == {"wide"}


SHIFTED = """
import os
import random
import pytest
from cvhw4 import Study

def fit(run):
    yield {"accuracy": float(os.environ.get("FIGURE", 0.5 + random.random() / 50))}

study = Study("x", train=fit, rows={"a": {}}, primary="accuracy", shares={"accuracy"}, bounds="bounds.toml")

@pytest.mark.study(study)
def test_row(train, row, seed, bounds):
    assert not bounds.missed(train(row, seed))
"""


@pytest.mark.integration
@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_shift_that_no_run_shows_fails_with_the_last_run_of_its_row(place, monkeypatch, workers):
    """With two workers the last two may both be it."""
    (place.folder / "test_depth.py").write_text(SHIFTED)
    run = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "9 passed" in place(*run, "--seeds", "9").stdout
    assert place("-m", "cvhw4", "calibrate", "--study", "test_depth.py").returncode == 0
    monkeypatch.setenv("FIGURE", "0.5325")
    done = place(*run, *workers)
    assert re.search(r"^[.F]+ +\[", done.stdout, re.M)[0].count("F") in ((1, 2) if workers else (1,)), done.stdout
    assert workers or "..F" in done.stdout
    assert re.search(r"best accuracy in the mean of 3 seeds 0\.5325 is above its bound \[0\.4\d+, 0\.5", done.stdout)
    assert "best accuracy 0" not in done.stdout
