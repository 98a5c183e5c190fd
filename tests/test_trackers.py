"""Runs logged to TensorBoard, MLflow and Weights & Biases, read back; trackers that raise, hang or are missing."""

import importlib.util
import json
import math
import os
import re
import struct
import sys
import time
import typing
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cvhw4 import Study, trackers
from cvhw4.errors import InputError
from cvhw4.plugin import hookspec
from cvhw4.readers import Wanted, claims_of, figures_of, judged_study, read_runs
from cvhw4.readers.trackers import found_in
from cvhw4.trackers import TRACKERS, Run, Trackers, check_trackers, final_figures, tags
from tests.helpers.tiny import QUICK, record

FIGURES = ((0.7, 0.5, 0.6, 0.4), (0.9, 0.8, 0.6, 0.7), (0.8, 0.7, 0.7, 0.6))
ROW = QUICK.row("q2_1a")
IMAGES = 12
DONE = record("q2_1a", figures=FIGURES)


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


class Hooks:
    """The hooks of a run, called as a session does, and heard by one plugin."""

    def __init__(self, plugin):
        manager = pytest.PytestPluginManager()
        manager.add_hookspecs(hookspec)
        manager.register(plugin)
        manager.check_pending()
        self.hook = manager.hook

    def finish(self):
        self.hook.pytest_sessionfinish(session=None, exitstatus=0)

    def __getattr__(self, name):
        call = getattr(self.hook, f"pytest_cvhw4_run_{name}")
        return lambda **arguments: call(**{"config": None, "row": ROW, "seed": 0} | arguments)


def run_logged(told=DONE.epochs, failed="", **wanted):
    """Logs a run of which some epochs are told while it trains, and the rest with its record."""
    session = Hooks(Trackers(wanted))
    session.begin(images=IMAGES)
    for epoch in told:
        session.epoch(epoch=epoch)
    if failed:
        session.failed(reason=failed)
    else:
        session.end(record=DONE, reused=False)
    session.finish()


def log_wandb_to(folder, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    if (wandb := sys.modules.get("wandb")) is not None:  # which reads them once
        wandb.teardown()


class Noted:
    """A tracker that notes what it is told, in a file of its own for every process."""

    def __init__(self, where):
        self.path = Path(where) / f"{os.getpid()}.jsonl"

    def note(self, *what):
        with open(self.path, "a") as file:
            print(json.dumps(what), file=file)

    def begin(self, run):
        self.name = run.name
        self.note("begin", run.name, run.images)

    def epoch(self, epoch):
        self.note("epoch", self.name, epoch.epoch)

    def end(self, record):
        self.note("end", self.name, record.seed)

    def failed(self, reason):
        self.note("failed", self.name, reason)


class Raising(Noted):
    """One that fails in the second epoch."""

    def epoch(self, epoch):
        if epoch.epoch == 2:
            raise RuntimeError("server\ngone")


class Hanging(Noted):
    def begin(self, run):
        time.sleep(60)


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """Puts trackers of these classes in the places of the real ones; what was noted, by process."""

    def put(**kinds):
        for name, kind in kinds.items():
            monkeypatch.setitem(TRACKERS, name, TRACKERS[name]._replace(tracker=f"{__name__}:{kind.__name__}"))

    put.read = lambda: [[tuple(json.loads(x)) for x in f.read_text().splitlines()] for f in tmp_path.glob("*.jsonl")]
    return put


@needs("tensorboard")
def test_tensorboard_has_every_figure_by_epoch_the_settings_and_why_a_run_failed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def logged(**how):
        run_logged(tensorboard=str(tmp_path), **how)
        return EventAccumulator(str(tmp_path / "quick" / "q2_1a-skip" / "seed0")).Reload()

    read = logged(told=DONE.epochs[:1], failed="loss nan in epoch 2")
    assert b"loss nan in epoch 2" in read.Tensors("failed/text_summary")[0].tensor_proto.string_val[0]
    assert [s.step for s in read.Scalars("training/loss")] == [1]
    read = logged()  # in place of the first
    assert [(s.step, s.value) for s in read.Scalars("validation/miou")] == [
        (epoch.epoch, pytest.approx(epoch.figures["miou"])) for epoch in DONE.epochs
    ]
    assert read.Scalars("best/miou")[0].value == pytest.approx(0.9, rel=1e-6) and read.Scalars("last/miou")[0].step == 0
    plugin = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"recipe.lr" in plugin and DONE.fingerprint.encode() in plugin


@needs("mlflow")
def test_mlflows_store_has_the_run_with_its_parameters_figures_and_tags(tmp_path, monkeypatch):
    uri = f"file:{tmp_path}"
    run_logged(DONE.epochs[:2], mlflow=uri)
    run_logged(DONE.epochs[:1], "interrupted", mlflow=uri)  # into the same experiment
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "cvhw4 quick")
    runs = {run.info.status: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"FINISHED", "FAILED"} and runs["FAILED"].data.tags["reason"] == "interrupted"
    run = runs["FINISHED"]
    assert run.info.run_name == "q2_1a-skip-seed0" and tags(DONE).items() <= run.data.tags.items()
    assert run.data.params["recipe.lr"] == str(ROW.recipe.lr) and run.data.params["skips"] == "True"
    assert final_figures(DONE).items() <= run.data.metrics.items()
    before = {*tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    for where, words in (
        ("nowhere", "does not exist or"),
        ("file:nowhere", "does not exist or"),
        ("htp://host", "by MLflow"),
        ("sqlite:///nowhere.db", "no database that exists"),
        ("sqlite+pysqlite:///nowhere.db?mode=rw", "no database that exists"),
    ):
        with pytest.raises(InputError, match=rf"{re.escape(where)}: .*{words}.* Fix: name "):
            read_runs([f"mlflow:{where}"], Wanted(figures={"acc": "acc"}))
    assert {*tmp_path.iterdir()} == before


def told_to_wandb(records):
    config, summary = {}, {}
    for r in records:
        for updates, values in ((r.run.config.update, config), (r.config.update, config), (r.summary.update, summary)):
            values |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}
    return config, summary


