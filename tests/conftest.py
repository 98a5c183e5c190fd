"""Cores shared among pytest-xdist's workers; long tests only where they are asked for: `-m long`."""

import os

from cvhw4.pytest_plugin import divided_threads

# Before torch is loaded: threads that spin while they wait for each other slow tests down many times on busy cores.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if threads := divided_threads(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0))):
    os.environ["OMP_NUM_THREADS"] = str(threads)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.get_closest_marker("long") and "long" not in config.option.markexpr]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
