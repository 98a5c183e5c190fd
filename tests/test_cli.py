"""The command line, and the page it writes."""

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cvhw4 import cli
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES
from cvhw4.records.store import Store
from cvhw4.report.page import pictures_of_report
from cvhw4.report.stored import Stored
from cvhw4.report.tables import device, markdown, origins, report_page
from cvhw4.statistics.bounds import calibrate, load_bounds
from tests.test_statistics import stored
from tests.test_store import failure
from tests.test_store import results as by_image
from tests.tiny import QUICK, record

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("report.md", "verdicts.md", "report.html")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cvhw4", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output = capsys.readouterr()
        return stop.value.code or 0, output.out, output.err

    return call


@pytest.fixture
def results(tmp_path):
    store = Store(tmp_path / "results", "quick")
    for r in stored():
        store.save(r)
    return store


def test_help_and_rows(run):
    code, out, _ = run("--help")
    assert code in (0, 2) and all(name in out for name in ("fetch", "report", "calibrate", "rows"))
    code, out, _ = run("rows", "--profile", "full")
    assert code == 0
    assert all(e.id in out for e in PROFILES["full"].rows)
    assert "fcn8s/vgg16" in out and "224" in out


def test_calibrate_then_report(run, results, tmp_path):
    code, out, _ = run("calibrate", "--bounds", "b.toml")
    assert code == 0 and f"{8 * len(QUICK.rows)} runs" in out
    assert load_bounds(tmp_path / "b.toml", "quick") == calibrate(QUICK, stored())
    code, out, _ = run("report", "--bounds", "b.toml")
    assert code == 0
    assert out.split() == [str(results.folder.relative_to(tmp_path) / name) for name in PAGES]
    pictures = pictures_of_report(Stored(QUICK, results))
    expected = report_page(QUICK, results.load(), calibrate(QUICK, stored()), {}, pictures=pictures)
    assert (results.folder / "report.md").read_text() == expected


def test_errors_are_one_line_and_exit_code_4(run, tmp_path):
    for args, message in (
        (("report", "--profile", "huge", "--bounds", "x"), "--profile huge: is not a profile"),
        (("calibrate", "--bounds", "b.toml"), "q1_1-features: has 0 runs"),
        (("report", "--bounds", "none.toml"), "none.toml: does not exist"),
        (("fetch", "camvid", "there", "--from", "nowhere.zip"), "nowhere.zip"),
        (("fetch", "portraits", "--celeba", "nowhere"), "nowhere"),
    ):
        code, out, err = run(*args)
        assert (code, out) == (4, "") and message in err and err.count("\n") == 1 and "To mend" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == []


def test_a_profile_that_may_be_an_own_ablations_is_told_how_to_be_named(run):
    for command in ("list", "rows", "show q1_2"):
        assert "--ablation FILE" in run(*command.split(), "--profile", "insects")[2]
    Store(Path("results"), "insects").runs.mkdir(parents=True)
    for command in ("list", "show q1_2", "report"):
        code, _, err = run(*command.split())
        assert code == 4 and "quick: is no folder of runs. To mend: name the file that makes insects with --abl" in err
    code, _, err = run("calibrate", "--profile", "insects")  # takes none
    assert code == 4 and "--profile insects: is not a profile" in err and "--ablation" not in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("calibrate", "--seeds", "abc"), "--seeds"),
        (("calibrate", "--seeds", "0"), "--seeds"),
        (("fetch", "portraits"), "--celeba"),
        (("rows", "--nope"), "--nope"),
        (("nope",), "nope"),
    ],
)
def test_a_misspelt_command_is_one_line_and_exit_code_4(run, args, message):
    code, out, err = run(*args)
    assert (code, out) == (4, "") and err.startswith("error: ") and message in err
    assert err.count("\n") == 1 and "To mend: see cvhw4" in err and err.endswith("--help.\n")


