"""Several runs at once in processes of this machine: the figures of one after the other, whatever dies on the way."""

import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvhw4 import InputError, Study
from cvhw4.errors import ProcessDied, TrainingFailed
from cvhw4.executors.local import LocalPool
from cvhw4.plugin import options
from cvhw4.plugin.options import jobs_at_once, threads_per_run
from cvhw4.runner import Runner
from tests.helpers import ROOT
from tests.helpers.sessions import figures

pytest_plugins = ["tests.helpers.sessions"]


def alive(process):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def train(run):
    """Says where it runs, and does what its row says."""
    run.log(os.getpid())
    run.settings["trained"].append(run.seed)
    for _ in range(2):
        yield {"accuracy": random.random() * run.settings["depth"], "trained": len(run.settings["trained"])}
        match run.settings["does"]:
            case "warn":
                warnings.warn("shallow", stacklevel=1)
            case "raise":
                raise ValueError("no depth")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "hang":
                child = subprocess.Popen(["sleep", "600"])
                (run.folder / "child").write_text(str(child.pid))
                time.sleep(600)


ROWS = {does: {"depth": 8, "does": does, "trained": []} for does in ("run", "warn", "raise", "die", "exit", "hang")}
OWN = Study("own", train=train, rows=ROWS, primary="accuracy")


@pytest.fixture
def runner(tmp_path):
    return Runner(study=OWN, device="cpu", results=tmp_path / "results", threads=1)


@pytest.fixture
def pool(runner):
    made = LocalPool(2, ROOT, lambda of: replace(runner, study=of))
    yield made
    made.close()


def told(record):
    return record.fingerprint, [(e.epoch, dict(e.figures)) for e in record.epochs], record.environment


def test_whichever_process_trains_a_run_it_is_the_same(pool, runner, capfd):
    events, runs = [], [(OWN.rows[name], seed) for name in ("run", "warn") for seed in (0, 1)]
    pool.submit([(OWN, *run) for run in runs])
    assert all(("own", row.name, seed) in pool for row, seed in runs)
    for row, seed in runs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            record, seconds = pool.result(row, seed, events.append)
        assert [str(w.message) for w in caught] == ["shallow"] * (row.name == "warn")  # once for each place
        process = int(capfd.readouterr().out)
        assert process != os.getpid() and seconds > 0
        assert [e.epoch and e.epoch.epoch for e in events if (e.row, e.seed) == (row.name, seed)] == [None, 1, 2]
        assert runner.store.find(row.name, seed, record.fingerprint).to_json() == record.to_json()
        serial = replace(runner, results=runner.results.with_name("serial"), threads=1)
        assert told(record) == told(serial.run(row, seed)) and ("own", row.name, seed) not in pool
        capfd.readouterr()
    assert len(pool._workers) == 2
    pool.close()
    assert not alive(process)


def test_what_becomes_of_one_run_is_no_others_affair(pool, runner):
    rows, nothing = OWN.rows, lambda event: None
    pool.submit([(OWN, rows[name], 0) for name in ("die", "exit", "raise")])
    with pytest.raises(ProcessDied, match=r"^die, seed 0: its process died \(SIGKILL\), .* --jobs") as died:
        pool.result(rows["die"], 0, nothing)
    with pytest.raises(ProcessDied, match=r"its process died \(exit code 3\)\. Fix: see what it printed; --reuse"):
        pool.result(rows["exit"], 0, nothing)
    with pytest.raises(TrainingFailed, match="raise, seed 0, epoch 2: train raises ValueError: no depth") as failed:
        pool.result(rows["raise"], 0, nothing)
    assert 'raise ValueError("no depth")' in failed.value.traceback and len(runner.store.failures()) == 1
    runner.note(died.value, rows["die"], 0)  # as a session does
    assert {f.row: f.reason for f in runner.store.failures()}["die"] == str(died.value)

    def too_long(event):
        if event.row == "hang" and event.epoch is not None:
            until(lambda: [*runner.results.rglob("child")])
            raise KeyError("a timeout of pytest's")

    pool.submit([(OWN, rows["hang"], 0), (OWN, rows["run"], 0)])
    with pytest.raises(KeyError):
        pool.result(rows["hang"], 0, too_long)
    (child,) = runner.results.rglob("child")
    until(lambda: not alive(int(child.read_text())))
    pool.submit([(OWN, rows["die"], 0)])  # once more
    assert pool.result(rows["run"], 0, nothing)[0].seed == 0
    with pytest.raises(TrainingFailed):
        pool.result(rows["die"], 0, nothing)


