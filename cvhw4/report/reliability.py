"""Sections of the page of verdicts that every study has: how sure the figures, the comparisons and the bounds are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvhw4.report.evidence import Evidence, notes_by_data
from cvhw4.report.figures import Picture
from cvhw4.report.numbers import (
    ENOUGH,
    data_of,
    difference,
    ends,
    gain,
    interval_of,
    limits,
    number,
    p_value,
    percent,
    seeds_of,
)
from cvhw4.report.plots import doses
from cvhw4.report.runs import bound_words, figure_name
from cvhw4.report.tables import Table, section, table
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import NIGHTLY_SEEDS, Bounds, bounded
from cvhw4.statistics.comparison import LEVEL, rounding_sd
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.intervals import OTHER_PICTURES, estimate
from cvhw4.statistics.power import smallest_effect
from cvhw4.statistics.scales import SCALES
from cvhw4.statistics.selection import selection_over_seeds
from cvhw4.statistics.sensitivity import DETECTED, Detection, found_shift, least
from cvhw4.statistics.stability import stability, wrong_verdicts
from cvhw4.statistics.verdicts import Outcome, families
from cvhw4.study import Study
from cvhw4.tasks import LABELS

SPLITS = 100  # of the validation images into halves
FEW = 5  # seeds of the draws that are held against all seeds
_DRAWS = 1000
_SHAPES = 10_000  # draws of these
_NUMBERS, _LOOKS = (3, 5, 10, 20), (3, 10, 20)  # of seeds: whose rate is shown, and after which a study looks again


def selection_section(sets: Sequence[Evidence]) -> list[str]:
    """Best epoch against last epoch."""
    lines = []
    for e in sets:
        for row in e.study.rows.values():
            pairs = [pair for pair in e.with_images(row.name) if len(pair[1]) > 1]
            for metric in row.task.shown if pairs else ():
                rng = np.random.default_rng(0)
                found = selection_over_seeds([images for _, images in pairs], metric, rng, splits=SPLITS)
                figures = ([r.figure(f"{rule} {metric}") for r, _ in pairs] for rule in ("best", "last"))
                best, last = (estimate(of_rule).mean for of_rule in figures)
                lines.append(
                    {
                        "row": row.name,
                        "data": e.title,
                        "metric": LABELS[metric],
                        "best": number(best),
                        "best less last": number(best - last, sign="+"),
                        "optimism on half the images": gain(found["optimism"]),
                        "gain from choosing": gain(found["gain"]),
                        "n": str(len(pairs)),
                    }
                )
    return section(
        "Best epoch against last epoch: how much is selection",
        f"The validation images are split in halves, {SPLITS} times: the epoch is chosen on one half, and its figure "
        "taken there and on the other. *Optimism*: the first less the second, more than choosing on all images "
        "flatters. *Gain from choosing*: the chosen epoch's figure on the other half, less the last epoch's there."
        + " Intervals over seeds."
        * any(line["n"] != "1" for line in lines),
        _told_apart(lines),
        *notes_by_data(sets),
    )


def noise_section(sets: Sequence[Evidence]) -> list[str]:
    """How far one run's figure may lie off, for its seed and for its images."""
    parts = []
    for e in sets:
        lines = []
        for row in e.study.rows.values():
            pairs = e.with_images(row.name) if not e.redrawn else []
            if len(pairs) < 2:
                continue
            metric = row.task.primary
            figure = f"{e.study.epoch} {metric}"
            runs = [(images, r.epoch_of(figure)) for r, images in pairs]
            noise = image_noise([(1, runs)], metric, np.random.default_rng(0))
            seeds = estimate([r.figure(figure) for r, _ in pairs]).sd ** 2
            # In the model of `image_noise`, the spread over seeds on the same images has the part of both in it.
            alone = max(0.0, seeds - noise.interaction)
            total = alone + noise.one_run
            total = total if total > 1e-20 else math.nan  # less is rounding: runs that are all alike
            lines.append(
                {
                    "row": row.name,
                    "metric": LABELS[metric],
                    "other seed, same images": f"± {number(math.sqrt(seeds))}",
                    "other images, same seed": f"± {number(math.sqrt(noise.one_run))}",
                    "of the variance: seed": percent(alone / total),
                    "images": percent(noise.images_alone / total),
                    "both together": percent(noise.interaction / total),
                    "n": str(len(pairs)),
                }
            )
        if lines:
            parts += [f"{e.title}:", table(lines), *e.notes]
    if not parts:
        return []
    return [
        "## Two sources of noise: the seed, and the validation images",
        f"Standard deviations of one run's figure, {sets[0].study.epoch} epoch: over seeds on the same images, and "
        "over bootstrap draws of as many images (by class; whole images for the mIoU; neighbours that are alike, as "
        "frames of a film, together) with the same network. More "
        "seeds average the first away, and do nothing about what is the images' alone. *Both together*: what a seed "
        "does on some images only.",
        *parts,
    ]