def test_runs_of_two_embedded_data_sets_calibrate_nothing(run, results, tmp_path):
    other = replace(record("q1_2", seed=3), started="2026-11-22T10:00:00+00:00")
    results.save(replace(other, data=replace(other.data, fingerprint="f" * 64), fingerprint="c" * 64))
    code, _, err = run("calibrate", "--bounds", "b.toml")
    assert code == 4 and err.count("\n") == 1 and "q1_2-finetune: was run on other embedded than q1_" in err
    assert "To mend: run pytest benchmarks --profile quick -k q1_2 --seeds 5" in err
    assert not (tmp_path / "b.toml").exists()


def test_a_bounds_file_that_is_named_has_the_profile(run, results, tmp_path):
    assert run("calibrate", "--bounds", "b.toml")[0] == 0
    code, _, err = run("report", "--profile", "full", "--bounds", "b.toml")
    assert code == 4 and "b.toml: has no bounds of profile full, but of quick. To mend: run cvhw4 calibrate" in err
    assert load_bounds(tmp_path / "b.toml", "full").rows == {}  # as the project's own file


@pytest.mark.parametrize(
    ("old", "new"),
    [("low = ", "low = 9"), ("n = 8", "n = 1"), ("sd = ", "sd = -"), ("mean = 0", "mean = '0'#"), ("= 0.01", "= 7")],
)
def test_bounds_that_nothing_could_meet_are_refused(run, results, tmp_path, old, new):
    run("calibrate", "--bounds", "b.toml")
    text = (tmp_path / "b.toml").read_text()
    assert old in text
    (tmp_path / "b.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"b\.toml: is no bounds file"):
        load_bounds(tmp_path / "b.toml", "quick")


def test_damaged_records_are_warned_of_in_one_line(run, results):
    (results.runs / "q1_1-features" / "broken.json").write_text("{")
    code, _, err = run("calibrate", "--bounds", "b.toml")
    assert code == 0 and err.startswith("warning: ") and "broken.json" in err


# Stored runs


@pytest.fixture
def study(tmp_path):
    """Two rows, an older study of one of them, and a run that failed."""
    store = Store(tmp_path / "results", "quick")
    old = dict(study="a" * 64, started="2020-01-01T00:00:00+00:00")
    for seed in (0, 1):
        store.save(replace(record("q1_2", seed, figures=((0.5,),)), fingerprint=f"{seed}" * 64, **old))
        store.save(record("q1_2", seed, figures=((0.8,), (0.9,), (0.7,))), by_image())
    store.save(replace(record("q2_1a", figures=((0.4, 0.8, 0.5, 0.85),)), started="2026-11-24T10:00:00+00:00"))
    store.fail(failure(record("q1_3", 5)))
    return store


def table(out):
    return [line.split() for line in out.splitlines()]


def test_list_has_a_line_per_run_newest_first(run, study):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    finished, failed = out.split("\n\n")
    names = [(cells[0], cells[-1]) for cells in table(finished)[1:]]
    assert names == [
        ("q2_1a-skip-seed0", "yes"),
        ("q1_2-finetune-seed0", "yes"),
        ("q1_2-finetune-seed1", "yes"),
        ("q1_2-finetune-seed0", "no"),
        ("q1_2-finetune-seed1", "no"),
    ]
    assert table(finished)[2][1:7] == [record("q1_2").fingerprint[:8], "0.900", "0.700", "10", "s", "2026-11-23"]
    assert "q1_3-scratch-seed5" in failed and "the loss is NaN" in failed
    assert max(map(len, out.splitlines())) <= 80 and "\x1b" not in out


def test_list_can_be_narrowed(run, study):
    assert [c[0] for c in table(run("list", "--row", "q2_1a")[1])[1:]] == ["q2_1a-skip-seed0"]
    assert len(table(run("list", "--row", "q1_2-finetune")[1])) == 5
    only = run("list", "--failed")[1]
    assert "q1_3-scratch-seed5" in only and "q1_2" not in only
    rows = table(run("list", "--rows")[1].split("\n\n")[0])
    assert rows[2][:6] == ["q1_2-finetune", "embedded", "2", "2", "0.900", "0.700"] and rows[1][3] == "-"
    code, out, _ = run("list", "--row", "q1_3-scratch", "--profile", "quick")
    assert code == 0 and "q1_3-scratch-seed5" in out
    assert run("list", "--failed", "--row", "q2_1a")[2] == "no failed runs in results/quick\n"


def test_show_tells_all_of_a_run(run, study):
    code, out, err = run("show", "q1_2-finetune-seed1")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    new = record("q1_2", 1)
    for text in (
        f"fingerprint {new.fingerprint}",
        "of the row's most recent study; 1 other of this name",
        "recipe.lr 0.01",
        "weights package x 1.0 (tf_efficientnet_lite0) eeeeeeeeeeee",
        "▅█▁ best at epoch 2",
        "accuracy 0.9000 2 0.7000",
        "2 0.1 0.5000 0.9000 2.0 s",
        "peak memory 1.00 GiB",
        "torch 2.15.0",
    ):
        assert text in flat, text
    named = re.sub(r"\n +", "", out)  # paths go on in the next line
    for kind in (".json", ".npz"):
        (path,) = (p for p in study.runs.glob(f"q1_2-finetune/seed1-{new.fingerprint[:12]}*") if p.suffix == kind)
        assert path.name in named
    assert max(map(len, out.splitlines())) <= 80


def test_show_takes_names_of_every_kind(run, study, tmp_path):
    newest = record("q1_2").fingerprint
    path = study.path("q1_2-finetune", 0, "0" * 64)
    assert f"fingerprint {newest}" in " ".join(run("show", newest[:20])[1].split())
    assert "0" * 64 in run("show", "0000")[1]
    assert "0" * 64 in run("show", path)[1] and "older than" in run("show", path)[1]
    (tmp_path / "copy.json").write_bytes(path.read_bytes())
    assert "finished, in no store" in run("show", "copy.json")[1]
    code, out, _ = run("show", "q1_2")
    assert code == 0 and out.count("q1_2-finetune-seed") == 3 and "0" * 64 not in out  # a table, and the first of them
    out = " ".join(run("show", "q1_3-scratch-seed5")[1].split())
    assert "state failed why the loss is NaN where epoch 2, step -, learning rate 0.1" in out
    assert "Sky 0.500 0.250" in " ".join(run("show", "q2_1a")[1].split())


def test_show_says_where_the_images_of_a_run_are_gone(run, study):
    (path,) = study.runs.glob("q1_2-finetune/seed1-*.npz")
    path.unlink()
    assert f"{path.name}, which is gone" in " ".join(run("show", "q1_2-finetune-seed1")[1].split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "q1_2-finetun-seed0"), "did you mean q1_2-finetune-seed0 or"),
        (("show", "q1_22"), "did you mean q1_2"),
        (("show", "\x1b[31m"), "see cvhw4 list"),
        (("show", "7131"), "begins 3 fingerprints. To mend: name one of 7131"),
        (("show", "pyproject.json"), "is no run stored"),
        (("show", "q1_2", "--results", "none"), "none/quick: is no folder of runs"),
        (("list", "--results", "none"), "none/quick: is no folder of runs"),
        (("list", "--row", "q9"), "q9: is no run stored in results/quick"),
        (("list", "--row", "q1_2-finetune-seed0"), "is no row"),
        (("list", "--profile", "huge"), "--profile huge: is not a profile"),
    ],
)
def test_names_that_nothing_has_are_one_line_and_exit_code_4(run, study, args, message):
    code, out, err = run(*args)
    assert (code, out) == (4, "") and message in err and err.count("\n") == 1 and "\x1b" not in err


