"""A user's study in CI: the first half of docs/nightly.md is followed, with networks of one layer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cvhw4.discovery import find_study
from tests.helpers import ROOT
from tests.helpers.records import git

TOOLS = Path(sys.executable).parent
PAGE, ROWS = (
    re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    for name in ("nightly", "rows")
)
PULL_REQUEST, NIGHTLY = (text for language, text in PAGE if language == "yaml")
(REQUIREMENTS,) = (text for _, text in PAGE if "cvhw4 @" in text)
(TESTS,) = (text for language, text in ROWS if "bounds.missed" in text)
NETWORKS = """
class Mean(nn.Module):
    '''Knows the brightness, or the pictures' number of channels.'''

    def __init__(self, classes, seen):
        super().__init__()
        self.head, self.seen = nn.Linear(3, classes), seen

    def forward(self, x):
        return self.head(x.mean((2, 3)) * self.seen)


insects ="""
MADE = "import pathlib as p\nfrom tests.helpers.studies import pictures\npictures(p.Path('photos'), train=8, val=8)\n"


@pytest.mark.parametrize("checker", [["check-jsonschema", "--builtin-schema", "vendor.github-workflows"], ["zizmor"]])
@pytest.mark.parametrize("text", [PULL_REQUEST, NIGHTLY], ids=["pull request", "nightly"])
def test_the_workflows_shown_are_valid_and_safe(tmp_path, checker, text):
    program = shutil.which(checker[0], path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"{checker[0]} is not installed")
    file = tmp_path / "shown.yml"
    file.write_text(text)
    options = ["--offline", "--quiet"] if checker[0] == "zizmor" else []
    done = subprocess.run([program, *checker[1:], *options, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for uses in re.findall(r"uses: (.*)", text):  # the versions that this repository's have
        assert any(uses in path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")), uses


def test_the_requirements_shown_are_the_versions_that_are_tested():
    cvhw4, *others = REQUIREMENTS.splitlines()
    assert Requirement(cvhw4).name == "cvhw4" and {*others} <= {*(ROOT / "constraints.txt").read_text().splitlines()}


def test_the_examples_commands_know_its_study():
    assert find_study(None, ROOT / "examples" / "own-study").name == "insects"


def test_git_passes_over_what_the_jobs_write(tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "own-study" / ".gitignore", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(tmp_path)
    for written in ("new/a", "nights/a", ".venv/a", "results/insects/report.html", "junit.xml"):
        Path(written).parent.mkdir(parents=True, exist_ok=True)
        Path(written).touch()
    git("init"), git("add", ".")
    assert subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout == ".gitignore\n"


@pytest.mark.integration
def test_a_study_is_calibrated_and_its_builds_fail_where_they_should(tmp_path, monkeypatch):
    here, store = tmp_path / "insects", tmp_path / "store"
    shutil.copytree(ROOT / "examples" / "own-study", here, ignore=shutil.ignore_patterns("photos", "results"))
    monkeypatch.chdir(here)
    study = Path("test_insects.py")
    text = study.read_text().partition("def test_row")[0] + TESTS
    text = text.replace("metrics={", 'bounds="bounds.toml",\n    metrics={').replace("\ninsects =", NETWORKS)
    text = text.replace('Row(LITE0, start="random")', "Row(partial(Mean, seen=0))")
    text = text.replace("Row(LITE0)", "Row(partial(Mean, seen=1))").replace("size=64", 'size=32, optimizer="adamw"')
    text = text.replace("import pytest", "from functools import partial\n\nimport pytest\nfrom torch import nn", 1)
    study.write_text(text.replace("lr=1e-3", "lr=1e-1"))
    Path("make_photos.py").write_text(MADE)
    Path("requirements.txt").write_text(REQUIREMENTS)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CVHW4_", "PYTEST_", "CI"))}
    env = inherited | {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env |= {"STORE": str(store), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "CVHW4_CACHE": str(tmp_path / "c")}
    env |= {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(line):
        line = line.replace("--device cuda", "--device cpu").replace("--seeds 20", "--seeds 8")
        done = subprocess.run(["bash", "-e", "-c", line], env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def job(workflow):
        (found,) = yaml.safe_load(workflow)["jobs"].values()
        lines = [step["run"] for step in found["steps"] if "run" in step and step.get("name") != "Install"]
        return [run(line) for line in lines]

    assert run("python make_photos.py && git init -b main && git add . && git commit -m study")[0] == 0
    (once,) = (block for language, block in PAGE if language == "sh" and "git add" in block)
    code, told = run(once)
    assert code == 0, told
    assert "best accuracy" in Path("bounds.toml").read_text()
    committed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert "bounds.toml" in committed and "requirements.txt" in committed and "runs/finetune/seed7" in committed
    assert not re.search(r"photos/|pictures/|report\.html|attention-maps", committed)

    git("commit", "--allow-empty", "-m", "a change")
    shutil.rmtree("photos")
    codes, told = zip(*job(PULL_REQUEST), strict=True)
    assert codes == (0, 0, 0, 0), told
    assert "8 figures the same to the bit" in (tmp_path / "summary").read_text() and Path("junit.xml").exists()
    shutil.move("photos", store / "photos")
    shutil.copytree("results", store / "results")  # of an earlier night
    codes, told = zip(*job(NIGHTLY), strict=True)
    assert codes == (0, 0, 0, 0), told
    assert [*store.glob("history/nights/*")] and len([*store.glob("results/insects/runs/finetune/*.json")]) == 8

    study.write_text(study.read_text().replace("lr=1e-1", "lr=1e-6"))
    codes, told = zip(*job(PULL_REQUEST), strict=True)
    assert codes == (0, 1, 0, 0), told  # three seeds are too few for compare to call the fall sure
    assert "FAILED test_insects.py::test_row" in told[1] and "its bound [" in told[1]
    assert "FAILED test_insects.py::test_claim" in told[1]
