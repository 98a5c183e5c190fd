"""Rows: the named variants of a study, and what a training loop of the study's own is given of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cvhw4.labels import Merge
from cvhw4.study.checks import is_number, is_whole, require
from cvhw4.study.functions import ADDRESS, Loss, call_of, digest_of_text, name_of
from cvhw4.study.recipe import Recipe
from cvhw4.tasks import TASKS, Task, TaskName, custom_task, task_of

Start = Literal["imagenet", "random", "as built"]  # the last of a callable, which decides itself
Trained = Literal["last layer", "all layers"]
Augmentation = Literal["none", "random-resized crop", "whole face", "crop + jitter + AutoAugment", "random crop"]
# How batch norm runs in training: "train" with the statistics of each batch; "frozen" with the statistics it started
# with, as in the 2019 report's template, which never returns to training mode after its first validation.
BatchNorm = Literal["train", "frozen"]
CorruptionKind = Literal["label noise", "smaller training set", "mask shift", "classes swapped"]
OF_THE_STUDY: Any = None  # what a row leaves to its study, which fills it in


class Corruption(NamedTuple):
    """What is wrong with the training data of a negative control. The seed decides with which images; those of a
    smaller share are among those of a larger one. Validation data stay as they are.

    Attributes:
        kind: "label noise": another class for a share of the images (classification); "smaller training set": a share
            of the images is left out; "mask shift": masks moved to the right, void entering from the left
            (segmentation); "classes swapped": two classes exchanged in a share of the masks (segmentation).
        strength: that share, above 0 and up to 1 (below 1 of images left out); of "mask shift" pixels of the decoded
            masks, 1 or more and fewer than their width.
        classes: the names of the two that are swapped; of other kinds none.
    """

    kind: CorruptionKind
    strength: float
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A named variant of a study: everything that decides what is trained, but for the seed and the data.

    The study that has it checks it, and fills in what is left out; whether its network can be built and trained is
    tried before the first run.

    Attributes:
        network: "alexnet"; any timm classifier ("resnet18", its last layer replaced), "torchvision/resnet18" for
            torchvision's, "+linear" behind either to keep the 1000-way classifier and add Linear(1000, classes); for
            segmentation "fcn8s/vgg16", "fcn8s/<any timm backbone>" with maps at 1/8, 1/16 and 1/32,
            "torchvision/deeplabv3_resnet50", or, with segmentation_models_pytorch, "smp/Unet/resnet34". Or a callable
            (a function, class or `functools.partial`) that is given the number of classes and gives a torch.nn.Module:
            float32 [B, 3, size, size], normalised, to logits [B, classes], for segmentation [B, classes, size, size];
            also as `out` or `logits` of a dict or object. torch is seeded before it is called. FCN8s (Long et al. 2015)
            is built as in the report's rows q2_1a to q2_3, "+linear" as in q1_8.
        start: where the pretrained part starts from, of a segmenter its backbone; left out, "imagenet". "random" draws
            from the seed. A callable decides itself ("as built").
        trained: which layers the optimizer changes, of those whose parameters require a gradient: all, or the one that
            gives the logits.
        augmentation: of the training pictures; left out, the first of its task. For classification
            "random-resized crop": 0.08 to 1 of the area, ratio 3/4 to 4/3, as torchvision's (Szegedy et al. 2015);
            "whole face": the shorter side scaled to 8/7 of the size, the centre cropped, as in validation (rows q1_5
            and q1_6); "crop + jitter + AutoAugment": the first, then brightness, contrast and saturation times 0.8 to
            1.2, then AutoAugment's CIFAR-10 policy (Cubuk et al. 2019; row q1_8, whose jitter the report does not
            state). For segmentation "random crop": a window of the size, not scaled. For both "none": as in validation.
            Or a transform of `torchvision.transforms.v2`, called with each picture by itself (`tv_tensors.Image`,
            uint8 [3, H, W]) and for segmentation its mask (`tv_tensors.Mask`, uint8 [2, H, W]: the labels, and 1 where
            the picture has that pixel: what a transform fills in is of no class); gives [3, size, size], uint8 or float
            from 0 to 1, not normalised, and the mask [2, size, size], whole numbers. Its random numbers (torch's,
            NumPy's and Python's) depend on seed, epoch and picture alone.
        flip: whether a built-in augmentation also mirrors every other picture, at random; left out, all but "none" do.
        skips: whether FCN8s adds its skip connections; left out, it does. Not for another network.
        batch_norm: "train" normalises by each batch's statistics (Ioffe and Szegedy 2015). "frozen" trains in
            evaluation mode: batch norm keeps the statistics that it starts with, and dropout is off (rows q2_1a, q2_1b
            and q2_3, whose template never returns to training mode). Batch norms of layers that are not trained always
            keep theirs.
        merge: names of classes that are trained and measured as one, by the new class's name; "void" for pixels of no
            class. Left out, the data's (`Scenes.merge`); {} for none. Not for a classifier.
        classes: how many the network tells apart, 2 or more; filled in by the study, from its data and `merge`.
        recipe: left out, the study's.
        group: which tests train it: those whose mark names the same group. Rows without one are what a session trains
            by default, and what bounds and nightly jobs are about.
        corruption: what is wrong on purpose with the training data, see `Control`.
        version: of a callable, to be changed when what it builds changes and no text does: `--reuse` knows it by its
            text, that of functions of yours that it calls, its arguments and this.
        for_task: of a callable, "classification" or "segmentation"; left out, what the study's data are for.
        name: filled in by the study.
        study: the name of the study, filled in by it.
        source: the text of a callable with its arguments and version, filled in by the study.
        augmentation_source: 12 digits of the digest of an own augmentation's text, filled in by the study.
    """

    network: str | Callable[[int], Any] = field(hash=False)  # an object that is called may have no hash
    _: KW_ONLY
    start: Start = OF_THE_STUDY
    trained: Trained = "all layers"
    augmentation: Augmentation | Callable[..., Any] = OF_THE_STUDY
    flip: bool | None = None
    skips: bool | None = None
    batch_norm: BatchNorm = "train"
    merge: Merge = field(default=OF_THE_STUDY, hash=False)
    classes: int = OF_THE_STUDY
    recipe: Recipe = OF_THE_STUDY
    group: str = ""
    corruption: Corruption | None = None
    version: str = ""
    for_task: TaskName | None = None
    name: str = ""
    study: str = ""
    source: str = ""
    augmentation_source: str = ""

    def __post_init__(self) -> None:
        if self.start is None:
            object.__setattr__(self, "start", "imagenet" if isinstance(self.network, str) else "as built")

    @property
    def task(self) -> Task:
        """What the network is for."""
        if isinstance(self.network, str):
            return task_of(self.network)
        return TASKS[self.for_task or "classification"]

    @property
    def network_name(self) -> str:
        """The network's name, of a callable its own with the arguments of a partial: "unet(attention=True)"."""
        return self.network if isinstance(self.network, str) else call_of(self.network)

    @property
    def epochs(self) -> int | None:
        """How many epochs it is trained for, once it is a study's; None where only its training loop knows."""
        return self.recipe.epochs

    def settings(self) -> dict[str, Any]:
        """All that changes what is trained, as plain JSON values: without names and groups, and without `merge` where
        nothing is merged. A callable is there by its name and, as `network_source`, the sha256 of its text."""
        values = asdict(replace(self, recipe=OF_THE_STUDY, augmentation=OF_THE_STUDY, network=self.network_name))
        values |= {"recipe": self.recipe and self.recipe.settings(), "augmentation": self.augmentation}
        if callable(self.augmentation):
            shown = ADDRESS.sub("", " ".join(repr(self.augmentation).split()))
            values["augmentation"] = f"{shown} {self.augmentation_source or digest_of_text(self.augmentation)}"
        if self.flip in (None, self.augmentation != "none"):  # the default, which older records do not name
            del values["flip"]
        if not isinstance(self.network, str):
            values["network_source"] = sha256(self.source.encode()).hexdigest()
        left_out = ("name", "study", "group", "version", "for_task", "source", "augmentation_source")
        plain = {k: v for k, v in values.items() if k not in left_out}
        if self.corruption is not None:
            plain["corruption"] = [part for part in self.corruption if part != ()]
        if merge := plain.pop("merge"):
            plain["merge"] = {new: [*members] for new, members in merge.items()}
        return plain

    def setting(self, name: str) -> Any:
        """One of its settings, or of its recipe's; None where it has none of that name."""
        return self.flips if name == "flip" else getattr(self, name, getattr(self.recipe, name, None))

    @property
    def flips(self) -> bool:
        """Whether its built-in augmentation mirrors at random."""
        return self.augmentation != "none" if self.flip is None else self.flip

    @property
    def augmentation_name(self) -> str:
        """The augmentation as tables call it."""
        if callable(self.augmentation):
            return " + ".join(type(t).__name__ for t in getattr(self.augmentation, "transforms", [self.augmentation]))
        unusual = self.flip is not None and self.flip != (self.augmentation != "none")
        return f"{self.augmentation}{(', flipped' if self.flip else ', not flipped') if unusual else ''}"