def test_a_damaged_record_is_named(run, study, tmp_path):
    path = tmp_path / "results" / "quick" / "runs" / "q1_2-finetune" / "x.json"
    path.write_text("{")
    code, _, err = run("show", path)
    assert code == 4 and "x.json: is not JSON" in err.splitlines()[-1]


def test_texts_of_records_do_not_act_on_a_terminal(run, study):
    evil = "[red]x[/red]\x1b[31m:smile:"
    study.save(replace(record("q1_5"), data=replace(record().data, name=evil)))
    for args in (("show", "q1_5"), ("list", "--rows")):
        _, out, _ = run(*args)
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


# Help


COMMANDS = ("report", "calibrate", "floors", "rows", "list", "show", "compare", "fetch camvid", "fetch portraits")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0 and "Example: " in out and f"cvhw4 {command}" in " ".join(out.split("Example: ")[1].split())
    assert max(map(len, out.splitlines())) <= 80


def test_no_command_lacks_help(run):
    listed = re.findall(r"^  (\w+) ", run("--help")[1].split("Commands:")[1], re.MULTILINE)
    assert sorted({c.split()[0] for c in COMMANDS}) == sorted(listed)


def test_the_version_is_the_projects(run):
    code, out, _ = run("--version")
    assert code == 0 and re.fullmatch(r"cvhw4 \d+\.\d+\.\d+\n", out)


