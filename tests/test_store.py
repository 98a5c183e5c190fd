"""The store of records, as killed processes, full disks and other people's files find it."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import filelock
import numpy as np
import pytest

from cvhw4.errors import InputError
from cvhw4.records.images import ImageResults
from cvhw4.records.schema import Failure
from cvhw4.records.store import Store, write_atomically
from tests.tiny import record

ROOT = Path(__file__).resolve().parent.parent


def results(seed=0, epochs=3, images=40):
    random = np.random.RandomState(seed)
    return ImageResults.of_two_classes(
        right=random.rand(epochs, images) < 0.7, labels=np.arange(images, dtype=np.uint8) % 2
    )


def failure(of, **changes):
    shared = {k: v for k, v in asdict(of).items() if k in Failure.__dataclass_fields__ and k != "version"}
    note = dict(data="embedded", epoch=2, step=0, lr=0.1, reason="the loss is NaN", checkpoint=None)
    return Failure(**(shared | note | changes))


def same_results(a, b):
    return a.to_bytes() == b.to_bytes()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, "quick")


def place(store, r):
    return store.path(r.id, r.seed, r.fingerprint)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def key(r):
    return r.id, r.seed, r.fingerprint


# The pair of a record and its images


def test_images_are_named_by_content_beside_the_record(store):
    stored = store.save(record(), results())
    digest = hashlib.sha256(results().to_bytes()).hexdigest()
    path = place(store, stored)
    assert stored.images.file == f"{path.stem}.{digest[:8]}.npz" and stored.images.sha256 == digest
    assert names(path.parent) == sorted([path.name, stored.images.file])


def test_a_repeated_run_leaves_its_new_images_and_no_others(store):
    store.save(record(), results(0))
    neighbour = store.save(record(seed=1), results(5))
    stored = store.save(record(loss=0.25), results(1))
    assert same_results(store.images(stored), results(1)) and same_results(store.images(neighbour), results(5))
    assert len(names(place(store, stored).parent)) == 4
    assert store.save(stored) == stored and same_results(store.images(stored), results(1))  # images as they are
    assert store.save(record()).images is None
    assert names(place(store, stored).parent) == sorted(
        [place(store, stored).name, place(store, neighbour).name, neighbour.images.file]
    )


def as_version_1(store, r, images):
    """Writes record and images as version 1 did."""
    path, content = place(store, r), images.to_bytes()
    raw = json.loads(r.to_json()) | {"version": 1, "images": hashlib.sha256(content).hexdigest()}
    del raw["data"]["leaks"], raw["times"]["interruptions"]
    path.parent.mkdir(parents=True)
    path.with_suffix(".npz").write_bytes(content)
    path.write_text(json.dumps(raw))
    return path


def test_a_record_of_version_1_is_read_with_its_images_and_not_rewritten(store):
    path = as_version_1(store, record(), results())
    before = path.read_bytes()
    (loaded,) = store.load()
    assert loaded == store.find(*key(record())) == replace(record(), images=loaded.images)
    assert loaded.images.file == path.with_suffix(".npz").name
    assert same_results(store.images(loaded), results())
    assert path.read_bytes() == before


def file_operations(action, at):
    """Runs `action` in a process that is killed as its file operation number `at` begins; whether it came that far."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(event, _):
            nonlocal seen
            if event in ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.scandir"):
                seen += 1
                if seen == at:
                    os._exit(9)

        sys.addaudithook(hook)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_at_any_step_leaves_the_old_record_with_its_images_or_the_new_one_with_its(version, tmp_path):
    old, new = record(loss=0.5), record(loss=0.25)
    found = []
    for at in range(1, 100):
        store = Store(tmp_path / str(at), "quick")
        as_version_1(store, old, results(0)) if version == 1 else store.save(old, results(0))
        killed = file_operations(lambda store=store: store.save(new, results(1)), at)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (loaded,) = store.load()
            assert loaded.epochs in (old.epochs, new.epochs)
            assert same_results(store.images(loaded), results(0 if loaded.epochs == old.epochs else 1)), at
        found.append(loaded.epochs == new.epochs)
        again = store.save(new, results(1))
        assert names(place(store, new).parent) == sorted([place(store, new).name, again.images.file])
        if not killed:
            break
    assert not killed and len(found) > 8  # it was killed at every step there is
    assert found == sorted(found) and not found[0] and found[-1]


