"""Tries a row's network before anything is trained: built, taken through a step and an evaluation without numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cvhw4.errors import InputError
from cvhw4.models.build import build_module, channels_last, set_training_mode, single_values
from cvhw4.models.names import first_line, on_meta
from cvhw4.study import Recipe, Row
from cvhw4.study.called import line_of


def try_network(row: Row, images: int | None = None) -> None:
    """Builds a row's network and takes it through a training step with each size of batch that it will meet, backward
    included, and through an evaluation: on torch's meta device, which computes shapes alone; what fails there is tried
    on the processor, with two pictures.

    Args:
        images: in the training split; None where that is not known, and the last batch is not tried.

    Raises:
        InputError: it cannot be built, trained or evaluated, or gives no logits of the row's classes.
    """
    batch = row.recipe.batch
    sizes = (batch, 0) if images is None else (min(batch, images), images % batch)
    # What rows have in common is tried once in a process.
    start = row.start if row.start == "as built" else "random"
    kind = replace(row, name="", study="", group="", start=start, corruption=None)
    if row.start != "as built":
        kind = replace(kind, classes=2, merge=None, augmentation=row.task.augmentations[0])  # type: ignore[arg-type]
    try:
        _try(replace(kind, recipe=Recipe(size=row.recipe.size, batch=batch)), *sizes)
    except _Refused as refused:
        where = f"{row.study}, row {row.name}" if row.study else row.name
        size = row.recipe.size
        hint = f"give a network for pictures of {size} pixels and {row.classes} classes, or change the recipe"
        raise InputError(where, f"{row.network_name} {refused}", refused.hint or hint) from refused.__cause__


class _Refused(Exception):
    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


class _Failed(_Refused):
    """What may be for want of numbers, on the meta device."""


@contextmanager
def _explained(problem: str, kind: type[_Refused] = _Failed) -> Iterator[None]:
    """Turns what a network raises into a refusal that begins with the problem."""
    try:
        yield
    except _Refused:
        raise
    except InputError as error:
        raise _Refused(error.problem, error.hint) from error
    except Exception as error:
        at = line_of(error)
        raise kind(f"{problem} ({type(error).__name__}: {first_line(error)}{at and f'; {at}'})") from error


@lru_cache(maxsize=512)
def _try(row: Row, batch: int, last: int) -> None:
    """Tries a row with batches of two sizes, the second 0 where there is none; raises _Refused."""
    try:
        _take_through(row, "meta", batch, last)
    except _Failed:
        _take_through(row, "cpu", min(batch, 2), min(last, 2))


def _take_through(row: Row, device: str, batch: int, last: int) -> None:
    size = row.recipe.size
    with _explained("cannot be built", _Refused), torch.random.fork_rng(devices=[]):
        module = channels_last(on_meta(lambda: build_module(row)) if device == "meta" else build_module(row))
    try:
        with _explained(f"cannot be trained on pictures of {size} pixels"):
            for images in dict.fromkeys((batch, last)):
                if images and not (images == 1 < batch and single_values(module, row)):  # such a last batch is left out
                    set_training_mode(module, row)
                    _step(module, row, images, device)
    except _Failed as failed:
        if device == "cpu" and batch == 1 and single_values(module, row):
            problem = "cannot be trained with batches of one picture: its batch norms need more"
            raise _Refused(problem, "use batch=2") from failed
        raise
    with _explained(f"cannot be evaluated on pictures of {size} pixels"), torch.inference_mode(), _Quick():
        module.eval()
        _check_logits(module(_inputs(2, size, device)), row, 2)


def _step(module: nn.Module, row: Row, images: int, device: str) -> None:
    with _Quick() if device == "meta" else torch.enable_grad():
        logits = module(_inputs(images, row.recipe.size, device))
    _check_logits(logits, row, images)
    if not logits.requires_grad:
        raise _Refused("gives logits without a gradient", "let them depend on parameters that require one")
    logits.sum().backward()
    for parameter in module.parameters():
        parameter.grad = None


def _inputs(images: int, size: int, device: str) -> Tensor:
    return torch.zeros(images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)


def _check_logits(logits: Any, row: Row, images: int) -> None:
    """Refuses what is no logits of the row's task; raises _Refused."""
    size = row.recipe.size
    wanted = (images, row.classes) if row.task.name == "classification" else (images, row.classes, size, size)
    expected = f"{list(wanted)} for {images} pictures of {size} pixels"
    if not isinstance(logits, Tensor):
        found = type(logits).__name__ + (f" with {', '.join(map(str, logits))}" if isinstance(logits, dict) else "")
        raise _Refused(f"gives no tensor ({found:.60})", f"give {expected}, or a dict with them as out or logits")
    if tuple(logits.shape) != wanted or not logits.is_floating_point():
        problem = f"gives {list(logits.shape)} {logits.dtype}, not {list(wanted)}"
        raise _Refused(problem, f"give floating-point {expected}")


_KEEP_INPUT = (F.hardtanh, F.relu6, F.hardswish, F.hardsigmoid, F.gelu)  # what the backward pass needs


class _Quick(TorchFunctionMode):
    """Within it batch norms on the meta device check their inputs, and they and activations are what is quickest there:
    functions in C++ that keep the same for the backward pass, so that what is changed in place is found out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        inputs = kwargs.get("input", args[0] if args else None)
        if func in (F.batch_norm, F.relu, *_KEEP_INPUT) and inputs.is_meta:
            if func is F.batch_norm:
                training = kwargs.get("training", args[5] if len(args) > 5 else False)
                if training and inputs.numel() == inputs.shape[1]:
                    problem = f"Expected more than 1 value per channel when training, got input size {inputs.shape}"
                    raise ValueError(problem)
                return F.silu(inputs)
            if kwargs.get("inplace"):
                return inputs.exp_()
            return inputs.exp() if func is F.relu else F.silu(inputs)
        return func(*args, **kwargs)
