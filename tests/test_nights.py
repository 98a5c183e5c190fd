"""Nights: the scripts with a trainer that only writes records, in 13 scenarios and a simulated year; what is judged, by
hand and by simulation; and the history's page."""

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import yaml
from scipy import stats

from cvhw4 import bisection
from cvhw4.errors import InputError
from cvhw4.records.history import Canary, History, JudgedRow, Measurement, Night, Reference, file_name
from cvhw4.records.store import Store
from cvhw4.report.history import found_shifts, history_page
from cvhw4.report.history import write_history as page_of  # by another name: `box` has that write nothing
from cvhw4.statistics.bounds import Bound, Bounds
from cvhw4.statistics.levels import series_of, shifts
from cvhw4.statistics.nights import CANARY, judge_canary, judge_night
from tests import year
from tests.test_changes import runs
from tests.test_speed import speed
from tests.tiny import QUICK, failure, record

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / ".github" / "scripts"
SD = 0.01
YEARS, SERIES = 12, 20  # simulated for error rates


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


def digest(*parts):
    return sha256("|".join(map(str, parts)).encode()).hexdigest()


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
                speed(reference_seconds=[2.5 * self.ratios[target]] * 3).save(Path(told["OUT"]))
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
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
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


def mean(entry, row):
    """A row's best accuracy in a night's entry."""
    (values,) = (m["values"].values() for m in entry["figures"] if (m["row"], m["figure"]) == (row, "best accuracy"))
    return sum(values) / len(values)


# The scenarios


def test_first_night_normal_night_regression_and_recovery(box):
    """The first three scenarios: what is worse stays so, held against the last good runs, and only row by row."""
    code, entry = box()
    assert (code, entry["state"]) == (0, "first") and set(box.rows.values()) == {"new"}
    code, entry = box()  # the same code: nothing is trained
    assert (code, entry["state"]) == (0, "fine") and set(box.rows.values()) == {"fine"}
    good = {r["row"]: r["runs"] for r in entry["good"]}
    before = mean(entry, "q1_2-finetune")

    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    for _ in range(2):  # still worse, though no worse than yesterday
        code, entry = box()
        assert (code, entry["state"]) == (1, "regression")
        assert box.rows == {"q1_2-finetune": "worse", "q1_3-scratch": "fine"}
        now = mean(entry, "q1_2-finetune")
        assert f"best accuracy {before:.4f} to {now:.4f}" in box.text and "Worse than before" in box.text
        now = {r["row"]: r["runs"] for r in entry["good"]}
        assert now["q1_2-finetune"] == good["q1_2-finetune"] and now["q1_3-scratch"] != good["q1_3-scratch"]
    assert box.trainer.calls[-1] == ("10", ["q1_2-finetune"])  # confirmed with as many fresh seeds

    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c2", 0.9
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine")
    assert [n.state for n in box.history().nights] == ["first", "fine", "regression", "regression", "fine"]
    named = {(r["row"], n) for k in ("good", "pinned", "rows") for r in entry[k] for n in r["runs"]}
    kept = {(p.parent.name, p.stem) for p in (box.folder / "store/history/records").glob("full/runs/*/*.json")}
    assert kept == named


def test_what_is_accepted_is_accepted_row_by_row_with_a_reason_that_stays(box):
    box()
    box.trainer.code = "c1"
    box.trainer.levels |= {"q1_2-finetune": 0.8, "q1_3-scratch": 0.6}
    code, entry = box(ACCEPT="q1_2-finetune: fewer epochs, agreed on")
    assert (code, entry["state"]) == (1, "regression")
    assert box.rows == {"q1_2-finetune": "accepted", "q1_3-scratch": "worse"}
    assert box.trainer.calls[-1][1] == ["q1_3-scratch"]  # what is accepted needs no confirmation
    box()
    assert box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "worse"}
    code, entry = box(ACCEPT="all: the recipe's new augmentation")
    assert code == 0 and box.rows["q1_3-scratch"] == "accepted" and box()[0] == 0
    assert [dict(n.accepted) for n in box.history().nights if n.accepted] == [
        {"q1_2-finetune": "fewer epochs, agreed on"},
        {"all": "the recipe's new augmentation"},
    ]
    page, _ = history_page(box.history().nights)
    assert "fewer epochs, agreed on" in page


@pytest.mark.parametrize(
    ("accept", "why"),
    [("q1_2-finetune", "write it as ROW: REASON"), ("q9: because", "ACCEPT names q9, which is not a row")],
)
def test_an_acceptance_without_a_reason_or_of_no_row_ends_the_night_before_it_trains(box, accept, why):
    box()
    trained = len(box.trainer.calls)
    code, entry = box(ACCEPT=accept)
    assert (code, entry["state"]) == (4, "broken") and why in entry["why"] and len(box.trainer.calls) == trained
    assert box()[1]["state"] == "fine"


def test_a_first_night_with_a_failed_run_is_a_baseline_for_the_other_rows(box):
    box.trainer.failing = {("q1_3-scratch", 2): "loss nan in epoch 1"}
    code, entry = box()
    assert (code, entry["state"]) == (1, "failed") and "loss nan" in box.text
    assert box.rows == {"q1_2-finetune": "new", "q1_3-scratch": "failed"}
    assert [r["row"] for r in entry["good"]] == ["q1_2-finetune"]
    box.trainer.failing = {}
    assert box()[1]["state"] == "fine" and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "new"}


def test_a_missed_bound_fails_its_row_and_keeps_what_that_is_held_against(box):
    box()
    box.trainer.code, box.trainer.missed = "c1", {"q1_2-finetune": "best accuracy 0.85 is below its bound"}
    code, entry = box()
    assert (code, entry["state"]) == (1, "failed") and "below its bound" in box.text
    assert box.rows == {"q1_2-finetune": "failed", "q1_3-scratch": "fine"}
    since = {r["row"]: r["since"] for r in entry["good"]}
    assert since["q1_2-finetune"] < since["q1_3-scratch"] == entry["started"]


