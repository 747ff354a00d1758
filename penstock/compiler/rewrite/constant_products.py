"""Canonicalize products with a constant matrix to linear."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, get_attribute

aten = torch.ops.aten

PRODUCTS = {aten.mm.default, aten.matmul.default}


def apply(module: GraphModule) -> int:
    """Given ``addmm(bias, x, w)``, ``mm(x, w)`` or ``matmul(x, w)`` with a constant matrix ``w``
    → Result ``linear(x, w.t(), bias)``, which quantizes like every other layer."""
    turned: dict[object, Node] = {}
    changes = 0
    for node in list(module.graph.nodes):
        parts = _parts(node)
        if parts is None:
            continue
        x, weight, bias = parts
        if weight.target not in turned:
            value = attribute(module, str(weight.target)).detach().t()
            first = next(iter(module.graph.nodes))
            turned[weight.target] = get_attribute(module, first, value, "_turned")
        linear = call(module, node, aten.linear.default, x, turned[weight.target], bias)
        node.replace_all_uses_with(linear)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _parts(node: Node) -> tuple[Node, Node, Node | None] | None:
    """``x``, the constant matrix and the constant bias of a product that is a linear layer."""
    given: tuple[Any, ...] = node.args
    if node.target in PRODUCTS:
        x, weight = given
        bias = None
    elif node.target is aten.addmm.default and not node.kwargs:
        bias, x, weight = given
        if not _is_float(bias) or bias.op != "get_attr" or bias.meta["val"].dim() != 1:
            return None
        if bias.meta["val"].shape[0] != weight.meta["val"].shape[-1]:
            return None
    else:
        return None
    if not _is_float(x) or not _is_float(weight) or x.op == "get_attr":
        return None
    if weight.op != "get_attr" or weight.meta["val"].dim() != 2:
        return None
    return x, weight, bias


def _is_float(value: object) -> bool:
    return isinstance(value, Node) and value.meta["val"].dtype == torch.float32
