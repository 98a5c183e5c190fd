"""Ours against the reference loop, side by side, in turn: `make speed`, or `pytest benchmarks/test_speed.py -m speed`.

Each family is timed as `FAMILIES` says, and has to reach its target. Records go to `<results>/speed/`, the table to
`<results>/speed.md`.
"""

from __future__ import annotations

import os
import shlex
import sys
from functools import cache

import pytest

from benchmarks.families import FAMILIES, TARGETS
from cvhw4.study import pick_device, pick_precision
from cvhw4.training.process import prepare_process, release_memory

pytestmark = pytest.mark.speed

TRIALS = int(os.environ.get("CVHW4_TRIALS", "3"))
SLACK = 0.9  # of the target: what the noise of a shared machine may take away


@pytest.fixture(scope="module")
def device(pytestconfig):
    prepare_process()
    return pick_device(pytestconfig.getoption("device"))


@pytest.fixture(scope="module")
def machine(device):
    """What the device reaches in a precision, measured once, while nothing else runs."""
    from cvhw4.training.cost import measure_machine

    @cache
    def measured(precision):
        names = {"float32": "tf32" if device.type == "cuda" else "float32", "bf16": "bfloat16"}
        found = measure_machine(device, names[precision])
        release_memory()
        return found

    return measured


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
def test_ours_is_faster_than_the_reference_loop(family, device, machine, pytestconfig, tmp_path):
    from benchmarks.speed import compare, what
    from cvhw4.records.environment import device_name
    from cvhw4.records.speed import load_all
    from cvhw4.report.speed import write_speed_page
    from cvhw4.training.cost import floor_seconds

    if device.type == "cuda" and family.cuda is None:
        pytest.skip("the same work as another family's there")
    precision = pick_precision(pytestconfig.getoption("precision"), device, family.experiment(device.type))
    graphs = pytestconfig.getoption("cuda_graphs") and device.type == "cuda"
    results = pytestconfig.getoption("results") or pytestconfig.rootpath / "results"
    same = {"device_name": device_name(device)} | what(precision, graphs, TRIALS)
    stored = load_all(results) if pytestconfig.getoption("reuse") else []
    record = next((r for r in stored if r.family == family.name and same.items() <= r.environment.items()), None)
    if record is not None:
        print(f"measured already, {record.started}")
    else:
        record = compare(
            family,
            tmp_path,
            device=device,
            precision=precision,
            graphs=graphs,
            machine=machine(precision),
            trials=TRIALS,
            command=shlex.join(["pytest", *sys.argv[1:]]),
        )
        record.save(results)
    page = write_speed_page(results, TARGETS)
    floor = floor_seconds(record.cost, record.machine)
    print(f"{family.name}: {record.ratio:.2f} times the reference loop's speed; {record.over_floor:.2f} times the")
    print(f"limit of {floor:.2f} s that {record.limit} sets to {record.flops / 1e9:.0f} GFLOP; table in {page}")
    if record.target is not None:
        assert record.ratio >= SLACK * record.target, f"{record.target} times the speed were wanted, with {SLACK} slack"
