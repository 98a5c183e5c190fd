"""What a run costs at least: arithmetic, parameter traffic, and the seconds a measured machine needs for both.

Arithmetic is counted by `torch.utils.flop_counter.FlopCounterMode` on a real forward and backward pass: 2 FLOPs per
multiply-add of matrix products and convolutions. Elementwise work (activations, norms, pooling, dropout, the loss, the
optimizer) counts nothing, and neither does making the batches. The floors hold for this way of computing: fewer
multiplications (Winograd's convolution) or parameters that stay in a cache can go below them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from cvhw4.data.gather import free_memory
from cvhw4.models.build import evaluating
from cvhw4.records.typed import Field
from cvhw4.study import Row

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # as pydantic checks it when a record is read

_FLOAT32 = 4  # bytes
# precision: type of the operands, and what `torch.set_float32_matmul_precision` is set to meanwhile
_PRECISIONS = {
    "float32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bfloat16": (torch.bfloat16, "highest"),
    "float16": (torch.float16, "highest"),
}
# Side of the square product, and bytes of the three arrays of the triad: some tenths of a second each on two CPU cores
# and on an H100, with the arrays larger than the largest cache (480 MB).
_SIDES = {"cpu": 2048, "cuda": 8192}
_TRIADS = {"cpu": 9 * 2**27, "cuda": 3 * 2**30}


# Work


class Flops(NamedTuple):
    """Floating-point operations for one image.

    Attributes:
        forward: of a forward pass.
        training: of a forward and a backward pass, with the gradients that the row needs.
        after_dropout: the part of `forward` behind the first dropout that is active in training: a frozen network
            whose features are reused still runs it for every image it trains on; 0 without dropout.
    """

    forward: int
    training: int
    after_dropout: int = 0


class Cost(NamedTuple):
    """The least work of a run: floating-point operations, bytes of parameter traffic, and images trained on and
    evaluated, over all epochs."""

    flops: int
    bytes: int
    images: int


def flops_per_image(row: Row, module: nn.Module) -> Flops:
    """Counts a row's arithmetic for one image of float32 [3, size, size].

    The passes run on the meta device, which computes shapes alone (milliseconds, no memory); a network that the meta
    device cannot run runs on its own device instead. The module is left as it was: parameters, gradients, statistics
    and mode. Dropout is noticed where it is a module (`nn.Dropout`), not where a forward calls the function.

    Args:
        module: as `cvhw4.models.build.build_network` makes it: `requires_grad` decides the backward pass. A frozen
            trunk has none; the first layer never computes the gradient of its input.
    """
    with evaluating(module):  # the matrix work is the same, and batch norm accepts a batch of one
        try:
            return _count(row, module, on_meta=True)
        except (NotImplementedError, RuntimeError):
            return _count(row, module, on_meta=False)


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which takes a grouped convolution's backward pass for an ungrouped one's, with that mended."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward})


def _count(row: Row, module: nn.Module, *, on_meta: bool) -> Flops:
    def stand_in(tensor: Tensor) -> Tensor:
        copy = tensor.detach().to("meta") if on_meta else tensor.detach().clone()
        return copy.requires_grad_(tensor.requires_grad)

    own = next(module.parameters()).device
    counter = flop_counter()
    before_dropout: list[int] = []
    hooks = [
        part.register_forward_pre_hook(lambda *_: before_dropout.append(counter.get_total_flops()))
        for part in module.modules()
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and row.batch_norm == "train"
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad(), counter:
            tensors = {name: stand_in(t) for name, t in (*module.named_parameters(), *module.named_buffers())}
            images = torch.zeros(1, 3, row.recipe.size, row.recipe.size, device="meta" if on_meta else own)
            logits = torch.func.functional_call(module, tensors, (images,))
            forward = counter.get_total_flops()
            if logits.requires_grad:
                logits.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return Flops(forward, counter.get_total_flops(), forward - before_dropout[0] if before_dropout else 0)


def _conv_backward(grad_shape: Any, input_shape: Any, weight_shape: Any, *arguments: Any, **_: Any) -> int:
    """FLOPs of a convolution's backward pass: for each of the two gradients wanted, as many as forward.

    Replaces torch's own formula, which counts the weight gradient of a grouped convolution `groups` times (torch 2.15):
    1000 times too much for a depthwise one. The arguments are those of `aten.convolution_backward`.
    """
    transposed, output_mask = arguments[4], arguments[7]
    positions = math.prod((input_shape if transposed else grad_shape)[2:])
    return int(2 * math.prod(weight_shape) * positions * input_shape[0] * sum(output_mask[:2]))


def parameter_bytes_per_step(row: Row, module: nn.Module) -> int:
    """Float32 traffic for parameters, in bytes, of an optimizer step that reads and writes all that it trains.

    A trained number is read forward, read backward, then read and written by the update, as is each of the optimizer's
    states (SGD's momentum; Adam's two moments); its gradient is written and read. The gradient of a `nn.Linear` weight
    is a product of two matrices with as many rows as the batch (times positions) and need not be written out at all:
    it is left out. A frozen number is read forward. What fits a cache, and an update done in the same pass as one of
    the two reads, can save some of this.
    """
    states = 2 if row.recipe.optimizer == "adam" else int(bool(row.recipe.momentum))
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    passes = 0
    for parameter in module.parameters():
        trained = 4 + 2 * states + (0 if id(parameter) in linear else 2)
        passes += parameter.numel() * (trained if parameter.requires_grad else 1)
    return _FLOAT32 * passes


def run_cost(row: Row, module: nn.Module, *, train: int, val: int) -> Cost:
    """The least work of a whole run: every epoch trains on `train` images and evaluates `val` of them.

    The features of a frozen network are computed once for each variant of an image: two of a whole face, else one per
    epoch. What lies behind an active dropout runs for every image all the same; the trained head is left out (a
    50,000th of AlexNet, every epoch), and the traffic is that of the trained parameters. The traffic is the steps'
    alone: an evaluation may take the whole split as one batch.
    """
    epochs, per_image, traffic = row.recipe.epochs, flops_per_image(row, module), parameter_bytes_per_step(row, module)
    flops = epochs * (train * per_image.training + val * per_image.forward)
    if row.trained == "last layer":
        variants = 2 if row.augmentation == "whole face" else epochs
        behind = per_image.after_dropout
        flops = (variants * train + val) * (per_image.forward - behind) + (epochs * train + val) * behind
        traffic -= _FLOAT32 * sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return Cost(flops, epochs * math.ceil(train / row.recipe.batch) * traffic, epochs * (train + val))


# Machines


@dataclass(frozen=True)
class Machine:
    """What a device was measured to reach.

    Attributes:
        device: its kind, "cpu" or "cuda".
        matrix_flops: FLOP/s of a large square matrix product, on a CPU of a convolution where that is faster; the
            best of several.
        precision: of that product, a key of `_PRECISIONS`.
        bandwidth: bytes/s of a triad `a = b + s * c` far larger than the caches, two reads and a write per number.
    """

    device: str
    matrix_flops: Positive
    precision: str
    bandwidth: Positive

    def floor(self, cost: Cost) -> tuple[float, str]:
        """The least seconds that some work takes, and which of the two decides that: "arithmetic" or "memory"."""
        parts = (cost.flops / self.matrix_flops, "arithmetic"), (cost.bytes / self.bandwidth, "memory")
        return max(parts, key=lambda part: part[0])


def measure_machine(
    device: torch.device,
    precision: str,
    *,
    side: int | None = None,
    triad_bytes: int | None = None,
    seconds: float = 0.5,
) -> Machine:
    """Measures a device in some seconds, with as many threads as torch is set to use.

    Whatever else runs on the machine meanwhile lowers both figures.

    Args:
        precision: of the arithmetic, a matrix product's or on a CPU the better of it and a 3x3 convolution's:
            "float32", "tf32" (float32 in and out; CUDA), "bfloat16" or "float16".
        side: of the square matrices; None for a size that suits the device.
        triad_bytes: of the three float32 arrays together; None for at least 1 GiB, and less (a quarter of what is
            free) on a machine with little memory.
        seconds: how long each is repeated; the best counts.
    """
    dtype, setting = _PRECISIONS[precision]
    side = side or _SIDES.get(device.type, _SIDES["cpu"])
    triad_bytes = triad_bytes or min(_TRIADS.get(device.type, _TRIADS["cpu"]), free_memory(device) // 4)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        with torch.inference_mode():
            x, y = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # zeros would cost less power
            product = _least_seconds("torch.mm(x, y, out=z)", seconds, x=x, y=y, z=torch.empty_like(x))
            flops = 2 * side**3 / product
            if device.type == "cpu":  # torch.mm's library may be slower there than that of convolutions: AMD's, by half
                n, channels = 64, 256
                x = torch.randn(4, channels, n, n, dtype=dtype).to(memory_format=torch.channels_last)
                w = torch.randn(channels, channels, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
                product = _least_seconds("torch.conv2d(x, w)", seconds, x=x, w=w)
                flops = max(flops, 2 * 4 * (n - 2) ** 2 * channels**2 * 9 / product)
            a, b, c = (torch.ones(triad_bytes // (3 * _FLOAT32), device=device) for _ in range(3))
            triad = _least_seconds("torch.add(b, c, alpha=0.5, out=a)", seconds, a=a, b=b, c=c)
    finally:
        torch.set_float32_matmul_precision(before)
    return Machine(device.type, flops, precision, 3 * a.nbytes / triad)


def _least_seconds(statement: str, seconds: float, **names: Tensor) -> float:
    """Of the repetitions of a statement, with torch and some tensors under their names."""
    timer = Timer(statement, globals={"torch": torch, **names}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=seconds).times)
