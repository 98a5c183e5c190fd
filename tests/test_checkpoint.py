"""An interrupted training goes on to the very figures, and weights, it would have had."""

import json
import math
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import nn, optim
from torchvision.transforms import v2

from cvhw4.errors import InputError, OutOfMemory, TrainingDiverged
from cvhw4.models.build import build_network
from cvhw4.models.pooling import MatrixPool, make_deterministic
from cvhw4.runner import Runner
from cvhw4.training import objectives
from cvhw4.training.checkpoint import Checkpoint, Checkpoints, restore, state_of
from cvhw4.training.fit import fit, make_step
from cvhw4.training.memory import AccumulatedStep, in_parts
from cvhw4.training.objectives import make_objective
from tests.helpers.tiny import QUICK as STUDY
from tests.helpers.tiny import Kept, dataset, row

CPU = torch.device("cpu")


RECIPES = {
    "q1_1 by lamb": dict(optimizer="lamb", schedule="onecycle", weight_decay=1e-2, clip_grad=1.0, label_smoothing=0.1),
    "q2_1b by kept": dict(optimizer="lookahead_adamw", schedule="plateau", lr_step=1, loss="cross_entropy"),
    "q1_5 by cosine": dict(optimizer="nadamw", schedule="cosine", warmup_epochs=1, loss="focal", clip_mode="value"),
}


def case(name):
    """A row, by its name; of AlexNet the last layer alone, whose dropout is drawn for a block at once."""
    if name in RECIPES:
        return row(name.partition(" ")[0], **{"momentum": None} | RECIPES[name])
    if name == "q1_1, transformed":
        own = v2.Compose([v2.RandomResizedCrop(32), v2.RandomPhotometricDistort()])
        return replace(row("q1_1"), augmentation=own)
    return replace(row("q1_3"), trained="last layer") if name == "frozen alexnet" else row(name)


def run(experiment, checkpoints=None):
    network, data = build_network(experiment, seed=1), dataset(experiment.task.name)
    with torch.random.fork_rng():
        history = fit(experiment, data, network, seed=1, device=CPU, checkpoints=checkpoints)
    return history, network.module.state_dict()


def resumed(experiment, path):
    return run(experiment, Checkpoints(path, "f" * 64, resume=True))


def figures(history):
    epochs = [(e.epoch, e.lr, e.loss, e.figures) for e in history.epochs]
    return repr((epochs, history.by_class, history.primary, history.images))


def assert_same(one, other):
    (a, weights), (b, others) = one, other
    assert figures(a) == figures(b)
    for name, array in vars(a.results).items():
        assert np.array_equal(array, getattr(b.results, name)), name
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[k], others[k]) for k in weights)


QUICK = ["q1_1", "q1_5", "q1_1, transformed"]
SLOW = ["frozen alexnet", "q1_2", "q1_8", "q2_1a", "q2_n1b", *RECIPES]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.integration) for name in SLOW)])
def test_from_every_step_on_the_same_to_the_bit(name, tmp_path, monkeypatch):
    """Blocks of two batches: checkpoints at the end of an epoch, of a block, and within one."""
    monkeypatch.setattr(objectives, "BLOCK", 8)
    experiment = case(name)
    whole = run(experiment)
    kept = Kept(tmp_path / "c.safetensors")
    assert_same(run(experiment, kept), whole)
    assert len(kept.copies) == 2 * 3 + 1
    every = 1 if name == "frozen alexnet" else 3  # else: within a block, at an epoch's end, after all steps
    for number, copy in list(enumerate(kept.copies))[::every]:
        shutil.copy(copy, kept.path)
        seen = []
        monkeypatch.setattr(
            AccumulatedStep, "__call__", lambda self, *batch, seen=seen: seen.append(1) or self.once(*batch)
        )
        again = resumed(experiment, kept.path)
        assert_same(again, whole)
        left = 6 - (number + 1 if number < 3 else number)  # the fourth is that of the first epoch's end
        assert len(seen) == left and again[0].interruptions == 1


