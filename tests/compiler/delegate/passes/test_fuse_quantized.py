"""Arithmetic on int8 only where XNNPACK's fixed-point numbers take the scales."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import fuse_quantized
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

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
