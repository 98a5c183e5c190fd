"""A GPU emulated on the CPU: the code that runs on a GPU runs on it, with real numbers, on a machine that has none.

`with emulated_gpu() as gpu: fit(..., device=gpu.device)`. Tensors "on the GPU" are CPU tensors whose storage is marked;
`.device` says `cuda:0`, and the code under test takes its CUDA branches. What it shows:

- tensors of two devices in one operation raise, as on a GPU;
- whatever makes the host wait for the device is noted by reason and place (`waits`), and raises while `forbid_waiting`
  is set (`torch.cuda.set_sync_debug_mode("error")` sets it) or a graph is captured;
- bytes alive and their peak are counted, and `torch.OutOfMemoryError` is raised above `limit`; blocks that were freed
  stay reserved until `empty_cache`;
- CUDA graphs: a capture leaves nothing behind, a replay runs the captured operations on the same tensors;
- random numbers on the device come from a generator of its own;
- `emulated_gpu("mps")` and "xpu" are other accelerators, without graphs; "mps" refuses float64, as Apple's does;
- `numbers=False` computes shapes alone (fake tensors), so that full-size networks can be measured on a small machine:
  losses and what is copied to the host are zeros.

What it cannot show: that a kernel exists for a dtype on the device; TF32, cuDNN's numbers or that they are the same
twice; which operations CUDA's autocast casts; races between streams; CUDA's own rules of capturing; speed; memory to
the byte (workspaces of cuDNN and cuBLAS, fragmentation; a graph holds all its intermediate results here, not their
peak). An operation that runs out of memory has run already here, and not on a GPU.

One file, longer than others, as it is a plugin of pytest as well: `-p tests.helpers.emulated_gpu`.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CPU = torch.device("cpu")
BLOCK = 512  # bytes: CUDA's allocator rounds up to them
SMALL_COPY = 1 << 16  # bytes: up to here a copy from pageable memory is staged by the driver and not waited for
_aten = torch.ops.aten
_WAITING = {
    _aten._local_scalar_dense, _aten.equal, _aten.is_nonzero, _aten.nonzero, _aten.masked_select, _aten.bincount,
    _aten._unique2, _aten.unique_dim, _aten.unique_consecutive, _aten.histc, _aten.allclose,
}  # fmt: skip
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
_CROSSING = {_aten._to_copy, _aten.copy_, _aten.copy, _aten.set_, _aten._pin_memory}
# storages on the device, by their address; outlives an emulation, as caches do
_marked: dict[int, weakref.ref[Any]] = {}
_pinned: weakref.WeakSet[Any] = weakref.WeakSet()  # storages of the host that a copy need not be waited for


def _leaves(values: Iterable[Any]) -> list[Any]:
    """What nested lists, tuples and dictionaries hold."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += _leaves(value)
        elif isinstance(value, dict):
            found += _leaves(value.values())
        else:
            found.append(value)
    return found


def _place() -> str:
    """The function of the package that is running: "training/fit.py _Run.check"."""
    frame = sys._getframe(1)
    while frame is not None:
        file, package, rest = frame.f_code.co_filename.rpartition("/cvhw4/")
        if package and "site-packages" not in file:
            return f"{rest} {frame.f_code.co_qualname.replace('.<locals>', '')}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


