"""Reductions over any dimensions, as XNNPACK nodes that are quick at them.

Measured with XNNPACK's own operators on one x86-64 core: the mean of rows of 768 floats takes a
fully-connected node with one output 32 µs for 197 rows, global average pooling 148 µs. So what is
innermost in memory is averaged by a product, everything else by pooling. Reshapes are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from penstock.compiler.delegate.lowering import ends
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Shape
from penstock.graph.graph import FLAG_KEEP_DIMS, MAX_TENSOR_DIMS
from penstock.graph.kinds import NodeKind, Pool2dAttributes

#: Longer rows are summed in two steps: one run of float32 additions would lose digits.
LONGEST_ROW = 1 << 14


def normalized(dims: Sequence[int] | int | None, rank: int) -> list[int]:
    """Dimensions as sorted non-negative numbers; ``None`` or an empty list means all."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return list(range(rank))
    items = [dims] if isinstance(dims, int) else list(dims)
    return sorted({dim % rank for dim in items} if rank else set())


def reduced_shape(shape: Shape, dims: Sequence[int], keepdim: bool) -> Shape:
    if keepdim:
        return tuple(1 if dim in dims else size for dim, size in enumerate(shape))
    return tuple(size for dim, size in enumerate(shape) if dim not in dims)


@lru_cache(maxsize=256)
def _row(size: int, weight: float) -> torch.Tensor:
    return torch.full((1, size), weight, dtype=torch.float32)


def mean(
    b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool, pooled: bool = False
) -> Tensor:
    """The mean over ``dims``. ``pooled``: by pooling in any case (it also runs on int8)."""
    x = _innermost_if_needed(b, b.dense(x), dims)
    if all(x.shape[dim] == 1 for dim in dims):
        return b.reshape(x, reduced_shape(x.shape, dims, keepdim))
    if len([d for d in dims if x.shape[d] != 1]) > 1 and _many_dynamic(x, dims):
        return _mean_by_pairs(b, x, dims, keepdim)
    view = _View(b, x, dims)
    run = view.shape[1]
    if isinstance(run, int) and view.shape[3] == 1 and _parts(run) and not pooled:
        rows = _weighted_sum(b, view, 1.0 / run)
    else:
        source = view.images or b.reshape(view.whole, (*view.lead, *view.shape[1:]))
        source = b.place(source, layout.identity(source.rank))
        shape = (*source.shape[:-3], 1, 1, source.shape[-1])
        rows = b.result(shape, layout.identity(source.rank))
        b.add_node(NodeKind.GLOBAL_AVG_POOLING_2D, [source], rows, flags=FLAG_KEEP_DIMS)
    return view.restored(b, rows, keepdim)


def _many_dynamic(x: Tensor, dims: Sequence[int]) -> bool:
    """Whether dynamic dimensions are reduced, and more of them than a reshape could merge, where
    they do not stand as height and width already."""
    if not layout.several_dynamic(x.shape) or layout.is_static([x.shape[d] for d in dims]):
        return False
    return set(x.order[x.rank - 3 : x.rank - 1]) != set(dims)


