"""The command line, and the page it writes."""

import math
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from scipy import stats

from cvhw4 import __version__, cli, homework
from cvhw4.records.store import Store
from cvhw4.statistics.bounds import load_bounds
from cvhw4.statistics.calibration import calibrate, to_toml
from tests.helpers import ROOT
from tests.helpers.reading import snapshot
from tests.helpers.records import elsewhere, runs, save, stored
from tests.helpers.records import results as by_image
from tests.helpers.tiny import FULL, QUICK, failure, record

PAGES = ("report.md", "verdicts.md", "report.html")


@pytest.fixture
def results(tmp_path):
    return Store(save(tmp_path / "results", stored(redrawn=True)), "quick")


@pytest.fixture
def done(run):
    """What a command prints that succeeds and says nothing beside it."""

    def call(*args):
        code, out, err = run(*args)
        assert (code, err) == (0, "")
        return out

    return call


@pytest.fixture
def refused(run):
    """The one line that a command says which does nothing."""

    def call(*args):
        code, out, err = run(*args)
        assert (code, out) == (4, "") and err.count("\n") == 1 and "Fix: " in err and "\x1b" not in err
        return err

    return call


def test_rows_are_those_of_a_study(done):
    out = done("rows", "--study", "full")
    assert all(name in out for name in FULL.rows) and "fcn8s/vgg16" in out and "224" in out


