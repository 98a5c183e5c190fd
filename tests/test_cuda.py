"""The CUDA path: on a GPU where there is one, else on an emulated one, whose docstring says what that cannot show.

What is equal to the bit on the emulated one is equal but for rounding on a GPU. One file, longer than others: it is
what `make gpu` checks on a machine with a GPU.
"""

import gc
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn, optim

from cvhw4.data.gather import memory_limit, place
from cvhw4.errors import InputError, OutOfMemory, TrainingDiverged
from cvhw4.models.build import build_network
from cvhw4.models.frozen import split_frozen
from cvhw4.preflight import check_options
from cvhw4.records.environment import peak_memory
from cvhw4.runner import Runner
from cvhw4.training import fit as fit_module
from cvhw4.training import objectives
from cvhw4.training.checkpoint import Checkpoints, generator_states, set_generator_states
from cvhw4.training.device import pick_device
from cvhw4.training.fit import fit, kernels
from cvhw4.training.graphs import WARM_UP, GraphedStep
from cvhw4.training.memory import AccumulatedStep, is_out_of_memory
from cvhw4.training.objectives import make_objective
from cvhw4.training.precision import pick_precision
from cvhw4.training.process import release_memory
from cvhw4.training.recipe import make_optimizer
from tests.helpers import ROOT
from tests.helpers.emulated_gpu import emulated_gpu
from tests.helpers.tiny import QUICK, Kept, dataset, row, untrained, use_small_networks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LONG_EMULATED = [] if torch.cuda.is_available() else [pytest.mark.long]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="sets limits that only the emulated GPU has")


def train(row, gpu, device=CUDA, graphs=False, precision="float32", deterministic=False, **options):
    """Trains a row, without a wait for the device within an epoch but the first: its history and weights. A checkpoint
    waits."""
    network, epoch = build_network(row, seed=0), fit_module.train_epoch

    def watched(objective, step, number, *rest):
        strict = number > 1 and (gpu is not None or not graphs) and "checkpoints" not in options
        torch.cuda.set_sync_debug_mode("error" if strict else "default") if device.type == "cuda" else None
        try:
            return epoch(objective, step, number, *rest)
        finally:
            torch.cuda.set_sync_debug_mode("default") if device.type == "cuda" else None

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(fit_module, "train_epoch", watched)
        data = dataset(row.task.name, train=10)
        ways = dict(device=device, graphs=graphs, precision=precision, deterministic=deterministic)
        history = fit(row, data, network, seed=0, **ways, **options)
    return history, {k: v.float().cpu() for k, v in network.module.state_dict().items()}


def small(name, gpu, **recipe):
    """A row as tests train it, from random weights; the rows' own networks on larger portraits: at 32 px a last batch
    of two images has batch norms with nothing to tell apart, and training diverges. Scenes are 40 px high."""
    return untrained(name, **recipe, **({} if gpu or name.startswith("q2") else {"size": 96}))


def trace(history):
    return [(epoch.loss, epoch.figures) for epoch in history.epochs]


def assert_equal(weights, others):
    assert weights.keys() == others.keys() and all(torch.equal(weights[k].cpu(), others[k].cpu()) for k in others)


def figures(history):
    return [value for epoch in history.epochs for value in epoch.figures.values()]


# The rehearsal: every row


