"""What is trained: the rows of the report, and the controls it lacks, as data.

Nothing here imports torch. `PROFILES` says at which size the rows of `ROWS` run; rows of your own are another profile
there, which `cvhw4.Ablation` makes. Figures and settings come from the report (2019); what is this project's own choice
is marked so.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cvhw4.errors import InputError

if TYPE_CHECKING:
    from cvhw4.claims import Claim

Question = Literal["q1", "q2"]
Start = Literal["imagenet", "random"]
Trained = Literal["last layer", "all layers"]
Augmentation = Literal["random-resized crop", "whole face", "crop + jitter + AutoAugment", "random crop"]
# How batch norm runs in training: "train" as it should be (statistics of the batch); "initial" as the report's template
# leaves it for segmentation, which never returns to training mode: statistics stay what they were at the start.
BatchNorm = Literal["train", "initial"]
Group = Literal["report", "extra", "control"]  # which benchmarks train a row
Spoils = Literal["label noise", "smaller training set", "mask shift", "classes swapped"]
Precision = Literal["float32", "bf16"]  # what networks compute in; weights and optimizer are always float32


def question_of(network: str) -> Question:
    """The kind of task that a network is for: q1 classifies pictures, q2 segments scenes."""
    return "q2" if network.startswith("fcn8s/") else "q1"


def check_name(name: str, of: str) -> None:
    """Refuses what cannot be part of the name of a file or a test.

    Raises:
        InputError: it cannot; the message says what is named (`of`).
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
        shown = name if isinstance(name, str) else f"{name!r:.60}"
        raise InputError(shown, f"is no name of a {of}", "use letters, digits and _.+-, a letter or digit first")


def is_number(value: object) -> bool:
    """Whether it is a plain finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a row is trained.

    Attributes:
        size: side of the square the network sees, in pixels.
        batch: images per optimizer step.
        epochs: passes over the training split; the network is evaluated after each.
        optimizer: "sgd" (with `momentum`) or "adam".
        lr: learning rate at the start; multiplied with `lr_gamma` every `lr_step` epochs.
    """

    size: int = 224
    batch: int = 16
    epochs: int = 10
    optimizer: Literal["sgd", "adam"] = "adam"
    lr: float = 5e-4
    momentum: float = 0.0
    lr_step: int = 8
    lr_gamma: float = 0.1


@dataclass(frozen=True)
class Reported:
    """What the report states for a row: best figures and their epochs by metric, wall time as printed there."""

    figures: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    time: str = "-"


class Sabotage(NamedTuple):
    """What is wrong with the training data of a negative control; see `cvhw4.data.sabotage` for the strengths."""

    kind: Spoils
    strength: float


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One row: everything that decides what is trained, but for the seed and the data.

    Attributes:
        row: the report's row ("q1_2"), a control of this project ("q1_c3"), or the name in a user's own ablation.
        arm: what sets the row apart from its neighbours, one word; with `row` it makes the id that `-k` selects by.
            Empty in an own ablation.
        network: "alexnet"; any timm classifier ("efficientnet_b2", its last layer replaced), "+linear" behind it to
            keep the 1000-way classifier and add Linear(1000, classes); "fcn8s/vgg16" or "fcn8s/<any timm backbone>".
        start: where the pretrained part starts from.
        trained: which layers the optimizer changes.
        classes: 2 (Q1; 2 to 255 in an own ablation), 11 or 3 (Q2).
        skips: whether FCN8s adds its skip connections; None for a classifier.
        sabotage: what is wrong on purpose with the training data.
        group: "report" for what a session trains by default, "extra" for what `-m extra` does, "control" for rows
            spoilt on purpose (`cvhw4.controls`).
    """

    row: str
    arm: str = ""
    profile: str
    network: str
    start: Start
    trained: Trained = "all layers"
    augmentation: Augmentation
    classes: int
    skips: bool | None = None
    batch_norm: BatchNorm = "train"
    recipe: Recipe
    reported: Reported = Reported()
    sabotage: Sabotage | None = None
    group: Group = "report"

    def __post_init__(self) -> None:
        check_name(self.id, "row")

    @property
    def id(self) -> str:
        """`q1_2-finetune`, or `insects-finetune` in the ablation "insects": how tests, records and tables call the
        row."""
        return f"{self.row}-{self.arm}" if self.arm else f"{self.profile}-{self.row}"

    @property
    def question(self) -> Question:
        """The kind of task, by the report's question that has it: q1 classifies pictures, q2 segments scenes."""
        return question_of(self.network)

    def settings(self) -> dict[str, Any]:
        """All that changes what is trained, as plain JSON values: without names and without the report's figures."""
        return {k: v for k, v in asdict(self).items() if k not in ("row", "arm", "reported", "group")}


