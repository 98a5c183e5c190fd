"""Texts on a terminal: cut to its columns, curves and times."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from cvhw4.plugin.progress import stamp
from cvhw4.report.text import BLOCKS, clock, cut, sparkline


@pytest.mark.parametrize(
    ("values", "columns", "drawn"),
    [
        ([], 8, ""),
        ([0.5], 8, "▅"),
        ([0.3, 0.3, float("nan")], 8, "▅▅ "),
        ([0.0, 0.5, 1.0], None, "▁▅█"),
        ([float("nan"), 0.0, float("inf"), 1.0], 8, " ▁ █"),
        (list(range(50)), 4, "▁▃▆█"),
        ([1, 2], 0, ""),
    ],
)
def test_sparkline(values, columns, drawn):
    assert sparkline(values, columns) == drawn


@given(st.lists(st.floats(), max_size=60), st.integers(0, 40))
@example([1.7976931348623157e308, -9.9792015476736e291], 2)
@example([1.7976931348623157e308, -1.7976931348623157e308, 0.0], 3)
@example([0.0, 5e-324], 2)
def test_a_sparkline_takes_any_numbers_and_keeps_to_its_columns(values, columns):
    drawn = sparkline(values, columns)
    assert len(drawn) == min(len(values), columns) and set(drawn) <= {*BLOCKS, " "}


@given(st.text(max_size=60), st.integers(4, 80), st.booleans())
def test_texts_are_cut_to_the_columns_that_they_take(text, width, unicode):
    text = "".join(filter(str.isprintable, text))
    shown = cut(text, width, unicode)
    assert cell_len(shown) <= width and (shown == text or shown.endswith("…" if unicode else "..."))


def test_times():
    assert [clock(s) for s in (0, 59.6, 185, 3900)] == ["0 s", "1:00 min", "3:05 min", "1:05 h"]
    assert [stamp(s) for s in (-3, 45, 185, 3900)] == ["0:00", "0:45", "3:05", "1:05:00"]
