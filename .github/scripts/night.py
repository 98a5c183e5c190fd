"""Copies the runs that a session tells of in its JUnit file: `night.py JUNIT STORE TO`.

A store that sessions reuse holds the runs of every code it has seen, and its most recent study need not be the one that
the session took (after a change is reverted, it is the reverted one's): so what was run is asked of the session.
"""

import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(junit: Path, store: Path, to: Path) -> None:
    """Copies records, and the notes of runs that failed."""
    (to / "runs").mkdir(parents=True)
    for case in ElementTree.parse(junit).iter("testcase"):
        told = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        if "fingerprint" in told:
            stem = f"seed{told['seed']}-{told['fingerprint'][:12]}"
            copy(store / "runs" / told["row"] / f"{stem}.json", to / "runs" / told["row"])
        elif "failed" in told:
            for note in (store / "unfinished" / told["row"]).glob(f"seed{told['seed']}-*.json"):
                copy(note, to / "unfinished" / told["row"])


def copy(file: Path, folder: Path) -> None:
    """Copies a file into a folder that may not be there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
