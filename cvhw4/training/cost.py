"""What a run must cost at least: arithmetic, parameter traffic, and the seconds a measured machine needs for both.

Arithmetic is counted by `torch.utils.flop_counter.FlopCounterMode` on a real forward and backward pass: 2 FLOPs per
multiply-add of matrix products and convolutions. Elementwise work (activations, norms, pooling, dropout, the loss, the
optimizer) counts nothing, nor does the making of the batches. The floors are those of this way of computing: fewer
multiplications (Winograd's convolution) or parameters that stay in a cache can go below them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvhw4.data.gather import free_memory
from cvhw4.experiments import Experiment

_FLOAT32 = 4  # bytes
# precision: type of the operands, and what `torch.set_float32_matmul_precision` is to be meanwhile
_PRECISIONS = {
    "float32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bfloat16": (torch.bfloat16, "highest"),
    "float16": (torch.float16, "highest"),
}
# Side of the square product, and bytes of the three arrays of the triad: some tenths of a second each on two CPU cores
# and on an H100, with the arrays beyond the largest cache (480 MB).
_SIDES = {"cpu": 2048, "cuda": 8192}
_TRIADS = {"cpu": 9 * 2**27, "cuda": 3 * 2**30}


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one image.

    Attributes:
        forward: of a forward pass.
        training: of a forward and a backward pass, with the gradients that the row needs.
        after_dropout: the part of `forward` behind the first dropout that is active in training. A frozen network
            whose features are reused still has to run it anew for every image it trains on; 0 without dropout.
    """

    forward: int
    training: int
    after_dropout: int = 0


