"""The documentation: it builds without a broken link, what it quotes is in the code, and its commands run."""

import ast
import inspect
import os
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import timm
import typer
from packaging.version import Version

import cvhw4
from cvhw4 import cli
from cvhw4.discovery import find_study
from cvhw4.homework import rows as homework_rows
from cvhw4.models.trial import try_network
from cvhw4.plugin import hookspec
from cvhw4.plugin.summary import Summary
from cvhw4.runner import Runner
from cvhw4.training import precision
from tests.helpers import ROOT, tiny
from tests.helpers.records import git
from tests.helpers.tiny import QUICK, dataset, record

pytest_plugins = ["tests.helpers.sessions"]
EXAMPLE = ROOT / "examples" / "own-study"
NOT_COPIED = shutil.ignore_patterns("__pycache__", "photos", "results", "before")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")])
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Commands that cannot run here, or take an hour, and the test that runs what they do.
ELSEWHERE = {
    "pip install PATH/TO/CLONE scikit-learn": "tests/test_example.py",
    "python make_photos.py": "tests/test_example.py",
    "python make_cells.py": "tests/test_own_study.py",
    "pytest --seeds 3": "tests/test_example.py",
    "pytest --seeds 20": "tests/test_own_ci.py",
    "cvhw4 calibrate --study test_insects.py": "tests/test_own_ci.py",
    "git add test_insects.py": "tests/test_own_ci.py",
    "cvhw4 --install-completion": "tests/test_cli.py",
    "make env": "is what installs the environment that this test runs in",
    ". .venv/bin/activate": "is that environment's own",
    "make test": "is what runs this test",
    "make long": "tests/test_resume.py and tests/test_crowd.py run the same in small numbers",
    "make speed": "tests/test_speed.py runs what it measures, at small size",
    "git clone -b": "tests/test_peers.py runs what it gets, where that is there",
    "make peers": "tests/test_peers.py",
    "make gpu": "tests/test_make.py",
    "make gpu-check": "tests/test_make.py",
    "make gpu-speed": "tests/test_make.py",
    "make gpu-full": "tests/test_make.py",
    "make growth": "tests/test_growth.py",
    "make docs": "test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere",
    "cvhw4 history": "tests/test_judged_nights.py",
    "cvhw4 judge": "tests/test_judge.py",
    "cvhw4 table --study judged": "tests/test_judge.py",
    "cvhw4 figure": "tests/test_papers.py",
    "cvhw4 bisect": "tests/test_judged_nights.py",
    "cvhw4 fetch camvid": "tests/test_fetch.py",
    "cvhw4 fetch portraits": "tests/test_fetch.py",
    "pytest benchmarks --executor ray": "tests/test_cluster.py",
    "pytest benchmarks -n": "tests/test_sessions.py",
    "pytest benchmarks -k q1_2 --seeds 1 --mlflow": "tests/test_trackers.py",
    "WANDB_MODE=offline pytest": "tests/test_trackers.py",
}


def blocks(name, language):
    """A page's blocks in a language."""
    return [block for found, block in BLOCK.findall((ROOT / name).read_text()) if found == language]


