"""Three spatial axes on XNNPACK's two: depth by depth.

A convolution over [D, H, W] is one over [H, W] of the slices that a window covers, joined as
channels; pooling over a box is pooling over its planes, then over its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import gather
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, constant
from penstock.compiler.delegate.operators.convolution import convolve, deconvolve
from penstock.compiler.delegate.operators.pooling import (
    average_pool,
    channels_last,
    divides_otherwise,
)
from penstock.compiler.delegate.operators.registry import Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim, Shape
from penstock.graph.kinds import NodeKind, Pool2dAttributes

aten = torch.ops.aten


def _three(value: Any, default: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    values = values or [default]
    return values * 3 if len(values) == 1 else values


def _with_batch(b: GraphBuilder, x: Tensor) -> Tensor:
    return b.reshape(x, (1, *x.shape)) if x.rank == 4 else x


def _planes(b: GraphBuilder, x: Tensor) -> Tensor:
    """[N, C, D, H, W] → [N * D, C, H, W]."""
    moved = b.permute(x, (0, 2, 1, 3, 4))
    return b.reshape(moved, (moved.shape[0] * moved.shape[1], *moved.shape[2:]))


def _volume(b: GraphBuilder, planes: Tensor, batch: Dim, depth: Dim) -> Tensor:
    """[N * D, C, H, W] → [N, C, D, H, W]."""
    split = b.reshape(planes, (batch, depth, *planes.shape[1:]))
    return b.permute(split, (0, 2, 1, 3, 4))


@operator(
    "conv3d", aten.conv3d.default, aten.conv3d.padding,
    constraints=(*FLOATS, constant("weight"), constant("bias")),
    notes="as a two-dimensional convolution over joined slices of the depth",
)  # fmt: skip
def lower_conv3d(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, weight = _with_batch(b, b.tensor(named["input"])), b.tensor(named["weight"])
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    stride, dilation = _three(named["stride"], 1), _three(named["dilation"], 1)
    kernel = [int(size) for size in weight.shape[2:]]
    if named["padding"] == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(span // 2, span - span // 2) for span in spans]
    elif named["padding"] == "valid":
        pads = [(0, 0)] * 3
    else:
        pads = [(amount, amount) for amount in _three(named["padding"], 0)]
    x = ex.pad_constant(b, x, [0, 0, pads[0][0], 0, 0], [0, 0, pads[0][1], 0, 0], 0.0)
    depth = x.shape[2]
    if not isinstance(depth, int):
        raise LoweringError(
            "its depth is dynamic: XNNPACK has no volumes, so each slice is computed apart"
        )
    count = (depth - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    slices = [gather.strided(b, x, 2, k * dilation[0], count, stride[0]) for k in range(kernel[0])]
    filter = weight.real()
    if named["groups"] == 1:  # whole slices are joined, many channels at a time
        joined, filter = ex.concatenate(b, slices, 1), filter.transpose(1, 2)
    else:  # a channel's slices stand beside each other, so that groups stay together
        wide = [b.reshape(s, (*s.shape[:2], 1, *s.shape[2:])) for s in slices]
        joined = ex.concatenate(b, wide, 2)
        shape = (joined.shape[0], joined.shape[1] * kernel[0], count, *joined.shape[4:])
        joined = b.reshape(joined, shape)
    flat, batch = filter.flatten(1, 2), joined.shape[0]
    planes = convolve(
        b, _planes(b, joined), b.constant(flat), bias, stride[1:], pads[1:], dilation[1:],
        named["groups"],
    )  # fmt: skip
    return b.reshape(_volume(b, planes, batch, count), layout.shape_of(node.meta["val"]))


@operator(
    "conv_transpose3d", aten.conv_transpose3d.input,
    constraints=(*FLOATS, constant("weight"), constant("bias")),
    notes="as a two-dimensional one to the kernel's layers as channels, which are added up",
)  # fmt: skip
def lower_conv_transpose3d(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, weight = _with_batch(b, b.tensor(named["input"])), b.tensor(named["weight"]).real()
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    stride, dilation = _three(named["stride"], 1), _three(named["dilation"], 1)
    padding, extra = _three(named["padding"], 0), _three(named["output_padding"], 0)
    groups, batch, depth = named["groups"], x.shape[0], x.shape[2]
    if not isinstance(depth, int):
        raise LoweringError(
            "its depth is dynamic: XNNPACK has no volumes, so each slice is computed apart"
        )
    step, span = stride[0], dilation[0] * (weight.shape[2] - 1) + 1
    layers = torch.zeros((*weight.shape[:2], span, *weight.shape[3:]))
    layers[:, :, :: dilation[0]] = weight
    # With nothing to add up, each layer has its bias from the convolution.
    whole = span == step and extra[0] <= padding[0]
    each = bias.real().repeat_interleave(span) if bias is not None and whole else None
    channels = weight.shape[1] * groups
    together = groups == 1  # a layer's channels can lie side by side
    if together:
        layers = layers.transpose(1, 2)
        each = None if each is None else each.reshape(channels, span).T.reshape(-1)
    planes = deconvolve(
        b, _planes(b, x), b.constant(layers.flatten(1, 2)), None if each is None else
        b.constant(each), stride[1:], padding[1:], extra[1:], dilation[1:], groups,
    )  # fmt: skip
    height, width = planes.shape[2:]
    split = (span, channels) if together else (channels, span)
    taps = b.reshape(planes, (batch, depth, *split, height, width))
    taps = b.permute(taps, (0, 3, 1, 2, 4, 5) if together else (0, 2, 1, 3, 4, 5))
    result = _overlapped(b, taps, step)
    size = (depth - 1) * step + span - 2 * padding[0] + extra[0]
    beyond = padding[0] + size - (depth + (span - 1) // step) * step
    result = ex.pad_constant(b, result, [0] * 5, [0, 0, max(0, beyond), 0, 0], 0.0)
    result = ex.cut(b, result, 2, padding[0], size)
    if bias is not None and not whole:
        result = ex.add(b, result, b.constant(bias.real().reshape(1, -1, 1, 1, 1)))
    return b.reshape(result, layout.shape_of(node.meta["val"]))


def _overlapped(b: GraphBuilder, taps: Tensor, step: int) -> Tensor:
    """[N, C, D, K, H, W] → [N, C, (D + ceil(K / step) - 1) * step, H, W]: tap ``k`` of depth
    ``d`` is added at ``d * step + k``."""
    batch, channels, depth, span, height, width = taps.shape
    assert isinstance(depth, int) and isinstance(span, int)
    count = -(-span // step)
    total: Tensor | None = None
    for number in range(count):
        here = min(step, span - number * step)
        part = ex.cut(b, taps, 3, number * step, here)
        part = ex.pad_constant(b, part, [0] * 6, [0, 0, 0, step - here, 0, 0], 0.0)
        part = b.reshape(part, (batch, channels, depth * step, height, width))
        before, after = number * step, (count - 1 - number) * step
        part = ex.pad_constant(b, part, [0, 0, before, 0, 0], [0, 0, after, 0, 0], 0.0)
        total = part if total is None else ex.add(b, total, part)
    assert total is not None
    return total


def _window(named: dict[str, Any]) -> tuple[list[int], list[int], list[int], list[int]]:
    """The kernel, stride, padding and dilation of a pooling operator, of three sizes each."""
    return (
        _three(named["kernel_size"], 1),
        _three(named["stride"] or named["kernel_size"], 1),
        _three(named["padding"], 0),
        _three(named.get("dilation", 1), 1),
    )


def _overhang(sizes: Sequence[Dim], results: Shape, named: dict[str, Any]) -> list[int]:
    """How far ``ceil_mode``'s last windows reach beyond the padding."""
    kernel, stride, padding, dilation = _window(named)
    extra = []
    for size, result, k, s, p, d in zip(
        sizes, results, kernel, stride, padding, dilation, strict=True
    ):
        if not isinstance(size, int) or not isinstance(result, int):
            raise LoweringError("it pools a volume of a dynamic size, XNNPACK has no volumes")
        covered = (result - 1) * s + d * (k - 1) + 1
        extra.append(max(0, covered - size - 2 * p))
    return extra


