"""What `test_speed.py` calls: both sides of a comparison, each in a process of its own.

`python -m benchmarks.speed SIDE FAMILY FOLDER DEVICE` trains one side on files in FOLDER and prints its wall time and
peak memory as JSON. A process of its own, because settings and caches of one side would serve the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__" and sys.argv[1] == "ours":  # before torch is loaded; a notebook has no such settings
    from cvhw4.training.process import prepare_process

    prepare_process()
# Idle threads of either side shall not slow down the other processes of its machine, its own loaders among them.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from PIL import Image

from benchmarks import reference
from benchmarks.families import Family, Setting, find_family
from cvhw4.data.camvid import read_camvid
from cvhw4.data.dataset import Dataset, Split
from cvhw4.data.embedded import embedded_portraits, embedded_scenes
from cvhw4.data.portraits import read_portraits
from cvhw4.experiments import Experiment, Precision
from cvhw4.models.build import Network, build_network
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.records.speed import SpeedRecord
from cvhw4.report.floors import least_work
from cvhw4.training.cost import Cost, Machine
from cvhw4.training.fit import caller, evaluate, evaluation_mode, fit
from cvhw4.training.tasks import make_task

Side = Literal["ours", "reference", "workerless"]
READY = "ready\n"
ROOT = Path(__file__).resolve().parent.parent
PORTRAIT, SCENE = (218, 178), (360, 480)  # height and width of CelebA's and of CamVid's pictures


def compare(
    family: Family,
    folder: Path,
    *,
    device: torch.device,
    precision: Precision,
    graphs: bool,
    machine: Machine,
    trials: int,
    command: str,
) -> SpeedRecord:
    """Times both sides in turn.

    Args:
        folder: takes the pictures.
        machine: what the device was measured to reach.
        trials: of each side.
        command: what was run, for the record.

    Raises:
        RuntimeError: a side failed.
    """
    setting, experiment = family.setting(device.type), family.experiment(device.type)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    source = embedded_portraits() if experiment.question == "q1" else embedded_scenes()
    write_pictures(source, setting, folder)
    results: dict[Side, list[dict[str, Any]]] = {"ours": [], "reference": [], "workerless": []}
    for _ in range(trials):
        if setting.seeds > 1:
            together, alone = (at_once(family, folder, device, precision, graphs, n) for n in (setting.seeds, 1))
            results["ours"].append(together)
            results["reference"].append(alone | {"seconds": setting.seeds * alone["seconds"]})
            continue
        for side, done in results.items():
            if side == "workerless" and (device.type != "cpu" or setting.target is None):
                continue
            done.append(run_side(side, family, folder, device.type, precision, graphs))
    one = least_cost(family, device.type)
    cost = Cost(setting.seeds * one.flops, setting.seeds * one.bytes, setting.seeds * one.images)
    work = f"{family.work}, {setting.train} + {setting.val} images, {setting.epochs} epochs"
    if setting.seeds > 1:
        work = f"{setting.seeds} runs at once against one after another, {work}"
    return SpeedRecord(
        family=family.name,
        row=experiment.id,
        profile="full",
        network=experiment.network,
        size=experiment.recipe.size,
        batch=experiment.recipe.batch,
        work=work,
        images=cost.images,
        ours_seconds=[trial["seconds"] for trial in results["ours"]],
        reference_seconds=[trial["seconds"] for trial in results["reference"]],
        workerless_seconds=[trial["seconds"] for trial in results["workerless"]],
        target=setting.target,
        flops=cost.flops,
        bytes=cost.bytes,
        machine=machine,
        peak_memory_ours=max(trial["peak_memory"] for trial in results["ours"]),
        peak_memory_reference=max(trial["peak_memory"] for trial in results["reference"]),
        environment=environment(device) | what(precision, graphs, trials),
        command=command,
        started=started,
    )


def what(precision: Precision, graphs: bool, trials: int) -> dict[str, Any]:
    """How ours is run, and a digest of the code on both sides: a comparison that agrees in it need not be repeated."""
    digest = hashlib.sha256(code_digest().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return {"precision": precision, "graphs": graphs, "trials": trials, "code": digest.hexdigest()}


def least_cost(family: Family, kind: str) -> Cost:
    """What a trial of a family on a kind of device has to cost at least."""
    setting, experiment = family.setting(kind), family.experiment(kind)
    train = 0 if family.work == "validation alone" else setting.train
    return least_work(experiment, build_network(experiment, seed=0).module, train, setting.val)


# Pictures


def write_pictures(source: Dataset, setting: Setting, folder: Path) -> Path:
    """Files for both sides: pictures of a data set at the size of the protocol's own, repeated to the number needed.

    Portraits as JPEG, scenes and their labels as PNG, as CelebA's and CamVid's are.
    """
    splits = [enlarged(split, n) for split, n in ((source.train, setting.train), (source.val, setting.val))]
    scenes = source.task == "segmentation"
    return reference.write_folders(
        replace(source, train=splits[0], val=splits[1]), folder, picture="png" if scenes else "jpg"
    )


def enlarged(split: Split, n: int) -> Split:
    """n pictures of CelebA's or CamVid's size: the split's own in turn, classes too, scaled."""
    scenes = split.targets.ndim > 1
    height, width = SCENE if scenes else PORTRAIT
    by_class = [np.flatnonzero(split.targets == c) for c in np.unique(split.targets)] if not scenes else []
    order = np.stack([c[: min(map(len, by_class))] for c in by_class], 1).ravel() if by_class else np.arange(len(split))
    chosen = np.resize(order, n)
    images = np.empty((n, height, width, 3), np.uint8)
    targets = np.empty((n, height, width), np.uint8) if scenes else split.targets[chosen]
    for place, i in enumerate(chosen):
        h, w = (int(side) for side in split.sizes[i])
        picture = Image.fromarray(np.ascontiguousarray(split.images[i, :h, :w]))
        images[place] = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        if scenes:
            label = Image.fromarray(np.ascontiguousarray(split.targets[i]))
            targets[place] = np.asarray(label.resize((width, height), Image.Resampling.NEAREST))
    sizes = np.tile(np.array([height, width], np.int32), (n, 1))
    return Split(images, sizes, targets, tuple(f"{i}" for i in range(n)))


