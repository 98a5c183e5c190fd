"""A store with many writers that are killed, and with many records."""

import hashlib
import random
import subprocess
import sys
import warnings

import pytest

from cvhw4.records.store import Store
from tests.helpers import ROOT
from tests.helpers.records import place
from tests.helpers.tiny import record

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
    with store.writer(template.row, seed, print_):
        before = store.find(template.row, seed, print_)
        new = replace(template, seed=seed, fingerprint=print_, parameters=before.parameters + 1 if before else 1)
        common = {k: getattr(new, k) for k in Failure.__dataclass_fields__ if hasattr(new, k) and k != "version"}
        store.fail(Failure(**(common | dict(data="x", epoch=1, step=1, lr=0.1, reason="none"))))
        store.save(new, SimpleNamespace(to_bytes=lambda: os.urandom(500)))
        os.write(acknowledged, f"{seed} {new.parameters}\\n".encode())

def start():
    if pid := os.fork():
        return pid
    try:
        chance, parent = random.Random(os.getpid() + time.time_ns()), os.getppid()
        while os.getppid() == parent:
            write(chance.randrange(runs))
    finally:
        os._exit(1)

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


@pytest.mark.integration
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
    for r in records.values():
        content = place(store, r).with_name(r.images.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == r.images.sha256
    assert crowd.returncode == 0 and reads > 10 and killed > 10
    acknowledged = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert len(acknowledged) >= writes and len({*acknowledged}) == len(acknowledged)
    assert all(records[seed].parameters >= version for seed, version in latest.items())
    for seed in {s for s, _ in acknowledged}:
        versions = [n for s, n in acknowledged if s == seed]
        assert versions == sorted(versions) and records[seed].parameters >= versions[-1]
    print(f"\n0 of {len(acknowledged)} acknowledged writes lost; {killed} processes killed, {reads} readings meanwhile")


def test_10_000_records_load_in_a_few_times_the_time_of_reading_their_json(tmp_path):
    model, chance = record("q2_1a"), random.Random(0)
    for row in range(100):
        folder = Store(tmp_path, "quick").runs / f"q2_1a-arm{row}"
        folder.mkdir(parents=True)
        text = model.to_json().replace(model.row, folder.name)
        for seed in range(100):
            new = f"{chance.getrandbits(256):064x}"
            content = text.replace(model.fingerprint, new).replace('"seed": 0', f'"seed": {seed}')
            (folder / f"seed{seed}-{new[:12]}.json").write_text(content)
    code = """
import json, sys, time
from pathlib import Path
from cvhw4.records.store import Store
store = Store(Path(sys.argv[1]), "quick")
start = time.process_time()
for path in store.runs.glob("*/*.json"):
    json.loads(path.read_bytes())
middle = time.process_time()
records = store.load()
print(len({r.fingerprint for r in records}), middle - start, time.process_time() - middle)
"""  # in a process of its own, which nobody traces
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    read, bare, took = done.stdout.split()
    print(f"\n{read} records read in {float(took):.1f} s, {float(took) / float(bare):.1f} times their JSON alone")
    assert read == "10000" and float(took) < 6 * float(bare)
