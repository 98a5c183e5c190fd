"""Runs logged to TensorBoard, MLflow and Weights & Biases, read back; trackers that raise, hang or are missing."""

import importlib.util
import json
import math
import os
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cvhw4 import trackers
from cvhw4.errors import InputError
from cvhw4.trackers import TRACKERS, Run, Trackers, check_trackers, final_figures, tags
from tests.test_live import finals, session  # noqa: F401
from tests.tiny import record, row

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ((0.7, 0.5, 0.6, 0.4), (0.9, 0.8, 0.6, 0.7), (0.8, 0.7, 0.7, 0.6))
ROW = row("q2_1a", epochs=3)
IMAGES = 12


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def run_logged(told=3, failed="", **wanted):
    """Logs a run of which epochs are told while it trains, and the rest with its record."""
    done = record("q2_1a", figures=FIGURES)
    logged = Trackers(wanted)
    logged.begin(ROW, 0, lambda: IMAGES)
    for epoch in done.epochs[:told]:
        logged.epoch(epoch)
    if failed:
        logged.failed(failed)
    else:
        logged.end(done)
    logged.close()
    return done


def by_epoch(done):
    """What every tracker has to show of a run: points (epoch, value) by name."""
    expected = {}
    for epoch in done.epochs:
        for name, value in Run(ROW, 0, IMAGES).figures(epoch).items():
            expected.setdefault(name, []).append((epoch.epoch, value))
    assert expected["validation/miou"] == [(1, 0.7), (2, 0.9), (3, 0.8)]
    assert expected["training/images_per_second"][0] == (1, IMAGES / 2.0) and expected["training/lr"][0] == (1, 0.1)
    return expected


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


class OfProfile(Noted):
    def begin(self, run):
        self.name = run.profile


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
def test_tensorboard_has_every_figure_by_epoch_and_the_settings(tmp_path):
    pytest.importorskip("torch")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_logged(told=1, failed="interrupted", tensorboard=str(tmp_path))
    done = run_logged(tensorboard=str(tmp_path))  # in place of the first
    folder = tmp_path / "q2_1a-skip" / "seed0"
    read = EventAccumulator(str(folder)).Reload()
    for name, points in by_epoch(done).items():
        scalars = [(s.step, s.value) for s in read.Scalars(name)]
        assert scalars == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    assert read.Scalars("best/miou")[0].value == pytest.approx(0.9, rel=1e-6) and read.Scalars("last/miou")[0].step == 0
    plugin = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"recipe.lr" in plugin and done.fingerprint.encode() in plugin


@needs("tensorboard")
def test_tensorboard_shows_why_a_run_failed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_logged(told=1, failed="loss nan in epoch 2", tensorboard=str(tmp_path))
    read = EventAccumulator(str(tmp_path / "q2_1a-skip" / "seed0")).Reload()
    assert b"loss nan in epoch 2" in read.Tensors("failed/text_summary")[0].tensor_proto.string_val[0]
    assert [s.step for s in read.Scalars("training/loss")] == [1]


@needs("mlflow")
def test_mlflows_store_has_the_run_with_its_parameters_figures_and_tags(tmp_path):
    uri = f"file:{tmp_path}"
    done = run_logged(told=2, mlflow=uri)
    run_logged(told=1, failed="interrupted", mlflow=uri)  # into the same experiment
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "cvhw4 quick")
    runs = {run.info.status: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"FINISHED", "FAILED"} and runs["FAILED"].data.tags["reason"] == "interrupted"
    run = runs["FINISHED"]
    assert run.info.run_name == "q2_1a-skip-seed0" and tags(done).items() <= run.data.tags.items()
    assert run.data.params["recipe.lr"] == str(ROW.recipe.lr) and run.data.params["skips"] == "True"
    assert final_figures(done).items() <= run.data.metrics.items()
    for name, points in by_epoch(done).items():
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((m.step, m.value) for m in history) == points


@needs("wandb")
def test_wandbs_offline_run_has_figures_settings_and_summary(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    done = run_logged(wandb="project")
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found, patience = [], time.monotonic() + 20
    while not any(r.WhichOneof("record_type") == "exit" for r in found):  # another process writes it
        assert time.monotonic() < patience
        time.sleep(0.1)
        found = [Record.FromString(content) for content in logged_in(path)]
    kinds = {kind: [r for r in found if r.WhichOneof("record_type") == kind] for kind in ("run", "history", "exit")}
    (run,) = (r.run for r in kinds["run"][:1])
    assert (run.project, run.run_group, run.display_name) == ("project", "q2_1a-skip", "q2_1a-skip-seed0")
    config, summary = {}, {}
    for r in found:
        for updates, values in ((r.run.config.update, config), (r.config.update, config), (r.summary.update, summary)):
            values |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}
    assert config["recipe.lr"] == ROW.recipe.lr and tags(done).items() <= config.items()
    assert final_figures(done).items() <= summary.items()
    points = {}
    for r in kinds["history"]:
        items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in r.history.item}
        for name, value in items.items():
            points.setdefault(name, []).append((items["epoch"], value))
    assert by_epoch(done).items() <= points.items()
    assert [r.exit.exit_code for r in kinds["exit"]] == [0]


