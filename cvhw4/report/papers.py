"""Tables for papers: rows by figures, as LaTeX, Typst, Markdown, CSV, HTML or a pandas frame.

A cell is the mean over seeds with its spread, in digits that fit the spread. The best of a column is bold only where it
beats every other row of the table: paired t tests over the seeds that both have, Holm's correction over those tests, 5
%. Against a row that is named as baseline every other row has a mark where the difference is as sure, over all tests of
the table; or where the study's own claims about both are decided.
"""

from __future__ import annotations

import html
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cvhw4.errors import InputError, printable
from cvhw4.records.schema import RunRecord, first_problem
from cvhw4.records.typed import Field, TypeAdapter, ValidationError
from cvhw4.report.marks import ABOVE, BELOW, SAME, against, marks_note, marks_of_claims, marks_of_tests, winner
from cvhw4.report.numbers import ends
from cvhw4.report.runs import by_row, grouped, of_study, with_metric
from cvhw4.report.tables import Table
from cvhw4.report.text import escape
from cvhw4.statistics.bounds import bounds_of
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Study
from cvhw4.tasks import CUSTOM, LABELS, SEGMENTATION

if TYPE_CHECKING:
    from pandas import DataFrame

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
_LATEX = {c: f"\\{c}" for c in "&%#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # else an argument of the line break before it
}
_MATHS = {"±": r"\pm", "×": r"\times", "→": r"\rightarrow", "≤": r"\leq", "≥": r"\geq", "µ": r"\mu"} | {
    "$": r"\mathdollar",  # fonts that every LaTeX has as outlines, as those of text companions are not
    ABOVE: "^{*}",
    BELOW: r"^{\dagger}",
    SAME: r"^{\ddagger}",
    **{c: f"\\{name}" for c, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK.split(), strict=True)},
}
_LATEX |= {c: rf"\ensuremath{{{maths}}}" for c, maths in _MATHS.items()}


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a table shows, and how; a TOML file has the same names.

    Attributes:
        rows: rows shown, in this order, and what each is called; none: all that have runs, by their own names.
        columns: figures shown, likewise; none: those of the study's tables.
        baseline: row that the others are marked against; none for no marks.
        marks: "tests" of all rows against the baseline, or "claims": those of the study about a row and the baseline.
        differences: beside each figure its difference from the baseline's, with how far its 95 % interval reaches.
        epoch: "best" of all epochs or "last"; left out, as the study's claims are judged.
        spread: "sd": standard deviation over seeds; "interval": how far the mean's 95 % interval reaches (from
            15 seeds on its two sides differ; the farther); "none".
        percent: figures times 100: True for all, or names of columns.
        digits: behind the point; None: two digits of the median spread of a column, three of single runs.
        siunitx: LaTeX only: numbers as \\num{...}, but for bold ones.
        caption: above the table; LaTeX's and Typst's are then floats. Left out, notes are the last line of the table.
        label: to refer to it by.
        claims: of a figure of claims, by their ids, those shown, in this order, and what each is called.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    rows: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    baseline: str = ""
    marks: Literal["tests", "claims"] = "tests"
    differences: bool = False
    epoch: Literal["best", "last", ""] = ""
    spread: Literal["sd", "interval", "none"] = "sd"
    percent: bool | list[str] = False
    digits: Annotated[int, Field(ge=0, le=9)] | None = None
    siunitx: bool = False
    caption: str = ""
    label: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)


class Cell(NamedTuple):
    """A mean over seeds, its spread (NaN of one seed, and where none is asked for), the number of seeds, whether it is
    bold, and its mark."""

    mean: float
    spread: float
    n: int
    bold: bool
    mark: str


