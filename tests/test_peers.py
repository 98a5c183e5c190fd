"""Ours beside what people would use instead: rounds, figures worked by hand, the page, and every peer that is there."""

import json
import re
from dataclasses import asdict, replace

import pytest

from benchmarks.performance import peers
from benchmarks.performance.families import Setting
from benchmarks.performance.measured import read_measures
from benchmarks.performance.peers import CONTESTS, PEERS, STUDY, TRAIN, WHOLE, Comparison, Trial, Work, peers_page
from benchmarks.performance.test_peers import prepare
from cvhw4.errors import InputError

TIMM, LIGHTNING = "timm's train.py", "Lightning"


def comparison(**changes):
    here = {"device": "cpu", "device_name": "A <b>processor", "threads": 2, "lightning": "2.6", "commit": "abc"}
    whole = dict(
        name="one run",
        work="tf_efficientnet_lite0, 96 px",
        ours=[Trial(10.0, 100.0, 300.0), Trial(12.0, 120.0, 400.0), Trial(8.0, 80.0, 200.0)],
        study=[30.0, 40.0, 50.0],
        peers={LIGHTNING: {"0": [Trial(25.0)], "2": [Trial(20.0, 50.0), Trial(18.0, 60.0), Trial(16.0, 80.0)]}},
        environment=here,
        command="pytest -m peers",
        started="2026-11-29T10:00:00+00:00",
    )
    return Comparison(**(whole | changes))


def cells(page, *start):
    (line,) = (x for x in page.splitlines() if re.match(r"\| " + r" +\| ".join(map(re.escape, start)), x))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_sides_are_timed_in_turn_and_the_faster_number_of_workers_is_kept(tmp_path, monkeypatch):
    calls = []
    seconds = {LIGHTNING: {"0": 5.0, "2": 4.0}, TIMM: {"1": 6.0, "2": 7.0}}
    monkeypatch.setattr(peers, "session", lambda work, whole=False: calls.append(whole) or Trial(3.0))
    monkeypatch.setattr(peers, "alone", lambda work: calls.append("alone") or Trial(1.0, 9.0, 9.0))
    monkeypatch.setattr(peers, "script", lambda p, work, n: calls.append((p, n)) or Trial(seconds[p][n]))
    monkeypatch.setenv("CVHW4_PEERS", str(tmp_path))
    (tmp_path / "pytorch-image-models").mkdir()
    PEERS[TIMM].script.write_text("")
    work = Work("tf_efficientnet_lite0", tmp_path)
    found = peers.compare("one run", work, peers=[LIGHTNING, TIMM], trials=2, pictures="", command="")
    first = [(LIGHTNING, "0"), (LIGHTNING, "2"), (TIMM, "1"), (TIMM, "2")]
    assert calls == [False, True, "alone", *first, False, True, "alone", (LIGHTNING, "2"), (TIMM, "1")]
    assert found.alone == [Trial(1.0, 9.0, 9.0)] * 2
    assert [what for what, *_ in found.pairs(TIMM)] == [WHOLE, STUDY]
    assert found.environment["pytorch-image-models/train.py"] == "sha256 e3b0c44298fc"  # of an empty file


def test_figures_by_hand_and_on_the_page():
    found = comparison()
    measured = {what: peers.ratios(what, *sides) for what, *sides in found.pairs(LIGHTNING)}
    assert measured == {WHOLE: (1.8, 1.5, 2.0), STUDY: (2.7, 1.92, 4.0), TRAIN: (100 / 60, 1.0, 2.0)}
    page = peers_page([found, replace(found, environment={"device": "cuda"})])
    cpu, cuda = page.split("## CUDA")
    line = cells(cpu, "one run", LIGHTNING, "2 (0: 25.0 s)", "training")
    assert line[4:] == ["100.0", "60.0", "1.67 (1.00 to 2.00)", "1.50, met", "-", "3"]
    known = peers_page(
        [comparison(alone=[Trial(5.0, 110.0, 250.0), Trial(5.0, 125.0, 250.0), Trial(5.0, 130.0, 250.0)])]
    )
    assert cells(known, "one run", LIGHTNING, "2 (0: 25.0 s)", "training")[8] == "125.0 (80 %)"
    assert cells(known, "one run", LIGHTNING, "2 (0: 25.0 s)", WHOLE)[8] == "-"
    slower = comparison(ours=[Trial(11.0)] * 3)
    assert cells(peers_page([slower]), "one run", LIGHTNING, "2 (0: 25.0 s)", WHOLE)[7] == "1.80, MISSED"
    just = comparison(ours=[Trial(18 / 1.796)] * 3)  # theirs: 18 s
    assert cells(peers_page([just]), "one run", LIGHTNING, "2 (0: 25.0 s)", WHOLE)[6].startswith("1.796 (")
    assert cells(cpu, "one run", TIMM, "-", WHOLE)[6:] == ["not measured", "1.90", "-", "0"]
    assert cells(cuda, "one run", LIGHTNING, "2 (0: 25.0 s)", WHOLE)[7] == "-"  # aims are a CPU's
    assert "(2 threads); 2026-11-29, lightning 2.6, code abc; `pytest -m peers`" in cpu and "<b>" not in page