def collapsed_section(sets: Sequence[Evidence], outcomes: Sequence[Outcome], bounds: Bounds) -> list[str]:
    """The trainings that failed or that the bounds set aside: how often, and what the claims come to without them."""
    rows = []
    for title, row, runs in ((e.title, row, runs) for e in sets for row, runs in e.runs.items()):
        aside = len(bounds.aside(*runs, row=row))
        for what, k in {"failed": sum(r.collapsed for r in runs), "learned far less than others": aside}.items():
            if k:
                line = {"row": row, "data": title, "runs": f"{k} of {len(runs)} {what}"}
                rows.append(line | {"95 % interval": _rate(k, len(runs))})
    claims = []
    for o in outcomes:
        without = o.trained
        if without or o.collapsed or not bounds.without_outliers(o):
            claims.append(
                {
                    "claim": o.claim.id,
                    **data_of(o, outcomes),
                    "with them": difference(o),
                    "n": str(o.difference.n),
                    "without": difference(without) if without else "-",
                    "95 % interval": interval_of(without) if without else "-",
                    "n without": str(len(without.differences) if without else 0),
                    "verdict without": without.verdict if without else "-",
                }
            )
    return section(
        "Trainings that failed",
        "After the last epoch their network is right about no more than one class: as good as always giving the same "
        "answer. Others learn, and far less than the rest of their row, so that the bounds set them aside. The "
        "verdicts above count both with the figures that they have; here is how often they come (Clopper-Pearson "
        "intervals), and the difference and verdict over the other seeds. "
        "Rows that are not listed had none; a network that gives several answers can still be no better than chance, "
        "which its figures show.",
        _told_apart(rows),
        *([table(claims)] if claims else []),
    )


def _told_apart(lines: Sequence[Mapping[str, str]]) -> Table:
    """A table with its column of data sets where a row is in it on several."""
    alone = len({(line["row"], line["data"]) for line in lines}) == len({line["row"] for line in lines})
    return Table.of(lines, ["data"] * alone)


def _rate(k: int, n: int) -> str:
    """ "[1 %, 32 %]": interval of a share of k in n."""
    from scipy.stats import binomtest

    low, high = binomtest(k, n).proportion_ci(0.95, method="exact")
    return f"[{percent(low)}, {percent(high)}]"