@pytest.mark.integration
def test_a_run_broken_off_again_and_again_counts_its_interruptions(tmp_path):
    class BrokenOff(Exception):
        pass

    class Breaks(Checkpoints):
        def write(self, checkpoint):
            super().write(checkpoint)
            raise BrokenOff

    for _ in range(7):
        with pytest.raises(BrokenOff):
            run(row("q1_2"), Breaks(tmp_path / "c", "f" * 64, every=0, resume=True))
    last = resumed(row("q1_2"), tmp_path / "c")
    assert_same(last, run(row("q1_2")))
    assert last[0].interruptions == 7 and last[0].earlier_seconds > 0
    assert all(e.train_seconds > 0 for e in last[0].epochs)


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory):
    """What a run leaves, and its last checkpoint."""
    kept = Kept(tmp_path_factory.mktemp("kept") / "c")
    return run(row("q1_1"), kept), kept.path.read_bytes()


def test_a_checkpoint_of_another_network_is_refused(kept_run, tmp_path):
    (path := tmp_path / "c").write_bytes(kept_run[1])
    with pytest.raises(InputError, match=r"c: is the checkpoint of another network\. Fix: .* version="):
        resumed(row("q1_2"), path)


def test_without_checkpoints_one_that_is_there_is_taken_up(kept_run, tmp_path):
    (path := tmp_path / "c").write_bytes(kept_run[1])
    there = Runner(study=STUDY, reuse=True, checkpoint_seconds=0)._checkpoints(path, "f" * 64)
    assert there.read() is not None and not there.due(epoch_ends=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda b: b[: len(b) // 2], ""),
        (lambda b: b"", ""),
        (lambda b: b"no checkpoint", ""),
        (lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:], "it is damaged"),
        (lambda b: b.replace(rb"rates\": [0.01", rb"rates\": [0.09"), "it is damaged"),
        (lambda b: (10**5).to_bytes(8, "little") + b"[" * 10**5, ""),
        (lambda b: b.replace(b"checksum", b"checksun"), "checksum"),
    ],
)
def test_a_damaged_checkpoint_is_not_used_and_said_so(damage, reason, kept_run, tmp_path):
    (tmp_path / "c").write_bytes(damage(kept_run[1]))
    with pytest.warns(UserWarning, match=f"is not a checkpoint of this run .*{reason}.*begins anew"):
        assert Checkpoints(tmp_path / "c", "f" * 64, resume=True).read() is None


def test_a_run_whose_checkpoint_is_not_used_begins_anew(kept_run, tmp_path):
    (tmp_path / "c").write_bytes(kept_run[1])
    again = run(row("q1_1"), Checkpoints(tmp_path / "c", "f" * 64))  # not asked for
    assert_same(again, kept_run[0])
    with pytest.warns(UserWarning, match="it is another run's"):
        again = run(row("q1_1"), Checkpoints(tmp_path / "c", "e" * 64, resume=True))
    assert_same(again, kept_run[0])
    assert again[0].interruptions == 0


def test_weights_that_are_not_finite_after_the_last_step_are_no_finished_run(monkeypatch):
    original = AccumulatedStep.once

    def breaks(self, inputs, targets):
        loss = original(self, inputs, targets)
        with torch.no_grad():
            next(p for p in self.module.parameters() if p.requires_grad).view(-1)[0] = math.inf
        return loss.zero_()

    monkeypatch.setattr(AccumulatedStep, "once", breaks)
    with pytest.raises(TrainingDiverged, match=r"seed 1: weights not finite, loss 0.0 at step 3 of 3 in epoch 1"):
        run(row("q1_1", epochs=1))


def test_a_checkpoint_is_safetensors_and_json_without_frozen_weights(kept_run, tmp_path):
    kept = Kept(tmp_path / "c")
    run(row("q1_8"), kept)
    with safe_open(kept.path, "pt") as file:
        values, names = json.loads(file.metadata()["cvhw4"]), set(file.keys())
    assert values["epoch"] == 2 and values["taken"] == 3 and len(values["epochs"]) == 1
    assert {"losses", "augmentation", "now.cpu", "block.cpu", "optimizer.states.0.exp_avg", "images.0"} <= names
    assert b"torch._utils" not in kept.path.read_bytes()  # no pickle
    weights = [k for k in load(kept_run[1]) if k.startswith("weights.") and k.endswith("weight")]
    assert weights == ["weights.classifier.weight"]


