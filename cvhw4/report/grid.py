"""Tables of texts: columns for a terminal, GitHub's tables for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvhw4.errors import printable
from cvhw4.report.text import escape

if TYPE_CHECKING:
    from rich.table import Table

LONGEST = 200  # characters of a cell on a page
STYLES = {"worse": "red", "failed": "red", "no longer supported": "red", "better": "green"}
_LEAST = 30  # columns that names in the first column get, if they need them, before others do


@dataclass(frozen=True)
class Grid:
    """A table of plain texts, whatever is in them.

    Attributes:
        columns: their names.
        rows: as many texts each.
        title: above the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def rich(self) -> Table:
        """For a console that takes no markup: a cell that is too wide goes on in the next line."""
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=printable(self.title) or None,
            title_justify="left",
            title_style="bold italic",
            show_header=any(self.columns),
            box=None,
            padding=(0, 1, 0, 0),
        )
        first = max((len(row[0]) for row in self.rows), default=0)
        for i, name in enumerate(self.columns):
            least = min(first, _LEAST) if i == 0 else None
            table.add_column(printable(name), overflow="fold", header_style="bold", min_width=least)
        for row in self.rows:
            table.add_row(*(Text(printable(cell), STYLES.get(cell, "")) for cell in row))
        return table

    def markdown(self, most: int | None = None) -> str:
        """For a page; cells are clipped.

        Args:
            most: rows that are shown; the rest is counted below the table.
        """
        shown = self.rows[:most]
        lines = [self.columns, ["---"] * len(self.columns), *([_cell(text) for text in row] for row in shown)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        left = len(self.rows) - len(shown)
        return table + (f"\n\n... and {left} more, left out for want of room." if left else "")


def clip(text: str, longest: int = LONGEST) -> str:
    """A text's beginning, where it is too long."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _cell(text: str) -> str:
    return escape(clip(text)).replace("|", "\\|")
