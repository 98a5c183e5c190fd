"""What rows and data leave to their study, and the study fills in: tasks, folders, augmentations, classes; and the rows
of a study with a training loop of its own."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from cvhw4.errors import InputError
from cvhw4.files import visible
from cvhw4.labels import Merge
from cvhw4.study.checks import check_name, choose, is_number, require
from cvhw4.study.claims import Claim, Control
from cvhw4.study.functions import digest_of_text, plain, source_of
from cvhw4.study.recipe import BY_EPOCHS_SO_FAR, Recipe
from cvhw4.study.rows import OF_THE_STUDY, BatchNorm, Corruption, CorruptionKind, CustomRow, Row, Trained
from cvhw4.study.sources import Pictures, Scenes, Source, checked_merge
from cvhw4.tasks import LOSSES, SEGMENTATION, TaskName, task_of

if TYPE_CHECKING:
    from cvhw4.study.study import Study

# What each corruption is for (None: all tasks), and how its strength is measured.
CORRUPTED: dict[CorruptionKind, tuple[TaskName | None, str]] = {
    "label noise": ("classification", "the share of the images, above 0 and up to 1"),
    "smaller training set": (None, "the share that is left out, above 0 and below 1"),
    "mask shift": ("segmentation", "pixels, 1 or more"),
    "classes swapped": ("segmentation", "the share of the images, above 0 and up to 1"),
}
# What a negative control may change of its row: not what decides which figures it has.
_CHANGED = ("network", "start", "trained", "augmentation", "flip", "skips", "batch_norm", "recipe")
_LOW = re.compile(r"(?:^|[_.+-])(?:loss|error|mae|mse|rmse|fid|perplexity)(?:$|[_.+-])", re.IGNORECASE)  # figures
_TURNED = re.compile(r"(?:neg|minus|negative)[_.+-]", re.IGNORECASE)  # of which the highest is best again
_MOST_CLASSES = 32767  # targets of more than 256 are int16
_LARGEST_SIDE = 2**15  # pixels
# In the folders of scenes; pictures have none.
_OF_SCENES = ("train.csv", "train.txt", "trainannot", "masks", "train/masks", "SegmentationClass")


def check_rows(study: Study, here: Path) -> dict[str, Row]:
    """The rows by name, callables told which task they are for.

    Raises:
        InputError: one is no row, or has a recipe that no training can follow.
    """
    rows: dict[str, Row] = {}
    for name, row in study.rows.items():
        check_name(name, "row")
        where = f"{study.where}, row {name}"
        if not isinstance(row, Row):
            hint = 'write it as Row("resnet18", ...), or give the study train= for settings of your own'
            raise InputError(where, f"is {row!r:.60}", hint)
        if not row.network or not (isinstance(row.network, str) or callable(row.network)):
            raise InputError(where, f"has network={row.network!r:.60}", 'name one, as in Row("resnet18")')
        if hasattr(row.network, "state_dict") and not isinstance(row.network, type):
            hint = "give what builds it, Row(lambda classes: ...), so that each seed has its own"
            raise InputError(where, f"has a network that is built ({type(row.network).__name__})", hint)
        texts = [(name, isinstance(getattr(row, name), str), "give a text") for name in ("group", "version")]
        require(where, row, texts)
        recipe = _recipe_of(study, row)
        if not isinstance(recipe, Recipe):
            raise InputError(where, f"has the recipe {recipe!r:.60}", "write it as Recipe(size=224, ...)")
        if isinstance(recipe.loss, str):
            choose(where, "loss", recipe.loss, [*LOSSES])
        if not isinstance(row.network, str):
            row = replace(row, for_task=_task_of_callable(study, where, row, here))
        if row.task.name in study.also_after and recipe.schedule not in BY_EPOCHS_SO_FAR:
            problem = f"has schedule={recipe.schedule!r}, which depends on the number of epochs, beside also_after"
            raise InputError(where, problem, f"choose one of {', '.join(BY_EPOCHS_SO_FAR)}")
        rows[name] = row
    scenes = [name for name, row in rows.items() if row.task is SEGMENTATION]
    if 0 < len(scenes) < len(rows) and not isinstance(study.data, list | tuple):
        others = ", ".join(name for name in rows if name not in scenes)
        problem = f"has rows whose networks segment ({', '.join(scenes)}) and others ({others}) on one set of data"
        raise InputError(study.where, problem, "make a study of each kind, or correct the networks' names")
    return rows


def _recipe_of(study: Study, row: Row) -> Recipe:
    return study.recipe if row.recipe is None else row.recipe


def _task_of_callable(study: Study, where: str, row: Row, here: Path) -> TaskName:
    """What a callable's network is for: what the row says, or the data; where these are a folder that is not described,
    what the rows with names are for, or what lies there."""
    if row.for_task is not None:
        choose(where, "for_task", row.for_task, TaskName)
        return row.for_task
    if isinstance(study.data, str | os.PathLike):
        names = [r.network for r in study.rows.values() if isinstance(r, Row)]
        tasks = {task_of(name).name for name in names if isinstance(name, str)}
        folder = here / Path(study.data).expanduser()
        named = isinstance(study.classes, list | tuple)  # of pictures there is a number of classes at most
        scenes = named or any(map(os.path.exists, (folder / name for name in _OF_SCENES)))
        return tasks.pop() if len(tasks) == 1 else "segmentation" if scenes else "classification"
    sources: Any = study.data if isinstance(study.data, list | tuple) else [study.data]
    given: set[TaskName] = {source.task for source in sources}
    if len(given) != 1:
        hint = 'say for_task="classification" or for_task="segmentation"'
        raise InputError(where, "has a callable in a study with data of both tasks", hint)
    return given.pop()


def sources_of(study: Study, here: Path) -> dict[str, Source]:
    """Where the pictures of each task come from, by its name, with absolute folders.

    Raises:
        InputError: a task has none, or they are described by what does not fit.
    """
    sources: dict[str, Source] = {}
    for source in _given(study):
        if source.task in sources:
            raise InputError(study.where, f"has two sets of data for {source.task}", "make a study of each")
        if isinstance(source, Pictures | Scenes):
            source = replace(source, folder=(here / Path(source.folder).expanduser()).absolute())
        if isinstance(source, Pictures):
            largest = max((_recipe_of(study, r).size for r in study.rows.values()), default=0)
            resize = largest * 4 // 3 if source.resize is None else source.resize
            if not _is_side(resize):
                _refuse_resize(study, resize, "give the shorter side in pixels")
            source = replace(source, resize=resize, classes=_count_classes(study, source))
        if isinstance(source, Scenes) and source.resize is not None:
            size = source.resize
            if not isinstance(size, list | tuple) or len(size) != 2 or not all(map(_is_side, size)):
                _refuse_resize(study, size, "give (height, width) in pixels")
            source = replace(source, resize=(size[0], size[1]))
        sources[source.task] = source
    for task in {row.task.name: row for row in study.rows.values()}:
        if task not in sources:
            raise InputError(study.where, f"has no data for its rows of {task}", "add them to data")
    return sources


def _given(study: Study) -> list[Any]:
    """The study's data as a list of sources."""
    if isinstance(study.data, str | os.PathLike):
        scenes = next(iter(study.rows.values())).task.name == "segmentation"
        kind: Any = Scenes if scenes else Pictures
        return [kind(study.data, resize=study.resize, classes=study.classes)]
    for name in ("classes", "resize"):
        if (given := getattr(study, name)) is not None:
            raise InputError(study.where, f"has {name}={given!r:.40} beside its data", f"give {name} with it")
    return [*study.data] if isinstance(study.data, list | tuple) else [study.data]


