"""The record of one speed comparison, this project's loop and a reference loop timed in turn, and the page of all.

Records are a list of JSON objects with the fields of `SpeedRecord`, in `<results>/speed.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.performance.cost import Cost, Machine, Positive
from benchmarks.performance.measured import read_measures, write_measures
from cvhw4.files import write_atomically
from cvhw4.records.schema import Count
from cvhw4.report.tables import Table
from cvhw4.report.text import code, escape

Target = tuple[str, str, float]  # kind of device ("cpu", "cuda"), family, and the ratio of times to reach


@dataclass(frozen=True, kw_only=True)
class SpeedRecord:
    """One comparison on one machine.

    Attributes:
        family: what is compared, the name under which it is kept ("frozen, random crops").
        row: name of the row that was timed ("q1_1-features"); `study` the name of its study; `network`, `size` (px) and
            `batch` are its own.
        work: what was timed: "training with validation", "validation alone".
        images: trained on and evaluated by each side in one trial.
        ours_seconds: wall time of this project's loop, trial by trial.
        reference_seconds: the reference's, taken in turn with ours: equally many.
        workerless_seconds: the reference's where it loads pictures itself, without worker processes; as many, or empty
            where that was not timed. On few cores it is the stronger opponent.
        target: the ratio of times to reach, None where there is none.
        flops: the least arithmetic of a trial (see `benchmarks.performance.cost`).
        bytes: the least parameter traffic of a trial.
        machine: what the device was measured to reach.
        peak_memory_ours: bytes, None where not measured; likewise `peak_memory_reference`.
        environment: versions, device, threads, commit, as `cvhw4.records.environment.environment` gives them.
        command: what was run to measure.
        started: when, ISO 8601 in UTC.
    """

    family: str
    row: str
    study: str
    network: str
    size: Count
    batch: Count
    work: str
    images: Count
    ours_seconds: list[Positive]
    reference_seconds: list[Positive]
    flops: Count
    bytes: Count
    machine: Machine
    target: Positive | None = None
    workerless_seconds: list[Positive] = field(default_factory=list)
    peak_memory_ours: Count | None = None
    peak_memory_reference: Count | None = None
    environment: Mapping[str, Any]
    command: str
    started: str

    @property
    def device(self) -> str:
        """The kind of device: "cpu" or "cuda"."""
        return str(self.environment["device"])

    @property
    def seconds(self) -> float:
        """This project's loop, at the median."""
        return median(self.ours_seconds)

    @property
    def ratio(self) -> float:
        """How many times as long the reference takes: median over median."""
        return median(self.reference_seconds) / self.seconds

    @property
    def ratio_range(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a pair of trials."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours_seconds, self.reference_seconds, strict=True)]
        return min(ratios), max(ratios)

    @property
    def workerless_ratio(self) -> float | None:
        """As `ratio`, for the reference without worker processes; None where that was not timed."""
        return median(self.workerless_seconds) / self.seconds if self.workerless_seconds else None

    @property
    def floor(self) -> tuple[float, str]:
        """The least seconds of a trial on that machine, and what sets them: "arithmetic" or "memory"."""
        return self.machine.floor(Cost(self.flops, self.bytes, self.images))

    @property
    def over_floor(self) -> float:
        """The median time as a multiple of the floor; infinite where the least work is none."""
        return self.seconds / self.floor[0] if self.floor[0] else math.inf


def save(record: SpeedRecord, folder: Path) -> None:
    """Writes a record in place of an older one of the same family and kind of device, below a results folder. Raises
    InputError: the folder cannot be written to, or holds what is no speed records."""
    others = [r for r in load_all(folder) if (r.family, r.device) != (record.family, record.device)]
    write_measures(folder / "speed.json", sorted([*others, record], key=lambda r: (r.family, r.device)))


def load_all(folder: Path) -> list[SpeedRecord]:
    """The speed records of a results folder, by family and kind of device. Raises InputError: its file holds anything
    else."""
    return read_measures(folder / "speed.json", SpeedRecord)


# The page

_DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
_LEGEND = (
    "Images per second, trained on and evaluated. *Ratio*: the reference's median time over ours, with the lowest and "
    "the highest of the pairs of trials taken in turn. *Without workers*: the ratio to a reference that loads pictures "
    "in its own process, which on few cores is the stronger opponent: a *target* is met where both ratios reach it. "
    "*GFLOP/s*: the least arithmetic (matrix products and convolutions, 2 per multiply-add) over our median time. "
    "*Floor*: the least arithmetic at the measured peak, or the least parameter traffic at the measured bandwidth, "
    "whichever takes longer: the *limit*. *Peak memory*: ours, then the reference's; the device's for CUDA, "
    "else the process's, without the reference's workers. *n*: pairs of trials."
)


def speed_page(records: Sequence[SpeedRecord], targets: Sequence[Target] = ()) -> str:
    """The whole `speed.md`: a table per kind of device, targets first and in their order, then what has none there.

    Args:
        records: one per family and kind of device.
        targets: what is to be measured; shown as not measured where there is no record of the family.
    """
    parts = ["# Speed", _LEGEND if records or targets else "No measurements yet."]
    for kind in dict.fromkeys([*_DEVICES, *(r.device for r in records)]):
        found = {r.family: r for r in sorted(records, key=lambda r: r.family) if r.device == kind}
        wanted = {family: target for device, family, target in targets if device == kind}
        families = [*wanted, *(family for family in found if family not in wanted)]
        if families:
            table = Table.of(_line(family, found.get(family), wanted.get(family)) for family in families)
            origins = "\n".join(_origin(found[family]) for family in families if family in found)
            parts += [f"## {_DEVICES.get(kind) or escape(kind)}", table.markdown(), *([origins] if found else [])]
    return "\n\n".join(parts) + "\n"


def write_speed_page(folder: Path, targets: Sequence[Target] = ()) -> Path:
    """Writes the `speed.md` of the records below a results folder. Raises InputError: the folder cannot be written
    to."""
    path = folder / "speed.md"
    write_atomically(path, speed_page(load_all(folder), targets))
    return path


_CELLS: dict[str, Callable[[SpeedRecord], str]] = {
    "images/s ours": lambda r: _figure(r.images / r.seconds),
    "reference": lambda r: _figure(r.images / median(r.reference_seconds)),
    "ratio (min to max)": lambda r: "{:.2f} ({:.2f} to {:.2f})".format(r.ratio, *r.ratio_range),
    "without workers": lambda r: "-" if r.workerless_ratio is None else f"{r.workerless_ratio:.2f}",
    "target": lambda r: "-",
    "GFLOP/s": lambda r: _figure(r.flops / r.seconds / 1e9),
    "share of measured peak": lambda r: f"{_figure(100 * r.flops / r.seconds / r.machine.matrix_flops)} %",
    "time over floor": lambda r: "-" if math.isinf(r.over_floor) else f"{r.over_floor:.2f}",
    "limit": lambda r: r.floor[1],
    "peak memory": lambda r: f"{_memory(r.peak_memory_ours)}, {_memory(r.peak_memory_reference)}",
    "n": lambda r: str(len(r.ours_seconds)),
}


def _line(family: str, record: SpeedRecord | None, target: float | None) -> dict[str, str]:
    """A line of the table; `target` is the one that holds now, None for the record's own."""
    if record is None:
        not_measured = {"ratio (min to max)": "not measured", "target": f"{target:.2f}"}
        return {"work": escape(family)} | dict.fromkeys(_CELLS, "-") | not_measured
    row = f"{record.row}, {record.network}, {record.size} px, batch {record.batch}"
    line = {"work": escape(f"{family}: {record.work} ({row})")} | {name: of(record) for name, of in _CELLS.items()}
    target, alone = target or record.target, record.workerless_ratio
    if target is not None:
        missed = "MISSED" if record.ratio < target else "MISSED without workers"
        met = min(record.ratio, alone or record.ratio) >= target
        line["target"] = f"{target:.2f}, {'met' if met else missed}"
    return line


def _origin(record: SpeedRecord) -> str:
    """A list item: where, when and how a line was measured, and what its machine reaches."""
    e, machine = record.environment, record.machine
    threads = f" ({e['threads']} threads)" if record.device == "cpu" and "threads" in e else ""
    text = escape(
        f"{record.family}: {e.get('device_name', record.device)}{threads}, measured peak "
        f"{_figure(machine.matrix_flops / 1e9)} GFLOP/s ({machine.precision}) and {_figure(machine.bandwidth / 1e9)} "
        f"GB/s; {record.started[:10]}, torch {e.get('torch')}, code {e.get('commit') or 'unknown'}, study "
    )
    return f"- {text}{code(record.study)}; {code(record.command)}"


def _figure(value: float) -> str:
    """Three significant digits or all before the point: "0.123", "4.57", "12.3", "1,234"."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.2f} GiB"