@dataclass(frozen=True)
class CustomRow(Row):
    """A row of a study with a training loop of its own (`Study(train=...)`), which makes it; no network of cvhw4's.

    Attributes:
        values: its settings, as `Run.settings` has them.
        plain: the same as plain JSON values, of a function or class its name and a digest of its text.
        columns: the names of the settings of all rows of its study, in the order of tables.
        primary: the study's first figure.
        shown: further figures that tables show.
        shares: figures that lie between 0 and 1.
    """

    network: str = ""
    _: KW_ONLY
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    plain: Mapping[str, Any] = field(default_factory=dict, hash=False)
    columns: tuple[str, ...] = ()
    primary: str = ""
    shown: tuple[str, ...] = ()
    shares: frozenset[str] = frozenset()

    @property
    def task(self) -> Task:
        """What its figures are: the study's own."""
        return custom_task(self.primary, self.shown, self.shares)

    @property
    def epochs(self) -> None:
        """Not known before it is trained."""
        return None

    def settings(self) -> dict[str, Any]:
        """Its settings as plain JSON values."""
        return dict(self.plain)

    def setting(self, name: str) -> Any:
        """One of its settings; None where it has none of that name."""
        return self.values.get(name)


class Rows(dict[str, Row]):
    """Rows by name; a notebook shows them as the tables of their design."""

    def _repr_html_(self) -> str:
        from tabulate import tabulate

        how: dict[str, Any] = {"headers": "keys", "tablefmt": "html", "disable_numparse": True}
        return "".join(str(tabulate(lines, **how)) for lines in design(self.values()))


