"""Whether generated pictures answer a study's claims as real ones do: the page and what it is made of."""

from dataclasses import replace

import pytest
from scipy.stats import ttest_rel

from cvhw4.records.store import Store
from cvhw4.statistics.agreement import order, sides
from cvhw4.statistics.bounds import NO_BOUNDS
from cvhw4.statistics.intervals import estimate
from tests.helpers.tiny import FULL, QUICK, record

# Three seeds whose 95 % interval is the mean -+ 2.484 times the distance of the outer two from it.
UP, DOWN, WIDE = (0.1, 0.11, 0.12), (-0.12, -0.11, -0.1), (-0.1, 0.02, 0.2)


@pytest.mark.parametrize(
    ("a", "b", "margin", "found"),
    [
        (UP, UP, 0.0, "agree"),
        (DOWN, DOWN, 0.0, "agree"),
        (UP, DOWN, 0.0, "differ"),
        (UP, WIDE, 0.0, "open, means agree"),
        (DOWN, WIDE, 0.0, "open, means differ"),
        (UP, (0.4,), 0.0, "open, means agree"),  # a single run decides nothing
        (UP, (0.4, 0.41, 0.42), 0.2, "differ"),
        ((0.0, 0.0), UP, 0.0, "open, means differ"),
    ],
)
def test_sides_of_a_margin(a, b, margin, found):
    assert sides(estimate(a), estimate(b), margin) == found


def test_order_by_hand():
    a = {"x": estimate([0.1, 0.11]), "y": estimate([0.5, 0.51]), "z": estimate([0.9, 0.91])}
    found = order(a, {"z": estimate([0.9, 0.91]), "y": estimate([0.1]), "x": estimate([0.2]), "w": estimate([1.0])})
    assert found.rows == 3 and found.tau == pytest.approx(1 / 3)  # one of three pairs is in another order
    assert found.swapped == () and found.open == 1  # of single runs
    tight = {"z": estimate([0.9, 0.901]), "y": estimate([0.1, 0.101]), "x": estimate([0.2, 0.201])}
    tighter = {row: estimate([e.mean, e.mean + 1e-6]) for row, e in a.items()}
    assert order(tighter, tight).swapped == (("y", "x"),) and order(tighter, tight).open == 0
    assert order(a, {"x": estimate([1.0])}) is None
    lower, upper = (
        {"a": estimate([0.0]), "b": estimate([-1.6e-284])},
        {"a": estimate([-1.9e-225]), "b": estimate([0.0])},
    )
    assert order(lower, upper).open == 1  # the product of their differences is too small for a float


def save(results, name, figures, study=QUICK, data="CamVid", train=10):
    """Runs of a row of segmentation on so many pictures, a seed for each mIoU, or for the mIoU of each epoch."""
    prints = f"{study.name}{data}{name}".encode().hex()[:62].ljust(62, "0")
    for seed, miou in enumerate(figures):
        epochs = miou if isinstance(miou, tuple) else (miou,)
        one = record(name, seed, figures=tuple((figure,) for figure in epochs), study=study.name)
        kind = dict(embedded=data not in ("CamVid", "a, b"), redrawn=data == REDRAWN)
        used = replace(one.data, name=data, fingerprint=data.encode().hex().ljust(64, "0"), train=train, **kind)
        whose = dict(
            settings=study.row(name).settings(), fingerprint=f"{seed:02d}{prints}", configuration=f"aa{prints}"
        )
        Store(results, study.name).save(replace(one, data=used, **whose))


