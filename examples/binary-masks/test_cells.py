"""Do skip connections help to find cells, with 24 pictures and masks of 0 and 255?"""

import pytest

from cvhw4 import Claim, Judged, Recipe, Row, Scenes, Study, Train

NETWORK = "fcn8s/tf_efficientnet_lite0"  # FCN8s over any timm backbone; this one's weights come with cvhw4

cells = Study(
    "cells",  # scenes/images/{train,val}/*.jpg, and masks of the same names in scenes/masks/{train,val}/*.png
    data=Scenes("scenes", values={"background": 0, "cell": 255}),
    recipe=Recipe(size=64, batch=4, epochs=4, optimizer="adam", lr=1e-3),
    rows={"skips": Row(NETWORK), "plain": Row(NETWORK, skips=False)},
    claims=[Claim(better="skips", worse="plain", metric="set_miou", sentence="skips help to find cells")],
)
pytestmark = pytest.mark.study(cells)


def test_row(train: Train, row: Row, seed: int) -> None:
    assert train(row, seed).best("set_miou") > 0.4


def test_claim(judged: Judged, claim: Claim) -> None:
    assert judged(claim).verdict != "contradicted"