def design(rows: Iterable[Row]) -> list[list[dict[str, str]]]:
    """What each row trains, texts by column: a line for each, in a table for each task. Beside what every table of rows
    shows it has the settings, a recipe's among them, that not all have alike."""
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.task.name, []).append(row)
    return [_design(of_task) for of_task in tables.values()]


def _design(rows: Sequence[Row]) -> list[dict[str, str]]:
    lines: list[dict[str, object]] = [{"row": row.name, **row.task.columns(row)} for row in rows]
    if any(row.epochs is None for row in rows):  # a training loop of one's own, all of whose settings are columns
        return [{name: _cell(value) for name, value in line.items()} for line in lines]
    settings = [{k.replace("_", " "): v for k, v in (row.settings() | vars(row.recipe)).items()} for row in rows]
    names = dict.fromkeys(name for of_row in settings for name in of_row if name not in ("recipe", "network source"))
    differing = [n for n in names if n not in lines[0] and len({_cell(s.get(n)) for s in settings}) > 1]
    for line, of_row in zip(lines, settings, strict=True):
        shown = dict.fromkeys(("size", "batch", "epochs", "optimizer", "lr", *differing))
        line |= {name: of_row.get(name) for name in shown}
    return [{name: _cell(value) for name, value in line.items()} for line in lines]


def _cell(value: object) -> str:
    """A setting; a loss by its name, classes that are merged by their new ones."""
    if isinstance(value, Loss):
        return name_of(value.function)
    return "-" if value is None else "; ".join(value) if isinstance(value, Mapping) else str(value)


@dataclass(frozen=True, eq=False)
class Run:
    """What the function of `Study(train=...)` is given: one row, to be trained with one seed.

    When it is called, `random` and NumPy's global generator are seeded with `seed`, and so is torch, now or as soon as
    it is imported; generators of your own you seed.

    Attributes:
        settings: the row's, by name, as the study has them.
        seed: what to draw from, 0 or more.
        folder: a folder of this run alone. It is kept when the run is killed or fails, and is there as it was when
            `--reuse` begins the run anew; else it is empty. Removed once the run is finished.
        log: `run.log("words")` prints a line, which pytest shows where a test fails and with `-s`, and appends it to
            the run's log: `seed<N>-<fingerprint>.log` beside its record.
    """

    settings: Mapping[str, Any]
    seed: int
    folder: Path
    log: Callable[..., None]
    _pick_device: Callable[[], str] = field(repr=False)

    @cached_property
    def device(self) -> str:
        """Where to train, as torch takes it: "cpu" or "cuda:0". By `--device`; asking for it imports torch unless that
        is "cpu"."""
        return self._pick_device()


Fit = Callable[[Run], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Published:
    """What a publication states for a row, shown beside the study's own figures; those of the 2019 report are in
    `cvhw4.homework.published`.

    Attributes:
        figures: best figures by metric; shares from 0 to 1, as 0.83 for 83 %.
        epochs: the epochs of those figures, from 1, by metric, as far as they are stated.
        time: wall time as printed there ("4m15s").

    Raises:
        InputError: something else than that. Whether the row has such figures, the study checks.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    time: str = "-"

    def __post_init__(self) -> None:
        figures, epochs = self.figures, self.epochs
        numbers = isinstance(figures, Mapping) and all(map(is_number, figures.values()))
        whole = isinstance(epochs, Mapping) and all(is_whole(epoch, 1) for epoch in epochs.values())
        required = (
            ("figures", numbers, 'write them as {"accuracy": 0.83}'),
            ("epochs", whole and {*epochs} <= {*figures}, 'write them as {"accuracy": 17}, of its figures'),
            ("time", isinstance(self.time, str), 'write it as "4m15s", or leave it out'),
        )
        require("Published", self, required)
