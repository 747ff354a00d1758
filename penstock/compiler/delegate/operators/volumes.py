"""Three spatial axes on XNNPACK's two: depth by depth.

A convolution over [D, H, W] is one over [H, W] of the slices that a window covers, joined as
channels; pooling over a box is pooling over its planes, then over its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import gather
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import (
    ConstantQuantization,
    LoweringError,
    Tensor,
)
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.convolution import (
    CONSTANT_WEIGHTS,
    convolve,
    deconvolve,
    named_padding,
    takes_dynamic,
)
from penstock.compiler.delegate.operators.pooling import (
    average_pool,
    channels_last,
    divides_otherwise,
)
from penstock.compiler.delegate.operators.registry import Shared, Weighted, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim, Shape
from penstock.graph.kinds import NodeKind, Pool2dAttributes

aten = torch.ops.aten

CONVOLUTIONS = (aten.conv3d.default, aten.conv3d.padding)
CHANNELS_LAST_3D = (0, 2, 3, 4, 1)


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


def _fixed_depth(node: Node) -> str | None:
    """A depth of fixed size, where a window sees more than a plane or less than the depth."""
    named = arguments(node)
    x, weight = named["input"].meta["val"], named["weight"].meta["val"]
    if isinstance(x.shape[-3], int):
        return None
    if node.target in CONVOLUTIONS:
        stride, dilation = _three(named["stride"], 1), _three(named["dilation"], 1)
        pads = _pads(named["padding"], weight.shape, dilation)
        still = [_moves_nothing(weight.shape[2:], stride, pads, axis) for axis in range(3)]
        if still[0] or (still[1] and still[2] and layout.is_static(layout.shape_of(x)[-2:])):
            return None
    return "its depth is dynamic: XNNPACK has no volumes, so each slice is computed apart"


def _moves_nothing(
    kernel: Sequence[Dim], stride: Sequence[int], pads: Sequence[tuple[int, int]], axis: int
) -> bool:
    """Whether each place of ``axis`` is seen by itself."""
    return (kernel[axis], stride[axis], pads[axis]) == (1, 1, (0, 0))


@operator(
    "conv3d", *CONVOLUTIONS,
    constraints=(*CONSTANT_WEIGHTS, _fixed_depth), quantization=Weighted(dynamic=takes_dynamic),
    notes="as a two-dimensional convolution over joined slices of the depth",
)  # fmt: skip
def lower_conv3d(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, weight = _with_batch(b, b.tensor(named["input"])), b.tensor(named["weight"])
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    stride, dilation = _three(named["stride"], 1), _three(named["dilation"], 1)
    pads = _pads(named["padding"], weight.shape, dilation)
    groups, kernel = named["groups"], weight.shape[2:]
    taps, width = kernel[0], kernel[2]
    assert isinstance(taps, int) and isinstance(width, int)
    result = layout.shape_of(node.meta["val"])
    still = [_moves_nothing(kernel, stride, pads, axis) for axis in range(3)]
    if still[0]:
        planes = convolve(
            b, _planes(b, x), _rearranged(b, weight, 0, lambda data: data[:, :, 0]), bias,
            stride[1:], pads[1:], dilation[1:], groups,
        )  # fmt: skip
        return b.reshape(_volume(b, planes, x.shape[0], x.shape[2]), result)
    if still[1] and still[2] and layout.is_static(x.shape[3:]):
        # Over the depth and the flattened plane, of the volume as it is.
        columns = convolve(
            b, _along_depth(b, x), _rearranged(b, weight, 0, lambda data: data[..., 0]), bias,
            [stride[0], 1], [pads[0], (0, 0)], [dilation[0], 1], groups,
        )  # fmt: skip
        return b.reshape(columns, result)
    x = _padded(b, x, *pads[0])
    count = (_depth(x) - dilation[0] * (taps - 1) - 1) // stride[0] + 1
    starts = [k * dilation[0] for k in range(taps)]
    if taps > 1 and groups > 1 and weight.shape[1] == 1 and (dilation[2] == 1 or width == 1):
        joined = _side_by_side(b, x, starts, count, stride[0])
        flat = _rearranged(b, weight, 0, lambda data: data.permute(0, 1, 3, 4, 2).flatten(3))
        stride[2], dilation[2] = stride[2] * taps, 1
        pads[2] = (pads[2][0] * taps, pads[2][1] * taps)
    else:
        joined = _as_channels(b, x, starts, count, stride[0], groups)
        flat = _rearranged(b, weight, 0, lambda data: _beside(data, groups).flatten(1, 2))
    planes = convolve(b, _planes(b, joined), flat, bias, stride[1:], pads[1:], dilation[1:], groups)
    return b.reshape(_volume(b, planes, x.shape[0], count), result)


def _pads(padding: Any, weight: Sequence[Dim], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for each of three axes."""
    if isinstance(padding, str):
        return named_padding(padding, weight, dilation)
    return [(amount, amount) for amount in _three(padding, 0)]


