"""The page of verdicts: every figure follows from the records. The homework's sections, and a study without any."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import cvhw4
from cvhw4 import Claim, InputError, Row, Study
from cvhw4.homework import sections
from cvhw4.metrics import segmentation_figures
from cvhw4.records.images import ImageResults
from cvhw4.records.store import Store
from cvhw4.report.evidence import Evidence
from cvhw4.report.numbers import verdict
from cvhw4.report.page import write_pages, write_report
from cvhw4.report.reliability import shape_section, stability_section
from cvhw4.report.results import report_page
from cvhw4.report.stored import Stored
from cvhw4.report.summary import session_summary
from cvhw4.report.verdicts import verdicts_page, write_verdicts
from cvhw4.statistics.bounds import NO_BOUNDS, Bounds, Outliers, digest
from cvhw4.statistics.calibration import calibrate
from cvhw4.statistics.comparison import rounding_sd
from cvhw4.statistics.images import combine, image_noise
from cvhw4.statistics.power import smallest_effect
from cvhw4.statistics.published import Stated, binomial_comparison
from cvhw4.statistics.stability import stability
from cvhw4.statistics.verdicts import families, judge, judge_all
from tests.helpers.pages import cells, section
from tests.helpers.tiny import MERGED, QUICK, failure, record, two_classes

SEEDS = 6
CLAIMS = {claim.id: claim for claim in QUICK.claims}
FIRST = CLAIMS["q1_4-finetune_above_features"]
LEVEL = {"q1_1": 0.80, "q1_2": 0.90, "q1_3": 0.55, "q1_5": 0.80, "q1_6": 0.89, "q1_8": 0.92, "q1_c8": 0.55}
SHARE = {"q2_1a": 0.60, "q2_1b": 0.40, "q2_3": 0.70, "q2_c3": 0.80, "q2_n1a": 0.75, "q2_n1b": 0.55}


def run(row, seed, level=None):
    """A run whose figures are those of the images it comes with."""
    random = np.random.RandomState([seed, *row.name.encode()])
    short, task = row.name.split("-")[0], row.task.name
    if task == "classification":
        level = LEVEL.get(short, 0.85) if level is None else level
        images = two_classes(right=random.rand(3, 80) < level, labels=np.arange(80, dtype=np.uint8) % 2)
        figures = tuple((float(images.figure("accuracy", e)),) for e in (1, 2, 3))
    else:
        targets = MERGED[row.classes].targets
        images = ImageResults(counts=scenes(random, SHARE.get(short, 0.5), row.classes), targets=targets)
        by_epoch = [segmentation_figures(counts.sum(1), targets=targets) for counts in images.counts]
        figures = tuple(tuple(float(v) for v in f.values()) for f in by_epoch)
    made = record("q1_2-finetune" if task == "classification" else "q2_1a-skip", seed, figures)
    print_ = task.encode().hex()[:6] * 11
    data = replace(made.data, name=f"embedded {task}", fingerprint=print_[:64], val=80)
    return replace(
        made,
        row=row.name,
        fingerprint=f"{row.name}{seed}".encode().hex().ljust(64, "0")[-64:],
        configuration=row.name.encode().hex().ljust(64, "0")[:64],
        settings=row.settings(),
        data=data,
        by_class={name: values[: row.classes] for name, values in made.by_class.items()},
    ), images


def scenes(random, share, classes):
    """Counts [2, 10, 2, 12, C] of a network that is right on a share of the pixels, more of them in the second epoch,
    and predicts the others as the next class."""
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
    for row in QUICK.rows.values():
        for seed in range(SEEDS):
            made.save(*run(row, seed))
    for seed in range(3):
        made.save(*run(QUICK.controls[0].of(QUICK, 0.2), seed, level=0.5))
    return made


@pytest.fixture(scope="module")
def records(store):
    return store.load()


@pytest.fixture(scope="module")
def page(store, records):
    return write_verdicts(Stored(QUICK, store), calibrate(QUICK, records)).read_text("utf-8")


def test_a_claims_line_is_its_runs(page, store, records):
    outcome = next(o for o in judge_all(QUICK, records, store.images) if o.claim == FIRST)
    last, best = (
        [np.mean([r.figure(f"{rule} accuracy") for r in records if r.row == row]) for row in FIRST.rows]
        for rule in ("last", "best")
    )
    line = cells(section(page, "The claims"), FIRST.sentence)
    e = outcome.difference
    assert line[2:4] == [f"{last[0] - last[1]:+.3f}", f"[{e.low:.3f}, {e.high:.3f}]"] and line[5] == str(SEEDS)
    assert line[4] == verdict(outcome) and line[4].startswith(f"**{outcome.verdict}**")
    line = cells(section(page, "By the best epoch"), FIRST.id)
    assert line[1] == f"{best[0] - best[1]:+.3f}" and line[3:5] == [outcome.other_epoch.verdict, "+0.045"]
    both = outcome.with_other_images.estimate
    line = cells(section(page, "The comparisons in full"), FIRST.id)
    assert f"[{both.low:.3f}, {both.high:.3f}]" in line and outcome.together == 5
    assert f"{smallest_effect(3, 0.05 / 5) * outcome.comparison.sd:.3f}" in line  # of three seeds, corrected
    assert both.high - both.low >= e.high - e.low


def test_where_each_seed_drew_its_own_pictures_the_spread_over_seeds_has_the_images_noise(page, store, records):
    """No bootstrap over images then, which would count it twice; and the pages say what an interval is about."""
    redrawn = [replace(r, data=replace(r.data, redrawn=True, name=f"{r.data.name}, redrawn")) for r in records]
    outcome = next(o for o in judge_all(QUICK, redrawn, store.images) if o.claim == FIRST)
    same = next(o for o in judge_all(QUICK, records, store.images) if o.claim == FIRST)
    assert outcome.redrawn and outcome.with_other_images is None and outcome.difference == same.difference
    assert not same.redrawn and same.with_other_images is not None
    other = verdicts_page(QUICK, redrawn, store.images, NO_BOUNDS)[0]
    for what in ("other images too", "Two sources of noise"):
        assert what.lower() in page.lower() and what.lower() not in other.lower()
    assert "Each seed drew its own pictures" in other and "All seeds saw the same pictures" in page
    redrawn = [replace(r, data=replace(r.data, fingerprint="0" + r.data.fingerprint[1:])) for r in redrawn]
    both = verdicts_page(QUICK, [*records, *redrawn], store.images, NO_BOUNDS)[0]
    assert (
        "Of generated pictures each seed drew its own, but not where it says *one set*; others all seeds saw." in both
    )
    assert f"(generated pictures), {SEEDS} seeds a row" in both
    claims = [
        cells(line, FIRST.sentence) for line in section(both, "The claims").splitlines() if FIRST.sentence in line
    ]
    assert [line[1] for line in claims] == ["embedded classification", "embedded classification, redrawn"]
    tallies = re.findall(r"(embedded [\w, ]+): \*\*([\w, ]+)\*\* of (\d) claims", section(both, "The claims"))
    of_data = {data: words for data, *words in tallies}
    assert len(of_data) == 4
    assert all(
        of_data[f"embedded {task}"] == of_data[f"embedded {task}, redrawn"]
        for task in ("classification", "segmentation")
    )
    of_study = [r for r in (*records, *redrawn) if r.row in QUICK.rows]
    report = section(report_page(QUICK, of_study, None, {}), "Summary")
    assert f", {SEEDS} seeds a row," in report and "; embedded segmentation, redrawn: **" in report
    assert all(
        f"raises mIoU ({data}): " in both for data in ("embedded segmentation", "embedded segmentation, redrawn")
    )
    assert cells(section(both, "Best epoch"), "q2_1a-skip")[1] == "embedded segmentation"
    reports = [report_page(QUICK, of, None, {}) for of in (redrawn, records)]
    assert ["validation images, drawn by cvhw4, of each seed its own." in r for r in reports] == [True, False]


def test_published_differences_are_held_against_further_runs(page):
    """Those of the mIoU are none: by `SHARE` skips gain far more here than they did there."""
    text = section(page, "By the best epoch")
    assert "taken as of one run each" in text and "may leave the margin out" in page
    inside = re.search(r"Of 7, (\d) lies? within the 95 % prediction.*?: (.*?)\. Other", text)
    assert int(inside[1]) == len(inside[2].split("; ")) and "skip connections raise mIoU" not in inside[2]


@pytest.mark.parametrize(("times", "lie"), [(0.99, "1 lies"), (1.01, "0 lie")])
@pytest.mark.parametrize("redrawn", [False, True])
def test_a_further_run_has_another_seed_and_other_images(store, records, monkeypatch, redrawn, times, lie):
    few = [replace(r, data=replace(r.data, redrawn=redrawn)) for r in records if r.row in FIRST.rows]
    (o,) = judge_all(QUICK, few, store.images)
    best, images = o.other_epoch, binomial_comparison(0.875, 0.83, 400)
    variance = best.comparison.sd**2 * (1 + 1 / SEEDS)
    if not redrawn:  # where the spread over seeds has both
        variance += images.error**2 + o.noise.mean_variance
    end = float(best.difference.mean + times * stats.t.ppf(0.975, SEEDS - 1) * math.sqrt(variance))
    monkeypatch.setattr("cvhw4.report.verdicts.stated", lambda *_: Stated(end, images))
    text = verdicts_page(QUICK, few, store.images, NO_BOUNDS)[0]
    assert f"Of 1, {lie} within the 95 % prediction interval" in text


def test_one_runs_noise_is_of_the_seed_of_the_images_and_of_both(page, store, records):
    runs = [r for r in records if r.row == FIRST.better]
    noise = image_noise([(1, [(store.images(r), 3) for r in runs])], "accuracy", np.random.default_rng(0))
    seeds = np.var([r.last("accuracy") for r in runs], ddof=1)
    alone = max(seeds - noise.interaction, 0.0)  # what a seed makes of an image is in the spread over seeds too
    shares = np.array([alone, noise.images_alone, noise.interaction]) / (alone + noise.one_run)
    line = cells(section(page, "Two sources of noise"), FIRST.better)
    assert line[2:] == [
        *(f"± {math.sqrt(variance):.3f}" for variance in (seeds, noise.one_run)),
        *(f"{100 * share:.0f} %" for share in shares),
        str(SEEDS),
    ]


def test_trainings_that_failed_are_counted(page, store, records):
    flat = {"recall": [0.0, 1.0]}
    some = [replace(r, by_class=flat) if r.row == "q1_3-scratch" and r.seed < 2 else r for r in records]
    text = section(verdicts_page(QUICK, some, store.images, NO_BOUNDS)[0], "Trainings that failed")
    low, high = stats.binomtest(2, SEEDS).proportion_ci(method="exact")
    assert cells(text, "q1_3-scratch")[1:] == [f"2 of {SEEDS} failed", f"[{100 * low:.0f} %, {100 * high:.0f} %]"]
    claim = CLAIMS["q1_4-features_above_scratch"]
    without = judge(claim, [r for r in records if r.seed >= 2], QUICK).difference
    line = cells(text, claim.id)
    assert line[3:6] == [f"{without.mean:+.3f}", f"[{without.low:.3f}, {without.high:.3f}]", str(SEEDS - 2)]
    assert FIRST.id not in text
    elsewhere = [replace(r, data=replace(r.data, name="b, c", fingerprint="b" * 64)) for r in some]
    few = [r for r in (*some, *elsewhere) if r.row in claim.rows]
    text = section(verdicts_page(QUICK, few, lambda _: None, NO_BOUNDS)[0], "Trainings that failed")
    assert cells(text, "q1_3-scratch")[1] == cells(text, claim.id)[1] == "embedded classification"
    slow = min((r for r in records if r.row == "q1_3-scratch"), key=lambda r: r.best("accuracy"))
    outliers = {slow.row: Outliers("best accuracy", slow.best("accuracy") + 1e-6, False, 1, SEEDS, failed=False)}
    bounds = Bounds({}, {}, "", {"embedded": slow.data.fingerprint}, outliers=outliers)
    text = section(verdicts_page(QUICK, records, store.images, bounds)[0], "Trainings that failed")
    assert cells(text, slow.row)[1] == f"1 of {SEEDS} learned far less than others"
    without = judge(claim, [r for r in records if r.seed != slow.seed], QUICK).difference
    judged = {o.claim: o for o in judge_all(QUICK, records, bounds=bounds)}
    assert cells(text, claim.id)[3:7] == [
        f"{without.mean:+.3f}",
        f"[{without.low:.3f}, {without.high:.3f}]",
        str(SEEDS - 1),
        judged[claim].trained.verdict,
    ]
    assert judged[claim].trained.difference == without and judged[FIRST].trained is None


def test_the_parts_of_the_rise_add_up_on_the_page(page, store, records):
    table = section(page, "From 11 to 3 classes")
    for column in (1, 2):
        numbers = [
            float(cells(table, start)[column].split()[0]) for start in ("(a)", "(b)", "(c)", "(d)", "**the whole")
        ]
        assert sum(numbers[:4]) == pytest.approx(numbers[4], abs=2.5e-3)  # five roundings
    ends = [np.mean([r.last("miou") for r in records if r.row == row]) for row in ("q2_1a-skip", "q2_c3-3class_fused")]
    rise = ends[1] - ends[0]
    assert float(cells(table, "**the whole")[2].split()[0]) == pytest.approx(rise, abs=6e-4)
    training = float(cells(table, "(c)")[2].split()[0])
    share = re.search(r" and (\d+) % \[(\d+), (\d+)\] with skips needs no training on 3 classes", table)
    assert float(share[1]) == pytest.approx(100 * (1 - training / rise), abs=1)
    assert int(share[2]) <= int(share[1]) <= int(share[3])
    beside = re.search(r"raises mIoU: (.*) of the rise needs no training on 3 classes", section(page, "The claims"))
    assert f"Of the rise, {beside[1]} without skips" in table
    picture = store.folder / "figures" / "section-decomposition-embedded-segmentation.svg"
    assert picture.read_text().startswith("<svg") and f"(figures/{picture.name})" in table


def test_the_interaction_of_skips_and_batch_norm_is_the_difference_of_gains(page):
    by_mode, crossed = section(page, "Skip connections").split("Were the gain only")
    lines = [line for line in by_mode.splitlines() if line.startswith("| mIoU (template)")]
    assert [cells(line, "mIoU")[1] for line in lines] == ["frozen", "train"]
    gains = [cells(line, "mIoU")[2] for line in lines]
    assert gains[0].startswith("+") and gains[1].startswith("+")
    expected = float(gains[0].split()[0]) - float(gains[1].split()[0])
    crossed = cells(crossed, "mIoU (template)")
    assert [float(cell.split()[0]) for cell in crossed[1:3]] == [float(g.split()[0]) for g in gains]
    assert float(crossed[3].split()[0]) == pytest.approx(expected, abs=1.5e-3)


def test_the_share_of_errors_removed_is_what_it_says():
    # 0.5 to 0.7 near contours: 0.2 of 0.5 errors; 0.9 to 0.98 away: 0.08 of 0.1
    text = sections._answer("train", ([0.7, 0.7], [0.5, 0.5]), ([0.98, 0.98], [0.9, 0.9]), [0.4, 0.4])
    assert "(40 % [40, 40] of the pixels won lie near them)" in text
    assert "a larger share of the errors away from them goes" in text
    assert "skips bring +0.120 [0.120, 0.120] more" in text and "40 points smaller" in text and "disagree" in text
    agreed = sections._answer("frozen", ([0.9, 0.9], [0.5, 0.5]), ([0.91, 0.91], [0.9, 0.9]), [math.nan] * 2)
    assert "70 points larger" in agreed and agreed.endswith("largest at contours.") and "pixels won" not in agreed
    # 0.95 to 0.97: two of five errors; 0.5 to 0.6: one of five
    other = sections._answer("train", ([0.97, 0.97], [0.95, 0.95]), ([0.6, 0.6], [0.5, 0.5]), [0.1, 0.1])
    assert "skips bring -0.080" in other and "20 points larger" in other
    assert other.endswith("accuracy rises more away from contours, and a larger share of the errors near them goes.")


def test_the_share_of_pixels_won_near_contours_by_hand():
    plain, fused = np.zeros((2, 2, 2, 3, 2), np.uint32)  # two images, away and near, two classes and void
    plain[:, :, 0, 0], fused[:, :, 0, 0] = 10, 11
    fused[0, 1, 1, 1] = 2  # near contours, right in class 1
    fused[:, :, 2] = 99  # void
    assert sections._won_near(fused, plain) == 4 / 6  # of 2 x 2 pixels and of 2 more that are won, those near
    assert math.isnan(sections._won_near(plain, plain))
    fused[0, 0, 0, 0] = 0  # where it loses pixels there is no share
    assert math.isnan(sections._won_near(fused, plain))


def test_what_a_failed_assertion_shows_of_a_claim(records):
    outcome = judge(CLAIMS["q2_2-skip_miou"], records, QUICK)
    assert re.fullmatch(
        r"<q2_2-skip_miou: supported, \+0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], p [\d.e-]+, 6 seeds>", repr(outcome)
    )
    one = judge(CLAIMS["q2_2-skip_miou"], [r for r in records if r.seed == 0], QUICK)
    assert re.fullmatch(r"<q2_2-skip_miou: undecided, \+0\.\d{3}, 1 seed>", repr(one))


def test_guarded_are_claims_that_a_nightly_session_checks_and_its_bounds_promise(page):
    table = section(page, "By the best epoch")
    skips, whole_face = (cells(table, claim)[5] for claim in ("q2_2-skip_miou", "q1_7-whole_face_features"))
    assert (skips, whole_face) == ("yes", "no")  # by `SHARE` far apart; by `LEVEL` alike, of which nothing is promised
    assert CLAIMS["q1_c4-pretraining"] not in QUICK.nightly_claims  # one of its rows is an extra one


def test_controls_are_on_the_page_with_the_bound_that_detects_them(page):
    line = cells(section(page, "Negative controls"), "20% of the training labels")
    assert line[1:3] == ["q1_6-finetune", "yes"] and float(line[3].split()[0]) > 0.9 and "(least)" in line[0]


def test_five_of_six_seeds_are_drawn_in_all_six_ways(page, records):
    table = section(page, "Would 5 seeds")
    family, *controls = families(judge_all(QUICK, [r for r in records if r.task == "classification"]))
    assert len(family) == 5 and [len(alone) for alone in controls] == [1, 1]
    for together in (family, *controls):
        smallest = [o.claim.smallest for o in together]
        rng, floor = np.random.default_rng(1), rounding_sd(1 / 80)
        found = stability([o.differences for o in together], 0.0, rng, floors=floor, smallest=smallest)
        for o, shares in zip(together, found, strict=True):
            line = cells(table, o.claim.id)
            assert line[1:] == ["embedded classification", o.verdict, f"{100 * shares.same:.1f} %", "6"]
            assert shares.opposite == 0 and "None say the opposite." in table and "(6 draws" in table


def test_draws_say_nothing_of_a_claim_about_other_pictures(records):
    first, *others = families(judge_all(QUICK, [r for r in records if r.task == "classification"]))[0]
    elsewhere = replace(first, claim=replace(first.claim, classes=("cat", "dog")))
    table = "\n".join(stability_section([elsewhere, *others], NO_BOUNDS))
    assert cells(table, first.claim.id)[1:] == ["embedded classification", "about other pictures", "-", "6"]
    assert cells(table, others[0].claim.id)[2] == others[0].verdict


def spread_of(o, seeds):
    """Bounds that know the spread of so many seeds."""
    differences = {o.claim.id: {o.epoch: {seed: 0.05 * i for i, seed in enumerate(seeds)}}}
    settings = {row: digest(runs[0]) for row, runs in o.runs.items()}
    return Bounds({}, {}, "", {"embedded": o.fingerprint}, settings=settings, differences=differences)


def test_seeds_whose_spread_is_known_stand_beside_those_judged(store, records):
    few = [r for r in records if r.seed < 3 and r.row in FIRST.rows]
    (o,) = judge_all(QUICK, few)
    known = spread_of(o, [2, *range(10, 16)])  # its own seed is not counted twice
    texts = [verdicts_page(QUICK, few, store.images, known)[0], report_page(QUICK, few, known, {})]
    texts.append("\n".join(session_summary(QUICK, few, [], known, {})))
    assert all("3 + 6" in text and "with that of 6 others" in " ".join(text.split()) for text in texts)
    (pooled,) = judge_all(QUICK, few, bounds=known)
    effects = smallest_effect(3, 0.05, 2 + 6 - 1), smallest_effect(3, 0.05)  # with the others, and alone
    shown = [f"{effect * pooled.comparison.sd:.3f}" for effect in effects]
    line = cells(section(texts[0], "The comparisons in full"), FIRST.id)
    assert [cell for cell in line if cell in shown] == shown and shown[0] < shown[1]
    alone = verdicts_page(QUICK, few, store.images, NO_BOUNDS)[0]
    assert "3 + " not in alone and "hold for differences that are normal" in alone


def test_the_rates_under_a_claims_own_shape_are_on_the_page_from_ten_seeds_on():
    rng = np.random.default_rng(9)
    levels = {"q1_1-features": 0.7, "q1_2-finetune": 0.8}
    many = [record(row, s, ((level + rng.normal(0, 0.02),),)) for row, level in levels.items() for s in range(10)]
    many[-1] = replace(many[-1], by_class={"recall": [1.0, 0.0]})
    (o,) = judge_all(QUICK, many)
    heads = [*(f"{n} seeds" for n in (3, 5, 10, 20)), "looking again", "called equivalent"]  # nine trained: too few
    # of more seeds than are stored, the shape is not all there
    for bounds, calibrated in ((NO_BOUNDS, False), (spread_of(o, range(10)), True), (spread_of(o, range(20)), False)):
        page = "\n".join(shape_section([o], bounds))
        assert cells(page, "claim")[1:] == heads
        three, _, ten, twenty, again, _ = rates = [float(cell.removesuffix(" %")) for cell in cells(page, FIRST.id)[1:]]
        assert all(0 <= rate <= 100 for rate in rates) and max(three, ten, twenty) <= again  # after each of these
        assert ("the spread of the others is known" in page) == calibrated
    family = judge_all(QUICK, [*many, *(replace(r, row="q1_5-features") for r in many if r.row == "q1_1-features")])
    assert len(family) == 2 and "any of the claims judged together" in "\n".join(shape_section(family, NO_BOUNDS))
    assert shape_section([judge(FIRST, many[1:], QUICK)], NO_BOUNDS) == []


def test_without_images_the_rest_of_the_page_stands(store, records):
    bare = [replace(r, images=None) for r in records]
    text, pictures = verdicts_page(QUICK, bare, store.images, calibrate(QUICK, bare))
    assert "## The claims" in text and "## The better recipe" in text
    assert "## Skip connections" not in text and [p.stem for p in pictures if "effects" not in p.stem] == []
    assert "95 % interval, other images too" not in text and "other validation images" not in text


def test_claims_about_differences_of_differences(store, records):
    outcome = judge(CLAIMS["q2_c2-norm_interaction"], records, QUICK, store.images)
    by = {(r.row.split("-")[0], r.seed): r.last("miou") for r in records if r.task == "segmentation"}
    expected = [(by["q2_1a", s] - by["q2_1b", s]) - (by["q2_n1a", s] - by["q2_n1b", s]) for s in range(SEEDS)]
    assert outcome.differences == pytest.approx(tuple(expected))
    assert outcome.difference.mean == pytest.approx(np.mean(expected))
    best = judge(outcome.claim, records, QUICK, store.images, epoch="best")
    for o, rule in ((outcome, "last"), (best, "best")):
        of_rows = ([r for r in records if r.row == row] for row in o.claim.rows)
        arms = [[(store.images(r), r.epoch_of(f"{rule} miou")) for r in of_row] for of_row in of_rows]
        noise = image_noise(list(zip((1, -1, -1, 1), arms, strict=True)), "miou", np.random.default_rng(0))
        sd, images = o.comparison.sd, noise.mean_variance - noise.interaction / SEEDS  # whose part the seeds have
        assert o.noise == noise and images > 0
        assert o.with_other_images == combine(o.difference.mean, sd, SEEDS, images, 10 - 1)


def test_sections_are_given_the_epoch_that_the_studys_claims_go_by():
    _, images = run(QUICK.row("q2_1a"), 0)
    runs = {"a": [record("q2_1a", 0, ((0.9,), (0.1,)))]}
    for rule, epoch, miou in (("best", 0, 0.9), ("last", 1, 0.1)):
        e = Evidence(SimpleNamespace(epoch=rule), "scenes", runs, lambda _: images)
        seeds, counts = e.counts("a")
        assert e.figures("a", "miou", seeds) == [miou] and np.array_equal(counts["a"], images.counts[[epoch]])


def test_data_that_changed_under_one_name_are_two_data_sets(store, records):
    """Half a row's runs on other pictures: nothing is compared across, and the page tells the two apart."""
    changed = []
    for r in records:
        if r.row == "q2_3-3class" or (r.row == "q1_2-finetune" and r.seed > 2):
            r = replace(r, data=replace(r.data, fingerprint="ab12cd" + r.data.fingerprint[6:]))
        changed.append(r)
    text, pictures = verdicts_page(QUICK, changed, store.images, calibrate(QUICK, records))
    assert cells(section(text, "The claims"), FIRST.sentence)[5] == "3"
    assert "embedded segmentation ab12cd" in text and "embedded classification ab12cd" in text
    assert "without skips" not in section(text, "From 11 to 3 classes").split("|")[2]
    print_ = b"segmentation".hex()[:6]
    assert [p.stem for p in pictures if "effects" not in p.stem] == [
        f"section-decomposition-embedded-segmentation-{print_}"
    ]
    assert text.count("## What the report's own runs could show") == 1  # of four data sets