def test_workers_of_a_part_are_numbered_behind_those_of_the_parts_before(pool, runner, monkeypatch):
    given = []
    pool.make = lambda of: replace(runner, study=of, worker=1)
    worker = SimpleNamespace(number=1, pipe=SimpleNamespace(send_bytes=given.append))
    monkeypatch.setattr(pool, "_idle", lambda: worker)
    pool.submit([(OWN, OWN.rows["run"], 0)])
    assert pickle.loads(given[0])[0].worker == 3


class OddError(Exception):
    def __init__(self, what, more):
        super().__init__(what)


class Odd(Runner):
    def run(self, *args):
        raise OddError("an odd error", 1)


def test_an_error_that_cannot_come_back_is_told_with_its_traceback(pool, runner):
    pool.make = lambda of: Odd(**vars(runner))
    pool.submit([(OWN, OWN.rows["run"], 0)])
    with pytest.raises(RuntimeError, match=r"OddError\('an odd error'\)(.|\n)*in run\n"):
        pool.result(OWN.rows["run"], 0, lambda event: None)


def test_a_study_that_cannot_be_sent_is_an_input_error(pool, tmp_path):
    with (tmp_path / "file").open("w") as file:
        held = Study("held", train=lambda run: print(file=file), rows={"a": {}}, primary="accuracy")
        with pytest.raises(InputError, match=r"study held: has a function that cannot be sent to another process \("):
            pool.submit([(held, held.rows["a"], 0)])
    assert not pool._workers


def config(workers=None, **given):
    values = dict(jobs=None, executor="local", device="cpu", threads=None, part=(1, 1)) | given
    named = {f"cvhw4_{name}": value for name, value in values.items()} | {"numprocesses": workers}
    made = SimpleNamespace(getoption=named.__getitem__)
    if workers:
        made.workerinput = {"workerid": "gw0", "workercount": workers}
    return made


