"""Where classifiers look: Grad-CAM heat maps, and how much of their heat lies where the subject is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvhw4.errors import printable
from cvhw4.records.samples import PredictionSamples, ValidationPictures
from cvhw4.records.schema import RunRecord
from cvhw4.report.confusions import wrapped_name
from cvhw4.report.figures import INK, MOST_SIDE, Picture, dots, draw
from cvhw4.report.runs import Groups
from cvhw4.report.text import clip, ending, escape, in_picture
from cvhw4.statistics.intervals import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ReadSamples = Callable[[RunRecord], PredictionSamples | None]
ReadPictures = Callable[[str], ValidationPictures | None]

IMAGES, ROWS = 6, 7  # that `saliency` shows at most
_PITCH = 1.12, 1.35  # of its columns and lines, in inches
_OPAQUE = 0.65  # of the hottest part of a heat map
FACE, CENTRE = "the face", "the central half of the picture"


class _Seen(NamedTuple):
    """A row's first run with stored pictures."""

    record: RunRecord
    samples: PredictionSamples
    probabilities: NDArray[np.float32]
    pictures: ValidationPictures


def saliency(stem: str, data: str, groups: Groups, samples: ReadSamples, pictures: ReadPictures) -> Picture | None:
    """Grad-CAM over the validation images that the rows' first seeds disagree about most: a line per image, a column
    per row, `ROWS` at most; None where nothing is stored, or no run has a map."""
    seen = _first_seen(groups, samples, pictures)
    if not any(s.samples.heat is not None for s in seen.values()):
        return None
    first = next(iter(seen.values()))
    labels = first.pictures.labels
    assert labels is not None
    names = first.record.data.classes
    chosen = disputed(np.stack([s.probabilities for s in seen.values()]), IMAGES)
    width, height = _PITCH[0] * (len(seen) + 1), _PITCH[1] * len(chosen)

    def paint(figure: Figure) -> None:
        from matplotlib import colormaps

        # One panel in inches, for panels of their own take seconds to lay out.
        axes = figure.add_axes((0, 0, 1, 1))
        for x, title in enumerate(["image, class", *seen]):
            axes.text(_PITCH[0] * (x + 0.5), -0.06, wrapped_name(title, 14), ha="center", va="bottom", fontsize=8)
        for y, k in enumerate(chosen):
            label, pictured = int(labels[k]), first.pictures.picture(k, MOST_SIDE)
            below = f"{in_picture(clip(names[label], 16))}\n{in_picture(ending(first.pictures.names[k], 18))}"
            _place(axes, 0, y, pictured, below)
            for x, s in enumerate(seen.values(), 1):
                guess = int(s.probabilities[k].argmax())
                mark = "✓" if guess == label else "✗"
                below = f"{mark} {_answer(s, k, label)}\n{in_picture(clip(names[guess], 16))}"
                _place(axes, x, y, _heated(s, k), below)
        left, right, top = 0.3 * width, 0.7 * width, height + 0.12
        gradient = 255 * colormaps["viridis"](np.arange(256))[None, :, :3]
        axes.imshow(gradient.round().astype(np.uint8), extent=(left, right, top + 0.1, top), interpolation="none")
        axes.text(left - 0.06, top + 0.05, "no heat", ha="right", va="center", fontsize=7.5)
        axes.text(right + 0.06, top + 0.05, "most of the image", va="center", fontsize=7.5)
        axes.set(xlim=(0, width), ylim=(height + 0.35, -0.35))
        axes.set_axis_off()

    votes = "; ".join(
        f"{printable(first.pictures.names[k])} is {printable(names[labels[k]])}, "
        + ", ".join(f"{row}: {_answer(s, k, labels[k])}" for row, s in seen.items())
        for k in chosen
    )
    mapless = ((row, s.samples.why) for row, s in seen.items() if s.samples.heat is None)
    without = "".join(f" No map of {escape(row)}: {escape(why)}." for row, why in mapless)
    left = sum(1 for runs in groups.values() if runs) - len(seen)
    sizes = sorted({s.samples.heat.shape[1:] for s in seen.values() if s.samples.heat is not None})
    seeds = ", ".join(map(str, sorted({s.record.seed for s in seen.values()})))
    most = f"these {len(seen)} rows disagree most" if len(seen) > 1 else "the row is least sure"
    return draw(
        stem,
        (width, height + 0.7),
        paint,
        f"Grad-CAM heat maps on {len(chosen)} validation images of {printable(data)}, rows side by side. {votes}.",
        "Evidence for the predicted class after the last epoch, by Grad-CAM (yellow: most, in each image), from maps "
        f"of {' and '.join(f'{h} x {w}' for h, w in sizes)}, over the {len(chosen)} of {len(first.samples.index)} "
        f"validation images of {escape(data)} about which {most}. Seed {seeds}. Below: "
        f"whether the class is right, and the probability of the class predicted.{without}"
        + (f" Not shown, or without pictures: {left} further row{'s' * (left > 1)}." if left else ""),
        layout=None,
    )


