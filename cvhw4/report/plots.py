"""Pictures of figures: learning curves of every row, and the claims as a forest plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import fill
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import COLOURS, INK, Picture, by_line, draw, grid_of_panels
from cvhw4.report.numbers import ends, number
from cvhw4.report.runs import by_data, grouped, metric_heading, of_study, published, seeds
from cvhw4.report.text import escape, in_picture
from cvhw4.statistics.bounds import bounds_of
from cvhw4.statistics.intervals import OTHER_PICTURES, estimate
from cvhw4.statistics.published import stated
from cvhw4.statistics.sensitivity import DETECTED, Detection
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Row, Study
from cvhw4.study.checks import choose
from cvhw4.tasks import CUSTOM, LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # panels beside each other
_DASHES = ("-", "--", "-.", ":")  # of curves in one panel, once all colours are taken
_VERDICTS = {
    "supported": (COLOURS[2], "o"),
    "contradicted": (COLOURS[5], "X"),
    "equivalent": (COLOURS[4], "^"),
    "undecided": (COLOURS[6], "s"),
    OTHER_PICTURES: (COLOURS[6], "x"),
}


def band(values: Sequence[Sequence[float]]) -> np.ndarray:
    """float64 [3, E]: mean over runs, and the ends of its 95 % interval, of [n, E] figures; the mean
    alone three times where there is one run."""
    found = [estimate(of_epoch) for of_epoch in np.asarray(values, dtype=float).T.tolist()]
    return np.array([(e.mean, e.low, e.high) if e.n > 1 else (e.mean,) * 3 for e in found]).T


def _curve(runs: Sequence[RunRecord], metric: str) -> np.ndarray:
    """`band` of a row's runs up to the last epoch that all have: a loop of one's own may stop when it likes."""
    shortest = min(len(r.epochs) for r in runs)
    return band([[e.figures[metric] for e in r.epochs[:shortest]] for r in runs])


def curves(
    stem: str,
    data: str,
    groups: Mapping[str, Sequence[RunRecord]],
    rows: Sequence[Row],
    metric: str,
    study: Study,
    width: float | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    together: bool = False,
) -> Picture:
    """A panel per row, or one for all: a metric on the validation set by epoch. A row's curve ends with the shortest of
    its runs.

    Args:
        data: how the data set is called.
        rows: those that have runs, one or more.
        width: in inches, for a column of a paper; left out, as pages have it.
        names: what rows are called, where that is not their name.
        together: whether all are in one panel, told apart by colours, and by dashes where these do not suffice.

    Raises:
        InputError: so many rows together that neither suffices.
    """
    panels_shown = 1 if together else len(rows)
    called = {row.name: names.get(row.name) or row.name for row in rows}
    across = COLUMNS if width is None else max(int(width / 1.6), 1)
    longest = max(len(r.epochs) for row in rows for r in groups[row.name])
    share = metric in LABELS and rows[0].task.name != CUSTOM.name  # 0 to 1
    marks = {row.name: published(study, row.name, metric) for row in rows}
    bands = {row.name: _curve(groups[row.name], metric) for row in rows}
    looks = [(colour, dashes) for dashes in _DASHES for colour in COLOURS]
    if together and len(rows) > len(looks):
        hint = f"name {len(looks)} at most, or give each a panel"
        raise InputError("curves", f"have {len(rows)} rows together", hint)

    def paint(figure: Figure) -> None:
        panels = grid_of_panels(figure, panels_shown, across)
        for i, row in enumerate(rows):
            axes, runs = panels.flat[0 if together else i], groups[row.name]
            colour, dashes = looks[i if together else 0]
            label = f"{in_picture(called[row.name])} (n = {len(runs)})"
            mean, low, high = bands[row.name]
            epochs = np.arange(1, len(mean) + 1)
            if share:  # whatever the interval says
                low, high = low.clip(0), high.clip(max=1)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.3, linewidth=0)
            size = 3 if len(mean) < 15 else 0
            axes.plot(epochs, mean, dashes, color=colour, marker="o", markersize=size, linewidth=1.4, label=label)
            mark = marks[row.name]
            if mark is not None:
                of_mark = colour if together else COLOURS[5]
                axes.axhline(mark, color=of_mark, linewidth=0.8, linestyle=(0, (1, 2)))
                at = min(study.published[row.name].epochs.get(metric, longest), longest)
                axes.plot(at, mark, "D", color=of_mark, markersize=5, markerfacecolor="none", clip_on=False)
            if not together:
                axes.set_title(label, fontsize=8, loc="left")
            axes.tick_params(labelsize=8)
            axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        if together:
            figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", fontsize=7)
        panels[0, 0].set_xlim(1 - 0.04 * longest, longest * 1.04)
        panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel(in_picture(LABELS.get(metric, metric)), fontsize=9)

    images = groups[rows[0].name][0].data.val
    last = "; ".join(f"{printable(called[name])} {number(float(mean[-1]))}" for name, (mean, *_) in bands.items())
    marked = any(mark is not None for mark in marks.values())
    band_words = ", band: its 95 % interval" * any(len(groups[row.name]) > 1 for row in rows)
    return draw(
        stem,
        (
            width or 2.3 * max(min(COLUMNS, panels_shown), 2) + 0.4,
            2.4 + 0.16 * len(rows) if together else 1.55 * -(-len(rows) // across) + 0.55,
        ),
        paint,
        f"Learning curves on {printable(data)}: {LABELS.get(metric, metric)} by epoch; after the last one {last}.",
        f"{metric_heading(metric)}{' (share, 0 to 1)' if share else ''}"
        f"{f' on {images} validation images' if images else ''} after every "
        f"epoch: mean over seeds{band_words}, {seeds({row.name: groups[row.name] for row in rows})}."
        + (" Diamond: the published figure, at its epoch or at the last one here." if marked else ""),
    )


def forest(outcomes: Sequence[Outcome], study: Study, width: float = 8.6) -> Picture:
    """A line per claim, controls below the others: difference over seeds with its intervals, the published one beside
    it."""
    outcomes = sorted(outcomes, key=lambda o: o.claim.control)
    claims = sum(not o.claim.control for o in outcomes)
    apart = 0 < claims < len(outcomes)  # with a line and a heading above the controls
    narrow = width <= 6
    size = 6.5 if narrow else 8  # of letters, in points
    bar, dot = (2.4, 3.5) if narrow else (3.4, 7)
    marks = [stated(o.claim, study).difference - o.claim.margin for o in outcomes]
    marked = not all(map(math.isnan, marks))
    sentences, n = [o.claim.sentence for o in outcomes], sorted({o.difference.n for o in outcomes})
    if len({o.claim.id for o in outcomes}) < len(outcomes):  # on several data sets
        sentences = [f"{o.claim.sentence} ({printable(o.data)})" for o in outcomes]
    labels = [fill(in_picture(sentence), max(round(6.3 * width), 18)) for sentence in sentences]
    heights = [1.0 + 0.45 * label.count("\n") for label in labels]
    centres, line = np.cumsum(heights) - np.array(heights) / 2, sum(heights[:claims])
    centres[claims:] += apart
    shares = study.train is None and all(o.claim.metric in LABELS for o in outcomes)
    wide = any(o.difference.n > 1 and o.with_other_images for o in outcomes)

    def paint(figure: Figure) -> None:
        from matplotlib.lines import Line2D

        axes = figure.subplots()
        if narrow:
            axes.margins(x=0.12)  # a diamond at the end is not to touch the text
        axes.axvline(0, color=INK, linewidth=0.8)
        for o, y, mark in zip(outcomes, centres, marks, strict=True):
            (colour, marker), both, margin = _VERDICTS[o.verdict], o.with_other_images, o.claim.margin
            for e, thick in ((both.estimate if both else None, 1.0), (o.difference, bar)):
                if e is not None and e.n > 1:
                    axes.plot([e.low - margin, e.high - margin], [y, y], color=colour, linewidth=thick)
            axes.plot(o.difference.mean - margin, y, marker, color=colour, markersize=dot, markeredgecolor="none")
            if not math.isnan(mark):
                edge = 0.9 if narrow else 1.3
                shape = axes.plot(mark, y, "D", color=COLOURS[1], markersize=dot * 0.86, markeredgewidth=edge)
                shape[0].set_markerfacecolor("none")
            shown = f"{number(o.difference.mean - margin, sign='+')}  {o.verdict}"
            axes.text(1.01, y, shown, transform=axes.get_yaxis_transform(), va="center", fontsize=size)
        if shares:  # two seeds have intervals beyond all of them
            left, right = axes.get_xlim()
            axes.set_xlim(max(left, -1), min(right, 1))
        ticks = dict(zip(centres, labels, strict=True))
        if apart:
            axes.axhline(line, color=INK, linewidth=0.6)
            ticks = dict(sorted({**ticks, line + 0.5: "Controls"}.items()))
        axes.set_yticks([*ticks], [*ticks.values()], fontsize=size)
        axes.set_ylim(sum(heights) + apart, 0)
        axes.tick_params(axis="x", labelsize=size)
        axes.spines["left"].set_visible(False)
        by_line(axes)
        unit = " (shares, 0 to 1)" if shares else ""
        words = f"difference after the {study.epoch} epoch{unit}; the claim holds on the right"
        axes.set_xlabel(fill(words, round(12 * width)), fontsize=size)
        keys = [
            Line2D([], [], color=colour, marker=marker, markersize=min(dot, 6), linewidth=bar, label=v)
            for v, (colour, marker) in _VERDICTS.items()
            if any(o.verdict == v for o in outcomes)
        ]
        if wide:
            keys.append(Line2D([], [], color=INK, linewidth=1, label="with other images too"))
        if marked:
            key = Line2D([], [], label="published", color=COLOURS[1], marker="D", linewidth=0, markerfacecolor="none")
            keys.append(key)
        columns = min(len(keys), max(int(width / 1.6), 1))
        figure.legend(handles=keys, loc="outside upper left", ncols=columns, fontsize=size)

    words = [
        f"{sentence}: {number(o.difference.mean - o.claim.margin, sign='+')}, {o.verdict}"
        for sentence, o in zip(sentences, outcomes, strict=True)
    ]
    if apart:
        words[claims] = f"controls: {words[claims]}"
    return draw(
        "forest-claims",
        (width, 0.27 * size / 8 * (sum(heights) + apart) + 1.0),
        paint,
        f"The claims as a forest plot. {'; '.join(words)}.",
        f"Each claim's difference after the {study.epoch} epoch: mean over seeds, "
        + "thick bar: its 95 % interval (for this claim alone: the verdict is corrected for several), " * (n[-1] > 1)
        + "thin: that with other validation images as well, " * wide
        + f"n = {ends(n)} seed{'s' * (n[-1] > 1)}, paired; "
        f"{'open diamond: the published difference, of best epochs; ' if marked else ''}"
        "right of the line the claim holds. "
        + "Below, the controls, which check the study itself. " * apart
        + f"Data: {'; '.join(map(escape, dict.fromkeys(o.data for o in outcomes)))}.",
    )


def doses(found: Sequence[Detection], runs: int) -> Picture | None:
    """A panel per negative control tried at several strengths: the chance that a session of so many runs notices, by
    strength; None where there is no such control."""
    by_control = grouped(found, lambda d: d.control.name)
    tried = {name: sorted(of, key=lambda d: d.strength) for name, of in by_control.items() if len(of) > 1}
    if not tried:
        return None
    across = min(COLUMNS, len(tried))

    def paint(figure: Figure) -> None:
        panels = grid_of_panels(figure, len(tried), COLUMNS, sharex=False)
        for axes, (name, of_control) in zip(panels.flat, tried.items(), strict=False):
            at, chances = range(len(of_control)), [d.probability for d in of_control]
            axes.axhline(DETECTED, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.vlines(at, [d.low for d in of_control], chances, color=COLOURS[0], linewidth=1.4)
            axes.plot(at, chances, "-o", color=COLOURS[0], markersize=4, linewidth=1.4)
            axes.set_xticks(at, [f"{d.strength:g}" for d in of_control])
            axes.set_title(in_picture(name), fontsize=8, loc="left")
            axes.tick_params(labelsize=8)
            axes.margins(x=0.12)
        panels[0, 0].set_ylim(-0.05, 1.05)
        figure.supxlabel("strength", fontsize=9)
        figure.supylabel("chance per session", fontsize=9)

    words = "; ".join(
        f"{name}: " + ", ".join(f"{d.probability:.2f} at {d.strength:g}" for d in of_control)
        for name, of_control in tried.items()
    )
    return draw(
        "doses",
        (2.3 * max(across, 2) + 0.4, 1.75 * -(-len(tried) // across) + 0.45),
        paint,
        f"Negative controls: the chance that a session notices, by strength. {words}.",
        f"The chance that a session of {runs} seeds notices a corruption, by its strength, from "
        f"n = {ends(sorted({d.n for d in found}))} runs each; bar: down to the lower end of its 95 % interval. Dotted: "
        f"{DETECTED}.",
    )


# For papers


def _called(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """What is shown, and what it is called, "" for its own name."""
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, "")


def claims_figure(
    study: Study, records: Sequence[RunRecord], width: float = 8.6, names: Sequence[str] | Mapping[str, str] = ()
) -> Picture:
    """The study's claims as a forest plot: for each the difference over seeds, its 95 % interval and the verdict.

    Args:
        records: one of each row and seed on each data set.
        width: in inches; a column of a paper has some 3.3.
        names: ids of the claims shown, in this order, controls below the others; none for all; a mapping gives what
            each is called. All are judged together, whichever are shown.

    Raises:
        InputError: the runs judge no claim, or not one that is named.
    """
    runs = of_study(study, records)
    outcomes = judge_all(study, runs, bounds=bounds_of(study))
    if not outcomes:
        hint = "train the rows of a claim with the same seeds, or name other runs"
        raise InputError("claims", "are judged by none of these runs", hint)
    by_id = grouped(outcomes, lambda o: o.claim.id)
    for name in names:
        choose("claims", "claim", name, [*by_id])
    shown = [
        replace(o, claim=replace(o.claim, sentence=text or o.claim.words(study.labels)))
        for id, text in (_called(names) or dict.fromkeys(by_id, "")).items()
        for o in by_id[id]
    ]
    return forest(shown, study, width)


def curves_figure(
    study: Study,
    records: Sequence[RunRecord],
    names: Sequence[str] | Mapping[str, str] = (),
    metric: str | None = None,
    width: float | None = None,
    together: bool = False,
) -> Picture:
    """Learning curves: a panel for each row, or one for all, the mean over seeds by epoch with its 95 % band.

    Args:
        records: one of each row and seed.
        names: of the rows shown; none for all that have runs. A mapping gives what each is called.
        metric: left out, the primary one of the first run.
        width: in inches, likewise; left out, as pages have it.
        together: whether all rows are in one panel, with a legend.

    Raises:
        InputError: a row that the study has not, no run with that metric, runs on several data sets, or more rows
            together than can be told apart.
    """
    called = {study.row(name).name: text for name, text in _called(names).items()}
    wanted = [*called] or [*study.rows]
    runs = [r for r in of_study(study, records) if r.row in wanted]
    metric = metric or (runs[0].primary if runs else "")
    sets = by_data([r for r in runs if metric in r.metrics])
    if not sets:
        there = ", ".join(dict.fromkeys(m for r in runs for m in r.metrics))
        hint = f"name another metric: {there}" if there else "train these rows, or name others"
        raise InputError("curves", f"have no runs with {metric or 'any metric'}", hint)
    if len(sets) > 1:
        hint = "name rows that ran on one of them alone, or keep the runs of each in a results folder of its own"
        raise InputError("curves", f"would be of {'; '.join(sets)}", hint)
    ((data, groups),) = sets.items()
    called = {name: called.get(name) or study.labels.get(name, name) for name in wanted}
    rows = [study.rows[name] for name in wanted if name in groups]
    return curves("curves", data, groups, rows, metric, study, width, called, together)
