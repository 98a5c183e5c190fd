"""How a night is judged, by hand and by simulation; and the commands `cvhw4 history` and `cvhw4 bisect`."""

import math
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cvhw4 import bisection
from cvhw4.errors import InputError
from cvhw4.records.history import Canary, History, JudgedRow, Measurement, Night, file_name
from cvhw4.report.history import found_shifts
from cvhw4.statistics.bounds import Bound, Bounds
from cvhw4.statistics.levels import series_of, shifts
from cvhw4.statistics.nights import CANARY, judge_canary, judge_night
from tests.helpers.nightly import SD, digest, night
from tests.helpers.records import git, runs
from tests.helpers.tiny import QUICK, record


def nightly(started, values, **changes):
    """A night with one figure's values by seed."""
    figures = [Measurement(row="r", data="d", figure="best accuracy", values={str(i): v for i, v in enumerate(values)})]
    return Night(started=f"2026-01-{started:02d}T01:00:00+00:00", state="fine", figures=figures, **changes)


def points(*nights):
    found = series_of([nightly(i + 1, values, commit=f"c{i}") for i, values in enumerate(nights)])
    return found["r", "d", "best accuracy"]


def test_a_change_of_level_by_hand():
    """Two nights of 0.80, 0.82 and two of 0.70, 0.72: sd within nights 0.01 * sqrt(2), 4 degrees of freedom; the cut in
    the middle has means 0.81 and 0.71 of four runs each, one of three places."""
    (shift,) = shifts(points([0.80, 0.82], [0.82, 0.80], [0.70, 0.72], [0.72, 0.70]), level=0.05)
    statistic = 0.1 / (0.01 * math.sqrt(2) * math.sqrt(1 / 4 + 1 / 4))
    assert shift.p_value == pytest.approx(3 * 2 * stats.t.sf(statistic, 4))
    assert (shift.index, shift.commits) == (2, ("c1", "c2"))
    assert (shift.before, shift.after) == (pytest.approx(0.81), pytest.approx(0.71))
    of_five = shifts(points([0.80, 0.82], [0.82, 0.80], [0.70, 0.72], [0.72, 0.70]), tests=5, level=0.05)
    assert of_five[0].p_value == pytest.approx(5 * shift.p_value)  # series that are searched together


def test_a_change_of_level_of_one_run_a_night_by_hand():
    """Two nights of 0.80 and 0.82, two of 0.60 and 0.62: the differences of neighbours are 0.02, -0.22 and 0.02, half
    their mean square is the variance, and that has 2 * 3**2 / (3 * 4 - 4) = 2.25 degrees of freedom, not 3."""
    found = {s.index: s.p_value for s in shifts(points([0.80], [0.82], [0.60], [0.62]), level=1)}
    sd = math.sqrt((0.02**2 + 0.22**2 + 0.02**2) / 3 / 2)
    assert found[2] == pytest.approx(3 * 2 * stats.t.sf(0.2 / sd, 2.25))


def test_nights_with_the_same_runs_are_one_measurement_and_the_commits_are_the_nearest():
    found = points(*[[0.80, 0.82]] * 3, *[[0.6, 0.62]] * 2)
    assert [(p.first.commit, p.last.commit) for p in found] == [("c0", "c2"), ("c3", "c4")]
    (shift,) = shifts(found, level=0.05)
    assert shift.commits == ("c2", "c3")
    assert shifts(found[:1]) == [] == shifts([])


def test_changes_of_level_are_found_and_seldom_where_there_are_none():
    """1 % of series without a change are cut; a step of 3 sd after 14 nights of 28, with 5 seeds, is found within one
    night of its place in 95 of 100."""
    rng = np.random.default_rng(7)
    level = [[0.8 + SD * rng.normal() for _ in range(5)] for _ in range(28 * 400)]
    false = sum(bool(shifts(points(*level[28 * i : 28 * (i + 1)]))) for i in range(400))
    assert false <= 400 * 0.01 + 3 * math.sqrt(400 * 0.01)
    right = 0
    for i in range(100):
        moved = [*level[28 * i : 28 * i + 14], *([v - 3 * SD for v in n] for n in level[28 * i + 14 : 28 * (i + 1)])]
        right += [abs(s.index - 14) <= 1 for s in shifts(points(*moved))] == [True]
    assert right >= 95


def night_of(day):
    return Night(started=f"2026-01-{day:02d}T00:00:00+00:00", state="fine", study="quick")


