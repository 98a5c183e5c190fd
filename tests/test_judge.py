"""Runs that were logged elsewhere, judged: files, and what is wrong with them. Trackers: see test_trackers."""

import json
import re
import resource
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cvhw4.readers import LoggedRun
from cvhw4.records.store import Store
from tests.helpers import ROOT
from tests.helpers.tiny import record

SKIP, PLAIN = [0.81, 0.83, 0.80, 0.84, 0.82], [0.70, 0.74, 0.71, 0.75, 0.70]
JUDGE = ("judge", "runs.csv", "--row", "arm", "--metric", "accuracy")
AGAINST = ("--better", "skip", "--worse", "no skip")


@pytest.fixture
def run(cvhw4_command):
    return cvhw4_command


def table(*lines, head="arm,seed,lr,accuracy"):
    Path("runs.csv").write_text("\n".join([head, *lines]) + "\n")


def arms():
    both = (("skip", SKIP), ("no skip", PLAIN))
    return [f"{arm},{seed},0.1,{value}" for arm, values in both for seed, value in enumerate(values)]


def test_a_csv_gives_interval_verdict_and_pages(run):
    table(*arms())
    code, out, _ = run(*JUDGE, *AGAINST)
    differences = np.subtract(SKIP, PLAIN)
    low, high = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    line = next(line for line in out.splitlines() if line.startswith("skip_above_no_skip-accuracy"))
    assert code == 0 and line.split()[1:] == [
        f"{differences.mean():+.3f}", f"[{low:.3f},", f"{high:.3f}]", "5", "supported",
    ]  # fmt: skip
    pages = Path("results/judged")
    assert "skip beats no_skip in accuracy" in (pages / "verdicts.md").read_text()
    report = (pages / "report.md").read_text()
    assert "Runs of runs.csv" in report and "training loop" not in report and "0 s" not in report
    assert "Learning curves" not in report  # a point each
    assert (pages / "report.html").exists()


def test_ten_runs_are_judged_in_five_seconds(tmp_path, monkeypatch):
    """As a command of its own, pages and all; in processor time, since the clock of a busy machine says nothing."""
    monkeypatch.chdir(tmp_path)
    table(*arms())
    command = [sys.executable, "-m", "cvhw4", *JUDGE, *AGAINST]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "supported" in done.stdout and Path("results/judged/report.html").exists()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_equal_differences_of_rounded_figures_decide_nothing(run):
    """Two seeds at 0.82 and 0.83 against 0.81 and 0.82: as much as rounding makes."""
    table("skip,0,0.1,0.82", "skip,1,0.1,0.83", "no skip,0,0.1,0.81", "no skip,1,0.1,0.82")
    out = run(*JUDGE, *AGAINST)[1]
    half = stats.t.ppf(0.975, 1) * 0.01 * np.sqrt(2 / 12) / np.sqrt(2)
    line = next(line for line in out.splitlines() if line.startswith("skip_above"))
    assert line.split()[1:] == ["+0.010", f"[{0.01 - half:.3f},", f"{0.01 + half:.3f}]", "2", "undecided"]
    assert "**" not in run("table")[1]


def test_rows_without_a_common_seed_are_told_and_judge_nothing(run):
    table(
        *(f"{arm},{seed},0.1,0.8" for arm, first in (("skip", 0), ("no skip", 10)) for seed in range(first, first + 5))
    )
    code, out, err = run(*JUDGE, *AGAINST)
    assert code == 4 and not out and err.count("\n") == 1 and not Path("results").exists()
    assert "skip and no_skip have no seed in common (skip: 0-4; no_skip: 10-14). Fix: give" in err
    assert run(*JUDGE)[0] == 0
    assert "no row has two seeds in common with no skip." in run("table", "--baseline", "no skip")[1]


def test_seeds_that_one_row_alone_has_are_told(run):
    table(*arms(), "skip,7,0.1,0.9", "third,9,0.1,0.9")
    code, out, err = run(*JUDGE, *AGAINST, "--better", "third")
    assert code == 0 and err.splitlines() == [
        "not paired: skip and no_skip: 1 of 6 seeds (skip: 7)",
        "not judged: third and no_skip have no seed in common (third: 9; no_skip: 0-4)",
    ]
    assert "third_above" not in out and "skip_above_no_skip" in out


