"""What networks are for, as data: everything that differs between classification and segmentation outside of training.

How each task is trained and evaluated is `cvhw4.training.objectives`; how its pictures are drawn is
`cvhw4.report.pictures`. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from cvhw4.study import CustomRow, Row

TaskName = Literal["classification", "segmentation", "custom"]
ScaleName = Literal["plain", "share", "log"]  # see `cvhw4.statistics.scales`
LOSSES = ("cross_entropy", "bce", "focal")  # see `cvhw4.Recipe`
_LOSSES = ("training loss", "mean training loss")
FIRST_LOSS = "first training loss"
TRAINING_LOSSES = (*_LOSSES, FIRST_LOSS)  # see `cvhw4.RunRecord.figure`


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network is for.

    Attributes:
        name: "classification", "segmentation", or "custom" for what a study's own training loop does.
        metrics: built-in metrics that every epoch of a run has (computed by `cvhw4.metrics`), the primary one
            first; higher is better. Records from before a metric was there lack it.
        shares: figures that lie between 0 and 1.
        shown: those that tables show for every row, and that every record has.
        by_class: lists by class that every record has.
        bounded: figures that bounds are calibrated for, as `RunRecord.figure` takes them.
        labels: how pages call the metrics.
        short: how the terminal calls the shown ones.
        augmentations: what a row may choose from, its default first.
        loss: that of recipes which name none.
        columns: what sets a row apart, as columns of a table: names to texts.
        in_images: whether a metric moves in steps of one validation image.
    """

    name: TaskName
    metrics: tuple[str, ...]
    shares: frozenset[str]
    shown: tuple[str, ...]
    by_class: tuple[str, ...]
    bounded: tuple[str, ...]
    labels: Mapping[str, str]
    short: Mapping[str, str] = field(default_factory=dict)
    augmentations: tuple[str, ...]
    loss: str
    columns: Callable[[Row], dict[str, str]]
    in_images: bool

    @property
    def primary(self) -> str:
        """The metric that tables put first and that progress shows."""
        return self.metrics[0]

    @property
    def paired(self) -> tuple[str, ...]:
        """Figures that are held against the calibrated run of the same seed, where other machines give them too. The
        first epoch's loss spreads much over seeds and hardly over machines, which drift apart step by step."""
        return (*self.bounded, FIRST_LOSS) if {*_LOSSES} <= {*self.bounded} else self.bounded

    def collapsed(self, by_class: Mapping[str, Sequence[float]]) -> bool:
        """Whether a training failed: after the last epoch no more than one class is right anywhere.

        So it is where one class is predicted everywhere, which is no better than the commonest class. Nothing is known
        of a study's own training loop, of which it is never said.

        Args:
            by_class: the lists of a record: the first of `Task.by_class`, recall or IoU, decides.
        """
        lists = [by_class[name] for name in self.by_class[:1] if name in by_class]
        return any(sum(value > 0 for value in values) <= 1 for values in lists)

    def scale(self, figure: str, loss: object = None) -> ScaleName:
        """The scale on which a bounded figure spreads evenly over seeds.

        Args:
            figure: as `RunRecord.figure` takes it.
            loss: of the recipe; None for the task's. Losses of `LOSSES` are never negative, others may be.
        """
        if figure in TRAINING_LOSSES:
            return "log" if (loss or self.loss) in LOSSES else "plain"
        return "share" if figure.partition(" ")[2] in self.shares else "plain"


CLASSIFICATION = Task(
    name="classification",
    metrics=("accuracy",),
    shares=frozenset({"accuracy"}),
    shown=("accuracy",),
    by_class=("recall",),
    bounded=("best accuracy", "last accuracy", *_LOSSES),
    labels={"accuracy": "accuracy"},
    short={"accuracy": "acc."},
    augmentations=("random-resized crop", "whole face", "crop + jitter + AutoAugment", "none"),
    loss="cross_entropy",
    columns=lambda row: {
        "network": row.network_name,
        "start": row.start,
        "trained": row.trained,
        "augmentation": row.augmentation_name,
    },
    in_images=True,
)
SEGMENTATION = Task(
    name="segmentation",
    metrics=("miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy"),
    shares=frozenset({"miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy"}),
    shown=("miou", "pixel_accuracy"),
    by_class=("iou", "set_iou"),
    bounded=("best miou", "last miou", "best pixel_accuracy", "last set_miou", *_LOSSES),
    labels={
        "miou": "mIoU",
        "pixel_accuracy": "pixel accuracy",
        "set_miou": "set mIoU",
        "set_pixel_accuracy": "set pixel accuracy",
    },
    short={"miou": "mIoU", "pixel_accuracy": "pixels"},
    augmentations=("random crop", "none"),
    loss="bce",
    columns=lambda row: {
        "network": row.network_name,
        "classes": str(row.classes),
        "skips": {True: "yes", False: "no", None: "-"}[row.skips],
        "batch norm": row.batch_norm,
    },
    in_images=False,
)
# Names that tables have columns of already.
_COLUMNS = {"row", "epochs", "at epoch", "published", "difference", "n", "bounds", "size", "batch"}


def _settings(row: Row) -> dict[str, str]:
    """The settings of a row with a training loop of its own, by column; "-" where other rows alone have one."""
    settings, columns = row.settings(), cast("CustomRow", row).columns
    shown = {name: settings.get(name, "-") for name in dict.fromkeys([*columns, *settings])}
    return {f"{k} (setting)" if k in _COLUMNS else k: _short(v) for k, v in shown.items()}


def _short(value: object) -> str:
    """A setting in a cell of a table."""
    text = " ".join((value if isinstance(value, str) else json.dumps(value, sort_keys=True)).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 60  # characters of a setting in a table
CUSTOM = Task(  # what holds for all of them; of a study's own see `custom_task`
    name="custom",
    metrics=(),
    shares=frozenset(),
    shown=(),
    by_class=(),
    bounded=(),
    loss="",
    labels={},
    augmentations=(),
    columns=_settings,
    in_images=False,
)
TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION, CUSTOM)}
LABELS: dict[str, str] = {metric: label for task in TASKS.values() for metric, label in task.labels.items()}


@lru_cache
def custom_task(primary: str, shown: tuple[str, ...] = (), shares: frozenset[str] = frozenset()) -> Task:
    """The task of a study with a training loop of its own.

    Args:
        primary: its first figure.
        shown: further figures that tables show.
        shares: those of its figures that lie between 0 and 1.
    """
    bounded = (f"best {primary}", f"last {primary}")
    return replace(CUSTOM, metrics=(primary,), shares=shares, shown=(primary, *shown), bounded=bounded)


def task_of(network: str) -> Task:
    """The task that a network is for, by its name: FCN8s, segmentation_models_pytorch's and torchvision's segmenters
    segment, all others classify."""
    segmenters = ("fcn8s/", "smp/", "torchvision/deeplabv3_", "torchvision/fcn_", "torchvision/lraspp_")
    return SEGMENTATION if network.startswith(segmenters) else CLASSIFICATION
