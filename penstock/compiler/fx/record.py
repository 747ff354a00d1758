"""Runs a function on fake tensors and notes the operators it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode,
    _pop_mode_temporarily,
)


@dataclass(frozen=True)
class Call:
    """One call of an operator, with the tensors that went in and came out."""

    target: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


@dataclass(frozen=True)
class Recording:
    """The calls that ``result`` needs, in order. Tensors are told apart by identity."""

    calls: Sequence[Call]
    result: Any


def record(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    decompositions: Mapping[Any, Callable[..., Any]],
) -> Recording:
    """What ``function(*inputs)`` comes to: operators that write to nothing and are not in
    ``decompositions``. To be called within the inputs' fake mode."""
    with torch.no_grad(), enable_python_dispatcher(), _without_mkldnn():
        recording = _record(function, inputs, decompositions)
        if any(call.target._schema.is_mutable for call in recording.calls):
            # Only torch can follow writes, at some cost: twice, since it takes whole operators
            # apart below the level at which it follows writes.
            traced = make_fx(function, dict(decompositions), "real")(*inputs)
            functional = make_fx(torch.func.functionalize(traced), tracing_mode="real")(*inputs)
            functional.graph.eliminate_dead_code()
            functional.recompile()
            recording = _record(functional, inputs, decompositions)
    return recording


def _record(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    decompositions: Mapping[Any, Callable[..., Any]],
) -> Recording:
    recorder = _Recorder(decompositions)
    with recorder:
        result = function(*inputs)
    return Recording(_needed(recorder.calls, result), result)


class _Recorder(TorchDispatchMode):
    def __init__(self, decompositions: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.decompositions = decompositions
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a tensor's device or layout
            return func(*args, **kwargs)
        function = self.decompositions.get(func)
        if function is not None:
            with self:
                result = function(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.calls.append(Call(func, args, kwargs, result))
        return result


def whole(target: torch._ops.OpOverload, *args: Any) -> Any:
    """Calls ``target`` and notes that as one call, even of an operator that is made of others. For
    functions that are being recorded."""
    recorder = _get_current_dispatch_mode()
    assert isinstance(recorder, _Recorder)
    with _pop_mode_temporarily():
        result = target(*args)
    recorder.calls.append(Call(target, args, {}, result))
    return result


def constant(values: Any) -> torch.Tensor:
    """A float32 constant of NumPy's ``values``, for functions that are being recorded."""
    with _disable_current_modes():
        tensor = torch.tensor(values, dtype=torch.float32)
    return with_constant(tensor)


def computed(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The constant that ``make`` gives, for functions that are being recorded: how it is computed
    is not noted. It must need no tensor but its own."""
    with _disable_current_modes():
        tensor = make()
    return with_constant(tensor)


def with_constant(tensor: torch.Tensor) -> torch.Tensor:
    """A fake tensor that knows its value. To be called within a fake mode."""
    modes = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    (mode,) = (mode for mode in modes if isinstance(mode, FakeTensorMode))
    with _disable_current_modes():
        fake: FakeTensor = mode.from_tensor(tensor, static_shapes=True)
    fake.constant = tensor
    return fake


def value_of(tensor: torch.Tensor) -> Any:
    """The value of a constant as a float64 array; ``None`` of what is known at run time only."""
    value = getattr(tensor, "constant", None)
    if value is None:
        return None
    with _disable_current_modes():
        return value.detach().double().numpy()


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _needed(calls: Sequence[Call], result: Any) -> list[Call]:
    wanted = set(map(id, tensors(result)))
    kept: list[Call] = []
    for call in reversed(calls):
        made = tensors(call.result)
        if not made or call.target._schema.is_mutable or any(id(one) in wanted for one in made):
            kept.append(call)
            wanted.update(map(id, tensors((call.args, call.kwargs))))
    kept.reverse()
    return kept


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """With that library, recurrent cells end in one operator of its own."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)
