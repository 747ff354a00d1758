"""Putting values in the place of others, at indices that are known at compile time: slices of both,
joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import gather
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.index_plan import MOST_PIECES, Indices
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.graph.graph import MAX_TENSOR_DIMS


def replaced(b: GraphBuilder, x: Tensor, dim: int, start: int, end: int, source: Tensor) -> Tensor:
    """``x`` with indices ``start`` to ``end`` of ``dim`` taken from ``source``."""
    extent = extent_of(x, dim)
    pieces = [
        *([ex.cut(b, x, dim, 0, start)] if start else []),
        *([source] if end > start else []),
        *([ex.cut(b, x, dim, end, extent - end)] if end < extent else []),
    ]
    return ex.concatenate(b, pieces, dim)


def replaced_every(
    b: GraphBuilder, x: Tensor, dim: int, start: int, count: int, step: int, source: Tensor
) -> Tensor:
    """``x`` with ``count`` indices of ``dim`` taken from ``source``: ``start`` and every ``step``
    behind it. The dimension is split, and the first index of each window replaced."""
    if step == 1 or count < 2:
        return replaced(b, x, dim, start, start + count, source)
    if x.rank == MAX_TENSOR_DIMS:
        three = [_as_three(b, tensor, dim) for tensor in (x, source)]
        changed = replaced_every(b, three[0], 1, start, count, step, three[1])
        return b.reshape(changed, x.shape)
    extent, front, back = extent_of(x, dim), x.shape[:dim], x.shape[dim + 1 :]
    whole = min(count, (extent - start) // step)
    windows = ex.cut(b, x, dim, start, whole * step)
    windows = b.reshape(windows, (*front, whole, step, *back))
    firsts = b.reshape(ex.cut(b, source, dim, 0, whole), (*front, whole, 1, *back))
    joined = ex.concatenate(b, [firsts, ex.cut(b, windows, dim + 1, 1, step - 1)], dim + 1)
    end = start + whole * step + count - whole
    pieces = [
        *([ex.cut(b, x, dim, 0, start)] if start else []),
        b.reshape(joined, (*front, whole * step, *back)),
        # The last window may hang over the end.
        *([ex.cut(b, source, dim, whole, 1)] if whole < count else []),
    ]
    if end < extent:
        pieces.append(ex.cut(b, x, dim, end, extent - end))
    return ex.concatenate(b, pieces, dim)


def replaced_at(
    b: GraphBuilder, x: Tensor, dim: int, places: Sequence[int] | Indices, source: Tensor
) -> Tensor:
    """``x`` with the indices ``places`` of ``dim`` taken from ``source``, one after the other (the
    last counts where one comes again). Raises LoweringError where they are no regular sequence and
    too many for slices."""
    extent = extent_of(x, dim)
    if len(places) == 0:
        return x
    last = {int(place) % extent: number for number, place in enumerate(places)}
    ordered = np.asarray(sorted(last), np.int64)
    numbers = [last[int(place)] for place in ordered]
    if numbers != list(range(extent_of(source, dim))):
        source = gather.take(b, source, dim, numbers)
    steps = np.diff(ordered)
    if len(steps) == 0 or bool((steps == steps[0]).all()):
        step = int(steps[0]) if len(steps) else 1
        return replaced_every(b, x, dim, int(ordered[0]), len(ordered), step, source)
    borders = [0, *(np.flatnonzero(steps != 1) + 1).tolist(), len(ordered)]
    if 2 * len(borders) > MOST_PIECES:
        raise LoweringError(
            f"its indices are no regular sequence: more than {MOST_PIECES} slices, which a kernel "
            "does in less time"
        )
    pieces: list[Tensor] = []
    position = 0
    for head, end in zip(borders[:-1], borders[1:], strict=True):
        start, count = int(ordered[head]), end - head
        if start > position:
            pieces.append(ex.cut(b, x, dim, position, start - position))
        pieces.append(ex.cut(b, source, dim, head, count))
        position = start + count
    if position < extent:
        pieces.append(ex.cut(b, x, dim, position, extent - position))
    return ex.concatenate(b, pieces, dim)


def extent_of(x: Tensor, dim: int) -> int:
    """The size of ``dim``. Raises LoweringError where it is dynamic."""
    extent = x.shape[dim]
    if not isinstance(extent, int):
        raise LoweringError("it replaces a part of a dynamic dimension")
    return extent


def _as_three(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    front, back = layout.product(x.shape[:dim]), layout.product(x.shape[dim + 1 :])
    return b.reshape(x, (front, x.shape[dim], back))
