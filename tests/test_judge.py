"""Runs that were logged elsewhere, judged: files, and what is wrong with them. Trackers: see test_trackers."""

import json
import re
import resource
import subprocess
import sys
from dataclasses import replace
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


@pytest.fixture
def judge(run):
    """What judging `source` prints, and what it says beside that, as lines."""

    def done(*options, source="runs.csv", of=JUDGE[2:], ends=0):
        code, out, err = run("judge", source, *of, *options)
        assert code == ends, err
        return out, err.splitlines()

    return done


@pytest.fixture
def refused(run):
    """The one line that says why `source` cannot be judged."""

    def done(*options, source="runs.csv", of=JUDGE[2:]):
        code, out, err = run("judge", source, *of, *options)
        assert code == 4 and not out and err.count("\n") == 1 and "Fix: " in err
        return err

    return done


def table(*lines, head="arm,seed,lr,accuracy"):
    Path("runs.csv").write_text("\n".join([head, *lines]) + "\n")


def arms(skip=0.0):
    """Lines of both arms, those of skip higher by so much."""
    both = (("skip", np.add(SKIP, skip)), ("no skip", PLAIN))
    return [f"{arm},{seed},0.1,{value:g}" for arm, values in both for seed, value in enumerate(values)]


def stored(name="judged"):
    return {(r.row, r.seed): r for r in Store(Path("results"), name).load()}


def verdict(out):
    """The words of the line of the claim, behind its name."""
    return next(line.split()[1:] for line in out.splitlines() if line.startswith("skip_above_no_skip-accuracy"))


def test_a_csv_gives_interval_verdict_and_pages(judge):
    table(*arms())
    differences = np.subtract(SKIP, PLAIN)
    low, high = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    out, _ = judge(*AGAINST, "--only", "lr=1e-1")
    assert verdict(out) == [f"{differences.mean():+.3f}", f"[{low:.3f},", f"{high:.3f}]", "5", "supported"]
    pages = Path("results/judged")
    assert "skip beats no_skip in accuracy" in (pages / "verdicts.md").read_text()
    report = (pages / "report.md").read_text()
    assert "Runs of runs.csv" in report and "training loop" not in report and "0 s" not in report
    assert "Learning curves" not in report  # a point each
    assert (pages / "report.html").exists()


