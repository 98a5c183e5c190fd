"""Runs on a Ray cluster of several nodes: the figures of a session without it, whatever dies on the way."""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import cvhw4
from cvhw4 import homework
from cvhw4.errors import InputError, TrainingDiverged, TrainingFailed
from cvhw4.executors import ray as module
from cvhw4.executors.ray import Cluster, Share, share_of
from cvhw4.records.store import Store
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.tiny import QUICK, TinyRunner, row

pytestmark = pytest.mark.integration
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@dataclass(frozen=True, kw_only=True)
class NotedRunner(TinyRunner):
    """On a node, its records lie in a folder of that node's. What is begun is noted.

    Attributes:
        notes: folder that all processes share.
        driver: the process that made the runner.
        apart: whether nodes have results folders of their own.
        dies: whether a run ends its process.
    """

    notes: Path
    driver: int
    apart: bool = True
    dies: bool = False

    @property
    def store(self):
        if os.getpid() == self.driver or not self.apart:
            return Store(self.results, self.study.name)
        return Store(self.notes / node_here(), self.study.name)

    def run(self, row, seed, on_epoch=None):
        note = [node_here(), str(os.getpid()), str(self.reuse), str(Path(cvhw4.__file__).parent)]
        (self.notes / f"{row.name}-{seed}-{time.time_ns()}").write_text("\n".join(note))
        if self.dies:
            os._exit(1)

        def then_hold(epoch):
            on_epoch(epoch)
            while epoch.epoch == 2 and (self.notes / "hold").exists():
                time.sleep(0.02)

        return super().run(row, seed, then_hold)


def node_here():
    import ray

    return ray.get_runtime_context().get_node_id()


@pytest.fixture(scope="module")
def nodes():
    """A running cluster: a head without CPUs, which this process belongs to, and two nodes of one CPU."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        nodes = Nodes(initialize_head=True, head_node_args=head)
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
        sys.modules["ray"].shutdown()
        nodes.shutdown()


@pytest.fixture
def runner(tmp_path):
    """A runner on one thread, here as on the nodes."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    (tmp_path / "notes").mkdir()
    shared = {"notes": tmp_path / "notes", "driver": os.getpid()}
    yield NotedRunner(study=QUICK, device="cpu", results=tmp_path / "results", threads=1, **shared)
    torch.set_num_threads(before)


OPTIONS = ("device", "precision", "cuda_graphs", "weights", "results", "reuse", "deterministic", "checkpoint_seconds")


def connect(runner, address, threads):
    """A `Cluster` that runs as a runner does."""
    options = {name: getattr(runner, name) for name in OPTIONS} | {"threads": threads}
    return Cluster(options, address, None, like(runner))


def like(runner):
    return lambda study, options: replace(runner, **dict(options) | {"study": study})


CONNECTED = []


@pytest.fixture
def cluster(nodes, runner):
    """`cluster(**changes)`: a `Cluster` on the running nodes that runs as the runner, changed so. Tests share the
    connection, and so worker processes with torch."""
    import ray

    if not ray.is_initialized():
        CONNECTED[:] = [connect(runner, nodes.address, 1)]

    def changed(**changes):
        made = replace(runner, **changes)
        CONNECTED[0].make = like(made)
        CONNECTED[0].options = {name: getattr(made, name) for name in (*OPTIONS, "threads")}
        return CONNECTED[0]

    return changed


@pytest.fixture
def alone():
    """No connection to a cluster."""
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


def notes(runner, row, seed):
    """What was noted of a run, once for each time that it was begun, oldest first."""
    return [path.read_text().split("\n") for path in sorted(runner.notes.glob(f"{row.name}-{seed}-*"))]


def figures(record):
    """All of a record that does not tell of time and place."""
    epochs = [(e.epoch, e.lr, e.loss, dict(e.figures)) for e in record.epochs]
    return record.fingerprint, record.images, epochs, repr(record.by_class), record.settings


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379", "nonsense", "host:port"])
def test_an_address_that_does_not_answer_is_one_error(runner, alone, address):
    began = time.monotonic()
    with pytest.raises(InputError, match=f"--ray-address {address}: cannot be reached"):
        connect(runner, address, None)
    assert time.monotonic() - began < 2 * module.REACH


@needs_ray
def test_a_cluster_of_this_machine_computes_as_a_session_without_ray(runner, alone):
    runner = replace(runner, threads=None, apart=False)
    cluster = connect(runner, None, None)
    try:
        cluster.submit([(QUICK, row("q1_2"), 0)])
        record, _ = cluster.result(row("q1_2"), 0, lambda event: None)
    finally:
        cluster.close()
    serial = Runner.run(replace(runner, results=runner.results.with_name("serial")), row("q1_2"), 0)
    assert figures(record) == figures(serial) and record.environment == serial.environment


