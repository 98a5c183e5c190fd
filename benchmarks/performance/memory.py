"""What memory the homework's rows take on a GPU, by shapes alone (fake tensors), which needs no GPU.

`python -m benchmarks.performance.memory --size full` writes `<results>/<study>/memory.md`.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.performance.cost import flop_counter, run_cost
from cvhw4 import CAMVID, InputError, Row
from cvhw4.data.dataset import Dataset, Split
from cvhw4.files import write_atomically
from cvhw4.homework import SIZES, study
from cvhw4.models.build import build_network
from cvhw4.report.tables import Table
from cvhw4.study import Precision

PROTOCOL = {"classification": (2000, 400), "segmentation": (367, 101)}  # training and validation images of the report


_CARDS = (8, 16, 24, 80)  # GiB
_USABLE = 0.9  # of a card: the rest is CUDA's, its libraries' and fragments'
_SIDES = {"classification": (218, 178), "segmentation": (360, 480)}  # of the report's pictures, in pixels
_BATCHES = 256, 512  # so large that what an image takes decides the peak, and no network's own parameters
_STEPS = 2  # the second has the optimizer's state beside it


class Shapes(NamedTuple):
    """What an epoch of a row takes on a GPU.

    Attributes:
        peak: bytes at most in use, with the report's pictures on the device.
        flops: of matrix products and convolutions in an epoch, training and validation, those that resample pictures
            among them.
    """

    peak: int
    flops: float


def shapes_of(row: Row, batch: int, precision: Precision = "bf16") -> Shapes:
    """Trains two steps and validates on an emulated GPU that knows shapes alone, and reckons the epoch from them.
    `batch`: images of a step, instead of the recipe's."""
    from cvhw4.training.fit import fit
    from tests.helpers.emulated_gpu import emulated_gpu

    row = replace(row, start="random", recipe=replace(row.recipe, epochs=1, batch=batch))
    numbers, few = PROTOCOL[row.task.name], (_STEPS * batch, 32)
    pictures = Dataset(
        name="shapes",
        task=row.task.name,
        classes=tuple(CAMVID["classes"]) if row.task.name == "segmentation" else ("a", "b"),
        train=_blank(row, few[0]),
        val=_blank(row, few[1]),
        fingerprint="",
        embedded=True,
    )
    counted = []
    for with_training in (True, False):
        network = build_network(row, seed=0)
        if not with_training:  # an epoch of one picture, so that the difference is the training's
            pictures = replace(pictures, train=_blank(row, 1))
        with emulated_gpu(total=1 << 40, numbers=False) as gpu, flop_counter() as counter, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of figures of zeros
            fit(row, pictures, network, seed=0, device=gpu.device, precision=precision)
        counted.append((gpu.peak, counter.get_total_flops()))
    (peak, both), (_, least) = counted
    training = (both - least) / (few[0] - 1)
    flops = numbers[0] * training + numbers[1] * (least - training) / few[1]
    of_picture = math.prod(_SIDES[row.task.name]) * (4 if row.task.name == "segmentation" else 3)  # and its target
    stored = sum(of_picture * (n - f) for n, f in zip(numbers, few, strict=True))
    return Shapes(peak + stored, flops)


def _blank(row: Row, images: int) -> Split:
    height, width = _SIDES[row.task.name]
    targets = np.zeros((images, height, width) if row.task.name == "segmentation" else images, dtype=np.uint8)
    pixels = np.zeros((images, height, width, 3), dtype=np.uint8)
    return Split(pixels, np.tile(np.array([height, width], np.int32), (images, 1)), targets, ("blank",) * images)


def memory_page(name: str, rows: Sequence[Row]) -> str:
    """A page in Markdown: memory and work of an epoch of each row, and the largest batch of a card."""
    about = (
        f"Written by `python -m benchmarks.performance.memory --size {name}`, torch {torch.__version__}, "
        "whatever the machine. By shapes alone, without a GPU: two steps and a validation of each row as they "
        "run on CUDA in bf16, every tensor counted and rounded up to the allocator's 512 bytes, with the "
        "report's pictures on the device (2000 + 400 of 218 x 178 px, 367 + 101 of 360 x 480 px). What cuDNN "
        "takes for its work, fragments and CUDA itself are not in it; the batches are those that fit into "
        f"{_USABLE:.0%} of a card, on the line through batches of {_BATCHES[0]} and {_BATCHES[1]}. *By the "
        "formula*: the work as `benchmarks/performance/cost.py` counts it, without the products that resample "
        "pictures. No GPU has confirmed these figures."
    )
    lines = []
    for row in rows:
        batch = row.recipe.batch
        once, some, more = (shapes_of(row, n) for n in (batch, *_BATCHES))
        each = (more.peak - some.peak) / (_BATCHES[1] - _BATCHES[0])
        module = build_network(replace(row, start="random"), seed=0).module
        train, val = PROTOCOL[row.task.name]
        formula = run_cost(replace(row, recipe=replace(row.recipe, epochs=1)), module, train=train, val=val).flops
        fits = [(_USABLE * gib * 2**30 - some.peak) / each + _BATCHES[0] for gib in _CARDS]
        lines.append(
            {
                "row": row.name,
                "network": f"{row.network}, {row.recipe.size} px",
                "batch": str(batch),
                "peak": f"{once.peak / 2**30:.2f} GiB",
                "an image more": f"{each / 2**20:,.1f} MiB",
                "TFLOP an epoch": f"{once.flops / 1e12:.2f}",
                "by the formula": f"{formula / 1e12:.2f}",
                **{f"batch on {g} GiB": f"{max(int(n), 0):,}" for g, n in zip(_CARDS, fits, strict=True)},
            }
        )
    return f"# What the rows of study `{name}` take on a GPU\n\n{about}\n\n{Table.of(lines).markdown()}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `arguments` instead of the process's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance.memory", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records and tables")
    parser.add_argument("--size", choices=SIZES, default="quick", help="of the homework's study")
    given = parser.parse_args(arguments)
    path = given.results / given.size / "memory.md"
    try:
        write_atomically(path, memory_page(given.size, [*study(given.size).rows.values()]))
    except InputError as error:
        sys.exit(str(error))
    print(path)


if __name__ == "__main__":
    main()
