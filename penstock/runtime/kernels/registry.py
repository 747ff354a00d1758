"""The kernel registry: an operator's name to the NumPy function that computes it.

The contract between kernels (the sibling modules, one family a file) and the method core:

**Registration.** A decorator, or a plain call in a loop over a table::

    @kernel("aten::add.out")
    def add(a, b, alpha, out): ...

    for name, ufunc in {"aten::abs.out": np.abs, "aten::neg.out": np.negative}.items():
        kernel(name)(unary(ufunc))

Every module of this package is imported when a program first needs a kernel, so a new family is a
new file and nothing else. Names are ``namespace::operator.overload`` as in ExecuTorch's registry
(``aten::add.out``, ``quantized_decomposed::add.out``, ``executorch_prim::add.Scalar``; no dot where
the overload is empty: ``aten::sym_numel``).

**Call.** The function gets *all* arguments of the operator's schema, by position, defaults filled
in by the compiler, the out argument(s) last. The format repeats the return value(s) after the
arguments; the core drops that.

=============== ===========================================================================
schema type     Python value
=============== ===========================================================================
Tensor          ``numpy.ndarray`` in *logical* shape; its strides follow the tensor's
                dim_order, so it may be non-contiguous. Zero-dimensional ones are arrays
                too. Constants are read-only. Never write to an input.
Tensor?         the same or ``None``
int/float/bool  ``int`` / ``float`` / ``bool``; a ``Scalar`` is any of the three
ScalarType      ``int``; :func:`penstock.runtime.dtypes.numpy_dtype` gives the dtype
MemoryFormat    ``int`` or ``None``; ignore it: the out tensor's own dim_order decides
int[] float[]   ``list``
Tensor[]        ``list`` of arrays; ``Tensor?[]`` may hold ``None``
str             ``str``
out tensor      ``numpy.ndarray`` with the dtype of the output. Its shape is the *upper
                bound* of the output's shape: equal to it when shapes are static, which is
                what nearly every program has.
Tensor[] out    ``list`` of such arrays
=============== ===========================================================================

**Result.** The function returns the result in logical shape: one array for ``outs=1``, a tuple of
``outs`` arrays for more, a list of arrays where the out argument is a Tensor list. The core then
checks the shape against the out tensor, casts to its dtype (as ATen's ``out=`` does), copies into
its memory in its dim_order. Views of inputs and broadcast views are fine as results: the core
copies, and overlapping memory is handled. To save that copy, a kernel *may* write the result into
``out`` itself and return ``out`` (the very object): only if ``out.shape`` equals the result's shape
and the dtype is right; ``fits(out, shape, dtype)`` asks that. In ``outs=1`` ufunc kernels:
``np.add(a, b, out=out if fits(out, shape, dtype) else None)``.

**Without an out argument** (``outs=0``): ``aten::sym_size.int``, ``executorch_prim::*`` and the
like return a Python scalar, which becomes the value of the instruction's last argument.

**In place** (``in_place=True``): ``aten::copy_`` returns the new content of its first argument
(full shape); the core writes it there, the kernel must not. With ``writes_itself=True`` the kernel
writes to its first argument, which the core sees to be the program's own memory:
``aten::index_put_``, which changes few rows of many.

**Other arguments that are written to** (``writes=(1,)``: their positions): the kernel writes into
them where they are, which is memory that stays; the compiler's caches are of that kind. Their old
content counts as read.

``executorch_prim::et_view.default`` and ``executorch_prim::et_copy_index.tensor`` (which share or
grow memory) are part of the core; everything else is a kernel, the other prims included.

**Errors.** Arguments may be hostile. Whatever ``Exception`` a kernel raises becomes an
``InvalidProgramError`` that names the operator, so plain checks and NumPy's own errors are enough;
raise :class:`KernelError` for a message of your own. Two things NumPy does not catch: sizes (call
:func:`reserve` before allocating a shape that comes from list or scalar arguments) and strides
(``as_strided`` must be bounds-checked by the kernel). Floating-point warnings are off during a run.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np

#: A kernel may allocate this many elements even if its out tensor is planned smaller.
_FREE_ELEMENTS = 1 << 20

KernelFunction = Callable[..., Any]
_F = TypeVar("_F", bound=KernelFunction)


class KernelError(Exception):
    """The arguments of a kernel call make no sense; the core turns it into InvalidProgramError."""


@dataclass(frozen=True)
class Kernel:
    """One registered operator. ``outs`` counts the out arguments at the end of its schema;
    ``writes`` are the positions of other arguments that it writes to, by itself. ``moves``: shapes
    and scalars alone decide which elements of its arguments the result has."""

    name: str
    function: KernelFunction
    outs: int = 1
    in_place: bool = False
    writes_itself: bool = False
    writes: tuple[int, ...] = ()
    moves: bool = False


_kernels: dict[str, Kernel] = {}


def kernel(
    *names: str,
    outs: int = 1,
    in_place: bool = False,
    writes_itself: bool = False,
    writes: tuple[int, ...] = (),
    moves: bool = False,
) -> Callable[[_F], _F]:
    """Register a function under one or several names; a later registration replaces it."""

    def register(function: _F) -> _F:
        for name in names:
            count = 0 if in_place else outs
            _kernels[name] = Kernel(name, function, count, in_place, writes_itself, writes, moves)
        return function

    return register


@cache
def _import_families() -> None:
    package = importlib.import_module(__package__ or "penstock.runtime.kernels")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def find(name: str) -> Kernel | None:
    """The kernel of that name, e.g. ``"aten::add.out"``, or None."""
    if name not in _kernels:
        _import_families()
    return _kernels.get(name)


def names() -> list[str]:
    """The names of all kernels, sorted."""
    _import_families()
    return sorted(_kernels)


def fits(out: np.ndarray, shape: Sequence[int], dtype: Any) -> bool:
    """Whether a result of this shape and dtype may be written straight into ``out``."""
    return out.shape == tuple(shape) and out.dtype == dtype


def reserve(shape: Iterable[int], out: np.ndarray) -> tuple[int, ...]:
    """Check a result shape that comes from the program, before it is allocated.

    Returns it as a tuple of ints. Raises :class:`KernelError` if a dimension is negative, or if
    there are more elements than ``out`` can take (small results are let through: the core checks
    them again when it stores them).
    """
    checked = tuple(int(size) for size in shape)
    if any(size < 0 for size in checked):
        raise KernelError(f"negative size in shape {checked}")
    count = math.prod(checked)
    if count > max(out.size, _FREE_ELEMENTS):
        raise KernelError(f"a result of shape {checked} does not fit the output {out.shape}")
    return checked
