"""Movement along a dynamic dimension, whose end no slice can name.

XNNPACK's slices count from the front. Its max pooling knows where a dimension ends: what a window
reads beyond it is the last value, or with a dilation what stands a multiple of it before. So
windows of one value, or of one value seen twice, move values, exactly, and int8 as well as floats:

    padding           repeats the first and the last value
    a stride          keeps every n-th value
    a long stride     keeps the first value and the last one
    a long dilation   leaves out the last values
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim
from penstock.graph.graph import FLAG_KEEP_DIMS
from penstock.graph.kinds import NodeKind, Pool2dAttributes

#: Every value that is reached from the end takes a copy of the tensor.
MOST_FROM_END = 16


@dataclass(frozen=True)
class Picture:
    """A tensor as a picture [N, H, W, C] in this order in memory, with a dimension of it as
    ``axis`` 1 or 2. ``restored`` turns a picture of another size there back into a tensor of the
    old shape with that size."""

    tensor: Tensor
    axis: int
    restored: Callable[[Tensor], Tensor]


def picture(b: GraphBuilder, x: Tensor, dim: int, *, static_channels: bool = False) -> Picture:
    """``x`` with ``dim`` as height or width, moved as little as possible.

    ``static_channels``: whether what is innermost must have a constant size.
    """
    x = b.dense(x)
    others = [d for d in x.order if d != dim and x.shape[d] != 1]
    innermost = _innermost(x, others, static_channels)
    kept = [d for d in others if d != innermost]
    place = x.order.index(dim)
    before = [d for d in kept if x.order.index(d) < place]
    after = [d for d in kept if d not in before]
    if len(kept) == 2 and not before:
        before, after = after[:1], after[1:]
    core = [*before, dim, *after, *([] if innermost is None else [innermost])]
    ones = [d for d in x.order if d not in core]
    arranged = b.permute(x, [*ones, *core])
    full = arranged.shape
    shapes = [full[len(ones) + len(before)]]
    if len(kept) <= 2:
        head = [full[len(ones) + i] for i in range(len(before))]
        tail = [full[len(ones) + len(before) + 1 + i] for i in range(len(after))]
    else:
        head = [layout.product([x.shape[d] for d in before])] if before else []
        tail = [layout.product([x.shape[d] for d in after])] if after else []
    channels: Dim = 1 if innermost is None else x.shape[innermost]
    shape = [*head, *shapes, *tail, channels]
    axis = 4 - len(shape) + len(head)
    four = b.reshape(arranged, (*(1,) * (4 - len(shape)), *shape))
    four = b.place(four, layout.identity(4))

    def restored(y: Tensor) -> Tensor:
        size = y.shape[axis]
        position = len(ones) + len(before)
        wide = b.reshape(y, (*full[:position], size, *full[position + 1 :]))
        return b.permute(wide, layout.inverse([*ones, *core]))

    return Picture(four, axis, restored)


def _innermost(x: Tensor, others: Sequence[int], static: bool) -> int | None:
    """The dimension that becomes the channels: what is innermost in memory, if it will do."""
    fit = [d for d in others if not static or isinstance(x.shape[d], int)]
    return fit[-1] if fit else None


def _pooled(
    b: GraphBuilder,
    source: Picture,
    size: Dim,
    *,
    taps: int = 1,
    stride: int = 1,
    dilation: int = 1,
    before: int = 0,
    after: int = 0,
) -> Picture:
    """Max pooling along the picture's axis, whose size becomes ``size``."""

    def along(value: int, other: int) -> tuple[int, int]:
        return (value, other) if source.axis == 1 else (other, value)

    top, left = along(before, 0)
    bottom, right = along(after, 0)
    attributes = Pool2dAttributes(
        (top, right, bottom, left), along(taps, 1), along(stride, 1), along(dilation, 1)
    )
    shape = tuple(size if d == source.axis else s for d, s in enumerate(source.tensor.shape))
    value = b.value_of(source.tensor)
    output = b.result(shape, layout.identity(4), value.dtype, value.quantization)
    b.add_node(NodeKind.MAX_POOLING_2D, [source.tensor], output, attributes)
    return Picture(output, source.axis, source.restored)


