#!/usr/bin/env python3
"""One night of benchmarks on this machine, from plain cron or from a CI job: it knows of no CI service.

    night.py run              trains, compares, confirms, and leaves what became of it in night/
    night.py publish FOLDER   puts FOLDER (night/update) on the history's branch
    night.py check HOURS      fails where no good night is younger than that

`run` ends with 0 where nothing is worse, with 1 where something is or tests failed, and with 4 where there is nothing
to judge. Whatever ends it, night/night.json has the state. Its settings are environment variables:

    PORTRAITS, CAMVID   folders of data; WEIGHTS of pretrained weights, may be empty
    STORE               folder on this machine, outside of any checkout, for all that nights share (~/cvhw4-nightly)
    PYTHON              the interpreter to train with; empty: an environment with the pinned versions, made in STORE
    SEEDS               of every row (5); as many more are drawn to confirm
    MINUTES             that all of it may take (280)
    JOB_MINUTES         after which a CI job is cancelled: 20 of them, of fewer than 40 half, are left to tell of it
    SLOWER              ratio of training times above which the canary is too slow (1.3)
    CANARY              the row that is trained anew every night, alone (q1_2-finetune); empty: none
    CHECKS              make's targets that are run besides ("gpu-check gpu-speed")
    AT_ONCE             sessions that train at once (make's own)
    STUDY               the study, and make's PROFILE (full)
    ACCEPT              "row: reason; row: reason", or "all: reason": takes these rows as they are
    PIN                 true: this night becomes the one that slow declines are held against
    HELD                true: without any history, nothing becomes what later nights are held against but what is
                        accepted
    PICTURES            true: the report in HTML, which shows validation pictures, may leave this machine
    ASIDE               a name ("pull-request-7"): compares with the newest night, and changes nothing of the history
    HISTORY             a checkout of the history's branch, where there is one, to take over what STORE lacks
    REMOTE, BRANCH      where the history is published (BRANCH: nightly), and what STORE lacks is taken over from
    URL                 page of the log
    MIN_FREE_GB         of disk, below which nothing is trained (5)
    KEEP_DAYS           after which runs that no night names, and unfinished ones, are removed (60)
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path

WORK = Path("night")
GRACE = 5  # seconds that what is stopped has to write down what it knows
RESERVE = 0.15  # of the time, kept for the confirmation
GIT_SECONDS = 300  # that any call of git may take
GOOD = ("first", "fine")


class Broken(Exception):
    """There is nothing to judge. The message says why."""


class Settings:
    """What the environment says; raises Broken for what makes no sense."""

    def __init__(self, environment):
        def number(name, default, least):
            text = environment.get(name) or default
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if not least <= value < 1e6:
                raise Broken(f"{name} is {text!r}, which is not a number of at least {least}.")
            return value

        def text(name, default=""):
            return environment.get(name) or default

        self.store = Path(text("STORE", "~/cvhw4-nightly")).expanduser().absolute()
        self.python = text("PYTHON")
        self.data = {name: text(name) for name in ("PORTRAITS", "CAMVID", "WEIGHTS")}
        self.seeds = int(number("SEEDS", "5", 1))
        job = number("JOB_MINUTES", "999999", 0.001)
        self.minutes = min(number("MINUTES", "280", 0.001), max(job - 20, job / 2))
        self.slower = number("SLOWER", "1.3", 1)
        self.canary = environment.get("CANARY", "q1_2-finetune")
        self.checks = environment.get("CHECKS", "gpu-check gpu-speed").split()
        self.at_once = text("AT_ONCE")
        self.study = text("STUDY", "full")
        self.pin, self.held, self.pictures = (text(name).lower() == "true" for name in ("PIN", "HELD", "PICTURES"))
        self.aside = text("ASIDE")
        self.history = text("HISTORY")
        self.remote, self.branch = text("REMOTE"), text("BRANCH", "nightly")
        self.url = text("URL")
        self.free = number("MIN_FREE_GB", "5", 0)
        self.keep = number("KEEP_DAYS", "60", 1)
        self.accepted = accepted(text("ACCEPT"))
        if self.aside and not self.aside.replace("-", "").isalnum():
            raise Broken(f"ASIDE is {self.aside!r}: a name of letters, digits and hyphens is expected.")


def accepted(text):
    """Reasons by row, of "row: reason; row: reason"."""
    reasons = {}
    for part in filter(None, (p.strip() for p in text.replace("\n", ";").split(";"))):
        row, _, reason = (p.strip() for p in part.partition(":"))
        if not row or not reason:
            raise Broken(f"ACCEPT has {part!r}: write it as ROW: REASON; the reason stays in the history.")
        reasons[row] = reason
    return reasons


# What is run


class Clock:
    """Runs commands within the time that the night has, each in a process group of which nothing is left behind."""

    def __init__(self, minutes):
        self.end = time.monotonic() + minutes * 60

    def run(self, command, log, share=1.0):
        """The exit code; raises Broken where a share of the time that is left is over. `log` is a file for what it
        prints; None for this process's own output."""
        seconds = max(0.0, (self.end - time.monotonic()) * share)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log is not None else None
            print(f"$ {shlex.join(command)}", flush=True)
            process = subprocess.Popen(
                command,
                env={k: v for k, v in os.environ.items() if k not in ("CHECKS", "MINUTES")},  # make has its own
                stdout=output,
                stderr=output and subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                what, minutes = " ".join(command[:2]), seconds / 60
                raise Broken(f"{what} was not done within {minutes:.3g} minutes. The next night goes on.") from None
            finally:
                stop(process)


def stop(process):
    """Ends a process and all that it has started, which are given some seconds to write down what they know."""
    for sign, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 5)):
        until = time.monotonic() + seconds
        while alive(process) and time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            if sign == signal.SIGTERM:  # once: a second one may cut short what answers the first
                while alive(process) and time.monotonic() < until:
                    time.sleep(0.05)
            time.sleep(0.05)


