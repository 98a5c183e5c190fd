"""Numbers as tables show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.verdicts import Outcome


def spread(e: Estimate) -> str:
    """ "0.8720 ± 0.0110": mean and standard deviation over seeds; a single run has none."""
    return f"{e.mean:.4f}" if e.n == 1 else f"{e.mean:.4f} ± {e.sd:.4f}"


def interval(e: Estimate) -> str:
    """ "[0.8610, 0.8830]": the mean's 95 % interval."""
    return "-" if e.n == 1 else limits(e.low, e.high)


def limits(low: float, high: float, digits: int = 4) -> str:
    """ "[0.8610, 0.8830]"."""
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def gain(e: Estimate) -> str:
    """ "+0.0450 [0.0210, 0.0690]", or the difference alone where one seed has no interval."""
    return f"{e.mean:+.4f}" + ("" if e.n == 1 else f" {interval(e)}")


def difference(o: Outcome, digits: int = 4) -> str:
    """ "+0.0450", or "0.9135" of a claim about a figure itself."""
    return f"{o.difference.mean:{'' if o.claim.worse is None else '+'}.{digits}f}"


def p_value(p: float) -> str:
    """ "0.031", "< 0.001", or "-" where there is none."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, digits: int = 0) -> str:
    """ "12 %", or "-" where there is none."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def seconds(values: Sequence[float]) -> str:
    """ "12.3 ± 0.4 s": mean and standard deviation."""
    e = estimate(values)
    return f"{e.mean:.1f} s" if e.n == 1 else f"{e.mean:.1f} ± {e.sd:.1f} s"


def ends(values: Sequence[object]) -> str:
    """ "3", or "3 to 20" of several values in order."""
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
