"""Tensors from sizes and scalars, ranges, and random numbers.

The random kernels have ATen's distributions, not its sequence of numbers: they draw from one
generator seeded by the operating system.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from penstock.runtime.kernels.common import BOOL, Array, Scalar, is_float, widened
from penstock.runtime.kernels.registry import KernelError, kernel, reserve


@functools.cache
def _random() -> np.random.Generator:
    """Made when it is needed: few programs draw, and the module takes 6 MB."""
    return np.random.default_rng()


def _constant(shape: Sequence[int], value: Scalar, out: Array) -> Array:
    """A broadcast view of one element."""
    element = np.array(value).astype(out.dtype) if out.dtype != BOOL else np.array(bool(value))
    return np.broadcast_to(element, reserve(shape, out))


@kernel("aten::full.out")
def full(size: Sequence[int], value: Scalar, out: Array) -> Array:
    """A tensor of one value."""
    return _constant(size, value, out)


@kernel("aten::full_like.out")
def full_like(x: Array, value: Scalar, memory_format: int | None, out: Array) -> Array:
    """A tensor of one value in the shape of another."""
    return _constant(x.shape, value, out)


@kernel("aten::zeros.out")
def zeros(size: Sequence[int], out: Array) -> Array:
    """A tensor of zeros."""
    return _constant(size, 0, out)


@kernel("aten::ones.out")
def ones(size: Sequence[int], out: Array) -> Array:
    """A tensor of ones."""
    return _constant(size, 1, out)


@kernel("aten::empty.out")
def empty(size: Sequence[int], memory_format: int | None, out: Array) -> Array:
    """A tensor of unspecified content: zeros."""
    return _constant(size, 0, out)


@kernel("dim_order_ops::_empty_dim_order.out")
def empty_dim_order(size: Sequence[int], dim_order: Sequence[int] | None, out: Array) -> Array:
    """A tensor of unspecified content (zeros), in the dim_order of the out tensor."""
    return _constant(size, 0, out)


@kernel("aten::scalar_tensor.out")
def scalar_tensor(value: Scalar, out: Array) -> Array:
    """A zero-dimensional tensor of a scalar."""
    return _constant((), value, out)


@kernel("aten::fill.Scalar_out")
def fill(x: Array, value: Scalar, out: Array) -> Array:
    """A tensor of one value in the shape of another."""
    return _constant(x.shape, value, out)


@kernel("aten::fill.Tensor_out")
def fill_tensor(x: Array, value: Array, out: Array) -> Array:
    """A tensor of one value, a tensor's only element, in the shape of another."""
    if value.ndim:
        raise KernelError(f"the value of fill has rank {value.ndim}, not 0")
    return np.broadcast_to(value, x.shape)


@kernel("aten::arange.out")
def arange(end: Scalar, out: Array) -> Array:
    """0, 1, ... below ``end``."""
    return arange_start(0, end, 1, out)


@kernel("aten::arange.start_out")
def arange_start(start: Scalar, end: Scalar, step: Scalar, out: Array) -> Array:
    """start, start + step, ... short of ``end``."""
    if out.dtype == np.int64:
        # ATen's rule for this type alone; the others count in double.
        start, end, step = int(start), int(end), int(step)
    if step == 0 or (end - start) * (1 if step > 0 else -1) < 0:
        raise KernelError(f"no range from {start} to {end} in steps of {step}")
    integral = all(isinstance(value, int) for value in (start, end, step))
    span = end - start
    count = -int(-span // step) if integral else math.ceil(float(span) / float(step))
    (length,) = reserve([count], out)
    if integral or not is_float(out.dtype):
        return np.arange(length, dtype=np.int64) * int(step) + int(start)
    return np.arange(length, dtype=np.float64) * float(step) + float(start)


@kernel("aten::rand.out")
def rand(size: Sequence[int], out: Array) -> Array:
    """Uniform random numbers in [0, 1)."""
    kind = np.float64 if out.dtype.itemsize == 8 else np.float32
    value = _random().random(reserve(size, out), dtype=kind)
    if is_float(out.dtype) and out.dtype.itemsize < 4:
        # Rounding to a short type must not reach 1.
        below = np.nextafter(out.dtype.type(1), out.dtype.type(0))
        value = np.minimum(value, np.float32(below))
    return value


@kernel("aten::randn.out")
def randn(size: Sequence[int], out: Array) -> Array:
    """Normally distributed random numbers of mean 0 and variance 1."""
    kind = np.float64 if out.dtype.itemsize == 8 else np.float32
    return _random().standard_normal(reserve(size, out), dtype=kind)


@kernel("aten::native_dropout.out", outs=2)
def native_dropout(
    x: Array, p: float, train: bool | None, out: Array, mask: Array
) -> tuple[Array, Array]:
    """In training: x / (1 - p) with elements zeroed with probability p, and what was kept."""
    if not 0 <= p <= 1:
        raise KernelError(f"a dropout probability of {p}")
    if train is False or p == 0:
        return x, np.broadcast_to(np.array(True), x.shape)
    kept = np.asarray(_random().random(x.shape, dtype=np.float32) >= p)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    wide = widened(x, x.dtype)
    return np.where(kept, wide * wide.dtype.type(scale), 0), kept
