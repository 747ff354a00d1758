"""A scale and a shift before products go into their weights."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import fold_affine
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

PRODUCT, MULTIPLY, ADD = NodeKind.FULLY_CONNECTED, NodeKind.MULTIPLY, NodeKind.ADD
INVALID = 0xFFFFFFFF


class Layers(GraphBuilder):
    def affine(self, x: int, scale: bool = True, shift: bool = True) -> int:
        """``x * scale + shift`` over the last dimension; the constants come first or last."""
        shape = self.graph.values[x].shape
        if scale:
            x = self.apply(MULTIPLY, (self.random(1, shape[-1]), x), shape)
        return self.apply(ADD, (x, self.random(shape[-1])), shape) if shift else x

    def product(self, x: int, outputs: int = 5, bias: bool = True) -> int:
        *lead, channels = self.graph.values[x].shape
        last = self.random(outputs) if bias else INVALID
        return self.apply(PRODUCT, (x, self.random(outputs, channels), last), (*lead, outputs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("scale", "shift"), [(True, True), (True, False), (False, True)])
def test_into_all_readers(scale: bool, shift: bool, bias: bool) -> None:
    sketch = Layers()
    x = sketch.affine(sketch.input((2, 3, 4)), scale, shift)
    graph = sketch.finish(*(sketch.product(x, n, bias) for n in (5, 7)))
    assert kinds(after(graph, fold_affine.apply)) == {PRODUCT: 2}


def test_a_difference_is_a_shift() -> None:
    sketch = Layers()
    x = sketch.input((2, 4))
    graph = sketch.finish(
        sketch.product(sketch.apply(NodeKind.SUBTRACT, (x, sketch.random(4)), (2, 4)))
    )
    assert kinds(after(graph, fold_affine.apply)) == {PRODUCT: 1}


def test_a_constant_minus_a_value_is_not() -> None:
    sketch = Layers()
    x = sketch.input((2, 4))
    graph = sketch.finish(
        sketch.product(sketch.apply(NodeKind.SUBTRACT, (sketch.random(4), x), (2, 4)))
    )
    assert kinds(after(graph, fold_affine.apply))[NodeKind.SUBTRACT] == 1


def rolled(sketch: Layers, x: int, other: int) -> int:
    """Rows of ``x`` before rows of ``other``, then transposed and reshaped: [2, 6, 4] to [12, 4]"""
    first = sketch.apply(
        NodeKind.STATIC_SLICE, (x,), (2, 2, 4), SliceAttributes((0, 4, 0), (0, 2, 0))
    )
    second = sketch.apply(
        NodeKind.STATIC_SLICE, (other,), (2, 4, 4), SliceAttributes((0, 0, 0), (0, 4, 0))
    )
    joined = sketch.apply(
        NodeKind.CONCATENATE_2, (first, second), (2, 6, 4), ConcatenateAttributes(1)
    )
    turned = sketch.apply(
        NodeKind.STATIC_TRANSPOSE, (joined,), (6, 2, 4), TransposeAttributes((1, 0, 2))
    )
    return sketch.apply(NodeKind.STATIC_RESHAPE, (turned,), (12, 4), ReshapeAttributes((12, 4)))


def test_through_movement() -> None:
    sketch = Layers()
    x = sketch.affine(sketch.input((2, 6, 4)))
    graph = after(sketch.finish(sketch.product(rolled(sketch, x, x))), fold_affine.apply)
    assert not {MULTIPLY, ADD} & kinds(graph).keys()


def test_not_beside_rows_of_something_else() -> None:
    sketch = Layers()
    y = sketch.input((2, 6, 4))
    x = sketch.affine(sketch.input((2, 6, 4)))
    graph = after(sketch.finish(sketch.product(rolled(sketch, x, y))), fold_affine.apply)
    assert kinds(graph)[MULTIPLY] == kinds(graph)[ADD] == 1


def convolution(padding: int, groups: int = 1) -> XnnGraph:
    sketch = Layers()
    x = sketch.affine(sketch.input((1, 4, 4, 6)))
    side = 4 - 2 + 1 + 2 * padding
    conv = Conv2dAttributes((padding,) * 4, (2, 2), (1, 1), (1, 1), groups, 6 // groups, 2)
    inputs = (x, sketch.random(2 * groups, 2, 2, 6 // groups), sketch.random(2 * groups))
    return sketch.finish(sketch.apply(NodeKind.CONV_2D, inputs, (1, side, side, 2 * groups), conv))


def test_into_convolutions() -> None:
    assert kinds(after(convolution(0), fold_affine.apply)) == {NodeKind.CONV_2D: 1}


@pytest.mark.parametrize(("padding", "groups"), [(1, 1), (0, 2)])
def test_not_where_zeros_are_added_nor_into_groups(padding: int, groups: int) -> None:
    assert kinds(after(convolution(padding, groups), fold_affine.apply))[ADD] == 1


def test_not_if_something_else_reads_it() -> None:
    sketch = Layers()
    x = sketch.affine(sketch.input((2, 4)))
    graph = sketch.finish(
        sketch.product(x), sketch.apply(NodeKind.TANH, (x,), sketch.graph.values[x].shape)
    )
    assert kinds(after(graph, fold_affine.apply))[ADD] == 1
    sketch = Layers()
    x = sketch.affine(sketch.input((2, 4)))
    assert kinds(after(sketch.finish(sketch.product(x), x), fold_affine.apply))[ADD] == 1


def test_not_into_tied_weights_nor_a_mask_of_infinity() -> None:
    sketch = Layers()
    x = sketch.affine(sketch.input((2, 4)))
    weight = sketch.random(4, 4)
    first = sketch.apply(PRODUCT, (x, weight, INVALID), (2, 4))
    graph = sketch.finish(sketch.apply(PRODUCT, (first, weight, INVALID), (2, 4)))
    assert kinds(after(graph, fold_affine.apply))[ADD] == 1
    sketch = Layers()
    mask = sketch.constant(np.array([0, -np.inf, 0, 0], np.float32))
    x = sketch.apply(ADD, (sketch.input((2, 4)), mask), (2, 4))
    graph = sketch.finish(sketch.product(x))
    fold_affine.apply(graph)
    assert kinds(graph)[ADD] == 1


def test_not_along_other_dimensions() -> None:
    sketch = Layers()
    x = sketch.input((4, 4))
    scaled = sketch.apply(MULTIPLY, (x, sketch.random(4, 1)), (4, 4))
    assert kinds(after(sketch.finish(sketch.product(scaled)), fold_affine.apply))[MULTIPLY] == 1
