"""In-place operators become their functional twins."""

from __future__ import annotations

import torch
from torch.fx import Graph, GraphModule, Node

from penstock.compiler.operators.registry import functional_twin
from penstock.compiler.rewrite.state import STATE


def apply(module: GraphModule) -> int:
    """Given ``y = relu_(x)``; later readers of ``x`` → Result ``y = relu(x)``; they read ``y``.

    A write to a parameter or buffer also leaves ``copy_(buffer, y)`` at the graph's end, once, so
    that the state the next call sees is right; readers of such a buffer read ``state(buffer)``,
    since it is no constant. Nobody sees what a program writes to its inputs. Writes through views
    are not met here: capture has torch functionalize such models.
    """
    graph = module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    _merge_attributes(graph)
    changes = 0
    written: dict[Node, Node] = {}
    stored: set[Node] = set()
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        twin = functional_twin(node.target)
        if twin is None or not node.args or not isinstance(node.args[0], Node):
            continue
        target = node.args[0]
        if node.target is torch.ops.aten.copy_.default and _is_store(node, output):
            stored.add(target)
            continue
        node.target = twin
        for user in [user for user in target.users if node < user]:
            user.replace_input_with(target, node)
        written[node] = written.pop(target, target)
        changes += 1
    for value, root in written.items():
        if root.op == "get_attr":
            with graph.inserting_before(output):
                store = graph.call_function(torch.ops.aten.copy_.default, (root, value))
            store.meta["val"] = root.meta.get("val")
            stored.add(root)
    for buffer in stored:
        _read_as_state(graph, buffer)
    return changes


def _merge_attributes(graph: Graph) -> None:
    """One ``get_attr`` node for each attribute."""
    first: dict[object, Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr" and first.setdefault(node.target, node) is not node:
            node.replace_all_uses_with(first[node.target])
            graph.erase_node(node)


def _read_as_state(graph: Graph, buffer: Node) -> None:
    if any(user.target is STATE for user in buffer.users):
        return  # an earlier run of this rewrite has done it
    with graph.inserting_after(buffer):
        state = graph.call_function(STATE, (buffer,))
    state.meta["val"] = buffer.meta["val"]
    buffer.replace_all_uses_with(
        state,
        delete_user_cb=lambda user: (
            user is not state
            and not (user.target is torch.ops.aten.copy_.default and user.args[0] is buffer)
        ),
    )


def _is_store(node: Node, output: Node) -> bool:
    """Whether a copy_ leaves a buffer's final state, as this rewrite does and torch too: nothing
    reads the buffer afterwards."""
    target = node.args[0]
    assert isinstance(target, Node)
    return target.op == "get_attr" and not any(node < user < output for user in target.users)


def writes_to_a_view(node: Node) -> bool:
    """Whether an in-place operator's write is seen through another name: through the value it is
    a view of, or through a view of it, read later. (A write to a view that alone is read later,
    an activation in place after a reshape, say, is like any other write.)"""
    if not isinstance(node.target, torch._ops.OpOverload) or _does_nothing(node):
        return False
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        if isinstance(value, Node) and _seen_elsewhere(node, value):
            return True
    return False


def _seen_elsewhere(write: Node, value: Node) -> bool:
    root = _root(value)
    if root.op == "get_attr" and root is not value:
        return True  # part of the model's state, which the next call sees
    names = _names(root)
    return any(
        user is not write and write < user
        for name in names
        if name is not value
        for user in name.users
    )


def _root(value: Node) -> Node:
    while _is_view(value) and isinstance(value.args[0], Node):
        value = value.args[0]
    return value


def _names(root: Node) -> list[Node]:
    """``root`` and every view of it."""
    names, waiting = [], [root]
    while waiting:
        name = waiting.pop()
        names.append(name)
        waiting.extend(user for user in name.users if _is_view(user) and user.args[0] is name)
    return names


def _does_nothing(node: Node) -> bool:
    """Dropout in place, in evaluation mode."""
    name = node.target._schema.name  # type: ignore[union-attr]
    return "dropout" in name and len(node.args) > 2 and node.args[2] is False


def _is_view(node: Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"  # getitem of a multi-output view (split, unbind)
    returns_alias = any(
        result.alias_info is not None and not result.alias_info.is_write
        for result in target._schema.returns
    )
    # Composite operators such as reshape and flatten return views without saying so.
    composite = target._schema.name.split("::")[1] in {
        "reshape", "flatten", "contiguous", "to", "reshape_as", "unflatten", "dropout",
    }  # fmt: skip
    return returns_alias or composite
