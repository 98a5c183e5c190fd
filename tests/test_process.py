"""Settings of the process: what is freed stays until it is given back; the user's own settings stay."""

import ctypes
import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
import numpy as np
from cvhw4.training.process import prepare_process, release_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) // 1024

if "prepared" in sys.argv:
    prepare_process()
prepare_process.cache_clear()
before = resident()
blocks = [np.ones(40 << 20, np.uint8) for _ in range(3)]
held = resident()
del blocks
freed = resident()
release_memory()
print(held - before, freed - before, resident() - before, os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


def measure(*arguments, **environment):
    own = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | environment
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], env=own, capture_output=True, text=True, check=True)
    *sizes, spin, torch = done.stdout.split()
    return [int(size) for size in sizes], spin, torch


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_memory_stays_until_it_is_released_unless_the_user_has_it_otherwise():
    (held, freed, released), spin, torch = measure("prepared")
    assert held >= 115 and freed >= 115 and released < 60
    assert (spin, torch) == ("10000", "False")  # set, and early enough for torch to read it
    (held, freed, _), spin, _ = measure()
    assert held >= 115 and freed < 60 and spin == "None"
    (_, freed, _), spin, _ = measure("prepared", MALLOC_TRIM_THRESHOLD_="131072", GOMP_SPINCOUNT="7")
    assert freed < 60 and spin == "7"


CHECKING = """
import gc, os, sys
from contextlib import suppress
from pathlib import Path
from cvhw4.errors import InputError
from cvhw4.preflight import check_options
from cvhw4.runner import Runner

with suppress(InputError):  # of a processor without it
    check_options(Runner(study=None, precision="bf16", results=Path("results")))
print("torch" in sys.modules, gc.get_freeze_count() > 100_000, os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.integration
def test_a_check_of_options_that_needs_torch_prepares_the_process_before():
    own = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", CHECKING], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "10000"]


IMPORTING = """
import gc
from cvhw4.training.process import importing

with importing():
    assert not gc.isenabled()
    import torch
    import timm
frozen = gc.get_freeze_count()
network = torch.nn.Linear(2, 2)
network.itself = [network]
with importing():  # of a second study
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen, "a network would never be freed"
print(frozen, gc.isenabled())
"""


@pytest.mark.integration
def test_what_is_imported_is_looked_through_no_more():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=True)
    frozen, enabled = done.stdout.split()
    assert int(frozen) > 100_000
    assert enabled == "True"
    assert not done.stderr  # as triton tells of leaks where its objects stay frozen to the end
