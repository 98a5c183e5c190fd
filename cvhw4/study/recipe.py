"""How a row is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from cvhw4.errors import InputError
from cvhw4.study.checks import choose, is_number, is_whole, require
from cvhw4.study.functions import Loss

Schedule = Literal[
    "step", "cosine", "tanh", "multistep", "poly", "constant", "wsd", "rsqrt", "plateau", "onecycle"
]  # of the learning rate; the order is that of messages
BY_EPOCHS_SO_FAR = ("step", "multistep", "constant", "plateau")  # the first 20 of 50 epochs are a run of 20
Precision = Literal["float32", "bf16"]  # what networks compute in; weights and optimizer are always float32
_FIRST_SETTINGS = ("size", "batch", "epochs", "optimizer", "lr", "momentum", "lr_step", "lr_gamma")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a row is trained. The report's recipes, of Q1, of its row q1_8 and of Q2, are in `cvhw4.homework.rows`.

    Attributes:
        size: side of the square that the network sees, in pixels, 32 or more; for FCN8s a multiple of 32.
        batch: images per optimizer step, 1 or more. The last batch of an epoch may be smaller.
        epochs: passes over the training split, 1 or more; the network is evaluated after each.
        optimizer: "sgd" (plain momentum) or "adam" (Kingma and Ba 2015), both PyTorch's; or any other name of
            `timm.optim.list_optimizers()` ("adamw", "lamb", "muon", "lookahead_radam"; "nesterov" is SGD with
            Nesterov's momentum).
        lr: learning rate, above 0, the highest of its schedule.
        momentum: from 0 to below 1; None leaves it to the optimizer: 0 for "sgd", else timm's choice. "adam" has none.
        lr_step: "step" multiplies the learning rate with `lr_gamma` every so many epochs, "multistep" from each of
            these on (a tuple, rising, from 1), "plateau" after more than so many without a better primary metric.
            Other schedules do without.
        lr_gamma: that factor, above 0; the power of "poly". Other schedules do without.
        weight_decay: 0 or more, as the optimizer means it; not of biases and other parameters of one dimension, as in
            timm.
        schedule: by epochs as `timm.scheduler.create_scheduler_v2` makes them "step", "cosine" (Loshchilov and Hutter
            2017, without restarts), "tanh", "multistep", "poly", "constant", "plateau", "wsd" and "rsqrt" (which fall
            over the last fifth of the epochs; the latter needs a warm-up); by steps PyTorch's "onecycle" (Smith and
            Topin 2018), momentum as it is.
        lr_min: where "cosine", "tanh", "poly", "wsd", "rsqrt" and "plateau" end, 0 to `lr`. Others do without.
        warmup_epochs: the first epochs of the schedule, fewer than `epochs`, in which the learning rate rises in equal
            parts: with 2 of them, a third and two thirds of `lr`. With "onecycle" how long it rises; 0 for PyTorch's
            0.3 of the epochs.
        loss: "cross_entropy" (default of classification), "bce" (binary, class by class, mean over pixels and classes;
            default of segmentation, as in the report) or "focal" (Lin et al. 2017; torchvision's `sigmoid_focal_loss`
            with alpha 0.25 and gamma 2); or a function, or a `Loss`. A pixel of no class is left out of
            "cross_entropy", and a negative of every class for the others.
        label_smoothing: share of each target, from 0 to below 1, that is spread over all classes (Szegedy et al. 2016),
            in training and not in validation. Not with a loss of your own.
        clip_grad: the largest Euclidean norm of all gradients together, above 0 (Pascanu et al. 2013); None for no
            limit.
        clip_mode: "norm"; or "value", where `clip_grad` is the largest absolute value in a gradient.

    Raises:
        InputError: a value that no training can follow. Names of timm, and whether it makes such a schedule, are
            checked before the first run.
    """

    size: int = 224
    batch: int = 16
    epochs: int = 10
    optimizer: str = "adam"
    lr: float = 5e-4
    momentum: float | None = None
    lr_step: int | tuple[int, ...] = 8
    lr_gamma: float = 0.1
    weight_decay: float = 0.0
    schedule: Schedule = "step"
    lr_min: float = 0.0
    warmup_epochs: int = 0
    loss: str | Loss | Callable[..., Any] | None = None
    label_smoothing: float = 0.0
    clip_grad: float | None = None
    clip_mode: Literal["norm", "value"] = "norm"

    def __post_init__(self) -> None:
        if isinstance(self.lr_step, list):
            object.__setattr__(self, "lr_step", tuple(self.lr_step))
        if callable(self.loss):
            object.__setattr__(self, "loss", Loss(self.loss))
        choose("recipe", "schedule", self.schedule, Schedule)  # first: what lr_step has to be depends on it
        multistep, named = self.schedule == "multistep", isinstance(self.optimizer, str) and self.optimizer != ""
        rate, share = "give a number above 0", "give a number from 0 to below 1"
        steps = self.lr_step
        rises = isinstance(steps, tuple) and [*steps] == sorted({e for e in steps if type(e) is int and e > 0}) != []
        step = "the epochs in rising order, as lr_step=(30, 60)" if multistep else "a whole number, 1 or more"
        numbers = {name: is_number(getattr(self, name)) for name in ("lr", "lr_gamma", "weight_decay", "lr_min")}
        required = [
            ("optimizer", named, 'name one, as in optimizer="adamw"'),
            ("lr", numbers["lr"] and self.lr > 0, "give a learning rate above 0"),
            ("momentum", self.momentum is None or _is_share(self.momentum), share),
            ("lr_gamma", numbers["lr_gamma"] and self.lr_gamma > 0, rate),
            ("weight_decay", numbers["weight_decay"] and self.weight_decay >= 0, "give a number, 0 or more"),
            ("lr_min", all(numbers.values()) and 0 <= self.lr_min <= self.lr, "give a learning rate from 0 to lr"),
            ("loss", self.loss is None or isinstance(self.loss, str | Loss), "name one, or give a function"),
            ("label_smoothing", _is_share(self.label_smoothing), share),
            ("clip_grad", self.clip_grad is None or (is_number(self.clip_grad) and self.clip_grad > 0), rate),
            ("lr_step", rises if multistep else is_whole(steps, 1), f"give {step}"),
        ]
        for name, least in {"size": 32, "batch": 1, "epochs": 1, "warmup_epochs": 0}.items():
            required.append((name, is_whole(getattr(self, name), least), f"give a whole number, {least} or more"))
        require("recipe", self, required)
        choose("recipe", "clip_mode", self.clip_mode, ["norm", "value"])
        if self.warmup_epochs >= self.epochs:
            problem = f"has warmup_epochs={self.warmup_epochs} of {self.epochs} epochs"
            raise InputError("recipe", problem, "leave at least one epoch after the warm-up")
        if self.optimizer == "adam" and self.momentum:
            raise InputError("recipe", f"has momentum={self.momentum:g} for adam, which has none", "leave it out")
        if isinstance(self.loss, Loss):
            if not callable(self.loss.function) or not isinstance(self.loss.version, str):
                raise InputError("recipe", f"has loss={self.loss!r:.60}", "give Loss(function, version=text)")
            if self.label_smoothing:
                problem = "has label_smoothing and a loss of your own"
                raise InputError("recipe", problem, "smooth in the loss, and leave label_smoothing out")

    def settings(self) -> dict[str, Any]:
        """All that changes what is trained, as plain JSON values; what was added later only where it is in use."""
        every = [(f, getattr(self, f.name)) for f in fields(self)]
        values = {f.name: value for f, value in every if f.name in _FIRST_SETTINGS or value != f.default}
        if self.momentum is None and self.optimizer in ("sgd", "adam"):
            values["momentum"] = 0.0
        if isinstance(self.loss, Loss):
            values["loss"] = self.loss.name
        if isinstance(self.lr_step, tuple):
            values["lr_step"] = list(self.lr_step)
        return values


def _is_share(value: object) -> bool:
    """Whether it is a number from 0 to below 1."""
    return is_number(value) and 0 <= value < 1
