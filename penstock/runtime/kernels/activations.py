"""Activation functions of more than one step, and softmax."""

from __future__ import annotations

import numpy as np

from penstock.runtime.kernels.common import (
    Array,
    Scalar,
    at_least_1d,
    axis_of,
    blockwise,
    destination,
    floating,
    is_float,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel
from penstock.runtime.kernels.special import erf


def _need_float(x: Array, name: str) -> None:
    if not is_float(x.dtype):
        raise KernelError(f"{name} is not defined for {x.dtype}")


def _gelu_exact(x: Array) -> Array:
    value: Array = erf(x * x.dtype.type(np.sqrt(0.5)))
    value += 1
    value *= x
    value *= x.dtype.type(0.5)
    return value


def _gelu_tanh(x: Array) -> Array:
    value = x * x
    value *= x.dtype.type(0.044715)
    value += 1
    value *= x
    value *= x.dtype.type(np.sqrt(2 / np.pi))
    np.tanh(value, out=value)
    value += 1
    value *= x
    value *= x.dtype.type(0.5)
    return value


@kernel("aten::gelu.out")
def gelu(x: Array, approximate: str, out: Array) -> Array:
    """x * Phi(x), by the error function ("none") or its approximation by tanh ("tanh")."""
    _need_float(x, "gelu")
    functions = {"none": _gelu_exact, "tanh": _gelu_tanh}
    if approximate not in functions:
        raise KernelError(f"unknown approximation {approximate!r}")
    return blockwise(functions[approximate], x, x.dtype, x.dtype, out)


@kernel("aten::elu.out")
def elu(x: Array, alpha: Scalar, scale: Scalar, input_scale: Scalar, out: Array) -> Array:
    """scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1)."""
    _need_float(x, "elu")

    def block(x: Array) -> Array:
        of = x.dtype.type
        low = np.expm1(np.minimum(x, 0) * of(input_scale)) * of(float(alpha) * float(scale))
        return np.asarray(np.where(x > 0, x * of(scale), low))

    return blockwise(block, x, x.dtype, x.dtype, out)


@kernel("aten::leaky_relu.out")
def leaky_relu(x: Array, negative_slope: Scalar, out: Array) -> Array:
    """x where x > 0, else negative_slope * x."""
    _need_float(x, "leaky_relu")

    def block(x: Array) -> Array:
        return np.where(x > 0, x, x * x.dtype.type(negative_slope))

    return blockwise(block, x, x.dtype, x.dtype, out)


@kernel("aten::logit.out")
def logit(x: Array, eps: float | None, out: Array) -> Array:
    """log(x / (1 - x)); with ``eps``, x is first kept between eps and 1 - eps."""
    dtype = floating(x.dtype)

    def block(x: Array) -> Array:
        if eps is not None:
            low = x.dtype.type(eps)
            x = np.where(x < low, low, np.where(x > 1 - low, 1 - low, x))
        return np.asarray(np.log(x / (1 - x)))

    return blockwise(block, x, dtype, dtype, out)


@kernel("aten::glu.out")
def glu(x: Array, dim: int, out: Array) -> Array:
    """The first half of a dimension times the sigmoid of the second."""
    _need_float(x, "glu")
    if x.ndim == 0:
        raise KernelError("glu needs at least one dimension")
    axis = axis_of(dim, x.ndim)
    if x.shape[axis] % 2:
        raise KernelError(f"dimension {axis} has an odd size: {x.shape[axis]}")
    first, second = np.split(x, 2, axis)
    value = np.exp(-widened(second, x.dtype))
    value += 1
    np.divide(widened(first, x.dtype), value, out=value)
    return rounded(value, x.dtype)


def _shifted(x: Array, axis: int, out: Array) -> Array:
    """x - max(x) along an axis, in a new array or in ``out``."""
    wide = widened(x, x.dtype)
    peak = wide.max(axis, keepdims=True)
    return np.asarray(np.subtract(wide, peak, out=destination(out, wide.shape, wide.dtype)))


@kernel("aten::_softmax.out")
def softmax(x: Array, dim: int, half_to_float: bool, out: Array) -> Array:
    """exp(x) over its sum along a dimension."""
    _need_float(x, "softmax")
    if x.size == 0:
        return x
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(x)
    value = _shifted(rows, axis, out)
    np.exp(value, out=value)
    value /= value.sum(axis, keepdims=True)
    if value is out:
        return out
    return rounded(value.reshape(x.shape), value.dtype if half_to_float else x.dtype)


@kernel("aten::_log_softmax.out")
def log_softmax(x: Array, dim: int, half_to_float: bool, out: Array) -> Array:
    """x minus the logarithm of the sum of exp(x) along a dimension."""
    _need_float(x, "log_softmax")
    if x.size == 0:
        return x
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(x)
    value = _shifted(rows, axis, out)
    value -= np.log(np.exp(value).sum(axis, keepdims=True))
    if value is out:
        return out
    return rounded(value.reshape(x.shape), value.dtype if half_to_float else x.dtype)