def logged_in(path):
    """The records of a file of wandb's: LevelDB's log behind 7 bytes, in blocks of 32 KiB."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        length, kind = struct.unpack("<xxxxHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            return
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@pytest.mark.parametrize("told", [0, 2, 3])
def test_epochs_that_were_not_told_come_with_the_record(told, noted, tmp_path):
    noted(wandb=Noted)
    run_logged(told=told, wandb=str(tmp_path))
    name = "q2_1a-skip-seed0"
    epochs = [("epoch", name, i) for i in (1, 2, 3)]
    assert noted.read() == [[("begin", name, IMAGES), *epochs, ("end", name, 0)]]


def test_a_continued_run_is_logged_whole_and_in_order(noted, tmp_path):
    noted(wandb=Noted)
    done = record("q2_1a", figures=FIGURES)
    logged = Trackers({"wandb": str(tmp_path)})
    logged.begin(ROW, 0, lambda: IMAGES)
    logged.epoch(done.epochs[2])  # the first two are those of an earlier session
    logged.end(done)
    logged.close()
    assert [what[2] for what in noted.read()[0] if what[0] == "epoch"] == [1, 2, 3]


def test_runs_of_one_session_are_each_of_their_rows_profile(noted, tmp_path):
    noted(wandb=OfProfile)
    logged = Trackers({"wandb": str(tmp_path)})
    for experiment in (ROW, replace(ROW, profile="insects")):
        logged.begin(experiment, 0, lambda: IMAGES)
        logged.failed("interrupted")
    logged.close()
    assert noted.read() == [[("failed", name, "interrupted") for name in ("quick", "insects")]]


def test_a_tracker_that_raises_is_off_with_one_warning_and_the_others_go_on(noted, tmp_path):
    noted(wandb=Raising, mlflow=Noted)
    with pytest.warns(UserWarning) as caught:
        run_logged(wandb=str(tmp_path / "nowhere"), mlflow=str(tmp_path))
    (warned,) = [str(w.message) for w in caught]
    assert warned.startswith("--wandb is off from here on: FileNotFoundError")
    assert len(noted.read()[0]) == 5


def test_warnings_that_are_errors_end_no_run(noted, tmp_path, recwarn):
    import warnings

    noted(wandb=Raising)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_logged(wandb=str(tmp_path))
    assert noted.read() == [[("begin", "q2_1a-skip-seed0", IMAGES)]]


def test_a_tracker_that_hangs_keeps_no_run_waiting_and_a_session_not_for_long(noted, tmp_path, monkeypatch):
    noted(wandb=Hanging)
    monkeypatch.setattr(trackers, "LAST_WORDS", 0.2)
    began = time.perf_counter()
    with pytest.warns(UserWarning, match=r"--wandb: not done 0 s after the end"):
        run_logged(wandb=str(tmp_path))
    assert time.perf_counter() - began < 2


def test_what_a_run_pays_for_trackers_is_microseconds(noted, tmp_path):
    noted(wandb=Noted)
    logged = Trackers({"wandb": str(tmp_path)})
    logged.failed("before anything began")
    logged.begin(ROW, 0, lambda: IMAGES)
    epochs = [replace(record("q2_1a").epochs[0], epoch=i) for i in range(1, 1001)]
    took = []
    for epoch in epochs:
        began = time.perf_counter()
        logged.epoch(epoch)
        took.append(time.perf_counter() - began)
    logged.close()
    assert sorted(took)[500] < 1e-3


def test_settings_are_flat_and_say_all():
    settings = Run(ROW, 3, IMAGES).settings
    assert (settings["seed"], settings["recipe.epochs"], settings["network"]) == (3, 3, ROW.network)
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())
    assert "sabotage" not in settings  # None


def test_figures_that_are_no_numbers_are_logged_as_they_are():
    epoch = replace(record("q2_1a").epochs[0], loss=math.nan)
    assert math.isnan(Run(ROW, 0, IMAGES).figures(epoch)["training/loss"])


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


SWAP = """
from cvhw4.trackers import TRACKERS

