"""Pictures of segmentation: what networks make of scenes, and IoU by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import printable
from cvhw4.labels import VOID, Colour, Merged
from cvhw4.records.samples import PredictionSamples, ValidationPictures
from cvhw4.records.schema import RunRecord
from cvhw4.report.figures import COLOURS, INK, MOST_SIDE, Picture, by_line, draw, frame, grid_of_panels, shrink_map
from cvhw4.report.runs import Groups, class_names, of_class, seeds
from cvhw4.report.saliency import ReadPictures, ReadSamples
from cvhw4.report.text import ending, escape, in_picture
from cvhw4.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCENES = 4  # that are shown at most
_PANELS = 4  # of bars beside each other
# Where two networks differ: their numbers below, in colours distinguishable with every common kind of colour blindness.
SAME, FIRST, SECOND, NEITHER, UNLABELLED = range(5)
_MARKS = ("#EDEDED", COLOURS[0], COLOURS[1], "#B5477F", "#9A9A9A")
_UNLABELLED = "void: not labelled"


class Arms(NamedTuple):
    """Two runs with one seed, what they made of the same pictures, and whether they differ in their skip connections
    alone, which the first has."""

    first: RunRecord
    second: RunRecord
    seen: tuple[PredictionSamples, PredictionSamples]
    pictures: ValidationPictures
    skips: bool

    @property
    def words(self) -> tuple[str, str]:
        """How what one of them does alone is called."""
        return ("with skips", "without") if self.skips else (f"in {self.first.row}", f"in {self.second.row}")


def find_arms(groups: Groups, samples: ReadSamples, pictures: ReadPictures) -> Arms | None:
    """Of the first two rows with the same settings but for `skips`, or else of the first two of the same classes, the
    first seed for which both have samples of the same pictures."""
    pairs = combinations([runs for runs in groups.values() if runs], 2)
    for one, two in sorted(pairs, key=lambda pair: not _skips_alone(*pair)):
        if one[0].merged != two[0].merged:
            continue
        skips = _skips_alone(one, two)
        first, second = (two, one) if skips and two[0].settings["skips"] else (one, two)
        by_seed = {r.seed: r for r in second}
        for record in first:
            if record.seed not in by_seed or (a := samples(record)) is None:
                continue
            b = samples(by_seed[record.seed])
            seen = pictures(a.pictures)
            if b is not None and seen is not None and a.pictures == b.pictures and seen.masks is not None:
                whole = all(x is not None and x.shape == seen.masks.shape for x in (a.predicted, b.predicted))
                whole = whole and int(seen.masks.max()) < len(record.merged.targets)
                if whole and np.array_equal(a.index, seen.index) and np.array_equal(b.index, seen.index):
                    return Arms(record, by_seed[record.seed], (a, b), seen, skips)
    return None


def _skips_alone(one: Sequence[RunRecord], two: Sequence[RunRecord]) -> bool:
    """Whether the runs of two rows differ in nothing but their skip connections."""
    a, b = one[0], two[0]
    rest = [{k: v for k, v in r.settings.items() if k != "skips"} | {"study": r.data.fingerprint} for r in (a, b)]
    return rest[0] == rest[1] and a.settings["skips"] != b.settings["skips"]


def palette_of(classes: Sequence[str], merged: Merged, colours: Mapping[str, Colour]) -> NDArray[np.uint8]:
    """uint8 [C + 1, 3]: the colours of the classes that a network tells apart, and of void.

    A merged class has the colour of the first of its classes. What `colours` lacks is made: the same for a class of one
    number everywhere, void black.
    """
    found = [colours.get(name) or _made(number) for number, name in enumerate(classes)]
    void = colours.get(VOID, (0, 0, 0))
    return np.array([*([*found, void][first] for first in merged.first), void], dtype=np.uint8)


def _made(number: int) -> Colour:
    """A colour for a class by its number: Okabe and Ito's, then hues a golden angle apart, in three tones."""
    if number < len(COLOURS):
        red, green, blue = _rgb([COLOURS[number]])[0].tolist()
        return red, green, blue
    bright = (0.95, 0.75, 0.5)[number % 3]
    red, green, blue = (round(255 * part) for part in hsv_to_rgb(number * 0.618034 % 1, 0.65, bright))
    return red, green, blue


