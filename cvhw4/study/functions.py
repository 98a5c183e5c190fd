"""The user's own functions: metrics, losses, and what tells any function, class or object from another of its name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal

from cvhw4.study.called import called_by, is_users
from cvhw4.study.checks import MOST, is_number

_DEEPEST = 8  # objects, lists and the like within each other that are looked into
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in what an object says of itself
# Metrics of scikit-learn and torchmetrics that are of scores, by name without underscores: given labels most of them
# give a figure too, which is another metric's.
_OF_SCORES = re.compile(
    "rocauc|auroc|averageprecision|topk|logloss|brier|calibrationerror|hinge|dcgscore|logauc|atfixed|atsensitivity"
    "|atspecificity|rankingloss|coverageerror"
)


@dataclass(frozen=True)
class Loss:
    """A loss of your own. It is called once, on made-up logits, before anything is trained.

    Attributes:
        function: of logits and targets, gives a scalar float tensor, finite and depending on the logits: for
            classification float [B, C] and int64 [B]; for segmentation float [B, C, size, size] and int64
            [B, size, size], -100 (PyTorch's `ignore_index`) where a pixel is of no class. A module is copied to the
            device, one with parameters to be trained is refused; tensors that a function holds it moves itself, as
            `weight.to(logits.device)`.
        version: to be changed when the loss changes and no text does, as `Metric.version`.
        source: what tells it from another, as `Metric.source`.
    """

    function: Callable[..., Any]
    version: str = ""
    source: str = field(default="", init=False, repr=False, compare=False)  # a process elsewhere may not have the files

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", source_of(self.function, self.version))

    @property
    def name(self) -> str:
        """Its name and 12 digits of its source's digest, for settings."""
        return f"{name_of(self.function)} {digest_of(self.source)}"


@dataclass(frozen=True)
class Metric:
    """A metric of your own; higher is better, so put a minus before an error.

    It is called on made-up predictions before anything is trained, and for those of every epoch once the run is over.

    Attributes:
        function: for classification of the labels (int64 [V]) and what `of` says, of all V validation images at once,
            as scikit-learn has them; for segmentation of the confusion matrix of the whole set (int64 [C, C], pixels by
            the class of their label and the class predicted, without void). Gives a finite number. A function or an
            object of torchmetrics is given tensors, and the labels last, as it takes them.
        version: to be changed when the metric changes and no text does (a file that it reads): `--reuse` knows a metric
            by its text, that of functions of yours that it calls, what it holds, and this.
        of: "labels": the predicted classes, int64 [V]; "scores": the probabilities of the classes (softmax), float32
            [V, C], 0 to 1, of two classes float32 [V], those of the second. Not for segmentation.
        source: what tells it from another of that name: its text and that of what it calls, where there is one, the
            version, and of what it is.
    """

    function: Callable[..., float] = field(compare=False)
    version: str = ""
    of: Literal["labels", "scores"] = "labels"
    source: str = field(default="", init=False, repr=False, compare=False)  # a process elsewhere may not have the files

    def __post_init__(self) -> None:
        source = source_of(self.function, self.version) + (" of scores" if self.of == "scores" else "")
        object.__setattr__(self, "source", source)


def named_of_scores(function: Callable[..., Any]) -> str | None:
    """The name of the known metric of scores that this is, or calls; None where there is none."""
    plain = unwrapped(function)
    code = getattr(plain, "__code__", None)
    library = str(getattr(plain, "__module__", "")).partition(".")[0] in ("sklearn", "torchmetrics")
    names = [name_of(plain)] if library else [*getattr(code, "co_names", ()), *getattr(code, "co_freevars", ())]
    return next((name for name in names if _OF_SCORES.search(name.lower().replace("_", ""))), None)


def source_of(function: Callable[..., Any], version: str) -> str:
    """What tells a function of the user's own from another of that name: its text, where there is one, and the
    version."""
    return f"{text_of(function)}{version and f' version {version}'}"


def digest_of(text: str) -> str:
    """12 digits that tell a text from another."""
    return sha256(text.encode()).hexdigest()[:12]


def digest_of_text(value: object) -> str:
    """12 digits of what tells a callable from another; "" of anything else."""
    return digest_of(text_of(value)) if callable(value) else ""


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, of what a partial calls, or of an object's class."""
    function = unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)