def records_of_wandb(folder):
    """All that a run was told, once another process has written it."""
    from wandb.proto.wandb_internal_pb2 import Record

    from cvhw4.readers.trackers import records_in

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found, patience = [], time.monotonic() + 20
    while not any(r.WhichOneof("record_type") == "exit" for r in found):
        assert time.monotonic() < patience
        time.sleep(0.1)
        found = [Record.FromString(content) for content in records_in(path)]
    return found


@needs("wandb")
def test_a_setting_with_the_name_of_a_tag_is_kept(tmp_path, monkeypatch):
    log_wandb_to(tmp_path, monkeypatch)
    own = Study("own", train=len, rows={"a": {"data": "cifar10", "commit": 1}}, primary="accuracy").rows["a"]
    installed = replace(DONE, environment=DONE.environment | {"commit": None})  # no checkout
    session = Hooks(Trackers({"wandb": "project"}))
    session.begin(row=own, images=IMAGES)
    session.end(row=own, record=installed, reused=False)
    session.finish()
    config, _ = told_to_wandb(records_of_wandb(tmp_path))
    assert (config["data"], config["commit"], config["fingerprint"]) == ("cifar10", 1, DONE.fingerprint)
    assert "commit" not in tags(installed)


@needs("wandb")
def test_wandbs_offline_run_has_figures_settings_and_summary(tmp_path, monkeypatch):
    log_wandb_to(tmp_path, monkeypatch)
    run_logged(wandb="project")
    found = records_of_wandb(tmp_path)
    kinds = {kind: [r for r in found if r.WhichOneof("record_type") == kind] for kind in ("run", "exit")}
    (run,) = (r.run for r in kinds["run"][:1])
    assert (run.project, run.run_group, run.display_name) == ("project", "quick/q2_1a-skip", "q2_1a-skip-seed0")
    config, summary = told_to_wandb(found)
    assert config["recipe.lr"] == ROW.recipe.lr and tags(DONE).items() <= config.items()
    assert final_figures(DONE).items() <= summary.items()
    assert [r.exit.exit_code for r in kinds["exit"]] == [0]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_what_was_logged_comes_back_as_a_study_with_the_same_figures(name, tmp_path, monkeypatch):
    pytest.importorskip(TRACKERS[name].module)
    log_wandb_to(tmp_path, monkeypatch)
    folder = str(tmp_path / ("wandb" if name == "wandb" else "logged"))
    given = {"mlflow": f"file:{folder}", "tensorboard": folder, "wandb": "project"}[name]
    both = [[[x + seed / 7 for x in e] for e in FIGURES] for seed in (0, 1)]
    runs = [record(row, seed, figures=both[seed]) for row in ("q2_1a", "q2_1b") for seed in (0, 1)]
    session = Hooks(Trackers({name: given}))
    for run in runs:
        session.begin(row=QUICK.row(run.row), images=IMAGES, seed=run.seed)
        session.end(row=QUICK.row(run.row), record=run, reused=False, seed=run.seed)
    session.begin(images=IMAGES, seed=9)
    session.failed(reason="interrupted", seed=9)
    session.finish()
    figures, lower = figures_of(["validation/miou", "pixels=validation/pixel_accuracy"], ["training/loss"])
    wanted = Wanted(figures=figures, lower_is_better=lower, only={"study": "quick"} if name != "tensorboard" else {})
    until = time.monotonic() + 20
    while True:  # wandb's file is written by another process
        finished, unfinished = read_runs([f"{name}:{given}" if name == "mlflow" else folder], wanted)
        if (len(finished), len(unfinished)) == (4, 1) or time.monotonic() > until:
            break
        time.sleep(0.2)
    study, read = judged_study("again", finished, wanted, claims_of(["q2_1a-skip"], "q2_1b-noskip", ["miou"], 0.0), "x")
    exact = {"tensorboard": 1e-6}.get(name, 0)  # TensorBoard holds float32
    read.sort(key=lambda r: (r.row, r.seed))
    assert [(r.row, r.seed) for r in read] == [(r.row, r.seed) for r in runs] and len(unfinished) == 1
    for run, back in zip(runs, read, strict=True):
        for mine, theirs in zip(run.epochs, back.epochs, strict=True):
            expected = {"miou": mine.figures["miou"], "pixels": mine.figures["pixel_accuracy"], "loss": mine.loss}
            assert theirs.figures == pytest.approx(expected, rel=exact, abs=0)
    assert study.rows["q2_1a-skip"].settings()["skips"] in (True, "True")


