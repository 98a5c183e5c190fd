"""Draws the stand-in data: photos/{train,val}/{ant,beetle,butterfly}/*.jpg. Put your own in its place."""

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

PICTURES = {"train": 20, "val": 20}  # of each class
SIDE = 96  # pixels

Pen = ImageDraw.ImageDraw


def ant(pen: Pen, dark: str, bright: str) -> None:
    for x in (40, 48, 56):
        for side in (-1, 1):
            pen.line([(x, 48), (2 * x - 48, 48 + 22 * side)], fill=dark, width=2)
    for x, r in ((30, 7), (48, 5), (66, 9)):
        pen.ellipse([x - r, 48 - r, x + r, 48 + r], fill=dark)


def beetle(pen: Pen, dark: str, bright: str) -> None:
    for x in (36, 48, 60):
        pen.line([(x, 20), (x, 76)], fill=dark, width=3)
    pen.ellipse([26, 28, 72, 68], fill=bright, outline=dark, width=3)
    pen.line([(26, 48), (72, 48)], fill=dark, width=3)
    pen.ellipse([16, 40, 30, 56], fill=dark)


def butterfly(pen: Pen, dark: str, bright: str) -> None:
    for box in ([20, 14, 50, 46], [46, 20, 70, 46], [20, 50, 50, 82], [46, 50, 70, 76]):
        pen.ellipse(box, fill=bright, outline=dark, width=3)
    pen.line([(18, 48), (76, 48)], fill=dark, width=5)


def picture(kind: str, draw: random.Random) -> Image.Image:
    """A creature at some angle, in some colours, on grass or sand."""
    ground = draw.choice([(120, 150, 80), (190, 170, 130), (140, 130, 120)])
    image = Image.new("RGB", (SIDE, SIDE), tuple(c + draw.randint(-25, 25) for c in ground))
    pen = ImageDraw.Draw(image)
    for _ in range(150):  # blades and grains
        x, y, angle = draw.randrange(SIDE), draw.randrange(SIDE), draw.random() * math.pi
        shade = tuple(c + draw.randint(-50, 50) for c in ground)
        pen.line([(x, y), (x + 9 * math.cos(angle), y + 9 * math.sin(angle))], fill=shade)
    hue = draw.randrange(360)
    layer = Image.new("RGBA", (SIDE, SIDE))
    {"ant": ant, "beetle": beetle, "butterfly": butterfly}[kind](
        ImageDraw.Draw(layer), f"hsl({hue}, 40%, 15%)", f"hsl({(hue + 40) % 360}, 70%, 55%)"
    )
    scale = draw.uniform(0.7, 1.0)
    layer = layer.resize((round(SIDE * scale),) * 2).rotate(draw.uniform(0, 360), Image.Resampling.BICUBIC)
    free = SIDE - layer.width
    image.paste(layer, (draw.randint(0, free), draw.randint(0, free)), layer)
    return image.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.9)))


draw = random.Random(0)
for split, count in PICTURES.items():
    for kind in ("ant", "beetle", "butterfly"):
        folder = Path(__file__).parent / "photos" / split / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(kind, draw).save(folder / f"{number:02d}.jpg", quality=90)
