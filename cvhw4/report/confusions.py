"""Confusion matrices of classification: which class is predicted as which."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import printable
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import Picture, draw, grid_of_panels, lowest
from cvhw4.report.runs import Groups, seeds
from cvhw4.report.text import clip, escape, in_picture
from cvhw4.statistics.verdicts import ReadImages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_ACROSS = 5  # confusion matrices beside each other
_NUMBERED, _NAMED = 8, 12  # classes up to which cells have numbers, and axes names


def confusions(stem: str, data: str, groups: Groups, read: ReadImages) -> Picture | None:
    """A matrix per row after the last epoch: of the images of each class, the share predicted as each; None where no
    run has results by image. `data` is how the data set is called."""
    matrices: dict[str, NDArray[np.float64]] = {}
    for row, runs in groups.items():
        found = [confusion(r, images) for r in runs if (images := read(r)) is not None and images.labels is not None]
        if found:
            matrices[row] = np.stack(found)
    if not matrices:
        return None
    first = next(runs[0] for runs in groups.values() if runs)
    names = first.data.classes
    few = len(names) < 4

    def paint(figure: Figure) -> None:
        panels = grid_of_panels(figure, len(matrices), _ACROSS)
        for axes, (row, of_row) in zip(panels.flat, matrices.items(), strict=False):
            _matrix(axes, f"{row} (n = {len(of_row)})", of_row)
        if len(names) <= _NAMED:
            short = [wrapped_name(name, 9) if few else in_picture(clip(name, 16)) for name in names]
            for axes in panels[:, 0]:
                axes.set_yticks(range(len(names)), short, rotation=90 if few else 0, va="center")
            for axes in lowest(panels, len(matrices)):
                axes.set_xticks(range(len(names)), short, rotation=0 if few else 90)
        figure.supylabel("class", fontsize=8.5)
        figure.supxlabel("predicted", fontsize=8.5)

    spread = " ± standard deviation" if any(len(of_row) > 1 for of_row in matrices.values()) else ""
    words = ". ".join(
        f"{row}: " + "; ".join(f"{printable(n)} {100 * m[c, c]:.0f} %" for c, n in enumerate(names[:_NAMED]))
        for row, m in ((row, of_row.mean(0)) for row, of_row in matrices.items())
    )
    across = min(_ACROSS, len(matrices))
    return draw(
        stem,
        (1.55 * across + 1.0, 1.75 * -(-len(matrices) // across) + 0.3),
        paint,
        f"Confusion matrices on {printable(data)}, one per row. Of each class's images rightly classified: {words}.",
        f"Of the {first.data.val} validation images of {escape(data)}, by class, the share in % that is predicted as "
        f"each class after the last epoch: mean over seeds{spread}, {seeds(matrices)}.",
    )


def confusion(record: RunRecord, images: ImageResults) -> NDArray[np.float64]:
    """float64 [C, C] of a run's last epoch: of the images of each class (rows), the share predicted as each; NaN for a
    class without images."""
    assert images.labels is not None and images.predicted is not None
    n, labels = len(record.data.classes), images.labels.astype(np.int64)
    counts = np.bincount(labels * n + images.predicted[-1], minlength=n * n).reshape(n, n).astype(np.float64)
    total = counts.sum(1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _matrix(axes: Axes, title: str, of_row: NDArray[np.float64]) -> None:
    """Draws the mean of matrices [n, C, C], and in its cells mean and standard deviation in %."""
    mean = of_row.mean(0)
    axes.imshow(mean, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    axes.set_title(in_picture(title), fontsize=8)
    axes.tick_params(length=0, labelsize=7.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if len(mean) > _NUMBERED:
        return
    spread = of_row.std(0, ddof=1) if len(of_row) > 1 else np.full_like(mean, np.nan)
    size = 9 if len(mean) < 4 else 5.5
    for (y, x), share in np.ndenumerate(mean):
        if not math.isnan(share):
            deviation = "" if math.isnan(spread[y, x]) else f"\n± {100 * spread[y, x]:.1f}"
            text = f"{100 * share:.1f}{deviation}"
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink_on_blues(share))


def ink_on_blues(share: float) -> str:
    """The colour of text on matplotlib's "Blues", 0 to 1: a contrast of 4.5 or more, as WCAG asks of small text."""
    return "#ffffff" if share > 0.715 else "#010101"  # black itself would turn with the page's text


def wrapped_name(name: str, width: int) -> str:
    """A name for a picture on lines about that wide, broken behind "_", "-" and spaces."""
    lines = [""]
    for part in re.findall(r"[^-_ ]*[-_ ]?", clip(name, 2 * width)):
        if lines[-1] and len(lines[-1] + part.rstrip("-_ ")) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(in_picture(line) for line in lines)
