"""Pictures of the pages: what they draw are the records' figures, worked by hand where they are of what networks saw;
small, the same each time, and files that pages link."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from cvhw4 import CAMVID
from cvhw4.camvid import CLASSES
from cvhw4.errors import InputError
from cvhw4.labels import merge_classes
from cvhw4.records.images import ImageResults
from cvhw4.records.store import Store
from cvhw4.report import page
from cvhw4.report.confusions import confusion, confusions, ink_on_blues
from cvhw4.report.figures import INK, shrink_map
from cvhw4.report.page import pictures_of_report, write_report
from cvhw4.report.pictures import pictures_of
from cvhw4.report.plots import band, curves, forest
from cvhw4.report.results import report_page
from cvhw4.report.runs import by_classes, class_names
from cvhw4.report.saliency import disputed, heat_in_face, looked_at, saliency
from cvhw4.report.scenes import find_arms, iou_bars, palette_of, scenes, spread_over
from cvhw4.report.stored import Stored
from cvhw4.statistics.images import ImageNoise
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.verdicts import judge_all
from cvhw4.tasks import CLASSIFICATION, SEGMENTATION
from tests.helpers.pages import ALL, texts
from tests.helpers.records import class_samples, mask_samples, results
from tests.helpers.records import pictures as stored_pictures
from tests.helpers.tiny import QUICK, VOID, record, two_classes

# Curves and claims


def runs(name, *levels):
    """A run per level, three epochs that end at it."""
    return [record(name, seed, ((0.1,), (0.2,), (level,))) for seed, level in enumerate(levels)]


def drawn(*names, data="embedded", levels=(0.7, 0.8)):
    rows = [QUICK.row(name) for name in names]
    groups = {row.name: runs(row.name, *levels) for row in rows}
    return curves("curves-a", data, groups, rows, rows[0].task.primary, QUICK)


def test_the_band_is_the_interval_of_the_mean():
    figures = np.random.RandomState(0).rand(5, 3)
    mean, low, high = band(figures)
    for epoch, values in enumerate(figures.T):
        expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        assert (low[epoch], high[epoch]) == pytest.approx(expected)
    assert mean == pytest.approx(figures.mean(0))
    assert (band(figures[:1]) == figures[0]).all()
    skewed = [0.5] + [0.8] * 19
    e = estimate(skewed)
    assert band([[v] for v in skewed])[:, 0].tolist() == [e.mean, e.low, e.high]


def test_every_row_has_a_panel_with_its_runs():
    picture = drawn("q1_1", "q1_5", "q1_6")
    titles = [text for text in texts(picture) if "(n = " in text]
    assert titles == [f"{QUICK.row(name).name} (n = 2)" for name in ("q1_1", "q1_5", "q1_6")]
    assert {"accuracy", "epoch", "1", "2", "3"} <= set(texts(picture))
    assert "q1_5-features 0.750" in picture.alt and "400 validation images" in picture.caption
    assert "2 seeds a row" in picture.caption
    uneven = [record("q1_1", 0, ((0.1,), (0.2,), (0.9,))), record("q1_1", 1, ((0.3,), (0.4,)))]
    row = QUICK.row("q1_1")
    assert "q1_1-features 0.300." in curves("curves-a", "x", {row.name: uneven}, [row], "accuracy", QUICK).alt


def ticks(picture, number=r"\d\.\d+"):
    return [float(t.replace("−", "-")) for t in texts(picture) if re.fullmatch(f"[−-]?{number}", t)]


def test_intervals_beyond_all_shares_do_not_stretch_the_axes():
    outcomes = judge_all(QUICK, [*runs("q1_1", 0.1, 0.9), *runs("q1_2", 0.95, 0.2)])
    for picture in (forest(outcomes, QUICK), drawn("q1_1", levels=(0.1, 0.9))):
        assert len(ticks(picture)) > 2 and max(map(abs, ticks(picture))) <= 1


def test_the_published_figure_is_marked_where_there_is_one():
    stated, unstated = drawn("q1_1"), drawn("q1_5")
    assert "Diamond" in stated.caption and "#d55e00" in stated.svg.lower()
    assert "Diamond" not in unstated.caption and "#d55e00" not in unstated.svg.lower()


def test_pictures_carry_both_colours_and_the_same_records_give_the_same_file():
    picture = drawn("q2_1a")
    assert "prefers-color-scheme:dark" in picture.svg and "currentColor" in picture.svg and INK not in picture.svg
    assert picture == drawn("q2_1a")
    with pytest.raises(InputError, match=r"a\.pdf: is of a picture that was not made with draw"):
        replace(picture, drawn=None).save("a.pdf")


def outcomes(data="embedded"):
    levels = {"q1_1": (0.80, 0.81, 0.82), "q1_2": (0.90, 0.92, 0.93), "q1_3": (0.5, 0.51, 0.5), "q1_5": (0.9, 0.7, 0.8)}
    records = [r for name, values in levels.items() for r in runs(name, *values)]
    return judge_all(QUICK, [replace(r, data=replace(r.data, name=data)) for r in records])


def test_the_forest_has_every_claim_in_order_with_its_verdict_in_words():
    found = outcomes()
    picture = forest(found, QUICK)
    words = texts(picture)
    ends = [text for text in words if re.match(r"[+-]\d\.\d{3} ", text)]
    assert ends == [f"{o.difference.mean:+.3f}  {o.verdict}" for o in found]
    assert {"supported", "undecided"} <= {o.verdict for o in found}
    claims = [o.claim for o in found]
    assert claims == [c for c in QUICK.claims if c in claims]
    assert all(o.claim.sentence.split()[-1] in " ".join(words) for o in found)
    assert all(f"{o.claim.sentence}: {o.difference.mean:+.3f}, {o.verdict}" in picture.alt for o in found)
    assert "published" in words and "with other images too" not in words  # no results by image are stored


def test_controls_stand_below_the_claims_under_a_heading_of_their_own():
    first, *others = outcomes()
    picture = forest([replace(first, claim=replace(first.claim, control=True)), *others], QUICK)
    sentences = [*(o.claim.sentence for o in others), first.claim.sentence]
    words = " ".join(texts(picture))
    places = [words.index(of) for of in (sentences[-2].split()[-1], "Controls", first.claim.sentence[:20])]
    assert places == sorted(places)
    assert [picture.alt.index(of) for of in sentences] == sorted(picture.alt.index(of) for of in sentences)
    assert f"controls: {first.claim.sentence}:" in picture.alt and "Below, the controls" in picture.caption
    alone = forest(others, QUICK)
    assert "Controls" not in texts(alone) and "controls" not in alone.alt + alone.caption


def test_a_figure_that_is_no_share_is_drawn_to_its_end_and_no_diamond_is_spoken_of():
    found = [o for o in outcomes() if o.claim.id == "q1_4-finetune_above_features"]
    far = Estimate(mean=8.9, sd=0.2, n=3, low=8.4, high=9.4)
    claim = replace(found[0].claim, metric="minus error", better="q1_5-features", worse="q1_6-finetune")
    own = replace(found[0], claim=claim, comparison=replace(found[0].comparison, difference=far))
    picture = forest([own], QUICK)
    assert max(ticks(picture, r"\d+(\.\d+)?")) >= 8 and "shares" not in " ".join(texts(picture))
    assert "diamond" not in picture.caption and "diamond" in forest(found, QUICK).caption


def test_one_seed_is_a_point_without_interval():
    one = judge_all(QUICK, [*runs("q1_1", 0.8), *runs("q1_2", 0.9)])
    picture, several = (
        forest([replace(o, noise=ImageNoise(0.01, 0.0, 9, o.difference.n)) for o in of], QUICK)
        for of in (one, outcomes())
    )
    assert "+0.100, undecided" in picture.alt and "inf" not in picture.svg and "nan" not in picture.svg
    assert "with other images too" in texts(several) and "with other images too" not in texts(picture)
    assert "thick bar" in several.caption and "thin: that" in several.caption and "band" in drawn("q1_1").caption
    assert not any(word in picture.caption for word in ("interval", "thin"))
    assert "interval" not in drawn("q1_1", levels=(0.8,)).caption


def stored(tmp_path, *names, data="embedded"):
    store = Store(tmp_path, "quick")
    for r in (r for name in names for r in runs(name, 0.7, 0.8)):
        store.save(replace(r, data=replace(r.data, name=data)))
    return store


def test_the_page_links_every_picture_and_old_ones_go(tmp_path):
    store = stored(tmp_path, "q1_1", "q1_2", "q2_1a")
    folder = store.folder / "figures"
    folder.mkdir()
    theirs = {"mine.svg", "curves-a.png", "Curves-b.svg", "section-x.svg", "curves-paper.svg"}
    for name in (*theirs, "curves-old.svg", "forest-old.svg"):
        (folder / name).write_text('<svg class="ink"' if "old" in name else "<?xml")  # not as `Picture.save` begins
    text = write_report(Stored(QUICK, store), None, {}).read_text()
    linked = re.findall(r"^!\[.+\]\(figures/(.+\.svg)\)\\$", text, re.M)
    assert len(linked) == 5  # the claims, Q1's curves, two of Q2, its IoU by class
    assert {path.name for path in folder.iterdir()} == {*theirs, *linked}
    assert all(ElementTree.parse(folder / name).getroot().tag.endswith("svg") for name in linked)


def test_data_sets_with_like_names_have_pictures_of_their_own(tmp_path):
    store = stored(tmp_path, "q1_1", data="a/b")
    for r in runs("q1_1", 0.4):
        store.save(replace(r, data=replace(r.data, name="a b"), configuration="e" * 64, fingerprint="f" * 64))
    pictures = pictures_of_report(Stored(QUICK, store))
    assert len({p.stem for found in pictures.values() for _, p in found}) == 2


def test_without_pictures_there_is_still_a_page(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(page, "curves", broken)
    with pytest.warns(UserWarning, match="no pictures are drawn"):
        path = write_report(Stored(QUICK, stored(tmp_path, "q1_1")), None, {})
    assert "q1_1-features" in path.read_text() and "figures/" not in path.read_text()


# What networks saw


def shown(r, probabilities, heat=None, why=""):
    p, heat = np.array(probabilities, np.float16), None if heat is None else np.array(heat, np.uint8)
    return class_samples(r, len(p), probabilities=p, heat=heat, why=why)


def packed(pixels, **arrays):
    """Validation pictures of uint8 [K, S, S, 3]."""
    files = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return stored_pictures(files, **(dict(masks=None) | arrays))


def noise(images, side):
    """Pictures about as hard to store as photographs: smooth shapes under grain."""
    random = np.random.RandomState(0)
    coarse = random.randint(0, 255, (images, 8, 8, 3)).astype(np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse])
    return np.clip(smooth + random.randn(images, side, side, 3) * 6, 0, 255).astype(np.uint8)


def words(picture):
    return " ".join(texts(picture))


# Confusion matrices


def test_confusion_is_of_the_last_epoch_and_by_class():
    r = record()
    r = replace(r, data=replace(r.data, classes=["ant", "bee", "wasp", "fly"]))
    labels = np.array([0, 0, 1, 2, 2, 2], np.uint8)
    images = ImageResults(labels=labels, predicted=np.array([labels, [0, 2, 1, 0, 0, 2]], np.uint8))
    expected = [[1 / 2, 0, 1 / 2, 0], [0, 1, 0, 0], [2 / 3, 0, 1 / 3, 0], [np.nan] * 4]  # there is no image of a fly
    assert np.allclose(confusion(r, images), expected, equal_nan=True)
    picture = confusions("confusion-x", "insects", {"q1_2-finetune": [r]}, lambda _: images)
    assert {"66.7", "33.3", "50.0", "100.0"} <= set(texts(picture)) and "wasp 33 %" in picture.alt


def test_shares_can_be_read_on_any_blue():
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    def luminance(colours):
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    shares = np.linspace(0, 1, 1001)
    colours = colormaps["Blues"](shares)[:, :3], np.array([to_rgb(ink_on_blues(s)) for s in shares])
    both = [luminance(of) for of in colours]
    assert ((np.maximum(*both) + 0.05) / (np.minimum(*both) + 0.05)).min() >= 4.5


def test_cells_are_means_over_seeds_with_their_spread():
    labels = np.repeat(np.array([0, 1], dtype=np.uint8), 10)
    runs = [record(seed=0), record(seed=1)]
    right = {0: [[1] * 8 + [0] * 2 + [1] * 10], 1: [[1] * 6 + [0] * 4 + [1] * 10]}
    read = lambda r: two_classes(right=np.array(right[r.seed], dtype=bool), labels=labels)  # noqa: E731
    picture = confusions("confusion-x", "embedded", {"q1_2-finetune": runs, "q1_3-scratch": []}, read)
    assert texts(picture).count("± 14.1") == 2 and {"70.0", "30.0", "100.0", "0.0"} <= set(texts(picture))
    assert "heavy_makeup 70 %; no_heavy_makeup 100 %" in picture.alt and "2 seeds a row" in picture.caption
    assert confusions("confusion-x", "embedded", {"q1_2-finetune": runs}, lambda _: None) is None


# Where networks look


def test_the_images_disagreed_about_come_first_and_ties_go_by_index():
    rows = [[0.9, 0.9, 0.9, 0.9, 0.6], [0.9, 0.9, 0.2, 0.9, 0.6], [0.9, 0.1, 0.3, 0.9, 0.9], [0.9, 0.1, 0.4, 0.9, 0.6]]
    p = np.array(rows)
    p = np.stack([p, 1 - p], -1)
    # 1: two against two; 2: three against one; then by how far probabilities lie apart; 0 and 3 are the same
    assert disputed(p, 5) == [1, 2, 4, 0, 3] and disputed(p, 2) == [1, 2]
    sure = np.array([0.9, 0.6, 0.99, 0.51])
    assert disputed(np.stack([sure, 1 - sure], 1)[None], 3) == [3, 1, 0]  # one network: where it is least sure


def faces(left=True, images=4):
    """8 px pictures whose left half is the face."""
    masks = np.zeros((images, 8, 8), dtype=bool)
    masks[:, :, :4] = True
    labels = np.arange(images, dtype=np.uint8) % 2
    return packed(noise(images, 8), labels=labels, faces=masks if left else None)


def heat_shares(heat, pictures, seeds=(0,)):
    runs = [record(seed=s) for s in seeds]
    return heat_in_face({"q1_2-finetune": runs}, lambda r: shown(r, [[0.5, 0.5]] * len(heat), heat), lambda _: pictures)


def test_the_share_in_the_face_of_heat_in_one_cell_by_hand_and_in_the_dot_plot():
    heat = np.zeros((4, 1, 2))
    heat[:, 0, 0] = 255
    (found,) = heat_shares(heat, faces())
    # across 8 pixels the left of two cells counts 1, 1, 7/8, 5/8, 3/8, 1/8, 0, 0: 3.5 of 4 in the left half
    assert found.share.mean == pytest.approx(3.5 / 4) and found.area == 0.5 and found.where == "the face"
    assert found.images == 4 and found.share.n == 1
    picture = looked_at("attention-share-x", "mine", [found])
    assert {"87.5 %", "its area: 50.0 %"} <= set(texts(picture)) and "87.5 %" in picture.alt
    assert "interval" not in picture.caption  # of one seed
    assert looked_at("attention-share-x", "mine", []) is None


def test_even_heat_gives_the_area_and_images_without_heat_do_not_count():
    heat = np.full((4, 3, 3), 7)
    heat[3] = 0
    (found,) = heat_shares(heat, faces(), seeds=(0, 1))
    assert found.images == 3 and found.share.n == 2
    assert (found.share.mean, found.share.low, found.share.high, found.area) == pytest.approx((0.5,) * 4)
    assert heat_shares(heat * 0, faces()) == heat_shares(heat, None) == []


def test_where_no_face_is_known_the_central_half_stands_for_it():
    (found,) = heat_shares(np.full((4, 3, 3), 255), faces(False))
    assert found.where == "the central half of the picture" and found.area == 36 / 64  # 6 of 8 px: nearest to half
    picture = looked_at("attention-share-x", ALL, [found])
    assert "these pictures do not tell: a square of half the area" in picture.caption and "56.2 %" in words(picture)
    assert "<script>" not in picture.caption and "\n" not in picture.alt


def test_maps_whose_cells_all_reach_as_far_into_a_part_say_nothing_of_it():
    heat = np.random.default_rng(0).integers(0, 255, (4, 2, 2))
    assert heat_shares(heat, faces(False)) == [] != heat_shares(heat, faces())
    differing = packed(noise(2, 8), labels=np.arange(2, dtype=np.uint8), faces=np.arange(128).reshape(2, 8, 8) < 40)
    assert heat_shares([[[255]]] * 2, differing) == []  # one cell, faces that differ


def many_rows(names, images, side, heat=3):
    """Groups of one run each, their samples and pictures."""
    random = np.random.RandomState(0)
    groups = {record(n).row: [record(n)] for n in names}
    p = {r.fingerprint: random.rand(images) for runs in groups.values() for r in runs}
    maps = random.randint(0, 256, (images, heat, heat))
    pictures = packed(noise(images, side), labels=np.arange(images, dtype=np.uint8) % 2)
    return groups, lambda r: shown(r, np.stack([p[r.fingerprint], 1 - p[r.fingerprint]], 1), maps), lambda _: pictures


def test_right_and_wrong_are_told_by_mark_and_word_and_the_probability_below():
    r, labels = record(), np.array([0, 1], dtype=np.uint8)
    pictures = packed(noise(2, 16), labels=labels, names=("val/a.jpg", "val/b.jpg"))
    e = shown(r, [[0.75, 0.25], [0.875, 0.125]], [[[255]]] * 2)
    picture = saliency("attention-maps-x", "embedded", {r.row: [r]}, lambda _: e, lambda _: pictures)
    assert {"✓ right 0.75", "✗ wrong 0.88", "heavy_makeup", "no_heavy_makeup", "val/a.jpg"} <= set(texts(picture))
    assert "val/b.jpg is no_heavy_makeup, q1_2-finetune: wrong 0.88" in picture.alt and "1 x 1" in picture.caption


def test_a_row_without_a_map_says_why_and_a_study_without_any_has_no_picture():
    groups = {r.row: [r] for r in map(record, ("q1_2", "q1_3"))}
    pictures = packed(noise(2, 16), labels=np.array([0, 1], dtype=np.uint8))

    def samples(r):
        seen = dict(heat=[[[9]]] * 2) if r.row == "q1_2-finetune" else dict(why="tokens")
        return shown(r, [[0.7, 0.3]] * 2, **seen)

    picture = saliency("attention-maps-x", "embedded", groups, samples, lambda _: pictures)
    assert "No map of q1_3-scratch: tokens." in picture.caption and "q1_3-scratch" in picture.alt
    without = {"q1_3-scratch": groups["q1_3-scratch"]}
    for of, read, seen in ((without, samples, pictures), (groups, lambda _: None, pictures), (groups, samples, None)):
        assert saliency("attention-maps-x", "embedded", of, read, lambda _, seen=seen: seen) is None


def test_heat_maps_are_small():
    names = ("q1_1", "q1_2", "q1_3", "q1_5", "q1_6", "q1_8", "q1_c8", "q1_f1")
    groups, samples, pictures = many_rows(names, 7, 256, heat=13)
    picture = saliency("attention-maps-x", "embedded", groups, samples, pictures)
    assert picture.svg.count("<image") == 6 * 8 + 1 and "1 further row." in picture.caption  # and the bar of colours
    assert len(picture.svg) < 1_500_000


# Scenes


def test_scenes_are_spread_from_least_to_most():
    assert spread_over(np.array([5.0, 1, 4, 2, 3, 0, 6]), 4) == [5, 3, 2, 6]
    assert spread_over(np.array([1.0, 1, 0]), 4) == [2, 0, 1] and spread_over(np.array([2.0]), 4) == [0]


def test_class_maps_shrink_without_new_classes():
    numbers = np.repeat(np.array([[0, 11], [3, 8]], dtype=np.uint8), 100, 0).repeat(100, 1)
    small = shrink_map(numbers, 160)
    assert small.shape == (160, 160) and (small[:80, 80:] == 11).all() and set(small.ravel()) == {0, 3, 8, 11}
    assert shrink_map(numbers, 200) is not numbers and (shrink_map(numbers, 200) == numbers).all()


def two_arms(side=32, images=6, rows=("q2_1a", "q2_1b")):
    random = np.random.RandomState(0)
    blocks = random.randint(0, 12, (images, 8, 8)).astype(np.uint8)
    masks = blocks.repeat(side // 8, 1).repeat(side // 8, 2)
    groups = {record(n).row: [record(n)] for n in rows}
    predicted = {}
    for number, runs in enumerate(groups.values()):
        wrong = random.rand(*masks.shape) < 0.2 * (1 + number)
        predicted[runs[0].fingerprint] = np.where(wrong, 3, np.minimum(masks, 10)).astype(np.uint8)
    pictures = packed(noise(images, side), masks=masks)
    return groups, predictions(lambda r: predicted[r.fingerprint]), lambda _: pictures


def predictions(of):
    """Samples of runs that predict for the pictures what `of` says of each."""
    return lambda r: mask_samples(r, index=np.arange(len(of(r))), predicted=of(r))


def test_the_shares_below_the_scenes_are_of_labelled_pixels():
    masks = np.zeros((1, 8, 8), dtype=np.uint8)
    masks[:, :, 6:] = VOID  # 48 labelled pixels
    fused, plain = np.zeros_like(masks), np.zeros_like(masks)
    plain[:, :3] = 1  # 18 right only with skips
    fused[:, 3:5] = 2  # 12 right only without
    fused[:, 6] = plain[:, 6] = 1  # 6 wrong in both alike
    fused[:, 7], plain[:, 7] = 1, 2  # 6 otherwise
    groups = {record(n).row: [record(n)] for n in ("q2_1a", "q2_1b")}
    of = dict(zip(groups, (fused, plain), strict=True))
    arms = find_arms(groups, predictions(lambda r: of[r.row]), lambda _: packed(noise(1, 8), masks=masks))
    picture = scenes("panels-x", "embedded", arms, CAMVID["colours"])
    assert "37.5 · 25.0 · 12.5 %" in texts(picture) and "37.5 · 25.0 · 12.5 %" in picture.caption
    assert {"50.0 % of pixels right", "37.5 % of pixels right", "void: not labelled"} <= set(texts(picture))
    assert "37.5, 25.0 and 12.5 %" in picture.alt and "both wrong, differently" in texts(picture)


def test_arms_are_any_two_rows_that_differ_in_skips_alone_at_a_seed_both_have():
    groups, samples, pictures = two_arms(rows=("q2_3", "q2_n1b", "q2_1b", "q2_n1a"))
    arms = find_arms(groups, samples, pictures)
    assert (arms.first.row, arms.second.row, arms.skips) == ("q2_n1a-fused_norm", "q2_n1b-plain_norm", True)

    runs = {"a": [record("q2_1a", s) for s in (0, 1)], "b": [record("q2_1b", s) for s in (1, 2)]}
    seen = {r.fingerprint: samples(groups["q2_n1a-fused_norm"][0]) for of in runs.values() for r in of}
    arms = find_arms(runs, lambda r: seen[r.fingerprint], pictures)
    assert (arms.first.seed, arms.second.seed) == (1, 1)
    other = replace(seen[runs["b"][0].fingerprint], pictures="b" * 64)
    assert find_arms(runs, lambda r: other if r.row == "q2_1b-noskip" else seen[r.fingerprint], pictures) is None
    assert find_arms({"a": runs["a"]}, lambda r: seen[r.fingerprint], pictures) is None
    assert find_arms(runs, lambda r: None, pictures) is None


def test_rows_that_differ_in_something_else_are_shown_by_their_names():
    """As of a network of the user's own, with and without something; not those of other classes."""
    groups, samples, pictures = two_arms(rows=("q2_3", "q2_1a", "q2_n1a"))
    arms = find_arms(groups, samples, pictures)
    assert (arms.first.row, arms.second.row, arms.skips) == ("q2_1a-skip", "q2_n1a-fused_norm", False)
    found = pictures_of(QUICK, SEGMENTATION, groups, lambda _: None, samples, pictures)
    heading, picture = found[0]
    assert heading == "What networks make of scenes" and picture.stem == "panels-segmentation-embedded"
    assert {"right only in q2_1a-skip", "right only in q2_n1a-fused_norm"} <= set(texts(picture))
    assert "right only in q2_1a-skip · right only in q2" in picture.caption and "by q2_1a-skip and q2_n" in picture.alt
    assert "with" not in f"{picture.alt} {picture.caption}".replace("within", "")