def test_two_data_sets_never_share_a_picture(store, records):
    """Names that are the same but for signs that no file name should have."""
    few = [r for r in records if r.row in ("q2_1b-noskip", "q2_3-3class") and r.seed == 0]
    few += [
        replace(r, data=replace(r.data, name="Embedded/segmentation", fingerprint="ab12cd" + "0" * 58)) for r in few
    ]
    _, pictures = verdicts_page(QUICK, few, store.images, NO_BOUNDS)
    assert len({p.stem for p in pictures}) == 2 and pictures[1].stem.endswith("-embedded-segmentation-ab12cd")


def test_one_seed_and_rows_without_claims_say_so(store, records):
    text, _ = verdicts_page(QUICK, [r for r in records if r.row == "q1_3-scratch"], store.images, NO_BOUNDS)
    assert "No claim has runs of all its rows yet." in text and "The comparisons in full" not in text
    text, _ = verdicts_page(QUICK, [r for r in records if r.seed == 0], store.images, NO_BOUNDS)
    assert cells(section(text, "The claims"), FIRST.sentence)[3:] == ["-", "**undecided**", "1"]
    assert "The comparisons in full" not in text and "prediction interval" not in text
    real = [replace(r, data=replace(r.data, embedded=False)) for r in records if r.row == "q1_8-recipe"]
    page, _ = verdicts_page(QUICK, real, store.images, NO_BOUNDS)  # of a figure itself alone
    assert cells(section(page, "By the best epoch, and as published"), "q1_9-passes_0.895")[4] == "0.908"
    assert " -]" not in text and "nan" not in text and re.search(r"[+-]0\.\d{3} -( |$)", text, re.M) is None


