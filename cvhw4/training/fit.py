"""The training loop of every row."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from cvhw4.data.augment import stream
from cvhw4.data.dataset import Dataset
from cvhw4.errors import InputError, OutOfMemory, TrainingDiverged
from cvhw4.models.build import Network, channels_last, set_training_mode, trainable
from cvhw4.models.convolutions import fast_convolutions
from cvhw4.models.folded import Pair, find_pairs, folded
from cvhw4.models.frozen import split_frozen
from cvhw4.models.names import first_line
from cvhw4.models.pooling import make_deterministic
from cvhw4.records.images import ImageResults
from cvhw4.records.samples import PredictionSamples
from cvhw4.records.schema import Epoch
from cvhw4.study import Precision, Row
from cvhw4.tasks import TASKS
from cvhw4.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    EpochPosition,
    Generators,
    fits,
    generator_states,
    restore,
    set_generator_states,
    state_of,
)
from cvhw4.training.frozen import Call, FrozenClassification
from cvhw4.training.graphs import GraphedStep, Step
from cvhw4.training.memory import AccumulatedStep, MayRunOut, in_parts, is_out_of_memory
from cvhw4.training.objectives import ClassificationObjective, Evaluation, Forward, Objective, make_objective, upload
from cvhw4.training.recipe import Rates, is_mean, make_clipping, make_optimizer
from cvhw4.training.samples import SampleRecorder


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
        samples: what was made of the validation pictures in the end, of no run yet.
        parts: in how many parts a batch had to be computed for the device's memory.
        interruptions: how often it was broken off and continued.
        earlier_seconds: wall time of what was done before the last interruption, up to the checkpoint.
    """

    epochs: tuple[Epoch, ...]
    by_class: dict[str, list[float]]
    primary: str
    images: int
    results: ImageResults
    samples: PredictionSamples
    parts: int = 1
    interruptions: int = 0
    earlier_seconds: float = 0.0


def fit(
    row: Row,
    dataset: Dataset,
    network: Network,
    *,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    graphs: bool = False,
    deterministic: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoints: Checkpoints | None = None,
    scores: bool = False,
    epochs: int | None = None,
) -> History:
    """Trains a network and evaluates it after every epoch.

    Args:
        seed: decides order, augmentation and dropout (the starting weights are in `network`).
        precision: what the network computes in; weights, their gradients, loss and optimizer are float32.
        graphs: replay the optimizer step as a CUDA graph; CUDA only.
        deterministic: on CUDA, only kernels that give the same bits each time; a CPU has no others.
        on_epoch: called after each epoch, for progress.
        checkpoints: where to keep what an interrupted training goes on from; None keeps nothing.
        scores: whether the results are to have the probabilities of every epoch.
        epochs: after how many it stops, without a further change; None: the recipe's.

    Raises:
        TrainingDiverged: the loss is no longer finite; names epoch, step, learning rate and the last checkpoint.
        OutOfMemory: the device's memory holds no step, not in parts either; the network is on the CPU then, and nothing
            of the training on the device.
    """
    with kernels(device, deterministic):
        if deterministic and device.type == "cuda":
            make_deterministic(network.module)
        where = 0, 0, row.recipe.lr
        try:
            run = _Run(row, dataset, network, seed, device, precision, graphs, checkpoints, scores, epochs)
            try:
                return run.finish(on_epoch)
            finally:
                where = run.number, run.place.taken + 1, run.rates.now
                del run
        except (RuntimeError, OutOfMemory) as error:
            if deterministic and "does not have a deterministic implementation" in str(error):
                problem = f"has an operation without a deterministic kernel ({first_line(error)})"
                raise InputError(f"--deterministic, {row.name}", problem, "leave --deterministic out") from error
            if not is_out_of_memory(error):
                raise
            problem = f"{row.name}, seed {seed}: {str(error).partition('. Of the allocated')[0]}"
            if not isinstance(error, OutOfMemory):
                problem += ". Free memory on the device"
            traceback.clear_frames(error.__traceback__)  # they hold tensors
    network.module.zero_grad(set_to_none=True)
    network.module.to("cpu")
    raise OutOfMemory(problem, *where)


