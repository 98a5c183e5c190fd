#!/usr/bin/env python3
"""All that the nights know of GitHub; needs Python and `gh`, and runs on a hosted runner.

    github.py plan             before a night: whether the issue holds a regression, whether the history has a branch,
                               and a pull request's commit
    github.py tell FOLDER      after it: the history's branch, the issue or the comment, the summary
    github.py watch            opens the issue where no good night is younger than 36 hours
    github.py summary          CI's: what moved against the committed results, and the tables

GH_TOKEN, GH_REPO: gh's. RUN_URL: the run's page. LABEL, ASSIGNEE: of the issue, may be empty. PULL_REQUEST, COMMIT: its
number and the commit that was read, may be empty. RESULT: how the job that trains ended. ASIDE: as the night's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import night

MARKER = "<!-- cvhw4-nightly -->"
WORSE = "<!-- regression -->"  # stays in the issue's text until it is closed
COMMENT = "<!-- cvhw4-comparison -->"
BOT = "github-actions[bot]"  # anybody may write a marker
TITLE = "The nightly benchmarks are worse, or broken"
STATES = ("first", "fine", "failed", "regression", "broken")
HOURS = 36
BRANCH = "nightly"
LONGEST = 60_000  # characters; GitHub takes 65,536
SUMMARY = 900_000  # bytes; GitHub takes 1 MiB
WORKFLOWS = ("nightly.yml", "watchdog.yml", "weekly.yml")


def gh(*arguments, body=None):
    """What `gh api` answers, of all pages; raises night.Broken where it fails."""
    command = ["gh", "api", *arguments, *(["--input", "-"] if body is not None else [])]
    done = subprocess.run(command, input=None if body is None else json.dumps(body), capture_output=True, text=True)
    if done.returncode:
        raise night.Broken(f"{' '.join(command[:4])} failed: {done.stderr.strip()}")
    return done.stdout


def repository():
    """The address of the repository in GitHub's interface."""
    return f"repos/{os.environ['GH_REPO']}"


def pages(address, *options):
    """The items of all pages of a list."""
    text, items = gh("--method", "GET", "--paginate", address, "-f", "per_page=100", *options).strip(), []
    while text:  # one array behind the other
        page, end = json.JSONDecoder().raw_decode(text)
        items += page
        text = text[end:].strip()
    return items


def open_issue():
    """The open issue that these scripts opened; None without one."""
    found = pages(f"{repository()}/issues", "-f", "state=open", "-f", f"creator={BOT}")
    return next((i for i in found if MARKER in (i.get("body") or "") and "pull_request" not in i), None)


def output(**values):
    """Hands values on to later steps and jobs."""
    with open(os.environ["GITHUB_OUTPUT"], "a") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


def plan():
    """Says whether the issue holds a regression and whether the history has a branch; checks that the commit is the
    pull request's that was read."""
    issue = open_issue()
    number, commit = os.environ.get("PULL_REQUEST", ""), os.environ.get("COMMIT", "")
    if bool(number) != bool(commit):
        raise night.Broken("Give both or neither: the pull request's number, and the commit of it that you have read.")
    if number:
        if not re.fullmatch(r"[1-9]\d{0,9}", number) or not re.fullmatch("[0-9a-f]{40}", commit):
            raise night.Broken("A pull request is a number, a commit 40 hexadecimal digits.")
        head = json.loads(gh(f"{repository()}/pulls/{number}"))["head"]["sha"]
        if head != commit:
            raise night.Broken(f"Pull request {number} is at {head} by now: read that, then give it.")
    held, there = issue is not None and WORSE in issue["body"], night.has_branch(remote(), BRANCH)
    output(held=str(held).lower(), branch=str(there).lower())


def tell(folder):
    """Passes on what became of a night; a night that left nothing is a broken one."""
    entry, text = outcome(folder)
    summarize(text)
    if number := os.environ.get("PULL_REQUEST"):
        comment(number, text)
        return 0
    if os.environ.get("ASIDE"):
        return 0
    problem = ""
    try:
        if not (folder / "update").is_dir():
            for name, content in night.broken_update(entry).items():
                (folder / "update" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "update" / name).write_text(content)
        night.publish(folder / "update", remote(), BRANCH)
    except (night.Broken, OSError) as error:
        problem = f"The history was not published: {error}"
        print(f"::error::{problem}")
    issue(entry, text + (f"\n{problem}\n" if problem else ""))
    awake()
    return int(bool(problem))


def outcome(folder):
    """A night's entry, and its text in Markdown."""
    try:
        entry = json.loads((folder / "night.json").read_text())
        if entry["state"] not in STATES or entry.get("url") not in ("", None, url()):  # the latter of an earlier job
            raise ValueError(entry["state"])
        entry["started"] = datetime.fromisoformat(entry["started"]).isoformat()  # it becomes a file's name
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(folder / "update", ignore_errors=True)  # of whatever night that is
        why = (
            f"The machine left nothing (the job's result: {os.environ.get('RESULT') or 'unknown'}): it is offline, its "
            "disk is full, the job was cancelled, or what comes before the training failed."
        )
        entry = {"version": 1, "started": night.now(), "state": "broken", "why": why, "study": "", "url": ""}
        return entry, night.nothing_judged(why)
    try:
        text = (folder / "comparison.md").read_text().replace("@", "@\u200b")[:LONGEST]  # it mentions nobody
    except OSError:
        text = f"State: {entry['state']}\n"
    return entry, text