def logged(folder, *points, **hparams):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for tag, step, value in points:
            writer.add_scalar(tag, value, step)
        if hparams:
            writer.add_hparams(hparams, {"final": 0.0})  # into a folder below


@needs("tensorboard")
def test_folders_of_tensorboard_are_runs_as_pytorch_and_keras_lay_them_out(tmp_path):
    for arm in ("skip", "no_skip"):
        for seed in (0, 1):
            for part, value in (("train", 0.9), ("validation", 0.5 + seed / 8)):
                logged(tmp_path / "keras" / f"{arm}_{seed}" / part, ("epoch_acc", 0, value))
            logged(tmp_path / "torch" / f"{arm}{seed}", ("val/acc", 0, 0.5), ("val/acc", 1, 0.75), arm=arm, seed=seed)
    everything = [(arm, seed) for arm in ("no_skip", "skip") for seed in (0, 1)]
    for where, wanted, last, left_out in (
        ("keras", Wanted(figures={"acc": "epoch_acc"}, pattern="{row}_{seed}/validation"), [0.5, 0.625] * 2, "pattern"),
        ("torch", Wanted(figures={"acc": "val/acc"}, row=["arm"]), [0.75] * 4, "it logged no val/acc"),
    ):
        finished, unfinished = read_runs([str(tmp_path / where)], wanted)
        _, runs = judged_study("again", finished, wanted, [], "x")
        assert [(r.row, r.seed) for r in runs] == everything and [r.last("acc") for r in runs] == last
        assert len(unfinished) == 4 and all(left_out in run.unfinished for run in unfinished)
    twice = {path: found_in("{row}/{row}-{seed}", path, "seed") for path in ("of/skip/skip-3", "skip/no_skip-3")}
    assert [*twice.values()] == [{"row": "skip", "seed": "3"}, {}]


@needs("tensorboard")
def test_a_run_whose_figures_end_at_different_steps_is_refused(tmp_path):
    logged(tmp_path / "a" / "seed0", *(("acc", s, 0.1 * s) for s in range(5)), *(("loss", s, 1.0) for s in (0, 2)))
    wanted = Wanted(figures={"acc": "acc", "loss": "loss"})
    finished, _ = read_runs([str(tmp_path)], wanted)
    with pytest.raises(InputError, match="folder a/seed0 ends with acc, without loss"):
        judged_study("again", finished, wanted, [], "x")


