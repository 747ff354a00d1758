"""Masks that hide nothing, whatever the inputs are."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.comparison import NOT
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.bounds import lower_bound
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten

_CHOICES = (aten.where.self, aten.where.ScalarOther)
_FILLS = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
_BOTH = (aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default)


def apply(module: GraphModule) -> int:
    """Given ``where(mask, x, y)`` or ``mask & x`` with a ``mask`` that is true everywhere
    (``arange(n) >= 0``, as masks over dynamic sizes are made), or ``masked_fill(x, ~mask, y)`` →
    Result: ``x``, as wide; attention gets no such mask."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default:
            changes += _without_mask(node)
            continue
        kept = _kept(node) if node.op == "call_function" else None
        if not isinstance(kept, Node) or kept.meta["val"].dtype != node.meta["val"].dtype:
            continue
        if layout.shape_of(kept.meta["val"]) != layout.shape_of(node.meta["val"]):
            sizes = SizeNodes(module).replace(list(node.meta["val"].shape))
            kept = call(module, node, aten.expand.default, kept, sizes)
        node.replace_all_uses_with(kept)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _kept(node: Node) -> object:
    """The argument that is the node's result, if a mask says so."""
    if node.target in _CHOICES:
        mask, chosen, other = node.args
        return chosen if _true(mask) else other if _false(mask) else None
    if node.target in _FILLS:
        return node.args[0] if _false(node.args[1]) else None
    if node.target in _BOTH:
        left, right = node.args
        return right if _true(left) else left if _true(right) else None
    return None


def _true(mask: object) -> bool:
    return isinstance(mask, Node) and _is_boolean(mask) and lower_bound(mask) >= 1


def _false(mask: object) -> bool:
    return (
        isinstance(mask, Node)
        and mask.target in NOT
        and _is_boolean(mask)
        and lower_bound(mask.args[0]) >= 1
    )


def _is_boolean(mask: Node) -> bool:
    return bool(mask.meta["val"].dtype == torch.bool)


def _without_mask(node: Node) -> bool:
    named = arguments(node)
    if not _true(named["attn_mask"]):
        return False
    if len(node.args) > 3:
        node.args = (*node.args[:3], None, *node.args[4:])
    else:
        node.kwargs = {**node.kwargs, "attn_mask": None}
    return True
