"""pytest's own options, and other plugins, over a study whose runs are over at once."""

import json
import os
import re
import shlex
import xml.etree.ElementTree as ET

import pytest

import cvhw4.report.page
from cvhw4.plugin import options
from cvhw4.plugin.options import cpu_quota, divided_threads, is_ci
from cvhw4.records.store import Store
from tests.helpers import ROOT
from tests.helpers.sessions import add_to_conftest

pytest_plugins = ["pytester"]

CONFTEST = """
from tests.helpers.studies import Instant

pytest_plugins = ["cvhw4.plugin"]

def pytest_cvhw4_make_runner(study, options):
    return Instant(study=study, **options)
"""
STUDY = """
import pytest
from cvhw4 import Claim, Generated, Row, Study

study = Study(
    "s", data=Generated("portraits"), rows={name: Row("resnet18", start="random") for name in ROWS},
    claims=[
        Claim(id="right", better="a", worse="b", metric="accuracy"),
        Claim(id="wrong", better="b", worse="c", metric="accuracy"),
    ],
)
pytestmark = pytest.mark.study(study)

def test_row(train, row, seed):
    assert train(row, seed).row == row.name

def test_claim(judged, claim):
    assert judged(claim).verdict == "supported"
"""
EXTRA = """
def test_other():
    pass
"""


@pytest.fixture
def own(pytester, monkeypatch):
    """A repository with a study: `own(*args)` runs pytest there, two seeds each and without pages."""
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what is installed here is not part of a test
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_study=STUDY.replace("ROWS", repr("abc")), test_extra=EXTRA)
    monkeypatch.setattr(cvhw4.report.page, "write_pages", lambda *_: [])  # in sessions of this process

    def run(*args, subprocess=False):
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner("-p", "benchmark", "--seeds", "2", "--benchmark-disable", *args)

    return run


@pytest.fixture
def edit(own, pytester):
    """`edit(old, new)`: changes the study's file."""
    file = pytester.path / "test_study.py"

    def change(old, new):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def runs(pytester, folder="results"):
    return {(r.row, r.seed) for r in Store(pytester.path / folder, "s").load()}


# The claims of a study: "right" holds, "wrong" does not


def outcomes(result):
    return {k: v for k, v in result.parseoutcomes().items() if k not in ("deselected", "warnings", "warning")}


WHOLE = {"passed": 8, "failed": 1}  # 6 runs, the claim that holds, another test; the claim that does not
RED, GREEN = pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK


@pytest.mark.parametrize("again", [["--lf"], ["--sw", "--lf"], ["-k", "wrong"]])
def test_a_claim_that_failed_fails_again_where_its_runs_are_not_selected(own, again):
    first = own()
    assert outcomes(first) == WHOLE and first.ret == RED
    for _ in range(2):
        second = own(*again)
        assert outcomes(second) == {"failed": 1} and second.ret != GREEN
        assert "'contradicted' == 'supported'" in second.stdout.str()


def test_the_verdict_over_stored_runs_is_that_of_the_whole_session(own, edit):
    """Judged together with the study's other claims (Holm), as on its page, though `-k` selects one."""
    edit("    assert judged", "    print('found', judged(claim).adjusted_p)\n    assert judged")
    told, alone = (own("-s", "-k", select).stdout.str() for select in ("test_row or right", "right"))
    assert re.findall(r"found \d\S*", told) == re.findall(r"found \d\S*", alone) != []


def test_a_claim_without_any_run_is_no_pass(own, pytester):
    result = own("-k", "wrong")
    assert outcomes(result) == {"failed": 1} and not (pytester.path / "results").exists()
    assert "This session selects no run of b and c, and none is stored in" in result.stdout.str()
    options = "-p benchmark --seeds 2 --benchmark-disable"
    assert f"Fix: pytest {options} -k 'wrong or b-seed or c-seed'\n" in result.stdout.str()
    half = own("-k", "b-seed or wrong")
    assert outcomes(half) == {"passed": 2, "failed": 1} and "selects no run of c" in half.stdout.str()
    folder = own("-k", "wrong", ".", "--results=new", "-q")
    assert f"Fix: pytest {options} . --results=new -q -k 'wrong or b-seed or c-seed'\n" in folder.stdout.str()