def commands(block):
    """The commands of a shell block, joined where a line is continued, without comments."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@pytest.mark.integration
def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    built = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    home, interface = (tmp_path / "build" / "docs" / name / "index.html" for name in ("", "api"))
    assert "Your first ablation in 10 minutes" in home.read_text()
    assert "FromOptions" in interface.read_text()
    for page in (tmp_path / "build" / "docs").rglob("*.html"):
        assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?:", page.read_text()), page
    (tmp_path / "docs" / "index.md").open("a").write("[gone](nowhere.md) [lost](verdicts.md#nothing)")
    broken = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert broken.returncode != 0
    told = broken.stdout + broken.stderr
    assert "page does not exist" in told and "anchor does not exist" in told


def test_no_page_has_a_place_that_nobody_filled_or_a_link_that_leads_nowhere():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```|`[^`]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        filled = re.sub(r"\[CONTRIBUTING.md\]\S*", "", prose)
        assert not re.search(r"\b(?:[A-Z]{9,}|TODO|FIXME|TBD)\b", filled), page.name
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links {target}"


def public_names():
    """Where everything public is: what is exported, fixtures and hooks of the plugin, and what belongs to them."""
    plugin = ast.parse((ROOT / "cvhw4" / "plugin" / "__init__.py").read_text()).body
    made = [node for node in plugin if isinstance(node, ast.FunctionDef) and node.decorator_list]
    fixtures = [node.name for node in made if "fixture" in ast.unparse(node.decorator_list[0])]
    hooks = [name for name in vars(hookspec) if name.startswith("pytest_cvhw4_")]
    record = ["schema.Epoch", "schema.DataUsed", "schema.WeightsUsed", "schema.Times", "schema.StoredImages"]
    return {
        *(f"cvhw4.{name}" for name in cvhw4.__all__),
        *(f"cvhw4.plugin.{name}" for name in fixtures),
        *(f"cvhw4.plugin.hookspec.{name}" for name in hooks),
        *(f"cvhw4.records.{name}" for name in (*record, "images.ImageResults")),
        *(f"cvhw4.readers.{name}" for name in ("LoggedRun", "Reader", "Wanted")),
        *("cvhw4.runner.Runner", "cvhw4.homework.study"),
    }


def test_the_python_interface_lists_everything_public_once():
    page = (ROOT / "docs" / "api.md").read_text()
    cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall("`(.+?)`", cell)]
    shown = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    module = "cvhw4.plugin.hookspec"  # is shown whole
    assert sorted(listed) == sorted(public_names())
    assert sorted(shown) == sorted([module, *(name for name in listed if not name.startswith(f"{module}."))])


VALUES = {"cvhw4.CAMVID", "cvhw4.Train", "cvhw4.Judged", "cvhw4.Detected", "cvhw4.Section", "cvhw4.readers.Reader"}


def test_what_is_public_is_documented_field_by_field():
    assert pydoc.locate("cvhw4.Ablation") is None
    for name in sorted(public_names()):
        found = pydoc.locate(name)
        assert found is not None, name
        if name in VALUES:
            continue
        text = inspect.getdoc(found)
        assert text, name
        if is_dataclass(found):
            named = [field.name for field in fields(found) if not field.name.startswith("_")]
        else:
            named = getattr(found, "_fields", ())
        attributes = text.partition("Attributes:\n")[2].partition("\n\n")[0]
        assert sorted(re.findall(r"^    (\w+): ", attributes, re.MULTILINE)) == sorted(named), name


def prose_and_commands(text):
    """A page without blocks that show other programs' files and output."""
    for number, part in enumerate(re.split(r"^```", text, flags=re.MULTILINE)):
        if number % 2 == 0 or part.startswith("sh\n"):
            yield part


def said():
    """All text that the code can say, pieces that are filled in as their source: "holds {len(classes)} class ..."."""
    for path in [*(ROOT / "cvhw4").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
                    for part in node.values
                )


TROUBLES = ROOT / "docs" / "troubleshooting.md"
PYTESTS = {
    "fixture 'train' not found",
    "option dest 'profile' already used by",
    "unrecognized arguments",
    "Defining 'pytest_plugins' in a non-top-level conftest",
}


def test_the_messages_that_are_explained_exist():
    quoted = re.findall(r"^### `(.*)`$", TROUBLES.read_text(), re.MULTILINE)
    texts = "\n".join(said())
    assert len(quoted) > 10
    assert {message for message in quoted if message not in texts} == PYTESTS


