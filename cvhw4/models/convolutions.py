"""Convolutions whose training PyTorch gives to a slow kernel on a CPU, given to a fast one.

Wide depthwise ones: oneDNN, with which PyTorch computes on x86 processors, has a kernel of its own for the weight
gradient of depthwise convolutions up to three columns wide. For wider ones (5x5 in EfficientNet and MobileNetV3, 7x7 in
ConvNeXt) it pads each channel to 16 x 16 and takes 7 to 50 times as long as for the convolution itself (torch 2.15,
AVX-512). A kernel's columns are independent of each other, so here the gradient is computed for three of them at a
time: the same sums of products, added in another order.

Those of 1x1: with one thread and fewer than 16 images PyTorch leaves oneDNN aside for them (`use_mkldnn` in
aten/src/ATen/native/Convolution.cpp), and takes up to twice as long. A dilated one of several images it gives to
oneDNN, and a kernel of one pixel has nothing to dilate, so here it has a dilation of 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_COLUMNS = 3  # of a kernel, for which there is a fast gradient


@contextmanager
def fast_convolutions(module: nn.Module) -> Iterator[None]:
    """Within it the module's convolutions are trained by the fast kernels; afterwards all is as it was.

    Left alone are convolutions with a way of their own, what is on another device or compiled, of the wide depthwise
    ones what runs under autocast, and with several threads those of 1x1, which oneDNN has then.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d)] if torch.backends.mkldnn.is_available() else []
    wide = [(m, pad) for m in layers if (pad := _padding(m)) is not None]
    helped = torch.get_num_threads() == 1 and not any(map(_is_compiled, module.modules()))
    ones = [m for m in layers if m.kernel_size == m.dilation == (1, 1) and m.groups == 1 and _is_helped(m)] * helped
    try:
        for convolution, pad in wide:
            convolution.__dict__["forward"] = partial(_forward, convolution, pad)
        for convolution in ones:
            convolution.dilation = (2, 2)
        yield
    finally:
        for convolution, _ in wide:
            convolution.__dict__.pop("forward", None)
        for convolution in ones:
            convolution.dilation = (1, 1)


def _is_compiled(module: nn.Module) -> bool:
    """Whether it is what torch.compile made of a module, or was compiled in place."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def is_plain(convolution: nn.Conv2d) -> bool:
    """Whether it does no more than PyTorch's own or timm's `Conv2dSame`, with a weight that nothing computes."""
    from timm.layers import Conv2dSame  # type: ignore[attr-defined]

    c = convolution
    if "forward" in c.__dict__ or c._parameters.get("weight") is None or c._forward_pre_hooks:
        return False
    torchs = type(c).forward is nn.Conv2d.forward and type(c)._conv_forward is nn.Conv2d._conv_forward
    return torchs or type(c).forward is Conv2dSame.forward


def _is_helped(convolution: nn.Conv2d) -> bool:
    """Whether it is a plain one, on the CPU."""
    return is_plain(convolution) and convolution.weight.device.type == "cpu"


def _padding(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor] | None:
    """What a convolution does to its inputs before it pads them by `convolution.padding`; None for one that is not
    depthwise and wide, or does more than that."""
    from timm.layers import Conv2dSame, pad_same  # type: ignore[attr-defined]

    c = convolution
    depthwise = c.groups == c.in_channels == c.out_channels and c.kernel_size[1] > _COLUMNS and c.dilation == (1, 1)
    if not depthwise or not _is_helped(c):
        return None
    if type(c).forward is Conv2dSame.forward:
        return partial(pad_same, kernel_size=[*c.kernel_size], stride=[*c.stride], dilation=[*c.dilation])
    return _as_they_are if c.padding_mode == "zeros" and not isinstance(c.padding, str) else None


def _as_they_are(inputs: Tensor) -> Tensor:
    return inputs


def _forward(convolution: nn.Conv2d, pad: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """`convolution(input)`."""
    weight = convolution.weight
    special = torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type) or input.dim() != 4
    if special or not (torch.is_grad_enabled() and weight.requires_grad):
        return type(convolution).forward(convolution, input)
    padding = (0, 0) if pad is not _as_they_are else convolution.padding
    outputs: Tensor = _Depthwise.apply(pad(input), weight, convolution.bias, convolution.stride, padding)
    return outputs


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution; what it does backwards can be differentiated again."""

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        return F.conv2d(inputs, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride, ctx.padding = inputs[3:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad[:3]
        found = _backward(gradient, inputs, weight, ctx.stride, ctx.padding, of_inputs) if of_inputs else (None,)
        strips = _weight_gradient(gradient, inputs, weight, ctx.stride, ctx.padding) if of_weight else None
        # Asked for the bias, oneDNN would compute the weights' gradient as well.
        return found[0], strips, gradient.sum((0, 2, 3)) if of_bias else None, None, None


def _weight_gradient(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
    """The gradient of the weights, `_COLUMNS` columns of the kernel at a time."""
    inputs = F.pad(inputs, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else inputs
    seen = (gradient.shape[3] - 1) * stride[1]  # columns of the inputs from a kernel's first place to its last
    strips = []
    for left in range(0, weight.shape[3], _COLUMNS):
        strip = weight[..., left : left + _COLUMNS]
        part = inputs[..., left : left + seen + strip.shape[3]]
        strips.append(_backward(gradient, part, strip, stride, (0, 0), False)[1])
    return torch.cat(strips, 3)


def _backward(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Any, padding: Any, of_inputs: bool) -> Any:
    """The gradients of inputs and weight: one of them."""
    channels, mask = len(weight), (of_inputs, not of_inputs, False)
    return torch.ops.aten.convolution_backward(
        gradient, inputs, weight, None, stride, padding, (1, 1), False, (0, 0), channels, mask
    )
