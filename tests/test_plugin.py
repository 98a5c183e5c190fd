"""The plugin in sessions of its own: selection, options, tables, reuse, several workers, bad input."""

import json
import re
import resource
import shutil
import subprocess
import sys

import pytest

from cvhw4 import homework
from cvhw4.plugin.board import SessionBoard
from cvhw4.records.store import Store
from cvhw4.statistics.calibration import calibrate, to_toml
from tests.helpers import ROOT
from tests.helpers.sessions import DRAWN, add_to_conftest, data_of, on_tiny_data, wide_bounds
from tests.helpers.studies import pictures
from tests.helpers.tiny import FULL, QUICK

pytest_plugins = ["tests.helpers.sessions"]


def stored(pytester, folder="results"):
    return Store(pytester.path / folder, "quick").load()


def page(pytester, name, study="quick"):
    return pytester.path / "results" / study / name


def bounds_file(pytester):
    return pytester.path / "benchmarks" / "bounds.toml"


def collected(study, *args):
    return [line.split("::")[1] for line in study("--collect-only", "-q", *args).outlines if "::" in line]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("q1_2", ["test_transfer[q1_2-finetune-seed0]", "test_transfer[q1_2-finetune-seed1]"]),
        ("3class and seed1", ["test_classes[q2_3-3class-seed1]", "test_classes[q2_c3-3class_fused-seed1]"]),
        ("q1_7", ["test_claim[q1_7-whole_face_features]", "test_claim[q1_7-whole_face_finetune]"]),
        (  # both arms and their claims, nothing else
            "skip and not seed1",
            [
                "test_skips[q2_1a-skip-seed0]",
                "test_skips[q2_1b-noskip-seed0]",
                "test_claim[q2_2-skip_miou]",
                "test_claim[q2_2-skip_pixel_accuracy]",
            ],
        ),
    ],
)
def test_ids_select_what_they_say(study, expression, expected):
    assert collected(study, "-k", expression, "--seeds", "2") == expected


def test_all_rows_times_seeds_and_claims_last(study):
    ids = collected(study)
    rows = QUICK.in_group("")
    assert len([i for i in ids if "seed" in i]) == 3 * len(rows)
    assert all("test_claim" in i for i in ids[3 * len(rows) :])
    assert len(collected(study, "--profile", "full", "--seeds", "1")) == len(FULL.in_group("")) + len(FULL.claims)


def test_markers_take_the_extra_rows_and_the_negative_controls(study):
    factorial = collected(study, "-m", "extra", "--seeds", "1")
    assert {i.partition("[")[2] for i in factorial} == {f"{row.name}-seed0]" for row in QUICK.in_group("extra")}
    controls = collected(study, "-m", "control", "--seeds", "2")
    trained = 2 * len(QUICK.in_group("control"))
    assert [i for i in controls if "test_corrupted" in i] == controls[:trained]
    assert controls[trained:] == [f"test_the_bounds_notice[{c.name}]" for c in QUICK.controls]


def test_negative_controls_are_caught_or_the_build_is_red(study, pytester):
    """Bounds around what the tiny row does as it should; then the row corrupted, and not, in the control's name."""
    study("-k", "q1_6-finetune", "--seeds", "2").assert_outcomes(passed=2)
    loss = stored(pytester)[0].epochs[-1].loss
    head, tail = wide_bounds().split("[quick.rows.q1_6-finetune]")

    def bound(low, high):
        line = f'"training loss" = {{ low = {low}, high = {high}, mean = {loss}, sd = 1e-5, n = 20 }}'
        bounds_file(pytester).write_text(f"{head}[quick.rows.q1_6-finetune]\n{line}{tail}")

    bound(loss - 1e-4, loss + 1e-4)
    args = ("-m", "control", "-k", "q1_6x-label_noise_0.2-seed0 or (notice and q1_6x-label)", "--seeds", "1")
    caught = study(*args)
    caught.assert_outcomes(passed=2)
    assert re.search(r"q1_6x-lab\S+ +0\.2 +training loss +\d\.\d+ +\[.*\] +1 +yes +\d\.\d\d", caught.stdout.str())
    bound(loss / 2, loss * 2)
    missed = study(*args)
    missed.assert_outcomes(passed=1, failed=1)
    assert "20% of the training labels are wrong, and no bound of q1_6-finetune is missed" in missed.stdout.str()
    select = ("-m", "control", "-k", "notice and q1_6x-label")
    study(*select).assert_outcomes(failed=1)  # judged over the run that is stored
    study(*select, "--results", "elsewhere").assert_outcomes(failed=1)  # what nobody judged is no pass


