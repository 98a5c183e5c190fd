"""The workflows are valid, and their scripts do what they say, with a `gh` that only remembers what it is asked."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cvhw4.records.samples import pictures_digest
from cvhw4.records.store import Store
from tests.test_compare import failure, runs, save

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / ".github" / "scripts"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
ACTIONS = {"checkout", "cache", "cache/restore", "cache/save", "upload-artifact", "download-artifact", "setup-python"}
GOOD, BAD = [0.90, 0.91, 0.92], [0.50, 0.52, 0.51]

# As gh, of which it knows what the scripts ask for: issues and comments are kept in $GH_STATE.
GH = r"""
import json, os, sys
from pathlib import Path
path, args = Path(os.environ["GH_STATE"]), sys.argv[1:]
state = json.loads(path.read_text()) if path.exists() else {"calls": [], "issues": {}, "comments": {}}
option = lambda name: args[args.index(name) + 1]
content = lambda: Path(option("--body-file")).read_text() if "--body-file" in args else ""
assert os.environ["GH_REPO"] == "me/it" and os.environ["GH_TOKEN"] == "token"
method = option("--method") if "--method" in args else "GET"
state["calls"].append(args[:2] if args[0] == "issue" else ["api", method])
if args[:2] == ["issue", "list"]:
    assert option("--app") == "github-actions" and option("--state") == "open"
    marker = option("--jq").split('"')[1]
    print(next((n for n, i in state["issues"].items() if i["open"] and marker in i["body"]), ""))
elif args[:2] == ["issue", "create"]:
    state["issues"][str(len(state["issues"]) + 1)] = {"open": True, "body": content(), "said": []}
elif args[:2] == ["issue", "comment"]:
    state["issues"][args[2]]["said"].append(content())
elif args[:2] == ["issue", "close"]:
    state["issues"][args[2]]["open"] = False
    state["issues"][args[2]]["said"].append(option("--comment"))
elif args[0] == "api" and method == "GET":
    assert "repos/me/it/issues/7/comments" in args and "github-actions[bot]" in option("--jq")
    marker = option("--jq").split('"')[3]
    print("\n".join(n for n, body in state["comments"].items() if body.startswith(marker)))
elif args[0] == "api":
    (url,) = [a for a in args if a.startswith("repos/")]
    body = Path(option("--field").removeprefix("body=@")).read_text()
    key = url.split("/")[-1] if method == "PATCH" else str(100 + len(state["comments"]))
    assert url == (f"repos/me/it/issues/comments/{key}" if method == "PATCH" else "repos/me/it/issues/7/comments")
    state["comments"][key] = body
else:
    sys.exit(f"gh knows no {args}")
