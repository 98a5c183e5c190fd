"""The page "What the report got right, and what its runs could not show", made from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from cvhw4.claims import CLAIMS
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES, Experiment, Profile
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import RunRecord
from cvhw4.records.store import Store, latest_studies, write_atomically
from cvhw4.report.tables import NAMES, by_id, interval, markdown, p_value
from cvhw4.statistics.bounds import Bounds
from cvhw4.statistics.comparison import binomial_comparison, rounding_sd
from cvhw4.statistics.decomposition import OTHER_ORDER, PARTS, decompositions, mean_iou_of, near_and_far
from cvhw4.statistics.factorial import effects
from cvhw4.statistics.images import image_noise
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.selection import selection_over_seeds
from cvhw4.statistics.sensitivity import DETECTED, Detection, detections, least
from cvhw4.statistics.simulation import null_table, stability
from cvhw4.statistics.verdicts import REPORTED_IMAGES, Outcome, Stated, judge_all, stated
from cvhw4.training.metrics import segmentation_figures

FEW = 5  # seeds of the draws that are held against all seeds
BATCH_NORMS = {"initial": ("q2_1a", "q2_1b"), "train": ("q2_n1a", "q2_n1b")}  # with and without skips
PAIRS = {"without skips": ("q2_1b", "q2_3"), "with skips": ("q2_1a", "q2_c3")}  # 11 and 3 classes
FACTORS = ("network", "optimizer", "augmentation")
CELLS = {  # which of the factors are q1_8's, the others being q1_2's
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
    "averaging": "(d) averaging image by image, not over the set",
}
# Okabe and Ito's colours, which colour-blind people tell apart as well.
RISE, FALL, TOTAL = "#0072B2", "#D55E00", "#777777"


@dataclass(frozen=True)
class Evidence:
    """The runs of one data set, and what they made of its images.

    Attributes:
        data: name of the data set.
        runs: by row ("q1_2"), seeds in order.
        read: gives a run's results by image; each is read once.
    """

    data: str
    runs: Mapping[str, Sequence[RunRecord]]
    read: Callable[[RunRecord], ImageResults | None]

    def seeds(self, *rows: str) -> list[int]:
        """The seeds that all of some rows have."""
        found = [{r.seed for r in self.runs.get(row, ())} for row in rows]
        return sorted(set.intersection(*found)) if found else []

    def of(self, row: str, seeds: Sequence[int]) -> list[RunRecord]:
        """A row's runs with those seeds."""
        return [r for r in self.runs.get(row, ()) if r.seed in seeds]

    def images(self, row: str, seeds: Sequence[int]) -> list[ImageResults] | None:
        """Their results by image; None where one of them has none."""
        found = [self.read(r) for r in self.of(row, seeds)]
        whole = [x for x in found if x is not None]
        return whole if whole and len(whole) == len(found) else None

    def counts(self, row: str, seeds: Sequence[int]) -> list[np.ndarray] | None:
        """Pixel counts [V, 2, 12, C] of each seed at the epoch with its best mIoU."""
        images, runs = self.images(row, seeds), self.of(row, seeds)
        if images is None:
            return None
        return [x.counts[r.best_epoch("miou") - 1] for x, r in zip(images, runs, strict=True) if x.counts is not None]


def write_verdicts(profile: Profile, store: Store, bounds: Bounds) -> Path:
    """Renders `<results>/<profile>/verdicts.md` and its picture from all stored runs.

    Raises:
        InputError: the folder cannot be written to, or no run is stored.
    """
    records = latest_studies(store.load())
    if not records:
        raise InputError(store.runs, "has no runs", "run pytest benchmarks first")
    kept: dict[str, ImageResults | None] = {}

    def read(record: RunRecord) -> ImageResults | None:
        if record.fingerprint not in kept:
            kept[record.fingerprint] = store.images(record)
        return kept[record.fingerprint]

    page, pictures = verdicts_page(profile, records, read, bounds)
    for name, picture in pictures.items():
        write_atomically(store.folder / name, picture)
    path = store.folder / "verdicts.md"
    write_atomically(path, page)
    return path


