"""Adaptive pooling, with even and with uneven windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler import layout, movement, reductions
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.layout import CHANNELS_LAST, Dim
from penstock.compiler.operators.constraints import (
    FLOATS,
    first_result_only,
    rank_fits,
    reads_integers,
)
from penstock.compiler.operators.pooling import as_images, average_pool, channels_last, widened
from penstock.compiler.operators.registry import Independent, operator
from penstock.formats.payload import NodeKind, Pool2dAttributes

aten = torch.ops.aten


@operator(
    "adaptive_avg_pool", aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    constraints=FLOATS, quantization=Independent(),
    notes="uneven windows by a product with a matrix along each axis",
)  # fmt: skip
def lower_adaptive_avg_pool(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    target = layout.shape_of(node.meta["val"])
    one_axis = node.target is aten.adaptive_avg_pool1d.default
    spatial = [x.rank - 1] if one_axis else [x.rank - 2, x.rank - 1]
    if all(target[dim] == 1 for dim in spatial):
        return reductions.mean(b, x, spatial, True, reads_integers(node))
    picture, wide = as_images(b, x, one_axis), widened(target, one_axis)
    kernel = even_windows(picture.shape[2:], wide[2:])
    if kernel is not None:
        return b.reshape(average_pool(b, picture, kernel, kernel, (0, 0), wide), target)
    for dim in (2, 3):
        if picture.shape[dim] != wide[dim]:
            picture = movement.along(b, picture, dim, _averages(picture.shape[dim], wide[dim]))
    return b.reshape(picture, target)


def even_windows(sizes: Sequence[Dim], targets: Sequence[Dim]) -> tuple[int, int] | None:
    """The window of an adaptive pooling whose windows are all alike and side by side."""
    kernel = []
    for size, target in zip(sizes, targets, strict=True):
        if not isinstance(size, int) or not isinstance(target, int):
            raise LoweringError("adaptive pooling of a dynamic size")
        if size % target:
            return None
        kernel.append(size // target)
    return (kernel[0], kernel[1])


def windows(size: Dim, count: Dim) -> list[tuple[int, int]]:
    """Where each of ``count`` windows over ``size`` places begins and ends."""
    if not isinstance(size, int) or not isinstance(count, int):
        raise LoweringError("adaptive pooling of a dynamic size")
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _averages(size: Dim, count: Dim) -> torch.Tensor:
    """[count, size]: each row averages one window."""
    places = windows(size, count)
    matrix = torch.zeros(len(places), size)
    for row, (start, end) in zip(matrix, places, strict=True):
        row[start:end] = 1.0 / (end - start)
    return matrix


@operator(
    "adaptive_max_pool", aten.adaptive_max_pool2d.default, aten.adaptive_max_pool1d.default,
    constraints=(first_result_only, rank_fits), notes="where the indices are not used",
)  # fmt: skip
def lower_adaptive_max_pool(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    """Windows of the longest length, the shorter ones filled up with their last place, lie side
    by side after a selection; then one max pooling takes them all."""
    target = layout.shape_of(node.meta["val"][0])
    one_axis = node.target is aten.adaptive_max_pool1d.default
    picture, wide = as_images(b, b.tensor(node.args[0]), one_axis), widened(target, one_axis)
    kernel = []
    for dim in (2, 3):
        spans = windows(picture.shape[dim], wide[dim])
        longest = max(end - start for start, end in spans)
        places = [min(start + i, end - 1) for start, end in spans for i in range(longest)]
        picture = movement.take(b, picture, dim, places)
        kernel.append(longest)
    if kernel == [1, 1]:
        return (b.reshape(picture, target),)
    output = b.result(wide, CHANNELS_LAST)
    size = (kernel[0], kernel[1])
    attributes = Pool2dAttributes((0, 0, 0, 0), size, size)
    b.add_node(NodeKind.MAX_POOLING_2D, [channels_last(b, picture)], output, attributes)
    return (b.reshape(output, target),)
