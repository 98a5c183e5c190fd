"""A user's own ablation: rows, recipe, metrics and claims in one table, from which the rest is made."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from types import CellType, CodeType
from typing import Any, Literal, TypeGuard, get_args

from cvhw4.claims import Claim
from cvhw4.errors import InputError
from cvhw4.experiments import (
    CROP,
    Augmentation,
    BatchNorm,
    Experiment,
    Metric,
    Profile,
    Question,
    Recipe,
    Start,
    Trained,
    check_name,
    is_number,
    question_of,
    register,
)

FIGURES: dict[Question, tuple[str, ...]] = {
    "q1": ("accuracy",),
    "q2": ("miou", "pixel_accuracy", "set_miou", "set_pixel_accuracy"),
}
_TAKEN = {"loss", *(name for names in FIGURES.values() for name in names)}  # no own metric may be called so
_MOST_CLASSES = 255
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in what an object says of itself


@dataclass(frozen=True)
class Row:
    """One row of an own ablation: what sets it apart from the others.

    Attributes:
        network: "alexnet" or any timm classifier ("resnet18"), "+linear" behind it to keep the 1000-way classifier and
            add Linear(1000, classes); "fcn8s/vgg16" or "fcn8s/<any timm backbone>" for segmentation.
        start: where the pretrained part starts from.
        trained: which layers the optimizer changes.
        augmentation: of the training pictures; None for a random-resized crop (classification) or a random crop.
        skips: whether FCN8s adds its skip connections (None: it does); not for a classifier.
        batch_norm: "initial" keeps its initial statistics while training, as `cvhw4.experiments.BatchNorm` explains.
        classes: 11 or 3, for segmentation.
        recipe: None for the ablation's.
    """

    network: str
    _: KW_ONLY
    start: Start = "imagenet"
    trained: Trained = "all layers"
    augmentation: Augmentation | None = None
    skips: bool | None = None
    batch_norm: BatchNorm = "train"
    classes: Literal[11, 3] | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True, eq=False)
class Ablation:
    """Experiments of your own on pictures of your own: `pytest.mark.ablation(a)` runs them, with every seed.

    Attributes:
        name: of the ablation; its runs lie in `<results>/<name>`, and it begins the ids of its rows.
        data: folder with `train/<class>/*` and `val/<class>/*` (classification), or laid out as CamVid (segmentation);
            relative to the folder of the file that makes the ablation.
        rows: by name.
        recipe: of all rows that have none of their own.
        claims: what should beat what, by the names of rows and metrics.
        metrics: your own, by name, evaluated after every epoch; higher is better, so put a minus before an error. For
            classification a function of the labels and the predicted classes (int64 [V], all validation images at
            once), as scikit-learn has them; for segmentation of the confusion matrix of the whole set (int64 [classes
            of labels, classes predicted], pixels without void).
        title: for pages; None for the name.
        classes: number of classes, 2 to 255, None for as many as `train/` has folders; for segmentation 11 (None) or 3.
        resize: what pictures are scaled to when they are decoded: their shorter side, where it is longer (None: a third
            more than the largest row sees); for segmentation (height, width), None to keep them.
        profile: made of all that: how everything else knows the ablation.

    Raises:
        InputError: something does not fit; another ablation has the name.
    """

    name: str
    _: KW_ONLY
    data: str | os.PathLike[str]
    rows: Mapping[str, Row]
    recipe: Recipe = Recipe()  # noqa: RUF009  # it is frozen
    claims: Sequence[Claim] = ()
    metrics: Mapping[str, Callable[..., float]] = field(default_factory=dict)
    title: str | None = None
    classes: int | None = None
    resize: int | tuple[int, int] | None = None
    profile: Profile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, "ablation")
        self._check_kinds()
        for row, settings in self.rows.items():
            check_name(row, "row")
            where = f"{self._where}, row {row}"
            if not isinstance(settings, Row):
                raise InputError(where, f"is {settings!r:.60}", 'write it as Row("resnet18", ...)')
            if not isinstance(settings.network, str) or not settings.network:
                raise InputError(where, f"has network={settings.network!r:.60}", 'name one, as in Row("resnet18")')
            _check_recipe(where, self._recipe_of(settings))
        questions = {question_of(row.network) for row in self.rows.values()}
        if len(questions) > 1:
            raise InputError(self._where, "has classifiers and FCN8s", "make an ablation of each")
        (question,) = questions
        folder = (_folder_of_caller() / self.data).absolute()
        self._check_metrics()
        self._check_claims(FIGURES[question])
        largest = max(self._recipe_of(row).size for row in self.rows.values())
        side, size = self._decoded(question, largest)
        profile = Profile(
            name=self.name,
            rows=tuple(self._experiments(question, folder)),
            embedded=False,
            portrait_side=side,
            scene_size=size,
            claims=tuple(self.claims),
            folders={question: folder},
            title=self.title or self.name,
            metrics={name: Metric(function, _source(function)) for name, function in self.metrics.items()},
        )
        register(profile)
        object.__setattr__(self, "profile", profile)

    @property
    def _where(self) -> str:
        return f"ablation {self.name}"

    def _recipe_of(self, row: Row) -> Recipe:
        return self.recipe if row.recipe is None else row.recipe

    def _check_kinds(self) -> None:
        """Refuses what is of another kind than it has to be; raises InputError."""
        required = (
            ("data", isinstance(self.data, str | os.PathLike), "name a folder"),
            ("rows", isinstance(self.rows, Mapping), 'write them as {"a": Row("resnet18"), ...}'),
            ("claims", isinstance(self.claims, list | tuple), "write them as [Claim(better=..., ...), ...]"),
            ("metrics", isinstance(self.metrics, Mapping), "write them as {name: function, ...}"),
            ("title", self.title is None or isinstance(self.title, str), "give a text, or leave it out"),
        )
        for name, fine, mend in required:
            if not fine:
                raise InputError(self._where, f"has {name}={getattr(self, name)!r:.60}", mend)
        if not self.rows:
            raise InputError(self._where, "has no rows", "give it one or more")

    def _experiments(self, question: Question, folder: Path) -> Iterator[Experiment]:
        for name, row in self.rows.items():
            where, recipe = f"{self._where}, row {name}", self._recipe_of(row)
            _choose(where, "start", row.start, Start)
            _choose(where, "trained", row.trained, Trained)
            _choose(where, "batch_norm", row.batch_norm, BatchNorm)
            crop: Augmentation = "random crop"
            if question == "q1":
                if row.skips is not None or row.classes is not None:
                    raise InputError(where, "has skips or classes, which are FCN8s's", "leave them out")
                crop = CROP if row.augmentation is None else row.augmentation
                skips, classes = None, self._classes(folder)
                _choose(where, "augmentation", crop, [a for a in get_args(Augmentation) if a != "random crop"])
            else:
                _choose(where, "augmentation", crop if row.augmentation is None else row.augmentation, [crop])
                skips = True if row.skips is None else row.skips
                _choose(where, "skips", skips, [True, False])
                classes = next((c for c in (row.classes, self.classes) if c is not None), 11)
                _choose(where, "classes", classes, [11, 3])
                if recipe.size % 32:
                    raise InputError(where, f"trains at {recipe.size} px", "use a multiple of 32 for FCN8s")
            yield Experiment(
                row=name,
                profile=self.name,
                network=row.network,
                start=row.start,
                trained=row.trained,
                augmentation=crop,
                classes=classes,
                skips=skips,
                batch_norm=row.batch_norm,
                recipe=recipe,
            )

    def _classes(self, folder: Path) -> int:
        """How many classes pictures have. A folder that is no such folder is named when it is read."""
        if self.classes is not None:
            if type(self.classes) is not int or not 2 <= self.classes <= _MOST_CLASSES:
                raise InputError(self._where, f"has classes={self.classes!r:.40}", f"give 2 to {_MOST_CLASSES}")
            return self.classes
        try:
            from cvhw4.data.cache import visible

            found = sum(entry.is_dir() for entry in visible(folder / "train"))
        except (InputError, OSError):
            found = 2
        return min(max(found, 2), _MOST_CLASSES)

    def _decoded(self, question: Question, largest: int) -> tuple[int, tuple[int, int] | None]:
        """To what pictures and scenes are scaled."""
        resize = self.resize
        if resize is None:
            return largest * 4 // 3, None
        if question == "q1" and _is_side(resize):
            return resize, None
        if question == "q2" and isinstance(resize, list | tuple) and len(resize) == 2 and all(map(_is_side, resize)):
            return largest * 4 // 3, (resize[0], resize[1])
        mend = "give the shorter side in pixels" if question == "q1" else "give (height, width) in pixels"
        raise InputError(self._where, f"has resize={resize!r:.40}", f"{mend}, 16 to {2**15}")

    def _check_metrics(self) -> None:
        for name, function in self.metrics.items():
            check_name(name, "metric")
            if name in _TAKEN or not callable(function):
                problem = "is a figure that there is already" if name in _TAKEN else "is no function"
                raise InputError(f"metric {name}", problem, "give a function under another name")

    def _check_claims(self, figures: Sequence[str]) -> None:
        known = [*figures, *self.metrics]
        for claim in self.claims:
            if not isinstance(claim, Claim):
                raise InputError(self._where, f"has the claim {claim!r:.60}", "write it as Claim(better=..., ...)")
            where = f"{self._where}, claim {claim.id}"
            for row in claim.rows:
                _choose(where, "row", row, [*self.rows])
            _choose(where, "metric", claim.metric, known)
        ids = [claim.id for claim in self.claims]
        if twice := {id for id in ids if ids.count(id) > 1}:
            raise InputError(self._where, f"has the claim {min(twice)} twice", "give one of them another id")


def _is_side(value: object) -> TypeGuard[int]:
    """Whether pictures may be scaled to a side of so many pixels."""
    return type(value) is int and 16 <= value <= 2**15


def _check_recipe(where: str, recipe: Recipe) -> None:
    """Refuses a recipe that no training can follow; raises InputError."""
    if not isinstance(recipe, Recipe):
        raise InputError(where, f"has the recipe {recipe!r:.60}", "write it as Recipe(size=224, ...)")
    _choose(where, "optimizer", recipe.optimizer, ["sgd", "adam"])
    for name, least in (("size", 32), ("batch", 1), ("epochs", 1), ("lr_step", 1)):
        value = getattr(recipe, name)
        if type(value) is not int or value < least:
            raise InputError(where, f"has {name}={value!r:.40}", f"give a whole number, {least} or more")
    ranges: dict[str, tuple[Callable[[float], bool], str]] = {
        "lr": (lambda lr: lr > 0, "give a learning rate above 0"),
        "momentum": (lambda momentum: 0 <= momentum < 1, "give a number from 0 to below 1"),
        "lr_gamma": (lambda factor: factor > 0, "give a number above 0"),
    }
    for name, (fits, mend) in ranges.items():
        value = getattr(recipe, name)
        if not is_number(value) or not fits(value):
            raise InputError(where, f"has {name}={value!r:.40}", mend)


def _choose(where: str, name: str, value: object, choices: Any) -> None:
    """Refuses what is none of the choices, a list or a Literal; raises InputError."""
    among = choices if isinstance(choices, list) else get_args(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in among):
        raise InputError(where, f"has {name}={value!r:.60}", f"choose one of {', '.join(map(str, among))}")


def _folder_of_caller() -> Path:
    """The folder of the file that makes an ablation; the current one where it is made in no file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file).resolve().parent if file else Path.cwd()


