"""The commands of the Makefile that need no installation, at small size."""

import ast
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cvhw4.records.store import Store
from tests.helpers import ROOT

pytestmark = pytest.mark.integration

# What a GPU machine without network has, beside Python's own: pip's names for it are in pyproject.toml.
INSTALLED = "torch torchvision timm numpy PIL scipy matplotlib pandas tabulate safetensors filelock pytest _pytest rich"
INSTALLED = {*f"{INSTALLED} typer cvhw4 tests benchmarks".split(), *sys.stdlib_module_names}


def imported(path):
    """The packages that a file imports wherever it is loaded: not those within functions, `try` or `if`."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_the_gpu_commands_need_only_what_a_gpu_machine_has():
    recipe = (ROOT / "Makefile").read_text().partition("gpu-check:\n")[2].partition("gpu-full")[0]
    files = [ROOT / word for word in recipe.split() if word.endswith(".py")]
    assert len(files) == 3 and all(file.is_file() for file in files)
    beside = ("conftest.py", "tests/conftest.py", "tests/helpers/tiny.py", "tests/helpers/emulated_gpu.py")
    files += [ROOT / name for name in beside]
    # The page for a browser, trackers and Lightning's side say what is to be installed where that is missing.
    files += [f for f in ROOT.glob("benchmarks/**/*.py") if f.name != "lightning_script.py"]
    files += [f for f in ROOT.glob("cvhw4/**/*.py") if f.name != "html.py" and f.parent.name != "trackers"]
    assert {str(f.relative_to(ROOT)): missing for f in files if (missing := {*imported(f)} - INSTALLED)} == {}


def make(*arguments, before=(), timeout=None, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")} | environment
    command = [*before, "make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def nothing_is_left_of(folder):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended
            assert str(folder).encode() not in path.read_bytes(), "sessions go on behind a cut"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_gpu_command_runs_on_the_cpu_and_restarts(tmp_path):
    """`make gpu` on the CPU: CUDA tests, a comparison of speed, the benchmarks; again, it takes what is finished."""
    arguments = f"--seeds 1 --threads 1 -k 'q1_1 or B2' -p tests.helpers.tiny --bounds {tmp_path / 'bounds.toml'}"
    (tmp_path / "bounds.toml").write_text("")  # no bounds at this size
    settings = [f"PYTHON={sys.executable}", "DEVICE=cpu", "AT_ONCE=2", "PROFILE=quick", "CHECKS=-k q1_1"]
    settings += [f"OUT={tmp_path}", f"JUNIT={tmp_path / 'junit.xml'}", f"ARGS={arguments}"]
    cut = make("gpu", "MINUTES=0.5", *settings, timeout=90)
    assert cut.returncode, cut.stdout  # no part is done in so few seconds
    nothing_is_left_of(tmp_path)
    outputs = [make(part, *settings, CVHW4_TRIALS="1") for part in ("gpu", "gpu-speed", "gpu-full")]
    for done in outputs:
        assert done.returncode == 0, done.stdout + done.stderr
    logs = [(tmp_path / f"part-{i}.log").read_text() for i in (1, 2)]
    assert "1 passed" in logs[0] and "no tests ran" not in logs[0] and "reused" in outputs[2].stdout
    assert "measured already" not in outputs[0].stdout and "measured already" in outputs[1].stdout
    assert len(list(tmp_path.glob("quick/runs/q1_1-features/seed0-*.json"))) == 1
    assert (tmp_path / "quick" / "report.md").is_file()
    assert "fingerprint" in (tmp_path / "junit.xml").read_text()  # the last session's, which tells of all runs
    page = (tmp_path / "speed.md").read_text()
    assert "EfficientNet-B2: training with validation" in page and "not measured" in page


@pytest.mark.long
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_cuts_at_random_moments_cost_no_run_on_an_emulated_gpu(tmp_path):
    """Checks and benchmarks; speed is measured in processes of its own, and an emulated GPU's says nothing."""
    (tmp_path / "bounds.toml").write_text("")
    plugins = "-p tests.helpers.tiny -p tests.helpers.emulated_gpu"
    arguments = f"--seeds 1 --threads 1 -k 'q1_1 or q2_1a' {plugins} --bounds {tmp_path / 'bounds.toml'}"
    settings = [f"PYTHON={sys.executable}", "PROFILE=quick", "AT_ONCE=2", f"OUT={tmp_path}", f"ARGS={arguments}"]
    settings.append("CHECKS=-k adam_can_be_recorded -p tests.helpers.emulated_gpu")
    finished, cuts = set(), [random.uniform(5, 60) for _ in range(3)]
    for seconds in cuts:
        make("gpu-check", "gpu-full", *settings, before=["timeout", "--kill-after=10", f"{seconds}"])
        nothing_is_left_of(tmp_path)
        before, finished = finished, {path.name for path in tmp_path.glob("quick/runs/*/seed*.json")}
        assert before <= finished, cuts
    done = make("gpu-check", "gpu-full", *settings)
    assert done.returncode == 0, (cuts, done.stdout + done.stderr)
    runs = {(r.row, r.environment["device_name"]) for r in Store(tmp_path, "quick").load()}
    assert runs == {("q1_1-features", "emulated"), ("q2_1a-skip", "emulated")}
