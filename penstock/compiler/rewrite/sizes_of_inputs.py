"""Express sizes of computed tensors by sizes of the inputs."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.errors import UnsupportedError

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``sym_size(y, dim)`` of a computed tensor ``y`` → Result: the same number, computed
    from the sizes of the inputs, where it follows from them. So nothing outside a delegate waits
    for the shape of what is made inside."""
    found = [
        node
        for node in module.graph.nodes
        if node.target is aten.sym_size.int and not _is_input(node.args[0])
    ]
    sizes = SizeNodes(module)
    changes = 0
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


def _is_input(source: object) -> bool:
    return isinstance(source, Node) and source.op == "placeholder"
