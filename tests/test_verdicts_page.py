"""The page of verdicts, where every figure follows from the records; runs that failed, leaks, interruptions on both."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from cvhw4.claims import CLAIMS
from cvhw4.controls import CONTROLS
from cvhw4.experiments import PROFILES
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure
from cvhw4.records.store import Store
from cvhw4.report import ablations
from cvhw4.report.failures import latest_failures
from cvhw4.report.page import write_report
from cvhw4.report.tables import by_data, origins, plain, report_page, summary
from cvhw4.report.verdicts import claims_overview, verdicts_page, write_verdicts
from cvhw4.statistics.bounds import NO_BOUNDS, calibrate
from cvhw4.statistics.comparison import rounding_sd
from cvhw4.statistics.simulation import stability
from cvhw4.statistics.verdicts import judge, judge_all, stated
from cvhw4.training.metrics import segmentation_figures
from tests.tiny import record

QUICK, FULL = PROFILES["quick"], PROFILES["full"]
SEEDS = 6
LEVEL = {"q1_1": 0.80, "q1_2": 0.90, "q1_3": 0.55, "q1_5": 0.80, "q1_6": 0.89, "q1_8": 0.92, "q1_c8": 0.55}
SHARE = {"q2_1a": 0.60, "q2_1b": 0.40, "q2_3": 0.70, "q2_c3": 0.80, "q2_n1a": 0.75, "q2_n1b": 0.55}


def run(experiment, seed, level=None):
    """A run whose figures are those of the images it comes with."""
    random = np.random.RandomState([seed, *experiment.row.encode()])
    if experiment.question == "q1":
        level = LEVEL.get(experiment.row, 0.85) if level is None else level
        images = ImageResults.of_two_classes(right=random.rand(3, 80) < level, labels=np.arange(80, dtype=np.uint8) % 2)
        figures = tuple((float(images.figure("accuracy", e)),) for e in (1, 2, 3))
    else:
        images = ImageResults(counts=scenes(random, SHARE.get(experiment.row, 0.5), experiment.classes))
        by_epoch = [segmentation_figures(counts.sum(1)) for counts in images.counts]
        figures = tuple(tuple(float(v) for v in f.values()) for f in by_epoch)
    made = record("q1_2" if experiment.question == "q1" else "q2_1a", seed, figures)
    data = replace(made.data, name=f"embedded {experiment.question}", fingerprint=experiment.question * 32, val=80)
    return replace(
        made,
        row=experiment.row,
        id=experiment.id,
        fingerprint=f"{experiment.id}{seed}".encode().hex().ljust(64, "0")[-64:],
        study=experiment.id.encode().hex().ljust(64, "0")[:64],
        settings=experiment.settings(),
        data=data,
        by_class={name: values[: experiment.classes] for name, values in made.by_class.items()},
    ), images


def scenes(random, share, classes):
    """Counts [2, 10, 2, 12, C] of a network that meets a share of the pixels, more of them in the second epoch, and
    takes the others for the next class."""
    labels = np.random.RandomState(0).randint(5, 40, (10, 2, 12))  # the same images for every network
    counts = np.zeros((2, 10, 2, 12, classes), np.uint32)
    target = np.arange(12) % classes if classes == 11 else np.array([0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1])
    for epoch in range(2):
        met = random.binomial(labels, share * (0.8, 1)[epoch])
        for label in range(12):
            counts[epoch, :, :, label, target[label]] += met[..., label].astype(np.uint32)
            counts[epoch, :, :, label, (target[label] + 1) % classes] += (labels - met)[..., label].astype(np.uint32)
    return counts


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six seeds of every row, three of a control, on disk."""
    made = Store(tmp_path_factory.mktemp("results"), "quick")
    for experiment in QUICK.rows:
        for seed in range(SEEDS):
            made.save(*run(experiment, seed))
    for seed in range(3):
        made.save(*run(CONTROLS[0].experiment(QUICK, 0.2), seed, level=0.5))
    return made


