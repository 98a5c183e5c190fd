"""The bounds can fail: real benchmarks, corrupted in three ways, turn red; uncorrupted they are green."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent


def bench(kind, rows, results):
    expression = f"({' or '.join(rows)}) and seed0"
    options = ["-q", "--seeds", "1", "--device", "cpu", "--results", str(results), "-k", expression]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks",
        "-p",
        "tests.corruption",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"CORRUPTION": kind}, capture_output=True, text=True)


def test_uncorrupted_benchmarks_are_green(tmp_path):
    result = bench("none", ["q1_6", "q2_1a"], tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.parametrize(
    ("kind", "row", "figure"),
    [
        ("shuffled labels", "q1_6", "best accuracy"),
        ("never updated", "q2_1a", "best miou"),
        ("wrong split", "q1_6", "best accuracy"),
    ],
)
def test_corruption_turns_a_benchmark_red(kind, row, figure, tmp_path):
    result = bench(kind, [row], tmp_path)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert re.search(rf"{figure} 0\.\d+ is below its bound .* \(calibrated ", result.stdout), result.stdout
