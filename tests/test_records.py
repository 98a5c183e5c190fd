"""Records on disk: nothing lost, nothing let in."""

import io
import json
import math
import os
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from cvhw4.errors import InputError
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import MIGRATIONS, VERSION, RunRecord, StoredImages
from cvhw4.records.store import Store, latest_studies, write_atomically
from cvhw4.training.process import release_memory
from tests.tiny import record


def same(a: RunRecord, b: RunRecord) -> bool:
    return a.to_json() == b.to_json()


def test_a_record_comes_back_as_it_went(tmp_path):
    store = Store(tmp_path, "quick")
    for name in ("q1_2", "q2_1a"):
        before = record(name, seed=3)
        store.save(before)
        path = store.path(before.id, 3, before.fingerprint)
        assert path == tmp_path / "quick" / "runs" / before.id / f"seed3-{before.fingerprint[:12]}.json"
        after = store.find(before.id, 3, before.fingerprint)
        assert same(before, after)
    assert math.isnan(after.by_class["set_iou"][1])  # a class that never occurs
    assert json.loads(path.read_text())["by_class"]["set_iou"][1] is None


def test_best_and_last_are_what_they_say():
    r = record(figures=((0.7,), (0.9,), (0.9,), (0.8,)))
    assert (r.best("accuracy"), r.best_epoch("accuracy"), r.last("accuracy")) == (0.9, 2, 0.8)
    assert r.best("accuracy", within=1) == 0.7
    assert (r.figure("best accuracy"), r.figure("last accuracy")) == (0.9, 0.8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "row', "is not JSON"),
        ("[]", "is no run record"),
        ('{"name": "another tool\'s"}', "is no run record"),
        (json.dumps({"version": VERSION + 1}), f"version {VERSION + 1}"),
        (json.dumps({"version": VERSION}), "damaged"),
        (record().to_json().replace('"epochs": [', '"epochs": [], "other": ['), "damaged"),
        (record().to_json().replace('"accuracy": 0.9', '"accuracy": "0.9"'), "damaged"),
    ],
)
def test_foreign_and_damaged_files_are_named_not_counted_and_left_alone(text, message, tmp_path):
    store = Store(tmp_path, "quick")
    store.save(record())
    foreign = store.runs / "q1_2-finetune" / "foreign.json"
    foreign.write_text(text)
    with pytest.raises(InputError, match=message):
        RunRecord.from_json(text, foreign)
    with pytest.warns(UserWarning, match="foreign.json"):
        assert len(store.load()) == 1
    assert foreign.read_text() == text


def changed(place, value, name="q2_1a"):
    """A record's JSON with another value at a place ("epochs.0.lr"), or without that field (`...`)."""
    raw = json.loads(replace(record(name), images=StoredImages(file="a.npz", sha256="a" * 64)).to_json())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = raw
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
        ("row", 3, r"row is no text, but 3"),
        ("row", "q2_1", "id does not begin with the row q2_1"),
        ("id", "../../x", "id is no plain name"),
        ("id", ".q2_1a", "id is no plain name"),
        ("profile", "a/b", "profile is no plain name"),
        ("seed", -1, "seed is below 0"),
        ("seed", 0.0, "seed is no whole number, but 0.0"),
        ("seed", True, "seed is no whole number, but True"),
        ("seed", 2**63, "seed is beyond 64 bits"),
        ("fingerprint", "A" * 64, "fingerprint is not 64 hex"),
        ("study", "a" * 63, "study is not 64 hex"),
        ("settings", [], r"settings is no object, but \[\]"),
        ("settings.classes", 3, "by_class.iou is not as long as settings.classes"),
        ("settings.deep", json.loads("[" * 30 + "]" * 30), "settings.deep is nested too deeply"),
        ("settings.text", "\ud800", "settings.text holds half a character"),
        ("data", ..., "data is missing"),
        ("data.embedded", 1, "data.embedded is no truth value, but 1"),
        ("data.classes.0", None, "data.classes.0 is no text, but None"),
        ("data.classes", ["Sky"], "by_class.iou does not fit data.classes"),
        ("data.val", 0, "data has no images"),
        ("data.leaks", "a = b", "data.leaks is no list, but 'a = b'"),
        ("weights.sha256", 1, "weights.sha256 is no text, but 1"),
        ("primary", "accuracy", "figures have no accuracy"),
        ("epochs", [], "epochs are none"),
        ("epochs.1", ..., "epochs are not 1 to n"),
        ("epochs.0.epoch", 2, "epochs are not 1 to n"),
        ("epochs.0.lr", "0.1", "epochs.0.lr is no number, but '0.1'"),
        ("epochs.0.lr", None, "epochs.0.lr is no number, but None"),
        ("epochs.0.lr", 1e101, r"epochs.0.lr is beyond 1e\+100"),
        ("epochs.1.figures.miou", None, "figures.miou is null"),
        ("epochs.1.figures.miou", ..., "figures differ between epochs"),
        ("epochs.2.figures.more", 1.0, "figures differ between epochs"),
        ("by_class.set_iou", ..., "by_class.set_iou is not as long"),
        ("by_class.iou.0", "x", "by_class.iou.0 is no number"),
        ("times.train_seconds", ..., "times.train_seconds is missing"),
        ("times.interruptions", 0.5, "times.interruptions is no whole number"),
        ("environment.device_name", ..., "environment does not name device, device_name and torch"),
        ("environment.threads", ..., "environment lacks threads or commit"),
        ("started", "yesterday", "started is no date and time"),
        ("started", "2026-13-01T00:00:00", "month must be in 1..12"),
        ("images", "a" * 64, "images is no object"),
        ("images.file", "../a.npz", "images.file is no plain name"),
        ("images.sha256", "a", "images.sha256 is not 64 hex"),
        ("version", "2", "version is no whole number, but '2'"),
    ],
)
def test_a_damaged_record_names_its_field(place, value, told):
    with pytest.raises(InputError, match=rf"x\.json: is a damaged record \({told}"):
        RunRecord.from_json(changed(place, value), "x.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("epochs.0.lr", 1),  # a float that JSON wrote without a point
        ("epochs.0.loss", None),  # null is NaN: an infinite loss, a class that never occurs
        ("by_class.set_iou.0", None),
        ("data.leaks", ...),
        ("data.leaks", ["train/a.jpg = val/b.jpg"]),
        ("times.interruptions", ...),
        ("times.peak_memory_bytes", None),
        ("images", None),
        ("environment.commit", None),
    ],
)
def test_what_a_run_may_write_is_read(place, value):
    found = RunRecord.from_json(changed(place, value), "x.json")
    assert same(RunRecord.from_json(found.to_json(), "x.json"), found)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"version": NaN}', '{"version": 2, "seed": Infinity}'])