def details_section(outcomes: Sequence[Outcome], bounds: Bounds) -> list[str]:
    """The rest of what the comparisons say."""
    lines = []
    equal = any(o.equivalent_p < 0.5 for o in outcomes)
    for o in outcomes:
        c, both = o.comparison, o.with_other_images
        if o.difference.n < 2:
            continue

        def shown(effect: float, sd: float = c.sd, of_share: bool = o.share) -> str:
            return "none" if of_share and effect * sd > 1 else number(effect * sd)

        lines.append(
            {
                "claim": o.claim.id,
                **data_of(o, outcomes),
                "n": seeds_of(o),
                "together": str(o.together),
                "p": p_value(c.p_value),
                "p (Holm)": p_value(o.adjusted_p),
                "smallest of interest": number(o.claim.smallest) if o.claim.smallest else "-",
                "p of equivalence (Holm)": p_value(o.equivalent_p) if equal else "-",
                "so many seeds show": shown(smallest_effect(o.difference.n, LEVEL / o.together, c.freedom)),
                f"{NIGHTLY_SEEDS} seeds alone": shown(smallest_effect(NIGHTLY_SEEDS, LEVEL / o.together)),
                f"{NIGHTLY_SEEDS}, spread known": shown(
                    smallest_effect(NIGHTLY_SEEDS, LEVEL / o.together, o.difference.n - 2)
                )
                if bounds.knows(o) and o.difference.n > ENOUGH
                else "-",
                "95 % interval, other images too": "-" if both is None else interval_of(o, both.estimate),
                "p, likewise": "-" if both is None else p_value(both.p_value(o.claim.margin)),
            }
        )
    made = Table.of(lines, optional=lines[0] if lines else ())
    images = (
        " *Other images too*: for other validation images as well, from a bootstrap over images (by class, the same in "
        "both rows; neighbours that are alike, as frames of a film, together); never narrower than over seeds alone; "
        "its p is not corrected."
    )
    return section(
        "The comparisons in full",
        "*Together*: the claims that p is corrected for (Holm): those on the same data; a control is judged by itself. "
        "*So many seeds show*: the smallest difference that n seeds decide in nine of ten studies, at the spread seen "
        "(*none*: it would be above 1); "
        f"beside it that of {NIGHTLY_SEEDS}, the default, by themselves"
        + (", and where a calibration knows the spread" if f"{NIGHTLY_SEEDS}, spread known" in made.columns else "")
        + "."
        + (" *p of equivalence*: two one-sided tests." if "p of equivalence (Holm)" in made.columns else "")
        + (images if "p, likewise" in made.columns else ""),
        made,
    )


def stability_section(outcomes: Sequence[Outcome], bounds: Bounds) -> list[str]:
    """How often few seeds give the verdict of all."""
    lines, ways, known = [], set[int](), set[bool]()
    for family in _large(outcomes, FEW + 1):
        seeds, values, how = _shapes(family, bounds)
        known.add(how["calibrated"])
        found = stability(values, [o.claim.margin for o in family], np.random.default_rng(0), FEW, _DRAWS, **how)
        ways.add(min(math.comb(len(seeds), FEW), _DRAWS))
        lines += [
            {
                "claim": o.claim.id,
                "data": escape(o.data),
                "verdict of all": o.verdict if elsewhere else s.verdict,
                f"the same from {FEW}": "-" if elsewhere else percent(s.same, 1),
                "the opposite": percent(s.opposite, 1) if s.opposite and not elsewhere else "-",
                "n": str(len(seeds)),
            }
            for o, s in zip(family, found, strict=True)
            for elsewhere in [o.verdict == OTHER_PICTURES]
        ]
    opposite = any(line["the opposite"] != "-" for line in lines)
    return section(
        f"Would {FEW} seeds have been enough?",
        f"How often {FEW} of the seeds give the verdict of all ("
        + f"{ends([f'{n:,}' for n in sorted(ways)] or ['no'])} draws"
        + "; the spread of the other seeds is known" * (known == {True})
        + "). Claims judged together get the same draws, and are corrected together."
        + (" None say the opposite." if not opposite else ""),
        Table.of(lines, optional=("the opposite",)),
    )


