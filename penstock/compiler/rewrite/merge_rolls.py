"""Combine rolls in a row into one."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments, as_list

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``roll(roll(x, s, d), t, e)``, the inner one read by nothing else → Result
    ``roll(x, [s, t], [d, e])``, which moves the data fewer times."""
    changes = 0
    for node in list(module.graph.nodes):
        inner = _rolled(node)
        if inner is None or len(inner.users) > 1:
            continue
        first, second = arguments(inner), arguments(node)
        node.args = (
            first["self"],
            [*as_list(first["shifts"]), *as_list(second["shifts"])],
            [*as_list(first["dims"]), *as_list(second["dims"])],
        )
        node.kwargs = {}
        module.graph.erase_node(inner)
        changes += 1
    return changes


def _rolled(node: Node) -> Node | None:
    """The roll that ``node``, a roll of given dimensions too, reads."""
    inner = node.args[0] if node.args else None
    if _of_dimensions(node) and isinstance(inner, Node) and _of_dimensions(inner):
        return inner
    return None


def _of_dimensions(node: Node) -> bool:
    return node.target is aten.roll.default and bool(as_list(arguments(node)["dims"]))
