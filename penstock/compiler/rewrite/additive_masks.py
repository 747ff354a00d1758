"""Boolean masks become numbers to add or to multiply with."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.arguments import arguments
from penstock.compiler.rewrite.edit import call, get_attribute

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """XNNPACK has no booleans, so the one conversion happens outside, where the mask is made.

    Given ``scaled_dot_product_attention(q, k, v, mask)`` with a boolean mask → Result: the mask
    ``where(mask, 0, -inf)``.
    Given ``masked_fill(x, mask, value)`` on float32 → Result ``x + where(mask, value, 0)`` for an
    infinite value, else ``x * where(mask, 0, 1) + where(mask, value, 0)``: the same numbers for
    every finite ``x``.

    A mask that several operators read is converted once. What is made of a constant mask is
    constant too, and folded afterwards.
    """
    masks = _Masks(module)
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default:
            changes += _attention(node, masks)
        elif node.target is aten.masked_fill.Scalar:
            changes += _masked_fill(module, node, masks)
    return changes


class _Masks:
    """The float twins of boolean masks, made once each, right behind the mask."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self._made: dict[tuple[Node, float, float], Node] = {}

    def where(self, mask: Node, if_true: float, if_false: float) -> Node:
        key = (mask, if_true, if_false)
        if key not in self._made:
            anchor = mask.next
            while anchor.op in ("placeholder", "get_attr"):
                anchor = anchor.next
            numbers = [
                get_attribute(self._module, anchor, torch.tensor(number), "_mask_value")
                for number in (if_true, if_false)
            ]
            made = call(self._module, anchor, aten.where.self, mask, *numbers)
            for key_name in ("nn_module_stack", "stack_trace"):
                if key_name in mask.meta:
                    made.meta[key_name] = mask.meta[key_name]
            self._made[key] = made
        return self._made[key]


def _is_boolean(mask: object) -> bool:
    return isinstance(mask, Node) and mask.meta["val"].dtype == torch.bool


def _attention(node: Node, masks: _Masks) -> int:
    mask = arguments(node)["attn_mask"]
    if not _is_boolean(mask):
        return 0
    node.replace_input_with(mask, masks.where(mask, 0.0, -math.inf))
    return 1


def _masked_fill(module: GraphModule, node: Node, masks: _Masks) -> int:
    named = arguments(node)
    x, mask, value = named["self"], named["mask"], named["value"]
    if not _is_boolean(mask) or not isinstance(value, (int, float)):
        return 0
    if not isinstance(x, Node) or x.meta["val"].dtype != torch.float32:
        return 0
    kept = x
    if math.isfinite(value):
        kept = call(module, node, aten.mul.Tensor, x, masks.where(mask, 0.0, 1.0))
    filled = call(module, node, aten.add.Tensor, kept, masks.where(mask, float(value), 0.0))
    node.replace_all_uses_with(filled)
    module.graph.erase_node(node)
    return 1
