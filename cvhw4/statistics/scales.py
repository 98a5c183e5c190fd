"""Scales on which figures of runs spread about evenly, so that a normal interval of them ends where the figure does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvhw4.tasks import ScaleName

_LEAST = 1e-9  # losses below it are taken as it


@dataclass(frozen=True)
class Scale:
    """A scale.

    Attributes:
        to: figures on the scale, elementwise.
        of: the figures again; what lies beyond the scale's ends is taken as these.
        most: width of an interval on it from which on the interval says nothing.
    """

    to: Callable[[Any], Any]
    of: Callable[[Any], Any]
    most: float

    def step(self, value: float, resolution: float) -> float:
        """How long a step of the figure is on the scale about a value."""
        return float(self.to(value + resolution / 2) - self.to(value - resolution / 2))


SCALES: dict[ScaleName, Scale] = {
    "plain": Scale(lambda x: x, lambda y: y, math.inf),
    # A share of images has a spread of 1 / (2 sqrt(images)) here wherever it lies (Anscombe 1948).
    "share": Scale(
        lambda x: np.arcsin(np.sqrt(np.clip(x, 0, 1))), lambda y: np.sin(np.clip(y, 0, math.pi / 2)) ** 2, math.pi / 6
    ),
    "log": Scale(lambda x: np.log(np.maximum(x, _LEAST)), np.exp, math.log(10)),
}
