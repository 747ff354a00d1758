"""Arithmetic on int8 only where XNNPACK's fixed-point numbers take the scales, and averaging only
where the result's range holds what is averaged."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import fuse_quantized
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind, PadAttributes, ResizeAttributes

ADD, SUBTRACT, MULTIPLY = NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY


def between_converts(kind: NodeKind, left: float, right: float, result: float) -> XnnGraph:
    """dequantize → ``kind`` → quantize → dequantize, with these scales."""
    sketch = GraphBuilder()
    operands = []
    for scale in (left, right):
        integers = sketch.input((50,), dtype=DataType.QINT8, quantization=PerTensor(scale, 3))
        operands.append(sketch.apply(NodeKind.CONVERT, [integers], [50]))
    real = sketch.apply(kind, operands, [50])
    integers = sketch.apply(
        NodeKind.CONVERT,
        [real],
        [50],
        dtype=DataType.QINT8,
        quantization=PerTensor(result, -4),
    )
    return sketch.finish(sketch.apply(NodeKind.CONVERT, [integers], [50]))


@pytest.mark.parametrize(
    ("kind", "left", "right", "result", "is_int8"),
    [
        (ADD, 0.02, 0.03, 0.05, True),
        (ADD, 2**-10, 1.0, 1.0, True),
        (ADD, 2**-11, 1.0, 1.0, False),
        (ADD, 0.02, 255 * 0.05, 0.05, True),
        (ADD, 0.02, 256 * 0.05, 0.05, False),
        (SUBTRACT, 0.02, 0.03, 0.05, True),
        (SUBTRACT, 1.0, 2**-11, 1.0, False),
        (SUBTRACT, 4.0, 4.0, 2**-18, False),
        (MULTIPLY, 0.02, 0.03, 0.0005, True),
        (MULTIPLY, 10.0, 0.1, 2**-8, False),
        (MULTIPLY, 2**-10, 2**-8, 1.0, False),
    ],
)
def test_scales_that_xnnpack_takes(
    kind: NodeKind, left: float, right: float, result: float, is_int8: bool
) -> None:
    graph = after(between_converts(kind, left, right, result), fuse_quantized.apply, 0.01)
    assert kinds(graph)[kind] == 1
    assert kinds(graph)[NodeKind.CONVERT] == (1 if is_int8 else 4)


@pytest.mark.parametrize(
    ("result", "is_int8"),
    [(PerTensor(0.02, 3), True), (PerTensor(0.04, 3), True), (PerTensor(0.01, 3), False),
     (PerTensor(0.02, 40), False)],
)  # fmt: skip
def test_what_is_averaged_is_not_cut_off(result: PerTensor, is_int8: bool) -> None:
    sketch = GraphBuilder()
    images = sketch.input((1, 5, 4, 3), dtype=DataType.QINT8, quantization=PerTensor(0.02, 3))
    real = sketch.apply(NodeKind.CONVERT, [images], [1, 5, 4, 3])
    resized = sketch.apply(
        NodeKind.STATIC_RESIZE_BILINEAR_2D, [real], [1, 3, 2, 3], ResizeAttributes(3, 2)
    )
    small = sketch.apply(
        NodeKind.CONVERT, [resized], [1, 3, 2, 3], dtype=DataType.QINT8, quantization=result
    )
    graph = sketch.finish(sketch.apply(NodeKind.CONVERT, [small], [1, 3, 2, 3]))
    graph = after(graph, fuse_quantized.apply, 0.05)
    types = {value.id: value.dtype for value in graph.values}
    (resize,) = (n for n in graph.nodes if n.kind is NodeKind.STATIC_RESIZE_BILINEAR_2D)
    assert (types[resize.inputs[0]] is DataType.QINT8) == is_int8


@pytest.mark.parametrize(("number", "is_int8"), [(0.0, True), (0.3, False)])
def test_zeros_are_put_beside_integers(number: float, is_int8: bool) -> None:
    """No scale of the result is known: the input's has an integer for zero."""
    sketch = GraphBuilder()
    rows = sketch.input((4, 3), dtype=DataType.QINT8, quantization=PerTensor(0.02, 3))
    real = sketch.apply(NodeKind.CONVERT, [rows], [4, 3])
    attributes = PadAttributes((1, 0), (2, 1), number)
    padded = sketch.apply(NodeKind.STATIC_CONSTANT_PAD, [real], [7, 4], attributes)
    result = sketch.apply(NodeKind.ABS, [padded], [7, 4])
    graph = after(sketch.finish(result), fuse_quantized.apply)
    types = {value.id: value.dtype for value in graph.values}
    (pad,) = (n for n in graph.nodes if n.kind is NodeKind.STATIC_CONSTANT_PAD)
    assert (types[pad.inputs[0]] is DataType.QINT8) == is_int8
