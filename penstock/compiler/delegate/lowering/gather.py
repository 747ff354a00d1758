"""Selecting and repeating indices that are known at compile time: slices, joined.

No products with matrices of zeros and ones: those grow with the square of a size, and an infinity
times zero is no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from penstock.compiler.delegate.lowering import ends, spread
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.index_plan import (
    MOST_PIECES,
    Indices,
    IrregularError,
    Join,
    Plan,
    Repeat,
    Run,
    planned,
)
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim
from penstock.graph.graph import MAX_TENSOR_DIMS

#: A tensor of more dimensions than these has no room for one that is split twice.
MOST_DIMS = MAX_TENSOR_DIMS - 2
#: Up to so many indices are reversed one by one.
MOST_DIGITS = 32
#: Fewer elements than these side by side are not worth a copy of their own: a transpose first
#: brings more of them together.
SHORT = 8


def strided(b: GraphBuilder, x: Tensor, dim: int, start: int, size: Dim, step: int) -> Tensor:
    """Every ``step``-th index: cut to a multiple of ``step``, split the dimension, keep index 0."""
    if step == 1 or size == 1:
        return ends.part(b, x, dim, start, size)
    extent = x.shape[dim]
    if not isinstance(extent, int) or not isinstance(size, int):
        return _strided_from_front(b, x, dim, start, size, step)
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


def _strided_from_front(
    b: GraphBuilder, x: Tensor, dim: int, start: int, size: Dim, step: int
) -> Tensor:
    """Every ``step``-th index of a dynamic dimension, to its end or to a fixed distance before."""
    if isinstance(size, int):
        return ends.every(b, ex.cut(b, x, dim, start, (size - 1) * step + 1), dim, step)
    rest = x.shape[dim] - start
    for left_out in range(step):
        # The last index that is kept stands right at the end of what is left.
        if layout.same(layout.floor_divide(rest - left_out - 1, step) + 1, size):
            whole = ends.part(b, x, dim, start, layout.canonical(rest - left_out))
            return ends.every(b, whole, dim, step)
    raise LoweringError("it steps to a dynamic size")


def repeat_each(b: GraphBuilder, x: Tensor, dim: int, times: int) -> Tensor:
    """Every index of ``dim`` ``times`` times, one after the other."""
    if times == 1:
        return x
    if not isinstance(x.shape[dim], int) and layout.several_dynamic(x.shape):
        return spread.repeat_each(b, x, dim, times)
    wide = b.reshape(x, (*x.shape[: dim + 1], 1, *x.shape[dim + 1 :]))
    joined = repeat_all(b, wide, dim + 1, times)
    return b.reshape(joined, (*x.shape[:dim], x.shape[dim] * times, *x.shape[dim + 1 :]))


def repeat_all(b: GraphBuilder, x: Tensor, dim: int, times: int) -> Tensor:
    """All of ``dim``, ``times`` times: five copies joined, five of those, and so on."""
    copies: list[Tensor] = []
    while True:
        times, rest = divmod(times, 5)
        copies = [*[x] * rest, *copies]
        if times == 0:
            return ex.concatenate(b, copies, dim)
        x = ex.concatenate(b, [x] * 5, dim)


def take(b: GraphBuilder, x: Tensor, dim: int, indices: Sequence[int] | Indices) -> Tensor:
    """``x.index_select(dim, indices)`` for constant indices. Raises LoweringError where they are
    too irregular for slices."""
    extent = x.shape[dim]
    if not isinstance(extent, int):
        raise LoweringError("it selects from a dynamic dimension")
    if x.constant is not None:
        places = torch.as_tensor(indices, dtype=torch.int64)
        shape = (*x.shape[:dim], len(places), *x.shape[dim + 1 :])
        return b.constant_of(b.full_constant(x).index_select(dim, places), shape)
    try:
        plan = planned(np.asarray(indices, np.int64) % extent, extent)
    except IrregularError:
        raise LoweringError(
            f"its indices are no regular sequence: more than {MOST_PIECES} slices, which a kernel "
            "does in less time"
        ) from None
    return _selected(b, x, dim, plan)


def _selected(b: GraphBuilder, x: Tensor, dim: int, plan: Plan) -> Tensor:
    if isinstance(plan, Run):
        return ex.cut(b, x, dim, plan.start, plan.count)
    if isinstance(plan, Repeat):
        return repeat_all(b, _selected(b, x, dim, plan.of), dim, plan.times)
    if isinstance(plan, Join):
        made = {part: _selected(b, x, dim, part) for part in dict.fromkeys(plan.parts)}
        return ex.concatenate(b, [made[part] for part in plan.parts], dim)
    if x.rank > MOST_DIMS:
        return _as_three(b, x, dim, lambda three: _selected(b, three, 1, plan))
    front, back = x.shape[:dim], x.shape[dim + 1 :]
    lines = []
    for begin, part in plan.parts:
        windows = _reaching(b, x, dim, begin, plan.count * plan.width)
        split = b.reshape(windows, (*front, plan.count, plan.width, *back))
        lines.append(_selected(b, split, dim + 1, part))
    joined = ex.concatenate(b, lines, dim + 1)
    if plan.backwards:
        joined = flip(b, joined, dim)
    return b.reshape(joined, (*front, plan.count * joined.shape[dim + 1], *back))


def _as_three(b: GraphBuilder, x: Tensor, dim: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """``change`` of the dimension ``dim`` of ``x``, which has too many dimensions to split one:
    those before it in memory are one meanwhile, and those behind it."""
    x = b.dense(x)
    place = x.order.index(dim)
    arranged = b.permute(x, x.order)
    front, back = arranged.shape[:place], arranged.shape[place + 1 :]
    three = (layout.product(front), x.shape[dim], layout.product(back))
    changed = change(b.reshape(arranged, three))
    wide = b.reshape(changed, (*front, changed.shape[1], *back))
    return b.permute(wide, layout.inverse(x.order))


def _reaching(b: GraphBuilder, x: Tensor, dim: int, start: int, size: int) -> Tensor:
    """``size`` indices of ``dim``; what is put where they hang over the end is not read."""
    extent = x.shape[dim]
    assert isinstance(extent, int)
    if start + size > extent:
        post = [0] * x.rank
        post[dim] = start + size - extent
        x = ex.pad_constant(b, x, [0] * x.rank, post, 0.0)
    return ex.cut(b, x, dim, start, size)


def flip(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """Dimension ``dim`` backwards.

    Up to :data:`MOST_DIGITS` indices are sliced one by one and joined in reverse. A longer
    dimension is split into several such, as a number into digits: all of them reversed is the
    whole reversed.
    """
    extent = x.shape[dim]
    if not isinstance(extent, int):
        raise LoweringError("it turns a dynamic dimension around")
    if x.constant is not None:
        return b.constant_of(b.full_constant(x).flip(dim), x.shape)
    digits = split_evenly(extent, MOST_DIGITS)
    if len(digits) == 1:
        return _reversed(b, x, dim)
    if x.rank > MOST_DIMS:
        return _as_three(b, x, dim, lambda three: flip(b, three, 1))
    whole = math.prod(digits)
    x = _reaching(b, b.dense(x), dim, 0, whole)
    inner = layout.product([x.shape[d] for d in x.order[x.order.index(dim) + 1 :]])
    front, back = x.shape[:dim], x.shape[dim + 1 :]
    fits = x.rank + len(digits) - 1 <= MAX_TENSOR_DIMS
    if fits and not (isinstance(inner, int) and inner < SHORT):
        y = b.reshape(x, (*front, *digits, *back))
        for place in range(len(digits)):
            y = _reversed(b, y, dim + place)
    else:
        y = x
        for digit in digits:
            y = b.reshape(y, (*front, digit, whole // digit, *back))
            order = y.order
            swapped = [*range(dim), dim + 1, dim, *range(dim + 2, y.rank)]
            y = b.place(b.permute(_reversed(b, y, dim), swapped), order)
            y = b.reshape(y, (*front, whole, *back))
    return ex.cut(b, b.reshape(y, x.shape), dim, whole - extent, extent)


def _reversed(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    extent = x.shape[dim]
    assert isinstance(extent, int)
    return ex.concatenate(b, [ex.cut(b, x, dim, i, 1) for i in range(extent - 1, -1, -1)], dim)


def split_evenly(number: int, most: int) -> list[int]:
    """The fewest factors up to ``most``, as alike as can be, whose product is ``number``, or the
    next larger one that has so few."""
    count = 1
    while most**count < number:
        count += 1
    while True:
        factors = _factors(number, count, most)
        if factors is not None:
            return factors
        number += 1


def _factors(number: int, count: int, most: int) -> list[int] | None:
    if count == 1:
        return [number] if number <= most else None
    root = number ** (1 / count)
    for factor in sorted(range(2, most + 1), key=lambda f: abs(f - root)):
        if number % factor == 0:
            rest = _factors(number // factor, count - 1, most)
            if rest is not None:
                return [factor, *rest]
    return None


def roll(b: GraphBuilder, x: Tensor, shifts: Mapping[int, int]) -> Tensor:
    """``x`` rolled by ``shifts[dim]`` in each of ``dims``: its corners (two pieces, or four of two
    dimensions), put together anew. All corners are one pass over the data and every dimension is
    another; the outermost in memory comes last, where only whole blocks are left to copy."""
    starts: dict[int, int] = {}
    for dim, shift in shifts.items():
        extent = x.shape[dim]
        if not isinstance(extent, int):
            x = ends.roll(b, x, dim, shift)
        elif shift % extent:
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
