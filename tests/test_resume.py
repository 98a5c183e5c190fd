"""Runs that are killed, at random and at the worst moments, and continued: the record is that of an undisturbed run.

A run is a child process forked from this one, so that torch need not be loaded anew each time; this process must not
have used torch's threads before, so the tests fork from a server that has only imported things.
"""

import itertools
import json
import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from cvhw4.records.store import Store

pytestmark = pytest.mark.integration
ROWS = ("q1_1", "q1_2", "q1_8", "q2_1a", "q2_n1b")


def train(results, name, seed, moment=None):
    """Trains one tiny row, continuing what there is; with checkpoints after every step. Killed at a moment that is
    given as a function's place and how manieth call of it is meant."""
    from cvhw4.data import load
    from cvhw4.runner import Runner
    from cvhw4.training import checkpoint
    from tests.helpers import tiny

    load._load = lambda source, seed: tiny.dataset(source.task)
    original = checkpoint.Checkpoints.__init__
    checkpoint.Checkpoints.__init__ = lambda self, *args, **options: original(
        self, *args, **options | {"every": 0.0, "share": float("inf")}
    )
    if moment is not None:
        strike(*moment)
    runner = Runner(study=tiny.QUICK, device="cpu", results=Path(results), reuse=True, threads=1)
    runner.run(tiny.row(name), seed)


def strike(place, number):
    """Kills this process in the call of that number."""
    from cvhw4.records import store
    from cvhw4.training import fit

    owner, name, after = {
        "before a write": (os, "fsync", False),  # the file is there under its temporary name, perhaps not all of it
        "before a rename": (os, "replace", False),
        "after a rename": (os, "replace", True),
        "in evaluation": (fit, "evaluate", False),
        "after evaluation": (fit, "evaluate", True),
        "while tidying": (store.Store, "tidy", False),
    }[place]
    function, calls = getattr(owner, name), itertools.count(1)

    def struck(*args, **options):
        now = next(calls) == number
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, struck)


def child(results, name, seed, moment=None):
    """A process that trains, forked from a server that has loaded all modules."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.preload"])
    process = context.Process(target=train, args=(str(results), name, seed, moment))
    process.start()
    return process


def finish(results, name, seed):
    process = child(results, name, seed)
    process.join()
    assert process.exitcode == 0


def finish_as(undisturbed, results, name):
    """Continues a run with seed 0 to the record of the undisturbed one; its times."""
    finish(results, name, 0)
    (raw, images, times), (expected, others, _) = the_record(results, name), the_record(undisturbed, name)
    assert raw == expected and images.keys() == others.keys()
    assert all(np.array_equal(images[k], others[k]) for k in images)
    # Nothing else stays; validation pictures, which runs share, are removed once they are old.
    left = [p for p in (results / "quick").rglob("*") if p.suffix in (".safetensors", ".part")]
    assert [p for p in left if p.parent.name != "pictures"] == []
    return times


def the_record(results, name):
    """All that a record says, but for times."""
    store = Store(Path(results), "quick")
    (record,) = (r for r in store.load() if r.row.startswith(f"{name}-") and r.seed == 0)
    raw = json.loads(record.to_json())
    for key in ("times", "started"):
        del raw[key]
    for epoch in raw["epochs"]:
        del epoch["train_seconds"], epoch["evaluate_seconds"]
    return raw, {k: v for k, v in vars(store.images(record)).items() if v is not None}, record.times


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records of runs that nothing disturbs, and how long each takes from its start, in seconds."""
    results, took = tmp_path_factory.mktemp("undisturbed"), {}
    finish(results, "q1_1", 99)  # loads the server
    for name in ROWS:
        began = time.monotonic()
        finish(results, name, 0)
        took[name] = time.monotonic() - began
    return results, took


def kill_and_continue(undisturbed, results, kills, random):
    """Kills runs at random moments of their time and continues them, until so many kills have struck.

    Returns:
        kills that struck, by how many of their runs had a checkpoint by then.
    """
    whole, took = undisturbed
    struck, continued = 0, 0
    while struck < kills:
        name = random.choice(ROWS)
        folder = results / f"{struck}-{name}"
        for _ in range(random.randint(1, 3)):
            process = child(folder, name, 0)
            process.join(random.uniform(0, took[name]))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                struck += 1
        continued += finish_as(whole, folder, name).interruptions
    return struck, continued


def test_runs_killed_at_random_moments_end_with_the_same_record(undisturbed, tmp_path):
    assert kill_and_continue(undisturbed, tmp_path, 6, random.Random(0))[0] >= 6


@pytest.mark.long
def test_fifty_kills(undisturbed, tmp_path):
    struck, continued = kill_and_continue(undisturbed, tmp_path, 50, random.Random(1))
    print(f"\n{struck} of {struck} killed runs ended with the record of an undisturbed run; {continued} continued")
    assert struck >= 50 and continued >= 15, "kills that strike before the first checkpoint test little"


# A tiny run writes 5 or 6 checkpoints and then its images and its record.
MOMENTS = [
    ("before a write", 1),
    ("before a write", 3),
    ("before a rename", 3),
    ("after a rename", 3),
    ("in evaluation", 1),
    ("after evaluation", 1),
    ("in evaluation", 2),
    ("after evaluation", 2),
    *((place, number) for place in ("before a rename", "after a rename") for number in (7, 8, 9)),
    ("while tidying", 1),
]


@pytest.mark.parametrize(("place", "number"), MOMENTS)
def test_the_worst_moments(place, number, undisturbed, tmp_path):
    process = child(tmp_path, "q1_2", 0, (place, number))
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the moment never came"
    finish_as(undisturbed[0], tmp_path, "q1_2")
