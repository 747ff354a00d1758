"""What torchao's conversion leaves out: each new node's value and where it comes from.

The compiler never re-traces a graph, so every node must carry a true ``meta["val"]``.
"""

from __future__ import annotations

import operator

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.quantize.plan import attribute
from penstock.compiler.quantize.values import nodes_in
from penstock.compiler.rewrite.edit import ORIGIN, fake, fake_mode

quantized = torch.ops.quantized_decomposed

QUANTIZE = {
    quantized.quantize_per_tensor.default,
    quantized.quantize_per_tensor.tensor,
    quantized.quantize_per_channel.default,
}
DEQUANTIZE = {
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_tensor.tensor,
    quantized.dequantize_per_channel.default,
}
CHOOSE_PARAMETERS = {quantized.choose_qparams.tensor}


def complete(module: GraphModule) -> None:
    """Gives every node of a converted graph its value and its origin.

    A node before an operator (dequantize of its input or weight, its constants) takes the origin
    of that operator, a node after it (quantize of its result) that of the operator it follows.
    """
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            known = node.meta.get("val")
            if not isinstance(known, torch.Tensor) or known.dtype != value.dtype:
                node.meta["val"] = fake(module, value)
        elif node.op == "call_function" and _is_new(node):
            node.meta["val"] = _value(module, node)
            if node.target not in DEQUANTIZE:
                _copy_missing(_source(node), node)
    for node in reversed(list(module.graph.nodes)):
        if node.op == "get_attr" or (node.op == "call_function" and _is_new(node)):
            for user in node.users:
                _copy_missing(user, node)
            if node.target in DEQUANTIZE:  # a result of the model: nothing reads it
                _copy_missing(_source(node), node)


def _is_new(node: Node) -> bool:
    return (
        node.target in QUANTIZE
        or node.target in DEQUANTIZE
        or node.target in CHOOSE_PARAMETERS
        or (node.target is operator.getitem and node.args[0].target in CHOOSE_PARAMETERS)  # type: ignore[union-attr]
    )


def _value(module: GraphModule, node: Node) -> object:
    """The fake result: the shape of the first input, or the two parameters, each [1]."""
    source = _source(node)
    if node.target in CHOOSE_PARAMETERS:
        with fake_mode(module):
            return (torch.empty(1, dtype=torch.float64), torch.empty(1, dtype=torch.int64))
    if node.target is operator.getitem:
        index = node.args[1]
        assert isinstance(index, int)
        return source.meta["val"][index]
    dtype = node.args[-1] if node.target in QUANTIZE else torch.float32
    assert isinstance(dtype, torch.dtype)
    value = source.meta["val"]
    with value.fake_mode:
        return torch.empty_like(value, dtype=dtype, requires_grad=False)


def _source(node: Node) -> Node:
    return next(nodes_in(node.args[0]))


def _copy_missing(source: Node, target: Node) -> None:
    for key in ORIGIN:
        if key in source.meta and key not in target.meta:
            target.meta[key] = source.meta[key]
