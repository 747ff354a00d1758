"""Combine rolls in a row into one."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments

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
            [*_list(first["shifts"]), *_list(second["shifts"])],
            [*_list(first["dims"]), *_list(second["dims"])],
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
    return node.target is aten.roll.default and bool(_list(arguments(node)["dims"]))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
