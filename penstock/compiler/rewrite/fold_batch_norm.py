"""Fold batch norms into the convolution or linear before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.batch_norm import batch_norm_affine
from penstock.compiler.fx.edit import call, copy_origin, get_attribute
from penstock.compiler.rewrite.unmerge_views import PERMUTES, VIEWS

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: target -> the weight's output-channel dimension
WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv3d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.conv3d.padding: 0,
    aten.convolution.default: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.conv_transpose3d.input: 1,
}


_BY_CHANNEL = quantized.dequantize_per_channel.default
_BY_TENSOR = quantized.dequantize_per_tensor.default


def put_together(module: GraphModule) -> int:
    """Given ``_native_batch_norm_legit_no_training(x, ...)[0]``, as torch makes it functional
    → Result ``batch_norm(x, ...)``."""
    norm = aten._native_batch_norm_legit_no_training.default
    found = [node for node in module.graph.nodes if node.target is norm]
    return sum(_whole(module, node) is not node for node in found)


def apply(module: GraphModule) -> int:
    """Given ``batch_norm(conv(x, w, b))`` in evaluation mode, the convolution read by nothing else
    → Result ``conv(x, w * s, (b - mean) * s + beta)`` with ``s = gamma / sqrt(var + eps)`` per
    output channel. Views and permutes may stand between the two, if they keep channels apart. Of
    int8 weights (as training leaves them beside a norm) the scales take ``s``; integers stay."""
    changes = 0
    for node in list(module.graph.nodes):
        producer = _producer(node) if node.target is aten.batch_norm.default else None
        if producer is not None:
            changes += _fold(module, node, producer)
    return changes


def _whole(module: GraphModule, node: Node) -> Node:
    """The operator that torch's functionalization has taken apart, put together again; ``node``
    itself where more than its first result is read."""
    if any(user.args[1] != 0 for user in node.users):
        return node
    named = arguments(node)
    with module.graph.inserting_before(node):
        whole = module.graph.call_function(
            aten.batch_norm.default,
            (
                *(named[key] for key in ("input", *PARAMETERS)),
                False, named["momentum"], named["eps"], False,
            ),
        )  # fmt: skip
    copy_origin(node, whole)
    whole.meta["val"] = node.meta["val"][0]
    for user in list(node.users):
        user.replace_all_uses_with(whole)
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    return whole


def _producer(node: Node) -> Node | None:
    """The operator whose weight can take over the batch norm ``node``, if there is one."""
    named = arguments(node)
    if named["training"] or not isinstance(named["input"], Node):
        return None
    constant = all(_is_constant(named[key]) for key in PARAMETERS)
    return weighted_before(named["input"], 1) if constant else None


def weighted_before(value: Node, axis: int) -> Node | None:
    """The operator whose weight can take over what is done next to each channel of ``value``
    (dimension ``axis``), if there is one: ``value`` is its result, or views and permutes of that
    which nothing else reads."""
    producer, axis_there = _origin(value, axis)
    if producer.target not in WEIGHTED or axis_there != _channel_axis(producer):
        return None
    source = arguments(producer)
    if source.get("transposed", False):
        return None
    if WEIGHTED[producer.target] == 1 and source["groups"] != 1:
        return None
    weight = _is_constant(source["weight"]) or _is_small(source["weight"])
    return producer if weight and _is_constant(source["bias"]) else None


def _is_small(value: object) -> bool:
    """Whether a weight is the real numbers of constant integers."""
    return (
        isinstance(value, Node)
        and value.target in (_BY_CHANNEL, _BY_TENSOR)
        and all(_is_constant(item) for item in value.args if isinstance(item, Node))
    )


def _is_constant(value: object) -> bool:
    return value is None or (isinstance(value, Node) and value.op == "get_attr")


def _origin(node: Node, axis: int | None) -> tuple[Node, int | None]:
    """What ``node`` is views and permutes of, each read by the next one only, and which of its
    dimensions dimension ``axis`` of ``node`` is; ``None`` for neither or if others read it too."""
    while len(node.users) == 1 and axis is not None:
        if node.target not in VIEWS and node.target not in PERMUTES:
            return node, axis
        source = node.args[0]
        assert isinstance(source, Node)
        if node.target in VIEWS:
            axis = _same_dimension(node.meta["val"].shape, axis, source.meta["val"].shape)
        else:
            axis = _permuted(node)[axis]
        node = source
    return node, None


def _same_dimension(
    shape: Sequence[int | torch.SymInt], axis: int, before: Sequence[int | torch.SymInt]
) -> int | None:
    """The dimension of a tensor of shape ``before`` that is dimension ``axis`` of its view of shape
    ``shape``: as large, and with as many elements behind it."""
    behind = _elements(shape[axis + 1 :])
    for other in range(len(before) - 1, -1, -1):
        size = before[other]
        if (
            isinstance(size, int)
            and size == shape[axis]
            and behind is not None
            and _elements(before[other + 1 :]) == behind
        ):
            return other
    return None


def _elements(shape: Sequence[int | torch.SymInt]) -> int | None:
    """``None`` if it depends on dynamic dimensions."""
    sizes = [size for size in shape if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(shape) else None


def _permuted(node: Node) -> list[int]:
    """For each dimension of a permute's result the dimension of its input."""
    order = list(range(node.meta["val"].dim()))
    named = arguments(node)
    if node.target is aten.permute.default:
        return [order[dim] for dim in named["dims"]]
    one, other = (named["dim0"], named["dim1"]) if node.target is aten.transpose.int else (0, -1)
    order[one], order[other] = order[other], order[one]
    return order


