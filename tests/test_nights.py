"""Nights: the script with a trainer that only writes records, in scenarios and a simulated year."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cvhw4.records.history import History
from cvhw4.report.history import found_shifts, history_page
from cvhw4.report.history import write_history as page_of  # by another name: `box` has that write nothing
from cvhw4.statistics.levels import series_of, shifts
from cvhw4.statistics.nights import CANARY
from tests.helpers import ROOT, year
from tests.helpers.nightly import SD, night

pytest_plugins = ["tests.helpers.nightly"]
YEARS, SERIES = 12, 20  # simulated for error rates


def mean(entry, row):
    """A row's best accuracy in a night's entry."""
    (values,) = (m["values"].values() for m in entry["figures"] if (m["row"], m["figure"]) == (row, "best accuracy"))
    return sum(values) / len(values)


def test_first_night_normal_night_regression_and_recovery(box):
    """The first three scenarios: what is worse stays so, held against the last good runs, and only row by row."""
    code, entry = box()
    assert (code, entry["state"]) == (0, "first") and set(box.rows.values()) == {"new"}
    code, entry = box()  # the same code: nothing is trained
    assert (code, entry["state"]) == (0, "fine") and set(box.rows.values()) == {"fine"}
    good = {r["row"]: r["runs"] for r in entry["good"]}
    before = mean(entry, "q1_2-finetune")

    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    for _ in range(2):  # still worse, though no worse than yesterday
        code, entry = box()
        assert (code, entry["state"]) == (1, "regression")
        assert box.rows == {"q1_2-finetune": "worse", "q1_3-scratch": "fine"}
        now = mean(entry, "q1_2-finetune")
        assert f"best accuracy {before:.4f} to {now:.4f}" in box.text and "Worse than before" in box.text
        now = {r["row"]: r["runs"] for r in entry["good"]}
        assert now["q1_2-finetune"] == good["q1_2-finetune"] and now["q1_3-scratch"] != good["q1_3-scratch"]
    assert box.trainer.calls[-1] == ("10", ["q1_2-finetune"])  # confirmed with as many fresh seeds

    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c2", 0.9
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine")
    assert [n.state for n in box.history().nights] == ["first", "fine", "regression", "regression", "fine"]
    named = {(r["row"], n) for k in ("good", "pinned", "rows") for r in entry[k] for n in r["runs"]}
    kept = {(p.parent.name, p.stem) for p in (box.folder / "store/history/records").glob("full/runs/*/*.json")}
    assert kept == named


def test_what_is_accepted_is_accepted_row_by_row_with_a_reason_that_stays(box):
    box()
    box.trainer.code = "c1"
    box.trainer.levels |= {"q1_2-finetune": 0.8, "q1_3-scratch": 0.6}
    code, entry = box(ACCEPT="q1_2-finetune: fewer epochs, agreed on")
    assert (code, entry["state"]) == (1, "regression")
    assert box.rows == {"q1_2-finetune": "accepted", "q1_3-scratch": "worse"}
    assert box.trainer.calls[-1][1] == ["q1_3-scratch"]  # what is accepted needs no confirmation
    box()
    assert box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "worse"}
    code, entry = box(ACCEPT="all: the recipe's new augmentation")
    assert code == 0 and box.rows["q1_3-scratch"] == "accepted" and box()[0] == 0
    assert [dict(n.accepted) for n in box.history().nights if n.accepted] == [
        {"q1_2-finetune": "fewer epochs, agreed on"},
        {"all": "the recipe's new augmentation"},
    ]
    page, _ = history_page(box.history().nights)
    assert "fewer epochs, agreed on" in page


@pytest.mark.parametrize(
    ("accept", "why"),
    [("q1_2-finetune", "write it as ROW: REASON"), ("q9: because", "ACCEPT names q9, which is not a row")],
)
def test_an_acceptance_without_a_reason_or_of_no_row_ends_the_night_before_it_trains(box, accept, why):
    box()
    trained = len(box.trainer.calls)
    code, entry = box(ACCEPT=accept)
    assert (code, entry["state"]) == (4, "broken") and why in entry["why"] and len(box.trainer.calls) == trained
    assert box()[1]["state"] == "fine"


def test_a_first_night_with_a_failed_run_is_a_baseline_for_the_other_rows(box):
    box.trainer.failing = {("q1_3-scratch", 2): "loss nan in epoch 1"}
    code, entry = box()
    assert (code, entry["state"]) == (1, "failed") and "loss nan" in box.text
    assert box.rows == {"q1_2-finetune": "new", "q1_3-scratch": "failed"}
    assert [r["row"] for r in entry["good"]] == ["q1_2-finetune"]
    box.trainer.failing = {}
    assert box()[1]["state"] == "fine" and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "new"}


def test_a_missed_bound_fails_its_row_and_keeps_what_that_is_held_against(box):
    box()
    box.trainer.code, box.trainer.missed = "c1", {"q1_2-finetune": "best accuracy 0.85 is below its bound"}
    code, entry = box()
    assert (code, entry["state"]) == (1, "failed") and "below its bound" in box.text
    assert box.rows == {"q1_2-finetune": "failed", "q1_3-scratch": "fine"}
    since = {r["row"]: r["since"] for r in entry["good"]}
    assert since["q1_2-finetune"] < since["q1_3-scratch"] == entry["started"]


def test_a_row_that_is_not_run_is_missing_until_that_is_accepted(box):
    box()
    level = box.trainer.levels.pop("q1_3-scratch")
    for _ in range(2):
        code, entry = box()
        assert (code, entry["state"]) == (1, "regression") and box.rows["q1_3-scratch"] == "missing"
    assert box(ACCEPT="q1_3-scratch: no longer of interest")[0] == 0 and "q1_3-scratch" in box.rows
    assert box()[0] == 0 and "q1_3-scratch" not in box.rows
    box.trainer.levels["q1_3-scratch"] = level
    assert box()[0] == 0 and box.rows["q1_3-scratch"] == "new"


def test_missing_data_a_full_disk_and_nonsense_are_told_and_the_next_night_goes_on(box):
    box()
    for environment, why in (
        ({"PORTRAITS": ""}, "No PORTRAITS: set the variable PORTRAITS"),
        ({"CAMVID": "gone"}, "CAMVID names gone, which is no folder"),
        ({"WEIGHTS": "gone"}, "WEIGHTS names gone"),
        ({"MIN_FREE_GB": "900000"}, "The disk is full:"),
        ({"SEEDS": "many"}, "SEEDS is 'many'"),
        ({"ASIDE": "../x"}, "ASIDE is '../x'"),
    ):
        code, entry = box(**environment)
        assert (code, entry["state"]) == (4, "broken") and entry["why"].startswith(why)
        assert why in box.text and list(Path("night/update/nights").iterdir())
        assert "broken 2026" in Path("night/update/badge.svg").read_text()
    assert box.pages == [1, 2, 3, 4, 5]  # of broken nights too, where STORE is known
    assert "**nothing could be judged** (The disk is full" in history_page(box.history().nights)[0]
    assert box()[1]["state"] == "fine"
    assert [n.state for n in box.history().nights][0::1].count("broken") >= 4


def test_a_disk_that_fills_during_the_night_is_told(box, monkeypatch):
    box()
    monkeypatch.setattr(History, "add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, entry = box()
    assert (code, entry["state"]) == (4, "broken") and "No space left" in entry["why"]


def test_a_night_that_is_cut_short_judges_nothing_and_the_next_goes_on(box):
    box()
    box.trainer.code = "c1"

    def cut(target, rows):
        raise night.Broken("make gpu-full was not done within 238 minutes. The next night goes on.")

    box.trainer.before = cut
    code, entry = box()
    assert (code, entry["state"]) == (4, "broken") and "not done within" in box.text
    box.trainer.before = lambda *_: None
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine")


def test_a_chance_alarm_is_not_confirmed_and_does_not_come_back(box):
    """One row is unlucky in its first five seeds, and not in fresh ones; the next night takes the same runs again."""
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.85
    box.trainer.before = lambda target, rows: box.trainer.levels.update(
        {"q1_2-finetune": 0.9 if len(rows) == 1 else 0.85}
    )
    for _ in range(2):
        code, entry = box()
        assert (code, entry["state"]) == (0, "fine") and box.rows["q1_2-finetune"] == "unconfirmed"
        assert entry["good"][0]["since"] < entry["started"]  # the unlucky runs are nobody's measure
    assert "fresh" not in entry["why"]


def test_what_there_was_no_time_to_confirm_is_told_and_confirmed_the_next_night(box):
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8

    def cut(target, rows):
        if box.trainer.calls[-1][0] == "10":
            box.trainer.levels["q1_2-finetune"] = 0.9  # with fresh seeds it is as before
            raise night.Broken("make gpu-full was not done within 3 minutes. The next night goes on.")

    box.trainer.before = cut
    code, entry = box()
    assert (code, entry["state"], entry["worse"]) == (1, "regression", []) and box.rows["q1_2-finetune"] == "worse"
    assert "Not confirmed with fresh seeds: make gpu-full was not done within 3 minutes" in box.text
    box.trainer.before = lambda *_: None
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine") and box.rows["q1_2-finetune"] == "unconfirmed"


def test_an_upgrade_is_named_and_is_no_regression(box):
    """Another driver trains all runs anew. Later one row is taken from the store: the night is its own commit's."""
    box()
    box.trainer.code, box.trainer.driver = "c1", "560.35"
    code, entry = box()
    assert (code, entry["state"]) == (0, "fine") and set(box.rows.values()) == {"fine"}
    page, _ = history_page(box.history().nights)
    (line,) = (line for line in page.splitlines() if "560.35" in line)
    assert [cell.strip() for cell in line.split("|")[1:5]] == ["2026-01-03", "driver", "550.1", "560.35"]
    box.trainer.code, box.trainer.draws = "c2", {"q1_2-finetune": "c1"}
    entry = box()[1]
    assert entry["commit"] == entry["environment"]["commit"] == "c2"


