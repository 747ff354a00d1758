"""Constants that branches and loops take as operands become constants of their graphs."""

from __future__ import annotations

import copy

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.control_flow import graph_names, is_control_flow, operands
from penstock.compiler.fx.edit import add_attribute


def apply(module: GraphModule) -> int:
    """Given ``cond(p, f, g, (x, weight))`` → Result: ``cond(p, f, g, (x,))``, ``weight`` in ``f``
    and ``g`` a ``get_attr`` of the same tensor: what is delegated packs it. Each graph is named
    once, so that it can be changed."""
    changes = 0
    named: set[str] = set()
    for node in list(module.graph.nodes):
        if is_control_flow(node):
            _own_graphs(module, node, named)
            changes += _sink(module, node)
    return changes


def _own_graphs(module: GraphModule, node: Node, named: set[str]) -> None:
    """A copy of each graph that was met before."""
    for name in graph_names(node):
        target = str(name.target)
        if target in named:
            number = 1
            while hasattr(module, f"{target.replace('.', '_')}_{number}"):
                number += 1
            fresh = f"{target.replace('.', '_')}_{number}"
            module.add_module(fresh, copy.deepcopy(module.get_submodule(target)))
            with module.graph.inserting_before(node):
                node.replace_input_with(name, module.graph.create_node("get_attr", fresh))
            target = fresh
        named.add(target)


def _sink(module: GraphModule, node: Node) -> int:
    shared = operands(node).shared
    constant = [isinstance(item, Node) and _is_tensor(item) for item in shared]
    if not any(constant):
        return 0
    for name in graph_names(node):
        body = module.get_submodule(str(name.target))
        assert isinstance(body, GraphModule)
        inputs = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
        for item, sinks, placeholder in zip(
            shared, constant, inputs[len(inputs) - len(shared) :], strict=True
        ):
            if sinks:
                _replace(body, placeholder, inputs[-1].next, module, item)
        body.recompile()
    rest = tuple(item for item, sinks in zip(shared, constant, strict=True) if not sinks)
    node.args = (*node.args[:-1], rest)
    return 1


def _is_tensor(node: Node) -> bool:
    return node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor)


def _replace(
    body: GraphModule, placeholder: Node, before: Node, module: GraphModule, constant: Node
) -> None:
    value = attribute(module, str(constant.target))
    with body.graph.inserting_before(before):
        made = body.graph.create_node("get_attr", add_attribute(body, value, "_shared"))
    made.meta["val"] = placeholder.meta["val"]
    placeholder.replace_all_uses_with(made)
    body.graph.erase_node(placeholder)