@dataclass(frozen=True)
class Metric:
    """A metric of the user's own; higher is better.

    Attributes:
        function: of labels and predictions [V] (classification), or of a confusion matrix (segmentation), to a number;
            see `cvhw4.records.images.ImageResults.figure`.
        source: what tells it from another of that name: its text, where there is one.
    """

    function: Callable[..., float] = field(compare=False)
    source: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The rows at one size, and how their pictures are decoded.

    Attributes:
        embedded: whether a question without a data folder of the user's runs on the generated pictures.
        portrait_side: pictures whose shorter side is longer are scaled down to it when decoded, in pixels.
        scene_size: (height, width) to which street scenes are scaled when decoded; None keeps them as they are.
        cuts: by question, a number of epochs after which tables show its rows as well. The schedule does not depend on
            the number of epochs, so that the first 20 of 50 are a run of 20.
        claims: those of a user's own ablation; None for the report's, where the profile has their rows.
        folders: by question, the data of an own ablation.
        title: of an own ablation, for pages.
        metrics: own metrics by name.
    """

    name: str
    rows: tuple[Experiment, ...]
    embedded: bool
    portrait_side: int
    scene_size: tuple[int, int] | None
    cuts: Mapping[Question, int] = field(default_factory=dict)
    claims: tuple[Claim, ...] | None = None
    folders: Mapping[Question, Path] = field(default_factory=dict)
    title: str = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether it is a user's own ablation, and not the report's rows."""
        return self.claims is not None

    def of(self, question: Question, group: Group | None = None) -> tuple[Experiment, ...]:
        """The rows of one question, or those of them that are of one group."""
        return tuple(row for row in self.rows if row.question == question and group in (None, row.group))


class _Row(NamedTuple):
    """A line of the table below: what both profiles share, and what each profile picks from."""

    row: str
    arm: str
    networks: tuple[str | None, str | None]
    recipe: str
    settings: dict[str, Any]


CROP: Augmentation = "random-resized crop"
FACE: Augmentation = "whole face"
AUTO: Augmentation = "crop + jitter + AutoAugment"


# Networks as (full, quick): at quick size EfficientNet-Lite0 stands in for what is pretrained in the protocol, because
# its ImageNet weights come as a Python package and it trains on two cores; AlexNet from scratch stays AlexNet. A row
# whose network is None at a size is not run there.
_ALEXNET = ("alexnet", "tf_efficientnet_lite0")
_ALEXNET_SCRATCH = ("alexnet", "alexnet")
_EFFICIENTNET = ("efficientnet_b2+linear", "tf_efficientnet_lite0+linear")
_FCN8S = ("fcn8s/vgg16", "fcn8s/tf_efficientnet_lite0")

