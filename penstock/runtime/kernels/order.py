"""The order of elements: sorting, the largest, places in a sorted sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.runtime.kernels.common import INT64, Array, at_least_1d, axis_of, rounded, widened
from penstock.runtime.kernels.registry import KernelError, kernel


def _descending(x: Array, axis: int) -> Array:
    """A stable order from large to small, NaN first as ATen has it."""
    flipped = np.flip(x, axis)
    order = np.flip(np.argsort(flipped, axis, kind="stable"), axis)
    return np.asarray(x.shape[axis] - 1 - order)


@kernel("aten::topk.values", outs=2)
def topk(
    x: Array, k: int, dim: int, largest: bool, sort: bool, values: Array, indices: Array
) -> tuple[Array, Array]:
    """The k largest (or smallest) elements along a dimension and their positions, in order."""
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(widened(x, x.dtype))
    size = rows.shape[axis]
    if not 0 <= k <= size:
        raise KernelError(f"the {k} largest of {size} elements")
    head = (slice(None),) * axis + (slice(0, k),)
    order = _descending(rows, axis) if largest else np.argsort(rows, axis, kind="stable")
    where = order[head]
    found = np.take_along_axis(rows, where, axis)
    shape = x.shape if x.ndim == 0 else found.shape
    return rounded(found.reshape(shape), x.dtype), where.reshape(shape).astype(INT64, copy=False)


@kernel("aten::sort.values_stable", outs=2)
def sort_stable(
    x: Array, stable: bool | None, dim: int, descending: bool, values: Array, indices: Array
) -> tuple[Array, Array]:
    """The elements along a dimension in order, equal ones as they were, and their positions."""
    return sort(x, dim, descending, values, indices)


@kernel("aten::sort.values", outs=2)
def sort(
    x: Array, dim: int, descending: bool, values: Array, indices: Array
) -> tuple[Array, Array]:
    """The elements along a dimension in order and their positions; NaN is the largest."""
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(widened(x, x.dtype))
    order = _descending(rows, axis) if descending else np.argsort(rows, axis, kind="stable")
    found = np.take_along_axis(rows, order, axis)
    return rounded(found.reshape(x.shape), x.dtype), order.reshape(x.shape)


@kernel("aten::bucketize.Tensor_out")
def bucketize(x: Array, boundaries: Array, out_int32: bool, right: bool, out: Array) -> Array:
    """The place of each element among sorted boundaries, behind equal ones if ``right``."""
    if boundaries.ndim != 1:
        raise KernelError(f"boundaries of shape {boundaries.shape}")
    wide: Any = widened(boundaries, boundaries.dtype)
    return np.asarray(np.searchsorted(wide, widened(x, x.dtype), "right" if right else "left"))