@pytest.mark.parametrize(
    "chosen",
    [
        ["test_study.py::test_claim[wrong]"],
        ["test_study.py", "-k", "wrong"],
        ["-m", "study", "-k", "wrong"],
        ["--deselect", "test_study.py::test_row", "-k", "wrong"],
        ["--lf", "-k", "wrong"],
        ["--sw-skip", "-k", "wrong"],
        ["--deselect", "test_study.py::test_row"],
    ],
)
def test_where_more_than_k_leaves_rows_out_no_command_is_named(own, chosen):
    told = own(*chosen).stdout.str()
    assert "Fix: select the rows too, or train them first: -k 'b-seed or c-seed'\n" in told


def test_the_command_that_a_claim_without_runs_names_trains_and_judges(own, pytester):
    told = re.search("Fix: pytest (.*)", own("-k", "right").stdout.str())[1]
    result = own(*shlex.split(told.partition("--benchmark-disable")[2]))
    assert outcomes(result) == {"passed": 5} and runs(pytester) == {(row, seed) for row in "ab" for seed in (0, 1)}


# Every option and plugin: what is right for each

OPTIONS = [
    ("--ff", WHOLE, RED),
    ("--nf", WHOLE, RED),
    ("-x", WHOLE, RED),  # the claim that does not hold comes last
    ("-p no:cacheprovider --maxfail 1", WHOLE, RED),
    ("--import-mode importlib -s", WHOLE, RED),
    ("--capture sys -vv", WHOLE, RED),
    ("-p no:warnings -p no:logging -p no:junitxml --durations 3 --tb line", WHOLE, RED),
    ("-W error --doctest-modules", WHOLE, RED),
    ("--deselect test_study.py::test_claim[wrong]", {"passed": 8}, GREEN),
    ("test_study.py::test_row[a-seed0]", {"passed": 1}, GREEN),
    ("--setup-plan", {}, GREEN),
    ("--collect-only -q", {}, GREEN),
]


@pytest.mark.parametrize(("options", "told", "code"), OPTIONS, ids=[options for options, *_ in OPTIONS])
def test_an_option_of_pytest_leaves_runs_and_claims_as_they_are(own, pytester, options, told, code):
    result = own(*options.split())
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == code and "INTERNALERROR" not in output and "Traceback" not in output
    if told:
        assert outcomes(result) == told
        assert len(runs(pytester)) == min(6, told["passed"])
    else:
        assert not (pytester.path / "results").exists()


def test_a_claim_about_a_figure_that_stored_runs_lack_is_no_pass(own, edit):
    own("-k", "test_row")
    edit('metric="accuracy"', 'metric="kappa"')
    edit("rows={name", "metrics={'kappa': max}, rows={name")
    result = own("--reuse", "-k", "test_claim and right")
    assert outcomes(result) == {"failed": 1}
    assert "runs of a have no kappa, but accuracy. Fix: correct the claim" in result.stdout.str()


def test_without_pytest_benchmark_runs_are_trained_all_the_same(own, pytester):
    result = pytester.runpytest_inprocess("--seeds", "1", "-k", "test_row")
    assert outcomes(result) == {"passed": 3} and runs(pytester) == {(row, 0) for row in "abc"}


def test_pytest_benchmarks_own_files_hold_plain_parameters(own, pytester):
    args = ("-p", "benchmark", "--seeds", "2", "-k", "test_row", "--benchmark-json", "b.json")
    result = pytester.runpytest_inprocess(*args, "--benchmark-group-by", "param:row")
    assert result.ret == GREEN and "benchmark 'row=a': 2 tests" in result.stdout.str()
    made = json.loads((pytester.path / "b.json").read_text())["benchmarks"]
    assert {(b["params"]["row"], b["params"]["seed"], b["param"]) for b in made} == {
        (row, seed, f"{row}-seed{seed}") for row in "abc" for seed in (0, 1)
    }
    assert "UNSERIALIZABLE" not in str(made)


def test_the_debugger_begins_where_a_claim_fails(own, pytester):
    debugger = (
        "import pdb\nclass Debugger(pdb.Pdb):\n    def interaction(self, *args, **_):\n        print('looked at')\n"
    )
    pytester.makepyfile(debugger=debugger)
    result = own("--pdb", "--pdbcls", "debugger:Debugger", "-k", "test_row or wrong")
    assert outcomes(result) == {"passed": 6, "failed": 1} and result.stdout.str().count("looked at") == 1