def _mean_by_pairs(b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The mean over two dimensions after the other, as height and width: nothing is merged."""
    target = reduced_shape(x.shape, dims, keepdim)
    left = [dim for dim in dims if x.shape[dim] != 1]
    while left:
        pair, left = left[:2], left[2:]
        if len(pair) == 1:
            x = b.unsqueeze_front(x, x.rank + 1)
            pair = [0, pair[0] + 1]
        kept = [dim for dim in x.order if dim not in pair]
        if not kept:
            x = b.unsqueeze_front(x, x.rank + 1)
            pair, left = [dim + 1 for dim in pair], [dim + 1 for dim in left]
            kept = [0]
        # What has a constant size is innermost, if anything has.
        channels = max(kept, key=lambda dim: isinstance(x.shape[dim], int) and x.shape[dim] != 1)
        order = (*(dim for dim in kept if dim != channels), *pair, channels)
        source = b.place(x, order)
        shape = tuple(1 if dim in pair else size for dim, size in enumerate(x.shape))
        x = b.result(shape, order)
        b.add_node(NodeKind.GLOBAL_AVG_POOLING_2D, [source], x, flags=FLAG_KEEP_DIMS)
    return b.reshape(x, target)


def total(b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The sum over ``dims``."""
    count = layout.product([x.shape[dim] for dim in dims])
    if isinstance(count, int) and not x.is_expanded and count > 1:
        x = _innermost_if_needed(b, x, dims)
        view = _View(b, x, dims)
        if view.shape[3] == 1 and _parts(count):
            return view.restored(b, _weighted_sum(b, view, 1.0), keepdim)
    result = mean(b, x, dims, True)
    known = 1
    for dim in dims:
        size = x.shape[dim]
        if isinstance(size, int):
            known *= size
        else:
            result = ex.divide(b, result, reciprocal_size(b, x, dim))
    result = ex.affine(b, result, float(known), 0.0)
    return b.reshape(result, reduced_shape(x.shape, dims, keepdim))


def reciprocal_size(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """1 / the size of a dynamic dimension, as a tensor of one element: one entry of the softmax
    of a row of (nearly) zeros of that size."""
    starts = [0] * x.rank
    line = [n if d == dim else 1 for d, n in enumerate(x.shape)]
    row = ex.slice_dims(b, x, starts, line, FLAG_KEEP_DIMS)
    zeros = b.unary(NodeKind.CLAMP, row, None, (0.0, 1e-30))
    each = ex.softmax(b, zeros, dim)
    return ex.slice_dims(b, each, starts, [1] * x.rank, FLAG_KEEP_DIMS)


def _innermost_if_needed(b: GraphBuilder, x: Tensor, dims: Sequence[int]) -> Tensor:
    """``x`` with ``dims`` innermost where other dimensions are dynamic, and several: those stay
    as they are then, since nothing could take them apart again."""
    if not layout.several_dynamic(x.shape) or not layout.is_static([x.shape[d] for d in dims]):
        return x
    kept = [dim for dim in x.order if dim not in dims]
    return b.place(x, (*kept, *(dim for dim in x.order if dim in dims)))


def _parts(run: int) -> int | None:
    """Into how many equal parts a row is cut so that none is too long; ``None``: that cannot be
    done (pooling takes such rows)."""
    fewest = -(-run // LONGEST_ROW)
    return next((parts for parts in range(fewest, 65) if run % parts == 0), None)


def _weighted_sum(b: GraphBuilder, view: _View, weight: float) -> Tensor:
    """Every row of ``view`` times ``weight``, summed: [lead..., 1]."""
    run = view.shape[1]
    assert isinstance(run, int)
    parts = _parts(run)
    assert parts is not None
    source = view.whole
    if parts > 1:
        source = b.reshape(source, (*view.lead, parts, run // parts))
    elif source.rank < 2 or source.shape[-1] != run:
        source = b.reshape(source, (*view.lead, run))
    rows = ex.linear(b, source, b.constant(_row(run // parts, weight)), None)
    if parts == 1:
        return rows
    return ex.linear(b, b.reshape(rows, (*view.lead, parts)), b.constant(_row(parts, 1.0)), None)


class _View:
    """A tensor's memory seen as [before, reduced, 1, after].

    ``shape`` is that; ``lead`` stands for ``before`` where several dynamic dimensions must not be
    merged (a reshape takes one dynamic dimension); ``whole`` is the memory as it lies.
    """

    def __init__(self, b: GraphBuilder, x: Tensor, dims: Sequence[int]) -> None:
        self.order = _adjacent(x, dims)
        self.dims = dims
        self.source = x = b.place(x, self.order)
        physical = layout.physical(x.shape, self.order)
        positions = [self.order.index(dim) for dim in dims if x.shape[dim] != 1]
        first, last = min(positions), max(positions)
        before = physical[:first]
        self.lead = _merged(before)
        self.shape: Shape = (
            layout.product(before),
            layout.product(physical[first : last + 1]),
            1,
            layout.product(physical[last + 1 :]),
        )
        self.whole = Tensor(physical, layout.identity(x.rank), physical, b.value_of(x))
        #: The memory as it lies, where it is [..., height, width, channels] already.
        self.images = self.whole if (first, last) == (x.rank - 3, x.rank - 2) else None

    def restored(self, b: GraphBuilder, reduced: Tensor, keepdim: bool) -> Tensor:
        """The reduced rows in the shape that PyTorch gives."""
        kept = reduced_shape(self.source.shape, self.dims, True)
        rows = b.reshape(reduced, layout.physical(kept, self.order))
        rows = b.place(rows, layout.identity(rows.rank))
        back = Tensor(kept, self.order, kept, b.value_of(rows))
        return b.reshape(back, reduced_shape(kept, self.dims, keepdim))


def _merged(before: Shape) -> Shape:
    """The leading dimensions, merged into one unless they are dynamic (a reshape takes one
    dynamic dimension, so those stay as they are)."""
    if layout.is_static(before) or len(before) > MAX_TENSOR_DIMS - 3:
        return (layout.product(before),)
    return before or (1,)


def _adjacent(x: Tensor, dims: Sequence[int]) -> layout.Order:
    """The order of ``x``, changed only if ``dims`` are not neighbours in memory."""
    sequence = layout.memory_sequence(x.shape, x.order)
    places = [position for position, dim in enumerate(sequence) if dim in dims]
    if places and places[-1] - places[0] + 1 == len(places):
        return x.order
    kept = [dim for dim in x.order if dim not in dims]
    return (*kept, *(dim for dim in x.order if dim in dims))


#: How many columns a long row is folded into before its maximum is taken.
FOLDS = (16, 32, 8, 12, 24, 20, 10, 48, 6, 4)


def max_over(b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The maximum over ``dims``, by max pooling over memory seen as [before, reduced, 1, after].
    Pooling works on many columns at once, so what is innermost is folded into columns first."""
    x = b.dense(x)
    dynamic = [dim for dim in dims if not isinstance(x.shape[dim], int)]
    if dynamic:
        shape = reduced_shape(x.shape, dims, keepdim)
        for dim in dynamic:
            x = ends.maximum(b, x, dim)
        return b.reshape(max_over(b, x, dims, True), shape)
    if all(x.shape[dim] == 1 for dim in dims):
        return b.reshape(x, reduced_shape(x.shape, dims, keepdim))
    if layout.several_dynamic(x.shape):
        return _folded(b, x, dims, keepdim)
    view = _View(b, x, dims)
    before, run, _, after = view.shape
    assert isinstance(run, int)
    rows = view.whole
    if after == 1:
        columns = next((fold for fold in FOLDS if run % fold == 0 and run >= 4 * fold), 1)
        if columns > 1:
            rows = _pooled(b, b.reshape(rows, (before, run // columns, 1, columns)))
            run = columns
    rows = _pooled(b, b.reshape(rows, (before, run, 1, after)))
    return view.restored(b, rows, keepdim)


def _folded(b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The maximum of halves, until one index is left: no dimension has to be merged."""
    shape = x.shape
    for dim in dims:
        while x.shape[dim] != 1:
            size = x.shape[dim]
            assert isinstance(size, int)
            half = (size + 1) // 2
            parts = (ex.cut(b, x, dim, 0, half), ex.cut(b, x, dim, size - half, half))
            x = b.binary(NodeKind.MAXIMUM, *parts)
    return b.reshape(x, reduced_shape(shape, dims, keepdim))


def _pooled(b: GraphBuilder, rows: Tensor) -> Tensor:
    """The maximum over dimension 1 of [before, run, 1, after]."""
    rows = b.place(rows, layout.identity(4))
    before, run, _, after = rows.shape
    assert isinstance(run, int)
    output = b.result((before, 1, 1, after), layout.identity(4))
    attributes = Pool2dAttributes((0, 0, 0, 0), (run, 1))
    return b.add_node(NodeKind.MAX_POOLING_2D, [rows], output, attributes)


def min_over(b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The minimum over ``dims``: the negated maximum of what is negated."""
    negated = max_over(b, b.unary(NodeKind.NEGATE, x), dims, keepdim)
    return b.unary(NodeKind.NEGATE, negated)
