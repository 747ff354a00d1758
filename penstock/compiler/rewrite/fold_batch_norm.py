"""Fold batch norms into the convolution or linear before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.batch_norm import batch_norm_affine
from penstock.compiler.fx.edit import copy_origin, get_attribute
from penstock.compiler.rewrite.unmerge_views import PERMUTES, VIEWS

aten = torch.ops.aten

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


def put_together(module: GraphModule) -> int:
    """Given ``_native_batch_norm_legit_no_training(x, ...)[0]``, as torch makes it functional
    → Result ``batch_norm(x, ...)``."""
    norm = aten._native_batch_norm_legit_no_training.default
    found = [node for node in module.graph.nodes if node.target is norm]
    return sum(_whole(module, node) is not node for node in found)


def apply(module: GraphModule) -> int:
    """Given ``batch_norm(conv(x, w, b))`` in evaluation mode, the convolution read by nothing else
    → Result ``conv(x, w * s, (b - mean) * s + beta)`` with ``s = gamma / sqrt(var + eps)`` per
    output channel. Views and permutes may stand between the two, if they keep channels apart."""
    changes = 0
    for node in list(module.graph.nodes):
        producer = _producer(node) if node.target is aten.batch_norm.default else None
        if producer is not None:
            _fold(module, node, producer)
            changes += 1
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
    constant = _is_constant(source["weight"]) and _is_constant(source["bias"])
    return producer if constant else None


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


def _fold(module: GraphModule, node: Node, producer: Node) -> None:
    named = arguments(node)
    weight, bias, mean, variance = (_value(module, named[key]) for key in PARAMETERS)
    scale, shift = batch_norm_affine(weight, bias, mean, variance, named["eps"])
    fold_affine(module, node, named["input"], producer, scale, shift)


def fold_affine(
    module: GraphModule,
    node: Node,
    value: Node,
    producer: Node,
    scale: torch.Tensor,
    shift: torch.Tensor | None,
) -> None:
    """Given ``node == value * scale + shift`` (float32 [channels]), ``producer`` what
    :func:`weighted_before` found → Result ``producer`` does that, ``value`` replaces ``node``."""
    source = arguments(producer)
    weight, bias = _value(module, source["weight"]), _value(module, source["bias"])
    assert weight is not None
    view = [1] * weight.dim()
    view[WEIGHTED[producer.target]] = -1
    new_bias = shift
    if bias is not None:
        new_bias = bias * scale if shift is None else bias * scale + shift
    new_weight = weight * scale.to(weight.dtype).view(view)
    weight_node = get_attribute(module, producer, new_weight, "_folded_weight")
    bias_node = None
    if new_bias is not None:
        bias_node = get_attribute(module, producer, new_bias.to(weight.dtype), "_folded_bias")
    producer.args = (producer.args[0], weight_node, bias_node, *producer.args[3:])
    producer.kwargs = {k: v for k, v in producer.kwargs.items() if k not in ("weight", "bias")}
    node.replace_all_uses_with(value)
    module.graph.erase_node(node)


def _value(module: GraphModule, argument: Any) -> torch.Tensor | None:
    return None if argument is None else attribute(module, str(argument.target)).detach()
