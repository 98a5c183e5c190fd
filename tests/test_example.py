"""The example as a user has it: cvhw4 installed from its wheel, and the commands of its README in their order. The
tutorial, which adds a row to it, is followed in tests/test_docs.py."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cvhw4.records.store import Store
from tests.helpers import ROOT

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "examples" / "own-study"
EXTRAS = ("mlflow", "ray", "wandb")  # of the same names as what they bring is imported by


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made from the source distribution as pip makes it, with the version that a git tag gives both."""
    folder, env = tmp_path_factory.mktemp("wheel"), os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": "1.2.3"}
    sdist = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    subprocess.run(sdist, cwd=ROOT, env=env, check=True, capture_output=True)
    (source,) = folder.glob("cvhw4-1.2.3.tar.gz")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    made = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(folder), str(source)]
    subprocess.run(made, check=True, capture_output=True)
    (path,) = folder.glob("cvhw4-1.2.3-py3-none-any.whl")
    return path


class User:
    """A copy of the example, and an environment where pip has installed the wheel; what cvhw4 depends on is that of the
    environment that tests run in."""

    def __init__(self, place, venv, wheel):
        self.place, self.bin = place, venv / "bin"
        ignored = shutil.ignore_patterns("photos", "results", "before", "__pycache__")
        shutil.copytree(EXAMPLE, place, dirs_exist_ok=True, ignore=ignored)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CVHW4_", "PYTEST_", "PYTHONPATH", "CI"))}
        self.env = inherited | {"CVHW4_CACHE": str(place.parent / "cache")}
        self.do(sys.executable, "-m", "venv", str(venv))
        self.do(self.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
        (site,) = venv.glob("lib/python*/site-packages")
        packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "dependencies.pth").write_text("\n".join(packages))  # after pip, which finds a cvhw4 there as well

    @property
    def python(self):
        return str(self.bin / "python")

    def do(self, *words):
        """What a command that succeeds prints."""
        done = subprocess.run(words, cwd=self.place, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, block):
        """What the commands of a block print; two seeds stand for three."""
        printed = []
        for line in block.splitlines():
            match [word.replace("3", "2") for word in shlex.split(line, comments=True)]:
                case ["pip", *_]:
                    pass
                case ["python", *arguments]:
                    printed.append(self.do(self.python, *arguments))
                case ["pytest", *arguments]:
                    printed.append(self.do(self.python, "-m", "pytest", *arguments))
                case other:
                    pytest.fail(f"nothing here runs {other}")
        return printed


@pytest.fixture(scope="module")
def user(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "own").mkdir()
    return User(folder / "own", folder / "venv", wheel)


@pytest.fixture(scope="module")
def screen(user):
    """The terminal of the session."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return user.follow(block)[-1]


def test_the_wheel_has_the_package_its_types_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"cvhw4/py.typed", "cvhw4/study/study.py", "cvhw4/plugin/__init__.py"} <= set(names)
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {"cvhw4"}


def imported(path):
    """The packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            for name in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
                yield "tensorboard" if name == "torch.utils.tensorboard" else name.partition(".")[0]


def test_every_package_that_is_imported_is_required(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    required = {None: set()} | {extra: set() for extra in EXTRAS}
    for requirement in map(Requirement, lines):
        extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
        required.setdefault(extra and extra[1], set()).add(canonicalize_name(requirement.name))
    distributions, modules = packages_distributions(), {"cvhw4", *sys.stdlib_module_names}
    used = {module: path for path in (ROOT / "cvhw4").rglob("*.py") for module in imported(path)}
    assert {"torch", "tensorboard", "huggingface_hub", *EXTRAS} <= set(used)
    for module in set(used) - modules:
        names = {canonicalize_name(name) for name in distributions.get(module, [module])}
        assert names & required[module if module in EXTRAS else None], f"{used[module]} imports {module}"


def test_the_example_passes_and_its_pages_have_its_metric_and_claim(user, screen):
    place = user.place
    assert user.do(user.python, "-c", "import cvhw4; print(cvhw4.__file__)").startswith(str(user.bin.parent))
    assert re.search(r"=+ 5 passed", screen)
    assert "ablation study insects" in screen
    assert re.search(r"finetune +balanced +\d\.\d+±\d\.\d+ ", screen)
    assert re.search(r"finetune_above_scratch-balanced +\+0\.\d+ .* supported", screen)

    results = place / "results"
    report = (results / "insects" / "report.md").read_text()
    assert re.search(r"a pretrained start helps \(`[\w-]+`\) *\| \+0\.\d+ .*supported.*\| balanced *\|", report)
    assert "### balanced" in report
    assert "a pretrained start helps" in (results / "insects" / "verdicts.md").read_text()
    runs = Store(results, "insects").load()
    assert sorted((r.row, r.seed) for r in runs) == [(row, s) for row in ("finetune", "scratch") for s in (0, 1)]
    for run in runs:
        assert run.data.classes == ["ant", "beetle", "butterfly"] and 0 <= run.best("balanced") <= 1
        assert Store(results, "insects").images(run).predicted.shape == (len(run.epochs), 60)


def test_the_examples_types_are_those_of_the_package(user):
    place, env = user.place, user.env | {"MYPYPATH": ""}
    settings = ("--strict", "--ignore-missing-imports", "--cache-dir", str(place.parent / "mypy"))
    command = [sys.executable, "-m", "mypy", "--python-executable", user.python, *settings, "test_insects.py"]
    told = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    assert told.returncode == 0 and "Success: no issues found" in told.stdout, told.stdout + told.stderr
    (place / "wrong.py").write_text("from cvhw4 import Row\n\nreveal_type(Row('resnet18', start='nothing'))\n")
    told = subprocess.run([*command[:-1], "wrong.py"], cwd=place, env=env, capture_output=True, text=True)
    assert 'Revealed type is "cvhw4.study.rows.Row"' in told.stdout and "[arg-type]" in told.stdout