class EmulatedGPU:
    """The device and what was seen on it.

    Attributes:
        device: its device.
        waits: how often the host waited for it, by reason and place.
        operations: how often each operation ran on it; "replay" counts graphs.
        live: bytes in use; `peak` the most so far, `peak_at` where that was.
        limit: bytes that may be in use at once.
        refused: places where memory ran out.
        forbid_waiting: whether waiting raises.
        current: index of the current device.
        captured_on: index of the device that was current at each capture.
    """

    def __init__(self, kind: str, index: int, total: int, numbers: bool) -> None:
        self.kind, self.device, self.total, self.numbers = kind, torch.device(kind, index), total, numbers
        self.waits: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.live = self.peak = self.reserved = 0
        self.peak_at = ""
        self.limit = total
        self.forbid_waiting = False
        self.current = 0
        self.captured_on: list[int] = []
        self.generator = torch.Generator().manual_seed(0).get_state()
        self._graph: _Graph | None = None
        self._ambient = CPU  # where a tensor made of nothing goes
        self._moving: torch.device | None = None
        self._off = False  # operations run uncounted
        self._inside_fake = 0
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""
        return isinstance(tensor, FakeTensor) if not self.numbers else tensor.untyped_storage()._cdata in _marked

    def mark(self, tensor: Tensor) -> None:
        """Puts a new tensor on the device.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
        """
        storage = tensor.untyped_storage()
        if storage._cdata in _marked:
            return
        if self.kind == "mps" and tensor.dtype == torch.float64:
            raise TypeError("MPS does not support float64")
        size = -(-storage.size() // BLOCK) * BLOCK
        if self.live + size > self.limit:
            self.refused[_place()] += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size >> 20} MiB. GPU 0 has a limit")
        self.live += size
        self.reserved = max(self.reserved, self.live)
        if self.live > self.peak:
            self.peak, self.peak_at = self.live, _place()
        address = storage._cdata

        def freed(_: object) -> None:
            _marked.pop(address, None)
            self.live -= size

        _marked[address] = weakref.ref(storage, freed)

    def wait(self, why: str) -> None:
        """Notes that the host waits for the device.

        Raises:
            RuntimeError: it may not.
        """
        where = f"{why}: {_place()}"
        self.waits[where] += 1
        if self.forbid_waiting or self._graph is not None:
            raise RuntimeError(f"waits for the device, {where}")

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Within it operations are those of a replay, or of nobody."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Within it torch's random numbers are the device's."""
        host = torch.get_rng_state()
        torch.set_rng_state(self.generator)
        try:
            yield
        finally:
            self.generator = torch.get_rng_state()
            torch.set_rng_state(host)

    @contextlib.contextmanager
    def capture(self, graph: _Graph, **_: object) -> Iterator[None]:
        """Stands in for `torch.cuda.graph`."""
        self._graph, live, random = graph, self.live, self.generator
        peak, self.peak = self.peak, self.live
        self.captured_on.append(self.current)
        try:
            yield
        finally:
            self._graph, self.generator = None, random
            graph.held = 0 if self.numbers else self.peak - live  # a tape keeps its tensors, shapes have none
            self.live += graph.held
            self.peak = max(peak, self.peak)
            with torch.no_grad(), self.uncounted():
                for tensor, value in graph.overwritten.values():
                    tensor.copy_(value)
            graph.overwritten = {}


