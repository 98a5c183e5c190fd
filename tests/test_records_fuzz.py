"""What is read from disk is sound or one error, for whatever bytes, and for records with a field gone wrong."""

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.results import report_page
from cvhw4.statistics.bounds import load_bounds
from cvhw4.tasks import SEGMENTATION
from tests.helpers import ROOT
from tests.helpers.records import IMAGES
from tests.helpers.tiny import QUICK, failure, record, two_classes

BOUNDS = load_bounds(ROOT / "benchmarks" / "bounds.toml", QUICK)
WHOLE = [replace(record(row), images=IMAGES) for row in ("q1_1", "q1_2", "q2_1a", "q2_3")]
OTHERS = [record(row, seed=s) for row in ("q1_1", "q1_2", "q2_1a", "q2_1b", "q2_3") for s in range(3)]
NOTE = failure(WHOLE[0], checkpoint="seed0-a.safetensors")

TEXTS = ["", ".", "..", "../x", "q1", "q1_2", "q2_1a-skip", "\ud800", "\x00", "a|b\n# c", "2026-11-23", "f" * 64]
texts = st.sampled_from(TEXTS) | st.text()
wholes = st.sampled_from([0, 1, 2, 3, 11, 2**63 - 1, 2**63, 10**400, -1]) | st.integers()
numbers = st.sampled_from([0.5, 1e99, -1e99, 1e200, 1e308, -0.0]) | st.floats()
plain = st.recursive(
    st.none() | st.booleans() | wholes | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
LIKE = {str: texts, int: wholes, float: numbers}


@st.composite
def corrupted(draw, *texts):
    """One of some JSON objects, with another value at one place of it, or none there."""
    raw = inner = json.loads(draw(st.sampled_from(texts)))
    while True:
        key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], (dict, list)) or not inner[key] or draw(st.booleans()):
            break
        inner = inner[key]
    if draw(st.booleans()):
        inner[key] = draw(LIKE.get(type(inner[key]), plain) | plain)
    else:
        del inner[key]
    return json.dumps(raw)


def read(kind, text):
    """The record that is read from a text, which then comes back as it went; None after the one error there may be."""
    try:
        found = kind.from_json(text, Path("x.json"))
    except InputError as error:
        assert str(error).startswith("x.json: is ")
        return None
    again = kind.from_json(found.to_json(), Path("x.json"))
    assert again.to_json() == found.to_json()
    return found


@settings(max_examples=300, deadline=None)
@given(st.text() | plain.map(json.dumps) | plain.map(lambda value: json.dumps({"version": 3, "row": value})))
@example('{"version": ' + "[" * 5000 + "]" * 5000 + "}")
def test_any_text_is_a_record_or_one_error(text):
    assert read(RunRecord, text) is None and read(Failure, text) is None


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_passed_over_with_a_warning(tmp_path_factory, content):
    store = Store(tmp_path_factory.getbasetemp() / "bytes", "quick")
    path = store.path("q1_2-finetune", 0, "a" * 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert store.load() == [] and store.find("q1_2-finetune", 0, "a" * 64) is None
    assert len(caught) == 2


@settings(max_examples=400, deadline=None)
@given(corrupted(*(r.to_json() for r in (NOTE, *WHOLE))))
def test_what_has_a_field_gone_wrong_is_one_error_or_can_be_shown(text):
    read(Failure, text)
    found = read(RunRecord, text)
    if found is not None:
        others = [r for r in OTHERS if (r.row, r.seed) != (found.row, found.seed)]
        report_page(QUICK, [r for r in latest_runs([*others, found]) if r.row in QUICK.rows], BOUNDS, {}).encode()


def sound(content):
    """Whether image results are read; if so, every figure can be made of them."""
    try:
        found = ImageResults.from_bytes(content, Path("x.npz"))
    except InputError as error:
        assert str(error).startswith("x.npz: is not a file of image results")
        return False
    with np.errstate(all="ignore"):
        for name in ("accuracy",) if found.right is not None else SEGMENTATION.metrics:
            assert found.figure(name, found.epochs, np.ones((2, len(found)), int)).shape == (2,)
    assert len(found.strata) == len(found)
    return True


random = np.random.RandomState(0)
FILES = [
    two_classes(right=random.rand(3, 8) < 0.7, labels=np.arange(8, dtype=np.uint8) % 2).to_bytes(),
    ImageResults(counts=random.randint(0, 9, (2, 3, 2, 12, 11)).astype(np.uint32)).to_bytes(),
]


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_image_results_with_bytes_gone_wrong_are_one_error_or_sound(data):
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    sound(bytes(content))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["right", "predicted", "labels", "counts", "other"]),
        npst.arrays(
            st.sampled_from([np.bool_, np.uint8, np.uint16, np.uint32, np.int64, np.float32, "U1"]),
            st.sampled_from([(2, 3), (3,), (2, 3, 2, 12, 11), (2, 3, 2, 12, 3), (1, 1, 2, 12, 4)])
            | npst.array_shapes(min_dims=0, max_side=3),
        ),
    )
)
def test_any_arrays_are_one_error_or_sound(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    sound(buffer.getvalue())
