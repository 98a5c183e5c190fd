"""Settings of the process that decide how fast a CPU trains. Loads no torch: two of them have to come before it."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_environment() -> int | None:
    """How many threads `OMP_NUM_THREADS` asks for ("5,2" is 5, and 2 within each); None where it asks for none."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) or None if given.isdecimal() else None


@lru_cache
def prepare_process() -> None:
    """Makes threads wait quietly and freed memory stay with the process; once, before torch is loaded.

    GNU OpenMP's threads spin while they wait for each other; left to spin as long as they like, they make training
    many times slower once another process wants a core (`GOMP_SPINCOUNT`, where the user has not set it).

    glibc gives every large block back to the kernel when it is freed and asks for it anew, so each step of a network
    pays for the same pages again: they are zeroed and mapped one by one. Kept in the heap they are paid for once. On
    other C libraries nothing is changed.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if os.environ.keys() & {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"}:
        return  # the user has settings of their own
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)
        mallopt(_M_TOP_PAD, 16 << 20)


@contextmanager
def importing() -> Iterator[None]:
    """For the first import of torch and what builds on it, which makes a million objects that stay: they, and whatever
    else is there by then, are looked through for garbage no more until the process ends."""
    if "torch" in sys.modules:  # networks may be there, which have to be found when they are garbage
        yield
        return
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # else triton tells of leaks
        if enabled:
            gc.enable()


def release_memory() -> None:
    """Gives the kernel back what `prepare_process` keeps, and an accelerator what torch keeps of its memory, between
    two runs, so that each run's peak is its own, and its limit too."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.accelerator.is_available():
        gc.collect()  # a network may be in a circle of references
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