def _channel_axis(producer: Node) -> int:
    """The dimension of the result that the weight's output channels become."""
    if producer.target is aten.linear.default:
        return int(producer.meta["val"].dim()) - 1
    spatial = int(arguments(producer)["weight"].meta["val"].dim()) - 2
    return int(producer.meta["val"].dim()) - spatial - 1


PARAMETERS = ("weight", "bias", "running_mean", "running_var")


def _fold(module: GraphModule, node: Node, producer: Node) -> bool:
    named = arguments(node)
    weight, bias, mean, variance = (_value(module, named[key]) for key in PARAMETERS)
    scale, shift = batch_norm_affine(weight, bias, mean, variance, named["eps"])
    return fold_affine(module, node, named["input"], producer, scale, shift)


def fold_affine(
    module: GraphModule,
    node: Node,
    value: Node,
    producer: Node,
    scale: torch.Tensor,
    shift: torch.Tensor | None,
) -> bool:
    """Given ``node == value * scale + shift`` (float32 [channels]), ``producer`` what
    :func:`weighted_before` found → Result ``producer`` does that, ``value`` replaces ``node``.
    False, and nothing changed, where int8 has no such weight."""
    source = arguments(producer)
    axis, dtype = WEIGHTED[producer.target], source["weight"].meta["val"].dtype
    make = _scaled_small if _is_small(source["weight"]) else _scaled
    weight = make(module, producer, source["weight"], scale, axis)
    if weight is None:
        return False
    bias, new_bias = _value(module, source["bias"]), shift
    if bias is not None:
        new_bias = bias * scale if shift is None else bias * scale + shift
    bias_node = None
    if new_bias is not None:
        bias_node = get_attribute(module, producer, new_bias.to(dtype), "_folded_bias")
    producer.args = (producer.args[0], weight, bias_node, *producer.args[3:])
    producer.kwargs = {k: v for k, v in producer.kwargs.items() if k not in ("weight", "bias")}
    node.replace_all_uses_with(value)
    module.graph.erase_node(node)
    return True


def _scaled(
    module: GraphModule, before: Node, weight: Node, factors: torch.Tensor, axis: int
) -> Node:
    """``weight`` with each channel times its factor."""
    value = _value(module, weight)
    assert value is not None
    product = value * _along(factors.to(value.dtype), axis, value.dim())
    return get_attribute(module, before, product, "_folded_weight")


def _scaled_small(
    module: GraphModule, before: Node, weight: Node, factors: torch.Tensor, axis: int
) -> Node | None:
    """The same for dequantized integers: their scales are multiplied, and what a negative factor
    does to a channel its integers do. ``None`` where they cannot (-128, other zero points)."""
    named = arguments(weight)
    integers, low, high = _value(module, named["input"]), named["quant_min"], named["quant_max"]
    assert integers is not None
    if weight.target is _BY_CHANNEL:
        scales, points = _value(module, named["scales"]), _value(module, named["zero_points"])
        if named["axis"] != axis or scales is None or points is not None and bool(points.any()):
            return None
    else:
        if named["zero_point"] != 0:
            return None
        scales = torch.full_like(factors, named["scale"], dtype=torch.float32)
    signs = _along(factors.sign(), axis, integers.dim())
    turned = integers.to(torch.int32) * signs.to(torch.int32)
    if bool((turned > high).any()):
        return None
    # (A channel times 0 has zeros of any scale.)
    scales = torch.where(factors == 0.0, scales, scales * factors.abs().to(scales.dtype))
    constants = [
        get_attribute(module, before, tensor, "_folded_weight")
        for tensor in (turned.to(integers.dtype), scales, torch.zeros(len(scales)).long())
    ]
    return call(module, before, _BY_CHANNEL, *constants, axis, low, high, integers.dtype)


def _along(values: torch.Tensor, axis: int, dimensions: int) -> torch.Tensor:
    """One value for each channel, to be broadcast."""
    return values.view([-1 if dim == axis else 1 for dim in range(dimensions)])


def _value(module: GraphModule, argument: Any) -> torch.Tensor | None:
    return None if argument is None else attribute(module, str(argument.target)).detach()
