"""The page of speed comparisons: what was measured, beside its target and the machine's floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cvhw4.records.speed import SpeedRecord, load_all
from cvhw4.records.store import write_atomically
from cvhw4.report.tables import markdown
from cvhw4.report.text import code, escape

# A ratio that is to be reached: kind of device ("cpu", "cuda"), family of the comparison, the ratio of times.
Target = tuple[str, str, float]
_DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
COLUMNS = (
    "work",
    "images/s ours",
    "reference",
    "ratio (min to max)",
    "without workers",
    "target",
    "GFLOP/s",
    "share of measured peak",
    "time over floor",
    "limit",
    "peak memory",
    "n",
)
_LEGEND = (
    "Images per second, trained on and evaluated. *Ratio*: the reference's median time over ours, with the lowest and "
    "the highest of the pairs of trials taken in turn. *Without workers*: the ratio to a reference that loads pictures "
    "in its own process, which on few cores is the stronger opponent: where that misses a *target* it is told. "
    "*GFLOP/s*: the least arithmetic (matrix products and convolutions, 2 per multiply-add) over our median time. "
    "*Floor*: the least arithmetic at the measured matrix peak, or the least parameter traffic at the measured "
    "bandwidth, whichever takes longer: the *limit*. *Peak memory*: ours, then the reference's; the device's for CUDA, "
    "else the process's, without the reference's workers. *n*: pairs of trials."
)


def speed_page(records: Sequence[SpeedRecord], targets: Sequence[Target] = ()) -> str:
    """The whole `speed.md`: a table per device, targets first and in their order, then what has no target there.

    Args:
        records: one per family and kind of device.
        targets: what ought to be measured, (kind of device, text, ratio); a record answers to its `family` and to
            "family: work". Those without a record are shown as not measured.
    """
    parts = ["# Speed", _LEGEND if records or targets else "No measurements yet."]
    kinds = dict.fromkeys([*_DEVICES, *(kind for kind, _, _ in targets), *sorted(r.device for r in records)])
    for kind in kinds:
        of_kind = [r for r in records if r.device == kind]
        wanted = [(text, ratio) for device, text, ratio in targets if device == kind]
        if of_kind or wanted:
            parts += _section(kind, of_kind, wanted)
    return "\n\n".join(parts) + "\n"


def write_speed_page(folder: Path, targets: Sequence[Target] = ()) -> Path:
    """Renders the records below a results folder to its `speed.md`.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = folder / "speed.md"
    write_atomically(path, speed_page(load_all(folder), targets))
    return path


def _section(kind: str, records: Sequence[SpeedRecord], targets: Sequence[tuple[str, float]]) -> list[str]:
    lines, shown = [], []
    for text, ratio in targets:
        answers = [r for r in records if text in (r.family, f"{r.family}: {r.work}")]
        lines += [_line(r, ratio) for r in answers] or [_not_measured(text, ratio)]
        shown += answers
    rest = [r for r in records if r not in shown]
    lines += [_line(r, r.target) for r in sorted(rest, key=lambda r: r.family)]
    parts = [f"## {_DEVICES.get(kind) or escape(kind)}", markdown(pd.DataFrame(lines, columns=list(COLUMNS)))]
    measured = [*shown, *sorted(rest, key=lambda r: r.family)]
    if measured:
        parts.append("\n".join(_origin(r) for r in measured))
    return parts


def _line(record: SpeedRecord, target: float | None) -> dict[str, str]:
    low, high = record.ratio_range
    row = f"{record.row}, {record.network}, {record.size} px, batch {record.batch}"
    return {
        "work": escape(f"{record.family}: {record.work} ({row})"),
        "images/s ours": _figure(record.images_per_second),
        "reference": _figure(record.reference_images_per_second),
        "ratio (min to max)": f"{record.ratio:.2f} ({low:.2f} to {high:.2f})",
        "without workers": "-" if record.workerless_ratio is None else f"{record.workerless_ratio:.2f}",
        "target": "-" if target is None else f"{target:.2f}, {_judged(record, target)}",
        "GFLOP/s": _figure(record.achieved_flops / 1e9),
        "share of measured peak": f"{_figure(100 * record.peak_share)} %",
        "time over floor": "-" if math.isinf(record.over_floor) else f"{record.over_floor:.2f}",
        "limit": record.limit,
        "peak memory": f"{_memory(record.peak_memory_ours)}, {_memory(record.peak_memory_reference)}",
        "n": str(len(record.ours_seconds)),
    }


def _judged(record: SpeedRecord, target: float) -> str:
    if record.ratio < target:
        return "MISSED"
    alone = record.workerless_ratio
    return "met" if alone is None or alone >= target else "met; missed without workers"


def _not_measured(text: str, target: float) -> dict[str, str]:
    measured = {"work": escape(text), "ratio (min to max)": "not measured", "target": f"{target:.2f}"}
    return {column: measured.get(column, "-") for column in COLUMNS}


def _origin(record: SpeedRecord) -> str:
    """A list item: where, when and how a line was measured, and what its machine reaches."""
    e: Any = record.environment
    threads = f" ({e['threads']} threads)" if record.device == "cpu" and "threads" in e else ""
    machine = record.machine
    text = escape(
        f"{record.family}: {e.get('device_name', record.device)}{threads}, measured peak "
        f"{_figure(machine.matrix_flops / 1e9)} GFLOP/s ({machine.precision}) and {_figure(machine.bandwidth / 1e9)} "
        f"GB/s; {record.started[:10]}, torch {e.get('torch')}, code {e.get('commit')}, profile "
    )
    return f"- {text}{code(record.profile)}; {code(record.command)}"


def _figure(value: float) -> str:
    """Three significant digits or all before the point: "0.123", "4.57", "12.3", "1,234"."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.2f} GiB"
