"""Which rows the speed comparison times, how, and what it aims at. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from cvhw4 import Row
from cvhw4.homework import study

_FULL = study("full")


@dataclass(frozen=True)
class Setting:
    """How a family is timed on a kind of device.

    Attributes:
        train: number of training images; `val` of validation images, in the protocol's proportions.
        epochs: passes over them.
        target: how many times faster than the reference loop ours has to be; None: shown only.
        network: instead of the row's.
        size: instead of the row's, in pixels.
        seeds: runs of ours at once, each in a process of its own with its share of the cores; the reference is then
            ours, one after another.
    """

    train: int
    val: int
    epochs: int
    target: float | None = None
    _: KW_ONLY
    network: str | None = None
    size: int | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Family:
    """Rows that cost alike, the homework's row `base` at full size among them; `cpu` and `cuda` say how they are timed
    there; None: not at all."""

    name: str
    base: str
    cpu: Setting
    cuda: Setting | None
    work: str = "training with validation"

    @property
    def id(self) -> str:
        """The name, for `-k`."""
        return self.name.replace(",", "").replace(" ", "_")

    def setting(self, kind: str) -> Setting:
        """On a kind of device. Raises ValueError: it is not timed there."""
        setting = self.cuda if kind == "cuda" else self.cpu
        if setting is None:
            raise ValueError(f"{self.name} is not timed on {kind}")
        return setting

    def row(self, kind: str) -> Row:
        """What is trained. It starts from random weights, which cost as much as others and are always there."""
        row, setting = _FULL.row(self.base), self.setting(kind)
        recipe = replace(row.recipe, epochs=setting.epochs, size=setting.size or row.recipe.size)
        return replace(row, start="random", network=setting.network or row.network, recipe=recipe)


# On the CPU: FCN8s over Lite0, since over VGG16 a step of six 256 px crops takes seconds on two cores; VGG16 is shown.
_LITE: dict[str, Any] = dict(network="fcn8s/tf_efficientnet_lite0", size=160)
_ALONE = "validation alone"
# fmt: off
FAMILIES = (
    #                  train, val, epochs, target: on the CPU                          on CUDA
    Family("frozen, random crops",    "q1_1",  Setting(60, 12, 25, 2.5),           Setting(2000, 400, 5, 10)),
    # on CUDA 8 in at most twice the time of one
    Family("frozen, seeds at once",   "q1_1",  Setting(60, 12, 10, seeds=2),       Setting(2000, 400, 5, 4, seeds=8)),
    Family("frozen, whole face",      "q1_5",  Setting(60, 12, 25, 10),            Setting(2000, 400, 5, 10)),
    Family("all layers",              "q1_2",  Setting(100, 20, 2, 1.4),           Setting(2000, 400, 3, 4)),
    Family("EfficientNet-B2",         "q1_8",  Setting(20, 4, 2),                  Setting(2000, 400, 2, 5)),
    Family("FCN8s",                   "q2_1a", Setting(36, 10, 3, 1.5, **_LITE),   Setting(367, 101, 5, 15)),
    Family("FCN8s, validation alone", "q2_1a", Setting(2, 50, 10, 5, **_LITE),     Setting(2, 101, 10), _ALONE),
    Family("FCN8s over VGG16",        "q2_1a", Setting(12, 3, 1),                  None),  # on CUDA "FCN8s" is that
)
# fmt: on
# Kind of device, family, and the ratio of times to reach there.
TARGETS = [
    (kind, family.name, setting.target)
    for kind in ("cpu", "cuda")
    for family in FAMILIES
    if (setting := family.cuda if kind == "cuda" else family.cpu) is not None and setting.target is not None
]


def find_family(name: str) -> Family:
    """The family of that name."""
    return next(family for family in FAMILIES if family.name == name)
