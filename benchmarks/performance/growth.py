"""How cost grows with the work (images, image size, seeds): measured, kept in one JSON file, drawn and tabled.

Called by `test_growth.py`. `python -m benchmarks.performance.growth FOLDER LIMIT` passes once over the training images
in FOLDER, as an epoch does (picked in random order, cropped, scaled, normalised), and prints seconds and peak memory as
JSON. A set of more than LIMIT bytes is streamed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    from cvhw4.training.process import prepare_process

    prepare_process()

import numpy as np
import torch
from torch import nn

from benchmarks.performance.cost import Positive
from benchmarks.performance.measured import read_measures, run_python, write_measures
from cvhw4.data.dataset import PORTRAIT_CLASSES, Dataset, Split
from cvhw4.data.embedded import embedded_portraits
from cvhw4.files import write_atomically
from cvhw4.homework import study
from cvhw4.models.build import IMAGENET_MEAN, IMAGENET_STD, Network, build_network
from cvhw4.records.environment import device_name, peak_memory, reset_peak_memory
from cvhw4.records.schema import Count
from cvhw4.records.store import grouped
from cvhw4.report.tables import Table
from cvhw4.report.text import escape, in_picture
from cvhw4.training import objectives
from cvhw4.training.fit import fit

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


# Measuring


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
    network = Network(nn.Identity(), IMAGENET_MEAN, IMAGENET_STD, None)
    with mock.patch.object(objectives, "memory_limit", lambda device: limit):
        objective = objectives.make_objective(study("quick").row("q1_1"), dataset, network, CPU, seed=0)
    reset_peak_memory(CPU)
    started = time.perf_counter()
    seen = sum(len(inputs) for inputs, _ in objective.batches(1))
    seconds = time.perf_counter() - started
    peak = peak_memory(CPU)
    return {"images": seen, "seconds": seconds, "peak_memory": peak, "streamed": images.nbytes > limit} | where()


def run(folder: Path, limit: int) -> dict[str, Any]:
    """`one_epoch` in a process of its own. Raises RuntimeError: it failed; with what it printed."""
    _, printed = run_python(["-m", "benchmarks.performance.growth", str(folder), str(limit)], ROOT)
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def train(name: str, size: int, images: int, seeds: int = 1) -> float:
    """Seconds that the training of a quick row takes, one epoch on a part of the generated portraits.

    Args:
        name: of the row, or what it begins with.
        size: side of its inputs, in pixels.
        images: how many are trained on.
        seeds: runs, one after another.
    """
    row = study("quick").row(name)
    row = replace(row, recipe=replace(row.recipe, size=size, epochs=1))
    whole = embedded_portraits()
    split = whole.train
    part = Split(split.images[:images], split.sizes[:images], split.targets[:images], split.names[:images])
    dataset = replace(whole, train=part, val=part)
    histories = [fit(row, dataset, build_network(row, seed=s), seed=s, device=CPU) for s in range(seeds)]
    return sum(epoch.train_seconds for history in histories for epoch in history.epochs)


def where() -> dict[str, Any]:
    """The processor, and how many threads compute on it."""
    return {"device": device_name(CPU), "threads": torch.get_num_threads()}


# Measures


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A point of a curve.

    Attributes:
        kind: what grows: "images", "image size" (px) or "seeds"; x is how large it is.
        curve: what was measured, "streamed" or a row.
        images: that went through in `seconds`, on `threads` of a processor, `device`.
        measured: when, ISO 8601 in UTC.
        bytes: of pictures, and `peak_memory` in bytes and whether the set was `streamed`: where images grow.
    """

    kind: str
    curve: str
    x: Count
    images: Count
    seconds: Positive
    device: str
    threads: Count
    measured: str
    bytes: Count | None = None
    peak_memory: Count | None = None
    streamed: bool | None = None


