"""The errors a user can mend. Each message names the file or option at fault and what to do about it."""

from __future__ import annotations

from os import PathLike


class InputError(Exception):
    """Something the user gave is unusable: a folder, a file, an option.

    Args:
        where: the file, folder or option at fault.
        problem: what is wrong with it, as a clause ("is not a readable image").
        mend: what the user can do about it, as an imperative ("replace or delete the file").
    """

    def __init__(self, where: str | PathLike[str], problem: str, mend: str) -> None:
        self.where, self.problem, self.mend = str(where), problem, mend
        super().__init__(f"{self.where}: {problem}. To mend: {mend}.")


class WeightsUnavailable(Exception):
    """No source has the pretrained weights that a row starts from. The message says how to get them."""


class DataUnavailable(Exception):
    """A row needs a data set that was not given. The message says which option gives it."""
