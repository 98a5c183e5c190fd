"""Data sets larger than memory may be: reading them and picking from them holds a few pictures at a time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE, COUNT = 720, 300
DECODED = COUNT * SIDE * SIDE * 3  # 467 MB

_CHILD = """
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from cvhw4.data.gather import gather
from cvhw4.data.pictures import read_pictures


def memory(kind):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(kind))


warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".* picture.s. in two classes")  # the same picture again and again
before = memory("VmRSS")
for reading in ("decoding", "from the cache"):
    data = read_pictures(Path(sys.argv[1]))
    print(reading, memory("VmHWM") - before)
originals = [np.asarray(Image.open(Path(sys.argv[1]).with_name(f"{number}.jpg"))) for number in range(5)]
for split in (data.train, data.val):
    order = np.random.default_rng(0).permutation(len(split))
    for start in range(0, len(order), 16):
        index = order[start : start + 16]
        pictures = gather(split.images, index)
        for row, picture in zip(index, pictures.numpy(), strict=True):
            expected = originals[int(Path(split.names[row]).stem.split()[0])]
            assert (picture[: len(expected)] == expected).all() and not picture[len(expected) :].any()
print("gathering", memory("VmHWM") - before)
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_far_below_the_size_of_the_pictures(tmp_path):
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))[..., None] // np.array([3, 5, 7]) % 256
    for number in range(5):
        side = SIDE - 16 * number
        Image.fromarray((ramp[:side] + 40 * number).astype(np.uint8)).save(tmp_path / f"{number}.jpg")
    for number in range(COUNT):
        split, original = ("train", 0) if number % 2 else ("val", 1 + number // 2 % 4)  # one size, and four
        place = tmp_path / "faces" / split / ("ab"[number // 2 % 2])
        place.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / f"{original}.jpg", place / f"{original} {number}.jpg")
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "faces")]
    environment = os.environ | {"CVHW4_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout)
    grown = {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in ran.stdout.splitlines()}
    assert len(grown) == 3 and max(grown.values()) < DECODED // 3, grown
