"""Fourier transforms between real and complex tensors, by NumPy's pocketfft."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.runtime.kernels.common import Array, axis_of, is_float, widened
from penstock.runtime.kernels.registry import KernelError, kernel, reserve


def _axes(x: Array, dim: Sequence[int]) -> list[int]:
    axes = [axis_of(d, x.ndim) for d in dim]
    if not axes or x.ndim == 0 or len(set(axes)) != len(axes):
        raise KernelError(f"a transform over dimensions {list(dim)} of the shape {x.shape}")
    return axes


def _factor(normalization: int, count: int) -> float:
    """ATen's three normalizations: none, by the root of the count, by the count."""
    factors = {0: 1.0, 1: 1 / math.sqrt(count or 1), 2: 1 / (count or 1)}
    if normalization not in factors:
        raise KernelError(f"unknown normalization {normalization}")
    return factors[normalization]


def _scaled(value: Array, factor: float, dtype: Any) -> Array:
    return (value * factor if factor != 1 else value).astype(dtype, copy=False)


@kernel("aten::_fft_r2c.out")
def fft_r2c(x: Array, dim: Sequence[int], normalization: int, onesided: bool, out: Array) -> Array:
    """The transform of a real tensor; ``onesided`` leaves out the half that is its mirror."""
    if not is_float(x.dtype):
        raise KernelError(f"a real transform of {x.dtype}")
    axes = _axes(x, dim)
    wide = widened(x, x.dtype)
    factor = _factor(normalization, math.prod(x.shape[axis] for axis in axes))
    value = np.fft.rfftn(wide, axes=axes) if onesided else np.fft.fftn(wide, axes=axes)
    kind = np.complex128 if wide.dtype == np.float64 else np.complex64
    return _scaled(value, factor, kind)


@kernel("aten::_fft_c2r.out")
def fft_c2r(
    x: Array, dim: Sequence[int], normalization: int, last_dim_size: int, out: Array
) -> Array:
    """The inverse transform to a real tensor whose last transformed size is given."""
    if x.dtype.kind != "c":
        raise KernelError(f"a complex transform of {x.dtype}")
    axes = _axes(x, dim)
    last = axes[-1]
    if last_dim_size < 1 or x.shape[last] < last_dim_size // 2 + 1:
        raise KernelError(f"{x.shape[last]} coefficients for a size of {last_dim_size}")
    shape = list(x.shape)
    shape[last] = last_dim_size
    reserve(shape, out)
    sizes = [shape[axis] for axis in axes]
    # irfftn divides by the count, ATen's normalization starts from no division.
    count = math.prod(sizes)
    value = np.fft.irfftn(x, sizes, axes) * (_factor(normalization, count) * count)
    return np.asarray(value, np.float64 if x.dtype == np.complex128 else np.float32)
