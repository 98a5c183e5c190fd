"""What a device's memory does not hold at once, in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn, optim

from cvhw4.errors import OutOfMemory

Forward = Callable[[Tensor], Tensor]


class AccumulatedStep:
    """One optimizer step, of a batch as a whole or, once the device's memory did not hold that, of parts of it whose
    gradients are added up: the same step but for rounding (and other draws of dropout).

    Args:
        forward: inputs to logits.
        loss: logits and targets to their mean loss, a scalar.
        module: what is trained; its mode is the caller's business.
        optimizer: of its parameters.
        clip: limits the gradients, in place, before the optimizer uses them.
        in_parts: whether the loss of a batch is the mean of the losses of its images.

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
    ) -> None:
        self.forward, self.loss, self.module, self.optimizer = forward, loss, module, optimizer
        self.clip, self.in_parts = clip, in_parts
        self.second_order = bool(getattr(optimizer, "is_second_order", False))  # AdaHessian differentiates gradients
        self.parts = 1

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Takes the step; the loss of the whole batch, without gradient.

        Raises:
            OutOfMemory: not even single images fit, or the network's batch norms forbid parts.
        """
        while True:
            fresh = not self.optimizer.state
            try:
                return self._step(inputs, targets)
            except torch.OutOfMemoryError as error:
                if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                    raise
                problem = str(error).partition(". ")[0]
            # Outside of the handler, which keeps the failed step's tensors alive.
            if fresh:  # it may have been made in part
                self.optimizer.state.clear()
            self._halve(len(inputs), problem)

    def _step(self, inputs: Tensor, targets: Tensor) -> Tensor:
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
        self.optimizer.step()
        return loss

    def _halve(self, images: int, problem: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.module.modules()):
            raise OutOfMemory(
                f"a batch of {images} does not fit ({problem}), and it cannot be computed in parts: the network's batch"
                " norms take their statistics from all of it. Free memory on the device, or try --precision bf16"
            )
        if not self.in_parts:
            raise OutOfMemory(
                f"a batch of {images} does not fit ({problem}), and it cannot be computed in parts: its loss need not"
                " be the mean of theirs. Free memory on the device, or try a smaller batch"
            )
        if self.parts >= images:
            raise OutOfMemory(f"not even single images fit ({problem}). Free memory on the device")
        self.parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_parts(forward: Forward, inputs: Tensor) -> Tensor:
    """What a function makes of inputs [B, ...], image by image the same: in halves where memory does not hold all.

    Raises:
        torch.OutOfMemoryError: a single image does not fit.
    """
    try:
        return forward(inputs)
    except torch.OutOfMemoryError:
        if len(inputs) == 1:
            raise
    return torch.cat([in_parts(forward, half) for half in inputs.chunk(2)])
