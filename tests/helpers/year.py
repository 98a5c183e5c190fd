"""Simulated nights: a year for a test and for the picture of its page in docs/nightly.md, and many for error rates."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import SimpleNamespace

from cvhw4.records.history import Night
from cvhw4.records.schema import stem
from cvhw4.statistics.bounds import FORMAT
from cvhw4.statistics.nights import judge_night
from tests.helpers.tiny import QUICK, record

SD, SEEDS = 0.01, 5

NIGHTS, WEEK = 365, 7
LEVELS = {"q1_1-features": 0.82, "q1_2-finetune": 0.9, "q1_3-scratch": 0.7}
STEPS = [  # night, row, reason; all fall by 0.05
    (63, "q1_2-finetune", "half the epochs, to save an hour"),
    (154, "q1_3-scratch", "new augmentation, agreed on"),
    (315, "q1_3-scratch", "smaller pictures"),
]
DECLINE, A_WEEK = (203, 287), 0.005  # of q1_1-features: first night, and the night it is repaired; half an sd a week
LOSS, DRIVER = 120, 182
DEAD = (30, 31, 250)  # no data
BOUNDS = f"""
[full]
format = {FORMAT}
source = "made up"
false_alarms = 0.01
seeds = {SEEDS}
data = {{ embedded = "{"d" * 64}" }}
claims = {{}}
[full.rows.q1_1-features]
"best accuracy" = {{ low = 0.79, high = 0.85, mean = 0.82, sd = 0.01, n = 20 }}
"""


def simulate(box, monkeypatch):
    """Runs the year on a machine of `nightly.py`. Gives states and rows by night, and the state of the night
    after the store was lost."""
    trainer = box.trainer
    trainer.levels = dict(LEVELS)
    (box.folder / "benchmarks").mkdir()
    (box.folder / "benchmarks" / "bounds.toml").write_text(BOUNDS)
    read = Night.from_json
    monkeypatch.setattr(Night, "from_json", staticmethod(lru_cache(None)(read)))  # nights do not change
    told = SimpleNamespace(states=[], rows=[], after_loss="")
    for day in range(NIGHTS):
        trainer.code, environment = f"{day // WEEK:04x}", {"CANARY": "q1_1-features" if day % WEEK == 0 else ""}
        if day == LOSS:  # the disk of the machine; the history's branch is elsewhere
            shutil.copytree("store/history", "branch")
            shutil.rmtree("store")
            environment |= {"HISTORY": "branch", "HELD": "false"}
        if day == DRIVER:
            trainer.driver = "560.35"
        for when, row, why in STEPS:
            if day == when:
                trainer.levels[row] -= 0.05
            if day == when + 1:
                environment["ACCEPT"] = f"{row}: {why}"
        if DECLINE[0] <= day < DECLINE[1]:
            trainer.levels["q1_1-features"] = LEVELS["q1_1-features"] - A_WEEK * ((day - DECLINE[0]) // WEEK + 1)
        if day == DECLINE[1]:
            trainer.levels["q1_1-features"] = LEVELS["q1_1-features"]
        if day in DEAD:
            environment["PORTRAITS"] = "gone"
        _, entry = box(**environment)
        told.states.append(entry["state"])
        told.rows.append(dict(box.rows))
        if day == LOSS:
            told.after_loss = entry["state"]
    return told


def states(fall, rng, stop=lambda day, state: False, nights=365):
    """The states of nights that each have new code and so new runs, in memory.

    Args:
        fall: by how many sd q1_1-features is worse, by night.
        stop: of night and state, whether to end.
    """
    history, known, told = [], {}, []
    for day in range(nights):
        started = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)).isoformat()

        def draw(rows, seeds, day=day, started=started):
            found = []
            for row in rows:
                for seed in seeds:
                    value = LEVELS[row] - SD * fall(day) * (row == "q1_1-features") + SD * rng.normal()
                    ids = {"configuration": f"{day:064d}", "fingerprint": f"{day:06d}{seed:06d}".ljust(64, "0")}
                    run = _base(row)
                    figures = dict.fromkeys(run.epochs[0].figures, round(value, 4))
                    epoch = replace(run.epochs[0], figures=figures, loss=1 - value)
                    run = replace(run, seed=seed, epochs=[epoch], started=started, **ids)
                    known[row, stem(seed, run.fingerprint)] = run
                    found.append(run)
            return found

        judged = judge_night(
            QUICK,
            Night(started=started, state="fine", study="quick"),
            draw(LEVELS, range(SEEDS)),
            history,
            lambda references: [known[r.row, name] for r in references for name in r.runs],
            lambda rows, draw=draw: draw(rows, range(SEEDS, 2 * SEEDS)),
        ).night
        history.append(judged)
        told.append(judged.state)
        if stop(day, judged.state):
            break
    return told


@lru_cache
def _base(row):
    return record(row)
