"""A study as plain data: rows, data, recipe, metrics, claims, controls, bounds and sections of its pages.

A `Study` is what everything else works on: pytest's plugin, the runner, a cluster and the pages get the same object and
ask it, never for its name. Whatever does not fit together is an InputError when it is made. Nothing here imports torch.
One long file, so that all that a study is made of is read in one place.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeGuard, get_args

from cvhw4.camvid import CAMVID
from cvhw4.errors import InputError
from cvhw4.files import visible
from cvhw4.labels import MOST_CLASSES, VOID, Colour, Merge, Merged, merge_classes
from cvhw4.tasks import LOSSES, TASKS, Task, TaskName, custom_task, task_of

if TYPE_CHECKING:
    from cvhw4.report.evidence import Evidence, Section

Start = Literal["imagenet", "random", "as built"]  # the last of a callable, which decides itself
Trained = Literal["last layer", "all layers"]
Augmentation = Literal["none", "random-resized crop", "whole face", "crop + jitter + AutoAugment", "random crop"]
# How batch norm runs in training: "train" with the statistics of each batch; "frozen" with the statistics it started
# with, as in the 2019 report's template, which never returns to training mode after its first validation.
BatchNorm = Literal["train", "frozen"]
CorruptionKind = Literal["label noise", "smaller training set", "mask shift", "classes swapped"]
Schedule = Literal[
    "step", "cosine", "tanh", "multistep", "poly", "constant", "wsd", "rsqrt", "plateau", "onecycle"
]  # of the learning rate; the order is that of messages
_BY_EPOCHS_SO_FAR = ("step", "multistep", "constant", "plateau")  # the first 20 of 50 epochs are a run of 20
Precision = Literal["float32", "bf16"]  # what networks compute in; weights and optimizer are always float32
EpochRule = Literal["last", "best"]
Operand = str | tuple[str, str]  # a row, or the difference of two: the first row's figure minus the second's

_MOST_CLASSES = 32767  # targets of more than 256 are int16
_LARGEST_VALUE = 2**16 - 1  # of a pixel in a mask
_LARGEST_SIDE = 2**15  # pixels
_OF_SCENES = (
    "train.csv",
    "train.txt",
    "trainannot",
    "masks",
    "train/masks",
    "SegmentationClass",
)  # of their folders; pictures have none
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in what an object says of itself
_OF_THE_STUDY: Any = None  # what a row leaves to its study, which fills it in


def _check_name(name: object, of: str) -> None:
    """Refuses what cannot be part of the name of a file or a test.

    Raises:
        InputError: it cannot; the message says what is named (`of`).
    """
    if not is_name(name):
        shown = name if isinstance(name, str) else f"{name!r:.60}"
        raise InputError(shown, f"is not a valid {of} name", "use letters, digits and _.+-, a letter or digit first")


def is_name(name: object) -> TypeGuard[str]:
    """Whether it can be part of the name of a file or a test."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII) is not None


