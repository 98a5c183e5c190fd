"""What people would use instead, timed as whole processes beside a `pytest` of ours: measures and their page.

Called by `test_peers.py`. Lightning's side is `lightning_script.py`; timm's and torchvision's own training scripts are
in no package, so they are taken from clones of their repositories below the folder that CVHW4_PEERS names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.performance.cost import Positive
from benchmarks.performance.families import Setting
from benchmarks.performance.measured import read_measures, run_python, write_measures
from cvhw4.files import write_atomically
from cvhw4.records.environment import environment, versions
from cvhw4.records.store import Store
from cvhw4.report.tables import Table
from cvhw4.report.text import code, escape

ROOT = Path(__file__).resolve().parents[2]
RUNS = 6  # of a study of 2 rows with 3 seeds


# What is compared


@dataclass(frozen=True)
class Work:
    """What every side of a contest trains.

    Attributes:
        network: as a row of ours names it; "smp/" begins those that label pixels.
        folder: of pictures, {train,val}/<class>/, or of scenes as CamVid's.
        start: file with the network's first weights; None for random ones.
        device: "cpu" or "cuda".
    """

    network: str
    folder: Path
    start: Path | None = None
    device: str = "cpu"
    size: int = 96
    batch: int = 16
    epochs: int = 5


@dataclass(frozen=True)
class Trial:
    """Seconds of a whole process, and images per second of its training and of its validation loop; None: unknown."""

    seconds: Positive
    train: Positive | None = None
    val: Positive | None = None


class Peer(NamedTuple):
    """Who trains instead: the package or the script that it needs, its arguments, with the names of `Work`'s fields and
    of `workers` in braces, and the numbers of loading processes that it is tried with."""

    needs: str
    arguments: str
    workers: Sequence[str] = ("0", "2")

    @property
    def script(self) -> Path:
        """The file that is run: Lightning's is in this folder, others are below the folder of clones."""
        if not self.needs.endswith(".py"):
            return Path(__file__).with_name("lightning_script.py")
        return Path(os.environ.get("CVHW4_PEERS", ROOT / "local" / "peers")) / self.needs

    def missing(self) -> str:
        """Why it cannot be measured here, and what to do about it; "" where it can."""
        if not self.script.is_file():
            return f"no file {self.script}: docs/performance.md says how to get it (CVHW4_PEERS=DIR)"
        installed = self.needs.endswith(".py") or importlib.util.find_spec(self.needs)
        return "" if installed else f"{self.needs} is not installed: pip install cvhw4[peers]"

    def command(self, work: Work, workers: str) -> list[str]:
        """What Python is called with."""
        network = re.sub("^(smp|torchvision)/", "", work.network)
        fields = asdict(work) | {"network": network, "workers": workers, "resize": round(work.size * 256 / 224)}
        return [str(self.script), *(argument.format(**fields) for argument in self.arguments.split())]


_LIGHTNING = (
    "--data {folder} --network {network} --size {size} --batch {batch} --epochs {epochs} --workers {workers} "
    "--device {device}"
)
PEERS = {
    "Lightning": Peer("lightning", "classify --start {start} " + _LIGHTNING),
    "timm's train.py": Peer(
        "pytorch-image-models/train.py",
        "{folder} --val-split val --model {network} --num-classes 2 --initial-checkpoint {start} --img-size {size} "
        "-b {batch} --epochs {epochs} -j {workers} --device {device} --opt momentum --lr 0.01 --weight-decay 0 "
        "--sched step --decay-epochs 4 --decay-rate 0.1 --warmup-epochs 0 --smoothing 0 --color-jitter 0",
        workers=("1", "2"),  # its loader cannot do without
    ),
    "torchvision's train.py": Peer(
        "vision/references/classification/train.py",
        "--data-path {folder} --model {network} --train-crop-size {size} --val-crop-size {size} "
        "--val-resize-size {resize} -b {batch} --epochs {epochs} -j {workers} --device {device} --lr 0.01 --wd 0 "
        "--lr-step-size 4",
    ),
    "Lightning with smp": Peer("segmentation_models_pytorch", "segment " + _LIGHTNING),
}
WHOLE, STUDY, TRAIN, VAL = "whole process, s", "2 rows x 3 seeds, s", "training, images/s", "validation, images/s"


