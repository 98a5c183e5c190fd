"""From a recipe to its optimizer, learning rates, gradient clipping and loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from inspect import signature
from typing import Any

import timm.optim
import timm.scheduler
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from torchvision.ops import sigmoid_focal_loss

from cvhw4.errors import InputError
from cvhw4.models.build import trainable
from cvhw4.records.schema import Epoch
from cvhw4.study import Loss, Recipe
from cvhw4.tasks import Task

_OPTIM: Any = timm.optim  # what they export, mypy does not see
_SCHEDULER: Any = timm.scheduler

IGNORED = -100  # PyTorch's `ignore_index`: the target of a pixel of no class
# Optimizers whose steps a CUDA graph can replay: they count steps on the device, and start from a state of zeros.
_CAPTURABLE = (optim.SGD, optim.Adam, optim.AdamW)

LossFunction = Callable[..., Tensor]


def make_optimizer(recipe: Recipe, module: nn.Module, *, capturable: bool = False) -> optim.Optimizer:
    """The recipe's optimizer over the trainable parameters.

    Args:
        capturable: whether its steps are to be recorded as CUDA graphs.

    Raises:
        ValueError: an optimizer that timm does not know.
    """
    name, settings = recipe.optimizer, dict[str, Any](lr=recipe.lr)
    parameters: Any = trainable(module)
    if recipe.weight_decay:  # in two groups, without and with it
        parameters = _OPTIM.param_groups_weight_decay(module, recipe.weight_decay)
    if name == "sgd":
        return optim.SGD(parameters, momentum=recipe.momentum or 0.0, fused=True, **settings)
    if name == "adam":
        return optim.Adam(parameters, capturable=capturable, fused=True, **settings)
    if recipe.momentum is not None:
        settings["momentum"] = recipe.momentum
    kind = _optimizer_class(name)
    if kind in _CAPTURABLE and not name.startswith("lookahead_"):
        settings["fused"] = True
        if "capturable" in signature(kind).parameters:
            settings["capturable"] = capturable
    optimizer: optim.Optimizer = _OPTIM.create_optimizer_v2(parameters, name, **settings)
    if hasattr(optimizer, "_base_optimizer"):  # Lookahead, whose own state is empty
        optimizer.state = optimizer._base_optimizer.state
    return optimizer


def _optimizer_class(name: str) -> Any:
    return _OPTIM.get_optimizer_class(name.lower().removeprefix("lookahead_"), bind_defaults=False)


class Rates:
    """The learning rates of a recipe, which it writes into the optimizer.

    Args:
        steps: optimizer steps in an epoch.
        primary: the metric that "plateau" watches.

    Raises:
        ValueError: timm does not make that schedule.
    """

    def __init__(self, recipe: Recipe, optimizer: optim.Optimizer, steps: int, primary: str) -> None:
        self.optimizer, self.primary = optimizer, primary
        self._by_step = recipe.schedule == "onecycle"
        self._torchs: LRScheduler | None = None
        self._timms: Any = None
        if self._by_step:
            total = max(recipe.epochs * steps, 3)  # fewer, or a rise within one step, are a division by zero there
            rising = max(recipe.warmup_epochs / recipe.epochs or 0.3, 1.5 / total)
            self._torchs = OneCycleLR(optimizer, recipe.lr, total, pct_start=rising, cycle_momentum=False)
        elif recipe.schedule == "step" and not recipe.warmup_epochs:
            assert isinstance(recipe.lr_step, int)
            self._torchs = StepLR(optimizer, recipe.lr_step, recipe.lr_gamma)
        else:
            self._timms = _timms_schedule(recipe, optimizer)

    @property
    def now(self) -> float:
        """The present one."""
        return float(self.optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        """To be called after each optimizer step."""
        if self._by_step:
            assert self._torchs is not None
            self._torchs.step()

    def after_epoch(self, epoch: Epoch) -> None:
        """To be called after each epoch, once it is evaluated."""
        if self._timms is not None:
            self._timms.step(epoch.epoch, epoch.figures[self.primary])
        elif self._torchs is not None and not self._by_step:
            self._torchs.step()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON values."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {"rates": rates, "schedule": self._torchs.state_dict() if self._torchs is not None else None}

    def restore(self, state: dict[str, Any], epochs: list[Epoch]) -> None:
        """Takes up a training after these epochs: timm's schedules follow from the epochs alone."""
        for epoch in epochs if self._timms is not None else ():
            self.after_epoch(epoch)
        if self._torchs is not None:
            self._torchs.load_state_dict(state["schedule"])
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # it warns where no step came before
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate


