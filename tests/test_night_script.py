"""The script of a night as a process: time limits, signals, locks, environments, cron; and the branch it publishes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from cvhw4.records.history import History
from tests.helpers import ROOT
from tests.helpers.nightly import HOMEWORK, SCRIPTS, night, published
from tests.helpers.reading import snapshot
from tests.helpers.records import git

pytest_plugins = ["tests.helpers.nightly"]


UNMADE = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
OURS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
GIVEN = {"PORTRAITS": ".", "CAMVID": ".", "PYTHON": sys.executable, "CANARY": "", "CHECKS": "", "MIN_FREE_GB": "0"}
GIVEN |= {"PYTHONPATH": str(ROOT), "PATH": OURS}


@pytest.mark.integration
def test_a_time_limit_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(300)"
    inner = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); time.sleep(300)"
    with pytest.raises(night.Broken, match="was not done within"):
        night.Clock(0.03).run([sys.executable, "-c", inner], tmp_path / "log")
    assert not processes(stubborn)


def processes(text):
    """Ids of the processes whose command holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def started(folder, makefile="gpu-full:\n\tfalse\n", **environment):
    """night.py as a process of its own, begun as GitHub's runner does: by a shell, which is what is ended."""
    (folder / "Makefile").write_text(makefile)
    (folder / "pyproject.toml").write_text(HOMEWORK)
    (folder / ".github").unlink(missing_ok=True)
    (folder / ".github").symlink_to(ROOT / ".github")
    steps = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]["train"]["steps"]
    (line,) = (step["run"] for step in steps if "run" in step)
    (folder / "step.sh").write_text(f"{line}\n")
    env = UNMADE | GIVEN | {"STORE": str(folder / "store")} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(["bash", "-e", "step.sh"], cwd=folder, env=env, **pipes)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_night_that_is_ended_from_outside_is_broken_and_ends_what_it_started(tmp_path, sign):
    mark = f"7{os.getpid()}.25"
    process = started(tmp_path, f"gpu-full:\n\tsleep {mark}\n")
    until(lambda: processes(f"sleep\0{mark}"))
    process.send_signal(sign)
    output, _ = process.communicate(timeout=60)
    entry = json.loads((tmp_path / "night" / "night.json").read_text())
    assert entry["state"] == "broken"
    if sign == signal.SIGKILL:  # nobody can answer that: what was written at the start tells of it
        assert "was broken off" in entry["why"]
        for one in processes(f"sleep\0{mark}"):
            os.kill(one, signal.SIGKILL)
    else:
        assert process.returncode == 4 and sign.name in entry["why"], output
        assert not processes(f"sleep\0{mark}")


