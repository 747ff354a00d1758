"""Puts the delegates into the graph, as calls."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.group import Delegate
from penstock.graph.graph import XnnGraph


class DelegateModule(torch.nn.Module):
    """Holds one delegate's graph as a submodule of the lowered graph, and the nodes of the group
    that it was made of, to which its debug handles 1, 2, 3 ... belong."""

    def __init__(self, graph: XnnGraph, group: Sequence[Node] = ()) -> None:
        super().__init__()
        self.graph = graph
        self.group = tuple(group)


def executorch_call_delegate(delegate: DelegateModule, *inputs: torch.Tensor) -> Any:
    """Stands for a delegate call in a lowered graph. Only the runtime can carry it out."""
    raise NotImplementedError("a lowered graph runs from its .pte file")


def insert_calls(
    module: GraphModule, groups: Sequence[Sequence[Node]], lowered: Sequence[Delegate]
) -> None:
    """Replaces each group of nodes by a call of its delegate and a getitem for each output. Calls
    go where the group ends; afterwards the graph is sorted."""
    moved: dict[Node, Node] = {}  # an output of an earlier group -> its getitem
    for number, (group, delegate) in enumerate(zip(groups, lowered, strict=True)):
        name = f"lowered_module_{number}"
        module.add_module(name, DelegateModule(delegate.graph, group))
        graph = module.graph
        inside = set(group)
        inputs = [moved.get(node, node) for node in delegate.inputs]
        with graph.inserting_before(group[-1]):
            holder = graph.create_node("get_attr", name)
            call = graph.call_function(executorch_call_delegate, (holder, *inputs))
            call.meta["val"] = tuple(node.meta["val"] for node in delegate.outputs)
            for position, node in enumerate(delegate.outputs):
                item = graph.call_function(operator.getitem, (call, position))
                item.meta["val"] = node.meta["val"]
                moved[node] = item
                for user in [user for user in node.users if user not in inside]:
                    user.replace_input_with(node, item)
        for node in reversed(group):
            graph.erase_node(node)
    _sort(module)


def _sort(module: GraphModule) -> None:
    """Orders the nodes so that each comes after what it reads, as near to the old order as that
    allows. Raises RuntimeError for a cycle: the partition was wrong."""
    graph = module.graph
    order = {node: position for position, node in enumerate(graph.nodes)}
    done: set[Node] = set()
    entered: set[Node] = set()
    result: list[Node] = []
    for root in order:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            waiting = [source for source in node.all_input_nodes if source not in done]
            if waiting:
                if node in entered:
                    raise RuntimeError(
                        f"the lowered graph has a cycle through {node.name} and {waiting[0].name}"
                    )
                entered.add(node)
                stack.extend(sorted(waiting, key=lambda item: -order[item]))
            else:
                done.add(node)
                result.append(node)
                stack.pop()
    cursor = graph._root
    for node in result:
        cursor.append(node)
        cursor = node