def read_style(path: Path) -> Style:
    """A style from a TOML file; raises InputError where it cannot be read, or has something that no style has."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", "give a TOML file of a table's style") from None
    return style_of(raw, str(path))


def style_of(raw: Mapping[str, Any], where: str) -> Style:
    """A style from plain values; raises InputError for a name that no style has, or a value of another kind."""
    try:
        return TypeAdapter(Style).validate_python(dict(raw))
    except ValidationError as error:
        names = ", ".join(f.name for f in fields(Style))
        raise InputError(where, f"is no style of a table ({first_problem(error)})", f"use {names}") from None


class _Markup(NamedTuple):
    """How a format writes texts from outside, numbers, bold ones, and marks."""

    text: Callable[[str], str]
    number: Callable[[str], str]
    bold: Callable[[str], str]
    mark: Callable[[str], str]


@dataclass(frozen=True)
class ResultsTable:
    """A table of figures, made by `results_table`.

    Attributes:
        title: study, data set and task.
        columns: headings of the figures; `percent` and `signed`: of each whether its figures are times 100, and
            differences.
        rows: by heading, a cell for each column; None where the row has no such figure.
        notes: what bold and marks mean, and how many seeds there are.
        among: whether there are others beside it, so that its title has to be read.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    notes: tuple[str, ...]
    style: Style
    percent: tuple[bool, ...]
    signed: tuple[bool, ...]
    among: bool = False

    def frame(self) -> DataFrame:
        """As pandas: a line per row; for each figure its mean, spread and n as float64, float64 and int64 columns."""
        import pandas as pd

        names = pd.MultiIndex.from_product([self.columns, ["mean", self._spread, "n"]])
        nothing = (math.nan, math.nan, 0)
        values = [[x for cell in cells for x in (cell[:3] if cell else nothing)] for _, cells in self.rows]
        index = pd.Index([name for name, _ in self.rows], name="row")
        made = pd.DataFrame(values, index=index, columns=names)
        return made.astype({name: "int64" for name in names if name[1] == "n"})

    def markdown(self) -> str:
        """For a README."""
        head, *lines = self._lines(_Markup(escape, str, "**{}**".format, escape))
        above, notes = " ".join(map(escape, self._caption)), "\n".join(map(escape, self.notes))
        return "\n\n".join(filter(None, (above, Table(head, lines).markdown(), notes)))

    def csv(self) -> str:
        """Full precision, a line per row and figure: table, row, figure, mean, spread, n, bold, mark."""
        import pandas as pd

        cells = [(name, column, cell) for name, of in self.rows for column, cell in zip(self.columns, of, strict=True)]
        names = ["table", "row", "figure", "mean", self._spread, "n", "bold", "mark"]
        lines = pd.DataFrame([(self.title, name, column, *cell) for name, column, cell in cells if cell], columns=names)
        return lines.to_csv(index=False, na_rep="nan", lineterminator="\n")

    def html(self) -> str:
        """A <table>, for a notebook."""
        from tabulate import tabulate

        head, *lines = self._lines(_Markup(html.escape, str, "<b>{}</b>".format, "<sup>{}</sup>".format))
        table = str(tabulate(lines, head, tablefmt="unsafehtml", disable_numparse=True))
        foot = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        caption = html.escape(" ".join(self._caption) or self.title)
        return table.replace("<table>", f"<table><caption>{caption}</caption>", 1) + foot

    _repr_html_ = html

    def latex(self) -> str:
        """With booktabs; a float where the style has a caption."""

        def plain(text: str) -> str:
            return f"${text.replace('−', '-').replace('±', chr(92) + 'pm')}$"

        def number(text: str) -> str:
            if not self.style.siunitx:
                return plain(text)
            plus = ",retain-explicit-plus=true" * text.startswith("+")
            return rf"\num[separate-uncertainty=true{plus}]{{{text.replace('−', '-').replace(' ± ', ' +- ')}}}"

        bold = r"{{\boldmath\bfseries {}}}".format  # \num takes no weight from around it
        markup = _Markup(_latex, number, lambda text: bold(plain(text)), _latex)
        head, *lines = (rf"{' & '.join(line)} \\" for line in self._lines(markup))
        columns = rf"\begin{{tabular}}{{l{'c' * len(self.columns)}}}"
        told = " ".join(map(_latex, [*self._caption, *self.notes]))
        width = rf"\multicolumn{{{len(self.columns) + 1}}}{{@{{}}p{{{self._width:.0f}em}}}}"
        below = [] if self.style.caption else [rf"{width}{{\footnotesize\raggedright {told}}} \\"]
        body = [columns, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", *below, r"\end{tabular}"]
        if self.style.caption:
            label = [rf"\label{{{self.style.label}}}"] if self.style.label else []
            body = [r"\begin{table}", r"\centering", rf"\caption{{{told}}}", *label, *body, r"\end{table}"]
        packages = "booktabs" + (", siunitx" if self.style.siunitx else "")
        return "\n".join([f"% {printable(self.title)}; needs {packages}", *body])

    def typst(self) -> str:
        """Typst's own table; a figure where the style has a caption."""
        markup = _Markup(_typst, _typst, lambda text: f"*{_typst(text)}*", lambda mark: f"#super[{_typst(mark)}]")
        head, *lines = (f"  {', '.join(f'[{text}]' for text in line)}," for line in self._lines(markup))
        columns = f"columns: {len(self.columns) + 1}, align: (left, ..range({len(self.columns)}).map(_ => center))"
        body = [f"  {columns}, stroke: none,", "  table.hline(),", head, "  table.hline(stroke: 0.5pt),"]
        body += [*lines, "  table.hline(),"]
        title, told = f"// {printable(self.title)}", " ".join(map(_typst, [*self._caption, *self.notes]))
        if not self.style.caption:
            below = f"block(width: {self._width:.0f}em, text(size: 0.8em)[{told}])"
            last = f"  table.cell(colspan: {len(self.columns) + 1}, align: left, {below}),"
            return "\n".join([title, "#table(", *body, last, ")"])
        label = f" <{self.style.label}>" if self.style.label else ""
        above = f"#figure(placement: auto, caption: figure.caption(position: top)[{told}], table("
        return "\n".join([title, above, *body, f")){label}"])

    @property
    def _caption(self) -> list[str]:
        """The title, where it has to be read, and the style's caption, as sentences that others may follow."""
        texts = (self.title * self.among, self.style.caption.rstrip())
        return [text + "." * (text[-1] not in ".!?:;") for text in texts if text]

    @property
    def _width(self) -> float:
        """About how wide the table is, in em: notes in it are not to stretch a column."""
        lines = self._lines(_Markup(str, str, str, str))
        return max(sum(0.45 * max(map(len, column)) + 1 for column in zip(*lines, strict=True)) - 1, 8)

    @property
    def _spread(self) -> str:
        return {"sd": "sd", "interval": "reach", "none": "spread"}[self.style.spread]

    def _lines(self, markup: _Markup) -> list[list[str]]:
        """Headings, and the rows with theirs; cells in the digits of their column."""
        columns = [[cells[i] for _, cells in self.rows] for i in range(len(self.columns))]
        digits: list[int] = []
        for cells, percent, signed in zip(columns, self.percent, self.signed, strict=True):
            digits.append(digits[-1] if signed else self._digits(cells, percent))  # a difference has its figure's

        def text(cell: Cell | None, digits: int, signed: bool) -> str:
            if cell is None or not math.isfinite(cell.mean):
                return "-"
            spread = f" ± {cell.spread:.{digits}f}" if math.isfinite(cell.spread) else ""
            shown = (markup.bold if cell.bold else markup.number)(f"{cell.mean:{'+' * signed}.{digits}f}{spread}")
            return shown + (markup.mark(cell.mark) if cell.mark else "")

        lines = [[markup.text(name), *map(text, cells, digits, self.signed)] for name, cells in self.rows]
        return [["", *map(markup.text, self.columns)], *lines]

    def _digits(self, cells: Iterable[Cell | None], percent: bool) -> int:
        """How many digits behind the point the spreads of a column deserve."""
        if self.style.digits is not None:
            return self.style.digits
        spreads = [cell.spread for cell in cells if cell is not None and cell.spread > 0]
        return min(max(1 - math.floor(math.log10(median(spreads))), 0), 6) if spreads else 1 if percent else 3


FORMATS: Mapping[str, Callable[[ResultsTable], str]] = {  # by the ending of a file
    ".tex": ResultsTable.latex,
    ".typ": ResultsTable.typst,
    ".md": ResultsTable.markdown,
    ".csv": ResultsTable.csv,
    ".html": ResultsTable.html,
}


def check_table(path: Path) -> Style:
    """The style of a table that is to be written there: that of the TOML file of the same name, or the default one;
    raises InputError where the path has an ending that `FORMATS` lacks, or the file cannot be used."""
    if path.suffix not in FORMATS:
        raise InputError(path, "is of a kind that no table is written as", f"end it in {', '.join(FORMATS)}")
    beside = path.with_suffix(".toml")
    return read_style(beside) if beside.is_file() else Style()


def rendered(tables: Iterable[ResultsTable], ending: str) -> str:
    """Tables as the text of a file with that ending, which `FORMATS` has; in CSV all are one."""
    texts = [FORMATS[ending](table).rstrip("\n") for table in Tables(tables)]
    if ending == ".csv":
        return "\n".join([*texts[:1], *(text.partition("\n")[2] for text in texts[1:])]) + "\n"
    return "\n\n".join(texts) + "\n"


class Tables(list[ResultsTable]):
    """Tables of one study or several, each with a title and a label of its own; a notebook shows them one below the
    other."""

    def __init__(self, tables: Iterable[ResultsTable]) -> None:
        given = list(tables)
        titles = _apart((table.title for table in given), "{} ({})")
        labels = _apart((table.style.label for table in given), "{}-{}")
        among = len(given) > 1
        super().__init__(
            replace(table, title=title, style=replace(table.style, label=label), among=among)
            for table, title, label in zip(given, titles, labels, strict=True)
        )

    def frame(self) -> DataFrame:
        """As pandas: that of the only table; several one below the other, their titles the first level of the index."""
        import pandas as pd

        frames = {table.title: table.frame() for table in self}
        return self[0].frame() if len(self) == 1 else pd.concat(frames, names=["table"])

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self)