_FULL_RECIPES = {
    "sgd": Recipe(size=224, batch=4, epochs=25, optimizer="sgd", lr=1e-3, momentum=0.9, lr_step=5, lr_gamma=0.1),
    "adam": Recipe(size=224, batch=4, epochs=25, optimizer="adam", lr=1e-3, lr_step=5, lr_gamma=0.1),
    "scenes": Recipe(size=256, batch=6, epochs=50, optimizer="adam", lr=1e-4, lr_step=100, lr_gamma=0.5),
}
# This project's own choice: what two CPU cores train in about a quarter of a minute per run.
_QUICK_RECIPES = {
    "sgd": Recipe(size=96, batch=16, epochs=5, optimizer="sgd", lr=1e-2, momentum=0.9, lr_step=4, lr_gamma=0.1),
    "adam": Recipe(size=96, batch=16, epochs=4, optimizer="adam", lr=5e-4, lr_step=3, lr_gamma=0.1),
    "scenes": Recipe(size=96, batch=4, epochs=8, optimizer="adam", lr=1e-3, lr_step=6, lr_gamma=0.5),
}


def _q1(
    row: str,
    arm: str,
    networks: tuple[str | None, str | None],
    start: Start,
    trained: Trained,
    augmentation: Augmentation,
    recipe: str,
    best_accuracy: float | None = None,
    time: str = "-",
    group: Group = "report",
) -> _Row:
    reported = Reported() if best_accuracy is None else Reported({"accuracy": best_accuracy}, {}, time)
    settings = dict(start=start, trained=trained, augmentation=augmentation, classes=2, reported=reported, group=group)
    return _Row(row, arm, networks, recipe, settings)


def _q2(
    row: str,
    arm: str,
    classes: int,
    skips: bool,
    miou: float | None = None,
    pixels: float = 0.0,
    epochs: tuple[int, int] = (0, 0),
    batch_norm: BatchNorm = "initial",
    networks: tuple[str, str | None] = _FCN8S,
) -> _Row:
    reported = Reported()
    if miou is not None:
        at = {"miou": epochs[0], "pixel_accuracy": epochs[1]}
        reported = Reported({"miou": miou, "pixel_accuracy": pixels}, at)
    fixed = dict(start="imagenet", trained="all layers", augmentation="random crop", batch_norm=batch_norm)
    return _Row(row, arm, networks, "scenes", dict(classes=classes, skips=skips, reported=reported, **fixed))


# fmt: off
ROWS: tuple[_Row, ...] = (
    #                                                                                           report's best validation
    #   row      arm         network          start       trained       augmentation  recipe     accuracy  time
    _q1("q1_1",  "features", _ALEXNET,         "imagenet", "last layer", CROP,         "sgd",     0.8300,   "4m15s"),
    _q1("q1_2",  "finetune", _ALEXNET,         "imagenet", "all layers", CROP,         "sgd",     0.8750,   "5m24s"),
    _q1("q1_3",  "scratch",  _ALEXNET_SCRATCH, "random",   "all layers", CROP,         "sgd",     0.7175,   "5m26s"),
    _q1("q1_5",  "features", _ALEXNET,         "imagenet", "last layer", FACE,         "sgd"),
    _q1("q1_6",  "finetune", _ALEXNET,         "imagenet", "all layers", FACE,         "sgd"),
    _q1("q1_8",  "recipe",   _EFFICIENTNET,    "imagenet", "all layers", AUTO,         "adam",    0.9075,   "14m12s"),
    # control: the network of q1_8 from scratch, all else as there (the report has AlexNet alone from scratch)
    _q1("q1_c8", "scratch",  _EFFICIENTNET,    "random",   "all layers", AUTO,         "adam"),

    # extra rows, which `-m extra` trains: q1_2's network from scratch, where that is not q1_3;
    _q1("q1_c3", "no_start",  (None, _ALEXNET[1]), "random", "all layers", CROP,       "sgd",     group="extra"),
    # a factorial: between q1_2 and q1_8, which the report compares, network, optimizer and augmentation one by one
    _q1("q1_f1", "net",       _EFFICIENTNET,   "imagenet", "all layers", CROP,         "sgd",     group="extra"),
    _q1("q1_f2", "adam",      _ALEXNET,        "imagenet", "all layers", CROP,         "adam",    group="extra"),
    _q1("q1_f3", "auto",      _ALEXNET,        "imagenet", "all layers", AUTO,         "sgd",     group="extra"),
    _q1("q1_f4", "net_adam",  _EFFICIENTNET,   "imagenet", "all layers", CROP,         "adam",    group="extra"),
    _q1("q1_f5", "net_auto",  _EFFICIENTNET,   "imagenet", "all layers", AUTO,         "sgd",     group="extra"),
    _q1("q1_f6", "adam_auto", _ALEXNET,        "imagenet", "all layers", AUTO,         "adam",    group="extra"),

    #                                               report's best validation
    #   row      arm             classes  skips     mIoU    pixels  epochs
    _q2("q2_1a", "skip",         11,      True,     0.4295, 0.8523, (41, 41)),
    _q2("q2_1b", "noskip",       11,      False,    0.4055, 0.8384, (20, 17)),
    _q2("q2_3",  "3class",       3,       False,    0.8261, 0.9629, (20, 20)),
    # control: skip connections at 3 classes ("fused", so that `-k skip` selects the two arms of the ablation alone)
    _q2("q2_c3", "3class_fused", 3,       True),
    # the switch: batch norm as it should be, all else as in q2_1a, q2_1b and q2_3
    _q2("q2_n1a", "fused_norm",  11,      True,     batch_norm="train"),
    _q2("q2_n1b", "plain_norm",  11,      False,    batch_norm="train"),
    _q2("q2_n3", "3class_norm",  3,       False,    batch_norm="train", networks=(_FCN8S[0], None)),
)
# fmt: on