def test_a_newer_measurement_replaces_the_older_and_a_damaged_file_is_named(tmp_path):
    page = peers.save(tmp_path, comparison())
    peers.save(tmp_path, newer := comparison(command="again"))
    peers.save(tmp_path, other := comparison(name="segmentation"))
    stored = read_measures(tmp_path / "peers.json", Comparison)
    assert stored == [newer, other] and page.read_text() == peers_page(stored)
    wrong = ({"peers": {LIGHTNING: {"0": []}}}, {"ours": []}, {"environment": {}}, {"study": [1.0]}, {"command": 1})
    for text in ("{", "[" * 100_000, *(json.dumps([asdict(newer) | changes]) for changes in wrong)):
        (tmp_path / "peers.json").write_text(text)
        with pytest.raises(InputError, match=r"peers\.json: is not a list of measures of peers"):
            peers.save(tmp_path, newer)


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CVHW4_PEERS", str(tmp_path))
    assert re.fullmatch(rf"no file {tmp_path}/pytorch-image.*train\.py: .*performance\.md.*", PEERS[TIMM].missing())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert PEERS[LIGHTNING].missing() == "lightning is not installed: pip install cvhw4[peers]"


def test_loops_are_read_from_what_timm_prints(tmp_path):
    for name in "abcde":
        (tmp_path / "val" / "ants").mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "ants" / f"{name}.jpg").touch()
    epoch = (
        "Train: 0 [   0/2 ( 50%)]  Loss: 0.7 (0.7)  Time: 0.934s,    4.28/s  (0.934s,    4.28/s)  LR: 1e-02\n"
        "Train: 0 [   1/2 (100%)]  Loss: 0.8 (0.8)  Time: 0.100s,   40.00/s  (0.500s,    8.00/s)  LR: 1e-02\n"
        "Test: [   0/1]  Time: 0.9 (0.9)  Loss: 0.6 (0.6)\nTest: [   1/1]  Time: 0.1 (0.250)  Loss: 0.6 (0.6)\n"
    )
    assert peers.loops(2 * epoch, Work("x", tmp_path, batch=4)) == (8.0, 10.0)
    assert peers.loops("Epoch: [0] Total time: 0:00:01", Work("x", tmp_path)) == (None, None)


@pytest.mark.integration
@pytest.mark.parametrize("name", CONTESTS)
def test_every_peer_that_is_there_trains_the_same_as_ours(name, tmp_path, monkeypatch):
    """An epoch on 12 pictures: real processes, of all that is installed or named by CVHW4_PEERS."""
    present = [peer for peer in CONTESTS[name].targets if not PEERS[peer].missing()]
    if not present:
        pytest.skip(PEERS[next(iter(CONTESTS[name].targets))].missing())
    for peer in present:
        monkeypatch.setitem(PEERS, peer, PEERS[peer]._replace(workers=PEERS[peer].workers[:1]))
    work, pictures = prepare(name, None, "cpu", tmp_path, Setting(12, 6, 1))
    assert pictures == "12 + 6 generated pictures"
    work = replace(work, size=32, batch=4, epochs=1)
    found = peers.compare(name, work, peers=present, trials=1, pictures=pictures, command="")
    assert all(trial.seconds > 1 and trial.train and trial.val for trial in found.ours)
    assert all(trial.train and trial.val for trial in found.alone) and len(found.alone) == 1
    assert [seconds > 1 for seconds in found.study] == [True] * CONTESTS[name].study
    assert all(next(iter(tried.values()))[0].train or "torchvision" in p for p, tried in found.peers.items())
