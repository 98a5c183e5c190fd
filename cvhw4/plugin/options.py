"""The options of a session, and what is wrong with them by themselves."""

from __future__ import annotations

import argparse
import math
import os
import sys
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from cvhw4.errors import InputError
from cvhw4.plugin.smoke import check_smoke
from cvhw4.records.environment import OTHERS
from cvhw4.trackers import TRACKERS, check_trackers
from cvhw4.training.process import cores, threads_of_environment


class Names:
    """Which of our options another plugin, or the user's own conftest.py, had the name of before us."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def pytest_report_header(self) -> list[str]:
        """A line for each."""
        return [
            f"cvhw4: {name} is another plugin's here, cvhw4's own is --cvhw4-{name.removeprefix('--')}"
            for name in self.taken
        ]


def add_options(parser: pytest.Parser) -> Names:
    """Adds the options of every study, each as `--name` and as `--cvhw4-name`; where somebody else has the short name
    already, the long one is left. Their values are `config.getoption("cvhw4_name")`."""
    group, names = parser.getgroup("cvhw4", "ablation studies"), Names()

    def add(name: str, **attributes: Any) -> None:
        long = name.replace("--", "--cvhw4-")
        attributes["dest"] = long[2:].replace("-", "_")
        if _is_taken(name, parser):
            names.taken.append(name)
        else:
            group.addoption(name, **attributes)
            attributes["help"] = argparse.SUPPRESS  # one of the two is enough
        group.addoption(long, **attributes)

    add("--seeds", type=int, metavar="N", help="runs of each row, seeds 0 to N-1 (default: 3; with --smoke: 1)")
    add(
        "--smoke",
        action="store_true",
        help="train the first epoch of each run alone, in place of its test, and hold its loss against the calibrated "
        "run of the same seed; store nothing, judge no claim; with -m control: whether the corruption is noticed",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda", *OTHERS],
        default="auto",
        help="where to train (default: auto, CUDA where there is a GPU; mps and xpu are untested)",
    )
    add(
        "--precision",
        choices=["auto", "float32", "bf16"],
        help="what networks compute in (default: float32 on a CPU, bf16 on CUDA where it helps); auto: on a CPU what "
        "timed steps of the row say is faster",
    )
    add("--cuda-graphs", action="store_true", help="on CUDA, replay optimizer steps as CUDA graphs")
    add("--weights", type=folder, metavar="DIR", help="look here first for pretrained weights")
    add("--results", type=folder, metavar="DIR", help="records and tables go to DIR/<study> (default: results)")
    add("--reuse", action="store_true", help="take finished runs from --results, and resume unfinished ones")
    add("--deterministic", action="store_true", help="on CUDA, the same bits each time")
    add(
        "--checkpoint-seconds",
        type=float,
        metavar="S",
        help="keep unfinished runs after every epoch and every S seconds; 0: never (default: 60, and so seldom that it "
        "takes at most 1%% of the time)",
    )
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="train N runs at once, each in a process of its own (default: on a CPU one for each core, else 1); 1: in "
        "pytest's process",
    )
    add("--threads", type=int, metavar="N", help="threads of each run on a CPU (default: all, shared among runs)")
    add("--executor", choices=["local", "ray"], default="local", help="where runs are trained (default: local)")
    add(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="train every Nth run alone, from the Ith on, and judge no claim: N sessions at once share a GPU, and one "
        "with --reuse after them judges",
    )
    add("--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: one of this machine alone)")
    add("--tensorboard", type=_absolute, metavar="DIR", help="log runs there, for tensorboard --logdir DIR")
    add("--mlflow", metavar="URI", help="log runs to an MLflow server, or a folder (file:DIR)")
    add("--wandb", metavar="PROJECT", help="log runs to Weights & Biases (WANDB_MODE=offline: to ./wandb)")
    add("--bounds", type=folder, metavar="FILE", help="calibrated bounds (default: those of the study)")
    add(
        "--table",
        type=folder,
        metavar="FILE",
        help="table of this session's runs for a paper: .tex, .typ, .md, .csv or .html; as FILE's name with .toml "
        "says, if there is one (see cvhw4 table)",
    )
    return names


def _is_taken(name: str, parser: pytest.Parser) -> bool:
    """Whether somebody has added an option of that name."""
    try:
        return name not in parser.parse_known_and_unknown_args([name])[1]
    except (pytest.UsageError, SystemExit):  # one that needs a value
        return True


def folder(text: str) -> Path:
    """A path given to an option; `~` is the home folder, as a shell does not know it in `--results=~/x`."""
    return Path(text).expanduser()


def _absolute(text: str) -> str:
    """A path given to an option, for what opens it in the course of a test, which may be in another folder."""
    return str(folder(text).absolute())


def is_ci() -> bool:
    """Whether a service for continuous integration runs this, as it says itself (`CI=true`)."""
    return os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off")


def check_options(config: pytest.Config) -> None:
    """Finds what is wrong with the options by themselves.

    Raises:
        InputError: a value that makes no sense, or two options that exclude each other.
    """
    seeds, workers = seeds_of(config), config.getoption("numprocesses", None)
    if seeds < 1:
        raise InputError(f"--seeds {seeds}", "leaves no run of a row", "give --seeds 1 or more")
    part, parts = config.getoption("cvhw4_part")
    if not 1 <= part <= parts:
        raise InputError(f"--part {part}/{parts}", "is not a part", "give --part 1/N to N/N")
    if config.getoption("cvhw4_smoke"):
        check_smoke(config, ("reuse", "table", *TRACKERS))
    jobs, ray = config.getoption("cvhw4_jobs"), config.getoption("cvhw4_executor") == "ray"
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}", "leaves nobody to train", "give --jobs 1 or more")
    if jobs is not None and jobs > 1 and (workers or ray):
        problem = f"cannot go with {'--executor ray' if ray else f'-n {workers}'}, which trains several at once itself"
        raise InputError(f"--jobs {jobs}", problem, "leave one of them out")
    if parts > 1 and (workers or ray):
        raise InputError(f"--part {part}/{parts}", "cannot go with -n or --executor ray", "leave one of them out")
    if ray and workers:
        raise InputError("--executor ray", f"cannot go with -n {workers}", "leave -n out: Ray starts its own processes")
    if ray and config.getoption("cvhw4_device") in OTHERS:
        problem = "cannot go with --executor ray"
        raise InputError(f"--device {config.getoption('cvhw4_device')}", problem, "use --device cpu or cuda")
    if config.getoption("cvhw4_ray_address") and not ray:
        raise InputError("--ray-address", "is given without --executor ray", "add --executor ray")
    # With worksteal a worker that waits with a claim could be handed a run behind it that the claim waits for.
    refused = {"worksteal": "breaks the order of runs and claims", "each": "trains every run on every worker"}
    if (dist := config.getoption("dist", "no")) in refused:
        raise InputError(f"--dist {dist}", refused[dist], "use --dist load")
    check_trackers(trackers(config))
    if (table := config.getoption("cvhw4_table")) is not None:
        from cvhw4.report.papers import check_table

        check_table(table)


def seeds_of(config: pytest.Config) -> int:
    """How many seeds every row has."""
    given: int | None = config.getoption("cvhw4_seeds")
    return (1 if config.getoption("cvhw4_smoke") else 3) if given is None else given


def trackers(config: pytest.Config) -> dict[str, str | None]:
    """What the option of each tracker says."""
    return {name: config.getoption(f"cvhw4_{name}") for name in TRACKERS}


def runner_options(config: pytest.Config) -> dict[str, Any]:
    """What `cvhw4.runner.Runner` takes beside the study."""
    number, sessions = _place_among_sessions(config)
    names = ("device", "precision", "cuda_graphs", "weights", "reuse", "deterministic", "checkpoint_seconds")
    options = {name: config.getoption(f"cvhw4_{name}") for name in (*names, "threads", "smoke")}
    if options["threads"] is None:
        options["threads"] = divided_threads(sessions)
    results, weights = config.getoption("cvhw4_results") or config.rootpath / "results", options["weights"]
    paths = {"results": results.absolute(), "weights": weights and weights.absolute()}  # tests may change the folder
    return options | paths | {"worker": number}


def jobs_at_once(config: pytest.Config) -> int:
    """How many runs this session trains at once, where it has so many."""
    given: int | None = config.getoption("cvhw4_jobs")
    device, threads = config.getoption("cvhw4_device"), config.getoption("cvhw4_threads")
    if given is not None or config.getoption("cvhw4_executor") == "ray" or _place_among_sessions(config)[1]:
        return given or 1
    if device != "cpu" and (device != "auto" or _has_gpu()):
        return 1
    return max(1, (_share() or cores()) // max(1, threads or threads_of_environment() or 1))


def _has_gpu() -> bool:
    """Whether "auto" is a GPU; torch is asked only where it is loaded."""
    from cvhw4.training.custom import gpus

    torch = sys.modules.get("torch")
    return bool(gpus()) if torch is None else torch.cuda.is_available()


def threads_per_run(config: pytest.Config, jobs: int) -> int | None:
    """How many threads each of so many runs at once gets; None where `OMP_NUM_THREADS` says it."""
    given: int | None = config.getoption("cvhw4_threads")
    return divided_threads(jobs * max(1, _place_among_sessions(config)[1])) if given is None else given


def divided_threads(processes: int) -> int | None:
    """How many of the cores that this process may use each of so many processes gets; None where torch may decide,
    which sees the cores, but no container's share of their time."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    share = _share()
    return max(1, (share or cores()) // processes) if processes else share


def _share() -> int | None:
    """How many cores' worth of time a container gives, where that is less than its cores."""
    share = cpu_quota()
    return None if share is None or share >= cores() else share


def cpu_quota(root: Path = Path("/")) -> int | None:
    """To how many cores' worth of time, rounded up, control groups of Linux (a container's limit) hold this process;
    None where they set no limit.

    Args:
        root: below which `proc` and `sys` lie.
    """
    found: list[float] = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit = root / "sys/fs/cgroup", _quota_of_v2
        elif "cpu" in controllers.split(","):
            top, limit = root / "sys/fs/cgroup/cpu", _quota_of_v1
        else:
            continue
        below = PurePosixPath(path.strip("/"))  # in a container it may be the host's path, which is not there
        for group in (below, *below.parents):
            with suppress(OSError, ValueError, IndexError, ZeroDivisionError):
                if (cores := limit(top / group)) > 0:
                    found.append(cores)
    return max(1, math.ceil(min(found))) if found else None


def _quota_of_v2(group: Path) -> float:
    quota, period = (group / "cpu.max").read_text().split()[:2]
    return int(quota) / int(period)  # "max" is a ValueError


def _quota_of_v1(group: Path) -> float:
    return int((group / "cpu.cfs_quota_us").read_text()) / int((group / "cpu.cfs_period_us").read_text())


def _place_among_sessions(config: pytest.Config) -> tuple[int, int]:
    """Which of pytest-xdist's workers, or of the sessions of `--part`, this process is, from 0, and how many there are;
    0 and 0 where it is alone."""
    worker, (part, parts) = getattr(config, "workerinput", None), config.getoption("cvhw4_part")
    if worker is not None:
        return int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    return (part - 1, parts) if parts > 1 else (0, 0)


def _part(text: str) -> tuple[int, int]:
    """Reads "2/5"; raises ArgumentTypeError for what is not like that."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, as 1/4")
    return int(part), int(parts)