def _timms_schedule(recipe: Recipe, optimizer: optim.Optimizer) -> Any:
    settings: dict[str, Any] = dict(num_epochs=recipe.epochs, decay_rate=recipe.lr_gamma, min_lr=recipe.lr_min)
    match recipe.schedule:
        case "step":
            settings["decay_epochs"] = recipe.lr_step
        case "multistep":
            settings["decay_milestones"] = list(recipe.lr_step)  # type: ignore[arg-type]
        case "plateau":
            settings["patience_epochs"] = recipe.lr_step
    if recipe.warmup_epochs:
        settings |= dict(warmup_epochs=recipe.warmup_epochs, warmup_lr=recipe.lr / (recipe.warmup_epochs + 1))
    with warnings.catch_warnings():  # "plateau" may go from timm one day; `check_recipe` would say so
        warnings.simplefilter("ignore", FutureWarning)
        schedule, _ = _SCHEDULER.create_scheduler_v2(optimizer, recipe.schedule, **settings)
    if schedule is None:
        raise ValueError(f"unknown schedule {recipe.schedule}")
    return schedule


def make_clipping(recipe: Recipe, module: nn.Module) -> Callable[[], object] | None:
    """What limits the gradients of the trainable parameters, in place; None for nothing."""
    if recipe.clip_grad is None:
        return None
    clip: Any = clip_grad_norm_ if recipe.clip_mode == "norm" else clip_grad_value_
    return partial(clip, trainable(module), recipe.clip_grad)


# Losses, of logits float [B, C, ...] and targets [B, ...], whole numbers, C or more for what is of no class


def make_loss(recipe: Recipe, task: Task, device: torch.device) -> LossFunction:
    """The recipe's loss, a scalar of logits and targets; called with `smoothing=0.0` it is the loss of validation."""
    if isinstance(recipe.loss, Loss):
        function = recipe.loss.function
        if isinstance(function, nn.Module):
            function = deepcopy(function).to(device)
        return lambda logits, targets, smoothing=0.0: function(logits, _with_ignored(logits, targets))
    name = recipe.loss if isinstance(recipe.loss, str) else task.loss
    return partial(_LOSSES[name], smoothing=recipe.label_smoothing)


def is_mean(recipe: Recipe, task: Task) -> bool:
    """Whether the loss of a batch is the mean of those of its images, so that it can be computed in parts."""
    return not isinstance(recipe.loss, Loss) and (task.name, recipe.loss or task.loss) != (
        "segmentation",
        "cross_entropy",
    )


def _with_ignored(logits: Tensor, targets: Tensor) -> Tensor:
    """Targets as PyTorch's losses take them: int64, -100 for what is of no class."""
    targets = targets.long()
    return targets if targets.ndim == 1 else targets.masked_fill(targets >= logits.shape[1], IGNORED)


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    targets = _with_ignored(logits, targets)
    # Not reduction="sum", of which CUDA has no deterministic kernel for maps.
    total = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none").sum()
    return total / (targets != IGNORED).sum().clamp(min=1)  # pixels of no class alone have no loss, and no NaN


