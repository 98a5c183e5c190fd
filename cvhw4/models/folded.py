"""Evaluation without batch norm layers: their scale and shift put into the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Pair = tuple[nn.Conv2d, nn.modules.batchnorm._BatchNorm]


def find_pairs(module: nn.Module, inputs: Tensor) -> list[Pair]:
    """Convolutions whose output goes to a batch norm and nowhere else, with that batch norm.

    They are found by calling the module once, and the fold is tried on the same inputs: if the outputs differ by more
    than rounding (the convolution's output is used elsewhere too, or the batch norm is no plain one), there are none.

    Args:
        module: in evaluation mode; left as it was.
        inputs: what it takes.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[Pair] = []

    def after(convolution: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = (convolution, output)  # type: ignore[assignment]  # kept, so that no id is used twice

    def before(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if id(arguments[0]) in made:
            pairs.append((made[id(arguments[0])][0], norm))  # type: ignore[arg-type]

    hooks = [m.register_forward_hook(after) for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if _is_plain(m)]
    hooks += [m.register_forward_pre_hook(before) for m in norms]
    cudnn = torch.backends.cudnn
    settings = dict(enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic)
    # Without TF32, whose rounding adds up over the layers to more than is allowed.
    with torch.inference_mode(), cudnn.flags(**settings, allow_tf32=False):
        try:
            expected = module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        once = len({id(c) for c, _ in pairs}) == len({id(n) for _, n in pairs}) == len(pairs)
        if not pairs or not once:
            return []
        with folded(pairs):
            same = torch.allclose(module(inputs), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    return pairs if same else []


@contextmanager
def folded(pairs: list[Pair]) -> Iterator[None]:
    """Within it the convolutions do the work of their batch norms; afterwards all is as it was, to the bit."""
    before = [(c.weight, c.bias) for c, _ in pairs]
    try:
        with torch.no_grad():
            for c, n in pairs:
                assert n.running_mean is not None and n.running_var is not None
                weight, bias = fuse_conv_bn_weights(
                    c.weight, c.bias, n.running_mean, n.running_var, n.eps, n.weight, n.bias
                )
                c.weight, c.bias = nn.Parameter(weight), nn.Parameter(bias)
                n.__dict__["forward"] = _activation(n)
        yield
    finally:
        for (c, n), (own_weight, own_bias) in zip(pairs, before, strict=True):
            c.weight, c.bias = own_weight, own_bias
            n.__dict__.pop("forward", None)


def _is_plain(module: nn.Module) -> bool:
    """Whether it is torch's batch norm, or timm's with an activation behind it, and has statistics."""
    kind = type(module)
    timms = issubclass(kind, nn.BatchNorm2d) and isinstance(getattr(module, "act", None), nn.Module)
    return (kind is nn.BatchNorm2d or timms) and getattr(module, "running_mean", None) is not None


def _activation(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """What is left of a batch norm when its scale and shift are done elsewhere."""
    act: nn.Module = getattr(norm, "act", nn.Identity())
    return act.forward  # a function: a module would be registered as a part of the batch norm
