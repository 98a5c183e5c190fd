"""Pages and pictures trust no string from outside: whatever folders, classes and files are called, it shows as text."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cvhw4.errors import printable
from cvhw4.homework.sections import CELLS
from cvhw4.records.images import ImageResults
from cvhw4.records.store import Store
from cvhw4.report import reliability
from cvhw4.report.results import report_page
from cvhw4.report.runs import origins
from cvhw4.report.stored import Stored
from cvhw4.report.tables import table
from cvhw4.report.text import code, escape, file_stem, in_picture
from cvhw4.report.verdicts import verdicts_page, write_verdicts
from cvhw4.statistics.bounds import NO_BOUNDS
from tests.helpers.pages import ALL, HOSTILE, failed, named
from tests.helpers.tiny import MERGED, QUICK, record, two_classes

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])  # with HTML
outside = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from(" \n\t\\`*_{}[]()#+-.!|<>&~$:/=;'\"1aé"), max_size=12),
    st.text(max_size=20),
)


def elements(markdown):
    """Every element of a page in Markdown, in order: blocks and what is inside them, without the text."""
    found = []
    for token in RENDERER.parse(markdown):
        found += [(token.type, token.tag)]
        found += [(t.type, t.tag) for t in token.children or () if t.type != "text"]
    return found


def text_of(markdown):
    """What a page in Markdown reads as, without markup."""
    return "".join(t.content for token in RENDERER.parse(markdown) for t in token.children or ())


@given(outside)
def test_an_escaped_text_reads_as_it_is_and_is_no_markup(text):
    for before, behind in (("", ":"), ("", " is"), ("# A (", ")"), ("- ", ": b"), ("a, ", "; b")):
        page = f"{before}{escape(text)}{behind}"
        assert elements(page) == elements(f"{before}x{behind}"), page
        assert without_spaces(text_of(page)).endswith(without_spaces(f"{printable(text)}{behind}"))
    assert elements(table_with(escape(text))) == elements(table_with("x"))
    assert without_spaces(text_of(table_with(escape(text)))) == without_spaces(f"abac{printable(text)}b")


def without_spaces(text):
    return "".join(text.split())


def table_with(cell):
    return table([{"a": "a", "b": "c"}, {"a": cell, "b": "b"}])


@pytest.mark.parametrize(
    "text",
    [
        "generated portraits (one set)",
        "tf_efficientnet_lite0+linear",
        "a__b",
        "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
        "AMD EPYC 7B13, 64-Core (x2)",
        "torchvision AlexNet_Weights.IMAGENET1K_V1",
        "pytest benchmarks/performance -m speed",
        "2 cats: 100 % #1!",
        "2.15.0",
        "2.0 data",
        "портреты",
    ],
)
def test_ordinary_names_stay_as_they_are(text):
    assert escape(text) == text and code(text) == f"`{text}`" and in_picture(text) == text


@given(outside)
@example("`")
@example("``a`")
@example(" ")
def test_code_is_code_whatever_it_is(text):
    (span,) = [t for token in RENDERER.parse(f"- a: {code(text)}; b") for t in token.children or () if t.tag == "code"]
    assert span.content.strip() == printable(text).strip()
    assert elements(f"- a: {code(text)}; b") == elements("- a: `x`; b")


def test_addresses_are_no_links_and_control_characters_are_shown():
    assert escape("https://a.b/c") == "https\\://a.b/c" and escape("www.a.b") == "www\\.a.b"
    assert escape("a\x1b[2Jb\nc") == "a\\\\x1b\\[2Jb\\\\nc"


@given(outside)
def test_names_of_files_are_plain(text):
    stem = file_stem(text)
    assert stem.isascii() and len(stem) <= 80 and all(c.isalnum() or c == "-" for c in stem)
    assert file_stem("Embedded scenes") == "embedded-scenes"


# Whole pages


ROWS = ("q1_1-features", "q1_2-finetune", "q2_1a-skip", "q2_1b-noskip", "q2_3-3class")


@cache
def report_of(text):
    runs = [r for name in ROWS if name != "q2_3-3class" for r in named(name, text)]
    return report_page(QUICK, runs, None, {"q1_3-scratch": text}, [failed(text), failed(text + "2")])


@settings(max_examples=50, deadline=None)
@example(text=ALL)
@given(outside)
def test_no_text_from_outside_takes_effect_in_the_report(text):
    assert elements(report_of(text)) == elements(report_of("x"))


def scenes(classes, seed):
    """Counts [3, 4, 2, 12, C] of networks that predict 12 pixels of every label as its class or the next."""
    taken = (np.arange(12) + np.random.RandomState(seed).randint(0, 2, (3, 4, 2, 12))) % classes
    return ImageResults(counts=12 * np.eye(classes, dtype=np.uint32)[taken], targets=MERGED[classes].targets)


@cache
def verdicts_of(text):
    def read(r):
        if r.task == "classification":
            return two_classes(right=np.eye(3, 400, r.seed, bool), labels=np.zeros(400, np.uint8))
        return scenes(r.settings["classes"], r.seed)

    rows = (*ROWS, *CELLS.values(), "q2_n1a-fused_norm", "q2_n1b-plain_norm")
    runs = [r for name in dict.fromkeys(rows) for r in named(name, text)]
    return verdicts_page(QUICK, runs, read, NO_BOUNDS, [failed(text)])[0]


@pytest.fixture
def few_draws(monkeypatch):
    """What takes seconds and sees no text."""
    monkeypatch.setattr(reliability, "FEW", 2)
    monkeypatch.setattr(reliability, "SPLITS", 1)
    monkeypatch.setattr("cvhw4.homework.sections._waterfall", lambda figure, *_: figure.subplots())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text=ALL)
@given(outside)
def test_no_text_from_outside_takes_effect_in_the_verdicts(few_draws, text):
    page, harmless = verdicts_of(text), verdicts_of("x")
    assert elements(page) == elements(harmless)
    for title in ("Skip", "From 11", "The better recipe", "Best epoch", "Two sources", "Would 2 seeds"):
        assert f"## {title}" in page


def test_pictures_stay_in_the_results_folder(tmp_path, few_draws):
    store = Store(tmp_path / "results", "quick")
    for name in ("q2_1b", "q2_3"):
        r = record(name)
        data = replace(r.data, name="../../../" + "x" * 300)
        store.save(replace(r, data=data), scenes(r.settings["classes"], 0))
    page = write_verdicts(Stored(QUICK, store), NO_BOUNDS).read_text()
    (made,) = store.folder.glob("*/*.svg")
    assert made.name.startswith("section-") and made.name.endswith(f"-{'x' * 80}.svg")
    assert f"(figures/{made.name})" in page
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_the_terminal_is_sent_no_control_characters():
    assert all(map(str.isprintable, origins({"q1_2-finetune": named("q1_2", "\x1b[2J\n\udc80")})))
