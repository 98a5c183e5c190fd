"""What the tests of readers of files share: how bad input is answered."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cvhw4.errors import InputError


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file's content and every folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def steps(*functions: Callable[[Path], object]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        for function in functions:
            function(path)

    return run


def check_refused(read: Callable[[], object], around: Path, named: str, problem: str, hint: str) -> None:
    """Whether reading raises an InputError about a path that ends so, with these parts, and changes nothing."""
    before = snapshot(around)
    with pytest.raises(InputError) as caught:
        read()
    assert Path(caught.value.where).as_posix().endswith(named)
    assert problem in caught.value.problem and hint in caught.value.hint
    assert snapshot(around) == before
