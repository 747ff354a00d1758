"""Fuse a clamp into the output range of its producer."""

from __future__ import annotations

from penstock.graph.graph import XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind


def apply(graph: XnnGraph) -> None:
    """Given ``y = CLAMP(node(x))``, ``node(x)`` read by nothing else → Result ``node`` with
    the output range, writing ``y``. Two ranges in a row become their intersection."""
    index = Index(graph)
    for clamp in list(graph.nodes):
        if clamp.kind is not NodeKind.CLAMP or clamp.clamp is None:
            continue
        source = clamp.inputs[0]
        producer = index.producer.get(source)
        if producer is None or not producer.kind.traits.output_range:
            continue
        if index.only_reader(source) is not clamp:
            continue
        both = _intersection(producer.clamp, clamp.clamp)
        if both is None:
            continue
        output = clamp.outputs[0]
        producer.clamp = both
        index.set_output(producer, output)
        index.remove(clamp)
    index.finish()


def _intersection(
    first: tuple[float, float] | None, second: tuple[float, float]
) -> tuple[float, float] | None:
    """The range of a clamp after a clamp, where that is one range with low < high."""
    if first is None:
        return second
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low < high else None