def repeat_edges(b: GraphBuilder, x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """``x`` with its first index ``before`` times in front and its last ``after`` times behind."""
    source = picture(b, x, dim)
    size = x.shape[dim] + before + after
    return source.restored(_pooled(b, source, size, before=before, after=after).tensor)


def every(b: GraphBuilder, x: Tensor, dim: int, step: int) -> Tensor:
    """``x[::step]`` along ``dim``."""
    source = picture(b, x, dim)
    size = layout.floor_divide(x.shape[dim] - 1, step) + 1
    return source.restored(_pooled(b, source, size, stride=step).tensor)


def without_last(b: GraphBuilder, x: Tensor, dim: int, count: int) -> Tensor:
    """``x[:-count]`` along ``dim``."""
    if count == 0:
        return x
    source = picture(b, x, dim)
    return source.restored(_without_last(b, source, count).tensor)


def _without_last(b: GraphBuilder, source: Picture, count: int) -> Picture:
    size = source.tensor.shape[source.axis]
    reach = max(b.dynamic.upper(size), count)
    # The second value of each window is beyond the end, so it is the first one again.
    return _pooled(b, source, size - count, taps=2, dilation=reach, after=reach - count)


def from_end(b: GraphBuilder, x: Tensor, dim: int, distance: int) -> Tensor:
    """``x[-distance]`` along ``dim``, which stays with size 1."""
    return last_ones(b, x, dim, [distance])[0]


def last_ones(b: GraphBuilder, x: Tensor, dim: int, distances: Sequence[int]) -> list[Tensor]:
    """``x[-distance]`` for each of ``distances`` (rising), each with size 1 along ``dim``."""
    if distances and distances[-1] > MOST_FROM_END:
        raise LoweringError(
            f"it counts {distances[-1]} back from the end of a dynamic dimension, "
            f"at most {MOST_FROM_END} are taken from there"
        )
    source = picture(b, x, dim)
    found = []
    left_out = 0
    for distance in distances:
        if distance - 1 > left_out:
            source = _without_last(b, source, distance - 1 - left_out)
            left_out = distance - 1
        reach = b.dynamic.upper(source.tensor.shape[source.axis])
        # One window at the front, one beyond the end.
        both = _pooled(b, source, 2, stride=reach, after=reach)
        last = ex.cut(b, both.tensor, source.axis, 1, 1, FLAG_KEEP_DIMS)
        found.append(source.restored(last))
    return found


def running_max(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """The maximum of each value and all before it, along ``dim``: of windows first, then of
    windows of windows. What they read before the front is a value that they see anyway."""
    source = picture(b, x, dim)
    size = source.tensor.shape[source.axis]
    most = b.dynamic.upper(size)
    window = math.isqrt(max(most - 1, 0)) + 1
    for taps, step in ((window, 1), (-(-most // window), window)):
        if taps > 1:
            before = (taps - 1) * step
            source = _pooled(b, source, size, taps=taps, dilation=step, before=before)
    return source.restored(source.tensor)


def maximum(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """The maximum along ``dim``, which stays with size 1: of windows side by side, then of those.
    What they read beyond the end is a value that they see anyway."""
    source = picture(b, x, dim)
    most = b.dynamic.upper(source.tensor.shape[source.axis])
    window = math.isqrt(max(most - 1, 0)) + 1
    count = layout.floor_divide(source.tensor.shape[source.axis] - 1, window) + 1
    windows = _pooled(b, source, count, taps=window, stride=window, after=window - 1)
    left = -(-most // window)
    return source.restored(_pooled(b, windows, 1, taps=left, stride=left, after=left - 1).tensor)


def part(b: GraphBuilder, x: Tensor, dim: int, start: Dim, size: Dim) -> Tensor:
    """``size`` indices of the dynamic dimension ``dim`` from ``start`` on; a dynamic ``size``
    reaches to the end, or to a fixed distance from it, or is one of the dimension's halves, thirds
    …"""
    if not isinstance(size, int):
        times, index = (_multiple(whole, size) for whole in (x.shape[dim], start))
        if times is not None and index is not None and -times <= index < times and times > 1:
            apart = b.reshape(x, (*x.shape[:dim], times, size, *x.shape[dim + 1 :]))
            one = ex.cut(b, apart, dim, index % times, 1)
            return b.reshape(one, (*x.shape[:dim], size, *x.shape[dim + 1 :]))
    if not isinstance(start, int):
        raise LoweringError("its start is computed at run time")
    if isinstance(size, int):
        return ex.cut(b, x, dim, start, size)
    rest = layout.canonical(x.shape[dim] - start - size)
    if not isinstance(rest, int) or rest < 0:
        raise LoweringError("it slices to a dynamic size")
    return without_last(b, ex.cut(b, x, dim, start, size + rest), dim, rest)


def _multiple(whole: Dim, size: Dim) -> int | None:
    times = layout.canonical(whole / size)
    return times if isinstance(times, int) and layout.same(whole, times * size) else None


def roll(b: GraphBuilder, x: Tensor, dim: int, shift: int) -> Tensor:
    """``x`` rolled by ``shift`` along the dynamic dimension ``dim``."""
    if b.dynamic.lower(x.shape[dim]) <= abs(shift):
        raise LoweringError(f"it rolls by {shift} along a dimension that may be no longer")
    if shift == 0:
        return x
    if shift < 0:
        rest = part(b, x, dim, -shift, layout.canonical(x.shape[dim] + shift))
        return ex.concatenate(b, [rest, ex.cut(b, x, dim, 0, -shift)], dim)
    tail = last_ones(b, x, dim, range(1, shift + 1))[::-1]
    return ex.concatenate(b, [*tail, without_last(b, x, dim, shift)], dim)
