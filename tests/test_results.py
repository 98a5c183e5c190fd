"""The committed pages are those of the committed records, and README shows their table."""

import re

import pytest

from cvhw4 import homework
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.agreement import agreement_page, settings_of
from cvhw4.report.page import agreement_of, pictures_of_report, tables_in, write_tables
from cvhw4.report.results import report_page
from cvhw4.report.runs import by_row
from cvhw4.report.stored import Stored
from cvhw4.report.verdicts import verdicts_page
from cvhw4.statistics.bounds import load_bounds
from cvhw4.statistics.calibration import calibrate
from cvhw4.statistics.sensitivity import detections
from cvhw4.tasks import TRAINING_LOSSES
from tests.helpers import ROOT
from tests.helpers.records import committed_results

QUICK, SEEDS = homework.study("quick"), 20
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(committed_results(tmp_path_factory.mktemp("committed")), "quick")


@pytest.fixture(scope="module")
def records(store):
    return latest_runs(store.load())


@pytest.fixture(scope="module")
def bounds():
    return load_bounds(ROOT / "benchmarks" / "bounds.toml", QUICK)


def assert_same(page, committed):
    """The same words, and numbers that differ by rounding at most: by one step of the last of three decimals."""
    flat = [re.sub(r"[ \-]{2,}", " ", text) for text in (page, committed)]
    assert NUMBER.sub("#", flat[0]) == NUMBER.sub("#", flat[1])
    for one, other in zip(*(NUMBER.findall(text) for text in flat), strict=True):
        assert float(one.replace(",", "")) == pytest.approx(float(other.replace(",", "")), rel=1e-6, abs=1.001e-3)


def test_every_row_with_bounds_or_claims_has_its_seeds(records, bounds):
    for row in {row for claim in QUICK.claims for row in claim.rows} | {*bounds.rows}:
        assert len({r.seed for r in records if r.row == row}) >= SEEDS, row


def test_the_tables_are_the_records(records, store, bounds):
    pictures = pictures_of_report(Stored(QUICK, store))
    rows = [r for r in records if r.row in QUICK.rows]
    tables = tables_in(QUICK, store.folder)
    more = {"tables": tables, "verdicts": True, "agreement": agreement_of(store.folder)}
    page = report_page(QUICK, rows, bounds, {}, pictures=pictures, **more)
    assert page.count("](tables/") == 2 * len(QUICK.tables)
    assert_same(page, (store.folder / "report.md").read_text("utf-8"))
    assert all((store.folder / "figures" / f"{p.stem}.svg").is_file() for found in pictures.values() for _, p in found)


def test_the_pages_of_other_pictures_are_their_records_and_show_no_real_ones(store):
    results = store.folder.parent
    real = [Store(folder.parents[1], folder.parent.name) for folder in results.glob("*/*/runs")]
    real += [Store(results, name) for name in ("full-lite0", "full") if (results / name / "runs").is_dir()]
    assert real
    for of in real:
        study = next(s for s in homework.studies() if s.name == of.folder.name)
        bounds = load_bounds(ROOT / "benchmarks" / "bounds.toml", study)
        found = Stored(study, of, bounds)
        same = of.folder.parent.name == "same-pictures"
        assert all(r.data.embedded == same and not r.data.redrawn for r in found.records)
        pictures, verdicts = pictures_of_report(found), (of.folder / "verdicts.md").is_file()
        more = {"verdicts": verdicts, "agreement": agreement_of(of.folder)}
        page = report_page(study, found.rows, bounds, {}, pictures=pictures, **more)
        assert_same(page, (of.folder / "report.md").read_text("utf-8"))
        if same:
            assert min(len(of_row) for of_row in by_row(found.rows).values()) >= SEEDS
            page = verdicts_page(study, found.records, found.images, bounds, judged=found.outcomes)[0]
            assert_same(page, (of.folder / "verdicts.md").read_text("utf-8"))
        shown = ("*.samples.npz", "pictures/*", "attention-maps-*", "panels-*")
        if not all(r.data.embedded for r in found.records):
            assert not [path for pattern in shown for path in of.folder.rglob(pattern)]