@pytest.fixture(scope="module")
def page(store):
    records = store.load()
    return write_verdicts(QUICK, store, calibrate(QUICK, records)).read_text("utf-8")


def section(text, title):
    return next(part for part in text.split("\n## ") if part.startswith(title))


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_every_part(page):
    titles = re.findall(r"^## (.*)$", page, re.M)
    assert titles == [
        "The claims",
        "What the report's own runs could show",
        "Skip connections: spatial detail, or a network that is hard to train? (embedded q2)",
        "From 11 to 3 classes: where the rise of the mIoU comes from (embedded q2)",
        "The better recipe: network, optimizer or augmentation? (embedded q1)",
        "Best epoch against last epoch: how much is selection",
        "Two sources of noise: the seed, and the validation images",
        "The comparisons in full",
        "Would 5 seeds have been enough?",
        "How often verdicts are wrong",
        "Negative controls: how little sabotage the bounds notice",
        "The bounds on runs they were not made of",
    ]


def test_a_claims_line_is_its_runs(page, store):
    records = store.load()
    claim = CLAIMS[0]
    outcome = next(o for o in judge_all(QUICK, records, store.images) if o.claim == claim)
    by = {row: [r.best("accuracy") for r in records if r.row == row] for row in claim.rows}
    expected = np.mean(by["q1_2"]) - np.mean(by["q1_1"])
    line = cells(section(page, "The claims"), claim.sentence)
    assert line[2] == "+0.0450" and line[3] == "undecided (p 0.072)"
    assert line[4] == f"{expected:+.4f}" and line[6] == str(SEEDS) and line[7] == f"**{outcome.verdict}**"
    both = outcome.with_other_images.estimate
    assert line[8] in (f"[{both.low:.4f}, {both.high:.4f}]", "as wide")
    assert both.high - both.low >= outcome.difference.high - outcome.difference.low


def test_what_the_reports_single_runs_could_show():
    verdicts = {c.id: stated(c, FULL.rows) for c in CLAIMS}
    # standard errors of 0.875, 0.83 and 0.7175 over 400 images: 0.0165, 0.0188, 0.0225
    assert verdicts["q1_4-finetune_above_features"].verdict == "undecided"
    assert verdicts["q1_4-finetune_above_features"].p_value == pytest.approx(0.0717, abs=5e-4)
    assert verdicts["q1_4-features_above_scratch"].verdict == "supported"
    assert verdicts["q1_9-passes_0.895"].verdict == "undecided"  # 363 of 400 against 0.895
    assert verdicts["q2_2-skip_miou"].verdict is None
    assert verdicts["q2_2-skip_miou"].difference == pytest.approx(0.4295 - 0.4055)
    assert np.isnan(verdicts["q1_7-whole_face_features"].difference)  # no figures in the surviving pages
    assert np.isnan(verdicts["q2_c2-norm_interaction"].difference)


def test_the_parts_of_the_rise_add_up_on_the_page(page, store):
    table = section(page, "From 11 to 3 classes")
    for column in (1, 2):
        numbers = [
            float(cells(table, start)[column].split()[0]) for start in ("(a)", "(b)", "(c)", "(d)", "**the whole")
        ]
        assert sum(numbers[:4]) == pytest.approx(numbers[4], abs=3e-4)
    rise = [
        np.mean([r.best("miou") for r in store.load() if r.row == "q2_c3"])
        - np.mean([r.best("miou") for r in store.load() if r.row == "q2_1a"])
    ]
    assert float(cells(table, "**the whole")[2].split()[0]) == pytest.approx(rise[0], abs=1e-4)
    training = float(cells(table, "(c)")[2].split()[0])
    assert f" and {100 * (1 - training / rise[0]):.0f} % with skips needs no training on 3 classes" in table
    picture = store.folder / "figures" / "decomposition-embedded-q2.svg"
    assert picture.read_text().startswith("<svg") and "(figures/decomposition-embedded-q2.svg)" in table


