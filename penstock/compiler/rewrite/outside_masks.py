"""Choices inside XNNPACK by masks that come from outside."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.comparison import MASKED_FILL, WHERE
from penstock.compiler.delegate.partition import reason_against
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call

aten = torch.ops.aten

#: With values and positions: which operators give one and the other.
_EXTREMES = {
    aten.max.dim: (aten.amax.default, aten.argmax.default),
    aten.min.dim: (aten.amin.default, aten.argmin.default),
}


def apply(module: GraphModule) -> int:
    """Given ``where(mask, x, y)`` between operators that are delegated, of a boolean ``mask`` that
    comes from outside (an input, what is computed of integers) → Result: ``where(numbers > 0.5, x,
    y)``, with ``numbers = mask.to(float32)`` outside: the choice cuts no delegate in two. A
    ``masked_fill`` likewise.
    Given ``max(x, dim)`` between such, of which the positions are read too → Result: ``amax(x,
    dim)`` and, outside, ``argmax(x, dim)``. ``min`` likewise.
    """
    changes = 0
    for node in list(module.graph.nodes):
        if node.target in _EXTREMES:
            changes += _split_extreme(module, node)
    made: dict[Node, Node] = {}
    for node in list(module.graph.nodes):
        if _is_choice_from_outside(node):
            changes += _bring_inside(module, node, made)
    return changes


def _mask(node: Node) -> Node | None:
    mask = node.args[1 if node.target in MASKED_FILL else 0]
    return mask if isinstance(mask, Node) else None


def _is_choice_from_outside(node: Node) -> bool:
    if node.target not in (*WHERE, *MASKED_FILL):
        return False
    mask = _mask(node)
    if mask is None or mask.op == "get_attr" or mask.meta["val"].dtype is not torch.bool:
        return False
    return mask.op != "call_function" or reason_against(mask) is not None


def _is_delegated(node: Node) -> bool:
    return node.op == "call_function" and _is_tensor(node) and reason_against(node) is None


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _cuts(node: Node) -> bool:
    """Whether ``node``, outside, would stand between operators inside."""
    return any(map(_is_delegated, node.all_input_nodes)) and any(map(_is_delegated, node.users))


def _bring_inside(module: GraphModule, node: Node, made: dict[Node, Node]) -> bool:
    mask = _mask(node)
    if mask is None or not _cuts(node):
        return False
    inside = made.get(mask)
    if inside is None:
        numbers = call(module, node, aten.to.dtype, mask, torch.float32)
        inside = call(module, node, aten.gt.Scalar, numbers, 0.5)
    node.replace_input_with(mask, inside)
    if reason_against(node) is not None:
        node.replace_input_with(inside, mask)
        return False  # what was added for it has no user, and is removed
    made[mask] = inside
    return True


def _split_extreme(module: GraphModule, node: Node) -> bool:
    results = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    if len(results) != 2 or not all(result.users for result in results.values()):
        return False
    source = node.args[0]
    reads = results[0].users
    if not (isinstance(source, Node) and _is_delegated(source)):
        return False
    if not any(_is_delegated(user) or _is_choice_from_outside(user) for user in reads):
        return False
    named = arguments(node)
    values, positions = _EXTREMES[node.target]  # type: ignore[index]
    dim, keep = named["dim"], named["keepdim"]
    results[0].replace_all_uses_with(call(module, node, values, source, [dim], keep))
    results[1].replace_all_uses_with(call(module, node, positions, source, dim, keep))
    return True