# One side


def run_side(
    side: Side,
    family: Family,
    folder: Path,
    device: str,
    precision: Precision,
    graphs: bool,
    threads: int | None = None,
    line: threading.Barrier | None = None,
) -> dict[str, Any]:
    """Times one side in a process of its own.

    Args:
        threads: that it computes with; None: torch's choice.
        line: where it waits, warmed up, for others that are to start with it.

    Returns:
        "seconds", "started" and "ended" (seconds since 1970) and "peak_memory" (bytes or null).

    Raises:
        RuntimeError: the process failed; with what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.speed", side, family.name, str(folder), device, precision]
    with tempfile.TemporaryDirectory() as cache:  # each trial of ours decodes the files anew, as the reference does
        process = subprocess.Popen(
            [*command, *(["graphs"] if graphs else [])],
            cwd=ROOT,
            env=os.environ | {"CVHW4_CACHE": cache} | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        printed = []
        for text in process.stdout:
            printed.append(text)
            if text == READY:
                if line is not None:
                    line.wait()
                process.stdin.write("go\n")
                process.stdin.close()
        if process.wait():
            if line is not None:
                line.abort()
            raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(printed)}")
    result: dict[str, Any] = json.loads(printed[-1])
    return result


def at_once(
    family: Family, folder: Path, device: torch.device, precision: Precision, graphs: bool, n: int
) -> dict[str, Any]:
    """Times n runs of ours beside each other, from their common start to the last one's end; their memory together."""
    threads = max(1, torch.get_num_threads() // n) if device.type == "cpu" else None
    line = threading.Barrier(n)
    with ThreadPoolExecutor(n) as pool:
        runs = [
            pool.submit(run_side, "ours", family, folder, device.type, precision, graphs, threads, line)
            for _ in range(n)
        ]
        results = [run.result() for run in runs]
    return {
        "seconds": max(result["ended"] for result in results) - min(result["started"] for result in results),
        "peak_memory": sum(result["peak_memory"] for result in results),
    }


def main(
    side: Side, name: str, folder: Path, kind: str, precision: Precision, graphs: bool, wait: Callable[[], object]
) -> None:
    """Trains one side, after a warm-up on a few images, and prints what it took.

    Args:
        wait: called when it is warmed up and ready to be timed.
    """
    family, device = find_family(name), torch.device(kind)
    experiment = family.experiment(kind)
    validate_only = family.work == "validation alone"

    def train(experiment: Experiment, network: Network, folder: Path) -> None:
        if side == "ours":
            train_ours(experiment, network, folder, device, precision, graphs, validate_only)
        else:
            train_reference(experiment, network, folder, device, validate_only, 0 if side == "workerless" else None)

    with tempfile.TemporaryDirectory() as few:
        warm_up = replace(experiment, recipe=replace(experiment.recipe, epochs=1))
        train(warm_up, build_network(warm_up, seed=0), _few(folder, Path(few)))
    network = build_network(experiment, seed=0)
    reset_peak_memory(device)
    wait()
    started, clock = time.time(), time.perf_counter()
    train(experiment, network, folder)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - clock
    taken = {"seconds": seconds, "started": started, "ended": started + seconds, "peak_memory": peak_memory(device)}
    print(json.dumps(taken))


def train_ours(
    experiment: Experiment,
    network: Network,
    folder: Path,
    device: torch.device,
    precision: Precision,
    graphs: bool,
    validate_only: bool,
) -> None:
    """This project's loop, from files to figures."""
    dataset = read_portraits(folder, short_side=512) if experiment.question == "q1" else read_camvid(folder)
    if not validate_only:
        fit(experiment, dataset, network, seed=0, device=device, precision=precision, graphs=graphs)
        return
    module = network.module.to(device).to(memory_format=torch.channels_last)
    task = make_task(experiment, dataset, network, device, seed=0)
    ready_to_evaluate = evaluation_mode(module, experiment.recipe.size)
    for _ in range(experiment.recipe.epochs):
        with ready_to_evaluate(module):
            figures, *_ = evaluate(task, module, caller(device, precision))
        assert all(math.isfinite(value) for value in figures.values())


def train_reference(
    experiment: Experiment,
    network: Network,
    folder: Path,
    device: torch.device,
    validate_only: bool,
    workers: int | None,
) -> None:
    """The reference loop, from files to figures, in float32."""
    settings: dict[str, Any] = dict(seed=0, device=device, validate_only=validate_only, workers=workers)
    history = reference.run(experiment, network, folder, **settings)
    assert all(math.isfinite(value) for value in history[-1].figures.values())


def _few(folder: Path, target: Path) -> Path:
    """Links to two batches of training and some validation images, for a warm-up."""
    for source in folder.iterdir():
        for part in [p for p in source.iterdir() if p.is_dir()] or [source]:
            place = target / part.relative_to(folder)
            place.mkdir(parents=True)
            for file in islice(sorted(part.iterdir()), 12):
                (place / file.name).symlink_to(file)
    return target


def _ready() -> None:
    """Says so, and waits for the word to go."""
    print(READY, end="", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    _, side, name, folder, kind, precision, *rest = sys.argv
    main(side, name, Path(folder), kind, precision, graphs=rest == ["graphs"], wait=_ready)  # type: ignore[arg-type]
