"""`cvhw4 compare`: exit codes, revisions, and what it cannot compare."""

import json
import shutil
import time
from dataclasses import replace

import pytest

from cvhw4.records.schema import RunRecord
from cvhw4.records.store import Store
from tests.helpers.records import git, runs, save
from tests.helpers.tiny import QUICK, failure, record

GOOD, BAD = [0.90, 0.91, 0.92], [0.50, 0.52, 0.51]


def test_exit_codes_tell_regressions(run, tmp_path):
    for study in ("quick", "full"):
        save(tmp_path / "a", runs(GOOD), study), save(tmp_path / "b", runs(BAD), study)
    assert run("compare", "a", "a", "--study", "quick")[0] == run("compare", "b/full", "a")[0] == 0
    code, out, err = run("compare", "a/quick", "b")
    assert (code, err) == (1, "") and out.splitlines()[-1] == "2 figures worse"
    assert "q1_2-finetune best acc. 0.910 0.510 -0.400" in " ".join(out.split())
    code, out, _ = run("compare", "a", "b", "--markdown", "--study", "full")
    assert code == 1 and out.startswith("**2 figures worse**\n")
    Store(tmp_path / "b", "quick").fail(failure(record("q1_3")))
    assert run("compare", "b/quick", "a")[0] == 0  # failed in A
    code, out, _ = run("compare", save(tmp_path / "c", runs(BAD)), "b/quick")
    assert code == 1 and "q1_3-scratch seed 0 the loss is NaN" in " ".join(out.split())


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
    ("a", "b", "options", "message"),
    [
        ("a", "both", (), "quick. Fix: name a study that has runs there with --study: full, insects."),
        ("a", "empty", (), "empty: has no runs of study quick"),
        ("main:insects", "a", (), "main:insects: has no runs of study quick. Fix: name a study"),
        ("a", "full/full", (), "has no runs of study quick"),
        ("a", "other", (), "other: has no row on the data that it is on in A (A: embedded. B: photos). Fix: compare"),
        ("insects/insects", "insects/insects", (), "--study FILE"),
        ("a", "a", ("--study", "insects"), "--study FILE"),
        ("a", "a", ("--time-limit", "nan"), "--time-limit nan: is not a ratio"),
        ("a", "a", ("--time-limit", "-1"), "--time-limit -1.0: is not a ratio"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_4(run, tmp_path, a, b, options, message):
    """tests/test_revisions.py has what is no store at all."""
    for place in ("a/quick", "full/full", "insects/insects", "both/full", "both/insects"):
        save(tmp_path / place.split("/")[0], runs(GOOD), place.split("/")[1])
    other = [replace(r, data=replace(r.data, name="photos", fingerprint="e" * 64)) for r in runs(GOOD)]
    save(tmp_path / "other", other)
    (tmp_path / "empty" / "quick" / "runs").mkdir(parents=True)
    git("init"), git("add", "insects"), git("commit", "-m", "x")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("compare", a if b != "full/full" else "a/quick", b, *options)
    assert (code, out) == (4, "") and message in err and err.count("\n") == 1 and "Fix: " in err
    assert sorted(tmp_path.rglob("*")) == before


def test_revisions_are_read_without_a_checkout(run, tmp_path):
    save(tmp_path / "results", runs(GOOD))
    git("init"), git("add", "."), git("commit", "-m", "good"), git("tag", "v1.0")
    save(tmp_path / "results", runs(BAD))
    git("add", "."), git("mv", "results", "elsewhere"), git("commit", "-m", "bad")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert run("compare", "v1.0", "elsewhere")[0] == run("compare", "HEAD~1", "main:elsewhere/")[0] == 1
    assert run("compare", "v1.0", "HEAD")[0] == 4  # no results there
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    (tmp_path / "v1.0").mkdir()
    assert "v1.0: has no runs" in run("compare", "v1.0", "elsewhere")[2]  # a folder comes first


def test_revisions_are_read_from_a_folder_below_the_repositorys_top(run, tmp_path, monkeypatch):
    study = tmp_path / "own study"
    save(tmp_path / "results", runs(GOOD)), save(study / "results", runs(BAD))
    git("init"), git("add", "."), git("commit", "-m", "x")
    monkeypatch.chdir(study)
    assert run("compare", "main", "results")[0] == 1  # the top's results, which are good
    assert run("compare", "main:./results", "results") == (0, *run("compare", "results", "results")[1:])
    assert "2 figures worse" in run("compare", "main:../results/", "main:own study/results")[1]
    code, _, err = run("compare", "main:./new", "results")
    assert code == 4 and "has no ./new at that revision" in err and "main:./results" in err


def test_two_thousand_records_a_side_take_little_longer_than_reading_them(tmp_path, run):
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
    (tmp_path / "few" / "quick" / "runs").mkdir(parents=True)
    shutil.copytree(folder, tmp_path / "few" / "quick" / "runs" / row)
    run("compare", "few", "few")  # imports what it needs
    began = time.process_time()
    for path in tmp_path.glob("[ab]/quick/runs/*/*.json"):
        RunRecord.from_json(path.read_bytes(), path)
    read = time.process_time() - began
    code, out, _ = run("compare", "a", "b")
    assert time.process_time() - began < 10 * read  # 3 to 5 times; it would be hundreds if each met each
    assert code == 0 and "76 figures within noise" in out