def verdicts_page(
    profile: Profile,
    records: Sequence[RunRecord],
    read: Callable[[RunRecord], ImageResults | None],
    bounds: Bounds,
) -> tuple[str, dict[str, bytes]]:
    """The page in markdown, and its pictures (PNG) by file name.

    Args:
        records: runs, those of each row on each data set all of one study; negative controls among them.
        read: gives what a run made of every validation image, None where that is not stored.
        bounds: what controls are held against.
    """
    known = {row.id for row in profile.rows}
    rows = [r for r in records if r.id in known]
    outcomes = judge_all(profile, rows, read)
    names = dict.fromkeys(r.data.name for r in rows)
    sets = [
        Evidence(name, {k.split("-")[0]: v for k, v in by_id([r for r in rows if r.data.name == name]).items()}, read)
        for name in names
    ]
    reported = PROFILES["full"].rows
    parts = [
        "# What the report got right, and what its runs could not show",
        _preamble(profile, rows),
        *_claims(outcomes, reported),
        *_single_runs(reported),
    ]
    pictures: dict[str, bytes] = {}
    for evidence in sets:
        parts += _skips(evidence)
    for evidence in sets:
        parts += _decomposition(evidence, pictures)
    for evidence in sets:
        parts += _factorial(evidence)
    parts += _selection(sets, profile)
    parts += _noise(sets, profile)
    parts += _details(outcomes)
    parts += _stability(outcomes)
    parts += _null(max(1, len(outcomes)))
    parts += _sensitivity(detections(profile, records, bounds), bounds)
    return "\n\n".join(parts) + "\n", pictures


