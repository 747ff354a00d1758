"""Pooling and means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler import expressions as ex
from penstock.compiler import layout, reductions
from penstock.compiler.arguments import arguments, pair
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.layout import CHANNELS_LAST
from penstock.compiler.operators.constraints import FLOATS, reads_integers
from penstock.compiler.operators.registry import Shared, operator
from penstock.formats.payload import NodeKind, Pool2dAttributes

aten = torch.ops.aten


def _images(b: GraphBuilder, x: Tensor) -> Tensor:
    """[C, L], [N, C, L], [C, H, W] and [N, C, H, W] as the latter; one axis gets a height of 1."""
    return b.place(b.dense(x), CHANNELS_LAST)


@operator(
    "max_pool", aten.max_pool2d.default, aten.max_pool1d.default,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_max_pool(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    one_axis = node.target is aten.max_pool1d.default
    kernel = _axes(named["kernel_size"], one_axis, 1)
    stride = _axes(named["stride"] or named["kernel_size"], one_axis, 1)
    padding = _axes(named["padding"], one_axis, 0)
    dilation = _axes(named["dilation"], one_axis, 1)
    images = _images(b, _as_images(b, x, one_axis))
    target = layout.shape_of(node.meta["val"])
    wide = _widened(target, one_axis)
    output = b.result(wide, CHANNELS_LAST)
    after = [
        pad + _ceil_extra(size, result, k, s, pad, d) if named["ceil_mode"] else pad
        for size, result, k, s, pad, d in zip(
            images.shape[2:], wide[2:], kernel, stride, padding, dilation, strict=True
        )
    ]
    attributes = Pool2dAttributes(
        (padding[0], after[1], after[0], padding[1]), kernel, stride, dilation
    )
    b.add_node(NodeKind.MAX_POOLING_2D, [images], output, attributes)
    return b.reshape(output, target)


def _axes(value: object, one_axis: bool, default: int) -> tuple[int, int]:
    """A parameter for (height, width); one-dimensional pooling runs along the width."""
    height, width = pair(value, default)  # type: ignore[arg-type]
    return (default, width) if one_axis else (height, width)


def _as_images(b: GraphBuilder, x: Tensor, one_axis: bool) -> Tensor:
    return b.reshape(x, _widened(x.shape, one_axis))


def _widened(shape: layout.Shape, one_axis: bool) -> layout.Shape:
    if one_axis:
        shape = (*shape[:-1], 1, shape[-1])
    return (1, *shape) if len(shape) == 3 else shape


def _ceil_extra(
    size: layout.Dim, result: layout.Dim, kernel: int, stride: int, padding: int, dilation: int
) -> int:
    """More padding at the end so that ``ceil_mode``'s last window fits."""
    if not isinstance(size, int) or not isinstance(result, int):
        raise LoweringError("ceil_mode over a dynamic size")
    covered = (result - 1) * stride + dilation * (kernel - 1) + 1
    return max(0, covered - size - 2 * padding)


@operator(
    "avg_pool", aten.avg_pool2d.default, aten.avg_pool1d.default,
    constraints=FLOATS, quantization=Shared(),
    notes="counted padding becomes a constant pad before the pool",
)  # fmt: skip
def lower_avg_pool(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    one_axis = node.target is aten.avg_pool1d.default
    x = _as_images(b, b.tensor(named["self"]), one_axis)
    kernel = _axes(named["kernel_size"], one_axis, 1)
    stride = _axes(named["stride"] or named["kernel_size"], one_axis, 1)
    padding = _axes(named["padding"], one_axis, 0)
    divisor = named.get("divisor_override")
    target = layout.shape_of(node.meta["val"])
    wide = _widened(target, one_axis)
    if named["ceil_mode"] and any(
        _ceil_extra(size, result, k, s, p, 1)
        for size, result, k, s, p in zip(
            x.shape[2:], wide[2:], kernel, stride, padding, strict=True
        )
    ):
        raise LoweringError("ceil_mode makes windows that hang over the edge")
    if any(padding) and (named["count_include_pad"] or divisor is not None):
        amounts = [0, 0, *padding]
        x = ex.pad_constant(b, x, amounts, amounts, 0.0)
        padding = (0, 0)
    output = average_pool(b, x, kernel, stride, padding, wide)
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
) -> Tensor:
    """Average pooling of [N, C, H, W] that does not count its padding."""
    images = _images(b, x)
    if kernel == (1, 1) and stride == (1, 1):
        return images
    output = b.result(shape, CHANNELS_LAST)
    attributes = Pool2dAttributes((padding[0], padding[1], padding[0], padding[1]), kernel, stride)
    return b.add_node(NodeKind.AVG_POOLING_2D, [images], output, attributes)


@operator(
    "adaptive_avg_pool", aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_adaptive_avg_pool(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    target = layout.shape_of(node.meta["val"])
    one_axis = node.target is aten.adaptive_avg_pool1d.default
    spatial = [x.rank - 1] if one_axis else [x.rank - 2, x.rank - 1]
    if all(target[dim] == 1 for dim in spatial):
        return reductions.mean(b, x, spatial, True, reads_integers(node))
    images = _as_images(b, x, one_axis)
    kernel = adaptive_kernel(images.shape[2:], _widened(target, one_axis)[2:])
    output = average_pool(b, images, kernel, kernel, (0, 0), _widened(target, one_axis))
    return b.reshape(output, target)


def adaptive_kernel(sizes: Sequence[layout.Dim], targets: Sequence[layout.Dim]) -> tuple[int, int]:
    kernel = []
    for size, target in zip(sizes, targets, strict=True):
        if not isinstance(size, int) or not isinstance(target, int) or size % target:
            raise LoweringError(f"adaptive pooling from {size} to {target} has uneven windows")
        kernel.append(size // target)
    return (kernel[0], kernel[1])


@operator("mean", aten.mean.dim, aten.mean.default, constraints=FLOATS, quantization=Shared())
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