def shape_section(outcomes: Sequence[Outcome], bounds: Bounds) -> list[str]:
    """How often verdicts are wrong where differences have the shape of those seen."""
    lines, of_families = [], []
    known = set[bool]()
    for family in _large(outcomes, ENOUGH):
        _, values, how = _shapes(family, bounds)
        known.add(how["calibrated"])
        found = wrong_verdicts(values, np.random.default_rng(0), _NUMBERS, _LOOKS, draws=_SHAPES, **how)
        for o, rates, again, alike in zip(family, found.decided, found.again, found.equivalent, strict=True):
            line = {"claim": o.claim.id, **data_of(o, outcomes)}
            line |= {f"{n} seeds": percent(rate, 1) for n, rate in zip(_NUMBERS, rates, strict=True)}
            trained, of_trained = o.trained.differences if o.trained else (), math.nan
            if len(trained) >= ENOUGH:
                floor = rounding_sd(o.resolution, len(o.claim.rows))
                rng, last = np.random.default_rng(0), _NUMBERS[-1:]
                of_trained = float(wrong_verdicts([trained], rng, last, last, floor, draws=_SHAPES).decided[0, 0])
            line |= {"looking again": percent(again, 1), "called equivalent": percent(alike, 1)}
            lines.append(line | {"those that learned": percent(of_trained, 1)})
        if len(family) > 1:
            rates = [percent(rate, 1) for rate in found.family]
            of_families.append(f"the {len(family)} about {escape(family[0].data)} in {', '.join(rates)}")
    made = Table.of(lines, optional=("called equivalent", "those that learned"))
    most = _NUMBERS[-1]
    equal = f" *Called equivalent*: with {most} seeds, though the mean is the smallest difference of interest away."
    learned = (
        f" *Those that learned*: with {most} seeds, failed trainings and runs that the bounds set aside left "
        "out; where that is far below the rate with all, the seeds fall into two groups, and the test is not to be "
        "relied on: read the verdict with them and without."
    )
    numbers = ", ".join(map(str, _NUMBERS))
    after_holm = (
        f"After Holm's correction any of the claims judged together is decided, with {numbers} seeds: "
        f"{'; '.join(of_families)} of studies."
    )
    return section(
        "How often a verdict is wrong under these shapes",
        "Seeds drawn from those seen, each claim's differences moved so that their mean is the margin: how often the "
        f"test at 5 % decides nevertheless, before Holm's correction ({_SHAPES:,} draws, so ± 0.4 points at 5 %). "
        + (
            f"With fewer than {most} seeds the spread of the others is known, as in a session whose bounds are "
            "calibrated. "
            if known == {True}
            else "Rates of few seeds are high where the differences fall into groups, and a little because draws from "
            "few values tie. "
        )
        + f"*Looking again*: after {', '.join(map(str, _LOOKS))} seeds, until decided."
        + equal * ("called equivalent" in made.columns)
        + learned * ("those that learned" in made.columns),
        made,
        *([after_holm] if of_families else []),
    )


def _large(outcomes: Sequence[Outcome], seeds: int) -> list[list[Outcome]]:
    """The claims with so many seeds or more that are judged together, where they share so many."""
    found = ([o for o in family if len(o.seeds) >= seeds] for family in families(outcomes))
    return [f for f in found if f and len(set.intersection(*(set(o.seeds) for o in f))) >= seeds]


def _shapes(family: Sequence[Outcome], bounds: Bounds) -> tuple[list[int], NDArray[np.float64], dict[str, Any]]:
    """The seeds that claims judged together share, [claims, seeds] their differences, and how these are judged."""
    seeds = sorted(set.intersection(*(set(o.seeds) for o in family)))
    values = [[d for s, d in zip(o.seeds, o.differences, strict=True) if s in seeds] for o in family]
    known = all(bounds.knows(o) and {*bounds.differences[o.claim.id][o.epoch]} <= {*seeds} for o in family)
    how = {
        "floors": [rounding_sd(o.resolution, len(o.claim.rows)) for o in family],
        "smallest": [o.claim.smallest * (not o.never_trained) for o in family],
        "calibrated": known,
    }
    return seeds, np.array(values), how