@pytest.mark.parametrize(
    ("given", "machine", "jobs", "threads"),
    [
        ({}, {}, 8, 1),
        ({"threads": 3}, {}, 2, 3),
        ({}, {"omp": "4,2"}, 2, None),
        ({}, {"quota": 3}, 3, 1),
        ({"jobs": 3}, {}, 3, 2),
        ({"jobs": 20}, {}, 20, 1),
        ({"device": "auto"}, {}, 8, 1),
        ({"device": "auto"}, {"gpu": True}, 1, 8),
        ({"device": "cuda"}, {}, 1, 8),
        ({"device": "mps"}, {}, 1, 8),
        ({"executor": "ray"}, {}, 1, 8),
        ({"part": (2, 4)}, {}, 1, 2),
        ({"workers": 2}, {}, 1, 4),
    ],
)
def test_as_many_at_once_as_cores_share_them(monkeypatch, given, machine, jobs, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(options, "cpu_quota", lambda: machine.get("quota"))
    monkeypatch.setattr(options, "_has_gpu", lambda: machine.get("gpu", False))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if "omp" in machine:
        monkeypatch.setenv("OMP_NUM_THREADS", machine["omp"])
    found = jobs_at_once(config(**given))
    assert (found, threads_per_run(config(**given), found)) == (jobs, threads)


# Sessions

SESSION = """
import os, random, signal, time
from pathlib import Path
import pytest
from cvhw4 import Study

WHERE = open(os.devnull, "w")

def fit(run):
    does = run.settings["does"]
    with open("begun", "a") as file:
        print(os.getpid(), run.seed, file=file)
    for epoch in range(2):
        yield {"accuracy": random.random()}
        if does == "die" and run.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "held":
            str(WHERE)
        while does == "hang":
            time.sleep(0.05)

study = Study("x", train=fit, rows={does: {"does": does} for does in ROWS}, primary="accuracy")

@pytest.mark.study(study)
def test_row(train, row, seed):
    assert train(row, seed).seed == seed
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository of somebody's own: `place(rows, *args)` is a session there that has begun."""
    for name in [*os.environ]:
        if name.startswith(("PYTEST_", "CI")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = "def pytest_cvhw4_run_epoch(seed, epoch):\n    print(seed, epoch.epoch)\n"
    (tmp_path / "conftest.py").write_text(f'pytest_plugins = ["cvhw4.plugin"]\n{told}')

    def begin(rows, *args):
        text = SESSION if "held" in rows else SESSION.replace("str(WHERE)", "pass")
        (tmp_path / "test_x.py").write_text(text.replace("ROWS", repr(rows)))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--jobs", "2", "--device", "cpu", *args]
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # if the shell has it ignored
        return subprocess.Popen(command, cwd=tmp_path, preexec_fn=heard, **settings)

    begin.folder = tmp_path
    return begin


def begun(place):
    """The processes that trained, and their seeds, in order."""
    file = place.folder / "begun"
    return [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.integration
def test_a_session_trains_several_at_once_and_reuses_them(place):
    session = place(["run"], "--seeds", "4", "-s", "--benchmark-json=b.json", "--import-mode=importlib")
    text = session.communicate()[0]
    assert session.returncode == 0 and len({process for process, _ in begun(place)}) == 2, text
    epochs = re.findall(r"\b(\d) (\d)$", text, re.MULTILINE)  # every run's, in the order of the tests
    assert epochs == [(str(seed), str(epoch)) for seed in range(4) for epoch in (1, 2)]
    assert len(re.findall(r"run +seed \d  best accuracy", text)) == 4 and "overhead" in text
    assert (place.folder / "b.json").read_text().count('"rounds": 1') == 4
    again = place(["run"], "--seeds", "5", "--reuse").communicate()[0]
    assert again.count("reused") == 4 and len(begun(place)) == 5, again
    assert begun(place)[-1][0] not in {process for process, _ in begun(place)[:4]}


@pytest.mark.integration
def test_what_cannot_travel_is_trained_one_at_a_time(place):
    text = place(["held"], "--seeds", "2").communicate()[0]
    assert "2 passed" in text and len({process for process, _ in begun(place)}) == 1
    assert "warning: runs are trained one at a time: study x: has a function that cannot be sent" in text


@pytest.mark.integration
def test_a_path_for_temporary_files_that_no_socket_can_have_is_one_error(place, monkeypatch):
    folder = place.folder / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    session = place(["run"], "--seeds", "2")
    text = session.communicate()[0]
    assert session.returncode == 4 and "INTERNALERROR" not in text, text
    assert "is no place for a socket (AF_UNIX path too long). Fix: set TMPDIR to a shorter path" in text
    assert begun(place) == []


@pytest.mark.integration
@pytest.mark.parametrize("stop", ["-x", signal.SIGINT, signal.SIGKILL])
def test_nothing_trains_on_behind_a_session(place, stop):
    rows, args = (["die", "hang"], ["-x"]) if stop == "-x" else (["hang"], [])
    session = place(rows, "--seeds", "3", *args)
    if stop != "-x":
        until(lambda: len(begun(place)) == 2)
        os.kill(session.pid, stop)
    text = session.communicate()[0]
    until(lambda: not any(alive(process) for process, _ in begun(place)))
    assert session.returncode and len(begun(place)) < 3 * len(rows)
    if stop == "-x":
        assert "die, seed 0: its process died (SIGKILL)" in text and "1 failed" in text and "passed" not in text
        assert re.search(r"^die +accuracy .* FAILED", text, re.MULTILINE), text
    if stop == signal.SIGINT:
        assert "seed 0  interrupted" in text and "Traceback" not in text


@pytest.mark.integration
def test_figures_are_those_of_one_process_to_the_bit(study, pytester):
    select = ("-k", "q1_1 or q1_2", "--seeds", "2", "--threads", "1", "--device", "cpu")
    for jobs in ("2", "1"):
        result = study(*select, "--jobs", jobs, "--results", jobs, subprocess=True)
        result.assert_outcomes(passed=4)
    at_once, serial = (figures(pytester.path / jobs) for jobs in ("2", "1"))
    assert len(serial) == 4 and serial == at_once
    reused = study(*select, "--jobs", "2", "--results", "2", "--reuse", subprocess=True)
    reused.assert_outcomes(passed=4)
    assert reused.stdout.str().count(" reused ") == 4 and figures(pytester.path / "2") == serial
