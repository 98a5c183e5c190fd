"""Ours against the reference loop, side by side, in turn: `make speed`, or `pytest benchmarks/test_speed.py -m speed`.

Each family is timed as `FAMILIES` says, and has to reach its target. Records go to `<results>/speed/`, the table to
`<results>/speed.md`.
"""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.families import FAMILIES, TARGETS
from cvhw4.study import pick_device, pick_precision
from cvhw4.training.process import prepare_process

pytestmark = pytest.mark.speed

TRIALS = int(os.environ.get("CVHW4_TRIALS", "3"))
SLACK = 0.9  # of the target: what the noise of a shared machine may take away


@pytest.fixture(scope="module")
def device(pytestconfig):
    prepare_process()
    return pick_device(pytestconfig.getoption("device"))


@pytest.fixture(scope="module")
def precision(device, pytestconfig):
    return pick_precision(pytestconfig.getoption("precision"), device)


@pytest.fixture(scope="module")
def machine(device, precision):
    """What the device reaches in the precision that ours computes in, measured before anything else runs."""
    from cvhw4.training.cost import measure_machine

    return measure_machine(device.type, {"float32": "float32", "bf16": "bfloat16"}[precision])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
def test_ours_is_faster_than_the_reference_loop(family, device, precision, machine, pytestconfig, tmp_path):
    from benchmarks.speed import compare
    from cvhw4.records.environment import commit, device_name
    from cvhw4.records.speed import load_all
    from cvhw4.report.speed import write_speed_page
    from cvhw4.training.cost import floor_seconds

    results = pytestconfig.getoption("results") or pytestconfig.rootpath / "results"
    if pytestconfig.getoption("reuse"):
        here = {"device_name": device_name(device), "commit": commit(), "precision": precision}
        for old in load_all(results):
            if old.family == family.name and here.items() <= old.environment.items():
                pytest.skip(f"measured already, {old.started}: {old.ratio:.2f} times the reference loop's speed")
    record = compare(
        family,
        tmp_path,
        device=device,
        precision=precision,
        graphs=pytestconfig.getoption("cuda_graphs"),
        machine=machine,
        trials=TRIALS,
        command=" ".join(["pytest", *sys.argv[1:]]),
    )
    record.save(results)
    page = write_speed_page(results, TARGETS)
    floor = floor_seconds(record.cost, machine)
    print(f"{family.name}: {record.ratio:.2f} times the reference loop's speed; {record.over_floor:.2f} times the")
    print(f"limit of {floor:.2f} s that {record.limit} sets to {record.flops / 1e9:.0f} GFLOP; table in {page}")
    if record.target is not None:
        assert record.ratio >= SLACK * record.target, f"{record.target} times the speed were wanted, with {SLACK} slack"
