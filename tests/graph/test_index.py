"""The index of a graph: producers and readers while nodes are added, connected and removed."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from graph_builder import GraphBuilder

from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind, TransposeAttributes


def chain() -> XnnGraph:
    """x -> abs (1) -> square (2) -> negate (3), an output; 1 + 2 (4), an output too."""
    b = GraphBuilder()
    x = b.input((2, 3))
    magnitude = b.apply(NodeKind.ABS, [x], (2, 3))
    square = b.apply(NodeKind.SQUARE, [magnitude], (2, 3))
    negative = b.apply(NodeKind.NEGATE, [square], (2, 3))
    total = b.apply(NodeKind.ADD, [magnitude, square], (2, 3))
    return b.finish(negative, total)


def is_true(index: Index) -> None:
    """Producers and readers are those of the nodes that are there."""
    producer: dict[int, Node] = {}
    readers: dict[int, list[Node]] = defaultdict(list)
    for node in index.walk():
        for output in node.outputs:
            producer[output] = node
        for value in {*node.inputs} - {INVALID_VALUE_ID}:
            readers[value].append(node)
    assert index.producer == producer
    found = {value: nodes for value, nodes in index.readers.items() if nodes}
    assert {v: sorted(map(id, nodes)) for v, nodes in found.items()} == {
        v: sorted(map(id, nodes)) for v, nodes in readers.items()
    }


def test_who_makes_and_who_reads() -> None:
    graph = chain()
    index = Index(graph)
    is_true(index)
    magnitude, square, negative, total = graph.nodes
    assert index.only_reader(0) is magnitude
    assert index.only_reader(1) is None, "two nodes read it"
    assert index.only_reader(3) is None, "the delegate's caller reads it"
    assert index.made_by(2, NodeKind.SQUARE) is square
    assert index.made_by(2, NodeKind.ABS) is None and index.made_by(0, NodeKind.ABS) is None


def test_what_is_read_is_not_removed() -> None:
    graph = chain()
    index = Index(graph)
    for node in graph.nodes:
        with pytest.raises(ValueError, match=f"a {node.kind.name} node is still read"):
            index.remove(node)
    is_true(index)


def test_a_removed_node_leaves_at_the_end() -> None:
    graph = chain()
    index = Index(graph)
    square = graph.nodes[1]
    index.replace_uses(2, 1)
    is_true(index)
    assert graph.nodes[2].inputs == (1,) and graph.nodes[3].inputs == (1, 1)
    index.remove(square)
    is_true(index)
    assert not index.alive(square) and square in graph.nodes
    assert square.inputs, "what it read is still to be seen"
    index.finish()
    assert [node.kind.name for node in graph.nodes] == ["ABS", "NEGATE", "ADD"]


def test_walking_leaves_out_what_was_removed_before_its_turn() -> None:
    graph = chain()
    index = Index(graph)
    seen = []
    for node in index.walk():
        seen.append(node.kind)
        if node.kind is NodeKind.ABS:
            index.replace(graph.nodes[1], 1)
    assert seen == [NodeKind.ABS, NodeKind.NEGATE, NodeKind.ADD]


def test_new_nodes_stand_before_what_they_are_made_for() -> None:
    graph = chain()
    graph.nodes[2].debug_handle = 7
    index = Index(graph)
    negate = graph.nodes[2]
    turned = index.add(
        NodeKind.STATIC_TRANSPOSE, (2,), (3, 2), TransposeAttributes((1, 0)), like=negate
    )
    back = index.add(
        NodeKind.STATIC_TRANSPOSE, (turned,), (2, 3), TransposeAttributes((1, 0)), like=negate
    )
    index.set_inputs(negate, (back,))
    is_true(index)
    assert [n.kind.name for n in graph.nodes] == [
        "ABS", "SQUARE", "STATIC_TRANSPOSE", "STATIC_TRANSPOSE", "NEGATE", "ADD",
    ]  # fmt: skip
    assert index.values[turned].shape == (3, 2) and not index.values[turned].is_output
    assert index.producer[turned].debug_handle == 7


def test_a_copy_has_everything_but_its_place() -> None:
    graph = chain()
    graph.nodes[3].clamp = (0.0, 6.0)
    index = Index(graph)
    total = graph.nodes[3]
    made = index.add_copy(total, (1, 1), (2, 3), None, before=graph.nodes[2])
    is_true(index)
    copy = index.producer[made]
    assert (copy.kind, copy.clamp, copy.inputs) == (NodeKind.ADD, (0.0, 6.0), (1, 1))
    assert graph.nodes.index(copy) == 2


def test_a_value_becomes_a_constant() -> None:
    graph = chain()
    index = Index(graph)
    assert index.constant(1) is None
    index.make_constant(1, np.ones((2, 3), np.float32))
    is_true(index)
    assert index.constant(1) is not None and len(list(index.walk())) == 3


def test_another_node_makes_an_output() -> None:
    graph = chain()
    index = Index(graph)
    square, negate = graph.nodes[1:3]
    fresh = index.new_value(Value(0, graph.values[2].dtype, (2, 3)))
    index.replace_uses(2, fresh)
    index.set_output(square, fresh)
    is_true(index)
    assert 2 not in index.producer and negate.inputs == (fresh,)