@pytest.mark.integration
def test_another_plugins_option_of_our_name_is_fixed_as_the_page_says(tmp_path):
    """In an environment with a plugin of the name, and with the option, of pytest-profiling."""
    information = tmp_path / "others-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[pytest11]\nprofiling = other_profile\n")
    plugin = "def pytest_addoption(parser):\n    parser.getgroup('other').addoption('--profile')\n"
    (tmp_path / "other_profile.py").write_text(plugin)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["cvhw4.plugin", "cvhw4.homework.options"]\n')
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def session(*arguments):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    page = " ".join(TROUBLES.read_text().split())
    code, printed = session()
    told = ("option dest 'profile' already used by", "conflicting option string: --profile")  # new pytest, old
    assert code != 0 and any(message in printed for message in told), printed
    assert "pytest-profiling " in page and "`pytest -p no:profiling`" in page
    code, printed = session("-p", "no:profiling")
    assert code == 0 and "1 passed" in printed
    below = tmp_path / "below"
    below.mkdir()
    for name in ("conftest.py", "test_one.py"):
        (tmp_path / name).rename(below / name)
    code, printed = session("-p", "no:profiling")
    assert code != 0 and "Defining 'pytest_plugins' in a non-top-level conftest" in printed


def test_the_rows_and_the_studies_that_are_shown_are_right():
    conftest, _, _, design, line = blocks("docs/rows.md", "python")
    assert conftest == (EXAMPLE / "conftest.py").read_text() and conftest.strip() in (ROOT / "README.md").read_text()
    insects = (EXAMPLE / "test_insects.py").read_text()
    assert blocks("README.md", "python") == [insects] and blocks("docs/tutorial.md", "python")[0] in insects
    (scenes,) = blocks("docs/scenes.md", "python")
    assert scenes in (EXAMPLE.with_name("binary-masks") / "test_cells.py").read_text()
    made = {}
    exec(design, {name: getattr(cvhw4, name) for name in cvhw4.__all__}, made)
    assert [*made["rows"]] == ["full", "without_skips", "without_start", "without_norm"]
    ((_, row),) = eval("{" + line + "}", dict(vars(homework_rows))).items()
    like = QUICK.rows["q2_1a-skip"]  # but for its start
    assert row.settings.pop("start") == "random" != like.start and row.networks[1] == like.network
    assert all(like.setting(setting) == value for setting, value in row.settings.items())
    of_sizes = re.findall(r"fcn8s/(mobilenetv3\w+)", (ROOT / "docs" / "rows.md").read_text())
    assert len(of_sizes) == 2 and {*of_sizes} <= {*timm.list_models()}


def test_the_networks_of_ones_own_that_are_shown_can_be_trained(tmp_path):
    (shown,) = (block for block in blocks("docs/rows.md", "python") if "class Small" in block)
    file = tmp_path / "networks.py"
    file.write_text(shown)
    found = find_study(str(file))
    assert len(shown.splitlines()) <= 25 and len({str(row.settings()) for row in found.rows.values()}) == 3
    for row in found.rows.values():
        try_network(row, 21)


def help_of(command, name):
    """What `--help` of a command and of those below it prints, without blank lines, headings and `--help` itself."""
    context = command.context_class(command, info_name=name, terminal_width=120)
    lines = command.get_help(context).partition("\nCommands:")[0].splitlines()
    yield "\n".join(line for line in lines if line not in ("", "Arguments:", "Options:") and "--help " not in line)
    for below in getattr(command, "commands", {}).values():
        yield from help_of(below, f"{name} {below.name}")


@pytest.mark.skipif(Version(typer.__version__) < Version("0.29"), reason="older versions print types in another way")
def test_commands_are_shown_as_help_prints_them():
    _, shown = blocks("docs/options.md", "text")
    assert shown == "\n\n".join(help_of(typer.main.get_command(cli.app), "cvhw4")) + "\n"


def test_make_help_lists_every_target_in_order():
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE) for name in line.split()}
    printed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in printed.splitlines()] == sorted(targets - {"help"})