EVERYWHERE = {
    "blocking copy to the device: data/gather.py _copy",
    "blocking copy to the device: training/fit.py _Run.__init__",
    "blocking copy to the device: training/objectives.py Objective.__init__",
    "blocking copy to the device: training/fit.py evaluation_mode",
    "_local_scalar_dense: training/fit.py _Run.check",
    "copy to the host: training/fit.py _Run.check",
    "copy to the host: training/samples.py SampleRecorder.samples",
    "copy to the host: elsewhere",  # the test's own
}
FOLDED = {
    "_local_scalar_dense: models/folded.py find_pairs",
    "allclose: models/folded.py find_pairs",
    "blocking copy to the device: models/folded.py _shaken",
}
CLASSIFIED = {
    "_local_scalar_dense: training/objectives.py ClassificationObjective.score",
    "copy to the host: training/objectives.py ClassificationObjective.score.<genexpr>",
    "copy to the host: training/objectives.py ClassificationObjective.score",
    "_local_scalar_dense: training/samples.py SampleRecorder._heat",
    "allclose: training/samples.py SampleRecorder._heat",
    "copy to the host: training/samples.py SampleRecorder._heat",
}
FROZEN = {
    "blocking copy to the device: models/frozen.py split_frozen",
    "allclose: models/frozen.py split_frozen",
    "equal: models/frozen.py split_frozen.<genexpr>",
}
SEGMENTED = {
    "blocking copy to the device: training/objectives.py SegmentationObjective.__init__",
    "copy to the host: training/objectives.py SegmentationObjective.evaluate",
}
POOLED = {"blocking copy to the device: models/pooling.py bins"}  # once in a process


def places_that_wait(row, deterministic):
    """Where the host waits for the device: all of it before the first epoch or at the end of one."""
    places = EVERYWHERE | (CLASSIFIED if row.task.name == "classification" else SEGMENTED)
    places |= FROZEN if row.trained == "last layer" else set()
    return places | (POOLED if deterministic else set()) if row.network == "alexnet" else places | FOLDED


WAYS = [("float32", False), ("bf16", False), ("bf16", True), ("float32", True)]


def every_row():
    """Each row in one of the ways, the others among the long tests; there, too, off a GPU, the factorial's rows, whose
    networks, small as they are, recipes and augmentations are those of other rows."""
    for number, name in enumerate(QUICK.rows):
        for way, (precision, deterministic) in enumerate(WAYS):
            marks = [pytest.mark.long] if way != number % len(WAYS) else []
            marks += LONG_EMULATED if name.startswith("q1_f") and not marks else []
            kernels = "deterministic" if deterministic else "fastest"
            yield pytest.param(name, precision, deterministic, marks=marks, id=f"{name}-{precision}-{kernels}")


@pytest.mark.parametrize(("name", "precision", "deterministic"), list(every_row()))
def test_cuda_graphs_train_as_single_steps_do(name, precision, deterministic, gpu, monkeypatch):
    """Losses, figures and weights over batches of 4 and a last one of 2, and two learning rates, each epoch after the
    first without a wait. Dropout draws alike, since the random state is restored after the warm-up. On a GPU kernels
    are the same each time, and so is Adam's formula: from random weights these networks make a difference of 1e-2 out
    of one of 1e-7 within an epoch."""
    if gpu is None:
        original = make_optimizer
        monkeypatch.setattr(fit_module, "make_optimizer", lambda *a, **_: original(*a, capturable=True))
    experiment = small(name, gpu, epochs=2, lr=1e-3 if row(name).recipe.optimizer == "adam" else 1e-2, lr_step=1)
    start = {k: v.clone() for k, v in build_network(experiment, seed=0).module.state_dict().items()}
    ways = dict(precision=precision, deterministic=deterministic or gpu is None)
    graphed, others = train(experiment, gpu, graphs=True, **ways)
    single, weights = train(experiment, gpu, **ways)
    assert all(0 < epoch.loss < math.inf for epoch in single.epochs)
    if gpu is not None:
        assert set(gpu.waits) - POOLED == places_that_wait(experiment, deterministic) - POOLED
        assert gpu.operations["replay"] == 4  # two whole batches in each of two epochs
        assert trace(single) == trace(graphed)
        assert_equal(weights, others)
        return
    losses, replayed = ([epoch.loss for epoch in history.epochs] for history in (single, graphed))
    assert losses == pytest.approx(replayed, rel=0.02 if precision == "float32" else 0.05)
    moves = {key: (value - start[key].float()).norm() for key, value in weights.items()}
    assert max(moves.values()) > 5e-3  # enough was learnt to tell
    for key, value in weights.items():
        assert (value - others[key]).norm() <= 0.2 * moves[key] + 1e-4, key


