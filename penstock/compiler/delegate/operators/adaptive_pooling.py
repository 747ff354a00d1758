"""Adaptive pooling, with even and with uneven windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import axis_windows, reductions
from penstock.compiler.delegate.lowering.axis_windows import Windows
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators import windowed
from penstock.compiler.delegate.operators.constraints import (
    FLOATS,
    first_result_only,
    rank_fits,
    reads_integers,
)
from penstock.compiler.delegate.operators.pooling import (
    as_images,
    average_pool,
    channels_last,
    widened,
)
from penstock.compiler.delegate.operators.registry import Independent, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim
from penstock.graph.kinds import NodeKind, Pool2dAttributes

aten = torch.ops.aten


@operator(
    "adaptive_avg_pool", aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    constraints=FLOATS, quantization=Independent(),
    notes="uneven windows along one axis after the other, by pooling for each kind of window",
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
        picture = windowed.weighted(b, picture, dim, windows(picture.shape[dim], wide[dim]))
    return b.reshape(picture, target)


def even_windows(sizes: Sequence[Dim], targets: Sequence[Dim]) -> tuple[int, int] | None:
    """The window of an adaptive pooling whose windows are all alike and side by side."""
    kernel = []
    for size, target in zip(sizes, targets, strict=True):
        if not isinstance(size, int) or not isinstance(target, int):
            raise LoweringError(
                "its adaptive windows follow a dynamic size, XNNPACK's windows are fixed"
            )
        if size % target:
            return None
        kernel.append(size // target)
    return (kernel[0], kernel[1])


def windows(size: Dim, count: Dim) -> Windows:
    """``count`` windows over ``size`` places, averaged."""
    if not isinstance(size, int) or not isinstance(count, int):
        raise LoweringError(
            "its adaptive windows follow a dynamic size, XNNPACK's windows are fixed"
        )
    places = np.arange(count, dtype=np.int64)
    spans = np.stack([places * size // count, -(-(places + 1) * size // count)], 1)
    return axis_windows.averages(spans)


@operator(
    "adaptive_max_pool", aten.adaptive_max_pool2d.default, aten.adaptive_max_pool1d.default,
    constraints=(first_result_only, rank_fits), notes="where the indices are not used",
)  # fmt: skip
def lower_adaptive_max_pool(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    target = layout.shape_of(node.meta["val"][0])
    one_axis = node.target is aten.adaptive_max_pool1d.default
    picture, wide = as_images(b, b.tensor(node.args[0]), one_axis), widened(target, one_axis)
    kernel = even_windows(picture.shape[2:], wide[2:])
    if kernel is None or kernel == (1, 1):
        for dim in (2, 3):
            picture = windowed.largest(b, picture, dim, windows(picture.shape[dim], wide[dim]))
        return (b.reshape(picture, target),)
    output = b.result(wide, CHANNELS_LAST)
    attributes = Pool2dAttributes((0, 0, 0, 0), kernel, kernel)
    b.add_node(NodeKind.MAX_POOLING_2D, [channels_last(b, picture)], output, attributes)
    return (b.reshape(output, target),)
