"""Attend over a cache and the rows that it gets, and write the rows in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call, copy_origin
from penstock.compiler.fx.marks import PUT, STATE, STORE, WRITE_BACK
from penstock.compiler.rewrite.split_axis import Parts, Splitter

aten = torch.ops.aten


@dataclass(frozen=True)
class Write:
    """``node``: the cache ``state`` with ``rows`` at ``positions`` of ``axis``, which ``store``
    leaves to the next call."""

    node: Node
    state: Node
    axis: int
    positions: Node
    rows: Node
    store: Node


def apply(module: GraphModule) -> int:
    """Rows written to a buffer by computed positions.

    Given ``new = index_copy(state, dim, positions, rows)``; ``softmax(q @ new^T + mask) @ v``;
    ``copy_(buffer, new)`` → Result: the scores of the old rows and of ``rows``, side by side under
    one softmax, in which old rows that are written over count nothing; each part of the result
    times its part of the values, summed; and ``index_put_(buffer, positions, rows)`` at the end.
    So attention waits for no write, one delegate has all of it, and nothing else of the cache is
    copied. ``index_put``, assignments to slices and ``scaled_dot_product_attention`` likewise.

    A cache that something else reads stays as it is; one that nothing else reads at all is written
    in place in any case.
    """
    writes = [write for node in module.graph.nodes if (write := _write(node)) is not None]
    groups: dict[tuple[Node, layout.Dim], list[Write]] = {}
    for write in writes:
        length = layout.dim_of(write.state.meta["val"].shape[write.axis])
        groups.setdefault((write.positions, length), []).append(write)
    changes = 0
    for (positions, length), group in groups.items():
        if isinstance(length, int):
            _split(module, group, positions, length)
    for write in writes:
        if set(write.node.users) == {write.store}:
            _in_place(module, write)
            changes += 1
    return changes


def _write(node: Node) -> Write | None:
    """A write of rows to a state, if that is what ``node`` is."""
    if node.target not in (aten.index_copy.default, aten.index_put.default):
        return None
    state = node.args[0]
    assert isinstance(state, Node)
    stores = [user for user in node.users if user.target in (STORE, WRITE_BACK)]
    is_state = state.target is STATE or state.op == "placeholder"
    if not is_state or len(stores) != 1 or stores[0].args[1] is not node:
        return None
    if stores[0].args[0] is not (state.args[0] if state.target is STATE else state):
        return None
    named = arguments(node)
    if node.target is aten.index_copy.default:
        axis = int(named["dim"]) % state.meta["val"].dim()
        found = Write(node, state, axis, named["index"], named["source"], stores[0])
    else:
        given = [i for i, index in enumerate(named["indices"]) if index is not None]
        if len(given) != 1 or named["accumulate"]:
            return None
        positions = named["indices"][given[0]]
        found = Write(node, state, given[0], positions, named["values"], stores[0])
    value = found.positions.meta["val"]
    if value.dim() != 1 or value.dtype not in (torch.int64, torch.int32):
        return None
    return found


def _split(module: GraphModule, writes: list[Write], positions: Node, length: int) -> None:
    """Carries out what reads the caches on their old and new rows, as far as that goes."""
    splitter = Splitter(module, length, positions)
    results: dict[Node, Node] = {}
    stuck: set[Node] = set()
    for write in writes:
        splitter.parts[write.node] = Parts(write.state, _full(module, write), write.axis)
    stores = {write.store for write in writes}
    for node in list(module.graph.nodes):
        if node in splitter.parts or node in stores:
            continue
        read = [source for source in node.all_input_nodes if source in splitter.parts]
        if not read:
            continue
        made = splitter.carry_out(node) if node.op == "call_function" else None
        if made is None:
            stuck.update(read)
        elif isinstance(made, Parts):
            splitter.parts[node] = made
        else:
            results[node] = made
    kept = _all_that_lead_to(stuck, splitter)
    for node, made in results.items():
        if not any(source in kept for source in node.all_input_nodes):
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)  # attention is no pure operator to torch
    module.graph.eliminate_dead_code()


def _all_that_lead_to(stuck: set[Node], splitter: Splitter) -> set[Node]:
    """All nodes in parts that are bound up with one whose whole something reads: of no use to
    anybody would be its parts beside it."""
    kept: set[Node] = set()
    waiting = list(stuck)
    while waiting:
        node = waiting.pop()
        if node in kept:
            continue
        kept.add(node)
        near = [*node.all_input_nodes, *node.users]
        beside = [source for user in node.users for source in user.all_input_nodes]
        waiting += [item for item in (*near, *beside) if item in splitter.parts]
    return kept


def _full(module: GraphModule, write: Write) -> Node:
    """The new rows in the rank of the cache: neither a part of a cache nor the stock runtime's
    ``index_put_`` takes fewer dimensions."""
    shape = list(write.state.meta["val"].shape)
    shape[write.axis] = write.positions.meta["val"].shape[0]
    rows = write.rows
    if layout.shape_of(rows.meta["val"]) == tuple(map(layout.dim_of, shape)):
        return rows
    missing = len(shape) - rows.meta["val"].dim()
    for _ in range(missing):
        rows = call(module, write.node, aten.unsqueeze.default, rows, 0)
    return rows


def _in_place(module: GraphModule, write: Write) -> None:
    """Given ``copy_(buffer, index_put(buffer, ...))`` → Result: ``index_put_(buffer, ...)``."""
    indices: list[Node | None] = [None] * write.axis + [write.positions]
    buffer = write.store.args[0]
    rows = _full(module, write)
    with module.graph.inserting_before(write.store):
        put = module.graph.call_function(PUT, (buffer, indices, rows))
    put.meta["val"] = write.store.meta.get("val")
    copy_origin(write.node, put)
    module.graph.erase_node(write.store)
    module.graph.erase_node(write.node)