def test_scenes_are_small_and_the_same_each_time():
    one, two = (scenes("panels-x", "embedded", find_arms(*two_arms(256)), {}) for _ in range(2))
    assert one == two and len(one.svg) < 1_500_000 and one.svg.count("<image") == 4 * 5
    assert re.findall("data:image/(png|jpeg)", one.svg).count("png") == 4 * 4  # class maps keep their colours


def test_three_classes_have_their_own_names_and_no_void():
    groups, _, pictures = two_arms(rows=("q2_3", "q2_c3"))
    samples = predictions(lambda r: np.full((6, 32, 32), r.row == "q2_3-3class", np.uint8))
    picture = scenes("panels-x", "embedded", find_arms(groups, samples, pictures), {})
    assert {"Sky", "everything else"} <= set(texts(picture)) and "void: not labelled" not in texts(picture)


def test_bars_are_means_over_seeds_and_say_which_class_is_never_met():
    def run(seed, sky):
        r = record("q2_1a", seed)
        return replace(r, by_class=r.by_class | {"set_iou": [sky, 0.0, float("nan"), 0.001, *[0.5] * 7]})

    groups = {"q2_1a-skip": [run(0, 0.8), run(1, 0.9)], "q2_3-3class": [record("q2_3")]}
    (title, eleven), (other, three) = by_classes(groups)
    assert (title, other) == ("11 classes", "3 classes")
    picture = iou_bars("iou-11-x", "embedded", eleven)
    told = texts(picture)
    assert [told.count(t) for t in ("0.85", "never", "-", "< 0.01", "0.50")] == [1, 1, 1, 1, 7]
    assert "q2_1a-skip: Sky 0.85; Building never; Pole -; Road < 0.01" in picture.alt and "q2_3" not in picture.alt
    alone = iou_bars("iou-3-x", "embedded", three)
    assert "line: its 95 % interval, 2 seeds a row" in picture.caption and "interval" not in alone.caption
    assert "everything else" in words(alone)


