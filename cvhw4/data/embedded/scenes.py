"""Street scenes in the style of CamVid, seen through a windscreen, with a class number for every pixel.

A scene is a small world in metres (x to the right of the camera, y up from the ground, z ahead) that is projected and
painted from far to near. Everything keeps to the arithmetic of `raster`, so the bytes are the same on every machine.
They are easier than CamVid, whose colours overlap more: a run of the quick profile sees 240 batches of them, and 736 of
CamVid. How easy, and how often a park or terrace fills a side, was chosen so that the report's claims have the signs
that they have on CamVid at that size (`cvhw4 agreement`). One file, longer than others: every part of a scene draws
from the same random numbers, in the order of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvhw4.camvid import CLASSES
from cvhw4.data.embedded.raster import Canvas, Floats, Random, Shape, ellipse, polygon, rectangle, stroke, value_noise

SIZE = (132, 176)
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(len(CLASSES) + 1)
_NEAR, _FAR = 1.5, 90.0  # metres; what is nearer is clipped, what is farther belongs to the skyline
_SEEDS = {"train": 1_000_000, "val": 2_000_000}

Numbers = Sequence[float]
Point = tuple[float, float, float]

# Clothes are coloured like walls, and the sky like plaster, on purpose; walls and leaves have hues of their own.
_WALLS = [(150, 88, 66), (172, 120, 88), (186, 166, 128), (124, 72, 60), (166, 104, 72), (140, 84, 64)]
_ROOFS = [(96, 66, 56), (74, 74, 80), (110, 88, 74), (58, 54, 54), (128, 84, 64)]
_LEAVES = [(70, 98, 44), (54, 82, 42), (86, 112, 54), (44, 78, 44)]
_CLOTHES = [(30, 30, 36), (52, 56, 74), (150, 88, 66), (178, 172, 160), (84, 92, 60), (168, 40, 44), (60, 90, 140)]
_CLOTHES += [(206, 200, 190), (110, 106, 104), (196, 176, 60), (92, 66, 52)]
_PAINTS = [(206, 208, 210), (150, 154, 158), (28, 30, 34), (140, 28, 32), (36, 52, 96), (44, 70, 56), (232, 232, 228)]
_PAINTS += [(98, 102, 108), (176, 168, 140), (70, 110, 160), (120, 84, 70)]
_SIGNS = [(30, 60, 140), (24, 92, 60), (226, 224, 214), (214, 178, 50), (170, 40, 44), (58, 58, 62)]
_METAL = [(92, 96, 98), (58, 64, 62), (150, 152, 150), (120, 112, 100)]
_SKIN = [(206, 160, 134), (176, 128, 100), (116, 80, 62), (222, 182, 158)]
_HAIR = [(30, 24, 20), (84, 60, 38), (150, 120, 70), (110, 108, 106), (200, 200, 200)]
BLACK = (26, 26, 28)
# The unit circle in twelve steps, as (cosine, sine).
_CIRCLE = [(1.0, 0.0), (0.866, 0.5), (0.5, 0.866), (0.0, 1.0), (-0.5, 0.866), (-0.866, 0.5)]
_CIRCLE += [(-x, -y) for x, y in _CIRCLE]


class _Surface(NamedTuple):
    """What an upright panel shows.

    Attributes:
        palette: RGB colours.
        pattern: from u metres along and v metres up to a palette index (-1 looks through) and a brightness.
    """

    palette: Sequence[Numbers]
    pattern: Callable[[Floats, Floats], tuple[NDArray[np.int64], Floats]]


class _Vehicle(NamedTuple):
    """The shape of a car, van or bus.

    Attributes:
        outline: side view as (metres ahead of the rear bumper, metres up), from the rear over the roof to the front.
        glass: which stretches of the outline are windows.
        panes: the side windows.
    """

    width: float
    outline: Sequence[tuple[float, float]]
    glass: tuple[int, int]
    panes: Sequence[Sequence[tuple[float, float]]]


def _glaze(outline: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Two side windows in the cabin, which lies between the third and the sixth point of an outline."""
    (a0, y0), (a1, y1), (a2, y2), (a3, y3) = outline[2:6]
    low, high, pillar = max(y0, y3) + 0.05, min(y1, y2) - 0.09, (a1 + a2) / 2
    rear = [(a0 + 0.25, low), (a1 + 0.06, high), (pillar - 0.05, high), (pillar - 0.05, low)]
    return [rear, [(pillar + 0.05, low), (pillar + 0.05, high), (a2 - 0.03, high), (a3 - 0.2, low)]]


_HATCH = [(0, 0.28), (0, 0.85), (0.25, 0.95), (0.75, 1.42), (2.1, 1.46), (2.95, 0.98), (3.75, 0.8), (3.9, 0.6)]
_SALOON = [(0, 0.3), (0, 0.9), (0.75, 0.98), (1.35, 1.4), (2.5, 1.42), (3.3, 0.97), (4.3, 0.8), (4.5, 0.6)]
_JEEP = [(0, 0.36), (0, 0.95), (0.05, 1.08), (0.3, 1.74), (2.8, 1.76), (3.5, 1.1), (4.35, 0.98), (4.5, 0.7)]
_VAN = [(0, 0.35), (0, 1.15), (0.02, 1.3), (0.1, 2.1), (3.5, 2.15), (4.3, 1.25), (5.0, 1.05), (5.1, 0.7)]
_BUS = [(0, 0.35), (0, 1.2), (0, 1.3), (0.05, 2.2), (0.1, 4.0), (9.6, 4.0), (9.8, 2.3), (9.9, 1.2)]
_DECKS = [(0.5 + 1.5 * k, 1.85 + 1.5 * k, low, low + 0.85) for low in (1.4, 2.9) for k in range(6)]
_CARS = [
    _Vehicle(1.7, [*_HATCH, (3.9, 0.28)], (2, 4), _glaze(_HATCH)),
    _Vehicle(1.75, [*_SALOON, (4.5, 0.3)], (2, 4), _glaze(_SALOON)),
    _Vehicle(1.85, [*_JEEP, (4.5, 0.36)], (2, 4), _glaze(_JEEP)),
    _Vehicle(1.95, [*_VAN, (5.1, 0.35)], (2, 4), _glaze(_VAN)[1:]),
    _Vehicle(2.5, [*_BUS, (9.9, 0.35)], (2, 6), [[(a, y), (a, z), (b, z), (b, y)] for a, b, y, z in _DECKS]),
]


def _mirrored(tile: Floats) -> Floats:
    """Twice as high and wide, and without a seam where it repeats."""
    tall = np.concatenate([tile, tile[::-1]], axis=0)
    return np.concatenate([tall, tall[:, ::-1]], axis=1)


