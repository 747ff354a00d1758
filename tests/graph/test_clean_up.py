"""Common subexpressions, dead nodes, renumbering."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds

from penstock.graph import checks, clean_up
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind, TransposeAttributes


def twice(**second: object) -> XnnGraph:
    """Two nodes from one input, the second with other properties, and their sum."""
    b = GraphBuilder()
    x = b.input((2, 2))
    first = {"attributes": TransposeAttributes((1, 0))}
    y = b.apply(NodeKind.STATIC_TRANSPOSE, [x], (2, 2), **first)
    z = b.apply(NodeKind.STATIC_TRANSPOSE, [x], (2, 2), **{**first, **second})
    return b.finish(b.apply(NodeKind.ADD, [y, z], (2, 2)))


def test_equal_nodes_are_one() -> None:
    graph = twice()
    clean_up.merge_equal_nodes(graph)
    assert kinds(graph) == {NodeKind.STATIC_TRANSPOSE: 1, NodeKind.ADD: 1}
    assert graph.nodes[1].inputs == (1, 1)


def test_chains_of_equal_nodes_are_one() -> None:
    b = GraphBuilder()
    x = b.input((2, 2))
    ends = [b.apply(NodeKind.SQUARE, [b.apply(NodeKind.ABS, [x], (2, 2))], (2, 2)) for _ in "abc"]
    graph = b.finish(
        b.apply(NodeKind.ADD, [b.apply(NodeKind.ADD, ends[:2], (2, 2)), ends[2]], (2, 2))
    )
    clean_up.merge_equal_nodes(graph)
    assert kinds(graph) == {NodeKind.ABS: 1, NodeKind.SQUARE: 1, NodeKind.ADD: 2}


@pytest.mark.parametrize(
    "second",
    [
        {"attributes": TransposeAttributes((0, 1))},
        {"clamp": (0.0, 1.0)},
        {"flags": 1},
        {"dtype": DataType.QINT8, "quantization": PerTensor(0.5, 0)},
    ],
)
def test_nodes_that_differ_stay(second: dict[str, object]) -> None:
    graph = twice(**second)
    clean_up.merge_equal_nodes(graph)
    assert kinds(graph)[NodeKind.STATIC_TRANSPOSE] == 2


def test_outputs_stay_two() -> None:
    b = GraphBuilder()
    x = b.input((2, 2))
    graph = b.finish(*(b.apply(NodeKind.ABS, [x], (2, 2)) for _ in "ab"))
    clean_up.merge_equal_nodes(graph)
    assert kinds(graph)[NodeKind.ABS] == 2


def test_dead_nodes_and_values_go() -> None:
    b = GraphBuilder()
    x = b.input((2, 2))
    unused = b.input((3,))
    b.random(4)
    b.apply(NodeKind.NEGATE, [b.apply(NodeKind.ABS, [x], (2, 2))], (2, 2))
    graph = b.finish(b.apply(NodeKind.ADD, [x, b.random(2, 2)], (2, 2)))
    clean_up.remove_dead(graph)
    assert kinds(graph) == {NodeKind.ADD: 1}
    small = clean_up.renumbered(graph)
    assert [value.id for value in small.values] == [0, 1, 2, 3]
    assert (small.inputs, small.outputs) == ([0, 1], [2]), "inputs stay, read or not"
    assert small.values[1].shape == graph.values[unused].shape
    assert small.nodes[0].inputs == (0, 3) and small.nodes[0].outputs == (2,)
    checks.check_graph(small)
    assert graph.nodes[0].inputs != small.nodes[0].inputs, "the old graph is left as it was"
