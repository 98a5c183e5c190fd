"""From a row and a seed to its record: plan, train, record."""

from __future__ import annotations

import math
import os
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cvhw4.errors import InputError, TrainingFailed, Unavailable
from cvhw4.files import read, remove, write_atomically
from cvhw4.plans import CustomPlan, NetworkPlan, Plan, digest, fingerprints, source_of
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.records.store import Store
from cvhw4.study import CustomRow, Row, Run, Study
from cvhw4.training.process import cores, prepare_process, release_memory, threads_of_environment

if TYPE_CHECKING:
    from cvhw4.data.dataset import Dataset
    from cvhw4.records.images import ImageResults
    from cvhw4.records.samples import PredictionSamples
    from cvhw4.training.checkpoint import Checkpoints


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How the rows of a study are run: which weights and device, and where the records go.

    Importing this module and making a `Runner` loads neither torch nor pictures; that happens with the first `run`.
    `check` says what is wrong with what it was given.

    Attributes:
        study: whose rows are run.
        device: "auto" takes CUDA where there is one, else the CPU; "mps" and "xpu" have to be asked for.
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
        threads: that torch computes with on a CPU, 1 to 1024; None leaves it to torch.
        smoke: train a network's first epoch alone, and store nothing.
        worker: number of this process, from 0, among those that share the machine: they take its GPUs in turn.
    """

    study: Study
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    precision: Literal["auto", "float32", "bf16"] | None = None
    cuda_graphs: bool = False
    weights: Path | None = None
    results: Path = Path("results")
    reuse: bool = False
    deterministic: bool = False
    checkpoint_seconds: float | None = None
    threads: int | None = None
    smoke: bool = False
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

    def data(self, task: str, seed: int | None = None) -> Dataset:
        """The data set of the rows of a task, decoded and checked.

        Args:
            task: its name, "classification" or "segmentation".
            seed: of a run, where each draws its own pictures; left out, pictures like those.

        Raises:
            InputError: a folder that cannot be used.
            Unavailable: the user has to name the data.
        """
        from cvhw4.data.load import load

        return load(self.study.sources[task], seed)

    def prepare(self, row: Row, seed: int) -> None:
        """Does all that comes before a run: decodes and checks its data, finds its weights, loads torch.

        Raises:
            InputError, Unavailable: as `run`.
        """
        self._plan(row, seed)

    def find(self, row: Row, seed: int) -> RunRecord | None:
        """The finished run of a row with the fingerprint it would have now; None where there is none.

        Raises:
            InputError: data, weights or results folder cannot be used.
            Unavailable: the row's data or pretrained weights cannot be had; the message says how to get them.
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
        """Trains one row with one seed, or finds the finished run (`reuse`), and stores its record (but see `smoke`).

        Args:
            row: of the study, or of one of its controls.
            seed: what to draw from, 0 or more.
            on_epoch: called after each epoch, for progress.
            on_wait: called if another process is at this run already; that one is waited for.

        Raises:
            InputError: data, weights or results folder cannot be used.
            Unavailable: the row's data or pretrained weights cannot be had; the message says how to get them.
            TrainingFailed: the loss did not stay finite, an own metric has no figure, memory does not suffice, or the
                study's own training loop raised or yielded no figures; noted in the store.
        """
        plan, started = self._plan(row, seed), datetime.now(UTC)
        if self.smoke:
            if isinstance(plan, CustomPlan):
                problem = "has a training loop of its own, which only ends by itself"
                raise InputError(row.name, problem, "leave smoke out")
            return self._train(plan, row, seed, on_epoch)[0]
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

    def _with_own_metrics(self, record: RunRecord, images: ImageResults | None) -> RunRecord:
        """The record with the figures of the study's own metrics in every epoch.

        Raises:
            TrainingFailed: a metric raises, or what it returns is no finite number: a best epoch among those that have
                a figure would be too good.
        """
        metrics = self.study.metrics.items()
        if not metrics:
            return record
        assert images is not None

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

    def _with_needed_scores(self, record: RunRecord, images: ImageResults | None) -> ImageResults | None:
        """The results with scores of the epochs that pages ask for alone: each metric's best one, and the last."""
        if images is None:
            return None
        return images.with_scores_of({len(record.epochs), *(record.best_epoch(name) for name in self._score_metrics)})

    def _train(
        self, plan: Plan, row: Row, seed: int, on_epoch: Callable[[Epoch], None] | None
    ) -> tuple[RunRecord, ImageResults | None, PredictionSamples | None]:
        """Trains one row with one seed, from its checkpoint on if there is one (`reuse`)."""
        if isinstance(plan, CustomPlan):
            return self._train_custom(plan, on_epoch), None, None
        assert isinstance(plan, NetworkPlan)
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
                epochs=1 if self.smoke else None,
                scores=bool(self._score_metrics) and row.task.name == "classification",
            )
        train_seconds = sum(e.train_seconds for e in history.epochs)
        record = RunRecord(
            **plan.identity,
            settings=row.settings(),
            data=DataUsed(
                name=dataset.name,
                embedded=dataset.embedded,
                fingerprint=dataset.origin,
                redrawn=dataset.drawn_from is not None,
                leaks=list(dataset.leaks),
                train=len(dataset.train),
                val=len(dataset.val),
                classes=list(dataset.classes),
            ),
            weights=WeightsUsed(
                network=plan.network,
                origin=source.origin if source else row.start,
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
            environment=plan.environment() | ({"parts": history.parts} if history.parts > 1 else {}),
            started=started.isoformat(timespec="seconds"),
        )
        return record, history.results, None if self.smoke else self._samples(plan, row, history.samples)

    def _train_custom(self, plan: CustomPlan, on_epoch: Callable[[Epoch], None] | None) -> RunRecord:
        """Has the study's own training loop train a row with a seed, with the folder that it left behind (`reuse`)."""
        from cvhw4.records import environment as env
        from cvhw4.records.schema import DataUsed, Times, WeightsUsed
        from cvhw4.training.custom import seeded, train_custom

        train, row = self.study.train, plan.row
        assert train is not None and isinstance(row, CustomRow)
        started, clock = datetime.now(UTC), time.perf_counter()
        folder = self.store.run_folder(row.name, plan.seed, plan.fingerprint)
        interruptions = _begin_in(folder, self.reuse)
        plan.run = Run(_copied(row), plan.seed, folder, partial(_log, folder.with_suffix(".log")), self._device)
        env.reset_peak_memory("cpu")
        with seeded(plan.seed, self.threads):
            epochs = train_custom(train, row, plan.run, self.study.needed(row), on_epoch)
        seconds = time.perf_counter() - clock
        return RunRecord(
            **plan.identity,
            settings=row.settings(),
            data=DataUsed(
                name=plan.data, embedded=False, fingerprint=digest([plan.data, row.study]), train=0, val=0, classes=[]
            ),
            weights=WeightsUsed(network=getattr(train, "__name__", type(train).__name__), origin="of its own"),
            parameters=0,
            trained_parameters=0,
            primary=self.study.primary,
            epochs=epochs,
            times=Times(
                build_seconds=0.0,
                train_seconds=sum(e.train_seconds for e in epochs),
                evaluate_seconds=0.0,
                total_seconds=seconds,
                images_per_second=0.0,
                peak_memory_bytes=env.peak_memory(plan.device),
                interruptions=interruptions,
            ),
            environment=plan.environment(),
            started=started.isoformat(timespec="seconds"),
            lower_is_better=sorted(self.study.lowest & epochs[0].figures.keys()),
        )

    def _device(self) -> str:
        """What `Run.device` is."""
        if self.device == "cpu":
            return "cpu"
        from cvhw4.records.environment import reset_peak_memory
        from cvhw4.training.device import pick_device

        device = str(pick_device(self.device, self.worker))
        if device != "cpu":  # whose peak is that of the whole run
            reset_peak_memory(device)
        return device

    def _accelerators(self) -> list[str]:
        """The accelerators that `Run.device` may be, without asking torch."""
        from cvhw4.records.environment import OTHERS
        from cvhw4.training.custom import gpus

        if self.device in ("cpu", *OTHERS):
            return [self.device] * (self.device in OTHERS)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
        return [] if hidden else gpus()

    def _samples(self, plan: NetworkPlan, row: Row, seen: PredictionSamples) -> PredictionSamples:
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

        if self.smoke:
            return None
        if not self.reuse:
            with suppress(OSError):
                path.unlink()
        if self.checkpoint_seconds is None:
            return Checkpoints(path, fingerprint, every=60.0, share=0.01, resume=self.reuse)
        share = math.inf if self.checkpoint_seconds else 0.0  # of the time: 0 reads what is there, and writes none
        return Checkpoints(path, fingerprint, every=self.checkpoint_seconds, resume=self.reuse, share=share)

    def note(self, failed: TrainingFailed, row: Row, seed: int) -> None:
        """Stores why a run failed that could not do so itself."""
        with suppress(InputError, Unavailable):  # of a cluster, whose nodes have the data
            self._note(failed, self._plan(row, seed), row, seed, datetime.now(UTC))

    def _note(self, failed: TrainingFailed, plan: Plan, row: Row, seed: int, started: datetime) -> None:
        """Stores why a run failed."""
        from cvhw4.records.schema import Failure

        left = (store(row.name, seed, plan.fingerprint) for store in (self.store.checkpoint, self.store.run_folder))
        failure = Failure(
            **plan.identity,
            data=plan.data,
            epoch=failed.epoch,
            step=failed.step,
            lr=failed.lr,
            reason=str(failed),
            traceback=failed.traceback,
            checkpoint=next((path.name for path in left if _holds_something(path)), None),
            environment=plan.environment(),
            started=started.isoformat(timespec="seconds"),
        )
        with suppress(InputError):  # what is raised already matters more
            self.store.fail(failure)

    def _plan(self, row: Row, seed: int) -> Plan:
        """All that decides a run's figures, and the fingerprints of it."""
        if isinstance(row, CustomRow):
            return self._plan_custom(row, seed)
        dataset = self.data(row.task.name, seed)
        prepare_process()

        import torch

        from cvhw4.models.names import take_apart
        from cvhw4.models.weights import find_weights
        from cvhw4.records.environment import accelerator, code_digest, device_name, versions
        from cvhw4.training.custom import packages_of
        from cvhw4.training.device import pick_device
        from cvhw4.training.precision import choose_precision

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = pick_device(self.device, self.worker)
        choice = choose_precision(self.precision, device, row, dataset)
        graphs, deterministic = (wanted and device.type == "cuda" for wanted in (self.cuda_graphs, self.deterministic))
        source, network = None, row.network_name
        packages = packages_of(*self.study.functions) if self.study.functions else []
        if isinstance(row.network, str):
            network = take_apart(row.network).name
            source = find_weights(row.network, self.weights) if row.start == "imagenet" else None
            packages += ["segmentation-models-pytorch"] * row.network.startswith("smp/")
        identity = {
            "settings": row.settings(),
            "data": dataset.origin,
            "weights": source.sha256 if source else None,
            "device": device_name(device),
            "precision": choice.precision,
            "graphs": graphs,
            "deterministic": deterministic,
            "versions": versions() | versions(packages),
            "code": code_digest(),
        }
        if known := accelerator(device):
            identity["accelerator"] = known
        if metrics := self.study.metrics:
            identity["metrics"] = {name: metric.source for name, metric in metrics.items()}
        return NetworkPlan(
            row,
            seed,
            *fingerprints(identity, seed),
            dataset=dataset,
            source=source,
            device=device,
            choice=choice,
            graphs=graphs,
            deterministic=deterministic,
            network=network,
            packages=packages,
        )

    def _plan_custom(self, row: CustomRow, seed: int) -> CustomPlan:
        """Likewise of the study's own training loop: its text, the row's settings, and what they compute with."""
        prepare_process()

        from cvhw4.records.environment import device_name, versions
        from cvhw4.training.custom import packages_of

        study = self.study
        assert study.train is not None
        packages = packages_of(study.train, *(value for value in row.values.values() if callable(value)))
        text = {"train": study.train_text, "version": study.version}
        identity = {
            **text,
            "settings": row.settings(),
            "primary": study.primary,
            "lower is better": sorted(study.lowest),
            "device": [device_name("cpu"), *self._accelerators()],
            "versions": versions(packages),
        }
        return CustomPlan(
            row,
            seed,
            *fingerprints(identity, seed),
            threads=self._threads(),
            packages=packages,
            code=digest(text),
            file=source_of(study.train),
        )

    def _threads(self) -> int:
        """How many threads a run on a CPU may use, without asking torch."""
        return self.threads or threads_of_environment() or cores()


def _copied(row: CustomRow) -> dict[str, Any]:
    """A row's settings for one run: no seed goes on from what another made of an object among them.

    Raises:
        InputError: they cannot be copied.
    """
    try:
        return deepcopy(dict(row.values))
    except Exception as error:
        problem = f"has settings that cannot be copied for each run ({type(error).__name__}: {error})"
        hint = "give functions or classes, and make the object in train from them"
        raise InputError(f"study {row.study}, row {row.name}", problem, hint) from error


def _begin_in(folder: Path, resume: bool) -> int:
    """Makes a run's own folder, empty unless it is to be resumed; how often it was broken off before.

    Raises:
        InputError: it cannot be made.
    """
    counted = folder.with_suffix(".begun")
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
        remove([counted, folder.with_suffix(".log")])
    content = read(counted)
    before = int(content) if content is not None and content.isdigit() and _holds_something(folder) else 0
    write_atomically(counted, str(before + 1))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be made ({error.strerror})", "choose another --results") from error
    return before


def _log(path: Path, *words: object) -> None:
    """Prints a line and appends it to a run's log."""
    line = " ".join(map(str, words))
    print(line)
    with suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")


def _holds_something(path: Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    with suppress(OSError):
        return any(path.iterdir()) if path.is_dir() else path.exists()
    return False