@pytest.mark.parametrize("name", ["q1_1", "q1_2", "q1_3", "q1_8", "q2_1a", "q2_3"])
def test_cuda_trains_as_the_cpu_does(name, gpu):
    """At a rate of hardly a step, as rounding grows with each (TF32's on a GPU, where dropout draws differ too)."""
    experiment = small(name, gpu, epochs=2, lr=1e-5)
    targets = []
    for device in (CPU, CUDA):
        objective = make_objective(
            experiment, dataset(experiment.task.name), build_network(experiment, seed=0), device, 0
        )
        targets.append(torch.cat([t.cpu().flatten() for _, t in objective.batches(1)]))
    assert torch.equal(*targets)
    (here, _), (there, _) = train(experiment, gpu, CPU), train(experiment, gpu)
    if gpu is None:
        assert here.epochs[0].loss == pytest.approx(there.epochs[0].loss, rel=0.05)
        assert all(math.isfinite(epoch.loss) for epoch in there.epochs)
    else:
        assert [e.loss for e in here.epochs] == pytest.approx([e.loss for e in there.epochs], rel=1e-3)
        assert figures(here) == pytest.approx(figures(there), rel=1e-2)


@pytest.mark.parametrize(
    "name",
    ["frozen alexnet", "q1_3", "q1_8", *(pytest.param(n, marks=LONG_EMULATED) for n in ("q1_2", "q2_1a", "q2_n1b"))],
)
def test_deterministic_cuda_goes_on_to_the_same_bits(name, gpu, tmp_path, monkeypatch):
    """From checkpoints of every step, within a block and at an epoch's end."""
    monkeypatch.setattr(objectives, "BLOCK", 8)
    experiment = small("q1_3" if name == "frozen alexnet" else name, gpu)
    experiment = replace(experiment, trained="last layer") if name == "frozen alexnet" else experiment
    kept = Kept(tmp_path / "c")
    whole, expected = train(experiment, None, deterministic=True, checkpoints=kept)
    assert len(kept.copies) == 2 * 3 + 1
    for copy in (kept.copies[1], kept.copies[3]):
        shutil.copy(copy, kept.path)
        going_on = Checkpoints(kept.path, "f" * 64, resume=True)
        history, weights = train(experiment, None, deterministic=True, checkpoints=going_on)
        assert trace(history) == trace(whole)
        assert repr(history.by_class) == repr(whole.by_class)  # NaN is equal to itself in a text
        assert_equal(weights, expected)


def test_cuda_takes_a_copy_of_arrays(gpu, monkeypatch):
    monkeypatch.setattr("cvhw4.data.gather._CHUNK", 150)  # two rows at once
    array = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
    assert 0 < memory_limit(CUDA) <= torch.cuda.get_device_properties(CUDA).total_memory // 2
    placed = place(array, CUDA, limit_bytes=memory_limit(CUDA))
    assert placed is not None and placed.device.type == "cuda"
    np.testing.assert_array_equal(placed.cpu().numpy(), array)


def test_cuda_adam_can_be_recorded(gpu):
    module = nn.Linear(2, 2).cuda()
    assert make_optimizer(row("q1_8").recipe, module, capturable=True).defaults["capturable"]