def first_epoch_of_q1_6(study, pytester, *options, row="q1_6-finetune"):
    """Bounds that have the first epoch of q1_6 with seed 0, or instead that of a row like it; the loss, and what writes
    another one. Other numbers of threads give other last bits, of which so small a network makes much."""
    study("-k", f"{row}-seed0", "--seeds", "1", "--threads", "1", "--results", "whole", *options).assert_outcomes(
        passed=1
    )
    (run,) = stored(pytester, "whole")
    shutil.rmtree(pytester.path / "whole")
    assert len(run.epochs) > 1

    def write(loss):
        text = wide_bounds().replace("[quick.data]", 'twins_on = "cpu float32"\n[quick.data]')
        twin = f'"first training loss" = {{ tolerance = 1e-5, seeds = {{ 0 = {loss} }} }}'
        bounds_file(pytester).write_text(f"{text}[quick.twins.q1_6-finetune]\n{twin}\n")

    write(run.epochs[0].loss)
    return run.epochs[0].loss, write


@pytest.mark.integration
def test_a_smoke_test_holds_the_first_epoch_against_the_calibrated_run_of_its_seed(study, pytester):
    """It stores nothing, judges nothing, and notices what the rows' own tests would not."""
    loss, write = first_epoch_of_q1_6(study, pytester)
    found = study("--smoke", "--threads", "1", "-k", "q1_2 or q1_6", "--jobs", "1", "-rs")
    found.assert_outcomes(passed=1, skipped=1)
    told = " ".join(found.stdout.str().split())
    assert "held against nothing: no other machine gives the first epoch of q1_2-finetune" in told
    assert "benchmark 'quick" not in told
    study("--smoke", "--threads", "1", "-m", "control", "-k", "q1_6x-label_noise_0.2").assert_outcomes(passed=1)
    write(loss + 0.001)
    changed = study("--smoke", "--threads", "1", "-k", "q1_6", "--jobs", "2", "--seeds", "2", "-rs")
    changed.assert_outcomes(skipped=1, failed=1)
    assert "no run of q1_6-finetune with seed 1 is calibrated" in changed.stdout.str()
    begin = f"the loss of the first epoch is {loss:.6g}, that of the calibrated run of q1_6-finetune with seed 0 "
    apart = rf"^{begin}.*: 0.001 apart, machines \d.*e-05 at most: the training changed.*calibrate again$"
    assert re.search(apart, changed.stdout.str(), re.M)
    assert not (pytester.path / "results").exists()


def test_a_smoke_test_of_other_data_or_of_a_control_that_changes_nothing_fails(study, pytester):
    first_epoch_of_q1_6(study, pytester, "-m", "control", row="q1_6x-label_noise_0.2")
    found = study("--smoke", "--threads", "1", "-m", "control", "-k", "q1_6x-label_noise_0.2")
    found.assert_outcomes(failed=1)
    assert "so that the corruption is not noticed" in found.stdout.str()
    first_epoch_of_q1_6(study, pytester, "-m", "control", row="q1_6x-label_noise_0.1")
    found = study("--smoke", "--threads", "1", "-m", "control", "-k", "q1_6x-label_noise_0.1", "-rs")
    found.assert_outcomes(skipped=1)
    told = " ".join(found.stdout.str().split())
    assert "the corruption is not noticed: it is weaker than the one that has to be noticed" in told
    path = bounds_file(pytester)
    path.write_text(path.read_text().replace(data_of("classification").fingerprint, "0" * 64))
    found = study("--smoke", "--threads", "1", "-k", "q1_6-finetune")
    found.assert_outcomes(failed=1)
    assert "are not the data of that name that the bounds were calibrated on" in found.stdout.str()
    study("--smoke", "--threads", "1", "-k", "q1_1 and seed0", "--profile", "full", tiny=False).assert_outcomes(
        skipped=1
    )
    assert not (pytester.path / "results").exists()