def _preamble(profile: Profile, records: Sequence[RunRecord]) -> str:
    days = sorted({r.started[:10] for r in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    seeds = sorted({len({r.seed for r in of_row}) for of_row in by_id(records).values()})
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    data = ", ".join(dict.fromkeys(r.data.name for r in records))
    return (
        f"From {len(records)} runs, {when}, profile `{profile.name}` on {data}, {span} seeds a row; written by "
        f"`cvhw4 report --profile {profile.name}`, nothing by hand.\n\n"
        "A verdict is about these networks at this size on these data; whether it carries over to the report's own "
        "pictures and networks, only the full profile on those can tell. *Supported*: the difference lies above its "
        "margin, the paired t test over seeds being below 5 % after Holm's correction for all claims together; "
        "*contradicted*: below it, likewise; *undecided*: neither. Intervals are 95 %, Student's t over seeds: with 3 "
        "to 20 seeds the normal interval would be too narrow, and a bootstrap has too few runs to draw from."
    )


def _claims(outcomes: Sequence[Outcome], reported: Sequence[Experiment]) -> list[str]:
    return ["## The claims", markdown(claims_overview(outcomes, reported)), *_in_words(outcomes)]


def claims_overview(outcomes: Sequence[Outcome], reported: Sequence[Experiment]) -> pd.DataFrame:
    """The table that README shows first: what was claimed, what one run could show, and what the seeds say."""
    lines = []
    for o in outcomes:
        one = stated(o.claim, reported)
        lines.append(
            {
                "claim": o.claim.sentence + (" *(control)*" if o.claim.control else ""),
                "figure": NAMES[o.claim.metric],
                "report": _stated(o, one),
                "its one run shows": _one_run(o, one),
                "here": _signed(o),
                "95 % interval": interval(o.difference),
                "seeds": str(o.difference.n),
                "verdict": f"**{o.verdict}**",
                "with other images": _elsewhere(o),
            }
        )
    return pd.DataFrame(lines)


def _stated(o: Outcome, one: Stated) -> str:
    return "-" if math.isnan(one.difference) else f"{one.difference:{_sign(o)}.4f}"


def _one_run(o: Outcome, one: Stated) -> str:
    if one.verdict is not None:
        return f"{one.verdict} (p {p_value(one.p_value)})"
    return "-" if o.claim.control else "nothing, no error stated" if not math.isnan(one.difference) else "no figure"


def _elsewhere(o: Outcome) -> str:
    both = o.with_other_images
    return "-" if both is None or both.estimate.n == 1 else f"[{both.estimate.low:.4f}, {both.estimate.high:.4f}]"


def _signed(o: Outcome) -> str:
    return f"{o.difference.mean:{_sign(o)}.4f}"


def _sign(o: Outcome) -> str:
    return "" if o.claim.worse is None else "+"


def _in_words(outcomes: Sequence[Outcome]) -> list[str]:
    lines = []
    for verdict in ("supported", "contradicted", "undecided"):
        found = [o for o in outcomes if o.verdict == verdict]
        if found:
            names = "; ".join(o.claim.sentence + _to_decide(o) for o in found)
            lines.append(f"- **{verdict.capitalize()}** ({len(found)} of {len(outcomes)}): {names}.")
    about = (
        "*Here*: mean over seeds of the difference of best epochs. *With other images*: the interval if the validation "
        "images were drawn anew as well, from a bootstrap over images (by class, and the same images in both arms)."
    )
    return ["\n".join(lines), about]


def _to_decide(o: Outcome) -> str:
    if o.verdict != "undecided":
        return ""
    needed = o.comparison.seeds_needed
    return " (no number of seeds in sight)" if needed is None else f" (about {needed} seeds would decide it)"


def _single_runs(reported: Sequence[Experiment]) -> list[str]:
    """What the report's own figures could show."""
    lines = []
    for claim in CLAIMS:
        one = stated(claim, reported)
        if one.verdict is None:
            continue
        figures = {row.row: row.reported.figures.get(claim.metric, math.nan) for row in reported}
        values = [figures[row] for row in claim.rows]
        by_images = binomial_comparison(
            values[0], values[1] if len(values) == 2 else None, REPORTED_IMAGES, claim.margin
        )
        lines.append(
            {
                "claim": claim.sentence,
                "report": " against ".join(f"{v:.4f}" for v in values)
                + ("" if claim.worse else f" against {claim.margin}"),
                "difference": f"{by_images.difference:.4f}",
                "95 % interval": f"[{by_images.low:.4f}, {by_images.high:.4f}]",
                "p": p_value(one.p_value),
                "so its images show": one.verdict,
            }
        )
    if not lines:
        return []
    return [
        "## What the report's own runs could show",
        f"Each of its Q1 figures is the share of {REPORTED_IMAGES} validation images, from one run. From the binomial "
        "error of those images alone (the spread between seeds, which one run does not show, comes on top; that the "
        "images are the same in both would narrow it by an amount the report does not state):",
        markdown(pd.DataFrame(lines)),
        "Its Q2 figures have no such error: pixels of one image are not independent, and its figures by image are not "
        "stated. About mIoU and pixel accuracy one run shows nothing but itself.",
    ]


def _skips(e: Evidence) -> list[str]:
    """Skips crossed with batch norm, and where in the picture they help."""
    seeds = e.seeds(*(row for pair in BATCH_NORMS.values() for row in pair))
    if not seeds:
        return []
    lines = []
    gains: dict[str, dict[str, list[float]]] = {}
    for mode, (with_skips, without) in BATCH_NORMS.items():
        arms = [e.counts(row, seeds) for row in (with_skips, without)]
        if arms[0] is None or arms[1] is None:
            return []
        gains[mode] = {}
        for name, figure in _PLACES.items():
            fused, plain = ([figure(c) for c in arm] for arm in arms if arm is not None)
            gains[mode][name] = [a - b for a, b in zip(fused, plain, strict=True)]
            lines.append(
                {
                    "batch norm": mode,
                    "measured on": name,
                    "with skips": f"{estimate(fused).mean:.4f}",
                    "without": f"{estimate(plain).mean:.4f}",
                    "gain": _gain(estimate(gains[mode][name])),
                    "95 % interval": interval(estimate(gains[mode][name])),
                }
            )
    interactions = [
        {
            "measured on": name,
            "gain as in the report, less gain with batch norm in training": _gain(difference),
            "95 % interval": interval(difference),
        }
        for name in _PLACES
        for difference in [_paired(gains["initial"][name], gains["train"][name])]
    ]
    near, away = "set pixel accuracy near contours", "set pixel accuracy away from contours"
    places = {mode: _paired(gains[mode][near], gains[mode][away]) for mode in gains}
    sentences = [
        f"With batch norm {'as in the report' if mode == 'initial' else 'in training'}, skips bring {_gain(d)} "
        f"{interval(d)} more pixel accuracy near contours than away from them."
        for mode, d in places.items()
    ]
    return [
        f"## Skip connections: spatial detail, or a network that is hard to train? ({e.data})",
        f"{len(seeds)} seeds, at each run's best epoch. *Thin classes*: Pole and SignSymbol. *Near contours*: within 3 "
        "pixels of another label. All but the first two by one confusion matrix over the set, void ignored.",
        markdown(pd.DataFrame(lines)),
        "The interaction: were the gain only about a network that cannot train without normalisation, it would vanish "
        "where batch norm trains, and the difference below would be as large as the gain in the report's mode.",
        markdown(pd.DataFrame(interactions)),
        " ".join(sentences),
    ]


def _place(band: int, metric: str) -> Callable[[np.ndarray], float]:
    return lambda counts: near_and_far(counts, metric)[band]


_PLACES: dict[str, Callable[[np.ndarray], float]] = {
    "mIoU (template)": lambda counts: float(segmentation_figures(counts.sum(1))["miou"]),
    "pixel accuracy (template)": lambda counts: float(segmentation_figures(counts.sum(1))["pixel_accuracy"]),
    "set mIoU": lambda counts: float(segmentation_figures(counts.sum(1))["set_miou"]),
    "set IoU of thin classes": lambda counts: mean_iou_of(counts.sum(1)),
    "set pixel accuracy near contours": _place(0, "set_pixel_accuracy"),
    "set pixel accuracy away from contours": _place(1, "set_pixel_accuracy"),
}


def _paired(a: Sequence[float], b: Sequence[float]) -> Estimate:
    return estimate([x - y for x, y in zip(a, b, strict=True)])


def _gain(e: Estimate) -> str:
    return f"{e.mean:+.4f}"


def _decomposition(e: Evidence, pictures: dict[str, bytes]) -> list[str]:
    """The rise from 11 to 3 classes, in parts."""
    columns: dict[str, dict[str, Estimate]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for name, (eleven, three) in PAIRS.items():
        seeds = e.seeds(eleven, three)
        many, few = (e.counts(row, seeds) if seeds else None for row in (eleven, three))
        if many is None or few is None:
            continue
        columns[name] = decompositions([(a.sum(1), b.sum(1)) for a, b in zip(many, few, strict=True)])
        ends[name] = (
            estimate([float(segmentation_figures(c.sum(1))["miou"]) for c in many]).mean,
            estimate([float(segmentation_figures(c.sum(1))["miou"]) for c in few]).mean,
        )
    if not columns:
        return []

    def line(label: str, part: str) -> dict[str, str]:
        cells = {"part": label}
        for name, found in columns.items():
            cells[f"{name} (n = {found[part].n})"] = f"{_gain(found[part])} {interval(found[part])}"
        return cells

    table = pd.DataFrame([*(line(words, part) for part, words in WORDS.items()), line("**the whole rise**", "whole")])
    other = pd.DataFrame(
        [
            line("predictions merged, void and averaging with them", "merging_first"),
            line("training on 3 classes", "training_last"),
        ]
    )
    assert set(WORDS) == set(PARTS) and set(OTHER_ORDER) == {"merging_first", "training_last"}
    slug = "".join(c if c.isalnum() else "-" for c in e.data.lower())
    pictures[f"decomposition-{slug}.png"] = waterfall(columns, ends, e.data)
    return [
        f"## From 11 to 3 classes: where the rise of the mIoU comes from ({e.data})",
        markdown(table),
        "The parts add up to the whole, seed by seed. The same rise in another order, all by the template: first the "
        "11-class network's own predictions are merged, then the network is changed:",
        markdown(other),
        f"![waterfall of the parts](decomposition-{slug}.png)",
    ]


def waterfall(
    columns: Mapping[str, Mapping[str, Estimate]], ends: Mapping[str, tuple[float, float]], data: str
) -> bytes:
    """The decomposition as steps from one mIoU to the other, with 95 % intervals, one panel per pair of rows; PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(columns), 4.2), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    steps = {"void": "void", "averaging": "averaging\nby image", "merging": "merging", "training": "training\non 3"}
    for axes, (name, found) in zip(panels, columns.items(), strict=True):
        start, end = ends[name]
        axes.bar(0, start, color=TOTAL)
        axes.text(0, start + 0.01, f"{start:.3f}", ha="center", va="bottom", fontsize=8)
        level = start
        for x, part in enumerate(steps, 1):
            change = found[part]
            axes.bar(x, change.mean, bottom=level, color=RISE if change.mean >= 0 else FALL)
            if change.n > 1:
                top = level + change.mean
                error = [[change.mean - change.low], [change.high - change.mean]]
                axes.errorbar(x, top, yerr=error, color="black", capsize=3, linewidth=1)
            axes.plot([x - 1.4, x + 0.4], [level, level], color="black", linewidth=0.6)
            level += change.mean
            reach = max(level, level - change.mean, level + (change.high - change.mean if change.n > 1 else 0))
            axes.text(x, reach + 0.01, f"{change.mean:+.3f}", ha="center", va="bottom", fontsize=8)
        axes.bar(len(steps) + 1, end, color=TOTAL)
        axes.text(len(steps) + 1, end + 0.01, f"{end:.3f}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(steps) + 2), ["11\nclasses", *steps.values(), "3\nclasses"], fontsize=8)
        axes.set_title(f"{name} (n = {found['whole'].n})", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mIoU (best epoch)")
    panels[0].set_ylim(0, 1)
    figure.suptitle(f"From 11 to 3 classes, {data}; bars: 95 % intervals over seeds", fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _factorial(e: Evidence) -> list[str]:
    """Network, optimizer and augmentation one by one."""
    seeds = e.seeds(*CELLS.values())
    if not seeds:
        return []
    found = effects({cell: [r.best("accuracy") for r in e.of(row, seeds)] for cell, row in CELLS.items()}, FACTORS)
    table = pd.DataFrame(
        [
            {"effect": name, "accuracy": _gain(x), "95 % interval": interval(x), "n": str(x.n)}
            for name, x in found.items()
        ]
    )
    cells = pd.DataFrame(
        [
            {
                "row": row,
                **{factor: "q1_8's" if on else "q1_2's" for factor, on in zip(FACTORS, cell, strict=True)},
                "best accuracy": f"{x.mean:.4f} {interval(x)}",
            }
            for cell, row in CELLS.items()
            for x in [estimate([r.best("accuracy") for r in e.of(row, seeds)])]
        ]
    )
    whole = _paired(*([r.best("accuracy") for r in e.of(row, seeds)] for row in ("q1_8", "q1_2")))
    return [
        f"## The better recipe: network, optimizer or augmentation? ({e.data})",
        f"The report changed all three at once. Here every combination ran, {len(seeds)} seeds each; q1_8 and q1_2 "
        f"differ by {_gain(whole)} {interval(whole)}. A main effect is the mean over the settings of the other two.",
        markdown(table),
        markdown(cells),
    ]


def _selection(sets: Sequence[Evidence], profile: Profile) -> list[str]:
    """Best epoch against last epoch."""
    lines = []
    for e in sets:
        for row in profile.rows:
            runs = e.runs.get(row.row, ())
            images = e.images(row.row, [r.seed for r in runs])
            if images is None:
                continue
            metric = runs[0].primary
            found = selection_over_seeds(images, metric, np.random.default_rng(0), splits=100)
            apart = estimate([r.best(metric) - r.last(metric) for r in runs])
            lines.append(
                {
                    "row": row.id,
                    "figure": NAMES[metric],
                    "best": f"{found['best'].mean:.4f}",
                    "best - last": _gain(apart),
                    "flattery of half the images": f"{_gain(found['optimism'])} {interval(found['optimism'])}",
                    "of all, at most": _gain(found["best_optimism"]),
                    "choosing brings": f"{_gain(found['gain'])} {interval(found['gain'])}",
                    "n": str(found["best"].n),
                }
            )
    if not lines:
        return []
    return [
        "## Best epoch against last epoch: how much is selection",
        "The validation images are split in halves, 100 times: the epoch is chosen on one half, and its figure taken "
        "there and on the other. *Flattery*: the first minus the second. On all images it is at most 1/√2 of that. "
        "*Choosing brings*: the chosen epoch's figure on the other half, less the last epoch's there.",
        markdown(pd.DataFrame(lines)),
    ]


def _noise(sets: Sequence[Evidence], profile: Profile) -> list[str]:
    """How far one run's figure may lie off, for its seed and for its images."""
    lines = []
    for e in sets:
        for row in profile.rows:
            runs = e.runs.get(row.row, ())
            images = e.images(row.row, [r.seed for r in runs])
            if images is None or len(runs) < 2:
                continue
            metric = runs[0].primary
            arm = [(x, r.best_epoch(metric)) for x, r in zip(images, runs, strict=True)]
            noise = image_noise(arm, None, metric, np.random.default_rng(0))
            seed = estimate([r.best(metric) for r in runs]).sd
            share = noise.mean_variance / (noise.mean_variance + seed**2) if noise.mean_variance + seed else math.nan
            lines.append(
                {
                    "row": row.id,
                    "figure": NAMES[metric],
                    "other seed": f"± {seed:.4f}",
                    f"other {noise.images} images": f"± {math.sqrt(noise.mean_variance):.4f}",
                    "images' share of the variance": f"{100 * share:.0f} %",
                    "n": str(len(runs)),
                }
            )
    if not lines:
        return []
    frames: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in lines:
        frames.setdefault(tuple(line), []).append(line)
    return [
        "## Two sources of noise: the seed, and the validation images",
        "Standard deviations of a best figure: over seeds on the same images, and over bootstrap draws of the images "
        "(by class; whole images for mIoU) for the mean over seeds. More seeds do nothing about the second.",
        *(markdown(pd.DataFrame(of_set)) for of_set in frames.values()),
    ]


def _details(outcomes: Sequence[Outcome]) -> list[str]:
    """The rest of what the comparisons say."""
    lines = []
    for o in outcomes:
        c = o.comparison
        both = o.with_other_images
        lines.append(
            {
                "claim": o.claim.id,
                "p": p_value(c.p_value),
                "p (Holm)": p_value(o.adjusted_p),
                "p (sign flips)": p_value(c.permutation_p),
                "p with other images": "-" if both is None else p_value(both.p_value(o.claim.margin)),
                "effect size": "-" if math.isnan(c.effect) else f"{c.effect:.2f}",
                "P(A > B)": f"{c.superiority:.2f} [{c.superiority_low:.2f}, {c.superiority_high:.2f}]",
                "pairing": "-" if math.isnan(c.pairing) else f"{c.pairing:.2f}",
                "seeds to decide": "-" if c.seeds_needed is None else str(c.seeds_needed),
                "n": str(o.difference.n),
            }
        )
    if not lines:
        return []
    return [
        "## The comparisons in full",
        "*Effect size*: Cohen's d of the paired differences, with Hedges' correction. *P(A > B)*: probability that one "
        "run of the better row beats one of the worse, with a Wilson interval. *Pairing*: the rows of a comparison "
        "share seeds, order and augmentation; variance of the difference without pairing over that with it, so that "
        "2.00 halves the runs needed, and 1.00 gains nothing. *Seeds to decide*: for the t test at 5 % to decide 90 "
        "times in 100, at the mean and spread seen (before Holm's correction). *p with other images*: both sources of "
        "noise, not corrected.",
        markdown(pd.DataFrame(lines)),
    ]


def _stability(outcomes: Sequence[Outcome]) -> list[str]:
    """How often few seeds give the verdict of all."""
    lines = []
    for seeds in dict.fromkeys(o.seeds for o in outcomes):
        family = [o for o in outcomes if o.seeds == seeds]
        if len(seeds) <= FEW:
            continue
        floors = [rounding_sd(1 / o.images) if o.claim.metric == "accuracy" else 0.0 for o in family]
        margins = [o.claim.margin for o in family]
        found = stability([o.differences for o in family], margins, np.random.default_rng(0), FEW, floors=floors)
        for o, s in zip(family, found, strict=True):
            lines.append(
                {
                    "claim": o.claim.id,
                    f"verdict of all {len(seeds)}": o.verdict,
                    "the same": f"{100 * s.same:.1f} %",
                    "undecided": f"{100 * s.undecided:.1f} %",
                    "the opposite": f"{100 * s.opposite:.1f} %",
                }
            )
    if not lines:
        return []
    return [
        f"## Would {FEW} seeds have been enough?",
        f"1,000 draws of {FEW} of the seeds, the same for all claims, judged anew together: how often they say what "
        "all seeds say.",
        markdown(pd.DataFrame(lines)),
    ]


def _null(claims: int) -> list[str]:
    lines = [
        {
            "spread": row["spread"],
            "seeds": str(row["seeds"]),
            "a verdict is wrong": _share(row["wrong"], row["wrong_se"]),
            f"any of {claims}, after Holm": _share(row["family"], row["family_se"]),
            "the interval covers": _share(row["coverage"], row["coverage_se"]),
        }
        for row in null_table(np.random.default_rng(0), claims=claims)
    ]
    return [
        "## How often verdicts are wrong",
        f"10,000 simulated studies of {claims} claims, none of which holds; stated rate 5 %, stated coverage 95 %; ± "
        "the Monte Carlo standard error. *Accuracies*: shares of 80 images, equal by chance now and then; the "
        "verdicts above know their resolution.",
        markdown(pd.DataFrame(lines)),
    ]


def _share(value: float | str, error: float | str) -> str:
    return f"{100 * float(value):.2f} ± {100 * float(error):.2f} %"


def _sensitivity(found: Sequence[Detection], bounds: Bounds) -> list[str]:
    """What the negative controls say of the bounds."""
    if not found:
        return []
    lines = []
    for d in found:
        enough = least(found, d.control)
        mark = " **(least)**" if d.strength == enough else ""
        lines.append(
            {
                "sabotage": d.control.words.format(d.strength) + mark,
                "row": d.control.row,
                "noticed by": d.figure,
                "mean": f"{d.mean:.4f}",
                "bound": f"[{d.bound.low:.4f}, {d.bound.high:.4f}]",
                "n": str(d.n),
                "a bound missed": "yes" if d.caught else "no",
                "chance per night": f"{d.probability:.2f}",
            }
        )
    return [
        "## Negative controls: how little sabotage the bounds notice",
        f"Rows spoilt on purpose, held against the bounds of the row they spoil. *Chance per night*: that a session of "
        f"{bounds.seeds} seeds misses that bound. *Least*: the weakest sabotage tried that is noticed with a chance of "
        f"{DETECTED} or more. All bounds together raise a false alarm in {100 * bounds.false_alarms:g} % of nights.",
        markdown(pd.DataFrame(lines)),
    ]
