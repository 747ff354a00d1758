"""Sliding windows laid out one beside the other (unfold), and put back (fold)."""

from __future__ import annotations

from itertools import product

import torch
from torch.fx import Node

from penstock.compiler import expressions as ex
from penstock.compiler import layout, movement
from penstock.compiler.arguments import arguments, pair
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.operators.constraints import FLOATS
from penstock.compiler.operators.convolution import deconvolve
from penstock.compiler.operators.registry import Shared, operator

aten = torch.ops.aten

#: Every place in a window is a slice.
MOST_PLACES = 256


@operator(
    "unfold", aten.unfold.default, aten.unfold_copy.default, constraints=FLOATS,
    quantization=Shared(),
)  # fmt: skip
def lower_unfold(b: GraphBuilder, node: Node) -> Tensor:
    """[..., L, ...] → [..., windows, ..., size]."""
    named = arguments(node)
    x = b.tensor(node.args[0])
    dim, size, step = named["dimension"] % max(x.rank, 1), int(named["size"]), int(named["step"])
    count = layout.shape_of(node.meta["val"])[dim]
    if not isinstance(count, int):
        raise LoweringError("it unfolds a dynamic dimension")
    if size == step:
        windows = ex.cut(b, x, dim, 0, count * size)
        split = b.reshape(windows, (*x.shape[:dim], count, size, *x.shape[dim + 1 :]))
        inner = dim + 1
    elif count <= size:
        pieces = [ex.cut(b, x, dim, start * step, size) for start in range(count)]
        split, inner = _stacked(b, pieces, dim), dim + 1
    else:
        if size > MOST_PLACES:
            raise LoweringError(
                f"its windows have {size} elements, at most {MOST_PLACES} are cut apart"
            )
        pieces = [movement.strided(b, x, dim, place, count, step) for place in range(size)]
        split, inner = _stacked(b, pieces, dim), dim
    order = [d for d in range(split.rank) if d != inner]
    return b.permute(split, [*order, inner])


def _stacked(b: GraphBuilder, pieces: list[Tensor], dim: int) -> Tensor:
    wide = [b.reshape(piece, (*piece.shape[:dim], 1, *piece.shape[dim:])) for piece in pieces]
    return ex.concatenate(b, wide, dim)


def _batched(b: GraphBuilder, x: Tensor, rank: int) -> Tensor:
    return b.reshape(x, (1, *x.shape)) if x.rank == rank - 1 else x


@operator(
    "im2col", aten.im2col.default, constraints=FLOATS, quantization=Shared(),
    notes="torch.nn.Unfold: one slice for each place in the window",
)  # fmt: skip
def lower_im2col(b: GraphBuilder, node: Node) -> Tensor:
    """[N, C, H, W] → [N, C * kh * kw, windows]."""
    named = arguments(node)
    x = _batched(b, b.tensor(node.args[0]), 4)
    kernel, stride, dilation = (pair(named[k]) for k in ("kernel_size", "stride", "dilation"))
    padding = pair(named["padding"], 0)
    if kernel[0] * kernel[1] > MOST_PLACES:
        places = kernel[0] * kernel[1]
        raise LoweringError(
            f"its windows have {places} elements, at most {MOST_PLACES} are cut apart"
        )
    x = ex.pad_constant(b, x, [0, 0, *padding], [0, 0, *padding], 0.0)
    height, width = x.shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise LoweringError("it unfolds a dynamic size")
    rows, columns = (
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip((height, width), kernel, stride, dilation, strict=True)
    )
    if stride == kernel and dilation == (1, 1):
        whole = ex.slice_dims(b, x, [0] * 4, [*x.shape[:2], rows * kernel[0], columns * kernel[1]])
        split = b.reshape(whole, (*x.shape[:2], rows, kernel[0], columns, kernel[1]))
        stacked = b.permute(split, [0, 1, 3, 5, 2, 4])
    else:
        lines = [
            movement.strided(b, x, 2, i * dilation[0], rows, stride[0]) for i in range(kernel[0])
        ]
        pieces = [
            movement.strided(b, line, 3, j * dilation[1], columns, stride[1])
            for line, j in product(lines, range(kernel[1]))
        ]
        stacked = _stacked(b, pieces, 2)
    return b.reshape(stacked, layout.shape_of(node.meta["val"]))


@operator(
    "col2im", aten.col2im.default, constraints=FLOATS,
    notes="torch.nn.Fold: a change of shape where windows lie side by side, else a transposed "
    "convolution with ones",
)  # fmt: skip
def lower_col2im(b: GraphBuilder, node: Node) -> Tensor:
    """[N, C * kh * kw, windows] → [N, C, H, W], overlapping windows summed."""
    named = arguments(node)
    x = _batched(b, b.tensor(node.args[0]), 3)
    size = pair(named["output_size"])
    kernel, stride, dilation = (pair(named[k]) for k in ("kernel_size", "stride", "dilation"))
    padding = pair(named["padding"], 0)
    places = kernel[0] * kernel[1]
    channels = x.shape[1] // places
    rows, columns = (
        (extent + 2 * p - d * (k - 1) - 1) // s + 1
        for extent, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    target = layout.shape_of(node.meta["val"])
    side_by_side = stride == kernel and dilation == (1, 1) and padding == (0, 0)
    if side_by_side and size == (rows * kernel[0], columns * kernel[1]):
        split = b.reshape(x, (x.shape[0], channels, *kernel, rows, columns))
        return b.reshape(b.permute(split, [0, 1, 4, 2, 5, 3]), target)
    if not isinstance(channels, int):
        raise LoweringError("it folds a dynamic number of channels")
    # Place (i, j) of a window goes to its own corner of it: one-hot filters, group by group.
    weight = torch.eye(places).view(places, 1, *kernel).repeat(channels, 1, 1, 1)
    extra = [
        extent + 2 * p - ((n - 1) * s + d * (k - 1) + 1)
        for extent, n, k, s, p, d in zip(
            size, (rows, columns), kernel, stride, padding, dilation, strict=True
        )
    ]
    picture = b.reshape(x, (x.shape[0], x.shape[1], rows, columns))
    result = deconvolve(
        b, picture, b.constant(weight), None, stride, padding, extra, dilation, channels
    )
    return b.reshape(result, target)
