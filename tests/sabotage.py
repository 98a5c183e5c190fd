"""As a pytest plugin (`-p tests.sabotage`) it spoils training in the way that $SABOTAGE names."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from cvhw4 import study


def shuffled_labels(dataset):
    """Training labels that belong to other images."""
    order = np.random.RandomState(0).permutation(len(dataset.train))
    return replace(dataset, train=replace(dataset.train, targets=dataset.train.targets[order]), fingerprint="shuffled")


def labels_of_the_wrong_split(dataset):
    """An evaluation against the training split's labels."""
    wrong = dataset.train.targets[: len(dataset.val)]
    return replace(dataset, val=replace(dataset.val, targets=wrong), fingerprint="wrong split")


def never_updated(monkeypatch):
    """An optimizer that changes nothing."""
    import torch

    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)


@pytest.fixture(autouse=True)
def sabotage(monkeypatch):
    kind = os.environ["SABOTAGE"]
    if kind == "never updated":
        never_updated(monkeypatch)
        return
    spoil = {"shuffled labels": shuffled_labels, "wrong split": labels_of_the_wrong_split, "none": lambda d: d}[kind]
    load = study._load
    monkeypatch.setattr(study, "_load", lambda *args: spoil(load(*args)))