def _along_depth(b: GraphBuilder, x: Tensor) -> Tensor:
    """[N, C, D, H, W] → [N, C, D, H * W]."""
    return b.reshape(x, (*x.shape[:3], x.shape[3] * x.shape[4]))


@operator("max_pool3d", aten.max_pool3d.default, constraints=FLOATS, quantization=Shared())
def lower_max_pool3d(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = _with_batch(b, b.tensor(node.args[0]))
    target = layout.shape_of(node.meta["val"])
    kernel, stride, padding, dilation = _window(named)
    depth, height, width = target[-3:]
    extra = _overhang(x.shape[2:], target[-3:], named)

    def pool(planes: Tensor, shape: Shape, axes: slice) -> Tensor:
        (kh, kw), (sh, sw), (dh, dw) = kernel[axes], stride[axes], dilation[axes]
        (top, left), (more_down, more_right) = padding[axes], extra[axes]
        pads = (top, left + more_right, top + more_down, left)
        attributes = Pool2dAttributes(pads, (kh, kw), (sh, sw), (dh, dw))
        output = b.result(shape, CHANNELS_LAST)
        kind = NodeKind.MAX_POOLING_2D
        return b.add_node(kind, [channels_last(b, planes)], output, attributes)

    planes = _planes(b, x)
    planes = pool(planes, (*planes.shape[:2], height, width), slice(1, 3))
    deep = _along_depth(b, _volume(b, planes, x.shape[0], x.shape[2]))
    for values in (kernel, stride, dilation):
        values.insert(1, 1)
    padding.insert(1, 0)
    extra.insert(1, 0)
    pooled = pool(deep, (*deep.shape[:2], depth, deep.shape[3]), slice(0, 2))
    return b.reshape(pooled, target)


@operator(
    "avg_pool3d", aten.avg_pool3d.default, constraints=FLOATS, quantization=Shared(blends=True),
    special_rule=divides_otherwise,
)  # fmt: skip
def lower_avg_pool3d(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = _with_batch(b, b.tensor(node.args[0]))
    target = layout.shape_of(node.meta["val"])
    kernel, stride, padding, _ = _window(named)
    divisor = named["divisor_override"]
    extra = _overhang(x.shape[2:], target[-3:], named)
    if divisor is not None or named["count_include_pad"]:
        x = ex.pad_constant(b, x, [0, 0, *padding], [0, 0, *padding], 0.0)
        padding = [0, 0, 0]
    if divisor is not None:
        x = ex.pad_constant(b, x, [0] * 5, [0, 0, *extra], 0.0)
        extra = [0, 0, 0]
    depth, height, width = target[-3:]
    planes = _planes(b, x)
    planes = average_pool(
        b, planes, (kernel[1], kernel[2]), (stride[1], stride[2]), (padding[1], padding[2]),
        (*planes.shape[:2], height, width), (extra[1], extra[2]),
    )  # fmt: skip
    deep = _along_depth(b, _volume(b, planes, x.shape[0], x.shape[2]))
    pooled = average_pool(
        b, deep, (kernel[0], 1), (stride[0], 1), (padding[0], 0),
        (*deep.shape[:2], depth, deep.shape[3]), (extra[0], 0),
    )  # fmt: skip
    if divisor is not None:
        pooled = ex.affine(b, pooled, kernel[0] * kernel[1] * kernel[2] / divisor, 0.0)
    return b.reshape(pooled, target)
