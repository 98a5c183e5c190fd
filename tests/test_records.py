"""Records and the arrays beside them: they come back as they went, and what is damaged is one error with its place."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cvhw4 import Metric
from cvhw4.errors import InputError
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.records.images import ImageResults
from cvhw4.records.samples import PredictionSamples, ValidationPictures, even_choice
from cvhw4.records.schema import VERSION, Failure, RunRecord
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.results import report_page
from cvhw4.statistics.bounds import load_bounds
from cvhw4.tasks import SEGMENTATION
from cvhw4.training.process import release_memory
from tests.helpers import ROOT
from tests.helpers.records import IMAGES, R2, R, class_samples, committed_results, jpeg, mask_samples, pictures, same
from tests.helpers.tiny import MERGED, QUICK, failure, record, two_classes

# Fields


def test_best_and_last_are_what_they_say():
    r = record(figures=((0.7,), (0.9,), (0.9,), (0.8,)))
    assert (r.best("accuracy"), r.best_epoch("accuracy"), r.last("accuracy")) == (0.9, 2, 0.8)
    assert r.best("accuracy", within=1) == 0.7 and r.best_epoch("accuracy", within=1) == 1
    assert (r.figure("best accuracy"), r.figure("last accuracy"), r.figure("training loss")) == (0.9, 0.8, 0.5)
    losses = zip(r.epochs, (3.0, 1.0, 2.0, 4.0), strict=True)
    validated = replace(r, epochs=[replace(e, figures={**e.figures, "loss": loss}) for e, loss in losses])
    assert (validated.best("loss"), validated.best_epoch("loss"), validated.metrics) == (1.0, 2, ("accuracy",))
    trained = replace(r, epochs=[replace(e, loss=loss) for e, loss in zip(r.epochs, (3.0, 1.0, 2.0, 4.0), strict=True)])
    assert [trained.figure(f"{which}training loss") for which in ("first ", "mean ", "")] == [3.0, 2.5, 4.0]
    for ask in (r.best, r.best_epoch, r.last, lambda name: r.figure(f"best {name}")):
        with pytest.raises(InputError, match=r"seed 0: has no figure 'acuracy'\. Fix: choose one of accuracy"):
            ask("acuracy")
    with pytest.raises(InputError, match="figure 'accuracy': is neither the best nor the last of a metric"):
        r.figure("accuracy")


def changed(place, value, of):
    """A record's JSON with another value at a place ("epochs.0.lr"), or without that field (`...`)."""
    raw = inner = json.loads(of.to_json())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in path:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("row", 3, "row: Input should be a valid string, not 3"),
        ("row", "../../x", "row: .*, not '../../x'"),
        ("task", "detection", "task: Input should be 'classification', 'segmentation' or 'custom', not 'detection'"),
        ("seed", True, "seed: Input should be a valid integer, not True"),
        ("seed", 2**63, "seed: Input should be less than"),
        ("settings.classes", 3, "by_class.iou is not as long as settings.classes"),
        ("settings.recipe", {"lr": [1e101]}, r"settings.recipe: holds a number beyond 1e\+100"),
        ("data", ..., "data: Field required"),
        ("data.embedded", 1, "data.embedded: Input should be a valid boolean, not 1"),
        ("data.classes", ["Sky", "Tree"], "by_class.iou does not fit data.classes"),
        ("settings.merge", {"x": ["Tram"]}, "merges 'Tram', which is not one of the classes"),
        ("settings.merge", ["Tree"], ""),
        ("data.val", 0, "data.val: .* greater than 0"),
        ("primary", "accuracy", "figures have no accuracy"),
        ("epochs", [], "epochs: List should have at least 1 item"),
        ("epochs.1", ..., "epochs are not 1 to n"),
        ("epochs.0.loss", 1e101, r"epochs.0.loss: Input should be less than or equal to 1e\+100"),
        ("epochs.1.figures.miou", None, "figures.miou is null"),
        ("epochs.1.figures.miou", ..., "figures differ between epochs"),
        ("by_class.set_iou", ..., "by_class.set_iou is not as long"),
        ("environment.device_name", ..., "environment does not name device, device_name and torch"),
        ("environment.threads", ..., "environment lacks threads or commit"),
        ("started", "2026-13-01T00:00:00", "started: month must be in 1..12"),
        ("images.file", "../a.npz", "images.file: "),
    ],
)
def test_a_damaged_record_names_its_field(place, value, told):
    with pytest.raises(InputError, match=rf"^x\.json: is a damaged record \({told}.*\)\. Fix: delete it and repeat"):
        RunRecord.from_json(changed(place, value, replace(record("q2_1a"), images=IMAGES)), "x.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [("epoch", "2"), ("epoch", -1), ("lr", None), ("row", "../x"), ("checkpoint", "../x"), ("configuration", "x"),
     ("started", "now"), ("task", ...), ("reason", 3)],
)  # fmt: skip
def test_a_damaged_note_of_a_failure_names_its_field(place, value):
    with pytest.raises(InputError, match=rf"x\.json: is a damaged record \({place}: "):
        Failure.from_json(changed(place, value, failure(record())), "x.json")


