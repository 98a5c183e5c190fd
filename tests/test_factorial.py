"""Factorial effects: by hand and against a least-squares fit of the coded design."""

import itertools
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvhw4 import Factorial, InputError, Recipe, Row, Study, claims_without, effects_section, factorial, leave_one_out
from cvhw4.readers import LoggedRun, Wanted, judged_study
from cvhw4.records.store import Store
from cvhw4.report.evidence import evidence
from cvhw4.report.page import write_pages
from cvhw4.statistics.factorial import effects
from tests.helpers.tiny import QUICK, record


def cells(k):
    return list(itertools.product((False, True), repeat=k))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_effects_are_twice_the_coefficients_of_a_least_squares_fit(k, n, seed):
    order = cells(k)
    values = np.random.default_rng(seed).random((2**k, n))
    found = effects(dict(zip(order, values.tolist(), strict=True)), tuple("abcd"[:k]))
    coded = np.where(order, 1.0, -1.0)
    subsets = [s for r in range(1, k + 1) for s in itertools.combinations(range(k), r)]
    design = np.stack([np.ones(2**k), *(coded[:, s].prod(1) for s in subsets)], axis=1)
    by_seed = np.linalg.lstsq(design, values, rcond=None)[0][1:]  # [effects, n]
    pooled = np.linalg.lstsq(np.repeat(design, n, axis=0), values.ravel(), rcond=None)[0][1:]
    assert [" x ".join("abcd"[f] for f in s) for s in subsets] == list(found)
    assert [e.mean for e in found.values()] == pytest.approx(2 * pooled, abs=1e-12)
    if n > 1:
        assert [e.sd for e in found.values()] == pytest.approx(2 * by_seed.std(1, ddof=1), abs=1e-12)


WHOLE = {cell: [0.1, 0.2] for cell in cells(2)}


@pytest.mark.parametrize(
    ("figures", "factors", "told"),
    [
        ({cell: WHOLE[cell] for cell in cells(2)[:3]}, "ab", r"4 cells.*\(True, True\)"),
        (WHOLE, "abc", "8 cells"),
        (WHOLE | {(True, True): [0.1]}, "ab", "different numbers of runs"),
        ({cell: [] for cell in WHOLE}, "ab", "at least one value"),
        (WHOLE, "", "different names"),
        (WHOLE, "aa", "different names"),
    ],
)
def test_incomplete_designs_are_refused(figures, factors, told):
    with pytest.raises(ValueError, match=told):
        effects(figures, tuple(factors))


# The rows of designs

SHORT = Recipe(size=64, epochs=2)


def test_one_thing_is_left_out_at_a_time():
    base = Row("fcn8s/resnet18", skips=True, recipe=SHORT)
    several = {"steps": {"lr": 0.1, "lr_step": 3}, "start": "random"}
    rows = leave_one_out(base, {"skips": False, "lr": 0.01} | several)
    assert {**rows} == {
        "full": base,
        "without_skips": replace(base, skips=False),
        "without_lr": replace(base, recipe=replace(SHORT, lr=0.01)),
        "without_steps": replace(base, recipe=replace(SHORT, lr=0.1, lr_step=3)),
        "without_start": replace(base, start="random"),
    }
    assert leave_one_out({"depth": 2, "norm": True}, {"norm": False})["without_norm"] == {"depth": 2, "norm": False}
    claims = claims_without(["skips", "lr"], "miou")
    study = Study("own", data="nowhere", classes=2, rows=rows, claims=claims)
    assert study.claims == claims
    (shown,) = ElementTree.fromstring(f"<p>{study.rows._repr_html_()}</p>")  # in a notebook
    head, *lines = [[cell.text.strip() for cell in line] for line in shown.iter("tr")]
    assert [line[0] for line in lines] == [*rows] and "momentum" not in head  # which all have alike
    assert [line[head.index("skips")] for line in lines] == ["yes", "no", "yes", "yes", "yes"]
    assert [line[head.index("lr")] for line in lines] == ["0.0005", "0.0005", "0.01", "0.1", "0.0005"]
    assert [line[head.index("start")] for line in lines] == [*4 * ["imagenet"], "random"]
    assert claims[1].rows == ("full", "without_lr") and claims[0].sentence == "skips helps: miou"


