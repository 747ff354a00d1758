"""Sliding windows laid out one beside the other (unfold), and put back (fold)."""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, gather
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.registry import Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments, pair
from penstock.compiler.fx.layout import Dim

aten = torch.ops.aten

#: More places in a window are not sliced one by one.
MOST_PLACES = 256
#: So many elements in one place are worth a copy of their own.
TOGETHER = 16


@operator(
    "unfold", aten.unfold.default, aten.unfold_copy.default, constraints=FLOATS,
    quantization=Shared(),
)  # fmt: skip
def lower_unfold(b: GraphBuilder, node: Node) -> Tensor:
    """[..., L, ...] → [..., windows, ..., size]."""
    named = arguments(node)
    x = b.tensor(node.args[0])
    x = b.reshape(x, (1,)) if x.rank == 0 else x
    dim, size, step = named["dimension"] % x.rank, int(named["size"]), int(named["step"])
    count = layout.shape_of(node.meta["val"])[dim]
    windows = _windows(b, x, dim, count, size, step)
    order = [d for d in range(windows.rank) if d != dim + 1]
    return b.permute(windows, [*order, dim + 1])


def _windows(
    b: GraphBuilder, x: Tensor, dim: int, count: Dim, size: int, step: int, dilation: int = 1
) -> Tensor:
    """[..., L, ...] → [..., count, size, ...]: slices of what the windows have between them as
    they overlap, or, where that is but a few elements, a slice for each place in the window."""
    behind = layout.product([x.shape[d] for d in x.order[x.order.index(dim) + 1 :]])
    if isinstance(count, int) and (
        step >= size or count <= size or size > MOST_PLACES or not isinstance(behind, int)
        or (step * behind >= TOGETHER and dilation == 1)
    ):  # fmt: skip
        places = np.arange(count)[:, None] * step + np.arange(size) * dilation
        taken = gather.take(b, x, dim, places.reshape(-1))
        return b.reshape(taken, (*x.shape[:dim], count, size, *x.shape[dim + 1 :]))
    last = (size - 1) * dilation
    if size > MOST_PLACES:
        raise LoweringError(f"it unfolds windows of {size} places in a dynamic dimension")
    lines = [_places(b, x, dim, place * dilation, count, step, last) for place in range(size)]
    wide = [b.reshape(line, (*line.shape[:dim], 1, *line.shape[dim:])) for line in lines]
    stacked = ex.concatenate(b, wide, dim)
    order = [*range(dim), dim + 1, dim, *range(dim + 2, stacked.rank)]
    return b.permute(stacked, order)


def _places(
    b: GraphBuilder, x: Tensor, dim: int, start: int, count: Dim, step: int, last: int
) -> Tensor:
    """The place ``start`` of ``count`` windows, which are ``last`` places longer than one."""
    if isinstance(count, int):
        return gather.strided(b, x, dim, start, count, step)
    line = ends.part(b, x, dim, start, layout.canonical(x.shape[dim] - last))
    return line if step == 1 else ends.every(b, line, dim, step)


def _batched(b: GraphBuilder, x: Tensor, rank: int) -> Tensor:
    return b.reshape(x, (1, *x.shape)) if x.rank == rank - 1 else x


@operator(
    "im2col", aten.im2col.default, constraints=FLOATS, quantization=Shared(),
    notes="torch.nn.Unfold: windows of rows, then of columns, of as many slices as overlap",
)  # fmt: skip
def lower_im2col(b: GraphBuilder, node: Node) -> Tensor:
    """[N, C, H, W] → [N, C * kh * kw, windows]."""
    named = arguments(node)
    x = _batched(b, b.tensor(node.args[0]), 4)
    kernel, stride, dilation = (pair(named[k]) for k in ("kernel_size", "stride", "dilation"))
    padding = pair(named["padding"], 0)
    x = ex.pad_constant(b, x, [0, 0, *padding], [0, 0, *padding], 0.0)
    rows, columns = (
        layout.floor_divide(size - d * (k - 1) - 1, s) + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    lines = _windows(b, x, 2, rows, kernel[0], stride[0], dilation[0])
    if layout.is_static((rows, columns)):
        windows = _windows(b, lines, 4, columns, kernel[1], stride[1], dilation[1])
        stacked = b.permute(windows, [0, 1, 3, 5, 2, 4])
    else:  # each place in a window a channel at once: what merges dynamic sizes needs dimensions
        lines = b.permute(lines, [0, 1, 3, 2, 4])
        channels = layout.product(lines.shape[1:3])
        lines = b.reshape(lines, (lines.shape[0], channels, *lines.shape[3:]))
        windows = _windows(b, lines, 3, columns, kernel[1], stride[1], dilation[1])
        stacked = b.permute(windows, [0, 1, 4, 2, 3])
    return b.reshape(stacked, layout.shape_of(node.meta["val"]))


@operator(
    "col2im", aten.col2im.default, constraints=FLOATS,
    notes="torch.nn.Fold: a change of shape where windows lie side by side, else sums of such",
)  # fmt: skip
def lower_col2im(b: GraphBuilder, node: Node) -> Tensor:
    """[N, C * kh * kw, windows] → [N, C, H, W], overlapping windows summed."""
    named = arguments(node)
    x = _batched(b, b.tensor(node.args[0]), 3)
    size = pair(named["output_size"])
    kernel, stride, dilation = (pair(named[k]) for k in ("kernel_size", "stride", "dilation"))
    padding = pair(named["padding"], 0)
    channels = x.shape[1] // (kernel[0] * kernel[1])
    rows, columns = (
        (extent + 2 * p - d * (k - 1) - 1) // s + 1
        for extent, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    split = b.reshape(x, (x.shape[0], channels, *kernel, rows, columns))
    windows = b.permute(split, [0, 1, 4, 2, 5, 3])  # [N, C, rows, kh, columns, kw]
    lines = _overlapped(b, windows, 4, stride[1], dilation[1], padding[1], size[1])
    picture = _overlapped(b, lines, 2, stride[0], dilation[0], padding[0], size[0])
    return b.reshape(picture, layout.shape_of(node.meta["val"]))


def _overlapped(
    b: GraphBuilder, x: Tensor, dim: int, step: int, dilation: int, padding: int, extent: int
) -> Tensor:
    """[..., count, size, ...] → [..., extent, ...]: windows that begin ``step`` places apart, the
    first one ``padding`` places before the start, summed where they overlap.

    Parts of the windows that do not overlap, of ``step`` places or (with a dilation) of one, lie
    side by side as they are; the sum is over these, each moved to its place.
    """
    count, size = x.shape[dim : dim + 2]
    assert isinstance(count, int) and isinstance(size, int)
    part = min(step, size) if dilation == 1 else 1
    total: Tensor | None = None
    for begin in range(0, size, part):
        width = min(part, size - begin)
        taken = ex.cut(b, x, dim + 1, begin, width)
        apart = _padded(b, taken, dim + 1, 0, step - width)
        line = b.reshape(apart, (*x.shape[:dim], count * step, *x.shape[dim + 2 :]))
        start = begin * dilation - padding
        line = _padded(b, line, dim, start, extent - start - count * step)
        total = line if total is None else ex.add(b, total, line)
    assert total is not None
    return total


def _padded(b: GraphBuilder, x: Tensor, dim: int, before: int, after: int) -> Tensor:
    pre, post = [0] * x.rank, [0] * x.rank
    pre[dim], post[dim] = before, after
    return ex.pad_constant(b, x, pre, post, 0.0)