def judge_second(old, tonight, retrain):
    """Judges a night's runs held against those of a first one."""
    first = night_of(1)
    judged = judge_night(QUICK, first, old, [], lambda _: [], lambda _: []).night
    return judge_night(QUICK, night_of(2), tonight, [judged], lambda r: old if r else [], retrain).night


def confirmation(drop, later, rng, **changes):
    """Whether a row of 5 seeds is trained anew, and ends as worse, where its figures are so many sd lower, and those of
    fresh seeds `later` sd."""

    def draw(lower=0.0, **more):
        return runs([0.8 + SD * (rng.normal() - lower) for _ in range(5)], **changes, **more)

    old = draw(started=night_of(1).started)
    new = draw(drop, configuration="b" * 64, started=night_of(2).started)
    asked = []

    def retrain(rows):
        asked.append(rows)
        fresh = draw(later, configuration="b" * 64, started=night_of(2).started)
        return [replace(r, seed=5 + i, fingerprint=digest(i)) for i, r in enumerate(fresh)]

    judged = judge_second(old, new, retrain)
    return bool(asked), judged.state == "regression"


def test_a_figure_is_stored_with_the_bounds_of_its_mean():
    bound = Bound(low=0.6, high=1.0, mean=0.8, sd=0.1, n=20, runs=3)
    bounds = Bounds({"q1_2-finetune": {"best accuracy": bound}}, {}, "made up", {"embedded": "d" * 64})
    five = [record(seed=s, figures=((0.8,),)) for s in range(5)]
    night = judge_night(QUICK, night_of(2), five, [], lambda _: [], lambda _: [], bounds=bounds).night
    best, last = (next(m for m in night.figures if m.figure == f"{which} accuracy") for which in ("best", "last"))
    half = 0.2 * math.sqrt((1 / 5 + 1 / 20) / (1 / 3 + 1 / 20))
    assert (best.low, best.high) == pytest.approx((0.8 - half, 0.8 + half)) and last.low is last.high is None


def test_a_claim_is_lost_for_certain_only_if_fresh_seeds_of_both_its_rows_lose_it():
    """Tonight one of its rows was low by chance; that row alone has no claim to be judged by."""
    usual, worse, asked = [0.90, 0.91, 0.92, 0.91, 0.90], [0.80, 0.81, 0.82, 0.80, 0.81], []

    def of(day, better, first=0):
        values, started = {"q1_2": better, "q1_1": worse}, night_of(day).started
        made = [r for row in values for r in runs(values[row], row, started=started)]
        return [replace(r, seed=r.seed + first, fingerprint=digest(day, r.row, r.seed, first)) for r in made]

    def retrain(rows):
        asked.extend(rows)
        return [r for r in of(2, usual, first=5) if r.row in rows]

    judged = judge_second(of(1, usual), of(2, [0.79, 0.80, 0.82, 0.80, 0.79]), retrain)
    assert asked == ["q1_1-features", "q1_2-finetune"] and judged.state == "fine" and not judged.worse


def test_fresh_seeds_refute_chance_and_confirm_a_fall():
    rng = np.random.default_rng(3)
    for later, share in ((0, 0.01), (5, 0.99)):
        alarmed = [worse for alarm, worse in (confirmation(4, later, rng) for _ in range(40)) if alarm]
        assert len(alarmed) >= 30
        assert abs(sum(alarmed) - share * len(alarmed)) <= 3 * math.sqrt(len(alarmed) * share * (1 - share)) + 1


def test_where_the_lowest_is_best_a_rise_is_worse():
    rng = np.random.default_rng(4)
    assert confirmation(-8, -8, rng, lower_is_better=["accuracy"]) == (True, True)
    assert confirmation(8, 8, rng, lower_is_better=["accuracy"]) == (False, False)


def canary(seconds, values=(0.9, 0.91), **changes):
    given = dict(row="r", configuration="c", setup="s", seconds=list(seconds), values={"best accuracy": list(values)})
    return Canary(**(given | changes))


def canary_night(day, status="fine", values=(0.9, 0.91)):
    row, started = JudgedRow(row="r", data=CANARY, status=status), f"2026-02-{day:02d}T01:00:00+00:00"
    return Night(started=started, state="fine", rows=[row], canary=canary([100, 102], values))


THREE = [canary_night(day) for day in (1, 2, 3)]
LOW = (0.8813, 0.8913)  # than which chance is lower in 0.7 % of nights: too often for one figure of two


