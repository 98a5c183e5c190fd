"""The workflows are valid, and the one script that knows GitHub does what it says, with a `gh` that only remembers what
it is asked; tests/test_nights.py has the nights themselves."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from cvhw4.records.store import Store
from tests.helpers import ROOT
from tests.helpers.nightly import HOMEWORK, SCRIPTS, published, script
from tests.helpers.records import git, runs, save

pytest_plugins = ["tests.helpers.nightly"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

# As gh, of which it knows what the script asks for: issues and comments are kept in $GH_STATE.
GH = r"""
import json, os, re, sys
from pathlib import Path
path, args = Path(os.environ["GH_STATE"]), sys.argv[1:]
if args == ["auth", "setup-git"]:
    sys.exit(0)
assert args.pop(0) == "api" and os.environ["GH_TOKEN"] == "token"
state = json.loads(path.read_text()) if path.exists() else {"calls": [], "issues": [], "comments": {}}
method = args[args.index("--method") + 1] if "--method" in args else "GET"
(address,) = [a.removeprefix("repos/me/it/") for a in args if a.startswith("repos/me/it/")]
fields = dict(args[i + 1].split("=", 1) for i, a in enumerate(args) if a == "-f")
body = json.loads(sys.stdin.read()) if "--input" in args else {}
state["calls"].append([method, address])
issue = re.fullmatch(r"issues/(\d+)", address)
said = re.fullmatch(r"issues/(\d+)/comments", address)
if (method, address) == ("GET", "issues"):
    assert fields == {"per_page": "100", "state": "open", "creator": "github-actions[bot]"} and "--paginate" in args
    there = [i for i in state["issues"] if i["state"] == "open" and i["by"] == "github-actions[bot]"]
    print("".join(json.dumps(there[i : i + 1]) for i in range(max(1, len(there)))))  # a page each
elif (method, address) == ("POST", "issues") and body.get("assignees") == ["gone"]:
    sys.exit("gh: Validation Failed (HTTP 422)")
elif (method, address) == ("POST", "issues"):
    body |= {"number": len(state["issues"]) + 1, "state": "open", "by": "github-actions[bot]", "said": []}
    state["issues"].append(body)
elif method == "PATCH" and issue:
    state["issues"][int(issue[1]) - 1].update(body)
elif said and method == "POST" and said[1] != "7":
    state["issues"][int(said[1]) - 1]["said"].append(body["body"])
elif said and method == "POST":
    state["comments"][str(100 + len(state["comments"]))] = body["body"]
elif said:
    mine = [{"id": i, "user": {"login": "github-actions[bot]"}, "body": b} for i, b in state["comments"].items()]
    print(json.dumps([{"id": 1, "user": {"login": "somebody"}, "body": "<!-- cvhw4-comparison -->"}, *mine]))
elif method == "PATCH" and address.startswith("issues/comments/"):
    state["comments"][address.split("/")[-1]] = body["body"]
elif (method, address) == ("GET", "pulls/7"):
    print(json.dumps({"head": {"sha": "a" * 40}}))
elif method == "GET" and address.startswith("actions/workflows/"):
    print(json.dumps({"state": "disabled_manually" if "weekly" in address else "disabled_inactivity"}))
elif method == "PUT" and re.fullmatch(r"actions/workflows/\w+\.yml/enable", address):
    pass
else:
    sys.exit(f"gh knows no {sys.argv}")
