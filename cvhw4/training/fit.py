"""The training loop of every row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from cvhw4.data.augment import stream
from cvhw4.data.dataset import Dataset
from cvhw4.errors import TrainingDiverged
from cvhw4.experiments import Experiment, Precision
from cvhw4.models.build import Network, set_training_mode, trainable
from cvhw4.models.folded import find_pairs, folded
from cvhw4.models.frozen import split_frozen
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Epoch
from cvhw4.training.frozen import Call, FrozenClassification
from cvhw4.training.graphs import GraphedStep, Step
from cvhw4.training.tasks import Classification, Evaluation, Forward, Task, make_task


def plain_call(module: Forward, inputs: Tensor) -> Tensor:
    """Calls a module as it is."""
    return module(inputs)


@dataclass(frozen=True)
class History:
    """What a training was like.

    Attributes:
        epochs: loss, figures and times of each.
        by_class: per-class lists of the last epoch and, under `best_` names, of the epoch with the best primary figure.
        primary: name of the figure that comes first.
        images: training images seen in all.
        results: what was made of each validation image, epoch by epoch.
    """

    epochs: tuple[Epoch, ...]
    by_class: dict[str, list[float]]
    primary: str
    images: int
    results: ImageResults


def fit(
    experiment: Experiment,
    dataset: Dataset,
    network: Network,
    *,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    graphs: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Trains a network and evaluates it after every epoch.

    Args:
        seed: decides order, augmentation and dropout (the starting weights are in `network`).
        precision: what the network computes in; weights, their gradients, loss and optimizer are float32.
        graphs: replay the optimizer step as a CUDA graph; CUDA only.
        on_epoch: called after each epoch, for progress.

    Raises:
        TrainingDiverged: the loss is no longer finite; names epoch and learning rate.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch but the last of an epoch has one shape
    module = network.module.to(device).to(memory_format=torch.channels_last)
    call = caller(device, precision)
    learner, task = make_learner(experiment, module, make_task(experiment, dataset, network, device, seed), call)
    optimizer = make_optimizer(experiment, module, capturable=graphs)
    step = make_step(task, learner, optimizer, call)
    if graphs:
        step = GraphedStep(step, optimizer, [*module.parameters(), *module.buffers()])
    schedule = optim.lr_scheduler.StepLR(optimizer, experiment.recipe.lr_step, experiment.recipe.lr_gamma)
    torch.manual_seed(stream(seed, "dropout").initial_seed())
    ready_to_evaluate = evaluation_mode(module, experiment.recipe.size)
    epochs: list[Epoch] = []
    by_class: dict[str, list[float]] = {}
    by_image: list[NDArray] = []
    for number in range(1, experiment.recipe.epochs + 1):
        lr = float(schedule.get_last_lr()[0])
        started = time.perf_counter()
        set_training_mode(module, experiment)
        loss = train_epoch(task, step, number)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"{experiment.id}, seed {seed}: loss {loss} in epoch {number} at learning rate {lr:g}"
            )
        schedule.step()
        trained = time.perf_counter()
        with ready_to_evaluate(module):
            figures, lists, images = evaluate(task, learner, call)
        by_image.append(images)
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
    labels = dataset.val.targets if dataset.task == "classification" else None
    results = ImageResults.stack(by_image, labels)
    return History(tuple(epochs), by_class, task.primary, len(epochs) * len(dataset.train), results)


def caller(device: torch.device, precision: Precision) -> Call:
    """How networks are called: as they are, or with autocast to bfloat16; what comes out is float32 then too."""
    if precision == "float32":
        return plain_call

    def call(module: Forward, inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return module(inputs).float()

    return call


def make_learner(
    experiment: Experiment, module: nn.Module, task: Task, call: Call
) -> tuple[nn.Module, Task | FrozenClassification]:
    """What is trained, and on what: the network on pictures, or its last layer on what the rest makes of them."""
    if experiment.trained == "last layer" and isinstance(task, Classification):
        parts = split_frozen(module, experiment.recipe.size)
        if parts is not None:
            return parts.head, FrozenClassification(task, parts, call)
    return module, task


def make_step(
    task: Task | FrozenClassification, module: nn.Module, optimizer: optim.Optimizer, call: Call = plain_call
) -> Step:
    """One optimizer step: inputs and targets of a batch to its loss. The module's mode is the caller's business."""

    def step(inputs: Tensor, targets: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(call(module, inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def train_epoch(task: Task | FrozenClassification, step: Step, epoch: int) -> float:
    """One pass over the training split; the mean loss over its images. The device is waited for once, at the end."""
    total = torch.zeros((), device=task.device)
    seen = 0
    for inputs, targets in task.batches(epoch):
        total += step(inputs, targets) * len(inputs)
        seen += len(inputs)
    return float(total) / seen


def evaluation_mode(module: nn.Module, size: int) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A context in which a network is evaluated: in evaluation mode, batch norms folded into their convolutions.

    Args:
        size: side of its inputs, in pixels.
    """
    mode, device = module.training, next(module.parameters()).device
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    pairs = find_pairs(module.eval(), inputs.contiguous(memory_format=torch.channels_last))
    module.train(mode)

    @contextmanager
    def ready(module: nn.Module) -> Iterator[None]:
        module.eval()
        with folded(pairs):
            yield

    return ready


def evaluate(task: Task | FrozenClassification, module: nn.Module, call: Call = plain_call) -> Evaluation:
    """The figures on the validation split, without gradients. The module's mode is the caller's business."""
    with torch.inference_mode():
        return task.evaluate(lambda inputs: call(module, inputs))


def make_optimizer(experiment: Experiment, module: nn.Module, *, capturable: bool = False) -> optim.Optimizer:
    """The recipe's optimizer over the trainable parameters.

    Args:
        capturable: whether its steps are to be recorded as CUDA graphs.

    Raises:
        ValueError: an optimizer the recipe does not know.
    """
    recipe = experiment.recipe
    parameters = trainable(module)
    settings: dict[str, Any] = dict(lr=recipe.lr, fused=True)
    match recipe.optimizer:
        case "sgd":
            return optim.SGD(parameters, momentum=recipe.momentum, **settings)
        case "adam":
            return optim.Adam(parameters, capturable=capturable, **settings)
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}: use sgd or adam")
