"""Does a pretrained start help with 60 pictures of insects?"""

import pytest
from sklearn.metrics import balanced_accuracy_score

from cvhw4 import Claim, Judged, Recipe, Row, Study, Train

LITE0 = "tf_efficientnet_lite0"  # any timm model; this one's weights come with cvhw4
insects = Study(
    "insects",
    data="photos",  # photos/{train,val}/<class>/*.jpg
    recipe=Recipe(size=64, batch=10, epochs=3, lr=1e-3, lr_step=2),
    rows={
        "scratch": Row(LITE0, start="random"),
        "finetune": Row(LITE0),
    },
    metrics={"balanced": balanced_accuracy_score},
    claims=[Claim(better="finetune", worse="scratch", metric="balanced", sentence="a pretrained start helps")],
)
pytestmark = pytest.mark.study(insects)


def test_row(train: Train, row: Row, seed: int) -> None:
    assert train(row, seed).best("accuracy") > 0.3


def test_claim(judged: Judged, claim: Claim) -> None:
    assert judged(claim).verdict == "supported"
