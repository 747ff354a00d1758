"""What depends on constants alone is computed now."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.builder import attribute
from penstock.compiler.rewrite.edit import new_attribute

#: A folded tensor may not be this much larger than what it was computed from.
MAX_GROWTH_BYTES = 64 * 2**20

#: Quantization of weights stays visible: the delegate wants the integers, not the reals.
KEPT_NAMESPACES = {"quantized_decomposed", "torchao"}
RANDOM = torch.Tag.nondeterministic_seeded


def apply(module: GraphModule) -> int:
    """Given an operator whose every tensor input is a constant (position tables, masks, folded
    scales, ``arange`` …) → Result: a ``get_attr`` of its value."""
    known: dict[Node, Any] = {}
    mutated = {
        node.args[0] for node in module.graph.nodes if node.target is torch.ops.aten.copy_.default
    }
    for node in module.graph.nodes:
        if node.op == "get_attr" and node not in mutated:
            if "val" in node.meta:  # else it is no tensor, but a submodule
                known[node] = attribute(module, str(node.target))
        elif _foldable(node, known):
            inputs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
            with torch.no_grad():
                value = node.target(*inputs[0], **inputs[1])
            if _growth(node, value, known) <= MAX_GROWTH_BYTES:
                known[node] = value
    changes = 0
    for node in reversed(list(module.graph.nodes)):
        if node.op == "get_attr" or node not in known:
            continue
        if node.users and isinstance(known[node], torch.Tensor) and _feeds_the_graph(node, known):
            new_attribute(module, node, known[node], "_folded")
            changes += 1
        if not node.users:
            module.graph.erase_node(node)
    return changes


def _foldable(node: Node, known: dict[Node, Any]) -> bool:
    if node.op != "call_function":
        return False
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if target.namespace in KEPT_NAMESPACES or RANDOM in target.tags:
            return False
        if target._schema.is_mutable:
            return False
    elif not isinstance(target, torch._ops.OpOverloadPacket) and getattr(
        target, "__module__", ""
    ) not in ("_operator", "operator", "math", "builtins"):
        return False
    return all(source in known for source in node.all_input_nodes)


def _growth(node: Node, value: Any, known: dict[Node, Any]) -> int:
    def size(item: Any) -> int:
        return item.untyped_storage().nbytes() if isinstance(item, torch.Tensor) else 0

    before = sum(size(known[source]) for source in node.all_input_nodes)
    return size(value) - before


def _feeds_the_graph(node: Node, known: dict[Node, Any]) -> bool:
    return any(user not in known for user in node.users)
