"""What every row costs at least, and how far above that its runs were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd
from torch import nn

from cvhw4.experiments import Experiment, Question
from cvhw4.models.build import build_network
from cvhw4.records.schema import RunRecord
from cvhw4.report.tables import markdown
from cvhw4.statistics.intervals import estimate
from cvhw4.training.cost import Cost, Machine, floor_seconds, flops_per_image, limit, parameter_bytes_per_step, run_cost

# Training and validation images of the report.
PROTOCOL: Mapping[Question, tuple[int, int]] = {"q1": (2000, 400), "q2": (367, 101)}


def floors_page(
    profile: str, rows: Sequence[Experiment], groups: Mapping[str, Sequence[RunRecord]], machine: Machine
) -> str:
    """A page in markdown.

    Args:
        rows: the experiments in the order of the table.
        groups: their runs on this machine, by id; rows without runs are counted for the report's numbers of images.
        machine: what it was measured to reach.
    """
    peak = f"{machine.matrix_flops / 1e9:.0f} GFLOP/s ({machine.precision}) and {machine.bandwidth / 1e9:.0f} GB/s"
    about = (
        "Per image: matrix products and convolutions, 2 FLOP per multiply-add. Per step: the traffic of parameters, "
        "momentum and gradients in float32 (a linear layer's gradient, of the rank of the batch, is not written out). "
        f"Floor: of a whole run, at this machine's measured {peak}, whichever takes longer. Features of frozen rows "
        "are counted as often as they have to be computed. Measured: training and evaluation, mean over stored runs."
    )
    table = markdown(pd.DataFrame(list(_lines(rows, groups, machine))))
    return f"# What the rows of profile `{profile}` cost at least\n\n{about}\n\n{table}\n"


def _lines(
    rows: Sequence[Experiment], groups: Mapping[str, Sequence[RunRecord]], machine: Machine
) -> Iterator[dict[str, str]]:
    for experiment in rows:
        runs = groups.get(experiment.id, [])
        train, val = (runs[0].data.train, runs[0].data.val) if runs else PROTOCOL[experiment.question]
        module = build_network(replace(experiment, start="random"), seed=0).module
        per_image = flops_per_image(experiment, module)
        cost = least_work(experiment, module, train, val)
        floor = floor_seconds(cost, machine)
        seconds = [r.times.train_seconds + r.times.evaluate_seconds for r in runs]
        yield {
            "row": experiment.id,
            "network": f"{experiment.network}, {experiment.recipe.size} px, batch {experiment.recipe.batch}",
            "GFLOP/image, forward": f"{per_image.forward / 1e9:.3f}",
            "and backward": f"{per_image.training / 1e9:.3f}",
            "MB/step": f"{parameter_bytes_per_step(experiment, module) / 1e6:,.0f}",
            "images x epochs": f"({train} + {val}) x {experiment.recipe.epochs}",
            "floor": f"{floor:,.1f} s",
            "limit": limit(cost, machine),
            "measured": f"{estimate(seconds).mean:.1f} s" if runs else "not measured",
            "over floor": f"{estimate(seconds).mean / floor:.1f}" if runs else "-",
            "n": str(len(runs)),
        }


def least_work(experiment: Experiment, module: nn.Module, train: int, val: int) -> Cost:
    """What a run of a row has to cost at least, with the features of a frozen network reused.

    Args:
        module: the row's network.
        train: images of the training split; `val` of the validation split.
    """
    passes = None
    if experiment.trained == "last layer":
        few = experiment.augmentation == "whole face"  # two variants of each image
        passes = (2 if few else experiment.recipe.epochs) * train + val
    return run_cost(experiment, module, train=train, val=val, trunk_passes=passes)
