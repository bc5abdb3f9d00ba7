"""A CUDA device for a machine without one: tensors that say `cuda:0` and are held by the CPU.

It proves logic, not kernels: tensors of two devices cannot meet, attention stands behind the checks
of PyTorch's own C++, and launches, synchronisations, bytes and operations are counted. With shapes
alone (tensors on the meta device inside) a pass of any size costs nothing and is counted as well.
"""

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.flop_counter import flop_registry

from benchmarks.emulated_attention import attend_exactly, require, require_form

CUDA = torch.device("cuda:0")
_AMPERE = (8, 0)
aten = torch.ops.aten

# Made of other operations in general; on CUDA each has a kernel of its own.
_WITH_KERNEL = {aten.scaled_dot_product_attention, aten._fused_rms_norm}
# Their size depends on values: the device has to be waited for.
_SIZED_BY_VALUES = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim}
# They allocate, or look at a tensor in another way: nothing runs on the device.
_WITHOUT_LAUNCH = {
    aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided,
    aten._unsafe_view, aten._reshape_alias, aten.lift_fresh,
}  # fmt: skip
_INDEXING = {aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}
_INDICES = {torch.int32, torch.int64}  # needed as they are, also where only shapes count
Check = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], None]


@dataclass
class Counts:
    """What ran on the device.

    Attributes:
        launches: how often each elementwise operation, product or attention was launched.
        synchronisations: how often the host waited for the device, and why.
        uploads: bytes of each copy from the host.
        elementwise_bytes: bytes that each elementwise operation read and wrote.
        flop: floating point operations of each product and attention.
    """

    launches: Counter[str] = field(default_factory=Counter)
    synchronisations: Counter[str] = field(default_factory=Counter)
    uploads: list[int] = field(default_factory=list)
    elementwise_bytes: Counter[str] = field(default_factory=Counter)
    flop: Counter[str] = field(default_factory=Counter)


