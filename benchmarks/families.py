"""Which rows the speed comparison times, how, and what it aims at. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cvhw4.experiments import Experiment, find_row


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a family is timed on a kind of device.

    Attributes:
        train: training images; `val` validation images; the protocol's proportions.
        epochs: passes over them.
        target: how many times faster than the reference loop ours has to be; None: shown only.
        network: instead of the full profile's.
        size: instead of the full profile's, in pixels.
        seeds: runs of ours at once, each in a process of its own with its share of the cores; the reference is then
            ours, one after another.
    """

    train: int
    val: int
    epochs: int
    target: float | None = None
    network: str | None = None
    size: int | None = None
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class Family:
    """Rows of the full profile that cost alike; `cpu` and `cuda` say how they are timed there; None: not at all."""

    name: str
    row: str
    work: str = "training with validation"
    cpu: Setting
    cuda: Setting | None

    @property
    def id(self) -> str:
        """The name, for `-k`."""
        return self.name.replace(",", "").replace(" ", "_")

    def target(self, kind: str) -> float | None:
        """The ratio to reach on a kind of device."""
        setting = self.cuda if kind == "cuda" else self.cpu
        return None if setting is None else setting.target

    def setting(self, kind: str) -> Setting:
        """On a kind of device.

        Raises:
            ValueError: it is not timed there.
        """
        setting = self.cuda if kind == "cuda" else self.cpu
        if setting is None:
            raise ValueError(f"{self.name} is not timed on {kind}")
        return setting

    def experiment(self, kind: str) -> Experiment:
        """What is trained. It starts from random weights, which cost as much as others and are always there."""
        row, setting = find_row("full", self.row), self.setting(kind)
        recipe = replace(row.recipe, epochs=setting.epochs, size=setting.size or row.recipe.size)
        return replace(row, start="random", network=setting.network or row.network, recipe=recipe)


# On the CPU: FCN8s over Lite0, since over VGG16 a step of six 256 px crops takes seconds on two cores; VGG16 is shown.
LITE = dict(network="fcn8s/tf_efficientnet_lite0", size=160)
FAMILIES = (
    Family(
        name="frozen, random crops",
        row="q1_1",
        cpu=Setting(train=60, val=12, epochs=25, target=2.5),
        cuda=Setting(train=2000, val=400, epochs=5, target=10),
    ),
    Family(
        name="frozen, seeds at once",
        row="q1_1",
        cpu=Setting(train=60, val=12, epochs=10, seeds=2),
        cuda=Setting(train=2000, val=400, epochs=5, target=4, seeds=8),  # 8 in at most twice the time of one
    ),
    Family(
        name="frozen, whole face",
        row="q1_5",
        cpu=Setting(train=60, val=12, epochs=25, target=10),
        cuda=Setting(train=2000, val=400, epochs=5, target=10),
    ),
    Family(
        name="all layers",
        row="q1_2",
        cpu=Setting(train=100, val=20, epochs=2, target=1.4),
        cuda=Setting(train=2000, val=400, epochs=3, target=4),
    ),
    Family(
        name="EfficientNet-B2",
        row="q1_8",
        cpu=Setting(train=20, val=4, epochs=2),
        cuda=Setting(train=2000, val=400, epochs=2, target=5),
    ),
    Family(
        name="FCN8s",
        row="q2_1a",
        cpu=Setting(train=36, val=10, epochs=3, target=1.5, **LITE),
        cuda=Setting(train=367, val=101, epochs=5, target=15),
    ),
    Family(
        name="FCN8s, validation alone",
        row="q2_1a",
        work="validation alone",
        cpu=Setting(train=2, val=50, epochs=10, target=5, **LITE),
        cuda=Setting(train=2, val=101, epochs=10),
    ),
    Family(
        name="FCN8s over VGG16",
        row="q2_1a",
        cpu=Setting(train=12, val=3, epochs=1),
        cuda=None,  # what "FCN8s" is there
    ),
)


def find_family(name: str) -> Family:
    """The family of that name."""
    return next(family for family in FAMILIES if family.name == name)


TARGETS = [
    (kind, family.name, target) for kind in ("cpu", "cuda") for family in FAMILIES if (target := family.target(kind))
]
