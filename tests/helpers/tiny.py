"""The homework's quick study at a size that a test can train: the same rows and networks, a handful of small pictures.

As a pytest plugin (`-p tests.helpers.tiny`) it puts that study in the place of the real one, in this process and in
xdist's; real data are read as they are. Other processes know nothing of that: `--jobs` is 1 unless it is given, and
then `TinyRunner` has the pictures.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import cvhw4.models.trial  # noqa: F401 - sessions inside a process remember which networks were tried
from cvhw4 import Generated, Row, homework
from cvhw4.camvid import CLASSES
from cvhw4.data import load
from cvhw4.data.cache import fingerprint
from cvhw4.data.dataset import PORTRAIT_CLASSES, Dataset, Split
from cvhw4.homework.rows import THREE, rows_at
from cvhw4.labels import merge_classes
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import DataUsed, Epoch, Failure, RunRecord, Times, WeightsUsed
from cvhw4.runner import Runner
from cvhw4.training.checkpoint import Checkpoints

VOID = 11  # CamVid's label of no class
MERGED = {classes: merge_classes(CLASSES, merge) for classes, merge in ((11, {}), (3, THREE))}


def shrink(row: Row, **recipe) -> Row:
    small = dict(size=32, batch=4, epochs=2) | recipe
    if row.network == "alexnet":
        small["size"] = 64  # the least AlexNet's pooling takes
    return replace(row, recipe=replace(row.recipe, **small))


QUICK, FULL = homework.study("quick", redraw=False), homework.study("full")  # all seeds see the same pictures


def row(name: str, **recipe) -> Row:
    return shrink(QUICK.row(name), **recipe)


def untrained(name: str, **recipe) -> Row:
    """As `row`, from random weights: pretrained ones cannot be had on every GPU machine."""
    return replace(row(name, **recipe), start="random")


class SmallAlexNet(torchvision.models.AlexNet):
    """AlexNet with 8 channels and 32 features."""

    def __init__(self) -> None:
        with torch.device("meta"):
            super().__init__()
        for place, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d):
                inputs = 3 if place == 0 else 8
                self.features[place] = nn.Conv2d(inputs, 8, layer.kernel_size, layer.stride, layer.padding)
        for place, (inputs, outputs) in {1: (8 * 36, 32), 4: (32, 32), 6: (32, 1000)}.items():
            self.classifier[place] = nn.Linear(inputs, outputs)


def use_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the same kinds with few parameters stand in for AlexNet and the EfficientNets."""
    create, get = timm.create_model, torchvision.models.get_model

    def small(name: str, **options):
        return create("test_efficientnet" if "efficientnet" in name else name, **options)

    monkeypatch.setattr(timm, "create_model", small)
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda n, **o: SmallAlexNet() if n == "alexnet" else get(n, **o)
    )