class EmulatedTensor(torch.Tensor):
    """A tensor that says it is on `cuda:0`.

    Attributes:
        held: the tensor that has its values: on the CPU, or on the meta device, without values.
        home: the device that it is on.
    """

    held: torch.Tensor
    home: "EmulatedCuda"
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type, held: torch.Tensor, home: "EmulatedCuda") -> "EmulatedTensor":
        # Views of a wrapper that is an inference tensor fail: it has no version counter.
        with torch.inference_mode(False):
            one: EmulatedTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=CUDA,
                requires_grad=False,
            )
        one.held, one.home = held, home
        return one

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func` on the device of the first emulated tensor."""
        flat, _ = tree_flatten((args, kwargs))
        home = next(one.home for one in flat if isinstance(one, EmulatedTensor))
        return home.run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the values, after waiting for the device."""
        self.home.counts.synchronisations["tolist"] += 1
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as tensors of a real device do."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype})"


class EmulatedCuda(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """An emulated device. Inside the block, this thread can make tensors on it.

    Attributes:
        capability: its compute capability.
        counts: what ran on it.
        shapes_only: whether tensors have no values; `move` makes them.
        check: called with each operator and its arguments before it runs.
    """

    def __init__(
        self,
        capability: tuple[int, int] = _AMPERE,
        *,
        shapes_only: bool = False,
        check: Check | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capability = capability
        self.shapes_only = shapes_only
        self.counts = Counts()
        self.check = check

    def move(self, model: torch.nn.Module) -> None:
        """Move `model`, which may be on the meta device, to this device."""
        for module in model.modules():
            for name, one in module._parameters.items():
                if one is not None:
                    module._parameters[name] = torch.nn.Parameter(self._wrap(one.detach()), False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._wrap(buffer)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func` on this device if it names it."""
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator as the device would, and count it."""
        flat, _ = tree_flatten((args, kwargs))
        tensors = [one for one in flat if isinstance(one, torch.Tensor)]
        on_device = [one for one in tensors if isinstance(one, EmulatedTensor)]
        target = next((one for one in flat if isinstance(one, torch.device)), None)
        kind = func.overloadpacket
        # The guard of the meta device stands in for CUDA's: `to("cuda")` asks it for the index.
        named = ("cuda", "meta") if kind is aten._to_copy and not args[0].is_meta else ("cuda",)
        to_device = target is not None and target.type in named
        if not on_device and not to_device:
            return func(*args, **kwargs)
        if kind not in _WITH_KERNEL and _is_composite(func):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if self.check:
            self.check(func, args, kwargs)
        if kind is aten._to_copy:
            return self._copy(args[0], kwargs, from_device=bool(on_device), to_device=to_device)
        self._refuse_other_devices(kind, tensors)
        self._count_waiting(kind, tensors)
        if kind is aten._flash_attention_forward:
            return self._attend(*args, **kwargs)
        result = self._run_on_host(func, args, kwargs)
        self._count(func, on_device, args, result)
        return result

    def _run_on_host(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat, _ = tree_flatten((args, kwargs))
        held = [one.held for one in flat if isinstance(one, EmulatedTensor)]
        without_values = any(one.is_meta for one in held) or (not held and self.shapes_only)

        def unwrap(value: Any) -> Any:
            if isinstance(value, torch.device):
                return torch.device("meta" if without_values else "cpu")
            if not isinstance(value, torch.Tensor):
                return value
            inner = value.held if isinstance(value, EmulatedTensor) else value
            return inner.to("meta") if without_values else inner

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return known[id(value)] if id(value) in known else self._wrap(value)

        known = {id(one.held): one for one in flat if isinstance(one, EmulatedTensor)}
        return tree_map(wrap, func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))

    def _wrap(self, held: torch.Tensor) -> EmulatedTensor:
        return EmulatedTensor(held, self)

    def _copy(
        self, source: torch.Tensor, kwargs: dict[str, Any], *, from_device: bool, to_device: bool
    ) -> torch.Tensor:
        options = {name: one for name, one in kwargs.items() if name in ("dtype", "memory_format")}
        held = source.held if isinstance(source, EmulatedTensor) else source
        copied = aten._to_copy(held, **options)
        stays = from_device and (to_device or "device" not in kwargs)
        if stays:
            self.counts.launches["_to_copy"] += 1
            self.counts.elementwise_bytes["_to_copy"] += _bytes(held) + _bytes(copied)
        elif from_device:
            self.counts.synchronisations["copy to the host"] += 1
            return torch.zeros(copied.shape, dtype=copied.dtype) if copied.is_meta else copied
        else:
            self.counts.uploads.append(_bytes(copied))
            if self.shapes_only and copied.dtype not in _INDICES:
                copied = copied.to("meta")
        return self._wrap(copied)

    def _refuse_other_devices(self, kind: Any, tensors: list[torch.Tensor]) -> None:
        for one in tensors:
            on_host = not isinstance(one, EmulatedTensor)
            if on_host and one.dim() and kind not in _INDEXING and kind is not aten.copy_:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, cuda:0 and cpu! (in {kind}, {tuple(one.shape)})"
                )

    def _count_waiting(self, kind: Any, tensors: list[torch.Tensor]) -> None:
        waits = self.counts.synchronisations
        if kind is aten._local_scalar_dense or kind in _SIZED_BY_VALUES:
            waits[str(kind)] += 1
        if kind in _INDEXING:
            by_mask = any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:])
            from_host = any(one.dim() and not isinstance(one, EmulatedTensor) for one in tensors)
            waits[f"{kind} with a mask, or indices of the host"] += by_mask or from_host

    def _count(
        self, func: Any, inputs: list[EmulatedTensor], args: tuple[Any, ...], result: Any
    ) -> None:
        kind, name = func.overloadpacket, func.overloadpacket.__name__
        if kind in _WITHOUT_LAUNCH or _is_view(func) or kind is aten._local_scalar_dense:
            return
        self.counts.launches[name] += 1
        outputs = [one for one in tree_flatten(result)[0] if isinstance(one, torch.Tensor)]
        if kind is aten.scaled_dot_product_attention:
            self.counts.flop[name] += 4 * args[0].numel() * args[1].shape[-2]
            return
        if kind in flop_registry:
            self.counts.flop[name] += flop_registry[kind](*args, out_val=outputs[0])
            return
        # What is written in full is not read: `out=`, and the target of a copy.
        written = any(one.is_out for one in func._schema.arguments)
        overwritten = outputs if written or kind is aten.copy_ else []
        read = {id(one): one for one in inputs if all(one is not other for other in overwritten)}
        self.counts.elementwise_bytes[name] += sum(map(_bytes, [*read.values(), *outputs]))

    def _attend(
        self,
        query: EmulatedTensor,
        key: EmulatedTensor,
        value: EmulatedTensor,
        cu_query: EmulatedTensor,
        cu_key: EmulatedTensor,
        max_query: int,
        max_key: int,
        dropout: float,
        causal: bool,
        debug: bool,
        **options: Any,
    ) -> tuple[torch.Tensor, ...]:
        """Check what `mha_varlen_fwd` checks (flash_api.cpp), then compute the definition."""
        require(self.capability >= _AMPERE, "FlashAttention only supports Ampere GPUs or newer.")
        bounds = cu_query.held.tolist()
        require_form(query, key, value, (cu_query, cu_key))
        require(cu_key.held.tolist() == bounds, "the sequences of query and key differ")
        lengths = [end - start for start, end in pairwise(bounds)]
        require(bounds[0] == 0 and bounds[-1] == len(query), "cu_seqlens do not cover the tokens")
        require(min(lengths) > 0, "a sequence is empty")
        require(max_query == max_key == max(lengths), "the longest sequence is another one")
        require(type(max_query) is int and not dropout and not debug, "options")
        heads, dim = query.shape[1:]
        self.counts.launches["_flash_attention_forward"] += 1
        pairs = sum(n * (n + 1) // 2 if causal else n * n for n in lengths)
        self.counts.flop["_flash_attention_forward"] += 4 * heads * dim * pairs
        if query.held.is_meta:
            out = torch.empty(query.shape, dtype=query.dtype, device="meta")
        else:
            out = attend_exactly(query.held, key.held, value.held, bounds, causal)
        nothing = self._wrap(torch.empty(0))
        return self._wrap(out), nothing, nothing, nothing, nothing


@contextmanager
def emulated_cuda(
    capability: tuple[int, int] = _AMPERE, *, shapes_only: bool = False, check: Check | None = None
) -> Iterator[EmulatedCuda]:
    """Let torch find one CUDA device, until the end of the block; other threads enter it as well.

    Args:
        capability: its compute capability.
        shapes_only: count only; tensors on the device have no values.
        check: called with each operator and its arguments before it runs.
    """
    # At its first call torch keeps this list, in which is `torch.tensor`, replaced below. A model
    # that is loaded with the replacement in it has rotary angles that nobody has written.
    _device_constructors()
    cuda = EmulatedCuda(capability, shapes_only=shapes_only, check=check)
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    replaced = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda device=None: cuda.capability,
        "get_device_name": lambda device=None: "emulated",
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch.object(torch.cuda, name, function))
        stack.enter_context(patch.object(torch, "tensor", partial(_make_tensor, torch.tensor)))
        stack.enter_context(_guard_of_cuda())
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with cuda:
                yield cuda
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


@contextmanager
def _guard_of_cuda() -> Iterator[None]:
    """Register a device guard for CUDA: that of the meta device, which does nothing."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
    guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    cuda, meta = 1, 14  # of c10::DeviceType
    before = guards[cuda]
    guards[cuda] = before or guards[meta]
    try:
        yield
    finally:
        guards[cuda] = before


def _make_tensor(original: Callable[..., torch.Tensor], data: Any, **options: Any) -> torch.Tensor:
    """Read numbers on the device one by one, as `torch.tensor` does out of sight of a mode."""
    return original(
        tree_map(lambda one: one.item() if isinstance(one, EmulatedTensor) else one, data),
        **options,
    )


def _is_composite(func: Any) -> bool:
    composite: bool = torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )
    return composite


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def enter(cuda: EmulatedCuda, backend: Any) -> Any:
    """Return `backend` with a `forward` that works on the device in any thread."""
    return _InAnyThread(cuda, backend)


class _InAnyThread:
    def __init__(self, cuda: EmulatedCuda, backend: Any) -> None:
        self._cuda, self._backend = cuda, backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def forward(self, batch: list[Any]) -> list[Any]:
        with self._cuda:
            vectors: list[Any] = self._backend.forward(batch)
        return vectors
