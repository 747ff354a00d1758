"""Reading and writing at positions that are data: index, gather, scatter, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.runtime.kernels.common import (
    BOOL,
    INT64,
    Array,
    Scalar,
    at_least_1d,
    axis_of,
    is_integral,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel, reserve
from penstock.runtime.kernels.shapes import slice_of
from penstock.runtime.mapped import take_rows


def _integers(index: Array, name: str) -> Array:
    if index.dtype.kind not in "iu":
        raise KernelError(f"{name} of type {index.dtype}")
    return index


def _in_range(index: Array, size: int) -> Array:
    """Positions that ATen does not let be negative."""
    if index.size and (index.min() < 0 or index.max() >= size):
        raise KernelError(f"an index outside of 0..{size - 1}")
    return index


# -- index tensors ---------------------------------------------------------------------------------


def _subscript(x: Array, indices: Sequence[Array | None]) -> tuple[Any, ...]:
    """NumPy's subscript for ``x[indices]``: the two agree but for byte masks."""
    subscript: list[Any] = []
    used = 0
    for index in indices:
        if index is None:
            subscript.append(slice(None))
            used += 1
        elif index.dtype in (BOOL, np.uint8):
            if x.shape[used : used + index.ndim] != index.shape:
                raise KernelError(f"a mask of shape {index.shape} for the shape {x.shape}")
            subscript.append(index.astype(BOOL, copy=False))
            used += index.ndim
        else:
            subscript.append(_integers(index, "an index"))
            used += 1
    if used > x.ndim:
        raise KernelError(f"{used} indices for a tensor of rank {x.ndim}")
    return tuple(subscript)


@kernel("aten::index.Tensor_out")
def index_tensor(x: Array, indices: Sequence[Array | None], out: Array) -> Array:
    """x at positions given by integer tensors, broadcast together, or masks; None keeps a
    dimension."""
    subscript = (*_subscript(x, indices), ...)
    integer = [index.shape for index in indices if index is not None and index.dtype.kind == "i"]
    if all(index is None or index.dtype.kind == "i" for index in indices):
        rest = [size for size, i in zip(x.shape, indices, strict=False) if i is None]
        rest += x.shape[len(indices) :]
        reserve([*np.broadcast_shapes(*integer), *rest], out)
    return np.asarray(x[subscript])


def _put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool) -> Array:
    if values.dtype != x.dtype:
        if values.ndim:
            raise KernelError(f"values of type {values.dtype} for a tensor of {x.dtype}")
        values = values.astype(x.dtype)
    subscript = (*_subscript(x, indices), ...)
    result: Array = np.array(x)
    if not accumulate:
        result[subscript] = values
        return result
    wide = widened(result, x.dtype)
    wide = wide.copy() if wide is result else wide
    if x.dtype == BOOL:
        np.logical_or.at(wide, subscript, values)
    else:
        np.add.at(wide, subscript, widened(values, x.dtype))
    return rounded(wide, x.dtype)


@kernel("aten::index_put.out")
def index_put(
    x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool, out: Array
) -> Array:
    """x with values written, or added, at positions."""
    return _put(x, indices, values, accumulate)


@kernel("aten::index_put_", in_place=True, writes_itself=True)
def index_put_in_place(
    x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool
) -> Array:
    """Writes, or adds, values at positions. Touches nothing else of ``x``."""
    if not accumulate and _put_row(x, indices, values):
        return x
    shared = any(i is not None and np.may_share_memory(x, i) for i in (*indices, values))
    if accumulate or shared or values.dtype != x.dtype:
        x[...] = _put(x, indices, values, accumulate)
    else:
        x[(*_in_runs(x, _subscript(x, indices)), ...)] = values
    return x


def _put_row(x: Array, indices: Sequence[Array | None], values: Array) -> bool:
    """The usual write to a cache, one row: whether it was that, and is done."""
    index = indices[-1] if indices else None
    axis = len(indices) - 1
    if index is None or index.shape != (1,) or index.dtype.kind != "i" or axis >= x.ndim:
        return False
    if any(other is not None for other in indices[:-1]):
        return False
    position, size = int(index[0]), x.shape[axis]
    row = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    if values.shape != row or values.dtype != x.dtype or not -size <= position < size:
        return False
    place: tuple[Any, ...] = (*(slice(None),) * axis, position)
    x[place] = values.reshape(row[:axis] + row[axis + 1 :])
    return True


