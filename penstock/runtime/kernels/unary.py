"""Functions of one tensor, element by element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.runtime.kernels import special
from penstock.runtime.kernels.common import (
    BOOL,
    Array,
    arithmetic_type,
    blockwise,
    destination,
    documented,
    floating,
    is_float,
    is_integral,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel

Function = Callable[[Array], Array]


def _floating(name: str, ufunc: np.ufunc) -> Callable[[Array, Array], Array]:
    """A function whose result is always floating (or complex): integers go to float32 first."""

    def call(x: Array, out: Array) -> Array:
        dtype = floating(x.dtype)
        wide = widened(x, dtype)
        if wide.dtype == dtype:
            return np.asarray(ufunc(wide, out=destination(out, x.shape, dtype)))
        return rounded(ufunc(wide), dtype)

    return documented(call, name, f"{name} of each element; integers give float32.")


def _floating_steps(name: str, function: Function) -> Callable[[Array, Array], Array]:
    def call(x: Array, out: Array) -> Array:
        dtype = floating(x.dtype)
        return blockwise(function, x, dtype, dtype, out)

    return documented(call, name, f"{name} of each element; integers give float32.")


def _same_type(name: str, ufunc: np.ufunc, integers: bool) -> Callable[[Array, Array], Array]:
    """A function that keeps the type. ``integers``: it changes integers too, else they pass."""

    def call(x: Array, out: Array) -> Array:
        if not integers and is_integral(x.dtype):
            return x
        if arithmetic_type(x.dtype) == x.dtype:
            return np.asarray(ufunc(x, out=destination(out, x.shape, x.dtype)))
        return rounded(ufunc(widened(x, x.dtype)), x.dtype)

    return documented(call, name, f"{name} of each element, in the tensor's type.")


def _sigmoid(x: Array) -> Array:
    # exp(-x) overflows to infinity for very negative x, and 1 / infinity is the right 0.
    value = np.negative(x)
    np.exp(value, out=value)
    value += 1
    return np.reciprocal(value, out=value)


def _rsqrt(x: Array) -> Array:
    value = np.sqrt(x)
    return np.divide(1, value, out=value)


def _reciprocal(x: Array) -> Array:
    return np.divide(1, x, dtype=x.dtype)


for _name, _ufunc in {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}.items():
    kernel(f"aten::{_name}.out")(_floating(_name, _ufunc))

for _name, _function in {
    "erf": special.erf,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
}.items():
    kernel(f"aten::{_name}.out")(_floating_steps(_name, _function))

for _name, _ufunc in {
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.rint,
    "trunc": np.trunc,
}.items():
    kernel(f"aten::{_name}.out")(_same_type(_name, _ufunc, integers=False))

kernel("aten::neg.out")(_same_type("neg", np.negative, integers=True))


@kernel("aten::abs.out")
def absolute(x: Array, out: Array) -> Array:
    """Absolute value; of a complex tensor, its modulus."""
    if arithmetic_type(x.dtype) == x.dtype:
        dtype = x.real.dtype
        return np.asarray(np.absolute(x, out=destination(out, x.shape, dtype)))
    return rounded(np.absolute(widened(x, x.dtype)), x.dtype)


@kernel("aten::sign.out")
def sign(x: Array, out: Array) -> Array:
    """-1, 0 or 1 in the tensor's type; 0 for NaN."""
    if x.dtype == BOOL:
        return x
    wide = widened(x, x.dtype)
    value = np.sign(wide)
    if is_float(x.dtype):
        value = np.where(np.isnan(wide), 0, value)
    return rounded(value, x.dtype)


@kernel("aten::signbit.out")
def signbit(x: Array, out: Array) -> Array:
    """Whether each element has a minus, -0.0 included, as a bool."""
    wide = widened(x, x.dtype)
    return np.asarray(np.signbit(wide) if is_float(x.dtype) else wide < 0)


@kernel("aten::relu.out")
def relu(x: Array, out: Array) -> Array:
    """max(x, 0); NaN stays NaN."""
    if x.dtype == BOOL:
        raise KernelError("relu is not defined for bool")
    if arithmetic_type(x.dtype) == x.dtype:
        zero = x.dtype.type(0)
        return np.asarray(np.maximum(x, zero, out=destination(out, x.shape, x.dtype)))
    return rounded(np.maximum(widened(x, x.dtype), 0), x.dtype)


@kernel("aten::bitwise_not.out")
def bitwise_not(x: Array, out: Array) -> Array:
    """Inverts the bits; of a bool, its logical not."""
    if not is_integral(x.dtype):
        raise KernelError(f"bitwise_not is not defined for {x.dtype}")
    return np.asarray(np.invert(x))


@kernel("aten::logical_not.out")
def logical_not(x: Array, out: Array) -> Array:
    """Whether each element is zero, as a bool."""
    return np.asarray(widened(x, x.dtype) == 0)


@kernel("aten::isnan.out")
def isnan(x: Array, out: Array) -> Array:
    """Whether each element is NaN, as a bool; False for integers."""
    wide = widened(x, x.dtype)
    return np.asarray(wide != wide)


@kernel("aten::isinf.out")
def isinf(x: Array, out: Array) -> Array:
    """Whether each element is infinite, as a bool; False for integers."""
    if is_integral(x.dtype):
        return np.zeros(x.shape, BOOL)
    return np.asarray(np.isinf(widened(x, x.dtype)))


@kernel("aten::_conj_physical.out")
def conj_physical(x: Array, out: Array) -> Array:
    """The complex conjugate; real tensors pass."""
    return np.asarray(np.conjugate(x)) if x.dtype.kind == "c" else x