class _Scene:
    """The camera, the light and the picture being painted.

    Attributes:
        focus: focal length in pixels.
        eye: height of the camera in metres.
        bend: the street lies at x + bend * z * z.
        sun: brightness of the walls on the left and of those on the right.
        ragged: smooth noise of the canvas' size; leaf, lumps and grain: rougher brightness for leaves, and smooth and
            rough tiles, 256 x 256, for surfaces.
    """

    def __init__(self, seed: int) -> None:
        random = self.random = Random(seed)
        self.canvas = Canvas(*SIZE, scale=2)
        self.focus, self.eye = random.uniform(135, 175), random.uniform(1.25, 1.75)
        self.horizon = float(random.integer(54, 76))
        self.centre = 88 + random.uniform(-26, 26) * random.choose((0.6, 1.0, 2.0), (5, 3, 1))
        self.bend = random.uniform(-1, 1) * random.choose((0.0003, 0.001, 0.0028), (4, 3, 3))
        self.light = random.choose((1.0, 0.82, 0.65), (6, 4, 1)) * random.uniform(0.88, 1.1)
        slant = random.choose((0.05, 0.2, 0.4)) * random.choose((-1, 1))
        self.sun = 1.05 - slant, 1.05 + slant
        bright, self.clear = random.uniform(0.8, 1.15), random.uniform(90, 400)
        self.haze = 176 * bright, 182 * bright, 190 * bright
        rows, columns = self.canvas.labels.shape
        self.ragged = value_noise(random, rows, columns, 9.0) * 0.6 + value_noise(random, rows, columns, 3.5) * 0.4
        self.lumps = _mirrored(value_noise(random, 128, 128, 16.0))
        self.grain = _mirrored(value_noise(random, 128, 128, 4.0) * 0.6 + random.uniforms(128, 128) * 0.4)
        self.leaf = 0.4 + 0.6 * self.ragged[::-1] + 0.6 * np.tile(self.grain, (2, 2))[:rows, :columns]
        self._things: list[tuple[float, Callable[..., object], tuple]] = []

    def put(self, z: float, make: Callable[..., object], *what: object) -> None:
        """Has `make(scene, *what)` paint something that reaches z metres away, when everything beyond is painted."""
        self._things.append((z, make, what))

    def paint_all(self) -> None:
        """Paints everything that was put, from far to near."""
        for _, make, what in sorted(self._things, key=lambda thing: -thing[0]):
            make(self, *what)

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where a point of the world lies in the picture."""
        z = max(z, _NEAR)
        return self.centre + self.focus * (x / z + self.bend * z), self.horizon + self.focus * (self.eye - y) / z

    def tint(self, colour: Numbers, z: float = 0.0, light: float = 1.0) -> Floats:
        """An RGB colour, lit, seen through z metres of air."""
        air = max(z, 0.0) / (max(z, 0.0) + self.clear)
        clear, hazy = light * self.light * (1 - air), self.light * air
        return np.array([c * clear + h * hazy for c, h in zip(colour, self.haze, strict=True)])

    def varied(self, colours: Sequence[tuple[int, int, int]]) -> Numbers:
        """One of the colours, a little off."""
        red, green, blue = self.random.choose(colours)
        off, hue = self.random.uniform(0.85, 1.15), self.random.uniform(-8, 8)
        return red * off + hue, green * off, blue * off - hue

    def texture(self, tile: Floats, u: Floats, v: Floats, fineness: float, depth: float) -> Floats:
        """Brightness about 1 from a tile that repeats every 256 / fineness metres."""
        row, column = np.floor(v * fineness).astype(np.int64), np.floor(u * fineness).astype(np.int64)
        return 1 - depth / 2 + depth * tile[row & 255, column & 255]

    def face(self, points: Sequence[Point], colour: Numbers, label: int, light: float = 1.0) -> bool:
        """Paints a flat face; False where it turns its back (its corners then run clockwise)."""
        corners = [self.at(*p) for p in points]
        turn = 0.0  # added up in this order: the built-in sum rounds differently from Python 3.12 on
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            turn += x0 * y1 - x1 * y0
        if turn >= 0:
            return False
        self.canvas.paint(polygon(corners), self.tint(colour, points[0][2], light), label=label)
        return True

    def lay(self, rows: slice, columns: slice, kind: NDArray[np.int64], shade: Floats, palette: Floats) -> None:
        """Paints palette[kind] * shade over a window of the canvas, where kind >= 0."""
        colour = np.take(palette, np.maximum(kind, 0), axis=0) * shade[..., None]
        np.copyto(self.canvas.pixels[rows, columns], np.clip(colour, 0.0, 255.0), where=(kind >= 0)[..., None])

    def panel(self, line: Numbers, low: float, high: float, surface: _Surface, label: int, light: float = 1.0) -> None:
        """Paints an upright rectangle over the line (x, z, x, z) on the ground, whose second end is not the nearer."""
        x0, z0, x1, z1 = line
        length = float(np.sqrt((x1 - x0) * (x1 - x0) + (z1 - z0) * (z1 - z0)))
        skipped = 0.0 if z0 >= _NEAR else (_NEAR - z0) / (z1 - z0) if z1 > _NEAR else 1.0
        if skipped >= 1.0:
            return
        x0, z0 = x0 + (x1 - x0) * skipped, z0 + (z1 - z0) * skipped
        (a, top0), (b, top1) = self.at(x0, high, z0), self.at(x1, high, z1)
        bottom = max(self.at(x0, low, z0)[1], self.at(x1, low, z1)[1])
        s, (height, width) = self.canvas.scale, self.canvas.labels.shape
        rows = slice(max(0, int(min(top0, top1) * s) - 1), max(0, min(height, int(bottom * s) + 2)))
        columns = slice(max(0, int(min(a, b) * s + 0.5)), max(0, min(width, int(max(a, b) * s + 0.5))))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        t = (((np.arange(columns.start, columns.stop) + 0.5) / s)[None, :] - a) / (b - a)
        py = ((np.arange(rows.start, rows.stop) + 0.5) / s)[:, None]
        nearness = (1 - t) / z0 + t / z1
        u = (skipped + (1 - skipped) * (t / z1 / nearness)) * length
        v = self.eye - low - (py - self.horizon) / (self.focus * nearness)
        inside = (v >= 0) & (v <= high - low)
        kind, shade = surface.pattern(np.broadcast_to(u, v.shape), v)
        palette = np.array([self.tint(c, (z0 + z1) / 2, light) for c in surface.palette])
        self.lay(rows, columns, np.where(inside, kind, -1), shade, palette)
        self.canvas.labels[rows, columns][inside] = label


def _sky(scene: _Scene) -> None:
    random, canvas, end = scene.random, scene.canvas, (int(scene.horizon) + 1) * scene.canvas.scale
    low = np.array(random.choose(((236.0, 238, 240), (205, 214, 226), (250, 250, 250), (188, 188, 190))))
    high = np.array(random.choose(((120.0, 160, 214), (176, 196, 224), (240, 242, 246), (150, 154, 164))))
    cloud = value_noise(random, end, canvas.labels.shape[1], random.uniform(30, 70)) * 0.7 + scene.ragged[:end] * 0.3
    cloud = np.clip((cloud - random.uniform(0.3, 0.6)) * random.uniform(1, 4), 0.0, 1.0)[..., None]
    plain = low + (high - low) * (1 - np.arange(end) / end)[:, None, None]
    white = np.array([246.0, 246, 248]) * random.uniform(0.8, 1.03)
    canvas.pixels[:end] = (plain + (white - plain) * cloud) * ((scene.light + 1.2) / 2.2)
    canvas.labels[:end] = SKY


def _skyline(scene: _Scene) -> None:
    """Far houses, woods and things that nobody has labelled."""
    random, x, base = scene.random, -10.0, scene.horizon
    while x < SIZE[1]:
        end, label = x + random.uniform(7, 24), random.choose((BUILDING, TREE, VOID), (4, 6, 2))
        top = base - random.uniform(2, 5 if label == VOID else 9)
        ridge = (x + end) / 2, top - random.uniform(0, 4)
        gable = polygon([(x, base + 1), (x, top), ridge, (end, top), (end, base + 1)])
        wood = _blob(scene, (x + end) / 2, base, (end - x) * 0.8, base - top, 0.9)
        tone = scene.varied(_LEAVES if label == TREE else _WALLS)
        scene.canvas.paint(wood if label == TREE else gable, scene.tint(tone, _FAR, 0.85), label=label)
        x = end - random.uniform(0, 4)


class Street(NamedTuple):
    """Where the street's parts lie, in metres from the camera's path: (left, right) pairs, both positive outwards.

    Attributes:
        kerb: distance of the kerbs.
        pave: width of the pavements beyond.
        grass: whether grass follows after the pavement.
        parked: whether cars stand along the kerb.
        junction: the side (-1 or 1) of a side road, and where along the street it begins and ends.
        end: where a crossing building ends the street.
    """

    kerb: tuple[float, float]
    pave: tuple[float, float]
    grass: tuple[bool, bool]
    parked: tuple[bool, bool]
    junction: tuple[int, float, float]
    end: float


def _street(random: Random) -> Street:
    parked = random.chance(0.36), random.chance(0.42)
    kerb = random.uniform(1.8, 2.8) + 2.1 * parked[0], random.uniform(4.2, 6.0) + 2.1 * parked[1]
    if random.chance(0.15):
        kerb = kerb[0] + 2.8, kerb[1] + random.uniform(0, 3)
    start = random.uniform(12, 40)
    junction = (
        (random.choose((-1, 1)), start, start + random.uniform(6, 10)) if random.chance(0.45) else (1, _FAR, _FAR)
    )
    pave = random.uniform(2.2, 4.6), random.uniform(2.2, 4.6)
    grass = random.chance(0.3), random.chance(0.3)
    return Street(kerb, pave, grass, parked, junction, random.uniform(28, 75) if random.chance(0.4) else _FAR)


def _ground(scene: _Scene, street: Street) -> None:
    """Road with its markings, kerbs, pavements and grass, with the shadows on them."""
    random, canvas, s = scene.random, scene.canvas, scene.canvas.scale
    top, (rows, columns) = int(scene.horizon) * s, canvas.labels.shape
    z = (scene.focus * scene.eye / ((np.arange(top, rows) + 0.5) / s - scene.horizon))[:, None]
    x = (((np.arange(columns) + 0.5) / s - scene.centre) / scene.focus)[None, :] * z - scene.bend * z * z
    kind = np.zeros(x.shape, dtype=np.int64)
    _markings(random, street, kind, x, z)
    for k, side in ((0, -1), (1, 1)):
        out = side * x - street.kerb[k]
        if side == street.junction[0]:
            out = np.where((z > street.junction[1]) & (z < street.junction[2]), -1.0, out)
        out = np.where((z > street.end - 9) & (z < street.end - 2), -1.0, out)
        kind[out > 0] = 3
        kind[out > 0.16] = 4
        kind[out > street.pave[k]] = 5 if street.grass[k] else 4
    if street.end < _FAR:
        kind[z[:, 0] > street.end - 2] = 4
    grey, stone, worn = random.uniform(84, 138), random.uniform(110, 176), random.uniform(150, 225)
    palette: list[Numbers] = [
        (grey, grey, grey + random.uniform(-4, 9)),
        (worn, worn, worn - 6),
        (worn, worn * 0.85, 60),
    ]
    palette += [(stone + 20, stone + 18, stone + 12), (stone, stone - random.uniform(0, 18), stone - 20)]
    palette += [scene.varied([(98, 112, 56), (84, 96, 50), (116, 112, 66)])]
    shade = scene.texture(scene.grain, x, z, 9.0, 0.28) * scene.texture(scene.lumps, x, z * 0.3, 20.0, 0.25)
    shade = shade * _shadow(scene, x, z) * (1 + random.uniform(-0.1, 0.35) * (z / (z + 25)))
    scene.lay(slice(top, rows), slice(0, columns), kind, shade, np.array([scene.tint(c) for c in palette]))
    canvas.labels[top:] = np.array([ROAD, ROAD, ROAD, PAVEMENT, PAVEMENT, TREE], dtype=np.uint8)[kind]


def _markings(random: Random, street: Street, kind: NDArray[np.int64], x: Floats, z: Floats) -> None:
    """White (1) and yellow (2) paint on the road."""
    middle, phase, start = random.uniform(1.5, 2.2), random.uniform(0, 6), random.uniform(6, 25)
    seen = z < min(70, street.end - 9)
    if random.chance(0.8):
        along = (z + phase) - 6 * np.floor((z + phase) / 6)
        kind[(np.abs(x - middle) < 0.09) & (along < random.choose((2.0, 4.0, 6.0))) & seen] = 1
    for edge, side in zip(street.kerb, (-1, 1), strict=True):
        out, colour = edge - side * x, random.choose((0, 1, 2), (1, 1, 2))
        if colour == 2:
            kind[((np.abs(out - 0.35) < 0.05) | (np.abs(out - 0.58) < 0.05)) & seen] = 2
        elif colour == 1:
            kind[(np.abs(out - random.choose((0.4, 1.5, 2.3))) < 0.08) & seen] = 1
    extra = random.choose(("", "zebra", "box", "line"), (4, 2, 2, 3))
    if extra == "zebra":
        kind[(z > start) & (z < start + 3) & ((np.floor(x / 0.6).astype(np.int64) & 1) == 0)] = 1
    elif extra == "box":
        up, down = (x + z) / 2.6, (x - z) / 2.6
        kind[((up - np.floor(up) < 0.07) | (down - np.floor(down) < 0.07)) & (z > start) & (z < start + 11)] = 2
    elif extra == "line":
        kind[(z > start) & (z < start + 0.4) & (x < middle)] = 1


def _shadow(scene: _Scene, x: Floats, z: Floats) -> Floats:
    """Brightness of the ground: shadows of roofs and trees, worn tracks and mended patches."""
    random, shade = scene.random, np.ones(x.shape)
    if random.chance(0.45):
        roofs = random.uniforms(32) * 4 + random.uniform(-3, 4)
        edge = roofs[np.floor(z / random.uniform(5, 9)).astype(np.int64) & 31]
        shade[x * random.choose((-1, 1)) > edge] *= random.uniform(0.5, 0.8)
    if random.chance(0.12):
        leaves = scene.texture(scene.lumps, x, z * 0.5, 40.0, 1.0) > random.uniform(0.9, 1.05)
        shade[leaves & (z < random.uniform(10, 30))] *= random.uniform(0.75, 0.92)
    if random.chance(0.5):
        shade[np.abs(np.abs(x - random.uniform(-0.3, 0.3)) - 0.8) < 0.28] *= random.uniform(0.88, 1.08)
    for _ in range(random.integer(0, 3)):
        wide, far = random.uniform(0.3, 1.6), random.uniform(0.4, 3)
        patch = (np.abs(x - random.uniform(-4, 6)) < wide) & (np.abs(z - random.uniform(3, 20)) < far)
        shade[patch] *= random.uniform(0.75, 1.15)
    return shade


def _facade(scene: _Scene, wall: Numbers, blank: bool = False) -> _Surface:
    """Brick or plaster with rows of windows (blank: few), and perhaps a shop on the ground floor."""
    random = scene.random
    bay, storey, salt = random.uniform(1.9, 4.2), random.uniform(2.7, 3.5), random.integer(0, 1000)
    wide, tall, sill = bay * random.uniform(0.2, 0.42), random.uniform(1.2, 2.0), random.uniform(0.6, 0.95)
    shop = random.chance(0.45) and not blank
    frame, ledge = random.uniform(0.7, 1.3), random.uniform(0.55, 1.2)
    glass = random.choose(((46, 52, 60), (70, 82, 96), (120, 136, 152), (36, 36, 38)))
    palette = [wall, [c * frame for c in wall], glass, [c * 1.7 for c in glass], [c * ledge for c in wall]]
    palette += [scene.varied([*_SIGNS, *_WALLS]), (150, 130, 110)]
    if random.chance(0.5):
        palette[1] = (225, 225, 220)

    def pattern(u: Floats, v: Floats) -> tuple[NDArray[np.int64], Floats]:
        column, row = np.floor(u / bay).astype(np.int64), np.floor(v / storey).astype(np.int64)
        across, up = np.abs(u - (column + 0.5) * bay), v - row * storey
        draw = (column * 7919 + row * 104729 + salt) * 2654435761 // 65536 & 15
        opening = draw > (12 if blank else 0)
        kind = np.where(up < 0.16, 4, 0)
        kind[opening & (across < wide + 0.1) & (up > sill - 0.1) & (up < sill + tall + 0.1)] = 1
        pane = opening & (across < wide) & (across > 0.04) & (up > sill) & (up < sill + tall)
        kind[pane] = 2 + (draw[pane] > 11)
        if shop:
            low, door = v < 2.6, draw % 5 == 0
            kind[low & (across < bay * 0.46)] = 2
            kind[low & (across < bay * 0.46) & door] = 6
            kind[v < 0.4] = 4
            kind[(v > 2.6) & (v < 3.3)] = 5
        shade = scene.texture(scene.grain, u, v, 7.0, 0.3) * scene.texture(scene.lumps, u, v, 9.0, 0.25)
        return kind, np.where(kind == 2, shade * (0.7 + 0.6 * scene.grain[draw * 7, draw]), shade)

    return _Surface(palette, pattern)


def _plain(scene: _Scene, colour: Numbers) -> _Surface:
    """A rough surface of one colour."""

    def pattern(u: Floats, v: Floats) -> tuple[NDArray[np.int64], Floats]:
        return np.zeros(v.shape, dtype=np.int64), scene.texture(scene.grain, u, v, 6.0, 0.3)

    return _Surface([colour], pattern)


def _building(scene: _Scene, side: int, x: float, z0: float, z1: float, label: int) -> None:
    """A house along the street from z0 to z1, its front at side * x, with a pitched or flat roof and chimneys."""
    random, depth = scene.random, scene.random.uniform(6, 11)
    height = random.choose((5.4, 6.5, 8.5, 10.5, 13.5), (2, 3, 3, 3, 2)) * random.uniform(0.95, 1.2)
    top = height + random.choose((0.0, random.uniform(1.5, 4.0)), (2, 3))
    front, ridge, back = side * x, side * (x + depth / 2), side * (x + depth)
    wall, roof = scene.varied(_WALLS), scene.varied(_ROOFS)
    facade, end_facade = _facade(scene, wall), _facade(scene, wall, blank=True)
    if top > height and z1 > _NEAR:
        slope = [(front, height, z0), (front, height, z1), (ridge, top, z1), (ridge, top, z0)]
        for points in (slope, slope[::-1]):  # where it turns its back, the walls hide it
            scene.face(points, roof, label, 0.8 * scene.sun[side > 0] + 0.2)
        for _ in range(random.integer(0, 2)):
            z = random.uniform(z0, z1)
            scene.panel((ridge - 0.5, z, ridge + 0.5, z), top - 0.8, top + 1.3, _plain(scene, wall), label)
    if z0 > _NEAR:
        gable = [(front, height, z0), (back, height, z0), (ridge, top, z0)]
        scene.face(gable[::side], wall, label, 0.9)
        scene.panel((front, z0, back, z0), 0, height, end_facade, label, 0.9)
    scene.panel((front, z0, front, z1), 0, height, facade, label, scene.sun[side > 0])


def _barrier(scene: _Scene, side: int, x: float, z0: float, z1: float) -> None:
    """Railings, boards, a low wall or a hedge along the pavement."""
    random, kind = scene.random, scene.random.choose(("railings", "boards", "wall", "hedge"), (5, 3, 2, 3))
    height = {"railings": 1.15, "boards": 1.7, "wall": 0.9, "hedge": 1.5}[kind] * random.uniform(0.9, 1.1)
    boards = [(130, 104, 78), (98, 84, 70), (150, 146, 140)]
    tone = scene.varied({"railings": [*_PAINTS, *_METAL], "boards": boards, "wall": _WALLS, "hedge": _LEAVES}[kind])

    def pattern(u: Floats, v: Floats) -> tuple[NDArray[np.int64], Floats]:
        shade = scene.texture(scene.grain, u, v, 9.0, 0.9 if kind == "hedge" else 0.3)
        if kind == "railings":
            bar, post = u / 0.22 - np.floor(u / 0.22), u - 2 * np.floor(u / 2)
            solid = (bar < 0.34) | (post < 0.09) | (np.abs(v - 0.12) < 0.05) | (v > height - 0.09)
            return np.where(solid, 0, -1), shade
        if kind == "boards":
            return np.where(u / 0.3 - np.floor(u / 0.3) < 0.1, 1, 0), shade
        if kind == "hedge":
            return np.where(v < height * scene.texture(scene.lumps, u, u, 9.0, 0.4), 0, -1), shade * (0.7 + 0.3 * v)
        return np.where(v > height - 0.12, 1, 0), shade

    label = {"railings": FENCE, "boards": FENCE, "wall": BUILDING, "hedge": TREE}[kind]
    surface = _Surface([tone, [c * 0.7 for c in tone]], pattern)
    while z1 > max(z0, _NEAR):
        near = max(z1 - 3.0 - z1 / 8, z0)
        line = side * x, near, side * x, z1
        scene.put(z1, _Scene.panel, line, 0.0, height, surface, label, scene.sun[side > 0])
        z1 = near


def _blob(scene: _Scene, x: float, y: float, width: float, height: float, rough: float, twigs: bool = False) -> Shape:
    """An ellipse with a frayed edge; or only a net of twigs inside."""
    random, s, (rows, columns) = scene.random, scene.canvas.scale, scene.ragged.shape
    down, right, reach = random.integer(0, rows - 1), random.integer(0, columns - 1), 1 + rough * 0.45

    def cover(px: Floats, py: Floats) -> NDArray:
        u, v = (px - x) / width, (py - y) / height
        row, column = (py * s).astype(np.int64) + down, (px * s).astype(np.int64) + right
        noise = scene.ragged[row % rows, column % columns] - 0.5
        inside = u * u + v * v + noise * (2.4 * rough) < 1.0
        return inside & (np.abs(noise) < 0.045) if twigs else inside

    return (x - width * reach, y - height * reach, x + width * reach, y + height * reach), cover


def _tree(scene: _Scene, x: float, z: float, height: float) -> None:
    """A trunk and a crown: in leaf, or bare twigs that the sky shines through."""
    random, canvas, (cx, ground), scale = scene.random, scene.canvas, scene.at(x, 0, z), height * scene.focus / z
    wide, tall = scale * random.uniform(0.24, 0.4), scale * random.uniform(0.3, 0.4)
    middle, trunk = ground - scale + tall, scene.tint(scene.varied([(76, 66, 54), (104, 96, 84)]), z)
    canvas.paint(stroke(cx, ground, cx, middle, max(0.9, 0.035 * scale)), trunk, label=TREE)
    blob = _blob(scene, cx, middle, wide, tall, 0.6)
    if random.chance(0.3):
        canvas.paint(blob, trunk, alpha=0.15, label=TREE)
        canvas.paint(_blob(scene, cx, middle, wide, tall, 0.6, twigs=True), trunk, alpha=0.7)
        for k in range(-3, 4):
            tip = cx + k * wide * random.uniform(0.2, 0.33), middle - tall * random.uniform(0, 0.8)
            canvas.paint(stroke(cx, middle + tall * 0.8, *tip, max(0.5, 0.01 * scale)), trunk)
        return
    leaves = scene.varied(_LEAVES)
    lit = _blob(scene, cx - wide * 0.2, middle - tall * 0.25, wide * 0.7, tall * 0.7, 1.1)
    for part, light in ((blob, 0.7), (lit, 1.15)):
        canvas.paint(part, scene.tint(leaves, z, light), shade=scene.leaf, label=TREE)


def _vehicle(scene: _Scene, vehicle: _Vehicle, x: float, z: float, heading: tuple[int, int]) -> None:
    """A car, van or bus; (x, z) is the middle of its rear bumper, heading is a unit vector on the ground."""
    random, paint, (hx, hz), half = scene.random, scene.varied(_PAINTS), heading, vehicle.width / 2
    glass = random.choose(((38, 42, 48), (66, 76, 86), (104, 116, 128)))
    outline, length, slim = vehicle.outline, vehicle.outline[-1][0], 0.2 if vehicle.width < 2.2 else 0.0

    def spot(along: float, across: float, up: float) -> Point:
        across *= half * (1 - slim * max(0.0, up - 0.9))
        return x + along * hx + across * hz, up, z + along * hz - across * hx

    def across_at(along: float, left: float, low: float, right: float, high: float) -> list[Point]:
        return [spot(along, left, low), spot(along, right, low), spot(along, right, high), spot(along, left, high)]

    shadow = [spot(a, c, 0) for a, c in ((-0.15, -1.1), (-0.15, 1.1), (length + 0.1, 1.1), (length + 0.1, -1.1))]
    scene.canvas.paint(polygon([scene.at(*p) for p in shadow]), BLACK, alpha=0.6)
    for along in (length - 0.1, 0.1) if hz < 0 else (0.1, length - 0.1):
        for left in (-0.98, 0.68) if z < 40 else ():
            tyre = across_at(along, left, 0, left + 0.3, 0.5)
            scene.canvas.paint(polygon([scene.at(*p) for p in tyre]), scene.tint(BLACK, light=0.7), label=CAR)
    stretches = list(enumerate(pairwise(outline)))
    for k, ((a0, y0), (a1, y1)) in stretches if hz < 0 else reversed(stretches):
        flat = abs(a1 - a0) / (abs(a1 - a0) + abs(y1 - y0))
        strip = [spot(a, c, y) for a, c, y in ((a0, -1, y0), (a0, 1, y0), (a1, 1, y1), (a1, -1, y1))]
        if scene.face(strip, paint, CAR, 0.72 + 0.45 * flat) and k in vehicle.glass:
            pane = [spot(a, c * 0.86, y) for a, c, y in ((a0, -1, y0), (a0, 1, y0), (a1, 1, y1), (a1, -1, y1))]
            scene.face(pane, glass, CAR, random.uniform(0.8, 1.5))
    for c in (1, -1):
        side = [spot(a, c, up) for a, up in outline]
        if scene.face(side[::-c], paint, CAR, 0.85 * scene.sun[c * hz < 0]) and z < 40:
            _flank(scene, vehicle, glass, c, spot)
    end, lamp, plate = (0.0, (150, 24, 24), (214, 190, 70)) if hz >= 0 else (length, (236, 234, 220), (220, 220, 216))
    details = [(-0.95, 0.62, -0.67, 0.84, lamp), (0.67, 0.62, 0.95, 0.84, lamp), (-0.28, 0.44, 0.28, 0.58, plate)]
    for left, low, right, high, colour in [*details, (-0.98, 0.28, 0.98, 0.4, (44, 44, 48))] if z < 30 else ():
        scene.face(across_at(end, left, low, right, high)[:: 1 if hz >= 0 else -1], colour, CAR)


def _flank(scene: _Scene, vehicle: _Vehicle, glass: Numbers, c: int, spot: Callable[..., Point]) -> None:
    """Windows and wheels on the right (c = 1) or left (-1) side; `spot` maps (ahead, right, up) to the world."""
    length, radius = vehicle.outline[-1][0], 0.33 if vehicle.width < 2.2 else 0.5
    for pane in vehicle.panes:
        scene.face([spot(a, c * 1.01, y) for a, y in pane][::-c], glass, CAR)
    for a in (length * 0.19, length * 0.81):
        for size, tone in ((radius, (20, 20, 22)), (radius * 0.55, (128, 130, 134))):
            rim = [spot(a + size * dx, c * 1.01, radius + size * dy) for dx, dy in _CIRCLE]
            if size == radius or rim[0][2] < 20:
                scene.canvas.paint(polygon([scene.at(*p) for p in rim]), scene.tint(tone), label=CAR)


class _Limb(NamedTuple):
    """A line of strokes through points in metres (across, up from the ground); a single point makes a disc."""

    colour: Numbers
    width: float
    points: Sequence[tuple[float, float]]


def _figure(scene: _Scene, x: float, z: float, label: int, size: float, limbs: Sequence[_Limb]) -> None:
    """A person, perhaps on a bicycle, facing left or right."""
    (foot_x, foot_y), scale, mirror = scene.at(x, 0, z), size * scene.focus / z, scene.random.choose((-1, 1))
    scene.canvas.paint(ellipse(foot_x, foot_y, 0.45 * scale, 0.1 * scale, soft=0.6), BLACK, alpha=0.5)
    for colour, width, points in limbs:
        tone, ends = scene.tint(colour, z), [(foot_x + mirror * a * scale, foot_y - up * scale) for a, up in points]
        for start, end in zip(ends, ends[1:] or ends, strict=False):
            scene.canvas.paint(stroke(*start, *end, max(0.7, width * scale)), tone, label=label)


def _head(random: Random, across: float, up: float) -> list[_Limb]:
    face = _Limb(random.choose(_SKIN), 0.24, [(across, up - 0.16), (across, up + 0.03)])
    return [face, _Limb(random.choose(_HAIR), 0.23, [(across - random.uniform(-0.02, 0.06), up + 0.06)])]


def _pedestrian(scene: _Scene, x: float, z: float) -> None:
    random, coat, legs = scene.random, scene.varied(_CLOTHES), scene.varied(_CLOTHES)
    stride, swing = random.uniform(0.02, 0.3), random.uniform(-0.25, 0.25)
    hem = random.choose((0.95, 0.7, 0.58), (4, 2, 1))
    far_leg = [(-0.05, 0.85), (-0.02 - stride * 0.3, 0.45), (-stride, 0.05), (0.1 - stride, 0.03)]
    near_leg = [(0.05, 0.85), (0.05 + stride * 0.6, 0.47), (stride, 0.05), (stride + 0.12, 0.03)]
    limbs = [_Limb([c * 0.75 for c in legs], 0.14, far_leg), _Limb(legs, 0.15, near_leg)]
    limbs += [_Limb([c * 0.8 for c in coat], 0.1, [(-0.14, 1.38), (-0.2 - swing * 0.4, 1.1), (-0.16 - swing, 0.88)])]
    limbs += [_Limb(coat, 0.38, [(0, 1.28), (0, hem)]), *_head(random, 0, 1.62)]
    limbs += [_Limb([c * 0.9 for c in coat], 0.1, [(0.15, 1.38), (0.2 + swing * 0.4, 1.1), (0.17 + swing, 0.88)])]
    if random.chance(0.35):
        limbs += [_Limb(scene.varied(_CLOTHES), 0.26, [(-0.24, random.choose((0.6, 1.2))), (-0.24, 0.7)])]
    _figure(scene, x, z, PEDESTRIAN, random.choose((1.0, 0.93, 0.68), (5, 4, 1)), limbs)


def _cyclist(scene: _Scene, x: float, z: float, along: bool) -> None:
    """Somebody on a bicycle, seen from behind where it goes along the street, else from the side."""
    random, coat, legs, metal = scene.random, scene.varied(_CLOTHES), scene.varied(_CLOTHES), scene.varied(_PAINTS)
    sleeve, leg, push = [c * 0.85 for c in coat], [c * 0.8 for c in legs], random.uniform(-0.14, 0.14)
    if along:
        limbs = [_Limb(BLACK, 0.09, [(0, 0.04), (0, 0.64)])]
        limbs += [_Limb(leg, 0.14, [(-0.12, 0.95), (-0.15, 0.62 + push), (-0.12, 0.26 + push)])]
        limbs += [_Limb(legs, 0.14, [(0.12, 0.95), (0.15, 0.62 - push), (0.12, 0.26 - push)])]
        limbs += [_Limb(metal, 0.04, [(-0.28, 1.02), (0.28, 1.02)]), _Limb(coat, 0.4, [(0, 1.02), (0, 1.32)])]
        limbs += [_Limb(sleeve, 0.1, [(0.27 * c, 1.05), (0.25 * c, 1.25), (0.12 * c, 1.42)]) for c in (-1, 1)]
        limbs += _head(random, 0, 1.64)
    else:
        limbs = []
        for hub in (-0.52, 0.52):
            limbs += [_Limb(BLACK, 0.7, [(hub, 0.35)]), _Limb((112, 112, 114), 0.58, [(hub, 0.35)])]
            limbs += [_Limb(metal, 0.03, [(hub - 0.3, 0.35), (hub + 0.3, 0.35)])]
        limbs += [_Limb(metal, 0.05, [(-0.52, 0.34), (-0.2, 0.85), (0.38, 0.85), (0.52, 0.34)])]
        limbs += [_Limb(metal, 0.05, [(-0.2, 0.85), (-0.02, 0.32), (0.38, 0.85), (0.44, 1.05)])]
        limbs += [_Limb(leg, 0.13, [(-0.2, 0.98), (0.08, 0.66), (-0.02 - push, 0.2)])]
        limbs += [_Limb(legs, 0.13, [(-0.2, 0.98), (0.18, 0.8), (-0.02 + push, 0.42)])]
        limbs += [_Limb(coat, 0.28, [(-0.16, 1.04), (0.06, 1.42)]), *_head(random, 0.2, 1.68)]
        limbs += [_Limb(sleeve, 0.09, [(0.12, 1.42), (0.2, 1.15), (0.44, 1.07)])]
    _figure(scene, x, z, BICYCLIST, random.uniform(0.95, 1.08), limbs)


def _post(scene: _Scene, x: float, z: float, height: float, width: float, colour: Numbers) -> tuple[float, float]:
    """A thin upright pole; where its top lies in the picture."""
    top, thick = scene.at(x, height, z), max(1.0, width * scene.focus / z)
    scene.canvas.paint(stroke(*scene.at(x, 0, z), *top, thick), scene.tint(colour, z), label=POLE)
    return top


def _lamp_post(scene: _Scene, x: float, z: float) -> None:
    random, scale, colour = scene.random, scene.focus / z, scene.varied(_METAL)
    tx, ty = _post(scene, x, z, random.uniform(5, 9), 0.13, colour)
    _post(scene, x, z, 1.2, 0.2, colour)
    if random.chance(0.7):
        tip = tx + (-1.6 if x > 0 else 1.6) * scale, ty - 0.25 * scale
        scene.canvas.paint(stroke(tx, ty, *tip, max(0.9, 0.09 * scale)), scene.tint(colour, z), label=POLE)
        lamp = ellipse(*tip, 0.4 * scale, 0.1 * scale)
    else:
        lamp = ellipse(tx, ty, 0.22 * scale, 0.28 * scale)
    scene.canvas.paint(lamp, scene.tint((200, 200, 196), z), label=POLE)


def _sign(scene: _Scene, x: float, z: float) -> None:
    """A traffic sign, a traffic light, a direction board or an advertisement on one or two posts."""
    random, canvas, scale = scene.random, scene.canvas, scene.focus / z
    kind, grey = random.choose(("disc", "triangle", "lights", "board", "panel"), (3, 2, 4, 3, 2)), scene.varied(_METAL)
    if kind == "panel":
        _advertisement(scene, x, z, grey)
        return
    tx, ty = _post(scene, x, z, random.uniform(2.6, 3.4), 0.1, grey)
    r, colour = random.uniform(0.36, 0.6) * scale, scene.tint(random.choose(_SIGNS), z)
    white = scene.tint((226, 226, 222), z)
    if kind == "disc":
        canvas.paint(ellipse(tx, ty, r, r), scene.tint(random.choose((_SIGNS[0], _SIGNS[4])), z), label=SIGN)
        canvas.paint(ellipse(tx, ty, r * 0.68, r * random.choose((0.68, 0.2))), white)
    elif kind == "triangle":
        for size, tone in ((1.2, scene.tint(_SIGNS[4], z)), (0.65, white)):
            points = [(tx, ty - r * size), (tx + r * size, ty + r * size * 0.8), (tx - r * size, ty + r * size * 0.8)]
            canvas.paint(polygon(points), tone, label=SIGN)
    elif kind == "board":
        wide, tall = r * random.uniform(1.2, 2.6), r * random.uniform(0.8, 1.6)
        canvas.paint(rectangle(tx - wide, ty - tall, tx + wide, ty + tall), colour, label=SIGN)
        canvas.paint(rectangle(tx - wide * 0.7, ty - tall * 0.4, tx + wide * 0.6, ty), 240 - colour * 0.8)
    else:
        box, lit = 0.24 * scale, random.integer(0, 2)
        housing = rectangle(tx - box, ty - box * 2.2, tx + box, ty + box * 2.2)
        canvas.paint(housing, scene.tint(BLACK, z), label=SIGN)
        for k, glow in enumerate(((236, 50, 40), (240, 170, 40), (60, 220, 130))):
            lamp = ellipse(tx, ty + (k - 1) * box * 1.35, box * 0.55, box * 0.55)
            canvas.paint(lamp, glow if k == lit else (58, 56, 54))


def _advertisement(scene: _Scene, x: float, z: float, grey: Numbers) -> None:
    random, wide, low = scene.random, scene.random.uniform(0.5, 1.1), scene.random.uniform(0.1, 0.9)
    high, band = random.uniform(2.0, 3.4), random.uniform(0.4, 1.8)
    for left in (-wide, wide):
        _post(scene, x + left, z, high, 0.1, grey)

    def stripes(u: Floats, v: Floats) -> tuple[NDArray[np.int64], Floats]:
        return ((v > band) & (u > 0.1)).astype(np.int64), scene.texture(scene.grain, u, v, 9.0, 0.25)

    poster = _Surface([scene.varied(_SIGNS), scene.varied(_SIGNS)], stripes)
    scene.panel((x - wide, z, x + wide, z), low, high, poster, SIGN)


def _shop_sign(scene: _Scene, x: float, z: float) -> None:
    """A board that stands out from a house front."""
    random, low = scene.random, scene.random.uniform(2.6, 5.0)
    line = x, z, x - random.uniform(0.7, 1.2) * (1 if x > 0 else -1), z
    scene.panel(line, low, low + random.uniform(0.7, 1.8), _plain(scene, scene.varied(_SIGNS)), SIGN)


def _clutter(scene: _Scene, x: float, z: float) -> None:
    """Bins, boxes and parcels: things without a class."""
    surface, width = _plain(scene, scene.varied(_CLOTHES + _PAINTS)), scene.random.uniform(0.25, 0.6)
    height, inner = scene.random.uniform(0.8, 1.4), x - width if x > 0 else x + width
    scene.panel((inner, z, inner, z + 0.8), 0, height, surface, VOID, 0.7)
    scene.panel((x - width, z, x + width, z), 0, height, surface, VOID)
    scene.panel((x - width * 1.1, z, x + width * 1.1, z), height, height + 0.1, surface, VOID, 0.5)


def _bonnet(scene: _Scene) -> None:
    """The rim of the camera's own car at the bottom of the picture."""
    random, (height, width) = scene.random, SIZE
    middle, wide = width * random.uniform(0.35, 0.75), width * random.uniform(0.55, 0.85)
    shape = ellipse(middle, height + 30, wide, 30 + random.uniform(4, 13))
    tone = scene.tint(scene.varied(_PAINTS), light=0.7)
    scene.canvas.paint(shape, tone, label=VOID, shade=0.75 + 0.3 * scene.ragged)


