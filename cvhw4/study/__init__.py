"""A study as plain data: rows, data, recipe, metrics, claims, controls, bounds and sections of its pages.

A `Study` is what everything else works on: pytest's plugin, the runner, a cluster and the pages get the same object and
ask it, never for its name. Whatever does not fit together is an InputError when it is made. Nothing here imports torch.
"""

from cvhw4.study.checks import is_name
from cvhw4.study.claims import Claim, Control, Operand
from cvhw4.study.functions import Loss, Metric, unwrapped
from cvhw4.study.recipe import Precision, Recipe
from cvhw4.study.rows import Corruption, CustomRow, Fit, Published, Row, Run
from cvhw4.study.sources import Generated, NotGiven, Pictures, Scenes, Source
from cvhw4.study.study import EpochRule, FromOptions, Study

__all__ = [
    "Claim", "Control", "Corruption", "CustomRow", "EpochRule", "Fit", "FromOptions", "Generated", "Loss", "Metric",
    "NotGiven", "Operand", "Pictures", "Precision", "Published", "Recipe", "Row", "Run", "Scenes", "Source", "Study",
    "is_name", "unwrapped",
]  # fmt: skip