def test_a_row_that_is_not_run_is_missing_until_that_is_accepted(box):
    box()
    level = box.trainer.levels.pop("q1_3-scratch")
    for _ in range(2):
        code, entry = box()
        assert (code, entry["state"]) == (1, "regression") and box.rows["q1_3-scratch"] == "missing"
    assert box(ACCEPT="q1_3-scratch: no longer of interest")[0] == 0 and "q1_3-scratch" in box.rows
    assert box()[0] == 0 and "q1_3-scratch" not in box.rows
    box.trainer.levels["q1_3-scratch"] = level
    assert box()[0] == 0 and box.rows["q1_3-scratch"] == "new"


def test_missing_data_a_full_disk_and_nonsense_are_told_and_the_next_night_goes_on(box):
    box()
    for environment, why in (
        ({"PORTRAITS": ""}, "No PORTRAITS: set the variable PORTRAITS"),
        ({"CAMVID": "gone"}, "CAMVID names gone, which is no folder"),
        ({"WEIGHTS": "gone"}, "WEIGHTS names gone"),
        ({"MIN_FREE_GB": "900000"}, "The disk is full:"),
        ({"SEEDS": "many"}, "SEEDS is 'many'"),
        ({"ASIDE": "../x"}, "ASIDE is '../x'"),
    ):
        code, entry = box(**environment)
        assert (code, entry["state"]) == (4, "broken") and entry["why"].startswith(why)
        assert why in box.text and list(Path("night/update/nights").iterdir())
        assert "broken 2026" in Path("night/update/badge.svg").read_text()
    assert box.pages == [1, 2, 3, 4, 5]  # of broken nights too, where STORE is known
    assert "**nothing could be judged** (The disk is full" in history_page(box.history().nights)[0]
    assert box()[1]["state"] == "fine"
    assert [n.state for n in box.history().nights][0::1].count("broken") >= 4


def test_a_disk_that_fills_during_the_night_is_told(box, monkeypatch):
    box()
    monkeypatch.setattr(History, "add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, entry = box()
    assert (code, entry["state"]) == (4, "broken") and "No space left" in entry["why"]


def test_a_night_that_is_cut_short_judges_nothing_and_the_next_goes_on(box):
    box()
    box.trainer.code = "c1"

    def cut(target, rows):
        raise night.Broken("make gpu-full was not done within 238 minutes. The next night goes on.")

    box.trainer.before = cut
    code, entry = box()
    assert (code, entry["state"]) == (4, "broken") and "not done within" in box.text
    box.trainer.before = lambda *_: None
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine")


def test_a_chance_alarm_is_not_confirmed_and_does_not_come_back(box):
    """One row is unlucky in its first five seeds, and not in fresh ones; the next night takes the same runs again."""
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.85
    box.trainer.before = lambda target, rows: box.trainer.levels.update(
        {"q1_2-finetune": 0.9 if len(rows) == 1 else 0.85}
    )
    for _ in range(2):
        code, entry = box()
        assert (code, entry["state"]) == (0, "fine") and box.rows["q1_2-finetune"] == "unconfirmed"
        assert entry["good"][0]["since"] < entry["started"]  # the unlucky runs are nobody's measure
    assert "fresh" not in entry["why"]


def test_what_there_was_no_time_to_confirm_is_told_and_confirmed_the_next_night(box):
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8

    def cut(target, rows):
        if box.trainer.calls[-1][0] == "10":
            box.trainer.levels["q1_2-finetune"] = 0.9  # with fresh seeds it is as before
            raise night.Broken("make gpu-full was not done within 3 minutes. The next night goes on.")

    box.trainer.before = cut
    code, entry = box()
    assert (code, entry["state"], entry["worse"]) == (1, "regression", []) and box.rows["q1_2-finetune"] == "worse"
    assert "Not confirmed with fresh seeds: make gpu-full was not done within 3 minutes" in box.text
    box.trainer.before = lambda *_: None
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine") and box.rows["q1_2-finetune"] == "unconfirmed"


def test_an_upgrade_is_named_and_is_no_regression(box):
    """Another driver trains all runs anew. Later one row is taken from the store: the night is its own commit's."""
    box()
    box.trainer.code, box.trainer.driver = "c1", "560.35"
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine") and set(box.rows.values()) == {"fine"}
    page, _ = history_page(box.history().nights)
    (line,) = (line for line in page.splitlines() if "560.35" in line)
    assert [cell.strip() for cell in line.split("|")[1:5]] == ["2026-01-03", "driver", "550.1", "560.35"]
    box.trainer.code, box.trainer.draws = "c2", {"q1_2-finetune": "c1"}
    entry = box()[1]
    assert entry["commit"] == entry["environment"]["commit"] == "c2"


def test_a_slow_decline_shows_against_the_pinned_night(box):
    """1 sd a night: no night is worse than the one before, and the tenth at the latest is worse than the first."""
    box.trainer.levels = {"q1_2-finetune": 0.9}
    states = [box()[1]["state"]]
    for n in range(1, 11):
        box.trainer.code, box.trainer.levels["q1_2-finetune"] = f"c{n}", 0.9 - n * SD
        states.append(box()[1]["state"])
    assert states == ["first"] + ["fine"] * (told := states.index("regression") - 1) + ["regression"] * (10 - told)
    (cut, *_) = shifts(series_of(box.history().nights)["q1_2-finetune", "embedded", "best accuracy"])
    assert cut.after < cut.before
    box.trainer.code = "c11"
    box(ACCEPT="all: known", PIN="true")
    assert box()[0] == 0


def test_what_was_worse_stays_so_until_that_is_refuted_as_surely(box):
    """A lucky night whose fresh seeds are unlucky closes nothing, nor does a half repair; the old code does at once."""
    box.trainer.levels = {"q1_2-finetune": 0.9}
    for n in range(4):
        box.trainer.code = f"a{n}"
        box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "b0", 0.85
    (found, _) = box()[1]["worse"]
    assert (found["name"], len(found["values"])) == ("best accuracy", 10)
    box.trainer.before = lambda target, rows: box.trainer.levels.update(
        {"q1_2-finetune": 0.85 if box.trainer.calls[-1][0] == "10" else 0.9}
    )
    box.trainer.code = "b1"
    code, entry = box()
    assert (code, entry["worse"][0]) == (1, found) and "and not repaired for certain" in box.text
    box.trainer.before = lambda *_: None
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "b2", 0.875
    assert box()[1]["worse"][0] == found
    assert "| q1_2-finetune | embedded | best accuracy | 2026-01-06 |" in history_page(box.history().nights)[0]
    store = box.folder / "store"
    shutil.copytree(store, "kept")
    box.trainer.code = "a3"  # a commit reverted: the very runs
    assert (box()[0], box.history().judged.worse) == (0, [])
    shutil.rmtree(store), shutil.copytree("kept", store)
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c", 0.9
    assert (box()[0], box.history().judged.worse) == (0, [])
    shutil.rmtree(store), shutil.copytree("kept", store)
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "d", 0.875
    assert box(ACCEPT="all: good enough")[0] == 0 and box.history().judged.worse == []


def test_pinning_moves_what_slow_declines_show_against(box):
    first = box()[1]
    box.trainer.code = "c1"
    assert box()[1]["pinned"] == first["pinned"]
    box.trainer.code = "c2"
    entry = box(PIN="true")[1]
    assert {r["since"] for r in entry["pinned"]} == {entry["started"]}


def test_a_pull_request_is_held_against_the_newest_night_and_changes_nothing(box):
    """It is not blamed for what main has made worse, and its runs are kept for its next commit."""
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    box()
    before = sorted((p, p.read_bytes()) for p in (box.folder / "store/history").rglob("*") if p.is_file())
    box.trainer.code = "pr"
    code, entry = box(ASIDE="pull-request-7")
    assert (code, entry["state"]) == (0, "fine") and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "fine"}
    box.trainer.levels["q1_3-scratch"] = 0.5
    box.trainer.draws = {"q1_3-scratch": "pr2"}
    code, entry = box(ASIDE="pull-request-7")
    assert code == 1 and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "worse"}
    assert not Path("night/update").exists()
    assert before == sorted((p, p.read_bytes()) for p in (box.folder / "store/history").rglob("*") if p.is_file())
    box.trainer.draws, trained = {}, box.trainer.trained
    box(ASIDE="pull-request-7")
    box.trainer.code = "c1"  # another one, whose code trains as main's does
    box(ASIDE="pull-request-8")
    assert box.trainer.trained == trained


