"""Express sizes of computed tensors by sizes of the inputs."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.errors import UnsupportedError

aten = torch.ops.aten

#: What each fills a tensor with that has another one's size, or takes its type alone from one.
_FILLERS: dict[object, int | None] = {
    aten.zeros_like.default: 0, aten.new_zeros.default: 0, aten.empty_like.default: 0,
    aten.new_empty.default: 0, aten.ones_like.default: 1, aten.new_ones.default: 1,
    aten.full_like.default: None, aten.new_full.default: None,
}  # fmt: skip


def apply(module: GraphModule) -> int:
    """Given ``sym_size(y, dim)`` of a computed tensor ``y`` → Result: the same number, computed
    from the sizes of the inputs, where it follows from them; and given ``zeros_like(y)`` of dynamic
    size → Result ``full(sizes, 0)``. So nothing outside a delegate waits for the shape of what is
    made inside."""
    found = [
        node
        for node in module.graph.nodes
        if node.target is aten.sym_size.int and not _is_input(node.args[0])
    ]
    sizes = SizeNodes(module)
    changes = _fill_by_size(module, sizes)
    for node in found:
        value = node.meta["val"]
        if isinstance(value, torch.SymInt):
            try:
                value = sizes.node(value.node.expr)
            except UnsupportedError:
                continue
        if not isinstance(value, Node) or value is node:
            continue
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _fill_by_size(module: GraphModule, sizes: SizeNodes) -> int:
    changes = 0
    for node in list(module.graph.nodes):
        if node.target not in _FILLERS or _is_input(node.args[0]):
            continue
        value, named = node.meta["val"], arguments(node)
        fill = named["fill_value"] if _FILLERS[node.target] is None else _FILLERS[node.target]
        if layout.is_static(layout.shape_of(value)) or isinstance(fill, Node):
            continue
        try:
            shape = sizes.replace(list(value.shape))
        except UnsupportedError:
            continue
        if any(isinstance(size, Node) and not size < node for size in shape):
            continue
        full = call(module, node, aten.full.default, shape, fill, dtype=value.dtype)
        node.replace_all_uses_with(full)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _is_input(source: object) -> bool:
    return isinstance(source, Node) and source.op == "placeholder"
