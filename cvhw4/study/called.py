"""What the user's own functions and classes call, by the text of their files: the same in every process and folder."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from textwrap import dedent
from types import CodeType

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
    lines: list[str]

    @cached_property
    def text(self) -> str:
        """Without comments; where it is nested too deeply for that, as it stands."""
        try:
            return ast.unparse(self.node)
        except RecursionError:
            return "\n".join(self.lines[self.node.lineno - 1 : self.node.end_lineno])

    @cached_property
    def names(self) -> _Names:
        return _names(self.node)


@dataclass
class _File:
    """What the top level of a file of the user's defines.

    Attributes:
        package: that its relative imports are in.
        statements: those that give a name its value, or change that, by the name.
        imported: by the name here, the modules and the names in them; "" is the module itself.
        everything: modules of which it imports all names.
    """

    package: str
    statements: dict[str, list[_Statement]] = field(default_factory=dict)
    imported: dict[str, list[tuple[Module, str]]] = field(default_factory=dict)
    everything: list[Module] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """Where a module is.

    Attributes:
        file: None of a package without one.
        package: that its relative imports are in.
        folders: of a package.
    """

    file: Path | None
    package: str
    folders: tuple[Path, ...] = ()


def called_by(function: Callable[..., object]) -> str:
    """The texts of all that a function or a class of the user's names, and of what that names in turn: functions,
    classes and variables at the top level of its file and of the user's modules that it imports, nothing installed. In
    alphabetical order; "" where there is none, or no file.

    It cannot see what is named by a text (`getattr(module, "f")`), nor what a variable holds beside what the file says.
    """
    plain = inspect.unwrap(function)
    place = _place_of(plain)
    if place is None:
        return ""
    found: dict[int, _Statement] = {}
    known: set[tuple[Path | None, _Names]] = set()
    left = [(_names_of(plain), place)]
    while left:
        names, place = left.pop()
        if place.file is None or (place.file, names) in known or (file := _read(place)) is None:
            continue
        known.add((place.file, names))
        modules = [(module, names.words) for module in (*names.modules, *file.everything)]
        for word in names.words:
            for statement in file.statements.get(word, ()):
                if id(statement) not in found:
                    found[id(statement)] = statement
                    left.append((statement.names, place))
            modules += [(module, frozenset({name} - {""})) for module, name in file.imported.get(word, ())]
        for module, words in modules:
            left += _in_module(module, file.package, words, names.words)
    return "\n".join(sorted({statement.text for statement in found.values()}))


def line_of(error: BaseException) -> str:
    """Where in the user's own files an error was raised, innermost: "nets.py, line 12"; "" where in none."""
    lines = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return next((f"{path.name}, line {number}" for path, number in reversed(lines) if _is_users(path)), "")


def is_users(kind: type) -> bool:
    """Whether a class is in a file of the user's."""
    return _place_of(kind) is not None


def _in_module(
    module: Module, package: str, words: frozenset[str], beyond: frozenset[str]
) -> Iterator[tuple[_Names, _Place]]:
    """Where to look for words in a module that a file imports (all of `beyond` where it is the module itself), and for
    those beyond in modules of it that are named by one of them."""
    with suppress(ImportError):  # relative, and beyond the package
        name = importlib.util.resolve_name("." * module[1] + module[0], package)
        place = _find(name, tuple(sys.path))
        if place is not None:
            yield _Names(words or beyond), place
            for word in {*_modules_in(place.folders)} & (words or beyond):
                inner = _inside(place.folders, word, f"{name}.{word}")
                if inner is not None:
                    yield _Names(beyond), inner


def _place_of(plain: Callable[..., object]) -> _Place | None:
    """The file of a function or a class, if it is the user's."""
    code = getattr(plain, "__code__", None)
    module = sys.modules.get(getattr(plain, "__module__", None) or "")
    file = code.co_filename if isinstance(code, CodeType) else getattr(module, "__file__", None)
    package = getattr(plain, "__globals__", vars(module) if module else {}).get("__package__")
    if not isinstance(file, str) or not _is_users(Path(file)):
        return None
    return _Place(Path(file), package if isinstance(package, str) else "")


