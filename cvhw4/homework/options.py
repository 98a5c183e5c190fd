"""The homework's own options of pytest, and its study as they choose it.

Loaded by `pytest_plugins = ["cvhw4.plugin", "cvhw4.homework.options"]`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cvhw4 import FromOptions, Generated, InputError, Study
from cvhw4.homework import BOUNDS, SIZES, study


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds them."""
    group = parser.getgroup("homework", "the 2019 report's experiments")
    group.addoption("--profile", choices=sorted(SIZES), default="quick", help="size of its rows (default: quick)")
    group.addoption("--portraits", type=_path, metavar="DIR", help="Q1 on DIR/{train,val}/<class>/, not generated ones")
    group.addoption("--camvid", type=_path, metavar="DIR", help="Q2 on a CamVid folder instead of generated scenes")
    group.addoption(
        "--same-pictures",
        action="store_true",
        help="all seeds see one set of generated pictures, without bounds (default: each seed draws its own, so that "
        "intervals are about other pictures too)",
    )


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _homework(config: pytest.Config) -> Study:
    """The study at the size and on the data that the options name."""
    made = study(
        config.getoption("profile"),
        portraits=config.getoption("portraits"),
        camvid=config.getoption("camvid"),
        redraw=not config.getoption("same_pictures"),
        bounds=config.rootpath / BOUNDS,
    )
    if config.getoption("same_pictures") and not any(isinstance(source, Generated) for source in made.sources.values()):
        raise InputError("--same-pictures", "is about generated pictures, and none are used", "leave it out")
    return made


homework = FromOptions(_homework)  # for `pytest.mark.study`
