"""Reshapes and transposes in a row become as few as will do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.delegate.passes import merge_movement
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes

RESHAPE, TRANSPOSE = NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE


class Moves(GraphBuilder):
    def absolute(self, x: int) -> int:
        return self.apply(NodeKind.ABS, (x,), self.graph.values[x].shape)


def chain(shape: Sequence[int], *steps: Sequence[int] | str) -> XnnGraph:
    sketch = Moves()
    start = sketch.absolute(sketch.input(shape))
    return sketch.finish(sketch.absolute(sketch.move(start, *steps)))


@pytest.mark.parametrize(
    ("shape", "steps", "left"),
    [
        ((1, 6, 8), [(6, 1, 8), (1, 6, 1, 8), (6, 8)], [RESHAPE]),
        ((1, 6, 8), [(6, 1, 8), (1, 6, 8)], []),
        ((2, 3, 4), ["120", "201"], []),
        ((2, 3, 4), ["120", "120"], [TRANSPOSE]),
        # The heads of attention, put back in two transposes.
        ((1, 3, 5, 4), ["0132", (12, 5), "10"], [TRANSPOSE, RESHAPE]),
        ((5, 12), [(1, 5, 3, 4), "0213"], [RESHAPE, TRANSPOSE]),
        # Windows of an image: the middle has to be split and joined.
        ((1, 4, 6, 3), [(1, 2, 2, 6, 3), (1, 2, 2, 3, 2, 3), "013245", (6, 4, 3)],
         [RESHAPE, TRANSPOSE, RESHAPE]),
        ((6, 4), [(3, 8), "10", (4, 6)], [RESHAPE, TRANSPOSE, RESHAPE]),
    ],
)  # fmt: skip
def test_chains(
    shape: Sequence[int], steps: Sequence[Sequence[int] | str], left: list[NodeKind]
) -> None:
    graph = after(chain(shape, *steps), merge_movement.apply, tolerance=0.0)
    assert [node.kind for node in graph.nodes][1:-1] == left


def test_what_others_read_is_not_moved_twice() -> None:
    sketch = Moves()
    x = sketch.absolute(sketch.input((4, 6)))
    turned = sketch.move(x, "10")
    first = sketch.absolute(sketch.move(turned, (2, 3, 4)))
    second = sketch.absolute(sketch.move(turned, (6, 2, 2)))
    graph = after(sketch.finish(first, second), merge_movement.apply, tolerance=0.0)
    assert kinds(graph)[TRANSPOSE] == 1


def test_outputs_stay() -> None:
    sketch = Moves()
    x = sketch.absolute(sketch.input((4, 6)))
    middle = sketch.move(x, "10")
    graph = sketch.finish(middle, sketch.move(middle, "10"))
    assert kinds(after(graph, merge_movement.apply, tolerance=0.0))[TRANSPOSE] >= 1


def test_a_dynamic_dimension_stays_free() -> None:
    graph = chain((1, 6, 8), (6, 1, 8), (1, 6, 2, 4))
    reshapes = [node for node in graph.nodes if node.kind is RESHAPE]
    reshapes[0].attributes = ReshapeAttributes((0, 1, 8))
    reshapes[1].attributes = ReshapeAttributes((1, 0, 2, 4))
    graph = after(graph, merge_movement.apply, tolerance=0.0)
    (left,) = (node for node in graph.nodes if node.kind is RESHAPE)
    assert left.attributes == ReshapeAttributes((1, 0, 2, 4))


@st.composite
def random_chains(draw: st.DrawFn) -> XnnGraph:
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    size = math.prod(shape)
    steps: list[Sequence[int] | str] = []
    rank = len(shape)
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(rank)))
            steps.append("".join(map(str, order)))
        else:
            rest, dims = size, []
            while rest > 1 and len(dims) < 4:
                dims.append(draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
                rest //= dims[-1]
            dims = [*dims, rest]
            steps.append(dims)
            rank = len(dims)
    return chain(shape, *steps)


@settings(max_examples=60, deadline=None)
@given(random_chains())
def test_any_chain_moves_the_same(graph: XnnGraph) -> None:
    before = kinds(graph)
    found = kinds(after(graph, merge_movement.apply, tolerance=0.0))
    assert found[TRANSPOSE] <= before[TRANSPOSE]
    assert sum(found.values()) <= sum(before.values()) or found[TRANSPOSE] < before[TRANSPOSE]
