"""Batch norms disappear into the convolution or linear before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.arguments import arguments
from penstock.compiler.builder import attribute
from penstock.compiler.rewrite.edit import copy_origin, get_attribute
from penstock.compiler.rewrite.unmerge_views import PERMUTES, VIEWS

aten = torch.ops.aten

#: target -> the weight's output-channel dimension
WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.convolution.default: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
}


def apply(module: GraphModule) -> int:
    """Given ``batch_norm(conv(x, w, b))`` in evaluation mode, the convolution read by nothing else
    → Result ``conv(x, w * s, (b - mean) * s + beta)`` with ``s = gamma / sqrt(var + eps)`` per
    output channel. Views and permutes may stand between the two, if they keep channels apart."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten._native_batch_norm_legit_no_training.default:
            node = _whole(module, node)
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
    producer, axis = _origin(named["input"], 1)
    if producer.target not in WEIGHTED or axis != _channel_axis(producer):
        return None
    source = arguments(producer)
    if source.get("transposed", False):
        return None
    if WEIGHTED[producer.target] == 1 and source["groups"] != 1:
        return None
    constants = [source["weight"], source["bias"], *(named[key] for key in PARAMETERS)]
    if all(v is None or (isinstance(v, Node) and v.op == "get_attr") for v in constants):
        return producer
    return None


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
    source = arguments(producer)

    def value(argument: Any) -> torch.Tensor | None:
        return None if argument is None else attribute(module, str(argument.target)).detach()

    scale, shift = batch_norm_affine(
        value(named["weight"]), value(named["bias"]), value(named["running_mean"]),
        value(named["running_var"]), named["eps"],
    )  # fmt: skip
    weight = value(source["weight"])
    assert weight is not None
    axis = WEIGHTED[producer.target]
    view = [1] * weight.dim()
    view[axis] = -1
    bias = value(source["bias"])
    folded_bias = shift if bias is None else bias * scale + shift
    folded_weight = weight * scale.to(weight.dtype).view(view)
    folded = get_attribute(module, producer, folded_weight, "_bn_weight")
    bias_node = get_attribute(module, producer, folded_bias.to(weight.dtype), "_bn_bias")
    producer.args = (producer.args[0], folded, bias_node, *producer.args[3:])
    producer.kwargs = {k: v for k, v in producer.kwargs.items() if k not in ("weight", "bias")}
    node.replace_all_uses_with(named["input"])
    module.graph.erase_node(node)


def batch_norm_affine(
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The (scale, shift), float32 [channels], with ``batch_norm(x) == x * scale + shift``."""
    assert mean is not None and variance is not None
    scale = torch.rsqrt(variance.to(torch.float64) + eps)
    if weight is not None:
        scale = scale * weight.to(torch.float64)
    shift = -mean.to(torch.float64) * scale
    if bias is not None:
        shift = shift + bias.to(torch.float64)
    return scale.to(torch.float32), shift.to(torch.float32)
