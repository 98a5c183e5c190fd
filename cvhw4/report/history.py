"""Nights as pages: one night in Markdown, the history of all as a page with pictures, and a badge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import printable
from cvhw4.files import write_atomically
from cvhw4.records.history import GOOD, Night, State
from cvhw4.report.badge import badge
from cvhw4.report.changes import comment
from cvhw4.report.figures import COLOURS, FOLDER, INK, Picture, draw, grid_of_panels
from cvhw4.report.html import html_page
from cvhw4.report.numbers import interval
from cvhw4.report.runs import figure_name
from cvhw4.report.tables import Table
from cvhw4.report.text import escape, file_stem, in_picture
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.levels import Point, Shift, series_of, shifts
from cvhw4.statistics.nights import Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Key = tuple[str, str, str]  # row, data set, figure
Level = tuple[list[Point], list[Shift]]  # a figure's measurements, and the changes of its level
STATES: Mapping[State, str] = {
    "first": "the first night",
    "fine": "nothing is worse",
    "failed": "something failed",
    "regression": "worse than before",
    "broken": "nothing could be judged",
}
_LATEST = 14  # nights in the table
_MOST = 500  # lines of any other
_LONGEST = 60_000  # characters of an issue's or comment's text; GitHub takes 65,536
_COLUMNS = 3


def night_page(judgement: Judgement) -> str:
    """What became of a night, in Markdown, under 60,000 characters: its state, rows that are not fine, and both
    comparisons in full, as far as there is room."""
    night = judgement.night
    parts = [f"**{STATES[night.state][0].upper()}{STATES[night.state][1:]}**", night.why and escape(night.why)]
    rows = [r for r in night.rows if r.status != "fine"]
    parts.append(_table({"row": r.row, "data": r.data or "-", "is": r.status, "why": r.why or "-"} for r in rows))
    if failed := _failed(night):
        parts.append(f"Failed: {escape(', '.join(failed))}.")
    for title, changes, name in (("last good", judgement.good, "good"), ("pinned", judgement.pinned, "pinned")):
        if changes is not None:
            parts.append(f"### Against the {title} runs\n\n{comment(changes, name, 'tonight')}")
    page = ""
    for part in filter(None, parts):
        if len(page) + len(part) + 2 < _LONGEST:
            page += ("\n\n" if page else "") + part.strip()
    return page + "\n"


def write_history(folder: Path, nights: Sequence[Night]) -> Path:
    """Writes `index.html`, whose path it gives, and `badge.svg` into a history's folder, of one night or more, oldest
    first; raises InputError as `write_atomically`."""
    text, pictures = history_page(nights)
    write_atomically(folder / "badge.svg", badge(nights[-1].state, nights[-1].started))
    write_atomically(folder / "index.html", html_page(text, "", {f"{FOLDER}/{p.stem}.svg": p.svg for p in pictures}))
    return folder / "index.html"


def found_shifts(nights: Sequence[Night]) -> dict[Key, Level]:
    """Every figure's measurements and the changes of its level, corrected for all figures."""
    series = series_of(nights)
    return {key: (points, shifts(points, tests=len(series))) for key, points in series.items()}


def shifts_table(found: Mapping[Key, Level]) -> Table:
    """Every change of level, newest first."""
    lines = [
        {
            "night": points[shift.index].first.started[:10],
            "row": row,
            "data": data,
            "figure": figure_name(figure),
            "before": f"{shift.before:.4f}",
            "after": f"{shift.after:.4f}",
            "p": f"{shift.p_value:.1g}",
            "commits": "..".join(c or "?" for c in shift.commits),
        }
        for (row, data, figure), (points, cuts) in found.items()
        for shift in cuts
    ]
    return Table.of(sorted(lines, key=lambda line: tuple(line.values()), reverse=True), title="changes of level")


def latest_table(found: Mapping[Key, Level]) -> Table:
    """Every figure's last measurement, and since when its level is what it is."""
    lines = []
    for (row, data, figure), (points, cuts) in found.items():
        e = estimate(points[-1].values)
        lines.append(
            {
                "row": row,
                "data": data,
                "figure": figure_name(figure),
                "mean": f"{points[-1].mean:.4f}",
                "95 % interval": interval(e, 4),
                "n": str(e.n),
                "measured": str(len(points)),
                "level since": points[cuts[-1].index if cuts else 0].first.started[:10],
            }
        )
    return Table.of(lines, title="latest figures")


