"""The bounds can fail: real benchmarks, spoilt in three ways, turn red; unspoilt they are green."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def bench(kind, rows, results):
    expression = f"({' or '.join(rows)}) and seed0"
    options = ["-q", "--seeds", "1", "--device", "cpu", "--results", str(results), "-k", expression]
    command = [sys.executable, "-m", "pytest", "benchmarks", "-p", "tests.sabotage", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"SABOTAGE": kind}, capture_output=True, text=True)


def test_unspoilt_benchmarks_are_green(tmp_path):
    result = bench("none", ["q1_6", "q2_1a"], tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.parametrize("kind", ["shuffled labels", "never updated", "wrong split"])
def test_sabotage_turns_benchmarks_red(kind, tmp_path):
    result = bench(kind, ["q1_6", "q2_1a"], tmp_path)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    for figure in ("best accuracy", "best miou"):
        assert f"{figure} 0." in result.stdout, result.stdout
    assert "is below its bound" in result.stdout and "calibrated" in result.stdout