@pytest.mark.parametrize(
    ("place", "value"),  # null is NaN: an infinite loss, a class that never occurs; a later version adds fields
    [("epochs.0.lr", 1), ("epochs.0.loss", None), ("by_class.set_iou.0", None), ("data.leaks", ...), ("images", None),
     ("times.interruptions", ...), ("times.new_time", 2), ("environment.commit", None),
     ("weights.origin", "caf\u00e9")],
)  # fmt: skip
def test_what_a_run_may_write_is_read(place, value):
    found = RunRecord.from_json(changed(place, value, record("q2_1a")), "x.json")
    assert same(RunRecord.from_json(found.to_json().encode(), "x.json"), found)


@pytest.mark.parametrize(
    ("told", "texts"),
    [
        ("is not JSON", ['{"version": 1, "row', "[" * 100_000, "9" * 5000, b"\xff\xfe\x00", '{"a": "\\ud800"}']),
        ("is not JSON", ['{"version": NaN}', '{"version": 3, "seed": Infinity}']),
        ("is not a run record", ["[]", '{"name": "another tool\'s"}']),
        (f"is a record of version {VERSION + 1}, not {VERSION}. Fix: read it with", [f'{{"version": {VERSION + 1}}}']),
        ("is a record of version ", ['{"version": "4"}', '{"version": 1}', '{"version": true}']),
        (r"is a damaged record \(row: Field req", [f'{{"version": {VERSION}}}']),
    ],
)
def test_what_is_not_a_record_is_one_error(told, texts):
    for text in texts:
        with pytest.raises(InputError, match=rf"^x\.json: {told}"):
            RunRecord.from_json(text, "x.json")


# Those that are committed