def _names_of(plain: Callable[..., object]) -> _Names:
    """What a function or a class names."""
    with suppress(OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return _names(ast.parse(dedent(inspect.getsource(plain))))
    code = getattr(plain, "__code__", None)  # of a lambda, whose text is all of its line
    return _Names(frozenset(_words(code) if isinstance(code, CodeType) else ()))


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


# Modules: looked for in folders, as what has been imported already may not matter


@lru_cache(maxsize=1024)
def _find(name: str, _path: tuple[str, ...]) -> _Place | None:
    """A module of the user's by its full name, wherever Python would look; nothing is imported."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):  # a module that was put there by hand
        return None
    if spec is None or (spec.has_location and not _is_users(Path(spec.origin or ""))):
        return None
    folders = tuple(map(Path, spec.submodule_search_locations or ()))
    place: _Place | None = _Place(Path(spec.origin or "") if spec.has_location else None, spec.parent or "", folders)
    for i, word in enumerate(rest, 2):
        if place is not None:
            place = _inside(place.folders, word, ".".join([top, *rest][:i]))
    return place


def _inside(folders: tuple[Path, ...], word: str, name: str) -> _Place | None:
    """A module of a package, by its full name."""
    for folder in folders:
        if (folder / word / "__init__.py").is_file():
            return _Place(folder / word / "__init__.py", name, (folder / word,))
        if (folder / f"{word}.py").is_file():
            return _Place(folder / f"{word}.py", name.rpartition(".")[0])
    inner = tuple(folder / word for folder in folders if (folder / word).is_dir())
    return _Place(None, name, inner) if inner else None


def _modules_in(folders: tuple[Path, ...]) -> Iterator[str]:
    for folder in folders:
        with suppress(OSError):
            yield from (path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir())


@lru_cache(maxsize=1024)
def _is_users(file: Path) -> bool:
    installed = {"site-packages", "dist-packages"} & {*file.parts}
    return file.suffix == ".py" and not installed and not any(file.is_relative_to(folder) for folder in _OTHERS)


def _read(place: _Place) -> _File | None:
    assert place.file is not None
    try:
        return _parsed(place.file, place.package, place.file.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=256)
def _parsed(path: Path, package: str, _changed: int) -> _File:
    content = path.read_bytes()
    found, lines = _File(package), content.decode("utf-8", "replace").splitlines()
    for node in ast.parse(content).body:
        statement = _Statement(node, lines)
        for inner in [node] if isinstance(node, _DEFINITIONS) else ast.walk(node):
            match inner:
                case ast.Import():
                    for alias in inner.names:
                        here = alias.asname or alias.name.partition(".")[0]
                        ways = [alias.name] if alias.asname else [alias.name, here]
                        found.imported.setdefault(here, []).extend(((way, 0), "") for way in dict.fromkeys(ways))
                case ast.ImportFrom():
                    module = inner.module or "", inner.level
                    for alias in inner.names:
                        if alias.name == "*":
                            found.everything.append(module)
                        else:
                            found.imported.setdefault(alias.asname or alias.name, []).append((module, alias.name))
        for name in dict.fromkeys(_changes(node)):
            found.statements.setdefault(name, []).append(statement)
    return found


def _changes(node: ast.stmt) -> Iterator[str]:
    """The names that a statement at a file's top level gives a value, or may change the value of: as a target, by an
    attribute or an item of it, by a call of a method, as a decorator, or as `global`."""
    if isinstance(node, _DEFINITIONS):
        yield node.name
        yield from (name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names)
        for decorator in node.decorator_list:
            yield from _bases(decorator)
        return
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from _bases(inner)
            case ast.Expr(value=ast.Call() as call):
                yield from _bases(call)


def _bases(node: ast.AST) -> Iterator[str]:
    """The name that an attribute, an item or a call begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        yield node.id
