"""Legalize boolean masks: they become numbers to add or to multiply with."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, get_attribute
from penstock.compiler.fx.finiteness import may_be_nan
from penstock.compiler.fx.marks import EVERY_ROW_SEES, FILLS_WITH
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """XNNPACK has no booleans, so the one conversion happens outside, where the mask is made.

    Given ``scaled_dot_product_attention(q, k, v, mask)`` with a boolean mask → Result: the mask
    ``where(mask, 0, -inf)``.
    Given ``scaled_dot_product_attention(q, k, v, is_causal=True)`` over a dynamic length
    → Result: the mask ``where(arange(rows)[:, None] >= arange(columns), 0, -inf)``. (One of a
    constant length is a constant of the delegate.)
    Given ``masked_fill(x, mask, value)`` on float32 → Result
    ``maximum(where(mask, value, -inf), minimum(where(mask, value, inf), x))``, of which one is
    enough for an infinite value: bounds keep or replace infinities too. ``x`` comes last, so that
    not-a-number stays one. What may be not a number for ordinary inputs stays as it is: no bound
    replaces that.

    A mask that several operators read is converted once. What is made of a constant mask is
    constant too, and folded afterwards.
    """
    masks = _Masks(module)
    for node in module.graph.nodes:
        if node.target is aten.scaled_dot_product_attention.default:
            node.meta[EVERY_ROW_SEES] = _every_row_sees(module, node)
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default:
            changes += _attention(module, node, masks)
        elif node.target is aten.masked_fill.Scalar:
            changes += _masked_fill(module, node, masks)
    return changes


class _Masks:
    """The float twins of boolean masks, made once each, right behind the mask."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self._made: dict[tuple[Node, float, float], Node] = {}
        self._causal: dict[tuple[str, str], Node] = {}
        self._sizes = SizeNodes(module)

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

    def causal(self, node: Node, rows: int | torch.SymInt, columns: int | torch.SymInt) -> Node:
        """Position ``i`` sees the keys 0 … ``i``: zero there, minus infinity elsewhere."""
        key = (str(rows), str(columns))
        if key not in self._causal:
            ends = self._sizes.replace([rows, columns])
            down, across = (call(self._module, node, aten.arange.default, end) for end in ends)
            down = call(self._module, node, aten.unsqueeze.default, down, 1)
            seen = call(self._module, node, aten.ge.Tensor, down, across)
            self._causal[key] = self.where(seen, 0.0, -math.inf)
        return self._causal[key]


def _is_boolean(mask: object) -> bool:
    return isinstance(mask, Node) and mask.meta["val"].dtype == torch.bool


def _attention(module: GraphModule, node: Node, masks: _Masks) -> int:
    named = arguments(node)
    mask = named["attn_mask"]
    if named["is_causal"]:
        rows, columns = (named[name].meta["val"].shape[-2] for name in ("query", "key"))
        if isinstance(rows, int) and isinstance(columns, int):
            return 0
        mask = masks.causal(node, rows, columns)
        node.args = (named["query"], named["key"], named["value"], mask)
        rest = {name: named[name] for name in ("dropout_p", "scale", "enable_gqa")}
        node.kwargs = {**rest, "is_causal": False}
        return 1
    if not _is_boolean(mask):
        return 0
    node.replace_input_with(mask, masks.where(mask, 0.0, -math.inf))
    return 1


def _masked_fill(module: GraphModule, node: Node, masks: _Masks) -> int:
    named = arguments(node)
    x, mask, value = named["self"], named["mask"], named["value"]
    if not _is_boolean(mask) or not isinstance(value, (int, float)) or math.isnan(value):
        return 0
    if not isinstance(x, Node) or x.meta["val"].dtype != torch.float32:
        return 0
    if may_be_nan(x):
        return 0
    value = float(value)
    filled = x
    if value < math.inf:
        upper = masks.where(mask, value, math.inf)
        filled = call(module, node, aten.minimum.default, upper, filled)
        filled.meta[FILLS_WITH] = value
    if value > -math.inf:
        lower = masks.where(mask, value, -math.inf)
        filled = call(module, node, aten.maximum.default, lower, filled)
        filled.meta[FILLS_WITH] = value
    node.replace_all_uses_with(filled)
    module.graph.erase_node(node)
    return 1


#: Give the numbers that they are given, in other places or another type.
MOVEMENT = {
    "expand", "unsqueeze", "squeeze", "view", "reshape", "_unsafe_view", "slice", "select",
    "transpose", "permute", "clone", "contiguous", "to", "_to_copy", "alias", "detach",
}  # fmt: skip


def _every_row_sees(module: GraphModule, node: Node) -> bool:
    """Whether no row of the mask can be minus infinity alone."""
    named = arguments(node)
    mask = named["attn_mask"]
    if mask is None or named["is_causal"]:
        return True
    return not _is_boolean(mask) and _is_above_minus_infinity(module, mask)


def _is_above_minus_infinity(module: GraphModule, value: object) -> bool:
    """Whether ``value`` is made of integers and numbers above minus infinity by choosing and
    moving alone."""
    if isinstance(value, (int, float)):
        return value > -math.inf
    if not isinstance(value, Node):
        return False
    if not value.meta["val"].is_floating_point():
        return True
    if value.op == "get_attr":
        return bool((attribute(module, str(value.target)) > -math.inf).all())
    target = value.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    name = target._schema.name.partition("::")[2]
    if name == "where":
        chosen = value.args[1:3]
    elif name == "masked_fill":
        chosen = (value.args[0], value.args[2])
    elif name in MOVEMENT:
        chosen = value.args[:1]
    else:
        return False
    return len(chosen) > 0 and all(_is_above_minus_infinity(module, item) for item in chosen)
