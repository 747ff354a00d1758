"""Boolean masks become numbers to add or to multiply with."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.arguments import arguments
from penstock.compiler.builder import attribute
from penstock.compiler.rewrite.edit import call, get_attribute
from penstock.compiler.rewrite.sizes import SizeNodes

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """XNNPACK has no booleans, so the one conversion happens outside, where the mask is made.

    Given ``scaled_dot_product_attention(q, k, v, mask)`` with a boolean mask → Result: the mask
    ``where(mask, 0, -inf)``.
    Given ``scaled_dot_product_attention(q, k, v, is_causal=True)`` over a dynamic length
    → Result: the mask ``where(arange(rows)[:, None] >= arange(columns), 0, -inf)``. (One of a
    constant length is a constant of the delegate.)
    Given ``masked_fill(x, mask, value)`` on float32 → Result ``x * where(mask, 0, 1) +
    where(mask, value, 0)`` where ``x`` is finite for certain, else
    ``maximum(minimum(x, where(mask, value, inf)), where(mask, value, -inf))``, of which one is
    enough for an infinite value.

    A mask that several operators read is converted once. What is made of a constant mask is
    constant too, and folded afterwards.
    """
    masks = _Masks(module)
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
    value = float(value)
    filled = x
    if math.isfinite(value) and not _may_be_infinite(module, x):
        filled = call(module, node, aten.mul.Tensor, filled, masks.where(mask, 0.0, 1.0))
        filled = call(module, node, aten.add.Tensor, filled, masks.where(mask, value, 0.0))
    else:
        if value < math.inf:
            upper = masks.where(mask, value, math.inf)
            filled = call(module, node, aten.minimum.default, filled, upper)
        if value > -math.inf:
            lower = masks.where(mask, value, -math.inf)
            filled = call(module, node, aten.maximum.default, filled, lower)
    node.replace_all_uses_with(filled)
    module.graph.erase_node(node)
    return 1


#: Give infinities or not-a-number for finite inputs. (Softmax for rows without a finite score.)
UNBOUNDED = {
    "log", "log2", "log10", "log1p", "log_softmax", "div", "reciprocal", "rsqrt", "pow", "exp",
    "exp2", "expm1", "softmax", "_softmax", "logit", "tan", "where", "masked_fill", "sqrt",
    "minimum", "maximum", "scaled_dot_product_attention",
}  # fmt: skip

#: Make finite numbers out of finite ones, and nothing of use out of others.
BARRIERS = {
    "linear", "addmm", "conv1d", "conv2d", "conv3d", "layer_norm", "group_norm", "rms_norm",
    "batch_norm", "sigmoid", "tanh", "embedding",
}  # fmt: skip


def _may_be_infinite(module: GraphModule, value: Node) -> bool:
    """Whether ``value`` may hold infinities though the model's inputs are finite: whether an
    operator that makes them, or an infinite constant, stands before it."""
    seen: set[Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "get_attr":
            if not bool(attribute(module, str(node.target)).isfinite().all()):
                return True
            continue
        target = node.target
        name = target._schema.name if isinstance(target, torch._ops.OpOverload) else ""
        name = name.partition("::")[2]
        if name in UNBOUNDED:
            return True
        if name not in BARRIERS:
            waiting.extend(node.all_input_nodes)
    return False
