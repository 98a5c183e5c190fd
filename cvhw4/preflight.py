"""Every check of what the user gave, before anything is trained: options, folders, pictures, networks, metrics."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError, Unavailable
from cvhw4.records.environment import OTHERS
from cvhw4.records.store import grouped
from cvhw4.study import Row, Scenes, Study
from cvhw4.study.checks import choose
from cvhw4.training.process import importing, prepare_process

if TYPE_CHECKING:
    from cvhw4.data.dataset import Dataset
    from cvhw4.runner import Runner

_MOST_THREADS = 1024
_MOST_COUNTS = 4 << 30  # bytes


def check_options(runner: Runner) -> None:
    """Checks what holds for every study of a session: options, weights folder, device, and whether the results folder
    can be written to.

    Raises:
        InputError: an unusable folder, file or option.
    """
    choose("runner", "device", runner.device, ["auto", "cpu", "cuda", *OTHERS])
    choose("runner", "precision", runner.precision, [None, "auto", "float32", "bf16"])
    if runner.threads is not None and not 1 <= runner.threads <= _MOST_THREADS:
        hint = f"give 1 to {_MOST_THREADS}; as many as there are cores is best"
        raise InputError(f"--threads {runner.threads}", "is not a number of threads", hint)
    if runner.checkpoint_seconds is not None and not 0 <= runner.checkpoint_seconds < float("inf"):
        where = f"--checkpoint-seconds {runner.checkpoint_seconds:g}"
        raise InputError(where, "is not a number of seconds", "give 0 for no checkpoints, or more")
    if runner.cuda_graphs and runner.device not in ("auto", "cuda"):
        raise InputError("--cuda-graphs", f"cannot go with --device {runner.device}", "leave one of them out")
    if runner.deterministic and runner.device in OTHERS:
        problem = f"cannot go with --device {runner.device}, of whose kernels nothing is known"
        raise InputError("--deterministic", problem, "leave one of them out")
    if runner.weights is not None and not os.path.isdir(runner.weights):
        raise InputError(runner.weights, "is not a folder", "give --weights a folder with files of weights")
    _check_results(runner.results)
    if runner.device not in ("auto", "cpu") or runner.precision == "bf16":
        from cvhw4.training.device import pick_device
        from cvhw4.training.precision import pick_precision

        prepare_process()
        with importing():
            pick_precision(runner.precision, pick_device(runner.device))


def check_study(runner: Runner) -> None:
    """Checks the runner's study: its metrics, its pictures where they are real, its networks and recipes, and the
    files in the weights folder that are for them. Warns of rows that nothing but their names sets apart.

    Raises:
        InputError: something does not fit, or cannot be read.
    """
    study = runner.study
    if study.tables:
        from cvhw4.report.papers import style_of

        for name, raw in study.tables.items():
            style_of(raw, f"study {study.name}, table {name}")
    warn_of_equal_rows(study)
    if study.train is not None:
        return  # all that is known of its own training loop was checked when it was made
    _check_metrics(study)
    for name, source in study.sources.items():
        if hasattr(source, "folder"):
            _check_size(study, name, runner)
            _check_corruptions(study, name, runner)
    prepare_process()
    with importing():
        from cvhw4.training.recipe import check_recipe

    for row in _rows(study):
        try:
            check_recipe(row.recipe, row.task, row.classes, graphs=runner.cuda_graphs)
        except InputError as error:
            where = f"study {study.name}, row {row.name}, {error.where}"
            raise InputError(where, error.problem, error.hint) from error
    _check_transforms(runner)
    _check_networks(runner)


def _rows(study: Study, task: str | None = None) -> list[Row]:
    """A study's rows with its negative controls, at every strength; of one task, or of all."""
    every = {row.name: row for row in (*study.rows.values(), *study.in_group("control"))}
    return [row for row in every.values() if task in (None, row.task.name)]


def warn_of_equal_rows(study: Study) -> None:
    """Warns of rows that are of one task and have equal settings, and the same functions and classes with them."""

    def key(row: Row) -> tuple[str, str, str]:
        loss = getattr(getattr(row.recipe, "loss", None), "function", None)
        called = _called([row.network, row.augmentation, loss, getattr(row, "values", ())])
        return row.task.name, json.dumps(row.settings(), sort_keys=True), str(called)

    alike = grouped(study.rows.values(), key)
    for rows in (of for of in alike.values() if len(of) > 1):
        names = " and ".join(row.name for row in rows)
        hint = "give one the setting that should set it apart, or leave it out"
        warnings.warn(f"{study.where}: rows {names} have equal settings and train alike; {hint}.", stacklevel=3)


def _called(value: Any) -> Any:
    """Which functions, classes and objects that can be called there are: several may have one text, as two lambdas in a
    line or a class made twice in a function."""
    if isinstance(value, Mapping | list | tuple):
        return [_called(inner) for inner in (value.values() if isinstance(value, Mapping) else value)]
    return id(value) if callable(value) else None


def _check_networks(runner: Runner) -> None:
    """Builds and tries every row's network, and reads the files in the weights folder that are for them; raises
    InputError."""
    from cvhw4.models.names import take_apart
    from cvhw4.models.trial import try_network
    from cvhw4.models.weights import check_weights

    rows = _rows(runner.study)
    pretrained = set()
    for row in rows:
        if not isinstance(row.network, str):
            continue
        if row.start == "imagenet":
            pretrained.add(row.network)
        found = take_apart(row.network)
        if found.written not in ("", found.name):
            warnings.warn(f"{row.study}, row {row.name}: timm now calls {found.written} {found.name}.", stacklevel=2)
    if runner.weights is not None:
        check_weights(runner.weights, pretrained)
    for row in rows:
        images = None
        if hasattr(runner.study.sources[row.task.name], "folder"):
            with suppress(Unavailable):
                images = len(runner.data(row.task.name).train)
        try_network(row, images)