def _one_hot(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Targets like the logits: 1 for the class, 0 for others, and 0 for all where there is no class."""
    classes = logits.shape[1]
    numbers = torch.arange(classes, device=targets.device, dtype=targets.dtype).view(1, -1, *[1] * (targets.ndim - 1))
    hot = (targets[:, None] == numbers).to(logits.dtype)
    return hot * (1 - smoothing) + hot.sum(1, keepdim=True) * (smoothing / classes) if smoothing else hot


def _bce(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, _one_hot(logits, targets, smoothing))


def _focal(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return sigmoid_focal_loss(logits, _one_hot(logits, targets, smoothing), reduction="mean")


_LOSSES: dict[str, LossFunction] = {"cross_entropy": _cross_entropy, "bce": _bce, "focal": _focal}


# Checks before anything is trained


def check_recipe(recipe: Recipe, task: Task, classes: int, *, graphs: bool = False) -> None:
    """Makes the optimizer, the schedule and the loss of a recipe once, for a network of two numbers.

    Args:
        graphs: whether its steps are to be replayed as CUDA graphs.

    Raises:
        InputError: something that the installed timm does not have, that cannot be made, or that is no loss.
    """
    known, name = _OPTIM.list_optimizers(), recipe.optimizer
    base = name.lower().removeprefix("lookahead_")
    if base not in known:
        raise InputError("recipe", f"has optimizer={name!r:.40}, which timm does not have", _among(base, known))
    own = name in ("sgd", "adam")  # the recipe itself has checked their momentum
    if recipe.momentum is not None and not own and not _OPTIM.get_optimizer_info(base).has_momentum:
        problem = f"has momentum={recipe.momentum:g} for {name}, which has none"
        raise InputError("recipe", problem, "leave it out")
    module = nn.Linear(1, 1)
    try:
        optimizer = make_optimizer(recipe, module)
    except Exception as error:  # an optimizer may need a package or a device, and raise anything
        problem = f"has optimizer={name!r}, which cannot be made ({_on_one_line(error)})"
        raise InputError("recipe", problem, "choose another, or install what it needs") from error
    try:
        Rates(recipe, optimizer, steps=100, primary=task.primary)
    except Exception as error:
        problem = f"has schedule={recipe.schedule!r}, which timm {version('timm')} does not make"
        hint = "choose another schedule, or other epochs for it"
        raise InputError("recipe", f"{problem} ({_on_one_line(error)})", hint) from error
    if isinstance(recipe.loss, Loss):
        _check_loss(recipe.loss, task, classes)
    if graphs:
        _check_graphs(recipe)


def _among(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=4) or ["adamw", "lamb", "sgd"]
    return f"choose one of timm.optim.list_optimizers(), such as {', '.join(close)}"


def _check_loss(loss: Loss, task: Task, classes: int) -> None:
    """Calls a loss of the user's own once; raises InputError where it is none."""
    name, shape = loss.name.partition(" ")[0], (2,) if task.name == "classification" else (2, 32, 32)
    where, hint = f"loss {name}", "see what it is called with in cvhw4.Loss"
    if isinstance(loss.function, nn.Module) and any(p.requires_grad for p in loss.function.parameters()):
        raise InputError(where, "has parameters, which no optimizer trains", "let none of them require a gradient")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, *shape[1:], generator=generator).requires_grad_()
    targets = torch.randint(classes, shape, generator=generator)
    if len(shape) > 1:
        targets[:, :, :4] = IGNORED
    with torch.random.fork_rng(devices=[]):
        try:
            value = loss.function(logits, targets)
        except Exception as error:
            raise InputError(where, f"raises {type(error).__name__}: {_on_one_line(error)}", hint) from error
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.40}"
        raise InputError(where, f"returns {shown}", "let it return a scalar tensor")
    if not bool(value.isfinite()):
        raise InputError(where, f"returns {value.item()}", "let it return a finite number; -100 is no class")
    if not value.requires_grad:
        raise InputError(where, "does not depend on the logits", "compute it with PyTorch's operations, without detach")


def _check_graphs(recipe: Recipe) -> None:
    """Refuses what a CUDA graph cannot replay; raises InputError."""
    reasons = {
        f"optimizer={recipe.optimizer!r}, which counts its steps on the host": recipe.optimizer.startswith("lookahead_")
        or _optimizer_class(recipe.optimizer) not in _CAPTURABLE,
        "schedule='onecycle', whose learning rate changes at every step": recipe.schedule == "onecycle",
        "a loss of your own, whose Python code would run once alone": isinstance(recipe.loss, Loss),
    }
    for problem, there in reasons.items():
        if there:
            problem = f"has {problem}: a CUDA graph cannot replay it"
            raise InputError("recipe", problem, "leave out --cuda-graphs, or choose sgd, adam or adamw, by epochs")


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