def test_why_a_claim_is_not_judged(records):
    def told(runs):
        judged = [record("q2_n1a"), record("q2_n1b")]
        text, _ = verdicts_page(QUICK, [*runs, *judged], lambda _: None, NO_BOUNDS)
        (line,) = [line for line in text.splitlines() if line.startswith("Not judged: ")]
        return dict(
            re.findall(r"([^;( ][^;(]+) \(([^)]+)\)", line.removeprefix("Not judged: ").replace(" (control)", ""))
        )

    passes = "the better recipe passes 0.895"
    of_figure = {r.row: r for r in records}["q1_8-recipe"]
    assert told([of_figure])[passes] == "about a figure on real data, of which generated pictures say nothing"
    real = replace(of_figure, row="q1_2-finetune", data=replace(of_figure.data, embedded=False))
    assert told([real])[passes] == "a row has no runs"
    nan = replace(
        of_figure, data=real.data, epochs=[replace(e, figures={"accuracy": math.nan}) for e in of_figure.epochs]
    )
    assert told([nan])[passes] == "a figure is missing or not a number"
    arms = [record("q2_1a", 0), record("q2_1b", 1)]
    assert told(arms)["skip connections raise mIoU"] == "its rows have no seed in common"


def test_one_validation_picture_is_no_reason_to_have_no_page(records, store):
    """Of the choice of one picture nothing can be said."""
    runs = [r for r in records if r.row in ("q2_1a-skip", "q2_1b-noskip")]

    def read(run):
        images = store.images(run)
        return replace(images, counts=images.counts[:, :1])

    one = [replace(r, data=replace(r.data, val=1)) for r in runs]
    text, _ = verdicts_page(QUICK, one, read, NO_BOUNDS)
    assert "skip connections raise mIoU" in section(text, "The claims") and "## Best epoch against last" not in text


