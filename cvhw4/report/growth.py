"""How cost grows with the work: measures kept as JSON, shown as a table and a picture."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cvhw4.records.environment import device_name
from cvhw4.records.store import write_atomically
from cvhw4.report.tables import markdown

UNITS = {"images": "training images", "image size": "side of the input (px)", "seeds": "seeds, one after another"}
# Okabe and Ito's colours, which colour-blind people tell apart as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Growth:
    """Measures by kind ("images"), curve ("streamed") and x, kept in `folder/growth.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "growth.json"
        self.points: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []

    def add(self, kind: str, curve: str, x: int, *, seconds: float, images: int, **more: Any) -> None:
        """Takes a measure in place of an older one: seconds for so many images, and what else was measured."""
        import torch

        key = {"kind": kind, "curve": curve, "x": x}
        where = {"device": device_name(torch.device("cpu")), "threads": torch.get_num_threads()}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.points = [p for p in self.points if any(p[k] != v for k, v in key.items())]
        self.points.append(key | {"images": images, "seconds": seconds, **more, **where, "measured": when})

    def curve(self, kind: str, curve: str) -> list[dict[str, Any]]:
        """The measures of one curve by rising x."""
        return sorted((p for p in self.points if (p["kind"], p["curve"]) == (kind, curve)), key=lambda p: p["x"])

    def seconds(self, kind: str, curve: str) -> list[float]:
        """Seconds by rising x."""
        return [p["seconds"] for p in self.curve(kind, curve)]

    def per_unit(self, kind: str, curve: str) -> list[float]:
        """Seconds per unit of x, by rising x."""
        return [p["seconds"] / p["x"] for p in self.curve(kind, curve)]

    def write(self) -> Path:
        """Writes `growth.json`, `growth.png` and `growth.md`; returns the last.

        Raises:
            InputError: the folder cannot be written to.
        """
        ordered = sorted(self.points, key=lambda p: (list(UNITS).index(p["kind"]), p["curve"], p["x"]))
        write_atomically(self.folder / "growth.json", json.dumps(ordered, indent=1) + "\n")
        draw(self, self.folder / "growth.png")
        page = self.folder / "growth.md"
        write_atomically(page, self.page())
        return page

    def page(self) -> str:
        """The table, in markdown."""
        parts = [
            "# Cost as the work grows",
            "![seconds and memory against images, image size and seeds](growth.png)",
            "One measure per point, for image size the least of three; by `make growth`. Images: one pass over a "
            "training set as an epoch makes it (picked in random order, cropped, scaled to 96 px, normalised), "
            "without a network; peak memory beyond what the process took before. Image size and seeds: one epoch of "
            "the quick profile's row on 64 embedded portraits.",
        ]
        for kind, unit in UNITS.items():
            points = [p for p in self.points if p["kind"] == kind]
            if points:
                lines = [_line(p, unit) for p in sorted(points, key=lambda p: (p["curve"], p["x"]))]
                where = sorted({f"{p['device']}, {p['threads']} threads, {p['measured'][:10]}" for p in points})
                parts += [f"## {unit.capitalize()}", markdown(pd.DataFrame(lines).fillna("-")), "; ".join(where)]
        return "\n\n".join(parts) + "\n"


def _line(point: dict[str, Any], unit: str) -> dict[str, str]:
    line = {"curve": point["curve"], unit: f"{point['x']:,}", "seconds": f"{point['seconds']:.2f}"}
    line["images/s"] = f"{point['images'] / point['seconds']:,.0f}"
    if "bytes" in point:
        line["pictures"] = f"{point['bytes'] / 2**30:.2f} GiB"
        line["peak memory"] = f"{point['peak_memory'] / 2**30:.2f} GiB"
    return line


def draw(growth: Growth, path: Path) -> None:
    """Seconds by kind, and memory by images, each on logarithmic axes, as a PNG."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in UNITS if any(p["kind"] == kind for p in growth.points)]
    panels = [(kind, "seconds", 1.0, "seconds") for kind in kinds]
    if "images" in kinds:
        panels.insert(1, ("images", "peak_memory", 2.0**30, "peak memory (GiB)"))
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.8), layout="constrained")
    for axes, (kind, field, scale, label) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        names = sorted({p["curve"] for p in growth.points if p["kind"] == kind})
        for colour, marker, name in zip(COLOURS, "os^D", names, strict=False):
            points = growth.curve(kind, name)
            values = [p[field] / scale for p in points]
            axes.plot([p["x"] for p in points], values, marker=marker, color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel=UNITS[kind], ylabel=label)
        if kind != "images":
            ticks = sorted({p["x"] for p in growth.points if p["kind"] == kind})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