def test_the_commands_of_the_documentation_run(run):
    page = (ROOT / "docs" / "trackers.md").read_text()
    block = page.partition("elsewhere\n")[2].partition("```sh\n")[2].partition("```")[0]
    shown = [line.split()[1:] for line in block.splitlines() if not re.search("mlflow|wandb", line)]
    arms = [("skip", 2, "batch"), ("noskip", 8, "group")]
    lines = [f"{a},{d},{n},{s},1,0.{d}{s},0.{d}{s},0.{s}1" for a, d, n in arms for s in range(3)]
    table(*lines, head="arm,depth,norm,seed,epoch,accuracy,val/acc,val/loss")
    found = [run(*words) for words in shown]
    assert len(shown) == 6 and not any(code for code, _, _ in found), found
    assert "| noskip " in found[-2][1] and "(%)" in found[-2][1]


def test_other_commands_know_what_was_judged(run):
    table(*arms())
    assert run(*JUDGE, *AGAINST)[0] == 0
    assert run("report", "--study", "judged")[0] == 0
    assert "0.820" in run("table", "--metric", "accuracy")[1]
    told = run("table", "no skip", "skip", "--baseline", "no skip", "--caption", "Two arms")[1]
    assert told.startswith("Two arms.\n") and "| no skip " in told and "below no skip" in told
    assert "skip beats no skip in accuracy: +0.100, supported" in run("figure", "claims", "claims.svg")[1]
    assert "skip-seed4" in run("show", "skip-seed4")[1].replace(", seed 4", "-seed4")
    table(*[line.replace("0.8", "0.5") for line in arms()])
    assert run(*JUDGE, "--results", "later", "--name", "judged", *AGAINST)[0] == 0
    code, out, _ = run("compare", "results", "later")
    assert code == 1 and "skip" in out
    assert "Fix: name the one of cvhw4 judge --history; two results folders are for" in run("history", "results")[2]


def test_what_was_judged_has_a_history(run):
    """Every judging is a night: the third time one arm has fallen, and with it what was claimed of it."""
    told = []
    for fallen in (False, False, True):
        table(*[line.replace(",0.8", ",0.6") if fallen else line for line in arms()])
        code, out, err = run(*JUDGE, *AGAINST, "--history", "kept")
        assert code == 0, err
        told.append(out.splitlines()[-2:])
    assert [lines[1] for lines in told] == [
        "the first night: kept", "nothing is worse: kept", "worse than before: kept",
    ]  # fmt: skip
    assert told[2][0].startswith("skip is worse: best accuracy 0.8200 to 0.6200; ")
    code, out, err = run("history", "kept", "--page")
    assert code == 0 and "3 nights" in out and "regression" in out and Path("kept/index.html").exists(), err
    code, _, err = run(*JUDGE, "--history", "kept", "--name", "other")
    assert code == 4 and "kept: is the history of judged. Fix: name another, or judge with --name judged." in err


def test_judged_again_the_runs_of_before_are_gone_and_runs_trained_here_are_never(run):
    table(*arms())
    run(*JUDGE)
    assert run(*JUDGE)[2] == ""
    table(*arms()[:3])
    code, _, err = run(*JUDGE)
    assert (code, err) == (
        0,
        "replaced: 10 runs judged before as judged; another --name keeps both, --history every state\n",
    )
    assert len(Store(Path("results"), "judged").load()) == 3
    Store(Path("results"), "quick").save(record())
    code, _, err = run(*JUDGE, "--name", "quick")
    assert code == 4 and "holds runs that were trained here. Fix: choose another --name." in err
    assert len(Store(Path("results"), "quick").load()) == 1


