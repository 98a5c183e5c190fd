"""Which precision a row is computed in: by rule, or, on a CPU, by timing steps of both."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cvhw4.errors import InputError
from cvhw4.files import locked, read_or_warn, write_atomically
from cvhw4.study import Precision, Row

if TYPE_CHECKING:
    import torch

    from cvhw4.data.dataset import Dataset, Split

GAIN = 0.9  # of float32's time, at most, that a step takes where bf16 is chosen: less is within the noise of timing
_ROUNDS, _SECONDS = 3, 20.0  # timed steps of each precision, and after how many seconds in all no more are begun
_STEP = 5  # raise it when a step is computed in another way: what was timed before is timed anew
_timed: dict[str, Mapping[str, float]] = {}  # in this process, for where the cache folder cannot be used


@dataclass(frozen=True)
class Choice:
    """A precision, and how it was chosen.

    Attributes:
        precision: what the network computes in.
        step_seconds: CPU seconds of an optimizer step by precision, where timing decided; a precision that cannot
            compute the network is not in it.
    """

    precision: Precision
    step_seconds: Mapping[str, float] = field(default_factory=dict)


def pick_precision(wanted: str | None, device: torch.device, row: Row | None = None) -> Precision:
    """The precision that a row is computed in, by rule.

    Without a wish ("auto" on CUDA likewise) it is bf16 on CUDA, where it is native, but for AlexNet with all its
    layers: at batches of 4 its limit is the traffic of its 57 M parameters, and autocast's bf16 copies add to that (by
    count: 38 bytes a step for each number of its linear layers against 32; not measured). On a CPU it is float32:
    figures that nobody chose a precision for must not depend on what was the faster one where they were made.

    Args:
        row: None where only the wish is to be checked.

    Raises:
        InputError: bf16 was asked for and the device has to emulate it, which is slower than float32, or is neither a
            CPU nor CUDA.
    """
    import torch

    if device.type == "cuda":
        native, problem = torch.cuda.is_bf16_supported(including_emulation=False), "is not native on this device"
    elif device.type != "cpu":
        native, problem = False, f"is not supported on {device.type}"
    else:
        native = _has_bf16()
        problem = (
            "finds no bf16 instructions in this processor (avx512_bf16, amx_bf16 or the like), and emulated ones take "
            "several times as long as float32"
        )
    if wanted == "bf16" and not native:
        raise InputError("--precision bf16", problem, "use --precision float32")
    traffic = row is not None and row.network == "alexnet" and row.trained == "all layers"
    helps = native and device.type == "cuda" and not traffic
    return "bf16" if wanted == "bf16" or (wanted != "float32" and helps) else "float32"


def choose_precision(wanted: str | None, device: torch.device, row: Row, dataset: Dataset) -> Choice:
    """The precision that a row is computed in; "auto" on a CPU is the faster one, as `GAIN` says, of a few timed steps.

    What was timed is kept in the cache folder for each processor, torch version, number of threads, network, size and
    augmentation (a frozen network computes each picture once where they are shown whole), and timed anew where one of
    them is another.

    Args:
        dataset: gives the pictures of the steps.

    Raises:
        InputError: as `pick_precision`.
    """
    if wanted != "auto" or device.type != "cpu":
        return Choice(pick_precision(wanted, device, row))
    seconds = _cached(_key(row), lambda: time_steps(row, dataset, device))
    faster = seconds.get("bf16", float("inf")) < GAIN * seconds["float32"]
    return Choice("bf16" if faster else "float32", seconds)


def time_steps(row: Row, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """CPU seconds that one optimizer step of a row takes in each precision: the least of up to three, after one that is
    not counted; both precisions in turn, so that a change of the processor's speed meets both. Weights are random: no
    step takes longer for what they are.

    Args:
        dataset: its first batch is trained on.

    Returns:
        By precision; without bf16 where the network cannot be computed in it.
    """
    import torch

    row = replace(row, start="random", corruption=None)
    few = replace(dataset, train=_first(dataset.train, row.recipe.batch), val=_first(dataset.val, 1))
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        steps = {precision: _step(row, few, device, precision) for precision in get_args(Precision)}
        for number in range(1 + _ROUNDS):
            if number > 1 and time.perf_counter() - began > _SECONDS:
                break
            for precision, step in steps.items():
                if number and precision not in seconds:
                    continue
                started = time.process_time()
                try:
                    step()
                except RuntimeError:
                    if precision == "float32":
                        raise
                    continue
                took = time.process_time() - started
                seconds[precision] = took if number < 2 else min(took, seconds[precision])
    return seconds


def _step(row: Row, dataset: Dataset, device: torch.device, precision: Precision) -> Callable[[], None]:
    """An epoch of one batch, as `fit` trains it."""
    from cvhw4.models.build import build_network, channels_last, set_training_mode
    from cvhw4.models.convolutions import fast_convolutions
    from cvhw4.training.fit import caller, make_learner, make_step, train_epoch
    from cvhw4.training.objectives import make_objective
    from cvhw4.training.recipe import make_clipping, make_optimizer

    network = build_network(row, seed=0)
    module = channels_last(network.module.to(device))
    call = caller(device, precision)
    learner, learnt = make_learner(row, module, make_objective(row, dataset, network, device, 0), call)
    recipe = row.recipe
    step = make_step(learnt, learner, make_optimizer(recipe, module), call, make_clipping(recipe, module))
    set_training_mode(module, row)

    def epoch() -> None:
        with fast_convolutions(module):
            train_epoch(learnt, step, 1)

    return epoch


def _first(split: Split, count: int) -> Split:
    return type(split)(split.images[:count], split.sizes[:count], split.targets[:count], split.names[:count])


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    return found


def _has_bf16() -> bool:
    """Whether the CPU has instructions for bf16. oneDNN, which torch asks, takes the type wherever there is AVX-512,
    and emulates it where that came without bf16 instructions."""
    import torch

    flags = {*_cpuinfo().get("flags", "").split()}
    emulated = "avx512f" in flags and not flags & {"avx512_bf16", "amx_bf16"}
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and not emulated


def processor() -> str:
    """The processor's name, with what tells two of one name apart: "AMD EPYC 25 1 1, AVX2, without bf16"."""
    import torch

    from cvhw4.records.environment import device_name

    found = _cpuinfo()
    numbers = " ".join(found[name] for name in ("cpu family", "model", "stepping") if name in found)
    native = "with" if _has_bf16() else "without"
    name = f"{device_name(torch.device('cpu'))} {numbers}".strip()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {native} bf16"


