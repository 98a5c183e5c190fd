"""Portraits with and without heavy make-up, drawn from random numbers: a stand-in for CelebA's Heavy_Makeup.

Who is drawn (`Person`) is kept apart from how (one function per part of the picture). A face is heavily made up when
the weighted strength of its make-up reaches `HEAVY`. Whatever else looks like make-up at a glance (red clothes, hats
and backgrounds, red lips, flushed cheeks, thick brows, dark eyes, glasses, coloured light) falls on both classes
alike; only beards and short hair are rarer with make-up.

One file, longer than others, as nothing in it is of use for anything else. Faces are drawn in face units: (0, 0) is the
middle of the face, u to the right, v down, 1 is half the face's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cvhw4.data.embedded.raster import Canvas, Colour, Floats, Random, Shape, ellipse, stroke, value_noise

SIZE = (156, 128)  # height, width
HEAVY = 0.5  # the strength from which on make-up is heavy
FAINT = 0.4  # the most that make-up may have without being heavy; nothing lies between the two
WEIGHTS = {"lips": 0.26, "shadow": 0.24, "liner": 0.2, "lashes": 0.12, "blush": 0.1, "brows": 0.08}
_FIRST_SEED = {"train": 1_000_000_000, "val": 2_000_000_000}

_SKINS = ((250, 222, 202), (241, 204, 178), (228, 183, 150), (205, 154, 118), (172, 119, 84), (132, 88, 62))
_HAIRS = ((28, 23, 24), (52, 36, 30), (86, 56, 38), (128, 84, 50), (188, 146, 88), (222, 192, 140), (140, 62, 34))
GREYS = ((122, 118, 116), (176, 172, 168), (214, 210, 206))
_IRISES = ((58, 38, 26), (84, 56, 34), (96, 88, 48), (70, 104, 76), (78, 116, 152), (42, 28, 22))
_LIPSTICKS = ((176, 16, 44), (204, 30, 62), (196, 36, 104), (140, 18, 62), (214, 74, 66), (112, 22, 48))
_SHADOWS = ((96, 52, 128), (52, 76, 148), (40, 112, 118), (112, 58, 44), (168, 62, 112), (60, 52, 58))
REDS = ((178, 30, 42), (206, 48, 60), (200, 44, 108), (150, 26, 58), (222, 92, 112))
_DYES = ((36, 40, 52), (70, 92, 130), (224, 222, 216), (60, 104, 84), (186, 160, 120), (120, 84, 128), (96, 98, 104))
_FRAMES = ((14, 10, 12), (90, 58, 40), (176, 150, 96), (178, 30, 42))
_JEWELS = ((226, 196, 110), (240, 240, 240), (206, 48, 60))
_LIGHTS = ((1.0, 1.0, 1.0), (1.06, 1.0, 0.88), (0.96, 1.0, 1.05), (1.07, 0.95, 1.0), (0.97, 1.02, 0.96))
BLACK, WHITE, BLOOD = (14, 10, 12), (255, 255, 255), (80, 28, 22)
STYLES = ("parted", "swept", "fringe", "drawn back", "cropped", "receding")
_TIGHT = {"drawn back": 0.07, "cropped": 0.1, "receding": 0.05}  # styles that lie close, and how thick they are

FACE = (-1.1, -1.5, 1.1, 1.5)  # a box around the face, in face units
_KNOTS = np.arange(-8, 9) / 8.0

Curve = Callable[[Floats], Floats]
Cover = Callable[[Floats, Floats], NDArray]


@dataclass(frozen=True)
class Makeup:
    """What was put on the face: how strong each part is, from 0 (none) to 1, and two colours."""

    lips: float
    shadow: float
    liner: float
    lashes: float
    blush: float
    brows: float
    lipstick: Colour
    lid: Colour

    @property
    def strength(self) -> float:
        """The weighted mean of the parts, from 0 to 1: what the label is decided by."""
        total = 0.0
        for part, weight in WEIGHTS.items():  # not sum(): from Python 3.12 it adds floats in another way
            total += weight * getattr(self, part)
        return total


class Person(SimpleNamespace):
    """What a portrait shows, as `_draw_person` draws it. Places and sizes are in pixels (x, y, unit) or face units;
    shares run from 0 to 1."""


def _draw_makeup(random: Random, heavy: bool, bare: float) -> Makeup:
    """Random make-up, drawn again until its strength is on the wanted side of the threshold.

    Faces without the label are bare (with probability `bare`), wear a little of everything, or stress either the eyes
    or the lips: one look at either does not tell.
    """
    while True:
        level = random.uniform(0.65, 1.05) if heavy else random.uniform(0.1, 0.45)
        parts = {part: 0.0 if random.chance(0.12) else min(1.0, max(0.0, random.bell(level, 0.2))) for part in WEIGHTS}
        if not heavy:
            stressed = random.choose((("lips", "blush"), ("shadow", "liner"), ("liner", "lashes", "brows"), ()))
            if stressed:
                parts = {part: random.uniform(0.6, 1.0) if part in stressed else 0.3 * parts[part] for part in WEIGHTS}
            if random.chance(bare):
                parts = dict.fromkeys(WEIGHTS, 0.0)
        makeup = Makeup(**parts, lipstick=random.choose(_LIPSTICKS), lid=random.choose(_SHADOWS))
        if makeup.strength >= HEAVY if heavy else makeup.strength <= FAINT:
            return makeup


def _draw_person(random: Random, heavy: bool) -> Person:
    """A random person, heavily made up or not."""
    masculine = random.chance(0.18 if heavy else 0.42)
    age = random.uniform() * random.uniform()
    worn, (red, green, blue), exposure = (*_DYES, *REDS), random.choose(_LIGHTS), random.uniform(0.85, 1.12)
    return Person(
        makeup=_draw_makeup(random, heavy, bare=0.75 if masculine else 0.5),
        masculine=masculine,
        age=age,
        x=random.bell(SIZE[1] * 0.5, 3.5),
        y=random.bell(SIZE[0] * 0.49, 3.0),
        unit=random.uniform(27.5, 33.0),
        tilt=random.bell(0.0, 0.05),
        yaw=random.uniform(-1.0, 1.0),
        skin=mix(random.choose(_SKINS), random.choose(_SKINS[:4]), random.uniform(0.0, 0.5)),
        length=random.uniform(1.24, 1.4),
        jaw=random.uniform(0.1, 0.24) if masculine else random.uniform(0.2, 0.36),
        flush=random.choose((0.0, random.uniform(0.1, 0.7))),
        iris=random.choose(_IRISES),
        eye_width=random.uniform(0.23, 0.28),
        eye_open=random.uniform(0.36, 0.56),
        slant=random.bell(0.03, 0.025),
        brow=random.uniform(0.05, 0.12) if masculine else random.uniform(0.035, 0.1),
        frown=random.bell(0.02, 0.03),
        nose=random.uniform(0.12, 0.18),
        mouth=random.uniform(0.32, 0.42),
        lip=random.uniform(0.07, 0.12) if masculine else random.uniform(0.09, 0.15),
        lip_red=random.uniform(0.05, 0.5),
        smile=random.uniform(-0.01, 0.12),
        gap=random.choose((0.0, 0.0, random.uniform(0.06, 0.14))),
        beard=random.choose((0.0, 0.0, 0.35, 0.9)) if masculine else 0.0,
        hair=random.choose(GREYS) if random.chance(age) else random.choose(_HAIRS, (5, 5, 4, 3, 2, 2, 1)),
        style=random.choose(STYLES, (1, 2, 2, 2, 4, 2) if masculine else (5, 4, 4, 3, 1, 0)),
        long=random.chance(0.15 if masculine else 0.75),
        volume=random.uniform(0.08, 0.2),
        parting=random.uniform(-0.45, 0.45),
        wave=random.choose((0.0, random.uniform(0.02, 0.1))),
        glasses=random.choose(_FRAMES) if random.chance(0.2) else None,
        hat=random.choose(worn) if random.chance(0.14) else None,
        earrings=random.choose(_JEWELS) if random.chance(0.15 if masculine else 0.4) else None,
        clothes=random.choose(worn),
        pattern=random.choose(("plain", "plain", "stripes", "dots")),
        neckline=random.uniform(0.1, 0.8),
        light=random.uniform(-1.0, 1.0),
        contrast=random.uniform(0.1, 0.6),
        cast=(red * exposure, green * exposure, blue * exposure),
    )


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at `share` of the way from the first to the second."""
    red, green, blue = (int(a + (b - a) * share + 0.5) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ramp(inside: Floats, soft: float) -> Floats:
    """Cover that rises from 0 at the edge to 1 at `soft` inside of it."""
    return np.clip(inside / soft, 0.0, 1.0)


def _arc(middle: float, slope: float = 0.0, bend: float = 0.0) -> Curve:
    """The parabola middle + slope t + bend t²."""
    return lambda t: middle + slope * t + bend * t * t


def _ripple(t: Floats) -> Floats:
    """A smooth wave in [-1, 1] with period 2, made of parabolas."""
    half = np.floor(t)
    rest = t - half
    return 4.0 * rest * (1.0 - rest) * (1.0 - 2.0 * (half - 2.0 * np.floor(half / 2.0)))


def _draw_comb(random: Random) -> Curve:
    """A random profile in [0, 1] across strands of hair one unit wide."""
    table = random.uniforms(256)

    def profile(t: Floats) -> Floats:
        whole = np.floor(t)
        rest, index = t - whole, whole.astype(np.int64)
        return table[index & 255] * (1.0 - rest) + table[(index + 1) & 255] * rest

    return profile


def kept(shape: Shape) -> Shape:
    """The same shape for several paints on one canvas: its cover is computed once."""
    seen: list[NDArray] = []

    def cover(px: Floats, py: Floats) -> NDArray:
        if not seen:
            seen.append(shape[1](px, py))
        return seen[0]

    return shape[0], cover


def clipped(shape: Shape, within: Shape) -> Shape:
    """What two shapes share, in the bounding box of the first."""
    return shape[0], lambda px, py: shape[1](px, py) * within[1](px, py)


class Head:
    """Where the face units of a person lie on the canvas, and shapes in them.

    With `twin`, a shape is drawn on both sides of u = `middle`: its u counts outwards from there.

    Attributes:
        face: the outline of the face.
        middle: u of the line between the eyes, moved by turning the head.
    """

    def __init__(self, person: Person, tilt: float) -> None:
        self.person, self.middle = person, person.yaw * 0.14
        self._cosine, self._sine = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
        self.face = kept(self.shape(FACE, self.outline))

    def units(self, px: Floats, py: Floats) -> tuple[Floats, Floats]:
        """Face units of pixels."""
        dx, dy = (px - self.person.x) / self.person.unit, (py - self.person.y) / self.person.unit
        return dx * self._cosine + dy * self._sine, dy * self._cosine - dx * self._sine

    def pixel(self, u: float, v: float) -> tuple[float, float]:
        """Pixels of face units."""
        x, y = u * self._cosine - v * self._sine, u * self._sine + v * self._cosine
        return self.person.x + self.person.unit * x, self.person.y + self.person.unit * y

    def shape(self, box: tuple[float, float, float, float], cover: Cover, twin: bool = False) -> Shape:
        """A shape with its bounding box (left, top, right, bottom) and cover in face units."""
        middle, (left, top, right, bottom) = self.middle, box
        if twin:
            left, right = middle - right, middle + right
        xs, ys = zip(*(self.pixel(u, v) for u in (left, right) for v in (top, bottom)), strict=True)

        def placed(px: Floats, py: Floats) -> NDArray:
            us, vs = self.units(px, py)
            return cover(np.abs(us - middle) if twin else us, vs)

        return (min(xs), min(ys), max(xs), max(ys)), placed

    def disc(self, u: float, v: float, width: float, height: float, soft: float = 0.15, twin: bool = False) -> Shape:
        """An ellipse; its cover rises over the share `soft` of the squared radius."""

        def cover(us: Floats, vs: Floats) -> NDArray:
            a, b = (us - u) / width, (vs - v) / height
            return ramp(1.0 - a * a - b * b, soft)

        return self.shape((u - width, v - height, u + width, v + height), cover, twin)

    def band(
        self, u: float, v: float, width: float, top: Curve, bottom: Curve, soft: float = 0.025, twin: bool = False
    ) -> Shape:
        """What lies between two curves over [-1, 1], stretched to `width` on each side of u and hung up at v."""

        def cover(us: Floats, vs: Floats) -> NDArray:
            t, hang = (us - u) / width, vs - v
            return ramp(np.minimum(hang - top(t), bottom(t) - hang) + soft / 2, soft) * (np.abs(t) <= 1.0)

        box = (u - width, v + float(top(_KNOTS).min()) - 0.05, u + width, v + float(bottom(_KNOTS).max()) + 0.05)
        return self.shape(box, cover, twin)

    def outline(self, us: Floats, vs: Floats) -> NDArray:
        """Cover of the face: an ellipse that narrows towards a broad chin."""
        b = vs / self.person.length
        down = np.clip(b, 0.0, 1.0)
        a = us / (1.0 - self.person.jaw * down)
        return ramp(1.0 - a * a - b * b * (1.0 - 0.25 * down + 0.25 * down * down), 0.06)

    def skull(self, us: Floats, vs: Floats, hair: float) -> NDArray:
        """Cover of the head from its top, `hair` thick, to below the ears."""
        a, b = us / (1.0 + hair), (vs + 0.25) / (self.person.length - 0.2 + hair)
        return ramp(1.0 - a * a - np.where(b < 0, b * b, b * b * 0.35), 0.06)


def _paint_background(canvas: Canvas, random: Random) -> None:
    """Two blended colours, then clutter out of focus: boxes, balls and bars, some as red as lipstick."""
    first, second, third = (
        mix(random.choose(_DYES), random.choose((*REDS, *_DYES, *_SKINS)), random.uniform()) for _ in range(3)
    )
    cloud = value_noise(random, *SIZE, random.uniform(25.0, 90.0))[..., None]
    blend = np.asarray(first) + cloud * (np.asarray(second) - np.asarray(first))
    canvas.pixels[:] = blend.repeat(canvas.scale, axis=1).repeat(canvas.scale, axis=0)
    for _ in range(random.integer(9, 17)):
        colour = random.choose((third, random.choose(_DYES), random.choose(REDS), random.choose(_SHADOWS)))
        x, y, size = random.uniform(0, SIZE[1]), random.uniform(0, SIZE[0]), random.uniform(3.0, 16.0)
        kind, alpha = random.choose(("box", "ball", "bar")), random.uniform(0.4, 0.95)
        if kind == "bar":
            shape = stroke(x, y, x + random.bell(0, 25), y + random.bell(0, 25), size / 3)
        else:
            tall, soft = size * random.uniform(0.5, 1.5), random.uniform(0.1, 1.0)
            shape = ellipse(x, y, size, tall, random.bell(0.0, 0.1), soft, power=4 if kind == "box" else 2)
        canvas.paint(shape, colour, alpha=alpha)


def _paint_body(canvas: Canvas, body: Head, random: Random) -> None:
    """Neck, shoulders and clothes."""
    p = body.person
    neck, top = (0.6, 1.5) if p.masculine else (0.48, 1.56)

    def shoulders(us: Floats, vs: Floats) -> NDArray:
        return ramp(vs - top - 0.1 * us * us, 0.04)

    def cloth(us: Floats, vs: Floats) -> NDArray:
        hem = top + 0.02 + np.maximum(0.1 * us * us, p.neckline * (1.0 - 2.0 * us * us))
        return ramp(vs - hem, 0.04)

    canvas.paint(body.band(0.0, 0.8, neck, _arc(0.0), _arc(1.6)), mix(p.skin, BLOOD, 0.2))
    canvas.paint(body.disc(0.0, 1.1, neck + 0.1, 0.5, 1.0), mix(p.skin, BLACK, 0.6), alpha=0.6)
    canvas.paint(body.shape((-1.0, 1.3, 1.0, 2.6), shoulders), mix(p.skin, BLOOD, 0.08))
    box = (-2.9, 1.4, 2.9, 3.6)
    dress, phase = kept(body.shape(box, cloth)), random.uniform(3.0, 8.0)
    canvas.paint(dress, p.clothes)
    marks = {
        "stripes": lambda us, vs: _ripple(vs * phase + us) > 0.2,
        "dots": lambda us, vs: _ripple(vs * phase) * _ripple(us * phase) > 0.45,
    }.get(p.pattern)
    if marks:
        canvas.paint(clipped(dress, body.shape(box, marks)), mix(p.clothes, random.choose((WHITE, BLACK)), 0.45))
    folds = body.shape(box, lambda us, vs: _ripple(us * 1.7 + vs * 0.4 + phase) * 0.5 + 0.5)
    canvas.paint(clipped(dress, folds), mix(p.clothes, BLACK, 0.7), alpha=0.35)


def _comb_hair(canvas: Canvas, head: Head, comb: Curve) -> Floats:
    """How bright hair is that runs down from the parting: float64 [height * scale, width * scale]."""
    p = head.person
    height, width = (np.arange(size, dtype=np.float64) for size in SIZE)
    us, vs = head.units(width[None, :] + 0.5, height[:, None] + 0.5)
    lock = comb(60.0 + (us - p.parting * 0.3) / (np.abs(vs + 1.9) + 0.9) * 34.0 + p.wave * 14.0 * _ripple(vs * 2.5))
    sheen = (1.0 - lock) * ramp(0.5 - np.abs(vs + 1.05 - 0.3 * us * us), 0.5)
    shade = 1.0 - 0.55 * lock + (0.35 + 40.0 / (30.0 + p.hair[0])) * sheen
    return shade.repeat(canvas.scale, axis=1).repeat(canvas.scale, axis=0)


def _paint_back_hair(canvas: Canvas, body: Head, comb: Curve, shade: Floats) -> None:
    """Long hair behind the neck."""
    p = body.person
    end = 1.5 + p.volume * 6

    def fall(us: Floats, vs: Floats) -> NDArray:
        wide = 1.0 + p.volume + 0.1 * np.clip(vs, 0.0, 2.0) + p.wave * _ripple(vs * 2.5)
        return ramp(wide - np.abs(us), 0.05) * ramp(end + 0.4 * comb(us * 9) - vs, 0.1)

    if p.long and p.style not in _TIGHT:
        canvas.paint(body.shape((-1.5, -0.4, 1.5, end + 0.4), fall), p.hair, shade=shade * 0.7)


def _paint_face(canvas: Canvas, head: Head) -> None:
    """Ears and the bare face, rounded by a darker rim and lighter forehead and cheekbones."""
    p = head.person
    for side in (-1, 1):
        canvas.paint(head.disc(side * 1.0, 0.12, 0.13, 0.24), mix(p.skin, BLOOD, 0.2))
    canvas.paint(head.face, p.skin)
    rim = head.shape(FACE, lambda us, vs: ramp(us * us + vs * vs * 0.45 - 0.45, 0.7))
    canvas.paint(clipped(head.face, rim), mix(p.skin, BLOOD, 0.42), alpha=0.75)
    canvas.paint(head.disc(p.yaw * 0.15, -0.72, 0.6, 0.36, 1.0), mix(p.skin, WHITE, 0.3), alpha=0.5)
    canvas.paint(head.disc(0.52, 0.36, 0.34, 0.3, 1.0, twin=True), mix(p.skin, (214, 60, 60), 0.6), alpha=0.5 * p.flush)
    canvas.paint(head.disc(0.52, 0.2, 0.22, 0.14, 1.0, twin=True), mix(p.skin, WHITE, 0.4), alpha=0.4)


def _paint_age(canvas: Canvas, head: Head) -> None:
    """Folds beside the mouth, bags under the eyes, wrinkles on the forehead."""
    p, line = head.person, mix(head.person.skin, BLOOD, 0.5)
    fold = head.band(0.42, 0.52, 0.1, _arc(0.0, 0.18), _arc(0.04, 0.18), twin=True)
    canvas.paint(fold, line, alpha=0.2 + 0.6 * p.age)
    bag = head.band(0.43, 0.1, 0.2, _arc(0.02, 0.0, -0.08), _arc(0.06, 0.0, -0.1), twin=True)
    canvas.paint(bag, line, alpha=0.15 + 0.6 * p.age)
    for height in (-0.66, -0.78) if p.age > 0.3 else ():
        wrinkle = head.band(p.yaw * 0.15, height, 0.45, _arc(0.0, 0.0, 0.04), _arc(0.02, 0.0, 0.04))
        canvas.paint(wrinkle, line, alpha=0.6 * p.age)


def _paint_blush(canvas: Canvas, head: Head) -> None:
    """Rouge on the cheekbones."""
    makeup = head.person.makeup
    if makeup.blush:
        rouge = head.disc(0.6, 0.3, 0.32, 0.21, 1.0, twin=True)
        canvas.paint(rouge, mix(makeup.lipstick, (226, 70, 96), 0.7), alpha=0.58 * makeup.blush)


def _paint_nose(canvas: Canvas, head: Head) -> None:
    """A shaded side, a lit ridge and tip, and the nostrils."""
    p = head.person
    tip, dark, lit = p.yaw * 0.24, mix(p.skin, BLOOD, 0.55), mix(p.skin, WHITE, 0.45)
    flank = head.band(tip + (0.1 if p.light < 0 else -0.1), 0.0, 0.13, _arc(-0.2), _arc(0.42, 0.0, -0.3), soft=0.3)
    canvas.paint(flank, dark, alpha=0.35)
    canvas.paint(head.disc(tip * 0.7, 0.05, 0.07, 0.4, 1.0), lit, alpha=0.6)
    canvas.paint(head.disc(tip, 0.44, p.nose * 1.25, 0.1, 0.9), dark, alpha=0.45)
    canvas.paint(head.disc(tip, 0.34, p.nose * 0.75, 0.12, 1.0), lit, alpha=0.6)
    for side in (-1, 1):
        canvas.paint(head.disc(tip + side * p.nose * 0.55, 0.44, 0.05, 0.03, 0.6), mix(dark, BLACK, 0.5), alpha=0.8)


def _paint_beard(canvas: Canvas, head: Head, comb: Curve) -> None:
    """Stubble or a full beard, with its moustache."""
    p = head.person

    def grown(us: Floats, vs: Floats) -> NDArray:
        edge = ramp(vs - 0.6 + 0.5 * us * us, 0.14)
        return head.outline(us, vs * (1.0 - 0.05 * p.beard)) * edge * (0.5 + 0.5 * comb(us * 26 + 3 * comb(vs * 9)))

    if p.beard:
        canvas.paint(head.shape((-1.1, 0.0, 1.1, 1.6), grown), mix(p.hair, p.skin, 0.12), alpha=p.beard)


def _paint_mouth(canvas: Canvas, head: Head) -> None:
    """Two lips, teeth between them when they are open, and the shade below."""
    p, makeup = head.person, head.person.makeup
    u, v, gap, lip = p.yaw * 0.2, 0.73, p.gap, p.lip + 0.03 * makeup.lips
    seam, under = _arc(0.0, 0.0, -p.smile), _arc(gap, 0.0, -p.smile - gap)
    bottom = _arc(gap + lip * 1.15, 0.0, -p.smile - gap - lip * 1.15)

    def bow(t: Floats) -> Floats:
        return seam(t) - lip * 0.75 * (1 - np.abs(t)) * (1 + 2.2 * np.abs(t))

    bare = mix(mix(p.skin, (150, 70, 66), 0.3), (188, 50, 62), p.lip_red)
    colour = mix(bare, makeup.lipstick, makeup.lips)
    canvas.paint(head.disc(u, v + 0.24 + gap, p.mouth * 0.7, 0.08, 1.0), mix(p.skin, BLOOD, 0.5), alpha=0.5)
    if gap:
        canvas.paint(head.band(u, v, p.mouth, seam, under), BLOOD)
        canvas.paint(
            head.band(u, v, p.mouth * 0.86, seam, _arc(gap * 0.75, 0.0, -p.smile - gap * 0.75)), (240, 236, 228)
        )
    canvas.paint(head.band(u, v, p.mouth, bow, seam), mix(colour, BLACK, 0.16))
    canvas.paint(head.band(u, v, p.mouth * 0.95, under, bottom), colour)
    gloss = head.disc(u - 0.05 * p.light, v + gap + lip * 0.6, p.mouth * 0.4, lip * 0.3, 1.0)
    canvas.paint(gloss, mix(colour, WHITE, 0.6), alpha=0.45 + 0.3 * makeup.lips)
    crack = head.band(u, v, p.mouth * 1.04, _arc(-0.012, 0.0, -p.smile), _arc(0.014, 0.0, -p.smile))
    canvas.paint(crack, mix(colour, BLACK, 0.7), alpha=0.85)


def _paint_eyes(canvas: Canvas, head: Head) -> None:
    """Both eyes, from the sockets outwards: eye shadow, white, iris, lids with liner, lashes."""
    p, makeup = head.person, head.person.makeup
    u, v, wide, tall = 0.43, -0.06, p.eye_width, p.eye_width * p.eye_open
    dark = mix(p.skin, BLOOD, 0.6)
    ink = mix(mix(p.hair, dark, 0.5), BLACK, 0.5 + 0.5 * makeup.liner)

    def upper(lift: float = 0.0, ends: float = 0.0) -> Curve:
        return _arc(-tall - lift, -p.slant, tall + lift * (1 - ends))

    def lower(drop: float = 0.0, ends: float = 0.0) -> Curve:
        return _arc(tall * 0.62 + drop, -p.slant, -tall * 0.62 - drop * (1 - ends))

    def tips(t: Floats) -> Floats:
        return upper()(t) - 0.03 - (0.03 + 0.12 * makeup.lashes) * (0.4 + 0.6 * t) * np.abs(_ripple(t * 4.5))

    canvas.paint(head.disc(u, v - 0.08, wide * 1.3, 0.24, 1.0, twin=True), dark, alpha=0.4)
    if makeup.shadow:
        lid = head.band(u + 0.02, v, wide * 1.3, upper(0.2 + 0.08 * makeup.shadow, 0.3), lower(0.02), 0.1, twin=True)
        canvas.paint(lid, mix(p.skin, makeup.lid, 0.9), alpha=0.95 * makeup.shadow)
    white = kept(head.band(u, v, wide, upper(), lower(), twin=True))
    canvas.paint(white, (232, 228, 224))
    canvas.paint(clipped(white, head.disc(u, v - 0.01, 0.115, 0.115, twin=True)), p.iris)
    canvas.paint(clipped(white, head.disc(u, v - 0.01, 0.05, 0.05, twin=True)), BLACK)
    canvas.paint(clipped(white, head.band(u, v, wide, upper(), upper(-0.05), twin=True)), BLACK, alpha=0.35)
    canvas.paint(head.disc(u + 0.04, v - 0.05, 0.032, 0.032, twin=True), WHITE, alpha=0.9)
    canvas.paint(head.band(u, v - 0.07, wide * 1.05, upper(), upper(-0.028), twin=True), dark, alpha=0.7)
    liner = head.band(u, v, wide * 1.06, upper(0.035 + 0.06 * makeup.liner, 0.4), upper(), twin=True)
    canvas.paint(liner, ink, alpha=0.9)
    canvas.paint(head.band(u, v, wide, lower(), lower(0.03, 0.5), twin=True), ink, alpha=0.25 + 0.6 * makeup.liner)
    if makeup.liner > 0.3:
        wing = head.band(u + wide, v - p.slant, 0.15, _arc(-0.04, -0.09), _arc(0.0, -0.05), twin=True)
        canvas.paint(wing, ink, alpha=0.9 * makeup.liner)
    canvas.paint(head.band(u, v, wide * 1.08, tips, upper(), twin=True), BLACK, alpha=0.3 + 0.65 * makeup.lashes)


def _paint_brows(canvas: Canvas, head: Head) -> None:
    """Brows that arch and thin outwards; made up, they are darker, thicker and have a clear edge."""
    p, strength = head.person, head.person.makeup.brows
    thick = (p.brow + 0.03 * strength) * 0.35

    def arch(t: Floats) -> Floats:
        return (0.08 + p.frown * t) * t * t - 0.03 * t * (1 - t * t)

    shape = head.band(
        0.45,
        -0.4,
        0.31,
        lambda t: arch(t) - thick * (1 - t) - 0.01,
        lambda t: arch(t) + thick * (1 - t),
        soft=0.07 - 0.04 * strength,
        twin=True,
    )
    canvas.paint(shape, mix(p.hair, BLACK, 0.25 + 0.5 * strength), alpha=0.6 + 0.38 * strength)


def _paint_light(canvas: Canvas, head: Head) -> None:
    """The side of the face that is turned away from the light."""
    p = head.person
    shade = head.shape(FACE, lambda us, vs: ramp(0.25 - p.light * us + 0.25 * vs, 1.4))
    canvas.paint(clipped(head.face, shade), mix(p.skin, (48, 18, 14), 0.85), alpha=0.75 * p.contrast)


def _paint_front_hair(canvas: Canvas, head: Head, comb: Curve, shade: Floats) -> None:
    """Hair on the skull down to the hairline of its style, and the locks beside the face."""
    p = head.person
    end = -0.15 if p.style in _TIGHT else 1.6 if p.long else 0.1

    def hairline(us: Floats) -> Floats:
        if p.style == "parted":
            return -1.1 + 0.95 * (us - p.parting) * (us - p.parting) / (1 + abs(p.parting))
        if p.style == "swept":
            return -0.8 + (0.34 if p.parting > 0 else -0.34) * us + 0.3 * us * us
        if p.style == "fringe":
            return -0.52 + 0.1 * us * us
        return (-1.16 if p.style == "receding" else -1.0) + 0.5 * us * us * us * us

    def grown(us: Floats, vs: Floats) -> NDArray:
        fray = 0.1 * comb(us * 14.0)
        beside = ramp(np.abs(us) - 0.88 - 0.04 * vs, 0.05) * (vs < end + fray)
        return head.skull(us, vs, _TIGHT.get(p.style, p.volume)) * np.maximum(
            ramp(hairline(us) + fray - vs, 0.06), beside
        )

    canvas.paint(head.shape((-1.25, -1.65, 1.25, end + 0.1), grown), p.hair, shade=shade)


def _paint_extras(canvas: Canvas, head: Head) -> None:
    """Earrings, glasses and a hat."""
    p = head.person
    if p.earrings:
        for side in (-1, 1):
            canvas.paint(head.disc(side * 1.03, 0.46, 0.07, 0.1), p.earrings)
    if p.glasses:
        hole = head.disc(0.44, -0.02, 0.32, 0.24, twin=True)
        rim = head.disc(0.44, -0.02, 0.37, 0.29, twin=True)
        canvas.paint((rim[0], lambda px, py: rim[1](px, py) * (1 - hole[1](px, py))), p.glasses)
        canvas.paint(hole, (214, 226, 236), alpha=0.12)
        canvas.paint(head.band(0.0, -0.06, 0.11, _arc(-0.04), _arc(0.02), twin=True), p.glasses)
        canvas.paint(head.band(0.9, -0.08, 0.11, _arc(-0.03), _arc(0.03), twin=True), p.glasses)
    if p.hat:
        box = (-1.4, -1.8, 1.4, 0.0)
        crown = kept(head.shape(box, lambda us, vs: head.skull(us, vs, 0.17) * ramp(0.1 * us * us - 0.72 - vs, 0.04)))
        canvas.paint(crown, p.hat)
        ribs = head.shape(box, lambda us, vs: _ripple(us * 9) * 0.5 + 0.5)
        canvas.paint(clipped(crown, ribs), mix(p.hat, BLACK, 0.6), alpha=0.4)
        canvas.paint(head.band(0.0, -0.72, 1.18, _arc(-0.16, 0, 0.14), _arc(0.12, 0, 0.14)), mix(p.hat, WHITE, 0.15))


def _develop(canvas: Canvas, person: Person, random: Random) -> NDArray[np.uint8]:
    """The picture on a canvas in the colour of its light, with some grain, uint8 [height, width, 3]."""
    fine = canvas.pixels
    picture = (fine[::2, ::2] + fine[::2, 1::2] + fine[1::2, ::2] + fine[1::2, 1::2]) / 4.0
    grain = random.uniforms(*SIZE, 1) * 10.0 - 5.0
    return np.clip(picture * np.asarray(person.cast) + grain + 0.5, 0.0, 255.0).astype(np.uint8)


def _draw_portrait(person: Person, random: Random) -> NDArray[np.uint8]:
    """The portrait of a person, uint8 [156, 128, 3], RGB; background and texture come from `random`."""
    canvas, comb = Canvas(*SIZE, scale=2), _draw_comb(random)
    head, body = Head(person, person.tilt), Head(person, 0.0)
    shade = _comb_hair(canvas, head, comb)
    _paint_background(canvas, random)
    _paint_back_hair(canvas, body, comb, shade)
    _paint_body(canvas, body, random)
    for paint in (_paint_face, _paint_age, _paint_blush, _paint_nose):
        paint(canvas, head)
    _paint_beard(canvas, head, comb)
    for paint in (_paint_mouth, _paint_eyes, _paint_brows, _paint_light):
        paint(canvas, head)
    _paint_front_hair(canvas, head, comb, shade)
    _paint_extras(canvas, head)
    return _develop(canvas, person, random)


def person_at(split: Literal["train", "val"], index: int) -> tuple[Person, Random]:
    """Who is on portrait `index` of a split, and the random numbers to draw the rest of it from."""
    random = Random(_FIRST_SEED[split] + index)
    return _draw_person(random, heavy=index % 2 == 0), random


def face_mask(split: Literal["train", "val"], index: int) -> NDArray[np.bool_]:
    """The pixels of portrait `index` inside the outline of the face, bool [156, 128]; hair, beard, glasses and hat may
    lie on some of them."""
    person, _ = person_at(split, index)
    canvas = Canvas(*SIZE, scale=2)
    canvas.paint(Head(person, person.tilt).face, WHITE, label=1)
    return canvas.label_map() == 1


def portraits(split: Literal["train", "val"], start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The portraits of a split from number `start` to before `stop`.

    Returns:
        Images, uint8 [stop - start, 156, 128, 3], RGB, and class numbers, uint8 [stop - start]: 0 is heavy_makeup, 1 is
        no_heavy_makeup, in turn.
    """
    images = np.zeros((stop - start, *SIZE, 3), dtype=np.uint8)
    for index in range(start, stop):
        images[index - start] = _draw_portrait(*person_at(split, index))
    return images, (np.arange(start, stop) % 2).astype(np.uint8)