def test_a_smoke_test_passes_over_a_control_that_acts_after_the_first_epoch(study, monkeypatch):
    monkeypatch.setattr("cvhw4.homework.CONTROLS", homework.CONTROLS)  # put back: the session is in this process
    add_to_conftest("""
from dataclasses import replace

from cvhw4 import Control, homework
from tests.helpers import tiny

RECIPE = tiny.row("q1_6").recipe
RECIPES = {"late": replace(RECIPE, lr_step=1, epochs=3), "early": replace(RECIPE, lr_step=1, lr=1e-9)}
homework.CONTROLS += tuple(
    Control(name=f"q1_6x-{name}", row="q1_6-finetune", words=name, changes={"recipe": recipe})
    for name, recipe in RECIPES.items()
)
""")
    result = study("--smoke", "-m", "control", "-k", "q1_6x-late or q1_6x-early", "-rs")
    result.assert_outcomes(skipped=2)
    told = " ".join(result.stdout.str().split())
    assert "acts after the first epoch, which is that of q1_6-finetune: whole runs have to notice it" in told
    assert "trained for an epoch, and held against nothing" in told


def test_what_failed_stays_failed_though_a_smoke_test_of_it_passes(study, pytester):
    first_epoch_of_q1_6(study, pytester)
    failed = {"benchmarks/test_whole_face.py::test_whole_face[q1_6-finetune-seed0]": True}
    kept = pytester.path / ".pytest_cache" / "v" / "cache" / "lastfailed"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(failed))
    study("--smoke", "--threads", "1", "-k", "q1_6-finetune", cache=True).assert_outcomes(passed=1)
    assert json.loads(kept.read_text()) == failed


@pytest.mark.integration
def test_a_smoke_test_takes_the_place_of_a_test_that_trains_and_of_no_other(study, pytester):
    first_epoch_of_q1_6(study, pytester)
    (pytester.path / "benchmarks" / "test_more.py").write_text(
        "import pytest\n"
        "from cvhw4.homework.options import homework\n"
        "of_homework = pytest.mark.study(homework, rows=['q1_6-finetune'])\n"
        "@pytest.fixture\n"
        "def record(train, row, seed):\n    return train(row, seed)\n"
        "@of_homework\n"
        "def test_more_by_a_fixture(record):\n    assert record.last('accuracy') > 2\n"
        "@of_homework\n"
        "def test_more_without_training(row, seed):\n    assert False\n"
        "@pytest.mark.parametrize(('row', 'seed'), [(1, 2)])\n"
        "def test_more_of_nobody(row, seed):\n    assert (row, seed) == (1, 2)\n"
    )
    found = study("--smoke", "-k", "more", "-n", "2", "-rs", subprocess=True)
    found.assert_outcomes(passed=2, skipped=1)
    assert "the test does not take the fixture train" in found.stdout.str()


def test_a_control_whose_training_diverges_is_noticed(study):
    add_to_conftest("""
import pytest

@pytest.fixture(autouse=True)
def diverging(monkeypatch):
    from cvhw4.training import fit

    def diverge(*args, **settings):
        raise fit.TrainingDiverged("loss nan in epoch 1")

    monkeypatch.setattr(fit, "fit", diverge)
""")
    args = ("-m", "control", "-k", "q1_2x-learning_rate_10-seed0 or (notice and q1_2x-learning)", "--seeds", "1", "-rs")
    result = study(*args)
    result.assert_outcomes(passed=1, skipped=1)
    assert "loss nan in epoch 1: detected: training diverged" in result.stdout.str()
    result = study("-k", "q1_2-finetune", "--seeds", "1")
    result.assert_outcomes(failed=1)  # of a row it is a failure, told once
    assert "During handling" not in result.stdout.str() and "direct cause" not in result.stdout.str()


