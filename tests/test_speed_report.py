"""Speed comparisons: nothing lost on disk, ratios as worked by hand, a page that hides nothing."""

import json
import math
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvhw4.errors import InputError
from cvhw4.records.speed import VERSION, SpeedRecord, load_all
from cvhw4.report.speed import speed_page, write_speed_page
from cvhw4.training.cost import Machine


def speed(**changes) -> SpeedRecord:
    whole = dict(
        family="frozen, random crops",
        row="q1_1-features",
        profile="quick",
        network="tf_efficientnet_lite0",
        size=96,
        batch=16,
        work="training with validation",
        images=1000,
        ours_seconds=[2.0, 2.5, 4.0],
        reference_seconds=[10.0, 5.0, 12.0],
        target=3.0,
        flops=50 * 10**9,
        bytes=5 * 10**9,
        machine=Machine("cpu", 100e9, "float32", 20e9),
        peak_memory_ours=2**30,
        environment={"device": "cpu", "device_name": "A processor", "threads": 2, "torch": "2.15.0", "commit": "abc"},
        command="pytest benchmarks/speed.py",
        started="2026-11-23T10:00:00+00:00",
    )
    return SpeedRecord(**(whole | changes))


def on_cuda(**changes) -> SpeedRecord:
    environment = {"device": "cuda", "device_name": "A GPU", "threads": 8, "torch": "2.15.0", "commit": "abc"}
    return speed(**(dict(environment=environment, machine=Machine("cuda", 7e14, "bfloat16", 3e12)) | changes))


def test_figures_by_hand():
    r = speed()
    assert r.ratio == 10 / 2.5
    assert r.ratio_range == (2.0, 5.0)
    assert (r.images_per_second, r.reference_images_per_second) == (400.0, 100.0)
    assert (r.achieved_flops, r.peak_share) == (20e9, 0.2)
    assert (r.over_floor, r.limit) == (5.0, "arithmetic")  # 0.5 s of arithmetic, 0.25 s of traffic
    slow = replace(r, bytes=20 * 10**9)
    assert (slow.over_floor, slow.limit) == (2.5, "memory")
    assert math.isinf(replace(r, flops=0, bytes=0).over_floor)


times = st.floats(1e-6, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    trials=st.lists(st.tuples(times, times), min_size=1, max_size=5),
    family=texts.map(lambda text: "x" + text),
    command=texts,
    counts=st.tuples(*[st.integers(0, 10**18)] * 3),
    memory=st.tuples(*[st.none() | st.integers(0, 10**12)] * 2),
    environment=st.dictionaries(texts, texts | st.integers() | st.none() | st.booleans(), max_size=3),
)
def test_a_record_comes_back_as_it_went(trials, family, command, counts, memory, environment):
    ours, reference = (list(side) for side in zip(*trials, strict=True))
    before = speed(
        family=family,
        command=command,
        ours_seconds=ours,
        reference_seconds=reference,
        images=counts[0],
        flops=counts[1],
        bytes=counts[2],
        peak_memory_ours=memory[0],
        peak_memory_reference=memory[1],
        environment=environment | {"device": "cpu"},
    )
    assert SpeedRecord.from_json(before.to_json(), "x.json") == before
    low, high = before.ratio_range
    assert low <= high
    assert speed_page([before]).startswith("# Speed")


def changed(**fields) -> str:
    return json.dumps(asdict(speed()) | fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "fam', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no speed record"),
        ('{"name": "another tool\'s"}', "is no speed record"),
        (changed(version=VERSION + 1), f"version {VERSION + 1}"),
        (json.dumps({"version": VERSION}), "damaged"),
        (changed(ours_seconds=[]), "damaged.*no trials"),
        (changed(ours_seconds="2.0"), "damaged.*no trials"),
        (changed(ours_seconds=[1.0, 2.0]), "damaged.*not in pairs: 2 and 3"),
        (changed(ours_seconds=[1.0, 0.0, 2.0]), "damaged.*ours_seconds holds 0.0"),
        (changed(reference_seconds=[1.0, "2", 2.0]), "damaged.*reference_seconds"),
        (changed(reference_seconds=[1.0, math.nan, 2.0]), "damaged.*reference_seconds"),
        (changed(target=0), "damaged.*target"),
        (changed(images=-1), "damaged.*images"),
        (changed(flops=1.5), "damaged.*flops"),
        (changed(peak_memory_ours="much"), "damaged.*peak_memory_ours"),
        (changed(family="?!"), "damaged.*family"),
        (changed(work=3), "damaged.*work"),
        (changed(machine=None), "damaged"),
        (changed(machine={"device": "cpu"}), "damaged"),
        (changed(machine=asdict(replace(speed().machine, bandwidth=0))), "damaged.*bandwidth"),
        (changed(machine=asdict(speed().machine) | {"precision": 3}), "damaged.*precision"),
        (changed(environment={}), "damaged.*device"),
        (changed(environment="cpu"), "damaged.*device"),
    ],
)
def test_foreign_and_damaged_files_are_named_not_counted_and_left_alone(text, message, tmp_path):
    speed().save(tmp_path)
    foreign = tmp_path / "speed" / "foreign.json"
    foreign.write_text(text)
    with pytest.raises(InputError, match=rf"(?s)foreign\.json: .*{message}"):
        SpeedRecord.from_json(text, foreign)
    with pytest.warns(UserWarning, match="foreign.json"):
        assert load_all(tmp_path) == [speed()]
    assert foreign.read_text() == text