def test_a_cut_of_a_frozen_network_draws_nothing_on_the_gpu(gpu):
    frozen = replace(untrained("q1_3", size=64), trained="last layer")
    network = build_network(frozen, seed=0).module.to(CUDA)
    before = torch.cuda.get_rng_state()
    assert split_frozen(network, frozen) is not None
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_kernels_leave_the_settings_they_found(gpu):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with kernels(CUDA, deterministic=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@no_gpu
def test_a_step_that_cannot_be_recorded_is_one_error():
    with emulated_gpu() as gpu:
        _, optimizer, step, batch = small_step(gpu, optim.SGD)
        calls = []

        def waits(*given):
            calls.append(1)
            if len(calls) > WARM_UP:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")
            return step.once(*given)

        def reads(*given):
            step.once(*given).item()

        for once, error in ((waits, "CUDA error: .* capturing"), (reads, "waits for the device")):
            graphed = GraphedStep(step, optimizer, [*step.module.parameters()], 4, once)
            with pytest.raises(InputError, match=rf"^--cuda-graphs: cannot record .*\(.*{error}.*\). Fix: leave"):
                graphed(*batch)
        assert len(gpu.captured_on) == 1  # what waits is never recorded: torch 2.11 can free no memory afterwards
        assert torch.cuda.get_sync_debug_mode() == 0


@no_gpu
def test_steps_beside_a_graph_raise_no_warning_of_torchs():
    with emulated_gpu() as gpu, warnings.catch_warnings():
        warnings.simplefilter("error")
        _, optimizer, step, (inputs, targets) = small_step(gpu, optim.Adam)
        graphed = GraphedStep(step, optimizer, [*step.module.parameters()], 4)
        for size in (2, 4, 4, 2):
            graphed(inputs[:size], targets[:size])


def test_an_operation_without_a_deterministic_kernel_is_one_error(gpu, monkeypatch):
    def raises(self, inputs, targets):
        raise RuntimeError("max_unpool2d does not have a deterministic implementation, but you set ...")

    monkeypatch.setattr(AccumulatedStep, "once", raises)
    with pytest.raises(InputError, match=r"^--deterministic, q1_3-scratch: has .*max_unpool2d.* Fix: leave --determ"):
        train(untrained("q1_3"), gpu, deterministic=True)


# Memory that runs out


def at_limit(row, limit=None, **options):
    """Trains with so many bytes: the history or the error, the weights, and the GPU as it was left."""
    with emulated_gpu(total=limit or 8 << 30) as gpu:
        try:
            found, weights = train(row, gpu, **options)
        except OutOfMemory as error:
            found, weights = error, {}
        gc.collect()
        assert gpu.live == 0  # also while the error is there, and with it its traceback
        return found, weights, gpu


ERRORS = (
    r"a batch of 4 does not fit \(.*batch norms",
    r"not even single images fit",
    r"the optimizer's state does not fit",
    r"^q\d_\w+-\w+, seed 0: CUDA out of memory\. .*Free memory on the device$",
)
LADDERS = [("q1_1", True, 2), ("q1_8", False, 2), ("q2_1a", True, 2)]
LONG = [(name, graphs, 16) for name in ("q1_1", "q1_5", "q1_3", "q1_8", "q2_1a", "q2_n1a") for graphs in (True, False)]


@no_gpu
@pytest.mark.parametrize(
    ("name", "graphs", "number"), [*LADDERS, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)]
)
def test_with_less_memory_the_figures_are_the_same_or_the_error_is_true(name, graphs, number, monkeypatch):
    """From nearly plenty to a 25th, in so many steps: the same to the bit where a step is taken as a whole."""
    use_small_networks(monkeypatch)
    experiment = untrained(name, epochs=2, lr_step=1)
    plenty, weights, gpu = at_limit(experiment, graphs=graphs)
    outcomes = []
    for step in range(number + 1):
        limit = int(gpu.peak * 0.04 ** (step / number)) - 1
        found, others, less = at_limit(experiment, limit, graphs=graphs)
        assert less.peak <= limit
        if isinstance(found, OutOfMemory):
            assert sum(bool(re.search(text, str(found))) for text in ERRORS) == 1, str(found)
            outcomes.append("error")
        elif found.parts == 1:
            assert [e.loss for e in found.epochs] == [e.loss for e in plenty.epochs]
            smaller = any(
                "_before_classifier" in place for place in less.refused
            )  # blocks of a frozen trunk's features
            differ = max(float((others[k] - weights[k]).abs().max()) for k in weights)
            assert differ <= (1e-9 if smaller else 0)
            assert figures(found) == pytest.approx(figures(plenty), rel=1e-4)  # evaluated in parts, or without folds
            outcomes.append("whole")
        else:
            assert name not in ("q1_8", "q2_n1a")  # whose batch norms would see parts
            assert found.epochs[0].loss == pytest.approx(plenty.epochs[0].loss, rel=0.1)  # dropout draws by part
            outcomes.append("parts")
    assert outcomes[0] == "whole" and outcomes[-1] == "error"
    assert outcomes == sorted(outcomes, key=["whole", "parts", "error"].index)
    again, others, _ = at_limit(experiment, graphs=graphs)  # nothing is left of all these
    assert trace(again) == trace(plenty)
    assert_equal(others, weights)