def test_a_lost_store_and_a_lost_branch_are_made_good_from_each_other(box):
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    box()
    shutil.copytree("store/history", "branch")
    shutil.rmtree("store")  # the disk of the machine
    code, entry = box(HISTORY="branch", HELD="true")
    assert (code, entry["state"]) == (1, "regression") and len(box.history().nights) == 3
    assert box(HISTORY="gone")[1]["state"] == "regression"  # the branch
    shutil.rmtree("store")  # both
    code, entry = box(HELD="true")
    assert (code, entry["state"]) == (4, "broken") and "The history is lost" in entry["why"] and not entry["good"]
    assert box(HELD="true", ACCEPT="all: measured by hand on another machine")[1]["state"] == "first"
    assert box(HELD="true")[1]["state"] == "fine"


def test_from_cron_a_lost_store_is_made_good_from_the_branch_or_the_night_is_broken(box, capfd):
    """Without it a regression would become what later nights are held against."""
    subprocess.run(["git", "init", "--quiet", "--bare", "remote.git"], check=True)
    remote = str(box.folder / "remote.git")
    box(REMOTE=remote)
    shutil.rmtree("store")
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    Path("remote.git").rename("away")
    for _ in range(2):
        code, entry = box(REMOTE=remote)
        assert (code, entry["state"]) == (4, "broken") and "its branch cannot be read: git ls-remote" in entry["why"]
    Path("away").rename("remote.git")
    assert box(REMOTE=remote)[1]["state"] == "regression"
    Path("remote.git").rename("away")  # with a history at hand the night goes on, and says so
    assert box(REMOTE=remote)[1]["state"] == "regression" and "not published" in capfd.readouterr().err
    Path("away").rename("remote.git")
    assert box(REMOTE=remote)[1]["state"] == "regression"
    subprocess.run(["git", "clone", "--quiet", "--branch", "nightly", remote, "copy"], check=True)
    states = ["first", "broken", "broken", "regression", "regression", "regression"]  # those that were not pushed, too
    assert [n.state for n in History(Path("copy")).nights] == states


def test_what_no_night_names_is_pruned_in_time(box):
    box()
    old = [Path("store/results/full") / p for p in ("unfinished/q1_2/seed0-a.safetensors", "runs/q1_2/seed0-b.npz")]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in Path("store/results").rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    box()
    assert not any(path.exists() for path in old)
    assert len(list(Path("store/results/full/runs/q1_2-finetune").glob("*.json"))) == 5  # the baseline's


