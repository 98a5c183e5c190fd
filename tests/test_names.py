"""Names say what is public: what `cvhw4` exports, and what modules share; the rest begins with an underscore."""

import ast
import re
from pathlib import Path

import pytest

import cvhw4

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p for p in (ROOT / "cvhw4").rglob("*.py") if p.parent.name != "cvhw4" or not p.stem.startswith("__"))
FOLDERS = ("cvhw4", "benchmarks", "tests", "examples", ".github")
WORDS = {
    path: set(re.findall(r"\w+", path.read_text("utf-8")))
    for path in (ROOT / "conftest.py", *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")))
}


def definitions(tree):
    """By name the statement at the top level that makes it; names made together, as in `A, B = 1, 2`, in one group."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield {node.name}, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield {x.id for t in targets for x in ast.walk(t) if isinstance(x, ast.Name)}, node


def spoken_of(node):
    """The names in a function's signature, in a class's bases, fields and signatures, or in an alias of types."""
    if isinstance(node, ast.FunctionDef):
        parts = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)] + [node.returns]
    elif isinstance(node, ast.ClassDef):
        shown = [n for n in node.body if not getattr(n, "name", "").startswith("_") or n.name == "__init__"]
        inner = [n for n in shown if isinstance(n, ast.FunctionDef | ast.AnnAssign)]
        return {b.id for b in node.bases if isinstance(b, ast.Name)} | {name for n in inner for name in spoken_of(n)}
    elif isinstance(node, ast.AnnAssign):
        parts = [node.annotation]
    else:
        parts = [node.value] if all(isinstance(t, ast.Name) and not t.id.isupper() for t in node.targets) else []
    return {x.id for part in parts if part is not None for x in ast.walk(part) if isinstance(x, ast.Name)}


def unneeded(path, words):
    """Public names of a module that no other file says, and no signature of what other files use."""
    made = list(definitions(ast.parse(path.read_text("utf-8"))))
    others = set().union(*(of_file for file, of_file in words.items() if file != path))
    commands = {n for names, node in made if path.stem == "cli" and getattr(node, "decorator_list", []) for n in names}
    known = commands | {n for names, _ in made for n in names if n.startswith("pytest_") or n in others}
    while True:
        reached = {name for names, node in made if names & known for name in names | spoken_of(node)}
        if reached <= known:
            return sorted({n for names, _ in made for n in names if not n.startswith("_")} - known)
        known |= reached


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix())
def test_what_only_its_own_module_uses_is_private_by_name(path):
    assert unneeded(path, WORDS) == []


def test_a_name_that_nobody_needs_is_noticed(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "A, B = 1, 2\nC: int = 3\nKind = int\n\nclass D: ...\nclass E: ...\ndef f(x: D) -> Kind: ...\ndef g(): ...\n"
    )
    assert unneeded(module, {module: set(), tmp_path / "other.py": {"A", "f"}}) == ["C", "E", "g"]


@pytest.mark.parametrize("name", cvhw4.__all__)
def test_what_is_exported_is_there_and_documented(name):
    found = getattr(cvhw4, name)
    assert not isinstance(found, type) or (found.__doc__ and not found.__doc__.startswith(f"{name}("))
