"""Measures of how cost grows with the work, kept in one JSON file: a list of objects. Version 1.

Each has `kind` ("images", "image size", "seeds"), `curve` ("streamed"), `x`, `images`, `seconds`, `device`, `threads`,
`measured` (ISO 8601 in UTC) and, for images, `bytes` of pictures and `peak_memory` in bytes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvhw4.errors import InputError
from cvhw4.records.store import write_atomically

FILE = "growth.json"
NEEDED = {"kind", "curve", "x", "images", "seconds", "device", "threads", "measured"}


class Growth:
    """The measures of a results folder.

    Raises:
        InputError: the file is no list of measures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: list[dict[str, Any]] = []
        path = folder / FILE
        if path.exists():
            try:
                self.points = json.loads(path.read_text("utf-8"))
                assert all(point.keys() >= NEEDED for point in self.points)
            except (ValueError, AttributeError, TypeError, AssertionError) as error:
                raise InputError(path, "is no list of measures of growth", "delete it and measure again") from error

    def add(self, kind: str, curve: str, x: int, *, seconds: float, images: int, **more: Any) -> None:
        """Takes a measure in place of an older one: seconds for so many images, where, and what else was measured."""
        key = {"kind": kind, "curve": curve, "x": x}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.points = [p for p in self.points if any(p[k] != v for k, v in key.items())]
        self.points.append(key | {"images": images, "seconds": seconds, **more, "measured": when})

    def curves(self, kind: str) -> list[str]:
        """The names of a kind's curves."""
        return sorted({p["curve"] for p in self.points if p["kind"] == kind})

    def curve(self, kind: str, curve: str) -> list[dict[str, Any]]:
        """The measures of one curve by rising x."""
        return sorted((p for p in self.points if (p["kind"], p["curve"]) == (kind, curve)), key=lambda p: p["x"])

    def seconds(self, kind: str, curve: str) -> list[float]:
        """Seconds by rising x."""
        return [p["seconds"] for p in self.curve(kind, curve)]

    def per_unit(self, kind: str, curve: str) -> list[float]:
        """Seconds per unit of x, by rising x."""
        return [p["seconds"] / p["x"] for p in self.curve(kind, curve)]

    def save(self) -> None:
        """Writes the file.

        Raises:
            InputError: the folder cannot be written to.
        """
        ordered = sorted(self.points, key=lambda p: (p["kind"], p["curve"], p["x"]))
        write_atomically(self.folder / FILE, json.dumps(ordered, indent=1) + "\n")
