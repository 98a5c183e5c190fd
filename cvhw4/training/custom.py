"""Runs a study's own training loop: its seeds, what it is given, and what it yields, checked epoch by epoch.

Nothing here imports torch: a loop that uses it does.
"""

from __future__ import annotations

import dis
import importlib.metadata
import importlib.util
import inspect
import math
import random
import sys
import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from cvhw4.errors import TrainingDiverged, TrainingFailed, printable
from cvhw4.records.schema import Epoch
from cvhw4.study import CustomRow, Fit, Run, is_name
from cvhw4.study.checks import MOST
from cvhw4.study.filling import check_direction

_ROUNDING = 1e-6  # by which a share may be beyond 0 or 1
_WRITE = 'let train yield a dict of figures after every epoch: yield {"accuracy": 0.9}'


def train_custom(
    train: Fit, row: CustomRow, run: Run, needed: Collection[str], on_epoch: Callable[[Epoch], None] | None
) -> list[Epoch]:
    """Calls a training loop, and takes what it yields.

    Args:
        needed: names of figures that it has to yield: the primary one, those of claims, those of which lower is better.
        on_epoch: called after each epoch.

    Raises:
        TrainingDiverged: a figure is not finite.
        TrainingFailed: it raised, or yielded something else than figures, always the same ones.
    """
    epochs: list[Epoch] = []
    where = f"{row.name}, seed {run.seed}"
    steps = _steps(train, run, where)
    try:
        began = time.perf_counter()
        for number, yielded in enumerate(steps, 1):
            seconds = time.perf_counter() - began
            first = epochs[0].figures if epochs else None
            figures = _figures(yielded, first, needed, row.shares, f"{where}, epoch {number}", number)
            for name in () if first else figures.keys() - needed - {"loss"}:
                check_direction(name, f"study {row.study}")
            whole = dict(epoch=number, lr=0.0, loss=math.nan, figures=figures, evaluate_seconds=0.0)
            epochs.append(Epoch(**whole, train_seconds=seconds))  # type: ignore[arg-type]
            if on_epoch is not None:
                on_epoch(epochs[-1])
            began = time.perf_counter()
    finally:
        steps.close()
    if not epochs:
        raise TrainingFailed(f"{where}: train yields nothing. Fix: {_WRITE}.")
    return epochs


def _steps(train: Fit, run: Run, where: str) -> Generator[Any]:
    """What a loop yields. What it raises is a TrainingFailed with the traceback of the user's part of it."""
    number = 1
    close: Callable[[], None] | None = None
    try:
        try:
            made = train(run)
            if isinstance(made, Mapping | str) or not isinstance(made, Iterable):
                what = f"returns {printable(f'{made!r:.60}')} and does not yield"
                raise TrainingFailed(f"{where}: train {what}. Fix: {_WRITE}.")
            close = getattr(made, "close", None)
            for yielded in made:
                number += 1
                yield yielded
        except TrainingFailed:
            raise
        except (Exception, SystemExit) as error:  # argparse exits
            raise _raised(error, f"{where}, epoch {number}", number) from error
    finally:
        if close is not None:
            with suppress(Exception):  # what ended it is known already
                close()


def _raised(error: BaseException, where: str, epoch: int) -> TrainingFailed:
    """The failure of a loop that raised."""
    inside = error.__traceback__.tb_next if error.__traceback__ else None  # without the line above that called it
    place = traceback.extract_tb(inside)[-1:]
    line = f" ({Path(place[0].filename).name}:{place[0].lineno})" if place else ""
    text = "".join(traceback.format_exception(type(error), error, inside or error.__traceback__))
    words = " ".join(str(error).split())
    said = f"train raises {type(error).__name__}{f': {words}' if words else ''}{line}"
    return TrainingFailed(f"{where}: {printable(said)}", epoch, traceback=text)


