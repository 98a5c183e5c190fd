"""An optimizer step recorded once as a CUDA graph and replayed: its hundreds of kernels cost one launch.

At the protocol's batches of 4 and 6 the host cannot launch kernels as fast as the device runs them. A graph is replayed
on fixed addresses, so inputs are copied into place; a last batch of another size is run without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, optim

from cvhw4.errors import InputError
from cvhw4.models.names import first_line
from cvhw4.training.memory import MayRunOut, empty_cache, is_out_of_memory

WARM_UP = 3  # steps on a side stream before the recording, as torch's notes on CUDA graphs ask for

Step = Callable[[Tensor, Tensor], Tensor]


class GraphedStep:
    """Calls like the step it replays.

    The graph is recorded at the first whole batch, and anew whenever the learning rate changes, which is part of a
    recording; other batches are stepped on without it, and all once memory does not hold a recording, or anything
    beside one (`give_up`). Weights, statistics and the optimizer's state become what eager steps make of them.

    Args:
        step: inputs and targets to the loss, a scalar without gradient; changes the weights.
        once: the same, to be recorded: it raises where memory runs out, and does not try again in parts.
        optimizer: the optimizer that it steps; made with `capturable=True` where it has that option.
        state: all tensors that the step changes but for the optimizer's: parameters and buffers.
        batch: images of a whole batch: a training that goes on may begin with the smaller one that ends an epoch.
    """

    def __init__(
        self, step: Step, optimizer: optim.Optimizer, state: list[Tensor], batch: int, once: Step | None = None
    ) -> None:
        self.step, self.optimizer, self.state, self.batch = step, optimizer, state, batch
        self.once = once or step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._key: tuple[Any, ...] = ()
        self._given_up = False
        self._inputs = self._targets = self._loss = torch.empty(0)
        # Else torch warns at the first step that is not recorded, of which there are some.
        vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step; the loss is valid until the next call."""
        kinds = inputs.shape, inputs.dtype, targets.shape, targets.dtype
        key = (*kinds, *(g["lr"] for g in self.optimizer.param_groups))
        if self._given_up or len(inputs) != self.batch:  # the last batch of an epoch is smaller
            return self.step(inputs, targets)
        if key != self._key:
            if not self._recorded(inputs, targets):
                self.give_up()
                empty_cache(inputs.device)
                return self.step(inputs, targets)
            self._key = key
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        assert self._graph is not None
        self._graph.replay()
        return self._loss

    def give_up(self) -> bool:
        """Records and replays no more, and frees the memory of the recording; whether there was one."""
        recorded, self._given_up = self._graph is not None, True
        self._graph, self._key = None, ()
        self._inputs = self._targets = self._loss = torch.empty(0)
        self.optimizer.zero_grad(set_to_none=True)  # the gradients lie in the recording's memory
        return recorded

    def _recorded(self, inputs: Tensor, targets: Tensor) -> bool:
        """Records a step; False where memory does not hold that, and then nothing has changed."""
        fresh, random = not self.optimizer.state, torch.cuda.get_rng_state()
        with MayRunOut():
            self._record(inputs, targets)
            return True
        if fresh:  # it may have been made in part
            self.optimizer.state.clear()
        torch.cuda.set_rng_state(random)
        return False

    def _record(self, inputs: Tensor, targets: Tensor) -> None:
        if self._graph is None:
            self._inputs, self._targets = inputs.clone(), targets.clone()
            self._warm_up()
        self._graph = None  # frees the last recording's memory
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with _recordable(), torch.cuda.graph(graph):
            self._loss = self.once(self._inputs, self._targets)
        self._graph = graph

    def _warm_up(self) -> None:
        """Steps that leave no trace, so that every library has made its choices and the optimizer its state.

        In the last one a wait for the device is an error already: a recording that it ends leaves torch 2.11 unable to
        free memory. What they changed is put back without a byte of new memory, as that may be what ran out.
        """
        kept = [tensor.detach().clone() for tensor in self.state]
        optimizer = {id(t): t.clone() for t in self._optimizer_state()}
        random = torch.cuda.get_rng_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for step in range(WARM_UP):
                    with ExitStack() as stack:
                        if step == WARM_UP - 1:
                            stack.enter_context(_recordable())
                            stack.enter_context(_without_waits())
                        self.once(self._inputs, self._targets)
        finally:
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.set_rng_state(random)
            with torch.no_grad():
                for tensor, value in zip(self.state, kept, strict=True):
                    tensor.copy_(value)
                for tensor in self._optimizer_state():
                    if id(tensor) in optimizer:
                        tensor.copy_(optimizer[id(tensor)])
                    else:  # a new momentum of zero decays to what a first step starts with
                        tensor.zero_()

    def _optimizer_state(self) -> list[Tensor]:
        return [v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


@contextmanager
def _recordable() -> Iterator[None]:
    """Within it a step is recorded, or nearly: what fails is the step's fault, unless memory ran out."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        problem = f"cannot record a step of this network, which waits for the GPU within ({first_line(error)})"
        raise InputError("--cuda-graphs", problem, "leave it out, in a new session") from error


@contextmanager
def _without_waits() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
