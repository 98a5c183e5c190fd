"""A study's runs on a Ray cluster: given to it all at once, told of as they go, brought back to one results folder.

Ray is an extra (`pip install cvhw4[ray]`) and is imported when a `Cluster` is made. A run is one task of Ray's: in a
worker process of its own it does what a session without Ray does, in a results folder that may be that node's. Record
and results by image come back with the task.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from cvhw4.errors import InputError, ProcessDied, TrainingFailed
from cvhw4.executors.base import POLL_SECONDS, Event, Executor, Submitted, on_one_line
from cvhw4.files import write_atomically
from cvhw4.plans import source_of
from cvhw4.records.schema import Epoch, Failure, RunRecord
from cvhw4.runner import Runner
from cvhw4.study import Row, Study
from cvhw4.training.process import prepare_process

ATTEMPTS = 4  # how often a run is begun whose workers or nodes die: Ray's own default, 3 repetitions
_RETURNED = Path("what the cluster returned")  # for messages: it is no file
REACH = 10.0  # seconds in which the cluster's address has to answer; left to itself, Ray tries for two minutes
_LAST_WORDS = 30.0  # seconds that a finished run waits for its events to be taken


class Share(NamedTuple):
    """What a run gets of a node: CPUs and GPUs that Ray reserves for it, threads for torch."""

    device: Literal["cpu", "cuda"]
    cpus: int
    gpus: int
    threads: int


class Cluster(Executor):
    """Runs of a study on a Ray cluster.

    A run whose worker or node dies is begun again, `ATTEMPTS` times in all, and then as with `--reuse`: it takes the
    finished run, or goes on from the checkpoint, that it finds in a results folder shared between nodes.

    Args:
        options: what `Runner` takes beside the study, as a session without Ray would have it. Folders of the user's
            have to be at the same path on every node. `threads` are the CPUs that a run gets, and threads of torch.
            None: with a GPU, its part of the node's CPUs; else all CPUs of the smallest node (on a cluster of this
            machine as many threads as a session without Ray uses), so that no two runs share a node of that size and
            all runs have the same number of threads.
        address: of a running cluster, as `ray.init` takes it, with "auto" for the one that this node belongs to. The
            package is shipped to its nodes. None starts a cluster of this machine.
        make: makes the runner of a study with options.

    Raises:
        InputError: Ray is not installed, the address does not answer, or no node has what `--device` or `threads` ask
            for.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        address: str | None,
        root: Path | None = None,
        make: Callable[[Study, Mapping[str, Any]], Runner] = lambda study, options: Runner(study=study, **options),
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray.util.queue import Queue
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as error:
            raise InputError("--executor ray", "needs Ray, which is not installed", "pip install cvhw4[ray]") from error
        _connect(address)
        try:
            threads = options["threads"]
            share = share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], options["device"], threads)
        except InputError:
            self.close()
            raise
        paths = {name: options[name] and options[name].absolute() for name in ("weights", "results")}
        self.options = {**options, "device": share.device, "threads": share.threads, **paths}
        self._own_threads = address is None and threads is None and share.device == "cpu"
        self.make = make
        super().__init__(root, ray.cloudpickle)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._events = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        # Ray's own repetitions are off: they would train a run anew whose result is lost on the way, and tell nobody.
        self._task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(_train)
        self._waiting: dict[Any, Submitted] = {}  # by the reference to what the task will return

    def close(self) -> None:
        """Leaves the cluster, which ends what still runs there; a cluster of this machine is ended."""
        import ray

        ray.shutdown()

    def _begin(self, run: Submitted) -> None:
        runner = self._runner(run)
        runner = runner if run.begun == 0 else replace(runner, reuse=True)
        run.begun += 1
        task = self._task.options(name=f"{run.row.name} seed {run.seed}")
        self._waiting[task.remote(runner, run.row, run.seed, self._events, self._stored(run))] = run

    def _runner(self, run: Submitted) -> Runner:
        if self._own_threads and run.study.train is None:
            return self.make(run.study, {**self.options, "threads": _own_threads()})
        return self.make(run.study, self.options)

    def _stored(self, run: Submitted) -> dict[str, bytes]:
        """The files of finished runs with that seed, by name: a node with a folder of its own shall reuse them too."""
        if not self.options["reuse"]:
            return {}
        folder = self._runner(run).store.runs / run.row.name
        kinds = (".npz", ".json")  # in this order: a record names the file of its images
        return {f.name: f.read_bytes() for kind in kinds for f in folder.glob(f"seed{run.seed}-*{kind}")}

    def _wait(self) -> None:
        import ray

        for reference in ray.wait(list(self._waiting), timeout=POLL_SECONDS)[0]:
            self._take(reference)

    def _told(self) -> list[Event]:
        import ray

        with suppress(ray.exceptions.RayError):  # progress; nothing else hangs on it
            events: list[Event] = self._events.get_nowait_batch(self._events.qsize())
            return events
        return []

    def _take(self, reference: Any) -> None:
        """Stores what a task returned, or begins its run again."""
        import ray

        run = self._waiting.pop(reference)
        try:
            text, images, shown, failed, run.seconds = ray.get(reference)
            if failed is None:
                run.outcome = self._save(run, text, images, shown)
            else:
                run.outcome = failed
                if text is not None:
                    self._note(run, text)
        except ray.exceptions.RayTaskError as error:
            cause: BaseException = error.cause
            cause.__cause__ = error  # which shows where in the worker it was raised
            run.outcome = cause
        except ray.exceptions.RayError as error:
            if run.begun < ATTEMPTS:
                self._begin(run)
                return
            run.outcome = ProcessDied(
                f"{run.row.name}, seed {run.seed}: begun {ATTEMPTS} times, and each time its worker or node was"
                f" lost; look at the nodes' memory and at Ray's logs ({on_one_line(error)})"
            )
            run.outcome.__cause__ = error
        except InputError as error:  # this machine's results folder
            run.outcome = error

    def _save(self, run: Submitted, text: str, images: bytes | None, shown: tuple[bytes, bytes] | None) -> RunRecord:
        from cvhw4.records.images import ImageResults
        from cvhw4.records.samples import PredictionSamples, ValidationPictures

        store, record = self._runner(run).store, RunRecord.from_json(text, _RETURNED)
        if record.environment["commit"] is None:  # shipped code is no checkout, but perhaps that of one
            from cvhw4.records.environment import commit

            file = source_of(run.study.train) if run.study.train is not None else None
            known = commit() if run.study.train is None else commit(file) if file else None
            record = replace(record, environment={**record.environment, "commit": known})
        key = record.row, record.seed, record.fingerprint
        with store.writer(*key):
            found = store.find(*key)
            if found is not None and found.to_json() == record.to_json():  # a shared folder, or a run reused
                return found
            results = ImageResults.from_bytes(images, _RETURNED, targets=record.targets) if images is not None else None
            if shown is None:
                return store.save(record, results)
            samples = PredictionSamples.from_bytes(shown[0], _RETURNED, record)
            store.keep_pictures(samples.pictures, lambda: ValidationPictures.from_bytes(shown[1], _RETURNED))
            return store.save(record, results, samples)

    def _note(self, run: Submitted, text: str) -> None:
        """Stores why a run failed."""
        store, failure = self._runner(run).store, Failure.from_json(text, _RETURNED)
        if not store.checkpoint(failure.row, failure.seed, failure.fingerprint).exists():
            failure = replace(failure, checkpoint=None)  # it stays on its node
        store.fail(failure)