def test_rows_with_as_many_but_other_classes_stand_apart():
    other = record("q2_3", 1)
    merge = {"Sky": ["Sky", "Tree"], "a": CLASSES[1:5], "b": CLASSES[6:]}
    other = replace(other, row="other", settings=other.settings | {"merge": merge})
    found = by_classes({"three": [record("q2_3")], "again": [record("q2_c3")], "other": [other]})
    assert {title: [*rows] for title, rows in found} == {"3 classes": ["three", "again"], "3 classes (2)": ["other"]}
    assert [class_names(runs[0])[1] for _, rows in found for runs in rows.values()] == ["everything else"] * 2 + ["a"]


def test_colours_are_the_users_and_made_where_there_are_none():
    merged = merge_classes(["a", "b", "c"], {"x": ["b", "c"]})
    given = palette_of(["a", "b", "c"], merged, {"a": (1, 2, 3), "b": (4, 5, 6), "void": (9, 9, 9)})
    assert given.tolist() == [[1, 2, 3], [4, 5, 6], [9, 9, 9]]  # x as its first class
    many = [f"class {i}" for i in range(255)]
    made = palette_of(many, merge_classes(many, {}), {"class 3": (0, 0, 0)})
    assert made.shape == (256, 3) and made[3].tolist() == made[255].tolist() == [0, 0, 0]
    assert len(np.unique(np.delete(made, (3, 255), 0), axis=0)) > 245
    assert palette_of(many[:2], merge_classes(many[:2], {}), {}).tolist() == [*made[:2].tolist(), [0, 0, 0]]