def test_a_file_that_is_no_text_is_not_counted(tmp_path):
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "x.json").write_bytes(b"\xff\xfe")
    with pytest.warns(UserWarning, match="not counted"):
        assert load_all(tmp_path) == []


def test_fields_of_a_later_minor_version_are_passed_over():
    raw = asdict(speed()) | {"new_field": 1}
    raw["machine"] |= {"new_figure": 2}
    assert SpeedRecord.from_json(json.dumps(raw), "x.json") == speed()


def test_a_newer_measurement_replaces_the_older_of_its_family_and_device(tmp_path):
    old, new = speed(), speed(ours_seconds=[1.0] * 3, started="2026-11-24T10:00:00+00:00")
    path = old.save(tmp_path)
    assert path == tmp_path / "speed" / "frozen-random-crops-cpu.json"
    assert new.save(tmp_path) == path
    others = [on_cuda(), speed(family="fine-tuned")]
    for other in others:
        other.save(tmp_path)
    assert load_all(tmp_path) == [others[1], new, others[0]]
    (tmp_path / "speed" / "a-copy.json").write_text(old.to_json())
    (tmp_path / "speed" / "z-copy.json").write_text(old.to_json())
    assert load_all(tmp_path) == [others[1], new, others[0]]


def test_two_families_never_share_a_file(tmp_path):
    speed(family="a, b").save(tmp_path)
    with pytest.raises(InputError, match="'a, b'"):
        speed(family="a b").save(tmp_path)
    assert [r.family for r in load_all(tmp_path)] == ["a, b"]


def test_a_damaged_file_gives_way_to_a_new_measurement(tmp_path):
    speed().save(tmp_path).write_text("{")
    speed().save(tmp_path)
    assert load_all(tmp_path) == [speed()]


def cells(page: str, start: str) -> list[str]:
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_shows_every_figure():
    page = speed_page([speed(workerless_seconds=[6.0, 7.0, 5.0])])
    assert cells(page, "frozen, random crops") == [
        "frozen, random crops: training with validation (q1_1-features, tf_efficientnet_lite0, 96 px, batch 16)",
        "400",
        "100",
        "4.00 (2.00 to 5.00)",
        "2.40",
        "3.00, met; missed without workers",
        "20",
        "20 %",
        "5.00",
        "arithmetic",
        "1.00 GiB, -",
        "3",
    ]
    assert "A processor (2 threads), measured peak 100 GFLOP/s (float32) and 20 GB/s; 2026-11-23" in page
    assert "`pytest benchmarks/speed.py`" in page
    assert "## CPU" in page and "## CUDA" not in page


def test_targets_without_a_measurement_are_shown():
    targets = [
        ("cpu", "fine-tuned", 1.5),
        ("cpu", "frozen, random crops", 4.5),
        ("cuda", "frozen, random crops", 10.0),
    ]
    page = speed_page([speed(), speed(family="another")], targets)
    assert cells(page, "fine-tuned")[3:6] == ["not measured", "-", "1.50"]
    assert cells(page, "frozen, random crops: ")[4:6] == ["-", "4.50, MISSED"]  # the target that holds now
    cpu, cuda = page.split("## CUDA")
    assert cells(cuda, "frozen, random crops")[3:6] == ["not measured", "-", "10.00"]
    assert cpu.index("| fine-tuned") < cpu.index("| frozen, random crops:") < cpu.index("| another:")
    by_work = speed_page([speed()], [("cpu", "frozen, random crops: training with validation", 3.0)])
    assert "not measured" not in by_work


def test_a_page_of_nothing():
    assert speed_page([]) == "# Speed\n\nNo measurements yet.\n"


def test_a_bar_in_a_text_breaks_no_table():
    page = speed_page([speed(family="a|b")])
    assert "a\\|b: training" in page


def test_the_page_is_written(tmp_path):
    on_cuda(started=datetime(2026, 11, 23, tzinfo=UTC).isoformat()).save(tmp_path)
    path = write_speed_page(tmp_path, [("cpu", "fine-tuned", 1.5)])
    assert path == tmp_path / "speed.md"
    page = path.read_text()
    assert page.index("## CPU") < page.index("not measured") < page.index("## CUDA") < page.index("A GPU, measured")
