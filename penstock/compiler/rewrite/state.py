"""Buffers that a program changes: read and written, they are values and not constants."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.rewrite.edit import call

#: Where a placeholder that stands for a buffer keeps the buffer's name.
BUFFER = "penstock_buffer"

_library = torch.library.Library("penstock", "FRAGMENT")
if not hasattr(torch.ops.penstock, "state"):
    _library.define("state(Tensor buffer) -> Tensor")
    _library.impl("state", lambda buffer: buffer.clone(), "CompositeExplicitAutograd")

#: Gives a buffer what the next call finds in it.
STORE = torch.ops.aten.copy_.default

#: The value that a buffer has when the program is called.
STATE = torch.ops.penstock.state.default


def apply(module: GraphModule) -> int:
    """Given ``state(buffer)`` → Result: a placeholder, which the partitioner takes for one more
    input and the emitter for the buffer. The buffers change when all else is done; what becomes
    an output, or another buffer's next state, is copied before."""
    graph = module.graph
    nodes = list(graph.nodes)
    stores = [node for node in nodes if node.target is STORE]
    for store in stores:
        nodes[-1].prepend(store)
    end = stores[0] if stores else nodes[-1]
    last = [node for node in nodes if node.op == "placeholder"]
    states = [node for node in nodes if node.target is STATE]
    for number, node in enumerate(states):
        buffer = node.args[0]
        assert isinstance(buffer, Node)
        leaving = [user for user in node.users if user.op == "output" or user.target is STORE]
        if leaving:
            kept = call(module, end, torch.ops.aten.clone.default, node)
            for user in leaving:
                user.replace_input_with(node, kept)
        with graph.inserting_after(last[-1]) if last else graph.inserting_before(nodes[0]):
            made = graph.placeholder(f"state_{number}")
        made.meta["val"] = node.meta["val"]
        made.meta[BUFFER] = str(buffer.target)
        last.append(made)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    return len(states)
