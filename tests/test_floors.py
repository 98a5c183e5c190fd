"""What rows cost at least, against hand-worked cases, and the page of it."""

from dataclasses import replace

import pytest

from cvhw4.experiments import find_row
from cvhw4.models.build import build_network
from cvhw4.report.floors import floors_page, least_work
from cvhw4.training.cost import Machine, flops_per_image
from tests.tiny import record

MACHINE = Machine("cpu", 1e11, "float32", 1e10)


def cells(page, row):
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name, passes", [("q1_1", 5 * 256 + 200), ("q1_5", 2 * 256 + 200)])
def test_frozen_rows_pass_the_trunk_as_often_as_they_must(name, passes):
    experiment = replace(find_row("quick", name), start="random")
    module = build_network(experiment, seed=0).module
    cost = least_work(experiment, module, 256, 200)
    assert cost.flops == passes * flops_per_image(experiment, module).forward
    assert cost.images == 5 * 456


def test_the_page_shows_rows_with_and_without_runs():
    rows = [find_row("quick", "q1_2"), find_row("full", "q1_3")]
    page = floors_page("quick", rows, {"q1_2-finetune": [record("q1_2", seed=s) for s in (0, 1)]}, MACHINE)
    measured, absent = cells(page, "q1_2-finetune"), cells(page, "q1_3-scratch")
    assert measured[5] == "(240 + 400) x 5" and measured[8] == "9.0 s" and measured[10] == "2"
    assert float(measured[9]) == pytest.approx(9.0 / float(measured[6].split()[0]), rel=0.1)
    # AlexNet at 224 px: 4.12 GFLOP an image trained, 57 M parameters; 25 epochs of 2000 and 400 images
    assert absent[2:6] == ["1.420", "4.120", "1,388", "(2000 + 400) x 25"]
    assert absent[6:9] == ["2,202.0 s", "arithmetic", "not measured"]
