"""What checks the types of records: pydantic; where that is missing, a stand-in that checks nothing.

The package requires pydantic. The stand-in is for machines on which nothing can be installed, such as a GPU machine
without a network that runs from the tree: they read what they have written themselves.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from json import loads
from types import NoneType
from typing import Any, get_args, get_type_hints

try:
    from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, WrapValidator
    from pydantic_core import from_json
except ImportError:

    def from_json(data: Any, *, allow_inf_nan: bool = True) -> Any:  # type: ignore[misc]
        """A JSON text as plain values."""
        return loads(data)

    Field = AfterValidator = WrapValidator = lambda *_, **__: None  # type: ignore[misc, assignment]

    class ValidationError(ValueError):  # type: ignore[no-redef]
        """What is never raised here."""

    class TypeAdapter:  # type: ignore[no-redef]
        """Makes dataclasses of plain JSON values; null is NaN where a number is expected."""

        def __init__(self, kind: Any) -> None:
            self.kind = kind

        def validate_python(self, value: Any) -> Any:
            """The value as the kind."""
            return _made(self.kind, value)

        def validate_json(self, text: str | bytes, *, strict: bool = True) -> Any:
            """The same of a JSON text."""
            return self.validate_python(loads(text))


__all__ = ["AfterValidator", "Field", "TypeAdapter", "ValidationError", "WrapValidator", "from_json"]


def _made(kind: Any, value: Any) -> Any:
    arguments = [a for a in get_args(kind) if a is not NoneType]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _made(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value})  # type: ignore[operator]
    if isinstance(value, list) and arguments:
        return [_made(arguments[0], inner) for inner in value]
    if isinstance(value, dict) and len(arguments) == 2:
        return {name: _made(arguments[1], inner) for name, inner in value.items()}
    if isinstance(value, dict) and len(arguments) == 1:  # an object, or None
        return _made(arguments[0], value)
    return math.nan if value is None and kind is float else value
