"""Runs' records, and what lies beside them, as tests make, store and compare them."""

import io
import subprocess
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.performance.cost import Machine
from benchmarks.performance.speed_record import SpeedRecord
from cvhw4.records.samples import PredictionSamples, ValidationPictures
from cvhw4.records.schema import StoredImages
from cvhw4.records.store import Store
from cvhw4.statistics.calibration import calibrate
from tests.helpers import ROOT
from tests.helpers.tiny import QUICK, record, two_classes

IMAGES = StoredImages(file="a.npz", sha256="a" * 64)
MACHINE = Machine("cpu", 100e9, "float32", 20e9)


def same(a, b):
    """Whether they are equal, NaN being equal to itself."""
    return a.to_json() == b.to_json()


# Runs


def runs(values, row="q1_2", **changes):
    """Runs of one epoch with seeds from 0, and losses of their own."""
    return [record(row, seed=s, figures=((v,),), loss=0.5 + v / 100, **changes) for s, v in enumerate(values)]


def stored(n=8, spread=0.01, redrawn=False):
    """n runs of every quick row, with a spread of its own over seeds."""
    random = np.random.RandomState(5)

    def figures(i):
        return ((float(0.5 + 0.02 * i + random.normal(0, spread)),),)

    made = [
        record(row, seed=s, figures=figures(i), loss=random.uniform(0.4, 0.6))
        for i, row in enumerate(QUICK.rows)
        for s in range(n)
    ]
    return [replace(r, data=replace(r.data, redrawn=redrawn)) for r in made]


@cache
def calibrated(n=8):
    return calibrate(QUICK, stored(n))


def elsewhere(records, by=0.0, threads=8):
    """The same runs on a machine that gives figures which differ by so much, up for even seeds and down for odd."""
    return [
        replace(
            r,
            fingerprint="9" * 64,
            environment={**r.environment, "device_name": "another make", "threads": threads},
            epochs=[
                replace(e, figures={name: x + (-by if r.seed % 2 else by) for name, x in e.figures.items()})
                for e in r.epochs
            ],
        )
        for r in records
    ]


def speed(**changes) -> SpeedRecord:
    whole = dict(
        family="frozen, random crops",
        row="q1_1-features",
        study="quick",
        network="tf_efficientnet_lite0",
        size=96,
        batch=16,
        work="training with validation",
        images=1000,
        ours_seconds=[2.0, 2.5, 4.0],
        reference_seconds=[10.0, 5.0, 12.0],
        target=3.0,
        flops=50 * 10**9,
        bytes=5 * 10**9,
        machine=MACHINE,
        peak_memory_ours=2**30,
        environment={"device": "cpu", "device_name": "A processor", "threads": 2, "torch": "2.15.0", "commit": "abc"},
        command="pytest benchmarks/speed.py",
        started="2026-11-23T10:00:00+00:00",
    )
    return SpeedRecord(**(whole | changes))


# What lies beside them


def results(seed=0, epochs=3, images=40):
    random = np.random.RandomState(seed)
    return two_classes(right=random.rand(epochs, images) < 0.7, labels=np.arange(images, dtype=np.uint8) % 2)


R, R2 = record(), record("q2_1a")


def class_samples(r=R, images=6, **changes):
    p = np.random.RandomState(0).rand(images, 1)
    arrays = dict(probabilities=np.hstack([p, 1 - p]).astype(np.float16))
    arrays["heat"] = np.random.RandomState(0).randint(0, 256, (images, 3, 3)).astype(np.uint8)
    return PredictionSamples(**(dict(run=r.fingerprint, pictures="a" * 64, index=np.arange(images)) | arrays | changes))


def mask_samples(r=R2, **changes):
    predicted = np.random.RandomState(0).randint(0, 11, (4, 5, 5)).astype(np.uint8)
    whole = dict(run=r.fingerprint, pictures="a" * 64, index=np.arange(4), predicted=predicted)
    return PredictionSamples(**(whole | changes))


def jpeg(width, height=None):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height or width), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


FOUR = (jpeg(32),) * 4


def pictures(files=FOUR, **changes):
    whole = dict(
        index=np.arange(len(files)),
        packed=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(file) for file in files]),
        names=tuple(f"val/{i}" for i in range(len(files))),
        masks=np.full((len(files), 32, 32), 11, np.uint8),
    )
    return ValidationPictures(**(whole | changes))


# Stores


def save(folder, records, study="quick"):
    store = Store(folder, study)
    for r in records:
        store.save(replace(r, study=study))
    return folder


def key(r):
    return r.row, r.seed, r.fingerprint


def place(store, r):
    return store.path(*key(r))


def committed_results(folder: Path) -> Path:
    """The results folder of the last commit, unpacked below a folder; that of the tree where there is no commit."""
    packed = subprocess.run(["git", "archive", "HEAD", "results"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        return ROOT / "results"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python before 3.11.4 lacks
        archive.extractall(folder)
    return folder / "results"


def git(*arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)