def history_page(nights: Sequence[Night]) -> tuple[str, list[Picture]]:
    """The page of all nights in Markdown, and its pictures."""
    last = nights[-1]
    found = found_shifts(nights)
    good = next((n for n in reversed(nights) if n.state in GOOD), None)
    worse = [{"row": f.row, "data": f.data, "what": f.name, "since": f.since[:10]} for f in last.worse]
    accepted = [
        {"night": n.started[:10], "row": row, "reason": why}
        for n in reversed(nights)
        for row, why in n.accepted.items()
    ]
    pictures = _pictures(found, nights)
    parts = [
        f"# Nights of {escape(last.study or 'a study')}",
        f"The last of {len(nights)} nights, {last.started[:16].replace('T', ' ')} UTC: **{STATES[last.state]}**"
        + (f" ({escape(last.why)})" if last.why else "")
        + f". The last good one: {good.started[:16].replace('T', ' ') if good else 'none'}.",
        "## The latest nights",
        _table(map(_line, reversed(nights[-_LATEST:]))),
        "## Worse until repaired or accepted" if worse else "",
        _table(worse),
        "## What moved",
        shifts_table(found).escaped().markdown(_MOST) or "No figure's level has changed.",
        "Changes of level by binary segmentation, p corrected for all figures and nights. What changed a figure is in "
        "the commits named, or in versions and drivers below: `cvhw4 bisect ROW GOOD BAD` trains that row in between.",
        "## Figures over nights",
        *(p.markdown for p in pictures),
        latest_table(found).escaped().markdown(_MOST),
        "## Accepted",
        _table(accepted) or "Nothing so far.",
        "## Versions",
        _table(_versions(nights)) or "None has changed.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n", pictures


def _table(lines: Iterable[Mapping[str, str]]) -> str:
    return Table.of(lines).escaped().markdown(_MOST)


def _line(night: Night) -> dict[str, str]:
    rows = [f"{r.row} {r.status}" for r in night.rows if r.status not in ("fine", "new")]
    wrong = [*([night.why] if night.why else []), *rows, *_failed(night)]
    day, commit = night.started[:10], night.commit or "-"
    return {"night": day, "commit": commit, "state": night.state, "not fine": ", ".join(wrong) or "-"}


def _failed(night: Night) -> list[str]:
    """The checks that did not pass."""
    return [name for name, outcome in night.checks.items() if outcome != "passed"]


def _day(night: Night) -> float:
    """When a night began, in matplotlib's days."""
    return datetime.fromisoformat(night.started).timestamp() / 86400


def _pictures(found: Mapping[Key, Level], nights: Sequence[Night]) -> list[Picture]:
    """A picture per data set and figure, a panel per row."""
    drivers = [b for a, b in pairwise([n for n in nights if n.environment]) if _machine(a) != _machine(b)]
    pictures = []
    for data, figure in dict.fromkeys(key[1:] for key in found):
        rows = {key[0]: found[key] for key in found if key[1:] == (data, figure)}

        def paint(canvas: Figure, rows: Mapping[str, Level] = rows, data: str = data) -> None:
            panels = grid_of_panels(canvas, len(rows), _COLUMNS)
            for axes, (row, level) in zip(panels.flat, rows.items(), strict=False):
                _panel(axes, row, data, level, nights, drivers)

        lines, columns = -(-len(rows) // _COLUMNS), max(min(_COLUMNS, len(rows)), 2)
        cuts = sum(len(found_cuts) for _, found_cuts in rows.values())
        pictures.append(
            draw(
                f"nights-{file_stem(f'{data}-{figure}')}",
                (2.9 * columns + 0.3, 1.7 * lines + 0.5),
                paint,
                f"{printable(figure)} on {printable(data)} over {len(nights)} nights: {cuts} changes of level.",
                f"{escape(figure_name(figure))} on {escape(data)}, a panel per row: mean over seeds of every "
                "measurement, band: its 95 % interval, grey lines: bounds of the mean. Red line: change of level; "
                "triangle: accepted; dotted line: another version, driver or device.",
            )
        )
    return pictures


def _panel(axes: Axes, row: str, data: str, level: Level, nights: Sequence[Night], moved: Sequence[Night]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    points, cuts = level

    def lasting(values: Iterable[object]) -> NDArray[np.float64]:
        """A value for the first and the last night of every measurement; NaN for None."""
        return np.repeat(np.array([*values], dtype=float), 2)

    times = [_day(n) for p in points for n in (p.first, p.last)]
    found = [estimate(p.values) for p in points]
    low, high = (lasting(getattr(e, end) if e.n > 1 else e.mean for e in found) for end in ("low", "high"))
    axes.fill_between(times, low, high, color=COLOURS[0], alpha=0.3, linewidth=0)
    axes.plot(times, lasting(p.mean for p in points), color=COLOURS[0], linewidth=1.3)
    for end in ("low", "high"):
        axes.plot(times, lasting(getattr(p, end) for p in points), color=COLOURS[6], linewidth=0.8)
    for night in moved:
        axes.axvline(_day(night), color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
    for shift in cuts:
        axes.axvline(_day(points[shift.index].first), color=COLOURS[5], linewidth=1.1)
    for night in nights:
        if any((r.row, r.data, r.status) == (row, data, "accepted") for r in night.rows):
            height = next((p.mean for p in reversed(points) if p.first.started <= night.started), points[0].mean)
            axes.plot(_day(night), height, "^", color=COLOURS[2], markersize=6)
    locator = AutoDateLocator(maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_title(in_picture(row), fontsize=8, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)


def _machine(night: Night) -> dict[str, object]:
    return {k: v for k, v in night.environment.items() if k not in ("commit", "code", "parts")}


def _versions(nights: Sequence[Night]) -> list[dict[str, str]]:
    """What of versions, driver and device changed, newest first."""
    lines = []
    for a, b in pairwise([n for n in nights if n.environment]):
        before, after = _machine(a), _machine(b)
        for name in dict.fromkeys([*before, *after]):
            old, new = str(before.get(name, "-")), str(after.get(name, "-"))
            if old != new:
                lines.append({"night": b.started[:10], "what": name, "before": old, "after": new})
    return lines[::-1]