def _in_runs(x: Array, subscript: tuple[Any, ...]) -> tuple[Any, ...]:
    """A single list of positions in a row as a slice, which NumPy takes faster."""
    lists = [axis for axis, index in enumerate(subscript) if isinstance(index, np.ndarray)]
    if len(lists) != 1:
        return subscript
    index = subscript[lists[0]]
    if index.ndim != 1 or not index.size or index.dtype == BOOL:
        return subscript
    first, count = int(index[0]), index.size
    in_a_row = count == 1 or bool((np.diff(index) == 1).all())
    if first < 0 or first + count > x.shape[lists[0]] or not in_a_row:
        return subscript
    return tuple(slice(first, first + count) if i is index else i for i in subscript)


@kernel("aten::index_select.out")
def index_select(x: Array, dim: int, index: Array, out: Array) -> Array:
    """The given indices of one dimension."""
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(x)
    if index.ndim > 1:
        raise KernelError(f"an index of rank {index.ndim}")
    where = _in_range(_integers(at_least_1d(index), "an index"), rows.shape[axis])
    taken = np.take(rows, where, axis)
    return taken.reshape(()) if x.ndim == 0 else taken


@kernel("aten::embedding.out")
def embedding(
    weight: Array,
    indices: Array,
    padding_idx: int,
    scale_grad_by_freq: bool,
    sparse: bool,
    out: Array,
) -> Array:
    """The rows of a matrix at integer indices."""
    if weight.ndim != 2:
        raise KernelError(f"an embedding table of rank {weight.ndim}")
    where = _in_range(_integers(indices, "an index"), weight.shape[0])
    reserve((*where.shape, weight.shape[1]), out)
    return take_rows(weight, where)


# -- gather and scatter ----------------------------------------------------------------------------


def _grid(index: Array, axis: int) -> tuple[Array, ...]:
    """Open index arrays of the positions of ``index``, which takes the place of one of them."""
    grid: list[Array] = list(np.ogrid[tuple(slice(size) for size in index.shape)])
    grid[axis] = index
    return tuple(grid)


def _position(x: Array, dim: int, index: Array) -> tuple[Array, tuple[Array, ...]]:
    """Checks an index tensor against x; both at least of rank 1."""
    axis = axis_of(dim, x.ndim)
    where = at_least_1d(_integers(index, "an index"))
    rows = at_least_1d(x)
    if where.size == 0:
        return rows, tuple(np.zeros(0, INT64) for _ in rows.shape)
    if where.ndim != rows.ndim:
        raise KernelError(f"an index of rank {index.ndim} for a tensor of rank {x.ndim}")
    if any(
        n > m for i, (n, m) in enumerate(zip(where.shape, rows.shape, strict=True)) if i != axis
    ):
        raise KernelError(f"an index of shape {index.shape} for the shape {x.shape}")
    _in_range(where, rows.shape[axis])
    return rows, _grid(where, axis)


@kernel("aten::gather.out")
def gather(x: Array, dim: int, index: Array, sparse_grad: bool, out: Array) -> Array:
    """For each position of the index tensor, x there but at the given index of one dimension."""
    rows, where = _position(x, dim, index)
    return np.reshape(rows[where], index.shape)


def _source(index: Array, source: Array) -> Array:
    """The part of ``source`` that an index tensor covers."""
    value = at_least_1d(source)
    where = at_least_1d(index)
    if where.size == 0:
        return np.zeros(0, source.dtype)
    if value.ndim != where.ndim or any(
        n > m for n, m in zip(where.shape, value.shape, strict=True)
    ):
        raise KernelError(f"values of shape {source.shape} for an index of {index.shape}")
    return value[tuple(slice(size) for size in where.shape)]


@kernel("aten::scatter.src_out")
def scatter(x: Array, dim: int, index: Array, source: Array, out: Array) -> Array:
    """x with values written at the given indices of one dimension."""
    rows, where = _position(x, dim, index)
    result: Array = np.array(rows)
    result[where] = _source(index, source)
    return np.reshape(result, x.shape)


@kernel("aten::scatter.value_out")
def scatter_value(x: Array, dim: int, index: Array, value: Scalar, out: Array) -> Array:
    """x with one value written at the given indices of one dimension."""
    rows, where = _position(x, dim, index)
    result: Array = np.array(rows)
    result[where] = np.array(value).astype(x.dtype)
    return np.reshape(result, x.shape)


@kernel("aten::scatter_add.out")
def scatter_add(x: Array, dim: int, index: Array, source: Array, out: Array) -> Array:
    """x with values added at the given indices of one dimension."""
    rows, where = _position(x, dim, index)
    total: Array = np.array(widened(rows, x.dtype))
    values = widened(_source(index, source), x.dtype)
    if x.dtype == BOOL:
        np.logical_or.at(total, where, values)
    else:
        np.add.at(total, where, values)
    return rounded(total.reshape(x.shape), x.dtype)


_REDUCTIONS: dict[str, np.ufunc] = {
    "sum": np.add,
    "mean": np.add,
    "prod": np.multiply,
    "amax": np.maximum,
    "amin": np.minimum,
}


