"""Why a claim holds or does not: what skips bring where, the rise from 11 to 3 classes in parts, the factorial of Q1-9,
and how much of a figure is its epoch's selection, its seed or its images. Sections of the page of verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cvhw4.errors import printable
from cvhw4.experiments import Experiment, Profile
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import INK, Picture, style, to_svg
from cvhw4.report.tables import FIGURES, NAMES, interval, leaked, markdown, recoded
from cvhw4.report.text import escape, file_stem
from cvhw4.statistics.decomposition import PARTS, decompositions, mean_iou_of, near_and_far
from cvhw4.statistics.factorial import effects
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.selection import selection_over_seeds
from cvhw4.training.metrics import segmentation_figures

_BATCH_NORMS = {"initial": ("q2_1a", "q2_1b"), "train": ("q2_n1a", "q2_n1b")}  # with and without skips
_PAIRS = {"without skips": ("q2_1b", "q2_3"), "with skips": ("q2_1a", "q2_c3")}  # 11 and 3 classes
_FACTORS = ("network", "recipe", "augmentation")
CELLS: dict[tuple[bool, ...], str] = {  # which of the factors are q1_8's, the others being q1_2's
    (False, False, False): "q1_2",
    (True, False, False): "q1_f1",
    (False, True, False): "q1_f2",
    (False, False, True): "q1_f3",
    (True, True, False): "q1_f4",
    (True, False, True): "q1_f5",
    (False, True, True): "q1_f6",
    (True, True, True): "q1_8",
}
WORDS = {
    "void": "(a) void: wrong among 11 classes, class 1 among 3",
    "merging": "(b) the same predictions merged to 3 classes",
    "training": "(c) training on 3 classes instead of 11",
    "averaging": "(d) averaging by image costs 11 classes more than 3",
}
_STEPS = {"void": "void", "averaging": "averaging\nby image", "merging": "merging", "training": "training\non 3"}
# Okabe and Ito's colours, which colour-blind people tell apart as well.
_RISE, _FALL, _TOTAL = "#0072B2", "#D55E00", "#777777"
SPLITS = 100
Counts = np.ndarray  # [V, 2, 12, C], see `cvhw4.training.counts.count_pixels`


@dataclass(frozen=True)
class Evidence:
    """The runs on one data set, and what they made of its images.

    Attributes:
        data: how the data set is called; no two sets' names give the same `file_stem`.
        runs: by row ("q1_2"), seeds in order.
        read: gives a run's results by image; None where they are not stored.
    """

    data: str
    runs: Mapping[str, Sequence[RunRecord]]
    read: Callable[[RunRecord], ImageResults | None]

    @property
    def notes(self) -> list[str]:
        """Lines that say whether the runs are by different code, and which validation pictures are training pictures
        too; none if neither is so."""
        runs = [r for of_row in self.runs.values() for r in of_row]
        return [*recoded(runs), *leaked(runs)]

    def seeds(self, *rows: str) -> list[int]:
        """The seeds that all of some rows have."""
        found = [{r.seed for r in self.runs.get(row, ())} for row in rows]
        return sorted(set.intersection(*found)) if found else []

    def of(self, row: str, seeds: Sequence[int]) -> list[RunRecord]:
        """A row's runs with those seeds."""
        return [r for r in self.runs.get(row, ()) if r.seed in seeds]

    def with_images(self, row: str) -> list[tuple[RunRecord, ImageResults]]:
        """A row's runs whose results by image are stored."""
        pairs = ((r, self.read(r)) for r in self.runs.get(row, ()))
        return [(r, images) for r, images in pairs if images is not None]

    def counts(self, *rows: str) -> tuple[list[int], dict[str, list[Counts]]]:
        """The seeds of which all of some rows have their results by image, and by row the pixel counts of each at the
        epoch with its best mIoU."""
        found = {row: {r.seed: (r, images) for r, images in self.with_images(row)} for row in rows}
        seeds = sorted(set.intersection(*(set(of_row) for of_row in found.values())))
        counts = {}
        for row, of_row in found.items():
            pairs = (of_row[s] for s in seeds)
            counts[row] = [i.counts[r.best_epoch("miou") - 1] for r, i in pairs if i.counts is not None]
        return seeds, counts


