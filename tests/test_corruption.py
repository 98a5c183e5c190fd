"""The bounds can fail: real benchmarks, corrupted in three ways, turn red; uncorrupted they are green. With `-m long`,
eight small changes of the code that trains as well."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers import ROOT

BENCH = (sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", "--device", "cpu")
CAPTURED = {"capture_output": True, "text": True}


def bench(kind, rows, results):
    expression = f"({' or '.join(rows)}) and seed0"
    options = ["-p", "tests.helpers.corruption", "--seeds", "1", "--results", str(results), "-k", expression]
    return subprocess.run([*BENCH, *options], cwd=ROOT, env=os.environ | {"CORRUPTION": kind}, **CAPTURED)


@pytest.mark.integration
def test_uncorrupted_benchmarks_are_green(tmp_path):
    result = bench("none", ["q1_6", "q2_1a"], tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.integration
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


# fmt: off
# ruff: noqa: E501
PLANTED = [  # what is wrong, file, text, what stands there instead, the row that is trained
    ("no picture is mirrored", "data/augment.py", "torch.rand(n, generator=generator) < 0.5", "torch.rand(n, generator=generator) < 0", "q2_n1a"),
    ("masks are not mirrored with their pictures", "data/augment.py", "float(), targets[index]", "float(), targets[image[:, :, None], (top + across)[:, :, None], (left + across)[:, None]]", "q2_n1a"),
    ("an epoch's last batch is left out", "training/fit.py", "for inputs, targets in batches:", "for inputs, targets in [*batches][:-1]:", "q2_n1a"),
    ("nine tenths of the mean are subtracted", "training/objectives.py", "images.sub_(self.mean)", "images.sub_(self.mean * 0.9)", "q1_1"),
    ("the learning rate falls an epoch early", "training/recipe.py", "StepLR(optimizer, recipe.lr_step,", "StepLR(optimizer, recipe.lr_step - 1,", "q2_n1a"),
    ("momentum is left out", "training/recipe.py", "momentum=recipe.momentum or 0.0", "momentum=0.0", "q1_1"),
    ("crops are smaller by half", "data/augment.py", "0.08 + 0.92 *", "0.04 + 0.46 *", "q1_1"),
    ("pixels without a class count as the first", "training/recipe.py", "hot = (targets[:, None] == numbers)", "hot = (targets.where(targets < classes, 0)[:, None] == numbers)", "q2_n1a"),
]
# fmt: on


@pytest.mark.long
@pytest.mark.parametrize("change", PLANTED, ids=lambda change: change[0].replace(" ", "_"))
def test_a_changed_line_of_the_training_turns_a_benchmark_red(change, tmp_path):
    _, file, text, instead, row = change
    for part in ("cvhw4", "benchmarks", "pyproject.toml", "conftest.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    changed = tmp_path / "cvhw4" / file
    assert changed.read_text().count(text) == 1
    changed.write_text(changed.read_text().replace(text, instead))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*BENCH, "-k", row], cwd=tmp_path, env=environment, **CAPTURED)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    print(*re.findall(r"^E .*bound.*$", done.stdout, re.M)[:3], sep="\n")
    assert "calibrated" in done.stdout and "not the data of that name" not in done.stdout, done.stdout
