"""Photographs, heat maps and class maps inside an SVG: drawn by matplotlib, stored small."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvhw4.report.figures import INK, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SIDE = 160  # pixels of a photograph or class map on a page
QUALITY = 85  # of photographs, as JPEG
_IMAGE = re.compile(r"<image[^>]*>")
_PNG = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=]+)")
_PIXELATED = "image-rendering:crisp-edges;image-rendering:pixelated"


def show(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    """Fills a panel with uint8 [H, W, 3], RGB; no ticks, a thin frame."""
    axes.imshow(pixels, interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=INK, linewidth=0.5)


def shrink_map(numbers: NDArray[np.uint8], side: int = MOST_SIDE) -> NDArray[np.uint8]:
    """A class map [H, W] with at most so many rows and columns: the number nearest to the middle of each."""
    rows, columns = (
        np.arange(n) if n <= side else ((np.arange(side) + 0.5) * n / side).astype(np.int64) for n in numbers.shape
    )
    return numbers[rows[:, None], columns]


def to_small_svg(figure: Figure) -> str:
    """As `to_svg`, its rasters stored as PNG with a palette where that has room for their colours, else as JPEG."""
    return _IMAGE.sub(lambda found: _smaller(found[0]), to_svg(figure))


def _smaller(element: str) -> str:
    from PIL import Image

    (png,) = _PNG.findall(element)
    image, buffer = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    if image.getcolors(256) is not None:
        kind = "png"
        image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        kind, element = "jpeg", element.replace(_PIXELATED, "image-rendering:auto")
        image.save(buffer, "JPEG", quality=QUALITY)
    content = base64.b64encode(buffer.getvalue()).decode()
    return _PNG.sub(f"data:image/{kind};base64,{content}", element)
