"""The options of a session, and what is wrong with them by themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cvhw4.errors import InputError
from cvhw4.trackers import TRACKERS, check_trackers


def add_options(parser: pytest.Parser) -> None:
    """Adds the options of every study."""
    group = parser.getgroup("cvhw4", "ablation studies")
    group.addoption("--seeds", type=int, default=3, metavar="N", help="runs of each row, seeds 0 to N-1 (default: 3)")
    group.addoption("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to train (default: auto)")
    group.addoption(
        "--precision",
        choices=["auto", "float32", "bf16"],
        help="what networks compute in (default: float32 on a CPU, bf16 on CUDA where it helps); auto: on a CPU what "
        "timed steps of the row say is faster",
    )
    group.addoption("--cuda-graphs", action="store_true", help="on CUDA, replay optimizer steps as CUDA graphs")
    group.addoption("--weights", type=folder, metavar="DIR", help="look here first for pretrained weights")
    group.addoption(
        "--results", type=folder, metavar="DIR", help="records and tables go to DIR/<study> (default: results)"
    )
    group.addoption(
        "--reuse", action="store_true", help="take finished runs from --results, and resume unfinished ones"
    )
    group.addoption("--deterministic", action="store_true", help="on CUDA, the same bits each time")
    group.addoption(
        "--checkpoint-seconds",
        type=float,
        metavar="S",
        help="keep unfinished runs after every epoch and every S seconds; 0: never (default: 60, and so seldom that it "
        "takes at most 1%% of the time)",
    )
    group.addoption(
        "--threads", type=int, metavar="N", help="threads of each run on a CPU (default: all, shared among -n)"
    )
    group.addoption(
        "--executor", choices=["local", "ray"], default="local", help="where runs are trained (default: local)"
    )
    group.addoption(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="train every Nth run alone, from the Ith on, and judge no claim: N sessions at once share a GPU, and one "
        "with --reuse after them judges",
    )
    group.addoption("--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: one of this machine alone)")
    group.addoption("--tensorboard", metavar="DIR", help="log runs there, for tensorboard --logdir DIR")
    group.addoption("--mlflow", metavar="URI", help="log runs to an MLflow server, or a folder (file:DIR)")
    group.addoption("--wandb", metavar="PROJECT", help="log runs to Weights & Biases (WANDB_MODE=offline: to ./wandb)")
    group.addoption("--bounds", type=folder, metavar="FILE", help="calibrated bounds (default: those of the study)")


def folder(text: str) -> Path:
    """A path given to an option; `~` is the home folder, as a shell does not know it in `--results=~/x`."""
    return Path(text).expanduser()


def check_options(config: pytest.Config) -> None:
    """Finds what is wrong with the options by themselves.

    Raises:
        InputError: a value that makes no sense, or two options that exclude each other.
    """
    seeds, workers = config.getoption("seeds"), config.getoption("numprocesses", None)
    if seeds < 1:
        raise InputError(f"--seeds {seeds}", "leaves no run of a row", "give --seeds 1 or more")
    part, parts = config.getoption("part")
    if not 1 <= part <= parts:
        raise InputError(f"--part {part}/{parts}", "is not a part", "give --part 1/N to N/N")
    if parts > 1 and (workers or config.getoption("executor") == "ray"):
        raise InputError(f"--part {part}/{parts}", "cannot go with -n or --executor ray", "leave one of them out")
    if config.getoption("executor") == "ray" and workers:
        raise InputError("--executor ray", f"cannot go with -n {workers}", "leave -n out: Ray starts its own processes")
    if config.getoption("ray_address") and config.getoption("executor") != "ray":
        raise InputError("--ray-address", "is given without --executor ray", "add --executor ray")
    if config.getoption("dist", "no") == "worksteal":
        # A worker that waits with a claim could be handed a run behind it that the claim waits for.
        raise InputError("--dist worksteal", "breaks the order of runs and claims", "use --dist load")
    check_trackers({name: config.getoption(name) for name in TRACKERS})


def runner_options(config: pytest.Config) -> dict[str, Any]:
    """What `cvhw4.runner.Runner` takes beside the study."""
    number, workers = _place_among_workers(config)
    names = ("device", "precision", "cuda_graphs", "weights", "reuse", "deterministic", "checkpoint_seconds")
    return {name: config.getoption(name) for name in names} | {
        "results": config.getoption("results") or config.rootpath / "results",
        "threads": divided_threads(workers) if config.getoption("threads") is None else config.getoption("threads"),
        "worker": number,
    }


def divided_threads(workers: int) -> int | None:
    """How many of the cores that this process may use each of so many workers gets; None where torch may decide."""
    if not workers or "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def _place_among_workers(config: pytest.Config) -> tuple[int, int]:
    """Which of pytest-xdist's workers, or of the sessions of `--part`, this process is, from 0, and how many there are;
    0 and 0 where it is alone."""
    worker, (part, parts) = getattr(config, "workerinput", None), config.getoption("part")
    if worker is not None:
        return int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    return (part - 1, parts) if parts > 1 else (0, 0)


def _part(text: str) -> tuple[int, int]:
    """Reads "2/5"; raises ValueError for what is not like that."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)