def _figures(
    yielded: object,
    first: Mapping[str, float] | None,
    needed: Collection[str],
    shares: Collection[str],
    where: str,
    epoch: int,
) -> dict[str, float]:
    """What a loop yielded, as figures.

    Args:
        first: the figures of its first epoch; None where these are they.
        shares: names of those that lie between 0 and 1.

    Raises:
        TrainingDiverged: one is not finite.
        TrainingFailed: it is something else than figures by name, one that is needed is missing, or they are others,
            or one of the study's shares is not between 0 and 1.
    """

    def failed(what: str, hint: str, kind: type[TrainingFailed] = TrainingFailed) -> TrainingFailed:
        return kind(f"{where}: train yields {what}. Fix: {hint}.", epoch)

    if not isinstance(yielded, Mapping) or not yielded:
        raise failed(printable(f"{yielded!r:.60}"), _WRITE)
    figures: dict[str, float] = {}
    for name, value in yielded.items():
        if not is_name(name):
            hint = "name figures with letters, digits and _.+-, a letter or digit first"
            raise failed(f"the figure {name!r:.60}", hint)
        try:
            if isinstance(value, bool | str | bytes):
                raise TypeError
            figures[name] = number = float(value)
        except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch's, of a tensor with many numbers
            what = f"{name}={printable(f'{value!r:.60}')}, which is not a number"
            raise failed(what, "yield float(...) of it") from error
        if not abs(number) <= MOST:
            hint = "look at what it is computed from; a training that diverges is better ended there"
            raise failed(f"{name}={number:g}", hint, TrainingDiverged)
        if name in shares and not -_ROUNDING <= number <= 1 + _ROUNDING:
            what = f"{name}={number:g}, which is one of the study's shares and not between 0 and 1"
            raise failed(what, "yield 0.83 for 83 %, or leave it out of shares")
    there = ", ".join(figures)
    if first is None and (missing := sorted({*needed} - figures.keys())):
        hint = "yield it after every epoch, or name another in the study's primary, lower_is_better and claims"
        raise failed(f"{there}, without {', '.join(missing)}", hint)
    if first is not None and first.keys() != figures.keys():
        what = f"{there}, and after its first epoch {', '.join(first)}"
        raise failed(what, "yield the same figures after every epoch")
    return figures


# Seeds


@contextmanager
def seeded(seed: int, threads: int | None = None) -> Iterator[None]:
    """Seeds `random`, NumPy and torch, torch as soon as it is imported if it is not yet. Afterwards the generators
    that were there are as before.

    Args:
        threads: that torch computes with on a CPU; None leaves it to torch.
    """

    def prepare(torch: Any) -> None:
        torch.manual_seed(seed)
        if threads is not None:
            torch.set_num_threads(threads)

    finder, torch = _WhenTorchComes(prepare), sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch is None:
        sys.meta_path.insert(0, finder)
    else:
        prepare(torch)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(finder)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch is not None:
            torch.set_rng_state(states[2])


class _WhenTorchComes(MetaPathFinder):
    """Does something with torch when it is imported: without that its generator begins alike for every seed."""

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self.then = then

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """torch as other finders find it, with what is to be done behind its own code."""
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_then(module: ModuleType) -> None:
                execute(module)
                self.then(module)

            spec.loader.exec_module = execute_then  # type: ignore[method-assign]
        return spec


# What a loop computes with


def packages_of(*functions: Callable[..., Any]) -> list[str]:
    """The installed packages that functions and classes use or import themselves; not those of functions they call."""
    roots = {root for function in functions for root in _roots(function)}
    found: set[str] = set()
    for root in roots - {"cvhw4", *sys.stdlib_module_names}:
        found |= {*_distributions().get(root, ())}
    return sorted(found)


@lru_cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _roots(function: Callable[..., Any]) -> set[str]:
    """The top-level modules that a function or class is of, names or imports."""
    given: list[Any] = []
    while isinstance(function, partial):
        given += [value for value in (*function.args, *function.keywords.values()) if callable(value)]
        function = function.func
    roots = {root for value in given for root in _roots(value)}
    known: Any = function if inspect.isroutine(function) or isinstance(function, type) else type(function)
    roots.add(str(getattr(known, "__module__", "")).partition(".")[0])
    kinds = known.__mro__[:-1] if isinstance(known, type) else ()
    methods = [getattr(value, "__func__", value) for kind in kinds for value in vars(kind).values()]
    for called in methods or [known]:
        code, values = getattr(called, "__code__", None), getattr(called, "__globals__", {})
        for inner in _codes(code) if isinstance(code, CodeType) else ():
            roots |= {str(i.argval).partition(".")[0] for i in dis.get_instructions(inner) if i.opname == "IMPORT_NAME"}
            for value in (values[name] for name in inner.co_names if name in values):
                name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                roots.add(str(name).partition(".")[0])
    return roots


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A code object, and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def gpus() -> list[str]:
    """The models of the machine's NVIDIA GPUs, by its driver, without torch."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with suppress(OSError):
            lines = path.read_text("utf-8", "replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found
