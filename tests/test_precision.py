"""On which device rows are computed, and in which precision: by rule, by timing, and what is kept of the timing."""

import json
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from cvhw4.errors import InputError
from cvhw4.records.store import Store
from cvhw4.report.runs import device, notes
from cvhw4.runner import Runner
from cvhw4.training import precision, recipe
from cvhw4.training.device import pick_device
from cvhw4.training.precision import choose_precision, pick_precision, time_steps
from tests.helpers.tiny import QUICK, dataset, record, untrained

pytest_plugins = ["tests.helpers.sessions"]
CPU = torch.device("cpu")
ROW = untrained("q2_1a", epochs=1)


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """Steps that take what the test says; counts how often they are timed."""
    seconds, calls = {"float32": 1.0, "bf16": 0.5}, []
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_timed", {})
    monkeypatch.setattr(precision, "time_steps", lambda *_: calls.append(1) or dict(seconds))
    return seconds, calls


def choose(row=ROW, wanted="auto"):
    precision._timed.clear()  # as in another process
    return choose_precision(wanted, CPU, row, None)


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, "bf16"), (0.95, "float32"), (6.0, "float32"), (None, "float32")])
def test_the_faster_one_is_chosen_by_more_than_noise(timed, bf16, chosen):
    seconds, _ = timed
    if bf16 is None:
        del seconds["bf16"]  # it cannot compute the network
    else:
        seconds["bf16"] = bf16
    assert choose().precision == chosen and choose().step_seconds == seconds


def test_without_a_wish_a_cpu_computes_in_float32_and_times_nothing(timed):
    assert choose(wanted=None) == precision.Choice("float32") == choose(wanted="float32")
    assert timed[1] == [] and Runner(study=QUICK).precision is None
    assert pick_precision("auto", CPU) == "float32"


def test_what_was_timed_is_kept_for_a_processor_torch_threads_network_and_size(timed, monkeypatch):
    _, calls = timed
    choose(), choose(replace(ROW, start="imagenet"))
    assert len(calls) == 1
    changes = [dict(size=64), dict(batch=2), dict(loss="focal"), dict(clip_grad=1.0)]
    changes += [dict(clip_grad=1.0, clip_mode="value")]
    other = [untrained("q2_1b"), untrained("q1_8"), replace(untrained("q1_8"), augmentation="none")]
    other += (untrained("q2_1a", **change) for change in changes)
    for number, row in enumerate(other, 2):
        choose(row), choose(row)
        assert len(calls) == number, row
    for where, name, value in (
        (torch, "__version__", "9.9"),
        (torch, "get_num_threads", lambda: 77),
        (precision, "processor", lambda: "Another processor"),
    ):
        before = len(calls)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            choose(), choose()
        choose()
        assert len(calls) == before + 1, name


def test_a_choice_of_another_processor_or_a_damaged_one_is_noticed(timed, tmp_path):
    _, calls = timed
    choose()
    (path,) = (tmp_path / "cache" / "precision").glob("*.json")
    good = json.loads(path.read_text())
    changes = [
        {"key": good["key"] | {"processor": "Another processor"}},
        {"key": good["key"] | {"torch": "2.0"}},
        {"seconds": {"bf16": 0.1}},
        {"seconds": {"float32": 0, "bf16": 0.1}},
    ]
    for number, text in enumerate(
        [*(json.dumps(good | change) for change in changes), json.dumps({"seconds": good["seconds"]}), "[1]", "{"], 2
    ):
        path.write_text(text)
        with pytest.warns(UserWarning, match="is not the timing of this processor, torch and network"):
            assert choose().precision == "bf16"
        assert len(calls) == number and json.loads(path.read_text()) == good
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose()
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="what --precision auto timed is not kept"):
        assert choose().precision == "bf16"


@pytest.mark.parametrize("name", ["q1_8", "q1_5"])
def test_steps_of_every_kind_of_row_are_timed(name, monkeypatch):
    row, clipped = untrained(name), []
    monkeypatch.setattr(recipe, "make_clipping", lambda *_: lambda: clipped.append(1))
    monkeypatch.setattr(precision, "_ROUNDS", 1)
    before = torch.get_rng_state()
    seconds = time_steps(replace(row, start="imagenet"), dataset(row.task.name), CPU)
    assert seconds.keys() == {"float32", "bf16"} and all(0 < s < 60 for s in seconds.values()) and clipped
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_bf16_is_timed_in_float32_alone(monkeypatch):
    def step(row, data, device, name):
        def take():
            if name == "bf16":
                raise RuntimeError("not implemented for 'BFloat16'")
            sum(range(10_000))

        return take

    monkeypatch.setattr(precision, "_step", step)
    assert time_steps(ROW, dataset("segmentation"), CPU).keys() == {"float32"}