def _rows(profile: str, column: int, recipes: Mapping[str, Recipe]) -> tuple[Experiment, ...]:
    """The rows at one size."""
    return tuple(
        Experiment(
            row=row.row,
            arm=row.arm,
            profile=profile,
            network=network,
            recipe=recipes[row.recipe],
            **row.settings,
        )
        for row in ROWS
        if (network := row.networks[column]) is not None
    )


PROFILES: dict[str, Profile] = {
    "full": Profile(
        name="full",
        rows=_rows("full", 0, _FULL_RECIPES),
        embedded=False,
        portrait_side=512,
        scene_size=None,
        cuts={"q2": 20},  # the template's epochs; the report's best are 41 and 20
    ),
    "quick": Profile(
        name="quick",
        rows=_rows("quick", 1, _QUICK_RECIPES),
        embedded=True,
        portrait_side=128,
        scene_size=(132, 176),
        cuts={"q2": 3},
    ),
}


def find_row(profile: str, row: str) -> Experiment:
    """The row with that name ("q1_2") or id ("q1_2-finetune").

    Raises:
        InputError: no such profile or row; the message lists those there are.
    """
    if profile not in PROFILES:
        raise InputError(profile, "is not a profile", f"choose one of {', '.join(PROFILES)}")
    for experiment in PROFILES[profile].rows:
        if row in (experiment.row, experiment.id):
            return experiment
    ids = ", ".join(experiment.id for experiment in PROFILES[profile].rows)
    raise InputError(row, f"is not a row of profile {profile}", f"choose one of {ids}")


def register(profile: Profile) -> None:
    """Adds an own ablation's profile to `PROFILES`; the same once more takes the place of the first.

    Raises:
        InputError: another one has its name, or the id of a row.
    """
    found = PROFILES.get(profile.name, profile)
    if found != profile:
        raise InputError(profile.name, "is the name of two ablations that differ", "give one of them another name")
    others = {row.id: p.name for p in PROFILES.values() if p.name != profile.name for row in p.rows}
    for row in profile.rows:
        if row.id in others:
            raise InputError(row.id, f"is a row of {others[row.id]} already", "give the ablation another name")
    PROFILES[profile.name] = profile