def evidence(records: Iterable[RunRecord], read: Callable[[RunRecord], ImageResults | None]) -> list[Evidence]:
    """The runs by data set; two whose names make the same file name are told apart by the start of their
    fingerprints."""
    by_data: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        by_data.setdefault(record.data.fingerprint, []).append(record)
    stems = [file_stem(runs[0].data.name) for runs in by_data.values()]
    found = []
    for fingerprint, runs in by_data.items():
        name = runs[0].data.name
        by_row: dict[str, list[RunRecord]] = {}
        for record in runs:
            by_row.setdefault(record.row, []).append(record)
        unique = stems.count(file_stem(name)) == 1
        found.append(Evidence(name if unique else f"{name} {fingerprint[:6]}", by_row, read))
    return found


def notes_by_data(sets: Iterable[Evidence]) -> list[str]:
    """The notes below a table of several data sets."""
    return [f"{escape(e.data)}: {line}" for e in sets for line in e.notes]


def gain(e: Estimate, digits: int = 4) -> str:
    """ "+0.0450 [0.0210, 0.0690]", or the difference alone where one seed has no interval."""
    return f"{e.mean:+.{digits}f}" + ("" if e.n == 1 else f" {interval(e)}")


def paired(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """a - b, seed by seed."""
    return estimate([x - y for x, y in zip(a, b, strict=True)])


# Skips


def _place(band: int, metric: str) -> Callable[[Counts], float]:
    return lambda counts: near_and_far(counts, metric)[band]


_PLACES: dict[str, Callable[[Counts], float]] = {
    "mIoU (template)": lambda counts: float(segmentation_figures(counts.sum(1))["miou"]),
    "pixel accuracy (template)": lambda counts: float(segmentation_figures(counts.sum(1))["pixel_accuracy"]),
    "mIoU": lambda counts: float(segmentation_figures(counts.sum(1))["set_miou"]),
    "IoU of thin classes": lambda counts: mean_iou_of(counts.sum(1)),
    "mIoU near contours": _place(0, "set_miou"),
    "mIoU away from contours": _place(1, "set_miou"),
    "pixel accuracy near contours": _place(0, "set_pixel_accuracy"),
    "pixel accuracy away from contours": _place(1, "set_pixel_accuracy"),
}
_NEAR, _AWAY = "pixel accuracy near contours", "pixel accuracy away from contours"


def skips_section(e: Evidence) -> list[str]:
    """Skips crossed with batch norm, and where in the picture they help."""
    seeds, counts = e.counts(*(row for pair in _BATCH_NORMS.values() for row in pair))
    if not seeds:
        return []
    values = {
        mode: {place: tuple([figure(c) for c in counts[row]] for row in pair) for place, figure in _PLACES.items()}
        for mode, pair in _BATCH_NORMS.items()
    }
    lines = [
        {
            "batch norm": mode,
            "measured on": place,
            "with skips": f"{estimate(fused).mean:.4f}",
            "without": f"{estimate(plain).mean:.4f}",
            "gain, 95 % interval": _found(place, fused, plain),
            "of the errors removed": _removed(place, fused, plain),
        }
        for mode, of_mode in values.items()
        for place, (fused, plain) in of_mode.items()
    ]
    gains = {
        mode: {place: [a - b for a, b in zip(*arms, strict=True)] for place, arms in of_mode.items()}
        for mode, of_mode in values.items()
    }
    crossed = [
        {
            "measured on": place,
            "gain in the report's mode": f"{estimate(gains['initial'][place]).mean:+.4f}",
            "gain where batch norm trains": f"{estimate(gains['train'][place]).mean:+.4f}",
            "the first less the second": gain(paired(gains["initial"][place], gains["train"][place])),
        }
        for place in _PLACES
    ]
    return [
        f"## Skip connections: spatial detail, or a network that is hard to train? ({escape(e.data)})",
        f"{len(seeds)} seeds, each run at the epoch with its best mIoU. *Thin classes*: Pole and SignSymbol. *Near "
        "contours*: within 3 pixels of another label. All but the first two by one confusion matrix over the set, void "
        "ignored; away from contours a class with hardly any pixels weighs as much in the mIoU as any other.",
        markdown(pd.DataFrame(lines)),
        "Were the gain only about a network that cannot train without normalisation, it would vanish where batch norm "
        "trains, and the last column below would be as large as the first.",
        markdown(pd.DataFrame(crossed)),
        " ".join(_answer(mode, *values[mode][_NEAR], *values[mode][_AWAY]) for mode in values),
        *e.notes,
    ]


def _found(place: str, fused: Sequence[float], plain: Sequence[float]) -> str:
    if max(*fused, *plain) == 0:
        return "never met by either: these runs cannot tell"
    return gain(paired(fused, plain))


def _shares(fused: Sequence[float], plain: Sequence[float]) -> list[float]:
    """The share of the plain network's errors that the fused one does not make, by seed."""
    return [(a - b) / (1 - b) if b < 1 else math.nan for a, b in zip(fused, plain, strict=True)]


def _removed(place: str, fused: Sequence[float], plain: Sequence[float]) -> str:
    shares = _shares(fused, plain)
    if not place.startswith("pixel accuracy") or any(map(math.isnan, shares)):
        return "-"
    e = estimate(shares)
    return f"{100 * e.mean:.0f} %" + ("" if e.n == 1 else f" [{100 * e.low:.0f}, {100 * e.high:.0f}]")


def _answer(
    mode: str,
    near_fused: Sequence[float],
    near_plain: Sequence[float],
    away_fused: Sequence[float],
    away_plain: Sequence[float],
) -> str:
    """Whether skips help most near contours, by accuracy and by the share of errors removed."""
    accuracy = estimate(
        [(a - b) - (c - d) for a, b, c, d in zip(near_fused, near_plain, away_fused, away_plain, strict=True)]
    )
    where = "where batch norm trains" if mode == "train" else "in the report's mode"
    text = f"{where.capitalize()}, skips bring {gain(accuracy)} more pixel accuracy near contours than away from them"
    near, away = _shares(near_fused, near_plain), _shares(away_fused, away_plain)
    if any(map(math.isnan, (*near, *away))):
        return text + "."
    errors = paired(near, away)
    share = f"{100 * abs(errors.mean):.0f} points {'larger' if errors.mean > 0 else 'smaller'}"
    text += f"; the share of the errors that goes is {share} there"
    if (accuracy.mean > 0) == (errors.mean > 0):
        return text + (": the gain is largest at contours." if accuracy.mean > 0 else ": it is not one of contours.")
    return (
        f"{text}. So the two measures disagree: most pixels are won near contours, where most errors are, but a larger "
        "share of those away from them goes, which is not spatial detail."
    )


# From 11 to 3 classes


def decomposition_section(e: Evidence, pictures: list[Picture]) -> list[str]:
    """The rise from 11 to 3 classes, in parts; adds its picture to `pictures`."""
    columns: dict[str, dict[str, Estimate]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for name, rows in _PAIRS.items():
        seeds, counts = e.counts(*rows)
        if not seeds:
            continue
        many, few = (counts[row] for row in rows)
        columns[name] = decompositions([(a.sum(1), b.sum(1)) for a, b in zip(many, few, strict=True)])
        levels = [[float(segmentation_figures(c.sum(1))["miou"]) for c in of_row] for of_row in (many, few)]
        ends[name] = estimate(levels[0]).mean, estimate(levels[1]).mean
    if not columns:
        return []

    def line(label: str, part: str) -> dict[str, str]:
        return {"part": label, **{f"{k} (n = {v[part].n})": gain(v[part]) for k, v in columns.items()}}

    assert set(WORDS) == set(_STEPS) == set(PARTS)
    table = [*(line(words, part) for part, words in WORDS.items()), line("**the whole rise**", "whole")]
    other = [
        line("predictions merged; void and averaging change with them", "merging_first"),
        line("training on 3 classes", "training_last"),
    ]
    pictures.append(waterfall(f"decomposition-{file_stem(e.data)}", columns, ends, e.data))
    between = "; ".join(f"{name}: {start:.4f} to {end:.4f}" for name, (start, end) in ends.items())
    return [
        f"## From 11 to 3 classes: where the rise of the mIoU comes from ({escape(e.data)})",
        f"The report has the rise without skips. mIoU by the template, each run's best epoch: {between}. Intervals "
        "over seeds, on these images.",
        markdown(pd.DataFrame(table)),
        f"{_measured(columns)} The parts add up to the whole, seed by seed. The same rise in another order, all by the "
        "template: first the 11-class network's own predictions are merged, then the network is changed:",
        markdown(pd.DataFrame(other)),
        pictures[-1].markdown,
        *e.notes,
    ]


def _measured(columns: Mapping[str, Mapping[str, Estimate]]) -> str:
    """How much of the rise is there without training anything on 3 classes."""
    shares = {name: 1 - found["training"].mean / found["whole"].mean for name, found in columns.items()}
    said = " and ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items())
    return f"Of the rise, {said} needs no training on 3 classes: it comes from how networks are measured."


def waterfall(
    stem: str, columns: Mapping[str, Mapping[str, Estimate]], ends: Mapping[str, tuple[float, float]], data: str
) -> Picture:
    """The decomposition as steps from one mIoU to the other, with 95 % intervals, one panel per pair of rows."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(4.3 * len(columns), 3.6), layout="constrained")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        last = len(_STEPS) + 1
        for axes, (name, found) in zip(panels, columns.items(), strict=True):
            start, end = ends[name]
            for x, height in ((0, start), (last, end)):
                axes.bar(x, height, color=_TOTAL)
                axes.text(x, height + 0.01, f"{height:.3f}", ha="center", va="bottom", fontsize=8)
            level = start
            for x, part in enumerate(_STEPS, 1):
                change = found[part]
                axes.bar(x, change.mean, bottom=level, color=_RISE if change.mean >= 0 else _FALL)
                axes.plot([x - 1.4, x + 0.4], [level, level], color=INK, linewidth=0.6)
                top, level = max(level, level + change.mean), level + change.mean
                if change.n > 1:
                    error = [[change.mean - change.low], [change.high - change.mean]]
                    axes.errorbar(x, level, yerr=error, color=INK, capsize=3, linewidth=1)
                    top = max(top, level + change.high - change.mean)
                axes.text(x, top + 0.01, f"{change.mean:+.3f}", ha="center", va="bottom", fontsize=8)
            axes.set_xticks(range(last + 1), ["11\nclasses", *_STEPS.values(), "3\nclasses"], fontsize=8)
            axes.set_title(f"{name} (n = {found['whole'].n})", fontsize=9)
        panels[0].set_ylabel("mIoU (best epoch)")
        panels[0].set_ylim(0, 1)
        svg = to_svg(figure)
    steps = "; ".join(
        f"{name}: {', '.join(f'{part} {found[part].mean:+.3f}' for part in _STEPS)}" for name, found in columns.items()
    )
    return Picture(
        stem,
        svg,
        f"The rise of the mIoU from 11 to 3 classes on {printable(data)}, in steps. {steps}.",
        "mIoU (share, 0 to 1) from 11 to 3 classes, step by step; bars: 95 % intervals over seeds.",
    )


# Network, recipe, augmentation


def factorial_section(e: Evidence, profile: Profile) -> list[str]:
    """Network, recipe and augmentation one by one."""
    seeds = e.seeds(*CELLS.values())
    if not seeds:
        return []
    figures = {cell: [r.best("accuracy") for r in e.of(row, seeds)] for cell, row in CELLS.items()}
    found = effects(figures, _FACTORS)
    rows = {row.row: row for row in profile.rows}
    low, high = rows["q1_2"], rows["q1_8"]
    levels = pd.DataFrame(
        [
            {"factor": factor, "as in q1_2": of(low), "as in q1_8": of(high)}
            for factor, of in zip(_FACTORS, (lambda e: e.network, _recipe, lambda e: e.augmentation), strict=True)
        ]
    )
    table = pd.DataFrame([{"effect": name, "accuracy": gain(x), "n": str(x.n)} for name, x in found.items()])
    cells = pd.DataFrame(
        [
            {
                "row": row,
                **{factor: "as in q1_8" if on else "as in q1_2" for factor, on in zip(_FACTORS, cell, strict=True)},
                "best accuracy": f"{x.mean:.4f}" + ("" if x.n == 1 else f" {interval(x)}"),
            }
            for cell, row in CELLS.items()
            for x in [estimate(figures[cell])]
        ]
    )
    whole = paired(figures[True, True, True], figures[False, False, False])
    return [
        f"## The better recipe: network, optimizer or augmentation? ({escape(e.data)})",
        f"The report changed all three at once. Here every combination ran, with the same {len(seeds)} seeds; q1_8 "
        f"less q1_2 is {gain(whole)}. A main effect is the mean over the settings of the other two; intervals over "
        "seeds, on these images.",
        markdown(levels),
        markdown(table),
        markdown(cells),
        *e.notes,
    ]


def _recipe(e: Experiment) -> str:
    r = e.recipe
    return f"{r.optimizer}, lr {r.lr:g} x {r.lr_gamma:g} after every {r.lr_step} of {r.epochs} epochs"


# Selection, seeds and images


def selection_section(sets: Sequence[Evidence], profile: Profile) -> list[str]:
    """Best epoch against last epoch."""
    lines = []
    for e in sets:
        for row in profile.rows:
            pairs = e.with_images(row.row)
            for metric in FIGURES[row.question] if pairs else ():
                found = selection_over_seeds(
                    [images for _, images in pairs], metric, np.random.default_rng(0), splits=SPLITS
                )
                apart = estimate([r.best(metric) - r.last(metric) for r, _ in pairs])
                lines.append(
                    {
                        "row": row.id,
                        "figure": NAMES[metric],
                        "best": f"{found['best'].mean:.4f}",
                        "best less last": f"{apart.mean:+.4f}",
                        "flattery on half the images": gain(found["optimism"]),
                        "on all, expected at most": gain(found["best_optimism"]),
                        "choosing brings": gain(found["gain"]),
                        "n": str(len(pairs)),
                    }
                )
    if not lines:
        return []
    return [
        "## Best epoch against last epoch: how much is selection",
        f"The validation images are split in halves, {SPLITS} times: the epoch is chosen on one half, and its figure "
        "taken there and on the other. *Flattery*: the first less the second; on all images it is expected to be at "
        "most 1/√2 of that. *Choosing brings*: the chosen epoch's figure on the other half, less the last epoch's "
        "there. Intervals over seeds, on these images.",
        markdown(pd.DataFrame(lines)),
        *notes_by_data(sets),
    ]


def noise_section(sets: Sequence[Evidence], profile: Profile) -> list[str]:
    """How far one run's figure may lie off, for its seed and for its images."""
    parts = []
    for e in sets:
        lines = []
        for row in profile.rows:
            pairs = e.with_images(row.row)
            if len(pairs) < 2:
                continue
            metric = FIGURES[row.question][0]
            arm = [(images, r.best_epoch(metric)) for r, images in pairs]
            noise = image_noise([(1, arm)], metric, np.random.default_rng(0))
            seeds = estimate([r.best(metric) for r, _ in pairs]).sd ** 2
            # In the model of `image_noise`, the spread over seeds on the same images has the part of both in it.
            alone = max(0.0, seeds - noise.interaction)
            total = alone + noise.one_run
            share = [100 * v / total if total else math.nan for v in (alone, noise.images_alone, noise.interaction)]
            lines.append(
                {
                    "row": row.id,
                    "figure": NAMES[metric],
                    "other seed, same images": f"± {math.sqrt(seeds):.4f}",
                    f"other {noise.images} images, same seed": f"± {math.sqrt(noise.one_run):.4f}",
                    "of the variance: seed": f"{share[0]:.0f} %",
                    "images": f"{share[1]:.0f} %",
                    "both together": f"{share[2]:.0f} %",
                    "n": str(len(pairs)),
                }
            )
        if lines:
            parts += [f"{escape(e.data)}:", markdown(pd.DataFrame(lines)), *e.notes]
    if not parts:
        return []
    return [
        "## Two sources of noise: the seed, and the validation images",
        "Standard deviations of one run's best figure: over seeds on the same images, and over bootstrap draws of the "
        "images (by class; whole images for the mIoU) with the same network. More seeds average the first away, and "
        "do nothing about what is the images' alone. *Both together*: what a seed does on some images only.",
        *parts,
    ]