def scenes(stem: str, data: str, arms: Arms, colours: Mapping[str, Colour]) -> Picture:
    """Validation scenes from the one that the arms agree about most to the one they differ most about: image, truth,
    what the first made of it, what the second, and where they differ. `colours` are as `Scenes.colours`."""
    merged = arms.first.merged
    names, classes = merged.names, len(merged.names)
    palette = palette_of(arms.first.data.classes, merged, colours)
    one, other = arms.words
    words = {
        FIRST: f"right only {in_picture(one)}",
        SECOND: f"right only {in_picture(other)}",
        NEITHER: "both wrong, differently",
        SAME: "the same",
        UNLABELLED: _UNLABELLED,
    }
    assert arms.pictures.masks is not None
    truth = np.array(merged.targets, dtype=np.uint8)[arms.pictures.masks]
    first, second = (e.predicted for e in arms.seen)
    assert first is not None and second is not None
    marks = differences(truth, first, second, classes)
    labelled = np.maximum((marks != UNLABELLED).sum((1, 2)), 1)[:, None]
    shares = np.stack([(marks == m).sum((1, 2)) for m in (FIRST, SECOND, NEITHER)], 1) / labelled
    chosen = spread_over(shares.sum(1), SCENES)
    shown = {int(c) for k in chosen for array in (truth, first, second) for c in np.unique(array[k])}

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Patch

        grid = figure.add_gridspec(len(chosen) + 1, 5, height_ratios=[*[1.0] * len(chosen), 0.55])
        panels = np.array([[figure.add_subplot(grid[y, x]) for x in range(5)] for y in range(len(chosen))])
        keys = [figure.add_subplot(grid[-1, columns]) for columns in (slice(0, 4), 4)]
        for line, k in zip(panels, chosen, strict=True):
            frame(line[0], arms.pictures.picture(k, MOST_SIDE))
            line[0].set_xlabel(in_picture(ending(arms.pictures.names[k], 22)))
            for axes, array in zip(line[1:4], (truth, first, second), strict=True):
                frame(axes, palette[shrink_map(array[k])])
            for axes, array in zip(line[2:4], (first, second), strict=True):
                right = (array[k] == truth[k]).sum() / labelled[k, 0]
                axes.set_xlabel(f"{100 * right:.1f} % of pixels right")
            frame(line[4], _rgb(_MARKS)[shrink_map(marks[k])])
            line[4].set_xlabel(" · ".join(f"{100 * share:.1f}" for share in shares[k]) + " %")
        of_skips = ("with skips\n", "without skips\n") if arms.skips else ("", "")
        arm_titles = [w + in_picture(r.row) for w, r in zip(of_skips, (arms.first, arms.second), strict=True)]
        for axes, title in zip(panels[0], ["image", "truth", *arm_titles, "where they differ"], strict=True):
            axes.set_title(title, fontsize=8.5)
        for axes in panels.flat:
            axes.xaxis.label.set_size(7.5)
            axes.xaxis.labelpad = 2
        patches = [
            Patch(facecolor=palette[c] / 255, edgecolor=INK, linewidth=0.5, label=in_picture(name))
            for c, name in enumerate([*names, _UNLABELLED])
            if c in shown
        ]
        differ = [
            Patch(facecolor=_MARKS[m], edgecolor=INK, linewidth=0.5, label=text)
            for m, text in words.items()
            if (marks[chosen] == m).any()
        ]
        for axes, handles, columns in zip(keys, (patches, differ), (4, 1), strict=True):
            axes.set_axis_off()
            axes.legend(handles=handles, loc="upper center", ncols=columns, fontsize=7.5, borderaxespad=0.0)

    by_scene = "; ".join(
        f"{printable(arms.pictures.names[k])} {100 * a:.1f}, {100 * b:.1f} and {100 * c:.1f} %"
        for k, (a, b, c) in zip(chosen, shares[chosen], strict=True)
    )
    whole = (shares * labelled).sum(0) / labelled.sum()
    alone = printable(one.removesuffix(" skips"))
    by = "with and without skip connections" if arms.skips else f"by {arms.first.row} and {arms.second.row}"
    return draw(
        stem,
        (8.2, 1.84 * len(chosen) + 1.2),
        paint,
        f"Scenes of {printable(data)}, segmented {printable(by)}. Pixels right only {alone}, right only "
        f"{printable(other)}, wrong in both but differently: {by_scene}.",
        f"{len(chosen)} of {len(truth)} validation scenes of {escape(data)} after the last epoch, seed "
        f"{arms.first.seed}, from the one where {escape(arms.first.row)} and {escape(arms.second.row)} differ least to "
        "the one where they differ most, in even steps. Below the last column the shares of labelled pixels right only "
        f"{escape(one)} · right only {escape(other)} · wrong in both but differently; over all {len(truth)} scenes "
        f"{100 * whole[0]:.1f} · {100 * whole[1]:.1f} · {100 * whole[2]:.1f} %.",
    )


