"""Nights: the script with a trainer that only writes records, in scenarios and a simulated year."""

import math
import os
import shutil
import subprocess
from datetime import timedelta
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
from tests.helpers.reading import snapshot

pytest_plugins = ["tests.helpers.nightly"]
YEARS, SERIES = 12, 20  # simulated for error rates


ROW, OTHER = "q1_2-finetune", "q1_3-scratch"
CODES = {"first": 0, "fine": 0, "regression": 1, "failed": 1, "broken": 4}


def ends(box, state, rows=None, **environment):
    """The entry of a night that ends so, with that exit code; `rows`: what became of the two rows."""
    code, entry = box(**environment)
    assert (entry["state"], code) == (state, CODES[state]), box.text
    assert rows is None or box.rows == dict(zip((ROW, OTHER), rows, strict=True))
    return entry


def change(box, code, **trainer):
    """Commits other code; with it the accuracies of rows, by `finetune` and `scratch`, and the trainer's attributes."""
    names = {"finetune": ROW, "scratch": OTHER}
    box.trainer.code = code
    for name, value in trainer.items():
        if name in names:
            box.trainer.levels[names[name]] = value
        else:
            setattr(box.trainer, name, value)


def mean(entry):
    """The best accuracy of `ROW` in a night's entry."""
    (values,) = (m["values"].values() for m in entry["figures"] if (m["row"], m["figure"]) == (ROW, "best accuracy"))
    return sum(values) / len(values)


def raises(error):
    """What a trainer does that breaks off before it has trained."""

    def broken_off(*_):
        raise error

    return broken_off


def done(*_):
    """What a trainer does before it trains: nothing."""


def test_first_night_normal_night_regression_and_recovery(box):
    """The first three scenarios: what is worse stays so, held against the last good runs, and only row by row."""
    ends(box, "first", ("new", "new"))
    entry = ends(box, "fine", ("fine", "fine"))  # the same code: nothing is trained
    good = {r["row"]: r["runs"] for r in entry["good"]}
    change(box, "c1", finetune=0.8)
    for _ in range(2):  # still worse, though no worse than yesterday
        now = ends(box, "regression", ("worse", "fine"))
        assert f"best accuracy {mean(entry):.4f} to {mean(now):.4f}" in box.text and "Worse than before" in box.text
        assert [r["row"] for r in now["good"] if r["runs"] == good[r["row"]]] == [ROW]
    assert box.trainer.calls[-1] == ("10", [ROW])  # confirmed with as many fresh seeds
    change(box, "c2", finetune=0.9)
    entry = ends(box, "fine")
    assert [n.state for n in box.history().nights] == ["first", "fine", "regression", "regression", "fine"]
    named = {(r["row"], n) for k in ("good", "pinned", "rows") for r in entry[k] for n in r["runs"]}
    kept = {(p.parent.name, p.stem) for p in (box.folder / "store/history/records").glob("full/runs/*/*.json")}
    assert kept == named


def test_what_is_accepted_is_accepted_row_by_row_with_a_reason_that_stays(box):
    box()
    change(box, "c1", finetune=0.8, scratch=0.6)
    ends(box, "regression", ("accepted", "worse"), ACCEPT=f"{ROW}: fewer epochs, agreed on")
    assert box.trainer.calls[-1][1] == [OTHER]  # what is accepted needs no confirmation
    ends(box, "regression", ("fine", "worse"))
    ends(box, "fine", ("fine", "accepted"), ACCEPT="all: the recipe's new augmentation")
    ends(box, "fine")
    reasons = [{ROW: "fewer epochs, agreed on"}, {"all": "the recipe's new augmentation"}]
    assert [dict(n.accepted) for n in box.history().nights if n.accepted] == reasons
    assert "fewer epochs, agreed on" in history_page(box.history().nights)[0]


def test_a_failed_run_or_a_missed_bound_fails_its_row_and_changes_no_baseline_but_the_others(box):
    change(box, "c0", failing={(OTHER, 2): "loss nan in epoch 1"})
    entry = ends(box, "failed", ("new", "failed"))
    assert "loss nan" in box.text and [r["row"] for r in entry["good"]] == [ROW]
    change(box, "c0", failing={})
    ends(box, "fine", ("fine", "new"))
    change(box, "c1", missed={ROW: "best accuracy 0.85 is below its bound"})
    entry = ends(box, "failed", ("failed", "fine"))
    since = {r["row"]: r["since"] for r in entry["good"]}
    assert "below its bound" in box.text and since[ROW] < since[OTHER] == entry["started"]


