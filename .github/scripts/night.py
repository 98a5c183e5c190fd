"""Copies the runs that a session tells of in its JUnit file: `night.py JUNIT STORE TO`.

A store that sessions reuse holds the runs of every code it has seen, and its most recent study need not be the one that
the session took (after a change is reverted, it is the reverted one's): so what was run is asked of the session.
"""

import ast
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(junit: Path, store: Path, to: Path) -> None:
    """Copies records, and the notes of runs that failed."""
    (to / "runs").mkdir(parents=True)
    for told in ElementTree.parse(junit).iter("property"):
        if told.get("name") == "cvhw4_run":
            id, _, path = ast.literal_eval(told.get("value", ""))
            copy(store / "runs" / id / Path(path).name, to / "runs" / id)
        elif told.get("name") == "cvhw4_failed":
            id, seed = ast.literal_eval(told.get("value", ""))
            for note in (store / "unfinished" / id).glob(f"seed{seed}-*.json"):
                copy(note, to / "unfinished" / id)


def copy(file: Path, folder: Path) -> None:
    """Copies a file into a folder that may not be there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