def test_calibrate_then_report(run, results, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = run("calibrate", "--nights=0", "--bounds=~/b.toml", "--results=~/results")
    assert code == 0 and f"{8 * len(QUICK.rows)} runs" in out and not Path("~").exists()
    assert load_bounds(tmp_path / "b.toml", QUICK) == calibrate(homework.study("quick"), stored(redrawn=True))
    code, out, _ = run("report", "--bounds", "b.toml")
    assert code == 0
    assert out.split() == [str(results.folder.relative_to(tmp_path) / name) for name in PAGES]
    assert "| met " in (results.folder / "report.md").read_text()


def test_calibrate_takes_twins_and_says_what_it_does_not_know(run, done, results, tmp_path):
    save(tmp_path / "there", elsewhere([r for r in stored(redrawn=True) if r.seed < 2]))
    save(tmp_path / "elsewhere", elsewhere([r for r in stored(redrawn=True) if r.seed == 2]))
    twice = ("--twins", "there", "--twins", "elsewhere", "--twins", "../" + tmp_path.name + "/there")
    done("calibrate", "--nights=3", "--bounds", "b.toml", *twice)
    made = load_bounds(tmp_path / "b.toml", QUICK)
    assert {*made.twins} == {*QUICK.rows} and f"twins: {3 * len(QUICK.rows)} runs on another make" in made.source
    code, _, err = run("calibrate", "--bounds", "b.toml", "--twins", "there", "--twins", "nowhere")
    assert code == 4 and "nowhere: has no runs of study quick. Fix: name a results folder of it." in err
    assert made.new_nights == 3 and made.new_seeds is not None
    code, _, err = run("calibrate", "--nights=3", "--bounds", "b.toml", "--seeds", "4")
    assert code == 0 and err == "how often unchanged code misses them is not known: 4 of these seeds leave too few\n"
    assert load_bounds(tmp_path / "b.toml", QUICK).held_out is None


def test_a_study_that_is_not_known_is_told_how_to_be_named(refused):
    for command in ("list", "rows", "show q1_2", "calibrate"):
        assert "with --study FILE" in refused(*command.split(), "--study", "insects")
    Store(Path("results"), "insects").runs.mkdir(parents=True)
    for command in ("list", "show q1_2", "report"):
        told = refused(*command.split())
        assert "quick: is not a folder of runs. Fix: name a study that has runs there" in told
        assert "with --study: insects" in told


def test_damaged_records_are_warned_of_in_one_line(run, results):
    (results.runs / "q1_1-features" / "broken.json").write_text("{")
    code, _, err = run("calibrate", "--nights=3", "--bounds", "b.toml")
    assert code == 0 and err.startswith("warning: ") and "broken.json" in err


# Stored runs


def table(out):
    return [line.split() for line in out.splitlines()]


@pytest.fixture
def study(tmp_path):
    """Two rows, an older study of one of them, and a run that failed."""
    store = Store(tmp_path / "results", "quick")
    old = dict(configuration="a" * 64, started="2020-01-01T00:00:00+00:00")
    for seed in (0, 1):
        store.save(replace(record("q1_2", seed, figures=((0.5,),)), fingerprint=f"{seed}" * 64, **old))
        store.save(record("q1_2", seed, figures=((0.8,), (0.9,), (0.7,))), by_image())
    store.save(replace(record("q2_1a", figures=((0.4, 0.8, 0.5, 0.85),)), started="2026-11-24T10:00:00+00:00"))
    store.fail(failure(record("q1_3", 5)))
    return store


def test_list_has_a_line_per_run_newest_first(done, study):
    out = done("list")
    finished, failed = out.split("\n\n")
    assert [(cells[0], cells[-1]) for cells in table(finished)[1:]] == [
        ("q2_1a-skip-seed0", "yes"),
        *((f"q1_2-finetune-seed{seed}", newest) for newest in ("yes", "no") for seed in (0, 1)),
    ]
    assert table(finished)[2][1:7] == [record("q1_2").fingerprint[:8], "0.900", "0.700", "10", "s", "2026-11-23"]
    assert "q1_3-scratch-seed5" in failed and "the loss is NaN" in failed
    assert max(map(len, out.splitlines())) <= 80 and "\x1b" not in out


def test_list_can_be_narrowed(run, done, study):
    assert [c[0] for c in table(done("list", "--row", "q2_1a"))[1:]] == ["q2_1a-skip-seed0"]
    assert len(table(done("list", "--row", "q1_2-finetune"))) == 5
    only = done("list", "--failed")
    assert "q1_3-scratch-seed5" in only and "q1_2" not in only
    rows = table(done("list", "--rows").split("\n\n")[0])
    assert rows[2][:6] == ["q1_2-finetune", "embedded", "2", "2", "0.900", "0.700"] and rows[1][3] == "-"
    assert "q1_3-scratch-seed5" in done("list", "--row", "q1_3-scratch", "--study", "quick")
    assert run("list", "--failed", "--row", "q2_1a")[2] == "no failed runs in results/quick\n"


def test_show_tells_all_of_a_run(done, study):
    out = done("show", "q1_2-finetune-seed1")
    flat = " ".join(out.split())
    new = record("q1_2", 1)
    for text in (
        f"fingerprint {new.fingerprint}",
        "of the row's most recent configuration; 1 other of this name",
        "recipe.lr 0.01",
        "weights package x 1.0 (tf_efficientnet_lite0) eeeeeeeeeeee",
        "accuracy 0.9000 2 0.7000 ▅█▁",
        "2 0.1 0.5000 0.9000 2.0 s",
        "peak memory 1.00 GiB",
        "torch 2.15.0",
    ):
        assert text in flat, text
    named = re.sub(r"\n +", "", out)  # paths go on in the next line
    paths = {p.suffix: p for p in study.runs.glob(f"q1_2-finetune/seed1-{new.fingerprint[:12]}*")}
    assert paths[".json"].name in named and paths[".npz"].name in named
    assert max(map(len, out.splitlines())) <= 80
    paths[".npz"].unlink()
    assert f"{paths['.npz'].name}, which is missing" in " ".join(done("show", "q1_2-finetune-seed1").split())


def test_show_takes_the_row_of_that_name_before_those_that_begin_with_it(done, tmp_path):
    store = Store(tmp_path / "results", "quick")
    for name in ("q1_2", "q1_2-finetune"):
        prints = {
            key: name.encode().hex().ljust(64, end) for key, end in (("fingerprint", "a"), ("configuration", "0"))
        }
        store.save(replace(record("q1_2"), row=name, **prints))
    assert "q1_2-finetune" not in done("show", "q1_2", "--study", "quick")


def test_show_takes_names_of_every_kind(done, study, tmp_path):
    newest = record("q1_2").fingerprint
    path = study.path("q1_2-finetune", 0, "0" * 64)
    (tmp_path / "copy.json").write_bytes(path.read_bytes())
    for name, told in (
        (newest[:20], f"fingerprint {newest}"),
        ("0000", "0" * 64),
        (path, "0" * 64),
        (path, "of an older configuration"),
        ("copy.json", "finished, in no store"),
        ("q1_3-scratch-seed5", "state failed why the loss is NaN where epoch 2, step -, learning rate 0.1"),
        ("q2_1a", "Sky 0.500 0.250"),
    ):
        assert told in " ".join(done("show", name).split())
    out = done("show", "q1_2")
    assert out.count("q1_2-finetune-seed") == 3 and "0" * 64 not in out  # a table, and the first of them


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("report", "--study", "huge", "--bounds", "x"), "huge: is neither a file nor one that .*quick, full"),
        (("calibrate", "--bounds", "b.toml"), "q1_1-features: has 0 runs"),
        (("report", "--bounds", "none.toml"), "none.toml: does not exist"),
        (("fetch", "camvid", "there", "--from", "nowhere.zip"), "nowhere.zip"),
        (("fetch", "portraits", "--celeba", "nowhere"), "nowhere"),
        (("calibrate", "--seeds", "0"), r"^error: .*--seeds.*Fix: see cvhw4.*--help\.$"),
        (("fetch", "portraits"), r"^error: .*--celeba.*Fix: see cvhw4.*--help\.$"),
        (("rows", "--nope"), r"^error: No such option.*--nope.*Fix: see cvhw4 rows --help\.$"),
        (("nope",), r"^error: .*nope.*Fix: see cvhw4.*--help\.$"),
        (("show", "q1_2-finetun-seed0"), "did you mean q1_2-finetune-seed0 or"),
        (("show", "q1_2-finetun"), "did you mean q1_2-finetune"),
        (("show", "\x1b[31m"), "see cvhw4 list"),
        (("show", "7131"), "begins 3 fingerprints. Fix: name one of 7131"),
        (("show", "pyproject.json"), "is not a run stored"),
        (("show", "q1_2", "--results", "none"), "none/quick: is not a folder of runs"),
        (("list", "--row", "q9"), "--row q9: is not the name of a stored row"),
        (("list", "--row", "q1_2-finetune-seed0"), "is not the name of a stored row"),
    ],
)
def test_errors_and_names_that_nothing_has_are_one_line_and_change_nothing(refused, study, tmp_path, args, message):
    before = snapshot(tmp_path)
    assert re.search(message, refused(*args))
    assert snapshot(tmp_path) == before


