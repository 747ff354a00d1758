"""Replacing slices whose place is computed: rows by their positions."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten

_ITEMS = (aten.item.default, aten._local_scalar_dense.default)


def apply(module: GraphModule) -> int:
    """Given ``slice_scatter(x, rows, dim, start, end)`` with a computed ``start`` or ``end`` →
    Result ``index_copy(x, dim, start + arange(rows), rows)``; ``select_scatter`` with a computed
    index likewise. Slices that start at the same place share their positions, also where each layer
    works the place out by itself.

    ``x[:, p : p + n] = rows`` is the commonest way to write to a cache. (A slice that ends beyond
    ``x`` has fewer rows than it is given, which is an error of eager's as it is of ``index_copy``.)
    """
    sizes = SizeNodes(module)
    made: dict[tuple[object, object], Node] = {}
    changes = 0
    for node in list(module.graph.nodes):
        if node.target not in (aten.slice_scatter.default, aten.select_scatter.default):
            continue
        named = arguments(node)
        rows, dim = named["src"], int(named["dim"]) % node.meta["val"].dim()
        if node.target is aten.select_scatter.default:
            start, computed = named["index"], isinstance(named["index"], Node)
        else:
            start = named["start"] or 0
            computed = isinstance(start, Node) or isinstance(named["end"], Node)
            computed = computed and named["step"] == 1
        if not computed:
            continue
        if node.target is aten.select_scatter.default:
            rows = call(module, node, aten.unsqueeze.default, rows, dim)
        count = sizes.replace(rows.meta["val"].shape[dim])
        key = _key(start), count
        if key not in made:
            made[key] = _positions(module, node, start, count)
        new = call(module, node, aten.index_copy.default, named["self"], dim, made[key], rows)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _key(value: Any, depth: int = 6) -> Any:
    """The same for nodes that compute the same by a few steps from the same."""
    if isinstance(value, (list, tuple)):
        return tuple(_key(item, depth) for item in value)
    if not isinstance(value, Node) or value.op != "call_function" or depth == 0:
        return value
    if value.kwargs or torch.Tag.nondeterministic_seeded in getattr(value.target, "tags", ()):
        return value
    return (value.target, *(_key(item, depth - 1) for item in value.args))


def _positions(module: GraphModule, before: Node, start: Node | int, count: Node | int) -> Node:
    """int64 [count]: from ``start`` on."""
    steps = call(module, before, aten.arange.default, count, dtype=torch.int64)
    if isinstance(start, Node) and start.target in _ITEMS:  # no way through a number
        tensor = call(module, before, aten.reshape.default, start.args[0], [1])
        if not tensor.meta["val"].is_floating_point():
            return call(module, before, aten.add.Tensor, steps, tensor)
    return call(module, before, aten.add.Tensor, steps, start)
