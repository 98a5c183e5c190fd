"""The training loop of every row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, optim

from cvhw4.data.augment import stream
from cvhw4.data.dataset import Dataset
from cvhw4.experiments import Experiment
from cvhw4.models.build import Network, set_training_mode, trainable
from cvhw4.records.schema import Epoch
from cvhw4.training.tasks import Task, make_task


class TrainingDiverged(Exception):
    """The loss became infinite or NaN."""


@dataclass(frozen=True)
class History:
    """What a training was like.

    Attributes:
        epochs: loss, figures and times of each.
        by_class: per-class lists of the last epoch and, under `best_` names, of the epoch with the best primary figure.
        primary: name of the figure that comes first.
        images: training images seen in all.
    """

    epochs: tuple[Epoch, ...]
    by_class: dict[str, list[float]]
    primary: str
    images: int


def fit(
    experiment: Experiment,
    dataset: Dataset,
    network: Network,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Trains a network and evaluates it after every epoch.

    Args:
        seed: decides order, augmentation and dropout (the starting weights are in `network`).
        on_epoch: called after each epoch, for progress.

    Raises:
        TrainingDiverged: the loss is no longer finite; names epoch and learning rate.
    """
    module = network.module.to(device).to(memory_format=torch.channels_last)
    task = make_task(experiment, dataset, network, device, seed)
    optimizer = make_optimizer(experiment, module)
    schedule = optim.lr_scheduler.StepLR(optimizer, experiment.recipe.lr_step, experiment.recipe.lr_gamma)
    torch.manual_seed(stream(seed, "dropout").initial_seed())
    epochs: list[Epoch] = []
    by_class: dict[str, list[float]] = {}
    for number in range(1, experiment.recipe.epochs + 1):
        lr = float(schedule.get_last_lr()[0])
        started = time.perf_counter()
        set_training_mode(module, experiment)
        loss = train_epoch(task, module, optimizer, number)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"{experiment.id}, seed {seed}: loss {loss} in epoch {number} at learning rate {lr:g}"
            )
        schedule.step()
        trained = time.perf_counter()
        figures, lists = evaluate(task, module)
        evaluated = time.perf_counter()
        best_so_far = all(figures[task.primary] > e.figures[task.primary] for e in epochs)
        by_class = {k: v for k, v in by_class.items() if k.startswith("best_")} | lists
        if best_so_far:
            by_class |= {f"best_{k}": v for k, v in lists.items()}
        epochs.append(
            Epoch(
                epoch=number,
                lr=lr,
                loss=loss,
                figures=figures,
                train_seconds=trained - started,
                evaluate_seconds=evaluated - trained,
            )
        )
        if on_epoch is not None:
            on_epoch(epochs[-1])
    return History(tuple(epochs), by_class, task.primary, len(epochs) * len(dataset.train))


def train_epoch(task: Task, module: nn.Module, optimizer: optim.Optimizer, epoch: int) -> float:
    """One pass over the training split; the mean loss over its images. The module's mode is the caller's business."""
    total = torch.zeros((), device=task.device)
    seen = 0
    for inputs, targets in task.batches(epoch):
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(module(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(inputs)
        seen += len(inputs)
    return float(total) / seen


def evaluate(task: Task, module: nn.Module) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The figures on the validation split, in evaluation mode and without gradients."""
    module.eval()
    with torch.inference_mode():
        return task.evaluate(module)


def make_optimizer(experiment: Experiment, module: nn.Module) -> optim.Optimizer:
    """The recipe's optimizer over the trainable parameters.

    Raises:
        ValueError: an optimizer the recipe does not know.
    """
    recipe = experiment.recipe
    settings: dict[str, Any] = dict(lr=recipe.lr, fused=True)
    match recipe.optimizer:
        case "sgd":
            return optim.SGD(trainable(module), momentum=recipe.momentum, **settings)
        case "adam":
            return optim.Adam(trainable(module), **settings)
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}: use sgd or adam")