def _refuse_resize(study: Study, resize: object, hint: str) -> None:
    raise InputError(study.where, f"has resize={resize!r:.40}", f"{hint}, 16 to {_LARGEST_SIDE}")


def _is_side(value: object) -> TypeGuard[int]:
    """Whether pictures may be scaled to a side of so many pixels."""
    return type(value) is int and 16 <= value <= _LARGEST_SIDE


def _count_classes(study: Study, source: Pictures) -> int:
    """How many classes pictures have. A folder that is no such folder is named when it is read."""
    if source.classes is not None:
        if type(source.classes) is not int or not 2 <= source.classes <= _MOST_CLASSES:
            raise InputError(study.where, f"has classes={source.classes!r:.40}", f"give 2 to {_MOST_CLASSES}")
        return source.classes
    try:
        found = sum(entry.is_dir() for entry in visible(Path(source.folder) / "train"))
    except (InputError, OSError):
        found = 2
    return min(max(found, 2), _MOST_CLASSES)


def completed(study: Study, sources: Mapping[str, Source]) -> list[Row]:
    """The rows with all that they left to the study.

    Raises:
        InputError: a row has a setting that does not go with its network, its task or its data.
    """
    return [_completed(study, name, row, sources[row.task.name]) for name, row in study.rows.items()]


