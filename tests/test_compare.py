"""`cvhw4 compare`: exit codes, revisions, and what it cannot compare."""

import json
import os
import time

import pytest

from cvhw4.records.store import Store
from tests.helpers.records import git, runs, save
from tests.helpers.tiny import QUICK, failure, record

GOOD, BAD = [0.90, 0.91, 0.92], [0.50, 0.52, 0.51]


def test_exit_codes_tell_regressions(run, tmp_path):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "b", runs(BAD))
    assert run("compare", "a", "a")[0] == 0
    assert run("compare", "b", "a")[0] == 0
    code, out, err = run("compare", "a", "b")
    assert (code, err) == (1, "") and out.splitlines()[-1] == "2 figures worse"
    assert "q1_2-finetune best acc. 0.910 0.510 -0.400" in " ".join(out.split())
    code, out, _ = run("compare", "a", "b", "--markdown")
    assert code == 1 and out.startswith("**2 figures worse**\n")


def test_output_to_a_pipe_is_plain_and_80_wide(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    rows = [*runs(GOOD), *runs(BAD, "q2_c3"), *runs(GOOD, "q2_n1b")]
    save(tmp_path / "a", rows), save(tmp_path / "b", [*runs(BAD), *runs(GOOD, "q2_c3"), *runs(BAD, "q2_n1b")])
    _, out, _ = run("compare", "a", "b")
    table = out.split("training time")[0]
    assert "\x1b" not in out and max(map(len, table.splitlines())) <= 80
    assert out.count("better") == 9 and out.count("worse") == 11  # with the last line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("compare", "a", "nowhere"), "nowhere: is not a folder or a git revision"),
        (("compare", "a", "--", "--output=x"), "--output=x: is not a folder or a git revision"),
        (("compare", "a", "empty"), "empty: has no runs of study quick"),
        (("compare", "a", "main:none"), "main:none: has no none at that revision"),
        (
            ("compare", "a", "full"),
            "full: has no runs of study quick. Fix: name a study that has runs there with --study: full",
        ),
        (("compare", "a", "insects"), "quick. Fix: name a study that has runs there with --study: insects."),
        (("compare", "a", "both"), "quick. Fix: name a study that has runs there with --study: full, insects."),
        (("compare", "main:insects", "a"), "main:insects: has no runs of study quick. Fix: name a study"),
        (("compare", "a", "main:./full"), "main:./full: has no runs of study quick. Fix: name a study"),
        (("compare", "a", "a", "--study", "huge"), "--study huge: is neither a file nor a known study"),
        (("compare", "insects/insects", "insects/insects"), "--study FILE"),
        (("compare", "a", "a", "--study", "insects"), "--study FILE"),
        (("compare", "a", "a", "--time-limit", "nan"), "--time-limit nan: is not a ratio"),
        (("compare", "a", "a", "--time-limit", "-1"), "--time-limit -1.0: is not a ratio"),
        (("compare", "a", "full/full"), "has no runs of study quick"),
        (("compare", "a", ":"), "is not a folder or a git revision"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_4(run, tmp_path, args, message):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "full", runs(GOOD), "full")
    save(tmp_path / "insects", runs(GOOD), "insects")
    save(tmp_path / "both", runs(GOOD), "full"), save(tmp_path / "both", runs(GOOD), "insects")
    (tmp_path / "empty" / "quick" / "runs").mkdir(parents=True)
    git("init"), git("add", "full", "insects"), git("commit", "-m", "x")
    before = sorted(tmp_path.rglob("*"))
    args = [{"a": "a/quick"}.get(x, x) for x in args] if args[-1] == "full/full" else args
    code, out, err = run(*args)
    assert (code, out) == (4, "") and message in err and err.count("\n") == 1 and "Fix: " in err
    assert sorted(tmp_path.rglob("*")) == before


def test_revisions_are_read_without_a_checkout(run, tmp_path):
    save(tmp_path / "results", runs(GOOD))
    git("init"), git("add", "."), git("commit", "-m", "good"), git("tag", "v1.0"), git("tag", "odd", "HEAD")
    save(tmp_path / "results", runs(BAD))
    git("add", "."), git("mv", "results", "elsewhere"), git("commit", "-m", "bad")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert run("compare", "v1.0", "elsewhere")[0] == 1
    assert run("compare", "HEAD~1", "main:elsewhere")[0] == 1
    assert run("compare", "main:elsewhere/", "main:elsewhere")[0] == 0
    assert run("compare", "v1.0", "HEAD")[0] == 4  # no results there
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    (tmp_path / "v1.0").mkdir()
    assert "v1.0: has no runs" in run("compare", "v1.0", "elsewhere")[2]  # a folder comes first


def test_revisions_are_read_from_a_folder_below_the_repositorys_top(run, tmp_path, monkeypatch):
    study = tmp_path / "own study"
    save(tmp_path / "results", runs(GOOD)), save(study / "results", runs(BAD))
    git("init"), git("add", "."), git("commit", "-m", "x")
    save(study / "new", runs(GOOD))
    monkeypatch.chdir(study)
    assert run("compare", "main", "results")[0] == 1  # the top's results, which are good
    assert run("compare", "main:./results", "results") == (0, *run("compare", "results", "results")[1:])
    assert "2 figures better" in run("compare", "main:./results", "new")[1]
    assert "2 figures worse" in run("compare", "main:../results/", "main:own study/results")[1]
    code, _, err = run("compare", "main:./new", "new")
    assert code == 4 and "has no ./new at that revision" in err and "main:./results" in err


def test_links_in_a_revision_lead_nowhere(run, tmp_path):
    save(tmp_path / "results", runs(GOOD))
    outside = tmp_path / "secret.json"
    outside.write_text(record("q1_1").to_json())
    row = tmp_path / "results" / "quick" / "runs" / "q1_1-features"
    row.mkdir()
    (row / os.path.basename(Store(tmp_path, "quick").path("q1_1-features", 0, record("q1_1").fingerprint))).symlink_to(
        outside
    )
    git("init"), git("add", "."), git("commit", "-m", "x")
    _, out, _ = run("compare", "main", "main")
    assert "2 the same" in out or "2 figures the same" in out


def test_a_studys_own_folder_is_a_store(run, tmp_path):
    save(tmp_path / "a", runs(GOOD), "full"), save(tmp_path / "b", runs(BAD), "full")
    assert run("compare", "a/full", "b/full")[0] == 1
    assert run("compare", "a/full", "b")[0] == 1
    assert run("compare", "a", "b", "--study", "full")[0] == 1


def test_failed_runs_of_b_end_with_exit_code_1(run, tmp_path):
    save(tmp_path / "a", runs(GOOD)), save(tmp_path / "b", runs(GOOD))
    Store(tmp_path / "b", "quick").fail(failure(record("q1_3")))
    code, out, _ = run("compare", "a", "b")
    assert code == 1 and "q1_3-scratch seed 0 the loss is NaN" in " ".join(out.split())
    assert run("compare", "b", "a")[0] == 0


def test_two_thousand_records_a_side_in_two_seconds(tmp_path, run):
    for side in ("a", "b"):
        for row in QUICK.rows:
            of_row = json.loads(record(row).to_json())
            folder = tmp_path / side / "quick" / "runs" / row
            folder.mkdir(parents=True)
            for seed in range(100):
                print_ = f"{seed:05d}{row.encode().hex()}".ljust(64, "0")
                of_row |= {"seed": seed, "fingerprint": print_}
                of_row["epochs"][-1]["loss"] = seed / 1000 + (side == "b")
                (folder / f"seed{seed}-{print_[:12]}.json").write_text(json.dumps(of_row))
    began = time.process_time()
    code, out, _ = run("compare", "a", "b")
    assert time.process_time() - began < 2  # ten thousand a side: 4 s
    assert code == 0 and "76 figures within noise" in out
