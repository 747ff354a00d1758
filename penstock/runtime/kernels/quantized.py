"""Quantize, dequantize, the choice of their parameters, and the quantized add.

Rounding is that of the stock kernels: float32 arithmetic with the reciprocal of the scale, to the
nearest integer (the even one of two), then the zero point, then the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.runtime.dtypes import numpy_dtype
from penstock.runtime.kernels.common import FLOAT32, FLOAT64, INT64, Array, axis_of, is_float
from penstock.runtime.kernels.registry import KernelError, kernel

#: Elements of a block that stays in the L2 cache between the steps.
_BLOCK = 1 << 15


def _integer_type(dtype: int, low: int, high: int) -> np.dtype[Any]:
    kind = numpy_dtype(dtype)
    if kind not in (np.uint8, np.int8, np.uint16, np.int16, np.int32):
        raise KernelError(f"quantization to {kind}")
    limits = np.iinfo(kind)
    if low < limits.min or high > limits.max:
        raise KernelError(f"the range {low}..{high} is beyond {kind}")
    return kind


def _quantized(x: Array, scale: Array, zero_point: Array, low: int, high: int, dtype: int) -> Array:
    """``scale`` and ``zero_point`` broadcast against x."""
    if not is_float(x.dtype):
        raise KernelError(f"quantization of {x.dtype}")
    kind = _integer_type(dtype, low, high)
    inverse = np.float32(1) / scale.astype(FLOAT32)
    # Small integers add up exactly in float32, larger ones need float64.
    near = abs(low) < 1 << 22 and abs(high) < 1 << 22 and bool((np.abs(zero_point) < 1 << 22).all())
    step = FLOAT32 if near and x.dtype != FLOAT64 else FLOAT64
    offset = zero_point.astype(step)

    def block(part: Array, inverse: Array, offset: Array) -> Array:
        if part.dtype != FLOAT64:
            part = part.astype(FLOAT32, copy=False)
        value = np.multiply(part, inverse).astype(FLOAT32, copy=False)
        value = np.rint(value, out=value).astype(step, copy=False)
        value += offset
        # NaN becomes the lower end, as the largest of it and the lower end does in C.
        np.fmax(value, step.type(low), out=value)
        np.fmin(value, step.type(high), out=value)
        return np.asarray(value.astype(kind))

    if inverse.size > 1:
        return block(x, inverse, offset)
    result = np.empty(x.shape, kind)
    source, target = x.reshape(-1), result.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        target[part] = block(source[part], inverse.reshape(()), offset.reshape(()))
    return result


def _dequantized(x: Array, scale: Array, zero_point: Array | None, out: Array) -> Array:
    if x.dtype.kind not in "iu":
        raise KernelError(f"dequantization of {x.dtype}")
    if zero_point is None or not np.any(zero_point):
        value = x.astype(FLOAT32)
    elif x.dtype.itemsize < 4 and bool((np.abs(zero_point) < 1 << 22).all()):
        value = x.astype(FLOAT32)
        value -= zero_point.astype(FLOAT32)
    else:
        value = (x.astype(np.int32) - zero_point.astype(np.int32)).astype(FLOAT32)
    value *= scale.astype(FLOAT32)
    return value


def _one(value: Array, name: str, kinds: str) -> Array:
    if value.size != 1 or value.dtype.kind not in kinds:
        raise KernelError(f"{name} must be one number, not {value.dtype} of shape {value.shape}")
    return value.reshape(())


def _per_channel(value: Array, x: Array, axis: int, name: str) -> Array:
    """A parameter for each index of one dimension, shaped to broadcast."""
    if value.size != x.shape[axis]:
        raise KernelError(f"{value.size} {name} for {x.shape[axis]} channels")
    shape = [1] * x.ndim
    shape[axis] = value.size
    return value.reshape(shape)


def _channel_axis(x: Array, axis: int) -> int:
    if x.ndim == 0:
        raise KernelError("channels of a zero-dimensional tensor")
    return axis_of(axis, x.ndim)


# -- quantize --------------------------------------------------------------------------------------


@kernel("quantized_decomposed::quantize_per_tensor.out")
def quantize_per_tensor(
    x: Array, scale: float, zero_point: int, low: int, high: int, dtype: int, out: Array
) -> Array:
    """Integers: x / scale + zero_point, rounded and kept within low..high."""
    return _quantized(x, np.array(scale), np.array(zero_point), low, high, dtype)


@kernel("quantized_decomposed::quantize_per_tensor.Tensor_out")
def quantize_per_tensor_tensor(
    x: Array, scale: Array, zero_point: Array, low: int, high: int, dtype: int, out: Array
) -> Array:
    """The same with scale and zero point as tensors of one element."""
    parameters = _one(scale, "scale", "f"), _one(zero_point, "zero_point", "i")
    return _quantized(x, *parameters, low, high, dtype)


@kernel("quantized_decomposed::quantize_per_channel.out")
def quantize_per_channel(
    x: Array,
    scales: Array,
    zero_points: Array,
    axis: int,
    low: int,
    high: int,
    dtype: int,
    out: Array,
) -> Array:
    """The same with a scale and zero point for each index of one dimension."""
    at = _channel_axis(x, axis)
    scale = _per_channel(scales, x, at, "scales")
    return _quantized(x, scale, _per_channel(zero_points, x, at, "zero points"), low, high, dtype)


def _per_token(value: Array, x: Array, name: str) -> Array:
    if x.ndim == 0 or value.size * x.shape[-1] != x.size:
        raise KernelError(f"{value.size} {name} for the shape {x.shape}")
    return value.reshape(*x.shape[:-1], 1)


@kernel("quantized_decomposed::quantize_per_token.out")
def quantize_per_token(
    x: Array, scales: Array, zero_points: Array, low: int, high: int, dtype: int, out: Array
) -> Array:
    """The same with a scale and zero point for each row of the last dimension."""
    scale = _per_token(scales, x, "scales")
    return _quantized(x, scale, _per_token(zero_points, x, "zero points"), low, high, dtype)


# -- dequantize ------------------------------------------------------------------------------------


@kernel("quantized_decomposed::dequantize_per_tensor.out")
def dequantize_per_tensor(
    x: Array,
    scale: float,
    zero_point: int,
    low: int,
    high: int,
    dtype: int,
    out_dtype: int | None,
    out: Array,
) -> Array:
    """(x - zero_point) * scale, in float32."""
    return _dequantized(x, np.array(scale), np.array(zero_point), out)


@kernel("quantized_decomposed::dequantize_per_tensor.Tensor_out")
def dequantize_per_tensor_tensor(
    x: Array,
    scale: Array,
    zero_point: Array,
    low: int,
    high: int,
    dtype: int,
    out_dtype: int | None,
    out: Array,
) -> Array:
    """The same with scale and zero point as tensors of one element."""
    return _dequantized(x, _one(scale, "scale", "f"), _one(zero_point, "zero_point", "i"), out)


@kernel("quantized_decomposed::dequantize_per_channel.out")
def dequantize_per_channel(
    x: Array,
    scales: Array,
    zero_points: Array | None,
    axis: int,
    low: int,
    high: int,
    dtype: int,
    out_dtype: int | None,
    out: Array,
) -> Array:
    """The same with a scale, and maybe a zero point, for each index of one dimension."""
    at = _channel_axis(x, axis)
    points = None if zero_points is None else _per_channel(zero_points, x, at, "zero points")
    return _dequantized(x, _per_channel(scales, x, at, "scales"), points, out)


@kernel("quantized_decomposed::dequantize_per_token.out")
def dequantize_per_token(
    x: Array,
    scales: Array,
    zero_points: Array,
    low: int,
    high: int,
    dtype: int,
    out_dtype: int,
    out: Array,
) -> Array:
    """The same with a scale and zero point for each row of the last dimension."""
    points = _per_token(zero_points, x, "zero points")
    return _dequantized(x, _per_token(scales, x, "scales"), points, out)


# -- parameters ------------------------------------------------------------------------------------

#: Scales are not made smaller than this (the smallest normal number of float16, about).
_SMALLEST_SCALE = float(np.float32(6.1e-5))


def _parameters(low: Array, high: Array, qmin: int, qmax: int) -> tuple[Array, Array]:
    """Scale (float64) and zero point (int64) for values between ``low`` and ``high`` (float32).

    The range is widened to hold 0. The zero point comes from that end of the range which has the
    smaller rounding error, and is kept within qmin..qmax.
    """
    low = np.minimum(low, np.float32(0)).astype(FLOAT32)
    high = np.maximum(high, np.float32(0)).astype(FLOAT32)
    steps = qmax - qmin
    scale = (high.astype(FLOAT64) - low) / steps
    single = scale.astype(FLOAT32)
    useless = (single == 0) | np.isinf(np.float32(1) / single)
    scale = np.where(useless, 0.1, scale)
    small = scale < _SMALLEST_SCALE
    least = np.float32(_SMALLEST_SCALE)
    growth = least / scale.astype(FLOAT32)
    grown_high = np.where(
        low == 0, least * np.float32(steps), np.where(high == 0, high, high * growth)
    )
    grown_low = np.where(
        low == 0, low, np.where(high == 0, -least * np.float32(steps), low * growth)
    )
    low = np.where(small, grown_low, low).astype(FLOAT64)
    high = np.where(small, grown_high, high).astype(FLOAT64)
    scale = np.where(small, _SMALLEST_SCALE, scale)

    from_low, from_high = qmin - low / scale, qmax - high / scale
    low_error = abs(qmin) - np.abs(low / scale)
    high_error = abs(qmax) - np.abs(high / scale)
    chosen = np.where(low_error < high_error, from_low, from_high)
    nearest = np.rint(chosen.astype(FLOAT32))
    point = np.where(chosen < qmin, qmin, np.where(chosen > qmax, qmax, nearest))
    return scale, np.nan_to_num(point).astype(INT64)


def _check_input(x: Array, low: int, high: int) -> None:
    if x.dtype != FLOAT32 or x.size == 0 or low >= high:
        raise KernelError(f"a choice of parameters for {x.dtype}, {x.shape}, {low}..{high}")


@kernel("quantized_decomposed::choose_qparams.Tensor_out", outs=2)
def choose_qparams(
    x: Array,
    low: int,
    high: int,
    eps: float,
    dtype: int,
    scale_out: Array,
    zero_point_out: Array,
) -> tuple[Array, Array]:
    """The scale and zero point that spread the range of x over low..high."""
    _check_input(x, low, high)
    scale, point = _parameters(x.min(), x.max(), low, high)
    return scale.reshape(scale_out.shape), point.reshape(zero_point_out.shape)


@kernel("quantized_decomposed::choose_qparams_per_token_asymmetric.out", outs=2)
def choose_qparams_per_token(
    x: Array, dtype: int, scale_out: Array, zero_point_out: Array
) -> tuple[Array, Array]:
    """The scale and zero point for int8 of each row of the last dimension."""
    if x.ndim == 0:
        raise KernelError("rows of a zero-dimensional tensor")
    _check_input(x, -128, 127)
    return _parameters(x.min(-1, keepdims=True), x.max(-1, keepdims=True), -128, 127)


# -- add -------------------------------------------------------------------------------------------


def _byte_range(low: int, high: int) -> None:
    if not 0 <= low <= high <= 255:
        raise KernelError(f"the range {low}..{high} is not within 0..255")


@kernel("quantized_decomposed::add.out")
def add(
    a: Array,
    a_scale: float,
    a_zero_point: int,
    a_low: int,
    a_high: int,
    b: Array,
    b_scale: float,
    b_zero_point: int,
    b_low: int,
    b_high: int,
    out_scale: float,
    out_zero_point: int,
    out_low: int,
    out_high: int,
    out: Array,
) -> Array:
    """The sum of two quantized tensors of one shape, quantized: in float32 between."""
    for low, high in ((a_low, a_high), (b_low, b_high), (out_low, out_high)):
        _byte_range(low, high)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype != out.dtype:
        raise KernelError(f"a sum of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    total = _dequantized(a, np.array(a_scale), np.array(a_zero_point), out)
    total += _dequantized(b, np.array(b_scale), np.array(b_zero_point), out)
    total *= np.float32(1) / np.float32(out_scale)
    np.rint(total, out=total)
    total += np.float32(out_zero_point)
    np.fmin(np.fmax(total, np.float32(out_low)), np.float32(out_high), out=total)
    limits = np.iinfo(out.dtype)
    return np.clip(total, limits.min, limits.max).astype(out.dtype)