def test_checks_and_the_canary_are_part_of_the_night(box):
    box.trainer.checks, box.trainer.ratios = {"gpu-check": 2}, {"gpu-speed": 4.0}
    code, entry = box(CANARY="q1_2-finetune")
    assert entry["checks"] == {"gpu-check": "failed", "gpu-speed": "passed"} and entry["state"] == "failed"
    box.trainer.checks = {}
    for _ in range(3):
        code, entry = box(CANARY="q1_2-finetune")
        assert code == 0 and len(entry["canary"]["seconds"]) == 2
    trained = [call for call in box.trainer.calls if call == ("2", ["q1_2-finetune"])]
    assert len(trained) == 4 and not list(Path("store").glob("anew-*"))  # anew, and nothing of it is kept
    (ratio,) = (m for m in entry["figures"] if m["data"] == "gpu-speed")
    assert (ratio["row"], ratio["figure"], ratio["values"]) == ("frozen-random-crops", "speed ratio", {"0": 4.0})
    page, _ = history_page(box.history().nights)
    assert "speed ratio on gpu-speed" in page and "training seconds on canary" in page
    box.trainer.seconds = 90
    code, entry = box(CANARY="q1_2-finetune")
    slow = next(r for r in entry["rows"] if r["data"] == CANARY)
    assert (code, entry["state"], slow["status"]) == (1, "regression", "slower") and "1.5" in slow["why"]
    assert len(trained) + 2 == len([call for call in box.trainer.calls if call == ("2", ["q1_2-finetune"])])
    code, entry = box(CANARY="q1_2-finetune", ACCEPT="canary: another GPU")
    assert code == 0 and box(CANARY="q1_2-finetune")[0] == 0


# Processes


def test_a_time_limit_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(300)"
    inner = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); time.sleep(300)"
    clock = night.Clock(0.03)
    with pytest.raises(night.Broken, match="was not done within"):
        clock.run([sys.executable, "-c", inner], tmp_path / "log")
    assert not processes(stubborn)


