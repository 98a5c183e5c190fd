"""Sections of the homework's page of verdicts, on why the report's claims hold or do not.

What the report's single runs could show, skip connections crossed with batch norm, the rise from 11 to 3 classes in
parts, and the better recipe as a factorial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import cvhw4  # whose names are looked up when a section is made: a session that trains needs none of them

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from cvhw4 import Estimate, Evidence, Picture, Row

_BATCH_NORMS = {"frozen": ("q2_1a-skip", "q2_1b-noskip"), "train": ("q2_n1a-fused_norm", "q2_n1b-plain_norm")}
_PAIRS = {  # 11 and 3 classes
    "without skips": ("q2_1b-noskip", "q2_3-3class"),
    "with skips": ("q2_1a-skip", "q2_c3-3class_fused"),
}
_FACTORS: dict[str, Callable[[Row], str]] = {
    "network": lambda row: row.network_name,
    "recipe": lambda row: _recipe(row),
    "augmentation": lambda row: row.augmentation_name,
}
CELLS: dict[tuple[bool, ...], str] = {  # which of the factors are q1_8's, the others being q1_2's
    (False, False, False): "q1_2-finetune",
    (True, False, False): "q1_f1-net",
    (False, True, False): "q1_f2-adam",
    (False, False, True): "q1_f3-auto",
    (True, True, False): "q1_f4-net_adam",
    (True, False, True): "q1_f5-net_auto",
    (False, True, True): "q1_f6-adam_auto",
    (True, True, True): "q1_8-recipe",
}
_PARTS = {  # in words, and as a step of the picture
    "void": ('(a) void: wrong among 11 classes, "everything else" among 3', "void"),
    "averaging": ("(d) averaging by image costs 11 classes more than 3", "averaging\nby image"),
    "merging": ("(b) the same predictions merged to 3 classes", "merging"),
    "training": ("(c) training on 3 classes instead of 11", "training\non 3"),
}
# Okabe and Ito's colours, which colour-blind people tell apart as well.
_RISE, _FALL, _TOTAL = "#0072B2", "#D55E00", "#777777"

Arms = tuple[list[float], list[float]]  # by seed, with skips and without


# What the report's own runs could show


def _single_runs(e: Evidence) -> list[str | Picture]:
    """What the report's own figures, of one run each, can show."""
    lines = []
    spreads = f"p, with the spread over seeds{' and pictures' * e.redrawn} here"
    for claim in e.study.claims:
        images = cvhw4.stated(claim, e.study).images
        if images is None:
            continue
        figures = [e.study.published[row].figures[claim.metric] for row in claim.rows]
        against = claim.margin if claim.worse is None else figures[1]
        seeds = e.seeds(*claim.rows)
        best = ([r.best(claim.metric) for r in e.runs.get(row, ()) if r.seed in seeds] for row in claim.rows)
        spread = [x - sum(rest) for x, *rest in zip(*best, strict=True)]
        both = images.p_with_seeds(cvhw4.estimate(spread).sd, len(spread), redrawn=e.redrawn) if spread else math.nan
        low, high = (end - claim.margin * (claim.worse is None) for end in (images.low, images.high))  # of a difference
        lines.append(
            {
                "claim": claim.sentence,
                "difference": cvhw4.gain(cvhw4.estimate([figures[0] - against])),
                "95 % interval, images alone": f"[{low:.3f}, {high:.3f}]",
                "p, images alone": _p(images.p_value),
                spreads: _p(both),
                "published": f"{figures[0]:.4f}",
                "against": f"{against:.4f}",
            }
        )
    if all(line[spreads] == "-" for line in lines):  # or there are none
        return []
    return [
        f"## What the report's own runs could show ({e.title})",
        f"Each of its Q1 figures is the share of {e.study.published_images} validation images, from one run. "
        "*Images alone*: by the binomial error of those images. *With the spread*: "
        f"{'by the larger of that error and' if e.redrawn else 'also by'} that of runs here, of best epochs as in the "
        "report. Both rows saw the same images; the report does not state by how much that narrows the error.",
        cvhw4.table(lines),
        "Its Q2 figures have no such error: pixels of one image are not independent, and its figures by image are not "
        "stated. About mIoU and pixel accuracy one run shows nothing but itself.",
    ]


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


# Skips


def _thin(counts: np.ndarray) -> float:
    return cvhw4.mean_iou_of(counts.sum(1), ("Pole", "SignSymbol"), cvhw4.CAMVID["classes"])


