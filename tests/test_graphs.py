"""CUDA graphs: what is recorded when (`test_cuda.py`: that a graph trains as single steps do)."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn, optim

from cvhw4.training.graphs import WARM_UP, GraphedStep


class Recorder:
    """Stands in for CUDA: a recording runs nothing, a replay runs the recorded step."""

    def __init__(self, monkeypatch):
        self.recordings = self.replays = 0
        self.step = None
        recorder = self

        class Graph:
            def replay(self):
                recorder.replays += 1
                recorder.loss.copy_(self.step())

        @contextmanager
        def graph(instance):
            recorder.recordings += 1
            recorder.recording = instance
            yield
            recorder.recording = None

        stream = SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda side: contextmanager(lambda: (yield))())
        monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
        monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
        self.recording = None
        self.loss = torch.zeros(())

    def record(self, step):
        """The step as CUDA would see it: kernels are noted while recording, run otherwise."""

        def noted(inputs, targets):
            if self.recording is None:
                return step(inputs, targets)
            self.recording.step = lambda: step(inputs, targets)
            return self.loss

        return noted


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def stepper(module, optimizer):
    def step(inputs, targets):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(module(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("sizes", [(4, 4, 2, 4, 4), (2, 4, 4, 2, 4, 4)], ids=["from the start", "from a last batch"])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_graph_leaves_what_single_steps_leave(monkeypatch, kind, sizes):
    """Weights, statistics, optimizer and random state, through a smaller last batch and a change of learning rate."""
    settings = dict(lr=0.1, momentum=0.9) if kind is optim.SGD else dict(lr=0.1)
    draws = torch.Generator().manual_seed(1)
    batches = [(torch.randn(n, 3, generator=draws), torch.randint(2, (n,), generator=draws)) for n in sizes]
    results = []
    for graphed in (False, True):
        module = network()
        optimizer = kind(module.parameters(), **settings)
        schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        step = stepper(module, optimizer)
        if graphed:
            recorder = Recorder(monkeypatch)
            step = GraphedStep(recorder.record(step), optimizer, [*module.parameters(), *module.buffers()], batch=4)
        torch.manual_seed(2)
        losses = []
        for i, (inputs, targets) in enumerate(batches):
            losses.append(float(step(inputs, targets)))
            if i == 3:
                schedule.step()
        results.append((losses, module.state_dict()))
    (losses, single), (replayed, state) = results
    assert losses == replayed
    assert all(torch.equal(value, single[key]) for key, value in state.items())
    assert recorder.recordings == 2  # at the first step, and for the new learning rate
    assert recorder.replays == 4  # the smaller batch is run by itself


def test_warm_up_steps_are_as_many_as_torch_asks_for(monkeypatch):
    module = network()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    recorder, calls = Recorder(monkeypatch), []
    counted = stepper(module, optimizer)

    def step(inputs, targets):
        calls.append(len(inputs))
        return counted(inputs, targets)

    graphed = GraphedStep(recorder.record(step), optimizer, [*module.parameters(), *module.buffers()], batch=4)
    for _ in range(2):
        graphed(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert len(calls) == WARM_UP + 2