def _source(function: Callable[..., float]) -> str:
    """What tells a metric from another of that name: its text, or where it is from."""
    return _text(function, {})


def _text(value: Any, seen: dict[int, tuple[int, object]]) -> str:
    """A value in words that are the same in every process: functions and objects of classes by their text and all that
    they hold, or where they are from.

    Args:
        seen: number and object by id, of what was met already; it holds the objects, so that no id is given twice.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(_text(v, seen) for v in value)})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_text(v, dict(seen)) for v in value))}}}"
    if isinstance(value, type) or inspect.isbuiltin(value) or inspect.ismodule(value):
        return _named(value)
    if id(value) in seen:
        return f"<{seen[id(value)][0]}>"
    seen[id(value)] = len(seen), value
    if isinstance(value, list):
        return f"[{', '.join(_text(v, seen) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(k, seen)}: {_text(v, seen)}' for k, v in value.items())}}}"
    if isinstance(value, partial):
        return f"partial({', '.join(_text(v, seen) for v in (value.func, value.args, value.keywords))})"
    if inspect.ismethod(value):
        return f"{_text(value.__func__, seen)} of {_text(value.__self__, seen)}"
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]  # not those still empty
        held = value.__defaults__ or (), value.__kwdefaults__ or {}, cells
        return f"{_written(value.__code__) or _named(value)} with {_text(held, seen)}"
    if hasattr(value, "__array__"):
        import numpy as np

        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{_text(array.tolist(), seen)}"
    kinds = [_written(kind) or _named(kind) for kind in type(value).__mro__[:-1]]
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    held_by = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    own = "" if held_by or type(value).__repr__ is object.__repr__ else ADDRESS.sub("", repr(value))
    return f"{'; '.join(kinds)} with {_text(held_by, seen)}{own}"


def _written(what: CodeType | type) -> str:
    """The text of a function or class; nothing where there is none."""
    try:
        return inspect.getsource(what)
    except (OSError, TypeError):
        return ""


def _named(value: Any) -> str:
    """Where a function, class or module is from."""
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__qualname__))
    return f"{getattr(value, '__module__', None) or ''}.{name}"


def load_profile(file: Path, name: str | None = None) -> Profile:
    """The own ablation that a file makes, as a profile.

    Args:
        file: is imported, with its folder first on the path, as pytest does.
        name: which of several ablations.

    Raises:
        InputError: the file cannot be imported, or makes no such ablation.
    """
    import importlib.util

    if not file.is_file():
        raise InputError(file, "is no file", "name the file that makes the ablation")
    sys.path.insert(0, str(file.resolve().parent))
    # A name of its own, that no import of the study's can mean; dataclasses look their module up by it.
    spec = importlib.util.spec_from_file_location(f"_cvhw4_study_{file.stem}", file.resolve())
    if spec is None or spec.loader is None:
        raise InputError(file, "is no Python file", "name the file that makes the ablation")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(file, f"cannot be imported ({type(error).__name__}: {error})", "correct it") from error
    found = {a.name: a.profile for a in vars(module).values() if isinstance(a, Ablation)}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        problem = f"makes no ablation {name}" if name else f"makes {len(found)} ablations"
        mend = f"choose one of {', '.join(found)} with --profile" if found else "make one with cvhw4.Ablation"
        raise InputError(file, problem, mend)
    return found[name]