def _key(row: Row) -> dict[str, Any]:
    """What the time of a step depends on: plain JSON values."""
    import torch

    settings = row.settings()
    of_row = {name: settings[name] for name in ("network", "trained", "classes", "skips", "batch_norm", "augmentation")}
    of_row["network_source"] = settings.get("network_source")  # of a callable
    recipe = settings["recipe"]  # what was added later stands there where it is in use
    of_recipe = {n: recipe[n] for n in ("size", "batch", "optimizer", "loss", "clip_grad", "clip_mode") if n in recipe}
    where = {"processor": processor(), "torch": torch.__version__, "threads": torch.get_num_threads(), "step": _STEP}
    key: dict[str, Any] = json.loads(json.dumps(where | of_row | of_recipe))
    return key


def _cached(key: Mapping[str, Any], measure: Callable[[], dict[str, float]]) -> Mapping[str, float]:
    """What was timed under a key, in this process or any before; timed by one process while others wait for it."""
    from cvhw4.data.cache import cache_root

    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    if digest in _timed:
        return _timed[digest]
    path = cache_root() / "precision" / f"{digest[:16]}.json"

    def parse(content: bytes, where: Path) -> dict[str, float]:
        problem = InputError(where, "is not the timing of this processor, torch and network", "it is timed anew")
        try:
            stored = json.loads(content)
            seconds = {name: float(stored["seconds"][name]) for name in stored["seconds"]}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise problem from error
        known = seconds.keys() <= {*get_args(Precision)} and "float32" in seconds
        if stored.get("key") != key or not known or not all(0 < s < float("inf") for s in seconds.values()):
            raise problem
        return seconds

    with ExitStack() as stack:
        with suppress(InputError):  # where nothing can be written, each process times for itself
            stack.enter_context(locked(path.with_suffix(".lock")))
        found = read_or_warn(path, parse)
        if found is None:
            found = measure()
            try:
                write_atomically(path, json.dumps({"key": key, "seconds": found}, indent=1) + "\n")
            except InputError as error:
                warnings.warn(f"what --precision auto timed is not kept: {error}", stacklevel=2)
    return _timed.setdefault(digest, found)