# Foreign files


@pytest.mark.parametrize(
    "content",
    [
        record().to_json()[:300],
        "",
        '{"name": "another tool\'s"}',
        record().to_json().replace('"version": 2', '"version": 99'),
        replace(record(), fingerprint=record().fingerprint[:12] + "f" * 52).to_json(),
        b"\xff\xfe\x00",
        None,
    ],
    ids=["truncated", "empty", "foreign", "later version", "other run", "no text", "folder"],
)
def test_what_is_not_the_runs_record_is_set_aside_never_overwritten(content, store):
    path = place(store, record())
    path.parent.mkdir(parents=True)
    (path.parent / f"{path.name}.damaged").write_text("an older one")
    if content is None:
        path.mkdir()
        (path / "inside").write_text("kept")
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.warns(UserWarning, match=rf"{path.name}.* It is now {path.name}\.damaged2\."):
        store.save(record())
    aside = path.with_name(f"{path.name}.damaged2")
    if content is None:
        assert (aside / "inside").read_text() == "kept"
    else:
        assert aside.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert (path.parent / f"{path.name}.damaged").read_text() == "an older one"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load() == [record()]


def test_readers_only_warn_of_what_is_no_record(store):
    store.save(record(seed=1))
    folder = place(store, record()).parent
    (folder / "a.json").mkdir()
    (folder / "b.json").write_bytes(b"\xff")
    (folder / "c.json").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "d.json")
    before = names(folder)
    with pytest.warns(UserWarning) as caught:
        assert len(store.load()) == 1
    assert [str(w.message).split(": ")[0] for w in caught] == [str(folder / f"{c}.json") for c in "abcd"]
    assert all("not counted" in str(w.message) for w in caught)
    place(store, record()).mkdir()
    with pytest.warns(UserWarning, match="is no file.*not used"):
        assert store.find(*key(record())) is None
    place(store, record()).rmdir()
    assert names(folder) == before


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
    odd = replace(record(), data=replace(record().data, name=os.fsdecode(b"caf\xe9")))
    store.save(odd)
    (loaded,) = store.load()
    assert loaded.data.name == "caf\\udce9"


# Writing


