"""Text from outside (names of folders, files and devices, reasons, commands) on pages, in pictures, in file names;
times and curves as text."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

from cvhw4.errors import printable

BLOCKS = "▁▂▃▄▅▆▇█"
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARKUP = re.compile(
    r"""[\\`*\[\]~$]               # code, emphasis, links, strikethrough, GitHub's mathematics
    | (?<!\w)_+ | _++(?!\w)        # emphasis; not the underscores inside a word
    | :(?=//) | (?<=\bwww)\.       # addresses, which GitHub makes links of
    | ^(?:[-+]|\d+[.)])(?=\ |$) | ^\#(?=[\#\ ]|$)  # lists and headings, where the text begins a line""",
    re.VERBOSE | re.IGNORECASE,
)


def escape(text: object) -> str:
    """Text as a page in Markdown shows it, on one line: nothing in it is markup or HTML.

    Control characters are shown as "\\x1b". What no renderer takes for markup stays as it is ("a_b", "(R)", "@"), and
    so do bars: `Table.markdown` escapes those, of whatever origin.
    """
    shown = printable(str(text)).translate(_ENTITIES)
    shown = _MARKUP.sub(lambda found: "".join(c if c.isdigit() else "\\" + c for c in found[0]), shown)
    return "&#32;" + shown[1:] if shown.startswith(" ") else shown  # spaces that begin a line may be markup


def anchor(heading: str) -> str:
    """What GitHub's pages have a heading's place under."""
    return re.sub(r"[^\w\- ]", "", printable(heading).strip().lower()).replace(" ", "-")


def code(text: object) -> str:
    """Text as code on a page: between as many backticks as it takes."""
    shown = printable(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if not shown.strip("` ") or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def in_picture(text: object) -> str:
    """Text as matplotlib shows it, on one line: no dollar sign begins mathematics."""
    return printable(str(text)).replace("$", "\\$")


def clip(text: str, longest: int = 200) -> str:
    """A text's beginning, where it is too long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def ending(name: str, most: int) -> str:
    """A name's end, likewise."""
    return name if len(name) <= most else "…" + name[1 - most :]


def cut(text: str, width: int, unicode: bool = True) -> str:
    """Text on at most so many columns of a terminal (3 or more), with an ellipsis where some is missing."""
    from rich.cells import cell_len, set_cell_size

    ellipsis = "…" if unicode else "..."
    return text if cell_len(text) <= width else set_cell_size(text, width - len(ellipsis)).rstrip() + ellipsis


def sparkline(values: Sequence[float], columns: int | None = None, blocks: str = BLOCKS) -> str:
    """A bar for each value, or for as many of them, evenly spaced, as there are columns.

    Bars reach from the lowest value to the highest; equal values are in the middle, and what is not a finite number is
    a gap. `blocks` are the bars from the lowest on.
    """
    if columns is not None and len(values) > columns:
        last = len(values) - 1
        values = [values[round(i * last / max(1, columns - 1))] for i in range(columns)]
    real = [v for v in values if math.isfinite(v)]
    low, high = min(real, default=0.0), max(real, default=0.0)
    unit = 1.0 if math.isfinite(high - low) else 0.5  # keeps differences of the largest numbers finite
    span, top = high * unit - low * unit, len(blocks) - 1
    heights = ((v * unit - low * unit) / span * top if span else top / 2 for v in real)
    return "".join(blocks[round(next(heights))] if math.isfinite(v) else " " for v in values)


def clock(seconds: float) -> str:
    """ "45 s", "3:05 min" or "1:05 h"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def wrapped(text: str) -> str:
    """Text on as many lines of a terminal of 80 columns as it takes, those after the first indented; a word that is
    longer than a line stays whole."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def file_stem(text: str) -> str:
    """A plain name of a file or a part of one: "generated scenes" to "generated-scenes", the last 80 characters."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())[-80:]
