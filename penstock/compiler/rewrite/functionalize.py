"""Functionalization: in-place operators become their functional twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from penstock.compiler.delegate.operators.registry import Shared, find, functional_twin
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.marks import STATE, STORE, WRITE_BACK
from penstock.compiler.fx.writes import is_write, written_by
from penstock.errors import ExportError

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``y = relu_(x)``; later readers of ``x`` → Result ``y = relu(x)``; they read ``y``.

    A write to a parameter or buffer also leaves ``copy_(buffer, y)`` at the graph's end, once, so
    that the state the next call sees is right; readers of such a buffer read ``state(buffer)``,
    since it is no constant. A write to an input leaves ``write_back(input, y)``: the caller sees
    it. What :func:`needs_tracing` is not met here: capture has torch functionalize such models.
    """
    graph = module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    _merge_attributes(module)
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
        if reshapes_in_place(node) and target.op == "get_attr":
            raise reshaped(node, target)
        if _is_store(node, output):
            stored.add(target)
            continue
        if not reshapes_in_place(node):
            written[node] = written.pop(target, target)
        node.target = twin
        node.meta.setdefault("val", target.meta["val"])
        for user in [user for user in target.users if node < user]:
            user.replace_input_with(target, node)
        changes += 1
    for value, root in written.items():
        if root.op == "get_attr":
            _leave(graph, output, STORE, root, value)
            stored.add(root)
        elif root.op == "placeholder":
            _leave(graph, output, WRITE_BACK, root, value)
    for buffer in stored:
        _read_as_state(graph, buffer)
    _refuse_shared_memory(module, stored)
    return changes


def _leave(graph: Graph, output: Node, target: object, root: Node, value: Node) -> None:
    with graph.inserting_before(output):
        store = graph.call_function(target, (root, value))  # type: ignore[arg-type]
    store.meta["val"] = root.meta.get("val")


def _merge_attributes(module: GraphModule) -> None:
    """One ``get_attr`` node for each attribute; and for each tensor that the model writes to,
    whatever names it has."""
    nodes = [node for node in module.graph.nodes if node.op == "get_attr"]
    _merge(nodes, {node: node.target for node in nodes})
    nodes = [node for node in module.graph.nodes if node.op == "get_attr"]
    if any(is_write(user) for node in nodes for user in node.users):
        _merge(nodes, {node: _identity(module, node) for node in nodes})


def _merge(nodes: Sequence[Node], keys: Mapping[Node, object]) -> None:
    first: dict[object, Node] = {}
    for node in nodes:
        kept = first.setdefault(keys[node], node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            node.graph.erase_node(node)


def _identity(module: GraphModule, node: Node) -> object:
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return node.target
    value = attribute(module, str(node.target))
    return (value.data_ptr() or node.target, value.shape, value.stride(), value.dtype)


def _refuse_shared_memory(module: GraphModule, stored: set[Node]) -> None:
    """A write to a part of another buffer's memory cannot be followed: in the graph they are two
    tensors."""
    storages = {_storage(module, buffer): buffer for buffer in stored}
    for node in module.graph.nodes if stored else ():
        if node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor):
            buffer = storages.get(_storage(module, node), node)
            if buffer is not node:
                raise ExportError(
                    f"the model writes to {buffer.target}, whose memory {node.target} shares; "
                    "register one of them, and take the other from it in forward"
                )


def _storage(module: GraphModule, node: Node) -> object:
    return attribute(module, str(node.target)).untyped_storage().data_ptr() or node.target


def _read_as_state(graph: Graph, buffer: Node) -> None:
    if any(user.target is STATE for user in buffer.users):
        return  # an earlier run of this rewrite has done it
    with graph.inserting_after(buffer):
        state = graph.call_function(STATE, (buffer,))
    state.meta["val"] = buffer.meta["val"]
    buffer.replace_all_uses_with(
        state,
        delete_user_cb=lambda user: (
            user is not state and not (user.target is STORE and user.args[0] is buffer)
        ),
    )


def _is_store(node: Node, output: Node) -> bool:
    """Whether a copy_ only leaves a buffer's final state, as this rewrite does: neither its
    result nor the buffer is read afterwards, and nothing is converted or broadcast."""
    if node.target is not STORE or node.users:
        return False
    target, value = node.args[:2]
    assert isinstance(target, Node)
    if target.op != "get_attr" or any(node < user < output for user in target.users):
        return False
    before, after = target.meta["val"], value.meta.get("val")  # type: ignore[union-attr]
    return (
        isinstance(after, torch.Tensor)
        and before.dtype == after.dtype
        and layout.shape_of(before) == layout.shape_of(after)
    )


def reshaped(node: Node, of: Node) -> ExportError:
    """What to say of a model that changes the shape of its state, or of an input it writes to."""
    name = node.target._schema.name.partition("::")[2]  # type: ignore[union-attr]
    return ExportError(
        f"the model changes the shape of {of.target} in place, by {name}, which a program cannot; "
        f"use {name.removesuffix('_')} instead"
    )


