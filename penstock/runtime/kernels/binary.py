"""Functions of two tensors, or a tensor and a scalar, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from penstock.runtime.kernels.common import (
    BOOL,
    Array,
    DType,
    Scalar,
    destination,
    documented,
    floating,
    is_float,
    is_integral,
    result_type,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel

Operand = Any  #: a tensor or a scalar
Function = Callable[..., Array]


def _apply(ufunc: np.ufunc, a: Array, b: Array, dtype: DType, out: Array) -> Array:
    """``ufunc`` of two widened operands, into ``out`` where the result's type is right for it."""
    if a.dtype == dtype and out.dtype == dtype and a.dtype.kind != "b":
        shape = a.shape if a.shape == b.shape else np.broadcast_shapes(a.shape, b.shape)
        if out.shape == shape:
            return np.asarray(ufunc(a, b, out=out))
    return rounded(ufunc(a, b), dtype)


def _operands(a: Operand, b: Operand, dtype: DType) -> tuple[Array, Array]:
    return widened(a, dtype), widened(b, dtype)


# -- add, sub, mul ---------------------------------------------------------------------------------


def _scaled(b: Operand, alpha: Scalar, dtype: DType) -> Array:
    wide = widened(b, dtype)
    if alpha == 1:
        return wide
    if isinstance(alpha, float) and is_integral(dtype):
        raise KernelError(f"a floating alpha ({alpha}) for an integer result")
    return np.asarray(wide * widened(alpha, dtype))


@kernel("aten::add.out", "aten::add.Scalar_out")
def add(a: Array, b: Operand, alpha: Scalar, out: Array) -> Array:
    """a + alpha * b; of bools, their or."""
    dtype = result_type(a, b)
    return _apply(np.add, widened(a, dtype), _scaled(b, alpha, dtype), dtype, out)


@kernel("aten::sub.out", "aten::sub.Scalar_out")
def sub(a: Array, b: Operand, alpha: Scalar, out: Array) -> Array:
    """a - alpha * b."""
    dtype = result_type(a, b)
    return _apply(np.subtract, widened(a, dtype), _scaled(b, alpha, dtype), dtype, out)


@kernel("aten::rsub.Scalar_out")
def rsub(a: Array, b: Scalar, alpha: Scalar, out: Array) -> Array:
    """b - alpha * a."""
    dtype = result_type(a, b)
    return _apply(np.subtract, widened(b, dtype), _scaled(a, alpha, dtype), dtype, out)


@kernel("aten::mul.out", "aten::mul.Scalar_out")
def mul(a: Array, b: Operand, out: Array) -> Array:
    """a * b; of bools, their and."""
    dtype = result_type(a, b)
    return _apply(np.multiply, *_operands(a, b, dtype), dtype, out)


# -- division --------------------------------------------------------------------------------------


def _no_zero(b: Array) -> None:
    if is_integral(b.dtype) and not np.all(b):
        raise KernelError("an integer division by zero")


@kernel("aten::div.out", "aten::div.Scalar_out")
def div(a: Array, b: Operand, out: Array) -> Array:
    """a / b; integers give float32."""
    dtype = floating(result_type(a, b))
    return _apply(np.true_divide, *_operands(a, b, dtype), dtype, out)


def _truncated(a: Array, b: Array) -> Array:
    if not is_integral(a.dtype):
        return np.asarray(np.trunc(np.true_divide(a, b)))
    # fmod has the sign of a, so the division that is left is exact.
    quotient: Array = np.floor_divide(a - np.fmod(a, b), b)
    return quotient


@kernel("aten::div.out_mode", "aten::div.Scalar_mode_out")
def div_mode(a: Array, b: Operand, rounding_mode: str | None, out: Array) -> Array:
    """a / b, rounded to an integer where ``rounding_mode`` is "trunc" or "floor"."""
    if rounding_mode is None:
        return div(a, b, out)
    dtype = result_type(a, b)
    x, y = _operands(a, b, dtype)
    _no_zero(y)
    if dtype == BOOL:
        return np.asarray(x & y)
    if rounding_mode == "trunc":
        return rounded(_truncated(x, y), dtype)
    if rounding_mode == "floor":
        return _apply(np.floor_divide, x, y, dtype, out)
    raise KernelError(f"unknown rounding mode {rounding_mode!r}")


@kernel("aten::floor_divide.out")
def floor_divide(a: Array, b: Array, out: Array) -> Array:
    """floor(a / b), in the promoted type."""
    return div_mode(a, b, "floor", out)


@kernel("aten::fmod.Tensor_out", "aten::fmod.Scalar_out")
def fmod(a: Array, b: Operand, out: Array) -> Array:
    """The remainder of a / b with the sign of a."""
    dtype = result_type(a, b)
    x, y = _operands(a, b, dtype)
    _no_zero(y)
    return _apply(np.fmod, x, y, dtype, out)


