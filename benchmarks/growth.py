"""How cost grows with the work: images, image size, seeds. Called by `test_growth.py`.

`python -m benchmarks.growth FOLDER LIMIT` passes once over the training images in FOLDER, as an epoch does (picked in
random order, cropped, scaled, normalised), and prints seconds and peak memory as JSON. A set of more than LIMIT bytes
is streamed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    from cvhw4.training.process import prepare_process

    prepare_process()

import numpy as np
import torch
from torch import nn

from cvhw4.data.dataset import PORTRAIT_CLASSES, Dataset, Split
from cvhw4.data.embedded import embedded_portraits
from cvhw4.experiments import find_row
from cvhw4.models.build import IMAGENET_MEAN, IMAGENET_STD, Network, build_network
from cvhw4.records.environment import device_name, peak_memory, reset_peak_memory
from cvhw4.training import tasks
from cvhw4.training.fit import fit

ROOT = Path(__file__).resolve().parent.parent


def write_set(folder: Path, n: int, frame: tuple[int, int] | None = None) -> int:
    """A training set of n portraits, the embedded ones over and over, as the memory-mapped files of the cache.

    Args:
        frame: height and width, the pictures' own in the upper left corner of it; None: the pictures' own.

    Returns:
        bytes of pictures.
    """
    folder.mkdir(parents=True)
    split = embedded_portraits().train
    height, width = frame or split.images.shape[1:3]
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, height, width, 3))
    block = np.zeros((len(split), height, width, 3), np.uint8)
    h, w = (min(sides) for sides in zip(split.images.shape[1:3], (height, width), strict=True))
    block[:, :h, :w] = split.images[:, :h, :w]
    for start in range(0, n, len(split)):
        part = images[start : start + len(split)]
        part[:] = block[: len(part)]
    images.flush()
    np.save(folder / "targets.npy", np.resize(split.targets, n))
    return int(images.nbytes)


def one_epoch(folder: Path, limit: int) -> dict[str, Any]:
    """Passes once over a set that `write_set` made.

    Returns:
        "images", "seconds", "peak_memory" (of the whole process, in bytes), "streamed", "device", "threads".
    """
    images, targets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "targets"))
    sizes = np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1))
    train = Split(images, sizes, np.asarray(targets), ())
    few = Split(images[:2], sizes[:2], np.asarray(targets[:2]), ())
    dataset = Dataset("growth", "classification", PORTRAIT_CLASSES, train, few, "", embedded=True)
    experiment = find_row("quick", "q1_1")
    network = Network(nn.Identity(), IMAGENET_MEAN, IMAGENET_STD, None)
    with mock.patch.object(tasks, "memory_limit", lambda device: limit):
        task = tasks.make_task(experiment, dataset, network, torch.device("cpu"), seed=0)
    reset_peak_memory(torch.device("cpu"))
    started = time.perf_counter()
    seen = sum(len(inputs) for inputs, _ in task.batches(1))
    seconds = time.perf_counter() - started
    peak = peak_memory(torch.device("cpu"))
    return {"images": seen, "seconds": seconds, "peak_memory": peak, "streamed": images.nbytes > limit} | where()


def train(row: str, size: int, images: int, seeds: int = 1) -> float:
    """Seconds that the training of a quick row takes, one epoch on a part of the embedded portraits.

    Args:
        size: side of its inputs, in pixels.
        images: how many are trained on.
        seeds: runs, one after another.
    """
    experiment = find_row("quick", row)
    experiment = replace(experiment, recipe=replace(experiment.recipe, size=size, epochs=1))
    whole = embedded_portraits()
    split = whole.train
    part = Split(split.images[:images], split.sizes[:images], split.targets[:images], split.names[:images])
    dataset = replace(whole, train=part, val=part)
    seconds = 0.0
    for seed in range(seeds):
        network = build_network(experiment, seed=seed)
        history = fit(experiment, dataset, network, seed=seed, device=torch.device("cpu"))
        seconds += sum(epoch.train_seconds for epoch in history.epochs)
    return seconds


def where() -> dict[str, Any]:
    """The processor, and how many threads compute on it."""
    return {"device": device_name(torch.device("cpu")), "threads": torch.get_num_threads()}


def run(folder: Path, limit: int) -> dict[str, Any]:
    """`one_epoch` in a process of its own.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.growth", str(folder), str(limit)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(one_epoch(Path(sys.argv[1]), int(sys.argv[2]))))
