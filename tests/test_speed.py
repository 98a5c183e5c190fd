"""Speed comparisons: both sides really run, at small size; ratios as worked by hand; nothing lost on disk or hidden on
the page."""

import io
import json
import math
import re
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.performance import speed as timing
from benchmarks.performance.cost import Machine
from benchmarks.performance.families import FAMILIES, TARGETS, Setting, find_family
from benchmarks.performance.growth import Growth, growth_page
from benchmarks.performance.measured import read_measures
from benchmarks.performance.peers import Comparison, peers_page
from benchmarks.performance.speed import PORTRAIT, SCENE, Job, at_once, compare, run_side, write_pictures
from benchmarks.performance.speed_record import load_all, save, speed_page, write_speed_page
from cvhw4 import CAMVID, Scenes
from cvhw4.camvid import CLASSES
from cvhw4.data.embedded import embedded_portraits, embedded_scenes
from cvhw4.data.pictures import read_pictures
from cvhw4.data.scenes import read_scenes
from tests.helpers import ROOT
from tests.helpers.pages import cells
from tests.helpers.records import MACHINE, speed
from tests.helpers.tiny import dataset

CPU, RESULTS = torch.device("cpu"), ROOT / "results"


# Both sides


def test_pictures_have_the_protocols_sizes_and_both_classes_and_repeat_in_turn(tmp_path):
    setting = Setting(5, 3, 1)
    portraits = read_pictures(write_pictures(embedded_portraits(), setting, tmp_path / "p"))
    assert portraits.train.images.shape == (5, *PORTRAIT, 3) and len(portraits.val) == 3
    assert set(portraits.train.targets) == {0, 1}
    scenes = read_scenes(Scenes(write_pictures(embedded_scenes(), setting, tmp_path / "s"), **CAMVID))
    assert scenes.train.images.shape == (5, *SCENE, 3) and scenes.classes == CLASSES
    images = timing.enlarged(dataset("classification", train=4).train, 10).images
    assert np.array_equal(images[0], images[4]) and not np.array_equal(images[0], images[1])


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [f.name for f in FAMILIES if f.name not in ("FCN8s over VGG16", "frozen, seeds at once")]
)
def test_both_sides_run_and_are_recorded(name, tmp_path, monkeypatch):
    """A handful of pictures and small networks, but real files and real training, in this process."""

    def in_this_process(side, job):
        with redirect_stdout(io.StringIO()) as out:
            timing.main(side, job, wait=lambda: None)
        return json.loads(out.getvalue())

    family = find_family(name)
    networks = {"EfficientNet-B2": "tf_efficientnet_lite0+linear"}
    network = "fcn8s/tf_efficientnet_lite0" if "FCN8s" in name else networks.get(name)
    tiny = replace(family, cpu=Setting(6, 2, 2, family.cpu.target, size=64, network=network))
    monkeypatch.setattr(timing, "run_side", in_this_process)
    record = compare(Job(tiny, tmp_path, CPU), machine=MACHINE, trials=1, command="pytest")
    assert record.images == (2 * 2 if family.work == "validation alone" else 2 * (6 + 2))
    assert (record.workerless_ratio is None) == (family.cpu.target is None)
    assert record.flops > 0 and record.ratio > 0 and record.over_floor > 0 and record.peak_memory_ours > 2**20
    assert (record.study, record.row.startswith(family.base)) == ("full", True)
    assert f"{name}: {family.work}" in speed_page([record])