def _apart(texts: Iterable[str], numbered: str) -> list[str]:
    """Texts, those that are there already with a number; empty ones as they are."""
    found: list[str] = []
    for text in texts:
        names = (numbered.format(text, n) if n > 1 else text for n in count(1))
        found.append(next(name for name in names if name not in found or not text))
    return found


def results_table(study: Study, records: Iterable[RunRecord], style: Style | Mapping[str, Any] | None = None) -> Tables:
    """Tables of a study's runs: one for each task and data set.

    Args:
        study: whose rows they are.
        records: one of each row and seed on each data set.
        style: what is shown, and how: a `Style`, or what one has by name.

    Raises:
        InputError: the style names a row that the study has not, or a figure that no run has, or is none.
    """
    runs = of_study(study, records)
    style = _named(study, runs, style if isinstance(style, Style) else style_of(style or {}, "the style"))
    shown = [r for r in runs if r.row in style.rows]
    order = [task.name for task in study.tasks]
    sets = grouped(sorted(shown, key=lambda r: order.index(r.task)), lambda r: (r.task, r.data.fingerprint))
    outcomes = judge_all(study, runs, bounds=bounds_of(study)) if style.marks == "claims" else None
    tables = (_table(study, of, style, outcomes) for of in sets.values())
    return Tables(table for table in tables if table.columns)


