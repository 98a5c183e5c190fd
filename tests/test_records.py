"""Records on disk: nothing lost, nothing let in."""

import json
import math
import os
from dataclasses import replace

import pytest
import torch

from cvhw4.errors import InputError
from cvhw4.records.environment import code_digest, environment, peak_memory, reset_peak_memory
from cvhw4.records.schema import VERSION, RunRecord
from cvhw4.records.store import Store, latest_studies, write_atomically
from tests.tiny import record


def same(a: RunRecord, b: RunRecord) -> bool:
    return a.to_json() == b.to_json()


def test_a_record_comes_back_as_it_went(tmp_path):
    store = Store(tmp_path, "quick")
    for name in ("q1_2", "q2_1a"):
        before = record(name, seed=3)
        path = store.save(before)
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
    store.save(r).write_text("{")
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
    assert len(code_digest()) == 64


def test_peak_memory_sees_an_allocation():
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    block = torch.ones(64 * 2**20 // 4)
    assert peak_memory(cpu) - before > 32 * 2**20
    del block
