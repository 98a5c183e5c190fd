"""Cost as the work grows: `make growth`, or `pytest benchmarks/performance -m growth` (24 GB of disk, below /tmp).

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
# How many bytes of pictures may stay in memory.
CURVES = {"memory-mapped": 1 << 60, "streamed": 0}
SIZES = (64, 96, 128, 160, 192, 224)


@pytest.fixture(scope="module")
def growth(pytestconfig):
    """The measures so far, written out with their table and picture at the end of the module."""
    prepare_process()  # before torch is loaded
    from benchmarks.performance.growth import Growth

    growth = Growth(pytestconfig.getoption("cvhw4_results") or pytestconfig.rootpath / "results")
    yield growth
    print(growth.save())


@pytest.fixture
def made(growth, tmp_path):
    """`made(count, frame)`: folder and bytes of a set of pictures, deleted after the test."""
    from benchmarks.performance.growth import write_set

    yield lambda *size: (tmp_path / "set", write_set(tmp_path / "set", *size))
    shutil.rmtree(tmp_path / "set", ignore_errors=True)


@pytest.mark.parametrize("count", COUNTS)
def test_memory_mapped_sets_stay_within_their_size_and_1_gib(count, growth, made):
    from benchmarks.performance.growth import run

    folder, size = made(count)
    for curve, limit in CURVES.items():
        measured = run(folder, limit)
        growth.add("images", curve, count, bytes=size, **measured)
        assert (measured["images"], measured["streamed"]) == (count, curve == "streamed")
        assert measured["peak_memory"] < (2 * GIB if measured["streamed"] else size + GIB)
    per_image = growth.per_unit("images", "memory-mapped")
    assert per_image[-1] < 2 * min(per_image)  # no worse than linear


def test_a_set_as_large_as_celeba_is_streamed_in_2_gib(growth, made):
    from benchmarks.performance.growth import run

    folder, size = made(*CELEBA)
    measured = run(folder, CURVES["streamed"])
    growth.add("images", "as large as CelebA, streamed", CELEBA[0], bytes=size, **measured)
    assert measured["streamed"] and measured["images"] == CELEBA[0]
    assert measured["peak_memory"] < 2 * GIB


@pytest.mark.parametrize("row", ["q1_1", "q1_2", "q1_3"])
def test_cost_grows_with_the_area_of_the_images(row, growth):
    from benchmarks.performance.growth import train, where

    train(row, SIZES[0], 32)  # a warm-up
    for size in SIZES:
        growth.add("image size", row, size, images=64, seconds=min(train(row, size, 64) for _ in range(3)), **where())
    seconds = growth.seconds("image size", row)
    assert seconds[-1] < 1.5 * seconds[0] * (SIZES[-1] / SIZES[0]) ** 2


@pytest.mark.parametrize("row", ["q1_2", "q1_5"])
def test_cost_grows_with_the_number_of_seeds(row, growth):
    from benchmarks.performance.growth import train, where

    train(row, 96, 32)
    for seeds in (1, 2, 4, 8):
        growth.add("seeds", row, seeds, images=64 * seeds, seconds=train(row, 96, 64, seeds), **where())
    per_seed = growth.per_unit("seeds", row)
    assert per_seed[-1] < 1.5 * per_seed[0]
