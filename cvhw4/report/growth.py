"""How cost grows with the work: a table and a picture of what was measured."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from cvhw4.records.growth import Growth
from cvhw4.records.store import write_atomically
from cvhw4.report.tables import markdown
from cvhw4.report.text import escape, in_picture

_UNITS = {"images": "training images", "image size": "side of the input (px)", "seeds": "seeds, one after another"}
# Okabe and Ito's colours, which colour-blind people tell apart as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def write_growth_page(growth: Growth) -> Path:
    """Writes `growth.md` and the picture in it, `growth.png`, beside the measures.

    Raises:
        InputError: the folder cannot be written to.
    """
    write_atomically(growth.folder / "growth.png", picture(growth))
    path = growth.folder / "growth.md"
    write_atomically(path, growth_page(growth))
    return path


def growth_page(growth: Growth) -> str:
    """The table, in markdown."""
    parts = [
        "# Cost as the work grows",
        "![seconds and memory against images, image size and seeds](growth.png)",
        "One measure per point, for image size the least of three; by `make growth`. Images: one pass over a training "
        "set as an epoch makes it (picked in random order, cropped, scaled to 96 px, normalised), without a network; "
        "peak memory is the whole process's, torch and all. Image size and seeds: one epoch of the quick profile's "
        "row on 64 embedded portraits.",
    ]
    for kind, unit in _UNITS.items():
        points = [p for name in growth.curves(kind) for p in growth.curve(kind, name)]
        if points:
            where = sorted({f"{p['device']}, {p['threads']} threads, {p['measured'][:10]}" for p in points})
            table = pd.DataFrame([_line(p, unit) for p in points])
            parts += [f"## {unit.capitalize()}", markdown(table), "; ".join(map(escape, where))]
    return "\n\n".join(parts) + "\n"


def _line(point: dict[str, Any], unit: str) -> dict[str, str]:
    line = {"curve": escape(point["curve"]), unit: f"{point['x']:,}", "seconds": f"{point['seconds']:.2f}"}
    line["images/s"] = f"{point['images'] / point['seconds']:,.0f}"
    if "bytes" in point:
        line["pictures"] = f"{point['bytes'] / 2**30:.2f} GiB"
        line["peak memory"] = f"{point['peak_memory'] / 2**30:.2f} GiB"
    return line


def picture(growth: Growth) -> bytes:
    """Seconds by kind, and memory by images, each on logarithmic axes; a PNG."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in _UNITS if growth.curves(kind)]
    panels = [(kind, "seconds", 1.0, "seconds") for kind in kinds]
    if "images" in kinds:
        panels.insert(1, ("images", "peak_memory", 2.0**30, "peak memory (GiB)"))
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.8), layout="constrained")
    row = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axes, (kind, field, scale, label) in zip(row, panels, strict=False):
        for colour, marker, name in zip(COLOURS, "os^D", growth.curves(kind), strict=False):
            points = growth.curve(kind, name)
            values = [p[field] / scale for p in points]
            axes.plot([p["x"] for p in points], values, marker=marker, color=colour, label=in_picture(name))
        axes.set(xscale="log", yscale="log", xlabel=_UNITS[kind], ylabel=label)
        if kind != "images":
            ticks = sorted({p["x"] for name in growth.curves(kind) for p in growth.curve(kind, name)})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    png = BytesIO()
    figure.savefig(png, dpi=110)
    return png.getvalue()
