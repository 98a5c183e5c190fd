"""Where a run took place: versions, device, threads, commit, and the code it ran."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NVIDIA = Path("/proc/driver/nvidia/version")
OTHERS = ("mps", "xpu")  # accelerators that only an emulated device has tried this on: by their name alone, no graphs
_PACKAGE = Path(__file__).resolve().parent.parent
# What decides what a run computes; studies do so by a row's settings, and all else only reports it.
_DECISIVE = ("data/**/*.py", "labels.py", "metrics.py", "models/**/*.py", "runner.py", "tasks.py", "training/**/*.py")


def environment(device: torch.device | str) -> dict[str, Any]:
    """What a record says of the machine and of the code: plain JSON values."""
    import torch

    return place(device, torch.get_num_threads()) | versions() | {"commit": commit(), "code": code_digest()}


def place(device: torch.device | str, threads: int) -> dict[str, Any]:
    """Where something is computed."""
    system = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    named = {"device": str(device).partition(":")[0], "device_name": device_name(device)}
    return {**system, **named, **accelerator(device), "threads": threads}


def versions(packages: Iterable[str] = ("torch", "torchvision", "timm", "numpy", "pillow")) -> dict[str, str | None]:
    """The versions of libraries, by default of those that decide what a run computes; None for one without metadata."""
    found: dict[str, str | None] = dict.fromkeys(packages)
    for name in found:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def accelerator(device: torch.device | str) -> dict[str, str | None]:
    """What a GPU computes with beside torch: versions of CUDA, cuDNN and the driver, None where unknown; empty for a
    CPU."""
    if not str(device).startswith("cuda"):
        return {}
    import torch

    cudnn = torch.backends.cudnn.version()
    return {"cuda": torch.version.cuda, "cudnn": None if cudnn is None else str(cudnn), "driver": _driver()}


@lru_cache
def _driver() -> str | None:
    """The version of NVIDIA's driver, by what its kernel module says."""
    with suppress(OSError):
        found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", _NVIDIA.read_text())
        return found[1] if found else None
    return None


def device_name(device: torch.device | str) -> str:
    """The accelerator's or processor's name."""
    if str(device).partition(":")[0] in ("cuda", *OTHERS):
        import torch

        if hasattr(named := torch.get_device_module(device), "get_device_name"):
            return str(named.get_device_name(device))
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache
def commit(file: Path = _PACKAGE / "__init__.py") -> str | None:
    """The commit of the checkout that a file is in, by default the package's, "-dirty" behind it where the file's
    folder has changed (outside of the package: what is tracked there); None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # an installed package lies in somebody else's checkout
        new = "normal" if file.parent == _PACKAGE else "no"  # results lie in a user's folder
        changed = git("status", "--porcelain", f"--untracked-files={new}", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


@lru_cache
def code_digest() -> str:
    """sha256 of the sources that decide what a run computes: `--reuse` never takes the result of other code."""
    digest = hashlib.sha256()
    for path in (path for pattern in _DECISIVE for path in sorted(_PACKAGE.glob(pattern))):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reset_peak_memory(device: torch.device | str) -> None:
    """Starts a new measurement of peak memory."""
    if (kind := str(device).partition(":")[0]) in ("cuda", *OTHERS):
        import torch

        if kind == "cuda":
            return torch.cuda.reset_peak_memory_stats(device)
        with suppress(RuntimeError):  # not every accelerator counts
            torch.accelerator.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's so far
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark of the resident set


def peak_memory(device: torch.device | str) -> int | None:
    """Peak memory since `reset_peak_memory`, in bytes: the device's, or the process's resident set on a CPU; None
    for an accelerator that does not count it."""
    if (kind := str(device).partition(":")[0]) in ("cuda", *OTHERS):
        import torch

        if kind == "cuda":
            return torch.cuda.max_memory_allocated(device)
        with suppress(RuntimeError):
            return torch.accelerator.max_memory_allocated(device)
        return None
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
