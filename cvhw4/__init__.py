"""Ablation studies in computer vision that a build can check: a benchmark and ablation harness on pytest.

What is exported here is the public interface, with the fixtures and hooks of `cvhw4.plugin` and what they are given:
docs/api.md lists all of it by what it is for. A `Study` is a table of `Row`s with their `Recipe`, data, metrics and
`Claim`s; `pytest.mark.study` runs it. With `Study(train=...)` the training loop is your own, and is given a `Run`. All
else is internal and may change with any version: what modules share among themselves, and below that, with an
underscore, what each keeps to itself.

For a study's own sections of the page of verdicts: a section is given an `Evidence` and returns paragraphs in Markdown,
made with `table` and `gain` of what `estimate`, `effects`, `decompositions`, `near_and_far`, `mean_iou_of` and
`segmentation_figures` find, and pictures made with `draw`; `stated` is a claim by published figures. `leave_one_out`
and `factorial` make the rows of a design, `claims_without` claims about the former and `effects_section` such a section
of the latter's effects. `results_table`, `claims_figure` and `curves_figure` are for papers: they take what
`stored("quick")` reads. `Study.table` and `Study.figure` (`stored_figure`, of sections' pictures too) read by
themselves.

`Train`, `Judged`, `Detected` and `Bounds` are the types of the fixtures `train`, `judged`, `detected` and `bounds`.
Importing this loads nothing else before a name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError

if TYPE_CHECKING:
    from cvhw4.camvid import CAMVID
    from cvhw4.designs import Factorial, claims_without, factorial, leave_one_out
    from cvhw4.metrics import segmentation_figures
    from cvhw4.records.schema import RunRecord
    from cvhw4.report.effects import effects_section
    from cvhw4.report.evidence import Evidence, Section
    from cvhw4.report.figures import Picture, draw
    from cvhw4.report.numbers import gain
    from cvhw4.report.page import stored_figure
    from cvhw4.report.papers import Style, results_table
    from cvhw4.report.plots import claims_figure, curves_figure
    from cvhw4.report.stored import stored
    from cvhw4.report.tables import table
    from cvhw4.statistics.bounds import Bounds
    from cvhw4.statistics.decomposition import decompositions, mean_iou_of, near_and_far
    from cvhw4.statistics.factorial import effects
    from cvhw4.statistics.intervals import Estimate, estimate
    from cvhw4.statistics.published import stated
    from cvhw4.statistics.verdicts import Outcome
    from cvhw4.study import (
        Claim,
        Control,
        Corruption,
        FromOptions,
        Generated,
        Loss,
        Metric,
        NotGiven,
        Pictures,
        Published,
        Recipe,
        Row,
        Run,
        Scenes,
        Study,
    )

    __version__: str

__all__ = [
    "CAMVID", "Bounds", "Claim", "Control", "Corruption", "Detected", "Estimate", "Evidence", "Factorial",
    "FromOptions", "Generated", "InputError", "Judged", "Loss", "Metric", "NotGiven", "Outcome", "Picture", "Pictures",
    "Published", "Recipe", "Row", "Run", "RunRecord", "Scenes", "Section", "Study", "Style", "Train", "claims_figure",
    "claims_without", "curves_figure", "decompositions", "draw", "effects", "effects_section", "estimate", "factorial",
    "gain", "leave_one_out", "mean_iou_of", "near_and_far", "results_table", "segmentation_figures", "stated", "stored",
    "stored_figure", "table",
]  # fmt: skip
Train = Callable[["Row", int], "RunRecord"]
"""Of the fixture `train`: of a row and a seed the finished run's record."""
Judged = Callable[["Claim"], "Outcome"]
"""Of the fixture `judged`: of a claim what this session's runs say of it."""
Detected = Callable[["Control"], list[str]]
"""Of the fixture `detected`: of a negative control what gives it away, in words; empty if nothing does."""

_FROM = {  # where each is from: nothing is imported before it is asked for
    "cvhw4.camvid": "CAMVID",
    "cvhw4.designs": "Factorial claims_without factorial leave_one_out",
    "cvhw4.metrics": "segmentation_figures",
    "cvhw4.records.schema": "RunRecord",
    "cvhw4.report.effects": "effects_section",
    "cvhw4.report.evidence": "Evidence Section",
    "cvhw4.report.figures": "Picture draw",
    "cvhw4.report.numbers": "gain",
    "cvhw4.report.page": "stored_figure",
    "cvhw4.report.papers": "Style results_table",
    "cvhw4.report.plots": "claims_figure curves_figure",
    "cvhw4.report.stored": "stored",
    "cvhw4.report.tables": "table",
    "cvhw4.statistics.bounds": "Bounds",
    "cvhw4.statistics.decomposition": "decompositions mean_iou_of near_and_far",
    "cvhw4.statistics.factorial": "effects",
    "cvhw4.statistics.intervals": "Estimate estimate",
    "cvhw4.statistics.published": "stated",
    "cvhw4.statistics.verdicts": "Outcome",
    "cvhw4.study": (
        "Claim Control Corruption FromOptions Generated Loss Metric NotGiven Pictures "
        "Published Recipe Row Run Scenes Study"
    ),
}
_LATER = {name: module for module, names in _FROM.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name == "__version__":  # that of the git tag it was built from; 0.0.0 of a tree that is not installed
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cvhw4")
        except PackageNotFoundError:
            return "0.0.0"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
