"""Movement of whole rows goes to the side of a product where it costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import merge_movement, move_past_products
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

RESHAPE, TRANSPOSE = NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE


class Rows(GraphBuilder):
    def absolute(self, x: int) -> int:
        return self.apply(NodeKind.ABS, (x,), self.shape(x))

    def product(self, x: int, columns: int) -> int:
        shape = self.graph.values[x].shape
        inputs = (x, self.random(columns, shape[-1]), self.random(columns))
        return self.apply(NodeKind.FULLY_CONNECTED, inputs, (*shape[:-1], columns))


def applied(graph: XnnGraph) -> None:
    move_past_products.apply(graph)
    merge_movement.apply(graph)


def windows(columns: int = 12, shared: int | None = None, last: str = "013245") -> XnnGraph:
    """Heads put side by side, a projection, windows put into their places; ``shared``: which
    step's result is an output too."""
    sketch = Rows()
    heads = sketch.absolute(sketch.input((6, 3, 4, 4)))
    joined = sketch.move(heads, "0213", (6, 4, 12))
    product = sketch.product(joined, columns)
    split = sketch.move(product, (1, 2, 3, 2, 2, columns))
    image = sketch.move(split, last)
    result = sketch.absolute(image)
    outputs = [result] + ([] if shared is None else [[joined, product, split][shared]])
    return sketch.finish(*outputs)


@pytest.mark.parametrize("columns", [12, 5])
def test_two_transposes_around_a_product_become_one(columns: int) -> None:
    graph = after(windows(columns), applied)
    assert kinds(graph)[TRANSPOSE] == 1
    order = [node.kind for node in graph.nodes]
    assert order.index(TRANSPOSE) < order.index(NodeKind.FULLY_CONNECTED)


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_a_result_that_is_read_elsewhere_stays(shared: int) -> None:
    assert kinds(after(windows(shared=shared), applied))[TRANSPOSE] == 2


def test_a_transpose_of_columns_stays() -> None:
    assert kinds(after(windows(last="013254"), applied))[TRANSPOSE] == 2


def test_a_single_transpose_stays_behind() -> None:
    sketch = Rows()
    product = sketch.product(sketch.absolute(sketch.input((3, 4, 8))), 32)
    graph = sketch.finish(sketch.absolute(sketch.move(product, "102")))
    order = [node.kind for node in after(graph, applied).nodes]
    assert order.index(TRANSPOSE) > order.index(NodeKind.FULLY_CONNECTED)


def projections(*outputs: int, first: Sequence[int] = (1, 2, 3, 8), also: bool = False) -> XnnGraph:
    sketch = Rows()
    rows = sketch.move(sketch.absolute(sketch.input(first)), (6, 8))
    products = [sketch.absolute(sketch.product(rows, columns)) for columns in outputs]
    return sketch.finish(*products, *([sketch.absolute(rows)] if also else []))


def test_a_reshape_before_several_products_goes_behind_each() -> None:
    graph = after(projections(4, 5, 6), applied)
    order = [node.kind for node in graph.nodes]
    assert order.index(RESHAPE) > order.index(NodeKind.FULLY_CONNECTED)
    assert kinds(graph)[RESHAPE] == 3


@pytest.mark.parametrize(
    "graph",
    [projections(4), projections(4, 5, also=True), projections(4, 5, first=(3, 2, 2, 4))],
    ids=["one product", "read by something else", "other rows"],
)
def test_a_reshape_that_stays(graph: XnnGraph) -> None:
    order = [node.kind for node in after(graph, applied).nodes]
    assert order.index(RESHAPE) < order.index(NodeKind.FULLY_CONNECTED)


def joined(
    source: int,
    columns: int,
    *steps: Sequence[int] | str,
    also: bool = False,
    first: bool = False,
) -> XnnGraph:
    """A product, movement, and two readers of the result; ``also``: its input is an output;
    ``first``: it is the graph's input."""
    sketch = Rows()
    x = sketch.input((4, 6, source))
    x = x if first else sketch.absolute(x)
    moved = sketch.move(sketch.product(x, columns), *steps)
    results = [sketch.absolute(moved), sketch.apply(NodeKind.NEGATE, (moved,), sketch.shape(moved))]
    return sketch.finish(*results, *([x] if also else []))


@pytest.mark.parametrize(
    "graph",
    [
        joined(8, 5, (24, 5)),
        joined(5, 8, (24, 8)),
        joined(5, 5, "102", (24, 5)),
        joined(5, 5, (24, 5), first=True),
    ],
    ids=["to fewer columns", "to more columns", "with a transpose", "of the graph's input"],
)
def test_a_reshape_for_several_readers_goes_before_the_product(graph: XnnGraph) -> None:
    order = [node.kind for node in after(graph, applied).nodes]
    assert order.index(RESHAPE) < order.index(NodeKind.FULLY_CONNECTED)


@pytest.mark.parametrize(
    "graph",
    [joined(5, 5, (24, 5), also=True), joined(8, 5, "102", (24, 5)), joined(5, 5, "102")],
    ids=["the input is read elsewhere", "more would be transposed", "no reshape"],
)
def test_movement_that_stays_behind(graph: XnnGraph) -> None:
    order = [node.kind for node in after(graph, applied).nodes]
    assert order.index(NodeKind.FULLY_CONNECTED) == 1