class Growth:
    """The measures of a results folder, kept in its `growth.json`: a list of objects. Raises InputError: the file is
    not such a list."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / "growth.json"
        self.points: list[Measure] = read_measures(self._path, Measure)

    def add(self, kind: str, curve: str, x: int, **measured: Any) -> None:
        """Takes a measure in place of an older one; `measured` are the other fields of a `Measure`."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.points = [p for p in self.points if (p.kind, p.curve, p.x) != (kind, curve, x)]
        self.points.append(Measure(kind=kind, curve=curve, x=x, measured=now, **measured))
        self.points.sort(key=lambda p: (p.kind, p.curve, p.x))

    def curves(self, kind: str) -> dict[str, list[Measure]]:
        """The curves of a kind by name, each by rising x."""
        return grouped((point for point in self.points if point.kind == kind), lambda point: point.curve)

    def seconds(self, kind: str, curve: str) -> list[float]:
        """Seconds by rising x."""
        return [p.seconds for p in self.curves(kind)[curve]]

    def per_unit(self, kind: str, curve: str) -> list[float]:
        """Seconds per unit of x, by rising x."""
        return [p.seconds / p.x for p in self.curves(kind)[curve]]

    def save(self) -> Path:
        """Writes the file, and beside it the page `growth.md` with its picture, `growth.png`; the page's path. Raises
        InputError: the folder cannot be written to."""
        write_measures(self._path, self.points)
        write_atomically(self.folder / "growth.png", picture(self))
        write_atomically(self.folder / "growth.md", growth_page(self))
        return self.folder / "growth.md"


# The page

_UNITS = {"images": "training images", "image size": "side of the input (px)", "seeds": "seeds, one after another"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito's, which colour-blind people tell apart as well


def growth_page(growth: Growth) -> str:
    """The tables, in Markdown."""
    parts = [
        "# Cost as the work grows",
        "![seconds and memory against images, image size and seeds](growth.png)",
        "One measure per point, for image size the least of three; by `make growth`. Images: one pass over a training "
        "set as an epoch makes it (picked in random order, cropped, scaled to 96 px, normalised), without a network; "
        "peak memory is the whole process's, torch and all. Image size and seeds: one epoch of the quick study's "
        "row on 64 generated portraits.",
    ]
    for kind, unit in _UNITS.items():
        points = [p for curve in growth.curves(kind).values() for p in curve]
        if points:
            machines = sorted({f"{p.device}, {p.threads} threads, {p.measured[:10]}" for p in points})
            table = Table.of(_line(p, unit) for p in points)
            parts += [f"## {unit.capitalize()}", table.markdown(), "; ".join(map(escape, machines))]
    return "\n\n".join(parts) + "\n"


def _line(point: Measure, unit: str) -> dict[str, str]:
    line = {"curve": escape(point.curve), unit: f"{point.x:,}", "seconds": f"{point.seconds:.2f}"}
    line["images/s"] = f"{point.images / point.seconds:,.0f}"
    if point.kind == "images":
        for name, size in (("pictures", point.bytes), ("peak memory", point.peak_memory)):
            line[name] = "-" if size is None else f"{size / 2**30:.2f} GiB"
    return line


def picture(growth: Growth) -> bytes:
    """Seconds by kind, and memory by images, each on logarithmic axes; a PNG."""
    from matplotlib.figure import Figure

    panels = [(kind, "seconds", 1.0, "seconds") for kind in _UNITS if growth.curves(kind)]
    if growth.curves("images"):
        panels.insert(1, ("images", "peak_memory", 2.0**30, "peak memory (GiB)"))
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.8), layout="constrained")
    row = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axes, (kind, field, scale, label) in zip(row, panels, strict=False):
        curves = growth.curves(kind)
        for colour, marker, (name, points) in zip(_COLOURS, "os^D", curves.items(), strict=False):
            drawn = [(p.x, value / scale) for p in points if (value := getattr(p, field)) is not None]
            axes.plot(*zip(*drawn, strict=True), marker=marker, color=colour, label=in_picture(name))
        axes.set(xscale="log", yscale="log", xlabel=_UNITS[kind], ylabel=label)
        if kind != "images":
            ticks = sorted({p.x for points in curves.values() for p in points})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    png = BytesIO()
    figure.savefig(png, dpi=110)
    return png.getvalue()


if __name__ == "__main__":
    print(json.dumps(one_epoch(Path(sys.argv[1]), int(sys.argv[2]))))
