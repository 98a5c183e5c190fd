"""Runs on a Ray cluster of several nodes: the figures of a session without it, whatever dies on the way."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import cvhw4
from cvhw4 import cluster as module
from cvhw4.cluster import Cluster, Share, share_of
from cvhw4.errors import InputError, TrainingDiverged, TrainingFailed
from cvhw4.records.store import Store
from cvhw4.study import Study
from tests.tiny import dataset, row

ROOT = Path(__file__).resolve().parent.parent
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


class TinyStudy(Study):
    """A study of tiny pictures, in whatever process it is."""

    def data(self, question):
        return dataset(question)


@dataclass(frozen=True, kw_only=True)
class NotedStudy(TinyStudy):
    """On a node, its records lie in a folder of that node's. What is begun is noted.

    Attributes:
        notes: folder that all processes share.
        driver: the process that made the study.
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
            return Store(self.results, self.profile)
        return Store(self.notes / node_here(), self.profile)

    def run(self, experiment, seed, on_epoch=None):
        note = [node_here(), str(os.getpid()), str(self.reuse), str(Path(cvhw4.__file__).parent)]
        (self.notes / f"{experiment.id}-{seed}-{time.time_ns()}").write_text("\n".join(note))
        if self.dies:
            os._exit(1)

        def then_hold(epoch):
            on_epoch(epoch)
            while epoch.epoch == 2 and (self.notes / "hold").exists():
                time.sleep(0.02)

        return super().run(experiment, seed, then_hold)


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
def study(tmp_path):
    """A study on one thread, here as on the nodes."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    (tmp_path / "notes").mkdir()
    yield NotedStudy(
        device="cpu", results=tmp_path / "results", notes=tmp_path / "notes", driver=os.getpid(), threads=1
    )
    torch.set_num_threads(before)


CONNECTED = []


@pytest.fixture
def cluster(nodes, study):
    """A `Cluster` of the study on the running nodes. Tests share the connection, and so worker processes with torch."""
    import ray

    if not ray.is_initialized():
        CONNECTED[:] = [Cluster(study, nodes.address, 1)]
    CONNECTED[0].study = study  # which has all that a `Cluster` would change
    return CONNECTED[0]


@pytest.fixture
def alone():
    """No connection to a cluster."""
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


def notes(study, experiment, seed):
    """What was noted of a run, once for each time that it was begun, oldest first."""
    return [path.read_text().split("\n") for path in sorted(study.notes.glob(f"{experiment.id}-{seed}-*"))]


def figures(record):
    """All of a record that does not tell of time and place."""
    epochs = [(e.epoch, e.lr, e.loss, dict(e.figures)) for e in record.epochs]
    return record.fingerprint, record.images, epochs, repr(record.by_class), record.settings


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379", "nonsense", "host:port"])
def test_an_address_that_does_not_answer_is_one_error(study, alone, address):
    began = time.monotonic()
    with pytest.raises(InputError, match=f"--ray-address {address}: cannot be reached"):
        Cluster(study, address, None)
    assert time.monotonic() - began < 2 * module.REACH


@needs_ray
def test_a_cluster_of_this_machine_computes_as_a_session_without_ray(study, alone):
    study = replace(study, threads=None, apart=False)
    cluster = Cluster(study, None, None)
    try:
        cluster.submit([(row("q1_2"), 0)])
        record = cluster.result(row("q1_2"), 0, lambda event: None)
    finally:
        cluster.close()
    serial = Study.run(replace(study, results=study.results.with_name("serial")), row("q1_2"), 0)
    assert figures(record) == figures(serial) and record.environment == serial.environment


@needs_ray
def test_what_the_nodes_lack_is_an_error_before_anything_runs(study, nodes, alone):
    with pytest.raises(InputError, match="finds no GPUs in the Ray cluster"):
        Cluster(replace(study, device="cuda"), nodes.address, None)
    with pytest.raises(InputError, match=r"--threads 2: is more than any node has \(1\)"):
        Cluster(study, nodes.address, 2)


@needs_ray
def test_figures_are_those_of_a_session_without_ray_and_all_come_back_to_one_folder(study, cluster, capfd):
    runs = [(row(name), seed) for name in ("q1_1", "q1_2", "q2_1a") for seed in (0, 1)]
    serial = replace(study, results=study.results.with_name("serial"))
    events, records = [], {}
    cluster.submit(runs)
    for experiment, seed in runs:
        records[experiment.id, seed] = cluster.result(experiment, seed, events.append)
        mine = [e.epoch and e.epoch.epoch for e in events if (e.id, e.seed) == (experiment.id, seed)]
        assert mine == [None, 1, 2]  # all that it told is here before its record
    assert capfd.readouterr() == ("", "")

    assert {len(list(study.results.rglob(f"runs/*/*.{kind}"))) for kind in ("json", "exhibits.npz")} == {len(runs)}
    assert len({notes(study, *run)[0][0] for run in runs}) == 2  # both nodes had a part
    for experiment, seed in runs:
        record = records[experiment.id, seed]
        stored = study.store.find(experiment.id, seed, record.fingerprint)
        assert stored.to_json() == record.to_json() and study.store.images(record) is not None
        exhibits = study.store.exhibits(record)
        assert exhibits is not None and study.store.pictures(exhibits.pictures) is not None
        assert figures(record) == figures(Study.run(serial, experiment, seed))
        assert record.environment["commit"] == serial.store.load()[0].environment["commit"]
        ((*_, code),) = notes(study, experiment, seed)
        assert "py_modules_files" in code  # what was shipped, not what is found at this process's path


@needs_ray
def test_an_error_of_a_run_arrives_as_what_it_is_and_the_others_are_finished(study, cluster, tmp_path):
    cluster.study = replace(study, portraits=tmp_path / "nowhere")
    diverges = row("q2_1a", lr=1e30)
    cluster.submit([(row("q1_2"), 0), (diverges, 0), (row("q2_1b"), 0)])
    with pytest.raises(InputError, match="same path on every node") as caught:
        cluster.result(row("q1_2"), 0, lambda event: None)
    assert type(caught.value) is InputError and caught.value.where == str(tmp_path / "nowhere")
    assert os.uname().nodename in caught.value.problem
    with pytest.raises(TrainingDiverged, match="loss") as failed:
        cluster.result(diverges, 0, lambda event: None)
    assert failed.value.epoch == 1 and len(notes(study, diverges, 0)) == 1  # it is not tried again
    (note,) = study.store.failures()
    assert (note.id, note.reason, note.checkpoint) == (diverges.id, str(failed.value), None)
    assert cluster.result(row("q2_1b"), 0, lambda event: None).seed == 0


@needs_ray
def test_stored_runs_are_reused_on_nodes_that_do_not_have_them(study, cluster):
    experiment, events = row("q1_2"), []
    stored = Study.run(study, experiment, 0)
    cluster.study = replace(study, reuse=True)
    cluster.submit([(experiment, 0)])
    assert cluster.result(experiment, 0, events.append).to_json() == stored.to_json()
    assert [e.epoch for e in events] == [None]


@needs_ray
def test_a_run_whose_node_dies_goes_on_elsewhere_and_ends_with_the_same_record(study, cluster, nodes):
    experiment, events, killed = row("q1_2", epochs=3), [], []
    (study.notes / "hold").touch()

    def kill(event):
        events.append(event)
        if event.epoch is not None and event.epoch.epoch == 2 and not killed:  # in mid-run
            node, process, *_ = notes(study, experiment, event.seed)[0]
            if node == node_here():  # Ray takes no node away that this process belongs to
                return
            killed.append(event.seed)
            nodes.remove_node(next(n for n in nodes.list_all_nodes() if n.node_id == node), allow_graceful=False)
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)  # sooner than it would notice by itself
            (study.notes / "hold").unlink()

    cluster.study = replace(study, apart=False, checkpoint_seconds=600)  # at the end of every epoch
    cluster.submit([(experiment, seed) for seed in (0, 1, 2)])
    try:
        records = [cluster.result(experiment, seed, kill) for seed in (0, 1, 2)]
    finally:
        nodes.add_node(num_cpus=1)
    assert {len(list(study.results.rglob(f"runs/*/*.{kind}"))) for kind in ("json", "exhibits.npz")} == {3}
    serial = replace(study, results=study.results.with_name("serial"), apart=False)
    assert [figures(r) for r in records] == [figures(Study.run(serial, experiment, s)) for s in (0, 1, 2)]
    for seed, record in enumerate(records):
        told = [e.epoch and e.epoch.epoch for e in events if e.seed == seed]
        again = [seed] == killed  # and then from the checkpoint after epoch 1
        assert told == ([None, 1, 2, None, 2, 3] if again else [None, 1, 2, 3])
        assert record.times.interruptions == again
        begun = notes(study, experiment, seed)
        assert [reuse for _, _, reuse, _ in begun] == (["False", "True"] if again else ["False"])
        assert len({node for node, *_ in begun}) == len(begun)


@needs_ray
def test_a_run_that_ends_its_process_each_time_fails_by_name(study, cluster, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    cluster.study = replace(study, dies=True)
    cluster.submit([(row("q1_2"), 5)])
    with pytest.raises(TrainingFailed, match=r"^q1_2-finetune, seed 5: begun 2 times"):
        cluster.result(row("q1_2"), 5, lambda event: None)
    assert [reuse for _, _, reuse, _ in notes(study, row("q1_2"), 5)] == ["False", "True"]


@needs_ray
def test_a_session_on_a_cluster_fills_tables_and_results_folder(tmp_path, nodes, alone):
    from tests.test_plugin import wide_bounds

    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "benchmarks" / "bounds.toml").write_text(wide_bounds())
    (tmp_path / "pytest.ini").write_text("[pytest]")
    swap = "import cvhw4.pytest_plugin, tests.test_cluster\ncvhw4.pytest_plugin.Study = tests.test_cluster.TinyStudy\n"
    (tmp_path / "swap.py").write_text(swap)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.tiny", "-p", "swap", "benchmarks"]
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
    assert (
        "q1_1-features        seed 0  best accuracy" in done.stdout and "ablation study, profile quick" in done.stdout
    )
    assert "reused" not in done.stdout and "raylet" not in done.stdout + done.stderr
    records = Store(tmp_path / "results", "quick").load()
    assert sorted((r.row, r.seed) for r in records) == [("q1_1", 0), ("q1_1", 1), ("q1_5", 0), ("q1_5", 1)]


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install cvhw4\[ray\]"):
        Cluster(Study(), None, None)


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
    ],
)
def test_share_of_a_run(nodes, device, threads, share):
    assert share_of(nodes, device, threads) == share


@pytest.mark.parametrize(
    ("nodes", "device", "threads", "problem"),
    [
        ([HEAD, SMALL], "cuda", None, "finds no GPUs"),
        ([HEAD], "auto", None, "finds no CPUs"),
        ([SMALL, LARGE], "auto", 17, r"more than any node has \(16\)"),
    ],
)
def test_nothing_to_share(nodes, device, threads, problem):
    with pytest.raises(InputError, match=problem):
        share_of(nodes, device, threads)
