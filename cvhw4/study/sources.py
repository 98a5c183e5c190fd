"""Where the pictures of a study come from, and which classes they have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NoReturn

from cvhw4.camvid import CAMVID
from cvhw4.errors import InputError
from cvhw4.labels import MOST_CLASSES, VOID, Colour, Merge, Merged, merge_classes
from cvhw4.study.checks import choose, require

_LARGEST_VALUE = 2**16 - 1  # of a pixel in a mask


@dataclass(frozen=True)
class Pictures:
    """Pictures to be classified, in `folder/train/<class>/*` and `folder/val/<class>/*`.

    JPEG, PNG, BMP, WebP, GIF, TIFF or PPM of at least 16 pixels a side, read as 8-bit RGB and upright (EXIF). Classes
    are numbered in the sorted order of their folders' names. All are decoded before anything is trained: an InputError
    names the file that cannot be.

    Attributes:
        folder: relative to the file that makes the study.
        resize: what pictures are scaled to when they are decoded, whose shorter side is longer, in pixels, 16 to
            32768; left out, a third more than the largest row sees.
        classes: how many there are, 2 to 32767; left out, as many as `train/` has folders.
        title: for pages.

    Raises:
        InputError: a folder or title of another kind. The rest is checked by the study, and when the folder is read.
    """

    folder: str | os.PathLike[str]
    _: KW_ONLY
    resize: int | None = None
    classes: int | None = None
    title: str = ""
    task = "classification"

    def __post_init__(self) -> None:
        folder = isinstance(self.folder, str | os.PathLike)
        require("Pictures", self, [("folder", folder, 'write it as Pictures("photos")'), _title_of(self)])


@dataclass(frozen=True)
class Scenes:
    """Scenes to be segmented: pictures, and for each a mask that says of every pixel which class it is of.

    `images/{train,val}/` beside `masks/{train,val}/` (or `{train,val}/images/` beside `{train,val}/masks/`) with files
    of equal stems; CamVid's and PASCAL VOC's layouts; or, which come before all of these, `train.csv` and `val.csv` of
    lines "picture,mask", or `train.txt` and `val.txt` with a space between: see `cvhw4.data.scenes.read_scenes`. Masks
    are PNG, BMP, GIF or TIFF without loss, as large as their pictures. All are decoded before anything is trained: an
    InputError names the file that cannot be, and a value or colour that is in no class and not ignored.

    Attributes:
        folder: relative to the file that makes the study. Scenes have to be as large as what rows cut out of them.
        classes: their names, or how many there are, 2 to 255 ("class 0", ...); left out, those of `values` or
            `colours`. Their order is that of their numbers.
        ignore: the value, or values, of pixels that are of no class; the loss and the metrics have their own
            conventions for them.
        values: by class the value, or values, that its pixels have in a mask of one channel, 0 to 65535; left out, the
            class's number. For masks of 0 and 255: `values={"background": 0, "cell": 255}`.
        colours: by class, and for "void", (red, green, blue), 0 to 255: on pages; and in a mask of three channels,
            which is read by its colours where there are any here.
        merge: of all rows that have none of their own, see `Row`.
        resize: (height, width) in pixels, 16 to 32768 each, that scenes are scaled to when they are decoded, whatever
            their size, masks by the nearest pixel; left out, they are kept and have to be of one size.
        title: for pages.

    Raises:
        InputError: something of another kind, a name that is no class, a class without a value, or a value or colour
            that says two things.
    """

    folder: str | os.PathLike[str]
    _: KW_ONLY
    classes: int | Sequence[str] | None = None
    ignore: int | Sequence[int] | None = None
    values: Mapping[str, int | Sequence[int]] | None = field(default=None, hash=False)
    colours: Mapping[str, Colour] = field(default_factory=dict, hash=False)
    merge: Merge = field(default_factory=dict, hash=False)
    resize: tuple[int, int] | None = None
    title: str = ""
    task = "segmentation"

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike):
            self._refuse("does not name a folder", 'write it as Scenes("scenes", classes=[...])')
        require(f"{self}", self, [_title_of(self)])
        values, colours = self.values, self.colours
        for name, given in (("values", values), ("colours", colours), ("merge", self.merge)):
            if given is not None and not isinstance(given, Mapping):
                self._refuse(f"has {name}={given!r:.60}", f"write it as {name}={{class: ..., ...}}")
        classes = self.classes
        if classes is None:
            classes = [*values] if values else [name for name in colours if name != VOID]
            if not classes:
                self._refuse("does not say which classes there are", 'name them: classes=["road", "car"], or how many')
        elif type(classes) is int:
            classes = [f"class {number}" for number in range(min(max(classes, 0), MOST_CLASSES + 1))]
        object.__setattr__(self, "classes", self._checked_names(classes))
        object.__setattr__(self, "ignore", self._checked_values("ignore", () if self.ignore is None else self.ignore))
        self._check_names("values", values or {}, self.names)
        self._check_names("colours", colours, (*self.names, VOID))
        if values is not None:
            if lacking := [name for name in self.names if name not in values]:
                self._refuse(f"has no values for {', '.join(lacking)}", "give one for every class")
            checked = {name: self._checked_values("values", values[name]) for name in self.names}
            object.__setattr__(self, "values", checked)
        object.__setattr__(self, "colours", {name: self._checked_colour(name, c) for name, c in colours.items()})
        object.__setattr__(self, "merge", checked_merge(f"{self}", self.names, self.merge)[0])
        self._check_overlaps()

    def __str__(self) -> str:
        return f"Scenes({self.folder})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        names: tuple[str, ...] = self.classes  # type: ignore[assignment]  # once it is made
        return names

    @property
    def numbers(self) -> dict[int, int]:
        """The number of the class by the value that says it; for values that are ignored that behind the last."""
        ignored: Any = self.ignore
        return dict.fromkeys(ignored, len(self.names)) | {
            value: number for number, name in enumerate(self.names) for value in self._by_class[name]
        }

    @property
    def _by_class(self) -> Mapping[str, Any]:
        return self.values if self.values is not None else {name: (i,) for i, name in enumerate(self.names)}

    def _refuse(self, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{self}", problem, hint)

    def _check_names(self, what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
        if odd := [name for name in given if name not in known]:
            self._refuse(f"has {what} for {odd[0]!r:.60}", f"choose among {', '.join(known)}")

    def _checked_names(self, classes: Any) -> tuple[str, ...]:
        if isinstance(classes, str) or not isinstance(classes, Sequence):
            self._refuse(f"has classes={classes!r:.60}", 'name them: classes=["road", "car"], or say how many')
        if not 2 <= len(classes) <= MOST_CLASSES:
            problem = f"has {len(classes)} classes" if len(classes) <= MOST_CLASSES else "has too many classes"
            self._refuse(problem, f"give 2 to {MOST_CLASSES}; for one thing and all else name both")
        for name in classes:
            if not isinstance(name, str) or not name.strip() or name == VOID:
                hint = f"{VOID} is how pixels of no class are called: see ignore" if name == VOID else "give a text"
                self._refuse(f"has the class {name!r:.60}", hint)
        if twice := {name for name in classes if list(classes).count(name) > 1}:
            self._refuse(f"has the class {min(twice)!r:.60} twice", "leave one of them out")
        return (*classes,)

    def _checked_values(self, name: str, given: Any) -> tuple[int, ...]:
        values = tuple(given) if isinstance(given, list | tuple | range) else (given,)
        if not all(type(value) is int and 0 <= value <= _LARGEST_VALUE for value in values):
            self._refuse(f"has {name}={given!r:.60}", f"give whole numbers from 0 to {_LARGEST_VALUE}")
        if name == "values" and not values:
            self._refuse("has values with a class of none", "give one value or more for every class")
        return values

    def _checked_colour(self, name: str, given: Any) -> Colour:
        parts = tuple(given) if isinstance(given, list | tuple) else ()
        if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
            self._refuse(f"has the colour {given!r:.60} for {name}", "give (red, green, blue), each 0 to 255")
        return parts

    def _check_overlaps(self) -> None:
        """Refuses a value or a colour that says two things."""
        of_values = "give each value to one class, or ignore it; values={class: value} says which are whose"
        of_colours = "give every class, and void, a colour of its own"
        values = [(v, name) for name, of in {"ignore": self.ignore, **self._by_class}.items() for v in of]
        colours = [(c, name) for name, c in self.colours.items()]
        for what, said, hint in (("value", values, of_values), ("colour", colours, of_colours)):
            found: dict[Any, str] = {}
            for value, name in said:
                if (other := found.setdefault(value, name)) != name:
                    self._refuse(f"has the {what} {value} for {other} and for {name}", hint)


@dataclass(frozen=True)
class Generated:
    """Pictures that this package draws, for one seed the same on every machine; 8-bit RGB.

    "portraits", with or without heavy make-up as in the report's Q1: 256 for training and 200 for validation, 156x128
    (height, width); "scenes", with CamVid's classes as in its Q2: 120 and 40, 132x176. No claim about a figure itself
    is judged on them.

    Attributes:
        kind: which of them.
        redraw: whether each seed draws its own training and validation pictures, so that the spread over seeds, and
            what is concluded from it, is about other pictures too (Bouthillier et al. 2021, "Accounting for variance
            in machine learning benchmarks"); all rows of one seed see the same. False: all seeds see the same.
        title: for pages.

    Raises:
        InputError: a kind that there is not, or something of another kind.
    """

    kind: Literal["portraits", "scenes"]
    _: KW_ONLY
    redraw: bool = True
    title: str = ""

    def __post_init__(self) -> None:
        choose("Generated", "kind", self.kind, ["portraits", "scenes"])
        require("Generated", self, [("redraw", isinstance(self.redraw, bool), "give True or False"), _title_of(self)])

    @property
    def task(self) -> str:
        """The name of the task they are for."""
        return "classification" if self.kind == "portraits" else "segmentation"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes of scenes."""
        return CAMVID["classes"]

    @property
    def colours(self) -> Mapping[str, Colour]:
        """Their colours on pages."""
        return CAMVID["colours"]


@dataclass(frozen=True)
class NotGiven:
    """Data that the user has to name: rows that need them are skipped, with this hint.

    Attributes:
        task: what they are for, "classification" or "segmentation".
        hint: how to name them ("give --camvid DIR").
        classes: of scenes, their names; what records of such data are shown with.
        colours: of scenes, as `Scenes.colours`, likewise.
        title: for pages.

    Raises:
        InputError: a task that there is not, or no hint.
    """

    task: str
    hint: str
    _: KW_ONLY
    classes: Sequence[str] = ()
    colours: Mapping[str, Colour] = field(default_factory=dict, hash=False)
    title: str = ""

    def __post_init__(self) -> None:
        choose("NotGiven", "task", self.task, ["classification", "segmentation"])
        hint = isinstance(self.hint, str) and self.hint != ""
        require("NotGiven", self, [("hint", hint, 'say how to name them, as in "give --camvid DIR"'), _title_of(self)])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.classes)


def _title_of(source: Any) -> tuple[str, bool, str]:
    """What `require` takes of a title."""
    return "title", isinstance(source.title, str), "give a text, or leave it out"


Source = Pictures | Scenes | Generated | NotGiven


def checked_merge(where: str, classes: Sequence[str], merge: object) -> tuple[dict[str, tuple[str, ...]], Merged]:
    """What is merged, as plain data, and what comes of it; raises InputError."""
    hint = f'write it as merge={{"new": ["old", ...]}}, with the classes {", ".join(classes)}, and {VOID} for no class'
    names: dict[str, tuple[str, ...]] = {}
    for new, members in merge.items() if isinstance(merge, Mapping) else [(merge, ())]:
        of_text = isinstance(members, list | tuple) and all(isinstance(name, str) for name in members)
        if not isinstance(new, str) or not new.strip() or not of_text or not isinstance(merge, Mapping):
            raise InputError(where, f"has merge={merge!r:.60}", hint)
        names[new] = tuple(members)
    try:
        return names, merge_classes(classes, names)
    except ValueError as error:
        raise InputError(where, str(error), hint) from error