def test_a_line_per_epoch_and_rows_by_two_settings(run):
    head = "depth,aug,seed,epoch,val/acc,loss"
    lines = [
        f"{d},{a},{s},{e},{0.1 * e + s / 100},{1 / e}" for d in (2, 8) for a in "xy" for s in (0, 1) for e in (2, 1)
    ]
    table(*lines, head=head)
    code, _, err = run(
        "judge", "runs.csv", "--row", "depth", "--row", "aug", "-m", "val/acc", "--lower", "loss", "--epoch", "epoch",
        "--better", "8-x", "--worse", "2-x",
    )  # fmt: skip
    assert code == 0, err
    runs = {(r.row, r.seed): r for r in Store(Path("results"), "judged").load()}
    assert {row for row, _ in runs} == {"2-x", "2-y", "8-x", "8-y"}
    one = runs["8-y", 1]
    assert [e.figures["loss"] for e in one.epochs] == [1.0, 0.5]
    assert [e.figures["acc"] for e in one.epochs] == pytest.approx([0.11, 0.21])
    assert one.settings == {"depth": 8, "aug": "y"} and one.lower_is_better == ["loss"] and one.best("loss") == 0.5


def test_claims_are_by_the_last_epoch_or_by_the_best(run):
    runs = [f"{arm},{s}" for arm in ("skip", "no skip") for s in range(5)]
    table(*[f"{r},{e},{(0.9 if e == 1 else 0.5) - 0.2 * (r[0] == 'n') * (e == 1) + int(r[-1]) / 100}" for r in runs
            for e in (1, 2)], head="arm,seed,epoch,accuracy")  # fmt: skip
    for option, words in (("--best", "+0.200"), ("--worse", "+0.000")):
        extra = [option] if option == "--best" else []
        code, out, err = run(*JUDGE, "--epoch", "epoch", *AGAINST, *extra)
        assert code == 0 and words in out.partition("claim ")[2], err
        assert run("report", "--study", "judged")[0] == 0
        assert words[:6] in Path("results/judged/verdicts.md").read_text().partition("\n## ")[2].partition("\n### ")[0]


def test_pytest_benchmarks_json_has_figures_in_extra_info_and_times(run):
    benchmarks = [
        {"name": f"test[{arm}-{s}]", "params": {"arm": arm}, "extra_info": {"seed": s, "iou": 0.5 + s / 10},
         "stats": {"mean": 2.0 + s, "total": 4.0, "rounds": 2}}
        for arm in "ab" for s in (0, 1)
    ]  # fmt: skip
    Path("b.json").write_text(json.dumps({"benchmarks": benchmarks, "datetime": "2026-01-02T03:04:05+00:00"}))
    code, _, err = run("judge", "b.json", "--row", "arm", "-m", "iou", "--lower", "seconds=mean")
    assert code == 0, err
    runs = Store(Path("results"), "judged").load()
    assert {(r.row, r.seed): r.last("seconds") for r in runs}["b", 1] == 3.0
    assert runs[0].started.startswith("2026-01-02") and runs[0].times.total_seconds == 4.0


def test_records_of_another_study_are_judged_by_a_claim_of_ones_own(run):
    for row, best in (("q1_1", 0.6), ("q1_2", 0.8)):
        for seed in range(3):
            Store(Path("results"), "quick").save(record(row, seed, figures=((best + seed / 100,),)))
    rows = ("--better", "q1_2-finetune", "--worse", "q1_1-features")
    for source, name in (("results", "again"), ("results/quick", "once_more")):
        code, out, err = run("judge", source, "-m", "accuracy", *rows, "--name", name)
        assert code == 0 and "+0.200" in out, err
        assert (Path("results") / name / "report.md").exists()


def test_runs_judged_before_stay_where_the_new_ones_cannot_be_written(run, monkeypatch):
    table(*arms())
    assert run(*JUDGE, *AGAINST)[0] == 0
    before = sorted(Path("results/judged/runs").rglob("*.json"))
    table(*[line.replace("no skip", 300 * "x") for line in arms()])
    code, _, err = run(*JUDGE)
    assert code == 4 and "name too long" in err and set(before) <= {*Path("results/judged/runs").rglob("*.json")}
    table(*[line.replace("0.1,", "0.2,") for line in arms()])
    assert run(*JUDGE, *AGAINST)[0] == 0
    assert len(list(Path("results/judged/runs").rglob("*.json"))) == 10


