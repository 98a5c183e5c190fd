"""Seconds that the pages of many runs take: part of `make speed`, of `pytest benchmarks/performance -m speed -rP`.

The runs are copies of the committed ones, under further seeds, with their results by image and what their networks saw.
"""

import hashlib
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytestmark = pytest.mark.speed

LIMITS = {500: 10, 10_000: 60}  # runs: seconds
TRIALS = 3


def copy_runs(source, target, count):
    """Fills a store with so many runs, those of another one over and over, each time under other seeds."""
    runs = source.load()
    for digest in {e.pictures for r in runs if (e := source.samples(r)) is not None}:
        target.keep_pictures(digest, lambda digest=digest: source.pictures(digest))
    for number in range(count):
        run, copy = runs[number % len(runs)], number // len(runs)
        fingerprint = hashlib.sha256(f"{run.fingerprint} {copy}".encode()).hexdigest()
        samples = source.samples(run)
        target.save(
            replace(run, seed=run.seed + 1000 * copy, fingerprint=fingerprint),
            source.images(run),
            samples and replace(samples, run=fingerprint),
        )


@pytest.mark.parametrize(("count", "limit"), LIMITS.items())
def test_pages_are_written_within_their_time(count, limit, pytestconfig, tmp_path):
    from cvhw4.records.store import Store

    target = Store(tmp_path, "quick")
    copy_runs(Store(pytestconfig.rootpath / "results", "quick"), target, count)
    bounds = pytestconfig.rootpath / "benchmarks/bounds.toml"
    command = [sys.executable, "-m", "cvhw4", "report", "--results", str(tmp_path), "--bounds", str(bounds)]
    seconds = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        subprocess.run(command, cwd=pytestconfig.rootpath, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    size = (target.folder / "report.html").stat().st_size
    span = f"{min(seconds):.1f} to {max(seconds):.1f} s, n = {TRIALS}"
    print(f"pages of {count} runs: {span}; report.html {size / 1e6:.2f} MB")
    assert sorted(seconds)[TRIALS // 2] < limit
    assert size < 5e6
