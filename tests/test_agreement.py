"""Whether generated pictures answer a study's claims as real ones do: the page and what it is made of."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import kendalltau, ttest_ind

from cvhw4.records.store import Store
from cvhw4.statistics.agreement import order, sides
from cvhw4.statistics.intervals import estimate
from tests.helpers.tiny import FULL, QUICK, record

# Three seeds whose 95 % interval is the mean -+ 2.484 times the distance of the outer two from it.
UP, DOWN, WIDE = (0.1, 0.11, 0.12), (-0.12, -0.11, -0.1), (-0.1, 0.02, 0.2)
finite = st.floats(-1, 1)


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


@given(st.lists(finite, min_size=1, max_size=5), st.lists(finite, min_size=1, max_size=5), finite)
def test_sides_are_the_same_either_way_round(a, b, margin):
    assert sides(estimate(a), estimate(b), margin) == sides(estimate(b), estimate(a), margin)


def test_order_by_hand():
    a = {"x": estimate([0.1, 0.11]), "y": estimate([0.5, 0.51]), "z": estimate([0.9, 0.91])}
    found = order(a, {"z": estimate([0.9, 0.91]), "y": estimate([0.1]), "x": estimate([0.2]), "w": estimate([1.0])})
    assert found.rows == 3 and found.tau == pytest.approx(1 / 3)  # one of three pairs is in another order
    assert found.swapped == () and found.open == 1  # of single runs
    tight = {"z": estimate([0.9, 0.901]), "y": estimate([0.1, 0.101]), "x": estimate([0.2, 0.201])}
    tighter = {row: estimate([e.mean, e.mean + 1e-6]) for row, e in a.items()}
    assert order(tighter, tight).swapped == (("y", "x"),) and order(tighter, tight).open == 0
    assert order(a, {"x": estimate([1.0])}) is None


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=8, unique_by=(lambda p: p[0], lambda p: p[1])))
@example([(0.0, -1.9e-225), (1.0, 1.0), (-1.6e-284, 0.0)])  # whose product is too small for a float
def test_order_counts_the_pairs_that_kendalls_tau_counts(pairs):
    a, b = ({str(i): estimate([p[side]]) for i, p in enumerate(pairs)} for side in (0, 1))
    found, total = order(a, b), len(pairs) * (len(pairs) - 1) / 2
    assert found.tau == pytest.approx(1 - 2 * found.open / total)
    assert found.tau == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic)


def save(results, name, figures, study=QUICK, data="CamVid", embedded=False, train=10, redrawn=False):
    """Runs of a row of segmentation on so many pictures, a seed for each mIoU, or for the mIoU of each epoch."""
    settings = study.row(name).settings()
    for seed, miou in enumerate(figures):
        epochs = miou if isinstance(miou, tuple) else (miou,)
        one = record(name, seed, figures=tuple((figure,) for figure in epochs))
        prints = data.encode().hex().ljust(64, "0")
        used = replace(one.data, name=data, embedded=embedded, fingerprint=prints, train=train, redrawn=redrawn)
        prints = f"{study.name}{embedded}{data}{name}".encode().hex()
        Store(results, study.name).save(
            replace(
                one,
                study=study.name,
                settings=settings,
                data=used,
                fingerprint=(f"{seed:02d}" + prints)[:64].ljust(64, "0"),
                configuration=prints[:64].ljust(64, "0"),
            )
        )


def lines(page, heading):
    """The lines of a section's table by their first cell, as cells by column."""
    table = [line for line in page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


SKIPS, CLASSES = "skip connections raise mIoU", "going from 11 to 3 classes raises mIoU"


@pytest.fixture
def measured(tmp_path):
    """Skips help on generated pictures and harm on real ones; fewer classes were measured on generated ones alone."""
    save(tmp_path / "results", "q2_1a", (0.5, 0.51, 0.52), data="embedded scenes", embedded=True)
    save(tmp_path / "results", "q2_1b", (0.4, 0.4, 0.4), data="embedded scenes", embedded=True)
    save(tmp_path / "results", "q2_3", (0.8, 0.81, 0.82), data="embedded scenes", embedded=True)
    save(tmp_path / "results" / "camvid", "q2_1a", (0.2, 0.21, 0.22))
    save(tmp_path / "results" / "camvid", "q2_1b", (0.3, 0.3, 0.3))
    return tmp_path / "results"


def test_the_page_sets_generated_beside_real_and_published(run, measured):
    code, out, err = run("agreement")
    assert (code, out, err) == (0, "results/agreement.md\n", "")
    page = (measured / "agreement.md").read_text("utf-8")
    every = lines(page, "Every claim in every setting")
    assert every[SKIPS] == {
        "claim": SKIPS,
        "figure": "mIoU",
        "real pictures": "CamVid",
        "generated, quick": "+0.110 [0.085, 0.135], 3 seeds: **supported**",
        "real, quick": "-0.090 [-0.115, -0.065], 3 seeds: **contradicted**",
        "real, full": "not measured yet",
        "published": "+0.024",
    }
    assert every[CLASSES]["real, quick"] == "not measured yet"
    signs = lines(page, "Signs")[SKIPS]
    assert (signs["held against"], signs["generated, quick"], signs["published"]) == (
        "real, quick",
        "**differ**",
        "**other sign**",
    )
    assert CLASSES not in lines(page, "Signs")
    assert (
        "- **generated, quick**: of 2 claims, controls included, 0 agree in sign; 2 in the opposite sign: "
        "skip connections raise mIoU;" in page
    )
    assert "No two settings have 4 rows in common yet." in page and "each its own" not in page


def test_the_order_of_rows_is_held_against_that_of_every_other_setting(run, tmp_path):
    results, rows = tmp_path / "results", ("q2_1a", "q2_n1a", "q2_1b", "q2_n1b")
    for row, here, there in zip(rows, (0.5, 0.6, 0.3, 0.4), (0.3, 0.4, 0.5, 0.6), strict=True):
        save(results, row, (here - 0.01, here, here + 0.01), data="embedded scenes", embedded=True)
        save(results / "camvid", row, (there - 0.01, there, there + 0.01))
        if row != "q2_1a":
            save(results / "camvid", row, (here,), study=FULL)
    assert run("agreement")[0] == 0
    orders = lines((results / "agreement.md").read_text("utf-8"), "Order of the rows")
    assert {c["held against"] for c in orders.values()} == {"real, quick"}  # three rows have no order worth showing
    assert (orders["mIoU"]["tau"], orders["mIoU"]["rows"], orders["mIoU"]["open"]) == ("-0.33", "4", "0")
    assert orders["mIoU"]["swapped"] == "q2_1a-skip, q2_n1a-fused_norm above q2_1b-noskip, q2_n1b-plain_norm here alone"


def test_pictures_that_each_seed_draws_go_before_the_same_for_all(run, measured):
    """Fewer runs of them, too; what is measured on the same pictures alone stays."""
    save(measured / "redrawn", "q2_1a", (0.55, 0.65), data="embedded scenes, redrawn", embedded=True, redrawn=True)
    save(measured / "redrawn", "q2_1b", (0.5, 0.5), data="embedded scenes, redrawn", embedded=True, redrawn=True)
    assert run("agreement")[0] == 0
    page = (measured / "agreement.md").read_text("utf-8")
    every = lines(page, "Every claim in every setting")
    assert every[SKIPS]["generated, quick"] == "+0.100 [-0.535, 0.735], 2 seeds, redrawn: **undecided**"
    assert every[CLASSES]["generated, quick"].startswith("+0.410 ")
    both = lines(page, "The same pictures for all seeds, or each its own")
    assert both[SKIPS]["the same pictures"] == "+0.110 [0.085, 0.135], 3 seeds: **supported**"
    assert both[SKIPS]["redrawn"] == "+0.100 [-0.535, 0.735], 2 seeds: **undecided**"
    assert CLASSES not in both
    low, high = ttest_ind([0.05, 0.15], [0.1, 0.11, 0.12], equal_var=False).confidence_interval()
    assert both[SKIPS]["redrawn less the same"] == f"-0.010 [{low:.3f}, {high:.3f}]"


def test_full_size_is_what_the_rest_is_held_against_once_it_is_there(run, measured):
    save(measured, "q2_1a", (0.45,), study=FULL)
    save(measured, "q2_1b", (0.4,), study=FULL)
    assert run("agreement", "results", "--page", "page.md")[0] == 0
    page = (measured.parent / "page.md").read_text("utf-8")
    assert lines(page, "Every claim in every setting")[SKIPS]["real, full"] == "+0.050, 1 seed: **undecided**"
    signs = lines(page, "Signs")[SKIPS]
    assert signs["held against"] == "real, quick" and signs["published"] == "**other sign**"  # one run decides nothing
    assert signs["generated, quick"] == "**differ**" and signs["real, full"] == "open, means differ"
    save(measured, "q2_1a", (0.45, 0.46), study=FULL)
    save(measured, "q2_1b", (0.4, 0.4), study=FULL)
    assert run("agreement", "results", "--page", "page.md")[0] == 0
    signs = lines((measured.parent / "page.md").read_text("utf-8"), "Signs")[SKIPS]
    assert signs["held against"] == "real, full" and signs["published"] == "same sign"
    assert signs["generated, quick"] == "open, means agree" and signs["real, quick"] == "open, means differ"
    assert lines(page, "Classes detected")["q2_1a-skip"]["real, full"] == "11 of 11"


def test_a_longer_training_is_also_held_against_as_many_steps(run, tmp_path):
    results = tmp_path / "results"
    for name, figures in (("q2_1a", ((0.1, 0.3),) * 2), ("q2_1b", ((0.2, 0.25),) * 2)):  # batches of 4: 2 x 2 steps
        save(results, name, figures, data="embedded scenes", embedded=True, train=8)
    for name, figures in (("q2_1a", ((0.1, 0.2, 0.6),) * 2), ("q2_1b", ((0.1, 0.3, 0.4),) * 2)):  # 3 x 3
        save(results / "camvid", name, figures, train=9)
    run("agreement")
    page = (results / "agreement.md").read_text("utf-8")
    assert lines(page, "Every claim in every setting")[SKIPS]["real, quick"].startswith("+0.200 ")
    found = lines(page, "After as many optimizer steps")[SKIPS]
    assert found["generated, quick"].startswith("+0.050 ") and found["generated, quick"].endswith("(4 steps)")
    assert found["real, quick"].startswith("+0.000 ") and found["real, quick"].endswith("(3 steps)")


def test_classes_that_no_run_detects_are_named(run, measured):
    one = record("q2_n1a", 0, by_class={"iou": [0.5] * 8 + [0.05, float("nan"), 0.0], "set_iou": [0.1] * 11})
    Store(measured, "quick").save(one)
    run("agreement")
    found = lines((measured / "agreement.md").read_text("utf-8"), "Classes detected")["q2_n1a-fused_norm"]
    assert found["generated, quick"] == "8 of 11 (not Car, Pedestrian, Bicyclist)"
    assert found["real, quick"] == "not measured yet"


def test_folders_without_runs_are_one_line(run, tmp_path):
    code, out, err = run("agreement", "nowhere")
    assert (code, out) == (
        4,
        "",
    ) and err == "error: nowhere: holds no runs. Fix: name the folders given as --results.\n"
    assert not (tmp_path / "nowhere").exists()


def test_what_a_study_does_not_have_is_not_said_to_be_measured_some_day(run, measured):
    save(measured, "q2_n1b", (0.4,))
    row = FULL.row("q2_n3")
    one = record("q2_3", study="full", settings=row.settings(), configuration="a" * 64)
    Store(measured, "full").save(replace(one, row=row.name))
    assert run("agreement")[0] == 0
    page = (measured / "agreement.md").read_text("utf-8")
    (claim,) = [claim.sentence for claim in QUICK.claims if claim.id == "q1_c4-pretraining"]
    assert lines(page, "Every claim in every setting")[f"{claim} *(control)*"]["real, full"] == "-"
    found = lines(page, "Classes detected")
    assert found["q2_n1b-plain_norm"]["real, full"] == "not measured yet"
    assert found["q2_n3-3class_norm"]["generated, quick"] == "-"


def test_runs_of_a_loop_of_ones_own_have_a_page_too(run, tmp_path):
    lines_of = [f"{arm},{s},{0.5 + s / 100 + (arm == 'b') / 10}" for arm in "ab" for s in range(3)]
    (tmp_path / "runs.csv").write_text("\n".join(["arm,seed,accuracy", *lines_of]) + "\n")
    judge = ("judge", "runs.csv", "--row", "arm", "--metric", "accuracy", "--better", "b", "--worse", "a")
    assert run(*judge)[0] == 0
    code, _, err = run("agreement", "--study", "judged")
    assert code == 0, err
    page = (tmp_path / "results" / "agreement.md").read_text("utf-8")
    assert "+0.100" in lines(page, "Every claim in every setting")["b beats a in accuracy"]["real, judged"]