def call_of(function: Callable[..., Any]) -> str:
    """What pages call a callable: its name, of a partial with its arguments, at most 60 characters of them."""
    given: list[str] = []
    while isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items()), *given]
        function = function.func
    shown = ADDRESS.sub("", ", ".join(given))
    shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
    return name_of(function).strip("<>") + f"({shown})" * bool(given)


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a partial calls in the end."""
    while isinstance(function, partial):
        function = function.func
    return function


def text_of(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> str:
    """The source text of a function and what it holds beside it, or of an object's class, what the object says of
    itself and what it holds; of a partial also its arguments. Where there is no text, the name. Behind it, the text of
    what it calls, if that is the user's."""
    seen |= {id(function)}
    if isinstance(function, partial):
        held = f"{_held(function.args, seen)}, {_held(function.keywords, seen)}"
        return f"partial({text_of(function.func, seen)}, {held})"
    known = function if inspect.isroutine(function) or isinstance(function, type) else type(function)
    of_object = _beside_text(function, seen)
    calls = called_by(known)
    if known is not function:
        parts = ("_buffers", "_modules", "_parameters")  # a module's
        holds = {k: v for k, v in getattr(function, "__dict__", {}).items() if not k.startswith("_") or k in parts}
        of_object = f"{ADDRESS.sub('', f' {function!r}')} {_held(holds, seen)}"
    try:
        text = inspect.getsource(known)
    except (OSError, TypeError):
        text = f"{getattr(known, '__module__', '')}.{getattr(known, '__qualname__', known)}"
    return f"{text}{of_object}{calls and f' {calls}'}"


def _beside_text(function: Callable[..., Any], seen: frozenset[int]) -> str:
    """What a function holds that its text may not say: the object that it is a method of, variables of the functions
    around it, defaults; "" where there is nothing."""
    plain: Any = inspect.unwrap(function)
    held: list[Any] = []
    if isinstance(plain, MethodType):
        owner, plain = plain.__self__, plain.__func__
        own = {} if isinstance(owner, type) else getattr(owner, "__dict__", {})
        held = [owner, {k: v for k, v in own.items() if not k.startswith("_")}]
    if isinstance(plain, FunctionType):
        for cell in plain.__closure__ or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # not set yet
                continue
        held += [*(plain.__defaults__ or ()), *(plain.__kwdefaults__ or {}).values()]
    return f" {_held(held, seen)}" if held else ""


def _held(value: Any, seen: frozenset[int]) -> str:
    """A value that a function or an object holds, as a text that is the same in every process."""
    if id(value) in seen:
        return "..."
    seen |= {id(value)}
    if isinstance(value, Mapping):
        return str({str(k): _held(v, seen) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return str([_held(v, seen) for v in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_held(v, seen) for v in value))
    if isinstance(value, ModuleType):
        return value.__name__
    if hasattr(value, "detach") and hasattr(value, "numpy"):  # a tensor
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape} {sha256(value.tobytes()).hexdigest()}"
    if callable(value):
        return text_of(value, seen)
    shown = ADDRESS.sub("", repr(value))
    if len(seen) > _DEEPEST:
        return shown
    if shown != repr(value):
        held = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
        shown += f" {_held(held, seen)}"
    return f"{shown} {text_of(type(value), seen)}" if is_users(type(value)) else shown


def plain(value: Any) -> Any:
    """A setting as a plain JSON value.

    Raises:
        ValueError: it holds a number that is not finite, a mapping whose keys are no texts, or an object that does not
            say what it holds.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # NumPy's numbers, and a tensor of one
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if is_number(value):
            return value
        raise ValueError(f"is not finite, or beyond {MOST:g}")
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("has keys that are no texts")
        return {key: plain(inner) for key, inner in value.items()}
    if callable(value):
        return f"{name_of(value)} ({digest_of(text_of(value))[:8]})"
    if hasattr(value, "get_params") and ("..." in repr(value) or ADDRESS.search(repr(value))):  # scikit-learn's way
        return f"{type(value).__name__} {digest_of(str(plain(value.get_params(deep=False))))}"
    if isinstance(value, set | frozenset) or ADDRESS.search(repr(value)) or "..." in repr(value):
        raise ValueError("does not say what it holds, always in the same words")
    return repr(value)