def processes(text):
    """Ids of the processes whose command holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def started(folder, makefile, **environment):
    """night.py as a process of its own, begun as GitHub's runner does: by a shell, which is what is ended."""
    (folder / "Makefile").write_text(makefile)
    (folder / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    given = {"PORTRAITS": ".", "CAMVID": ".", "STORE": str(folder / "store"), "PYTHON": sys.executable, "CANARY": ""}
    given |= {"MIN_FREE_GB": "0", "CHECKS": "", "PYTHONPATH": str(ROOT)}
    outer = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    given["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (folder / ".github").unlink(missing_ok=True)
    (folder / ".github").symlink_to(ROOT / ".github")
    steps = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]["train"]["steps"]
    (line,) = (step["run"] for step in steps if "run" in step)
    (folder / "step.sh").write_text(f"{line}\n")
    command = ["bash", "-e", "step.sh"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=outer | given | environment, **pipes)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_night_that_is_ended_from_outside_is_broken_and_ends_what_it_started(tmp_path, sign):
    mark = f"7{os.getpid()}.25"
    process = started(tmp_path, f"gpu-full:\n\tsleep {mark}\n")
    until(lambda: processes(f"sleep\0{mark}"))
    process.send_signal(sign)
    output, _ = process.communicate(timeout=60)
    entry = json.loads((tmp_path / "night" / "night.json").read_text())
    assert entry["state"] == "broken"
    if sign == signal.SIGKILL:  # nobody can answer that: what was written at the start tells of it
        assert "was broken off" in entry["why"]
        for one in processes(f"sleep\0{mark}"):
            os.kill(one, signal.SIGKILL)
    else:
        assert process.returncode == 4 and sign.name in entry["why"], output
        assert not processes(f"sleep\0{mark}")


def test_two_jobs_share_the_machine_one_after_the_other(tmp_path):
    """Also with whatever else takes the lock by `flock`."""
    holder = tmp_path / "store" / "lock"
    holder.parent.mkdir()
    with subprocess.Popen(["flock", str(holder), "sh", "-c", "echo held; read _"], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        first = started(tmp_path, "gpu-full:\n\tfalse\n", MINUTES="0.02")
        output, _ = first.communicate(timeout=60)
        assert first.returncode == 4 and "held" in json.loads((tmp_path / "night/night.json").read_text())["why"], (
            output
        )
        second = started(tmp_path, "gpu-full:\n\tfalse\n")
        assert second.stdout.readline().startswith("waiting for")
        other.communicate(b"\n")
        output, _ = second.communicate(timeout=60)
        assert "make gpu-full" in output and "No test has run" in output


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_parts_of_make_gpu_full(tmp_path, sign):
    """A shell's background processes ignore SIGINT, which they inherit."""
    mark = f"import time; time.sleep(7{os.getpid()}.5)"
    stub = tmp_path / "stub"
    stub.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{mark}'\n")
    stub.chmod(0o755)
    command = ["make", "gpu-full", f"PYTHON={stub}", f"OUT={tmp_path}", "DEVICE=cpu", "AT_ONCE=3"]
    outer = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=outer,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored in the background
    )
    try:
        until(lambda: len(processes(mark)) == 3)
        os.killpg(process.pid, sign)
        assert process.wait(60) != 0
        until(lambda: not processes(mark), 20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_pinned_versions_are_installed_once_for_every_set_of_pins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = night.Settings({"STORE": "store"})
    commands, failing = [], []

    class Clock:
        def run(self, command, log):
            commands.append(command)
            if "venv" in command:
                Path(command[-1], "bin").mkdir(parents=True)
            return int(command[2] in failing)

    found = []
    for pins in ("torch==1", "torch==1", "torch==2", "torch==3"):
        Path("pyproject.toml").write_text('[project]\ndependencies = ["torch>=1", "numpy"]\n')
        Path("constraints.txt").write_text(pins)
        found.append(night.install(settings, Clock()))
    assert found[0] == found[1] and len(set(found)) == 3 and len(commands) == 6
    assert commands[1][:4] == [found[0], "-m", "pip", "install"] and commands[1][-2:] == ["torch>=1", "numpy"]
    assert commands[1][commands[1].index("--constraint") + 1] == "constraints.txt"
    assert len(list(Path("store/environments").iterdir())) == 2
    failing.append("pip")
    Path("constraints.txt").write_text("torch==4")
    with pytest.raises(night.Broken, match="cannot be installed"):
        night.install(settings, Clock())
    failing.clear()
    night.install(settings, Clock())  # anew, as it was not complete
    assert len(commands) == 10


def test_a_night_goes_on_in_the_environment_with_the_pinned_versions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("torch==1")
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    pins = b"\0".join((tmp_path / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    folder = tmp_path / "store" / "environments" / sha256(pins + sys.version.encode()).hexdigest()[:12]
    (folder / "bin").mkdir(parents=True)
    (folder / "complete").touch()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    process = started(tmp_path, "gpu-full:\n\tfalse\n", PYTHON="")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 4 and f"PYTHON={folder}/bin/python" in output and "No test has run" in output, output
    assert [n.state for n in History(tmp_path / "store" / "history").nights] == ["broken"]


@pytest.mark.integration
def test_the_crontab_of_the_docs_publishes_and_sends_only_what_somebody_has_to_know(tmp_path):
    docs = (ROOT / "docs/nightly.md").read_text()
    crontab = docs.split("### From cron")[1].split("```text\n")[1].split("```")[0].splitlines()
    given = dict(line.split("=", 1) for line in crontab if "=" in line.split()[0])
    night_line, check_line = (line.split(maxsplit=5)[5] for line in crontab if line[0].isdigit())
    (tmp_path / "main").mkdir()
    (tmp_path / "main/Makefile").write_text("gpu-full:\n\tfalse\n")
    (tmp_path / "main/pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    shutil.copytree(SCRIPTS, tmp_path / "main/.github/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(tmp_path / "main"), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", tmp_path / "main", tmp_path / "cvhw4"], check=True)
    env = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | given
    env |= {"PORTRAITS": ".", "CAMVID": ".", "PYTHON": sys.executable, "CANARY": "", "CHECKS": ""}  # of this test
    env |= {"MIN_FREE_GB": "0", "PYTHONPATH": str(ROOT)}

    def sent(line):
        return subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)

    mail = sent(night_line).stdout
    assert "make gpu-full" in mail and "No test has run" in mail and "not published" not in mail
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "nightly"], capture_output=True, text=True).stdout
    assert "nights/" in listed and "badge.svg" in listed
    assert "There is no good night yet." in sent(check_line).stdout
    entry = {"state": "fine", "started": night.now()}
    (tmp_path / "cvhw4-nightly/history/nights/x.json").write_text(json.dumps(entry))
    assert sent(check_line).stdout == ""


# The branch


def test_the_history_is_published_beside_what_others_publish(box):
    subprocess.run(["git", "init", "--quiet", "--bare", "remote.git"], check=True)
    remote = str(box.folder / "remote.git")
    assert box(REMOTE=remote)[0] == 0
    box.trainer.code = "c1"
    box()
    mine = Path("night/update").rename("mine")
    assert box(REMOTE=remote)[0] == 0
    night.publish(mine, remote, "nightly")
    subprocess.run(["git", "clone", "--quiet", "--branch", "nightly", remote, "copy"], check=True)
    assert len(History(Path("copy")).nights) == 3 and not list(Path("copy").rglob("*.npz"))
    assert len(History(Path("copy")).runs(History(Path("copy")).judged.good, "full")) == 10
    code, _ = box(REMOTE=str(box.folder / "nowhere.git"))
    assert code == 1  # the night was fine, and somebody has to know
    with pytest.raises(night.Broken):
        night.publish(Path("copy/records"), remote, "nightly")


def test_nothing_but_a_nights_files_gets_onto_the_branch(box):
    subprocess.run(["git", "init", "--quiet", "--bare", "remote.git"], check=True)
    box()
    update = Path("night/update")
    (update / "records/x").mkdir(), (update / "records/x/y.sh").touch(), (update / "evil.html").touch()
    (update / "index.html").symlink_to("/etc/passwd")
    night.publish(update, str(box.folder / "remote.git"), "nightly")
    listed = subprocess.run(
        ["git", "-C", "remote.git", "ls-tree", "-r", "--name-only", "nightly"], capture_output=True, text=True
    )
    names = listed.stdout.split()
    assert len([n for n in names if n.startswith("records/full/runs/")]) == 10
    assert {n.split("/")[0] for n in names} == {".nojekyll", "nights", "records"}


def test_no_good_night_for_long_is_overdue(box, monkeypatch):
    assert night.overdue(Path("nowhere"), 36) == "There is no good night yet."
    box.trainer.clock = datetime.now(UTC) - timedelta(days=1, hours=35)
    box()
    assert night.overdue(Path("store/history"), 36) == ""
    assert "hours ago" in night.overdue(Path("store/history"), 34.5)
    monkeypatch.setenv("STORE", "store")
    assert night.main(["check", "36"]) == 0 and night.main(["check", "34.5"]) == 1
    assert night.main(["check"]) == 4 and night.main([]) == 4


# What is judged


def nightly(started, values, **changes):
    """A night with one figure's values by seed."""
    figures = [Measurement(row="r", data="d", figure="best accuracy", values={str(i): v for i, v in enumerate(values)})]
    return Night(started=f"2026-01-{started:02d}T01:00:00+00:00", state="fine", figures=figures, **changes)


def points(*nights):
    found = series_of([nightly(i + 1, values, commit=f"c{i}") for i, values in enumerate(nights)])
    return found["r", "d", "best accuracy"]


def test_a_change_of_level_by_hand():
    """Two nights of 0.80, 0.82 and two of 0.70, 0.72: sd within nights 0.01 * sqrt(2), 4 degrees of freedom; the cut in
    the middle has means 0.81 and 0.71 of four runs each, one of three places."""
    (shift,) = shifts(points([0.80, 0.82], [0.82, 0.80], [0.70, 0.72], [0.72, 0.70]), level=0.05)
    statistic = 0.1 / (0.01 * math.sqrt(2) * math.sqrt(1 / 4 + 1 / 4))
    assert shift.p_value == pytest.approx(3 * 2 * stats.t.sf(statistic, 4))
    assert (shift.index, shift.commits) == (2, ("c1", "c2"))
    assert (shift.before, shift.after) == (pytest.approx(0.81), pytest.approx(0.71))


def test_nights_with_the_same_runs_are_one_measurement_and_the_commits_are_the_nearest():
    found = points([0.80, 0.82], [0.80, 0.82], [0.80, 0.82], [0.6, 0.62], [0.6, 0.62])
    assert [(p.first.commit, p.last.commit) for p in found] == [("c0", "c2"), ("c3", "c4")]
    (shift,) = shifts(found, level=0.05)
    assert shift.commits == ("c2", "c3")
    assert shifts(found[:1]) == [] == shifts([])


def test_changes_of_level_are_found_and_seldom_where_there_are_none():
    """1 % of series without a change are cut; a step of 3 sd after 30 nights of 5 seeds is found within one night of
    its place in 95 of 100."""
    rng = np.random.default_rng(7)
    level = [[0.8 + SD * rng.normal() for _ in range(5)] for _ in range(28 * 400)]
    false = sum(bool(shifts(points(*level[28 * i : 28 * (i + 1)]))) for i in range(400))
    assert false <= 400 * 0.01 + 3 * math.sqrt(400 * 0.01)
    right = 0
    for i in range(100):
        moved = [*level[28 * i : 28 * i + 14], *([v - 3 * SD for v in n] for n in level[28 * i + 14 : 28 * (i + 1)])]
        right += [abs(s.index - 14) <= 1 for s in shifts(points(*moved))] == [True]
    assert right >= 95


def night_of(day):
    return Night(started=f"2026-01-{day:02d}T00:00:00+00:00", state="fine", study="quick")


def confirmation(drop, later, rng, **changes):
    """Whether a row of 5 seeds is trained anew, and ends as worse, where its figures are so many sd lower, and those of
    fresh seeds `later` sd."""
    before = [0.8 + SD * rng.normal() for _ in range(5)]
    tonight = [0.8 + SD * (rng.normal() - drop) for _ in range(5)]
    old = runs(before, **changes, started="2026-01-01T00:00:00+00:00")
    new = runs(tonight, **changes, configuration="b" * 64, started="2026-01-02T00:00:00+00:00")
    reference = Night(
        started="2026-01-01T00:00:00+00:00",
        state="first",
        good=[Reference(row="q1_2-finetune", data="embedded", runs=["x"], since="2026-01-01T00:00:00+00:00")],
        figures=judge_night(QUICK, night_of(1), old, [], lambda _: [], lambda _: []).night.figures,
    )
    asked = []

    def retrain(rows):
        asked.append(rows)
        fresh = [0.8 + SD * (rng.normal() - later) for _ in range(5)]
        drawn = [replace(r, seed=5 + i, fingerprint=digest(i)) for i, r in enumerate(runs(fresh, **changes))]
        return [replace(r, configuration="b" * 64, started="2026-01-02T00:00:00+00:00") for r in drawn]

    judged = judge_night(QUICK, night_of(2), new, [reference], lambda r: old if r else [], retrain).night
    return bool(asked), judged.state == "regression"


def test_a_figure_is_stored_with_the_bounds_of_its_mean():
    bound = Bound(low=0.6, high=1.0, mean=0.8, sd=0.1, n=20, runs=3)
    bounds = Bounds({"q1_2-finetune": {"best accuracy": bound}}, {}, "made up", {"embedded": "d" * 64})
    five = [record(seed=s, figures=((0.8,),)) for s in range(5)]
    night = judge_night(QUICK, night_of(2), five, [], lambda _: [], lambda _: [], bounds=bounds).night
    best, last = (next(m for m in night.figures if m.figure == f"{which} accuracy") for which in ("best", "last"))
    half = 0.2 * math.sqrt((1 / 5 + 1 / 20) / (1 / 3 + 1 / 20))
    assert (best.low, best.high) == pytest.approx((0.8 - half, 0.8 + half)) and last.low is last.high is None


def test_fresh_seeds_refute_chance_and_confirm_a_fall():
    rng = np.random.default_rng(3)
    for later, share in ((0, 0.01), (5, 0.99)):
        alarmed = [worse for alarm, worse in (confirmation(4, later, rng) for _ in range(40)) if alarm]
        assert len(alarmed) >= 30
        assert abs(sum(alarmed) - share * len(alarmed)) <= 3 * math.sqrt(len(alarmed) * share * (1 - share)) + 1


def test_where_the_lowest_is_best_a_rise_is_worse():
    rng = np.random.default_rng(4)
    assert confirmation(-8, -8, rng, lower_is_better=["accuracy"]) == (True, True)
    assert confirmation(8, 8, rng, lower_is_better=["accuracy"]) == (False, False)


def canary(seconds, values=(0.9, 0.91), **changes):
    given = dict(row="r", configuration="c", setup="s", seconds=list(seconds), values={"best accuracy": list(values)})
    return Canary(**(given | changes))


def canary_night(day, status="fine", **changes):
    row = JudgedRow(row="r", data=CANARY, status=status)
    return Night(
        started=f"2026-02-{day:02d}T01:00:00+00:00", state="fine", rows=[row], canary=canary([100, 102], **changes)
    )


@pytest.mark.parametrize(
    ("nights", "tonight", "status"),
    [
        ([], canary([500, 500]), "new"),
        ([canary_night(1), canary_night(2)], canary([500, 500]), "fine"),  # too few to tell
        ([canary_night(d) for d in (1, 2, 3)], canary([101, 99]), "fine"),
        ([canary_night(d) for d in (1, 2, 3)], canary([129, 131]), "fine"),  # below the limit
        ([canary_night(d) for d in (1, 2, 3)], canary([160, 161]), "slower"),
        ([canary_night(d) for d in (1, 2, 3)], canary([160, 161], setup="another GPU"), "new"),
        ([*(canary_night(d) for d in (1, 2, 3)), canary_night(4, "slower")], canary([101, 99]), "fine"),
        ([*(canary_night(d) for d in (1, 2, 3)), canary_night(4, "accepted")], canary([160, 161]), "fine"),
        ([canary_night(d) for d in (1, 2, 3)], canary([101, 99], values=(0.8, 0.81)), "worse"),
        ([canary_night(d) for d in (1, 2, 3)], canary([101, 99], values=(0.8, 0.81), configuration="new"), "fine"),
    ],
)
def test_the_canary(nights, tonight, status):
    assert judge_canary(tonight, nights, 1.3).status == status


def test_a_canary_that_slows_down_slowly_is_told_by_the_first_nights_and_its_step_is_marked():
    """1 % a night: within the limit of the last 30 nights, and not of the first."""
    nights = [replace(canary_night(1), canary=canary([100 + day, 101 + day])) for day in range(60)]
    row = judge_canary(canary([160, 161]), nights, 1.3)
    assert row.status == "slower" and "times as long as in the first nights" in row.why
    assert judge_canary(canary([160, 161]), [*nights, canary_night(2, "accepted")], 1.3).status == "fine"
    stepped = [replace(canary_night(d), canary=canary([100 + d % 2 + 50 * (d > 9)] * 2)) for d in range(1, 21)]
    points, (cut,) = found_shifts(stepped)["r", CANARY, "training seconds"]
    assert points[cut.index].first.started.startswith("2026-02-10")


def test_damaged_nights_are_passed_over_with_a_warning(tmp_path):
    history = History(tmp_path)
    history.add(nightly(1, [0.5, 0.6]))
    for name, text in (("2026-a.json", "{"), ("2026-b.json", '{"version": 9}'), ("2026-c.json", '{"version": 1}')):
        (tmp_path / "nights" / name).write_text(text)
    with pytest.warns(UserWarning, match="is not counted") as warned:
        assert len(History(tmp_path).nights) == 1
    assert len(warned) == 3
    assert file_name("2026-01-02T03:04:05+00:00") == night.file_name("2026-01-02T03:04:05+00:00")[:-5]


# Commands


def test_history_says_what_moved_and_writes_the_page(tmp_path, cvhw4_command):
    assert cvhw4_command("history", tmp_path)[0] == 4
    history = History(tmp_path)
    for day in range(1, 11):
        level = 0.8 if day < 6 else 0.7
        history.add(nightly(day, [level + 0.001 * (day + i) for i in range(3)], commit=f"c{day}", study="full"))
    code, out, err = cvhw4_command("history", tmp_path, "--row", "r", "--page")
    assert (code, err) == (0, "") and "c5..c6" in " ".join(out.split()) and "10 nights, the last of 2026-01-10" in out
    page = (tmp_path / "index.html").read_text()
    assert "c5..c6" in page and "<svg" in page and "http:" not in page.replace("http://www.w3.org", "")
    badge = (tmp_path / "badge.svg").read_text()
    assert "#2da44e" in badge and "fine 2026-01-10" in badge
    assert cvhw4_command("history", tmp_path, "--row", "q")[0] == 4


STUB = """
import hashlib, json, os
from pathlib import Path

def pytest_addoption(parser):
    for name in ("--seeds", "--results"):
        parser.addoption(name)
    parser.addoption("--reuse", action="store_true")

def pytest_generate_tests(metafunc):
    metafunc.parametrize("seed", range(int(metafunc.config.getoption("seeds"))))
"""
TEST = """
import hashlib, json
from pathlib import Path

def test_it(seed, request, record_property):
    level = float(Path("level").read_text())
    record = json.loads(Path("RECORD").read_text())
    fingerprint = hashlib.sha256(f"{level} {seed}".encode()).hexdigest()
    record |= {"seed": seed, "fingerprint": fingerprint}
    record["epochs"][0]["figures"]["accuracy"] = level + seed / 1000
    file = Path(request.config.getoption("results"), "quick/runs/q1_2-finetune", f"seed{seed}-{fingerprint[:12]}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    for name in ("row", "seed", "study", "fingerprint"):
        record_property(name, record[name])
"""


@pytest.mark.integration
def test_bisect_finds_the_commit_that_made_a_row_worse(tmp_path, monkeypatch, cvhw4_command):
    """Of eight commits, one of which cannot be trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(record("q1_2", figures=((0.5,),)).to_json())
    (tmp_path / "conftest.py").write_text(STUB)
    (tmp_path / "test_q1_2-finetune.py").write_text(TEST.replace("RECORD", str(tmp_path / "base.json")))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    commits = []
    for level in ("0.9", "0.91", "0.905", "broken", "0.8", "0.81", "0.79"):
        (tmp_path / "level").write_text(level)
        subprocess.run([*git, "add", "conftest.py", "level", "test_q1_2-finetune.py"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", level], check=True)
        commits.append(subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip())
    code, out, err = cvhw4_command("bisect", "q1_2-finetune", commits[0], "main", "--seeds", "2")
    assert code == 0, err
    assert commits[3] in out and commits[4] in out and commits[2] not in out  # between these two nobody can tell
    assert "cannot be trained" in err and f"{commits[6][:12]} 0.7905" in err
    assert cvhw4_command("bisect", "q1_2-finetune", "main", commits[0], "--seeds", "2")[0] == 4  # the wrong way round
    assert cvhw4_command("bisect", "q1_2-finetune", "nowhere", "main")[0] == 4
    assert subprocess.run(["git", "worktree", "list"], capture_output=True, text=True).stdout.count("\n") == 1


@pytest.mark.parametrize(("levels", "sign"), [("0.9 0.91 0.8 0.79", 1), ("0.1 0.11 0.2 0.21", -1)])
def test_bisect_knows_where_the_lowest_is_best(tmp_path, monkeypatch, levels, sign):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for level in levels.split():
        (tmp_path / "level").write_text(level)
        subprocess.run([*git, "add", "level"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", level], check=True)
    of = subprocess.run([*git, "rev-parse", "HEAD~1"], capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(bisection, "_measure", lambda row, tree, *_: (float((tree / "level").read_text()), sign))
    assert bisection.bisect("r", "main~3", "main", [], tmp_path, print) == of
    with pytest.raises(InputError, match="is not worse than"):
        bisection.bisect("r", "main", "main~3", [], tmp_path, print)


# Error rates

FALLS = {
    "1 sd in ten nights": lambda n: n / 10,
    "1 sd a night": lambda n: n,
    "a step of 1 sd": lambda n: 1,
    "a step of 2 sd": lambda n: 2,
    "a step of 4 sd": lambda n: 4,
}


@pytest.mark.long
def test_false_alarms_of_years_without_change():
    """Every night has new code, which draws all runs anew; 3 rows of 5 seeds."""
    rng, alarms, nights = np.random.default_rng(11), 0, 0
    for _ in range(YEARS):
        worse = [state == "regression" for state in year.states(lambda _: 0, rng)]
        alarms += sum(b and not a for a, b in zip([False, *worse], worse, strict=False))
        nights += sum(worse)
    print(f"{YEARS} years without change: {alarms} false alarms, {nights} nights")
    assert alarms <= YEARS * 0.25 + 3 * math.sqrt(YEARS * 0.25)


@pytest.mark.long
@pytest.mark.parametrize(("fall", "most"), [(f, m) for f, m in zip(FALLS, (15, 4, 10, 3, 1), strict=True)])
def test_nights_until_a_fall_is_told_and_until_its_repair_is(fall, most):
    """20 quiet nights, 30 of the fall, and a repair: what was told is told until then."""
    rng, first, after, silent = np.random.default_rng(12), [], [], 0
    for _ in range(SERIES):
        told = year.states(
            lambda day: FALLS[fall](day - 19) if 20 <= day < 50 else 0,
            rng,
            lambda day, state: day >= 50 and state == "fine",
            110,
        )
        worse = [state == "regression" for state in told]
        begins = next((d for d in range(20, 50) if worse[d]), 50)
        silent += sum(not w for w in worse[begins:50])
        first.append(begins - 19)
        after.append(len(told) - 50)
    print(f"{fall}: told in night {sorted(first)}, fine in night {sorted(after)} of the repair, {silent} nights silent")
    assert np.median(first) <= most and silent <= 1


# A year


@pytest.mark.long
def test_a_year_of_nights_ends_as_it_should(box, monkeypatch):
    """tests/year.py: a slow decline, a lost store, a driver's change, three accepted steps, and some dead nights."""
    told = year.simulate(box, monkeypatch)
    nights = box.history().nights
    if picture := os.environ.get("CVHW4_PICTURE"):
        photograph(page_of(Path("site"), nights), ROOT / picture)
    assert len(nights) == year.NIGHTS and told.after_loss == "fine"
    for day, row, _ in year.STEPS:  # found in the night they came, accepted in the next
        assert (told.states[day - 1], told.states[day], told.states[day + 1]) == ("fine", "regression", "fine")
        assert told.rows[day][row] == "worse" and told.rows[day + 1][row] == "accepted"
    assert [dict(n.accepted) for n in nights if n.accepted] == [{row: why} for _, row, why in year.STEPS]
    steps = {day for day, *_ in year.STEPS}
    worse = {d for d, state in enumerate(told.states) if state == "regression"} - steps
    begins, repaired = year.DECLINE
    seen = min(d for d in worse if d >= begins)  # before anybody would have seen it in one night
    assert ((seen - begins) // year.WEEK + 1) * year.A_WEEK <= 4 * SD
    late = {d for d in range(seen, repaired) if d not in year.DEAD}  # no night of them passes as fine
    assert late <= worse and all(told.rows[d]["q1_1-features"] == "worse" for d in late)
    after = {d for d in worse if d >= repaired}
    assert len(after) <= 2 * year.WEEK and after == set(range(repaired, repaired + len(after)))
    assert not {d for d in worse if d < begins}
    assert {d for d, state in enumerate(told.states) if state == "broken"} == set(year.DEAD)
    found = found_shifts(nights)
    for day, row, _ in year.STEPS:
        cuts = found[row, "embedded", "best accuracy"]
        assert nights[day].started in [cuts[0][s.index].first.started for s in cuts[1]]
    points, cuts = found["q1_1-features", "embedded", "best accuracy"]
    assert {(p.low, p.high) for p in points} == {(0.79, 0.85)}
    fell = [s for s in cuts if nights[begins].started <= points[s.index].first.started < nights[repaired].started]
    assert len(fell) >= 2 and all(s.after < s.before for s in fell)
    page, pictures = history_page(nights)
    assert "driver" in page and "560.35" in page and len(pictures) == 3
    for _, _, why in year.STEPS:
        assert why in page


def photograph(page, picture):
    """Takes a picture of a page, by the browser that is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,2950"]
    command += [f"--screenshot={picture}", page.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
