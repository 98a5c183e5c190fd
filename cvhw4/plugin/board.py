"""Notes that the workers of a session leave each other: which runs are being trained, and what became of the others."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cvhw4.files import write_atomically

Run = tuple[str, str, int]  # names of the study and the row, seed

POLL_SECONDS = 0.2  # between looks at what other workers have finished
IDLE_TIMEOUT_SECONDS = 20.0  # without a run in any worker's hands, after which those that are missing will not come


class SessionBoard:
    """What has become of the runs of a session, for the tests of this worker and of others.

    Args:
        folder: of this session alone, where its workers leave the notes; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: Run) -> None:
        """Notes that a worker is at a run."""
        note = self._note(run, "begun")
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(os.getpid()))

    def finish(self, run: Run, record: Path | None = None, diverged: str = "", *, overwrite: bool = True) -> None:
        """Notes that a run is over.

        Args:
            record: the file of its record; None where it ended without one.
            diverged: how its training diverged, if it did.
            overwrite: whether to replace a note that is there.
        """
        note = self._note(run)
        if overwrite or not note.exists():
            content = {"record": str(record.resolve()) if record else None, "diverged": diverged}
            write_atomically(note, json.dumps(content))

    def wait(self, runs: Iterable[Run]) -> bool:
        """Waits until runs are over; False if some never will be: no worker has been at any run for a while.

        Claims are judged last on every worker, so a run that is waited for is as a rule in another worker's hands, and
        ahead of any claim there. But a crashed worker's runs go to the end of another's list, and some ways of --dist
        hand claims out first: then nobody is at a run, and waiting would not end.
        """
        wanted, idle_since = list(runs), None
        while not self.over(wanted):
            if any(map(_is_at_it, self.folder.glob("*/*/*.begun"))):
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE_TIMEOUT_SECONDS:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def over(self, runs: Iterable[Run]) -> bool:
        """Whether runs are over."""
        return all(self._note(run).exists() for run in runs)

    def records(self, runs: Iterable[Run]) -> list[Path]:
        """The files of the records of those runs that have one by now."""
        return [Path(note["record"]) for note in self._read(map(self._note, runs)) if note["record"] is not None]

    def diverged(self, study: str, row: str) -> list[str]:
        """How a row's runs diverged, those that did."""
        notes = self._read(sorted((self.folder / study / row).glob("*.json")))
        return [note["diverged"] for note in notes if note["diverged"]]

    def remove(self) -> None:
        """Deletes the notes."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, run: Run, kind: str = "json") -> Path:
        study, row, seed = run
        return self.folder / study / row / f"seed{seed}.{kind}"

    @staticmethod
    def _read(notes: Iterable[Path]) -> Iterator[dict[str, Any]]:
        return (json.loads(note.read_text("utf-8")) for note in notes if note.exists())


def _is_at_it(begun: Path) -> bool:
    """Whether a worker is at the run of a note still: the run is not over, and the worker lives."""
    if begun.with_suffix(".json").exists():
        return False
    try:
        os.kill(int(begun.read_text() or os.getpid()), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):  # another user's process, or a note that is being written
        pass
    return True
