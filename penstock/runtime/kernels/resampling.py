"""Interpolation: nearest and bilinear upsampling, with and without antialiasing, and grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.common import FLOAT32, INT64, Array, DType, is_float, rounded, widened
from penstock.runtime.kernels.registry import KernelError, kernel, reserve

Sizes: TypeAlias = "Sequence[int] | None"
Factors: TypeAlias = "Sequence[float] | None"


def _target(
    x: Array, output_size: Sizes, factors: Factors, out: Array
) -> list[tuple[int, int, float | None]]:
    """(input size, output size, scale factor) of height and width."""
    if x.ndim != 4 or 0 in x.shape[-2:]:
        raise KernelError(f"upsampling of the shape {x.shape}")
    if (output_size is None) == (factors is None):
        raise KernelError("upsampling needs either an output size or scale factors")
    given: Sequence[float] = output_size if output_size is not None else factors or ()
    if len(given) != 2:
        raise KernelError(f"{len(given)} sizes for two dimensions")
    result: list[tuple[int, int, float | None]] = []
    for size, value in zip(x.shape[-2:], given, strict=True):
        if output_size is not None:
            result.append((size, int(value), None))
        else:
            if not 0 < value < math.inf:
                raise KernelError(f"a scale factor of {value}")
            result.append((size, math.floor(size * value), float(value)))
    if any(target < 1 for _, target, _ in result):
        raise KernelError(f"an output of {[target for _, target, _ in result]}")
    reserve((*x.shape[:2], *(target for _, target, _ in result)), out)
    return result


def _scale(size: int, target: int, factor: float | None, align_corners: bool, of: DType) -> float:
    """Input positions per output position."""
    if align_corners:
        return float(of.type(size - 1) / of.type(target - 1)) if target > 1 else 0.0
    return float(of.type(1 / factor) if factor else of.type(size) / of.type(target))


@kernel("aten::upsample_nearest2d.vec_out")
def upsample_nearest2d(x: Array, output_size: Sizes, factors: Factors, out: Array) -> Array:
    """Each output takes the input element at or before its position."""
    for axis, (size, target, factor) in enumerate(_target(x, output_size, factors, out), 2):
        if target in (size, 2 * size):  # whatever the factor was
            position = np.arange(target) // (target // max(size, 1))
        else:
            step = np.float32(_scale(size, target, factor, False, FLOAT32))
            position = np.floor(np.arange(target, dtype=FLOAT32) * step).astype(INT64)
        x = np.take(x, np.minimum(position, size - 1), axis)
    return x


@kernel("aten::upsample_bilinear2d.vec_out")
def upsample_bilinear2d(
    x: Array, output_size: Sizes, align_corners: bool, factors: Factors, out: Array
) -> Array:
    """Linear interpolation along height and width."""
    if not is_float(x.dtype):
        raise KernelError(f"bilinear upsampling of {x.dtype}")
    wide = widened(x, x.dtype)
    for axis, (size, target, factor) in enumerate(_target(x, output_size, factors, out), 2):
        if target != size:  # else it stays as it is, whatever the factor was
            wide = _linear(wide, axis, size, target, factor, align_corners)
    return rounded(wide, x.dtype)


def _linear(
    x: Array, axis: int, size: int, target: int, factor: float | None, align_corners: bool
) -> Array:
    of = x.dtype.type
    step = of(_scale(size, target, factor, align_corners, x.dtype))
    index = np.arange(target, dtype=x.dtype)
    position = index * step
    if not align_corners:
        position = np.maximum((index + of(0.5)) * step - of(0.5), of(0))
    first = np.minimum(position.astype(INT64), size - 1)
    second = np.minimum(first + 1, size - 1)
    shape = [1] * x.ndim
    shape[axis] = target
    share = np.clip(position - first, 0, 1).astype(x.dtype).reshape(shape)
    return np.asarray(np.take(x, first, axis) * (1 - share) + np.take(x, second, axis) * share)


# -- antialiased -----------------------------------------------------------------------------------


def _triangle_weights(size: int, target: int, scale: float, of: DType) -> Array:
    """(target, size) weights of a triangle filter as wide as the scale, each row of sum 1."""
    support = max(scale, 1.0)
    centre = scale * (np.arange(target) + 0.5)
    low = np.maximum((centre - support + 0.5).astype(INT64), 0)[:, None]
    high = np.minimum((centre + support + 0.5).astype(INT64), size)[:, None]
    position = np.arange(size)
    weight = np.maximum(0, 1 - np.abs((position + 0.5 - centre[:, None]) / support))
    weight *= (position >= low) & (position < high)
    total = weight.sum(1, keepdims=True)
    nearest = np.clip(centre.astype(INT64), 0, size - 1)[:, None] == position
    normal = np.where(total > 0, weight / np.where(total > 0, total, 1), nearest)
    return np.asarray(normal, of)


def _blended(weights: Array, x: Array) -> Array:
    """``weights`` (target, size) applied to ``x`` (..., size, columns). In a product of matrices
    an infinity would reach, as zero times infinity, values that it has no share in."""
    if np.isfinite(x).all():
        return matmul(weights, x)
    shape = (*x.shape[:-2], weights.shape[0], x.shape[-1])
    result = np.zeros(shape, np.result_type(weights, x))
    with np.errstate(invalid="ignore", over="ignore"):
        for row, of_row in enumerate(weights):
            for place in np.flatnonzero(of_row):
                result[..., row, :] += of_row[place] * x[..., place, :]
    return result


@kernel("aten::_upsample_bilinear2d_aa.out")
def upsample_bilinear2d_aa(
    x: Array,
    output_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
    out: Array,
) -> Array:
    """Bilinear with a filter as wide as the step: what is scaled down is averaged."""
    if x.ndim != 4:
        raise KernelError(f"upsampling of the shape {x.shape}")
    kind = FLOAT32 if not is_float(x.dtype) else x.dtype
    wide = widened(x, kind)
    sizes = _target(x, output_size, None, out)
    weights = []
    for (size, target, _), factor in zip(sizes, (scales_h, scales_w), strict=True):
        scale = _scale(size, target, factor or None, align_corners, np.dtype(np.float64))
        if not scale >= 0 or size * target > 1 << 26:
            raise KernelError(f"upsampling of {size} to {target} elements")
        weights.append(_triangle_weights(size, target, scale, wide.dtype))
    value = _blended(weights[0], wide)
    value = _blended(weights[1], value.swapaxes(2, 3)).swapaxes(2, 3)
    if not is_float(x.dtype):
        value = np.rint(value)
    return rounded(value, x.dtype)


# -- sampling on a grid ----------------------------------------------------------------------------


def _unnormalized(position: Array, size: int, align_corners: bool) -> Array:
    """From -1..1 to 0..size-1."""
    of = position.dtype.type
    if align_corners:
        return np.asarray((position + 1) * of((size - 1) / 2))
    return np.asarray(((position + 1) * of(size) - 1) * of(0.5))


def _bounded(position: Array, size: int, padding: int, align_corners: bool) -> Array:
    """Positions outside, as the padding mode (zeros, border, reflection) has them."""
    if padding == 2:
        low = 0.0 if align_corners else -0.5
        span = size - 1.0 if align_corners else float(size)
        if span <= 0:
            return np.zeros_like(position)
        away = np.abs(position - position.dtype.type(low))
        turns = np.floor(away / span)
        rest = away - turns * span
        position = np.where(turns % 2 == 0, rest, span - rest).astype(position.dtype) + low
    if padding:
        # NaN goes to 0 here.
        position = np.fmin(np.fmax(position, 0), size - 1)
    return position.astype(position.dtype, copy=False)


def _picked(x: Array, row: Array, column: Array) -> Array:
    """x (N, C, H, W) at float positions (N, h, w) without fraction; zero outside."""
    height, width = x.shape[2:]
    row, column = row.astype(np.float64), column.astype(np.float64)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = np.where(inside, row * width + column, 0)
    count, channels = x.shape[:2]
    planes = x.reshape(count, channels, height * width)
    index = flat.astype(INT64).reshape(count, 1, math.prod(row.shape[1:]))
    spread = np.broadcast_to(index, (count, channels, index.shape[2]))
    values = np.take_along_axis(planes, spread, 2)
    values = values.reshape(count, channels, *row.shape[1:])
    return np.where(inside[:, None], values, x.dtype.type(0))


def _cubic(t: Array) -> list[Array]:
    """Weights of the four neighbours at -1, 0, 1, 2 (cubic convolution, a = -0.75)."""
    a = -0.75

    def near(d: Array) -> Array:
        return np.asarray(((a + 2) * d - (a + 3)) * d * d + 1)

    def far(d: Array) -> Array:
        return np.asarray(((a * d - 5 * a) * d + 8 * a) * d - 4 * a)

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _bicubic(
    x: Array, rows: Array, columns: Array, bounded: Callable[[Array, Array], tuple[Array, Array]]
) -> Array:
    top, left = np.floor(rows), np.floor(columns)
    across = _cubic(columns - left)
    value: Array = np.zeros((), x.dtype)
    for i, down in enumerate(_cubic(rows - top)):
        for j, weight in enumerate(across):
            at = bounded(top + (i - 1), left + (j - 1))
            value = value + _picked(x, *at) * (down * weight)[:, None]
    return value


@kernel("aten::grid_sampler_2d.out")
def grid_sampler_2d(
    x: Array, grid: Array, interpolation: int, padding: int, align_corners: bool, out: Array
) -> Array:
    """x at the positions (x, y) in -1..1 that the grid holds: bilinear, nearest or bicubic."""
    if x.ndim != 4 or grid.ndim != 4 or grid.shape[3] != 2 or grid.shape[0] != x.shape[0]:
        raise KernelError(f"a grid of shape {grid.shape} for the shape {x.shape}")
    if interpolation not in (0, 1, 2) or padding not in (0, 1, 2) or 0 in x.shape[2:]:
        raise KernelError(f"interpolation {interpolation}, padding {padding}, shape {x.shape}")
    reserve((*x.shape[:2], *grid.shape[1:3]), out)
    wide = widened(x, x.dtype)
    height, width = x.shape[2:]
    columns = _unnormalized(widened(grid[..., 0], x.dtype), width, align_corners)
    rows = _unnormalized(widened(grid[..., 1], x.dtype), height, align_corners)

    def bounded(row: Array, column: Array) -> tuple[Array, Array]:
        return (
            _bounded(row, height, padding, align_corners),
            _bounded(column, width, padding, align_corners),
        )

    if interpolation == 2:
        return rounded(_bicubic(wide, rows, columns, bounded), x.dtype)
    rows, columns = bounded(rows, columns)
    if interpolation == 1:
        return rounded(_picked(wide, np.rint(rows), np.rint(columns)), x.dtype)
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    value = _picked(wide, top, left) * ((1 - down) * (1 - right))
    value += _picked(wide, top, left + 1) * ((1 - down) * right)
    value += _picked(wide, top + 1, left) * (down * (1 - right))
    value += _picked(wide, top + 1, left + 1) * (down * right)
    return rounded(value, x.dtype)
