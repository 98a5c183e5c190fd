"""Text from outside (names of folders, files and devices, reasons, commands) on pages, in pictures, in file names."""

from __future__ import annotations

import re
import textwrap

from cvhw4.errors import printable

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
    so do bars: `tables.markdown` escapes those, of whatever origin.
    """
    shown = printable(str(text)).translate(_ENTITIES)
    shown = _MARKUP.sub(lambda found: "".join(c if c.isdigit() else "\\" + c for c in found[0]), shown)
    return "&#32;" + shown[1:] if shown.startswith(" ") else shown  # spaces that begin a line may be markup


def code(text: object) -> str:
    """Text as code on a page: between as many backticks as it takes."""
    shown = printable(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if not shown.strip("` ") or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def in_picture(text: object) -> str:
    """Text as matplotlib shows it, on one line: no dollar sign begins mathematics."""
    return printable(str(text)).replace("$", "\\$")


def cut(text: str, width: int) -> str:
    """Text on at most so many columns of a terminal, with an ellipsis where some is missing."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def wrapped(text: str) -> str:
    """Text on as many lines of a terminal of 80 columns as it takes, those after the first indented; a word that is
    longer than a line stays whole."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def file_stem(text: str) -> str:
    """A plain name of a file or a part of one: "embedded scenes" to "embedded-scenes", the last 80 characters."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())[-80:]
