"""Drawing that gives the same bytes on every machine.

Only integers and float64 `+ - * /`, square roots and comparisons are used: IEEE 754 fixes their last bit, while sin,
exp and BLAS may differ between processors. Random numbers come from NumPy's RandomState, whose streams NumPy has
frozen. Coordinates are in picture pixels, x to the right, y down; the canvas is painted `scale` times finer and
averaged down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
# A shape: its bounding box (left, top, right, bottom) and the cover (0..1 or bool) at given x and y.
Shape = tuple[tuple[float, float, float, float], Callable[[Floats, Floats], NDArray]]


class Random:
    """Draws for drawing: uniform numbers, integers, choices, and bell-shaped numbers without a logarithm."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._state.random_sample())

    def uniforms(self, *shape: int) -> Floats:
        """float64 of the given shape, each in [0, 1)."""
        return np.asarray(self._state.random_sample(shape))

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self._state.randint(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def choose(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, with probabilities in proportion to the weights."""
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        total = 0.0
        for weight in weights:  # not sum(): from Python 3.12 it adds floats in another way
            total += weight
        draw = self.uniform(0.0, total)
        for option, weight in zip(options, weights, strict=True):
            draw -= weight
            if draw < 0:
                return option
        return options[-1]

    def bell(self, mean: float = 0.0, spread: float = 1.0) -> float:
        """About normal: the sum of twelve uniform numbers, mean and standard deviation as given."""
        total = 0.0
        for _ in range(12):
            total += self.uniform()
        return mean + spread * (total - 6.0)


def ellipse(
    x: float, y: float, width: float, height: float, tilt: float = 0.0, soft: float = 0.0, power: int = 2
) -> Shape:
    """An ellipse of the given half width and half height around (x, y).

    Args:
        tilt: tangent of half the angle of rotation, clockwise on the screen (cosine and sine follow rationally).
        soft: 0 is a hard edge; otherwise the cover falls from 1 to 0 over that share of the radius.
        power: 2 is an ellipse, 4 a rounded box.
    """
    cosine, sine = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
    reach_x = width if tilt == 0 else max(width, height) * 1.42
    reach_y = height if tilt == 0 else max(width, height) * 1.42

    def cover(px: Floats, py: Floats) -> NDArray:
        u = ((px - x) * cosine + (py - y) * sine) / width
        v = ((py - y) * cosine - (px - x) * sine) / height
        distance = u * u + v * v if power == 2 else u * u * u * u + v * v * v * v
        if soft == 0:
            return distance <= 1.0
        return np.clip((1.0 - distance) / soft, 0.0, 1.0)

    return (x - reach_x, y - reach_y, x + reach_x, y + reach_y), cover


def polygon(points: Sequence[tuple[float, float]]) -> Shape:
    """A closed polygon (even-odd rule)."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]

    def cover(px: Floats, py: Floats) -> NDArray:
        inside = np.zeros(np.broadcast_shapes(px.shape, py.shape), dtype=bool)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            if y0 == y1:
                continue
            crosses = (py < y0) != (py < y1)
            inside ^= crosses & (px < x0 + (py - y0) * ((x1 - x0) / (y1 - y0)))
        return inside

    return (min(xs), min(ys), max(xs), max(ys)), cover


def rectangle(left: float, top: float, right: float, bottom: float) -> Shape:
    """An upright rectangle."""
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def stroke(x0: float, y0: float, x1: float, y1: float, width: float) -> Shape:
    """A line of the given width with round ends."""
    dx, dy, half = x1 - x0, y1 - y0, width / 2
    length = max(dx * dx + dy * dy, 1e-12)

    def cover(px: Floats, py: Floats) -> NDArray:
        along = np.clip(((px - x0) * dx + (py - y0) * dy) / length, 0.0, 1.0)
        ox, oy = px - x0 - along * dx, py - y0 - along * dy
        return ox * ox + oy * oy <= half * half

    return (min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half), cover


def value_noise(random: Random, height: int, width: int, cell: float) -> Floats:
    """Smooth random field in [0, 1], shape [height, width]; `cell` is the size of its lumps in pixels."""
    lattice = random.uniforms(int(height / cell) + 2, int(width / cell) + 2)
    y, x = np.arange(height) / cell, np.arange(width) / cell
    row, column = y.astype(np.int64), x.astype(np.int64)
    fy, fx = (y - row)[:, None], (x - column)[None, :]
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    top = lattice[row][:, column] * (1 - fx) + lattice[row][:, column + 1] * fx
    bottom = lattice[row + 1][:, column] * (1 - fx) + lattice[row + 1][:, column + 1] * fx
    return top * (1 - fy) + bottom * fy


class Canvas:
    """An RGB picture, with a class number under every pixel.

    Attributes:
        pixels: float64 [height * scale, width * scale, 3], 0..255.
        labels: uint8 [height * scale, width * scale].
    """

    def __init__(self, height: int, width: int, scale: int = 2) -> None:
        self.height, self.width, self.scale = height, width, scale
        self.pixels = np.zeros((height * scale, width * scale, 3))
        self.labels = np.zeros((height * scale, width * scale), dtype=np.uint8)

    def paint(
        self,
        shape: Shape,
        colour: Colour | Floats,
        *,
        alpha: float = 1.0,
        label: int | None = None,
        shade: Floats | None = None,
    ) -> None:
        """Lays a colour over the picture where the shape covers it.

        Args:
            colour: RGB 0..255, or a float array [height * scale, width * scale, 3] to take it from.
            alpha: 1 hides what was there.
            label: class number that the covered pixels get; None leaves theirs.
            shade: float [height * scale, width * scale]; the colour is multiplied with it.
        """
        (left, top, right, bottom), cover = shape
        s = self.scale
        x0, x1 = max(0, int(left * s) - 1), min(self.width * s, int(right * s) + 2)
        y0, y1 = max(0, int(top * s) - 1), min(self.height * s, int(bottom * s) + 2)
        if x0 >= x1 or y0 >= y1:
            return
        px = (np.arange(x0, x1)[None, :] + 0.5) / s
        py = (np.arange(y0, y1)[:, None] + 0.5) / s
        covered = np.broadcast_to(cover(px, py), (y1 - y0, x1 - x0))
        window = (slice(y0, y1), slice(x0, x1))
        source = np.asarray(colour, dtype=np.float64)
        source = source[window] if source.ndim == 3 else np.broadcast_to(source, (*covered.shape, 3))
        if shade is not None:
            source = np.clip(source * shade[window][..., None], 0.0, 255.0)
        weight = (covered * alpha)[..., None]
        self.pixels[window] += (source - self.pixels[window]) * weight
        if label is not None:
            self.labels[window][covered > 0.5] = label

    def picture(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]: each pixel the rounded mean of its scale x scale block."""
        s = self.scale
        whole = np.clip(self.pixels, 0.0, 255.0).astype(np.int64)
        blocks = whole.reshape(self.height, s, self.width, s, 3)
        return ((blocks.sum(axis=(1, 3)) + s * s // 2) // (s * s)).astype(np.uint8)

    def label_map(self) -> NDArray[np.uint8]:
        """uint8 [height, width]: the class number at the middle of each pixel."""
        s = self.scale
        return np.ascontiguousarray(self.labels[s // 2 :: s, s // 2 :: s])
