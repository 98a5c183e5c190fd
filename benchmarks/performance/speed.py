"""What `test_speed.py` calls: both sides of a comparison, each in a process of its own.

`python -m benchmarks.performance.speed SIDE FAMILY FOLDER DEVICE PRECISION GRAPHS` trains one side on the files in
FOLDER and prints its wall time and peak memory as JSON. A process of its own, because settings and caches of one side
would serve the other.
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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__" and sys.argv[1] == "ours":  # before torch is loaded; a notebook has no such settings
    from cvhw4.training.process import prepare_process

    prepare_process()
# Idle threads of either side must not slow down the other processes of its machine, its own loaders among them.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from PIL import Image

from benchmarks.performance import reference
from benchmarks.performance.cost import Machine, run_cost
from benchmarks.performance.families import Family, Setting, find_family
from benchmarks.performance.speed_record import SpeedRecord
from cvhw4 import CAMVID, Row, Scenes
from cvhw4.data.dataset import Dataset, Split
from cvhw4.data.embedded import embedded_portraits, embedded_scenes
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import read_scenes
from cvhw4.models.build import Network, build_network
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.study import Precision
from cvhw4.training.fit import caller, evaluate, evaluation_mode, fit, kernels
from cvhw4.training.objectives import make_objective
from cvhw4.training.process import release_memory

Side = Literal["ours", "reference", "workerless"]
READY = "ready\n"
ROOT = Path(__file__).resolve().parents[2]
PORTRAIT, SCENE = (218, 178), (360, 480)  # height and width of CelebA's and of CamVid's pictures


@dataclass(frozen=True)
class Job:
    """What both sides train: a family on the pictures in a folder, on a kind of device; precision and graphs are ours'
    alone."""

    family: Family
    folder: Path
    device: torch.device
    precision: Precision = "float32"
    graphs: bool = False

    @property
    def setting(self) -> Setting:
        """How the family is timed there."""
        return self.family.setting(self.device.type)

    @property
    def row(self) -> Row:
        """What is trained."""
        return self.family.row(self.device.type)

    @property
    def validates_only(self) -> bool:
        """Whether epochs are validations alone."""
        return self.family.work == "validation alone"


def compare(job: Job, *, machine: Machine, trials: int, command: str) -> SpeedRecord:
    """Times both sides in turn, on pictures that it writes. Raises RuntimeError: a side failed.

    Args:
        machine: what the device was measured to reach.
        trials: of each side.
        command: what was run, for the record.
    """
    family, setting, row = job.family, job.setting, job.row
    started = datetime.now(UTC).isoformat(timespec="seconds")
    write_pictures(
        embedded_portraits() if row.task.name == "classification" else embedded_scenes(), setting, job.folder
    )
    results: dict[Side, list[dict[str, Any]]] = {"ours": [], "reference": [], "workerless": []}
    for _ in range(trials):
        if setting.seeds > 1:
            together, alone = (at_once(job, n) for n in (setting.seeds, 1))
            results["ours"].append(together)
            results["reference"].append(alone | {"seconds": setting.seeds * alone["seconds"]})
            continue
        for side, done in results.items():
            if side != "workerless" or (job.device.type == "cpu" and setting.target is not None):
                done.append(run_side(side, job))
    work = f"{family.work}, {setting.train} + {setting.val} images, {setting.epochs} epoch{'s' * (setting.epochs > 1)}"
    if setting.seeds > 1:
        work = f"{setting.seeds} runs at once against one after another, {work}"
    seconds = {side: [trial["seconds"] for trial in done] for side, done in results.items()}
    train = 0 if job.validates_only else setting.train
    cost = run_cost(row, build_network(row, seed=0).module, train=train, val=setting.val)
    return SpeedRecord(
        family=family.name,
        row=row.name,
        study=row.study,
        network=row.network_name,
        size=row.recipe.size,
        batch=row.recipe.batch,
        work=work,
        images=setting.seeds * cost.images,
        ours_seconds=seconds["ours"],
        reference_seconds=seconds["reference"],
        workerless_seconds=seconds["workerless"],
        target=setting.target,
        flops=setting.seeds * cost.flops,
        bytes=setting.seeds * cost.bytes,
        machine=machine,
        peak_memory_ours=max(trial["peak_memory"] for trial in results["ours"]),
        peak_memory_reference=max(trial["peak_memory"] for trial in results["reference"]),
        environment=environment(job.device) | conditions(job.precision, job.graphs, trials),
        command=command,
        started=started,
    )


def conditions(precision: Precision, graphs: bool, trials: int) -> dict[str, Any]:
    """How ours is run, and a digest of the code on both sides: a comparison that agrees in it need not be repeated."""
    digest = hashlib.sha256(code_digest().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return {"precision": precision, "graphs": graphs, "trials": trials, "code": digest.hexdigest()}


# Pictures


def write_pictures(source: Dataset, setting: Setting, folder: Path) -> Path:
    """Files for both sides: pictures of a data set at the size of the protocol's own, repeated to the number needed.

    Portraits as JPEG, scenes and their labels as PNG, as CelebA's and CamVid's are.
    """
    dataset = replace(source, train=enlarged(source.train, setting.train), val=enlarged(source.val, setting.val))
    return reference.write_folders(dataset, folder, picture="png" if source.task == "segmentation" else "jpg")


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


# One side, seen from outside


def run_side(
    side: Side, job: Job, threads: int | None = None, barrier: threading.Barrier | None = None
) -> dict[str, Any]:
    """Times one side in a process of its own. Raises RuntimeError: the process failed; with what it printed.

    Args:
        threads: that it computes with; None: torch's choice.
        barrier: where it waits, warmed up, for others that are to start with it.

    Returns:
        "seconds", "started" and "ended" (seconds since 1970) and "peak_memory" (bytes or null).
    """
    command = [sys.executable, "-m", "benchmarks.performance.speed", side, job.family.name]
    command += [str(job.folder), job.device.type, job.precision, str(job.graphs)]
    with tempfile.TemporaryDirectory() as cache:  # each trial of ours decodes the files anew, as the reference does
        process = subprocess.Popen(
            command,
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
                if barrier is not None:
                    barrier.wait()
                process.stdin.write("go\n")
                process.stdin.close()
        if process.wait():
            if barrier is not None:
                barrier.abort()
            raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(printed)}")
    result: dict[str, Any] = json.loads(next(text for text in reversed(printed) if text.startswith("{")))
    return result


def at_once(job: Job, n: int) -> dict[str, Any]:
    """Times n runs of ours beside each other, from their common start to the last one's end; their memory together."""
    threads = max(1, torch.get_num_threads() // n) if job.device.type == "cpu" else None
    barrier = threading.Barrier(n)
    with ThreadPoolExecutor(n) as pool:
        runs = [pool.submit(run_side, "ours", job, threads, barrier) for _ in range(n)]
        results = [run.result() for run in runs]
    return {
        "seconds": max(result["ended"] for result in results) - min(result["started"] for result in results),
        "peak_memory": sum(result["peak_memory"] for result in results),
    }


# One side, in its process


def main(side: Side, job: Job, wait: Callable[[], object]) -> None:
    """Trains one side, after a warm-up on a few images, and prints what it took. `wait`: called when it is warmed up
    and ready to be timed."""
    row, device = job.row, job.device
    with tempfile.TemporaryDirectory() as few:
        warm_up = replace(row, recipe=replace(row.recipe, epochs=1))
        _train(side, replace(job, folder=_few(job.folder, Path(few))), warm_up, build_network(warm_up, seed=0))
    network = build_network(row, seed=0)
    release_memory()  # the warm-up's
    reset_peak_memory(device)
    wait()
    started, clock = time.time(), time.perf_counter()
    _train(side, job, row, network)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - clock
    taken = {"seconds": seconds, "started": started, "ended": started + seconds, "peak_memory": peak_memory(device)}
    print(json.dumps(taken))


def _train(side: Side, job: Job, row: Row, network: Network) -> None:
    """From files to figures: this project's loop, or the reference loop in float32."""
    if side == "ours":
        figures = _ours(job, row, network)
    else:
        settings: dict[str, Any] = dict(workers=0 if side == "workerless" else None, validate_only=job.validates_only)
        figures = reference.run(row, network, job.folder, seed=0, device=job.device, **settings)[-1].figures
    assert all(math.isfinite(value) for value in figures.values())


def _ours(job: Job, row: Row, network: Network) -> Mapping[str, float]:
    device, precision = job.device, job.precision
    classifies = row.task.name == "classification"
    scenes = Scenes(job.folder, **CAMVID)
    dataset = read_pictures(job.folder, short_side=512) if classifies else read_scenes(scenes)
    if not job.validates_only:
        history = fit(row, dataset, network, seed=0, device=device, precision=precision, graphs=job.graphs)
        return history.epochs[-1].figures
    module = network.module.to(device).to(memory_format=torch.channels_last)
    objective = make_objective(row, dataset, network, device, seed=0)
    with kernels(device, deterministic=False):
        ready_to_evaluate = evaluation_mode(module, row.recipe.size)
        for _ in range(row.recipe.epochs):
            with ready_to_evaluate(module):
                evaluation = evaluate(objective, module, caller(device, precision))
    return evaluation.figures


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
    _, side, name, folder, kind, precision, graphs = sys.argv
    job = Job(find_family(name), Path(folder), torch.device(kind), precision, graphs == "True")  # type: ignore[arg-type]
    main(side, job, wait=_ready)  # type: ignore[arg-type]