def share_of(nodes: Sequence[Mapping[str, float]], device: str, threads: int | None) -> Share:
    """What each run gets of nodes with these resources, by Ray's names; raises InputError where none has it."""
    gpu = device != "cpu" and any(node.get("GPU", 0) >= 1 for node in nodes)
    if device == "cuda" and not gpu:
        hint = "use --device cpu, or start nodes that have them (ray start --num-gpus N)"
        raise InputError("--device cuda", "finds no GPUs in the Ray cluster", hint)
    fit = [node for node in nodes if node.get("GPU" if gpu else "CPU", 0) >= 1]
    if not fit:
        raise InputError("--executor ray", "finds no CPUs in the Ray cluster", "start nodes that have them")
    largest = int(max(node.get("CPU", 0) for node in fit))
    if threads is not None and threads > largest:
        raise InputError(f"--threads {threads}", f"is more than any node has ({largest})", "ask for fewer")
    cpus = threads or int(min(node.get("CPU", 0) // (node["GPU"] if gpu else 1) for node in fit))
    return Share("cuda" if gpu else "cpu", cpus, int(gpu), max(1, cpus))


def _connect(address: str | None) -> None:
    import ray

    package = Path(__file__).resolve().parent.parent
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        paths = os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))
        ray.init("local", include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **quiet)
        return
    try:
        place = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
        host, _, port = place.removeprefix("ray://").rpartition(":")
        if host:
            socket.create_connection((host, int(port)), timeout=REACH).close()
        # With a working folder, empty, workers do not look for code at the path where this process was started.
        with TemporaryDirectory() as empty:
            ray.init(address, runtime_env={"py_modules": [str(package)], "working_dir": empty}, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        problem = f"cannot be reached ({on_one_line(error)})"
        raise InputError(f"--ray-address {address}", problem, "start a cluster there with ray start") from error


def _own_threads() -> int:
    """How many threads torch takes in this process by itself."""
    prepare_process()

    import torch

    return torch.get_num_threads()


def _train(
    runner: Runner, row: Row, seed: int, events: Any, stored: Mapping[str, bytes]
) -> tuple[str | None, bytes | None, tuple[bytes, bytes] | None, TrainingFailed | None, float]:
    """One run, in a worker process on some node.

    Args:
        events: queue that is told of it.
        stored: files that may be reused, by name.

    Returns:
        Its record as JSON, the file of its results by image, those of its samples and their pictures, None, and the
        seconds it took; or, if training failed, the note of that as JSON, if there is one, None, None, the error, 0.

    Raises:
        Exception: as `Runner.run` otherwise; an `InputError` names the node.
    """
    import ray

    node = socket.gethostname()
    taken: list[Any] = []

    def tell(epoch: Epoch | None) -> None:
        taken[:] = [events.actor.put_nowait.remote(Event(row.study, row.name, seed, node, epoch))]  # waits for nobody

    tell(None)
    try:
        for folder in (getattr(runner.study.sources.get(row.task.name), "folder", None), runner.weights):
            if folder is not None and not folder.is_dir():
                raise InputError(folder, "is not a folder", "put it at the same path on every node")
        for name, content in stored.items():
            path = runner.store.runs / row.name / name
            if not path.exists():
                write_atomically(path, content)
        runner.prepare(row, seed)
        began = time.perf_counter()
        record = runner.run(row, seed, tell)
        seconds = time.perf_counter() - began
    except TrainingFailed as failed:
        notes = [note for note in runner.store.failures() if (note.row, note.seed) == (row.name, seed)]
        return notes[-1].to_json() if notes else None, None, None, failed, 0.0
    except InputError as error:
        raise InputError(error.where, f"{error.problem} (on node {node})", error.hint) from error
    finally:
        ray.wait(taken, timeout=_LAST_WORDS)  # the queue keeps their order
    images = runner.store.images(record)
    samples = runner.store.samples(record)
    pictures = runner.store.pictures(samples.pictures) if samples is not None else None
    shown = (samples.to_bytes(), pictures.to_bytes()) if samples is not None and pictures is not None else None
    return record.to_json(), images.to_bytes() if images is not None else None, shown, None, seconds