@kernel("aten::scatter_reduce.two_out")
def scatter_reduce(
    x: Array, dim: int, index: Array, source: Array, reduce: str, include_self: bool, out: Array
) -> Array:
    """x with values reduced into the given indices of one dimension."""
    if reduce not in _REDUCTIONS:
        raise KernelError(f"unknown reduction {reduce!r}")
    rows, where = _position(x, dim, index)
    result: Array = np.array(widened(rows, x.dtype))
    values = widened(_source(index, source), x.dtype)
    if not include_self:
        # Whichever of the values comes last, for extremes; else what leaves the others as they are.
        extreme = reduce in ("amax", "amin")
        result[where] = values if extreme else reduce == "prod"
    _REDUCTIONS[reduce].at(result, where, values)
    if reduce == "mean":
        counts = np.full(rows.shape, 1 if include_self else 0, INT64)
        np.add.at(counts, where, 1)
        counts = np.maximum(counts, 1)
        divide = np.floor_divide if is_integral(x.dtype) else np.true_divide
        result = divide(result, counts.astype(result.dtype))
    return rounded(result.reshape(x.shape), x.dtype)


@kernel("aten::select_scatter.out")
def select_scatter(x: Array, source: Array, dim: int, index: int, out: Array) -> Array:
    """x with one index of a dimension replaced."""
    if x.ndim == 0:
        raise KernelError("select_scatter of a zero-dimensional tensor")
    axis = axis_of(dim, x.ndim)
    if source.shape != x.shape[:axis] + x.shape[axis + 1 :]:
        raise KernelError(f"a slice of shape {source.shape} for the shape {x.shape}")
    result: Array = np.array(x)
    result[(slice(None),) * axis + (index, ...)] = source
    return result


@kernel("aten::slice_scatter.out")
def slice_scatter(
    x: Array, source: Array, dim: int, start: int | None, end: int | None, step: int, out: Array
) -> Array:
    """x with start, start + step, ... of one dimension replaced."""
    if x.ndim == 0:
        raise KernelError("slice_scatter of a zero-dimensional tensor")
    axis = axis_of(dim, x.ndim)
    where = (slice(None),) * axis + (slice_of(x.shape[axis], start, end, step),)
    result: Array = np.array(x)
    if result[where].shape != source.shape:
        raise KernelError(f"a slice of shape {source.shape} for one of {result[where].shape}")
    result[where] = source
    return result


# -- masks -----------------------------------------------------------------------------------------


def _mask(mask: Array) -> Array:
    if mask.dtype not in (BOOL, np.uint8):
        raise KernelError(f"a mask of type {mask.dtype}")
    return mask.astype(BOOL, copy=False)


@kernel("aten::masked_fill.Scalar_out")
def masked_fill(x: Array, mask: Array, value: Scalar, out: Array) -> Array:
    """x with a scalar where the mask holds."""
    return np.where(_mask(mask), np.array(value).astype(x.dtype), x)


@kernel("aten::masked_select.out")
def masked_select(x: Array, mask: Array, out: Array) -> Array:
    """The elements where the mask holds, in order."""
    values, where = np.broadcast_arrays(x, _mask(mask))
    return np.asarray(values[where])


@kernel("aten::masked_scatter.out")
def masked_scatter(x: Array, mask: Array, source: Array, out: Array) -> Array:
    """x with the elements of ``source``, in order, where the mask holds."""
    if source.dtype != x.dtype:
        raise KernelError(f"values of type {source.dtype} for a tensor of {x.dtype}")
    values, where = np.broadcast_arrays(x, _mask(mask))
    count = int(np.count_nonzero(where))
    if count > source.size:
        raise KernelError(f"{source.size} values for {count} positions")
    result: Array = np.array(values)
    result[where] = source.reshape(-1)[:count]
    return result


@kernel("aten::nonzero.out")
def nonzero(x: Array, out: Array) -> Array:
    """The positions of the elements that are not zero, a row each."""
    truth = widened(x, x.dtype) != 0
    if x.ndim == 0:
        return np.zeros((int(truth), 0), INT64)
    return np.argwhere(truth)


@kernel("aten::repeat_interleave.Tensor_out")
def repeat_interleave(repeats: Array, output_size: int | None, out: Array) -> Array:
    """0 as often as the first element says, then 1 as often as the second, and so on."""
    if _integers(repeats, "repeats").ndim != 1 or (repeats < 0).any():
        raise KernelError("repeats must be a vector without negative numbers")
    total = sum(int(count) for count in repeats)
    if output_size is not None and output_size != total:
        raise KernelError(f"an output size of {output_size} for {total} repeats")
    reserve([total], out)
    return np.repeat(np.arange(len(repeats), dtype=INT64), repeats)