TRACKERS["wandb"] = TRACKERS["wandb"]._replace(tracker="tests.test_trackers:{}", module="json")
"""


def begin(folder, *args):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.pretended", "--benchmark-disable"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run([*command, *args], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def checkout(session, tmp_path):  # noqa: F811
    """Makes the session's folder, with a tracker in the place of wandb's."""

    def make(kind):
        with open(tmp_path / "conftest.py", "a") as file:
            file.write(SWAP.format(kind))
        return tmp_path

    return make


def test_a_session_logs_what_it_trains_and_not_what_it_reuses(checkout, noted):
    folder = checkout("Noted")
    select = ("-k", "q2_3", "--wandb", str(folder))
    assert begin(folder, *select, "--seeds", "1").returncode == 0
    assert begin(folder, *select, "--seeds", "2", "--reuse").returncode == 0
    sessions = {what[0][1]: what for what in noted.read()}
    assert sessions.keys() == {"q2_3-3class-seed0", "q2_3-3class-seed1"}
    assert all([what[0] for what in told] == ["begin", *["epoch"] * 8, "end"] for told in sessions.values())


AGAIN = """
import pytest

@pytest.mark.question("q2")
def test_again(train, benchmark, experiment, seed):
    train(experiment, seed)
    assert benchmark.extra_info["reused"] is {}
"""


def test_a_run_that_a_second_test_trains_is_trained_and_logged_again_and_not_where_it_is_reused(checkout, noted):
    folder = checkout("Noted")
    select = ("-k", "q2_3", "--seeds", "1", "--wandb", str(folder))
    (folder / "test_report_2.py").write_text(AGAIN.format(False))
    assert begin(folder, *select).returncode == 0
    (folder / "test_report_2.py").write_text(AGAIN.format(True))
    done = begin(folder, *select, "--reuse")
    assert done.returncode == 0 and done.stdout.count(" reused ") == 2, done.stdout
    (told,) = noted.read()
    assert [what[0] for what in told] == ["begin", *["epoch"] * 8, "end"] * 2


def test_every_worker_logs_its_own_runs_and_each_has_a_line_and_no_dot(session, checkout, noted):  # noqa: F811
    folder = checkout("Noted")
    shown = session("-n", "2", "-k", "q1_1 or q2_3", "--seeds", "2", "--wandb", str(folder))
    runs = {(row, seed) for row in ("q1_1-features", "q2_3-3class") for seed in "01"}
    told = finals(shown.lines)
    assert {(row, seed) for row, seed, *_ in told} == runs and [place for *_, place, _ in told] == list("1234")
    assert [line[:3].rstrip() for line in shown.lines if re.match("[.sF]+(  |$)", line)] == ["F"]
    begun = [what[1] for process in noted.read() for what in process if what[0] == "begin"]
    assert sorted(begun) == sorted(f"{row}-seed{seed}" for row, seed in runs) and len(noted.read()) == 2


def test_on_a_cluster_the_session_logs_runs_whole_and_each_has_a_line(session, checkout, noted):  # noqa: F811
    folder = checkout("Noted")
    shown = session("--executor", "ray", "-k", "q1_5 or q2_3", "--seeds", "1", "--wandb", str(folder))
    assert finals(shown.lines) == [("q1_5-features", "0", "1", "2"), ("q2_3-3class", "0", "2", "2")]
    assert "q1_5-features seed 0  waiting; q2_3-3class seed 0 finished epoch 8 on node" in shown.seen
    told = [(what[0], what[1]) for what in noted.read()[0]]
    runs = [("q1_5-features-seed0", 5), ("q2_3-3class-seed0", 8)]
    assert told == [(what, name) for name, n in runs for what in ("begin", *["epoch"] * n, "end")]


def test_a_session_whose_tracker_raises_passes_with_one_warning(checkout):
    folder = checkout("Raising")
    done = begin(folder, "-k", "q2_3", "--seeds", "2", "--wandb", str(folder))
    assert done.returncode == 0 and done.stdout.count("--wandb is off from here on: RuntimeError('server") == 1


def test_a_library_that_is_missing_ends_the_session_before_anything_is_trained(checkout, tmp_path):
    folder = checkout("Noted")
    with open(tmp_path / "conftest.py", "a") as file:
        file.write('TRACKERS["wandb"] = TRACKERS["wandb"]._replace(module="no_such_module")')
    done = begin(folder, "-k", "q2_3", "--wandb", "project")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "pip install cvhw4[wandb]" in done.stderr
    assert not (tmp_path / "results").exists()