def _crossing(scene: _Scene, z: float) -> None:
    """The fronts of buildings across the end of the street."""
    x = scene.random.uniform(-45, -30)
    while x < 40:
        end = x + scene.random.uniform(7, 18)
        facade = _facade(scene, scene.varied(_WALLS))
        scene.panel((x, z, end, z), 0, scene.random.uniform(5, 14), facade, BUILDING, 0.95)
        x = end


def _houses(scene: _Scene, street: Street, side: int) -> None:
    """Houses, gardens or a park along one side."""
    random, k = scene.random, int(side > 0)
    edge, (gap_side, gap_start, gap_end) = street.kerb[k] + street.pave[k], street.junction
    kind = random.choose(("terrace", "houses", "park"), (1, 1, 6) if street.grass[k] else (8, 1, 2))
    verge = edge + (0.0 if kind == "terrace" else random.uniform(3, 7))
    gap = (gap_start, gap_end) if gap_side == side else (_FAR, _FAR)
    for start, end in ((1.0, min(gap[0], street.end - 9)), (gap[1], street.end - 9)):
        z = start
        while z < end - 1:
            far, front = min(end, z + random.uniform(6, 16)), verge + random.uniform(0, 0.8)
            if kind != "park" or (z > 40 and random.chance(0.7)):
                scene.put(far, _building, side, front, z, far, VOID if random.chance(0.03) else BUILDING)
                if random.chance(0.4):
                    sign = random.uniform(z, far)
                    scene.put(sign, _shop_sign, side * front, sign)
            z = far + (0.0 if kind == "terrace" and random.chance(0.8) else random.uniform(1, 5))
        if kind != "terrace" or random.chance(0.12):
            _barrier(scene, side, edge, start, min(end, 60))
    trees, spread = {"terrace": (random.choose((0, 0, 2)), 0), "houses": (4, 3), "park": (20, 10)}[kind]
    for _ in range(trees):
        out = street.kerb[k] + 0.7 if kind == "terrace" else edge + random.uniform(0.8, spread)
        z = random.uniform(9, min(60, street.end - 10))
        if not gap[0] - 2 < z < gap[1] + 2:
            scene.put(z, _tree, side * out, z, random.uniform(4.5, 7 if kind == "terrace" else 11))