def test_json_that_nobody_writes_is_one_error(text):
    with pytest.raises(InputError, match="is not JSON"):
        RunRecord.from_json(text, "x.json")


def version_1(**changes):
    raw = json.loads(record(seed=3).to_json()) | {"version": 1, "images": "a" * 64} | changes
    del raw["data"]["leaks"], raw["times"]["interruptions"]
    return raw


def test_records_of_version_1_become_the_present_ones():
    file = f"seed3-{record(seed=3).fingerprint[:12]}.npz"
    images = StoredImages(file=file, sha256="a" * 64)
    assert RunRecord.from_json(json.dumps(version_1()), "x.json") == replace(record(seed=3), images=images)
    assert RunRecord.from_json(json.dumps(version_1(images=None)), "x.json") == record(seed=3)
    with pytest.raises(InputError, match=r"damaged record \(images.sha256 is no text, but 3"):
        RunRecord.from_json(json.dumps(version_1(images=3)), "x.json")
    with pytest.raises(InputError, match=r"damaged record \(.*fingerprint"):
        RunRecord.from_json(json.dumps({"version": 1, "images": "a" * 64, "seed": 1}), "x.json")


def test_every_version_has_a_way_to_the_next():
    assert sorted(MIGRATIONS) == list(range(1, VERSION))


def test_fields_of_a_later_minor_version_are_passed_over():
    raw = json.loads(record().to_json()) | {"new_field": 1}
    raw["times"]["new_time"] = 2
    assert same(RunRecord.from_json(json.dumps(raw), "x.json"), record())


def test_another_fingerprint_is_another_run(tmp_path):
    store = Store(tmp_path, "quick")
    r = record()
    store.save(r)
    assert store.find(r.id, 0, "0" * 64) is None
    path = store.path(r.id, 0, r.fingerprint[:12] + "f" * 52)  # same file name, other digest
    assert path.is_file()
    assert store.find(r.id, 0, r.fingerprint[:12] + "f" * 52) is None


