"""The results as they are committed: a session in the checkout adds runs and writes the pages anew."""

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def committed_results(folder: Path) -> Path:
    """The results folder of the last commit, unpacked below a folder; that of the tree where there is no commit."""
    packed = subprocess.run(["git", "archive", "HEAD", "results"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        return ROOT / "results"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "results"