def test_the_interaction_of_skips_and_batch_norm_is_the_difference_of_gains(page, store):
    table = section(page, "Skip connections")
    gains = [cells(table, f"{mode} ")[4] for mode in ("initial", "train")]
    assert gains[0].startswith("+") and gains[1].startswith("+")
    expected = float(gains[0].split()[0]) - float(gains[1].split()[0])
    crossed = cells(table, "mIoU (template)")  # the second table: the first has the mode before it
    assert [float(cell.split()[0]) for cell in crossed[1:3]] == [float(g.split()[0]) for g in gains]
    assert float(crossed[3].split()[0]) == pytest.approx(expected, abs=2e-4)


def test_a_place_that_neither_network_ever_meets_says_nothing():
    assert ablations._found("IoU of thin classes", [0.0, 0.0], [0.0, 0.0]).startswith("never met")
    assert ablations._found("IoU of thin classes", [0.1, 0.1], [0.0, 0.0]).startswith("+0.1000")


def test_the_share_of_errors_removed_is_what_it_says():
    # 0.5 to 0.7 near contours: 0.2 of 0.5 errors; 0.9 to 0.98 away: 0.08 of 0.1
    text = ablations._answer("train", [0.7, 0.7], [0.5, 0.5], [0.98, 0.98], [0.9, 0.9])
    assert "skips bring +0.1200 [0.1200, 0.1200] more" in text and "40 points smaller" in text and "disagree" in text
    agreed = ablations._answer("initial", [0.9, 0.9], [0.5, 0.5], [0.91, 0.91], [0.9, 0.9])
    assert "70 points larger" in agreed and agreed.endswith("largest at contours.")


def test_guarded_are_claims_that_a_nightly_session_checks_and_its_bounds_promise(page, store):
    bounds = calibrate(QUICK, store.load())
    table = section(page, "The claims")
    for claim in CLAIMS:
        if claim.worse is not None:
            expected = claim.id != "q1_c4-pretraining" and bounds.guards(claim)  # one of its rows is an extra one
            assert cells(table, claim.sentence)[9] == ("yes" if expected else "no"), claim.id


def test_controls_are_on_the_page_with_the_bound_that_noticed(page):
    line = cells(section(page, "Negative controls"), "20% of the training labels")
    assert line[1] == "q1_6" and line[6] == "yes" and float(line[7].split()[0]) > 0.9 and "(least)" in line[0]


def test_five_of_six_seeds_are_drawn_in_all_six_ways(page, store):
    table = section(page, "Would 5 seeds")
    assert "embedded q1, all 6 draws of 5 of 6 seeds" in table
    records = [r for r in store.load() if r.question == "q1"]
    family = [o for o in judge_all(QUICK, records) if len(o.seeds) == SEEDS]
    floor = rounding_sd(1 / 80)
    (same, undecided, opposite), *_ = (
        (s.same, s.undecided, s.opposite)
        for s in stability([o.differences for o in family], 0.0, np.random.default_rng(1), floors=floor)
    )
    line = cells(table, family[0].claim.id)
    assert line[2:] == [f"{100 * x:.1f} %" for x in (same, undecided, opposite)]


def test_without_images_the_rest_of_the_page_stands(store):
    records = [replace(r, images=None) for r in store.load()]
    text, pictures = verdicts_page(QUICK, records, store.images, calibrate(QUICK, records))
    assert "## The claims" in text and "## The better recipe" in text
    assert "## Skip connections" not in text and not pictures
    assert cells(section(text, "The claims"), CLAIMS[0].sentence)[8] == "-"


def test_claims_about_differences_of_differences(store):
    claim = next(c for c in CLAIMS if c.id == "q2_c2-norm_interaction")
    records = store.load()
    outcome = judge(claim, records)
    by = {(r.row, r.seed): r.best("miou") for r in records if r.question == "q2"}
    expected = [(by["q2_1a", s] - by["q2_1b", s]) - (by["q2_n1a", s] - by["q2_n1b", s]) for s in range(SEEDS)]
    assert outcome.differences == pytest.approx(tuple(expected))
    assert outcome.difference.mean == pytest.approx(np.mean(expected))