@no_gpu
@pytest.mark.parametrize(("name", "share", "graphs"), [("q1_1", 0.75, False), ("q2_n1a", 1.0001, True)])
def test_what_does_not_fit_is_done_on_the_host_or_without_a_graph(name, share, graphs, monkeypatch):
    """Augmentation, at the peak of a frozen network; and a graph's warm-up, which holds weights and momentum twice."""
    use_small_networks(monkeypatch)
    experiment = untrained(name, epochs=2, lr_step=1)
    plenty, weights, gpu = at_limit(experiment)
    assert graphs or "data/augment.py" in gpu.peak_at
    found, others, less = at_limit(experiment, int(gpu.peak * share), graphs=graphs)
    assert less.refused and trace(found) == trace(plenty) and found.parts == 1 and not less.operations["replay"]
    assert_equal(others, weights)


def small_step(gpu, kind, *, norm=False):
    """A network on the GPU, its optimizer, its step and a batch of four."""
    torch.manual_seed(0)
    parts = [nn.Linear(3, 4), *[nn.BatchNorm1d(4)] * norm, nn.Linear(4, 2)]
    module = nn.Sequential(*parts).to(gpu.device)
    more = {"momentum": 0.9} if kind is optim.SGD else {"capturable": True}
    optimizer = kind(module.parameters(), lr=0.1, **more)
    batch = torch.randn(4, 3).to(gpu.device), torch.tensor([0, 1, 0, 1]).to(gpu.device)
    return module, optimizer, AccumulatedStep(module, nn.functional.cross_entropy, module, optimizer), batch


@no_gpu
@pytest.mark.parametrize("sizes", [(4, 4, 2, 4, 4), (2, 4, 4, 2, 4, 4)], ids=["from the start", "from a last batch"])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_graph_leaves_what_single_steps_leave(kind, sizes):
    """Weights, statistics and the optimizer, through a smaller last batch and a change of learning rate."""
    after = []
    for graphs in (False, True):
        with emulated_gpu() as gpu:
            module, optimizer, step, (inputs, targets) = small_step(gpu, kind, norm=True)
            schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            if graphs:
                step = GraphedStep(step, optimizer, [*module.parameters(), *module.buffers()], 4, step.once)
            losses = []
            for number, size in enumerate(sizes):
                losses.append(float(step(inputs[:size] * (1 + number), targets[:size])))
                if number == 3:
                    schedule.step()
            after.append((losses, {k: v.cpu() for k, v in module.state_dict().items()}))
    assert after[0][0] == after[1][0]
    assert_equal(after[1][1], after[0][1])
    assert len(gpu.captured_on) == 2  # at the first step, and for the new learning rate
    assert gpu.operations["replay"] == 4  # the smaller batch is run by itself


@no_gpu
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_memory_that_runs_out_behind_the_warm_up_leaves_no_trace_of_it(kind):
    """Not a byte is free when weights and momentum are put back, after the warm-up's third step."""
    after = []
    for graphs in (False, True):
        with emulated_gpu() as gpu:
            module, optimizer, step, batch = small_step(gpu, kind)
            calls = []

            def once(*batch, gpu=gpu, step=step, calls=calls):
                loss = step.once(*batch)
                calls.append(1)
                if len(calls) == 3:
                    gpu.limit = 0
                return loss

            def eagerly(*batch, gpu=gpu, step=step):
                gpu.limit = gpu.total
                return step(*batch)

            taken = GraphedStep(eagerly, optimizer, list(module.parameters()), 4, once) if graphs else eagerly
            losses = [float(taken(*batch)) for _ in range(3)]
            after.append((losses, {k: v.cpu() for k, v in module.state_dict().items()}))
            assert not graphs or (gpu.refused and not gpu.operations["replay"])
    assert after[0][0] == after[1][0]
    assert_equal(after[1][1], after[0][1])