class _Run:
    """A training and where it stands."""

    def __init__(
        self,
        row: Row,
        dataset: Dataset,
        network: Network,
        seed: int,
        device: torch.device,
        precision: Precision,
        graphs: bool,
        checkpoints: Checkpoints | None,
        scores: bool,
        epochs: int | None,
    ) -> None:
        self.last_epoch = min(row.recipe.epochs, epochs or row.recipe.epochs)
        self.row, self.dataset, self.seed, self.device = row, dataset, seed, device
        self.checkpoints, self.scores = checkpoints, scores
        self.began = time.perf_counter()
        self.module = channels_last(network.module.to(device))
        self.call = caller(device, precision)
        objective = make_objective(row, dataset, network, device, seed)
        self.learner, self.objective = make_learner(row, self.module, objective, self.call)
        self.optimizer = make_optimizer(row.recipe, self.module, capturable=graphs)
        self.accumulated = make_step(
            self.objective,
            self.learner,
            self.optimizer,
            self.call,
            make_clipping(row.recipe, self.module),
            parts=is_mean(row.recipe, TASKS[dataset.task]),
        )
        self.step: Step = self.accumulated
        if graphs:
            state = [*self.module.parameters(), *self.module.buffers()]
            graphed = GraphedStep(self.step, self.optimizer, state, row.recipe.batch, self.accumulated.once)
            self.objective.give_up.append(graphed.give_up)
            self.step = graphed
        self.rates = Rates(row.recipe, self.optimizer, self.objective.steps, self.objective.primary)
        torch.manual_seed(stream(seed, "dropout").initial_seed())
        self.recorder = SampleRecorder(dataset, self.module, row.recipe.size)
        self.ready_to_evaluate = evaluation_mode(self.module, row.recipe.size)
        self.lr = self.rates.now  # of the epoch's first step
        self.number, self.place, self.seconds = 1, start(self.objective), 0.0  # seconds: the epoch's training so far
        self.epochs: list[Epoch] = []
        self.by_class: dict[str, list[float]] = {}
        self.by_image: list[NDArray] = []
        self.scored: list[NDArray] = []  # the scores of the epochs, where they are wanted
        self.interruptions, self.earlier = 0, 0.0
        self.generators: Generators = {}  # as they were at the checkpoint that it goes on from

    def finish(self, on_epoch: Callable[[Epoch], None] | None) -> History:
        """Trains what is left to train."""
        self.resume()
        while self.number <= self.last_epoch:
            self.epochs.append(self.one_epoch())
            self.rates.after_epoch(self.epochs[-1])
            if on_epoch is not None:
                on_epoch(self.epochs[-1])
            self.number, self.place, self.seconds = self.number + 1, start(self.objective), 0.0
            if self.number <= self.last_epoch:
                self.save_checkpoint(epoch_ends=True)
        labels = self.dataset.val.targets if self.dataset.task == "classification" else None
        targets = self.objective.targets if isinstance(self.objective, Objective) else None
        return History(
            tuple(self.epochs),
            self.by_class,
            self.objective.primary,
            len(self.epochs) * self.objective.images,
            ImageResults.stack(self.by_image, labels, self.scored, targets),
            self.recorder.samples(),
            self.accumulated.parts,
            self.interruptions,
            self.earlier,
        )

    def one_epoch(self) -> Epoch:
        """Trains the rest of an epoch and evaluates."""
        started, before = time.perf_counter(), self.seconds
        if self.place.taken == 0:
            self.lr = self.rates.now
        set_training_mode(self.module, self.row)

        def after_step() -> None:
            self.rates.after_step()
            if self.checkpoints is not None and self.checkpoints.due():
                self.seconds = before + time.perf_counter() - started
                self.check()
                self.save_checkpoint()

        with fast_convolutions(self.module):
            train_epoch(self.objective, self.step, self.number, self.place, self.generators, after_step)
        loss = self.check(weights=True)
        trained = time.perf_counter()
        # A frozen network's features are computed once, in the first evaluation.
        shown = self.number == self.last_epoch or isinstance(self.objective, FrozenClassification)
        with self.ready_to_evaluate(self.module), self.recorder.looking() if shown else nullcontext():
            figures, lists, images, scores = evaluate(
                self.objective, self.learner, self.call, self.recorder.observe if shown else None
            )
        self.by_image.append(images)
        if self.scores and scores is not None:
            self.scored.append(scores)
        evaluated = time.perf_counter()
        best_so_far = all(figures[self.objective.primary] > e.figures[self.objective.primary] for e in self.epochs)
        self.by_class = {k: v for k, v in self.by_class.items() if k.startswith("best_")} | lists
        if best_so_far:
            self.by_class |= {f"best_{k}": v for k, v in lists.items()}
        return Epoch(
            epoch=self.number,
            lr=self.lr,
            loss=loss,
            figures=figures,
            train_seconds=before + trained - started,
            evaluate_seconds=evaluated - trained,
        )

    def check(self, *, weights: bool = False) -> float:
        """The mean loss over the epoch's images so far; waits for the device.

        Args:
            weights: look at them as well: after the last step no further loss tells.

        Raises:
            TrainingDiverged: a step's loss, or a weight, is not finite.
        """
        losses = self.place.losses[: self.place.taken].cpu().numpy()
        wrong, what = np.flatnonzero(~np.isfinite(losses)), "loss"
        if weights and not len(wrong):
            norms = torch._foreach_norm(trainable(self.module))
            if not bool(torch.stack(norms).isfinite().all()):
                wrong, what = np.array([len(losses) - 1]), "weights not finite, loss"
        if len(wrong):
            step, written = int(wrong[0]) + 1, self.checkpoints and self.checkpoints.written
            where = f"epoch {written[0]}, after {written[1]} steps" if written else "none"
            raise TrainingDiverged(
                f"{self.row.name}, seed {self.seed}: {what} {losses[wrong[0]]} at step {step} of"
                f" {len(self.place.losses)} in epoch {self.number}, learning rate {self.rates.now:g}; last good"
                f" checkpoint: {where}",
                self.number,
                step,
                self.rates.now,
            )
        batch, images = self.row.recipe.batch, len(self.dataset.train)
        sizes = np.minimum(batch, images - batch * np.arange(len(losses))).astype(np.float32)
        return float(np.add.accumulate(losses * sizes)[-1]) / float(sizes.sum())

    # Interruption

    def save_checkpoint(self, *, epoch_ends: bool = False) -> None:
        """Writes a checkpoint if it is time for one."""
        if self.checkpoints is None or not self.checkpoints.due(epoch_ends=epoch_ends):
            return
        place = self.place
        tensors, of_optimizer = state_of(self.module, self.optimizer)
        tensors["losses"] = place.losses.cpu()
        tensors |= {f"now.{k}": v for k, v in generator_states(self.device).items()}
        if place.augmentation is not None:
            tensors["augmentation"] = place.augmentation
            tensors |= {f"block.{k}": v for k, v in place.generators.items()}
        tensors |= {f"images.{n}": torch.from_numpy(images) for n, images in enumerate(self.by_image)}
        tensors |= {f"scores.{n}": torch.from_numpy(scores) for n, scores in enumerate(self.scored)}
        values = {
            "epoch": self.number,
            **{name: getattr(place, name) for name in ("taken", "block", "steps")},
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "by_class": self.by_class,
            "lr": self.lr,
            "optimizer": of_optimizer,
            **self.rates.state(),
            "parts": self.accumulated.parts,
            "seconds": self.seconds,
            "interruptions": self.interruptions,
            "earlier": self.earlier + time.perf_counter() - self.began,
        }
        self.checkpoints.write(Checkpoint(tensors, values))

    def resume(self) -> None:
        """Takes up a training where its checkpoint left it, if there is one."""
        found = self.checkpoints.read() if self.checkpoints is not None else None
        if found is None:
            return
        values, tensors = found.values, found.tensors
        if not fits(self.module, found):
            assert self.checkpoints is not None
            hint = "give the row another version= where what its callable builds changes, or delete the file"
            raise InputError(self.checkpoints.path, "is the checkpoint of another network", hint)
        restore(self.module, self.optimizer, found)
        self.number, self.seconds = values["epoch"], values["seconds"]
        self.place = EpochPosition(
            tensors["losses"].to(self.device),
            **{name: values[name] for name in ("taken", "block", "steps")},
            augmentation=tensors.get("augmentation"),
            generators=found.part("block"),
        )
        self.generators = found.part("now")
        self.epochs = [Epoch(**epoch) for epoch in values["epochs"]]
        self.by_class = values["by_class"]
        self.by_image = [tensors[f"images.{n}"].numpy() for n in range(len(self.epochs))]
        if self.scores:
            self.scored = [tensors[f"scores.{n}"].numpy() for n in range(len(self.epochs))]
        set_generator_states(self.generators, self.device)
        self.rates.restore(values, self.epochs)
        self.lr = values["lr"]
        self.accumulated.parts = values["parts"]
        self.interruptions, self.earlier = values["interruptions"] + 1, values["earlier"]


