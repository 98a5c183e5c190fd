"""Classes of masks: their names, how some are merged into one, and what a network is to say where a pixel has a label.

A mask's *labels* are the numbers of its data set's classes, 0 to K - 1, and K where a pixel is of none: "void". A row
may merge classes; its network tells C of them apart. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

VOID = "void"  # how pixels of no class are called
MOST_CLASSES = 255  # labels are stored in eight bits, and one of them is void's

Colour = tuple[int, int, int]
Merge = Mapping[str, Sequence[str]]


class Merged(NamedTuple):
    """The classes that a network tells apart.

    Attributes:
        names: of the C classes.
        targets: for each label 0..K the class it is trained as: below C, or C for none.
        first: for each class the first label in it.
    """

    names: tuple[str, ...]
    targets: tuple[int, ...]
    first: tuple[int, ...]


def merge_classes(classes: Sequence[str], merge: Merge) -> Merged:
    """Some of a data set's classes merged into one, the others as they are, in the order of their first labels.

    Args:
        classes: of the data set, in the order of their numbers.
        merge: names of new classes, and of those that become one; `VOID` for the pixels of none.

    Raises:
        ValueError: a name that is no class, or in two new classes; a new one of nothing, or called as a class that
            stays; or fewer than two classes are left.
    """
    home = dict(zip((*classes, VOID), (*classes, VOID), strict=True))
    moved: set[str] = set()
    for new, members in merge.items():
        if not members:
            raise ValueError(f"merges nothing into {new!r}")
        for name in members:
            if name not in home:
                raise ValueError(f"merges {name!r}, which is not one of the classes")
            if name in moved:
                raise ValueError(f"merges {name!r} twice")
            moved.add(name)
            home[name] = new
    for new in merge:
        if new == VOID or (new in classes and new not in moved):
            raise ValueError(f"merges into {new!r}, which is a class already")
    labels = [*home.values()]
    names = tuple(name for name in dict.fromkeys(labels) if name != VOID)
    if len(names) < 2:
        raise ValueError("leaves no two classes")
    targets = tuple(len(names) if name == VOID else names.index(name) for name in labels)
    return Merged(names, targets, tuple(targets.index(c) for c in range(len(names))))