def test_all_committed_records_are_read_with_what_lies_beside_them(tmp_path):
    results = committed_results(tmp_path)
    store, files = Store(results, "quick"), list(results.glob("*/runs/*/*.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records, full, lite0 = (Store(results, name).load() for name in ("quick", "full", "full-lite0"))
        assert len(records) + len(full) + len(lite0) == len(files) > 400
        assert [{r.study for r in of} for of in (records, full, lite0)] == [{"quick"}, {"full"}, {"full-lite0"}]
        assert all(store.images(r) is not None for r in records if r.seed == 0)
        samples = [s for r in records if (s := store.samples(r)) is not None]
        assert len(samples) == len(list(results.rglob("*.samples.npz"))) > 30
        assert all(store.pictures(s.pictures) is not None for s in samples)
    for r in records:
        assert r.task == ("segmentation" if r.row.startswith("q2_") else "classification")
        assert r.settings.keys() - {"merge"} == record().settings.keys()
        assert r.settings["batch_norm"] in ("train", "frozen")


# Arrays


def classified(epochs=3, images=8):
    random = np.random.RandomState(0)
    labels = np.arange(images, dtype=np.uint8) % 3
    return ImageResults(predicted=random.randint(0, 3, (epochs, images)).astype(np.uint8), labels=labels)


def segmented(epochs=2, images=4, classes=11, most=9000):
    counts = np.random.RandomState(0).randint(0, most, (epochs, images, 2, 12, classes))
    return ImageResults(counts=counts.astype(np.uint32), targets=MERGED[classes].targets)


@pytest.mark.parametrize("images", [classified(), segmented(), segmented(classes=3, most=2**20)])
def test_image_results_come_back_as_they_went(images):
    back = ImageResults.from_bytes(images.to_bytes(), "x.npz", targets=images.targets)
    for name in ("predicted", "labels", "counts"):
        before, after = getattr(images, name), getattr(back, name)
        assert (before is None and after is None) or np.array_equal(before, after)
    assert images.to_bytes() == back.to_bytes() and (len(back), back.epochs) == (len(images), images.epochs)


def forged(name, kind, shape, body=b"", method=zipfile.ZIP_DEFLATED):
    """An archive with one array whose header says what it likes."""
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body)
    return buffer.getvalue()


def packed(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


PREDICTED, LABELS, COUNTS = np.ones((3, 8), np.uint8), np.zeros(8, np.uint8), np.zeros((3, 8, 2, 12, 11), np.uint16)


@pytest.mark.parametrize(
    ("told", "contents"),
    [
        ("", [b"", b"PK", b"not a zip", classified().to_bytes()[:-30], packed(counts=np.array([print], dtype=object))]),
        ("promises", [forged("predicted.npy", "|u1", shape) for shape in ((2**40, 8), (-4, -4), (0, 4))]),
        ("promises", [forged("counts.npy", "<u4", (1, 10**8))]),
        ("shape is not valid", [forged("predicted.npy", "|u1", "x" * 5000)]),
        ("packed otherwise", [forged("predicted.npy", "|u1", (10**6,), bytes(10**8), zipfile.ZIP_BZIP2)]),
        ("pickle", [forged("counts.npy", "|O", (1, 1), b"." * 8)]),
        ("do not fit together", [packed(), packed(other=PREDICTED), packed(predicted=PREDICTED)]),
        ("do not fit together", [packed(labels=LABELS), packed(predicted=PREDICTED, labels=LABELS, counts=COUNTS)]),
        ("do not fit together", [packed(counts=COUNTS, labels=LABELS), packed(counts=COUNTS[:, :, :1])]),
        ("of other classes", [packed(counts=COUNTS[..., :5])]),
        ("does not fit", [packed(predicted=PREDICTED, labels=LABELS[:7])]),
        ("predicted is not", [packed(predicted=p, labels=LABELS) for p in (PREDICTED[0], PREDICTED * 1.0)]),
        ("counts is not", [packed(counts=c) for c in (COUNTS[0], COUNTS.astype(">u2"), COUNTS * 1.0)]),
    ],
)
def test_what_are_not_image_results_is_one_error_before_memory_is_taken(told, contents):
    for content in contents:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=rf"^x\.npz: is not a file of image results \(.*{told}"):
                ImageResults.from_bytes(content, "x.npz")
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("samples", "r"),
    [(class_samples(), R), (class_samples(heat=None, why="no map, and \u201cquoted\u201d"), R), (mask_samples(), R2)],
)
def test_samples_come_back_as_they_went(samples, r):
    found = PredictionSamples.from_bytes(samples.to_bytes(), "x.npz", r)
    assert found.to_bytes() == samples.to_bytes()
    assert (found.run, found.pictures, found.why) == (r.fingerprint, "a" * 64, samples.why)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (class_samples(run="b" * 64), "another run's"),
        (class_samples(index=np.arange(395, 401)), "more images"),
        (class_samples(index=np.array([0, 1, 2, 3, 5, 4])), "does not ascend"),
        (class_samples(index=np.arange(6, dtype=np.int32)), "index is not i8"),
        (class_samples(probabilities=np.full((6, 3), 0.3, np.float16)), "other classes"),
        (class_samples(probabilities=np.full((6, 2), np.nan, np.float16)), "not between 0 and 1"),
        (class_samples(probabilities=None), "do not fit together"),
        (class_samples(heat=np.zeros((5, 3, 3), np.uint8)), "heat does not fit"),
        (mask_samples(run=R.fingerprint, predicted=np.full((4, 5, 5), 2, np.uint8)), "other classes"),
        (class_samples(pictures="a" * 62), "does not fit"),
    ],
)
def test_samples_that_do_not_fit_are_one_error(samples, told):
    with pytest.raises(InputError, match=rf"^x\.npz: does not hold samples of its run \(.*{told}"):
        PredictionSamples.from_bytes(samples.to_bytes(), "x.npz", R)


