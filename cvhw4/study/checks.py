"""What names, numbers and choices have to be: for the checks of a study, which are all made when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeGuard, get_args

from cvhw4.errors import InputError

MOST = 1e100  # of a number: one beyond is not a measurement, and a float does not hold its square


def is_name(name: object) -> TypeGuard[str]:
    """Whether it can be part of the name of a file or a test."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII) is not None


def check_name(name: object, of: str) -> None:
    """Refuses what cannot be part of the name of a file or a test.

    Raises:
        InputError: it cannot; the message says what is named (`of`).
    """
    if not is_name(name):
        shown = name if isinstance(name, str) else f"{name!r:.60}"
        hint = "use a to z, A to Z, digits and _.+-, a letter or digit first"
        raise InputError(shown, f"is not a valid {of} name", hint)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a plain number that a record holds, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number of at least so much, and no bool."""
    return type(value) is int and value >= least


def choose(where: str, name: str, value: object, choices: Any) -> None:
    """Refuses what is none of the choices, a list or a Literal; raises InputError."""
    among = choices if isinstance(choices, list) else get_args(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in among):
        raise InputError(where, f"has {name}={value!r:.60}", f"choose one of {', '.join(map(str, among))}")


def require(where: str, owner: object, fields: Iterable[tuple[str, bool, str]]) -> None:
    """Refuses the first field that does not fit, of those given by name, whether they do, and hint; raises
    InputError."""
    for name, fits, hint in fields:
        if not fits:
            raise InputError(where, f"has {name}={getattr(owner, name)!r:.60}", hint)
