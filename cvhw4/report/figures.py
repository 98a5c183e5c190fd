"""Pictures of a report: one style, drawn by matplotlib as SVG that reads on light and on dark pages.

A picture goes into a page as an image, by its file or as a data address, so it carries its own colours: text and axes
are dark on a light page and light on a dark one, by the reader's own setting (`prefers-color-scheme`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvhw4.records.store import write_atomically
from cvhw4.report.text import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart with every common kind of colour blindness; ordered so that neighbours differ in
# lightness too. Black is left out: it would vanish on a dark page.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")

INK = "#010203"  # stands for the page's text colour in what matplotlib writes
FOLDER = "figures"  # beside the pages
_INKS = "<style>.ink{color:#1f2328}@media(prefers-color-scheme:dark){.ink{color:#e6edf3}}</style>"


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        stem: plain file name without suffix, unique on the page ("curves-q1-embedded-portraits").
        svg: the file's text; the same records always give the same.
        alt: what it shows, in words, for those who do not see it.
        caption: what to read from it, units and n: markdown (names from outside escaped).
    """

    stem: str
    svg: str
    alt: str
    caption: str

    @property
    def markdown(self) -> str:
        """The picture on a page beside the folder `figures`, its caption below it."""
        return f"![{escape(self.alt)}]({FOLDER}/{self.stem}.svg)\\\n{self.caption}"


def write_pictures(folder: Path, pictures: Iterable[Picture], kinds: Iterable[str]) -> None:
    """Writes `<folder>/figures/<stem>.svg`, and removes what earlier pages left there.

    Args:
        kinds: what the stems of a page's pictures may begin with; a file of another kind is not the page's.

    Raises:
        InputError: the folder cannot be written to.
    """
    ours = re.compile(rf"({'|'.join(kinds)})-[a-z0-9-]+\.svg")
    files = {f"{p.stem}.svg": p.svg for p in pictures}
    for name, svg in files.items():
        write_atomically(folder / FOLDER / name, svg)
    for path in (folder / FOLDER).glob("*.svg"):
        if path.name not in files and ours.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures are made (`matplotlib.figure.Figure`, never pyplot) and saved in the project's style."""
    import matplotlib
    from matplotlib.rcsetup import cycler

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "cvhw4",
        "font.family": "sans-serif",
        "font.size": 9.0,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.titlecolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with matplotlib.rc_context(settings):
        yield


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file; to be called within `style`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer, canvas = io.StringIO(), FigureCanvasSVG(figure)  # whose measures of texts a layout goes by
    layout = figure.get_layout_engine()
    if layout:  # it sees to the margins; done here, print_figure need not draw twice for it
        layout.execute(figure)
        figure.set_layout_engine(None)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas.print_figure(buffer, format="svg", bbox_inches=None if layout else "tight", metadata=nothing)
    drawn = buffer.getvalue()
    start = drawn.index("<svg")
    end = drawn.index(">", start)
    root = drawn[start:end].replace("<svg", '<svg class="ink"', 1)
    return root + ">" + _INKS + drawn[end + 1 :].replace(INK, "currentColor")