def _figure(metric: str) -> Callable[[np.ndarray], float]:
    return lambda counts: float(cvhw4.segmentation_figures(counts.sum(1))[metric])


def _place(band: int, metric: str) -> Callable[[np.ndarray], float]:
    return lambda counts: cvhw4.near_and_far(counts, metric)[band]


_NEAR, _AWAY, _THIN = "pixel accuracy near contours", "pixel accuracy away from contours", "IoU of thin classes"
_PLACES: dict[str, Callable[[np.ndarray], float]] = {  # of networks with all classes
    "mIoU (template)": _figure("miou"),
    "pixel accuracy (template)": _figure("pixel_accuracy"),
    "mIoU": _figure("set_miou"),
    _THIN: _thin,
    "mIoU near contours": _place(0, "set_miou"),
    "mIoU away from contours": _place(1, "set_miou"),
    _NEAR: _place(0, "set_pixel_accuracy"),
    _AWAY: _place(1, "set_pixel_accuracy"),
}


def _skips(e: Evidence) -> list[str | Picture]:
    """Skips crossed with batch norm, and where in the picture they help."""
    seeds, counts = e.counts(*(row for pair in _BATCH_NORMS.values() for row in pair))
    if not seeds:
        return []
    values: dict[str, dict[str, Arms]] = {
        mode: {place: ([f(c) for c in counts[fused]], [f(c) for c in counts[plain]]) for place, f in _PLACES.items()}
        for mode, (fused, plain) in _BATCH_NORMS.items()
    }
    won = {
        mode: [_won_near(*of_seed) for of_seed in zip(counts[fused], counts[plain], strict=True)]
        for mode, (fused, plain) in _BATCH_NORMS.items()
    }
    # Classes of which hardly a pixel is ever right in either arm say nothing about the arms.
    found = [max(map(max, arms)) >= 0.001 for of_mode in values.values() for arms in [of_mode[_THIN]]]
    places = [place for place in _PLACES if place != _THIN or all(found)]
    thin = "*Thin classes*: Pole and SignSymbol." if all(found) else "Of poles and signs hardly a pixel is found."
    lines = [
        {
            "measured on": place,
            "batch norm": mode,
            "gain, 95 % interval": cvhw4.gain(cvhw4.estimate(_less(*arms))),
            "of the errors removed": _removed(arms) if place.startswith("pixel accuracy") else "-",
            "with skips": f"{cvhw4.estimate(arms[0]).mean:.3f}",
            "without": f"{cvhw4.estimate(arms[1]).mean:.3f}",
        }
        for mode, of_mode in values.items()
        for place, arms in of_mode.items()
        if place in places
    ]
    crossed = [
        {
            "measured on": place,
            "gain in the report's mode": f"{cvhw4.estimate(frozen).mean:+.3f}",
            "gain where batch norm trains": f"{cvhw4.estimate(trains).mean:+.3f}",
            "the first less the second": cvhw4.gain(cvhw4.estimate(_less(frozen, trains))),
        }
        for place in places
        for frozen, trains in [[_less(*values[mode][place]) for mode in ("frozen", "train")]]
    ]
    return [
        f"## Skip connections: spatial detail, or a network that is hard to train? ({e.title})",
        f"{len(seeds)} seeds, {e.study.epoch} epoch. *Frozen*: batch norm trains with the statistics that it started "
        "with, the report's mode; *train*: with each batch's. *Near contours*: within 3 pixels of another label. All "
        "but the first two by one confusion matrix over the set, void ignored; away from contours a class with "
        f"hardly any pixels weighs as much in the mIoU as any other. {thin}",
        cvhw4.table(lines),
        "Were the gain only about a network that cannot train without normalisation, it would vanish where batch norm "
        "trains, and the last column below would be as large as the first.",
        cvhw4.table(crossed),
        " ".join(_answer(mode, values[mode][_NEAR], values[mode][_AWAY], won[mode]) for mode in values),
        *e.notes,
    ]


def _less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a - b, seed by seed."""
    return [x - y for x, y in zip(a, b, strict=True)]


def _shares(arms: Arms) -> list[float]:
    """The share of the plain network's errors that the fused one does not make, by seed."""
    return [(a - b) / (1 - b) if b < 1 else math.nan for a, b in zip(*arms, strict=True)]