def sensitivity_section(found: Sequence[Detection], bounds: Bounds) -> list[str | Picture]:
    """What the negative controls say of the bounds; with a picture."""
    enough = {d.control.name: least(found, d.control) for d in found}
    lines = [
        {
            "corruption": d.control.words.format(d.strength)
            + (" **(least)**" if d.strength == enough[d.control.name] else ""),
            "row": d.control.row,
            "a bound missed": "yes" if d.missed else "no",
            "chance per session": f"{d.probability:.2f} (at least {d.low:.2f})",
            "detected by": figure_name(d.figure),
            "mean": number(d.mean),
            "bound": bound_words(d),
            "n": str(d.n),
        }
        for d in found
    ]
    picture = doses(found, bounds.seeds)
    unpaired = ", ".join(dict.fromkeys(d.control.row for d in found if d.control.row not in bounds.twins))
    return [
        *section(
            "Negative controls: how little corruption the bounds detect",
            "Rows corrupted on purpose, held against the bounds of the row they corrupt. *Chance per session*: that "
            f"the mean of {bounds.seeds} seeds misses that bound, going by these few runs, and the lower end of its "
            "95 % interval. *Own seed*: how far each run may be from the calibrated run of its seed, as other "
            "machines are (twins); the chance is then that any run is farther off. "
            + (f"Of {unpaired} no other machine gives the same figures. " if unpaired and bounds.twins else "")
            + f"*Least*: the weakest corruption tried that is detected with a chance of {DETECTED} or more.",
            lines,
        ),
        *([picture] if picture else []),
    ]


def bounds_section(study: Study, bounds: Bounds) -> list[str]:
    """What the bounds are worth: how often unchanged code misses them, and the smallest shift that they show."""
    lines = []
    for name, figures in bounds.rows.items():
        checked = bounded(study, study.rows[name])
        for figure in [f for f in checked if f in figures][:1]:
            b, shift = figures[figure], found_shift(figures[figure])
            to, of = SCALES[b.scale].to, SCALES[b.scale].of
            low, high = (float(of(to(b.mean) + way * shift * b.sd)) if b.sd else math.nan for way in (-1, 1))
            lines.append(
                {
                    "row": name,
                    "figure": figure_name(figure),
                    "mean": number(b.mean),
                    "bound of the mean": limits(b.low, b.high),
                    "smallest shift noticed": f"{shift:.1f} sd",
                    "a mean outside": limits(low, high) if b.sd else "-",
                    "n": str(b.n),
                    "figures bounded": f"{len(figures)} of {len(checked)}",
                }
            )
    return section(
        "The bounds: false alarms, and the smallest shift they show",
        f"A session of {bounds.seeds} seeds holds every run against the bound of one, and their mean against that of a "
        "mean, which is narrower; one wider than a third of its scale (the arcsine of the root of shares), or for a "
        "loss than a factor of ten, is not checked. "
        + _false_alarms(bounds)
        + f"\n\n*Smallest shift noticed*: the one of all of a row's runs that their mean gives away in "
        f"{100 * DETECTED:.0f} of 100 sessions, in standard deviations of runs on the figure's scale, if the spread "
        "seen is the true one. Other figures of the row may show it earlier.",
        lines,
    )


def _false_alarms(bounds: Bounds) -> str:
    if bounds.held_out is None:
        return "How often unchanged code misses any of them is not known: too few runs to leave a session's out."
    text = (
        f"Of {bounds.nights:,} sessions made of the calibrated runs, held against bounds made of the others, "
        f"{percent(bounds.held_out, 1)} miss any bound though nothing has changed; {percent(bounds.false_alarms, 1)} "
        "are allowed, and the bounds as wide as that takes, which is fitted to these sessions."
    )
    if bounds.new_seeds is not None:
        text += (
            f" Calibrated anew without the session's seeds, all that is chosen on the runs included, bounds are missed "
            f"by {percent(bounds.new_seeds, 1)} of {bounds.new_nights} sessions"
            + (
                f", and by {percent(bounds.usual, 1)} of those without a run that learned far less than others"
                if bounds.outliers and bounds.usual is not None
                else ""
            )
            + ": what to expect of seeds that no calibration has seen."
        )
    if bounds.outliers:
        rows = ", ".join(f"{o.n} of {o.of} runs of {row}" for row, o in bounds.outliers.items())
        text += (
            f" Runs that learned far less than the others of their row ({rows}) are no part of its bounds. Runs like "
            "them are set aside where a session has no more of them than chance brings."
        )
    if not bounds.twins:
        text += (
            " No runs of the same seeds from another machine were given to `cvhw4 calibrate`, so that none is held "
            "against the calibrated run of its own seed."
        )
    return text
