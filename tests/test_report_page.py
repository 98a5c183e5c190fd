"""`report.md` and the terminal's tables: their figures, and what they say of runs that failed, leaks and code."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvhw4 import Claim, Published, Row, Study, table
from cvhw4.homework import studies, study
from cvhw4.records.store import Store
from cvhw4.report.failures import latest_failures
from cvhw4.report.numbers import gain, interval, interval_of, limits, number, tally
from cvhw4.report.page import write_report
from cvhw4.report.plots import forest
from cvhw4.report.results import report_page
from cvhw4.report.runs import by_data, by_row, origins
from cvhw4.report.stored import Stored
from cvhw4.report.summary import session_summary, short_claims, short_detections, summary
from cvhw4.report.tables import Table
from cvhw4.statistics.bounds import Bound, Bounds
from cvhw4.statistics.intervals import estimate
from cvhw4.statistics.verdicts import judge_all
from tests.helpers import tiny
from tests.helpers.pages import cells, section
from tests.helpers.tiny import QUICK, record

FULL = study("full")
BOUND = Bound(low=0.8, high=1.0, mean=0.9, sd=0.02, n=20, runs=2)
BOUNDS = Bounds({"q1_1-features": {"best accuracy": BOUND}}, {}, "made up", {"embedded": record().data.fingerprint})


def page(records, failures=(), bounds=None, missing=(), of=QUICK):
    return report_page(of, records, bounds, dict(missing), failures)


def figures(text, start, title="Accuracy"):
    """The cells of a line, by the heads of their columns."""
    lines = section(text, title).splitlines()
    head = next(line for line in lines if line.startswith("| row"))
    return dict(zip(map(str.strip, head.strip("|").split("|")), cells(section(text, title), start), strict=True))


def test_a_row_of_the_page_is_worked_by_hand():
    runs = [
        record("q1_2", seed=0, figures=((0.80,), (0.90,), (0.70,))),
        record("q1_2", seed=1, figures=((0.86,), (0.8,)), times=replace(record().times, peak_memory_bytes=2**29)),
    ]
    # best: 0.90 and 0.86; sd 0.0283; t(1) = 12.7062, half width 0.2541, beyond an accuracy of 1
    assert figures(page(runs), "q1_2-finetune") == {
        "row": "q1_2-finetune", "best accuracy": "0.880 ± 0.028", "95 % interval": "[0.626, 1.000]",
        "published": "0.8750", "best less published": "+0.005", "last accuracy": "0.750 ± 0.071", "n": "2",
        "best at epoch": "2, 1",
    }  # fmt: skip
    settings = cells(section(page(runs), "Settings"), "q1_2-finetune")
    network = ["tf_efficientnet_lite0", "imagenet", "all layers", "random-resized crop"]
    assert settings[1:] == [*network, "96", "16", "5", "sgd", "0.01"]
    cost = cells(section(page(runs), "Time, memory and weights"), "q1_2-finetune")[1:]
    assert cost[:4] == ["9.5 ± 0.0 s", "5m24s", "1.00 GiB", "6"]
    assert cost[4:] == ["3,400,000", "2,562", "package x 1.0", "cpu (2 threads)"]


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ((0.1, 0.1, 0.1, 0.1, 0.1), "2"),
        ((0.0, 0.1, 0.1), "1, 2, 2"),
        ((0.0, 0.0, 0.0, 0.1, 0.1), "1 (1 to 2)"),
        ((0.0, 0.0, 0.1, 0.1, 0.1), "2 (1 to 2)"),
    ],
)
def test_best_epochs_are_one_number_where_seeds_agree_and_else_a_list_or_a_range(last, shown):
    runs = [record("q1_2", seed=s, figures=((0.05,), (figure,))) for s, figure in enumerate(last)]
    assert figures(page(runs), "q1_2")["best at epoch"] == shown


def test_what_all_rows_have_alike_is_said_above_their_table():
    settings = section(page([record("q1_2"), record("q1_1")]), "Settings")
    assert "Of all rows: network tf_efficientnet_lite0; start imagenet; augmentation random-resized crop; " in settings
    assert cells(settings, "row") == ["row", "trained"]
    assert [cells(settings, row)[1] for row in ("q1_1", "q1_2")] == ["last layer", "all layers"]
    same = section(page([record("q1_2"), record("q1_f2")]), "Time, memory and weights")
    assert "Of all rows: weights package x 1.0; device cpu (2 threads)." in same and same.count("cpu") == 1
    times = {"q1_2": 30, "q1_1": 7200}
    hours = [replace(record(row), times=replace(record().times, total_seconds=t)) for row, t in times.items()]
    assert "| 120.0 min " in page(hours) and "| 0.5 min " in page(hours)


def test_published_figures_have_the_digits_they_were_printed_with():
    rows = {"a": Row("resnet18"), "b": Row("resnet34")}
    printed = {"a": Published({"accuracy": 0.9}), "b": Published({"accuracy": 0.75})}
    own = Study("own", data="x", rows=rows, published=printed)
    text = page([replace(record(), row=row) for row in rows], of=own)
    assert [figures(text, f"{row} ")["published"] for row in rows] == ["0.90", "0.75"]


def test_a_page_opens_with_a_summary_of_its_runs():
    level = {"q1_1": 0.5, "q1_2": 0.7, "q1_3": 0.6}
    runs = [record(row, s, ((v + s / 100,),)) for row, v in level.items() for s in range(3)]
    bounds = replace(BOUNDS, rows=BOUNDS.rows | {"q1_2-finetune": {"best accuracy": replace(BOUND, low=0.6)}})
    text = report_page(QUICK, runs, bounds, {}, [failure("q1_3", 4)], verdicts=True, tables=["tables/a.tex"])
    assert text.splitlines()[2:4] == ["## Summary", ""] and section(text, "Summary").split("\n\n")[1].splitlines() == [
        "- **Runs**: 9; 3 of the 20 rows, 3 seeds a row, 1 epoch each, 2026-11-23.",
        "- **Data**: embedded (generated, 240 training and 400 validation images).",
        "- **Machine**: A processor, cpu (2 threads); torch 2.15.0; code abc.",
        "- **Bounds**: met by 1 of 2 rows (**missed** by q1_1-features).",
        "- **Failures**: 1 of 4 seeds failed in q1_3-scratch.",
        "- **Claims**: **2 supported, 1 contradicted** of 3 claims.",
        "  - **supported**: fine-tuning all layers beats training the last layer alone, +0.200 [0.197, 0.203]",
        "  - **contradicted**: pretrained features beat AlexNet trained from scratch, -0.100 [-0.103, -0.097]",
        "  - **supported**: the fine-tuned network beats AlexNet trained from scratch, +0.100 [0.097, 0.103]",
        "- **Read on**: [Q1: pictures in two classes (embedded)](#q1-pictures-in-two-classes-embedded); [how sure the "
        "verdicts are](verdicts.md); tables for papers: [a.tex](tables/a.tex).",
    ]


def test_a_claim_about_classes_is_shown_of_others_and_neither_judged_nor_counted():
    level = {"q1_1": 0.5, "q1_2": 0.7, "q1_5": 0.6}
    runs = [record(row, s, ((v + s / 100,),)) for row, v in level.items() for s in range(3)]
    ants = [replace(r, data=replace(r.data, classes=["ants", "bees"], fingerprint="f" * 64)) for r in runs]
    of_faces, of_ants = judge_all(QUICK, runs), judge_all(QUICK, ants)
    assert [o.verdict for o in of_faces] == ["supported", "supported"]
    assert [o.verdict for o in of_ants] == ["supported", "about other pictures"]
    assert [o.adjusted_p for o in of_faces] == [o.adjusted_p for o in of_ants]  # no other claim is surer by that
    summary = section(page(ants), "Summary")
    assert "- **Claims**: **1 supported** of 1 claim; 1 about other pictures." in summary
    controls = [replace(o, claim=replace(o.claim, control=True)) for o in of_ants]
    assert tally(controls) == "controls: 1 supported; 1 about other pictures"
    assert tally(controls[1:]) == "controls: 1 about other pictures"
    assert "**about other pictures**: the whole face in view helps the feature extractor, +0.100 [" in summary
    assert "about other pictures" not in section(page(runs), "Summary")
    assert forest(of_ants, QUICK).alt.endswith(": +0.100, about other pictures.")
    assert all(len(line) <= 80 for line in short_claims(of_ants))


def test_a_summary_says_what_is_missing():
    run = record("q1_1")
    alone = page([replace(run, environment=run.environment | {"commit": None})])  # code that is no checkout
    assert not any(word in alone for word in ("- **Bounds**", "- **Claims**", "verdicts.md", "code", "None"))
    foreign = replace(run, data=replace(run.data, fingerprint="f" * 64, name="hymenoptera"))
    other = page([foreign], bounds=BOUNDS)
    assert "- **Bounds**: none apply, as they are calibrated on other data." in other
    assert "- **Failures**: none." in other
    assert "- **Bounds**: none are of these rows." in page([record("q1_2")], bounds=BOUNDS)
    both = section(page([run, foreign], [failure("q1_2"), failure("q1_1", 2)]), "Summary")
    assert "2; 1 of the 20 rows, 1 seed a row," in both and "- **Failures**: embedded: 1 of 1 seed failed in" in both
    one_seed = page([run, record("q1_2")])
    assert "  - **undecided**: fine-tuning all layers beats" in one_seed and "One seed decides nothing." in one_seed
    assert not any(term in one_seed for term in ("±", "95 %")) and "± the standard" in page([run, record("q1_1", 1)])


def test_both_conventions_and_classes_stand_on_the_page():
    text = page([record("q2_1a", figures=((0.4, 0.8, 0.5, 0.85),)), record("q2_1b", figures=((0.3, 0.7, 0.2, 0.75),))])
    assert cells(section(text, "The same predictions"), "q2_1a-skip")[1:] == ["0.400", "0.500", "0.800", "0.850"]
    by_class = section(text, "IoU by class, 11 classes")
    assert cells(by_class, "Sky")[1:] == ["0.500", "0.250", "0.500", "0.250"]
    assert cells(by_class, "Pole")[1:] == ["0.500", "-", "0.500", "-"]
    claim = cells(section(text, "Claims"), "skip connections raise mIoU (`q2_2-skip_miou`)")
    assert claim[1:] == ["+0.100", "**undecided**", "1", "mIoU"]  # one seed has neither interval nor p
    three = section(page([record("q2_3")]), "IoU by class, 3 classes")
    assert cells(three, "everything else")[1:] == ["0.500", "-"]


def test_published_figures_and_a_line_after_fewer_epochs_stand_where_a_row_has_them():
    figures = tuple((0.01 * i,) for i in range(1, 51))
    text = page([replace(record("q2_1a", figures=figures), study="full")], of=FULL)
    whole, first = (cells(section(text, "mIoU"), start) for start in ("q2_1a-skip ", "q2_1a-skip, first 20 epochs "))
    assert whole[1:] == ["0.500", "0.4295", "+0.071", "0.500", "1", "50", "41"]
    assert first[1:] == ["0.200", "0.4295", "-0.230", "0.200", "1", "20", "41"]
    assert "*First 20 epochs*: the same runs, as if they had ended then." in text
    assert "| published " in section(page([record("q1_2")]), "Accuracy")
    without = page([record("q1_5", figures=((0.5,),) * 5)])
    assert not any(text in without for text in ("| published ", "| best less published ", "published time", "*First "))


def test_rows_without_a_run_say_why():
    text = page([record("q1_2")], missing=dict.fromkeys(("q2_3-3class", "q2_1a-skip"), "no weights of vgg16"))
    absent = section(text, "Rows without a run")
    assert cells(absent, "no weights of vgg16")[1] == "q2_1a-skip, q2_3-3class"
    assert "q1_8-recipe" in cells(absent, "no run is stored")[1] and "q1_2" not in absent
    assert "No runs yet." in page([])


def test_runs_on_the_bounds_data_are_judged_and_others_are_not():
    good, bad = record("q1_1"), record("q1_1", seed=1, figures=((0.01,),))
    for runs, word in (([good], "met"), ([good, bad], "MISSED"), ([record("q1_2")], "none")):
        assert figures(page(runs, bounds=BOUNDS), "q1_").get("bounds", "none") == word
    foreign = replace(record("q1_1"), data=replace(record().data, fingerprint="f" * 64, name="hymenoptera"))
    text = page([foreign, record("q1_1", seed=1)], bounds=BOUNDS)
    assert "(hymenoptera)" in text and "(embedded)" in text and text.count("do not apply") == 1
    assert "do not apply" not in page([foreign]) and "bounds" not in page([foreign])


def test_a_studys_own_metric_has_a_table_and_its_runs_from_before_are_left_out():
    own = Study("own", data="x", rows={"a": Row("resnet18")}, metrics={"f1_": max}, title="A *b*")
    runs = [replace(record(seed=s), row="a", configuration="c" * 64) for s in (0, 1)]
    runs[1] = replace(runs[1], epochs=[replace(e, figures=e.figures | {"f1_": -2.5}) for e in runs[1].epochs])
    text = page(runs, of=own)
    assert text.startswith("# A \\*b\\*, on embedded (2 runs)\n") and "## A \\*b\\* (embedded)" in text
    line = figures(text, "a", "f1\\_")
    assert line["best f1\\_"] == "-2.500" and line["n"] == "1"
    assert summary(by_row(runs), own, None)[2].split() == ["a", "f1_", "-2.500", "-2.500", "1", "10", "s"]
    bounds = replace(BOUNDS, rows={"a": {"best accuracy": BOUND}})  # which f1_ has none of
    words = [line.split()[-1] for line in summary(by_row(runs), own, bounds)[1:3]]
    assert words == ["met", "none"] and "bounds" not in figures(page(runs, of=own, bounds=bounds), "a", "f1\\_")
    wide = Study("own", data="x", rows={"a": Row("resnet18")}, metrics={"m" * 60: max})
    for epoch in runs[1].epochs:
        epoch.figures["m" * 60] = 1.0
    lines = summary(by_row(runs), wide, None)
    assert max(map(len, lines)) <= 80 and lines[2].startswith("a    mmm")


def test_a_table_takes_data_frames_and_lines():
    import pandas as pd

    lines = [{"a|b": "1|2", "c": "longer"}]
    shown = "| a\\|b   | c      |\n|--------|--------|\n| 1\\|2   | longer |"
    assert table(lines) == table(pd.DataFrame(lines)) == shown
    assert Table.of(lines * 3, without=["c"]).markdown(1).endswith("\n| 1\\|2 |\n\n... and 2 more, not shown.")
    assert table([]) == ""


# Runs that failed


def failure(name="q1_2", seed=1, **changes):
    """The note of a failed run, of the same configuration as `record(name)`."""
    where = dict(step=7, lr=0.0005, reason="the loss became NaN", checkpoint="seed1-6162.safetensors")
    return tiny.failure(record(name, seed), **where | changes)


def test_a_row_whose_every_run_failed_is_failed_not_missing():
    text = page([record("q1_1")], [failure("q1_2", 0), failure("q1_2", 1)])
    line = figures(text, "q1_2-finetune")
    assert line["best accuracy"] == "**failed**" and line["published"] == "0.8750"
    assert line["n"] == "0 (2 of 2 seeds failed)" and figures(text, "q1_1-features")["n"] == "1"
    reason = ["q1_2-finetune", "0", "the loss became NaN", "2", "7", "0.0005", "seed1-6162.safetensors"]
    assert cells(section(text, "Failed runs"), "q1_2-finetune") == reason
    assert "| q1_2-finetune" not in section(text, "Rows without a run")


def test_trainings_that_failed_are_counted_on_the_page_and_in_the_terminal():
    flat = {"iou": [0.0, 0.4, 0.0], "set_iou": [0.0, 0.4, 0.0]}
    runs = [record("q2_3", s, by_class=flat) if s else record("q2_3", s) for s in range(3)]
    line = "Trainings that failed (after the last epoch no more than one class is right): 2 of 3 of q2_3-3class."
    assert page(runs).count(line) == 2 and line in " ".join(map(str.strip, session_summary(QUICK, runs, [], None, {})))
    assert "Trainings that failed" not in page(runs[:1]) + str(session_summary(QUICK, runs[:1], [], None, {}))


def test_a_mean_over_survivors_says_how_many_failed():
    survivors = [record("q1_2", seed=s) for s in (0, 2)]
    text = page(survivors, [failure()])
    assert figures(text, "q1_2-finetune")["n"] == "2 (1 of 3 seeds failed)" and "finished is biased" in text
    untouched = page(survivors)
    assert "failed" not in untouched and "biased" not in untouched
    older = page([replace(r, configuration="e" * 64) for r in survivors], [failure()])
    assert figures(older, "q1_2-finetune")["n"] == "2 (1 of 1 seed of a later configuration failed)"


def test_what_is_not_known_of_a_failure_is_left_open():
    text = page([], [failure("q2_1a", epoch=0, step=0, lr=0.0, checkpoint=None)])
    assert cells(section(text, "Failed runs"), "q2_1a-skip")[2:] == ["the loss became NaN", "-", "-", "-", "none"]
    assert "No run has finished on these data." in text and "### Time" not in text


def test_failures_of_an_older_configuration_are_left_out():
    early = "2026-11-22T10:00:00+00:00"
    old, new = failure(configuration="a" * 64, started=early), failure(seed=2)
    elsewhere = failure(data="hymenoptera", configuration="b" * 64, started=early)
    assert latest_failures([record("q1_2")], [old, new, elsewhere]) == [new, elsewhere]
    assert latest_failures([], [old, new]) == [new]
    again = replace(record("q1_2"), configuration="c" * 64, started="2026-11-24T10:00:00+00:00")
    assert latest_failures([again], [old, new]) == []


# What is said below tables

LEAKS = [f"train/{i}.jpg = val/{i}.png" for i in range(4)]


def leaking(n):
    return lambda r: dict(data=replace(r.data, leaks=LEAKS[:n]))


def redrawn(r):
    return dict(data=replace(r.data, fingerprint=r.fingerprint))


def by_code(r):
    digest, day = {"q2_1a": ("a", 24), "q2_1b": ("", 25), "q2_n1a": ("a", 23), "q2_n1b": ("b", 26)}[r.row.split("-")[0]]
    code = {"code": digest * 64} if digest else {}
    return dict(environment=r.environment | code, started=f"2026-11-{day}T10:00:00+00:00")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            leaking(1),
            f"1 validation picture is a training picture too, so validation figures are optimistic: {LEAKS[0]}.",
        ),
        (
            leaking(4),
            "4 validation pictures are training pictures too, so validation figures are optimistic: "
            f"{', '.join(LEAKS[:3])}, ....",
        ),
        (
            redrawn,
            "Rows were trained on different pictures under this name (q2_1a-skip; q2_1b-noskip; q2_n1a-fused_norm; "
            "q2_n1b-plain_norm): train them again",
        ),
        (
            by_code,
            f"Rows were run by different versions of the code: {'a' * 12} (q2_1a-skip, q2_n1a-fused_norm; 2026-11-23 "
            f"to 2026-11-24); not recorded (q2_1b-noskip; 2026-11-25); {'b' * 12} (q2_n1b-plain_norm; 2026-11-26). "
            "A difference between them may be the code's.",
        ),
        (lambda r: {}, None),
    ],
)
def test_what_is_wrong_with_data_or_code_stands_wherever_its_figures_do(change, line):
    runs = [replace(r, **change(r)) for r in map(record, ("q2_1a", "q2_1b", "q2_n1a", "q2_n1b"))]
    q1, q2 = page([*runs, record("q1_2")]).split("## Q2")
    told = "\n".join(origins(by_row(runs)))
    if line is None:
        assert not any(word in told + q2 for word in ("optimistic", "different pictures", "different versions"))
    else:  # mIoU, pixel accuracy, claims where they are judged, two conventions, IoU by class
        assert q2.count(line) == 4 + (change is not redrawn) and line not in q1 and line in told


def test_rows_whose_settings_changed_since_their_runs_are_named_and_how():
    of_b = replace(QUICK.row("q2_1b"), skips=True, recipe=replace(QUICK.row("q2_1b").recipe, lr=0.5, batch=2))
    runs = [record("q2_1a"), record("q2_1b", settings=of_b.settings())]
    (line,) = [line for line in section(page(runs), "mIoU").splitlines() if "other settings" in line]
    what = "recipe.batch 2, now 4; recipe.lr 0.5, now 0.001; skips true, now false"
    assert line.endswith(f"now: q2_1b-noskip ({what}). Train them again to compare them.")
    assert "other settings" not in page([record("q2_1a"), record("q2_1b")])
    of_q1 = QUICK.row("q1_2").settings()
    of_q1 |= {"augmentation": 60 * "a", "classes": 5, "recipe": of_q1["recipe"] | {"warmup_epochs": 1}}
    told = "q1_2-finetune (augmentation changed; recipe.warmup_epochs 1, now left out)."
    assert told in page([record(settings=of_q1)])


def test_runs_of_an_earlier_configuration_are_counted(tmp_path):
    store = Store(tmp_path, "quick")
    for seed in range(3):
        store.save(record("q1_2", seed=seed, started="2026-11-20T10:00:00+00:00"))
    store.save(record("q1_2", configuration="b" * 64, fingerprint="b" * 64))
    text = write_report(Stored(QUICK, store), None, {}).read_text("utf-8")
    assert "other settings, pictures, weights, code, packages or devices than the latest of their row: " in text
    assert "3 of q1_2-finetune (`cvhw4 list` has them)." in text
    assert figures(text, "q1_2-finetune")["n"] == "1"
    assert "Left out" not in page([record("q1_2")])


def test_claims_stand_with_their_rows_where_two_data_sets_have_one_name():
    q1, q2 = map(record, ("q1_1", "q1_2")), map(record, ("q2_1a", "q2_1b"))
    runs = [*q1, *(replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in q2)]
    for (own, other), task in zip((("q1_4", "q2_2"), ("q2_2", "q1_4")), page(runs).split("## Q")[1:], strict=True):
        assert own in section(task, "Claims") and other not in section(task, "Claims")


def test_continued_runs_are_counted_below_their_times():
    runs = [record("q1_2", seed=s) for s in range(3)] + [record("q1_1")]
    runs[1:3] = [replace(r, times=replace(r.times, interruptions=2)) for r in runs[1:3]]
    cost = page(runs).split("### Time, memory and weights")[1]
    assert "Continued after an interruption: 2 of 3 runs of q1_2-finetune. Their times cover" in cost
    assert "interruption" not in page(runs[:1])


# The terminal


def test_a_sessions_tables():
    rows = ("q1_1", 0.81), ("q1_2", 0.9), ("q2_1a", 0.5)
    runs = [record(row, s, ((v + apart,),)) for row, v in rows for s, apart in enumerate((-0.001, 0.001))]
    noise = QUICK.controls[0].of(QUICK, 0.2)
    corrupted = replace(record("q1_6", figures=((0.5,),)), row=noise.name, settings=noise.settings())
    bounds = replace(BOUNDS, rows=BOUNDS.rows | {"q1_6-finetune": {"best accuracy": BOUND}})
    lines = session_summary(QUICK, [*runs, corrupted], [failure("q2_1b")], bounds, {"q2_3-3class": "no data"})
    assert max(map(len, lines)) <= 80 and lines[0] == "embedded"
    starts = [line.split() for line in lines if line]
    assert ["q1_1-features", "acc.", "0.810±0.001", "0.810", "0.830", "-0.020", "2", "10", "s", "met"] in starts
    assert ["q2_1b-noskip", "mIoU", "-", "-", "-", "-", "0", "-", "FAILED"] in starts
    assert ["device:", "cpu", "(2", "threads)"] in starts
    assert "negative controls, in sessions of 3 seeds" in lines
    assert "claims by the last epoch (Holm; controls each by itself)" in lines
    assert next(s for s in starts if s[0].startswith("q1_6x"))[-2:] == ["yes", "1.00"]
    assert lines[-1] == "q2_3-3class skipped: no data"
    elsewhere = [replace(r, data=replace(r.data, name="photos", fingerprint="f" * 64)) for r in runs]
    other = session_summary(QUICK, elsewhere, [], bounds, {})
    assert "bounds are calibrated on other data: these rows are not judged by them" in other
    assert not any(" bounds" in line for line in other if line.startswith("row"))
    assert session_summary(QUICK, [], [], None, {}) == []
    uncalibrated = session_summary(study("quick", bounds="nowhere/b.toml"), runs, [], None, {})
    assert any(line.startswith("no bounds yet: there is no /") for line in uncalibrated)
    claim = QUICK.claims[0]
    narrow = replace(bounds, claims={claim.id: Bound(0.2, 0.3, 0.25, 0.01, 8, 3)})
    text = " ".join(" ".join(session_summary(QUICK, runs, [], narrow, {})).split())
    assert f"{claim.id}: mean difference in accuracy over 2 seeds 0.0900 is below its bound" in text


def test_the_summary_shows_failures():
    runs, failures = [record("q1_2"), record("q2_c3")], [failure(), failure("q2_3", 0), failure("q2_c3")]
    (groups,) = by_data(runs, failures).values()
    lines = [line.split() for line in summary(groups, QUICK, None, failures)[1:]]
    names = ["q1_2-finetune", *["q2_3-3class"] * 2, *["q2_c3-3class_fused"] * 2]
    assert [(line[0], line[-1]) for line in lines] == [(name, "FAILED") for name in names]
    assert "bounds" not in summary(groups, QUICK, None)[0]
    assert list(by_data([], failures).values()) == [{}] and origins({}) == []


NAMES = st.text("abcxyz_0123456789.-", min_size=1, max_size=40)
NUMBERS = st.floats(-9.999, 9.999)


def check_width(lines, names):
    """At most 80 columns; names are whole, or begin as they do and end in an ellipsis."""
    assert max(map(len, lines)) <= 80
    for line, whole in zip(lines[1:], names, strict=True):
        shown = line.split("  ")[0]
        assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]) and len(shown) > 6)
    return "\n".join(lines)


@pytest.mark.parametrize("of", studies(), ids=lambda s: s.name)
def test_every_row_and_claim_fits(of):
    made = {r.name: replace(record("q1_2" if r.task.in_images else "q2_1a"), row=r.name) for r in of.rows.values()}
    long = {row: [replace(r, times=replace(r.times, total_seconds=9999.0))] * 20 for row, r in made.items()}
    names = [row.name for row in of.rows.values() for _ in of.shown(row.task)]
    for groups in ({row: [r] for row, r in made.items()}, long):
        text = check_width(summary(groups, of, None), names)
    assert "  9999 s" in text
    check_width(short_claims([outcome(c.id, -0.123, 20) for c in of.claims]), [c.id for c in of.claims])


def outcome(id, mean, n, low=-0.5, high=0.5):
    rest = dict(verdict="contradicted", other_epoch=None, trained=None, data="photos, redrawn", calibrated=0)
    rest |= dict(never_trained=(), share=False)
    difference = SimpleNamespace(mean=mean, n=n, low=low, high=high)
    return SimpleNamespace(claim=SimpleNamespace(id=id, worse="q1_1"), difference=difference, **rest)


def detection(name, figure, mean, high, n):
    control, bound = SimpleNamespace(name=name, strengths=(0.05,)), SimpleNamespace(low=mean, high=high)
    rest = dict(strength=0.05, missed=False, probability=0.123)
    return SimpleNamespace(control=control, figure=figure, mean=mean, bound=bound, n=n, **rest)


DRAWN = st.lists(st.tuples(NAMES, NUMBERS, NUMBERS, st.integers(1, 99)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(DRAWN, st.sampled_from(["training loss", "best accuracy", "best pixel_accuracy"]))
def test_claims_and_negative_controls_fit_and_their_numbers_stay_whole(drawn, figure):
    names = [name for name, *_ in drawn]
    text = check_width(short_claims([outcome(name, mean, n, mean, high) for name, mean, high, n in drawn]), names)
    assert all(number(mean, sign="+") in text and (n == 1 or limits(mean, high) in text) for _, mean, high, n in drawn)
    text = check_width(short_detections([detection(name, figure, *rest) for name, *rest in drawn]), names)
    assert all(number(mean) in text and limits(mean, high) in text for _, mean, high, _ in drawn)


def test_an_interval_of_a_share_ends_at_0_and_1_and_that_of_a_difference_does_not():
    # of 0.70, 0.98 and 0.99: mean 0.89, sd 0.1646, half width 4.3027 * 0.1646 / sqrt(3) = 0.4088
    right = estimate([0.70, 0.98, 0.99])
    assert interval(right) == "[0.481, 1.299]" and interval(right, share=True) == "[0.481, 1.000]"
    assert gain(estimate([0.30, 0.02, 0.01]), share=True) == "+0.110 [0.000, 0.519]"
    claims = [Claim(better="a", metric=metric, margin=0.5) for metric in ("accuracy", "mine")]
    rows = {"a": Row("resnet18"), "b": Row("resnet18", trained="last layer")}
    claims += [Claim(better="a", worse="b", metric="accuracy")]
    own = Study("own", data="folder", rows=rows, claims=claims, metrics={"mine": max})
    drawn = {"a": (0.70, 0.98, 0.99), "b": (0.0, 0.0, 0.0)}
    made = [replace(record(seed=s, figures=((x,),)), row=row) for row, of in drawn.items() for s, x in enumerate(of)]
    runs = [
        replace(
            r,
            epochs=[replace(e, figures=e.figures | {"mine": e.figures["accuracy"]}) for e in r.epochs],
            data=replace(r.data, embedded=False),
        )
        for r in made
    ]
    assert [interval_of(o) for o in judge_all(own, runs)] == ["[0.481, 1.000]", "[0.481, 1.299]", "[0.481, 1.299]"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0345, "0.035"),  # as is 0.03449999999999999, which sums of 0.0345 come to
        (0.03449999999999999, "0.035"),
        (np.float64(0.0335), "0.034"),
        (-0.0005, "-0.001"),
        (-0.0004, "0.000"),
        (1234.5, "1234.500"),
        (-2.5e26, "-2.500e+26"),
        (1e100, "1.000e+100"),
        (float("nan"), "nan"),
    ],
)
def test_a_figure_between_two_is_shown_the_same_everywhere(value, shown):
    assert number(value) == shown
    assert number(value, sign="+").lstrip("+") == shown


@settings(deadline=None, max_examples=50)
@given(NAMES.filter(str.isalnum), st.floats(0, 1), st.integers(1, 99), st.floats(0, 99_999))
def test_long_names_of_rows_are_cut_in_the_summary_and_numbers_are_not(name, figure, n, seconds):
    long = Study("own", data="x", rows={name: Row("resnet18")})
    run = record("q1_2", figures=((figure,),))
    run = replace(run, row=name, times=replace(run.times, total_seconds=seconds))
    lines = summary({name: [run] * n}, long, None)
    check_width(lines, [name])
    best, time = lines[1].split()[2].split("±")[0], lines[1].split()[-2]
    # The mean of n equal numbers may differ from them in its last bit, and so round the other way.
    assert float(best) == pytest.approx(figure, abs=0.5e-3 + 1e-9) and len(best) == 5
    assert float(time) == pytest.approx(seconds, abs=0.5 + 1e-6)
