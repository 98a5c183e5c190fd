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

import numpy as np
import pytest
import torch

from cvhw4.errors import InputError
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.records.images import ImageResults
from cvhw4.records.samples import PredictionSamples, ValidationPictures, even_choice
from cvhw4.records.schema import VERSION, Failure, RunRecord
from cvhw4.records.store import Store
from cvhw4.training.process import release_memory
from tests.helpers import ROOT
from tests.helpers.records import IMAGES, R2, R, class_samples, committed_results, jpeg, mask_samples, pictures, same
from tests.helpers.tiny import MERGED, failure, record, two_classes

# Fields


def test_best_and_last_are_what_they_say():
    r = record(figures=((0.7,), (0.9,), (0.9,), (0.8,)))
    assert (r.best("accuracy"), r.best_epoch("accuracy"), r.last("accuracy")) == (0.9, 2, 0.8)
    assert r.best("accuracy", within=1) == 0.7 and r.best_epoch("accuracy", within=1) == 1
    assert (r.figure("best accuracy"), r.figure("last accuracy"), r.figure("training loss")) == (0.9, 0.8, 0.5)
    losses = zip(r.epochs, (3.0, 1.0, 2.0, 4.0), strict=True)
    validated = replace(r, epochs=[replace(e, figures={**e.figures, "loss": loss}) for e, loss in losses])
    assert (validated.best("loss"), validated.best_epoch("loss"), validated.metrics) == (1.0, 2, ("accuracy",))
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


def test_figures_of_image_results_and_of_draws_of_them():
    images = two_classes(right=np.array([[True, False, True], [True, True, True]]), labels=np.zeros(3, np.uint8))
    assert images.figure("accuracy", 1) == pytest.approx(2 / 3)
    assert images.figure("accuracy", 1, np.array([[2, 1, 0], [0, 3, 0]])) == pytest.approx([2 / 3, 0])
    with pytest.raises(KeyError, match="loss"):
        images.figure("loss", 1)
    scenes = segmented()
    assert scenes.figure("miou", 2, np.ones((1, 4), int))[0] == pytest.approx(float(scenes.figure("miou", 2)))


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


def test_peak_memory_sees_an_allocation():
    cpu = torch.device("cpu")
    release_memory()  # what other tests freed and the process kept would do for the block
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    block = torch.ones(64 * 2**20 // 4)
    assert peak_memory(cpu) - before > 32 * 2**20
    del block


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