def alive(process):
    """Whether any process of the group is left."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def make(target, settings, out, arguments=(), **variables):
    """The command for a target of the Makefile. What make and then the shell read is quoted for both."""
    text = " ".join(shlex.quote(a) for a in arguments).replace("$", "$$")
    given = {"PYTHON": settings.python, "OUT": str(out), "PROFILE": settings.study, "ARGS": text, **variables}
    return ["make", target, *(f"{k}={v}" for k, v in given.items() if v != "" or k == "ARGS")]


def options(settings, seeds, rows=()):
    """pytest's arguments for rows, all of them by default."""
    given = ["--seeds", str(seeds)]
    for name, folder in settings.data.items():
        given += [f"--{name.lower()}", folder] if folder else []
    return [*given, "-k", " or ".join(rows)] if rows else given


def install(settings, clock):
    """An environment with the pinned versions, made anew where pins have changed; the two latest are kept."""
    pins = b"\0".join(Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    folder = settings.store / "environments" / hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        import tomllib

        needed = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        make_it = [sys.executable, "-m", "venv", str(folder)]
        try:
            for command in (make_it, [*pip, "--constraint", "constraints.txt", *needed]):
                if clock.run(command, None):
                    raise Broken("The pinned packages cannot be installed: see the log.")
            (folder / "complete").touch()
        except BaseException:  # half of one may have filled the disk, and no night would begin any more
            shutil.rmtree(folder, ignore_errors=True)
            raise
    os.utime(folder)
    for old in sorted(folder.parent.iterdir(), key=lambda f: f.stat().st_mtime)[:-2]:
        shutil.rmtree(old, ignore_errors=True)
    return str(folder / "bin" / "python")


@contextlib.contextmanager
def lock(path, clock):
    """The machine for this process alone, as `flock` takes it; waits for others, as long as there is time; raises
    Broken where somebody else had it all the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > clock.end:
                    raise Broken(f"Something else held {path} all the time.") from None
                if not told:
                    print(f"waiting for {path}", flush=True)
                told = True
                time.sleep(0.2)
        yield


def check(settings):
    """Raises Broken where data or disk space are missing."""
    for name, folder in settings.data.items():
        if name == "WEIGHTS" and not folder:
            continue
        if not folder:
            raise Broken(f"No {name}: set the variable {name} to a folder on this machine.")
        if not Path(folder).is_dir():
            raise Broken(f"{name} names {folder}, which is no folder on this machine.")
    for place in (settings.store, Path()):
        free, least = shutil.disk_usage(place).free / 1e9, settings.free
        if free < least:
            raise Broken(f"The disk is full: {free:.1f} GB are left for {place.absolute()}, {least:g} are needed.")


def prune(folder, days, named):
    """Removes finished runs that are older and that nobody names, and unfinished ones that are older."""
    before = time.time() - days * 86400
    kept = {(row, name) for row, name in named}
    for path in [*folder.glob("*/runs/*/*"), *folder.glob("*/unfinished/*/*")]:
        finished = path.parent.parent.name == "runs"
        if finished and (path.parent.name, path.name.split(".")[0]) in kept:
            continue
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()


def link(source, target):
    """Gives a folder the finished runs of another one."""
    for path in source.glob("*/*"):
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            to.hardlink_to(path)


def speeds(results, target):
    """Figures of the history: how many times as fast as the reference loop each family of a comparison was."""
    from benchmarks.performance.speed_record import load_all
    from cvhw4.records.history import Measurement

    ratios = {re.sub(r"\W+", "-", r.family): round(r.ratio, 4) for r in load_all(results)}
    return [Measurement(row=k, data=target, figure="speed ratio", values={"0": v}) for k, v in ratios.items()]


def session(junit):
    """What a session tells in its JUnit file: fingerprints by row and seed, reasons of failures by row and seed, and
    of other failed tests by row ("" for those of no row); raises Broken where it did not come to its end."""
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    if not cases:
        raise Broken("No test has run: see the log.")
    runs, failures, tests = {}, {}, {}
    for case in cases:
        told = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        wrong = next((e for kind in ("failure", "error") for e in case.iter(kind)), None)
        key = told.get("row", ""), told.get("seed", "")
        if "fingerprint" in told:
            runs[key] = told["fingerprint"]
        elif "failed" in told:
            failures[key] = told["failed"]
            continue
        if wrong is not None:
            why = (wrong.get("message") or "").split("\n")[0][:200]
            tests.setdefault(key[0], f"{case.get('name')} failed: {why}")
    return runs, failures, tests


def load(results, study, runs):
    """The records of runs, by row and seed, that a session told of."""
    from cvhw4.records.store import Store

    found = []
    for (row, seed), fingerprint in runs.items():
        record = Store(results, study).find(row, int(seed), fingerprint)
        if record is None:
            raise Broken(f"The record of {row}, seed {seed}, is gone: see the log.")
        found.append(record)
    return found


# A night


def train(settings, clock, results, name, seeds, rows=(), share=1.0, **variables):
    """Trains and gives what the session tells, and its records; see `session`."""
    junit = WORK / f"{name}.xml"
    junit.unlink(missing_ok=True)
    command = make("gpu-full", settings, results, options(settings, seeds, rows), JUNIT=str(junit), **variables)
    try:
        code = clock.run(command, WORK / "logs" / f"{name}.log", share)
    finally:
        for log in results.glob("part-*.log"):
            shutil.copy(log, WORK / "logs" / f"{name}-{log.name}")
    told = session(junit)
    tests = told[2]
    if code and not told[1] and not tests:
        tests[""] = "make gpu-full failed: see the log"
    return *told, load(results, settings.study, told[0])


def night(settings, clock, started):
    """Trains and judges one night, and writes what became of it. Gives its state."""
    sys.path.insert(0, str(Path().absolute()))  # cvhw4 of this checkout
    from cvhw4.discovery import find_study
    from cvhw4.records.environment import commit
    from cvhw4.records.history import History, JudgedRow, Night
    from cvhw4.records.store import Store
    from cvhw4.report.history import night_page
    from cvhw4.statistics.bounds import bounds_of
    from cvhw4.statistics.levels import CANARY
    from cvhw4.statistics.nights import Unconfirmed, canary_of, judge_canary, judge_night

    study = find_study(settings.study)
    history = History(settings.store / "history")
    branch = settings.store / "branch"
    shutil.rmtree(branch, ignore_errors=True)
    if settings.history:
        history.merge(Path(settings.history))
    if settings.remote:
        try:
            read_branch(settings.remote, settings.branch, branch)
        except Broken as error:
            if history.judged is None:  # else this night would be the first, whatever its branch knows
                raise Broken(f"There is no history at hand, and its branch cannot be read: {error}") from None
            print(f"error: the history's branch cannot be read: {error}", file=sys.stderr)
        history.merge(branch)
    elif settings.history:
        branch = Path(settings.history)
    earlier = history.judged
    if earlier is not None and earlier.started >= started and not settings.aside:
        raise Broken(
            f"The history has a night of {earlier.started}, which has not begun before this one ({started}). Set this "
            f"machine's clock; if that night's was wrong, put right what nights/{file_name(earlier.started)} says in "
            "STORE/history and on the history's branch, and its name."
        )
    known = {*study.rows, "all", *(["canary"] if settings.canary else [])}
    known |= {r.row for rows in ([earlier.rows, earlier.good] if earlier else []) for r in rows}
    for row in settings.accepted.keys() - known:
        raise Broken(f"ACCEPT names {row}, which is not a row. Rows are {', '.join(sorted(known))}.")
    results = settings.store / (f"aside/{settings.aside}" if settings.aside else "results")
    named = {(r.row, n) for g in ([earlier.good, earlier.pinned] if earlier else []) for r in g for n in r.runs}
    prune(settings.store / "results", settings.keep, named)
    for folder in (settings.store / "aside").glob("*"):
        prune(folder, settings.keep, ())
        if not any([*folder.glob("*/runs/*/*"), *folder.glob("*/unfinished/*/*")]):  # pages and pictures are left
            shutil.rmtree(folder, ignore_errors=True)
    for folder in settings.store.glob("anew-*"):  # of a night that was killed
        shutil.rmtree(folder, ignore_errors=True)
    results.mkdir(parents=True, exist_ok=True)
    if settings.aside:  # what a night has trained need not be trained again
        link(settings.store / "results" / settings.study / "runs", results / settings.study / "runs")

    def anew():
        """A folder of results of its own, from which nothing is taken again."""
        return tempfile.TemporaryDirectory(prefix="anew-", dir=settings.store, ignore_cleanup_errors=True)

    checks, ratios = {}, []
    canary, judged = None, []
    for target in settings.checks:  # first, while nothing else runs
        with anew() as folder:
            try:
                code = clock.run(make(target, settings, folder), WORK / "logs" / f"{target}.log", 0.2)
            except Broken:  # took too long; the night goes on
                code = 1
            ratios += speeds(Path(folder), target)
        checks[target] = "failed" if code else "passed"
    if settings.canary and not settings.aside:
        for attempt in ("canary", "canary-again"):
            with anew() as folder:
                alone = [settings.canary], 0.3
                _, lost, missed, records = train(settings, clock, Path(folder), attempt, 2, *alone, AT_ONCE="1")
            if lost or missed or not records:
                why = next(iter([*lost.values(), *missed.values()]), "was not run")
                canary, judged = None, [JudgedRow(row=settings.canary, data=CANARY, status="failed", why=why)]
                break
            canary = canary_of(records)
            row = judge_canary(canary, history.nights, settings.slower)
            if attempt == "canary-again" and row.status in ("fine", "new"):
                row = type(row)(row=row.row, data=row.data, status="unconfirmed", why=judged[0].why)
            judged = [row]
            if row.status in ("fine", "new"):
                break

    at_once = {"AT_ONCE": settings.at_once} if settings.at_once else {}
    runs, failures, tests, records = train(
        settings, clock, results, "session", settings.seeds, share=1 - RESERVE, **at_once
    )
    if not runs and not failures:
        raise Broken(f"No run has finished: {tests.get('', 'see the log')}.")
    told = {(f.row, str(f.seed)): f for f in Store(results, settings.study).failures()}  # of each run the newest
    notes = [told[run] for run in failures if run in told]

    def retrain(rows):
        try:
            told = train(settings, clock, results, "confirmation", 2 * settings.seeds, rows, **at_once)
        except Broken as error:
            raise Unconfirmed(str(error)) from None
        return [r for r in told[3] if r.seed >= settings.seeds]

    newest = max(records, key=lambda r: r.started, default=None)  # others may be of earlier nights, and machines
    begun = Night(
        started=started,
        state="fine",
        study=settings.study,
        commit=commit(),
        environment=dict(newest.environment) if newest else {},
        checks=checks | ({"tests": "failed"} if "" in tests else {}),
        rows=judged,
        figures=ratios,
        canary=canary,
        accepted=settings.accepted,
        url=settings.url,
        why=tests.get("", ""),
    )
    nights = history.nights
    if settings.aside and earlier is not None:  # held against the newest night, whatever became of it
        from cvhw4.records.history import Reference

        newest = [Reference(row=r.row, data=r.data, runs=r.runs, since=earlier.started) for r in earlier.rows if r.runs]
        nights = [type(earlier)(started=earlier.started, state="fine", good=newest, figures=earlier.figures)]
    judgement = judge_night(
        study,
        begun,
        records,
        nights,
        lambda references: history.runs(references, settings.study),
        retrain,
        notes,
        {row: why for row, why in tests.items() if row},
        bounds_of(study),
        pin=settings.pin,
        held=settings.held,
        complete=not settings.aside,
    )
    (WORK / "night.json").write_text(judgement.night.to_json())  # the state before the text
    for page in ("report.md", "verdicts.md", *(["report.html"] if settings.pictures else [])):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(results / settings.study / page, WORK)
    if not settings.aside:
        shutil.rmtree(WORK / "update", ignore_errors=True)
        history.add(judgement.night, records)
        history.copy_to(WORK / "update", branch)
    (WORK / "comparison.md").write_text(night_page(judgement))
    return judgement.night.state


def broken(settings, started, why, final=True):
    """Writes that there is nothing to judge, and why; into the history too where that is `final`. What cannot be
    written is left out: the disk may be full."""
    entry = {"version": 1, "started": started, "state": "broken", "why": why, "study": "", "url": ""}
    if settings is not None:
        entry |= {"study": settings.study, "url": settings.url}
    text = json.dumps(entry, indent=1) + "\n"
    shutil.rmtree(WORK / "update", ignore_errors=True)
    files, publishes = {WORK / "night.json": text}, settings is None or not settings.aside
    if publishes and final and settings is not None:
        files[settings.store / "history" / "nights" / file_name(started)] = text
    try:
        files[WORK / "comparison.md"] = nothing_judged(why)
        if publishes:
            files |= {WORK / "update" / name: content for name, content in broken_update(entry).items()}
    except Exception as error:  # the checkout's own code is what is broken
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        files.setdefault(WORK / "comparison.md", f"**Nothing could be judged**\n\n{why}\n")
    for place, content in files.items():
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            part.write_text(content)
            part.replace(place)  # whole or not at all


def nothing_judged(why):
    """The page of a broken night. Needs no package."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # cvhw4 of this checkout
    from cvhw4.report.text import escape

    return f"**Nothing could be judged**\n\n{escape(why)}\n"


def write_page(settings):
    """Writes the history's page and its badge, of broken nights too."""
    try:
        from cvhw4.records.history import History
        from cvhw4.report.history import write_history

        write_history(WORK / "update", History(settings.store / "history").nights)
    except Exception as error:  # no disk, or no packages: what became of the night is told without
        print(f"error: the history's page was not written: {type(error).__name__}: {error}", file=sys.stderr)


def now():
    """The time, as nights are named by."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def broken_update(entry):
    """What the history's branch gets of a broken night: texts by name of a file. Needs no package."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # cvhw4 of this checkout
    from cvhw4.report.badge import badge

    night = f"nights/{file_name(entry['started'])}"
    return {night: json.dumps(entry, indent=1) + "\n", "badge.svg": badge(entry["state"], entry["started"])}


def file_name(started):
    """The name of a night's file, as `cvhw4.records.history` has it."""
    return f"{started.replace(':', '-').replace('+00-00', 'Z')}.json"


class Stopped(BaseException):
    """Somebody ended this process."""


def listen():
    """Makes the first signal that ends a process an exception, so that what it started ends before it; later ones are
    ignored, so that they do not cut that short."""

    def stopped(number, _):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    signals = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    for each in signals:
        signal.signal(each, stopped)


@contextlib.contextmanager
def checkout():
    """The checkout for this process alone, also where it goes on as another program; gives the descriptor that holds
    it, or None where another night has it."""
    folder = int(os.environ.pop("NIGHT_CHECKOUT", "") or os.open(".", os.O_RDONLY))
    os.set_inheritable(folder, True)
    given = folder
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        given = None
    except OSError:  # the file system has no locks
        pass
    try:
        yield given
    finally:
        os.close(folder)


def run():
    """A whole night; the exit code."""
    with checkout() as alone:
        if alone is not None:
            return whole_night(alone)
    print("error: another night runs in this checkout, and its output is there", file=sys.stderr)
    return 4


def whole_night(alone):
    """As `run`, in a checkout that is this process' alone: the descriptor that holds it."""
    started = now()
    settings, state, why, hurry = None, "broken", "", False
    listen()
    try:
        shutil.rmtree(WORK, ignore_errors=True)
        (WORK / "logs").mkdir(parents=True)
        settings = Settings(os.environ)
        broken(settings, started, "The night was broken off: see the log. The next one goes on.", final=False)
        clock = Clock(settings.minutes)
        with lock(settings.store / "lock", clock):
            check(settings)
            if not settings.python:
                python = install(settings, clock)
                left = str(max(0.001, (clock.end - time.monotonic()) / 60))
                again = os.environ | {"PYTHON": python, "MINUTES": left, "NIGHT_CHECKOUT": str(alone)}
                sys.stdout.flush()
                os.execve(python, [python, __file__, "run"], again)  # in the environment that has cvhw4's packages
            started = now()  # nights of a machine are in order, however long they have waited
            state = night(settings, clock, started)
    except Broken as error:
        why = str(error)
    except Stopped as error:
        why, hurry = f"The night was ended from outside ({error}). The next one goes on.", True
    except OSError as error:
        why = f"The disk is full, or cannot be written: {error}."
    except Exception as error:
        traceback.print_exc()
        why = f"The comparison failed: {type(error).__name__}: {error}"
    if why:
        print(f"error: {why}", file=sys.stderr)
    if why and state == "broken":
        broken(settings, started, why)
    if settings is not None and not settings.aside and not hurry:
        write_page(settings)
    code = 0 if state in GOOD else 4 if state == "broken" else 1
    if code:
        with contextlib.suppress(OSError):
            print((WORK / "comparison.md").read_text())
    print(f"night: {state}")
    if settings is not None and settings.remote and not settings.aside:
        try:
            publish(WORK / "update", settings.remote, settings.branch)
        except (OSError, Broken) as error:
            print(f"error: the history was not published: {error}", file=sys.stderr)
            code = code or 1
    return code


# The history's branch


def git(*arguments, folder=None, expected=(0,)):
    """git's exit code, one of those expected, and what it prints; raises Broken for another code."""
    who = {"user.name": "nightly", "user.email": "nightly@localhost"}
    mine = who | {"commit.gpgSign": "false", "core.hooksPath": os.devnull}  # nobody is there to type a password
    command = ["git", *(word for name, value in mine.items() for word in ("-c", f"{name}={value}")), *arguments]
    quiet = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"} | os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise Broken(f"git {arguments[0]} was not done within {GIT_SECONDS} seconds.") from None
    if done.returncode not in expected:
        raise Broken(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.returncode, (done.stdout or done.stderr).strip()


def address(remote):
    """The address of a remote of this checkout ("origin"), for git in another folder; an address is its own."""
    return git("ls-remote", "--get-url", remote)[1]


def has_branch(remote, branch):
    """Whether the history has a branch yet; raises Broken where that cannot be told."""
    code, _ = git("ls-remote", "--exit-code", address(remote), f"refs/heads/{branch}", expected=(0, 2))
    return code == 0


def read_branch(remote, branch, folder):
    """Makes a folder a checkout of the history's branch, of a new one where there is none yet, and gives whether there
    is; raises Broken where it cannot be read."""
    there = has_branch(remote, branch)
    git("init", "--quiet", str(folder))
    if there:
        git("fetch", "--quiet", "--depth=1", address(remote), f"refs/heads/{branch}", folder=folder)
        git("checkout", "--quiet", "-b", branch, "FETCH_HEAD", folder=folder)
    else:
        git("checkout", "--quiet", "--orphan", branch, folder=folder)
    return there


UPDATE = re.compile(r"(nights/[\dTZ-]+\.json|index\.html|badge\.svg|records/[\w.+-]+/runs/[\w.+-]+/seed[\w-]+\.json)")


def publish(update, remote, branch):
    """Adds what a night leaves to the history's branch: nights, pages, and records, of which those stay that the
    branch's newest judged night names. Another night that is published at the same time stays. Raises Broken where
    the branch cannot be read or written."""
    files = [p for p in sorted(update.rglob("*")) if p.is_file() and not p.is_symlink()]
    files = [p for p in files if UPDATE.fullmatch(str(p.relative_to(update)))]
    latest = max((p.stem for p in files if p.parent.name == "nights"), default=None)
    if latest is None:
        raise Broken(f"{update} has no night.")
    for attempt in range(5):
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name)
            read_branch(remote, branch, copy)
            (copy / ".nojekyll").touch()
            for path in files:
                to = copy / path.relative_to(update)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
            named = named_by_newest(copy)
            for path in copy.glob("records/*/runs/*/*.json") if named else ():
                if (path.parent.name, path.stem) not in named:
                    path.unlink()
            git("add", "--all", "--force", folder=copy)
            git("commit", "--quiet", "--allow-empty", "--message", f"Night {latest}", folder=copy)
            push = "push", "--quiet", address(remote), f"HEAD:refs/heads/{branch}"
            code, said = git(*push, folder=copy, expected=range(256))
            if code == 0:
                return
        time.sleep(attempt)
    raise Broken(f"{remote} does not take the branch {branch}: {said}")


def named_by_newest(history):
    """Rows and runs that the newest judged night in a folder names, of which later ones need the records."""
    named, newest = set(), ""
    for path in (history / "nights").glob("*.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(path.read_text())
            if entry["state"] != "broken" and entry["started"] > newest:
                placed = [r for kind in ("rows", "good", "pinned") for r in entry[kind]]
                named, newest = {(r["row"], run) for r in placed for run in r["runs"]}, entry["started"]
    return named


def overdue(history, hours):
    """Why somebody should look where no good night in a history's folder is younger than so many hours; else ""."""
    found = []
    for path in (history / "nights").glob("*.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(path.read_text())
            begun = datetime.fromisoformat(entry["started"])
            if entry["state"] in GOOD and begun < datetime.now(UTC) + timedelta(hours=1):  # else of a wrong clock
                found.append(begun)
    if not found:
        return "There is no good night yet."
    age = datetime.now(UTC) - max(found)
    if age <= timedelta(hours=hours):
        return ""
    return f"The last good night is of {max(found):%Y-%m-%d %H:%M} UTC, {age / timedelta(hours=1):.0f} hours ago."


def main(arguments):
    """What the command line asks for; the exit code."""
    try:
        match arguments:
            case ["run"]:
                return run()
            case ["publish", folder]:
                settings = Settings(os.environ)
                publish(Path(folder), settings.remote, settings.branch)
                return 0
            case ["check", hours]:
                settings = Settings(os.environ)
                why = overdue(Path(settings.history or settings.store / "history"), float(hours))
                if why:  # else nothing, that cron may send
                    print(why)
                return int(bool(why))
    except Broken as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(__doc__, file=sys.stderr)
    return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