path.write_text(json.dumps(state))
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script in an empty folder; gives the finished process."""
    (tmp_path / "bin").mkdir()
    gh = tmp_path / "bin" / "gh"
    gh.write_text(f"#!{sys.executable}{GH}")
    gh.chmod(0o755)
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "scripts").symlink_to(SCRIPTS)
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    outer = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}

    def call(name, *args, **environment):
        shared = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "GH_STATE": str(tmp_path / "gh.json"),
            "GH_REPO": "me/it",
            "GH_TOKEN": "token",
            "RUN_URL": "page of the run",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        }
        command = [str(SCRIPTS / name), *args]
        env = outer | shared | environment
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    call.gh = lambda: json.loads((tmp_path / "gh.json").read_text())
    call.folder = tmp_path
    return call


# The workflows themselves


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_are_valid(workflow):
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_invalid_workflow_would_be_noticed(tmp_path):
    (tmp_path / "w.yml").write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs_on:"))
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", tmp_path / "w.yml"]
    assert subprocess.run(command, capture_output=True).returncode == 1


def jobs():
    return [(w.stem, name, job) for w in WORKFLOWS for name, job in yaml.safe_load(w.read_text())["jobs"].items()]


def steps(kind):
    return [step for _, _, job in jobs() for step in job["steps"] if kind in step]


def test_there_are_two_workflows():
    assert [(w, job) for w, job, _ in jobs()] == [("ci", "test"), ("nightly", "train"), ("nightly", "tell")]


def test_actions_are_the_well_known_ones_at_a_major_tag():
    used = [step["uses"] for step in steps("uses")]
    for action in used:
        assert re.fullmatch(r"actions/([a-z/-]+)@v\d+", action)[1] in ACTIONS, action


def test_every_command_is_a_make_target_a_script_or_known():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {"git config", "apt-get update", "echo", ".venv/bin/cvhw4 report"}
    for command in (step["run"] for step in steps("run")):
        first = command.split()[0]
        if first == "make":
            assert command.split()[1] in targets
        elif first.startswith(".github/"):
            assert os.access(ROOT / first, os.X_OK), command
        else:
            assert any(command.startswith(k) for k in known), command
        assert "\n" not in command and "${{" not in command  # values come by environment: no text becomes a command


def test_the_commands_of_ci_that_need_no_installation_run(tmp_path):
    for command in (step["run"] for step in steps("run")):
        if command.startswith("echo"):
            env = os.environ | {"GITHUB_OUTPUT": str(tmp_path / "output")}
            subprocess.run(command, shell=True, check=True, env=env)
            assert re.fullmatch(r"day=\d{4}-\d\d-\d\d\n", (tmp_path / "output").read_text())
        if command.startswith("git config"):
            env = os.environ | {"HOME": str(tmp_path), "GITHUB_WORKSPACE": "/somewhere"}
            subprocess.run(command, shell=True, check=True, env=env)
            assert "/somewhere" in (tmp_path / ".gitconfig").read_text()
        if command.startswith("make"):
            dry = [shutil.which("make"), "--dry-run", *shlex.split(command)[1:]]
            assert subprocess.run(dry, cwd=ROOT, capture_output=True).returncode == 0


def nightly(job, action=""):
    """A job of the nightly workflow, or its only step with an action or a script."""
    found = next(found for w, name, found in jobs() if (w, name) == ("nightly", job))
    if not action:
        return found
    (step,) = (s for s in found["steps"] if re.search(rf"{action}(@|\.sh$)", s.get("uses", "") + s.get("run", "")))
    return step


def test_training_ends_in_time_for_what_it_trained_to_be_kept():
    train, step, save = nightly("train"), nightly("train", "train"), nightly("train", "cache/save")
    assert 240 <= step["timeout-minutes"] <= train["timeout-minutes"] - 15
    assert "!cancelled()" in save["if"] and train["steps"].index(save) > train["steps"].index(step)


def test_a_night_that_could_not_start_is_told():
    steps, tell = nightly("train")["steps"], nightly("tell")
    for action in ("compare", "upload-artifact"):
        step = nightly("train", action)
        assert step["if"] == "${{ !cancelled() }}" and steps.index(step) > steps.index(nightly("train", "train"))
    assert "failure()" not in tell["if"] and "success()" not in tell["if"] and "state != ''" in tell["if"]


def taken(step, pictures):
    """What of a night's files a step takes, where pictures may leave the runner and where they may not."""
    files = ("runs/q1_2/a.json", "unfinished/q1_2/a.json", "report.md", "verdicts.md", "report.html", "pictures/a.npz")
    files += ("figures/curves-a.svg", "figures/attention-maps-a.svg", "figures/panels-a.svg")
    chosen = r"\$\{\{ env\.PICTURES == 'true' && '(.*)' \|\| '' \}\}"
    paths = [re.sub(chosen, r"\1" if pictures else "", path) for path in step["with"]["path"].split("\n")]
    assert not any("${{" in path or "*" in path for path in paths)
    within = [path.removesuffix("/").removeprefix("results/full/") for path in paths if path.startswith("results/")]
    return {file for file in files if any(f"{file}/".startswith(f"{path}/") for path in within)}


def test_pictures_leave_the_runner_only_where_the_repository_is_private_or_a_variable_says_so():
    restore, save, upload = (nightly("train", a) for a in ("cache/restore", "cache/save", "upload-artifact"))
    assert nightly("train")["env"]["PICTURES"] == "${{ github.event.repository.private || vars.PICTURES == 'true' }}"
    assert restore["with"]["path"] == save["with"]["path"]  # or nothing is ever restored
    kept = {"runs/q1_2/a.json", "unfinished/q1_2/a.json"}
    assert taken(save, pictures=False) == kept and taken(save, pictures=True) == {*kept, "pictures/a.npz"}
    assert taken(upload, pictures=False) == {"report.md", "verdicts.md"}
    assert taken(upload, pictures=True) == {"report.md", "verdicts.md", "report.html"}


