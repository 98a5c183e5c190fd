"""Designs that make the rows of a study: one thing left out at a time, or all combinations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, TypeVar

from cvhw4.errors import InputError
from cvhw4.study import Claim, Recipe, Row

Variant = TypeVar("Variant", Row, Mapping[str, Any])
_OF_ROW = {f.name for f in fields(Row)} - {"_", "name", "study", "corruption"}
_OF_RECIPE = {f.name for f in fields(Recipe)}


@dataclass(frozen=True)
class Factorial:
    """All combinations of k factors, each off or on: a full factorial design (Box, Hunter and Hunter 2005, chapter 5).

    Attributes:
        factors: their names.
        cells: by which of them are on, in that order, the name of the row: 2**k of them.
        rows: the rows by name, for `Study(rows=...)`; empty where the study has them already.
    """

    factors: tuple[str, ...]
    cells: Mapping[tuple[bool, ...], str]
    rows: Mapping[str, Any]


def leave_one_out(base: Variant, changes: Mapping[str, Any]) -> dict[str, Variant]:
    """The row "full", and for each change a row "without_<its name>" that has that change alone.

    Args:
        base: a `Row`, or the settings of a row of a study that trains by a function of its own.
        changes: by name the value without it, `{"skips": False, "augmentation": "none"}`. A name is that of a field of
            `Row` or `Recipe`, or any with a mapping of several of those: `{"steps": {"lr": 1e-3, "lr_step": 2}}`.

    Returns:
        The rows by name, for `Study(rows=...)`.

    Raises:
        InputError: a base or changes of another kind, a name that no row has, or that settings lack, a change that
            changes nothing, or one of a recipe where the row has none.
    """
    _check(base, changes)
    return {"full": base} | {f"without_{name}": _changed(base, name, value) for name, value in changes.items()}


def claims_without(changes: Iterable[str], metric: str) -> list[Claim]:
    """For each change of `leave_one_out` the claim that its part helps: "full" beats the row without it.

    Args:
        changes: their names, or the mapping that `leave_one_out` was given.
        metric: by which, as `Claim.metric`.
    """
    return [
        Claim(better="full", worse=f"without_{name}", metric=metric, sentence=f"{name} helps: {metric}")
        for name in changes
    ]


def factorial(base: Variant, changes: Mapping[str, Any]) -> Factorial:
    """A row for every combination of changes: "base" with none of them, then the names of those that are on, joined by
    "_"; `effects_section` makes a section of a study's page of it.

    Args:
        base: as `leave_one_out` takes it.
        changes: likewise; here a name's value is that with it.

    Raises:
        InputError: as `leave_one_out`; or there are no changes, two rows would have one name, or be trained alike.
    """
    _check(base, changes)
    if not changes:
        raise InputError("factorial", "has no changes", 'name some, as {"skips": True}')
    cells: dict[tuple[bool, ...], str] = {}
    rows: dict[str, Any] = {}
    for cell in product((False, True), repeat=len(changes)):
        on = [name for name, is_on in zip(changes, cell, strict=True) if is_on]
        row: Any = base
        for name in on:
            row = _changed(row, name, changes[name])
        cells[cell] = "_".join(on) or "base"
        if cells[cell] in rows:
            raise InputError(f"factorial, row {cells[cell]}", "is there twice", "give the changes other names")
        if row in rows.values():
            problem = "is trained as another row is, as one change undoes another"
            raise InputError(f"factorial, row {cells[cell]}", problem, "let each change set other settings")
        rows[cells[cell]] = row
    return Factorial(tuple(changes), cells, rows)


def _check(base: object, changes: object) -> None:
    if not isinstance(base, Mapping | Row):
        raise InputError("design", f"has base={base!r:.60}", 'give a Row, or settings as {"depth": 2}')
    if not isinstance(changes, Mapping):
        raise InputError("design", f"has changes={changes!r:.60}", 'write them as {"skips": False}')


def _changed(base: Any, name: str, value: Any) -> Any:
    """A row with one change."""
    of_row = isinstance(base, Row)
    known = _OF_ROW | _OF_RECIPE if of_row else base.keys()
    several = value if isinstance(value, Mapping) and name not in known else {name: value}
    row = base
    for setting, to in several.items():
        if setting not in known:
            whose = "no row has" if of_row else "the row has not"
            raise InputError(f"change {name}", f"sets {setting}, which {whose}", f"use {', '.join(sorted(known))}")
        if not of_row:
            row = {**row, setting: to}
        elif setting in _OF_ROW:
            row = replace(row, **{setting: to})
        elif row.recipe is None:
            raise InputError(f"change {name}", f"sets {setting} of a row without a recipe", "give the row recipe=...")
        else:
            row = replace(row, recipe=replace(row.recipe, **{setting: to}))
    if row == base:
        raise InputError(f"change {name}", f"is {value!r:.60}, which the row has already", "give another value")
    return row