def test_a_damaged_record_is_named(run, study, tmp_path):
    path = tmp_path / "results" / "quick" / "runs" / "q1_2-finetune" / "x.json"
    path.write_text("{")
    code, _, err = run("show", path)
    assert code == 4 and "x.json: is not JSON" in err.splitlines()[-1]


def test_texts_of_records_do_not_act_on_a_terminal(done, study):
    evil = "[red]x[/red]\x1b[31m:smile:"
    study.save(replace(record("q1_5"), data=replace(record().data, name=evil)))
    for args in (("show", "q1_5"), ("list", "--rows")):
        out = done(*args)
        assert "\x1b" not in out and "[red]x[/red]\\x1b[31m:smile" in re.sub(r"\s+", "", out)


def test_on_a_terminal_what_is_bad_is_red_unless_no_color_says_otherwise(study, tmp_path):
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        main, side = pty.openpty()
        env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"} | environment
        subprocess.run([sys.executable, "-m", "cvhw4", "show", "q1_3"], cwd=tmp_path, env=env, stdout=side, check=True)
        os.close(side)
        text = b""
        while chunk := _read(main):
            text += chunk
        assert b"the loss is NaN" in text and (b"\x1b[31mfailed" in text) == coloured
        assert coloured or not re.search(rb"\x1b\[[0-9;]*3[0-7]m", text)


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # all that was written has been read
        return b""


# Planning


