"""A night's state as a badge. Needs Python alone: also where no package is installed somebody has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_COLOURS: Mapping[str, str] = {"first": "#2da44e", "fine": "#2da44e", "failed": "#bf8700", "regression": "#cf222e"}


def badge(state: str, started: str) -> str:
    """An SVG badge of the state of a night that began then, ISO 8601."""
    text, colour = escape(f"{state} {started[:10]}"), _COLOURS.get(state, "#6e7781")
    left, right = 56, 7 * len(text) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="nightly: {text}"><title>nightly: {text}</title>'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">nightly</text><text x="{left + right / 2}" y="14">{text}</text>'
        "</g></svg>\n"
    )
