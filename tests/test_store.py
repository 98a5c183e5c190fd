"""The store of records, as killed processes, full disks and other people's files find it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from cvhw4 import Study
from cvhw4.errors import InputError
from cvhw4.files import write_atomically
from cvhw4.records.schema import VERSION, StoredImages
from cvhw4.records.store import Store, latest_runs
from tests.helpers import ROOT
from tests.helpers.records import class_samples, key, mask_samples, pictures, place, results, same
from tests.helpers.tiny import QUICK, failure, record


def same_results(a, b):
    return a.to_bytes() == b.to_bytes()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, "quick")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# Records, images and samples


def test_a_record_comes_back_from_its_place(store):
    for name in ("q1_2", "q2_1a"):
        r = record(name, seed=3)
        store.save(r)
        assert place(store, r) == store.runs / r.row / f"seed3-{r.fingerprint[:12]}.json"
        assert same(r, store.find(*key(r)))
    assert json.loads(place(store, r).read_text())["by_class"]["set_iou"][1] is None
    other = r.fingerprint[:12] + "f" * 52  # the same name of the file, another run
    assert store.find(r.row, 3, other) is None and store.find(r.row, 3, "0" * 64) is None
    place(store, r).parent.rename(store.runs / "renamed")  # a row by another name is another row
    assert store.find("renamed", 3, r.fingerprint) is None


def test_tables_take_each_rows_latest_runs():
    old = [record(seed=s) for s in range(3)]
    new = [replace(record(seed=s), configuration="a" * 64, started=f"2026-11-24T10:00:0{s}+00:00") for s in range(2)]
    other = record("q1_1", seed=0)
    elsewhere = replace(record(seed=0), data=replace(old[0].data, name="hymenoptera"), configuration="b" * 64)
    chosen = latest_runs([*new, *old, other, elsewhere])
    assert {id(r) for r in chosen} == {id(r) for r in (*new, other, elsewhere)}


def test_tables_take_the_runs_of_a_row_as_it_is_now():
    """As after a change that was undone: what `--reuse` takes is older than the runs with the change."""
    now = [record(seed=s) for s in range(2)]
    changed = {**now[0].settings, "batch_norm": "frozen"}
    later = [replace(r, settings=changed, configuration="a" * 64, started="2030-01-01T00:00:00+00:00") for r in now]
    assert latest_runs([*later, *now]) == later and latest_runs([*later, *now], QUICK) == now
    assert latest_runs(later, QUICK) == later  # where there are no others
    again = [replace(r, configuration="b" * 64, started="2031-01-01T00:00:00+00:00") for r in now]
    assert latest_runs([*again, *later, *now], QUICK) == again  # the most recent of them: other code, or devices


def test_of_a_loop_of_ones_own_they_are_of_its_text_too():
    study = Study("own", train=lambda run: iter(()), primary="accuracy", rows={"a": {"x": 1}})
    text = json.dumps({"train": study.train_text, "version": ""}, sort_keys=True)
    base = replace(record(), row="a", study="own", settings={"x": 1})
    found = []
    for year, code in (("2030", hashlib.sha256(text.encode()).hexdigest()), ("2031", "b" * 64)):
        changes = {"environment": base.environment | {"code": code}, "configuration": code}
        found.append(replace(base, started=f"{year}-01-01T00:00:00+00:00", **changes))
    assert latest_runs(found) == found[1:] and latest_runs(found, study) == found[:1]


def test_images_and_samples_lie_beside_their_record_stay_and_go_with_it(store):
    r, neighbour = record(), store.save(record(seed=1), results(5), class_samples(record(seed=1)))
    path, digest = place(store, r), hashlib.sha256(results(1).to_bytes()).hexdigest()
    store.save(r, results(0), class_samples(r))
    stored = store.save(record(loss=0.25), results(1), class_samples(r))
    assert stored.images == StoredImages(file=f"{path.stem}.{digest[:8]}.npz", sha256=digest)
    assert store.save(stored) == stored  # as it is, with what it has
    assert same_results(store.images(stored), results(1)) and same_results(store.images(neighbour), results(5))
    assert same_results(store.samples(stored), class_samples(r)) and len(names(path.parent)) == 6
    store.save(r, results(1))  # a run without samples
    assert store.samples(r) is None and store.samples(neighbour) is not None and len(names(path.parent)) == 5
    assert store.images(store.save(r)) is None and len(names(path.parent)) == 4  # without a warning
    store.save(record("q2_1a"), samples=mask_samples(record("q2_1a")))
    assert same_results(store.samples(record("q2_1a")), mask_samples(record("q2_1a")))


def test_what_lies_beside_a_record_and_is_missing_damaged_or_anothers_is_not_used(store):
    stored = store.save(record(), results(), class_samples())
    path = place(store, stored)
    images, samples = path.with_name(stored.images.file), path.with_suffix(".samples.npz")
    whole = samples.read_bytes()
    for content in (results(6).to_bytes(), results().to_bytes()[:50], None):
        images.write_bytes(content) if content is not None else images.unlink()
        with pytest.warns(UserWarning, match=r"\.npz: .* It is not used\."):
            assert store.images(stored) is None
    for content in (*(whole[:end] for end in (0, 1, 50, -1)), class_samples(record("q2_1a")).to_bytes(), None):
        samples.write_bytes(content) if content is not None else (samples.unlink(), samples.mkdir())
        with pytest.warns(UserWarning, match=r"\.samples\.npz: (does not hold|is not a file).* It is not used\."):
            assert store.samples(stored) is None


def test_validation_pictures_are_written_once(store):
    store.keep_pictures("c" * 64, pictures)
    folder = store.folder / "pictures"
    for name, age in (("old.npz.0.part", 7200), ("another's.npz.1.part", 5)):
        (folder / name).write_text("half")
        os.utime(folder / name, (time.time() - age,) * 2)
    store.keep_pictures("c" * 64, lambda: pytest.fail("written again"))
    assert names(folder) == ["another's.npz.1.part", f"{'c' * 64}.npz"]
    assert same_results(store.pictures("c" * 64), pictures()) and store.pictures("d" * 64) is None


# Kills and full disks


STEPS = ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.scandir")


def disturbed(action, at, kill):
    """Runs `action` in a process that is killed as its file operation number `at` begins, or whose disk is full as its
    writing operation number `at` begins.

    Returns:
        Exit code: 9 where it was killed, 8 after the error that a full disk has to be, 0 where it did not come so far.
    """
    if pid := os.fork():
        return abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    left = at

    def hook(event, arguments):
        nonlocal left
        writes = event == "os.rename" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        left -= event in STEPS if kill else writes
        if left == 0:
            left = -1
            os.kill(os.getpid(), 9) if kill else None
            raise OSError(28, "No space left on device")

    code = 1
    sys.dont_write_bytecode = True  # of what is imported for the first time
    sys.addaudithook(hook)
    try:
        action()
        code = 0 if left > 0 else 1
    except InputError as error:
        code = 8 if "cannot be written (No space left on device). Fix: free space, or name a place" in str(error) else 1
    finally:
        os._exit(code)


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_whatever_step_fails_there_is_the_old_record_with_its_images_or_the_new_one_with_its(kill, tmp_path):
    old, new = record(loss=0.5), record(loss=0.25)
    found, codes = [], []
    for at in range(1, 100):
        store = Store(tmp_path / str(at), "quick")
        store.save(old, results(0))
        codes.append(disturbed(lambda store=store: store.save(new, results(1)), at, kill))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (loaded,) = store.load()
            assert loaded.epochs in (old.epochs, new.epochs)
            assert same_results(store.images(loaded), results(0 if loaded.epochs == old.epochs else 1)), at
        found.append(loaded.epochs == new.epochs)
        assert kill or not list(store.folder.rglob("*.part"))
        again = store.save(new, results(1))
        assert names(place(store, new).parent) == sorted([place(store, new).name, again.images.file])
        if codes[-1] == 0:
            break
    assert codes[-1] == 0 and len(codes) > (8 if kill else 4) and set(codes[:-1]) == {9 if kill else 8}
    assert found[-1] and not found[0] and found == sorted(found)


# Foreign files


OTHER = replace(record(), fingerprint=record().fingerprint[:12] + "f" * 52).to_json().encode()
LATER = record().to_json().replace(f'"version": {VERSION}', '"version": 99').encode()


@pytest.mark.parametrize(
    "content",
    [OTHER[:300], b"", b'{"name": "another tool\'s"}', LATER, OTHER, b"\xff\xfe\x00", None],
    ids=["truncated", "empty", "foreign", "later version", "other run", "no text", "folder"],
)
def test_what_is_not_the_runs_record_is_set_aside_never_overwritten(content, store):
    path = place(store, record())
    path.parent.mkdir(parents=True)
    (path.parent / f"{path.name}.damaged").write_text("an older one")
    path.mkdir() if content is None else path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert store.find(*key(record())) is None and len(caught) == (content != OTHER)
    with pytest.warns(UserWarning, match=rf"{path.name}.* It is now {path.name}\.damaged2\."):
        store.save(record())
    aside = path.with_name(f"{path.name}.damaged2")
    assert aside.is_dir() if content is None else aside.read_bytes() == content
    assert (path.parent / f"{path.name}.damaged").read_text() == "an older one"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load() == [record()]


def test_readers_only_warn_of_what_is_not_a_record(store):
    saved = store.save(record(seed=1))
    path = place(store, saved)
    folder = path.parent
    (folder / "a.json").mkdir()
    (folder / "b.json").write_bytes(b"\xff")
    (folder / "c.json").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "d.json")
    shutil.copy(path, folder / "e.json")  # a copy would be counted twice
    (folder.parent / "q1_1-features").mkdir()
    shutil.copy(path, folder.parent / "q1_1-features" / path.name)
    before = names(folder)
    with pytest.warns(UserWarning) as caught:
        assert store.load() == [saved]
    told = [str(w.message) for w in caught]
    problems = "is not a file", "is not JSON", "is a broken link", "is not a file", "is a copy of what belongs at q1_2-"
    for message, path, problem in zip(told[1:], [folder / f"{c}.json" for c in "abcde"], problems, strict=True):
        assert message.startswith(f"{path}: {problem}") and message.endswith("It is not counted.")
    assert "is a copy of what belongs at q1_2-finetune/seed1-" in told[0] and names(folder) == before


@pytest.mark.parametrize("leads", ["to a record", "to something else", "nowhere"])
def test_nothing_is_written_through_a_link(leads, store, tmp_path):
    outside, path = tmp_path / "outside", place(store, record())
    if leads != "nowhere":
        outside.write_text(record(loss=0.75).to_json() if leads == "to a record" else "precious")
    before = outside.read_text() if leads != "nowhere" else None
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store.save(record())
    assert len(caught) == (leads != "to a record")
    assert path.is_file() and not path.is_symlink() and store.load() == [record()]
    assert (outside.read_text() if outside.exists() else None) == before


def test_a_record_that_could_not_be_read_again_is_not_written(store):
    with pytest.raises(InputError, match=r"damaged record.*fingerprint"):
        store.save(replace(record(), fingerprint="no digest"))
    with pytest.raises(InputError, match=r"damaged record.*epoch"):
        store.fail(failure(record(), epoch=-1))
    assert not store.folder.exists()


def test_a_folders_name_that_is_no_text_does_not_lose_the_run(store):
    store.save(replace(record(), data=replace(record().data, name=os.fsdecode(b"caf\xe9"))))
    (loaded,) = store.load()
    assert loaded.data.name == "caf\\udce9"


# Writing


def test_file_and_names_are_on_the_disk_when_a_write_returns_with_the_users_rights(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(Path(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a" / "b" / "x.json", "text")
    finally:
        os.umask(before)
    assert done[0].suffix == ".part" and done[1] == "rename"
    assert done[2:] == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    assert (tmp_path / "a" / "b" / "x.json").stat().st_mode & 0o777 == 0o640
    done.clear()
    write_atomically(tmp_path / "a" / "b" / "x.json", "other")
    assert done[1:] == ["rename", tmp_path / "a" / "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_is_broken_off_leaves_the_old_file_and_no_litter(step, error, tmp_path, monkeypatch):
    write_atomically(tmp_path / "x.json", "old")

    def stop(*_):
        raise error

    monkeypatch.setattr(os, step, stop)
    with pytest.raises((InputError, KeyboardInterrupt), match=r"^$|x\.json: cannot be written \(No space left"):
        write_atomically(tmp_path / "x.json", "new")
    assert names(tmp_path) == ["x.json"] and (tmp_path / "x.json").read_text() == "old"


@pytest.mark.filterwarnings("error")
def test_half_written_files_are_never_read_and_go_with_the_next_writer_or_save(store):
    store.save(record(seed=1))
    folder, path = place(store, record()).parent, place(store, record())
    left = store.checkpoint(*key(record())).with_suffix(".safetensors.0a.part")
    parts = [folder / f"{path.name}.abc.part", folder / f"{path.stem}.0123abcd.npz.abc.part", left]
    others = [part.with_name(f"seed7-{part.name}") for part in parts]
    for part in (*parts, *others, folder / f"{path.stem}.0123abcd.npz"):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("{")
    assert len(store.load()) == 1
    with store.writer(*key(record())):
        assert not any(part.exists() for part in parts) and all(part.exists() for part in others)
    parts[0].write_text("{")
    store.save(record())
    assert len(names(folder)) == 4 and all(part.exists() for part in others)


# Runs that are not finished


def test_failures_are_listed_oldest_first_without_finished_runs_and_damaged_notes(store):
    notes = [failure(record(seed=s), started=f"2026-11-23T{h}:00:00+00:00") for s, h in enumerate((12, 10, 11, 13))]
    for note in notes:
        store.fail(replace(note, reason="an older note of that run"))
        store.fail(note)
    assert store.failures() == [notes[s] for s in (1, 2, 0, 3)]
    finished = place(store, notes[0])
    finished.parent.mkdir(parents=True)
    finished.write_text(record(seed=0).to_json())  # as if the process was killed before it tidied up
    store.checkpoint(*key(notes[3])).with_suffix(".json").write_text("{")
    with pytest.warns(UserWarning, match=r"seed3-.*not counted"):
        assert store.failures() == notes[1:3]


def test_a_finished_run_leaves_nothing_unfinished_and_other_runs_are_left_alone(store):
    first, second = record(seed=1), record(seed=11)
    for r in (first, second):
        store.fail(failure(r))
        store.checkpoint(*key(r)).write_bytes(b"state")
    folder = store.unfinished / first.row
    (folder / f"{store.checkpoint(*key(first)).name}.abc.part").write_text("half")
    store.save(first)
    of_second = [store.checkpoint(*key(second)).with_suffix(suffix).name for suffix in (".json", ".safetensors")]
    assert names(folder) == of_second
    store.save(second)
    assert names(store.unfinished) == []
    store.tidy(*key(second))  # nothing to remove is no error
    store.checkpoint(*key(record())).mkdir(parents=True)  # cannot be removed
    assert store.save(record()) == record() == store.find(*key(record()))


# One writer


HOLDER = """
import sys
from pathlib import Path
from cvhw4.records.store import Store
with Store(Path(sys.argv[1]), "quick").writer(sys.argv[2], int(sys.argv[3]), sys.argv[4]):
    print("held", flush=True)
    sys.stdin.read()
    Path(sys.argv[1], "left").touch()