class _Graph:
    """Stands in for `torch.cuda.CUDAGraph`: a tape of operations."""

    gpu: EmulatedGPU

    def __init__(self) -> None:
        self.tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.fresh: set[int] = set()  # storages made within the capture; the tape keeps them alive
        self.overwritten: dict[Any, tuple[Tensor, Tensor]] = {}
        self.held = 0

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keeps, before an operation runs, what it overwrites."""
        for position, spec in enumerate(func._schema.arguments):
            writes = spec.alias_info is not None and spec.alias_info.is_write
            if writes or spec.name in ("running_mean", "running_var"):
                value = args[position] if position < len(args) else kwargs.get(spec.name)
                for t in _leaves([value]):
                    if isinstance(t, Tensor) and t.untyped_storage()._cdata not in self.fresh:
                        key = t.untyped_storage()._cdata, t.storage_offset(), t.shape
                        if key not in self.overwritten:
                            self.overwritten[key] = t, t.clone()

    def replay(self) -> None:
        self.gpu.operations["replay"] += 1
        with torch.no_grad(), self.gpu.uncounted():
            for func, args, kwargs, result in self.tape:
                draws = torch.Tag.nondeterministic_seeded in func.tags
                with self.gpu.drawing() if draws else contextlib.nullcontext():
                    again = func(*args, **kwargs)
                for old, new in zip(_leaves([result]), _leaves([again]), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                        old.copy_(new)

    def reset(self) -> None:
        self.tape = []

    def __del__(self) -> None:
        self.gpu.live -= self.held


class _Operations(TorchDispatchMode):
    """Sees every operation: where it runs, what it waits for, what it allocates."""

    def __init__(self, gpu: EmulatedGPU) -> None:
        super().__init__()
        self.gpu = gpu
        self.composite: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = self.gpu, dict(kwargs or {})
        if gpu._off and gpu.numbers:
            return func(*args, **kwargs)
        op = func.overloadpacket
        if func.namespace == "prim":
            return CPU if op is torch.ops.prim.device else func(*args, **kwargs)
        if func not in self.composite:
            key = "CompositeImplicitAutograd"
            self.composite[func] = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
        if self.composite[func]:
            with self:  # inference mode does not take such operations apart
                return func.decompose(*args, **kwargs)
        tensors = [x for x in _leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [t for t in tensors if gpu.has(t)]
        target = gpu.device if there or (not tensors and gpu._ambient != CPU) else CPU
        if op is _aten._pin_memory:
            pinned = args[0].clone()
            _pinned.add(pinned.untyped_storage())
            return pinned
        if op is _aten.lift_fresh:
            target = gpu._ambient
            if target != CPU:
                gpu.wait("blocking copy to the device")  # torch.tensor(values, device=...) copies from pageable memory
        target = self._check(op, args, kwargs, tensors, there, target)
        if target != CPU:
            gpu.operations[str(op)] += 1
            if gpu._graph is not None and op not in (_aten.detach, _aten.alias):
                gpu._graph.note(func, args, kwargs)
        draws = target != CPU and torch.Tag.nondeterministic_seeded in func.tags and gpu.numbers
        with gpu.drawing() if draws else contextlib.nullcontext():
            result = self._run(func, args, kwargs, target, there)
        if target != CPU:
            for t in _leaves([result]):
                if isinstance(t, Tensor):
                    if gpu._graph is not None and (address := t.untyped_storage()._cdata) not in _marked:
                        gpu._graph.fresh.add(address)
                    gpu.mark(t)
        if gpu._graph is not None and gpu.numbers and (target != CPU or there):
            gpu._graph.tape.append((func, args, kwargs, result))
        return result

    def _check(self, op: Any, args: Any, kwargs: Any, tensors: Any, there: Any, target: torch.device) -> torch.device:
        """Where the operation runs; notes what it waits for, and refuses two devices."""
        gpu = self.gpu
        if op is _aten._to_copy and kwargs.get("device") is not None and gpu._moving is not None:
            target = gpu._moving
            if there and target == CPU:
                gpu.wait("copy to the host")
            elif not there and target != CPU:
                if not kwargs.get("non_blocking"):
                    gpu.wait("blocking copy to the device")
                elif args[0].nbytes > SMALL_COPY and args[0].untyped_storage() not in _pinned:
                    gpu.wait("copy of pageable memory to the device")
        elif op is _aten.copy_:
            target = gpu.device if gpu.has(args[0]) else CPU
            if gpu.has(args[1]) and target == CPU:
                gpu.wait("copy to the host")
            elif target != CPU and not gpu.has(args[1]) and args[1].ndim:
                gpu.wait("blocking copy to the device")
        elif there and op not in _CROSSING and any(t.ndim and not gpu.has(t) for t in tensors):
            if op in _INDEXING and gpu.has(args[0]):
                gpu.wait("index on the host")
            else:
                shapes = [(tuple(t.shape), t.dtype, str(gpu.device if gpu.has(t) else CPU)) for t in tensors]
                raise RuntimeError(f"tensors on two devices: {op} of {shapes} in {_place()}")
        if there and op in _WAITING:
            gpu.wait(str(op).rpartition(".")[2])
        if there and op in _INDEXING and (op is _aten.index or args[2].ndim):
            masks = (t for t in _leaves([args[1]]) if isinstance(t, Tensor))
            if any(t.dtype in (torch.bool, torch.uint8) for t in masks):
                gpu.wait("boolean index")
        return target

    def _run(self, func: Any, args: Any, kwargs: Any, target: torch.device, there: list[Tensor]) -> Any:
        gpu, op = self.gpu, func.overloadpacket
        if gpu.numbers or (target == CPU and not there):
            return func(*args, **kwargs)
        if op is _aten._local_scalar_dense:
            return True if args[0].dtype == torch.bool else 0.0 if args[0].is_floating_point() else 0
        if op in (_aten.equal, _aten.is_nonzero, _aten.allclose):
            return True
        if target == CPU:
            if op is _aten.copy_:
                return args[0].zero_()
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)

        def fake(value: Any) -> Any:
            real = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
            return gpu._fake.from_tensor(value) if real else value

        args, kwargs = tree_map(fake, (args, kwargs))
        gpu._inside_fake += 1
        try:
            with gpu._fake:
                return func(*args, **kwargs)
        finally:
            gpu._inside_fake -= 1


_DEVICE, _IS_CPU, _TO = Tensor.device.__get__, Tensor.is_cpu.__get__, Tensor.to  # type: ignore[attr-defined]


class _Questions(TorchFunctionMode):
    """Answers where a tensor is, and takes the device out of what is asked of torch."""

    def __init__(self, gpu: EmulatedGPU) -> None:
        super().__init__()
        self.gpu = gpu
        self.is_kind = getattr(Tensor, f"is_{gpu.kind}").__get__

    def _names(self, value: Any) -> bool:
        """Whether a value names the device."""
        if isinstance(value, torch.device):
            return value.type == self.gpu.kind
        return isinstance(value, str) and value.partition(":")[0] == self.gpu.kind

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, name = self.gpu, getattr(func, "__name__", "")
        if name == "__get__":
            if func == _DEVICE:
                return gpu.device if gpu.has(args[0]) else func(*args)
            if func == self.is_kind:
                return gpu.has(args[0])
            if func == _IS_CPU:
                return not gpu.has(args[0])
            return func(*args)
        kwargs = dict(kwargs or {})
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        if name in ("numpy", "__array__") and gpu.has(args[0]):
            raise TypeError(f"can't convert {gpu.device} device type tensor to numpy")
        if name in ("cpu", gpu.kind) and func is getattr(Tensor, name):
            func, args, kwargs = _TO, (args[0], CPU if name == "cpu" else gpu.device), {}
        before = gpu._ambient, gpu._moving
        moving: torch.device | None = None
        if func is _TO:
            args, kwargs, moving = self._to(args, kwargs)
        leaves = _leaves((args, kwargs))
        wanted = any(self._names(x) for x in leaves)
        if wanted:
            args, kwargs = tree_map(lambda x: CPU if self._names(x) else x, (args, kwargs))
        elsewhere = func is not _TO and not wanted and kwargs.get("device") is not None
        on_device = wanted or moving == gpu.device or any(isinstance(t, Tensor) and gpu.has(t) for t in leaves)
        gpu._ambient = gpu.device if on_device and not elsewhere else CPU
        gpu._moving = moving
        try:
            return func(*args, **kwargs)
        finally:
            gpu._ambient, gpu._moving = before

    def _to(self, args: Any, kwargs: Any) -> tuple[Any, Any, torch.device | None]:
        """Arguments of `Tensor.to` without the device; which one the tensor moves to, if it moves."""
        gpu = self.gpu
        named = next((a for a in (*args[1:], *kwargs.values()) if isinstance(a, (torch.device, str))), None)
        other = next((a for a in args[1:] if isinstance(a, Tensor)), None)
        if named is None and other is None:
            return args, kwargs, None
        goal = gpu.device if (gpu.has(other) if other is not None else self._names(named)) else CPU
        moves = (goal != CPU) != gpu.has(args[0])
        if moves:
            kwargs = kwargs | dict(copy=True)
            if other is not None:
                args, kwargs = args[:1], kwargs | dict(device=CPU, dtype=other.dtype)
        args = tuple(CPU if isinstance(a, (torch.device, str)) else a for a in args)
        kwargs = {k: CPU if k == "device" and v is not None else v for k, v in kwargs.items()}
        return args, kwargs, goal if moves else None


@contextlib.contextmanager
def emulated_gpu(
    kind: str = "cuda", *, index: int = 0, total: int = 8 << 30, numbers: bool = True
) -> Iterator[EmulatedGPU]:
    """Within it torch finds a GPU.

    Args:
        kind: of device: "cuda", or another accelerator, "mps" or "xpu".
        index: of the device that tensors are on; up to it there are others.
        total: its memory, in bytes.
        numbers: compute numbers; False: shapes alone.
    """
    gpu = EmulatedGPU(kind, index, total, numbers)
    of_fakes: Any = vars(FakeTensor)["device"]
    plain, autocast = of_fakes.fget, torch.autocast

    class Autocast(autocast):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *arguments: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == kind else device_type, *arguments, **options)

    def exchange(index: int) -> int:
        before, gpu.current = gpu.current, gpu.current if index < 0 else index
        return before

    def set_device(device: torch.device | int) -> None:
        gpu.current = (device.index or 0) if isinstance(device, torch.device) else device

    def seed(number: int) -> None:
        gpu.generator = torch.Generator().manual_seed(number).get_state()

    idle = gpu.generator.clone()  # of the devices that nothing is computed on

    def is_other(device: torch.device | str | int) -> bool:
        place = device if isinstance(device, int) else torch.device(device).index
        return (gpu.current if place is None else place) != index

    def state(device: torch.device | str | int = kind) -> torch.Tensor:
        return (idle if is_other(device) else gpu.generator).clone()

    def set_state(state: torch.Tensor, device: torch.device | str | int = kind) -> None:
        if not is_other(device):
            gpu.generator = state.clone()

    def set_sync_debug_mode(mode: str | int) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=2)
        gpu.forbid_waiting = mode in ("error", 2)

    both: dict[str, Callable[..., Any]] = dict(
        is_available=lambda: True,
        device_count=lambda: index + 1,
        synchronize=lambda *_: gpu.wait("synchronize"),
        empty_cache=lambda: setattr(gpu, "reserved", gpu.live),
        memory_allocated=lambda *_: gpu.live,
        memory_reserved=lambda *_: gpu.reserved,
        max_memory_allocated=lambda *_: gpu.peak,
        reset_peak_memory_stats=lambda *_: setattr(gpu, "peak", gpu.live),
        current_stream=lambda *_: mock.Mock(is_capturing=lambda: gpu._graph is not None),
        current_accelerator=lambda *_, **__: torch.device(kind),
    )
    own: dict[str, Callable[..., Any]] = both | dict(
        get_rng_state=state,
        set_rng_state=set_state,
        manual_seed=seed,
        manual_seed_all=seed,
        get_device_name=lambda *_: "emulated",
    )
    of_cuda: dict[str, Callable[..., Any]] = dict(
        _lazy_init=lambda: None,
        _exchange_device=exchange,
        _maybe_exchange_device=exchange,
        mem_get_info=lambda *_: (total - gpu.reserved, total),
        is_initialized=lambda: True,
        is_current_stream_capturing=lambda: gpu._graph is not None,
        set_sync_debug_mode=set_sync_debug_mode,
        get_sync_debug_mode=lambda: 2 * gpu.forbid_waiting,
        get_device_properties=lambda *_: mock.Mock(total_memory=total, major=9, minor=0),
        set_device=set_device,
        current_device=lambda: gpu.current,
        is_bf16_supported=lambda *_, **__: True,
        CUDAGraph=_Graph,
        graph=gpu.capture,
        Stream=lambda *_: mock.Mock(),
        stream=lambda _: contextlib.nullcontext(),
    )
    module = torch.get_device_module(kind)
    patches = [(module, own), (torch.accelerator, both)] + ([(module, of_cuda)] if kind == "cuda" else [])
    _Graph.gpu = gpu
    with contextlib.ExitStack() as stack:
        for place, functions in patches:
            for name, function in functions.items():
                if hasattr(place, name):
                    stack.enter_context(mock.patch.object(place, name, function))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        # a module whose parameters become fake tensors swaps them, which weak references forbid
        stack.enter_context(mock.patch.object(torch.utils, "weakref", mock.Mock(getweakrefs=lambda t: [])))
        answer = property(lambda t: plain(t) if gpu._inside_fake else gpu.device, of_fakes.fset)
        stack.enter_context(mock.patch.object(FakeTensor, "device", answer))
        stack.enter_context(_Operations(gpu))
        stack.enter_context(_Questions(gpu))
        yield gpu


# As a pytest plugin (`-p tests.helpers.emulated_gpu`): the whole session has one, in this process and in xdist's.
_session = contextlib.ExitStack()


def pytest_configure(config: Any) -> None:
    config.gpu = _session.enter_context(emulated_gpu(total=64 << 30))


def pytest_unconfigure(config: Any) -> None:
    _session.close()
