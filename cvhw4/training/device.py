"""Where a run is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvhw4.errors import InputError

if TYPE_CHECKING:
    import torch


def pick_device(wanted: str, worker: int = 0) -> torch.device:
    """The device to train on, which becomes the current one: of several GPUs (of those that CUDA_VISIBLE_DEVICES
    leaves) each worker takes the next.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("--device cuda", "finds no CUDA device", "use --device cpu, or check the driver")
    if not available or wanted == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", worker % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
