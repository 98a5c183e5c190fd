"""What every row of the homework costs at least, and how far above that its runs were.

`python -m benchmarks.performance.floors --size quick --device cpu` measures this machine, in seconds, and writes
`<results>/<study>/floors.md`. With `--memory` it writes `memory.md` instead: what memory rows take on a GPU, by shapes
alone (fake tensors), which needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.performance.cost import (
    Machine,
    flop_counter,
    flops_per_image,
    measure_machine,
    parameter_bytes_per_step,
    run_cost,
)
from cvhw4 import CAMVID, InputError, Row, RunRecord
from cvhw4.data.dataset import Dataset, Split
from cvhw4.files import write_atomically
from cvhw4.homework import SIZES, study
from cvhw4.models.build import build_network
from cvhw4.records.environment import device_name
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.tables import Table
from cvhw4.study import Precision
from cvhw4.training.device import pick_device

PROTOCOL = {"classification": (2000, 400), "segmentation": (367, 101)}  # training and validation images of the report


def floors_page(name: str, rows: Sequence[Row], runs: Mapping[str, Sequence[RunRecord]], machine: Machine) -> str:
    """A page in Markdown.

    Args:
        name: of the study.
        rows: in the order of the table.
        runs: on this machine, by row; rows without runs are counted for the report's numbers of images.
        machine: what it was measured to reach.
    """
    peak = f"{machine.matrix_flops / 1e9:.0f} GFLOP/s ({machine.precision}) and {machine.bandwidth / 1e9:.0f} GB/s"
    about = (
        "Per image: matrix products and convolutions, 2 FLOP per multiply-add. Per step: the traffic of parameters, "
        "momentum and gradients in float32 (a linear layer's gradient, of the rank of the batch, is not written out). "
        f"Floor: of a whole run, at this machine's measured {peak}, whichever takes longer. Features of frozen rows "
        "are counted as often as they have to be computed. Measured: training and evaluation, mean over stored runs."
    )
    table = Table.of(_lines(rows, runs, machine)).markdown()
    return f"# What the rows of study `{name}` cost at least\n\n{about}\n\n{table}\n"


def _lines(
    rows: Sequence[Row], groups: Mapping[str, Sequence[RunRecord]], machine: Machine
) -> Iterator[dict[str, str]]:
    for row in rows:
        runs = groups.get(row.name, [])
        train, val = (runs[0].data.train, runs[0].data.val) if runs else PROTOCOL[row.task.name]
        module = build_network(replace(row, start="random"), seed=0).module
        per_image, cost = flops_per_image(row, module), run_cost(row, module, train=train, val=val)
        floor, limit = machine.floor(cost)
        measured = mean(r.times.train_seconds + r.times.evaluate_seconds for r in runs) if runs else None
        yield {
            "row": row.name,
            "network": f"{row.network}, {row.recipe.size} px, batch {row.recipe.batch}",
            "GFLOP/image, forward": f"{per_image.forward / 1e9:.3f}",
            "and backward": f"{per_image.training / 1e9:.3f}",
            "MB/step": f"{parameter_bytes_per_step(row, module) / 1e6:,.0f}",
            "images x epochs": f"({train} + {val}) x {row.recipe.epochs}",
            "floor": f"{floor:,.1f} s",
            "limit": limit,
            "measured": "not measured" if measured is None else f"{measured:.1f} s",
            "over floor": "-" if measured is None else f"{measured / floor:.1f}",
            "n": str(len(runs)),
        }


# Memory of a GPU, by shapes alone

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

    Args:
        batch: images of a step, instead of the recipe's.
    """
    from cvhw4.training.fit import fit
    from tests.emulated_gpu import emulated_gpu

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
    stored = sum(_bytes(row) * (n - f) for n, f in zip(numbers, few, strict=True))
    return Shapes(peak + stored, flops)


def _blank(row: Row, images: int) -> Split:
    height, width = _SIDES[row.task.name]
    targets = np.zeros((images, height, width) if row.task.name == "segmentation" else images, dtype=np.uint8)
    pixels = np.zeros((images, height, width, 3), dtype=np.uint8)
    return Split(pixels, np.tile(np.array([height, width], np.int32), (images, 1)), targets, ("blank",) * images)


def _bytes(row: Row) -> int:
    """Of a stored picture with its target."""
    height, width = _SIDES[row.task.name]
    return height * width * (4 if row.task.name == "segmentation" else 3)


def memory_page(name: str, rows: Sequence[Row]) -> str:
    """A page in Markdown: memory and work of an epoch of each row, and the largest batch of a card."""
    about = (
        f"Written by `python -m benchmarks.performance.floors --size {name} --memory`, torch {torch.__version__}, "
        "whatever the machine. By shapes alone, without a GPU: two steps and a validation of each row as they "
        "run on CUDA in bf16, every tensor counted and rounded up to the allocator's 512 bytes, with the "
        "report's pictures on the device (2000 + 400 of 218 x 178 px, 367 + 101 of 360 x 480 px). What cuDNN "
        "takes for its work, fragments and CUDA itself are not in it; the batches are those that fit into "
        f"{_USABLE:.0%} of a card, on the line through batches of {_BATCHES[0]} and {_BATCHES[1]}. *By the "
        "formula*: the work as `floors.md` counts it, without the products that resample pictures. No GPU has "
        "confirmed these figures."
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance.floors", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records and tables")
    parser.add_argument("--size", choices=SIZES, default="quick", help="of the homework's study")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--memory", action="store_true", help="memory.md instead, by shapes alone")
    given = parser.parse_args(arguments)
    try:
        homework, device = study(given.size), pick_device(given.device)
        if given.memory:
            path = given.results / homework.name / "memory.md"
            write_atomically(path, memory_page(homework.name, [*homework.rows.values()]))
            print(path)
            return
        store = Store(given.results, homework.name)
        runs: dict[str, list[RunRecord]] = {}
        for record in latest_runs(store.load()):
            if record.environment["device_name"] == device_name(device):
                runs.setdefault(record.row, []).append(record)
        machine = measure_machine(device, "float32" if device.type == "cpu" else "bfloat16")
        path = store.folder / "floors.md"
        write_atomically(path, floors_page(homework.name, [*homework.rows.values()], runs, machine))
    except InputError as error:
        sys.exit(str(error))
    print(path)


if __name__ == "__main__":
    main()