@no_gpu
def test_a_smaller_batch_that_does_not_fit_beside_a_graph_takes_its_memory(monkeypatch):
    with emulated_gpu() as gpu:
        module, optimizer, step, (inputs, targets) = small_step(gpu, optim.SGD, norm=True)
        graphed = GraphedStep(step, optimizer, [*module.parameters(), *module.buffers()], 4, step.once)
        step.release = graphed.give_up
        for _ in range(2):
            graphed(inputs, targets)
        statistics, live = [b.cpu().clone() for b in module.buffers()], gpu.live
        gpu.limit = live + 512
        loss = float(graphed(inputs[:2], targets[:2]))
        assert gpu.refused and math.isfinite(loss) and gpu.live < live
        assert int(module[1].num_batches_tracked) == 3  # and the attempt that failed left none
        assert not all(torch.equal(a, b.cpu()) for a, b in zip(statistics, module.buffers(), strict=True))
        replays = gpu.operations["replay"]
        graphed(inputs, targets)
        assert gpu.operations["replay"] == replays


@no_gpu
def test_a_step_that_is_tried_again_leaves_no_trace_of_the_first_try(monkeypatch):
    """Statistics of batch norms, random state, gradients, the optimizer's state."""
    use_small_networks(monkeypatch)
    experiment = untrained("q1_8")
    after = []
    for fails in (False, True):
        with emulated_gpu() as gpu, torch.random.fork_rng():
            torch.manual_seed(0)
            module = build_network(experiment, seed=0).module.to(gpu.device).train()
            optimizer = make_optimizer(experiment.recipe, module)
            tries = []

            def loss(logits, targets, gpu=gpu, tries=tries, fails=fails):
                tries.append(1)
                found = nn.functional.cross_entropy(nn.functional.dropout(logits, 0.5), targets)
                if fails and len(tries) == 2:
                    gpu.limit = gpu.live
                return found

            def release(gpu=gpu):
                gpu.limit = gpu.total
                return True

            step = AccumulatedStep(module, loss, module, optimizer, release=release)
            inputs, targets = torch.rand(4, 3, 32, 32).to(gpu.device), torch.tensor([0, 1, 0, 1]).to(gpu.device)
            losses = [float(step(inputs, targets)) for _ in range(3)]
            assert len(tries) == 3 + fails
            after.append((losses, {k: v.cpu() for k, v in module.state_dict().items()}))
    assert after[0][0] == after[1][0]
    assert_equal(after[1][1], after[0][1])


@no_gpu
def test_an_optimizer_whose_state_does_not_fit_is_named():
    with emulated_gpu() as gpu:
        module, optimizer, step, batch = small_step(gpu, optim.Adam)
        optimizer.register_step_pre_hook(lambda *_: setattr(gpu, "limit", gpu.live))
        before = {k: v.cpu() for k, v in module.state_dict().items()}
        with pytest.raises(OutOfMemory, match="the optimizer's state does not fit"):
            step(*batch)
        assert step.parts == 1 and not optimizer.state
        assert_equal(module.state_dict(), before)


@no_gpu
def test_an_update_that_was_made_in_part_is_not_made_again():
    with emulated_gpu() as gpu:
        module, optimizer, step, batch = small_step(gpu, optim.SGD)

        def update():
            with torch.no_grad():
                next(module.parameters()).add_(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")

        optimizer.step = update
        with pytest.raises(OutOfMemory, match="within an update of the weights"):
            step(*batch)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (OutOfMemory("not even single images fit"), True),
        (torch.AcceleratorError("CUDA error: out of memory", 2), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (None, False),
    ],
)
def test_errors_that_say_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) == expected
    above = RuntimeError("operation not permitted when stream is capturing")
    above.__context__ = error  # a broken recording's end
    assert is_out_of_memory(above) == expected


@pytest.mark.parametrize("free", [1, 50])
@pytest.mark.parametrize(
    "text", ["FIND was unable to find an engine", "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"]
)
def test_errors_that_say_so_where_little_is_free(monkeypatch, text, free):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 100))
    assert is_out_of_memory(RuntimeError(text)) == (free == 1)


