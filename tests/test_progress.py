"""What a session shows while it trains, on terminals and elsewhere, and what it says of the time left."""

import io
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyte
import pytest
from _pytest._io import TerminalWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from cvhw4.plugin import hookspec
from cvhw4.plugin import progress as module
from cvhw4.plugin.progress import Pace, Progress
from tests.helpers.tiny import QUICK, record


def row(name, epochs=3):
    found = QUICK.row(name)
    return replace(found, recipe=replace(found.recipe, epochs=epochs))


FIRST, SECOND = row("q1_2"), row("q2_1a")
EPOCHS = record("q1_2").epochs  # of 2 s and 1 s; accuracy 0.7, 0.9, 0.8


class Session:
    """A `Progress` that hooks call as a session does, and what its terminal shows."""

    def __init__(self, *rows, seeds=1, width=80, isatty=True, verbose=0, encoding="utf-8", capture="fd", **others):
        self.out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
        self.writer, manager = TerminalWriter(self.out), pytest.PytestPluginManager()
        self.writer.fullwidth, self.writer.hasmarkup = width, others.get("markup", False)
        if others.get("reporter", True):
            manager.register(SimpleNamespace(isatty=isatty), "terminalreporter")
        workers = {"tx": ["popen"] * others.get("workers", 0)}
        self.config = SimpleNamespace(
            option=SimpleNamespace(verbose=verbose, capture=capture),
            pluginmanager=manager,
            get_terminal_writer=lambda: self.writer,
            getoption=lambda name, default=None: workers.get(name, default),
            **({"workerinput": {}} if others.get("is_worker") else {}),
        )
        self.progress = Progress(self.config)
        manager.add_hookspecs(hookspec)
        manager.register(self.progress, "cvhw4-progress")
        manager.check_pending()
        self.hook = manager.hook
        store = SimpleNamespace(runs=others.get("runs", Path("/nowhere")))
        planned = {(r.study, r.name, seed): r for r in rows for seed in range(seeds)}
        self.progress.plan(planned, lambda _: store)

    def __getattr__(self, name):
        """`begin`, `epoch`, `end` and `failed`: the hooks of a run, here of one with seed 0."""
        call = getattr(self.hook, f"pytest_cvhw4_run_{name}")
        return lambda row, **arguments: call(**{"config": self.config, "row": row, "seed": 0} | arguments)

    def train(self, row, done=None, images=240, **arguments):
        """A whole run."""
        done = done or record(row.name)
        self.begin(row, images=images, **arguments)
        for epoch in done.epochs:
            self.epoch(row, epoch=epoch, **arguments)
        self.end(row, record=done, reused=False, **arguments)

    @property
    def raw(self):
        return self.out.buffer.getvalue().decode(self.out.encoding)

    @property
    def lines(self):
        """Every line that could be seen, one after the other."""
        return [line for line in re.split(r"\r\x1b\[K|\n", self.raw) if line]

    @property
    def screen(self):
        """The lines that are left on a terminal."""
        screen = pyte.Screen(self.writer.fullwidth, 60)
        screen.set_mode(pyte.modes.LNM)  # as a terminal's driver does
        pyte.ByteStream(screen).feed(self.out.buffer.getvalue())
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """The time, which stands still unless a test moves it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_run_has_one_line_that_moves_and_stays(now):
    shown = Session(FIRST, seeds=2)
    shown.begin(FIRST, images=240)
    for epoch in EPOCHS:
        now[0] += 3.0
        shown.epoch(FIRST, epoch=epoch)
        assert len(shown.screen) == 1
    shown.end(FIRST, record=record("q1_2"), reused=False)
    assert shown.lines == [
        "q1_2-finetune seed 0  epoch 0/3  0:00  [0/2]",
        "q1_2-finetune seed 0 1/3 ▅ 0.700 120 img/s 0:03<0:06 [0/2, 12 s left]",
        "q1_2-finetune seed 0 2/3 ▁█ 0.900 120 img/s 0:06<0:03 [0/2, 6 s left]",
        "q1_2-finetune seed 0 3/3 ▁█▅ 0.800 120 img/s 0:09<0:00 [0/2, 0 s left]",
        "q1_2-finetune seed 0 ▁█▅ best accuracy 0.900 at 2, 10 s [1/2, 10 s left]",
    ]
    assert shown.screen == shown.lines[-1:] and shown.progress.reported == {("quick", "q1_2-finetune", 0)}


def test_a_wide_terminal_shows_words_and_colour_where_pytest_does():
    shown, plain = Session(FIRST, width=132, markup=True), Session(FIRST, width=132)
    for each in (shown, plain):
        each.train(FIRST)
    assert "epoch 2/3  ▁█  accuracy 0.900  120 images/s  0:00<0:03  [0/1, 3 s left]" in plain.lines[2]
    assert plain.screen == ["q1_2-finetune seed 0  ▁█▅  best accuracy 0.900 at epoch 2  10 s  [1/1, 0 s left]"]
    assert "\x1b[36m▁█▅\x1b[0m" in shown.raw and not re.search(r"\x1b\[\d", plain.raw)


FINAL = "q1_2-finetune        seed 0  best accuracy 0.900 at 2, 10 s [1/1, 0 s left]\n"


@pytest.mark.parametrize(
    ("environment", "settings", "raw"),
    [
        ({}, {"isatty": False}, FINAL),
        ({"CI": "true"}, {}, FINAL),
        ({"TERM": "dumb"}, {}, FINAL.replace("        seed 0 ", " seed 0 ▁█▅")),
        ({"TERM": "dumb"}, {"encoding": "ascii"}, FINAL.replace("        seed 0 ", " seed 0 _@+")),
        ({}, {"capture": "no"}, FINAL.replace("        seed 0 ", " seed 0 ▁█▅")),  # -s
        ({}, {"verbose": -1}, ""),
        ({}, {"is_worker": True}, ""),
        ({}, {"reporter": False}, ""),
    ],
)
def test_where_no_line_can_be_rewritten_a_run_is_one_plain_line_or_none(environment, settings, raw, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown = Session(FIRST, **settings)
    shown.train(FIRST)
    assert shown.raw == raw and bool(shown.progress.reported) == bool(raw)


def test_what_pytest_has_written_stays_and_the_line_begins_below():
    shown = Session(FIRST)
    shown.writer.write("test_report.py ")
    shown.train(FIRST)
    shown.writer.write("F")
    shown.failed(FIRST, reason="interrupted", seed=1)
    assert [line[:11] for line in shown.screen] == ["test_report", "q1_2-finetu", "F", "q1_2-finetu"]


def test_off_a_terminal_interim_lines_are_ten_seconds_apart(now):
    long = row("q1_2", epochs=50)
    shown = Session(long, isatty=False)
    shown.begin(long, images=240)
    for i in range(1, 51):
        now[0] += 3.0
        shown.epoch(long, epoch=replace(EPOCHS[0], epoch=i))
    assert shown.lines[0] == "q1_2-finetune        seed 0  epoch 4/50  loss 0.500  accuracy 0.700  2:18 left"
    assert len(shown.lines) == 150 // 12


WHY = f"see {'/folder' * 20}\x1b[2J"


@pytest.mark.parametrize(
    ("isatty", "reason", "said"),
    [
        (False, WHY, f"failed: {WHY}".replace("\x1b", "\\x1b")),  # whole: a path that is cut cannot be copied
        (True, WHY, f"failed: {WHY}"[:56] + "…"),
        (True, "interrupted", "interrupted"),
        (True, "資料" * 40, "failed: " + "資料" * 12 + "…"),  # by columns
    ],
)
def test_a_failure_is_told_whole_or_on_one_line_of_the_terminal(isatty, reason, said):
    shown = Session(FIRST, isatty=isatty)
    shown.begin(FIRST, images=None)
    shown.failed(FIRST, reason=reason)
    assert re.sub(r"^q1_2-finetune +seed 0  ", "", shown.lines[-1]) == said
    assert max(map(cell_len, shown.lines)) < 80 or not isatty


def test_a_run_that_cannot_begin_is_skipped_or_failed_by_name():
    shown = Session(FIRST, SECOND)
    shown.progress.prepare(FIRST, 0)
    shown.progress.skip(FIRST, 0, "no weights: " + "x" * 99)
    shown.failed(SECOND, reason="no such folder")
    assert shown.screen[0].startswith("q1_2-finetune seed 0  skipped: no weights: xx") and len(shown.screen[0]) < 80
    assert shown.screen[1:] == ["q2_1a-skip    seed 0  failed: no such folder"] and not shown.progress.reported


def test_a_run_from_disk_is_called_reused_and_one_that_went_on_continued():
    shown, plain = Session(FIRST, seeds=2), Session(FIRST, isatty=False)
    for each, name in ((shown, "q1_2-finetune seed 0"), (plain, "q1_2-finetune        seed 0")):
        each.begin(FIRST, images=240)
        each.progress.wait()
        assert each.lines[-1] == f"{name}  is being trained by another session: waiting for it"
    shown.end(FIRST, record=record("q1_2"), reused=True)
    assert shown.screen == ["q1_2-finetune seed 0 ▁█▅ best accuracy 0.900 at 2, reused [1/2, 0 s left]"]
    done = record("q1_2", 1)
    shown.train(FIRST, replace(done, times=replace(done.times, interruptions=1)), seed=1)
    assert shown.screen[1].endswith(" 10 s (continued) [2/2, 0 s left]")


@pytest.mark.parametrize("isatty", [True, False])
def test_a_run_that_begins_again_is_told_of_from_its_first_epoch_on(isatty):
    shown = Session(FIRST, row("q1_1"), isatty=isatty)
    for _ in range(2):
        shown.train(FIRST)
    assert sum(" 10 s [1/2, " in line for line in shown.lines) == 2
    if isatty:
        assert re.findall(r" (\d)/3 ", "\n".join(shown.lines)) == [*"0123"] * 2


def test_runs_on_a_cluster_show_what_was_told_of_them_before():
    def event(row, node, epoch=None):
        shown.progress.event(SimpleNamespace(study=row.study, row=row.name, seed=0, node=node, epoch=epoch))

    shown = Session(FIRST, SECOND)
    shown.begin(FIRST, images=None)
    event(FIRST, "node")
    event(SECOND, "node\n7")
    assert shown.lines[-1] == "q1_2-finetune seed 0  waiting; q2_1a-skip seed 0 begins on node\\n7"
    event(SECOND, "node", record("q2_1a").epochs[0])
    assert shown.lines[-1] == "q1_2-finetune seed 0  waiting; q2_1a-skip seed 0 finished epoch 1 on node"
    for epoch in EPOCHS:
        event(FIRST, "node", epoch)  # which the session also tells by the hook
        shown.epoch(FIRST, epoch=epoch)
    assert " 3/3 ▁█▅ 0.800 " in shown.lines[-1]
    shown.end(FIRST, record=record("q1_2"), reused=False)
    assert shown.lines[-1] == "q1_2-finetune seed 0 ▁█▅ best accuracy 0.900 at 2, 10 s [1/2, 6 s left]"
    shown.begin(SECOND, images=None)
    assert " 1/3 " in shown.lines[-1] and len(shown.progress.epochs["quick", "q2_1a-skip", 0]) == 1
    shown.epoch(SECOND, epoch=record("q2_1a").epochs[0])  # begun again on another node
    assert " 1/3  ▅  miou 0.700 " in shown.lines[-1] and len(shown.screen) == 2


def test_the_controller_tells_of_runs_that_workers_finished_or_lost():
    shown = Session(FIRST, seeds=4, workers=2)
    shown.progress.report_run(replace(record("q1_2", 1), started="2999-01-01T00:00:00+00:00"), 10.0)
    shown.progress.report_run(record("q1_2", 0), 0.1)
    shown.progress.report_run(record("q1_2", 0), 0.1)
    shown.progress.report_run(record("q1_1", 0), 0.1)  # not planned
    shown.progress.mark_lost(("quick", "q1_2-finetune", 2))
    shown.progress.report_run(record("q1_2", 3), 0.1)
    ends = [line.split(" at 2, ")[1] for line in shown.screen]
    assert ends == ["10 s [1/4, 15 s left]", "reused [2/4, 5 s left]", "reused [4/4, 0 s left]"]


def test_a_session_of_several_studies_names_them():
    other = replace(FIRST, study="insects")
    shown = Session(FIRST, other)
    shown.train(FIRST)
    shown.train(other, replace(record("q1_2"), study="insects"))
    names = [line.split(" ▁█▅ best")[0] for line in shown.screen]
    assert names == ["quick/q1_2-finetune   seed 0", "insects/q1_2-finetune seed 0"]


@given(
    width=st.integers(40, 200),
    isatty=st.booleans(),
    name=st.text("abcdefgh_0123456789.", min_size=1, max_size=40),
    seed=st.integers(0, 999),
    done=st.integers(0, 12),
    total=st.integers(12, 400),
    left=st.floats(0, 1e6),
)
@settings(max_examples=30)
def test_no_line_is_wider_than_the_terminal(width, isatty, name, seed, done, total, left):
    long, ended = replace(row("q2_n1a", epochs=total), name=name), record("q2_n1a", seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
        shown = Session(long, FIRST, seeds=9, width=width, isatty=isatty)
        shown.progress._pace.expect(FIRST, left)
        shown.begin(long, seed=seed, images=100_000)
        for i in range(1, done + 1):
            shown.epoch(long, seed=seed, epoch=replace(ended.epochs[0], epoch=i, train_seconds=left + 1.0))
        shown.end(long, seed=seed, record=replace(ended, row=long.name), reused=False)
        final = shown.lines[-1]
        shown.progress.wait()
        shown.progress.skip(long, seed, "x" * 300)
    assert max(map(len, shown.lines)) <= (width - 1 if isatty else 80)
    if width >= 80:
        assert "0.900" in final and re.search(r" \[\d+/18", final)
        assert f" seed {seed} " in final or f" s{seed} " in final


# Time


def errors(pace, study):
    """By how much of the truth the time left is off after each run, and what runs finished of runs in all would say."""
    off, naive, gone = [], [], 0.0
    for i, (done, seconds) in enumerate(study[:-1], 1):
        pace.add(done, seconds)
        gone += seconds
        truth = sum(s for _, s in study[i:])
        off.append(abs(sum(pace.seconds(r) for r, _ in study[i:]) / truth - 1))
        naive.append(abs(gone / i * (len(study) - i) / truth - 1))
    return off, naive


def test_with_earlier_sessions_on_another_machine_the_time_left_is_known_from_the_third_run_on():
    """Rows of the same network differ 4-fold; each has 3 seeds."""
    random, rows, pace = np.random.RandomState(0), QUICK.in_group(""), Pace()
    cost = {r.name: float(random.uniform(1, 4)) * r.recipe.epochs for r in rows}
    for r in rows:
        pace.expect(r, cost[r.name] * random.uniform(0.9, 1.1))
    off, naive = errors(pace, [(r, 3.0 * cost[r.name] * random.uniform(0.9, 1.1)) for r in rows for _ in range(3)])
    assert max(off[2:]) < 0.25 < max(naive[2:])


def test_without_them_rows_not_seen_are_judged_by_epochs_and_network():
    """Two networks whose epochs differ 4-fold, the rows of one twice as long as those of the other."""
    slow, fast = row("q2_1a", epochs=8), row("q1_2", epochs=16)
    random, cost = np.random.RandomState(1), {slow.network: 8.0, fast.network: 2.0}
    rows = [replace(r, name=f"{r.name}{i}") for i in range(6) for r in (slow, fast)]
    study = [(r, cost[r.network] * r.recipe.epochs * random.uniform(0.85, 1.15)) for r in rows]
    off, naive = errors(Pace(), [*study[:2], *study[2::2], *study[3::2]])  # one of each, then all slow before the fast
    assert max(off[2:]) < 0.25 < max(naive[2:])


def test_what_rows_took_before_is_read_from_their_newest_record(tmp_path):
    def begun(epochs=2):
        shown = Session(row("q1_2", epochs=epochs), seeds=2, runs=tmp_path)
        shown.begin(row("q1_2", epochs=epochs), images=240)
        return shown.lines[-1].partition("  0:00")[2]

    (tmp_path / "q1_2-finetune").mkdir()
    for i, seconds in enumerate((99.0, 12.0)):
        stored = record("q1_2", i, figures=((0.5,), (0.6,)))
        path = tmp_path / "q1_2-finetune" / f"seed{i}-x.json"
        path.write_text(replace(stored, times=replace(stored.times, total_seconds=seconds)).to_json())
        os.utime(path, (i, i))
    assert begun() == "<0:12  [0/2, 24 s left]"
    assert begun(epochs=3) == "  [0/2]"  # another recipe
    path.write_text("damaged")
    assert begun() == "  [0/2]"
