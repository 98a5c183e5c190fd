"""Whether two sets of runs answer alike: in the sign of a difference, and in the order of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from cvhw4.statistics.intervals import Estimate

Agreement = Literal["agree", "differ", "open, means agree", "open, means differ"]


def sides(a: Estimate, b: Estimate, margin: float = 0.0) -> Agreement:
    """Whether two differences lie on the same side of a margin.

    Only where the 95 % intervals of both leave the margin out is that decided ("agree" or "differ"); where one of them
    holds it, as that of a single run does, it is open, and the means alone are compared. A mean that is the margin lies
    on neither side, and agrees with none.
    """
    same = (a.mean - margin) * (b.mean - margin) > 0
    if all(e.low > margin or e.high < margin for e in (a, b)):
        return "agree" if same else "differ"
    return "open, means agree" if same else "open, means differ"


@dataclass(frozen=True)
class Order:
    """How alike two orders of the same rows are.

    Attributes:
        rows: how many rows both have.
        tau: Kendall's tau-b of their means, 1 for the same order and -1 for the reverse; NaN where all means of one
            side are equal.
        swapped: pairs of rows, (higher in the first, higher in the second), whose order differs and whose 95 %
            intervals do not overlap in either.
        open: how many further pairs are in another order, with intervals that overlap in one of them.
    """

    rows: int
    tau: float
    swapped: tuple[tuple[str, str], ...]
    open: int


def order(a: Mapping[str, Estimate], b: Mapping[str, Estimate]) -> Order | None:
    """The order of the rows that both have; None of fewer than two. tau-b is scipy's."""
    from scipy.stats import kendalltau

    rows = [row for row in a if row in b]
    if len(rows) < 2:
        return None
    tau = float(kendalltau([a[row].mean for row in rows], [b[row].mean for row in rows]).statistic)
    swapped, open_ = [], 0
    for one, other in combinations(rows, 2):
        first, second = a[one].mean - a[other].mean, b[one].mean - b[other].mean
        if not (first > 0 > second or first < 0 < second):  # a product of small ones would be 0
            continue
        if _apart(a[one], a[other]) and _apart(b[one], b[other]):
            swapped.append((one, other) if first > 0 else (other, one))
        else:
            open_ += 1
    return Order(len(rows), tau, tuple(swapped), open_)


def _apart(a: Estimate, b: Estimate) -> bool:
    return a.low > b.high or a.high < b.low