@pytest.mark.integration
def test_collection_is_quick_and_imports_nothing_heavy(study, tmp_path):
    add_to_conftest("""
def pytest_collection_finish():
    import sys
    assert not {"torch", "torchvision", "timm", "pandas", "scipy", "numpy", "PIL"} & set(sys.modules)
""")

    def seconds(collect):
        """In processor time, since the wall clock of a busy machine says nothing."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        found = collect()
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, found

    ours, found = seconds(lambda: study("--collect-only", "-q", tiny=False, subprocess=True))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
    pytests, _ = seconds(lambda: subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL))
    assert found.ret == 0 and ours < 2 * pytests


def test_record_and_page_say_whether_each_seed_drew_its_own_pictures_and_bounds_are_of_one_kind(study, pytester):
    drawn = "12 training and 8 validation images, drawn by cvhw4"
    study("-k", "q1_5 and seed0", "--seeds", "1").assert_outcomes(passed=1)
    (one,) = stored(pytester)
    assert one.data.redrawn and one.data.fingerprint == "f" * 64
    report = page(pytester, "report.md").read_text()
    assert f"{drawn}, of each seed its own." in report and "not apply" not in report
    study("-k", "q1_5 and seed0", "--same-pictures", "--seeds", "1").assert_outcomes(passed=1)
    assert sorted(r.data.redrawn for r in stored(pytester)) == [False, True]
    report = page(pytester, "report.md").read_text()
    assert f"{drawn}." in report and re.search(r"bounds.* do(es)? not apply", report)


def test_a_session_trains_records_and_tabulates(study, pytester):
    (pytester.path / "paper.toml").write_text('[rows]\nq2_1a = "With skips"\n')
    result = study("-k", "skip", "--seeds", "2", "--benchmark-json=timing.json", "--table", "paper.tex")
    result.assert_outcomes(passed=4, skipped=2)  # two rows with two seeds; two claims, which two seeds do not decide
    text = result.stdout.str()
    assert re.search(r"q2_1a-skip\s+seed 1\s+best miou 0\.\d{3} at (epoch )?\d,?\s+\d+ s\s+\[2/4, .+ left\]", text)
    # the report's figure stands beside ours
    assert re.search(r"q2_1b-noskip +mIoU +0\.\d{3}±0\.\d{3} +0\.\d{3} +0\.406 +-0\.\d{3} +2 +\d+ s", text)
    assert "[100%]" in text  # runs that progress told of count as well
    assert re.search(r"q2_2-skip_miou +[+-]0\.\d{3} +\[.*\] +2 +(supported|contradicted|undecided)", text)
    assert all(len(line) <= 80 for line in result.outlines if re.match(r"q[12]_.* (met|\S+ed)$", line)), text
    assert text.index("claims by the last epoch") < text.index("all of it as a page to read, with pictures: ")

    runs = {(r.row, r.seed): r for r in stored(pytester)}
    assert sorted(runs) == [(row, s) for row in ("q2_1a-skip", "q2_1b-noskip") for s in (0, 1)]
    report = page(pytester, "report.md").read_text()
    assert "## Q2: street scenes (generated scenes)" in report
    assert "q1_2-finetune" in report.split("Rows without")[1]
    html = page(pytester, "report.html").read_text()
    assert html.count("<svg") == 5 and "The comparisons in full" in html  # the claims, two figures' curves, scenes, IoU
    paper = (pytester.path / "paper.tex").read_text()
    assert "With skips & $" in paper and r"\pm" in paper and "q2" not in paper and "table for a paper: " in text
    timing = json.loads((pytester.path / "timing.json").read_text())["benchmarks"]
    assert len(timing) == 4
    for benchmark in timing:
        told, stats = benchmark["extra_info"], benchmark["stats"]
        run = runs[told["row"], told["seed"]]
        assert told["best miou"] == run.best("miou")
        assert stats["rounds"] == 1 and stats["mean"] >= run.times.train_seconds


def test_pages_beside_the_tables_turn_no_session_red_and_never_contradict_them(study, pytester):
    select = ("-k", "q1_1 and seed0", "--seeds", "1", "--reuse")
    html, verdicts, report = (page(pytester, name) for name in ("report.html", "verdicts.md", "report.md"))
    html.mkdir(parents=True)
    result = study(*select)
    assert result.ret == 0 and report.exists()
    result.stdout.fnmatch_lines(["*report.html is not written: *cannot be written*`cvhw4 report` tries again.*"])
    result.stdout.no_fnmatch_line("all of it as a page to read*")
    html.rmdir()
    study(*select)
    assert html.exists() and not verdicts.exists()  # one seed says nothing of claims
    verdicts.write_text("# stale")  # and is written anew, whatever has run
    study(*select).stdout.fnmatch_lines(["*claims, and how sure: *verdicts.md"])
    for path in (verdicts, html):
        assert "No claim has runs of all its rows yet." in path.read_text() and "stale" not in path.read_text()


def test_a_table_that_cannot_be_written_is_one_line_and_no_green_session(study, pytester):
    page(pytester, "report.md").mkdir(parents=True)
    result = study("-k", "q1_1", "--seeds", "1")
    result.assert_outcomes(passed=1)
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: " in output and "report.md: cannot be written (Is a directory)" in output
    assert "Traceback" not in output and "INTERNALERROR" not in output


def test_reuse_takes_finished_runs_and_repeats_them_to_the_bit_without(study, pytester):
    study("-k", "q1_1", "--seeds", "1").assert_outcomes(passed=1)
    (first,) = stored(pytester)
    result = study("-k", "q1_1", "--seeds", "2", "--reuse")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("reused") == 1
    result.stdout.re_match_lines([r"overhead \(start, data, records, tables\): \d+\.\d s of \d+ s, \d+\.\d %"])
    by_seed = {r.seed: r for r in stored(pytester)}
    assert by_seed[0].to_json() == first.to_json() and by_seed[1].fingerprint != first.fingerprint
    study("-k", "q1_1 and seed0", "--seeds", "1").assert_outcomes(passed=1)
    again = next(r for r in stored(pytester) if r.seed == 0)
    assert again.fingerprint == first.fingerprint
    assert [(e.loss, e.figures) for e in again.epochs] == [(e.loss, e.figures) for e in first.epochs]


def test_claims_alone_are_judged_on_what_is_stored(study):
    study("-k", "q1_1 or q1_2", "--seeds", "2").assert_outcomes(passed=4)
    for more in ((), ("--reuse",)):
        result = study("-k", "finetune_above_features", "--seeds", "2", "-rs", *more)
        result.assert_outcomes(skipped=1)
        assert "not promised by the calibration at 2 seeds" in result.stdout.str()


def test_a_missed_bound_says_value_bound_and_source(study, pytester):
    narrow = [on_tiny_data(row, s, 0.99) for row in DRAWN.rows.values() for s in range(6)]
    bounds_file(pytester).write_text(to_toml(DRAWN, calibrate(DRAWN, narrow)))
    result = study("-k", "q2_3", "--seeds", "1")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert re.search(r"best miou 0\.\d+ is below its bound \[0\.\d+, \d\.\d+\], from 6 runs with mean 0\.99", text)
    assert "MISSED" in text and "runs of 2026-11-23" in text


@pytest.mark.integration
def test_a_claim_that_no_longer_holds_fails(study, pytester):
    """The calibration promises the claims; then the two arms change places."""
    sure = "{ low = 0.362, high = 1.638, mean = 1.0, sd = 0.1, n = 8 }"  # of one run: 0.0004 to 1.9996
    bounds_file(pytester).write_text(re.sub(r"(q2_2-[a-z_]+) = .*", rf"\1 = {sure}", wide_bounds()))
    study("-k", "skip and seed0", "--seeds", "1").assert_outcomes(passed=2)
    one_way = study("-k", "q2_2", "--seeds", "1", "--reuse")
    add_to_conftest("""
