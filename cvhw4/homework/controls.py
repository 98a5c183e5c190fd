"""Negative controls of the homework: rows trained wrongly on purpose, which its bounds have to notice."""

from cvhw4 import Control

_LABELS, _LEFT_OUT, _RATES = (0.2, 0.1, 0.05, 0.02), (0.5, 0.25, 0.1, 0.05), (10, 3, 1.5, 1.1)
_PIXELS, _SWAPPED = (8, 4, 2, 1), (1, 0.5, 0.25, 0.1)
# fmt: off
CONTROLS: tuple[Control, ...] = (
    Control(name="q1_6x-label_noise", row="q1_6-finetune", corrupts="label noise", strengths=_LABELS,
            words="{:.0%} of the training labels are wrong"),
    Control(name="q1_5x-label_noise", row="q1_5-features", corrupts="label noise", strengths=_LABELS,
            words="{:.0%} of the training labels are wrong, features alone"),
    Control(name="q2_n1ax-fewer_images", row="q2_n1a-fused_norm", corrupts="smaller training set", strengths=_LEFT_OUT,
            words="{:.0%} of the training images are left out"),
    Control(name="q1_2x-learning_rate", row="q1_2-finetune", lr=True, strengths=_RATES,
            words="the learning rate is {:g} times what it should be"),
    Control(name="q1_1x-learning_rate", row="q1_1-features", lr=True, strengths=_RATES,
            words="the learning rate is {:g} times what it should be, features alone"),
    Control(name="q1_6x-no_pretraining", row="q1_6-finetune", changes={"start": "random"},
            words="the network starts from random weights"),
    Control(name="q2_n1ax-batch_norm", row="q2_n1a-fused_norm", changes={"batch_norm": "frozen"},
            words="batch norm is frozen"),
    Control(name="q2_n1ax-mask_shift", row="q2_n1a-fused_norm", corrupts="mask shift", strengths=_PIXELS,
            words="the training masks are off by {:g} px"),
    Control(name="q2_n1ax-classes_swapped", row="q2_n1a-fused_norm", corrupts="classes swapped", strengths=_SWAPPED,
            classes=("Road", "Pavement"), words="Road and Pavement are swapped in {:.0%} of the training masks"),
)
# fmt: on