def test_what_is_wrong_with_data_stands_below_every_table_of_that_data(store, records):
    leaks, line = [f"train/{i}.jpg = val/{i}.png" for i in range(4)], "4 validation pictures are training pictures too"
    few = [r for r in records if r.seed < 2]
    leaking = [replace(r, data=replace(r.data, leaks=leaks)) if r.task == "segmentation" else r for r in few]
    text, _ = verdicts_page(QUICK, leaking, store.images, NO_BOUNDS)
    for title in ("The claims", "Skip connections", "From 11 to 3", "Best epoch", "Two sources of noise"):
        assert section(text, title).count(line) == 1, title
    assert f"embedded segmentation: {line}" in section(text, "The claims")
    assert line not in section(text, "The better recipe")
    assert line not in verdicts_page(QUICK, few, store.images, NO_BOUNDS)[0]


def test_both_pages_read_the_failures_that_are_stored(records, tmp_path):
    made = Store(tmp_path, "quick")
    for r in records:
        if r.row in ("q1_1-features", "q1_2-finetune", "q1_3-scratch") and r.seed < 3:
            made.save(replace(r, images=None))
    (whole,) = (r for r in made.load() if r.row == "q1_2-finetune" and r.seed == 0)
    made.fail(failure(whole, seed=3, fingerprint="f" * 64, data=whole.data.name))
    page = write_report(Stored(QUICK, made), None, {}).read_text("utf-8")
    assert "3 (1 of 4 seeds failed)" in cells(page, "q1_2-finetune")
    table = section(write_verdicts(Stored(QUICK, made), NO_BOUNDS).read_text("utf-8"), "The claims")
    without = CLAIMS["q1_4-features_above_scratch"]
    assert cells(table, FIRST.sentence)[5] == "3, others failed"
    assert f"- {FIRST.sentence}: 1 of 4 seeds failed in q1_2-finetune on embedded classification." in table
    assert cells(table, without.sentence)[5] == "3" and f"- {without.sentence}" not in table
    assert "finished is biased" in table