import dataclasses
from cvhw4 import homework

homework.CLAIMS = tuple(dataclasses.replace(c, better=c.worse, worse=c.better) for c in homework.CLAIMS if c.worse)
""")
    other_way = study("-k", "q2_2", "--seeds", "1", "--reuse", subprocess=True)
    # On the tiny profile either arm may be ahead: each claim holds one way round and fails the other.
    failed, passed = ([o.parseoutcomes().get(k, 0) for o in (one_way, other_way)] for k in ("failed", "passed"))
    assert sum(failed) == 2 and sum(passed) == 2
    text = one_way.stdout.str() + other_way.stdout.str()
    assert re.search(
        r"skip connections raise .*: no longer holds; mean difference in \w+ over 1 seeds -0\.\d+ is below", text
    )


def test_notes_of_a_killed_session_of_the_same_name_are_not_read(study, tmp_path, monkeypatch):
    """As CI gives a job that is run again the number of the first attempt; claims would be judged from its runs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    board = SessionBoard(tmp_path / "cvhw4-session-77")
    board.finish(("quick", "q1_2-finetune", 0), tmp_path / "record.json")
    monkeypatch.setattr("cvhw4.plugin.session.Session.pytest_sessionfinish", lambda _: None)  # as where it is killed
    assert "q1_2-finetune-seed0" in "".join(collected(study, "--testrunuid=77"))
    assert not board.folder.exists()


