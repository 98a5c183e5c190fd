"""Effects of several factors that were switched on and off in all combinations (2^k full factorial design).

Each effect is a contrast of a seed's runs, so what a seed does to all its runs cancels, and its error comes from the
spread of that contrast over seeds alone. See Box, Hunter and Hunter (2005), chapter 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np

from cvhw4.statistics.intervals import Estimate, estimate


def effects(figures: Mapping[tuple[bool, ...], Sequence[float]], names: tuple[str, ...]) -> dict[str, Estimate]:
    """Main effects and interactions, per seed and then over seeds, with 95 % t intervals.

    A main effect is the mean, over all settings of the other factors, of the figure with the factor less that without.
    A two-way interaction is half the difference between the effect of one factor with and without the other; a
    three-way one half the difference between two-way ones, and so on. All are the sum over cells of the figure times
    the factors' signs (+1 on, -1 off), over half the number of cells: twice the coefficient of a regression on signs.

    Args:
        figures: by cell, which factors are on in the order of `names`: the figures of n runs with the same seeds in the
            same order in every cell.
        names: the k factors.

    Returns:
        By name, main effects first: "network", "optimizer", "network x optimizer".

    Raises:
        ValueError: no factors or two of one name, a cell that is missing or too many, cells with different numbers of
            runs, or without any.
    """
    k = len(names)
    if k == 0 or len(set(names)) < k:
        raise ValueError(f"needs factors with different names, not {names}")
    cells = list(product((False, True), repeat=k))
    if set(figures) != set(cells):
        odd = sorted(set(figures) ^ set(cells))
        raise ValueError(f"a full factorial of {k} factors has {2**k} cells; missing or too many: {odd}")
    if len({len(figures[cell]) for cell in cells}) > 1:
        raise ValueError("the cells have different numbers of runs: " + str([len(figures[cell]) for cell in cells]))
    values = np.array([figures[cell] for cell in cells], dtype=float)  # [cells, n]
    signs = np.where(cells, 1, -1)  # [cells, k]
    found = {}
    for order in range(1, k + 1):
        for factors in combinations(range(k), order):
            contrast = signs[:, factors].prod(1) @ values / 2 ** (k - 1)
            found[" x ".join(names[f] for f in factors)] = estimate(contrast.tolist())
    return found