def _removed(arms: Arms) -> str:
    shares = _shares(arms)
    if any(map(math.isnan, shares)):
        return "-"
    return _percent(cvhw4.estimate(shares))


def _won_near(fused: np.ndarray, plain: np.ndarray) -> float:
    """The share of the pixels won that lie near contours, of counts [V, 2, L, C]; NaN where none are won, or some are
    lost."""
    right = [[counts[:, band].sum(0).trace() for band in (0, 1)] for counts in (fused, plain)]  # void is the last label
    away, near = (float(a) - float(b) for a, b in zip(*right, strict=True))
    return near / (near + away) if min(near, away) >= 0 < near + away else math.nan


def _answer(mode: str, near: Arms, away: Arms, won: Sequence[float]) -> str:
    """Whether skips help most near contours: by accuracy, by the share of errors removed, and by the share of the
    pixels won that lie there, by seed."""
    accuracy = cvhw4.estimate(_less(_less(*near), _less(*away)))
    where = "Where batch norm trains" if mode == "train" else "In the report's mode"
    text = f"{where}, skips bring {cvhw4.gain(accuracy)} more pixel accuracy near contours than away from them"
    if not any(map(math.isnan, won)):
        text += f" ({_percent(cvhw4.estimate(won))} of the pixels won lie near them)"
    shares = _shares(near), _shares(away)
    if any(map(math.isnan, (*shares[0], *shares[1]))):
        return text + "."
    errors = cvhw4.estimate(_less(*shares)).mean
    size = "larger" if errors > 0 else "smaller"
    text += f"; the share of the errors that goes is {100 * abs(errors):.0f} points {size} there"
    if (accuracy.mean > 0) == (errors > 0):
        return text + (": the gain is largest at contours." if accuracy.mean > 0 else ": it is not one of contours.")
    text += ". So the two measures disagree: accuracy rises more "
    if errors > 0:
        return text + "away from contours, and a larger share of the errors near them goes."
    return text + "near contours, but a larger share of the errors away from them goes, which is not spatial detail."


# From 11 to 3 classes


def _parts(e: Evidence, rows: tuple[str, str]) -> dict[str, Estimate] | None:
    """The rise between two rows, in parts; None where they have no seed in common with results by image."""
    seeds, counts = e.counts(*rows)
    if not seeds:
        return None
    many, few = ([c.sum(1) for c in counts[row]] for row in rows)
    return cvhw4.decompositions(list(zip(many, few, strict=True)), e.merged(rows[1]))


def _percent(x: Estimate) -> str:
    return f"{100 * x.mean:.0f} %" + ("" if x.n == 1 else f" [{100 * x.low:.0f}, {100 * x.high:.0f}]")


def of_the_rise(e: Evidence) -> str:
    """What the report's conclusion about fewer classes leaves out, for beside its verdict."""
    parts = _parts(e, _PAIRS["without skips"])
    return "" if parts is None else f"{_percent(parts['measuring'])} of the rise needs no training on 3 classes"


def _fewer_classes(e: Evidence) -> list[str | Picture]:
    """The rise from 11 to 3 classes, in parts."""
    found = {name: _parts(e, rows) for name, rows in _PAIRS.items()}
    columns: dict[str, dict[str, Estimate]] = {name: parts for name, parts in found.items() if parts is not None}
    if not columns:
        return []
    ends, several = {}, any(parts["whole"].n > 1 for parts in columns.values())
    for name in columns:
        seeds = e.counts(*_PAIRS[name])[0]
        start, end = (cvhw4.estimate(e.figures(row, "miou", seeds)).mean for row in _PAIRS[name])
        ends[name] = start, end

    def line(label: str, part: str) -> dict[str, str]:
        return {"part": label, **{f"{k} (n = {v[part].n})": cvhw4.gain(v[part]) for k, v in columns.items()}}

    measured = " and ".join(f"{_percent(parts['measuring'])} {name}" for name, parts in columns.items())
    between = "; ".join(f"{name}: {start:.3f} to {end:.3f}" for name, (start, end) in ends.items())
    steps = "; ".join(
        f"{name}: {', '.join(f'{part} {parts[part].mean:+.3f}' for part in _PARTS)}" for name, parts in columns.items()
    )
    return [
        f"## From 11 to 3 classes: where the rise of the mIoU comes from ({e.title})",
        f"The report has the rise without skips. mIoU by the template, {e.study.epoch} epoch: {between}."
        + " Intervals over seeds." * several,
        cvhw4.table(
            [
                *(line(*part) for part in sorted((words, part) for part, (words, _) in _PARTS.items())),
                line("**the whole rise**", "whole"),
            ]
        ),
        f"Of the rise, {measured} needs no training on 3 classes: it comes from how networks are measured. The parts "
        "add up to the whole, seed by seed. The same rise in another order, all by the template: first the 11-class "
        "network's own predictions are merged, then the network is changed:",
        cvhw4.table(
            [
                line("predictions merged; void and averaging change with them", "merging_first"),
                line("training on 3 classes", "training_last"),
            ]
        ),
        cvhw4.draw(
            "decomposition",
            (4.3 * len(columns), 3.6),
            lambda figure: _waterfall(figure, columns, ends, f"mIoU ({e.study.epoch} epoch)"),
            f"The rise of the mIoU from 11 to 3 classes on {e.data}, in steps. {steps}.",
            f"mIoU (share, 0 to 1) from 11 to 3 classes, step by step{'; bars: 95 % intervals over seeds' * several}.",
        ),
        *e.notes,
    ]


