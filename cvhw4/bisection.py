"""Which commit made a row worse: git's bisection, with one row trained at each commit that it asks for."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.records.schema import RunRecord, stem

_FIRST = re.compile(r"^([0-9a-f]{40,64}) is the first '?bad'? commit", re.MULTILINE)  # quoted from git 2.55 on


def bisect(
    row: str, good: str, bad: str, arguments: Sequence[str], results: Path, say: Callable[[str], object], seeds: int = 3
) -> str:
    """The digits of the first commit at which a row's primary figure (the mean of its best over seeds) is nearer to
    `bad`'s than to `good`'s (where the lowest is best, `bad`'s is the higher one); of several, a line each, where those
    in between cannot be trained.

    Commits are checked out in a temporary folder; the working tree stays as it is. Runs are kept in `results` and taken
    from there again.

    Args:
        arguments: of pytest, as what it collects; paths that no commit has, as of data, are relative to here.
        results: folder of the runs, those of each commit in a folder of its own.
        say: is told of every commit's figure.

    Raises:
        InputError: not a repository or revision, `bad` is not worse, or an end cannot be trained.
    """
    ends = [_git(Path(), "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}") for name in (good, bad)]
    with tempfile.TemporaryDirectory(prefix="cvhw4-") as temporary:
        tree = Path(temporary) / "tree"
        _git(Path(), "worktree", "add", "--detach", "--quiet", str(tree), ends[1])
        try:

            def measure() -> tuple[float, int] | str:
                commit = _git(tree, "rev-parse", "HEAD")
                value = _measure(row, tree, arguments, results.absolute(), seeds, Path(temporary) / "junit.xml")
                say(f"{commit[:12]} {f'cannot be trained ({value})' if isinstance(value, str) else f'{value[0]:.4f}'}")
                return value

            values = []
            for name, commit in zip((bad, good), reversed(ends), strict=True):
                _git(tree, "checkout", "--detach", "--quiet", commit)
                value = measure()
                if isinstance(value, str):
                    hint = "name a commit at which pytest trains it"
                    raise InputError(name, f"has no run of {row} (pytest: {value})", hint)
                values.append(value)
            (low, sign), (high, _) = values
            if not sign * low < sign * high:
                hint = "exchange the two, name others, or give more --seeds"
                raise InputError(bad, f"is not worse than {good}: {low:.4f} and {high:.4f}", hint)
            said = _git(tree, "bisect", "start", "--first-parent", ends[1], ends[0])
            while (found := _FIRST.search(said)) is None and "only 'skip'ped commits left" not in said:
                value = measure()
                worse = not isinstance(value, str) and sign * value[0] < sign * (low + high) / 2
                word = "skip" if isinstance(value, str) else "bad" if worse else "good"
                before, said = said, _git(tree, "bisect", word, expected=(0, 2))
                if said == before:
                    hint = "see in git bisect's manual how this version of git says which commit is the first bad one"
                    raise InputError("git bisect", f"repeats what is not understood ({said.splitlines()[0]})", hint)
            return found[1] if found else "\n".join(re.findall(r"^[0-9a-f]{40,64}$", said, re.MULTILINE))
        finally:
            _git(Path(), "worktree", "remove", "--force", str(tree))


def _measure(
    row: str, tree: Path, arguments: Sequence[str], results: Path, seeds: int, junit: Path
) -> tuple[float, int] | str:
    """The mean over seeds of the row's best primary figure, and -1 where the lowest is best, else 1; what pytest says
    of it where not all of its runs finish."""
    junit.unlink(missing_ok=True)
    # One word each: pytest takes a folder behind an option that it does not know yet for one to collect.
    here = (_from_here(argument, tree) for argument in arguments)
    command = [sys.executable, "-m", "pytest", *here, "-k", row, f"--seeds={seeds}", "--reuse", "-q"]
    results = results / _git(tree, "rev-parse", "HEAD")[:12]  # a loop's text does not say what it calls in the tree
    command += [f"--results={results}", f"--junitxml={junit}", "-p", "no:cacheprovider"]
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, errors="replace")
    lines = [line for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()] or ["nothing"]
    said = next((line for line in reversed(lines) if "error:" in line.lower()), lines[-1])
    figures, sign, studies = [], 1, set[str]()
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return said
    for case in cases:
        told = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        if told.get("row") == row and {"study", "seed", "fingerprint"} <= told.keys():
            file = results / told["study"] / "runs" / row / f"{stem(int(told['seed']), told['fingerprint'])}.json"
            try:
                record = RunRecord.from_json(file.read_bytes(), file)
            except InputError as error:  # of another version
                return str(error)
            figures.append(record.best(record.primary))
            studies.add(record.study)
            sign = -1 if record.primary in record.lower_is_better else 1
    if len(studies) > 1:
        return f"it is a row of the studies {' and '.join(sorted(studies))}; name the file of one behind --"
    return (math.fsum(figures) / seeds, sign) if len(figures) == seeds else said


def _from_here(argument: str, tree: Path) -> str:
    """An argument of pytest; a path in it that is here and not in a checkout as an absolute one."""
    option, equals, path = argument.rpartition("=")
    here = path and Path(path).exists() and not (tree / path).exists()
    outside = here and not _git(Path(), "ls-files", "--", path, expected=(0, 128))  # 128: outside of the repository
    return f"{option}{equals}{Path(path).absolute()}" if outside else argument


def _git(folder: Path, *arguments: str, expected: Sequence[int] = (0,)) -> str:
    """What git prints; raises InputError where it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode not in expected:
        problem = f"failed ({(done.stderr.strip().splitlines() or ['no message'])[-1]})"
        raise InputError(f"git {arguments[0]}", problem, "name two commits of the repository here, the good one first")
    return done.stdout.strip()