def test_processes_at_once_start_together(tmp_path, monkeypatch):
    """Each is ready at a time of its own; none is timed before all are."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, random, sys, time; time.sleep(random.random())\n"
        "print('warming up'); print('ready', flush=True); sys.stdin.readline(); start = time.time(); time.sleep(0.3)\n"
        "print(json.dumps({'seconds': 0.3, 'started': start, 'ended': time.time(), 'peak_memory': 7}))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    taken = at_once(Job(find_family("FCN8s"), tmp_path, CPU), 3)
    assert 0.3 <= taken["seconds"] < 0.6 and taken["peak_memory"] == 21


def test_seeds_at_once_are_compared_with_one_after_another(tmp_path, monkeypatch):
    calls = []

    def side(name, job, threads, barrier):
        calls.append((name, threads, barrier.parties))
        seconds = 10.0 if threads == torch.get_num_threads() else 14.0
        return {"seconds": seconds, "started": 5.0, "ended": 5.0 + seconds, "peak_memory": 100}

    monkeypatch.setattr(timing, "run_side", side)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    job = Job(find_family("frozen, seeds at once"), tmp_path, CPU)
    record = compare(job, machine=MACHINE, trials=1, command="pytest")
    # two with half of the threads each, then one with all
    assert calls == [("ours", 2, 2), ("ours", 2, 2), ("ours", 4, 1)]
    assert record.ours_seconds == [14.0] and record.reference_seconds == [20.0]
    assert (record.peak_memory_ours, record.peak_memory_reference) == (200, 100)
    assert record.images == 2 * 10 * 72 and "2 runs at once" in record.work


@pytest.mark.integration
def test_a_side_is_timed_in_a_process_of_its_own_and_says_why_it_fails(tmp_path):
    job = Job(find_family("FCN8s, validation alone"), tmp_path, CPU)
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks\.performance\.speed ours FCN8s, .*No such file"):
        run_side("ours", replace(job, folder=tmp_path / "nowhere"), barrier=threading.Barrier(1))
    write_pictures(embedded_scenes(), Setting(2, 2, 1), tmp_path)
    result = run_side("ours", job)
    assert result["ended"] > result["started"] and result["seconds"] > 0 and result["peak_memory"] > 2**20


@pytest.mark.integration
def test_long_measurements_are_left_out_unless_asked_for():
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"]
    collected = [
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True).stdout
        for more in ([], ["-m", "speed or growth"])
    ]
    assert [out.count("benchmarks/performance/") for out in collected] == [0, len(FAMILIES) + 2 + 10]


# Records


@pytest.fixture
def on_cuda():
    environment = speed().environment | {"device": "cuda", "device_name": "A GPU", "threads": 8}
    return speed(environment=environment, machine=Machine("cuda", 7e14, "bfloat16", 3e12))


def test_figures_by_hand():
    r = speed()
    assert r.ratio == 10 / 2.5 and r.ratio_range == (2.0, 5.0)
    assert (r.over_floor, r.floor) == (5.0, (0.5, "arithmetic"))  # 0.5 s of arithmetic, 0.25 s of traffic
    slow = replace(r, bytes=20 * 10**9)
    assert (slow.over_floor, slow.floor) == (2.5, (1.0, "memory"))
    assert math.isinf(replace(r, flops=0, bytes=0).over_floor)


def test_the_committed_pages_are_of_the_committed_measures():
    stored = load_all(RESULTS)
    assert len(stored) == len(FAMILIES)
    of_peers = peers_page(read_measures(RESULTS / "peers.json", Comparison))
    pages = {"speed": speed_page(stored, TARGETS), "peers": of_peers, "growth": growth_page(Growth(RESULTS))}
    assert pages == {name: (RESULTS / f"{name}.md").read_text() for name in pages}


def test_a_newer_measurement_replaces_the_older_of_its_family_and_device(tmp_path, on_cuda):
    new, others = speed(ours_seconds=[1.0] * 3), [on_cuda, speed(family="fine-tuned")]
    for one in (speed(), *others, new):
        save(one, tmp_path)
    assert load_all(tmp_path) == [others[1], new, others[0]]


# The page


def test_the_page_shows_every_figure():
    page = speed_page([speed(family="a|b", workerless_seconds=[6.0, 7.0, 5.0])])
    work = "training with validation (q1_1-features, tf_efficientnet_lite0, 96 px, batch 16)"
    figures = "400 | 100 | 4.00 (2.00 to 5.00) | 2.40 | 3.00, MISSED without workers | 20 | 20 % | 5.00"
    assert f"| a\\|b: {work} | {figures} | arithmetic | 1.00 GiB, - | 3 |" in re.sub(" +", " ", page)
    assert "A processor (2 threads), measured peak 100 GFLOP/s (float32) and 20 GB/s; 2026-11-23" in page
    assert "study `quick`; `pytest benchmarks/speed.py`" in page
    assert "## CPU" in page and "## CUDA" not in page
    assert speed_page([]) == "# Speed\n\nNo measurements yet.\n"


def test_targets_without_a_measurement_are_shown(tmp_path, on_cuda):
    targets = [("cpu", "fine-tuned", 1.5), ("cpu", "frozen, random crops", 4.5), ("cuda", "frozen, random crops", 10.0)]
    for record in (speed(), speed(family="another"), replace(on_cuda, family="another")):
        save(record, tmp_path)
    page = write_speed_page(tmp_path, targets)
    assert page == tmp_path / "speed.md"
    cpu, cuda = page.read_text().split("## CUDA")
    assert cells(cpu, "fine-tuned")[3:6] == ["not measured", "-", "1.50"]
    assert cells(cpu, "frozen, random crops: ")[4:6] == ["-", "4.50, MISSED"]  # the target that holds now
    assert cells(cuda, "frozen, random crops")[3:6] == ["not measured", "-", "10.00"]
    assert cpu.index("| fine-tuned") < cpu.index("| frozen, random crops:") < cpu.index("| another:")
    assert "A GPU, measured" in cuda and cells(cuda, "another")[5] == "3.00, met"