def test_a_plan_says_what_so_many_seeds_could_show_and_how_long_they_take(done, tmp_path):
    for row, figures in (("q2_1b", (0.2, 0.2, 0.2)), ("q2_1a", (0.30, 0.34, 0.32))):
        save(tmp_path / "results", runs(figures, row))
    out = done("plan", "10", "3", "--study", "quick")
    assert "decided in 90 % of studies" in out
    line = next(x.split() for x in out.splitlines() if x.startswith("q2_2-skip_miou"))
    assert line[1:6] == ["+0.120", "±", "0.020,", "n", "3"]
    three, ten = float(line[6]), float(line[8])
    assert three / 0.02 > ten / 0.02 > 1
    draws = np.random.default_rng(0).normal(ten, 0.02, (20_000, 10))  # the t test decides nine times of ten
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05 / 4).mean() == pytest.approx(0.9, abs=0.01)
    worst = 0.02 * math.sqrt(2 / stats.chi2.ppf(0.025, 2))
    assert float(line[9].strip("()")) == pytest.approx(ten * worst / 0.02, abs=0.01)
    assert "cpu (2 threads) 2    57 s    3:10 min" in out  # 9.5 s a run
    there = replace(record("q2_1b"), data=replace(record("q2_1b").data, name="CamVid", fingerprint="c" * 64))
    slow = replace(there, fingerprint="c" * 64, times=replace(there.times, total_seconds=180.0))
    save(tmp_path / "results", [slow])
    out = done("plan", "--study", "quick")
    assert "9:57 min" in out  # 3 x (9.5 + 9.5 + 180) s: on other data a run of its own
    assert max(map(len, out.splitlines())) <= 80 and "20 seeds" in out.splitlines()[2]
    told = " ".join(out.split())
    assert "with the claims on the same data" in told and "in brackets: if the spread is as large as" in told


def test_a_plan_takes_the_calibrated_spread(done, tmp_path):
    records = stored(8)
    save(tmp_path / "results", [r for r in records if r.seed < 2])
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "bounds.toml").write_text(to_toml(QUICK, calibrate(QUICK, records)))
    assert "n 2 + 6" in " ".join(done("plan", "3", "--study", "quick").split())


def test_without_a_spread_the_claims_are_named_and_an_unknown_time_is_none(refused, done, tmp_path):
    for row, value in (("q2_1a", 0.4), ("q2_1b", 0.2)):
        for seed in range(4):
            made = record(row, seed, figures=((value,),))
            times = replace(made.times, total_seconds=0.0)
            Store(tmp_path / "results", "quick").save(replace(made, times=times))
    told = "has the same difference in every seed (q2_2-skip_miou, q2_2-skip_pixel_accuracy)"
    assert told in refused("plan", "--study", "quick") and "0 s" not in done("list", "--study", "quick")


@pytest.mark.parametrize(
    ("arguments", "told"), [(["1", "3"], "1 seed: has no spread"), (["3"], "study quick: has no pilot. Fix: train")]
)
def test_a_plan_needs_a_spread(refused, tmp_path, arguments, told):
    Store(tmp_path / "results", "quick").save(record("q2_1a"))
    assert told in refused("plan", *arguments, "--study", "quick")


# Help


COMMANDS = [c.name or c.callback.__name__ for c in cli.app.registered_commands]
FETCHED = [f"fetch {c.name}" for c in cli.fetch.registered_commands]


def test_help_lists_the_commands_and_stands_for_one_that_is_missing(done, run):
    out = done("--help")
    assert all(name in out for name in [*COMMANDS, "fetch"])
    assert run() == (2, "", out) and run("fetch") == (2, "", done("fetch", "--help"))


@pytest.mark.parametrize("command", COMMANDS + FETCHED)
def test_help_of_every_command_has_an_example(done, command):
    out = done(*command.split(), "--help")
    assert "Example: " in out and f"cvhw4 {command}" in " ".join(out.split("Example: ")[1].split())
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_the_projects(done):
    name, version = done("--version").split()
    assert name == "cvhw4" and str(Version(version)) == version == __version__


def shell(*arguments, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *(arguments or ("-m", "cvhw4", "--help"))]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)


def test_help_takes_little_more_time_than_what_prints_it():
    used = []
    for arguments in (("-c", "import typer, rich.console"), ()):
        before = os.times()
        assert shell(*arguments).returncode == 0
        after = os.times()
        used.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert used[1] < 2 * used[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cvhw4 co", ["compare"]),
        ("cvhw4 report --study ", ["quick", "full"]),
        ("cvhw4 list --row q2_3", ["q2_3-3class"]),
        ("cvhw4 show q1_1-features-seed1", [f"q1_1-features-seed{n}" for n in (1, *range(10, 20))]),
    ],
)
def test_names_are_completed(words, expected):
    at = str(len(words.split()) - (not words.endswith(" ")))
    done = shell(_CVHW4_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=at)
    assert [line for line in done.stdout.split() if line in expected] == expected
    assert not [line for line in done.stdout.split() if not line.startswith(words.split(" ")[-1])]


def test_completion_is_shown_for_a_shell(done, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_CVHW4_COMPLETE=complete_bash" in done("--show-completion", "bash")