def test_a_full_disk_is_warned_of_once_and_the_run_goes_on(kept_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be written .* would begin anew") as caught:
        again = run(row("q1_1"), Checkpoints(tmp_path / "file" / "c", "f" * 64, every=0))
    assert len([w for w in caught if "begin anew" in str(w.message)]) == 1
    assert_same(again, kept_run[0])


def test_writing_takes_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path / "c", "f" * 64, every=60, share=0.01)

    def due(seconds):
        """Whether one is at an epoch's end, and at any step."""
        now[0] = seconds
        return checkpoints.due(epoch_ends=True), checkpoints.due()

    assert due(19.0) == (False, False), "what took so little is trained again as quickly"
    assert due(30.0) == (True, False) and due(61.0) == (True, True)

    def slowly(*_):
        now[0] += 2.0

    monkeypatch.setattr("cvhw4.training.checkpoint.write_atomically", slowly)
    checkpoints.write(Checkpoint({}, {"epoch": 1, "taken": 0}))
    assert due(63.0 + 199) == (False, False) and due(63.0 + 201) == (True, True)


def test_state_keeps_the_memory_layout_of_its_weights():
    """Fused optimizers go through the memory of weights and state side by side."""
    module = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    optimizer = optim.Adam(module.parameters(), fused=True)
    module(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    tensors, values = state_of(module, optimizer)
    saved = Checkpoint(tensors, {"optimizer": values})
    assert saved.tensors["weights.weight"].is_contiguous()
    other = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    anew = optim.Adam(other.parameters(), fused=True)
    restore(other, anew, saved)
    assert torch.equal(other.weight, module.weight)
    for key, value in optimizer.state[module.weight].items():
        assert torch.equal(anew.state[other.weight][key], value)
        assert anew.state[other.weight][key].stride() == value.stride()


# Numerical trouble


def test_a_diverging_run_names_its_last_good_checkpoint_which_is_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "BLOCK", 8)
    kept = Kept(tmp_path / "c")
    original = AccumulatedStep.once

    def breaks(self, inputs, targets):
        loss = original(self, inputs, targets)
        if len(kept.copies) == 1:
            with torch.no_grad():
                next(p for p in self.module.parameters() if p.requires_grad).fill_(math.nan)
        return loss

    monkeypatch.setattr(AccumulatedStep, "once", breaks)
    message = r"loss nan at step 3 of 3 in epoch 1, .*; last good checkpoint: epoch 1, after 1 steps"
    with pytest.raises(TrainingDiverged, match=message) as caught:
        run(row("q1_2"), kept)
    assert (caught.value.epoch, caught.value.step) == (1, 3)
    monkeypatch.setattr(AccumulatedStep, "once", original)
    found = Checkpoints(kept.path, "f" * 64, resume=True).read()
    assert found is not None and found.sound and found.values["taken"] == 1


def test_a_mask_of_infinities_is_kept_and_infinite_weights_are_not(tmp_path):
    """Nor is a buffer of NaN; where nothing was kept, the next is due as much later."""
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
    tensors, values = state_of(module, optim.SGD(module.parameters(), lr=0.1))
    kept = Checkpoint(tensors, {"optimizer": values})
    assert kept.sound and not Checkpoint({"buffers.mask": torch.tensor(math.nan)}, {}).sound
    other = nn.Linear(2, 2)
    other.register_buffer("mask", torch.zeros(2, 2))
    restore(other, optim.SGD(other.parameters(), lr=0.1), kept)
    assert torch.equal(other.weight, module.weight) and torch.equal(other.mask, module.mask)
    checkpoints = Checkpoints(tmp_path / "c", "f" * 64, every=0.05)
    time.sleep(0.06)
    assert checkpoints.due()
    checkpoints.write(Checkpoint({"weights.weight": torch.tensor(math.inf)}, {}))
    assert not checkpoints.path.exists() and not checkpoints.due()  # the next is tried after as long


