"""Where a run took place: versions, device, threads, commit, and the code it ran."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import resource
import subprocess
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parent.parent
# The rooms that decide what a run computes; records, statistics and report only tell of it.
DECISIVE = ("data", "models", "training")


def environment(device: torch.device) -> dict[str, Any]:
    """What a record says of the machine: plain JSON values."""
    versions = {name: _version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow")}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **versions,
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def device_name(device: torch.device) -> str:
    """The accelerator's or processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


@lru_cache
def commit() -> str | None:
    """The checkout's commit, "-dirty" behind it where files have changed; None outside a checkout."""
    try:
        command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


@lru_cache
def code_digest() -> str:
    """sha256 of the sources that decide what a run computes: `--reuse` never takes the result of other code."""
    digest = hashlib.sha256()
    for room in DECISIVE:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's so far
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark of the resident set


def peak_memory(device: torch.device) -> int | None:
    """Peak memory since `reset_peak_memory`, in bytes: the device's for CUDA, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
