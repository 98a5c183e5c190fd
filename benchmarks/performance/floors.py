"""What every row of the homework costs at least, and how far above that its runs were.

`python -m benchmarks.performance.floors --size quick --device cpu` measures this machine, in seconds, and writes
`<results>/<study>/floors.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.performance.cost import Machine, flops_per_image, measure_machine, parameter_bytes_per_step, run_cost
from cvhw4 import InputError, Row, RunRecord
from cvhw4.files import write_atomically
from cvhw4.homework import SIZES, study
from cvhw4.models.build import build_network
from cvhw4.records.environment import device_name
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.tables import Table
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


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `arguments` instead of the process's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance.floors", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records and tables")
    parser.add_argument("--size", choices=SIZES, default="quick", help="of the homework's study")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    given = parser.parse_args(arguments)
    try:
        homework, device = study(given.size), pick_device(given.device)
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
