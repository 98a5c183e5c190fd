"""A machine for nights: `.github/scripts/night.py` with a trainer that only writes records. PYTEST_DONT_REWRITE"""

import importlib.util
import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

from benchmarks.performance.speed_record import save
from cvhw4.records.history import History
from cvhw4.records.store import Store
from cvhw4.statistics.nights import CANARY
from tests.helpers import ROOT
from tests.helpers.records import git, speed
from tests.helpers.tiny import failure, record

SCRIPTS = ROOT / ".github" / "scripts"
SD = 0.01


def script(name):
    """A script as a module."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


night = script("night")


HOMEWORK = '[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n'


def digest(*parts):
    return sha256("|".join(map(str, parts)).encode()).hexdigest()


def published(remote):
    """The history on the branch of a remote, of which `copy` is a clone then."""
    shutil.rmtree("copy", ignore_errors=True)
    git("clone", "--branch", "nightly", remote, "copy")
    return History(Path("copy"))


class Trainer:
    """Stands in for `make`: writes the records that training would leave, and the session's JUnit file.

    Attributes:
        levels: accuracy by row; what is missing here is not run.
        code: of what is trained: other code draws other figures.
        failing: reasons by row and seed; `missed` tests that fail, by row.
        draws: of which luck the figures are, by row.
        ratios: of a comparison of speeds, by target; `trained` runs so far.
    """

    def __init__(self, folder):
        self.folder, self.code, self.driver = folder, "c0", "550.1"
        self.levels = {"q1_2-finetune": 0.9, "q1_3-scratch": 0.7}
        self.failing, self.missed, self.draws, self.checks, self.calls = {}, {}, {}, {}, []
        self.ratios, self.trained = {}, 0
        self.seconds, self.clock = 60.0, datetime(2026, 1, 1, 1, 17, tzinfo=UTC)
        self.before = lambda target, rows: None

    def run(self, clock, command, log, share=1.0):
        target, *variables = command[1:]
        told = dict(v.split("=", 1) for v in variables)
        if target != "gpu-full":
            assert not list(Path(told["OUT"]).iterdir())  # nothing to take again
            if target in self.ratios:
                save(speed(reference_seconds=[2.5 * self.ratios[target]] * 3), Path(told["OUT"]))
            return self.checks.get(target, 0)
        words = told["ARGS"].split()
        rows = told["ARGS"].split("-k ")[1].strip("'").split(" or ") if "-k" in words else list(self.levels)
        self.calls.append((words[words.index("--seeds") + 1], rows))
        self.before(target, rows)
        cases = []
        store = Store(Path(told["OUT"]), "full")
        for row in rows:
            for seed in range(int(words[words.index("--seeds") + 1])) if row in self.levels else ():
                cases.append(self.case(store, row, seed))
        Path(told["JUNIT"]).write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        return int(bool(self.failing or self.missed))

    def case(self, store, row, seed):
        of = self.draws.get(row, self.code)
        configuration = digest(row, of, self.driver)
        fingerprint = digest(configuration, seed)
        told = {"row": row, "seed": seed}
        if (row, seed) in self.failing:
            told["failed"] = self.failing[row, seed]
            base = record(row, seed=seed, configuration=configuration, fingerprint=fingerprint)
            store.fail(replace(failure(base), study="full", reason=told["failed"]))
        else:
            told["fingerprint"] = fingerprint
            if not store.path(row, seed, fingerprint).exists():
                luck = np.random.default_rng(int(fingerprint[:12], 16)).normal()
                self.trained += 1
                value = round(self.levels[row] + SD * luck, 4)
                self.clock += timedelta(seconds=1)
                base = record(
                    row,
                    seed=seed,
                    figures=((value,),),
                    loss=0.5 + luck / 100,
                    study="full",
                    configuration=configuration,
                    fingerprint=fingerprint,
                    started=self.clock.isoformat(),
                )
                times = replace(base.times, train_seconds=self.seconds * (1 + 0.01 * luck))
                environment = dict(base.environment) | {"commit": self.code, "driver": self.driver}
                store.save(replace(base, times=times, environment=environment))
        properties = "".join(f"<property name={quoteattr(k)} value={quoteattr(str(v))}/>" for k, v in told.items())
        wrong = f"<failure message={quoteattr(self.missed[row])}/>" if row in self.missed else ""
        return f'<testcase name="test_it[{row}-{seed}]"><properties>{properties}</properties>{wrong}</testcase>'


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A machine with a checkout, data and a store; `box()` is a night there, and gives its exit code and entry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(HOMEWORK)
    (tmp_path / "data").mkdir()
    trainer = Trainer(tmp_path)
    monkeypatch.setattr(night.Clock, "run", lambda clock, *args, **named: trainer.run(clock, *args, **named))
    for name in ("WEIGHTS", "HISTORY", "REMOTE", "ACCEPT", "PIN", "HELD", "ASIDE", "SEEDS", "URL", "PICTURES", "STUDY"):
        monkeypatch.delenv(name, raising=False)
    given = {"PORTRAITS": "data", "CAMVID": "data", "STORE": "store", "PYTHON": sys.executable, "MIN_FREE_GB": "0"}
    for name, value in {**given, "CANARY": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(night, "listen", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a disk's time is not what is tested
    pages = []
    monkeypatch.setattr("cvhw4.records.environment.commit", lambda: trainer.code)
    monkeypatch.setattr("cvhw4.report.history.write_history", lambda folder, nights: pages.append(len(nights)))

    def call(**environment):
        trainer.clock += timedelta(days=1)
        with monkeypatch.context() as patch:
            patch.setattr(night, "now", lambda: trainer.clock.isoformat(timespec="seconds"))
            for name, value in environment.items():
                patch.setenv(name, value)
            code = night.run()
        entry = json.loads((tmp_path / "night" / "night.json").read_text())
        call.rows = {r["row"]: r["status"] for r in entry.get("rows", ()) if r["data"] != CANARY}
        call.text = (tmp_path / "night" / "comparison.md").read_text()
        return code, entry

    call.trainer, call.folder, call.pages = trainer, tmp_path, pages
    call.history = lambda: History(tmp_path / "store" / "history")
    return call