def test_validation_pictures_come_back_as_they_went():
    found = ValidationPictures.from_bytes(pictures().to_bytes(), "x.npz")
    assert found.to_bytes() == pictures().to_bytes() and len(found) == 4 and found.names[3] == "val/3"
    assert found.picture(2).shape == (32, 32, 3) and found.picture(2, side=10).shape == (10, 10, 3)
    assert even_choice(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert even_choice(10**6, 4).tolist() == [0, 250_000, 500_000, 750_000]


@pytest.mark.parametrize(
    "changes",
    [dict(masks=np.zeros((3, 32, 32), np.uint8)), dict(masks=None),
     dict(masks=np.zeros((4, 31, 31), np.uint8)), dict(labels=np.zeros(4, np.uint8)), dict(files=(jpeg(32, 16),) * 4),
     dict(ends=pictures().ends[::-1].copy()), dict(ends=pictures().ends - 1), dict(names=("a", "b", "c")),
     dict(faces=np.ones((4, 31, 32), dtype=bool))],
)  # fmt: skip
def test_validation_pictures_that_do_not_fit_are_one_error(changes):
    with pytest.raises(InputError, match=r"^x\.npz: does not hold validation pictures"):
        ValidationPictures.from_bytes(pictures(**changes).to_bytes(), "x.npz")


# The machine


def test_the_environment_is_told():
    e = environment(torch.device("cpu"))
    assert e["torch"] == torch.__version__.split("+")[0] and e["device"] == "cpu" and e["threads"] >= 1
    json.dumps(e, allow_nan=False)
    assert len(code_digest()) == 64 and e["code"] == code_digest()


def test_the_digest_of_the_code_is_of_what_decides_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("cvhw4.records.environment._PACKAGE", tmp_path)
    decisive = ("data/embedded/scenes.py", "labels.py", "metrics.py", "models/build.py", "runner.py", "tasks.py")
    digests = []
    for name in (*decisive, "training/fit.py", "training/fit.py", "report/page.py", "study/claims.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {len(digests)}")  # written, and changed
        digests.append(code_digest.__wrapped__())
    assert len({*digests}) == 8 and len({*digests[-3:]}) == 1


def test_peak_memory_sees_an_allocation():
    cpu = torch.device("cpu")
    release_memory()  # what other tests freed and the process kept would do for the block
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    block = torch.ones(64 * 2**20 // 4)
    assert peak_memory(cpu) - before > 32 * 2**20
    del block


@pytest.mark.integration
def test_without_pydantic_records_are_read_as_they_were_written(tmp_path):
    """On a GPU machine where nothing can be installed."""
    store = Store(tmp_path, "quick")
    runs = [store.save(record(name)) for name in ("q1_2", "q2_1a")]
    code = (
        "import sys; sys.modules['pydantic'] = None\nfrom pathlib import Path\nfrom cvhw4.records.store import Store\n"
        "print(*(r.to_json() for r in Store(Path('.'), 'quick').load()), sep='')\n"
        "from benchmarks.performance.measured import read_measures\n"
        "from benchmarks.performance.speed_record import load_all\n"
        f"assert load_all(Path({str(ROOT / 'results')!r})) and Path('list.json').write_text('[1.5, null]')\n"
        "assert str(read_measures(Path('list.json'), float)) == '[1.5, nan]'"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert told.stdout.rstrip("\n") == "".join(r.to_json() for r in runs).rstrip("\n"), told.stderr


# Whatever bytes there are, and a field gone wrong: one error, or what can be shown


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
@given(
    st.binary()
    | st.text()
    | plain.map(json.dumps)
    | st.tuples(st.sampled_from([VERSION, NOTE.version]), plain).map(
        lambda of: json.dumps({"version": of[0], "row": of[1]})
    )
)
@example('{"version": ' + "[" * 5000 + "]" * 5000 + "}")
def test_any_text_is_a_record_or_one_error(text):
    assert read(RunRecord, text) is None and read(Failure, text) is None


@settings(max_examples=400, deadline=None)
@given(corrupted(*(r.to_json() for r in (NOTE, *WHOLE))))
def test_what_has_a_field_gone_wrong_is_one_error_or_can_be_shown(text):
    read(Failure, text)
    found = read(RunRecord, text)
    if found is not None:
        others = [r for r in OTHERS if (r.row, r.seed) != (found.row, found.seed)]
        report_page(QUICK, [r for r in latest_runs([*others, found]) if r.row in QUICK.rows], BOUNDS, {}).encode()


OF_SCORES = Metric(lambda labels, scores: float(len(scores)), of="scores")


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
    for epoch in () if found.scored is None else found.scored.tolist():
        assert epoch <= found.epochs and found.figure("own", epoch, own=OF_SCORES) == len(found)
    assert len(found.strata) == len(found)
    return True


random = np.random.RandomState(0)
TRUE, SCORES = np.arange(8, dtype=np.uint8) % 2, random.rand(8, 2).astype(np.float32)
FILES = [
    two_classes(right=random.rand(3, 8) < 0.7, labels=TRUE).to_bytes(),
    ImageResults.stack([TRUE] * 3, TRUE, [SCORES] * 3).to_bytes(),
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


SCORED = {
    "predicted": npst.arrays(np.uint8, (2, 3)),
    "labels": npst.arrays(np.uint8, 3),
    "scores": npst.arrays(np.float32, (2, 3, 1), elements=st.floats(-0.5, 1.5, width=32) | st.floats(width=32)),
    "scored": npst.arrays(np.uint16, 2, elements=st.integers(0, 3)),
}


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(SCORED)
    | st.dictionaries(
        st.sampled_from(["predicted", "labels", "counts", "scores", "scored", "other"]),
        npst.arrays(
            st.sampled_from([np.bool_, np.uint8, np.uint16, np.uint32, np.int64, np.float32, "U1"]),
            st.sampled_from([(2, 3), (3,), (2, 3, 1), (2,), (2, 3, 2, 12, 11), (2, 3, 2, 12, 3), (1, 1, 2, 12, 4)])
            | npst.array_shapes(min_dims=0, max_side=3),
        ),
    )
)
def test_any_arrays_are_one_error_or_sound(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    sound(buffer.getvalue())
