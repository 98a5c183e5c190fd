"""Does attention help a U-Net to find cells, with 24 pictures and masks of 0 and 255?"""

from functools import partial

import pytest
from unet import UNet  # a network of your own: UNet(classes, attention=False)

from cvhw4 import Claim, Judged, Recipe, Row, Scenes, Study, Train

cells = Study(
    "cells",  # scenes/images/{train,val}/*.jpg, and masks of the same names in scenes/masks/{train,val}/*.png
    data=Scenes("scenes", values={"background": 0, "cell": 255}),
    recipe=Recipe(size=64, batch=4, epochs=8, optimizer="adam", lr=3e-3),
    rows={"attention": Row(partial(UNet, attention=True)), "plain": Row(UNet)},
    claims=[Claim(better="attention", worse="plain", metric="set_miou", sentence="attention helps to find cells")],
)
pytestmark = pytest.mark.study(cells)


def test_row(train: Train, row: Row, seed: int) -> None:
    assert train(row, seed).best("set_miou") > 0.7


def test_claim(judged: Judged, claim: Claim) -> None:
    assert judged(claim).verdict != "contradicted"