def test_a_slow_decline_shows_against_the_pinned_night(box):
    """1 sd a night: no night is worse than the one before, and the tenth at the latest is worse than the first."""
    box.trainer.levels = {"q1_2-finetune": 0.9}
    states = [box()[1]["state"]]
    for n in range(1, 11):
        box.trainer.code, box.trainer.levels["q1_2-finetune"] = f"c{n}", 0.9 - n * SD
        states.append(box()[1]["state"])
    assert states == ["first"] + ["fine"] * (told := states.index("regression") - 1) + ["regression"] * (10 - told)
    (cut, *_) = shifts(series_of(box.history().nights)["q1_2-finetune", "embedded", "best accuracy"])
    assert cut.after < cut.before
    box.trainer.code = "c11"
    box(ACCEPT="all: known", PIN="true")
    assert box()[0] == 0


def test_what_was_worse_stays_so_until_that_is_refuted_as_surely(box):
    """A lucky night whose fresh seeds are unlucky closes nothing, nor does a half repair; the old code does at once."""
    box.trainer.levels = {"q1_2-finetune": 0.9}
    for n in range(4):
        box.trainer.code = f"a{n}"
        box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "b0", 0.85
    (found, _) = box()[1]["worse"]
    assert (found["name"], len(found["values"])) == ("best accuracy", 10)
    box.trainer.before = lambda target, rows: box.trainer.levels.update(
        {"q1_2-finetune": 0.85 if box.trainer.calls[-1][0] == "10" else 0.9}
    )
    box.trainer.code = "b1"
    code, entry = box()
    assert (code, entry["worse"][0]) == (1, found) and "and not repaired for certain" in box.text
    box.trainer.before = lambda *_: None
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "b2", 0.875
    assert box()[1]["worse"][0] == found
    assert "| q1_2-finetune | embedded | best accuracy | 2026-01-06 |" in history_page(box.history().nights)[0]
    store = box.folder / "store"
    shutil.copytree(store, "kept")
    box.trainer.code = "a3"  # a commit reverted: the very runs
    assert (box()[0], box.history().judged.worse) == (0, [])
    shutil.rmtree(store), shutil.copytree("kept", store)
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c", 0.9
    assert (box()[0], box.history().judged.worse) == (0, [])
    shutil.rmtree(store), shutil.copytree("kept", store)
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "d", 0.875
    assert box(ACCEPT="all: good enough")[0] == 0 and box.history().judged.worse == []