@needs("wandb")
def test_nested_settings_of_wandbs_offline_runs_have_dotted_names(tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    said = Record()
    for key, value in {"model": {"depth": 2}, "seed": 1, "_wandb": {"cli": "0"}}.items():
        said.run.config.update.add(key=key, value_json=json.dumps(value))
    ended = Record()
    ended.exit.exit_code = 0
    content = [record.SerializeToString() for record in (said, ended)]
    odd = Record()
    odd.run.config.update.add(key="seed", value_json="{")

    def read(content):
        blocks = (struct.pack("<IHB", 0, len(part), 1) + part for part in content)
        (tmp_path / "run-a.wandb").write_bytes(b":W&B123" + b"".join(blocks))
        return read_runs([str(tmp_path)], Wanted(row=["model.depth"], figures={"acc": "acc"}))

    (run,), _ = read(content)
    assert {k: v for k, v in run.values.items() if k != "run_name"} == {"model.depth": 2, "seed": 1}
    for damaged in (b"\xff\xff", odd.SerializeToString()):
        with pytest.raises(InputError, match=r"run-a\.wandb: is damaged"):
            read([*content, damaged])


def test_wandbs_service_is_read_by_its_own_interface(monkeypatch):
    wandb = pytest.importorskip("wandb")

    class Logged:
        name, id, state, created_at = "r", "abc", "finished", "2026-01-02T03:04:05"
        config: typing.ClassVar = {"model": {"name": "a"}, "seed": 3, "_wandb": {"t": 1}}
        summary: typing.ClassVar = {"_runtime": 7, "val/acc": 0.9}

        points: typing.ClassVar = {"val/acc": [(1, 0.5), (2, 0.9)], "loss": [(1, 2.0)]}

        def scan_history(self, keys):
            """Steps that have all the keys."""
            return iter([dict(zip(keys, point, strict=True)) for point in self.points[keys[1]]])

    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"runs": lambda self, path: [Logged()]})())
    wanted = Wanted(row=["model.name"], figures={"acc": "val/acc"})
    (run,), _ = read_runs(["wandb:team/project"], wanted)
    assert run.values == {"model.name": "a", "seed": 3, "run_name": "r"}
    _, (back,) = judged_study("again", [run], wanted, [], "team/project")
    assert ([e.figures["acc"] for e in back.epochs], back.seed, back.row) == ([0.5, 0.9], 3, "a")
    assert back.times.total_seconds == 7 and back.started.startswith("2026-01-02")
    wanted = replace(wanted, figures={"acc": "val/acc", "loss": "loss"})
    runs, _ = read_runs(["wandb:team/project"], wanted)
    with pytest.raises(InputError, match=r"run r \(abc\) ends with val/acc, without loss"):
        judged_study("again", runs, wanted, [], "team/project")


@pytest.mark.parametrize("told", [DONE.epochs, DONE.epochs[:2], [], DONE.epochs[2:]], ids=["3", "2", "0", "the last"])
def test_epochs_that_were_not_told_come_with_the_record_and_in_order(told, noted, tmp_path):
    """The last alone is told where the first two are those of an earlier session."""
    noted(wandb=Noted)
    run_logged(told, wandb=str(tmp_path))
    name = "q2_1a-skip-seed0"
    epochs = [("epoch", name, i) for i in (1, 2, 3)]
    assert noted.read() == [[("begin", name, IMAGES), *epochs, ("end", name, 0)]]


def test_a_run_is_logged_when_it_is_trained_or_fails_and_not_when_it_is_reused_or_skipped(noted, tmp_path):
    noted(wandb=Noted)
    session = Hooks(Trackers({"wandb": str(tmp_path)}))
    session.failed(reason="before anything began")
    session.begin(images=IMAGES, seed=1)
    session.end(record=record("q2_1a", 1), reused=True, seed=1)
    session.begin(images=IMAGES, seed=2)  # and skipped
    for seed in (3, 3):  # trained by two tests
        session.begin(images=IMAGES, seed=seed)
        session.epoch(epoch=DONE.epochs[0], seed=seed)
        session.end(record=record("q2_1a", seed, figures=FIGURES[:1]), reused=False, seed=seed)
    session.begin(images=None, seed=4)
    session.failed(reason="interrupted", seed=4)
    session.finish()
    trained, failed = "q2_1a-skip-seed3", "q2_1a-skip-seed4"
    twice = [("begin", trained, IMAGES), ("epoch", trained, 1), ("end", trained, 3)] * 2
    assert noted.read() == [[*twice, ("begin", failed, None), ("failed", failed, "interrupted")]]


