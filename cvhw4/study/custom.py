"""Studies with a training loop of their own: what goes with it, and the rows that are made of their settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError
from cvhw4.study.checks import check_name
from cvhw4.study.claims import Claim
from cvhw4.study.functions import plain
from cvhw4.study.recipe import Recipe
from cvhw4.study.rows import OF_THE_STUDY, CustomRow, Row

if TYPE_CHECKING:
    from cvhw4.study.study import Study


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
    for name, settings in study.rows.items():
        check_name(name, "row")
        where = f"{study.where}, row {name}"
        if isinstance(settings, Row) or not isinstance(settings, Mapping):
            raise InputError(where, f"is {settings!r:.60}", 'write it as its settings, {"depth": 2}, beside train')
        for setting, value in settings.items():
            check_name(setting, "setting")
            try:
                plain(value)
            except ValueError as error:
                hint = "give a number, text, list, dict, function, class or object"
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
