"""A multiplication by constants after a product goes into its weights."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import fold_scale
from penstock.graph.dtypes import DataType, PerChannel, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import (
    Conv2dAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

PRODUCT, MULTIPLY = NodeKind.FULLY_CONNECTED, NodeKind.MULTIPLY


class Scaled(GraphBuilder):
    def product(self, x: int, outputs: int, bias: bool = True) -> int:
        *lead, channels = self.graph.values[x].shape
        last = self.random(outputs) if bias else INVALID_VALUE_ID
        return self.apply(PRODUCT, (x, self.random(outputs, channels), last), (*lead, outputs))

    def times(self, x: int, factor: np.ndarray, first: bool = False) -> int:
        inputs = (self.constant(factor), x) if first else (x, self.constant(factor))
        return self.apply(MULTIPLY, inputs, self.graph.values[x].shape)


VECTOR = np.array([0.5, -2.0, 0.0, 1.5], np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("factor", [np.full((), 0.125), np.full((1, 1), -3.0), VECTOR])
def test_into_a_product(factor: np.ndarray, first: bool, bias: bool) -> None:
    sketch = Scaled()
    y = sketch.product(sketch.input((2, 3, 5)), 4, bias)
    graph = sketch.finish(sketch.times(y, factor, first))
    # The last multiplication of a graph makes its output, so one more node follows.
    graph = _squared(sketch, graph)
    assert kinds(after(graph, fold_scale.apply)) == {PRODUCT: 1, NodeKind.SQUARE: 1}


def _squared(sketch: Scaled, graph: XnnGraph) -> XnnGraph:
    (last,) = graph.outputs
    graph.outputs.clear()
    graph.values[last].is_output = False
    graph.values[last].external_id = None
    return sketch.finish(sketch.apply(NodeKind.SQUARE, (last,), graph.values[last].shape))


@pytest.mark.parametrize("depthwise", [True, False])
def test_into_convolutions(depthwise: bool) -> None:
    sketch = Scaled()
    x = sketch.input((1, 5, 5, 4))
    groups, kind = (4, NodeKind.DEPTHWISE_CONV_2D) if depthwise else (2, NodeKind.CONV_2D)
    conv = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), groups, 4 // groups, 4 // groups)
    taps = sketch.random(1, 3, 3, 4) if depthwise else sketch.random(4, 3, 3, 2)
    y = sketch.apply(kind, (x, taps, sketch.random(4)), (1, 5, 5, 4), conv)
    graph = _squared(sketch, sketch.finish(sketch.times(y, VECTOR)))
    assert kinds(after(graph, fold_scale.apply)) == {kind: 1, NodeKind.SQUARE: 1}


def test_a_vector_through_movement_of_rows() -> None:
    sketch = Scaled()
    y = sketch.product(sketch.input((2, 6, 5)), 4)
    y = sketch.apply(NodeKind.STATIC_SLICE, (y,), (2, 3, 4), SliceAttributes((0, 1, 0), (0, 3, 0)))
    y = sketch.apply(NodeKind.STATIC_TRANSPOSE, (y,), (3, 2, 4), TransposeAttributes((1, 0, 2)))
    y = sketch.apply(NodeKind.STATIC_RESHAPE, (y,), (6, 4), ReshapeAttributes((6, 4)))
    graph = _squared(sketch, sketch.finish(sketch.times(y, VECTOR)))
    assert MULTIPLY not in kinds(after(graph, fold_scale.apply))


def test_a_vector_of_another_dimension_stays() -> None:
    sketch = Scaled()
    y = sketch.product(sketch.input((4, 5)), 4)
    y = sketch.apply(NodeKind.STATIC_TRANSPOSE, (y,), (4, 4), TransposeAttributes((1, 0)))
    graph = _squared(sketch, sketch.finish(sketch.times(y, VECTOR)))
    assert kinds(after(graph, fold_scale.apply))[MULTIPLY] == 1


def test_not_into_tied_weights_nor_what_others_read() -> None:
    sketch = Scaled()
    x, weight = sketch.input((2, 4)), sketch.random(4, 4)
    y = sketch.apply(PRODUCT, (x, weight, INVALID_VALUE_ID), (2, 4))
    z = sketch.apply(PRODUCT, (sketch.times(y, VECTOR), weight, INVALID_VALUE_ID), (2, 4))
    assert kinds(after(sketch.finish(z), fold_scale.apply))[MULTIPLY] == 1
    sketch = Scaled()
    y = sketch.product(sketch.input((2, 5)), 4)
    z = sketch.times(y, VECTOR)
    graph = sketch.finish(sketch.apply(NodeKind.ADD, (y, z), (2, 4)))
    assert kinds(after(graph, fold_scale.apply))[MULTIPLY] == 1


@pytest.mark.parametrize("positive", [True, False])
def test_quantized_weights_take_positive_factors_in_their_scales(positive: bool) -> None:
    sketch = Scaled()
    x = sketch.input((2, 6))
    q = sketch.apply(
        NodeKind.CONVERT, (x,), (2, 6), dtype=DataType.QDINT8, quantization=PerToken(1)
    )
    scales = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    taps = np.random.default_rng(3).integers(-127, 128, (4, 6)).astype(np.int8)
    weight = sketch.value((4, 6), DataType.QCINT8, PerChannel(scales, 0), taps)
    y = sketch.apply(PRODUCT, (q, weight, sketch.random(4)), (2, 4))
    factor = np.abs(VECTOR) + 0.5 if positive else VECTOR
    graph = _squared(sketch, sketch.finish(sketch.times(y, factor)))
    assert kinds(after(graph, fold_scale.apply))[MULTIPLY] == (0 if positive else 1)