def test_rows_skipped_by_others_keep_no_claim_waiting(study):
    # Not `-k skip`: the mark that --benchmark-skip puts on every row has that name too.
    study("-k", "q2_1a or q2_1b or q2_2", "--seeds", "1", "--benchmark-skip").assert_outcomes(skipped=4)


def test_rows_that_cannot_run_are_skipped_and_the_table_says_why(study, pytester):
    (pytester.path / "t.tex").write_text("the table of before")
    result = study("--profile", "full", "-k", "q1_3 or q2_1a", "--seeds", "1", "--table", "t.tex")
    result.assert_outcomes(skipped=2)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED  # a job that trains nothing is not green
    assert "t.tex is not written, as no run of this session has finished" in result.stdout.str()
    assert (pytester.path / "t.tex").read_text() == "the table of before"
    assert "q1_3-scratch skipped: needs real data for classification: give --portraits DIR" in result.stdout.str()
    report = page(pytester, "report.md", "full").read_text()
    assert re.search(r"\| needs real data for segmentation: give --camvid DIR\s*\|.* q2_1a-skip\b", report)


@pytest.mark.integration
def test_real_data_is_reported_and_not_judged(study, pytester, monkeypatch):
    monkeypatch.setenv("CVHW4_CACHE", str(pytester.path / "cache"))
    folder = pictures(pytester.path / "photos", classes=("bright", "dark"), train=6, val=4)
    args = ("-rs", "-k", "q1_1 or q1_2 or finetune_above_features", "--seeds", "2", "--portraits", "photos")
    result = study(*args, subprocess=True)
    result.assert_outcomes(passed=4, skipped=1)
    text = result.stdout.str()
    assert "photos" in text and "these rows are not judged" in text
    assert "not judged: no bounds for photos; the runs' verdict is" in text
    assert "do not apply" in page(pytester, "report.md").read_text()
    (folder / "val" / "dark" / "0.png").write_bytes(b"\x89PNG truncated")
    broken = study(*args, subprocess=True)
    assert broken.ret == pytest.ExitCode.USAGE_ERROR
    assert "0.png" in broken.stderr.str() and "Fix: " in broken.stderr.str()


@pytest.mark.integration
def test_other_suites_are_left_alone(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest('pytest_plugins = ["cvhw4.plugin"]')
    # A failing test whose name is no file name: the session's notes are none of its business.
    pytester.makepyfile("import pytest\n@pytest.mark.parametrize('x', ['/' + 'a' * 300])\ndef test_it(x): assert not x")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    assert "INTERNALERROR" not in result.stdout.str() and "ablation" not in result.stdout.str()
    pytester.makepyfile(test_broken="import no_such_module")
    broken = pytester.runpytest_subprocess("test_broken.py")
    assert "no_such_module" in broken.stdout.str() and "AttributeError" not in broken.stdout.str() + broken.stderr.str()
    assert not (pytester.path / "results").exists()