def _completed(study: Study, name: str, row: Row, source: Source) -> Row:
    where, recipe, task = f"{study.where}, row {name}", _recipe_of(study, row), row.task
    built = not isinstance(row.network, str)
    if built and row.start in ("imagenet", "random"):
        raise InputError(where, f"has start={row.start!r}, which its callable decides", "leave it out")
    choose(where, "start", row.start, ["as built"] if built else ["imagenet", "random"])
    if row.version and not built:
        raise InputError(where, f"has version={row.version!r:.40}, which callables have", "leave it out")
    choose(where, "trained", row.trained, Trained)
    choose(where, "batch_norm", row.batch_norm, BatchNorm)
    augmentation = task.augmentations[0] if row.augmentation is None else row.augmentation
    modules = [getattr(kind, "__module__", "") for kind in type(augmentation).__mro__]
    if not any(module.startswith("torchvision.transforms.v2") for module in modules):  # which need not be imported
        choose(where, "augmentation", augmentation, [*task.augmentations])
    elif row.flip is not None:
        hint = "leave flip out, and put RandomHorizontalFlip into the transform"
        raise InputError(where, "has flip, which is for built-in augmentations", hint)
    choose(where, "flip", row.flip, [None, True, False])
    if row.corruption is not None:
        _check_corruption(where, row.corruption, task.name)
    merge: Merge | None = None
    skips = row.skips
    if task.name == "classification":
        if skips is not None or row.classes is not None or row.merge is not None:
            raise InputError(where, "has skips, classes or merge, which are segmentation's", "leave them out")
        classes = source.classes if isinstance(source, Pictures) and source.classes is not None else 2
    else:
        fcn8s = isinstance(row.network, str) and row.network.startswith("fcn8s/")
        if skips is not None and not fcn8s:
            raise InputError(where, "has skips, which are FCN8s's", "leave them out")
        if fcn8s:
            skips = True if skips is None else skips
            choose(where, "skips", skips, [True, False])
        merge, classes = _classes_of(study, where, row, source)
        if fcn8s and recipe.size % 32:
            raise InputError(where, f"trains at {recipe.size} px", "use a multiple of 32 for FCN8s")
    filled: dict[str, Any] = {"augmentation": augmentation, "skips": skips, "classes": classes, "merge": merge}
    if not isinstance(row.network, str):  # kept: a process elsewhere may not have the files
        filled["source"] = source_of(row.network, row.version)
    filled["augmentation_source"] = digest_of_text(augmentation)
    return replace(row, name=name, study=study.name, recipe=recipe, **filled)


