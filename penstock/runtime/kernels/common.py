"""What the families share: ATen's type promotion, dimension checks, rounding of half types.

Arithmetic in float16, bfloat16 and float8 is done in float32 and rounded once at the end, as ATen
does. :func:`widened` brings an argument into the arithmetic type, :func:`rounded` back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np

from penstock.runtime.kernels.registry import KernelError

Array: TypeAlias = "np.ndarray[Any, Any]"
DType: TypeAlias = "np.dtype[Any]"
Index: TypeAlias = "tuple[Any, ...]"  #: a NumPy subscript
Scalar: TypeAlias = "bool | int | float"

_F = TypeVar("_F", bound=Callable[..., Any])

BOOL: DType = np.dtype(np.bool_)
INT64: DType = np.dtype(np.int64)
FLOAT32: DType = np.dtype(np.float32)
FLOAT64: DType = np.dtype(np.float64)

#: Bytes of scratch memory that a chunked kernel aims at.
SCRATCH_BYTES = 4 << 20


def documented(function: _F, name: str, doc: str) -> _F:
    """Name a function that a table made, for tracebacks and the operator table."""
    function.__name__ = name
    function.__qualname__ = name
    function.__doc__ = doc
    return function


# -- types -------------------------------------------------------------------------------------


def is_float(dtype: DType) -> bool:
    """Floating point; ml_dtypes' types, which NumPy calls kind "V" or "f", included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def is_integral(dtype: DType) -> bool:
    """An integer type or bool."""
    return dtype.kind in "iub"


def _rank(dtype: DType) -> int:
    return 3 if dtype.kind == "c" else 2 if is_float(dtype) else 1 if dtype.kind in "iu" else 0


@lru_cache(maxsize=1024)
def promote(a: DType, b: DType) -> DType:
    """The type of a binary operation on two tensors (ATen's ``promoteTypes``).

    A floating type wins over any integer type, uint8 with int8 gives int16, float16 with bfloat16
    gives float32.
    """
    if a == b:
        return a
    low, high = sorted((a, b), key=_rank)
    if _rank(low) < _rank(high):
        if high.kind == "c" and low == FLOAT64:
            return np.dtype(np.complex128)
        return high
    if is_float(a) and a.itemsize == b.itemsize:
        return FLOAT32
    if is_float(a):
        return max(a, b, key=lambda dtype: dtype.itemsize)
    return np.promote_types(a, b)


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    if higher is None or lower is None:
        return lower if higher is None else higher
    if is_float(higher) and lower.kind == "c":
        return np.dtype(np.complex128 if higher == FLOAT64 else np.complex64)
    if _rank(lower) > _rank(higher):
        return promote(higher, lower)
    return higher


def result_type(*values: Array | Scalar | None) -> DType:
    """ATen's ``result_type``: tensors over zero-dimensional tensors over Python scalars.

    A lower category decides only if it is of a higher kind (bool < integer < floating).
    """
    by_category: list[DType | None] = [None, None, None]
    for value in values:
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            category, dtype = (0 if value.ndim else 1), value.dtype
        else:
            category = 2
            dtype = BOOL if isinstance(value, bool) else INT64
            dtype = FLOAT32 if isinstance(value, float) else dtype
        known = by_category[category]
        by_category[category] = dtype if known is None else promote(known, dtype)
    found = _combine(by_category[0], _combine(by_category[1], by_category[2]))
    if found is None:
        raise KernelError("no argument to take a type from")
    return found


@lru_cache(maxsize=256)
def arithmetic_type(dtype: DType) -> DType:
    """The type to compute in: float32 for the half and smaller floating types."""
    return FLOAT32 if is_float(dtype) and dtype.itemsize < 4 else dtype


def floating(dtype: DType) -> DType:
    """The type of a function that has no integer results: float32 for integers and bool."""
    return FLOAT32 if is_integral(dtype) else dtype


def widened(value: Array | Scalar, dtype: DType) -> Array:
    """``value`` in the arithmetic type of ``dtype``; no copy if it has it. Wraps like a C cast."""
    wanted = arithmetic_type(dtype)
    if isinstance(value, np.ndarray):
        if value.dtype != dtype and wanted != dtype:
            value = value.astype(dtype)
        return value.astype(wanted, copy=False)
    if isinstance(value, float) and not is_integral(wanted):
        return np.array(value, wanted)
    return np.array(value).astype(wanted)


def rounded(value: Array, dtype: DType) -> Array:
    """The result in its own type. The core casts further to the out tensor's."""
    return np.asarray(value).astype(dtype, copy=False)


