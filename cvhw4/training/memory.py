"""What a device's memory does not hold at once: without what lies there for speed alone, in parts, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn, optim

from cvhw4.errors import OutOfMemory
from cvhw4.training.checkpoint import Generators, generator_states, set_generator_states

Forward = Callable[[Tensor], Tensor]
Release = Callable[[], bool]
# How libraries below torch say it; torch's allocators have an exception of their own.
_SIGNS = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")
# cuDNN passes over kernels that do not fit until it finds none; cuBLAS makes its handle with a process' first product.
# Where memory is free, they say so for another reason.
_SIGNS_IF_FULL, _FULL = ("unable to find an engine", "cublasCreate(handle)"), 0.1


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, or came while such a one was handled: the end of a CUDA graph's broken
    recording raises another on top."""
    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, OutOfMemory)):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in (*_SIGNS, *_more_signs())):
            return True
        error = error.__cause__ or error.__context__
    return False


def _more_signs() -> tuple[str, ...]:
    """What else says so where hardly any of the GPU's memory is free."""
    if not torch.cuda.is_initialized():
        return ()
    free, total = torch.cuda.mem_get_info()
    return _SIGNS_IF_FULL if free < _FULL * total else ()


class MayRunOut:
    """Within it memory may run out: that ends the block, and what comes behind it goes on without its tensors.

    Attributes:
        problem: what torch said then.
    """

    problem = ""

    def __enter__(self) -> MayRunOut:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        ran_out = isinstance(error, RuntimeError) and is_out_of_memory(error)
        if ran_out:
            self.problem = str(error)
        return ran_out


def empty_cache(device: torch.device) -> None:
    """Gives memory that torch keeps of a device, and does not use, back to it."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


class AccumulatedStep:
    """One optimizer step, of a batch as a whole or, once the device's memory did not hold that, of parts of it whose
    gradients are added up: the same step but for rounding (and other draws of dropout).

    A step that ran out of memory is undone before it is tried again: gradients, statistics of batch norms, the random
    state, and an optimizer's state that was made in part.

    Args:
        forward: inputs to logits.
        loss: logits and targets to their mean loss, a scalar.
        module: what is trained; its mode is the caller's business.
        optimizer: of its parameters.
        clip: limits the gradients, in place, before the optimizer uses them.
        in_parts: whether the loss of a batch is the mean of the losses of its images.
        release: drops something from the device's memory, before a batch is taken in parts; False: there is nothing.

    Attributes:
        parts: in how many parts a batch is computed.
    """

    def __init__(
        self,
        forward: Forward,
        loss: Callable[[Tensor, Tensor], Tensor],
        module: nn.Module,
        optimizer: optim.Optimizer,
        clip: Callable[[], object] | None = None,
        *,
        in_parts: bool = True,
        release: Release = lambda: False,
    ) -> None:
        self.forward, self.loss, self.module, self.optimizer, self.release = forward, loss, module, optimizer, release
        self.clip, self.in_parts = clip, in_parts
        self.second_order = bool(getattr(optimizer, "is_second_order", False))  # AdaHessian differentiates gradients
        self.parts = 1
        self._updating = False  # whether the gradients are there and the optimizer is at work
        self._statistics: list[tuple[list[Tensor], list[Tensor]]] = []  # buffers and their copies, by type

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Takes the step; the loss of the whole batch, without gradient.

        Raises:
            OutOfMemory: not even single images fit, or the network's batch norms forbid parts, or what does not fit is
                the optimizer's.
        """
        while True:
            fresh, versions = not self.optimizer.state, self._versions()
            generators, self._updating = Generators(), False
            with MayRunOut() as attempt:
                generators = self._remember(inputs.device)
                return self.once(inputs, targets)
            problem = attempt.problem.partition(". ")[0]
            self.optimizer.zero_grad(set_to_none=True)
            if fresh:  # it may have been made in part
                self.optimizer.state.clear()
            if self._versions() != versions:
                raise OutOfMemory(
                    f"memory ran out within an update of the weights ({problem}). Free memory on the device"
                )
            self._put_back(generators, inputs.device)
            if not self.release():
                self._halve(len(inputs), problem)
                empty_cache(inputs.device)

    def once(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Takes the step in as many parts as it is taken now, and leaves it half done where memory runs out.

        Raises:
            RuntimeError: memory ran out (`is_out_of_memory`).
        """
        self._updating = False
        self.optimizer.zero_grad(set_to_none=True)
        if self.parts == 1:
            loss = self.loss(self.forward(inputs), targets)
            loss.backward(create_graph=self.second_order)
            loss = loss.detach()
        else:
            loss = torch.zeros((), device=inputs.device)
            for x, y in zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True):
                part = self.loss(self.forward(x), y) * (len(x) / len(inputs))
                part.backward(create_graph=self.second_order)
                loss += part.detach()
        if self.clip is not None:
            self.clip()
        self._updating = True
        self.optimizer.step()
        return loss

    def _halve(self, images: int, problem: str) -> None:
        whole = f"a batch of {images} does not fit ({problem}), and it cannot be computed in parts"
        if self._updating:
            what = f"the optimizer's state does not fit beside weights and gradients ({problem})"
            way = ", or choose an optimizer with less state"
        elif any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.module.modules()):
            what = f"{whole}: the network's batch norms take their statistics from all of it"
            way = ", or try --precision bf16"
        elif not self.in_parts:
            what, way = f"{whole}: its loss need not be the mean of theirs", ", or try a smaller batch"
        elif self.parts >= images:
            what, way = f"not even single images fit ({problem})", ""
        else:
            self.parts *= 2
            return
        raise OutOfMemory(f"{what}. Free memory on the device{way}")

    def _versions(self) -> list[int]:
        """How often each parameter was written to."""
        return [p._version for group in self.optimizer.param_groups for p in group["params"]]

    def _remember(self, device: torch.device) -> Generators:
        """Keeps what a step changes before it is done, where memory is short enough for that: not on a CPU."""
        if device.type == "cpu":
            return {}
        if self.module.training:
            if not self._statistics:
                kinds = {buffer.dtype for buffer in self.module.buffers()}
                groups = [[b for b in self.module.buffers() if b.dtype == kind] for kind in kinds]
                self._statistics = [(buffers, [torch.empty_like(b) for b in buffers]) for buffers in groups]
            for buffers, copies in self._statistics:
                torch._foreach_copy_(copies, buffers)
        return generator_states(device)

    def _put_back(self, generators: Generators, device: torch.device) -> None:
        if generators:
            set_generator_states(generators, device)
            if self.module.training:
                for buffers, copies in self._statistics:
                    torch._foreach_copy_(buffers, copies)


def in_parts(forward: Forward, inputs: Tensor, release: Release = lambda: False) -> Tensor:
    """What a function makes of inputs [B, ...], image by image the same: in halves where memory does not hold all.

    Args:
        release: as `AccumulatedStep` has it.

    Raises:
        torch.OutOfMemoryError: a single image does not fit.
    """
    with MayRunOut() as attempt:
        return forward(inputs)
    if release():
        return in_parts(forward, inputs, release)
    if len(inputs) == 1:
        raise torch.OutOfMemoryError(attempt.problem)
    return torch.cat([in_parts(forward, half, release) for half in inputs.chunk(2)])
