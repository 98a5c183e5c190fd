"""What more seeds could show, and what they take: tables from the runs of a pilot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord
from cvhw4.report.numbers import data_of, difference, number, seeds_of
from cvhw4.report.runs import device, grouped
from cvhw4.report.tables import Table
from cvhw4.report.text import clock
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds
from cvhw4.statistics.comparison import FEWEST_KNOWN, LEVEL
from cvhw4.statistics.power import largest_sd, smallest_effect
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Claim, Study
from cvhw4.tasks import Task


def plan_table(study: Study, records: Sequence[RunRecord], numbers: Sequence[int], bounds: Bounds = NO_BOUNDS) -> Table:
    """By claim, the smallest distance of its true difference from its margin that so many seeds decide in 90 of 100
    studies, if the spread of the pilot is the true one, and in brackets if that is the upper end of its 95 % interval.
    Where the bounds know the spread of such runs, they count as in a session of so many of the calibrated seeds.

    Tested at 5 % over the number of the study's claims about the same data, as the hardest step of Holm's correction
    is; a control at 5 %.

    Args:
        records: the runs of the pilot; claims without two seeds, or without any spread, are left out.
        numbers: of seeds, each 2 or more.

    Raises:
        InputError: no claim is left.
    """
    judged = [o for o in judge_all(study, records, bounds=bounds) if len(o.seeds) > 1]
    outcomes = [o for o in judged if o.comparison.sd > 0]
    if not outcomes:
        problem, hint = "has no pilot", "train the rows of a claim with two seeds or more first, the same in both"
        if judged:
            problem = f"has the same difference in every seed ({', '.join(o.claim.id for o in judged)})"
            hint = "a plan needs a spread: make claims about a figure that seeds change, with more digits"
        raise InputError(f"study {study.name}", problem, hint)
    lines = []
    for o in outcomes:
        alike = (not c.control and _task(study, c) is _task(study, o.claim) for c in study.claims)
        together = 1 if o.claim.control else sum(alike)  # those of the whole study, whatever the pilot has
        c, level = o.comparison, LEVEL / together
        line = {
            "claim": o.claim.id,
            **data_of(o, outcomes, printable),
            "pilot": f"{difference(o)} \u00b1 {number(c.sd)}, n {seeds_of(o)}",
        }
        known = _calibrated(o, bounds)
        for n in numbers:
            effect = smallest_effect(n, level, known - 2 if known - n >= FEWEST_KNOWN else None)
            line[f"{n} seeds"] = f"{number(effect * c.sd)} ({number(effect * largest_sd(c.sd, c.freedom + 1))})"
        lines.append(line)
    title = (
        "smallest difference that is decided in 90 % of studies, with the claims on the same data (in brackets: if the "
        "spread is as large as the pilot leaves possible)"
    )
    return Table.of(lines, title=title)


def _calibrated(o: Outcome, bounds: Bounds) -> int:
    """How many seeds have calibrated differences whose spread counts beside that of a few runs like the pilot's; 0
    where none does."""
    runs = [r for of_row in o.runs.values() for r in of_row]
    refused = len(bounds.known(o.claim, runs, o.epoch, False)) >= FEWEST_KNOWN and not o.calibrated
    return len(bounds.differences[o.claim.id][o.epoch]) if bounds.knows(o) and not refused else 0


def _task(study: Study, claim: Claim) -> Task:
    return study.rows[claim.rows[0]].task


def hours_table(records: Iterable[RunRecord], numbers: Sequence[int]) -> Table:
    """By device, the time that so many seeds of all rows take one after another, by the mean time of the pilot's."""
    lines = []
    for name, runs in grouped(records, device).items():
        groups = grouped(runs, lambda r: (r.row, r.data.name))
        once = sum(fmean(r.times.total_seconds for r in of_row) for of_row in groups.values())
        times = {f"{n} seeds": clock(n * once) if once else "-" for n in numbers}
        lines.append({"device": name, "rows": str(len({row for row, _ in groups}))} | times)
    return Table.of(lines, title="time of all rows, one run after another")