def needs_tracing(node: Node) -> bool:
    """Whether another trace is needed, since this rewrite cannot follow what the node writes to:
    it is seen through another name, or no functional twin gives all that the operator writes."""
    if not isinstance(node.target, torch._ops.OpOverload):
        # Batching (vmap, associative scans) is gone from a traced graph, too.
        return getattr(node.target, "__module__", "") == "torch._functorch.predispatch"
    if _does_nothing(node) or (reshapes_in_place(node) and functional_twin(node.target)):
        return False
    if node.target in _WITH_STATISTICS:
        named = arguments(node)
        return bool(named[_WITH_STATISTICS[node.target]]) and named["running_mean"] is not None
    written = list(written_by(node))
    if any(_seen_elsewhere(node, value) for value in written):
        return True
    followed = functional_twin(node.target) is not None and written == [node.args[0]]
    return bool(written) and not followed


#: Composite operators that write to running statistics without saying so in their schema, and
#: the argument that tells them to.
_WITH_STATISTICS: dict[object, str] = {
    aten.batch_norm.default: "training",
    aten.instance_norm.default: "use_input_stats",
}


def _seen_elsewhere(write: Node, value: Node) -> bool:
    own, origins = _itself(value), roots(value)
    if any(root.op in ("get_attr", "placeholder") and root is not own for root in origins):
        return True  # part of the model's state, or of an input: the caller sees it
    return any(
        user is not write and write < user
        for root in origins
        for name in _names(root)
        if _itself(name) is not own
        for user in name.users
    )


def _itself(value: Node) -> Node:
    """The tensor that operators which work in place give back."""
    while is_write(value) and not _is_view(value) and value.args:
        first = value.args[0]
        if not isinstance(first, Node):
            break
        value = first
    return value


def roots(value: Node) -> list[Node]:
    """What ``value`` may be a view of."""
    value = _itself(value)
    if not _is_view(value):
        return [value]
    return [root for source in _sources(value) for root in roots(source)]


def _names(root: Node) -> list[Node]:
    """``root`` and every view of it."""
    names, waiting = [], [root]
    while waiting:
        name = waiting.pop()
        names.append(name)
        waiting.extend(
            user for user in name.users
            if (_is_view(user) or is_write(user)) and name in _sources(user)
        )  # fmt: skip
    return names


def _sources(view: Node) -> list[Node]:
    """What a view may be of: its first argument, or one of those in it (``meshgrid``)."""
    lists = [value for value in view.args[:2] if isinstance(value, (list, tuple))]
    items = (view.args[0], *(item for value in lists for item in value))
    return [item for item in items if isinstance(item, Node)]


def _does_nothing(node: Node) -> bool:
    """Dropout in place, in evaluation mode."""
    name = node.target._schema.name  # type: ignore[union-attr]
    return "dropout" in name and len(node.args) > 2 and node.args[2] is False


def _is_view(node: Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"  # getitem of a multi-output view (split, unbind)
    if any(result.alias_info is not None for result in target._schema.returns):
        return not target._schema.is_mutable or reshapes_in_place(node)
    return gives_unsaid_view(node)


def reshapes_in_place(node: Node) -> bool:
    """Whether an operator (``squeeze_``, ``t_``) changes a tensor's shape, and no element."""
    return torch.Tag.inplace_view in getattr(node.target, "tags", ())


def gives_unsaid_view(node: Node) -> bool:
    """Whether a composite operator gives a view, or its input as it is, which its schema does not
    say."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    said = any(result.alias_info is not None for result in target._schema.returns)
    return not said and _may_give_a_view(target) and _shares_memory(node)


@cache
def _may_give_a_view(target: torch._ops.OpOverload) -> bool:
    """Whether an operator calls others, one of which may give a view, or its input as it is: what
    reshape, conversions and dropout do without saying so in their schemas. Not what has an entry
    by which values are computed, and not just moved."""
    entry = find(target)
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(target.has_kernel_for_dispatch_key(key)) and (
        entry is None or isinstance(entry.quantization, Shared)
    )


def _shares_memory(node: Node) -> bool:
    """Whether a result lies in the memory of an input, found by computing it of stand-ins: in no
    mode of Python's, whose definitions copy what eager PyTorch gives as it is (dropout)."""
    inputs: dict[Node, Any] = {
        item: _stand_in(item.meta.get("val")) for item in node.all_input_nodes
    }
    args, kwargs = map_arg((node.args, node.kwargs), inputs.__getitem__)
    try:
        with torch.no_grad():
            results = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception:  # of sizes that only a run knows, for one
        return True
    return bool(_storages(results) & _storages(list(inputs.values())))


def _storages(tree: object) -> set[int]:
    leaves = pytree.tree_leaves(tree)
    return {one.untyped_storage()._cdata for one in leaves if isinstance(one, torch.Tensor)}


def _stand_in(value: Any) -> Any:
    """The same at the example's sizes, without elements."""
    if isinstance(value, torch.Tensor):
        shape, strides = ([_stand_in(n) for n in sizes] for sizes in (value.shape, value.stride()))
        return torch.empty_strided(shape, strides, dtype=value.dtype, device="meta")
    return _number(value) if isinstance(value, (torch.SymInt, torch.SymFloat)) else value


def _number(value: torch.SymInt | torch.SymFloat) -> Any:
    """The example's; of what only a run knows, as many rows as a mask chooses, any will do."""
    if value.node.has_hint():
        return value.node.hint
    known = value.node.shape_env.backed_var_to_val
    expression = value.node.expr
    found = expression.xreplace(
        {symbol: known.get(symbol, 3) for symbol in expression.free_symbols}
    )
    return int(found) if isinstance(value, torch.SymInt) else float(found)
