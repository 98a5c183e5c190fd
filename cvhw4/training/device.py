"""Where a run is computed, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvhw4.errors import InputError
from cvhw4.study import Precision, Row

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


def pick_precision(wanted: str, device: torch.device, row: Row | None = None) -> Precision:
    """The precision that a row is computed in.

    "auto" is bf16 on CUDA, where it is native, but for AlexNet with all its layers: at batches of 4 its limit is the
    traffic of its 57 M parameters, and autocast's bf16 copies add to that (by count: 38 bytes a step for each number of
    its linear layers against 32; not measured). On a CPU it is float32: bf16 evaluates faster there and trains slower,
    Lite0 with 0.6 of float32's speed on a Xeon with AMX.

    Args:
        row: None where only the wish is to be checked.

    Raises:
        InputError: bf16 was asked for and the device has to emulate it, which is slower than float32.
    """
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if wanted == "bf16" and not native:
        raise InputError("--precision bf16", "is not native on this device", "use --precision float32")
    traffic = row is not None and row.network == "alexnet" and row.trained == "all layers"
    helps = native and device.type == "cuda" and not traffic
    return "bf16" if wanted == "bf16" or (wanted == "auto" and helps) else "float32"
