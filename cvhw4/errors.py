"""The errors a user can fix. Each message names the file or option at fault and what to do about it."""

from __future__ import annotations

from os import PathLike
from unicodedata import category


class InputError(Exception):
    """Something the user gave is unusable: a folder, a file, an option, a part of a study. Its message is one line,
    "where: problem. Fix: hint."

    Args:
        where: the file, folder or option at fault.
        problem: what is wrong with it, as a clause ("is not a readable image").
        hint: what the user can do about it, as an imperative ("replace or delete the file").
    """

    def __init__(self, where: str | PathLike[str], problem: str, hint: str) -> None:
        self.where, self.problem, self.hint = str(where), problem, hint
        super().__init__(f"{printable(self.where)}: {printable(problem)}. Fix: {printable(hint)}.")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.hint)  # how it travels between processes


class Unavailable(Exception):
    """What a row needs cannot be had: its data, or pretrained weights. The message says how to get it."""


class TrainingFailed(Exception):
    """A run that began and cannot be finished.

    Args:
        message: names row, seed and place, and what can be done.
        epoch: the epoch it ended in, from 1; 0 where that is not known.
        step: the step in that epoch, from 1, likewise.
        lr: the learning rate there.
        traceback: where in the user's own code it was raised, as Python shows it; empty where that says nothing.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0, lr: float = 0.0, traceback: str = "") -> None:
        super().__init__(message, epoch, step, lr, traceback)  # exceptions travel between processes by these
        self.epoch, self.step, self.lr, self.traceback = epoch, step, lr, traceback

    def __str__(self) -> str:
        return str(self.args[0])


class TrainingDiverged(TrainingFailed):
    """The loss became infinite or NaN."""


class ProcessDied(TrainingFailed):
    """The process of a run died, so that the run could not note itself why it failed."""


class OutOfMemory(TrainingFailed):
    """The device's memory does not hold a step, nor parts of it."""


def printable(text: str) -> str:
    """Text on one line that no terminal acts on: names of files may hold line ends and escape sequences."""
    return "".join(c if c.isprintable() or category(c) == "Zs" else repr(c)[1:-1] for c in text)