def test_a_folder_that_judge_wrote_to_can_be_judged_again(run):
    for row, best in (("q1_1", 0.6), ("q1_2", 0.8)):
        for seed in range(3):
            Store(Path("results"), "quick").save(record(row, seed, figures=((best + seed / 100,),)))
    for _ in range(2):
        code, _, err = run(
            "judge", "results", "-m", "accuracy", "--better", "q1_2-finetune", "--worse", "q1_1-features"
        )
        assert code == 0, err


def test_a_figure_whose_best_is_known_to_be_the_lowest_is_not_judged_as_the_highest(run):
    Store(Path("results"), "quick").save(record())
    code, _, err = run("judge", "results", "-m", "cost=loss", "--name", "again")
    assert code == 4 and "has the lowest loss as its best. Fix: name it with --lower loss." in err
    table(*arms())
    assert "best is the highest accuracy (see --metric, --lower)" in run(*JUDGE)[1]
    assert "and the lowest lr" in run(*JUDGE, "--lower", "lr")[1]
    assert "and the lowest loss" in run(*JUDGE, "--metric", "loss=lr")[1]


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        (["skip,0,0.1,0.8", "skip,0,0.1,0.9"], (), "line 3 of runs.csv is of row skip, seed 0, and so is line 2 of"),
        (["skip,0,0.1,0.8", "skip,1,0.1,"], (), "line 3 of runs.csv has accuracy=nan at step 1 of 1"),
        (["skip,0,0.1,0.8", "skip,1,0.1,good"], (), "has 'good' for accuracy in line 3"),
        (["skip,0,0.1,inf"], (), "has accuracy=inf"),
        (["skip,half,0.1,0.8"], (), "has seed='half'"),
        (["skip,-1,0.1,0.8"], (), "has seed=-1"),
        ([",0,0.1,0.8"], (), "has no arm"),
        (["a b,0,0.1,0.8", "a/b,1,0.1,0.8"], (), "'a/b', which has the name of 'a b'"),
        (["skip,0,0.1,0.8"], ("--metric", "miou"), "has no column miou. Fix: name columns that are there: arm,"),
        (["skip,0,0.1,0.8"], ("--metric", "accuracy=lr"), "figure accuracy: is accuracy and lr"),
        (["skip,0,0.1,0.8"], ("--better", "full", "--worse", "skip"), "claim full_above_skip-accuracy: has row='full'"),
        (["skip,0,0.1,0.8"], ("--better", "skip"), "--better skip: has nothing to beat. Fix: name a row with --worse"),
        (["skip,0,0.1,0.8"], ("--worse", "skip"), "--worse skip: has nothing that should beat it"),
        (["skip,0,0.1,0.8"], ("--margin", "0.1"), "--margin 0.1: has nothing that should exceed it. Fix: name a row"),
        (["skip,0,0.1,0.8"], ("--only", "lr=0.2"), "has no runs with lr=0.2"),
        (["skip,0,0.1,0.8"], ("--only", "lr"), "--only lr: has no =. Fix: write it as --only lr=VALUE"),
        (["skip,0,0.1,0.8"], ("--epoch", "epoch"), "has no column epoch"),
        (["skip,0,0.1,0.8"], ("--experiment", "a"), "--experiment a: is not for runs.csv, but for mlflow. Fix: leave"),
        ([], (), "has no runs"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_one_line_that_names_it(run, lines, options, words):
    table(*lines)
    code, out, err = run(*JUDGE, *options)
    assert code == 4 and not out and err.count("\n") == 1 and words in err and "Fix: " in err
    assert not Path("results").exists()


def test_sources_that_are_none(run, tmp_path):
    for source, words in (
        ("none.csv", "is neither a file nor a folder"),
        (tmp_path, "holds no runs of a known kind"),
        ("csv:none", "cannot be read as CSV"),
    ):
        code, _, err = run("judge", source, "-m", "accuracy")
        assert code == 4 and words in err
    (tmp_path / "x.json").write_text("[]")
    assert "is not pytest-benchmark's" in run("judge", "x.json", "-m", "accuracy")[2]
    assert "--metric: is missing" in run("judge", "x.json")[2]
    (tmp_path / "x.wandb").write_bytes(b"nothing of theirs")
    assert "is not a file of wandb's" in run("judge", "x.wandb", "-m", "accuracy")[2]


def stored(name="judged"):
    return {(r.row, r.seed): r for r in Store(Path("results"), name).load()}


def test_a_table_as_people_have_it(run):
    """An index, spaces, seeds with letters, a column of a tracker's states, and a run whose seeds are large."""
    large = 2**53 + 1
    lines = [f"{i}, {a} , s{s + large}, {state}, {v}" for i, (a, s, state, v) in enumerate([
        ("skip", 0, "finished", 0.8), ("skip", 1, "finished", 0.9), ("skip", 2, "crashed", 0.1),
        ("no skip", 0, "finished", 0.7), ("no skip", 1, "finished", 0.75)])]  # fmt: skip
    table(*lines, head=", arm, seed, State, accuracy")
    code, _, err = run(*JUDGE, *AGAINST)
    assert code == 0 and err == "left out: line 4 of runs.csv: crashed\n"
    assert stored().keys() == {(arm, large + s) for arm in ("skip", "no_skip") for s in (0, 1)}
    assert {tuple(r.settings) for r in stored().values()} == {("arm",)}


def test_parquet_is_read_as_csv_is(run):
    pytest.importorskip("pyarrow")
    table(*arms())
    pd.read_csv("runs.csv").to_parquet("runs.parquet")
    values = {}
    for source in ("runs.csv", "runs.parquet"):
        assert run("judge", source, *JUDGE[2:], *AGAINST)[0] == 0
        values[source] = {key: r.last("accuracy") for key, r in stored().items()}
    assert values["runs.csv"] == values["runs.parquet"] and len(values["runs.csv"]) == 10


def test_an_exported_chart_of_wandb_has_a_column_for_each_run(run):
    names = [f"{arm}-{seed}" for arm in ("skip", "no-skip") for seed in (0, 1)]
    head = ",".join(f'"{n} - val/acc","{n} - val/acc__MIN","{n} - val/acc__MAX"' for n in names)
    lines = [
        "1," + ",".join(f"0.{i + 1},0,1" for i in range(4)),
        "2," + ",".join(f"0.{i + 2},0,1" for i in range(3)) + ",,,",
    ]
    table(*lines, head='"Step",' + head)
    judge = ("judge", "runs.csv", "--row", "arm", "-m", "val/acc")
    code, _, err = run(*judge, "--better", "skip", "--worse", "no-skip")
    assert code == 0, err
    curves = {key: [e.figures["acc"] for e in r.epochs] for key, r in stored().items()}
    assert curves == {
        ("skip", 0): [0.1, 0.2],
        ("skip", 1): [0.2, 0.3],
        ("no-skip", 0): [0.3, 0.4],
        ("no-skip", 1): [0.4],
    }
    words = "has a run skip-0, whose name does not fit {arm}-skip-{seed}"
    assert words in run(*judge, "--pattern", "{arm}-skip-{seed}")[2]


def test_training_and_validation_may_have_a_line_each_of_an_epoch(run):
    lines = [f"skip,{s},{e},{lr},{loss},{acc}" for s in (0, 1) for e in (10, 9) for lr, loss, acc in
             ((0.1 / e, s + 1 / e, ""), (0.1 / e, "", s / 10 + e / 100))]  # fmt: skip
    table(*lines, head="arm,seed,epoch,lr,loss,accuracy")
    code, _, err = run(*JUDGE, "--lower", "loss", "--epoch", "epoch")
    assert code == 0, err
    assert [e.figures for e in stored()["skip", 1].epochs] == [
        {"accuracy": pytest.approx(0.1 + e / 100), "loss": pytest.approx(1 + 1 / e)} for e in (9, 10)
    ]
    assert "lr" not in stored()["skip", 1].settings  # it changes from epoch to epoch


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ("e9 e10", "has 'e9' for epoch in line 2"),
        ("1 ", "has nan for epoch in line 3"),
        ("3 3", "has epoch 3 twice (arm=skip, seed=0)"),
    ],
)
def test_epochs_are_numbers_and_each_is_there_once(run, epochs, words):
    table(*(f"skip,0,{epoch},0.8" for epoch in epochs.split(" ")), head="arm,seed,epoch,accuracy")
    code, _, err = run(*JUDGE, "--epoch", "epoch")
    assert code == 4 and words in err


