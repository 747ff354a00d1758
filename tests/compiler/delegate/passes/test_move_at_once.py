"""Movement comes right after what it moves."""

from __future__ import annotations

from graph_passes_harness import Sketch, after

from penstock.compiler.delegate.passes import move_at_once
from penstock.graph.kinds import NodeKind, ReshapeAttributes, TransposeAttributes


def test_movement_follows_its_source() -> None:
    sketch = Sketch()
    x = sketch.input(2, 6)
    a = sketch.node(NodeKind.ABS, (x,), (2, 6))
    b = sketch.node(NodeKind.SQUARE, (x,), (2, 6))
    moved_a = sketch.node(NodeKind.STATIC_RESHAPE, (a,), (3, 4), ReshapeAttributes((3, 4)))
    turned_a = sketch.node(
        NodeKind.STATIC_TRANSPOSE, (moved_a,), (4, 3), TransposeAttributes((1, 0))
    )
    turned_b = sketch.node(NodeKind.STATIC_TRANSPOSE, (b,), (6, 2), TransposeAttributes((1, 0)))
    graph = after(sketch.output(turned_a, turned_b, a), move_at_once.apply)
    assert [node.kind for node in graph.nodes] == [
        NodeKind.ABS, NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE,
        NodeKind.SQUARE, NodeKind.STATIC_TRANSPOSE,
    ]  # fmt: skip
