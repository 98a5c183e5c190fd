"""A simulated year of nights, for a test and for the picture of its page in docs/nightly.md."""

import shutil
from functools import lru_cache
from types import SimpleNamespace

from cvhw4.records.history import Night

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


def simulate(box, monkeypatch):
    """Runs the year on a machine of tests/test_nights.py. Gives states and rows by night, and the state of the night
    after the store was lost."""
    trainer = box.trainer
    trainer.levels = dict(LEVELS)
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
