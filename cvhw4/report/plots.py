"""Pictures of figures: learning curves of every row, and the claims as a forest plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from cvhw4.errors import printable
from cvhw4.experiments import PROFILES, Experiment
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import COLOURS, INK, Picture, to_svg
from cvhw4.report.tables import NAMES
from cvhw4.report.text import escape, in_picture
from cvhw4.statistics.intervals import t_quantile
from cvhw4.statistics.verdicts import Outcome, stated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # panels beside each other
_VERDICTS = {"supported": (COLOURS[2], "o"), "contradicted": (COLOURS[5], "X"), "undecided": (COLOURS[6], "s")}


def band(values: Sequence[Sequence[float]]) -> np.ndarray:
    """float64 [3, E]: mean over runs, and the ends of its 95 % interval (Student's t), of [n, E] figures; the mean
    alone three times where there is one run."""
    array = np.asarray(values, dtype=float)
    mean, n = array.mean(0), len(array)
    half = t_quantile(0.975, n - 1) * array.std(0, ddof=1) / math.sqrt(n) if n > 1 else np.zeros_like(mean)
    return np.stack([mean, mean - half, mean + half])


def curves(
    stem: str, data: str, groups: Mapping[str, Sequence[RunRecord]], rows: Sequence[Experiment], metric: str, words: str
) -> Picture:
    """A panel per row: the figure on the validation set by epoch; to be called within `style`.

    Args:
        groups: runs by row id; those of a row have the same number of epochs.
        data: how the data set is called.
        rows: experiments that have runs, one or more.
        metric: the figure's name in the record; `words` names it on the page.
    """
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = _figure(2.3 * max(columns, 2) + 0.4, 1.55 * lines + 0.55)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    longest = max(len(groups[row.id][0].epochs) for row in rows)
    for axes, row in zip(panels.flat, rows, strict=False):
        runs = groups[row.id]
        mean, low, high = band([[e.figures[metric] for e in r.epochs] for r in runs])
        epochs = np.arange(1, len(mean) + 1)
        if metric in NAMES:  # shares, whatever their interval says
            low, high = low.clip(0), high.clip(max=1)
        axes.fill_between(epochs, low, high, color=COLOURS[0], alpha=0.3, linewidth=0)
        axes.plot(epochs, mean, color=COLOURS[0], marker="o", markersize=3 if len(mean) < 15 else 0, linewidth=1.4)
        reported = row.reported.figures.get(metric)
        if reported is not None:
            axes.axhline(reported, color=COLOURS[5], linewidth=0.8, linestyle=(0, (1, 2)))
            at = min(row.reported.epochs.get(metric, longest), longest)
            axes.plot(at, reported, "D", color=COLOURS[5], markersize=5, markerfacecolor="none", clip_on=False)
        axes.set_title(f"{row.id} (n = {len(runs)})", fontsize=8, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    panels[0, 0].set_xlim(1 - 0.04 * longest, longest * 1.04)
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
    for axes in panels.flat[len(rows) :]:
        axes.set_visible(False)
    for column in range(columns):  # the lowest panel that is there numbers the epochs
        panels[(len(rows) - 1 - column) // columns, column].tick_params(labelbottom=True)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(words, fontsize=9)
    n = sorted({len(groups[row.id]) for row in rows})
    seeds = f"{n[0]} to {n[-1]} seeds a row" if len(n) > 1 else f"{n[0]} seed{'s' * (n[0] > 1)} a row"
    first = next(iter(groups.values()))[0]
    ends = ", ".join(f"{row.id} {band([[r.last(metric)] for r in groups[row.id]])[0, 0]:.3f}" for row in rows)
    marked = any(metric in row.reported.figures for row in rows)
    return Picture(
        stem,
        to_svg(figure),
        f"Learning curves on {printable(data)}: {words} by epoch; after the last one {ends}.",
        f"{words[0].upper()}{words[1:]}{' (share, 0 to 1)' if metric in NAMES else ''} on {first.data.val} validation "
        f"images after every epoch: mean over seeds, band: its 95 % interval, {seeds}."
        + (" Diamond: the report's figure, at its epoch or at the last one here." if marked else ""),
    )


def forest(outcomes: Sequence[Outcome]) -> Picture:
    """A line per claim: difference over seeds with its intervals, the report's beside it; to be called within
    `style`."""
    from matplotlib.lines import Line2D

    reported = [stated(o.claim, PROFILES["full"].rows).difference - o.claim.margin for o in outcomes]
    sentences = [o.claim.sentence for o in outcomes]
    if len({o.claim.id for o in outcomes}) < len(outcomes):  # on several data sets
        sentences = [f"{o.claim.sentence} ({printable(o.data)})" for o in outcomes]
    labels = [fill(in_picture(sentence), 54) for sentence in sentences]
    tall = [1.0 + 0.45 * label.count("\n") for label in labels]
    centres = [sum(tall[:i]) + tall[i] / 2 for i in range(len(tall))]
    figure = _figure(8.6, 0.27 * sum(tall) + 1.0)
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    for o, y, one in zip(outcomes, centres, reported, strict=True):
        (colour, marker), both, margin = _VERDICTS[o.verdict], o.with_other_images, o.claim.margin
        for e, width in ((both.estimate if both else None, 1.0), (o.difference, 3.4)):
            if e is not None and e.n > 1:
                axes.plot([e.low - margin, e.high - margin], [y, y], color=colour, linewidth=width)
        axes.plot(o.difference.mean - margin, y, marker, color=colour, markersize=7, markeredgecolor="none")
        if not math.isnan(one):
            axes.plot(one, y, "D", color=COLOURS[1], markersize=6, markerfacecolor="none", markeredgewidth=1.3)
        number = f"{o.difference.mean - margin:+.3f}  "
        axes.text(1.01, y, number + o.verdict, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    shares = all(o.claim.metric in NAMES for o in outcomes)
    if shares:  # two seeds have intervals beyond all of them
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, -1), min(right, 1))
    axes.set_yticks(centres, labels, fontsize=8)
    axes.set_ylim(sum(tall), 0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)
    unit = " (shares, 0 to 1)" if shares else ""
    axes.set_xlabel(f"difference of best figures{unit}; the claim holds on the right", fontsize=8)
    shown = [v for v in _VERDICTS if any(o.verdict == v for o in outcomes)]
    keys = [Line2D([], [], color=_VERDICTS[v][0], marker=_VERDICTS[v][1], linewidth=3.4, label=v) for v in shown]
    if any(o.with_other_images for o in outcomes):
        keys.append(Line2D([], [], color=INK, linewidth=1, label="with other images too"))
    if not all(map(math.isnan, reported)):
        diamond = Line2D([], [], color=COLOURS[1], marker="D", linewidth=0, markerfacecolor="none", label="the report")
        keys.append(diamond)
    figure.legend(handles=keys, loc="outside upper left", ncols=len(keys), fontsize=8)
    stating = "" if all(map(math.isnan, reported)) else "open diamond: the difference that the report states; "
    n = sorted({o.difference.n for o in outcomes})
    told = "; ".join(
        f"{sentence}: {o.difference.mean - o.claim.margin:+.3f}, {o.verdict}"
        for sentence, o in zip(sentences, outcomes, strict=True)
    )
    return Picture(
        "forest-claims",
        to_svg(figure),
        f"The claims as a forest plot. {told}.",
        "Each claim's difference: mean over seeds, thick bar: its 95 % interval (Student's t), thin: that with other "
        f"validation images as well, n = {n[0] if len(n) == 1 else f'{n[0]} to {n[-1]}'} seeds, paired; {stating}"
        "right of the line the claim holds. "
        f"Data: {', '.join(map(escape, dict.fromkeys(o.data for o in outcomes)))}.",
    )


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
