"""From a row and a seed to its record: plan, train, record."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cvhw4.errors import InputError, TrainingFailed
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.records.store import Store
from cvhw4.study import Row, Study
from cvhw4.training.process import prepare_process, release_memory

if TYPE_CHECKING:
    import torch

    from cvhw4.data.dataset import Dataset
    from cvhw4.models.weights import Source
    from cvhw4.records.images import ImageResults
    from cvhw4.records.samples import PredictionSamples
    from cvhw4.training.checkpoint import Checkpoints
    from cvhw4.training.precision import Choice


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How the rows of a study are run: which weights and device, and where the records go.

    Importing this module and making a `Runner` loads neither torch nor pictures; that happens with the first `run`.

    Attributes:
        study: whose rows are run.
        device: "auto" takes CUDA where there is one.
        precision: what networks compute in; None by the rule of `cvhw4.training.precision.pick_precision`, "auto" on a
            CPU by timing (`choose_precision` there).
        cuda_graphs: on CUDA, replay optimizer steps as CUDA graphs.
        weights: folder to look for pretrained weights in first.
        results: where records and tables go.
        reuse: take a finished run with the same fingerprint from disk instead of training, and resume an unfinished one
            where it was broken off.
        deterministic: on CUDA, only kernels that give the same bits each time. A CPU has no others.
        checkpoint_seconds: an unfinished run is kept on disk after every epoch and every so many seconds; 0 keeps none.
            None: every 60 seconds, and so seldom that writing takes at most a hundredth of the time.
        threads: that torch computes with on a CPU; None leaves it to torch.
        worker: number of this process among those that share the machine: they take its GPUs in turn.
    """

    study: Study
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bf16"] | None = None
    cuda_graphs: bool = False
    weights: Path | None = None
    results: Path = Path("results")
    reuse: bool = False
    deterministic: bool = False
    checkpoint_seconds: float | None = None
    threads: int | None = None
    worker: int = 0

    @property
    def store(self) -> Store:
        """The records of the study."""
        return Store(self.results, self.study.name)

    def check(self) -> None:
        """Checks all that the user gave, before anything is trained (`cvhw4.preflight`).

        Raises:
            InputError: an unusable folder, file, option or part of the study.
        """
        from cvhw4.preflight import check_options, check_study

        check_options(self)
        check_study(self)

    def data(self, task: str) -> Dataset:
        """The data set of the rows of a task, decoded and checked.

        Raises:
            InputError: a folder that cannot be used.
            DataUnavailable: the user has to name the data.
        """
        from cvhw4.data.load import load

        return load(self.study.sources[task])

    def prepare(self, row: Row, seed: int) -> None:
        """Does all that comes before a run: decodes and checks its data, finds its weights, loads torch.

        Raises:
            InputError, DataUnavailable, WeightsUnavailable: as `run`.
        """
        self._plan(row, seed)

    def find(self, row: Row, seed: int) -> RunRecord | None:
        """The finished run of a row with the fingerprint it would have now.

        Raises:
            InputError: data, weights or results folder cannot be used.
            DataUnavailable: the user has to name the data.
            WeightsUnavailable: the row's pretrained weights cannot be had.
        """
        plan = self._plan(row, seed)
        return self.store.find(row.name, seed, plan.fingerprint)

    def run(
        self,
        row: Row,
        seed: int,
        on_epoch: Callable[[Epoch], None] | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> RunRecord:
        """Trains one row with one seed, or finds the finished run (`reuse`), and stores its record.

        Args:
            on_epoch: called after each epoch, for progress.
            on_wait: called if another process is at this run already; that one is waited for.

        Raises:
            InputError: data, weights or results folder cannot be used.
            DataUnavailable: the user has to name the data.
            WeightsUnavailable: the row's pretrained weights cannot be had.
            TrainingFailed: the loss did not stay finite, an own metric has no figure, or memory does not suffice; noted
                in the store.
        """
        plan, started = self._plan(row, seed), datetime.now(UTC)
        store = self.store
        with store.writer(row.name, seed, plan.fingerprint, on_wait):
            if self.reuse:
                found = store.find(row.name, seed, plan.fingerprint)
                if found is not None:
                    store.tidy(row.name, seed, plan.fingerprint)
                    return found
            try:
                record, images, samples = self._train(plan, row, seed, on_epoch)
                record = self._with_own_metrics(record, images)
                return store.save(record, self._with_needed_scores(record, images), samples)
            except TrainingFailed as failed:
                self._note(failed, plan, row, seed, started)
                traceback.clear_frames(failed.__traceback__)  # or who keeps the error keeps network and data
                raise

    def _with_own_metrics(self, record: RunRecord, images: ImageResults) -> RunRecord:
        """The record with the figures of the study's own metrics in every epoch.

        Raises:
            TrainingFailed: a metric raises, or what it returns is no finite number: a best epoch among those that have
                a figure would be too good.
        """
        metrics = self.study.metrics.items()

        def more(epoch: Epoch) -> Epoch:
            try:
                own = {name: float(images.figure(name, epoch.epoch, own=metric)) for name, metric in metrics}
            except InputError as error:
                where = f"{record.row}, seed {record.seed}, epoch {epoch.epoch}"
                raise TrainingFailed(f"{where}: {error}", epoch.epoch, lr=epoch.lr) from error
            return replace(epoch, figures={**epoch.figures, **own})

        return replace(record, epochs=[more(epoch) for epoch in record.epochs])

    @property
    def _score_metrics(self) -> list[str]:
        """The names of the study's metrics of scores."""
        return [name for name, metric in self.study.metrics.items() if metric.of == "scores"]

    def _with_needed_scores(self, record: RunRecord, images: ImageResults) -> ImageResults:
        """The results with scores of the epochs that pages ask for alone: each metric's best one, and the last."""
        return images.with_scores_of({len(record.epochs), *(record.best_epoch(name) for name in self._score_metrics)})

    def _train(
        self, plan: _Plan, row: Row, seed: int, on_epoch: Callable[[Epoch], None] | None
    ) -> tuple[RunRecord, ImageResults, PredictionSamples]:
        """Trains one row with one seed, from its checkpoint on if there is one (`reuse`)."""
        import torch

        from cvhw4.data.corruption import corrupted
        from cvhw4.models.build import build_network, trainable
        from cvhw4.records import environment as env
        from cvhw4.records.schema import DataUsed, Times, WeightsUsed
        from cvhw4.training.fit import fit

        source, device = plan.source, plan.device
        dataset = corrupted(plan.dataset, row.corruption, seed)
        started, clock = datetime.now(UTC), time.perf_counter()
        path = self.store.checkpoint(row.name, seed, plan.fingerprint)
        checkpoints = self._checkpoints(path, plan.fingerprint)
        release_memory()
        env.reset_peak_memory(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            network = build_network(row, seed=seed, weights=self.weights)
            built = time.perf_counter()
            history = fit(
                row,
                dataset,
                network,
                seed=seed,
                device=device,
                precision=plan.choice.precision,
                graphs=plan.graphs,
                deterministic=plan.deterministic,
                on_epoch=on_epoch,
                checkpoints=checkpoints,
                scores=bool(self._score_metrics) and row.task.name == "classification",
            )
        train_seconds = sum(e.train_seconds for e in history.epochs)
        record = RunRecord(
            row=row.name,
            study=row.study,
            task=row.task.name,
            seed=seed,
            fingerprint=plan.fingerprint,
            configuration=plan.configuration,
            settings=row.settings(),
            data=DataUsed(
                name=dataset.name,
                embedded=dataset.embedded,
                fingerprint=dataset.fingerprint,
                leaks=list(dataset.leaks),
                train=len(dataset.train),
                val=len(dataset.val),
                classes=list(dataset.classes),
            ),
            weights=WeightsUsed(
                network=plan.network,
                origin=source.origin if source else "random",
                sha256=source.sha256 if source else None,
            ),
            parameters=network.parameters,
            trained_parameters=sum(p.numel() for p in trainable(network.module)),
            primary=history.primary,
            epochs=list(history.epochs),
            by_class=history.by_class,
            times=Times(
                build_seconds=built - clock,
                train_seconds=train_seconds,
                evaluate_seconds=sum(e.evaluate_seconds for e in history.epochs),
                total_seconds=time.perf_counter() - clock + history.earlier_seconds,
                images_per_second=history.images / train_seconds,
                peak_memory_bytes=env.peak_memory(device),
                interruptions=history.interruptions,
            ),
            environment=env.environment(device) | plan.ways | ({"parts": history.parts} if history.parts > 1 else {}),
            started=started.isoformat(timespec="seconds"),
        )
        return record, history.results, self._samples(plan, row, history.samples)

    def _samples(self, plan: _Plan, row: Row, seen: PredictionSamples) -> PredictionSamples:
        """What a run shows in the end, and the pictures it was shown, which are stored where they are not yet."""
        from cvhw4.records.samples import pictures_digest
        from cvhw4.training.samples import validation_pictures

        size = row.recipe.size
        digest = pictures_digest(plan.dataset.fingerprint, size)
        self.store.keep_pictures(digest, lambda: validation_pictures(plan.dataset, size))
        return replace(seen, run=plan.fingerprint, pictures=digest)

    def _checkpoints(self, path: Path, fingerprint: str) -> Checkpoints | None:
        """Where, and how often, a run keeps what it can go on from; one that begins anew clears it."""
        from cvhw4.training.checkpoint import Checkpoints

        if not self.reuse:
            with suppress(OSError):
                path.unlink()
        if self.checkpoint_seconds is None:
            return Checkpoints(path, fingerprint, every=60.0, share=0.01, resume=self.reuse)
        if self.checkpoint_seconds == 0:
            return None
        return Checkpoints(path, fingerprint, every=self.checkpoint_seconds, resume=self.reuse)

    def _note(self, failed: TrainingFailed, plan: _Plan, row: Row, seed: int, started: datetime) -> None:
        """Stores why a run failed."""
        from cvhw4.records import environment as env
        from cvhw4.records.schema import Failure

        checkpoint = self.store.checkpoint(row.name, seed, plan.fingerprint)
        failure = Failure(
            row=row.name,
            study=row.study,
            task=row.task.name,
            seed=seed,
            fingerprint=plan.fingerprint,
            configuration=plan.configuration,
            data=plan.dataset.name,
            epoch=failed.epoch,
            step=failed.step,
            lr=failed.lr,
            reason=str(failed),
            checkpoint=checkpoint.name if checkpoint.exists() else None,
            environment=env.environment(plan.device) | plan.ways,
            started=started.isoformat(timespec="seconds"),
        )
        with suppress(InputError):  # what is raised already matters more
            self.store.fail(failure)

    def _plan(self, row: Row, seed: int) -> _Plan:
        """All that decides a run's figures, and the fingerprints of it."""
        dataset = self.data(row.task.name)
        prepare_process()

        import torch

        from cvhw4.models.weights import find_weights, pretrained_name
        from cvhw4.records.environment import accelerator, code_digest, device_name, versions
        from cvhw4.training.device import pick_device
        from cvhw4.training.precision import choose_precision

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = pick_device(self.device, self.worker)
        choice = choose_precision(self.precision, device, row, dataset)
        graphs, deterministic = (wanted and device.type == "cuda" for wanted in (self.cuda_graphs, self.deterministic))
        network = pretrained_name(row.network)
        source = find_weights(network, self.weights) if row.start == "imagenet" else None
        identity = {
            "settings": row.settings(),
            "data": dataset.fingerprint,
            "weights": source.sha256 if source else None,
            "device": device_name(device),
            "precision": choice.precision,
            "graphs": graphs,
            "deterministic": deterministic,
            "versions": versions(),
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "code": code_digest(),
        }
        if known := accelerator(device):
            identity["accelerator"] = known
        if metrics := self.study.metrics:
            identity["metrics"] = {name: metric.source for name, metric in metrics.items()}
        configuration, run = _digest(identity), _digest(identity | {"seed": seed})
        return _Plan(dataset, source, device, choice, graphs, deterministic, network, configuration, run)


class _Plan(NamedTuple):
    """What a run starts from; `configuration` is its fingerprint without the seed."""

    dataset: Dataset
    source: Source | None
    device: torch.device
    choice: Choice
    graphs: bool
    deterministic: bool
    network: str
    configuration: str
    fingerprint: str

    @property
    def ways(self) -> dict[str, Any]:
        """How it computes, for the record."""
        ways = {"precision": self.choice.precision, "graphs": self.graphs, "deterministic": self.deterministic}
        return ways | ({"step_seconds": dict(self.choice.step_seconds)} if self.choice.step_seconds else {})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