path.write_text(json.dumps(state))
"""

github = script("github")


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """GitHub's side: `gh()` is what it remembers, `gh(*arguments)` what the script does."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "gh"
    fake.write_text(f"#!{sys.executable} -S\n{GH}")
    fake.chmod(0o755)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    shared = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "GH_STATE": str(tmp_path / "gh.json"),
        "GH_REPO": "me/it",
        "GH_TOKEN": "token",
        "RUN_URL": "page of the run",
        "HISTORY_REMOTE": str(tmp_path / "remote.git"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    for name in ("PULL_REQUEST", "COMMIT", "ASIDE", "LABEL", "ASSIGNEE", "RESULT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **environment):
        if not arguments:
            return json.loads((tmp_path / "gh.json").read_text())
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return github.main(list(arguments))

    return call


# The workflows themselves


@cache
def workflow(name):
    """A workflow; "on" is what YAML 1.1 reads as True."""
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(*jobs):
    """The steps of jobs, of all where none is given."""
    every = [job for w in WORKFLOWS for job in workflow(w.stem)["jobs"].values()]
    return [step for job in jobs or every for step in job["steps"]]


def uses(job, action):
    (step,) = (step for step in steps(job) if action in step.get("uses", ""))
    return step


def test_only_what_was_built_installed_and_tried_is_published_under_the_tags_version(tmp_path):
    release = workflow("release")
    assert release[True] == {"push": {"tags": ["v*"]}} and release["permissions"] == {}
    build, install, publish = release["jobs"].values()
    assert (install["needs"], publish["needs"]) == ("build", "install")
    assert build["steps"][0]["with"]["fetch-depth"] == 0  # the version is the tag's
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"] == "pypi"
    assert not any("run" in step or "checkout" in step["uses"] for step in publish["steps"])  # none of our code
    (check,) = (step["run"] for step in build["steps"] if "tag" in step.get("name", ""))
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "cvhw4-1.2.3.tar.gz").touch()
    for tag, code in (("v1.2.3", 0), ("v1.2.4", 1)):
        assert subprocess.run(check, shell=True, cwd=tmp_path, env={"GITHUB_REF_NAME": tag}).returncode == code


def test_every_python_that_the_package_names_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in project["classifiers"]]
    pythons = [match[1] for match in named if match]
    assert project["requires-python"] == f">={pythons[0]}"
    for job in (workflow("ci")["jobs"]["test"], workflow("release")["jobs"]["install"]):
        assert job["strategy"]["matrix"]["python"] == pythons


