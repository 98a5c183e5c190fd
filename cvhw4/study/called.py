"""What the user's own functions and classes call, by the text of their files: the same in every process and folder."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from textwrap import dedent
from types import CodeType, ModuleType

_OTHERS = (*map(Path, {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}), Path(__file__).parents[1])
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Module = tuple[str, int]  # its name, and the dots before it


@dataclass(frozen=True)
class _Names:
    """Words that a text names, attributes among them, and modules that it imports."""

    words: frozenset[str]
    modules: frozenset[Module] = frozenset()


@dataclass
class _Statement:
    """A statement at the top level of a file."""

    node: ast.stmt

    @cached_property
    def text(self) -> str:
        return ast.unparse(self.node)

    @cached_property
    def names(self) -> _Names:
        return _names(self.node)


@dataclass
class _File:
    """What the top level of a file of the user's defines.

    Attributes:
        package: that its relative imports are in.
        statements: those that give a name its value, by that name.
        imported: the module, and the name in it ("" is the module itself), by the name here.
        everything: modules of which it imports all names.
    """

    package: str
    statements: dict[str, list[_Statement]] = field(default_factory=dict)
    imported: dict[str, tuple[Module, str]] = field(default_factory=dict)
    everything: list[Module] = field(default_factory=list)


def called_by(function: Callable[..., object]) -> str:
    """The texts of all that a function or a class of the user's names, and of what that names in turn: functions,
    classes and variables at the top level of its file and of the user's modules that it imports, nothing installed. In
    alphabetical order; "" where there is none, or no file.

    It cannot see what is named by a text (`getattr(module, "f")`), nor what a variable holds beside what the file says.
    """
    plain = inspect.unwrap(function)
    module = sys.modules.get(getattr(plain, "__module__", None) or "")
    where = _place_of(module) if module is not None else None
    if where is None:
        return ""
    found = _Found()
    found.follow(_names_of(plain), *where)
    return "\n".join(sorted({statement.text for statement in found.statements.values()}))


class _Found:
    """The statements that are found, and what was looked for already."""

    def __init__(self) -> None:
        self.statements: dict[int, _Statement] = {}
        self._known: set[tuple[Path, _Names]] = set()

    def follow(self, names: _Names, path: Path, package: str) -> None:
        """Adds what defines these names, which stand in a file, and what that names."""
        if (path, names) in self._known or (file := _read(path, package)) is None:
            return
        self._known.add((path, names))
        for module in (*names.modules, *file.everything):
            self._follow_in(module, file, names.words, names.words)
        for word in names.words:
            for statement in file.statements.get(word, ()):
                if id(statement) not in self.statements:
                    self.statements[id(statement)] = statement
                    self.follow(statement.names, path, package)
            if word in file.imported:
                module, name = file.imported[word]
                self._follow_in(module, file, {name} if name else names.words, names.words)

    def _follow_in(self, module: Module, file: _File, words: Iterable[str], beyond: frozenset[str]) -> None:
        """The same in a module that a file imports, and where words are modules in it, in these."""
        with suppress(ImportError):  # relative, and beyond the package
            name = importlib.util.resolve_name("." * module[1] + module[0], file.package)
            for each, of in ((name, frozenset(words)), *((f"{name}.{word}", beyond) for word in words)):
                if (where := _place(each)) is not None:
                    self.follow(_Names(of), *where)


def _names_of(plain: Callable[..., object]) -> _Names:
    """What a function or a class names."""
    try:
        return _names(ast.parse(dedent(inspect.getsource(plain))))
    except (OSError, TypeError, SyntaxError):  # the last of a lambda, whose text is the whole line
        code = getattr(plain, "__code__", None)
        return _Names(frozenset(_words(code) if code is not None else ()))


def _words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)


def _names(tree: ast.AST) -> _Names:
    words: set[str] = set()
    modules: set[Module] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word):
                words.add(word)
            case ast.Import():
                modules |= {(alias.name, 0) for alias in node.names}
            case ast.ImportFrom():
                words |= {alias.name for alias in node.names}
                modules.add((node.module or "", node.level))
    return _Names(frozenset(words), frozenset(modules))


def _place(name: str) -> tuple[Path, str] | None:
    """The file of a module, if it is the user's, and the package of its relative imports. Nothing is imported."""
    if name in sys.modules:
        return _place_of(sys.modules[name])
    spec = PathFinder.find_spec(name.partition(".")[0])
    for end in [match.start() for match in re.finditer(r"\.|$", name)][1:]:
        if spec is None or spec.submodule_search_locations is None:
            return None
        try:
            spec = PathFinder.find_spec(name[:end], [*spec.submodule_search_locations])
        except (AttributeError, KeyError):  # folders of a namespace package within one that is not imported
            return None
    if spec is None or spec.origin is None or not _is_users(Path(spec.origin)):
        return None
    return Path(spec.origin), spec.parent or ""


def _place_of(module: ModuleType) -> tuple[Path, str] | None:
    file = getattr(module, "__file__", None)
    return (Path(file), module.__package__ or "") if file and _is_users(Path(file)) else None


@lru_cache(maxsize=1024)
def _is_users(file: Path) -> bool:
    installed = {"site-packages", "dist-packages"} & {*file.parts}
    return file.suffix == ".py" and not installed and not any(file.is_relative_to(folder) for folder in _OTHERS)


def _read(path: Path, package: str) -> _File | None:
    try:
        return _parsed(path, package, path.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError):
        return None


@lru_cache(maxsize=256)
def _parsed(path: Path, package: str, _changed: int) -> _File:
    found = _File(package)
    for node in ast.parse(path.read_bytes()).body:
        statement = _Statement(node)
        for inner in [node] if isinstance(node, _DEFINITIONS) else ast.walk(node):
            match inner:
                case ast.Import():
                    for alias in inner.names:
                        name = alias.name if alias.asname else alias.name.partition(".")[0]
                        found.imported[alias.asname or name] = (name, 0), ""
                case ast.ImportFrom():
                    module = inner.module or "", inner.level
                    for alias in inner.names:
                        if alias.name == "*":
                            found.everything.append(module)
                        else:
                            found.imported[alias.asname or alias.name] = module, alias.name
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.statements.setdefault(name, []).append(statement)
                case ast.Name(id=name, ctx=ast.Store()):
                    found.statements.setdefault(name, []).append(statement)
    return found