def test_git_takes_no_pictures_but_those_of_embedded_data():
    def git(*args, **settings):
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, **settings)

    if git("rev-parse", "HEAD").returncode:
        pytest.skip("this is no checkout")
    pictures = [
        *("results/full/pictures/a.npz", "results/camvid/quick/pictures/a.npz", "results/full/report.html"),
        *("results/full/figures/attention-maps-q1-celeba.svg", "results/quick/figures/panels-q2-camvid.svg"),
    ]
    others = ["results/full/report.md", "results/full/runs/q1_2/a.json", "results/full/figures/attention-share-a.svg"]
    asked = git("check-ignore", "--no-index", "--stdin", input="\n".join([*pictures, *others]))
    assert asked.stdout.split() == pictures
    tracked = git("ls-files", "--cached", "--ignored", "--exclude-standard").stdout.split()
    assert [Path(path).name for path in tracked if path.endswith(".svg")] == [
        "attention-maps-classification-embedded-portraits.svg",
        "panels-segmentation-embedded-scenes.svg",
    ]
    shown = {Path(path).stem for path in tracked if path.endswith(".npz")}
    runs = [r for r in Store(ROOT / "results", "quick").load() if r.data.embedded]
    embedded = {pictures_digest(r.data.fingerprint, r.settings["recipe"]["size"]) for r in runs}
    assert len(shown) == 2 and len(tracked) == 4 and shown <= embedded


def test_pip_caches_where_a_containers_root_may():
    """Its home folder there is another user's, which pip takes for a reason to cache nothing."""
    (job,) = (job for w, _, job in jobs() if w == "ci")
    (cache,) = (s for s in job["steps"] if s.get("uses", "").startswith("actions/cache@"))
    assert "container" in job and cache["with"]["path"] == "${{ env.PIP_CACHE_DIR }}"
    assert job["env"]["PIP_CACHE_DIR"].startswith("/root/")


def test_only_a_hosted_runner_may_write_and_it_runs_no_pull_requests_code():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text())
    train, tell = workflow["jobs"]["train"], workflow["jobs"]["tell"]
    assert workflow["permissions"] == {} and train["permissions"] == {"contents": "read"}
    assert "self-hosted" in train["runs-on"] and tell["runs-on"] == "ubuntu-latest"
    assert "head.repo.full_name == github.repository" in train["if"]
    checkout = next(s for s in tell["steps"] if s.get("uses", "").startswith("actions/checkout"))
    assert "base.sha" in checkout["with"]["ref"]
    assert not any("secrets." in w.read_text() for w in WORKFLOWS)


# The scripts


def test_scripts_pass_shellcheck():
    scripts = sorted(SCRIPTS.glob("*.sh"))
    assert len(scripts) == 6
    done = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all("\nset -euo pipefail\n" in s.read_text() for s in scripts)


def test_the_first_regression_opens_an_issue_the_second_comments_recovery_closes(script):
    (script.folder / "c.md").write_text("**2 figures worse**\n")
    for state, call in (
        ("none", []),
        ("fine", []),
        ("regression", [["issue", "create"]]),
        ("regression", [["issue", "comment"]]),
        ("none", []),
        ("failed", []),
        ("fine", [["issue", "close"]]),
        ("fine", []),
        ("broken", [["issue", "create"]]),
        ("broken", [["issue", "comment"]]),
    ):
        before = len(script.gh()["calls"]) if (script.folder / "gh.json").exists() else 0
        done = script("issue.sh", "c.md", STATE=state)
        assert done.returncode == 0, done.stderr
        assert script.gh()["calls"][before:] == [["issue", "list"], *call]
    first = script.gh()["issues"]["1"]
    assert "**2 figures worse**" in first["body"] and "page of the run" in first["body"] and not first["open"]
    assert "**2 figures worse**" in first["said"][0] and "page of the run" in first["said"][1]
    assert list(script.gh()["issues"]) == ["1", "2"]
    assert "worse than" in first["body"] and "nothing that could be compared" in script.gh()["issues"]["2"]["body"]


def test_an_unknown_state_is_refused(script):
    done = script("issue.sh", "c.md", STATE="$(touch x)")
    assert done.returncode == 4 and "::error::" in done.stdout and not (script.folder / "x").exists()


def test_a_comment_is_made_and_then_edited(script):
    for text in ("**first**\n", "**second**\n"):
        (script.folder / "c.md").write_text(text)
        done = script("comment.sh", "c.md", NUMBER="7")
        assert done.returncode == 0, done.stderr
    assert script.gh()["calls"] == [["api", "GET"], ["api", "POST"], ["api", "GET"], ["api", "PATCH"]]
    (comment,) = script.gh()["comments"].values()
    assert "second" in comment and "first" not in comment and "page of the run" in comment


def test_a_missing_comparison_fails_and_asks_for_nothing(script):
    assert script("issue.sh", "none.md", STATE="regression").returncode != 0
    assert script("comment.sh", "none.md", NUMBER="7").returncode != 0
    assert script.gh()["calls"] == [["issue", "list"]]


