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

from cvhw4 import Claim
from cvhw4.homework.sections import of_the_rise

_ACCURACY, _SKIPS, _CLASSES, _INTERACTION = 0.01, 0.01, 0.05, 0.024
CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="q1_4-finetune_above_features",
        better="q1_2-finetune",
        worse="q1_1-features",
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="fine-tuning all layers beats training the last layer alone",
    ),
    Claim(
        id="q1_4-features_above_scratch",
        better="q1_1-features",
        worse="q1_3-scratch",
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="pretrained features beat AlexNet trained from scratch",
    ),
    Claim(
        id="q1_4-finetune_above_scratch",
        better="q1_2-finetune",
        worse="q1_3-scratch",
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="the fine-tuned network beats AlexNet trained from scratch",
    ),
    Claim(
        id="q1_7-whole_face_features",
        better="q1_5-features",
        worse="q1_1-features",
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="the whole face in view helps the feature extractor",
    ),
    Claim(
        id="q1_7-whole_face_finetune",
        better="q1_6-finetune",
        worse="q1_2-finetune",
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="the whole face in view helps the fine-tuned network",
    ),
    Claim(
        id="q1_9-passes_0.895",
        better="q1_8-recipe",
        worse=None,
        margin=0.895,
        metric="accuracy",
        smallest=_ACCURACY,
        sentence="the better recipe passes 0.895",
    ),
    Claim(
        id="q1_c9-pretraining",
        better="q1_8-recipe",
        worse="q1_c8-scratch",
        metric="accuracy",
        smallest=_ACCURACY,
        control=True,
        sentence="pretrained, the better recipe's network beats the same network from scratch",
    ),
    Claim(
        id="q1_c4-pretraining",
        better="q1_2-finetune",
        worse="q1_c3-no_start",
        metric="accuracy",
        smallest=_ACCURACY,
        control=True,
        sentence="fine-tuned from ImageNet weights, q1_2's network beats the same network from scratch",
    ),
    Claim(
        id="q2_2-skip_miou",
        better="q2_1a-skip",
        worse="q2_1b-noskip",
        metric="miou",
        smallest=_SKIPS,
        sentence="skip connections raise mIoU",
    ),
    Claim(
        id="q2_2-skip_pixel_accuracy",
        better="q2_1a-skip",
        worse="q2_1b-noskip",
        metric="pixel_accuracy",
        smallest=_SKIPS,
        sentence="skip connections raise pixel accuracy",
    ),
    Claim(
        id="q2_4-fewer_classes_miou",
        better="q2_3-3class",
        worse="q2_1b-noskip",
        metric="miou",
        smallest=_CLASSES,
        sentence="going from 11 to 3 classes raises mIoU",
        note=of_the_rise,
    ),
    Claim(
        id="q2_4-fewer_classes_pixel_accuracy",
        better="q2_3-3class",
        worse="q2_1b-noskip",
        metric="pixel_accuracy",
        smallest=_CLASSES,
        sentence="going from 11 to 3 classes raises pixel accuracy",
    ),
    # "fused" and "norm", so that `-k skip` selects the report's two arms alone
    Claim(
        id="q2_c2-fused_miou_norm",
        better="q2_n1a-fused_norm",
        worse="q2_n1b-plain_norm",
        metric="miou",
        smallest=_SKIPS,
        control=True,
        sentence="skip connections raise mIoU where batch norm is in training mode",
    ),
    Claim(
        id="q2_c2-norm_miou",
        better="q2_n1a-fused_norm",
        worse="q2_1a-skip",
        metric="miou",
        smallest=_SKIPS,
        control=True,
        sentence="batch norm in training mode raises mIoU, with skip connections",
    ),
    Claim(
        id="q2_c2-norm_interaction",
        better=("q2_1a-skip", "q2_1b-noskip"),
        worse=("q2_n1a-fused_norm", "q2_n1b-plain_norm"),
        metric="miou",
        smallest=_INTERACTION,
        sentence="skip connections gain more mIoU where batch norm is frozen than where it trains",
        control=True,
    ),
)
