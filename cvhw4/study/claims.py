"""What should beat what, and the negative controls that bounds have to notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cvhw4.errors import InputError
from cvhw4.study.checks import check_name, is_number, require
from cvhw4.study.functions import digest_of_text, plain
from cvhw4.study.rows import Corruption, CorruptionKind, CustomRow, Row

if TYPE_CHECKING:
    from cvhw4.report.evidence import Evidence
    from cvhw4.study.study import Study

Operand = str | tuple[str, str]  # a row, or the difference of two: the first row's figure minus the second's


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A conclusion to be judged: `better` beats `worse` by more than `margin`, or `margin` itself.

    By a paired t test over seeds, and two one-sided ones for equivalence (Schuirmann 1987), both corrected for the
    claims that are judged together (Holm 1979).

    Attributes:
        id: `-k` selects by it. Made from rows and metric where it is left out.
        sentence: the conclusion in words; likewise.
        better: the row that should have the higher figure, or two: their difference, ("a", "b"). Of figures of which
            the lowest is best the lower one.
        worse: what it is compared with, seed by seed; None compares the figure itself with `margin`, which says
            something on real data alone.
        metric: the figure compared, one of `RunRecord.metrics`, of the epoch that `Study.epoch` names.
        margin: what the difference, or the figure itself, has to exceed, in the figure's unit: 0.02 for two points of
            accuracy. Of a share from -1 to 1, of a share itself from 0.
        smallest: difference of interest, in the same unit, above 0: the claim is "equivalent" where its difference is
            surely nearer to `margin` than that. 0 for none: it is then never called so.
        control: whether it checks the study itself and is not one of its conclusions: it is judged by itself.
        note: what has to be said beside the verdict, as Markdown, of the runs on one data set; "" for nothing.
        classes: of the pictures that it is about, by name: on pictures of other classes its verdict is "about other
            pictures", and it counts for nothing but the correction of the others'. None named: about all.

    Raises:
        InputError: something of another kind than that, or a row that is compared with itself. Rows and figures are
            checked by the study.
    """

    id: str = ""
    sentence: str = ""
    better: Operand
    worse: Operand | None = None
    metric: str
    margin: float = 0.0
    smallest: float = 0.0
    control: bool = False
    note: Callable[[Evidence], str] | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        row, text = 'name a row, or the difference of two as ("a", "b")', "give a text, or leave it out"
        smallest = is_number(self.smallest) and self.smallest >= 0
        required = (
            ("id", isinstance(self.id, str), text),
            ("sentence", isinstance(self.sentence, str), text),
            ("better", _is_operand(self.better), row),
            ("worse", self.worse is None or _is_operand(self.worse), f"{row}; a number it should pass is margin="),
            ("metric", isinstance(self.metric, str) and self.metric != "", 'name a figure ("accuracy")'),
            ("margin", is_number(self.margin), "give a number"),
            ("smallest", smallest, "give a number above 0, or leave it out"),
            ("control", isinstance(self.control, bool), "give True or False"),
            ("note", self.note is None or callable(self.note), "give a function of an Evidence, or leave it out"),
            ("classes", _is_names(self.classes), 'name classes, as ("cat", "dog"), or leave it out'),
        )
        where = f"claim {self.id or f'with better={self.better!r:.60}'}"
        require(where, self, required)
        if self.better == self.worse or any(len({*side}) < len(side) for side in self.sides):
            raise InputError(where, "compares a row with itself", "name another row")
        better, worse = map(" less ".join, self.sides)
        name = f"{better}_above_{worse or f'{self.margin:g}'}-{self.metric}".replace(" ", "_")
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "id", self.id or name)
        object.__setattr__(self, "sentence", self.sentence or self._made({}))
        check_name(self.id, "claim")

    def words(self, labels: Mapping[str, str]) -> str:
        """Its sentence, where it was made from names of rows with other words for them.

        Args:
            labels: these words by row, as `Study.labels`.
        """
        return self._made(labels) if self.sentence == self._made({}) else self.sentence

    def _made(self, labels: Mapping[str, str]) -> str:
        better, worse = (" less ".join(labels.get(row, row) for row in side) for side in self.sides)
        over = f"{worse} by {self.margin:g}" if worse and self.margin else worse or f"{self.margin:g}"
        return f"{better} beats {over} in {self.metric}"

    @property
    def sides(self) -> list[tuple[str, ...]]:
        """The names of the rows of `better`, and of those of `worse`: of each one, or the two whose difference it is;
        none where there is no `worse`."""
        return [(side,) if isinstance(side, str) else side or () for side in (self.better, self.worse)]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the 1 to 4 rows compared."""
        return tuple(row for side in self.sides for row in side)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_operand(value: object) -> bool:
    """Whether it names a row, or two."""
    names = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    return all(isinstance(name, str) and name for name in names)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A negative control: a row trained wrongly on purpose, in several strengths. Bounds that do not notice it check
    nothing.

    The study that has it checks it: an InputError names what cannot be trained so, or changes nothing.

    Attributes:
        name: of the corrupted row; of several strengths each has its own behind it ("labels_0.2").
        row: the name of the row that is corrupted, and whose bounds have to notice.
        words: what is done, with a place for the strength as `str.format` has it ("{:.0%} of the labels are wrong").
        strengths: how strongly, the first of them the one that has to be caught; the others tell how little suffices.
            Of what each is measured in: `Corruption.strength`; with `lr` the factor, above 0.
        corrupts: what it does to the training data, if anything, as `Corruption.kind`.
        classes: the two that "classes swapped" exchanges.
        changes: settings of the row by name that it changes, if any: network (of the same task), start, trained,
            augmentation, flip, skips, batch_norm, recipe. In a study with a training loop of its own it has these
            alone, by the names of the rows' settings, and one strength.
        lr: whether the strength multiplies the learning rate.
    """

    name: str
    row: str
    words: str
    strengths: tuple[float, ...] = (1.0,)
    corrupts: CorruptionKind | None = None
    classes: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    lr: bool = False

    def of(self, study: Study, strength: float) -> Row:
        """The corrupted row of a study, in the group "control".

        Args:
            study: that has the control.
            strength: one of `strengths`.
        """
        base = study.rows[self.row]
        if isinstance(base, CustomRow):
            changed: dict[str, Any] = {
                "values": {**base.values, **self.changes},
                "plain": {**base.plain, **plain(self.changes)},
            }
            return replace(base, name=self.name, group="control", **changed)
        changes = dict(self.changes)
        if self.corrupts is not None:
            changes["corruption"] = Corruption(self.corrupts, strength, self.classes)
        if self.lr:
            changes["recipe"] = replace(base.recipe, lr=base.recipe.lr * strength)
        if "augmentation" in changes:
            changes["augmentation_source"] = digest_of_text(changes["augmentation"])
        name = self.name if len(self.strengths) == 1 else f"{self.name}_{strength:g}"
        return replace(base, name=name, group="control", **changes)