def test_pinning_moves_what_slow_declines_show_against(box):
    first = box()[1]
    box.trainer.code = "c1"
    assert box()[1]["pinned"] == first["pinned"]
    box.trainer.code = "c2"
    entry = box(PIN="true")[1]
    assert {r["since"] for r in entry["pinned"]} == {entry["started"]}


def test_a_pull_request_is_held_against_the_newest_night_and_changes_nothing(box):
    """It is not blamed for what main has made worse, and its runs are kept for its next commit."""
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    box()
    before = sorted((p, p.read_bytes()) for p in (box.folder / "store/history").rglob("*") if p.is_file())
    box.trainer.code = "pr"
    code, entry = box(ASIDE="pull-request-7")
    assert (code, entry["state"]) == (0, "fine") and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "fine"}
    box.trainer.levels["q1_3-scratch"] = 0.5
    box.trainer.draws = {"q1_3-scratch": "pr2"}
    code, entry = box(ASIDE="pull-request-7")
    assert code == 1 and box.rows == {"q1_2-finetune": "fine", "q1_3-scratch": "worse"}
    assert not Path("night/update").exists()
    assert before == sorted((p, p.read_bytes()) for p in (box.folder / "store/history").rglob("*") if p.is_file())
    box.trainer.draws, trained = {}, box.trainer.trained
    box(ASIDE="pull-request-7")
    box.trainer.code = "c1"  # another one, whose code trains as main's does
    box(ASIDE="pull-request-8")
    assert box.trainer.trained == trained


