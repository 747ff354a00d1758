"""Fuse a clamp into the output range of its producer."""

from __future__ import annotations

from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind


def apply(graph: XnnGraph) -> None:
    """Given ``y = CLAMP(node(x))``, ``node(x)`` read by nothing else → Result ``node`` with
    the output range, writing ``y``. Two ranges in a row become their intersection. What only moves
    values may stand between the two: it stays."""
    index = Index(graph)
    for clamp in list(graph.nodes):
        if clamp.kind is not NodeKind.CLAMP or clamp.clamp is None:
            continue
        source = clamp.inputs[0]
        last, producer = index.producer.get(source), _producer(index, source, clamp)
        if last is None or producer is None:
            continue
        output = clamp.outputs[0]
        if last is not producer and not _alike(index.values[source], index.values[output]):
            continue
        both = _intersection(producer.clamp, clamp.clamp)
        if both is None:
            continue
        producer.clamp = both
        index.set_output(last, output)
        index.remove(clamp)
    index.finish()


def _producer(index: Index, value: int, reader: Node) -> Node | None:
    """The node with an output range that makes ``value``, or what is moved to be it, if nothing but
    ``reader`` sees it on the way."""
    while index.only_reader(value) is reader:
        node = index.producer.get(value)
        if node is None or node.kind.traits.output_range:
            return node
        if not node.kind.traits.selects:
            return None
        reader, value = node, node.inputs[0]
    return None


def _alike(a: Value, b: Value) -> bool:
    """Whether what moves one may write the other."""
    return a.dtype is b.dtype and a.quantization == b.quantization


def _intersection(
    first: tuple[float, float] | None, second: tuple[float, float]
) -> tuple[float, float] | None:
    """The range of a clamp after a clamp, where that is one range with low < high."""
    if first is None:
        return second
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low < high else None