def check_controls(study: Study) -> None:
    """Refuses negative controls that cannot be trained as they say, or not told apart; raises InputError."""
    known = {*study.rows}
    for control in study.controls:
        if not isinstance(control, Control):
            raise InputError(study.where, f"has the control {control!r:.60}", "write it as Control(name=..., ...)")
        check_name(control.name, "control")
        where = f"{study.where}, control {control.name}"
        choose(where, "row", control.row, [*study.rows])
        numbers = isinstance(control.strengths, list | tuple) and len(control.strengths) > 0
        required = (
            ("words", isinstance(control.words, str), "give a text"),
            ("strengths", numbers, "write them as (0.2, 0.1), the one that has to be caught first"),
            ("changes", isinstance(control.changes, Mapping), 'write them as {"start": "random"}'),
            ("lr", isinstance(control.lr, bool), "give True or False"),
        )
        require(where, control, required)
        if study.train is not None and (control.corrupts or control.lr or len(control.strengths) > 1):
            raise InputError(where, "corrupts training data or a recipe that train has not", "give it changes=")
        for strength in control.strengths:
            row = _checked_control(study, where, control, strength)
            if row.name in known:
                hint = "give the control another name, and its strengths other values"
                raise InputError(where, f"makes the row {row.name}, which there is already", hint)
            known.add(row.name)


def _checked_control(study: Study, where: str, control: Control, strength: float) -> Row:
    """The corrupted row; raises InputError."""
    base = study.rows[control.row]
    try:
        control.words.format(strength)
    except (LookupError, ValueError) as error:
        hint = 'write "{:.0%}" or "{:g}" where the strength belongs, or none'
        raise InputError(where, f"has words={control.words!r:.60}, which do not take {strength!r:.40}", hint) from error
    if isinstance(base, CustomRow):
        for name, value in control.changes.items():
            choose(where, "changes", name, [*base.columns])
            _check_setting(where, name, value)
    else:
        for name in control.changes:
            choose(where, "changes", name, [*_CHANGED])
        network = control.changes.get("network", base.network)
        if network is not base.network and not (isinstance(network, str) and task_of(network) is base.task):
            raise InputError(where, f"has network={network!r:.60}", f"name one for {base.task.name}")
        if control.lr and not (is_number(strength) and strength > 0):
            problem = f"multiplies the learning rate by {strength!r:.40}"
            raise InputError(where, problem, "give a number above 0")
    row = control.of(study, strength)
    if not isinstance(base, CustomRow):
        if not isinstance(row.recipe, Recipe):
            raise InputError(where, f"has the recipe {row.recipe!r:.60}", "write it as Recipe(size=224, ...)")
        name, source = f"{control.name} (a control)", study.sources[row.task.name]
        _completed(study, name, replace(row, classes=OF_THE_STUDY), source)
    if row.settings() == base.settings():
        hint = "give it corrupts=, or changes= and strengths= that change something"
        raise InputError(where, f"trains {base.name} as it is", hint)
    return row


def _check_corruption(where: str, corruption: object, task: TaskName) -> None:
    """Refuses what no training data of a task can be corrupted by; raises InputError."""
    if not isinstance(corruption, Corruption):
        raise InputError(where, f"has corruption={corruption!r:.60}", 'write it as Corruption("label noise", 0.1)')
    kind, strength, classes = corruption
    choose(where, "corrupts", kind, CorruptionKind)
    wanted, hint = CORRUPTED[kind]
    if wanted not in (None, task):
        raise InputError(where, f"has {kind}, which is for {wanted}", f"choose a row of {wanted}")
    pixels, all_of = kind == "mask shift", kind != "smaller training set"
    if not (is_number(strength) and (strength >= 1 if pixels else 0 < strength < 1 or (strength == 1 and all_of))):
        raise InputError(where, f"has {kind} with a strength of {strength!r:.40}", f"give {hint}")
    if len(classes or ()) != 2 * (kind == "classes swapped"):
        raise InputError(where, f"has classes={classes!r:.60}", "name two for classes swapped, else none")