# The page


def test_a_page_without_samples_has_what_records_give_and_says_so():
    images = results(images=4)
    q1, q2 = ({record(n).row: [record(n)] for n in names} for names in (("q1_1", "q1_2"), ("q2_1a", "q2_3")))
    nothing = dict(samples=lambda _: None, pictures=lambda _: None)
    found = pictures_of(QUICK, CLASSIFICATION, q1, lambda _: images, **nothing)
    assert [p.stem for _, p in found] == ["confusion-classification-embedded"]
    found = pictures_of(QUICK, SEGMENTATION, q2, lambda _: None, **nothing)
    of_both = {f"iou-{n}-segmentation-embedded": f"IoU by class, {n} classes" for n in (11, 3)}
    assert {p.stem: h for h, p in found} == of_both
    page = report_page(QUICK, [*q2[min(q2)], *q2[max(q2)]], None, {}, pictures={("segmentation", "embedded"): found})
    assert page.count("No validation pictures are shown") == 1
    assert pictures_of(QUICK, CLASSIFICATION, {}, lambda _: images, **nothing) == []


def test_a_page_has_every_picture_its_rows_allow_nightly_rows_first():
    groups, samples, pictures = many_rows(("q1_f1", "q1_c8", "q1_2"), 4, 16)
    found = pictures_of(
        QUICK, CLASSIFICATION, groups, lambda _: results(images=4), samples, pictures, data="mine / own"
    )
    stems = [f"{kind}-classification-mine---own" for kind in ("confusion", "attention-maps", "attention-share")]
    assert [p.stem for _, p in found] == stems
    assert found[2][0] == "How much of the heat lies in the central half of the picture"
    titles = [t for t in texts(found[1][1]) if t in ("q1_2-finetune", "q1_f1-net", "q1_c8-scratch")]
    assert titles == ["q1_2-finetune", "q1_c8-scratch", "q1_f1-net"]
    groups, *seen = two_arms()
    found = pictures_of(QUICK, SEGMENTATION, groups, lambda _: None, *seen)
    assert [p.stem for _, p in found] == ["panels-segmentation-embedded", "iou-11-segmentation-embedded"]


