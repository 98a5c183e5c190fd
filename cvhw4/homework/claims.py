"""What the 2019 report concludes, and this project's controls: which row should beat which row or figure.

The smallest difference of interest is part of each, chosen from what the report states and from no run here:

- one point of accuracy: 4 of the report's 400 validation images, half of the standard error of one of its accuracies;
- one point of mIoU or pixel accuracy between arms with and without skips: half of the "about 2 points" that the report
  calls a gain;
- 5 points from 11 to 3 classes: the report calls a rise of 42 (mIoU) and 12 points (pixel accuracy) dramatic, and less
  than half of the smaller is not;
- 2.4 points of interaction of skips and batch norm: the report's whole gain in mIoU, which an interaction must reach
  to explain it.
"""

from typing import Any

from cvhw4 import Claim
from cvhw4.homework.sections import of_the_rise


def _q1(id: str, better: str, worse: str | None, sentence: str, **more: Any) -> Claim:
    return Claim(id=id, better=better, worse=worse, metric="accuracy", smallest=0.01, sentence=sentence, **more)


def _q2(id: str, better: Any, worse: Any, metric: str, smallest: float, sentence: str, **more: Any) -> Claim:
    return Claim(id=id, better=better, worse=worse, metric=metric, smallest=smallest, sentence=sentence, **more)


_FEATURES, _FINE, _SCRATCH, _RECIPE = "q1_1-features", "q1_2-finetune", "q1_3-scratch", "q1_8-recipe"
_SKIP, _PLAIN, _THREE = "q2_1a-skip", "q2_1b-noskip", "q2_3-3class"
_FUSED_NORM, _PLAIN_NORM = "q2_n1a-fused_norm", "q2_n1b-plain_norm"
_SKIPS, _CLASSES, _INTERACTION = 0.01, 0.05, 0.024
_PORTRAITS = ("heavy_makeup", "no_heavy_makeup")  # as generated and fetched ones have them
# fmt: off
CLAIMS: tuple[Claim, ...] = (
    _q1("q1_4-finetune_above_features", _FINE, _FEATURES,
        "fine-tuning all layers beats training the last layer alone"),
    _q1("q1_4-features_above_scratch", _FEATURES, _SCRATCH, "pretrained features beat AlexNet trained from scratch"),
    _q1("q1_4-finetune_above_scratch", _FINE, _SCRATCH, "the fine-tuned network beats AlexNet trained from scratch"),
    _q1("q1_7-whole_face_features", "q1_5-features", _FEATURES, "the whole face in view helps the feature extractor",
        classes=_PORTRAITS),
    _q1("q1_7-whole_face_finetune", "q1_6-finetune", _FINE, "the whole face in view helps the fine-tuned network",
        classes=_PORTRAITS),
    _q1("q1_9-passes_0.895", _RECIPE, None, "the better recipe passes 0.895", margin=0.895, classes=_PORTRAITS),
    _q1("q1_c9-pretraining", _RECIPE, "q1_c8-scratch",
        "pretrained, the better recipe's network beats the same network from scratch", control=True),
    _q1("q1_c4-pretraining", _FINE, "q1_c3-no_start",
        "fine-tuned from ImageNet weights, q1_2's network beats the same network from scratch", control=True),
    _q2("q2_2-skip_miou", _SKIP, _PLAIN, "miou", _SKIPS, "skip connections raise mIoU"),
    _q2("q2_2-skip_pixel_accuracy", _SKIP, _PLAIN, "pixel_accuracy", _SKIPS, "skip connections raise pixel accuracy"),
    _q2("q2_4-fewer_classes_miou", _THREE, _PLAIN, "miou", _CLASSES,
        "going from 11 to 3 classes raises mIoU", note=of_the_rise),
    _q2("q2_4-fewer_classes_pixel_accuracy", _THREE, _PLAIN, "pixel_accuracy", _CLASSES,
        "going from 11 to 3 classes raises pixel accuracy"),
    # "fused" and "norm", so that `-k skip` selects the report's two arms alone
    _q2("q2_c2-fused_miou_norm", _FUSED_NORM, _PLAIN_NORM, "miou", _SKIPS,
        "skip connections raise mIoU where batch norm is in training mode", control=True),
    _q2("q2_c2-norm_miou", _FUSED_NORM, _SKIP, "miou", _SKIPS,
        "batch norm in training mode raises mIoU, with skip connections", control=True),
    _q2("q2_c2-norm_interaction", (_SKIP, _PLAIN), (_FUSED_NORM, _PLAIN_NORM), "miou", _INTERACTION,
        "skip connections gain more mIoU where batch norm is frozen than where it trains", control=True),
)
# fmt: on