@kernel("aten::remainder.Tensor_out", "aten::remainder.Scalar_out")
def remainder(a: Array, b: Operand, out: Array) -> Array:
    """The remainder of a / b with the sign of b."""
    dtype = result_type(a, b)
    x, y = _operands(a, b, dtype)
    _no_zero(y)
    return _apply(np.remainder, x, y, dtype, out)


# -- powers ----------------------------------------------------------------------------------------


def _power(a: Operand, b: Operand, dtype: DType, out: Array) -> Array:
    x, y = _operands(a, b, dtype)
    if dtype == BOOL:
        return np.asarray(x | ~y)
    if not is_integral(dtype):
        return _apply(np.power, x, y, dtype, out)
    if dtype.kind == "u" or not np.any(y < 0):
        return _apply(np.power, x, y, dtype, out)
    # A negative power of an integer is 0, except of 1 and -1.
    x, y = np.broadcast_arrays(x, y)
    value = np.power(x, np.maximum(y, 0))
    odd = (y & 1).astype(BOOL)
    special = np.where(x == 1, 1, np.where(x == -1, np.where(odd, -1, 1), 0))
    return np.where(y < 0, special, value).astype(dtype)


@kernel("aten::pow.Tensor_Tensor_out", "aten::pow.Scalar_out")
def power(a: Operand, b: Array, out: Array) -> Array:
    """a to the power of b."""
    return _power(a, b, result_type(a, b), out)


_SIMPLE_POWERS: dict[float, Function] = {
    2.0: np.square,
    3.0: lambda x: np.asarray(x * x * x),
    0.5: np.sqrt,
    -0.5: lambda x: np.asarray(1 / np.sqrt(x)),
}


@kernel("aten::pow.Tensor_Scalar_out")
def power_scalar(a: Array, b: Scalar, out: Array) -> Array:
    """a to the power of a scalar; an integer tensor takes no negative integer."""
    dtype = result_type(a, b)
    if is_integral(dtype) and b < 0:
        raise KernelError(f"integers to the negative power {b}")
    if not is_integral(dtype):
        wide = widened(a, dtype)
        function = _SIMPLE_POWERS.get(float(b))
        if function is not None:
            return rounded(function(wide), dtype)
    return _power(a, b, dtype, out)


_FLOATING: dict[str, tuple[np.ufunc, str]] = {
    "atan2": (np.arctan2, "The angle of the point (b, a)."),
    "copysign": (np.copysign, "The size of a with the sign of b."),
}

for _name, (_ufunc, _doc) in _FLOATING.items():

    def _floating_pair(a: Array, b: Array, out: Array, ufunc: np.ufunc = _ufunc) -> Array:
        dtype = floating(result_type(a, b))
        return _apply(ufunc, *_operands(a, b, dtype), dtype, out)

    kernel(f"aten::{_name}.out")(documented(_floating_pair, _name, _doc))


# -- extremes --------------------------------------------------------------------------------------

_EXTREMES: dict[str, tuple[np.ufunc, str]] = {
    "maximum": (np.maximum, "The elementwise maximum of two tensors; NaN propagates."),
    "minimum": (np.minimum, "The elementwise minimum of two tensors; NaN propagates."),
    "fmax": (np.fmax, "The elementwise maximum of two tensors, of NaN and a number the number."),
    "fmin": (np.fmin, "The elementwise minimum of two tensors, of NaN and a number the number."),
}

for _name, (_ufunc, _doc) in _EXTREMES.items():

    def _extreme(a: Array, b: Array, out: Array, ufunc: np.ufunc = _ufunc) -> Array:
        dtype = result_type(a, b)
        return _apply(ufunc, *_operands(a, b, dtype), dtype, out)

    kernel(f"aten::{_name}.out")(documented(_extreme, _name, _doc))


# -- comparisons -----------------------------------------------------------------------------------


def _comparison(name: str, ufunc: np.ufunc, sign: str) -> Function:
    def call(a: Array, b: Operand, out: Array) -> Array:
        x, y = _operands(a, b, result_type(a, b))
        if out.dtype == BOOL and out.shape == np.broadcast_shapes(x.shape, y.shape):
            return np.asarray(ufunc(x, y, out=out))
        return np.asarray(ufunc(x, y))

    return documented(call, name, f"a {sign} b, as a bool.")


_COMPARISONS: dict[str, tuple[np.ufunc, str]] = {
    "eq": (np.equal, "=="),
    "ne": (np.not_equal, "!="),
    "lt": (np.less, "<"),
    "le": (np.less_equal, "<="),
    "gt": (np.greater, ">"),
    "ge": (np.greater_equal, ">="),
}

for _name, (_ufunc, _sign) in _COMPARISONS.items():
    kernel(f"aten::{_name}.Tensor_out", f"aten::{_name}.Scalar_out")(
        _comparison(_name, _ufunc, _sign)
    )


