"""Evaluation without batch norm layers: their scale and shift put into the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cvhw4.models.convolutions import is_plain

Pair = tuple[nn.Conv2d, nn.modules.batchnorm._BatchNorm]


def find_pairs(module: nn.Module, inputs: Tensor) -> list[Pair]:
    """Convolutions whose output goes to a batch norm and nowhere else, with that batch norm.

    They are found by calling the module once, and the fold is tried on the same inputs, with other statistics in the
    batch norms, as fresh ones do nothing: if the outputs differ by more than rounding (the convolution's output is used
    elsewhere too, or the batch norm is no plain one), there are none.

    Args:
        module: in evaluation mode; left as it was.
        inputs: what it takes.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: list[Pair] = []

    def after(convolution: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = (convolution, output, output._version)  # type: ignore[assignment]  # kept: no id comes twice

    def before(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found = made.get(id(arguments[0]))
        if found is not None and found[1]._version == found[2]:  # else it was changed in place between them
            pairs.append((found[0], norm))  # type: ignore[arg-type]

    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d) and is_plain(m)]
    hooks = [m.register_forward_hook(after) for m in convolutions]
    norms = [m for m in module.modules() if _is_plain(m)]
    hooks += [m.register_forward_pre_hook(before) for m in norms]
    cudnn = torch.backends.cudnn
    settings = dict(enabled=cudnn.enabled, benchmark=False, deterministic=cudnn.deterministic)  # two images, once
    # Without TF32, whose rounding adds up over the layers to more than is allowed.
    # Not in inference mode, as a module may keep for training what it makes at its first call.
    with torch.no_grad(), cudnn.flags(**settings, allow_tf32=False):
        try:
            module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        once = len({id(c) for c, _ in pairs}) == len({id(n) for _, n in pairs}) == len(pairs)
        if not pairs or not once:
            return []
        with _shaken([norm for _, norm in pairs]):
            expected = module(inputs)
            with folded(pairs):
                same = torch.allclose(module(inputs), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    return pairs if same else []


@contextmanager
def _shaken(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Within it batch norms have other statistics, scales and shifts; afterwards all is as it was, to the bit."""
    draws = torch.Generator().manual_seed(0)
    kept = [(t, t.clone()) for n in norms for t in (n.running_mean, n.running_var, n.weight, n.bias) if t is not None]
    try:
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            for tensor, size in ((norm.running_mean, norm.running_var.sqrt()), (norm.weight, 1.0), (norm.bias, 1.0)):
                if tensor is not None:
                    tensor += 0.3 * size * torch.rand(tensor.shape, generator=draws).to(tensor)
            norm.running_var *= 0.5 + torch.rand(norm.running_var.shape, generator=draws).to(norm.running_var)
        yield
    finally:
        for tensor, value in kept:
            tensor.copy_(value)


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