@no_gpu
def test_what_a_failed_run_had_is_free_for_the_next(tmp_path, monkeypatch):
    """The error, and with it its traceback, is kept here, as pytest keeps it."""
    use_small_networks(monkeypatch)
    monkeypatch.setattr(Runner, "data", lambda self, task, seed=None: dataset(task))
    with emulated_gpu() as gpu:
        runner = Runner(study=QUICK, device="cuda", results=tmp_path)
        with pytest.raises(TrainingDiverged) as caught:
            runner.run(untrained("q1_3", lr=1e30), 0)
        gc.collect()
        assert caught.value.epoch == 1 and gpu.live == 0
        assert gpu.reserved > 0
        release_memory()
        assert gpu.reserved == 0


@no_gpu
def test_memory_that_torch_has_and_does_not_use_is_free(tmp_path):
    with emulated_gpu() as gpu:
        before = memory_limit(gpu.device)
        block = torch.empty(1 << 20, device=gpu.device)
        assert memory_limit(gpu.device) == before - (2 << 20)
        del block
        assert gpu.reserved == 4 << 20 and memory_limit(gpu.device) == before


@no_gpu
def test_graphs_are_recorded_on_the_device_of_the_training(monkeypatch):
    use_small_networks(monkeypatch)
    with emulated_gpu(index=1) as gpu:
        train(untrained("q1_3", epochs=1), gpu, gpu.device, graphs=True)
        assert gpu.captured_on == [1] and torch.cuda.current_device() == 0


# Other accelerators


@no_gpu
@pytest.mark.parametrize(("kind", "name"), [("mps", "q1_8"), ("mps", "q2_1a"), ("xpu", "q1_1")])
def test_other_accelerators_train_as_the_cpu_does(kind, name, tmp_path, monkeypatch):
    """And go on from a checkpoint; nothing on them is float64, which mps does not have."""
    use_small_networks(monkeypatch)
    experiment = untrained(name, epochs=2, lr=1e-5)
    here, weights = train(experiment, None, CPU)
    number = int(kind == "xpu")  # the second of two: which is not the current one
    with emulated_gpu(kind, index=number) as gpu:
        kept = Checkpoints(tmp_path / "c", "f" * 64, every=0)
        device = pick_device(kind, number)
        there, others = train(experiment, None, device, checkpoints=kept)
        again, _ = train(experiment, None, device, checkpoints=Checkpoints(kept.path, "f" * 64, resume=True))
        assert device == gpu.device and gpu.operations and peak_memory(device) == gpu.peak
        assert pick_precision(None, device, experiment) == "float32" and pick_device("auto") == CPU
        torch.get_device_module(kind).manual_seed(5)
        expected, states = gpu.generator, generator_states(device)
        torch.get_device_module(kind).manual_seed(6)
        set_generator_states(states, device)
        assert torch.equal(gpu.generator, expected)
    assert trace(there) == trace(again) and again.interruptions == 1
    assert [e.loss for e in here.epochs] == pytest.approx([e.loss for e in there.epochs], rel=1e-3)
    assert all(torch.allclose(others[k], weights[k], rtol=0.01, atol=1e-3) for k in weights)


@no_gpu
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (dict(device="xpu"), "--device xpu: finds no xpu device"),
        (dict(device="tpu"), "runner: has device='tpu'. Fix: choose one of auto, cpu"),
        (dict(device="cpu", precision="int8"), "runner: has precision='int8'. Fix: choose one of"),
        (dict(device="mps", precision="bf16"), "--precision bf16: is not supported on mps"),
        (dict(device="mps", cuda_graphs=True), "--cuda-graphs: cannot go with --device mps"),
        (dict(device="mps", deterministic=True), "--deterministic: cannot go with --device mps"),
    ],
)
def test_what_other_accelerators_have_not_is_said_before_anything_is_trained(options, problem, tmp_path):
    with emulated_gpu("mps"), pytest.raises(InputError, match=problem):
        check_options(Runner(study=QUICK, results=tmp_path, **options))


