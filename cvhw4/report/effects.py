"""A section of a study's page of verdicts: main effects and interactions of a factorial design."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING

from cvhw4.designs import Factorial
from cvhw4.report.evidence import Evidence, Section
from cvhw4.report.figures import INK, Picture, dots, draw
from cvhw4.report.numbers import gain, number
from cvhw4.report.runs import metric_name, with_metric
from cvhw4.report.tables import table
from cvhw4.report.text import escape, file_stem, in_picture
from cvhw4.statistics.factorial import effects
from cvhw4.statistics.intervals import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def effects_section(
    design: Factorial,
    metric: str,
    title: str = "What each change does",
    about: str = "",
    off: str = "no",
    on: str = "yes",
) -> Section:
    """Makes a section for `Study(sections=[...])`.

    Args:
        design: whose rows the study has.
        metric: figure that is compared, of the epoch that the study's claims go by; higher is better.
        title: of the section.
        about: a sentence before the figures, Markdown.
        off: how tables call the level of a factor that is off; `on` likewise.
    """

    def section(e: Evidence) -> list[str | Picture]:
        having = [{r.seed for r in with_metric(e.runs.get(row, ()), metric)} for row in design.cells.values()]
        seeds = sorted(set.intersection(*having))
        if not seeds:
            return []
        figures = {cell: e.figures(row, metric, seeds) for cell, row in design.cells.items()}
        found = effects(figures, design.factors)
        cells = [
            {
                "row": escape(row),
                metric_name(metric): gain(estimate(figures[cell]), e.study.is_share(metric, row)).lstrip("+"),
                **{escape(f): on if is_on else off for f, is_on in zip(design.factors, cell, strict=True)},
            }
            for cell, row in design.cells.items()
        ]
        first, last = (figures[(is_on,) * len(design.factors)] for is_on in (False, True))
        whole = estimate([b - a for a, b in zip(first, last, strict=True)])
        several = len(seeds) > 1
        lines = [{"effect": escape(n), metric_name(metric): gain(x), "n": str(x.n)} for n, x in found.items()]
        return [
            f"## {title} ({e.title})",
            f"{about and about + ' '}Every combination ran, with the same {len(seeds)} seed{'s' * several}; after the "
            f"{e.study.epoch} epoch all changes together make {gain(whole)}. A main effect is the mean over the "
            "settings of the others, an interaction half of how much more one change does where the other is made"
            f"{'; intervals over seeds' * several}.",
            table(lines),
            _picture(found, metric, e),
            table(cells),
            *e.notes,
        ]

    return section


def _picture(found: Mapping[str, Estimate], metric: str, e: Evidence) -> Picture:
    """A line per effect, with its interval."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        dots(axes, found, size=7 if figure.get_figwidth() > 5 else 4)
        words = f"effect on {in_picture(metric)}, {e.study.epoch} epoch"
        axes.set_xlabel(words if figure.get_figwidth() > 5 else fill(words, 18), fontsize=8)

    words = "; ".join(f"{name}: {number(x.mean, sign='+')}" for name, x in found.items())
    n = next(iter(found.values())).n
    return draw(
        f"effects-{file_stem(metric)}",
        (6.4, 0.3 * len(found) + 0.8),
        paint,
        f"Effects as a forest plot. {words}.",
        f"Each effect on {metric_name(metric)}: mean over n = {n} seed{'s, bar: its 95 % interval' * (n > 1)}. "
        f"Data: {escape(e.data)}.",
    )
