"""Selecting and repeating indices that are known at compile time: slices, joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from penstock.compiler import expressions as ex
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.layout import Dim

#: More slices than this are a product with a one-hot matrix instead.
MOST_SLICES = 128


def strided(b: GraphBuilder, x: Tensor, dim: int, start: int, size: Dim, step: int) -> Tensor:
    """Every ``step``-th index: cut to a multiple of ``step``, split the dimension, keep index 0."""
    if step == 1 or size == 1:
        return ex.cut(b, x, dim, start, size)
    extent = x.shape[dim]
    if not isinstance(extent, int) or not isinstance(size, int):
        raise LoweringError("it steps over a dynamic dimension")
    whole = size * step
    shift = min(start, max(0, start + whole - extent))
    if start - shift + whole > extent:
        # The last step hangs over the end; what is put there is not read.
        post = [0] * x.rank
        post[dim] = start - shift + whole - extent
        x = ex.pad_constant(b, x, [0] * x.rank, post, 0.0)
    x = ex.cut(b, x, dim, start - shift, whole)
    split = b.reshape(x, (*x.shape[:dim], size, step, *x.shape[dim + 1 :]))
    kept = ex.cut(b, split, dim + 1, shift, 1)
    return b.reshape(kept, (*x.shape[:dim], size, *x.shape[dim + 1 :]))


def repeat_each(b: GraphBuilder, x: Tensor, dim: int, times: int) -> Tensor:
    """Every index of ``dim`` ``times`` times, one after the other."""
    if times == 1:
        return x
    wide = b.reshape(x, (*x.shape[: dim + 1], 1, *x.shape[dim + 1 :]))
    joined = ex.concatenate(b, [wide] * times, dim + 1)
    return b.reshape(joined, (*x.shape[:dim], x.shape[dim] * times, *x.shape[dim + 1 :]))


def repeat_all(b: GraphBuilder, x: Tensor, dim: int, times: int) -> Tensor:
    """All of ``dim``, ``times`` times."""
    return x if times == 1 else ex.concatenate(b, [x] * times, dim)


def take(b: GraphBuilder, x: Tensor, dim: int, indices: Sequence[int]) -> Tensor:
    """``x.index_select(dim, indices)`` for constant indices."""
    extent = x.shape[dim]
    if x.constant is not None:
        real = b.full_constant(x)
        return b.constant(real.index_select(dim, torch.tensor(list(indices), dtype=torch.int64)))
    if not isinstance(extent, int):
        raise LoweringError("it selects from a dynamic dimension")
    indices = [index % extent for index in indices]
    if indices == list(range(extent)):
        return x
    times = _times_each(indices)
    if times > 1:
        return repeat_each(b, take(b, x, dim, indices[::times]), dim, times)
    times = _times_all(indices)
    if times > 1:
        return repeat_all(b, take(b, x, dim, indices[: len(indices) // times]), dim, times)
    runs = _runs(indices)
    if len(runs) > MOST_SLICES:
        return _one_hot(b, x, dim, indices)
    pieces: dict[tuple[int, int, int], Tensor] = {}
    for run in runs:
        if run not in pieces:
            start, count, step = run
            pieces[run] = strided(b, x, dim, start, count, step)
    return ex.concatenate(b, [pieces[run] for run in runs], dim)


def _times_each(indices: Sequence[int]) -> int:
    """How often every index comes in a row, if all come equally often."""
    count = next((i for i, index in enumerate(indices) if index != indices[0]), len(indices))
    if count == 1 or len(indices) % count:
        return 1
    groups = [indices[i : i + count] for i in range(0, len(indices), count)]
    return count if all(len(set(group)) == 1 for group in groups) else 1


def _times_all(indices: Sequence[int]) -> int:
    """How often the whole sequence repeats."""
    length = len(indices)
    for period in range(1, length // 2 + 1):
        if length % period == 0 and list(indices[period:]) == list(indices[:-period]):
            return length // period
    return 1


def _runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """The indices as (start, count, step), in as few runs of equal positive step as a greedy
    search finds. A step other than 1 costs three nodes, so short strided runs are left alone."""
    runs: list[tuple[int, int, int]] = []
    position = 0
    while position < len(indices):
        start = indices[position]
        count, step = 1, 1
        if position + 1 < len(indices) and indices[position + 1] > start:
            step = indices[position + 1] - start
            while (
                position + count < len(indices)
                and indices[position + count] == start + step * count
            ):
                count += 1
            if step > 1 and count < 4:
                count, step = 1, 1
        runs.append((start, count, step))
        position += count
    return runs


def _one_hot(b: GraphBuilder, x: Tensor, dim: int, indices: Sequence[int]) -> Tensor:
    extent = x.shape[dim]
    assert isinstance(extent, int)
    return along(b, x, dim, torch.eye(extent)[list(indices)])


def along(b: GraphBuilder, x: Tensor, dim: int, matrix: torch.Tensor) -> Tensor:
    """``matrix`` [new, old] applied along dimension ``dim`` of ``x``, as a product from the side
    where ``dim`` lies in memory."""
    x = b.dense(x)
    last = x.rank - 1
    sizes = [place for place in x.order if x.shape[place] != 1 or place == dim]
    if sizes[-1] == dim:
        # Innermost: each row times the matrix.
        order = [*(d for d in range(x.rank) if d != dim), dim]
        product = ex.linear(b, b.permute(x, order), b.constant(matrix), None)
        return b.permute(product, [*range(dim), last, *range(dim, last)])
    # Everything behind ``dim`` in memory is columns of one matrix for each index before it.
    before = list(x.order[: x.order.index(dim)])
    after = list(x.order[x.order.index(dim) + 1 :])
    arranged = b.permute(x, [*before, dim, *after])
    lead, tail = arranged.shape[: len(before)], arranged.shape[len(before) + 1 :]
    flat = b.reshape(arranged, (_merge(lead), x.shape[dim], _merge(tail)))
    product = ex.matmul(b, b.constant(matrix), flat)
    wide = b.reshape(product, (*lead, int(matrix.shape[0]), *tail))
    places = [*before, dim, *after]
    return b.permute(wide, [places.index(d) for d in range(x.rank)])


def _merge(dims: Sequence[Dim]) -> Dim:
    result: Dim = 1
    for size in dims:
        result = result * size
    return result


def flip(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """Dimension ``dim`` backwards."""
    extent = x.shape[dim]
    if not isinstance(extent, int):
        raise LoweringError("it turns a dynamic dimension around")
    return take(b, x, dim, range(extent - 1, -1, -1))


def roll(b: GraphBuilder, x: Tensor, shifts: Mapping[int, int]) -> Tensor:
    """``x`` rolled by ``shifts[dim]`` in each of ``dims``: its corners (two pieces, or four of two
    dimensions), put together anew. All corners are one pass over the data and every dimension is
    another; the outermost in memory comes last, where only whole blocks are left to copy."""
    starts: dict[int, int] = {}
    for dim, shift in shifts.items():
        extent = x.shape[dim]
        if not isinstance(extent, int):
            raise LoweringError("it rolls a dynamic dimension")
        if shift % extent:
            starts[dim] = -shift % extent
    dims = [dim for dim in x.order if dim in starts]
    return _corners(b, x, starts, dims, [0] * x.rank, list(x.shape))


def _corners(
    b: GraphBuilder,
    x: Tensor,
    rolled: Mapping[int, int],
    dims: Sequence[int],
    starts: Sequence[int],
    sizes: Sequence[Dim],
) -> Tensor:
    """The part of ``x`` from ``starts`` on, of ``sizes``, in its ``dims`` (outermost first) the
    whole with index ``rolled[dim]`` in front."""
    if not dims:
        return ex.slice_dims(b, x, starts, sizes)
    dim, extent = dims[0], x.shape[dims[0]]
    halves = []
    for start, end in ((rolled[dim], extent), (0, rolled[dim])):
        begin, part = list(starts), list(sizes)
        begin[dim], part[dim] = start, end - start
        halves.append(_corners(b, x, rolled, dims[1:], begin, part))
    return ex.concatenate(b, halves, dim)