def test_a_damaged_record_is_not_reused(tmp_path):
    store = Store(tmp_path, "quick")
    r = record()
    store.save(r)
    store.path(r.id, 0, r.fingerprint).write_text("{")
    with pytest.warns(UserWarning, match="not used"):
        assert store.find(r.id, 0, r.fingerprint) is None


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a" / "x.json"
    write_atomically(path, "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"x\.json: cannot be written \(No space left"):
        write_atomically(path, "new")
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    assert path.read_text() == "old"


def test_a_folder_that_is_a_file_is_one_error(tmp_path):
    (tmp_path / "quick").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path, "quick").save(record())


def test_tables_take_each_rows_latest_study():
    old = [record(seed=s) for s in range(3)]
    new = [replace(record(seed=s), study="n" * 64, started=f"2026-11-24T10:00:0{s}+00:00") for s in range(2)]
    other = record("q1_1", seed=0)
    elsewhere = replace(record(seed=0), data=replace(old[0].data, name="hymenoptera"), study="h" * 64)
    chosen = latest_studies([*new, *old, other, elsewhere])
    assert {id(r) for r in chosen} == {id(r) for r in (*new, other, elsewhere)}


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


def classified(epochs=3, images=8):
    random = np.random.RandomState(0)
    return ImageResults.of_two_classes(
        right=random.rand(epochs, images) < 0.7, labels=np.arange(images, dtype=np.uint8) % 2
    )


def segmented(epochs=2, images=4, classes=11, most=9000):
    counts = np.random.RandomState(0).randint(0, most, (epochs, images, 2, 12, classes))
    return ImageResults(counts=counts.astype(np.uint32))


@pytest.mark.parametrize("images", [classified(), segmented(), segmented(classes=3, most=2**20)])
def test_image_results_come_back_as_they_went_beside_their_record(images, tmp_path):
    store = Store(tmp_path, "quick")
    stored = store.save(record(seed=3), images)
    (loaded,) = store.load()
    assert loaded.images == stored.images is not None
    back = store.images(loaded)
    for name in ("right", "labels", "counts"):
        before, after = getattr(images, name), getattr(back, name)
        assert (before is None and after is None) or np.array_equal(before, after)
    assert images.to_bytes() == back.to_bytes()
    assert (len(back), back.epochs) == (len(images), images.epochs)


def test_image_results_that_are_gone_damaged_or_anothers_are_not_used(tmp_path):
    store = Store(tmp_path, "quick")
    assert store.images(record()) is None  # from before there were any: no warning
    stored = store.save(record(), classified())
    path = store.path(stored.id, stored.seed, stored.fingerprint).with_name(stored.images.file)
    other = classified(images=6).to_bytes()
    for spoil in (lambda: path.write_bytes(other), lambda: path.write_bytes(other[:50]), path.unlink):
        spoil()
        with pytest.warns(UserWarning, match="not used"):
            assert store.images(stored) is None


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", classified().to_bytes()[:-30]])
def test_what_is_no_file_of_image_results_is_one_error(content):
    with pytest.raises(InputError, match=r"x\.npz: is no file of image results"):
        ImageResults.from_bytes(content, "x.npz")


def forged(name, kind, shape, body=b"", method=zipfile.ZIP_DEFLATED):
    """An archive with one array whose header says what it likes."""
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (forged("right.npy", "|b1", (2**40, 8)), "promises"),
        (forged("counts.npy", "<u4", (1, 10**8)), "promises"),
        (forged("right.npy", "|b1", (-4, -4)), "promises"),
        (forged("right.npy", "|b1", (0, 4)), "promises"),
        (forged("right.npy", "|b1", "x" * 5000), "shape is not valid"),
        (forged("right.npy", "|b1", (10**6,), bytes(10**8), zipfile.ZIP_BZIP2), "compressed in another way"),
        (forged("right.npy", "|O", (1, 1), b"." * 8), "pickle"),
    ],
    ids=["huge", "large", "negative", "empty", "no shape", "packed", "pickle"],
)
def test_forged_image_results_are_one_error_before_memory_is_taken(content, told):
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"x\.npz: is no file of image results \(.*{told}"):
            ImageResults.from_bytes(content, "x.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


RIGHT, LABELS, COUNTS = np.ones((3, 8), bool), np.zeros(8, np.uint8), np.zeros((3, 8, 2, 12, 11), np.uint16)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"other": RIGHT},
        {"right": RIGHT},
        {"labels": LABELS},
        {"right": RIGHT, "labels": LABELS[:7]},
        {"right": RIGHT[0], "labels": LABELS},
        {"right": RIGHT[..., None], "labels": LABELS},
        {"right": RIGHT.astype(np.uint8), "labels": LABELS},
        {"right": RIGHT, "labels": LABELS.astype(float)},
        {"right": RIGHT, "labels": LABELS, "counts": COUNTS},
        {"counts": COUNTS, "labels": LABELS},
        {"counts": COUNTS[0]},
        {"counts": COUNTS.astype(float)},
        {"counts": COUNTS.astype(np.int32)},
        {"counts": COUNTS[..., :5]},
        {"counts": COUNTS[:, :, :1]},
    ],
)
def test_arrays_that_are_no_image_results_are_one_error(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with pytest.raises(InputError, match="its arrays do not fit together"):
        ImageResults.from_bytes(buffer.getvalue(), "x.npz")


def test_pickles_in_image_results_are_not_opened(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, counts=np.array([print], dtype=object))
    with pytest.raises(InputError, match="no file of image results"):
        ImageResults.from_bytes(buffer.getvalue(), "x.npz")


def test_figures_of_image_results_and_of_draws_of_them():
    images = ImageResults.of_two_classes(
        right=np.array([[True, False, True], [True, True, True]]), labels=np.zeros(3, np.uint8)
    )
    assert images.figure("accuracy", 1) == pytest.approx(2 / 3)
    assert images.figure("accuracy", 1, np.array([[2, 1, 0], [0, 3, 0]])) == pytest.approx([2 / 3, 0])
    with pytest.raises(KeyError, match="loss"):
        images.figure("loss", 1)
    scenes = segmented()
    assert scenes.figure("miou", 2, np.ones((1, 4), int))[0] == pytest.approx(float(scenes.figure("miou", 2)))