@pytest.mark.integration
def test_a_job_waits_for_whatever_holds_the_lock_as_long_as_it_may(tmp_path):
    holder = tmp_path / "store" / "lock"
    holder.parent.mkdir()
    with subprocess.Popen(["flock", str(holder), "sh", "-c", "echo held; read _"], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        first = started(tmp_path, MINUTES="0.02")
        output, _ = first.communicate(timeout=60)
        why = json.loads((tmp_path / "night/night.json").read_text())["why"]
        assert first.returncode == 4 and "held" in why, output
        second = started(tmp_path)
        assert second.stdout.readline().startswith("waiting for")
        other.communicate(b"\n")
        output, _ = second.communicate(timeout=60)
        assert "make gpu-full" in output and "No test has run" in output


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_parts_of_make_gpu_full(tmp_path, sign):
    """A shell's background processes ignore SIGINT, which they inherit."""
    mark = f"import time; time.sleep(7{os.getpid()}.5)"
    stub = tmp_path / "stub"
    stub.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{mark}'\n")
    stub.chmod(0o755)
    process = subprocess.Popen(
        ["make", "gpu-full", f"PYTHON={stub}", f"OUT={tmp_path}", "DEVICE=cpu", "AT_ONCE=3"],
        cwd=ROOT,
        env=UNMADE,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored in the background
    )
    try:
        until(lambda: len(processes(mark)) == 3)
        os.killpg(process.pid, sign)
        assert process.wait(60) != 0
        until(lambda: not processes(mark), 20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_pinned_versions_are_installed_once_for_every_set_of_pins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = night.Settings({"STORE": "store"})
    commands, failing = [], []

    class Clock:
        def run(self, command, log):
            commands.append(command)
            if "venv" in command:
                Path(command[-1], "bin").mkdir(parents=True)
            return int(command[2] in failing)

    found = []
    for pins in ("torch==1", "torch==1", "torch==2", "torch==3"):
        Path("pyproject.toml").write_text('[project]\ndependencies = ["torch>=1", "numpy"]\n')
        Path("constraints.txt").write_text(pins)
        found.append(night.install(settings, Clock()))
    assert found[0] == found[1] and len(set(found)) == 3 and len(commands) == 6
    assert commands[1][:4] == [found[0], "-m", "pip", "install"] and commands[1][-2:] == ["torch>=1", "numpy"]
    assert commands[1][commands[1].index("--constraint") + 1] == "constraints.txt"
    assert len(list(Path("store/environments").iterdir())) == 2
    failing.append("pip")
    Path("constraints.txt").write_text("torch==4")
    with pytest.raises(night.Broken, match="cannot be installed"):
        night.install(settings, Clock())
    assert len(list(Path("store/environments").iterdir())) == 2  # half of one would fill the disk
    failing.clear()
    night.install(settings, Clock())  # anew, as it was not complete
    assert len(commands) == 10


def test_a_night_goes_on_in_the_environment_with_the_pinned_versions(tmp_path):
    (tmp_path / "constraints.txt").write_text("torch==1")
    pins = sha256(f"{HOMEWORK}\0torch==1{sys.version}".encode()).hexdigest()[:12]
    python = tmp_path / "store" / "environments" / pins / "bin" / "python"
    python.parent.mkdir(parents=True)
    (python.parents[1] / "complete").touch()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    process = started(tmp_path, PYTHON="")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 4 and f"PYTHON={python}" in output and "No test has run" in output, output
    assert [n.state for n in History(tmp_path / "store" / "history").nights] == ["broken"]


@pytest.mark.integration
def test_the_crontab_of_the_docs_publishes_and_sends_only_what_somebody_has_to_know(tmp_path, monkeypatch):
    docs = (ROOT / "docs/nightly.md").read_text()
    crontab = docs.split("### From cron")[1].split("```text\n")[1].split("```")[0].splitlines()
    shown = dict(line.split("=", 1) for line in crontab if "=" in line.split()[0])
    night_line, check_line = (line.split(maxsplit=5)[5] for line in crontab if line[0].isdigit())
    shutil.copytree(SCRIPTS, tmp_path / "main/.github/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "main")
    Path("Makefile").write_text("gpu-full:\n\tfalse\n")
    Path("pyproject.toml").write_text(HOMEWORK)
    git("init"), git("add", "."), git("commit", "-m", "x"), git("clone", ".", tmp_path / "cvhw4")
    env = {"HOME": str(tmp_path)} | shown | GIVEN

    def sent(line):
        return subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True).stdout

    mail = sent(night_line)
    assert "make gpu-full" in mail and "No test has run" in mail and "not published" not in mail
    listed = names("nightly")
    assert "badge.svg" in listed and any(name.startswith("nights/") for name in listed)
    assert "There is no good night yet." in sent(check_line)
    entry = {"state": "fine", "started": night.now()}
    (tmp_path / "cvhw4-nightly/history/nights/x.json").write_text(json.dumps(entry))
    assert sent(check_line) == ""


def names(branch, folder="."):
    """The files on a branch of the repository in a folder."""
    command = ["git", "-C", folder, "ls-tree", "-r", "--name-only", branch]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


@pytest.fixture
def remote(box):
    git("init", "--bare", "remote.git")
    return str(box.folder / "remote.git")


def test_the_history_is_published_beside_what_others_publish(box, remote):
    assert box(REMOTE=remote)[0] == 0
    box.trainer.code = "c1"
    box()
    mine = Path("night/update").rename("mine")
    box.trainer.code = "c2"
    assert box(REMOTE=remote)[0] == 0
    night.publish(mine, remote, "nightly")  # late: records that the newest night needs stay
    history = published(remote)
    assert len(history.nights) == 3 and not list(Path("copy").rglob("*.npz"))
    assert {r.environment["commit"] for r in history.runs(history.judged.good, "full")} == {"c2"}
    assert len(history.runs([*history.judged.good, *history.judged.pinned], "full")) == 20
    code, _ = box(REMOTE=str(box.folder / "nowhere.git"))
    assert code == 1  # the night was fine, and somebody has to know
    with pytest.raises(night.Broken):
        night.publish(Path("copy/records"), remote, "nightly")


def test_nothing_but_a_nights_files_gets_onto_the_branch_whatever_git_is_told_on_the_machine(box, remote, monkeypatch):
    box()
    Path("ignored").write_text("*.json")
    (box.folder / "hooks").mkdir()
    (box.folder / "hooks" / "pre-commit").write_text("#!/bin/sh\nexit 1")
    (box.folder / "hooks" / "pre-commit").chmod(0o755)
    told = f"[core]\nexcludesFile = {box.folder}/ignored\nhooksPath = {box.folder}/hooks\n[commit]\ngpgSign = true\n"
    Path("gitconfig").write_text(told)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(box.folder / "gitconfig"))
    update = Path("night/update")
    (update / "records/x").mkdir(), (update / "records/x/y.sh").touch(), (update / "evil.html").touch()
    (update / "index.html").symlink_to("/etc/passwd")
    night.publish(update, remote, "nightly")
    listed = names("nightly", remote)
    assert len([n for n in listed if n.startswith("records/full/runs/")]) == 10
    assert {n.split("/")[0] for n in listed} == {".nojekyll", "nights", "records"}
    monkeypatch.setattr(night, "GIT_SECONDS", 1e-6)
    with pytest.raises(night.Broken, match="git ls-remote was not done within"):
        night.publish(update, remote, "nightly")


def test_a_checkout_has_one_night_at_a_time(box, capfd):
    box()
    before = snapshot(box.folder)
    with subprocess.Popen(["flock", ".", "sh", "-c", "echo held; read _"], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        assert night.run() == 4 and "another night runs in this checkout" in capfd.readouterr().err
        assert snapshot(box.folder) == before
        other.communicate(b"\n")
    assert box()[0] == 0


def test_a_night_ends_before_the_job_that_it_is_part_of():
    for given, minutes in (("120", 100), ("300", 280), ("30", 15), ("", 280)):
        assert night.Settings({"JOB_MINUTES": given}).minutes == minutes


def test_no_good_night_for_long_is_overdue(box, monkeypatch):
    assert night.overdue(Path("nowhere"), 36) == "There is no good night yet."
    box.trainer.clock = datetime.now(UTC) - timedelta(days=1, hours=35)
    box()
    assert night.overdue(Path("store/history"), 36) == ""
    assert "hours ago" in night.overdue(Path("store/history"), 34.5)
    ahead = {"state": "fine", "started": (datetime.now(UTC) + timedelta(days=300)).isoformat()}
    Path("store/history/nights/ahead.json").write_text(json.dumps(ahead))  # of a wrong clock
    monkeypatch.setenv("STORE", "store")
    assert night.main(["check", "36"]) == 0 and night.main(["check", "34.5"]) == 1
    assert night.main(["check"]) == 4 and night.main([]) == 4


def test_from_cron_a_lost_store_is_made_good_from_the_branch_or_the_night_is_broken(box, remote, capfd):
    """Without it a regression would become what later nights are held against."""
    box(REMOTE=remote)
    shutil.rmtree("store")
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    Path("remote.git").rename("away")
    for _ in range(2):
        code, entry = box(REMOTE=remote)
        assert (code, entry["state"]) == (4, "broken") and "its branch cannot be read: git ls-remote" in entry["why"]
    Path("away").rename("remote.git")
    assert box(REMOTE=remote)[1]["state"] == "regression"
    Path("remote.git").rename("away")  # with a history at hand the night goes on, and says so
    assert box(REMOTE=remote)[1]["state"] == "regression" and "not published" in capfd.readouterr().err
    Path("away").rename("remote.git")
    assert box(REMOTE=remote)[1]["state"] == "regression"
    states = ["first", "broken", "broken", "regression", "regression", "regression"]  # those that were not pushed, too
    assert [n.state for n in published(remote).nights] == states
