"""Ablation studies in computer vision that a build can check: a benchmark and ablation harness on pytest.

What is exported here is the public interface, for experiments of your own: an `Ablation` is a table of `Row`s with
their `Recipe`, metrics and `Claim`s; `pytest.mark.ablation` runs it, with the fixtures of `cvhw4.pytest_plugin`. All
else is internal and may change with any version: what modules share among themselves, and below that, with an
underscore, what each keeps to itself.

`Train` and `Judged` are the types of the fixtures `train` and `judged`. Importing this loads neither torch nor pandas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cvhw4.ablation import Ablation, Row
from cvhw4.claims import Claim
from cvhw4.errors import InputError
from cvhw4.experiments import Experiment, Recipe
from cvhw4.records.schema import RunRecord

if TYPE_CHECKING:
    from cvhw4.statistics.verdicts import Outcome

__all__ = [
    "Ablation",
    "Claim",
    "Experiment",
    "InputError",
    "Judged",
    "Outcome",
    "Recipe",
    "Row",
    "RunRecord",
    "Train",
]
__version__ = "0.1.0"

Train = Callable[[Experiment, int], RunRecord]
Judged = Callable[[Claim], "Outcome"]


def __getattr__(name: str) -> Any:
    if name == "Outcome":  # NumPy comes with it
        from cvhw4.statistics.verdicts import Outcome

        return Outcome
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