def test_zizmor_finds_nothing():
    """What attacks workflows: templates, permissions, credentials, unpinned actions."""
    zizmor = shutil.which("zizmor", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if zizmor is None:
        pytest.skip("zizmor is not installed")
    done = subprocess.run([zizmor, "--offline", "--quiet", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_a_make_target_a_script_or_known(tmp_path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {"git config", "apt-get update", ".venv/bin/cvhw4 report", "exec python3 .github/scripts/night.py run"}
    known.add('test -f "dist/cvhw4-${GITHUB_REF_NAME#v}.tar.gz"')
    for command in (step["run"] for step in steps() if "run" in step):
        first = command.split()[0]
        if first == "make":
            assert {word for word in shlex.split(command)[1:] if "=" not in word} <= targets, command
        elif first.startswith(".github/"):
            assert os.access(ROOT / first, os.X_OK), command
        else:
            assert any(command.startswith(k) for k in known), command
        assert "\n" not in command and "${{" not in command  # values come by environment: no text becomes a command
        if command.startswith("git config"):
            env = os.environ | {"HOME": str(tmp_path), "GITHUB_WORKSPACE": "/somewhere"}
            subprocess.run(command, shell=True, check=True, env=env)
            assert "/somewhere" in (tmp_path / ".gitconfig").read_text()


def test_a_night_that_left_nothing_is_told():
    """The runner is offline, the job is cancelled, or the disk is full: the job that tells runs all the same."""
    train, tell = (workflow("nightly")["jobs"][name] for name in ("train", "tell"))
    assert uses(tell, "download-artifact")["continue-on-error"]
    assert all("always()" in part["if"] for part in (tell, uses(train, "upload-artifact")))
    limit = train["timeout-minutes"].removeprefix("${{ fromJSON(").removesuffix(") }}")
    assert train["env"]["JOB_MINUTES"] == f"${{{{ {limit} }}}}"  # of which the night leaves some to tell of it


def test_only_the_default_branch_changes_the_history_and_no_night_goes_on_without_it():
    """Another branch, other data and pull requests stand aside. A branch of the history that cannot be read fails the
    job before it trains."""
    nightly = workflow("nightly")
    aside = nightly["env"]["ASIDE"]
    assert "inputs.portraits || inputs.camvid || inputs.weights || " in aside
    other = "github.event_name == 'workflow_dispatch' && github.ref_name != github.event.repository.default_branch)"
    assert f"{other} && 'trial' || ''" in aside
    assert not any("ASIDE" in job["env"] for job in nightly["jobs"].values())
    (read,) = (s for s in nightly["jobs"]["train"]["steps"] if "history's branch" in s.get("name", ""))
    assert read["if"] == "${{ needs.plan.outputs.branch == 'true' }}" and "continue-on-error" not in read


def test_nights_start_by_schedule_or_hand_and_only_where_they_are_set_up():
    nightly, watchdog = workflow("nightly"), workflow("watchdog")
    assert "vars.PORTRAITS != ''" in nightly["jobs"]["plan"]["if"]
    assert "vars.PORTRAITS != ''" in watchdog["jobs"]["watch"]["if"]
    assert set(nightly[True]) == {"schedule", "workflow_dispatch"}  # no event of a stranger's
    assert set(watchdog[True]) == {"schedule", "push"}
    scheduled = {w.name for w in WORKFLOWS if "schedule" in workflow(w.stem)[True]}
    assert scheduled == set(github.WORKFLOWS)  # what the watchdog keeps from being switched off


def test_pictures_leave_the_runner_only_where_the_repository_is_private_or_a_variable_says_so(box):
    env = workflow("nightly")["jobs"]["train"]["env"]
    assert env["PICTURES"] == "${{ github.event.repository.private || vars.PICTURES == 'true' }}"
    for name in ("report.md", "report.html", "pictures/a.npz"):
        path = Path("store/results/full") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    box()
    files = {str(p.relative_to("night")) for p in Path("night").rglob("*") if p.is_file()}
    assert "report.md" in files and not any(f.endswith((".npz", "report.html")) for f in files)
    box(PICTURES="true")
    assert Path("night/report.html").exists() and not list(Path("night").rglob("*.npz"))


def test_git_takes_no_pictures_but_those_of_embedded_data():
    def asked(*args, **settings):
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, **settings).stdout.split()

    if not asked("rev-parse", "HEAD"):
        pytest.skip("this is no checkout")
    pictures = [
        *("results/full/pictures/a.npz", "results/camvid/quick/pictures/a.npz", "results/full/report.html"),
        *("results/full/figures/attention-maps-q1-celeba.svg", "results/quick/figures/panels-q2-camvid.svg"),
    ]
    others = ["results/full/report.md", "results/full/runs/q1_2/a.json", "results/full/figures/attention-share-a.svg"]
    assert asked("check-ignore", "--no-index", "--stdin", input="\n".join([*pictures, *others])) == pictures
    tracked = [Path(path) for path in asked("ls-files", "--cached", "--ignored", "--exclude-standard")]
    assert [path.name for path in tracked if path.suffix == ".svg"] == [
        "attention-maps-classification-generated-portraits.svg",
        "panels-segmentation-generated-scenes.svg",
    ]
    shown = {path.stem for path in tracked if path.suffix == ".npz"}
    store = Store(ROOT / "results", "quick")
    embedded = {s.pictures for r in store.load() if r.data.embedded and (s := store.samples(r)) is not None}
    assert len(shown) == 6 and len(tracked) == 8 and shown == embedded


def test_only_hosted_runners_may_write_and_they_run_no_pull_requests_code():
    jobs = workflow("nightly")["jobs"]
    assert workflow("nightly")["permissions"] == {} == workflow("watchdog")["permissions"]
    assert jobs["train"]["permissions"] == {"contents": "read"} and "self-hosted" in jobs["train"]["runs-on"]
    for job in (jobs["plan"], jobs["tell"]):
        assert job["runs-on"] == "ubuntu-latest" and "ref" not in uses(job, "checkout")["with"]
    assert not any("secrets." in w.read_text() for w in WORKFLOWS)
    others = [p for p in SCRIPTS.iterdir() if p.name != "github.py" and p.is_file()]
    assert [p.name for p in others] == ["night.py"]  # runs on any machine: it knows nothing of GitHub
    assert not re.search(r"github|\bgh\b", others[0].read_text(), re.IGNORECASE)


# The script that knows GitHub


def left(state, text="**2 figures worse**\n", url="page of the run", **entry):
    """What a night leaves in told/."""
    shutil.rmtree("told", ignore_errors=True)
    Path("told").mkdir()
    entry = {"version": 1, "started": "2026-01-02T01:17:00+00:00", "state": state, "why": "", "url": url} | entry
    Path("told/night.json").write_text(json.dumps(entry))
    Path("told/comparison.md").write_text(text)


def asked(gh, since=0):
    return [call for call in gh()["calls"][since:] if call[0] != "GET" and not call[1].startswith("actions/")]


def test_one_issue_is_opened_edited_and_closed(gh):
    for state, call in (
        ("first", []),
        ("fine", []),
        ("failed", [["POST", "issues"]]),
        ("regression", [["PATCH", "issues/1"]]),
        ("broken", [["PATCH", "issues/1"]]),
        ("fine", [["POST", "issues/1/comments"], ["PATCH", "issues/1"]]),
        ("fine", []),
        ("broken", [["POST", "issues"]]),
    ):
        since = len(gh()["calls"]) if Path("gh.json").exists() else 0
        left(state, f"**{state}**\n")
        assert gh("tell", "told", LABEL="nightly", ASSIGNEE="me") == 0
        assert asked(gh, since) == call
        if state == "broken" and call[0][0] == "PATCH":
            body = gh()["issues"][0]["body"]
            assert "**broken**" in body and "**regression**" not in body  # the latest night's alone
            assert gh("plan") == 0 and "held=true" in Path("output").read_text()  # it has been worse
    first, _ = gh()["issues"]
    assert (first["state"], first["labels"], first["assignees"]) == ("closed", ["nightly"], ["me"])
    assert first["said"][0].startswith("Nothing is worse") and "page of the run" in first["said"][0]
    Path("output").unlink()
    assert gh("plan") == 0 and Path("output").read_text() == "held=false\nbranch=true\n"  # broken, never worse
    assert "**regression**" in Path("summary").read_text()


def test_an_accepted_regression_closes_the_issue_by_its_reason(gh):
    left("regression")  # whose issue is opened also where its assignee has left
    assert gh("tell", "told", LABEL="nightly", ASSIGNEE="gone") == 0
    (issue,) = gh()["issues"]
    assert issue["title"] and "assignees" not in issue
    left("fine", accepted={"q1_2-finetune": "fewer epochs"})
    gh("tell", "told")
    (issue,) = gh()["issues"]
    assert issue["state"] == "closed" and "q1_2-finetune: fewer epochs" in issue["said"][0]
    assert "Nothing is worse" not in issue["said"][0]


@pytest.mark.parametrize(
    "entry",
    [
        "offline",
        None,
        '{"state"',
        '{"state": "fine", "started": "../../elsewhere"}',
        '{"state": "fine", "started": "2026-01-01T01:17:00+00:00", "url": "page of an earlier run"}',
        '{"state": "$(touch x)", "started": "x"}',
    ],
)
def test_a_machine_that_left_nothing_is_a_broken_night(gh, entry):
    """Offline, cancelled, with a full disk, or with an entry that is none."""
    if entry != "offline":
        left("fine")
        Path("told/night.json").unlink()
        Path("told/update/nights").mkdir(parents=True)
        Path("told/update/nights/2026-01-01T01-17-00Z.json").write_text("{}")
    if entry not in ("offline", None):
        Path("told/night.json").write_text(entry)
    assert gh("tell", "told", RESULT="failure") == 0
    (issue,) = gh()["issues"]
    assert "The machine left nothing (the job's result: failure)" in issue["body"]
    assert [n.state for n in published("remote.git").nights] == ["broken"]
    assert "nightly: broken" in Path("copy/badge.svg").read_text()


def test_a_history_that_cannot_be_published_is_told_too(gh):
    left("regression")
    assert gh("tell", "told", HISTORY_REMOTE="nowhere.git") == 1
    assert "The history was not published" in gh()["issues"][0]["body"]
    assert gh("plan", HISTORY_REMOTE="nowhere.git") == 4  # nobody knows whether there is one
    assert gh("plan") == 0 and Path("output").read_text() == "held=true\nbranch=false\n"


def test_a_trial_changes_nothing_and_a_pull_request_gets_one_comment_that_is_edited(gh):
    left("regression")
    assert gh("tell", "told", ASIDE="trial") == 0
    assert not Path("gh.json").exists() and "2 figures worse" in Path("summary").read_text()
    for text in ("**first**\n", "**second** by @somebody\n"):
        left("fine", text)
        assert gh("tell", "told", PULL_REQUEST="7", COMMIT="a" * 40) == 0
    assert asked(gh) == [["POST", "issues/7/comments"], ["PATCH", "issues/comments/100"]]
    (comment,) = gh()["comments"].values()
    assert "second" in comment and "@somebody" not in comment  # who would be told
    assert "first" not in comment and "page of the run" in comment and "a" * 40 in comment
    assert gh("tell", "told", PULL_REQUEST="7/../8", COMMIT="a" * 40) == 4


def test_only_the_commit_that_was_read_is_run(gh, capsys):
    assert gh("plan", PULL_REQUEST="7", COMMIT="a" * 40) == 0
    for number, commit, why in (
        ("7", "b" * 40, f"is at {'a' * 40} by now"),
        ("7", "", "Give both or neither"),
        ("", "a" * 40, "Give both or neither"),
        ("7;x", "a" * 40, "is a number"),
        ("7", "main", "40 hexadecimal digits"),
    ):
        assert gh("plan", PULL_REQUEST=number, COMMIT=commit) == 4
        assert why in capsys.readouterr().out


def test_the_watchdog_opens_one_issue_and_keeps_the_schedules_on(gh):
    assert gh("watch") == 0 and gh()["issues"] == []  # before the first night
    enabled = [address for method, address in gh()["calls"] if method == "PUT"]
    others = [name for name in github.WORKFLOWS if name != "weekly.yml"]  # which a maintainer has switched off
    assert enabled == [f"actions/workflows/{name}/enable" for name in others] and len(others) >= 2
    assert gh("watch", HISTORY_REMOTE="nowhere.git") == 4 and gh()["issues"] == []  # nobody can tell
    left("fine")
    assert gh("tell", "told") == 0
    assert gh("watch") == 0 and gh("watch") == 0
    (issue,) = gh()["issues"]
    assert "The last good night is of 2026-01-02 01:17 UTC" in issue["body"]
    left("fine", started=github.night.now())
    assert gh("tell", "told") == 0 and gh("watch") == 0
    assert [i["state"] for i in gh()["issues"]] == ["closed"]


def test_a_whole_night_from_the_machine_to_the_issue(gh, box):
    box.trainer.levels = {"q1_2-finetune": 0.9}
    for code, level in (("c0", 0.9), ("c1", 0.8), ("c2", 0.9)):
        box.trainer.code, box.trainer.levels["q1_2-finetune"] = code, level
        box()
        shutil.rmtree("told", ignore_errors=True)
        shutil.copytree("night", "told")
        assert gh("tell", "told") == 0
    assert asked(gh) == [["POST", "issues"], ["POST", "issues/1/comments"], ["PATCH", "issues/1"]]
    assert "best accuracy" in gh()["issues"][0]["body"]
    assert [n.state for n in published("remote.git").nights] == ["first", "regression", "fine"]


def test_the_summary_shows_what_moved_and_the_tables(gh, tmp_path):
    (tmp_path / "pyproject.toml").write_text(HOMEWORK)
    save(tmp_path / "results", runs([0.90, 0.91, 0.92]))
    git("init"), git("add", "results"), git("commit", "-m", "x")
    assert gh("summary", PYTHON=sys.executable, PYTHONPATH=str(ROOT)) == 0
    assert "No report was written." in Path("summary").read_text()
    tables = "# Tables\n![a curve](figures/a.svg)\\\nits caption\n" + "x\n" * 1_000_000
    Path("results/quick/report.md").write_text(tables)
    Path("summary").unlink()
    assert gh("summary", PYTHON=sys.executable, PYTHONPATH=str(ROOT)) == 0
    text = Path("summary").read_text()
    assert "**2 figures the same to the bit**" in text and "# Tables\nits caption\n" in text
    assert "x\nx\n" in text and len(text) < 2**20
    Path("results/quick/runs").rename("elsewhere")
    Path("summary").unlink()
    assert gh("summary", PYTHON=sys.executable, PYTHONPATH=str(ROOT)) == 0
    assert "They could not be compared: see the log." in Path("summary").read_text()
    assert gh("nothing") == 4
