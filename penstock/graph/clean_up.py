"""Common subexpression elimination, dead node elimination, renumbering of values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.index import Index


def merge_equal_nodes(graph: XnnGraph) -> None:
    """Given two nodes of one kind with equal inputs and attributes → Result: one, read by the
    readers of both. (Parallel layers that share an input often transpose or quantize it twice.)
    Small constants are equal by what they hold.
    """
    index = Index(graph)
    same = _equal_constants(graph)
    seen: dict[tuple[object, ...], int] = {}
    for node in index.walk():
        if len(node.outputs) != 1:
            continue
        output = index.values[node.outputs[0]]
        inputs = tuple(same.get(i, i) for i in node.inputs)
        key = (
            node.kind, inputs, node.attributes, node.clamp, node.flags, output.dtype,
            output.shape, output.quantization,
        )  # fmt: skip
        first = seen.setdefault(key, output.id)
        if first != output.id and not output.is_output and not index.values[first].is_output:
            index.replace(node, first)
    index.finish()


#: Constants of more bytes are not compared.
SMALL = 4096


def _equal_constants(graph: XnnGraph) -> dict[int, int]:
    """For each small constant the first one that is equal to it."""
    first: dict[tuple[object, ...], int] = {}
    found = {}
    for value in graph.values:
        if value.data is None or value.quantization is not None:
            continue
        data = np.asarray(value.data)
        if data.nbytes <= SMALL:
            key = (value.dtype, value.shape, data.tobytes())
            found[value.id] = first.setdefault(key, value.id)
    return found


def remove_dead(graph: XnnGraph) -> None:
    """Drops nodes whose results nobody reads."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if any(output in needed for output in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    graph.nodes = kept[::-1]


def renumbered(graph: XnnGraph) -> XnnGraph:
    """The graph with only the values in use, numbered 0, 1, 2 … : externals first."""
    used = {value for node in graph.nodes for value in (*node.inputs, *node.outputs)}
    used |= set(graph.inputs) | set(graph.outputs)
    externals = [*graph.inputs, *graph.outputs]
    by_id = {value.id: value for value in graph.values}
    order = externals + [v.id for v in graph.values if v.id in used and v.id not in set(externals)]
    new = {old: position for position, old in enumerate(order)}
    new[INVALID_VALUE_ID] = INVALID_VALUE_ID
    return XnnGraph(
        values=[replace(by_id[old], id=new[old]) for old in order],
        nodes=[
            replace(
                node,
                inputs=tuple(new[value] for value in node.inputs),
                outputs=tuple(new[value] for value in node.outputs),
            )
            for node in graph.nodes
        ],
        inputs=[new[value] for value in graph.inputs],
        outputs=[new[value] for value in graph.outputs],
    )
