"""Several runs at once on this machine: worker processes, each of which trains one run after the other.

Workers are forked from a server that has imported what runs need and computed nothing (multiprocessing's forkserver):
torch is imported once, while this process goes on, and no thread is lost in a fork. A run's record is stored by its
worker, in the results folder of the session.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import ModuleType

from cvhw4.errors import InputError, ProcessDied
from cvhw4.executors.base import POLL_SECONDS, Event, Executor, Submitted, on_one_line
from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.runner import Runner
from cvhw4.study import Row, Study
from cvhw4.training.process import prepare_process

_NETWORKS = ("cvhw4.training.fit", "torchvision.transforms.v2", "PIL.Image")  # what training a network imports


def start_server(networks: bool) -> None:
    """Starts the process that workers are forked from, if there is none yet, and returns before it has imported all;
    `networks` of cvhw4's need torch. Raises InputError where no socket can be made in the folder for temporary files,
    as its path is too long."""
    if networks:
        prepare_process()  # what it puts into the environment is handed down
    forkserver.set_forkserver_preload([__name__, *(_NETWORKS if networks else ())])
    try:
        forkserver.ensure_running()
    except OSError as error:
        hint = "set TMPDIR to a shorter path, such as /tmp, or train with --jobs 1"
        raise InputError(gettempdir(), f"is no place for a socket ({error})", hint) from error


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    output: Path
    run: Submitted | None = None


class LocalPool(Executor):
    """So many runs at once in processes of this machine, by the runners that `make` makes of their studies.

    A run whose process dies has failed, and the others go on; one that is no longer waited for is ended.
    """

    def __init__(self, jobs: int, root: Path, make: Callable[[Study], Runner]) -> None:
        import cloudpickle  # which a GPU machine, that has one run at a time, may lack

        super().__init__(root, cloudpickle)
        self.jobs, self.make = jobs, make
        self._pending: deque[Submitted] = deque()
        self._workers: list[_Worker] = []
        self._events: list[Event] = []
        self._folder = TemporaryDirectory(prefix="cvhw4-jobs-")

    def result(self, row: Row, seed: int, on_event: Callable[[Event], None]) -> tuple[RunRecord, float]:
        """As `Executor.result`."""
        run = self._runs[row.study, row.name, seed]
        try:
            return super().result(row, seed, on_event)
        finally:
            for worker in [worker for worker in self._workers if worker.run is run]:
                self._end(worker)
            with suppress(ValueError):
                self._pending.remove(run)

    def close(self) -> None:
        """Ends the workers; their server ends with this process."""
        for worker in [*self._workers]:
            self._end(worker)
        self._folder.cleanup()

    def _begin(self, run: Submitted) -> None:
        self._pending.append(run)
        self._hand_out()

    def _told(self) -> list[Event]:
        told, self._events = self._events, []
        return told

    def _wait(self) -> None:
        busy = [worker for worker in self._workers if worker.run is not None]
        ready = wait([end for worker in busy for end in (worker.pipe, worker.process.sentinel)], POLL_SECONDS)
        for worker in busy:
            if worker.pipe in ready or worker.process.sentinel in ready:
                self._hear(worker)
        self._hand_out()

    def _hear(self, worker: _Worker) -> None:
        """Takes what a worker tells of its run, or notes that it died."""
        run = worker.run
        assert run is not None
        try:
            told = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            told = None
        if isinstance(told, Event):
            self._events.append(told)
        elif told is not None:
            run.outcome, run.seconds, run.warned, run.written = told
            worker.run = None
        else:
            worker.process.join(POLL_SECONDS)
            code = worker.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            why, hint = "", "see what it printed"
            if code == -signal.SIGKILL:
                why, hint = ", as it does where memory runs out", "give a smaller --jobs"
            run.outcome = ProcessDied(
                f"{run.row.name}, seed {run.seed}: its process died ({how}){why}. Fix: {hint}; --reuse takes what is "
                "finished.",
                traceback=worker.output.read_text("utf-8", "replace")[-2000:],  # such as a fault that Python tells of
            )
            self._end(worker)

    def _hand_out(self) -> None:
        """Gives runs to workers that have none."""
        while self._pending and (worker := self._idle()) is not None:
            run = self._pending.popleft()
            try:
                runner = self.make(run.study)
                runner = replace(runner, worker=runner.worker * self.jobs + worker.number)  # of a part: behind others'
                worker.pipe.send_bytes(self._pickle.dumps((runner, run.row, run.seed)))
                worker.run = run
            except Exception as error:  # what it raises where its test waits
                run.outcome = error

    def _idle(self) -> _Worker | None:
        """A worker that waits, a new one if need be; None where all are busy."""
        for worker in [worker for worker in self._workers if worker.run is None]:
            if worker.process.is_alive():
                return worker
            self._end(worker)
        free = sorted({*range(self.jobs)} - {worker.number for worker in self._workers})
        return self._start(free[0]) if free else None

    def _start(self, number: int) -> _Worker:
        mine, theirs = mp.Pipe()
        output = Path(self._folder.name) / str(number)
        output.touch()
        given = theirs, output, dict(os.environ), os.getcwd()
        process = mp.get_context("forkserver").Process(target=_work, args=given)
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # else workers run a script that called pytest.main() again
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()
        self._workers.append(worker := _Worker(number, process, mine, output))
        return worker

    def _end(self, worker: _Worker) -> None:
        """Ends a worker, and what its run started."""
        with suppress(OSError):
            os.killpg(worker.process.pid or 0, signal.SIGKILL)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)


def _work(pipe: Connection, output: Path, environment: Mapping[str, str], folder: str) -> None:
    """A worker: trains what comes through the pipe, until it is ended, at the latest with the process of the session.

    Args:
        output: file for what runs write to the terminal, which is the session's.
        environment, folder: the session's, which may have changed since the server was started.
    """
    import cloudpickle

    os.setpgid(0, 0)  # a group of its own: Ctrl-C is the session's affair, and what a run starts ends with it
    threading.Thread(target=_end_with_session, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while True:
        payload = pipe.recv_bytes()
        os.truncate(output, 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")  # once for each place: a training could give the same one at every step
            outcome, seconds = _train(payload, pipe.send)
        warned = [(str(w.message), w.category, w.filename, w.lineno) for w in caught]
        sys.stdout.flush()
        rest = seconds, warned, output.read_text("utf-8", "replace")
        try:
            pickle.loads(told := cloudpickle.dumps((outcome, *rest)))  # classes of the user's among it
        except Exception:  # an error that does not travel
            notes = getattr(outcome, "__notes__", ())
            told = cloudpickle.dumps((RuntimeError("\n".join([repr(outcome), *notes])), *rest))
        pipe.send_bytes(told)


def _end_with_session() -> None:
    if (session := mp.parent_process()) is not None:
        session.join()
        os.killpg(0, signal.SIGKILL)


def _train(payload: bytes, tell: Callable[[Event], None]) -> tuple[RunRecord | BaseException, float]:
    """One run: its record, or what it raised, and the seconds it took."""
    try:
        runner, row, seed = pickle.loads(payload)
    except Exception as error:
        problem = f"cannot read the study in another process ({on_one_line(error)})"
        return InputError("--jobs", problem, "give --jobs 1"), 0.0

    def event(epoch: Epoch | None) -> None:
        tell(Event(row.study, row.name, seed, "", epoch))

    try:
        event(None)
        runner.prepare(row, seed)  # so that imports and decoding are not timed as training
        began = time.perf_counter()
        return runner.run(row, seed, event), time.perf_counter() - began
    except BaseException as error:
        error.add_note(f"In its worker process:\n{traceback.format_exc()}")
        return error.with_traceback(None), 0.0