def test_a_lost_store_and_a_lost_branch_are_made_good_from_each_other(box):
    box()
    box.trainer.code, box.trainer.levels["q1_2-finetune"] = "c1", 0.8
    box()
    shutil.copytree("store/history", "branch")
    shutil.rmtree("store")  # the disk of the machine
    code, entry = box(HISTORY="branch", HELD="true")
    assert (code, entry["state"]) == (1, "regression") and len(box.history().nights) == 3
    assert box(HISTORY="gone")[1]["state"] == "regression"  # the branch
    shutil.rmtree("store")  # both
    code, entry = box(HELD="true", CANARY="q1_2-finetune")  # which is fine by itself
    assert (code, entry["state"]) == (4, "broken") and "The history is lost" in entry["why"] and not entry["good"]
    assert box(HELD="true", ACCEPT="all: measured by hand on another machine")[1]["state"] == "first"
    assert box(HELD="true")[1]["state"] == "fine"


def test_what_no_night_names_is_pruned_in_time(box):
    box()
    old = [Path("store/results/full") / p for p in ("unfinished/q1_2/seed0-a.safetensors", "runs/q1_2/seed0-b.npz")]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in Path("store/results").rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    box()
    assert not any(path.exists() for path in old)
    assert len(list(Path("store/results/full/runs/q1_2-finetune").glob("*.json"))) == 5  # the baseline's


def test_checks_and_the_canary_are_part_of_the_night(box):
    box.trainer.checks, box.trainer.ratios = {"gpu-check": 2}, {"gpu-speed": 4.0}
    code, entry = box(CANARY="q1_2-finetune")
    assert entry["checks"] == {"gpu-check": "failed", "gpu-speed": "passed"} and entry["state"] == "failed"
    box.trainer.checks = {}
    for _ in range(3):
        code, entry = box(CANARY="q1_2-finetune")
        assert code == 0 and len(entry["canary"]["seconds"]) == 2
    trained = [call for call in box.trainer.calls if call == ("2", ["q1_2-finetune"])]
    assert len(trained) == 4 and not list(Path("store").glob("anew-*"))  # anew, and nothing of it is kept
    (ratio,) = (m for m in entry["figures"] if m["data"] == "gpu-speed")
    assert (ratio["row"], ratio["figure"], ratio["values"]) == ("frozen-random-crops", "speed ratio", {"0": 4.0})
    page, _ = history_page(box.history().nights)
    assert "speed ratio on gpu-speed" in page and "training seconds on canary" in page
    box.trainer.seconds = 90
    code, entry = box(CANARY="q1_2-finetune")
    slow = next(r for r in entry["rows"] if r["data"] == CANARY)
    assert (code, entry["state"], slow["status"]) == (1, "regression", "slower") and "1.5" in slow["why"]
    assert len(trained) + 2 == len([call for call in box.trainer.calls if call == ("2", ["q1_2-finetune"])])
    code, entry = box(CANARY="q1_2-finetune", ACCEPT="canary: another GPU")
    assert code == 0 and box(CANARY="q1_2-finetune")[0] == 0

    def fails(target, rows):
        box.trainer.failing = {("q1_2-finetune", 0): "loss nan in epoch 1"} if rows == ["q1_2-finetune"] else {}

    box.trainer.before = fails
    code, entry = box(CANARY="q1_2-finetune")  # that night's other rows are fine
    canary = next(r for r in entry["rows"] if r["data"] == CANARY)
    assert (entry["state"], canary["status"], canary["why"]) == ("failed", "failed", "loss nan in epoch 1") and code


