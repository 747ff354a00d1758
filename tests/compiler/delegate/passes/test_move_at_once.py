"""Movement comes right after what it moves."""

from __future__ import annotations

from graph_builder import GraphBuilder
from graph_passes_harness import after

from penstock.compiler.delegate.passes import move_at_once
from penstock.graph.kinds import NodeKind, ReshapeAttributes, TransposeAttributes


def test_movement_follows_its_source() -> None:
    sketch = GraphBuilder()
    x = sketch.input((2, 6))
    a = sketch.apply(NodeKind.ABS, (x,), (2, 6))
    b = sketch.apply(NodeKind.SQUARE, (x,), (2, 6))
    moved_a = sketch.apply(NodeKind.STATIC_RESHAPE, (a,), (3, 4), ReshapeAttributes((3, 4)))
    turned_a = sketch.apply(
        NodeKind.STATIC_TRANSPOSE, (moved_a,), (4, 3), TransposeAttributes((1, 0))
    )
    turned_b = sketch.apply(NodeKind.STATIC_TRANSPOSE, (b,), (6, 2), TransposeAttributes((1, 0)))
    graph = after(sketch.finish(turned_a, turned_b, a), move_at_once.apply)
    assert [node.kind for node in graph.nodes] == [
        NodeKind.ABS, NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE,
        NodeKind.SQUARE, NodeKind.STATIC_TRANSPOSE,
    ]  # fmt: skip
