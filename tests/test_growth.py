"""The measures of growth at small size: real processes, and a picture and a table of what they took."""

import json

import pytest
from PIL import Image

from benchmarks.performance import growth as measures
from benchmarks.performance.growth import Growth

GIB = 1 << 30


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "set"
    return folder, measures.write_set(folder, 600)


def test_an_epoch_over_mapped_files_takes_every_image(written, tmp_path):
    folder, size = written
    whole, streamed = (measures.one_epoch(folder, limit) for limit in (size, size - 1))
    assert (whole["images"], whole["streamed"]) == (600, False) and whole["seconds"] > 0
    assert (streamed["images"], streamed["streamed"]) == (600, True)
    assert measures.write_set(tmp_path / "set", 3, (218, 178)) == 3 * 218 * 178 * 3  # in a larger frame
    assert measures.train("q1_1", 32, 8, seeds=2) > 0


@pytest.mark.integration
def test_a_measure_is_taken_in_a_process_of_its_own(written):
    measured = measures.run(written[0], GIB)
    assert measured["images"] == 600 and 0 < measured["peak_memory"] < 2 * GIB
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks\.performance\.growth .*No such file"):
        measures.run(written[0] / "nowhere", GIB)


def test_the_table_and_the_picture_show_every_measure(tmp_path):
    growth, here = Growth(tmp_path), {"device": "A processor", "threads": 2}
    for count in (1000, 10000):
        growth.add("images", "streamed", count, seconds=count / 500, images=count, bytes=count, peak_memory=GIB, **here)
    for seeds in (2, 1):
        growth.add("seeds", "q1_2", seeds, seconds=3.0 * seeds, images=64 * seeds, **here)
    page = " ".join(growth.save().read_text().split())
    assert "| streamed | 10,000 | 20.00 | 500 | 0.00 GiB | 1.00 GiB |" in page and "A processor, 2 threads" in page
    assert "| q1_2 | 2 | 6.00 | 21 |" in page
    assert Image.open(tmp_path / "growth.png").size[0] > 600
    assert growth.seconds("seeds", "q1_2") == [3.0, 6.0] and growth.per_unit("seeds", "q1_2") == [3.0, 3.0]
    again = Growth(tmp_path)
    assert again.points == growth.points
    again.add("seeds", "q1_2", 1, seconds=5.0, images=64, **here)
    assert again.seconds("seeds", "q1_2") == [5.0, 6.0]
    assert len(json.loads((tmp_path / "growth.json").read_text())) == 4