def _waterfall(
    figure: Figure, columns: Mapping[str, Mapping[str, Estimate]], ends: Mapping[str, tuple[float, float]], name: str
) -> None:
    """Steps from one mIoU to the other, with 95 % intervals, a panel for each pair of rows."""
    from matplotlib import rcParams

    ink, last = rcParams["text.color"], len(_PARTS) + 1
    width, small = figure.get_figwidth(), 8.0
    beside = width >= 3 * len(columns)
    if not beside:  # a column of a paper
        small = 6.0
        figure.set_size_inches(width, 2.2 * len(columns))
    grid = (1, len(columns)) if beside else (len(columns), 1)
    panels = list(figure.subplots(*grid, sharex=not beside, sharey=True, squeeze=False).flat)
    for axes, (arm, found) in zip(panels, columns.items(), strict=True):
        for x, height in zip((0, last), ends[arm], strict=True):
            axes.bar(x, height, color=_TOTAL)
            axes.text(x, height + 0.01, f"{height:.3f}", ha="center", va="bottom", fontsize=small)
        level = ends[arm][0]
        for x, part in enumerate(_PARTS, 1):
            change = found[part]
            axes.bar(x, change.mean, bottom=level, color=_RISE if change.mean >= 0 else _FALL)
            axes.plot([x - 1.4, x + 0.4], [level, level], color=ink, linewidth=0.6)
            top, level = max(level, level + change.mean), level + change.mean
            if change.n > 1:
                below, above = change.mean - change.low, change.high - change.mean
                axes.errorbar(x, level, yerr=[[below], [above]], color=ink, capsize=3, linewidth=1)
                top = max(top, level + above)
            axes.text(x, top + 0.01, f"{change.mean:+.3f}", ha="center", va="bottom", fontsize=small)
        labels = ["11\nclasses", *(step for _, step in _PARTS.values()), "3\nclasses"]
        axes.set_xticks(range(last + 1), labels, fontsize=small)
        axes.set_title(f"{arm} (n = {found['whole'].n})", fontsize=small + 1)
        if axes is panels[0] or not beside:
            axes.set_ylabel(name, fontsize=small + 2)
    panels[0].set_ylim(0, 1)


# Network, recipe, augmentation


def _factorial(e: Evidence) -> list[str | Picture]:
    """Network, recipe and augmentation one by one."""
    section = cvhw4.effects_section(
        cvhw4.Factorial(tuple(_FACTORS), CELLS, {}),
        "accuracy",
        "The better recipe: network, optimizer or augmentation?",
        "The report changed all three at once, from q1_2 to q1_8.",
        "as in q1_2",
        "as in q1_8",
    )
    if not (parts := section(e)):
        return []
    low, high = (e.study.rows[CELLS[(on,) * 3]] for on in (False, True))
    levels = [{"factor": name, "as in q1_2": of(low), "as in q1_8": of(high)} for name, of in _FACTORS.items()]
    return [*parts[:2], cvhw4.table(levels), *parts[2:]]


def _recipe(row: Row) -> str:
    r = row.recipe
    return f"{r.optimizer}, lr {r.lr:g} x {r.lr_gamma:g} after every {r.lr_step} of {r.epochs} epochs"


SECTIONS = (_single_runs, _skips, _fewer_classes, _factorial)