def disputed(probabilities: NDArray[np.floating], most: int) -> list[int]:
    """The images that networks with probabilities [rows, K, C] disagree about most: those where the fewest share the
    commonest prediction, then those whose probabilities are furthest apart, then those with the lowest index. Of one
    network those it is least sure of."""
    votes = probabilities.argmax(2)
    common = np.stack([(votes == c).sum(0) for c in range(probabilities.shape[2])]).max(0)
    apart = probabilities.astype(np.float64).std(0).sum(1) if len(probabilities) > 1 else -probabilities[0].max(1)
    return [int(k) for k in np.lexsort((np.arange(len(apart)), -apart.round(6), common))[:most]]


def _first_seen(groups: Groups, samples: ReadSamples, pictures: ReadPictures) -> dict[str, _Seen]:
    """By row its first run with samples, of the images that the first row has too."""
    found: dict[str, _Seen] = {}
    for row, runs in groups.items():
        for record in runs if len(found) < ROWS else ():
            if (e := samples(record)) is None or e.probabilities is None:
                continue
            if (seen := pictures(e.pictures)) is None or seen.labels is None:
                continue
            first = next(iter(found.values()), None)
            index, names = (first.samples.index, first.pictures.names) if first else (e.index, seen.names)
            if seen.names == names and np.array_equal(e.index, index) and np.array_equal(seen.index, index):
                found[row] = _Seen(record, e, e.probabilities.astype(np.float32), seen)
                break
    return found


def _place(axes: Axes, x: int, y: int, pixels: NDArray[np.uint8], said: str) -> None:
    """A square picture in column x and line y, and two lines below it."""
    side, left, top = _PITCH[0] - 0.12, _PITCH[0] * x + 0.06, _PITCH[1] * y
    axes.imshow(pixels, extent=(left, left + side, top + side, top), interpolation="none")
    axes.text(left + side / 2, top + side + 0.03, said, ha="center", va="top", fontsize=7, linespacing=1.15)


def _heated(s: _Seen, k: int) -> NDArray[np.uint8]:
    """A picture below its heat map."""
    from matplotlib import colormaps

    picture = s.pictures.picture(k, MOST_SIDE).astype(np.float64)
    if s.samples.heat is not None:
        rows, columns = (bilinear(n, len(picture)) for n in s.samples.heat.shape[1:])
        heat = rows.T @ (s.samples.heat[k] / 255.0) @ columns
        alpha = (0.2 + (_OPAQUE - 0.2) * heat)[..., None]
        picture += alpha * (255 * colormaps["viridis"](heat)[..., :3] - picture)
    return picture.round().astype(np.uint8)


def _answer(s: _Seen, k: int, label: int) -> str:
    guess = int(s.probabilities[k].argmax())
    return f"{'right' if guess == label else 'wrong'} {s.probabilities[k, guess]:.2f}"


class HeatShare(NamedTuple):
    """How much of a row's heat lies in a part of the pictures: the mean over images (as many as of the first seed have
    heat), then over seeds, 0..1, with its 95 % interval over seeds; `area` is the part's mean share of the pictures:
    what heat spread evenly would give."""

    row: str
    where: str
    images: int
    share: Estimate
    area: float


