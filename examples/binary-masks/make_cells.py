"""Draws the stand-in data: scenes/images/{train,val}/*.jpg and scenes/masks/{train,val}/*.png, 0 and 255."""

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SCENES = {"train": 24, "val": 8}
SIDE = 80  # pixels

draw = random.Random(0)
for split, count in SCENES.items():
    for number in range(count):
        tone = draw.randint(150, 200)
        image, mask = Image.new("RGB", (SIDE, SIDE), (tone, tone - 20, tone)), Image.new("L", (SIDE, SIDE), 0)
        for cell in [True] * 5 + [False] * 5:  # and specks that are none
            x, y, r = draw.randrange(SIDE), draw.randrange(SIDE), draw.randint(5, 11) if cell else 2
            box = [x - r, y - r * draw.uniform(0.6, 1), x + r, y + r * draw.uniform(0.6, 1)]
            ImageDraw.Draw(image).ellipse(box, fill=(draw.randint(60, 120), 40, draw.randint(90, 150)))
            if cell:
                ImageDraw.Draw(mask).ellipse(box, fill=255)
        for kind, picture in (("images", image.filter(ImageFilter.GaussianBlur(0.8))), ("masks", mask)):
            folder = Path(__file__).parent / "scenes" / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{number:02d}.{'jpg' if kind == 'images' else 'png'}")
