"""Inline the subgraphs that ``torch.export`` puts regions of the model into."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.control_flow import bodies
from penstock.errors import ExportError

autocast = torch.ops.higher_order.wrap_with_autocast
set_grad = torch.ops.higher_order.wrap_with_set_grad_enabled

#: region operator -> the position of its graph among the arguments; the graph's inputs follow
REGIONS = {autocast: 4, set_grad: 1}


def apply(module: GraphModule) -> int:
    """Given ``wrap(…, region, x, y)`` for a region without gradients, or one with autocasting
    switched off (norms and attention of many models) → Result: the region's operators on ``x`` and
    ``y``.

    Raises :class:`ExportError` for a region that is to be cast to another type: which operators
    are cast is known to PyTorch's dispatcher alone.
    """
    changes = 0
    while found := [node for node in module.graph.nodes if node.target in REGIONS]:
        for node in found:
            if node.target is autocast and node.args[2] is not False:
                raise ExportError(
                    "the model switches autocasting on within itself; give it the weights and "
                    "inputs in the type to compute in, and leave torch.autocast out"
                )
            _inline(module, node)
            changes += 1
    if changes:
        module.delete_all_unused_submodules()
        module.recompile()
    return changes + sum(map(apply, bodies(module)))


def _inline(module: GraphModule, node: Node) -> None:
    position = REGIONS[node.target]  # type: ignore[index]
    holder, inputs = node.args[position], node.args[position + 1 :]
    assert isinstance(holder, Node)
    path = str(holder.target)
    region = module.get_submodule(path)
    assert isinstance(region, GraphModule)
    values: dict[Node, Any] = {}
    waiting = iter(inputs)
    results: Any = None
    with module.graph.inserting_before(node):
        for inner in region.graph.nodes:
            if inner.op == "placeholder":
                values[inner] = next(waiting)
            elif inner.op == "output":
                results = torch.fx.node.map_arg(inner.args[0], lambda item: values[item])
            else:
                values[inner] = module.graph.node_copy(inner, lambda item: values[item])
                if inner.op == "get_attr":
                    values[inner].target = f"{path}.{inner.target}"
                    _adopt(module, region, str(inner.target), values[inner])
    _use(node, results)
    module.graph.erase_node(node)
    if not holder.users:
        module.graph.erase_node(holder)


def _adopt(module: GraphModule, region: GraphModule, name: str, node: Node) -> None:
    """A constant of the region becomes one of the module; a nested region stays where it is."""
    value = region
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, torch.nn.Module):
        return
    flat = str(node.target).replace(".", "_")
    module.register_buffer(flat, value.detach(), persistent=False)
    node.target = flat


def _use(node: Node, results: Any) -> None:
    """Readers of the region's results read what computes them."""
    if isinstance(results, Node):
        node.replace_all_uses_with(results)
        return
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(results[user.args[1]])
        user.graph.erase_node(user)