def heat_in_face(groups: Groups, samples: ReadSamples, pictures: ReadPictures) -> list[HeatShare]:
    """The share of Grad-CAM's heat that lies in the face, or in the middle, of every row whose maps can say it: where
    each cell reaches as far in as the others, as each of 2 x 2 into the middle, the share is the area's."""

    @cache
    def region(digest: str, images: int, height: int, width: int) -> _Region | None:
        seen = pictures(digest)
        return _region(seen, height, width) if seen is not None and len(seen) == images else None

    found = []
    for row, runs in groups.items():
        measured = []
        for heat, digest in ((e.heat, e.pictures) for e in map(samples, runs) if e is not None and e.heat is not None):
            part = region(digest, *heat.shape)
            if part is None or np.ptp(part.covered / part.whole, axis=(1, 2)).max() <= 1e-9:  # of cells of a picture
                continue
            total = (heat * part.whole).sum((1, 2))
            if (some := total > 0).any():
                share = (heat * part.covered).sum((1, 2))[some] / total[some]
                measured.append((float(share.mean()), len(share), part))
        if measured:
            shares, images, parts = zip(*measured, strict=True)
            area = float(np.mean([part.area for part in parts]))
            found.append(HeatShare(row, parts[0].where, images[0], estimate(shares), area))
    return found


class _Region(NamedTuple):
    """A part of the pictures as heat maps see it: how much a cell's heat, spread bilinearly, counts in it (`covered`:
    float64 [K, h, w]) and in the picture (`whole`: [h, w]), and its mean share of the picture."""

    where: str
    covered: NDArray[np.float64]
    whole: NDArray[np.float64]
    area: float


def _region(pictures: ValidationPictures, height: int, width: int) -> _Region:
    if pictures.faces is not None:
        masks, where = pictures.faces.astype(np.float64), FACE
    else:
        side = len(pictures.picture(0))
        middle = np.abs(np.arange(side) + 0.5 - side / 2) <= side * math.sqrt(0.5) / 2
        masks = np.broadcast_to((middle[:, None] & middle).astype(np.float64), (len(pictures), side, side))
        where = CENTRE
    rows, columns = (bilinear(n, masks.shape[1]) for n in (height, width))
    whole = rows.sum(1)[:, None] * columns.sum(1)
    return _Region(where, rows @ masks @ columns.T, whole, float(masks.mean()))


def bilinear(cells: int, pixels: int) -> NDArray[np.float64]:
    """float64 [cells, pixels]: how much of each cell's value every pixel has, when cells are spread over a picture's
    side bilinearly, the outermost on to its edges."""
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.clip(1 - np.abs(place - np.arange(cells)[:, None]), 0, 1)


def looked_at(stem: str, data: str, shares: Sequence[HeatShare]) -> Picture | None:
    """What `heat_in_face` found, a dot per row; None where it found nothing."""
    if not shares:
        return None
    where, area = shares[0].where, 100 * shares[0].area

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(area, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        dots(axes, {f"{s.row} (n = {s.share.n})": s.share for s in shares}, 100)
        for y, s in enumerate(shares):
            axes.text(1.01, y, f"{100 * s.share.mean:.1f} %", transform=axes.get_yaxis_transform(), va="center")
        axes.set_xlabel(f"share of the heat in {where}, %")
        axes.text(area, -0.62, f"its area: {area:.1f} %", ha="center", va="bottom", fontsize=8)

    words = ", ".join(f"{printable(s.row)} {100 * s.share.mean:.1f} %" for s in shares)
    why = (
        "the outline that the generator draws the face in, hair and hat on it included"
        if where == FACE
        else "where the subject is, these pictures do not tell: a square of half the area stands for it"
    )
    return draw(
        stem,
        (6.4, 0.27 * len(shares) + 0.95),
        paint,
        f"Share of Grad-CAM's heat in {where}, on {printable(data)}: {words}; its area {area:.1f} %.",
        f"Share of Grad-CAM's heat in {where} ({why}), in %: mean over {max(s.images for s in shares)} validation "
        f"images of {escape(data)}, then over seeds{'; line: its 95 % interval' * any(s.share.n > 1 for s in shares)}. "
        "Dashed: what heat spread evenly would give. Maps are coarse: a cell's heat is spread bilinearly to the cells "
        "beside it.",
    )
