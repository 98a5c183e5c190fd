"""Nights as pages: one night in Markdown, the history of all as a page with pictures, and a badge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape as quoted
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cvhw4.errors import printable
from cvhw4.files import write_atomically
from cvhw4.records.history import GOOD, Night, State
from cvhw4.report.changes import comment
from cvhw4.report.figures import COLOURS, FOLDER, INK, Picture, draw, grid_of_panels
from cvhw4.report.html import html_page
from cvhw4.report.runs import figure_name
from cvhw4.report.tables import Table
from cvhw4.report.text import clip, escape, file_stem, in_picture
from cvhw4.statistics.intervals import t_quantile
from cvhw4.statistics.levels import Point, Shift, series_of, shifts
from cvhw4.statistics.nights import CANARY, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Key = tuple[str, str, str]  # row, data set, figure
STATES: Mapping[State, str] = {
    "first": "the first night",
    "fine": "nothing is worse",
    "failed": "tests failed",
    "regression": "worse than before",
    "broken": "nothing could be judged",
}
_BADGE: Mapping[State, str] = {"first": "#2da44e", "fine": "#2da44e", "failed": "#bf8700", "regression": "#cf222e"}
_LATEST = 14  # nights in the table
_LONGEST = 60_000  # characters of an issue's or comment's text; GitHub takes 65,536
_COLUMNS = 3


def night_page(judgement: Judgement) -> str:
    """What became of a night, in Markdown, under 60,000 characters: its state, rows that are not fine, and both
    comparisons in full, as far as there is room."""
    night = judgement.night
    parts = [f"**{STATES[night.state][0].upper()}{STATES[night.state][1:]}**", night.why and escape(night.why)]
    rows = [(r.row, r.data or "-", r.status, r.why or "-") for r in night.rows if r.status != "fine"]
    parts.append(_table(("row", "data", "is", "why"), rows))
    failed = [name for name, outcome in night.checks.items() if outcome != "passed"]
    if failed:
        parts.append(f"Failed: {escape(', '.join(failed))}.")
    sides = (
        ("Against the last good runs", judgement.good, "good"),
        ("Against the pinned runs", judgement.pinned, "pinned"),
    )
    for title, changes, name in sides:
        if changes is not None:
            parts.append(f"### {title}\n\n{comment(changes, name, 'tonight')}")
    page = ""
    for part in filter(None, parts):
        if len(page) + len(part) + 2 < _LONGEST:
            page += ("\n\n" if page else "") + part.strip()
    return page + "\n"


def write_history(folder: Path, nights: Sequence[Night]) -> Path:
    """Writes `index.html` and `badge.svg` into a history's folder.

    Args:
        nights: oldest first, one or more.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written to.
    """
    text, pictures = history_page(nights)
    write_atomically(folder / "badge.svg", badge(nights[-1]))
    write_atomically(folder / "index.html", html_page(text, "", {f"{FOLDER}/{p.stem}.svg": p.svg for p in pictures}))
    return folder / "index.html"


def found_shifts(nights: Sequence[Night]) -> dict[Key, tuple[list[Point], list[Shift]]]:
    """Every figure's measurements and the changes of its level, corrected for all figures."""
    series = series_of(nights)
    return {key: (points, shifts(points, tests=len(series))) for key, points in series.items()}


def shift_lines(found: Mapping[Key, tuple[list[Point], list[Shift]]]) -> list[tuple[str, ...]]:
    """Every change of level, newest first: night, row, data, figure, from, to, p, commits."""
    lines = [
        (
            points[shift.index].first.started[:10],
            *key[:2],
            figure_name(key[2]),
            f"{shift.before:.4f}",
            f"{shift.after:.4f}",
            f"{shift.p_value:.1g}",
            "..".join(c or "?" for c in shift.commits),
        )
        for key, (points, cuts) in found.items()
        for shift in cuts
    ]
    return sorted(lines, reverse=True)


SHIFT_COLUMNS = ("night", "row", "data", "figure", "before", "after", "p", "commits")