def _named(study: Study, records: Sequence[RunRecord], style: Style) -> Style:
    """The style with rows by their full names; raises InputError as `results_table`."""
    rows = {study.row(name).name: text for name, text in style.rows.items()}
    figures = {metric for r in records for metric in r.epochs[-1].figures}
    for metric in (*style.columns, *(style.percent if isinstance(style.percent, list) else ())):
        if metric not in figures:
            raise InputError(f"column {metric}", "is a figure that no run has", f"use {', '.join(sorted(figures))}")
    baseline = study.row(style.baseline).name if style.baseline else ""
    if not baseline and (style.differences or style.marks == "claims"):
        raise InputError("the table", "has differences or marks from no row", "name one as its baseline")
    if style.marks == "claims" and style.epoch not in ("", study.epoch):
        raise InputError("marks", f"are of claims, which go by the {study.epoch} epoch", "leave epoch out")
    if baseline and rows and baseline not in rows:
        raise InputError(f"baseline {baseline}", "is not among the rows of the table", "add it to them")
    rows = {row: text or study.labels.get(row, row) for row, text in (rows or dict.fromkeys(study.rows, "")).items()}
    return replace(style, rows=rows, baseline=baseline, epoch=style.epoch or study.epoch)


def _table(study: Study, runs: Sequence[RunRecord], style: Style, outcomes: Sequence[Outcome] | None) -> ResultsTable:
    """The table of runs of one task on one data set; without columns where they have none of the figures. `outcomes`
    are the study's claims', where these make the marks."""
    task, groups = study.rows[runs[0].row].task, by_row(runs)
    step = None if study.train is not None else 1 / runs[0].data.val if task.in_images else 0.0
    metrics = [m for m in style.columns or study.shown(task) if with_metric(runs, m)]
    rows = [row for row in style.rows if row in groups]
    percent = style.percent if isinstance(style.percent, list) else metrics * style.percent
    values = {
        (row, metric): {r.seed: getattr(r, style.epoch)(metric) for r in with_metric(groups[row], metric)}
        for row in rows
        for metric in metrics
    }
    large = {m for (_, m), of in values.items() if any(abs(v) > 1 for v in of.values())}
    if wrong := [m for m in percent if m in large]:
        shares = ", ".join(f'"{m}"' for m in metrics if m not in large)
        hint = f"name the columns that are shares: percent = [{shares}] in a file for --style"
        hint = hint if shares else "leave percent out"
        raise InputError(f"column {wrong[0]}", "has figures above 1, so it is no share", hint)
    tests = against(style.baseline, rows, metrics, values, step)
    of_data = [o for o in outcomes or () if o.fingerprint == runs[0].data.fingerprint]
    marks = marks_of_tests(tests) if outcomes is None else marks_of_claims(of_data, style.baseline, study.lowest)
    marks = {place: mark for place, mark in marks.items() if values.get(place)}
    winners = {metric: winner(rows, metric, values, metric in study.lowest, step) for metric in metrics}
    for (row, metric), mark in marks.items():
        if not mark and winners[metric] in (row, style.baseline):  # one correction may not say more than the other
            winners[metric] = None
    scales = {metric: 100 if metric in percent else 1 for metric in metrics}

    def cell(row: str, metric: str) -> Cell | None:
        if not (found := values[row, metric]):
            return None
        e = estimate([scales[metric] * v for v in found.values()])
        spread = {"sd": e.sd, "interval": _reach(e), "none": math.nan}[style.spread] if e.n > 1 else math.nan
        return Cell(e.mean, spread, e.n, winners[metric] == row, marks.get((row, metric), ""))

    def difference(row: str, metric: str) -> Cell | None:
        if (test := tests.get((row, metric))) is None:
            return None
        d, scale = test.difference, scales[metric]
        return Cell(scale * d.mean, scale * _reach(d), d.n, False, "")

    kinds = (cell, difference) if style.differences and style.baseline in rows else (cell,)
    columns = [(what, metric) for metric in metrics for what in kinds]
    signed = tuple(what is difference for what, _ in columns)
    lines = tuple((style.rows[row] or row, tuple(what(row, metric) for what, metric in columns)) for row in rows)
    names = {m: style.columns.get(m) or LABELS.get(m, m) + " (%)" * (m in percent) for m in metrics}
    headings = tuple(names[m] + ", difference" * is_one for (_, m), is_one in zip(columns, signed, strict=True))
    cells = [c for _, of in lines for c, is_one in zip(of, signed, strict=True) if c is not None and not is_one]
    notes = _notes(cells, style)
    if task.name == SEGMENTATION.name and {"miou", "pixel_accuracy"} & {*metrics}:
        notes.append("mIoU and pixel accuracy by image, then the mean over images; void pixels count as wrong.")
    if style.baseline in rows:
        notes += marks_note(marks, style.rows[style.baseline] or style.baseline, outcomes is not None)
        notes += [
            "Differences from it ± reach of their 95 % intervals (the farther side), over seeds that both have."
        ] * any(signed)
    title = f"{study.title}" + ("" if task.name == CUSTOM.name else f": {runs[0].data.name}, {task.name}")
    return ResultsTable(title, headings, lines, tuple(notes), style, tuple(m in percent for _, m in columns), signed)


def _reach(e: Estimate) -> float:
    """From the mean to the farther end of its 95 % interval."""
    return max(e.high - e.mean, e.mean - e.low)


def _notes(cells: Sequence[Cell], style: Style) -> list[str]:
    """What spreads and bold mean."""
    n = sorted({cell.n for cell in cells})
    seeds = f"{ends(n)} seed{'s' * (n[-1] > 1)}" if n else "no runs"
    spread = {"sd": " ± standard deviation", "interval": " ± reach of the 95 % interval", "none": ""}[style.spread]
    notes = [f"Mean{spread if n and n[-1] > 1 else ''} over {seeds}, {style.epoch} epoch."]
    if any(cell.bold for cell in cells):
        notes.append("Bold: better than every other row (paired t tests over seeds, Holm, 5 %).")
    return notes


def _latex(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_LATEX.get(c, c) for c in printable(text))


def _typst(text: str) -> str:
    """Text as Typst shows it."""
    escaped = re.sub(r"([\\#\[\]*_`$<>@=~/+-])", r"\\\1", printable(text))
    return re.sub(r"^(\d+)\.", r"\1\\.", escaped)  # no numbered list
