"""Batch norms disappear into the convolution or linear before them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.arguments import arguments
from penstock.compiler.builder import attribute
from penstock.compiler.rewrite.edit import copy_origin, get_attribute

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
    output channel."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten._native_batch_norm_legit_no_training.default:
            node = _whole(module, node)
        if node.target is aten.batch_norm.default and _foldable(node):
            _fold(module, node)
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


def _foldable(node: Node) -> bool:
    named = arguments(node)
    producer = named["input"]
    if named["training"] or not isinstance(producer, Node) or producer.target not in WEIGHTED:
        return False
    source = arguments(producer)
    if source.get("transposed", False):
        return False
    if WEIGHTED[producer.target] == 1 and source["groups"] != 1:
        return False
    if producer.target is aten.linear.default and node.meta["val"].dim() != 2:
        return False
    constants = [source["weight"], source["bias"], *(named[key] for key in PARAMETERS)]
    return len(producer.users) == 1 and all(
        value is None or (isinstance(value, Node) and value.op == "get_attr") for value in constants
    )


PARAMETERS = ("weight", "bias", "running_mean", "running_var")


def _fold(module: GraphModule, node: Node) -> None:
    named = arguments(node)
    producer: Node = named["input"]
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
    node.replace_all_uses_with(producer)
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