def latest_lines(found: Mapping[Key, tuple[list[Point], list[Shift]]]) -> list[tuple[str, ...]]:
    """Every figure's last measurement: row, data, figure, mean, interval, n, measurements, and its level's age."""
    lines: list[tuple[str, ...]] = []
    for key, (points, cuts) in found.items():
        low, high = _interval(points[-1].values)
        limits = f"{low:.4f} to {high:.4f}" if math.isfinite(low) else "-"
        since = points[cuts[-1].index if cuts else 0].first.started[:10]
        numbers = (f"{points[-1].mean:.4f}", limits, str(len(points[-1].values)), str(len(points)))
        lines.append((*key[:2], figure_name(key[2]), *numbers, since))
    return lines


LATEST_COLUMNS = ("row", "data", "figure", "mean", "95 % interval", "n", "measured", "level since")


def history_page(nights: Sequence[Night]) -> tuple[str, list[Picture]]:
    """The page of all nights in Markdown, and its pictures."""
    last = nights[-1]
    found = found_shifts(nights)
    good = next((n for n in reversed(nights) if n.state in GOOD), None)
    parts = [
        f"# Nights of {escape(last.study or 'a study')}",
        f"The last of {len(nights)} nights, {last.started[:16].replace('T', ' ')} UTC: **{STATES[last.state]}**"
        + (f" ({escape(last.why)})" if last.why else "")
        + f". The last good one: {good.started[:16].replace('T', ' ') if good else 'none'}.",
        "## The latest nights",
        _table(("night", "commit", "state", "not fine"), map(_line, reversed(nights[-_LATEST:]))),
        "## Worse until repaired or accepted" if last.worse else "",
        _table(("row", "data", "what", "since"), [(f.row, f.data, f.name, f.since[:10]) for f in last.worse]),
        "## What moved",
        _table(SHIFT_COLUMNS, shift_lines(found)) or "No figure's level has changed.",
        "Changes of level by binary segmentation, p corrected for all figures and nights. What changed a figure is in "
        "the commits named, or in versions and drivers below: `cvhw4 bisect ROW GOOD BAD` trains that row in between.",
    ]
    pictures = [*_pictures(found, nights), *_canary(nights)]
    parts += ["## Figures over nights", *(p.markdown for p in pictures)]
    parts.append(_table(LATEST_COLUMNS, latest_lines(found)))
    accepted = [(n.started[:10], row, why) for n in reversed(nights) for row, why in n.accepted.items()]
    parts += ["## Accepted", _table(("night", "row", "reason"), accepted) or "Nothing so far."]
    parts += ["## Versions", _table(("night", "what", "before", "after"), _versions(nights)) or "None has changed."]
    return "\n\n".join(filter(None, parts)) + "\n", pictures


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = [[escape(clip(text)) for text in row] for row in rows]
    return Table(columns, escaped).markdown(500) if escaped else ""