def _classes_of(study: Study, where: str, row: Row, source: Source) -> tuple[Merge, int]:
    """Which classes of its data a row of segmentation merges, and how many are left."""
    assert not isinstance(source, Pictures)
    if not source.names:
        raise InputError(study.where, "does not say which classes its scenes have", "name them with its data")
    merge, merged = checked_merge(where, source.names, getattr(source, "merge", {}) if row.merge is None else row.merge)
    if row.classes is not None and (type(row.classes) is not int or row.classes != len(merged.names)):
        problem = f"has classes={row.classes!r:.40}, and its data {len(merged.names)}"
        raise InputError(where, problem, "leave it out; merge={new: [class, ...]} makes fewer")
    if row.corruption is not None and not set(row.corruption.classes) <= set(source.names):
        problem = f"corrupts {', '.join(row.corruption.classes)}, which are not all classes"
        raise InputError(where, problem, f"choose among {', '.join(source.names)}")
    return merge, len(merged.names)


# With a training loop of the study's own


def takes_a_run(train: object) -> bool:
    """Whether it can be called with one argument."""
    try:
        return callable(train) and inspect.signature(train).bind(None) is not None
    except (TypeError, ValueError):  # ValueError: it has no signature, as what is written in C
        return callable(train) and not inspect.isroutine(train)


def check_custom(study: Study) -> None:
    """Refuses what does not go with a training loop of the study's own; raises InputError."""
    ours = {"data": OF_THE_STUDY, "recipe": Recipe(), "classes": None, "resize": None, "metrics": {}}
    for name, left_out in ours.items():
        if getattr(study, name) != left_out:
            hint = "leave it out: " + ("yield the figure" if name == "metrics" else "train has its own")
            raise InputError(study.where, f"has {name}, which cannot go with train", hint)
    if not study.primary:
        raise InputError(study.where, "has train and no primary", 'name its first figure, as primary="accuracy"')
    for name in (study.primary, *study.lower_is_better, *study.shares):
        check_name(name, "figure")
    claimed = [claim.metric for claim in study.claims if isinstance(claim, Claim)]
    for name in dict.fromkeys((study.primary, *claimed)):
        if name not in study.lowest:
            check_direction(name, study.where, 5)
    for name, settings in study.rows.items():
        check_name(name, "row")
        where = f"{study.where}, row {name}"
        if isinstance(settings, Row) or not isinstance(settings, Mapping):
            raise InputError(where, f"is {settings!r:.60}", 'write it as its settings, {"depth": 2}, beside train')
        for setting, value in settings.items():
            check_name(setting, "setting")
            _check_setting(where, setting, value)


def check_direction(name: str, where: str, level: int = 2) -> None:
    """Warns where the lowest of a figure may be the best, by its name, and the highest counts."""
    if _LOW.search(name) and not _TURNED.match(name):
        way = f"lower_is_better={{{name!r}}} (cvhw4 judge: --lower {name})"
        warnings.warn(
            f"{where}: the highest {name} counts as the best; if the lowest is, write {way}.", stacklevel=level
        )


def _check_setting(where: str, setting: str, value: object) -> None:
    try:
        plain(value)
    except ValueError as error:
        hint = "give a number, text, list, dict, function or class, or make the object in train from such"
        raise InputError(where, f"has {setting}={value!r:.60}, which {error}", hint) from error


def custom_rows(study: Study) -> list[CustomRow]:
    """The rows of a training loop of the study's own."""
    claimed = (claim.metric for claim in study.claims if isinstance(claim, Claim))
    shared: dict[str, Any] = {
        "study": study.name,
        "columns": tuple(dict.fromkeys(setting for settings in study.rows.values() for setting in settings)),
        "primary": study.primary,
        "shown": tuple(dict.fromkeys(m for m in (*claimed, *sorted(study.lower_is_better)) if m != study.primary)),
        "shares": frozenset(study.shares),
    }
    return [CustomRow(name=row, values=dict(s), plain=plain(s), **shared) for row, s in study.rows.items()]