@needs_ray
def test_figures_are_those_of_a_session_without_ray_and_all_come_back_to_one_folder(runner, cluster, capfd):
    runs = [(row(name), seed) for name in ("q1_1", "q1_2", "q2_1a") for seed in (0, 1)]
    serial = replace(runner, results=runner.results.with_name("serial"))
    events, records = [], {}
    connected = cluster()
    connected.submit([(QUICK, *run) for run in runs])
    for experiment, seed in runs:
        records[experiment.name, seed], _ = connected.result(experiment, seed, events.append)
        mine = [e.epoch and e.epoch.epoch for e in events if (e.row, e.seed) == (experiment.name, seed)]
        assert mine == [None, 1, 2]  # all that it told is here before its record
    assert capfd.readouterr() == ("", "")

    assert {len(list(runner.results.rglob(f"runs/*/*.{kind}"))) for kind in ("json", "samples.npz")} == {len(runs)}
    assert len({notes(runner, *run)[0][0] for run in runs}) == 2  # both nodes had a part
    for experiment, seed in runs:
        record = records[experiment.name, seed]
        stored = runner.store.find(experiment.name, seed, record.fingerprint)
        assert stored.to_json() == record.to_json() and runner.store.images(record) is not None
        samples = runner.store.samples(record)
        assert samples is not None and runner.store.pictures(samples.pictures) is not None
        assert figures(record) == figures(Runner.run(serial, experiment, seed))
        assert record.environment["commit"] == serial.store.load()[0].environment["commit"]
        ((*_, code),) = notes(runner, experiment, seed)
        assert "py_modules_files" in code  # what was shipped, not what is found at this process's path


@needs_ray
def test_an_error_of_a_run_arrives_as_what_it_is_and_the_others_are_finished(runner, cluster, tmp_path):
    cluster, elsewhere = cluster(), homework.study(portraits=tmp_path / "nowhere")
    diverges = row("q2_1a", lr=1e30)
    cluster.submit([(elsewhere, row("q1_2"), 0), (QUICK, diverges, 0), (QUICK, row("q2_1b"), 0)])
    with pytest.raises(InputError, match="same path on every node") as caught:
        cluster.result(row("q1_2"), 0, lambda event: None)
    assert type(caught.value) is InputError and caught.value.where == str(tmp_path / "nowhere")
    assert os.uname().nodename in caught.value.problem
    with pytest.raises(TrainingDiverged, match="loss") as failed:
        cluster.result(diverges, 0, lambda event: None)
    assert failed.value.epoch == 1 and len(notes(runner, diverges, 0)) == 1  # it is not tried again
    (note,) = runner.store.failures()
    assert (note.row, note.reason, note.checkpoint) == (diverges.name, str(failed.value), None)
    assert cluster.result(row("q2_1b"), 0, lambda event: None)[0].seed == 0


@needs_ray
def test_stored_runs_are_reused_on_nodes_that_do_not_have_them(runner, cluster):
    experiment, events = row("q1_2"), []
    stored = Runner.run(runner, experiment, 0)
    cluster = cluster(reuse=True)
    cluster.submit([(QUICK, experiment, 0)])
    assert cluster.result(experiment, 0, events.append)[0].to_json() == stored.to_json()
    assert [e.epoch for e in events] == [None]


@needs_ray
def test_a_run_whose_node_dies_goes_on_elsewhere_and_ends_with_the_same_record(runner, cluster, nodes):
    experiment, events, killed = row("q1_2", epochs=3), [], []
    (runner.notes / "hold").touch()

    def kill(event):
        events.append(event)
        if event.epoch is not None and event.epoch.epoch == 2 and not killed:  # in mid-run
            node, process, *_ = notes(runner, experiment, event.seed)[0]
            if node == node_here():  # Ray takes no node away that this process belongs to
                return
            killed.append(event.seed)
            nodes.remove_node(next(n for n in nodes.list_all_nodes() if n.node_id == node), allow_graceful=False)
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)  # sooner than it would notice by itself
            (runner.notes / "hold").unlink()

    cluster = cluster(apart=False, checkpoint_seconds=600)  # at the end of every epoch
    cluster.submit([(QUICK, experiment, seed) for seed in (0, 1, 2)])
    try:
        records = [cluster.result(experiment, seed, kill)[0] for seed in (0, 1, 2)]
    finally:
        nodes.add_node(num_cpus=1)
    assert {len(list(runner.results.rglob(f"runs/*/*.{kind}"))) for kind in ("json", "samples.npz")} == {3}
    serial = replace(runner, results=runner.results.with_name("serial"), apart=False)
    assert [figures(r) for r in records] == [figures(Runner.run(serial, experiment, s)) for s in (0, 1, 2)]
    for seed, record in enumerate(records):
        told = [e.epoch and e.epoch.epoch for e in events if e.seed == seed]
        again = [seed] == killed  # and then from the checkpoint after epoch 1
        assert told == ([None, 1, 2, None, 2, 3] if again else [None, 1, 2, 3])
        assert record.times.interruptions == again
        begun = notes(runner, experiment, seed)
        assert [reuse for _, _, reuse, _ in begun] == (["False", "True"] if again else ["False"])
        assert len({node for node, *_ in begun}) == len(begun)


