"""The rows of the 2019 report, the controls that it lacks, and the recipes, at every size.

Settings come from the report and its course's template; what is this project's own choice is marked so. A new row is a
line of the table, and its name in the benchmark that trains it (`benchmarks/`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cvhw4 import Recipe, Row


class _Line(NamedTuple):
    """A line of the table below: what all sizes share, and what each picks from."""

    networks: tuple[str | None, str | None]
    recipe: str
    settings: dict[str, Any]


CROP = "random-resized crop"
FACE = "whole face"
AUTO = "crop + jitter + AutoAugment"

# By size: whether its networks are those that stand in for the report's, and whose recipes it has.
SIZES = {"quick": (True, "quick"), "full": (False, "full"), "full-lite0": (True, "full")}

# Networks as (the report's, stand-in): EfficientNet-Lite0 stands in for what is pretrained in the protocol, because its
# ImageNet weights come as a Python package and it trains on two cores; AlexNet from scratch stays AlexNet. A row whose
# network is None is not run there.
_ALEXNET = ("alexnet", "tf_efficientnet_lite0")
_ALEXNET_SCRATCH = ("alexnet", "alexnet")
_EFFICIENTNET = ("efficientnet_b2+linear", "tf_efficientnet_lite0+linear")
_FCN8S = ("fcn8s/vgg16", "fcn8s/tf_efficientnet_lite0")

# CamVid's 11 classes as they are, and as the report's three, void among "everything else".
ALL: dict[str, list[str]] = {}
THREE = {
    "Sky": ["Sky"],
    "everything else": ["Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "void"],
    "Car, Pedestrian, Bicyclist": ["Car", "Pedestrian", "Bicyclist"],
}

_RECIPES: dict[str, dict[str, Recipe]] = {
    # The report's and its template's: of Q1, of its row Q1-8, and of Q2 (20 epochs in the template; the report's best
    # are 41 and 20).
    "full": {
        "sgd": Recipe(size=224, batch=4, epochs=25, optimizer="sgd", lr=1e-3, momentum=0.9, lr_step=5, lr_gamma=0.1),
        "adam": Recipe(size=224, batch=4, epochs=25, optimizer="adam", lr=1e-3, lr_step=5, lr_gamma=0.1),
        "scenes": Recipe(size=256, batch=6, epochs=50, optimizer="adam", lr=1e-4, lr_step=100, lr_gamma=0.5),
    },
    # This project's own choice: what a CPU core trains in up to a minute per run.
    "quick": {
        "sgd": Recipe(size=96, batch=16, epochs=5, optimizer="sgd", lr=1e-2, momentum=0.9, lr_step=4, lr_gamma=0.1),
        "adam": Recipe(size=96, batch=16, epochs=4, optimizer="adam", lr=5e-4, lr_step=3, lr_gamma=0.1),
        "scenes": Recipe(size=96, batch=4, epochs=8, optimizer="adam", lr=1e-3, lr_step=6, lr_gamma=0.5),
    },
}


def _q1(
    networks: tuple[str | None, str | None], start: str, trained: str, crop: str, recipe: str, group: str = ""
) -> _Line:
    return _Line(networks, recipe, dict(start=start, trained=trained, augmentation=crop, group=group))


def _q2(
    merge: dict[str, list[str]],
    skips: bool,
    batch_norm: str = "frozen",
    networks: tuple[str, str | None] = _FCN8S,
    **more: Any,
) -> _Line:
    return _Line(networks, "scenes", dict(merge=merge, skips=skips, batch_norm=batch_norm, **more))


# fmt: off
_TABLE: dict[str, _Line] = {
    #                     network           start       trained       augmentation  recipe
    "q1_1-features":  _q1(_ALEXNET,         "imagenet", "last layer", CROP,         "sgd"),
    "q1_2-finetune":  _q1(_ALEXNET,         "imagenet", "all layers", CROP,         "sgd"),
    "q1_3-scratch":   _q1(_ALEXNET_SCRATCH, "random",   "all layers", CROP,         "sgd"),
    "q1_5-features":  _q1(_ALEXNET,         "imagenet", "last layer", FACE,         "sgd"),
    "q1_6-finetune":  _q1(_ALEXNET,         "imagenet", "all layers", FACE,         "sgd"),
    "q1_8-recipe":    _q1(_EFFICIENTNET,    "imagenet", "all layers", AUTO,         "adam"),
    # control: the network of q1_8 from scratch, all else as there (the report has AlexNet alone from scratch)
    "q1_c8-scratch":  _q1(_EFFICIENTNET,    "random",   "all layers", AUTO,         "adam"),

    # extra rows, which `-m extra` trains: q1_2's network from scratch, where that is not q1_3's;
    "q1_c3-no_start": _q1((None, _ALEXNET[1]), "random", "all layers", CROP,        "sgd",  "extra"),
    # a factorial: between q1_2 and q1_8, which the report compares, network, optimizer and augmentation one by one
    "q1_f1-net":       _q1(_EFFICIENTNET,   "imagenet", "all layers", CROP,         "sgd",  "extra"),
    "q1_f2-adam":      _q1(_ALEXNET,        "imagenet", "all layers", CROP,         "adam", "extra"),
    "q1_f3-auto":      _q1(_ALEXNET,        "imagenet", "all layers", AUTO,         "sgd",  "extra"),
    "q1_f4-net_adam":  _q1(_EFFICIENTNET,   "imagenet", "all layers", CROP,         "adam", "extra"),
    "q1_f5-net_auto":  _q1(_EFFICIENTNET,   "imagenet", "all layers", AUTO,         "sgd",  "extra"),
    "q1_f6-adam_auto": _q1(_ALEXNET,        "imagenet", "all layers", AUTO,         "adam", "extra"),

    #                         classes  skips
    "q2_1a-skip":         _q2(ALL,     True),
    "q2_1b-noskip":       _q2(ALL,     False),
    "q2_3-3class":        _q2(THREE,   False),
    # control: skip connections at 3 classes ("fused", so that `-k skip` selects the two arms of the ablation alone)
    "q2_c3-3class_fused": _q2(THREE,   True),
    # the switch: batch norm in training mode, all else as in q2_1a, q2_1b and q2_3
    "q2_n1a-fused_norm":  _q2(ALL,     True,  "train"),
    "q2_n1b-plain_norm":  _q2(ALL,     False, "train"),
    "q2_n3-3class_norm":  _q2(THREE,   False, "train", (_FCN8S[0], None)),
}
# fmt: on


def rows_at(size: str) -> dict[str, Row]:
    """The rows at a size, by name."""
    stand_ins, recipes = SIZES[size]
    return {
        name: Row(network, recipe=_RECIPES[recipes][line.recipe], **line.settings)
        for name, line in _TABLE.items()
        if (network := line.networks[stand_ins]) is not None
    }


def stand_ins() -> dict[str, str]:
    """The networks that stand in, by those of the report that they stand in for."""
    pairs = (line.networks for line in _TABLE.values())
    return {theirs: ours for theirs, ours in pairs if theirs and ours and theirs != ours}