def destination(out: Array, shape: Sequence[int], dtype: DType) -> Array | None:
    """``out``, where a ufunc may write a result of this shape and type into it, else None."""
    return out if out.shape == tuple(shape) and out.dtype == dtype else None


# -- dimensions --------------------------------------------------------------------------------


def axis_of(dim: int, rank: int) -> int:
    """A dimension in 0..rank-1. A zero-dimensional tensor has dimension 0 (and -1)."""
    bound = max(rank, 1)
    if not -bound <= dim < bound:
        raise KernelError(f"dimension {dim} is outside of a tensor of rank {rank}")
    return int(dim) % bound


def axes_of(dims: Iterable[int] | int | None, rank: int) -> tuple[int, ...]:
    """Reduction axes, sorted. None and an empty list stand for all."""
    if dims is None:
        return tuple(range(rank))
    given = [dims] if isinstance(dims, int) else list(dims)
    if not given:
        return tuple(range(rank))
    axes = sorted(axis_of(dim, rank) for dim in given)
    if len(set(axes)) != len(axes):
        raise KernelError(f"dimensions {given} name one twice")
    return tuple(axes) if rank else ()


def at_least_1d(x: Array) -> Array:
    """A zero-dimensional array as one of shape (1,)."""
    return x.reshape(1) if x.ndim == 0 else x


def shape_of(sizes: Iterable[int], count: int) -> tuple[int, ...]:
    """Resolve one -1 in a target shape for ``count`` elements."""
    shape = [int(size) for size in sizes]
    unknown = [i for i, size in enumerate(shape) if size == -1]
    if len(unknown) > 1 or any(size < -1 for size in shape):
        raise KernelError(f"{shape} is no shape")
    known = 1
    for size in shape:
        known *= 1 if size == -1 else size
    if unknown:
        if known == 0 or count % known:
            raise KernelError(f"{count} elements cannot have the shape {shape}")
        shape[unknown[0]] = count // known
    elif known != count:
        raise KernelError(f"{count} elements cannot have the shape {shape}")
    return tuple(shape)


# -- copies ---------------------------------------------------------------------------------------

#: Elements from which a transposing copy is worth its blocks, and the size of a block: 16 float32
#: are one cache line of the target.
_LARGE, _LINE = 1 << 14, 16


def assign(target: Array, source: Array) -> None:
    """``target[...] = source``, four times faster for large transposes than NumPy's own copy.

    Of a transposed source each element lies in another cache line. Taken in strips as wide as one
    line of the target, all of both lines is used while they are in the cache.
    """
    rows = target.shape[-1] if target.ndim > 1 else 0
    if (
        target.size < _LARGE
        or rows <= _LINE
        or source.shape != target.shape
        or not target.flags.c_contiguous
        or source.strides[-1] == source.itemsize
        or not any(
            step == source.itemsize and size > 1
            for step, size in zip(source.strides, source.shape, strict=True)
        )
    ):
        target[...] = source
        return
    for start in range(0, rows, _LINE):
        target[..., start : start + _LINE] = source[..., start : start + _LINE]


def copied(view: Array, out: Array) -> Array:
    """A large view of an input, copied into ``out`` where that fits; else the view as it is."""
    if (
        view.size < _LARGE
        or destination(out, view.shape, view.dtype) is None
        or np.may_share_memory(view, out)
    ):
        return view
    assign(out, view)
    return out


# -- whole-array functions of several steps --------------------------------------------------------

#: Elements per block: a few blocks of float32 stay in a core's L2 cache.
_BLOCK = 1 << 15


def blockwise(
    function: Callable[[Array], Array], x: Array, dtype: DType, result_dtype: DType, out: Array
) -> Array:
    """Apply an elementwise function of several NumPy steps, a cache-sized block at a time.

    ``function`` gets a flat block of ``x`` in the arithmetic type of ``dtype`` and must not write
    to it. The result has ``result_dtype`` and the memory order of ``x``; it is ``out`` itself where
    that fits.
    """
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    source = x.transpose(order).reshape(-1)
    target = None
    if out.shape == x.shape and out.dtype == result_dtype:
        candidate = out.transpose(order)
        if candidate.flags.c_contiguous:
            result, target = out, candidate.reshape(-1)
    if target is None:
        compact = np.empty([x.shape[axis] for axis in order], result_dtype)
        result, target = compact.transpose(np.argsort(order)), compact.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        stop = start + _BLOCK
        target[start:stop] = rounded(function(widened(source[start:stop], dtype)), dtype)
    return result
