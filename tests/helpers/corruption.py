"""As a pytest plugin (`-p tests.helpers.corruption`) it corrupts training in the way that $CORRUPTION names."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from cvhw4.data import load


def shuffled_labels(dataset):
    """Training labels that belong to other images."""
    order = np.random.RandomState(0).permutation(len(dataset.train))
    return replace(dataset, train=replace(dataset.train, targets=dataset.train.targets[order]))


def labels_of_the_wrong_split(dataset):
    """An evaluation against the training split's labels."""
    wrong = dataset.train.targets[: len(dataset.val)]
    return replace(dataset, val=replace(dataset.val, targets=wrong))


def never_updated(monkeypatch):
    """An optimizer that changes nothing."""
    import torch

    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)


@pytest.fixture(autouse=True)
def corruption(monkeypatch):
    kind = os.environ["CORRUPTION"]
    if kind == "never updated":
        never_updated(monkeypatch)
        return
    corrupt = {"shuffled labels": shuffled_labels, "wrong split": labels_of_the_wrong_split, "none": lambda d: d}[kind]
    read = load._load
    monkeypatch.setattr(load, "_load", lambda *given: corrupt(read(*given)))
