"""Tables of texts, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cvhw4.errors import printable
from cvhw4.report.text import clip, cut, escape

if TYPE_CHECKING:
    import rich.table
    from pandas import DataFrame

STYLES = {"worse": "red", "failed": "red", "no longer supported": "red", "better": "green"}
_LEAST = 30  # columns that names in the first column get, if they need them, before others do


@dataclass(frozen=True)
class Table:
    """A table of texts: its columns' names, rows of as many texts, and a title above it on a terminal."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @classmethod
    def of(
        cls,
        lines: Iterable[Mapping[str, str]],
        without: Collection[str] = (),
        optional: Collection[str] = (),
        title: str = "",
    ) -> Table:
        """From its lines, texts by column; "-" is what a line lacks. Columns in `without` are left out, `optional` ones
        where every line has "-" or "none" there."""
        lines = list(lines)
        names = dict.fromkeys(c for line in lines for c in line if c not in without)
        cells = {c: [line.get(c, "-") for line in lines] for c in names}
        kept = {c: texts for c, texts in cells.items() if c not in optional or not {*texts} <= {"-", "none"}}
        return cls(tuple(kept), list(zip(*kept.values(), strict=True)), title)

    def escaped(self) -> Table:
        """For a page, where the texts are from outside: none of them is Markdown, and none is long."""
        return replace(self, rows=[[escape(clip(text)) for text in row] for row in self.rows])

    def markdown(self, most: int | None = None) -> str:
        """For a page: texts are Markdown, but for the bars in them, which are escaped. Empty without columns. Of `most`
        rows, the rest being counted below the table, columns are not aligned, to save room."""
        if not self.columns:
            return ""
        from tabulate import tabulate

        shown = [[str(text).replace("|", "\\|") for text in row] for row in [self.columns, *self.rows[:most]]]
        if most is None:
            return tabulate(shown[1:], headers=shown[0], tablefmt="github", disable_numparse=True)
        lines = [f"| {' | '.join(row)} |" for row in shown]
        lines.insert(1, "|---" * len(self.columns) + "|")
        left = len(self.rows) - most
        return "\n".join(lines) + (f"\n\n... and {left} more, not shown." if left > 0 else "")

    def plain(self, *names: str, width: int = 80) -> list[str]:
        """As lines for a terminal that is so many columns wide; texts of the columns with these names, where it has
        them, may be cut, the widest first, until it fits."""
        if not self.columns:
            return []
        rows = [list(map(printable, row)) for row in [self.columns, *self.rows]]
        widths = {name: max(map(len, texts)) for name, *texts in zip(self.columns, *rows, strict=True)}
        for _ in range(sum(widths.values()) + 2 * (len(widths) - 1) - width):
            widths[max((name for name in names if name in widths), key=lambda name: widths[name] - len(name))] -= 1
        fitted = [[cut(text, w).ljust(w) for text, w in zip(row, widths.values(), strict=True)] for row in rows]
        return ["  ".join(row).rstrip() for row in fitted]

    def rich(self, width: int) -> rich.table.Table:
        """For a rich console that is so many columns wide and takes no markup: a text that is too wide continues on the
        next line."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=printable(self.title) or None,
            title_justify="left",
            title_style="bold italic",
            show_header=any(self.columns),
            box=None,
            padding=(0, 1, 0, 0),
        )
        first = max((len(row[0]) for row in self.rows), default=0)
        wide = sum(1 + max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)) > width
        for i, name in enumerate(self.columns):
            least = min(first, _LEAST) if i == 0 else None
            fixed = least if wide else None  # rich would give room to a column's least after it has shared all of it
            table.add_column(printable(name), overflow="fold", header_style="bold", min_width=least, width=fixed)
        for row in self.rows:
            table.add_row(*(Text(printable(cell), STYLES.get(cell, "")) for cell in row))
        return table


def table(lines: DataFrame | Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown; empty without lines.

    Args:
        lines: lines as texts by column, or a pandas data frame of texts. Texts are Markdown.
    """
    if not isinstance(lines, Sequence):
        lines = [{str(name): text for name, text in line.items()} for line in lines.to_dict("records")]
    return Table.of(lines).markdown()


def section(title: str, about: str, lines: Table | Sequence[Mapping[str, str]], *more: str) -> list[str]:
    """A section of a page: what it is about, its table, and what is said below; empty without lines."""
    made = lines if isinstance(lines, Table) else Table.of(lines)
    return [f"## {title}", about, made.markdown(), *more] if made.rows else []