def test_a_package_may_bring_a_reader_of_its_own(run, monkeypatch):
    def lab(where, wanted):
        assert wanted.row == ["arm"]
        for arm, of in (("skip", SKIP), ("no skip", PLAIN)):
            for seed, value in enumerate(of):
                run = LoggedRun(where=where, values={"arm": arm, "seed": seed}, history=[{"accuracy": value}])
                yield run if where == "shelf" else vars(run)

    point = EntryPoint("lab", f"{__name__}:lab", "cvhw4.readers")
    monkeypatch.setattr("cvhw4.readers.entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(sys.modules[__name__], "lab", lab, raising=False)
    code, _, err = run("judge", "lab:shelf", *JUDGE[2:], *AGAINST)
    assert code == 0 and stored()["skip", 2].last("accuracy") == SKIP[2], err
    code, _, err = run("judge", "lab:drawer", *JUDGE[2:], *AGAINST)
    assert code == 4 and "lab:drawer: has a reader that yields {'where': 'drawer', " in err
    assert "Fix: let it yield cvhw4.readers.LoggedRun" in err
    monkeypatch.delattr(sys.modules[__name__], "lab")
    code, _, err = run("judge", "lab:shelf", *JUDGE[2:], *AGAINST)
    assert code == 4 and "has a reader that cannot be loaded" in err


def test_without_a_finished_run_nothing_is_judged(run):
    table("skip,0,failed,0.8", head="arm,seed,status,accuracy")
    code, _, err = run(*JUDGE)
    assert code == 4 and "runs.csv: has no finished run (line 2 of runs.csv: failed)" in err


def test_two_folders_of_judged_runs_are_compared_beside_a_study_of_ones_own(run):
    Path("pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    for folder, change in (("old", 0), ("new", -0.2)):
        lines = [
            f"{arm},{s},0.1,{value + change}"
            for arm, of in (("skip", SKIP), ("no skip", PLAIN))
            for s, value in enumerate(of)
        ]
        table(*lines)
        assert run(*JUDGE, *AGAINST, "--results", folder)[0] == 0
    for more in ((), ("--study", "judged")):
        code, out, err = run("compare", "old", "new", *more)
        assert code == 1 and "worse" in out, err


def test_rows_may_be_called_none_or_na_and_blank_figures_are_missing(run):
    lines = [f"{arm},{seed},{value}" for arm, of in (("None", PLAIN), ("NA", SKIP)) for seed, value in enumerate(of)]
    table(*lines, "null,0,nan", head="augment,seed,accuracy")
    judge = ("judge", "runs.csv", "--row", "augment", "--metric", "accuracy", "--better", "NA", "--worse", "None")
    code, out, err = run(*judge, "--only", "augment=None", "--only", "seed=0")
    assert code == 4 and "NA" in err  # left out
    table(*lines, head="augment,seed,accuracy")
    code, out, err = run(*judge)
    assert code == 0 and "NA_above_None-accuracy" in out and "supported" in out, err
    lines = [f"{rate},{s},{value},nan" for rate, of in ((2, SKIP), ("None", PLAIN)) for s, value in enumerate(of)]
    table(*lines, head="dropout,seed,accuracy,never")
    judge = ("judge", "runs.csv", "--row", "dropout", "--metric", "accuracy", "--better", "2", "--worse", "None")
    assert run(*judge)[0] == 0
