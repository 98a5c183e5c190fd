"""Tries a row's network before anything is trained: built, taken through a step and an evaluation without numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cvhw4.errors import InputError
from cvhw4.models.build import build_module, set_training_mode, single_values
from cvhw4.models.names import on_meta
from cvhw4.study import Recipe, Row


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


@lru_cache(maxsize=512)
def _try(row: Row, batch: int, last: int) -> None:
    """Tries a row with batches of two sizes, the second 0 where there is none; raises _Refused."""
    try:
        _take_through(row, "meta", batch, last)
    except _Refused:
        raise
    except Exception:  # perhaps for want of numbers
        _take_through(row, "cpu", min(batch, 2), min(last, 2), refuse=True)


def _take_through(row: Row, device: str, batch: int, last: int, *, refuse: bool = False) -> None:
    size = row.recipe.size

    def explain(problem: str, error: Exception) -> _Refused:
        return _Refused(f"{problem} ({type(error).__name__}: {_first_line(error)})")

    try:
        with torch.random.fork_rng(devices=[]):
            module = on_meta(lambda: build_module(row)) if device == "meta" else build_module(row)
    except InputError as error:
        raise _Refused(error.problem, error.hint) from error
    except Exception as error:
        raise explain("cannot be built", error) from error
    module.to(memory_format=torch.channels_last)
    for images in dict.fromkeys((batch, last)):
        if not images or (images == 1 < batch and single_values(module, row)):  # such a last batch is left out
            continue
        set_training_mode(module, row)
        try:
            _step(module, row, images, device)
        except _Refused:
            raise
        except Exception as error:
            if not refuse:
                raise
            found = explain(f"cannot be trained on pictures of {size} pixels", error)
            if batch == 1 and single_values(module, row):
                found = _Refused(
                    "cannot be trained with batches of one picture: its batch norms need more", "use batch=2"
                )
            raise found from error
    try:
        module.eval()
        with torch.inference_mode(), _Quick():
            _check_logits(module(_inputs(2, size, device)), row, 2)
    except _Refused:
        raise
    except Exception as error:
        if not refuse:
            raise
        raise explain(f"cannot be evaluated on pictures of {size} pixels", error) from error


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
        found = (
            f"{type(logits).__name__} with {', '.join(logits)}" if isinstance(logits, dict) else type(logits).__name__
        )
        raise _Refused(f"gives no tensor ({found:.60})", f"give {expected}, or a dict with them as out or logits")
    if tuple(logits.shape) != wanted or not logits.is_floating_point():
        raise _Refused(
            f"gives {list(logits.shape)} {logits.dtype}, not {list(wanted)}", f"give floating-point {expected}"
        )


_KEEP_INPUT = (F.hardtanh, F.relu6, F.hardswish, F.hardsigmoid, F.gelu)  # what the backward pass needs


class _Quick(TorchFunctionMode):
    """Within it batch norms on the meta device check their inputs, and they and activations are what is quickest there:
    functions in C++ that keep the same for the backward pass, so that what is changed in place is found out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is F.batch_norm or func is F.relu or func in _KEEP_INPUT:
            inputs = kwargs.get("input", args[0] if args else None)
            if inputs.is_meta and func is F.batch_norm:
                training = kwargs.get("training", args[5] if len(args) > 5 else False)
                if training and inputs.numel() == inputs.shape[1]:
                    problem = f"Expected more than 1 value per channel when training, got input size {inputs.shape}"
                    raise ValueError(problem)
                return F.silu(inputs)
            if inputs.is_meta and kwargs.get("inplace"):
                return inputs.exp_()
            if inputs.is_meta:
                return inputs.exp() if func is F.relu else F.silu(inputs)
        return func(*args, **kwargs)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