@contextmanager
def kernels(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Which kernels CUDA runs: those that give the same bits each time, or the fastest of their shapes.

    Raises, within it:
        RuntimeError: an operation that CUDA has no deterministic kernel for.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the process's first product
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic  # every batch but the last of an epoch has one shape
    try:
        with torch.cuda.device(device):  # whose streams and random state those of a graph are
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def caller(device: torch.device, precision: Precision) -> Call:
    """How networks are called: as they are, or with autocast to bfloat16; what comes out is float32 then too."""
    if precision == "float32":
        return plain_call

    def call(module: Forward, inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return module(inputs).float()

    return call


def make_learner(
    row: Row, module: nn.Module, objective: Objective, call: Call
) -> tuple[nn.Module, Objective | FrozenClassification]:
    """What is trained, and on what: the network on pictures, or its last layer on what the rest makes of them."""
    if row.trained == "last layer" and isinstance(objective, ClassificationObjective):
        parts = split_frozen(module, row)
        if parts is not None:
            return parts.head, FrozenClassification(objective, parts, call)
    return module, objective


def make_step(
    objective: Objective | FrozenClassification,
    module: nn.Module,
    optimizer: optim.Optimizer,
    call: Call = plain_call,
    clip: Callable[[], object] | None = None,
    *,
    parts: bool = True,
) -> AccumulatedStep:
    """One optimizer step: inputs and targets of a batch to its loss. The module's mode is the caller's business.

    Args:
        clip: limits the gradients.
        parts: whether a batch's loss is the mean of its images'.
    """
    release = objective.release
    return AccumulatedStep(
        lambda inputs: call(module, inputs), objective.loss, module, optimizer, clip, in_parts=parts, release=release
    )


def train_epoch(
    objective: Objective | FrozenClassification,
    step: Step,
    epoch: int,
    place: EpochPosition | None = None,
    generators: Generators | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """One pass over the training split, or what is left of it; the device is not waited for.

    Args:
        place: where in the epoch to begin; kept up to date.
        generators: where that is within a block, the states of the process's generators there.
        after_step: called after every step.

    Returns:
        float32 [steps], the loss of every step, on the device.
    """
    place = place or start(objective)
    augmentation = objective.generator(epoch)
    if place.augmentation is not None:
        augmentation.set_state(place.augmentation)
    for index in objective.blocks(epoch)[place.block :]:
        done = place.steps
        if done:
            set_generator_states(place.generators, objective.device)
        else:
            place.augmentation, place.generators = augmentation.get_state(), generator_states(objective.device)
        batches = objective.block(index, augmentation)
        if done:
            deque(islice(batches, done), maxlen=0)
            set_generator_states(generators or {}, objective.device)
        for inputs, targets in batches:
            place.losses[place.taken] = step(inputs, targets)
            place.taken += 1
            place.steps += 1
            after_step()
        place.block, place.steps = place.block + 1, 0
    return place.losses


def start(objective: Objective | FrozenClassification) -> EpochPosition:
    """The beginning of an epoch."""
    return EpochPosition(torch.zeros(objective.steps, device=objective.device))


def evaluation_mode(module: nn.Module, size: int) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A context in which a network is evaluated: in evaluation mode, batch norms folded into their convolutions, unless
    memory does not hold weights twice.

    Args:
        size: side of its inputs, in pixels.
    """
    mode, device = module.training, next(module.parameters()).device
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    pairs: list[Pair] = []
    with MayRunOut():
        pairs = find_pairs(module.eval(), inputs.contiguous(memory_format=torch.channels_last))
    module.train(mode)

    @contextmanager
    def ready(module: nn.Module) -> Iterator[None]:
        module.eval()
        with ExitStack() as stack:
            with MayRunOut():
                stack.enter_context(folded(pairs))
            yield

    return ready


def evaluate(
    objective: Objective | FrozenClassification,
    module: nn.Module,
    call: Call = plain_call,
    observe: Callable[[Tensor], None] | None = None,
) -> Evaluation:
    """The figures on the validation split, without gradients. The module's mode is the caller's business.

    Args:
        observe: is shown the logits of every batch.
    """

    def forward(inputs: Tensor) -> Tensor:
        logits = in_parts(lambda x: call(module, upload(x, objective.device)), inputs, objective.release)
        if observe is not None:
            observe(logits)
        return logits

    with torch.inference_mode():
        return objective.evaluate(forward)