def _check_size(study: Study, task: str, runner: Runner) -> None:
    """Refuses scenes that are smaller than what is cut out of them; raises InputError."""
    source = study.sources[task]
    try:
        dataset = runner.data(task)
    except Unavailable:
        return
    if dataset.task == "segmentation":
        _check_counts(study, task, dataset)
    if isinstance(source, Scenes):
        height, width = dataset.train.images.shape[1:3]
        needed = max(row.recipe.size for row in _rows(study, task))
        if min(height, width) < needed:
            problem = f"has scenes of {width}x{height}, and {needed} pixels a side are cut out"
            raise InputError(source.folder, problem, f"give pictures of at least {needed} pixels a side")


def _check_corruptions(study: Study, task: str, runner: Runner) -> None:
    """Refuses negative controls that leave nothing to train on; raises InputError."""
    from cvhw4.data.corruption import check_corruption

    for row in _rows(study, task):
        if row.corruption is not None:
            try:
                check_corruption(runner.data(task), row.corruption)
            except InputError as error:
                where = f"study {study.name}, row {row.name}, {error.where}"
                raise InputError(where, error.problem, error.hint) from error


def _check_transforms(runner: Runner) -> None:
    """Calls each row's own transform with a few of its training pictures, those of the shortest sides; raises
    InputError where it cannot be used."""
    from cvhw4.data.augment import stream, transformed
    from cvhw4.data.gather import gather

    for row in _rows(runner.study):
        if not callable(row.augmentation):
            continue
        try:
            split = runner.data(row.task.name).train
        except Unavailable:
            continue
        import numpy as np
        import torch

        few = np.argsort(np.asarray(split.sizes).min(1), kind="stable")[:8]
        targets = gather(split.targets, few) if row.task.name == "segmentation" else None
        sizes, numbers = torch.from_numpy(np.asarray(split.sizes[few])), torch.from_numpy(few)
        try:
            images, draws = gather(split.images, few), stream(0, "augmentation", 0)
            transformed(row.augmentation, images, sizes, row.recipe.size, numbers, draws, targets)
        except InputError as error:
            where = f"study {runner.study.name}, row {row.name}, {error.where}"
            raise InputError(where, error.problem, error.hint) from error


def _check_counts(study: Study, task: str, dataset: Dataset) -> None:
    """Refuses more classes, scenes and epochs than memory holds the counts of pixels of; raises InputError."""
    for row in _rows(study, task):
        cells = 2 * (len(dataset.classes) + 1) * row.classes * len(dataset.val) * row.recipe.epochs
        if (needed := 4 * cells) > _MOST_COUNTS:
            problem = (
                f"counts the pixels of {len(dataset.classes)} labels as {row.classes} classes in {len(dataset.val)} "
                f"scenes after {row.recipe.epochs} epochs, which takes {needed / 2**30:.0f} GiB of memory"
            )
            hint = f"merge classes, or validate fewer scenes or epochs: {_MOST_COUNTS >> 30} GiB are the most"
            raise InputError(f"study {study.name}, row {row.name}", problem, hint)


def _check_results(results: Path) -> None:
    """Whether the results folder is one, or can be made, and can be written to."""
    try:
        os.lstat(results)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(results, f"cannot be used ({error.strerror})", "choose another --results") from error
    else:
        if not os.path.isdir(results):
            raise InputError(results, "is not a folder", "give --results a folder, existing or new")
    nearest = next(p for p in (results.absolute(), *results.absolute().parents) if os.path.lexists(p))
    if not os.path.isdir(nearest):
        raise InputError(nearest, "is not a folder", "choose another folder with --results")
    if not os.access(nearest, os.W_OK):
        raise InputError(nearest, "cannot be written to", "choose another folder with --results")


def _check_metrics(study: Study) -> None:
    """Calls the study's own metrics on made-up predictions: some of them wrong, and all of one class, as of a network
    that collapsed."""
    if not study.metrics:
        return
    import numpy as np

    from cvhw4.metrics import own_figure

    for task, classes in {(row.task.name, row.classes) for row in study.rows.values()}:
        scenes = task == "segmentation"
        labels = np.repeat(np.arange(classes), 2)
        some_wrong = np.where(np.arange(len(labels)) % 4 == 3, labels - 1, labels)
        alike = [
            (np.full_like(labels, c), f" where every {'pixel' if scenes else 'image'} is predicted as class {c}")
            for c in (0, classes - 1)  # so that each class is missing once
        ]
        for predicted, where in [(some_wrong, ""), *alike]:
            evidence = [labels, predicted]
            if scenes:
                matrix = np.bincount(labels * classes + predicted, minlength=classes**2)
                evidence = [matrix.reshape(classes, classes)]
            scores = np.linspace(0.05, 0.15, len(labels) * classes, dtype=np.float32).reshape(-1, classes)
            if where:
                scores[:] = scores[0]
            scores[np.arange(len(labels)), predicted] += 0.5
            scores /= scores.sum(1, keepdims=True)
            for name, metric in study.metrics.items():
                of_scores = [labels, scores[:, 1] if classes == 2 else scores]
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        own_figure(name, metric, *(of_scores if metric.of == "scores" else evidence))
                except InputError as error:
                    raise InputError(error.where, error.problem + where, error.hint) from error