# Names from outside


def renamed(groups, name, *classes):
    """The same runs on data of that name, whose first classes are called so."""
    return {
        row: [replace(r, data=replace(r.data, name=name, classes=[*classes, *r.data.classes[len(classes) :]]))]
        for row, (r,) in groups.items()
    }


@pytest.mark.parametrize("name", ["$\\frac{$", ALL])
def test_names_in_pictures_are_text(name):
    groups, samples, _ = many_rows(("q1_2", "q1_3"), 2, 16)
    q1 = renamed(groups, name, name[:60], "$x$ ]]>\n`b` \x1b[1m")
    seen = packed(noise(2, 16), labels=np.array([0, 1], np.uint8), names=(name, "val/\udcff.jpg"))
    found = pictures_of(QUICK, CLASSIFICATION, q1, lambda _: results(images=2), samples, lambda _: seen)
    q2, samples, pictures = two_arms()
    found += pictures_of(QUICK, SEGMENTATION, renamed(q2, name, name[:60]), lambda _: None, samples, pictures)
    assert len(found) == 5
    others = forest([*outcomes(name), *outcomes(name + "2")], QUICK), drawn("q1_1", data=name)
    for picture in (*others, *(picture for _, picture in found)):
        tags = {e.tag.rpartition("}")[2] for e in ElementTree.fromstring(picture.svg.encode()).iter()}
        assert tags <= {"svg", "style", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect", "image"}, tags
        assert "<script" not in picture.caption and picture.alt.isprintable() and "\x1b" not in picture.svg
