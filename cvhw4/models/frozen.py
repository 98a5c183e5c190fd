"""A network of which only the last layer is trained, cut where its work can be shared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet

from cvhw4.models.build import evaluating, set_training_mode
from cvhw4.study import Row


@dataclass(frozen=True)
class Frozen:
    """trunk, then tail, then head: together the network's own function.

    Attributes:
        trunk: maps inputs float [B, 3, S, S] to features [B, F]. Nothing in it is trained or drawn, and no image sees
            another: it may be computed in batches of any size, and kept.
        tail: frozen layers behind it that draw anew each time (AlexNet's dropout and the linear layers between).
        head: the layer that is trained.
        width: F, features per image.
    """

    trunk: Callable[[Tensor], Tensor]
    tail: nn.Module
    head: nn.Module
    width: int = 0


def split_frozen(module: nn.Module, row: Row) -> Frozen | None:
    """The parts of a classifier of which only the last layer is trained; None where it cannot be cut like that.

    Args:
        module: as `build_network` makes it; all parameters but the head's are frozen.
        row: the size of its inputs, and its training mode.

    The cut is tried on two images: the parts must give what the network gives, and the trunk the same in training
    mode, twice.
    """
    parts = _cut(module)
    if parts is None or any(p.requires_grad for p in _others(module, parts.head)):
        return None
    first, size, width = next(module.parameters()), row.recipe.size, 0
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(first.device)
    generators = torch.random.fork_rng(devices=[first.device] if first.is_cuda else [])
    cudnn = torch.backends.cudnn  # of whose kernels the fastest need not give the same bits twice
    same_bits = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=cudnn.allow_tf32)
    # Of a user's own parts features may be no tensor, and a forward_head may take other arguments.
    unlike = suppress(TypeError, ValueError, AttributeError, LookupError)
    with torch.no_grad(), generators, same_bits, evaluating(module), unlike:
        features = parts.trunk(inputs)
        same = torch.allclose(parts.head(parts.tail(features)), module(inputs), rtol=1e-4, atol=1e-4)
        set_training_mode(module, row)
        if same and all(torch.equal(parts.trunk(inputs), features) for _ in range(2)) and features.ndim == 2:
            width = features.shape[1]
    return replace(parts, width=width) if width else None


def _cut(module: nn.Module) -> Frozen | None:
    if isinstance(module, AlexNet):
        *tail, head = module.classifier
        return Frozen(nn.Sequential(module.features, module.avgpool, nn.Flatten()), nn.Sequential(*tail), head)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        parts = list(module)  # a slice of the module would call a subclass's own __init__
        return Frozen(nn.Sequential(*parts[:-1]), nn.Identity(), parts[-1])
    if all(hasattr(module, part) for part in ("forward_features", "forward_head", "get_classifier")):  # timm's
        network: Any = module
        head, trunk = network.get_classifier(), partial(_before_classifier, network)
        single = isinstance(head, nn.Module) and not isinstance(head, nn.ModuleList)  # some have two, or several
        return Frozen(trunk, nn.Identity(), head) if single else None
    return None


def _before_classifier(network: Any, inputs: Tensor) -> Tensor:
    features: Tensor = network.forward_head(network.forward_features(inputs), pre_logits=True)
    return features


def _others(module: nn.Module, head: nn.Module) -> list[nn.Parameter]:
    own = {id(p) for p in head.parameters()}
    return [p for p in module.parameters() if id(p) not in own]
