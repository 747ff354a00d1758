"""What a program changes besides its outputs: buffers, which are values and not constants, and
inputs."""

from __future__ import annotations

import torch
from torch.fx import Graph, GraphModule, Node

from penstock.compiler.fx.edit import call
from penstock.compiler.fx.marks import BUFFER, STATE, STORE, STORES, WRITE_BACK


def apply(module: GraphModule) -> int:
    """Given ``state(buffer)`` → Result: a placeholder, which the partitioner takes for one more
    input and the emitter for the buffer. Given ``write_back(input, y)`` → ``copy_(input, y)``.

    Buffers and inputs change when all else is done; of what they held, that which becomes an
    output, or the new content of another one, is copied before.
    """
    graph = module.graph
    nodes = list(graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    for node in nodes:
        if node.target is WRITE_BACK:
            node.target = STORE
    stores = [node for node in nodes if node.target in STORES]
    for store in stores:
        nodes[-1].prepend(store)
    end = stores[0] if stores else nodes[-1]
    states = [node for node in nodes if node.target is STATE]
    if states:
        # What reads a buffer may stand before the inputs: quantization puts it right behind.
        for node in reversed(inputs):
            next(iter(graph.nodes)).prepend(node)
    for node in dict.fromkeys([*(store.args[0] for store in stores), *states]):
        if isinstance(node, Node) and node.op != "get_attr":
            _keep_old(module, node, end)
    for number, node in enumerate(states):
        _as_placeholder(graph, node, f"state_{number}", inputs)
    return len(states)


def _keep_old(module: GraphModule, node: Node, end: Node) -> None:
    """A copy of what a buffer or input holds, for what is to have it after the writes."""
    leaving = [
        user
        for user in node.users
        if user.op == "output" or (user.target in STORES and node in _content(user))
    ]
    if not leaving:
        return
    kept = call(module, end, torch.ops.aten.clone.default, node)
    for user in leaving:
        target = user.args[0] if user.target in STORES else None
        user.replace_input_with(node, kept)
        if target is node:
            user.args = (target, *user.args[1:])


def _content(store: Node) -> list[Node]:
    """What a store reads besides the buffer, or input, that it changes."""
    found: list[Node] = []
    torch.fx.node.map_arg(store.args[1:], found.append)
    return found


def _as_placeholder(graph: Graph, node: Node, name: str, inputs: list[Node]) -> None:
    buffer = node.args[0]
    assert isinstance(buffer, Node)
    first = next(iter(graph.nodes))
    with graph.inserting_after(inputs[-1]) if inputs else graph.inserting_before(first):
        made = graph.placeholder(name)
    made.meta["val"] = node.meta["val"]
    made.meta[BUFFER] = str(buffer.target)
    inputs.append(made)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