def test_bf16_where_the_processor_has_none_is_one_line_before_training(study, monkeypatch, pytester):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert precision.processor().endswith("without bf16")
    with pytest.raises(InputError, match="finds no bf16 instructions in this processor"):
        pick_precision("bf16", CPU)
    result = study("-k", "q2_1a", "--seeds", "1", "--device", "cpu", "--precision", "bf16")
    lines = [line for line in result.stdout.lines + result.stderr.lines if "--precision bf16" in line]
    assert result.ret == 4 and len(lines) == 1 and "Fix: use --precision float32" in lines[0]
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(("flags", "native"), [("avx512f", False), ("avx512f avx512_bf16", True), ("asimd", True)])
def test_bf16_that_torch_emulates_with_avx512_is_refused(flags, native, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)  # as of all with AVX-512
    monkeypatch.setattr(precision, "_cpuinfo", lambda: {"flags": f"fpu {flags} avx2"})
    assert precision.processor().endswith(f"with{'out' * (not native)} bf16")
    with nullcontext() if native else pytest.raises(InputError, match="finds no bf16 instructions"):
        assert pick_precision("bf16", CPU) == "bf16"


@pytest.fixture
def runner(timed, tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, "data", lambda self, task, seed=None: dataset(task))
    return Runner(study=QUICK, device="cpu", results=tmp_path / "results", reuse=True, threads=1)


def test_record_reuse_and_checkpoints_know_which_it_was(timed, runner):
    seconds, calls = timed
    auto = replace(runner, precision="auto")
    seconds["bf16"] = 2.0
    slow = auto.run(ROW, 0)
    assert slow.environment["precision"] == "float32" and slow.environment["step_seconds"] == seconds
    for same in (auto, replace(runner, precision="float32")):
        assert same.find(ROW, 0).fingerprint == slow.fingerprint
    timed[0]["bf16"] = 0.5  # as on a processor that has it
    precision._timed.clear()
    for path in (runner.results.parent / "cache" / "precision").glob("*.json"):
        path.unlink()
    assert auto.find(ROW, 0) is None
    fast = auto.run(ROW, 0)
    assert fast.environment["precision"] == "bf16" and fast.fingerprint != slow.fingerprint
    paths = {auto.store.checkpoint(ROW.name, 0, r.fingerprint) for r in (slow, fast)}
    assert len(paths) == 2  # neither goes on from the other's checkpoint
    assert auto.find(ROW, 0).fingerprint == fast.fingerprint and len(calls) == 2
    assert runner.find(ROW, 0).fingerprint == slow.fingerprint
    assert {r.fingerprint for r in Store(runner.results, "quick").load()} == {slow.fingerprint, fast.fingerprint}


@pytest.mark.parametrize("option", ["deterministic", "cuda_graphs"])
@pytest.mark.parametrize(("device", "many"), [("cpu", 1), ("cuda", 2)])
def test_which_kernels_and_whether_graphs_are_part_of_a_run_on_cuda_alone(runner, gpu, option, device, many):
    """On a CPU these options change nothing, and finished runs are found."""
    runners = [replace(runner, device=device, **{option: given}) for given in (False, True)]
    assert len({runner._plan(ROW, 0).fingerprint for runner in runners}) == many


def test_what_decides_a_runs_figures_is_part_of_its_configuration(runner, monkeypatch):
    of_weights, data = QUICK.row("q1_2"), dataset("classification")
    first, other_seed = (runner._plan(of_weights, seed) for seed in (0, 1))
    changed = [first, runner._plan(replace(of_weights, trained="last layer"), 0)]
    for what, told in {
        "records.environment.code_digest": lambda: "other code",
        "records.environment.versions": lambda *_: {"torch": "1.0"},
        "records.environment.device_name": lambda _: "another processor",
        "records.environment.accelerator": lambda _: {"driver": "1.0"},
        "models.weights.find_weights": lambda *_: replace(first.source, sha256="0" * 64),
        "runner.Runner.data": lambda *_: replace(data, fingerprint="0" * 64),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"cvhw4.{what}", told)
            changed.append(runner._plan(of_weights, 0))
    assert len({plan.configuration for plan in changed}) == len({plan.fingerprint for plan in changed}) == 8
    assert first.configuration == other_seed.configuration and first.fingerprint != other_seed.fingerprint


def test_workers_share_gpus_in_turn(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    devices = [pick_device("auto", worker) for worker in range(5)]
    assert [d.index for d in devices] == [0, 1, 0, 1, 0] and chosen == devices
    assert pick_device("cpu", 3) == torch.device("cpu")


def test_tables_show_it():
    def run(row="q2_1a", **more):
        one = record(row)
        return replace(one, environment=one.environment | more)

    assert device(run(precision="float32")) == "cpu (2 threads)" == device(run())
    assert device(run(precision="bf16", threads=1)) == "cpu (1 thread, bf16)"
    assert device(run(precision="float32", step_seconds={"float32": 1.0})) == "cpu (2 threads, float32 by timing)"
    assert device(run(precision="bf16", device="cuda", device_name="NVIDIA H100")) == "NVIDIA H100 (bf16)"
    assert notes([run(), run(precision="float32")]) == []
    (line,) = notes([run(precision="bf16"), run("q2_1b")])
    assert line.startswith("Rows were computed in different precisions: bf16 (q2_1a-skip); float32 (q2_1b-noskip).")