def lines(page, heading):
    """The lines of a section's table by their first cell, as cells by column."""
    table = [line for line in page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


GENERATED, REDRAWN = "generated scenes (one set)", "generated scenes"
SKIPS, CLASSES = "skip connections raise mIoU", "going from 11 to 3 classes raises mIoU"


@pytest.fixture
def measured(tmp_path):
    """Skips help on generated pictures and harm on real ones; fewer classes were measured on generated ones alone."""
    for name, figures in (("q2_1a", (0.5, 0.51, 0.52)), ("q2_1b", (0.4, 0.4, 0.4)), ("q2_3", (0.8, 0.81, 0.82))):
        save(tmp_path / "results", name, figures, data=GENERATED)
    save(tmp_path / "results" / "camvid", "q2_1a", (0.2, 0.21, 0.22))
    save(tmp_path / "results" / "camvid", "q2_1b", (0.3, 0.3, 0.3))
    return tmp_path / "results"


@pytest.fixture
def page(run, tmp_path):
    """The page that the command writes of what is stored by now."""

    def written(*arguments):
        code, out, err = run("agreement", *arguments)
        assert (code, out, err) == (0, "results/agreement.md\n", "")
        return (tmp_path / "results" / "agreement.md").read_text("utf-8")

    return written


EVERY = "Every claim in every setting"


def test_the_page_sets_generated_beside_real_and_published(measured, page):
    (measured / "camvid" / "quick" / "report.md").write_text("a page")
    text = page()
    assert "| [report](camvid/quick/report.md) |" in text and text.count("](") == 1
    every = lines(text, EVERY)
    assert every[SKIPS] == {
        "claim": SKIPS,
        "figure": "mIoU",
        "real pictures": "CamVid",
        "generated, quick": "+0.110 [0.085, 0.135], 3 seeds: **supported**",
        "real, quick": "-0.090 [-0.115, -0.065], 3 seeds: **contradicted**",
        "real, full-lite0": "not measured yet",
        "real, full": "not measured yet",
        "published": "+0.024",
    }
    assert every[CLASSES]["real, quick"] == "not measured yet"
    short = lines(text, "On real pictures")
    assert short[SKIPS] == {
        "claim": SKIPS,
        "published": "+0.024",
        "closest to the publication": f"quick, {every[SKIPS]['real, quick']}",
        "pictures": "CamVid",
    }
    assert short[CLASSES]["closest to the publication"] == "not measured yet" and len(short) == len(every)
    signs = lines(text, "Signs")
    assert CLASSES not in signs and signs[SKIPS]["held against"] == "real, quick"
    assert (signs[SKIPS]["generated, quick"], signs[SKIPS]["published"]) == ("**differ**", "**other sign**")
    assert "of 2 claims, controls included, 0 agree in sign; 2 in the opposite sign: skip connections raise" in text
    assert "No two settings have 4 rows in common yet." in text and "each its own" not in text


def test_the_order_of_rows_is_held_against_that_of_every_other_setting(page, tmp_path):
    results, rows = tmp_path / "results", ("q2_1a", "q2_n1a", "q2_1b", "q2_n1b")
    for row, here, there in zip(rows, (0.5, 0.6, 0.3, 0.4), (0.3, 0.4, 0.5, 0.6), strict=True):
        save(results, row, [(0.9, here + apart) for apart in (-0.01, 0.0, 0.01)], data=GENERATED)
        save(results / "camvid", row, (there - 0.01, there, there + 0.01))
        if row != "q2_1a":
            save(results / "camvid", row, (here,), study=FULL)
    orders = lines(page(), "Order of the rows")
    assert {c["held against"] for c in orders.values()} == {"real, quick"}  # three rows have no order worth showing
    assert [orders["mIoU"][of] for of in ("tau", "rows", "open")] == ["-0.33", "4", "0"]
    assert orders["mIoU"]["swapped"] == "q2_1a-skip, q2_n1a-fused_norm above q2_1b-noskip, q2_n1b-plain_norm here alone"


def test_pictures_that_each_seed_draws_go_before_the_same_for_all(measured, page):
    """Fewer runs of them, too; what is measured on the same pictures alone stays."""
    save(measured / "redrawn", "q2_1a", (0.55, 0.65), data=REDRAWN)
    save(measured / "redrawn", "q2_1b", (0.5, 0.5), data=REDRAWN)
    text = page()
    every = lines(text, EVERY)
    assert every[SKIPS]["generated, quick"] == "+0.100 [-0.535, 0.735], 2 seeds, redrawn: **undecided**"
    assert every[CLASSES]["generated, quick"].startswith("+0.410 ")
    both = lines(text, "The same pictures for all seeds, or each its own")
    assert both[SKIPS]["the same pictures"] == "+0.110 [0.085, 0.135], 3 seeds: **supported**"
    assert both[SKIPS]["redrawn"] == "+0.100 [-0.535, 0.735], 2 seeds: **undecided**"
    assert CLASSES not in both
    low, high = ttest_rel([0.05, 0.15], [0.1, 0.11]).confidence_interval()  # seed by seed, of those that both have
    assert both[SKIPS]["redrawn less the same"] == f"-0.005 [{low:.3f}, {high:.3f}]"


def test_full_size_is_what_the_rest_is_held_against_once_it_decides(measured, page):
    for skip, noskip, full, expected in (
        ((0.45,), (0.4,), "+0.050, 1 seed: **undecided**", ("real, quick", "**other sign**", "**differ**")),
        ((0.45, 0.46), (0.4, 0.4), "+0.055 [", ("real, full", "same sign", "open, means agree")),
        ((0.4, 0.4), (0.4, 0.4), "+0.000 [", ("real, full", "-", "open, means differ")),
    ):
        save(measured, "q2_1a", skip, study=FULL)
        save(measured, "q2_1b", noskip, study=FULL)
        text = page()
        signs = lines(text, "Signs")[SKIPS]
        assert lines(text, EVERY)[SKIPS]["real, full"].startswith(full)
        short = lines(text, "On real pictures")[SKIPS]
        assert short["closest to the publication"].startswith(f"full, {full}")
        assert short["with more seeds"].startswith("quick, -0.090 ")
        assert tuple(signs[of] for of in ("held against", "published", "generated, quick")) == expected
        assert signs["real, quick" if expected[0] == "real, full" else "real, full"] == "open, means differ"
        assert lines(text, "Classes detected")["q2_1a-skip"]["real, full"] == "11 of 11"
    assert "2 with means that are not on one side, undecided: skip connections raise mIoU; " in text  # one is a tie
    save(measured / "more", "q2_1a", [0.2 + s / 1000 for s in range(10)], data="a, b")  # many seeds go before the size
    save(measured / "more", "q2_1b", [0.3] * 10, data="a, b")
    text = page()
    assert lines(text, "Signs")[SKIPS]["held against"] == "real, quick"
    assert lines(text, "On real pictures")[SKIPS]["pictures"] == "CamVid; a, b"
    assert lines(text, EVERY)[SKIPS]["real pictures"] == "a, b; CamVid"


def test_a_longer_training_is_also_held_against_as_many_steps(run, tmp_path, monkeypatch):
    results, known = tmp_path / "results", []
    monkeypatch.setattr("cvhw4.report.agreement.bounds_of", lambda study: known.append(study.name) or NO_BOUNDS)
    for name, figures in (("q2_1a", (0.3, 0.3)), ("q2_1b", (0.25, 0.25))):  # batches of 4: 5 steps
        save(results, name, figures, data=GENERATED, train=20)
    for name, figures in (("q2_1a", ((0.1, 0.2, 0.6),) * 2), ("q2_1b", ((0.1, 0.3, 0.4),) * 2)):  # 3 x 3
        save(results / "camvid", name, figures, train=9)
    assert run("agreement", "results", "--page", "page.md") == (0, "page.md\n", "")
    assert sorted(known) == ["full", "full-lite0", "quick", "quick"]  # of runs that are cut no calibration knows
    text = (tmp_path / "page.md").read_text("utf-8")
    assert lines(text, EVERY)[SKIPS]["real, quick"].startswith("+0.200 ")
    found = lines(text, "After as many optimizer steps")[SKIPS]
    assert found["generated, quick"].startswith("+0.050 ") and found["generated, quick"].endswith("(5 steps)")
    assert found["real, quick"].startswith("-0.100 ") and found["real, quick"].endswith("(6 steps)")  # the nearest


def test_a_claim_about_other_classes_is_shown_and_compared_with_nothing(page, tmp_path):
    for folder, classes in (("", None), ("ants", ["ants", "bees"])):
        for name, level in (("q1_1", 0.5), ("q1_2", 0.7), ("q1_5", 0.6)):
            for one in (record(name, s, ((level + s / 100,),)) for s in range(3)):
                data = replace(one.data, classes=classes or one.data.classes, embedded=classes is None)
                Store(tmp_path / "results" / folder, "quick").save(replace(one, data=data))
    whole_face = "the whole face in view helps the feature extractor"
    text = page()
    assert lines(text, EVERY)[whole_face]["real, quick"] == "+0.100 [0.097, 0.103], 3 seeds: **about other pictures**"
    assert whole_face not in lines(text, "Signs") and "of 1 claim, controls included, 1 agrees in sign" in text


def test_folders_without_runs_are_one_line(run, tmp_path):
    told = "no runs of quick, full-lite0, full. Fix: name the folders given as --results.\n"
    assert run("agreement", "nowhere") == (4, "", f"error: nowhere: holds {told}")
    assert run("agreement", "a", "b") == (4, "", f"error: a, b: hold {told}") and not (tmp_path / "nowhere").exists()


def test_classes_that_no_run_detects_are_named_and_what_a_study_has_not_is_not_to_be_measured_some_day(measured, page):
    one = record("q2_n1a", 0, by_class={"iou": [0.5] * 8 + [0.05, float("nan"), 0.0], "set_iou": [0.1] * 11})
    Store(measured, "quick").save(one)
    row = FULL.row("q2_n3")
    Store(measured, "full").save(replace(record("q2_3"), study="full", row=row.name, settings=row.settings()))
    text = page()
    found = lines(text, "Classes detected")
    assert found["q2_n1a-fused_norm"]["generated, quick"] == "8 of 11 (not Car; Pedestrian; Bicyclist)"
    assert found["q2_n1a-fused_norm"]["real, full"] == "not measured yet"
    assert found["q2_n3-3class_norm"]["generated, quick"] == "-"
    (claim,) = [claim.sentence for claim in QUICK.claims if claim.id == "q1_c4-pretraining"]
    assert lines(text, EVERY)[f"{claim} *(control)*"]["real, full"] == "-"


def test_runs_of_a_loop_of_ones_own_have_a_page_too(run, page, tmp_path):
    lines_of = [f"{arm},{s},{0.5 + s / 100 + (arm == 'b') / 10}" for arm in "ab" for s in range(3)]
    (tmp_path / "runs.csv").write_text("\n".join(["arm,seed,accuracy", *lines_of]) + "\n")
    judge = ("judge", "runs.csv", "--row", "arm", "--metric", "accuracy", "--better", "b", "--worse", "a")
    assert run(*judge)[0] == 0
    assert "+0.100" in lines(page("--study", "judged"), EVERY)["b beats a in accuracy"]["real, judged"]
