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

#: The value that a buffer has when the program is called.
STATE = torch.ops.penstock.state.default


def apply(module: GraphModule) -> int:
    """Given ``state(buffer)`` → Result: a placeholder, which the partitioner takes for one more
    input and the emitter for the buffer. What becomes an output, or another buffer's next state,
    is copied first, because the buffer itself will have changed by then."""
    graph = module.graph
    changes = 0
    last = [node for node in graph.nodes if node.op == "placeholder"]
    for node in list(graph.nodes):
        if node.target is not STATE:
            continue
        buffer = node.args[0]
        assert isinstance(buffer, Node)
        for user in list(node.users):
            if user.op == "output" or user.target is torch.ops.aten.copy_.default:
                user.replace_input_with(node, call(module, user, torch.ops.aten.clone.default, node))
        with graph.inserting_after(last[-1]) if last else graph.inserting_before(None):
            made = graph.placeholder(f"state_{changes}")
        made.meta["val"] = node.meta["val"]
        made.meta[BUFFER] = str(buffer.target)
        last.append(made)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
        changes += 1
    return changes
