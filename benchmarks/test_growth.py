"""Cost as the work grows: `make growth`, or `pytest benchmarks/test_growth.py -m growth` (24 GB of disk, below /tmp).

Measures are kept in `<results>/growth.json`, drawn and tabled as `<results>/growth.png` and `growth.md`. The linear
growth and the limits of memory are asserted.
"""

import shutil

import pytest

from cvhw4.training.process import prepare_process

pytestmark = pytest.mark.growth

GIB = 1 << 30
COUNTS = (1_000, 10_000, 50_000, 200_000)
CELEBA = 202_599, (218, 178)  # pictures, and height and width of each
# How many bytes of pictures may stay in memory, and what the process may take in all beside them.
CURVES = {"memory-mapped": 1 << 60, "streamed": 0}
SIZES = (64, 96, 128, 160, 192, 224)


@pytest.fixture(scope="module")
def growth(pytestconfig):
    """The measures so far, written out with their table and picture at the end of the module."""
    from cvhw4.records.growth import Growth
    from cvhw4.report.growth import write_growth_page

    prepare_process()
    results = pytestconfig.getoption("results") or pytestconfig.rootpath / "results"
    growth = Growth(results)
    yield growth
    growth.save()
    print(write_growth_page(growth))


@pytest.mark.parametrize("count", COUNTS)
def test_memory_mapped_sets_stay_within_their_size_and_1_gib(count, growth, tmp_path):
    from benchmarks.growth import run, write_set

    size = write_set(tmp_path / "set", count)
    try:
        for curve, limit in CURVES.items():
            measured = run(tmp_path / "set", limit)
            growth.add("images", curve, count, bytes=size, **measured)
            assert (measured["images"], measured["streamed"]) == (count, curve == "streamed")
            assert measured["peak_memory"] < (2 * GIB if measured["streamed"] else size + GIB)
    finally:
        shutil.rmtree(tmp_path / "set")
    per_image = growth.per_unit("images", "memory-mapped")
    assert per_image[-1] < 2 * min(per_image)  # no worse than linear


def test_a_set_as_large_as_celeba_is_streamed_in_2_gib(growth, tmp_path):
    from benchmarks.growth import run, write_set

    count, frame = CELEBA
    size = write_set(tmp_path / "set", count, frame)
    try:
        measured = run(tmp_path / "set", CURVES["streamed"])
        growth.add("images", "as large as CelebA, streamed", count, bytes=size, **measured)
        assert measured["streamed"] and measured["images"] == count
        assert measured["peak_memory"] < 2 * GIB
    finally:
        shutil.rmtree(tmp_path / "set")


@pytest.mark.parametrize("row", ["q1_1", "q1_2", "q1_3"])
def test_cost_grows_with_the_area_of_the_images(row, growth):
    from benchmarks.growth import train, where

    train(row, SIZES[0], 32)  # a warm-up
    for size in SIZES:
        growth.add("image size", row, size, images=64, seconds=min(train(row, size, 64) for _ in range(3)), **where())
    seconds = growth.seconds("image size", row)
    assert seconds[-1] < 1.5 * seconds[0] * (SIZES[-1] / SIZES[0]) ** 2


@pytest.mark.parametrize("row", ["q1_2", "q1_5"])
def test_cost_grows_with_the_number_of_seeds(row, growth):
    from benchmarks.growth import train, where

    train(row, 96, 32)
    for seeds in (1, 2, 4, 8):
        growth.add("seeds", row, seeds, images=64 * seeds, seconds=train(row, 96, 64, seeds), **where())
    per_seed = growth.per_unit("seeds", row)
    assert per_seed[-1] < 1.5 * per_seed[0]
