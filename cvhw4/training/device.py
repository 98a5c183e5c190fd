"""Where a run is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvhw4.errors import InputError
from cvhw4.records.environment import OTHERS

if TYPE_CHECKING:
    import torch


def pick_device(wanted: str, worker: int = 0) -> torch.device:
    """The device to train on: of several GPUs (of those that CUDA_VISIBLE_DEVICES leaves) each worker takes the next,
    and CUDA's becomes the current one. "auto" is CUDA or the CPU: other accelerators have to be asked for.

    Raises:
        InputError: an accelerator was asked for and there is none.
    """
    import torch

    if wanted in OTHERS:
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None or found.type != wanted:
            hint = f"use --device cpu, or a torch that is built for {wanted}"
            raise InputError(f"--device {wanted}", f"finds no {wanted} device", hint)
        return torch.device(wanted, worker % torch.accelerator.device_count())
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("--device cuda", "finds no CUDA device", "use --device cpu, or check the driver")
    if not available or wanted == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", worker % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