def test_the_tables_for_papers_are_of_the_records(records, store, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without LaTeX: PDFs are test_papers'
    with pytest.warns(UserWarning, match="pdflatex is not installed"):
        written = write_tables(QUICK, records, tmp_path)
    committed = store.folder / "tables"
    assert [path.name for path in written] == [f"{name}.tex" for name in QUICK.tables]
    for path in written:
        assert_same(path.read_text("utf-8"), (committed / path.name).read_text("utf-8"))
        assert (committed / path.with_suffix(".pdf").name).is_file()


def test_the_verdicts_are_the_records(records, store, bounds):
    page, pictures = verdicts_page(QUICK, records, store.images, bounds)
    assert_same(page, (store.folder / "verdicts.md").read_text("utf-8"))
    assert pictures and all((store.folder / "figures" / f"{p.stem}.svg").is_file() for p in pictures)


def test_the_agreement_is_of_the_records(store):
    results = store.folder.parent
    page = agreement_page(settings_of(homework.studies(), [results]), results)
    assert_same(page, (results / "agreement.md").read_text("utf-8"))


def test_readme_shows_first_what_real_pictures_say():
    readme = (ROOT / "README.md").read_text("utf-8")
    page = (ROOT / "results" / "agreement.md").read_text("utf-8").split("## On real pictures")[1]
    table = re.search(r"^\| claim .*?\n\n", page, re.M | re.S)[0].strip()
    assert table in readme
    assert readme.index(table) < min(m.start() for m in re.finditer(r"^\|", readme, re.M)) + 1


def test_the_bounds_are_those_of_the_records(records, bounds):
    twins = latest_runs(Store(ROOT / "benchmarks" / "twins", "quick").load())
    made = calibrate(QUICK, records, bounds.false_alarms, bounds.seeds, twins)
    assert made.rows.keys() == bounds.rows.keys() and made.claims.keys() == bounds.claims.keys()
    assert (made.data, made.outliers, made.nights) == (bounds.data, bounds.outliers, bounds.nights)
    assert (made.twins, made.twins_on) == (bounds.twins, bounds.twins_on) and len(made.twins) > 2
    assert made.held_out == pytest.approx(bounds.held_out)
    pairs = [(made.rows[row][name], bound) for row, figures in bounds.rows.items() for name, bound in figures.items()]
    pairs += [(made.claims[id], bound) for id, bound in bounds.claims.items()]
    for ours, committed in pairs:
        assert ours.scale == committed.scale
        assert vars(ours) == pytest.approx(vars(committed) | {"scale": ours.scale}, abs=2e-4)


def test_another_makes_sessions_of_three_seeds_meet_every_bound(bounds):
    """None of its runs is in the ordinary bounds; of the same-seed check they are the twins."""
    of_rows = by_row(latest_runs(Store(ROOT / "benchmarks" / "twins", "quick").load())).values()
    sessions = [sorted(runs, key=lambda r: r.seed)[i : i + 3] for runs in of_rows for i in range(0, 18, 3)]
    assert len(sessions) == 84 and not [told for runs in sessions for told in bounds.missed(*runs)]


def test_small_corruptions_are_noticed_by_the_bounds_and_by_a_first_epoch(bounds):
    """From the stored runs; of rows that two makes of processors give alike, and with every seed."""
    records = Store(ROOT / "results", "quick").load()
    chance = {(d.control.name, d.strength): d.probability for d in detections(QUICK, records, bounds)}
    weak = {
        "q1_5x-label_noise": 0.05,
        "q1_1x-learning_rate": 1.5,
        "q2_n1ax-mask_shift": 2,
        "q2_n1ax-fewer_images": 0.05,
    }
    weak |= {"q2_n1ax-classes_swapped": 0.1}
    assert all(chance[control] >= 0.9 for control in weak.items()), chance
    controls = {c.of(QUICK, strength).name: c.row for c in QUICK.controls for strength in c.strengths}
    paired = [(r, bounds.first_epoch(r, controls[r.row])) for r in records if r.row in controls]
    apart = [(r.row, abs(r.epochs[0].loss - of[0]) / of[1]) for r, of in paired if not isinstance(of, str)]
    has_to_be = {c.of(QUICK, c.strengths[0]).name for c in QUICK.controls}
    assert {row for row, _ in apart} == {*controls}
    assert min(by for row, by in apart if row in has_to_be or not row.startswith(("q1_2", "q1_6"))) > 1, apart


def test_every_bound_is_possible_and_says_something(bounds):
    """Whatever scale it was made on: of shares within 0 and 1 and less than half of that wide, of losses above 0 and
    within a factor of ten; and of what night it is missed without reason is measured, and no more than stated."""
    assert bounds.held_out <= bounds.false_alarms == 0.01
    for row, figures in bounds.rows.items():
        assert figures, row
        for figure, b in figures.items():
            assert 0 < b.low < b.mean < b.high, (row, figure)
            loss = figure in TRAINING_LOSSES
            assert b.high < (10 * b.low if loss else b.low + 0.5) and (loss or b.high < 1), (row, figure)
    assert all(-1 < b.low < b.high < 1 and b.high - b.low < 0.5 for b in bounds.claims.values())