def _pavement(scene: _Scene, street: Street, side: int) -> None:
    """What stands and walks on the pavement of one side."""
    random, k = scene.random, int(side > 0)
    lamps, signs = random.integer(1, 2), random.choose((0, 1, 2, 3), (2, 4, 3, 1))
    people, clutter = random.choose((0, 1, 3, 6), (2, 3, 3, 1)), random.choose((0, 1, 2), (4, 3, 1))
    plan = [(_lamp_post, lamps, 8, 45, 0.1, 0.2), (_sign, signs, 8, 32, 0.15, 0.3)]
    plan += [(_pedestrian, people, 6, 28, 0.2, 0.9), (_clutter, clutter, 9, 30, 0.1, 0.9)]
    for make, count, near, far, inner, outer in plan:
        for _ in range(count):
            z, x = random.uniform(near, far), side * (street.kerb[k] + street.pave[k] * random.uniform(inner, outer))
            if side != street.junction[0] or not street.junction[1] < z < street.junction[2]:
                scene.put(z, make, x, z)
    if random.chance(0.2):
        for z in range(8, 30, random.integer(2, 4)):
            scene.put(z, _post, side * (street.kerb[k] + 0.3), float(z), 1.0, 0.13, _METAL[1])


def _traffic(scene: _Scene, street: Street) -> None:
    """Parked, leading, oncoming and crossing vehicles, cyclists and people who cross."""
    random, lane = scene.random, scene.random.uniform(2.8, 3.3)

    def drive(x: float, z: float, heading: tuple[int, int], bus: int = 0) -> None:
        vehicle = random.choose(_CARS, (10, 8, 4, 2, bus))
        if z < street.end - 10 or heading[0]:
            scene.put(z, _vehicle, vehicle, x, z + vehicle.outline[-1][0] if heading[1] < 0 else z, heading)

    for k, side in ((0, -1), (1, 1)):
        z = random.uniform(2, 14)
        while street.parked[k] and z < 55:
            drive(side * (street.kerb[k] - 1.05), z, (0, random.choose((-side, side), (6, 1))))
            z += random.uniform(5.3, 7) if random.chance(0.75) else random.uniform(9, 25)
    if random.chance(0.55):
        drive(random.uniform(-0.5, 0.4), random.uniform(7, 30), (0, 1), bus=2)
    for near, far in ((4, 10), (20, 28), (38, 60)):
        if random.chance(0.5):
            drive(lane, random.uniform(near, far), (0, -1), bus=2)
    side, start, end = street.junction
    if start < _FAR and random.chance(0.35):
        way = random.choose((-1, 1))
        drive(side * random.uniform(3, 7) - way * 2, (start + end) / 2, (way, 0))
    if street.end < _FAR and random.chance(0.6):
        drive(random.uniform(-12, 8), street.end - 5, (random.choose((-1, 1)), 0))
    for _ in range(random.choose((0, 1, 2), (4, 4, 3))):
        z, along = random.uniform(8, 26), random.chance(0.65)
        verge = -(street.kerb[0] - 0.6 - 2.1 * street.parked[0])
        scene.put(z, _cyclist, random.choose((verge, lane - 1.2)) if along else random.uniform(-2, 4), z, along)
    if random.chance(0.25):
        z = random.uniform(9, 25)
        scene.put(z, _pedestrian, random.uniform(-2, 5), z)


