"""From an experiment to its record: data, network, training, figures, file."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cvhw4.errors import DataUnavailable, InputError, TrainingFailed
from cvhw4.experiments import PROFILES, Experiment, Precision, Question
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.records.store import Store
from cvhw4.training.process import prepare_process, release_memory

if TYPE_CHECKING:
    import torch

    from cvhw4.data.dataset import Dataset
    from cvhw4.models.weights import Source
    from cvhw4.records.exhibits import Exhibits
    from cvhw4.records.images import ImageResults
    from cvhw4.training.checkpoint import Checkpoints

_MOST_THREADS = 1024
_OPTIONS: dict[Question, str] = {"q1": "--portraits", "q2": "--camvid"}


@dataclass(frozen=True, kw_only=True)
class Study:
    """How experiments are run: which data, weights and device, and where the records go.

    Importing this module and making a `Study` loads neither torch nor pictures; that happens with the first `run`.

    Attributes:
        profile: name of a profile.
        device: "auto" takes CUDA where there is one.
        precision: what networks compute in; "auto" as `pick_precision` says.
        cuda_graphs: on CUDA, replay optimizer steps as CUDA graphs.
        portraits: folder of the user's own data for Q1, None for the embedded ones; an own ablation names its own.
        camvid: likewise for Q2.
        weights: folder to look for pretrained weights in first.
        results: where records and tables go.
        reuse: take a finished run with the same fingerprint from disk instead of training, and go on with an unfinished
            one where it was broken off.
        deterministic: on CUDA, only kernels that give the same bits each time. A CPU has no others.
        checkpoint_seconds: an unfinished run is kept on disk after every epoch and every so many seconds; 0 keeps none.
            None: every 60 seconds, and so seldom that writing takes at most a hundredth of the time.
        threads: that torch computes with on a CPU; None leaves it to torch.
        worker: number of this process among those that share the machine: they take its GPUs in turn.
    """

    profile: str = "quick"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    cuda_graphs: bool = False
    portraits: Path | None = None
    camvid: Path | None = None
    weights: Path | None = None
    results: Path = Path("results")
    reuse: bool = False
    deterministic: bool = False
    checkpoint_seconds: float | None = None
    threads: int | None = None
    worker: int = 0

    @property
    def store(self) -> Store:
        """The records of this study's profile."""
        return Store(self.results, self.profile)

    def folder(self, question: Question) -> Path | None:
        """The user's own data folder for a question."""
        if PROFILES[self.profile].own:
            return PROFILES[self.profile].folders.get(question)
        return self.portraits if question == "q1" else self.camvid

    def check(self) -> None:
        """Validates all that the user gave, before anything is trained.

        Raises:
            InputError: an unusable folder, file or option.
        """
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            mend = f"give 1 to {_MOST_THREADS}; as many as there are cores is best"
            raise InputError(f"--threads {self.threads}", "is no number of threads", mend)
        if self.checkpoint_seconds is not None and not 0 <= self.checkpoint_seconds < float("inf"):
            where = f"--checkpoint-seconds {self.checkpoint_seconds:g}"
            raise InputError(where, "is no number of seconds", "give 0 for no checkpoints, or more")
        if self.cuda_graphs and self.device == "cpu":
            raise InputError("--cuda-graphs", "cannot go with --device cpu", "leave one of them out")
        try:
            os.lstat(self.results)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputError(self.results, f"cannot be used ({error.strerror})", "choose another --results") from error
        else:
            if not os.path.isdir(self.results):
                raise InputError(self.results, "is not a folder", "give --results a folder, existing or new")
        nearest = next(p for p in (self.results.absolute(), *self.results.absolute().parents) if os.path.lexists(p))
        if not os.path.isdir(nearest):
            raise InputError(nearest, "is not a folder", "choose another folder with --results")
        if not os.access(nearest, os.W_OK):
            raise InputError(nearest, "cannot be written to", "choose another folder with --results")
        self._check_metrics()
        for question in _OPTIONS:
            if self.folder(question) is not None:
                self.data(question)
        if PROFILES[self.profile].own:
            self._check_networks()
        if self.weights is not None:
            self._check_weights(self.weights)
        if self.device == "cuda" or self.precision == "bf16":
            device = pick_device(self.device)
            pick_precision(self.precision, device, PROFILES[self.profile].rows[0])

    def _check_metrics(self) -> None:
        """Calls own metrics on made-up predictions: some of them wrong, and all of one class, as of a network that
        collapsed."""
        profile = PROFILES[self.profile]
        if not profile.metrics:
            return
        import numpy as np

        from cvhw4.records.images import own_figure

        scenes = profile.rows[0].question == "q2"
        for classes in {row.classes for row in profile.rows}:
            labels = np.repeat(np.arange(classes), 2)
            some_wrong = np.where(np.arange(len(labels)) % 4 == 3, labels - 1, labels)
            alike = [
                (np.full_like(labels, c), f" where every {'pixel' if scenes else 'image'} is taken for class {c}")
                for c in (0, classes - 1)  # so that each class is missing once
            ]
            for predicted, where in [(some_wrong, ""), *alike]:
                evidence = [labels, predicted]
                if scenes:
                    matrix = np.bincount(labels * classes + predicted, minlength=classes**2)
                    evidence = [matrix.reshape(classes, classes)]
                for name, metric in profile.metrics.items():
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            own_figure(name, metric.function, *evidence)
                    except InputError as error:
                        raise InputError(error.where, error.problem + where, error.mend) from error

    def _check_networks(self) -> None:
        prepare_process()
        from cvhw4.models.build import pretrained_name

        for row in PROFILES[self.profile].rows:
            pretrained_name(row.network)

    def _check_weights(self, folder: Path) -> None:
        if not os.path.isdir(folder):
            raise InputError(folder, "is not a folder", "give --weights a folder with files of weights")
        prepare_process()
        from cvhw4.models.weights import check_weights

        check_weights(folder, {r.network for r in PROFILES[self.profile].rows if r.start == "imagenet"})

    def data(self, question: Question) -> Dataset:
        """The data set of a question, decoded and validated.

        Raises:
            InputError: a folder that cannot be used.
            DataUnavailable: this profile has no data for the question unless the user gives some.
        """
        profile, folder = PROFILES[self.profile], self.folder(question)
        if folder is None and not profile.embedded:
            raise DataUnavailable(
                f"profile {self.profile} trains {question} on real data: give {_OPTIONS[question]} DIR"
            )
        place = folder and Path(os.path.realpath(folder))
        classes = max((row.classes for row in profile.of(question)), default=2)
        dataset = _load(question, place, profile.portrait_side, profile.scene_size, classes)
        if question == "q2" and folder is not None:
            height, width = dataset.train.images.shape[1:3]
            needed = max(row.recipe.size for row in profile.of(question))
            if min(height, width) < needed:
                mend = f"give pictures of at least {needed} pixels a side"
                raise InputError(
                    folder, f"has scenes of {width}x{height}, and {needed} pixels a side are cut out", mend
                )
        return dataset

    def prepare(self, experiment: Experiment, seed: int) -> None:
        """Does all that comes before a run: decodes and checks its data, finds its weights, loads torch.

        Raises:
            InputError, DataUnavailable, WeightsUnavailable: as `run`.
        """
        self._plan(experiment, seed)

    def find(self, experiment: Experiment, seed: int) -> RunRecord | None:
        """The finished run of a row with the fingerprint it would have now.

        Raises:
            InputError: data, weights or results folder cannot be used.
            DataUnavailable: the profile needs data that was not given.
            WeightsUnavailable: the row's pretrained weights cannot be had.
        """
        plan = self._plan(experiment, seed)
        return self.store.find(experiment.id, seed, plan.fingerprint)

    def run(
        self,
        experiment: Experiment,
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
            DataUnavailable: the profile needs data that was not given.
            WeightsUnavailable: the row's pretrained weights cannot be had.
            TrainingFailed: the loss did not stay finite, an own metric has no figure, or memory does not suffice; noted
                in the store.
        """
        plan, started = self._plan(experiment, seed), datetime.now(UTC)
        store = self.store
        with store.writer(experiment.id, seed, plan.fingerprint, on_wait):
            if self.reuse:
                found = store.find(experiment.id, seed, plan.fingerprint)
                if found is not None:
                    store.tidy(experiment.id, seed, plan.fingerprint)
                    return found
            try:
                record, images, exhibits = self._train(plan, experiment, seed, on_epoch)
                return store.save(self._with_own_metrics(record, images), images, exhibits)
            except TrainingFailed as failed:
                self._note(failed, plan, experiment, seed, started)
                raise

    def _with_own_metrics(self, record: RunRecord, images: ImageResults) -> RunRecord:
        """The record with the figures of the ablation's own metrics in every epoch.

        Raises:
            TrainingFailed: a metric raises, or what it returns is no finite number: a best epoch among those that have
                a figure would be too good.
        """
        metrics = PROFILES[self.profile].metrics.items()

        def more(epoch: Epoch) -> Epoch:
            try:
                own = {name: float(images.figure(name, epoch.epoch, own=metric.function)) for name, metric in metrics}
            except InputError as error:
                where = f"{record.id}, seed {record.seed}, epoch {epoch.epoch}"
                raise TrainingFailed(f"{where}: {error}", epoch.epoch, lr=epoch.lr) from error
            return replace(epoch, figures={**epoch.figures, **own})

        return replace(record, epochs=[more(epoch) for epoch in record.epochs])

    def _train(
        self, plan: _Plan, experiment: Experiment, seed: int, on_epoch: Callable[[Epoch], None] | None
    ) -> tuple[RunRecord, ImageResults, Exhibits]:
        """Trains one row with one seed, from its checkpoint on if there is one (`reuse`)."""
        import torch

        from cvhw4.data.sabotage import spoilt
        from cvhw4.models.build import build_network, trainable
        from cvhw4.records import environment as env
        from cvhw4.records.schema import DataUsed, Times, WeightsUsed
        from cvhw4.training.fit import fit

        source, device = plan.source, plan.device
        dataset = spoilt(plan.dataset, experiment.sabotage, seed)
        started, clock = datetime.now(UTC), time.perf_counter()
        path = self.store.checkpoint(experiment.id, seed, plan.fingerprint)
        checkpoints = self._checkpoints(path, plan.fingerprint)
        release_memory()
        env.reset_peak_memory(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            network = build_network(experiment, seed=seed, weights=self.weights)
            built = time.perf_counter()
            history = fit(
                experiment,
                dataset,
                network,
                seed=seed,
                device=device,
                precision=plan.precision,
                graphs=plan.graphs,
                deterministic=plan.deterministic,
                on_epoch=on_epoch,
                checkpoints=checkpoints,
            )
        train_seconds = sum(e.train_seconds for e in history.epochs)
        record = RunRecord(
            row=experiment.row,
            id=experiment.id,
            profile=experiment.profile,
            seed=seed,
            fingerprint=plan.fingerprint,
            study=plan.study,
            settings=experiment.settings(),
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
        return record, history.results, self._exhibits(plan, experiment, history.exhibits)

    def _exhibits(self, plan: _Plan, experiment: Experiment, seen: Exhibits) -> Exhibits:
        """What a run shows in the end, and the pictures it was shown, which are stored where they are not yet."""
        from cvhw4.records.exhibits import pictures_digest
        from cvhw4.training.exhibits import validation_pictures

        size = experiment.recipe.size
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

    def _note(self, failed: TrainingFailed, plan: _Plan, experiment: Experiment, seed: int, started: datetime) -> None:
        """Stores why a run failed."""
        from cvhw4.records import environment as env
        from cvhw4.records.schema import Failure

        checkpoint = self.store.checkpoint(experiment.id, seed, plan.fingerprint)
        failure = Failure(
            row=experiment.row,
            id=experiment.id,
            profile=experiment.profile,
            seed=seed,
            fingerprint=plan.fingerprint,
            study=plan.study,
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

    def _plan(self, experiment: Experiment, seed: int) -> _Plan:
        """All that decides a run's figures, and the fingerprints of it."""
        dataset = self.data(experiment.question)
        prepare_process()

        import torch

        from cvhw4.models.build import pretrained_name
        from cvhw4.models.weights import find_weights
        from cvhw4.records.environment import code_digest, device_name, versions

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = pick_device(self.device, self.worker)
        precision = pick_precision(self.precision, device, experiment)
        graphs, deterministic = (wanted and device.type == "cuda" for wanted in (self.cuda_graphs, self.deterministic))
        network = pretrained_name(experiment.network)
        source = find_weights(network, self.weights) if experiment.start == "imagenet" else None
        identity = {
            "settings": experiment.settings(),
            "data": dataset.fingerprint,
            "weights": source.sha256 if source else None,
            "device": device_name(device),
            "precision": precision,
            "graphs": graphs,
            "deterministic": deterministic,
            "versions": versions(),
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "code": code_digest(),
        }
        if metrics := PROFILES[self.profile].metrics:
            identity["metrics"] = {name: metric.source for name, metric in metrics.items()}
        study, run = _digest(identity), _digest(identity | {"seed": seed})
        return _Plan(dataset, source, device, precision, graphs, deterministic, network, study, run)


class _Plan(NamedTuple):
    """What a run starts from; `study` is its fingerprint without the seed."""

    dataset: Dataset
    source: Source | None
    device: torch.device
    precision: Precision
    graphs: bool
    deterministic: bool
    network: str
    study: str
    fingerprint: str

    @property
    def ways(self) -> dict[str, Any]:
        """How it computes, for the record."""
        return {"precision": self.precision, "graphs": self.graphs, "deterministic": self.deterministic}


def pick_device(wanted: str, worker: int = 0) -> torch.device:
    """The device to train on, which becomes the current one: of several GPUs (of those that CUDA_VISIBLE_DEVICES
    leaves) each worker takes the next.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("--device cuda", "finds no CUDA device", "use --device cpu, or check the driver")
    if not available or wanted == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", worker % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def pick_precision(wanted: str, device: torch.device, experiment: Experiment) -> Precision:
    """The precision that a row is computed in.

    "auto" is bf16 on CUDA, where it is native, but for AlexNet with all its layers: at batches of 4 its limit is the
    traffic of its 57 M parameters, and autocast's bf16 copies add to that (by count: 38 bytes a step for each number of
    its linear layers against 32; not measured). On a CPU it is float32: bf16 evaluates faster there and trains slower,
    Lite0 with 0.6 of float32's speed on a Xeon with AMX.

    Raises:
        InputError: bf16 was asked for and the device has to emulate it, which is slower than float32.
    """
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if wanted == "bf16" and not native:
        raise InputError("--precision bf16", "is not native on this device", "use --precision float32")
    traffic = experiment.network == "alexnet" and experiment.trained == "all layers"
    helps = native and device.type == "cuda" and not traffic
    return "bf16" if wanted == "bf16" or (wanted == "auto" and helps) else "float32"


@lru_cache
def _load(question: Question, folder: Path | None, side: int, size: tuple[int, int] | None, classes: int) -> Dataset:
    if question == "q1":
        if folder is None:
            from cvhw4.data.embedded import embedded_portraits

            return embedded_portraits()
        from cvhw4.data.portraits import read_portraits

        return read_portraits(folder, short_side=side, classes=classes)
    if folder is None:
        from cvhw4.data.embedded import embedded_scenes

        return embedded_scenes()
    from cvhw4.data.camvid import read_camvid

    return read_camvid(folder, size=size)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