# -- logic and bits --------------------------------------------------------------------------------


def _logical(name: str, ufunc: np.ufunc) -> Function:
    def call(a: Array, b: Array, out: Array) -> Array:
        return np.asarray(ufunc(widened(a, a.dtype) != 0, widened(b, b.dtype) != 0))

    return documented(call, name, f"{name} of whether the elements are non-zero, as a bool.")


def _bitwise(name: str, ufunc: np.ufunc) -> Function:
    def call(a: Array, b: Operand, out: Array) -> Array:
        dtype = result_type(a, b)
        if not is_integral(dtype):
            raise KernelError(f"{name} is not defined for {dtype}")
        return np.asarray(ufunc(*_operands(a, b, dtype)))

    return documented(call, name, f"{name} of integers or bools.")


def _shift(name: str, left: bool) -> Function:
    def call(a: Array, b: Operand, out: Array) -> Array:
        dtype = result_type(a, b)
        if dtype.kind not in "iu":
            raise KernelError(f"{name} is not defined for {dtype}")
        x, y = _operands(a, b, dtype)
        bits = dtype.itemsize * 8
        beyond = (y < 0) | (y >= bits)
        if left:
            return np.where(beyond, 0, np.left_shift(x, np.where(beyond, 0, y))).astype(dtype)
        # The sign fills up: shifting by one bit less than the width twice is all of it.
        last = bits - 1 if dtype.kind == "i" else 0
        value = np.right_shift(x, np.where(beyond, last, y).astype(dtype))
        return np.where(beyond & (dtype.kind == "u"), 0, value).astype(dtype)

    return documented(call, name, f"{name} of integers; beyond the width only the sign is left.")


_LOGIC: dict[str, np.ufunc] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_BITS: dict[str, np.ufunc] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}

for _name, _ufunc in _LOGIC.items():
    kernel(f"aten::logical_{_name}.out")(_logical(f"logical_{_name}", _ufunc))

for _name, _ufunc in _BITS.items():
    kernel(f"aten::bitwise_{_name}.Tensor_out", f"aten::bitwise_{_name}.Scalar_out")(
        _bitwise(f"bitwise_{_name}", _ufunc)
    )

for _name in ("left", "right"):
    kernel(
        f"aten::bitwise_{_name}_shift.Tensor_out", f"aten::bitwise_{_name}_shift.Tensor_Scalar_out"
    )(_shift(f"bitwise_{_name}_shift", _name == "left"))


# -- selections ------------------------------------------------------------------------------------


@kernel("aten::where.self_out")
def where(condition: Array, a: Array, b: Array, out: Array) -> Array:
    """a where the condition holds, else b."""
    if condition.dtype != BOOL and condition.dtype != np.uint8:
        raise KernelError(f"a condition of type {condition.dtype}")
    dtype = result_type(a, b)
    chosen = np.where(condition.astype(BOOL, copy=False), rounded(a, dtype), rounded(b, dtype))
    return chosen.astype(dtype, copy=False)


@kernel("aten::clamp.out")
def clamp(x: Array, low: Scalar | None, high: Scalar | None, out: Array) -> Array:
    """x kept between two scalars, either of which may be None; NaN stays NaN."""
    if low is None and high is None:
        raise KernelError("clamp needs min or max")
    return _clamped(x, low, high, result_type(x, low, high), out)


@kernel("aten::clamp.Tensor_out")
def clamp_tensor(x: Array, low: Array | None, high: Array | None, out: Array) -> Array:
    """x kept between two tensors, either of which may be None; NaN propagates."""
    if low is None and high is None:
        raise KernelError("clamp needs min or max")
    return _clamped(x, low, high, result_type(x, low, high), out)


@kernel("aten::hardtanh.out")
def hardtanh(x: Array, low: Scalar, high: Scalar, out: Array) -> Array:
    """x kept between two scalars, in the type of x; NaN stays NaN."""
    if x.dtype == BOOL:
        raise KernelError("hardtanh is not defined for bool")
    return _clamped(x, low, high, x.dtype, out)


def _clamped(x: Array, low: Operand, high: Operand, dtype: DType, out: Array) -> Array:
    wide = widened(x, dtype)
    for bound in (low, high):
        if isinstance(bound, float) and bound != bound and is_float(dtype):
            return np.full(x.shape, np.nan, dtype)
    lower = None if low is None else widened(low, dtype)
    upper = None if high is None else widened(high, dtype)
    if lower is not None and upper is not None:
        shape = np.broadcast_shapes(wide.shape, lower.shape, upper.shape)
        target = destination(out, shape, dtype) if wide.dtype == dtype else None
        return rounded(np.clip(wide, lower, upper, out=target), dtype)
    if lower is not None:
        wide = np.maximum(wide, lower)
    if upper is not None:
        wide = np.minimum(wide, upper)
    return rounded(wide, dtype)