@pytest.mark.parametrize(
    ("nights", "tonight", "status"),
    [
        ([], canary([500, 500]), "new"),
        (THREE[:2], canary([500, 500]), "fine"),  # too few to tell
        (THREE, canary([129, 131]), "fine"),  # below the limit
        (THREE, canary([134, 136]), "fine"),  # for certain against one side, and not against two
        (THREE, canary([160, 161]), "slower"),
        (THREE, canary([160, 161], setup="another GPU"), "new"),
        ([*THREE, canary_night(4, "slower")], canary([101, 99]), "fine"),
        ([*THREE, canary_night(4, "accepted")], canary([160, 161]), "fine"),
        (THREE, canary([101, 99], values=(0.8, 0.81)), "worse"),
        (THREE, canary([101, 99], values=LOW), "worse"),
        (THREE, replace(canary([101, 99]), values={"best accuracy": LOW, "last accuracy": (0.9, 0.91)}), "fine"),
        ([canary_night(1, values=(0.7, 0.71))] * 30 + THREE * 10, canary([101, 99], values=(0.7, 0.71)), "worse"),
        (THREE, canary([101, 99], values=(0.8, 0.81), configuration="new"), "fine"),
    ],
)
def test_the_canary(nights, tonight, status):
    assert judge_canary(tonight, nights, 1.3).status == status


def test_a_canary_that_slows_down_slowly_is_told_by_the_first_nights_and_its_step_is_marked():
    """1 % a night: within the limit of the last 30 nights, and not of the first."""
    nights = [replace(canary_night(1), canary=canary([100 + day, 101 + day])) for day in range(60)]
    row = judge_canary(canary([160, 161]), nights, 1.3)
    assert row.status == "slower" and "times as long as in the first nights" in row.why
    assert judge_canary(canary([160, 161]), [*nights, canary_night(2, "accepted")], 1.3).status == "fine"
    stepped = [replace(canary_night(d), canary=canary([100 + d % 2 + 50 * (d > 9)] * 2)) for d in range(1, 21)]
    points, (cut,) = found_shifts(stepped)["r", CANARY, "training seconds"]
    assert points[cut.index].first.started.startswith("2026-02-10")


def test_damaged_nights_are_passed_over_with_a_warning(tmp_path):
    history = History(tmp_path)
    history.add(nightly(1, [0.5, 0.6]))
    for name, text in (("2026-a.json", "{"), ("2026-b.json", '{"version": 9}'), ("2026-c.json", '{"version": 1}')):
        (tmp_path / "nights" / name).write_text(text)
    with pytest.warns(UserWarning, match="is not counted") as warned:
        assert len(History(tmp_path).nights) == 1
    assert len(warned) == 3
    assert file_name("2026-01-02T03:04:05+00:00") == night.file_name("2026-01-02T03:04:05+00:00")[:-5]


def test_history_says_what_moved_and_writes_the_page(tmp_path, cvhw4_command):
    assert cvhw4_command("history", tmp_path)[0] == 4
    history = History(tmp_path)
    for day in range(1, 11):
        level = 0.8 if day < 6 else 0.7
        history.add(nightly(day, [level + 0.001 * (day + i) for i in range(3)], commit=f"c{day}", study="full"))
    code, out, err = cvhw4_command("history", tmp_path, "--row", "r", "--page")
    assert (code, err) == (0, "") and "c5..c6" in " ".join(out.split()) and "10 nights, the last of 2026-01-10" in out
    page = (tmp_path / "index.html").read_text()
    assert "c5..c6" in page and "<svg" in page and "http:" not in page.replace("http://www.w3.org", "")
    badge = (tmp_path / "badge.svg").read_text()
    assert "#2da44e" in badge and "fine 2026-01-10" in badge
    assert cvhw4_command("history", tmp_path, "--row", "q")[0] == 4


STUB = """
def pytest_addoption(parser):
    for name in ("--seeds", "--results"):
        parser.addoption(name)
    parser.addoption("--reuse", action="store_true")

def pytest_generate_tests(metafunc):
    metafunc.parametrize("seed", range(int(metafunc.config.getoption("seeds"))))
"""
TEST = """
import hashlib, json
from pathlib import Path

def test_it(seed, request, record_property):
    level = float(Path("level").read_text())
    record = json.loads(Path("RECORD").read_text())
    fingerprint = hashlib.sha256(f"{level} {seed}".encode()).hexdigest()
    record |= {"seed": seed, "fingerprint": fingerprint}
    record["epochs"][0]["figures"]["accuracy"] = level + seed / 1000
    file = Path(request.config.getoption("results"), "quick/runs/q1_2-finetune", f"seed{seed}-{fingerprint[:12]}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    for name in ("row", "seed", "study", "fingerprint"):
        record_property(name, record[name])
"""