class Small(nn.Module):
    """Takes so many images at once and no more."""

    def __init__(self, module, most):
        super().__init__()
        self.module, self.most = module, most

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB. Of the allocated memory ...")
        return self.module(x)


def small_step(name, most, training=False):
    """A step of a row where so many images fit, its first batch, and the network's module; without dropout, and with
    batch norm as in the report, unless it is in training."""
    experiment = row(name)
    network = build_network(experiment, seed=0)
    task = make_objective(experiment, dataset(experiment.task.name), network, CPU, seed=0)
    module = network.module.train(training)
    step = make_step(task, Small(module, most), optim.SGD(module.parameters(), lr=0.1))
    return step, next(iter(task.batches(1))), module


@pytest.mark.parametrize("name", ["q1_3", "q2_1b"])
def test_parts_of_a_batch_make_the_same_step(name):
    after = []
    for most in (4, 2, 1):
        step, batch, module = small_step(name, most)
        after.append((float(step(*batch)), module.state_dict()))
        assert step.parts == 4 // most
    (loss, weights), *in_parts = after
    for same, others in in_parts:
        assert same == pytest.approx(loss, rel=1e-5)
        assert all(torch.allclose(weights[k], others[k], atol=1e-5) for k in weights if weights[k].is_floating_point())


def test_batch_norm_in_training_refuses_parts_and_says_why():
    step, batch, _ = small_step("q1_8", 2, training=True)
    with pytest.raises(OutOfMemory, match=r"batch of 4 does not fit \(CUDA out of memory\), .* batch norms take"):
        step(*batch)


def test_not_even_one_image(monkeypatch):
    monkeypatch.setattr(AccumulatedStep, "once", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full. x")))
    message = r"q2_1b-noskip, seed 1: not even single images fit \(full\)"
    with pytest.raises(OutOfMemory, match=message) as caught:
        run(row("q2_1b"))
    assert (caught.value.epoch, caught.value.step) == (1, 1)


def test_a_continued_run_goes_on_in_as_many_parts(tmp_path, monkeypatch):
    original = AccumulatedStep.once

    def small(self, inputs, targets):
        if len(inputs) / self.parts > 2:
            raise torch.OutOfMemoryError("full")
        return original(self, inputs, targets)

    monkeypatch.setattr(AccumulatedStep, "once", small)
    whole = run(row("q2_1a"), kept := Kept(tmp_path / "c"))
    assert whole[0].parts == 2
    monkeypatch.setattr(AccumulatedStep, "once", original)  # as if memory were free by now
    shutil.copy(kept.copies[3], kept.path)
    assert_same(resumed(row("q2_1a"), kept.path), whole)


def test_evaluation_goes_in_halves_too():
    module = Small(nn.Flatten(), 3)
    inputs = torch.rand(10, 2, 2)
    assert torch.equal(in_parts(module, inputs), inputs.flatten(1))
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(Small(nn.Flatten(), 0), inputs)


# Deterministic kernels


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (2, 3), (13, 6)])
def test_pooling_by_matrices_is_adaptive_pooling(size):
    inputs = torch.rand(2, 5, *size, dtype=torch.float64, requires_grad=True)
    for given in ((6, 6), 4, [4, 5], (None, 3), 1, (1, 1), [1, 1]):
        module = nn.Sequential(nn.AdaptiveAvgPool2d(given))
        expected = module(inputs)
        make_deterministic(module)
        assert isinstance(module[0], MatrixPool) == (given not in (1, (1, 1), [1, 1]))
        assert torch.allclose(module(inputs), expected, rtol=1e-6)
        (g,), (h,) = (torch.autograd.grad((x**2).sum(), inputs) for x in (module(inputs), expected))
        assert torch.allclose(g, h, rtol=1e-6)


def test_alexnet_at_its_own_size_is_left_as_it_is_to_the_bit():
    module = build_network(row("q1_3"), seed=0).module.eval()
    inputs = torch.rand(1, 3, 224, 224)
    before = module(inputs)
    make_deterministic(module)
    assert isinstance(module.avgpool, MatrixPool) and torch.equal(module(inputs), before)