class Contest(NamedTuple):
    """A network, against whom, how many generated pictures there are, and what is aimed at on a CPU: ratios by peer."""

    network: str
    targets: Mapping[str, Mapping[str, float]]
    setting: Setting
    study: bool = False


_LITE0 = {"Lightning": {WHOLE: 1.8, STUDY: 2.5, TRAIN: 1.5}, "timm's train.py": {WHOLE: 1.9, STUDY: 2.5}}
CONTESTS = {
    "one run": Contest("tf_efficientnet_lite0", _LITE0, Setting(96, 48, 5), study=True),
    "one run, ResNet-18": Contest("torchvision/resnet18", {"torchvision's train.py": {}}, Setting(96, 48, 5)),
    "segmentation": Contest("smp/Unet/resnet18", {"Lightning with smp": {TRAIN: 2, VAL: 5}}, Setting(48, 32, 5)),
}


# Measuring

_STUDY = '''"""The study that is timed beside other tools."""

import pytest

from cvhw4 import CAMVID, Recipe, Row, Scenes, Study, Train

study = Study(
    "peers",
    data={data},
    recipe=Recipe(size={size}, batch={batch}, epochs={epochs}, lr_step=4, {optimizer}),
    rows={{{rows}}},
)
pytestmark = pytest.mark.study(study)


def test_row(train: Train, row: Row, seed: int) -> None:
    train(row, seed)
'''