def shell(**environment):
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-m", "cvhw4", "--help"], env=env, capture_output=True, text=True, cwd=ROOT)


def test_help_takes_little_time():
    before = os.times()
    assert shell().returncode == 0
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    assert used < 0.3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cvhw4 co", ["compare"]),
        ("cvhw4 report --profile ", ["full", "quick"]),
        ("cvhw4 list --row q2_3", ["q2_3-3class"]),
        ("cvhw4 show q1_1-features-seed1", [f"q1_1-features-seed{n}" for n in (1, *range(10, 20))]),
    ],
)
def test_names_are_completed(words, expected):
    at = str(len(words.split()) - (not words.endswith(" ")))
    done = shell(_CVHW4_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=at)
    assert [line for line in done.stdout.split() if line in expected] == expected
    assert not [line for line in done.stdout.split() if not line.startswith(words.split(" ")[-1])]


def test_completion_can_be_installed(run, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = run("--show-completion", "bash")
    assert code == 0 and "_CVHW4_COMPLETE=complete_bash" in out


def page(records, bounds=None, missing=()):
    return report_page(QUICK, records, bounds, dict(missing))


def line(text, start, section):
    after = text.split(section, 1)[1]
    found = next(row for row in after.splitlines() if row.startswith(f"| {start} "))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_row_of_the_page_is_worked_by_hand():
    runs = [
        record("q1_2", seed=0, figures=((0.80,), (0.90,), (0.70,))),
        record("q1_2", seed=1, figures=((0.86,), (0.8,))),
    ]
    cells = line(page(runs), "q1_2-finetune", "### Accuracy")
    assert cells[1:5] == ["tf_efficientnet_lite0", "imagenet", "all layers", "random-resized crop"]
    # best: 0.90 and 0.86; sd 0.0283; t(1) = 12.7062, half width 0.2541
    assert cells[5:9] == ["5", "0.8800 ± 0.0283", "[0.6259, 1.1341]", "2, 1"]
    assert cells[9:13] == ["0.7500 ± 0.0707", "0.8750", "+0.0050", "2"]
    cost = line(page(runs), "q1_2-finetune", "### Weights, time and memory")
    assert cost[1] == "package x 1.0" and cost[3] == "9.5 ± 0.0 s" and "1.00 GiB" in cost and "5m24s" in cost


def test_both_conventions_and_classes_stand_on_the_page():
    text = page([record("q2_1a", figures=((0.4, 0.8, 0.5, 0.85),)), record("q2_1b", figures=((0.3, 0.7, 0.2, 0.75),))])
    assert line(text, "q2_1a-skip", "two conventions")[1:] == ["0.4000", "0.5000", "0.8000", "0.8500"]
    assert line(text, "Sky", "### IoU by class, 11 classes")[1:] == ["0.500", "0.250", "0.500", "0.250"]
    assert line(text, "Pole", "### IoU by class, 11 classes")[1:] == ["0.500", "-", "0.500", "-"]
    assert line(text, "q2_2-skip_miou", "### Claims")[2:] == ["mIoU", "+0.1000", "-", "1", "-", "undecided", "none"]


def test_rows_without_a_run_say_why():
    text = page([record("q1_2")], missing={"q2_3-3class": "no weights | of vgg16"})
    assert line(text, "q2_3-3class", "Rows without a run")[1] == "no weights \\" and "of vgg16" in text
    assert line(text, "q1_8-recipe", "Rows without a run")[1] == "no run is stored"
    assert "No runs yet." in page([])


def test_judged_and_not_judged():
    bounds = calibrate(QUICK, stored())
    assert line(page([stored()[0]], bounds), "q1_1-features", "### Accuracy")[-1] == "met"
    assert line(page([record("q1_1", figures=((0.01,),))], bounds), "q1_1-features", "### Accuracy")[-1] == "MISSED"
    foreign = replace(record("q1_1"), data=replace(record().data, embedded=False, name="hymenoptera"))
    text = page([foreign, record("q1_1", seed=1)], bounds)
    assert "(hymenoptera)" in text and "(embedded)" in text and "not judged" in text


def test_long_studies_show_the_templates_epochs_in_a_line_of_their_own():
    profile = PROFILES["full"]
    figures = tuple((0.01 * i,) for i in range(1, 51))
    text = report_page(profile, [replace(record("q2_1a", figures=figures), profile="full")], None, {})
    whole, first = (
        line for line in text.split("### mIoU")[1].split("### ")[0].splitlines() if line.startswith("| q2_1a-skip ")
    )
    cells = [[cell.strip() for cell in found.strip("|").split("|")] for found in (whole, first)]
    assert [c[5:10] for c in cells] == [["50", "0.5000", "-", "50", "0.5000"], ["20", "0.2000", "-", "20", "0.2000"]]
    assert cells[1][10:12] == ["0.4295 at epoch 41", "-0.2295"]


def test_gpus_are_called_by_name():
    gpu = replace(record(), environment=record().environment | {"device": "cuda", "device_name": "NVIDIA H100"})
    assert device(gpu) == "NVIDIA H100" and device(record()) == "cpu (2 threads)"
    import pandas as pd

    assert markdown(pd.DataFrame({"a|b": ["1|2"]})).count("\\|") >= 1


def of_code(name, digest, day="2026-11-23"):
    run = record(name)
    environment = run.environment | ({"code": digest * 64} if digest else {})
    return replace(run, environment=environment, started=f"{day}T10:00:00+00:00")


def test_rows_run_by_different_code_are_told_of_with_each_code_its_rows_and_days():
    told = "Rows were run by different versions of the code: "
    runs = [of_code("q1_1", "a"), of_code("q1_2", "b", "2026-11-25"), of_code("q1_3", "a", "2026-11-24")]
    why = (
        f"{told}{'a' * 12} (q1_1, q1_3; 2026-11-23 to 2026-11-24); {'b' * 12} (q1_2; 2026-11-25). A difference between"
    )
    page = report_page(QUICK, [*runs, record("q2_1a")], None, {})
    q1, q2 = page.split("## Q2")
    assert q1.count(why) == 2 and told not in q2  # accuracy, claims
    assert any(line.startswith(why) for line in origins({r.id: [r] for r in runs}))
    for same in (runs[::2], [of_code("q1_1", ""), of_code("q1_2", "")], []):
        assert told not in report_page(QUICK, same, None, {}) and told not in "".join(
            origins({"q1_1": same} if same else {})
        )
    older = report_page(QUICK, [of_code("q1_1", "", "2026-11-22"), runs[0]], None, {})
    assert f"{told}not recorded (q1_1; 2026-11-22); {'a' * 12} (q1_1; 2026-11-23)." in older


def test_rows_trained_on_other_pictures_of_one_name_are_told_of():
    rows = [record("q1_1"), record("q1_2")]
    told = "The pictures of this name are not the same for all rows (q1_1-features; q1_2-finetune)"
    assert told not in report_page(QUICK, rows, None, {})
    changed = replace(rows[1], data=replace(rows[1].data, fingerprint="f" * 64))
    assert told in report_page(QUICK, [rows[0], changed], None, {})
    assert any(line.startswith(told) for line in origins({r.id: [r] for r in (rows[0], changed)}))
