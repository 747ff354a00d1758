"""Runs a kernel as the method core would, and the same operator in eager PyTorch.

The arguments of a case are given in the order of the operator's schema, without the out arguments.
What eager gives decides shapes and types of the out tensors; the kernel's result is cast to them as
the core does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch

from penstock.formats.program import ScalarType
from penstock.runtime.kernels import registry

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = (np.dtype(f"float{bits}") for bits in (16, 32, 64))
I8, I16, I32, I64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
U8, BOOL = np.dtype("uint8"), np.dtype("bool")
C64 = np.dtype("complex64")
FLOATS = (F32, F64, F16, BFLOAT16)
INTEGERS = (I64, I32, I16, I8, U8)
DTYPES = (*FLOATS, *INTEGERS, BOOL)

_TORCH = {
    F16: torch.float16,
    F32: torch.float32,
    F64: torch.float64,
    BFLOAT16: torch.bfloat16,
    I8: torch.int8,
    I16: torch.int16,
    I32: torch.int32,
    I64: torch.int64,
    U8: torch.uint8,
    BOOL: torch.bool,
    C64: torch.complex64,
    np.dtype("complex128"): torch.complex128,
}
_NUMPY = {value: key for key, value in _TORCH.items()}

#: ScalarType numbers, as they stand in a program, to torch's dtypes.
SCALAR_TYPES = {
    int(number): _TORCH[dtype]
    for number, dtype in {
        ScalarType.BYTE: U8,
        ScalarType.CHAR: I8,
        ScalarType.SHORT: I16,
        ScalarType.INT: I32,
        ScalarType.LONG: I64,
        ScalarType.HALF: F16,
        ScalarType.FLOAT: F32,
        ScalarType.DOUBLE: F64,
        ScalarType.BOOL: BOOL,
        ScalarType.BFLOAT16: BFLOAT16,
    }.items()
}

#: (relative, absolute) tolerance by type: about one unit in the last place for the short ones.
TOLERANCES: dict[Any, tuple[float, float]] = {
    F16: (2e-3, 1e-6),
    BFLOAT16: (1.6e-2, 1e-30),
    F32: (3e-6, 1e-6),
    F64: (1e-12, 1e-13),
    C64: (1e-5, 1e-5),
    np.dtype("complex128"): (1e-12, 1e-12),
}


@dataclass
class Case:
    """One call. ``out`` gives the types of the out tensors where eager does not decide them."""

    args: Sequence[Any]
    out: Sequence[Any] = ()
    tolerance: tuple[float, float] | None = None
    #: compares the type of the kernel's own result too (up to the arithmetic type of halves).
    same_type: bool = field(default=False)


Cases = Callable[[np.random.Generator], Iterator[Case]]
GENERATORS: dict[str, Cases] = {}


def cases(*names: str) -> Callable[[Cases], Cases]:
    """Registers a generator of cases for operators of one signature."""

    def register(function: Cases) -> Cases:
        for name in names:
            GENERATORS[name] = function
        return function

    return register


def to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype == BFLOAT16:
            bits = torch.from_numpy(np.array(value).view(np.int16).reshape(value.shape))
            return bits.view(torch.bfloat16)
        return torch.from_numpy(np.array(value))
    if isinstance(value, list):
        return [to_torch(item) for item in value]
    return value


def to_numpy(value: torch.Tensor) -> np.ndarray:
    value = value.detach().resolve_conj()
    if value.dtype == torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().view(BFLOAT16).reshape(value.shape)
    return value.numpy()


def operator(name: str) -> Any:
    space, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, space), base), overload or "default")


def _out_names(schema: Any) -> list[str]:
    return [a.name for a in schema.arguments if a.kwarg_only and a.alias_info is not None]


def _sibling(op: Any) -> Any:
    """The functional overload with the same arguments, if there is one."""
    outs = set(_out_names(op._schema))
    wanted = [(a.name, str(a.type)) for a in op._schema.arguments if a.name not in outs]
    packet = op._overloadpacket
    for overload in packet.overloads():
        candidate = getattr(packet, overload)
        if any(a.alias_info is not None for a in candidate._schema.arguments):
            continue
        if [(a.name, str(a.type)) for a in candidate._schema.arguments] == wanted:
            return candidate
    return None


def eager(name: str, case: Case) -> list[Any]:
    """The outputs of eager PyTorch, as a flat list."""
    op = operator(name)
    schema = op._schema
    outs = _out_names(schema)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    arguments = [a for a in schema.arguments if a.name not in outs]
    if len(arguments) != len(case.args):
        raise TypeError(f"{len(case.args)} arguments for {name}")
    for argument, value in zip(arguments, case.args, strict=True):
        given = to_torch(value)
        if (
            "ScalarType" in str(argument.type)
            and given is not None
            or (argument.name == "dtype" and given is not None)
        ):
            given = SCALAR_TYPES[given]
        if argument.kwarg_only:
            keywords[argument.name] = given
        else:
            positional.append(given)
    if not outs:
        return [op(*positional, **keywords)]
    sibling = None if case.out else _sibling(op)
    if sibling is not None:
        result = sibling(*positional, **keywords)
    else:
        assert case.out, f"{name} has no functional form: the case must give the out types"
        buffers = [torch.empty(0, dtype=_TORCH[np.dtype(dtype)]) for dtype in case.out]
        if str(schema.arguments[-1].type) == "List[Tensor]":
            op(*positional, **keywords, out=buffers)
            return buffers
        result = op(*positional, **keywords, **dict(zip(outs, buffers, strict=True)))
    return list(result) if isinstance(result, (tuple, list)) else [result]


def stored(result: Any, out: np.ndarray) -> np.ndarray:
    """What the core does with a result."""
    array = np.asarray(result)
    assert array.shape == out.shape, (array.shape, out.shape)
    if array is not out:
        out[...] = array.astype(out.dtype, copy=False)
    return out


def call(name: str, args: Sequence[Any], outs: Sequence[np.ndarray], listed: bool) -> list[Any]:
    found = registry.find(name)
    assert found is not None, f"no kernel {name}"
    with np.errstate(all="ignore"):
        result = found.function(*args, *([list(outs)] if listed else outs))
    if listed or len(outs) > 1:
        assert len(result) == len(outs)
        return list(result)
    return [result]


def _permuted(value: Any) -> Any:
    """The same values in reversed memory order, as another dim_order would have them."""
    if isinstance(value, list):
        return [_permuted(item) for item in value]
    if not isinstance(value, np.ndarray) or value.ndim < 2:
        return value
    return np.asfortranarray(value)


def _channels_last(value: Any) -> Any:
    """The same values with the second dimension innermost in memory."""
    if isinstance(value, list):
        return [_channels_last(item) for item in value]
    if not isinstance(value, np.ndarray) or value.ndim < 3:
        return value
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(value, 1, -1)), -1, 1)


def _rank(value: Any) -> int:
    if isinstance(value, list):
        return max((_rank(item) for item in value), default=0)
    return value.ndim if isinstance(value, np.ndarray) else 0


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
        return value
    return [_frozen(item) for item in value] if isinstance(value, list) else value


def check(name: str, case: Case, *, tuples_only: bool = False) -> bool:
    """Compares kernel and eager; False if eager refuses the arguments."""
    try:
        expected = eager(name, case)
    except (RuntimeError, NotImplementedError, IndexError, TypeError, ValueError):
        return False
    schema = operator(name)._schema
    listed = any(str(a.type) == "List[Tensor]" and a.kwarg_only for a in schema.arguments)
    wanted = [to_numpy(tensor) for tensor in expected]
    if not _out_names(schema):
        compare(name, case, call(name, [_frozen(a) for a in case.args], [], False), wanted)
        return True
    layouts = [lambda value: value, _permuted]
    if max((_rank(value) for value in (*case.args, *wanted)), default=0) > 2:
        layouts.append(_channels_last)
    for layout in layouts:
        args = [_frozen(layout(value)) for value in case.args]
        outs = [layout(np.zeros(array.shape, array.dtype)) for array in wanted]
        results = call(name, args, outs, listed)
        if case.same_type:
            for result, array in zip(results, wanted, strict=True):
                short = array.dtype in (F16, BFLOAT16)
                assert result.dtype == array.dtype or (short and result.dtype == F32), (
                    f"{name}{describe(case)}: {result.dtype}, not {array.dtype}"
                )
        done = [stored(result, out) for result, out in zip(results, outs, strict=True)]
        compare(name, case, done, wanted)
    # Upper bounds: the out tensors may be larger than the result.
    larger = [np.zeros([n + 1 for n in array.shape], array.dtype) for array in wanted]
    if not listed:
        results = call(name, [_frozen(a) for a in case.args], larger, listed)
        exact = [np.zeros(array.shape, array.dtype) for array in wanted]
        done = [stored(result, out) for result, out in zip(results, exact, strict=True)]
        compare(name, case, done, wanted)
    return True


def describe(case: Case) -> str:
    parts = []
    for value in case.args:
        if isinstance(value, np.ndarray):
            parts.append(f"{value.dtype}{list(value.shape)}")
        elif isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value):
            parts.append("[...]")
        else:
            parts.append(repr(value))
    return f"({', '.join(parts)})"


def compare(name: str, case: Case, got: Sequence[Any], wanted: Sequence[np.ndarray]) -> None:
    for result, array in zip(got, wanted, strict=True):
        relative, absolute = case.tolerance or TOLERANCES.get(array.dtype, (0, 0))
        exact = array.dtype.kind in "iub"
        a = np.asarray(result)
        b = np.asarray(array)
        assert a.shape == b.shape
        if a.dtype.kind == "V" or a.dtype in (F16, BFLOAT16):
            a, b = a.astype(F32), b.astype(F32)
        np.testing.assert_allclose(
            a,
            b,
            rtol=0 if exact and case.tolerance is None else relative,
            atol=0 if exact and case.tolerance is None else absolute,
            equal_nan=True,
            err_msg=f"{name}{describe(case)}",
        )


# -- values ----------------------------------------------------------------------------------------


def values(
    rng: np.random.Generator,
    shape: Sequence[int],
    dtype: Any,
    *,
    special: bool = False,
    low: float = -4,
    high: float = 4,
) -> np.ndarray:
    """Random values; ``special`` mixes in NaN, infinities and zeros."""
    kind = np.dtype(dtype)
    if kind == BOOL:
        return np.asarray(rng.random(shape) < 0.5)
    if kind.kind in "iu":
        bottom = max(low, np.iinfo(kind).min)
        return np.asarray(rng.integers(int(bottom), int(high) + 1, shape), kind)
    if kind.kind == "c":
        real, imaginary = rng.standard_normal(shape), rng.standard_normal(shape)
        return np.asarray(real + 1j * imaginary, kind)
    array = np.asarray(rng.uniform(low, high, shape)).astype(kind)
    if special and array.size:
        odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5]).astype(kind)
        where = rng.random(array.shape) < 0.4
        array[where] = rng.choice(odd, int(where.sum()))
    return array
