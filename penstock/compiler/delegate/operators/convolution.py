"""Convolutions, plain, grouped, depthwise and transposed, over one or two spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, constant
from penstock.compiler.delegate.operators.registry import Weighted, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments, pair
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim
from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.kinds import Conv2dAttributes, NodeKind

aten = torch.ops.aten

CONSTANT_WEIGHTS = (*FLOATS, constant("weight"), constant("bias"))


def _spatial(value: Any, rank: int, default: int) -> list[int]:
    """A per-axis parameter as one number for each of ``rank`` spatial axes."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        values = [default]
    return values * rank if len(values) == 1 else values


def _two_or_fewer(node: Node) -> str | None:
    """One or two spatial axes."""
    spatial = node.args[1].meta["val"].dim() - 2  # type: ignore[union-attr]
    if spatial not in (1, 2):
        return f"it has {spatial} spatial axes, XNNPACK's convolutions have two"
    return None


def takes_dynamic(node: Node) -> bool:
    """XNNPACK's depthwise convolutions take no activation that is quantized at run time."""
    named = arguments(node)
    weight = named["weight"].meta["val"]
    transposed = bool(named.get("transposed", False))
    return bool(transposed or named["groups"] == 1 or weight.shape[1] > 1)


@operator(
    "convolution",
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    constraints=(*CONSTANT_WEIGHTS, _two_or_fewer),
    quantization=Weighted(dynamic=takes_dynamic),
    notes="groups; depthwise; padding='same'; with computed weights, over images of fixed size, a "
    "product with their windows",
)
def lower_conv(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    weight = b.tensor(named["weight"])
    rank = weight.rank - 2
    dilation = _spatial(named["dilation"], rank, 1)
    if isinstance(named["padding"], str):
        pads = named_padding(named["padding"], weight.shape, dilation)
    else:
        pads = [(p, p) for p in _spatial(named["padding"], rank, 0)]
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    stride = _spatial(named["stride"], rank, 1)
    return convolve(
        b, b.tensor(named["input"]), weight, bias, stride, pads, dilation, named["groups"]
    )


def named_padding(
    padding: str, weight: Sequence[Dim], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """PyTorch's "valid" and "same" as (before, after): "same" puts the odd one after."""
    if padding == "valid":
        return [(0, 0)] * len(dilation)
    pads = []
    for axis, step in enumerate(dilation):
        size = weight[2 + axis]
        assert isinstance(size, int)
        amount = step * (size - 1)
        pads.append((amount // 2, amount - amount // 2))
    return pads


@operator(
    "transposed convolution",
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    constraints=(*CONSTANT_WEIGHTS, _two_or_fewer),
    quantization=Weighted(channel_axis=1, dynamic=True),
)
def lower_conv_transpose(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    weight = b.tensor(named["weight"])
    rank = weight.rank - 2
    return deconvolve(
        b, b.tensor(named["input"]), weight,
        None if named["bias"] is None else b.tensor(named["bias"]),
        _spatial(named["stride"], rank, 1), _spatial(named["padding"], rank, 0),
        _spatial(named["output_padding"], rank, 0), _spatial(named["dilation"], rank, 1),
        named["groups"],
    )  # fmt: skip


@operator(
    "general convolution",
    aten.convolution.default,
    constraints=(*CONSTANT_WEIGHTS, _two_or_fewer),
    quantization=Weighted(
        channel_axis=lambda node: 1 if arguments(node)["transposed"] else 0,
        dynamic=takes_dynamic,
    ),
)
def lower_convolution(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, weight = b.tensor(named["input"]), b.tensor(named["weight"])
    bias = None if named["bias"] is None else b.tensor(named["bias"])
    rank = weight.rank - 2
    stride = _spatial(named["stride"], rank, 1)
    padding = _spatial(named["padding"], rank, 0)
    dilation = _spatial(named["dilation"], rank, 1)
    if named["transposed"]:
        extra = _spatial(named["output_padding"], rank, 0)
        return deconvolve(b, x, weight, bias, stride, padding, extra, dilation, named["groups"])
    pads = [(p, p) for p in padding]
    return convolve(b, x, weight, bias, stride, pads, dilation, named["groups"])


def convolve(
    b: GraphBuilder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution of [N, C, L] or [N, C, H, W] with a constant [O, C / groups, …]. Without N
    it is one of N = 1."""
    if x.rank == weight.rank - 1:
        batch = b.reshape(x, (1, *x.shape))
        result = convolve(b, batch, weight, bias, stride, pads, dilation, groups)
        return b.reshape(result, result.shape[1:])
    if weight.rank == 3:
        wide = convolve(
            b, _with_height(b, x), _with_height(b, weight), bias,
            [1, *stride], [(0, 0), *pads], [1, *dilation], groups,
        )  # fmt: skip
        return b.reshape(wide, (wide.shape[0], wide.shape[1], wide.shape[3]))
    out_channels, group_in = weight.shape[:2]
    kernel = weight.shape[2:]
    assert isinstance(out_channels, int) and isinstance(group_in, int)
    assert isinstance(kernel[0], int) and isinstance(kernel[1], int)
    x = b.place(b.dense(x), CHANNELS_LAST)
    depthwise = groups > 1 and group_in == 1
    dims = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    filter_value = ex.weight_value(b, weight, dims)
    filter_tensor = Tensor(weight.shape, dims, weight.shape, filter_value)
    spatial = [
        _output_size(size, k, s, sum(p), d)
        for size, k, s, p, d in zip(x.shape[2:], kernel, stride, pads, dilation, strict=True)
    ]
    output = b.result((x.shape[0], out_channels, *spatial), CHANNELS_LAST)
    (top, bottom), (left, right) = pads
    attributes = Conv2dAttributes(
        padding=(top, right, bottom, left),
        kernel=(kernel[0], kernel[1]),
        stride=pair(list(stride)),
        dilation=pair(list(dilation)),
        groups=groups,
        group_input_channels=group_in,
        group_output_channels=out_channels // groups,
    )
    kind = NodeKind.DEPTHWISE_CONV_2D if depthwise else NodeKind.CONV_2D
    return b.add_node(kind, [x, filter_tensor, ex.bias_value(b, bias)], output, attributes)


def _output_size(size: Dim, kernel: int, stride: int, padding: int, dilation: int) -> Dim:
    return layout.floor_divide(size + padding - dilation * (kernel - 1) - 1, stride) + 1


def deconvolve(
    b: GraphBuilder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    extra: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A transposed convolution; the constant weight is [C, O / groups, …]."""
    if x.rank == weight.rank - 1:
        batch = b.reshape(x, (1, *x.shape))
        result = deconvolve(b, batch, weight, bias, stride, padding, extra, dilation, groups)
        return b.reshape(result, result.shape[1:])
    if weight.rank == 3:
        wide = deconvolve(
            b, _with_height(b, x), _with_height(b, weight), bias,
            [1, *stride], [0, *padding], [0, *extra], [1, *dilation], groups,
        )  # fmt: skip
        return b.reshape(wide, (wide.shape[0], wide.shape[1], wide.shape[3]))
    if any(amount >= step for amount, step in zip(extra, stride, strict=True)):
        raise LoweringError(f"its output padding {list(extra)} is not less than its stride")
    in_channels, group_out = weight.shape[:2]
    kernel = weight.shape[2:]
    assert isinstance(in_channels, int) and isinstance(group_out, int)
    assert isinstance(kernel[0], int) and isinstance(kernel[1], int)
    x = b.place(b.dense(x), CHANNELS_LAST)
    filter_value = _transposed_filter(b, weight, groups)
    order = (1, 2, 3, 0)
    filter_tensor = Tensor(weight.shape, order, weight.shape, filter_value)
    spatial = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, k, s, p, e, d in zip(
            x.shape[2:], kernel, stride, padding, extra, dilation, strict=True
        )
    ]
    output = b.result((x.shape[0], group_out * groups, *spatial), CHANNELS_LAST)
    attributes = Conv2dAttributes(
        padding=(padding[0], padding[1], padding[0], padding[1]),
        kernel=(kernel[0], kernel[1]),
        stride=pair(list(stride)),
        dilation=pair(list(dilation)),
        groups=groups,
        group_input_channels=in_channels // groups,
        group_output_channels=group_out,
        adjustment=pair(list(extra)),
    )
    inputs = [x, filter_tensor, ex.bias_value(b, bias)]
    return b.add_node(NodeKind.CONV_TRANSPOSE_2D, inputs, output, attributes)


def _transposed_filter(b: GraphBuilder, weight: Tensor, groups: int):  # type: ignore[no-untyped-def]
    """[groups * in, out, kh, kw] → [groups * out, kh, kw, in]."""
    if groups == 1:
        return ex.weight_value(b, weight, (1, 2, 3, 0), channels=1)
    quantization = weight.constant_quantization
    data = weight.constant
    if data is None:
        raise LoweringError("its weight is not a constant")
    exact = quantization is not None and quantization.axis in (None, 1)
    source = data if exact else weight.real()
    channels, out, height, width = source.shape
    grouped = source.reshape(groups, channels // groups, out, height, width)
    physical = grouped.permute(0, 2, 3, 4, 1).reshape(
        groups * out, height, width, channels // groups
    )
    if quantization is None or not exact:
        return b.raw_constant(physical, DataType.FP32)
    if quantization.axis is None:
        scale = PerTensor(float(quantization.scale), 0)
        return b.raw_constant(physical, DataType.QINT8, scale)
    # (The groups share the scales of a dimension that has a group's channels.)
    scales = ex.scales_array(quantization.scale.repeat(groups))
    return b.raw_constant(physical, DataType.QCINT8, PerChannel(scales, 0))


def _with_height(b: GraphBuilder, tensor: Tensor) -> Tensor:
    """[N, C, L] → [N, C, 1, L], keeping a constant's quantization."""
    quantization = tensor.constant_quantization
    if tensor.constant is not None and quantization is not None:
        return b.constant(tensor.constant.unsqueeze(2), quantization)
    return b.reshape(tensor, (*tensor.shape[:2], 1, tensor.shape[2]))
