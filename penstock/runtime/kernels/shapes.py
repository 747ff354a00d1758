"""Copies under another shape, order or part: what ATen makes as views.

Each returns a view of its input wherever NumPy can; the core copies it into the out tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.runtime.kernels.common import (
    Array,
    at_least_1d,
    axes_of,
    axis_of,
    copied,
    documented,
    shape_of,
)
from penstock.runtime.kernels.registry import KernelError, kernel, reserve

# -- whole copies ----------------------------------------------------------------------------------


def _identity(name: str, doc: str) -> Any:
    def call(x: Array, *options: Any) -> Array:
        return x

    return documented(call, name, doc)


_CAST = "A copy in the type and dim_order of the out tensor."
for _name in (
    "aten::alias_copy.out",
    "aten::clone.out",
    "aten::detach_copy.out",
    "aten::lift_fresh_copy.out",
    "aten::_to_copy.out",
    "dim_order_ops::_to_dim_order_copy.out",
    "dim_order_ops::_clone_dim_order.out",
    "et_copy::_h2d_copy.out",
    "et_copy::_d2h_copy.out",
):
    kernel(_name, moves=True)(_identity(_name.split("::")[1].split(".")[0], _CAST))


@kernel("aten::copy.out")
def copy(x: Array, source: Array, non_blocking: bool, out: Array) -> Array:
    """``source`` broadcast to the shape of the first argument."""
    return np.broadcast_to(source, x.shape)


@kernel("aten::copy_", in_place=True)
def copy_in_place(x: Array, source: Array, non_blocking: bool) -> Array:
    """``source`` broadcast into the first argument."""
    return np.broadcast_to(source, x.shape)


# -- other shapes ----------------------------------------------------------------------------------


@kernel("aten::view_copy.out", moves=True)
def view_copy(x: Array, size: Sequence[int], out: Array) -> Array:
    """The same elements in another shape; one size may be -1."""
    return x.reshape(shape_of(size, x.size))


@kernel("aten::expand_copy.out", moves=True)
def expand_copy(x: Array, size: Sequence[int], implicit: bool, out: Array) -> Array:
    """Repeats dimensions of size 1; -1 keeps a dimension."""
    lead = len(size) - x.ndim
    if lead < 0 or any(value == -1 for value in size[:lead]):
        raise KernelError(f"a tensor of shape {x.shape} cannot be expanded to {list(size)}")
    shape = [x.shape[i - lead] if value == -1 else value for i, value in enumerate(size)]
    return np.broadcast_to(x, reserve(shape, out))


@kernel("aten::squeeze_copy.dim_out", moves=True)
def squeeze_dim(x: Array, dim: int, out: Array) -> Array:
    """Without a dimension, if its size is 1."""
    return squeeze_dims(x, [dim], out)


@kernel("aten::squeeze_copy.dims_out", moves=True)
def squeeze_dims(x: Array, dims: Sequence[int], out: Array) -> Array:
    """Without those of the dimensions whose size is 1."""
    axes = axes_of(dims, x.ndim) if len(dims) else ()
    return x.squeeze(tuple(axis for axis in axes if x.shape[axis] == 1))


@kernel("aten::unsqueeze_copy.out", moves=True)
def unsqueeze(x: Array, dim: int, out: Array) -> Array:
    """With a new dimension of size 1."""
    return np.expand_dims(x, axis_of(dim, x.ndim + 1))


@kernel("aten::pixel_shuffle.out")
def pixel_shuffle(x: Array, factor: int, out: Array) -> Array:
    """(..., C * r * r, H, W) to (..., C, H * r, W * r)."""
    if x.ndim < 3 or factor <= 0 or x.shape[-3] % (factor * factor):
        raise KernelError(f"no pixel shuffle by {factor} of the shape {x.shape}")
    *lead, channels, height, width = x.shape
    blocks = x.reshape(*lead, channels // (factor * factor), factor, factor, height, width)
    n = len(lead)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    shape = (*lead, channels // (factor * factor), height * factor, width * factor)
    return np.reshape(blocks.transpose(order), shape)


@kernel("aten::pixel_unshuffle.out")
def pixel_unshuffle(x: Array, factor: int, out: Array) -> Array:
    """(..., C, H * r, W * r) to (..., C * r * r, H, W)."""
    if x.ndim < 3 or factor <= 0 or x.shape[-1] % factor or x.shape[-2] % factor:
        raise KernelError(f"no pixel unshuffle by {factor} of the shape {x.shape}")
    *lead, channels, height, width = x.shape
    height, width = height // factor, width // factor
    blocks = x.reshape(*lead, channels, height, factor, width, factor)
    n = len(lead)
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    shape = (*lead, channels * factor * factor, height, width)
    return np.reshape(blocks.transpose(order), shape)


# -- other orders ----------------------------------------------------------------------------------


@kernel("aten::permute_copy.out", moves=True)
def permute(x: Array, dims: Sequence[int], out: Array) -> Array:
    """The dimensions in another order."""
    axes = [axis_of(dim, x.ndim) for dim in dims]
    return copied(x.transpose(axes), out)


@kernel("aten::transpose_copy.int_out", moves=True)
def transpose(x: Array, dim0: int, dim1: int, out: Array) -> Array:
    """Two dimensions exchanged."""
    first, second = axis_of(dim0, x.ndim), axis_of(dim1, x.ndim)
    return copied(x.swapaxes(first, second), out) if x.ndim else x


@kernel("aten::t_copy.out", moves=True)
def t_copy(x: Array, out: Array) -> Array:
    """A matrix transposed; fewer dimensions pass."""
    if x.ndim > 2:
        raise KernelError(f"t of a tensor of rank {x.ndim}")
    return copied(x.T, out)


@kernel("aten::flip.out", moves=True)
def flip(x: Array, dims: Sequence[int], out: Array) -> Array:
    """Dimensions in reverse."""
    return np.flip(x, axes_of(dims, x.ndim)) if len(dims) and x.ndim else x


@kernel("aten::roll.out")
def roll(x: Array, shifts: Sequence[int], dims: Sequence[int], out: Array) -> Array:
    """Rotated along dimensions, or as one flat list when none are given."""
    if not len(dims):
        if len(shifts) != 1:
            raise KernelError(f"{len(shifts)} shifts without dimensions")
        return np.roll(x, _within(shifts[0], x.size))
    if len(shifts) != len(dims):
        raise KernelError(f"{len(shifts)} shifts for {len(dims)} dimensions")
    for shift, dim in zip(shifts, dims, strict=True):
        axis = axis_of(dim, x.ndim)
        x = np.roll(x, _within(shift, x.shape[axis]), axis) if x.ndim else x
    return x


def _within(shift: int, size: int) -> int:
    return shift % size if size else 0


# -- parts -----------------------------------------------------------------------------------------


@kernel("aten::select_copy.int_out", moves=True)
def select(x: Array, dim: int, index: int, out: Array) -> Array:
    """One index of a dimension, which goes."""
    if x.ndim == 0:
        raise KernelError("select of a zero-dimensional tensor")
    # A 0-d array, not a scalar: Ellipsis keeps it one.
    return x[(slice(None),) * axis_of(dim, x.ndim) + (index, ...)]


def slice_of(size: int, start: int | None, end: int | None, step: int) -> slice:
    """A slice with ATen's clamping, which for positive steps is Python's."""
    if step <= 0:
        raise KernelError(f"a slice with step {step}")
    return slice(*slice(start, end, step).indices(size))


@kernel("aten::slice_copy.Tensor_out", moves=True)
def slice_copy(
    x: Array, dim: int, start: int | None, end: int | None, step: int, out: Array
) -> Array:
    """start, start + step, ... short of end, of one dimension."""
    if x.ndim == 0:
        raise KernelError("slice of a zero-dimensional tensor")
    axis = axis_of(dim, x.ndim)
    return x[(slice(None),) * axis + (slice_of(x.shape[axis], start, end, step),)]


@kernel("aten::narrow_copy.out", moves=True)
def narrow(x: Array, dim: int, start: int, length: int, out: Array) -> Array:
    """``length`` indices of a dimension from ``start`` on."""
    if x.ndim == 0:
        raise KernelError("narrow of a zero-dimensional tensor")
    axis = axis_of(dim, x.ndim)
    size = x.shape[axis]
    start = start + size if start < 0 else start
    if length < 0 or not 0 <= start <= size - length:
        raise KernelError(f"no {length} elements from {start} in a dimension of size {size}")
    return x[(slice(None),) * axis + (slice(start, start + length),)]


@kernel("aten::split_copy.Tensor_out")
def split(x: Array, split_size: int, dim: int, out: list[Array]) -> list[Array]:
    """Pieces of ``split_size`` along a dimension, the last maybe smaller."""
    axis = axis_of(dim, x.ndim)
    size = at_least_1d(x).shape[axis]
    if split_size < 0 or (split_size == 0 and size):
        raise KernelError(f"a split size of {split_size}")
    starts = range(0, size, split_size) if split_size and size else [0]
    if len(starts) != len(out):
        raise KernelError(f"a split into {len(starts)} for {len(out)} outputs")
    return [x[(slice(None),) * axis + (slice(at, at + split_size),)] for at in starts]


@kernel("aten::split_with_sizes_copy.out")
def split_with_sizes(
    x: Array, split_sizes: Sequence[int], dim: int, out: list[Array]
) -> list[Array]:
    """Pieces of the given sizes along a dimension."""
    axis = axis_of(dim, x.ndim)
    size = at_least_1d(x).shape[axis]
    if any(part < 0 for part in split_sizes) or sum(split_sizes) != size:
        raise KernelError(f"a dimension of size {size} split into {list(split_sizes)}")
    ends = np.cumsum([0, *split_sizes]).tolist()
    lead = (slice(None),) * axis
    return [x[lead + (slice(a, b),)] for a, b in zip(ends, ends[1:], strict=False)]


@kernel("aten::unbind_copy.int_out")
def unbind(x: Array, dim: int, out: list[Array]) -> list[Array]:
    """All indices of a dimension, each by itself."""
    if x.ndim == 0:
        raise KernelError("unbind of a zero-dimensional tensor")
    axis = axis_of(dim, x.ndim)
    if x.shape[axis] != len(out):
        raise KernelError(f"{x.shape[axis]} parts for {len(out)} outputs")
    return [x[(slice(None),) * axis + (i, ...)] for i in range(x.shape[axis])]


@kernel("aten::diagonal_copy.out", moves=True)
def diagonal(x: Array, offset: int, dim1: int, dim2: int, out: Array) -> Array:
    """The diagonal of two dimensions, as the last dimension."""
    first, second = axis_of(dim1, x.ndim), axis_of(dim2, x.ndim)
    if x.ndim < 2 or first == second:
        raise KernelError(f"no diagonal of dimensions {dim1} and {dim2} of rank {x.ndim}")
    bound = max(x.shape[first], x.shape[second])
    return x.diagonal(max(-bound, min(bound, offset)), first, second)


@kernel("aten::tril.out")
def tril(x: Array, diagonal: int, out: Array) -> Array:
    """The lower triangle of matrices, zero elsewhere."""
    if x.ndim < 2:
        raise KernelError(f"tril of a tensor of rank {x.ndim}")
    rows, columns = x.shape[-2:]
    offset = max(-rows, min(columns, diagonal))
    keep = np.tri(rows, columns, offset, dtype=bool)
    return np.where(keep, x, x.dtype.type(0))


@kernel("aten::unfold_copy.out")
def unfold(x: Array, dim: int, size: int, step: int, out: Array) -> Array:
    """Windows of ``size`` every ``step`` along a dimension, as a new last dimension."""
    axis = axis_of(dim, x.ndim)
    rows = at_least_1d(x)
    if not 0 <= size <= rows.shape[axis] or step <= 0:
        raise KernelError(f"no windows of {size} every {step} in the shape {x.shape}")
    if size == 0:
        shape = list(rows.shape)
        shape[axis] = shape[axis] // step + 1
        return np.empty(reserve([*shape, 0], out), x.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(rows, size, axis)
    taken = windows[(slice(None),) * axis + (slice(None, None, step),)]
    return taken[0] if x.ndim == 0 else taken


@kernel("aten::as_strided_copy.out")
def as_strided(
    x: Array, size: Sequence[int], stride: Sequence[int], offset: int | None, out: Array
) -> Array:
    """Elements of the memory of x at any strides, which are checked against its bounds."""
    shape = reserve(size, out)
    start = offset or 0
    if len(stride) != len(shape) or start < 0 or any(step < 0 for step in stride):
        raise KernelError(f"sizes {shape} and strides {list(stride)} from {start}")
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    memory = x.transpose(order).reshape(-1)
    if 0 in shape:
        return np.empty(shape, x.dtype)
    last = start + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= memory.size:
        raise KernelError(f"strides reach element {last} of {memory.size}")
    steps = [step * memory.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(memory[start:], shape, steps, writeable=False)


@kernel("aten::view_as_real_copy.out")
def view_as_real(x: Array, out: Array) -> Array:
    """A complex tensor as its real and imaginary parts in a new last dimension."""
    if x.dtype.kind != "c":
        raise KernelError(f"view_as_real of {x.dtype}")
    return np.stack([x.real, x.imag], -1)


# -- several into one ------------------------------------------------------------------------------


@kernel("aten::cat.out")
def cat(tensors: Sequence[Array], dim: int, out: Array) -> Array:
    """Tensors one after the other along a dimension; empty ones of rank 1 are left out."""
    parts = [x for x in tensors if x.shape != (0,)]
    if not parts:
        return np.empty(0, out.dtype)
    axis = axis_of(dim, parts[0].ndim)
    if any(x.ndim == 0 for x in parts):
        raise KernelError("cat of a zero-dimensional tensor")
    if all(x.dtype == out.dtype for x in parts):
        length = sum(x.shape[axis] for x in parts)
        if out.shape == parts[0].shape[:axis] + (length,) + parts[0].shape[axis + 1 :]:
            return np.concatenate(parts, axis, out=out)
    return np.concatenate([x.astype(out.dtype, copy=False) for x in parts], axis)


@kernel("aten::stack.out")
def stack(tensors: Sequence[Array], dim: int, out: Array) -> Array:
    """Tensors side by side along a new dimension."""
    if not tensors:
        raise KernelError("a stack of nothing")
    axis = axis_of(dim, tensors[0].ndim + 1)
    return np.stack([x.astype(out.dtype, copy=False) for x in tensors], axis)


@kernel("aten::repeat.out")
def repeat(x: Array, repeats: Sequence[int], out: Array) -> Array:
    """Tiled along dimensions, of which there may be more than x has."""
    lead = len(repeats) - x.ndim
    if lead < 0:
        raise KernelError(f"{len(repeats)} repeats for a tensor of rank {x.ndim}")
    sizes = (1,) * lead + x.shape
    reserve([n * times for n, times in zip(sizes, repeats, strict=True)], out)
    return np.tile(x, tuple(repeats)) if len(repeats) else x