def test_a_tracker_that_raises_is_off_with_one_warning_and_the_others_go_on(noted, tmp_path):
    noted(wandb=Raising, mlflow=Noted)
    with pytest.warns(UserWarning) as caught:
        run_logged(wandb=str(tmp_path / "nowhere"), mlflow=str(tmp_path))
    (warned,) = caught
    assert str(warned.message).startswith("--wandb is off from here on: FileNotFoundError")
    assert len(noted.read()[0]) == 5


def test_a_tracker_that_raises_is_off_where_warnings_are_errors(noted, tmp_path, recwarn):
    noted(wandb=Raising)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_logged(wandb=str(tmp_path))
    assert noted.read() == [[("begin", "q2_1a-skip-seed0", IMAGES)]]


def test_a_tracker_that_hangs_keeps_no_run_waiting_and_a_session_not_for_long(noted, tmp_path, monkeypatch):
    noted(wandb=Hanging)
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.2)
    began = time.perf_counter()
    with pytest.warns(UserWarning, match=r"--wandb: not done 0 s after the end"):
        run_logged(wandb=str(tmp_path))
    assert time.perf_counter() - began < 20  # not the minute that the tracker takes


def test_settings_are_flat_say_all_and_are_named_by_the_way_to_them():
    settings = Run(ROW, 3, IMAGES).settings
    assert (settings["study"], settings["seed"], settings["recipe.epochs"]) == ("quick", 3, ROW.recipe.epochs)
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())
    assert "corruption" not in settings  # None
    rows = {"a": {"model": {"encoder": {"depth": 2}, "sizes": [1, 2]}}}
    settings = Run(Study("own", train=lambda run: [], rows=rows, primary="x").rows["a"], 0, None).settings
    assert settings["model.encoder.depth"] == 2 and settings["model.sizes"] == "[1, 2]"


def test_figures_are_named_as_they_are_in_every_tracker_and_speed_where_it_is_known():
    figures = Run(ROW, 0, IMAGES).figures(DONE.epochs[0])
    assert (figures["validation/miou"], figures["training/lr"]) == (0.7, 0.1)
    assert figures["training/images_per_second"] == IMAGES / 2.0
    figures = Run(ROW, 0, None).figures(replace(DONE.epochs[0], loss=math.nan))
    assert math.isnan(figures["training/loss"]) and "training/images_per_second" not in figures


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_missing_library_is_one_error_that_names_what_to_install(name, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"--{name}: needs .*pip install {re.escape(TRACKERS[name].install)}"):
        check_trackers({name: "there"})
    check_trackers(dict.fromkeys(TRACKERS))


def test_a_database_that_mlflow_skinny_cannot_use_is_one_error(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None if module == "sqlalchemy" else object())
    with pytest.raises(InputError, match=r"--mlflow sqlite:///a\.db: is a database"):
        check_trackers({"mlflow": "sqlite:///a.db"})
    for uri in ("file:runs", "http://localhost:5000"):
        check_trackers({"mlflow": uri})


def test_a_tracker_of_ones_own_is_a_hook_in_a_conftest(tmp_path, monkeypatch):
    """The one that the documentation of the hooks shows."""
    shown = hookspec.__doc__.partition(".. code-block:: python\n\n")[2].partition("\n\nThe hooks")[0]
    conftest = ModuleType("conftest")
    exec(re.sub("^    ", "", shown, flags=re.MULTILINE), vars(conftest))
    monkeypatch.chdir(tmp_path)
    session = Hooks(conftest)
    session.begin(images=IMAGES)
    for epoch in DONE.epochs:
        session.epoch(epoch=epoch)
    session.end(record=DONE, reused=False)
    lines = [f"quick q2_1a-skip 0 {e.epoch} 0.5 {e.figures['miou']}" for e in DONE.epochs]
    assert (tmp_path / "epochs.txt").read_text().splitlines() == lines