@pytest.mark.integration
def test_judging_ten_runs_takes_little_more_than_loading_its_libraries(tmp_path, monkeypatch):
    """As a command of its own, pages and all: 1.3 times their processor time, and above 2 with torch loaded."""
    monkeypatch.chdir(tmp_path)
    table(*arms())

    def seconds(*command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out

    libraries, _ = seconds("-c", "import matplotlib.figure, pandas, scipy.stats, tabulate")
    judging, out = seconds("-m", "cvhw4", *JUDGE, *AGAINST)
    assert "supported" in out and Path("results/judged/report.html").exists()
    assert judging < 2 * libraries


def test_equal_differences_of_rounded_figures_decide_nothing(judge, run):
    """Two seeds at 0.82 and 0.83 against 0.81 and 0.82: as much as rounding makes."""
    table("skip,0,0.1,0.82", "skip,1,0.1,0.83", "no skip,0,0.1,0.81", "no skip,1,0.1,0.82")
    half = stats.t.ppf(0.975, 1) * 0.01 * np.sqrt(2 / 12) / np.sqrt(2)
    out, _ = judge(*AGAINST)
    assert verdict(out) == ["+0.010", f"[{0.01 - half:.3f},", f"{0.01 + half:.3f}]", "2", "undecided"]
    assert "**" not in run("table")[1]


def test_rows_without_a_common_seed_are_told_and_judge_nothing(judge, refused, run):
    table(
        *(f"{arm},{seed},0.1,0.8" for arm, first in (("skip", 0), ("no skip", 10)) for seed in range(first, first + 5))
    )
    told = "skip and no_skip have no seed in common (skip: 0-4; no_skip: 10-14). Fix: give"
    assert told in refused(*AGAINST) and not Path("results").exists()
    judge()
    assert "no row has two seeds in common with no skip." in run("table", "--baseline", "no skip")[1]


def test_seeds_that_one_row_alone_has_are_told(judge):
    table(*arms(), "skip,7,0.1,0.9", "third,9,0.1,0.9")
    out, told = judge(*AGAINST, "--better", "third")
    assert told == [
        "not paired: skip and no_skip: 1 of 6 seeds (skip: 7)",
        "not judged: third and no_skip have no seed in common (third: 9; no_skip: 0-4)",
    ]
    assert "third_above" not in out and verdict(out)


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


def test_other_commands_know_what_was_judged(judge, run):
    table(*arms())
    judge(*AGAINST)
    assert run("report", "--study", "judged")[0] == 0
    assert "0.820" in run("table", "--metric", "accuracy")[1]
    told = run("table", "no skip", "skip", "--baseline", "no skip", "--caption", "Two arms")[1]
    assert told.startswith("Two arms.\n") and "| no skip " in told and "below no skip" in told
    assert "skip beats no skip in accuracy: +0.100, supported" in run("figure", "claims", "claims.svg")[1]
    assert "skip-seed4" in run("show", "skip-seed4")[1].replace(", seed 4", "-seed4")
    table(*arms(skip=-0.3))
    judge("--results", "later", *AGAINST)
    assert "Fix: name the one of cvhw4 judge --history; two results folders are for" in run("history", "results")[2]
    for studies in ("", '[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n'):  # or a study of one's own beside it
        Path("pyproject.toml").write_text(studies)
        for more in ((), ("--study", "judged")):
            code, out, err = run("compare", "results", "later", *more)
            assert code == 1 and "skip" in out and "worse" in out, err


def test_what_was_judged_has_a_history(judge, refused, run):
    """Every judging is a night: the third time one arm has fallen, and with it what was claimed of it."""
    told = []
    for fallen in (0, 0, -0.2):
        table(*arms(fallen))
        told += judge(*AGAINST, "--history", "kept", ends=int(fallen < 0))[0].splitlines()[-2:]
    assert told[1::2] == ["the first night: kept", "nothing is worse: kept", "worse than before: kept"]
    assert told[4].startswith("skip is worse: best accuracy 0.8200 to 0.6200; ")
    code, out, err = run("history", "kept", "--page")
    assert code == 0 and "3 nights" in out and "regression" in out and Path("kept/index.html").exists(), err
    for given, why in (("no skip", "--accept no skip: has no reason"), ("q9: because", "--accept q9: is not a row")):
        assert why in refused("--history", "kept", "--accept", given)
    assert "no history that keeps it" in refused("--accept", "skip: agreed on")
    taken = judge(*AGAINST, "--history", "kept", "--accept", "skip: fewer epochs, agreed on")[0].splitlines()[-2:]
    assert "skip is accepted: fewer epochs, agreed on" in taken[0] and taken[1] == "nothing is worse: kept"
    judge(*AGAINST, "--history", "kept")
    table(*arms()[:5])  # one arm is dropped
    assert "no_skip is missing: was not run" in judge("--history", "kept", ends=1)[0]
    judge("--history", "kept", "--accept", "no skip: no longer of interest")
    judge("--history", "kept")
    told = refused("--history", "kept", "--name", "other")
    assert "kept: is the history of judged. Fix: name another, or judge with --name judged." in told


def test_judged_again_the_runs_of_before_are_gone_once_the_new_ones_are_written(judge, run):
    def written():
        return {*Path("results/judged/runs").rglob("*.json")}

    table(*arms())
    judge()
    Path("results/judged/runs/.DS_Store").touch()
    assert judge()[1] == []
    before = written()
    table(*[line.replace("no skip", 300 * "x") for line in arms()])
    code, _, err = run(*JUDGE)
    assert code == 4 and "name too long" in err and "replaced" not in err and before <= written()
    table(*[line.replace("0.1,", "0.2,") for line in arms()])
    judge()
    assert len(written()) == 10
    table(*arms()[:3])
    told = "replaced: 10 runs judged before as judged; another --name keeps both, --history every state"
    assert judge()[1] == [told] and len(stored()) == 3


def test_runs_that_were_trained_here_are_never_replaced(refused):
    table(*arms())
    Store(Path("results"), "quick").save(record())
    assert "holds runs that were trained here. Fix: choose another --name." in refused("--name", "quick")
    assert len(stored("quick")) == 1


def test_a_line_per_epoch_and_rows_by_two_settings(judge):
    lines = [
        f"{d},{a},{s},{e},{0.1 * e + s / 100},{1 / e}" for d in (2, 8) for a in "xy" for s in (0, 1) for e in (2, 1)
    ]
    table(*lines, head="depth,aug,seed,epoch,val/acc,loss")
    figures = ("-m", "val/acc", "--lower", "loss", "--epoch", "epoch")
    judge("--better", "8-x", "--worse", "2-x", *figures, of=("--row", "depth", "--row", "aug"))
    assert {row for row, _ in stored()} == {"2-x", "2-y", "8-x", "8-y"}
    one = stored()["8-y", 1]
    assert [e.figures["loss"] for e in one.epochs] == [1.0, 0.5]
    assert [e.figures["acc"] for e in one.epochs] == pytest.approx([0.11, 0.21])
    assert one.settings == {"depth": 8, "aug": "y"} and one.lower_is_better == ["loss"] and one.best("loss") == 0.5


def test_semicolons_and_decimal_commas_are_read_and_a_difference_of_no_interest_is_equivalent(judge):
    lines = [line.replace(",", ";").replace(".", ",") for line in arms()]
    table(*lines, head="arm;seed;lr;accuracy")
    pd.read_csv("runs.csv", sep=";", dtype=str).to_csv("runs.csv.gz", sep=";", index=False)
    for source in ("runs.csv", "csv:runs.csv.gz"):
        assert verdict(judge(*AGAINST, source=source)[0])[0] == f"{np.mean(np.subtract(SKIP, PLAIN)):+.3f}"
    same = (("skip", SKIP), ("no skip", np.add(SKIP, [1e-3, -1e-3, 0, 1e-3, -1e-3])))
    table(*[f"{arm},{seed},0.1,{value:.4f}" for arm, values in same for seed, value in enumerate(values)])
    assert verdict(judge(*AGAINST)[0])[-1] == "undecided"
    assert verdict(judge(*AGAINST, "--smallest", "0.01")[0])[-1] == "equivalent"


@pytest.mark.parametrize(("option", "words"), [(["--best"], "+0.200"), ([], "+0.000")])
def test_claims_are_by_the_last_epoch_or_by_the_best(judge, run, option, words):
    best = {"skip": 0.9, "no skip": 0.7}
    lines = [f"{arm},{s},{e},{x + s / 100}" for arm in best for s in range(5) for e, x in ((1, best[arm]), (2, 0.5))]
    table(*lines, head="arm,seed,epoch,accuracy")
    assert words in judge("--epoch", "epoch", *AGAINST, *option)[0].partition("claim ")[2]
    assert run("report", "--study", "judged")[0] == 0
    assert words in Path("results/judged/verdicts.md").read_text().partition("\n## ")[2].partition("\n### ")[0]


def test_pytest_benchmarks_json_has_figures_in_extra_info_and_times(judge):
    given = {"fused": True, "lr": 1e-5}
    benchmarks = [
        {"name": f"test[{arm}-{s}]", "params": {"arm": arm}, "extra_info": {"seed": s, "iou": 0.5 + s / 10, **given},
         "stats": {"mean": 2.0 + s, "total": 4.0, "rounds": 2}}
        for arm in "ab" for s in (0, 1)
    ]  # fmt: skip
    Path("b.json").write_text(json.dumps({"benchmarks": benchmarks, "datetime": "2026-01-02T03:04:05+00:00"}))
    only = ("--only", "fused=true", "--only", "lr=1e-5")
    judge(*only, source="b.json", of=("--row", "arm", "-m", "iou", "--lower", "seconds=mean"))
    one = stored()["b", 1]
    assert one.last("seconds") == 3.0 and one.times.total_seconds == 4.0 and one.started.startswith("2026-01-02")


def test_records_of_another_study_are_judged_by_a_claim_of_ones_own(judge, refused):
    for row, best in (("q1_1", 0.6), ("q1_2", 0.8)):
        for seed in range(3):
            Store(Path("results"), "quick").save(record(row, seed, figures=((best + seed / 100,),)))
    other = record("q1_2", figures=((0.1,),), fingerprint="f" * 64)  # on data of its own
    Store(Path("results"), "quick").save(replace(other, data=replace(other.data, name="photos")))
    claim = ("-m", "accuracy", "--better", "q1_2-finetune", "--worse", "q1_1-features")
    told = refused(source="results", of=claim)
    assert "q1_2-finetune, seed 0, on photos, of quick" in told and "--only NAME=VALUE leaves others out" in told
    for source, name in (("results", "again"), ("results", "again"), ("results/quick", "once_more")):  # beside its own
        assert "+0.200" in judge("--name", name, "--only", "data=embedded", source=source, of=claim)[0]
        assert (Path("results") / name / "report.md").exists()


def test_negative_controls_are_no_rows_of_what_is_judged(run, judge):
    Path("pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    noisy = record("q1_1", figures=((0.5,),), fingerprint="f" * 64)
    noisy = replace(noisy, row="elsewhere", settings=noisy.settings | {"corruption": ["label noise", 0.2]})
    faster = replace(record("q1_1", figures=((0.4,),)), row="q1_1x-learning_rate_10")
    for each in (record("q1_1"), record("q1_2"), noisy, faster):
        Store(Path("results"), "quick").save(each)
    judge("--history", "history", source="results", of=("-m", "accuracy"))
    assert {row for row, _ in stored()} == {"q1_1-features", "q1_2-finetune"}
    (night,) = Path("history/nights").glob("*.json")
    assert {row["row"] for row in json.loads(night.read_text())["rows"]} == {"q1_1-features", "q1_2-finetune"}


UNUSABLE = ["[tool", "tool = 3", *(f'"{module}:studies"' for module in ("absent", "raises", "exits", "odd"))]


@pytest.mark.parametrize("studies", UNUSABLE)
def test_records_are_judged_though_pyproject_names_what_cannot_be_used(judge, monkeypatch, studies):
    Path("raises.py").write_text("raise RuntimeError('on import')")
    Path("exits.py").write_text("def studies():\n    raise SystemExit('of its own')")
    Path("odd.py").write_text("def studies():\n    return [3]")
    text = f"[tool.cvhw4]\nstudies = {studies}" if studies[0] == '"' else studies
    Path("pyproject.toml").write_text(text)
    monkeypatch.setattr("sys.path", [str(Path.cwd()), *sys.path])
    Store(Path("results"), "quick").save(record("q1_1"))
    (told,) = judge(source="results", of=("-m", "accuracy"))[1]
    assert told.startswith("warning: negative controls may be among the rows: ") and "pyproject.toml" in told
    assert {row for row, _ in stored()} == {"q1_1-features"}


def test_a_figure_whose_best_is_known_to_be_the_lowest_is_not_judged_as_the_highest(judge, refused):
    Store(Path("results"), "quick").save(record())
    told = refused("--name", "again", source="results", of=("-m", "cost=loss"))
    assert "has the lowest loss as its best. Fix: name it with --lower loss." in told
    table(*arms())
    assert "best is the highest accuracy (see --metric, --lower)" in judge()[0]
    assert "and the lowest lr" in judge("--lower", "lr")[0]
    assert "and the lowest loss" in judge("--metric", "loss=lr")[0]


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        (["skip,0,0.1,0.8", "skip,0,0.1,0.9"], (), "line 3 of runs.csv is of row skip, seed 0, and so is line 2 of"),
        (["skip,0,0.1,0.8", "skip,1,0.1,"], (), "line 3 of runs.csv has accuracy=nan at step 1 of 1. Fix: log all fig"),
        (["skip,0,0.1,0.8", "skip,1,0.1,80.1%"], (), "has '80.1%' for accuracy in line 3. Fix: give plain numbers in"),
        (["skip,0,0.1,inf"], (), "has accuracy=inf"),
        (["skip,half,0.1,0.8"], (), "has seed='half'"),
        (["skip,-1,0.1,0.8"], (), "has seed=-1"),
        ([",0,0.1,0.8"], (), "line 2 of runs.csv has no value for arm"),
        (["skip,0,0.1,0.8"], ("--smallest", "0.1"), "--smallest 0.1: has no claim that it belongs to. Fix: give a"),
        (["skip,0,0.1,0.8"], ("--smallest", "-1", "--better", "skip"), "--smallest -1: is below 0"),
        (["a b,0,0.1,0.8", "a/b,1,0.1,0.8"], (), "'a/b', which has the name of 'a b'"),
        (["skip,0,0.1,0.8"], ("--metric", "miou"), "has no column miou. Fix: name columns that are there: arm,"),
        (["skip,0,0.1,0.8"], ("--metric", "accuracy=lr"), "figure accuracy: is accuracy and lr"),
        (["skip,0,0.1,0.8"], ("--better", "full", "--worse", "skip"), "claim full_above_skip-accuracy: has row='full'"),
        (["skip,0,0.1,0.8"], ("--better", "skip"), "--better skip: has nothing to beat. Fix: name a row with --worse"),
        (["skip,0,0.1,0.8"], ("--worse", "skip"), "--worse skip: has nothing that should beat it"),
        (["skip,0,0.1,0.8"], ("--margin", "0.1"), "--margin 0.1: has nothing that should exceed it. Fix: name a row"),
        (["skip,0,0.1,0.8"], ("--only", "lr=0.2"), "has no runs with lr=0.2"),
        ([f"skip,{2**53 + 1},0.1,0.8"], ("--only", f"seed={2**53}"), f"has no runs with seed={2**53}"),
        (["skip,0,0.1,0.8"], ("--only", "lr"), "--only lr: has no =. Fix: write it as --only lr=VALUE"),
        (["skip,0,0.1,0.8"], ("--epoch", "epoch"), "has no column epoch"),
        (["skip,0,e9,0.8", "skip,0,e10,0.8"], ("--epoch", "lr"), "has 'e9' for lr in line 2"),
        (["skip,0,1,0.8", "skip,0,,0.8"], ("--epoch", "lr"), "has nan for lr in line 3"),
        (["skip,0,3,0.8", "skip,0,3,0.8"], ("--epoch", "lr"), "has lr 3 twice (arm=skip, seed=0)"),
        (["skip,0,0.1,0.8"], ("--experiment", "a"), "--experiment a: is not for runs.csv, but for mlflow. Fix: leave"),
        ([], (), "has no runs"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_one_line_that_names_it(refused, lines, options, words):
    table(*lines)
    assert words in refused(*options) and not Path("results").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.csv", "is neither a file nor a folder"),
        ("empty", "holds no runs of a known kind"),
        ("csv:none", "cannot be read as CSV"),
        ("x.json", "is not pytest-benchmark's"),
        ("x.wandb", "is not a file of wandb's"),
    ],
)
def test_sources_that_are_none(refused, source, words):
    Path("empty").mkdir()
    Path("x.json").write_text("[]")
    Path("x.wandb").write_bytes(b"nothing of theirs")
    assert words in refused(source=source, of=("-m", "accuracy"))
    assert "--metric: is missing" in refused(source=source, of=())


def test_a_table_as_people_have_it(judge):
    """An index, spaces, seeds with letters, a column of a tracker's states, and a run whose seeds are large."""
    large = 2**53 + 1
    lines = [f"{i}, {a} , s{s + large}, {state}, {v}" for i, (a, s, state, v) in enumerate([
        ("skip", 0, "finished", 0.8), ("skip", 1, "finished", 0.9), ("skip", 2, "crashed", 0.1),
        ("no skip", 0, "finished", 0.7), ("no skip", 1, "finished", 0.75)])]  # fmt: skip
    table(*lines, head=", arm, seed, State, accuracy")
    assert judge(*AGAINST)[1] == ["left out: line 4 of runs.csv: crashed"]
    assert stored().keys() == {(arm, large + s) for arm in ("skip", "no_skip") for s in (0, 1)}
    assert {tuple(r.settings) for r in stored().values()} == {("arm",)}


def test_parquet_is_read_as_csv_is(judge):
    pytest.importorskip("pyarrow")
    table(*arms())
    pd.read_csv("runs.csv").to_parquet("runs.parquet")
    values = []
    for source in ("runs.csv", "runs.parquet"):
        judge(source=source)
        values.append({key: r.last("accuracy") for key, r in stored().items()})
    assert values[0] == values[1] and len(values[0]) == 10


def test_an_exported_chart_of_wandb_has_a_column_for_each_run(judge, refused):
    names = [f"{arm}-{seed}" for arm in ("skip", "no-skip") for seed in (0, 1)]
    head = ",".join(f'"{n} - val/acc","{n} - val/acc__MIN","{n} - val/acc__MAX"' for n in names)
    first, second = (",".join(f"0.{i + step},0,1" for i in range(n)) for step, n in ((1, 4), (2, 3)))
    table(f"1,{first}", f"2,{second},,,", head=f'"Step",{head}')
    of = ("--row", "model.arm", "-m", "val/acc")
    judge("--better", "skip", "--worse", "no-skip", of=of)
    curves = {key: [e.figures["acc"] for e in r.epochs] for key, r in stored().items()}
    rising = {("skip", 0): [0.1, 0.2], ("skip", 1): [0.2, 0.3], ("no-skip", 0): [0.3, 0.4]}
    assert curves == rising | {("no-skip", 1): [0.4]}
    words = "has a run skip-0, whose name does not fit {model.arm}-skip-{seed}"
    assert words in refused("--pattern", "{model.arm}-skip-{seed}", of=of)


def test_training_and_validation_may_have_a_line_each_of_an_epoch(judge):
    lines = [f"skip,{s},{e},{lr},{loss},{acc}" for s in (0, 1) for e in (10, 9) for lr, loss, acc in
             ((0.1 / e, s + 1 / e, ""), (0.1 / e, "", s / 10 + e / 100))]  # fmt: skip
    table(*lines, head="arm,seed,epoch,lr,loss,accuracy")
    judge("--lower", "loss", "--epoch", "epoch")
    assert [e.figures for e in stored()["skip", 1].epochs] == [
        {"accuracy": pytest.approx(0.1 + e / 100), "loss": pytest.approx(1 + 1 / e)} for e in (9, 10)
    ]
    assert "lr" not in stored()["skip", 1].settings  # it changes from epoch to epoch


def test_a_package_may_bring_a_reader_of_its_own(judge, refused, monkeypatch):
    def lab(where, wanted):
        assert wanted.row == ["arm"]
        for arm, of in (("skip", SKIP), ("no skip", PLAIN)):
            for seed, value in enumerate(of):
                run = LoggedRun(where=where, values={"arm": arm, "seed": seed}, history=[{"accuracy": value}])
                yield run if where == "shelf" else vars(run)

    point = EntryPoint("lab", f"{__name__}:lab", "cvhw4.readers")
    monkeypatch.setattr("cvhw4.readers.entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(sys.modules[__name__], "lab", lab, raising=False)
    judge(*AGAINST, source="lab:shelf")
    assert stored()["skip", 2].last("accuracy") == SKIP[2]
    told = refused(*AGAINST, source="lab:drawer")
    assert "lab:drawer: has a reader that yields {'where': 'drawer', " in told
    assert "Fix: let it yield cvhw4.readers.LoggedRun" in told
    monkeypatch.delattr(sys.modules[__name__], "lab")
    assert "has a reader that cannot be loaded" in refused(*AGAINST, source="lab:shelf")


def test_without_a_finished_run_nothing_is_judged(refused):
    table("skip,0,failed,0.8", head="arm,seed,status,accuracy")
    assert "runs.csv: has no finished run (line 2 of runs.csv: failed)" in refused()


def test_rows_may_be_called_none_or_na_and_blank_figures_are_missing(judge, refused):
    lines = [f"{arm},{seed},{value}" for arm, of in (("None", PLAIN), ("NA", SKIP)) for seed, value in enumerate(of)]
    table(*lines, "null,0,nan", head="augment,seed,accuracy")
    of = ("--row", "augment", "--metric", "accuracy", "--better", "NA", "--worse", "None")
    assert "NA" in refused("--only", "augment=None", "--only", "seed=0", of=of)  # left out
    table(*lines, head="augment,seed,accuracy")
    out, _ = judge(of=of)
    assert "NA_above_None-accuracy" in out and "supported" in out
    lines = [f"{rate},{s},{value},nan" for rate, of in ((2, SKIP), ("None", PLAIN)) for s, value in enumerate(of)]
    table(*lines, head="dropout,seed,accuracy,never")
    judge(of=("--row", "dropout", "--metric", "accuracy", "--better", "2", "--worse", "None"))