def flops_per_image(experiment: Experiment, module: nn.Module) -> Flops:
    """Counts a row's arithmetic for one image of float32 [3, size, size].

    The passes run on the meta device, which computes shapes alone (milliseconds, no memory); a network that the meta
    device cannot run runs on its own device instead. The module is left as it was: parameters, gradients, statistics
    and mode. Dropout is seen where it is a module (`nn.Dropout`), not where a forward calls the function.

    Args:
        module: as `cvhw4.models.build.build_network` makes it: what has `requires_grad` decides the backward pass. A
            frozen trunk has none; the first layer never computes the gradient of its input.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()  # the matrix work is the same, and batch norm takes a batch of one
    try:
        try:
            return _count(experiment, module, on_meta=True)
        except (NotImplementedError, RuntimeError):
            return _count(experiment, module, on_meta=False)
    finally:
        for part, training in modes:
            part.training = training


def _count(experiment: Experiment, module: nn.Module, *, on_meta: bool) -> Flops:
    def stand_in(tensor: Tensor) -> Tensor:
        copy = tensor.detach().to("meta") if on_meta else tensor.detach().clone()
        return copy.requires_grad_(tensor.requires_grad)

    own = next(module.parameters()).device
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward})
    before_dropout: list[int] = []
    hooks = [
        part.register_forward_pre_hook(lambda *_: before_dropout.append(counter.get_total_flops()))
        for part in module.modules()
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and experiment.batch_norm == "train"
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad(), counter:
            tensors = {name: stand_in(t) for name, t in (*module.named_parameters(), *module.named_buffers())}
            size = experiment.recipe.size
            images = torch.zeros(1, 3, size, size, device="meta" if on_meta else own)
            logits = torch.func.functional_call(module, tensors, (images,))
            forward = counter.get_total_flops()
            if logits.requires_grad:
                logits.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return Flops(forward, counter.get_total_flops(), forward - before_dropout[0] if before_dropout else 0)


def _conv_backward(
    grad_shape: Sequence[int],
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """FLOPs of a convolution's backward pass: for each of the two gradients wanted, as many as forward.

    Takes the place of torch's own formula, which counts the weight gradient of a grouped convolution `groups` times
    (torch 2.15): 1000 times too much for a depthwise one.
    """
    positions = math.prod((input_shape if transposed else grad_shape)[2:])
    return 2 * math.prod(weight_shape) * positions * input_shape[0] * sum(output_mask[:2])


def parameter_bytes_per_step(experiment: Experiment, module: nn.Module, *, written_out: bool = False) -> int:
    """Float32 traffic for parameters, in bytes, of an optimizer step that reads and writes all that it trains.

    A trained number is read forward, read backward, then read and written by the update, as is each of the optimizer's
    states (SGD's momentum; Adam's two moments); its gradient is written and read. The gradient of a `nn.Linear` weight
    is a product of two matrices with as many rows as the batch (times positions) and need not be written out at all:
    it is left out. A frozen number is read forward. What fits a cache, and an update done in the same pass as one of
    the two reads, can save some of this.

    Args:
        written_out: count the gradients of `nn.Linear` weights too, as a loop that calls `backward` and then an
            optimizer has it: 8 passes over the parameters with SGD and momentum.
    """
    recipe = experiment.recipe
    states = 2 if recipe.optimizer == "adam" else int(recipe.momentum != 0)
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    passes = 0
    for parameter in module.parameters():
        each = 1
        if parameter.requires_grad:
            each = 2 + 2 + 2 * states + (2 if written_out or id(parameter) not in linear else 0)
        passes += each * parameter.numel()
    return _FLOAT32 * passes


@dataclass(frozen=True)
class Cost:
    """The least work of a run.

    Attributes:
        flops: floating-point operations.
        bytes: parameter traffic.
        images: images trained on and evaluated, over all epochs.
    """

    flops: int
    bytes: int
    images: int


def run_cost(
    experiment: Experiment,
    module: nn.Module,
    *,
    train: int,
    val: int,
    trunk_passes: int | None = None,
    written_out: bool = False,
) -> Cost:
    """The least work of a whole run: every epoch trains on `train` images and evaluates `val` of them.

    The traffic is the steps' alone: an evaluation may take the whole split as one batch.

    Args:
        train: images of the training split.
        val: images of the validation split.
        trunk_passes: for a frozen row whose features are reused: forward passes of images through the frozen part
            that the run needs in all, those of the `val` images included. What lies behind an active dropout runs for
            every image all the same; the trained head is left out (a 50 000th of AlexNet, every epoch); and
            the traffic is that of the trained parameters. None: every image is passed through in every epoch.
        written_out: as in `parameter_bytes_per_step`.

    Raises:
        ValueError: `trunk_passes` for a row that trains all layers.
    """
    epochs, per_image = experiment.recipe.epochs, flops_per_image(experiment, module)
    traffic = parameter_bytes_per_step(experiment, module, written_out=written_out)
    flops = epochs * (train * per_image.training + val * per_image.forward)
    if trunk_passes is not None:
        if experiment.trained != "last layer":
            raise ValueError(f"{experiment.id} trains {experiment.trained}: it has no features to reuse")
        behind = per_image.after_dropout
        flops = trunk_passes * (per_image.forward - behind) + (epochs * train + val) * behind
        traffic -= _FLOAT32 * sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return Cost(flops, epochs * math.ceil(train / experiment.recipe.batch) * traffic, epochs * (train + val))


@dataclass(frozen=True)
class Machine:
    """What a device was measured to reach.

    Attributes:
        device: its kind, "cpu" or "cuda".
        matrix_flops: FLOP/s of a large square matrix product, the best of several.
        precision: of that product, a key of `_PRECISIONS`.
        bandwidth: bytes/s of a triad `a = b + s * c` far larger than the caches, two reads and a write per number.
    """

    device: str
    matrix_flops: float
    precision: str
    bandwidth: float


def measure_machine(
    device: torch.device,
    precision: str,
    *,
    side: int | None = None,
    triad_bytes: int | None = None,
    repeats: int = 12,
) -> Machine:
    """Measures a device in two to four seconds, with as many threads as torch is set to use.

    Whatever else runs on the machine meanwhile lowers both figures.

    Args:
        precision: of the matrix product: "float32", "tf32" (float32 in and out; CUDA), "bfloat16" or "float16".
        side: of the square matrices; None for a size that suits the device.
        triad_bytes: of the three float32 arrays together; None for at least 1 GiB, and less (a quarter of what is
            free) on a machine with little memory.
        repeats: how often each is timed, after two calls that are not; the best counts.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(_PRECISIONS)}")
    dtype, setting = _PRECISIONS[precision]
    side = side or _SIDES.get(device.type, _SIDES["cpu"])
    triad_bytes = triad_bytes or min(_TRIADS.get(device.type, _TRIADS["cpu"]), free_memory(device) // 4)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        with torch.inference_mode():
            matrix_flops = _matrix_flops(device, dtype, side, repeats)
            bandwidth = _bandwidth(device, triad_bytes // (3 * _FLOAT32), repeats)
    finally:
        torch.set_float32_matmul_precision(before)
    return Machine(device.type, matrix_flops, precision, bandwidth)


def _matrix_flops(device: torch.device, dtype: torch.dtype, side: int, repeats: int) -> float:
    """FLOP/s of a square product of random numbers: a GPU multiplies zeros faster, at less power."""
    x, y = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(x)
    return 2 * side**3 / min(_times(lambda: torch.mm(x, y, out=product), device, repeats))


def _bandwidth(device: torch.device, count: int, repeats: int) -> float:
    """Bytes/s of a triad over arrays of so many numbers."""
    a, b, c = (torch.ones(count, device=device) for _ in range(3))
    return 3 * _FLOAT32 * count / min(_times(lambda: torch.add(b, c, alpha=0.5, out=a), device, repeats))


def _times(work: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of several calls, after two that are not timed."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with torch.cuda.device(device):
                start.record()
                work()
                end.record()
                torch.cuda.synchronize(device)
            times.append(start.elapsed_time(end) / 1000)
        else:
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return times


def floor_seconds(cost: Cost, machine: Machine) -> float:
    """The least time of some work, in seconds: that of its arithmetic or that of its traffic, whichever is longer."""
    return max(_parts(cost, machine))


def limit(cost: Cost, machine: Machine) -> str:
    """Which of the two decides the floor: "arithmetic" or "memory"."""
    arithmetic, memory = _parts(cost, machine)
    return "arithmetic" if arithmetic >= memory else "memory"


def _parts(cost: Cost, machine: Machine) -> tuple[float, float]:
    return cost.flops / machine.matrix_flops, cost.bytes / machine.bandwidth