def _line(night: Night) -> tuple[str, ...]:
    failed = [name for name, outcome in night.checks.items() if outcome != "passed"]
    rows = [f"{r.row} {r.status}" for r in night.rows if r.status not in ("fine", "new")]
    wrong = [night.why] if night.why else []
    return (night.started[:10], night.commit or "-", night.state, ", ".join([*wrong, *rows, *failed]) or "-")


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean over seeds (Student's t); infinite for one."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return -math.inf, math.inf
    half = t_quantile(0.975, n - 1) * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean - half, mean + half


def _day(night: Night) -> float:
    """When a night began, in matplotlib's days."""
    return datetime.fromisoformat(night.started).timestamp() / 86400


def _pictures(found: Mapping[Key, tuple[list[Point], list[Shift]]], nights: Sequence[Night]) -> list[Picture]:
    """A picture per data set and figure, a panel per row."""
    drivers = [b for a, b in pairwise([n for n in nights if n.environment]) if _machine(a) != _machine(b)]
    pictures = []
    for data, figure in dict.fromkeys(key[1:] for key in found):
        rows = {key[0]: found[key] for key in found if key[1:] == (data, figure)}

        def paint(canvas: Figure, rows: Mapping[str, tuple[list[Point], list[Shift]]] = rows) -> None:
            panels = grid_of_panels(canvas, len(rows), _COLUMNS)
            for axes, (row, (points, cuts)) in zip(panels.flat, rows.items(), strict=False):
                _panel(axes, row, points, cuts, nights, drivers)

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


def _panel(
    axes: Axes,
    row: str,
    points: Sequence[Point],
    cuts: Sequence[Shift],
    nights: Sequence[Night],
    moved: Sequence[Night],
) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = [_day(n) for p in points for n in (p.first, p.last)]
    ends = [_interval(p.values) for p in points for _ in range(2)]
    means = [p.mean for p in points for _ in range(2)]
    lows, highs = ([e[i] if math.isfinite(e[i]) else m for e, m in zip(ends, means, strict=True)] for i in (0, 1))
    axes.fill_between(times, lows, highs, color=COLOURS[0], alpha=0.3, linewidth=0)
    axes.plot(times, means, color=COLOURS[0], linewidth=1.3)
    for limit in ("low", "high"):
        values = [getattr(p, limit) for p in points for _ in range(2)]
        if any(v is not None for v in values):
            held = [math.nan if v is None else v for v in values]
            axes.plot(times, held, color=COLOURS[6], linewidth=0.8)
    for night in moved:
        axes.axvline(_day(night), color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
    for shift in cuts:
        axes.axvline(_day(points[shift.index].first), color=COLOURS[5], linewidth=1.1)
    for night in nights:
        judged = next((r for r in night.rows if r.row == row and r.status == "accepted" and r.data != CANARY), None)
        if judged is not None:
            height = next((p.mean for p in reversed(points) if p.first.started <= night.started), means[0])
            axes.plot(_day(night), height, "^", color=COLOURS[2], markersize=6)
    locator = AutoDateLocator(maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_title(in_picture(row), fontsize=8, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)


def _canary(nights: Sequence[Night]) -> list[Picture]:
    """Training times of the canary over nights."""
    timed = [n for n in nights if n.canary is not None]
    if not timed:
        return []

    def paint(canvas: Figure) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        axes = canvas.subplots()
        for night in timed:
            assert night.canary is not None
            axes.plot(
                [_day(night)] * len(night.canary.seconds), night.canary.seconds, ".", color=COLOURS[0], markersize=4
            )
        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_ylabel("training time (s)")
        axes.set_ylim(bottom=0)

    row = timed[-1].canary.row if timed[-1].canary else ""
    return [
        draw(
            "nights-canary",
            (6.1, 2.2),
            paint,
            f"Training time of {printable(row)} over {len(timed)} nights.",
            f"Training time of {escape(row)}, trained anew every night with nothing else on the machine; a point per "
            "run.",
        )
    ]


def _machine(night: Night) -> dict[str, object]:
    return {k: v for k, v in night.environment.items() if k not in ("commit", "code", "parts")}


def _versions(nights: Sequence[Night]) -> list[tuple[str, ...]]:
    """What of versions, driver and device changed, newest first."""
    known = [n for n in nights if n.environment]
    lines: list[tuple[str, ...]] = []
    for a, b in pairwise(known):
        before, after = _machine(a), _machine(b)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                lines.append((b.started[:10], name, str(before.get(name, "-")), str(after.get(name, "-"))))
    return lines[::-1]


def badge(night: Night) -> str:
    """A night's state as an SVG badge."""
    text, colour = f"{night.state} {night.started[:10]}", _BADGE.get(night.state, "#6e7781")
    left, right = 56, 7 * len(text) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="nightly: {quoted(text)}"><title>nightly: {quoted(text)}</title>'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">nightly</text><text x="{left + right / 2}" y="14">{quoted(text)}</text>'
        "</g></svg>\n"
    )
