"""Sums of long rows are taken by pooling."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.delegate.passes import pool_means
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes

POOL, PRODUCT = NodeKind.AVG_POOLING_2D, NodeKind.FULLY_CONNECTED


def fixed(graph: XnnGraph) -> None:
    pool_means.apply(graph)


def dynamic(graph: XnnGraph) -> None:
    graph.fixed_sizes = False
    pool_means.apply(graph)


def row_sums(
    *shape: int, weights: np.ndarray | None = None, bias: bool = False, shared: bool = False
) -> XnnGraph:
    sketch = GraphBuilder()
    x = sketch.apply(NodeKind.ABS, (sketch.input(shape),), shape)
    row = np.full((1, shape[-1]), 0.25) if weights is None else weights
    offset = sketch.random(1) if bias else INVALID_VALUE_ID
    sums = sketch.apply(PRODUCT, (x, sketch.constant(row), offset), (*shape[:-1], 1))
    result = sketch.apply(NodeKind.ABS, (sums,), (*shape[:-1], 1))
    return sketch.finish(result, x) if shared else sketch.finish(result)


@settings(deadline=None, max_examples=30)
@given(
    lead=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    length=st.sampled_from([96, 144, 192, 240, 288, 384, 768, 1000, 1536, 97]),
    bias=st.booleans(),
    shared=st.booleans(),
)
def test_the_sums_stay(lead: list[int], length: int, bias: bool, shared: bool) -> None:
    after(row_sums(*lead, length, bias=bias, shared=shared), fixed)


def test_a_long_row_is_pooled_first() -> None:
    graph = after(row_sums(1, 196, 384), fixed)
    assert kinds(graph)[POOL] == 1
    (product,) = (node for node in graph.nodes if node.kind is PRODUCT)
    assert graph.values[product.inputs[0]].shape == (1, 196, 1, 64)


@pytest.mark.parametrize(
    "graph",
    [
        row_sums(4, 384),  # few numbers
        row_sums(784, 90),  # nothing divides it
        row_sums(784, 96, shared=True),  # its reshape would be a copy
        row_sums(196, 384, weights=np.arange(384.0).reshape(1, 384)),
        row_sums(196, 384, weights=np.ones((2, 384))[:1] * np.nan),
    ],
    ids=["small", "odd length", "short and read elsewhere", "weights differ", "not a number"],
)
def test_what_stays_a_product(graph: XnnGraph) -> None:
    before = kinds(graph)
    fixed(graph)
    assert kinds(graph) == before


def test_dimensions_that_may_vary_are_left_to_the_reshape() -> None:
    def shapes(graph: XnnGraph) -> list[tuple[int, ...]]:
        found = [node.attributes for node in graph.nodes]
        return [item.new_shape for item in found if isinstance(item, ReshapeAttributes)]

    assert shapes(after(row_sums(2, 98, 384), fixed)) == [(1, 0, 6, 64), (0, 98, 1)]
    assert shapes(after(row_sums(1, 196, 384), dynamic)) == [(1, 0, 6, 64), (1, 0, 1)]
    assert shapes(after(row_sums(2, 98, 384), dynamic)) == []  # it might be either
