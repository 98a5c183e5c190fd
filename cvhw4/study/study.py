"""The study: rows, data, recipe, metrics, claims, controls, bounds and sections of its pages."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cvhw4.errors import InputError
from cvhw4.study.checks import check_name, choose, is_whole, require
from cvhw4.study.claims import Claim, Control
from cvhw4.study.filling import (
    check_controls,
    check_custom,
    check_rows,
    completed,
    custom_rows,
    sources_of,
    takes_a_run,
)
from cvhw4.study.functions import Loss, Metric, name_of, named_of_scores, text_of
from cvhw4.study.recipe import Recipe
from cvhw4.study.rows import OF_THE_STUDY, Fit, Published, Row, Rows
from cvhw4.study.sources import Source
from cvhw4.tasks import TASKS, Task

if TYPE_CHECKING:
    from cvhw4.report.evidence import Section
    from cvhw4.report.figures import Picture
    from cvhw4.report.papers import Tables

EpochRule = Literal["last", "best"]


@dataclass(frozen=True, eq=False)
class Study:
    """Experiments to be compared: `pytest.mark.study(s)` trains its rows with every seed and judges its claims.

    After it is made, `rows`, `data` and `metrics` hold what was left out: `rows` is by name, every row with its recipe,
    augmentation and classes, and a notebook shows it as the design's table; `data` by task; `metrics` by name.

    With `train=` the training loop is your own, and so are network, data and figures; see `Run` for what it is given:

    .. code-block:: python

        def fit(run):
            model = MyModel(**run.settings)
            for epoch in range(10):
                ...
                yield {"accuracy": accuracy}  # figures on the validation data

        Study("depth", train=fit, rows={"shallow": {"depth": 2}, "deep": {"depth": 8}}, primary="accuracy")

    Attributes:
        name: of the study, a to z, A to Z, digits and _.+-, a letter or digit first, as all names here; its runs lie
            in `<results>/<name>`.
        data: a folder of pictures by class, or of scenes and masks with `classes`, relative to the file that makes the
            study; or `Pictures`, `Scenes` or `Generated`; for a study with rows of both tasks a list with one of each.
        rows: by name, in the order of tables: a `Row`; with `train` what `Run.settings` will be, values by name: plain
            JSON values, functions, classes, or objects that say in their `repr` what they hold.
        recipe: of all rows that have none of their own.
        claims: what should beat what, by the names of rows and metrics; each with another `Claim.id`.
        epoch: whose figures claims are judged by: "last", or "best", the best that each run ever saw (the report's
            way, which flatters).
        metrics: your own, by name, of every epoch: a function, or a `Metric`. Built in are "accuracy" for
            classification; "miou", "pixel_accuracy", "set_miou" and "set_pixel_accuracy" for segmentation, see
            `segmentation_figures`.
        controls: negative controls, trained by tests marked with `group="control"`.
        title: for pages; None for the name.
        about: a sentence for pages, on what a verdict of this study is about.
        classes: of a folder, as `Pictures.classes` or `Scenes.classes`; for pictures None for as many as its `train/`
            has folders.
        resize: of a folder, as `Pictures.resize` or `Scenes.resize`.
        bounds: the file that `cvhw4 calibrate` writes, relative to the file that makes the study; None for no bounds.
        published: by row, what a publication states for it, shown beside the study's own figures.
        published_images: number of validation images behind the published accuracies, for their standard error; 0 for
            none to go by.
        sections: of the page of verdicts, beside those that every study has: functions of an `Evidence`.
        tables: of papers, by the name of their files: what a `Style` has, as {"rows": {"a": "Baseline"}, "percent":
            True}. `cvhw4 table --all` writes them.
        labels: by row, what tables and figures for papers call it, where that is not its name; no two alike.
        also_after: by task, a number of epochs after which tables show its rows as well; the schedule must not depend
            on the number of epochs ("step", "multistep", "constant", "plateau"), so that the first 20 of 50 are a run
            of 20.
        train: trains a row: a generator function that is given a `Run` and yields the figures of every epoch, finite
            numbers by name, the same names each time. A run that goes on from what it kept in `Run.folder` yields the
            figures of its earlier epochs again.
        primary: with `train`, the figure that tables put first and that progress shows.
        lower_is_better: with `train`, the names of figures of which the lowest is best, beside "loss". A claim about
            one holds where `better` is lower, and its difference is `worse` less `better`.
        shares: the names of figures, or of metrics, that lie between 0 and 1: their bounds do too.
        version: with `train`, to be changed when what it does changes and no text does (the data that it reads):
            `--reuse` knows a run by its text, that of functions of yours that it calls, the row's settings and this.
        train_text: these texts, once the study is made.

    Raises:
        InputError: something of another kind, or that does not fit together: a row's setting that its network or data
            have not, a claim about a row or metric that there is not, percent where a share is meant, a control that
            changes nothing. The message names it and the fix. Pictures, networks and metrics are tried before the first
            run.
    """

    name: str
    _: KW_ONLY
    data: str | os.PathLike[str] | Source | Sequence[Source] = OF_THE_STUDY
    rows: Mapping[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    claims: Sequence[Claim] = ()
    epoch: EpochRule = "last"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    controls: Sequence[Control] = ()
    title: str | None = None
    about: str = ""
    classes: int | Sequence[str] | None = None
    resize: int | tuple[int, int] | None = None
    bounds: str | os.PathLike[str] | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    published_images: int = 0
    sections: Sequence[Section] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    also_after: Mapping[str, int] = field(default_factory=dict)
    train: Fit | None = None
    primary: str = ""
    lower_is_better: Collection[str] = frozenset()
    shares: Collection[str] = frozenset()
    version: str = ""
    train_text: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, "study")
        self._check_kinds()
        self._set("metrics", {name: m if isinstance(m, Metric) else Metric(m) for name, m in self.metrics.items()})
        here, sources = _folder_of_caller(), dict[str, Source]()
        if self.train is not None:
            check_custom(self)
            self._set("train_text", text_of(self.train))  # a cluster's nodes may lack the file
            rows: Sequence[Row] = custom_rows(self)
        else:
            self._set("rows", check_rows(self, here))
            sources = sources_of(self, here)
            self._check_metrics()
            rows = completed(self, sources)
        self._set("data", sources)
        self._set("lower_is_better", frozenset(self.lower_is_better))
        self._set("rows", Rows({row.name: row for row in rows}))
        self._set("title", self.title or self.name)
        if self.bounds is not None:
            self._set("bounds", here / Path(self.bounds).expanduser())
        self._check_claims()
        check_controls(self)
        for what, named in (("published", self.published), ("labels", self.labels)):
            for row in named:
                choose(self.where, f"{what} row", row, [*self.rows])
        self._check_published()
        called = [self.labels.get(row, row) for row in self.rows]
        if twice := [label for label in self.labels.values() if called.count(label) > 1]:
            raise InputError(self.where, f"has two rows that tables call {twice[0]!r:.60}", "give them other labels")
        for name in self.tables:
            check_name(name, "table")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of its rows, in the order of the rows."""
        return tuple({row.task.name: row.task for row in self.rows.values()}.values())

    @property
    def sources(self) -> Mapping[str, Source]:
        """Where the pictures come from, by the name of the task; empty with a training loop of its own."""
        sources: Mapping[str, Source] = self.data  # type: ignore[assignment]  # once it is made
        return sources

    def of(self, task: Task | str) -> tuple[Row, ...]:
        """The rows of a task, which may be given by its name: "classification", "segmentation" or "custom"."""
        name = task if isinstance(task, str) else task.name
        return tuple(row for row in self.rows.values() if row.task.name == name)

    def in_group(self, group: str) -> tuple[Row, ...]:
        """The rows of a group; of the group "control" the negative controls, at every strength, as well."""
        corrupted = self.corrupted if group == "control" else ()
        return (*(row for row in self.rows.values() if row.group == group), *corrupted)

    @property
    def corrupted(self) -> tuple[Row, ...]:
        """The rows of the negative controls, at every strength."""
        return tuple(c.of(self, strength) for c in self.controls for strength in c.strengths)

    def row(self, name: str) -> Row:
        """The row with that name or label, or the only one whose name begins with it and a hyphen ("q1_2" for
        "q1_2-finetune").

        Raises:
            InputError: there is none; the message lists those there are.
        """
        found = [row for row in self.rows.values() if row.name == name or row.name.startswith(f"{name}-")]
        exact = [row for row in self.rows.values() if name in (row.name, self.labels.get(row.name))]
        if len(exact or found) != 1:
            raise InputError(name, f"is not a row of study {self.name}", f"choose one of {', '.join(self.rows)}")
        return (exact or found)[0]

    def table(self, results: str | os.PathLike[str] = "results", **style: Any) -> Tables:
        """Its stored runs as tables for a paper, which a notebook shows; `frame()` of them is pandas'.

        Args:
            results: the folder of records.
            style: what a `Style` has by name, as `percent=True`.

        Raises:
            InputError: it has no runs, or the style does not fit.
        """
        import cvhw4  # whose names are looked up when they are asked for: a study needs none of them

        return cvhw4.results_table(*cvhw4.stored(self, results), style)

    def figure(self, kind: str, results: str | os.PathLike[str] = "results", **how: Any) -> Picture:
        """A figure for a paper from its stored runs: "claims", "curves" or a picture of its sections; arguments and
        errors are those of `stored_figure`."""
        import cvhw4

        return cvhw4.stored_figure(self, kind, results, **how)

    def shown(self, task: Task) -> tuple[str, ...]:
        """The metrics that tables show for the rows of a task: built-in ones, then the study's own."""
        return (*task.shown, *self.metrics)

    def is_share(self, metric: str, row: str) -> bool:
        """Whether a figure of a row lies between 0 and 1."""
        return metric in {*self.rows[row].task.shares, *self.shares}

    @property
    def lowest(self) -> frozenset[str]:
        """The figures of which the lowest is best, whether or not there are such."""
        return frozenset({*self.lower_is_better, "loss"})

    def needed(self, row: Row) -> frozenset[str]:
        """The names of the figures that the study's own training loop has to yield for a row."""
        claimed = {claim.metric for claim in self.claims if row.name in claim.rows}
        return frozenset({self.primary, *self.lower_is_better, *claimed})

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The user's own functions: metrics, losses, transforms, builders of networks; or what trains."""
        if self.train is not None:
            settings = (value for row in self.rows.values() for value in row.values.values())
            return (self.train, *(value for value in settings if callable(value)))
        losses = [row.recipe.loss.function for row in self.rows.values() if isinstance(row.recipe.loss, Loss)]
        transforms = [row.augmentation for row in self.rows.values() if callable(row.augmentation)]
        networks = [row.network for row in self.rows.values() if not isinstance(row.network, str)]
        return (*(metric.function for metric in self.metrics.values()), *losses, *transforms, *networks)

    @property
    def nightly_claims(self) -> tuple[Claim, ...]:
        """The claims between rows that a session trains by default."""
        rows = {row.name for row in self.in_group("")}
        return tuple(claim for claim in self.claims if rows.issuperset(claim.rows))

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"study {self.name}"

    # Checks of what it is made of, which all raise InputError

    def _check_kinds(self) -> None:
        """Refuses what is of another kind than it has to be."""
        given = self.data if isinstance(self.data, list | tuple) else [self.data]
        folder, after = isinstance(self.data, str | os.PathLike), self.also_after
        sections = isinstance(self.sections, list | tuple) and all(map(callable, self.sections))
        labels = isinstance(self.labels, Mapping) and all(isinstance(text, str) for text in self.labels.values())
        epochs = isinstance(after, Mapping) and all(task in TASKS and is_whole(n, 1) for task, n in after.items())
        required = (
            ("train", self.train is None or takes_a_run(self.train), "give a function of one argument, the run"),
            ("data", self.train is not None or folder or all(isinstance(s, Source) for s in given), "name a folder"),
            ("rows", isinstance(self.rows, Mapping), 'write them as {"a": Row("resnet18"), ...}'),
            ("claims", isinstance(self.claims, list | tuple), "write them as [Claim(better=..., ...), ...]"),
            ("metrics", isinstance(self.metrics, Mapping), "write them as {name: function, ...}"),
            ("controls", isinstance(self.controls, list | tuple), "write them as [Control(name=..., ...), ...]"),
            ("title", self.title is None or isinstance(self.title, str), "give a text, or leave it out"),
            ("about", isinstance(self.about, str), "give a text, or leave it out"),
            ("bounds", self.bounds is None or isinstance(self.bounds, str | os.PathLike), "name a file"),
            ("published", isinstance(self.published, Mapping), "write it as {row: Published(...), ...}"),
            ("published_images", is_whole(self.published_images, 0), "give their number, or leave it out"),
            ("sections", sections, "write them as [function, ...], each of an Evidence"),
            ("tables", isinstance(self.tables, Mapping), 'write them as {"main": {"percent": True}, ...}'),
            ("labels", labels, 'write them as {row: "text", ...}'),
            ("also_after", epochs, 'write it as {"segmentation": 20}, by task'),
            ("version", isinstance(self.version, str), "give a text, or leave it out"),
            ("primary", isinstance(self.primary, str), 'name a figure ("accuracy")'),
            ("lower_is_better", _is_collection(self.lower_is_better), 'write it as {"loss"}'),
            ("shares", _is_collection(self.shares), 'write it as {"accuracy"}'),
        )
        require(self.where, self, required)
        choose(self.where, "epoch", self.epoch, EpochRule)
        if not self.rows:
            raise InputError(self.where, "has no rows", "give it one or more")

    def _check_metrics(self) -> None:
        for name in ("primary", "lower_is_better", "version"):
            if getattr(self, name):
                raise InputError(self.where, f"has {name}, which goes with train", "leave it out")
        for name in self.shares:
            if name not in self.metrics:
                raise InputError(self.where, f"has shares={name!r}", "name metrics of the study's own")
        built_in = {"loss", *(name for task in TASKS.values() for name in task.metrics)}
        for name, metric in self.metrics.items():
            check_name(name, "metric")
            if name in built_in:
                raise InputError(f"metric {name}", "shadows a built-in metric", "give the function another name")
            if not callable(metric.function):
                raise InputError(f"metric {name}", "is not a function", "give a function, or Metric(function)")
            choose(f"metric {name}", "of", metric.of, ["labels", "scores"])
            require(f"metric {name}", metric, [("version", isinstance(metric.version, str), "give a text")])
            if metric.of == "scores" and any(row.task.name == "segmentation" for row in self.rows.values()):
                hint = "let it take the confusion matrix, or make a study of the classifiers alone"
                raise InputError(f"metric {name}", "wants scores, of which scenes keep none", hint)
            if metric.of == "labels" and (known := named_of_scores(metric.function)) is not None:
                hint = f'write Metric({name_of(metric.function)}, of="scores"), or take a metric of labels'
                raise InputError(f"metric {name}", f"is given labels, and {known} is a metric of scores", hint)

    def _check_published(self) -> None:
        for name, published in self.published.items():
            where, row = f"{self.where}, published {name}", self.rows[name]
            if not isinstance(published, Published):
                raise InputError(where, f"is {published!r:.60}", 'write it as Published({"accuracy": 0.83})')
            for metric, figure in published.figures.items():
                if self.train is None:
                    choose(where, "figure", metric, [*row.task.metrics, *self.metrics])
                if self.is_share(metric, name) and not 0 <= figure <= 1:
                    raise InputError(where, f"has {metric}={figure:g}, which lies between 0 and 1", _AS_SHARE)

    def _check_claims(self) -> None:
        known = {row.name: [*row.task.metrics, *self.metrics] for row in self.rows.values()}
        for claim in self.claims:
            if not isinstance(claim, Claim):
                raise InputError(self.where, f"has the claim {claim!r:.60}", "write it as Claim(better=..., ...)")
            where = f"{self.where}, claim {claim.id}"
            for row in claim.rows:
                choose(where, "row", row, [*self.rows])
                if self.train is None:  # else it is not known what will be yielded
                    choose(where, "metric", claim.metric, known[row])
            shares = self.is_share(claim.metric, claim.rows[0])
            least = 0 if len(claim.rows) == 1 else -1  # a figure itself is not below 0, as a difference may be
            for name in ("margin", "smallest") if shares else ():
                if not least <= (value := getattr(claim, name)) <= 1:
                    problem = f"has {name}={value:g} of {claim.metric}, which lies between 0 and 1"
                    raise InputError(where, problem, _AS_SHARE)
            if self.train is not None and claim.worse is None and claim.metric in self.lowest:
                hint = "let it beat a row, or yield the figure with a minus"
                raise InputError(where, f"holds {claim.metric}, of which lower is better, against a number", hint)
        ids = [claim.id for claim in self.claims]
        if twice := {id for id in ids if ids.count(id) > 1}:
            raise InputError(self.where, f"has the claim {min(twice)} twice", "give one of them another id")


@dataclass(frozen=True)
class FromOptions:
    """A study that pytest's options choose: `pytest.mark.study(FromOptions(make))`.

    Attributes:
        make: makes it from pytest's config; called once in a session.

    Raises:
        InputError: `make` is no function.
    """

    make: Callable[[Any], Study]

    def __post_init__(self) -> None:
        require("FromOptions", self, [("make", callable(self.make), "give a function of pytest's config")])


_AS_SHARE = "write 0.83 for 83 %, and 0.02 for two points"


def _is_collection(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str)


def _folder_of_caller() -> Path:
    """The folder of the file that makes a study; the current one where it is made in no file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file).resolve().parent if file else Path.cwd()
