"""The command line, and the page it writes."""

import sys
from dataclasses import replace

import pytest

from cvhw4 import cli
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES
from cvhw4.records.store import Store
from cvhw4.report.page import pictures_of_report
from cvhw4.report.stored import Stored
from cvhw4.report.tables import device, markdown, report_page
from cvhw4.statistics.bounds import calibrate, load_bounds
from tests.test_statistics import stored
from tests.tiny import QUICK, record

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
    assert line(text, "q2_2-skip_miou", "### Claims")[2:] == ["mIoU +0.1000", "-", "1", "-", "undecided", "none"]


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