def _is_number(value: object) -> bool:
    """Whether it is a plain finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _choose(where: str, name: str, value: object, choices: Any) -> None:
    """Refuses what is none of the choices, a list or a Literal; raises InputError."""
    among = choices if isinstance(choices, list) else get_args(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in among):
        raise InputError(where, f"has {name}={value!r:.60}", f"choose one of {', '.join(map(str, among))}")


_FIRST_SETTINGS = ("size", "batch", "epochs", "optimizer", "lr", "momentum", "lr_step", "lr_gamma")


def _is_whole(least: int, value: object) -> bool:
    """Whether it is a whole number of at least so much."""
    return type(value) is int and value >= least


def _rises(epochs: object) -> bool:
    """Whether these are whole numbers in rising order, from 1."""
    whole = isinstance(epochs, tuple) and len(epochs) > 0 and all(type(e) is int and e > 0 for e in epochs)
    return whole and list(epochs) == sorted(set(epochs))  # type: ignore[call-overload]


@dataclass(frozen=True)
class Loss:
    """A loss of your own.

    Attributes:
        function: of logits and targets, gives a scalar tensor: for classification float [B, C] and int64 [B]; for
            segmentation float [B, C, H, W] and int64 [B, H, W], -100 (PyTorch's `ignore_index`) where a pixel is of no
            class. A module is copied to the device; one with parameters to be trained is refused.
        version: to be changed when the loss changes and its source text does not, as `Metric.version`.
    """

    function: Callable[..., Any]
    version: str = ""

    @property
    def source(self) -> str:
        """What tells it from another, as `Metric.source`."""
        return _source_of(self.function, self.version)

    @property
    def name(self) -> str:
        """Its name and 12 digits of its source's digest, for settings."""
        return f"{_name_of(self.function)} {_digest_of(self.source)}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a row is trained.

    Attributes:
        size: side of the square the network sees, in pixels.
        batch: images per optimizer step.
        epochs: passes over the training split; the network is evaluated after each.
        optimizer: "sgd" (plain momentum) or "adam", both PyTorch's; or any other name of `timm.optim.list_optimizers()`
            ("adamw", "lamb", "muon", "lookahead_radam"; "nesterov" is SGD with Nesterov's momentum).
        lr: learning rate, the highest of its schedule.
        momentum: None leaves it to the optimizer: 0 for "sgd", else timm's choice.
        lr_step: "step" multiplies the learning rate with `lr_gamma` every so many epochs, "multistep" from each of
            these on (a tuple, from 1), "plateau" after more than so many without a better primary metric.
        lr_gamma: that factor; the power of "poly".
        weight_decay: as the optimizer means it; not of biases and other parameters of one dimension, as in timm.
        schedule: by epochs as `timm.scheduler.create_scheduler_v2` makes them "step", "cosine", "tanh", "multistep",
            "poly", "constant", "wsd", "rsqrt" and "plateau"; by steps PyTorch's "onecycle", momentum as it is.
        lr_min: where "cosine", "tanh", "poly", "wsd", "rsqrt" and "plateau" end.
        warmup_epochs: the first epochs of the schedule, in which the learning rate rises in equal parts: with 2 of
            them, a third and two thirds of `lr`. With "onecycle" how long it rises; 0 for PyTorch's 0.3 of the epochs.
        loss: "cross_entropy" (default of classification), "bce" (binary, class by class; default of segmentation) or
            "focal" (torchvision's `sigmoid_focal_loss`); or a function, or a `Loss`. A pixel of no class is left out of
            "cross_entropy", and a negative of every class for the others.
        label_smoothing: share of each target that is spread over all classes, in training and not in validation.
        clip_grad: the largest norm of all gradients together; None for no limit.
        clip_mode: "norm"; or "value", where `clip_grad` is the largest absolute value in a gradient.

    Raises:
        InputError: a value that no training can follow. Names of timm are looked up before training.
    """

    size: int = 224
    batch: int = 16
    epochs: int = 10
    optimizer: str = "adam"
    lr: float = 5e-4
    momentum: float | None = None
    lr_step: int | tuple[int, ...] = 8
    lr_gamma: float = 0.1
    weight_decay: float = 0.0
    schedule: Schedule = "step"
    lr_min: float = 0.0
    warmup_epochs: int = 0
    loss: str | Loss | Callable[..., Any] | None = None
    label_smoothing: float = 0.0
    clip_grad: float | None = None
    clip_mode: Literal["norm", "value"] = "norm"

    def __post_init__(self) -> None:
        if isinstance(self.lr_step, list):
            object.__setattr__(self, "lr_step", tuple(self.lr_step))
        if callable(self.loss):
            object.__setattr__(self, "loss", Loss(self.loss))
        self._check()

    def _check(self) -> None:
        """Refuses a recipe that no training can follow; raises InputError."""
        number, share = "give a number above 0", "give a number from 0 to below 1"
        required: list[tuple[str, Callable[[Any], bool], str]] = [
            ("optimizer", lambda name: isinstance(name, str) and name != "", 'name one, as in optimizer="adamw"'),
            ("lr", lambda lr: _is_number(lr) and lr > 0, "give a learning rate above 0"),
            ("momentum", lambda m: m is None or (_is_number(m) and 0 <= m < 1), share),
            ("lr_gamma", lambda factor: _is_number(factor) and factor > 0, number),
            ("weight_decay", lambda decay: _is_number(decay) and decay >= 0, "give a number, 0 or more"),
            ("lr_min", lambda lr: _is_number(lr) and 0 <= lr <= self.lr, "give a learning rate from 0 to lr"),
            ("loss", lambda loss: loss is None or isinstance(loss, str | Loss), "name one, or give a function"),
            ("label_smoothing", lambda s: _is_number(s) and 0 <= s < 1, share),
            ("clip_grad", lambda most: most is None or (_is_number(most) and most > 0), number),
        ]
        for name, least in (("size", 32), ("batch", 1), ("epochs", 1), ("lr_step", 1), ("warmup_epochs", 0)):
            hint = f"give a whole number, {least} or more"
            required.append((name, partial(_is_whole, least), hint))
        if self.schedule == "multistep":
            hint = "give the epochs in rising order, as lr_step=(30, 60)"
            required = [(n, _rises, hint) if n == "lr_step" else (n, *rest) for n, *rest in required]  # type: ignore[misc]
        for name, fits, hint in required:
            if not fits(getattr(self, name)):
                raise InputError("recipe", f"has {name}={getattr(self, name)!r:.40}", hint)
        _choose("recipe", "schedule", self.schedule, Schedule)
        _choose("recipe", "clip_mode", self.clip_mode, ["norm", "value"])
        if self.warmup_epochs >= self.epochs:
            problem = f"has warmup_epochs={self.warmup_epochs} of {self.epochs} epochs"
            raise InputError("recipe", problem, "leave at least one epoch after the warm-up")
        if self.optimizer == "adam" and self.momentum:
            raise InputError("recipe", f"has momentum={self.momentum:g} for adam, which has none", "leave it out")
        if isinstance(self.loss, Loss):
            if not callable(self.loss.function) or not isinstance(self.loss.version, str):
                raise InputError("recipe", f"has loss={self.loss!r:.60}", "give Loss(function, version=text)")
            if self.label_smoothing:
                problem = "has label_smoothing and a loss of your own"
                raise InputError("recipe", problem, "smooth in the loss, and leave label_smoothing out")

    def settings(self) -> dict[str, Any]:
        """All that changes what is trained, as plain JSON values; what was added later only where it is in use."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        later = [f for f in fields(self) if f.name not in _FIRST_SETTINGS]
        for f in later:
            if values[f.name] == f.default:
                del values[f.name]
        if self.momentum is None and self.optimizer in ("sgd", "adam"):
            values["momentum"] = 0.0
        if isinstance(self.loss, Loss):
            values["loss"] = self.loss.name
        if isinstance(self.lr_step, tuple):
            values["lr_step"] = list(self.lr_step)
        return values


class Corruption(NamedTuple):
    """What is wrong with the training data of a negative control; see `cvhw4.data.corruption` for the strengths, and
    for which kind needs names of classes."""

    kind: CorruptionKind
    strength: float
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A named variant of a study: everything that decides what is trained, but for the seed and the data.

    Attributes:
        network: "alexnet"; any timm classifier ("resnet18", its last layer replaced), "torchvision/resnet18" for
            torchvision's, "+linear" behind either to keep the 1000-way classifier and add Linear(1000, classes); for
            segmentation "fcn8s/vgg16", "fcn8s/<any timm backbone>" with maps at 1/8, 1/16 and 1/32,
            "torchvision/deeplabv3_resnet50", or, with segmentation_models_pytorch, "smp/Unet/resnet34". Or a callable
            (a function, class or `functools.partial`) that is given the number of classes and gives a torch.nn.Module:
            float [B, 3, size, size], normalised, to logits [B, classes], for segmentation [B, classes, size, size];
            also as `out` or `logits` of a dict or object. torch is seeded before it is called.
        start: where the pretrained part starts from; left out, "imagenet". A callable decides itself.
        trained: which layers the optimizer changes, of those whose parameters require a gradient.
        augmentation: of the training pictures; left out, a random-resized crop (classification) or a random crop.
            "none" shows them as validation pictures are. Or a transform of `torchvision.transforms.v2`, called with
            each picture by itself (`tv_tensors.Image`, uint8 [3, H, W]) and for segmentation its mask
            (`tv_tensors.Mask`, uint8 [2, H, W]: the labels, and 1 where the picture has that pixel: what a transform
            fills in is of no class); gives [3, size, size], uint8 or float from 0 to 1, not normalised. Its random
            numbers (torch's, NumPy's and Python's) depend on seed, epoch and picture alone.
        flip: whether a built-in augmentation also mirrors at random; left out, all but "none" do.
        skips: whether FCN8s adds its skip connections; left out, it does. Not for a classifier.
        batch_norm: "frozen" keeps the statistics that batch norm starts with, in training too.
        merge: names of classes that are trained and measured as one, by the new class's name; "void" for pixels of no
            class. Left out, the data's (`Scenes.merge`); {} for none. Not for a classifier.
        classes: how many the network tells apart; filled in by the study, from its data and `merge`.
        recipe: left out, the study's.
        group: which tests train it: those whose mark names the same group. Rows without one are what a session trains
            by default, and what bounds and nightly jobs are about.
        corruption: what is wrong on purpose with the training data, see `Control`.
        version: of a callable, to be changed when what it builds changes and its source text does not: `--reuse` knows
            it by its text, its arguments and this.
        for_task: of a callable, "classification" or "segmentation"; left out, what the study's data are for.
        name: filled in by the study.
        study: the name of the study, filled in by it.
        source: the text of a callable with its arguments and version, filled in by the study.
    """

    network: str | Callable[[int], Any] = field(hash=False)  # an object that is called may have no hash
    _: KW_ONLY
    start: Start = _OF_THE_STUDY
    trained: Trained = "all layers"
    augmentation: Augmentation | Callable[..., Any] = _OF_THE_STUDY
    flip: bool | None = None
    skips: bool | None = None
    batch_norm: BatchNorm = "train"
    merge: Merge = field(default=_OF_THE_STUDY, hash=False)
    classes: int = _OF_THE_STUDY
    recipe: Recipe = _OF_THE_STUDY
    group: str = ""
    corruption: Corruption | None = None
    version: str = ""
    for_task: TaskName | None = None
    name: str = ""
    study: str = ""
    source: str = ""

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
        return self.network if isinstance(self.network, str) else _call_of(self.network)

    @property
    def epochs(self) -> int | None:
        """How many epochs it is trained for; None where only its training loop knows."""
        return self.recipe.epochs

    def settings(self) -> dict[str, Any]:
        """All that changes what is trained, as plain JSON values: without names and groups, and without `merge` where
        nothing is merged. A callable is there by its name and, as `network_source`, the sha256 of its text."""
        values = asdict(replace(self, recipe=_OF_THE_STUDY, augmentation=_OF_THE_STUDY, network=self.network_name))
        values |= {"recipe": self.recipe and self.recipe.settings(), "augmentation": self.augmentation}
        if callable(self.augmentation):
            shown = _ADDRESS.sub("", " ".join(repr(self.augmentation).split()))
            values["augmentation"] = f"{shown} {_digest_of(_text_of(self.augmentation))}"
        if self.flip in (None, self.augmentation != "none"):  # the default, which older records do not name
            del values["flip"]
        if not isinstance(self.network, str):
            values["network_source"] = sha256(self.source.encode()).hexdigest()
        left_out = ("name", "study", "group", "version", "for_task", "source")
        plain = {k: v for k, v in values.items() if k not in left_out}
        if self.corruption is not None:
            plain["corruption"] = [part for part in self.corruption if part != ()]
        if merge := plain.pop("merge"):
            plain["merge"] = {new: [*members] for new, members in merge.items()}
        return plain

    def setting(self, name: str) -> Any:
        """One of its settings; None where it has none of that name."""
        return getattr(self, name, None)

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


@dataclass(frozen=True, eq=False)
class Run:
    """What the function of `Study(train=...)` is given: one row, to be trained with one seed.

    When it is called, `random` and NumPy's global generator are seeded with `seed`, and so is torch, now or as soon as
    it is imported; generators of your own you seed.

    Attributes:
        settings: the row's.
        seed: what to draw from.
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
    """What a publication states for a row: best figures and their epochs by metric, wall time as printed there."""

    figures: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    time: str = "-"


@dataclass(frozen=True)
class Metric:
    """A metric of your own; higher is better, so put a minus before an error.

    Attributes:
        function: for classification of the labels (int64 [V]) and what `of` says, of all validation images at once, as
            scikit-learn has them; for segmentation of the confusion matrix of the whole set (int64 [classes of labels,
            classes predicted], pixels without void). Gives a finite number. A function or an object of torchmetrics is
            given tensors, and the labels last, as it takes them.
        version: to be changed when the metric changes and its source text does not (a function that it calls, a value
            that it holds): `--reuse` knows a metric by its text and this.
        of: "labels": the predicted classes, int64 [V]; "scores": the probabilities of the classes (softmax), float32
            [V, classes], of two classes float32 [V], those of the second. Not for segmentation.
    """

    function: Callable[..., float] = field(compare=False)
    version: str = ""
    of: Literal["labels", "scores"] = "labels"

    @property
    def source(self) -> str:
        """What tells it from another of that name: its text, where there is one, the version, and of what it is."""
        return _source_of(self.function, self.version) + (" of scores" if self.of == "scores" else "")


# Metrics of scikit-learn and torchmetrics that are of scores, by name without underscores: given labels most of them
# give a figure too, which is another metric's.
_OF_SCORES = re.compile(
    "rocauc|auroc|averageprecision|topk|logloss|brier|calibrationerror|hinge|dcgscore|logauc|atfixed|atsensitivity"
    "|atspecificity|rankingloss|coverageerror"
)


def _named_of_scores(function: Callable[..., Any]) -> str | None:
    """The name of the known metric of scores that this is, or calls; None where there is none."""
    plain = unwrapped(function)
    code = getattr(plain, "__code__", None)
    library = str(getattr(plain, "__module__", "")).partition(".")[0] in ("sklearn", "torchmetrics")
    names = [_name_of(plain)] if library else [*getattr(code, "co_names", ()), *getattr(code, "co_freevars", ())]
    return next((name for name in names if _OF_SCORES.search(name.lower().replace("_", ""))), None)


def _source_of(function: Callable[..., Any], version: str) -> str:
    """What tells a function of the user's own from another of that name: its text, where there is one, and the
    version."""
    return f"{_text_of(function)}{version and f' version {version}'}"


def _digest_of(text: str) -> str:
    """12 digits that tell a text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a function, of what a partial calls, or of an object's class."""
    function = unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)


def _call_of(function: Callable[..., Any]) -> str:
    """What pages call a callable: its name, of a partial with its arguments, at most 60 characters of them."""
    given: list[str] = []
    while isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items()), *given]
        function = function.func
    shown = _ADDRESS.sub("", ", ".join(given))
    shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
    return _name_of(function).strip("<>") + f"({shown})" * bool(given)


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a partial calls in the end."""
    while isinstance(function, partial):
        function = function.func
    return function


def _text_of(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> str:
    """The source text of a function and what it holds beside it, or of an object's class, what the object says of
    itself and what it holds; of a partial also its arguments. Where there is no text, the name."""
    seen |= {id(function)}
    if isinstance(function, partial):
        held = f"{_held(function.args, seen)}, {_held(function.keywords, seen)}"
        return f"partial({_text_of(function.func, seen)}, {held})"
    known = function if inspect.isroutine(function) or isinstance(function, type) else type(function)
    of_object = _beside_text(function, seen)
    if known is not function:
        parts = ("_buffers", "_modules", "_parameters")  # a module's
        holds = {k: v for k, v in getattr(function, "__dict__", {}).items() if not k.startswith("_") or k in parts}
        of_object = f"{_ADDRESS.sub('', f' {function!r}')} {_held(holds, seen)}"
    try:
        return inspect.getsource(known) + of_object
    except (OSError, TypeError):
        return f"{getattr(known, '__module__', '')}.{getattr(known, '__qualname__', known)}{of_object}"


def _beside_text(function: Callable[..., Any], seen: frozenset[int]) -> str:
    """What a function holds that its text may not say: the object that it is a method of, variables of the functions
    around it, defaults; "" where there is nothing."""
    plain: Any = inspect.unwrap(function)
    held: list[Any] = []
    if isinstance(plain, MethodType):
        owner, plain = plain.__self__, plain.__func__
        own = {} if isinstance(owner, type) else getattr(owner, "__dict__", {})
        held = [owner, {k: v for k, v in own.items() if not k.startswith("_")}]
    if isinstance(plain, FunctionType):
        for cell in plain.__closure__ or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # not set yet
                continue
        held += [*(plain.__defaults__ or ()), *(plain.__kwdefaults__ or {}).values()]
    return f" {_held(held, seen)}" if held else ""


def _held(value: Any, seen: frozenset[int]) -> str:
    """A value that a function or an object holds, as a text that is the same in every process."""
    if id(value) in seen:
        return "..."
    seen |= {id(value)}
    if isinstance(value, Mapping):
        return str({str(k): _held(v, seen) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return str([_held(v, seen) for v in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_held(v, seen) for v in value))
    if isinstance(value, ModuleType):
        return value.__name__
    if hasattr(value, "detach") and hasattr(value, "numpy"):  # a tensor
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return _text_of(value, seen) if callable(value) else _ADDRESS.sub("", repr(value))


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A conclusion to be judged: `better` beats `worse` by more than `margin`, or `margin` itself.

    Attributes:
        id: `-k` selects by it. Made from rows and metric where it is left out.
        sentence: the conclusion in words; likewise.
        better: the row that should have the higher figure, or two: their difference, ("a", "b").
        worse: what it is compared with, seed by seed; None compares the figure itself with `margin`, which says
            something on real data alone.
        metric: figure compared, as in `RunRecord.best`.
        smallest: difference of interest, above 0: the claim is "equivalent" where its difference is surely nearer to
            `margin` than that. 0 for none: it is then never called so.
        control: whether it checks the study itself and is not one of its conclusions: it is judged by itself.
        note: what has to be said beside the verdict, as Markdown, of the runs on one data set; "" for nothing.

    Raises:
        InputError: something of another kind than that.
    """

    id: str = ""
    sentence: str = ""
    better: Operand
    worse: Operand | None = None
    metric: str
    margin: float = 0.0
    smallest: float = 0.0
    control: bool = False
    note: Callable[[Evidence], str] | None = None

    def __post_init__(self) -> None:
        self._check()
        better, worse = (" less ".join((o,) if isinstance(o, str) else o) for o in (self.better, self.worse or ()))
        over = f"{worse} by {self.margin:g}" if worse and self.margin else worse or f"{self.margin:g}"
        name = f"{better}_above_{worse or f'{self.margin:g}'}-{self.metric}".replace(" ", "_")
        object.__setattr__(self, "id", self.id or name)
        object.__setattr__(self, "sentence", self.sentence or f"{better} beats {over} in {self.metric}")
        _check_name(self.id, "claim")

    def _check(self) -> None:
        """Refuses what no claim can be made of; raises InputError."""
        row = 'name a row, or the difference of two as ("a", "b")'
        required = (
            ("id", isinstance(self.id, str), "give a text, or leave it out"),
            ("sentence", isinstance(self.sentence, str), "give a text, or leave it out"),
            ("better", _is_operand(self.better), row),
            ("worse", self.worse is None or _is_operand(self.worse), f"{row}, or leave it out"),
            ("metric", isinstance(self.metric, str) and self.metric != "", 'name a figure ("accuracy")'),
            ("margin", _is_number(self.margin), "give a number"),
            ("smallest", _is_number(self.smallest) and self.smallest >= 0, "give a number above 0, or leave it out"),
            ("control", isinstance(self.control, bool), "give True or False"),
            ("note", self.note is None or callable(self.note), "give a function of an Evidence, or leave it out"),
        )
        for name, fine, hint in required:
            if not fine:
                where = f"claim {self.id or f'with better={self.better!r:.60}'}"
                raise InputError(where, f"has {name}={getattr(self, name)!r:.60}", hint)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows compared."""
        operands = (self.better,) if self.worse is None else (self.better, self.worse)
        return tuple(row for operand in operands for row in ((operand,) if isinstance(operand, str) else operand))


def _is_operand(value: object) -> bool:
    """Whether it names a row, or two."""
    names = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    return all(isinstance(name, str) and name for name in names)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A negative control: a row trained wrongly on purpose, in several strengths. Bounds that do not notice it check
    nothing.

    Attributes:
        name: with the strength it is the name of the corrupted row.
        row: the row that is corrupted, and whose bounds have to notice.
        words: what is done, with a place for the strength ("{:.0%} of the training labels are wrong").
        strengths: how strongly, the first of them the one that has to be caught; the others tell how little suffices.
        corrupts: what it does to the training data, if anything; `classes` to which of its classes.
        changes: settings of the row that it changes, if any; in a study with a training loop of its own all that a
            control has.
        lr: whether the strength multiplies the learning rate.
    """

    name: str
    row: str
    words: str
    strengths: tuple[float, ...] = (1.0,)
    corrupts: CorruptionKind | None = None
    classes: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    lr: bool = False

    def of(self, study: Study, strength: float) -> Row:
        """The corrupted row of a study."""
        base = study.rows[self.row]
        if isinstance(base, CustomRow):
            changed: dict[str, Any] = {
                "values": {**base.values, **self.changes},
                "plain": {**base.plain, **_plain(self.changes)},
            }
            return replace(base, name=self.name, group="control", **changed)
        changes = dict(self.changes)
        if self.corrupts is not None:
            changes["corruption"] = Corruption(self.corrupts, strength, self.classes)
        if self.lr:
            changes["recipe"] = replace(base.recipe, lr=base.recipe.lr * strength)
        name = self.name if len(self.strengths) == 1 else f"{self.name}_{strength:g}"
        return replace(base, name=name, group="control", **changes)


# Where the pictures of a study come from


@dataclass(frozen=True)
class Pictures:
    """Pictures to be classified, in `folder/train/<class>/*` and `folder/val/<class>/*`.

    Attributes:
        folder: relative to the file that makes the study.
        resize: what pictures are scaled to when they are decoded, whose shorter side is longer, in pixels; left out, a
            third more than the largest row sees.
        classes: how many there are, 2 to 32767; left out, as many as `train/` has folders.
        title: for pages.
    """

    folder: str | os.PathLike[str]
    _: KW_ONLY
    resize: int | None = None
    classes: int | None = None
    title: str = ""
    task = "classification"


@dataclass(frozen=True)
class Scenes:
    """Scenes to be segmented: pictures, and for each a mask that says of every pixel which class it is of.

    `images/{train,val}/` beside `masks/{train,val}/` (or `{train,val}/images/` beside `{train,val}/masks/`) with files
    of equal stems; `train.csv` and `val.csv` of lines "picture,mask"; CamVid's and PASCAL VOC's layouts: see
    `cvhw4.data.scenes.read_scenes`. What a mask has that is in no class and not ignored is an error.

    Attributes:
        folder: relative to the file that makes the study.
        classes: their names, or how many there are, 2 to 255 ("class 0", ...); left out, those of `values` or
            `colours`. Their order is that of their numbers.
        ignore: the value, or values, of pixels that are of no class; the loss and the metrics have their own
            conventions for them.
        values: by class the value, or values, that its pixels have in a mask of one channel, 0 to 65535; left out, the
            class's number. For masks of 0 and 255: `values={"background": 0, "cell": 255}`.
        colours: by class, and for "void", (red, green, blue), 0 to 255: on pages; and in a mask of three channels,
            which is read by its colours where there are any here.
        merge: of all rows that have none of their own, see `Row`.
        resize: (height, width) that scenes are scaled to when they are decoded, whatever their size, masks by the
            nearest pixel; left out, they are kept and have to be of one size.
        title: for pages.

    Raises:
        InputError: something does not fit.
    """

    folder: str | os.PathLike[str]
    _: KW_ONLY
    classes: int | Sequence[str] | None = None
    ignore: int | Sequence[int] | None = None
    values: Mapping[str, int | Sequence[int]] | None = field(default=None, hash=False)
    colours: Mapping[str, Colour] = field(default_factory=dict, hash=False)
    merge: Merge = field(default_factory=dict, hash=False)
    resize: tuple[int, int] | None = None
    title: str = ""
    task = "segmentation"

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike):
            self._refuse("does not name a folder", 'write it as Scenes("scenes", classes=[...])')
        values, colours = self.values, self.colours
        for name, given in (("values", values), ("colours", colours), ("merge", self.merge)):
            if given is not None and not isinstance(given, Mapping):
                self._refuse(f"has {name}={given!r:.60}", f"write it as {name}={{class: ..., ...}}")
        classes = self.classes
        if classes is None:
            classes = [*values] if values else [name for name in colours if name != VOID]
            if not classes:
                self._refuse("does not say which classes there are", 'name them: classes=["road", "car"], or how many')
        elif type(classes) is int:
            classes = [f"class {number}" for number in range(min(max(classes, 0), MOST_CLASSES + 1))]
        object.__setattr__(self, "classes", self._checked_names(classes))
        object.__setattr__(self, "ignore", self._checked_values("ignore", () if self.ignore is None else self.ignore))
        if values is not None:
            _of_all(f"{self}", "values", values, self.names, self.names)
            checked = {name: self._checked_values("values", value) for name, value in values.items()}
            object.__setattr__(self, "values", {name: checked[name] for name in self.names})
        _of_all(f"{self}", "colours", colours, (*self.names, VOID))
        object.__setattr__(self, "colours", {name: self._checked_colour(name, c) for name, c in colours.items()})
        object.__setattr__(self, "merge", _checked_merge(f"{self}", self.names, self.merge)[0])
        self._check_overlaps()

    def __str__(self) -> str:
        return f"Scenes({self.folder})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        names: tuple[str, ...] = self.classes  # type: ignore[assignment]  # once it is made
        return names

    @property
    def numbers(self) -> dict[int, int]:
        """The number of the class by the value that says it; for values that are ignored that behind the last."""
        by_class: Any = self.values if self.values is not None else {c: (i,) for i, c in enumerate(self.names)}
        ignored: Any = self.ignore
        return {value: len(self.names) for value in ignored} | {
            value: number for number, name in enumerate(self.names) for value in by_class[name]
        }

    def _refuse(self, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{self}", problem, hint)

    def _checked_names(self, classes: Any) -> tuple[str, ...]:
        if isinstance(classes, str) or not isinstance(classes, Sequence):
            self._refuse(f"has classes={classes!r:.60}", 'name them: classes=["road", "car"], or say how many')
        if not 2 <= len(classes) <= MOST_CLASSES:
            problem = f"has {len(classes)} classes" if len(classes) <= MOST_CLASSES else "has too many classes"
            self._refuse(problem, f"give 2 to {MOST_CLASSES}; for one thing and all else name both")
        for name in classes:
            if not isinstance(name, str) or not name.strip() or name == VOID:
                hint = f"{VOID} is how pixels of no class are called: see ignore" if name == VOID else "give a text"
                self._refuse(f"has the class {name!r:.60}", hint)
        if twice := {name for name in classes if list(classes).count(name) > 1}:
            self._refuse(f"has the class {min(twice)!r:.60} twice", "leave one of them out")
        return (*classes,)

    def _checked_values(self, name: str, given: Any) -> tuple[int, ...]:
        values = tuple(given) if isinstance(given, list | tuple | range) else (given,)
        if not all(type(value) is int and 0 <= value <= _LARGEST_VALUE for value in values):
            self._refuse(f"has {name}={given!r:.60}", f"give whole numbers from 0 to {_LARGEST_VALUE}")
        if name == "values" and not values:
            self._refuse("has values with a class of none", "give one value or more for every class")
        return values

    def _checked_colour(self, name: str, given: Any) -> Colour:
        parts = tuple(given) if isinstance(given, list | tuple) else ()
        if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
            self._refuse(f"has the colour {given!r:.60} for {name}", "give (red, green, blue), each 0 to 255")
        return parts

    def _check_overlaps(self) -> None:
        """Refuses a value or a colour that says two things."""
        by_class: Any = {"ignore": self.ignore} | (dict(self.values) if self.values is not None else {})
        if self.values is None:
            by_class |= {name: (number,) for number, name in enumerate(self.names)}
        for what, said in (("value", by_class), ("colour", {n: (c,) for n, c in self.colours.items()})):
            found: dict[Any, str] = {}
            for name, values in said.items():
                for value in values:
                    if value in found:
                        hint = "give each value to one class, or ignore it; values={class: value} says which are whose"
                        self._refuse(f"has the {what} {value} for {found[value]} and for {name}", hint)
                    found[value] = name


@dataclass(frozen=True)
class Generated:
    """Pictures that this package draws: "portraits" (with or without heavy make-up) or "scenes" (with CamVid's
    classes)."""

    kind: Literal["portraits", "scenes"]
    _: KW_ONLY
    title: str = ""

    @property
    def task(self) -> str:
        """The name of the task they are for."""
        return "classification" if self.kind == "portraits" else "segmentation"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes of scenes."""
        return CAMVID["classes"]

    @property
    def colours(self) -> Mapping[str, Colour]:
        """Their colours on pages."""
        return CAMVID["colours"]


@dataclass(frozen=True)
class NotGiven:
    """Data that the user has to name: rows that need them are skipped, with this hint.

    Attributes:
        task: name of the task they are for.
        hint: how to name them ("give --camvid DIR").
        classes: of scenes, as `Scenes.classes`; what records of such data are shown with.
        colours: likewise.
    """

    task: str
    hint: str
    _: KW_ONLY
    classes: Sequence[str] = ()
    colours: Mapping[str, Colour] = field(default_factory=dict, hash=False)
    title: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.classes)


Source = Pictures | Scenes | Generated | NotGiven


@dataclass(frozen=True, eq=False)
class Study:
    """Experiments to be compared: `pytest.mark.study(s)` trains its rows with every seed and judges its claims.

    After it is made, `rows`, `data` and `metrics` hold what was left out: `rows` is by name, every row with its recipe,
    augmentation and classes; `data` by task; `metrics` by name.

    With `train=` the training loop is your own, and so are network, data and figures; see `Run` for what it is given:

    .. code-block:: python

        def fit(run):
            model = MyModel(**run.settings)
            for epoch in range(10):
                ...
                yield {"accuracy": accuracy, "loss": loss}  # figures on the validation data

        Study("depth", train=fit, rows={"shallow": {"depth": 2}, "deep": {"depth": 8}}, primary="accuracy")

    Attributes:
        name: of the study; its runs lie in `<results>/<name>`.
        data: a folder of pictures by class, or of scenes and masks with `classes`, relative to the file that makes the
            study; or `Pictures`, `Scenes` or `Generated`; for a study with rows of both tasks a list with one of each.
        rows: by name, in the order of tables: a `Row`; with `train` what `Run.settings` will be, values by name: plain
            JSON values, functions, classes, or objects that say in their `repr` what they hold.
        recipe: of all rows that have none of their own.
        claims: what should beat what, by the names of rows and metrics.
        epoch: whose figures claims are judged by: "last", or "best", of which each run has the highest it ever saw.
        metrics: your own, by name, evaluated after every epoch: a function, or a `Metric`.
        controls: negative controls, trained by tests marked with `group="control"`.
        title: for pages; None for the name.
        about: a sentence for pages, on what a verdict of this study is about.
        classes: of a folder, as `Pictures.classes` or `Scenes.classes`; for pictures None for as many as its `train/`
            has folders.
        resize: of a folder, as `Pictures.resize` or `Scenes.resize`.
        bounds: the file that `cvhw4 calibrate` writes, relative to the file that makes the study; None for no bounds.
        published: by row, what a publication states for it, shown beside the study's own figures.
        published_images: number of validation images behind the published accuracies.
        sections: of the page of verdicts, beside those that every study has.
        tables: of papers, by the name of their files: what a `Style` has, as {"rows": {"a": "Baseline"}, "percent":
            True}. `cvhw4 table --all` writes them.
        also_after: by task, a number of epochs after which tables show its rows as well; the schedule must not depend
            on the number of epochs, so that the first 20 of 50 are a run of 20.
        train: trains a row: a generator function that is given a `Run` and yields the figures of every epoch, finite
            numbers by name, the same names each time. A run that goes on from what it kept in `Run.folder` yields the
            figures of its earlier epochs again.
        primary: with `train`, the figure that tables put first and that progress shows.
        lower_is_better: with `train`, the names of figures of which the lowest is best ("loss"). A claim about one
            holds where `better` is lower, and its difference is `worse` less `better`.
        shares: with `train`, the names of figures that lie between 0 and 1: their bounds do too.
        version: with `train`, to be changed when what it does changes and its source text does not (a function that it
            calls, the data that it reads): `--reuse` knows a run by that text, the row's settings and this.
        train_text: the source text of `train`, once the study is made.

    Raises:
        InputError: something does not fit.
    """

    name: str
    _: KW_ONLY
    data: str | os.PathLike[str] | Source | Sequence[Source] = _OF_THE_STUDY
    rows: Mapping[str, Any]
    recipe: Recipe = Recipe()
    claims: Sequence[Claim] = ()
    epoch: EpochRule = "last"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    controls: Sequence[Control] = ()
    title: str | None = None
    about: str = ""
    classes: int | Sequence[str] | None = None
    resize: int | tuple[int, int] | None = None
    bounds: str | os.PathLike[str] | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    published_images: int = 0
    sections: Sequence[Section] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    also_after: Mapping[str, int] = field(default_factory=dict)
    train: Fit | None = None
    primary: str = ""
    lower_is_better: Collection[str] = frozenset()
    shares: Collection[str] = frozenset()
    version: str = ""
    train_text: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name, "study")
        self._check_kinds()
        here = _folder_of_caller()
        if self.train is not None:
            self._check_custom()
            object.__setattr__(self, "train_text", _text_of(self.train))  # a cluster's nodes may lack the file
            sources: dict[str, Source] = {}
            rows: list[Row] = [*self._custom_rows()]
        else:
            sources = self._sources(self._check_rows(here), here)
            self._check_metrics()
            rows = [*self._complete(sources)]
        object.__setattr__(self, "data", sources)
        object.__setattr__(self, "lower_is_better", frozenset(self.lower_is_better))
        object.__setattr__(self, "rows", {row.name: row for row in rows})
        metrics = {name: m if isinstance(m, Metric) else Metric(m) for name, m in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "title", self.title or self.name)
        if self.bounds is not None:
            object.__setattr__(self, "bounds", here / Path(self.bounds).expanduser())
        self._check_claims()
        for control in self.controls:
            where = f"{self._where}, control {control.name}"
            _choose(where, "row", control.row, [*self.rows])
            if self.train is not None and (control.corrupts or control.lr or len(control.strengths) > 1):
                raise InputError(where, "corrupts training data or a recipe that train has not", "give it changes=")
        for row in self.published:
            _choose(self._where, "published row", row, [*self.rows])
        for name in self.tables:
            _check_name(name, "table")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of its rows, in the order of the rows."""
        return tuple({row.task.name: row.task for row in self.rows.values()}.values())

    @property
    def sources(self) -> Mapping[str, Source]:
        """Where the pictures come from, by the name of the task; empty with a training loop of its own."""
        sources: Mapping[str, Source] = self.data  # type: ignore[assignment]  # once it is made
        return sources

    def of(self, task: Task | str, group: str | None = None) -> tuple[Row, ...]:
        """The rows of a task, or those of them that are of one group."""
        name = task if isinstance(task, str) else task.name
        return tuple(r for r in self.rows.values() if r.task.name == name and group in (None, r.group))

    def in_group(self, group: str) -> tuple[Row, ...]:
        """The rows of a group; of the group "control" the negative controls, at every strength, as well."""
        corrupted = [c.of(self, s) for c in self.controls for s in c.strengths] if group == "control" else []
        return (*(row for row in self.rows.values() if row.group == group), *corrupted)

    def row(self, name: str) -> Row:
        """The row with that name, or the only one whose name begins with it and a hyphen ("q1_2" for "q1_2-finetune").

        Raises:
            InputError: there is none; the message lists those there are.
        """
        found = [row for row in self.rows.values() if row.name == name or row.name.startswith(f"{name}-")]
        exact = [row for row in found if row.name == name]
        if len(exact or found) != 1:
            raise InputError(name, f"is not a row of study {self.name}", f"choose one of {', '.join(self.rows)}")
        return (exact or found)[0]

    def shown(self, task: Task) -> tuple[str, ...]:
        """The metrics that tables show for the rows of a task: built-in ones, then the study's own."""
        return (*task.shown, *self.metrics)

    def needed(self, row: Row) -> frozenset[str]:
        """The figures that the study's own training loop has to yield for a row."""
        claimed = {claim.metric for claim in self.claims if row.name in claim.rows}
        return frozenset({self.primary, *self.lower_is_better, *claimed})

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The user's own functions: metrics, losses, transforms, builders of networks; or what trains."""
        if self.train is not None:
            settings = (value for row in self.rows.values() for value in row.values.values())
            return (self.train, *(value for value in settings if callable(value)))
        losses = [row.recipe.loss.function for row in self.rows.values() if isinstance(row.recipe.loss, Loss)]
        transforms = [row.augmentation for row in self.rows.values() if callable(row.augmentation)]
        networks = [row.network for row in self.rows.values() if not isinstance(row.network, str)]
        return (*(metric.function for metric in self.metrics.values()), *losses, *transforms, *networks)

    @property
    def nightly_claims(self) -> tuple[Claim, ...]:
        """The claims between rows that a session trains by default."""
        rows = {row.name for row in self.in_group("")}
        return tuple(claim for claim in self.claims if rows.issuperset(claim.rows))

    @property
    def _where(self) -> str:
        return f"study {self.name}"

    # Checks of what it is made of

    def _check_kinds(self) -> None:
        """Refuses what is of another kind than it has to be; raises InputError."""
        data = isinstance(self.data, str | os.PathLike | Source) or (
            isinstance(self.data, list | tuple) and all(isinstance(source, Source) for source in self.data)
        )
        custom = self.train is not None
        lower, shares = self.lower_is_better, self.shares
        required = (
            ("train", self.train is None or _takes_a_run(self.train), "give a function of one argument, the run"),
            ("data", data or custom, "name a folder"),
            ("rows", isinstance(self.rows, Mapping), 'write them as {"a": Row("resnet18"), ...}'),
            ("claims", isinstance(self.claims, list | tuple), "write them as [Claim(better=..., ...), ...]"),
            ("metrics", isinstance(self.metrics, Mapping), "write them as {name: function, ...}"),
            ("title", self.title is None or isinstance(self.title, str), "give a text, or leave it out"),
            ("version", isinstance(self.version, str), "give a text, or leave it out"),
            ("primary", isinstance(self.primary, str), 'name a figure ("accuracy")'),
            ("lower_is_better", isinstance(lower, Collection) and not isinstance(lower, str), 'write it as {"loss"}'),
            ("shares", isinstance(shares, Collection) and not isinstance(shares, str), 'write it as {"accuracy"}'),
        )
        for name, fine, hint in required:
            if not fine:
                raise InputError(self._where, f"has {name}={getattr(self, name)!r:.60}", hint)
        _choose(self._where, "epoch", self.epoch, EpochRule)
        if not self.rows:
            raise InputError(self._where, "has no rows", "give it one or more")

    def _check_custom(self) -> None:
        """Refuses what does not go with a training loop of its own; raises InputError."""
        ours = {"data": _OF_THE_STUDY, "recipe": Recipe(), "classes": None, "resize": None, "metrics": {}}
        for name, left_out in ours.items():
            if getattr(self, name) != left_out:
                hint = "leave it out: " + ("yield the figure" if name == "metrics" else "train has its own")
                raise InputError(self._where, f"has {name}, which cannot go with train", hint)
        if not self.primary:
            raise InputError(self._where, "has train and no primary", 'name its first figure, as primary="accuracy"')
        for name in (self.primary, *self.lower_is_better, *self.shares):
            _check_name(name, "figure")
        for name, settings in self.rows.items():
            _check_name(name, "row")
            where = f"{self._where}, row {name}"
            if isinstance(settings, Row) or not isinstance(settings, Mapping):
                raise InputError(where, f"is {settings!r:.60}", 'write it as its settings, {"depth": 2}, beside train')
            for setting, value in settings.items():
                _check_name(setting, "setting")
                try:
                    _plain(value)
                except ValueError as error:
                    hint = "give a number, text, list, dict, function, class or object"
                    raise InputError(where, f"has {setting}={value!r:.60}, which {error}", hint) from error

    def _custom_rows(self) -> Iterator[CustomRow]:
        """The rows of a training loop of its own."""
        columns = tuple(dict.fromkeys(setting for settings in self.rows.values() for setting in settings))
        claimed = (claim.metric for claim in self.claims if isinstance(claim, Claim))
        shown = tuple(dict.fromkeys(m for m in (*claimed, *sorted(self.lower_is_better)) if m != self.primary))
        shared: dict[str, Any] = {"columns": columns, "primary": self.primary, "shown": shown}
        shared["shares"] = frozenset(self.shares)
        for name, settings in self.rows.items():
            yield CustomRow(name=name, study=self.name, values=dict(settings), plain=_plain(settings), **shared)

    def _check_rows(self, here: Path) -> tuple[Task, ...]:
        """Refuses rows that are none, and recipes that no training can follow; the tasks of the rows, which callables
        are told.

        Raises:
            InputError: there is one.
        """
        tasks, rows = {}, dict[str, Row]()
        for name, row in self.rows.items():
            _check_name(name, "row")
            where = f"{self._where}, row {name}"
            if not isinstance(row, Row):
                hint = 'write it as Row("resnet18", ...), or give the study train= for settings of your own'
                raise InputError(where, f"is {row!r:.60}", hint)
            if not row.network or not (isinstance(row.network, str) or callable(row.network)):
                raise InputError(where, f"has network={row.network!r:.60}", 'name one, as in Row("resnet18")')
            if hasattr(row.network, "state_dict") and not isinstance(row.network, type):
                hint = "give what builds it, Row(lambda classes: ...), so that each seed has its own"
                raise InputError(where, f"has a network that is built ({type(row.network).__name__})", hint)
            recipe = self._recipe_of(row)
            if not isinstance(recipe, Recipe):
                raise InputError(where, f"has the recipe {recipe!r:.60}", "write it as Recipe(size=224, ...)")
            if isinstance(recipe.loss, str):
                _choose(where, "loss", recipe.loss, [*LOSSES])
            if not isinstance(row.network, str):
                row = replace(row, for_task=self._task_of_callable(where, row, here))
            rows[name] = row
            if row.task.name in self.also_after and recipe.schedule not in _BY_EPOCHS_SO_FAR:
                problem = f"has schedule={recipe.schedule!r}, which depends on the number of epochs, beside also_after"
                raise InputError(where, problem, f"choose one of {', '.join(_BY_EPOCHS_SO_FAR)}")
            tasks[row.task.name] = row.task
        object.__setattr__(self, "rows", rows)
        if len(tasks) > 1 and not isinstance(self.data, list | tuple):
            raise InputError(self._where, "has classifiers and FCN8s", "make a study of each")
        return tuple(tasks.values())

    def _task_of_callable(self, where: str, row: Row, here: Path) -> TaskName:
        """What a callable's network is for: what the row says, or the data; where these are a folder that is not
        described, what the rows with names are for, or what lies there."""
        if row.for_task is not None:
            _choose(where, "for_task", row.for_task, TaskName)
            return row.for_task
        if isinstance(self.data, str | os.PathLike):
            names = [r.network for r in self.rows.values() if isinstance(r, Row)]
            tasks = {task_of(name).name for name in names if isinstance(name, str)}
            folder = here / Path(self.data).expanduser()
            named = isinstance(self.classes, list | tuple)  # of pictures there is a number of classes at most
            scenes = named or any(map(os.path.exists, (folder / name for name in _OF_SCENES)))
            return tasks.pop() if len(tasks) == 1 else "segmentation" if scenes else "classification"
        sources: Any = self.data if isinstance(self.data, list | tuple) else [self.data]
        given: set[TaskName] = {source.task for source in sources}
        if len(given) != 1:
            hint = 'say for_task="classification" or for_task="segmentation"'
            raise InputError(where, "has a callable in a study with data of both tasks", hint)
        return given.pop()

    def _recipe_of(self, row: Row) -> Recipe:
        return self.recipe if row.recipe is None else row.recipe

    def _sources(self, tasks: Sequence[Task], here: Path) -> dict[str, Source]:
        """Where the pictures of each task come from, with absolute folders."""
        given: list[Source]
        if isinstance(self.data, str | os.PathLike):
            (task,) = tasks
            if task.name == "classification":
                given = [Pictures(self.data, resize=self.resize, classes=self.classes)]  # type: ignore[arg-type]
            else:
                given = [Scenes(self.data, resize=self.resize, classes=self.classes)]  # type: ignore[arg-type]
        else:
            if self.classes is not None:
                raise InputError(self._where, f"has classes={self.classes!r:.40} beside its data", "give them with it")
            given = list(self.data) if isinstance(self.data, list | tuple) else [self.data]  # type: ignore[list-item]
        sources: dict[str, Source] = {}
        for source in given:
            if isinstance(source, Pictures | Scenes):
                source = replace(source, folder=(here / Path(source.folder).expanduser()).absolute())
            if isinstance(source, Pictures):
                largest = max((self._recipe_of(r).size for r in self.rows.values()), default=0)
                resize = largest * 4 // 3 if source.resize is None else source.resize
                if not _is_side(resize):
                    self._refuse_resize(resize, "give the shorter side in pixels")
                source = replace(source, resize=resize, classes=self._count_classes(source))
            if isinstance(source, Scenes) and source.resize is not None:
                size = source.resize
                if not isinstance(size, list | tuple) or len(size) != 2 or not all(map(_is_side, size)):
                    self._refuse_resize(size, "give (height, width) in pixels")
                source = replace(source, resize=(size[0], size[1]))
            sources[source.task] = source
        for task in tasks:
            if task.name not in sources:
                raise InputError(self._where, f"has no data for its rows of {task.name}", "add them to data")
        return sources

    def _refuse_resize(self, resize: object, hint: str) -> None:
        raise InputError(self._where, f"has resize={resize!r:.40}", f"{hint}, 16 to {_LARGEST_SIDE}")

    def _count_classes(self, source: Pictures) -> int:
        """How many classes pictures have. A folder that is no such folder is named when it is read."""
        if source.classes is not None:
            if type(source.classes) is not int or not 2 <= source.classes <= _MOST_CLASSES:
                raise InputError(self._where, f"has classes={source.classes!r:.40}", f"give 2 to {_MOST_CLASSES}")
            return source.classes
        try:
            found = sum(entry.is_dir() for entry in visible(Path(source.folder) / "train"))
        except (InputError, OSError):
            found = 2
        return min(max(found, 2), _MOST_CLASSES)

    def _complete(self, sources: Mapping[str, Source]) -> Iterator[Row]:
        """The rows with all that they left to the study."""
        for name, row in self.rows.items():
            where, recipe, task = f"{self._where}, row {name}", self._recipe_of(row), row.task
            built = not isinstance(row.network, str)
            if built and row.start in ("imagenet", "random"):
                raise InputError(where, f"has start={row.start!r}, which its callable decides", "leave it out")
            _choose(where, "start", row.start, ["as built"] if built else ["imagenet", "random"])
            if row.version and not built:
                raise InputError(where, f"has version={row.version!r:.40}, which callables have", "leave it out")
            _choose(where, "trained", row.trained, Trained)
            _choose(where, "batch_norm", row.batch_norm, BatchNorm)
            merge: Merge | None = None
            augmentation = task.augmentations[0] if row.augmentation is None else row.augmentation
            if _is_transform(augmentation):
                if row.flip is not None:
                    hint = "leave flip out, and put RandomHorizontalFlip into the transform"
                    raise InputError(where, "has flip, which is for built-in augmentations", hint)
            else:
                _choose(where, "augmentation", augmentation, [*task.augmentations])
            _choose(where, "flip", row.flip, [None, True, False])
            skips = row.skips
            if task.name == "classification":
                if skips is not None or row.classes is not None or row.merge is not None:
                    raise InputError(where, "has skips, classes or merge, which are segmentation's", "leave them out")
                source = sources[task.name]
                classes = source.classes if isinstance(source, Pictures) and source.classes is not None else 2
            else:
                fcn8s = isinstance(row.network, str) and row.network.startswith("fcn8s/")
                if skips is not None and not fcn8s:
                    raise InputError(where, "has skips, which are FCN8s's", "leave them out")
                if fcn8s:
                    skips = True if skips is None else skips
                    _choose(where, "skips", skips, [True, False])
                merge, classes = self._classes_of(where, row, sources[task.name])
                if fcn8s and recipe.size % 32:
                    raise InputError(where, f"trains at {recipe.size} px", "use a multiple of 32 for FCN8s")
            filled: dict[str, Any] = {"augmentation": augmentation, "skips": skips, "classes": classes, "merge": merge}
            if not isinstance(row.network, str):  # kept: a process elsewhere may not have the file
                filled["source"] = _source_of(row.network, row.version)
            yield replace(row, name=name, study=self.name, recipe=recipe, **filled)

    def _classes_of(self, where: str, row: Row, source: Source) -> tuple[Merge, int]:
        """Which classes of its data a row of segmentation merges, and how many are left."""
        assert not isinstance(source, Pictures)
        if not source.names:
            raise InputError(self._where, "does not say which classes its scenes have", "name them with its data")
        given = getattr(source, "merge", {}) if row.merge is None else row.merge
        merge, merged = _checked_merge(where, source.names, given)
        if row.classes is not None and (type(row.classes) is not int or row.classes != len(merged.names)):
            problem = f"has classes={row.classes!r:.40}, and its data {len(merged.names)}"
            raise InputError(where, problem, "leave it out; merge={new: [class, ...]} makes fewer")
        corruption = row.corruption
        if corruption is not None and not set(corruption.classes) <= set(source.names):
            problem = f"corrupts {', '.join(corruption.classes)}, which are not all classes"
            raise InputError(where, problem, f"choose among {', '.join(source.names)}")
        return merge, len(merged.names)

    def _check_metrics(self) -> None:
        for name in ("primary", "lower_is_better", "shares", "version"):
            if getattr(self, name):
                raise InputError(self._where, f"has {name}, which goes with train", "leave it out")
        built_in = {"loss", *(name for task in TASKS.values() for name in task.metrics)}
        for name, metric in self.metrics.items():
            _check_name(name, "metric")
            if name in built_in:
                raise InputError(f"metric {name}", "shadows a built-in metric", "give the function another name")
            if not callable(metric.function if isinstance(metric, Metric) else metric):
                raise InputError(f"metric {name}", "is not a function", "give a function, or Metric(function)")
            of = metric.of if isinstance(metric, Metric) else "labels"
            _choose(f"metric {name}", "of", of, ["labels", "scores"])
            if of == "scores" and any(row.task.name == "segmentation" for row in self.rows.values()):
                hint = "let it take the confusion matrix, or make a study of the classifiers alone"
                raise InputError(f"metric {name}", "wants scores, of which scenes keep none", hint)
            function = metric.function if isinstance(metric, Metric) else metric
            if of == "labels" and (known := _named_of_scores(function)) is not None:
                hint = f'write Metric({_name_of(function)}, of="scores"), or take a metric of labels'
                raise InputError(f"metric {name}", f"is given labels, and {known} is a metric of scores", hint)

    def _check_claims(self) -> None:
        known = {row.name: [*row.task.metrics, *self.metrics] for row in self.rows.values()}
        for claim in self.claims:
            if not isinstance(claim, Claim):
                raise InputError(self._where, f"has the claim {claim!r:.60}", "write it as Claim(better=..., ...)")
            where = f"{self._where}, claim {claim.id}"
            for row in claim.rows:
                _choose(where, "row", row, [*self.rows])
                if self.train is None:  # else it is not known what will be yielded
                    _choose(where, "metric", claim.metric, known[row])
            if claim.worse is None and claim.metric in self.lower_is_better:
                hint = "let it beat a row, or yield the figure with a minus"
                raise InputError(where, f"holds {claim.metric}, of which lower is better, against a number", hint)
        ids = [claim.id for claim in self.claims]
        if twice := {id for id in ids if ids.count(id) > 1}:
            raise InputError(self._where, f"has the claim {min(twice)} twice", "give one of them another id")


@dataclass(frozen=True)
class FromOptions:
    """A study that pytest's options choose: `pytest.mark.study(FromOptions(make))`.

    Attributes:
        make: makes it from pytest's config; called once in a session.
    """

    make: Callable[[Any], Study]


def _takes_a_run(train: object) -> bool:
    """Whether it can be called with one argument."""
    try:
        return callable(train) and inspect.signature(train).bind(None) is not None
    except (TypeError, ValueError):  # ValueError: it has no signature, as what is written in C
        return callable(train) and not inspect.isroutine(train)


def _plain(value: Any) -> Any:
    """A setting as a plain JSON value.

    Raises:
        ValueError: it holds a number that is not finite, a mapping whose keys are no texts, or an object that does not
            say what it holds.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not _is_number(value):
            raise ValueError("is not finite")
        return value
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("has keys that are no texts")
        return {key: _plain(inner) for key, inner in value.items()}
    if callable(value):
        text = _text_of(value)
        return f"{_name_of(value)} ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
    if isinstance(value, set | frozenset) or _ADDRESS.search(repr(value)) or "..." in repr(value):
        raise ValueError("does not say what it holds, always in the same words")
    return repr(value)


def _checked_merge(where: str, classes: Sequence[str], merge: object) -> tuple[dict[str, tuple[str, ...]], Merged]:
    """What is merged, as plain data, and what comes of it; raises InputError."""
    hint = f'write it as merge={{"new": ["old", ...]}}, with the classes {", ".join(classes)}, and {VOID} for no class'
    names: dict[str, tuple[str, ...]] = {}
    for new, members in merge.items() if isinstance(merge, Mapping) else [(merge, ())]:
        of_text = isinstance(members, list | tuple) and all(isinstance(name, str) for name in members)
        if not isinstance(new, str) or not new.strip() or not of_text or not isinstance(merge, Mapping):
            raise InputError(where, f"has merge={merge!r:.60}", hint)
        names[new] = tuple(members)
    try:
        return names, merge_classes(classes, names)
    except ValueError as error:
        raise InputError(where, str(error), hint) from error


def _of_all(where: str, what: str, given: Mapping[str, Any], known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Refuses names of classes that are none, and a lack of others; raises InputError."""
    for name in given:
        if name not in known:
            raise InputError(where, f"has {what} for {name!r:.60}", f"choose among {', '.join(known)}")
    if lacking := [name for name in needed if name not in given]:
        raise InputError(where, f"has no {what} for {', '.join(lacking)}", "give one for every class")


def _is_side(value: object) -> TypeGuard[int]:
    """Whether pictures may be scaled to a side of so many pixels."""
    return type(value) is int and 16 <= value <= _LARGEST_SIDE


def _is_transform(value: object) -> bool:
    """Whether it is one of `torchvision.transforms.v2`, which need not be imported for that."""
    modules = [getattr(kind, "__module__", "") for kind in type(value).__mro__]
    return any(module.startswith("torchvision.transforms.v2") for module in modules)


def _folder_of_caller() -> Path:
    """The folder of the file that makes a study; the current one where it is made in no file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file).resolve().parent if file else Path.cwd()