def differences(
    truth: NDArray[np.uint8], first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int
) -> NDArray[np.uint8]:
    """uint8 [K, H, W], numbers of `_MARKS`: how two predictions differ where something is labelled."""
    marks = np.full(truth.shape, SAME, np.uint8)
    apart = first != second
    marks[apart & (first == truth)] = FIRST
    marks[apart & (second == truth)] = SECOND
    marks[apart & (first != truth) & (second != truth)] = NEITHER
    marks[truth >= classes] = UNLABELLED
    return marks


def spread_over(values: NDArray[np.floating], most: int) -> list[int]:
    """Indices of at most so many values, in even steps of rank from the smallest to the largest; ties by index."""
    order = np.argsort(values, kind="stable")
    places = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(np.int64)
    return [int(order[place]) for place in places]


def iou_bars(stem: str, data: str, rows: Groups) -> Picture:
    """IoU by class after the last epoch (one confusion matrix over the set, void left out), a panel per row; all rows
    tell the same classes apart."""
    names = class_names(next(iter(rows.values()))[0])
    classes = len(names)
    found = {row: of_class(runs, "set_iou") for row, runs in rows.items()}
    across = min(_PANELS, len(rows))

    def paint(figure: Figure) -> None:
        panels = grid_of_panels(figure, len(rows), _PANELS)
        for axes, (row, bars) in zip(panels.flat, found.items(), strict=False):
            _bars(axes, bars)
            axes.set_title(in_picture(f"{row} (n = {len(rows[row])})"), fontsize=8, loc="left")
        panels[0, 0].set(xlim=(0, 1.28), ylim=(classes - 0.5, -0.5), xticks=[0, 0.5, 1])
        panels[0, 0].set_yticks(range(classes), [in_picture(name) for name in names], fontsize=8)
        figure.supxlabel("IoU", fontsize=9)

    words = ". ".join(
        f"{row}: " + "; ".join(f"{printable(n)} {_in_words(e)}" for n, e in zip(names, bars, strict=True))
        for row, bars in found.items()
    )
    return draw(
        stem,
        (1.9 * across + 1.2, (0.21 * classes + 0.55) * -(-len(rows) // across) + 0.25),
        paint,
        f"IoU by class on {printable(data)}, {classes} classes. {words}.",
        f"IoU by class (share, 0 to 1) on {next(iter(rows.values()))[0].data.val} validation images of {escape(data)} "
        "after the last epoch, from one confusion matrix over the set, void left out: mean over seeds"
        f"{', line: its 95 % interval' * any(len(of) > 1 for of in rows.values())}, {seeds(rows)}. *Never*: no pixel "
        "of the class is right in any run; -: the class occurs in no image.",
    )


def _in_words(e: Estimate | None) -> str:
    if e is None:
        return "-"
    return "never" if e.mean == 0 else "< 0.01" if e.mean < 0.005 else f"{e.mean:.2f}"


def _bars(axes: Axes, bars: Sequence[Estimate | None]) -> None:
    for y, e in enumerate(bars):
        end, text = 0.0, _in_words(e)
        if e is not None:
            axes.barh(y, e.mean, height=0.66, color=COLOURS[4], linewidth=0)
            end = e.mean
            if e.n > 1 and e.mean > 0:
                low, end = max(e.low, 0.0), min(max(e.high, e.mean), 1.0)
                axes.plot([low, end], [y, y], color=INK, linewidth=1.1)
        axes.text(end + 0.03, y, text, va="center", fontsize=7.5)
    axes.tick_params(axis="x", labelsize=8)
    by_line(axes)
    axes.set_axisbelow(True)


def _rgb(colours: Sequence[str]) -> NDArray[np.uint8]:
    return np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], dtype=np.uint8)