class Kept(Checkpoints):
    """Checkpoints after every step, of each of which a copy is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "f" * 64, every=0)
        self.copies: list[Path] = []

    def write(self, checkpoint) -> None:
        super().write(checkpoint)
        self.copies.append(shutil.copy(self.path, self.path.with_suffix(f".{len(self.copies)}")))


def dataset(task: str, train: int = 12, val: int = 8) -> Dataset:
    """Random pictures: brightness tells the class (and, in scenes, so does height), so that something can be learnt."""
    random = np.random.RandomState(0)

    def split(name: str, n: int) -> Split:
        names = tuple(f"{name}/{i}" for i in range(n))
        sizes = np.tile(np.array([40, 48], dtype=np.int32), (n, 1))
        noise = random.randint(0, 60, (n, 40, 48, 3))
        if task == "classification":
            targets = np.arange(n, dtype=np.uint8) % 2
            return Split((noise + targets[:, None, None, None] * 190).astype(np.uint8), sizes, targets, names)
        labels = np.zeros((n, 40, 48), dtype=np.uint8)  # sky above road above car, a strip of void
        labels[:, 14:], labels[:, 28:], labels[:, :, 44:] = 3, 8, VOID
        return Split((noise + labels[..., None] * 16).astype(np.uint8), sizes, labels, names)

    train_split, val_split = split("train", train), split("val", val)
    classes = PORTRAIT_CLASSES if task == "classification" else CLASSES
    prints = fingerprint(train_split, val_split)
    name = "generated portraits (one set)" if task == "classification" else "generated scenes (one set)"
    return Dataset(name, task, classes, train_split, val_split, prints, embedded=True)


def record(name: str = "q1_2", seed: int = 0, figures=((0.7,), (0.9,), (0.8,)), loss=0.5, **changes) -> RunRecord:
    """A record as a run would write it, with the given figures by epoch."""
    row = QUICK.row(name)
    metrics, classifies = row.task.metrics, row.task.name == "classification"
    epochs = [
        Epoch(
            epoch=i + 1,
            lr=0.1,
            loss=loss,
            figures=dict(zip(metrics, values * (len(metrics) if len(values) == 1 else 1), strict=True)),
            train_seconds=2.0,
            evaluate_seconds=1.0,
        )
        for i, values in enumerate(figures)
    ]
    lists = {"recall": [0.5, 0.6]} if classifies else {"iou": [0.5] * row.classes}
    if not classifies:
        lists["set_iou"] = [0.25, *[float("nan")] * (row.classes - 1)]
    classes = list(PORTRAIT_CLASSES if classifies else CLASSES)
    short = name.split("-")[0]
    whole = dict(
        row=row.name,
        study="quick",
        task=row.task.name,
        seed=seed,
        fingerprint=f"{short}{seed}".encode().hex().ljust(64, "0"),
        configuration=short.encode().hex().ljust(64, "0"),
        settings=row.settings(),
        data=DataUsed(name="embedded", embedded=True, fingerprint="d" * 64, train=240, val=400, classes=classes),
        weights=WeightsUsed(network="tf_efficientnet_lite0", origin="package x 1.0", sha256="e" * 64),
        parameters=3_400_000,
        trained_parameters=2562,
        primary=metrics[0],
        epochs=epochs,
        by_class=lists,
        times=Times(
            build_seconds=0.5,
            train_seconds=6.0,
            evaluate_seconds=3.0,
            total_seconds=9.5,
            images_per_second=6.0,
            peak_memory_bytes=2**30,
        ),
        environment={
            "torch": "2.15.0",
            "device": "cpu",
            "device_name": "A processor",
            "threads": 2,
            "commit": "abc",
        },
        started=f"2026-11-23T10:00:{seed:02d}+00:00",
    )
    return RunRecord(**(whole | changes))


def two_classes(right, labels) -> ImageResults:
    """From bool [E, V], whether each image was classified correctly as one of two classes, and uint8 [V]."""
    return ImageResults(predicted=np.where(right, labels, 1 - labels), labels=labels)


def failure(of: RunRecord, **changes) -> Failure:
    """The note that the run of a record would leave, had it failed."""
    shared = ("row", "study", "task", "seed", "fingerprint", "configuration", "environment", "started")
    note = dict(data="embedded", epoch=2, step=0, lr=0.1, reason="the loss is NaN", checkpoint=None)
    return Failure(**({name: getattr(of, name) for name in shared} | note | changes))


def generated(source: Generated) -> Dataset:
    """The same pictures for all seeds, also where each is said to draw its own."""
    made = dataset(source.task)
    return replace(made, name=made.name.removesuffix(" (one set)"), drawn_from="f" * 64) if source.redraw else made


_read = load._load
_patches = (
    mock.patch.object(homework, "rows_at", lambda size: {name: shrink(row) for name, row in rows_at(size).items()}),
    mock.patch.object(load, "_load", lambda s, seed: generated(s) if isinstance(s, Generated) else _read(s, seed)),
)


class TinyRunner(Runner):
    """A runner with tiny pictures, in whatever process it is."""

    def data(self, task, seed=None):
        return generated(self.study.sources[task])


@pytest.hookimpl(optionalhook=True)
def pytest_cvhw4_make_runner(config, study, options) -> Runner | None:
    tiny = (config.option.cvhw4_jobs or 1) > 1 or config.option.cvhw4_executor == "ray"
    return TinyRunner(study=study, **options) if tiny else None


@pytest.hookimpl(tryfirst=True)  # before the study is made
def pytest_configure(config) -> None:
    if getattr(config.option, "cvhw4_jobs", 1) is None:
        config.option.cvhw4_jobs = 1
    for patch in _patches:
        patch.start()


def pytest_unconfigure(config) -> None:
    for patch in _patches:
        patch.stop()