def test_paths_that_no_commit_has_are_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("local/portraits", "benchmarks", "tree/benchmarks", "../elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "test_new.py").touch()  # which another commit has
    git("init"), git("add", "test_new.py")
    here = {"local/portraits": f"{tmp_path}/local/portraits", "--camvid=local": f"--camvid={tmp_path}/local"}
    here["../elsewhere"] = f"{tmp_path}/../elsewhere"  # outside of the repository
    for name in ("test_new.py", "benchmarks", "-k", "q1", *here):
        assert bisection._from_here(name, tmp_path / "tree") == here.get(name, name)


def committed(folder, levels):
    """The commits of a repository whose file `level` changes from each to the next."""
    git("init")
    for level in levels.split():
        (folder / "level").write_text(level)
        git("add", "."), git("commit", "-m", level)
    log = subprocess.run(["git", "log", "--format=%H", "--reverse"], capture_output=True, text=True)
    return log.stdout.split()


@pytest.mark.integration
def test_bisect_finds_the_commit_that_made_a_row_worse(tmp_path, monkeypatch, cvhw4_command):
    """Of eight commits, one of which cannot be trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(record("q1_2", figures=((0.5,),)).to_json())
    (tmp_path / "conftest.py").write_text(STUB)
    (tmp_path / "test_q1_2-finetune.py").write_text(TEST.replace("RECORD", str(tmp_path / "base.json")))
    commits = committed(tmp_path, "0.9 0.91 0.905 broken 0.8 0.81 0.79")
    code, out, err = cvhw4_command("bisect", "q1_2-finetune", commits[0], "main", "--seeds", "2")
    assert code == 0, err
    assert commits[3] in out and commits[4] in out and commits[2] not in out  # between these two nobody can tell
    assert "cannot be trained" in err and f"{commits[6][:12]} 0.7905" in err
    assert len(list((tmp_path / "local" / "bisect").glob("*/quick/runs"))) == 4  # each its own
    assert cvhw4_command("bisect", "q1_2-finetune", "nowhere", "main")[0] == 4
    code, _, err = cvhw4_command("bisect", "q1_2-finetune", commits[0], "main", "--", "--no-such-option")
    assert code == 4 and "has no run of q1_2-finetune (pytest: " in err and "--no-such-option" in err
    assert subprocess.run(["git", "worktree", "list"], capture_output=True, text=True).stdout.count("\n") == 1


@pytest.mark.parametrize(("levels", "sign"), [("0.9 0.91 0.8 0.79", 1), ("0.1 0.11 0.2 0.21", -1)])
def test_bisect_knows_where_the_lowest_is_best(tmp_path, monkeypatch, levels, sign):
    monkeypatch.chdir(tmp_path)
    commits = committed(tmp_path, levels)
    monkeypatch.setattr(bisection, "_measure", lambda row, tree, *_: (float((tree / "level").read_text()), sign))
    assert bisection.bisect("r", "main~3", "main", [], tmp_path, print) == commits[2]
    (tmp_path / "bin").mkdir()
    path, real = os.environ["PATH"], shutil.which("git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{path}")
    for word, known in (("is the first 'bad' commit", True), ("is what you look for", False)):  # of git 2.55; of none
        sed = f'sed "s/is the first bad commit/{word}/" {tmp_path}/said'
        (tmp_path / "bin" / "git").write_text(f'#!/bin/sh\n{real} "$@" > {tmp_path}/said; code=$?; {sed}; exit $code')
        (tmp_path / "bin" / "git").chmod(0o755)
        if known:
            assert bisection.bisect("r", "main~3", "main", [], tmp_path, print) == commits[2]
        else:
            with pytest.raises(InputError, match=f"git bisect: repeats what is not understood .*{word}"):
                bisection.bisect("r", "main~3", "main", [], tmp_path, print)
    monkeypatch.setenv("PATH", path)
    with pytest.raises(InputError, match="is not worse than"):
        bisection.bisect("r", "main", "main~3", [], tmp_path, print)
