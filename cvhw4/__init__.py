"""Ablation studies in computer vision that a build can check: a benchmark and ablation harness on pytest.

What is exported here is the public interface. A `Study` is a table of `Row`s with their `Recipe`, data, metrics and
`Claim`s; `pytest.mark.study` runs it, with the fixtures of `cvhw4.plugin`. With `Study(train=...)` the training loop is
your own, and is given a `Run`. All else is internal and may change with any version: what modules share among
themselves, and below that, with an underscore, what each keeps to itself.

For a study's own sections of the page of verdicts: a section is given an `Evidence` and returns paragraphs in Markdown,
made with `table` and `gain` of what `estimate`, `effects`, `decompositions`, `near_and_far`, `mean_iou_of` and
`segmentation_figures` find, and pictures made with `draw`; `stated` is a claim by published figures. `leave_one_out`
and `factorial` make the rows of a design, and `effects_section` such a section of its effects. `results_table`,
`claims_figure` and `curves_figure` are for papers: they take what `stored("quick")` reads. `Study.table` and
`Study.figure` (`stored_figure`, of sections' pictures too) read by themselves.

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
    from cvhw4.designs import Factorial, factorial, leave_one_out
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
    "CAMVID",
    "Bounds",
    "Claim",
    "Control",
    "Corruption",
    "Detected",
    "Estimate",
    "Evidence",
    "Factorial",
    "FromOptions",
    "Generated",
    "InputError",
    "Judged",
    "Loss",
    "Metric",
    "NotGiven",
    "Outcome",
    "Picture",
    "Pictures",
    "Published",
    "Recipe",
    "Row",
    "Run",
    "RunRecord",
    "Scenes",
    "Section",
    "Study",
    "Style",
    "Train",
    "claims_figure",
    "curves_figure",
    "decompositions",
    "draw",
    "effects",
    "effects_section",
    "estimate",
    "factorial",
    "gain",
    "leave_one_out",
    "mean_iou_of",
    "near_and_far",
    "results_table",
    "segmentation_figures",
    "stated",
    "stored",
    "stored_figure",
    "table",
]
Train = Callable[["Row", int], "RunRecord"]
Judged = Callable[["Claim"], "Outcome"]
Detected = Callable[["Control"], list[str]]

_LATER = {  # where each is from: nothing is imported before it is asked for
    "Bounds": "cvhw4.statistics.bounds",
    "CAMVID": "cvhw4.camvid",
    "Claim": "cvhw4.study",
    "Control": "cvhw4.study",
    "Corruption": "cvhw4.study",
    "Estimate": "cvhw4.statistics.intervals",
    "Evidence": "cvhw4.report.evidence",
    "Factorial": "cvhw4.designs",
    "FromOptions": "cvhw4.study",
    "Generated": "cvhw4.study",
    "Loss": "cvhw4.study",
    "Metric": "cvhw4.study",
    "NotGiven": "cvhw4.study",
    "Outcome": "cvhw4.statistics.verdicts",
    "Picture": "cvhw4.report.figures",
    "Pictures": "cvhw4.study",
    "Published": "cvhw4.study",
    "Recipe": "cvhw4.study",
    "Row": "cvhw4.study",
    "Run": "cvhw4.study",
    "RunRecord": "cvhw4.records.schema",
    "Scenes": "cvhw4.study",
    "Section": "cvhw4.report.evidence",
    "Study": "cvhw4.study",
    "Style": "cvhw4.report.papers",
    "claims_figure": "cvhw4.report.plots",
    "curves_figure": "cvhw4.report.plots",
    "decompositions": "cvhw4.statistics.decomposition",
    "draw": "cvhw4.report.figures",
    "effects": "cvhw4.statistics.factorial",
    "effects_section": "cvhw4.report.effects",
    "estimate": "cvhw4.statistics.intervals",
    "factorial": "cvhw4.designs",
    "gain": "cvhw4.report.numbers",
    "leave_one_out": "cvhw4.designs",
    "mean_iou_of": "cvhw4.statistics.decomposition",
    "near_and_far": "cvhw4.statistics.decomposition",
    "results_table": "cvhw4.report.papers",
    "segmentation_figures": "cvhw4.metrics",
    "stated": "cvhw4.statistics.published",
    "stored": "cvhw4.report.stored",
    "stored_figure": "cvhw4.report.page",
    "table": "cvhw4.report.tables",
}


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