# A study of a user's own


def own_study(**more):
    rows = {"q1_1-features": Row("resnet18"), "frozen": Row("resnet18", trained="last layer")}
    claims = [Claim(better="q1_1-features", worse="frozen", metric="accuracy")]
    return Study("insects", data="hymenoptera", rows=rows, claims=claims, title="Ants & bees", **more)


def runs_of(study, seeds=3):
    data = replace(record().data, name="hymenoptera", embedded=False)
    return [
        replace(
            record("q1_2-finetune", s, ((0.5,), (0.7 - 0.1 * i + 0.01 * s,))),
            row=row,
            study=study.name,
            configuration=f"{i}" * 64,
            fingerprint=f"{i}{s}" * 32,
            settings=study.rows[row].settings(),
            data=data,
        )
        for i, row in enumerate(study.rows)
        for s in range(seeds)
    ]


def test_a_studys_own_sections_are_on_its_page(tmp_path):
    from cvhw4 import draw, estimate, gain, table

    def spread(e):
        last = {row: e.figures(row, "accuracy", e.seeds(row)) for row in e.runs}
        lines = [{"row": row, "last": gain(estimate(figures))} for row, figures in last.items()]
        picture = draw("dots", (2, 2), lambda figure: figure.subplots().plot([1, 2]), f"Dots on {e.data}", "*Dots.*")
        return [f"## Spread ({e.title})", table(lines), picture]

    study = own_study(sections=[spread, lambda e: [], lambda e: ["## Once", "the same for all data"]])
    records = runs_of(study)
    elsewhere = [replace(r, data=replace(r.data, name="b|c", fingerprint="f" * 64)) for r in records]
    text, pictures = verdicts_page(study, [*records, *elsewhere], lambda _: None, NO_BOUNDS)
    assert "## Spread (hymenoptera)" in text and "## Spread (b|c)" in text and text.count("## Once") == 1
    assert cells(section(text, "Spread"), "frozen")[1].startswith("+0.610 [")
    assert [p.stem for p in pictures] == ["section-dots-hymenoptera", "section-dots-b-c"]
    assert "![Dots on hymenoptera](figures/section-dots-hymenoptera.svg)\\\n*Dots.*" in text
    store = Store(tmp_path, study.name)
    for r in records:
        store.save(r)
    assert cvhw4.stored_figure(study, "dots", tmp_path).alt == "Dots on hymenoptera"
    for r in elsewhere:
        store.save(replace(r, fingerprint=f"{r.seed}" + "e" * 63))
    with pytest.raises(InputError, match="figure dots: would be of several data sets"):
        cvhw4.stored_figure(study, "dots", tmp_path)


