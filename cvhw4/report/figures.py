"""Pictures of a report: one style, drawn by matplotlib as SVG that reads on light and on dark pages.

A picture goes into a page as an image, by its file or as a data address, so it carries its own colours: text and axes
are dark on a light page and light on a dark one, by the reader's own setting (`prefers-color-scheme`).
"""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import InputError
from cvhw4.files import write_atomically
from cvhw4.report.text import escape, in_picture
from cvhw4.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), distinguishable with every common kind of colour blindness; ordered so that neighbours differ in
# lightness too. Black is left out: it would vanish on a dark page.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")

INK = "#010203"  # stands for the page's text colour in what matplotlib writes
FOLDER = "figures"  # beside the pages
MOST_SIDE = 160  # pixels of a photograph or class map on a page
_QUALITY = 85  # of photographs, as JPEG
_IMAGE = re.compile(r"<image[^>]*>")
_PNG = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=]+)")
_PIXELATED = "image-rendering:crisp-edges;image-rendering:pixelated"
_OF_PAPERS: dict[str, dict[str, Any]] = {  # without what differs from one time to the next
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
}
_BEGINNING = '<svg class="ink"'  # of a page's pictures
_INKS = "<style>.ink{color:#1f2328}@media(prefers-color-scheme:dark){.ink{color:#e6edf3}}</style>"


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        stem: plain file name without suffix, unique on the page ("curves-classification-generated-portraits").
        svg: the file's text; the same records always give the same.
        alt: what it shows, in words, for those who do not see it.
        caption: what to read from it, units and n: markdown (names from outside escaped).
        drawn: draws it anew, within `style`, for `save`, so many inches wide where a width is given.
    """

    stem: str
    svg: str
    alt: str
    caption: str
    drawn: Callable[..., Figure] | None = field(default=None, compare=False, repr=False)

    @property
    def markdown(self) -> str:
        """The picture on a page beside the folder `figures`, its caption below it."""
        return f"![{escape(self.alt)}]({FOLDER}/{self.stem}.svg)\\\n{self.caption}"

    def _repr_svg_(self) -> str:  # in a notebook
        return self.svg

    def at(self, width: float) -> Picture:
        """The same picture so many inches wide, its letters as large as before."""
        if self.drawn is None:
            return self
        drawn = partial(self.drawn, width)
        with style():
            return replace(self, svg=_to_svg(drawn()), drawn=drawn)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it for a paper, black on nothing: as PDF with its fonts embedded, SVG with texts as outlines, or PNG
        with 300 dots an inch, by the path's ending. The same figures always give the same file.

        Raises:
            InputError: another ending, a picture that `draw` did not make, or the file cannot be written.
        """
        kind = Path(path).suffix.removeprefix(".")
        if self.drawn is None:
            raise InputError(path, "is of a picture that was not made with draw", "make it with cvhw4.draw")
        if kind not in _OF_PAPERS:
            raise InputError(path, "is of a kind that no picture is saved as", f"end it in {', '.join(_OF_PAPERS)}")
        buffer = io.BytesIO()
        with style({"svg.fonttype": "path", "pdf.fonttype": 42}):
            self.drawn().savefig(buffer, format=kind, dpi=300, metadata=_OF_PAPERS[kind])
        write_atomically(Path(path), buffer.getvalue())


def write_pictures(folder: Path, pictures: Iterable[Picture], kinds: Iterable[str]) -> None:
    """Writes `<folder>/figures/<stem>.svg`, and removes what earlier pages left there of these kinds, with which the
    stems of a page's pictures begin; raises InputError as `write_atomically`."""
    ours = re.compile(rf"({'|'.join(kinds)})-[a-z0-9-]+\.svg")
    files = {f"{p.stem}.svg": p.svg for p in pictures}
    for name, svg in files.items():
        write_atomically(folder / FOLDER / name, svg)
    for path in (folder / FOLDER).glob("*.svg"):
        if path.name not in files and ours.fullmatch(path.name):
            with suppress(OSError):
                if path.read_bytes().startswith(_BEGINNING.encode()):  # no picture that was saved for a paper
                    path.unlink()


