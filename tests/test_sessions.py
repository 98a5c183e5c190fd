"""Sessions in trouble and sessions side by side: killed, diverging, several workers, two at once in one folder."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from cvhw4.records.store import Store
from tests.helpers import ROOT
from tests.helpers.sessions import add_to_conftest, figures

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.helpers.sessions"]


def begin(folder, *args):
    """A session of its own, tiny, in a checkout."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.helpers.tiny", "benchmarks"]
    where = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    return subprocess.Popen([*command, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **where)


def test_workers_lose_nothing_and_give_the_figures_of_one_process_to_the_bit(study, pytester, monkeypatch):
    """With as many threads per run: those are part of a record."""
    (pytester.path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(pytester.path / "tmp"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    select = ("-k", "skip or q1_1", "--seeds", "2")
    result = study(*select, "-n", "2", "--results", "parallel", subprocess=True)
    result.assert_outcomes(passed=6, skipped=2)
    text = result.stdout.str()
    assert len(re.findall(r"^q\S+ +seed \d  best .* \[\d/6, .* left\]$", text, re.MULTILINE)) == 6
    assert re.search(r"q1_1-features +acc\. .* 2 +\d+ s", text) and re.search(r"q2_2-skip_miou +\S+ +\[.*\] +2 ", text)
    assert not list((pytester.path / "tmp").glob("cvhw4-session-*"))
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    before = torch.get_num_threads()
    study(*select, "--threads", str(threads), "--results", "serial").assert_outcomes(passed=6, skipped=2)
    torch.set_num_threads(before)
    serial, parallel = (figures(pytester.path / name) for name in ("serial", "parallel"))
    assert len(serial) == 6 and serial == parallel
    assert {raw["environment"]["threads"] for raw, _ in serial.values()} == {threads}


def test_a_killed_session_goes_on_where_it_was_broken_off(study, pytester, monkeypatch):
    """Killed with its workers as soon as a checkpoint is there; nothing it had finished is trained again."""
    select = ("-k", "q1_8 or q2_1a", "--seeds", "1", "--threads", "1")
    add_to_conftest("""
import os, pytest
from cvhw4.training import checkpoint, fit

@pytest.fixture(autouse=True)
def at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoints, "due", lambda self, epoch_ends=False: True)
    original = fit.train_epoch
    def lingers(*args):
        while args[2] == 2 and args[0].primary == "miou" and os.environ.get("LINGER"):
            pass
        return original(*args)
    monkeypatch.setattr(fit, "train_epoch", lingers)
""")
    monkeypatch.setenv("LINGER", "1")
    session = begin(pytester.path, *select)
    monkeypatch.delenv("LINGER")
    unfinished = pytester.path / "results" / "quick" / "unfinished" / "q2_1a-skip"
    deadline = time.monotonic() + 120
    while not list(unfinished.glob("*.safetensors")):
        assert time.monotonic() < deadline and session.poll() is None, session.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    session.send_signal(signal.SIGKILL)
    session.communicate()
    assert set(figures(pytester.path / "results")) == {("q1_8-recipe", 0)}
    result = study(*select, "--reuse", subprocess=True)
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count(" reused ") == 1 and text.count("(continued)") == 1
    study(*select, "--results", "whole", subprocess=True).assert_outcomes(passed=2)
    assert figures(pytester.path / "results") == figures(pytester.path / "whole")
    assert not list(unfinished.glob("*.safetensors"))


def test_two_sessions_at_once_train_every_run_once(study, pytester):
    select = ("-k", "q1_2 or q2_1a", "--seeds", "1", "--threads", "1", "--reuse")
    sessions = [begin(pytester.path, *select) for _ in range(2)]
    texts = [session.communicate()[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], texts
    assert sum(text.count(" reused ") for text in texts) == 2
    assert len(list((pytester.path / "results" / "quick" / "runs").glob("*/*.json"))) == 2


def test_a_diverging_run_is_failed_and_not_missing(study, pytester):
    add_to_conftest("""
import pytest, torch
from cvhw4.training.memory import AccumulatedStep

@pytest.fixture(autouse=True)
def diverging(monkeypatch, seed):
    original = AccumulatedStep.once
    bad = torch.tensor(float("nan"))
    monkeypatch.setattr(AccumulatedStep, "once", lambda *batch: original(*batch) * (bad if seed == 1 else 1))
""")
    result = study("-k", "q1_1", "--seeds", "3")
    result.assert_outcomes(passed=2, failed=1)
    text = result.stdout.str()
    reason = "q1_1-features, seed 1: loss nan at step 1 of 3 in epoch 1, learning rate 0.01; last good checkpoint: none"
    assert text.count(reason) >= 2 and "Traceback" not in text
    assert "FAILED" in text and "skipped" not in text
    store = Store(pytester.path / "results", "quick")
    (failure,) = store.failures()
    assert (failure.row, failure.seed, failure.epoch, failure.step, failure.lr) == ("q1_1-features", 1, 1, 1, 0.01)
    page = (store.folder / "report.md").read_text()
    assert "1 of 3 seeds failed" in page and "loss nan at step 1" in page
    (pytester.path / "conftest.py").write_text('pytest_plugins = ["cvhw4.plugin", "cvhw4.homework.options"]\n')
    study("-k", "q1_1", "--seeds", "3", "--reuse").assert_outcomes(passed=3)
    assert store.failures() == [] and "seeds failed" not in (store.folder / "report.md").read_text()


def test_claims_that_are_handed_out_before_their_runs_keep_nobody_waiting(study):
    """--dist loadfile begins with the file of most tests; on one worker its claims would wait for ever."""
    add_to_conftest("import cvhw4.plugin.board\ncvhw4.plugin.board.IDLE_TIMEOUT_SECONDS = 0.5\n")
    select = ("-k", "q1_1 or q1_2 or q1_4", "--seeds", "1")
    result = study(*select, "-n", "1", "--dist", "loadfile", "-rs", subprocess=True)
    result.assert_outcomes(passed=2, failed=3)  # as what nobody judged is no pass
    assert "not judged: no worker is left for its runs" in result.stdout.str()


def test_a_worker_that_dies_keeps_nobody_waiting(study, pytester):
    """Its runs go to the end of the other worker's list, behind the claims that wait for them."""
    add_to_conftest("""
import os, signal, pytest
import cvhw4.plugin.board
cvhw4.plugin.board.IDLE_TIMEOUT_SECONDS = 0.5

@pytest.fixture(autouse=True)
def dying(request):
    if "q1_5" in request.node.name and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
""")
    select = ("-k", "q1_1 or q1_2 or q1_5 or q1_6 or q1_7 or q1_4", "--seeds", "1", "-n", "2")
    result = study(*select, subprocess=True)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(figures(pytester.path / "results")) == 3  # all but the one that its worker died with