def test_file_and_names_are_on_the_disk_when_a_write_returns(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(Path(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
    write_atomically(tmp_path / "a" / "b" / "x.json", "text")
    assert done[0].suffix == ".part" and done[1] == "rename"
    assert done[2:] == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    done.clear()
    write_atomically(tmp_path / "a" / "b" / "x.json", "other")
    assert done[1:] == ["rename", tmp_path / "a" / "b"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_is_broken_off_leaves_the_old_file_and_no_litter(error, tmp_path, monkeypatch):
    write_atomically(tmp_path / "x.json", "old")

    def stop(*_):
        raise error

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises((InputError, KeyboardInterrupt)):
        write_atomically(tmp_path / "x.json", "new")
    assert names(tmp_path) == ["x.json"] and (tmp_path / "x.json").read_text() == "old"


def test_half_written_files_are_never_read_and_go_with_the_next_save_of_the_run(store):
    store.save(record(seed=1))
    folder, path = place(store, record()).parent, place(store, record())
    litter = [f"{path.name}.abc.part", f"{path.stem}.0123abcd.npz.abc.part", f"{path.stem}.0123abcd.npz"]
    for name in litter:
        (folder / name).write_text("{")
    (folder / f"{place(store, record(seed=1)).name}.abc.part").write_text("another run's")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(store.load()) == 1
    store.save(record())
    assert not set(litter) & set(names(folder)) and len(names(folder)) == 3


CONFINED = """
import json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from cvhw4.errors import InputError
from cvhw4.records.schema import RunRecord
from cvhw4.records.store import Store

where, case = Path(sys.argv[1]), sys.argv[2]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "none", where]).returncode:
    sys.exit(77)
template, store = RunRecord.from_json(sys.stdin.read(), Path("stdin")), Store(where, "quick")
images = SimpleNamespace(to_bytes=lambda: os.urandom(6000))

def write(seed):
    store.save(replace(template, seed=seed, fingerprint=f"{seed:064x}"[::-1]), images)

def contents():
    return {p: p.read_bytes() for p in store.runs.rglob("*.json")}

told, kept = None, {}
for seed in range(100):
    if case == "read-only" and seed == 3:
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
    try:
        write(seed)
    except InputError as error:
        told = str(error)
        break
    kept = contents()
unchanged, loaded = contents() == kept, len(store.load())
again = None
try:
    write(0)
except InputError as error:
    again = str(error)
pairs = [store.path(r.id, r.seed, r.fingerprint).with_name(r.images.file).is_file() for r in store.load()]
print(json.dumps({
    "told": told, "again": again, "saved": len(kept), "unchanged": unchanged and contents() == kept,
    "loaded": loaded, "pairs": all(pairs) and len(pairs) == loaded, "part": len(list(store.folder.rglob("*.part"))),
}))
"""


def confined(folder, case):
    """Writes records to a small file system of its own until that is full or read-only."""
    problems = []
    for options in (["--mount", "--map-root-user"], ["--mount"]):
        command = ["unshare", *options, sys.executable, "-W", "error", "-c", CONFINED, str(folder), case]
        try:
            done = subprocess.run(command, input=record().to_json(), capture_output=True, text=True, cwd=ROOT)
        except OSError as error:
            pytest.skip(f"no unshare: {error}")
        if done.returncode == 0:
            return json.loads(done.stdout)
        if "Traceback" in done.stderr:
            pytest.fail(done.stderr)
        problems.append(done.stderr.strip())
    pytest.skip(f"nothing may be mounted here: {'; '.join(problems)}")


@pytest.mark.parametrize(("case", "why"), [("full", "No space left on device"), ("read-only", "Read-only file system")])
def test_a_full_or_read_only_disk_is_one_error_and_earlier_records_stay_as_they_are(case, why, tmp_path):
    found = confined(tmp_path, case)
    assert f"cannot be written ({why}). To mend: free space or choose another --results" in found["told"]
    assert why in found["again"]  # a run that is there already: its record and images stay as well
    assert found["saved"] == found["loaded"] >= 3 and found["unchanged"] and found["pairs"]
    assert found["part"] == 0


# Runs that are not finished


def test_a_failure_comes_back_as_it_went(store):
    note = failure(record(), checkpoint="seed0-a.safetensors", step=7)
    store.fail(note)
    path = store.checkpoint(*key(note)).with_suffix(".json")
    assert path == store.folder / "unfinished" / note.id / f"seed0-{note.fingerprint[:12]}.json"
    assert store.failures() == [note] and Failure.from_json(path.read_text(), path) == note
    store.fail(replace(note, reason="no memory"))
    assert [n.reason for n in store.failures()] == ["no memory"]


@pytest.mark.parametrize(
    "changes",
    [{"epoch": "2"}, {"lr": None}, {"id": "other"}, {"checkpoint": "../x"}, {"study": "x"}, {"started": "now"}],
)
def test_a_damaged_failure_names_its_field(changes):
    raw = json.loads(failure(record()).to_json()) | changes
    with pytest.raises(InputError, match=rf"x\.json: is a damaged record \({next(iter(changes))}"):
        Failure.from_json(json.dumps(raw), "x.json")


def test_failures_are_listed_oldest_first_without_finished_runs_and_damaged_notes(store):
    runs = [record(seed=s) for s in range(4)]
    for r, started in zip(runs, ("12", "10", "11", "13"), strict=True):
        store.fail(failure(r, started=f"2026-11-23T{started}:00:00+00:00"))
    place(store, runs[0]).parent.mkdir(parents=True)
    place(store, runs[0]).write_text(runs[0].to_json())  # as if the process was killed before it tidied up
    store.checkpoint(*key(runs[3])).with_suffix(".json").write_text("{")
    with pytest.warns(UserWarning, match=r"seed3-.*not counted"):
        assert [n.seed for n in store.failures()] == [1, 2]


def test_a_finished_run_leaves_nothing_unfinished_and_other_runs_are_left_alone(store):
    first, second = record(seed=1), record(seed=11)
    for r in (first, second):
        store.fail(failure(r))
        store.checkpoint(*key(r)).write_bytes(b"state")
    (store.unfinished / first.id / f"{store.checkpoint(*key(first)).name}.abc.part").write_text("half")
    store.save(first)
    assert names(store.unfinished / first.id) == [
        store.checkpoint(*key(second)).with_suffix(suffix).name for suffix in (".json", ".safetensors")
    ]
    store.save(second)
    assert names(store.unfinished) == []
    store.tidy(*key(second))  # nothing to remove is no error


def test_what_cannot_be_removed_does_not_fail_a_finished_run(store):
    store.checkpoint(*key(record())).mkdir(parents=True)
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

        with store.writer(*key(record()), on_wait):
            assert process.wait(10) == (-9 if killed else 0)
            assert (store.folder.parent / "left").exists() != killed
            store.save(record())
    assert waits == [None]


def test_writers_of_other_runs_do_not_wait(store):
    with holder(store, record()) as process:
        with store.writer(*key(record(seed=1)), lambda: pytest.fail("waited")):
            pass
        process.kill()


def test_a_lock_outlives_what_save_tidies_up(store):
    with store.writer(*key(record())):
        store.checkpoint(*key(record())).write_bytes(b"state")
        store.save(record())
        assert names(store.unfinished / record().id) == [store.checkpoint(*key(record())).with_suffix(".lock").name]
    with store.writer(*key(record()), lambda: pytest.fail("waited")):  # free again
        pass


def test_an_error_while_writing_frees_the_lock(store):
    with pytest.raises(ZeroDivisionError), store.writer(*key(record())):
        raise ZeroDivisionError
    with store.writer(*key(record()), lambda: pytest.fail("waited")):
        pass


def test_a_folder_that_cannot_be_written_to_has_no_writer(store):
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("a file")
    with pytest.raises(InputError, match=r"\.lock: cannot be written"), store.writer(*key(record())):
        pytest.fail("it wrote")


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(38, "Function not implemented")])
def test_where_the_file_system_knows_no_locks_a_warning_and_on(error, store, monkeypatch):
    def acquire(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match=r"\.lock: this file system knows no locks"), store.writer(*key(record())):
        store.save(record())
    assert store.load() == [record()]


# Many at once


CROWD = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import filelock
from cvhw4.records.schema import Failure, RunRecord
from cvhw4.records.store import Store

folder, log, writes, runs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
template, store = RunRecord.from_json(sys.stdin.read(), Path("stdin")), Store(folder, "quick")
acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def write(seed):
    "The run's next version: one more than what is stored. Two writers at once would give the same number twice."
    print_ = f"{seed:012x}".ljust(64, "0")
    with store.writer(template.id, seed, print_):
        before = store.find(template.id, seed, print_)
        new = replace(template, seed=seed, fingerprint=print_, parameters=before.parameters + 1 if before else 1)
        common = {k: getattr(new, k) for k in Failure.__dataclass_fields__ if hasattr(new, k) and k != "version"}
        store.fail(Failure(**(common | dict(data="x", epoch=1, step=1, lr=0.1, reason="none"))))
        store.save(new, SimpleNamespace(to_bytes=lambda: os.urandom(500)))
        os.write(acknowledged, f"{seed} {new.parameters}\\n".encode())

def work():
    chance, parent = random.Random(os.getpid() + time.time_ns()), os.getppid()
    while os.getppid() == parent:
        write(chance.randrange(runs))

def start():
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9, "a worker failed by itself"

chance, killed, end = random.Random(0), 0, time.monotonic() + 500
workers = [start() for _ in range(8)]
while log.read_bytes().count(b"\\n") < writes:
    assert time.monotonic() < end, "too slow"
    time.sleep(chance.uniform(0.0, 0.03))
    one = chance.randrange(8)
    kill(workers[one])
    workers[one], killed = start(), killed + 1
for pid in workers:
    kill(pid)
print(killed)
"""


@pytest.mark.parametrize(("writes", "runs"), [(150, 12), pytest.param(1000, 60, marks=pytest.mark.long)])
def test_of_8_processes_that_write_and_are_killed_no_acknowledged_record_is_lost(writes, runs, tmp_path):
    store, log = Store(tmp_path / "results", "quick"), tmp_path / "log"
    command = [sys.executable, "-W", "error", "-c", CROWD, str(tmp_path / "results"), str(log), str(writes), str(runs)]
    crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    crowd.stdin.write(record().to_json())
    crowd.stdin.close()
    reads, latest = 0, {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while crowd.poll() is None:
            for r in store.load():
                assert r.parameters >= latest.get(r.seed, 1)
                latest[r.seed] = r.parameters
            store.failures()
            reads += 1
        killed = int(crowd.stdout.read())
        records = {r.seed: r for r in store.load()}
        assert all(same_digest(store, r) for r in records.values())
    assert crowd.returncode == 0 and reads > 10 and killed > 10
    acknowledged = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert len(acknowledged) >= writes and Counter(acknowledged).most_common(1)[0][1] == 1
    assert latest.keys() <= records.keys() and all(records[s].parameters >= n for s, n in latest.items())
    for seed in {s for s, _ in acknowledged}:
        versions = [n for s, n in acknowledged if s == seed]
        assert versions == sorted(versions) and records[seed].parameters >= versions[-1]
    print(f"\n0 of {len(acknowledged)} acknowledged writes lost; {killed} processes killed, {reads} readings meanwhile")


def same_digest(store, r):
    content = place(store, r).with_name(r.images.file).read_bytes()
    return hashlib.sha256(content).hexdigest() == r.images.sha256


def test_10_000_records_load_in_under_5_s(tmp_path):
    model = record("q2_1a")
    store, text = Store(tmp_path, "quick"), model.to_json()
    old, chance = model.fingerprint, random.Random(0)
    for row in range(100):
        folder = store.runs / f"{model.row}-arm{row}"
        folder.mkdir(parents=True)
        for seed in range(100):
            new = f"{chance.getrandbits(256):064x}"
            (folder / f"seed{seed}-{new[:12]}.json").write_text(
                text.replace(old, new).replace('"seed": 0', f'"seed": {seed}').replace(model.id, folder.name)
            )
    code = """
import sys, time
from pathlib import Path
from cvhw4.records.store import Store
start = time.process_time()
records = Store(Path(sys.argv[1]), "quick").load()
print(len({r.fingerprint for r in records}), time.process_time() - start)
"""  # in a process of its own, which nobody traces
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    read, took = done.stdout.split()
    print(f"\n{read} records read in {float(took):.1f} s")
    assert read == "10000" and float(took) < 5


def test_a_copy_under_another_name_is_not_counted_twice(tmp_path):
    store = Store(tmp_path, "quick")
    saved = store.save(record())
    path = store.path(saved.id, saved.seed, saved.fingerprint)
    shutil.copy(path, path.with_name("copy.json"))
    (path.parent.parent / "q1_1-features").mkdir()
    shutil.copy(path, path.parent.parent / "q1_1-features" / path.name)
    with pytest.warns(UserWarning, match="is a copy of what belongs at q1_2-finetune/seed0-") as caught:
        assert len(store.load()) == 1
    assert len(caught) == 2


def test_what_a_killed_writer_left_half_written_is_removed_by_the_next(tmp_path):
    store, saved = Store(tmp_path, "quick"), record()
    run = saved.id, saved.seed, saved.fingerprint
    left = [store.checkpoint(*run).with_suffix(".safetensors.0a.part"), store.path(*run).with_suffix(".json.0b.part")]
    others = [path.with_name(f"seed7-{path.name}") for path in left]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with store.writer(*run):
        assert not any(path.exists() for path in left) and all(path.exists() for path in others)


def test_files_are_made_with_the_rights_that_the_user_gives_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
