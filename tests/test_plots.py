"""Pictures of the report: what they draw are the records' figures, and they are files that pages link."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cvhw4.errors import InputError
from cvhw4.records.store import Store
from cvhw4.report import page
from cvhw4.report.page import pictures_of_report, write_report
from cvhw4.report.plots import band, curves, forest
from cvhw4.report.stored import Stored
from cvhw4.statistics.images import ImageNoise
from cvhw4.statistics.intervals import Estimate, estimate
from cvhw4.statistics.verdicts import judge_all
from tests.helpers.pages import HOSTILE, texts
from tests.helpers.tiny import QUICK, record


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
    assert "prefers-color-scheme:dark" in picture.svg and "currentColor" in picture.svg and "#010203" not in picture.svg
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


@pytest.mark.parametrize("name", ["$\\frac{$", " ".join(HOSTILE)])
def test_names_in_pictures_are_text(name):
    pictures = [forest([*outcomes(name), *outcomes(name + "2")], QUICK), drawn("q1_1", data=name)]
    for picture in pictures:
        tags = {e.tag.split("}")[1] for e in ET.fromstring(picture.svg).iter()}
        assert tags <= {"svg", "style", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect"}, tags
        assert "\n" not in picture.alt


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
    assert all(ET.parse(folder / name).getroot().tag.endswith("svg") for name in linked)


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
