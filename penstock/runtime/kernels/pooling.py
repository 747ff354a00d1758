"""Average and maximum pooling, one spatial dimension after the other.

A window's sum (or maximum) over rows and then columns needs height + width slices instead of
height * width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from penstock.runtime.kernels.common import (
    INT64,
    Array,
    Index,
    documented,
    is_float,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel, reserve
from penstock.runtime.kernels.windows import Axis, spatial

#: A window has at most this many rows or columns that see real input.
_MOST_TAPS = 1 << 20


def _pool_axis(
    size: int, taps: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Axis:
    """One dimension of a pooling window, with ATen's checks and output size."""
    if taps < 1 or stride < 1 or dilation < 1 or not 0 <= 2 * padding <= taps:
        raise KernelError(f"window {taps}, stride {stride}, padding {padding}, dilation {dilation}")
    room = size + 2 * padding - dilation * (taps - 1) - 1
    out = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    if out < 1:
        raise KernelError(f"a window of {taps} over {size} elements")
    axis = Axis(size, out, taps, stride, padding, dilation)
    if len(axis.live_taps) > _MOST_TAPS:
        raise KernelError(f"a pooling window of {taps}")
    return axis


def _axes(
    x: Array,
    rank: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> dict[int, Axis]:
    """The window along each spatial dimension, which are counted from the last."""
    if x.ndim not in (rank + 1, rank + 2):
        raise KernelError(f"{rank}-d pooling of a tensor of rank {x.ndim}")
    window = spatial(kernel_size, rank, "kernel_size")
    steps = spatial(stride, rank, "stride") if len(stride) else window
    pads = spatial(padding if len(padding) else [0], rank, "padding")
    spread = spatial(dilation if len(dilation) else [1], rank, "dilation")
    return {
        i - rank: _pool_axis(x.shape[i - rank], window[i], steps[i], pads[i], spread[i], ceil_mode)
        for i in range(rank)
    }


def _reserve(x: Array, axes: dict[int, Axis], out: Array) -> None:
    reserve((*x.shape[: -len(axes)], *(axis.out for axis in axes.values())), out)


def _along(axis: Axis, tap: int, position: int) -> tuple[Index, Index] | None:
    """The slices of outputs and inputs of one tap, for the last or last but one dimension."""
    span = axis.span(tap, 0, axis.out)
    if span is None:
        return None
    rest = (slice(None),) * (-1 - position)
    return (..., span[0], *rest), (..., span[1], *rest)


# -- average ---------------------------------------------------------------------------------------


def _window_sums(x: Array, axis: Axis, position: int) -> Array:
    shape = list(x.shape)
    shape[position] = axis.out
    total = np.zeros(shape, x.dtype)
    for tap in axis.live_taps:
        slices = _along(axis, tap, position)
        if slices is not None:
            total[slices[0]] += x[slices[1]]
    return total


def _window_counts(axis: Axis, include_padding: bool) -> Array:
    """How many elements each window counts: those within the padded, or the real, input."""
    start = np.arange(axis.out, dtype=INT64) * axis.stride - axis.padding
    stop = np.minimum(start + axis.taps, axis.size + axis.padding)
    if not include_padding:
        start, stop = np.maximum(start, 0), np.minimum(stop, axis.size)
    return np.asarray(stop - start)


def _average(rank: int) -> Callable[..., Array]:
    def call(
        x: Array,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
        out: Array,
    ) -> Array:
        axes = _axes(x, rank, kernel_size, stride, padding, [1], ceil_mode)
        if divisor_override == 0:
            raise KernelError("a divisor of 0")
        _reserve(x, axes, out)
        total = widened(x, x.dtype)
        for position, axis in axes.items():
            total = _window_sums(total, axis, position)
        divisor = np.array(1 if divisor_override is None else divisor_override)
        for axis in axes.values() if divisor_override is None else ():
            divisor = np.multiply.outer(divisor, _window_counts(axis, count_include_pad))
        if is_float(x.dtype):
            total /= divisor.astype(total.dtype)
            return rounded(total, x.dtype)
        # Towards zero, as C divides.
        return np.asarray(np.trunc(total / divisor), x.dtype)

    return documented(call, f"avg_pool{rank}d", f"The mean of each window in {rank} dimensions.")


def _adaptive_average(rank: int) -> Callable[..., Array]:
    def call(x: Array, output_size: Sequence[int], out: Array) -> Array:
        if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape[-rank:]:
            raise KernelError(f"adaptive pooling of the shape {x.shape}")
        sizes = spatial(output_size, rank, "output_size")
        reserve((*x.shape[:-rank], *sizes), out)
        reserve([max(sizes)], out)  # the product above is 0 for an empty batch
        wide = widened(x, x.dtype)
        for position, parts in zip(range(-rank, 0), sizes, strict=True):
            wide = _adaptive(wide, position, parts)
        return rounded(wide, x.dtype)

    doc = "Means over a grid of ``output_size`` windows that cover the input."
    return documented(call, f"adaptive_avg_pool{rank}d", doc)


def _adaptive(x: Array, position: int, parts: int) -> Array:
    axis = x.ndim + position
    size = x.shape[axis]
    if parts == 0:
        return x[(slice(None),) * axis + (slice(0, 0),)]
    start = np.arange(parts, dtype=INT64) * size // parts
    stop = -(-np.arange(1, parts + 1, dtype=INT64) * size // parts)
    shape = [1] * x.ndim
    shape[axis] = parts
    counts = (stop - start).astype(x.dtype).reshape(shape)
    # reduceat sums [start, stop) and, at odd places, what lies between, which is dropped. It takes
    # no index past the end, so there is one zero more.
    pad = list(x.shape)
    pad[axis] = 1
    longer = np.concatenate([x, np.zeros(pad, x.dtype)], axis)
    between = np.stack([start, stop], 1).reshape(-1)
    sums = np.add.reduceat(longer, between, axis)
    return np.asarray(sums[(slice(None),) * axis + (slice(None, None, 2),)] / counts)


# -- maximum ---------------------------------------------------------------------------------------


def _window_maxima(x: Array, index: Array, axis: Axis, position: int) -> tuple[Array, Array]:
    """The largest element of each window and its index; the first of equals, the last NaN."""
    shape = list(x.shape)
    shape[position] = axis.out
    low = -np.inf if is_float(x.dtype) else np.iinfo(x.dtype).min
    best = np.full(shape, low, x.dtype)
    where = np.full(shape, -1, INT64)
    for tap in axis.live_taps:
        slices = _along(axis, tap, position)
        if slices is None:
            continue
        outputs, inputs = slices
        candidate = x[inputs]
        better = ~(candidate <= best[outputs])
        better |= where[outputs] < 0
        # NaN <= NaN is False, so a later NaN wins; a number never wins over a NaN.
        if is_float(x.dtype):
            better &= ~np.isnan(best[outputs]) | np.isnan(candidate)
        np.copyto(best[outputs], candidate, where=better)
        np.copyto(where[outputs], index[inputs], where=better)
    return best, where


def _maximum(rank: int) -> Callable[..., tuple[Array, Array]]:
    def call(
        x: Array,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
        out: Array,
        indices: Array,
    ) -> tuple[Array, Array]:
        axes = _axes(x, rank, kernel_size, stride, padding, dilation, ceil_mode)
        _reserve(x, axes, out)
        best = widened(x, x.dtype)
        sizes = x.shape[-rank:]
        where = np.arange(math.prod(sizes), dtype=INT64).reshape(sizes)
        where = np.broadcast_to(where, x.shape)
        # The last dimension first: then of equal maxima the first in reading order is kept.
        for position in range(-1, -rank - 1, -1):
            best, where = _window_maxima(best, where, axes[position], position)
        return rounded(best, x.dtype), where

    doc = f"The maximum of each window in {rank} dimensions, and its position among the elements."
    return documented(call, f"max_pool{rank}d_with_indices", doc)


for _rank in (2, 3):
    kernel(f"aten::avg_pool{_rank}d.out")(_average(_rank))
    kernel(f"aten::_adaptive_avg_pool{_rank}d.out")(_adaptive_average(_rank))
    kernel(f"aten::max_pool{_rank}d_with_indices.out", outs=2)(_maximum(_rank))


@kernel("aten::max_pool2d_with_indices_backward.grad_input")
def max_pool2d_backward(
    grad: Array,
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Array,
    out: Array,
) -> Array:
    """The gradient added up at the positions that were the maxima."""
    if x.ndim not in (3, 4) or grad.shape != indices.shape or grad.shape[:-2] != x.shape[:-2]:
        raise KernelError(f"a gradient of shape {grad.shape} for an input of shape {x.shape}")
    plane = x.shape[-1] * x.shape[-2]
    where = indices.reshape(-1, indices.shape[-1] * indices.shape[-2])
    if where.size and (where.min() < 0 or where.max() >= plane):
        raise KernelError(f"an index outside of a plane of {plane} elements")
    wide = widened(grad, grad.dtype)
    total = np.zeros((where.shape[0], plane), wide.dtype)
    base = np.arange(where.shape[0], dtype=INT64)[:, None] * plane
    np.add.at(total.reshape(-1), (where + base).reshape(-1), wide.reshape(-1))
    return rounded(total.reshape(x.shape), grad.dtype)