FALLS = {
    "1 sd in ten nights": lambda n: n / 10,
    "1 sd a night": lambda n: n,
    "a step of 1 sd": lambda n: 1,
    "a step of 2 sd": lambda n: 2,
    "a step of 4 sd": lambda n: 4,
}


@pytest.mark.long
def test_false_alarms_of_years_without_change():
    """Every night has new code, which draws all runs anew; 3 rows of 5 seeds."""
    rng, alarms, nights = np.random.default_rng(11), 0, 0
    for _ in range(YEARS):
        worse = [state == "regression" for state in year.states(lambda _: 0, rng)]
        alarms += sum(b and not a for a, b in zip([False, *worse], worse, strict=False))
        nights += sum(worse)
    print(f"{YEARS} years without change: {alarms} false alarms, {nights} nights")
    assert alarms <= YEARS * 0.25 + 3 * math.sqrt(YEARS * 0.25)


@pytest.mark.long
@pytest.mark.parametrize(("fall", "most"), [(f, m) for f, m in zip(FALLS, (15, 4, 10, 3, 1), strict=True)])
def test_nights_until_a_fall_is_told_and_until_its_repair_is(fall, most):
    """20 quiet nights, 30 of the fall, and a repair: what was told is told until then."""
    rng, first, after, silent = np.random.default_rng(12), [], [], 0
    for _ in range(SERIES):
        told = year.states(
            lambda day: FALLS[fall](day - 19) if 20 <= day < 50 else 0,
            rng,
            lambda day, state: day >= 50 and state == "fine",
            110,
        )
        worse = [state == "regression" for state in told]
        begins = next((d for d in range(20, 50) if worse[d]), 50)
        silent += sum(not w for w in worse[begins:50])
        first.append(begins - 19)
        after.append(len(told) - 50)
    print(f"{fall}: told in night {sorted(first)}, fine in night {sorted(after)} of the repair, {silent} nights silent")
    assert np.median(first) <= most and silent <= 1


@pytest.mark.long
def test_a_year_of_nights_ends_as_it_should(box, monkeypatch):
    """A year of nights: a slow decline, a lost store, a driver's change, three accepted steps, and some dead nights."""
    told = year.simulate(box, monkeypatch)
    nights = box.history().nights
    if picture := os.environ.get("CVHW4_PICTURE"):
        photograph(page_of(Path("site"), nights), ROOT / picture)
    assert len(nights) == year.NIGHTS and told.after_loss == "fine"
    for day, row, _ in year.STEPS:  # found in the night they came, accepted in the next
        assert (told.states[day - 1], told.states[day], told.states[day + 1]) == ("fine", "regression", "fine")
        assert told.rows[day][row] == "worse" and told.rows[day + 1][row] == "accepted"
    assert [dict(n.accepted) for n in nights if n.accepted] == [{row: why} for _, row, why in year.STEPS]
    steps = {day for day, *_ in year.STEPS}
    worse = {d for d, state in enumerate(told.states) if state == "regression"} - steps
    begins, repaired = year.DECLINE
    seen = min(d for d in worse if d >= begins)  # before anybody would have seen it in one night
    assert ((seen - begins) // year.WEEK + 1) * year.A_WEEK <= 4 * SD
    late = {d for d in range(seen, repaired) if d not in year.DEAD}  # no night of them passes as fine
    assert late <= worse and all(told.rows[d]["q1_1-features"] == "worse" for d in late)
    after = {d for d in worse if d >= repaired}
    assert len(after) <= 2 * year.WEEK and after == set(range(repaired, repaired + len(after)))
    assert not {d for d in worse if d < begins}
    assert {d for d, state in enumerate(told.states) if state == "broken"} == set(year.DEAD)
    found = found_shifts(nights)
    for day, row, _ in year.STEPS:
        cuts = found[row, "embedded", "best accuracy"]
        assert nights[day].started in [cuts[0][s.index].first.started for s in cuts[1]]
    points, cuts = found["q1_1-features", "embedded", "best accuracy"]
    assert {(p.low, p.high) for p in points} == {(0.79, 0.85)}
    fell = [s for s in cuts if nights[begins].started <= points[s.index].first.started < nights[repaired].started]
    assert len(fell) >= 2 and all(s.after < s.before for s in fell)
    page, pictures = history_page(nights)
    assert "driver" in page and "560.35" in page and len(pictures) == 3
    for _, _, why in year.STEPS:
        assert why in page


def photograph(page, picture):
    """Takes a picture of a page, by the browser that is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,2950"]
    command += [f"--screenshot={picture}", page.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