def test_options_are_shown_as_help_prints_them_and_those_that_are_named_exist(pytester):
    text = "\n".join(page.read_text() for page in PAGES)
    (pytester.path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    known = pytester.runpytest_inprocess("--help").stdout.str()
    for group in blocks("docs/options.md", "text")[0].split("\n\n"):
        assert "".join(group.split()) in "".join(known.split()), f"docs/options.md: {group[:80]}"
    code = [path for folder in ("cvhw4", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    for path in [*code, *ROOT.glob("Makefile"), *(ROOT / ".github").rglob("*")]:
        known += path.read_text() if path.is_file() and path.suffix != ".pyc" else ""
    commands = "\n".join(path.read_text() for path in (ROOT / "cvhw4" / "cli").glob("*.py"))
    typer_options = re.findall(r"(\w+): (?:Annotated|\w+Option|bool|str)\b", commands)
    known += " ".join("--" + name.replace("_", "-") for name in typer_options)
    others = {"--num-cpus", "--exclusive", "--generate", "--end-of-options"}  # of Ray, Slurm, git
    others |= {"--install-completion"}  # typer's
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", "".join(prose_and_commands(text))))
    named = {name.replace("--cvhw4-", "--") for name in named}  # the long names of our options
    assert named - set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", known)) <= others


def test_every_page_has_its_commands_in_blocks_that_are_run():
    """A block without a language could hide a command from these tests."""
    for page in PAGES:
        opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
        assert set(opened) <= {"sh", "text", "bash", "dockerfile", "python", "toml", "yaml"}, page.name
    for name in re.findall(r"tests/\w+\.py", " ".join(ELSEWHERE.values())):
        assert (ROOT / name).is_file()


@pytest.fixture
def checkout(study, pytester, monkeypatch):
    """A clone at tiny size, in which pages' commands are run; git knows its first state as `main`."""
    shutil.copytree(ROOT / "examples", pytester.path / "examples", ignore=NOT_COPIED)
    for name, copy in (("Makefile", "Makefile"), ("pyproject.toml", "kept.toml"), ("zensical.toml", "zensical.toml")):
        shutil.copy(ROOT / name, pytester.path / copy)
    (pytester.path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')  # study's
    study("--seeds", "2", "-k", "skip or q1_2", "-q")  # what a page's readers have stored by then
    monkeypatch.chdir(pytester.path)
    git("init"), git("add", "-A"), git("commit", "-m", "first"), git("commit", "-m", "second", "--allow-empty")
    monkeypatch.setenv("COLUMNS", "80")
    return pytester


def untrained(self, row, seed, on_epoch=None, on_wait=None):
    """A record as of a run."""
    level = 0.5 + 0.01 * (len(row.name) + seed * seed % 7)
    base = next(name for name in QUICK.rows if name.split("-")[0] == row.name.split("-")[0].removesuffix("x"))
    made = record(base, seed, figures=((0.4,), (level,)), loss=1 - level)
    data = replace(made.data, redrawn=True)
    return self.store.save(replace(made, row=row.name, study=row.study, settings=row.settings(), data=data))


class Reader:
    """Runs a command of the documentation in this process, pytest on the tiny profile."""

    def __init__(self, pytester, study, capsys):
        self.pytester, self.study, self.capsys, self.sessions = pytester, study, capsys, 0
        self.extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def __call__(self, words):
        line = " ".join(words)
        if any(line == known or line.startswith(known + " ") for known in ELSEWHERE):
            return
        while re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        words = [str(self.stand_in(word)) for word in words]
        match words:
            case ["pytest", "benchmarks", *arguments]:
                self.session(arguments)
            case ["cvhw4", *arguments]:
                self.command(arguments)
            case ["make", *arguments]:
                command = ["make", "-n", "-o", ".venv/.installed", *arguments]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                lines = [x for x in told.replace("\\\n", " ").splitlines() if " -m pytest " in x]
                assert lines, told
                for found in lines:
                    self.session(shlex.split(found.partition(" -m pytest benchmarks")[2]))
            case ["cp", "-r", results, copy]:
                shutil.copytree(results, copy)
            case ["pip", "install", requirement]:
                extra = re.fullmatch(r"(?:\.|cvhw4|PATH/TO/CLONE)(?:\[(\w+)\])?", requirement)
                assert extra and (extra[1] is None or extra[1] in self.extras), requirement
            case _:
                pytest.fail(f"nothing here runs {line!r}: add it to Reader, or to ELSEWHERE with its test")

    @staticmethod
    def stand_in(word):
        """A folder for what a reader has to put in."""
        if word in ("DIR", "local/CamVid", "local/portraits", "local/weights"):
            folder = Path(word)
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        return word

    def session(self, arguments):
        """Selection, options and claims are real; training and, but for the first session, pages have other tests."""
        arguments = [a for a in arguments if a not in ("--profile", "full", "full-lite0")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Runner, "run", untrained)
            patch.setattr(precision, "_has_bf16", lambda: True)  # whatever this processor has
            patch.setattr(tiny, "_read", lambda source, seed: dataset(source.task))  # its folders are empty here
            if self.sessions:
                patch.setattr(Summary, "_summarise", lambda *_: None)
            none = self.pytester.path / "none.toml"
            none.write_text("")
            result = self.study(*arguments, "--bounds", none)
        self.sessions += 1
        assert result.ret == 0, f"{arguments}: " + result.stdout.str()[-3000:]

    def command(self, arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cvhw4", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = self.capsys.readouterr()
        assert ended.value.code in (0, None), f"cvhw4 {' '.join(arguments)}: {printed.err}"
        assert printed.out.strip(), arguments


@pytest.mark.integration
def test_every_command_runs(checkout, study, capsys):
    reader = Reader(checkout, study, capsys)
    shown = [block for page in PAGES if page != TUTORIAL for block in blocks(page, "sh")]
    for words in dict.fromkeys(tuple(words) for block in shown for words in commands(block)):
        os.chdir(checkout.path)
        reader(list(words))


def put(code, file):
    """Puts code in the place of that paragraph of a file, from the line on with which the code begins."""
    first, text = code.splitlines(keepends=True)[0], file.read_text()
    assert text.count(first) == 1, first
    above, _, below = text.partition(first)
    _, gap, below = below.partition("\n\n")
    file.write_text(above + code.rstrip("\n") + (gap or "\n") + below)


def without_figures(text):
    return [re.sub(r"[+-]?\d[\d.]*", "0", " ".join(line.split())) for line in text.splitlines() if line.strip()]


@pytest.mark.integration
def test_the_tutorial_is_followed(tmp_path, monkeypatch):
    """Its commands train, its code is put into the study's file, and what it shows is printed, but for the figures."""
    shutil.copytree(EXAMPLE, tmp_path / "clone" / "examples" / EXAMPLE.name, ignore=NOT_COPIED)
    monkeypatch.chdir(tmp_path / "clone")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CVHW4_", "PYTEST_", "CI"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = inherited | {"CVHW4_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "PATH": path}
    printed = []
    for (language, block), (_, after) in pairwise([*BLOCK.findall(TUTORIAL.read_text()), ("", "")]):
        if language == "python":
            put(block, Path("test_insects.py"))
        elif language == "text":
            missing = [x for x in without_figures(block) if not any(line.startswith(x) for line in printed)]
            assert not missing, "\n".join(printed)
        else:
            printed = []
            for words in commands(block):
                if words[0] == "cd":
                    monkeypatch.chdir(words[1])
                elif words[0] not in ("make", "."):  # the environment is that of this test
                    done = subprocess.run(words, env=env, capture_output=True, text=True)
                    assert done.returncode == ("FAILED" in after), done.stdout + done.stderr
                    printed += without_figures(done.stdout)