METHODS = """
from cvhw4 import FromOptions

def make(config):
    return Study("methods", data=Generated("portraits"), rows={"a": Row("resnet18", start="random")})

class TestMethods:
    @pytest.mark.study(FromOptions(make))
    def test_method(self, train, row, seed):
        train(row, seed)

unused = Study("unused", data=Generated("portraits"), rows={"a": Row("resnet18", start="random")})
"""


@pytest.mark.integration
def test_another_parameter_beside_row_and_seed_and_other_studies(own, edit, pytester):
    more = "@pytest.mark.parametrize('x', [1, 2])\ndef test_row(train, row, seed, x)"
    edit("def test_row(train, row, seed)", more)
    edit("def test_claim", f"{METHODS}\ndef test_claim")
    assert outcomes(own()) == {"passed": 16, "failed": 1}
    add_to_conftest("def pytest_cvhw4_tables(study): print(study.name, file=open('told', 'a'))\n")
    screen = own("-p", "xdist", "-n", "1", "--reuse", subprocess=True).stdout.str()
    assert "1 failed, 16 passed" in screen and "[8/8, " in screen  # each line of progress knows its run
    assert "ablation study methods" in screen and "no tables" not in screen
    assert (pytester.path / "told").read_text().split() == ["s", "methods"]  # once, by the controller
    assert (pytester.path / "results" / "methods" / "report.html").exists()


@pytest.fixture
def with_plugins(own, pytester):
    """`with_plugins(modules, *args)`: what became of the tests, by name, where those plugins alone are loaded beside
    pytest-benchmark."""

    def run(modules, *args):
        for module in modules:
            pytest.importorskip(module, reason=f"{module.partition('.')[0].replace('_', '-')} is not installed")
        chosen = [word for module in modules for word in ("-p", module)]
        result = own(*chosen, "--junit-xml", "j.xml", *args)
        assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
        cases = ET.parse(pytester.path / "j.xml").getroot().iter("testcase")
        bad = ("failure", "error", "skipped")
        return [(c.get("name"), next((k for k in bad if c.find(k) is not None), "passed")) for c in cases]

    return run