@contextmanager
def style(changes: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
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
    with matplotlib.rc_context(settings | dict(changes)):
        yield


def draw(
    stem: str,
    size: tuple[float, float],
    paint: Callable[[Figure], object],
    alt: str,
    caption: str,
    layout: Literal["constrained"] | None = "constrained",
) -> Picture:
    """A picture in the project's style.

    Args:
        stem: plain name, unique among the pictures of a section.
        size: width and height in inches.
        paint: draws on an empty matplotlib figure; `matplotlib.rcParams["text.color"]` is the page's text colour. For a
            paper the figure may have another width (`figure.get_figwidth()`), for which `paint` may set its height.
        alt: what it shows, in words.
        caption: what to read from it: Markdown.
        layout: matplotlib's, which sees to the margins; None where `paint` does.
    """
    from matplotlib.figure import Figure

    def drawn(width: float = size[0]) -> Figure:
        figure = Figure(figsize=(width, size[1]), layout=layout)
        paint(figure)
        return figure

    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")  # the browser has other fonts
        return Picture(stem, _to_svg(drawn()), alt, caption, drawn)


def grid_of_panels(figure: Figure, panels: int, across: int, sharex: bool = True) -> NDArray[Any]:
    """Axes [lines, columns] of so many panels with common scales, those that are not needed hidden; the lowest of every
    column has its numbers."""
    columns = min(across, panels)
    grid: NDArray[Any] = figure.subplots(-(-panels // columns), columns, sharex=sharex, sharey=True, squeeze=False)
    for axes in grid.flat[panels:]:
        axes.set_visible(False)
    for axes in lowest(grid, panels):
        axes.tick_params(labelbottom=True)
    return grid


def lowest(grid: NDArray[Any], panels: int) -> list[Axes]:
    """The lowest panel of every column of `grid_of_panels`."""
    columns = grid.shape[1]
    return [grid[(panels - 1 - column) // columns, column] for column in range(columns)]


def frame(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    """Fills a panel with uint8 [H, W, 3], RGB; no ticks, a thin frame."""
    axes.imshow(pixels, interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=INK, linewidth=0.5)


def dots(axes: Axes, found: Mapping[str, Estimate], scale: float = 1, size: float = 7) -> None:
    """A line for each estimate, by its name: the mean, and its 95 % interval where it is of several runs."""
    for y, e in enumerate(found.values()):
        if e.n > 1:
            axes.plot([scale * e.low, scale * e.high], [y, y], color=COLOURS[0], linewidth=3.4)
        axes.plot(scale * e.mean, y, "o", color=COLOURS[0], markersize=size, markeredgecolor="none")
    axes.set_yticks(range(len(found)), [in_picture(name) for name in found], fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    by_line(axes)


def by_line(axes: Axes) -> None:
    """A panel whose lines have names instead of numbers."""
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)


def shrink_map(numbers: NDArray[np.uint8], side: int = MOST_SIDE) -> NDArray[np.uint8]:
    """A class map [H, W] with at most so many rows and columns: the number nearest to the middle of each."""
    rows, columns = (
        np.arange(n) if n <= side else ((np.arange(side) + 0.5) * n / side).astype(np.int64) for n in numbers.shape
    )
    return numbers[rows[:, None], columns]


def _to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, its rasters stored as PNG with a palette where that has room for their
    colours, else as JPEG; to be called within `style`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer, canvas = io.StringIO(), FigureCanvasSVG(figure)  # whose measures of texts a layout goes by
    layout = figure.get_layout_engine()
    if layout:  # it sees to the margins; done here, print_figure need not draw twice for it
        layout.execute(figure)
        figure.set_layout_engine(None)
    tight: Literal["tight"] | None = None if layout else "tight"
    canvas.print_figure(buffer, format="svg", bbox_inches=tight, metadata=_OF_PAPERS["svg"])
    drawn = buffer.getvalue()
    start = drawn.index("<svg")
    end = drawn.index(">", start)
    root = drawn[start:end].replace("<svg", _BEGINNING, 1)
    whole = root + ">" + _INKS + drawn[end + 1 :].replace(INK, "currentColor")
    return _IMAGE.sub(lambda found: _smaller(found[0]), whole)


def _smaller(element: str) -> str:
    """An image element whose raster is stored small."""
    from PIL import Image

    (png,) = _PNG.findall(element)
    image, buffer = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    if image.getcolors(256) is not None:
        kind = "png"
        image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        kind, element = "jpeg", element.replace(_PIXELATED, "image-rendering:auto")
        image.save(buffer, "JPEG", quality=_QUALITY)
    content = base64.b64encode(buffer.getvalue()).decode()
    return _PNG.sub(f"data:image/{kind};base64,{content}", element)
