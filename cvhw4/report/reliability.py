"""Sections of the page of verdicts that every study has: how sure the figures, the comparisons and the bounds are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cvhw4.records.schema import RunRecord
from cvhw4.report.evidence import Evidence, notes_by_data
from cvhw4.report.numbers import gain, limits, p_value, percent
from cvhw4.report.runs import figure_name
from cvhw4.report.tables import table
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import Bounds, Check
from cvhw4.statistics.comparison import pooled_pairing, rounding_sd
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.power import seeds_to_decide
from cvhw4.statistics.selection import selection_over_seeds
from cvhw4.statistics.sensitivity import DETECTED, Detection, least
from cvhw4.statistics.stability import stability
from cvhw4.statistics.verdicts import Outcome
from cvhw4.tasks import LABELS

SPLITS = 100  # of the validation images into halves
FEW = 5  # seeds of the draws that are held against all seeds
_DRAWS = 1000


def selection_section(sets: Sequence[Evidence]) -> list[str]:
    """Best epoch against last epoch."""
    lines = []
    for e in sets:
        for row in e.study.rows.values():
            pairs = e.with_images(row.name)
            for metric in row.task.shown if pairs else ():
                rng = np.random.default_rng(0)
                found = selection_over_seeds([images for _, images in pairs], metric, rng, splits=SPLITS)
                apart = estimate([r.best(metric) - r.last(metric) for r, _ in pairs])
                lines.append(
                    {
                        "row": row.name,
                        "metric": LABELS[metric],
                        "best": f"{found['best'].mean:.4f}",
                        "best less last": f"{apart.mean:+.4f}",
                        "optimism on half the images": gain(found["optimism"]),
                        "on all, expected at most": gain(found["best_optimism"]),
                        "gain from choosing": gain(found["gain"]),
                        "n": str(len(pairs)),
                    }
                )
    if not lines:
        return []
    return [
        "## Best epoch against last epoch: how much is selection",
        f"The validation images are split in halves, {SPLITS} times: the epoch is chosen on one half, and its figure "
        "taken there and on the other. *Optimism*: the first less the second; on all images it is expected to be at "
        "most 1/√2 of that. *Gain from choosing*: the chosen epoch's figure on the other half, less the last epoch's "
        "there. Intervals over seeds, on these images.",
        table(lines),
        *notes_by_data(sets),
    ]


def noise_section(sets: Sequence[Evidence]) -> list[str]:
    """How far one run's figure may lie off, for its seed and for its images."""
    parts = []
    for e in sets:
        lines = []
        for row in e.study.rows.values():
            pairs = e.with_images(row.name)
            if len(pairs) < 2:
                continue
            metric = row.task.primary
            runs = [(images, r.best_epoch(metric)) for r, images in pairs]
            noise = image_noise([(1, runs)], metric, np.random.default_rng(0))
            seeds = estimate([r.best(metric) for r, _ in pairs]).sd ** 2
            # In the model of `image_noise`, the spread over seeds on the same images has the part of both in it.
            alone = max(0.0, seeds - noise.interaction)
            total = alone + noise.one_run
            total = total if total > 1e-20 else math.nan  # less is rounding: runs that are all alike
            lines.append(
                {
                    "row": row.name,
                    "metric": LABELS[metric],
                    "other seed, same images": f"± {math.sqrt(seeds):.4f}",
                    "other images, same seed": f"± {math.sqrt(noise.one_run):.4f}",
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
        "Standard deviations of one run's best figure: over seeds on the same images, and over bootstrap draws of "
        "as many images (by class; whole images for the mIoU) with the same network. More seeds average the first "
        "away, and do nothing about what is the images' alone. *Both together*: what a seed does on some images only.",
        *parts,
    ]


def details_section(outcomes: Sequence[Outcome]) -> list[str]:
    """The rest of what the comparisons say."""
    lines = []
    for o in outcomes:
        c, both = o.comparison, o.with_other_images
        if o.difference.n < 2:
            continue
        seen, best, worst = seeds_to_decide(c)
        lines.append(
            {
                "claim": o.claim.id,
                "p": p_value(c.p_value),
                "p (Holm)": p_value(o.adjusted_p),
                "p (sign flips)": p_value(c.permutation_p),
                "p with other images": "-" if both is None else p_value(both.p_value(o.claim.margin)),
                "effect size": "-" if math.isnan(c.effect) else f"{c.effect:.2f}",
                "P(A > B)": f"{c.superiority:.2f} {limits(c.superiority_low, c.superiority_high, 2)}",
                "correlation": "-" if math.isnan(c.correlation) else f"{c.correlation:+.2f}",
                "pairing": "-" if math.isnan(c.pairing) else f"{c.pairing:.2f}",
                "seeds to decide": f"{seen or '-'} ({best or '-'} to {worst or 'none'})",
                "n": str(o.difference.n),
            }
        )
    if not lines:
        return []
    images = any(o.noise is not None for o in outcomes)
    if not images:
        lines = [{name: text for name, text in line.items() if name != "p with other images"} for line in lines]
    paired = [o.comparison for o in outcomes if not math.isnan(o.comparison.pairing)]
    pooled = ""
    if len(paired) > 1:
        mean, low, high = pooled_pairing(paired)
        pooled = f" Over all claims (geometric mean; they share rows): {mean:.2f} {limits(low, high, 2)}."
    return [
        "## The comparisons in full",
        "*Effect size*: Cohen's d of the paired differences, with Hedges' correction. *P(A > B)*: probability that one "
        "run of the better row beats one of the worse, with a Wilson interval. *Pairing*: the rows of a comparison "
        "share seeds and order, and augmentation where it is not what they compare; the variance of the difference "
        "were they not paired, over the variance as it is: 2.00 halves the runs needed, 1.00 gains nothing, less than "
        f"1 costs. By itself each ratio is rough.{pooled} *Seeds to decide*: for the t test at 5 % to decide in 90 of "
        "100 studies, at the mean and spread seen, and at the ends of the effect's interval (before Holm's "
        f"correction).{' *p with other images*: both sources of noise, not corrected.' if images else ''}",
        table(lines),
    ]


def stability_section(outcomes: Sequence[Outcome]) -> list[str]:
    """How often few seeds give the verdict of all."""
    parts: list[str] = []
    for data, seeds in dict.fromkeys((o.data, o.seeds) for o in outcomes):
        family = [o for o in outcomes if (o.data, o.seeds) == (data, seeds)]
        if len(seeds) <= FEW:
            continue
        floors = [rounding_sd(o.resolution) for o in family]
        margins = [o.claim.margin for o in family]
        rng = np.random.default_rng(0)
        found = stability([o.differences for o in family], margins, rng, FEW, _DRAWS, floors=floors)
        ways = math.comb(len(seeds), FEW)
        drawn = f"all {ways}" if ways <= _DRAWS else f"{_DRAWS:,}"
        lines = [
            {
                "claim": o.claim.id,
                "verdict of all": o.verdict,
                "the same": percent(s.same, 1),
                "undecided": percent(s.undecided, 1),
                "the opposite": percent(s.opposite, 1),
            }
            for o, s in zip(family, found, strict=True)
        ]
        parts += [f"{escape(data)}, {drawn} draws of {FEW} of {len(seeds)} seeds:", table(lines)]
    if not parts:
        return []
    return [
        f"## Would {FEW} seeds have been enough?",
        "The same seeds are drawn for all claims of a table, which are judged again, together: how often they say what "
        "all seeds, judged in the same way, say.",
        *parts,
    ]


def sensitivity_section(found: Sequence[Detection], bounds: Bounds) -> list[str]:
    """What the negative controls say of the bounds."""
    if not found:
        return []
    enough = {d.control.name: least(found, d.control) for d in found}
    lines = [
        {
            "corruption": d.control.words.format(d.strength)
            + (" **(least)**" if d.strength == enough[d.control.name] else ""),
            "row": d.control.row,
            "detected by": figure_name(d.figure),
            "mean": f"{d.mean:.4f}",
            "bound": limits(d.bound.low, d.bound.high),
            "n": str(d.n),
            "a bound missed": "yes" if d.caught else "no",
            "chance per night": f"{d.probability:.2f} (at least {d.low:.2f})",
        }
        for d in found
    ]
    return [
        "## Negative controls: how little corruption the bounds detect",
        f"Rows corrupted on purpose, held against the bounds of the row they corrupt. *Chance per night*: that a "
        f"session of {bounds.seeds} seeds misses that bound, going by these few runs, and the lower end of its 95 % "
        f"interval. *Least*: the weakest corruption tried that is detected with a chance of {DETECTED} or more. All "
        f"bounds together raise a false alarm in {100 * bounds.false_alarms:g} % of nights.",
        table(lines),
    ]


def held_out_section(checks: Sequence[tuple[RunRecord, Check]], bounds: Bounds) -> list[str]:
    """What the stated rate of false alarms is worth on the runs themselves."""
    if not checks:
        return []
    missed = [(run, check) for run, check in checks if not check.met]
    nights = {(run.data.fingerprint, run.seed) for run, _ in missed}
    seeds = len({run.seed for run, _ in checks})
    about = (
        f"Every run held against bounds made of its row's other seeds: {len(missed)} of {len(checks)} figures fall "
        f"outside, in runs of {len(nights)} of {seeds} seeds. The bounds are made for normal spreads, at a rate of "
        f"{100 * bounds.false_alarms:g} % of nights; a row whose seeds fall into groups has more alarms, and wider "
        "bounds once such a seed is among those it is calibrated on."
    )
    lines = [
        {
            "row": run.row,
            "seed": str(run.seed),
            "figure": figure_name(check.name),
            "value": f"{check.value:.4f}",
            "bound without it": limits(check.bound.low, check.bound.high),
        }
        for run, check in missed
    ]
    return ["## The bounds on runs they were not made of", about, *([table(lines)] if lines else [])]