def remote():
    """Where the history's branch is; git may read and write there as gh does."""
    if subprocess.run(["gh", "auth", "setup-git"]).returncode:
        raise night.Broken("gh auth setup-git failed.")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return os.environ.get("HISTORY_REMOTE") or f"{server}/{os.environ['GH_REPO']}"


def issue(entry, text):
    """Keeps one issue open from the first night that is not good to the next that is, with the latest night as its
    text."""
    there, state = open_issue(), entry["state"]
    if state in night.GOOD:
        if there:
            reasons = "\n".join(f"- {row}: {reason}" for row, reason in (entry.get("accepted") or {}).items())
            why = "Nothing is worse than in the last good night any more. "
            why = f"Accepted:\n\n{reasons}\n\n" if reasons else why
            number = there["number"]
            gh("--method", "POST", f"{repository()}/issues/{number}/comments", body={"body": why + url()})
            gh("--method", "PATCH", f"{repository()}/issues/{number}", body={"state": "closed"})
        return
    worse = state == "regression" or (there is not None and WORSE in there["body"])
    since = re.search(r"^Since: (\S+)$", there["body"], re.MULTILINE) if there else None
    lines = [MARKER, *([WORSE] if worse else []), f"Since: {since[1] if since else entry['started']}"]
    lines += [f"Latest night: {entry['started']}, {state}. {url()}", "", text]
    body = {"body": "\n".join(lines)}
    if there:
        gh("--method", "PATCH", f"{repository()}/issues/{there['number']}", body=body)
    else:
        create(body)


def create(body):
    """Opens the issue; without label and assignee where GitHub does not take them, which somebody may have left."""
    label, assignee = os.environ.get("LABEL"), os.environ.get("ASSIGNEE")
    body |= {"title": TITLE}
    wanted = ({"labels": [label]} if label else {}) | ({"assignees": [assignee]} if assignee else {})
    try:
        gh("--method", "POST", f"{repository()}/issues", body=body | wanted)
    except night.Broken as error:
        print(f"::warning::{error}")
        gh("--method", "POST", f"{repository()}/issues", body=body)


def url():
    """The run's page."""
    return os.environ.get("RUN_URL", "")


def comment(number, text):
    """Writes the comparison under a pull request, in the place of an earlier one."""
    if not number.isdigit():
        raise night.Broken(f"PULL_REQUEST is {number!r}, which is not a number.")
    about = f"B is commit {os.environ.get('COMMIT', '')} of this pull request, A the newest night: {url()}"
    body = {"body": f"{COMMENT}\n{text}\n{about}\n"}
    comments = pages(f"{repository()}/issues/{number}/comments")
    mine = [c for c in comments if c["user"]["login"] == BOT and c["body"].startswith(COMMENT)]
    if mine:
        gh("--method", "PATCH", f"{repository()}/issues/comments/{mine[0]['id']}", body=body)
    else:
        gh("--method", "POST", f"{repository()}/issues/{number}/comments", body=body)


def watch():
    """Opens the issue where no good night is young enough, and keeps GitHub from switching the schedules off. Before
    the first night, which makes the branch whatever becomes of it, there is nothing to look at."""
    awake()
    with tempfile.TemporaryDirectory() as name:
        history = Path(name)
        why = night.overdue(history, HOURS) if night.read_branch(remote(), BRANCH, history) else ""
    print(why or "Nothing is overdue.")
    if why and open_issue() is None:
        create({"body": f"{MARKER}\nSince: {night.now()}\n\n{why} Nights may not run at all: look at the workflow's "
                        f"schedule, and at the runner. {url()}\n"})  # fmt: skip
    return 0


def awake():
    """Enables the workflows anew: GitHub switches schedules off after 60 days without a commit. What a maintainer has
    switched off stays so."""
    for workflow in WORKFLOWS:
        try:
            if json.loads(gh(f"{repository()}/actions/workflows/{workflow}"))["state"] != "disabled_manually":
                gh("--method", "PUT", f"{repository()}/actions/workflows/{workflow}/enable")
        except night.Broken as error:  # tomorrow again
            print(f"::warning::{error}")


def summarize(text):
    """Puts Markdown into the job's summary, without pictures, whose files it cannot show."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("!["))
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a") as file:
        file.write(kept.encode()[:SUMMARY].decode(errors="ignore") + "\n")


def summary():
    """What moved against the committed results, and the tables. Exit codes of the comparison count for nothing here:
    the tests have the last word."""
    python = os.environ.get("PYTHON") or ".venv/bin/python"
    command = [python, "-m", "cvhw4", "compare", "HEAD", "results", "--markdown"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    moved = done.stdout if done.returncode in (0, 1) else "They could not be compared: see the log."
    report = Path("results/quick/report.md")
    tables = report.read_text() if report.exists() else "No report was written."
    summarize(f"## Against the committed results\n{moved}\n{tables}")


def main(arguments):
    """What the command line asks for; the exit code."""
    try:
        match arguments:
            case ["plan"]:
                plan()
            case ["tell", folder]:
                return tell(Path(folder))
            case ["watch"]:
                return watch()
            case ["summary"]:
                summary()
            case _:
                print(__doc__, file=sys.stderr)
                return 4
    except night.Broken as error:
        print(f"::error::{error}")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
