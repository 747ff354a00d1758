"""Attention of few heads over many tokens is computed one head after the other."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.delegate.passes import merge_movement, split_heads
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

SOFTMAX = NodeKind.SOFTMAX


class Attention(GraphBuilder):
    def product(self, x: int, columns: int) -> int:
        shape = self.graph.values[x].shape
        inputs = (x, self.random(columns, shape[-1]), self.random(columns))
        return self.apply(NodeKind.FULLY_CONNECTED, inputs, (*shape[:-1], columns))

    def add(self, x: int, y: int) -> int:
        return self.apply(NodeKind.ADD, (x, y), self.graph.values[x].shape)


def attention(
    windows: int,
    heads: int,
    tokens: int,
    size: int = 16,
    masked: bool = False,
    scores_read: bool = False,
    back: bool = True,
) -> XnnGraph:
    s = Attention()
    width = heads * size
    x = s.input((windows, tokens, width))
    q, v = (s.move(s.product(x, width), (windows, tokens, heads, size), "0213") for _ in range(2))
    k = s.move(s.product(x, width), "021", (windows, heads, size, tokens))
    scores = (windows, heads, tokens, tokens)
    a = s.apply(NodeKind.BATCH_MATRIX_MULTIPLY, (q, k), scores)
    a = s.add(a, s.random(1, heads, tokens, tokens))
    if masked:
        a = s.add(s.move(a, (1, *scores)), s.random(1, windows, 1, tokens, tokens))
        a = s.move(a, scores)
    a = s.apply(SOFTMAX, (a,), scores)
    o = s.apply(NodeKind.BATCH_MATRIX_MULTIPLY, (a, v), (windows, heads, tokens, size))
    if back:
        o = s.product(s.move(o, "0213", (windows, tokens, width)), width)
    return s.finish(o, a) if scores_read else s.finish(o)


def applied(graph: XnnGraph) -> None:
    split_heads.apply(graph)
    merge_movement.apply(graph)


@settings(deadline=None, max_examples=12)
@given(heads=st.integers(2, 8), masked=st.booleans(), size=st.sampled_from([16, 32]))
def test_heads_one_after_the_other(heads: int, masked: bool, size: int) -> None:
    windows = -(-split_heads.LARGE_SCORES // (heads * 4 * 48 * 48))
    graph = after(attention(windows, heads, 48, size, masked), applied)
    found = kinds(graph)
    assert found[SOFTMAX] == heads
    assert found[NodeKind.FULLY_CONNECTED] == 3 * heads + 1
    # The keys' columns and rows still change places; no heads do.
    assert found[NodeKind.STATIC_TRANSPOSE] == heads
    softmax = [graph.values[n.outputs[0]].shape for n in graph.nodes if n.kind is SOFTMAX]
    assert set(softmax) == {(windows, 1, 48, 48)}


@pytest.mark.parametrize(
    "graph",
    [
        attention(2, 3, 48),
        attention(8, 12, 64),
        attention(40, 3, 48, size=12),
        attention(40, 3, 48, scores_read=True),
        attention(40, 3, 48, back=False),
    ],
    ids=["small scores", "many heads", "odd heads", "scores read elsewhere", "heads not joined"],
)
def test_heads_that_stay_together(graph: XnnGraph) -> None:
    assert kinds(after(graph, applied))[SOFTMAX] == 1
