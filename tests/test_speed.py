"""The speed comparison at small size: both sides really run, and the table says what they took."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import speed
from benchmarks.families import FAMILIES, Setting, find_family
from benchmarks.speed import PORTRAIT, SCENE, compare, write_pictures
from cvhw4.data.camvid import read_camvid
from cvhw4.data.dataset import CAMVID_CLASSES
from cvhw4.data.embedded import embedded_portraits, embedded_scenes
from cvhw4.data.portraits import read_portraits
from cvhw4.report.speed import speed_page
from cvhw4.training.cost import Machine
from tests.tiny import dataset

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def test_families_are_the_protocols_rows_with_their_targets():
    targets = {f.name: (f.target("cpu"), f.target("cuda")) for f in FAMILIES}
    assert targets == {
        "frozen, random crops": (2.5, 10),
        "frozen, seeds at once": (None, 4),
        "frozen, whole face": (10, 10),
        "all layers": (1.4, 4),
        "EfficientNet-B2": (None, 5),
        "FCN8s": (1.5, 15),
        "FCN8s, validation alone": (5, None),
        "FCN8s over VGG16": (None, None),
    }
    for family in (f for f in FAMILIES if f.cuda is not None):
        experiment = family.experiment("cuda")
        assert (experiment.recipe.batch, experiment.recipe.size) == (
            (4, 224) if experiment.question == "q1" else (6, 256)
        )
    assert find_family("FCN8s over VGG16").experiment("cpu").network == "fcn8s/vgg16"
    with pytest.raises(ValueError, match="FCN8s over VGG16 is not timed on cuda"):
        find_family("FCN8s over VGG16").experiment("cuda")  # there "FCN8s" is just that
    assert find_family("FCN8s").experiment("cpu").network == "fcn8s/tf_efficientnet_lite0"
    assert find_family("EfficientNet-B2").experiment("cpu").network == "efficientnet_b2+linear"


def test_pictures_have_the_protocols_sizes_and_both_classes(tmp_path):
    setting = Setting(train=5, val=3, epochs=1)
    portraits = read_portraits(write_pictures(embedded_portraits(), setting, tmp_path / "p"))
    assert portraits.train.images.shape == (5, *PORTRAIT, 3) and len(portraits.val) == 3
    assert set(portraits.train.targets) == {0, 1}
    scenes = read_camvid(write_pictures(embedded_scenes(), setting, tmp_path / "s"))
    assert scenes.train.images.shape == (5, *SCENE, 3) and scenes.classes == CAMVID_CLASSES[:-1]
    assert Image.open(next((tmp_path / "p" / "train").rglob("*.jpg"))).size == PORTRAIT[::-1]


def test_more_pictures_than_there_are_repeat_in_turn():
    split = dataset("q1", train=4).train
    images = speed.enlarged(split, 10).images
    assert np.array_equal(images[0], images[4]) and not np.array_equal(images[0], images[1])


@pytest.mark.parametrize(
    "name", [f.name for f in FAMILIES if f.name not in ("FCN8s over VGG16", "frozen, seeds at once")]
)
def test_both_sides_run_and_are_recorded(name, tmp_path, monkeypatch):
    """Every family, with a handful of pictures and small networks; real processes, real files, real training."""
    family = find_family(name)
    small = Setting(train=6, val=2, epochs=2, target=family.target("cpu"), size=64)
    small = replace(small, network="tf_efficientnet_lite0+linear") if "Efficient" in name else small
    small = replace(small, network="fcn8s/tf_efficientnet_lite0") if "FCN8s" in name else small
    tiny = replace(family, cpu=small)
    monkeypatch.setattr(speed, "run_side", in_this_process)
    monkeypatch.setattr(speed, "find_family", lambda name: tiny)
    machine = Machine("cpu", 1e11, "float32", 1e10)
    record = compare(
        tiny, tmp_path, device=CPU, precision="float32", graphs=False, machine=machine, trials=1, command="pytest"
    )
    validated = family.work == "validation alone"
    assert record.images == (2 * 2 if validated else 2 * (6 + 2))
    assert (record.workerless_ratio is None) == (family.target("cpu") is None)
    assert record.flops > 0 and record.ratio > 0 and record.over_floor > 0
    assert record.peak_memory_ours > 2**20
    assert f"{name}: {family.work}" in speed_page([record])


def test_processes_at_once_start_together(tmp_path, monkeypatch):
    """Each is ready at a time of its own; none is timed before all are."""
    script = (
        "import json, sys, time; time.sleep(float(sys.argv[4].count('x')));"
        "print('warming up'); print('ready', flush=True); sys.stdin.readline(); start = time.time(); time.sleep(0.3);"
        "print(json.dumps({'seconds': 0.3, 'started': start, 'ended': time.time(), 'peak_memory': 7}))"
    )
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport os, random, time; time.sleep(random.random())\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(speed.sys, "executable", str(program))
    taken = speed.at_once(find_family("FCN8s"), tmp_path, CPU, "float32", False, 3)
    assert 0.3 <= taken["seconds"] < 0.6 and taken["peak_memory"] == 21


def test_seeds_at_once_are_held_against_one_after_another(tmp_path, monkeypatch):
    calls = []

    def side(name, family, folder, device, precision, graphs, threads, line):
        calls.append((name, threads, line.parties))
        seconds = 10.0 if threads == torch.get_num_threads() else 14.0
        return {"seconds": seconds, "started": 5.0, "ended": 5.0 + seconds, "peak_memory": 100}

    monkeypatch.setattr(speed, "run_side", side)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    family = find_family("frozen, seeds at once")
    machine = Machine("cpu", 1e11, "float32", 1e10)
    record = compare(
        family, tmp_path, device=CPU, precision="float32", graphs=False, machine=machine, trials=1, command="pytest"
    )
    assert calls == [
        ("ours", 2, 2),
        ("ours", 2, 2),
        ("ours", 4, 1),
    ]  # two with half of the threads each, then one with all
    assert record.ours_seconds == [14.0] and record.reference_seconds == [20.0]
    assert (record.peak_memory_ours, record.peak_memory_reference) == (200, 100)
    assert record.images == 2 * 10 * 72 and "2 runs at once" in record.work


def in_this_process(side, family, folder, device, precision, graphs, threads=None):
    """`run_side` without a new process, which takes ten seconds to load torch."""
    import io
    import json
    from contextlib import redirect_stdout

    with redirect_stdout(io.StringIO()) as out:
        speed.main(side, family.name, folder, device, precision, graphs, wait=lambda: None)
    return json.loads(out.getvalue())


def test_a_side_is_timed_in_a_process_of_its_own(tmp_path):
    folder = write_pictures(embedded_scenes(), Setting(train=2, val=2, epochs=1), tmp_path)
    result = speed.run_side("ours", find_family("FCN8s, validation alone"), folder, "cpu", "float32", False)
    assert result["ended"] > result["started"] and result["seconds"] > 0 and result["peak_memory"] > 2**20


def test_a_side_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROOT", tmp_path)  # where there is no benchmarks/speed.py
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks\.speed ours FCN8s .*(No module named|has neither a list)"):
        speed.run_side("ours", find_family("FCN8s"), tmp_path, "cpu", "float32", False)


def test_the_comparison_is_left_out_unless_asked_for():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/test_speed.py",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    outputs = [
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True) for more in ([], ["-m", "speed"])
    ]
    assert [done.stdout.count("::test_ours_is_faster") for done in outputs] == [0, len(FAMILIES)]
