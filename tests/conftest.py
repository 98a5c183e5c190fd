"""Cores shared among pytest-xdist's workers; long tests only where they are asked for: `-m long`; the same hypothesis
examples in every run, so that a build fails for what changed (`--hypothesis-profile search` draws new ones)."""

import os
import sys

import pytest

from cvhw4.plugin.options import divided_threads

# Before torch is loaded: threads that spin while they wait for each other slow tests down many times on busy cores.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if threads := divided_threads(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0))):
    os.environ["OMP_NUM_THREADS"] = str(threads)

try:
    from hypothesis import settings
except ImportError:  # on a GPU machine, for make gpu-check
    pass
else:
    settings.register_profile("build", derandomize=True, deadline=None)  # machines differ in speed
    settings.register_profile("search", print_blob=True)
    settings.load_profile("build")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if {"browser", "gh"} & {*item.fixturenames}:  # which start programs
            item.add_marker("integration")
    left_out = [item for item in items if item.get_closest_marker("long") and "long" not in config.option.markexpr]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def one_job(monkeypatch):
    """Sessions inside this process train in it, where tests have patched things, unless they say `--jobs`."""
    monkeypatch.setattr("cvhw4.plugin.session.jobs_at_once", lambda config: config.getoption("cvhw4_jobs") or 1)


@pytest.fixture
def cvhw4_command(monkeypatch, capsys, tmp_path):
    """The command line, called in an empty folder: its exit code, what it printed, and what it said beside that."""
    from cvhw4 import cli

    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cvhw4", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output = capsys.readouterr()
        return stop.value.code or 0, output.out, output.err

    return call


@pytest.fixture
def run(cvhw4_command, monkeypatch, tmp_path):
    """The command line in a folder whose studies are the homework's."""
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    return cvhw4_command


@pytest.fixture
def gpu(monkeypatch):
    """None where there is a GPU; else an emulated one, on which small networks stand in for those of the rows."""
    import torch

    if torch.cuda.is_available():
        yield None
        return
    from tests.helpers.emulated_gpu import emulated_gpu
    from tests.helpers.tiny import use_small_networks

    use_small_networks(monkeypatch)
    with emulated_gpu() as emulated:
        yield emulated


@pytest.fixture
def cache_folder(monkeypatch, tmp_path):
    """The cache's folder, the test's own, which nothing waits for to be on the disk."""
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda _: None)  # no test that uses it is about a power failure
    return tmp_path / "cache"