@operator(
    "conv_transpose3d", aten.conv_transpose3d.input,
    constraints=(*CONSTANT_WEIGHTS, _fixed_depth),
    quantization=Weighted(channel_axis=1, dynamic=True),
    notes="as a two-dimensional one of joined slices of the depth, to slices as channels",
)  # fmt: skip
def lower_conv_transpose3d(b: GraphBuilder, node: Node) -> Tensor:
    """With a stride of ``s``, slice ``d * s + p`` of the result is the sum of slice ``d - j`` times
    the kernel's slice ``j * s + p``, for all ``j``: the former are joined as input channels, the
    ``s`` results as output channels."""
    named = arguments(node)
    x, weight = _with_batch(b, b.tensor(named["input"])), b.tensor(named["weight"])
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    stride, dilation = _three(named["stride"], 1), _three(named["dilation"], 1)
    padding, extra = _three(named["padding"], 0), _three(named["output_padding"], 0)
    groups, step, taps = named["groups"], stride[0], weight.shape[2]
    assert isinstance(taps, int)
    depth, span = _depth(x), dilation[0] * (taps - 1) + 1
    size = (depth - 1) * step + span - 2 * padding[0] + extra[0]
    # How many slices a result sees; where those are that are kept, `step` results to each slice.
    seen, first, last = -(-span // step), padding[0] // step, -(-(padding[0] + size) // step)
    count = last - first
    x = _padded(b, x, seen - 1 - first, max(0, last - depth))
    joined = _as_channels(b, x, [seen - 1 - j for j in range(seen)], count, 1, groups)

    def by_results(data: torch.Tensor) -> torch.Tensor:
        """[I, O, K, H, W] → [I * seen, O * step, H, W], of each group."""
        layers = data.new_zeros((*data.shape[:2], seen * step, *data.shape[3:]))
        layers[:, :, : span : dilation[0]] = data
        split = layers.unflatten(2, (seen, step)).transpose(1, 2)  # [I, seen, O, step, H, W]
        if groups == 1:
            split = split.transpose(0, 1).transpose(2, 3)
        moved: torch.Tensor = split.flatten(2, 3).flatten(0, 1)
        return moved

    def of_results(data: torch.Tensor) -> torch.Tensor:
        """One number for each output channel as one for each channel of ``step`` results."""
        return data.repeat(step) if groups == 1 else data.repeat_interleave(step)

    planes = deconvolve(
        b, _planes(b, joined), _rearranged(b, weight, 1, by_results, of_results),
        None if bias is None else b.constant(of_results(bias.real())),
        stride[1:], padding[1:], extra[1:], dilation[1:], groups,
    )  # fmt: skip
    batch, (height, width) = x.shape[0], planes.shape[2:]
    if groups == 1:
        results = b.reshape(planes, (batch, count, step, planes.shape[1] // step, height, width))
        results = b.permute(results, (0, 3, 1, 2, 4, 5))
    else:
        results = b.reshape(planes, (batch, count, planes.shape[1] // step, step, height, width))
        results = b.permute(results, (0, 2, 1, 3, 4, 5))
    volume = b.reshape(results, (*results.shape[:2], count * step, height, width))
    volume = ex.cut(b, volume, 2, padding[0] - first * step, size)
    return b.reshape(volume, layout.shape_of(node.meta["val"]))


def _depth(x: Tensor) -> int:
    depth = x.shape[2]
    assert isinstance(depth, int)
    return depth


def _padded(b: GraphBuilder, x: Tensor, before: int, after: int) -> Tensor:
    """``x`` with slices of zeros before and after its depth."""
    return ex.pad_constant(b, x, [0, 0, before, 0, 0], [0, 0, after, 0, 0], 0.0)


def _as_channels(
    b: GraphBuilder, x: Tensor, starts: Sequence[int], count: int, step: int, groups: int
) -> Tensor:
    """[N, C, D, H, W] → [N, C * starts, count, H, W]: as channels, the slices from each of
    ``starts`` on, ``step`` apart. A group's slices stand beside each other."""
    slices = [gather.strided(b, x, 2, start, count, step) for start in starts]
    if groups == 1:  # whole slices are joined, many channels at a time
        return ex.concatenate(b, slices, 1)
    wide = [b.reshape(s, (*s.shape[:2], 1, *s.shape[2:])) for s in slices]
    joined = ex.concatenate(b, wide, 2)
    return b.reshape(joined, (x.shape[0], x.shape[1] * len(starts), count, *x.shape[3:]))


def _side_by_side(
    b: GraphBuilder, x: Tensor, starts: Sequence[int], count: int, step: int
) -> Tensor:
    """[N, C, D, H, W] → [N, C, count, H, W * starts]: beside each other at each place, the slices
    from each of ``starts`` on, ``step`` apart. Channels stay the ones of a depthwise convolution
    (as one of groups, it takes XNNPACK ten times as long)."""
    x = b.place(b.dense(x), CHANNELS_LAST_3D)
    slices = [gather.strided(b, x, 2, start, count, step) for start in starts]
    wide = [b.reshape(s, (*s.shape, 1)) for s in slices]
    joined = ex.concatenate(b, wide, 5)
    return b.reshape(joined, (*joined.shape[:4], joined.shape[4] * len(starts)))


def _beside(data: torch.Tensor, groups: int) -> torch.Tensor:
    """A kernel [O, C, K, H, W] with its taps and channels as :func:`_as_channels` has slices."""
    return data.transpose(1, 2) if groups == 1 else data


def _rearranged(
    b: GraphBuilder,
    weight: Tensor,
    axis: int,
    of_weights: Callable[[torch.Tensor], torch.Tensor],
    of_channels: Callable[[torch.Tensor], torch.Tensor] = lambda data: data,
) -> Tensor:
    """A constant weight changed by ``of_weights``, and what its output channels, dimension
    ``axis``, have for each by ``of_channels``."""
    data, quantization = weight.constant, weight.constant_quantization
    if data is None:
        raise LoweringError("its weight is not a constant")
    if quantization is None or quantization.axis not in (None, axis):
        return b.constant(of_weights(weight.real()))
    if quantization.axis is not None:
        scale, zero_point = of_channels(quantization.scale), of_channels(quantization.zero_point)
        quantization = ConstantQuantization(scale, zero_point, axis)
    return b.constant(of_weights(data), quantization)


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
