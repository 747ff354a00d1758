"""Pooling and means."""

from __future__ import annotations

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import reductions
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import (
    FLOATS,
    first_result_only,
    rank_fits,
    reads_integers,
)
from penstock.compiler.delegate.operators.registry import (
    Independent,
    QuantizationRule,
    Shared,
    operator,
)
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments, pair
from penstock.compiler.fx.layout import CHANNELS_LAST
from penstock.graph.kinds import NodeKind, Pool2dAttributes

aten = torch.ops.aten


def channels_last(b: GraphBuilder, x: Tensor) -> Tensor:
    """[N, C, H, W] with the channels innermost in memory."""
    return b.place(b.dense(x), CHANNELS_LAST)


@operator(
    "max_pool", aten.max_pool2d.default, aten.max_pool1d.default,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_max_pool(b: GraphBuilder, node: Node) -> Tensor:
    return max_pool(b, node, layout.shape_of(node.meta["val"]))


@operator(
    "max_pool with indices", aten.max_pool2d_with_indices.default,
    constraints=(first_result_only, rank_fits), notes="where the indices are not used",
)  # fmt: skip
def lower_max_pool_with_indices(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return (max_pool(b, node, layout.shape_of(node.meta["val"][0])),)


def max_pool(b: GraphBuilder, node: Node, target: layout.Shape) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    one_axis = node.target is aten.max_pool1d.default
    kernel = _axes(named["kernel_size"], one_axis, 1)
    stride = _axes(named["stride"] or named["kernel_size"], one_axis, 1)
    padding = _axes(named["padding"], one_axis, 0)
    dilation = _axes(named["dilation"], one_axis, 1)
    picture = channels_last(b, as_images(b, x, one_axis))
    wide = widened(target, one_axis)
    output = b.result(wide, CHANNELS_LAST)
    after = [
        pad + _ceil_extra(size, result, k, s, pad, d) if named["ceil_mode"] else pad
        for size, result, k, s, pad, d in zip(
            picture.shape[2:], wide[2:], kernel, stride, padding, dilation, strict=True
        )
    ]
    attributes = Pool2dAttributes(
        (padding[0], after[1], after[0], padding[1]), kernel, stride, dilation
    )
    b.add_node(NodeKind.MAX_POOLING_2D, [picture], output, attributes)
    return b.reshape(output, target)


def _axes(value: object, one_axis: bool, default: int) -> tuple[int, int]:
    """A parameter for (height, width); one-dimensional pooling runs along the width."""
    height, width = pair(value, default)  # type: ignore[arg-type]
    return (default, width) if one_axis else (height, width)


def as_images(b: GraphBuilder, x: Tensor, one_axis: bool) -> Tensor:
    return b.reshape(x, widened(x.shape, one_axis))


def widened(shape: layout.Shape, one_axis: bool) -> layout.Shape:
    if one_axis:
        shape = (*shape[:-1], 1, shape[-1])
    return (1, *shape) if len(shape) == 3 else shape


def _ceil_extra(
    size: layout.Dim, result: layout.Dim, kernel: int, stride: int, padding: int, dilation: int
) -> int:
    """More padding at the end so that ``ceil_mode``'s last window fits."""
    if not isinstance(size, int) or not isinstance(result, int):
        # Windows of one stride more, if that is what PyTorch takes at every size.
        padded = size + 2 * padding + stride - 1 - dilation * (kernel - 1) - 1
        if not layout.same(layout.floor_divide(padded, stride) + 1, result):
            raise LoweringError("with ceil_mode the last window is left out at some of its sizes")
        return stride - 1
    covered = (result - 1) * stride + dilation * (kernel - 1) + 1
    return max(0, covered - size - 2 * padding)


def divides_otherwise(node: Node) -> QuantizationRule | None:
    """Own output with a divisor of its own."""
    return None if arguments(node).get("divisor_override") is None else Independent()


@operator(
    "avg_pool", aten.avg_pool2d.default, aten.avg_pool1d.default,
    constraints=FLOATS, quantization=Shared(blends=True), special_rule=divides_otherwise,
    notes="counted padding becomes a constant pad before the pool",
)  # fmt: skip
def lower_avg_pool(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    one_axis = node.target is aten.avg_pool1d.default
    x = as_images(b, b.tensor(named["self"]), one_axis)
    kernel = _axes(named["kernel_size"], one_axis, 1)
    stride = _axes(named["stride"] or named["kernel_size"], one_axis, 1)
    padding = _axes(named["padding"], one_axis, 0)
    divisor = named.get("divisor_override")
    target = layout.shape_of(node.meta["val"])
    wide = widened(target, one_axis)
    extra = (0, 0)
    if named["ceil_mode"]:
        overhang = [
            _ceil_extra(size, result, k, s, p, 1)
            for size, result, k, s, p in zip(
                x.shape[2:], wide[2:], kernel, stride, padding, strict=True
            )
        ]
        extra = (overhang[0], overhang[1])
    counted = divisor is not None
    if any(padding) and (named["count_include_pad"] or counted):
        amounts = [0, 0, *padding]
        x = ex.pad_constant(b, x, amounts, amounts, 0.0)
        padding = (0, 0)
    if any(extra) and counted:
        x = ex.pad_constant(b, x, [0] * 4, [0, 0, *extra], 0.0)
        extra = (0, 0)
    output = average_pool(b, x, kernel, stride, padding, wide, extra)
    if divisor is not None and divisor != kernel[0] * kernel[1]:
        output = ex.affine(b, output, kernel[0] * kernel[1] / divisor, 0.0)
    return b.reshape(output, target)


def average_pool(
    b: GraphBuilder,
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    shape: layout.Shape,
    extra: tuple[int, int] = (0, 0),
) -> Tensor:
    """Average pooling of [N, C, H, W] that does not count its padding, nor what ``ceil_mode``'s
    last windows see beyond it (``extra``)."""
    picture = channels_last(b, x)
    if kernel == (1, 1) and stride == (1, 1):
        return picture
    output = b.result(shape, CHANNELS_LAST)
    pads = (padding[0], padding[1] + extra[1], padding[0] + extra[0], padding[1])
    attributes = Pool2dAttributes(pads, kernel, stride)
    return b.add_node(NodeKind.AVG_POOLING_2D, [picture], output, attributes)


@operator("mean", aten.mean.dim, aten.mean.default, constraints=FLOATS, quantization=Independent())
def lower_mean(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    dims = reductions.normalized(named.get("dim"), x.rank)
    return reductions.mean(b, x, dims, bool(named.get("keepdim", False)), reads_integers(node))


@operator("sum", aten.sum.dim_IntList, aten.sum.default, constraints=FLOATS)
def lower_sum(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    dims = reductions.normalized(named.get("dim"), x.rank)
    return reductions.total(b, x, dims, bool(named.get("keepdim", False)))