def session(work: Work, *, whole: bool = False) -> Trial:
    """Times a `pytest` of ours in a new folder, with an empty cache: one row with one seed; `whole`: two with three.
    Raises RuntimeError: it failed; with what it printed."""
    scenes = work.network.startswith("smp/")
    first = f'"first": Row("{work.network}"' + (")" if work.start else ', start="random")')
    text = _STUDY.format(
        **asdict(work),
        data=f"Scenes({str(work.folder)!r}, **CAMVID)" if scenes else repr(str(work.folder)),
        optimizer="lr=1e-3" if scenes else 'optimizer="sgd", lr=1e-2, momentum=0.9',
        rows=f'{first}, "random": Row("{work.network}", start="random")' if whole else first,
    )
    options = ["--seeds", "3" if whole else "1", "--device", work.device, "--precision", "float32"]
    options += ["-p", "pytest_benchmark.plugin", "-p", "cvhw4.early"]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_study.py").write_text(text)
        (folder / "conftest.py").write_text('pytest_plugins = ["cvhw4.plugin"]\n')
        # As where cvhw4 alone is installed: hypothesis' plugin, a tool of its tests, takes a second to load.
        variables = {"CVHW4_CACHE": str(folder / "cache"), "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        seconds, _ = run_python(["-m", "pytest", *options], folder, **variables)
        runs = Store(folder / "results", "peers").load()
    train, val = (sum(len(r.epochs) * getattr(r.data, split) for r in runs) for split in ("train", "val"))
    spent = sum(r.times.train_seconds for r in runs), sum(r.times.evaluate_seconds for r in runs)
    return Trial(seconds, train / spent[0], val / spent[1])


def alone(work: Work) -> Trial:
    """Times a network by itself in a new process: optimizer steps, and answers, on one batch that is in memory. Raises
    RuntimeError: it failed; with what it printed."""
    call = f"{network_alone.__name__}({work.network!r}, {work.size}, {work.batch}, {work.device!r})"
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        made = ["-c", f"from benchmarks.performance.peers import *; {call}"]
        seconds, printed = run_python(made, Path(folder), PYTHONPATH=paths)
    return Trial(seconds, *loops(printed, work))


def network_alone(network: str, size: int, batch: int, device: str, seconds: float = 5) -> None:
    """Prints images per second as `lightning_script.py` does: batch over the median of the steps that so many seconds
    take, five or more, after two; memory, layout and convolutions are as in ours."""
    from cvhw4.homework import study
    from cvhw4.models.build import build_module, channels_last
    from cvhw4.models.convolutions import fast_convolutions
    from cvhw4.training.process import prepare_process

    prepare_process()

    import torch
    from torch import nn

    classes, places = (11, (size, size)) if network.startswith("smp/") else (2, ())
    row = replace(study("quick").row("q1_2"), network=network, start="random", classes=classes)
    module = channels_last(build_module(row).to(device))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(classes, (batch, *places), device=device)

    def step() -> None:
        nn.functional.cross_entropy(module(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    def rate(work: Callable[[], object]) -> float:
        took: list[float] = []
        while len(took) < 7 or sum(took) < seconds:
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
        return batch / median(took[2:])

    with fast_convolutions(module):
        train = rate(step)
        module.eval()
        with torch.inference_mode():
            print(json.dumps({"train": round(train, 1), "val": round(rate(lambda: module(images)), 1)}))


def script(peer: str, work: Work, workers: str) -> Trial:
    """Times a peer's script in a new folder. Raises RuntimeError: it failed; with what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, printed = run_python(PEERS[peer].command(work, workers), Path(folder))
    return Trial(seconds, *loops(printed, work))


def loops(printed: str, work: Work) -> tuple[float | None, float | None]:
    """Images per second of the two loops by what a peer printed: `lightning_script.py` in its last line, timm as the
    averages behind an epoch's last batches; None for torchvision's, which tells whole seconds."""
    if rates := re.search(r'^\{"train": ([\d.]+), "val": ([\d.]+)\}$', printed, re.MULTILINE):
        return float(rates[1]), float(rates[2])
    train = re.findall(r"Train: \d+ \[.*\(100%\)\].*?\(([\d.]+)s,", printed)
    val = re.findall(r"Test: \[ *(\d+)/\1\] +Time: [\d.]+ \(([\d.]+)\)", printed)
    if not train:
        return None, None
    images = sum(1 for path in (work.folder / "val").rglob("*.*") if path.is_file())
    seconds = sum((int(last) + 1) * float(average) for last, average in val)
    return work.batch * len(train) / sum(map(float, train)), images * len(val) / seconds


def compare(name: str, work: Work, *, peers: Sequence[str], trials: int, pictures: str, command: str) -> Comparison:
    """Times all sides of a contest in turn: ours, the first peer, the second, ours again.

    In the first round a peer is timed with each number of workers, from then on with the one that was faster.

    Args:
        peers: those that can be measured.
        trials: rounds.
        pictures: what `work.folder` holds, in words.
        command: what was run to measure.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    ours: list[Trial] = []
    study: list[float] = []
    by_itself: list[Trial] = []
    theirs: dict[str, dict[str, list[Trial]]] = {
        peer: {workers: [] for workers in PEERS[peer].workers} for peer in peers
    }
    for turn in range(trials):
        ours.append(session(work))
        if CONTESTS[name].study:
            study.append(session(work, whole=True).seconds)
        by_itself.append(alone(work))
        for peer, tried in theirs.items():
            for workers in [_best(tried)] if turn else tried:
                tried[workers].append(script(peer, work, workers))
    where = environment(work.device) | versions(("lightning", "segmentation-models-pytorch"))
    for path in (PEERS[peer].script for peer in peers):
        where[f"{path.parts[-2]}/{path.name}"] = "sha256 " + sha256(path.read_bytes()).hexdigest()[:12]
    what = f"{work.network}, {work.size} px, batch {work.batch}, {work.epochs} epochs, {pictures}"
    return Comparison(
        name=name,
        work=what,
        ours=ours,
        study=study,
        alone=by_itself,
        peers=theirs,
        environment=where,
        command=command,
        started=started,
    )


def _best(tried: Mapping[str, Sequence[Trial]]) -> str:
    """The number of workers that was faster in the first round."""
    return min(tried, key=lambda workers: tried[workers][0].seconds)


def in_six(folder: Path, target: Path) -> Path:
    """The pictures of two classes in six folders, since torchvision's script reckons a top-5 accuracy."""
    for label in folder.glob("*/*/"):
        for i, path in enumerate(sorted(label.iterdir())):
            place = target / f"{label.relative_to(folder)}-{i % 3}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return target


# Records and the page


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One contest on one machine, kept in `<results>/peers.json`.

    Attributes:
        name: which of `CONTESTS`.
        work: what every side trained, in words.
        ours: a trial in every round.
        study: seconds of the session of 2 rows with 3 seeds, in every round; empty where it was not timed.
        alone: of the network by itself, in every round; empty where it was not timed.
        peers: trials by peer and number of workers: one in every round for the number that was faster in the first.
        environment: as `cvhw4.records.environment.environment` gives it, with the peers' versions.
        command: what was run to measure.
        started: when, ISO 8601 in UTC.
    """

    name: str
    work: str
    ours: list[Trial]
    study: list[Positive] = field(default_factory=list)
    alone: list[Trial] = field(default_factory=list)
    peers: Mapping[str, Mapping[str, list[Trial]]]
    environment: Mapping[str, Any]
    command: str
    started: str

    def __post_init__(self) -> None:
        rounds = [len(tried[_best(tried)]) if tried and all(tried.values()) else 0 for tried in self.peers.values()]
        others = (len(side) or len(self.ours) for side in (self.study, self.alone))
        if not self.ours or {*rounds, *others} != {len(self.ours)}:
            raise ValueError("the trials are not in rounds")
        if not isinstance(self.environment.get("device"), str):
            raise ValueError("the environment has no device")

    def pairs(self, peer: str) -> Iterator[tuple[str, list[float], list[float]]]:
        """What can be held against a peer, with ours and theirs by round: seconds, then images per second."""
        theirs = self.peers[peer][_best(self.peers[peer])]
        yield WHOLE, [t.seconds for t in self.ours], [t.seconds for t in theirs]
        if self.study:
            yield STUDY, self.study, [RUNS * t.seconds for t in theirs]
        for what, loop in ((TRAIN, "train"), (VAL, "val")):
            ours, other = ([getattr(t, loop) for t in side] for side in (self.ours, theirs))
            if all([*ours, *other]):
                yield what, ours, other


def ratios(what: str, ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How many times faster ours is: median over median, and the lowest and highest of the rounds."""
    above, below = (ours, theirs) if what in (TRAIN, VAL) else (theirs, ours)
    single = [a / b for a, b in zip(above, below, strict=True)]
    return median(above) / median(below), min(single), max(single)


def save(folder: Path, comparison: Comparison) -> Path:
    """Keeps a comparison in place of an older one of its name and kind of device, and writes the page, `peers.md`.
    Raises InputError: the folder cannot be written to, or its `peers.json` is not of this form."""
    path = folder / "peers.json"
    kept = {(c.environment["device"], c.name): c for c in read_measures(path, Comparison)}
    kept[comparison.environment["device"], comparison.name] = comparison
    write_measures(path, (kept[key] for key in sorted(kept)))
    write_atomically(folder / "peers.md", peers_page(read_measures(path, Comparison)))
    return folder / "peers.md"


_ABOUT = (
    "Written by `make peers`. Whole processes, from start to exit, in turn (ours, the first peer, the second, ours "
    "...); medians, and of the ratios the lowest and the highest round. Ours is `pytest --seeds 1` on a study of one "
    "row, with an empty cache and results folder, records and pages included, and pytest-benchmark as the only other "
    "plugin. All sides have the same pictures, network and first weights (or random ones), optimizer, size, batch and "
    "epochs, validate after every epoch and compute in float32; a peer keeps its other defaults, loggers and "
    "checkpoints among them. *Workers*: loading processes, the number that was faster in the first round, and what "
    "the other took. *2 rows x 3 seeds*: one session of ours against six times the script's seconds in that round. "
    "Training and validation: the loops alone, by each side's own clock; a peer decodes pictures in them, ours "
    "before. *The network alone*: optimizer steps, and answers, on one batch in memory, laid out and computed as in "
    "ours, and the share of that which ours reaches with all that a loop does beside it; above 100 % where batch norm "
    "is folded for validation. timm leaves out an epoch's last, incomplete batch. torchvision's script needs five "
    "classes, so there both sides have the pictures in six folders."
)


def peers_page(comparisons: Sequence[Comparison]) -> str:
    """The whole `peers.md`: a table per kind of device; for the CPU with what is aimed at, measured or not."""
    parts = ["# Beside what people would use instead", _ABOUT]
    for kind, title in {"cpu": "CPU", "cuda": "CUDA"}.items():
        found = {c.name: c for c in comparisons if c.environment["device"] == kind}
        lines = [line for name in CONTESTS for line in _lines(name, found.get(name), kind)]
        origins = [f"- {escape(name)}: {_origin(found[name])}" for name in CONTESTS if name in found]
        if found or kind == "cpu":
            parts += [f"## {title}", Table.of(lines).markdown(), *(["\n".join(origins)] if origins else [])]
    return "\n\n".join(parts) + "\n"


def _lines(name: str, found: Comparison | None, kind: str) -> Iterator[dict[str, str]]:
    for peer, aims in CONTESTS[name].targets.items():
        targets = aims if kind == "cpu" else {}
        tried = found.peers.get(peer, {}) if found else {}
        best = _best(tried) if tried else ""
        others = "".join(f" ({n}: {trials[0].seconds:.1f} s)" for n, trials in tried.items() if n != best)
        measured = {what: sides for what, *sides in found.pairs(peer)} if found and tried else {}
        for what in measured or targets or [WHOLE]:
            target = f"{targets[what]:.2f}" if what in targets else "-"
            line = {"work": name, "against": peer, "workers": escape(best + others) or "-", "of": what}
            line |= {"ours": "-", "theirs": "-", "ratio": "not measured", "target": target}
            line |= {"network alone": "-", "n": "0"}
            if measured:
                ours, theirs = measured[what]
                ratio, low, high = ratios(what, ours, theirs)
                line |= {"ours": f"{median(ours):.1f}", "theirs": f"{median(theirs):.1f}", "n": str(len(ours))}
                missed = what in targets and ratio < targets[what]
                digits = 3 if missed and f"{ratio:.2f}" == target else 2  # else 2.497 looks like the 2.50 it misses
                line["ratio"] = f"{ratio:.{digits}f} ({low:.2f} to {high:.2f})"
                if what in targets:
                    line["target"] += ", MISSED" if missed else ", met"
                if found and found.alone and what in (TRAIN, VAL):
                    most = median(getattr(t, "train" if what == TRAIN else "val") for t in found.alone)
                    line["network alone"] = f"{most:.1f} ({100 * median(ours) / most:.0f} %)"
            yield line


def _origin(found: Comparison) -> str:
    e = found.environment
    shown = ("torch", "torchvision", "timm", "lightning", "segmentation-models-pytorch", *(n for n in e if "/" in n))
    used = ", ".join(f"{name} {e[name]}" for name in shown if e.get(name))
    text = f"{found.work}; {e.get('device_name')} ({e.get('threads')} threads); {found.started[:10]}, {used}, code "
    return f"{escape(text + str(e.get('commit') or 'unknown'))}; {code(found.command)}"
