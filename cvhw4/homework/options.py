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
        "--redraw",
        action="store_true",
        help="each seed draws generated pictures of its own: intervals are about others too",
    )


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _homework(config: pytest.Config) -> Study:
    """The study at the size and on the data that the options name."""
    made = study(
        config.getoption("profile"),
        portraits=config.getoption("portraits"),
        camvid=config.getoption("camvid"),
        redraw=config.getoption("redraw"),
        bounds=config.rootpath / BOUNDS,
    )
    if config.getoption("redraw") and not any(isinstance(source, Generated) for source in made.sources.values()):
        raise InputError("--redraw", "draws generated pictures anew, and none are used", "leave it out")
    return made


homework = FromOptions(_homework)  # for `pytest.mark.study`
