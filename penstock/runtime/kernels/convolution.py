"""Convolution: plain, grouped, dilated, transposed, over any number of spatial dimensions.

Four ways, all of whole-array work:

- a 1x1 window is one matrix product on the input as it is;
- a depthwise convolution multiplies and adds shifted copies (:mod:`.depthwise`);
- everything else gathers its windows into columns, a bounded number of output rows at a time, and
  multiplies by the weights ("im2col"); channels-last input keeps its layout in this;
- a transposed convolution is the reverse: a product, then the columns are added back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.columns import EVERY, columns, rows_at_a_time
from penstock.runtime.kernels.common import (
    Array,
    promote,
    rounded,
    widened,
)
from penstock.runtime.kernels.depthwise import depthwise, is_depthwise
from penstock.runtime.kernels.registry import KernelError, kernel, reserve
from penstock.runtime.kernels.windows import Axis, axes, spatial, taps


@kernel("aten::convolution.out")
def convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    out: Array,
) -> Array:
    """Convolution of (N, C, ...) with weights (O, C / groups, ...), or its transpose."""
    _check(x, weight, bias, transposed, groups)
    dtype = promote(x.dtype, weight.dtype)
    wide, kernels = widened(x, dtype), widened(weight, dtype)
    addend = None if bias is None else widened(bias, dtype)
    if transposed:
        dims = transposed_axes(x, weight, stride, padding, dilation, output_padding)
        reserve((x.shape[0], weight.shape[1] * groups, *(a.size for a in dims)), out)
        value = scatter(wide, kernels, dims, groups)
        if addend is not None:
            value += addend.reshape(-1, *[1] * len(dims))
        return rounded(value, dtype)
    dims = axes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    shape = reserve((x.shape[0], weight.shape[0], *(a.out for a in dims)), out)
    return rounded(_forward(wide, kernels, addend, dims, groups, shape, out), dtype)


def _check(x: Array, weight: Array, bias: Array | None, transposed: bool, groups: int) -> None:
    if x.ndim < 3 or x.ndim != weight.ndim:
        raise KernelError(f"no convolution of the shapes {x.shape} and {weight.shape}")
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    if groups < 1 or x.shape[1] != channels or channels % groups or outputs % groups:
        raise KernelError(f"shapes {x.shape} and {weight.shape} in {groups} groups")
    if bias is not None and bias.shape != (outputs,):
        raise KernelError(f"a bias of shape {bias.shape} for {outputs} channels")


def channels_last(x: Array) -> bool:
    """Whether the memory of (N, C, ...) is that of (N, ..., C), and not (N, C, ...) as well."""
    return not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous


def _forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    dims: tuple[Axis, ...],
    groups: int,
    shape: tuple[int, ...],
    out: Array,
) -> Array:
    last = channels_last(x) and groups == 1
    usable = out.shape == shape and out.dtype == x.dtype and not np.may_share_memory(out, x)
    if last:
        memory = (shape[0], *shape[2:], shape[1])
        usable = usable and np.moveaxis(out, 1, -1).flags.c_contiguous
        result = out if usable else np.moveaxis(np.empty(memory, x.dtype), -1, 1)
        _columns_last(x, weight, bias, dims, np.moveaxis(result, 1, -1))
        return result
    result = out if usable and out.flags.c_contiguous else np.empty(shape, x.dtype)
    if is_depthwise(x, weight, dims, groups):
        depthwise(x, weight, bias, dims, result)
        return result
    _columns_first(x, weight, dims, groups, result)
    if bias is not None:
        result += bias.reshape(-1, *[1] * len(dims))
    return result


def is_pointwise(dims: Sequence[Axis]) -> bool:
    """A 1x1 window that touches every element once."""
    return all(axis.taps == 1 and axis.stride == 1 and axis.padding == 0 for axis in dims)


def _columns_first(
    x: Array, weight: Array, dims: Sequence[Axis], groups: int, result: Array
) -> None:
    """result = weight * x for (N, C, ...) memory."""
    depth = math.prod(weight.shape[1:])
    matrix = weight.reshape(groups, weight.shape[0] // groups, depth)
    for image, target in zip(x, result, strict=True):
        if is_pointwise(dims):
            flat = target.reshape(groups, matrix.shape[1], -1)
            matmul(matrix, image.reshape(groups, depth, -1), out=flat)
            continue
        for rows, piece in columns(image, dims):
            part = target[:, rows]
            gathered = piece.reshape(groups, depth, -1)
            if part.flags.c_contiguous:
                matmul(matrix, gathered, out=part.reshape(groups, matrix.shape[1], -1))
            else:
                part[...] = matmul(matrix, gathered).reshape(part.shape)


def _columns_last(
    x: Array, weight: Array, bias: Array | None, dims: Sequence[Axis], result: Array
) -> None:
    """result = weight * x + bias for (N, ..., C) memory; ``result`` is (N, ..., O)."""
    outputs, channels = weight.shape[:2]
    matrix = np.ascontiguousarray(np.moveaxis(weight, 1, -1)).reshape(outputs, -1).T
    for image, target in zip(np.moveaxis(x, 1, -1), result, strict=True):
        if is_pointwise(dims):
            matmul(image.reshape(-1, channels), matrix, out=target.reshape(-1, outputs))
            continue
        for rows, piece in columns(image, dims, channels_last=True):
            flat = target[rows].reshape(-1, outputs)
            matmul(piece.reshape(-1, matrix.shape[0]), matrix, out=flat)
    if bias is not None:
        result += bias


# -- transposed ------------------------------------------------------------------------------------


def transposed_axes(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> tuple[Axis, ...]:
    """The axes of the convolution that this one transposes: x is its output."""
    rank = x.ndim - 2
    extra = spatial(output_padding, rank, "output_padding")
    steps, pads = spatial(stride, rank, "stride"), spatial(padding, rank, "padding")
    spread = spatial(dilation, rank, "dilation")
    sizes = []
    for i, size in enumerate(x.shape[2:]):
        reach = spread[i] * (weight.shape[2 + i] - 1)
        sizes.append((size - 1) * steps[i] - 2 * pads[i] + reach + extra[i] + 1)
        if not 0 <= extra[i] < max(steps[i], spread[i], 1) or sizes[i] < 0:
            raise KernelError(f"output_padding {extra} for stride {steps}, dilation {spread}")
    return axes(sizes, weight.shape[2:], stride, padding, dilation, outs=x.shape[2:])


def scatter(x: Array, weight: Array, dims: Sequence[Axis], groups: int) -> Array:
    """The transpose of a convolution: (N, C, outputs...) times weights (C, O / groups, taps...)
    gives (N, O, inputs...)."""
    channels = weight.shape[1] * groups
    counts = [axis.taps for axis in dims]
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    result = np.zeros((x.shape[0], channels, *(axis.size for axis in dims)), x.dtype)
    row_bytes = channels * math.prod(counts) * x.itemsize
    row_bytes *= math.prod(axis.out for axis in dims[1:])
    for image, target in zip(x, result, strict=True):
        for start, stop in rows_at_a_time(dims, row_bytes):
            bounds = [(start, stop), *((0, axis.out) for axis in dims[1:])]
            extents = [stop - start, *(axis.out for axis in dims[1:])]
            rows = image[:, start:stop].reshape(groups, matrix.shape[2], -1)
            spread = matmul(matrix, rows).reshape(channels, *counts, *extents)
            for tap, outputs, inputs in taps(dims, bounds):
                target[EVERY + inputs] += spread[EVERY + tap + outputs]
    return result