# Planted bugs: each turns the rehearsal red

# fmt: off
# ruff: noqa: E501
BUGS = [  # what, file, text, what stands there instead, the test that sees it
    ("counts that wait", "counts.py", 'if cell.device.type == "cpu":', "if True:", "single_steps and q2_1a"),
    ("an index on the host", "objectives.py", "placed[augment.move(index, self.device)]", "placed[index]", "single_steps and q1_3"),
    ("members on the host", "augment.py", "index = move(torch.tensor(members), device)", "index = torch.tensor(members)", "single_steps and q1_8"),
    ("members made on the device", "augment.py", "move(torch.tensor(members), device)", "torch.tensor(members, device=device)", "single_steps and q1_8"),
    ("matrices copied in each call", "pooling.py", "@lru_cache\n", "", "single_steps and q1_3"),
    ("momentum of the warm-up", "graphs.py", "tensor.zero_()", "pass", "single_steps and q1_3"),
    ("a graph of one learning rate", "graphs.py", ', *(g["lr"] for g in self.optimizer.param_groups)', ",", "single_steps and q1_3"),
    ("random numbers of the warm-up", "graphs.py", "            torch.cuda.set_rng_state(random)\n            with", "            with", "single_steps and q1_3"),
    ("weights of the warm-up", "graphs.py", "tensor.copy_(value)\n", "pass\n", "single_steps and q1_3"),
    ("a loss that is read", "memory.py", "loss = loss.detach()\n        else", "loss = torch.tensor(float(loss))\n        else", "single_steps and q1_3"),
    ("a range on the host", "augment.py", "torch.arange(size, device=start.device)", "torch.arange(size)", "single_steps and q1_3"),
    ("moves that wait", "augment.py", "non_blocking=True", "non_blocking=False", "single_steps and q1_3"),
    ("weights left folded", "folded.py", "c.weight, c.bias = own_weight, own_bias", "c.weight, c.bias = nn.Parameter(own_weight.detach().clone()), own_bias", "single_steps and q2_1a"),
    ("graphs of any batch", "graphs.py", "self._given_up or len(inputs) != self.batch", "self._given_up", "single_steps and q1_3"),
    ("Adam not capturable", "recipe.py", "capturable=capturable, fused", "fused", "adam_can_be_recorded"),
    ("inputs not in place", "graphs.py", "self._inputs.copy_(inputs)", "pass", "single_steps and q1_3"),
    ("losses never written", "fit.py", "place.losses[place.taken] = step(inputs, targets)", "step(inputs, targets)", "single_steps and q1_3"),
    ("the other device's graph", "fit.py", "with torch.cuda.device(device):", "with nullcontext():", "device_of_the_training"),
    ("a warm-up put back with new memory", "graphs.py", "tensor.copy_(value)\n", "tensor.copy_(value.clone())\n", "behind_the_warm_up"),
    ("a warm-up in parts", "graphs.py", "self.once = once or step", "self.once = step", "without_a_graph and q2_n1a"),
    ("an error that holds tensors", "fit.py", "traceback.clear_frames(error.__traceback__)", "raise OutOfMemory(problem, *where) from error", "less_memory and q1_8"),
    ("a run's memory kept for the next", "process.py", ".empty_cache()", "", "free_for_the_next"),
    ("augmentation without a way out", "objectives.py", 'MayRunOut() if self.device.type != "cpu" else nullcontext()', "nullcontext()", "without_a_graph and q1_1"),
]
# fmt: on


@no_gpu
@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug[0].replace(" ", "_"))
def test_a_planted_bug_is_seen(bug, tmp_path):
    _, file, text, instead, sees = bug
    for part in ("cvhw4", "tests", "benchmarks", "pyproject.toml", "conftest.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    (path,) = (p for p in (tmp_path / "cvhw4").rglob(file) if p.parent.name in ("training", "data", "models"))
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, instead))
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "tests/test_cuda.py", "-k", sees]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout + done.stderr