def test_a_factorial_has_every_combination_and_a_study_takes_its_rows():
    base = Row("fcn8s/resnet18", start="random", skips=False, batch_norm="frozen")
    design = factorial(base, {"skips": True, "norm": {"batch_norm": "train"}})
    assert {*design.cells} == {*cells(2)}
    for (skips, norm), name in design.cells.items():
        assert design.rows[name] == replace(base, skips=skips, batch_norm="train" if norm else "frozen")
    assert [*design.rows] == ["base", "norm", "skips", "skips_norm"]
    study = Study("streets", data="nowhere", classes=2, rows=design.rows, sections=[effects_section(design, "miou")])
    assert [*study.rows] == [*design.rows]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: leave_one_out(Row("resnet18"), {"depth": 3}), "change depth: sets depth, which no row has"),
        (lambda: leave_one_out(Row("resnet18"), {"lr": 3}), "change lr: sets lr of a row without a recipe"),
        (lambda: factorial(Row("resnet18"), {"start": "imagenet"}), "change start: is 'imagenet', which the row has"),
        (lambda: factorial({"a": 1}, {}), "factorial: has no changes"),
        (lambda: factorial({"a_b": 0, "a": 0, "b": 0}, {"a_b": 1, "a": 1, "b": 1}), "row a_b: is there twice"),
        (
            lambda: factorial({"lr": 0}, {"slow": {"lr": 1}, "fast": {"lr": 2}}),
            "row slow_fast: is trained as another row",
        ),
        (lambda: leave_one_out({"attention": True}, {"atention": False}), "sets atention, which the row has not"),
        (lambda: leave_one_out("resnet18", {"start": "random"}), "design: has base='resnet18'. Fix: give a Row"),
        (lambda: factorial(Row("resnet18"), ["start"]), r"design: has changes=\['start'\]. Fix: write them as"),
    ],
)
def test_a_design_that_is_none_is_refused(make, told):
    with pytest.raises(InputError, match=told):
        make()


def test_a_section_has_the_effects_of_the_stored_runs():
    design = Factorial(("skips", "norm"), {(False, False): "q2_1b-noskip", (True, False): "q2_1a-skip",
                       (False, True): "q2_n1b-plain_norm", (True, True): "q2_n1a-fused_norm"}, {})  # fmt: skip
    level = {"q2_1b": 0.1, "q2_1a": 0.3, "q2_n1b": 0.2, "q2_n1a": 0.5}
    runs = [record(row, s, figures=((v + s / 100,),)) for row, v in level.items() for s in range(3)]
    (e,) = evidence(QUICK, runs, lambda run: None)
    heading, text, lines, picture, cells = effects_section(design, "miou", "Skips or norm?")(e)
    assert heading.startswith("## Skips or norm?") and "with the same 3 seeds" in text and "+0.400" in text
    flat = " ".join(lines.split())
    # main effects by hand: ((.3 - .1) + (.5 - .2)) / 2, ((.2 - .1) + (.5 - .3)) / 2; interaction (.3 - .2) / 2
    for name, value in (("skips", "+0.250"), ("norm", "+0.150"), ("skips x norm", "+0.050")):
        assert f"| {name} | {value} [" in flat
    assert "skips x norm" in picture.svg
    assert "| q2_1a-skip | 0.310 [0.285, 0.335] | yes | no |" in " ".join(cells.split())
    assert effects_section(design, "miou")(evidence(QUICK, runs[:3], lambda run: None)[0]) == []
    later = [replace(r, epochs=[replace(e, figures=e.figures | {"f1": 0.5}) for e in r.epochs]) for r in runs[1:]]
    parts = effects_section(design, "f1")(evidence(QUICK, [runs[0], *later], lambda run: None)[0])
    assert "with the same 2 seeds" in parts[1]  # one is of before the study had the metric
    _, alone, _, point, _ = effects_section(design, "miou")(evidence(QUICK, runs[::3], lambda run: None)[0])
    assert "intervals over seeds" in text and "its 95 % interval" in picture.caption
    assert "same 1 seed;" in alone and "n = 1 seed." in point.caption and "interval" not in alone + point.caption


def test_a_study_without_claims_has_its_effects_on_the_page(tmp_path):
    design = factorial({"depth": 2, "norm": False}, {"depth": 8, "norm": True})
    logged = [
        LoggedRun(where="", values={"row": row, "seed": seed}, history=[{"iou": 0.5 + i / 10 + seed / 100}])
        for seed in range(2)
        for i, row in enumerate(design.rows)
    ]
    other, records = judged_study("own", logged, Wanted(figures={"iou": "iou"}), [], "a test")
    section = effects_section(design, "iou", "Depth or norm?")
    study = Study("own", train=other.train, rows=design.rows, primary="iou", sections=[section])
    store = Store(tmp_path, "own")
    for run in sorted(records, key=lambda r: r.seed):
        if run.seed == 1 and not list(store.folder.glob("*.html")):
            assert [path.name for path, _ in write_pages(study, store, None, {})] == ["report.md", "report.html"]
        store.save(run)
    assert len(write_pages(study, store, None, {})) == 3
    page = (store.folder / "verdicts.md").read_text()
    assert "## Depth or norm?" in page and "| depth x norm |" in page and "No claim" not in page
    assert list((store.folder / "figures").glob("section-effects-*.svg"))
