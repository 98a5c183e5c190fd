"""Numbers as tables show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import get_args

from cvhw4.report.text import escape
from cvhw4.statistics.intervals import OTHER_PICTURES, Estimate, Verdict, estimate
from cvhw4.statistics.verdicts import Outcome
from cvhw4.study import Claim

ENOUGH = 10  # seeds from which on differences show a shape


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """ "0.872", or with the sign "+" "+0.045"; what lies between two of these goes away from 0, however a sum of floats
    came out, so that a figure is the same wherever it is shown."""
    if not math.isfinite(value):
        return f"{value:{sign}f}"
    if abs(value) >= 1e15:  # beyond what a float knows of its third decimal, and Decimal of its digits
        return f"{value:{sign}.{digits}e}"
    rounded = Decimal(repr(round(float(value), 12))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded or abs(rounded):{sign}f}"


def spread(e: Estimate) -> str:
    """ "0.872 ± 0.011": mean and standard deviation over seeds; a single run has none."""
    return number(e.mean) if e.n == 1 else f"{number(e.mean)} ± {number(e.sd)}"


def interval(e: Estimate, digits: int = 3, share: bool = False) -> str:
    """ "[0.861, 0.883]": the mean's 95 % interval; of a figure that is a share as far as it lies between 0 and 1."""
    low, high = (max(e.low, 0.0), min(e.high, 1.0)) if share else (e.low, e.high)
    return "-" if e.n == 1 else limits(low, high, digits)


def interval_of(o: Outcome, e: Estimate | None = None) -> str:
    """The same of a claim's difference, or of another estimate of that."""
    return interval(e or o.difference, share=o.share and o.claim.worse is None)


def limits(low: float, high: float, digits: int = 3) -> str:
    """ "[0.861, 0.883]"."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def gain(e: Estimate, share: bool = False) -> str:
    """ "+0.045 [0.021, 0.069]", or the difference alone where one seed has no interval. `share` as of `interval`."""
    return number(e.mean, sign="+") + ("" if e.n == 1 else f" {interval(e, share=share)}")


def signed(value: float, claim: Claim) -> str:
    """ "+0.045" of a difference, "0.914" of a claim about a figure itself."""
    return number(value, sign="" if claim.worse is None else "+")


def difference(o: Outcome) -> str:
    """The mean of a claim's difference, likewise."""
    return signed(o.difference.mean, o.claim)


def verdict(o: Outcome) -> str:
    """ "**supported**", and in brackets which rows never trained, and where another rule for the epoch, or leaving out
    the trainings that failed or learned far less than others, would say something else."""
    others = [(f"{other.epoch} epoch", other) for other in (o.other_epoch,) if other is not None]
    others += [("without trainings that failed or learned far less", o.trained)] if o.trained is not None else []
    differing = [f"{what}: {other.verdict}" for what, other in others if other.verdict != o.verdict]
    told = [f"every training of {row} failed" for row in o.never_trained] + differing
    return f"**{o.verdict}**" + (f" ({', '.join(told)})" if told else "")


def seeds_of(o: Outcome) -> str:
    """ "3", or "3 + 17" where the spread of so many calibrated seeds counts as well."""
    return f"{o.difference.n} + {o.calibrated}" if o.calibrated else str(o.difference.n)


def seeds_note(outcomes: Sequence[Outcome]) -> str:
    """What "3 + 17" seeds are, and what verdicts of few seeds rest on; empty where no claim has any such."""
    notes = []
    if pooled := next((o for o in outcomes if o.calibrated), None):
        notes.append(
            f"An n of {seeds_of(pooled)}: the spread of {pooled.difference.n} seeds, which tell little of it, is "
            f"pooled with that of {pooled.calibrated} others, which the bounds were calibrated on."
        )
    if any(1 < o.difference.n < ENOUGH and not o.calibrated for o in outcomes):
        notes.append(
            f"Of few seeds alone (n below {ENOUGH}, without a calibration that knows their spread) verdicts hold for "
            "differences that are normal; where seeds fall into groups they are wrong several times as often as stated."
        )
    return " ".join(notes)


def data_of(outcome: Outcome, outcomes: Sequence[Outcome], show: Callable[[str], str] = escape) -> dict[str, str]:
    """The column that tells lines of a claim apart, where any is judged on several data sets; `show` makes names
    harmless: for a page, or for the terminal (`printable`)."""
    return {"data": show(outcome.data)} if len({o.claim.id for o in outcomes}) < len(outcomes) else {}


def tally(outcomes: Sequence[Outcome]) -> str:
    """ "**7 supported, 2 undecided** of 9 claims; controls: 4 supported, 1 undecided", by data set where a claim is
    judged on several; those about other pictures apart from these."""
    sets: dict[str, list[Outcome]] = {}
    for o in outcomes:
        sets.setdefault(data_of(o, outcomes).get("data", ""), []).append(o)
    parts = []
    for data, of in sets.items():
        told = []
        for control in (False, True):
            verdicts = [o.verdict for o in of if o.claim.control == control]
            counts = [f"{verdicts.count(v)} {v}" for v in get_args(Verdict) if v in verdicts and v != OTHER_PICTURES]
            apart = verdicts.count(OTHER_PICTURES)
            n = len(verdicts) - apart
            many = f"{n} claim{'s' * (n > 1)}"
            of_kind = [f"**{', '.join(counts)}** of {many}" if not control else ", ".join(counts)] * bool(counts)
            of_kind += [f"{apart} {OTHER_PICTURES}"] * bool(apart)
            told += ["controls: " * control + "; ".join(of_kind)] * bool(of_kind)
        parts.append(f"{data}: " * bool(data) + "; ".join(told))
    return "; ".join(parts)


def p_value(p: float) -> str:
    """ "0.031", "< 0.001", or "-" where there is none."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, digits: int = 0) -> str:
    """ "12 %", or "-" where there is none."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def duration(seconds: Sequence[float], in_minutes: bool = False) -> str:
    """ "12.3 ± 0.4 s", or in minutes: mean and standard deviation."""
    e, unit = estimate([s / 60 for s in seconds] if in_minutes else seconds), "min" if in_minutes else "s"
    return f"{e.mean:.1f} {unit}" if e.n == 1 else f"{e.mean:.1f} ± {e.sd:.1f} {unit}"


def ends(values: Sequence[object]) -> str:
    """ "3", or "3 to 20" of several values in order."""
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