def test_verdicts_are_stricter_together_than_alone(store):
    records = store.load()
    together = {o.claim.id: o for o in judge_all(QUICK, records)}
    for claim in CLAIMS:
        alone = judge(claim, records)
        if alone is not None:
            assert together[claim.id].adjusted_p >= alone.adjusted_p == alone.comparison.p_value


def test_ten_thousand_records_are_judged_in_ten_seconds():
    rows = [e for e in QUICK.rows if e.group == "report"]
    random = np.random.RandomState(0)
    records = [
        replace(
            record(e.row, seed, figures=((float(random.normal(0.5 + 0.02 * i, 0.02)),),)),
            data=replace(record(e.row).data, fingerprint=e.question * 32),
        )
        for i, e in enumerate(rows)
        for seed in range(10_000 // len(rows) + 1)
    ]
    assert len(records) >= 10_000
    started = time.process_time()
    outcomes = judge_all(QUICK, records)
    claims_overview(outcomes, FULL.rows, ())
    assert time.process_time() - started < 10
    nightly = {e.row for e in rows}
    assert len(outcomes) == len([c for c in CLAIMS if c.worse and nightly.issuperset(c.rows)])


def test_data_that_changed_under_one_name_are_two_data_sets(store):
    """Half a row's runs on other pictures: nothing is compared across, and the page tells the two apart."""
    records = []
    for r in store.load():
        if r.row == "q2_3" or (r.row == "q1_2" and r.seed > 2):
            r = replace(r, data=replace(r.data, fingerprint="ab12cd" + r.question * 29))
        records.append(r)
    text, pictures = verdicts_page(QUICK, records, store.images, calibrate(QUICK, store.load()))
    assert cells(section(text, "The claims"), CLAIMS[0].sentence)[6] == "3"
    assert "embedded q2 ab12cd" in text and "embedded q1 ab12cd" in text
    assert "without skips" not in section(text, "From 11 to 3 classes").split("|")[2]
    assert [p.stem for p in pictures] == [f"decomposition-embedded-q2-{'q2' * 3}"]


def test_one_seed_says_so(store):
    text, _ = verdicts_page(QUICK, [r for r in store.load() if r.seed == 0], store.images, NO_BOUNDS)
    assert "one seed tells no spread" in text and "The comparisons in full" not in text
    assert " -]" not in text and re.search(r"[+-]0\.\d{4} -( |$)", text, re.M) is None


def test_a_page_of_rows_without_claims_says_so(store):
    text, _ = verdicts_page(QUICK, [r for r in store.load() if r.row == "q1_3"], store.images, NO_BOUNDS)
    assert "No claim has runs of all its rows yet." in text and "How often verdicts are wrong" not in text


# Runs that failed, leaks, interruptions


def failure(name="q1_2", seed=1, **changes):
    """The note of a failed run, of the same study as `record(name)`."""
    made = record(name, seed)
    same = {k: getattr(made, k) for k in ("row", "id", "profile", "seed", "fingerprint", "study", "environment")}
    where = dict(epoch=2, step=7, lr=0.0005, reason="the loss became NaN", checkpoint="seed1-6162.safetensors")
    return Failure(**(same | where | dict(data=made.data.name, started=made.started) | changes))


def test_a_row_whose_every_run_failed_is_failed_not_missing():
    text = report_page(QUICK, [record("q1_1")], None, {}, [failure("q1_2", 0), failure("q1_2", 1)])
    of_accuracy, of_failures = (
        section(text.replace("\n### ", "\n## "), title) for title in ("Accuracy", "Failed runs")
    )
    line = cells(of_accuracy, "q1_2-finetune")
    assert line[6] == "**failed**" and line[10] == "0.8750" and line[12] == "0 (2 of 2 seeds failed)"
    assert cells(of_accuracy, "q1_1-features")[12] == "1"
    reason = ["q1_2-finetune", "0", "2", "7", "0.0005", "the loss became NaN", "seed1-6162.safetensors"]
    assert cells(of_failures, "q1_2-finetune") == reason
    assert "| q1_2-finetune" not in section(text, "Rows without a run")


def test_a_mean_over_survivors_says_how_many_failed():
    survivors = [record("q1_2", seed=s) for s in (0, 2)]
    text = report_page(QUICK, survivors, None, {}, [failure()])
    assert cells(text, "q1_2-finetune")[12] == "2 (1 of 3 seeds failed)" and "finished is biased" in text
    untouched = report_page(QUICK, survivors, None, {})
    assert "failed" not in untouched and "biased" not in untouched
    older = report_page(QUICK, [replace(r, study="o" * 64) for r in survivors], None, {}, [failure()])
    assert cells(older, "q1_2-finetune")[12] == "2 (1 of 1 seeds failed since)"


def test_what_is_not_known_of_a_failure_is_left_open():
    text = report_page(QUICK, [], None, {}, [failure("q2_1a", epoch=0, step=0, lr=0.0, checkpoint=None)])
    assert cells(text.split("### Failed runs")[1], "q2_1a-skip")[2:] == ["-", "-", "-", "the loss became NaN", "none"]
    assert "No run has finished on these data." in text and "### Weights" not in text


def test_failures_of_an_older_study_are_left_out():
    old, new = failure(study="o" * 64, started="2026-11-22T10:00:00+00:00"), failure(seed=2)
    elsewhere = failure(data="hymenoptera", study="h" * 64, started="2026-11-22T10:00:00+00:00")
    assert latest_failures([record("q1_2")], [old, new, elsewhere]) == [new, elsewhere]
    assert latest_failures([], [old, new]) == [new]
    again = replace(record("q1_2"), study="n" * 64, started="2026-11-24T10:00:00+00:00")
    assert latest_failures([again], [old, new]) == []


def test_both_pages_read_the_failures_that_are_stored(store, tmp_path):
    made = Store(tmp_path, "quick")
    for r in store.load():
        if r.row in ("q1_1", "q1_2", "q1_3") and r.seed < 3:
            made.save(replace(r, images=None))
    (whole,) = (r for r in made.load() if r.row == "q1_2" and r.seed == 0)
    lost = dict(study=whole.study, fingerprint="f" * 64, data=whole.data.name)
    made.fail(failure("q1_2", 3, **lost))
    page = write_report(QUICK, made, None, {}).read_text("utf-8")
    assert cells(page, "q1_2-finetune")[12] == "3 (1 of 4 seeds failed)"
    table = section(write_verdicts(QUICK, made, NO_BOUNDS).read_text("utf-8"), "The claims")
    with_failed, without = CLAIMS[0], CLAIMS[1]
    assert with_failed.rows == ("q1_2", "q1_1") and without.rows == ("q1_1", "q1_3")
    assert cells(table, with_failed.sentence)[6] == "3, others failed"
    assert f"- {with_failed.sentence}: 1 of 4 seeds failed in q1_2 on embedded q1." in table
    assert cells(table, without.sentence)[6] == "3" and f"- {without.sentence}" not in table
    assert "finished is biased" in table


def test_the_terminals_table_shows_failures_in_80_columns():
    runs, failures = [record("q1_2"), record("q2_c3")], [failure(), failure("q2_3", 0), failure("q2_c3")]
    (groups,) = by_data(runs, failures).values()
    table = summary(groups, QUICK.rows, None, failures)
    assert list(zip(table["row"], table["n"], table["bounds"], strict=True)) == [
        ("q1_2-finetune", "1", "FAILED"),
        *[("q2_3-3class", "0", "FAILED")] * 2,
        *[("q2_c3-3class_fused", "1", "FAILED")] * 2,
    ]
    assert set(summary(groups, QUICK.rows, None)["bounds"]) == {"none"}
    lines = plain(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert list(by_data([], failures).values()) == [{}] and origins({}) == []


LEAKS = [f"train/{i}.jpg = val/{i}.png" for i in range(4)]


@pytest.mark.parametrize(
    ("leaks", "line"),
    [
        (LEAKS[:1], "1 validation picture is a training picture too, so validation figures are too good: {}."),
        (LEAKS[:2], "2 validation pictures are training pictures too, so validation figures are too good: {}."),
        (LEAKS, "4 validation pictures are training pictures too, so validation figures are too good: {}, ...."),
    ],
)
def test_leaks_stand_wherever_figures_of_their_data_do(leaks, line, store):
    told = line.format(", ".join(leaks[:3]))
    leaky = [replace(r, data=replace(r.data, leaks=leaks)) for r in (record("q2_1a"), record("q2_1b"))]
    text = report_page(QUICK, [*leaky, record("q1_2")], None, {})
    q1, q2 = text.split("## Q2")
    # mIoU, pixel accuracy, claims, two conventions, IoU by class
    assert q2.count(told) == 5 and told not in q1
    assert origins({"q2_1a": leaky})[-1] == told and told not in "".join(origins({"q1_2": [record("q1_2")]}))


def test_leaks_stand_below_the_tables_of_verdicts(store):
    records = [r for r in store.load() if r.seed < 2]
    leaky = [replace(r, data=replace(r.data, leaks=LEAKS)) if r.question == "q2" else r for r in records]
    text, _ = verdicts_page(QUICK, leaky, store.images, NO_BOUNDS)
    line = "4 validation pictures are training pictures too"
    for title in ("The claims", "Skip connections", "From 11 to 3", "Best epoch", "Two sources of noise"):
        assert section(text, title).count(line) == 1, title
    assert f"embedded q2: {line}" in section(text, "The claims") and line not in section(text, "The better recipe")
    assert line not in verdicts_page(QUICK, records, store.images, NO_BOUNDS)[0]


def test_different_code_is_told_of_below_the_tables_of_its_data(store):
    def coded(r):
        return replace(r, environment=r.environment | {"code": ("b" if r.row == "q2_1b" else "a") * 64})

    records = [r for r in store.load() if r.seed < 2]
    text, _ = verdicts_page(QUICK, list(map(coded, records)), store.images, NO_BOUNDS)
    line = f"Rows were run by different versions of the code: {'a' * 12} (q2_1a, "
    for title in ("The claims", "Skip connections", "From 11 to 3", "Best epoch", "Two sources of noise"):
        assert section(text, title).count(line) == 1, title
    assert f"embedded q2: {line}" in section(text, "The claims") and line not in section(text, "The better recipe")
    assert "versions of the code" not in verdicts_page(QUICK, records, store.images, NO_BOUNDS)[0]


def test_continued_runs_are_counted_below_their_times():
    runs = [record("q1_2", seed=s) for s in range(3)] + [record("q1_1")]
    runs[1:3] = [replace(r, times=replace(r.times, interruptions=2)) for r in runs[1:3]]
    text = report_page(QUICK, runs, None, {})
    cost = text.split("### Weights, time and memory")[1]
    assert "Continued after an interruption: 2 of 3 runs of q1_2-finetune. Their times" in cost
    assert "interruption" not in report_page(QUICK, runs[:1], None, {})


def test_two_data_sets_never_share_a_picture(store):
    """Names that are the same but for signs that no file name should have."""
    records = [r for r in store.load() if r.row in ("q2_1b", "q2_3") and r.seed == 0]
    records += [
        replace(r, study="n" * 64, data=replace(r.data, name="Embedded/q2", fingerprint="ab12cd" + "0" * 58))
        for r in records
    ]
    _, pictures = verdicts_page(QUICK, records, store.images, NO_BOUNDS)
    stems = [f"decomposition-embedded-q2-{'q2' * 3}", "decomposition-embedded-q2-ab12cd"]
    assert [p.stem for p in pictures] == stems