def test_a_row_that_is_not_run_is_missing_until_that_is_accepted(box):
    box()
    level = box.trainer.levels.pop(OTHER)
    for _ in range(2):
        ends(box, "regression", ("fine", "missing"))
    ends(box, "fine", ACCEPT=f"{OTHER}: no longer of interest")
    assert OTHER in box.rows and box()[0] == 0 and OTHER not in box.rows
    box.trainer.levels[OTHER] = level
    ends(box, "fine", ("fine", "new"))


@pytest.mark.parametrize("lost", ["gone", '{"version": 999}'])
def test_a_row_whose_last_good_runs_are_gone_or_unreadable_fails_until_it_is_accepted(box, lost):
    """Nothing would be compared, and whatever it is now would be what later nights are held against."""
    good = ends(box, "first")["good"]
    for path in sorted(Path("store/history/records/full/runs", ROW).iterdir())[:2]:
        path.unlink() if lost == "gone" else path.write_text(lost)
    change(box, "c1", finetune=0.6)
    for _ in range(2):
        assert [r for r in ends(box, "failed", ("failed", "fine"))["good"] if r["row"] == ROW] == [good[0]]
        assert "2 of the 5 runs that it is held against are gone or unreadable" in box.text
    ends(box, "fine", ("accepted", "fine"), ACCEPT=f"{ROW}: the disk was lost")
    ends(box, "fine", ("fine", "fine"))


def test_pinned_runs_that_are_gone_fail_their_row_too(box):
    ends(box, "first")
    change(box, "c1")
    pinned = next(r for r in ends(box, "fine")["pinned"] if r["row"] == ROW)
    Path("store/history/records/full/runs", ROW, f"{pinned['runs'][0]}.json").unlink()
    ends(box, "failed", ("failed", "fine"))
    assert "1 of the 5 runs that it is held against are gone" in box.text


def test_records_that_tonight_or_the_branch_has_take_the_place_of_damaged_ones(box):
    ends(box, "first")
    shutil.copytree("store/history", "branch")
    paths = sorted(Path("store/history/records/full/runs", ROW).iterdir())
    whole = [path.read_bytes() for path in paths]
    for environment in ({}, {"HISTORY": "branch"}):
        for path in paths:
            path.write_text("{}")
        change(box, "c1" if environment else "c0")
        ends(box, "fine", ("fine", "fine"), **environment)
        assert [path.read_bytes() for path in paths] == whole


def test_a_night_that_begins_before_the_newest_one_is_broken(box):
    """One clock that was wrong for a night would silence all the following ones."""
    box()
    box.trainer.clock -= timedelta(days=3)
    assert "has a night of 2026-01-02T01:17:00+00:00, which has not begun before" in ends(box, "broken")["why"]
    box.trainer.clock += timedelta(days=3)
    ends(box, "fine")


def test_missing_data_a_full_disk_and_nonsense_are_told_and_the_next_night_goes_on(box):
    box()
    trained = len(box.trainer.calls)
    for environment, why in (
        ({"PORTRAITS": ""}, "No PORTRAITS: set the variable PORTRAITS"),
        ({"CAMVID": "gone"}, "CAMVID names gone, which is no folder"),
        ({"WEIGHTS": "gone"}, "WEIGHTS names gone"),
        ({"ACCEPT": ROW}, "write it as ROW: REASON"),
        ({"ACCEPT": "q9: because"}, "ACCEPT names q9, which is not a row"),
        ({"MIN_FREE_GB": "900000"}, "The disk is full:"),
        ({"SEEDS": "many"}, "SEEDS is 'many'"),
        ({"ASIDE": "../x"}, "ASIDE is '../x'"),
    ):
        assert why in ends(box, "broken", **environment)["why"]
        assert why in box.text and list(Path("night/update/nights").iterdir())
        assert "broken 2026" in Path("night/update/badge.svg").read_text()
    assert len(box.trainer.calls) == trained
    assert box.pages == [*range(1, 7)]  # of broken nights too, where STORE is known
    assert "**nothing could be judged** (The disk is full" in history_page(box.history().nights)[0]
    ends(box, "fine")
    assert [n.state for n in box.history().nights].count("broken") >= 4


def test_a_night_that_is_cut_short_or_fills_the_disk_judges_nothing_and_the_next_goes_on(box, monkeypatch):
    box()
    change(box, "c1", before=raises(night.Broken("make gpu-full was not done within 238 minutes.")))
    ends(box, "broken")
    assert "not done within" in box.text
    box.trainer.before = done
    with monkeypatch.context() as patch:
        patch.setattr(night, "nothing_judged", raises(SyntaxError("a pull request's")))
        assert "CAMVID names gone" in ends(box, "broken", CAMVID="gone")["why"] and "CAMVID names gone" in box.text
    with monkeypatch.context() as patch:
        patch.setattr(History, "add", raises(OSError(28, "No space left on device")))
        assert "No space left" in ends(box, "broken")["why"]
    ends(box, "fine")


