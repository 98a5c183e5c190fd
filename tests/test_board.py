"""The notes that workers leave each other: what is waited for, and for how long."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvhw4.plugin import board as module
from cvhw4.plugin.board import SessionBoard
from cvhw4.plugin.collection import seed_in

RUNS = [("quick", "a", 0), ("quick", "a-seed1", 0), ("insects", "a", 0)]


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "IDLE_TIMEOUT_SECONDS", 0.1)
    return SessionBoard(tmp_path / "session")


def test_runs_are_known_by_study_row_and_seed(board):
    for i, run in enumerate(RUNS):
        board.begin(run)
        board.finish(run, Path(f"/results/{i}.json"))
    board.finish(("quick", "a", 1), diverged="loss nan")
    assert board.records([*RUNS, ("quick", "a", 1), ("quick", "b", 0)]) == [
        Path(f"/results/{i}.json") for i in (0, 1, 2)
    ]
    assert board.diverged("quick", "a") == ["loss nan"] and board.diverged("quick", "a-seed1") == []
    board.finish(RUNS[0], overwrite=False)  # a second test's failure
    assert board.records(RUNS[:1]) == [Path("/results/0.json")]
    board.finish(RUNS[0])
    assert board.records(RUNS[:1]) == []
    board.remove()
    board.remove()
    assert not board.folder.exists()


def test_a_run_is_waited_for_while_any_worker_is_at_one_and_not_for_ever(board):
    assert board.wait([]) and not board.wait(RUNS[:1])  # nobody has begun
    board.begin(RUNS[1])
    later = [threading.Timer(0.3, board.finish, [run]) for run in (RUNS[0], RUNS[1])]
    for timer in later:
        timer.start()
    began = time.monotonic()
    assert board.wait(RUNS[:1]) and time.monotonic() - began > 0.25  # longer than the time-out
    for timer in later:
        timer.join()
    assert board.wait(RUNS[:2]) and not board.wait(RUNS)  # the third is lost with its worker


def test_who_died_at_a_run_is_not_waited_for(board):
    board.begin(RUNS[1])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    board._note(RUNS[1], "begun").write_text(str(dead.pid))
    assert not board.wait(RUNS[:1])


def test_the_seed_of_a_test_of_a_group_of_xdist_is_known():
    assert seed_in("t.py::test_row[a.b-seed3]@gpu", "a.b") == seed_in("t.py::test_row[a.b-seed3]", "a.b") == 3