@needs_ray
def test_a_run_that_ends_its_process_each_time_fails_by_name(runner, cluster, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    cluster = cluster(dies=True)
    cluster.submit([(QUICK, row("q1_2"), 5)])
    with pytest.raises(TrainingFailed, match=r"^q1_2-finetune, seed 5: begun 2 times"):
        cluster.result(row("q1_2"), 5, lambda event: None)
    assert [reuse for _, _, reuse, _ in notes(runner, row("q1_2"), 5)] == ["False", "True"]


@needs_ray
def test_a_session_on_a_cluster_fills_tables_and_results_folder(tmp_path, nodes, alone):
    from tests.helpers.sessions import wide_bounds

    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "benchmarks" / "bounds.toml").write_text(wide_bounds())
    (tmp_path / "pytest.ini").write_text("[pytest]")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.helpers.tiny", "benchmarks"]
    cluster = ["--executor", "ray", "--ray-address", nodes.address, "--threads", "1", "--device", "cpu"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [*command, "-k", "q1_1 or q1_5", "--seeds", "2", *cluster],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "q1_1-features        seed 0  best accuracy" in done.stdout and "ablation study quick" in done.stdout
    assert "reused" not in done.stdout and "raylet" not in done.stdout + done.stderr
    records = Store(tmp_path / "results", "quick").load()
    assert sorted((r.row, r.seed) for r in records) == [(f"q1_{n}-features", s) for n in (1, 5) for s in (0, 1)]


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install cvhw4\[ray\]"):
        Cluster({}, None)


HEAD, SMALL, LARGE, GPUS = {"memory": 1e9}, {"CPU": 4.0}, {"CPU": 16.0}, {"CPU": 26.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "device", "threads", "share"),
    [
        ([HEAD, SMALL, LARGE], "auto", None, Share("cpu", 4, 0, 4)),  # all CPUs of the smallest node that has any
        ([HEAD, SMALL, LARGE], "cpu", 8, Share("cpu", 8, 0, 8)),  # fits on one of them
        ([HEAD, SMALL, GPUS], "auto", None, Share("cuda", 6, 1, 6)),  # 4 runs share its 26 CPUs
        ([GPUS], "cuda", 2, Share("cuda", 2, 1, 2)),
        ([GPUS], "cpu", None, Share("cpu", 26, 0, 26)),
        ([{"CPU": 2.0, "GPU": 8.0}], "cuda", None, Share("cuda", 0, 1, 1)),  # no GPU waits for a CPU
        ([HEAD, SMALL], "cuda", None, "finds no GPUs in the Ray cluster"),
        ([HEAD], "auto", None, "finds no CPUs"),
        ([SMALL, LARGE], "auto", 17, r"--threads 17: is more than any node has \(16\)"),
    ],
)
def test_share_of_a_run(nodes, device, threads, share):
    with pytest.raises(InputError, match=share) if isinstance(share, str) else nullcontext():
        assert share_of(nodes, device, threads) == share


def of_random_numbers(run):
    """A training loop of a user's own, which says in its log where it ran."""
    run.log("on", node_here() if "ray" in sys.modules and sys.modules["ray"].is_initialized() else "no node")
    for epoch in range(2):
        if run.settings["depth"] == 0:
            raise ValueError("no depth")
        yield {"accuracy": random.random() * run.settings["depth"], "epoch": epoch}


@needs_ray
def test_a_training_loop_of_ones_own_runs_on_the_nodes_as_here(runner, cluster):
    rows = {"deep": {"depth": 8}, "flat": {"depth": 0}}
    study = cvhw4.Study("own", train=of_random_numbers, rows=rows, primary="accuracy")
    runner, events = replace(runner, study=study), []
    connected = cluster(study=study)
    connected.submit([(study, study.rows["deep"], 0), (study, study.rows["deep"], 1), (study, study.rows["flat"], 0)])
    for seed in (0, 1):
        record, _ = connected.result(study.rows["deep"], seed, events.append)
        serial = Runner.run(replace(runner, results=runner.results.with_name("serial")), study.rows["deep"], seed)
        assert figures(record) == figures(serial) and record.environment == serial.environment
        assert runner.store.find("deep", seed, record.fingerprint).to_json() == record.to_json()
    assert [e.epoch and e.epoch.epoch for e in events if (e.row, e.seed) == ("deep", 1)] == [None, 1, 2]
    with pytest.raises(TrainingFailed, match="flat, seed 0, epoch 1: train raises ValueError: no depth") as failed:
        connected.result(study.rows["flat"], 0, events.append)
    assert 'raise ValueError("no depth")' in failed.value.traceback
    (note,) = runner.store.failures()
    assert note.traceback == failed.value.traceback