def test_a_chance_alarm_is_not_confirmed_and_does_not_come_back(box):
    """One row is unlucky in its first five seeds, and not in fresh ones; the next night takes the same runs again."""
    box()
    change(box, "c1", before=lambda _, rows: box.trainer.levels.update({ROW: 0.9 if len(rows) == 1 else 0.85}))
    for _ in range(2):
        entry = ends(box, "fine", ("unconfirmed", "fine"))
        assert entry["good"][0]["since"] < entry["started"]  # the unlucky runs are nobody's measure
    assert "fresh" not in entry["why"]


def test_what_there_was_no_time_to_confirm_is_told_and_confirmed_the_next_night(box):
    box()

    def cut(target, rows):
        if box.trainer.calls[-1][0] == "10":
            box.trainer.levels[ROW] = 0.9  # with fresh seeds it is as before
            raise night.Broken("make gpu-full was not done within 3 minutes. The next night goes on.")

    change(box, "c1", finetune=0.8, before=cut)
    assert ends(box, "regression", ("worse", "fine"))["worse"] == []
    assert "Not confirmed with fresh seeds: make gpu-full was not done within 3 minutes" in box.text
    box.trainer.before = done
    ends(box, "fine", ("unconfirmed", "fine"))


def test_an_upgrade_is_named_and_is_no_regression(box):
    """Another driver trains all runs anew. Later one row is taken from the store: the night is its own commit's."""
    box()
    change(box, "c1", driver="560.35")
    ends(box, "fine", ("fine", "fine"))
    (line,) = (line for line in history_page(box.history().nights)[0].splitlines() if "560.35" in line)
    assert [cell.strip() for cell in line.split("|")[1:5]] == ["2026-01-03", "driver", "550.1", "560.35"]
    change(box, "c2", draws={ROW: "c1"})
    entry = ends(box, "fine")
    assert entry["commit"] == entry["environment"]["commit"] == "c2"


def test_a_slow_decline_shows_against_the_pinned_night(box):
    """1 sd a night: no night is worse than the one before, and the tenth at the latest is worse than the first."""
    box.trainer.levels = {ROW: 0.9}
    first = ends(box, "first")
    change(box, "c1", finetune=0.9 - SD)
    assert ends(box, "fine")["pinned"] == first["pinned"]
    states = ["fine"]
    for n in range(2, 11):
        change(box, f"c{n}", finetune=0.9 - n * SD)
        states.append(box()[1]["state"])
    assert states == ["fine"] * (told := states.index("regression")) + ["regression"] * (10 - told)
    (cut, *_) = shifts(series_of(box.history().nights)[ROW, "embedded", "best accuracy"])
    assert cut.after < cut.before
    box.trainer.code = "c11"
    entry = ends(box, "fine", ACCEPT="all: known", PIN="true")
    assert {r["since"] for r in entry["pinned"]} == {entry["started"]}
    ends(box, "fine")


def test_what_was_worse_stays_so_until_that_is_refuted_as_surely(box):
    """A lucky night whose fresh seeds are unlucky closes nothing, nor does a half repair; the old code does at once."""
    box.trainer.levels = {ROW: 0.9}
    for n in range(4):
        change(box, f"a{n}")
        box()
    change(box, "b0", finetune=0.85)
    (found, _) = box()[1]["worse"]
    assert (found["name"], len(found["values"])) == ("best accuracy", 10)

    def lucky(*_):
        box.trainer.levels[ROW] = 0.85 if box.trainer.calls[-1][0] == "10" else 0.9

    change(box, "b1", before=lucky)
    assert ends(box, "regression")["worse"][0] == found and "and not repaired for certain" in box.text
    change(box, "b2", before=done, finetune=0.875)
    assert box()[1]["worse"][0] == found
    assert f"| {ROW} | embedded | best accuracy | 2026-01-06 |" in history_page(box.history().nights)[0]
    shutil.copytree("store", "kept")
    for code, level, accepted in (("a3", 0.875, ""), ("c", 0.9, ""), ("d", 0.875, "all: good enough")):
        change(box, code, finetune=level)  # a commit reverted, whose very runs are there; a repair; half of one
        ends(box, "fine", ACCEPT=accepted)
        assert box.history().judged.worse == []
        shutil.rmtree("store"), shutil.copytree("kept", "store")


