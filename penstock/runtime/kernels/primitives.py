"""Arithmetic on scalars and sizes: the ``executorch_prim`` operators and their like in ATen.

Integers are 64-bit; what leaves that range is an error. ``et_view`` and ``et_copy_index``, which
share or grow memory, belong to the method core.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from penstock.runtime.kernels.common import Array, Scalar, axis_of, documented
from penstock.runtime.kernels.registry import KernelError, kernel


def _number(value: Scalar) -> int | float:
    """An argument that must be an int or a float, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise KernelError(f"{value!r} is no number")
    return value


def _integer(value: Scalar) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise KernelError(f"{value!r} is no integer")
    return value


def _fit(value: Scalar) -> Scalar:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise KernelError(f"{value} does not fit 64 bits")
    return value


def _to_integer(value: float) -> int:
    if not math.isfinite(value):
        raise KernelError(f"{value} is no integer")
    return int(_fit(int(value)))


def _arithmetic(name: str, sign: str, function: Callable[..., Scalar]) -> Callable[..., Scalar]:
    def call(a: Scalar, b: Scalar) -> Scalar:
        return _fit(function(_number(a), _number(b)))

    return documented(call, name, f"a {sign} b of two scalars.")


def _comparison(name: str, sign: str, function: Callable[..., bool]) -> Callable[..., bool]:
    def call(a: Scalar, b: Scalar) -> bool:
        if isinstance(a, bool) != isinstance(b, bool):
            raise KernelError(f"{a!r} {sign} {b!r}: a bool and a number")
        return function(a, b)

    return documented(call, name, f"Whether a {sign} b, of two scalars.")


for _name, _sign, _function in (
    ("add", "+", operator.add),
    ("sub", "-", operator.sub),
    ("mul", "*", operator.mul),
):
    kernel(f"executorch_prim::{_name}.Scalar", outs=0)(_arithmetic(_name, _sign, _function))

for _name, _sign, _function in (
    ("eq", "==", operator.eq),
    ("gt", ">", operator.gt),
    ("lt", "<", operator.lt),
    ("ge", ">=", operator.ge),
    ("le", "<=", operator.le),
):
    kernel(f"executorch_prim::{_name}.Scalar", outs=0)(_comparison(_name, _sign, _function))


@kernel("executorch_prim::truediv.Scalar", outs=0)
def truediv(a: Scalar, b: Scalar) -> float:
    """a / b of two scalars, as a float."""
    x, y = float(_number(a)), float(_number(b))
    if y == 0:
        return math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1, y)
    return x / y


@kernel("executorch_prim::floordiv.Scalar", outs=0)
def floordiv(a: Scalar, b: Scalar) -> Scalar:
    """floor(a / b) of two scalars."""
    x, y = _number(a), _number(b)
    if isinstance(x, int) and isinstance(y, int):
        if y == 0:
            raise KernelError(f"{x} // 0")
        return _fit(x // y)
    if y == 0:
        return math.copysign(math.inf, x)
    remainder = math.fmod(x, y)
    quotient = (x - remainder) / y
    return quotient - 1 if remainder and (remainder < 0) != (y < 0) else quotient


@kernel("executorch_prim::floordiv.int", outs=0)
def floordiv_int(a: int, b: int) -> Scalar:
    """a / b of two integers, towards zero as the stock runtime does."""
    x, y = _integer(a), _integer(b)
    if y == 0:
        raise KernelError(f"{x} // 0")
    return _fit(abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1))


@kernel("executorch_prim::mod.Scalar", "executorch_prim::mod.int", outs=0)
def mod(a: int, b: int) -> Scalar:
    """The remainder of a / b of two integers, with the sign of a as the stock runtime does."""
    x, y = _integer(a), _integer(b)
    if y == 0:
        raise KernelError(f"{x} % 0")
    return abs(x) % abs(y) * (-1 if x < 0 else 1)


@kernel("executorch_prim::neg.Scalar", outs=0)
def neg(a: Scalar) -> Scalar:
    """-a of a scalar."""
    return _fit(-_number(a))


@kernel("executorch_prim::sym_max.Scalar", outs=0)
def sym_max(a: int, b: int) -> int:
    """The larger of two integers."""
    return max(_integer(a), _integer(b))


@kernel("executorch_prim::sym_min.Scalar", outs=0)
def sym_min(a: int, b: int) -> int:
    """The smaller of two integers."""
    return min(_integer(a), _integer(b))


@kernel("executorch_prim::sym_float.Scalar", outs=0)
def sym_float(a: Scalar) -> float:
    """A scalar as a float."""
    return float(a)


@kernel("executorch_prim::sym_int.Scalar", outs=0)
def sym_int(a: Scalar) -> int:
    """A scalar as an integer, towards zero."""
    return _to_integer(a) if isinstance(a, float) else int(a)


@kernel("executorch_prim::sym_not.Scalar", outs=0)
def sym_not(a: bool) -> bool:
    """The logical not of a bool."""
    if not isinstance(a, bool):
        raise KernelError(f"not {a!r}")
    return not a


@kernel("executorch_prim::sym_ite.Scalar", outs=0)
def sym_ite(condition: bool, a: Scalar, b: Scalar) -> Scalar:
    """a if the condition holds, else b."""
    if not isinstance(condition, bool):
        raise KernelError(f"{condition!r} is no condition")
    return a if condition else b


@kernel("executorch_prim::ceil.Scalar", outs=0)
def ceil(a: float) -> int:
    """The smallest integer not below a float."""
    return _to_integer(math.ceil(a) if math.isfinite(a) else a)


@kernel("executorch_prim::round.Scalar", outs=0)
def round_half_even(a: float) -> int:
    """The nearest integer, the even one of two."""
    return _to_integer(round(a) if math.isfinite(a) else a)


@kernel("executorch_prim::trunc.Scalar", outs=0)
def trunc(a: float) -> int:
    """A float without its fraction, as an integer."""
    return _to_integer(a)


# -- of tensors ------------------------------------------------------------------------------------


@kernel("aten::sym_size.int", outs=0)
def sym_size(x: Array, dim: int) -> int:
    """The size of one dimension."""
    if x.ndim == 0:
        raise KernelError("the size of a zero-dimensional tensor")
    return int(x.shape[axis_of(dim, x.ndim)])


@kernel("aten::sym_numel", outs=0)
def sym_numel(x: Array) -> int:
    """The number of elements."""
    return int(x.size)


@kernel("aten::_local_scalar_dense", outs=0)
def local_scalar_dense(x: Array) -> Scalar:
    """The (first) element of a tensor as a scalar."""
    if x.size == 0:
        raise KernelError("the element of an empty tensor")
    value = x.reshape(-1)[0]
    if x.dtype.kind == "b":
        return bool(value)
    return int(value) if x.dtype.kind in "iu" else float(value)