"""


def holder(store, r):
    command = [sys.executable, "-c", HOLDER, str(store.folder.parent), *map(str, key(r))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("killed", [False, True])
def test_a_writer_waits_for_the_other_process_until_it_is_done_or_dead(killed, store):
    waits = []
    with holder(store, record()) as process:

        def on_wait():
            waits.append(process.poll())
            process.kill() if killed else process.stdin.close()

        with store.writer(*key(record(seed=1)), lambda: pytest.fail("waited for another run's writer")):
            pass
        with store.writer(*key(record()), on_wait):
            assert process.wait(10) == (-9 if killed else 0)
            assert (store.folder.parent / "left").exists() != killed
            store.save(record())
    assert waits == [None]


def test_a_lock_outlives_what_save_tidies_up_and_no_error(store):
    with pytest.raises(ZeroDivisionError), store.writer(*key(record())):
        store.checkpoint(*key(record())).write_bytes(b"state")
        store.save(record())
        assert names(store.unfinished / record().row) == [store.checkpoint(*key(record())).with_suffix(".lock").name]
        raise ZeroDivisionError
    with store.writer(*key(record()), lambda: pytest.fail("waited")):  # free again
        pass


def test_a_folder_that_cannot_be_written_to_has_no_writer_and_no_record(store):
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("a file")
    with pytest.raises(InputError, match=r"\.lock: cannot be written"), store.writer(*key(record())):
        pytest.fail("it wrote")
    with pytest.raises(InputError, match=r"\.json: cannot be written"):
        store.save(record())


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(38, "Function not implemented")])
def test_on_a_file_system_without_locks_a_warning_and_on(error, store, monkeypatch):
    def acquire(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match=r"\.lock: this file system has no locks"), store.writer(*key(record())):
        store.save(record())
    assert store.load() == [record()]