def test_a_pull_request_is_held_against_the_newest_night_and_changes_nothing(box):
    """It is not blamed for what main has made worse, and its runs are kept for its next commit."""
    box()
    change(box, "c1", finetune=0.8)
    box()
    before = snapshot(box.folder / "store/history")
    change(box, "pr")
    ends(box, "fine", ("fine", "fine"), ASIDE="pull-request-7")
    change(box, "pr", scratch=0.5, draws={OTHER: "pr2"})
    ends(box, "regression", ("fine", "worse"), ASIDE="pull-request-7")
    assert not Path("night/update").exists() and snapshot(box.folder / "store/history") == before
    trained = box.trainer.trained
    change(box, "pr", draws={})
    box(ASIDE="pull-request-7")
    change(box, "c1")  # another one, whose code trains as main's does
    box(ASIDE="pull-request-8")
    assert box.trainer.trained == trained
    for path in Path("store/aside/pull-request-7").rglob("*"):
        os.utime(path, (1, 1))
    Path("store/aside/pull-request-7/report.md").touch()
    box(ASIDE="pull-request-8", KEEP_DAYS="30")
    assert [path.name for path in Path("store/aside").iterdir()] == ["pull-request-8"]


def test_a_lost_store_and_a_lost_branch_are_made_good_from_each_other(box):
    box()
    change(box, "c1", finetune=0.8)
    box()
    shutil.copytree("store/history", "branch")
    shutil.rmtree("store")  # the disk of the machine
    ends(box, "regression", HISTORY="branch", HELD="true")
    assert len(box.history().nights) == 3
    ends(box, "regression", HISTORY="gone")  # the branch
    shutil.rmtree("store")  # both
    entry = ends(box, "broken", HELD="true", CANARY=ROW)  # which is fine by itself
    assert "The history is lost" in entry["why"] and not entry["good"]
    ends(box, "first", HELD="true", ACCEPT="all: measured by hand on another machine")
    ends(box, "fine", HELD="true")


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
    change(box, "c0", checks={"gpu-check": 2}, ratios={"gpu-speed": 4.0})
    assert ends(box, "failed", CANARY=ROW)["checks"] == {"gpu-check": "failed", "gpu-speed": "passed"}
    box.trainer.checks = {}
    for _ in range(3):
        entry = ends(box, "fine", CANARY=ROW)
        assert len(entry["canary"]["seconds"]) == 2
    assert box.trainer.calls.count(("2", [ROW])) == 4 and not list(Path("store").glob("anew-*"))  # anew, not kept
    (ratio,) = (m for m in entry["figures"] if m["data"] == "gpu-speed")
    assert (ratio["row"], ratio["figure"], ratio["values"]) == ("frozen-random-crops", "speed ratio", {"0": 4.0})
    page, _ = history_page(box.history().nights)
    assert "speed ratio on gpu-speed" in page and "training seconds on canary" in page

    def canary(entry):
        return next((r["status"], r["why"]) for r in entry["rows"] if r["data"] == CANARY)

    box.trainer.seconds = 90
    status, why = canary(ends(box, "regression", CANARY=ROW))
    assert status == "slower" and "1.5" in why and box.trainer.calls.count(("2", [ROW])) == 6
    ends(box, "fine", CANARY=ROW, ACCEPT="canary: another GPU")
    ends(box, "fine", CANARY=ROW)

    def fails(target, rows):
        box.trainer.failing = {(ROW, 0): "loss nan in epoch 1"} if rows == [ROW] else {}

    box.trainer.before = fails  # that night's other rows are fine
    assert canary(ends(box, "failed", CANARY=ROW)) == ("failed", "loss nan in epoch 1")


FALLS = {  # by how many sd in a night, and in how many nights half of them have to be told
    "1 sd in ten nights": (lambda n: n / 10, 15),
    "1 sd a night": (lambda n: n, 4),
    "a step of 1 sd": (lambda n: 1, 10),
    "a step of 2 sd": (lambda n: 2, 3),
    "a step of 4 sd": (lambda n: 4, 1),
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
@pytest.mark.parametrize("name", FALLS)
def test_nights_until_a_fall_is_told_and_until_its_repair_is(name):
    """20 quiet nights, 30 of the fall, and a repair: what was told is told until then."""
    rng, first, after, silent = np.random.default_rng(12), [], [], 0
    fall, most = FALLS[name]
    for _ in range(SERIES):
        told = year.states(
            lambda day: fall(day - 19) if 20 <= day < 50 else 0,
            rng,
            lambda day, state: day >= 50 and state == "fine",
            110,
        )
        worse = [state == "regression" for state in told]
        begins = next((d for d in range(20, 50) if worse[d]), 50)
        silent += sum(not w for w in worse[begins:50])
        first.append(begins - 19)
        after.append(len(told) - 50)
    print(f"{name}: told in night {sorted(first)}, fine in night {sorted(after)} of the repair, {silent} nights silent")
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