@pytest.mark.parametrize("under", ["", "real"])
def test_the_summary_links_to_the_agreement_that_has_its_runs(tmp_path, under):
    study = own_study()
    store = Store(tmp_path / under, study.name)
    for r in runs_of(study):
        store.save(r)
    name = f"{under}/{study.name}".strip("/")
    for pages, linked in ((f"other/{name}", False), (name, True)):
        (tmp_path / "agreement.md").write_text(f"[report]({pages}/report.md)")
        write_pages(study, store, None, {})
        place = "../" * (2 if under else 1) + "agreement.md"
        for page, link in (("report.md", f"say]({place})"), ("report.html", f'href="{place}"')):
            assert (link in (store.folder / page).read_text("utf-8")) == linked
    assert (store.folder / place).is_file()


def test_pages_are_written_where_there_is_something_to_judge(tmp_path, monkeypatch):
    study = own_study()
    former = [  # from when the rows had a training loop of their own
        replace(r, task="custom", data=replace(r.data, name="own data", fingerprint="0" * 64, val=0))
        for r in runs_of(study)
    ]
    assert len(judge_all(study, [*former, *runs_of(study)])) == 1 and not cvhw4.results_table(study, former)
    store = Store(tmp_path, study.name)
    store.save(runs_of(study)[0])
    names = [path.name for path, _ in write_pages(study, store, None, {"frozen": "no data"})]
    assert names == ["report.md", "report.html"]
    report = (store.folder / "report.md").read_text("utf-8")
    assert cells(section(report, "Rows without a run"), "no data")[1] == "frozen"
    for r in runs_of(study):
        store.save(r)
    (store.folder / "verdicts.md").write_text("# b\n\n## The claims\n\nof earlier runs\n")
    monkeypatch.setattr("cvhw4.report.page.write_verdicts", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="verdicts.md is not written: ZeroDivisionError"):
        assert [path.name for path, _ in write_pages(study, store, None, {})] == names
    assert "of earlier runs" not in (store.folder / "report.html").read_text("utf-8")