ROWS_OF_ABC = [f"test_row[{row}-seed{seed}]" for row in "abc" for seed in (0, 1)]
ALL = sorted(
    [(name, "passed") for name in [*ROWS_OF_ABC, "test_other", "test_claim[right]"]]
    + [("test_claim[wrong]", "failure")]
)
PLUGINS = {
    "randomly": (["pytest_randomly"], ["--randomly-seed=3"]),
    "rerunfailures": (["pytest_rerunfailures"], ["--reruns", "1"]),
    "retry": (["pytest_retry.retry_plugin"], ["--retries", "1"]),
    "flaky": (["flaky.flaky_pytest_plugin"], ["--force-flaky", "--max-runs", "2"]),
    "sugar": (["pytest_sugar"], ["--force-sugar"]),
    "instafail": (["pytest_instafail"], ["--instafail"]),
    "html": (["pytest_metadata.plugin", "pytest_html.plugin"], ["--html", "r.html", "--self-contained-html"]),
    "timeout": (["pytest_timeout"], ["--timeout", "60"]),
    "order": (["pytest_order.plugin"], []),
    "reportlog": (["pytest_reportlog.plugin"], ["--report-log", "log.json"]),
    "cov": (["pytest_cov.plugin"], ["--cov", "test_study"]),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_leaves_runs_and_claims_as_they_are(with_plugins, edit, pytester, name):
    if name == "order":
        edit("def test_claim", "@pytest.mark.order(1)\ndef test_claim")
    modules, args = PLUGINS[name]
    told = with_plugins(modules, *args)
    if name in ("rerunfailures", "retry", "flaky"):  # each try of a test is in the file, and the last one counts
        told = list(dict(told).items())
    assert sorted(told) == ALL and len(runs(pytester)) == 6
    assert {name for name, _ in told[-2:]} <= {"test_claim[right]", "test_claim[wrong]"}  # whatever sorts them
    if name == "html":
        assert all(test in (pytester.path / "r.html").read_text() for test in ROWS_OF_ABC)


@pytest.mark.parametrize("name", ["rerunfailures", "retry", "flaky"])
def test_a_test_that_trains_and_fails_can_be_tried_again(with_plugins, edit, pytester, name):
    trained = "    assert train(row, seed).row == row.name\n"
    tried = "    from pathlib import Path\n    tried = Path(f'{row.name}-{seed}')\n"
    edit(trained, f"{trained}{tried}    assert tried.exists() or tried.touch()\n")
    modules, args = PLUGINS[name]
    told = dict(with_plugins(modules, *args, "-k", "test_row"))
    assert told == dict.fromkeys(ROWS_OF_ABC, "passed") and len(runs(pytester)) == 6


def test_repeated_tests_are_runs_of_their_rows(with_plugins, pytester):
    told = with_plugins(["pytest_repeat"], "--count", "2")
    assert len(told) == 2 * len(ALL) and len(runs(pytester)) == 6
    assert {n.rpartition("-1-2")[0] for n, what in told if what != "passed"} == {"test_claim[wrong", ""}


def test_a_claim_about_other_pictures_is_skipped_and_names_both_kinds(own, edit):
    """A mistyped class must not pass for a verdict."""
    edit('id="right",', 'id="right", classes=("make_up", "none"),')
    edit('== "supported"', '!= "contradicted"')
    result = own("-rs")
    assert outcomes(result)["skipped"] == 1
    result.stdout.fnmatch_lines(["*not judged: the claim is about pictures of make_up, none, and * has *, *"])


def test_the_groups_of_pytest_split_are_judged_over_what_is_stored(with_plugins, pytester):
    split = (["pytest_split.plugin"], "--splits", "2", "--group")
    assert sorted(with_plugins(*split, "1") + with_plugins(*split, "2")) == ALL and len(runs(pytester)) == 6
    alone = with_plugins(*split, "2", "--results", "elsewhere")
    assert ("test_claim[right]", "failure") in alone  # as nobody judged it


def test_parts_go_by_the_run_however_the_tests_are_shuffled(own, pytester, monkeypatch):
    """As pytest-randomly shuffles them, which is on by itself where it is installed."""
    add_to_conftest("""
def pytest_collection_modifyitems(items):
    import os, random
    random.Random(os.environ["SHUFFLED"]).shuffle(items)
""")
    for part, seed in (("1/2", "1"), ("2/2", "8")):
        monkeypatch.setenv("SHUFFLED", seed)
        result = own("--part", part, "--results", part[0])
        assert outcomes(result) == {"passed": 3}
        assert "its tables are written by a session with --reuse" in result.stdout.str()
    first, second = runs(pytester, "1"), runs(pytester, "2")
    assert len(first | second) == 6 and not first & second


def test_a_run_that_takes_too_long_is_one_failure_and_the_others_go_on(with_plugins, pytester):
    add_to_conftest("""
class Slow(Instant):
    def run(self, row, seed, *args):
        import time
        if (row.name, seed) == ("b", 0):
            time.sleep(60)
        return super().run(row, seed, *args)

Instant = Slow
""")
    told = with_plugins(["pytest_timeout"], "--timeout", "1.5", "--timeout-method", "signal", "-k", "test_row")
    assert [name for name, what in told if what != "passed"] == ["test_row[b-seed0]"]
    assert len(runs(pytester)) == 5


# What belongs to a study is checked when one is run


def test_a_unit_test_needs_no_results_folder(own, pytester):
    """Nor is a study's checked that `-k` leaves out."""
    result = own("test_extra.py", "--results", "conftest.py")
    assert outcomes(result) == {"passed": 1} and result.ret == GREEN
    assert outcomes(own("-k", "other", "--results", "conftest.py")) == {"passed": 1}
    refused = own("--results", "conftest.py")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR and "conftest.py: is not a folder" in refused.stderr.str()


# Options: paths, names that are taken, homes, quotas


@pytest.mark.parametrize("given", ["--results", "--cvhw4-results"])
def test_a_folder_that_is_there_by_now_is_no_folder_of_tests(own, pytester, tmp_path_factory, given):
    """pytest would look for its root there, and would not find this conftest.py."""
    pytester.makeini("[pytest]\nmarkers = mine: of this file\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    args = ("-p", "cvhw4.early", "-k", "a-seed0")
    for _ in range(2):
        result = own(*args, "--strict-markers", given, str(elsewhere))
        assert outcomes(result) == {"passed": 1} and f"rootdir: {pytester.path}\n" in result.stdout.str()
    assert runs(pytester, elsewhere) == {("a", 0)}
    assert outcomes(own(*args, given, "results/../out")) == {"passed": 1}
    pytester.makeini("[pytest]\naddopts = -p cvhw4.early --bounds none.toml\n")
    (pytester.path / "none.toml").write_text("")
    assert outcomes(own("-k", "a-seed0")) == {"passed": 1}


def test_sessions_of_others_keep_their_options(pytester, tmp_path_factory):
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--results', nargs='+')")
    file = pytester.makepyfile("def test_it(pytestconfig): assert len(pytestconfig.getoption('results')) == 2")
    given = (f"--rootdir={pytester.path}", file.name, "--results", "new", str(tmp_path_factory.mktemp("elsewhere")))
    assert outcomes(pytester.runpytest_inprocess("-p", "cvhw4-paths", *given)) == {"passed": 1}


def test_a_name_that_is_taken_is_left_to_whoever_had_it(own, pytester):
    """By the user's own conftest.py, or another plugin: ours has a longer one."""
    add_to_conftest("def pytest_addoption(parser):\n    for name in ('--device', '--seeds'): parser.addoption(name)\n")
    pytester.makepyfile(test_extra="def test_other(pytestconfig): assert pytestconfig.getoption('device') == 'mine'")
    result = own("--device", "mine", "--cvhw4-device", "cpu", "--cvhw4-seeds", "1")
    assert outcomes(result) == {"passed": 4, "failed": 2} and len(runs(pytester)) == 3  # one seed decides nothing
    assert "cvhw4: --device is another plugin's here, cvhw4's own is --cvhw4-device\n" in result.stdout.str()
    assert own("--cvhw4-device", "tpu").ret == pytest.ExitCode.USAGE_ERROR


def test_the_home_folder_is_known_in_every_option(own, pytester, monkeypatch):
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    assert outcomes(own("-k", "a-seed0", "--results=~/x", "--tensorboard=~/board")) == {"passed": 1}
    assert runs(pytester, "home/x") == {("a", 0)} and (pytester.path / "home" / "board").is_dir()
    assert not (pytester.path / "~").exists()


def test_paths_are_relative_to_where_the_session_began_though_tests_go_elsewhere(own, pytester):
    add_to_conftest("""
import pytest

@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
""")
    (pytester.path / "none.toml").touch()
    assert outcomes(own("--results", "out", "--bounds", "none.toml", "--tensorboard", "board")) == WHOLE
    assert len(runs(pytester, "out")) == 6 and (pytester.path / "board").is_dir()


@pytest.mark.parametrize(("value", "told"), [("true", True), ("1", True), ("false", False), ("0", False), ("", False)])
def test_ci_is_what_it_says(monkeypatch, value, told):
    monkeypatch.setenv("CI", value)
    assert is_ci() is told


GROUP, QUOTA = "proc/self/cgroup", "sys/fs/cgroup/cpu.max"
OLD = "sys/fs/cgroup/cpu/cpu.cfs_"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({GROUP: "0::/\n", QUOTA: "250000 100000\n"}, 3),
        ({GROUP: "0::/\n", QUOTA: "max 100000\n"}, None),
        ({GROUP: "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),
        ({GROUP: "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n", QUOTA: "200000 100000\n"}, 2),
        ({GROUP: "4:cpu,cpuacct:/d/1\n3:memory:/\n", f"{OLD}quota_us": "400000\n", f"{OLD}period_us": "100000\n"}, 4),
        ({GROUP: "4:cpu:/\n", f"{OLD}quota_us": "-1\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cores_is_known_and_divided(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(options, "cpu_quota", lambda: cores)
    assert [divided_threads(n) for n in (0, 2, 100)] == [cores, max(1, (cores or 64) // 2), 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert divided_threads(2) is None


# Warnings that are errors


@pytest.mark.parametrize("reuse", [[], ["--reuse"]])
def test_nothing_trained_is_lost_for_a_warning(own, pytester, reuse):
    """A damaged file in the place of a run's record is set aside, or not reused, with a warning."""
    assert own("-k", "b-seed").ret == GREEN
    damaged = next((pytester.path / "results" / "s" / "runs" / "b").glob("seed0*.json"))
    damaged.write_text("{")
    result = own("-k", "b-seed", "-W", "error", *reuse)
    assert outcomes(result) == {"passed": 1, "failed": 1}
    assert "is not JSON" in result.stdout.str() and "the run is finished and stored" in result.stdout.str()
    assert "Traceback" not in result.stdout.str() and runs(pytester) == {("b", 0), ("b", 1)}
    assert own("-k", "b-seed", "-W", "error", "--reuse").ret == GREEN