def night(script, values, *rows, tests="passed"):
    shutil.rmtree(script.folder / "night", ignore_errors=True)
    save(script.folder / "night", [r for row in rows or ("q1_2",) for r in runs(values, row)], "full")
    (script.folder / "night" / "full" / "runs").mkdir(parents=True, exist_ok=True)
    (script.folder / "night" / "tests").write_text(f"{tests}\n")


def outcome(script, **environment):
    (script.folder / "output").unlink(missing_ok=True)
    done = script("compare.sh", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return (script.folder / "output").read_text(), (script.folder / "night" / "comparison.md").read_text()


def test_nights_are_held_against_the_last_good_one(script):
    night(script, GOOD)
    state, text = outcome(script)  # an empty store is no error
    assert state == "state=none\n" and "no earlier night" in text
    for _ in range(2):  # still worse, though no worse than yesterday
        night(script, BAD)
        state, text = outcome(script, TIME_LIMIT="1.3")
        assert state == "state=regression\n" and text.startswith("**2 figures worse**")
    night(script, GOOD)
    assert outcome(script)[0] == "state=fine\n"
    night(script, BAD)
    state, text = outcome(script, ACCEPT="true")
    assert state == "state=fine\n" and "2 figures worse" in text and "Taken as it is" in text
    assert [r.best("accuracy") for r in Store(script.folder / "last", "full").load()] == BAD


def test_a_night_whose_tests_failed_is_no_good_one(script):
    """It neither becomes the last good night nor closes the issue, unless it is taken as it is."""
    night(script, GOOD, tests="failed")
    assert outcome(script)[0] == "state=failed\n" and not (script.folder / "last").exists()
    night(script, BAD)
    assert outcome(script)[0] == "state=none\n"
    night(script, GOOD, tests="failed")
    state, text = outcome(script)
    assert state == "state=failed\n" and text.startswith("**2 figures better**") and "Tests failed" in text
    assert [r.best("accuracy") for r in Store(script.folder / "last", "full").load()] == BAD
    (script.folder / "night" / "tests").unlink()  # what told nothing did not pass
    assert outcome(script)[0] == "state=failed\n"
    assert outcome(script, ACCEPT="true")[0] == "state=fine\n"
    assert [r.best("accuracy") for r in Store(script.folder / "last", "full").load()] == GOOD


def test_a_row_that_a_night_lacks_is_worse_and_stays_in_what_later_nights_are_held_against(script):
    night(script, GOOD, "q1_2", "q1_3")
    outcome(script)
    for _ in range(2):
        night(script, GOOD, "q1_2", "q1_5")
        state, text = outcome(script)
        assert state == "state=regression\n" and "Only in A: q1_3-scratch" in text
    assert {r.row for r in Store(script.folder / "last", "full").load()} == {"q1_2-finetune", "q1_3-scratch"}


def test_a_night_without_runs_is_worse(script):
    night(script, [])
    assert outcome(script)[0] == "state=regression\n" and not (script.folder / "last").exists()


def test_a_night_that_trained_nothing_is_broken_and_says_why(script):
    night(script, GOOD)
    outcome(script)
    for code, why in (("", "No PORTRAITS"), ("1", "No test has run"), (None, "Training was broken off")):
        shutil.rmtree(script.folder / "night")
        if code is not None:
            (script.folder / "Makefile").write_text(MAKEFILE)
            folder = "." if code else ""
            done = script("train.sh", PORTRAITS=folder, CAMVID=folder, WEIGHTS="", JUNIT="", CODE=code)
            assert done.returncode == 4
        (script.folder / "output").unlink()
        done = script("compare.sh", ACCEPT="true")
        assert done.returncode == 4 and f"::error::{why}" in done.stdout
        assert (script.folder / "output").read_text() == "state=broken\n"
        assert (script.folder / "night" / "comparison.md").read_text().startswith(why)
        assert [r.best("accuracy") for r in Store(script.folder / "last", "full").load()] == GOOD


def test_a_comparison_that_breaks_is_an_error_and_keeps_the_last_night(script):
    night(script, GOOD)
    outcome(script)
    night(script, BAD)
    (script.folder / "output").unlink()
    done = script("compare.sh", TIME_LIMIT="soon")
    assert done.returncode == 4 and "::error::" in done.stdout
    assert (script.folder / "output").read_text() == "state=broken\n"
    assert "The comparison failed" in (script.folder / "night" / "comparison.md").read_text()
    (script.folder / "python").write_text("#!/bin/sh\nexit 1\n")  # a crash has the exit code of a regression
    (script.folder / "python").chmod(0o755)
    assert script("compare.sh", PYTHON=str(script.folder / "python")).returncode == 4
    assert [r.best("accuracy") for r in Store(script.folder / "last", "full").load()] == GOOD


@pytest.mark.parametrize(
    ("tests", "state", "fails"),
    [("passed", "fine", 0), ("passed", "none", 0), ("failed", "fine", 1), ("passed", "regression", 1)],
)
def test_the_verdict_is_of_tests_and_comparison(script, tests, state, fails):
    (script.folder / "night").mkdir()
    (script.folder / "night" / "tests").write_text(tests)
    (script.folder / "night" / "state").write_text(state)
    assert script("verdict.sh").returncode == fails


def test_missing_data_is_a_clear_failure(script):
    for environment, message in (
        ({}, "No PORTRAITS: set the repository variable PORTRAITS"),
        ({"PORTRAITS": "gone", "CAMVID": "."}, "PORTRAITS names gone, which is no folder"),
        ({"PORTRAITS": ".", "CAMVID": ""}, "No CAMVID"),
        ({"PORTRAITS": ".", "CAMVID": ".", "WEIGHTS": "gone"}, "WEIGHTS names gone"),
    ):
        done = script("train.sh", **({"PORTRAITS": "", "CAMVID": "", "WEIGHTS": ""} | environment))
        assert done.returncode == 4 and f"::error::{message}" in done.stdout
        assert (script.folder / "night" / "comparison.md").read_text().startswith(message)


# Stands in for `make gpu-full`: what it is called with, a JUnit file, and its exit code.
MAKEFILE = """
gpu-full:
\t@printf '%s\\n' $(ARGS) > arguments
\t@test -z "$$JUNIT" || cp junit night/junit.xml
\t@exit $$CODE
"""


def case(**told):
    properties = "".join(f'<property name="{name}" value="{value}"/>' for name, value in told.items())
    return f"<testcase><properties>{properties}</properties></testcase>"


def test_training_gathers_the_runs_of_the_session(script):
    odd = script.folder / "it's a $HOME; folder"
    odd.mkdir()
    (script.folder / "Makefile").write_text(MAKEFILE)
    store = Store(script.folder / "results", "full")
    old = [replace(r, configuration="a" * 64, fingerprint="1" * 64, study="full") for r in runs([0.1])]
    for r in (*old, *(replace(r, study="full") for r in runs(GOOD))):
        store.save(r)
    store.fail(replace(failure(2), study="full"))
    cases = "".join(case(row=r.row, seed=r.seed, fingerprint=r.fingerprint, device="a GPU") for r in runs(GOOD))
    failed = case(row="q1_3-scratch", seed=2, failed="loss nan") + case()
    (script.folder / "junit").write_text(f"<testsuites><testsuite>{cases}{failed}</testsuite></testsuites>")
    data = {"PORTRAITS": str(odd), "CAMVID": ".", "WEIGHTS": "", "SEEDS": "2"}
    for code, tests in (("0", "passed"), ("1", "failed")):
        done = script("train.sh", **data, JUNIT="yes", CODE=code)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (script.folder / "night" / "tests").read_text() == f"{tests}\n"
        gathered = Store(script.folder / "night", "full")
        assert [r.best("accuracy") for r in gathered.load()] == GOOD  # and not the older study
        assert [f.seed for f in gathered.failures()] == [2]
    arguments = (script.folder / "arguments").read_text().splitlines()
    assert arguments[:2] == ["--seeds", "2"] and arguments[-4:] == ["--portraits", str(odd), "--camvid", "."]
    done = script("train.sh", **data, JUNIT="", CODE="1")
    assert done.returncode == 4 and "No test has run" in done.stdout


def test_the_summary_shows_what_moved_and_the_tables(script):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    save(script.folder / "results", runs(GOOD))
    for command in (["init"], ["add", "results"], ["commit", "-m", "x"]):
        subprocess.run([*git, *command], cwd=script.folder, check=True, capture_output=True)
    assert script("summary.sh").returncode == 0
    assert "No report was written." in (script.folder / "summary").read_text()
    (script.folder / "results" / "quick" / "report.md").write_text(
        "# Tables\n![a curve](figures/a.svg)\\\nits caption\n" + "x\n" * 1_000_000
    )
    assert script("summary.sh").returncode == 0
    text = (script.folder / "summary").read_text()
    assert "**2 figures the same to the bit**" in text and "# Tables\nits caption\n" in text
    assert "x\nx\n" in text and len(text) < 2**20