def _seams(scene: _Scene, labels: NDArray[np.uint8]) -> None:
    """Leaves thin unlabelled gaps along some borders, as the people who labelled CamVid did."""
    noise = scene.ragged[1 :: scene.canvas.scale, 1 :: scene.canvas.scale]
    thin = np.isin(labels, (POLE, SIGN, PEDESTRIAN, BICYCLIST))
    border = np.zeros(labels.shape, dtype=bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    labels[border & ~thin & (noise > 0.55)] = VOID


def _develop(scene: _Scene) -> NDArray[np.uint8]:
    """The camera: white balance, contrast, vignette and noise; uint8 [132, 176, 3]."""
    random, (height, width) = scene.random, SIZE
    fine = scene.canvas.pixels
    picture = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    picture = picture * np.array([random.uniform(0.93, 1.07) for _ in range(3)])
    picture = picture * (1 + random.uniform(-0.25, 0.3) * (1 - picture / 255))
    y, x = np.arange(height)[:, None] / height - 0.5, np.arange(width)[None, :] / width - 0.5
    picture = picture * (1 - random.uniform(0, 0.35) * (y * y + x * x))[..., None]
    noise = (random.uniforms(height, width, 3) - 0.5) * random.uniform(4, 14)
    return np.clip(np.floor(picture + noise + 0.5), 0.0, 255.0).astype(np.uint8)


def _scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture, uint8 [132, 176, 3], and its labels, uint8 [132, 176]."""
    scene = _Scene(seed)
    street = _street(scene.random)
    _sky(scene)
    _skyline(scene)
    _ground(scene, street)
    if street.end < _FAR:
        scene.put(street.end, _crossing, street.end)
    for side in (-1, 1):
        _houses(scene, street, side)
        _pavement(scene, street, side)
    _traffic(scene, street)
    scene.paint_all()
    if scene.random.chance(0.35):
        _bonnet(scene)
    labels = scene.canvas.label_map()
    _seams(scene, labels)
    return _develop(scene), labels


def scenes(split: Literal["train", "val"], start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The scenes of a split from number `start` to before `stop`.

    Returns:
        images, uint8 [stop - start, 132, 176, 3], RGB; labels, uint8 [stop - start, 132, 176], numbers of CamVid's
        classes.
    """
    count = stop - start
    images, labels = np.zeros((count, *SIZE, 3), dtype=np.uint8), np.zeros((count, *SIZE), dtype=np.uint8)
    for i in range(count):
        images[i], labels[i] = _scene(_SEEDS[split] + start + i)
    return images, labels
